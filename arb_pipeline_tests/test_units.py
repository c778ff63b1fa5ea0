from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.units import (
    ONE,
    UnitError,
    format_fixed,
    format_plain,
    parse_fixed,
    parse_price,
    parse_size,
    parse_trade_price,
    price_decimal,
    size_decimal,
    trade_price_decimal,
)


def test_known_values() -> None:
    assert parse_price("0.4200") == 4200
    assert parse_price("0.42") == 4200
    assert parse_price("1.0000") == ONE
    assert parse_price(".5") == 5000
    assert parse_price("1.") == ONE
    assert parse_size("12.50") == 12_500_000
    assert parse_size("-0.01") == -10_000
    assert parse_trade_price("0.527058567") == 527_058_567
    assert parse_fixed("7", 0) == 7


def test_zeros_beyond_the_grid_are_no_rounding() -> None:
    assert parse_price("0.42000000") == 4200


@pytest.mark.parametrize(
    "text",
    ["", "-", ".", "-.", "+1", "1e3", "1E3", "nan", "inf", "1_000", " 1", "1 ", "0x1", "1,5", "--1", "1.2.3", "٣", "²"],
)
def test_anything_but_a_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="plain decimal"):
        parse_size(text)


def test_more_decimals_than_the_grid_are_refused_not_rounded() -> None:
    with pytest.raises(UnitError, match=r"'0\.42001' has more than 4 decimals"):
        parse_price("0.42001")
    with pytest.raises(UnitError, match="more than 6 decimals"):
        parse_size("0.0000001")


def test_beyond_64_bits_is_refused() -> None:
    assert parse_fixed(str(2**63 - 1), 0) == 2**63 - 1
    with pytest.raises(UnitError, match="64 bits"):
        parse_fixed(str(2**63), 0)


def test_a_refusal_is_repeated_not_cached() -> None:
    for _ in range(2):
        with pytest.raises(UnitError):
            parse_price("0.42001")


@given(st.integers(-(10**12), 10**12), st.integers(0, 9), st.integers(0, 4))
def test_print_and_parse_are_inverse(value: int, digits: int, more: int) -> None:
    assert parse_fixed(format_fixed(value, digits, digits + more), digits) == value
    assert parse_fixed(format_plain(value, digits), digits) == value


@given(st.integers(-(10**12), 10**12), st.integers(1, 9))
def test_plain_form_is_the_shortest(value: int, digits: int) -> None:
    text = format_plain(value, digits)
    assert Decimal(text) == Decimal(value).scaleb(-digits)
    assert not ("." in text and text[-1] in "0.")


@given(st.integers(-(10**9), 10**9), st.integers(0, 6), st.integers(0, 6))
def test_fixed_form_has_exactly_its_places_or_refuses(value: int, digits: int, places: int) -> None:
    exact = Decimal(value).scaleb(-digits)
    if places < digits and value % 10 ** (digits - places):
        with pytest.raises(UnitError, match="more than"):
            format_fixed(value, digits, places)
        return
    text = format_fixed(value, digits, places)
    assert Decimal(text) == exact
    assert len(text.partition(".")[2]) == places


@given(st.decimals(min_value=-1_000_000, max_value=1_000_000, places=6))
def test_parse_agrees_with_decimal(value: Decimal) -> None:
    assert size_decimal(parse_size(f"{value:f}")) == value


@given(st.text(max_size=12))
def test_any_text_parses_exactly_or_is_refused(text: str) -> None:
    try:
        size = parse_size(text)
    except UnitError:
        return
    assert size_decimal(size) == Decimal(text)


@given(st.integers(0, ONE))
def test_decimals_are_exact(price: int) -> None:
    assert price_decimal(price) * ONE == price
    assert price_decimal(price) + price_decimal(ONE - price) == 1
    assert trade_price_decimal(price * 100_000) == price_decimal(price)
