"""Polymarket's market channel, typed: every event it sends, in its old and its new forms.

Facts: docs.polymarket.com "Market Channel" with its changelog (2025-09-15: ``price_changes`` replaces ``changes``).
Prices and sizes stay text here. ``omit_defaults`` lets the same structs write frames: what is not set is not sent.
"""

from typing import Final, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from arb_pipeline.model import AnomalyKind
from arb_pipeline.units import ONE

__all__ = [
    "PING",
    "PONG",
    "BestBidAsk",
    "BookMessage",
    "Change",
    "Head",
    "LastTradePrice",
    "Lifecycle",
    "OldPriceChange",
    "PriceChange",
    "PriceChangeMessage",
    "TickSizeChange",
    "WireLevel",
    "WireSide",
    "best_price",
    "decode_array",
    "decode_best_bid_ask",
    "decode_book",
    "decode_head",
    "decode_last_trade_price",
    "decode_lifecycle",
    "decode_old_price_change",
    "decode_price_change",
    "decode_tick_size_change",
    "error_kind",
    "padded_price",
    "venue_ns",
]

WireSide = Literal["BUY", "SELL"]
"""``BUY`` is a bid, ``SELL`` an ask; of a trade, the taker's side."""

PONG: Final = "PONG"
PING: Final = "PING"

_MAX_INT64 = 2**63 - 1
_NS_PER_MS = 1_000_000


class WireLevel(msgspec.Struct, frozen=True, gc=False):
    """One level of a ``book``."""

    price: str
    size: str


class BookMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A token's whole book: the ``book`` event, and the answer of CLOB ``/book``.

    ``buys`` and ``sells`` are the sides' names in very old captures. ``min_order_size`` and ``neg_risk`` come by REST
    only, ``tick_size`` and ``last_trade_price`` there and in the first snapshot of a subscription, ``version`` on
    Protocol V2 markets. Level order is not relied upon.
    """

    market: str
    asset_id: str
    timestamp: str
    hash: str = ""
    bids: list[WireLevel] | UnsetType | None = UNSET
    asks: list[WireLevel] | UnsetType | None = UNSET
    buys: list[WireLevel] | UnsetType | None = UNSET
    sells: list[WireLevel] | UnsetType | None = UNSET
    tick_size: str | None = None
    event_type: str = ""
    last_trade_price: str | None = None
    min_order_size: str | None = None
    neg_risk: bool | None = None
    version: str | None = None


class PriceChange(msgspec.Struct, gc=False, omit_defaults=True):
    """One token's level in a ``price_change``.

    ``size`` is the level's new absolute size, ``hash`` that of the token's whole resulting book, ``best_bid`` and
    ``best_ask`` the top after the change.
    """

    asset_id: str
    price: str
    size: str
    side: WireSide
    hash: str = ""
    best_bid: str | None = None
    best_ask: str | None = None


class PriceChangeMessage(msgspec.Struct, omit_defaults=True):
    """``price_change`` since 2025-09-15 23:00 UTC: one order change, told for both tokens."""

    market: str
    price_changes: list[PriceChange] | None
    timestamp: str
    event_type: str = ""


class Change(msgspec.Struct, gc=False):
    """One level of a ``price_change`` before 2025-09-15."""

    price: str
    size: str
    side: WireSide


class OldPriceChange(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``price_change`` before 2025-09-15: one token, ``changes`` or one flat change."""

    asset_id: str
    market: str
    timestamp: str
    hash: str = ""
    changes: list[Change] | UnsetType | None = UNSET
    price: str | UnsetType = UNSET
    size: str | UnsetType = UNSET
    side: WireSide | UnsetType = UNSET


class LastTradePrice(msgspec.Struct, omit_defaults=True):
    """``last_trade_price``: one taker order at one level, told for one token of the pair."""

    market: str
    asset_id: str
    price: str
    size: str
    fee_rate_bps: str | None = None
    side: WireSide | Literal[""] | None = None
    timestamp: str = ""
    event_type: str = ""
    transaction_hash: str | None = None


class TickSizeChange(msgspec.Struct, omit_defaults=True):
    """``tick_size_change``: the grid of a market changed; a new book epoch."""

    market: str
    asset_id: str
    new_tick_size: str
    old_tick_size: str | None = None
    timestamp: str = ""
    event_type: str = ""


class BestBidAsk(msgspec.Struct, omit_defaults=True):
    """``best_bid_ask``: intermittent, sometimes wrong; good for a cross-check only."""

    market: str
    asset_id: str
    best_bid: str | None = None
    best_ask: str | None = None
    spread: str | None = None
    timestamp: str = ""
    event_type: str = ""


class _EventMessage(msgspec.Struct):
    id: str = ""


class Lifecycle(msgspec.Struct):
    """``new_market``, sent to every connection with the feature flag many times over, and ``market_resolved``.

    Only what a session reads; the absence of ``market_resolved`` proves nothing.
    """

    event_type: str
    market: str
    winning_asset_id: str | None = None
    event_message: _EventMessage | None = None
    timestamp: str = ""
    clob_token_ids: list[str] | None = None
    assets_ids: list[str] | None = None
    order_price_min_tick_size: str | None = None


class Head(msgspec.Struct):
    """What tells a message's kind: its type, or its shape where the type is missing."""

    event_type: str | None = None
    bids: Raw | UnsetType = UNSET
    asks: Raw | UnsetType = UNSET
    buys: Raw | UnsetType = UNSET
    sells: Raw | UnsetType = UNSET
    price_changes: Raw | UnsetType = UNSET
    changes: Raw | UnsetType = UNSET

    @property
    def kind_by_shape(self) -> str:
        """The type that a message without one must have; empty if its shape does not tell."""
        if (self.bids is not UNSET and self.asks is not UNSET) or (self.buys is not UNSET and self.sells is not UNSET):
            return "book"
        return "price_change" if self.changes is not UNSET else ""

    @property
    def tells_levels(self) -> bool:
        """Some field holds levels, so that skipping the message may leave a book behind."""
        fields = (self.bids, self.asks, self.buys, self.sells, self.price_changes, self.changes)
        return any(value is not UNSET for value in fields)


decode_head = msgspec.json.Decoder(Head).decode
decode_array = msgspec.json.Decoder(list[Raw]).decode
decode_book = msgspec.json.Decoder(BookMessage).decode
decode_price_change = msgspec.json.Decoder(PriceChangeMessage).decode
decode_old_price_change = msgspec.json.Decoder(OldPriceChange).decode
decode_last_trade_price = msgspec.json.Decoder(LastTradePrice).decode
decode_tick_size_change = msgspec.json.Decoder(TickSizeChange).decode
decode_best_bid_ask = msgspec.json.Decoder(BestBidAsk).decode
decode_lifecycle = msgspec.json.Decoder(Lifecycle).decode


def error_kind(error: Exception) -> AnomalyKind:
    """The kind of anomaly that a decoding error is."""
    if isinstance(error, msgspec.ValidationError):
        return AnomalyKind.MISSING_FIELD if "missing required field" in str(error) else AnomalyKind.WRONG_TYPE
    return AnomalyKind.MALFORMED_JSON


def venue_ns(timestamp: str) -> int:
    """The channel's time, milliseconds as text, in nanoseconds since the epoch.

    Raises:
        ValueError: if the text is no count of milliseconds.
    """
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 16):
        raise ValueError(f"timestamp {timestamp[:40]!r} is no count of milliseconds")
    ns = int(timestamp) * _NS_PER_MS
    if ns > _MAX_INT64:
        raise ValueError(f"timestamp {timestamp!r} does not fit 64 bits of nanoseconds")
    return ns


def best_price(price: int) -> int | None:
    """A told best price (1e-4 dollars) with the sentinels ``0`` and ``1`` of an empty side as None."""
    return price if 0 < price < ONE else None


def padded_price(text: str) -> str:
    """A trade's price as the book's ``last_trade_price`` writes it: at least three decimals, ``"0.43" -> "0.430"``."""
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(3, '0')}"
