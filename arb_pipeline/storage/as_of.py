"""A lake as it was known at an earlier time: what a report of then would have been made of.

A day's listing replaces what the one before it told of the same markets, so that the texts of a market (title,
outcomes, rules) may be at hand in a later listing only, while ``market_history`` tells how it stood. What a market is
called does not change; its rules count only if their hash is the one of then.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import Event, Market, MatchStatus
from arb_pipeline.storage.catalogue import events_of, markets_of, write_catalogue
from arb_pipeline.storage.fee_schedules import fee_schedules_as_of
from arb_pipeline.storage.history import as_it_stood, markets_as_of
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import Partitioning, table

__all__ = ["copy_known", "known_events"]

_LEDGERS: Final = {
    "market_history": ("known_at", "valid_to"),
    "market_matches": ("known_at", "valid_to"),
    "outcome_sets": ("known_at", None),
    "settlement_agreement": ("known_at", None),
    "match_evaluation": ("evaluated_at", None),
}
"""Tables whose rows tell when they became known, and (in a second column) until when they were to hold."""

_NOT_TOLD: Final = {
    "ended_at": None,
    "lag_p50_ms": None,
    "lag_p99_ms": None,
    "frames": 0,
    "bytes": 0,
    "anomalies": "{}",
    "examples": "{}",
    "stop_reason": "",
}
"""What of a connection that is still up nobody knows."""

_MOMENT: Final = timedelta(microseconds=1)
_RULED_OUT: Final = (MatchStatus.REJECTED, MatchStatus.REFUSED)

Row = Mapping[str, Any]


def copy_known(lake: Lake, into: Lake, start: datetime, at: datetime, still_fresh: timedelta) -> None:
    """Write what was known at ``at`` to an empty lake: catalogues, ledgers, and what was received in [start, at).

    With the answers to polls of a while before the first hour (``still_fresh``), on which a book may rest in it.

    Hours are copied from their beginnings on, since each stands alone: the quotes of all markets, which tell the
    quality of the data, and the changes of books of those that are paired or of an event of several outcomes. Nothing
    that is derived (spreads, opportunities, ...) is copied: it may rest on what became known later.
    """
    since = start.replace(minute=0, second=0, microsecond=0)
    # What has left the listings since the first hour comes first: a listing keeps what the day's earlier ones told.
    for events, told_at in ((_left_events(lake, since, at), at - _MOMENT), (known_events(lake, at), at)):
        for venue in sorted({event.venue for event in events}):
            write_catalogue(into, venue, [event for event in events if event.venue == venue], told_at)
    _write(into, "fee_schedules", fee_schedules_as_of(lake, at), "known_at")
    for name, (known, ends) in _LEDGERS.items():
        rows = lake.read(name)
        rows = rows.filter(pc.less_equal(rows[known], _scalar(rows, known, at)))
        if ends is not None:
            ended = pc.fill_null(pc.less_equal(rows[ends], _scalar(rows, ends, at)), pa.scalar(False))
            rows = _set(rows, pc.invert(ended), ends, None)
        _write(into, name, rows, known)
    markets = _evaluated(into)
    end_ns = ns_from_datetime(at)
    for name in ("quotes", "book_events", "raw_frames"):
        # Of raw frames, only those of polls prove anything of a book, also of one that an hour begins with.
        polls = name == "raw_frames"
        source: Literal["rest"] | None = "rest" if polls else None
        begin_ns = ns_from_datetime(since - still_fresh if polls else since)
        for partition in lake.partitions(name):
            bounds = partition.bounds
            if bounds is not None and begin_ns < bounds[1] and bounds[0] < end_ns:
                ids = markets if name == "book_events" else None
                first, until = max(bounds[0], begin_ns), min(bounds[1], end_ns)
                rows = lake.read(name, first, until, partition.venue, markets=ids, source=source)
                into.replace(name, partition, rows)
    gaps = lake.read("book_gaps", since, at)
    lasts = pc.fill_null(pc.greater_equal(gaps["to_ns"], end_ns), pa.scalar(True))
    _write(into, "book_gaps", _set(_set(gaps, lasts, "to_ns", None), lasts, "recovery", None), "from_ns")
    sessions = lake.read("capture_sessions", since, at)
    lasts = pc.fill_null(pc.greater_equal(sessions["ended_at"], _scalar(sessions, "ended_at", at)), pa.scalar(True))
    for name, value in _NOT_TOLD.items():
        sessions = _set(sessions, lasts, name, value)
    _write(into, "capture_sessions", sessions, "started_at")


def _evaluated(lake: Lake) -> set[str]:
    """Markets of the pairs that are not ruled out, and of the events of several outcomes."""
    columns = ("kalshi_market_id", "polymarket_market_id")
    pairs = lake.read("market_matches", columns=[*columns, "status"]).to_pylist()
    ids = {row[name] for row in pairs if row["status"] not in _RULED_OUT for name in columns}
    sets = lake.read("outcome_sets", columns=["market_ids"])["market_ids"].to_pylist()
    return ids.union(*(msgspec.json.decode(told) for told in sets))


def known_events(lake: Lake, at: datetime) -> list[Event]:
    """The events that were listed at an instant with their markets, by venue and id, as one would have told them then.

    What is no more to be had of the listing of then is taken from the next one that is kept; rules of markets that have
    changed since are empty.
    """
    return _events(lake, at, markets_as_of(lake, at, at).to_pylist())


def _left_events(lake: Lake, start: datetime, at: datetime) -> list[Event]:
    """The events of the markets that were listed at some time from ``start`` on, and no more at ``at``."""
    rows = lake.read("market_history", start, at)
    rows = rows.filter(pc.less_equal(rows["known_at"], _scalar(rows, "known_at", at))).sort_by("valid_from")
    newest = {(row["venue"], row["market_id"]): row for row in rows.to_pylist()}
    return _events(lake, at, [row for row in newest.values() if row["valid_to"] is not None and row["valid_to"] <= at])


def _events(lake: Lake, at: datetime, states: Iterable[Row]) -> list[Event]:
    """The events of markets that stood so, with these."""
    rows = {(row["venue"], row["market_id"]): row for row in states}
    markets: dict[tuple[str, str], Market] = {}
    for listing in _listings(lake, "markets", at):
        for market in markets_of(listing):
            if (market.venue, market.market_id) in rows:
                markets.setdefault((market.venue, market.market_id), market)
    by_event: dict[tuple[str, str], list[Market]] = {}
    for key, market in sorted(markets.items()):
        by_event.setdefault((market.venue, market.event_id), []).append(as_it_stood(market, rows[key]))
    events: dict[tuple[str, str], Event] = {}
    for listing in _listings(lake, "events", at):
        for event in events_of(listing):
            if (event.venue, event.event_id) in by_event:
                events.setdefault((event.venue, event.event_id), event)
    return [msgspec.structs.replace(events[key], markets=tuple(by_event[key])) for key in sorted(events)]


def _listings(lake: Lake, name: str, at: datetime) -> Iterator[pa.Table]:
    """The listings that are kept: those known at an instant, the newest first, then later ones, the oldest first."""
    rows = lake.read(name)
    times = pc.unique(rows["fetched_at"]).to_pylist()
    known = sorted((one for one in times if one <= at), reverse=True)
    for one in (*known, *sorted(one for one in times if one > at)):
        yield rows.filter(pc.equal(rows["fetched_at"], _scalar(rows, "fetched_at", one)))


def _write(into: Lake, name: str, rows: pa.Table, by: str) -> None:
    """Write rows to the partitions of the times in a column."""
    declared = table(name)
    if declared.partitioning is Partitioning.CURRENT:
        into.replace(name, Partition(), rows)
        return
    parts: dict[Partition, list[int]] = {}
    venues = rows["venue"].to_pylist() if declared.by_venue else [None] * rows.num_rows
    for number, (venue, told) in enumerate(zip(venues, rows[by].to_pylist(), strict=True)):
        parts.setdefault(Partition.of(name, venue, told), []).append(number)
    for partition, numbers in parts.items():
        into.replace(name, partition, rows.take(pa.array(numbers, pa.int64())))


def _scalar(rows: pa.Table, name: str, at: datetime) -> pa.Scalar:
    return pa.scalar(at, rows.schema.field(name).type)


def _set(rows: pa.Table, where: pa.ChunkedArray, name: str, value: object) -> pa.Table:
    """The rows with another value in a column where a condition holds."""
    field = rows.schema.field(name)
    column = pc.if_else(where, pa.scalar(value, field.type), rows[name])
    return rows.set_column(rows.schema.get_field_index(name), field, column)
