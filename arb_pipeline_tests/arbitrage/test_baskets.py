from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.arbitrage.baskets import Basket, Buy, OutcomeSet, baskets_of, least_payout, optimise_options
from arb_pipeline.arbitrage.ladders import Fill, Leg, execute
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.model import MatchStatus, Relation
from arb_pipeline_tests.arbitrage.builders import Fees, market, pair

Asks = tuple[Fill, ...]


def states(outcomes: int, *, exclusive: bool, exhaustive: bool) -> Iterator[tuple[bool, ...]]:
    """Every way in which outcomes may come true."""
    for state in product((False, True), repeat=outcomes):
        if not (exclusive and sum(state) > 1) and not (exhaustive and not any(state)):
            yield state


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.booleans(), st.booleans())
def test_the_payout_is_the_least_over_all_states(yes: list[bool], exclusive: bool, exhaustive: bool) -> None:
    payouts = [
        sum(happens == bought for happens, bought in zip(state, yes, strict=True))
        for state in states(len(yes), exclusive=exclusive, exhaustive=exhaustive)
    ]
    assert least_payout(yes, exclusive=exclusive, exhaustive=exhaustive) == min(payouts)


def outcomes(venue: str, count: int = 3, event_id: str = "") -> OutcomeSet:
    event_id = event_id or f"{venue}-E"
    markets = tuple(market(venue, f"{event_id}-{number}", event_id=event_id) for number in range(count))
    return OutcomeSet(venue, event_id, markets, exclusive=True, exhaustive=True)


def pairs(
    one: OutcomeSet, other: OutcomeSet, *, inverted: bool = False, status: MatchStatus = MatchStatus.AUTO
) -> list[Pair]:
    return [
        pair(kalshi=ours, polymarket=theirs, inverted=inverted, status=status)
        for ours, theirs in zip(one.outcomes, other.outcomes, strict=False)
    ]


def allowed(one: OutcomeSet, yes: list[bool]) -> bool:
    """Whether an event's markets may resolve so."""
    return not (one.exclusive and sum(yes) > 1) and not (one.exhaustive and yes and not any(yes))


@given(st.integers(2, 5), st.integers(0, 5), *(st.booleans() for _ in range(5)))
def test_no_state_pays_less_than_a_basket_that_nothing_speaks_against(  # noqa: PLR0917 - what may be true of an event
    count: int, paired: int, exclusive: bool, exhaustive: bool, missing: bool, theirs_exhaustive: bool, inverted: bool
) -> None:
    ours = replace(
        outcomes("kalshi", count), exclusive=exclusive, exhaustive=exhaustive, missing=("gone",) if missing else ()
    )
    theirs = replace(outcomes("polymarket", min(paired, count)), exclusive=exclusive, exhaustive=theirs_exhaustive)
    sides = {
        buy.key: number for one in (ours, theirs) for number, buy in enumerate(Buy(m, yes=True) for m in one.outcomes)
    }
    # An outcome that is missing may happen beside the others, or instead of them.
    possible = [
        state
        for state in states(count + 1, exclusive=exclusive, exhaustive=exhaustive)
        if (missing or not state[-1]) and allowed(theirs, [one != inverted for one in state[: len(theirs.outcomes)]])
    ]
    for basket in baskets_of([ours, theirs], pairs(ours, theirs, inverted=inverted)):
        if basket.reasons:
            continue
        legs = [options[-1] for options in basket.options]
        for state in possible:
            pays = 0
            for buy in legs:
                happens = state[sides[buy.key]]
                yes = happens != (inverted and buy.market.venue == "polymarket")
                pays += yes == buy.yes
            assert pays >= basket.payout(len(legs)), (basket.kind, state)


def of_kind(baskets: list[Basket], kind: str) -> list[Basket]:
    return [basket for basket in baskets if basket.kind == kind]


def test_an_event_makes_a_basket_of_each_side() -> None:
    yes, no = baskets_of([outcomes("kalshi")], [])
    assert (yes.kind, yes.reasons, int(yes.payout(3))) == ("yes_basket", (), 1)
    assert (no.kind, no.reasons, int(no.payout(3)), int(no.payout(2))) == ("no_basket", (), 2, 1)
    assert all(buy.yes for options in yes.options for buy in options)
    assert not any(buy.yes for options in no.options for buy in options)
    assert no.returns_collateral
    assert not yes.returns_collateral


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"exhaustive": False, "why": "a tail is not listed"}, "not_exhaustive:a tail is not listed"),
        ({"missing": ("gone",)}, "not_exhaustive:gone is not listed"),
    ],
)
def test_without_proof_no_basket_of_yes_counts(change: dict[str, Any], reason: str) -> None:
    yes, no = baskets_of([replace(outcomes("kalshi"), **change)], [])
    assert yes.reasons == (reason,)
    assert no.reasons == ()


def test_a_basket_of_no_needs_exclusion_and_one_of_yes_does_not() -> None:
    (yes,) = baskets_of([replace(outcomes("kalshi"), exclusive=False)], [])
    assert (yes.kind, yes.reasons) == ("yes_basket", ())


def test_one_outcome_is_no_basket() -> None:
    assert not list(baskets_of([outcomes("kalshi", 1)], []))


def test_two_events_whose_outcomes_are_partners_make_one_basket_over_both() -> None:
    ours, theirs = outcomes("kalshi"), replace(outcomes("polymarket"), exhaustive=False)
    found = list(baskets_of([theirs, ours], pairs(ours, theirs)))
    (both,) = of_kind(found, "best_of_both")
    assert (both.event_id, both.partner_event_id, both.venue) == ("kalshi-E", "polymarket-E", None)
    assert both.reasons == ()
    assert both.options[0] == (Buy(ours.outcomes[0], yes=True), Buy(theirs.outcomes[0], yes=True))


def test_the_proof_of_either_event_holds_for_both() -> None:
    ours, theirs = replace(outcomes("kalshi"), exhaustive=False, why="names"), outcomes("polymarket")
    (both,) = of_kind(list(baskets_of([ours, theirs], pairs(ours, theirs))), "best_of_both")
    assert both.reasons == ()
    unproven = replace(theirs, exhaustive=False)
    (both,) = of_kind(list(baskets_of([ours, unproven], pairs(ours, unproven))), "best_of_both")
    assert both.reasons == ("not_exhaustive:names",)


def test_the_proof_of_the_contraries_does_not() -> None:
    """That one of three does not happen says nothing of whether one happens."""
    ours, theirs = replace(outcomes("kalshi"), exhaustive=False, why="names"), outcomes("polymarket")
    both, contrary = of_kind(list(baskets_of([ours, theirs], pairs(ours, theirs, inverted=True))), "best_of_both")
    assert (both.reasons, contrary.reasons) == (("not_exhaustive:names",), ())


def test_the_proof_of_an_event_with_another_outcome_does_not() -> None:
    ours, theirs = replace(outcomes("kalshi"), exhaustive=False, why="names"), outcomes("polymarket", 4)
    both, theirs_too = of_kind(list(baskets_of([ours, theirs], pairs(ours, theirs))), "best_of_both")
    assert (both.reasons, theirs_too.reasons) == (("not_exhaustive:names",), ())


def test_of_a_pair_in_review_nothing_is_bought_on_the_other_venue() -> None:
    ours, theirs = outcomes("kalshi"), outcomes("polymarket")
    said = pairs(ours, theirs)
    said[1] = replace(said[1], status=MatchStatus.REVIEW)
    both, _ = of_kind(list(baskets_of([ours, theirs], said)), "best_of_both")
    assert [len(options) for options in both.options] == [2, 1, 2]
    assert both.reasons == ()
    none = pairs(ours, theirs, status=MatchStatus.REVIEW)
    assert not of_kind(list(baskets_of([ours, theirs], none)), "best_of_both")


def test_of_an_inverted_pair_no_stands_for_the_outcome() -> None:
    ours, theirs = outcomes("kalshi"), outcomes("polymarket")
    both, contrary = of_kind(list(baskets_of([ours, theirs], pairs(ours, theirs, inverted=True))), "best_of_both")
    assert contrary.event_id == "polymarket-E"
    assert [[buy.yes for buy in options] for options in both.options] == [[True, False]] * 3


def test_a_question_that_implies_another_stands_for_none() -> None:
    ours, theirs = outcomes("kalshi"), outcomes("polymarket")
    implied = [
        Pair(one, other, Relation.KALSHI_IMPLIES_POLYMARKET, MatchStatus.APPROVED)
        for one, other in zip(ours.outcomes, theirs.outcomes, strict=True)
    ]
    assert {basket.kind for basket in baskets_of([ours, theirs], implied)} == {"yes_basket", "no_basket"}


def test_the_rest_stands_for_the_no_of_an_outcome_with_a_partner() -> None:
    ours, theirs = outcomes("kalshi"), outcomes("polymarket", 2)
    (found,) = of_kind(list(baskets_of([ours], pairs(ours, theirs))), "best_of_both")
    assert [[buy.key for buy in options] for options in found.options] == [
        [("kalshi", "kalshi-E-0"), ("polymarket", "polymarket-E-0")],
        [("kalshi", "kalshi-E-1"), ("polymarket", "polymarket-E-1")],
        [("kalshi", "kalshi-E-2")],
    ]
    assert (int(found.payout(3)), found.reasons, found.partner_event_id) == (1, (), "polymarket-E")
    unproven = replace(ours, exhaustive=False, why="names")
    (found,) = of_kind(list(baskets_of([unproven, theirs], pairs(ours, theirs))), "best_of_both")[:1]
    assert found.reasons == ("not_exhaustive:names",), "what is proven of two outcomes is not of three"


def test_what_is_paid_in_a_void_is_known_if_it_is_of_every_outcome() -> None:
    ours, theirs = outcomes("kalshi", 2), outcomes("polymarket", 2)
    half = Decimal("0.5")
    told = [
        pair(kalshi=one, polymarket=other, inverted=True, void_states={"tie": (half, Decimal("0.2"))})
        for one, other in zip(ours.outcomes, theirs.outcomes, strict=True)
    ]
    both, _ = of_kind(list(baskets_of([ours, theirs], told)), "best_of_both")
    assert both.void_states is not None
    assert both.void_states["tie"] == {
        ("kalshi", "kalshi-E-0"): half, ("kalshi", "kalshi-E-1"): half,
        ("polymarket", "polymarket-E-0"): Decimal("0.8"), ("polymarket", "polymarket-E-1"): Decimal("0.8"),
    }  # fmt: skip
    (both,) = of_kind(list(baskets_of([ours], [told[0], pairs(ours, theirs)[1]])), "best_of_both")
    assert both.void_states is None


ASKS = st.lists(
    st.tuples(st.integers(5, 60), st.integers(1, 4)), min_size=1, max_size=3, unique_by=lambda ask: ask[0]
).map(lambda asks: tuple((Decimal(price) / 100, Decimal(size)) for price, size in sorted(asks)))
OPTIONS = st.tuples(ASKS, ASKS, st.sampled_from(["0", "0.03", "0.07"]))


@given(st.lists(OPTIONS, min_size=2, max_size=3))
def test_no_choice_of_legs_and_size_earns_more(drawn: list[tuple[Asks, Asks, str]]) -> None:
    outcomes = [
        (
            Leg("k", "kalshi", ours, Fees(Decimal("0.05"))),
            Leg("p", "polymarket", theirs, Fees(Decimal(rate)), min_size=Decimal(2)),
        )
        for ours, theirs, rate in drawn
    ]
    found = optimise_options(outcomes, Decimal(1))
    nets = [
        execute(legs, Decimal(size)).net
        for legs in product(*outcomes)
        for size in range(int(max(leg.min_size for leg in legs)) or 1, int(min(leg.depth for leg in legs)) + 1)
    ]
    if found.best is None:
        assert not nets
    else:
        assert max(found.best.net, Decimal(0)) == max([*nets, Decimal(0)])
