"""``outcome_sets`` in the lake: what was known of events of several outcomes, and since when.

A row is added for what changed alone, and none is ever rewritten, so that the state of any time is the newest row known
by then.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.storage.arrow import sort_table
from arb_pipeline.storage.lake import Lake, Partition

__all__ = ["current_outcome_sets", "outcome_sets_as_of", "record_outcome_sets"]

_TABLE: Final = "outcome_sets"
_KNOWN: Final = "known_at"

Row = dict[str, Any]


def record_outcome_sets(lake: Lake, rows: Sequence[Row], at: datetime) -> int:
    """Write what of these rows differs from the newest that is known; how many do.

    An event that is listed no more keeps its last row: what is open of it is told by its markets.
    """
    added: dict[str, int] = {}
    for venue in sorted({row["venue"] for row in rows}):

        def add(of_today: pa.Table, venue: str = venue) -> pa.Table:
            known = {row["event_id"]: row for row in current_outcome_sets(lake, venue).to_pylist()}
            fresh = [row for row in rows if row["venue"] == venue and _differs(known.get(row["event_id"]), row)]
            added[venue] = len(fresh)
            return pa.concat_tables([of_today, pa.Table.from_pylist(fresh, of_today.schema)])

        lake.update(_TABLE, Partition.of(_TABLE, venue, at), add)
    return sum(added.values())


def current_outcome_sets(lake: Lake, venue: str | None = None) -> pa.Table:
    """The newest row of every event, by venue and event id."""
    return _last(lake.read(_TABLE, venue=venue))


def outcome_sets_as_of(lake: Lake, known_at: datetime, *, or_first: bool = False) -> pa.Table:
    """The row of every event that was the newest at a time.

    Args:
        or_first: of events that were not known by then, the first row: an hour that was captured before its events were
            ever matched is evaluated with what was found then.
    """
    rows = lake.read(_TABLE)
    known = pc.less_equal(rows[_KNOWN], pa.scalar(known_at, rows[_KNOWN].type))
    newest = _last(rows.filter(known))
    if not or_first:
        return newest
    seen = set(zip(newest["venue"].to_pylist(), newest["event_id"].to_pylist(), strict=True))
    later = _ordered(rows.filter(pc.invert(known)))
    keep = []
    for place, key in enumerate(zip(later["venue"].to_pylist(), later["event_id"].to_pylist(), strict=True)):
        if key not in seen:
            seen.add(key)
            keep.append(place)
    return _ordered(pa.concat_tables([newest, later.take(pa.array(keep, pa.int64()))]))


def _ordered(rows: pa.Table) -> pa.Table:
    return sort_table(rows, ("venue", "event_id", _KNOWN))


def _last(rows: pa.Table) -> pa.Table:
    rows = _ordered(rows)
    last = rows.group_by(["venue", "event_id"], use_threads=False).aggregate([([], "count_all")])["count_all"]
    return rows.take(pa.array(np.cumsum(last.to_numpy()) - 1))


def _differs(before: Row | None, row: Row) -> bool:
    """Whether a row says something new. Of the same time or an older one it does not."""
    if before is None:
        return True
    return bool(before[_KNOWN] < row[_KNOWN]) and any(before[name] != row[name] for name in row if name != _KNOWN)
