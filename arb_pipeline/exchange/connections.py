"""A client's socket as the exchange sees it: an outbox that keeps order, and counts of what was sent."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable
from itertools import islice

from aiohttp import web

from arb_pipeline.exchange.faults import Fault, Faults, OutFrame
from arb_pipeline.exchange.source import Json

__all__ = ["Connection", "SentLog"]

_FULL = 200_000
_BUSY = 2_000


class SentLog:
    """What one connection was sent: how many frames by type, and the newest of them.

    Frames count when they are handed to the socket, so that one which a cut connection never wrote is in no log.

    Attributes:
        label: ``kalshi-1``: venue and number.
        frames: frames sent by message type.
        number: frames sent, and the number of the newest: the first is 1.
    """

    def __init__(self, label: str, *, keep: int) -> None:
        self.label = label
        self.frames: Counter[str] = Counter()
        self.number = 0
        self._keeps = keep > 0
        self._kept: deque[tuple[int, str, str]] = deque(maxlen=keep)

    def add(self, kind: str, text: str) -> None:
        """Take a frame that was just sent."""
        self.frames[kind] += 1
        self.number += 1
        if self._keeps:
            self._kept.append((time.time_ns(), kind, text))

    def drop_frames(self) -> None:
        """Forget the texts, keep the counts."""
        self._kept.clear()

    def entries(self, after: int, limit: int) -> list[Json]:
        """Up to ``limit`` kept frames with numbers above ``after``.

        Each is an object of ``number``, ``sent_ns`` (wall time), ``type`` and ``frame``. Where the first number
        is above ``after + 1``, those between are no longer kept.
        """
        first = self.number - len(self._kept) + 1
        skipped = max(after + 1 - first, 0)
        chosen: Iterable[tuple[int, str, str]] = islice(islice(self._kept, skipped, None), limit)
        return [
            {"number": number, "sent_ns": sent_ns, "type": kind, "frame": text}
            for number, (sent_ns, kind, text) in enumerate(chosen, first + skipped)
        ]


class Connection:
    """One WebSocket connection.

    Frames are queued at once and written by :meth:`pump`, so that one slow client holds up no other.

    Attributes:
        sent: what it was sent.
        silence: the fault that keeps everything but ``PONG`` from it, if there is one.
    """

    def __init__(
        self, request: web.Request, ws: web.WebSocketResponse, venue: str, sent: SentLog, faults: Faults
    ) -> None:
        self.ws = ws
        self.venue = venue
        self.sent = sent
        self.silence: Fault | None = None
        self._request = request
        self._faults = faults
        self._outbox: deque[tuple[str, str]] = deque()
        self._wake = asyncio.Event()
        self._calm = asyncio.Event()
        self._calm.set()

    @property
    def queued(self) -> int:
        """Frames that wait for the socket."""
        return len(self._outbox)

    def send(self, text: str, kind: str) -> None:
        """Queue a frame."""
        if self.silence is not None and kind != "PONG":
            if self.silence.on:
                self.silence.struck += 1
                return
            self.silence = None
        self._outbox.append((text, kind))
        self._wake.set()
        if len(self._outbox) > _BUSY:
            self._calm.clear()
        if len(self._outbox) > _FULL:
            # The client has stopped reading; nothing else would bound the memory.
            self.abort()

    def send_data(self, text: str, kind: str, market_id: str) -> None:
        """Queue a market-data frame, which faults may strike."""
        if not self._faults.on_frames:
            self.send(text, kind)
            return
        for struck in self._faults.frames(OutFrame(self.venue, market_id, kind, text)):
            self.send(struck, kind)

    async def pump(self) -> None:
        """Write the outbox until the socket is gone."""
        outbox, wake, sent = self._outbox, self._wake, self.sent
        try:
            while True:
                while outbox:
                    text, kind = outbox.popleft()
                    await self.ws.send_str(text)
                    sent.add(kind, text)
                self._calm.set()
                wake.clear()
                await wake.wait()
        except ConnectionError:
            self._calm.set()

    async def calm(self) -> None:
        """Wait until the outbox is short."""
        await self._calm.wait()

    def abort(self) -> None:
        """Cut the connection without a goodbye."""
        self._outbox.clear()
        self._calm.set()
        if self._request.transport is not None:
            self._request.transport.abort()
