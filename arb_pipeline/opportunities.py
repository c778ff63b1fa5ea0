"""Opportunities of the lake: the pieces of one hour joined with those of the hours around it.

The table of pieces keeps each hour by itself, so that an hour can be evaluated again, at any time and in any order. An
episode that goes on over the end of an hour has its one row in the partition of the day on which it opened: whenever
an hour is written, the episodes that reach into it are joined anew from all their pieces. Pairs and baskets have tables
of their own and go the same way.
"""

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, TypeAlias

import pyarrow as pa

from arb_pipeline.arbitrage.opportunities import BURST, PAIR_EPISODES, EpisodeTables, edge_rules, funnel, joined
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table

__all__ = ["Written", "write_opportunities"]

_HOUR: Final = timedelta(hours=1)
_ACCEPTED: Final = json.dumps([])
_TOO_SHORT: Final = json.dumps([BURST])

Identity: TypeAlias = tuple[str, ...]
"""What is bought, and the reasons against it: pieces of one episode have them in common."""

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """What writing an hour came to.

    Attributes:
        opportunities: the episodes that opened in the hour.
        joined: all that were joined anew, those that opened in other hours too.
        days: whose partitions were renewed.
    """

    opportunities: pa.Table
    joined: pa.Table
    days: tuple[date, ...]


def write_opportunities(
    settings: Settings, lake: Lake, start: datetime, pieces: pa.Table, of: EpisodeTables = PAIR_EPISODES
) -> Written:
    """Write the pieces of an hour, and the episodes that these make with the pieces around them.

    Args:
        start: the hour.
        pieces: rows of the table of pieces, of it.
        of: which tables.
    """
    return _Joining(settings, lake, of).write(start, pieces)


class _Joining:
    """The episodes of one kind in a lake."""

    def __init__(self, settings: Settings, lake: Lake, of: EpisodeTables) -> None:
        self._settings, self._lake, self._of = settings, lake, of
        self._merge_ns = edge_rules(settings).merge_ns

    def write(self, start: datetime, pieces: pa.Table) -> Written:
        """See :func:`write_opportunities`."""
        end, merge = start + _HOUR, self._merge_ns
        before = self._pieces(start)
        self._lake.replace(self._of.pieces, Partition.of(self._of.pieces, None, start), pieces)
        own = [*before, *pieces.to_pylist()]
        start_ns, end_ns = ns_from_datetime(start), ns_from_datetime(end)
        backwards = self._begins_near(own, start_ns) | self._ends_near(self._pieces(start - _HOUR), start_ns)
        forwards = self._ends_near(own, end_ns) | self._begins_near(self._pieces(end), end_ns)
        first, last = self._first_hour(start, backwards), self._last_hour(start, forwards)
        concerned = {self._identity(row) for row in own} | backwards | forwards

        def touches(row: Row) -> bool:
            """Whether an episode reaches the hour, or did before that was written anew."""
            # Times of episodes are cut to microseconds.
            # One that was cut off in an hour that nothing follows goes on to nowhere: only hours joined anew count.
            opens_by = ns_from_datetime(first) <= ns_from_datetime(row["opened_at"]) + 1_000 <= end_ns + merge + 1_000
            ends_after = row["closed_at"] is None or ns_from_datetime(row["closed_at"]) + 1_000 > start_ns - merge
            return opens_by and ends_after and self._identity(row) in concerned

        episodes = [row for row in self._joined(first, last) if touches(row)]
        renewed = tuple(day for day in _days(first, end) if self._replace(day, touches, episodes, start.date()))
        mine = [row for row in episodes if start <= row["opened_at"] < end]
        schema = table(self._of.episodes).schema
        opened, anew = (pa.Table.from_pylist(rows, schema=schema) for rows in (mine, episodes))
        return Written(opened, anew, renewed)

    def _pieces(self, hour: datetime) -> list[Row]:
        rows: list[Row] = self._lake.read(self._of.pieces, hour, hour + _HOUR).to_pylist()
        return rows

    def _first_hour(self, start: datetime, reaching: Collection[Identity]) -> datetime:
        """The hour in which the oldest of the episodes that reach back over ``start`` begins."""
        first, left = start, set(reaching)
        while left:
            rows = [row for row in self._pieces(first - _HOUR) if self._identity(row) in left]
            left &= self._ends_near(rows, ns_from_datetime(first))
            if left:
                first -= _HOUR
                left &= self._begins_near(rows, ns_from_datetime(first))
        return first

    def _last_hour(self, start: datetime, reaching: Collection[Identity]) -> datetime:
        """The hour in which the last of the episodes that reach over the end of the hour of ``start`` ends."""
        last, left = start, set(reaching)
        while left:
            end = last + _HOUR
            rows = [row for row in self._pieces(end) if self._identity(row) in left]
            left &= self._begins_near(rows, ns_from_datetime(end))
            if left:
                last = end
                left &= self._ends_near(rows, ns_from_datetime(end + _HOUR))
        return last

    def _joined(self, first: datetime, last: datetime) -> list[Row]:
        """Episodes of the pieces of these hours."""
        newest = [row["closed_ns"] for row in self._pieces(last) if row["end_reason"] == "right_censored"]
        until = last + _HOUR
        if Partition.of(self._of.pieces, None, until) in self._lake.partitions(self._of.pieces):
            until += _HOUR  # it is known that nothing goes on there
        elif newest:
            # The newest hour may have been evaluated while it lasted: what it cut off may go on from there.
            until = datetime_from_ns(max(newest))
        pieces = self._lake.read(self._of.pieces, first, last + _HOUR)
        rows: list[Row] = joined(pieces, until, self._settings, self._of).to_pylist()
        return rows

    def _replace(self, day: date, superseded: Callable[[Row], bool], episodes: Iterable[Row], evaluated: date) -> bool:
        """Put a day's episodes that were joined anew in place of those that they supersede, and count its funnel anew.

        Returns:
            Whether there was anything to put or to supersede; the day that is evaluated is written in any case.
        """
        name, midnight = self._of.episodes, datetime.combine(day, time(), UTC)
        held = self._lake.read(name, midnight, midnight + timedelta(days=1)).to_pylist()
        kept = [row for row in held if not superseded(row)]
        fresh = [row for row in episodes if row["opened_at"].date() == day]
        if len(kept) == len(held) and not fresh and day != evaluated:
            return False
        renewed = pa.Table.from_pylist([*kept, *fresh], schema=table(name).schema)
        self._lake.replace(name, Partition.of(name, None, midnight), renewed)
        if self._of.counted:
            self._lake.replace("rejections", Partition.of("rejections", None, midnight), funnel(renewed, day))
        return True

    def _begins_near(self, rows: Iterable[Row], at_ns: int) -> set[Identity]:
        return {self._identity(row) for row in rows if row["opened_ns"] <= at_ns + self._merge_ns}

    def _ends_near(self, rows: Iterable[Row], at_ns: int) -> set[Identity]:
        return {self._identity(row) for row in rows if row["closed_ns"] >= at_ns - self._merge_ns}

    def _identity(self, row: Row) -> Identity:
        # How long an episode lasts is known of the whole only: its pieces are accepted ones.
        reasons = _ACCEPTED if row["reasons"] == _TOO_SHORT else row["reasons"]
        return *(row[name] for name in self._of.identity), reasons


def _days(first: datetime, end: datetime) -> list[date]:
    """Days on which an episode may have opened that lies between: one may open just when the hour ends."""
    return [first.date() + timedelta(days=number) for number in range((end.date() - first.date()).days + 1)]
