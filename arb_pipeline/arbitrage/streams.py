"""One market's quotes, book changes and trust within a window, as integer arrays in time order.

Prices are 1e-4 dollars, sizes 1e-6 contracts, :data:`NULL` on an empty side. The Polymarket market of an inverted
pair is turned into the pair's proposition here (:meth:`MarketStream.complemented`) and nowhere else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.arbitrage.intervals import FOREVER, PAST, Intervals, Nanos, union
from arb_pipeline.arbitrage.pairs import MarketData, Pair
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import Market, MarketStatus
from arb_pipeline.settings import Settings
from arb_pipeline.units import ONE

__all__ = [
    "AFTER_CLOSE",
    "AFTER_EVENT",
    "ASK",
    "BID",
    "BOOK_COLUMNS",
    "CLEAR",
    "CONNECTION_DOWN",
    "GAME_SPAN",
    "MARKET_NOT_OPEN",
    "MAX_SKEW_NS",
    "NOT_IN_SYNC",
    "NO_SNAPSHOT",
    "NULL",
    "QUOTE_COLUMNS",
    "SKEWED_LEGS",
    "STALE_LEG",
    "TRUST_GUARDS",
    "BookRows",
    "MarketStream",
    "PairStream",
    "Polls",
    "QuoteRows",
    "load_streams",
    "market_streams",
]

NULL = np.iinfo(np.int64).min
"""Stands for a missing price or size."""

NO_SNAPSHOT = "no_snapshot"
NOT_IN_SYNC = "not_in_sync"
CONNECTION_DOWN = "connection_down"
STALE_LEG = "stale_leg"
MARKET_NOT_OPEN = "market_not_open"
AFTER_CLOSE = "after_close"
AFTER_EVENT = "after_event"
SKEWED_LEGS = "skewed_legs"

TRUST_GUARDS = (NO_SNAPSHOT, NOT_IN_SYNC, CONNECTION_DOWN, STALE_LEG, MARKET_NOT_OPEN, AFTER_CLOSE, AFTER_EVENT)
"""Guards that concern one leg at one time, in the order in which they are asked."""

GAME_SPAN = timedelta(hours=12)
"""After its start an occasion counts as over, where no venue tells when it expects the outcome.

The longest games of one day's play take eleven hours (tennis); an end too late lets artefacts in, one too early would
throw out what can still be traded.
"""

MAX_SKEW_NS = 2_000_000_000
"""So far may the newest answers of two polled books be apart: "for polled data max_skew 2 s". Pushed books are fresh
while their connections live, whenever they last changed."""

Codes = npt.NDArray[np.int8]
Flags = npt.NDArray[np.bool_]

_KINDS = {"clear": 0, "snapshot": 1, "delta": 2}
CLEAR = _KINDS["clear"]
BID, ASK = 0, 1
_SIDES = {"bid": BID, "ask": ASK}

_KEYS = ("venue", "market_id", "recv_ns", "ordinal", "connection_id")
_TOP = ("bid", "bid_size", "ask", "ask_size", "in_sync")
_LEVEL = ("kind", "side", "price", "size")
QUOTE_COLUMNS = (*_KEYS, "source", *_TOP)
"""Of the table ``quotes`` what is read here."""
BOOK_COLUMNS = (*_KEYS, "source", *_LEVEL)
"""Of the table ``book_events`` what is read here."""

_HOUR_NS = 3_600_000_000_000

_TIMES = ("open_at", "close_at", "expected_expiration_at", "occurrence_at")
_STATE = ("venue", "market_id", "valid_from", "valid_to", "status", *_TIMES)
"""Of the table ``market_history`` what is read here."""
_NO_TIMES: Nanos = np.empty(0, dtype=np.int64)
_NEVER_OPEN = (MarketStatus.UNOPENED, MarketStatus.PAUSED)
_CLOSED = (MarketStatus.CLOSED, MarketStatus.DETERMINED, MarketStatus.SETTLED)


@dataclass(frozen=True)
class QuoteRows:
    """Tops of one book in time order, the last one of each instant."""

    recv_ns: Nanos
    bid: Nanos
    bid_size: Nanos
    ask: Nanos
    ask_size: Nanos
    in_sync: Flags

    def take(self, at: npt.NDArray[np.intp] | slice) -> "QuoteRows":
        """Some of the rows."""
        return QuoteRows(
            self.recv_ns[at], self.bid[at], self.bid_size[at], self.ask[at], self.ask_size[at], self.in_sync[at]
        )

    def as_of(self, instants: Nanos) -> "QuoteRows":
        """The last top received by each instant; :data:`NULL` and out of sync before the first."""
        at = np.searchsorted(self.recv_ns, instants, side="right") - 1
        seen = at >= 0
        if not self.recv_ns.size:
            none = np.full(len(instants), NULL, dtype=np.int64)
            return QuoteRows(instants, none, none, none, none, seen)
        found = self.take(at)
        for column in (found.bid, found.bid_size, found.ask, found.ask_size):
            column[~seen] = NULL
        return replace(found, recv_ns=instants, in_sync=seen & found.in_sync)

    def complemented(self) -> "QuoteRows":
        """The same tops seen from the other outcome."""
        return replace(
            self, bid=_complement(self.ask), bid_size=self.ask_size, ask=_complement(self.bid), ask_size=self.bid_size
        )


@dataclass(frozen=True)
class BookRows:
    """Changes of one book in time order: ``kind`` 0 clear, 1 snapshot, 2 delta; ``side`` 0 bid, 1 ask."""

    recv_ns: Nanos
    kind: Codes
    side: Codes
    price: Nanos
    size: Nanos

    def take(self, at: npt.NDArray[np.intp] | slice) -> "BookRows":
        """Some of the rows."""
        return BookRows(self.recv_ns[at], self.kind[at], self.side[at], self.price[at], self.size[at])

    def complemented(self) -> "BookRows":
        """The same changes seen from the other outcome."""
        return replace(self, side=(1 - self.side).astype(np.int8), price=_complement(self.price))


@dataclass(frozen=True)
class MarketStream:
    """One market in a window.

    Attributes:
        distrust: for each of :data:`TRUST_GUARDS` the time in which it does not hold.
        polled: the time in which the book comes over polled connections. answers: when these answered.
    """

    market: Market
    quotes: QuoteRows
    books: BookRows
    distrust: Mapping[str, Intervals]
    polled: Intervals = field(default_factory=lambda: Intervals.of([]))
    answers: Nanos = field(default_factory=lambda: _NO_TIMES)

    def complemented(self) -> "MarketStream":
        """The market seen from its other outcome."""
        return replace(self, quotes=self.quotes.complemented(), books=self.books.complemented())


@dataclass(frozen=True)
class PairStream:
    """Both markets of a pair, in terms of the pair's proposition."""

    pair: Pair
    kalshi: MarketStream
    polymarket: MarketStream

    @classmethod
    def of(cls, pair: Pair, streams: Mapping[tuple[str, str], MarketStream]) -> "PairStream":
        """The pair's two streams, Polymarket's turned round if the pair is inverted."""
        polymarket = streams[pair.polymarket.venue, pair.polymarket.market_id]
        return cls(
            pair,
            streams[pair.kalshi.venue, pair.kalshi.market_id],
            polymarket.complemented() if pair.inverted else polymarket,
        )

    @property
    def legs(self) -> tuple[MarketStream, MarketStream]:
        """Kalshi, Polymarket."""
        return self.kalshi, self.polymarket

    @cached_property
    def trust_edges(self) -> Nanos:
        """Every instant at which a guard of one leg begins or ceases to hold."""
        edges = [intervals.edges() for leg in self.legs for intervals in leg.distrust.values()]
        return np.unique(np.concatenate([*edges, self.skewed.edges()]))

    @cached_property
    def skewed(self) -> Intervals:
        """The time in which both books are polled, and their newest answers too far apart to be of one time."""
        kalshi, polymarket = (leg.answers for leg in self.legs)
        if not kalshi.size or not polymarket.size:
            return Intervals.of([])
        times = union(kalshi, polymarket)
        times = times[times >= max(kalshi[0], polymarket[0])]
        newest = [of[np.searchsorted(of, times, side="right") - 1] for of in (kalshi, polymarket)]
        apart = np.abs(newest[0] - newest[1]) > MAX_SKEW_NS
        until = np.append(times[1:], FOREVER)
        found = Intervals.of(zip(times[apart].tolist(), until[apart].tolist(), strict=True))
        for leg in self.legs:
            found = Intervals.of(
                part
                for start, end in zip(leg.polled.starts.tolist(), leg.polled.ends.tolist(), strict=True)
                for part in found.clip(start, end)
            )
        return found

    def ever_gaps(self) -> bool:
        """Whether either direction ever shows a positive gap between the tops, trusted or not."""
        kalshi, polymarket = self.kalshi.quotes, self.polymarket.quotes
        instants = union(kalshi.recv_ns, polymarket.recv_ns)
        if not kalshi.recv_ns.size or not polymarket.recv_ns.size:
            return False
        k, p = kalshi.as_of(instants), polymarket.as_of(instants)
        return bool(_gaps(k, p).any() or _gaps(p, k).any())

    def distrust(self, times: Nanos) -> tuple[Nanos, dict[int, tuple[str, ...]]]:
        """For each time a code of the guards that do not hold, and what each code stands for, as ``guard:venue``.

        What concerns both legs together bears no venue. Code 0, no guard, means that both legs are to be trusted.
        """
        codes = np.zeros(len(times), dtype=np.int64)
        doubts = [(f"{guard}:{leg.market.venue}", leg.distrust[guard]) for guard in TRUST_GUARDS for leg in self.legs]
        doubts.append((SKEWED_LEGS, self.skewed))
        for number, (_, intervals) in enumerate(doubts):
            inside = intervals.contains(times)
            if inside.any():
                codes |= inside.astype(np.int64) << number
        meaning = {
            code: tuple(name for bit, (name, _) in enumerate(doubts) if code >> bit & 1)
            for code in np.flatnonzero(np.bincount(codes)).tolist()
        }
        return codes, meaning


def load_streams(
    pairs: Sequence[Pair], data: MarketData, end_ns: int, settings: Settings, polls: "Polls | None" = None
) -> dict[tuple[str, str], MarketStream]:
    """As :func:`market_streams`, of the pairs' markets."""
    return market_streams(
        [market for pair in pairs for market in (pair.kalshi, pair.polymarket)], data, end_ns, settings, polls
    )


def market_streams(
    listed: Iterable[Market], data: MarketData, end_ns: int, settings: Settings, polls: "Polls | None" = None
) -> dict[tuple[str, str], MarketStream]:
    """Cut the tables into one stream per (venue, market id), leaving out rows from ``end_ns`` on.

    Args:
        polls: when polled connections answered, where the data are not all that was received over them.
    """
    markets = {(market.venue, market.market_id): market for market in listed}
    wanted = pa.array(sorted({market_id for _, market_id in markets}), pa.string())
    quotes = _ByMarket(_select(data.quotes.select([*_KEYS, *_TOP]), wanted, end_ns))
    events = _ByMarket(_select(data.book_events.select([*_KEYS, *_LEVEL]), wanted, end_ns))
    gaps = _gaps_by_market(data.book_gaps)
    answers = {
        name: np.array(times, dtype=np.int64)
        for name, times in (Polls.of(data) if polls is None else polls).answers().items()
    }
    alive = _alive_by_connection(data, answers, settings)
    history = _states_by_market(data.market_history, wanted)
    streams: dict[tuple[str, str], MarketStream] = {}
    for key, market in markets.items():
        quoted, changed = quotes.rows(key), events.rows(key)
        tops = _last_of_each_instant(_quote_rows(quoted))
        books = _from_first_snapshot(_book_rows(changed))
        opening = _opening_top(books)
        if opening is not None and (not tops.recv_ns.size or opening.recv_ns[0] < tops.recv_ns[0]):
            tops = _concat(opening, tops)
        spans = _connection_spans([*_connections(quoted), *_connections(changed)])
        known_from = min([*tops.recv_ns[:1].tolist(), *books.recv_ns[:1].tolist()], default=FOREVER)
        open_gaps = _clip_gaps(gaps.get(key, []), spans)
        down, stale = _connection_doubts(spans, alive)
        polled = [span for span in spans if span[2] in answers]
        streams[key] = MarketStream(
            market,
            tops,
            books,
            {
                NO_SNAPSHOT: Intervals.of([(PAST, known_from)]),
                NOT_IN_SYNC: Intervals.of([*open_gaps, *_quote_doubts(tops, open_gaps)]),
                CONNECTION_DOWN: down,
                STALE_LEG: stale,
                **_closed_times(market, history.get(key, [])),
            },
            Intervals.of((start, end) for start, end, _ in polled),
            union(*(answers[name] for name in {name for _, _, name in polled})) if polled else _NO_TIMES,
        )
    return streams


# --- tables into arrays ------------------------------------------------------------------------------------


def fixed_point(column: pa.ChunkedArray) -> Nanos:
    """A DECIMAL column as the integers behind it; nulls become :data:`NULL`.

    Arrow keeps a decimal128 as 16 bytes little-endian two's complement; every value of the tables fits the low 8.
    """
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    words = np.frombuffer(array.buffers()[1] or b"", dtype="<i8")[0::2][array.offset : array.offset + len(array)]
    if not array.null_count:
        return np.ascontiguousarray(words)
    return np.where(pc.is_valid(array).to_numpy(zero_copy_only=False), words, NULL)


def _select(table: pa.Table, market_ids: pa.Array, end_ns: int) -> pa.Table:
    keep = pc.and_(pc.is_in(table["market_id"], value_set=market_ids), pc.less(table["recv_ns"], end_ns))
    return table if pc.all(keep).as_py() else table.filter(keep)


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """The column as codes into its distinct words; encoding before joining the chunks copies no words."""
    return column.dictionary_encode().combine_chunks()


class _ByMarket:
    """A table's rows by (venue, market id), each in the recorder's order.

    Files are sorted by market, so that a market's rows lie in one piece, or in few, and one piece is cut out without a
    copy: what is made of a market's rows then stays small enough for the processor's cache.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        venue_starts, venues = _runs(table["venue"])
        market_starts, markets = _runs(table["market_id"])
        starts = np.union1d(venue_starts, market_starts)
        count = max(len(markets.dictionary), 1)
        codes = _code_at(venue_starts, venues, starts) * count + _code_at(market_starts, markets, starts)
        begins = np.append(np.ones(min(len(codes), 1), dtype=np.bool_), codes[1:] != codes[:-1])
        self._starts, codes = starts[begins], codes[begins]
        self._lengths = np.diff(np.append(self._starts, table.num_rows))
        by_market = np.argsort(codes, kind="stable")
        present, first = np.unique(codes[by_market], return_index=True)
        self._pieces: dict[tuple[str, str], Rows] = {
            (venues.dictionary[code // count].as_py(), markets.dictionary[code % count].as_py()): pieces
            for code, pieces in zip(present.tolist(), np.split(by_market, first[1:]), strict=False)
        }

    def rows(self, key: tuple[str, str]) -> pa.Table:
        """A market's rows."""
        pieces = self._pieces.get(key)
        if pieces is None:
            return self._table.slice(0, 0)
        starts, lengths = self._starts[pieces], self._lengths[pieces]
        if len(pieces) == 1:
            return _in_order(self._table.slice(starts[0], lengths[0]))
        places = np.arange(lengths.sum()) + np.repeat(starts + lengths - np.cumsum(lengths), lengths)
        return _in_order(self._table.take(places))


def _in_order(rows: pa.Table) -> pa.Table:
    """One market's rows as the recorder made them, which they nearly always are already."""
    times, order = rows["recv_ns"].to_numpy(), rows["ordinal"].to_numpy()
    rising = (times[1:] > times[:-1]) | ((times[1:] == times[:-1]) & (order[1:] > order[:-1]))
    return rows if rising.all() else rows.take(np.lexsort((order, times)))


def _runs(column: pa.ChunkedArray) -> tuple["Rows", pa.DictionaryArray]:
    """Where runs of one word begin, and the word of each; neighbouring runs may have the same."""
    encoded = [(pc.run_end_encode(chunk, pa.int64()), len(chunk)) for chunk in column.chunks if len(chunk)]
    starts, before = [np.empty(0, dtype=np.intp)], 0
    for runs, length in encoded:
        starts += [np.array([before]), before + runs.run_ends.to_numpy()[:-1]]
        before += length
    words = pa.concat_arrays([pa.array([], column.type), *(runs.values for runs, _ in encoded)])
    return np.concatenate(starts), words.dictionary_encode()


def _code_at(starts: "Rows", words: pa.DictionaryArray, places: "Rows") -> "Rows":
    """The code of the word at each place."""
    codes: Rows = words.indices.to_numpy().astype(np.intp)[np.searchsorted(starts, places, side="right") - 1]
    return codes


def _connections(rows: pa.Table) -> list["Connection"]:
    """Where the connection changes along a market's rows."""
    starts, words = _runs(rows["connection_id"])
    return list(zip(rows["recv_ns"].to_numpy()[starts].tolist(), words.to_pylist(), strict=True))


Rows = npt.NDArray[np.intp]

Connection = tuple[int, str]
"""From this time on the market's rows came over this connection."""


def _book_rows(table: pa.Table) -> BookRows:
    return BookRows(
        table["recv_ns"].to_numpy(),
        _codes(table["kind"], _KINDS),
        _codes(table["side"], _SIDES),
        fixed_point(table["price"]),
        fixed_point(table["size"]),
    )


def _quote_rows(table: pa.Table) -> QuoteRows:
    bid, bid_size, ask, ask_size = (fixed_point(table[name]) for name in ("bid", "bid_size", "ask", "ask_size"))
    return QuoteRows(table["recv_ns"].to_numpy(), bid, bid_size, ask, ask_size, table["in_sync"].to_numpy())


def _from_first_snapshot(books: BookRows) -> BookRows:
    """What came before the first snapshot cannot be applied to anything."""
    clears = np.flatnonzero(books.kind == CLEAR)
    return books.take(slice(int(clears[0]) if clears.size else len(books.kind), None))


def _last_of_each_instant(quotes: QuoteRows) -> QuoteRows:
    times = quotes.recv_ns
    last = np.append(times[1:] != times[:-1], np.ones(min(len(times), 1), dtype=np.bool_))
    return quotes if last.all() else quotes.take(np.flatnonzero(last))


def _codes(column: pa.ChunkedArray, names: Mapping[str, int]) -> Codes:
    """Small integers for the words of a column; -1 for null."""
    encoded = _encoded(column)
    words = encoded.dictionary.to_pylist()
    unknown = [word for word in words if word not in names]
    if unknown:
        raise ValueError(f"book_events holds {unknown[0]!r} where one of {', '.join(names)} belongs")
    lookup = np.array([*(names[word] for word in words), -1], dtype=np.int8)
    indices = encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    return np.asarray(lookup[indices], dtype=np.int8)


def _opening_top(books: BookRows) -> QuoteRows | None:
    """The top of the first snapshot: an hour's opening snapshot is written without a quote."""
    if not books.recv_ns.size:
        return None
    first = books.take(slice(0, int(np.searchsorted(books.recv_ns, books.recv_ns[0], side="right"))))
    live = (first.kind != CLEAR) & (first.size != 0)

    def best(side: int, pick: np.ufunc) -> tuple[int, int]:
        at = np.flatnonzero(live & (first.side == side))
        if not at.size:
            return NULL, NULL
        price = int(pick.reduce(first.price[at]))
        return price, int(first.size[at][first.price[at] == price][-1])

    bid, bid_size, ask, ask_size = (
        np.array([value], dtype=np.int64) for value in (*best(BID, np.maximum), *best(ASK, np.minimum))
    )
    return QuoteRows(first.recv_ns[:1], bid, bid_size, ask, ask_size, np.array([True]))


def _concat(first: QuoteRows, second: QuoteRows) -> QuoteRows:
    return QuoteRows(
        np.concatenate((first.recv_ns, second.recv_ns)),
        np.concatenate((first.bid, second.bid)),
        np.concatenate((first.bid_size, second.bid_size)),
        np.concatenate((first.ask, second.ask)),
        np.concatenate((first.ask_size, second.ask_size)),
        np.concatenate((first.in_sync, second.in_sync)),
    )


def _gaps(yes: QuoteRows, no: QuoteRows) -> Flags:
    """Where buying the proposition at one top and its opposite at the other leaves something before fees."""
    positive: Flags = (yes.ask != NULL) & (no.bid != NULL) & (no.bid > yes.ask)
    return positive


def _complement(prices: Nanos) -> Nanos:
    return np.where(prices == NULL, NULL, ONE - prices)


# --- trust -------------------------------------------------------------------------------------------------

Gap = tuple[int, int, str]
"""(from_ns, to_ns or FOREVER, connection id)."""

Span = tuple[int, int, str]
"""(start_ns, end_ns, connection id): the time in which a connection is the market's source."""


def _gaps_by_market(table: pa.Table) -> dict[tuple[str, str], list[Gap]]:
    found: dict[tuple[str, str], list[Gap]] = {}
    for row in table.select(["venue", "market_id", "connection_id", "from_ns", "to_ns"]).to_pylist():
        to_ns = FOREVER if row["to_ns"] is None else row["to_ns"]
        found.setdefault((row["venue"], row["market_id"]), []).append((row["from_ns"], to_ns, row["connection_id"]))
    return found


def _connection_spans(changes: Iterable[Connection]) -> list[Span]:
    """Which connection a market's rows come from over time; the last one goes on."""
    spans: list[tuple[int, str]] = []
    for at, name in sorted(changes):
        if not spans or spans[-1][1] != name:
            spans.append((at, name))
    return [(at, end, name) for (at, name), (end, _) in pairwise([*spans, (FOREVER, "")])]


def _clip_gaps(gaps: Iterable[Gap], spans: Sequence[Span]) -> list[tuple[int, int]]:
    """A gap ends at the latest when another connection takes over: that one began with a snapshot of its own."""
    clipped = []
    for from_ns, to_ns, connection in gaps:
        takeover = min((at for at, _, name in spans if at > from_ns and name != connection), default=FOREVER)
        clipped.append((from_ns, min(to_ns, takeover)))
    return clipped


def _quote_doubts(quotes: QuoteRows, gaps: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Time in which the newest word on the book was a quote out of sync or an impossible top.

    A resync that leaves the top as it was writes no quote; the gap that it closes then is the newer word.
    """
    recoveries = np.array(sorted(end for _, end in gaps), dtype=np.int64)
    known_bid, known_ask = quotes.bid != NULL, quotes.ask != NULL
    crossed = known_bid & known_ask & (quotes.bid >= quotes.ask)
    negative = (known_bid & (quotes.bid_size < 0)) | (known_ask & (quotes.ask_size < 0))
    doubts = []
    for index in np.flatnonzero(~quotes.in_sync | crossed | negative).tolist():
        at = int(quotes.recv_ns[index])
        end = int(quotes.recv_ns[index + 1]) if index + 1 < len(quotes.recv_ns) else FOREVER
        if not (crossed[index] or negative[index]):
            after = int(np.searchsorted(recoveries, at))
            end = min([end, *recoveries[after : after + 1].tolist()])
        doubts.append((at, end))
    return doubts


class Polls:
    """When each polled connection answered, gathered from the rows received over it.

    One that ever pushed is no polled one: it asks by REST to resync only. So the rows of all its markets count, however
    few of them are evaluated at a time.
    """

    def __init__(self) -> None:
        self._answers: dict[str, set[int]] = {}
        self._pushed: set[str] = set()

    @classmethod
    def of(cls, data: MarketData) -> "Polls":
        """Of all that was received."""
        polls = cls()
        for rows in (data.quotes, data.book_events, data.raw_frames):
            polls.add(rows)
        return polls

    def add(self, rows: pa.Table) -> None:
        """Take further rows (``connection_id``, ``recv_ns``, ``source``)."""
        polled = pc.equal(rows["source"], "rest")
        self._pushed.update(rows["connection_id"].filter(pc.invert(polled)).unique().to_pylist())
        if not pc.any(polled).as_py():
            return
        # The books as they were when an hour began are written with its very first instant: no answer to anything.
        opening = pa.array(rows["recv_ns"].to_numpy() % _HOUR_NS == 0)
        answers = rows.select(["connection_id", "recv_ns"]).filter(pc.and_not(polled, opening))
        for row in answers.group_by("connection_id").aggregate([("recv_ns", "distinct")]).to_pylist():
            self._answers.setdefault(row["connection_id"], set()).update(row["recv_ns_distinct"])

    def answers(self) -> dict[str, list[int]]:
        """Receive times, ns, of the connections that never pushed."""
        return {name: sorted(times) for name, times in self._answers.items() if name not in self._pushed}


@dataclass(frozen=True)
class _Alive:
    """When a connection was up, and, for a polled one, when its last answer was young enough."""

    up: Intervals
    fresh: Intervals | None


def _alive_by_connection(data: MarketData, answers: Mapping[str, Nanos], settings: Settings) -> dict[str, _Alive]:
    """A connection is up between its session's two ends; a polled one is fresh for a while after each answer.

    A pushed connection proves itself by heartbeats that stand in no table: up is fresh, however quiet the book.
    """
    ups: dict[str, list[tuple[int, int]]] = {}
    for row in data.capture_sessions.select(["connection_id", "started_at", "ended_at"]).to_pylist():
        # Times are cut to microseconds: what came within the last one still came before the end.
        end = FOREVER if row["ended_at"] is None else ns_from_datetime(row["ended_at"]) + 1_000
        ups.setdefault(row["connection_id"], []).append((ns_from_datetime(row["started_at"]), end))
    max_age_ns = round(settings.max_quote_age_s * 1_000_000_000)
    return {
        name: _Alive(
            Intervals.of(intervals),
            Intervals.of((at, at + max_age_ns) for at in answers[name].tolist()) if name in answers else None,
        )
        for name, intervals in ups.items()
    }


def _connection_doubts(spans: Sequence[Span], alive: Mapping[str, _Alive]) -> tuple[Intervals, Intervals]:
    """(connection down, last poll too old) over the market's own succession of connections, from its first row on."""
    before = (PAST, spans[0][0] if spans else FOREVER)
    up, fresh = [before], [before]
    for start, end, name in spans:
        connection = alive.get(name)
        if connection is None:
            fresh.append((start, end))
            continue
        up += connection.up.clip(start, end)
        fresh += [(start, end)] if connection.fresh is None else connection.fresh.clip(start, end)
    return Intervals.of(up).complement(), Intervals.of(fresh).complement()


@dataclass(frozen=True, slots=True)
class _State:
    """How a market was listed from one time to another, ns."""

    from_ns: int
    to_ns: int
    status: MarketStatus
    open_at: datetime | None
    close_at: datetime | None
    over_at: datetime | None


def _states_by_market(history: pa.Table, wanted: pa.Array) -> dict[tuple[str, str], list[_State]]:
    """The states of markets in order of time, each until the next one, as the rows of ``market_history`` tell them."""
    found: dict[tuple[str, str], list[_State]] = {}
    rows = history.filter(pc.is_in(history["market_id"], value_set=wanted)).select(_STATE)
    for row in rows.sort_by("valid_from").to_pylist():
        states = found.setdefault((row["venue"], row["market_id"]), [])
        begins = ns_from_datetime(row["valid_from"])
        if states and states[-1].to_ns > begins:
            # An interrupted write leaves two open rows; the later one holds.
            states[-1] = replace(states[-1], to_ns=begins)
        ends = FOREVER if row["valid_to"] is None else ns_from_datetime(row["valid_to"])
        states.append(_state(begins, ends, MarketStatus(row["status"]), row))
    return found


def _state(from_ns: int, to_ns: int, status: MarketStatus, told: Mapping[str, Any]) -> _State:
    over_at = _event_end(told["venue"], told["expected_expiration_at"], told["occurrence_at"])
    return _State(from_ns, to_ns, status, told["open_at"], told["close_at"], over_at)


def _event_end(venue: str, expected: datetime | None, occurs: datetime | None) -> datetime | None:
    """When what a market asks about is over at the latest, None if nothing tells.

    Kalshi's ``expected_expiration_time`` is when it expects the outcome, of a game hours before its close. Polymarket's
    ``endDate`` is no such time (it is the scheduled close, often a bare midnight); ``gameStartTime`` is a start.
    """
    if venue == "kalshi" and expected is not None:
        return expected
    return None if occurs is None else occurs + GAME_SPAN


def _closed_times(market: Market, states: Sequence[_State]) -> dict[str, Intervals]:
    """When a market was not open, past its close, and past the end of what it asks about.

    Of a status that was told at a time, nothing is concluded for the time before: a market that is closed by then was
    open until its close, if that is known. A market that listings tell no more is not known to be open.
    """
    facts = {name: getattr(market, name) for name in ("venue", *_TIMES)}
    first = replace(states[0], from_ns=PAST, to_ns=states[0].from_ns) if states else None
    before = first or _state(PAST, FOREVER, market.status, facts)
    not_open: list[tuple[int, int]] = []
    closed: list[tuple[int, int]] = []
    over: list[tuple[int, int]] = []
    if before.status in _NEVER_OPEN or (before.status in _CLOSED and before.close_at is None):
        not_open.append((before.from_ns, before.to_ns))
    for state in (before, *states):
        start, end = state.from_ns, state.to_ns
        if state.open_at is not None:
            not_open.append((start, min(end, ns_from_datetime(state.open_at))))
        for times, since in ((closed, state.close_at), (over, state.over_at)):
            if since is not None:
                times.append((max(start, ns_from_datetime(since)), end))
    for state in states:
        if state.status in _NEVER_OPEN:
            not_open.append((state.from_ns, state.to_ns))
        elif state.status in _CLOSED:
            closed.append((state.from_ns, state.to_ns))
    not_open += [(one.to_ns, other.from_ns) for one, other in pairwise(states)]
    if states:
        not_open.append((states[-1].to_ns, FOREVER))
    found = {MARKET_NOT_OPEN: not_open, AFTER_CLOSE: closed, AFTER_EVENT: over}
    return {guard: Intervals.of(times) for guard, times in found.items()}
