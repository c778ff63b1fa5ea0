"""Kalshi's WebSocket messages as typed structs, of today's and of earlier eras (Kalshi AsyncAPI 2.0.0).

Prices and counts are decoded to text and parsed by :mod:`arb_pipeline.units`; nothing is ever a float. A snapshot's
ladders ascend and hold bids only: the YES ask is one minus the NO bid. Recordings from before 2026-03-12 carry
integer cents and whole contracts under other names, all of which are read here.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import AnomalyKind, Level
from arb_pipeline.units import (
    PRICE_SCALE,
    SIZE_SCALE,
    TRADE_PRICE_SCALE,
    parse_price,
    parse_size,
    parse_trade_price,
)

__all__ = [
    "EVENT_TYPES",
    "MAX_COUNTER",
    "MAX_SIZE",
    "PASSIVE_TYPES",
    "TERMINAL_ERRORS",
    "ClientCommand",
    "CommandParams",
    "DeltaMsg",
    "Envelope",
    "ErrorFrame",
    "ErrorMsg",
    "LegacyRestBook",
    "LifecycleFrame",
    "LifecycleMsg",
    "OkFrame",
    "OrderbookDelta",
    "OrderbookSnapshot",
    "RestBook",
    "RestBookAnswer",
    "SnapshotMsg",
    "Subscribed",
    "SubscribedMsg",
    "TickerFrame",
    "TickerMsg",
    "TradeFrame",
    "TradeMsg",
    "Unsubscribed",
    "WireError",
    "classify",
    "delta_change",
    "details_of",
    "money_levels",
    "ns_from_text",
    "snapshot_ladders",
    "ticker_numbers",
    "trade_numbers",
    "venue_ns",
]

TERMINAL_ERRORS: Final = frozenset({10, 25})
"""Error codes after which a subscription is dead: channel error, subscription buffer overflow."""

EVENT_TYPES: Final = frozenset(
    {"market_lifecycle_v2", "multivariate_market_lifecycle", "event_lifecycle", "event_fee_update"}
)
"""Messages about markets and events rather than about books."""

PASSIVE_TYPES: Final = frozenset(
    {
        "fill",
        "user_order",
        "market_position",
        "order_group_updates",
        "rfq_created",
        "rfq_deleted",
        "quote_created",
        "quote_accepted",
        "quote_executed",
        "rfq_batch_created",
        "rfq_batch_deleted",
        "batch_quote_created",
        "rfq_batch_best_quotes",
        "batch_quote_accepted",
        "rfq_batch_executed",
        "batch_quote_executed",
        "cfbenchmarks_value",
        "cfbenchmarks_value_indexlist",
        "cfbenchmarks_value_5hz",
        "cfbenchmarks_value_5hz_indexlist",
        "pyth_value",
        "pyth_value_underlying_list",
        "multivariate_lookup",
    }
)
"""Documented messages that say nothing about public books: known, counted in ``seq``, and otherwise left alone."""

MAX_SIZE: Final = 10**18 - 1
"""Most 1e-6 contracts that a table's size column holds."""

_MAX_NS: Final = 2**63 - 1
_SECOND: Final = 1_000_000_000
_FRACTION_NS: Final = tuple(10 ** (9 - digits) for digits in range(10))
_CENT: Final = PRICE_SCALE // 100
_DOLLAR_IN_TRADE_CENTS: Final = TRADE_PRICE_SCALE // 100

MAX_COUNTER: Final = 2**62
"""Largest subscription id or sequence number taken seriously."""

Sid = Annotated[int, Meta(ge=0, le=MAX_COUNTER)]
Seq = Annotated[int, Meta(ge=0, le=MAX_COUNTER)]
_Number = str | int
_Pair = tuple[_Number, _Number]
_Ladder = list[_Pair] | None | UnsetType


class WireError(ValueError):
    """A frame's field that cannot be used: what kind of anomaly it is, with field and value in words."""

    def __init__(self, kind: AnomalyKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


# --- data ----------------------------------------------------------------------------------------------------


class SnapshotMsg(Struct, gc=False, omit_defaults=True):
    """A market's whole book; an omitted ladder is an empty side, and so is null (which is worth a note).

    ``*_dollars_fp`` since 2026-01-22; ``*_dollars`` (whole contracts) and cents before.
    """

    market_ticker: str
    market_id: str | None = None
    clock: int | None = None
    yes_dollars_fp: _Ladder = UNSET
    no_dollars_fp: _Ladder = UNSET
    yes_dollars: _Ladder = UNSET
    no_dollars: _Ladder = UNSET
    yes: _Ladder = UNSET
    no: _Ladder = UNSET


class OrderbookSnapshot(Struct, gc=False, tag_field="type", tag="orderbook_snapshot", omit_defaults=True):
    """``orderbook_snapshot``; ``id`` is that of the ``get_snapshot`` it answers."""

    sid: Sid
    seq: Seq
    msg: SnapshotMsg
    id: int | None = None
    sending_ts_ms: int | None = None


class DeltaMsg(Struct, gc=False, omit_defaults=True):
    """A signed change of one level of one ladder. ``price`` (cents) and ``delta`` are of before 2026-03-12."""

    market_ticker: str
    side: Literal["yes", "no"]
    price_dollars: str | None = None
    delta_fp: str | None = None
    ts: _Number | None = None
    ts_ms: int | None = None
    market_id: str | None = None
    clock: int | None = None
    price: int | None = None
    delta: int | None = None


class OrderbookDelta(Struct, gc=False, tag_field="type", tag="orderbook_delta", omit_defaults=True):
    """``orderbook_delta``."""

    sid: Sid
    seq: Seq
    msg: DeltaMsg
    sending_ts_ms: int | None = None


class TradeMsg(Struct, gc=False, omit_defaults=True):
    """A public trade. ``yes_price`` (cents) and ``count`` are of before 2026-03-12."""

    market_ticker: str
    trade_id: str | None = None
    yes_price_dollars: str | None = None
    no_price_dollars: str | None = None
    count_fp: str | None = None
    taker_side: str | None = None
    taker_outcome_side: str | None = None
    taker_book_side: str | None = None
    is_block_trade: bool | None = None
    ts: _Number | None = None
    ts_ms: int | None = None
    yes_price: int | None = None
    no_price: int | None = None
    count: int | None = None


class TradeFrame(Struct, gc=False, tag_field="type", tag="trade", omit_defaults=True):
    """``trade``."""

    sid: Sid
    msg: TradeMsg
    seq: Seq | None = None
    sending_ts_ms: int | None = None


class TickerMsg(Struct, gc=False, omit_defaults=True):
    """A market's conflated summary, about once a second; it has no ``seq``."""

    market_ticker: str
    market_id: str | None = None
    price_dollars: str | None = None
    yes_bid_dollars: str | None = None
    yes_ask_dollars: str | None = None
    yes_bid_size_fp: str | None = None
    yes_ask_size_fp: str | None = None
    last_trade_size_fp: str | None = None
    volume_fp: str | None = None
    open_interest_fp: str | None = None
    dollar_volume: int | None = None
    dollar_open_interest: int | None = None
    ts: _Number | None = None
    ts_ms: int | None = None
    time: str | None = None
    price: int | None = None
    yes_bid: int | None = None
    yes_ask: int | None = None
    volume: int | None = None
    open_interest: int | None = None


class TickerFrame(Struct, gc=False, tag_field="type", tag="ticker", omit_defaults=True):
    """``ticker``."""

    sid: Sid
    msg: TickerMsg
    seq: Seq | None = None
    sending_ts_ms: int | None = None


class LifecycleMsg(Struct, gc=False, omit_defaults=True):
    """The identifying fields of every life-cycle message; the rest is kept as it came."""

    market_ticker: str | None = None
    event_ticker: str | None = None
    event_type: str | None = None


class LifecycleFrame(Struct, gc=False, omit_defaults=True):
    """``market_lifecycle_v2``, ``multivariate_market_lifecycle``, ``event_lifecycle`` or ``event_fee_update``."""

    type: str
    sid: Sid
    msg: Raw
    seq: Seq | None = None


# --- control -------------------------------------------------------------------------------------------------


class SubscribedMsg(Struct, gc=False):
    """Channel and the ``sid`` it got."""

    channel: str
    sid: Sid


class Subscribed(Struct, gc=False, tag_field="type", tag="subscribed", omit_defaults=True):
    """``subscribed``: one per channel, all with the command's id, none with a ``seq``."""

    msg: SubscribedMsg
    id: int | None = None
    sending_ts_ms: int | None = None


class OkFrame(Struct, gc=False, tag_field="type", tag="ok", omit_defaults=True):
    """``ok``: ``msg`` is an object after ``update_subscription`` and a list after ``list_subscriptions``."""

    id: int | None = None
    sid: Sid | None = None
    seq: Seq | None = None
    msg: Raw | UnsetType = UNSET
    sending_ts_ms: int | None = None


class Unsubscribed(Struct, gc=False, tag_field="type", tag="unsubscribed", omit_defaults=True):
    """``unsubscribed``; up to January 2026 without ``seq``."""

    sid: Sid
    id: int | None = None
    seq: Seq | None = None
    sending_ts_ms: int | None = None


class ErrorMsg(Struct, gc=False, omit_defaults=True):
    """An error's code and words."""

    code: int | None = None
    msg: str = ""
    market_ticker: str | None = None
    market_tickers: list[str] | None = None


class ErrorFrame(Struct, gc=False, tag_field="type", tag="error", omit_defaults=True):
    """``error``; scoped to a subscription where it carries a ``sid``."""

    msg: ErrorMsg
    id: int | None = None
    sid: Sid | None = None
    seq: Seq | None = None
    sending_ts_ms: int | None = None


class Envelope(Struct, gc=False):
    """What can be read of a frame whatever else is wrong with it."""

    type: object = None
    sid: object = None
    seq: object = None
    msg: Raw | UnsetType = UNSET


class CommandParams(Struct, gc=False, omit_defaults=True):
    """Parameters of every client command."""

    channels: list[str] | UnsetType = UNSET
    market_ticker: str | UnsetType = UNSET
    market_tickers: list[str] | UnsetType = UNSET
    sid: Sid | UnsetType = UNSET
    sids: list[Sid] | UnsetType = UNSET
    action: str | UnsetType = UNSET
    use_yes_price: bool | UnsetType = UNSET
    send_initial_snapshot: bool | UnsetType = UNSET
    skip_ticker_ack: bool | UnsetType = UNSET
    user_filter: str | UnsetType = UNSET


class ClientCommand(Struct, gc=False, omit_defaults=True):
    """A command of the client: ``subscribe``, ``unsubscribe``, ``update_subscription`` or ``list_subscriptions``."""

    cmd: str
    id: int = 0
    params: CommandParams | UnsetType = UNSET


# --- REST books ----------------------------------------------------------------------------------------------


class RestBook(Struct, gc=False):
    """``orderbook_fp`` of ``GET /markets/{ticker}/orderbook`` (Kalshi OpenAPI 3.34.0)."""

    yes_dollars: _Ladder = UNSET
    no_dollars: _Ladder = UNSET


class LegacyRestBook(Struct, gc=False):
    """``orderbook`` as it was until 2026-03-11: cents beside dollars, null for an empty side."""

    yes_dollars: _Ladder = UNSET
    no_dollars: _Ladder = UNSET
    yes: _Ladder = UNSET
    no: _Ladder = UNSET


class RestBookAnswer(Struct, gc=False):
    """A single book's answer, or one element of ``GET /markets/orderbooks``."""

    ticker: str | None = None
    orderbook_fp: RestBook | None = None
    orderbook: LegacyRestBook | None = None


# --- numbers -------------------------------------------------------------------------------------------------


def _price(value: _Number, what: str) -> int:
    """A price in 1e-4 dollars from dollar text or integer cents, within [0, 1] dollar."""
    price = parse_price(value) if isinstance(value, str) else value * _CENT
    if not 0 <= price <= PRICE_SCALE:
        raise WireError(AnomalyKind.BAD_NUMBER, f"{what} {value!r} is not within 0 and 1 dollar")
    return price


def _size(value: _Number, what: str) -> int:
    """A (signed) size in 1e-6 contracts from text or an integer count."""
    size = parse_size(value) if isinstance(value, str) else value * SIZE_SCALE
    if not -MAX_SIZE <= size <= MAX_SIZE:
        raise WireError(AnomalyKind.BAD_NUMBER, f"{what} {value!r} is beyond any size that a market can have")
    return size


def money_levels(ladder: Iterable[_Pair], what: str) -> list[Level]:
    """(price, size) of a ladder on its own scale.

    Raises:
        UnitError: on a number that is not a plain decimal on its grid.
        WireError: on a price outside [0, 1] or an impossible size.
    """
    return [(_price(price, what), _size(size, what)) for price, size in ladder]


def snapshot_ladders(msg: SnapshotMsg | RestBook | LegacyRestBook) -> tuple[list[Level], list[Level], list[str]]:
    """(yes, no) levels on their own scales from the newest form present, and the names of null ladders."""
    nulls: list[str] = []
    sides: list[list[Level]] = []
    for side in ("yes", "no"):
        levels: list[Level] = []
        for name in (f"{side}_dollars_fp", f"{side}_dollars", side):
            ladder: _Ladder = getattr(msg, name, UNSET)
            if ladder is None:
                nulls.append(name)
            elif ladder is not UNSET:
                levels = money_levels(ladder, name)
                break
        sides.append(levels)
    return sides[0], sides[1], nulls


def delta_change(msg: DeltaMsg) -> tuple[int, int]:
    """(price on the side's own scale, signed change) of a delta of any era.

    Raises:
        WireError: if no form of price or change is present, or one is out of range.
        UnitError: if one is not a plain decimal on its grid.
    """
    price_text, change_text = msg.price_dollars, msg.delta_fp
    if price_text is not None and change_text is not None:
        price, change = parse_price(price_text), parse_size(change_text)
        if 0 <= price <= PRICE_SCALE and -MAX_SIZE <= change <= MAX_SIZE:
            return price, change
    price_given = price_text if price_text is not None else msg.price
    change_given = change_text if change_text is not None else msg.delta
    if price_given is None:
        raise WireError(AnomalyKind.MISSING_FIELD, "price_dollars is missing in orderbook_delta")
    if change_given is None:
        raise WireError(AnomalyKind.MISSING_FIELD, "delta_fp is missing in orderbook_delta")
    return _price(price_given, "price_dollars"), _size(change_given, "delta_fp")


def trade_numbers(msg: TradeMsg) -> tuple[int, int]:
    """(YES price in 1e-9 dollars, size in 1e-6 contracts) of a trade of any era.

    Raises:
        WireError: if price or count is missing or out of range.
        UnitError: if one is not a plain decimal.
    """
    if msg.yes_price_dollars:
        price = parse_trade_price(msg.yes_price_dollars)
    elif msg.no_price_dollars:
        price = TRADE_PRICE_SCALE - parse_trade_price(msg.no_price_dollars)
    elif msg.yes_price is not None:
        price = msg.yes_price * _DOLLAR_IN_TRADE_CENTS
    else:
        raise WireError(AnomalyKind.MISSING_FIELD, "yes_price_dollars is missing in trade")
    if not 0 <= price <= TRADE_PRICE_SCALE:
        raise WireError(AnomalyKind.BAD_NUMBER, f"yes_price_dollars {price}e-9 is not within 0 and 1 dollar")
    count = msg.count_fp if msg.count_fp is not None else msg.count
    if count is None:
        raise WireError(AnomalyKind.MISSING_FIELD, "count_fp is missing in trade")
    size = _size(count, "count_fp")
    if size < 0:
        raise WireError(AnomalyKind.BAD_NUMBER, f"count_fp {count!r} is negative")
    return price, size


def _optional_size(text: str | None, whole: int | None, what: str) -> int | None:
    value = text or whole
    return None if value is None else _size(value, what)


def _optional_price(text: str | None, cents: int | None, what: str) -> int | None:
    value = text or cents
    return None if value is None else _price(value, what)


def _quoted(price: int | None, size: int | None) -> tuple[int | None, int | None]:
    """A side's price and size; none where the venue prints 0.0000, 1.0000 or a size of zero."""
    if price is None or not 0 < price < PRICE_SCALE or size == 0:
        return None, None
    return price, size


def ticker_numbers(
    msg: TickerMsg,
) -> tuple[int | None, int | None, int | None, int | None, int | None, int | None, int | None]:
    """(bid, bid_size, ask, ask_size, last price, volume, open interest) of a ticker of any era.

    Raises:
        WireError: if a number is out of range.
        UnitError: if a number is not a plain decimal on its grid.
    """
    bid, bid_size = _quoted(
        _optional_price(msg.yes_bid_dollars, msg.yes_bid, "yes_bid_dollars"),
        _optional_size(msg.yes_bid_size_fp, None, "yes_bid_size_fp"),
    )
    ask, ask_size = _quoted(
        _optional_price(msg.yes_ask_dollars, msg.yes_ask, "yes_ask_dollars"),
        _optional_size(msg.yes_ask_size_fp, None, "yes_ask_size_fp"),
    )
    last, _ = _quoted(_optional_price(msg.price_dollars, msg.price, "price_dollars"), None)
    return (
        bid,
        bid_size,
        ask,
        ask_size,
        last,
        _optional_size(msg.volume_fp, msg.volume, "volume_fp"),
        _optional_size(msg.open_interest_fp, msg.open_interest, "open_interest_fp"),
    )


# --- times ---------------------------------------------------------------------------------------------------


class _LastSecond:
    """The whole second parsed last: consecutive frames mostly share it."""

    text = ""
    ns = 0


def ns_from_text(text: str) -> int | None:
    """Nanoseconds of an RFC3339 time in UTC with 0 to 9 fractional digits, None if it is not one."""
    fraction = text[20:-1]
    if fraction:
        if text[19] != "." or not fraction.isdecimal() or len(fraction) > 9:
            return None
    elif len(text) != 20:
        return None
    if text[-1] != "Z":
        return None
    second = text[:19]
    if second == _LastSecond.text:
        whole = _LastSecond.ns
    else:
        try:
            whole = ns_from_datetime(datetime.fromisoformat(second + "+00:00"))
        except ValueError:
            return None
        if not 0 <= whole < _MAX_NS - _SECOND:
            return None
        _LastSecond.text, _LastSecond.ns = second, whole
    return whole + int(fraction) * _FRACTION_NS[len(fraction)] if fraction else whole


def venue_ns(ts_ms: int | None, ts: _Number | None) -> int | None:
    """Venue time in ns: ``ts_ms``, with the microseconds of an RFC3339 ``ts`` where both agree to the millisecond.

    Without ``ts_ms`` (before 2026-04-15) ``ts`` alone counts, RFC3339 or whole seconds. None if neither is usable.
    """
    if isinstance(ts, str):
        fine = ns_from_text(ts)
        if fine is not None and (ts_ms is None or fine // 1_000_000 == ts_ms):
            return fine
    elif ts_ms is None and ts is not None:
        coarse = int(ts) * _SECOND
        return coarse if 0 <= coarse <= _MAX_NS else None
    if ts_ms is None:
        return None
    ns = ts_ms * 1_000_000
    return ns if 0 <= ns <= _MAX_NS else None


# --- errors --------------------------------------------------------------------------------------------------


def classify(error: Exception) -> tuple[AnomalyKind, str]:
    """What is wrong with a frame, from the error that reading it raised."""
    if isinstance(error, WireError):
        return error.kind, error.detail
    detail = str(error)
    if isinstance(error, msgspec.ValidationError):
        if "missing required field" in detail:
            return AnomalyKind.MISSING_FIELD, detail
        if detail.startswith("Expected `array`, got `null`"):
            return AnomalyKind.NULL_LIST, detail
        return AnomalyKind.WRONG_TYPE, detail
    if isinstance(error, ValueError) and not isinstance(error, msgspec.DecodeError | UnicodeError):
        return AnomalyKind.BAD_NUMBER, detail
    return AnomalyKind.MALFORMED_JSON, detail


def details_of(raw: Raw) -> dict[str, Any]:
    """A life-cycle message's fields as they came.

    Raises:
        msgspec.DecodeError: if it is not an object.
    """
    return msgspec.json.decode(raw, type=dict[str, Any])
