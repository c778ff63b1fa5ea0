"""A venue of a few lines whose frames are JSON lists, and an exchange that speaks it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

from arb_pipeline.model import (
    Anomaly,
    AnomalyKind,
    BookDelta,
    BookSnapshot,
    Event,
    FeeChange,
    FetchBooks,
    GapClosed,
    GapOpened,
    Level,
    Market,
    MarketChange,
    MarketFacts,
    MarketStatus,
    OrderBook,
    Output,
    Quote,
    Reconnect,
    Send,
    Source,
    Trade,
)
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.venues.base import ConnectRequest, Credentials, FeeModel, Progress, VenueError
from arb_pipeline.venues.fee_timeline import FeeChanges
from arb_pipeline.venues.http import RestClient


class FakeSession:
    """Frames: ["snap", market, bids, asks], ["delta", market, side, price, size], ["trade", market, id, price, size],
    ["gap", market, cause], ["change", market, kind], ["ask", command]. A market without a snapshot is ignored."""

    venue = "fake"

    def __init__(self, connection_id: str, url: str = "") -> None:
        self.connection_id = connection_id
        self.url = url
        self.books: dict[str, OrderBook] = {}
        self.doubted: set[str] = set()
        self.epochs: dict[str, int] = {}
        self.ticks = 0

    def connect_request(self, wall_ms: int) -> ConnectRequest:
        return ConnectRequest(self.url, {"x-signed-at": str(wall_ms)})

    def connected(self, now_ns: int) -> list[Output]:
        self.books.clear()
        return [Send(json.dumps(["hello"]))]

    def subscribe(self, markets: Sequence[MarketFacts], now_ns: int) -> list[Output]:
        return [Send(json.dumps(["subscribe", [facts.market_id for facts in markets]]))] if markets else []

    def unsubscribe(self, market_ids: Sequence[str], now_ns: int) -> list[Output]:
        for market_id in market_ids:
            self.books.pop(market_id, None)
        return [Send(json.dumps(["unsubscribe", list(market_ids)]))]

    def receive(self, frame: str | bytes, recv_ns: int) -> list[Output]:
        try:
            kind, market, *rest = json.loads(frame)
        except ValueError as error:
            return [Anomaly(AnomalyKind.MALFORMED_JSON, str(error), recv_ns, "", str(frame)[:500])]
        if kind == "snap":
            bids, asks = ([(price, size) for price, size in side] for side in rest)
            return self._snapshot(market, bids, asks, recv_ns)
        if kind == "trade":
            trade_id, price, size = rest
            return [Trade(market, trade_id, price, size, "yes", recv_ns, recv_ns - 5_000_000, None)]
        if kind == "change":
            return [MarketChange(market, "", rest[0], recv_ns, {})]
        if kind == "gap":
            self.doubted.add(market)
            return [GapOpened(market, rest[0], recv_ns)]
        if kind == "ask":
            return [Reconnect("told so")] if market == "reconnect" else [FetchBooks((market,), "told so")]
        side, price, size = rest
        book = self.books[market]
        before = book.top()
        book.set(side, price, size)
        outputs: list[Output] = [
            BookDelta(market, side, price, size, recv_ns, recv_ns - 5_000_000, None, self.epochs[market])
        ]
        return outputs + self._quote(market, before, recv_ns)

    def _snapshot(
        self, market: str, bids: list[Level], asks: list[Level], recv_ns: int, source: Source = "ws"
    ) -> list[Output]:
        book = self.books.get(market)
        before = book.top() if book else ("none",)
        book = self.books.setdefault(market, OrderBook())
        book.replace(bids, asks)
        self.epochs[market] = self.epochs.get(market, 0) + 1
        sides = tuple(bids), tuple(asks)
        epoch = self.epochs[market]
        outputs: list[Output] = [BookSnapshot(market, *sides, recv_ns, None, None, epoch, "initial", True, source)]
        if market in self.doubted:
            self.doubted.discard(market)
            outputs.append(GapClosed(market, recv_ns, "snapshot"))
        return outputs + self._quote(market, before, recv_ns, source)

    def _quote(self, market: str, before: object, recv_ns: int, source: Source = "ws") -> list[Output]:
        top = self.books[market].top()
        return [] if top == before else [Quote(market, *top, market not in self.doubted, recv_ns, None, None, source)]

    def rest_book(self, market_id: str, body: bytes, recv_ns: int) -> list[Output]:
        try:
            bids, asks = json.loads(body)
        except ValueError as error:
            return [Anomaly(AnomalyKind.MALFORMED_JSON, str(error), recv_ns, market_id, body.decode())]
        return self._snapshot(market_id, [tuple(b) for b in bids], [tuple(a) for a in asks], recv_ns, "rest")

    def tick(self, now_ns: int) -> list[Output]:
        self.ticks += 1
        return [Send(json.dumps(["tick", self.ticks]))]

    def disconnected(self, now_ns: int, cause: str) -> list[Output]:
        self.doubted |= self.books.keys()
        return [GapOpened(market, cause, now_ns) for market in self.books]

    def book(self, market_id: str) -> OrderBook | None:
        return self.books.get(market_id)

    def in_sync(self, market_id: str) -> bool:
        return market_id in self.books and market_id not in self.doubted

    def snapshots(self, now_ns: int) -> list[BookSnapshot]:
        return [
            BookSnapshot(
                market,
                tuple(book.bid_levels()),
                tuple(book.ask_levels()),
                now_ns,
                None,
                None,
                self.epochs[market],
                "hour",
                in_sync=self.in_sync(market),
            )
            for market, book in self.books.items()
        ]


class FakeVenue:
    """One venue named ``fake``."""

    name = "fake"
    history = None

    def __init__(
        self, url: str = "", *, streams: bool = True, group: int = 100, polling: "FakePolling | None" = None
    ) -> None:
        self.url = url
        self.streams = streams
        self.group = group
        self.polling = polling
        self.sessions: list[FakeSession] = []

    def credentials(self, settings: Settings) -> Credentials | None:
        return None

    def rest_client(self, settings: Settings, credentials: Credentials | None = None) -> RestClient:
        return RestClient("http://127.0.0.1:9")

    async def catalogue(
        self, client: RestClient, settings: Settings, progress: Progress | None = None
    ) -> AsyncIterator[Event]:
        yield Event(venue="fake", event_id="E", title="E", markets=tuple(markets("E-M")))

    def session(self, connection_id: str, settings: Settings, credentials: Credentials | None = None) -> FakeSession:
        self.sessions.append(FakeSession(connection_id, self.url))
        return self.sessions[-1]

    def account_session(self, connection_id: str, settings: Settings, credentials: Credentials | None) -> None:
        return

    async def account(self, client: RestClient, recv_ns: int, since_ns: int = 0) -> None:
        return

    def replay_session(self, connection_id: str, settings: Settings, meta: Mapping[str, object]) -> FakeSession:
        return self.session(connection_id, settings)

    def can_stream(self, credentials: Credentials | None) -> bool:
        return self.streams

    def maintenance(self, at: datetime) -> tuple[datetime, datetime] | None:
        return None

    def fees(self, market: Market, at: datetime, settings: Settings, changes: FeeChanges | None = None) -> FeeModel:
        raise AssertionError("no fees here")

    async def fee_changes(
        self, client: RestClient, settings: Settings, events: Sequence[Event], at: datetime, known: Sequence[FeeChange]
    ) -> list[FeeChange]:
        return []

    def markets_per_connection(self, settings: Settings) -> int:
        return self.group

    async def fetch_books(self, client: RestClient, markets: Sequence[MarketFacts]) -> dict[str, bytes]:
        if self.polling is not None:
            return await self.polling.books([facts.market_id for facts in markets])
        return {facts.market_id: b"[[[4000, 7000000]], []]" for facts in markets}

    def parse_event(self, record: Mapping[str, object]) -> Event:
        event_id = str(record["id"])
        return Event(venue="fake", event_id=event_id, title=event_id, markets=tuple(markets(event_id + "-M")))

    async def find_markets(self, client: RestClient, text: str) -> list[Market]:
        return markets(text)

    def recording_options(self) -> Mapping[str, object]:
        return {}


class FakePolling:
    """What the fake venue's REST answers: books by market, and trades as [id, market, seconds] or null (unusable)."""

    markets_per_call = 2

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.error: Exception | None = None
        self.calls: list[list[str]] = []
        self.pages: list[list[Any]] = [[]]
        self.asked: list[int] = []

    async def books(self, market_ids: list[str]) -> dict[str, bytes]:
        self.calls.append(market_ids)
        if self.error is not None:
            raise self.error
        return {market_id: self.answers[market_id] for market_id in market_ids if market_id in self.answers}

    async def trade_pages(self, client: RestClient, since_ns: int) -> AsyncIterator[bytes]:
        self.asked.append(since_ns)
        for page in list(self.pages):
            if page == ["broken"]:
                raise VenueError("the listing broke off")
            yield json.dumps(page).encode()

    def trades(self, page: bytes, recv_ns: int) -> list[Trade | Anomaly]:
        return [
            Anomaly(AnomalyKind.MISSING_FIELD, "no trade", recv_ns, "", "null")
            if item is None
            else Trade(item[1], item[0], 400_000_000, 1_000_000, "yes", recv_ns, item[2] * 10**9, None, "rest")
            for item in json.loads(page)
        ]


class PolledVenue(FakeVenue):
    """The fake venue where its stream cannot be used."""

    def __init__(self, polling: FakePolling | None = None) -> None:
        super().__init__(streams=False, polling=polling or FakePolling())


def markets(*ids: str, **changes: Any) -> list[Market]:
    """Open markets of the fake venue."""
    return [
        Market(
            **{
                "venue": "fake",
                "market_id": market_id,
                "event_id": market_id.partition("-")[0],
                "title": market_id,
                "status": MarketStatus.OPEN,
                "tick": 100,
                "min_size": 0,
                "size_step": 1,
                **changes,
            }
        )
        for market_id in ids
    ]


class FakeExchange:
    """A WebSocket server that plays scripts: one per connection, in order; the last one goes on for ever."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[list[Any]] = []
        self.headers: list[str] = []
        self.sockets: list[ServerConnection] = []
        self.changed = asyncio.Condition()

    async def _serve(self, ws: ServerConnection) -> None:
        assert ws.request is not None
        self.headers.append(ws.request.headers["x-signed-at"])
        self.sockets.append(ws)
        async for frame in ws:
            async with self.changed:
                self.received.append(json.loads(frame))
                self.changed.notify_all()

    async def subscribed(self, times: int = 1) -> ServerConnection:
        """Wait until so many subscriptions came in; the newest socket."""

        def there() -> bool:
            return [frame[0] for frame in self.received].count("subscribe") >= times

        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(there)
        return self.sockets[-1]


@asynccontextmanager
async def fake_exchange() -> AsyncIterator[FakeExchange]:
    exchange = FakeExchange()
    async with serve(exchange._serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        exchange.url = f"ws://127.0.0.1:{port}"
        yield exchange


def fold(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[dict[Any, Any], dict[Any, Any]]]:
    """Books (bids, asks) by market out of rows of ``book_events``, by the table's documented meaning alone."""
    books: dict[str, tuple[dict[Any, Any], dict[Any, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["market_id"], row["recv_ns"], row["ordinal"])):
        if row["kind"] == "clear":
            books[row["market_id"]] = ({}, {})
            continue
        side = books[row["market_id"]][row["side"] == "ask"]
        if row["size"]:
            side[row["price"]] = row["size"]
        else:
            side.pop(row["price"], None)
    return books


def every(lake: Lake, table: str) -> list[dict[str, Any]]:
    """All rows of a table."""
    rows: list[dict[str, Any]] = lake.read(table).to_pylist()
    return rows
