"""The pipeline's steps over a lake, as plain functions: discover, match, capture, evaluate, report.

The command line and Dagster's assets call these, so that neither of them holds logic. What is heavy to load
(scikit-learn, matplotlib) is loaded by the step that needs it.
"""

import json
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.opportunities import Evaluation, funnel
from arb_pipeline.arbitrage.opportunities import evaluate as evaluate_pairs
from arb_pipeline.arbitrage.pairs import Direction, MarketData, Pair
from arb_pipeline.arbitrage.spreads import break_even, latest_spreads
from arb_pipeline.capture.encoder import finish_journals
from arb_pipeline.capture.export import Exported, export
from arb_pipeline.capture.journal import journal_root
from arb_pipeline.capture.monitor import CaptureMonitor
from arb_pipeline.capture.recorder import Recorder
from arb_pipeline.capture.rows import ConnectionRows, GapLedger, RowWriter
from arb_pipeline.capture.serve import run_until_signalled
from arb_pipeline.capture.summary import CaptureStatus, CaptureSummary
from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.errors import ArbError
from arb_pipeline.model import Market, MatchStatus, Relation
from arb_pipeline.recordings import check_target
from arb_pipeline.settings import Settings
from arb_pipeline.storage.catalogue import read_events, read_markets, write_catalogue
from arb_pipeline.storage.history import record_changes
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.universe import Following, count_listeners, universe
from arb_pipeline.venues import VENUES
from arb_pipeline.venues import venue as registered
from arb_pipeline.venues.base import Account, FeeModel, Progress

if TYPE_CHECKING:
    from arb_pipeline.matching.matcher import MatchResult
    from arb_pipeline.reports import ReportFiles, ReportInputs

__all__ = [
    "Discovery",
    "Report",
    "account",
    "capture",
    "count_listeners",
    "discover",
    "evaluate_hour",
    "evaluate_hours",
    "load_pairs",
    "match_markets",
    "newest_spreads",
    "record",
    "report",
    "universe",
]

_HOPEFUL = (MatchStatus.AUTO, MatchStatus.APPROVED, MatchStatus.REVIEW)
"""Pairs worth evaluating; those in review are shown as candidates, with that as their reason."""


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
        return Discovery(fetched_at, rows, client.requests, client.retries)


def match_markets(settings: Settings, lake: Lake) -> "MatchResult":
    """Pair the newest catalogues and write ``market_matches`` and ``match_review``.

    Raises:
        ArbError: if nothing was discovered yet.
        OverrideError: if the file of people's decisions is not valid.
    """
    from arb_pipeline.matching.matcher import match
    from arb_pipeline.matching.overrides import load_overrides

    at = settings.clock.now()
    overrides = load_overrides(settings.matches_path)
    kalshi, polymarket = read_events(lake, "kalshi"), read_events(lake, "polymarket")
    if not (kalshi or polymarket):
        raise ArbError(f"the lake {lake.root} holds no market of either venue: run 'arb discover' first")
    result = match(kalshi, polymarket, overrides, at)
    lake.replace("market_matches", Partition.of("market_matches", None, at), result.matches_table())
    lake.replace("match_review", Partition(), result.review_table())
    return result


def capture(
    settings: Settings,
    lake: Lake,
    venues: Collection[str] = (),
    progress: Progress | None = None,
    *,
    into: Lake | None = None,
    shard: tuple[int, int] = (0, 1),
) -> CaptureSummary:
    """Capture live order books until a signal, or until ``settings.max_seconds`` are over. Call it in the main thread.

    ``lake`` knows the markets; the rows go there too, or ``into`` another one. ``shard`` (k, n) captures the k-th of n
    parts of the markets, 0 first.

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
    recorder = Recorder(settings, target, settings.clock, run_id, markets, shard=shard, universe=following)
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
        own = settings.model_copy(update={"lake": captured.root, "journal": Path(folder) / "journal"})
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


def load_pairs(lake: Lake) -> list[Pair]:
    """The newest pairs that are not ruled out, with their markets; a pair whose market is no longer listed is left out.

    Raises:
        ValueError: if a stored pair contradicts itself.
    """
    markets = {(market.venue, market.market_id): market for market in read_markets(lake)}
    pairs = []
    for row in lake.current("market_matches").to_pylist():
        kalshi = markets.get(("kalshi", row["kalshi_market_id"]))
        polymarket = markets.get(("polymarket", row["polymarket_market_id"]))
        if row["status"] in _HOPEFUL and kalshi is not None and polymarket is not None:
            index = row["polymarket_yes_index"]
            pairs.append(
                Pair(
                    kalshi=kalshi,
                    polymarket=polymarket,
                    relation=Relation(row["relation"]),
                    status=MatchStatus(row["status"]),
                    polymarket_yes_index=index,
                    void_states=_void_states(row["explanation"], index),
                )
            )
    return pairs


def _void_states(explanation: str, polymarket_yes_index: int) -> dict[str, tuple[Decimal, Decimal]] | None:
    """Payouts of the pair's proposition in exceptional states, as a person read them; None if nobody has.

    A person states what YES pays on each venue; the proposition of an inverted pair is Polymarket's NO.
    """
    told = json.loads(explanation).get("override", {}).get("void_states")
    if not told:
        return None
    states = {}
    for name, pays in told.items():
        polymarket = Decimal(pays["polymarket"])
        states[name] = (Decimal(pays["kalshi"]), 1 - polymarket if polymarket_yes_index else polymarket)
    return states


def evaluate_hour(settings: Settings, lake: Lake, start: datetime) -> Evaluation:
    """Evaluate every pair over the hour that begins at ``start``, as far as it has gone, and write what was found.

    The hour's ``spreads`` are replaced. Episodes go into the partition of their day in place of those that opened in
    the same hour, and the day's funnel is counted anew: evaluating an hour again changes nothing else.

    Raises:
        ValueError: if the hour has not begun.
    """
    end = min(start + timedelta(hours=1), settings.clock.now())
    if end <= start:
        raise ValueError(f"the hour from {start.isoformat()} has not begun: evaluate it once it has")
    pairs = load_pairs(lake)
    data = _market_data(lake, start, end, {market for pair in pairs for market in pair.key})
    found = evaluate_pairs(pairs, data, start, end, settings, _fees(settings))
    lake.replace("spreads", Partition.of("spreads", None, start), found.spreads)
    day = Partition.of("opportunities", None, start)
    assert day.bounds is not None
    midnight, next_midnight = day.bounds
    episodes = pa.concat_tables(
        [
            lake.read("opportunities", midnight, start),
            found.opportunities,
            lake.read("opportunities", start + timedelta(hours=1), next_midnight),
        ]
    )
    lake.replace("opportunities", day, episodes)
    lake.replace("rejections", Partition.of("rejections", None, start), funnel(episodes, start.date()))
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
        if progress is not None:
            progress("hours evaluated", number)
    return lake.read("opportunities", start, end)


def newest_spreads(settings: Settings, lake: Lake, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """The newest row of ``spreads`` of every pair that tells a gap, with the fees of both legs at the tops.

    ``fees_<direction>`` are unrounded dollars per contract, ``net_<direction>`` the gap less them (also where it is
    negative, which the table leaves out); None where unknown.
    """
    pairs = {pair.key: pair for pair in load_pairs(lake)}
    fees = FeeBook(_fees(settings))
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
    from arb_pipeline.reports import ReportInputs, build_report

    pairs = load_pairs(lake)
    markets = read_markets(lake)
    opportunities = lake.read("opportunities", start, end)
    inputs = ReportInputs(
        start=start,
        end=end,
        spreads=lake.read("spreads", start, end),
        opportunities=opportunities,
        rejections=funnel(opportunities, end.date()),
        matches=lake.current("market_matches"),
        book_gaps=lake.read("book_gaps", start, end),
        capture_sessions=lake.read("capture_sessions", start, end),
        pairs=pairs,
        markets=markets,
        fees=_fees(settings),
        settings=settings,
        data=_books_of_the_best(lake, opportunities),
        exchange=settings.exchange_name,
        universe=Counter(market.venue for market in markets),
        parameters={
            "oldest proof of life of a connection": f"{settings.max_quote_age_s:g} s",
            "smallest net profit": f"${settings.min_net_usd:g}",
            "Kalshi account": settings.kalshi_account,
        },
        generated_at=end,
    )
    return Report(build_report(inputs, settings.reports_path / end.date().isoformat()), inputs)


def _books_of_the_best(lake: Lake, opportunities: pa.Table) -> MarketData | None:
    """The books of the best accepted opportunity's pair, from the start of its hour to its best instant."""
    accepted = opportunities.filter(opportunities["accepted"]).sort_by([("net", "descending")])
    if not accepted.num_rows:
        return None
    best = accepted.slice(0, 1).to_pylist()[0]
    at: datetime = best["best_at"]
    hour = at.replace(minute=0, second=0, microsecond=0)
    ids = {best["kalshi_market_id"], best["polymarket_market_id"]}
    return _market_data(lake, hour, at + timedelta(microseconds=1), ids)


def _market_data(lake: Lake, start: datetime, end: datetime, markets: Collection[str]) -> MarketData:
    quotes = lake.read("quotes", start, end, markets=markets)
    book_events = lake.read("book_events", start, end, markets=markets)
    answers = {}
    if any(pc.any(pc.equal(rows["source"], "rest")).as_py() for rows in (quotes, book_events)):
        columns = ("venue", "source", "connection_id", "recv_ns")
        answers["raw_frames"] = lake.read("raw_frames", start, end, columns=columns, source="rest")
    return MarketData(
        quotes=quotes,
        book_events=book_events,
        book_gaps=lake.read("book_gaps", start, end, markets=markets),
        capture_sessions=lake.read("capture_sessions", start, end),
        **answers,
    )


def _fees(settings: Settings) -> Callable[[Market, datetime], FeeModel]:
    return lambda market, at: VENUES[market.venue].fees(market, at, settings)
