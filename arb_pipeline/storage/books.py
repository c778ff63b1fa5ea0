"""``arb_pipeline.book_at``: the full book of a market at any past instant, rebuilt from one hourly file.

``book_events`` begins every hour, and every resync, with a ``clear`` and a snapshot of each book, so that the rows of
one hour up to an instant hold the book at that instant: the newest snapshot of a connection and the changes after it.
Rows of several connections are never mixed. Whether the book could be trusted is told by ``book_gaps``, by the ends of
the connections (``capture_sessions``), and by the book itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.errors import ArbError
from arb_pipeline.storage.arrow import Ints, fixed_point
from arb_pipeline.storage.lake import HOUR_NS, Lake
from arb_pipeline.storage.reader import LakeName, Time, instant_ns, open_lake
from arb_pipeline.units import format_plain, price_decimal, size_decimal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BookAt", "BookLevel", "BookUnknownError", "book_at"]

_EVENTS = "book_events"
_COLUMNS = ("connection_id", "recv_ns", "ordinal", "venue_ns", "seq", "kind", "side", "price", "size", "source")
_QUOTED = ("connection_id", "recv_ns", "in_sync")
_NAMES = ("venue", "market_id", "slug", "yes_token_id", "no_token_id")
_ALIVE = ("raw_frames", "book_events", "tickers", "trades", "quotes")
"""Tables whose rows show that a connection was up."""
_FOREVER = 2**63 - 1
_MS = 1_000_000
_SIDE = 1 << 40
"""Above every price: side and price in one integer."""
_FEW = 5


class BookUnknownError(ArbError):
    """The book at an instant is not known, or not to be trusted.

    Attributes:
        cause: why: the cause of a row of ``book_gaps``, ``crossed_book``, ``negative_size``, ``not_in_sync``,
            ``connection_ended``, ``not_captured_yet`` or ``no_snapshot``.
        from_ns, to_ns: the interval in which that holds, ns since the epoch; None where it is open.
    """

    def __init__(self, message: str, cause: str, from_ns: int | None = None, to_ns: int | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.from_ns = from_ns
        self.to_ns = to_ns


class BookLevel(NamedTuple):
    """Contracts resting at a YES price, dollars; both exact."""

    price: Decimal
    size: Decimal


@dataclass(frozen=True, slots=True)
class BookAt:
    """A market's book, in YES terms, after everything received up to and at an instant.

    Attributes:
        at_ns: the instant asked for, ns since the epoch.
        bids, asks: levels, best first.
        recv_ns: receive time of the newest row that the book is made of; venue_ns, seq and source are that row's.
        in_sync: whether the book is to be trusted.
        doubt: why not, in words; empty if it is.
    """

    venue: str
    market_id: str
    at_ns: int
    bids: tuple[BookLevel, ...]
    asks: tuple[BookLevel, ...]
    recv_ns: int
    venue_ns: int | None
    seq: int | None
    source: str
    connection_id: str
    in_sync: bool
    doubt: str = ""

    @property
    def best_bid(self) -> BookLevel | None:
        """The highest bid; None on an empty side."""
        return self.bids[0] if self.bids else None

    @property
    def best_ask(self) -> BookLevel | None:
        """The lowest ask; None on an empty side."""
        return self.asks[0] if self.asks else None

    @property
    def spread(self) -> Decimal | None:
        """Best ask less best bid, dollars; None if a side is empty."""
        return self.asks[0].price - self.bids[0].price if self.asks and self.bids else None

    @property
    def mid(self) -> Decimal | None:
        """Halfway between best bid and best ask, dollars; None if a side is empty."""
        return (self.asks[0].price + self.bids[0].price) / 2 if self.asks and self.bids else None

    def to_pandas(self, depth: int | None = None, *, exact: bool = False) -> "pd.DataFrame":
        """A row per level, best first, bids before asks: side, level (1 is the best), price, size, total.

        ``total`` is the size down to that level. Numbers are float64; ``exact=True`` gives Decimal objects.
        """
        import pandas as pd  # noqa: PLC0415 - it takes a second to load

        rows: list[tuple[str, int, Decimal, Decimal, Decimal]] = []
        for side, levels in (("bid", self.bids), ("ask", self.asks)):
            total = Decimal(0)
            for number, level in enumerate(levels[:depth], 1):
                total += level.size
                rows.append((side, number, level.price, level.size, total))
        table = pd.DataFrame(rows, columns=["side", "level", "price", "size", "total"])
        numbers = ["price", "size", "total"]
        return table if exact else table.astype(dict.fromkeys(numbers, "float64"))

    def document(self, depth: int | None = None) -> dict[str, Any]:
        """Plain values for JSON; prices are dollars, sizes contracts, as exact text."""
        return {
            "venue": self.venue,
            "market_id": self.market_id,
            "at": iso(self.at_ns),
            "at_ns": self.at_ns,
            "in_sync": self.in_sync,
            "doubt": self.doubt,
            "recv_ns": self.recv_ns,
            "venue_ns": self.venue_ns,
            "seq": self.seq,
            "source": self.source,
            "connection_id": self.connection_id,
            "bids": [[plain(level.price), plain(level.size)] for level in self.bids[:depth]],
            "asks": [[plain(level.price), plain(level.size)] for level in self.asks[:depth]],
        }


def book_at(
    market: str,
    at: Time,
    *,
    venue: str | None = None,
    lake: LakeName = None,
    allow_untrusted: bool = False,
) -> BookAt:
    """The full book of a market as it was known at an instant: after all that was received up to and at it.

    Where several connections carried the market (two captures, a hand-over), the book of one of them is given: one
    to be trusted before others, then the one heard of last. A polled book (``source`` is ``rest``) is as old as
    ``recv_ns`` says.

    Args:
        market: Kalshi ticker, Polymarket condition id, slug, or token id (of either outcome; the book is the market's,
            in YES terms).
        at: a datetime with a time zone, ISO text with an offset, or nanoseconds since the epoch.
        venue: tells markets of the same name apart; None: either.
        lake: a folder, an fsspec URL or a Lake; None: ``ARB_LAKE``.
        allow_untrusted: give the book as it stood in the rows, with ``in_sync`` False and ``doubt``, also where it was
            not to be trusted.

    Raises:
        BookUnknownError: if the book was not in sync (naming the cause and its interval), or nothing is known.
        ReadError: if the time or the lake is none.
        ArbError: if there is no such market, or several.
    """
    store, at_ns = open_lake(lake), instant_ns(at, "at")
    hour = at_ns - at_ns % HOUR_NS
    found = _find(store, market, venue, hour)
    known = [one for one in found if one[2] is not None] or found
    if len(known) > 1:
        names = "; ".join(f"{name} {market_id}" for name, market_id, _ in known[:_FEW])
        raise ArbError(f"{market!r} is the name of {len(known)} markets ({names}): give the id of one, and its venue")
    name, market_id, hourly = known[0]
    books = [] if hourly is None else hourly.books(at_ns)
    if not books:
        raise _nothing(name, market_id, at_ns, hourly)
    judged = [(one, _doubt(store, hourly, one, at_ns)) for one in books if hourly is not None]
    best, doubt = max(judged, key=lambda pair: (pair[1] is None, pair[0].recv_ns, pair[0].ordinal))
    if doubt is not None and not allow_untrusted:
        raise BookUnknownError(
            f"the book of {market_id} at {iso(at_ns)} is not to be trusted: {doubt.words}; allow_untrusted=True "
            "(--allow-untrusted) gives it all the same",
            doubt.cause,
            doubt.from_ns,
            doubt.to_ns,
        )
    return best.book(name, market_id, at_ns, doubt)


def iso(ns: int) -> str:
    """An instant in UTC with its nanoseconds."""
    return f"{datetime_from_ns(ns):%Y-%m-%dT%H:%M:%S}.{ns % 1_000_000_000:09d}Z"


def plain(number: Decimal) -> str:
    """A number without trailing zeros or exponent."""
    return format_plain(int(number.scaleb(6)), 6)


# --- what the lake holds -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Why a book is not to be trusted, and in which interval."""

    cause: str
    words: str
    from_ns: int | None = None
    to_ns: int | None = None


@dataclass(frozen=True, slots=True)
class _Book:
    """What one connection knew: side and price to size, and the newest row."""

    connection_id: str
    levels: dict[int, int]
    first_ns: int
    """When the connection's first snapshot of the hour came."""
    recv_ns: int
    ordinal: int
    venue_ns: int | None
    seq: int | None
    source: str

    @property
    def bids(self) -> list[tuple[int, int]]:
        """Best first."""
        return sorted(((key, size) for key, size in self.levels.items() if key < _SIDE), reverse=True)

    @property
    def asks(self) -> list[tuple[int, int]]:
        """Best first."""
        return sorted((key - _SIDE, size) for key, size in self.levels.items() if key >= _SIDE)

    def book(self, venue: str, market_id: str, at_ns: int, doubt: _Doubt | None) -> BookAt:
        """The same for people."""
        bids, asks = (
            tuple(BookLevel(price_decimal(price), size_decimal(size)) for price, size in levels)
            for levels in (self.bids, self.asks)
        )
        return BookAt(
            venue=venue,
            market_id=market_id,
            at_ns=at_ns,
            bids=bids,
            asks=asks,
            recv_ns=self.recv_ns,
            venue_ns=self.venue_ns,
            seq=self.seq,
            source=self.source,
            connection_id=self.connection_id,
            in_sync=doubt is None,
            doubt="" if doubt is None else doubt.words,
        )


class _Hour:
    """One market's rows of one hour, in the recorder's order, with what tells whether they are to be trusted."""

    def __init__(  # noqa: PLR0917 - the tables that tell of a book
        self, venue: str, market_id: str, events: pa.Table, quotes: pa.Table, gaps: pa.Table, sessions: pa.Table
    ) -> None:
        self.venue = venue
        self.market_id = market_id
        self._rows = events
        self._recv_ns: Ints = events["recv_ns"].to_numpy()
        self._ordinals: Ints = events["ordinal"].to_numpy()
        connections = events["connection_id"].combine_chunks().dictionary_encode()
        self._names: list[str] = connections.dictionary.to_pylist()
        self._connections: Ints = connections.indices.to_numpy(zero_copy_only=False)
        self._clear: npt.NDArray[np.bool_] = pc.equal(events["kind"], "clear").to_numpy()
        ask = pc.equal(events["side"], "ask").fill_null(fill_value=False).to_numpy()
        self._keys: Ints = fixed_point(events["price"])[0] + ask.astype(np.int64) * _SIDE
        self._sizes: Ints = fixed_point(events["size"])[0]
        self._quotes = quotes
        self._quoted_ns: Ints = quotes["recv_ns"].to_numpy()
        self.gaps: list[dict[str, Any]] = gaps.to_pylist()
        self.ended: dict[str, datetime | None] = {row["connection_id"]: row["ended_at"] for row in sessions.to_pylist()}

    @property
    def first_ns(self) -> int:
        """Receive time of the first row."""
        return int(self._recv_ns[0])

    def last_quote(self, book: _Book, at_ns: int) -> tuple[int, bool] | None:
        """When the connection's newest quote since its first snapshot came, and whether it was in sync."""
        begin, end = np.searchsorted(self._quoted_ns, (book.first_ns, at_ns + 1)).tolist()
        rows = self._quotes.slice(begin, end - begin)
        own = rows.filter(pc.equal(rows["connection_id"], book.connection_id))
        return (own["recv_ns"][-1].as_py(), own["in_sync"][-1].as_py()) if own.num_rows else None

    def books(self, at_ns: int) -> list[_Book]:
        """What each connection knew at an instant, of those that had a snapshot by then."""
        until = int(np.searchsorted(self._recv_ns, at_ns, side="right"))
        found = []
        for code, name in enumerate(self._names):
            own = np.flatnonzero(self._connections[:until] == code)
            clears = np.flatnonzero(self._clear[own])
            if clears.size:
                found.append(self._fold(name, own[clears[0]], own[clears[-1] :]))
        return found

    def _fold(self, name: str, first: np.intp, own: npt.NDArray[np.intp]) -> _Book:
        """The book that a connection's rows from its newest ``clear`` on make."""
        changes = own[~self._clear[own]]
        # Sizes are absolute: of each level the last word counts.
        keys, last = np.unique(self._keys[changes][::-1], return_index=True)
        sizes = self._sizes[changes][::-1][last]
        levels = {key: size for key, size in zip(keys.tolist(), sizes.tolist(), strict=True) if size}
        newest = int(own[-1])
        row = self._rows.slice(newest, 1).select(["venue_ns", "seq", "source"]).to_pylist()[0]
        return _Book(
            connection_id=name,
            levels=levels,
            first_ns=int(self._recv_ns[first]),
            recv_ns=int(self._recv_ns[newest]),
            ordinal=int(self._ordinals[newest]),
            **row,
        )


def _load(lake: Lake, venue: str, market_id: str, hour: int) -> _Hour | None:
    """A market's hour; None if it has no rows in it."""
    files = [
        tuple(file.path for file in lake.files(table, hour - _MS, hour + HOUR_NS, venue))
        for table in (_EVENTS, "quotes", "book_gaps", "capture_sessions")
    ]
    return _cached(lake.root, venue, market_id, hour, tuple(files)) if files[0] else None


@lru_cache(maxsize=8)
def _cached(root: str, venue: str, market_id: str, hour: int, files: object) -> _Hour | None:
    """Names of files are digests of their content: the same names (``files``) are the same rows."""
    del files
    lake, until = Lake(root), hour + HOUR_NS
    events = lake.read(_EVENTS, hour, until, venue, markets=[market_id], columns=_COLUMNS)
    if not events.num_rows:
        return None
    quotes = lake.read("quotes", hour, until, venue, markets=[market_id], columns=_QUOTED)
    gaps = lake.read("book_gaps", hour, until, venue, markets=[market_id])
    # One that ended just before may have rows within, since its end is cut to microseconds.
    sessions = lake.read("capture_sessions", hour - _MS, until, venue, columns=["connection_id", "ended_at"])
    return _Hour(venue, market_id, events, quotes, gaps, sessions)


# --- trust -------------------------------------------------------------------------------------------------


def _doubt(lake: Lake, hourly: _Hour, book: _Book, at_ns: int) -> _Doubt | None:
    """Why a connection's book is not to be trusted at an instant; None if it is."""
    for gap in hourly.gaps:
        to_ns = _FOREVER if gap["to_ns"] is None else gap["to_ns"]
        # A doubt of another connection is this one's too if it took over from that one: it has begun since.
        own = gap["connection_id"] == book.connection_id or book.first_ns >= gap["from_ns"]
        if own and gap["from_ns"] <= at_ns < to_ns:
            return _of_gap(gap)
    bids, asks = book.bids, book.asks
    if any(size < 0 for size in book.levels.values()):
        return _Doubt("negative_size", f"a level has a negative size since {iso(book.recv_ns)}", book.recv_ns)
    if bids and asks and bids[0][0] >= asks[0][0]:
        words = (
            f"crossed since {iso(book.recv_ns)} at the latest, bid {plain(price_decimal(bids[0][0]))} at or above ask"
        )
        return _Doubt("crossed_book", f"{words} {plain(price_decimal(asks[0][0]))}", book.recv_ns)
    return _ended(lake, hourly, book, at_ns) or _last_quote(hourly, book, at_ns)


def _of_gap(gap: dict[str, Any]) -> _Doubt:
    until = "and lasts" if gap["to_ns"] is None else f"to {iso(gap['to_ns'])}, ended by {gap['recovery']}"
    return _Doubt(gap["cause"], f"{gap['cause']} from {iso(gap['from_ns'])} {until}", gap["from_ns"], gap["to_ns"])


def _ended(lake: Lake, hourly: _Hour, book: _Book, at_ns: int) -> _Doubt | None:
    """Whether a connection was up at an instant. What ended says so; what runs shows it by a later row."""
    ended_at = hourly.ended.get(book.connection_id)
    if ended_at is not None:
        # Times are cut to microseconds: what came within the last one still came before the end.
        end_ns = ns_from_datetime(ended_at) + 1_000
        if at_ns < end_ns:
            return None
        return _Doubt("connection_ended", f"its connection {book.connection_id} ended at {iso(end_ns)}", end_ns)
    hour_end = at_ns - at_ns % HOUR_NS + HOUR_NS
    for begin, end in ((at_ns, hour_end), (hour_end, hour_end + HOUR_NS)):
        for table in _ALIVE:
            later = lake.read(table, begin, end, hourly.venue, columns=["connection_id"])
            if pc.any(pc.equal(later["connection_id"], book.connection_id)).as_py():
                return None
    return _Doubt(
        "not_captured_yet", f"nothing received on {book.connection_id} at or after it is in the lake yet", book.recv_ns
    )


def _last_quote(hourly: _Hour, book: _Book, at_ns: int) -> _Doubt | None:
    """What the newest quote says: a doubt gets its row of ``book_gaps`` only when it ends."""
    newest = hourly.last_quote(book, at_ns)
    if newest is None or newest[1]:
        return None
    since = newest[0]
    # A resync that leaves the top as it was writes no quote.
    if any(gap["to_ns"] is not None and since <= gap["to_ns"] <= at_ns for gap in hourly.gaps):
        return None
    return _Doubt("not_in_sync", f"not in sync at the last quote, {iso(since)}", since)


def _nothing(venue: str, market_id: str, at_ns: int, hourly: _Hour | None) -> BookUnknownError:
    """The error where there is no book at all."""
    hour = at_ns - at_ns % HOUR_NS
    head = f"nothing is known of the book of {market_id} ({venue}) at {iso(at_ns)}"
    if hourly is None:
        words = f"book_events has no row of it from {iso(hour)} to {iso(hour + HOUR_NS)}"
        return BookUnknownError(f"{head}: {words}", "no_snapshot", hour, hour + HOUR_NS)
    for gap in hourly.gaps:
        if gap["from_ns"] <= at_ns < (_FOREVER if gap["to_ns"] is None else gap["to_ns"]):
            doubt = _of_gap(gap)
            return BookUnknownError(f"{head}: {doubt.words}", doubt.cause, doubt.from_ns, doubt.to_ns)
    words = f"its first snapshot of the hour came at {iso(hourly.first_ns)}"
    return BookUnknownError(f"{head}: {words}", "no_snapshot", hour, hourly.first_ns)


# --- names -------------------------------------------------------------------------------------------------


def _find(lake: Lake, name: str, venue: str | None, hour: int) -> list[tuple[str, str, _Hour | None]]:
    """(venue, market id, its hour) of what a name means: by the hour's rows, the catalogue of the day, then any day's.

    Raises:
        ArbError: if nothing bears the name.
    """
    text = name.strip()
    venues = sorted({file.partition.venue or "" for file in lake.files(_EVENTS, hour, hour + HOUR_NS, venue)})
    ids = dict.fromkeys((text, text.upper()))
    loaded = [(one, market_id, _load(lake, one, market_id, hour)) for one in venues for market_id in ids]
    if held := [one for one in loaded if one[2] is not None]:
        return held
    for start, end in ((hour, hour + HOUR_NS), (None, None)):
        listed = lake.read("markets", start, end, venue, columns=list(_NAMES))
        if found := _distinct(listed.filter(_called(listed, text))):
            return [(one, market_id, _load(lake, one, market_id, hour)) for one, market_id in found]
    where = "" if venue is None else f" of {venue}"
    raise ArbError(
        f"no market{where} is called {name!r} in this lake: give a Kalshi ticker, a Polymarket condition id, slug or "
        "token id; the table markets lists them"
    )


def _called(listed: pa.Table, text: str) -> pa.ChunkedArray:
    """Which markets a text names."""
    matches = pc.equal(listed["market_id"], text)
    for column, word in (
        ("market_id", text.upper()),
        ("slug", text.lower()),
        ("yes_token_id", text),
        ("no_token_id", text),
    ):
        matches = pc.or_(matches, pc.and_(pc.equal(listed[column], word), pc.not_equal(listed[column], "")))
    return matches


def _distinct(rows: pa.Table) -> list[tuple[str, str]]:
    grouped: Sequence[dict[str, str]] = (
        rows.select(["venue", "market_id"]).group_by(["venue", "market_id"]).aggregate([]).to_pylist()
    )
    return sorted((row["venue"], row["market_id"]) for row in grouped)
