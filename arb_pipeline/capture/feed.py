"""A session's way into the tables: the same steps for a live socket and for a recording."""

from collections.abc import Sequence

from arb_pipeline.capture.rows import ConnectionRows, GapLedger, RowWriter
from arb_pipeline.model import Command, GapClosed, GapOpened, MarketFacts, Output
from arb_pipeline.storage.lake import HOUR_NS
from arb_pipeline.venues.base import Session

__all__ = ["NO_SNAPSHOT", "UNSUBSCRIBED", "Feed"]

NO_SNAPSHOT = "no_snapshot"
"""Cause of a gap: the market is wanted (or its window has begun), and its first snapshot has not come."""

UNSUBSCRIBED = "unsubscribed"
"""End of a gap: the market is no longer captured."""


class Feed:
    """One session and the rows of its connections, one after the other.

    Every hour partition stands alone: with the first frame (or tick) of an hour, the books as they stood at its
    boundary are written into it. The same happens at the start of the window, up to which nothing was kept.

    Args:
        session: takes the inputs.
        rows: takes what it says.
        raw: whether frames are kept as received.
        awaits: whether a market without a snapshot is in doubt.
        since_ns: from when its first markets are wanted; None: from its first connection on.
    """

    def __init__(
        self,
        session: Session,
        rows: RowWriter,
        *,
        raw: bool = True,
        awaits: bool = True,
        since_ns: int | None = None,
    ) -> None:
        self.session = session
        self._since_ns = since_ns
        self._raw = raw
        self._awaits = awaits
        self.gaps = GapLedger()
        self.connection: ConnectionRows | None = None
        self.live_ns = 0
        """Time with a connection inside the window, of those that ended."""
        self.newest_ns = 0
        """Receive time of the newest frame."""
        self._rows = rows
        self._dials = 0
        self._row_ns = -(2**63)
        """Receive time of the newest row of the connections that ended."""
        self._boundary = 0
        """Where the next partition begins; 0 before the first look at the time."""

    def open(self, connection_id: str, now_ns: int, markets: Sequence[MarketFacts]) -> list[Command]:
        """A connection is there: start the session afresh, subscribe, and return what is to be sent."""
        self.connection = ConnectionRows(
            self._rows, self.session.venue, connection_id, now_ns, self._dials, newest_ns=self._row_ns
        )
        self.connection.markets = len(markets)
        self._dials += 1
        commands = self.apply(self.session.connected(now_ns), now_ns)
        # After that, so that books of an earlier connection are not taken for this one's.
        self._advance(now_ns)
        if markets:
            if self._dials == 1:
                self._await(markets, self._beginning(now_ns))
            commands += self.apply(self.session.subscribe(markets, now_ns), now_ns)
        return commands

    def subscribe(self, markets: Sequence[MarketFacts], now_ns: int) -> list[Command]:
        """Take these markets, too, and return what is to be sent."""
        self._connection.markets += len(markets)
        self._await(markets, now_ns)
        return self.apply(self.session.subscribe(markets, now_ns), now_ns)

    def unsubscribe(self, market_ids: Sequence[str], now_ns: int) -> list[Command]:
        """Let go of these markets, whose doubts end with it, and return what is to be sent."""
        self._connection.markets -= len(market_ids)
        commands = self.apply(self.session.unsubscribe(market_ids, now_ns), now_ns)
        self.apply([GapClosed(market_id, now_ns, UNSUBSCRIBED) for market_id in market_ids], now_ns)
        return commands

    def receive(self, frame: str, recv_ns: int) -> list[Command]:
        """Take a frame."""
        connection, rows = self._connection, self._rows
        self.newest_ns = recv_ns
        if recv_ns >= self._boundary:
            self._advance(recv_ns)
        keep = rows.start_ns <= recv_ns < rows.end_ns
        if keep:
            connection.frame(frame, recv_ns, raw=self._raw)
        return connection.write(self.session.receive(frame, recv_ns), self.gaps, keep=keep)

    def tick(self, now_ns: int) -> list[Command]:
        """Let time pass."""
        self._advance(now_ns)
        return self.apply(self.session.tick(now_ns), now_ns)

    def rest_book(self, market_id: str, body: bytes, now_ns: int) -> list[Command]:
        """Take a book fetched over REST; kept as a frame, for it is an input like any other."""
        self._advance(now_ns)
        if self._rows.keeps(now_ns):
            self._connection.frame(body.decode("utf-8", "backslashreplace"), now_ns, "rest")
        return self.apply(self.session.rest_book(market_id, body, now_ns), now_ns)

    def apply(self, outputs: Sequence[Output], now_ns: int) -> list[Command]:
        """Write what the session said and return what it asks for."""
        return self._connection.write(outputs, self.gaps, keep=self._rows.keeps(now_ns))

    def trusts(self, market_id: str, now_ns: int, max_age_ns: int) -> bool:  # noqa: ARG002 - a stream has heartbeats
        """Whether the book of a market may be trusted; a polled one was proven within ``max_age_ns``."""
        return self.session.in_sync(market_id)

    def lost(self, now_ns: int, cause: str, doubt: str = "disconnect") -> None:
        """The connection is gone, another one may follow: no book is to be trusted until then."""
        self.apply(self.session.disconnected(now_ns, doubt), now_ns)
        self._end(now_ns, cause)

    def finish(self, now_ns: int, reason: str) -> None:
        """The capture is over, and with it the doubts that last."""
        for market_id, gaps in self.gaps.drain():
            self._rows.gaps_ended(self.session.venue, market_id, gaps, now_ns, "end_of_capture")
        if self.connection is not None:
            self._end(now_ns, reason)

    def live_until(self, now_ns: int) -> int:
        """Nanoseconds with a connection inside the window so far."""
        if self.connection is None:
            return self.live_ns
        began = max(self._rows.start_ns, self.connection.started_ns)
        return self.live_ns + max(0, min(self._rows.end_ns, now_ns) - began)

    def _beginning(self, now_ns: int) -> int:
        """From when the first markets are wanted: whoever comes late to a window has missed its beginning."""
        if self._rows.bounded:
            return self._rows.start_ns if self._rows.keeps(now_ns) else now_ns
        return now_ns if self._since_ns is None else self._since_ns

    def _await(self, markets: Sequence[MarketFacts], from_ns: int) -> None:
        """Until its first snapshot nothing is known of a market."""
        for facts in markets if self._awaits else ():
            gap = GapOpened(facts.market_id, NO_SNAPSHOT, from_ns)
            self.gaps.awaits(gap, self._rows.next_ordinal(), self._connection.connection_id)

    @property
    def _connection(self) -> ConnectionRows:
        assert self.connection is not None, "open() comes first"
        return self.connection

    def _end(self, now_ns: int, reason: str) -> None:
        self.live_ns = self.live_until(now_ns)
        self._connection.close(now_ns, reason)
        self._row_ns = self._connection.newest_ns
        self.connection = None

    def _advance(self, now_ns: int) -> None:
        """Write the books into a partition that begins."""
        if now_ns < self._boundary:
            return
        begun = self._boundary > 0
        boundary = max(self._boundary, now_ns - now_ns % HOUR_NS)
        start = self._rows.start_ns
        self._boundary = start if now_ns < start else (now_ns // HOUR_NS + 1) * HOUR_NS
        if begun and self._rows.keeps(boundary) and self.connection is not None:
            for snapshot in self.session.snapshots(boundary):
                self.connection.snapshot(snapshot)
