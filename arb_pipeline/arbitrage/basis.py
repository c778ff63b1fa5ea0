"""How far apart two books are: mids, microprices, basis, executable gap, and which of two series moves first.

A basis (difference of mids) is no edge: what can be executed is a bid over an ask, less the fees of both legs.
Prices are dollars, sizes contracts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from arb_pipeline.arbitrage.intervals import Nanos
from arb_pipeline.venues.base import FeeModel

__all__ = ["Basis", "LeadLag", "Series", "Tops", "basis", "cross_correlation", "hayashi_yoshida", "lead_lag"]

Floats = npt.NDArray[np.float64]

_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Tops:
    """Best bid and ask of one book with their sizes."""

    bid: Decimal
    ask: Decimal
    bid_size: Decimal
    ask_size: Decimal

    @property
    def mid(self) -> Decimal:
        """Middle of bid and ask."""
        return (self.bid + self.ask) / 2

    @property
    def microprice(self) -> Decimal:
        """Mid weighted towards the thinner side, which is the likelier to give way."""
        return (self.bid * self.ask_size + self.ask * self.bid_size) / (self.bid_size + self.ask_size)


@dataclass(frozen=True, slots=True)
class Basis:
    """Two books of one proposition at one instant.

    Attributes:
        mid: Kalshi's mid less Polymarket's.
        executable_gap: the larger of (Kalshi's bid less Polymarket's ask) and the reverse; negative where the books do
            not cross.
        break_even: unrounded taker fees of both legs at the mids: what the gap has to exceed.
    """

    mid: Decimal
    executable_gap: Decimal
    break_even: Decimal

    @property
    def clipped_gap(self) -> Decimal:
        """The executable gap, zero where there is none."""
        return max(self.executable_gap, Decimal(0))


def basis(kalshi: Tops, polymarket: Tops, fees: tuple[FeeModel, FeeModel]) -> Basis:
    """Compare two books of one proposition (an inverted market's book already turned round).

    Args:
        kalshi, polymarket: their tops.
        fees: (Kalshi's, Polymarket's).
    """
    gap = max(kalshi.bid - polymarket.ask, polymarket.bid - kalshi.ask)
    break_even = fees[0].marginal(kalshi.mid) + fees[1].marginal(polymarket.mid)
    return Basis(kalshi.mid - polymarket.mid, gap, break_even)


# --- lead and lag --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Series:
    """Values from rising times (ns since the epoch) on, each until the next."""

    times_ns: Nanos
    values: Floats

    def at(self, times_ns: Nanos) -> Floats:
        """The values as of these times, none of which lies before the first one."""
        return self.values[np.searchsorted(self.times_ns, times_ns, side="right") - 1]


@dataclass(frozen=True, slots=True)
class LeadLag:
    """Dependence of two series at shifts of the second against the first.

    Attributes:
        lags_ms: positive where the first series leads.
        values: correlation at each lag; nan where a series did not move.
        asymmetry: squared dependence where the first leads, divided by that where the second does (Huth and Abergel
            2014); above 1 the first leads. nan where nothing moved.
    """

    lags_ms: tuple[int, ...]
    values: tuple[float, ...]
    asymmetry: float

    @property
    def lead_ms(self) -> int | None:
        """The lag of the strongest dependence, None where nothing moved."""
        found = np.abs(np.array(self.values, dtype=np.float64))
        return None if np.isnan(found).all() else self.lags_ms[int(np.nanargmax(found))]


def hayashi_yoshida(first: Series, second: Series, shift_ns: int = 0) -> float:
    """Correlation of two series that change at times of their own (Hayashi and Yoshida 2005), without resampling.

    The changes of both are multiplied wherever the intervals over which they came about overlap.

    Args:
        first, second: the series.
        shift_ns: the second one is moved back by so much, which finds what it does so long after the first.

    Returns:
        A figure in about [-1, 1]; nan if a series does not move.
    """
    a, b = np.diff(first.values), np.diff(second.values)
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if not scale:
        return float("nan")
    times = second.times_ns - shift_ns
    # A change came about in (before, after]: the changes of the second that overlap one of the first lie in a row.
    begin = np.searchsorted(times[1:], first.times_ns[:-1], side="right")
    end = np.searchsorted(times[:-1], first.times_ns[1:], side="left")
    sums = np.concatenate(([0.0], np.cumsum(b)))
    overlapping = sums[np.maximum(end, begin)] - sums[begin]
    return float((a * overlapping).sum() / scale)


def lead_lag(first: Series, second: Series, lags_ms: Sequence[int]) -> LeadLag:
    """Hayashi-Yoshida correlation over a range of lags."""
    values = tuple(hayashi_yoshida(first, second, lag * _MS) for lag in lags_ms)
    return LeadLag(tuple(lags_ms), values, _asymmetry(lags_ms, values))


def cross_correlation(first: Series, second: Series, step_ms: int, most_lag_ms: int) -> LeadLag:
    """Correlation of the changes of log-odds on a grid, at lags of up to ``most_lag_ms`` either way.

    Values are probabilities in (0, 1) as of each grid point; what lies before a series' first time is left out.
    """
    step, most = step_ms * _MS, most_lag_ms // step_ms
    begin = -(-max(int(first.times_ns[0]), int(second.times_ns[0])) // step) * step
    end = max(int(first.times_ns[-1]), int(second.times_ns[-1]))
    grid = np.arange(begin, end + step, step, dtype=np.int64)
    a, b = np.diff(_log_odds(first.at(grid))), np.diff(_log_odds(second.at(grid)))
    lags = [lag for lag in range(-most, most + 1) if len(a) - abs(lag) > 1]
    values = tuple(_correlation(*_shifted(a, b, lag)) for lag in lags)
    lags_ms = tuple(lag * step_ms for lag in lags)
    return LeadLag(lags_ms, values, _asymmetry(lags_ms, values))


def _log_odds(values: Floats) -> Floats:
    odds: Floats = np.log(values / (1 - values))
    return odds


def _shifted(first: Floats, second: Floats, lag: int) -> tuple[Floats, Floats]:
    """The first series against what the second does ``lag`` steps later."""
    if lag >= 0:
        return first[: len(first) - lag], second[lag:]
    return first[-lag:], second[: len(second) + lag]


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / scale) if scale else float("nan")


def _asymmetry(lags_ms: Sequence[int], values: Sequence[float]) -> float:
    squares = np.nan_to_num(np.array(values, dtype=np.float64)) ** 2
    lags = np.array(lags_ms)
    ahead, behind = float(squares[lags > 0].sum()), float(squares[lags < 0].sum())
    return ahead / behind if behind else float("nan")
