"""Kalshi's private channels and account calls (Kalshi AsyncAPI 2.0.0, OpenAPI 3.34.0).

``fill``, ``user_orders`` and ``market_positions`` have no ``seq``; ``order_group_updates`` and ``communications`` have
one per ``sid``, control frames included. The private channels cannot be asked to repeat anything: what a hole lost is
to be had over REST only, so a hole ends the connection, and its owner fetches the fills since (:func:`fetch_account`).
"""

from collections.abc import AsyncIterator, Callable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.model import AccountEvent, AccountKind, Anomaly, AnomalyKind, Output, Reconnect, Send, Side
from arb_pipeline.units import size_decimal, trade_price_decimal
from arb_pipeline.venues.account import BooklessSession, digest, money, own_price, own_size
from arb_pipeline.venues.base import Account, ConnectRequest, Fill, Position, VenueError
from arb_pipeline.venues.http import RestClient
from arb_pipeline.venues.kalshi import wire
from arb_pipeline.venues.kalshi.auth import KalshiCredentials
from arb_pipeline.venues.kalshi.wire import ClientCommand, CommandParams, WireError

__all__ = ["ACCOUNT_CHANNELS", "COMMUNICATIONS_CHANNEL", "KalshiAccountSession", "fetch_account"]

ACCOUNT_CHANNELS: Final = ("fill", "user_orders", "market_positions", "order_group_updates")
COMMUNICATIONS_CHANNEL: Final = "communications"

_SECOND: Final = 1_000_000_000
_ANSWER_DEADLINE_NS: Final = 10 * _SECOND
_STALE_LIMIT: Final = 50
_EXAMPLE: Final = 500
_PER_PAGE: Final = 1_000

_COMMUNICATIONS: Final[Mapping[str, tuple[AccountKind, str]]] = {
    "rfq_created": ("rfq", "id"),
    "rfq_deleted": ("rfq", "id"),
    "quote_created": ("quote", "quote_id"),
    "quote_accepted": ("quote", "quote_id"),
    "quote_executed": ("quote", "quote_id"),
    "rfq_batch_created": ("rfq_batch", "id"),
    "rfq_batch_deleted": ("rfq_batch", "id"),
    "rfq_batch_best_quotes": ("rfq_batch", "rfq_batch_id"),
    "rfq_batch_executed": ("rfq_batch", "rfq_batch_id"),
    "batch_quote_created": ("batch_quote", "batch_quote_id"),
    "batch_quote_accepted": ("batch_quote", "batch_quote_id"),
    "batch_quote_executed": ("batch_quote", "batch_quote_id"),
}
"""Messages of the ``communications`` channel: what each is about, and the field that names it."""

_T = TypeVar("_T")


# --- messages --------------------------------------------------------------------------------------------------


class _Frame(Struct, gc=False):
    """A frame whose ``msg`` is read by its type."""

    type: str
    sid: wire.Sid
    msg: Raw
    seq: wire.Seq | None = None


class _Directed(Struct, gc=False, kw_only=True):
    """Fields that tell the own side; ``side`` and ``action`` are deprecated and serve where the others are missing."""

    outcome_side: str | None = None
    book_side: str | None = None
    side: str | None = None
    action: str | None = None


class _Fill(_Directed, gc=False, kw_only=True):
    """``fill``, and an element of ``GET /portfolio/fills`` (which has other names for market and time)."""

    trade_id: str
    order_id: str
    market_ticker: str
    yes_price_dollars: str
    count_fp: str
    fee_cost: str | None = None
    is_taker: bool | None = None
    ts: int | None = None
    ts_ms: int | None = None
    created_time: str | None = None


class _Order(_Directed, gc=False, kw_only=True):
    """``user_order``."""

    order_id: str
    ticker: str
    status: str
    yes_price_dollars: str | None = None
    initial_count_fp: str | None = None
    fill_count_fp: str | None = None
    taker_fees_dollars: str | None = None
    maker_fees_dollars: str | None = None
    client_order_id: str | None = None
    created_ts_ms: int | None = None
    last_updated_ts_ms: int | None = None


class _WirePosition(Struct, gc=False):
    """``market_position``."""

    market_ticker: str
    position_fp: str
    position_cost_dollars: str | None = None
    fees_paid_dollars: str | None = None


class _OrderGroup(Struct, gc=False):
    """``order_group_updates``."""

    event_type: str
    order_group_id: str
    contracts_limit_fp: str | None = None
    ts_ms: int | None = None


class _Communication(Struct, gc=False):
    """Fields that the messages of ``communications`` share."""

    id: str | None = None
    quote_id: str | None = None
    rfq_batch_id: str | None = None
    batch_quote_id: str | None = None
    market_ticker: str | None = None
    contracts_fp: str | None = None
    contracts_accepted_fp: str | None = None
    target_cost_dollars: str | None = None
    order_id: str | None = None
    client_order_id: str | None = None
    created_ts: str | None = None
    deleted_ts: str | None = None
    accepted_ts: str | None = None
    updated_ts: str | None = None
    executed_ts: str | None = None


class _Balance(Struct, gc=False):
    """``GET /portfolio/balance``; ``balance`` and ``portfolio_value`` are whole cents."""

    portfolio_value: int
    balance: int
    balance_dollars: str | None = None
    updated_ts: int | None = None


class _RestPosition(Struct, gc=False):
    """An element of ``market_positions`` of ``GET /portfolio/positions``."""

    ticker: str
    position_fp: str
    market_exposure_dollars: str
    realized_pnl_dollars: str
    fees_paid_dollars: str
    last_updated_ts: str | None = None


class _Page(Struct, gc=False):
    fills: list[Raw] | None = None
    market_positions: list[Raw] | None = None
    cursor: str | None = None


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_envelope = msgspec.json.Decoder(wire.Envelope).decode
_decode_fill = msgspec.json.Decoder(_Fill).decode
_decode_order = msgspec.json.Decoder(_Order).decode
_decode_position = msgspec.json.Decoder(_WirePosition).decode
_decode_group = msgspec.json.Decoder(_OrderGroup).decode
_decode_communication = msgspec.json.Decoder(_Communication).decode
_decode_subscribed = msgspec.json.Decoder(wire.Subscribed).decode
_decode_error = msgspec.json.Decoder(wire.ErrorFrame).decode
_decode_balance = msgspec.json.Decoder(_Balance).decode
_decode_rest_position = msgspec.json.Decoder(_RestPosition).decode
_decode_page = msgspec.json.Decoder(_Page).decode


class KalshiAccountSession(BooklessSession):
    """A :class:`arb_pipeline.venues.base.Session` of the private channels: all markets, own requests only."""

    venue = "kalshi"

    def __init__(self, connection_id: str, url: str = "", credentials: KalshiCredentials | None = None) -> None:
        super().__init__(connection_id)
        self._url = url
        self._credentials = credentials
        self._next_seq: dict[int, int] = {}
        self._stale = 0
        self._commands: dict[int, set[str]] = {}
        """Channels that each command still awaits an answer for."""
        self._deadline_ns: int | None = None

    def connect_request(self, wall_ms: int) -> ConnectRequest:
        """URL and signed headers of the upgrade; without credentials there are none and the venue answers 401."""
        if self._credentials is None:
            return ConnectRequest(self._url)
        return ConnectRequest(self._url, self._credentials.sign("GET", urlsplit(self._url).path, wall_ms))

    def connected(self, now_ns: int) -> list[Output]:
        """Subscribe to everything private. ``communications`` apart, so that a refusal takes nothing else along."""
        self._next_seq.clear()
        self._stale = 0
        self._deadline_ns = now_ns + _ANSWER_DEADLINE_NS
        self._commands = {1: set(ACCOUNT_CHANNELS), 2: {COMMUNICATIONS_CHANNEL}}
        commands = (
            ClientCommand("subscribe", 1, CommandParams(channels=list(ACCOUNT_CHANNELS))),
            ClientCommand("subscribe", 2, CommandParams(channels=[COMMUNICATIONS_CHANNEL], user_filter="self")),
        )
        return [Send(msgspec.json.encode(command).decode()) for command in commands]

    def disconnected(self, now_ns: int, cause: str) -> list[Output]:  # noqa: ARG002 - there are no books to distrust
        """Nothing is awaited any longer; the connection's row in ``capture_sessions`` tells the outage."""
        self._deadline_ns = None
        return []

    def tick(self, now_ns: int) -> list[Output]:
        """Give up on a connection whose subscriptions are not answered; a quiet account is nothing unusual."""
        if self._deadline_ns is None or now_ns < self._deadline_ns:
            return []
        self._deadline_ns = None
        return [Reconnect("no answer to a subscription")]

    def receive(self, frame: str | bytes, recv_ns: int) -> list[Output]:
        """Turn one frame into account events; whatever is wrong with it becomes an :class:`Anomaly`."""
        text = frame if isinstance(frame, str) else frame.decode(errors="replace")
        try:
            return self._read(text, recv_ns)
        except (ValueError, RecursionError) as error:
            outputs: list[Output] = [_anomaly(error, text, recv_ns)]
            try:
                envelope = _decode_envelope(text)
            except (ValueError, RecursionError):
                return outputs
            return outputs + self._count(envelope.sid, envelope.seq, text, recv_ns)[1]

    def _read(self, text: str, recv_ns: int) -> list[Output]:
        envelope = _decode_envelope(text)
        kind = envelope.type
        if kind == "subscribed":
            message = _decode_subscribed(text)
            self._answered(message.id, message.msg.channel)
            return []
        if kind == "error":
            return self._error(text, recv_ns)
        if kind in {"ok", "unsubscribed"}:
            return self._count(envelope.sid, envelope.seq, text, recv_ns)[1]
        if not isinstance(kind, str) or kind not in _EVENTS:
            problem = AnomalyKind.MISSING_FIELD if kind is None else AnomalyKind.UNKNOWN_TYPE
            detail = "type is missing" if kind is None else f"type {str(kind)[:80]!r}"
            anomaly = Anomaly(problem, detail, recv_ns, "", text[:_EXAMPLE])
            return [anomaly, *self._count(envelope.sid, envelope.seq, text, recv_ns)[1]]
        message_frame = _decode_frame(text)
        event = _EVENTS[kind](message_frame, recv_ns)
        fresh, outputs = self._count(message_frame.sid, message_frame.seq, text, recv_ns)
        return [event, *outputs] if fresh else outputs

    def _answered(self, command_id: int | None, channel: str) -> None:
        waiting = self._commands.get(command_id or 0, set())
        waiting.discard(channel)
        if not any(self._commands.values()):
            self._deadline_ns = None

    def _error(self, text: str, recv_ns: int) -> list[Output]:
        """A refused command stays refused: it is told, not tried again. A dead subscription needs a new connection."""
        message = _decode_error(text)
        _, outputs = self._count(message.sid, message.seq, text, recv_ns)
        detail = f"error {message.msg.code}: {message.msg.msg}"
        outputs.insert(0, Anomaly(AnomalyKind.VENUE_ERROR, detail, recv_ns, "", text[:_EXAMPLE]))
        for channel in list(self._commands.get(message.id or 0, ())):
            self._answered(message.id, channel)
        if message.msg.code in wire.TERMINAL_ERRORS:
            outputs.append(Reconnect(detail))
        return outputs

    def _count(self, sid: object, seq: object, text: str, recv_ns: int) -> tuple[bool, list[Output]]:
        """Whether a frame is new by its number, and what a missing number before it entails."""
        if not isinstance(sid, int) or not isinstance(seq, int) or not 0 <= seq <= wire.MAX_COUNTER:
            return True, []
        expected = self._next_seq.get(sid, 1)
        example = text[:_EXAMPLE]
        if seq < expected:
            self._stale += 1
            detail = f"sid {sid}: seq {seq} again, expected {expected}"
            outputs: list[Output] = [Anomaly(AnomalyKind.DUPLICATE, detail, recv_ns, "", example)]
            if self._stale == _STALE_LIMIT:
                outputs.append(Reconnect(f"seq of sid {sid} fell back from {expected} to {seq}"))
            return False, outputs
        self._stale = 0
        self._next_seq[sid] = seq + 1
        if seq == expected:
            return True, []
        detail = f"sid {sid}: expected seq {expected}, got {seq}; messages of the account are missing"
        return True, [
            Anomaly(AnomalyKind.SEQ_GAP, detail, recv_ns, "", example),
            Reconnect(f"account messages missing on sid {sid}"),
        ]


# --- events ----------------------------------------------------------------------------------------------------


def _side(message: _Directed) -> Side | None:
    """The own side in YES terms; buying NO is selling YES."""
    if message.book_side in {"bid", "ask"}:
        return "bid" if message.book_side == "bid" else "ask"
    if message.outcome_side in {"yes", "no"}:
        return "bid" if message.outcome_side == "yes" else "ask"
    if message.side in {"yes", "no"} and message.action in {"buy", "sell"}:
        return "bid" if (message.side == "yes") == (message.action == "buy") else "ask"
    return None


def _maybe(parse: Callable[[str], int], text: str | None) -> int | None:
    return parse(text) if text else None


def _on_fill(frame: _Frame, recv_ns: int) -> AccountEvent:
    fill = _decode_fill(frame.msg)
    return _fill_event(fill, frame.msg, recv_ns, wire.venue_ns(fill.ts_ms, fill.ts), seq=frame.seq)


def _fill_event(
    fill: _Fill, raw: Raw, recv_ns: int, venue_ns: int | None, *, seq: int | None = None, rest: bool = False
) -> AccountEvent:
    """``yes_price_dollars`` is the YES price whichever outcome was traded."""
    return AccountEvent(
        venue="kalshi",
        kind="fill",
        # The two sides of a trade with oneself share the trade's id.
        event_id=f"fill:{fill.trade_id}:{fill.order_id}",
        recv_ns=recv_ns,
        venue_ns=venue_ns,
        seq=seq,
        market_id=fill.market_ticker,
        side=_side(fill),
        price=own_price(fill.yes_price_dollars),
        size=own_size(fill.count_fp),
        fee=_maybe(money, fill.fee_cost),
        is_taker=fill.is_taker,
        order_id=fill.order_id,
        raw=bytes(raw).decode(),
        source="rest" if rest else "ws",
    )


def _on_order(frame: _Frame, recv_ns: int) -> AccountEvent:
    order = _decode_order(frame.msg)
    fees = [money(text) for text in (order.taker_fees_dollars, order.maker_fees_dollars) if text]
    updated = order.last_updated_ts_ms if order.last_updated_ts_ms is not None else order.created_ts_ms
    return AccountEvent(
        venue="kalshi",
        kind="order",
        event_id=f"order:{order.order_id}:{digest(frame.msg)}",
        recv_ns=recv_ns,
        venue_ns=wire.venue_ns(updated, None),
        seq=frame.seq,
        market_id=order.ticker,
        status=order.status,
        side=_side(order),
        price=_maybe(own_price, order.yes_price_dollars),
        size=_maybe(own_size, order.initial_count_fp),
        filled=_maybe(own_size, order.fill_count_fp),
        fee=sum(fees) if fees else None,
        order_id=order.order_id,
        client_order_id=order.client_order_id or None,
        raw=bytes(frame.msg).decode(),
    )


def _on_position(frame: _Frame, recv_ns: int) -> AccountEvent:
    position = _decode_position(frame.msg)
    return AccountEvent(
        venue="kalshi",
        kind="position",
        event_id=f"position:{position.market_ticker}:{digest(frame.msg)}",
        recv_ns=recv_ns,
        seq=frame.seq,
        market_id=position.market_ticker,
        size=own_size(position.position_fp),
        fee=_maybe(money, position.fees_paid_dollars),
        amount=_maybe(money, position.position_cost_dollars),
        raw=bytes(frame.msg).decode(),
    )


def _on_order_group(frame: _Frame, recv_ns: int) -> AccountEvent:
    group = _decode_group(frame.msg)
    return AccountEvent(
        venue="kalshi",
        kind="order_group",
        event_id=f"order_group:{group.order_group_id}:{digest(frame.msg)}",
        recv_ns=recv_ns,
        venue_ns=wire.venue_ns(group.ts_ms, None),
        seq=frame.seq,
        status=group.event_type,
        size=_maybe(own_size, group.contracts_limit_fp),
        raw=bytes(frame.msg).decode(),
    )


def _on_communication(frame: _Frame, recv_ns: int) -> AccountEvent:
    """Prices stay in ``raw``: a quote has two."""
    message = _decode_communication(frame.msg)
    kind, name = _COMMUNICATIONS[frame.type]
    named = getattr(message, name)
    if not named:
        raise WireError(AnomalyKind.MISSING_FIELD, f"{name} is missing in {frame.type}")
    times = (message.executed_ts, message.accepted_ts, message.deleted_ts, message.updated_ts, message.created_ts)
    told = next(filter(None, times), None)
    return AccountEvent(
        venue="kalshi",
        kind=kind,
        event_id=f"{frame.type}:{named}:{digest(frame.msg)}",
        recv_ns=recv_ns,
        venue_ns=None if told is None else wire.ns_from_text(told),
        seq=frame.seq,
        market_id=message.market_ticker,
        status=frame.type,
        size=_maybe(own_size, message.contracts_accepted_fp or message.contracts_fp),
        amount=_maybe(money, message.target_cost_dollars),
        order_id=message.order_id,
        client_order_id=message.client_order_id,
        raw=bytes(frame.msg).decode(),
    )


_EVENTS: Final[Mapping[str, Callable[[_Frame, int], AccountEvent]]] = {
    "fill": _on_fill,
    "user_order": _on_order,
    "market_position": _on_position,
    "order_group_updates": _on_order_group,
    **dict.fromkeys(_COMMUNICATIONS, _on_communication),
}


def _anomaly(error: Exception, text: str, recv_ns: int) -> Anomaly:
    kind, detail = wire.classify(error)
    return Anomaly(kind, detail[:_EXAMPLE], recv_ns, "", text[:_EXAMPLE])


# --- REST ------------------------------------------------------------------------------------------------------


async def fetch_account(client: RestClient, recv_ns: int, since_ns: int = 0) -> Account:
    """Balance, unsettled positions, and fills since a venue time (its second), newest first.

    Records that cannot be used become anomalies.

    Raises:
        HttpStatusError: if the venue refuses; 401 without credentials.
        VenueError: if an answer is not of the documented form.
    """
    body = await client.get_bytes("/portfolio/balance")
    balance = _decoded(_decode_balance, body, "/portfolio/balance")
    try:
        cash = money(balance.balance_dollars) if balance.balance_dollars else balance.balance * 10**8
    except ValueError as error:
        raise VenueError(f"kalshi GET /portfolio/balance: balance_dollars: {error}") from error
    events = [
        AccountEvent(
            venue="kalshi",
            kind="balance",
            event_id=f"balance:{digest(Raw(body))}",
            recv_ns=recv_ns,
            venue_ns=None if balance.updated_ts is None else wire.venue_ns(None, balance.updated_ts),
            amount=cash,
            raw=body.decode(),
            source="rest",
        )
    ]
    anomalies: list[Anomaly] = []
    positions: list[Position] = []
    async for page in _pages(client, "/portfolio/positions", {}):
        for record in page.market_positions or ():
            _keep(record, recv_ns, anomalies, lambda raw: _take_position(raw, recv_ns, positions, events))
    fills: dict[str, tuple[Fill, AccountEvent]] = {}
    async for page in _pages(client, "/portfolio/fills", {"min_ts": since_ns // _SECOND} if since_ns > 0 else {}):
        for record in page.fills or ():
            _keep(record, recv_ns, anomalies, lambda raw: _take_fill(raw, recv_ns, fills))
    return Account(
        venue="kalshi",
        cash=_dollars(cash),
        portfolio_value=Decimal(balance.portfolio_value).scaleb(-2),
        positions=tuple(positions),
        fills=tuple(fill for fill, _ in fills.values()),
        events=(*events, *(event for _, event in fills.values())),
        anomalies=tuple(anomalies),
    )


def _take_position(raw: Raw, recv_ns: int, positions: list[Position], events: list[AccountEvent]) -> None:
    record = _decode_rest_position(raw)
    size, exposure = own_size(record.position_fp), money(record.market_exposure_dollars)
    profit, fees = money(record.realized_pnl_dollars), money(record.fees_paid_dollars)
    positions.append(Position(record.ticker, size_decimal(size), _dollars(exposure), _dollars(profit), _dollars(fees)))
    events.append(
        AccountEvent(
            venue="kalshi",
            kind="position",
            event_id=f"position:{record.ticker}:{digest(raw)}",
            recv_ns=recv_ns,
            venue_ns=wire.ns_from_text(record.last_updated_ts) if record.last_updated_ts else None,
            market_id=record.ticker,
            size=size,
            fee=fees,
            amount=exposure,
            raw=bytes(raw).decode(),
            source="rest",
        )
    )


def _take_fill(raw: Raw, recv_ns: int, fills: dict[str, tuple[Fill, AccountEvent]]) -> None:
    """By id: pages may repeat a record where the list grew between them."""
    record = _decode_fill(raw)
    told = wire.ns_from_text(record.created_time) if record.created_time else None
    event = _fill_event(record, raw, recv_ns, told if told is not None else wire.venue_ns(None, record.ts), rest=True)
    assert event.price is not None
    assert event.size is not None
    fill = Fill(
        fill_id=record.trade_id,
        market_id=record.market_ticker,
        at=None if event.venue_ns is None else datetime_from_ns(event.venue_ns),
        side=event.side,
        price=trade_price_decimal(event.price),
        size=size_decimal(event.size),
        fee=None if event.fee is None else _dollars(event.fee),
        is_taker=record.is_taker,
        order_id=record.order_id,
    )
    fills[event.event_id] = fill, event


def _dollars(amount: int) -> Decimal:
    return Decimal(amount).scaleb(-10)


def _keep(record: Raw, recv_ns: int, anomalies: list[Anomaly], take: Callable[[Raw], None]) -> None:
    try:
        take(record)
    except (ValueError, RecursionError) as error:
        anomalies.append(_anomaly(error, bytes(record).decode(errors="replace"), recv_ns))


async def _pages(client: RestClient, path: str, filters: Mapping[str, Any]) -> AsyncIterator[_Page]:
    params: dict[str, Any] = {**filters, "limit": _PER_PAGE}
    seen: set[str] = set()
    while True:
        page = _decoded(_decode_page, await client.get_bytes(path, params), path)
        yield page
        if not page.cursor:
            return
        if page.cursor in seen:
            raise VenueError(f"kalshi GET {path}: cursor {page.cursor!r:.80} came again; records may be missing")
        seen.add(page.cursor)
        params["cursor"] = page.cursor


def _decoded(decode: Callable[[bytes], _T], body: bytes, path: str) -> _T:
    try:
        return decode(body)
    except msgspec.DecodeError as error:
        raise VenueError(f"kalshi GET {path}: {error}: {body[:200]!r}") from error
