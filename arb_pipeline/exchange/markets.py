"""The exchange's own state of each market: its record, its book and what the wire shows of them."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import msgspec

from arb_pipeline.exchange.book_hash import book_hash
from arb_pipeline.exchange.candles import Candles
from arb_pipeline.exchange.drafts import uuid_text
from arb_pipeline.exchange.source import InitialBook, Json
from arb_pipeline.model import Level, OrderBook, Side
from arb_pipeline.units import ONE, PRICE_SCALE, SIZE_SCALE, format_fixed, format_plain

__all__ = ["KalshiMarket", "PolymarketMarket", "dollars", "encode", "plain_price", "plain_size", "quantity", "rfc3339"]

_PRICE_DIGITS, _SIZE_DIGITS = 4, 6
_MS = 1_000_000

_encoder = msgspec.json.Encoder()


def encode(value: Any) -> str:
    """Compact JSON text."""
    return _encoder.encode(value).decode()


@lru_cache(maxsize=20_000)
def dollars(price: int) -> str:
    """Kalshi's price text: ``0.4200``."""
    return format_fixed(price, _PRICE_DIGITS, 4)


@lru_cache(maxsize=100_000)
def quantity(size: int) -> str:
    """Kalshi's count text: ``12.50``."""
    return format_fixed(size, _SIZE_DIGITS, 2)


@lru_cache(maxsize=20_000)
def plain_price(price: int) -> str:
    """Polymarket's price text, without trailing zeros: ``0.42``."""
    return format_plain(price, _PRICE_DIGITS)


@lru_cache(maxsize=100_000)
def plain_size(size: int) -> str:
    """Polymarket's size text, without trailing zeros: ``35.5``."""
    return format_plain(size, _SIZE_DIGITS)


def rfc3339(ms: int) -> str:
    """RFC 3339 in UTC cut to milliseconds, trailing zeros of the fraction trimmed as Kalshi does."""
    seconds, rest = divmod(ms, 1000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{rest:03d}".rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


class _Market:
    """What markets of both venues have.

    Attributes:
        record: the raw market of the catalogue; changed in place, since the catalogue shows it.
        book: what the venue shows.
        shelf: the book put by while the market is closed, None while it is open.
        settled: whether it was closed with a result.
    """

    def __init__(self, record: Json, event: Json) -> None:
        self.record = record
        self.event = event
        self.book = OrderBook()
        self.shelf: OrderBook | None = None
        self.settled = False
        self._open_record: Json = {}

    @property
    def moving(self) -> OrderBook:
        """The book that playback moves: the shelved one while the market is closed."""
        return self.book if self.shelf is None else self.shelf

    def close(self, changes: Json, *, settled: bool) -> None:
        """Put the book by, show an empty one, and change the record."""
        self.settled = settled
        self.shelf, self.book = self.book, OrderBook()
        self._open_record = dict(self.record)
        self.record.update(changes)

    def reopen(self) -> None:
        """Show the book as it would have become, and the record as it was."""
        self.book, self.shelf = self.moving, None
        self.record.clear()
        self.record.update(self._open_record)


class KalshiMarket(_Market):
    """One Kalshi market; the book is in YES terms, the wire has two ladders of bids."""

    def __init__(self, ticker: str, record: Json, event: Json, *, has_clock: bool) -> None:
        super().__init__(record, event)
        self.ticker = ticker
        self.market_uuid = uuid_text("kalshi", ticker)
        self.candles = Candles()
        self.clock: int | None = 0 if has_clock else None
        self.last_price = 0
        self.last_size = 0
        self.traded = 0
        self.changed = False

    def start(self, book: InitialBook) -> None:
        """Take over the book before playback."""
        self.book.replace(book.bids, book.asks)
        if book.clock is not None:
            self.clock = book.clock

    def ladders(self, *, yes_scale: bool = False) -> tuple[list[list[str]], list[list[str]]]:
        """YES and NO bids as sent, prices rising; NO prices on the YES scale when asked for (``use_yes_price``)."""
        yes = [[dollars(price), quantity(size)] for price, size in sorted(self.book.bids.items())]
        asks = sorted(self.book.asks.items(), reverse=not yes_scale)
        no = [[dollars(price if yes_scale else ONE - price), quantity(size)] for price, size in asks]
        return yes, no

    def snapshot(self, *, yes_scale: bool) -> str:
        """The ``msg`` of an ``orderbook_snapshot``; an empty side has no key."""
        yes, no = self.ladders(yes_scale=yes_scale)
        msg: Json = {"market_ticker": self.ticker, "market_id": self.market_uuid}
        if self.clock is not None:
            msg["clock"] = self.clock
        if yes:
            msg["yes_dollars_fp"] = yes
        if no:
            msg["no_dollars_fp"] = no
        return encode(msg)

    def delta(self, side: Side, price: int, change: int, ts_ms: int, *, yes_scale: bool) -> str:
        """The ``msg`` of an ``orderbook_delta``."""
        clock = "" if self.clock is None else f'"clock":{self.clock},'
        own = price if side == "bid" or yes_scale else ONE - price
        return (
            f'{{"market_ticker":"{self.ticker}","market_id":"{self.market_uuid}",{clock}'
            f'"price_dollars":"{dollars(own)}","delta_fp":"{quantity(change)}",'
            f'"side":"{"yes" if side == "bid" else "no"}","ts":"{rfc3339(ts_ms)}","ts_ms":{ts_ms}}}'
        )

    def trade(self, trade_id: str, price: int, size: int, taker: Literal["yes", "no"], ts_ms: int) -> Json:
        """The ``msg`` of a ``trade``; counts into last price and volume."""
        self.candles.trade(ts_ms, price, size, (self.book.best_bid, self.book.best_ask))
        self.last_price, self.last_size = price, size
        self.traded += size
        return {
            "trade_id": trade_id,
            "market_ticker": self.ticker,
            "yes_price_dollars": dollars(price),
            "no_price_dollars": dollars(ONE - price),
            "count_fp": quantity(size),
            "taker_side": taker,
            "taker_outcome_side": taker,
            "taker_book_side": "bid" if taker == "yes" else "ask",
            "is_block_trade": False,
            "ts": ts_ms // 1000,
            "ts_ms": ts_ms,
        }

    def ticker_msg(self, ts_ms: int) -> str:
        """The ``msg`` of a ``ticker``."""
        quotes = self.quotes()
        volume = _fixed(self.record.get("volume_fp")) + self.traded
        interest = _fixed(self.record.get("open_interest_fp"))
        return encode(
            {
                "market_id": self.market_uuid,
                "market_ticker": self.ticker,
                "price_dollars": quotes["last_price_dollars"],
                "yes_bid_dollars": quotes["yes_bid_dollars"],
                "yes_ask_dollars": quotes["yes_ask_dollars"],
                "yes_bid_size_fp": quotes["yes_bid_size_fp"],
                "yes_ask_size_fp": quotes["yes_ask_size_fp"],
                "last_trade_size_fp": quantity(self.last_size),
                "volume_fp": quantity(volume),
                "open_interest_fp": quantity(interest),
                "dollar_volume": volume // (2 * SIZE_SCALE),
                "dollar_open_interest": interest // (2 * SIZE_SCALE),
                "ts": ts_ms // 1000,
                "ts_ms": ts_ms,
                "time": rfc3339(ts_ms),
            }
        )

    def quotes(self) -> Json:
        """The quote fields of a REST market; an empty side is 0 or 1 with size 0."""
        bid, bid_size, ask, ask_size = self.book.top()
        low, high = bid or 0, ONE if ask is None else ask
        return {
            "yes_bid_dollars": dollars(low),
            "yes_bid_size_fp": quantity(bid_size or 0),
            "yes_ask_dollars": dollars(high),
            "yes_ask_size_fp": quantity(ask_size or 0),
            "no_bid_dollars": dollars(ONE - high),
            "no_ask_dollars": dollars(ONE - low),
            "last_price_dollars": dollars(self.last_price) if self.last_price else self.record["last_price_dollars"],
        }


class PolymarketMarket(_Market):
    """One Polymarket market: a single book in terms of outcome 0, shown as two mirrored token books."""

    def __init__(self, condition_id: str, record: Json, event: Json, tokens: tuple[str, str]) -> None:
        super().__init__(record, event)
        self.condition_id = condition_id
        self.tokens = tokens
        self.has_book = False
        self.timestamp_ms = 0
        self.last_trade_price = ""
        self.last_side = ""
        self.top_changes = 0
        self.tick_size = plain_price(round(record.get("orderPriceMinTickSize", 0.01) * PRICE_SCALE))
        self.min_order_size = f"{record.get('orderMinSize', 5):g}"
        self.neg_risk = bool(record.get("negRisk", False))

    @property
    def closed(self) -> bool:
        """Whether the record says that the market is over."""
        return bool(self.record.get("closed"))

    def start(self, book: InitialBook, now_ms: int) -> None:
        """Take over the book before playback."""
        self.book.replace(book.bids, book.asks)
        self.has_book = True
        self.timestamp_ms = book.timestamp_ms or now_ms
        self.last_trade_price = book.last_trade_price

    def levels(self, index: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """A token's bids (rising) and asks (falling) in wire form: the best level comes last."""
        bids: Sequence[Level] = sorted(self.book.bids.items())
        asks: Sequence[Level] = sorted(self.book.asks.items(), reverse=True)
        if index:
            bids, asks = [(ONE - price, size) for price, size in asks], [(ONE - price, size) for price, size in bids]
        return (
            [{"price": plain_price(price), "size": plain_size(size)} for price, size in bids],
            [{"price": plain_price(price), "size": plain_size(size)} for price, size in asks],
        )

    def hash(self, index: int) -> str:
        """The true hash of a token's book as it stands."""
        bids, asks = self.levels(index)
        return book_hash(
            market=self.condition_id,
            asset_id=self.tokens[index],
            timestamp=str(self.timestamp_ms),
            bids=bids,
            asks=asks,
            min_order_size=self.min_order_size,
            tick_size=self.tick_size,
            neg_risk=self.neg_risk,
            last_trade_price=self.last_trade_price,
        )

    def rest_book(self, index: int) -> Json:
        """The answer of ``/book``, keys in the venue's order."""
        bids, asks = self.levels(index)
        return {
            "market": self.condition_id,
            "asset_id": self.tokens[index],
            "timestamp": str(self.timestamp_ms),
            "hash": self.hash(index),
            "bids": bids,
            "asks": asks,
            "min_order_size": self.min_order_size,
            "tick_size": self.tick_size,
            "neg_risk": self.neg_risk,
            "last_trade_price": self.last_trade_price,
        }

    def book_event(self, index: int, *, initial: bool) -> Json:
        """A ``book`` message: after a subscription with tick and last price, in mid-stream without."""
        bids, asks = self.levels(index)
        event: Json = {"market": self.condition_id, "asset_id": self.tokens[index]}
        if initial:
            event |= {"timestamp": str(self.timestamp_ms), "hash": self.hash(index), "bids": bids, "asks": asks}
            event |= {"tick_size": self.tick_size, "event_type": "book", "last_trade_price": self.last_trade_price}
        else:
            event |= {"bids": bids, "asks": asks, "hash": self.hash(index)}
            event |= {"timestamp": str(self.timestamp_ms), "event_type": "book"}
        return event

    def top_texts(self, index: int) -> tuple[str, str]:
        """A token's best bid and ask; an empty side is ``0`` or ``1``."""
        bid, ask = self.book.best_bid, self.book.best_ask
        low, high = bid or 0, ONE if ask is None else ask
        if index:
            low, high = ONE - high, ONE - low
        return plain_price(low), plain_price(high)

    def price_change(self, side: Side, price: int, size: int) -> Json:
        """A ``price_change`` message: the change and its mirror, each with the hash of the resulting book."""
        entries = []
        for index, token in enumerate(self.tokens):
            bid, ask = self.top_texts(index)
            entries.append(
                {
                    "asset_id": token,
                    "price": plain_price(ONE - price if index else price),
                    "size": plain_size(size),
                    "side": "BUY" if (side == "bid") != bool(index) else "SELL",
                    "hash": self.hash(index),
                    "best_bid": bid,
                    "best_ask": ask,
                }
            )
        return {
            "market": self.condition_id,
            "price_changes": entries,
            "timestamp": str(self.timestamp_ms),
            "event_type": "price_change",
        }

    def quotes(self) -> Json:
        """The price fields of a Gamma market: floats, and none where there is no bid."""
        bid, ask = self.book.best_bid, self.book.best_ask
        low, high = bid or 0, ONE if ask is None else ask
        middle = (low + high) / 2 / PRICE_SCALE
        fields: Json = {
            "outcomePrices": json.dumps([f"{middle:.6g}", f"{1 - middle:.6g}"]),
            "bestAsk": high / PRICE_SCALE,
            "spread": round((high - low) / PRICE_SCALE, 4),
            "lastTradePrice": float(self.last_trade_price or 0),
        }
        if bid is not None:
            fields["bestBid"] = bid / PRICE_SCALE
        return fields


def _fixed(text: Any) -> int:
    """A count text of a record in 1e-6 contracts; nothing is 0."""
    return round(float(text or 0) * 100) * (SIZE_SCALE // 100)
