"""The recorder: sockets of one capture run, its rows, and their way to the lake.

Sockets, timers and REST answers go to the journal and then to the sessions. An encoder beside the recorder turns the
journal into rows, as part files every few seconds; on the way out, whatever the reason, everything is flushed and the
partitions are merged. What a killed run left is finished by the next one of its shard.
"""

import asyncio
import contextlib
import dataclasses
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential, wait_random
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from arb_pipeline.capture.journal import Begun, slug
from arb_pipeline.capture.live import LiveFeed, RunJournal, begun_settings
from arb_pipeline.capture.summary import CaptureStatus, CaptureSummary, VenueSummary
from arb_pipeline.clock import Clock, datetime_from_ns, ns_from_datetime, wall_ms
from arb_pipeline.model import Command, FetchBooks, Market, MarketFacts, Reconnect, Send
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import Credentials, Venue
from arb_pipeline.venues.http import HttpStatusError, RestClient

__all__ = ["CaptureStatus", "CaptureSummary", "Recorder"]

_MAX_FRAME: Final = 64 << 20
_TICK_S: Final = 1.0
_CLOSE_TIMEOUT_S: Final = 2.0
_KEEP_ALIVE: Final = (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class _LostError(Exception):
    """A connection ended; the message says why."""


_WORTH_ANOTHER_DIAL: Final = (_LostError, OSError, TimeoutError, WebSocketException)


class Recorder:
    """Captures the books, trades and tickers of given markets until a window ends, a time is up, or it is stopped.

    Args:
        settings: endpoints, credentials, intervals.
        lake: where the rows go.
        clock: receive times and the window are its.
        run_id: names the run in rows and part files.
        markets: what to capture, by venue.
        window: keep what is received in [start, end); the run may start earlier and ends with the window. None: keep
            everything.
        shard: (k, n): capture the k-th of n parts of the markets.
        venues: the venues that ``markets`` may name.
        backoff_s: first and longest pause before dialling again, seconds.
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
    ) -> None:
        self._settings = settings
        self._lake = lake
        self._clock = clock
        self._run_id = run_id
        self._shard = shard
        self._writer = slug(run_id) + (f"-{shard[0]}of{shard[1]}" if shard[1] > 1 else "")
        self._window = None if window is None else (ns_from_datetime(window[0]), ns_from_datetime(window[1]))
        self._backoff_s = backoff_s
        self._venues = {name: venues[name] for name in markets}
        self._streams = [_Stream(self, venues[name], _of_shard(listed, shard)) for name, listed in markets.items()]
        self._started_ns = self._ended_ns = 0
        self._end_ns: int | None = None
        self._journal: RunJournal | None = None

    @property
    def journal(self) -> RunJournal:
        """The journal of the run, once it has begun."""
        assert self._journal is not None, "the run has not begun"
        return self._journal

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

    def retrying(self) -> AsyncRetrying:
        """Dialling again without end, by jittered exponential back-off."""
        first, longest = self._backoff_s
        return AsyncRetrying(
            wait=wait_exponential(multiplier=0.75 * first, max=longest) + wait_random(0, 0.5 * first),
            retry=retry_if_exception_type(_WORTH_ANOTHER_DIAL),
            reraise=True,
        )

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
            tasks = [task for stream in self._streams for task in await stream.start(stack)]
            try:
                if tasks:
                    reason = "failed"
                    self._journal.start()
                    reason = await self._watch(tasks, stop, on_progress, still_mine)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._ended_ns = self._clock.now_ns()
                if tasks:
                    await self._finish(reason)
        return CaptureSummary(
            run_id=self._run_id,
            exchange=self._lake.exchange_name,
            stop_reason=reason,
            started_at=datetime_from_ns(self._started_ns),
            ended_at=datetime_from_ns(self._ended_ns),
            venues=self._venue_summaries(self._ended_ns),
            key_conflicts=self._journal.report.conflicts,
            uncompacted=self._journal.report.uncompacted,
        )

    def _begin(self) -> RunJournal:
        now = self._started_ns = self._clock.now_ns()
        start, end = self._window or (None, None)
        if self._settings.max_seconds is not None:
            limit = max(now, start or now) + round(self._settings.max_seconds * 1e9)
            end = limit if end is None else min(end, limit)
        self._end_ns = end
        begun = Begun(
            self._run_id, self._shard, now, (start, end), self._lake.exchange_name, begun_settings(self._settings)
        )
        return RunJournal(self._settings, self._lake, self._venues, begun, self._writer)

    async def _watch(
        self,
        tasks: Sequence[asyncio.Task[None]],
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
                done, _ = await asyncio.wait(
                    {stopping, *tasks}, timeout=max(0.0, pause), return_when=asyncio.FIRST_COMPLETED
                )
                if stopping in done:
                    return "stopped"
                for task in done:
                    # Connections dial again for ever: one that ended has met a defect, which must not go unseen.
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

    async def _finish(self, reason: str) -> None:
        for stream in self._streams:
            for feed in stream.feeds:
                feed.finish(self._ended_ns)
        await self.journal.finish(self._ended_ns, reason)

    def _status(self) -> CaptureStatus:
        now = self._clock.now_ns()
        elapsed = (now - self._started_ns) / 1e9
        return CaptureStatus(run_id=self._run_id, elapsed_s=elapsed, venues=self._venue_summaries(now))

    def _venue_summaries(self, now: int) -> dict[str, VenueSummary]:
        # A run that came late has missed the beginning of its window: that is not covered, either.
        start = self._started_ns if self._window is None else self._window[0]
        length = min(now, self.journal.bounds[1]) - start
        return {stream.venue.name: stream.summary(now, length) for stream in self._streams}


class _Stream:
    """One venue's connections."""

    def __init__(self, recorder: Recorder, venue: Venue, markets: Sequence[MarketFacts]) -> None:
        self.recorder = recorder
        self.venue = venue
        self.markets = {facts.market_id: facts for facts in markets}
        self.feeds: list[LiveFeed] = []
        self.dials = 0
        self.message = ""
        self.client: RestClient | None = None

    async def start(self, stack: contextlib.AsyncExitStack) -> list[asyncio.Task[None]]:
        """Open the REST client and one task per connection; none if the venue cannot be streamed."""
        settings = self.recorder.settings
        credentials = self.venue.credentials(settings)
        if not self.venue.can_stream(credentials):
            self.message = f"skipped: {self.venue.name}'s WebSocket needs credentials, and none are set"
            return []
        groups = self.venue.connection_groups(list(self.markets.values()), settings)
        if not groups:
            self.message = "skipped: no market to capture"
            return []
        self.client = await stack.enter_async_context(self.venue.rest_client(settings, credentials))
        connections = [_Connection(self, number, group, credentials) for number, group in enumerate(groups)]
        self.feeds = [connection.feed for connection in connections]
        return [asyncio.create_task(connection.run(), name=connection.name) for connection in connections]

    def summary(self, now_ns: int, length_ns: int) -> VenueSummary:
        """The venue's figures so far."""
        live = sum(feed.live_until(now_ns) for feed in self.feeds)
        journal = self.recorder.journal
        return dataclasses.replace(
            journal.report.venues.get(self.venue.name, VenueSummary(venue=self.venue.name)),
            markets=len(self.markets) if self.feeds else 0,
            connections=len(self.feeds),
            reconnects=max(0, self.dials - len(self.feeds)),
            coverage=round(min(1.0, live / (length_ns * len(self.feeds))), 6) if self.feeds and length_ns > 0 else 0.0,
            message=journal.message or self.message,
        )


class _Connection:
    """One socket after the other, for one group of markets."""

    def __init__(
        self, stream: _Stream, number: int, markets: Sequence[MarketFacts], credentials: Credentials | None
    ) -> None:
        recorder = stream.recorder
        self.name = f"{recorder.prefix}/{stream.venue.name}/{number}"
        self._stream = stream
        self._clock = recorder.clock
        self._markets = markets
        self._session = stream.venue.session(self.name, recorder.settings, credentials)
        self.feed = LiveFeed(recorder.journal, self._session, self.name)
        self._dials = 0
        self._commands: asyncio.Queue[Command] = asyncio.Queue()
        self._fetches: asyncio.Queue[FetchBooks] = asyncio.Queue()
        self._delivered = False

    async def run(self) -> None:
        """Dial, serve, and dial again with growing pauses; a connection that delivered starts over with short ones."""
        async for attempt in self._stream.recorder.retrying():
            with attempt:
                try:
                    await self._serve()
                except _WORTH_ANOTHER_DIAL as error:
                    self._stream.message = _words(error)
                    if self._delivered:
                        attempt.retry_state.attempt_number = 1
                    raise

    async def _serve(self) -> None:
        """One connection from dial to end; it always ends with an error that says why."""
        self._delivered = False
        self._commands, self._fetches = asyncio.Queue(), asyncio.Queue()
        await self._stream.recorder.journal.writable()
        async with self._dialled() as ws:
            self._dials += 1
            self._stream.dials += 1
            self._queue(self.feed.open(f"{self.name}.{self._dials}", self._clock.now_ns(), self._markets))
            work = (self._execute(ws), self._fetch(), self._tick(), self._read(ws))
            tasks = [asyncio.create_task(each) for each in work]
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
                self.feed.lost(self._clock.now_ns(), _words(error))
                raise
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

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

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            if self._stream.recorder.journal.writer.full:
                raise _LostError(f"{self.name}: {self._stream.recorder.journal.message}")
            self._queue(self.feed.tick(self._clock.now_ns()))

    def _queue(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self._commands.put_nowait(command)

    async def _execute(self, ws: ClientConnection) -> None:
        """Do what the session asks for, in order."""
        while True:
            command = await self._commands.get()
            if isinstance(command, Send):
                self.feed.sent(command.frame, self._clock.now_ns())
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
            facts = [stream.markets[market_id] for market_id in command.market_ids if market_id in stream.markets]
            try:
                books = await stream.venue.fetch_books(stream.client, facts)
            except (HttpStatusError, httpx.HTTPError) as error:
                stream.message = _words(error)
                continue
            for market_id, body in books.items():
                self._queue(self.feed.rest_book(market_id, body, self._clock.now_ns()))


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
