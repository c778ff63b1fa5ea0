"""What a pair of books would really have paid, computed apart from the product's arbitrage code.

Plain fractions and a search over every point where a level of either ladder ends. Conventions: both legs bought
as taker, whole contracts, at least Polymarket's minimum, one fill per price level, payout 1 per pair of contracts.
Fees: Kalshi direct account (trade fee rounded up to 1e-6, balance down to 1e-4, the difference collected per order
and given back in whole 1e-4; docs.kalshi.com/getting_started/fee_rounding), Polymarket ``feeSchedule`` rate cut to
5 decimals per fill (docs.polymarket.com, fees).
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from arb_pipeline.model import Level, OrderBook
from arb_pipeline.units import PRICE_SCALE, SIZE_SCALE

__all__ = ["Paid", "best_trade", "decimal_text", "direction_ladders", "kalshi_fee", "polymarket_fee", "walk"]

Fill = tuple[Fraction, Fraction]
"""(price, size) in dollars and contracts."""

_KALSHI_RATE = Fraction(7, 100)
_MICRO = 1_000_000
_GRID = 10_000
_POLYMARKET_GRID = 100_000
_MIN_CONTRACTS = 5


@dataclass(frozen=True, slots=True)
class Paid:
    """The best trade between two books: contracts, and dollars before, of and after fees."""

    size: int
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


def walk(ladder: list[Level], contracts: int) -> list[Fill] | None:
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
    kalshi_ladder: list[Level], polymarket_ladder: list[Level], multiplier: Fraction, rate: Fraction
) -> Paid:
    """The most profitable (or least losing) number of contracts between two ask ladders that pay 1 together.

    Before rounding the net profit is concave in size with kinks only where a level ends, and it falls for sure where
    the two prices together reach 1; so the ends of levels up to there, their neighbours below and the smallest
    admissible size are all there is to try.
    """
    ends = _level_ends(kalshi_ladder, polymarket_ladder)
    best: Paid | None = None
    for size in sorted({_MIN_CONTRACTS, *(end - step for end in ends for step in (0, 1))}):
        if size < _MIN_CONTRACTS:
            continue
        kalshi, polymarket = walk(kalshi_ladder, size), walk(polymarket_ladder, size)
        if kalshi is None or polymarket is None:
            break
        cost = sum((price * part for price, part in kalshi + polymarket), Fraction(0))
        paid = Paid(size, size - cost, kalshi_fee(kalshi, multiplier) + polymarket_fee(polymarket, rate))
        if best is None or paid.net > best.net:
            best = paid
    return best or Paid(0, Fraction(0), Fraction(0))


def _level_ends(first: list[Level], second: list[Level]) -> list[int]:
    """Whole contracts at which a level of either ladder ends, while the two prices together stay below 1."""
    ends: list[int] = []
    filled = 0
    one, two = iter(first), iter(second)
    level, other = next(one, None), next(two, None)
    while level is not None and other is not None and level[0] + other[0] < PRICE_SCALE:
        step = min(level[1], other[1])
        filled += step
        ends.append(filled // SIZE_SCALE)
        level = (level[0], level[1] - step) if level[1] > step else next(one, None)
        other = (other[0], other[1] - step) if other[1] > step else next(two, None)
    return ends


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
