"""Polymarket's user channel: own orders and trades (docs.polymarket.com "User Channel").

The subscription carries the API credentials themselves, once, right after the handshake; nothing acknowledges it, and
wrong ones close the socket. The messages name API keys as ``owner``: they are blotted out of events and examples.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import msgspec
from msgspec import Raw, Struct
from pydantic import SecretStr

from arb_pipeline.model import AccountEvent, Anomaly, AnomalyKind, MarketFacts, Output, Reconnect, Send, Side
from arb_pipeline.settings import Settings
from arb_pipeline.units import TRADE_PRICE_SCALE
from arb_pipeline.venues.account import BooklessSession, digest, own_price, own_size
from arb_pipeline.venues.base import ConnectRequest, VenueError
from arb_pipeline.venues.polymarket import wire

__all__ = ["PolymarketAccountSession", "PolymarketCredentials"]

_S: Final = 1_000_000_000
_PING_EVERY: Final = 10 * _S
_DEAD_AFTER: Final = 60 * _S
_EXAMPLE: Final = 500
_FIRST_MS: Final = 10**11
"""Smaller times are seconds: 10**11 s lies three thousand years ahead, 10**11 ms in 1973."""

_KEYS: Final = re.compile(r'("(?:\w*owner|apiKey|secret|passphrase)"\s*:\s*)"[^"]*"?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PolymarketCredentials:
    """API credentials of CLOB (level 2), none of which a ``repr`` shows."""

    api_key: str = field(repr=False)
    secret: str = field(repr=False)
    passphrase: str = field(repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """Those that the settings name, None where none is set.

        Raises:
            VenueError: if only some of the three are set; the message names those missing.
        """
        given = {
            "POLY_API_KEY": _text(settings.poly_api_key),
            "POLY_API_SECRET": _text(settings.poly_api_secret),
            "POLY_PASSPHRASE": _text(settings.poly_passphrase),
        }
        missing = [name for name, text in given.items() if not text]
        if len(missing) == len(given):
            return None
        if missing:
            raise VenueError(
                f"{', '.join(missing)} not set: Polymarket's API credentials are three, as POST /auth/api-key gave them"
            )
        return cls(*given.values())


class _MakerOrder(Struct, gc=False, kw_only=True):
    """One of the resting orders that a trade met."""

    order_id: str
    asset_id: str
    price: str
    matched_amount: str
    owner: str = ""
    outcome: str = ""
    side: str = ""


class _Trade(Struct, gc=False, kw_only=True):
    """``trade``: told again at each step from ``MATCHED`` to ``CONFIRMED``, or ``FAILED``."""

    id: str
    market: str
    asset_id: str
    side: str
    price: str
    size: str
    status: str
    outcome: str = ""
    owner: str = ""
    """The own API key, also where another's order made or took the trade."""
    trader_side: str = ""
    taker_order_id: str | None = None
    maker_orders: list[_MakerOrder] | None = None
    timestamp: str | int | None = None
    last_update: str | int | None = None


class _Order(Struct, gc=False, kw_only=True):
    """``order``: ``type`` is PLACEMENT, UPDATE or CANCELLATION."""

    id: str
    market: str
    asset_id: str
    side: str
    price: str
    type: str
    outcome: str = ""
    original_size: str | None = None
    size_matched: str | None = None
    timestamp: str | int | None = None


class _Envelope(Struct, gc=False):
    event_type: str | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_order = msgspec.json.Decoder(_Order).decode
_decode_trade = msgspec.json.Decoder(_Trade).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


class PolymarketAccountSession(BooklessSession):
    """A :class:`arb_pipeline.venues.base.Session` of the user channel, all markets.

    Prices are in YES terms where the outcome traded is known: by the market's tokens (:meth:`subscribe` tells them)
    or by its name where that is Yes or No. Elsewhere side and price stay empty, and an anomaly says so.
    """

    venue = "polymarket"

    def __init__(self, connection_id: str, url: str = "", credentials: PolymarketCredentials | None = None) -> None:
        super().__init__(connection_id)
        self._url = url
        self._credentials = credentials
        self._yes: dict[str, bool] = {}
        self._connected = False
        self._ping_ns = self._frame_ns = 0

    def connect_request(self, wall_ms: int) -> ConnectRequest:  # noqa: ARG002 - the subscription signs, not the upgrade
        """The channel's address."""
        return ConnectRequest(self._url)

    def connected(self, now_ns: int) -> list[Output]:
        """Subscribe to all markets; the frame holds the credentials. Without any there is nothing to send."""
        self._connected = True
        self._ping_ns = self._frame_ns = now_ns
        own = self._credentials
        if own is None:
            return []
        auth = {"apiKey": own.api_key, "secret": own.secret, "passphrase": own.passphrase}
        frame = msgspec.json.encode({"auth": auth, "type": "user", "markets": []}).decode()
        return [Send(frame, secret=True)]

    def disconnected(self, now_ns: int, cause: str) -> list[Output]:  # noqa: ARG002 - there are no books to distrust
        """No more pings; the connection's row in ``capture_sessions`` tells the outage."""
        self._connected = False
        return []

    def subscribe(self, markets: Sequence[MarketFacts], now_ns: int) -> list[Output]:  # noqa: ARG002 - nothing is asked
        """Learn which token stands for which outcome; the channel tells of all markets anyway."""
        for facts in markets:
            self._yes |= {facts.yes_token_id: True, facts.no_token_id: False}
        self._yes.pop("", None)
        return []

    def tick(self, now_ns: int) -> list[Output]:
        """Text ``PING`` each 10 s; without any frame, not even a ``PONG``, for 60 s the socket is dead."""
        if not self._connected:
            return []
        outputs: list[Output] = []
        if now_ns - self._ping_ns >= _PING_EVERY:
            self._ping_ns = now_ns
            outputs.append(Send(wire.PING))
        if now_ns - self._frame_ns >= _DEAD_AFTER:
            self._frame_ns = now_ns
            outputs.append(Reconnect("no frame for 60 s"))
        return outputs

    def receive(self, frame: str | bytes, recv_ns: int) -> list[Output]:
        """Turn one frame into account events; whatever is wrong with it becomes an :class:`Anomaly`."""
        self._frame_ns = recv_ns
        text = frame if isinstance(frame, str) else frame.decode(errors="replace")
        if text.strip() == wire.PONG:
            return []
        if not text.lstrip().startswith("["):
            return self._message(text, recv_ns)
        try:
            elements = [bytes(element).decode(errors="replace") for element in _decode_list(text)]
        except (ValueError, RecursionError) as error:
            return [self._anomaly(error, text, recv_ns)]
        return [output for element in elements for output in self._message(element, recv_ns)]

    def _message(self, text: str, recv_ns: int) -> list[Output]:
        try:
            kind = _decode_envelope(text).event_type
            if kind == "order":
                return self._order(text, recv_ns)
            if kind == "trade":
                return self._trade(text, recv_ns)
        except (ValueError, RecursionError) as error:
            return [self._anomaly(error, text, recv_ns)]
        problem = AnomalyKind.MISSING_FIELD if kind is None else AnomalyKind.UNKNOWN_TYPE
        detail = "event_type is missing" if kind is None else f"event_type {kind[:60]!r}"
        return [Anomaly(problem, detail, recv_ns, "", _blotted(text)[:_EXAMPLE])]

    def _order(self, text: str, recv_ns: int) -> list[Output]:
        order = _decode_order(text)
        yes = self._is_yes(order.asset_id, order.outcome)
        side, price = _in_yes_terms(order.side, order.price, yes)
        raw = _blotted(text)
        event = AccountEvent(
            venue="polymarket",
            kind="order",
            event_id=f"order:{order.id}:{digest(Raw(raw.encode()))}",
            recv_ns=recv_ns,
            venue_ns=_when(order.timestamp),
            market_id=order.market,
            status=order.type,
            side=side,
            price=price,
            size=own_size(order.original_size) if order.original_size else None,
            filled=own_size(order.size_matched) if order.size_matched else None,
            order_id=order.id,
            raw=raw,
        )
        return [event] if yes is not None else [event, self._unknown_token(order.asset_id, text, recv_ns)]

    def _trade(self, text: str, recv_ns: int) -> list[Output]:
        """A fill of the own taker order, or one of each own resting order."""
        trade = _decode_trade(text)
        own = [order for order in trade.maker_orders or () if trade.owner and order.owner == trade.owner]
        raw = _blotted(text)
        outputs: list[Output] = []
        if trade.trader_side == "MAKER" and not own:
            detail = "trader_side is MAKER, but maker_orders has none of the own key: the own part cannot be told"
            return [Anomaly(AnomalyKind.MISSING_FIELD, detail, recv_ns, trade.market, raw[:_EXAMPLE])]
        if trade.trader_side == "TAKER" or not own:
            taker = _MakerOrder(
                order_id=trade.taker_order_id or "",
                asset_id=trade.asset_id,
                price=trade.price,
                matched_amount=trade.size,
                outcome=trade.outcome,
                side=trade.side,
            )
            fills = [(taker, True)]
        else:
            fills = [(order, False) for order in own]
        for order, is_taker in fills:
            yes = self._is_yes(order.asset_id, order.outcome)
            side, price = _in_yes_terms(order.side or _maker_side(trade, order), order.price, yes)
            event = AccountEvent(
                venue="polymarket",
                kind="fill",
                event_id=f"fill:{trade.id}:{order.order_id}:{trade.status}",
                recv_ns=recv_ns,
                venue_ns=_when(trade.timestamp if trade.timestamp is not None else trade.last_update),
                market_id=trade.market,
                status=trade.status,
                side=side,
                price=price,
                size=own_size(order.matched_amount),
                is_taker=is_taker,
                order_id=order.order_id or None,
                raw=raw,
            )
            outputs.append(event)
            if yes is None:
                outputs.append(self._unknown_token(order.asset_id, text, recv_ns))
        return outputs

    def _is_yes(self, token: str, outcome: str) -> bool | None:
        if token in self._yes:
            return self._yes[token]
        return {"yes": True, "no": False}.get(outcome.lower())

    def _unknown_token(self, token: str, text: str, recv_ns: int) -> Anomaly:
        detail = f"asset_id {token[:80]!r} is of no known market: side and price in YES terms are left empty"
        return Anomaly(AnomalyKind.UNKNOWN_MARKET, detail, recv_ns, "", _blotted(text)[:_EXAMPLE])

    def _anomaly(self, error: Exception, text: str, recv_ns: int) -> Anomaly:
        if isinstance(error, msgspec.MsgspecError | UnicodeError | RecursionError):
            kind = wire.error_kind(error)
        else:
            kind = AnomalyKind.BAD_NUMBER
        return Anomaly(kind, _blotted(str(error))[:_EXAMPLE], recv_ns, "", _blotted(text)[:_EXAMPLE])


def _blotted(text: str) -> str:
    """A message without anybody's API key; by field name, so that what is kept depends on the message alone."""
    return _KEYS.sub(r'\1"<key>"', text)


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value().strip() if secret is not None else ""


def _maker_side(trade: _Trade, order: _MakerOrder) -> str:
    """A resting order of the taker's token took the other side; one of the opposite token took the same."""
    if order.asset_id != trade.asset_id:
        return trade.side
    return {"BUY": "SELL", "SELL": "BUY"}.get(trade.side, "")


def _in_yes_terms(side: str, price: str, yes: bool | None) -> tuple[Side | None, int | None]:
    """Side and price of an order for an outcome, as of YES; nothing where the outcome is not known."""
    own = own_price(price)
    if yes is None:
        return None, None
    told: Side | None = None
    if side in {"BUY", "SELL"}:
        told = "bid" if (side == "BUY") == yes else "ask"
    return told, own if yes else TRADE_PRICE_SCALE - own


def _when(told: str | int | None) -> int | None:
    """Nanoseconds of a time in seconds or milliseconds, which only its magnitude tells; None if it is neither."""
    text = str(told)
    if told is None or not (text.isascii() and text.isdigit() and len(text) <= 15):
        return None
    value = int(text)
    return value * (1_000_000 if value >= _FIRST_MS else _S)
