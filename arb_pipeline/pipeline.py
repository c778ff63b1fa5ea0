"""The pipeline's steps over a lake, as plain functions: discover, match, capture, evaluate, report.

The command line and Dagster's assets call these, so that neither of them holds logic. What is heavy to load
(scikit-learn, matplotlib) is loaded by the step that needs it.
"""

import hashlib
import json
import logging
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import httpx
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.arbitrage.basis import basis_rows, is_one_proposition
from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.opportunities import funnel
from arb_pipeline.arbitrage.pairs import Direction, MarketData, Pair
from arb_pipeline.arbitrage.spreads import break_even, latest_spreads
from arb_pipeline.baskets import EvaluatedBaskets, evaluate_hour_of_baskets
from arb_pipeline.capture.encoder import finish_journals
from arb_pipeline.capture.export import Exported, export
from arb_pipeline.capture.journal import journal_root
from arb_pipeline.capture.monitor import CaptureMonitor
from arb_pipeline.capture.recorder import Recorder
from arb_pipeline.capture.rows import ConnectionRows, GapLedger, RowWriter
from arb_pipeline.capture.serve import run_until_signalled
from arb_pipeline.capture.summary import CaptureStatus, CaptureSummary
from arb_pipeline.clock import Clock, datetime_from_ns, ns_from_datetime
from arb_pipeline.errors import ArbError
from arb_pipeline.evaluation import HourBooks, HourEvaluation, evaluate_pairs
from arb_pipeline.evaluation import market_data as _market_data
from arb_pipeline.handlers.config import HandlerConfig
from arb_pipeline.matching.versions import (
    HOPEFUL,
    current_matches,
    matches_as_of,
    record_matches,
    status_before_end,
    with_expired,
)
from arb_pipeline.model import Market, MatchStatus, Relation
from arb_pipeline.recordings import check_target
from arb_pipeline.settings import Settings
from arb_pipeline.storage.as_of import copy_known
from arb_pipeline.storage.catalogue import newest_markets, read_events, read_markets, write_catalogue
from arb_pipeline.storage.fee_schedules import has_fee_schedules, read_fee_changes, record_fee_changes
from arb_pipeline.storage.history import markets_between, record_changes, record_markets
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.storage.mirroring import mirror_tables
from arb_pipeline.storage.outcome_sets import current_outcome_sets, record_outcome_sets
from arb_pipeline.tables import TABLES
from arb_pipeline.universe import Following, count_listeners, universe
from arb_pipeline.venues import VENUES
from arb_pipeline.venues import venue as registered
from arb_pipeline.venues.base import Account, FeeModel, Progress
from arb_pipeline.venues.fee_timeline import FeeChanges

if TYPE_CHECKING:
    from arb_pipeline.matching.overrides import Decision
    from arb_pipeline.matching.review import Case
    from arb_pipeline.reports import ReportFiles, ReportInputs

__all__ = [
    "Discovery",
    "Matched",
    "Report",
    "account",
    "capture",
    "count_listeners",
    "discover",
    "evaluate_basis",
    "evaluate_baskets",
    "evaluate_hour",
    "evaluate_hours",
    "evaluate_matches",
    "fee_source",
    "load_pairs",
    "market_fees",
    "match_markets",
    "newest_spreads",
    "record",
    "report",
    "report_as_of",
    "review_cases",
    "review_page",
    "settle",
    "universe",
]

_log = logging.getLogger(__name__)

_SETTLES_WITHIN = timedelta(days=60)
"""Time after the end of a pair in which its results are still asked for: disputes take weeks."""
_LOOKUPS = 200
"""Markets of a venue at most that one settlement asks it for."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What one listing of a venue came to; ``rows`` of ``market_history`` are markets new, changed or gone."""

    fetched_at: datetime
    rows: dict[str, int]
    requests: int
    retries: int


async def discover(venue: str, settings: Settings, lake: Lake, progress: Progress | None = None) -> Discovery:
    """List a venue's open events with their markets, write them to the lake, and record what changed since the last.

    Raises:
        VenueError, HttpStatusError, httpx.TransportError: if the venue cannot be listed; the lake is left as it was.
    """
    listed = registered(venue)
    async with listed.rest_client(settings) as client:
        events = [event async for event in listed.catalogue(client, settings, progress)]
        fetched_at = settings.clock.now()
        rows = write_catalogue(lake, venue, events, fetched_at)
        rows["market_history"] = record_changes(lake, venue, fetched_at)
        mirror_tables(settings, lake, "events", "markets", day=fetched_at.date())
        known = read_fee_changes(lake, venue)
        told = await listed.fee_changes(client, settings, events, fetched_at, known)
        rows["fee_schedules"] = record_fee_changes(lake, venue, told, fetched_at)
        mirror_tables(settings, lake, "market_history", "fee_schedules")
        return Discovery(fetched_at, rows, client.requests, client.retries)


@dataclass(frozen=True, slots=True)
class Matched:
    """What a run of the matcher came to.

    Attributes:
        matches: the statements that hold now, rows of ``market_matches``.
        review: what waits for a person, rows of ``match_review``.
        outcome_sets: the newest row of every event of several outcomes.
        changes: how many statements are added, changed, ended, unchanged.
        absent: decisions of ``matches.yaml`` about a market that no catalogue lists.
        reopened: (Kalshi ticker, condition id, venues) of decisions whose rules have changed since.
    """

    matches: pa.Table
    review: pa.Table
    outcome_sets: pa.Table
    changes: Counter[str]
    absent: tuple["Decision", ...]
    reopened: tuple[tuple[str, str, tuple[str, ...]], ...]


def match_markets(settings: Settings, lake: Lake) -> Matched:
    """Pair the newest catalogues, write what changed to ``market_matches`` and ``outcome_sets``, and the queue anew.

    Raises:
        ArbError: if nothing was discovered yet.
        OverrideError: if the file of people's decisions is not valid.
    """
    from arb_pipeline.matching.matcher import Memory, match
    from arb_pipeline.matching.outcome_sets import outcome_sets
    from arb_pipeline.matching.overrides import load_overrides
    from arb_pipeline.matching.review import cases, queue, queue_table

    at = settings.clock.now()
    overrides = load_overrides(settings.matches_path)
    kalshi, polymarket = read_events(lake, "kalshi"), read_events(lake, "polymarket")
    if not (kalshi or polymarket):
        raise ArbError(f"the lake {lake.root} holds no market of either venue: run 'arb discover' first")
    memory = Memory()
    result = match(kalshi, polymarket, overrides, at, memory)
    markets = {(market.venue, market.market_id): market for event in (*kalshi, *polymarket) for market in event.markets}
    rows = with_expired(result.matches_table().to_pylist(), current_matches(lake).to_pylist(), markets)
    changes = record_matches(lake, rows, at)
    stated = cases(rows, markets, overrides)
    review = queue_table(queue(stated))
    lake.replace("match_review", Partition(), review)
    matches = current_matches(lake)
    record_outcome_sets(lake, outcome_sets([*kalshi, *polymarket], matches.to_pylist(), at, memory), at)
    mirror_tables(settings, lake, "market_matches", "match_review", "outcome_sets")
    reopened = tuple((*case.pair, case.reopened) for case in stated if case.reopened)
    return Matched(matches, review, current_outcome_sets(lake), changes, result.absent, reopened)


def review_cases(settings: Settings, lake: Lake) -> "tuple[list[Case], dict[tuple[str, str], Market]]":
    """The pairs that hold now with their markets and what ``matches.yaml`` says of them today, and all markets.

    Raises:
        OverrideError: if the file of people's decisions is not valid.
    """
    from arb_pipeline.matching.overrides import load_overrides
    from arb_pipeline.matching.review import cases

    markets = {(market.venue, market.market_id): market for market in read_markets(lake)}
    rows = current_matches(lake).to_pylist()
    return cases(rows, markets, load_overrides(settings.matches_path)), markets


def review_page(settings: Settings, lake: Lake, path: Path) -> Path:
    """Write the review page: what waits for a person, with both rules side by side.

    Raises:
        OverrideError: if the file of people's decisions is not valid.
    """
    from arb_pipeline.matching.review import queue, rules_changes
    from arb_pipeline.reports.review import ReviewInputs, build_review

    waiting = queue(review_cases(settings, lake)[0])
    inputs = ReviewInputs(
        waiting,
        current_matches(lake),
        changes={case.pair: rules_changes(lake, case) for case in waiting if case.reopened},
        options=() if settings.lake == Settings.model_fields["lake"].default else ("--lake", settings.lake),
        matches_path=settings.matches_path,
        exchange=settings.exchange_name,
        generated_at=settings.clock.now(),
    )
    return build_review(inputs, path)


async def settle(settings: Settings, lake: Lake) -> pa.Table:
    """Compare how the pairs that are over were resolved, and write ``settlement_agreement``; returns its rows.

    A market that is over leaves the listings, so those without a result are asked for by name first; what a venue does
    not answer waits for the next time.
    """
    from arb_pipeline.matching.settlement import settle as compare
    from arb_pipeline.matching.settlement import unresolved

    now = settings.clock.now()
    for name, market_ids in unresolved(lake, now - _SETTLES_WITHIN).items():
        found = await _look_up(settings, name, market_ids[:_LOOKUPS])
        if found:
            record_markets(lake, name, found, settings.clock.now())
    rows = compare(lake, now)
    lake.replace("settlement_agreement", Partition(), rows)
    mirror_tables(settings, lake, "market_history", "settlement_agreement")
    return rows


def evaluate_matches(settings: Settings, lake: Lake) -> pa.Table | None:
    """Measure the matcher on the configured file of labelled pairs and add the figures to ``match_evaluation``.

    Returns:
        The rows added; None if no file is configured.

    Raises:
        ValueError: at the first line of the file that is not a labelled pair.
        OSError: if it cannot be read.
    """
    from arb_pipeline.matching.evaluation import evaluate_file
    from arb_pipeline.matching.matcher import MATCHER_VERSION

    path = settings.labelled_pairs
    if path is None:
        return None
    at = settings.clock.now()
    document: Mapping[str, Any] = evaluate_file(path).to_json()
    common = {
        "evaluated_at": at,
        "file": path.name,
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "matcher_version": MATCHER_VERSION,
    }
    measured = {**document["families"], "held_out": document["held_out"], "overall": document["overall"]}
    rows = pa.Table.from_pylist(
        [
            {**common, "family": family, "metric": metric, "value": float(value)}
            for family, metrics in measured.items()
            for metric, value in metrics.items()
            if isinstance(value, int | float)
        ],
        TABLES["match_evaluation"].schema,
    )
    partition = Partition.of("match_evaluation", None, at)
    lake.update("match_evaluation", partition, lambda held: pa.concat_tables([held, rows]))
    mirror_tables(settings, lake, "match_evaluation", day=partition.date)
    return rows


async def _look_up(settings: Settings, venue: str, market_ids: Sequence[str]) -> list[Market]:
    """Those of the markets that the venue tells of, listed or not; a venue that does not answer is asked no more."""
    if not market_ids:
        return []
    asked, found = registered(venue), list[Market]()
    async with asked.rest_client(settings, asked.credentials(settings)) as client:
        for market_id in market_ids:
            try:
                told = await asked.find_markets(client, market_id)
            except ArbError as error:
                _log.warning("%s: market %s cannot be looked up: %s", venue, market_id, error)
                continue
            except httpx.HTTPError as error:
                _log.warning("%s does not answer, so its results wait: %r", venue, error)
                break
            found += [market for market in told if market.market_id == market_id]
    return found


def capture(
    settings: Settings,
    lake: Lake,
    venues: Collection[str] = (),
    progress: Progress | None = None,
    *,
    into: Lake | None = None,
    shard: tuple[int, int] = (0, 1),
    handlers: Sequence[HandlerConfig] = (),
) -> CaptureSummary:
    """Capture live order books until a signal, or until ``settings.max_seconds`` are over. Call it in the main thread.

    ``lake`` knows the markets; the rows go there too, or ``into`` another one. ``shard`` (k, n) captures the k-th of n
    parts of the markets, 0 first. ``handlers`` are told of it, besides those of the listeners' file.

    Raises:
        ArbError: if no market is known, or no venue can be captured.
    """
    markets = universe(settings, lake, venues)
    if not any(markets.values()):
        raise ArbError(
            f"the lake {lake.root} holds no open market of {', '.join(markets)} that a listener of "
            f"{settings.listeners_path} selects: run 'arb discover' first, and see 'arb listeners list'"
        )

    async def on_progress(status: CaptureStatus) -> None:
        await monitor.observe(status)
        if progress is not None:
            for name, figures in status.venues.items():
                progress(f"{name} frames", figures.frames)

    run_id = f"cli-{uuid.uuid4().hex[:12]}"
    target = into or lake
    following = Following(settings, lake, markets)
    recorder = Recorder(
        settings, target, settings.clock, run_id, markets, shard=shard, universe=following, handlers=handlers
    )
    with CaptureMonitor(settings, target, run_id, markets, shard=shard, announce=into is None) as monitor:
        summary = run_until_signalled(lambda stop: recorder.run(stop, on_progress))
        monitor.finished(summary)
    if summary.stop_reason == "nothing_to_capture":
        reasons = "; ".join(figures.message for figures in summary.venues.values() if figures.message)
        raise ArbError(f"nothing to capture: {reasons}")
    return summary


def record(
    settings: Settings, lake: Lake, target: Path, venues: Collection[str] = (), progress: Progress | None = None
) -> tuple[CaptureSummary, Exported]:
    """Capture as :func:`capture` does, into a recording in the new or empty folder ``target``; the lake stays as it is.

    Raises:
        ArbError: as :func:`capture`, and if nothing was received.
        RecordingError: if the target holds something.
    """
    # Before a capture of hours, not after it.
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        captured = Lake(f"{folder}/lake", lake.exchange_name)
        # The recording is made of the lake alone.
        changes = {"lake": captured.root, "journal": Path(folder) / "journal", "postgres_url": None}
        own = settings.model_copy(update=changes)
        summary = capture(own, lake, venues, progress, into=captured)
        # A stop does not wait long for a slow encoder, but a recording wants all of it.
        finish_journals(journal_root(own.journal, captured.root), captured)
        return summary, export(captured, target, catalogue=lake, progress=progress)


async def account(settings: Settings, lake: Lake, venues: Collection[str] = ()) -> list[Account]:
    """Balance, positions and fills at each venue with credentials; rows of ``account_events`` too with ``ARB_ACCOUNT``.

    Raises:
        ArbError: if no venue that tells them over REST has credentials, or they are not usable.
        HttpStatusError, httpx.TransportError: if a venue refuses or does not answer.
    """
    found: list[Account] = []
    for name in venues or VENUES:
        asked = registered(name)
        credentials = asked.credentials(settings)
        if credentials is None:
            continue
        async with asked.rest_client(settings, credentials) as client:
            told = await asked.account(client, settings.clock.now_ns())
        if told is None:
            continue
        found.append(told)
        if settings.account:
            _keep_account(lake, told, settings.clock.now_ns())
    if not found:
        raise ArbError(
            "no credentials of an account that can be read: set KALSHI_API_KEY_ID and KALSHI_PRIVATE_KEY_PATH "
            "(or KALSHI_PRIVATE_KEY)"
        )
    return found


def _keep_account(lake: Lake, told: Account, now_ns: int) -> None:
    run_id = f"account-{uuid.uuid4().hex[:12]}"
    rows = RowWriter(run_id, now_ns, exchange=lake.exchange_name)
    ConnectionRows(rows, told.venue, run_id, now_ns).write([*told.events, *told.anomalies], GapLedger())
    for (name, partition), table in rows.drain().tables().items():
        lake.write_part(name, partition, table, run_id)


def load_pairs(
    lake: Lake,
    at: datetime | None = None,
    known_at: datetime | None = None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Pair]:
    """Pairs that are not ruled out, with their markets; a pair whose market is not known (as told below) is left out.

    Args:
        at: pairs as they stood at this instant; None: as they stand now.
        known_at: by what was known then; None: by all we know.
        since: of the pairs as they stand now, also those that were not over yet at this instant, as they stood before:
            an hour is evaluated with all that could be traded in it. Markets are as the newest catalogue tells them
            that has them; without this argument, as the newest of all does.
        until: markets as they stood between ``since`` and then, whatever has become of them.

    Raises:
        ValueError: if a stored pair contradicts itself.
    """
    rows = current_matches(lake) if at is None else matches_as_of(lake, at, known_at)
    hopeful = []
    for row in rows.to_pylist():
        status = status_before_end(row) if since is not None and row["valid_from"] > since else row["status"]
        if status in HOPEFUL:
            hopeful.append((row, status, [(venue, row[f"{venue}_market_id"]) for venue in ("kalshi", "polymarket")]))
    keys = {key for _, _, legs in hopeful for key in legs}
    if since is None:
        markets = {(market.venue, market.market_id): market for market in read_markets(lake)}
    elif until is None:
        markets = newest_markets(lake, keys)
    else:
        markets = markets_between(lake, keys, since, until)
    pairs = []
    for row, status, legs in hopeful:
        kalshi, polymarket = map(markets.get, legs)
        if kalshi is not None and polymarket is not None:
            index = row["polymarket_yes_index"]
            pairs.append(
                Pair(
                    kalshi=kalshi,
                    polymarket=polymarket,
                    relation=Relation(row["relation"]),
                    status=MatchStatus(status),
                    polymarket_yes_index=index,
                    void_states=_void_states(row["explanation"], index, status, Relation(row["relation"])),
                )
            )
    return pairs


def _void_states(
    explanation: str, polymarket_yes_index: int, status: str, relation: Relation
) -> dict[str, tuple[Decimal, Decimal]] | None:
    """Payouts of the pair's proposition in exceptional states; None if nobody knows them.

    As a person read them; of a pair that no person has seen (``auto``), as the rules were compared. What is told is
    what YES pays on each venue; the proposition of an inverted pair, and of an exclusive one, is Polymarket's NO.
    """
    turned = (polymarket_yes_index == 1) != (relation is Relation.EXCLUSIVE)
    facts = json.loads(explanation)
    told = facts.get("override", {}).get("void_states")
    if not told:
        if status != MatchStatus.AUTO or facts.get("void_states") is None:
            return None
        told = facts["void_states"]
    states = {}
    for name, pays in told.items():
        polymarket = Decimal(pays["polymarket"])
        states[name] = (Decimal(pays["kalshi"]), 1 - polymarket if turned else polymarket)
    return states


def _pairs_of_hour(lake: Lake, start: datetime) -> list[Pair]:
    return load_pairs(lake, since=start, until=start + timedelta(hours=1))


def evaluate_hour(settings: Settings, lake: Lake, start: datetime) -> HourEvaluation:
    """Evaluate every pair over the hour that begins at ``start``, as far as it has gone, and write what was found.

    The hour's ``spreads`` and ``opportunity_pieces`` are replaced, the episodes that reach into it joined anew, and the
    funnels of their days counted anew: in whatever order hours are evaluated, and however often, the same is there.

    Raises:
        ValueError: if the hour has not begun.
    """
    pairs = _pairs_of_hour(lake, start)
    return evaluate_pairs(settings, lake, pairs, fee_source(settings, lake, pairs), start)


def evaluate_basis(settings: Settings, lake: Lake, start: datetime) -> pa.Table:
    """How far apart the books of each pair were in the hour that begins at ``start``, and which of them moved first.

    The hour's ``basis`` is replaced. Pairs are those whose markets ask the same, approved or not, with both books
    captured; some at a time are read.

    Raises:
        ValueError: if the hour has not begun.
    """
    end = min(start + timedelta(hours=1), settings.clock.now())
    if end <= start:
        raise ValueError(f"the hour from {start.isoformat()} has not begun: evaluate it once it has")
    pairs = [pair for pair in _pairs_of_hour(lake, start) if is_one_proposition(pair)]
    fees, books = fee_source(settings, lake, pairs), HourBooks(settings, lake, pairs, start, end)
    rows: list[dict[str, Any]] = []
    for batch, data in books.batches():
        rows += basis_rows(batch, data, start, end, settings, fees, books.polls)
    found = pa.Table.from_pylist(rows, TABLES["basis"].schema)
    lake.replace("basis", Partition.of("basis", None, start), found)
    mirror_tables(settings, lake, "basis", day=start.date())
    return found


def evaluate_baskets(settings: Settings, lake: Lake, start: datetime) -> EvaluatedBaskets:
    """Evaluate every basket over the hour that begins at ``start``, as far as it has gone, and write what was found.

    The hour's ``basket_pieces`` are replaced, and the episodes that reach into it joined anew.

    Raises:
        ValueError: if the hour has not begun.
    """
    end = min(start + timedelta(hours=1), settings.clock.now())
    if end <= start:
        raise ValueError(f"the hour from {start.isoformat()} has not begun: evaluate it once it has")

    def fees(markets: Iterable[Market]) -> Callable[[Market, datetime], FeeModel]:
        return market_fees(settings, lake, markets)

    found = evaluate_hour_of_baskets(settings, lake, start, end, _pairs_of_hour(lake, start), fees)
    mirror_tables(settings, lake, "basket_pieces", day=start.date())
    for day in found.days:
        mirror_tables(settings, lake, "basket_opportunities", day=day)
    return found


def evaluate_hours(
    settings: Settings, lake: Lake, start: datetime, end: datetime, progress: Progress | None = None
) -> pa.Table:
    """Evaluate every captured hour that overlaps [start, end); returns the opportunities that opened in it."""
    first = start.replace(minute=0, second=0, microsecond=0)
    hours = {
        datetime_from_ns(bounds[0])
        for partition in lake.partitions("quotes")
        if (bounds := partition.bounds) is not None and first <= datetime_from_ns(bounds[0]) < end
    }
    for number, hour in enumerate(sorted(hours), 1):
        evaluate_hour(settings, lake, hour)
        evaluate_basis(settings, lake, hour)
        evaluate_baskets(settings, lake, hour)
        if progress is not None:
            progress("hours evaluated", number)
    return lake.read("opportunities", start, end)


def newest_spreads(settings: Settings, lake: Lake, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """The newest row of ``spreads`` of every pair that tells a gap, with the fees of both legs at the tops.

    ``fees_<direction>`` are unrounded dollars per contract, ``net_<direction>`` the gap less them (also where it is
    negative, which the table leaves out); None where unknown.
    """
    pairs = {pair.key: pair for pair in load_pairs(lake, since=start)}
    fees = FeeBook(fee_source(settings, lake, pairs.values()))
    rows: list[dict[str, Any]] = latest_spreads(lake.read("spreads", start, end)).to_pylist()
    for row in rows:
        pair = pairs.get((row["kalshi_market_id"], row["polymarket_market_id"]))
        for direction in get_args(Direction):
            paid = None if pair is None else _fees_at_top(pair, direction, row, fees)
            gap = row[f"gap_{direction}"]
            row[f"fees_{direction}"] = paid
            row[f"net_{direction}"] = None if paid is None or gap is None else gap - paid
    return rows


def _fees_at_top(pair: Pair, direction: Direction, row: Mapping[str, Any], fees: FeeBook) -> Decimal | None:
    yes, no = ("kalshi", "polymarket") if direction == "yes_kalshi" else ("polymarket", "kalshi")
    ask, bid = row[f"{yes}_ask"], row[f"{no}_bid"]
    if ask is None or bid is None:
        return None
    at = datetime_from_ns(row["recv_ns"])
    return break_even(pair, direction, fees=fees, at=at, yes_price=ask, no_price=1 - bid)


@dataclass(frozen=True, slots=True)
class Report:
    """A report's files, and what they are made of."""

    files: "ReportFiles"
    inputs: "ReportInputs"


def report(settings: Settings, lake: Lake, start: datetime, end: datetime) -> Report:
    """Write the report over [start, end) into the folder of the day on which it ends."""
    from arb_pipeline.reports import build_report

    inputs = _report_inputs(settings, lake, start, end)
    folder = settings.reports_path / end.date().isoformat()
    review_page(settings, lake, folder / "review.html")
    return Report(build_report(inputs, folder), inputs)


def report_as_of(
    settings: Settings, lake: Lake, start: datetime, at: datetime, progress: Progress | None = None
) -> Report:
    """Write the report over [start, at) by what was known at ``at``, into a folder of its own.

    Pairs, catalogues, fees, results and books as they were known then go to a lake of their own that does not last, and
    are evaluated there: nothing that became known later can change a byte of the page. This lake is only read.

    Raises:
        ValueError: if ``at`` is yet to come, or does not lie after ``start``.
    """
    from arb_pipeline.reports import build_report

    if not start < at <= settings.clock.now():
        raise ValueError(f"as of {at.isoformat()} is not between {start.isoformat()} and now: give a past instant")
    with tempfile.TemporaryDirectory(prefix="arb-as-of-") as folder:
        then = Lake(folder, settings.exchange_name)
        copy_known(lake, then, start, at, timedelta(seconds=settings.max_quote_age_s))
        stopped = _Stopped.at(settings, at)
        evaluate_hours(stopped, then, start, at, progress)
        inputs = replace(_report_inputs(stopped, then, start, at), as_of=at, files=None)
        return Report(build_report(inputs, settings.reports_path / f"as-of-{at:%Y-%m-%dT%H%M%S}Z"), inputs)


class _Stopped(Settings):
    """Settings with a clock that stands still, and without a Postgres to mirror to."""

    stopped_ns: int = 0

    @classmethod
    def at(cls, settings: Settings, at: datetime) -> "_Stopped":
        """These settings at an instant."""
        return cls.model_construct(**{**dict(settings), "postgres_url": None, "stopped_ns": ns_from_datetime(at)})

    @property
    def clock(self) -> Clock:
        return Clock(source=lambda: self.stopped_ns)


def _report_inputs(settings: Settings, lake: Lake, start: datetime, end: datetime) -> "ReportInputs":
    """What a report over [start, end) is made of."""
    from arb_pipeline.reports import ReportInputs
    from arb_pipeline.reports.gather import files_of, newest_sets, newest_tops, quote_quality

    pairs = load_pairs(lake, since=start)
    markets = read_markets(lake)
    opportunities = lake.read("opportunities", start, end)
    agreement = lake.current("settlement_agreement")
    sets = newest_sets(lake.read("outcome_sets", end=end))
    outcomes = {name for told in sets["market_ids"].to_pylist() for name in json.loads(told)}
    partners = {name for pair in pairs if outcomes & set(pair.key) for name in pair.key}
    category = {event.event_id: event.category for event in read_events(lake, "kalshi", nested=False)}
    return ReportInputs(
        start=start,
        end=end,
        spreads=lake.read("spreads", start, end),
        opportunities=opportunities,
        rejections=funnel(opportunities, end.date()),
        matches=current_matches(lake),
        book_gaps=lake.read("book_gaps", start, end),
        capture_sessions=lake.read("capture_sessions", start, end),
        execution_backtest=_within(lake.read("execution_backtest", start, end), "opened_at", start, end),
        basis=lake.read("basis", start, end),
        outcome_sets=sets,
        basket_opportunities=lake.read("basket_opportunities", start, end),
        settlement_agreement=agreement,
        match_evaluation=lake.read("match_evaluation", end=end),
        tops=newest_tops(lake, start, end, outcomes | partners),
        settled=lake.read("opportunities", end=end, markets=agreement["kalshi_market_id"].to_pylist()),
        quote_quality=quote_quality(lake, start, end),
        files=files_of(lake, start, end),
        pairs=pairs,
        markets=markets,
        fees=fee_source(settings, lake, pairs),
        settings=settings,
        books=partial(_books_at, settings, lake),
        categories={
            market.market_id: category[market.event_id]
            for market in markets
            if market.venue == "kalshi" and category.get(market.event_id)
        },
        exchange=settings.exchange_name,
        universe=Counter(market.venue for market in markets),
        parameters={
            "oldest proof of life of a connection": f"{settings.max_quote_age_s:g} s",
            "smallest net profit": f"${settings.min_net_usd:g}",
            "shortest episode": f"{settings.burst_ms:g} ms",
            "Kalshi account": settings.kalshi_account,
        },
        generated_at=end,
    )


def _within(rows: pa.Table, column: str, start: datetime, end: datetime) -> pa.Table:
    """Rows of [start, end), where the table's partitions are coarser than that."""
    low, high = (pa.scalar(at, rows.schema.field(column).type) for at in (start, end))
    return rows.filter(pc.and_(pc.greater_equal(rows[column], low), pc.less(rows[column], high)))


def _books_at(settings: Settings, lake: Lake, kalshi: str, polymarket: str, at: datetime) -> MarketData:
    """The books of a pair from the start of the hour to an instant."""
    hour = at.replace(minute=0, second=0, microsecond=0)
    return _market_data(settings, lake, hour, at + timedelta(microseconds=1), {kalshi, polymarket})


def fee_source(
    settings: Settings, lake: Lake, pairs: Iterable[Pair], known_at: datetime | None = None
) -> Callable[[Market, datetime], FeeModel]:
    """As :func:`market_fees`, of the pairs' markets."""
    markets = [market for pair in pairs for market in (pair.kalshi, pair.polymarket)]
    return market_fees(settings, lake, markets, known_at)


def market_fees(
    settings: Settings, lake: Lake, markets: Iterable[Market], known_at: datetime | None = None
) -> Callable[[Market, datetime], FeeModel]:
    """The fees of these markets at a time, by all that is known of their parameters, or was known then."""
    ids = {name for market in markets for name in (market.series_id, market.event_id, market.market_id)}
    changes = FeeChanges(
        [change for venue in VENUES for change in read_fee_changes(lake, venue, ids, known_at)],
        [venue for venue in VENUES if has_fee_schedules(lake, venue, known_at)],
    )
    return lambda market, at: VENUES[market.venue].fees(market, at, settings, changes)
