"""Kalshi's REST API: catalogue, order books, trades, candlesticks, and the signed account calls.

Facts: Kalshi OpenAPI 3.34 and observed error bodies (several shapes coexist: ``{"error": {...}}`` for 401 and 404,
``{"msg": ...}`` or ``{"code", "message"}`` for 400).
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Self

from aiohttp import web

from arb_pipeline.clock import wall_ms
from arb_pipeline.exchange.candles import Candle, Ohlc
from arb_pipeline.exchange.kalshi_feed import KalshiFeed
from arb_pipeline.exchange.markets import KalshiMarket, dollars, encode, quantity, rfc3339
from arb_pipeline.exchange.paging import CursorError, page, page_newest_first
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.exchange.source import Json

__all__ = ["REST_PREFIX", "WS_PATH", "KalshiRest", "unauthorized"]

REST_PREFIX = "/trade-api/v2"
WS_PATH = "/trade-api/ws/v2"

_FIELD_OF_QUERY = {
    "unopened": {"initialized"},
    "open": {"active"},
    "paused": {"inactive"},
    "closed": {"closed", "determined", "disputed", "amended"},
    "settled": {"finalized"},
}
"""``Market.status`` values by the word of the query: the two vocabularies never mix."""

_EXCHANGE_STATUS = {
    "exchange_active": True,
    "trading_active": True,
    "intra_exchange_transfers_active": True,
    "exchange_estimated_resume_time": None,
    "exchange_index_statuses": [{"exchange_index": 0, "exchange_active": True, "trading_active": True}],
}

_ALL_DAY = [{"open_time": "00:00", "close_time": "00:00"}]
_SCHEDULE = {
    "schedule": {
        "standard_hours": [
            {
                "start_time": "2026-01-01T00:00:00Z",
                "end_time": "2027-12-31T00:00:00Z",
                **dict.fromkeys(("monday", "tuesday", "wednesday", "friday", "saturday", "sunday"), _ALL_DAY),
                "thursday": [
                    {"open_time": "00:00", "close_time": "03:00"},
                    {"open_time": "05:00", "close_time": "00:00"},
                ],
            }
        ],
        "maintenance_windows": [],
    }
}
"""Trading hours in Eastern time; a close of 00:00 is the end of the day, and Thursdays have a pause."""

_PERIODS = (1, 60, 1440)
_LIVE_TIER_MS = 90 * 86_400_000
"""What is older is in the venue's archive."""
_MAX_CANDLES = 5_000
_MAX_BATCH_CANDLES = 10_000
_MAX_BATCH_MARKETS = 100

_Handler = Callable[[web.Request], Awaitable[web.Response]]


class _BadRequestError(Exception):
    """A query that the venue refuses; carries the body."""

    def __init__(self, body: Json) -> None:
        super().__init__(encode(body))
        self.body = body


class KalshiRest:
    """The routes of one exchange.

    Args:
        live_quotes: whether market records show the books' current quotes.
        fee_changes: raw changes of the series' fees and of the events' overrides.
    """

    def __init__(
        self,
        feed: KalshiFeed,
        events: list[Json],
        series: list[Json],
        key: ThrowAwayKey,
        *,
        live_quotes: bool,
        fee_changes: tuple[Sequence[Json], Sequence[Json]] = ((), ()),
    ) -> None:
        self._feed = feed
        self._events = events
        self._series = series
        self._key = key
        self._live_quotes = live_quotes
        self._series_fee_changes, self._event_fee_changes = fee_changes
        self._series_of = {event["event_ticker"]: event.get("series_ticker", "") for event in events}

    def routes(self) -> list[web.RouteDef]:
        """All routes; ``orderbooks``, ``trades`` and ``candlesticks`` before the ticker that would swallow them."""
        paths: dict[str, _Handler] = {
            "/exchange/status": self._status,
            "/exchange/schedule": self._schedule,
            "/events": self._list_events,
            "/events/fee_changes": self._list_event_fee_changes,
            "/events/{ticker}": self._event,
            "/series": self._list_series,
            "/series/fee_changes": self._list_series_fee_changes,
            "/series/{ticker}": self._one_series,
            "/series/{series}/markets/{ticker}/candlesticks": self._candlesticks,
            "/markets": self._list_markets,
            "/markets/orderbooks": self._orderbooks,
            "/markets/trades": self._trades,
            "/markets/candlesticks": self._many_candlesticks,
            "/markets/{ticker}": self._market,
            "/markets/{ticker}/orderbook": self._orderbook,
            "/historical/cutoff": self._cutoff,
            "/historical/trades": self._archived_trades,
            "/portfolio/balance": self._signed(self._balance),
            "/portfolio/positions": self._signed(self._positions),
            "/portfolio/fills": self._signed(self._fills),
        }
        return [web.get(REST_PREFIX + path, self._guarded(handler)) for path, handler in paths.items()]

    # --- catalogue -----------------------------------------------------------------------------------------

    async def _status(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the same for everyone
        return _json(_EXCHANGE_STATUS)

    async def _schedule(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the same for everyone
        return _json(_SCHEDULE)

    async def _list_events(self, request: web.Request) -> web.Response:
        query = request.query
        limit = _integer(request, "limit", 200, 1, 200)
        statuses = _statuses(request)
        series, tickers = query.get("series_ticker", ""), query.get("tickers", "")
        nested = _flag(request, "with_nested_markets")
        closes_after = _integer(request, "min_close_ts", 0, 0, 2**40)
        chosen = [
            event
            for event in self._events
            if (not series or event.get("series_ticker") == series)
            and (not tickers or event["event_ticker"] in tickers.split(","))
            and self._has_market(event, statuses, closes_after)
        ]
        filters = {"events": 1, "status": query.get("status", ""), "series": series, "tickers": tickers}
        items, cursor = page(chosen, query.get("cursor", ""), limit, filters | {"close": closes_after})
        return _json({"events": [self._event_record(event, nested=nested) for event in items], "cursor": cursor})

    async def _event(self, request: web.Request) -> web.Response:
        event = self._find_event(request.match_info["ticker"])
        if event is None:
            return _not_found()
        nested, without = _flag(request, "with_nested_markets"), _flag(request, "exclude_markets")
        if nested and without:
            raise _BadRequestError(
                {"code": "invalid_parameters", "message": "with_nested_markets and exclude_markets exclude each other"}
            )
        answer: Json = {"event": self._event_record(event, nested=nested)}
        if not nested and not without:
            answer["markets"] = self._event_record(event, nested=True)["markets"]
        return _json(answer)

    async def _list_series(self, request: web.Request) -> web.Response:
        category = request.query.get("category", "")
        chosen = [
            series
            for series in self._series
            if not category or category in (series.get("categories") or [series.get("category")])
        ]
        return _json({"series": chosen})

    async def _one_series(self, request: web.Request) -> web.Response:
        ticker = request.match_info["ticker"]
        series = next((series for series in self._series if series["ticker"] == ticker), None)
        return _json({"series": series}) if series else _not_found()

    async def _list_series_fee_changes(self, request: web.Request) -> web.Response:
        ticker, past = request.query.get("series_ticker", ""), _flag(request, "show_historical")
        now = datetime.fromtimestamp(wall_ms() / 1000, UTC)
        chosen = [
            change
            for change in self._series_fee_changes
            if (not ticker or change["series_ticker"] == ticker)
            and (past or datetime.fromisoformat(change["scheduled_ts"]) > now)
        ]
        return _json({"series_fee_change_arr": chosen})

    async def _list_event_fee_changes(self, request: web.Request) -> web.Response:
        ticker = request.query.get("event_ticker", "")
        limit = _integer(request, "limit", 100, 1, 1000)
        chosen = [change for change in self._event_fee_changes if not ticker or change["event_ticker"] == ticker]
        items, cursor = page(chosen, request.query.get("cursor", ""), limit, {"fee_changes": ticker})
        return _json({"event_fee_changes": items, "cursor": cursor})

    async def _list_markets(self, request: web.Request) -> web.Response:
        query = request.query
        limit = _integer(request, "limit", 100, 0, 1000) or 100
        statuses = _statuses(request)
        event, series, tickers = (query.get(name, "") for name in ("event_ticker", "series_ticker", "tickers"))
        after = _integer(request, "min_close_ts", 0, 0, 2**40)
        before = _integer(request, "max_close_ts", 2**40, 0, 2**40)
        if (after or before < 2**40) and query.get("status", "") not in {"", "closed"}:
            raise _BadRequestError(
                {"code": "invalid_parameters", "message": "close filters need status closed or none"}
            )
        wanted = set(tickers.split(",")) if tickers else None
        chosen = [
            market
            for market in self._listed()
            if (not event or market.record["event_ticker"] == event)
            and (not series or self._series_of.get(market.record["event_ticker"]) == series)
            and (wanted is None or market.ticker in wanted)
            and (statuses is None or market.record.get("status") in statuses)
            and after <= _close_ts(market.record) <= before
        ]
        chosen.sort(key=lambda market: str(market.record.get("created_time", "")), reverse=True)
        filters = {
            "markets": 1,
            "status": query.get("status", ""),
            "event": event,
            "series": series,
            "tickers": tickers,
        }
        items, cursor = page(chosen, query.get("cursor", ""), limit, filters | {"after": after, "before": before})
        return _json({"markets": [self._market_record(market) for market in items], "cursor": cursor})

    async def _market(self, request: web.Request) -> web.Response:
        market = self._find(request.match_info["ticker"])
        return _json({"market": self._market_record(market)}) if market else _not_found()

    # --- market data ---------------------------------------------------------------------------------------

    async def _orderbook(self, request: web.Request) -> web.Response:
        market = self._find(request.match_info["ticker"])
        if market is None:
            return _not_found()
        return _json({"orderbook_fp": _ladders(market, _integer(request, "depth", 0, 0, 100))})

    async def _orderbooks(self, request: web.Request) -> web.Response:
        tickers = request.query.getall("tickers", [])
        if not 1 <= len(tickers) <= 100:
            raise _BadRequestError({"code": "invalid_parameters", "message": "tickers: give 1 to 100 of them"})
        found = [market for market in map(self._find, tickers) if market is not None]
        books = [{"ticker": market.ticker, "orderbook_fp": _ladders(market, 0)} for market in found]
        return _json({"orderbooks": books})

    async def _trades(self, request: web.Request) -> web.Response:
        query = request.query
        limit = _integer(request, "limit", 100, 1, 1000)
        ticker = query.get("ticker", "")
        since, until = _integer(request, "min_ts", 0, 0, 2**40), _integer(request, "max_ts", 2**40, 0, 2**40)
        block = _flag(request, "is_block_trade") if query.get("is_block_trade") else None
        chosen = [
            trade
            for trade in reversed(self._feed.trades)
            if (not ticker or trade.record["ticker"] == ticker)
            and 1000 * since <= trade.ts_ms <= 1000 * until
            and (block is None or trade.record.get("is_block_trade", False) is block)
        ]
        filters = {"trades": ticker, "since": since, "until": until, "block": block}
        items, cursor = page_newest_first(chosen, lambda trade: trade.number, query.get("cursor", ""), limit, filters)
        return _json({"trades": [trade.record for trade in items], "cursor": cursor})

    async def _cutoff(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the same for everyone
        cutoff = rfc3339(wall_ms() - _LIVE_TIER_MS)
        times = ("market_settled_ts", "trades_created_ts", "orders_updated_ts", "market_positions_last_updated_ts")
        return _json(dict.fromkeys(times, cutoff))

    async def _archived_trades(self, request: web.Request) -> web.Response:  # noqa: ARG002 - nothing is so old
        return _json({"trades": [], "cursor": ""})

    async def _candlesticks(self, request: web.Request) -> web.Response:
        market = self._find(request.match_info["ticker"])
        if market is None or self._series_of.get(market.record["event_ticker"]) != request.match_info["series"]:
            return _not_found()
        span = _Span.of(request)
        if span.candles > _MAX_CANDLES:
            raise _too_many(span.candles, _MAX_CANDLES)
        return _json({"ticker": market.ticker, "candlesticks": _candle_records(market, span)})

    async def _many_candlesticks(self, request: web.Request) -> web.Response:
        tickers = list(filter(None, request.query.get("market_tickers", "").split(",")))
        if not 1 <= len(tickers) <= _MAX_BATCH_MARKETS:
            raise _BadRequestError({"code": "invalid_parameters", "message": "market_tickers: give 1 to 100 of them"})
        span = _Span.of(request)
        if span.candles * len(tickers) > _MAX_BATCH_CANDLES:
            raise _too_many(span.candles * len(tickers), _MAX_BATCH_CANDLES)
        found = [market for market in map(self._find, tickers) if market is not None]
        records = [{"market_ticker": market.ticker, "candlesticks": _candle_records(market, span)} for market in found]
        return _json({"markets": records})

    # --- account -------------------------------------------------------------------------------------------

    async def _balance(self, request: web.Request) -> web.Response:  # noqa: ARG002 - there is one account
        return _json(self._feed.account.balance())

    async def _positions(self, request: web.Request) -> web.Response:
        query = request.query
        limit = _integer(request, "limit", 100, 1, 1000)
        return _json(self._feed.account.positions(query.get("ticker", ""), query.get("cursor", ""), limit))

    async def _fills(self, request: web.Request) -> web.Response:
        query = request.query
        limit = _integer(request, "limit", 100, 1, 1000)
        since, until = _integer(request, "min_ts", 0, 0, 2**40), _integer(request, "max_ts", 2**40, 0, 2**40)
        ticker, cursor = query.get("ticker", ""), query.get("cursor", "")
        return _json(self._feed.account.fills(ticker, since, until, cursor, limit))

    # --- plumbing ------------------------------------------------------------------------------------------

    def _guarded(self, handler: _Handler) -> _Handler:
        async def guarded(request: web.Request) -> web.Response:
            try:
                return await handler(request)
            except _BadRequestError as error:
                return _json(error.body, 400)
            except CursorError:
                return _json({"code": "invalid_parameters", "message": "invalid cursor"}, 400)

        return guarded

    def _signed(self, handler: _Handler) -> _Handler:
        async def signed(request: web.Request) -> web.Response:
            if not self._key.accepts(request.headers, request.method, request.path, wall_ms()):
                return unauthorized()
            return await handler(request)

        return signed

    def _listed(self) -> list[KalshiMarket]:
        return [market for market in self._feed.markets.values() if market.ticker not in self._feed.hidden]

    def _find(self, ticker: str) -> KalshiMarket | None:
        return None if ticker in self._feed.hidden else self._feed.markets.get(ticker)

    def _find_event(self, ticker: str) -> Json | None:
        event = next((event for event in self._events if event["event_ticker"] == ticker), None)
        return event if event is not None and self._has_market(event, None, 0) else None

    def _has_market(self, event: Json, statuses: set[str] | None, closes_after: int) -> bool:
        return any(
            market["ticker"] not in self._feed.hidden
            and (statuses is None or market.get("status") in statuses)
            and _close_ts(market) >= closes_after
            for market in event.get("markets") or ()
        )

    def _event_record(self, event: Json, *, nested: bool) -> Json:
        record = {key: value for key, value in event.items() if key != "markets"}
        if nested:
            found = [self._find(market["ticker"]) for market in event.get("markets") or ()]
            record["markets"] = [self._market_record(market) for market in found if market is not None]
        return record

    def _market_record(self, market: KalshiMarket) -> Json:
        return {**market.record, **market.quotes()} if self._live_quotes else market.record


def unauthorized() -> web.Response:
    """401 as observed."""
    return _json({"error": {"code": "token_authentication_failure", "message": "token authentication failure"}}, 401)


def _not_found() -> web.Response:
    return _json({"error": {"code": "not_found", "message": "not found"}}, 404)


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(text=encode(body), status=status, content_type="application/json")


def _integer(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None or text == "":
        return default
    try:
        value = int(text)
    except ValueError:
        raise _BadRequestError({"msg": f"Invalid format for parameter {name}: {text!r} is not an integer"}) from None
    if not low <= value <= high:
        raise _BadRequestError({"code": "invalid_parameters", "message": f"{name} must be between {low} and {high}"})
    return value


def _flag(request: web.Request, name: str) -> bool:
    text = request.query.get(name, "false")
    if text not in {"true", "false"}:
        raise _BadRequestError({"msg": f"Invalid format for parameter {name}: {text!r} is not a boolean"})
    return text == "true"


def _statuses(request: web.Request) -> set[str] | None:
    status = request.query.get("status", "")
    if not status:
        return None
    if status not in _FIELD_OF_QUERY:
        raise _BadRequestError({"code": "invalid_parameters", "message": f"invalid status {status}"})
    return _FIELD_OF_QUERY[status]


def _close_ts(record: Json) -> float:
    return datetime.fromisoformat(record["close_time"]).astimezone(UTC).timestamp()


def _ladders(market: KalshiMarket, depth: int) -> Json:
    yes, no = market.ladders()
    return {"yes_dollars": yes[-depth:], "no_dollars": no[-depth:]}


class _Span(NamedTuple):
    """What candlesticks a query asks for: those that end in ``[start_ts, end_ts]``."""

    start_ts: int
    end_ts: int
    minutes: int
    with_latest: bool

    @property
    def candles(self) -> int:
        """How many candlesticks a market may have in it."""
        return (self.end_ts - self.start_ts) // (60 * self.minutes)

    @classmethod
    def of(cls, request: web.Request) -> Self:
        for name in ("start_ts", "end_ts", "period_interval"):
            if not request.query.get(name):
                raise _BadRequestError({"msg": f"Query argument {name} is required, but not found"})
        minutes = _integer(request, "period_interval", 1, 1, _PERIODS[-1])
        start_ts, end_ts = (_integer(request, name, 0, 0, 2**40) for name in ("start_ts", "end_ts"))
        if minutes not in _PERIODS or end_ts < start_ts:
            message = "period_interval must be 1, 60 or 1440, and end_ts not before start_ts"
            raise _BadRequestError({"code": "invalid_parameters", "message": message})
        return cls(start_ts, end_ts, minutes, _flag(request, "include_latest_before_start"))


def _too_many(asked: int, most: int) -> _BadRequestError:
    message = f"requested time range with candlesticks: {asked}, max candlesticks: {most}"
    return _BadRequestError({"code": "invalid_parameters", "message": message})


def _candle_records(market: KalshiMarket, span: _Span) -> list[Json]:
    candles = market.candles.between(span.start_ts, span.end_ts, span.minutes)
    latest = market.candles.latest_before(span.start_ts, span.minutes) if span.with_latest else None
    if latest is not None:
        end_ts = (span.start_ts // (60 * span.minutes) + 1) * 60 * span.minutes
        if not candles or candles[0].end_ts > end_ts:
            bid, ask = Ohlc.at(latest.bid.close), Ohlc.at(latest.ask.close)
            candles.insert(0, Candle(end_ts, bid, ask, previous=latest.last_price))
    return [_candle_record(market, candle) for candle in candles]


def _candle_record(market: KalshiMarket, candle: Candle) -> Json:
    names = ("open", "low", "high", "close", "mean")
    price: Json = {f"{name}_dollars": None for name in names}
    if candle.price is not None:
        mean = dollars(round(candle.turnover / candle.volume))
        price = {**_ohlc_record(candle.price), "mean_dollars": mean}
    price["previous_dollars"] = None if candle.previous is None else dollars(candle.previous)
    return {
        "end_period_ts": candle.end_ts,
        "yes_bid": _ohlc_record(candle.bid),
        "yes_ask": _ohlc_record(candle.ask),
        "price": price,
        "volume_fp": quantity(candle.volume),
        "open_interest_fp": market.record.get("open_interest_fp", "0.00"),
    }


def _ohlc_record(prices: Ohlc) -> Json:
    return {
        "open_dollars": dollars(prices.open),
        "low_dollars": dollars(prices.low),
        "high_dollars": dollars(prices.high),
        "close_dollars": dollars(prices.close),
    }
