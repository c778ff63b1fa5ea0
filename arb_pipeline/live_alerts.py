"""Rules of ``alerts.yaml`` evaluated beside a capture, quote by quote.

:class:`LiveAlerts` is a handler like any other: whoever captures puts it among the run's handlers by name
(:func:`arb_pipeline.live_rules.live_handlers`), and it runs in their process off the journal.
"""

import asyncio
import heapq
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from arb_pipeline import pipeline
from arb_pipeline.alerting.alert import Alert
from arb_pipeline.alerting.evaluation import UNKNOWN, Evaluation, Finding, Told
from arb_pipeline.alerting.findings import move_finding, spread_finding
from arb_pipeline.alerting.positions import Position, load_positions, positions_of_account
from arb_pipeline.alerting.rules import AlertError, Alerting, NetEdge, PriceMove, Rule, Spread, load_alerting
from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.errors import ArbError
from arb_pipeline.handlers.api import Books, HandlerContext, TimePassed, on
from arb_pipeline.live_rules import live_rules
from arb_pipeline.market_hours import MarketHours, open_markets
from arb_pipeline.model import BookDelta, BookSnapshot, GapClosed, GapOpened, Market, MarketChange, OrderBook, Quote
from arb_pipeline.pair_prices import ACCEPTED, PairBooks, directions, edge_finding, not_trading, subject
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline.venues.base import VenueError

__all__ = ["LiveAlerts", "Plan", "load_plan", "own_positions"]

_log = logging.getLogger(__name__)

_BLIND_S: Final = 5.0
"""Every connection ticks about once a second: after such a silence nobody knows what happened meanwhile."""

_SWEEP_NS: Final = 1_000_000_000
_HOUR_NS: Final = 3_600_000_000_000
_FIRST_LOOK_S: Final = 10.0
"""Evaluation begins without rules rather than have the handlers' process wait longer."""

Key = tuple[str, str]
"""(venue, market id)."""


@dataclass(frozen=True)
class Plan:
    """What is evaluated, until something that it rests on changes.

    Attributes:
        version: tells it from another one.
        pairs: those that count as arbitrage and that a rule is about.
        hours: of the open markets that a rule about single markets is about.
    """

    version: tuple[object, ...] = ()
    rules: Sequence[Rule] = ()
    pairs: Sequence[Pair] = ()
    hours: Mapping[Key, MarketHours] = field(default_factory=dict)
    positions: tuple[Position, ...] = ()
    fees: FeeBook | None = None


def load_plan(settings: Settings, lake: Lake, before: Plan | None = None) -> Plan:
    """What is to be evaluated now; the same object while nothing has changed.

    Raises:
        AlertError: if the rules cannot be used; positions that cannot be are logged, and stay as they were.
    """
    alerting = load_alerting(settings.alerts_file)
    rules = live_rules(alerting)
    held = () if before is None else before.positions
    if any(isinstance(rule, PriceMove) for rule in rules):
        try:
            held = own_positions(settings, lake, alerting)
        except AlertError as error:
            _log.warning("positions stay as they were: %s", error)
    edges = [rule for rule in rules if isinstance(rule, NetEdge)]
    singles = [rule for rule in rules if isinstance(rule, Spread | PriceMove)]
    version = (alerting, held, *_catalogue_version(lake, edges, singles))
    if before is not None and version == before.version:
        return before
    pairs = [
        pair
        for pair in (pipeline.load_pairs(lake) if edges else ())
        if pair.status in ACCEPTED and any(rule.wants(*pair.key) for rule in edges)
    ]
    entered = {(position.venue, position.market_id) for position in held}

    def wanted(venue: str, market_id: str) -> bool:
        return any(
            rule.wants(venue, market_id) and (isinstance(rule, Spread) or (venue, market_id) in entered)
            for rule in singles
        )

    hours = open_markets(lake, wanted) if singles else {}
    return Plan(version, rules, pairs, hours, held, FeeBook(pipeline.fee_source(settings, lake, pairs)))


def _catalogue_version(lake: Lake, edges: Sequence[NetEdge], singles: Sequence[Rule]) -> list[object]:
    """Tells one state of the pairs and their markets from another, by the manifests alone."""
    files = lake.current_files("markets") if edges or singles else []
    if edges:
        files += [*lake.files("market_matches"), *lake.files("fee_schedules")]
    return [(file.path, file.entry.sha256) for file in files]


def own_positions(settings: Settings, lake: Lake, alerting: Alerting) -> tuple[Position, ...]:
    """The positions that the rules speak of: of a file, or of the accounts for which there are credentials.

    Raises:
        AlertError: if the file cannot be used, or no account can be read.
    """
    path = alerting.positions_path(settings.alerts_file)
    if path is not None:
        return load_positions(path)
    if alerting.positions is None:
        return ()
    try:
        told = asyncio.run(pipeline.account(settings.model_copy(update={"account": False}), lake))
    except (ArbError, httpx.HTTPError) as error:
        said = str(error) if isinstance(error, VenueError) else type(error).__name__
        raise AlertError(f"positions: the account cannot be read: {said}; see 'arb account'") from error
    return tuple(position for one in told for position in positions_of_account(one.venue, one.positions))


class LiveAlerts:
    """Evaluates net edges of accepted pairs, spreads, and moves from entries, after every change of a book.

    Only what rests on the market that changed is looked at, and exact money is computed only where the gap between the
    tops exceeds what the rule asks. A condition is unknown while a book is in doubt, its connection is down, or its
    market does not trade; it is then neither told nor taken for over.

    Args:
        settings: as :func:`arb_pipeline.capture.live.begun_settings` tells them; credentials are the environment's.
        state: file that keeps what was told from one run to the next.
        refresh_s: seconds between looks for other rules, pairs and positions.
    """

    def __init__(self, settings: Mapping[str, Any], state: Path, refresh_s: float = 60.0) -> None:
        given = Settings(**settings)
        self._state = state
        self._refresh_ns = int(refresh_s * 1e9)
        # Where all is polled, nothing ticks.
        self._blind_ns = int(max(_BLIND_S, 3 * given.poll_interval_s) * 1e9)
        self._books: dict[Key, Books] = {}
        self._stopped: set[Key] = set()
        """Markets that do not trade any more, by what their venue says."""
        self._looked: dict[Key, int] = {}
        self._sound: dict[Key, bool] = {}
        """Whether a market's book was to be trusted at the last look."""
        self._moments: list[tuple[int, Key]] = []
        """A heap of the times at which a market's trading begins or ends."""
        self._clock = given.clock
        self._newest_ns = self._due_ns = self._swept_ns = 0
        self._has_begun = False
        self._plans = _Plans(given, Lake(given.lake, given.exchange_name))
        self._plans.look(_FIRST_LOOK_S)
        self._left: Sequence[Told] = ()
        """What was told before, also while there are no rules."""
        self._adopt(self._plans.newest)

    @on("snapshot", "quote", "gap_opened", "gap_closed")
    def look(self, event: BookSnapshot | Quote | GapOpened | GapClosed, context: HandlerContext) -> None:
        """A top, or the trust in it, changed."""
        self._books[context.venue, event.market_id] = context.books
        self._look((context.venue, event.market_id), context)

    @on("delta")
    def look_deeper(self, event: BookDelta, context: HandlerContext) -> None:
        """A level changed; the book is as after the whole frame, so one look a frame is enough."""
        key = context.venue, event.market_id
        watched = self._watched.get(key)
        if watched is not None and watched.pairs and self._looked.get(key) != context.at_ns:
            self._look(key, context)

    @on("market_change")
    def follow(self, event: MarketChange, context: HandlerContext) -> None:
        """A market stopped trading, or began to."""
        key = context.venue, event.market_id
        if event.change in {"deactivated", "determined", "settled"}:
            self._stopped.add(key)
        elif event.change == "activated":
            self._stopped.discard(key)
        else:
            return
        self._look(key, context)

    @on("time_passed")
    def wait(self, event: TimePassed, context: HandlerContext) -> None:
        """What holds on makes no event: the time alone tells that it lasted."""
        self._pass_time(event.at_ns)
        self._look_again(event.at_ns, context)
        for alert in self._evaluation.pass_time(event.at_ns):
            self._send(alert, context)
        if event.at_ns >= self._due_ns:
            self._due_ns = event.at_ns + self._refresh_ns
            self._plans.look()
        if self._plans.newest is not self._plan:
            self._adopt(self._plans.newest)
            for key in list(self._watched):
                self._look(key, context)

    def _look_again(self, at_ns: int, context: HandlerContext) -> None:
        """Look at what the time alone changed: trading hours, and the age of answers to polls."""
        while self._moments and self._moments[0][0] <= at_ns:
            self._look(heapq.heappop(self._moments)[1], context)
        if at_ns - self._swept_ns >= _SWEEP_NS:
            self._swept_ns = at_ns
            for key, sound in list(self._sound.items()):
                if self._books[key].in_sync(key[1]) != sound:
                    self._look(key, context)

    def _begin(self) -> None:
        """Take up what was told; the process is there before its window, in which the run before still tells."""
        self._has_begun = True
        self._left = _read_told(self._state)
        self._adopt(self._plan)

    def _pass_time(self, at_ns: int) -> None:
        if not self._has_begun:
            self._begin()
        if self._newest_ns and at_ns - self._newest_ns > self._blind_ns:
            self._evaluation.doubt()
        self._newest_ns = max(self._newest_ns, at_ns)

    def _look(self, key: Key, context: HandlerContext) -> None:
        at_ns = context.at_ns
        self._pass_time(at_ns)
        self._looked[key] = at_ns
        watched = self._of(key)
        if key in self._books and watched:
            self._sound[key] = self._books[key].in_sync(key[1])
        for pair, rules in watched.pairs:
            self._look_at_pair(pair, rules, at_ns, context)
        if not (watched.spreads or watched.moves):
            return
        hours = self._plan.hours.get(key)
        trades = hours is not None and not not_trading(hours, datetime_from_ns(at_ns))
        book = self._trusted(key) if trades else None
        venue, market_id = key
        for rule in watched.spreads:
            found = UNKNOWN if book is None else spread_finding(rule, book.top())
            self._take(rule, f"{venue} {market_id}", key, context, found)
        for move, position in watched.moves:
            found = UNKNOWN if book is None else move_finding(move, position, book.top())
            self._take(move, position.subject, key, context, found)

    def _look_at_pair(self, pair: Pair, rules: Sequence[NetEdge], at_ns: int, context: HandlerContext) -> None:
        at = datetime_from_ns(at_ns)
        kalshi, polymarket = self._book_of(pair.kalshi), self._book_of(pair.polymarket)
        books = None
        if kalshi is not None and polymarket is not None:
            books = PairBooks.of(pair, kalshi, polymarket)
        if not_trading(pair.kalshi, at) or not_trading(pair.polymarket, at):
            books = None
        assert self._plan.fees is not None
        for direction in directions(pair):
            for rule in rules:
                found = UNKNOWN if books is None else edge_finding(rule, books, direction, self._plan.fees, at)
                key = pair.kalshi.venue, pair.kalshi.market_id
                self._take(rule, subject(pair, direction), key, context, found)

    def _book_of(self, market: Market) -> OrderBook | None:
        return self._trusted((market.venue, market.market_id))

    def _trusted(self, key: Key) -> OrderBook | None:
        """The book of a market, None unless it is to be trusted."""
        books = self._books.get(key)
        if books is None or key in self._stopped or not books.in_sync(key[1]):
            return None
        book = books.book(key[1])
        return None if book is None or book.crossed or book.negative_levels else book

    def _take(self, rule: Rule, what: str, key: Key, context: HandlerContext, found: Finding) -> None:
        alert = self._evaluation.take(rule, what, *key, context.at_ns, found)
        if alert is not None:
            self._send(alert, context)

    def _send(self, alert: Alert, context: HandlerContext) -> None:
        context.send(alert)
        self._left = self._evaluation.told
        _write_told(self._state, self._left)

    def _adopt(self, plan: Plan) -> None:
        self._plan = plan
        self._evaluation = Evaluation(plan.rules, self._left)
        self._market_rules = [rule for rule in plan.rules if isinstance(rule, Spread)]
        self._watched: dict[Key, _Watched] = {}
        for pair in plan.pairs:
            rules = [rule for rule in plan.rules if isinstance(rule, NetEdge) and rule.wants(*pair.key)]
            for market in (pair.kalshi, pair.polymarket):
                self._of((market.venue, market.market_id)).pairs.append((pair, rules))
        for rule in plan.rules:
            for position in plan.positions if isinstance(rule, PriceMove) else ():
                if isinstance(rule, PriceMove) and rule.wants(position.venue, position.market_id):
                    self._of((position.venue, position.market_id)).moves.append((rule, position))
        for key in self._books:
            self._of(key)
        self._sound = {key: sound for key, sound in self._sound.items() if self._of(key)}
        since_ns = self._newest_ns or self._clock.now_ns() - _HOUR_NS
        self._moments = sorted(
            (moment_ns, key)
            for key, hours in self._hours_of(plan)
            for at in (hours.open_at, hours.close_at)
            if at is not None and (moment_ns := ns_from_datetime(at)) >= since_ns
        )

    @staticmethod
    def _hours_of(plan: Plan) -> Iterator[tuple[Key, Market | MarketHours]]:
        yield from plan.hours.items()
        for pair in plan.pairs:
            for market in (pair.kalshi, pair.polymarket):
                yield (market.venue, market.market_id), market

    def _of(self, key: Key) -> "_Watched":
        if key not in self._watched:
            self._watched[key] = _Watched([rule for rule in self._market_rules if rule.wants(*key)])
        return self._watched[key]


@dataclass(slots=True)
class _Watched:
    """What rests on one market."""

    spreads: list[Spread]
    pairs: list[tuple[Pair, list[NetEdge]]] = field(default_factory=list)
    moves: list[tuple[PriceMove, Position]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.spreads or self.pairs or self.moves)


class _Plans:
    """The newest plan; a thread looks for another one, for a catalogue takes seconds to read."""

    def __init__(self, settings: Settings, lake: Lake) -> None:
        self.newest = Plan()
        self._settings = settings
        self._lake = lake
        self._looking = threading.Lock()

    def look(self, wait_s: float = 0.0) -> None:
        """Look once more, unless the last look is still under way; wait so long for what it finds."""
        if self._looking.acquire(blocking=False):
            thread = threading.Thread(target=self._look, name="rules and pairs of alerts", daemon=True)
            thread.start()
            thread.join(wait_s)

    def _look(self) -> None:
        try:
            self._load()
        finally:
            self._looking.release()

    def _load(self) -> None:
        try:
            self.newest = load_plan(self._settings, self._lake, self.newest)
        except (ArbError, OSError, ValueError) as error:
            _log.warning("rules and pairs stay as they were: %s", error)


def _read_told(path: Path) -> list[Told]:
    """What an earlier run told and did not take back; nothing if nobody can tell."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Told])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        _log.warning("%s cannot be read, so alerts may be told again: %s", path, error)
        return []


def _write_told(path: Path, told: Sequence[Told]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f"{path.name}.{os.getpid()}.new")
        scratch.write_bytes(msgspec.json.encode(told))
        scratch.replace(path)
    except OSError as error:
        _log.warning("%s cannot be written, so alerts may be told again: %s", path, error)
