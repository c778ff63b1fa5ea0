"""Plays a source's timeline into both feeds: paced, from the first subscription on."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable

from arb_pipeline.exchange.connections import Connection
from arb_pipeline.exchange.kalshi_feed import KalshiFeed
from arb_pipeline.exchange.polymarket_feed import PolymarketFeed
from arb_pipeline.exchange.source import (
    Action,
    BookRefresh,
    Closed,
    KalshiFrame,
    LevelChange,
    Listed,
    PolymarketFrame,
    Reopened,
    Source,
    TradePrint,
)

__all__ = ["Player"]

_BATCH = 128
_SECOND = 1_000_000_000
_SHORT_S = 0.05


class Player:
    """The one task that moves the market.

    Args:
        speed: playback seconds per second; infinity plays as fast as the clients read.
        connections: the open sockets, asked for whenever clients must be waited for.
        wall_ns: the wall clock that marks are told in.

    Attributes:
        position_ns: playback time of the newest action played.
        played: number of actions played.
        started_wall_ns: wall time of playback start, None before.
        finished: set when the timeline is over.
        marks: wall time (ns) of each ``ID:open`` and ``ID:close`` that was played.
    """

    def __init__(
        self,
        source: Source,
        kalshi: KalshiFeed,
        polymarket: PolymarketFeed,
        speed: float,
        connections: Callable[[], Iterable[Connection]],
        *,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.position_ns = 0
        self.played = 0
        self.marks: dict[str, int] = {}
        self.started_wall_ns: int | None = None
        self.started = asyncio.Event()
        self.finished = asyncio.Event()
        self._source = source
        self._kalshi = kalshi
        self._polymarket = polymarket
        self._speed = speed
        self._rate = speed
        self._connections = connections
        self._wall_ns = wall_ns
        self._anchor: tuple[int, int] | None = None
        self._paced_anew = asyncio.Event()

    async def run(self) -> None:
        """Wait for the first subscription, then play to the end."""
        await self.started.wait()
        self._anchor, self.started_wall_ns = (time.monotonic_ns(), 0), self._wall_ns()
        for at_ns, action in self._source.timeline():
            await self._wait_until(at_ns)
            self.position_ns = at_ns
            self._play(action)
            self.played += 1
        self.finished.set()

    def hurry(self, factor: float) -> None:
        """Play ``factor`` times as fast as at the start from here on; 1 is the pace of the start."""
        if self._anchor is not None:
            now = time.monotonic_ns()
            self._anchor = (now, self._due_ns(now))
        self._rate = self._speed * factor
        self._paced_anew.set()

    def _due_ns(self, now: int) -> int:
        """Playback time that a monotonic time corresponds to."""
        wall_ns, played_ns = self._anchor or (now, 0)
        return played_ns + int((now - wall_ns) * self._rate)

    async def _wait_until(self, at_ns: int) -> None:
        if self._speed == float("inf"):
            if self.played % _BATCH == 0:
                await asyncio.sleep(0)
                for connection in list(self._connections()):
                    await connection.calm()
            return
        ahead_s = (at_ns - self._due_ns(time.monotonic_ns())) / self._rate / _SECOND
        if ahead_s <= 0 and self.played % _BATCH == 0:
            await asyncio.sleep(0)
        while ahead_s > 0:
            await self._sleep(ahead_s)
            ahead_s = (at_ns - self._due_ns(time.monotonic_ns())) / self._rate / _SECOND

    async def _sleep(self, seconds: float) -> None:
        """Sleep; a long sleep ends when the pace changes, a short one is not worth the watch."""
        if seconds < _SHORT_S:
            await asyncio.sleep(seconds)
            return
        self._paced_anew.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._paced_anew.wait(), seconds)

    def _play(self, action: Action) -> None:
        match action:
            case KalshiFrame():
                self._kalshi.play(action)
            case PolymarketFrame():
                self._polymarket.play(action)
            case LevelChange():
                if action.mark:
                    self.marks[action.mark] = self._wall_ns()
                self._feed(action.market_id).change_level(action)
            case TradePrint():
                self._feed(action.market_id).trade(action)
            case BookRefresh():
                self._polymarket.refresh(action)
            case Listed():
                self._feed(action.market_id).list_market(action.market_id)
            case Closed():
                self._close(action)
            case Reopened():
                self._feed(action.market_id).reopen_market(action.market_id)

    def _close(self, action: Closed) -> None:
        """Close a market; Kalshi's empty snapshot comes twice."""
        self._feed(action.market_id).close_market(action.market_id, action.result)
        if action.market_id in self._kalshi.markets:
            self._kalshi.send_books(action.market_id)

    def _feed(self, market_id: str) -> KalshiFeed | PolymarketFeed:
        return self._kalshi if market_id in self._kalshi.markets else self._polymarket
