"""Plain clients of the exchange for its tests: signed headers, framed sockets, and folds of what arrives.

Written with nothing of the package but its units, so that a mistake cannot hide on both sides of the wire.
"""

import asyncio
import base64
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import websockets
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from arb_pipeline.exchange import Exchange

Message = dict[str, Any]
Levels = dict[int, int]


def kalshi_headers(exchange: Exchange, method: str, path: str, *, salt: int = 32, skew_ms: int = 0) -> dict[str, str]:
    """The three signed headers of a request."""
    kalshi = exchange.announcement()["kalshi"]
    key = serialization.load_pem_private_key(kalshi["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    timestamp = str(time.time_ns() // 1_000_000 + skew_ms)
    signature = key.sign(
        f"{timestamp}{method}{path}".encode(), padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256()
    )
    return {
        "KALSHI-ACCESS-KEY": kalshi["api_key_id"],
        "KALSHI-ACCESS-TIMESTAMP": timestamp,
        "KALSHI-ACCESS-SIGNATURE": base64.b64encode(signature).decode(),
    }


class Socket:
    """A WebSocket with the messages that came, read until a condition holds."""

    def __init__(self, ws: websockets.ClientConnection) -> None:
        self.ws = ws
        self.frames: list[str] = []

    async def send(self, message: Message) -> None:
        await self.ws.send(json.dumps(message))

    async def text(self) -> str:
        frame = await asyncio.wait_for(self.ws.recv(), 10)
        assert isinstance(frame, str)
        self.frames.append(frame)
        return frame

    async def message(self) -> Any:
        return json.loads(await self.text())

    async def messages(self, count: int) -> list[Any]:
        return [await self.message() for _ in range(count)]

    async def until(self, wanted: Callable[[Any], bool]) -> list[Any]:
        """All messages up to and including the first wanted one."""
        got: list[Any] = []
        while not got or not wanted(got[-1]):
            got.append(await self.message())
        return got


async def kalshi_socket(exchange: Exchange) -> Socket:
    url = exchange.announcement()["kalshi"]["ws_url"]
    headers = kalshi_headers(exchange, "GET", "/trade-api/ws/v2")
    return Socket(await websockets.connect(url, additional_headers=headers, max_size=None, ping_interval=None))


async def polymarket_socket(exchange: Exchange) -> Socket:
    url = exchange.announcement()["polymarket"]["ws_url"]
    return Socket(await websockets.connect(url, max_size=None, ping_interval=None))


def scaled(text: str, digits: int) -> int:
    """A decimal text as an integer of 10**-digits."""
    whole, _, fraction = text.lstrip("-").partition(".")
    value = int(whole + fraction.ljust(digits, "0"))
    return -value if text.startswith("-") else value


class KalshiFold:
    """Books, in YES terms, folded from Kalshi frames; checks seq on the way."""

    def __init__(self, *, yes_scale: bool = False) -> None:
        self.books: dict[str, tuple[Levels, Levels]] = {}
        self.kinds: Counter[str] = Counter()
        self.next_seq: dict[int, int] = {}
        self.gaps = 0
        self._yes_scale = yes_scale

    def take(self, message: Message) -> None:
        self.kinds[message["type"]] += 1
        if "seq" in message:
            expected = self.next_seq.get(message["sid"], 1)
            self.gaps += message["seq"] != expected
            self.next_seq[message["sid"]] = message["seq"] + 1
        msg = message.get("msg", {})
        if message["type"] == "orderbook_snapshot":
            bids = {scaled(price, 4): scaled(size, 6) for price, size in msg.get("yes_dollars_fp", [])}
            asks = {self._ask(price): scaled(size, 6) for price, size in msg.get("no_dollars_fp", [])}
            self.books[msg["market_ticker"]] = (bids, asks)
        elif message["type"] == "orderbook_delta":
            bids, asks = self.books[msg["market_ticker"]]
            side, price = (
                (bids, scaled(msg["price_dollars"], 4))
                if msg["side"] == "yes"
                else (asks, self._ask(msg["price_dollars"]))
            )
            side[price] = side.get(price, 0) + scaled(msg["delta_fp"], 6)
            assert side[price] >= 0, message
            if not side[price]:
                del side[price]

    def _ask(self, text: str) -> int:
        return scaled(text, 4) if self._yes_scale else 10_000 - scaled(text, 4)


class PolymarketFold:
    """Token books folded from Polymarket frames; recomputes every hash by the recipe."""

    def __init__(self, facts: dict[str, Message]) -> None:
        """``facts``: a REST book by token, for what the socket does not tell."""
        self.facts = facts
        self.books: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
        self.last_price: dict[str, str] = {}
        self.kinds: Counter[str] = Counter()
        self.bad_hashes = 0
        self.bad_tops = 0

    def take(self, frame: Any) -> None:
        for event in frame if isinstance(frame, list) else [frame]:
            self.kinds[event["event_type"]] += 1
            getattr(self, "_" + event["event_type"], lambda event: None)(event)

    def _book(self, event: Message) -> None:
        token = event["asset_id"]
        self.books[token] = tuple({level["price"]: level["size"] for level in event[side]} for side in ("bids", "asks"))  # type: ignore[assignment]
        if "last_trade_price" in event:
            self.last_price[event["market"]] = event["last_trade_price"]
        self._check(token, event["timestamp"], event["hash"])

    def _price_change(self, event: Message) -> None:
        for entry in event["price_changes"]:
            if entry["asset_id"] not in self.books:
                continue
            side = self.books[entry["asset_id"]][0 if entry["side"] == "BUY" else 1]
            side[entry["price"]] = entry["size"]
            if entry["size"] == "0":
                del side[entry["price"]]
            self._check(entry["asset_id"], event["timestamp"], entry["hash"])
            bids, asks = self.books[entry["asset_id"]]
            best = (max(map(float, bids), default=0.0), min(map(float, asks), default=1.0))
            self.bad_tops += best != (float(entry["best_bid"]), float(entry["best_ask"]))

    def _last_trade_price(self, event: Message) -> None:
        self.last_price[event["market"]] = event["price"].ljust(5, "0")

    def _check(self, token: str, timestamp: str, told: str) -> None:
        facts = self.facts[token]
        bids, asks = self.books[token]
        summary = {
            "market": facts["market"],
            "asset_id": token,
            "timestamp": timestamp,
            "hash": "",
            "bids": [{"price": price, "size": bids[price]} for price in sorted(bids, key=float)],
            "asks": [{"price": price, "size": asks[price]} for price in sorted(asks, key=float, reverse=True)],
            "min_order_size": facts["min_order_size"],
            "tick_size": facts["tick_size"],
            "neg_risk": facts["neg_risk"],
            "last_trade_price": self.last_price[facts["market"]],
        }
        text = json.dumps(summary, separators=(",", ":"))
        self.bad_hashes += hashlib.sha1(text.encode()).hexdigest() != told
