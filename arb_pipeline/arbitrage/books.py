"""Replay of a pair's two books: one state per instant at which one of them, or the trust in them, changed."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arb_pipeline.arbitrage.intervals import Nanos, union
from arb_pipeline.arbitrage.streams import ASK, BID, CLEAR, NOT_IN_SYNC, BookRows, PairStream
from arb_pipeline.model import OrderBook

__all__ = ["BookReplay", "PairState", "gap_states", "pair_states", "states_at"]

_AT_ONCE = 65_536
"""Rows that are Python integers at a time, and not numbers of an array."""
_LEAP = 512
"""Of more rows than this at once those are left out that make no difference to the book."""
_CLEARS, _NOTHING = 4, 6
"""What a merged row does: 2 x leg + side sets a level, 4 + leg clears a book, 6 nothing but to be an instant."""


@dataclass(slots=True)
class PairState:
    """Both books after everything received up to ``recv_ns``, in terms of the pair's proposition.

    The books are the replay's own and change with its next step; None before a book's first snapshot.

    Attributes:
        reasons: guards that do not hold (``guard:venue``); empty if both books are to be trusted.
    """

    recv_ns: int
    kalshi: OrderBook | None
    polymarket: OrderBook | None
    reasons: tuple[str, ...]


class BookReplay:
    """One book moving forward through its rows; None before its first snapshot."""

    def __init__(self, rows: BookRows) -> None:
        self._rows = rows
        # A list: reading numpy scalars one by one is several times slower.
        self._times = rows.recv_ns.tolist()
        self._next = 0
        self.book: OrderBook | None = None

    def advance(self, until_ns: int) -> bool:
        """Apply every row received up to and at ``until_ns``; whether there was one."""
        begin, end = self._next, bisect_right(self._times, until_ns, self._next)
        if begin == end:
            return False
        self._next = end
        rows = self._rows.take(slice(begin, end))
        if end - begin > _LEAP:
            rows = self._without_the_superseded(rows)
        book = self.book
        changes = (rows.kind.tolist(), rows.side.tolist(), rows.price.tolist(), rows.size.tolist())
        for kind, side, price, size in zip(*changes, strict=True):
            if kind == CLEAR:
                book = OrderBook()
            elif book is not None:
                (book.set_ask if side == ASK else book.set_bid)(price, size)
        self.book = book
        return True

    def _without_the_superseded(self, rows: BookRows) -> BookRows:
        """The last clearing, and of each level the last row after it: they make the same book."""
        last = len(rows.kind) - 1 - int(np.argmax(rows.kind[::-1] == CLEAR)) if (rows.kind == CLEAR).any() else 0
        rows = rows.take(slice(last, None))
        levels = np.where(rows.kind == CLEAR, -1, 2 * rows.price + rows.side)
        _, newest = np.unique(levels[::-1], return_index=True)
        return rows.take(np.sort(len(levels) - 1 - newest))


def pair_states(stream: PairStream, start_ns: int, end_ns: int) -> Iterator[PairState]:
    """States of both books at every instant in [start, end) at which a book or the trust in one changed.

    The state at ``start_ns`` itself, carried over from earlier rows, comes first.
    """
    instants = union(
        stream.kalshi.books.recv_ns, stream.polymarket.books.recv_ns, stream.trust_edges, np.array([start_ns])
    )
    yield from states_at(stream, instants[(instants >= start_ns) & (instants < end_ns)].tolist())


def gap_states(stream: PairStream, start_ns: int, end_ns: int) -> Iterator[PairState]:
    """The states of :func:`pair_states` that can tell of a candidate, or of the end of one.

    Where neither book's bid exceeds the other's ask there is none, and of such states only those follow with a book
    that is missing or impossible, or of which other guards fail than before. Net never exceeds gross: nothing else
    needs exact money.
    """
    books: list[OrderBook | None] = [None, None]
    changes: list[Callable[[int, int], None]] = [_no_book] * _CLEARS
    doubts = [f"{NOT_IN_SYNC}:{leg.market.venue}" for leg in stream.legs]
    times, actions, prices, sizes = _merged(stream, start_ns, end_ns)
    codes, meaning = stream.distrust(times)
    complete = np.append(times[1:] != times[:-1], np.ones(min(len(times), 1), dtype=np.bool_)) & (times >= start_ns)
    told, gapped, doubted = -1, False, False
    for begin in range(0, len(times), _AT_ONCE):
        columns = (times, codes, actions, prices, sizes, complete)
        rows = zip(*(column[begin : begin + _AT_ONCE].tolist() for column in columns), strict=True)
        for at_ns, code, action, price, size, ends in rows:
            if action < _CLEARS:
                changes[action](price, size)
            elif action < _NOTHING:
                leg = action - _CLEARS
                book = books[leg] = OrderBook()
                changes[2 * leg + BID], changes[2 * leg + ASK] = book.set_bid, book.set_ask
            if not ends:
                continue
            kalshi, polymarket = books
            if kalshi is not None and polymarket is not None:
                bid, ask = kalshi.best_bid, kalshi.best_ask
                other_bid, other_ask = polymarket.best_bid, polymarket.best_ask
                gap = (bid is not None and other_ask is not None and bid > other_ask) or (
                    other_bid is not None and ask is not None and other_bid > ask
                )
                impossible = (
                    (bid is not None and ask is not None and bid >= ask)
                    or (other_bid is not None and other_ask is not None and other_bid >= other_ask)
                    or kalshi.negative_levels > 0
                    or polymarket.negative_levels > 0
                )
            else:
                gap, impossible = False, True
            if gap or gapped or impossible or doubted or code != told:
                yield _state(at_ns, kalshi, polymarket, meaning[code], doubts)
            told, gapped, doubted = code, gap, impossible


def states_at(stream: PairStream, instants: Sequence[int]) -> Iterator[PairState]:
    """States of both books at these instants (ns, rising): each holds what was received up to and at it."""
    codes, meaning = stream.distrust(np.array(instants, dtype=np.int64))
    doubts = [f"{NOT_IN_SYNC}:{leg.market.venue}" for leg in stream.legs]
    kalshi, polymarket = BookReplay(stream.kalshi.books), BookReplay(stream.polymarket.books)
    for instant, code in zip(instants, codes.tolist(), strict=True):
        kalshi.advance(instant)
        polymarket.advance(instant)
        yield _state(instant, kalshi.book, polymarket.book, meaning[code], doubts)


def _state(
    at_ns: int, kalshi: OrderBook | None, polymarket: OrderBook | None, reasons: tuple[str, ...], doubts: Sequence[str]
) -> PairState:
    for doubt, book in zip(doubts, (kalshi, polymarket), strict=True):
        if book is not None and (book.crossed or book.negative_levels) and doubt not in reasons:
            reasons = (*reasons, doubt)
    return PairState(at_ns, kalshi, polymarket, reasons)


def _no_book(_price: int, _size: int) -> None:
    """A change before the first snapshot has nothing to be applied to."""


def _merged(stream: PairStream, start_ns: int, end_ns: int) -> tuple[Nanos, npt.NDArray[np.int8], Nanos, Nanos]:
    """Both books' rows before ``end_ns`` by time, with the start and the instants at which the trust changes."""
    edges = stream.trust_edges
    instants = np.append(edges[(edges >= start_ns) & (edges < end_ns)], start_ns)
    books = [leg.books for leg in stream.legs]
    none = np.zeros(len(instants), dtype=np.int64)
    times = np.concatenate([*(book.recv_ns for book in books), instants])
    actions = np.concatenate(
        [
            *(
                np.where(book.kind == CLEAR, _CLEARS + leg, 2 * leg + book.side).astype(np.int8)
                for leg, book in enumerate(books)
            ),
            np.full(len(instants), _NOTHING, dtype=np.int8),
        ]
    )
    prices = np.concatenate([*(book.price for book in books), none])
    sizes = np.concatenate([*(book.size for book in books), none])
    order = np.argsort(times, kind="stable")
    order = order[: np.searchsorted(times[order], end_ns)]
    return times[order], actions[order], prices[order], sizes[order]
