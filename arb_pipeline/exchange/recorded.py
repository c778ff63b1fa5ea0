"""A recording as a source: the catalogue as recorded, books from its frames, and the frames themselves.

A market's first recorded snapshot is its book from the start and answers subscriptions; every later frame is played.
Where several recorded connections carry one market, the one that sent its newest snapshot is followed.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.exchange.drafts import instant
from arb_pipeline.exchange.polymarket_feed import book_levels
from arb_pipeline.exchange.source import Action, InitialBook, Json, KalshiFrame, PolymarketFrame
from arb_pipeline.model import Level, Side
from arb_pipeline.recordings import Frame, Recording
from arb_pipeline.units import ONE, parse_price, parse_size

__all__ = ["RecordingSource", "market_tokens"]

_SETTLED = ("settlement_ts", "settlement_value_dollars")


class _Msg(msgspec.Struct, frozen=True, gc=False):
    """What the exchange reads of a Kalshi message."""

    market_ticker: str = ""
    side: str = ""
    price_dollars: str = ""
    delta_fp: str = ""
    trade_id: str = ""
    clock: int | None = None
    yes_dollars_fp: list[tuple[str, str]] | None = None
    no_dollars_fp: list[tuple[str, str]] | None = None


class _Envelope(msgspec.Struct, frozen=True, gc=False):
    """A Kalshi frame."""

    type: str = ""
    msg: msgspec.Raw = msgspec.Raw(b"{}")


_envelopes = msgspec.json.Decoder(_Envelope)
_msgs = msgspec.json.Decoder(_Msg)
_PLAYED = frozenset(
    {
        "orderbook_snapshot",
        "orderbook_delta",
        "ticker",
        "trade",
        "market_lifecycle_v2",
        "event_lifecycle",
        "event_fee_update",
    }
)


class RecordingSource:
    """The markets of a recording, at the time of the recording."""

    live_quotes = False

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._yes_scale = bool(recording.meta["use_yes_price"])
        self._first_ns: int | None = None
        self._last_ns = 0
        self._books: dict[str, InitialBook] = {}
        self._kalshi_seen: dict[str, None] = {}
        self._has_clock = False
        self._kalshi = recording.events("kalshi")
        self._polymarket = recording.events("polymarket")
        self._tokens = _token_index(self._polymarket)
        self._scan()
        self._read_rest_books()

    @property
    def name(self) -> str:
        """``recording crossvenue-202607``."""
        return f"recording {self._recording.name}"

    @property
    def has_clock(self) -> bool:
        """Whether the recorded order-book messages carry the exchange clock."""
        return self._has_clock

    @property
    def hidden(self) -> frozenset[str]:
        """Nothing is hidden."""
        return frozenset()

    def clock_offset_ns(self, now_ns: int) -> int:
        """Shift into the recording: to its first frame or, without frames, to its newest book."""
        if self._first_ns is not None:
            return self._first_ns - now_ns
        newest = max((book.timestamp_ms or 0 for book in self._books.values()), default=0)
        return newest * 1_000_000 - now_ns if newest else 0

    def kalshi_events(self) -> list[Json]:
        """The recorded events, each market as it stood at the start; events of bare frames are made up from tickers."""
        known = {market["ticker"] for event in self._kalshi for market in event.get("markets") or ()}
        events = [self._as_of_start(event) for event in self._kalshi]
        return events + [self._bare_event(ticker) for ticker in self._kalshi_seen if ticker not in known]

    def kalshi_series(self) -> list[Json]:
        """One plain series per series ticker: recordings keep none, and fees hang on them."""
        tickers = dict.fromkeys(event.get("series_ticker", "") for event in self.kalshi_events())
        return [
            {
                "ticker": ticker,
                "title": ticker,
                "frequency": "custom",
                "category": "",
                "tags": None,
                "settlement_sources": None,
                "fee_type": "quadratic",
                "fee_multiplier": 1,
                "additional_prohibitions": None,
                "product_metadata": None,
            }
            for ticker in tickers
            if ticker
        ]

    def kalshi_fee_changes(self) -> tuple[list[Json], list[Json]]:
        """None: recordings keep none."""
        return [], []

    def polymarket_events(self) -> list[Json]:
        """The recorded events."""
        return self._polymarket

    def books(self) -> dict[str, InitialBook]:
        """First recorded snapshots, and the recorded REST books of markets without frames."""
        return self._books

    def timeline(self) -> Iterator[tuple[int, Action]]:
        """The recorded frames after each market's first snapshot."""
        first = self._first_ns or 0
        reader = _Reader(self._tokens, yes_scale=self._yes_scale)
        for venue, frame in self._recording.all_frames():
            action = reader.kalshi(frame) if venue == "kalshi" else reader.polymarket(frame)
            if action is not None:
                yield frame.recv_ns - first, action

    def truth(self) -> Json:
        """The recording's pairs; a pair that a person refused is a near miss."""
        pairs: list[Json] = []
        misses: list[Json] = []
        for pair in self._recording.pairs:
            index = pair.get("yes_outcome_index", 0)
            record = {"kalshi_market_id": pair["kalshi_ticker"], "polymarket_market_id": pair["condition_id"]}
            if pair.get("equivalent"):
                relation = "inverted" if index else "equivalent"
                pairs.append({**record, "relation": relation, "polymarket_yes_index": index})
            else:
                misses.append({**record, "trap": pair.get("notes", ""), "relation": "related"})
        return {"pairs": pairs, "near_misses": misses, "implied": [], "episodes": [], "phantoms": []}

    # --- reading -------------------------------------------------------------------------------------------

    def _scan(self) -> None:
        """One pass over all frames: the time span, the markets, and each market's first snapshot."""
        reader = _Reader(self._tokens, yes_scale=self._yes_scale)
        for venue, frame in self._recording.all_frames():
            self._first_ns = frame.recv_ns if self._first_ns is None else self._first_ns
            self._last_ns = frame.recv_ns
            action = reader.kalshi(frame) if venue == "kalshi" else reader.polymarket(frame)
            if isinstance(action, KalshiFrame):
                self._has_clock = self._has_clock or action.clock is not None
                if action.market_id:
                    self._kalshi_seen[action.market_id] = None
        self._kalshi_seen |= dict.fromkeys(reader.kalshi_first)
        self._books |= reader.kalshi_first | reader.polymarket_first

    def _read_rest_books(self) -> None:
        for ticker, ladders in (self._recording.books("kalshi") or {}).items():
            self._books.setdefault(ticker, _kalshi_book(ladders.get("yes_dollars"), ladders.get("no_dollars")))
        for book in self._recording.books("polymarket") or ():
            if book["asset_id"] in self._tokens:
                market_id, index = self._tokens[book["asset_id"]]
                self._books.setdefault(market_id, _polymarket_book(book, index))

    def _as_of_start(self, event: Json) -> Json:
        """The event with markets that closed later as they were at the first frame: active, without a result."""
        if self._first_ns is None:
            return event
        start = datetime_from_ns(self._first_ns)
        return {**event, "markets": [_opened_again(market, start) for market in event.get("markets") or ()]}

    def _bare_event(self, ticker: str) -> Json:
        parent = ticker.rpartition("-")[0] or ticker
        opened = datetime_from_ns(self._first_ns or 0)
        closes = datetime_from_ns(self._last_ns) + timedelta(days=1)
        market = {
            "ticker": ticker,
            "event_ticker": parent,
            "market_type": "binary",
            "title": ticker,
            "yes_sub_title": ticker,
            "no_sub_title": ticker,
            "created_time": instant(opened - timedelta(days=1)),
            "updated_time": instant(opened - timedelta(days=1)),
            "open_time": instant(opened - timedelta(hours=1)),
            "close_time": instant(closes),
            "expected_expiration_time": instant(closes),
            "latest_expiration_time": instant(closes),
            "settlement_timer_seconds": 1,
            "status": "active",
            "result": "",
            "can_close_early": False,
            "last_price_dollars": "0.0000",
            "volume_fp": "0.00",
            "volume_24h_fp": "0.00",
            "open_interest_fp": "0.00",
            "notional_value_dollars": "1.0000",
            "price_level_structure": "deci_cent",
            "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0010"}],
            "expiration_value": None,
            "rules_primary": "",
            "rules_secondary": "",
        }
        return {
            "event_ticker": parent,
            "series_ticker": ticker.partition("-")[0],
            "title": parent,
            "sub_title": "",
            "collateral_return_type": "",
            "mutually_exclusive": False,
            "settlement_sources": None,
            "category": "",
            "last_updated_ts": "0001-01-01T00:00:00Z",
            "markets": [market],
        }


class _Reader:
    """Turns recorded frames into actions, one pass in file order."""

    def __init__(self, tokens: dict[str, tuple[str, int]], *, yes_scale: bool) -> None:
        self.kalshi_first: dict[str, InitialBook] = {}
        self.polymarket_first: dict[str, InitialBook] = {}
        self._tokens = tokens
        self._yes_scale = yes_scale
        self._owner: dict[str, str] = {}
        self._trades: set[str] = set()

    def kalshi(self, frame: Frame) -> KalshiFrame | None:
        """The action of a Kalshi frame, None for a first snapshot, a reply, a copy, or no message at all."""
        try:
            envelope = _envelopes.decode(frame.frame)
            msg = _msgs.decode(envelope.msg) if envelope.type in _PLAYED else None
        except msgspec.DecodeError:
            return None
        if msg is None:
            return None
        ticker = msg.market_ticker
        snapshot: InitialBook | None = None
        change: tuple[Side, int, int] | None = None
        if envelope.type == "orderbook_snapshot":
            self._owner[ticker] = frame.conn
            snapshot = _kalshi_book(msg.yes_dollars_fp, msg.no_dollars_fp, yes_scale=self._yes_scale, clock=msg.clock)
            if ticker not in self.kalshi_first:
                self.kalshi_first[ticker] = snapshot
                return None
        elif envelope.type == "orderbook_delta":
            if self._owner.get(ticker) != frame.conn:
                return None
            price = parse_price(msg.price_dollars)
            if msg.side == "no" and not self._yes_scale:
                price = ONE - price
            change = ("bid" if msg.side == "yes" else "ask", price, parse_size(msg.delta_fp))
        elif envelope.type == "trade":
            if msg.trade_id in self._trades:
                return None
            self._trades.add(msg.trade_id)
        body = bytes(envelope.msg).decode()
        return KalshiFrame(ticker, envelope.type, body, self._yes_scale, snapshot, change, msg.clock)

    def polymarket(self, frame: Frame) -> PolymarketFrame | None:
        """The action of a Polymarket frame, None for first books, copies, ``PONG`` and whatever is no message."""
        try:
            message: Any = msgspec.json.decode(frame.frame)
        except msgspec.DecodeError:
            return None
        events = [event for event in (message if isinstance(message, list) else [message]) if isinstance(event, dict)]
        played = [event for event in events if self._plays(event, frame.conn)]
        if not played:
            return None
        text = frame.frame if len(played) == len(events) else json.dumps(played, separators=(",", ":"))
        return PolymarketFrame(text, tuple(played))

    def _plays(self, event: Json, conn: str) -> bool:
        if "bids" in event and "asks" in event:
            market_id, index = self._tokens.get(event["asset_id"], ("", 0))
            if not market_id:
                return False
            # A book with a tick size answers a subscription, so its connection is the one to follow from here.
            if "tick_size" in event or market_id not in self._owner:
                self._owner[market_id] = conn
            if market_id not in self.polymarket_first:
                self.polymarket_first[market_id] = _polymarket_book(event, index)
                return False
        return self._owner.get(str(event.get("market", "")), conn) == conn


def _token_index(events: list[Json]) -> dict[str, tuple[str, int]]:
    """(condition id, outcome index) by token."""
    return {
        token: (market["conditionId"], index)
        for event in events
        for market in event.get("markets") or ()
        for index, token in enumerate(market_tokens(market))
    }


def market_tokens(market: Json) -> list[str]:
    """The two tokens of a raw Gamma market, by its protocol version."""
    if market.get("version") == "v2":
        return list(market.get("positionIds") or ())
    tokens: list[str] = json.loads(market.get("clobTokenIds") or "[]")
    return tokens


def _kalshi_book(
    yes: list[Any] | None, no: list[Any] | None, *, yes_scale: bool = False, clock: int | None = None
) -> InitialBook:
    bids: list[Level] = [(parse_price(price), parse_size(size)) for price, size in yes or ()]
    asks: list[Level] = [
        (parse_price(price) if yes_scale else ONE - parse_price(price), parse_size(size)) for price, size in no or ()
    ]
    return InitialBook(tuple(bids), tuple(asks), clock=clock)


def _polymarket_book(book: Json, index: int) -> InitialBook:
    bids, asks = book_levels(book, index)
    return InitialBook(tuple(bids), tuple(asks), int(book["timestamp"]), book.get("last_trade_price", ""))


def _opened_again(market: Json, start: datetime) -> Json:
    closes = datetime.fromisoformat(market["close_time"]).astimezone(UTC)
    if market.get("status") == "active" or closes <= start:
        return market
    kept = {key: value for key, value in market.items() if key not in _SETTLED}
    return {**kept, "status": "active", "result": "", "expiration_value": ""}
