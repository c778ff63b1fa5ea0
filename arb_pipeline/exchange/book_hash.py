"""Polymarket's order-book hash, once more.

The client has its own, fast implementation; this plain one is kept apart as an independent witness, so that a
mistake in either shows as a mismatch between exchange and client. Recipe: SHA-1 over the compact JSON of the book
with an empty ``hash`` and keys in a fixed order (py-clob-client, ``generate_orderbook_summary_hash``).
"""

import hashlib
import json

__all__ = ["book_hash"]


def book_hash(
    *,
    market: str,
    asset_id: str,
    timestamp: str,
    bids: list[dict[str, str]],
    asks: list[dict[str, str]],
    min_order_size: str,
    tick_size: str,
    neg_risk: bool,
    last_trade_price: str,
) -> str:
    """Lower-case hex hash of a token's book; levels in wire order (bids rising, asks falling)."""
    summary = {
        "market": market,
        "asset_id": asset_id,
        "timestamp": timestamp,
        "hash": "",
        "bids": bids,
        "asks": asks,
        "min_order_size": min_order_size,
        "tick_size": tick_size,
        "neg_risk": neg_risk,
        "last_trade_price": last_trade_price,
    }
    return hashlib.sha1(json.dumps(summary, separators=(",", ":")).encode(), usedforsecurity=False).hexdigest()
