"""Opportunities of the lake: the pieces of one hour joined with those of the hours around it.

The table ``opportunity_pieces`` keeps each hour by itself, so that an hour can be evaluated again, at any time and in
any order. An episode that goes on over the end of an hour has its one row in the partition of the day on which it
opened: whenever an hour is written, the episodes that reach into it are joined anew from all their pieces.
"""

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, TypeAlias

import pyarrow as pa

from arb_pipeline.arbitrage.opportunities import BURST, edge_rules, funnel, joined
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table

__all__ = ["Written", "write_opportunities"]

_HOUR: Final = timedelta(hours=1)
_PIECES: Final = "opportunity_pieces"
_ACCEPTED: Final = json.dumps([])
_TOO_SHORT: Final = json.dumps([BURST])

Identity: TypeAlias = tuple[str, str, str, str]
"""Kalshi market, Polymarket market, direction, reasons: pieces of one episode have them in common."""

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """The episodes that opened in an hour, rows of ``opportunities``, and the days whose partitions were renewed."""

    opportunities: pa.Table
    days: tuple[date, ...]


def write_opportunities(settings: Settings, lake: Lake, start: datetime, pieces: pa.Table) -> Written:
    """Write the pieces of an hour, and the episodes that these make with the pieces around them.

    Args:
        start: the hour.
        pieces: rows of ``opportunity_pieces`` of it.
    """
    end, merge = start + _HOUR, edge_rules(settings).merge_ns
    before = _pieces(lake, start)
    lake.replace(_PIECES, Partition.of(_PIECES, None, start), pieces)
    own = [*before, *pieces.to_pylist()]
    start_ns, end_ns = ns_from_datetime(start), ns_from_datetime(end)
    backwards = _begins_near(own, start_ns, merge) | _ends_near(_pieces(lake, start - _HOUR), start_ns, merge)
    forwards = _ends_near(own, end_ns, merge) | _begins_near(_pieces(lake, end), end_ns, merge)
    first, last = _first_hour(lake, start, merge, backwards), _last_hour(lake, start, merge, forwards)
    concerned = {_identity(row) for row in own} | backwards | forwards

    def touches(row: Row) -> bool:
        """Whether an episode reaches the hour, or did before that was written anew."""
        # Times of episodes are cut to microseconds.
        # One that was cut off in an hour that nothing follows goes on to nowhere: only hours joined anew count.
        opens_by = ns_from_datetime(first) <= ns_from_datetime(row["opened_at"]) + 1_000 <= end_ns + merge + 1_000
        ends_after = row["closed_at"] is None or ns_from_datetime(row["closed_at"]) + 1_000 > start_ns - merge
        return opens_by and ends_after and _identity(row) in concerned

    episodes = [row for row in _joined(settings, lake, first, last) if touches(row)]
    renewed = tuple(day for day in _days(first, end) if _replace(lake, day, touches, episodes, start.date()))
    mine = [row for row in episodes if start <= row["opened_at"] < end]
    return Written(pa.Table.from_pylist(mine, schema=table("opportunities").schema), renewed)


def _pieces(lake: Lake, hour: datetime) -> list[Row]:
    rows: list[Row] = lake.read(_PIECES, hour, hour + _HOUR).to_pylist()
    return rows


def _first_hour(lake: Lake, start: datetime, merge_ns: int, reaching: Collection[Identity]) -> datetime:
    """The hour in which the oldest of the episodes that reach back over ``start`` begins."""
    first, left = start, set(reaching)
    while left:
        rows = [row for row in _pieces(lake, first - _HOUR) if _identity(row) in left]
        left &= _ends_near(rows, ns_from_datetime(first), merge_ns)
        if left:
            first -= _HOUR
            left &= _begins_near(rows, ns_from_datetime(first), merge_ns)
    return first


def _last_hour(lake: Lake, start: datetime, merge_ns: int, reaching: Collection[Identity]) -> datetime:
    """The hour in which the last of the episodes that reach over the end of the hour of ``start`` ends."""
    last, left = start, set(reaching)
    while left:
        end = last + _HOUR
        rows = [row for row in _pieces(lake, end) if _identity(row) in left]
        left &= _begins_near(rows, ns_from_datetime(end), merge_ns)
        if left:
            last = end
            left &= _ends_near(rows, ns_from_datetime(end + _HOUR), merge_ns)
    return last


def _joined(settings: Settings, lake: Lake, first: datetime, last: datetime) -> list[Row]:
    """Episodes of the pieces of these hours."""
    newest = [row["closed_ns"] for row in _pieces(lake, last) if row["end_reason"] == "right_censored"]
    until = last + _HOUR
    if Partition.of(_PIECES, None, until) in lake.partitions(_PIECES):
        until += _HOUR  # it is known that nothing goes on there
    elif newest:
        # The newest hour may have been evaluated while it lasted: what it cut off may go on from there.
        until = datetime_from_ns(max(newest))
    rows: list[Row] = joined(lake.read(_PIECES, first, last + _HOUR), until, settings).to_pylist()
    return rows


def _replace(
    lake: Lake, day: date, superseded: Callable[[Row], bool], episodes: Iterable[Row], evaluated: date
) -> bool:
    """Put a day's episodes that were joined anew in place of those that they supersede, and count its funnel anew.

    Returns:
        Whether there was anything to put or to supersede; the day that is evaluated is written in any case.
    """
    midnight = datetime.combine(day, time(), UTC)
    held = lake.read("opportunities", midnight, midnight + timedelta(days=1)).to_pylist()
    kept = [row for row in held if not superseded(row)]
    fresh = [row for row in episodes if row["opened_at"].date() == day]
    if len(kept) == len(held) and not fresh and day != evaluated:
        return False
    renewed = pa.Table.from_pylist([*kept, *fresh], schema=table("opportunities").schema)
    lake.replace("opportunities", Partition.of("opportunities", None, midnight), renewed)
    lake.replace("rejections", Partition.of("rejections", None, midnight), funnel(renewed, day))
    return True


def _begins_near(rows: Iterable[Row], at_ns: int, merge_ns: int) -> set[Identity]:
    return {_identity(row) for row in rows if row["opened_ns"] <= at_ns + merge_ns}


def _ends_near(rows: Iterable[Row], at_ns: int, merge_ns: int) -> set[Identity]:
    return {_identity(row) for row in rows if row["closed_ns"] >= at_ns - merge_ns}


def _identity(row: Row) -> Identity:
    # How long an episode lasts is known of the whole only: its pieces are accepted ones.
    reasons = _ACCEPTED if row["reasons"] == _TOO_SHORT else row["reasons"]
    return row["kalshi_market_id"], row["polymarket_market_id"], row["direction"], reasons


def _days(first: datetime, end: datetime) -> list[date]:
    """Days on which an episode may have opened that lies between: one may open just when the hour ends."""
    return [first.date() + timedelta(days=number) for number in range((end.date() - first.date()).days + 1)]
