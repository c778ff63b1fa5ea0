"""The live side of a capture: sessions whose every input goes to the journal first, and the encoder beside them."""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Generic, Protocol, TypeVar, get_args

import msgspec
from pydantic import SecretStr

from arb_pipeline.capture.deriving import venue_words
from arb_pipeline.capture.encoder import Report
from arb_pipeline.capture.handling import HandlerProcess
from arb_pipeline.capture.journal import (
    AccountTold,
    Begun,
    Ended,
    FeedAdded,
    FeedKind,
    Frame,
    JournalError,
    JournalWriter,
    Lost,
    Opened,
    PollAnswer,
    PollBegun,
    PollComplete,
    PollFailed,
    Record,
    RestBook,
    RunFolder,
    Sent,
    Skipped,
    Subscribed,
    Tick,
    TradesPage,
    Unsubscribed,
    file_lock,
    journal_root,
    slug,
    try_lock,
)
from arb_pipeline.capture.loading import LoaderProcess
from arb_pipeline.capture.polling import PolledBooks, PolledTrades
from arb_pipeline.capture.rows import RowWriter
from arb_pipeline.capture.summary import LoadSummary
from arb_pipeline.capture.supervising import start_process
from arb_pipeline.handlers.config import HandlerConfig
from arb_pipeline.model import Command, FetchBooks, MarketChange, MarketFacts, Output, Reconnect, Send, Ticker
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline.venues.base import Account, Session, Venue

__all__ = ["Inputs", "LiveBooks", "LiveFeed", "LiveTrades", "NoJournal", "RunJournal"]

_log = logging.getLogger(__name__)

_FLUSH_WAIT_S: Final = 2.0
_STOP_WAIT_S: Final = 6.5
_RECOVERY_WAIT_S: Final = 1.0
_POLL_S: Final = 0.1
_FINISH_TRIES: Final = 3
_LOAD_WAIT_S: Final = 60.0
"""So long a capture that came to its end waits for a Postgres that takes its rows."""
_LEFT_S: Final = 10.0
"""Pause between two looks for journals that Postgres has still to get."""
_NOTABLE: Final = frozenset({Send, FetchBooks, Reconnect, MarketChange})

P = TypeVar("P", bound=PolledBooks | PolledTrades)

_SECRETS: Final = {"kalshi_api_key_id", "kalshi_private_key_path"} | {
    name
    for name, field in Settings.model_fields.items()
    if SecretStr in (field.annotation, *get_args(field.annotation))
}


class LiveFeed:
    """One session of a live capture: the journal gets every input before the session does.

    It has the methods of :class:`arb_pipeline.capture.feed.Feed` but makes no rows: the encoder does, from the journal.

    Args:
        journal: where the inputs go.
        session: takes them next.
        name: names the session in the journal.
        on_change: told of life-cycle messages.
        kind: what the session is.
    """

    def __init__(
        self,
        journal: "Inputs",
        session: Session,
        name: str,
        on_change: Callable[[MarketChange], None],
        kind: FeedKind = "stream",
    ) -> None:
        self.session = session
        self._journal = journal
        self._number = journal.add_feed(session.venue, name, kind)
        self._append = journal.append
        self._on_change = on_change
        self._start_ns, self._end_ns = journal.bounds
        self._live_ns = 0
        self._since_ns: int | None = None
        self._skipped = 0

    def open(self, connection_id: str, now_ns: int, markets: Sequence[MarketFacts]) -> list[Command]:
        """A connection is there: start the session afresh, subscribe, and return what is to be sent."""
        self._append(Opened(self._number, now_ns, connection_id, tuple(markets)))
        self._since_ns = now_ns
        outputs = self.session.connected(now_ns)
        if markets:
            outputs = outputs + self.session.subscribe(markets, now_ns)
        return self._commands(outputs)

    def subscribe(self, markets: Sequence[MarketFacts], now_ns: int) -> list[Command]:
        """Take these markets, too, and return what is to be sent."""
        self._append(Subscribed(self._number, now_ns, tuple(markets)))
        return self._commands(self.session.subscribe(markets, now_ns))

    def unsubscribe(self, market_ids: Sequence[str], now_ns: int) -> list[Command]:
        """Let go of these markets and return what is to be sent."""
        self._append(Unsubscribed(self._number, now_ns, tuple(market_ids)))
        return self._commands(self.session.unsubscribe(market_ids, now_ns))

    def receive(self, frame: str, recv_ns: int) -> list[Command]:
        """Take a frame."""
        if self._journal.pressed:
            return self._receive_pressed(frame, recv_ns)
        self._append(Frame(self._number, recv_ns, frame))
        return self._commands(self.session.receive(frame, recv_ns))

    def _receive_pressed(self, frame: str, recv_ns: int) -> list[Command]:
        """Take a frame while the disk falls behind: tickers, which no book depends on, are counted and left out."""
        outputs = self.session.receive(frame, recv_ns)
        if outputs and all(type(output) is Ticker for output in outputs):
            self._skipped += 1
        else:
            self._append(Frame(self._number, recv_ns, frame))
        return self._commands(outputs)

    def tick(self, now_ns: int) -> list[Command]:
        """Let time pass."""
        if self._skipped:
            self._append(Skipped(self._number, now_ns, self._skipped))
            self._skipped = 0
        self._append(Tick(self._number, now_ns))
        return self._commands(self.session.tick(now_ns))

    def rest_book(self, market_id: str, body: bytes, now_ns: int) -> list[Command]:
        """Take a book fetched over REST."""
        self._append(RestBook(self._number, now_ns, market_id, body))
        return self._commands(self.session.rest_book(market_id, body, now_ns))

    def account(self, told: Account, now_ns: int) -> None:
        """Take what an own account told over REST."""
        self._append(AccountTold(self._number, now_ns, told.events, told.anomalies))

    def sent(self, frame: str, now_ns: int) -> None:
        """Note a frame that was sent."""
        self._append(Sent(self._number, now_ns, frame))

    def lost(self, now_ns: int, cause: str, doubt: str = "disconnect") -> None:
        """The connection is gone, another one may follow."""
        self._append(Lost(self._number, now_ns, cause, doubt))
        self.session.disconnected(now_ns, doubt)
        self.finish(now_ns)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._since_ns is not None

    def finish(self, now_ns: int) -> None:
        """The time with a connection ends."""
        self._live_ns, self._since_ns = self.live_until(now_ns), None

    def live_until(self, now_ns: int) -> int:
        """Nanoseconds with a connection inside the window so far."""
        if self._since_ns is None:
            return self._live_ns
        return self._live_ns + max(0, min(self._end_ns, now_ns) - max(self._start_ns, self._since_ns))

    def _commands(self, outputs: Sequence[Output]) -> list[Command]:
        commands: list[Command] = []
        for output in outputs:
            if type(output) in _NOTABLE:
                if isinstance(output, MarketChange):
                    self._on_change(output)
                elif isinstance(output, Send | FetchBooks | Reconnect):
                    commands.append(output)
        return commands


class LivePoll(Generic[P]):
    """A polled feed of a live capture: the journal gets every answer before it does, and it keeps no rows."""

    def __init__(self, journal: "Inputs", feed: P, name: str, kind: FeedKind) -> None:
        self.feed = feed
        self._number = journal.add_feed(feed.session.venue, name, kind)
        self._append = journal.append

    def begin(self, connection_id: str, now_ns: int, markets: Sequence[MarketFacts]) -> None:
        """Polling starts."""
        since = self.feed.since_ns if isinstance(self.feed, PolledTrades) else 0
        self._append(PollBegun(self._number, now_ns, connection_id, tuple(markets), since))
        self.feed.begin(connection_id, now_ns, markets)

    def subscribe(self, markets: Sequence[MarketFacts], now_ns: int) -> None:
        """Take these markets, too."""
        self._append(Subscribed(self._number, now_ns, tuple(markets)))
        self.feed.subscribe(markets, now_ns)

    def unsubscribe(self, market_ids: Sequence[str], now_ns: int) -> None:
        """Let go of these markets."""
        self._append(Unsubscribed(self._number, now_ns, tuple(market_ids)))
        self.feed.unsubscribe(market_ids, now_ns)

    def failed(self, cause: str, now_ns: int) -> None:
        """A poll brought no answer."""
        self._append(PollFailed(self._number, now_ns, cause))
        self.feed.failed(cause, now_ns)

    @property
    def connected(self) -> bool:
        """Whether the last poll was answered."""
        return not self.feed.failing

    def finish(self, now_ns: int) -> None:
        """Polling ends."""
        self.feed.finish(now_ns, "")

    def live_until(self, now_ns: int) -> int:
        """Nanoseconds inside the window so far, without the times of failing."""
        return self.feed.live_until(now_ns)


class LiveBooks(LivePoll[PolledBooks]):
    """Order books polled over REST."""

    def answer(self, bodies: Mapping[str, bytes | None], recv_ns: int) -> None:
        """Take an answer."""
        self._append(PollAnswer(self._number, recv_ns, dict(bodies)))
        self.feed.answer(bodies, recv_ns)


class LiveTrades(LivePoll[PolledTrades]):
    """Trades polled over REST."""

    @property
    def since_ns(self) -> int:
        """Venue time to ask from."""
        return self.feed.since_ns

    def page(self, body: bytes, recv_ns: int) -> None:
        """Take a page of a listing."""
        self._append(TradesPage(self._number, recv_ns, body))
        self.feed.page(body, recv_ns)

    def complete(self, now_ns: int) -> None:
        """A listing came to its end."""
        self._append(PollComplete(self._number, now_ns))
        self.feed.complete(now_ns)


class _NoRows(RowWriter):
    """Rows of a live poll: the encoder makes them, from the journal."""

    def keeps(self, recv_ns: int) -> bool:  # noqa: ARG002 - as its base
        """Nothing is kept."""
        return False

    def gaps_ended(self, venue: str, market_id: str, gaps: Sequence[object], to_ns: int, recovery: str) -> None:
        """Nothing is kept."""


class Inputs(Protocol):
    """What a capture run does with its inputs: :class:`RunJournal` keeps them, :class:`NoJournal` does not.

    Attributes:
        name: what the run's connection ids begin with.
        bounds: receive times [start, end) in ns that are kept.
        report: the encoder's newest.
        unkept: what polled feeds of the run write their rows to.
    """

    name: str
    bounds: tuple[int, int]
    report: Report
    unkept: RowWriter

    @property
    def message(self) -> str:
        """What is wrong with the journal or its encoder, empty if nothing is."""
        ...

    @property
    def loaded(self) -> LoadSummary | None:
        """How far Postgres has the rows; None where it is off."""
        ...

    @property
    def pressed(self) -> bool:
        """Whether the disk falls behind, so that what can be missed should be left out."""
        ...

    @property
    def full(self) -> bool:
        """Whether no more input can be taken."""
        ...

    def opened(self) -> contextlib.AbstractAsyncContextManager[object]:
        """Ready for inputs as long as the context lasts."""
        ...

    def append(self, record: Record) -> None:
        """Keep an input."""
        ...

    def add_feed(self, venue: str, name: str, kind: FeedKind) -> int:
        """The number of a new session."""
        ...

    def start(self) -> None:
        """Begin to encode."""
        ...

    async def writable(self) -> None:
        """Wait until inputs can be taken."""
        ...

    async def flush(self) -> None:
        """Have everything so far written."""
        ...

    async def finish(self, now_ns: int, reason: str) -> None:
        """The run is over: have its last rows written."""
        ...


class NoJournal:
    """Inputs that nobody keeps: for whoever only looks at the books."""

    pressed = full = False
    message = ""
    loaded = None

    def __init__(self, begun: Begun, writer: str) -> None:
        self.name = writer
        self.bounds = _bounds(begun)
        self.report = Report()
        self.unkept: RowWriter = _NoRows(begun.run_id, begun.started_ns, window=begun.window)
        self._feeds = 0

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """See :class:`Inputs`."""
        yield

    def append(self, record: Record) -> None:
        """See :class:`Inputs`."""

    def add_feed(self, venue: str, name: str, kind: FeedKind) -> int:  # noqa: ARG002 - as the protocol says
        """See :class:`Inputs`."""
        self._feeds += 1
        return self._feeds

    def start(self) -> None:
        """See :class:`Inputs`."""

    async def writable(self) -> None:
        """See :class:`Inputs`."""

    async def flush(self) -> None:
        """See :class:`Inputs`."""

    async def finish(self, now_ns: int, reason: str) -> None:
        """See :class:`Inputs`."""


class RunJournal:
    """The journal of one capture run, its encoder, and the journals that dead runs of the same shard left.

    Attributes:
        writer: where the inputs go.
        report: the encoder's newest.
        bounds: receive times [start, end) in ns that are kept.
    """

    def __init__(  # noqa: PLR0917 - of a run, and who is told of it
        self,
        settings: Settings,
        lake: Lake,
        venues: Mapping[str, Venue],
        begun: Begun,
        writer: str,
        handlers: Sequence[HandlerConfig] = (),
    ) -> None:
        self.report = Report()
        self.bounds = _bounds(begun)
        self.unkept: RowWriter = _NoRows(begun.run_id, begun.started_ns, window=begun.window)
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
        self._handlers = HandlerProcess.of(self._folder, venues, settings, handlers)
        self._postgres_url = settings.postgres_url
        self._loader = None if self._postgres_url is None else LoaderProcess(self._folder, venues, self._postgres_url)
        self._waiting = 0
        self._recovery: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The journal, written to and locked, for as long as the context lasts.

        Raises:
            JournalError: if another capture of the same venue, shard and hour is under way.
            OSError: if the folder cannot be written.
        """
        async with contextlib.AsyncExitStack() as stack:
            for venue in sorted(self._venues):
                await self._lock_shard(stack, venue)
            stack.enter_context(self._folder.created(loaded=self._loader is not None))
            self.writer = JournalWriter(self._folder.path, self._flush_ms / 1e3)
            stack.callback(self.writer.close)
            self.writer.append(self._begun)
            try:
                yield
            finally:
                await asyncio.to_thread(self.writer.close)
                self._handlers.leave()
                if self._loader is not None:
                    self._loader.leave()
                if self._encoder is None:
                    self._folder.remove()
                else:
                    self._encoder.leave()
                for task in filter(None, (self._recovery, self._loading)):
                    task.cancel()

    def add_feed(self, venue: str, name: str, kind: FeedKind) -> int:
        """The number of a new session."""
        number, self._feeds = self._feeds, self._feeds + 1
        self.append(FeedAdded(number, venue, name, kind))
        return number

    def append(self, record: Record) -> None:
        """Add a record to the journal."""
        self.writer.append(record)

    @property
    def pressed(self) -> bool:
        """Whether the disk falls behind."""
        return self.writer.pressed

    @property
    def full(self) -> bool:
        """Whether the disk refuses, and no more can wait for it."""
        return self.writer.full

    @property
    def message(self) -> str:
        """What is wrong with the journal, its encoder or the handlers, empty if nothing is."""
        return self.writer.error or self.report.message or self._handlers.report.message

    @property
    def loaded(self) -> LoadSummary | None:
        """How far Postgres has the rows; None where it is off."""
        if self._loader is None:
            return None
        report = self._loader.report
        return LoadSummary(
            rows=report.rows, lag_s=report.lag_s, waiting=self._waiting, done=report.done, message=report.message
        )

    def start(self) -> None:
        """Begin to encode, to load Postgres, and to tell the handlers."""
        self._encoder = _EncoderProcess(self._command(self._folder))
        if self._loader is not None:
            self._loader.start()
        self._handlers.start()

    async def writable(self) -> None:
        """Wait until the disk takes what the journal has for it."""
        while self.writer.full:  # noqa: ASYNC110 - the disk tells nobody when it has room
            await asyncio.sleep(_POLL_S)

    async def flush(self) -> None:
        """Have everything so far written to the lake; a slow encoder is not waited for long."""
        assert self._encoder is not None
        await asyncio.to_thread(self.writer.sync)
        if self._recovery is None:
            # What dead runs left ends where this one begins. That must be in its journal by then: if it were killed
            # before it had a connection, nothing would tell of the time up to the run after it.
            self._recovery = asyncio.create_task(self._recover(), name="recovery of journals")
            self._loading = asyncio.create_task(self._load_left(), name="loading of journals")
        self.report = await self._encoder.flush(_FLUSH_WAIT_S) or self.report

    async def finish(self, now_ns: int, reason: str) -> None:
        """The run is over: have its last rows written.

        A stop is not kept waiting by a slow encoder, which then finishes by itself.

        Raises:
            JournalError: if the rows cannot be written; the journal stays, and the next capture finishes it.
        """
        self.writer.append(Ended(now_ns, reason))
        await asyncio.to_thread(self.writer.close)
        if self.writer.error:
            raise JournalError(f"{self.writer.error}; the newest input of the run is lost, make room on that disk")
        is_urgent = reason not in {"window_end", "max_seconds"}
        deadline = time.monotonic() + _STOP_WAIT_S
        await self._finish_encoding(_STOP_WAIT_S if is_urgent else None)
        await self._finish_loading(max(0.0, deadline - time.monotonic()) if is_urgent else _LOAD_WAIT_S)

    async def _finish_encoding(self, within_s: float | None) -> None:
        assert self._encoder is not None
        for _ in range(_FINISH_TRIES):
            try:
                async with asyncio.timeout(within_s):
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

    async def _finish_loading(self, within_s: float) -> None:
        """Wait for the last rows' way into Postgres, but for no Postgres that is away: later runs load them, too."""
        if self._loader is None:
            return
        deadline = time.monotonic() + within_s
        while not (report := self._loader.report).done and not report.message:
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(_POLL_S)

    async def _lock_shard(self, stack: contextlib.AsyncExitStack, venue: str) -> None:
        """Hold the lock of a venue's shard and hour; a run that lost its place is given the time to leave it."""
        number, of = self._begun.shard
        start = self._begun.window[0]
        what = f"{venue}-{number}of{of}" + ("" if start is None else f"-{start // 1_000_000_000}")
        path = self._root / "locks" / f"{slug(what)}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
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
                    await self._recover_one(folder)

    async def _load_left(self) -> None:
        """Load what runs of this shard left for Postgres, again and again: runs end while this one goes on."""
        assert self._recovery is not None
        await asyncio.wait({self._recovery})
        while True:
            found = [one for one in RunFolder.all(self._root / "runs") if one.path != self._folder.path]
            left = [one for one in found if one.awaits_loader and await self._is_of_dead_run(one)]
            self._waiting = len(left)
            for folder in left:
                if self._postgres_url is None:
                    _log.warning(
                        "%s is not loaded into Postgres, for ARB_POSTGRES_URL is not set; the lake has its rows, and "
                        "'arb postgres sync' brings them there",
                        folder.path,
                    )
                    folder.forgo_loader()
                    folder.release()
                else:
                    await self._load_one(folder, self._postgres_url)
                self._waiting -= 1
            await asyncio.sleep(_LEFT_S)

    async def _is_of_dead_run(self, folder: RunFolder) -> bool:
        """Whether a journal is of a run of this shard that is over, and no loader is at it."""
        with file_lock(folder.loader_lock) as free:
            if not free or not folder.is_dead:
                return False
        try:
            begun = await asyncio.to_thread(folder.begun)
        except (JournalError, msgspec.DecodeError):
            return False  # the recovery of journals tells of it
        number, of = self._begun.shard
        return begun is not None and begun.shard[0] % of == number

    async def _load_one(self, folder: RunFolder, url: SecretStr) -> None:
        loader = LoaderProcess(folder, self._venues, url, self._begun.started_ns)
        loader.start()
        try:
            while not (report := loader.report).done:
                if report.restarts >= _FINISH_TRIES:
                    break
                await asyncio.sleep(_POLL_S)
        finally:
            loader.leave()

    async def _recover_one(self, folder: RunFolder) -> None:
        command = [*self._command(folder), "--recover", str(self._begun.started_ns)]
        for _ in range(_FINISH_TRIES):
            process = start_process(command)
            while (code := process.poll()) is None:  # noqa: ASYNC110 - a thread that waits would outlast a stop
                await asyncio.sleep(_POLL_S)
            if not code:
                return
            _log.warning("%s could not be finished (exit %d)", folder.path, code)
        _log.warning("%s is left to the next capture", folder.path)

    def _command(self, folder: RunFolder) -> list[str]:
        options = [word for venue in venue_words(self._venues.values()) for word in ("--venue", venue)]
        return [
            sys.executable,
            "-m",
            "arb_pipeline.capture.encoder",
            str(folder.path),
            self._lake.root,
            *options,
        ]


def _bounds(begun: Begun) -> tuple[int, int]:
    start, end = begun.window
    return -(2**63) if start is None else start, 2**63 - 1 if end is None else end


def begun_settings(settings: Settings) -> dict[str, object]:
    """Settings as a journal keeps them: plain values, no secrets."""
    return settings.model_dump(mode="json", exclude=_SECRETS)


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
        self._process = start_process(self._command, subprocess.PIPE)
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
