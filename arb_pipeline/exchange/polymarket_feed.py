"""Polymarket's market WebSocket: subscriptions by token, snapshots in one array, mirrored changes with true hashes.

Facts: docs.polymarket.com, market channel, and recorded traffic: no acknowledgements, no sequence numbers, text PING
and PONG, a ``book`` after each trade with the hash and time of the change before it.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from arb_pipeline.exchange.connections import Connection
from arb_pipeline.exchange.drafts import digest
from arb_pipeline.exchange.faults import Faults
from arb_pipeline.exchange.markets import PolymarketMarket, encode, plain_price, plain_size
from arb_pipeline.exchange.source import BookRefresh, Json, LevelChange, PolymarketFrame, TradePrint
from arb_pipeline.units import ONE, PRICE_SCALE, parse_price, parse_size

__all__ = ["PolymarketClient", "PolymarketFeed", "book_levels", "padded_price"]

_BEST_BID_ASK_EVERY = 3
_NEW_MARKET_COPIES = 2


class PolymarketClient:
    """One client: its socket, its tokens, and whether it asked for the extra events."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.tokens: dict[str, None] = {}
        self.custom_features = False


class PolymarketFeed:
    """All Polymarket markets and everyone who listens to them.

    Args:
        now_ms: the venue's clock.
        on_subscribed: called at every subscription to a token.
        hidden: condition ids not listed yet; the feed takes out what gets listed.
        faults: those that strike subscriptions and markets.
    """

    def __init__(
        self,
        markets: Iterable[PolymarketMarket],
        now_ms: Callable[[], int],
        on_subscribed: Callable[[], None],
        *,
        hidden: set[str],
        faults: Faults,
    ) -> None:
        self.markets = {market.condition_id: market for market in markets}
        self.tokens = {
            token: (market, index) for market in self.markets.values() for index, token in enumerate(market.tokens)
        }
        self.hidden = hidden
        self.clients: list[PolymarketClient] = []
        self._faults = faults
        self._routes: dict[str, list[PolymarketClient]] = {}
        self._now_ms = now_ms
        self._on_subscribed = on_subscribed
        self._prints = 0

    @property
    def subscribed(self) -> int:
        """Tokens that are subscribed, over all clients."""
        return sum(len(client.tokens) for client in self.clients)

    # --- clients -------------------------------------------------------------------------------------------

    def receive(self, client: PolymarketClient, text: str) -> None:
        """Take a frame from a client. Nothing is acknowledged, and what makes no sense is passed over."""
        if text == "PING":
            client.connection.send("PONG", "PONG")
            return
        try:
            message = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return
        if not isinstance(message, dict):
            return
        tokens = message.get("assets_ids")
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            return
        operation = message.get("operation")
        if operation == "unsubscribe":
            self._unsubscribe(client, tokens)
        elif operation == "subscribe" or str(message.get("type", "")).lower() == "market":
            client.custom_features = bool(message.get("custom_feature_enabled", client.custom_features))
            self._subscribe(client, tokens, dump=bool(message.get("initial_dump", True)))

    def forget(self, client: PolymarketClient) -> None:
        """Drop a client that is gone."""
        self._unsubscribe(client, list(client.tokens))
        if client in self.clients:
            self.clients.remove(client)

    def find(self, token: str) -> tuple[PolymarketMarket, int] | None:
        """The open, listed market with a book that a token belongs to, and the token's index in it."""
        found = self.tokens.get(token)
        if found is None or not found[0].has_book or found[0].closed or found[0].condition_id in self.hidden:
            return None
        return found

    def _subscribe(self, client: PolymarketClient, tokens: list[str], *, dump: bool) -> None:
        fresh = [token for token in dict.fromkeys(tokens) if token not in client.tokens]
        for token in fresh:
            client.tokens[token] = None
            self._routes.setdefault(token, []).append(client)
        if dump and fresh:
            found = filter(None, map(self.find, fresh))
            books = [
                market.book_event(index, initial=True)
                for market, index in found
                if not self._faults.withholds_snapshot("polymarket", market.condition_id, market.tokens[index])
            ]
            client.connection.send(encode(books), "book")
        if fresh:
            self._on_subscribed()

    def _unsubscribe(self, client: PolymarketClient, tokens: list[str]) -> None:
        for token in tokens:
            if client.tokens.pop(token, 0) is None:
                self._routes[token].remove(client)

    def _listeners(self, *tokens: str) -> list[PolymarketClient]:
        """Clients subscribed to any of the tokens, each once."""
        if len(tokens) == 1:
            return self._routes.get(tokens[0], [])
        return list(dict.fromkeys(client for token in tokens for client in self._routes.get(token, ())))

    # --- the market moves ----------------------------------------------------------------------------------

    def change_level(self, change: LevelChange) -> None:
        """Apply a level change and send it to the listeners of either token."""
        market = self.markets[change.market_id]
        best = market.book.best_bid, market.book.best_ask
        market.moving.set(change.side, change.price, change.size)
        market.timestamp_ms = self._now_ms()
        listeners = self._listeners(*market.tokens)
        if not listeners or self._is_quiet(market):
            return
        text = encode(market.price_change(change.side, change.price, change.size))
        for client in listeners:
            client.connection.send_data(text, "price_change", market.condition_id)
        if (market.book.best_bid, market.book.best_ask) != best:
            market.top_changes += 1
            if market.top_changes % _BEST_BID_ASK_EVERY == 0:
                self._best_bid_ask(market)

    def refresh(self, refresh: BookRefresh) -> None:
        """Send the whole book of each token to its listeners: same time and hash as the change before."""
        market = self.markets[refresh.market_id]
        if not self._is_quiet(market):
            self._send_books(market)

    def _send_books(self, market: PolymarketMarket) -> None:
        for index, token in enumerate(market.tokens):
            if listeners := self._listeners(token):
                text = encode(market.book_event(index, initial=False))
                for client in listeners:
                    client.connection.send_data(text, "book", market.condition_id)

    def trade(self, trade: TradePrint) -> None:
        """Print a trade for one of the two tokens; from now on the market-level last price is its."""
        market = self.markets[trade.market_id]
        if market.shelf is not None:
            return
        self._prints += 1
        price = ONE - trade.price if trade.outcome else trade.price
        bought = (trade.taker == "yes") != bool(trade.outcome)
        market.last_trade_price = padded_price(price)
        market.last_side = "BUY" if bought else "SELL"
        if self._is_quiet(market):
            return
        token = market.tokens[trade.outcome]
        event = {
            "market": market.condition_id,
            "asset_id": token,
            "price": plain_price(price),
            "size": plain_size(trade.size),
            "fee_rate_bps": "0",
            "side": market.last_side,
            "timestamp": str(self._now_ms()),
            "event_type": "last_trade_price",
            "transaction_hash": "0x" + digest(market.condition_id, self._prints),
        }
        self._send(encode(event), "last_trade_price", market.condition_id, self._listeners(token))

    def list_market(self, condition_id: str) -> None:
        """A hidden market becomes known: every connection with the flag is told, more than once.

        Who subscribed to its tokens before gets their books now.
        """
        self.hidden.discard(condition_id)
        market = self.markets[condition_id]
        text = encode(_new_market(market, self._now_ms()))
        for _ in range(_NEW_MARKET_COPIES):
            self._send(text, "new_market", condition_id, [client for client in self.clients if client.custom_features])
        for index, token in enumerate(market.tokens):
            self._send(encode([market.book_event(index, initial=True)]), "book", condition_id, self._listeners(token))

    def close_market(self, condition_id: str, result: Literal["yes", "no", ""] = "") -> None:
        """Close a market: its books are sent empty, and with a result it is resolved.

        The resolution comes once per subscribed token, to who asked for the extra events. An event is closed with
        the last of its markets.
        """
        market = self.markets[condition_id]
        if market.shelf is not None:
            return
        now_ms = self._now_ms()
        closed_at = datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S+00")
        changes: Json = {"closed": True, "acceptingOrders": False, "closedTime": closed_at}
        if result:
            prices = '["1", "0"]' if result == "yes" else '["0", "1"]'
            changes |= {"outcomePrices": prices, "umaResolutionStatus": "resolved"}
        market.close(changes, settled=bool(result))
        market.timestamp_ms = now_ms
        self._close_event(market.event)
        self._send_books(market)
        if not result:
            return
        text = encode(_market_resolved(market, int(result == "no"), now_ms))
        for token in market.tokens:
            listeners = [client for client in self._listeners(token) if client.custom_features]
            self._send(text, "market_resolved", condition_id, listeners)

    def reopen_market(self, condition_id: str) -> None:
        """A closed market trades again; who listens gets its books as they are now."""
        market = self.markets[condition_id]
        if market.shelf is None:
            return
        market.reopen()
        market.timestamp_ms = self._now_ms()
        self._close_event(market.event)
        self._send_books(market)

    def _close_event(self, event: Json) -> None:
        event["closed"] = all(market.get("closed") for market in event["markets"])

    def _is_quiet(self, market: PolymarketMarket) -> bool:
        """Whether nothing is sent of a market: it is closed, or a fault silences it."""
        if market.shelf is not None:
            return True
        return bool(self._faults.on_markets) and self._faults.silences("polymarket", market.condition_id)

    def play(self, frame: PolymarketFrame) -> None:
        """Apply a recorded frame and send it on as it is to whoever listens to a token in it."""
        tokens: dict[str, None] = {}
        for event in frame.events:
            self._apply(event)
            tokens |= dict.fromkeys(event_tokens(event))
        kind = frame.events[0].get("event_type", "book") if frame.events else "unknown"
        market_id = str(frame.events[0].get("market", "")) if frame.events else ""
        market = self.markets.get(market_id)
        if market is not None and self._is_quiet(market):
            return
        self._send(frame.text, kind, market_id, self._listeners(*tokens))

    def _apply(self, event: Json) -> None:
        kind = event.get("event_type")
        if kind == "price_change":
            self._apply_changes(event)
        elif "bids" in event and "asks" in event:
            self._apply_book(event)
        elif kind == "last_trade_price" and event.get("asset_id") in self.tokens:
            market, _ = self.tokens[event["asset_id"]]
            market.last_trade_price = padded_price(round(float(event["price"]) * PRICE_SCALE))
            market.last_side = str(event.get("side", ""))
        elif kind == "tick_size_change" and event.get("asset_id") in self.tokens:
            self.tokens[event["asset_id"]][0].tick_size = event["new_tick_size"]

    def _apply_changes(self, event: Json) -> None:
        for entry in event.get("price_changes") or ():
            found = self.tokens.get(entry["asset_id"])
            if found is None:
                continue
            market, index = found
            price, bid = parse_price(entry["price"]), entry["side"] == "BUY"
            if index:
                price, bid = ONE - price, not bid
            market.moving.set("bid" if bid else "ask", price, parse_size(entry["size"]))
            market.timestamp_ms = int(event["timestamp"])

    def _apply_book(self, event: Json) -> None:
        found = self.tokens.get(event["asset_id"])
        if found is None:
            return
        market, index = found
        market.moving.replace(*book_levels(event, index))
        market.has_book = True
        market.timestamp_ms = int(event["timestamp"])
        market.last_trade_price = event.get("last_trade_price", market.last_trade_price)

    def _best_bid_ask(self, market: PolymarketMarket) -> None:
        for index, token in enumerate(market.tokens):
            bid, ask = market.top_texts(index)
            event = {
                "market": market.condition_id,
                "asset_id": token,
                "best_bid": bid,
                "best_ask": ask,
                "spread": plain_price(parse_price(ask) - parse_price(bid)),
                "timestamp": str(market.timestamp_ms),
                "event_type": "best_bid_ask",
            }
            listeners = [client for client in self._listeners(token) if client.custom_features]
            if listeners:
                self._send(encode(event), "best_bid_ask", market.condition_id, listeners)

    def _send(self, text: str, kind: str, market_id: str, listeners: list[PolymarketClient]) -> None:
        for client in listeners:
            client.connection.send_data(text, kind, market_id)


def padded_price(price: int) -> str:
    """The market-level last trade price: at least three decimals."""
    text = plain_price(price)
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.ljust(3, '0')}"


def event_tokens(event: Json) -> list[str]:
    """Every token that a message names."""
    entries = event.get("price_changes") or [event]
    return [entry["asset_id"] for entry in entries if "asset_id" in entry]


def book_levels(book: Json, index: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Bids and asks in terms of outcome 0 of a token's book as the wire has it."""
    bids = [(parse_price(level["price"]), parse_size(level["size"])) for level in book["bids"]]
    asks = [(parse_price(level["price"]), parse_size(level["size"])) for level in book["asks"]]
    if index:
        return [(ONE - price, size) for price, size in asks], [(ONE - price, size) for price, size in bids]
    return bids, asks


def _market_resolved(market: PolymarketMarket, winner: int, now_ms: int) -> Json:
    outcomes: list[str] = msgspec.json.decode(market.record["outcomes"])
    return {
        "id": market.record["id"],
        "market": market.condition_id,
        "assets_ids": list(market.tokens),
        "winning_asset_id": market.tokens[winner],
        "winning_outcome": outcomes[winner],
        "event_message": {"id": market.event.get("id", "")},
        "timestamp": str(now_ms),
        "event_type": "market_resolved",
        "tags": [],
    }


def _new_market(market: PolymarketMarket, now_ms: int) -> Json:
    record, event = market.record, market.event
    fees: Json = record.get("feeSchedule") or {}
    parent: dict[str, Any] = {key: event.get(key, "") for key in ("id", "ticker", "slug", "title", "description")}
    return {
        "id": record["id"],
        "question": record["question"],
        "market": market.condition_id,
        "slug": record["slug"],
        "description": record["description"],
        "assets_ids": list(market.tokens),
        "outcomes": msgspec.json.decode(record["outcomes"]),
        "event_message": parent,
        "timestamp": str(now_ms),
        "event_type": "new_market",
        "tags": [],
        "condition_id": market.condition_id,
        "active": True,
        "clob_token_ids": list(market.tokens),
        "sports_market_type": "",
        "line": "",
        "game_start_time": "",
        "order_price_min_tick_size": market.tick_size,
        "group_item_title": record.get("groupItemTitle", ""),
        "taker_base_fee": "1000",
        "fees_enabled": bool(record.get("feesEnabled")),
        "fee_schedule": {
            "exponent": str(fees.get("exponent", 1)),
            "rate": str(fees.get("rate", 0)),
            "taker_only": True,
            "rebate_rate": str(fees.get("rebateRate", 0)),
        },
    }
