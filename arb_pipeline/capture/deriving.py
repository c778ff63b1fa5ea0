"""What a journal's records give: the one way in which they are put through sessions again.

The encoder, the Postgres loader and the handlers' process each read a run's journal by themselves, and put its records
through a :class:`Derivation`. What comes out is a pure function of the journal: whoever reads it gets the same rows,
with the same ordinals, however often and in whatever pieces.
"""

import importlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from arb_pipeline.capture.feed import Feed
from arb_pipeline.capture.journal import (
    AccountTold,
    Begun,
    Ended,
    FeedAdded,
    Frame,
    JournalError,
    Lost,
    Opened,
    PollAnswer,
    PollBegun,
    PollComplete,
    PollFailed,
    Record,
    RestBook,
    Skipped,
    Subscribed,
    Tick,
    TradesPage,
    Unsubscribed,
)
from arb_pipeline.capture.polling import PolledBooks, PolledTrades
from arb_pipeline.capture.rows import RowWriter, Window
from arb_pipeline.model import Anomaly, AnomalyKind, GapClosed, GapOpened, MarketFacts
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import Session, Venue

__all__ = ["Derivation", "DerivedFeed", "FeedClasses", "venue_named", "venue_words"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FeedClasses:
    """What takes the inputs of streams, and of polled books and trades."""

    stream: type[Feed] = Feed
    books: type[PolledBooks] = PolledBooks
    trades: type[PolledTrades] = PolledTrades


@dataclass
class DerivedFeed:
    """One feed of the journal.

    Attributes:
        keeps_books: whether its markets' books are in doubt without it.
        connection_id: the newest connection's.
        markets: what it is subscribed to, by market id.
    """

    feed: Feed
    keeps_books: bool
    connection_id: str = ""
    markets: dict[str, MarketFacts] = field(default_factory=dict)

    @property
    def session(self) -> Session:
        """The feed's session."""
        return self.feed.session


class Derivation:
    """Puts the records of one journal through sessions, in order.

    Args:
        venues: the venues that it may name.
        classes: what takes the inputs.
        window: receive times [start, end) of which rows are made; None: those of the run.

    Attributes:
        begun: what the journal begins with, once it was read.
        rows: the rows that came out, from then on.
        feeds: the feeds so far by number.
        newest_ns: receive time of the newest record.
        ended: whether the journal's last record was taken.
        defect: why a record could not be used, the newest; empty if all could.
    """

    def __init__(
        self, venues: Mapping[str, Venue], classes: FeedClasses | None = None, window: Window | None = None
    ) -> None:
        self.begun: Begun | None = None
        self.rows: RowWriter | None = None
        self.feeds: dict[int, DerivedFeed] = {}
        self.newest_ns = 0
        self.ended = False
        self.defect = ""
        self._venues = venues
        self._classes = classes or FeedClasses()
        self._window = window
        self._settings: Settings | None = None

    def take(self, record: Record, path: Path) -> None:
        """Take a record, also one that meets a defect: it must not cost all others' rows.

        Args:
            path: the journal, for messages.

        Raises:
            JournalError: if the run or a feed cannot be made, without which nothing that follows can be used.
        """
        try:
            self.apply(record)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            if isinstance(record, Begun | FeedAdded):
                raise JournalError(
                    f"{path} cannot be used ({what}); encode it with the arb_pipeline that wrote it"
                ) from error
            self.defect = f"a record of the journal could not be used: {what}"
            _log.exception("%s: %s", path, type(record).__name__)

    def apply(self, record: Record) -> None:
        """Take a record; any defect that it meets is raised."""
        if isinstance(record, Begun):
            self._begin(record)
            return
        if isinstance(record, FeedAdded):
            self._add(record)
            return
        if isinstance(record, Ended):
            self.ended = True
            self._finish(record.at_ns, record.reason)
            return
        self.newest_ns = max(self.newest_ns, record.at_ns)
        derived = self.feeds[record.feed]
        feed = derived.feed
        if isinstance(record, Frame):
            feed.receive(record.frame, record.at_ns)
        elif isinstance(record, Tick):
            feed.tick(record.at_ns)
        elif isinstance(record, RestBook):
            feed.rest_book(record.market_id, record.body, record.at_ns)
        elif isinstance(record, Opened):
            _connect(derived, record)
            feed.open(record.connection_id, record.at_ns, record.markets)
        elif isinstance(record, Lost):
            feed.lost(record.at_ns, record.cause, record.doubt)
        elif isinstance(record, Subscribed):
            derived.markets.update((facts.market_id, facts) for facts in record.markets)
            feed.subscribe(record.markets, record.at_ns)
        elif isinstance(record, Unsubscribed):
            for market_id in record.market_ids:
                derived.markets.pop(market_id, None)
            feed.unsubscribe(record.market_ids, record.at_ns)
        elif isinstance(record, Skipped):
            skipped = f"{record.frames} ticker frames were left out: the journal's disk fell behind"
            feed.apply([Anomaly(AnomalyKind.SKIPPED, skipped, record.at_ns)] * record.frames, record.at_ns)
        elif isinstance(record, AccountTold):
            feed.apply([*record.anomalies, *record.events], record.at_ns)
        else:
            _apply_poll(derived, record)

    def died(self, until_ns: int) -> None:
        """The run ended without a word: its books are unknown from its last record until the next start."""
        self._finish(self.newest_ns, "killed")
        if self.rows is None:
            return
        for derived in self.feeds.values():
            if not derived.keeps_books or not derived.connection_id:
                continue
            feed, venue = derived.feed, derived.session.venue
            for market_id in derived.markets:
                outage = GapOpened(market_id, "outage", self.newest_ns)
                feed.gaps.opened(outage, self.rows.next_ordinal(), derived.connection_id)
                ended = feed.gaps.closed(GapClosed(market_id, until_ns, "restart"))
                self.rows.gaps_ended(venue, market_id, ended, until_ns, "restart")

    def _begin(self, record: Begun) -> None:
        self.begun = record
        self.newest_ns = record.started_ns
        self._settings = Settings(**record.settings)
        self.rows = RowWriter(
            record.run_id,
            record.started_ns,
            shard=record.shard[0],
            window=record.window if self._window is None else self._window,
            exchange=record.exchange,
        )

    def _add(self, record: FeedAdded) -> None:
        assert self._settings is not None
        assert self.rows is not None
        venue, classes = self._venues[record.venue], self._classes
        feed: Feed
        if record.kind == "account":
            account = venue.account_session(record.name, self._settings, None)
            if account is None:
                raise JournalError(f"{record.venue} has no private channels")
            # Its frames may hold ids of a key, and it keeps no books.
            feed = classes.stream(account, self.rows, raw=False, awaits=False)
        else:
            session = venue.session(record.name, self._settings)
            if record.kind == "books":
                feed = classes.books(session, self.rows)
            elif record.kind == "trades":
                assert venue.polling is not None
                feed = classes.trades(session, self.rows, venue.polling)
            else:
                feed = classes.stream(session, self.rows, since_ns=self.newest_ns)
        self.feeds[record.feed] = DerivedFeed(feed, keeps_books=record.kind not in {"account", "trades"})

    def _finish(self, at_ns: int, reason: str) -> None:
        for derived in self.feeds.values():
            derived.feed.finish(at_ns, reason)


def venue_named(text: str) -> Venue:
    """A venue by ``module:Class``, as processes that read a journal are told of it."""
    module, _, name = text.partition(":")
    venue: Venue = getattr(importlib.import_module(module), name)()
    return venue


def venue_words(venues: Iterable[Venue]) -> list[str]:
    """Venues as :func:`venue_named` takes them."""
    return [f"{type(venue).__module__}:{type(venue).__qualname__}" for venue in venues]


def _connect(derived: DerivedFeed, record: Opened | PollBegun) -> None:
    derived.connection_id = record.connection_id
    derived.markets = {facts.market_id: facts for facts in record.markets}


def _apply_poll(derived: DerivedFeed, record: Record) -> None:
    feed = derived.feed
    if isinstance(feed, PolledBooks | PolledTrades) and isinstance(record, PollBegun):
        _connect(derived, record)
        if isinstance(feed, PolledTrades):
            feed.since_ns = record.since_ns
        feed.begin(record.connection_id, record.at_ns, record.markets)
    elif isinstance(feed, PolledBooks | PolledTrades) and isinstance(record, PollFailed):
        feed.failed(record.cause, record.at_ns)
    elif isinstance(feed, PolledBooks) and isinstance(record, PollAnswer):
        feed.answer(record.bodies, record.at_ns)
    elif isinstance(feed, PolledTrades) and isinstance(record, TradesPage):
        feed.page(record.body, record.at_ns)
    elif isinstance(feed, PolledTrades) and isinstance(record, PollComplete):
        feed.complete(record.at_ns)
