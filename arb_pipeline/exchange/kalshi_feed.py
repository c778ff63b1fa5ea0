"""Kalshi's WebSocket: commands, subscriptions with their own seq, and the market data that flows into them.

Facts: Kalshi AsyncAPI 2.0.0. Where it leaves a choice: a repeated subscribe answers ``subscribed`` with the sid that
is held already; an unknown ticker is accepted and gets no snapshot; ``get_snapshot`` for one is error 11.
"""

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import chain
from typing import Any, Literal, NamedTuple

import msgspec

from arb_pipeline.exchange.connections import Connection
from arb_pipeline.exchange.faults import Faults
from arb_pipeline.exchange.kalshi_account import ACCOUNT_CHANNEL_OF_TYPE, KalshiAccount
from arb_pipeline.exchange.markets import KalshiMarket, dollars, encode, rfc3339
from arb_pipeline.exchange.source import Json, KalshiFrame, LevelChange, TradePrint
from arb_pipeline.model import OrderBook
from arb_pipeline.units import ONE, parse_price, parse_size

__all__ = ["KalshiClient", "KalshiFeed", "KeptTrade"]

_SEQUENCED = frozenset(
    {
        "orderbook_delta",
        "trade",
        "market_lifecycle_v2",
        "multivariate_market_lifecycle",
        "order_group_updates",
        "communications",
    }
)
_CHANNELS = _SEQUENCED | {"ticker", "fill", "user_orders", "market_positions"}
_MARKET_DATA = frozenset({"orderbook_delta", "ticker", "trade"})
_CHANNEL_OF_TYPE = {
    "orderbook_snapshot": "orderbook_delta",
    "orderbook_delta": "orderbook_delta",
    "ticker": "ticker",
    "trade": "trade",
    "market_lifecycle_v2": "market_lifecycle_v2",
    "event_lifecycle": "market_lifecycle_v2",
    "event_fee_update": "market_lifecycle_v2",
    "multivariate_market_lifecycle": "multivariate_market_lifecycle",
    **ACCOUNT_CHANNEL_OF_TYPE,
}
_UNFILTERED = frozenset(
    {"market_lifecycle_v2", "multivariate_market_lifecycle", "order_group_updates", "communications"}
)
"""Channels that take no markets: naming some changes nothing."""
_ACTIONS = frozenset({"add_markets", "delete_markets", "get_snapshot"})
_ERRORS = {
    1: "Unable to process message",
    2: "Params required",
    3: "Channels required",
    4: "Subscription IDs required",
    5: "Unknown command",
    7: "Unknown subscription ID",
    8: "Unknown channel name",
    10: "Channel error",
    11: "Invalid parameter",
    12: "Exactly one subscription ID is required",
    13: "Unsupported action",
    14: "Market Ticker required",
    15: "Action required",
    25: "Subscription buffer overflow",
}
_KEPT_TRADES = 20_000


class _Subscription:
    """One sid of one connection.

    Attributes:
        tickers: its markets in order, None for all.
        seq: the number of the last frame that used one.
        yes_scale: whether NO prices are sent on the YES scale.
    """

    __slots__ = ("channel", "connection", "seq", "sid", "skip_ack", "tickers", "yes_scale")

    def __init__(self, connection: Connection, sid: int, channel: str, params: Mapping[str, Any]) -> None:
        self.connection = connection
        self.sid = sid
        self.channel = channel
        self.seq = 0
        self.tickers: dict[str, None] | None = {}
        self.yes_scale = bool(params.get("use_yes_price", False))
        self.skip_ack = bool(params.get("skip_ticker_ack", False))

    def next_seq(self) -> str:
        """The ``"seq":N,`` of the next frame, empty on channels without one."""
        if self.channel not in _SEQUENCED:
            return ""
        self.seq += 1
        return f'"seq":{self.seq},'


class KeptTrade(NamedTuple):
    """A trade as ``GET /markets/trades`` shows it, with its number (1 is the first) and the venue's time."""

    number: int
    ts_ms: int
    record: Json


class _CommandError(Exception):
    """A command that is answered with an error code, scoped to a subscription if one is named."""

    def __init__(self, code: int, subscription: _Subscription | None = None, ticker: str = "") -> None:
        super().__init__(_ERRORS[code])
        self.code = code
        self.subscription = subscription
        self.ticker = ticker


class KalshiClient:
    """One client: its socket and its subscriptions, sids counting up from 1."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.subscriptions: dict[int, _Subscription] = {}
        self.last_sid = 0

    def held(self, channel: str) -> _Subscription | None:
        """The subscription to a channel, if there is one."""
        return next((held for held in self.subscriptions.values() if held.channel == channel), None)


class KalshiFeed:
    """All Kalshi markets and everyone who listens to them.

    Args:
        now_ms: the venue's clock.
        on_subscribed: called at every subscription to market data.
        sending_ts: whether frames carry ``sending_ts_ms`` (sent by the venue since 2026-10-01).
        hidden: tickers not listed yet; the feed takes out what gets listed.
        faults: those that strike subscriptions and markets.

    Attributes:
        clients: everyone connected.
        trades: the newest trades, oldest first.
        account: the one account that its private channels and REST calls tell of.
    """

    def __init__(
        self,
        markets: Iterable[KalshiMarket],
        now_ms: Callable[[], int],
        on_subscribed: Callable[[], None],
        *,
        sending_ts: bool,
        hidden: set[str],
        faults: Faults,
    ) -> None:
        self.markets = {market.ticker: market for market in markets}
        self.hidden = hidden
        self.clients: list[KalshiClient] = []
        self.trades: deque[KeptTrade] = deque(maxlen=_KEPT_TRADES)
        self._faults = faults
        self._now_ms = now_ms
        self._on_subscribed = on_subscribed
        self._sending_ts = sending_ts
        self._routes: dict[str, dict[str, list[_Subscription]]] = {channel: {} for channel in _CHANNELS}
        self._everything: dict[str, list[_Subscription]] = {channel: [] for channel in _CHANNELS}
        self._changed: dict[str, None] = {}
        self._trade_number = 0
        self.account = KalshiAccount(self.markets, hidden, now_ms, self._publish_own)

    @property
    def subscribed(self) -> int:
        """Books that are subscribed, over all clients."""
        return sum(map(len, self._routes["orderbook_delta"].values()))

    # --- commands ------------------------------------------------------------------------------------------

    def command(self, client: KalshiClient, text: str) -> None:
        """Answer one command frame."""
        number = 0
        try:
            try:
                message = msgspec.json.decode(text)
            except msgspec.DecodeError:
                raise _CommandError(1) from None
            if not isinstance(message, dict):
                raise _CommandError(1)
            number = message.get("id", 0)
            if not isinstance(number, int):
                number = 0
                raise _CommandError(11)
            self._dispatch(client, number, message)
        except _CommandError as error:
            self._reply_error(client, number, error)

    def forget(self, client: KalshiClient) -> None:
        """Drop a client that is gone."""
        for subscription in client.subscriptions.values():
            self._unroute(subscription)
        client.subscriptions.clear()
        self.clients.remove(client)

    def fail(self, code: int, channel: str, ticker: str, limit: int, connection: str = "") -> int:
        """End up to ``limit`` subscriptions of a channel with a terminal error; how many.

        A sid that has ended is unknown from then on: another subscribe to its channel gets a new one.
        """
        ended = 0
        for client in self.clients:
            subscription = client.held(channel)
            if subscription is None or connection not in {"", client.connection.sent.label} or ended == limit:
                continue
            if ticker and subscription.tickers is not None and ticker not in subscription.tickers:
                continue
            self._reply_error(client, 0, _CommandError(code, subscription))
            del client.subscriptions[subscription.sid]
            self._unroute(subscription)
            ended += 1
        return ended

    def _dispatch(self, client: KalshiClient, number: int, message: Json) -> None:
        commands = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "update_subscription": self._update,
        }
        name = message.get("cmd")
        if name == "list_subscriptions":
            held = [{"channel": held.channel, "sid": held.sid} for held in client.subscriptions.values()]
            self._reply(client, number, "ok", msg=encode(held))
            return
        handler = commands.get(name) if isinstance(name, str) else None
        if handler is None:
            raise _CommandError(5)
        params = message.get("params")
        if not isinstance(params, dict):
            raise _CommandError(2)
        handler(client, number, params)

    def _subscribe(self, client: KalshiClient, number: int, params: Json) -> None:
        channels = params.get("channels")
        if not isinstance(channels, list) or not channels:
            raise _CommandError(3)
        if any(channel not in _CHANNELS for channel in channels):
            raise _CommandError(8)
        tickers = _tickers(params)
        if "orderbook_delta" in channels and not tickers:
            raise _CommandError(14)
        for channel in channels:
            subscription = client.held(channel)
            if subscription is None:
                client.last_sid += 1
                subscription = _Subscription(client.connection, client.last_sid, channel, params)
                client.subscriptions[subscription.sid] = subscription
            self._reply(client, number, "subscribed", msg=encode({"channel": channel, "sid": subscription.sid}))
            if tickers and channel not in _UNFILTERED:
                self._add(subscription, tickers, initial=bool(params.get("send_initial_snapshot")))
            elif subscription.tickers is not None:
                self._unroute(subscription)
                subscription.tickers = None
                self._everything[channel].append(subscription)
        if _MARKET_DATA.intersection(channels):
            self._on_subscribed()

    def _unsubscribe(self, client: KalshiClient, number: int, params: Json) -> None:
        sids = _sids(params)
        if not sids:
            raise _CommandError(4)
        for sid in sids:
            subscription = client.subscriptions.pop(sid, None)
            if subscription is None:
                raise _CommandError(7)
            self._unroute(subscription)
            self._reply(client, number, "unsubscribed", subscription)

    def _update(self, client: KalshiClient, number: int, params: Json) -> None:
        sids = _sids(params)
        if len(sids) != 1:
            raise _CommandError(12)
        subscription = client.subscriptions.get(sids[0])
        if subscription is None:
            raise _CommandError(7)
        action = params.get("action")
        if not action:
            raise _CommandError(15, subscription)
        if action not in _ACTIONS or (action == "get_snapshot" and subscription.channel != "orderbook_delta"):
            raise _CommandError(13, subscription)
        tickers = _tickers(params)
        if not tickers:
            raise _CommandError(14, subscription)
        if action == "get_snapshot":
            self._get_snapshots(client, number, subscription, tickers)
            return
        if action == "delete_markets":
            self._remove(subscription, tickers)
        listed = [*(subscription.tickers or {})]
        if action == "add_markets":
            listed += [ticker for ticker in tickers if ticker not in listed]
        self._reply(
            client, number, "ok", subscription, encode({} if subscription.skip_ack else {"market_tickers": listed})
        )
        if action == "add_markets":
            self._add(subscription, tickers, initial=bool(params.get("send_initial_snapshot")))

    def _get_snapshots(
        self, client: KalshiClient, number: int, subscription: _Subscription, tickers: list[str]
    ) -> None:
        for ticker in tickers:
            market = self._listed(ticker)
            if market is None:
                self._reply_error(client, number, _CommandError(11, subscription, ticker))
            else:
                self._snapshot(subscription, market, number)

    def _add(self, subscription: _Subscription, tickers: list[str], *, initial: bool) -> None:
        if subscription.tickers is None:
            return
        for ticker in tickers:
            if ticker in subscription.tickers:
                continue
            subscription.tickers[ticker] = None
            self._routes[subscription.channel].setdefault(ticker, []).append(subscription)
            market = self._listed(ticker)
            if market is None:
                continue
            if subscription.channel == "orderbook_delta":
                if not self._faults.withholds_snapshot("kalshi", ticker):
                    self._snapshot(subscription, market, 0)
            elif subscription.channel == "ticker" and initial:
                self._push(subscription, "ticker", ticker, market.ticker_msg(self._now_ms()))

    def _remove(self, subscription: _Subscription, tickers: list[str]) -> None:
        for ticker in tickers:
            if subscription.tickers and ticker in subscription.tickers:
                del subscription.tickers[ticker]
                self._routes[subscription.channel][ticker].remove(subscription)

    def _unroute(self, subscription: _Subscription) -> None:
        if subscription.tickers is None:
            self._everything[subscription.channel].remove(subscription)
        else:
            self._remove(subscription, list(subscription.tickers))

    def _listed(self, ticker: str) -> KalshiMarket | None:
        return None if ticker in self.hidden else self.markets.get(ticker)

    # --- frames --------------------------------------------------------------------------------------------

    def _sending(self) -> str:
        return f'"sending_ts_ms":{self._now_ms()},' if self._sending_ts else ""

    def _reply(
        self, client: KalshiClient, number: int, kind: str, subscription: _Subscription | None = None, msg: str = ""
    ) -> None:
        identity = f'"id":{number},' if number else ""
        scope = f'"sid":{subscription.sid},{subscription.next_seq()}' if subscription else ""
        tail = f',"msg":{msg}' if msg else ""
        client.connection.send(f'{{{identity}{scope}{self._sending()}"type":"{kind}"{tail}}}', kind)

    def _reply_error(self, client: KalshiClient, number: int, error: _CommandError) -> None:
        msg: Json = {"code": error.code, "msg": _ERRORS[error.code]}
        if error.ticker:
            msg["market_ticker"] = error.ticker
        self._reply(client, number, "error", error.subscription, encode(msg))

    def _snapshot(self, subscription: _Subscription, market: KalshiMarket, number: int) -> None:
        msg = market.snapshot(yes_scale=subscription.yes_scale)
        self._push(subscription, "orderbook_snapshot", market.ticker, msg, f'"id":{number},' if number else "")

    def _push(self, subscription: _Subscription, kind: str, ticker: str, msg: str, identity: str = "") -> None:
        subscription.connection.send_data(
            f'{{"type":"{kind}",{identity}"sid":{subscription.sid},{subscription.next_seq()}{self._sending()}"msg":{msg}}}',
            kind,
            ticker,
        )

    def _publish(self, kind: str, ticker: str, msg: str, yes_scale_msg: Callable[[], str] | None = None) -> None:
        """Send a message to every subscriber of its channel and market; the payload is made once per price scale."""
        channel = _CHANNEL_OF_TYPE[kind]
        if channel in _MARKET_DATA and self._faults.on_markets and self._faults.silences("kalshi", ticker):
            return
        sending = self._sending()
        other = ""
        for subscription in chain(self._routes[channel].get(ticker, ()), self._everything[channel]):
            body = msg
            if subscription.yes_scale and yes_scale_msg is not None:
                other = other or yes_scale_msg()
                body = other
            subscription.connection.send_data(
                f'{{"type":"{kind}","sid":{subscription.sid},{subscription.next_seq()}{sending}"msg":{body}}}',
                kind,
                ticker,
            )

    def _publish_own(self, kind: str, ticker: str, msg: Json) -> None:
        self._publish(kind, ticker, encode(msg))

    # --- the market moves ----------------------------------------------------------------------------------

    def change_level(self, change: LevelChange) -> None:
        """Apply a level change and tell the subscribers of the book."""
        market = self.markets[change.market_id]
        book = market.moving
        levels = book.bids if change.side == "bid" else book.asks
        signed = change.size - levels.get(change.price, 0)
        if not signed:
            return
        top = book.best_bid, book.best_ask
        book.set(change.side, change.price, change.size)
        if market.clock is not None:
            market.clock += 1
        if market.shelf is not None:
            return
        self._changed[change.market_id] = None
        ts_ms = self._now_ms()
        if (book.best_bid, book.best_ask) != top:
            market.candles.quote(ts_ms, top, (book.best_bid, book.best_ask))
        self._publish(
            "orderbook_delta",
            market.ticker,
            market.delta(change.side, change.price, signed, ts_ms, yes_scale=False),
            lambda: market.delta(change.side, change.price, signed, ts_ms, yes_scale=True),
        )

    def trade(self, trade: TradePrint) -> None:
        """Print a trade; its delta has gone before it. A closed market trades nothing."""
        market = self.markets[trade.market_id]
        if market.shelf is not None:
            return
        self._trade_number += 1
        trade_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{market.ticker} {self._trade_number}"))
        msg = market.trade(trade_id, trade.price, trade.size, trade.taker, self._now_ms())
        self._changed[market.ticker] = None
        self._keep_trade(msg)
        self._publish("trade", market.ticker, encode(msg))

    def tickers(self) -> None:
        """Send the conflated ticker of every market that moved since the last call."""
        changed, self._changed = self._changed, {}
        ts_ms = self._now_ms()
        for ticker in changed:
            if self._routes["ticker"].get(ticker) or self._everything["ticker"]:
                self._publish("ticker", ticker, self.markets[ticker].ticker_msg(ts_ms))

    def list_market(self, ticker: str) -> None:
        """A hidden market becomes known: the life-cycle channel says so, and who asked for its book before gets it."""
        self.hidden.discard(ticker)
        market = self.markets[ticker]
        record = market.record
        msg: Json = {
            "market_ticker": ticker,
            "event_type": "created",
            "exchange_index": 0,
            "open_ts": _seconds(record["open_time"]),
            "close_ts": _seconds(record["close_time"]),
            "price_level_structure": record["price_level_structure"],
            "price_ranges": record["price_ranges"],
            "additional_metadata": {
                "name": record["yes_sub_title"],
                "title": record["title"],
                "yes_sub_title": record["yes_sub_title"],
                "no_sub_title": record["no_sub_title"],
                "rules_primary": record["rules_primary"],
                "rules_secondary": record["rules_secondary"],
                "can_close_early": True,
                "event_ticker": record["event_ticker"],
                "expected_expiration_ts": _seconds(record["expected_expiration_time"]),
                **{key: record[key] for key in ("strike_type", "floor_strike", "cap_strike") if key in record},
            },
        }
        self._publish("market_lifecycle_v2", ticker, encode(msg))
        for subscription in self._routes["orderbook_delta"].get(ticker, ()):
            self._snapshot(subscription, market, 0)

    def close_market(self, ticker: str, result: Literal["yes", "no", ""] = "") -> None:
        """Close a market before its time, and settle it if there is a result.

        Its new close time is announced, then an empty snapshot is sent, and the caller sends another
        (:meth:`send_books`), as the venue does.
        """
        market = self.markets[ticker]
        if market.shelf is not None:
            return
        now_ms = self._now_ms()
        at, seconds = rfc3339(now_ms), now_ms // 1000
        changes: Json = {"status": "closed", "close_time": at, "updated_time": at}
        value = {"yes": "1.0000", "no": "0.0000"}.get(result, "")
        if result:
            changes |= {"status": "finalized", "result": result, "expiration_value": result}
            changes |= {"settlement_ts": at, "settlement_value_dollars": value}
        market.close(changes, settled=bool(result))
        self._lifecycle(ticker, {"event_type": "close_date_updated", "close_ts": seconds})
        self.send_books(ticker)
        if result:
            determined = {"determination_ts": seconds, "result": result, "settlement_value": value}
            self._lifecycle(ticker, {"event_type": "determined", **determined})
            self._lifecycle(ticker, {"event_type": "settled", "settled_ts": seconds})

    def reopen_market(self, ticker: str) -> None:
        """A closed market trades again until its former close time; its subscribers get the book as it is now."""
        market = self.markets[ticker]
        if market.shelf is None:
            return
        market.reopen()
        close_ts = _seconds(market.record["close_time"])
        self._lifecycle(ticker, {"event_type": "close_date_updated", "close_ts": close_ts})
        self.send_books(ticker)

    def send_books(self, ticker: str) -> None:
        """Send the whole book unasked to every subscriber."""
        market = self.markets[ticker]
        snapshot, turned = (market.snapshot(yes_scale=scale) for scale in (False, True))
        self._publish("orderbook_snapshot", ticker, snapshot, lambda: turned)

    def _lifecycle(self, ticker: str, event: Json) -> None:
        self._publish("market_lifecycle_v2", ticker, encode({"market_ticker": ticker, **event}))

    def play(self, frame: KalshiFrame) -> None:
        """Apply a recorded message and send it on, its ``msg`` untouched, unless its market has been closed."""
        market = self.markets.get(frame.market_id)
        if market is not None:
            top = market.moving.best_bid, market.moving.best_ask
            _apply(market.moving, frame)
            if frame.clock is not None:
                market.clock = frame.clock
            if market.shelf is not None:
                return
            if (market.book.best_bid, market.book.best_ask) != top:
                market.candles.quote(self._now_ms(), top, (market.book.best_bid, market.book.best_ask))
        if frame.type == "trade":
            self._keep_recorded_trade(market, msgspec.json.decode(frame.msg))
        turned = (lambda: _on_other_scale(frame.msg)) if frame.type.startswith("orderbook_") else None
        if frame.yes_scale and turned is not None:
            self._publish(frame.type, frame.market_id, turned(), lambda: frame.msg)
        else:
            self._publish(frame.type, frame.market_id, frame.msg, turned)

    def _keep_recorded_trade(self, market: KalshiMarket | None, msg: Json) -> None:
        """Keep a recorded trade, in the candles too."""
        ts_ms = self._keep_trade(msg)
        if market is not None:
            price, size = parse_price(msg["yes_price_dollars"]), parse_size(msg["count_fp"])
            market.candles.trade(ts_ms, price, size, (market.book.best_bid, market.book.best_ask))

    def _keep_trade(self, msg: Json) -> int:
        """Keep a trade for ``GET /markets/trades``; its time in ms."""
        ts_ms = int(msg.get("ts_ms") or 1000 * msg.get("ts", 0))
        record = {key: value for key, value in msg.items() if key not in {"market_ticker", "ts", "ts_ms"}}
        record |= {"ticker": msg["market_ticker"], "created_time": rfc3339(ts_ms)}
        number = self.trades[-1].number + 1 if self.trades else 1
        self.trades.append(KeptTrade(number, ts_ms, record))
        return ts_ms


def _apply(book: OrderBook, frame: KalshiFrame) -> None:
    """What a recorded message does to its market's book."""
    if frame.snapshot is not None:
        book.replace(frame.snapshot.bids, frame.snapshot.asks)
    elif frame.change is not None:
        side, price, change = frame.change
        levels = book.bids if side == "bid" else book.asks
        book.set(side, price, levels.get(price, 0) + change)


def _tickers(params: Json) -> list[str]:
    """The markets of a command, from either of the two mutually exclusive parameters."""
    one, many = params.get("market_ticker"), params.get("market_tickers")
    if one is not None and many is not None:
        raise _CommandError(11)
    tickers = [one] if one is not None else many or []
    if not isinstance(tickers, list) or not all(isinstance(ticker, str) for ticker in tickers):
        raise _CommandError(11)
    return tickers


def _sids(params: Json) -> list[int]:
    sids = [params["sid"]] if "sid" in params else params.get("sids") or []
    if not isinstance(sids, list) or not all(isinstance(sid, int) for sid in sids):
        raise _CommandError(11)
    return sids


def _on_other_scale(msg: str) -> str:
    """A recorded order-book message with its NO prices on the other scale (of ``use_yes_price``)."""
    body = msgspec.json.decode(msg)
    if body.get("side") == "no":
        body["price_dollars"] = dollars(ONE - parse_price(body["price_dollars"]))
    if body.get("no_dollars_fp"):
        body["no_dollars_fp"] = [
            [dollars(ONE - parse_price(price)), size] for price, size in reversed(body["no_dollars_fp"])
        ]
    return encode(body)


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())
