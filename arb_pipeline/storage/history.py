"""``market_history``: what changed about a market, between two listings of its venue or while it is captured.

A row says how a market stood from when it was first seen so until it was seen otherwise, or was no longer listed. Rows
are closed in place, so that a market has one row at any instant; what was known at an earlier time is told by the rows
known by then, those that ended later still open.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.model import Event, Market, MarketStatus, PriceRange
from arb_pipeline.storage.arrow import sort_table
from arb_pipeline.storage.catalogue import markets_table, newest_markets
from arb_pipeline.storage.lake import Lake, Partition, newest_listing
from arb_pipeline.tables import table

__all__ = [
    "AS_OF_MACRO",
    "as_it_stood",
    "market_state_at",
    "markets_as_of",
    "markets_between",
    "record_changes",
    "record_markets",
]

_TABLE = table("market_history")
_OWN = frozenset({"venue", "market_id", "changed", "valid_from", "valid_to", "known_at"})
_STATE = tuple(name for name in _TABLE.column_names if name not in _OWN)
_JSON = ("price_ranges", "fee_params")
_FIRST = '["listed"]'

AS_OF_MACRO = """
CREATE OR REPLACE MACRO markets_as_of("at", known := NULL) AS TABLE
SELECT * REPLACE (CASE WHEN known IS NULL OR valid_to <= known THEN valid_to END AS valid_to)
FROM market_history
WHERE valid_from <= "at" AND (known IS NULL OR known_at <= known)
    AND (valid_to IS NULL OR valid_to > "at" OR valid_to > known)
QUALIFY row_number() OVER (PARTITION BY venue, market_id ORDER BY valid_from DESC) = 1
"""
"""DuckDB's form of :func:`markets_as_of`: ``FROM markets_as_of(TIMESTAMPTZ '...', known := TIMESTAMPTZ '...')``."""

Row = dict[str, Any]


def record_changes(lake: Lake, venue: str, at: datetime) -> int:
    """Compare the catalogue that was fetched at ``at`` with the newest known state, and write what differs.

    Doing so again adds nothing, and neither does a catalogue that is not newer than what is known. A market that is no
    longer listed has its last row ended. What an interrupted call left undone is made good by the next one.

    Returns:
        How many markets are new, have changed, or are gone.
    """
    return _record(lake, venue, at, _listed(lake, venue, at), lake.read(_TABLE, at, None, venue), whole=True)


def record_markets(lake: Lake, venue: str, markets: Iterable[Market], at: datetime) -> int:
    """Write what has changed about these markets, as the venue told it at ``at``; others are left alone.

    Returns:
        How many of them are new or have changed.
    """
    rows = markets_table([Event(venue=venue, event_id="", title="", markets=tuple(markets))], at)
    listed = _states(rows.select(["market_id", *_STATE]).to_pylist())
    return _record(lake, venue, at, listed, lake.read(_TABLE, at, None, venue, markets=listed), whole=False)


def _record(lake: Lake, venue: str, at: datetime, listed: dict[str, Row], rows: pa.Table, *, whole: bool) -> int:
    """Compare states with the rows that hold at ``at`` or later; of a ``whole`` listing, what is not in it is gone."""
    held = rows.sort_by("valid_from").to_pylist()
    newer = {row["market_id"] for row in held if row["valid_from"] >= at or row["valid_to"] is not None}
    ends: dict[tuple[str, datetime], datetime] = {}
    known: dict[str, Row] = {}
    for row in held:
        if row["market_id"] in newer:
            continue
        if earlier := known.get(row["market_id"]):
            ends[earlier["market_id"], earlier["valid_from"]] = row["valid_from"]
        known[row["market_id"]] = row
    listed = {name: state for name, state in listed.items() if name not in newer}
    fresh = [
        {"venue": venue, "market_id": name, **state, "changed": changed, "valid_from": at, "known_at": at}
        for name, state in listed.items()
        if (changed := _changed(known.get(name), state))
    ]
    gone = known.keys() - listed.keys() if whole else set[str]()
    for name in (gone | {row["market_id"] for row in fresh}) & known.keys():
        ends[name, known[name]["valid_from"]] = at
    # New rows first: were this to be cut short, the next call would find two open rows and end the earlier one.
    _write(lake, venue, at.date(), fresh, ends)
    for day in sorted({begun.date() for _, begun in ends} - {at.date()}):
        _write(lake, venue, day, [], ends)
    return len(fresh) + len(gone)


def market_state_at(lake: Lake, venue: str, market_id: str, at: datetime) -> Row | None:
    """The row of ``market_history`` that held at an instant; None if the market was not listed then."""
    rows = lake.read(_TABLE, at, at + timedelta(microseconds=1), venue, markets=[market_id]).sort_by("valid_from")
    found: list[Row] = rows.to_pylist()
    return found[-1] if found else None


def markets_as_of(lake: Lake, at: datetime, known_at: datetime | None = None, venue: str | None = None) -> pa.Table:
    """The state of every market that was listed at an instant, as one row of ``market_history`` each.

    With ``known_at``, as one would have told it then: what became known later is left out, and what ended later goes on
    (``valid_to`` is null). For an analysis that must not look ahead, give the same instant twice.
    """
    known = at if known_at is None else known_at
    rows = lake.read(_TABLE, min(at, known), at + timedelta(microseconds=1), venue)
    if known_at is not None:
        rows = rows.filter(pc.less_equal(rows["known_at"], known_at))
        ended = pc.if_else(pc.less_equal(rows["valid_to"], known_at), rows["valid_to"], None)
        rows = rows.set_column(rows.schema.get_field_index("valid_to"), _TABLE.schema.field("valid_to"), ended)
    rows = rows.filter(pc.fill_null(pc.greater(rows["valid_to"], at), pa.scalar(True)))
    # An interrupted write leaves two open rows; the later one holds.
    rows = sort_table(rows, ("venue", "market_id", "valid_from"))
    last = rows.group_by(["venue", "market_id"], use_threads=False).aggregate([([], "count_all")])["count_all"]
    return rows.take(pa.array(np.cumsum(last.to_numpy()) - 1))


def markets_between(
    lake: Lake, keys: Collection[tuple[str, str]], start: datetime, end: datetime
) -> dict[tuple[str, str], Market]:
    """These markets by (venue, market id) as they stood at ``start``; those seen later, as they first did by ``end``.

    So an hour has the same markets whenever it is asked for: one that is listed no more stands in an older catalogue,
    and what has changed about one since (status, close, fees, ...) is told by its history. One that had left the
    listings before ``start`` is left out; one that was first listed after ``end`` is as it was then; of one without any
    history the newest catalogue tells all there is.
    """
    found = newest_markets(lake, keys)
    states = _first_states(lake, found.keys(), start, end)
    unseen = found.keys() - states.keys()
    later = _first_states(lake, unseen, end, None)
    over = _first_states(lake, unseen - later.keys(), None, start).keys()
    states |= later
    return {
        key: as_it_stood(market, states[key]) if key in states else market
        for key, market in found.items()
        if key not in over
    }


def _first_states(
    lake: Lake, keys: Collection[tuple[str, str]], start: datetime | None, end: datetime | None
) -> dict[tuple[str, str], Row]:
    """The row of each market that held at ``start``, else the first one from then to ``end``."""
    if not keys:
        return {}
    rows = lake.read(_TABLE, start, end, markets={market_id for _, market_id in keys}).sort_by("valid_from")
    found: dict[tuple[str, str], Row] = {}
    for row in rows.to_pylist():
        key = row["venue"], row["market_id"]
        # An interrupted write leaves two open rows; the later one holds.
        if key in keys and (key not in found or (start is not None and row["valid_from"] <= start)):
            found[key] = row
    return found


def as_it_stood(market: Market, row: Mapping[str, Any]) -> Market:
    """A market with what a row of its history tells; rules that have changed since are empty."""
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


def _listed(lake: Lake, venue: str, at: datetime) -> dict[str, Row]:
    """State by market of the newest listing of the day of ``at``."""
    bounds = Partition.of("markets", venue, at).bounds
    assert bounds is not None
    rows = lake.read("markets", *bounds, venue, columns=["venue", "market_id", "fetched_at", *_STATE])
    return _states(newest_listing(rows).select(["market_id", *_STATE]).to_pylist())


def _states(rows: Iterable[Row]) -> dict[str, Row]:
    return {row.pop("market_id"): {**row, **{name: _canonical(row[name]) for name in _JSON}} for row in rows}


def _canonical(text: str) -> str:
    """JSON with its keys in order: a venue may send them in any."""
    return msgspec.json.encode(msgspec.json.decode(text), order="sorted").decode()


def _changed(before: Row | None, state: Mapping[str, Any]) -> str:
    """JSON list of what differs, empty text if nothing does."""
    if before is None:
        return _FIRST
    names = [name for name in _STATE if before[name] != state[name]]
    return msgspec.json.encode(names).decode() if names else ""


def _write(lake: Lake, venue: str, day: date, fresh: list[Row], ends: Mapping[tuple[str, datetime], datetime]) -> None:
    """Add a day's new rows, and end those rows of the day that have an end now."""
    midnight = datetime.combine(day, time(), UTC)
    begun = {name for name, valid_from in ends if valid_from.date() == day} | {row["market_id"] for row in fresh}
    ids = pa.array(sorted(begun), pa.string())

    def renewed(held: pa.Table) -> pa.Table:
        """Under the partition's lock, so that what another process added meanwhile stays."""
        concerned = pc.is_in(held["market_id"], ids)
        rows = [
            {**row, "valid_to": ends.get((row["market_id"], row["valid_from"]), row["valid_to"])}
            for row in held.filter(concerned).to_pylist()
        ]
        changed = pa.Table.from_pylist([*rows, *fresh], schema=_TABLE.schema)
        return pa.concat_tables([held.filter(pc.invert(concerned)), changed])

    lake.update(_TABLE, Partition.of(_TABLE, venue, midnight), renewed)
