"""Plays a source's timeline into both feeds: paced, from the first subscription on."""

import asyncio
import time
from collections.abc import Callable, Iterable

from arb_pipeline.exchange.connections import Connection
from arb_pipeline.exchange.kalshi_feed import KalshiFeed
from arb_pipeline.exchange.polymarket_feed import PolymarketFeed
from arb_pipeline.exchange.source import (
    Action,
    BookRefresh,
    KalshiFrame,
    LevelChange,
    Listed,
    PolymarketFrame,
    Source,
    TradePrint,
)

__all__ = ["Player"]

_BATCH = 128
_SECOND = 1_000_000_000


class Player:
    """The one task that moves the market.

    Args:
        speed: playback seconds per second; infinity plays as fast as the clients read.
        connections: the open sockets, asked for whenever clients must be waited for.

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
        self._connections = connections

    async def run(self) -> None:
        """Wait for the first subscription, then play to the end."""
        await self.started.wait()
        begun, self.started_wall_ns = time.monotonic_ns(), time.time_ns()
        for at_ns, action in self._source.timeline():
            await self._wait_until(begun, at_ns)
            self.position_ns = at_ns
            self._play(action)
            self.played += 1
        self.finished.set()

    async def _wait_until(self, begun: int, at_ns: int) -> None:
        if self._speed == float("inf"):
            if self.played % _BATCH == 0:
                await asyncio.sleep(0)
                for connection in list(self._connections()):
                    await connection.calm()
            return
        ahead_ns = at_ns / self._speed - (time.monotonic_ns() - begun)
        if ahead_ns > 0:
            await asyncio.sleep(ahead_ns / _SECOND)
        elif self.played % _BATCH == 0:
            await asyncio.sleep(0)

    def _play(self, action: Action) -> None:
        match action:
            case KalshiFrame():
                self._kalshi.play(action)
            case PolymarketFrame():
                self._polymarket.play(action)
            case LevelChange():
                if action.mark:
                    self.marks[action.mark] = time.time_ns()
                self._feed(action.market_id).change_level(action)
            case TradePrint():
                self._feed(action.market_id).trade(action)
            case BookRefresh():
                self._polymarket.refresh(action)
            case Listed():
                self._feed(action.market_id).list_market(action.market_id)

    def _feed(self, market_id: str) -> KalshiFeed | PolymarketFeed:
        return self._kalshi if market_id in self._kalshi.markets else self._polymarket
