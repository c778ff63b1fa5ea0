"""A client's socket as the exchange sees it: an outbox that keeps order, and counts of what was sent."""

import asyncio
from collections import Counter, deque

from aiohttp import web

from arb_pipeline.exchange.faults import Faults, OutFrame

__all__ = ["Connection"]

_FULL = 200_000
_BUSY = 2_000


class Connection:
    """One WebSocket connection.

    Frames are queued at once and written by :meth:`pump`, so that one slow client holds up no other.

    Attributes:
        label: ``kalshi-1``: venue and number.
        sent: frames sent by message type.
        log: the newest frames sent, if logging is on.
    """

    def __init__(
        self,
        request: web.Request,
        ws: web.WebSocketResponse,
        venue: str,
        label: str,
        faults: Faults,
        *,
        log_frames: int,
    ) -> None:
        self.ws = ws
        self.venue = venue
        self.label = label
        self.sent: Counter[str] = Counter()
        self.log: deque[str] = deque(maxlen=log_frames)
        self._request = request
        self._faults = faults
        self._outbox: deque[str] = deque()
        self._wake = asyncio.Event()
        self._calm = asyncio.Event()
        self._calm.set()

    def send(self, text: str, kind: str) -> None:
        """Queue a frame."""
        self.sent[kind] += 1
        if self.log.maxlen:
            self.log.append(text)
        self._outbox.append(text)
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
        outbox, wake = self._outbox, self._wake
        try:
            while True:
                while outbox:
                    await self.ws.send_str(outbox.popleft())
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
