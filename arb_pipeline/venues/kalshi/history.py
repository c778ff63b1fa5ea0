"""Kalshi's past over REST: candlesticks in batches and the trades of a market, live tier and archive.

Markets that settled before ``GET /historical/cutoff`` (about three months ago), and trades made before it, are only in
the archive below ``/historical`` (Kalshi OpenAPI 3.34.0). All of these calls are public.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec

from arb_pipeline.model import Anomaly, AnomalyKind, Candle, Trade
from arb_pipeline.units import parse_price, parse_size, parse_trade_price
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.http import HttpStatusError, RestClient
from arb_pipeline.venues.kalshi import rest, wire

__all__ = ["KalshiHistory"]

_SECOND: Final = 1_000_000_000
_MARKETS_PER_CALL: Final = 100
_CANDLES_PER_CALL: Final = 10_000
_CANDLES_PER_MARKET: Final = 5_000
"""What both tiers give of one market; the live one is said to give twice as many."""
_EXAMPLE: Final = 500
_NOT_FOUND: Final = 404


class _Points(msgspec.Struct, gc=False):
    """Prices of one side of a candlestick. The archive's names have no suffix."""

    open_dollars: str | None = None
    high_dollars: str | None = None
    low_dollars: str | None = None
    close_dollars: str | None = None
    mean_dollars: str | None = None
    open: str | None = None
    high: str | None = None
    low: str | None = None
    close: str | None = None
    mean: str | None = None

    def ohlc(self) -> tuple[str, str, str, str] | None:
        """Open, high, low and close, None where they are null together.

        Raises:
            WireError: if some of them are missing.
        """
        found = [
            own if own is not None else archived
            for own, archived in (
                (self.open_dollars, self.open),
                (self.high_dollars, self.high),
                (self.low_dollars, self.low),
                (self.close_dollars, self.close),
            )
        ]
        given = [text for text in found if text is not None]
        if not given:
            return None
        if len(given) < len(found):
            raise wire.WireError(AnomalyKind.MISSING_FIELD, f"a candlestick gives {given} of open, high, low, close")
        return given[0], given[1], given[2], given[3]


class _Candlestick(msgspec.Struct, gc=False):
    end_period_ts: int
    yes_bid: _Points | None = None
    yes_ask: _Points | None = None
    price: _Points | None = None
    volume_fp: str | None = None
    volume: str | None = None
    open_interest_fp: str | None = None
    open_interest: str | None = None


class _OfMarket(msgspec.Struct, gc=False):
    market_ticker: str
    candlesticks: list[msgspec.Raw] | None = None


class _Batch(msgspec.Struct, gc=False):
    markets: list[_OfMarket] | None = None


class _Archived(msgspec.Struct, gc=False):
    candlesticks: list[msgspec.Raw] | None = None


class _Cutoff(msgspec.Struct, gc=False):
    market_settled_ts: str
    trades_created_ts: str


class KalshiHistory:
    """See :class:`arb_pipeline.venues.base.History`."""

    intervals_s: tuple[int, ...] = (60, 3_600, 86_400)

    async def candles(
        self, client: RestClient, markets: Sequence[str], interval_s: int, start_ns: int, end_ns: int
    ) -> AsyncIterator[list[Candle | Anomaly]]:
        """``GET /markets/candlesticks`` for up to 100 markets and 10,000 candlesticks a call.

        A market that has none there is asked for in the archive, where it would be if it settled before the cutoff.

        Raises:
            ValueError: if there are no candlesticks of this length.
            HttpStatusError: if the venue refuses a call.
            VenueError: if an answer is not of the documented form.
        """
        if interval_s not in self.intervals_s:
            raise ValueError(f"interval {interval_s} s: Kalshi has candlesticks of {self.intervals_s} seconds")
        archived_before = (await _cutoff(client))[0]
        step = interval_s * _SECOND
        for window in range(start_ns, end_ns, _CANDLES_PER_MARKET * step):
            until = min(end_ns, window + _CANDLES_PER_MARKET * step)
            # The venue asks for ends, both bounds included.
            span = {
                "start_ts": -(-window // _SECOND) + interval_s,
                "end_ts": -(-(until + step) // _SECOND) - 1,
                "period_interval": interval_s // 60,
            }
            per_market = (span["end_ts"] - span["start_ts"]) // interval_s + 1
            at_once = max(1, min(_MARKETS_PER_CALL, _CANDLES_PER_CALL // per_market))
            for first in range(0, len(markets), at_once):
                chosen = markets[first : first + at_once]
                body = await client.get_bytes("/markets/candlesticks", {"market_tickers": ",".join(chosen), **span})
                answer = _decoded(body, _Batch, "GET /markets/candlesticks").markets or []
                found = {market.market_ticker: market.candlesticks or [] for market in answer}
                for ticker in chosen:
                    records = found.get(ticker) or []
                    if not records and window < archived_before:
                        records = await _archived(client, ticker, span)
                    candles = [_candle(record, ticker, interval_s) for record in records]
                    yield [one for one in candles if isinstance(one, Anomaly) or window <= one.begin_ns < until]

    async def trades(
        self, client: RestClient, market_id: str, start_ns: int, end_ns: int
    ) -> AsyncIterator[list[Trade | Anomaly]]:
        """``GET /markets/trades`` of a market, and ``GET /historical/trades`` for what is older than the cutoff.

        Raises:
            HttpStatusError: if the venue refuses a page.
            VenueError: if a page is no object with a cursor, or a cursor comes again.
        """
        archived_before = (await _cutoff(client))[1]
        # Filters are whole seconds, so the second of the cutoff is asked for on both sides.
        tiers = (("/historical/trades", start_ns, min(end_ns, archived_before)), ("/markets/trades", start_ns, end_ns))
        for path, begin, end in tiers:
            if begin >= end:
                continue
            params = {"ticker": market_id, "min_ts": begin // _SECOND, "max_ts": -(-end // _SECOND)}
            async for body in rest.trade_pages(client, path, params):
                found = rest.trades_of_page(body, None)
                yield [one for one in found if isinstance(one, Anomaly) or start_ns <= one.recv_ns < end_ns]


async def _cutoff(client: RestClient) -> tuple[int, int]:
    """Before which times settled markets and trades are archived; 0 where the venue has no archive."""
    try:
        body = await client.get_bytes("/historical/cutoff")
    except HttpStatusError as error:
        if error.status != _NOT_FOUND:
            raise
        return 0, 0
    cutoff = _decoded(body, _Cutoff, "GET /historical/cutoff")
    settled, created = wire.ns_from_text(cutoff.market_settled_ts), wire.ns_from_text(cutoff.trades_created_ts)
    if settled is None or created is None:
        raise VenueError(f"kalshi GET /historical/cutoff: {body[:200]!r} does not tell two UTC times")
    return settled, created


async def _archived(client: RestClient, ticker: str, span: dict[str, int]) -> list[msgspec.Raw]:
    try:
        body = await client.get_bytes(f"/historical/markets/{ticker}/candlesticks", span)
    except HttpStatusError as error:
        if error.status != _NOT_FOUND:
            raise
        return []
    return _decoded(body, _Archived, f"GET /historical/markets/{ticker}/candlesticks").candlesticks or []


def _decoded(body: bytes, kind: type[Any], call: str) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise VenueError(f"kalshi {call}: {error}: {body[:200]!r}") from error


def _candle(element: msgspec.Raw, ticker: str, interval_s: int) -> Candle | Anomaly:
    try:
        record = msgspec.json.decode(element, type=_Candlestick)
        end_ns = record.end_period_ts * _SECOND
        price = record.price.ohlc() if record.price is not None else None
        mean = None if record.price is None else record.price.mean_dollars or record.price.mean
        volume = record.volume_fp or record.volume
        interest = record.open_interest_fp or record.open_interest
        return Candle(
            ticker,
            end_ns - interval_s * _SECOND,
            end_ns,
            _quoted(record.yes_bid),
            _quoted(record.yes_ask),
            None if price is None else _ordered([parse_trade_price(text) for text in price]),
            None if mean is None else parse_trade_price(mean),
            None if volume is None else parse_size(volume),
            None if interest is None else parse_size(interest),
        )
    except (ValueError, RecursionError) as error:
        kind, detail = wire.classify(error)
        example = bytes(element)[:_EXAMPLE].decode("utf-8", "replace")
        return Anomaly(kind, detail[:_EXAMPLE], 0, ticker, example)


def _quoted(points: _Points | None) -> tuple[int, int, int, int] | None:
    texts = None if points is None else points.ohlc()
    return None if texts is None else _ordered([parse_price(text) for text in texts])


def _ordered(prices: Sequence[int]) -> tuple[int, int, int, int]:
    """Open, high, low, close that can be.

    Raises:
        WireError: if the high is not the highest or the low not the lowest.
    """
    first, high, low, last = prices
    if not low <= min(first, last) <= max(first, last) <= high:
        message = f"open, high, low, close {first}, {high}, {low}, {last}: not in order"
        raise wire.WireError(AnomalyKind.BAD_NUMBER, message)
    return first, high, low, last
