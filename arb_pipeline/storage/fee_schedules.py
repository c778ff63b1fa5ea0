"""``fee_schedules``: the venues' fee parameters by the time from which they hold, and by when that was known.

The table is one partition with the rows of all venues. A row that a listing no longer tells, or tells otherwise, is
ended in ``known_to`` and stays: what was known at an earlier time can be told.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.model import FeeChange
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table

__all__ = ["fee_schedules_as_of", "has_fee_schedules", "read_fee_changes", "record_fee_changes"]

_TABLE = table("fee_schedules")
_NUMBERS = {"multiplier": "fee_multiplier", "rate": "rate"}
_RATE = _TABLE.schema.field("rate").type
_FINEST = Decimal(1).scaleb(-_RATE.scale)
_LARGEST = Decimal(10) ** (_RATE.precision - _RATE.scale)

Row: TypeAlias = dict[str, Any]


def record_fee_changes(lake: Lake, venue: str, changes: Iterable[FeeChange], at: datetime) -> int:
    """Make these all that a venue's listing at ``at`` tells of its fees, and end what it tells no more.

    Doing so again changes nothing, and neither does a listing that is older than what is known. Of two changes of the
    same scope and time the later one counts.

    Returns:
        How many rows were added or ended.

    Raises:
        LakeError: if the lake holds data of another exchange.
    """
    told = {(change.scope, change.scope_id, change.valid_from): change for change in changes}
    difference = 0

    def apply(held: pa.Table) -> pa.Table:
        nonlocal difference
        mine = pc.equal(held["venue"], venue)
        rows, difference = _revised(held.filter(mine).to_pylist(), venue, told.values(), at)
        others = held.filter(pc.invert(mine))
        return pa.concat_tables([others, pa.Table.from_pylist(rows, schema=_TABLE.schema)])

    _, changed = _revised(_rows(lake, venue).to_pylist(), venue, told.values(), at)
    if changed:
        lake.update(_TABLE, Partition(), apply)
    return difference


def read_fee_changes(
    lake: Lake, venue: str, ids: Collection[str] | None = None, known_at: datetime | None = None
) -> list[FeeChange]:
    """What is known of a venue's fees, by scope and time.

    Args:
        ids: of these series, categories, events and markets only, and the default.
        known_at: by what was known then; None: by all we know.
    """
    rows = _known(_rows(lake, venue), known_at)
    if ids is not None:
        rows = rows.filter(pc.is_in(rows["scope_id"], pa.array(sorted({*ids, ""}), pa.string())))
    decode = msgspec.json.Decoder(dict[str, str]).decode
    return [
        FeeChange(
            venue=row["venue"],
            scope=row["scope"],
            scope_id=row["scope_id"],
            params=decode(row["params"]),
            valid_from=row["valid_from"],
            source=row["source"],
        )
        for row in rows.to_pylist()
    ]


def has_fee_schedules(lake: Lake, venue: str, known_at: datetime | None = None) -> bool:
    """Whether anything is, or was then, known of a venue's fees by time."""
    known: int = _known(_rows(lake, venue), known_at).num_rows
    return known > 0


def fee_schedules_as_of(lake: Lake, known_at: datetime) -> pa.Table:
    """The rows that were known at a time, as they stood then: with the ends that were known."""
    rows = lake.read(_TABLE)
    known = rows.filter(pc.less_equal(rows["known_at"], pa.scalar(known_at, rows["known_at"].type))).to_pylist()
    for row in known:
        if row["known_to"] is not None and row["known_to"] > known_at:
            row["known_to"] = None
    for venue in {row["venue"] for row in known}:
        _end([row for row in known if row["venue"] == venue])
    return pa.Table.from_pylist(known, schema=_TABLE.schema)


def _rows(lake: Lake, venue: str) -> pa.Table:
    return lake.read(_TABLE, venue=venue)


def _known(rows: pa.Table, known_at: datetime | None) -> pa.Table:
    if known_at is None:
        return rows.filter(pc.is_null(rows["known_to"]))
    later = pc.fill_null(pc.greater(rows["known_to"], known_at), pa.scalar(True))
    return rows.filter(pc.and_(pc.less_equal(rows["known_at"], known_at), later))


def _revised(held: list[Row], venue: str, told: Iterable[FeeChange], at: datetime) -> tuple[list[Row], int]:
    """A venue's rows after a listing, and how many of them are new or newly ended."""
    if any(row["known_at"] > at for row in held):
        return held, 0
    fresh = {_identity(row): row for row in (_row(change, at) for change in told if change.venue == venue)}
    rows: list[Row] = []
    difference = 0
    for row in held:
        again = fresh.get(_identity(row))
        if row["known_to"] is not None:
            rows.append(row)
        elif again is not None and again["params"] == row["params"]:
            rows.append({**row, "source": again["source"]})
            del fresh[_identity(row)]
        else:
            difference += 1
            # What the very same listing told otherwise before was never known.
            rows += [{**row, "known_to": at}] if row["known_at"] < at else []
    rows += fresh.values()
    _end(rows)
    return rows, difference + len(fresh)


def _identity(row: Row) -> tuple[str, str, datetime]:
    return row["scope"], row["scope_id"], row["valid_from"]


def _end(rows: list[Row]) -> None:
    """Let each row that is known now hold until the next one of its scope."""
    scopes: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["known_to"] is None:
            scopes[row["scope"], row["scope_id"]].append(row)
    for same in scopes.values():
        same.sort(key=lambda row: row["valid_from"])
        for row, following in zip(same, [*same[1:], None], strict=True):
            row["valid_to"] = following["valid_from"] if following else None


def _row(change: FeeChange, at: datetime) -> Row:
    exponent = change.params.get("exponent", "")
    return {
        "venue": change.venue,
        "scope": change.scope,
        "scope_id": change.scope_id,
        "params": msgspec.json.encode(change.params, order="sorted").decode(),
        "fee_type": change.params.get("fee_type"),
        **{name: _number(change.params.get(key)) for name, key in _NUMBERS.items()},
        "exponent": int(exponent) if exponent.isdecimal() and len(exponent) < 19 else None,
        "valid_from": change.valid_from,
        "valid_to": None,
        "known_at": at,
        "known_to": None,
        "source": change.source,
    }


def _number(text: str | None) -> Decimal | None:
    """The number exactly, None if it is none or does not fit the column."""
    try:
        number = Decimal(text or "NaN")
        exact = number.quantize(_FINEST) if number.is_finite() and abs(number) < _LARGEST else None
    except InvalidOperation:
        return None
    return exact if exact == number else None
