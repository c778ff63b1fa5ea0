"""One Kalshi WebSocket connection as a sans-I/O state machine (Kalshi AsyncAPI 2.0.0).

Integrity rests on ``seq``, which counts the frames of one subscription (``sid``), control frames included. A missing
number makes every book of that subscription suspect and of no other: each gets a gap, ``get_snapshot`` is asked for
all of them, deltas go on being applied while untrusted, and the snapshot that replaces a book ends its gap. A crossed
or negative book is untrusted while it lasts and asks for a snapshot too, but is no gap: real streams cross for one
frame and heal.

``seq`` says nothing of a market, a subscription or a socket that fell silent: these are asked for a snapshot once they
are silent for ``data_age_s``. Being an ordered frame of the same subscription, the answer is exactly comparable: the
same book is proof of life, another one a gap back to the market's last frame, and none at all ends the connection.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from arb_pipeline.model import (
    Anomaly,
    AnomalyKind,
    BookDelta,
    BookSnapshot,
    ChangeKind,
    FetchBooks,
    GapClosed,
    GapOpened,
    Level,
    MarketChange,
    MarketFacts,
    OrderBook,
    Output,
    Quote,
    Reconnect,
    Send,
    Side,
    Source,
    Ticker,
    Top,
    Trade,
)
from arb_pipeline.units import ONE
from arb_pipeline.venues.base import ConnectRequest
from arb_pipeline.venues.kalshi import wire
from arb_pipeline.venues.kalshi.auth import KalshiCredentials
from arb_pipeline.venues.kalshi.wire import MAX_SIZE, ClientCommand, CommandParams, WireError

__all__ = ["BOOK_CHANNEL", "DEFAULT_CHANNELS", "KalshiSession"]

BOOK_CHANNEL: Final = "orderbook_delta"
TRADE_CHANNEL: Final = "trade"
TICKER_CHANNEL: Final = "ticker"
LIFECYCLE_CHANNEL: Final = "market_lifecycle_v2"
DEFAULT_CHANNELS: Final = (BOOK_CHANNEL, TRADE_CHANNEL, TICKER_CHANNEL)

_SECOND: Final = 1_000_000_000
_SNAPSHOT_DEADLINE_NS: Final = 10 * _SECOND
_MIN_ASK_INTERVAL_NS: Final = 2 * _SECOND
_SILENCE_NS: Final = 30 * _SECOND
_PROBE_PATIENCE_NS: Final = 5 * _SECOND
_SWEEP_NS: Final = 3 * _SECOND
_COMMANDS_MOST: Final = 256
_BACKOFF_LIMIT: Final = 3
_FETCH_FROM_TRY: Final = 2
_STALE_LIMIT: Final = 50
_EXAMPLE: Final = 500
_PREFIX: Final = '{"type":"'
_PREFIX_LENGTH: Final = len(_PREFIX)
_UNKNOWN_SID: Final = 7
_CHANGE_OF_EVENT: Final[dict[str, ChangeKind]] = {
    "created": "created",
    "activated": "activated",
    "deactivated": "deactivated",
    "close_date_updated": "times",
    "determined": "determined",
    "settled": "settled",
    "price_level_structure_updated": "tick",
    "metadata_updated": "text",
    "event_lifecycle": "event",
    "event_fee_update": "fees",
}
_MARKET_LIMIT: Final = 26
_ADD: Final = "add_markets"
_DELETE: Final = "delete_markets"
_KEPT_ACTIONS: Final = frozenset({_ADD, _DELETE, "get_snapshot"})
"""Actions of which an answer does not tell the markets: the command does."""

_CHANNEL_OF_TYPE: Final = {
    "orderbook_snapshot": BOOK_CHANNEL,
    "orderbook_delta": BOOK_CHANNEL,
    "trade": TRADE_CHANNEL,
    "ticker": TICKER_CHANNEL,
}

_decode_delta = msgspec.json.Decoder(wire.OrderbookDelta).decode
_decode_snapshot = msgspec.json.Decoder(wire.OrderbookSnapshot).decode
_decode_trade = msgspec.json.Decoder(wire.TradeFrame).decode
_decode_ticker = msgspec.json.Decoder(wire.TickerFrame).decode
_decode_lifecycle = msgspec.json.Decoder(wire.LifecycleFrame).decode
_decode_lifecycle_msg = msgspec.json.Decoder(wire.LifecycleMsg).decode
_decode_subscribed = msgspec.json.Decoder(wire.Subscribed).decode
_decode_ok = msgspec.json.Decoder(wire.OkFrame).decode
_decode_unsubscribed = msgspec.json.Decoder(wire.Unsubscribed).decode
_decode_error = msgspec.json.Decoder(wire.ErrorFrame).decode
_decode_envelope = msgspec.json.Decoder(wire.Envelope).decode
_decode_rest = msgspec.json.Decoder(wire.RestBookAnswer).decode
_encode = msgspec.json.Encoder().encode


class _Ticked(msgspec.Struct, gc=False):
    """The one field that tells which market a broken frame was about."""

    market_ticker: str


class _Tickers(msgspec.Struct, gc=False):
    """The markets that an ``ok`` lists."""

    market_tickers: list[str] | None = None


_decode_ticked = msgspec.json.Decoder(_Ticked).decode
_decode_tickers = msgspec.json.Decoder(_Tickers).decode


class _Subscription:
    """What is known of one ``sid``."""

    __slots__ = ("asked", "channel", "ending", "last_ns", "left", "markets", "next_seq", "probe", "sid", "stale")

    def __init__(self, sid: int, channel: str, now_ns: int) -> None:
        self.sid = sid
        self.channel = channel
        self.markets: dict[str, None] = {}
        """An ordered set: what is said of several markets comes in the same order in every run."""
        self.next_seq = 1
        self.last_ns = now_ns
        self.stale = 0
        self.asked = False
        """It answers a command of this connection."""
        self.left: dict[str, None] = {}
        """Markets taken off, of which frames may still be under way."""
        self.ending = False
        """Its last market was taken off: nothing is added to it any more."""
        self.probe: _Probe | None = None


class _Probe:
    """A sign of life that a silent subscription owes."""

    __slots__ = ("asked_ns", "next_seq", "ticks")

    def __init__(self, now_ns: int, next_seq: int) -> None:
        self.asked_ns = now_ns
        self.next_seq = next_seq
        """Where the count stood: any frame moves it, whatever its time."""
        self.ticks = 0

    def failed(self, now_ns: int) -> bool:
        """Let a tick pass. One tick alone decides nothing: the clock may have been set."""
        self.ticks += 1
        return self.ticks > 1 and now_ns - self.asked_ns >= _PROBE_PATIENCE_NS


class _Market:
    """One market's book and how far it may be trusted."""

    __slots__ = (
        "asked_ns",
        "book",
        "doubted",
        "epoch",
        "has_snapshot",
        "heard_ns",
        "sid",
        "since_ns",
        "synced",
        "top",
        "tries",
    )

    def __init__(self, now_ns: int) -> None:
        self.book = OrderBook()
        self.top: Top | None = None
        """The four figures of the newest quote, None before the first snapshot of this connection."""
        self.sid: int | None = None
        self.has_snapshot = False
        self.synced = False
        """Snapshot taken and nothing lost since; a doubt (crossed, negative) is apart from it."""
        self.doubted = False
        self.epoch = 0
        self.since_ns = now_ns
        self.heard_ns = now_ns
        """Receive time of the newest frame about the book."""
        self.asked_ns: int | None = None
        self.tries = 0

    @property
    def trusted(self) -> bool:
        return self.synced and not self.doubted

    @property
    def last_sign_ns(self) -> int:
        """When the market was last heard of, or asked."""
        return self.heard_ns if self.asked_ns is None else max(self.heard_ns, self.asked_ns)


class KalshiSession:
    """See :class:`arb_pipeline.venues.base.Session`.

    Args:
        markets_per_subscription: most markets in one ``subscribe`` command.
        channels: what to subscribe per market.
        use_yes_price: how NO levels of the stream are priced. Live sessions ask for False; True is for recordings
            made with True, whose NO bids come on the YES scale.
        lifecycle: whether to subscribe to life-cycle messages (of all markets) on connecting.
        accept_unknown: take markets that nobody subscribed (replay); else their frames are passed over, which are those
            still under way of markets just unsubscribed.
        data_age_s: silence of a market after which its book is asked for as a proof of life, seconds.
    """

    venue = "kalshi"

    def __init__(
        self,
        connection_id: str,
        url: str = "",
        credentials: KalshiCredentials | None = None,
        *,
        markets_per_subscription: int = 500,
        channels: Sequence[str] = DEFAULT_CHANNELS,
        use_yes_price: bool = False,
        lifecycle: bool = False,
        accept_unknown: bool = True,
        data_age_s: float = 60.0,
    ) -> None:
        self.connection_id = connection_id
        self._url = url
        self._credentials = credentials
        self._chunk = markets_per_subscription
        self._channels = tuple(channels)
        self._use_yes_price = use_yes_price
        self._lifecycle = lifecycle
        self._accept_unknown = accept_unknown
        self._data_age_ns = round(data_age_s * _SECOND)
        self._silence_ns = min(_SILENCE_NS, self._data_age_ns)
        self._ticked_ns = self._swept_ns = 0
        self._open = False
        self._command_id = 0
        self._last_ns: int | None = None
        self._reconnecting = False
        self._sids: dict[int, _Subscription] = {}
        self._markets: dict[str, _Market] = {}
        self._commands: dict[int, ClientCommand] = {}
        self._deadlines: dict[str, int] = {}
        """Markets that a snapshot was asked for, and when to ask again."""
        self._gaps: dict[str, int] = {}
        """Markets whose gap is open, and from when; it outlives the connection until the next one's snapshot."""
        self._routes = {
            "orderbook_snapshot": self._on_snapshot,
            "orderbook_delta": self._on_delta,
            "trade": self._on_trade,
            "ticker": self._on_ticker,
            "subscribed": self._on_subscribed,
            "ok": self._on_ok,
            "unsubscribed": self._on_unsubscribed,
            "error": self._on_error,
            **dict.fromkeys(wire.EVENT_TYPES, self._on_lifecycle),
            **dict.fromkeys(wire.PASSIVE_TYPES, self._on_passive),
        }

    # --- the owner's side ------------------------------------------------------------------------------------

    def connect_request(self, wall_ms: int) -> ConnectRequest:
        """URL and signed headers of the upgrade; without credentials there are none and the venue answers 401."""
        if self._credentials is None:
            return ConnectRequest(self._url)
        return ConnectRequest(self._url, self._credentials.sign("GET", urlsplit(self._url).path, wall_ms))

    def connected(self, now_ns: int) -> list[Output]:
        """Start afresh; gaps that an earlier connection left stay open until this one's snapshots."""
        self._open = True
        self._reconnecting = False
        self._last_ns = self._ticked_ns = self._swept_ns = now_ns
        self._sids.clear()
        self._commands.clear()
        self._deadlines.clear()
        for market in self._markets.values():
            market.top = None
            market.sid = None
            market.has_snapshot = market.synced = market.doubted = False
            market.asked_ns = None
            market.tries = 0
        if not self._lifecycle:
            return []
        return [self._command("subscribe", CommandParams(channels=[LIFECYCLE_CHANNEL]))]

    def subscribe(self, markets: Sequence[MarketFacts], now_ns: int) -> list[Output]:
        """Commands that subscribe these markets; markets already held are left out.

        They join running subscriptions as far as there is room; the rest goes in ``subscribe`` commands.
        """
        new: list[str] = []
        for ticker in dict.fromkeys(facts.market_id for facts in markets):
            market = self._markets.get(ticker)
            if market is None:
                market = self._markets[ticker] = _Market(now_ns)
            elif market.has_snapshot or ticker in self._deadlines:
                continue
            market.since_ns = now_ns
            new.append(ticker)
        outputs: list[Output] = []
        while new and (running := self._with_room()):
            room = self._chunk - max(len(subscription.markets) for subscription in running)
            joining, new = new[:room], new[room:]
            outputs += [self._add(subscription, joining, now_ns) for subscription in running]
        return outputs + self._subscribe(new, self._channels, now_ns)

    def unsubscribe(self, market_ids: Sequence[str], now_ns: int) -> list[Output]:
        """Commands that take these markets off every subscription; an open gap ends with ``unsubscribed``."""
        outputs: list[Output] = []
        gone = [ticker for ticker in dict.fromkeys(market_ids) if self._markets.pop(ticker, None) is not None]
        for ticker in gone:
            self._deadlines.pop(ticker, None)
            self._close_gap(ticker, now_ns, "unsubscribed", outputs)
        outputs += self._forsake(gone, list(self._sids.values()))
        return outputs

    def receive(self, frame: str | bytes, recv_ns: int) -> list[Output]:
        """Turn one frame into events and commands; whatever is wrong with it becomes an :class:`Anomaly`."""
        self._last_ns = recv_ns
        self._open = True
        if isinstance(frame, bytes):
            try:
                frame = frame.decode()
            except UnicodeDecodeError as error:
                return [_anomaly(error, error.object[:_EXAMPLE].decode("utf-8", "backslashreplace"), recv_ns)]
        kind = ""
        # UnitError and WireError are ValueErrors; deep nesting exhausts the decoder's stack.
        try:
            # Frames start with their type: finding it there is several times cheaper than decoding an envelope.
            if frame.startswith(_PREFIX):
                kind = frame[_PREFIX_LENGTH : frame.find('"', _PREFIX_LENGTH)]
            else:
                peeked = _decode_envelope(frame).type
                kind = peeked if isinstance(peeked, str) else ""
            return self._routes.get(kind, self._on_unknown)(frame, recv_ns)
        except (ValueError, RecursionError) as error:
            return self._reject(kind, frame, recv_ns, error)

    def rest_book(self, market_id: str, body: bytes, recv_ns: int) -> list[Output]:
        """Take the REST book of a market.

        It cannot be spliced onto the stream, having no sequence number: while streaming it only stands in,
        untrusted, for a book that the stream has lost, and is left aside where the stream is in sync. Without a
        stream (polling) it is the book, trusted as of now.
        """
        text = body[:_EXAMPLE].decode("utf-8", "replace")
        try:
            answer = _decode_rest(body)
            raw = answer.orderbook_fp if answer.orderbook_fp is not None else answer.orderbook
            if raw is None:
                raise WireError(AnomalyKind.MISSING_FIELD, "orderbook_fp is missing in the order book's answer")
            yes, no, nulls = wire.snapshot_ladders(raw)
        except (ValueError, RecursionError) as error:
            return [_anomaly(error, text, recv_ns, market_id)]
        outputs: list[Output] = []
        # Until 2026-03-11 REST printed every empty side as null: the normal form there, not worth a note.
        if nulls and answer.orderbook_fp is not None:
            outputs.append(_null_list(nulls, text, recv_ns, market_id))
        market = self._markets.get(market_id)
        if market is None:
            market = self._markets[market_id] = _Market(recv_ns)
        if self._open and market.synced:
            return outputs
        reason: Literal["initial", "resync", "venue"] = "resync"
        if not self._open:
            reason = "initial" if market.top is None else "venue"
        market.synced = not self._open
        market.book.replace(yes, [(ONE - price, size) for price, size in no])
        market.epoch += 1
        found: list[Output] = []
        self._judge(market_id, market, text, recv_ns, found)
        outputs.append(self._snapshot(market_id, market, recv_ns, reason, source="rest"))
        outputs += found
        if market.trusted:
            self._close_gap(market_id, recv_ns, "rest_book", outputs)
        self._quote(market_id, market, recv_ns, outputs, source="rest")
        return outputs

    def tick(self, now_ns: int) -> list[Output]:
        """Ask again for overdue snapshots, ask the silent for a sign of life, leave a connection without one."""
        if not self._open or self._reconnecting:
            return []
        if now_ns < self._ticked_ns:
            self._step_back(now_ns)
        self._ticked_ns = now_ns
        if mute := [sub for sub in self._sids.values() if sub.probe is not None and self._is_mute(sub, now_ns)]:
            self._reconnecting = True
            lost: list[Output] = []
            for subscription in mute:
                for ticker in self._held(subscription):
                    self._markets[ticker].synced = False
                    self._open_gap(ticker, "silence", min(subscription.last_ns, now_ns), lost)
            names = ", ".join(f"sid {subscription.sid}" for subscription in mute)
            return [
                *lost,
                Reconnect(f"{names} silent for {self._silence_ns // _SECOND} s, and get_snapshot unanswered"),
            ]
        overdue = [ticker for ticker, deadline in self._deadlines.items() if deadline <= now_ns]
        if overdue and self._last_ns is not None and now_ns - self._last_ns > self._silence_ns:
            # Nothing on the whole connection although answers are due: unlike quiet markets, that is a dead socket.
            self._reconnecting = True
            return [Reconnect("no answer to a subscription")]
        return self._ask_overdue(overdue, now_ns) + self._probe(now_ns)

    def _ask_overdue(self, overdue: list[str], now_ns: int) -> list[Output]:
        outputs: list[Output] = []
        fetch: list[str] = []
        for ticker in overdue:
            market = self._markets[ticker]
            if not market.has_snapshot:
                self._open_gap(ticker, "snapshot_missing", min(market.since_ns, now_ns), outputs)
            market.tries += 1
            if market.tries == _FETCH_FROM_TRY:
                fetch.append(ticker)
            del self._deadlines[ticker]
        outputs += self._get_snapshots(overdue, now_ns)
        if fetch:
            outputs.append(FetchBooks(tuple(fetch), "snapshot_missing"))
        return outputs

    def _probe(self, now_ns: int) -> list[Output]:
        """Ask for the books of markets long silent, and on a silent socket for one of each subscription."""
        if now_ns - self._swept_ns < _SWEEP_NS:
            return []
        self._swept_ns = now_ns
        # What would be due before the next sweep is asked for now, so that no age is exceeded.
        age = self._data_age_ns - _SWEEP_NS
        socket_silent = self._last_ns is not None and now_ns - self._last_ns >= self._silence_ns - _SWEEP_NS
        outputs: list[Output] = []
        for subscription in self._sids.values():
            if subscription.channel != BOOK_CHANNEL:
                continue
            proven = [ticker for ticker in self._held(subscription) if self._markets[ticker].trusted]
            silent = [ticker for ticker in proven if now_ns - self._markets[ticker].last_sign_ns >= age]
            if socket_silent and not silent and subscription.probe is None:
                silent = proven[:1]
            if not silent:
                continue
            for ticker in silent:
                self._markets[ticker].asked_ns = now_ns
            if subscription.probe is None:
                subscription.probe = _Probe(now_ns, subscription.next_seq)
            outputs.append(self._ask_books(subscription.sid, silent))
        return outputs

    @staticmethod
    def _is_mute(subscription: _Subscription, now_ns: int) -> bool:
        """Whether a subscription owes its sign of life for too long; one that gave it owes none."""
        probe = subscription.probe
        assert probe is not None
        if subscription.next_seq != probe.next_seq:
            subscription.probe = None
            return False
        return probe.failed(now_ns)

    def _step_back(self, now_ns: int) -> None:
        """The clock was set back: no time of before lies ahead of it, or all waiting would last as long as the step."""
        self._deadlines = {
            ticker: min(deadline, now_ns + _patience(self._markets[ticker].tries))
            for ticker, deadline in self._deadlines.items()
        }
        self._last_ns = now_ns if self._last_ns is None else min(self._last_ns, now_ns)
        self._swept_ns = min(self._swept_ns, now_ns)
        for subscription in self._sids.values():
            subscription.last_ns = min(subscription.last_ns, now_ns)
            if subscription.probe is not None:
                subscription.probe.asked_ns = min(subscription.probe.asked_ns, now_ns)
        for market in self._markets.values():
            market.since_ns = min(market.since_ns, now_ns)
            market.heard_ns = min(market.heard_ns, now_ns)
            if market.asked_ns is not None:
                market.asked_ns = min(market.asked_ns, now_ns)

    def disconnected(self, now_ns: int, cause: str) -> list[Output]:
        """Open a gap, dated back to the last frame, for every market that has or awaits a book."""
        last = now_ns if self._last_ns is None else min(self._last_ns, now_ns)
        outputs: list[Output] = []
        for ticker, market in self._markets.items():
            market.synced = False
            self._open_gap(ticker, cause, max(last, min(market.since_ns, now_ns)), outputs)
        self._open = False
        self._sids.clear()
        self._commands.clear()
        self._deadlines.clear()
        return outputs

    def book(self, market_id: str) -> OrderBook | None:
        """The book of a market, None before its first snapshot on this connection."""
        market = self._markets.get(market_id)
        return market.book if market is not None and market.top is not None else None

    def in_sync(self, market_id: str) -> bool:
        """Whether the book of a market may be trusted now."""
        market = self._markets.get(market_id)
        return market is not None and market.trusted

    def snapshots(self, now_ns: int) -> list[BookSnapshot]:
        """Every book held, for the start of a partition."""
        return [
            self._snapshot(ticker, market, now_ns, "hour", source="ws" if market.has_snapshot else "rest")
            for ticker, market in self._markets.items()
            if market.top is not None
        ]

    # --- book frames -----------------------------------------------------------------------------------------

    def _on_delta(self, frame: str, recv_ns: int) -> list[Output]:
        message = _decode_delta(frame)
        msg = message.msg
        price, change = wire.delta_change(msg)
        sid, seq, ticker = message.sid, message.seq, msg.market_ticker
        market = self._markets.get(ticker)
        if market is None or sid != market.sid:
            self._check_asked(sid, ticker)
        subscription = self._sids.get(sid)
        outputs: list[Output]
        if subscription is not None and seq == subscription.next_seq:
            subscription.next_seq = seq + 1
            subscription.last_ns = recv_ns
            subscription.stale = 0
            outputs = []
        else:
            accepted = self._sequence(sid, seq, BOOK_CHANNEL, frame, recv_ns)
            if accepted is None:
                return self._duplicate(sid, seq, frame, recv_ns)
            outputs = accepted
        if market is None or not market.has_snapshot:
            return outputs + self._orphan(ticker, sid, frame, recv_ns)
        if sid != market.sid:
            detail = f"sid {sid}: the book follows sid {market.sid}; applying both would count changes twice"
            return [*outputs, Anomaly(AnomalyKind.DUPLICATE, detail, recv_ns, ticker, frame[:_EXAMPLE])]
        book = market.book
        side: Side
        if msg.side == "yes":
            side = "bid"
            size = book.bids.get(price, 0) + change
        else:
            side = "ask"
            if not self._use_yes_price:
                price = ONE - price
            size = book.asks.get(price, 0) + change
        if not -MAX_SIZE <= size <= MAX_SIZE:
            error = WireError(AnomalyKind.BAD_NUMBER, f"delta_fp {msg.delta_fp!r} makes a level of {size}e-6 contracts")
            outputs.append(_anomaly(error, frame, recv_ns, ticker))
            return outputs + self._spoil([ticker], recv_ns)
        if side == "bid":
            book.set_bid(price, size)
        else:
            book.set_ask(price, size)
        market.heard_ns = recv_ns
        venue_ns = wire.venue_ns(msg.ts_ms, msg.ts)
        outputs.append(BookDelta(ticker, side, price, size, recv_ns, venue_ns, seq, market.epoch))
        bid, ask = book.best_bid, book.best_ask
        if market.doubted or book.negative_levels or (bid is not None and ask is not None and bid >= ask):
            self._judge(ticker, market, frame, recv_ns, outputs)
        top = market.top
        # A change away from both ends cannot have changed the quote.
        if price in (bid, ask) or top is None or bid != top[0] or ask != top[2]:
            self._quote(ticker, market, recv_ns, outputs, venue_ns=venue_ns, seq=seq)
        return outputs

    def _on_snapshot(self, frame: str, recv_ns: int) -> list[Output]:
        message = _decode_snapshot(frame)
        ticker, seq = message.msg.market_ticker, message.seq
        yes, no, nulls = wire.snapshot_ladders(message.msg)
        self._check_asked(message.sid, ticker)
        outputs = self._sequence(message.sid, seq, BOOK_CHANNEL, frame, recv_ns)
        if outputs is None:
            return self._duplicate(message.sid, seq, frame, recv_ns)
        market = self._market(ticker, recv_ns)
        if market is None:
            return outputs
        if nulls:
            outputs.append(_null_list(nulls, frame, recv_ns, ticker))
        bids, asks = yes, no if self._use_yes_price else [(ONE - price, size) for price, size in no]
        if message.id and market.trusted and ticker not in self._deadlines:
            self._commands.pop(message.id, None)
            if market.book.bids == _sizes(bids) and market.book.asks == _sizes(asks):
                market.heard_ns = recv_ns
                return outputs
            # No number is missing, and yet the stream left something out.
            self._open_gap(ticker, "silent_market", min(market.heard_ns, recv_ns), outputs)
        reason: Literal["initial", "resync", "venue"] = "venue"
        if market.top is None:
            reason = "initial"
        elif not market.trusted or ticker in self._deadlines or message.id:
            reason = "resync"
        self._commands.pop(message.id or 0, None)
        self._deadlines.pop(ticker, None)
        market.heard_ns = recv_ns
        market.tries = 0
        market.sid = message.sid
        self._sids[message.sid].markets[ticker] = None
        market.book.replace(bids, asks)
        market.epoch += 1
        market.has_snapshot = market.synced = True
        found: list[Output] = []
        self._judge(ticker, market, frame, recv_ns, found)
        outputs.append(self._snapshot(ticker, market, recv_ns, reason, seq=seq))
        outputs += found
        if market.trusted:
            self._close_gap(ticker, recv_ns, "snapshot", outputs)
        else:
            outputs += self._check_convention(ticker, yes, no, frame, recv_ns)
            self._deadlines.setdefault(ticker, recv_ns + _SNAPSHOT_DEADLINE_NS)
        self._quote(ticker, market, recv_ns, outputs, seq=seq)
        return outputs

    def _snapshot(
        self,
        ticker: str,
        market: _Market,
        recv_ns: int,
        reason: Literal["initial", "resync", "venue", "hour"],
        *,
        seq: int | None = None,
        source: Source = "ws",
    ) -> BookSnapshot:
        bids, asks = tuple(market.book.bid_levels()), tuple(market.book.ask_levels())
        return BookSnapshot(ticker, bids, asks, recv_ns, None, seq, market.epoch, reason, market.trusted, source)

    def _quote(
        self,
        ticker: str,
        market: _Market,
        recv_ns: int,
        outputs: list[Output],
        *,
        venue_ns: int | None = None,
        seq: int | None = None,
        source: Source = "ws",
    ) -> None:
        """A quote if one of the four figures changed since the last one, or this connection has told none yet."""
        top = market.book.top()
        if top != market.top:
            market.top = top
            outputs.append(Quote(ticker, *top, market.trusted, recv_ns, venue_ns, seq, source))

    def _judge(self, ticker: str, market: _Market, frame: str, recv_ns: int, outputs: list[Output]) -> None:
        """Note when a book becomes, or ceases to be, crossed or negative; an onset is counted once and asks anew."""
        book = market.book
        crossed = book.crossed
        bad = crossed or book.negative_levels > 0
        if bad == market.doubted:
            return
        market.doubted = bad
        if not bad:
            return
        example = frame[:_EXAMPLE]
        if crossed:
            detail = f"bid {book.best_bid} at or above ask {book.best_ask} (1e-4 dollars)"
            outputs.append(Anomaly(AnomalyKind.CROSSED_BOOK, detail, recv_ns, ticker, example))
        if book.negative_levels:
            detail = f"{book.negative_levels} level(s) below zero"
            outputs.append(Anomaly(AnomalyKind.NEGATIVE_LEVEL, detail, recv_ns, ticker, example))
        outputs += self._ask([ticker], recv_ns)

    def _check_convention(
        self, ticker: str, yes: list[Level], no: list[Level], frame: str, recv_ns: int
    ) -> list[Output]:
        """Whether a crossed snapshot makes sense on the other NO scale (the default of use_yes_price will flip)."""
        if not yes or not no:
            return []
        best_yes = max(price for price, _ in yes)
        on_no_scale = best_yes + max(price for price, _ in no) < ONE
        on_yes_scale = min(price for price, _ in no) > best_yes
        if on_yes_scale in (on_no_scale, self._use_yes_price):
            return []
        detail = (
            f"NO levels fit use_yes_price={str(on_yes_scale).lower()}, "
            f"but the stream was taken as use_yes_price={str(self._use_yes_price).lower()}"
        )
        return [Anomaly(AnomalyKind.PRICE_CONVENTION, detail, recv_ns, ticker, frame[:_EXAMPLE])]

    def _orphan(self, ticker: str, sid: int, frame: str, recv_ns: int) -> list[Output]:
        """A delta of a market without a snapshot: it cannot be applied, so the market's book has a gap."""
        market = self._market(ticker, recv_ns)
        if market is None:
            return []
        market.sid = sid
        self._sids[sid].markets[ticker] = None
        detail = "orderbook_delta before any orderbook_snapshot"
        outputs: list[Output] = [Anomaly(AnomalyKind.NO_SNAPSHOT, detail, recv_ns, ticker, frame[:_EXAMPLE])]
        self._open_gap(ticker, "no_snapshot", recv_ns, outputs)
        return outputs + self._ask([ticker], recv_ns)

    def _market(self, ticker: str, now_ns: int) -> _Market | None:
        """A market's state; None if nobody subscribed it and that matters."""
        market = self._markets.get(ticker)
        if market is None and self._accept_unknown:
            market = self._markets[ticker] = _Market(now_ns)
        return market

    # --- other data frames -----------------------------------------------------------------------------------

    def _on_trade(self, frame: str, recv_ns: int) -> list[Output]:
        message = _decode_trade(frame)
        msg = message.msg
        price, size = wire.trade_numbers(msg)
        self._check_no_books(message.sid)
        outputs = self._sequence(message.sid, message.seq, TRADE_CHANNEL, frame, recv_ns)
        if outputs is None:
            return self._duplicate(message.sid, message.seq, frame, recv_ns)
        ticker = msg.market_ticker
        if ticker in self._markets or self._accept_unknown:
            self._sids[message.sid].markets[ticker] = None
        else:
            return outputs
        side = msg.taker_outcome_side or msg.taker_side
        taker: Literal["yes", "no"] | None = "yes" if side == "yes" else "no" if side == "no" else None
        venue_ns = wire.venue_ns(msg.ts_ms, msg.ts)
        trade_id = msg.trade_id or _trade_id(ticker, message.sid, message.seq, venue_ns, price, size, side)
        outputs.append(Trade(ticker, trade_id, price, size, taker, recv_ns, venue_ns, message.seq))
        return outputs

    def _on_ticker(self, frame: str, recv_ns: int) -> list[Output]:
        message = _decode_ticker(frame)
        msg = message.msg
        numbers = wire.ticker_numbers(msg)
        self._check_no_books(message.sid)
        outputs = self._sequence(message.sid, message.seq, TICKER_CHANNEL, frame, recv_ns)
        if outputs is None:
            return self._duplicate(message.sid, message.seq, frame, recv_ns)
        ticker = msg.market_ticker
        if ticker in self._markets or self._accept_unknown:
            self._sids[message.sid].markets[ticker] = None
        else:
            return outputs
        venue_ns = wire.venue_ns(msg.ts_ms, msg.time if msg.time is not None else msg.ts)
        outputs.append(Ticker(ticker, *numbers, recv_ns, venue_ns))
        return outputs

    def _on_lifecycle(self, frame: str, recv_ns: int) -> list[Output]:
        message = _decode_lifecycle(frame)
        named = _decode_lifecycle_msg(message.msg)
        details = wire.details_of(message.msg)
        self._check_no_books(message.sid)
        outputs = self._sequence(message.sid, message.seq, message.type, frame, recv_ns)
        if outputs is None:
            return self._duplicate(message.sid, message.seq, frame, recv_ns)
        outputs.append(_market_change(message.type, named, recv_ns, details))
        return outputs

    def _on_passive(self, frame: str, recv_ns: int) -> list[Output]:
        envelope = _decode_envelope(frame)
        self._check_no_books(envelope.sid)
        return self._account(envelope, frame, recv_ns)

    def _on_unknown(self, frame: str, recv_ns: int) -> list[Output]:  # noqa: ARG002 - refused whenever it comes
        envelope = _decode_envelope(frame)
        kind, problem = AnomalyKind.UNKNOWN_TYPE, f"type {str(envelope.type)[:80]!r}"
        if envelope.type is None:
            kind, problem = AnomalyKind.MISSING_FIELD, "type is missing"
        elif not isinstance(envelope.type, str):
            kind, problem = AnomalyKind.WRONG_TYPE, f"type is {type(envelope.type).__name__}, not a string"
        raise WireError(kind, problem)

    def _check_asked(self, sid: int, ticker: str) -> None:
        """Refuse a book frame of what was never asked for (in a replay nothing was): what was asked may lack it.

        Raises:
            WireError: if the subscription, or the market in it, is not this connection's.
        """
        if self._accept_unknown:
            return
        subscription = self._sids.get(sid)
        if subscription is None or not subscription.asked or subscription.channel != BOOK_CHANNEL:
            raise WireError(AnomalyKind.UNKNOWN_MARKET, f"sid {sid} is no order-book subscription of this connection")
        if ticker not in self._markets and ticker not in subscription.left:
            raise WireError(AnomalyKind.UNKNOWN_MARKET, f"market_ticker {ticker[:80]!r} was never asked for")

    def _check_no_books(self, sid: object) -> None:
        """Refuse another message in the place of a book frame.

        Raises:
            WireError: if the subscription is one of books.
        """
        subscription = self._sids.get(sid) if isinstance(sid, int) else None
        if subscription is not None and subscription.channel == BOOK_CHANNEL:
            raise WireError(AnomalyKind.WRONG_TYPE, f"sid {sid} is an order-book subscription: no such type")

    # --- control frames --------------------------------------------------------------------------------------

    def _on_subscribed(self, frame: str, recv_ns: int) -> list[Output]:
        message = _decode_subscribed(frame)
        channel, sid = message.msg.channel, message.msg.sid
        subscription = self._sids.get(sid)
        if subscription is None:
            subscription = self._sids[sid] = _Subscription(sid, channel, recv_ns)
        if subscription.channel not in ("", channel):
            raise WireError(AnomalyKind.WRONG_TYPE, f"sid {sid} is of {subscription.channel}, not of {channel[:40]!r}")
        subscription.channel = channel
        return self._acknowledge(message.id, subscription)

    def _on_ok(self, frame: str, recv_ns: int) -> list[Output]:
        message = _decode_ok(frame)
        listed: list[str] = []
        if message.msg is not msgspec.UNSET and bytes(message.msg)[:1] == b"{":
            listed = _decode_tickers(message.msg).market_tickers or []
        if message.sid is None:
            return []
        outputs = self._sequence(message.sid, message.seq, "", frame, recv_ns)
        if outputs is None:
            return self._duplicate(message.sid, message.seq, frame, recv_ns)
        subscription = self._sids[message.sid]
        command = self._commands.get(message.id or 0)
        if command is None or command.cmd == "subscribe":
            subscription.markets.update(dict.fromkeys(ticker for ticker in listed if ticker in self._markets))
            return outputs + self._acknowledge(message.id, subscription)
        del self._commands[command.id]
        if not isinstance(command.params, msgspec.UnsetType) and command.params.action == _DELETE:
            for ticker in _listed(command.params, "market_tickers"):
                subscription.left.pop(ticker, None)
        return outputs

    def _acknowledge(self, command_id: int | None, subscription: _Subscription) -> list[Output]:
        """Bind the markets of a ``subscribe`` to the subscription that answers it."""
        command = self._commands.get(command_id or 0)
        if command is None or command.cmd != "subscribe":
            return []
        waiting, tickers = _listed(command.params, "channels"), _listed(command.params, "market_tickers")
        if subscription.channel not in waiting:
            return []
        waiting.remove(subscription.channel)
        subscription.asked = True
        if not waiting:
            del self._commands[command_id or 0]
        wanted = [ticker for ticker in tickers if ticker in self._markets]
        subscription.markets.update(dict.fromkeys(tickers))
        subscription.ending = False
        if subscription.channel == BOOK_CHANNEL:
            for ticker in wanted:
                self._markets[ticker].sid = subscription.sid
        # Unsubscribed while the command was under way.
        return self._forsake([ticker for ticker in tickers if ticker not in self._markets], [subscription])

    def _on_unsubscribed(self, frame: str, recv_ns: int) -> list[Output]:
        message = _decode_unsubscribed(frame)
        if message.sid not in self._sids:
            return []
        outputs = self._sequence(message.sid, message.seq, "", frame, recv_ns)
        if outputs is None:
            return self._duplicate(message.sid, message.seq, frame, recv_ns)
        return outputs + self._renew(self._sids[message.sid], "unsubscribed", recv_ns)

    def _on_error(self, frame: str, recv_ns: int) -> list[Output]:
        message = _decode_error(frame)
        code = message.msg.code
        outputs: list[Output] = []
        if message.sid is not None:
            accepted = self._sequence(message.sid, message.seq, "", frame, recv_ns)
            if accepted is None:
                return self._duplicate(message.sid, message.seq, frame, recv_ns)
            outputs = accepted
        detail = f"error {code}: {message.msg.msg}"
        ticker = message.msg.market_ticker or ""
        outputs.append(Anomaly(AnomalyKind.VENUE_ERROR, detail, recv_ns, ticker, frame[:_EXAMPLE]))
        command = self._commands.pop(message.id or 0, None)
        if code in wire.TERMINAL_ERRORS:
            if message.sid is None:
                return [*outputs, Reconnect(detail)]
            return outputs + self._renew(self._sids[message.sid], f"error_{code}", recv_ns)
        if command is None or command.params is msgspec.UNSET:
            return outputs
        tickers = _listed(command.params, "market_tickers")
        for sid in _sids_of(command.params):
            if (subscription := self._sids.get(sid)) is None:
                continue
            if code == _UNKNOWN_SID:
                outputs += self._renew(subscription, f"error_{code}", recv_ns)
            elif command.params.action == _ADD:
                outputs += self._not_added(subscription, tickers, code, recv_ns)
        if code == _MARKET_LIMIT and command.cmd == "subscribe" and len(tickers) > 1:
            self._chunk = (len(tickers) + 1) // 2
            outputs += self._subscribe(tickers, _listed(command.params, "channels"), recv_ns)
        return outputs

    def _not_added(
        self, subscription: _Subscription, tickers: list[str], code: int | None, now_ns: int
    ) -> list[Output]:
        """Markets could not join a subscription: they get one of their own."""
        for ticker in tickers:
            subscription.markets.pop(ticker, None)
        if code == _MARKET_LIMIT:
            self._chunk = max(1, len(subscription.markets))
        return self._subscribe(
            [ticker for ticker in tickers if ticker in self._markets], [subscription.channel], now_ns
        )

    # --- sequence and recovery -------------------------------------------------------------------------------

    def _sequence(self, sid: int, seq: int | None, channel: str, frame: str, recv_ns: int) -> list[Output] | None:
        """Count a frame of a subscription; what a missing number before it entails. None for an old number."""
        subscription = self._sids.get(sid)
        if subscription is None:
            # Replayed connections may lack their acknowledgements: the first frame stands in for it.
            subscription = self._sids[sid] = _Subscription(sid, channel, recv_ns)
        elif not subscription.channel:
            subscription.channel = channel
        if seq is None:
            subscription.last_ns = recv_ns
            return []
        expected = subscription.next_seq
        if seq < expected:
            return None
        outputs: list[Output] = []
        if seq > expected:
            detail = f"sid {sid}: expected seq {expected}, got {seq}"
            outputs.append(Anomaly(AnomalyKind.SEQ_GAP, detail, recv_ns, "", frame[:_EXAMPLE]))
            outputs += self._lose(subscription, "seq_gap", recv_ns)
        subscription.next_seq = seq + 1
        subscription.last_ns = recv_ns
        subscription.stale = 0
        return outputs

    def _duplicate(self, sid: int, seq: int | None, frame: str, recv_ns: int) -> list[Output]:
        """A frame with a number that was passed already is not applied; many in a row mean that counting is lost."""
        subscription = self._sids[sid]
        subscription.stale += 1
        detail = f"sid {sid}: seq {seq} again, expected {subscription.next_seq}"
        outputs: list[Output] = [Anomaly(AnomalyKind.DUPLICATE, detail, recv_ns, "", frame[:_EXAMPLE])]
        if subscription.stale == _STALE_LIMIT:
            outputs += self._lose(subscription, "seq_regression", recv_ns)
            outputs.append(Reconnect(f"seq of sid {sid} fell back from {subscription.next_seq} to {seq}"))
        return outputs

    def _lose(self, subscription: _Subscription, cause: str, now_ns: int) -> list[Output]:
        """Something of a subscription was lost after its last frame: say so for each market, ask for books."""
        outputs: list[Output] = []
        tickers = self._held(subscription)
        since = min(subscription.last_ns, now_ns)
        if subscription.channel == TRADE_CHANNEL:
            # The books are sound, but trades between the two frames are missing for good.
            for ticker in tickers:
                if ticker not in self._gaps:
                    outputs.append(GapOpened(ticker, f"trade_{cause}", since))
                    outputs.append(GapClosed(ticker, now_ns, "not_recovered"))
        elif subscription.channel == BOOK_CHANNEL:
            for ticker in tickers:
                self._markets[ticker].synced = False
                self._open_gap(ticker, cause, since, outputs)
            outputs += self._ask(tickers, now_ns)
        return outputs

    def _renew(self, subscription: _Subscription, cause: str, now_ns: int) -> list[Output]:
        """A subscription is dead: forget its ``sid`` and subscribe its wanted markets again."""
        del self._sids[subscription.sid]
        tickers = self._held(subscription)
        if subscription.channel != BOOK_CHANNEL:
            outputs = self._lose(subscription, cause, now_ns)
        else:
            outputs = []
            for ticker in tickers:
                market = self._markets[ticker]
                market.synced = False
                market.sid = None
                self._open_gap(ticker, cause, min(subscription.last_ns, now_ns), outputs)
        return outputs + self._subscribe(tickers, [subscription.channel], now_ns) if subscription.channel else outputs

    def _spoil(self, tickers: Iterable[str], recv_ns: int, *, snapshot: bool = False) -> list[Output]:
        """A book frame could not be used: these books have a gap until the next snapshot."""
        outputs: list[Output] = []
        known = [ticker for ticker in tickers if ticker in self._markets]
        for ticker in known:
            market = self._markets[ticker]
            market.synced = False
            if snapshot:
                market.has_snapshot = False
            self._open_gap(ticker, "bad_frame", recv_ns, outputs)
        return outputs + self._ask(known, recv_ns)

    def _reject(self, kind: str, frame: str, recv_ns: int, error: Exception) -> list[Output]:
        """A frame that cannot be used: count it in its subscription all the same, and doubt the book it was about."""
        outputs: list[Output] = [_anomaly(error, frame, recv_ns)]
        try:
            envelope = _decode_envelope(frame)
        except (ValueError, RecursionError):
            return outputs
        sequenced = self._account(envelope, frame, recv_ns, _CHANNEL_OF_TYPE.get(kind, ""))
        outputs += sequenced
        duplicate = any(isinstance(output, Anomaly) and output.kind is AnomalyKind.DUPLICATE for output in sequenced)
        subscription = self._sids.get(envelope.sid) if isinstance(envelope.sid, int) else None
        about_books = _CHANNEL_OF_TYPE.get(kind) == BOOK_CHANNEL
        # What took a number of a book's subscription may stand where a change of one of its books was.
        in_place = subscription is not None and subscription.channel == BOOK_CHANNEL and _is_counter(envelope.seq)
        if duplicate or not (about_books or in_place):
            return outputs
        try:
            tickers = [_decode_ticked(envelope.msg).market_ticker if envelope.msg is not msgspec.UNSET else ""]
        except (ValueError, RecursionError):
            tickers = [""]
        # A type that is new to us, and names no market, is no reason to doubt books.
        if subscription is not None and tickers[0] not in self._markets and (tickers[0] or kind in self._routes):
            tickers = list(subscription.markets)
        return outputs + self._spoil(tickers, recv_ns, snapshot=kind == "orderbook_snapshot")

    def _account(self, envelope: wire.Envelope, frame: str, recv_ns: int, channel: str = "") -> list[Output]:
        """Count a frame of which only the envelope is read."""
        sid, seq = envelope.sid, envelope.seq
        if not (_is_counter(sid) and _is_counter(seq)):
            return []
        assert isinstance(sid, int)
        assert isinstance(seq, int)
        outputs = self._sequence(sid, seq, channel, frame, recv_ns)
        return self._duplicate(sid, seq, frame, recv_ns) if outputs is None else outputs

    def _open_gap(self, ticker: str, cause: str, from_ns: int, outputs: list[Output]) -> None:
        if ticker not in self._gaps:
            self._gaps[ticker] = from_ns
            outputs.append(GapOpened(ticker, cause, from_ns))

    def _close_gap(self, ticker: str, to_ns: int, recovery: str, outputs: list[Output]) -> None:
        from_ns = self._gaps.pop(ticker, None)
        if from_ns is not None:
            outputs.append(GapClosed(ticker, max(from_ns, to_ns), recovery))

    def _held(self, subscription: _Subscription) -> list[str]:
        """The wanted markets of a subscription."""
        return [ticker for ticker in subscription.markets if ticker in self._markets]

    # --- commands --------------------------------------------------------------------------------------------

    def _ask(self, tickers: Iterable[str], now_ns: int) -> list[Output]:
        """Ask for snapshots, but never twice within two seconds for one market: what is early is left to ``tick``."""
        due: list[str] = []
        for ticker in tickers:
            asked = self._markets[ticker].asked_ns
            if asked is None or now_ns - asked >= _MIN_ASK_INTERVAL_NS:
                due.append(ticker)
            else:
                again = asked + _MIN_ASK_INTERVAL_NS
                self._deadlines[ticker] = min(self._deadlines.get(ticker, again), again)
        return self._get_snapshots(due, now_ns)

    def _get_snapshots(self, tickers: Iterable[str], now_ns: int) -> list[Output]:
        """``get_snapshot`` per subscription; markets of none are subscribed again."""
        if not self._open:
            return []
        homeless: list[str] = []
        by_sid: dict[int, list[str]] = {}
        for ticker in tickers:
            market = self._markets[ticker]
            market.asked_ns = now_ns
            if market.sid is not None and market.sid in self._sids:
                by_sid.setdefault(market.sid, []).append(ticker)
                self._deadlines[ticker] = now_ns + _patience(market.tries)
            else:
                homeless.append(ticker)
        outputs: list[Output] = [self._ask_books(sid, wanted) for sid, wanted in by_sid.items()]
        return outputs + self._subscribe(homeless, self._channels, now_ns)

    def _ask_books(self, sid: int, tickers: list[str]) -> Send:
        return self._command(
            "update_subscription", CommandParams(sids=[sid], action="get_snapshot", market_tickers=tickers)
        )

    def _with_room(self) -> list[_Subscription]:
        """A running subscription of each channel that more markets may join; none if a channel lacks one."""
        found: dict[str, _Subscription] = {}
        for subscription in self._sids.values():
            if not subscription.ending and 0 < len(subscription.markets) < self._chunk:
                found.setdefault(subscription.channel, subscription)
        running = [found[channel] for channel in self._channels if channel in found]
        return running if len(running) == len(self._channels) else []

    def _add(self, subscription: _Subscription, tickers: list[str], now_ns: int) -> Send:
        subscription.markets.update(dict.fromkeys(tickers))
        if subscription.channel == BOOK_CHANNEL:
            for ticker in tickers:
                self._markets[ticker].sid = subscription.sid
                self._deadlines[ticker] = now_ns + _SNAPSHOT_DEADLINE_NS
        params = CommandParams(sids=[subscription.sid], action=_ADD, market_tickers=tickers)
        return self._command("update_subscription", params)

    def _subscribe(self, tickers: Sequence[str], channels: Sequence[str], now_ns: int) -> list[Output]:
        outputs: list[Output] = []
        for start in range(0, len(tickers), self._chunk):
            chunk = list(tickers[start : start + self._chunk])
            params = CommandParams(channels=list(channels), market_tickers=chunk)
            if BOOK_CHANNEL in channels:
                # Always said, because the venue's default is going to flip.
                params.use_yes_price = self._use_yes_price
                for ticker in chunk:
                    self._deadlines[ticker] = now_ns + _patience(self._markets[ticker].tries)
            outputs.append(self._command("subscribe", params))
        return outputs

    def _forsake(self, tickers: Sequence[str], subscriptions: Iterable[_Subscription]) -> list[Output]:
        """Take markets off subscriptions; one that is left empty ends."""
        outputs: list[Output] = []
        for subscription in subscriptions:
            held = [ticker for ticker in tickers if ticker in subscription.markets]
            for ticker in held:
                del subscription.markets[ticker]
                subscription.left[ticker] = None
            if held and subscription.markets:
                params = CommandParams(sids=[subscription.sid], action=_DELETE, market_tickers=held)
                outputs.append(self._command("update_subscription", params))
            elif held:
                # One sid a command: how many answers several get is not documented.
                subscription.ending = True
                subscription.probe = None
                outputs.append(self._command("unsubscribe", CommandParams(sids=[subscription.sid])))
        return outputs

    def _command(self, cmd: str, params: CommandParams) -> Send:
        self._command_id += 1
        command = ClientCommand(cmd, self._command_id, params)
        text = _encode(command).decode()
        if cmd == "subscribe" or params.action in _KEPT_ACTIONS:
            if len(self._commands) >= _COMMANDS_MOST:
                del self._commands[next(iter(self._commands))]
            self._commands[command.id] = command
        return Send(text)


def _market_change(kind: str, told: wire.LifecycleMsg, recv_ns: int, details: Mapping[str, Any]) -> MarketChange:
    """A life-cycle message in the words of all venues; times come in seconds."""
    kind = told.event_type or kind
    ticker = told.market_ticker or ""
    nested = details.get("additional_metadata")
    event = told.event_ticker or (nested.get("event_ticker") if isinstance(nested, Mapping) else None)
    series = details.get("series_ticker")
    change = _CHANGE_OF_EVENT.get(kind, "other")
    return MarketChange(
        ticker,
        event if isinstance(event, str) else "",
        kind,
        recv_ns,
        details,
        change=change,
        series_id=series if isinstance(series, str) else "",
        facts=MarketFacts(venue=KalshiSession.venue, market_id=ticker) if change == "created" and ticker else None,
        open_ns=_seconds_ns(details.get("open_ts")),
        close_ns=_seconds_ns(details.get("close_ts")),
        effective_ns=_seconds_ns(details.get("settled_ts", details.get("determination_ts"))),
    )


def _seconds_ns(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 // _SECOND:
        return value * _SECOND
    return None


def _sizes(levels: Iterable[Level]) -> dict[int, int]:
    return {price: size for price, size in levels if size}


def _patience(tries: int) -> int:
    """How long to wait for a snapshot: 10 s, doubling with each try up to 80 s."""
    return _SNAPSHOT_DEADLINE_NS << min(tries, _BACKOFF_LIMIT)


def _is_counter(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= wire.MAX_COUNTER


def _listed(params: CommandParams | msgspec.UnsetType, name: Literal["channels", "market_tickers"]) -> list[str]:
    if isinstance(params, msgspec.UnsetType):
        return []
    value = params.channels if name == "channels" else params.market_tickers
    return [] if isinstance(value, msgspec.UnsetType) else value


def _sids_of(params: CommandParams) -> list[int]:
    return [] if isinstance(params.sids, msgspec.UnsetType) else params.sids


def _anomaly(error: Exception, frame: str, recv_ns: int, market_id: str = "") -> Anomaly:
    kind, detail = wire.classify(error)
    return Anomaly(kind, detail[:_EXAMPLE], recv_ns, market_id, frame[:_EXAMPLE])


def _null_list(names: list[str], frame: str, recv_ns: int, market_id: str) -> Anomaly:
    detail = f"{', '.join(names)} null, taken as empty"
    return Anomaly(AnomalyKind.NULL_LIST, detail, recv_ns, market_id, frame[:_EXAMPLE])


def _trade_id(*parts: object) -> str:
    """A deterministic id of a trade of the era whose messages had none."""
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:32]
