"""What a report takes from the lake beside the tables themselves: newest tops, quality of the quotes, files."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.reports.inputs import AGE_BOUNDS_S, FILES, QUOTE_QUALITY
from arb_pipeline.reports.over_time import held_until
from arb_pipeline.storage.lake import Lake
from arb_pipeline.tables import table

__all__ = ["files_of", "newest_sets", "newest_tops", "quote_quality"]

_MARKET_DATA = ("raw_frames", "book_events", "quotes", "trades", "tickers")
_BOUNDS_NS = np.array([0.0, *AGE_BOUNDS_S, np.inf]) * 1e9


def newest_sets(outcome_sets: pa.Table) -> pa.Table:
    """The newest row of every event."""
    newest: dict[tuple[str, str], int] = {}
    rows = outcome_sets.select(["venue", "event_id", "known_at"]).to_pylist()
    for number in sorted(range(len(rows)), key=lambda number: rows[number]["known_at"]):
        newest[rows[number]["venue"], rows[number]["event_id"]] = number
    return outcome_sets.take(pa.array(sorted(newest.values()), pa.int64()))


def newest_tops(lake: Lake, start: datetime, end: datetime, market_ids: Collection[str]) -> pa.Table:
    """The newest quote in sync of each of these markets in a window, rows of ``quotes`` by venue and market."""
    declared = table("quotes")
    if not market_ids:
        return declared.schema.empty_table()
    newest = declared.schema.empty_table()
    for low, high in _hours(lake, start, end):
        rows = lake.read("quotes", low, high, markets=market_ids)
        rows = pa.concat_tables([newest, rows.filter(rows["in_sync"])])
        newest = rows.take(_last_of_each(rows))
    return newest.sort_by([("venue", "ascending"), ("market_id", "ascending")])


def quote_quality(lake: Lake, start: datetime, end: datetime) -> pa.Table:
    """How the quotes of a window were, rows of :data:`arb_pipeline.reports.inputs.QUOTE_QUALITY`.

    An hour stands alone, as it does in the tables: what the last quote of the hour before had to say is not counted.
    """
    columns = ["venue", "source", "market_id", "recv_ns", "connection_id", "bid", "ask", "in_sync"]
    counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    markets: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    ages: defaultdict[tuple[str, str], npt.NDArray[np.float64]] = defaultdict(lambda: np.zeros(len(_BOUNDS_NS) - 1))
    ends = _connection_ends(lake, start, end)
    for low, high in _hours(lake, start, end):
        rows = lake.read("quotes", low, high, columns=columns)
        for key in sorted({*zip(rows["venue"].to_pylist(), rows["source"].to_pylist(), strict=True)}):
            mine = rows.filter(pc.and_(pc.equal(rows["venue"], key[0]), pc.equal(rows["source"], key[1])))
            crossed = pc.fill_null(pc.greater_equal(mine["bid"], mine["ask"]), pa.scalar(False))
            counts[key] += Counter(
                rows=mine.num_rows,
                crossed=pc.sum(crossed).as_py(),
                out_of_sync=mine.num_rows - pc.sum(mine["in_sync"]).as_py(),
            )
            markets[key] |= set(pc.unique(mine["market_id"]).to_pylist())
            ages[key] += _ages(mine, high, ends)
    told = [
        {
            "venue": venue,
            "source": source,
            **{name: counts[venue, source][name] for name in ("rows", "crossed", "out_of_sync")},
            "markets": len(markets[venue, source]),
            **{f"age_{number}_s": seconds / 1e9 for number, seconds in enumerate(ages[venue, source].tolist())},
        }
        for venue, source in sorted(counts)
    ]
    return pa.Table.from_pylist(told, schema=QUOTE_QUALITY)


def files_of(lake: Lake, start: datetime, end: datetime) -> pa.Table:
    """Files of the window's market data, rows of :data:`arb_pipeline.reports.inputs.FILES`."""
    told: dict[tuple[str, str], Counter[str]] = {}
    for name in _MARKET_DATA:
        for file in lake.files(name, start, end):
            counted = told.setdefault((name, file.partition.venue or ""), Counter())
            counted.update(files=1, rows=file.entry.rows, bytes=file.entry.bytes)
    rows = [{"table": name, "venue": venue, **counted} for (name, venue), counted in told.items()]
    return pa.Table.from_pylist(rows, schema=FILES)


def _hours(lake: Lake, start: datetime, end: datetime) -> Iterator[tuple[int, int]]:
    """The captured hours of a window, as far as they lie in it, ns since the epoch."""
    start_ns, end_ns = ns_from_datetime(start), ns_from_datetime(end)
    hours = {partition.bounds for partition in lake.partitions("quotes")}
    for low, high in sorted(bounds for bounds in hours if bounds is not None):
        if low < end_ns and high > start_ns:
            yield max(low, start_ns), min(high, end_ns)


def _connection_ends(lake: Lake, start: datetime, end: datetime) -> dict[str, int]:
    """When each connection that is over ended, ns since the epoch."""
    sessions = lake.read("capture_sessions", start, end, columns=["connection_id", "ended_at"]).to_pylist()
    # Times are cut to microseconds: what came within the last one still came before the end.
    return {row["connection_id"]: ns_from_datetime(row["ended_at"]) + 1_000 for row in sessions if row["ended_at"]}


def _last_of_each(rows: pa.Table) -> pa.Array:
    places = pa.table(
        {
            "market_id": rows["market_id"],
            "recv_ns": rows["recv_ns"],
            "ordinal": rows["ordinal"],
            "place": pa.array(range(rows.num_rows), pa.int64()),
        }
    ).sort_by([("recv_ns", "ascending"), ("ordinal", "ascending")])
    last = places.group_by("market_id", use_threads=False).aggregate([("place", "last")])["place_last"]
    return last.combine_chunks().sort()


def _ages(rows: pa.Table, end_ns: int, ends: Mapping[str, int]) -> npt.NDArray[np.float64]:
    """Time, ns, that the newest quote was as old as each class says, summed over the markets of one hour.

    Over a stretch of length d between two quotes the age rises from 0 to d. A stretch ends with the connection of its
    quote: where there is none, there is no newest quote.
    """
    rows = rows.sort_by([("market_id", "ascending"), ("recv_ns", "ascending")])
    times = rows["recv_ns"].to_numpy()
    codes = rows["market_id"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    connections = rows["connection_id"].combine_chunks().dictionary_encode()
    ended = np.array([ends.get(name, end_ns) for name in connections.dictionary.to_pylist()], dtype=np.int64)
    until = np.minimum(held_until(times, end_ns, codes[1:] == codes[:-1]), ended[connections.indices.to_numpy()])
    lasted = np.maximum(until - times, 0).astype(np.float64)
    within = np.minimum(lasted[:, None], _BOUNDS_NS[None, :])
    found: npt.NDArray[np.float64] = np.diff(within, axis=1).sum(axis=0)
    return found
