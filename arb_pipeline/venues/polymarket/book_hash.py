"""Polymarket's book hash: SHA-1 of a token's book as compact JSON.

Recipe (py-clob-client ``generate_orderbook_summary_hash``; recomputed on recorded books and ``price_change`` hashes):
keys ``market, asset_id, timestamp, hash:"", bids, asks, min_order_size, tick_size, neg_risk, last_trade_price`` in this
order without blanks; levels as ``{"price","size"}`` text without trailing zeros, bids ascending, asks descending;
``timestamp`` that of the message. It proves the whole book, so it is kept as text per level: one change costs one
level, two joins and one SHA-1.
"""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache

from arb_pipeline.model import Level
from arb_pipeline.units import ONE, format_plain

__all__ = ["BookText", "book_hash", "hash_tail", "mirrored"]


_BIDS = b'","hash":"","bids":['
_ASKS = b'],"asks":['


def mirrored(levels: Iterable[Level]) -> list[Level]:
    """The other token's opposite side: bids of YES are asks of NO at one minus the price, size for size."""
    return [(ONE - price, size) for price, size in levels]


@lru_cache(maxsize=4096)
def hash_tail(min_size: int, tick: int, neg_risk: bool, last_trade_price: str) -> bytes:
    """What follows the levels.

    Args:
        min_size: 1e-6 contracts. tick: 1e-4 dollars.
        neg_risk: the market's flag.
        last_trade_price: the market-level text, as the venue pads it (``"0.430"``), empty if never traded.
    """
    return (
        f'],"min_order_size":"{format_plain(min_size, 6)}","tick_size":"{format_plain(tick, 4)}"'
        f',"neg_risk":{"true" if neg_risk else "false"},"last_trade_price":{json.dumps(last_trade_price)}}}'
    ).encode()


@lru_cache(maxsize=20_000)
def _price_part(price: int) -> bytes:
    return b'{"price":"' + format_plain(price, 4).encode() + b'","size":"'


@lru_cache(maxsize=20_000)
def _size_part(size: int) -> bytes:
    return format_plain(size, 6).encode() + b'"}'


def _level(level: Level) -> bytes:
    return _price_part(level[0]) + _size_part(level[1])


def _head(market: str, asset_id: str) -> bytes:
    return f'{{"market":{json.dumps(market)},"asset_id":{json.dumps(asset_id)},"timestamp":"'.encode()


class _Side:
    """One side's levels as text, in wire order. ``keys`` rise: the price for bids, its negative for asks."""

    __slots__ = ("keys", "parts", "text")

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.parts: list[bytes] = []
        self.text: bytes | None = b""

    def replace(self, keyed: list[tuple[int, bytes]]) -> None:
        keyed.sort()
        self.keys = [key for key, _ in keyed]
        self.parts = [part for _, part in keyed]
        self.text = None

    def set(self, key: int, price: int, size: int) -> None:
        keys = self.keys
        at = bisect_left(keys, key)
        known = at < len(keys) and keys[at] == key
        if size:
            part = _price_part(price) + _size_part(size)
            if known:
                self.parts[at] = part
            else:
                keys.insert(at, key)
                self.parts.insert(at, part)
        elif known:
            del keys[at], self.parts[at]
        else:
            return
        self.text = None


class BookText:
    """One token's book as the text that its hash is made of, changed level by level.

    Prices in 1e-4 dollars, sizes in 1e-6 contracts, both in terms of this token.
    """

    __slots__ = ("_asks", "_bids", "_head")

    def __init__(self, market: str, asset_id: str) -> None:
        self._head = _head(market, asset_id)
        self._bids = _Side()
        self._asks = _Side()

    def replace(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Take over a snapshot in any order; levels of size 0 are left out."""
        self._bids.replace([(level[0], _level(level)) for level in bids if level[1]])
        self._asks.replace([(-level[0], _level(level)) for level in asks if level[1]])

    def set_bid(self, price: int, size: int) -> None:
        """Set the size resting at a bid price; 0 removes the level."""
        self._bids.set(price, price, size)

    def set_ask(self, price: int, size: int) -> None:
        """Set the size resting at an ask price; 0 removes the level."""
        self._asks.set(-price, price, size)

    def digest(self, timestamp: str, tail: bytes) -> str:
        """The hash, 40 hex digits, at a message's ``timestamp`` text with the ending of :func:`hash_tail`."""
        bids, asks = self._bids.text, self._asks.text
        if bids is None:
            bids = self._bids.text = b",".join(self._bids.parts)
        if asks is None:
            asks = self._asks.text = b",".join(self._asks.parts)
        text = b"".join((self._head, timestamp.encode(), _BIDS, bids, _ASKS, asks, tail))
        return hashlib.sha1(text, usedforsecurity=False).hexdigest()


def book_hash(
    market: str,
    asset_id: str,
    timestamp: str,
    bids: Iterable[Level],
    asks: Iterable[Level],
    *,
    min_size: int,
    tick: int,
    neg_risk: bool,
    last_trade_price: str,
) -> str:
    """The hash of one token's book, levels of that token as they stand on the wire: bids rising, asks falling.

    Units as in :func:`hash_tail`.
    """
    text = b"".join(
        (
            _head(market, asset_id),
            timestamp.encode(),
            _BIDS,
            b",".join(_level(level) for level in bids),
            _ASKS,
            b",".join(_level(level) for level in asks),
            hash_tail(min_size, tick, neg_risk, last_trade_price),
        )
    )
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()
