"""A lake as it was known at an earlier time: what a report of then would have been made of.

A day's listing replaces the one before it, so that the texts of a market (title, outcomes, rules) may be at hand in a
later listing only, while ``market_history`` tells how it stood. What a market is called does not change; its rules
count only if their hash is the one of then.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import Event, Market, MarketStatus, MatchStatus, PriceRange
from arb_pipeline.storage.catalogue import events_of, markets_of, write_catalogue
from arb_pipeline.storage.history import markets_as_of
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import Partitioning, table

__all__ = ["copy_known", "known_events"]

_LEDGERS: Final = {
    "market_history": ("known_at", "valid_to"),
    "fee_schedules": ("known_at", "known_to"),
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

_RULED_OUT: Final = (MatchStatus.REJECTED, MatchStatus.REFUSED)

Row = Mapping[str, Any]


def copy_known(lake: Lake, into: Lake, start: datetime, at: datetime) -> None:
    """Write what was known at ``at`` to an empty lake: catalogues, ledgers, and what was received in [start, at).

    Hours are copied from their beginnings on, since each stands alone: the quotes of all markets, which tell the
    quality of the data, and the changes of books of those that are paired or of an event of several outcomes. Nothing
    that is derived (spreads, opportunities, ...) is copied: it may rest on what became known later.
    """
    events = known_events(lake, at)
    for venue in sorted({event.venue for event in events}):
        write_catalogue(into, venue, [event for event in events if event.venue == venue], at)
    for name, (known, ends) in _LEDGERS.items():
        rows = lake.read(name)
        rows = rows.filter(pc.less_equal(rows[known], _scalar(rows, known, at)))
        if ends is not None:
            ended = pc.fill_null(pc.less_equal(rows[ends], _scalar(rows, ends, at)), pa.scalar(False))
            rows = _set(rows, pc.invert(ended), ends, None)
        _write(into, name, rows, known)
    markets = _evaluated(into)
    since, end_ns = start.replace(minute=0, second=0, microsecond=0), ns_from_datetime(at)
    for name in ("quotes", "book_events", "raw_frames"):
        for partition in lake.partitions(name):
            bounds = partition.bounds
            if bounds is not None and ns_from_datetime(since) <= bounds[0] < end_ns:
                # Of raw frames, only those of polls prove anything of a book.
                source: Literal["rest"] | None = "rest" if name == "raw_frames" else None
                ids = markets if name == "book_events" else None
                until = min(bounds[1], end_ns)
                rows = lake.read(name, bounds[0], until, partition.venue, markets=ids, source=source)
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
    rows = {(row["venue"], row["market_id"]): row for row in markets_as_of(lake, at, at).to_pylist()}
    markets: dict[tuple[str, str], Market] = {}
    for listing in _listings(lake, "markets", at):
        for market in markets_of(listing):
            if (market.venue, market.market_id) in rows:
                markets.setdefault((market.venue, market.market_id), market)
    by_event: dict[tuple[str, str], list[Market]] = {}
    for key, market in sorted(markets.items()):
        by_event.setdefault((market.venue, market.event_id), []).append(_as_of(market, rows[key]))
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


def _as_of(market: Market, row: Row) -> Market:
    """A market with what its history tells of how it stood."""
    return msgspec.structs.replace(
        market,
        status=MarketStatus(row["status"]),
        venue_status=row["venue_status"],
        result=row["result"],
        rules=market.rules if market.rules_sha256 == row["rules_sha256"] else "",
        rules_sha256=row["rules_sha256"],
        open_at=row["open_at"],
        close_at=row["close_at"],
        expected_expiration_at=row["expected_expiration_at"],
        occurrence_at=row["occurrence_at"],
        settlement_timer_s=row["settlement_timer_s"],
        tick=int(row["tick"].scaleb(4)),
        price_ranges=msgspec.json.decode(row["price_ranges"], type=tuple[PriceRange, ...]),
        min_size=int(row["min_size"].scaleb(6)),
        size_step=int(row["size_step"].scaleb(6)),
        fee_params=msgspec.json.decode(row["fee_params"]),
    )


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
