"""The worst state of a position, and baskets."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.arbitrage.baskets import best_of_both
from arb_pipeline.arbitrage.ladders import DepthError, Leg, execute
from arb_pipeline.arbitrage.states import UNKNOWN, worst_state
from arb_pipeline_tests.arbitrage.builders import Fees

ONE, HALF, NONE = Decimal(1), Decimal("0.5"), Decimal(0)
TWO_LEGS = {"yes": (ONE, NONE), "no": (NONE, ONE)}


def test_equal_treatment_keeps_the_hedge_and_unequal_breaks_it() -> None:
    equal = worst_state([ONE, ONE], {**TWO_LEGS, "tie": (HALF, HALF)}, ["yes", "no"])
    assert equal.guaranteed == equal.ordinary == 1
    unequal = worst_state([Decimal(100)] * 2, {**TWO_LEGS, "void": (Decimal("0.4"), HALF)}, ["yes", "no"])
    assert unequal.name == "void"
    assert [unequal.guaranteed, unequal.ordinary] == [90, 100]


def test_an_unknown_void_leaves_what_the_other_leg_pays() -> None:
    found = worst_state([ONE, ONE], {**TWO_LEGS, "void": (UNKNOWN, HALF)}, ["yes", "no"])
    assert found.guaranteed == HALF


@pytest.mark.parametrize(
    ("states", "ordinary", "words"),
    [
        ({"yes": (ONE,)}, ["yes"], "1 payoffs for 2 legs"),
        ({"yes": (ONE, Decimal(2))}, ["yes"], r"expected dollars in \[0, 1\]"),
        (TWO_LEGS, [], "no ordinary state"),
        (TWO_LEGS, ["draw"], "'draw' is not among"),
    ],
)
def test_what_is_incomplete_is_refused(states: dict[str, tuple[Decimal, ...]], ordinary: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        worst_state([ONE, ONE], states, ordinary)


PAYOFFS = st.decimals(0, 1, places=2)


@given(st.dictionaries(st.text(max_size=3), st.tuples(PAYOFFS, PAYOFFS), min_size=1), st.integers(1, 500))
def test_no_state_pays_less_than_the_guarantee(states: dict[str, tuple[Decimal, Decimal]], size: int) -> None:
    found = worst_state([Decimal(size)] * 2, states, list(states))
    assert found.guaranteed == min(size * (a + b) for a, b in states.values())
    assert found.payouts[found.name] == found.guaranteed


def leg(name: str, price: str, size: str, rate: str) -> Leg:
    return Leg(name, name[0], ((Decimal(price), Decimal(size)),), Fees(Decimal(rate)))


def test_the_cheaper_leg_is_the_one_that_costs_less_with_fees() -> None:
    dear, cheap = leg("K", "0.29", "100", "0.07"), leg("P", "0.293", "100", "0.04")
    assert best_of_both([[dear, cheap]], Decimal(100)) == (cheap,)
    assert execute((dear,), Decimal(100)).cost < execute((cheap,), Decimal(100)).cost


def test_a_leg_that_is_too_thin_is_not_chosen() -> None:
    thin, deep = leg("K", "0.10", "5", "0"), leg("P", "0.90", "100", "0")
    assert best_of_both([[thin, deep]], Decimal(10)) == (deep,)
    with pytest.raises(DepthError, match="holds 200 contracts"):
        best_of_both([[thin, deep]], Decimal(200))
