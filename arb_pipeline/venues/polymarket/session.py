"""One connection to Polymarket's market channel as a sans-I/O state machine.

One book per market, in YES terms. The subscription names the YES token only: every ``price_change`` carries the NO
token's mirrored entry anyway, which serves as a check and is never applied a second time. Where only the NO token is
told (a recording subscribed to it), its entries are mirrored.

The channel has no sequence numbers. A book is proven by its hash (:mod:`.book_hash`) after every change, or after a
sample of them that the hash itself chooses; where the hash cannot be computed (facts unknown, Protocol V2, times before
the present recipe) the told best prices are compared with the book's own instead.

Silence proves nothing, and ``PONG`` even less. A market silent for ``data_age_s``, and a rotating sample of all, is
compared with its REST book, which is younger or older than the stream by a moment: it is a proof if the stream has told
that state or comes to it within two seconds, and else a gap back to the last proof. A connection without data is made
to give a sign of life: a token is subscribed again, which the venue answers with its book.
Facts: docs.polymarket.com "Market Channel" and the recordings.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
from msgspec import UNSET, Raw

from arb_pipeline.model import (
    Anomaly,
    AnomalyKind,
    BookDelta,
    BookSnapshot,
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
    Source,
    Ticker,
    Trade,
)
from arb_pipeline.units import ONE, TRADE_PRICE_SCALE, UnitError, parse_price, parse_size, parse_trade_price
from arb_pipeline.venues.base import ConnectRequest
from arb_pipeline.venues.polymarket import wire
from arb_pipeline.venues.polymarket.book_hash import book_hash, mirrored
from arb_pipeline.venues.polymarket.market_book import (
    Change,
    Claim,
    MarketBook,
    Verdict,
    Witness,
    level_price,
    level_size,
)

__all__ = ["PolymarketSession"]

_S: Final = 1_000_000_000
_PING_EVERY = 10 * _S
_SNAPSHOT_DEADLINE = 10 * _S
_FETCH_AGAIN_MOST = 300 * _S
_SILENCE = 30 * _S
_PROBE_PATIENCE = 5 * _S
_PROBE_MARKETS = 3
_PROBE_AGAIN = 10 * _S
_SWEEP = 3 * _S
# For how long a REST book may be ahead of the stream (frames lag up to 0.9 s in recordings).
_WITNESS_PATIENCE = 2 * _S
_STRIKES_MOST = 3
# For how long frames of a market just unsubscribed may still come in.
_RETIRED_FOR = 60 * _S
# A trade is told up to 230 ms after its price entered the hash (recordings, py-clob-client-v2#117).
_TRADE_WINDOW = 1 * _S
# For how long frames older than a REST book may still come in.
_IN_FLIGHT = 5 * _S
_EXAMPLE = 500
_TOLD_MOST = 20_000
_MARKET_ID = re.compile(r"0x[0-9a-fA-F]{64}")
_TOKEN_ID = re.compile(r"\d{20,}")

_Reason = Literal["initial", "resync", "venue", "hour"]
_Sides = tuple[list[Level], list[Level]]


class _ForeignTokenError(ValueError):
    """A token under a market that it does not belong to."""


class PolymarketSession:
    """A :class:`arb_pipeline.venues.base.Session` of Polymarket's market channel.

    Attributes:
        counters: ``hash_verified``, ``hash_unverifiable``, ``hash_skipped`` (not in the sample), ``hash_advisory``
            (mismatches forgiven right after a trade), ``ignored_entries`` (of tokens not subscribed),
            ``stale_entries`` (older than a REST book), ``repeated_lifecycle``, ``witness_same``, ``witness_told`` (a
            state that the stream told before), ``witness_undecided`` (the stream had moved on),
            ``witness_overtaken`` (a matching hash of a later state refuted it).
    """

    venue = "polymarket"

    def __init__(
        self,
        connection_id: str,
        url: str,
        *,
        accept_unknown: bool = False,
        data_age_s: float = 60.0,
        hash_sample: int = 1,
        witness_s: float = 60.0,
        witness_sample: int = 10,
    ) -> None:
        """Make a session; nothing is dialled.

        Args:
            connection_id: goes into rows and names the connection.
            url: the market channel.
            accept_unknown: take markets that nobody subscribed (replay); the first token seen of one counts as YES.
            data_age_s: silence of a market after which its book is compared with REST, seconds.
            hash_sample: one hash in so many is computed, 1 for all: those divisible by it.
            witness_s: seconds between comparisons of books with REST whether silent or not; 0 for none.
            witness_sample: how many books each time.
        """
        self.connection_id = connection_id
        self.counters: Counter[str] = Counter()
        self._url = url
        self._accept_unknown = accept_unknown
        self._data_age = round(data_age_s * _S)
        self._silence = min(_SILENCE, self._data_age)
        self._hash_sample = hash_sample
        self._witness_every = round(witness_s * _S)
        self._witness_sample = witness_sample
        self._witness_at = 0
        self._retired: dict[str, int] = {}
        """Tokens and markets unsubscribed a moment ago, and until when frames about them are no surprise."""
        self._probe_ticks = 0
        """Ticks since a sign of life was asked of the stream; 0 if it owes none."""
        self._reconnecting = False
        self._markets: dict[str, MarketBook] = {}
        self._tokens: dict[str, tuple[MarketBook, bool]] = {}
        self._connected = False
        self._opened = False
        self._named: set[str] = set()
        self._now = self._ping_ns = self._data_ns = self._probe_ns = self._ticked_ns = 0
        self._swept_ns = self._witness_ns = 0
        self._lifecycle: dict[tuple[str, str], None] = {}
        self._trade_repeats: Counter[str] = Counter()
        self._out: list[Output] = []
        self._fetch: dict[str, list[str]] = {}
        self._touched: dict[str, MarketBook] = {}
        self._raw = ""

    # --- life of the connection ------------------------------------------------------------------------------

    def connect_request(self, wall_ms: int) -> ConnectRequest:  # noqa: ARG002 - the channel is public: nothing to sign
        """The channel's address; it takes no credentials."""
        return ConnectRequest(self._url)

    def connected(self, now_ns: int) -> list[Output]:
        """The socket is open: every book waits for its snapshot. Subscriptions do not survive, so all are sent."""
        out = self.disconnected(now_ns, "reconnected") if self._connected else []
        self._begin(now_ns)
        self._connected = True
        self._opened = False
        self._named.clear()
        self._ping_ns = self._data_ns = self._ticked_ns = self._swept_ns = self._witness_ns = now_ns
        self._probe_ticks = 0
        self._reconnecting = False
        self._retired.clear()
        for market in self._markets.values():
            market.void()
        self._ask(list(self._markets.values()))
        return out + self._take()

    def disconnected(self, now_ns: int, cause: str) -> list[Output]:
        """The socket is gone: books are kept for reading, but not trusted past the connection's last data."""
        self._begin(now_ns)
        self._connected = False
        since = min(self._data_ns, now_ns) or now_ns
        for market in self._markets.values():
            if market.book is not None:
                self._open_gap(market, cause, market.trusted_ns if market.doubt_ns else since)
        return self._take()

    def subscribe(self, markets: Sequence[MarketFacts], now_ns: int) -> list[Output]:
        """Ask for these markets, or take newer facts of markets asked for before.

        A market whose token ids are not minted yet cannot be asked for: that is an anomaly, and it is left out.
        """
        self._begin(now_ns)
        wanted = []
        for facts in markets:
            if not facts.yes_token_id:
                detail = "yes_token_id is empty: the venue has not minted it yet; subscribe after the next discovery"
                self._anomaly(AnomalyKind.MISSING_FIELD, detail, facts.market_id)
                continue
            market = self._markets.get(facts.market_id)
            if market is None:
                market = self._markets[facts.market_id] = MarketBook(facts)
            elif not market.hashed:
                for token in (market.yes, market.no):
                    self._tokens.pop(token, None)
                market.learn(facts)
            self._index(market)
            for name in (market.market_id, market.yes, market.no):
                self._retired.pop(name, None)
            wanted.append(market)
        if self._connected:
            self._ask(list(dict.fromkeys(wanted)))
        return self._take()

    def unsubscribe(self, market_ids: Sequence[str], now_ns: int) -> list[Output]:
        """Drop these markets and forget their books; an open gap ends, since nobody claims the book any longer."""
        self._begin(now_ns)
        tokens = []
        for market_id in market_ids:
            market = self._markets.pop(market_id, None)
            if market is None:
                continue
            for token in (market.yes, market.no):
                self._tokens.pop(token, None)
            if self._connected:
                until = now_ns + _RETIRED_FOR
                self._retired.update(dict.fromkeys((market_id, market.yes, market.no), until))
            self._close_gap(market, "unsubscribed")
            if market.yes in self._named:
                self._named.discard(market.yes)
                tokens.append(market.yes)
        if tokens and self._connected:
            self._send({"operation": "unsubscribe", "assets_ids": tokens})
        return self._take()

    def tick(self, now_ns: int) -> list[Output]:
        """Text ``PING`` each 10 s, deadlines of snapshots, doubts and witnesses, signs of life.

        Liveness is the age of data: a frozen stream goes on answering ``PONG``.
        """
        if not self._connected:
            return []
        self._begin(now_ns)
        if now_ns < self._ticked_ns:
            self._step_back()
        self._ticked_ns = now_ns
        if now_ns - self._ping_ns >= _PING_EVERY:
            self._ping_ns = now_ns
            self._out.append(Send(wire.PING))
        for market in self._markets.values():
            if market.doubt_ns and now_ns >= market.doubt_ns:
                self._anomaly(AnomalyKind.HASH_MISMATCH, "no hash matched since the last trade", market.market_id)
                self._distrust(market, "hash_mismatch")
            if market.witness is not None and now_ns >= market.witness.until_ns:
                self._left_out(market, market.witness)
            if market.deadline_ns and now_ns >= market.deadline_ns:
                if market.book is None:
                    self._open_gap(market, "missing_snapshot", market.since_ns)
                self._want_book(market, market.gap_cause or "missing_snapshot")
        self._sweep()
        self._watch_stream()
        for name in [name for name, until in self._retired.items() if until <= now_ns]:
            del self._retired[name]
        return self._finish()

    def _sweep(self) -> None:
        """Ask REST for the books of silent markets, and for a sample of all, in one request each."""
        now = self._now
        if now - self._swept_ns < _SWEEP:
            return
        self._swept_ns = now
        synced = [market for market in self._markets.values() if market.in_sync]
        # What would be due before the next sweep is asked for now, so that no age is exceeded.
        age = self._data_age - _SWEEP
        for market in synced:
            silent = now - max(market.data_ns, market.alive_ns) >= age
            if silent and now - market.probe_ns >= market.probe_wait:
                market.probe_wait = min(2 * market.probe_wait or _PROBE_AGAIN, _FETCH_AGAIN_MOST)
                self._compare(market, "silence")
        if self._witness_every and synced and now - self._witness_ns >= self._witness_every:
            self._witness_ns = now
            first = self._witness_at % len(synced)
            chosen = (synced[first:] + synced[:first])[: self._witness_sample]
            self._witness_at = first + len(chosen)
            for market in chosen:
                self._compare(market, "witness")

    def _compare(self, market: MarketBook, cause: str) -> None:
        market.probe_ns = self._now
        self._fetch.setdefault(cause, []).append(market.market_id)

    def _watch_stream(self) -> None:
        """A connection without data gets one chance to show that it is merely quiet."""
        if self._reconnecting or not self._named:
            return
        if self._probe_ticks:
            self._probe_ticks += 1
            # One tick alone decides nothing: the clock may have been set.
            if self._probe_ticks > 2 and self._now - self._probe_ns >= _PROBE_PATIENCE:
                self._reconnecting = True
                self._out.append(Reconnect("no data, and a subscription was not answered"))
        elif self._now - self._data_ns >= self._silence:
            self._probe_ticks, self._probe_ns = 1, self._now
            asked = [market for market in self._markets.values() if market.yes in self._named]
            self._subscribe_again(sorted(asked, key=lambda market: market.data_ns)[-_PROBE_MARKETS:])

    def _subscribe_again(self, markets: list[MarketBook]) -> None:
        """Have the venue send these books: it refuses to subscribe a token that is subscribed."""
        tokens = [market.yes for market in markets]
        for market in markets:
            market.probed = True
        self._send({"operation": "unsubscribe", "assets_ids": tokens})
        self._send({"operation": "subscribe", "assets_ids": tokens, "custom_feature_enabled": True})

    def _step_back(self) -> None:
        """The clock was set back: no time of before lies ahead of it, or all waiting would last as long as the step."""
        now = self._now
        self._ping_ns, self._data_ns = min(self._ping_ns, now), min(self._data_ns, now)
        self._probe_ns, self._swept_ns = min(self._probe_ns, now), min(self._swept_ns, now)
        self._witness_ns = min(self._witness_ns, now)
        self._retired = {name: min(until, now + _RETIRED_FOR) for name, until in self._retired.items()}
        for market in self._markets.values():
            market.data_ns, market.trusted_ns = min(market.data_ns, now), min(market.trusted_ns, now)
            market.alive_ns, market.probe_ns = min(market.alive_ns, now), min(market.probe_ns, now)
            market.since_ns = min(market.since_ns, now)
            market.doubt_ns = min(market.doubt_ns, now + _TRADE_WINDOW)
            market.trade_until = min(market.trade_until, now + _TRADE_WINDOW)
            market.deadline_ns = min(market.deadline_ns, now + market.fetch_wait)
            market.floor_until = min(market.floor_until, now + _IN_FLIGHT)
            if market.witness is not None:
                market.witness = market.witness._replace(until_ns=min(market.witness.until_ns, now + _WITNESS_PATIENCE))

    # --- what is asked ---------------------------------------------------------------------------------------

    def book(self, market_id: str) -> OrderBook | None:
        """The book of a market in YES terms, None before its first snapshot."""
        market = self._markets.get(market_id)
        return market.book if market else None

    def in_sync(self, market_id: str) -> bool:
        """Whether the book of a market may be trusted now."""
        market = self._markets.get(market_id)
        return market is not None and market.in_sync

    def snapshots(self, now_ns: int) -> list[BookSnapshot]:
        """A snapshot of every book held (``reason="hour"``), for the start of a partition."""
        held = [market for market in self._markets.values() if market.book is not None]
        return [_snapshot(market, now_ns, "hour", "ws") for market in held]

    # --- frames ----------------------------------------------------------------------------------------------

    def receive(self, frame: str | bytes, recv_ns: int) -> list[Output]:
        """Turn one frame into events and commands; never raises, whatever the frame."""
        self._now = recv_ns
        if len(frame) < 8 and frame.strip() in (wire.PONG, b"PONG"):
            return []
        if isinstance(frame, bytes):
            try:
                text = frame.decode()
            except UnicodeDecodeError as error:
                self._raw = frame.decode(errors="backslashreplace")
                self._unreadable(error)
                return self._finish()
        else:
            text = frame
        self._raw = text
        if text[:1] == "[":
            self._array(text)
        else:
            self._message(text)
        return self._finish()

    def rest_book(self, market_id: str, body: bytes, recv_ns: int) -> list[Output]:
        """Take a body of CLOB ``/book`` (or an element of ``/books``) for a market.

        It carries every input of its own hash, so it is verified by itself. Changes received before that are younger
        than the book are applied on top of it.
        """
        self._begin(recv_ns)
        self._raw = body.decode(errors="replace")
        market = self._markets.get(market_id)
        if market is None:
            if market_id not in self._retired:
                self._anomaly(AnomalyKind.UNKNOWN_MARKET, "REST book of a market not subscribed", market_id)
            return self._take()
        try:
            message = wire.decode_book(body)
            if message.asset_id not in (market.yes, market.no) or message.market != market_id:
                raise _ForeignTokenError(f"asset_id {message.asset_id[:90]!r} of market {message.market[:70]!r}")
            claim = _claim(market, message)
            sides = self._sides(message, market)
            verdict = _own_verdict(message)
        except (ValueError, RecursionError) as error:
            kind = AnomalyKind.VENUE_ERROR if '"error"' in self._raw else _kind(error)
            self._anomaly(kind, f"REST book: {error}", market_id)
            return self._take()
        if verdict is Verdict.MISMATCH:
            self._anomaly(AnomalyKind.HASH_MISMATCH, "REST book does not match its own hash", market_id)
        elif verdict is Verdict.UNVERIFIABLE and market.hashed and not (market.hash_v2 or message.version == "v2"):
            self._anomaly(AnomalyKind.MISSING_FIELD, "REST book without its hash or an input of it", market_id)
        elif market.in_sync:
            self._take_witness(market, message, claim, sides, verdict)
        else:
            self._take_rest(market, message, claim, sides, verdict)
        return self._finish()

    def _begin(self, now_ns: int) -> None:
        self._now = now_ns
        self._raw = ""

    def _finish(self) -> list[Output]:
        for market in self._touched.values():
            self._quote(market)
        self._touched.clear()
        if self._trade_repeats:
            self._trade_repeats.clear()
        return self._take()

    def _take(self) -> list[Output]:
        out, self._out = self._out, []
        if self._fetch:
            out += [FetchBooks(tuple(dict.fromkeys(ids)), cause) for cause, ids in self._fetch.items() if ids]
            self._fetch.clear()
        return out

    def _array(self, text: str) -> None:
        try:
            elements: list[Raw] = wire.decode_array(text)
        except (ValueError, RecursionError) as error:
            self._unreadable(error)
            return
        # Also an empty one: it answers a subscription.
        self._heard()
        for element in elements:
            self._raw = bytes(element).decode(errors="replace")
            self._message(self._raw)

    def _message(self, text: str) -> None:
        about_books = True
        try:
            if '"price_changes"' in text:
                # Nine frames of ten: decoded at once, without a look at their type first.
                message = wire.decode_price_change(text)
                if message.event_type in ("price_change", ""):
                    self._heard()
                    self._price_change(message)
                    return
            head = wire.decode_head(text)
            kind = head.event_type or head.kind_by_shape
            about_books = head.tells_levels or kind in _ABOUT_BOOKS
            handler = self._handlers.get(kind)
            if handler is not None:
                if kind not in _LIFECYCLE:
                    self._heard()
                handler(self, text)
                return
            if kind:
                self._anomaly(AnomalyKind.UNKNOWN_TYPE, f"event_type {kind[:60]!r}")
            else:
                self._anomaly(AnomalyKind.MISSING_FIELD, "event_type is missing")
            if about_books:
                self._distrust_named(text)
        except (ValueError, RecursionError) as error:
            if about_books:
                self._unreadable(error)
            else:
                self._anomaly(_kind(error), str(error))

    def _heard(self) -> None:
        self._data_ns = self._now
        self._probe_ticks = 0

    def _unreadable(self, error: Exception) -> None:
        """Count a message that could not be read; the books that it may have changed are not taken on trust."""
        self._anomaly(_kind(error), str(error))
        self._distrust_named(self._raw)

    def _distrust_named(self, text: str) -> None:
        named = [self._markets[name] for name in _MARKET_ID.findall(text) if name in self._markets]
        if not named:
            named = [self._tokens[token][0] for token in _TOKEN_ID.findall(text) if token in self._tokens]
        for market in named:
            self._distrust(market, "unreadable_message")
        if not named and text.lstrip()[:1] in ("{", "["):
            # Whose book it was is unknown: compare them all with REST.
            self._fetch.setdefault("unreadable_message", []).extend(self._markets)

    # --- book ------------------------------------------------------------------------------------------------

    def _on_book(self, text: str) -> None:
        message = wire.decode_book(text)
        found = self._market_of(message.market, message.asset_id)
        if found is None:
            self._not_ours("book", message.market, message.asset_id)
            return
        market, is_yes = found
        claim = _claim(market, message)
        sides = self._sides(message, market)
        if is_yes or not market.yes_seen:
            market.yes_seen = is_yes
            self._take_book(market, message, claim, sides)
        elif market.in_sync and not market.same(*sides):
            self._anomaly(AnomalyKind.MIRROR_MISMATCH, "book of NO is no mirror of YES", market.market_id)

    def _take_book(self, market: MarketBook, message: wire.BookMessage, claim: Claim, sides: _Sides) -> None:
        last = market.last
        if market.probed:
            market.probed = False
            if market.in_sync and market.same(*sides):
                self._proven(market)
                market.data_ns = self._now
                return
            if market.in_sync:
                self._open_gap(market, "silent_market", market.trusted_ns)
        if market.in_sync and claim.hash and last is not None and claim.hash == last.hash == market.last_book_hash:
            self._anomaly(AnomalyKind.DUPLICATE, "the same book again", market.market_id)
            market.data_ns = self._now
            return
        market.tell_inputs(message)
        first = market.book is None
        market.replace(*sides, claim.stamp_ns)
        market.witness = None
        market.last_book_hash = claim.hash
        if not first and message.last_trade_price is None:
            # A book in mid-stream follows a trade.
            market.trade_until = self._now + _TRADE_WINDOW
        verdict = self._verify(market, claim, search=not market.in_sync)
        self._touched[market.market_id] = market
        if verdict is Verdict.MISMATCH:
            self._mismatch(market, claim)
        if verdict is Verdict.MISMATCH or self._crossed(market, verdict):
            self._out.append(_snapshot(market, self._now, "initial" if first else "venue", "ws"))
        else:
            self._trust(market, "ws", "snapshot")

    def _sides(self, message: wire.BookMessage, market: MarketBook) -> _Sides:
        """Bids and asks in YES terms.

        Raises:
            ValueError: if a side is missing or a level is no level.
        """
        bids = message.buys if message.bids is UNSET else message.bids
        asks = message.sells if message.asks is UNSET else message.asks
        told = self._levels("bids", bids, market), self._levels("asks", asks, market)
        return told if message.asset_id == market.yes else (mirrored(told[1]), mirrored(told[0]))

    def _levels(
        self, name: str, levels: list[wire.WireLevel] | msgspec.UnsetType | None, market: MarketBook
    ) -> list[Level]:
        if levels is UNSET:
            raise msgspec.ValidationError(f"Object missing required field `{name}`")
        if levels is None:
            self._anomaly(AnomalyKind.NULL_LIST, f"{name} is null, taken as empty", market.market_id)
            return []
        return [(level_price(level.price), level_size(level.size)) for level in levels]

    # --- price_change ----------------------------------------------------------------------------------------

    def _price_change(self, message: wire.PriceChangeMessage) -> None:
        entries = message.price_changes
        if entries is None:
            self._anomaly(AnomalyKind.NULL_LIST, "price_changes is null, taken as empty", message.market[:70])
            return
        stamp_ns = wire.venue_ns(message.timestamp)
        groups: dict[str, tuple[MarketBook, list[wire.PriceChange], list[wire.PriceChange]]] = {}
        tokens = self._tokens
        for entry in entries:
            found = tokens.get(entry.asset_id) or self._market_of(message.market, entry.asset_id)
            if found is None:
                self.counters["ignored_entries"] += 1
                continue
            market, is_yes = found
            group = groups.get(market.market_id)
            if group is None:
                group = groups[market.market_id] = (market, [], [])
            (group[1] if is_yes else group[2]).append(entry)
        for market, yes, no in groups.values():
            try:
                if market.market_id != message.market:
                    raise _ForeignTokenError(f"token of {market.market_id} in a message of {message.market[:70]!r}")
                told = yes[-1] if yes else no[-1]
                claim = Claim(bool(yes), message.timestamp, stamp_ns, told.hash)
                self._apply_entries(market, yes, no, claim)
            except ValueError as error:
                self._anomaly(_kind(error), str(error), market.market_id)
                self._distrust(market, "unreadable_message")

    def _apply_entries(
        self, market: MarketBook, yes: list[wire.PriceChange], no: list[wire.PriceChange], claim: Claim
    ) -> None:
        """Apply one message's entries of one market: those of YES, or of NO where YES is not told."""
        mirrors = True
        if yes:
            market.yes_seen = True
            told = yes[-1]
            changes = [Change(entry.side == "BUY", level_price(entry.price), level_size(entry.size)) for entry in yes]
            mirrors = not no or self._mirrors(market, changes, no)
        else:
            told = no[-1]
            changes = _mirrored_changes(no)
        verdict = self._apply(market, changes, claim)
        if verdict is None or not market.in_sync:
            return
        top_agrees = self._top_agrees(market, told, claim.is_yes)
        if verdict is Verdict.SKIPPED and not (top_agrees and mirrors):
            verdict = self._verify(market, claim, search=False)
            self._judge(market, claim, verdict)
        if verdict is Verdict.VERIFIED or not market.in_sync:
            return
        if not top_agrees:
            self._distrust(market, "top_mismatch")
        elif verdict is Verdict.UNVERIFIABLE:
            if mirrors:
                market.trusted_ns = self._now
            else:
                self._distrust(market, "mirror_mismatch")

    def _mirrors(self, market: MarketBook, changes: list[Change], no: list[wire.PriceChange]) -> bool:
        """Whether the NO entries say the same as the YES changes, in any order; counted if not."""
        try:
            told = _mirrored_changes(no)
        except ValueError as error:
            self._anomaly(_kind(error), str(error), market.market_id)
            return False
        if changes == told or sorted(changes) == sorted(told):
            return True
        self._anomaly(AnomalyKind.MIRROR_MISMATCH, "entries of YES and NO differ", market.market_id)
        return False

    def _on_old_price_change(self, text: str) -> None:
        message = wire.decode_old_price_change(text)
        found = self._market_of(message.market, message.asset_id)
        if found is None:
            self.counters["ignored_entries"] += 1
            return
        market, is_yes = found
        if message.changes is None:
            self._anomaly(AnomalyKind.NULL_LIST, "changes is null, taken as empty", market.market_id)
            return
        if not is_yes and market.yes_seen:
            return
        market.yes_seen = is_yes
        changes = [Change(told.side == "BUY", level_price(told.price), level_size(told.size)) for told in _old(message)]
        if not is_yes:
            changes = [Change(not is_bid, ONE - price, size) for is_bid, price, size in changes]
        claim = Claim(is_yes, message.timestamp, wire.venue_ns(message.timestamp), message.hash)
        verdict = self._apply(market, changes, claim)
        if verdict is Verdict.UNVERIFIABLE and market.in_sync:
            # This form tells no best prices: there is nothing better to go by.
            market.trusted_ns = self._now

    def _apply(self, market: MarketBook, changes: list[Change], claim: Claim) -> Verdict | None:
        """Apply YES changes and check the hash told with them; None if they were not applied."""
        market_id, stamp_ns, now = market.market_id, claim.stamp_ns, self._now
        if stamp_ns < market.floor_ns and now < market.floor_until:
            self.counters["stale_entries"] += len(changes)
            return None
        for change in changes:
            market.remember(change, stamp_ns)
        book = market.book
        if book is None:
            self._anomaly(AnomalyKind.NO_SNAPSHOT, "change before the first snapshot", market_id)
            market.last = claim
            return None
        if claim == market.last and claim.hash and market.in_sync and market.unchanged_by(changes):
            self._anomaly(AnomalyKind.DUPLICATE, "the same change again", market_id)
            return None
        epoch, out = market.epoch, self._out
        for change in changes:
            market.change(change)
            is_bid, price, size = change
            out.append(BookDelta(market_id, "bid" if is_bid else "ask", price, size, now, stamp_ns, None, epoch))
        market.last_book_hash = ""
        self._touched[market_id] = market
        market.strikes = 0
        if self._hash_sample == 1 or self._is_due(market, claim):
            verdict = self._verify(market, claim, search=False)
            if verdict is Verdict.VERIFIED and market.in_sync and not book.crossed:
                market.trusted_ns = now
                market.doubt_ns = 0
            else:
                self._judge(market, claim, verdict)
        else:
            verdict = Verdict.SKIPPED
            self._note(market, claim)
            self.counters["hash_skipped"] += 1
        if market.witness is not None:
            self._meet(market, market.witness, claim, verdict)
        return verdict

    def _is_due(self, market: MarketBook, claim: Claim) -> bool:
        """Whether a change's hash is to be computed: chosen by the hash itself, and always where there is any doubt."""
        book = market.book
        assert book is not None
        if not market.in_sync or market.doubt_ns or market.witness is not None or book.crossed:
            return True
        try:
            return int(claim.hash[:8], 16) % self._hash_sample == 0
        except ValueError:
            return True

    def _judge(self, market: MarketBook, claim: Claim, verdict: Verdict) -> None:
        """What the verdict on a change means for the trust in its book."""
        if verdict is Verdict.MISMATCH:
            if market.in_sync:
                self._mismatch(market, claim)
        elif not market.in_sync:
            if verdict is Verdict.VERIFIED:
                self._trust(market, "ws", "hash_verified")
        elif not self._crossed(market, verdict) and verdict is Verdict.VERIFIED:
            market.trusted_ns = self._now
            market.doubt_ns = 0

    def _top_agrees(self, market: MarketBook, told: wire.PriceChange, is_yes: bool) -> bool:
        """Whether the best prices told with a change are the book's own; counted if not."""
        book = market.book
        assert book is not None
        if told.best_bid is None and told.best_ask is None:
            return True
        bid, ask = _told_top(told.best_bid, told.best_ask, is_yes)
        if bid == book.best_bid and ask == book.best_ask:
            return True
        own = f"own {book.best_bid} and {book.best_ask} (1e-4 dollars)"
        self._anomaly(AnomalyKind.TOP_MISMATCH, f"told best bid {bid} and ask {ask}, {own}", market.market_id)
        return False

    # --- trust -----------------------------------------------------------------------------------------------

    def _verify(self, market: MarketBook, claim: Claim, *, search: bool) -> Verdict:
        verdict = market.verify(claim, search=search)
        self._note(market, claim)
        if verdict is Verdict.VERIFIED:
            self.counters["hash_verified"] += 1
        elif verdict is Verdict.UNVERIFIABLE:
            self.counters["hash_unverifiable"] += 1
        return verdict

    def _note(self, market: MarketBook, claim: Claim) -> None:
        market.last = claim
        market.venue_ns = claim.stamp_ns
        market.data_ns = self._now
        market.hashes.append(claim.hash)

    def _mismatch(self, market: MarketBook, claim: Claim) -> None:
        if market.in_sync and self._now < market.trade_until:
            self.counters["hash_advisory"] += 1
            market.doubt_ns = market.doubt_ns or market.trade_until
            return
        self._anomaly(AnomalyKind.HASH_MISMATCH, f"book does not hash to {claim.hash[:40]}", market.market_id)
        self._distrust(market, "hash_mismatch")

    def _crossed(self, market: MarketBook, verdict: Verdict) -> bool:
        """Count a crossed book; True if it is doubted, which a matching hash forbids."""
        book = market.book
        assert book is not None
        if not book.crossed:
            return False
        detail = f"bid {book.best_bid} at or above ask {book.best_ask} (1e-4 dollars)"
        self._anomaly(AnomalyKind.CROSSED_BOOK, detail, market.market_id)
        if verdict is Verdict.VERIFIED:
            return False
        self._distrust(market, "crossed_book")
        return True

    def _open_gap(self, market: MarketBook, cause: str, from_ns: int) -> None:
        market.in_sync = False
        market.doubt_ns = 0
        market.witness = None
        if not market.gap_cause:
            market.gap_cause, market.gap_from_ns = cause, min(from_ns, self._now)
            self._out.append(GapOpened(market.market_id, cause, market.gap_from_ns))

    def _close_gap(self, market: MarketBook, recovery: str) -> None:
        if market.gap_cause:
            market.gap_cause = ""
            self._out.append(GapClosed(market.market_id, max(self._now, market.gap_from_ns), recovery))

    def _distrust(self, market: MarketBook, cause: str) -> None:
        """Open a gap from the last moment that the book was proven, and ask REST for the book."""
        self._open_gap(market, cause, min(market.trusted_ns, self._now) or self._now)
        if not market.asked:
            self._want_book(market, cause)

    def _want_book(self, market: MarketBook, cause: str) -> None:
        self._fetch.setdefault(cause, []).append(market.market_id)
        market.asked = True
        market.fetch_wait = min(2 * market.fetch_wait or _SNAPSHOT_DEADLINE, _FETCH_AGAIN_MOST)
        market.deadline_ns = self._now + market.fetch_wait

    def _trust(self, market: MarketBook, source: Source, recovery: str) -> None:
        """Call the book held in sync: say it whole, and end the gap if one is open."""
        reason: _Reason = "venue"
        if not market.in_sync:
            reason = "initial" if market.quoted is None else "resync"
            market.epoch += 1
        market.in_sync = True
        market.asked = False
        market.trusted_ns = self._now
        market.doubt_ns = market.deadline_ns = market.fetch_wait = 0
        self._out.append(_snapshot(market, self._now, reason, source))
        self._close_gap(market, recovery)
        self._touched[market.market_id] = market

    def _take_rest(
        self, market: MarketBook, message: wire.BookMessage, claim: Claim, sides: _Sides, verdict: Verdict
    ) -> None:
        """Make a REST book the book, unless it is older than what can be made up for."""
        if market.book is not None and claim.stamp_ns < market.covered_ns:
            return
        market.tell_inputs(message)
        market.hashed = market.hashed or verdict is Verdict.VERIFIED
        received = [told for told in market.recent if told[1] >= claim.stamp_ns]
        later = [told for told in received if told[1] > claim.stamp_ns]
        market.last_book_hash = ""
        rebuilt = self._rebuild(market, claim, sides, later)
        if rebuilt is not Verdict.VERIFIED and len(received) > len(later):
            # Changes of the very millisecond of the REST book may or may not be in it: their hash tells.
            if self._rebuild(market, claim, sides, received) is Verdict.VERIFIED:
                rebuilt = Verdict.VERIFIED
            else:
                self._rebuild(market, claim, sides, later)
        if later:
            verdict = rebuilt
        elif rebuilt is not Verdict.VERIFIED:
            market.last, market.venue_ns = claim, claim.stamp_ns
        market.floor_ns, market.floor_until = claim.stamp_ns, self._now + _IN_FLIGHT
        self._touched[market.market_id] = market
        if verdict is Verdict.MISMATCH or self._crossed(market, verdict):
            self._out.append(_snapshot(market, self._now, "resync", "rest"))
        else:
            self._trust(market, "rest", "rest_book")

    def _rebuild(self, market: MarketBook, claim: Claim, sides: _Sides, changes: list[tuple[Change, int]]) -> Verdict:
        """Make the book a REST book with these changes on top, and check it against the last hash told."""
        market.replace(*sides, claim.stamp_ns)
        for change, stamp_ns in changes:
            market.change(change)
            market.remember(change, stamp_ns)
        return Verdict.UNVERIFIABLE if market.last is None else market.verify(market.last, search=False)

    # --- the witness -----------------------------------------------------------------------------------------

    def _take_witness(
        self, market: MarketBook, message: wire.BookMessage, claim: Claim, sides: _Sides, verdict: Verdict
    ) -> None:
        """Compare a book in sync with a REST book, which may be a moment older or younger."""
        market.probe_wait = 0
        market.alive_ns = self._now
        if market.same(*sides):
            self.counters["witness_same"] += 1
            self._proven(market)
        elif claim.hash and claim.hash in market.hashes:
            self.counters["witness_told"] += 1
        elif market.venue_ns is not None and claim.stamp_ns < market.venue_ns:
            self.counters["witness_undecided"] += 1
        else:
            market.witness = Witness(message, claim, sides, verdict, self._now + _WITNESS_PATIENCE)

    def _proven(self, market: MarketBook) -> None:
        """REST, or a snapshot asked for, showed the very book: all was well when it was asked."""
        market.trusted_ns = max(market.trusted_ns, market.probe_ns)
        market.doubt_ns = 0
        market.witness = None

    def _meet(self, market: MarketBook, witness: Witness, claim: Claim, verdict: Verdict) -> None:
        """The stream moved on: has it come to what REST told before?"""
        if claim.hash == witness.claim.hash or market.same(*witness.sides):
            market.witness = None
        elif claim.stamp_ns > witness.claim.stamp_ns:
            market.witness = None
            if verdict is Verdict.VERIFIED:
                self.counters["witness_overtaken"] += 1
            elif market.in_sync:
                self._distrust(market, "rest_mismatch")

    def _left_out(self, market: MarketBook, witness: Witness) -> None:
        """The stream never told what REST did: a gap back to the last proof; the token is subscribed again."""
        self._open_gap(market, "rest_ahead", market.trusted_ns)
        self._take_rest(market, witness.message, witness.claim, witness.sides, witness.verdict)
        if not market.in_sync and not market.asked:
            self._want_book(market, "rest_ahead")
        market.strikes += 1
        if market.strikes == _STRIKES_MOST and not self._reconnecting:
            self._reconnecting = True
            self._out.append(Reconnect(f"{market.market_id} stays silent while its book changes"))
        elif market.strikes < _STRIKES_MOST and market.yes in self._named:
            self._subscribe_again([market])

    # --- the other events ------------------------------------------------------------------------------------

    def _on_trade(self, text: str) -> None:
        message = wire.decode_last_trade_price(text)
        found = self._market_of(message.market, message.asset_id)
        if found is None:
            self._not_ours("trade", message.market, message.asset_id)
            return
        market, is_yes = found
        price = parse_trade_price(message.price)
        size = level_size(message.size)
        stamp_ns = wire.venue_ns(message.timestamp) if message.timestamp else None
        if not 0 < price < TRADE_PRICE_SCALE:
            raise UnitError(f"trade price {message.price[:40]!r} is not between 0 and 1")
        taker: Literal["yes", "no"] | None = None
        if message.side:
            taker = "yes" if (message.side == "BUY") == is_yes else "no"
        yes_price = price if is_yes else TRADE_PRICE_SCALE - price
        trade_id = self._trade_id(message)
        self._out.append(Trade(market.market_id, trade_id, yes_price, size, taker, self._now, stamp_ns, None))
        market.tell_last_trade(wire.padded_price(message.price))
        market.trade_until = self._now + _TRADE_WINDOW
        self._recheck(market)

    def _trade_id(self, message: wire.LastTradePrice) -> str:
        """The venue gives none: made from what tells a trade apart, and from its place among equals in the frame."""
        told = (
            message.transaction_hash or "",
            message.asset_id,
            message.price,
            message.size,
            message.side or "",
            message.timestamp,
        )
        base = "|".join(told)
        repeat = self._trade_repeats[base]
        self._trade_repeats[base] += 1
        return hashlib.blake2b(f"{base}|{repeat}".encode(), digest_size=16).hexdigest()

    def _recheck(self, market: MarketBook) -> None:
        """A last trade price became known, which may solve a doubt about the hash."""
        doubted = market.doubt_ns or market.gap_cause == "hash_mismatch"
        if not doubted or market.last is None or market.book is None:
            return
        if self._verify(market, market.last, search=False) is not Verdict.VERIFIED:
            return
        if market.in_sync:
            market.doubt_ns = 0
            market.trusted_ns = self._now
        else:
            self._trust(market, "ws", "hash_verified")

    def _on_tick_size(self, text: str) -> None:
        message = wire.decode_tick_size_change(text)
        found = self._market_of(message.market, message.asset_id)
        if found is None:
            self.counters["ignored_entries"] += 1
            return
        market, _ = found
        tick = level_price(message.new_tick_size)
        if tick == market.tick:
            # It is told once for each token.
            return
        market.tick = tick
        market.epoch += 1
        details = {"old_tick_size": message.old_tick_size, "new_tick_size": message.new_tick_size}
        self._out.append(MarketChange(market.market_id, "", "tick_size_change", self._now, details, change="tick"))
        if market.in_sync and not market.doubt_ns:
            market.trusted_ns = self._now
        self._distrust(market, "tick_size_change")

    def _on_best_bid_ask(self, text: str) -> None:
        message = wire.decode_best_bid_ask(text)
        found = self._market_of(message.market, message.asset_id)
        if found is None:
            self.counters["ignored_entries"] += 1
            return
        market, is_yes = found
        bid, ask = _told_top(message.best_bid, message.best_ask, is_yes)
        stamp_ns = wire.venue_ns(message.timestamp) if message.timestamp else None
        self._out.append(Ticker(market.market_id, bid, None, ask, None, None, None, None, self._now, stamp_ns))

    def _on_lifecycle(self, text: str) -> None:
        """Say ``new_market`` and ``market_resolved`` the first time; the venue repeats them up to hundreds of times."""
        message = wire.decode_lifecycle(text)
        key = (message.event_type, message.market)
        if key in self._lifecycle:
            self.counters["repeated_lifecycle"] += 1
            return
        if len(self._lifecycle) >= _TOLD_MOST:
            self._lifecycle.pop(next(iter(self._lifecycle)))
        self._lifecycle[key] = None
        details = msgspec.json.decode(text, type=dict[str, object])
        winner = self._tokens.get(message.winning_asset_id or "")
        if winner is not None:
            details["result"] = "yes" if winner[1] else "no"
        event_id = message.event_message.id if message.event_message else ""
        created = message.event_type == "new_market"
        self._out.append(
            MarketChange(
                message.market,
                event_id,
                message.event_type,
                self._now,
                details,
                change="created" if created else "determined",
                facts=_new_facts(message) if created else None,
                effective_ns=None if created else _stamp_ns(message.timestamp),
            )
        )

    # --- helpers ---------------------------------------------------------------------------------------------

    def _ask(self, markets: list[MarketBook]) -> None:
        """Subscribe what is not subscribed yet; naming an active token again is refused by the venue."""
        wanted = [market for market in markets if market.yes not in self._named]
        tokens = [market.yes for market in wanted]
        for market in wanted:
            market.since_ns = self._now
            market.deadline_ns = self._now + _SNAPSHOT_DEADLINE
        self._named.update(tokens)
        if not tokens:
            return
        if self._opened:
            self._send({"operation": "subscribe", "assets_ids": tokens, "custom_feature_enabled": True})
        else:
            self._send({"assets_ids": tokens, "type": "market", "custom_feature_enabled": True, "initial_dump": True})
        self._opened = True

    def _send(self, message: dict[str, object]) -> None:
        self._out.append(Send(msgspec.json.encode(message).decode()))

    def _index(self, market: MarketBook) -> None:
        self._tokens[market.yes] = (market, True)
        if market.no:
            self._tokens[market.no] = (market, False)

    def _not_ours(self, what: str, market_id: str, asset_id: str) -> None:
        """Something of a token that nobody subscribed, or no longer."""
        if asset_id in self._retired or market_id in self._retired:
            self.counters["ignored_entries"] += 1
            return
        detail = f"{what} of asset_id {asset_id[:90]!r}, which nobody subscribed"
        self._anomaly(AnomalyKind.UNKNOWN_MARKET, detail, market_id[:70])

    def _market_of(self, market_id: str, asset_id: str) -> tuple[MarketBook, bool] | None:
        """The market of a token, and whether the token is its YES; None if nobody asked for it."""
        found = self._tokens.get(asset_id)
        if found is not None:
            if found[0].market_id != market_id:
                raise _ForeignTokenError(f"asset_id {asset_id[:90]!r} is no token of market {market_id[:70]!r}")
            return found
        market = self._markets.get(market_id)
        if market is not None:
            if market.no:
                return None
            market.no = asset_id
            self._index(market)
            return market, False
        if not self._accept_unknown:
            return None
        market = MarketBook(MarketFacts(venue=self.venue, market_id=market_id, yes_token_id=asset_id))
        self._markets[market_id] = market
        self._index(market)
        self._anomaly(AnomalyKind.ASSUMED_YES_TOKEN, f"asset_id {asset_id[:90]} came first, taken as YES", market_id)
        return market, True

    def _quote(self, market: MarketBook) -> None:
        assert market.book is not None
        top = market.book.top()
        if top != market.quoted:
            market.quoted = top
            self._out.append(Quote(market.market_id, *top, market.in_sync, self._now, market.venue_ns, None))

    def _anomaly(self, kind: AnomalyKind, detail: str, market_id: str = "") -> None:
        self._out.append(Anomaly(kind, detail[:_EXAMPLE], self._now, market_id, self._raw[:_EXAMPLE]))

    _handlers: "dict[str, Callable[[PolymarketSession, str], None]]" = {  # noqa: RUF012 - never changed
        "book": _on_book,
        "price_change": _on_old_price_change,
        "last_trade_price": _on_trade,
        "tick_size_change": _on_tick_size,
        "best_bid_ask": _on_best_bid_ask,
        "new_market": _on_lifecycle,
        "market_resolved": _on_lifecycle,
    }


_LIFECYCLE = frozenset({"new_market", "market_resolved"})
"""Sent to every connection whatever it subscribed: no sign that books are still fed."""
_ABOUT_BOOKS = frozenset({"book", "price_change", "tick_size_change"})


def _kind(error: Exception) -> AnomalyKind:
    if isinstance(error, _ForeignTokenError):
        return AnomalyKind.UNKNOWN_MARKET
    if isinstance(error, msgspec.MsgspecError | UnicodeError | RecursionError):
        return wire.error_kind(error)
    return AnomalyKind.BAD_NUMBER


def _claim(market: MarketBook, message: wire.BookMessage) -> Claim:
    return Claim(message.asset_id == market.yes, message.timestamp, wire.venue_ns(message.timestamp), message.hash)


def _stamp_ns(timestamp: str) -> int | None:
    try:
        return wire.venue_ns(timestamp) if timestamp else None
    except ValueError:
        return None


def _new_facts(message: wire.Lifecycle) -> MarketFacts | None:
    """What it takes to subscribe a new market: its tokens. Inputs of the hash that are not told it finds itself."""
    tokens = message.clob_token_ids or message.assets_ids or []
    if len(tokens) != 2:
        return None
    try:
        tick = level_price(message.order_price_min_tick_size or "0.01")
    except UnitError:
        tick = MarketFacts(venue="", market_id="").tick
    return MarketFacts(
        venue=PolymarketSession.venue,
        market_id=message.market,
        yes_token_id=tokens[0],
        no_token_id=tokens[1],
        tick=tick,
    )


def _old(message: wire.OldPriceChange) -> list[wire.Change]:
    """Changes of a message in the form before 2025-09-15, listed or flat."""
    if isinstance(message.changes, list):
        return message.changes
    if isinstance(message.price, str) and isinstance(message.size, str) and message.side is not UNSET:
        return [wire.Change(message.price, message.size, message.side)]
    raise msgspec.ValidationError("Object missing required field `price_changes`")


def _mirrored_changes(entries: list[wire.PriceChange]) -> list[Change]:
    """Entries of the NO token as changes of the YES book."""
    return [Change(entry.side == "SELL", ONE - level_price(entry.price), level_size(entry.size)) for entry in entries]


def _told_top(best_bid: str | None, best_ask: str | None, is_yes: bool) -> tuple[int | None, int | None]:
    """Told best prices in YES terms; ``0``, ``1``, empty and absent mean an empty side."""
    bid = wire.best_price(parse_price(best_bid)) if best_bid else None
    ask = wire.best_price(parse_price(best_ask)) if best_ask else None
    if is_yes:
        return bid, ask
    return None if ask is None else ONE - ask, None if bid is None else ONE - bid


def _own_verdict(message: wire.BookMessage) -> Verdict:
    """Whether a REST book, which carries every input of its hash, matches it.

    Raises:
        UnitError: if a level or an input is no number.
    """
    if not (message.hash and message.tick_size and message.min_order_size) or message.neg_risk is None:
        return Verdict.UNVERIFIABLE
    sides = (message.bids or message.buys or [], message.asks or message.sells or [])
    bids, asks = ({level_price(level.price): level_size(level.size) for level in side} for side in sides)
    digest = book_hash(
        message.market,
        message.asset_id,
        message.timestamp,
        sorted(bids.items()),
        sorted(asks.items(), reverse=True),
        min_size=parse_size(message.min_order_size),
        tick=parse_price(message.tick_size),
        neg_risk=message.neg_risk,
        last_trade_price=message.last_trade_price or "",
    )
    if digest == message.hash:
        return Verdict.VERIFIED
    return Verdict.UNVERIFIABLE if message.version == "v2" else Verdict.MISMATCH


def _snapshot(market: MarketBook, recv_ns: int, reason: _Reason, source: Source) -> BookSnapshot:
    book = market.book
    assert book is not None
    return BookSnapshot(
        market.market_id,
        tuple(book.bid_levels()),
        tuple(book.ask_levels()),
        recv_ns,
        market.venue_ns,
        None,
        market.epoch,
        reason,
        market.in_sync,
        source,
    )
