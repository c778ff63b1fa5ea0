"""What a pair pays in exceptional states, from the words of the rules to the worst state of a position."""

import json
from decimal import Decimal

import pytest

from arb_pipeline.arbitrage.candidates import DIRECTIONS_OF, worst_state_net
from arb_pipeline.arbitrage.ladders import Leg, execute
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.model import MatchStatus, Relation
from arb_pipeline.pipeline import _void_states
from arb_pipeline_tests.arbitrage.builders import Fees, market

D = Decimal
RELATIONS = [(relation, int(relation is Relation.INVERTED)) for relation in DIRECTIONS_OF]


def paid(relation: Relation, direction: str, kalshi: Decimal, polymarket: Decimal) -> Decimal:
    """What the two contracts bought pay where YES of each venue pays so much, leg by leg."""
    buys_yes_of_kalshi = direction == "yes_kalshi"
    # The opposite of Kalshi's YES is bought by NO of the same question, by YES of the opposite one.
    turned = relation in {Relation.INVERTED, Relation.EXCLUSIVE}
    buys_yes_of_polymarket = buys_yes_of_kalshi if turned else not buys_yes_of_kalshi
    return (kalshi if buys_yes_of_kalshi else 1 - kalshi) + (polymarket if buys_yes_of_polymarket else 1 - polymarket)


@pytest.mark.parametrize(("relation", "index"), RELATIONS)
@pytest.mark.parametrize("pays", [("0.5", "0.5"), ("1", "1"), ("0.5", "0"), ("0.4", "0.5"), ("0", "1")])
def test_the_worst_state_is_what_both_contracts_pay(relation: Relation, index: int, pays: tuple[str, str]) -> None:
    kalshi, polymarket = map(D, pays)
    told = json.dumps({"void_states": {"cancelled": {"kalshi": pays[0], "polymarket": pays[1]}}})
    states = _void_states(told, index, MatchStatus.AUTO, relation)
    pair = Pair(market("kalshi"), market("polymarket"), relation, MatchStatus.AUTO, index, states)
    legs = [Leg(name, name, ((D("0.4"), D(10)),), Fees()) for name in ("kalshi", "polymarket")]
    bought = execute(legs, D(10))
    for direction in DIRECTIONS_OF[relation]:
        least = min(D(1), paid(relation, direction, kalshi, polymarket))
        assert worst_state_net(pair, direction, bought) == 10 * least - bought.capital


def test_a_person_overrules_the_texts_and_nobody_knows_what_nobody_read() -> None:
    states = {"void": {"kalshi": "1", "polymarket": "0"}}
    told = json.dumps({"void_states": {}, "override": {"void_states": states}})
    assert _void_states(told, 0, MatchStatus.APPROVED, Relation.EQUIVALENT) == {"void": (D(1), D(0))}
    unread = json.dumps({"void_states": states})
    assert _void_states(unread, 0, MatchStatus.REVIEW, Relation.EQUIVALENT) is None
