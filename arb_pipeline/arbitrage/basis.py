"""How far apart two books are: mids, microprices, basis, executable gap, and which of two series moves first.

A basis (difference of mids) is no edge: what can be executed is a bid over an ask, less the fees of both legs.
Prices are dollars, sizes contracts.

:func:`basis` takes the tops of one instant as exact decimals, or those of many instants as arrays. What is said of an
hour (the table ``basis``) are statistics over time, and statistics are floats; nothing is traded by them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from arb_pipeline.arbitrage.fees import FeeSource
from arb_pipeline.arbitrage.intervals import Nanos, union
from arb_pipeline.arbitrage.pairs import MarketData, Pair
from arb_pipeline.arbitrage.streams import NULL, PairStream, Polls, QuoteRows, load_streams
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.model import Market, Relation
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import FeeUnknownError

__all__ = [
    "BEYOND_CHANCE",
    "LAGS_MS",
    "Basis",
    "Floats",
    "LeadLag",
    "Series",
    "Tops",
    "basis",
    "basis_rows",
    "cross_correlation",
    "hayashi_yoshida",
    "is_one_proposition",
    "lead_lag",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Value = TypeVar("Value", Decimal, Floats)

_AHEAD: Final = (*range(10, 100, 10), *range(100, 1_000, 100), *range(1_000, 30_001, 1_000))
LAGS_MS: Final = (*(-lag for lag in reversed(_AHEAD)), 0, *_AHEAD)
"""Lags at which a lead is looked for: finer where they are short, as many ahead as behind."""

BEYOND_CHANCE: Final = 4.0
"""A dependence counts if it is more than so many times what moves of random signs would show. With fewer than 17
moves that go together there is none, however well they agree."""

_MS: Final = 1_000_000
_GRID_MS: Final = 1_000
_MOST_LAG_MS: Final = 30_000
_TICK: Final = 10_000
"""Prices in a dollar: the grid of prices is 1e-4 dollars."""
_CONTRACT: Final = 1_000_000
_EQUAL: Final = 1e-9
"""Dependences that differ by less differ by rounding."""


@dataclass(frozen=True, slots=True)
class Tops(Generic[Value]):
    """Best bid and ask of one book with their sizes: at one instant, or at many."""

    bid: Value
    ask: Value
    bid_size: Value
    ask_size: Value

    @property
    def mid(self) -> Value:
        """Middle of bid and ask."""
        return (self.bid + self.ask) / 2

    @property
    def microprice(self) -> Value:
        """Mid weighted towards the thinner side, which is the likelier to give way."""
        return (self.bid * self.ask_size + self.ask * self.bid_size) / (self.bid_size + self.ask_size)


@dataclass(frozen=True, slots=True)
class Basis(Generic[Value]):
    """Two books of one proposition.

    Attributes:
        mid: Kalshi's mid less Polymarket's.
        executable_gap: the larger of (Kalshi's bid less Polymarket's ask) and the reverse; negative where the books do
            not cross.
        break_even: unrounded taker fees of both legs at the mids: what the gap has to exceed.
    """

    mid: Value
    executable_gap: Value
    break_even: Value

    @property
    def clipped_gap(self) -> Value:
        """The executable gap, zero where there is none."""
        return _larger(self.executable_gap, self.executable_gap * 0)


class Charge(Protocol):
    """What is asked of a fee model here."""

    def marginal(self, price: Decimal) -> Decimal:
        """Unrounded taker fee per contract at a price."""
        ...


def basis(kalshi: Tops[Value], polymarket: Tops[Value], fees: tuple[Charge, Charge]) -> Basis[Value]:
    """Compare two books of one proposition (an inverted market's book already turned round).

    Args:
        kalshi, polymarket: their tops.
        fees: (Kalshi's, Polymarket's).
    """
    gap = _larger(kalshi.bid - polymarket.ask, polymarket.bid - kalshi.ask)
    break_even = _marginal(fees[0], kalshi.mid) + _marginal(fees[1], polymarket.mid)
    return Basis(kalshi.mid - polymarket.mid, gap, break_even)


def _larger(one: Value, other: Value) -> Value:
    larger: Any = np.maximum  # takes decimals too, of which its stubs know nothing
    return cast("Value", larger(one, other))


def _marginal(fees: Charge, mids: Value) -> Value:
    """The fee at each mid; of many mids each distinct one, a multiple of half a tick, is priced once."""
    if isinstance(mids, Decimal):
        return fees.marginal(mids)
    half_ticks, place = np.unique(np.rint(mids * 2 * _TICK).astype(np.int64), return_inverse=True)
    paid = np.array([float(fees.marginal(Decimal(at) / (2 * _TICK))) for at in half_ticks.tolist()], dtype=np.float64)
    return paid[place]


# --- lead and lag --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moves:
    """Changes of a value, each of which came about in (begins, ends]; these follow one another."""

    begins_ns: Nanos
    ends_ns: Nanos
    changes: Floats


@dataclass(frozen=True, slots=True)
class Series:
    """Values from rising times (ns since the epoch) on, each until the next; nan while nothing is known."""

    times_ns: Nanos
    values: Floats

    def at(self, times_ns: Nanos) -> Floats:
        """The values as of these times; nan before the first."""
        known = np.append(self.values, np.nan)
        return known[np.searchsorted(self.times_ns, times_ns, side="right") - 1]

    def moves(self) -> Moves:
        """The changes from one known value to another; what passed while nothing was known is none."""
        before, after = self.values[:-1], self.values[1:]
        taken = (before != after) & ~(np.isnan(before) & np.isnan(after))
        first = np.ones(min(len(self.values), 1), dtype=np.bool_)
        at = np.flatnonzero(np.append(first, taken))
        times, changes = self.times_ns[at], np.diff(self.values[at])
        known = ~np.isnan(changes)
        return Moves(times[:-1][known], times[1:][known], changes[known])


@dataclass(frozen=True, slots=True)
class LeadLag:
    """Dependence of two series at shifts of the second against the first.

    Attributes:
        lags_ms: positive where the first series leads: at a lag of L the second is compared L ms later.
        values: correlation at each lag; nan where a series did not move.
        chances: what moves of the same sizes with random signs show at each lag (one standard deviation).
        asymmetry: squared dependence where the first leads, divided by that where the second does (Huth and Abergel
            2014); above 1 the first leads. nan where nothing moved.
    """

    lags_ms: tuple[int, ...]
    values: tuple[float, ...]
    chances: tuple[float, ...]
    asymmetry: float

    @property
    def lead_ms(self) -> int | None:
        """The lag of the strongest dependence, the shortest of several as strong; None where that tells nothing.

        It tells nothing if no dependence is beyond chance, or if one as strong has the opposite lag. A lead is known
        no better than to the time that passes between the moves.
        """
        found = np.abs(np.array(self.values, dtype=np.float64))
        if not len(found) or np.isnan(found).all():
            return None
        strongest = np.flatnonzero(found >= np.nanmax(found) * (1 - _EQUAL))
        lags = np.array(self.lags_ms)[strongest]
        nearest = strongest[np.abs(lags) == np.abs(lags).min()]
        at = int(nearest[0])
        beyond = self.values[at] and found[at] > BEYOND_CHANCE * self.chances[at]
        return self.lags_ms[at] if beyond and len(nearest) == 1 else None

    @property
    def correlation(self) -> float | None:
        """The dependence at the lead; None without one."""
        lead = self.lead_ms
        return None if lead is None else self.values[self.lags_ms.index(lead)]


def hayashi_yoshida(first: Series, second: Series, shift_ns: int = 0) -> float:
    """Correlation of two series that change at times of their own (Hayashi and Yoshida 2005), without resampling.

    The changes of both are multiplied wherever the intervals over which they came about overlap.

    Args:
        first, second: the series.
        shift_ns: the second one is moved back by so much, which finds what it does so long after the first.

    Returns:
        A figure in about [-1, 1]; nan if a series does not move.
    """
    return _hayashi_yoshida(first.moves(), second.moves(), shift_ns)[0]


def lead_lag(first: Series, second: Series, lags_ms: Sequence[int] = LAGS_MS) -> LeadLag:
    """Hayashi-Yoshida correlation over a range of lags."""
    a, b = first.moves(), second.moves()
    return _lead_lag(lags_ms, [_hayashi_yoshida(a, b, lag * _MS) for lag in lags_ms])


def cross_correlation(
    first: Series, second: Series, step_ms: int = _GRID_MS, most_lag_ms: int = _MOST_LAG_MS
) -> LeadLag:
    """Correlation of the changes of log-odds on a grid, at lags of up to ``most_lag_ms`` either way.

    Values are probabilities as of each grid point. A change that begins or ends where a series is not known, or is
    certain (0 or 1), is left out.
    """
    step, most = step_ms * _MS, most_lag_ms // step_ms
    times = np.concatenate((first.times_ns, second.times_ns))
    begin, end = (int(times.min()), int(times.max())) if len(times) else (0, 0)
    grid = np.arange(-(-begin // step) * step, end + step, step, dtype=np.int64)
    a, b = np.diff(_log_odds(first.at(grid))), np.diff(_log_odds(second.at(grid)))
    lags = [lag for lag in range(-most, most + 1) if len(a) - abs(lag) > 1]
    return _lead_lag([lag * step_ms for lag in lags], [_correlation(*_shifted(a, b, lag)) for lag in lags])


Dependence: TypeAlias = tuple[float, float]
"""A correlation, and how large chance alone makes it."""

_STILL: Final = (float("nan"), float("nan"))


def _hayashi_yoshida(first: Moves, second: Moves, shift_ns: int) -> Dependence:
    a, b = first.changes, second.changes
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if not scale:
        return _STILL
    # The changes of the second that overlap one of the first lie in a row.
    begin = np.searchsorted(second.ends_ns - shift_ns, first.begins_ns, side="right")
    end = np.maximum(np.searchsorted(second.begins_ns - shift_ns, first.ends_ns, side="left"), begin)

    def overlapping(values: Floats) -> Floats:
        sums = np.concatenate(([0.0], np.cumsum(values)))
        return sums[end] - sums[begin]

    together = float((a * overlapping(b)).sum())
    return together / scale, float(np.sqrt((a * a * overlapping(b * b)).sum())) / scale


def _lead_lag(lags_ms: Sequence[int], found: Sequence[Dependence]) -> LeadLag:
    values, chances = (tuple(one[place] for one in found) for place in (0, 1))
    return LeadLag(tuple(lags_ms), values, chances, _asymmetry(lags_ms, values))


def _log_odds(values: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        odds: Floats = np.log(values) - np.log1p(-values)
    return np.where(np.isfinite(odds), odds, np.nan)


def _shifted(first: Floats, second: Floats, lag: int) -> tuple[Floats, Floats]:
    """The first series against what the second does ``lag`` steps later."""
    if lag >= 0:
        return first[: len(first) - lag], second[lag:]
    return first[-lag:], second[: len(second) + lag]


def _correlation(a: Floats, b: Floats) -> Dependence:
    known = ~(np.isnan(a) | np.isnan(b))
    if not known.any():
        return _STILL
    a, b = a[known] - a[known].mean(), b[known] - b[known].mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if not scale:
        return _STILL
    return float((a * b).sum()) / scale, float(np.sqrt((a * a * b * b).sum())) / scale


def _asymmetry(lags_ms: Sequence[int], values: Sequence[float]) -> float:
    squares = np.nan_to_num(np.array(values, dtype=np.float64)) ** 2
    lags = np.array(lags_ms)
    ahead, behind = float(squares[lags > 0].sum()), float(squares[lags < 0].sum())
    return ahead / behind if behind else float("nan")


# --- a window of pairs ----------------------------------------------------------------------------------------


def is_one_proposition(pair: Pair) -> bool:
    """Whether both markets ask the same, be it inverted; of other relations a difference of mids says nothing."""
    return pair.relation in (Relation.EQUIVALENT, Relation.INVERTED)


def basis_rows(  # noqa: PLR0917 - as the other evaluations
    pairs: Sequence[Pair],
    data: MarketData,
    start: datetime,
    end: datetime,
    settings: Settings,
    fees: FeeSource,
    polls: Polls | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of the table ``basis`` over [start, end), in the order of the pairs' keys.

    A pair of which one book was not captured has none. Every figure is weighted by time over the exact steps of both
    tops, while both books are trusted and have both sides; nothing is sampled. What cannot be told is None.

    Args:
        data: of these pairs' markets.
        polls: when polled connections answered, where the data are not all that was received over them.
    """
    start_ns, end_ns = ns_from_datetime(start), ns_from_datetime(end)
    streams = load_streams(pairs, data, end_ns, settings, polls)
    for pair in sorted(pairs, key=lambda pair: pair.key):
        stream = PairStream.of(pair, streams)
        if all(leg.quotes.recv_ns.size for leg in stream.legs):
            keys = dict(zip(("kalshi_market_id", "polymarket_market_id"), pair.key, strict=True))
            yield {**keys, "start_at": start, **_figures(stream, start_ns, end_ns, fees)}


def _figures(stream: PairStream, start_ns: int, end_ns: int, fees: FeeSource) -> dict[str, float | int | None]:
    quotes = [leg.quotes for leg in stream.legs]
    spans = _fee_spans(stream.pair, fees, start_ns, end_ns)
    priced_from = np.array([at for at, _ in spans], dtype=np.int64)
    instants = union(*(rows.recv_ns for rows in quotes), stream.trust_edges, priced_from)
    instants = instants[(instants >= start_ns) & (instants < end_ns)]
    tops = [rows.as_of(instants) for rows in quotes]
    known = (stream.distrust(instants)[0] == 0) & _two_sided(tops[0]) & _two_sided(tops[1])
    at = np.flatnonzero(known)
    lasted = np.diff(np.append(instants, end_ns))[at].astype(np.float64)
    kalshi, polymarket = (_floats(rows.take(at)) for rows in tops)
    bounds = [*np.searchsorted(instants[at], priced_from).tolist(), len(at)]
    found = [
        basis(_part(kalshi, piece), _part(polymarket, piece), charges)
        for piece, (_, charges) in zip(map(slice, bounds[:-1], bounds[1:]), spans, strict=True)
    ]
    mid, gap, clipped, break_even = (
        np.concatenate([getattr(one, name) for one in found])
        for name in ("mid", "executable_gap", "clipped_gap", "break_even")
    )
    charged = ~np.isnan(break_even)
    first, second = (_series(instants, at, top.mid) for top in (kalshi, polymarket))
    ticks, grid = lead_lag(first, second), cross_correlation(first, second)
    return {
        "known_ns": int(lasted.sum()),
        "basis_mean": _mean(mid, lasted),
        "basis_min": _extreme(mid, np.min),
        "basis_max": _extreme(mid, np.max),
        "microprice_basis_mean": _mean(kalshi.microprice - polymarket.microprice, lasted),
        "gap_mean": _mean(gap, lasted),
        "gap_max": _extreme(gap, np.max),
        "clipped_gap_mean": _mean(clipped, lasted),
        "break_even_mean": _mean(break_even[charged], lasted[charged]),
        "crossed_share": _mean((gap > 0).astype(np.float64), lasted),
        "paying_share": _mean((gap > break_even)[charged].astype(np.float64), lasted[charged]),
        "kalshi_moves": len(first.moves().changes),
        "polymarket_moves": len(second.moves().changes),
        "lead_ms": ticks.lead_ms,
        "lead_correlation": ticks.correlation,
        "lead_asymmetry": _told(ticks.asymmetry) if ticks.lead_ms is not None else None,
        "grid_lead_ms": grid.lead_ms,
        "grid_correlation": grid.correlation,
    }


class _Unknown:
    """Stands for fees that nobody knows."""

    def marginal(self, price: Decimal) -> Decimal:  # noqa: ARG002 - not known at any price
        return Decimal("NaN")


def _fee_spans(pair: Pair, fees: FeeSource, start_ns: int, end_ns: int) -> list[tuple[int, tuple[Charge, Charge]]]:
    """From when on in the window which fees hold, ns."""
    spans: list[tuple[int, tuple[Charge, Charge]]] = []
    at: int | None = start_ns
    while at is not None and at < end_ns:
        (kalshi, until), (polymarket, then) = (_charge(market, fees, at) for market in (pair.kalshi, pair.polymarket))
        spans.append((at, (kalshi, polymarket)))
        at = min((end for end in (until, then) if end is not None and end > at), default=None)
    return spans


def _charge(market: Market, fees: FeeSource, at_ns: int) -> tuple[Charge, int | None]:
    """The fees of a market at a time, and until when they hold."""
    try:
        model = fees(market, datetime_from_ns(at_ns))
    except FeeUnknownError as error:
        charge: Charge = _Unknown()
        until = error.valid_to
    else:
        charge, until = model, model.schedule.valid_to
    return charge, None if until is None else ns_from_datetime(until)


def _two_sided(rows: QuoteRows) -> Flags:
    there: Flags = (rows.bid != NULL) & (rows.ask != NULL) & (rows.bid_size > 0) & (rows.ask_size > 0)
    return there


def _floats(rows: QuoteRows) -> Tops[Floats]:
    return Tops(rows.bid / _TICK, rows.ask / _TICK, rows.bid_size / _CONTRACT, rows.ask_size / _CONTRACT)


def _part(tops: Tops[Floats], at: slice) -> Tops[Floats]:
    return Tops(tops.bid[at], tops.ask[at], tops.bid_size[at], tops.ask_size[at])


def _series(instants: Nanos, at: npt.NDArray[np.intp], mids: Floats) -> Series:
    values = np.full(len(instants), np.nan)
    values[at] = mids
    return Series(instants, values)


def _mean(values: Floats, lasted: Floats) -> float | None:
    return float((values * lasted).sum() / lasted.sum()) if lasted.size else None


def _extreme(values: Floats, pick: Any) -> float | None:
    return float(pick(values)) if values.size else None


def _told(value: float) -> float | None:
    return None if np.isnan(value) else value
