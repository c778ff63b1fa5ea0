"""What a pair of books would really have paid, computed apart from the product's arbitrage code.

Plain fractions and a search over every size that could be the best. Conventions: both legs bought as taker, hundredths
of a contract, at least Polymarket's minimum, one fill per price level, payout 1 per pair of contracts. Fees: Kalshi
direct account (trade fee rounded up to 1e-6, balance down to 1e-4, the difference collected per order and given back in
whole 1e-4; docs.kalshi.com/getting_started/fee_rounding), Polymarket ``feeSchedule`` rate cut to 5 decimals per fill
(docs.polymarket.com, fees).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from arb_pipeline.model import Level, OrderBook
from arb_pipeline.units import PRICE_SCALE, SIZE_SCALE

__all__ = [
    "MIN_CONTRACTS",
    "Paid",
    "best_trade",
    "decimal_text",
    "direction_ladders",
    "kalshi_fee",
    "polymarket_fee",
    "walk",
]

Fill = tuple[Fraction, Fraction]
"""(price, size) in dollars and contracts."""

_KALSHI_RATE = Fraction(7, 100)
_MICRO = 1_000_000
_GRID = 10_000
_POLYMARKET_GRID = 100_000
MIN_CONTRACTS = 5
"""Polymarket's smallest order."""
_LOT = 100
"""Orders are hundredths of a contract on either venue."""


@dataclass(frozen=True, slots=True)
class Paid:
    """The best trade between two books: contracts, and dollars before, of and after fees."""

    size: Fraction
    gross: Fraction
    fees: Fraction

    @property
    def net(self) -> Fraction:
        """Dollars after fees."""
        return self.gross - self.fees


def kalshi_fee(fills: list[Fill], multiplier: Fraction) -> Fraction:
    """Taker fee of one order of a direct member."""
    total = Fraction(0)
    collected = Fraction(0)
    for price, size in fills:
        trade_fee = Fraction(ceil(multiplier * _KALSHI_RATE * size * price * (1 - price) * _MICRO), _MICRO)
        exact = -price * size - trade_fee
        aligned = Fraction(floor(exact * _GRID), _GRID)
        rounding = exact - aligned
        collected += rounding
        rebate = Fraction(min(floor(collected * _GRID), floor((trade_fee + rounding) * _GRID)), _GRID)
        collected -= rebate
        total += trade_fee + rounding - rebate
    return total


def polymarket_fee(fills: list[Fill], rate: Fraction) -> Fraction:
    """Taker fee of one order, cut to 5 decimals per fill."""
    return sum(
        (
            Fraction(floor(size * rate * price * (1 - price) * _POLYMARKET_GRID), _POLYMARKET_GRID)
            for price, size in fills
        ),
        Fraction(0),
    )


def walk(ladder: list[Level], contracts: int | Fraction) -> list[Fill] | None:
    """Fills of a buyer who takes so many contracts from a ladder (cheapest first); None beyond its depth."""
    fills: list[Fill] = []
    left = Fraction(contracts)
    for price, size in ladder:
        take = min(left, Fraction(size, SIZE_SCALE))
        fills.append((Fraction(price, PRICE_SCALE), take))
        left -= take
        if not left:
            return fills
    return None


def best_trade(
    kalshi_ladder: list[Level],
    polymarket_ladder: list[Level],
    multiplier: Fraction,
    rate: Fraction,
    *,
    least: int = MIN_CONTRACTS,
) -> Paid:
    """The most profitable (or least losing) number of contracts, ``least`` or more, between two ask ladders that pay 1.

    Before rounding the net profit is concave in size with kinks only where a level ends, and it falls for sure where
    the two prices together reach 1. The ends of levels up to there come first; then every size that rounding could lift
    above the best of them. Of equal ones the smallest counts.
    """
    stretches = _stretches(kalshi_ladder, polymarket_ladder, multiplier, rate)

    def paid(size: Fraction) -> Paid | None:
        kalshi, polymarket = walk(kalshi_ladder, size), walk(polymarket_ladder, size)
        if kalshi is None or polymarket is None:
            return None
        cost = sum((price * part for price, part in kalshi + polymarket), Fraction(0))
        return Paid(size, size - cost, kalshi_fee(kalshi, multiplier) + polymarket_fee(polymarket, rate))

    smallest = Fraction(least)
    ends = {Fraction(floor(stretch.end * _LOT), _LOT) for stretch in stretches}
    tried = [found for size in {smallest, *ends} if size >= smallest and (found := paid(size)) is not None]
    if not tried:
        return Paid(Fraction(0), Fraction(0), Fraction(0))
    best = max(tried, key=lambda one: (one.net, -one.size))
    for stretch in stretches:
        for size in stretch.sizes(least):
            # Kalshi rounds fees up, Polymarket cuts one fill of each stretch at most: no net exceeds this.
            if stretch.net(size) + Fraction(len(stretches), _POLYMARKET_GRID) < best.net:
                break
            found = paid(size)
            if found is not None and (found.net, -found.size) > (best.net, -best.size):
                best = found
    return best


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Sizes from ``start`` to ``end`` contracts in which neither ladder changes its level."""

    start: Fraction
    end: Fraction
    net_before: Fraction
    edge: Fraction

    def net(self, size: Fraction) -> Fraction:
        """Net before rounding."""
        return self.net_before + self.edge * (size - self.start)

    def sizes(self, least: int) -> Iterator[Fraction]:
        """Its sizes from ``least`` on in whole lots, the best first."""
        low, high = max(ceil(self.start * _LOT), least * _LOT), floor(self.end * _LOT)
        lots = range(high, low - 1, -1) if self.edge > 0 else range(low, high + 1)
        return (Fraction(lot, _LOT) for lot in lots)


def _stretches(first: list[Level], second: list[Level], multiplier: Fraction, rate: Fraction) -> list[_Stretch]:
    """The walk along both ladders while the two prices together stay below 1."""
    found: list[_Stretch] = []
    start = net = Fraction(0)
    one, two = iter(first), iter(second)
    level, other = next(one, None), next(two, None)
    while level is not None and other is not None and level[0] + other[0] < PRICE_SCALE:
        step = min(level[1], other[1])
        kalshi, polymarket = Fraction(level[0], PRICE_SCALE), Fraction(other[0], PRICE_SCALE)
        fees = multiplier * _KALSHI_RATE * kalshi * (1 - kalshi) + rate * polymarket * (1 - polymarket)
        stretch = _Stretch(start, start + Fraction(step, SIZE_SCALE), net, 1 - kalshi - polymarket - fees)
        found.append(stretch)
        start, net = stretch.end, net + stretch.edge * (stretch.end - start)
        level = (level[0], level[1] - step) if level[1] > step else next(one, None)
        other = (other[0], other[1] - step) if other[1] > step else next(two, None)
    return found


def direction_ladders(kalshi: OrderBook, polymarket: OrderBook, direction: str) -> tuple[list[Level], list[Level]]:
    """The two ladders bought in a direction, both books in terms of the same proposition.

    ``yes_kalshi`` buys YES on Kalshi and the opposite on Polymarket, ``yes_polymarket`` the other way round.
    """
    if direction == "yes_kalshi":
        return kalshi.yes_asks(), polymarket.no_asks()
    return kalshi.no_asks(), polymarket.yes_asks()


def decimal_text(value: Fraction) -> str:
    """A fraction with a finite decimal expansion (money is one) as exact decimal text."""
    digits = 0
    scaled = value
    while scaled.denominator != 1:
        scaled *= 10
        digits += 1
        if digits > 20:
            raise ValueError(f"{value} has no finite decimal expansion")
    text = str(abs(scaled.numerator)).rjust(digits + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{text[: len(text) - digits]}.{text[len(text) - digits :]}" if digits else f"{sign}{text}"
