"""The fuzzer: the local exchange without its sockets, a capture feed as its client, and damage in between.

Every lane is one connection of one venue after the other. The exchange answers whatever the session asks for, so that
books recover and are put at risk again. After each undamaged frame about a book, a book that its session calls in sync
must be the true one:

- Kalshi: the book of :class:`KalshiReference`, which in turn must be the exchange's unless a valid forgery is in it;
- Polymarket: the exchange's own, because every frame proves its book by hash. A mismatch right after a trade may be
  pending (the venue's hash runs ahead of the trade), but never beyond its second.
"""

import json
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from random import Random

from arb_pipeline.capture.feed import Feed
from arb_pipeline.capture.rows import RowWriter
from arb_pipeline.exchange import Exchange, GeneratedSource, RecordingSource, Source
from arb_pipeline.exchange.connections import Connection, SentLog
from arb_pipeline.exchange.kalshi_feed import KalshiClient
from arb_pipeline.exchange.polymarket_feed import PolymarketClient
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.exchange.source import (
    Action,
    BookRefresh,
    Closed,
    KalshiFrame,
    LevelChange,
    PolymarketFrame,
    Reopened,
    TradePrint,
)
from arb_pipeline.model import (
    Anomaly,
    Command,
    FetchBooks,
    GapOpened,
    MarketFacts,
    OrderBook,
    Output,
    Reconnect,
    Send,
    Side,
)
from arb_pipeline.recordings import Recording
from arb_pipeline.units import parse_price, parse_size
from arb_pipeline.venues.kalshi.session import KalshiSession
from arb_pipeline.venues.polymarket.session import PolymarketSession
from arb_pipeline_tests.fuzzing.mutations import MUTATIONS, Context, Text
from arb_pipeline_tests.fuzzing.reference import KalshiReference

__all__ = ["Finding", "Result", "fuzz"]

_MS = 1_000_000
_S = 1_000_000_000
_START = 1_794_302_400 * _S
_DAY = date(2026, 11, 10)
_MARKETS = 4
_STREAM = 1_500
"""Mutations on one connection before the next one is dialled."""
_BATCH = 1_000
_MOST_FINDINGS = 5
_REORDERED = ("lost", "twice", "late")


@dataclass(frozen=True)
class Finding:
    """Something that must not happen, with the last mutated frame before it."""

    what: str
    lane: str
    step: int
    mutation: str
    frame: str
    detail: str
    delivered: str


@dataclass
class Result:
    """What came of a run."""

    seed: int
    frames: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    forged: int = 0
    gaps: int = 0
    connections: int = 0
    rows: int = 0
    compared: int = 0
    """Comparisons of a book in sync with the true one."""
    seconds: float = 0.0
    lanes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def mutations(self) -> int:
        """Frames that were mutated."""
        return self.kinds.total()

    def count(self, what: str) -> int:
        """Findings of a kind."""
        return sum(finding.what == what for finding in self.findings)

    def table(self) -> str:
        """The result for people."""
        lines = [f"seed {self.seed}, lanes: {', '.join(self.lanes)}", ""]
        lines += [f"  {kind:<16}{number:>9,}" for kind, number in sorted(self.kinds.items())]
        totals = {
            "mutated frames": f"{self.mutations:,}",
            "good frames": f"{self.frames - self.mutations:,}",
            "refused with an example": f"{self.refused:,}",
            "valid forgeries": f"{self.forged:,}",
            "gaps opened": f"{self.gaps:,}",
            "connections": f"{self.connections:,}",
            "rows written": f"{self.rows:,}",
            "books compared": f"{self.compared:,}",
            "exceptions": str(self.count("exception")),
            "silent corruptions": str(self.count("silent corruption")),
            "uncounted refusals": str(self.count("uncounted")),
            "seconds": f"{self.seconds:.1f}",
        }
        lines += ["", *(f"  {name:<24}{value:>12}" for name, value in totals.items())]
        for finding in self.findings:
            lines += [
                "",
                f"FAILED: {finding.what} in {finding.lane}, seed {self.seed}, step {finding.step}: {finding.detail}",
                f"  last mutation ({finding.mutation}): {finding.frame[:2000]}",
                f"  shown by: {finding.delivered[:500]}",
            ]
        return "\n".join(lines)


class _FoundError(Exception):
    """Ends a stream that failed; the rest of it would only follow from that."""


class _Line(Connection):
    """A socket that only collects."""

    def __init__(self) -> None:
        self.venue = ""
        self.sent = SentLog("line-1", keep=0)
        self.frames: deque[str] = deque()

    def send(self, text: str, kind: str) -> None:
        """Collect a frame."""
        self.frames.append(text)

    def send_data(self, text: str, kind: str, market_id: str) -> None:
        """Collect a frame."""
        self.frames.append(text)


class _OfflineExchange(Exchange):
    """An exchange on a clock that the fuzzer sets."""

    def __init__(self, source: Source, key: ThrowAwayKey) -> None:
        self.now_ns = _START
        super().__init__(source, key=key)

    def _now_ms(self) -> int:
        return self.now_ns // _MS


class _Lane(ABC):
    """One venue's connections, one after the other, on an exchange that goes on."""

    venue: str

    def __init__(self, name: str, source: Source, key: ThrowAwayKey, result: Result, frame_type: type) -> None:
        self.name = name
        self.rng = Random(f"{result.seed} {name}")
        self.result = result
        self.exchange = _OfflineExchange(source, key)
        self.recorded: Iterator[Action] = (action for _, action in source.timeline() if isinstance(action, frame_type))
        self.markets = self._choose()
        self.rows = RowWriter(name, _START)
        self.line = _Line()
        self.past = ""
        self.mutation = self.mutated = ""
        self.delivered: Text = ""
        self.ticked_ns = _START
        self.step = 0
        self.dials = 0
        self.held: str | None = None

    # --- what venues differ in -------------------------------------------------------------------------------

    @abstractmethod
    def _choose(self) -> list[MarketFacts]: ...

    @abstractmethod
    def _session(self) -> KalshiSession | PolymarketSession: ...

    @abstractmethod
    def _dial(self) -> None: ...

    @abstractmethod
    def _hang_up(self) -> None: ...

    @abstractmethod
    def _send(self, text: str) -> None: ...

    @abstractmethod
    def _book(self, market_id: str) -> OrderBook: ...

    @abstractmethod
    def _rest(self, market_id: str) -> str: ...

    @abstractmethod
    def _judge(self, text: Text, outputs: list[Output], *, good: bool) -> None: ...

    @abstractmethod
    def _trades(self, market_id: str, side: Side, price: int, size: int) -> list[Action]: ...

    # --- the stream ------------------------------------------------------------------------------------------

    def run(self, mutations: int) -> None:
        """Damage this many frames."""
        done = self.result.mutations
        while (left := mutations - (self.result.mutations - done)) > 0 and not self._gave_up():
            try:
                self._stream(min(left, _STREAM))
            except _FoundError:
                pass
            except Exception:
                self._find("exception", traceback.format_exc(limit=-4))

    def _find(self, what: str, detail: str) -> None:
        self.result.findings.append(
            Finding(what, self.name, self.step, self.mutation, self.mutated, detail, str(self.delivered))
        )

    def fail(self, what: str, detail: str) -> None:
        """Note a finding and end the stream."""
        self._find(what, detail)
        raise _FoundError

    def _gave_up(self) -> bool:
        return len(self.result.findings) >= _MOST_FINDINGS

    def _stream(self, mutations: int) -> None:
        self.feed = Feed(self._session(), self.rows)
        self.held = None
        self._open()
        goal = self.result.mutations + mutations
        while self.result.mutations < goal:
            # Storms wreck the books, calms let them recover.
            share = self.rng.choice([0.9, 0.5, 0.1])
            for _ in range(self.rng.randint(5, 25)):
                self._move(share)
            for _ in range(self.rng.randint(10, 80)):
                self._move(0.0)
        self._settle()
        self.feed.lost(self.exchange.now_ns, "end")
        self.feed.finish(self.exchange.now_ns, "end")
        self._hang_up()
        self._write()

    def _open(self) -> None:
        self.dials += 1
        self.result.connections += 1
        self.line = _Line()
        self._dial()
        now = self.exchange.now_ns
        self._obey(self.feed.open(f"{self.name}-{self.dials}", now, self.markets))

    def _move(self, share: float) -> None:
        """The market moves; what the venue sends about it is delivered, some of it damaged."""
        self.step += 1
        self._pass(int(self.rng.expovariate(1 / 250) * _MS) + 1)
        for action in self._actions():
            self.exchange.player._play(action)
            self._deliver(share)
            self._pass(self.rng.randint(0, 60) * _MS)
        if self.step % _BATCH == 0:
            self._write()

    def _pass(self, ns: int) -> None:
        self.exchange.now_ns += ns
        now = self.exchange.now_ns
        if now - self.ticked_ns >= _S:
            self.ticked_ns = now
            self.exchange.kalshi.tickers()
            self._obey(self.feed.tick(now))

    def _deliver(self, share: float) -> None:
        while self.line.frames:
            text = self.line.frames.popleft()
            if self.rng.random() < share:
                self._damage(text)
            else:
                self._receive(text, good=True)
                if self.held is not None:
                    held, self.held = self.held, None
                    self._receive(held, good=False)
            if self.rng.random() < 0.05:
                self.past = text

    def _damage(self, text: str) -> None:
        name = self.rng.choice([*MUTATIONS, *_REORDERED])
        if name in _REORDERED:
            self._note(name, text)
            if name == "twice":
                self._receive(text, good=True)
                self._receive(text, good=False)
            elif name == "late" and self.held is None:
                self.held = text
            return
        context = Context(
            [facts.market_id for facts in self.markets],
            [token for facts in self.markets for token in (facts.yes_token_id, facts.no_token_id) if token],
            self.past,
        )
        mutated = MUTATIONS[name](self.rng, text, context)
        if mutated is None or mutated == text:
            self._receive(text, good=True)
            return
        self._note(name, mutated)
        where = self.rng.choice(["instead", "before", "after"])
        if where == "after":
            self._receive(text, good=True)
        self._receive(mutated, good=False)
        if where == "before":
            self._receive(text, good=True)

    def _note(self, name: str, frame: Text) -> None:
        self.result.kinds[name] += 1
        self.mutation, self.mutated = name, frame if isinstance(frame, str) else repr(frame)

    def _receive(self, text: Text, *, good: bool) -> None:
        self.result.frames += 1
        self.delivered = text
        now = self.exchange.now_ns
        session = self.feed.session
        if isinstance(text, bytes) and self.rng.random() < 0.5:
            # As the recorder takes a binary frame.
            text = text.decode("utf-8", "backslashreplace")
        heard: list[Output] = []
        if isinstance(text, bytes):
            heard = session.receive(text, now)
            commands = self.feed.apply(heard, now)
        else:
            receive = session.receive

            def listen(frame: str | bytes, recv_ns: int) -> list[Output]:
                heard.extend(receive(frame, recv_ns))
                return heard

            session.receive = listen  # type: ignore[method-assign]
            try:
                commands = self.feed.receive(text, now)
            finally:
                del session.receive
        self._count(heard)
        self._judge(text, heard, good=good)
        self._obey(commands)

    def _count(self, outputs: Sequence[Output]) -> None:
        self.result.gaps += sum(isinstance(output, GapOpened) for output in outputs)

    def complained(self, text: Text, outputs: Sequence[Output]) -> None:
        """A frame that was not taken must be counted, with itself as the example."""
        anomalies = [output for output in outputs if isinstance(output, Anomaly)]
        if not anomalies or (text.strip() and not any(anomaly.example for anomaly in anomalies)):
            self.fail("uncounted", f"the frame was passed over without an anomaly or its example: {anomalies}")
        self.result.refused += 1

    def _obey(self, commands: Sequence[Command]) -> None:
        waiting = deque(commands)
        while waiting:
            command = waiting.popleft()
            if isinstance(command, Send):
                self._send(command.frame)
            elif isinstance(command, FetchBooks):
                for market_id in command.market_ids:
                    waiting.extend(self._answer(market_id))
            elif isinstance(command, Reconnect):
                self.feed.lost(self.exchange.now_ns, command.cause)
                self._hang_up()
                self.held = None
                self._open()
                return

    def _answer(self, market_id: str) -> list[Command]:
        """REST answers too may be damaged; of a market that it does not know, the venue has no book."""
        if market_id not in {facts.market_id for facts in self.markets}:
            return []
        body: Text = self._rest(market_id)
        if self.rng.random() < 0.2:
            name = self.rng.choice(list(MUTATIONS))
            assert isinstance(body, str)
            mutated = MUTATIONS[name](self.rng, body, Context([market_id], [], self.past))
            if mutated is not None:
                body = mutated
                self._note("REST body", body)
        raw = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
        return self.feed.rest_book(market_id, raw, self.exchange.now_ns)

    def _settle(self) -> None:
        """Let everything become quiet, then say something about each market: nothing wrong may be left in sync."""
        for _ in range(3):
            for facts in self.markets:
                self._pass(_S)
                book = self._book(facts.market_id)
                price = book.best_bid or 100
                self.exchange.player._play(
                    LevelChange(facts.market_id, "bid", price, book.bids.get(price, 0) + 1_000_000)
                )
                self._deliver(0.0)

    def _write(self) -> None:
        tables = self.rows.drain().tables()
        self.result.rows += sum(rows.num_rows for rows in tables.values())

    # --- what the market does --------------------------------------------------------------------------------

    def _actions(self) -> list[Action]:
        for action in self.recorded:
            return [action]
        facts = self.rng.choice(self.markets)
        market_id = facts.market_id
        book = self._book(market_id)
        chance = self.rng.random()
        if chance < 0.002:
            return [Closed(market_id), Reopened(market_id)]
        side: Side = self.rng.choice(["bid", "ask"])
        levels = book.bids if side == "bid" else book.asks
        if chance < 0.08 and levels:
            best = max(levels) if side == "bid" else min(levels)
            return self._trades(market_id, side, best, levels[best])
        if chance < 0.3 and levels:
            return [LevelChange(market_id, side, self.rng.choice(list(levels)), 0)]
        low, high = (100, (book.best_ask or 10_000) - 100) if side == "bid" else ((book.best_bid or 0) + 100, 9_900)
        if low > high:
            return [LevelChange(market_id, side, max(levels), 0)] if levels else []
        price = self.rng.randrange(low, high + 1, 100) // 100 * 100
        return [LevelChange(market_id, side, price, self.rng.randint(1, 50_000) * 10_000)]


class _KalshiLane(_Lane):
    venue = "kalshi"

    def _choose(self) -> list[MarketFacts]:
        held = [ticker for ticker, market in self.exchange.kalshi.markets.items() if market.book.bids]
        chosen = held[:_MARKETS] or list(self.exchange.kalshi.markets)[:_MARKETS]
        return [MarketFacts(venue="kalshi", market_id=ticker) for ticker in chosen]

    def _session(self) -> KalshiSession:
        return KalshiSession("fuzz", lifecycle=True, accept_unknown=False)

    def _dial(self) -> None:
        self.client = KalshiClient(self.line)
        self.exchange.kalshi.clients.append(self.client)
        self.reference = KalshiReference({facts.market_id for facts in self.markets})
        self.sid = 0

    def _hang_up(self) -> None:
        self.exchange.kalshi.forget(self.client)

    def _send(self, text: str) -> None:
        self.exchange.kalshi.command(self.client, text)
        held = self.client.held("orderbook_delta")
        if held is not None and held.sid != self.sid:
            self.sid = held.sid
            self.reference = KalshiReference(self.reference.tickers)

    def _book(self, market_id: str) -> OrderBook:
        return self.exchange.kalshi.markets[market_id].book

    def _rest(self, market_id: str) -> str:
        yes, no = self.exchange.kalshi.markets[market_id].ladders()
        return json.dumps({"orderbook_fp": {"yes_dollars": yes, "no_dollars": no}})

    def _trades(self, market_id: str, side: Side, price: int, size: int) -> list[Action]:
        taken = self.rng.randint(1, size // 10_000) * 10_000 if size >= 10_000 else size
        trade = TradePrint(market_id, price, taken, "no" if side == "bid" else "yes")
        return [LevelChange(market_id, side, price, size - taken), trade]

    def _judge(self, text: Text, outputs: list[Output], *, good: bool) -> None:
        due = self.reference.next
        refused, forged = self.reference.take(text, self.sid, good=good)
        self.result.forged += forged
        if refused:
            self.complained(text, outputs)
        if not good or self.reference.next == due:
            return
        session, reference = self.feed.session, self.reference
        for facts in self.markets:
            market_id = facts.market_id
            if not session.in_sync(market_id):
                continue
            book, sure = session.book(market_id), market_id in reference.sure
            assert book is not None
            if not sure:
                self.fail("silent corruption", f"{market_id} is in sync, though a frame that it needs was lost")
            mine = reference.books[market_id]
            if (book.bids, book.asks) != (mine["yes"], mine["no"]):
                wrong = (
                    set(book.bids.items()) ^ set(mine["yes"].items()),
                    set(book.asks.items()) ^ set(mine["no"].items()),
                )
                self.fail("silent corruption", f"{market_id} is in sync, but these levels differ: {wrong}")
            truth = self._book(market_id)
            if not self.line.frames and self.held is None and market_id not in reference.forged:
                assert (truth.bids, truth.asks) == (mine["yes"], mine["no"]), (
                    f"the reference is wrong about {market_id}"
                )
            self.result.compared += 1


class _PolymarketLane(_Lane):
    venue = "polymarket"

    def _choose(self) -> list[MarketFacts]:
        held = [market for market in self.exchange.polymarket.markets.values() if market.book.bids and market.book.asks]
        return [
            MarketFacts(
                venue="polymarket",
                market_id=market.condition_id,
                yes_token_id=market.tokens[0],
                no_token_id=market.tokens[1],
                tick=parse_price(market.tick_size),
                min_size=parse_size(market.min_order_size),
                neg_risk=market.neg_risk,
                last_trade_price=market.last_trade_price,
            )
            for market in held[:_MARKETS]
        ]

    def _session(self) -> PolymarketSession:
        return PolymarketSession("fuzz", "wss://localhost/ws/market")

    def _dial(self) -> None:
        self.client = PolymarketClient(self.line)
        self.exchange.polymarket.clients.append(self.client)

    def _hang_up(self) -> None:
        self.exchange.polymarket.forget(self.client)

    def _send(self, text: str) -> None:
        self.exchange.polymarket.receive(self.client, text)

    def _book(self, market_id: str) -> OrderBook:
        return self.exchange.polymarket.markets[market_id].book

    def _rest(self, market_id: str) -> str:
        return json.dumps(self.exchange.polymarket.markets[market_id].rest_book(0))

    def _trades(self, market_id: str, side: Side, price: int, size: int) -> list[Action]:
        taken = self.rng.randint(1, max(1, size // 10_000)) * 10_000
        trade = TradePrint(market_id, price, taken, "no" if side == "bid" else "yes", self.rng.randint(0, 1))
        return [LevelChange(market_id, side, price, max(0, size - taken)), BookRefresh(market_id), trade]

    def _judge(self, text: Text, outputs: list[Output], *, good: bool) -> None:
        if not good:
            if _is_unreadable(text):
                self.complained(text, outputs)
            return
        if self.line.frames or '"hash"' not in str(text):
            return
        session = self.feed.session
        assert isinstance(session, PolymarketSession)
        for facts in self.markets:
            market_id = facts.market_id
            if market_id not in str(text) or not session.in_sync(market_id):
                continue
            book, truth, doubt_ns = session.book(market_id), self._book(market_id), session._markets[market_id].doubt_ns
            assert book is not None
            if (book.bids, book.asks) != (truth.bids, truth.asks):
                if doubt_ns and self.exchange.now_ns < doubt_ns + 2 * _S:
                    continue
                wrong = (
                    set(book.bids.items()) ^ set(truth.bids.items()),
                    set(book.asks.items()) ^ set(truth.asks.items()),
                )
                self.fail("silent corruption", f"{market_id} is in sync, but these levels differ: {wrong}")
            self.result.compared += 1


def _is_unreadable(text: Text) -> bool:
    """Whether a frame is neither a documented Polymarket message nor a list of such, whatever its fields."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return text.strip() not in ("PONG", b"PONG")
    messages = message if isinstance(message, list) else [message]
    return not all(isinstance(each, dict) for each in messages)


def fuzz(mutations: int, seed: int, recordings: Path | None = None) -> Result:
    """Send about this many mutated frames, split over all lanes; the same arguments give the same run.

    Args:
        mutations: mutated frames in all.
        seed: everything random follows from it.
        recordings: a folder of recordings, each of which becomes a lane or two beside the generated ones.
    """
    began = time.perf_counter()
    result, key = Result(seed), ThrowAwayKey()
    lanes: list[_Lane] = []
    sources: dict[str, Source] = {"generated": GeneratedSource(seed, 8, 0.0, today=_DAY)}
    for path in sorted(recordings.iterdir()) if recordings is not None else ():
        if path.is_dir():
            sources[path.name] = RecordingSource(Recording.open(path))
    for name, source in sources.items():
        lanes.append(_KalshiLane(f"kalshi {name}", source, key, result, KalshiFrame))
        lanes.append(_PolymarketLane(f"polymarket {name}", source, key, result, PolymarketFrame))
    lanes = [lane for lane in lanes if lane.markets]
    result.lanes = [lane.name for lane in lanes]
    for number, lane in enumerate(lanes):
        lane.run((mutations - result.mutations) // (len(lanes) - number))
    result.seconds = time.perf_counter() - began
    return result
