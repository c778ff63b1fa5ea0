"""What a capture left in its lake, asked in ways that stay small for millions of rows."""

from collections.abc import Mapping
from typing import Any

import duckdb

from arb_pipeline.storage import Lake
from arb_pipeline.storage.query import connect
from arb_pipeline.tables import TABLES

__all__ = ["Book", "Captured"]

Book = tuple[dict[int, int], dict[int, int]]
"""Bids and asks: price in 1e-4 dollars to size in 1e-6 contracts."""

_REPEATED = {
    "raw_frames": "connection_id, ordinal",
    "book_events": "connection_id, ordinal",
    "quotes": "connection_id, ordinal",
    "tickers": "connection_id, ordinal",
    "trades": "venue, market_id, trade_id",
}


class Captured:
    """The tables of a lake as they stand now."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._sql: duckdb.DuckDBPyConnection = connect(lake)

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """A query's rows."""
        return self._sql.execute(statement, values).fetchall()

    def sessions(self, venue: str) -> list[dict[str, Any]]:
        """``capture_sessions`` of a venue, oldest first."""
        rows: list[dict[str, Any]] = self._lake.read("capture_sessions", venue=venue).to_pylist()
        return sorted(rows, key=lambda row: row["started_at"])

    def frames(self, connection_id: str) -> list[str]:
        """What a connection received over its socket, in order."""
        chosen = "SELECT frame FROM raw_frames WHERE connection_id = ? AND source = 'ws' ORDER BY ordinal"
        return [frame for (frame,) in self.rows(chosen, connection_id)]

    def frame_counts(self) -> dict[str, int]:
        """Frames received over sockets by connection."""
        return dict(self.rows("SELECT connection_id, count(*) FROM raw_frames WHERE source = 'ws' GROUP BY 1"))

    def frames_due(self, venue: str, sent: Mapping[str, int], total: Mapping[str, int]) -> tuple[int, int, str]:
        """Frames of a venue that must be there, those that are, and what is wrong with them, if anything.

        Every connection has its frames: at least those sent before the stop, at most all that were sent.
        """
        counts = self.frame_counts()
        have = sorted(counts.get(session["connection_id"], 0) for session in self.sessions(venue))
        labels = [label for label in total if label.rpartition("-")[0] == venue]
        due = sorted(sent.get(label, 0) for label in labels)
        most = sorted(total[label] for label in labels)
        fits = len(have) == len(due) and all(low <= is_ <= high for low, is_, high in zip(due, have, most, strict=True))
        words = "" if fits else f"{venue}: frames by connection {have} in the tables, {due} to {most} sent"
        return sum(due), sum(have), words

    def repeated(self) -> dict[str, int]:
        """Rows too many by table: those whose key stands there already."""
        return {
            name: self.rows(f"SELECT count(*) - count(DISTINCT ({key})) FROM {name}")[0][0]
            for name, key in _REPEATED.items()
        }

    def unreadable(self) -> list[str]:
        """Tables that cannot be read whole, with the reason."""
        found = []
        for name in TABLES:
            try:
                self._lake.read(name)
            except Exception as error:  # whatever it is, a reader would meet it
                found.append(f"{name}: {type(error).__name__}: {error}")
        return found

    def snapshots(self) -> Mapping[tuple[str, str], int]:
        """Receive time (ns) of each market's first whole book by connection and market."""
        found = self.rows(
            "SELECT connection_id, market_id, min(recv_ns) FROM book_events WHERE kind = 'clear' GROUP BY 1, 2"
        )
        return {(connection_id, market_id): first for connection_id, market_id, first in found}

    def books(self) -> dict[str, Book]:
        """Every market's newest book, folded by the documented meaning of ``book_events`` alone."""
        found: dict[str, Book] = {
            market_id: ({}, {}) for (market_id,) in self.rows("SELECT DISTINCT market_id FROM book_events")
        }
        for market_id, side, price, size in self.rows(_FOLD):
            if size:
                found[market_id][side == "ask"][price] = size
        return found


_FOLD = """
WITH cleared AS (
    SELECT market_id, max((recv_ns, ordinal)) AS since FROM book_events WHERE kind = 'clear' GROUP BY 1
)
SELECT market_id, side, CAST(price * 10000 AS BIGINT), CAST(arg_max(size, (recv_ns, ordinal)) * 1000000 AS BIGINT)
FROM book_events JOIN cleared USING (market_id)
WHERE kind <> 'clear' AND (recv_ns, ordinal) > since
GROUP BY market_id, side, price
"""
