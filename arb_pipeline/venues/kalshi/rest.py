"""Kalshi's REST calls: paging, order books in batches, public trades (Kalshi OpenAPI 3.34.0)."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from arb_pipeline.model import Anomaly, AnomalyKind, Trade
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.http import HttpStatusError, RestClient
from arb_pipeline.venues.kalshi import wire
from arb_pipeline.venues.kalshi.auth import KalshiAuth, KalshiCredentials

__all__ = [
    "BOOKS_PER_CALL",
    "KalshiPolling",
    "event_fee_changes",
    "event_records",
    "fetch_books",
    "rest_client",
    "series_fee_changes",
    "series_records",
    "trade_pages",
    "trades_of_page",
]

BOOKS_PER_CALL: Final = 100
_EVENTS_PER_PAGE: Final = 200
_TRADES_PER_PAGE: Final = 1_000
_FEE_CHANGES_PER_PAGE: Final = 1_000
_EXAMPLE: Final = 500
_SECOND: Final = 1_000_000_000
_REFUSED: Final = frozenset({400, 404})

_log = logging.getLogger(__name__)


class _Books(msgspec.Struct, gc=False):
    orderbooks: list[msgspec.Raw] | None = None


class _Named(msgspec.Struct, gc=False):
    ticker: str | None = None


class _TradePage(msgspec.Struct, gc=False):
    trades: list[msgspec.Raw] | None = None
    cursor: str | None = None


class _RestTrade(wire.TradeMsg, gc=False, kw_only=True):
    """An element of ``GET /markets/trades``: the fields of the ``trade`` message but for two names."""

    market_ticker: str = msgspec.field(name="ticker")
    trade_id: str
    created_time: str


_decode_trade_page = msgspec.json.Decoder(_TradePage).decode
_decode_trade = msgspec.json.Decoder(_RestTrade).decode
_decode_books = msgspec.json.Decoder(_Books).decode
_decode_named = msgspec.json.Decoder(_Named).decode


def rest_client(settings: Settings, credentials: KalshiCredentials | None) -> RestClient:
    """A client of the configured host; it signs if there are credentials (market data needs none)."""
    return RestClient(
        settings.kalshi_rest_url,
        timeout_s=settings.http_timeout_s,
        retries=settings.http_retries,
        requests_per_s=settings.http_requests_per_s,
        auth=KalshiAuth(credentials) if credentials is not None else None,
    )


async def event_records(client: RestClient, max_pages: int) -> AsyncIterator[Mapping[str, Any]]:
    """Raw open events with nested markets, page by page.

    The end is a cursor that is empty, null or absent. A cursor seen before, and ``max_pages``, stop the listing
    with a warning, since it is then incomplete.

    Raises:
        VenueError: if a page is not an object with a list of events.
        HttpStatusError: if the venue refuses a page.
    """
    params: dict[str, Any] = {"status": "open", "with_nested_markets": True, "limit": _EVENTS_PER_PAGE}
    seen: set[str] = set()
    for _ in range(max_pages):
        page = await client.get("/events", params)
        for record in _records(page, "events", "GET /events"):
            yield record
        cursor = page.get("cursor")
        if not cursor:
            return
        if not isinstance(cursor, str) or cursor in seen:
            _log.warning("kalshi GET /events: cursor %.80r came again; the listing stops here", cursor)
            return
        seen.add(cursor)
        params["cursor"] = cursor
    _log.warning("kalshi GET /events: stopped after %d pages (ARB_MAX_PAGES); the listing is incomplete", max_pages)


async def series_records(client: RestClient) -> dict[str, Mapping[str, Any]]:
    """Every series by its ticker: fees, settlement sources, category and tags live there (one unpaged call).

    Raises:
        VenueError: if the answer is not an object with a list of series.
        HttpStatusError: if the venue refuses the call.
    """
    records = _records(await client.get("/series"), "series", "GET /series")
    return {record["ticker"]: record for record in records if isinstance(record.get("ticker"), str)}


async def series_fee_changes(client: RestClient) -> list[Mapping[str, Any]]:
    """Every change of a series' fees, past and announced (one unpaged call).

    Raises:
        VenueError: if the answer is not an object with a list of changes.
        HttpStatusError: if the venue refuses the call.
    """
    answer = await client.get("/series/fee_changes", {"show_historical": True})
    return _records(answer, "series_fee_change_arr", "GET /series/fee_changes")


async def event_fee_changes(client: RestClient, max_pages: int) -> list[Mapping[str, Any]]:
    """Every change of an event's fee override, page by page.

    Raises:
        VenueError: if a page is not an object with a list of changes, or the listing does not come to its end.
        HttpStatusError: if the venue refuses a page.
    """
    params: dict[str, Any] = {"limit": _FEE_CHANGES_PER_PAGE}
    found: list[Mapping[str, Any]] = []
    seen: set[str] = set()
    for _ in range(max_pages):
        page = await client.get("/events/fee_changes", params)
        found += _records(page, "event_fee_changes", "GET /events/fee_changes")
        cursor = page.get("cursor")
        if not cursor:
            return found
        if not isinstance(cursor, str) or cursor in seen:
            raise VenueError(f"kalshi GET /events/fee_changes: cursor {cursor!r:.80} came again; changes are missing")
        seen.add(cursor)
        params["cursor"] = cursor
    raise VenueError(f"kalshi GET /events/fee_changes: more than {max_pages} pages (ARB_MAX_PAGES)")


async def fetch_books(client: RestClient, tickers: Sequence[str]) -> dict[str, bytes]:
    """Order books by ticker, each as the bytes of its element ``{"ticker", "orderbook_fp"}``.

    A batch that is refused because of one market is halved until the others are through.

    Raises:
        HttpStatusError: if the venue refuses for another reason than an unknown market.
    """
    books: dict[str, bytes] = {}
    for start in range(0, len(tickers), BOOKS_PER_CALL):
        books |= await _fetch_batch(client, tickers[start : start + BOOKS_PER_CALL])
    return books


class KalshiPolling:
    """See :class:`arb_pipeline.venues.base.Polling`. Both calls are public."""

    markets_per_call: int = BOOKS_PER_CALL

    async def trade_pages(self, client: RestClient, since_ns: int) -> AsyncIterator[bytes]:
        """``GET /markets/trades`` from the second of ``since_ns`` on, page by page, newest first.

        Raises:
            HttpStatusError: if the venue refuses a page.
            VenueError: if a page is no object with a cursor, or a cursor comes again.
        """
        async for body in trade_pages(client, "/markets/trades", {"min_ts": max(0, since_ns // _SECOND)}):
            yield body

    def trades(self, page: bytes, recv_ns: int) -> list[Trade | Anomaly]:
        """The trades of a page; the taker's side is the outcome bought."""
        return trades_of_page(page, recv_ns)


async def trade_pages(client: RestClient, path: str, filters: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """Pages of a listing of trades, newest first.

    Raises:
        HttpStatusError: if the venue refuses a page.
        VenueError: if a page is no object with a cursor, or a cursor comes again.
    """
    params: dict[str, Any] = {"limit": _TRADES_PER_PAGE, **filters}
    seen: set[str] = set()
    while True:
        body = await client.get_bytes(path, params)
        cursor = _page_of_trades(body).cursor
        yield body
        if not cursor:
            return
        if cursor in seen:
            raise VenueError(f"kalshi GET {path}: cursor {cursor!r:.80} came again; trades may be missing")
        seen.add(cursor)
        params["cursor"] = cursor


def trades_of_page(page: bytes, recv_ns: int | None) -> list[Trade | Anomaly]:
    """The trades of a page in its order, received at ``recv_ns``; None stands for each one's own time."""
    return [_trade(element, recv_ns) for element in _page_of_trades(page).trades or ()]


def _page_of_trades(body: bytes) -> _TradePage:
    try:
        return _decode_trade_page(body)
    except msgspec.DecodeError as error:
        raise VenueError(f"kalshi, a page of trades: {error}: {body[:200]!r}") from error


def _trade(element: msgspec.Raw, recv_ns: int | None) -> Trade | Anomaly:
    try:
        record = _decode_trade(element)
        price, size = wire.trade_numbers(record)
        venue_ns = wire.ns_from_text(record.created_time)
        if venue_ns is None:
            raise wire.WireError(AnomalyKind.BAD_NUMBER, f"created_time {record.created_time!r} is no UTC time")
    except (ValueError, RecursionError) as error:
        kind, detail = wire.classify(error)
        return Anomaly(kind, detail[:_EXAMPLE], recv_ns or 0, "", bytes(element)[:_EXAMPLE].decode("utf-8", "replace"))
    side = record.taker_outcome_side or record.taker_side
    taker: Literal["yes", "no"] | None = "yes" if side == "yes" else "no" if side == "no" else None
    received = venue_ns if recv_ns is None else recv_ns
    return Trade(record.market_ticker, record.trade_id, price, size, taker, received, venue_ns, None, "rest")


async def _fetch_batch(client: RestClient, tickers: Sequence[str]) -> dict[str, bytes]:
    try:
        body = await client.get_bytes("/markets/orderbooks", [("tickers", ticker) for ticker in tickers])
    except HttpStatusError as error:
        if error.status not in _REFUSED:
            raise
        if len(tickers) == 1:
            return {}
        half = len(tickers) // 2
        return await _fetch_batch(client, tickers[:half]) | await _fetch_batch(client, tickers[half:])
    try:
        elements = _decode_books(body).orderbooks or []
        named = [(_decode_named(element).ticker, bytes(element)) for element in elements]
    except msgspec.DecodeError as error:
        raise VenueError(f"kalshi GET /markets/orderbooks: {error}: {body[:200]!r}") from error
    wanted = set(tickers)
    return {ticker: element for ticker, element in named if ticker in wanted}


def _records(page: Any, key: str, call: str) -> list[Mapping[str, Any]]:
    """The objects of a page's list; null is an empty list, anything but an object in it is left out."""
    if not isinstance(page, Mapping) or not isinstance(page.get(key) or [], list):
        raise VenueError(f"kalshi {call} answered no object with a list {key!r}: {str(page)[:200]}")
    return [record for record in page.get(key) or [] if isinstance(record, Mapping)]
