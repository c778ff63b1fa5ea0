"""The live side of a capture: sessions whose every input goes to the journal first, and the encoder beside them."""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import msgspec

from arb_pipeline.capture.encoder import Report
from arb_pipeline.capture.journal import (
    Begun,
    Ended,
    FeedAdded,
    Frame,
    JournalError,
    JournalWriter,
    Lost,
    Opened,
    RestBook,
    RunFolder,
    Sent,
    Tick,
    file_lock,
    journal_root,
    slug,
    try_lock,
)
from arb_pipeline.model import Command, FetchBooks, MarketFacts, Output, Reconnect, Send
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline.venues.base import Session, Venue

__all__ = ["LiveFeed", "RunJournal"]

_log = logging.getLogger(__name__)

_FLUSH_WAIT_S: Final = 2.0
_STOP_WAIT_S: Final = 8.0
_RECOVERY_WAIT_S: Final = 1.0
_POLL_S: Final = 0.1
_FINISH_TRIES: Final = 3
_SECRETS: Final = frozenset(
    {"postgres_url", "dagster_postgres_url", "kalshi_api_key_id", "kalshi_private_key", "kalshi_private_key_path"}
)


class LiveFeed:
    """One session of a live capture: the journal gets every input before the session does.

    It has the methods of :class:`arb_pipeline.capture.feed.Feed` but makes no rows: the encoder does, from the journal.
    """

    def __init__(self, journal: "RunJournal", session: Session, name: str) -> None:
        self.session = session
        self._number = journal.add_feed(session.venue, name)
        self._append = journal.writer.append
        self._start_ns, self._end_ns = journal.bounds
        self._live_ns = 0
        self._since_ns: int | None = None

    def open(self, connection_id: str, now_ns: int, markets: Sequence[MarketFacts]) -> list[Command]:
        """A connection is there: start the session afresh, subscribe, and return what is to be sent."""
        self._append(Opened(self._number, now_ns, connection_id, tuple(markets)))
        self._since_ns = now_ns
        outputs = self.session.connected(now_ns)
        if markets:
            outputs = outputs + self.session.subscribe(markets, now_ns)
        return _commands(outputs)

    def receive(self, frame: str, recv_ns: int) -> list[Command]:
        """Take a frame."""
        self._append(Frame(self._number, recv_ns, frame))
        return _commands(self.session.receive(frame, recv_ns))

    def tick(self, now_ns: int) -> list[Command]:
        """Let time pass."""
        self._append(Tick(self._number, now_ns))
        return _commands(self.session.tick(now_ns))

    def rest_book(self, market_id: str, body: bytes, now_ns: int) -> list[Command]:
        """Take a book fetched over REST."""
        self._append(RestBook(self._number, now_ns, market_id, body))
        return _commands(self.session.rest_book(market_id, body, now_ns))

    def sent(self, frame: str, now_ns: int) -> None:
        """Note a frame that was sent."""
        self._append(Sent(self._number, now_ns, frame))

    def lost(self, now_ns: int, cause: str) -> None:
        """The connection is gone, another one may follow."""
        self._append(Lost(self._number, now_ns, cause))
        self.session.disconnected(now_ns, "disconnect")
        self.finish(now_ns)

    def finish(self, now_ns: int) -> None:
        """The time with a connection ends."""
        self._live_ns, self._since_ns = self.live_until(now_ns), None

    def live_until(self, now_ns: int) -> int:
        """Nanoseconds with a connection inside the window so far."""
        if self._since_ns is None:
            return self._live_ns
        return self._live_ns + max(0, min(self._end_ns, now_ns) - max(self._start_ns, self._since_ns))


def _commands(outputs: Sequence[Output]) -> list[Command]:
    return [output for output in outputs if isinstance(output, Send | FetchBooks | Reconnect)]


class RunJournal:
    """The journal of one capture run, its encoder, and the journals that dead runs of the same shard left.

    Attributes:
        writer: where the inputs go.
        report: the encoder's newest.
        bounds: receive times [start, end) in ns that are kept.
    """

    def __init__(self, settings: Settings, lake: Lake, venues: Mapping[str, Venue], begun: Begun, writer: str) -> None:
        self.report = Report()
        start, end = begun.window
        self.bounds = (-(2**63) if start is None else start, 2**63 - 1 if end is None else end)
        self._lake = lake
        self._venues = venues
        self._begun = begun
        self._root = journal_root(settings.journal, lake.root)
        # Ids of connections must not return, also where a step of one run is tried again.
        self.name = f"{writer}-{begun.started_ns // 1_000_000:x}"
        self._folder = RunFolder(self._root / "runs" / self.name)
        self._flush_ms = settings.flush_ms
        self._feeds = 0
        self._patience_s = 2 * settings.capture_flush_s
        self._encoder: _EncoderProcess | None = None
        self._recovery: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator["RunJournal"]:
        """The journal, written to and locked, for as long as the context lasts.

        Raises:
            JournalError: if another capture of the same venue, shard and hour is under way.
            OSError: if the folder cannot be written.
        """
        async with contextlib.AsyncExitStack() as stack:
            for venue in sorted(self._venues):
                await self._lock_shard(stack, venue)
            stack.enter_context(self._folder.created())
            self.writer = JournalWriter(self._folder.path, self._flush_ms / 1e3)
            stack.callback(self.writer.close)
            self.writer.append(self._begun)
            try:
                yield self
            finally:
                await asyncio.to_thread(self.writer.close)
                if self._encoder is None:
                    self._folder.remove()
                else:
                    self._encoder.leave()
                if self._recovery is not None:
                    self._recovery.cancel()

    def add_feed(self, venue: str, name: str) -> int:
        """The number of a new session."""
        number, self._feeds = self._feeds, self._feeds + 1
        self.writer.append(FeedAdded(number, venue, name))
        return number

    @property
    def message(self) -> str:
        """What is wrong with the journal or its encoder, empty if nothing is."""
        return self.writer.error or self.report.message

    def start(self) -> None:
        """Begin to encode, and to finish what dead runs left."""
        self._encoder = _EncoderProcess(self._command(self._folder))
        self._recovery = asyncio.create_task(self._recover(), name="recovery of journals")

    async def writable(self) -> None:
        """Wait until the disk takes what the journal has for it."""
        while self.writer.full:  # noqa: ASYNC110 - the disk tells nobody when it has room
            await asyncio.sleep(_POLL_S)

    async def flush(self) -> None:
        """Have everything so far written to the lake; a slow encoder is not waited for long."""
        assert self._encoder is not None
        await asyncio.to_thread(self.writer.sync)
        self.report = await self._encoder.flush(_FLUSH_WAIT_S) or self.report

    async def finish(self, now_ns: int, reason: str) -> None:
        """The run is over: have its last rows written.

        A stop is not kept waiting by a slow encoder, which then finishes by itself.

        Raises:
            JournalError: if the rows cannot be written; the journal stays, and the next capture finishes it.
        """
        assert self._encoder is not None
        self.writer.append(Ended(now_ns, reason))
        await asyncio.to_thread(self.writer.close)
        if self.writer.error:
            raise JournalError(f"{self.writer.error}; the newest input of the run is lost, make room on that disk")
        for _ in range(_FINISH_TRIES):
            try:
                async with asyncio.timeout(None if reason in {"window_end", "max_seconds"} else _STOP_WAIT_S):
                    report = await self._encoder.final()
            except TimeoutError:
                return
            self.report = report or self.report
            if self.report.done:
                if self._recovery is not None:
                    await asyncio.wait({self._recovery}, timeout=_RECOVERY_WAIT_S)
                return
        raise JournalError(
            f"the rows of run {self._begun.run_id} could not be written ({self.report.message or 'see its log'}); "
            f"the next capture finishes its journal {self._folder.path}"
        )

    async def _lock_shard(self, stack: contextlib.AsyncExitStack, venue: str) -> None:
        """Hold the lock of a venue's shard and hour; a run that lost its place is given the time to leave it."""
        number, of = self._begun.shard
        start = self._begun.window[0]
        what = f"{venue}-{number}of{of}" + ("" if start is None else f"-{start // 1_000_000_000}")
        path = self._root / "locks" / f"{slug(what)}.lock"
        deadline = time.monotonic() + self._patience_s
        while (fd := try_lock(path)) is None:
            if time.monotonic() > deadline:
                raise JournalError(
                    f"another capture of {venue}, shard {number} of {of}, writes to {self._lake.root}; stop it first, "
                    "or give this one another lake (ARB_LAKE) or shard"
                )
            await asyncio.sleep(_POLL_S)
        stack.callback(os.close, fd)

    async def _recover(self) -> None:
        """Finish the journals of dead runs of this shard, one after the other."""
        for folder in RunFolder.all(self._root / "runs"):
            with file_lock(folder.run_lock) as dead:
                if not dead or folder.path == self._folder.path:
                    continue
                try:
                    begun = await asyncio.to_thread(folder.begun)
                except (JournalError, msgspec.DecodeError) as error:
                    _log.warning("%s stays as it is: %s", folder.path, error)
                    continue
                if begun is None:
                    folder.remove()  # killed before its first flush: it holds nothing
                elif begun.shard[0] % self._begun.shard[1] == self._begun.shard[0]:
                    command = [*self._command(folder), "--recover", str(self._begun.started_ns)]
                    process = _start(command)
                    while (code := process.poll()) is None:  # noqa: ASYNC110 - a thread that waits would outlast a stop
                        await asyncio.sleep(_POLL_S)
                    if code:
                        _log.warning("%s could not be finished (exit %d); the next capture tries again", folder, code)

    def _command(self, folder: RunFolder) -> list[str]:
        venues = [f"{type(venue).__module__}:{type(venue).__qualname__}" for venue in self._venues.values()]
        options = [word for venue in venues for word in ("--venue", venue)]
        return [
            sys.executable,
            "-m",
            "arb_pipeline.capture.encoder",
            str(folder.path),
            self._lake.root,
            *options,
        ]


def begun_settings(settings: Settings) -> dict[str, object]:
    """Settings as a journal keeps them: plain values, no secrets."""
    return settings.model_dump(mode="json", exclude=set(_SECRETS))


class _EncoderProcess:
    """The encoder; started again whenever it is needed and not there.

    A thread reads what it says. The process is no asyncio one, because those are killed with their loop, and an encoder
    that is not done yet has to go on.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._loop = asyncio.get_running_loop()
        self._asked = self._over = False
        self._spawn()

    async def flush(self, wait_s: float) -> Report | None:
        """Ask for a flush, and wait so long for its report."""
        try:
            async with asyncio.timeout(wait_s):
                if self._over:
                    self._spawn()
                if not self._asked:
                    self._ask()
                report = await self._reports.get()
        except TimeoutError:
            return None
        self._asked = False
        self._over = report is None
        return report

    async def final(self) -> Report | None:
        """Wait for the encoder's end; its last report, None if it had none to give."""
        last: Report | None = None
        if self._over:
            self._spawn()
        while report := await self._reports.get():
            last = report
        self._over = True
        return last

    def leave(self) -> None:
        """Nobody will speak to the encoder again: what is complete it finishes, and then it ends by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _spawn(self) -> None:
        if self._over:
            self.leave()
        self._over = self._asked = False
        self._reports: asyncio.Queue[Report | None] = asyncio.Queue()
        self._process = _start(self._command, subprocess.PIPE)
        threading.Thread(target=self._listen, args=(self._process, self._reports), name="encoder", daemon=True).start()

    def _ask(self) -> None:
        assert self._process.stdin is not None
        # An encoder that died is found by its listener, after its last report.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"flush\n")
        self._asked = True

    def _listen(self, process: "subprocess.Popen[bytes]", reports: "asyncio.Queue[Report | None]") -> None:
        assert process.stdout is not None
        lines = open(process.stdout.fileno(), "rb", closefd=False)  # noqa: SIM115 - buffered, unlike the pipe
        with contextlib.suppress(RuntimeError), process.stdout, lines:  # RuntimeError: the loop is closed
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # killed in the middle of it
                self._loop.call_soon_threadsafe(reports.put_nowait, msgspec.json.decode(line, type=Report))
            if code := process.wait():
                _log.warning("the encoder ended with exit code %d before the capture did", code)
            self._loop.call_soon_threadsafe(reports.put_nowait, None)


def _start(command: Sequence[str], pipe: int | None = None) -> "subprocess.Popen[bytes]":
    # A session of its own: an interrupt from the terminal is the recorder's to act upon. The child imports what its
    # parent does.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(  # noqa: S603 - our own module
        command, bufsize=0, env=environment, start_new_session=True, stdin=pipe or subprocess.DEVNULL, stdout=pipe
    )
