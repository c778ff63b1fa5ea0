"""Polymarket's user channel: credentials in the first frame, then own orders and trades.

Facts: docs.polymarket.com, user channel. Nothing is acknowledged; wrong credentials close the socket.
"""

import base64
import uuid
from collections.abc import Callable
from typing import Final

import msgspec

from arb_pipeline.exchange.connections import Connection
from arb_pipeline.exchange.kalshi_account import AccountError
from arb_pipeline.exchange.markets import PolymarketMarket, encode
from arb_pipeline.exchange.source import Json

__all__ = ["USER_WS_PATH", "PolymarketUserFeed", "UserClient"]

USER_WS_PATH: Final = "/ws/user"


class UserClient:
    """One client, and the markets it asked for: None before it showed its credentials, empty for all."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.markets: set[str] | None = None


class PolymarketUserFeed:
    """One account and everyone who listens to it.

    Attributes:
        api_key, secret, passphrase: what a client must show.
    """

    def __init__(self, markets: dict[str, PolymarketMarket], now_ms: Callable[[], int]) -> None:
        self.api_key = str(uuid.uuid4())
        self.secret = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()
        self.passphrase = uuid.uuid4().hex
        self.clients: list[UserClient] = []
        self._markets = markets
        self._now_ms = now_ms
        self._number = 0

    def receive(self, client: UserClient, text: str) -> bool:
        """Take a frame from a client; whether it may stay."""
        if text == "PING":
            client.connection.send("PONG", "PONG")
            return True
        try:
            message = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return client.markets is not None
        if not isinstance(message, dict):
            return client.markets is not None
        if client.markets is None:
            own = {"apiKey": self.api_key, "secret": self.secret, "passphrase": self.passphrase}
            if message.get("auth") != own or str(message.get("type", "")).lower() != "user":
                return False
            client.markets = set(message.get("markets") or ())
        elif message.get("operation") == "subscribe":
            client.markets |= set(message.get("markets") or ())
        return True

    def inject(self, kind: str, given: Json) -> list[str]:
        """Send an ``order`` or a ``trade`` with the given fields over the usual ones; what was sent.

        Raises:
            AccountError: if the type or the market is unknown.
        """
        if kind not in {"order", "trade"}:
            raise AccountError(f"type {kind!r} is no message of the user channel; there are order, trade")
        condition = given.get("market") or next(iter(self._markets), "")
        market = self._markets.get(condition)
        if market is None:
            raise AccountError(f"market {condition!r} is unknown; give a listed condition id")
        self._number += 1
        common: Json = {
            "event_type": kind,
            "market": condition,
            "asset_id": market.tokens[0],
            "outcome": "Yes",
            "owner": self.api_key,
            "side": "BUY",
            "price": "0.57",
            "timestamp": str(self._now_ms()),
        }
        if kind == "order":
            own: Json = {
                "id": f"0x{self._number:064x}",
                "order_owner": self.api_key,
                "original_size": "10",
                "size_matched": "0",
                "associate_trades": None,
                "type": "PLACEMENT",
            }
        else:
            own = {
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"user trade {self._number}")),
                "trade_owner": self.api_key,
                "size": "10",
                "status": "MATCHED",
                "trader_side": "TAKER",
                "taker_order_id": f"0x{self._number:064x}",
                "maker_orders": [],
                "match_time": str(self._now_ms() // 1000),
                "last_update": str(self._now_ms() // 1000),
                "type": "TRADE",
            }
        text = encode({**common, **own, **given})
        for client in self.clients:
            if client.markets is not None and (not client.markets or condition in client.markets):
                client.connection.send(text, kind)
        return [kind]
