"""Books filled forward on a grid of time, made when they are asked for.

The points of a grid of N ms are the whole multiples of N ms since the epoch. At a point counts what was received up to
and at it, nothing later: the book is that of :func:`arb_pipeline.storage.books.book_at`. Every point of a market has a
row; where its book is not known (:mod:`arb_pipeline.storage.lines`) or impossible, ``in_sync`` is false and all else
null: nothing is ever carried over a gap, and nobody who fills forward again can do so by mistake.

The start of an hour is no event: the opening snapshot that every hour's file begins with counts as received when the
book that it repeats last changed, be that hours ago.

A book is folded without a loop over its rows. For each point at which something changed, the newest row of every price
level is found by a running maximum over a matrix of points x levels; a level counts if that row came after the last
snapshot began, and has a size.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.errors import ArbError
from arb_pipeline.storage.arrow import Ints, Mask, decimal_array, int_array
from arb_pipeline.storage.lake import HOUR_NS, Instant, Lake, Partition
from arb_pipeline.storage.lines import Events, Levels, Line, lines_of
from arb_pipeline.storage.reader import LakeName, Time, instant_ns, open_lake
from arb_pipeline.storage.tops import NULL, market_groups, read_hour, row_counts
from arb_pipeline.tables import table

__all__ = [
    "INTERVAL_MS",
    "LEVELS",
    "MAX_ROWS",
    "GridError",
    "Written",
    "grid",
    "save_grid",
    "write_grid",
    "write_grids",
]

INTERVAL_MS: Final = 100
LEVELS: Final = 5
MAX_ROWS: Final = 3_000_000
"""Rows that may be written into one hour's partition at once, which is all in memory then: about 2 GB."""

_TABLE: Final = table("orderbook_snapshots")
_MS: Final = 1_000_000
_POINTS_AT_ONCE: Final = 65_536
_CELLS_AT_ONCE: Final = 2_000_000
"""Points x levels in memory at a time."""
_HOURS_BACK: Final = 24
"""So far back the last change of a quiet book is looked for."""
_HALF: Final = 50_000
"""A sum of two prices in 1e-4 dollars by this is their mean in 1e-9 dollars."""


class GridError(ArbError):
    """A grid that cannot be made; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: rows, those at which the book was known, and by market the share of them."""

    rows: int
    known: int
    coverage: Mapping[str, float]


def grid(
    markets: str | Collection[str],
    start: Time,
    end: Time,
    interval_ms: int = INTERVAL_MS,
    levels: int = LEVELS,
    *,
    max_age_ms: float | None = None,
    venue: str | None = None,
    lake: LakeName = None,
) -> Iterator[pa.RecordBatch]:
    """Rows of ``orderbook_snapshots`` at every point of the grid in [start, end).

    They come hour by hour and, within an hour, market by market in the order of time. In memory are some million rows
    of the books' changes, and of the grid one market's hour of changes.

    Args:
        markets: Kalshi tickers and Polymarket condition ids, at least one.
        start, end: first instant and first instant after, as :func:`arb_pipeline.read` takes them.
        interval_ms: distance of the points.
        levels: most levels per side.
        max_age_ms: a book that nothing changed for longer counts as not known; None: a live connection is proof enough.
        venue: only look there.
        lake: a folder, an fsspec URL or a :class:`Lake`; None: ``ARB_LAKE``.

    Raises:
        GridError: if a number makes no sense, or the lake holds no book of a market at that time.
        ReadError: if there is no such lake, or a time has no time zone.
    """
    asked = _asked(instant_ns(start, "start"), instant_ns(end, "end"), interval_ms, levels, max_age_ms)
    opened = open_lake(lake)
    chosen = {markets} if isinstance(markets, str) else set(markets)
    return _hours(opened, _held(opened, chosen, asked, venue), asked)


def write_grid(
    lake: Lake,
    hour: Partition,
    markets: Collection[str],
    *,
    start: Instant | None = None,
    end: Instant | None = None,
    interval_ms: int = INTERVAL_MS,
    levels: int = LEVELS,
    max_age_ms: float | None = None,
) -> Written:
    """Make a grid of one venue's hour, or of [start, end) within it, what the table holds of it; the rest stays.

    Raises:
        GridError: as :func:`grid`, and if it would have more than :data:`MAX_ROWS` rows.
    """
    assert hour.bounds is not None
    bounds = [at if at is None or isinstance(at, int) else ns_from_datetime(at) for at in (start, end)]
    begin = max(hour.bounds[0], hour.bounds[0] if bounds[0] is None else bounds[0])
    until = min(hour.bounds[1], hour.bounds[1] if bounds[1] is None else bounds[1])
    asked = _asked(begin, until, interval_ms, levels, max_age_ms)
    asked.check_rows(len(set(markets)))
    return _write(lake, hour, _held(lake, set(markets), asked, hour.venue), asked)


def write_grids(
    lake: Lake,
    markets: Collection[str],
    start: Time,
    end: Time,
    *,
    interval_ms: int = INTERVAL_MS,
    levels: int = LEVELS,
) -> dict[Partition, Written]:
    """Write a grid of these markets in [start, end), hour by hour: the rows that :func:`grid` gives, all of them.

    Returns:
        What was written by partition.

    Raises:
        GridError: as :func:`write_grid`; hours written before it stay.
    """
    whole = _asked(instant_ns(start, "start"), instant_ns(end, "end"), interval_ms, levels, None)
    written = {}
    for venue, ids in _held(lake, set(markets), whole, None).items():
        for at in range(whole.begin - whole.begin % HOUR_NS, whole.until, HOUR_NS):
            asked = replace(whole, begin=max(at, whole.begin), until=min(at + HOUR_NS, whole.until))
            asked.check_rows(len(ids))
            hour = Partition.of(_TABLE, venue, at)
            written[hour] = _write(lake, hour, {venue: ids}, asked)
    return written


def _write(lake: Lake, hour: Partition, markets: Mapping[str, Sequence[str]], asked: "_Asked") -> Written:
    """Make the grid of these markets what the table holds of it in the time asked for, which lies within the hour."""
    rows = pa.Table.from_batches(_hours(lake, markets, asked), _TABLE.schema)
    ids = pa.array(sorted(market for listed in markets.values() for market in listed), pa.string())

    def with_rows(held: pa.Table) -> pa.Table:
        same = pc.and_(pc.equal(held["interval_ms"], asked.interval_ms), pc.is_in(held["market_id"], ids))
        inside = pc.and_(pc.greater_equal(held["recv_ns"], asked.begin), pc.less(held["recv_ns"], asked.until))
        return pa.concat_tables([held.filter(pc.invert(pc.and_(same, inside))), rows])

    lake.update(_TABLE, hour, with_rows)
    shares = rows.group_by("market_id").aggregate([("in_sync", "mean")])
    coverage = dict(zip(shares["market_id"].to_pylist(), shares["in_sync_mean"].to_pylist(), strict=True))
    return Written(rows.num_rows, pc.sum(rows["in_sync"]).as_py() or 0, coverage)


def save_grid(path: Path, batches: Iterator[pa.RecordBatch]) -> int:
    """Write a grid to a Parquet file as it comes; returns the rows."""
    rows = 0
    with pq.ParquetWriter(path, _TABLE.schema, compression="zstd") as file:
        for batch in batches:
            file.write_batch(batch)
            rows += batch.num_rows
    return rows


@dataclass(frozen=True)
class _Asked:
    begin: int
    until: int
    interval_ms: int
    levels: int
    max_age: int | None

    def points(self, start: int, end: int) -> Ints:
        """The points in [start, end) that were asked for."""
        step = self.interval_ms * _MS
        first = -(-max(start, self.begin) // step) * step
        return np.arange(first, min(end, self.until), step, dtype=np.int64)

    def check_rows(self, markets: int) -> None:
        """Refuse to make more rows than can be written at once.

        Raises:
            GridError: if so many markets have more than :data:`MAX_ROWS` points.
        """
        count = markets * (self.until - self.begin) // (self.interval_ms * _MS)
        if count > MAX_ROWS:
            raise GridError(
                f"{markets} markets every {self.interval_ms} ms are {count:,} rows an hour, more than {MAX_ROWS:,}: "
                "name fewer markets, a shorter time or a wider grid"
            )


def _asked(begin: int, until: int, interval_ms: int, levels: int, max_age_ms: float | None) -> _Asked:
    """What is asked for, checked.

    Raises:
        GridError: if a number makes no sense.
    """
    if interval_ms < 1 or levels < 1:
        raise GridError(f"a grid of {interval_ms} ms with {levels} levels is none: give at least 1 ms and 1 level")
    if begin >= until:
        raise GridError(
            f"nothing lies from {datetime_from_ns(begin)} to {datetime_from_ns(until)}: give an earlier start"
        )
    return _Asked(begin, until, interval_ms, levels, None if max_age_ms is None else round(max_age_ms * _MS))


def _held(lake: Lake, markets: Collection[str], asked: _Asked, venue: str | None) -> dict[str, list[str]]:
    """The markets by venue.

    Raises:
        GridError: if there is none, or one that no venue has a book of.
    """
    if not markets:
        raise GridError("no market is named: give Kalshi tickers or Polymarket condition ids")
    venues = {partition.venue for partition in lake.partitions("book_events", venue)} - {None}
    from_hour = asked.begin - asked.begin % HOUR_NS
    found = {
        name: sorted(row_counts(lake, "book_events", name, from_hour, asked.until, markets=markets))
        for name in sorted(name for name in venues if name is not None)
    }
    if missing := sorted(set(markets).difference(*found.values())):
        raise GridError(
            f"the lake {lake.root} holds no book of {', '.join(missing)} from "
            f"{datetime_from_ns(asked.begin)} to {datetime_from_ns(asked.until)}: 'arb status' says what was captured"
        )
    return {name: ids for name, ids in found.items() if ids}


def _hours(lake: Lake, markets: Mapping[str, Sequence[str]], asked: _Asked) -> Iterator[pa.RecordBatch]:
    first = asked.begin - asked.begin % HOUR_NS
    carried = {venue: _carried(lake, venue, ids, first - HOUR_NS, _HOURS_BACK) for venue, ids in markets.items()}
    for start in range(first, asked.until, HOUR_NS):
        end = min(start + HOUR_NS, asked.until)
        points = asked.points(start, end)
        for venue, ids in markets.items():
            seen: dict[str, _Carried] = {}
            for hour in _market_hours(lake, venue, ids, start, end):
                before = carried[venue].get(hour.market)
                yield from _batches(hour, before, points, asked)
                if (after := hour.carried(before)) is not None:
                    seen[hour.market] = after
            carried[venue] = seen


def _carried(lake: Lake, venue: str, markets: Sequence[str], start: int, hours_back: int) -> "dict[str, _Carried]":
    """What stood at the end of the hour that begins at ``start``, with the time of its last change."""
    found: dict[str, _Carried] = {}
    quiet: dict[str, _MarketHour] = {}
    for hour in _market_hours(lake, venue, markets, start, start + HOUR_NS):
        if hour.quiet:
            quiet[hour.market] = hour
        elif (book := hour.carried(None)) is not None:
            found[hour.market] = book
    earlier = _carried(lake, venue, list(quiet), start - HOUR_NS, hours_back - 1) if quiet and hours_back > 1 else {}
    for market, hour in quiet.items():
        if (book := hour.carried(earlier.get(market))) is not None:
            found[market] = book
    return found


# --- one market's hour -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Carried:
    """A book that was known at the end of an hour, and when it last changed."""

    levels: Levels
    source_ns: int


@dataclass(frozen=True)
class _MarketHour:
    """What one market's rows of an hour say, connection by connection."""

    venue: str
    market: str
    start: int
    end: int
    lines: Sequence[Line]

    @property
    def quiet(self) -> bool:
        """Whether the hour says nothing but with which book it was opened."""
        return bool(self.lines) and all(int(line.events.times[-1]) == self.start for line in self.lines)

    def opened_ns(self, line: Line, before: _Carried | None) -> int:
        """Since when the book with which a connection opened the hour is as it is."""
        at = int(np.searchsorted(line.events.times, self.start, "right"))
        opening = line.events.part(slice(0, at)).levels()
        if before is None or opening is None or not all(map(np.array_equal, before.levels, opening)):
            return self.start
        return before.source_ns

    def carried(self, before: _Carried | None) -> _Carried | None:
        """The book at the end of the hour; None if none was to be trusted then."""
        last = np.array([self.end - 1])
        trusted = [line for line in self.lines if line.known.contains(last)[0]]
        if not trusted:
            return None
        line = max(trusted, key=lambda one: (int(one.events.times[-1]), int(one.events.ordinals[-1])))
        levels, newest = line.events.levels(), int(line.events.times[-1])
        assert levels is not None, "a line begins with a snapshot"
        return _Carried(levels, self.opened_ns(line, before) if newest == self.start else newest)


def _market_hours(lake: Lake, venue: str, markets: Sequence[str], start: int, end: int) -> Iterator[_MarketHour]:
    """Each market's rows in [start, end), also of those that have none; first those that have."""
    rest = set(markets)
    tables = ("quotes", "book_events")
    for group in market_groups(lake, venue, start, end, markets=markets, tables=tables):
        for market, lines in zip(group, lines_of(read_hour(lake, venue, start, end, group), group), strict=True):
            yield _MarketHour(venue, market, start, end, lines)
        rest.difference_update(group)
    for market in sorted(rest):
        yield _MarketHour(venue, market, start, end, ())


# --- points ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """The best levels of one side, point after point: how many, their prices and sizes, best first."""

    counts: Ints
    price: Ints
    size: Ints

    @property
    def best(self) -> tuple[Ints, Ints]:
        """Price and size, :data:`NULL` without one."""
        first = np.cumsum(self.counts) - self.counts
        empty = self.counts == 0
        price, size = (np.append(values, NULL)[np.where(empty, -1, first)] for values in (self.price, self.size))
        return price, size

    def json(self) -> pa.Array:
        """Lists of [price, size]."""
        columns = (
            decimal_array(values, _TABLE.schema.field(name).type).cast(pa.string())
            for name, values in (("bid", self.price), ("bid_size", self.size))
        )
        pairs = pc.binary_join_element_wise(*columns, ",")
        offsets = pa.array(np.concatenate(([0], np.cumsum(self.counts))), pa.int32())
        joined = pc.binary_join(pa.ListArray.from_arrays(offsets, pairs), "],[")
        whole = pc.binary_join_element_wise("[[", joined, "]]", "")
        return pc.if_else(pa.array(self.counts == 0), "[]", whole)


@dataclass(frozen=True)
class _States:
    """A connection's book at the points at which it had changed.

    Attributes:
        point: index of the point, rising.
        times, ordinals: of the newest row.
        sound: no level has a negative size, and no bid is at or above an ask.
    """

    point: Ints
    times: Ints
    ordinals: Ints
    sound: Mask
    bids: _Side
    asks: _Side


def _states(events: Events, points: Ints, levels: int) -> _States:
    reached = np.searchsorted(points, events.times, "left")
    used = int(np.searchsorted(reached, len(points), "left"))
    point, first = np.unique(reached[:used], return_index=True)
    last = np.append(first, used)[1:] - 1
    row = np.repeat(np.arange(len(point)), last - first + 1)
    begins = np.flatnonzero(events.clear[:used])
    cleared = np.concatenate(([-1], begins))[np.searchsorted(begins, last, "right")]
    is_level = ~events.clear[:used]
    keys, column = np.unique(events.key[:used][is_level], return_inverse=True)
    at = np.flatnonzero(is_level)
    is_bid = keys % 2 == 0
    sides: list[list[_Side]] = [[], []]
    sound = np.ones(len(point), dtype=np.bool_)
    newest = np.full(len(keys), -1, dtype=np.int64)
    step = max(1, _CELLS_AT_ONCE // max(1, len(keys)))
    for begin in range(0, len(point), step):
        end = min(begin + step, len(point))
        some = slice(*np.searchsorted(at, (first[begin], last[end - 1] + 1)))
        rows = np.full((end - begin, len(keys)), -1, dtype=np.int64)
        rows[row[at[some]] - begin, column[some]] = at[some]  # of several rows of a level the last one stays
        rows[0] = np.maximum(rows[0], newest)
        np.maximum.accumulate(rows, axis=0, out=rows)
        newest = rows[-1]
        size = np.where(rows > cleared[begin:end, None], events.size[rows], 0)
        sound[begin:end] &= ~(size < 0).any(axis=1)
        # Keys rise with the price: the best bid is the last one, the best ask the first.
        for side, chosen in zip(sides, (np.flatnonzero(is_bid)[::-1], np.flatnonzero(~is_bid)), strict=True):
            side.append(_best(size[:, chosen], keys[chosen] // 2, levels))
    bids, asks = map(_one_side, sides)
    (bid, _), (ask, _) = bids.best, asks.best
    sound &= (bid == NULL) | (ask == NULL) | (bid < ask)
    return _States(point, events.times[last], events.ordinals[last], sound, bids, asks)


def _best(size: Ints, price: Ints, levels: int) -> _Side:
    """The first levels of each row that have a size."""
    there = size > 0
    there &= np.cumsum(there, axis=1, dtype=np.int32) <= levels
    rows, columns = np.nonzero(there)
    return _Side(there.sum(axis=1), price[columns], size[rows, columns])


def _one_side(parts: Sequence[_Side]) -> _Side:
    return _Side(*(_joined([getattr(part, name) for part in parts]) for name in ("counts", "price", "size")))


def _joined(parts: Sequence[Ints]) -> Ints:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts]).astype(np.int64)


def _batches(hour: _MarketHour, before: _Carried | None, points: Ints, asked: _Asked) -> Iterator[pa.RecordBatch]:
    told = [_states(line.events, points, asked.levels) for line in hour.lines]
    source = _joined(
        [
            np.where(states.times == hour.start, hour.opened_ns(line, before), states.times)
            for line, states in zip(hour.lines, told, strict=True)
        ]
    )
    of_state = _columns(told)
    for first in range(0, len(points), _POINTS_AT_ONCE):
        some = points[first : first + _POINTS_AT_ONCE]
        state = _in_charge(hour.lines, told, some, first)
        known = state >= 0
        since = np.zeros(len(some), dtype=np.int64)
        since[known] = source[state[known]]
        age = some - since
        if asked.max_age is not None:
            known &= age <= asked.max_age
        chosen = int_array(state, known)
        columns = {
            "venue": pa.repeat(pa.scalar(hour.venue, pa.string()), len(some)),
            "market_id": pa.repeat(pa.scalar(hour.market, pa.string()), len(some)),
            "interval_ms": pa.repeat(pa.scalar(asked.interval_ms, pa.int64()), len(some)),
            "recv_ns": int_array(some),
            "in_sync": pa.array(known),
            "is_forward_filled": pa.array(age >= asked.interval_ms * _MS, pa.bool_(), mask=~known),
            "source_ns": int_array(since, known),
            "age_ns": int_array(age, known),
            **{name: values.take(chosen) for name, values in of_state.items()},
        }
        yield pa.RecordBatch.from_arrays([columns[name] for name in _TABLE.column_names], schema=_TABLE.schema)


def _in_charge(lines: Sequence[Line], told: Sequence[_States], points: Ints, first: int) -> Ints:
    """For each point the book that counts, as an index into all lines' states one after the other; -1 for none.

    Of several that are to be trusted it is the one heard of last.
    """
    best, time, ordinal = (np.full(len(points), -1, dtype=np.int64) for _ in range(3))
    offset = 0
    for line, states in zip(lines, told, strict=True):
        state = np.searchsorted(states.point, np.arange(first, first + len(points)), "right") - 1
        known = (state >= 0) & line.known.contains(points)
        known[known] = states.sound[state[known]]
        at, by = (np.append(values, -1)[state] for values in (states.times, states.ordinals))
        later = known & ((at > time) | ((at == time) & (by > ordinal)))
        best[later], time[later], ordinal[later] = state[later] + offset, at[later], by[later]
        offset += len(states.point)
    return best


def _columns(told: Sequence[_States]) -> dict[str, Any]:
    """The columns that tell books, a row for each state of each line."""
    bids, asks = (_one_side([getattr(states, side) for states in told]) for side in ("bids", "asks"))
    (bid, bid_size), (ask, ask_size) = bids.best, asks.best
    both = (bid != NULL) & (ask != NULL)
    weight = np.where(both, bid_size.astype(np.float64) + ask_size, 1.0)
    micro = (bid * ask_size.astype(np.float64) + ask * bid_size.astype(np.float64)) / weight / 10_000
    kinds = {column.name: column.type for column in _TABLE.columns}
    return {
        "bid": decimal_array(bid, kinds["bid"], bid != NULL),
        "bid_size": decimal_array(bid_size, kinds["bid_size"], bid != NULL),
        "ask": decimal_array(ask, kinds["ask"], ask != NULL),
        "ask_size": decimal_array(ask_size, kinds["ask_size"], ask != NULL),
        "spread": decimal_array(np.where(both, ask - bid, 0), kinds["spread"], both),
        "mid": decimal_array(np.where(both, (ask + bid) * _HALF, 0), kinds["mid"], both),
        "microprice": pa.array(micro, pa.float64(), mask=~both),
        "bids": bids.json(),
        "asks": asks.json(),
    }
