"""A generated market played into a recording: the exchange's own frames, a set clock, and no sockets.

Frames are received so long after they were sent (:data:`LATENCY_NS`). What a venue or a connection does wrong on the
way is said in advance (:class:`Trouble`).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush
from itertools import count
from typing import Any

from arb_pipeline.capture.polling import PolledBooks
from arb_pipeline.capture.rows import RowWriter
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.exchange import Exchange, GeneratedSource
from arb_pipeline.exchange.connections import Connection, SentLog
from arb_pipeline.exchange.kalshi_feed import KalshiClient
from arb_pipeline.exchange.polymarket_feed import PolymarketClient
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.exchange.source import Action, BookRefresh, LevelChange
from arb_pipeline.model import MarketFacts, Side
from arb_pipeline.recordings import Frame
from arb_pipeline.storage.lake import Lake
from arb_pipeline.venues.kalshi.session import KalshiSession

__all__ = ["LATENCY_NS", "Change", "Played", "Trouble", "play"]

LATENCY_NS = {"kalshi": 7_000_123, "polymarket": 19_000_456}
_LIFE = {"kalshi": '{"id":9,"type":"ok","msg":[]}', "polymarket": "PONG"}
_SECOND = 1_000_000_000
_POLL_NS = 3 * _SECOND

Tamper = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Change:
    """A level of a market in its own YES terms (1e-4 dollars, 1e-6 contracts) from its receipt on."""

    recv_ns: int
    market_id: str
    side: Side
    price: int
    size: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong around a planted episode, so that all of it lies in doubt.

    Attributes:
        kind: ``gap`` (Kalshi frame lost before it opens, book asked for after it), ``hash`` (Polymarket's hashes are
            wrong while it lasts), ``down`` (Polymarket's connection is cut before it and dialled after it) or ``stale``
            (Kalshi is polled, and not before and while it lasts).
    """

    kind: str
    market_id: str
    opens_ns: int
    closes_ns: int

    def around(self, at_ns: int, before_ns: int = 0, after_ns: int = 0) -> bool:
        """Whether a time of playback lies within it, widened."""
        return self.opens_ns - before_ns <= at_ns <= self.closes_ns + after_ns


@dataclass
class Played:
    """What was played.

    Attributes:
        frames: by venue, in the order of receipt.
        polled: (time, ticker, answer) of the polled markets.
        changes: of all books, in the order of receipt.
        truth: the exchange's truth with its wall times.
    """

    start_ns: int
    end_ns: int
    frames: dict[str, list[Frame]] = field(default_factory=lambda: {"kalshi": [], "polymarket": []})
    polled: list[tuple[int, str, bytes]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    truth: dict[str, Any] = field(default_factory=dict)

    def received(self, until_ns: int) -> dict[str, list[Frame]]:
        """The frames received before a time, at which every connection that lives gives a last sign of life."""
        told: dict[str, list[Frame]] = {}
        for venue, frames in self.frames.items():
            told[venue] = [frame for frame in frames if frame.recv_ns < until_ns]
            seen = {frame.conn for frame in told[venue]}
            lives = {frame.conn for frame in frames if frame.recv_ns >= until_ns} & seen | {"main"}
            told[venue] += [Frame(until_ns, label, _LIFE[venue]) for label in sorted(lives)]
        return told

    def write_polled(self, lake: Lake, until_ns: int) -> None:
        """Write what was polled up to a time, as a capture of that length would have."""
        rows = RowWriter("polled", self.start_ns, exchange=lake.exchange_name)
        polled: dict[str, PolledBooks] = {}
        for at_ns, ticker, body in (poll for poll in self.polled if poll[0] <= until_ns):
            if ticker not in polled:
                name = f"{ticker}/polled"
                polled[ticker] = PolledBooks(KalshiSession(name), rows)
                polled[ticker].begin(name, at_ns, [MarketFacts(venue="kalshi", market_id=ticker)])
            polled[ticker].answer({ticker: body}, at_ns)
        for books in polled.values():
            books.finish(until_ns, "end")
        for (name, partition), part in rows.drain().tables().items():
            lake.write_part(name, partition, part, "polled")


class _Line(Connection):
    """A connection without a socket."""

    def __init__(self, venue: str, label: str, receive: Callable[[str, str, str], None]) -> None:
        self.venue = venue
        self.sent = SentLog(label, keep=0)
        self.tamper: Tamper | None = None
        self._receive = receive

    def send(self, text: str, kind: str) -> None:
        """Deliver a frame."""
        told = text if self.tamper is None else self.tamper(text)
        if told is not None:
            self._receive(self.venue, self.sent.label, told)

    def send_data(self, text: str, kind: str, market_id: str) -> None:
        """Deliver a frame."""
        self.send(text, kind)


class _Playback:
    def __init__(
        self, source: GeneratedSource, start: datetime, troubles: Sequence[Trouble], key: ThrowAwayKey
    ) -> None:
        self.source = source
        self.troubles = troubles
        self.start_ns = self.now_ns = ns_from_datetime(start)
        self.played = Played(self.start_ns, self.start_ns)
        self.exchange = Exchange(source, wall_ns=lambda: self.now_ns, key=key)
        self.polled = {trouble.market_id for trouble in troubles if trouble.kind == "stale"}
        self.unseen: dict[str, set[tuple[Side, int]]] = {}
        """Markets of which nobody is told, and their levels that have changed since."""
        self.lost: tuple[str, Side, int] | None = None
        """The level of which a change was lost on the way."""
        self.losing = False
        self.moving: Action | None = None
        self.agenda: list[tuple[int, int, Callable[[], None]]] = []
        self.order = count()

    def run(self) -> Played:
        """Everything, to the end of the source."""
        exchange = self.exchange
        exchange.player.started_wall_ns = self.now_ns
        of_their_own = {trouble.market_id: trouble for trouble in self.troubles if trouble.kind != "hash"}
        kalshi = [name for name in exchange.kalshi.markets if name not in {*exchange.kalshi.hidden, *of_their_own}]
        polymarket = [
            name for name in exchange.polymarket.markets if name not in {*exchange.polymarket.hidden, *of_their_own}
        ]
        self._dial_kalshi("main", kalshi)
        main = self._dial_polymarket("main", polymarket)
        for trouble in self.troubles:
            getattr(self, f"_{trouble.kind}")(trouble, main)
        for at_ns, action in self.source.timeline():
            self._until(at_ns)
            self.moving = action
            exchange.player._play(action)
            if isinstance(action, LevelChange):
                self._note(action)
        played = self.played
        played.end_ns = self.now_ns + max(LATENCY_NS.values())
        played.truth = exchange.truth()
        for frames in played.frames.values():
            frames.sort(key=lambda frame: frame.recv_ns)
        played.changes.sort(key=lambda change: change.recv_ns)
        return played

    def _note(self, action: LevelChange) -> None:
        """Note when a change is received."""
        level = action.side, action.price
        if action.market_id in self.unseen:
            self.unseen[action.market_id].add(level)
        elif self.losing:
            self.losing = False
        else:
            self._see(action.market_id, level, action.size)

    def _see(self, market_id: str, level: tuple[Side, int], size: int | None = None) -> None:
        """A level is told of, by default as it is now."""
        kalshi = self.exchange.kalshi.markets.get(market_id)
        market = kalshi or self.exchange.polymarket.markets[market_id]
        side, price = level
        if size is None:
            size = (market.book.bids if side == "bid" else market.book.asks).get(price, 0)
        delay_ns = 0 if market_id in self.polled else LATENCY_NS["kalshi" if kalshi else "polymarket"]
        self.played.changes.append(Change(self.now_ns + delay_ns, market_id, side, price, size))

    def _see_all(self, market_id: str) -> None:
        """A book is told of as it is now."""
        levels = self.unseen[market_id]
        for level in sorted(levels):
            self._see(market_id, level)
        levels.clear()

    def _until(self, at_ns: int) -> None:
        """Let time pass, and what is due by then happen."""
        while self.agenda and self.agenda[0][0] <= at_ns:
            due_ns, _, step = heappop(self.agenda)
            self.now_ns = self.start_ns + due_ns
            step()
        self.now_ns = self.start_ns + at_ns

    def _at(self, at_ns: int, step: Callable[[], None]) -> None:
        heappush(self.agenda, (at_ns, next(self.order), step))

    def _receive(self, venue: str, label: str, text: str) -> None:
        self.played.frames[venue].append(Frame(self.now_ns + LATENCY_NS[venue], label, text))

    def _dial_kalshi(self, label: str, tickers: Sequence[str]) -> tuple[KalshiClient, _Line]:
        line = _Line("kalshi", label, self._receive)
        client = KalshiClient(line)
        self.exchange.kalshi.clients.append(client)
        params = {"channels": ["orderbook_delta", "trade"], "market_tickers": list(tickers)}
        self.exchange.kalshi.command(client, json.dumps({"id": 1, "cmd": "subscribe", "params": params}))
        return client, line

    def _dial_polymarket(self, label: str, markets: Sequence[str]) -> tuple[PolymarketClient, _Line]:
        line = _Line("polymarket", label, self._receive)
        client = PolymarketClient(line)
        self.exchange.polymarket.clients.append(client)
        tokens = [token for name in markets for token in self.exchange.polymarket.markets[name].tokens]
        self.exchange.polymarket.receive(client, json.dumps({"type": "market", "assets_ids": tokens}))
        return client, line

    # --- troubles --------------------------------------------------------------------------------------------

    def _gap(self, trouble: Trouble, _main: object) -> None:
        client, line = self._dial_kalshi(trouble.kind, [trouble.market_id])

        def lose_one(text: str) -> str | None:
            now_ns, action = self.now_ns - self.start_ns, self.moving
            early = trouble.opens_ns - 4 * _SECOND <= now_ns < trouble.opens_ns
            if early and self.lost is None and isinstance(action, LevelChange):
                self.lost, self.losing = (action.market_id, action.side, action.price), True
                return None
            return text

        def ask() -> None:
            assert self.lost is not None, "nothing was sent before the episode opened"
            params = {"sids": [1], "market_tickers": [trouble.market_id], "action": "get_snapshot"}
            message = {"id": 2, "cmd": "update_subscription", "params": params}
            self.exchange.kalshi.command(client, json.dumps(message))
            market_id, side, price = self.lost
            self._see(market_id, (side, price))

        line.tamper = lose_one
        self._at(trouble.closes_ns + 700_000_000, ask)

    def _hash(self, trouble: Trouble, main: tuple[PolymarketClient, _Line]) -> None:
        def falsify(text: str) -> str:
            if not trouble.around(self.now_ns - self.start_ns) or trouble.market_id not in text:
                return text
            message = json.loads(text)
            for entry in message.get("price_changes", [message]):
                if "hash" in entry:
                    entry["hash"] = entry["hash"][::-1]
            return json.dumps(message)

        main[1].tamper = falsify
        refresh = BookRefresh(trouble.market_id)
        self._at(trouble.closes_ns + 500_000_000, lambda: self.exchange.polymarket.refresh(refresh))

    def _down(self, trouble: Trouble, _main: object) -> None:
        client, _ = self._dial_polymarket("down-1", [trouble.market_id])

        def cut() -> None:
            self.exchange.polymarket.forget(client)
            self.unseen[trouble.market_id] = set()

        def dial_again() -> None:
            self._dial_polymarket("down-2", [trouble.market_id])
            self._see_all(trouble.market_id)
            del self.unseen[trouble.market_id]

        self._at(trouble.opens_ns - _SECOND, cut)
        self._at(trouble.closes_ns + _SECOND, dial_again)

    def _stale(self, trouble: Trouble, _main: object) -> None:
        market = self.exchange.kalshi.markets[trouble.market_id]
        self.unseen[trouble.market_id] = set()

        def poll() -> None:
            at_ns = self.now_ns - self.start_ns
            if not trouble.around(at_ns, before_ns=6 * _SECOND):
                yes, no = market.ladders()
                body = {"ticker": market.ticker, "orderbook_fp": {"yes_dollars": yes, "no_dollars": no}}
                self.played.polled.append((self.now_ns, market.ticker, json.dumps(body).encode()))
                self._see_all(trouble.market_id)
            self._at(at_ns + _POLL_NS, poll)

        poll()


def play(source: GeneratedSource, start: datetime, troubles: Sequence[Trouble], key: ThrowAwayKey) -> Played:
    """Play a source to its end, which it must have, from ``start`` on."""
    return _Playback(source, start, troubles, key).run()
