"""The local exchange itself: both venues and the control routes on one port of 127.0.0.1."""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import WSMsgType, web

from arb_pipeline.clock import wall_ms
from arb_pipeline.exchange import kalshi_rest, polymarket_rest
from arb_pipeline.exchange.connections import Connection, SentLog
from arb_pipeline.exchange.faults import FAULTS, FaultError, Faults
from arb_pipeline.exchange.kalshi_account import AccountError
from arb_pipeline.exchange.kalshi_feed import KalshiClient, KalshiFeed
from arb_pipeline.exchange.markets import KalshiMarket, PolymarketMarket, encode
from arb_pipeline.exchange.player import Player
from arb_pipeline.exchange.polymarket_feed import PolymarketClient, PolymarketFeed
from arb_pipeline.exchange.polymarket_user import USER_WS_PATH, PolymarketUserFeed, UserClient
from arb_pipeline.exchange.recorded import market_tokens
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.exchange.source import InitialBook, Json, Source
from arb_pipeline.exchange.strikes import Strikes

__all__ = ["Exchange", "run_forever", "start"]

HEARTBEAT_S = 10.0
TICKER_S = 1.0
_PAST_LOGS = 100
_NULLABLE = frozenset({"tags", "settlement_sources", "price_ranges", "events", "series", "clobRewards"})

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Exchange:
    """A running exchange; use it as an async context manager or call :meth:`stop`.

    Attributes:
        port: the port on 127.0.0.1.
        name: what every run, table and report made from it must show.
        clock_offset_s: what ``ARB_CLOCK_OFFSET`` must be, seconds; 0 for a generated market.
        player: where playback stands.
    """

    def __init__(
        self,
        source: Source,
        *,
        speed: float = 1.0,
        sending_ts: bool = True,
        log_frames: int = 0,
        ticker_s: float = TICKER_S,
        key: ThrowAwayKey | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if not speed > 0:
            raise ValueError(f"speed {speed} does not move; give playback seconds per second, or infinity")
        self.port = 0
        self.name = f"local exchange: {source.name}"
        self._source = source
        self._key = key or ThrowAwayKey()
        self._wall_ns = wall_ns
        self._offset_ns = source.clock_offset_ns(wall_ns())
        self._log_frames = log_frames
        self._ticker_s = ticker_s
        self._numbers = {"kalshi": 0, "polymarket": 0, "polymarket-user": 0}
        self._open: dict[Connection, None] = {}
        self._past: list[SentLog] = []
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []

        hidden, books = source.hidden, source.books()
        kalshi_events = [_own(event) for event in source.kalshi_events()]
        polymarket_events = [_own(event) for event in source.polymarket_events()]
        kalshi_markets = _kalshi_markets(source, books, kalshi_events)
        polymarket_markets = _polymarket_markets(books, polymarket_events, self._now_ms())
        self.faults = Faults(
            {market.ticker for market in kalshi_markets} | {market.condition_id for market in polymarket_markets},
            {token for market in polymarket_markets for token in market.tokens},
        )
        self.kalshi = KalshiFeed(
            kalshi_markets,
            self._now_ms,
            self._subscribed,
            sending_ts=sending_ts,
            hidden=set(hidden),
            faults=self.faults,
        )
        self.polymarket = PolymarketFeed(
            polymarket_markets,
            self._now_ms,
            self._subscribed,
            hidden=set(hidden),
            faults=self.faults,
        )
        self.polymarket_user = PolymarketUserFeed(self.polymarket.markets, self._now_ms)
        self.player = Player(source, self.kalshi, self.polymarket, speed, lambda: self._open, wall_ns=wall_ns)
        self._strikes = Strikes(self.faults, self.kalshi, self.polymarket, self.player, lambda: self._open)
        self._kalshi_rest = kalshi_rest.KalshiRest(
            self.kalshi,
            kalshi_events,
            list(source.kalshi_series()),
            self._key,
            live_quotes=source.live_quotes,
            fee_changes=source.kalshi_fee_changes(),
        )
        self._polymarket_rest = polymarket_rest.PolymarketRest(
            self.polymarket, polymarket_events, live_quotes=source.live_quotes
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def listen(self, port: int = 0) -> None:
        """Bind to 127.0.0.1 and serve.

        Raises:
            OSError: if the port is taken.
        """
        app = web.Application(middlewares=[self._fault_middleware])
        app.add_routes(
            [
                *self._kalshi_rest.routes(),
                *self._polymarket_rest.routes(),
                web.get(kalshi_rest.WS_PATH, self._kalshi_socket),
                web.get(polymarket_rest.WS_PATH, self._polymarket_socket),
                web.get(USER_WS_PATH, self._polymarket_user_socket),
                web.post("/_exchange/account", self._account),
                web.get("/_exchange/status", self._status),
                web.get("/_exchange/truth", self._truth),
                web.get("/_exchange/book", self._book),
                web.get("/_exchange/sent", self._sent),
                web.get("/_exchange/fault", self._list_faults),
                web.post("/_exchange/fault", self._fault),
                web.post("/_exchange/fault/clear", self._clear_faults),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.port = self._runner.addresses[0][1]
        self._tasks = [asyncio.create_task(self.player.run()), asyncio.create_task(self._tick())]

    async def stop(self) -> None:
        """Close all sockets and the port."""
        self._strikes.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for connection in list(self._open):
            await connection.ws.close(code=1001, message=b"exchange stops")
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def clock_offset_s(self) -> float:
        """Seconds to add to the machine's clock to read the exchange's."""
        return self._offset_ns / 1e9

    def announcement(self) -> Json:
        """All that a client needs, as ``arb exchange`` prints it; holds the throw-away private key."""
        http, ws = f"http://127.0.0.1:{self.port}", f"ws://127.0.0.1:{self.port}"
        return {
            "name": self.name,
            "kalshi": {
                "rest_url": http + kalshi_rest.REST_PREFIX,
                "ws_url": ws + kalshi_rest.WS_PATH,
                "api_key_id": self._key.key_id,
                "private_key": self._key.pem,
            },
            "polymarket": {
                "gamma_url": http + polymarket_rest.GAMMA_PREFIX,
                "clob_url": http + polymarket_rest.CLOB_PREFIX,
                "ws_url": ws + polymarket_rest.WS_PATH,
                "user_ws_url": ws + USER_WS_PATH,
                "api_key": self.polymarket_user.api_key,
                "secret": self.polymarket_user.secret,
                "passphrase": self.polymarket_user.passphrase,
            },
            "control_url": http + "/_exchange",
            "clock_offset": self.clock_offset_s,
            "env": self.environment(),
        }

    def environment(self) -> dict[str, str]:
        """The settings that point the pipeline at this exchange."""
        http, ws = f"http://127.0.0.1:{self.port}", f"ws://127.0.0.1:{self.port}"
        environment = {
            "ARB_KALSHI_REST_URL": http + kalshi_rest.REST_PREFIX,
            "ARB_KALSHI_WS_URL": ws + kalshi_rest.WS_PATH,
            "ARB_POLYMARKET_GAMMA_URL": http + polymarket_rest.GAMMA_PREFIX,
            "ARB_POLYMARKET_CLOB_URL": http + polymarket_rest.CLOB_PREFIX,
            "ARB_POLYMARKET_WS_URL": ws + polymarket_rest.WS_PATH,
            "ARB_POLYMARKET_USER_WS_URL": ws + USER_WS_PATH,
            "POLY_API_KEY": self.polymarket_user.api_key,
            "POLY_API_SECRET": self.polymarket_user.secret,
            "POLY_PASSPHRASE": self.polymarket_user.passphrase,
            "KALSHI_API_KEY_ID": self._key.key_id,
            "KALSHI_PRIVATE_KEY": self._key.pem,
            "ARB_EXCHANGE_NAME": self.name,
        }
        if self._offset_ns:
            environment["ARB_CLOCK_OFFSET"] = f"{self.clock_offset_s:.6f}"
        return environment

    def truth(self) -> Json:
        """The source's truth, with the wall times (ns) of what has been played."""
        truth = self._source.truth()
        return {
            "name": self.name,
            **truth,
            "episodes": [self._with_wall_times(planted) for planted in truth["episodes"]],
            "phantoms": [self._with_wall_times(planted) for planted in truth["phantoms"]],
        }

    def _with_wall_times(self, planted: Json) -> Json:
        """A phantom without an id is there from the start of playback and stays."""
        marks, name = self.player.marks, planted.get("id")
        return {
            **planted,
            "opened_wall_ns": marks.get(f"{name}:open") if name else self.player.started_wall_ns,
            "closed_wall_ns": marks.get(f"{name}:close"),
        }

    # --- sockets -------------------------------------------------------------------------------------------

    async def _kalshi_socket(self, request: web.Request) -> web.StreamResponse:
        if not self._key.accepts(request.headers, request.method, request.path, wall_ms()):
            return kalshi_rest.unauthorized()
        if self.faults.refuses("kalshi"):
            return _too_many_requests()
        async with self._socket(request, "kalshi") as connection:
            client = KalshiClient(connection)
            self.kalshi.clients.append(client)
            beat = asyncio.create_task(_heartbeat(connection))
            try:
                async for message in connection.ws:
                    if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                        self.kalshi.command(client, message.data)
            finally:
                beat.cancel()
                self.kalshi.forget(client)
        return connection.ws

    async def _polymarket_socket(self, request: web.Request) -> web.StreamResponse:
        if self.faults.refuses("polymarket"):
            return _too_many_requests()
        async with self._socket(request, "polymarket") as connection:
            client = PolymarketClient(connection)
            self.polymarket.clients.append(client)
            try:
                async for message in connection.ws:
                    if message.type == WSMsgType.TEXT:
                        self.polymarket.receive(client, message.data)
            finally:
                self.polymarket.forget(client)
        return connection.ws

    async def _polymarket_user_socket(self, request: web.Request) -> web.StreamResponse:
        async with self._socket(request, "polymarket-user") as connection:
            client = UserClient(connection)
            self.polymarket_user.clients.append(client)
            try:
                async for message in connection.ws:
                    if message.type == WSMsgType.TEXT and not self.polymarket_user.receive(client, message.data):
                        await connection.ws.close()
            finally:
                self.polymarket_user.clients.remove(client)
        return connection.ws

    @contextlib.asynccontextmanager
    async def _socket(self, request: web.Request, venue: str) -> AsyncIterator[Connection]:
        ws = web.WebSocketResponse(compress=False, max_msg_size=0)
        await ws.prepare(request)
        self._numbers[venue] += 1
        sent = SentLog(f"{venue}-{self._numbers[venue]}", keep=self._log_frames)
        connection = Connection(request, ws, venue, sent, self.faults)
        self._open[connection] = None
        pump = asyncio.create_task(connection.pump())
        try:
            yield connection
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
            del self._open[connection]
            self._past.append(connection.sent)
            for log in self._past[:-_PAST_LOGS][-1:]:
                log.drop_frames()

    def _subscribed(self) -> None:
        self.player.started.set()

    def _now_ms(self) -> int:
        return (self._wall_ns() + self._offset_ns) // 1_000_000

    async def _tick(self) -> None:
        """Kalshi's conflated tickers; a recording brings its own."""
        while self._source.live_quotes:
            await asyncio.sleep(self._ticker_s)
            self.kalshi.tickers()

    # --- control -------------------------------------------------------------------------------------------

    async def _status(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the same for everyone
        return _json(
            {
                "name": self.name,
                "started": self.player.started.is_set(),
                "finished": self.player.finished.is_set(),
                "position_ns": self.player.position_ns,
                "played": self.player.played,
                "connections": [connection.sent.label for connection in self._open],
                "queued": sum(connection.queued for connection in self._open),
                "subscribed": {"kalshi": self.kalshi.subscribed, "polymarket": self.polymarket.subscribed},
                "clock_offset": self.clock_offset_s,
            }
        )

    async def _truth(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the same for everyone
        return _json(self.truth())

    async def _book(self, request: web.Request) -> web.Response:
        market_id = request.query.get("market", "")
        market = self.kalshi.markets.get(market_id) or self.polymarket.markets.get(market_id)
        if market is None:
            return _json({"error": f"market {market_id!r} is unknown; give a Kalshi ticker or a condition id"}, 404)
        return _json({"market_id": market_id, "bids": market.book.bid_levels(), "asks": market.book.ask_levels()})

    async def _sent(self, request: web.Request) -> web.Response:
        """What each connection was sent; ``log=1`` adds the frames kept, after number ``after`` and up to ``limit``."""
        query = request.query
        wanted = query.get("connection", "")
        try:
            after, limit = int(query.get("after", 0)), int(query.get("limit", sys.maxsize))
        except ValueError:
            return _json({"error": f"after and limit must be integers: {request.query_string!r}"}, 400)
        logs = [(log, False) for log in self._past] + [(connection.sent, True) for connection in self._open]
        records: list[Json] = []
        for log, is_open in logs:
            if wanted in {"", log.label}:
                record = {"connection": log.label, "open": is_open, "sent": log.number, "frames": dict(log.frames)}
                kept = {"log": log.entries(max(after, 0), max(limit, 0))} if query.get("log") == "1" else {}
                records.append(record | kept)
        return _json({"connections": records})

    async def _account(self, request: web.Request) -> web.Response:
        """Make something happen on the own account: ``venue``, ``type``, and the fields of the message to set."""
        try:
            given = await request.json()
            if not isinstance(given, dict):
                raise AccountError("give an object with a type and fields of its message")
            venue, kind = given.pop("venue", "kalshi"), str(given.pop("type", ""))
            inject = {"kalshi": self.kalshi.account.inject, "polymarket": self.polymarket_user.inject}.get(venue)
            if inject is None:
                raise AccountError(f"venue {venue!r} is unknown; there are kalshi, polymarket")
            return _json({"sent": inject(kind, given)})
        except (AccountError, json.JSONDecodeError) as error:
            return _json({"error": str(error)}, 400)

    async def _list_faults(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the same for everyone
        faults = [
            {
                "kind": fault.kind,
                "venue": fault.venue,
                "market": fault.market_id,
                "left": fault.left,
                "struck": fault.struck,
            }
            for fault in self.faults.all
        ]
        return _json({"kinds": {name: kind.words for name, kind in FAULTS.items()}, "faults": faults})

    async def _fault(self, request: web.Request) -> web.Response:
        try:
            fault = self._strikes.take(await request.json())
        except (FaultError, json.JSONDecodeError) as error:
            return _json({"error": str(error)}, 400)
        record = {"kind": fault.kind, "venue": fault.venue, "market": fault.market_id, "count": fault.count}
        return _json({**record, "struck": fault.struck})

    async def _clear_faults(self, request: web.Request) -> web.Response:  # noqa: ARG002 - all are meant
        return _json({"cleared": self._strikes.clear()})

    @web.middleware
    async def _fault_middleware(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        venue = _rest_venue(request.path)
        answer = self.faults.rest(venue) if venue else None
        if answer is None:
            return await handler(request)
        if answer.delay_s:
            await asyncio.sleep(answer.delay_s)
        if answer.status is not None:
            return web.Response(text=answer.body, status=answer.status, content_type=answer.content_type)
        response = await handler(request)
        if answer.null_lists and isinstance(response, web.Response) and response.text:
            response.text = encode(_null_lists(json.loads(response.text)))
        return response


async def start(
    source: Source,
    *,
    port: int = 0,
    speed: float = 1.0,
    sending_ts: bool = True,
    log_frames: int = 0,
    ticker_s: float = TICKER_S,
    key: ThrowAwayKey | None = None,
) -> Exchange:
    """Start an exchange on 127.0.0.1.

    Args:
        source: what to play.
        port: 0 takes a free one.
        speed: playback seconds per second; infinity plays as fast as the clients read.
        sending_ts: whether Kalshi frames carry ``sending_ts_ms``.
        log_frames: how many of the newest frames to keep per connection for ``/_exchange/sent?log=1``.
        ticker_s: seconds between Kalshi's conflated tickers.
        key: whose signatures are accepted; None makes a new one.

    Raises:
        OSError: if the port is taken.
        ValueError: if the speed is not above 0.
    """
    exchange = Exchange(source, speed=speed, sending_ts=sending_ts, log_frames=log_frames, ticker_s=ticker_s, key=key)
    await exchange.listen(port)
    return exchange


async def run_forever(source: Source, *, port: int = 0, speed: float = 1.0, log_frames: int = 0) -> None:
    """Serve until SIGINT or SIGTERM; when ready, print the announcement as one line of JSON to standard output."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with await start(source, port=port, speed=speed, log_frames=log_frames) as exchange:
        sys.stdout.write(json.dumps(exchange.announcement()) + "\n")
        sys.stdout.flush()
        await stop.wait()


async def _heartbeat(connection: Connection) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        await connection.ws.ping(b"heartbeat")


def _kalshi_markets(source: Source, books: Mapping[str, InitialBook], events: list[Json]) -> list[KalshiMarket]:
    markets = [
        KalshiMarket(record["ticker"], record, event, has_clock=source.has_clock)
        for event in events
        for record in event.get("markets") or ()
    ]
    for market in markets:
        if market.ticker in books:
            market.start(books[market.ticker])
    return markets


def _polymarket_markets(books: Mapping[str, InitialBook], events: list[Json], now_ms: int) -> list[PolymarketMarket]:
    markets: list[PolymarketMarket] = []
    for event in events:
        for record in event.get("markets") or ():
            tokens = market_tokens(record)
            if len(tokens) != 2:
                continue
            market = PolymarketMarket(record["conditionId"], record, event, (tokens[0], tokens[1]))
            if market.condition_id in books:
                market.start(books[market.condition_id], now_ms)
            markets.append(market)
    return markets


def _own(event: Json) -> Json:
    """A copy of an event whose markets may change while the source's stay as they are."""
    return {**event, "markets": [dict(market) for market in event.get("markets") or ()]}


def _too_many_requests() -> web.Response:
    return _json({"error": "too many requests"}, 429)


def _rest_venue(path: str) -> str:
    if path.startswith(kalshi_rest.REST_PREFIX):
        return "kalshi"
    return "polymarket" if path.startswith((polymarket_rest.GAMMA_PREFIX, polymarket_rest.CLOB_PREFIX)) else ""


def _null_lists(value: Any) -> Any:
    """The same JSON with the lists that may be null as null (top-level lists stay)."""
    if isinstance(value, list):
        return [_null_lists(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: None if key in _NULLABLE and isinstance(item, list) and "cursor" not in value else _null_lists(item)
        for key, item in value.items()
    }


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(text=encode(body), status=status, content_type="application/json")
