"""The venue's side for tests: one market that knows its true book and writes the frames that Polymarket would send."""

import json
from typing import Any

from arb_pipeline.model import Level, MarketFacts
from arb_pipeline.units import ONE, format_plain, parse_price, parse_size
from arb_pipeline.venues.polymarket.book_hash import book_hash, mirrored

MARKET = "0xd1371c17149d439536b3216fdaeeb975729fae923d5a4fd12aabfe228f219e9c"
YES = "34860351219264002510127502876930881678393989031736188690584879294552619323435"
NO = "73806912798634571738808025034475386892157271856625203989141421814633861828824"
START_MS = 1_791_300_000_123
S = 1_000_000_000


class Truth:
    """A market with a true book, in YES terms; every method that changes it returns the frame that tells so."""

    def __init__(self, market: str = MARKET, yes: str = YES, no: str = NO) -> None:
        self.market, self.yes, self.no = market, yes, no
        self.bids = {4100: 120_000_000, 4200: 35_500_000}
        self.asks = {4600: 10_000_000, 4400: 80_000_000}
        self.ltp, self.tick, self.min_size, self.neg_risk = "0.430", 100, 5_000_000, False
        self.ms = START_MS

    @property
    def facts(self) -> MarketFacts:
        return MarketFacts(
            venue="polymarket",
            market_id=self.market,
            yes_token_id=self.yes,
            no_token_id=self.no,
            tick=self.tick,
            min_size=self.min_size,
            neg_risk=self.neg_risk,
        )

    @property
    def now(self) -> int:
        """Receive time of the latest frame, ns: 20 ms after the venue's."""
        return (self.ms + 20) * 1_000_000

    def sides(self, token: str) -> tuple[list[Level], list[Level]]:
        """Bids ascending and asks descending of a token: the wire's order."""
        bids, asks = list(self.bids.items()), list(self.asks.items())
        if token == self.no:
            bids, asks = mirrored(asks), mirrored(bids)
        return sorted(bids), sorted(asks, reverse=True)

    def hash(self, token: str) -> str:
        bids, asks = self.sides(token)
        return book_hash(
            self.market,
            token,
            str(self.ms),
            bids,
            asks,
            min_size=self.min_size,
            tick=self.tick,
            neg_risk=self.neg_risk,
            last_trade_price=self.ltp,
        )

    def book(self, token: str = "", *, full: bool = True) -> dict[str, Any]:
        """A ``book`` event: the first of a subscription, or (``full=False``) one in mid-stream."""
        token = token or self.yes
        bids, asks = self.sides(token)
        message: dict[str, Any] = {
            "market": self.market,
            "asset_id": token,
            "timestamp": str(self.ms),
            "hash": self.hash(token),
            "bids": _levels(bids),
            "asks": _levels(asks),
        }
        if full:
            message["tick_size"] = format_plain(self.tick, 4)
            message["last_trade_price"] = self.ltp
        return message | {"event_type": "book"}

    def rest(self, token: str = "") -> bytes:
        """A body of CLOB ``/book``."""
        message = self.book(token)
        del message["event_type"]
        message |= {"min_order_size": format_plain(self.min_size, 6), "neg_risk": self.neg_risk}
        return json.dumps(message).encode()

    def change(self, side: str, price: str, size: str, *, after_ms: int = 333) -> dict[str, Any]:
        """A ``price_change`` of the YES book, told for both tokens."""
        self.ms += after_ms
        level = parse_price(price)
        book = self.bids if side == "BUY" else self.asks
        book[level] = parse_size(size)
        if not book[level]:
            del book[level]
        return self.told(side, price, size)

    def told(self, side: str, price: str, size: str) -> dict[str, Any]:
        """The message of a change of the book as it is now."""
        entries = [
            self._entry(self.yes, side, price, size),
            self._entry(self.no, "SELL" if side == "BUY" else "BUY", format_plain(ONE - parse_price(price), 4), size),
        ]
        return {
            "market": self.market,
            "price_changes": entries,
            "timestamp": str(self.ms),
            "event_type": "price_change",
        }

    def trade(self, price: str, size: str, side: str = "SELL", token: str = "", after_ms: int = 230) -> dict[str, Any]:
        """A ``last_trade_price`` event of a token."""
        self.ms += after_ms
        return {
            "market": self.market,
            "asset_id": token or self.yes,
            "price": price,
            "size": size,
            "fee_rate_bps": "0",
            "side": side,
            "timestamp": str(self.ms),
            "event_type": "last_trade_price",
            "transaction_hash": "0x05cc",
        }

    def _entry(self, token: str, side: str, price: str, size: str) -> dict[str, Any]:
        bids, asks = self.sides(token)
        return {
            "asset_id": token,
            "price": price,
            "size": size,
            "side": side,
            "hash": self.hash(token),
            "best_bid": format_plain(bids[-1][0], 4) if bids else "0",
            "best_ask": format_plain(asks[-1][0], 4) if asks else "1",
        }


def _levels(levels: list[Level]) -> list[dict[str, str]]:
    return [{"price": format_plain(price, 4), "size": format_plain(size, 6)} for price, size in levels]
