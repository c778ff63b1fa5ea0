"""What is known of a venue's books within an hour: their tops over time, and when these are to be trusted.

An hour's files stand alone: whatever is known when an hour begins was written into it as its opening snapshot. So a top
is the newest quote or snapshot within the hour, and it stands until the next one, but for the time

- before the market's first snapshot or quote,
- in which the newest quote said that its book was out of sync (until the next quote, or the end of a gap),
- in which the bid was at or above the ask,
- of a gap, up to the moment at which another connection took the market over,
- after the end of the connection that it came from; while no end is told, after the newest row that it gave.

Candles are made from this and nothing else (grids from whole books, :mod:`arb_pipeline.storage.lines`). It never looks
ahead, with one exception: a doubt is dated back to the last proof, so a gap that is found late takes back what was
believed since.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.storage.arrow import Ints, Mask, fixed_point
from arb_pipeline.storage.lake import HOUR_NS, Lake
from arb_pipeline.tables import table as declared

__all__ = [
    "FOREVER",
    "NULL",
    "PAST",
    "HourRows",
    "MarketTops",
    "Spans",
    "by_market",
    "market_groups",
    "prices",
    "read_hour",
    "row_counts",
    "tops_of",
]

NULL: Final = -(2**63)
"""Stands for a missing price or size."""
PAST: Final = -(2**62)
FOREVER: Final = 2**62

ROWS_AT_ONCE: Final = 1_500_000
"""Rows of quotes and book changes in memory at a time; a market with more is alone."""

COLUMNS: Final = {
    "quotes": ("market_id", "connection_id", "recv_ns", "ordinal", "bid", "ask", "in_sync"),
    "book_events": ("market_id", "connection_id", "recv_ns", "ordinal", "kind", "side", "price", "size"),
    "trades": ("market_id", "recv_ns", "ordinal", "price", "size"),
    "book_gaps": ("market_id", "connection_id", "from_ns", "to_ns"),
    "capture_sessions": ("connection_id", "ended_at"),
}
_ALIVE: Final = ("raw_frames", "book_events", "quotes", "trades", "tickers")
"""Tables whose rows show that a connection was up."""
_READ_TRIES: Final = 5
_MS: Final = 1_000_000


@dataclass(frozen=True)
class HourRows:
    """Rows of one venue received in [start_ns, end_ns), at most an hour; gaps and sessions that overlap it."""

    start_ns: int
    end_ns: int
    quotes: pa.Table
    book_events: pa.Table
    trades: pa.Table
    book_gaps: pa.Table
    capture_sessions: pa.Table
    newest: Mapping[str, int] = field(default_factory=dict)
    """Of connections whose end is not told: receive time of the newest row that each gave, ns."""


@dataclass(frozen=True)
class Spans:
    """Time as sorted, disjoint [starts[i], ends[i]), ns."""

    starts: Ints
    ends: Ints

    @classmethod
    def outside(cls, starts: Ints, ends: Ints, begin: int, until: int) -> "Spans":
        """What of [begin, until) lies in none of these intervals, which may overlap."""
        real = starts < ends
        starts, ends = starts[real], ends[real]
        order = np.argsort(starts, kind="stable")
        starts, reached = starts[order], np.maximum.accumulate(ends[order]) if len(ends) else ends
        left = np.concatenate(([begin], np.maximum(reached, begin)))
        right = np.concatenate((np.minimum(starts, until), [until]))
        free = left < right
        return cls(left[free], right[free])

    def contains(self, times: Ints) -> Mask:
        """Which of the times lie inside."""
        inside: Mask = np.searchsorted(self.starts, times, "right") > np.searchsorted(self.ends, times, "right")
        return inside


@dataclass(frozen=True)
class MarketTops:
    """One market's tops, the last one of each instant, in time order.

    Attributes:
        bid, ask: 1e-4 dollars, :data:`NULL` on an empty side.
        quoted: whether a quote said it; otherwise a snapshot that came without one.
        known: when they are to be trusted.
    """

    times: Ints
    bid: Ints
    ask: Ints
    quoted: Mask
    known: Spans


# --- reading -----------------------------------------------------------------------------------------------------


def row_counts(
    lake: Lake, table: str, venue: str, start: int, end: int, *, markets: Collection[str] | None = None
) -> dict[str, int]:
    """Rows by market (of these) received in [start, end) ns; in memory is one batch of ids at a time."""
    wanted = None if markets is None else pa.array(sorted(markets), pa.string())
    inside = (pc.field("recv_ns") >= start) & (pc.field("recv_ns") < end)
    chosen = inside if wanted is None else inside & pc.field("market_id").isin(wanted)
    schema = pa.schema([("market_id", pa.dictionary(pa.int32(), pa.string())), ("recv_ns", pa.int64())])
    format_ = ds.ParquetFileFormat(dictionary_columns={"market_id"})
    for attempt in range(_READ_TRIES):
        listed = lake.files(table, start, end, venue)
        paths = [lake.location(table, file.partition, file.entry.name) for file in listed]
        counts: dict[str, int] = {}
        try:
            if paths:
                files = ds.dataset(paths, schema=schema, format=format_, filesystem=lake.filesystem)
                for batch in files.to_batches(columns=["market_id"], filter=chosen):
                    for found in batch["market_id"].value_counts().to_pylist():
                        counts[found["values"]] = counts.get(found["values"], 0) + found["counts"]
        except FileNotFoundError:  # compacted since it was listed
            if attempt == _READ_TRIES - 1:
                raise
            continue
        return counts
    raise AssertionError("unreachable: the last try returns or raises")


def market_groups(
    lake: Lake,
    venue: str,
    start: int,
    end: int,
    *,
    markets: Collection[str] | None = None,
    tables: Sequence[str] = ("quotes", "book_events", "trades"),
) -> Iterator[list[str]]:
    """The markets (of these) that have rows in [start, end) ns, so many at a time as fit into memory."""
    counts: dict[str, int] = {}
    for name in tables:
        for market, rows in row_counts(lake, name, venue, start, end, markets=markets).items():
            counts[market] = counts.get(market, 0) + rows
    group: list[str] = []
    held = 0
    for market in sorted(counts):
        if group and held + counts[market] > ROWS_AT_ONCE:
            yield group
            group, held = [], 0
        group.append(market)
        held += counts[market]
    if group:
        yield group


def read_hour(lake: Lake, venue: str, start: int, end: int, markets: Collection[str]) -> HourRows:
    """The rows of these markets in [start, end), which lies within one hour."""
    assert start // HOUR_NS == (end - 1) // HOUR_NS, "an hour's rows stand alone"
    rows = {
        name: lake.read(name, start, end, venue, markets=markets, columns=columns)
        for name, columns in COLUMNS.items()
        if "market_id" in columns
    }
    # One that ended just before may have rows within, since its end is cut to microseconds.
    sessions = lake.read("capture_sessions", start - _MS, end, venue, columns=COLUMNS["capture_sessions"])
    over = set(sessions.filter(pc.is_valid(sessions["ended_at"]))["connection_id"].to_pylist())
    running = {name for table in rows.values() for name in _connection_ids(table)} - over
    newest = _newest_rows(lake, venue, start - start % HOUR_NS, running) if running else {}
    return HourRows(start, end, capture_sessions=sessions, newest=newest, **rows)


def _connection_ids(rows: pa.Table) -> list[str]:
    ids: list[str] = pc.unique(rows["connection_id"]).to_pylist() if "connection_id" in rows.column_names else []
    return ids


def _newest_rows(lake: Lake, venue: str, hour: int, connections: Collection[str]) -> dict[str, int]:
    """Receive time of each connection's newest row in an hour and the one after it: up to then it was up."""
    chosen = pc.field("connection_id").isin(pa.array(sorted(connections), pa.string()))
    newest: dict[str, int] = {}
    for table in _ALIVE:
        for attempt in range(_READ_TRIES):
            try:
                for batch in _batches(
                    lake, table, venue, hour, hour + 2 * HOUR_NS, ("connection_id", "recv_ns"), chosen
                ):
                    for row in batch.group_by("connection_id").aggregate([("recv_ns", "max")]).to_pylist():
                        name = row["connection_id"]
                        newest[name] = max(newest.get(name, PAST), row["recv_ns_max"])
                break
            except (
                FileNotFoundError
            ):  # compacted since it was listed; what was seen counts once, whatever is seen again
                if attempt == _READ_TRIES - 1:
                    raise
    return newest


def _batches(  # noqa: PLR0917 - which rows of which files
    lake: Lake, table: str, venue: str, start: int, end: int, columns: Sequence[str], chosen: pc.Expression
) -> Iterator[pa.Table]:
    """Rows of the files of [start, end) ns, one batch in memory at a time."""
    listed = lake.files(table, start, end, venue)
    paths = [lake.location(table, file.partition, file.entry.name) for file in listed]
    if paths:
        files = ds.dataset(paths, schema=declared(table).schema, format="parquet", filesystem=lake.filesystem)
        for batch in files.to_batches(columns=list(columns), filter=chosen):
            yield pa.Table.from_batches([batch])


def by_market(rows: pa.Table, markets: Sequence[str]) -> list[slice]:
    """Where each market's rows stand in a table sorted by market."""
    codes = pc.index_in(rows["market_id"], pa.array(markets, pa.string())).fill_null(-1).to_numpy()
    places = np.flatnonzero(np.diff(codes, prepend=-2))
    ends = np.append(places, len(codes))[1:]
    found = {int(codes[at]): slice(int(at), int(end)) for at, end in zip(places, ends, strict=True)}
    return [found.get(code, slice(0, 0)) for code in range(len(markets))]


def prices(column: pa.ChunkedArray) -> Ints:
    """The integers behind a decimal column, in its last digit; null is :data:`NULL`."""
    values, valid = fixed_point(column)
    return np.where(valid, values, NULL)


# --- tops --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tops:
    """Tops of several markets, sorted by market and time."""

    market: Ints
    times: Ints
    bid: Ints
    ask: Ints
    in_sync: Mask
    quoted: Mask
    connection: Ints


def tops_of(hour: HourRows, markets: Sequence[str]) -> list[MarketTops]:
    """Each market's tops within the hour."""
    names = pa.array(sorted(_connections(hour)), pa.string())
    tops = _newest(
        [_snapshots(hour.book_events, markets, names), _quotes(hour.quotes, markets, names)],
    )
    ended = _ended(hour, names)
    gaps = _gaps(hour.book_gaps, markets, names)
    bounds = np.searchsorted(tops.market, np.arange(len(markets) + 1))
    found = []
    for code in range(len(markets)):
        part = slice(int(bounds[code]), int(bounds[code + 1]))
        known = _known(tops, part, gaps.get(code, []), ended, (hour.start_ns, hour.end_ns))
        found.append(MarketTops(tops.times[part], tops.bid[part], tops.ask[part], tops.quoted[part], known))
    return found


def _connections(hour: HourRows) -> set[str]:
    tables = (hour.quotes, hour.book_events, hour.book_gaps, hour.capture_sessions)
    return {name for rows in tables for name in pc.unique(rows["connection_id"]).to_pylist()}


def _codes(column: pa.ChunkedArray, words: pa.Array) -> Ints:
    codes: Ints = pc.index_in(column, words).fill_null(-1).to_numpy().astype(np.int64)
    return codes


def _quotes(rows: pa.Table, markets: Sequence[str], names: pa.Array) -> _Tops:
    return _Tops(
        _codes(rows["market_id"], pa.array(markets, pa.string())),
        rows["recv_ns"].to_numpy(),
        prices(rows["bid"]),
        prices(rows["ask"]),
        rows["in_sync"].to_numpy(),
        np.ones(rows.num_rows, dtype=np.bool_),
        _codes(rows["connection_id"], names),
    )


def _snapshots(rows: pa.Table, markets: Sequence[str], names: pa.Array) -> _Tops:
    """The top of each snapshot: an hour's opening one is what a quiet market's hour begins with."""
    rows = rows.select(["market_id", "connection_id", "recv_ns", "kind", "side", "price"])
    rows = rows.filter(pc.not_equal(rows["kind"], "delta"))
    begins = np.flatnonzero(pc.equal(rows["kind"], "clear").to_numpy())
    rows = rows.slice(int(begins[0]) if len(begins) else rows.num_rows)
    begins = begins - (begins[0] if len(begins) else 0)
    level = prices(rows["price"])
    is_bid, is_ask = (pc.fill_null(pc.equal(rows["side"], side), False).to_numpy() for side in ("bid", "ask"))
    heads = rows.take(pa.array(begins))
    # A bid that is missing is the lowest number there is already; an ask must be the highest to lose.
    bid = np.maximum.reduceat(np.where(is_bid, level, NULL), begins) if len(begins) else level
    ask = np.minimum.reduceat(np.where(is_ask, level, FOREVER), begins) if len(begins) else level
    return _Tops(
        _codes(heads["market_id"], pa.array(markets, pa.string())),
        heads["recv_ns"].to_numpy(),
        bid,
        np.where(ask == FOREVER, NULL, ask),
        np.ones(len(begins), dtype=np.bool_),
        np.zeros(len(begins), dtype=np.bool_),
        _codes(heads["connection_id"], names),
    )


def _newest(parts: Sequence[_Tops]) -> _Tops:
    """The last top of each market and instant; of a snapshot and a quote at one instant, the quote."""
    fields = [
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("market", "times", "bid", "ask", "in_sync", "quoted", "connection")
    ]
    order = np.lexsort((fields[1], fields[0]))  # stable, so that parts keep their order
    fields = [values[order] for values in fields]
    market, times = fields[0], fields[1]
    last = np.ones(len(times), dtype=np.bool_)
    last[:-1] = (market[1:] != market[:-1]) | (times[1:] != times[:-1])
    return _Tops(*(values[last] for values in fields))


# --- trust -------------------------------------------------------------------------------------------------------

Gap = tuple[int, int, int]
"""(from_ns, to_ns or FOREVER, connection)."""


def _gaps(rows: pa.Table, markets: Sequence[str], names: pa.Array) -> dict[int, list[Gap]]:
    codes = {market: code for code, market in enumerate(markets)}
    connections = _codes(rows["connection_id"], names).tolist()
    found: dict[int, list[Gap]] = {}
    columns = (rows[name].to_pylist() for name in ("market_id", "from_ns", "to_ns"))
    for market, from_ns, to_ns, connection in zip(*columns, connections, strict=True):
        if market in codes:
            found.setdefault(codes[market], []).append((from_ns, FOREVER if to_ns is None else to_ns, connection))
    return found


def _ended(hour: HourRows, names: pa.Array) -> dict[int, int]:
    """Up to when each connection is known to have been up."""
    sessions = hour.capture_sessions
    codes = _codes(sessions["connection_id"], names).tolist()
    told = {
        code: ns_from_datetime(ended)
        for code, ended in zip(codes, sessions["ended_at"].to_pylist(), strict=True)
        if ended is not None
    }
    running = _codes(pa.chunked_array([pa.array(list(hour.newest), pa.string())]), names).tolist()
    return {code: newest + 1 for code, newest in zip(running, hour.newest.values(), strict=True)} | told


def _known(tops: _Tops, part: slice, gaps: Sequence[Gap], ended: Mapping[int, int], bounds: tuple[int, int]) -> Spans:
    """The time of [bounds) in which one market's newest top is to be trusted."""
    times = tops.times[part]
    if not len(times):
        return Spans(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    connection = tops.connection[part]
    changes = np.flatnonzero(np.diff(connection, prepend=-2))
    taken, taker = times[changes].tolist(), connection[changes].tolist()
    doubts = [(PAST, int(times[0]))]
    for from_ns, to_ns, of in gaps:
        # Another connection that takes over begins with a snapshot of its own.
        takeover = min(
            (at for at, name in zip(taken, taker, strict=True) if at > from_ns and name != of), default=FOREVER
        )
        doubts.append((from_ns, min(to_ns, takeover)))
    recoveries = np.array(sorted(end for _, end in doubts[1:]), dtype=np.int64)
    for at, name, until in zip(taken, taker, [*taken[1:], FOREVER], strict=True):
        if name in ended:
            doubts.append((max(at, ended[name]), until))
    starts, ends = (np.array(side, dtype=np.int64) for side in zip(*doubts, strict=True))
    bad, bad_until = _bad_tops(tops, part, recoveries)
    return Spans.outside(np.concatenate((starts, bad)), np.concatenate((ends, bad_until)), *bounds)


def _bad_tops(tops: _Tops, part: slice, recoveries: Ints) -> tuple[Ints, Ints]:
    """Time in which the newest top was out of sync or impossible.

    A resync that leaves the top as it was writes no quote; the gap that it closes then is the newer word.
    """
    times, bid, ask, in_sync = tops.times[part], tops.bid[part], tops.ask[part], tops.in_sync[part]
    crossed = (bid != NULL) & (ask != NULL) & (bid >= ask)
    bad = np.flatnonzero(~in_sync | crossed)
    until = np.append(times, FOREVER)[bad + 1]
    recovered = np.append(recoveries, FOREVER)[np.searchsorted(recoveries, times[bad], "right")]
    return times[bad], np.where(crossed[bad], until, np.minimum(until, recovered))
