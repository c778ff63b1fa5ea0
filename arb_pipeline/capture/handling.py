"""The handlers of a capture run: a process that reads the run's journal beside the encoder, and its supervisor.

``python -m arb_pipeline.capture.handling RUN_FOLDER`` gets its :class:`Orders` as a line of JSON on standard input,
puts the journal's records through the same sessions as live, calls the handlers with what comes out, and tells how far
it is by :class:`HandlingReport` lines on standard output. Capture never waits for it: it only reads files that are
there anyhow. Where the handlers are too slow, it goes on without telling them until it has caught up; one that does
not return has the process ended with a traceback, and the supervisor starts it again.
"""

import argparse
import contextlib
import faulthandler
import functools
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import msgspec

from arb_pipeline.alerting.notifier import Notifier, build_notifier
from arb_pipeline.capture.deriving import Derivation, DerivedFeed, FeedClasses, venue_named, venue_words
from arb_pipeline.capture.feed import Feed
from arb_pipeline.capture.journal import (
    AccountTold,
    Begun,
    Ended,
    FeedAdded,
    Frame,
    JournalError,
    JournalReader,
    Lost,
    Record,
    RunFolder,
    Skipped,
    Tick,
)
from arb_pipeline.capture.listeners import ListenerError, load_handlers
from arb_pipeline.capture.polling import PolledBooks, PolledTrades
from arb_pipeline.capture.supervising import ProcessReport, Supervised
from arb_pipeline.clock import Clock
from arb_pipeline.handlers.api import KINDS, Alert, HandlerContext, Message, TimePassed
from arb_pipeline.handlers.config import Handler, HandlerConfig, HandlerError, build
from arb_pipeline.logs import configure_logging
from arb_pipeline.model import Command, OrderBook, Output, Quote
from arb_pipeline.settings import Settings
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import Venue

__all__ = ["HandlerProcess", "Handling", "HandlingReport", "Orders", "main"]

_log = logging.getLogger(__name__)

_POLL_S: Final = 0.05
_REPORT_S: Final = 1.0
_CAUGHT_UP: Final = 0.25
"""Handlers are told again once the delay is below this part of what is allowed."""
_LOG_AGAIN_S: Final = 60.0
_NICE: Final = 5
_KIND_OF: Final = {kind: name for name, kind in KINDS.items()}
_decode_json = msgspec.json.Decoder().decode


class HandlingReport(ProcessReport, frozen=True, kw_only=True):
    """How far the handlers are.

    Attributes:
        handled: calls of handlers that returned.
        errors: calls that raised.
        skipped: records that the handlers were not told of, because they were too slow or their process had died.
        alerts, undelivered: alerts sent, and deliveries that a channel did not take.
        lag_s: receive time of the newest record that was taken, against now.
        at_ns: that receive time.
    """

    handled: int = 0
    errors: int = 0
    skipped: int = 0
    alerts: int = 0
    undelivered: int = 0
    lag_s: float = 0.0
    at_ns: int = 0

    def after(self, before: Self) -> Self:
        """The same with what earlier processes did."""
        return msgspec.structs.replace(
            super().after(before),
            handled=before.handled + self.handled,
            errors=before.errors + self.errors,
            skipped=before.skipped + self.skipped,
            alerts=before.alerts + self.alerts,
            undelivered=before.undelivered + self.undelivered,
            at_ns=max(before.at_ns, self.at_ns),
        )


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is to do.

    Attributes:
        handlers: :class:`HandlerConfig` as plain values.
        venues: venues that the journal may name, as ``module:Class``; empty: those of the package.
        lag_s: from this delay on records are skipped.
        hang_s: a call that takes longer ends the process.
        webhook: where alerts go besides the log; a secret.
        alerts_file: names more places.
        after_ns: an earlier process took the records up to this receive time; None if there was none.
    """

    handlers: tuple[dict[str, Any], ...]
    venues: tuple[str, ...] = ()
    lag_s: float
    hang_s: float
    webhook: str = ""
    alerts_file: str = ""
    after_ns: int | None = None

    def __repr__(self) -> str:
        return f"Orders({', '.join(str(one.get('name')) for one in self.handlers)})"


# --- from records to events --------------------------------------------------------------------------------


class _Heard(Feed):
    """A session whose outputs are kept for the handlers instead of being made rows."""

    @functools.cached_property
    def said(self) -> list[Output]:
        """What the session said since this was last emptied."""
        return []

    def apply(self, outputs: Sequence[Output], now_ns: int) -> list[Command]:  # noqa: ARG002 - as its base
        """Keep what the session said."""
        self.said.extend(outputs)
        return []

    def receive(self, frame: str, recv_ns: int) -> list[Command]:
        """Take a frame."""
        return self.apply(self.session.receive(frame, recv_ns), recv_ns)


class _HeardBooks(_Heard, PolledBooks):
    """Polled books."""


class _HeardTrades(_Heard, PolledTrades):
    """Polled trades."""


_CLASSES: Final = FeedClasses(stream=_Heard, books=_HeardBooks, trades=_HeardTrades)
_UNTOLD: Final = (Skipped, AccountTold)
"""No session says these: frames that are not there, and what an account tells over REST of what its frames told."""


class _FeedBooks:
    """The books of a feed, as handlers may trust them: a polled one only while polls go well and answers come."""

    __slots__ = ("_feed", "_handling")

    def __init__(self, feed: Feed, handling: "Handling") -> None:
        self._feed = feed
        self._handling = handling

    def book(self, market_id: str) -> OrderBook | None:
        """See :class:`Books`."""
        return self._feed.session.book(market_id)

    def in_sync(self, market_id: str) -> bool:
        """See :class:`Books`."""
        return self._feed.trusts(market_id, self._handling.newest_ns, self._handling.max_age_ns)


class Handling:
    """Puts a journal's records through sessions and calls handlers with what comes out.

    Args:
        folder: the run's journal.
        handlers: whom to tell.
        notify: takes their alerts.
        venues: the venues that the journal may name.
        lag_s: from this delay on records are skipped until it is small again.
        after_ns: an earlier process took the records up to this receive time: what came until now is skipped.
        pulse: called before each record and each call of a handler.
    """

    def __init__(
        self,
        folder: RunFolder,
        handlers: Sequence[Handler],
        notify: Callable[[Alert], None],
        *,
        venues: Mapping[str, Venue] = VENUES,
        lag_s: float = 5.0,
        after_ns: int | None = None,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        self.ended = False
        """Whether there is nothing more to read."""
        self.message = ""
        self.handled = self.errors = self.skipped = 0
        self.newest_ns = 0
        self.max_age_ns = 0
        """A polled book whose last answer is older is not to be trusted."""
        self.clock = Clock()
        self._folder = folder
        self._reader = JournalReader(folder.path)
        self._handlers = handlers
        self._notify = notify
        self._lag_ns = round(lag_s * 1e9)
        self._after_ns = after_ns
        self._from_ns = -(2**63)
        self._pulse = pulse
        # No rows are made.
        self._derivation = Derivation(venues, _CLASSES, window=(0, 0))
        self._window = (-(2**63), 2**63 - 1)
        self._skipping = False
        self._current: set[int] = set()
        """Feeds whose handlers know its books as they are."""
        self._frames = {name: _message_types(handlers, name) for name in venues}
        self._logged: dict[tuple[str, str], float] = {}

    @property
    def lag_s(self) -> float:
        """Delay of the newest record that was taken."""
        return max(0.0, (self.clock.now_ns() - self.newest_ns) / 1e9) if self.newest_ns else 0.0

    def step(self) -> bool:
        """Take some records; whether there were any.

        Raises:
            JournalError: if the journal is of another format.
        """
        try:
            records = self._reader.read()
        except FileNotFoundError:
            records = []  # deleted between two looks at it
        if not records:
            self._skipping = False
            self._note_removed()
        for record in records:
            self._pulse()
            try:
                self._take(record)
            except Exception as error:
                self.message = f"a record of the journal could not be used: {type(error).__name__}: {error}"
                self._complain(("", type(error).__name__), self.message)
        return bool(records)

    def _note_removed(self) -> None:
        """Once its rows are committed, a journal is deleted, read here to its end or not."""
        if not self.ended and not self._folder.path.is_dir():
            self.ended = True
            self.message = "the journal was complete and deleted before its end was read: its last records are skipped"

    def _take(self, record: Record) -> None:
        if isinstance(record, Begun):
            self._begin(record)
        elif isinstance(record, FeedAdded):
            if any(handler.wants_venue(record.venue) for handler in self._handlers):
                self._derivation.apply(record)
        elif isinstance(record, Ended):
            self.ended = True
        elif feed := self._derivation.feeds.get(record.feed):
            self.newest_ns = max(self.newest_ns, record.at_ns)
            told = self._told(record.at_ns)
            if told and record.feed not in self._current:
                self._current.add(record.feed)
                self._tell_books(feed, record.at_ns)
            elif not told:
                self._current.discard(record.feed)
            said = self._said(feed, record)
            if told:
                self._tell(feed, record, said, record.at_ns)

    def _said(self, derived: DerivedFeed, record: Record) -> list[Output]:
        """What a record has its session say."""
        feed, rows = derived.feed, self._derivation.rows
        assert isinstance(feed, _Heard)
        assert rows is not None
        if isinstance(record, _UNTOLD):
            return []
        self._derivation.apply(record)
        if isinstance(record, Lost):
            rows.drain()
        said, feed.said = feed.said, []
        return said

    def _told(self, at_ns: int) -> bool:
        """Whether handlers are told of what was received then."""
        if not self._window[0] <= at_ns < self._window[1]:
            return False
        lag = self.clock.now_ns() - at_ns
        if lag > self._lag_ns:
            self._skipping = True
        elif self._skipping and lag <= self._lag_ns * _CAUGHT_UP:
            self._skipping = False
        if not self._skipping and at_ns >= self._from_ns:
            return True
        self.skipped += self._after_ns is None or at_ns > self._after_ns
        return False

    def _begin(self, record: Begun) -> None:
        self._derivation.apply(record)
        settings = Settings(**record.settings)
        self.clock = settings.clock
        self.max_age_ns = round(settings.max_quote_age_s * 1e9)
        # What came while no process was there is skipped: told now, it would be told late.
        self._from_ns = self._window[0] if self._after_ns is None else self.clock.now_ns()
        start, end = record.window
        self._window = (self._window[0] if start is None else start, self._window[1] if end is None else end)

    # --- telling -------------------------------------------------------------------------------------------

    def _tell_books(self, feed: DerivedFeed, at_ns: int) -> None:
        """What handlers begin with, at the start and after a skip: each book, as a snapshot and a quote."""
        for snapshot in feed.session.snapshots(at_ns):
            book = feed.session.book(snapshot.market_id)
            self._event(feed, snapshot, at_ns)
            if book is not None:
                top, source = book.top(), snapshot.source
                trusted = feed.feed.trusts(snapshot.market_id, at_ns, self.max_age_ns)
                quote = Quote(snapshot.market_id, *top, trusted, at_ns, None, None, source)
                self._event(feed, quote, at_ns)

    def _tell(self, feed: DerivedFeed, record: Record, said: Iterable[Output], at_ns: int) -> None:
        if isinstance(record, Frame):
            self._messages(feed, record)
        for output in said:
            self._event(feed, output, at_ns)
        if isinstance(record, Tick):
            self._event(feed, TimePassed(at_ns), at_ns)

    def _messages(self, feed: DerivedFeed, record: Frame) -> None:
        venue, frame = feed.session.venue, record.frame
        wanted = self._frames.get(venue, frozenset())
        # Most frames are of no wanted type: a look for the word is far cheaper than decoding them.
        if not any(f'"{kind}"' in frame for kind in wanted):
            return
        try:
            decoded = _decode_json(frame)
        except msgspec.DecodeError:
            return  # the session has told of it
        for item in decoded if isinstance(decoded, list) else [decoded]:
            kind = (item.get("event_type") or item.get("type")) if isinstance(item, dict) else None
            if isinstance(kind, str) and kind in wanted:
                message = Message(venue, kind, record.at_ns, item)
                for handler in self._handlers:
                    if handler.wants_venue(venue) and (calls := handler.frames.get((venue, kind))):
                        self._call(calls, message, self._context(handler, feed, "", record.at_ns))

    def _event(self, feed: DerivedFeed, event: Output | TimePassed, at_ns: int) -> None:
        kind = _KIND_OF.get(type(event))
        if kind is None:
            return  # a command
        market_id = getattr(event, "market_id", None) or ""
        for handler in self._handlers:
            calls = handler.events.get(kind)
            if calls and handler.wants_venue(feed.session.venue) and handler.wants_market(market_id):
                self._call(calls, event, self._context(handler, feed, market_id, at_ns))

    def _context(self, handler: Handler, feed: DerivedFeed, market_id: str, at_ns: int) -> HandlerContext:
        return HandlerContext(
            handler=handler.name,
            venue=feed.session.venue,
            market_id=market_id,
            facts=feed.markets.get(market_id),
            at_ns=at_ns,
            books=_FeedBooks(feed.feed, self),
            notify=self._notify,
        )

    def _call(
        self, calls: Sequence[Callable[[Any, HandlerContext], object]], what: object, context: HandlerContext
    ) -> None:
        for call in calls:
            self._pulse()
            try:
                call(what, context)
            except (Exception, SystemExit) as error:
                self.errors += 1
                self.message = f"handler {context.handler!r} raised {type(error).__name__}: {error}"
                self._complain((context.handler, type(error).__name__), self.message)
            else:
                self.handled += 1

    def _complain(self, kind: tuple[str, str], message: str) -> None:
        """Log the exception at hand, each kind once a minute."""
        now = time.monotonic()
        if now - self._logged.get(kind, -_LOG_AGAIN_S) >= _LOG_AGAIN_S:
            self._logged[kind] = now
            _log.exception("%s", message)


def _message_types(handlers: Sequence[Handler], venue: str) -> frozenset[str]:
    return frozenset(kind for one in handlers if one.wants_venue(venue) for name, kind in one.frames if name == venue)


# --- the process -------------------------------------------------------------------------------------------


class _Watchdog:
    """Ends the process, with a traceback of where it is, when it is not seen for a while.

    The timer is one of C: it goes off whatever Python code does.
    """

    def __init__(self, hang_s: float) -> None:
        self._hang_s = hang_s
        self._armed = 0.0
        self.seen()

    def seen(self) -> None:
        """The process goes on."""
        now = time.monotonic()
        # Arming starts a thread: too dear for every call of a handler.
        if now - self._armed >= self._hang_s / 4:
            faulthandler.dump_traceback_later(self._hang_s, exit=True)
            self._armed = now

    def stop(self) -> None:
        """It is over."""
        faulthandler.cancel_dump_traceback_later()


class _Reporter:
    """Tells at intervals how far the handlers are."""

    def __init__(self, told: BinaryIO, alerts: Notifier) -> None:
        self._told = told
        self._alerts = alerts
        self._last = 0.0

    def seen(self, handling: Handling) -> None:
        """The process goes on."""
        now = time.monotonic()
        if now - self._last >= _REPORT_S:
            self._last = now
            self.report(handling)

    def report(self, handling: Handling, *, done: bool = False) -> None:
        """Tell now."""
        report = HandlingReport(
            handled=handling.handled,
            errors=handling.errors,
            skipped=handling.skipped,
            alerts=self._alerts.count,
            undelivered=self._alerts.undelivered,
            lag_s=handling.lag_s,
            at_ns=handling.newest_ns,
            done=done,
            message=handling.message,
        )
        with contextlib.suppress(BrokenPipeError):
            self._told.write(msgspec.json.encode(report) + b"\n")
            self._told.flush()


def _handle(folder: RunFolder, orders: Orders, told: BinaryIO) -> None:
    """Follow the journal to its end."""
    watchdog = _Watchdog(orders.hang_s)
    alerts = build_notifier(Path(orders.alerts_file), orders.webhook)
    reporter = _Reporter(told, alerts)
    handlers, troubles = _build(orders)

    def pulse() -> None:
        watchdog.seen()
        reporter.seen(handling)

    handling = Handling(
        folder,
        handlers,
        alerts.send,
        venues={venue.name: venue for venue in map(venue_named, orders.venues)} or VENUES,
        lag_s=orders.lag_s,
        after_ns=orders.after_ns,
        pulse=pulse,
    )
    handling.message = "; ".join(troubles)
    handling.ended = not handlers
    over = False
    while not handling.ended:
        pulse()
        busy = handling.step()
        if over and not busy:
            break
        over = over or _is_over(0.0 if busy else _POLL_S)
    watchdog.stop()
    alerts.close()
    reporter.report(handling, done=True)


def _build(orders: Orders) -> tuple[list[Handler], list[str]]:
    """The handlers that can be used, and what is wrong with the others."""
    handlers, troubles = [], []
    for fields in orders.handlers:
        try:
            handlers.append(build(HandlerConfig.model_validate(fields)))
        except HandlerError as error:
            _log.exception("a handler is left out: %s", error)
            troubles.append(str(error))
    return handlers, troubles


def _is_over(wait_s: float) -> bool:
    """Whether whoever gave the orders is gone, or wants no more."""
    ready, _, _ = select.select([0], [], [], wait_s)
    return bool(ready) and not os.read(0, 4096)


def _orders() -> Orders:
    """The first line of standard input; no more is read, so that its end can be waited for."""
    line = bytearray()
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return msgspec.json.decode(bytes(line), type=Orders)


def main(arguments: Sequence[str] | None = None) -> int:
    """Handle one run; the exit code is 0 unless its journal cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m arb_pipeline.capture.handling", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the run's journal")
    given = parser.parse_args(arguments)
    orders = _orders()
    configure_logging(Settings())
    os.nice(_NICE)
    # What handlers print must not be taken for reports.
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with told:
        try:
            _handle(RunFolder(given.folder), orders, told)
        except JournalError:
            _log.exception("the handlers cannot follow the capture")
            return 1
    return 0


# --- its supervisor ----------------------------------------------------------------------------------------


class HandlerProcess(Supervised[HandlingReport]):
    """The handlers' process of one capture run.

    Args:
        folder: the run's journal.
        venues: the venues that it may name.
        handlers: whom to tell; without an active one there is no process.
        settings: delays that are allowed, the webhook.
        backoff_s: first and longest pause before a process that died is started again, seconds.
    """

    def __init__(
        self,
        folder: RunFolder,
        venues: Mapping[str, Venue],
        handlers: Sequence[HandlerConfig],
        settings: Settings,
        *,
        backoff_s: tuple[float, float] = (1.0, 60.0),
    ) -> None:
        webhook = settings.alert_webhook_url
        orders = Orders(
            handlers=tuple(one.model_dump(mode="json") for one in handlers if one.is_active),
            venues=tuple(venue_words(venues.values())),
            lag_s=settings.handler_lag_s,
            hang_s=settings.handler_hang_s,
            webhook=webhook.get_secret_value() if webhook else "",
            alerts_file=str(settings.alerts_file),
        )

        def tell(before: HandlingReport) -> bytes:
            after_ns = before.at_ns if before.restarts else None
            return msgspec.json.encode(msgspec.structs.replace(orders, after_ns=after_ns)) + b"\n"

        super().__init__(
            "the handlers' process",
            [sys.executable, "-m", "arb_pipeline.capture.handling", str(folder.path)],
            HandlingReport,
            orders=tell,
            backoff_s=backoff_s,
        )
        self._is_wanted = bool(orders.handlers)

    @classmethod
    def of(
        cls, folder: RunFolder, venues: Mapping[str, Venue], settings: Settings, given: Sequence[HandlerConfig] = ()
    ) -> "HandlerProcess":
        """The process of the handlers that the listeners' file names, and of those ``given`` by who captures.

        A file that cannot be used costs its handlers, not the capture: it is logged and told by :attr:`report`.
        """
        try:
            return cls(folder, venues, (*load_handlers(settings.listeners_path), *given), settings)
        except ListenerError as error:
            _log.exception("no handler of the listeners' file runs")
            process = cls(folder, venues, given, settings)
            process._newest = HandlingReport(message=str(error))
            return process

    def start(self) -> None:
        """Begin, if there is an active handler."""
        if self._is_wanted:
            super().start()


if __name__ == "__main__":
    sys.exit(main())
