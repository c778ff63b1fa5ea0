"""Rules of ``alerts.yaml`` evaluated over the tables: at every look once, by the newest that is committed.

Net edges, spreads and moves are those of one instant, the newest that both venues have; ``for_seconds`` is measured
from look to look. What a look needs to know of the last one is its cursor, a text.
"""

import functools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import numpy as np

from arb_pipeline import pipeline
from arb_pipeline.alerting.alert import Alert
from arb_pipeline.alerting.evaluation import UNKNOWN, Evaluation, Finding, Told
from arb_pipeline.alerting.findings import gap_finding, move_finding, spread_finding, stalled_finding
from arb_pipeline.alerting.positions import Position
from arb_pipeline.alerting.rules import (
    AlertError,
    Alerting,
    CaptureStalled,
    GapShare,
    NetEdge,
    PriceMove,
    Rule,
    Spread,
    load_alerting,
)
from arb_pipeline.arbitrage.books import states_at
from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.arbitrage.streams import PairStream, load_streams
from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.evaluation import market_data
from arb_pipeline.gaps import ns_in_gaps
from arb_pipeline.live_alerts import own_positions
from arb_pipeline.market_hours import MarketHours, open_markets
from arb_pipeline.model import Top
from arb_pipeline.open_doubts import open_doubts
from arb_pipeline.pair_prices import ACCEPTED, PairBooks, directions, edge_finding, not_trading, subject
from arb_pipeline.settings import Settings
from arb_pipeline.status import CaptureRun, capture_runs
from arb_pipeline.storage.lake import HOUR_NS, Lake
from arb_pipeline.storage.latest import latest_prices
from arb_pipeline.storage.lines import Levels, lines_of
from arb_pipeline.storage.tops import read_hour, row_counts

__all__ = ["Look", "look_at_tables", "table_rules"]

_HOUR: Final = timedelta(hours=1)
_OLD: Final = timedelta(seconds=90)
"""A venue whose newest row is older is not captured: its books are unknown."""
_BLIND_NS: Final = 600_000_000_000
"""After such a pause between two looks nobody knows what happened meanwhile."""

_SIDES: Final = (("bid", 4), ("bid_size", 6), ("ask", 4), ("ask_size", 6))

Key = tuple[str, str]
"""(venue, market id)."""


class _Cursor(msgspec.Struct, frozen=True):
    at_ns: int = 0
    state: tuple[Told, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """What one look came to; ``cursor`` is for the next one, ``troubles`` say what could not be evaluated."""

    alerts: Sequence[Alert]
    cursor: str
    troubles: Sequence[str] = ()


def table_rules(alerting: Alerting) -> list[Rule]:
    """The active rules that are evaluated over the tables."""
    return [rule for rule in alerting.active if isinstance(rule, GapShare | CaptureStalled) or rule.over == "tables"]


def look_at_tables(settings: Settings, lake: Lake, cursor: str = "") -> Look:
    """Evaluate the rules over the tables at the settings' clock.

    Raises:
        AlertError: if the rules cannot be used.
    """
    alerting = load_alerting(settings.alerts_file)
    rules = table_rules(alerting)
    now = settings.clock.now()
    before = msgspec.json.decode(cursor, type=_Cursor) if cursor else _Cursor()
    now_ns = settings.clock.now_ns()
    evaluation = Evaluation(rules, before.state)
    if now_ns - before.at_ns > _BLIND_NS:
        evaluation.doubt()
    tables = _Tables(settings, lake, now)
    alerts = []
    for finding in _findings(tables, alerting, rules):
        alert = evaluation.take(*finding)
        if alert is not None:
            alerts.append(alert)
    return Look(alerts, msgspec.json.encode(_Cursor(now_ns, tuple(evaluation.state))).decode(), tables.troubles)


Found = tuple[Rule, str, str, str, int, Finding]
"""What :meth:`Evaluation.take` takes."""


def _findings(tables: "_Tables", alerting: Alerting, rules: Sequence[Rule]) -> Iterable[Found]:
    for rule in rules:
        if isinstance(rule, CaptureStalled):
            for venue in rule.venues or tables.settings.capture_venues:
                yield rule, venue, venue, "", tables.now_ns, stalled_finding(rule, tables.silent_s(venue))
        elif isinstance(rule, GapShare):
            for venue in rule.venues or tables.settings.capture_venues:
                yield rule, venue, venue, "", tables.now_ns, gap_finding(rule, tables.gap_share(venue, rule.minutes))
        elif isinstance(rule, Spread):
            for key, top in tables.tops.items():
                if rule.wants(*key):
                    found = UNKNOWN if top is None or not tables.trades(key) else spread_finding(rule, top)
                    yield rule, " ".join(key), *key, tables.newest_ns(key[0]), found
        elif isinstance(rule, PriceMove):
            yield from _moves(tables, alerting, rule)
    yield from _edges(tables, [rule for rule in rules if isinstance(rule, NetEdge)])


def _moves(tables: "_Tables", alerting: Alerting, rule: PriceMove) -> Iterable[Found]:
    for position in tables.positions(alerting):
        key = position.venue, position.market_id
        if rule.wants(*key):
            top = tables.tops.get(key)
            found = UNKNOWN if top is None or not tables.trades(key) else move_finding(rule, position, top)
            yield rule, position.subject, *key, tables.newest_ns(key[0]), found


def _edges(tables: "_Tables", rules: Sequence[NetEdge]) -> Iterable[Found]:
    if not rules:
        return
    at_ns = min(tables.newest_ns("kalshi"), tables.newest_ns("polymarket"))
    pairs = [
        pair
        for pair in pipeline.load_pairs(tables.lake)
        if pair.status in ACCEPTED and any(rule.wants(*pair.key) for rule in rules)
    ]
    books = tables.books([pair for pair in pairs if tables.may_gap(pair)], at_ns)
    fees = FeeBook(pipeline.fee_source(tables.settings, tables.lake, pairs))
    at = datetime_from_ns(at_ns)
    for pair in pairs:
        known = books.get(pair.key) if tables.may_gap(pair) else None
        for direction in directions(pair):
            for rule in rules:
                if not rule.wants(*pair.key):
                    continue
                if known is not None:
                    found = edge_finding(rule, known, direction, fees, at)
                else:
                    found = UNKNOWN if tables.may_gap(pair) or tables.doubts(pair) else Finding(False, "no gap")
                yield rule, subject(pair, direction), pair.kalshi.venue, pair.kalshi.market_id, at_ns, found


class _Tables:
    """What one look reads, each thing once."""

    def __init__(self, settings: Settings, lake: Lake, now: datetime) -> None:
        self.settings = settings
        self.lake = lake
        self.now = now
        self.now_ns = settings.clock.now_ns()
        self.troubles: list[str] = []
        self._positions: tuple[Position, ...] | None = None

    def positions(self, alerting: Alerting) -> tuple[Position, ...]:
        """The own positions; none where they cannot be read, which is a trouble."""
        if self._positions is None:
            try:
                self._positions = own_positions(self.settings, self.lake, alerting)
            except AlertError as error:
                self._positions = ()
                self.troubles.append(str(error))
        return self._positions

    @functools.cached_property
    def _runs(self) -> list[CaptureRun]:
        return capture_runs(self.settings, self.lake)

    @functools.cached_property
    def _newest(self) -> Mapping[str, int]:
        """By venue the receive time of the newest committed frame."""
        found: dict[str, int] = {}
        for file in self.lake.files("raw_frames", self.now - 24 * _HOUR, self.now + _HOUR):
            venue = file.partition.venue or ""
            found[venue] = max(found.get(venue, 0), file.entry.max_ns or 0)
        for venue in {*self.settings.capture_venues} - found.keys():
            found[venue] = self._newest_of_old(venue)
        return found

    def _newest_of_old(self, venue: str) -> int:
        """The same of a venue that was silent for a day."""
        for partition in reversed(self.lake.partitions("raw_frames", venue)):
            files = self.lake.manifest("raw_frames", partition).files
            if newest_ns := max((entry.max_ns or 0 for entry in files), default=0):
                return newest_ns
        return 0

    def newest_ns(self, venue: str) -> int:
        """Receive time of a venue's newest committed frame, 0 if there is none."""
        return self._newest.get(venue, 0)

    def _is_old(self, venue: str) -> bool:
        return self.now - datetime_from_ns(self.newest_ns(venue)) > _OLD

    def silent_s(self, venue: str) -> float | None:
        """Seconds since the last sign of life of a venue's capture; None if there never was one."""
        spoke = [
            run.spoke_at
            for run in self._runs
            if run.state == "running"
            and venue in run.venues
            and ((beat := run.venues[venue]) is None or beat.connected != 0)
        ]
        gone = [run.spoke_at for run in self._runs if venue in run.venues and run.state != "running"]
        signs = [*spoke, *gone, *([datetime_from_ns(self.newest_ns(venue))] if self.newest_ns(venue) else [])]
        return max(0.0, (self.now - max(signs)).total_seconds()) if signs else None

    def gap_share(self, venue: str, minutes: int) -> float | None:
        """Share of the market-time of the last minutes that lies in gaps; None if nothing was captured."""
        first = self.now_ns - minutes * 60 * 10**9
        gaps = self.lake.read("book_gaps", first, self.now, venue)
        quoted = row_counts(self.lake, "quotes", venue, first - first % HOUR_NS, self.now_ns)
        lasting = open_doubts(self.lake, venue, self.now)
        markets = max(len({*quoted, *gaps["market_id"].to_pylist()}), lasting.markets)
        in_doubt = ns_in_gaps(gaps, first, self.now_ns) + lasting.market_ns(first, self.now_ns)
        return min(1.0, in_doubt / (markets * (self.now_ns - first))) if markets else None

    @functools.cached_property
    def tops(self) -> Mapping[Key, Top | None]:
        """The newest top of every market with a quote of the last day; None where it is not to be trusted.

        A quote stands for as long as the connection that it came over: what a market was afterwards is told by
        the books of the hour.
        """
        found: dict[Key, Top | None] = {}
        left: dict[str, list[str]] = defaultdict(list)
        for row in latest_prices(self.now, lake=self.lake).to_pylist():
            key = row["venue"], row["market_id"]
            found[key] = None
            if self._is_old(key[0]):
                continue
            if row["connection_id"] in self._ended:
                left[key[0]].append(key[1])
            elif row["in_sync"] and key not in self._doubted and self._is_answered(row):
                bid, bid_size, ask, ask_size = (_scaled(row[name], digits) for name, digits in _SIDES)
                found[key] = _sound((bid, bid_size, ask, ask_size))
        for venue, markets in left.items():
            found.update(self._taken_over(venue, sorted(markets)))
        return found

    @functools.cached_property
    def _ended(self) -> Collection[str]:
        """The connections of the last day whose end is told."""
        columns = ["connection_id", "ended_at"]
        sessions = self.lake.read("capture_sessions", self.now - 25 * _HOUR, self.now, columns=columns)
        ends = zip(sessions["connection_id"].to_pylist(), sessions["ended_at"].to_pylist(), strict=True)
        return {name for name, ended in ends if ended is not None}

    @functools.cached_property
    def _doubted(self) -> Collection[Key]:
        """Markets in a gap at their venue's newest instant."""
        gaps = self.lake.read("book_gaps", self.now - _OLD, self.now).to_pylist()
        return {
            (gap["venue"], gap["market_id"])
            for gap in gaps
            if gap["from_ns"] <= self.newest_ns(gap["venue"])
            and (gap["to_ns"] is None or gap["to_ns"] > self.newest_ns(gap["venue"]))
        }

    @functools.cached_property
    def _answers(self) -> Mapping[str, int]:
        """By polled connection the receive time of its newest answer of this hour and the last."""
        columns = ["connection_id", "recv_ns"]
        frames = self.lake.read("raw_frames", self.now - 2 * _HOUR, self.now, columns=columns, source="rest")
        newest = frames.group_by("connection_id").aggregate([("recv_ns", "max")])
        return dict(zip(newest["connection_id"].to_pylist(), newest["recv_ns_max"].to_pylist(), strict=True))

    def _is_answered(self, row: Mapping[str, Any]) -> bool:
        """Whether the connection of a quote, if it is polled, has an answer that is young enough."""
        if row["source"] != "rest":
            return True
        answered_ns: int = max(row["recv_ns"], self._answers.get(row["connection_id"], 0))
        return self.newest_ns(row["venue"]) <= answered_ns + self._max_age_ns

    @property
    def _max_age_ns(self) -> int:
        return round(self.settings.max_quote_age_s * 10**9)

    def _taken_over(self, venue: str, markets: Sequence[str]) -> dict[Key, Top | None]:
        """The tops of markets whose newest quote is of a connection that ended, as others know them by now."""
        at_ns = self.newest_ns(venue)
        hour = read_hour(self.lake, venue, at_ns - at_ns % HOUR_NS, at_ns + 1, markets)
        # Pushed connections prove themselves by heartbeats that stand in no table.
        alive = {
            name: min(newest_ns + self._max_age_ns, at_ns) if name in self._answers else at_ns
            for name, newest_ns in hour.newest.items()
        }
        at = np.array([at_ns])
        found: dict[Key, Top | None] = {}
        for market, lines in zip(markets, lines_of(replace(hour, newest=alive), markets), strict=True):
            known = [line.events for line in lines if line.known.contains(at)[0]]
            newest = max(known, key=lambda events: int(events.times[-1]), default=None)
            levels = None if newest is None else newest.levels()
            found[venue, market] = None if levels is None else _sound(_top_of(levels))
        return found

    @functools.cached_property
    def _hours(self) -> Mapping[Key, MarketHours]:
        return open_markets(self.lake, lambda venue, market_id: (venue, market_id) in self.tops)

    def trades(self, key: Key) -> bool:
        """Whether a market trades at the time of the look, by the newest catalogue."""
        hours = self._hours.get(key)
        return hours is not None and not not_trading(hours, self.now)

    def doubts(self, pair: Pair) -> bool:
        """Whether one of the pair's tops is not known, or one of its markets does not trade."""
        markets = (pair.kalshi, pair.polymarket)
        return any(
            self.tops.get((one.venue, one.market_id)) is None or not_trading(one, self.now) != "" for one in markets
        )

    def may_gap(self, pair: Pair) -> bool:
        """Whether the trusted tops of a pair leave a gap in either direction; only then its books are read."""
        if self.doubts(pair):
            return False
        kalshi, polymarket = (self.tops[one.venue, one.market_id] for one in (pair.kalshi, pair.polymarket))
        assert kalshi is not None
        assert polymarket is not None
        bid, _, ask, _ = polymarket
        if pair.inverted:
            bid, ask = (None if price is None else 10_000 - price for price in (ask, bid))
        return _above(bid, kalshi[2]) or _above(kalshi[0], ask)

    def books(self, pairs: Sequence[Pair], at_ns: int) -> Mapping[Key, PairBooks]:
        """The books of the pairs at an instant, by key; those that fail a guard are left out."""
        if not pairs:
            return {}
        at = datetime_from_ns(at_ns)
        start = at.replace(minute=0, second=0, microsecond=0)
        end = at + timedelta(microseconds=1)
        markets = {market_id for pair in pairs for market_id in pair.key}
        data = market_data(self.settings, self.lake, start, end, markets)
        streams = load_streams(pairs, data, at_ns + 1, self.settings)
        found = {}
        for pair in pairs:
            [state] = states_at(PairStream.of(pair, streams), [at_ns])
            if state.kalshi is not None and state.polymarket is not None and not state.reasons:
                found[pair.key] = PairBooks(pair, state.kalshi, state.polymarket)
        return found


def _top_of(levels: Levels) -> Top:
    """The top of a book without negative sizes: levels with one are none."""
    keys, sizes = levels
    sides: list[int | None] = []
    for is_ask, best in ((0, -1), (1, 0)):
        at = np.flatnonzero(keys % 2 == is_ask)
        sides += [int(keys[at[best]]) // 2, int(sizes[at[best]])] if len(at) else [None, None]
    bid, bid_size, ask, ask_size = sides
    return bid, bid_size, ask, ask_size


def _sound(top: Top) -> Top | None:
    """A top that can be: not crossed, and with sizes above 0."""
    bid, bid_size, ask, ask_size = top
    crossed = bid is not None and ask is not None and bid >= ask
    return None if crossed or min(bid_size or 1, ask_size or 1) < 0 else top


def _above(bid: int | None, ask: int | None) -> bool:
    return bid is not None and ask is not None and bid > ask


def _scaled(value: Any, digits: int) -> int | None:
    """The integer behind a decimal of the tables."""
    return None if value is None else int(value.scaleb(digits))
