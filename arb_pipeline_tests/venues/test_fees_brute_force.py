"""Fees of random ladders against the rules written down a second time, in fractions."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from random import Random
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_pipeline.exchange import truth
from arb_pipeline.model import Market, MarketStatus
from arb_pipeline.venues.kalshi.fees import KalshiFees, kalshi_fees
from arb_pipeline.venues.polymarket.fees import PolymarketFees, fee_model

Fills = list[tuple[Decimal, Decimal]]
Account = Literal["direct", "fcm"]
NOW = datetime(2026, 11, 1, tzinfo=UTC)
SPRING = datetime(2026, 5, 1, tzinfo=UTC)
WINTER = datetime(2026, 2, 1, tzinfo=UTC)
LADDERS_EACH = 100
MULTIPLIERS = ("0", "0.5", "1", "1.5", "2")


def market(venue: str, **fee_params: object) -> Market:
    return Market(
        venue=venue,
        market_id="M",
        event_id="E",
        title="?",
        status=MarketStatus.OPEN,
        created_at=NOW,
        tick=1,
        min_size=1,
        size_step=1,
        fee_params=fee_params,
    )


def kalshi(at: datetime, account: Account, multiplier: str, fee_type: str = "quadratic") -> KalshiFees:
    return kalshi_fees(market("kalshi", fee_type=fee_type, fee_multiplier=multiplier), at, account)


def ladder(random: Random, price_digits: int, size_digits: int) -> Fills:
    scale = 10**price_digits
    return [
        (
            Decimal(random.randrange(1, scale)).scaleb(-price_digits),
            Decimal(random.choice([random.randrange(1, 200), random.randrange(1, 10**9)])).scaleb(-size_digits),
        )
        for _ in range(random.randint(1, 6))
    ]


def fractions(fills: Fills) -> list[tuple[Fraction, Fraction]]:
    return [(Fraction(price), Fraction(size)) for price, size in fills]


def down(value: Fraction, unit: Fraction) -> Fraction:
    return floor(value / unit) * unit


def up(value: Fraction, unit: Fraction) -> Fraction:
    return ceil(value / unit) * unit


def kalshi_order(
    fills: list[tuple[Fraction, Fraction]], rate: Fraction, trade_unit: Fraction, grid: Fraction, rebate_unit: Fraction
) -> Fraction:
    """What an order costs beyond its price: the balance falls to the grid with each fill, less what is given back."""
    paid = owed = Fraction(0)
    for price, size in fills:
        fee = up(rate * size * price * (1 - price), trade_unit)
        change = down(-price * size - fee, grid)
        charge = -change - price * size
        owed += charge - fee
        back = down(min(owed, charge), rebate_unit)
        owed -= back
        paid += charge - back
    return paid


def each(seed: int, check: Callable[[Random], None]) -> None:
    random = Random(seed)
    for _ in range(LADDERS_EACH):
        check(random)


# 100 seeds by 100 ladders: 10,000 of each.
every_seed = settings(max_examples=100, deadline=None)


@every_seed
@given(st.integers(0, 2**32))
def test_kalshi_takers_of_today(seed: int) -> None:
    def check(random: Random) -> None:
        fills, multiplier = ladder(random, 4, 2), random.choice(MULTIPLIERS)
        exact, rate = fractions(fills), Fraction(multiplier) * Fraction(7, 100)
        direct = Fraction(kalshi(NOW, "direct", multiplier).order(fills))
        unit, cent = Fraction(1, 10_000), Fraction(1, 100)
        assert direct == truth.kalshi_fee(exact, Fraction(multiplier))
        assert direct == kalshi_order(exact, rate, Fraction(1, 10**6), unit, unit)
        fcm = Fraction(kalshi(NOW, "fcm", multiplier).order(fills))
        assert fcm == kalshi_order(exact, rate, Fraction(1, 10**6), cent, cent)

    each(seed, check)


@every_seed
@given(st.integers(0, 2**32))
def test_polymarket_takers(seed: int) -> None:
    def check(random: Random) -> None:
        fills, rate = ladder(random, random.choice([2, 4, 9]), 6), random.choice(["0", "0.03", "0.04", "0.05", "0.07"])
        params = {"feesEnabled": True, "feeSchedule": {"rate": float(rate), "exponent": 1}}
        found = fee_model(market("polymarket", **params), NOW)
        assert Fraction(found.order(fills)) == truth.polymarket_fee(fractions(fills), Fraction(rate))

    each(seed, check)


@pytest.mark.parametrize(("account", "grid"), [("direct", Fraction(1, 10_000)), ("fcm", Fraction(1, 100))])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_kalshi_takers_of_spring_2026(account: Account, grid: Fraction, seed: int) -> None:
    def check(random: Random) -> None:
        fills = ladder(random, 4, 2)
        exact = kalshi_order(fractions(fills), Fraction(7, 100), Fraction(1, 10_000), grid, Fraction(1, 100))
        assert Fraction(kalshi(SPRING, account, "1").order(fills)) == exact

    each(seed, check)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_kalshi_before_march_2026_and_makers(seed: int) -> None:
    def check(random: Random) -> None:
        fills = ladder(random, 4, 2)
        price, size = fills[0]
        whole = sum((Fraction(7, 100) * s * p * (1 - p) for p, s in fractions(fills)), Fraction(0))
        assert Fraction(kalshi(WINTER, "direct", "1").order(fills)) == up(whole, Fraction(1, 100))
        for fee_type, rate in (
            ("quadratic", Fraction(0)),
            ("quadratic_with_maker_fees", Fraction(175, 10_000)),
            ("quadratic_with_combo_maker_fees", Fraction(35, 1000)),
        ):
            multiplier = random.choice(MULTIPLIERS)
            unit = Fraction(1, 10_000)
            exact = kalshi_order(
                fractions([(price, size)]), Fraction(multiplier) * rate, Fraction(1, 10**6), unit, unit
            )
            assert Fraction(kalshi(NOW, "direct", multiplier, fee_type).maker(price, size)) == exact

    each(seed, check)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_other_curves_of_polymarket(seed: int) -> None:
    def check(random: Random) -> None:
        exponent, of_value = random.choice([0, 1, 2, 3]), random.random() < 0.5
        fills = ladder(random, 4, 6)
        plain = fee_model(market("polymarket", feesEnabled=False), NOW)
        fees = PolymarketFees(Decimal("0.25"), exponent, plain.schedule, "half_up", of_value, in_shares=True)
        total = Fraction(0)
        for price, size in fills:
            p, s = Fraction(price), Fraction(size)
            exact = s * Fraction(1, 4) * (p * (1 - p)) ** exponent * (p if of_value else 1)
            charged = down(exact + Fraction(1, 200_000), Fraction(1, 100_000)) if exact >= Fraction(1, 100_000) else 0
            total += charged
            assert Fraction(fees.received(price, size)) == down(s - charged / p, Fraction(1, 10**6))
        assert Fraction(fees.order(fills)) == total

    each(seed, check)
