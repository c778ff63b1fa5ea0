"""The recorder: sockets (or polls) of one capture run, and their inputs' way to the journal.

Sockets, timers and REST answers go to the journal and then to the sessions. An encoder beside the recorder turns the
journal into rows, as part files every few seconds; on the way out, whatever the reason, everything is flushed and the
partitions are merged. What a killed run left is finished by the next one of its shard.
"""

import asyncio
import contextlib
import dataclasses
import logging
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential, wait_random
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from arb_pipeline.capture.journal import Begun, FeedKind, slug
from arb_pipeline.capture.live import Inputs, LiveBooks, LiveFeed, LiveTrades, NoJournal, RunJournal, begun_settings
from arb_pipeline.capture.polling import PolledBooks, PolledTrades, Poller
from arb_pipeline.capture.summary import CaptureStatus, CaptureSummary, VenueSummary
from arb_pipeline.capture.universe import Universe
from arb_pipeline.clock import Clock, datetime_from_ns, ns_from_datetime, wall_ms
from arb_pipeline.errors import ArbError
from arb_pipeline.handlers.config import HandlerConfig
from arb_pipeline.model import Command, FetchBooks, Market, MarketChange, MarketFacts, Reconnect, Send
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import Credentials, Polling, Session, Venue, VenueError
from arb_pipeline.venues.http import HttpStatusError, RestClient

__all__ = ["CaptureStatus", "CaptureSummary", "Recorder"]

_MAX_FRAME: Final = 64 << 20
_TICK_S: Final = 1.0
_CLOSE_TIMEOUT_S: Final = 2.0
_KEEP_ALIVE: Final = (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
_REDACTED: Final = "<secret>"
_SETTLE_S: Final = 0.5
"""Life-cycle messages come in bursts: what follows one so soon is looked at together."""
_ACCOUNT_LOOK_BACK_NS: Final = 3_600_000_000_000
"""So far back a run asks an account at first: what was missed between two runs is in both."""
_MANY_TRIES: Final = 30
"""After so many the pauses have their full length."""
_MOST_CHANGES: Final = 10_000

_Feeds: TypeAlias = LiveFeed | LiveBooks | LiveTrades


_log = logging.getLogger(__name__)


class _LostError(Exception):
    """A connection ended; the message says why."""


_WORTH_ANOTHER_DIAL: Final = (_LostError, OSError, TimeoutError, WebSocketException)


class Recorder:
    """Captures the books, trades and tickers of markets until a window ends, a time is up, or it is stopped.

    Args:
        settings: endpoints, credentials, intervals.
        lake: where the rows go.
        clock: receive times and the window are its.
        run_id: names the run in rows and part files.
        markets: what to capture at first, by venue.
        window: keep what is received in [start, end); the run may start earlier and ends with the window. None: keep
            everything.
        shard: (k, n): capture the k-th of n parts of the markets.
        venues: the venues that ``markets`` may name.
        backoff_s: first and longest pause before dialling again, seconds.
        universe: says what to capture as time goes on; None: the same to the end.
        keep: False for whoever only looks at the books: nothing is written.
        handlers: handlers of who captures, besides those of the listeners' file.
    """

    def __init__(
        self,
        settings: Settings,
        lake: Lake,
        clock: Clock,
        run_id: str,
        markets: Mapping[str, Sequence[Market]],
        *,
        window: tuple[datetime, datetime] | None = None,
        shard: tuple[int, int] = (0, 1),
        venues: Mapping[str, Venue] = VENUES,
        backoff_s: tuple[float, float] = (1.0, 60.0),
        universe: Universe | None = None,
        keep: bool = True,
        handlers: Sequence[HandlerConfig] = (),
    ) -> None:
        self._settings = settings
        self._handlers = handlers
        self._lake = lake
        self._clock = clock
        self._run_id = run_id
        self._shard = shard
        self._writer = slug(run_id) + (f"-{shard[0]}of{shard[1]}" if shard[1] > 1 else "")
        self._window = None if window is None else (ns_from_datetime(window[0]), ns_from_datetime(window[1]))
        self._backoff_s = backoff_s
        self._venues = {name: venues[name] for name in markets}
        self._streams = {
            name: _Stream(self, venues[name], _of_shard(listed, shard)) for name, listed in markets.items()
        }
        self._universe = universe
        self._keep = keep
        self._changes: dict[str, list[MarketChange]] = {}
        self._changed = asyncio.Event()
        self._started_ns = self._ended_ns = 0
        self._end_ns: int | None = None
        self._journal: Inputs | None = None

    @property
    def journal(self) -> Inputs:
        """Where the inputs go, once the run has begun."""
        assert self._journal is not None, "the run has not begun"
        return self._journal

    def polled(self, venue: str, market_id: str) -> PolledBooks | None:
        """The feed that a market's book is polled with, None where nothing polls it."""
        return self._streams[venue].polled(market_id)

    @property
    def settings(self) -> Settings:
        """The settings of the run."""
        return self._settings

    @property
    def clock(self) -> Clock:
        """The clock of the run."""
        return self._clock

    @property
    def prefix(self) -> str:
        """What the run's connection ids begin with."""
        return self.journal.name

    @property
    def is_first_shard(self) -> bool:
        """Whether what is there once for all shards is this run's."""
        return self._shard[0] == 0

    def retrying(self) -> AsyncRetrying:
        """Dialling again without end, by jittered exponential back-off."""
        first, longest = self._backoff_s
        return AsyncRetrying(
            wait=wait_exponential(multiplier=0.75 * first, max=longest) + wait_random(0, 0.5 * first),
            retry=retry_if_exception_type(_WORTH_ANOTHER_DIAL),
            reraise=True,
        )

    def note_change(self, venue: str, change: MarketChange) -> None:
        """Take a life-cycle message of a venue to the universe, if there is one."""
        changes = self._changes.setdefault(venue, [])
        if self._universe is not None and len(changes) < _MOST_CHANGES:
            changes.append(change)
            self._changed.set()

    async def run(
        self,
        stop: asyncio.Event,
        on_progress: Callable[[CaptureStatus], Awaitable[None]] | None = None,
        still_mine: Callable[[], Awaitable[bool]] | None = None,
    ) -> CaptureSummary:
        """Capture to the end.

        Args:
            stop: set it to end the capture; flushing takes a few seconds.
            on_progress: awaited after every flush.
            still_mine: awaited after every flush; False means that another run took over, and ends this one.

        Raises:
            VenueError: if a venue's credentials are unusable.
            JournalError: if another capture of the shard is under way, or rows cannot be written.
            OSError: if the journal cannot be begun.
        """
        self._journal = self._begin()
        reason = "nothing_to_capture"
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._journal.opened())
            may_grow = self._universe is not None and any(stream.markets for stream in self._streams.values())
            for stream in self._streams.values():
                await stream.start(stack, may_grow=may_grow)
            capturing = bool(self._tasks())
            following = asyncio.create_task(self._follow(), name="universe") if capturing else None
            try:
                if following is not None:
                    reason = "failed"
                    self._journal.start()
                    reason = await self._watch(following, stop, on_progress, still_mine)
                    _log.info("run %s ends: %s", self._run_id, reason, extra={"run_id": self._run_id})
            finally:
                tasks = [*self._tasks(), *([following] if following else [])]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._ended_ns = self._clock.now_ns()
                if capturing:
                    await asyncio.gather(self._finish(reason), self._close_universe())
        return CaptureSummary(
            run_id=self._run_id,
            exchange=self._lake.exchange_name,
            stop_reason=reason,
            started_at=datetime_from_ns(self._started_ns),
            ended_at=datetime_from_ns(self._ended_ns),
            venues=self._venue_summaries(self._ended_ns),
            key_conflicts=self._journal.report.conflicts,
            uncompacted=self._journal.report.uncompacted,
            postgres=self._journal.loaded,
        )

    def _begin(self) -> Inputs:
        now = self._started_ns = self._clock.now_ns()
        start, end = self._window or (None, None)
        if self._settings.max_seconds is not None:
            limit = max(now, start or now) + round(self._settings.max_seconds * 1e9)
            end = limit if end is None else min(end, limit)
        self._end_ns = end
        begun = Begun(
            self._run_id, self._shard, now, (start, end), self._lake.exchange_name, begun_settings(self._settings)
        )
        if not self._keep:
            return NoJournal(begun, self._writer)
        return RunJournal(self._settings, self._lake, self._venues, begun, self._writer, self._handlers)

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [task for stream in self._streams.values() for task in stream.tasks]

    async def _watch(
        self,
        following: asyncio.Task[None],
        stop: asyncio.Event,
        on_progress: Callable[[CaptureStatus], Awaitable[None]] | None,
        still_mine: Callable[[], Awaitable[bool]] | None,
    ) -> str:
        """Flush at intervals until there is a reason to end, and return it."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while True:
                pause = self._settings.capture_flush_s
                if self._end_ns is not None:
                    pause = min(pause, (self._end_ns - self._clock.now_ns()) / 1e9)
                watched = {stopping, following, *self._tasks()}
                done, _ = await asyncio.wait(watched, timeout=max(0.0, pause), return_when=asyncio.FIRST_COMPLETED)
                if stopping in done:
                    return "stopped"
                for task in done:
                    # Connections dial again for ever: one that ended by itself has met a defect, which must be seen.
                    if not task.cancelled():
                        await task
                if self._end_ns is not None and self._clock.now_ns() >= self._end_ns:
                    in_window = self._window is not None and self._end_ns == self._window[1]
                    return "window_end" if in_window else "max_seconds"
                await self.journal.flush()
                if on_progress is not None:
                    await on_progress(self._status())
                if still_mine is not None and not await still_mine():
                    return "superseded"
        finally:
            stopping.cancel()

    async def _follow(self) -> None:
        """Add and retire markets as the universe says: at intervals, and soon after life-cycle messages."""
        universe = self._universe
        if universe is None:
            await asyncio.Event().wait()
            return
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(universe.interval_s):
                    await self._changed.wait()
                    await asyncio.sleep(_SETTLE_S)
            self._changed.clear()
            changes, self._changes = self._changes, {}
            for venue, revision in (await universe.revise(changes)).items():
                if venue in self._streams:
                    added = _of_shard(revision.add, self._shard)
                    await self._streams[venue].revise(added, revision.retire)

    async def _close_universe(self) -> None:
        if self._universe is not None:
            await self._universe.close()

    async def _finish(self, reason: str) -> None:
        for stream in self._streams.values():
            for feed in stream.feeds:
                feed.finish(self._ended_ns)
        await self.journal.finish(self._ended_ns, reason)

    def _status(self) -> CaptureStatus:
        now = self._clock.now_ns()
        elapsed = (now - self._started_ns) / 1e9
        return CaptureStatus(
            run_id=self._run_id,
            elapsed_s=elapsed,
            venues=self._venue_summaries(now),
            postgres=self.journal.loaded,
        )

    def _venue_summaries(self, now: int) -> dict[str, VenueSummary]:
        # A run that came late has missed the beginning of its window: that is not covered, either.
        start = self._started_ns if self._window is None else self._window[0]
        length = min(now, self.journal.bounds[1]) - start
        return {name: stream.summary(now, length) for name, stream in self._streams.items()}


class _Stream:
    """One venue's connections, or polls."""

    def __init__(self, recorder: Recorder, venue: Venue, markets: Sequence[MarketFacts]) -> None:
        self.recorder = recorder
        self.venue = venue
        self.markets = {facts.market_id: facts for facts in markets}
        self.dials = 0
        self.message = ""
        self.client: RestClient | None = None
        self._credentials: Credentials | None = None
        self._poller: Poller | None = None
        self._trades: LiveTrades | None = None
        self._account: _AccountConnection | None = None
        self._members: list[_Connection | _Batch] = []
        self._trades_task: list[asyncio.Task[None]] = []
        self._numbers = 0
        self._past_feeds = 0
        self._past_live_ns = 0

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What runs for the venue."""
        account = [] if self._account is None else [self._account.task]
        return [member.task for member in self._members] + self._trades_task + account

    @property
    def feeds(self) -> list[_Feeds]:
        """What takes the venue's public inputs."""
        trades: list[_Feeds] = [] if self._trades is None else [self._trades]
        return [*(member.feed for member in self._members), *trades]

    def polled(self, market_id: str) -> PolledBooks | None:
        """See :class:`Recorder`."""
        batches = (one for one in self._members if isinstance(one, _Batch) and market_id in one.markets)
        return next((batch.feed.feed for batch in batches), None)

    @property
    def in_maintenance(self) -> bool:
        """Whether the venue has planned to be away now."""
        return self.venue.maintenance(self.recorder.clock.now()) is not None

    async def start(self, stack: contextlib.AsyncExitStack, *, may_grow: bool) -> None:
        """Open the REST client and connections for the markets; none if the venue can be neither streamed nor polled.

        A venue without markets is started all the same if it ``may_grow``.
        """
        settings = self.recorder.settings
        credentials = self._credentials = self.venue.credentials(settings)
        polling = None
        if not self.venue.can_stream(credentials):
            reason = f"{self.venue.name}'s WebSocket needs credentials, and none are set"
            polling = self.venue.polling
            if polling is None:
                self.message = f"skipped: {reason}"
                return
            self.message = f"polled over REST: {reason}"
            settings = settings.model_copy(update={"http_retries": 0})
        if not self.markets:
            self.message = "no market to capture"
            if not may_grow:
                return
        self.client = await stack.enter_async_context(self.venue.rest_client(settings, credentials))
        if polling is not None:
            self._poll(polling, self.client)
        markets, self.markets = list(self.markets.values()), {}
        self._place(markets)
        if self.recorder.settings.account and credentials is not None and self.recorder.is_first_shard:
            name = f"{self.recorder.prefix}/{self.venue.name}/account"
            session = self.venue.account_session(name, self.recorder.settings, credentials)
            if session is not None:
                self._account = _AccountConnection(self, name, session, markets, kind="account")

    async def revise(self, add: Sequence[MarketFacts], retire: Collection[str]) -> None:
        """Take these markets, too, and let go of those; what is captured, or is not, already stays so."""
        if self.client is None:
            return
        for member in [*self._members]:
            member.drop([market_id for market_id in retire if market_id in member.markets])
            if not member.markets:
                self._past_feeds += 1
                self._past_live_ns += await member.end()
                self._members.remove(member)
        gone = [market_id for market_id in retire if self.markets.pop(market_id, None) is not None]
        if self._trades is not None and gone:
            self._trades.unsubscribe(gone, self.recorder.clock.now_ns())
        fresh = [facts for facts in add if facts.market_id not in self.markets]
        if self._account is not None and fresh:
            self._account.take(fresh)
        if self._trades is not None and fresh:
            self._trades.subscribe(fresh, self.recorder.clock.now_ns())
        self._place(fresh)

    def summary(self, now_ns: int, length_ns: int) -> VenueSummary:
        """The venue's figures so far."""
        live = self._past_live_ns + sum(feed.live_until(now_ns) for feed in self.feeds)
        feeds = self._past_feeds + len(self.feeds)
        journal = self.recorder.journal
        return dataclasses.replace(
            journal.report.venues.get(self.venue.name, VenueSummary(venue=self.venue.name)),
            markets=len(self.markets) if feeds else 0,
            connections=len(self.feeds),
            connected=sum(feed.connected for feed in self.feeds),
            reconnects=max(0, self.dials - feeds),
            coverage=round(min(1.0, live / (length_ns * feeds)), 6) if feeds and length_ns > 0 else 0.0,
            message=journal.message or self.message,
        )

    def note(self, message: str) -> None:
        """Keep the newest trouble."""
        self.message = message

    def _place(self, markets: Sequence[MarketFacts]) -> None:
        """Give markets to connections that have room, and the rest to new ones."""
        room = self._room()
        waiting = list(markets)
        self.markets.update((facts.market_id, facts) for facts in waiting)
        for member in self._members:
            free = room - len(member.markets)
            if waiting and free > 0:
                member.take(waiting[:free])
                waiting = waiting[free:]
        for start in range(0, len(waiting), room):
            name = f"{self.recorder.prefix}/{self.venue.name}/{'poll-' if self._poller else ''}{self._numbers}"
            self._numbers += 1
            self._members.append(self._member(name, waiting[start : start + room]))

    def _room(self) -> int:
        if self._poller is not None:
            return self._poller.polling.markets_per_call
        return self.venue.markets_per_connection(self.recorder.settings)

    def _member(self, name: str, markets: Sequence[MarketFacts]) -> "_Connection | _Batch":
        session = self.venue.session(name, self.recorder.settings, self._credentials)
        if self._poller is not None:
            return _Batch(self, self._poller, name, session, markets)
        return _Connection(self, name, session, markets)

    def _poll(self, polling: Polling, client: RestClient) -> None:
        recorder, markets = self.recorder, list(self.markets.values())
        settings, clock, journal = recorder.settings, recorder.clock, recorder.journal
        self._poller = Poller(
            venue=self.venue,
            polling=polling,
            client=client,
            clock=clock,
            interval_s=settings.poll_interval_s,
            on_error=self.note,
        )
        now = clock.now_ns()
        name = f"{recorder.prefix}/{self.venue.name}/poll-trades"
        begin = max(now, journal.bounds[0])
        # One interval back: what traded since the last poll of the run before may stand in both, but not in neither.
        since = begin - round(settings.poll_interval_s * 1e9)
        session = self.venue.session(name, settings, self._credentials)
        self._trades = LiveTrades(journal, PolledTrades(session, journal.unkept, polling, since), name, "trades")
        self._trades.begin(name, now, markets)
        self._trades_task = [asyncio.create_task(self._poller.trades(self._trades, begin), name=name)]


class _Batch:
    """The markets that one request brings, polled again and again."""

    def __init__(
        self, stream: _Stream, poller: Poller, name: str, session: Session, markets: Sequence[MarketFacts]
    ) -> None:
        journal = stream.recorder.journal
        self._clock = stream.recorder.clock
        self.markets = {facts.market_id: facts for facts in markets}
        self.feed = LiveBooks(journal, PolledBooks(session, journal.unkept), name, "books")
        self.feed.begin(name, self._clock.now_ns(), markets)
        self.task = asyncio.create_task(poller.books(self.feed, self.markets), name=name)

    def take(self, markets: Sequence[MarketFacts]) -> None:
        """Poll these, too."""
        self.markets.update((facts.market_id, facts) for facts in markets)
        self.feed.subscribe(markets, self._clock.now_ns())

    def drop(self, market_ids: Sequence[str]) -> None:
        """Poll these no longer."""
        for market_id in market_ids:
            del self.markets[market_id]
        if market_ids:
            self.feed.unsubscribe(market_ids, self._clock.now_ns())

    async def end(self) -> int:
        """Poll no more; the time that it was live, ns."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        now = self._clock.now_ns()
        live = self.feed.live_until(now)
        self.feed.finish(now)
        return live


class _Connection:
    """One socket after the other, for one group of markets."""

    def __init__(
        self,
        stream: _Stream,
        name: str,
        session: Session,
        markets: Sequence[MarketFacts],
        kind: FeedKind = "stream",
    ) -> None:
        recorder = stream.recorder
        self.name = name
        self.markets = {facts.market_id: facts for facts in markets}
        self._stream = stream
        self._clock = recorder.clock
        self._session = session
        venue = stream.venue.name
        self.feed = LiveFeed(recorder.journal, session, name, lambda change: recorder.note_change(venue, change), kind)
        self._dials = 0
        self._connected = False
        self._commands: asyncio.Queue[Command] = asyncio.Queue()
        self._fetches: asyncio.Queue[FetchBooks] = asyncio.Queue()
        self._delivered = False
        self.task = asyncio.create_task(self.run(), name=name)

    def take(self, markets: Sequence[MarketFacts]) -> None:
        """Subscribe these, too; at once if there is a connection."""
        self.markets.update((facts.market_id, facts) for facts in markets)
        if self._connected:
            self._queue(self.feed.subscribe(markets, self._clock.now_ns()))

    def drop(self, market_ids: Sequence[str]) -> None:
        """Let go of these."""
        for market_id in market_ids:
            del self.markets[market_id]
        if self._connected and market_ids:
            self._queue(self.feed.unsubscribe(market_ids, self._clock.now_ns()))

    async def end(self) -> int:
        """Close the socket for good; the time that it was connected, ns."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        now = self._clock.now_ns()
        if self.feed.connected:
            self.feed.lost(now, "no market is left")
        return self.feed.live_until(now)

    async def run(self) -> None:
        """Dial, serve, and dial again with growing pauses; a connection that delivered starts over with short ones."""
        async for attempt in self._stream.recorder.retrying():
            with attempt:
                try:
                    await self._serve()
                except _WORTH_ANOTHER_DIAL as error:
                    self._stream.note(_words(error))
                    if self._delivered:
                        attempt.retry_state.attempt_number = 1
                    elif self._stream.in_maintenance:
                        attempt.retry_state.attempt_number = _MANY_TRIES
                    raise

    async def _serve(self) -> None:
        """One connection from dial to end; it always ends with an error that says why."""
        self._delivered = False
        self._commands, self._fetches = asyncio.Queue(), asyncio.Queue()
        await self._stream.recorder.journal.writable()
        async with self._dialled() as ws:
            self._dials += 1
            self._stream.dials += 1
            markets = list(self.markets.values())
            self._queue(self.feed.open(f"{self.name}.{self._dials}", self._clock.now_ns(), markets))
            self._connected = True
            self._say(logging.INFO, "connected, dial %d, %d markets", self._dials, len(markets))
            tasks = [asyncio.create_task(each) for each in self._work(ws)]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task in done:
                        task.result()
                raise _LostError(f"{self.name}: the venue closed the connection ({ws.close_code} {ws.close_reason})")
            except asyncio.CancelledError:
                # The capture ends, which is not a doubt about any book: the recorder closes the feed.
                await ws.close()
                raise
            except BaseException as error:
                self._say(logging.WARNING, "lost: %s", _words(error))
                doubt = "maintenance" if self._stream.in_maintenance else "disconnect"
                self.feed.lost(self._clock.now_ns(), _words(error), doubt)
                raise
            finally:
                self._connected = False
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _work(self, ws: ClientConnection) -> list[Coroutine[None, None, None]]:
        """What goes on while the connection lasts."""
        return [self._execute(ws), self._fetch(), self._tick(), self._read(ws)]

    @contextlib.asynccontextmanager
    async def _dialled(self) -> AsyncIterator[ClientConnection]:
        request = self._session.connect_request(wall_ms())
        # Keep-alives of the protocol are the sessions' business, and not every venue answers WebSocket pings: a
        # peer that vanished is found by TCP's own. Compression would halve what one process can take in.
        async with connect(
            request.url,
            additional_headers=dict(request.headers),
            compression=None,
            max_size=_MAX_FRAME,
            ping_interval=None,
            close_timeout=_CLOSE_TIMEOUT_S,
        ) as ws:
            _keep_alive(ws)
            yield ws

    async def _read(self, ws: ClientConnection) -> None:
        now_ns, receive = self._clock.now_ns, self.feed.receive
        async for frame in ws:
            recv_ns = now_ns()
            text = frame if isinstance(frame, str) else frame.decode("utf-8", "backslashreplace")
            self._delivered = True
            if commands := receive(text, recv_ns):
                self._queue(commands)

    def _say(self, level: int, message: str, *values: object) -> None:
        extra = {"venue": self._stream.venue.name, "connection_id": self.name}
        _log.log(level, f"%s: {message}", self.name, *values, extra=extra)

    async def _tick(self) -> None:
        journal = self._stream.recorder.journal
        while True:
            await asyncio.sleep(_TICK_S)
            if journal.full:
                raise _LostError(f"{self.name}: {journal.message}")
            self._queue(self.feed.tick(self._clock.now_ns()))

    def _queue(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self._commands.put_nowait(command)

    async def _execute(self, ws: ClientConnection) -> None:
        """Do what the session asks for, in order."""
        while True:
            command = await self._commands.get()
            if isinstance(command, Send):
                self.feed.sent(_REDACTED if command.secret else command.frame, self._clock.now_ns())
                await ws.send(command.frame)
            elif isinstance(command, FetchBooks):
                self._fetches.put_nowait(command)
            elif isinstance(command, Reconnect):
                raise _LostError(f"{self.name}: {command.cause}")

    async def _fetch(self) -> None:
        """Fetch books one request after the other; what fails is asked for again by the session's deadlines."""
        stream = self._stream
        assert stream.client is not None
        while True:
            command = await self._fetches.get()
            self._say(logging.INFO, "fetches %d books: %s", len(command.market_ids), command.cause)
            facts = [stream.markets[market_id] for market_id in command.market_ids if market_id in stream.markets]
            try:
                books = await stream.venue.fetch_books(stream.client, facts)
            except (HttpStatusError, httpx.HTTPError, VenueError) as error:
                stream.note(_words(error))
                self._say(logging.WARNING, "books of %d markets cannot be fetched: %s", len(facts), _words(error))
                continue
            for market_id, body in books.items():
                self._queue(self.feed.rest_book(market_id, body, self._clock.now_ns()))


class _AccountConnection(_Connection):
    """The private channels of an own account; what they missed is asked for over REST after each dial."""

    _since_ns = 0

    def _work(self, ws: ClientConnection) -> list[Coroutine[None, None, None]]:
        return [*super()._work(ws), self._catch_up()]

    async def _catch_up(self) -> None:
        stream, now = self._stream, self._clock.now_ns()
        assert stream.client is not None
        try:
            told = await stream.venue.account(stream.client, now, self._since_ns or now - _ACCOUNT_LOOK_BACK_NS)
        except (ArbError, httpx.HTTPError) as error:
            stream.note(_words(error))
            self._say(logging.WARNING, "the account cannot be asked for: %s", _words(error))
        else:
            self._since_ns = now
            if told is not None:
                self.feed.account(told, self._clock.now_ns())
        await asyncio.Event().wait()


def _of_shard(markets: Sequence[Market], shard: tuple[int, int]) -> list[MarketFacts]:
    """The markets of one shard, chosen by a hash that is the same everywhere and always."""
    number, of = shard
    if not 0 <= number < of:
        raise ValueError(f"shard {number} of {of} does not exist; expected 0..{of - 1}")
    return [market.facts() for market in markets if zlib.crc32(market.market_id.encode()) % of == number]


def _words(error: BaseException) -> str:
    if isinstance(error, InvalidHandshake):
        return f"the venue refused the connection: {error}"
    return str(error) or type(error).__name__


def _keep_alive(ws: ClientConnection) -> None:
    raw = ws.transport.get_extra_info("socket")
    if raw is None:
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE:
        if hasattr(socket, name):
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
