"""Polling: the market data of a venue whose WebSocket cannot be used, asked for over REST again and again.

One polled connection is one batch of markets that one request brings, so that an answer proves all of its books; the
venue's trades are a connection of their own. An answer that equals the one before writes nothing but one raw frame,
the proof that the books were alive. A market without a good answer has a gap, dated back to its last proof.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import httpx

from arb_pipeline.capture.feed import Feed
from arb_pipeline.capture.rows import ConnectionRows, RowWriter
from arb_pipeline.clock import Clock
from arb_pipeline.model import (
    Anomaly,
    AnomalyKind,
    BookSnapshot,
    Command,
    GapClosed,
    GapOpened,
    MarketFacts,
    Output,
    Trade,
)
from arb_pipeline.venues.base import Polling, Session, Venue, VenueError
from arb_pipeline.venues.http import HttpStatusError, RestClient, TransientHttpError

__all__ = ["BooksPoll", "PolledBooks", "PolledTrades", "Poller", "TradesPoll"]

POLL_FAILED: Final = "poll_failed"
"""Cause of a gap: the request failed."""

BAD_ANSWER: Final = "bad_answer"
"""Cause of a gap: the answer lacks the market, or its book cannot be read."""

_OVERLAP_NS: Final = 10_000_000_000
"""Trades are asked for from so long before the newest one: they do not all show up in the order of their times."""

_SECOND: Final = 1_000_000_000
_LONGEST_PAUSE_S: Final = 30.0
_MOST_DOUBLINGS: Final = 16
_FAILURES: Final = (HttpStatusError, httpx.HTTPError, VenueError)


class _Polled(Feed):
    """A connection that is there from its beginning to the end of the capture, with times of failing in between."""

    def __init__(self, session: Session, rows: RowWriter) -> None:
        super().__init__(session, rows)
        self._proven_ns = 0
        self.failing = False
        self._failed_ns = 0

    def begin(self, connection_id: str, now_ns: int, markets: Sequence[MarketFacts]) -> None:
        """Polling starts. The session is not opened: it takes REST answers as books only while it has no stream."""
        self.connection = ConnectionRows(self._rows, self.session.venue, connection_id, now_ns)
        self.connection.markets = len(markets)
        self._proven_ns = now_ns
        self._advance(now_ns)

    def failed(self, cause: str, now_ns: int) -> None:
        """A poll brought no answer."""
        self.failing = True
        self.apply([Anomaly(AnomalyKind.VENUE_ERROR, cause, now_ns)], now_ns)

    def live_until(self, now_ns: int) -> int:
        """Nanoseconds inside the window so far, without the times from the last answer to the one after a failure."""
        if self.connection is None:
            return self.live_ns
        failing_ns = self._since_proof(now_ns) if self.failing else 0
        return max(0, super().live_until(now_ns) - self._failed_ns - failing_ns)

    def _answered(self, now_ns: int) -> None:
        if self.failing:
            self._failed_ns += self._since_proof(now_ns)
        self.failing = False
        self._proven_ns = now_ns

    def _since_proof(self, now_ns: int) -> int:
        return max(0, min(self._rows.end_ns, now_ns) - max(self._rows.start_ns, self._proven_ns))


class PolledBooks(_Polled):
    """The books of markets that one request brings."""

    def __init__(self, session: Session, rows: RowWriter) -> None:
        super().__init__(session, rows)
        self._bodies: dict[str, bytes | None] = {}
        """The newest good answer by market."""
        self._proofs: dict[str, int] = {}
        self._doubted: set[str] = set()

    def begin(self, connection_id: str, now_ns: int, markets: Sequence[MarketFacts]) -> None:
        """See :class:`_Polled`."""
        super().begin(connection_id, now_ns, markets)
        self._bodies = {facts.market_id: None for facts in markets}
        self._proofs = dict.fromkeys(self._bodies, now_ns)
        self._await(markets, self._beginning(now_ns))

    def answer(self, bodies: Mapping[str, bytes | None], recv_ns: int) -> None:
        """Take an answer: a body for each market asked for; one without is in doubt."""
        self._advance(recv_ns)
        self._answered(recv_ns)
        unchanged: bytes | None = None
        kept = False
        for market_id, body in bodies.items():
            if market_id not in self._bodies:
                continue
            if body is None:
                self._doubt(market_id, BAD_ANSWER, recv_ns)
            elif body != self._bodies[market_id] or not self.session.in_sync(market_id):
                kept = True
                self._take(market_id, body, recv_ns)
            else:
                unchanged = unchanged or body
                self._prove(market_id, recv_ns)
        if not kept and unchanged is not None:
            self._keep(unchanged, recv_ns)

    def subscribe(self, markets: Sequence[MarketFacts], now_ns: int) -> list[Command]:
        """Poll these, too."""
        self._await(markets, now_ns)
        for facts in markets:
            self._bodies[facts.market_id] = None
            self._proofs[facts.market_id] = now_ns
        self._connection.markets = len(self._bodies)
        return []

    def unsubscribe(self, market_ids: Sequence[str], now_ns: int) -> list[Command]:
        """Poll these no longer."""
        for market_id in market_ids:
            self._bodies.pop(market_id, None)
            self._proofs.pop(market_id, None)
            self._doubted.discard(market_id)
        self._connection.markets = len(self._bodies)
        return super().unsubscribe(market_ids, now_ns)

    def trusts(self, market_id: str, now_ns: int, max_age_ns: int) -> bool:
        """See :class:`Feed`; the session knows neither of polls that failed nor of those that have no answer yet."""
        proven_ns = self._proofs.get(market_id)
        is_young = proven_ns is not None and now_ns - proven_ns <= max_age_ns
        return is_young and market_id not in self._doubted and super().trusts(market_id, now_ns, max_age_ns)

    def failed(self, cause: str, now_ns: int) -> None:
        """No answer: no book is to be trusted since the last one."""
        super().failed(cause, now_ns)
        for market_id in self._bodies:
            self._doubt(market_id, POLL_FAILED, now_ns)

    def _take(self, market_id: str, body: bytes, recv_ns: int) -> None:
        self._keep(body, recv_ns)
        outputs = self.session.rest_book(market_id, body, recv_ns)
        self.apply(outputs, recv_ns)
        if any(isinstance(output, BookSnapshot) for output in outputs):
            self._bodies[market_id] = body
            self._prove(market_id, recv_ns)
        else:
            self._doubt(market_id, BAD_ANSWER, recv_ns)

    def _keep(self, body: bytes, recv_ns: int) -> None:
        if self._rows.keeps(recv_ns):
            self._connection.frame(body.decode("utf-8", "backslashreplace"), recv_ns, "rest")

    def _prove(self, market_id: str, now_ns: int) -> None:
        self._proofs[market_id] = now_ns
        if market_id in self._doubted:
            self._doubted.discard(market_id)
            self.apply([GapClosed(market_id, now_ns, "rest_book")], now_ns)

    def _doubt(self, market_id: str, cause: str, now_ns: int) -> None:
        if market_id not in self._doubted:
            self._doubted.add(market_id)
            self.apply([GapOpened(market_id, cause, self._proofs[market_id])], now_ns)


class PolledTrades(_Polled):
    """The trades of a venue's captured markets, each once.

    Args:
        polling: reads the pages.
        since_ns: venue time from which trades are wanted; it decides what is asked for, not what is kept.
    """

    def __init__(self, session: Session, rows: RowWriter, polling: Polling, since_ns: int = 0) -> None:
        super().__init__(session, rows)
        self.since_ns = since_ns
        """Venue time to ask from: a little before the newest trade of the last complete listing."""
        self._polling = polling
        self._markets: set[str] = set()
        self._taken: dict[str, int] = {}
        """What was taken from ``since_ns`` on, by trade id, with its time; it would be listed again."""
        self._newest_ns = 0

    def begin(self, connection_id: str, now_ns: int, markets: Sequence[MarketFacts]) -> None:
        """Polling starts: the trades of these markets are kept."""
        super().begin(connection_id, now_ns, markets)
        self._markets = {facts.market_id for facts in markets}

    def subscribe(self, markets: Sequence[MarketFacts], now_ns: int) -> list[Command]:  # noqa: ARG002 - as its base
        """Keep the trades of these, too."""
        self._markets.update(facts.market_id for facts in markets)
        self._connection.markets = len(self._markets)
        return []

    def unsubscribe(self, market_ids: Sequence[str], now_ns: int) -> list[Command]:  # noqa: ARG002 - as its base
        """Keep the trades of these no longer."""
        self._markets.difference_update(market_ids)
        self._connection.markets = len(self._markets)
        return []

    def page(self, body: bytes, recv_ns: int) -> None:
        """Take a page of a listing, newest first; it is kept if it tells anything new."""
        new: list[Output] = []
        for item in reversed(self._polling.trades(body, recv_ns)):
            if isinstance(item, Trade):
                self._newest_ns = max(self._newest_ns, min(item.venue_ns or 0, recv_ns))
                if item.market_id not in self._markets:
                    continue
            key, at = (item.trade_id, item.venue_ns or recv_ns) if isinstance(item, Trade) else (item.example, recv_ns)
            if key not in self._taken:
                self._taken[key] = at
                new.append(item)
        if new:
            if self._rows.keeps(recv_ns):
                self._connection.frame(body.decode("utf-8", "backslashreplace"), recv_ns, "rest")
            self.apply(new, recv_ns)

    def complete(self, now_ns: int) -> None:
        """A listing came to its end: only what is newer need be asked for, and remembered."""
        self._answered(now_ns)
        self.since_ns = max(self.since_ns, self._newest_ns - _OVERLAP_NS)
        # Venues cut the time that is asked from to whole seconds.
        oldest = self.since_ns - self.since_ns % _SECOND
        self._taken = {key: at for key, at in self._taken.items() if at >= oldest}


class BooksPoll(Protocol):
    """What takes the answers to polls of books."""

    def answer(self, bodies: Mapping[str, bytes | None], recv_ns: int) -> None:
        """A body for each market asked for, None where there is none."""
        ...

    def failed(self, cause: str, now_ns: int) -> None:
        """There was no answer."""
        ...


class TradesPoll(Protocol):
    """What takes the answers to polls of trades."""

    @property
    def since_ns(self) -> int:
        """Venue time to ask from."""
        ...

    def page(self, body: bytes, recv_ns: int) -> None:
        """A page, newest first."""
        ...

    def complete(self, now_ns: int) -> None:
        """The listing came to its end."""
        ...

    def failed(self, cause: str, now_ns: int) -> None:
        """There was no answer."""
        ...


@dataclass(frozen=True, kw_only=True)
class Poller:
    """Polls one venue for ever; nothing that it answers ends that.

    Attributes:
        client: all polls share its rate limit. It should try once only: the next poll is the next try, and tries
            inside one would hide that books are in doubt.
        interval_s: from the start of a poll to the start of the next.
        on_error: told what went wrong with a poll.
    """

    venue: Venue
    polling: Polling
    client: RestClient
    clock: Clock
    interval_s: float
    on_error: Callable[[str], None]

    async def books(self, feed: BooksPoll, markets: Mapping[str, MarketFacts]) -> None:
        """Poll one batch of books; ``markets`` may change meanwhile."""

        async def once() -> None:
            asked = list(markets.values())
            if asked:
                bodies = await self.venue.fetch_books(self.client, asked)
                feed.answer({facts.market_id: bodies.get(facts.market_id) for facts in asked}, self.clock.now_ns())

        await self._repeat(once, feed)

    async def trades(self, feed: TradesPoll, begin_ns: int) -> None:
        """Poll the trades, beginning at a time: what came before the window is another run's."""

        async def once() -> None:
            async for body in self.polling.trade_pages(self.client, feed.since_ns):
                feed.page(body, self.clock.now_ns())
            feed.complete(self.clock.now_ns())

        await asyncio.sleep(max(0.0, (begin_ns - self.clock.now_ns()) / 1e9))
        await self._repeat(once, feed)

    async def _repeat(self, once: Callable[[], Awaitable[None]], feed: BooksPoll | TradesPoll) -> None:
        """Poll at intervals; failures in a row make the pauses longer, up to half a minute."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            pause = self.interval_s
            try:
                await once()
                failures = 0
            except _FAILURES as error:
                feed.failed(_words(error), self.clock.now_ns())
                self.on_error(_words(error))
                pause = self._pause(failures)
                if isinstance(error, TransientHttpError) and error.retry_after_s is not None:
                    pause = max(pause, error.retry_after_s)
                failures += 1
            await asyncio.sleep(max(0.0, began + pause - loop.time()))

    def _pause(self, failures: int) -> float:
        longest = max(self.interval_s, _LONGEST_PAUSE_S)
        grown = min(self.interval_s * 2.0 ** min(failures, _MOST_DOUBLINGS), longest)
        return grown * random.uniform(0.75, 1.25)  # noqa: S311 - spreads the tries


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
