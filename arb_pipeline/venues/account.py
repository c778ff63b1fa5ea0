"""What the sessions of private channels have in common: no books, and numbers within what the tables hold."""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from arb_pipeline.model import BookSnapshot, MarketFacts, OrderBook, Output
from arb_pipeline.units import TRADE_PRICE_SCALE, UnitError, parse_fixed, parse_size, parse_trade_price

__all__ = ["BooklessSession", "digest", "money", "own_price", "own_size"]

_MAX_SIZE: Final = 10**18 - 1
_MONEY_DIGITS: Final = 10


class BooklessSession:
    """The part of :class:`arb_pipeline.venues.base.Session` that is about books, for a connection without any."""

    def __init__(self, connection_id: str) -> None:
        self.connection_id = connection_id

    def subscribe(self, markets: Sequence[MarketFacts], now_ns: int) -> list[Output]:  # noqa: ARG002
        """Nothing to ask for: the private channels tell of all markets."""
        return []

    def unsubscribe(self, market_ids: Sequence[str], now_ns: int) -> list[Output]:  # noqa: ARG002
        """Nothing to drop."""
        return []

    def rest_book(self, market_id: str, body: bytes, recv_ns: int) -> list[Output]:  # noqa: ARG002
        """No book was asked for."""
        return []

    def book(self, market_id: str) -> OrderBook | None:  # noqa: ARG002
        """None: there are no books."""
        return None

    def in_sync(self, market_id: str) -> bool:  # noqa: ARG002
        """False: there are no books."""
        return False

    def snapshots(self, now_ns: int) -> list[BookSnapshot]:  # noqa: ARG002
        """None."""
        return []


def own_price(text: str) -> int:
    """A YES price in 1e-9 dollars.

    Raises:
        UnitError: if it is no plain decimal between 0 and 1 dollar.
    """
    price = parse_trade_price(text)
    if not 0 <= price <= TRADE_PRICE_SCALE:
        raise UnitError(f"price {text!r} is not within 0 and 1 dollar")
    return price


def own_size(text: str) -> int:
    """A size in 1e-6 contracts; negative for NO held.

    Raises:
        UnitError: if it is no plain decimal, or more than a table's column holds.
    """
    size = parse_size(text)
    if abs(size) > _MAX_SIZE:
        raise UnitError(f"size {text!r} is beyond any size that an account can have")
    return size


def money(text: str) -> int:
    """Dollars in 1e-10.

    Raises:
        UnitError: if it is no plain decimal of at most ten places.
    """
    return parse_fixed(text, _MONEY_DIGITS, "amount")


def digest(message: msgspec.Raw) -> str:
    """Of a message's fields, whatever their order: tells one state of an order or position from the next.

    Raises:
        msgspec.DecodeError: if it is no JSON.
    """
    text = msgspec.json.encode(msgspec.json.decode(message), order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]
