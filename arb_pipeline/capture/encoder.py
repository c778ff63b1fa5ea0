"""The encoder: a run's journal through the same sessions as live, and its rows into the lake.

A process of its own, ``python -m arb_pipeline.capture.encoder RUN_FOLDER LAKE``, that the recorder starts and speaks
to by lines: ``flush`` on its standard input makes it write what the journal holds so far as part files, and a
:class:`Report` on its standard output answers. After the journal's last record it merges the partitions, deletes the
journal and ends. When the recorder is gone (its input ends) it writes what there is and ends; the next start of a
capture finishes the journal: whoever begins anew first deletes the rows that an encoder before it wrote of the run,
so that each is there exactly once, wherever one was killed.
"""

import argparse
import contextlib
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from arb_pipeline.capture.deriving import Derivation, venue_named
from arb_pipeline.capture.journal import (
    Begun,
    FeedAdded,
    JournalReader,
    Opened,
    PollBegun,
    RunFolder,
    file_lock,
    slug,
)
from arb_pipeline.capture.rows import TableKey
from arb_pipeline.capture.summary import VenueSummary, summarise
from arb_pipeline.errors import ArbError
from arb_pipeline.logs import configure_logging
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline.tables import table
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import Venue

__all__ = ["Encoder", "Report", "finish_journals", "main", "recover"]

_log = logging.getLogger(__name__)

_TABLES: Final = ("raw_frames", "book_events", "quotes", "trades", "tickers", "book_gaps", "capture_sessions")
_PART_RECORDS: Final = 200_000
"""So many records at most become one part file: memory is bounded also when a long journal is read at once."""
_COMPACTION_S: Final = 6.0
"""No further partition is merged once this much of the ten seconds that a stop may take is gone."""
_POLL_S: Final = 0.05
_RETRY_S: Final = 1.0
_LOCK_S: Final = 60.0
_ONE_DAY_NS: Final = round(timedelta(days=1).total_seconds() * 1e9)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How far an encoder has come.

    Attributes:
        venues: figures of what is committed.
        done: the journal was complete, its rows are final, and it is deleted.
        conflicts, uncompacted: what merging found, and the partitions that it left in parts for lack of time.
        message: the newest trouble, empty if there is none.
    """

    venues: dict[str, VenueSummary] = {}
    done: bool = False
    conflicts: int = 0
    uncompacted: tuple[str, ...] = ()
    message: str = ""


class Encoder:
    """Turns one run's journal into rows.

    Args:
        folder: the run's journal.
        lake: where the rows go.
        venues: the venues that it may name.
    """

    def __init__(self, folder: RunFolder, lake: Lake, venues: Mapping[str, Venue] = VENUES) -> None:
        self.folder = folder
        self._lake = lake
        self._reader = JournalReader(folder.path)
        self._derivation = Derivation(venues)
        self._refusal = ""
        self._since_part = 0
        self._waiting: dict[TableKey, list[pa.Table]] = {}
        self._touched: dict[TableKey, None] = {}

    @property
    def ended(self) -> bool:
        """Whether the journal's last record was read."""
        return self._derivation.ended

    @property
    def message(self) -> str:
        """What is wrong: a lake that refuses rows as long as it does, a record that could not be used for good."""
        return self._refusal or self._derivation.defect

    # --- reading -------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Take some records; whether there were any.

        Raises:
            JournalError: if the journal is of another format, or its run or a feed cannot be made.
        """
        records = self._reader.read()
        for record in records:
            self._derivation.take(record, self.folder.path)
            if isinstance(record, Begun):
                self._lake = self._lake.with_exchange(record.exchange)
        self._since_part += len(records)
        if self._since_part >= _PART_RECORDS:
            self.flush()
        return bool(records)

    def catch_up(self) -> None:
        """Take every record that there is."""
        while self.step():
            pass

    def died(self, until_ns: int) -> None:
        """The run ended without a word: its books are unknown from its last record until the next start."""
        self._derivation.died(until_ns)

    # --- writing -------------------------------------------------------------------------------------------

    def flush(self) -> bool:
        """Write the rows so far as parts; whether all are written. What a disk refuses is kept and tried again."""
        self._since_part = 0
        made = self._derivation.rows
        if made is None:
            return True
        for key, rows in made.drain().tables().items():
            self._waiting.setdefault(key, []).append(rows)
        writer = slug(self.folder.path.name)
        for key in list(self._waiting):
            try:
                self._lake.write_part(*key, pa.concat_tables(self._waiting[key]), writer)
            except OSError as error:
                self._refusal = f"rows wait for the lake: {error}"
                return False
            del self._waiting[key]
            self._touched[key] = None
        self._refusal = ""
        return True

    def compact(self, within_s: float | None = None) -> Report:
        """Merge the partitions written to, as far as the time goes; the final report."""
        deadline = None if within_s is None else time.monotonic() + within_s
        left, conflicts = [], 0
        for name, partition in self._touched:
            if deadline is not None and time.monotonic() > deadline:
                left.append(f"{name}/{partition.path}")
                continue
            conflicts += self._lake.compact(name, partition).conflicts
        return Report(
            venues=self.figures(), done=True, conflicts=conflicts, uncompacted=tuple(left), message=self.message
        )

    def clear(self) -> None:
        """Delete the rows that an encoder before this one wrote of the run."""
        ids, first_ns, last_ns = self._connections()
        if not ids:
            return
        for name in _TABLES:
            for partition in self._lake.partitions(name):
                manifest = self._lake.manifest(name, partition)
                bounds = partition.bounds
                assert bounds is not None
                # Gaps are dated back to the last proof, which may lie on the day before.
                near = bounds[0] <= last_ns and bounds[1] > first_ns - _ONE_DAY_NS
                if near and any(entry.exchange == self._lake.exchange_name for entry in manifest.files):
                    empty = table(name).schema.empty_table()
                    self._lake.replace_where(name, partition, empty, "connection_id", ids)

    def figures(self) -> dict[str, VenueSummary]:
        """What was taken in so far, by venue."""
        rows = self._derivation.rows
        if rows is None:
            return {}
        venues = {derived.session.venue for derived in self._derivation.feeds.values()}
        return {
            venue: summarise(venue, rows.totals_of(venue), connections=0, reconnects=0, coverage=0.0)
            for venue in sorted(venues)
        }

    def _connections(self) -> tuple[list[str], int, int]:
        """Connection ids, first and last time of the journal."""
        reader, ids, first, last = JournalReader(self.folder.path), [], 0, 0
        while records := reader.read():
            for record in records:
                if isinstance(record, Begun):
                    first = last = record.started_ns
                    self._lake = self._lake.with_exchange(record.exchange)
                elif not isinstance(record, FeedAdded):
                    last = max(last, record.at_ns)
                    if isinstance(record, Opened | PollBegun):
                        ids.append(record.connection_id)
        return ids, first, last


def recover(folder: RunFolder, lake: Lake, venues: Mapping[str, Venue], until_ns: int) -> Report:
    """Finish the journal of a run that is dead; it is deleted unless the Postgres loader needs it.

    Args:
        until_ns: when capture began again: up to then the run's books are unknown.

    Raises:
        JournalError: if it is no journal, or of a newer version.
        OSError: if the lake cannot be written; the journal stays.
    """
    if folder.told("encoder") is not None:
        return _hand_in(folder)
    encoder = Encoder(folder, lake, venues)
    encoder.clear()
    encoder.catch_up()
    if not encoder.ended:
        encoder.died(folder.until(until_ns))
    if not encoder.flush():
        raise OSError(encoder.message)
    return _hand_in(folder, encoder.compact())


def finish_journals(root: Path, lake: Lake, venues: Mapping[str, Venue] = VENUES) -> None:
    """Have the rows of runs that ended written: wait for encoders at work, and finish what they leave.

    Args:
        root: the lake's journals.

    Raises:
        JournalError, OSError: see :func:`recover`.
    """
    for folder in RunFolder.all(root / "runs"):
        done = False
        while not done and folder.path.is_dir():
            with file_lock(folder.encoder_lock) as held:
                if held:
                    recover(folder, lake, venues, time.time_ns())
                    done = True
            if not done:
                time.sleep(_POLL_S)


def _follow(folder: RunFolder, lake: Lake, venues: Mapping[str, Venue], *, again: bool) -> None:
    """Encode while the run lives."""
    encoder = Encoder(folder, lake, venues)
    if again:
        encoder.clear()
    commands = _Commands()
    while not encoder.ended:
        busy = encoder.step()
        if commands.poll(0.0 if busy else _POLL_S):
            encoder.catch_up()
            if not encoder.ended:
                encoder.flush()
                _tell(Report(venues=encoder.figures(), message=encoder.message))
        elif commands.over:
            # Once more: the recorder may have written its last records just before it went.
            encoder.catch_up()
            if not encoder.ended:
                encoder.flush()
                return
    while not encoder.flush():
        if commands.over:
            raise OSError(encoder.message)
        _tell(Report(venues=encoder.figures(), message=encoder.message))
        commands.poll(_RETRY_S)
    _hand_in(folder, encoder.compact(_COMPACTION_S), _tell)


def _hand_in(
    folder: RunFolder, report: Report | None = None, tell: Callable[[Report], None] = lambda _report: None
) -> Report:
    """The rows are final: say so, and let the journal go.

    Whoever is killed on the way has left its report behind: None reads it.
    """
    if report is None:
        report = msgspec.json.decode(folder.told("encoder") or b"{}", type=Report)
    else:
        folder.finish("encoder", msgspec.json.encode(report))
    tell(report)
    folder.release()
    return report


class _Commands:
    """Lines on standard input."""

    def __init__(self) -> None:
        self.over = False
        """Whether the other side is gone."""

    def poll(self, wait_s: float) -> bool:
        """Wait for a command; whether one came."""
        if self.over:
            return False
        ready, _, _ = select.select([0], [], [], wait_s)
        if not ready:
            return False
        data = os.read(0, 4096)
        self.over = not data
        return bool(data)


def _tell(report: Report) -> None:
    # The other side may be gone; what is committed is committed all the same.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
        sys.stdout.buffer.flush()


def _encode(folder: RunFolder, lake: Lake, venues: Mapping[str, Venue], died_ns: int | None, *, again: bool) -> int:
    try:
        if folder.told("encoder") is not None:
            _hand_in(folder, tell=_tell)
        elif died_ns is None:
            _follow(folder, lake, venues, again=again)
        else:
            recover(folder, lake, venues, died_ns)
    except (ArbError, OSError) as error:
        _log.error("%s: %s", folder.path, error)
        _tell(Report(message=f"rows cannot be written: {error}"))
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Encode one run; the exit code is 0 unless rows are missing."""
    parser = argparse.ArgumentParser(prog="python -m arb_pipeline.capture.encoder", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the run's journal")
    parser.add_argument("lake", help="root of the lake")
    parser.add_argument("--venue", action="append", default=[], metavar="MODULE:CLASS", help="a venue besides ours")
    parser.add_argument("--recover", type=int, metavar="NS", help="the run is dead, and capture began again then")
    given = parser.parse_args(arguments)
    configure_logging(Settings())
    folder, lake = RunFolder(given.folder), Lake(given.lake)
    # What a dead run left may name venues that the run of now does not capture.
    venues = {**VENUES, **{venue.name: venue for venue in map(venue_named, given.venue)}}
    deadline = time.monotonic() + _LOCK_S
    while folder.path.is_dir():
        again = folder.encoder_lock.exists()
        with file_lock(folder.encoder_lock) as held:
            if held:
                return _encode(folder, lake, venues, given.recover, again=again)
        if time.monotonic() > deadline:
            _log.error("%s is being encoded by another process", folder.path)
            return 1
        time.sleep(_POLL_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
