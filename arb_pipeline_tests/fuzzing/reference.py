"""A plain Kalshi client, written apart from the sessions: what a book must be after the frames that were delivered.

A frame counts as *valid* if it is strict JSON of a documented order-book message on the book's own subscription with
the number that is due, for a market subscribed there, every figure a plain decimal on its grid and in range. A valid
frame is applied, also a mutated one: no client could tell it from the truth. A control message with the number that is
due is taken as one, and so is one of a type that nobody knows and that names no market. Everything else with that
number is a message lost: the book that it names, or else every book of the subscription, is no longer known until its
next snapshot. Of a repeated key the last value counts, of a repeated type the first.
"""

import json
import re
from decimal import Decimal
from typing import Any, NoReturn

__all__ = ["Book", "KalshiReference"]

Book = dict[str, dict[int, int]]
_PLAIN = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
_CONTROL = {"ok", "error", "unsubscribed"}
_BOOK = {"orderbook_snapshot", "orderbook_delta"}
KNOWN_TYPES = _BOOK | _CONTROL | {"subscribed", "trade", "ticker", "fill", "market_lifecycle_v2", "event_lifecycle"}
"""Of the types that mutations make, those that Kalshi documents."""


class _InvalidError(Exception):
    pass


def _constant(name: str) -> NoReturn:
    raise _InvalidError(name)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key != "type" or key not in found:
            found[key] = value
    return found


def _count(value: Any, digits: int, unit: int) -> int:
    """A decimal text in counts of ``10**-digits``, or an integer of the old era in units."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value * unit
    if not isinstance(value, str) or len(value) > 60 or not _PLAIN.fullmatch(value):
        raise _InvalidError(f"{value!r} is no number")
    scaled = Decimal(value) * 10**digits
    if scaled != scaled.to_integral_value():
        raise _InvalidError(f"{value!r} is off the grid")
    return int(scaled)


def _price(value: Any) -> int:
    price = _count(value, 4, 100)
    if not 0 <= price <= 10_000:
        raise _InvalidError(f"price {value!r}")
    return price


def _size(value: Any) -> int:
    return _count(value, 6, 1_000_000)


class KalshiReference:
    """The books of one subscription.

    Attributes:
        sure: markets whose book is known.
        forged: of those, the ones that hold something that the venue never said.
    """

    def __init__(self, tickers: set[str]) -> None:
        self.tickers = tickers
        self.books: dict[str, Book] = {}
        self.sure: set[str] = set()
        self.forged: set[str] = set()
        self.next = 1

    def take(self, text: str | bytes, sid: int, *, good: bool) -> tuple[bool, bool]:
        """Take a frame: (whether it must be complained about, whether it was an undetectable forgery)."""
        try:
            text = text.decode() if isinstance(text, bytes) else text
            message = json.loads(text, parse_constant=_constant, object_pairs_hook=_pairs)
            if "\\u" in text:
                # Half a surrogate pair is no text.
                json.dumps(message, ensure_ascii=False).encode()
        except (ValueError, RecursionError, _InvalidError):
            return True, False
        if not isinstance(message, dict):
            return True, False
        kind: Any = message.get("type")
        seq: Any = message.get("seq")
        about_books = isinstance(kind, str) and kind in _BOOK
        if not _is_int(message.get("sid")) or message["sid"] != sid or not _is_int(seq) or not 0 <= seq <= 2**62:
            return about_books or not isinstance(kind, str), False
        if seq < self.next:
            return True, False
        hole = seq > self.next
        self.next = seq + 1
        if hole:
            self.sure.clear()
        if isinstance(kind, str) and kind in _CONTROL:
            if not good:
                self.forged |= self.sure
            return hole, not good
        msg: Any = message.get("msg")
        ticker: Any = msg.get("market_ticker") if isinstance(msg, dict) else None
        known = isinstance(ticker, str) and ticker in self.tickers
        if (not isinstance(kind, str) or kind not in KNOWN_TYPES) and (not isinstance(ticker, str) or not ticker):
            return True, False
        try:
            if not (about_books and known):
                raise _InvalidError("not about a book that is subscribed")
            if kind == "orderbook_snapshot":
                self._replace(ticker, msg)
            else:
                self._change(ticker, msg)
        except _InvalidError:
            self.sure -= {ticker} if known else self.tickers
            return True, False
        if not good:
            # It took the number of something else, so that one more book lacks that.
            self.forged |= self.sure
        elif kind == "orderbook_snapshot":
            self.forged.discard(ticker)
        return hole, not good

    def _replace(self, ticker: str, msg: dict[str, Any]) -> None:
        yes, no = self._ladder(msg, "yes"), self._ladder(msg, "no")
        asks = {10_000 - price: size for price, size in no.items()}
        self.books[ticker] = {"yes": yes, "no": asks}
        self.sure.add(ticker)

    def _ladder(self, msg: dict[str, Any], side: str) -> dict[int, int]:
        for name in (f"{side}_dollars_fp", f"{side}_dollars", side):
            levels = msg.get(name)
            if levels is None:
                continue
            if not isinstance(levels, list) or any(not isinstance(level, list) or len(level) != 2 for level in levels):
                raise _InvalidError(name)
            sized = {_price(price): _size(size) for price, size in levels}
            return {price: size for price, size in sized.items() if size}
        return {}

    def _change(self, ticker: str, msg: dict[str, Any]) -> None:
        side = msg.get("side")
        given = msg.get("price_dollars") if msg.get("price_dollars") is not None else msg.get("price")
        change = msg.get("delta_fp") if msg.get("delta_fp") is not None else msg.get("delta")
        if side not in ("yes", "no"):
            raise _InvalidError(f"side {side!r}")
        price, size = _price(given), _size(change)
        if ticker not in self.sure:
            return
        levels = self.books[ticker][side]
        own = price if side == "yes" else 10_000 - price
        levels[own] = levels.get(own, 0) + size
        if not levels[own]:
            del levels[own]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
