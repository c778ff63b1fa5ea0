"""The Postgres loader: a run's journal through the same sessions as live, and its rows into Postgres, each once.

A process of its own, ``python -m arb_pipeline.capture.loader RUN_FOLDER``, beside the encoder and independent of it, so
that Postgres being slow, away or killed costs neither capture nor the lake anything: the journal on disk is its buffer.
Every batch is one transaction of its rows and of its position, the number of journal records whose rows are in. Whoever
begins anew reads the journal from its start, since sessions have to be rebuilt, and drops the rows up to the position.

While Postgres cannot be had it does not read on, and tries again, for ever while the recorder is there (its standard
input is open). Without the recorder it goes on as long as Postgres takes rows, and waits for it ``PATIENCE_S``; what is
left then is finished by the next capture, by one that runs, or by ``arb postgres catch-up``.
"""

import argparse
import contextlib
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

import msgspec
import pyarrow as pa
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential, wait_random

from arb_pipeline.capture.deriving import Derivation, venue_named
from arb_pipeline.capture.journal import Begun, JournalReader, RunFolder, file_lock
from arb_pipeline.capture.loading import LoadReport
from arb_pipeline.clock import Clock
from arb_pipeline.errors import ArbError
from arb_pipeline.logs import configure_logging
from arb_pipeline.settings import Settings
from arb_pipeline.storage.postgres import Postgres, PostgresError, TickLoader
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import Venue

__all__ = ["PATIENCE_S", "Loader", "Ticks", "catch_up", "main"]

_log = logging.getLogger(__name__)

PATIENCE_S: Final = 30.0
"""So long a loader without its recorder waits for Postgres."""
_LEFT_OUT: Final = ("raw_frames",)
"""What was received is kept in the lake alone."""
_BATCH_S: Final = 1.0
_BATCH_ROWS: Final = 200_000
"""A batch is loaded when it is so old or so large: memory is bounded, however long the journal."""
_POLL_S: Final = 0.1
_REPORT_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0
_NICE: Final = 5

T = TypeVar("T")


class Ticks(Protocol):
    """Where the rows go: :class:`arb_pipeline.storage.postgres.TickLoader`."""

    def position(self) -> int:
        """The position committed, 0 if there is none."""
        ...

    def load(self, position: int, tables: Mapping[str, pa.Table]) -> int:
        """Commit rows by table and the position; how many were inserted."""
        ...

    def finish(self, tables: Mapping[str, pa.Table] | None = None) -> int:
        """Commit that all rows of the run are in, and the last of them; how many were inserted."""
        ...


class Loader:
    """Turns one run's journal into batches of rows.

    Args:
        folder: the run's journal.
        ticks: takes the batches.
        venues: the venues that the journal may name.

    Attributes:
        rows: rows inserted so far.
        at_ns: receive time of the newest record whose rows are committed.
    """

    def __init__(self, folder: RunFolder, ticks: Ticks, venues: Mapping[str, Venue] = VENUES) -> None:
        self.rows = 0
        self.at_ns = 0
        self._folder = folder
        self._ticks = ticks
        self._reader = JournalReader(folder.path)
        self._derivation = Derivation(venues)
        self._taken = 0
        self._committed = ticks.position()
        self._batch_began = time.monotonic()
        self._oldest_ns: int | None = None
        self._batch: dict[str, pa.Table] | None = None
        self._last: dict[str, pa.Table] | None = None

    @property
    def position(self) -> int:
        """Records whose rows are committed, or gave none."""
        return self._committed

    @property
    def oldest_ns(self) -> int | None:
        """Receive time of the oldest record that was taken and whose rows are not committed."""
        return self._oldest_ns

    @property
    def behind(self) -> bool:
        """Whether records were taken whose rows are not committed."""
        return self._taken > self._committed

    @property
    def ended(self) -> bool:
        """Whether the journal's last record was taken."""
        return self._derivation.ended

    @property
    def defect(self) -> str:
        """Why a record could not be used, empty if all could."""
        return self._derivation.defect

    @property
    def due(self) -> bool:
        """Whether there is a batch to be loaded now, for its age or its size."""
        made = self._derivation.rows
        if self._batch is not None:
            return True
        if made is None or not self.behind:
            return False
        return time.monotonic() - self._batch_began >= _BATCH_S or made.pending >= _BATCH_ROWS

    def step(self) -> bool:
        """Take some records; whether there were any.

        Raises:
            JournalError: if the journal is of another format, or its run or a feed cannot be made.
        """
        records = self._reader.read()
        for record in records:
            begins = self._taken == self._committed
            self._derivation.take(record, self._folder.path)
            self._taken += 1
            if begins:
                self._batch_began, self._oldest_ns = time.monotonic(), self._derivation.newest_ns
            if self._taken == self._committed:
                self._drain()
        if self._taken < self._committed:
            self._drain()
        return bool(records)

    def died(self, until_ns: int) -> None:
        """The run ended without a word: its books are unknown from its last record until the next start."""
        self._derivation.died(until_ns)

    def load(self) -> None:
        """Commit the rows so far, and where they come from; after an error the same batch is tried again.

        Raises:
            PostgresError: if Postgres is not there, or refuses.
        """
        if self._batch is None and self.behind:
            self._batch = self._drain()
        if self._batch:
            self.rows += self._ticks.load(self._taken, self._batch)
        self._batch = None
        self._committed = max(self._committed, self._taken)
        self._oldest_ns = None
        self.at_ns = self._derivation.newest_ns

    def finish(self) -> None:
        """Commit the last rows, and that they are; :meth:`load` comes first.

        Raises:
            PostgresError: if Postgres is not there, or refuses.
        """
        if self._last is None:
            self._last = self._drain()
        self.rows += self._ticks.finish(self._last)

    def _drain(self) -> dict[str, pa.Table]:
        """The rows since the last call, by table. Also rows that are dropped count for the sessions' figures."""
        if self._derivation.rows is None:
            return {}
        parts: dict[str, list[pa.Table]] = {}
        for (name, _), rows in self._derivation.rows.drain().tables(without=_LEFT_OUT).items():
            parts.setdefault(name, []).append(rows)
        return {name: pa.concat_tables(tables) for name, tables in parts.items()}


def catch_up(
    root: Path,
    postgres: Postgres,
    venues: Mapping[str, Venue] = VENUES,
    progress: Callable[[str, int], None] = lambda _what, _count: None,
) -> int:
    """Load what runs that ended left for Postgres; how many runs are in now.

    Runs that live, and those that a loader is at, are passed over. Of a run that was killed the rows are loaded; how
    long its books were unknown is known once a capture has begun again, so that is left to complete it.

    Args:
        root: the lake's journals.
        progress: called with ``"runs"`` and their number so far.

    Raises:
        PostgresError: if Postgres is not there, or refuses. JournalError: if a journal cannot be used.
    """
    done = 0
    for folder in RunFolder.all(root / "runs"):
        with file_lock(folder.loader_lock) as held:
            if held and folder.is_dead and folder.awaits_loader and (begun := folder.begun()):
                done += _load_dead(folder, _ticks(postgres, folder, begun), venues)
                progress("runs", done)
    return done


def _load_dead(folder: RunFolder, ticks: Ticks, venues: Mapping[str, Venue]) -> bool:
    """Load a run that is over; whether all of it is in."""
    loader = Loader(folder, ticks, venues)
    while loader.step():
        if loader.due:
            loader.load()
    loader.load()
    if not loader.ended:
        if not folder.is_succeeded:
            return False
        loader.died(folder.until(loader.at_ns))
    loader.finish()
    _hand_in(folder)
    return True


def _hand_in(folder: RunFolder) -> None:
    folder.finish("loader")
    folder.release()


def _ticks(postgres: Postgres, folder: RunFolder, begun: Begun) -> TickLoader:
    # Named by its journal: a run that is tried again under its name has another one.
    return TickLoader(postgres, folder.path.name, begun.exchange)


# --- the process -------------------------------------------------------------------------------------------


class _GaveUpError(ArbError):
    """Nobody waits for the rows any more, and Postgres is not there."""


class _Process:
    """Loads one journal while its run lives, and what it left when it does not.

    Args:
        until_ns: the run is dead, and capture began again then; None: it lives.
        told: gets the reports.
    """

    def __init__(
        self,
        folder: RunFolder,
        postgres: Postgres,
        venues: Mapping[str, Venue],
        until_ns: int | None,
        told: BinaryIO,
    ) -> None:
        self._folder = folder
        self._postgres = postgres
        self._venues = venues
        self._until_ns = until_ns
        self._told = told
        self._clock = Clock()
        self._loader: Loader | None = None
        self._over = False
        """Whether nobody waits for the rows."""
        self._refused_since: float | None = None
        self._trouble = ""
        self._reported = 0.0

    def run(self) -> bool:
        """Load; whether the whole run is in.

        Raises:
            JournalError: if the journal cannot be used. ArbError: if nobody waits any more, and Postgres is away.
        """
        begun = self._begun()
        if begun is None:
            return False
        self._clock = Settings(**begun.settings).clock
        loader = self._loader = self._insist(lambda: self._open(begun))
        while not loader.ended:
            busy = loader.step()
            if loader.due:
                self._insist(loader.load)
            self._tell()
            if not busy and (self._over or self._until_ns is not None):
                break
            self._pause(0.0 if busy else _POLL_S)
        self._insist(loader.load)
        if not loader.ended:
            if self._until_ns is None:
                # The recorder is gone without a word: when its books are known again only the next start can tell.
                return False
            loader.died(self._folder.until(self._until_ns))
        self._insist(loader.finish)
        _hand_in(self._folder)
        self._tell(done=True)
        return True

    def _begun(self) -> Begun | None:
        """What the journal begins with; None if nothing was ever written."""
        while (begun := self._folder.begun()) is None and not self._over and self._folder.path.is_dir():
            self._pause(_POLL_S)
        return begun

    def _open(self, begun: Begun) -> Loader:
        self._postgres.migrate()
        return Loader(self._folder, _ticks(self._postgres, self._folder, begun), self._venues)

    def _insist(self, action: Callable[[], T]) -> T:
        """Do it, again and again while Postgres does not."""
        retrying = Retrying(
            retry=retry_if_exception_type(PostgresError),
            wait=wait_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S) + wait_random(0, _FIRST_PAUSE_S),
            before_sleep=self._note,
            sleep=self._rest,
        )
        result = retrying(action)
        if self._trouble:
            _log.warning("Postgres takes rows again")
        self._refused_since, self._trouble = None, ""
        return result

    def _note(self, state: RetryCallState) -> None:
        """Postgres refused: keep why, and give up if nobody waits for the rows any more."""
        now = time.monotonic()
        self._refused_since = now if self._refused_since is None else self._refused_since
        error = state.outcome.exception() if state.outcome is not None else None
        if str(error) != self._trouble:
            self._trouble = str(error)
            _log.warning("%s", self._trouble)
        self._tell()
        if self._over and now - self._refused_since > PATIENCE_S:
            raise _GaveUpError(f"{self._folder.path} waits for Postgres: {self._trouble}")

    def _rest(self, pause_s: float) -> None:
        until = time.monotonic() + pause_s
        while (left_s := until - time.monotonic()) > 0:
            self._pause(min(left_s, _REPORT_S))
            self._tell()

    def _pause(self, wait_s: float) -> None:
        """Wait, and see whether the recorder is still there."""
        if self._over:
            time.sleep(wait_s)
            return
        ready, _, _ = select.select([0], [], [], wait_s)
        self._over = bool(ready) and not os.read(0, 4096)

    def _tell(self, *, done: bool = False) -> None:
        now = time.monotonic()
        if not done and now - self._reported < _REPORT_S:
            return
        self._reported = now
        loader = self._loader
        report = LoadReport(done=done, message=self._trouble)
        if loader is not None:
            waiting_s = 0.0 if loader.oldest_ns is None else (self._clock.now_ns() - loader.oldest_ns) / 1e9
            report = LoadReport(
                position=loader.position,
                rows=loader.rows,
                at_ns=loader.at_ns,
                lag_s=round(max(0.0, waiting_s), 3),
                done=done,
                message=self._trouble or loader.defect,
            )
        _write(self._told, report)


def _write(told: BinaryIO, report: LoadReport) -> None:
    # The other side may be gone; what is committed is committed all the same.
    with contextlib.suppress(BrokenPipeError):
        told.write(msgspec.json.encode(report) + b"\n")
        told.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Load one run; the exit code is 0 unless rows are missing that only somebody else can load."""
    parser = argparse.ArgumentParser(prog="python -m arb_pipeline.capture.loader", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the run's journal")
    parser.add_argument("--venue", action="append", default=[], metavar="MODULE:CLASS", help="a venue besides ours")
    parser.add_argument("--recover", type=int, metavar="NS", help="the run is dead, and capture began again then")
    given = parser.parse_args(arguments)
    settings = Settings()
    configure_logging(settings)
    if settings.postgres_url is None:
        _log.error("ARB_POSTGRES_URL is not set: there is no Postgres to load into")
        return 1
    os.nice(_NICE)
    folder = RunFolder(given.folder)
    venues = {**VENUES, **{venue.name: venue for venue in map(venue_named, given.venue)}}
    # What libraries print must not be taken for reports.
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with told:
        if not folder.path.is_dir():
            _write(told, LoadReport(done=True))
            return 0
        with file_lock(folder.loader_lock) as held:
            if not held:
                _log.error("%s is being loaded by another process", folder.path)
                return 1
            return _load(folder, settings.postgres_url.get_secret_value(), venues, given.recover, told)


def _load(folder: RunFolder, url: str, venues: Mapping[str, Venue], until_ns: int | None, told: BinaryIO) -> int:
    if folder.told("loader") is not None:
        # Killed just before it said so.
        folder.release()
        _write(told, LoadReport(done=True))
        return 0
    try:
        with contextlib.closing(Postgres(url, application_name="arb loader")) as postgres:
            _Process(folder, postgres, venues, until_ns, told).run()
    except (ArbError, OSError) as error:
        _log.error("%s: %s", folder.path, error)
        _write(told, LoadReport(message=str(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
