"""Venue-neutral vocabulary: what every room above the venues speaks.

Prices and sizes are the integers of :mod:`arb_pipeline.units`, in YES terms: one book per market, bids and asks
for YES, whatever the venue sends. Times ending in ``_ns`` are nanoseconds since the Unix epoch, times ending in
``_at`` aware UTC datetimes.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

from arb_pipeline.units import ONE

__all__ = [
    "AccountEvent",
    "AccountKind",
    "Anomaly",
    "AnomalyKind",
    "BookDelta",
    "BookSnapshot",
    "ChangeKind",
    "Command",
    "Event",
    "FeeChange",
    "FeeScope",
    "FetchBooks",
    "GapClosed",
    "GapOpened",
    "Level",
    "Market",
    "MarketChange",
    "MarketEvent",
    "MarketFacts",
    "MarketStatus",
    "MatchStatus",
    "OrderBook",
    "Output",
    "PriceRange",
    "Quote",
    "Reconnect",
    "Relation",
    "Send",
    "SettlementSource",
    "Side",
    "Source",
    "Ticker",
    "Top",
    "Trade",
    "rules_digest",
]

Side = Literal["bid", "ask"]
"""Side of the YES book."""

Source = Literal["ws", "rest"]
"""How a row reached us: pushed over the WebSocket or polled over REST."""

Level = tuple[int, int]
"""(price, size): 1e-4 dollars, 1e-6 contracts."""

Top = tuple[int | None, int | None, int | None, int | None]
"""(bid, bid_size, ask, ask_size) of a book; an empty side is ``None, None``."""


class MarketStatus(StrEnum):
    """Where a market stands in its life, the same words for every venue."""

    UNOPENED = "unopened"
    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"
    DETERMINED = "determined"
    SETTLED = "settled"


class Relation(StrEnum):
    """How the YES of a Kalshi market relates to the YES (outcome 0) of a Polymarket market."""

    EQUIVALENT = "equivalent"
    INVERTED = "inverted"
    KALSHI_IMPLIES_POLYMARKET = "kalshi_implies_polymarket"
    POLYMARKET_IMPLIES_KALSHI = "polymarket_implies_kalshi"
    EXCLUSIVE = "exclusive"
    RELATED = "related"
    DIFFERENT = "different"


class MatchStatus(StrEnum):
    """How far a match may be trusted. Only ``auto`` and ``approved`` pairs count as arbitrage."""

    AUTO = "auto"
    REVIEW = "review"
    REJECTED = "rejected"
    APPROVED = "approved"
    REFUSED = "refused"
    EXPIRED = "expired"


# --- catalogue ---------------------------------------------------------------------------------------------


class SettlementSource(msgspec.Struct, frozen=True, kw_only=True):
    """Who decides: a name and a URL, either may be empty."""

    name: str = ""
    url: str = ""


class PriceRange(msgspec.Struct, frozen=True, kw_only=True):
    """A band of the price grid: prices in [start, end] move in steps of ``step``, all in 1e-4 dollars."""

    start: int
    end: int
    step: int


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """One binary question on one venue, as its catalogue tells it.

    Attributes:
        market_id: Kalshi ticker or Polymarket condition id (32-byte form).
        event_id: the venue's id of the event it belongs to.
        title: the full question.
        yes_title: what YES stands for where the event has several markets (a name, a bracket, a team).
        outcomes: names of the two outcomes, YES first.
        status: venue-neutral status; ``venue_status`` keeps the venue's own word.
        result: ``yes``, ``no``, a split such as ``0.5``, or empty while open.
        rules: the legal text that decides, all parts joined by a blank line.
        price_ranges: the price grid; ``tick`` is its finest step.
        min_size, size_step: smallest order and lot, 1e-6 contracts.
        yes_token_id, no_token_id: Polymarket position ids; empty elsewhere or while not minted.
        neg_risk: whether the venue nets the event's outcomes against one another.
        fee_params: the fee parameters that the venue publishes for this market, as the venue's ``fees`` reads them.
        strike: strike, line and slug fields that matching reads, by the venue's own names.
        volume, volume_24h, open_interest: 1e-6 contracts (Polymarket volume: 1e-6 dollars), None if not told.
        liquidity: the venue's own liquidity figure, 1e-6 dollars, None if not told.
        raw: the venue's record as received, compact JSON.
    """

    venue: str
    market_id: str
    event_id: str
    series_id: str = ""
    title: str
    yes_title: str = ""
    no_title: str = ""
    slug: str = ""
    url: str = ""
    outcomes: tuple[str, str] = ("Yes", "No")
    status: MarketStatus
    venue_status: str = ""
    result: str = ""
    rules: str = ""
    rules_sha256: str = ""
    settlement_sources: tuple[SettlementSource, ...] = ()
    created_at: datetime | None = None
    updated_at: datetime | None = None
    open_at: datetime | None = None
    close_at: datetime | None = None
    expected_expiration_at: datetime | None = None
    occurrence_at: datetime | None = None
    settlement_timer_s: int | None = None
    tick: int
    price_ranges: tuple[PriceRange, ...] = ()
    min_size: int
    size_step: int
    yes_token_id: str = ""
    no_token_id: str = ""
    neg_risk: bool = False
    fee_params: Mapping[str, Any] = {}
    strike: Mapping[str, Any] = {}
    volume: int | None = None
    volume_24h: int | None = None
    open_interest: int | None = None
    liquidity: int | None = None
    last_trade_price: str = ""
    raw: str = ""

    def facts(self) -> "MarketFacts":
        """The few facts that a session needs to keep this market's book."""
        return MarketFacts(
            venue=self.venue,
            market_id=self.market_id,
            yes_token_id=self.yes_token_id,
            no_token_id=self.no_token_id,
            tick=self.tick,
            min_size=self.min_size,
            neg_risk=self.neg_risk,
            last_trade_price=self.last_trade_price,
        )


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A group of markets about one occasion.

    Attributes:
        mutually_exclusive: at most one market resolves YES (never a promise that one does).
        listed_markets: how many markets the venue lists under it, those that could not be read included; None if that
            is not known.
        series_ids, tag_ids: the venue's own ids of the series and tags, where they have ids beside their names.
        raw: the venue's record as received without its markets, compact JSON.
    """

    venue: str
    event_id: str
    series_id: str = ""
    title: str
    sub_title: str = ""
    slug: str = ""
    url: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()
    series_ids: tuple[str, ...] = ()
    tag_ids: tuple[str, ...] = ()
    rules: str = ""
    mutually_exclusive: bool = False
    listed_markets: int | None = None
    settlement_sources: tuple[SettlementSource, ...] = ()
    start_at: datetime | None = None
    end_at: datetime | None = None
    updated_at: datetime | None = None
    markets: tuple[Market, ...] = ()
    raw: str = ""


FeeScope = Literal["default", "series", "event", "market"]
"""What a fee parameter is set for; the later word precedes the earlier one."""


class FeeChange(msgspec.Struct, frozen=True, kw_only=True):
    """Fee parameters that hold for a scope from a time on, until its next change.

    Attributes:
        scope_id: series ticker (Polymarket: category), event ticker or market id; empty for ``default``.
        params: values by the names that the venue's ``fees`` reads, numbers as plain decimals. A name that is missing
            is as the wider scope has it, so that none at all clears an override.
        valid_from: 1970-01-01 stands for "always".
        source: where it is written: a documentation page, or the call that told it.
    """

    venue: str
    scope: FeeScope
    scope_id: str = ""
    params: Mapping[str, str] = {}
    valid_from: datetime
    source: str


class MarketFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a session must know of a market: identity, grid, and the inputs of Polymarket's book hash.

    Attributes:
        tick: 1e-4 dollars. min_size: 1e-6 contracts.
        last_trade_price: the market-level text that enters Polymarket's hash (``"0.430"``), empty if unknown.
    """

    venue: str
    market_id: str
    yes_token_id: str = ""
    no_token_id: str = ""
    tick: int = 100
    min_size: int = 0
    neg_risk: bool = False
    last_trade_price: str = ""


def rules_digest(rules: str) -> str:
    """SHA-256 of a rules text: one changed character re-opens a match."""
    return hashlib.sha256(rules.encode()).hexdigest()


# --- order book --------------------------------------------------------------------------------------------


class OrderBook:
    """One market's book in YES terms: a dict per side with the best price tracked.

    Sizes are absolute. A side's best price is rescanned only when its best level is lost, which measures faster
    than any sorted structure at the depths that these venues have.
    """

    __slots__ = ("asks", "best_ask", "best_bid", "bids", "negative_levels")

    def __init__(self) -> None:
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.best_bid: int | None = None
        self.best_ask: int | None = None
        self.negative_levels = 0

    def replace(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Take over a snapshot: whatever was known before is gone. Levels of size 0 are left out."""
        self.bids = {price: size for price, size in bids if size}
        self.asks = {price: size for price, size in asks if size}
        self.negative_levels = sum(size < 0 for side in (self.bids, self.asks) for size in side.values())
        self.best_bid = max(self.bids, default=None)
        self.best_ask = min(self.asks, default=None)

    def set_bid(self, price: int, size: int) -> None:
        """Set the size resting at a bid price; 0 removes the level."""
        bids = self.bids
        old = bids.get(price, 0)
        if old < 0 or size < 0:
            self.negative_levels += (size < 0) - (old < 0)
        if size:
            bids[price] = size
            if self.best_bid is None or price > self.best_bid:
                self.best_bid = price
        elif bids.pop(price, None) is not None and price == self.best_bid:
            self.best_bid = max(bids, default=None)

    def set_ask(self, price: int, size: int) -> None:
        """Set the size resting at an ask price; 0 removes the level."""
        asks = self.asks
        old = asks.get(price, 0)
        if old < 0 or size < 0:
            self.negative_levels += (size < 0) - (old < 0)
        if size:
            asks[price] = size
            if self.best_ask is None or price < self.best_ask:
                self.best_ask = price
        elif asks.pop(price, None) is not None and price == self.best_ask:
            self.best_ask = min(asks, default=None)

    def set(self, side: Side, price: int, size: int) -> None:
        """Set the absolute size of one level of the named side; 0 removes it."""
        (self.set_bid if side == "bid" else self.set_ask)(price, size)

    def top(self) -> Top:
        """Best bid and ask with their sizes."""
        bid, ask = self.best_bid, self.best_ask
        return (
            bid,
            None if bid is None else self.bids[bid],
            ask,
            None if ask is None else self.asks[ask],
        )

    @property
    def crossed(self) -> bool:
        """Whether a bid stands at or above an ask, which no matching engine leaves standing."""
        return self.best_bid is not None and self.best_ask is not None and self.best_bid >= self.best_ask

    def bid_levels(self) -> list[Level]:
        """Bids, best first."""
        return sorted(self.bids.items(), reverse=True)

    def ask_levels(self) -> list[Level]:
        """Asks, best first."""
        return sorted(self.asks.items())

    def yes_asks(self) -> list[Level]:
        """The ladder a buyer of YES walks, cheapest first."""
        return self.ask_levels()

    def no_asks(self) -> list[Level]:
        """The ladder a buyer of NO walks, cheapest first: YES bids seen from the other side."""
        return [(ONE - price, size) for price, size in self.bid_levels()]


# --- what a session says -----------------------------------------------------------------------------------


class BookSnapshot(msgspec.Struct, frozen=True, gc=False):
    """A market's whole book; it replaces whatever was known.

    Attributes:
        reason: ``initial`` after a subscription, ``resync`` after a doubt, ``venue`` when the venue sent one
            unasked (at close, after a trade), ``hour`` for the opening snapshot of an hour partition.
        in_sync: whether the book may be trusted from here on.
    """

    market_id: str
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    recv_ns: int
    venue_ns: int | None
    seq: int | None
    epoch: int
    reason: Literal["initial", "resync", "venue", "hour"]
    in_sync: bool
    source: Source = "ws"


class BookDelta(msgspec.Struct, frozen=True, gc=False):
    """One level's new absolute size."""

    market_id: str
    side: Side
    price: int
    size: int
    recv_ns: int
    venue_ns: int | None
    seq: int | None
    epoch: int


class Quote(msgspec.Struct, frozen=True, gc=False):
    """The best bid and ask after a frame that changed one of the four; an empty side is None.

    A market's first snapshot on a connection counts as a change even when the book is empty.
    """

    market_id: str
    bid: int | None
    bid_size: int | None
    ask: int | None
    ask_size: int | None
    in_sync: bool
    recv_ns: int
    venue_ns: int | None
    seq: int | None
    source: Source = "ws"


class Trade(msgspec.Struct, frozen=True, gc=False):
    """A public trade. ``price`` is the YES price in 1e-9 dollars, ``size`` 1e-6 contracts."""

    market_id: str
    trade_id: str
    price: int
    size: int
    taker_side: Literal["yes", "no"] | None
    recv_ns: int
    venue_ns: int | None
    seq: int | None
    source: Source = "ws"


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One candlestick as a venue publishes it.

    Attributes:
        begin_ns, end_ns: the interval, ns since the epoch.
        bid, ask: open, high, low and close of the best YES price, 1e-4 dollars.
        price: the same of traded prices, 1e-9 dollars; None without a trade.
        mean: average traded price, 1e-9 dollars.
        volume, open_interest: 1e-6 contracts.
    """

    market_id: str
    begin_ns: int
    end_ns: int
    bid: tuple[int, int, int, int] | None
    ask: tuple[int, int, int, int] | None
    price: tuple[int, int, int, int] | None
    mean: int | None
    volume: int | None
    open_interest: int | None


class Ticker(msgspec.Struct, frozen=True, gc=False):
    """The venue's own conflated summary; never a source of book state.

    Prices in 1e-4 dollars, sizes in 1e-6 contracts, None where not told.
    """

    market_id: str
    bid: int | None
    bid_size: int | None
    ask: int | None
    ask_size: int | None
    last_price: int | None
    volume: int | None
    open_interest: int | None
    recv_ns: int
    venue_ns: int | None
    source: Source = "ws"


class GapOpened(msgspec.Struct, frozen=True, gc=False):
    """From ``from_ns`` on, a market's book is not to be trusted."""

    market_id: str
    cause: str
    from_ns: int


class GapClosed(msgspec.Struct, frozen=True, gc=False):
    """Up to ``to_ns`` a market's book was not to be trusted; ``recovery`` says what ended the doubt."""

    market_id: str
    to_ns: int
    recovery: str


ChangeKind = Literal[
    "created", "activated", "deactivated", "times", "tick", "text", "fees", "determined", "settled", "event", "other"
]
"""What a :class:`MarketChange` is about, the same words for every venue."""


class MarketChange(msgspec.Struct, frozen=True, gc=False):
    """A life-cycle message: a market appeared, changed its status, times, grid or fees, or was resolved.

    Attributes:
        market_id: empty where a whole event changed.
        event_id, series_id: where the message tells them, else empty.
        kind: the venue's own word for it.
        details: the message's fields as they came.
        facts: of a market that was created, what it takes to subscribe it; None if the message does not tell.
        open_ns, close_ns: the times that it names, None otherwise.
        effective_ns: when the market was determined or settled, None otherwise.
    """

    market_id: str
    event_id: str
    kind: str
    recv_ns: int
    details: Mapping[str, Any]
    change: ChangeKind = "other"
    series_id: str = ""
    facts: MarketFacts | None = None
    open_ns: int | None = None
    close_ns: int | None = None
    effective_ns: int | None = None


AccountKind = Literal["fill", "order", "position", "order_group", "balance", "rfq", "quote", "rfq_batch", "batch_quote"]
"""What an :class:`AccountEvent` is about."""


class AccountEvent(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Something of the own account: a fill, an order's new state, a position, a balance, a quote asked or given.

    Attributes:
        event_id: deterministic, from the venue's own ids: the same fill has the same one however often and by
            whichever way it is told. Where the venue numbers no states (orders, positions), a digest of the message
            follows the id.
        status: the venue's word for what happened or how it stands (``resting``, ``MATCHED``, ``quote_accepted``).
        side: the own side in YES terms: ``bid`` buys YES or sells NO, ``ask`` sells YES or buys NO.
        price: YES price, 1e-9 dollars (a fill's may be an average).
        size: 1e-6 contracts: filled by a fill, asked for by an order, held (negative: NO) as a position, limit of an
            order group, asked for or accepted of a quote.
        filled: 1e-6 contracts of an order that are filled so far.
        fee: 1e-10 dollars, of this fill, or paid so far on this order or position.
        amount: 1e-10 dollars: cost of a position, cash of a balance, target cost of a request for quotes.
        is_taker: whether the own order took liquidity, None if not told.
        raw: the venue's message as received, without its envelope; never holds a secret.
    """

    venue: str
    kind: AccountKind
    event_id: str
    recv_ns: int
    venue_ns: int | None = None
    seq: int | None = None
    market_id: str | None = None
    status: str = ""
    side: Side | None = None
    price: int | None = None
    size: int | None = None
    filled: int | None = None
    fee: int | None = None
    amount: int | None = None
    is_taker: bool | None = None
    order_id: str | None = None
    client_order_id: str | None = None
    raw: str = ""
    source: Source = "ws"


class AnomalyKind(StrEnum):
    """Everything a session may find wrong. Each is counted, with an example kept; none stops the stream."""

    MALFORMED_JSON = "malformed_json"
    UNKNOWN_TYPE = "unknown_type"
    MISSING_FIELD = "missing_field"
    NULL_LIST = "null_list"
    WRONG_TYPE = "wrong_type"
    BAD_NUMBER = "bad_number"
    UNKNOWN_MARKET = "unknown_market"
    NO_SNAPSHOT = "no_snapshot"
    SEQ_GAP = "seq_gap"
    DUPLICATE = "duplicate"
    CROSSED_BOOK = "crossed_book"
    NEGATIVE_LEVEL = "negative_level"
    HASH_MISMATCH = "hash_mismatch"
    TOP_MISMATCH = "top_mismatch"
    MIRROR_MISMATCH = "mirror_mismatch"
    ASSUMED_YES_TOKEN = "assumed_yes_token"  # noqa: S105 - a market's token, not a secret
    PRICE_CONVENTION = "price_convention"
    VENUE_ERROR = "venue_error"
    SKIPPED = "skipped"


class Anomaly(msgspec.Struct, frozen=True, gc=False):
    """Something wrong with a frame or a book.

    Attributes:
        detail: field, value and what was expected, in words.
        example: the frame's beginning (at most 500 characters), empty if there is none.
    """

    kind: AnomalyKind
    detail: str
    recv_ns: int
    market_id: str = ""
    example: str = ""


MarketEvent = (
    BookSnapshot | BookDelta | Quote | Trade | Ticker | GapOpened | GapClosed | MarketChange | AccountEvent | Anomaly
)


# --- what a session asks for -------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send this text frame.

    Attributes:
        secret: the frame holds credentials: it goes to the socket and nowhere else (no journal, log or ``repr``).
    """

    frame: str
    secret: bool = False

    def __repr__(self) -> str:
        return f"Send(frame={'<secret>' if self.secret else self.frame!r})"


class FetchBooks(msgspec.Struct, frozen=True, gc=False):
    """Fetch these markets' books over REST and hand the answers to the session."""

    market_ids: tuple[str, ...]
    cause: str


class Reconnect(msgspec.Struct, frozen=True, gc=False):
    """Drop the connection and dial again."""

    cause: str


Command = Send | FetchBooks | Reconnect
Output = MarketEvent | Command
