"""Orders sent when an episode opens, against the books of when they arrive."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.arbitrage.backtest import LATENCIES_MS, Order, Outcome, backtest, execute_order
from arb_pipeline.arbitrage.ladders import Leg
from arb_pipeline.arbitrage.opportunities import evaluate
from arb_pipeline.tables import table
from arb_pipeline_tests.arbitrage.builders import END, START, Fees, Tape, at, free, pair, quadratic, settings, when

D = Decimal


def leg(*asks: tuple[str, str], rate: str = "0") -> Leg:
    return Leg("leg", "venue", tuple((D(price), D(size)) for price, size in asks), Fees(D(rate)))


def fills(*levels: tuple[str, str]) -> list[tuple[Decimal, Decimal]]:
    return [(D(price), D(size)) for price, size in levels]


def test_both_legs_fill_up_to_their_limits() -> None:
    order = Order(D(20), (D("0.44"), D("0.55")))
    legs = leg(("0.42", "9"), ("0.44", "30")), leg(("0.55", "20"), ("0.57", "50"))
    found = execute_order(order, legs, (fills(), fills()))
    assert found == Outcome((D(20), D(20)), D("19.62"), D(0), D(0))
    assert (found.matched, found.net) == (D(20), D("0.38"))


def test_what_the_other_leg_missed_is_sold_to_the_bids() -> None:
    order = Order(D(20), (D("0.44"), D("0.55")))
    legs = leg(("0.42", "20"), rate="0.1"), leg(("0.56", "20"))
    found = execute_order(order, legs, (fills(("0.40", "15"), ("0.38", "9")), fills()))
    assert (found.filled, found.matched) == ((D(20), D(0)), D(0))
    sale = 15 * D("0.40") + 5 * D("0.38") - D("0.1") * (15 * D("0.24") + 5 * D("0.2356"))
    assert found.unwound == sale
    assert found.net == sale - 20 * D("0.42") - D("0.1") * 20 * D("0.2436")


def test_contracts_that_nobody_bids_for_are_lost() -> None:
    found = execute_order(Order(D(5), (D("0.5"), D("0.5"))), (leg(("0.5", "5")), leg()), (fills(), fills()))
    assert found.net == D("-2.5")


PRICES = st.integers(1, 99).map(lambda cents: D(cents) / 100)
LADDERS = st.dictionaries(PRICES, st.integers(1, 50).map(D), max_size=5).map(lambda levels: sorted(levels.items()))


@given(LADDERS, LADDERS, LADDERS, LADDERS, PRICES, PRICES, st.integers(1, 120))
def test_equals_taking_contract_by_contract(  # noqa: PLR0917 - two legs, two bids, an order
    first: Any, second: Any, bids: Any, others: Any, limit: Decimal, other: Decimal, size: int
) -> None:
    def contracts(levels: Any) -> list[Decimal]:
        return [price for price, count in levels for _ in range(int(count))]

    bought = [
        [price for price in contracts(asks) if price <= most][:size] for asks, most in ((first, limit), (second, other))
    ]
    matched = min(map(len, bought))
    sold = [
        sum(contracts(reversed(levels))[: len(got) - matched], D(0))
        for got, levels in zip(bought, (bids, others), strict=True)
    ]
    expected = matched + sum(sold) - sum(map(sum, bought), D(0))
    legs = (Leg("a", "a", tuple(first), Fees()), Leg("b", "b", tuple(second), Fees()))
    found = execute_order(Order(D(size), (limit, other)), legs, (bids[::-1], others[::-1]))
    assert [found.matched, found.net] == [D(matched), expected]


def tape() -> Tape:
    """An edge of three cents from second 1 on, of which Polymarket's part goes after 0.6 s and comes back after 3."""
    tape = Tape().session("kalshi", end=30).session("polymarket", end=4)
    tape.snapshot("kalshi", 0.5, [("0.40", "9")], [("0.42", "9")])
    tape.snapshot("polymarket", 1, [("0.45", "20")], [("0.50", "9")])
    tape.change("polymarket", 1.6, "bid", "0.45", "4")
    return tape.change("polymarket", 4, "bid", "0.45", "20")


def rows(until: float, **changes: object) -> list[dict[str, Any]]:
    data, chosen = tape().data(), settings(**changes)
    found = evaluate([pair()], data, START, END, chosen, free).opportunities
    made = backtest([pair()], data, found.slice(0, 1), at(until), chosen, quadratic)
    assert made.schema.equals(table("execution_backtest").schema)
    told: list[dict[str, Any]] = made.to_pylist()
    return told


def test_each_latency_meets_the_books_of_its_time() -> None:
    found = rows(until=60)
    assert [row["latency_ms"] for row in found] == list(LATENCIES_MS)
    assert {(row["opened_at"], row["size"]) for row in found} == {(when(1), D(9))}
    assert [row["matched"] for row in found] == [9, 9, 9, 4, None]
    assert [row["kalshi_filled"] for row in found][:4] == [9, 9, 9, 9], "the other leg fills all the same"
    at_once, late = found[0], found[3]
    per_contract = D("0.07") * D("0.42") * D("0.58") + D("0.04") * D("0.55") * D("0.45")
    assert at_once["net"] == 9 * (D("0.03") - per_contract)
    assert late["unwound"] == 5 * (D("0.40") - D("0.07") * D("0.40") * D("0.60"))
    assert late["net"] < 0 < at_once["net"], "a leg that misses costs more than the edge"
    assert late["fill_rate"] == pytest.approx(4 / 9)


def test_what_is_not_known_yet_is_not_told() -> None:
    assert [row["net"] is None for row in rows(until=1.2)] == [False, False, True, True, True]


def test_rejected_episodes_are_not_ordered() -> None:
    assert not rows(until=60, min_net_usd=100.0)
