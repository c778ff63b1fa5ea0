"""Which doubts of books last although no row tells of them yet.

A doubt gets its row of ``book_gaps`` when it ends. Before that it shows by what is missing: the connection was lost and
none of its successors has quoted, the polls have no answer any more, or a market's newest quote says that its book is
out of sync. A capture that is gone as a whole is no matter of this: its rows come when it is begun again.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import pyarrow.compute as pc

from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.lake_rows import chosen_rows
from arb_pipeline.storage.lake import Lake

__all__ = ["OpenDoubts", "open_doubts"]

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_CUT_NS: Final = 1_000
"""Ends of connections are cut to microseconds."""
_UNANSWERED_NS: Final = 90_000_000_000
"""Answers are committed some seconds after they came."""
_ENDED: Final = frozenset(
    {
        "end_of_recording",
        "failed",
        "killed",
        "max_seconds",
        "no market is left",
        "stopped",
        "superseded",
        "window_end",
    }
)
"""Why a connection ended that nobody wants any more; any other reason is how it was lost."""


@dataclass(frozen=True, slots=True)
class OpenDoubts:
    """Doubts of a venue's books that last.

    Attributes:
        since: (receive time in ns from which on, how many markets).
    """

    since: tuple[tuple[int, int], ...] = ()

    @property
    def markets(self) -> int:
        """How many markets are in doubt."""
        return sum(count for _, count in self.since)

    def market_ns(self, start_ns: int, end_ns: int) -> int:
        """Their market-time in [start, end)."""
        return sum(count * max(0, end_ns - max(begin, start_ns)) for begin, count in self.since)


def open_doubts(lake: Lake, venue: str, now: datetime) -> OpenDoubts:
    """What is in doubt now, by the rows of the last day."""
    return OpenDoubts((*_lost(lake, venue, now), *_unanswered(lake, venue, now), *_out_of_sync(lake, venue, now)))


def _lost(lake: Lake, venue: str, now: datetime) -> list[tuple[int, int]]:
    """By lost connection without a successor the markets whose gap has no row yet."""
    columns = ["connection_id", "ended_at", "stop_reason", "markets"]
    sessions = lake.read("capture_sessions", now - _DAY, now, venue, columns=columns).to_pylist()
    newest: dict[str, tuple[int, int]] = {}
    for row in sessions:
        if row["ended_at"] is not None:
            count = 0 if row["stop_reason"] in _ENDED else row["markets"]
            feed, ended_ns = _feed(row["connection_id"]), ns_from_datetime(row["ended_at"])
            newest[feed] = max(newest.get(feed, (0, 0)), (ended_ns, count))
    lost = {feed: found for feed, found in newest.items() if found[1]}
    if not lost:
        return []
    first = datetime_from_ns(min(ended_ns for ended_ns, _ in lost.values()))
    gaps = lake.read("book_gaps", first, now, venue, columns=["connection_id", "market_id", "from_ns", "to_ns"])
    closed: dict[str, set[str]] = defaultdict(set)
    for row in gaps.to_pylist():
        feed = _feed(row["connection_id"])
        ended_ns = lost.get(feed, (0, 0))[0]
        if row["from_ns"] <= ended_ns + _CUT_NS and (row["to_ns"] is None or row["to_ns"] >= ended_ns):
            closed[feed].add(row["market_id"])
    left = {feed: (ended_ns, count - len(closed[feed])) for feed, (ended_ns, count) in lost.items()}
    return [
        found for feed, found in left.items() if found[1] > 0 and not _is_succeeded(lake, venue, feed, found[0], now)
    ]


def _feed(connection_id: str) -> str:
    """What the connections of a feed have in common: each dial gives its name another number."""
    return connection_id.rsplit(".", 1)[0]


def _is_succeeded(lake: Lake, venue: str, feed: str, ended_ns: int, now: datetime) -> bool:
    """Whether another connection of the feed has quoted within the hour after the last one ended."""
    ended = datetime_from_ns(ended_ns)
    after = pc.field("recv_ns") > ended_ns + _CUT_NS
    rows = chosen_rows(
        lake, "quotes", lambda: lake.files("quotes", ended, min(ended + _HOUR, now), venue), ["connection_id"], after
    )
    return feed in {_feed(name) for name in pc.unique(rows["connection_id"]).to_pylist()}


def _unanswered(lake: Lake, venue: str, now: datetime) -> list[tuple[int, int]]:
    """By polled connection that has not ended and has no answer any more its markets."""
    quoted = lake.read("quotes", now - _DAY, now, venue, columns=["market_id", "connection_id"], source="rest")
    if not quoted.num_rows:
        return []
    markets: dict[str, set[str]] = defaultdict(set)
    for name, market in zip(quoted["connection_id"].to_pylist(), quoted["market_id"].to_pylist(), strict=True):
        markets[name].add(market)
    ended = lake.read("capture_sessions", now - _DAY, now, venue, columns=["connection_id", "ended_at"])
    over = set(ended.filter(pc.is_valid(ended["ended_at"]))["connection_id"].to_pylist())
    latest = ns_from_datetime(now) - _UNANSWERED_NS
    answered = _answered(lake, venue, now)
    return [
        (answered[name], len(ids))
        for name, ids in markets.items()
        if name not in over and name in answered and answered[name] < latest
    ]


def _answered(lake: Lake, venue: str, now: datetime) -> Mapping[str, int]:
    """By polled connection the receive time of its newest answer."""
    frames = lake.read("raw_frames", now - _DAY, now, venue, columns=["connection_id", "recv_ns"], source="rest")
    newest = frames.group_by("connection_id").aggregate([("recv_ns", "max")])
    return dict(zip(newest["connection_id"].to_pylist(), newest["recv_ns_max"].to_pylist(), strict=True))


def _out_of_sync(lake: Lake, venue: str, now: datetime) -> list[tuple[int, int]]:
    """Markets whose newest quote of the last hour says that the book is out of sync, and that no gap since tells of."""
    start = now - _HOUR
    bad = chosen_rows(
        lake,
        "quotes",
        lambda: lake.files("quotes", start, now, venue),
        ["market_id"],
        ~pc.field("in_sync") & (pc.field("recv_ns") >= ns_from_datetime(start)),
    )
    markets = pc.unique(bad["market_id"]).to_pylist()
    if not markets:
        return []
    columns = ["market_id", "connection_id", "recv_ns", "in_sync"]
    quotes = lake.read("quotes", start, now, venue, markets=markets, columns=columns)
    newest = {row["market_id"]: row for row in quotes.to_pylist()}
    gaps = lake.read("book_gaps", start, now, venue, markets=markets, columns=["market_id", "to_ns"]).to_pylist()
    ended = lake.read("capture_sessions", start, now, venue, columns=["connection_id", "ended_at"])
    over = set(ended.filter(pc.is_valid(ended["ended_at"]))["connection_id"].to_pylist())
    return [
        (row["recv_ns"], 1)
        for market, row in newest.items()
        if not row["in_sync"]
        and row["connection_id"] not in over
        and not any(gap["market_id"] == market and (gap["to_ns"] or row["recv_ns"]) >= row["recv_ns"] for gap in gaps)
    ]
