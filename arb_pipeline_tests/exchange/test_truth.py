from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_pipeline.exchange.truth import (
    Paid,
    best_trade,
    decimal_text,
    kalshi_fee,
    polymarket_fee,
    walk,
)

ONE = Fraction(1)
C = 1_000_000


@pytest.mark.parametrize(
    ("price", "size", "fee"),
    [
        ("0.427", "1", "0.0172"),
        ("0.45", "3", "0.0520"),
        ("0.30", "1", "0.0147"),
        ("0.54", "5", "0.0870"),
        ("0.68", "1", "0.0153"),
        ("0.33", "7", "0.1084"),
    ],
)
def test_kalshi_charges_as_measured(price: str, size: str, fee: str) -> None:
    assert kalshi_fee([(Fraction(price), Fraction(size))], ONE) == Fraction(fee)


def test_polymarket_fee_is_cut_per_fill() -> None:
    assert polymarket_fee([(Fraction("0.3"), Fraction(100))], Fraction("0.07")) == Fraction("1.47")
    assert polymarket_fee([(Fraction("0.001"), Fraction("0.1"))], Fraction("0.04")) == 0


def test_a_walk_over_partial_depth_stops_where_the_next_pair_loses() -> None:
    kalshi = [(4_000, 120 * C), (4_200, 200 * C), (4_500, 500 * C)]
    polymarket = [(5_300, 90 * C), (5_400, 150 * C), (5_600, 400 * C)]
    paid = best_trade(kalshi, polymarket, ONE, Fraction("0.04"))
    assert paid.size == 240
    assert paid.gross == 240 - Fraction("98.4") - Fraction("128.7")
    assert paid.fees == Fraction("4.0623") + Fraction("2.38716")


ladders = st.lists(
    st.tuples(st.integers(1, 99), st.integers(100, 400)), min_size=1, max_size=3, unique_by=lambda level: level[0]
).map(lambda levels: [(price * 100, lots * C // 100) for price, lots in sorted(levels)])


@settings(max_examples=40, deadline=None)
@given(ladders, ladders, st.sampled_from([Fraction(0), Fraction("0.04"), Fraction("0.07")]))
def test_no_size_pays_more_than_the_best_one(
    kalshi: list[tuple[int, int]], polymarket: list[tuple[int, int]], rate: Fraction
) -> None:
    best = best_trade(kalshi, polymarket, ONE, rate)
    depth = min(sum(size for _, size in ladder) * 100 // C for ladder in (kalshi, polymarket))
    for lots in range(500, depth + 1):
        size = Fraction(lots, 100)
        left, right = walk(kalshi, size), walk(polymarket, size)
        assert left is not None
        assert right is not None
        cost = sum(price * part for price, part in left + right)
        net = size - cost - kalshi_fee(left, ONE) - polymarket_fee(right, rate)
        assert net < best.net or (net == best.net and size >= best.size)


def test_too_little_depth_pays_nothing() -> None:
    assert best_trade([(3_000, 400 * C)], [(6_000, 4 * C)], ONE, Fraction("0.04")) == Paid(
        Fraction(0), Fraction(0), Fraction(0)
    )


@pytest.mark.parametrize(("value", "text"), [("1.50", "1.5"), ("-0.003", "-0.003"), ("12", "12"), ("0", "0")])
def test_money_as_text(value: str, text: str) -> None:
    assert decimal_text(Fraction(value)) == text


def test_a_third_is_no_money() -> None:
    with pytest.raises(ValueError, match="finite"):
        decimal_text(Fraction(1, 3))
