"""Candles from what was captured: OHLC of trusted quotes and of trades, with the share of time that was covered.

A candle of [begin, end) is stamped by its end: that is when it is known, and what is to be joined by. Its quotes count
from what stood at its beginning to its end, but only while the book was known (:mod:`arb_pipeline.storage.tops`). Times
are receive times. As with the venues' own, an interval in which neither the top of the book nor a trade came has no
candle, unless all are asked for: what stood before stands, as far as the next candle's ``coverage`` says.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.model import Candle
from arb_pipeline.storage.arrow import Ints, Mask, decimal_array, int_array, key_codes, repeated, sort_table
from arb_pipeline.storage.lake import HOUR_NS, Compaction, Lake, Partition
from arb_pipeline.storage.tops import (
    NULL,
    HourRows,
    MarketTops,
    by_market,
    market_groups,
    prices,
    read_hour,
    row_counts,
    tops_of,
)
from arb_pipeline.tables import table
from arb_pipeline.units import price_decimal, size_decimal, trade_price_decimal

__all__ = [
    "DAY_S",
    "INTERVALS_S",
    "WITHIN_HOUR_S",
    "Bars",
    "captured_markets",
    "day_candles",
    "hour_bars",
    "hour_candles",
    "remade",
    "renewed",
    "venue_candles",
    "write_day_candles",
    "write_hour_candles",
]

DAY_S: Final = 86_400
WITHIN_HOUR_S: Final = (1, 60, 3_600)
"""Lengths of the candles that one hour's rows give, seconds."""
INTERVALS_S: Final = (*WITHIN_HOUR_S, DAY_S)
"""Lengths of the candles that are made, seconds."""

_HOUR_S: Final = 3_600
_SECOND: Final = 1_000_000_000
_SIDES: Final = ("bid", "ask", "price")
_POINTS: Final = ("open", "high", "low", "close")

Ohlc: TypeAlias = tuple[Ints, Ints, Ints, Ints]
"""Open, high, low and close; :data:`NULL` where there is none."""


@dataclass(frozen=True)
class Bars:
    """Candles of one length, as integers: prices 1e-4 dollars, traded ones 1e-9, sizes 1e-6 contracts.

    Attributes:
        market: index into the markets asked for. start: first instant, ns.
        covered: trusted time, ns. updates: quotes that came in it. turnover: price x size, exact Python integers.
    """

    market: Ints
    start: Ints
    bid: Ohlc
    ask: Ohlc
    price: Ohlc
    covered: Ints
    updates: Ints
    trades: Ints
    volume: Ints
    turnover: npt.NDArray[np.object_]

    @property
    def moved(self) -> Mask:
        """Whether a quote or a trade came; the others only say what stood."""
        mask: Mask = (self.updates > 0) | (self.trades > 0)
        return mask

    def take(self, at: Mask | npt.NDArray[np.intp]) -> "Bars":
        """Some of the candles."""
        return _mapped([self], lambda columns: columns[0][at])

    @classmethod
    def joined(cls, parts: "Sequence[Bars]") -> "Bars":
        """All of them, in the order given."""
        return _mapped(parts, np.concatenate)


def _mapped(parts: Sequence[Bars], change: Callable[[list[npt.NDArray[Any]]], npt.NDArray[Any]]) -> Bars:
    def one(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        if name in _SIDES:
            return tuple(change([value[point] for value in values]) for point in range(len(_POINTS)))
        return change(values)

    return Bars(*(one(name) for name in Bars.__dataclass_fields__))


# --- from an hour's rows -----------------------------------------------------------------------------------------


def hour_bars(
    hour: HourRows, markets: Sequence[str], intervals_s: Collection[int], max_age_ns: int | None = None
) -> dict[int, Bars]:
    """Candles of these markets in an hour, by length; also those in which nothing came, as far as they are covered.

    Args:
        max_age_ns: a top that nothing changed for longer counts as not known; None: a live connection is proof enough.

    Raises:
        ValueError: if an hour is no multiple of an interval.
    """
    for interval_s in intervals_s:
        if interval_s <= 0 or _HOUR_S % interval_s:
            raise ValueError(f"interval {interval_s} s does not divide an hour")
    made: dict[int, list[Bars]] = {interval_s: [] for interval_s in intervals_s}
    tops = tops_of(hour, markets)
    trades, slices = _Trades.of(hour.trades), by_market(hour.trades, markets)
    for code, (market, traded) in enumerate(zip(tops, slices, strict=True)):
        standing = _Standing.of(market, max_age_ns)
        for interval_s, found in made.items():
            found.append(_bars(code, standing, trades.part(traded), interval_s * _SECOND))
    return {interval_s: Bars.joined(found or [_no_bars()]) for interval_s, found in made.items()}


@dataclass(frozen=True)
class _Standing:
    """Trusted time cut into pieces within which nothing changes, and when trusted quotes came."""

    begins: Ints
    ceases: Ints
    bid: Ints
    ask: Ints
    updates: Ints

    @classmethod
    def of(cls, tops: MarketTops, max_age_ns: int | None) -> "_Standing":
        known = tops.known
        inside = known.contains(tops.times)
        begins = np.unique(np.concatenate((tops.times[inside], known.starts)))
        ends = known.ends[np.searchsorted(known.starts, begins, "right") - 1]
        ceases = np.minimum(np.append(begins[1:], ends[-1:]), ends)
        newest = np.searchsorted(tops.times, begins, "right") - 1
        if max_age_ns is not None:
            ceases = np.minimum(ceases, tops.times[newest] + max_age_ns)
            young = begins < ceases
            begins, ceases, newest = begins[young], ceases[young], newest[young]
        return cls(begins, ceases, tops.bid[newest], tops.ask[newest], tops.times[inside & tops.quoted])


@dataclass(frozen=True)
class _Trades:
    times: Ints
    price: Ints
    size: Ints

    @classmethod
    def of(cls, rows: pa.Table) -> "_Trades":
        return cls(rows["recv_ns"].to_numpy(), prices(rows["price"]), prices(rows["size"]))

    def part(self, at: slice) -> "_Trades":
        return _Trades(self.times[at], self.price[at], self.size[at])


def _bars(code: int, standing: _Standing, trades: _Trades, step: int) -> Bars:
    first, last = standing.begins // step, (standing.ceases - 1) // step
    cuts = last - first + 1
    piece = np.repeat(np.arange(len(cuts)), cuts)
    cell = first[piece] + np.arange(len(piece)) - np.repeat(np.cumsum(cuts) - cuts, cuts)
    lasted = np.minimum(standing.ceases[piece], (cell + 1) * step) - np.maximum(standing.begins[piece], cell * step)
    traded = trades.times // step
    cells = np.union1d(cell, traded)
    return Bars(
        market=np.full(len(cells), code, dtype=np.int64),
        start=cells * step,
        bid=_ohlc(cells, cell, _flat(standing.bid[piece])),
        ask=_ohlc(cells, cell, _flat(standing.ask[piece])),
        price=_ohlc(cells, traded, _flat(trades.price)),
        covered=_summed(cells, cell, lasted),
        updates=_summed(cells, standing.updates // step, np.ones(len(standing.updates), dtype=np.int64)),
        trades=_summed(cells, traded, np.ones(len(traded), dtype=np.int64)),
        volume=_summed(cells, traded, trades.size),
        # Dollars to 15 places do not fit 64 bits for a large trade.
        turnover=_summed(cells, traded, trades.price.astype(object) * trades.size.astype(object)),
    )


def _flat(values: Ints) -> Ohlc:
    return values, values, values, values


def _ohlc(cells: Ints, cell: Ints, points: Ohlc) -> Ohlc:
    """Points by cell (rising), each of ``cells`` once; a cell without any price has none."""
    there = points[0] != NULL
    cell = cell[there]
    begins = np.flatnonzero(np.diff(cell, prepend=-1))
    result = tuple(np.full(len(cells), NULL, dtype=np.int64) for _ in _POINTS)
    if len(begins):
        at = np.searchsorted(cells, cell[begins])
        open_, high, low, close = (values[there] for values in points)
        result[0][at] = open_[begins]
        result[1][at] = np.maximum.reduceat(high, begins)
        result[2][at] = np.minimum.reduceat(low, begins)
        result[3][at] = close[np.append(begins[1:], len(cell)) - 1]
    return result[0], result[1], result[2], result[3]


def _summed(cells: Ints, cell: Ints, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sums by cell (rising), of each of ``cells``."""
    total = np.zeros(len(cells), dtype=values.dtype)
    begins = np.flatnonzero(np.diff(cell, prepend=-1))
    if len(begins):
        total[np.searchsorted(cells, cell[begins])] = np.add.reduceat(values, begins)
    return total


def _day(hours: Sequence[Bars], day_ns: int) -> Bars:
    """A day's candle of each market from those of its hours, given hour by hour."""
    found = Bars.joined(hours)
    found = found.take(np.argsort(found.market, kind="stable"))
    markets = np.unique(found.market)

    def summed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return _summed(markets, found.market, values)

    return Bars(
        market=markets,
        start=np.full(len(markets), day_ns, dtype=np.int64),
        bid=_ohlc(markets, found.market, found.bid),
        ask=_ohlc(markets, found.market, found.ask),
        price=_ohlc(markets, found.market, found.price),
        covered=summed(found.covered),
        updates=summed(found.updates),
        trades=summed(found.trades),
        volume=summed(found.volume),
        turnover=summed(found.turnover),
    )


def _no_bars() -> Bars:
    none = np.empty(0, dtype=np.int64)
    return Bars(none, none, _flat(none), _flat(none), _flat(none), none, none, none, none, none.astype(object))


# --- rows of the table -------------------------------------------------------------------------------------------


def hour_candles(
    lake: Lake,
    hour: Partition,
    now: datetime,
    *,
    intervals_s: Collection[int] = WITHIN_HOUR_S,
    markets: Collection[str] | None = None,
    quiet: bool = False,
) -> pa.Table:
    """Our own candles of a venue's hour, of all captured markets or of these, as rows of the table, known at ``now``.

    Only intervals that are over have one. Memory is bounded by some million rows of quotes and book changes at a time,
    and by the result.

    Args:
        quiet: also candles of intervals in which nothing came, as far as what stood is known.
    """
    declared = table("candles")
    made = [declared.schema.empty_table()]
    for names, bars in _hour_bars(lake, hour, now, intervals_s, markets):
        rows = [
            _rows(found if quiet else found.take(found.moved), names, hour, interval_s, now)
            for interval_s, found in bars.items()
        ]
        # Groups follow each other in the order of their markets: sorted here, the whole is not copied to sort it.
        made.append(sort_table(pa.concat_tables(rows), declared.sort))
    return pa.concat_tables(made)


def day_candles(lake: Lake, day: Partition, now: datetime, *, markets: Collection[str] | None = None) -> pa.Table:
    """Our own candles of a venue's whole UTC day (a partition without an hour); none before it is over."""
    assert day.bounds is not None
    start, end = day.bounds
    made = [table("candles").schema.empty_table()]
    if ns_from_datetime(now) < end:
        return made[0]
    hours = [datetime_from_ns(at) for at in range(start, end, HOUR_NS)]
    names: dict[str, int] = {}
    hourly = []
    for at in hours:
        hour = Partition(day.venue, day.date, at.hour)
        for group, bars in _hour_bars(lake, hour, now, (_HOUR_S,), markets):
            codes = np.array([names.setdefault(name, len(names)) for name in group], dtype=np.int64)
            found = bars[_HOUR_S]
            hourly.append(replace(found, market=codes[found.market]))
    if hourly:
        whole = _day(hourly, start)
        made.append(_rows(whole.take(whole.moved), list(names), day, DAY_S, now))
    return pa.concat_tables(made)


def _hour_bars(
    lake: Lake,
    hour: Partition,
    now: datetime,
    intervals_s: Collection[int],
    markets: Collection[str] | None,
) -> Iterator[tuple[list[str], dict[int, Bars]]]:
    """Candles that are over at ``now``, so many markets at a time as fit into memory."""
    assert hour.venue is not None
    assert hour.bounds is not None
    venue, (start, end) = hour.venue, hour.bounds
    now_ns = ns_from_datetime(now)
    until = min(end, now_ns)
    if until <= start:
        return
    for group in market_groups(lake, venue, start, until, markets=markets):
        bars = hour_bars(read_hour(lake, venue, start, until, group), group, intervals_s)
        over = {length: found.start + length * _SECOND <= now_ns for length, found in bars.items()}
        yield group, {length: found.take(over[length]) for length, found in bars.items()}


def _rows(bars: Bars, markets: Sequence[str], of: Partition, interval_s: int, now: datetime) -> pa.Table:
    """Rows of the table."""
    declared = table("candles")
    count = len(bars.market)
    traded = bars.trades > 0
    step = interval_s * _SECOND
    columns: dict[str, pa.Array] = {
        "venue": pa.repeat(pa.scalar(of.venue, pa.string()), count),
        "market_id": pa.array(markets, pa.string()).take(pa.array(bars.market)),
        "interval_s": pa.repeat(pa.scalar(interval_s, pa.int64()), count),
        "begin_at": _times(bars.start),
        "end_at": _times(bars.start + step),
        "price_mean": decimal_array(_means(bars), _type("price_mean"), bars.volume > 0),
        "volume": decimal_array(bars.volume, _type("volume"), traded),
        "trades": int_array(bars.trades, traded),
        "open_interest": pa.nulls(count, _type("open_interest")),
        "coverage": pa.array(bars.covered / step),
        "updates": int_array(bars.updates),
        "source": pa.repeat(pa.scalar("ws", pa.string()), count),
        "known_at": pa.repeat(pa.scalar(now, pa.timestamp("us", tz="UTC")), count),
    }
    for side in _SIDES:
        for point, values in zip(_POINTS, getattr(bars, side), strict=True):
            name = f"{side}_{point}"
            columns[name] = decimal_array(values, _type(name), values != NULL)
    return pa.Table.from_arrays([columns[name] for name in declared.column_names], schema=declared.schema)


def _type(name: str) -> pa.Decimal128Type:
    return table("candles").schema.field(name).type


def _times(ns: Ints) -> pa.Array:
    return int_array(ns // 1_000).cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))


def _means(bars: Bars) -> Ints:
    """Turnover by volume, 1e-9 dollars, rounded half to even; 0 without a volume."""
    means = np.zeros(len(bars.volume), dtype=np.int64)
    for at in np.flatnonzero(bars.volume > 0).tolist():
        volume = int(bars.volume[at])
        whole, rest = divmod(bars.turnover[at], volume)
        means[at] = whole + (2 * rest > volume or (2 * rest == volume and whole % 2))
    return means


# --- in the lake -------------------------------------------------------------------------------------------------


def write_hour_candles(
    lake: Lake,
    hour: Partition,
    now: datetime,
    *,
    intervals_s: Collection[int] = WITHIN_HOUR_S,
    markets: Collection[str] | None = None,
) -> tuple[Compaction, pa.Table]:
    """Make our candles of an hour (of these markets) anew; what says the same stays as it was.

    Returns:
        What the partition holds now, and the candles that were made.
    """
    rows = hour_candles(lake, hour, now, intervals_s=intervals_s, markets=markets)
    change = partial(remade, rows=rows, intervals_s=intervals_s, markets=markets)
    return lake.update("candles", hour, change), rows


def write_day_candles(
    lake: Lake, day: Partition, now: datetime, *, markets: Collection[str] | None = None
) -> tuple[Compaction, pa.Table]:
    """Make our candle of a day anew; it stands in the first hour of its day, where it begins."""
    rows = day_candles(lake, day, now, markets=markets)
    change = partial(remade, rows=rows, intervals_s=(DAY_S,), markets=markets)
    return lake.update("candles", Partition(day.venue, day.date, 0), change), rows


def remade(
    held: pa.Table, rows: pa.Table, *, intervals_s: Collection[int], markets: Collection[str] | None = None
) -> pa.Table:
    """What a partition holds, with these in place of all our own candles of these lengths (and markets)."""
    if not held.num_rows:
        return rows
    ours = pc.and_(pc.equal(held["source"], "ws"), pc.is_in(held["interval_s"], pa.array(sorted(intervals_s))))
    if markets is not None:
        ours = pc.and_(ours, pc.is_in(held["market_id"], pa.array(sorted(markets), pa.string())))
    before = held.filter(ours)
    again, _ = repeated(pa.concat_tables([rows, before]), table("candles").key)
    there = before.take(pa.array(again - rows.num_rows))
    return pa.concat_tables([held.filter(pc.invert(ours)), renewed(there, rows)])


def venue_candles(candles: Sequence[Candle], venue: str, interval_s: int, known_at: datetime) -> pa.Table:
    """A venue's own candlesticks as rows of the table."""
    rows = []
    for candle in candles:
        row: dict[str, object] = {
            "venue": venue,
            "market_id": candle.market_id,
            "interval_s": interval_s,
            "begin_at": datetime_from_ns(candle.begin_ns),
            "end_at": datetime_from_ns(candle.end_ns),
            "price_mean": None if candle.mean is None else trade_price_decimal(candle.mean),
            "volume": None if candle.volume is None else size_decimal(candle.volume),
            "open_interest": None if candle.open_interest is None else size_decimal(candle.open_interest),
            "source": "rest",
            "known_at": known_at,
        }
        for name, points, decimal in (
            ("bid", candle.bid, price_decimal),
            ("ask", candle.ask, price_decimal),
            ("price", candle.price, trade_price_decimal),
        ):
            for point, value in zip(("open", "high", "low", "close"), points or (), strict=False):
                row[f"{name}_{point}"] = decimal(value)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=table("candles").schema)


def renewed(held: pa.Table, rows: pa.Table) -> pa.Table:
    """What a partition holds, with these rows in place of those of their keys; one that says the same stays as it was.

    So a candle's ``known_at`` is when it was first known as it stands, however often it is fetched.
    """
    both = pa.concat_tables([rows, held])
    later, first = repeated(both, table("candles").key)
    same = np.ones(len(later), dtype=np.bool_)
    for name in both.column_names:
        if name != "known_at":
            codes = key_codes(both[name])
            same &= codes[later] == codes[first]
    keep = np.ones(both.num_rows, dtype=np.bool_)
    keep[later[~same]] = False
    keep[first[same]] = False
    return both.filter(pa.array(keep))


def captured_markets(lake: Lake, venue: str, start: int, end: int, markets: Collection[str] | None = None) -> set[str]:
    """Markets (of these) with a quote or a trade received in [start, end) ns."""
    return {
        market for name in ("quotes", "trades") for market in row_counts(lake, name, venue, start, end, markets=markets)
    }
