"""Replay of a pair's two books: one state per instant at which one of them, or the trust in them, changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from arb_pipeline.arbitrage.intervals import union
from arb_pipeline.arbitrage.streams import ASK, CLEAR, NOT_IN_SYNC, BookRows, PairStream
from arb_pipeline.model import OrderBook

__all__ = ["PairState", "pair_states", "states_at"]


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


class _Replay:
    """One book moving forward through its rows."""

    def __init__(self, rows: BookRows) -> None:
        # Lists: reading numpy scalars one by one is several times slower.
        self._times = rows.recv_ns.tolist()
        self._kinds = rows.kind.tolist()
        self._sides = rows.side.tolist()
        self._prices = rows.price.tolist()
        self._sizes = rows.size.tolist()
        self._next = 0
        self.book: OrderBook | None = None

    def advance(self, until_ns: int) -> None:
        """Apply every row received up to and at ``until_ns``."""
        times, at, book = self._times, self._next, self.book
        while at < len(times) and times[at] <= until_ns:
            if self._kinds[at] == CLEAR:
                book = OrderBook()
            elif book is not None:
                change = book.set_ask if self._sides[at] == ASK else book.set_bid
                change(self._prices[at], self._sizes[at])
            at += 1
        self._next, self.book = at, book


def pair_states(stream: PairStream, start_ns: int, end_ns: int) -> Iterator[PairState]:
    """States of both books at every instant in [start, end) at which a book or the trust in one changed.

    The state at ``start_ns`` itself, carried over from earlier rows, comes first.
    """
    instants = union(
        stream.kalshi.books.recv_ns, stream.polymarket.books.recv_ns, stream.trust_edges, np.array([start_ns])
    )
    yield from states_at(stream, instants[(instants >= start_ns) & (instants < end_ns)].tolist())


def states_at(stream: PairStream, instants: Sequence[int]) -> Iterator[PairState]:
    """States of both books at these instants (ns, rising): each holds what was received up to and at it."""
    codes, meaning = stream.distrust(np.array(instants, dtype=np.int64))
    kalshi, polymarket = _Replay(stream.kalshi.books), _Replay(stream.polymarket.books)
    for instant, code in zip(instants, codes.tolist(), strict=True):
        kalshi.advance(instant)
        polymarket.advance(instant)
        reasons = meaning[code]
        for leg, book in zip(stream.legs, (kalshi.book, polymarket.book), strict=True):
            doubt = f"{NOT_IN_SYNC}:{leg.market.venue}"
            if book is not None and (book.crossed or book.negative_levels) and doubt not in reasons:
                reasons = (*reasons, doubt)
        yield PairState(instant, kalshi.book, polymarket.book, reasons)
