"""What each connection knew of a market's book within an hour, and when that is to be trusted.

The rule is that of :func:`arb_pipeline.storage.books.book_at`, over arrays: rows of several connections are never
mixed, and of several books that are to be trusted the one heard of last is in charge. A connection's book is to be
trusted from its first snapshot of the hour on, but for the time

- of a gap of its own, or of another connection's that had begun by then: it took over from that one, and is to be
  trusted when the gap ends,
- after the end of the connection; while no end is told, after the newest row that it gave,
- from a quote out of sync up to the next one or the end of a gap: a doubt gets its row of ``book_gaps`` only when it
  ends,
- in which it is crossed or has a negative size, which the book itself tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.storage.arrow import Ints, Mask
from arb_pipeline.storage.tops import FOREVER, HourRows, Spans, by_market, prices

__all__ = ["Events", "Levels", "Line", "lines_of"]

Levels: TypeAlias = tuple[Ints, Ints]
"""Keys of price levels, rising, and their sizes, 1e-6 contracts."""

Gap: TypeAlias = tuple[int, int, str]
"""(from_ns, to_ns or FOREVER, connection)."""

_CUT_NS: Final = 1_000
"""Ends of connections are cut to microseconds: what came within the last one still came before the end."""


@dataclass(frozen=True)
class Events:
    """Changes of a book in order.

    Attributes:
        times, ordinals: of receipt, ns, and the recorder's order.
        clear: rows with which a snapshot begins; they have no level.
        key: twice the price (1e-4 dollars), plus one for an ask.
        size: 1e-6 contracts.
    """

    times: Ints
    ordinals: Ints
    clear: Mask
    key: Ints
    size: Ints

    @classmethod
    def of(cls, rows: pa.Table) -> "Events":
        """Of rows of ``book_events``."""
        ask = pc.fill_null(pc.equal(rows["side"], "ask"), pa.scalar(False)).to_numpy()
        clear = pc.equal(rows["kind"], "clear").to_numpy()
        price = np.where(clear, 0, prices(rows["price"]))
        times, ordinals = (rows[name].to_numpy() for name in ("recv_ns", "ordinal"))
        return cls(times, ordinals, clear, 2 * price + ask, prices(rows["size"]))

    def part(self, at: slice | npt.NDArray[np.intp]) -> "Events":
        """Some of the rows."""
        return Events(self.times[at], self.ordinals[at], self.clear[at], self.key[at], self.size[at])

    def levels(self) -> Levels | None:
        """The book after all of them; None without a snapshot."""
        begins = np.flatnonzero(self.clear)
        if not len(begins):
            return None
        key, size = self.key[begins[-1] + 1 :][::-1], self.size[begins[-1] + 1 :][::-1]
        keys, newest = np.unique(key, return_index=True)
        there = size[newest] != 0
        return keys[there], size[newest][there]


@dataclass(frozen=True)
class Line:
    """One connection's book of one market: its rows from the first snapshot on, and when it is to be trusted.

    ``known`` does not tell whether the book is crossed or has a negative size.
    """

    events: Events
    known: Spans


def lines_of(hour: HourRows, markets: Sequence[str]) -> list[list[Line]]:
    """For each market the books that connections had of it, of those that had a snapshot within the hour."""
    events = Events.of(hour.book_events)
    encoded = hour.book_events["connection_id"].combine_chunks().dictionary_encode()
    names: list[str] = encoded.dictionary.to_pylist()
    codes: Ints = encoded.indices.to_numpy(zero_copy_only=False)
    over, gaps = _over(hour), _gaps(hour.book_gaps)
    found = []
    slices = zip(markets, by_market(hour.book_events, markets), by_market(hour.quotes, markets), strict=True)
    for market, at, quoted in slices:
        quotes = hour.quotes.slice(quoted.start, quoted.stop - quoted.start)
        lines = []
        for code in np.unique(codes[at]).tolist():
            own = at.start + np.flatnonzero(codes[at] == code)
            clears = np.flatnonzero(events.clear[own])
            if len(clears):
                line = events.part(own[clears[0] :])
                trust = _Trust(names[code], int(line.times[0]), gaps.get(market, []))
                lines.append(Line(line, trust.known(hour, over, quotes)))
        found.append(lines)
    return found


def _over(hour: HourRows) -> dict[str, int]:
    """The first instant after the end of each connection whose end is told, ns."""
    sessions = hour.capture_sessions
    ends = zip(sessions["connection_id"].to_pylist(), sessions["ended_at"].to_pylist(), strict=True)
    return {name: ns_from_datetime(ended) + _CUT_NS for name, ended in ends if ended is not None}


def _gaps(rows: pa.Table) -> dict[str, list[Gap]]:
    found: dict[str, list[Gap]] = {}
    columns = (rows[name].to_pylist() for name in ("market_id", "from_ns", "to_ns", "connection_id"))
    for market, from_ns, to_ns, name in zip(*columns, strict=True):
        found.setdefault(market, []).append((from_ns, FOREVER if to_ns is None else to_ns, name))
    return found


@dataclass(frozen=True)
class _Trust:
    """Whose book, when its first snapshot of the hour came, and the gaps of its market."""

    connection: str
    first_ns: int
    gaps: Sequence[Gap]

    def known(self, hour: HourRows, over: dict[str, int], quotes: pa.Table) -> Spans:
        """When the book is to be trusted; ``quotes`` are its market's."""
        doubts = [(begin, end) for begin, end, of in self.gaps if of == self.connection or self.first_ns >= begin]
        ended = over.get(self.connection)
        doubts.append((hour.newest[self.connection] + 1 if ended is None else ended, FOREVER))
        doubts += self._out_of_sync(quotes)
        starts, ends = (np.array(side, dtype=np.int64) for side in zip(*doubts, strict=True))
        return Spans.outside(starts, ends, self.first_ns, hour.end_ns)

    def _out_of_sync(self, quotes: pa.Table) -> list[tuple[int, int]]:
        own = quotes.filter(pc.equal(quotes["connection_id"], self.connection))
        times, in_sync = own["recv_ns"].to_numpy(), own["in_sync"].to_numpy()
        last = np.append(times[1:] != times[:-1], np.ones(min(len(times), 1), dtype=np.bool_))
        last &= times >= self.first_ns
        times, in_sync = times[last], in_sync[last]
        recoveries = np.array(sorted(end for _, end, _ in self.gaps), dtype=np.int64)
        bad = np.flatnonzero(~in_sync)
        following = np.append(times, FOREVER)[bad + 1]
        recovered = np.append(recoveries, FOREVER)[np.searchsorted(recoveries, times[bad], "left")]
        return list(zip(times[bad].tolist(), np.minimum(following, recovered).tolist(), strict=True))
