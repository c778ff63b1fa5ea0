"""Polymarket's Gamma (discovery) and CLOB (order books) REST APIs.

Facts: docs.polymarket.com and recorded answers: bare arrays, keyset pages without ``next_cursor`` at the end, silent
clamps, 422 for what keyset listings refuse, lists inside strings, best level last, ``/price`` BUY answering the bid.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec
from aiohttp import web

from arb_pipeline.clock import wall_ms
from arb_pipeline.exchange.markets import PolymarketMarket, encode, plain_price
from arb_pipeline.exchange.paging import CursorError, page
from arb_pipeline.exchange.polymarket_feed import PolymarketFeed
from arb_pipeline.exchange.source import Json
from arb_pipeline.units import ONE

__all__ = ["CLOB_PREFIX", "GAMMA_PREFIX", "WS_PATH", "PolymarketRest"]

GAMMA_PREFIX = "/gamma"
CLOB_PREFIX = "/clob"
WS_PATH = "/ws/market"

_MAX_OFFSET = 2_000
_MAX_BOOKS = 500
_CAMEL = re.compile(r"[a-z][a-zA-Z0-9]*")
_DIGITS = re.compile(r"[0-9]{1,78}")
_SUNSET = {"deprecation": "true", "sunset": "Fri, 01 May 2026 00:00:00 GMT"}

_Handler = Callable[[web.Request], Awaitable[web.Response]]


class _RefusedError(Exception):
    """A Gamma query answered with 422."""


class PolymarketRest:
    """The routes of one exchange.

    Args:
        live_quotes: whether market records show the books' current quotes.
    """

    def __init__(self, feed: PolymarketFeed, events: list[Json], *, live_quotes: bool) -> None:
        self._feed = feed
        self._events = events
        self._live_quotes = live_quotes
        self._market_by_gamma_id = {str(market.record.get("id")): market for market in feed.markets.values()}

    def routes(self) -> list[web.RouteDef]:
        """All routes of both APIs."""
        gamma: dict[str, _Handler] = {
            "/status": self._ok_text,
            "/events": self._events_array,
            "/events/keyset": self._events_keyset,
            "/events/slug/{slug}": self._event_by_slug,
            "/events/{id}": self._event_by_id,
            "/markets": self._markets_array,
            "/markets/keyset": self._markets_keyset,
            "/markets/slug/{slug}": self._market_by_slug,
            "/markets/{id}": self._market_by_id,
        }
        clob: dict[str, _Handler] = {
            "/ok": self._ok_json,
            "/time": self._time,
            "/version": self._version,
            "/book": self._book,
            "/books": self._invalid_payload,
            "/prices": self._invalid_payload,
            "/midpoints": self._invalid_payload,
            "/spreads": self._invalid_payload,
            "/price": self._price,
            "/midpoint": self._midpoint,
            "/spread": self._spread,
            "/last-trade-price": self._last_trade_price,
            "/tick-size": self._tick_size,
            "/tick-size/{token_id}": self._tick_size,
            "/neg-risk": self._neg_risk,
            "/fee-rate": self._fee_rate,
            "/fee-rate/{token_id}": self._fee_rate,
            "/clob-markets/{condition_id}": self._clob_market,
            "/markets-by-token/{token_id}": self._market_by_token,
        }
        return [
            *(web.get(GAMMA_PREFIX + path, self._guarded(handler)) for path, handler in gamma.items()),
            *(web.get(CLOB_PREFIX + path, handler) for path, handler in clob.items()),
            web.post(CLOB_PREFIX + "/books", self._books),
        ]

    # --- Gamma ---------------------------------------------------------------------------------------------

    async def _ok_text(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a constant
        return web.Response(text="OK")

    async def _events_array(self, request: web.Request) -> web.Response:
        limit, offset = min(_limit(request, 20), 500), _offset(request, "events")
        return _json([self._event_record(event) for event in self._find_events(request)[offset : offset + limit]])

    async def _events_keyset(self, request: web.Request) -> web.Response:
        _no_offset(request)
        items, cursor = page(
            self._find_events(request),
            request.query.get("after_cursor", ""),
            min(_limit(request, 20), 500),
            _filters(request),
        )
        return _json({"events": [self._event_record(event) for event in items], **_next(cursor)})

    async def _event_by_slug(self, request: web.Request) -> web.Response:
        return self._one_event("slug", request.match_info["slug"])

    async def _event_by_id(self, request: web.Request) -> web.Response:
        return self._one_event("id", request.match_info["id"])

    def _one_event(self, key: str, value: str) -> web.Response:
        found = next((event for event in self._shown_events() if str(event.get(key)) == value), None)
        return _json(self._event_record(found)) if found else _gamma_not_found(key)

    async def _markets_array(self, request: web.Request) -> web.Response:
        limit, offset = min(_limit(request, 20), 100), _offset(request, "markets")
        chosen = self._find_markets(request)[offset : offset + limit]
        return _json([self._market_with_event(market) for market in chosen], headers=_SUNSET)

    async def _markets_keyset(self, request: web.Request) -> web.Response:
        _no_offset(request)
        items, cursor = page(
            self._find_markets(request),
            request.query.get("after_cursor", ""),
            min(_limit(request, 20), 100),
            _filters(request),
        )
        return _json({"markets": [self._market_with_event(market) for market in items], **_next(cursor)})

    async def _market_by_slug(self, request: web.Request) -> web.Response:
        slug = request.match_info["slug"]
        found = next((market for market in self._shown_markets() if market.record.get("slug") == slug), None)
        return _json(self._market_with_event(found)) if found else _gamma_not_found("slug")

    async def _market_by_id(self, request: web.Request) -> web.Response:
        found = self._market_by_gamma_id.get(request.match_info["id"])
        if found is None or found.condition_id in self._feed.hidden:
            return _gamma_not_found("id")
        return _json(self._market_with_event(found))

    def _find_events(self, request: web.Request) -> list[Json]:
        ids, slugs, tags, series = (request.query.getall(name, []) for name in ("id", "slug", "tag_id", "series_id"))
        closed = _flag(request, "closed", default=False)
        chosen = [
            event
            for event in self._shown_events()
            if bool(event.get("closed")) is closed
            and (not ids or str(event.get("id")) in ids)
            and (not slugs or event.get("slug") in slugs)
            and (not tags or any(str(tag.get("id")) in tags for tag in event.get("tags") or ()))
            and (not series or any(str(one.get("id")) in series for one in event.get("series") or ()))
            and _number(event.get("liquidity")) >= _minimum(request, "liquidity_min")
            and _number(event.get("volume")) >= _minimum(request, "volume_min")
            and _within(event, request)
        ]
        return _ordered(chosen, request)

    def _find_markets(self, request: web.Request) -> list[PolymarketMarket]:
        ids, slugs, conditions, tokens = (
            request.query.getall(name, []) for name in ("id", "slug", "condition_ids", "clob_token_ids")
        )
        closed = _flag(request, "closed", default=False)
        chosen = {
            market.condition_id: market.record
            for market in self._shown_markets()
            if market.closed is closed
            and (not ids or str(market.record.get("id")) in ids)
            and (not slugs or market.record.get("slug") in slugs)
            and (not conditions or market.condition_id in conditions)
            and (not tokens or not set(tokens).isdisjoint(market.tokens))
            and _number(market.record.get("liquidityNum")) >= _minimum(request, "liquidity_num_min")
            and _number(market.record.get("volumeNum")) >= _minimum(request, "volume_num_min")
            and _within(market.record, request)
        }
        return [self._feed.markets[record["conditionId"]] for record in _ordered(list(chosen.values()), request)]

    def _shown_events(self) -> list[Json]:
        hidden = self._feed.hidden
        return [
            event
            for event in self._events
            if not hidden or any(market["conditionId"] not in hidden for market in event.get("markets") or ())
        ]

    def _shown_markets(self) -> list[PolymarketMarket]:
        return [market for market in self._feed.markets.values() if market.condition_id not in self._feed.hidden]

    def _event_record(self, event: Json) -> Json:
        markets = [
            self._market_record(self._feed.markets[market["conditionId"]])
            for market in event.get("markets") or ()
            if market["conditionId"] in self._feed.markets and market["conditionId"] not in self._feed.hidden
        ]
        return {**event, "markets": markets}

    def _market_with_event(self, market: PolymarketMarket) -> Json:
        parent = {key: value for key, value in market.event.items() if key != "markets"}
        return {**self._market_record(market), "events": [parent]}

    def _market_record(self, market: PolymarketMarket) -> Json:
        live = self._live_quotes and market.has_book and not market.closed
        return {**market.record, **market.quotes()} if live else market.record

    def _guarded(self, handler: _Handler) -> _Handler:
        async def guarded(request: web.Request) -> web.Response:
            try:
                return await handler(request)
            except (_RefusedError, CursorError) as error:
                text = "invalid cursor" if isinstance(error, CursorError) else str(error)
                return _json({"type": "validation error", "error": text}, 422)

        return guarded

    # --- CLOB ----------------------------------------------------------------------------------------------

    async def _ok_json(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a constant
        return _json("OK")

    async def _time(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the same for everyone
        return _json(wall_ms() // 1000)

    async def _version(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a constant
        return _json({"version": 2})

    async def _invalid_payload(self, request: web.Request) -> web.Response:  # noqa: ARG002 - whatever was asked
        return _json({"error": "Invalid payload"}, 400)

    async def _book(self, request: web.Request) -> web.Response:
        market, index = self._token(request)
        return _json(market.rest_book(index))

    async def _books(self, request: web.Request) -> web.Response:
        try:
            wanted = msgspec.json.decode(await request.read())
            tokens = [str(item["token_id"]) for item in wanted]
        except (msgspec.DecodeError, TypeError, KeyError):
            return _json({"error": "Invalid payload"}, 400)
        if len(tokens) > _MAX_BOOKS:
            return _json({"error": "Payload exceeds the limit"}, 400)
        found = [self._feed.find(token) for token in dict.fromkeys(tokens)]
        return _json([market.rest_book(index) for market, index in filter(None, found)])

    async def _price(self, request: web.Request) -> web.Response:
        market, index = self._token(request)
        side = request.query.get("side", "").upper()
        if side not in {"BUY", "SELL"}:
            return _json({"error": "Invalid side"}, 400)
        bid, ask = market.top_texts(index)
        return _json({"price": bid if side == "BUY" else ask})

    async def _midpoint(self, request: web.Request) -> web.Response:
        market, index = self._token(request)
        bid, ask = _tops(market, index)
        doubled = bid + ask
        text = plain_price(doubled // 2)
        return _json({"mid": text if doubled % 2 == 0 else f"{doubled / 2 / ONE:.5f}"})

    async def _spread(self, request: web.Request) -> web.Response:
        market, index = self._token(request)
        bid, ask = _tops(market, index)
        return _json({"spread": plain_price(ask - bid)})

    async def _last_trade_price(self, request: web.Request) -> web.Response:
        market, _ = self._token(request)
        if not market.last_side:
            return _json({"price": "0.5", "side": ""})
        return _json({"price": market.last_trade_price, "side": market.last_side})

    async def _tick_size(self, request: web.Request) -> web.Response:
        market, _ = self._token(request)
        return _json({"minimum_tick_size": float(market.tick_size)})

    async def _neg_risk(self, request: web.Request) -> web.Response:
        market, _ = self._token(request)
        return _json({"neg_risk": market.neg_risk})

    async def _fee_rate(self, request: web.Request) -> web.Response:
        self._token(request)
        return _json({"base_fee": 1000})

    async def _clob_market(self, request: web.Request) -> web.Response:
        market = self._feed.markets.get(request.match_info["condition_id"])
        if market is None or market.condition_id in self._feed.hidden:
            return _json({"error": "market not found"}, 404)
        record = market.record
        outcomes: list[str] = msgspec.json.decode(record["outcomes"])
        fees: Json = record.get("feeSchedule") or {}
        return _json(
            {
                "c": market.condition_id,
                "t": [{"t": token, "o": name} for token, name in zip(market.tokens, outcomes, strict=True)],
                "mos": record.get("orderMinSize", 5),
                "mts": float(market.tick_size),
                "mbf": 1000,
                "tbf": 1000,
                **({"fd": {"r": fees["rate"], "e": fees["exponent"], "to": fees["takerOnly"]}} if fees else {}),
                "ao": bool(record.get("acceptingOrders")),
                "nr": market.neg_risk,
                "sd": record.get("secondsDelay", 0),
                "cbos": bool(record.get("clearBookOnStart")),
            }
        )

    async def _market_by_token(self, request: web.Request) -> web.Response:
        market, _ = self._token(request)
        first, second = market.tokens
        return _json({"condition_id": market.condition_id, "primary_token_id": first, "secondary_token_id": second})

    def _token(self, request: web.Request) -> tuple[PolymarketMarket, int]:
        """The market and index of the token that a CLOB request names; answers 400 and 404 as the venue does."""
        token = request.match_info.get("token_id") or request.query.get("token_id", "")
        if not _DIGITS.fullmatch(token):
            raise web.HTTPBadRequest(text='{"error":"Invalid token id"}', content_type="application/json")
        found = self._feed.find(token)
        if found is None:
            text = '{"error":"No orderbook exists for the requested token id"}'
            raise web.HTTPNotFound(text=text, content_type="application/json")
        return found


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=encode(body), status=status, content_type="application/json", headers=headers)


def _gamma_not_found(key: str) -> web.Response:
    return _json({"type": "not found error", "error": f"{key} not found"}, 404)


def _next(cursor: str) -> Json:
    return {"next_cursor": cursor} if cursor else {}


def _filters(request: web.Request) -> Json:
    return {key: request.query.getall(key) for key in request.query if key not in {"limit", "after_cursor"}}


def _limit(request: web.Request, default: int) -> int:
    return max(_whole(request, "limit", default), 1)


def _offset(request: web.Request, kind: str) -> int:
    offset = _whole(request, "offset", 0)
    if offset > _MAX_OFFSET:
        raise _RefusedError(f"offset too large, use /{kind}/keyset for deeper pagination")
    return offset


def _no_offset(request: web.Request) -> None:
    if "offset" in request.query:
        raise _RefusedError("offset is not supported on keyset routes, use after_cursor")


def _whole(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise _RefusedError(f"{name} must be a whole number")
    return int(text)


def _flag(request: web.Request, name: str, *, default: bool) -> bool:
    text = request.query.get(name)
    if text is None:
        return default
    if text not in {"true", "false"}:
        raise _RefusedError(f"{name} must be true or false")
    return text == "true"


def _minimum(request: web.Request, name: str) -> float:
    text = request.query.get(name)
    if text is None:
        return float("-inf")
    try:
        return float(text)
    except ValueError:
        raise _RefusedError(f"{name} must be a number") from None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float | str) and value != "" else 0.0


def _within(record: Json, request: web.Request) -> bool:
    end = record.get("endDate") or ""
    low, high = request.query.get("end_date_min", ""), request.query.get("end_date_max", "")
    if not low and not high:
        return True
    at = _instant(end)
    return (not low or at >= _instant(low)) and (not high or at <= _instant(high))


def _instant(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise _RefusedError(f"{text!r} is not a date") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _ordered(records: list[Json], request: web.Request) -> list[Json]:
    order = request.query.get("order", "")
    if not order:
        return records
    names = order.split(",")
    if not all(_CAMEL.fullmatch(name) for name in names):
        raise _RefusedError("order fields are not valid")
    ascending = _flag(request, "ascending", default=True)
    return sorted(records, key=lambda record: [_sort_key(record.get(name)) for name in names], reverse=not ascending)


def _sort_key(value: object) -> tuple[float, str]:
    try:
        return _number(value), ""
    except ValueError:
        return 0.0, str(value)


def _tops(market: PolymarketMarket, index: int) -> tuple[int, int]:
    low, high = market.book.best_bid or 0, ONE if market.book.best_ask is None else market.book.best_ask
    return (ONE - high, ONE - low) if index else (low, high)
