"""Depth walk over the ask ladders of several legs: exact sizes, fees and profit of buying all of them.

Prices are dollars per contract, sizes contracts, money dollars, all :class:`~decimal.Decimal`. Every leg is a buy
of the same number of contracts. A contract set pays ``payout`` dollars in the worst ordinary state (1 for two
opposite outcomes, n - 1 for a NO basket).
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import cached_property
from operator import lt

from arb_pipeline.units import SIZE_SCALE
from arb_pipeline.venues.base import FeeModel

__all__ = [
    "BELOW_MINIMUM",
    "DepthError",
    "Execution",
    "Fill",
    "Leg",
    "LegExecution",
    "Optimum",
    "Segment",
    "edge_curve",
    "execute",
    "execute_balances",
    "execute_notional",
    "optimise",
]

Fill = tuple[Decimal, Decimal]
"""(price, size) taken at one level."""

BELOW_MINIMUM = "depth below the minimum order size"

_ZERO = Decimal(0)
_ONE = Decimal(1)

# Kalshi rounds a fee up; Polymarket cuts it at five decimals per fill. Hence no fee lies further than this below
# its unrounded figure, which bounds from above what any other size could earn.
_MOST_CUT_PER_FILL = Decimal("0.00001")

# Where the edge is so flat that rounding decides over hundreds of lots, the search ends here: the size found is then
# within one rounding unit of the best.
_MOST_LOTS_EACH_WAY = 256


class DepthError(ValueError):
    """More contracts are asked for than the ladders hold."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One buy: an ask ladder and what its venue demands.

    Attributes:
        asks: (price, size), strictly rising in price, sizes positive.
        lot: orders are whole multiples of it. min_size: the smallest order.
    """

    name: str
    venue: str
    asks: tuple[Fill, ...]
    fees: FeeModel
    lot: Decimal = _ONE
    min_size: Decimal = _ZERO

    def __post_init__(self) -> None:
        prices, sizes = [price for price, _ in self.asks], [size for _, size in self.asks]
        if not all(map(lt, prices, prices[1:])):
            raise ValueError(f"asks of leg {self.name!r} are not strictly rising in price: give them cheapest first")
        if min(sizes, default=_ONE) <= 0:
            raise ValueError(f"asks of leg {self.name!r} hold a size that is not positive: leave such levels out")
        if self.lot <= 0:
            raise ValueError(f"lot {self.lot} of leg {self.name!r} is not positive")

    @property
    def depth(self) -> Decimal:
        """Contracts on the whole ladder."""
        return sum([size for _, size in self.asks], _ZERO)

    def take(self, size: Decimal) -> list[Fill]:
        """The levels that an order of ``size`` contracts consumes.

        Raises:
            DepthError: if the ladder holds less.
        """
        fills: list[Fill] = []
        left = size
        for price, available in self.asks:
            if left <= 0:
                break
            taken = min(left, available)
            fills.append((price, taken))
            left -= taken
        if left > 0:
            raise DepthError(f"leg {self.name!r} holds {self.depth} contracts, {size} asked for")
        return fills


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of sizes in which every leg stays on one level: its prices and the edge of one more contract."""

    start: Decimal
    end: Decimal
    prices: tuple[Decimal, ...]
    gross_edge: Decimal
    net_edge: Decimal


@dataclass(frozen=True, slots=True)
class LegExecution:
    """What one leg costs at a size, with the exact fee of the whole order."""

    name: str
    filled: Decimal
    cost: Decimal
    fee: Decimal
    fills: tuple[Fill, ...]

    @property
    def vwap(self) -> Decimal:
        """Average price, dollars per contract."""
        return self.cost / self.filled

    @property
    def vwap_all_in(self) -> Decimal:
        """Average price with fees, dollars per contract."""
        return (self.cost + self.fee) / self.filled

    @property
    def limit_price(self) -> Decimal:
        """Worst price consumed: the limit to send."""
        return self.fills[-1][0]


@dataclass(frozen=True, slots=True)
class Execution:
    """Buying ``size`` contracts of every leg."""

    size: Decimal
    payout: Decimal
    legs: tuple[LegExecution, ...]
    cost: Decimal
    fees: Decimal

    @property
    def capital(self) -> Decimal:
        """Prices plus fees: everything is prepaid, nothing nets across venues."""
        return self.cost + self.fees

    @property
    def guaranteed(self) -> Decimal:
        """Payout of the worst ordinary state."""
        return self.size * self.payout

    @property
    def gross(self) -> Decimal:
        """Guaranteed payout less prices."""
        return self.guaranteed - self.cost

    @property
    def net(self) -> Decimal:
        """Gross less fees."""
        return self.gross - self.fees

    @property
    def net_edge(self) -> Decimal:
        """Net per contract."""
        return self.net / self.size

    @property
    def roi(self) -> Decimal:
        """Net per dollar of capital."""
        return self.net / self.capital


@dataclass(frozen=True)
class Optimum:
    """The most profitable admissible size.

    Attributes:
        best: the execution with the largest net over all admissible sizes, a loss if none earns anything; None if
            no admissible size exists (``reason`` says why).
        walk_size: contracts up to which the marginal net edge is positive, before lots and rounding.
        curve: the marginal edge by size, up to and with the first stretch that does not pay.
    """

    legs: tuple[Leg, ...]
    payout: Decimal
    best: Execution | None
    reason: str
    walk_size: Decimal
    curve: tuple[Segment, ...]

    @property
    def executable(self) -> bool:
        """Whether any admissible size exists."""
        return self.best is not None

    @property
    def profitable(self) -> bool:
        """Whether the best size earns something."""
        return self.best is not None and self.best.net > 0

    @cached_property
    def smallest_profitable_size(self) -> Decimal | None:
        """The smallest admissible size that earns anything; on coarse fee grids tiny orders lose to rounding."""
        if self.best is None or self.best.net <= 0:
            return None
        lot = _common_lot(self.legs)
        size = _smallest_size(self.legs, lot)
        while size < self.best.size:
            if execute(self.legs, size, self.payout).net > 0:
                return size
            size += lot
        return self.best.size


def execute(legs: Sequence[Leg], size: Decimal, payout: Decimal = _ONE) -> Execution:
    """Buy ``size`` contracts of every leg, with exact order-level fees.

    Raises:
        DepthError: if a ladder holds less.
        ValueError: if the size is not positive.
    """
    if size <= 0:
        raise ValueError(f"size {size} is not positive")
    done: list[LegExecution] = []
    cost = fees = _ZERO
    for leg in legs:
        fills = tuple(leg.take(size))
        paid = sum((price * taken for price, taken in fills), _ZERO)
        fee = leg.fees.order(fills)
        done.append(LegExecution(leg.name, size, paid, fee, fills))
        cost += paid
        fees += fee
    return Execution(size, payout, tuple(done), cost, fees)


def edge_curve(
    legs: Sequence[Leg], payout: Decimal = _ONE, *, whole: bool = False, reach: Decimal = _ZERO
) -> tuple[Segment, ...]:
    """Merge-walk the ladders by cumulative size.

    The all-in price ``p + r p (1 - p)`` rises with ``p`` for every rate below 1, so the marginal net edge never
    rises with size and the walk may end at the first stretch that does not pay, if that goes to ``reach`` contracts or
    beyond; ``whole`` walks on to the end of the shallowest ladder.
    """
    segments: list[Segment] = []
    if not all(leg.asks for leg in legs):
        return ()
    level = [0] * len(legs)
    left = [leg.asks[0][1] for leg in legs]
    all_in = [leg.asks[0][0] + leg.fees.marginal(leg.asks[0][0]) for leg in legs]
    start = _ZERO
    while True:
        prices = tuple(leg.asks[at][0] for leg, at in zip(legs, level, strict=True))
        step = min(left)
        net = payout - sum(all_in, _ZERO)
        segments.append(Segment(start, start + step, prices, payout - sum(prices, _ZERO), net))
        start += step
        if net <= 0 and start >= reach and not whole:
            return tuple(segments)
        for index, leg in enumerate(legs):
            left[index] -= step
            if left[index] == 0:
                level[index] += 1
                if level[index] == len(leg.asks):
                    return tuple(segments)
                price, left[index] = leg.asks[level[index]]
                all_in[index] = price + leg.fees.marginal(price)


def optimise(legs: Sequence[Leg], payout: Decimal = _ONE) -> Optimum:
    """Find the admissible size with the largest exact net; of equal ones the smallest.

    The unrounded net is concave in size with its top where the walk stops. From there the search goes lot by lot
    both ways until even a fee cut to the utmost could no longer win.
    """
    legs = tuple(legs)
    curve = edge_curve(legs, payout)
    walk_size = max((segment.end for segment in curve if segment.net_edge > 0), default=_ZERO)
    lot = _common_lot(legs)
    smallest = _smallest_size(legs, lot)
    largest = _down(min((leg.depth for leg in legs), default=_ZERO), lot)
    if largest < smallest:
        return Optimum(legs, payout, None, BELOW_MINIMUM, walk_size, curve)
    seed = min(max(_down(walk_size, lot), smallest), largest)
    reach = min(largest, seed + _MOST_LOTS_EACH_WAY * lot)
    covering = edge_curve(legs, payout, reach=reach) if curve[-1].end < reach else curve
    bound = _UnroundedNet(covering, len(legs))
    best = execute(legs, seed, payout)
    for step in (-lot, lot):
        size = seed + step
        for _ in range(_MOST_LOTS_EACH_WAY):
            if not smallest <= size <= largest or bound(size) < best.net:
                break
            tried = execute(legs, size, payout)
            if tried.net > best.net or (tried.net == best.net and tried.size < best.size):
                best = tried
            size += step
    return Optimum(legs, payout, best, "", walk_size, curve)


def execute_notional(legs: Sequence[Leg], dollars: Decimal, payout: Decimal = _ONE) -> Execution | None:
    """The largest admissible size whose capital stays within ``dollars``, or the whole depth if that is less.

    None if not even the smallest admissible size fits.
    """
    return _largest(legs, payout, lambda tried: tried.capital <= dollars)


def execute_balances(legs: Sequence[Leg], balances: Sequence[Decimal], payout: Decimal = _ONE) -> Execution | None:
    """The largest admissible size that the money at each venue pays for, or the whole depth if that is less.

    None if not even the smallest admissible size fits.

    Args:
        balances: dollars for each leg.
    """

    def affordable(tried: Execution) -> bool:
        return all(leg.cost + leg.fee <= balance for leg, balance in zip(tried.legs, balances, strict=True))

    return _largest(legs, payout, affordable)


def _largest(legs: Sequence[Leg], payout: Decimal, fits: Callable[[Execution], bool]) -> Execution | None:
    """The largest admissible size that fits, by bisection: what a size costs rises with it."""
    lot = _common_lot(legs)
    low = int(_smallest_size(legs, lot) / lot)
    high = int(min((leg.depth for leg in legs), default=_ZERO) / lot)
    found: Execution | None = None
    while low <= high:
        middle = (low + high) // 2
        tried = execute(legs, middle * lot, payout)
        if fits(tried):
            found, low = tried, middle + 1
        else:
            high = middle - 1
    return found


class _UnroundedNet:
    """Upper bound of the exact net by size: the unrounded net plus the most that rounding may give back."""

    def __init__(self, curve: Sequence[Segment], legs: int) -> None:
        self._starts = [segment.start for segment in curve]
        self._edges = [segment.net_edge for segment in curve]
        self._nets: list[Decimal] = []
        net = _ZERO
        for segment in curve:
            self._nets.append(net)
            net += segment.net_edge * (segment.end - segment.start)
        # A leg has at most one fill per segment, so this constant holds for every size and the bound stays concave.
        self._slack = _MOST_CUT_PER_FILL * (len(curve) * legs)

    def __call__(self, size: Decimal) -> Decimal:
        at = bisect_right(self._starts, size) - 1
        return self._nets[at] + self._edges[at] * (size - self._starts[at]) + self._slack


def _common_lot(legs: Sequence[Leg]) -> Decimal:
    """The smallest size that is a whole number of lots on every leg."""
    return Decimal(math.lcm(*(int(leg.lot * SIZE_SCALE) for leg in legs))) / SIZE_SCALE


def _smallest_size(legs: Sequence[Leg], lot: Decimal) -> Decimal:
    """The smallest admissible size: at least one lot and every leg's minimum."""
    wanted = max((leg.min_size for leg in legs), default=_ZERO)
    return max((wanted / lot).to_integral_value(ROUND_CEILING), _ONE) * lot


def _down(size: Decimal, lot: Decimal) -> Decimal:
    return (size / lot).to_integral_value(ROUND_FLOOR) * lot
