"""Faults that strike at once: what they do to the sockets, the pace and the markets of an exchange."""

import asyncio
from collections.abc import Callable, Iterable

from arb_pipeline.exchange.connections import Connection
from arb_pipeline.exchange.faults import FAULTS, Fault, FaultError, Faults
from arb_pipeline.exchange.kalshi_feed import KalshiFeed
from arb_pipeline.exchange.markets import KalshiMarket, PolymarketMarket
from arb_pipeline.exchange.player import Player
from arb_pipeline.exchange.polymarket_feed import PolymarketFeed

__all__ = ["Strikes"]

_OVERFLOW = 25
_BURST_FACTOR = 10.0


class Strikes:
    """Takes fault requests for one exchange and lets those that strike at once strike.

    Args:
        connections: the open sockets.
    """

    def __init__(
        self,
        faults: Faults,
        kalshi: KalshiFeed,
        polymarket: PolymarketFeed,
        player: Player,
        connections: Callable[[], Iterable[Connection]],
    ) -> None:
        self._faults = faults
        self._kalshi = kalshi
        self._polymarket = polymarket
        self._player = player
        self._connections = connections
        self._timers: list[asyncio.TimerHandle] = []
        self._burst_end: asyncio.TimerHandle | None = None
        self._actions: dict[str, Callable[[Fault], None]] = {
            "disconnect": self._disconnect,
            "disconnect_storm": self._storm,
            "silence": self._silence,
            "sid_error": self._fail,
            "burst": self._burst,
            "close_market": self._close,
            "reopen_market": self._reopen,
        }

    def take(self, request: object) -> Fault:
        """Register a fault and, if it is of that kind, let it strike.

        Raises:
            FaultError: if the request is unusable, or the market is not in a state for it.
        """
        fault = self._faults.add(request)
        if FAULTS[fault.kind].point == "now":
            self._actions[fault.kind](fault)
        return fault

    def clear(self) -> int:
        """End all faults, those under way too; how many there were. What they did is not undone."""
        self.stop()
        self._player.hurry(1)
        return self._faults.clear()

    def stop(self) -> None:
        """Forget whatever was to happen later."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _later(self, seconds: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        self._timers = [timer for timer in self._timers if timer.when() > loop.time() and not timer.cancelled()]
        timer = loop.call_later(seconds, action)
        self._timers.append(timer)
        return timer

    def _struck_connections(self, fault: Fault) -> list[Connection]:
        """Open sockets of the fault's venue, or the one that it names."""
        label = fault.params.get("connection", "")
        return [
            connection
            for connection in self._connections()
            if fault.venue in {"", connection.venue} and label in {"", connection.sent.label}
        ]

    def _cut(self, fault: Fault) -> None:
        for connection in self._struck_connections(fault):
            connection.abort()
        fault.strike()

    def _disconnect(self, fault: Fault) -> None:
        self._cut(fault)
        fault.count = 0

    def _storm(self, fault: Fault) -> None:
        """The first wave comes at once, the others evenly over the time."""
        seconds, waves = fault.seconds_left, fault.count
        self._cut(fault)
        for wave in range(1, waves):
            self._later(seconds * wave / waves, lambda: self._cut(fault))

    def _silence(self, fault: Fault) -> None:
        for connection in self._struck_connections(fault):
            connection.silence = fault

    def _fail(self, fault: Fault) -> None:
        code, channel = fault.params.get("code", _OVERFLOW), fault.params.get("channel", "orderbook_delta")
        label = fault.params.get("connection", "")
        fault.struck = self._kalshi.fail(code, channel, fault.market_id, fault.count, label)
        fault.count = 0

    def _burst(self, fault: Fault) -> None:
        """A burst during another one takes its place."""
        if self._burst_end is not None:
            self._burst_end.cancel()
        self._player.hurry(fault.params.get("factor", _BURST_FACTOR))
        self._burst_end = self._later(fault.seconds_left, lambda: self._player.hurry(1))
        fault.struck = 1

    def _close(self, fault: Fault) -> None:
        market_id, result = fault.market_id, fault.params.get("result", "")
        if self._market(market_id).shelf is not None:
            raise self._refused(fault, f"market {market_id!r} is closed already; give an open one")
        fault.strike()
        if market_id in self._polymarket.markets:
            self._polymarket.close_market(market_id, result)
            return
        self._kalshi.close_market(market_id, result)
        if "apart" in fault.params:
            self._later(fault.params["apart"], lambda: self._kalshi.send_books(market_id))
        else:
            self._kalshi.send_books(market_id)

    def _reopen(self, fault: Fault) -> None:
        market = self._market(fault.market_id)
        if market.shelf is None:
            raise self._refused(fault, f"market {fault.market_id!r} is open; give a closed one")
        if market.settled:
            raise self._refused(fault, f"market {fault.market_id!r} is settled for good; close it without a result")
        fault.strike()
        if isinstance(market, KalshiMarket):
            self._kalshi.reopen_market(fault.market_id)
        else:
            self._polymarket.reopen_market(fault.market_id)

    def _market(self, market_id: str) -> KalshiMarket | PolymarketMarket:
        return self._kalshi.markets.get(market_id) or self._polymarket.markets[market_id]

    def _refused(self, fault: Fault, message: str) -> FaultError:
        self._faults.all.remove(fault)
        return FaultError(message)
