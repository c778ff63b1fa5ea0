from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.matching.numbers import Interval, interval_of, on_grid, quantities


def span(
    low: str | None, high: str | None, unit: str = "", *, low_closed: bool = False, high_closed: bool = False
) -> Interval:
    return Interval(
        None if low is None else Decimal(low), None if high is None else Decimal(high), low_closed, high_closed, unit
    )


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("above $100k", span("100000", None, "usd")),
        ("$100,000 or above", span("100000", None, "usd", low_closed=True)),
        ("at least 3.5%", span("3.5", None, "%", low_closed=True)),
        ("at or above $90,000", span("90000", None, "usd", low_closed=True)),
        ("greater than or equal to 4%", span("4", None, "%", low_closed=True)),
        ("at or below 5%", span(None, "5", "%", high_closed=True)),
        ("less than or equal to 4%", span(None, "4", "%", high_closed=True)),
        ("≥5.0%", span("5", None, "%", low_closed=True)),
        ("less than 2.5 percent", span(None, "2.5", "%")),
        ("1.25% or lower", span(None, "1.25", "%", high_closed=True)),
        ("Cut >25bps", span("25", None, "bps")),
        ("50+ bps decrease", span("50", None, "bps", low_closed=True)),
        ("25 basis points", span("25", "25", "bps", low_closed=True, high_closed=True)),
        ("70-71°F", span("70", "71", "F", low_closed=True, high_closed=True)),
        ("between $90,000 and $92,000", span("90000", "92000", "usd", low_closed=True, high_closed=True)),
        ("more than $1.5 trillion", span("1500000000000", None, "usd")),
        ("-5°F or below", span(None, "-5", "F", high_closed=True)),
        ("Over 47.5 points", span("48", None, "score", low_closed=True)),
        ("more than 35 wins", span("36", None, "wins", low_closed=True)),
    ],
)
def test_a_comparator_draws_an_exact_interval(text: str, interval: Interval) -> None:
    assert interval_of(text) == interval


@pytest.mark.parametrize(
    "text", ["the 119th Congress", "NY-12", "H.R. 22", "by June 30, 2026", "at 5:30 PM ET", "Thunder 7"]
)
def test_numbers_without_unit_or_comparator_draw_none(text: str) -> None:
    assert interval_of(text) is None


def test_dates_times_and_ordinals_are_no_quantities() -> None:
    assert [quantity.value for quantity in quantities("1st of 3 on Dec 31, 2026 at 5pm EST")] == [3]


def test_reaching_a_level_is_a_touch() -> None:
    up, down = interval_of("reach $95,000"), interval_of("dip to $80k")
    assert up is not None
    assert down is not None
    assert (up.touch, up.low, down.touch, down.high) == (True, Decimal(95_000), True, Decimal(80_000))


def test_a_listed_strike_of_ninety_nine_cents_is_the_round_number() -> None:
    assert on_grid(span("99999.99", None)) == span("100000", None, low_closed=True)


@given(st.integers(0, 10**6), st.booleans())
def test_whole_metrics_have_one_form(value: int, closed: bool) -> None:
    strict = span(str(value), None, "wins", low_closed=False)
    assert on_grid(strict) == on_grid(span(str(value + 1), None, "wins", low_closed=True))
    one_sided = span(str(value), None, "usd", low_closed=closed)
    other = one_sided.complement()
    assert other is not None
    assert other.complement() == one_sided
    assert other.high_closed is not closed


ends = st.none() | st.integers(-4, 4).map(Decimal)
intervals = st.builds(Interval, ends, ends, st.booleans(), st.booleans()).filter(
    lambda one: one.low is None or one.high is None or one.low < one.high
)
POINTS = [Decimal(number) / 2 for number in range(-12, 13)]


def holds(interval: Interval, value: Decimal) -> bool:
    above = interval.low is None or value > interval.low or (value == interval.low and interval.low_closed)
    below = interval.high is None or value < interval.high or (value == interval.high and interval.high_closed)
    return above and below


@given(intervals, intervals)
def test_parts_and_disjoint_intervals_are_those_of_their_values(first: Interval, second: Interval) -> None:
    inside = [value for value in POINTS if holds(first, value)]
    assert first.within(second) == all(holds(second, value) for value in inside)
    assert first.disjoint(second) == (not any(holds(second, value) for value in inside))
    assert first.disjoint(second) == second.disjoint(first)


@given(intervals, intervals)
def test_what_adjoins_leaves_nothing_between_and_shares_nothing(first: Interval, second: Interval) -> None:
    if first.adjoins(second):
        assert first.disjoint(second)
        assert first.high == second.low
        assert sum(holds(one, first.high or Decimal(0)) for one in (first, second)) == 1


def test_whole_numbers_adjoin_without_touching() -> None:
    low, high = (Interval(Decimal(a), Decimal(b), True, True, "F") for a, b in ((47, 48), (49, 50)))
    assert low.adjoins(high)
    assert not high.adjoins(low)


def test_an_ordinal_is_no_number_not_even_in_part() -> None:
    assert quantities("the 99th Academy Awards and the 118th Congress") == ()


def test_a_price_without_a_comparator_draws_no_interval() -> None:
    assert interval_of("Will Acme sell for $150?") is None
    assert interval_of("Will Acme cross $150?") == Interval(
        Decimal(150), None, low_closed=True, high_closed=False, unit="usd", touch=True
    )


def test_things_counted_are_whole_whatever_the_other_calls_them() -> None:
    assert span("3", None, "count").same_unit(span("3", None, "times"))
    assert span("3", None, "count").same_unit(span("3", None))
    assert not span("3", None, "count").same_unit(span("3", None, "usd"))
    assert on_grid(span("3", None, "count")) == span("4", None, "count", low_closed=True)
