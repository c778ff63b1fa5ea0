"""What a direction buys, told in the venues' own words, is what it prices."""

from typing import get_args

import pytest

from arb_pipeline.arbitrage.books import states_at
from arb_pipeline.arbitrage.candidates import candidate_legs
from arb_pipeline.arbitrage.pairs import Direction, Pair, outcomes_bought
from arb_pipeline.arbitrage.streams import PairStream, load_streams
from arb_pipeline.model import MatchStatus, Relation
from arb_pipeline.units import parse_price, price_decimal
from arb_pipeline_tests.arbitrage.builders import Fees, Tape, at, market, pair, settings

PRICES = {
    ("kalshi", "YES"): "0.42",
    ("kalshi", "NO"): "0.61",
    ("polymarket", "YES"): "0.33",
    ("polymarket", "NO"): "0.7",
}
"""What each outcome of each venue is sold for, by its own name: four prices that are all different."""

ALLOWED = [
    (relation, index)
    for relation in Relation
    for index in (0, 1)
    if (relation, index) not in {(Relation.EQUIVALENT, 1), (Relation.INVERTED, 0)}
]


@pytest.mark.parametrize(("relation", "index"), ALLOWED)
@pytest.mark.parametrize("direction", get_args(Direction))
def test_outcomes_bought_are_those_whose_asks_are_paid(relation: Relation, index: int, direction: Direction) -> None:
    one = Pair(market("kalshi"), market("polymarket"), relation, MatchStatus.AUTO, index)
    tape = Tape().session("kalshi").session("polymarket")
    for venue in ("kalshi", "polymarket"):
        bid = str(1 - price_decimal(parse_price(PRICES[venue, "NO"])))
        tape.snapshot(venue, 1, [(bid, "9")], [(PRICES[venue, "YES"], "9")])
    stream = PairStream.of(one, load_streams([one], tape.data(), at(60), settings()))
    (state,) = states_at(stream, [at(2)])
    assert state.kalshi is not None
    assert state.polymarket is not None
    legs = candidate_legs(one, direction, state.kalshi, state.polymarket, (Fees(), Fees()))
    paid = tuple(leg.asks[0][0] for leg in legs)
    bought = zip(("kalshi", "polymarket"), outcomes_bought(one, direction), strict=True)
    assert paid == tuple(price_decimal(parse_price(PRICES[leg])) for leg in bought)


def test_what_each_relation_buys() -> None:
    exclusive = Pair(market("kalshi"), market("polymarket"), Relation.EXCLUSIVE, MatchStatus.AUTO)
    assert outcomes_bought(pair(), "yes_kalshi") == ("YES", "NO")
    assert outcomes_bought(pair(inverted=True), "yes_kalshi") == ("YES", "YES")
    assert outcomes_bought(exclusive, "yes_polymarket") == ("NO", "NO")
