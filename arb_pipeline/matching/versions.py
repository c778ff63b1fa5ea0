"""``market_matches``: what was held about each pair, from when until when, and since when it was known.

A row is one version of the statement about a pair. A run of the matcher adds rows for what changed alone, and ends
the versions that no longer hold. Nothing else of a row is ever rewritten, and a version ends at the instant at which
its end became known; so what was held at any time, by the knowledge of any time, can be told
(:func:`matches_as_of`).
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import Market, MarketStatus, MatchStatus
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table

__all__ = ["HOPEFUL", "current_matches", "matches_as_of", "record_matches", "status_before_end", "with_expired"]

HOPEFUL: Final = (MatchStatus.AUTO, MatchStatus.APPROVED, MatchStatus.REVIEW)
"""Pairs worth evaluating; those in review are shown as candidates, with that as their reason."""

_TABLE = table("market_matches")
_ENDLESS = 2**62
"""An instant, ns since the epoch, at which only what has no end still holds."""
_OVER = frozenset({MarketStatus.CLOSED, MarketStatus.DETERMINED, MarketStatus.SETTLED})
_STATED = (
    "polymarket_yes_index",
    "relation",
    "status",
    "family",
    "vetoes",
    "kalshi_rules_sha256",
    "polymarket_rules_sha256",
    "matcher_version",
)

Row = dict[str, Any]
Pair = tuple[str, str]


def current_matches(lake: Lake) -> pa.Table:
    """The version of every pair that holds now."""
    return _newest(lake.read(_TABLE, _ENDLESS))


def matches_as_of(lake: Lake, at: datetime, known_at: datetime | None = None) -> pa.Table:
    """The version of every pair that held at ``at``, by what was known at ``known_at`` (default: by all we know).

    ``valid_to`` is null where the end was not known by then.
    """
    since = ns_from_datetime(at if known_at is None else min(at, known_at))
    rows = lake.read(_TABLE, since, ns_from_datetime(at) + 1_000)
    ends = rows["valid_to"]
    if known_at is not None:
        seen = pa.scalar(known_at, ends.type)
        ends = pc.if_else(pc.less_equal(ends, seen), ends, pa.scalar(None, ends.type))
        rows = rows.set_column(rows.column_names.index("valid_to"), _TABLE.schema.field("valid_to"), ends)
        rows = rows.filter(pc.less_equal(rows["known_at"], seen))
    holds = pc.fill_null(pc.greater(rows["valid_to"], pa.scalar(at, ends.type)), fill_value=True)
    return _newest(rows.filter(holds))


def with_expired(rows: Iterable[Row], held: Iterable[Row], markets: Mapping[Pair, Market]) -> list[Row]:
    """The statements of a run, those about pairs of which a market is over marked so, and those that fell out of it.

    A market is over when its venue says so, or no longer lists it. What the matcher rules out is left as it is.

    Args:
        rows: what the matcher states, rows of ``market_matches``.
        held: the versions that hold so far.
        markets: the newest catalogues, by venue and market id.
    """
    listed = {venue for venue, _ in markets}
    before = {_pair(row): row for row in held}
    stated = {_pair(row): row for row in rows}
    # A pair that was hopeful and is no longer stated, because there is nothing left to match it with.
    carried = {
        pair: row
        for pair, row in before.items()
        if pair not in stated and (row["status"] in HOPEFUL or row["status"] == MatchStatus.EXPIRED)
    }
    found = []
    for pair, row in {**carried, **stated}.items():
        over = [
            f"{venue}: {why}"
            for venue, market_id in zip(("kalshi", "polymarket"), pair, strict=True)
            if venue in listed and (why := _over(markets.get((venue, market_id))))
        ]
        if over and row["status"] in HOPEFUL:
            found.append(_expired(row, before.get(pair), over))
        elif pair in stated or row["status"] == MatchStatus.EXPIRED:
            found.append(row)
    return found


def status_before_end(row: Mapping[str, Any]) -> str:
    """The status that an expired pair had while both its markets were open; of any other pair, its status."""
    if row["status"] != MatchStatus.EXPIRED:
        return str(row["status"])
    return str(json.loads(row["explanation"])["expired"]["was"])


def record_matches(lake: Lake, rows: Sequence[Row], at: datetime) -> Counter[str]:
    """Make these statements (rows of ``market_matches``, one a pair) what holds from ``at`` on.

    Pairs about which nothing has changed keep their version, whatever the score: it depends on what else is listed.
    A call that is not newer than a pair's version leaves that pair alone; an interrupted one is made good by the next.

    Returns:
        How many pairs are ``added``, ``changed``, ``ended`` and ``unchanged``.
    """
    counts: Counter[str] = Counter()
    ends: dict[tuple[str, str, datetime], datetime] = {}
    today = Partition.of(_TABLE, None, at)

    def add(of_today: pa.Table) -> pa.Table:
        counts.clear()
        ends.clear()
        fresh = _changes(lake.read(_TABLE, _ENDLESS), rows, at, counts, ends)
        return pa.concat_tables([_ended(of_today, ends), pa.Table.from_pylist(fresh, _TABLE.schema)])

    # New versions first: were this to be cut short, the next call would find two without an end, and end the earlier.
    lake.update(_TABLE, today, add)
    for partition in {Partition.of(_TABLE, None, begun): None for _, _, begun in ends}:
        if partition != today:
            lake.update(_TABLE, partition, lambda of_day: _ended(of_day, ends))
    return counts


def _changes(
    held: pa.Table,
    rows: Sequence[Row],
    at: datetime,
    counts: Counter[str],
    ends: dict[tuple[str, str, datetime], datetime],
) -> list[Row]:
    """Versions to add; ``counts`` and ``ends`` are filled in."""
    known: dict[Pair, Row] = {}
    for row in held.sort_by("valid_from").to_pylist():
        if earlier := known.get(_pair(row)):
            ends[*_pair(row), earlier["valid_from"]] = row["valid_from"]
        known[_pair(row)] = row
    fresh = []
    for row in rows:
        before = known.pop(_pair(row), None)
        if before is not None and (before["valid_from"] >= at or _stated(before) == _stated(row)):
            counts["unchanged"] += 1
            continue
        if before is not None:
            ends[*_pair(row), before["valid_from"]] = at
        counts["added" if before is None else "changed"] += 1
        fresh.append({**row, "valid_from": at, "valid_to": None, "known_at": at})
    for pair, row in known.items():
        if row["valid_from"] < at:
            ends[*pair, row["valid_from"]] = at
            counts["ended"] += 1
    return fresh


def _ended(rows: pa.Table, ends: Mapping[tuple[str, str, datetime], datetime]) -> pa.Table:
    keys = zip(*(rows[name].to_pylist() for name in (*_TABLE.key[:2], "valid_from")), strict=True)
    column = [ends.get(key, old) for key, old in zip(keys, rows["valid_to"].to_pylist(), strict=True)]
    field = _TABLE.schema.field("valid_to")
    return rows.set_column(rows.column_names.index("valid_to"), field, pa.array(column, field.type))


def _stated(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes a new version when it changes: not the score, the rank or the rivals, which others' listings move."""
    told = json.loads(row["explanation"])
    slots = [
        (line["slot"], _value(line.get("kalshi")), _value(line.get("polymarket")), line.get("result"))
        for line in told.get("slots", ())
    ]
    return (*(row[name] for name in _STATED), slots, told.get("override"), told.get("expired"))


def _value(side: Mapping[str, Any] | None) -> Any:
    return None if side is None else side.get("value")


def _over(market: Market | None) -> str:
    if market is None:
        return "no longer listed"
    return market.status.value if market.status in _OVER else ""


def _expired(row: Row, before: Row | None, because: Sequence[str]) -> Row:
    """The same statement as one about the past; it keeps the status that it had, and why it ended."""
    told = json.loads(row["explanation"])
    if before is not None and before["status"] == MatchStatus.EXPIRED:
        told["expired"] = json.loads(before["explanation"])["expired"]
    else:
        told["expired"] = {"was": row["status"] if before is None else before["status"], "because": list(because)}
    explanation = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    return {**row, "status": MatchStatus.EXPIRED.value, "explanation": explanation}


def _pair(row: Mapping[str, Any]) -> Pair:
    return row["kalshi_market_id"], row["polymarket_market_id"]


def _newest(rows: pa.Table) -> pa.Table:
    """One row a pair: an interrupted run may have left an older version without its end."""
    key = list(_TABLE.key[:2])
    latest = rows.group_by(key).aggregate([("valid_from", "max")])
    if latest.num_rows == rows.num_rows:
        return rows
    keep = set(zip(*(latest[name].to_pylist() for name in (*key, "valid_from_max")), strict=True))
    mine = zip(*(rows[name].to_pylist() for name in (*key, "valid_from")), strict=True)
    return rows.filter(pa.array([one in keep for one in mine], pa.bool_()))
