"""The oracle: what the local exchange really did, held against what a capture of it says.

A :class:`Tape` notes, in one order, every frame that the exchange hands to a connection (also those that a fault
drops or withholds) and every best price that a captured market goes through, whether anybody was told or not.
:func:`verdict` then reads the tables and objects wherever they claim more than the tape bears out:

1. *Frames.* What a connection captured is, frame by frame and in order, the beginning of what the exchange put on that
   connection. A frame of a captured market that did not arrive (dropped, withheld, or on its way when the socket was
   cut) is *lost*; it is *accounted* if it would have been received inside a row of ``book_gaps`` of its market.
2. *Final books.* The rows of ``book_events``, folded in the table's order, give the exchange's own book.
3. *Quotes.* A row of ``quotes`` that is ``in_sync`` and outside ``book_gaps`` shows the exchange's own top at the
   frame that it was made from (the newest raw frame of its connection before it). Made from a REST answer, which has
   no place in the stream, it shows a top that the exchange had between the frame before it and its receipt.
4. *Quotes in force.* A quote holds until the next one. Whenever the exchange's top changed, the quote in force where
   the capture saw that change, or would have seen it, is the new top, is not ``in_sync``, or lies in a gap.

Where a frame that never arrived *would have been received* is the receive time of the last frame of its connection
that went before it, or the time of its making if that is later. Gaps are [from, to).
"""

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final
from unittest.mock import patch

from arb_pipeline.clock import Clock
from arb_pipeline.exchange import Exchange
from arb_pipeline.exchange.connections import Connection
from arb_pipeline.exchange.kalshi_feed import KalshiFeed
from arb_pipeline.exchange.polymarket_feed import PolymarketFeed
from arb_pipeline.model import Top
from arb_pipeline.units import PRICE_SCALE, SIZE_SCALE

__all__ = ["Book", "Loss", "Rows", "Tape", "Verdict", "verdict"]

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows by table."""

Book = tuple[dict[int, int], dict[int, int]]
"""Bids and asks: price in 1e-4 dollars to size in 1e-6 contracts."""

_ALWAYS: Final = 2**63 - 1
_OF_BOOKS: Final = frozenset({"orderbook_delta", "orderbook_snapshot", "price_change", "book"})


@dataclass(frozen=True, slots=True)
class _State:
    """A market's top from one place of the tape to its next state."""

    place: int
    at_ns: int
    top: Top


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame for one connection; ``market_id`` is empty where it is about no one market."""

    place: int
    at_ns: int
    label: str
    text: str
    market_id: str


class Tape:
    """See the module.

    Args:
        clock: the capture's.
        markets: what is captured.
    """

    def __init__(self, exchange: Exchange, clock: Clock, markets: Collection[str]) -> None:
        self.sent: dict[str, list[_Frame]] = defaultdict(list)
        """By connection, in order."""
        self.lost: list[_Frame] = []
        """Never put on the connection."""
        self.states: dict[str, list[_State]] = {market_id: [] for market_id in markets}
        self.carriers: dict[str, list[_Frame]] = {market_id: [] for market_id in markets}
        """The frames that told of a market's book."""
        self._exchange = exchange
        self._clock = clock
        self.place = 0
        """How far the tape has come."""
        self._market = ""
        self._whole = False
        self._labels: dict[str, str] = {}
        self._look()

    def label_of(self, market_id: str) -> str:
        """The newest connection that was told of a market."""
        return self._labels[market_id]

    def book(self, market_id: str) -> Book:
        """The exchange's own book now."""
        book = self._book(market_id)
        return dict(book.bids), dict(book.asks)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take notes for as long as the context lasts."""
        send, send_data, silences = Connection.send, Connection.send_data, self._exchange.faults.silences

        def noted_send(connection: Connection, text: str, kind: str) -> None:
            silence = connection.silence
            self._note(connection.sent.label, text, withheld=silence is not None and silence.on and kind != "PONG")
            send(connection, text, kind)

        def noted_send_data(connection: Connection, text: str, kind: str, market_id: str) -> None:
            label, frames = connection.sent.label, self.sent[connection.sent.label]
            self._market, self._whole, before = market_id, False, len(frames)
            self._labels[market_id] = label
            send_data(connection, text, kind, market_id)
            # Of several that a fault made of one, the last is what is left of the true one.
            if len(frames) > before and kind in _OF_BOOKS:
                self.carriers[market_id].append(frames[-1])
            if not self._whole:
                self._lose(label, text)
            self._market = ""

        def noted_silences(venue: str, market_id: str) -> bool:
            silent = silences(venue, market_id)
            if silent and market_id in self._labels:
                self._market = market_id
                self._lose(self._labels[market_id], "")
                self._market = ""
            return silent

        with ExitStack() as stack:
            stack.enter_context(patch.object(Connection, "send", noted_send))
            stack.enter_context(patch.object(Connection, "send_data", noted_send_data))
            stack.enter_context(patch.object(self._exchange.faults, "silences", noted_silences))
            for feed in (self._exchange.kalshi, self._exchange.polymarket):
                for name in ("change_level", "close_market", "reopen_market"):
                    stack.enter_context(patch.object(feed, name, self._looking(feed, name)))
            yield

    def _looking(self, feed: KalshiFeed | PolymarketFeed, name: str) -> Callable[..., None]:
        """A move of the market, after which its top is looked at also if nobody was told of it."""
        move: Callable[..., None] = getattr(feed, name)

        def moved(*arguments: object) -> None:
            move(*arguments)
            self._look()

        return moved

    def _look(self) -> None:
        for market_id, states in self.states.items():
            top = self._book(market_id).top()
            if not states or states[-1].top != top:
                self.place += 1
                states.append(_State(self.place, self._clock.now_ns(), top))

    def _note(self, label: str, text: str, *, withheld: bool) -> None:
        self._look()
        if withheld:
            return
        self.place += 1
        self.sent[label].append(_Frame(self.place, self._clock.now_ns(), label, text, self._market))
        self._whole = self._whole or _is_json(text)

    def _lose(self, label: str, text: str) -> None:
        self._look()
        self.place += 1
        self.lost.append(_Frame(self.place, self._clock.now_ns(), label, text, self._market))

    def _book(self, market_id: str) -> Any:
        market = self._exchange.kalshi.markets.get(market_id) or self._exchange.polymarket.markets[market_id]
        return market.book


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Loss:
    """A frame that never arrived: its market and place on the tape, and whether a gap tells of it."""

    market_id: str
    place: int
    accounted: bool


@dataclass
class Verdict:
    """What the oracle found.

    Attributes:
        objections: claims of the tables that the tape does not bear out, in words; none is what is wanted.
        losses: frames of captured markets that never arrived.
        captured: frames that arrived.
        quotes: rows of ``quotes`` that were checked.
        changes: changes of a top against which the quote in force was checked.
    """

    objections: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    captured: int = 0
    quotes: int = 0
    changes: int = 0


def verdict(tape: Tape, rows: Rows, end: int, *, streamed: Collection[str], slack_ns: int = 0) -> Verdict:
    """Hold the tables of one run against the tape.

    Args:
        rows: ``raw_frames``, ``book_events``, ``quotes``, ``book_gaps`` and ``capture_sessions`` of the run.
        end: place of the tape at which the capture was told to stop: nothing later is missed.
        streamed: the markets that came over a socket; the others were polled, of which only 2 and 3 hold.
        slack_ns: how long the answer to a poll may have been under way.
    """
    return _Case(tape, rows, end, frozenset(streamed), slack_ns).judge()


class _Case:
    def __init__(self, tape: Tape, rows: Rows, end: int, streamed: frozenset[str], slack_ns: int) -> None:
        self._tape = tape
        self._rows = rows
        self._end = end
        self._streamed = streamed
        self._slack_ns = slack_ns
        self._found = Verdict()
        self._raw: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in sorted(rows["raw_frames"], key=_by_ordinal):
            self._raw[row["connection_id"]].append(row)
        self._raw_ordinals = sorted(row["ordinal"] for row in rows["raw_frames"])
        self._gaps: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for gap in rows["book_gaps"]:
            to_ns = _ALWAYS if gap["to_ns"] is None else gap["to_ns"]
            self._gaps[gap["market_id"]].append((gap["from_ns"], to_ns))
        self._quotes: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for quote in sorted(rows["quotes"], key=_by_ordinal):
            self._quotes[quote["market_id"]].append(quote)
        self._frames: dict[str, list[_Frame]] = {}
        """What was put on each captured connection, by its id."""
        self._captured: dict[str, list[Mapping[str, Any]]] = {}
        """The rows of a connection's own frames, by the exchange's label."""
        self._labels: dict[str, list[str]] = defaultdict(list)
        """The captured connections that were told of a market."""
        self._pushed = {
            connection: [0, *accumulate(row["source"] == "ws" for row in raw)] for connection, raw in self._raw.items()
        }
        """How many of a connection's first frames came over the socket."""

    def judge(self) -> Verdict:
        """All four parts."""
        self._pair_connections()
        self._account()
        self._check_final_books()
        for market_id, quotes in self._quotes.items():
            for quote in quotes:
                self._check_quote(market_id, quote)
        for label in self._captured:
            for market_id in {frame.market_id for frame in self._tape.sent[label]}:
                self._labels[market_id].append(label)
        for market_id in sorted(self._streamed):
            self._check_in_force(market_id)
        return self._found

    # --- frames --------------------------------------------------------------------------------------------

    def _pair_connections(self) -> None:
        """Find the exchange's side of each captured connection: the first unused one that begins with its frames."""
        unused = dict(self._tape.sent)
        for session in sorted(self._rows["capture_sessions"], key=lambda row: row["connection_id"]):
            connection = session["connection_id"]
            own = [row for row in self._raw[connection] if row["source"] == "ws"]
            if not own:
                continue
            self._found.captured += len(own)
            texts = [row["frame"] for row in own]
            common = {label: _common(texts, frames) for label, frames in unused.items()}
            label = max(common, key=lambda each: common[each])
            self._frames[connection] = unused.pop(label)
            self._captured[label] = own
            if common[label] < len(texts):
                self._found.objections.append(
                    f"{connection}: frame {common[label] + 1} of {len(texts)} is not the one that {label} was sent: "
                    f"{texts[common[label]][:120]}"
                )

    def _account(self) -> None:
        lost = [frame for frame in self._tape.lost if frame.market_id in self._streamed]
        for label, frames in self._tape.sent.items():
            lost += [frame for frame in frames[len(self._captured.get(label, ())) :] if frame.market_id]
        first = ""
        for frame in lost:
            seen_ns = self._would_be_received(frame.label, frame.place, frame.at_ns)
            if frame.market_id not in self._streamed or frame.place > self._end:
                continue
            # A gap that ends where the frame would have come was ended by a younger frame.
            accounted = any(from_ns <= seen_ns <= to_ns for from_ns, to_ns in self._gaps[frame.market_id])
            self._found.losses.append(Loss(frame.market_id, frame.place, accounted))
            if not accounted:
                first = first or f"first of {frame.market_id} at {seen_ns}: {frame.text[:120]}"
        if first:
            count = sum(not loss.accounted for loss in self._found.losses)
            self._found.objections.append(f"{count} frames were lost outside any gap, {first}")

    def _would_be_received(self, label: str, place: int, at_ns: int) -> int:
        before = self._last_before(label, place)
        return at_ns if before is None else max(at_ns, before["recv_ns"])

    def _last_before(self, label: str, place: int) -> Mapping[str, Any] | None:
        """The newest captured frame of a connection that was sent before a place of the tape."""
        own = self._captured.get(label, [])
        index = min(bisect_left(self._tape.sent[label], place, key=lambda frame: frame.place), len(own))
        return own[index - 1] if index else None

    # --- books and quotes ----------------------------------------------------------------------------------

    def _check_final_books(self) -> None:
        books: dict[str, Book] = {market_id: ({}, {}) for market_id in self._tape.states}
        for row in sorted(self._rows["book_events"], key=lambda row: (row["recv_ns"], row["ordinal"])):
            book = books[row["market_id"]]
            if row["kind"] == "clear":
                book[0].clear()
                book[1].clear()
                continue
            side, price, size = book[row["side"] == "ask"], _price(row["price"]), _size(row["size"])
            if size:
                side[price] = size
            else:
                side.pop(price, None)
        for market_id, book in books.items():
            if book != (true := self._tape.book(market_id)):
                self._found.objections.append(f"{market_id}: ends as {book}, the exchange has {true}")

    def _check_quote(self, market_id: str, quote: Mapping[str, Any]) -> None:
        if not quote["in_sync"] or self._in_gap(market_id, quote["recv_ns"]):
            return
        self._found.quotes += 1
        raw = self._raw[quote["connection_id"]]
        index = bisect_left(raw, quote["ordinal"], key=_by_ordinal) - 1
        told = _top(quote)
        if raw[index]["source"] == "ws":
            true = {self._top_at(market_id, self._place_of(quote["connection_id"], index))}
        else:
            true = self._tops_until(market_id, quote, index)
        if told not in true:
            self._found.objections.append(
                f"{market_id}: quote {told} at {quote['recv_ns']} (seq {quote['seq']}), the exchange had {true}"
            )

    def _place_of(self, connection: str, index: int) -> int:
        """Place of the stream's newest frame up to an index of a connection's raw frames; 0 before the first."""
        number = self._pushed[connection][index + 1]
        return self._frames[connection][number - 1].place if number else 0

    def _top_at(self, market_id: str, place: int) -> Top:
        states = self._tape.states[market_id]
        return states[max(0, bisect_right(states, place, key=lambda state: state.place) - 1)].top

    def _tops_until(self, market_id: str, quote: Mapping[str, Any], index: int) -> set[Top]:
        states = self._tape.states[market_id]
        recv_ns = quote["recv_ns"]
        if market_id in self._streamed:
            place = self._place_of(quote["connection_id"], index)
            first = bisect_right(states, place, key=lambda state: state.place)
        else:
            first = bisect_right(states, recv_ns - self._slack_ns, key=lambda state: state.at_ns)
        return {state.top for state in states[max(0, first - 1) :] if state.at_ns <= recv_ns}

    def _check_in_force(self, market_id: str) -> None:
        states = self._tape.states[market_id]
        quotes = self._quotes[market_id]
        carriers = self._carriers(market_id)
        places = [frame.place for frame, _ in carriers]
        ends = [state.place for state in states[1:]] + [_ALWAYS]
        for state, end in zip(states, ends, strict=True):
            index = bisect_left(places, state.place)
            if index < len(places) and places[index] < end:
                row = carriers[index][1]
                seen_ns = row["recv_ns"]
            else:
                before = self._newest_before(market_id, state.place)
                if before is None:
                    continue  # nothing was claimed yet
                row, seen_ns = before, max(state.at_ns, before["recv_ns"])
            if state.place > self._end or self._in_gap(market_id, seen_ns):
                continue
            following = bisect_right(self._raw_ordinals, row["ordinal"])
            until = self._raw_ordinals[following] if following < len(self._raw_ordinals) else _ALWAYS
            held = bisect_left(quotes, until, key=_by_ordinal)
            if not held or not quotes[held - 1]["in_sync"]:
                continue
            self._found.changes += 1
            if (told := _top(quotes[held - 1])) != state.top:
                self._found.objections.append(
                    f"{market_id}: at {seen_ns} the exchange's top became {state.top}, but {told} was in force"
                )

    def _carriers(self, market_id: str) -> list[tuple[_Frame, Mapping[str, Any]]]:
        """The captured frames that told of a market's book, with their rows."""
        found = []
        for frame in self._tape.carriers[market_id]:
            own = self._captured.get(frame.label, [])
            index = bisect_left(self._tape.sent[frame.label], frame.place, key=lambda each: each.place)
            if index < len(own):
                found.append((frame, own[index]))
        return found

    def _newest_before(self, market_id: str, place: int) -> Mapping[str, Any] | None:
        """The newest captured frame, before a place, of the connections that are told of a market."""
        labels = self._labels[market_id]
        found = [row for label in labels if (row := self._last_before(label, place)) is not None]
        return max(found, key=_by_ordinal, default=None)

    def _in_gap(self, market_id: str, at_ns: int) -> bool:
        return any(from_ns <= at_ns < to_ns for from_ns, to_ns in self._gaps[market_id])


def _by_ordinal(row: Mapping[str, Any]) -> int:
    ordinal: int = row["ordinal"]
    return ordinal


def _common(texts: Sequence[str], frames: Sequence[_Frame]) -> int:
    """How many frames from the beginning are the same."""
    count = 0
    for text, frame in zip(texts, frames, strict=False):
        if text != frame.text:
            break
        count += 1
    return count


def _price(value: Any) -> int:
    return int(value * PRICE_SCALE)


def _size(value: Any) -> int:
    return int(value * SIZE_SCALE)


def _top(quote: Mapping[str, Any]) -> Top:
    bid, ask = (None if quote[side] is None else _price(quote[side]) for side in ("bid", "ask"))
    bid_size, ask_size = (None if quote[side] is None else _size(quote[side]) for side in ("bid_size", "ask_size"))
    return bid, bid_size, ask, ask_size
