"""``arb``: one verb per job.

Results go to standard output, progress and messages to standard error, so that ``--json`` can be piped. Exit codes:
0 done, 1 it did not work out (the message says why), 2 wrong usage, 3 a venue is not being captured (``arb status``),
130 stopped by a signal.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from arb_pipeline import __version__
from arb_pipeline.errors import ArbError

if TYPE_CHECKING:
    import pyarrow as pa

    from arb_pipeline.capture.summary import CaptureSummary
    from arb_pipeline.matching.overrides import Verdict
    from arb_pipeline.matching.review import Case
    from arb_pipeline.settings import Settings
    from arb_pipeline.storage.lake import Lake
    from arb_pipeline.storage.postgres import Postgres

__all__ = ["app", "main"]

app = typer.Typer(
    name="arb",
    help="Kalshi and Polymarket: discover, capture, match, and report arbitrage that would really have paid.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
match_app = typer.Typer(help="Pair the markets of both venues.", invoke_without_command=True)
app.add_typer(match_app, name="match")
review_app = typer.Typer(help="Decide on proposed pairs; decisions go to matches.yaml.", invoke_without_command=True)
app.add_typer(review_app, name="review")
listeners_app = typer.Typer(help="Say what to capture: named filters, kept in listeners.yaml.", no_args_is_help=True)
app.add_typer(listeners_app, name="listeners")
lake_app = typer.Typer(help="Look after the lake: what it holds, whether it is sound, merging, retention.")
app.add_typer(lake_app, name="lake", no_args_is_help=True)
postgres_app = typer.Typer(help="Look after Postgres: schema, mirror of the lake, retention, roles.")
app.add_typer(postgres_app, name="postgres", no_args_is_help=True)
alerts_app = typer.Typer(help="Look after alerts: check the rules of alerts.yaml, try its channels.")
app.add_typer(alerts_app, name="alerts", no_args_is_help=True)

_WIDTH = 140
"""Columns of what is written to a file or a pipe, which has no width of its own."""

out = Console(width=None if sys.stdout.isatty() else _WIDTH)
err = Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH)


def _time_ns(text: str) -> int:
    """A time as it is given everywhere here: ISO 8601, in UTC unless it has an offset, or nanoseconds since 1970."""
    from arb_pipeline.storage.reader import ReadError, instant_ns

    try:
        return instant_ns(text, "time", default=UTC)
    except ReadError as error:
        raise typer.BadParameter(str(error)) from error


def _time(text: str) -> datetime:
    """:func:`_time_ns` to the microsecond."""
    from arb_pipeline.clock import datetime_from_ns

    return datetime_from_ns(_time_ns(text))


VenueOption = Annotated[list[str] | None, typer.Option(help="only this venue; repeatable")]
HoursOption = Annotated[float, typer.Option(min=0.01, help="how far back to look, hours")]
LakeOption = Annotated[str | None, typer.Option("--lake", help="root of the lake; default: ARB_LAKE or ./lake")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON document instead of tables")]


EmbeddedOption = Annotated[
    bool, typer.Option("--embedded-postgres", help="bring a Postgres along, for the tables and for Dagster's storage")
]
TableOption = Annotated[list[str] | None, typer.Option(help="only this table; repeatable")]


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="print the version")
    ] = False,
) -> None:
    """Kalshi and Polymarket: discover, capture, match, and report arbitrage that would really have paid."""


@app.command()
def discover(
    venue: VenueOption = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch the catalogues of the venues into the tables events and markets."""
    from arb_pipeline import pipeline

    settings, store = _open(lake)
    with _progress(settings) as step:
        found = {name: asyncio.run(pipeline.discover(name, settings, store, step)) for name in _venues(settings, venue)}
    if as_json:
        _emit_json({name: asdict(one) for name, one in found.items()})
    for name, one in () if as_json else found.items():
        events, markets, changed = (one.rows[table] for table in ("events", "markets", "market_history"))
        out.print(f"{name}: {events:,} events, {markets:,} markets, {changed:,} new, changed or gone", highlight=False)


@app.command()
def capture(
    venue: VenueOption = None,
    max_seconds: Annotated[float | None, typer.Option(help="stop after so long; default: run until Ctrl-C")] = None,
    shard: Annotated[
        str, typer.Option(metavar="K/N", help="capture one of N parts of the markets: 0/N, 1/N ... by a stable hash")
    ] = "0/1",
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Capture live order books. Ctrl-C flushes and stops."""
    from arb_pipeline import pipeline
    from arb_pipeline.live_rules import live_handlers

    part = _shard(shard)
    settings, store = _open(lake, max_seconds=max_seconds)
    venues = _venues(settings, venue)
    alerts = live_handlers(settings, store, part, venues)
    with _progress(settings) as step:
        summary = pipeline.capture(settings, store, venues, step, shard=part, handlers=alerts)
    _emit_summary(summary, as_json)


def _shard(text: str) -> tuple[int, int]:
    """What ``--shard`` names.

    Raises:
        ArbError: if it names no shard.
    """
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and int(number) < int(of)):
        raise ArbError(f"--shard {text!r} is none; of two shards, one is 0/2 and the other 1/2")
    return int(number), int(of)


@app.command()
def record(  # noqa: PLR0917 - typer makes options of parameters
    target: Annotated[Path, typer.Argument(metavar="OUT", help="folder to make, in the recording format")],
    venue: VenueOption = None,
    max_seconds: Annotated[float | None, typer.Option(help="stop after so long; default: run until Ctrl-C")] = None,
    lake: LakeOption = None,
    from_lake: Annotated[str | None, typer.Option(help="export what this lake holds instead of capturing")] = None,
    start: Annotated[
        datetime | None, typer.Option(parser=_time, metavar="TIME", help="with --from-lake: received at or after")
    ] = None,
    end: Annotated[
        datetime | None, typer.Option(parser=_time, metavar="TIME", help="with --from-lake: received before")
    ] = None,
    run: Annotated[list[str] | None, typer.Option(help="with --from-lake: only this capture run; repeatable")] = None,
    as_json: JsonOption = False,
) -> None:
    """Capture live order books into a recording, for `arb replay` and `arb exchange`. Ctrl-C writes it and stops."""
    from arb_pipeline import pipeline
    from arb_pipeline.capture.export import export
    from arb_pipeline.venues import VENUES

    if from_lake is None and (start or end or run):
        raise ArbError("--start, --end and --run choose from what a lake holds: name it with --from-lake")
    settings, store = _open(from_lake or lake, max_seconds=max_seconds)
    names = _venues(settings, venue)
    with _progress(settings) as step:
        if from_lake is not None:
            wanted = {name: registered for name, registered in VENUES.items() if name in names}
            made = export(store, target, start, end, runs=run, venues=wanted, progress=step)
        else:
            _, made = pipeline.record(settings, store, target, names, step)
    if as_json:
        _emit_json(made.metadata())
        return
    for name, count in made.frames.items():
        left = made.rest_left_out[name]
        rest = f"; {left:,} answers over REST are left out" if left else ""
        out.print(f"{name}: {count:,} frames of {made.markets[name]:,} markets{rest}", highlight=False)
    out.print(f"Recording: {made.path}", soft_wrap=True)


@app.command()
def replay(
    recording: Annotated[Path, typer.Argument(help="folder in the recording format")],
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn a recording into the tables that a live capture of it would have written."""
    from arb_pipeline.capture.replay import replay as run
    from arb_pipeline.recordings import Recording

    settings, store = _open(lake)
    with _progress(settings) as step:
        summary = run(Recording.open(recording), store, settings, step)
    _emit_summary(summary, as_json)


@app.command()
def exchange(
    recording: Annotated[Path | None, typer.Option(help="serve this recording; default: a generated market")] = None,
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 0,
    speed: Annotated[float, typer.Option(min=0.01, help="playback seconds per second")] = 1.0,
    seed: Annotated[int, typer.Option(help="seed of the generated market")] = 7,
    events: Annotated[int, typer.Option(min=60, help="events per venue of the generated market")] = 64,
) -> None:
    """Serve both venues' protocols on 127.0.0.1; prints one JSON line when ready."""
    from arb_pipeline.exchange import GeneratedSource, RecordingSource, run_forever
    from arb_pipeline.recordings import Recording

    source = RecordingSource(Recording.open(recording)) if recording else GeneratedSource(seed=seed, events=events)
    asyncio.run(run_forever(source, port=port, speed=speed))


@match_app.callback()
def match(context: typer.Context, lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Pair the discovered markets; writes market_matches and match_review."""
    if context.invoked_subcommand:
        return
    import pyarrow as pa
    import pyarrow.compute as pc

    from arb_pipeline import pipeline
    from arb_pipeline.matching.versions import HOPEFUL

    settings, store = _open(lake)
    with _progress(settings) as step:
        step("pairs", 0)
        matched = pipeline.match_markets(settings, store)
        step("pairs", matched.matches.num_rows)
    if as_json:
        _emit_json(matched.matches.to_pylist())
        return
    hopeful = matched.matches.filter(pc.is_in(matched.matches["status"], pa.array(HOPEFUL)))
    ranked = hopeful.sort_by([("status", "ascending"), ("score", "descending")])
    _emit_table(ranked, "Pairs", ("kalshi_market_id", "polymarket_market_id", "relation", "status", "score", "family"))
    counts = Counter(matched.matches["status"].to_pylist())
    out.print("All statements: " + ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items())) + ".")
    changes = ", ".join(f"{matched.changes[name]:,} {name}" for name in ("added", "changed", "ended", "unchanged"))
    out.print(f"Since the last run: {changes}.")
    for kalshi, polymarket, venues in matched.reopened:
        out.print(f"[yellow]re-opened:[/] {kalshi}/{polymarket}, the rules of {' and '.join(venues)} changed")
    for decision in matched.absent:
        out.print(f"[yellow]not listed:[/] {escape(str(decision))}", highlight=False)
    if matched.review.num_rows:
        out.print(f"{matched.review.num_rows:,} wait for a person: arb review")


PairArgument = Annotated[
    str, typer.Argument(metavar="PAIR", help="number in the queue, TICKER/CONDITION_ID, or one of the two alone")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="why; the next reader learns from it")]
AuthorOption = Annotated[str | None, typer.Option("--author", help="who decides; default: the user of this machine")]
OverruleOption = Annotated[bool, typer.Option("--overrule", help="replace a decision that still stands")]


@review_app.callback()
def review(
    context: typer.Context, author: AuthorOption = None, lake: LakeOption = None, as_json: JsonOption = False
) -> None:
    """Decide on the proposed pairs one by one, what is worth looking at first. Into a pipe: as `arb review list`."""
    if context.invoked_subcommand:
        return
    if as_json or not (out.is_terminal and sys.stdin.isatty()):
        review_list(lake, as_json)
        return
    from arb_pipeline import pipeline
    from arb_pipeline.matching.review import queue, rules_changes
    from arb_pipeline.reviewing import review_queue

    settings, store = _open(lake)
    waiting = queue(pipeline.review_cases(settings, store)[0])
    decided = review_queue(
        waiting,
        out,
        lambda case, verdict, reason: _decide(settings, case, verdict, reason, author),
        lambda case: rules_changes(store, case),
    )
    out.print(f"{decided} decided, {len(waiting) - decided} left. The next 'arb match' acts on it.")


@review_app.command("list")
def review_list(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Print the queue, what is worth looking at first."""
    from arb_pipeline import pipeline
    from arb_pipeline.matching.review import queue
    from arb_pipeline.reviewing import case_document, queue_grid

    settings, store = _open(lake)
    waiting = queue(pipeline.review_cases(settings, store)[0])
    if as_json:
        _emit_json([case_document(case, rank) for rank, case in enumerate(waiting, 1)])
    elif waiting:
        out.print(queue_grid(waiting))
    else:
        out.print("Nothing waits for a person. 'arb match' proposes pairs.")


@review_app.command("show")
def review_show(pair: PairArgument, lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Print a pair: both rules with their differences, what was compared, rivals, why it is where it is."""
    from arb_pipeline.matching.review import rules_changes
    from arb_pipeline.reviewing import case_document, case_view

    settings, store = _open(lake)
    case = _case(settings, store, pair)
    if as_json:
        _emit_json(case_document(case))
    else:
        out.print(case_view(case, rules_changes(store, case), width=out.width))


@review_app.command("approve")
def review_approve(  # noqa: PLR0917 - typer makes options of parameters
    pair: PairArgument,
    reason: ReasonOption,
    author: AuthorOption = None,
    relation: Annotated[str | None, typer.Option(help="what it is, where the proposal is wrong")] = None,
    overrule: OverruleOption = False,
    lake: LakeOption = None,
) -> None:
    """Approve a pair as what is proposed, or as --relation says."""
    from arb_pipeline.matching.overrides import Verdict

    allowed = [one.value for one in Verdict if one is not Verdict.REJECTED]
    if relation is not None and relation not in allowed:
        raise ArbError(f"--relation {relation!r} cannot be approved: give one of {', '.join(allowed)}")
    settings, store = _open(lake)
    verdict = None if relation is None else Verdict(relation)
    _decide(settings, _case(settings, store, pair), verdict, reason, author, overrule=overrule)


@review_app.command("reject")
def review_reject(
    pair: PairArgument,
    reason: ReasonOption,
    author: AuthorOption = None,
    overrule: OverruleOption = False,
    lake: LakeOption = None,
) -> None:
    """Reject a pair: it is refused until its rules change."""
    from arb_pipeline.matching.overrides import Verdict

    settings, store = _open(lake)
    _decide(settings, _case(settings, store, pair), Verdict.REJECTED, reason, author, overrule=overrule)


@review_app.command("page")
def review_page(
    target: Annotated[Path | None, typer.Argument(help="default: review.html among today's reports")] = None,
    lake: LakeOption = None,
) -> None:
    """Write the queue as one HTML page, both rules side by side, with the command that decides each."""
    from arb_pipeline import pipeline

    settings, store = _open(lake)
    path = target or settings.reports_path / settings.clock.now().date().isoformat() / "review.html"
    out.print(f"Review: {pipeline.review_page(settings, store, path)}", soft_wrap=True)


def _case(settings: "Settings", store: "Lake", pair: str) -> "Case":
    from arb_pipeline import pipeline
    from arb_pipeline.matching.overrides import load_overrides
    from arb_pipeline.matching.review import find_case

    known, markets = pipeline.review_cases(settings, store)
    return find_case(pair, known, markets, load_overrides(settings.matches_path))


def _decide(
    settings: "Settings",
    case: "Case",
    verdict: "Verdict | None",
    reason: str,
    author: str | None,
    *,
    overrule: bool = False,
) -> None:
    import getpass

    from arb_pipeline.matching.review import decide

    decision = decide(
        settings.matches_path,
        case,
        verdict,
        reason=reason,
        author=author or getpass.getuser(),
        at=settings.clock.now(),
        overrule=overrule,
    )
    out.print(f"{settings.matches_path}: {escape(str(decision))}", highlight=False, soft_wrap=True)


@match_app.command("evaluate")
def match_evaluate(
    file: Annotated[Path, typer.Argument(help="labelled pairs, JSON lines")], as_json: JsonOption = False
) -> None:
    """Measure the matcher on labelled pairs: precision, recall, candidates and implications, by kind of question."""
    from arb_pipeline.console import evaluation_grids
    from arb_pipeline.matching.evaluation import evaluate_file

    measured = evaluate_file(file).to_json()
    if as_json:
        _emit_json(measured)
        return
    for grid in evaluation_grids(measured):
        out.print(grid)
    apart = {"related", "different"}  # nothing is traded on either
    wrong = [
        pair
        for pair in measured["pairs"]
        if pair["label"] != pair["relation"] and not {pair["label"], pair["relation"]} <= apart
    ]
    for pair in wrong[:_ROWS_SHOWN]:
        told = f": {pair['reasons'][0]}" if pair["reasons"] else ""
        out.print(f"{pair['id']}: labelled {pair['label']}, called {pair['relation']}{escape(told)}", highlight=False)


@listeners_app.command("list")
def listeners_list(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Print every listener, with the number of discovered markets that it selects."""
    from arb_pipeline import pipeline
    from arb_pipeline.capture.listener_store import listener_store

    settings, store = _open(lake)
    counted = pipeline.count_listeners(settings, store)
    if as_json:
        _emit_json([{**one.model_dump(mode="json"), "markets": count} for one, count in counted])
        return
    kept = listener_store(settings)
    grid = Table(title=f"Listeners of {kept.place}", title_justify="left")
    for name in ("name", "venue", "active", "markets", "filters"):
        grid.add_column(name, overflow="fold", justify="right" if name == "markets" else "left")
    for one, count in counted:
        told = one.model_dump(mode="json", exclude_defaults=True, exclude={"name", "venue", "is_active"})
        filters = "; ".join(f"{field}: {_listed(value)}" for field, value in told.items())
        grid.add_row(
            escape(one.name), one.venue, "yes" if one.is_active else "paused", f"{count:,}", escape(filters or "none")
        )
    out.print(grid)
    if kept.is_empty():
        missing = "There is no such file" if settings.postgres_url is None else "The table is empty"
        out.print(f"{missing}: each venue has one listener without filters. 'arb listeners seed' makes some.")
    _print_handlers(settings.listeners_path)


def _print_handlers(path: Path) -> None:
    """The handlers of the listeners' file, each tried: an import or a parameter that fails is told here, not later."""
    from arb_pipeline.capture.listeners import load_handlers
    from arb_pipeline.handlers import HandlerError, build

    handlers = load_handlers(path)
    if not handlers:
        return
    grid = Table(title="Handlers", title_justify="left")
    for name in ("name", "use", "active", "told of", "check"):
        grid.add_column(name, overflow="fold")
    for one in handlers:
        try:
            build(one)
            check = "ok"
        except HandlerError as error:
            check = str(error)
        told_of = ", ".join((*one.venues, *one.markets)) or "everything"
        active = "yes" if one.is_active else "paused"
        grid.add_row(escape(one.name), escape(one.use), active, escape(told_of), escape(check))
    out.print(grid)


@listeners_app.command("add")
def listeners_add(
    name: Annotated[str, typer.Argument(help="a name of its own")],
    venue: Annotated[str, typer.Argument(help="kalshi or polymarket")],
    filters: Annotated[list[str] | None, typer.Argument(help="FIELD=VALUE; a field given again adds a value")] = None,
) -> None:
    """Add a listener: arb listeners add fed kalshi series_tickers=KXFED series_tickers=KXCPI min_volume=1000."""
    from arb_pipeline.capture.listener_store import listener_store

    fields: dict[str, list[str]] = {}
    for given in filters or ():
        field, sign, value = given.partition("=")
        if not (field and sign and value):
            raise ArbError(f"{given!r} is no filter: give FIELD=VALUE, such as min_volume=1000")
        fields.setdefault(field, []).append(value)
    settings, _ = _open(None)
    kept = listener_store(settings)
    first = kept.is_empty()
    single = {field: values[0] if len(values) == 1 else values for field, values in fields.items()}
    kept.add({"name": name, "venue": venue, **single})
    out.print(f"{kept.place}: {escape(name)} added", highlight=False)
    if first:
        out.print(f"{kept.place} is new: from now on only what it lists is captured.", highlight=False)


@listeners_app.command("pause")
def listeners_pause(name: Annotated[str, typer.Argument(help="name of the listener")]) -> None:
    """Pause a listener: from the next capture on it selects nothing."""
    _set_active(name, active=False)


@listeners_app.command("resume")
def listeners_resume(name: Annotated[str, typer.Argument(help="name of the listener")]) -> None:
    """Resume a paused listener."""
    _set_active(name, active=True)


@listeners_app.command("seed")
def listeners_seed() -> None:
    """Write an example file, with every filter explained; where Postgres is on, copy the file into its table."""
    from arb_pipeline.capture.listener_store import listener_store

    settings, _ = _open(None)
    kept = listener_store(settings)
    kept.seed()
    out.print(f"{kept.place} written", highlight=False)


def _set_active(name: str, *, active: bool) -> None:
    from arb_pipeline.capture.listener_store import listener_store

    settings, _ = _open(None)
    kept = listener_store(settings)
    kept.set_active(name, active=active)
    out.print(f"{kept.place}: {escape(name)} {'resumed' if active else 'paused'}", highlight=False)


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@app.command()
def backfill(  # noqa: PLR0917 - typer makes options of parameters
    table: Annotated[str, typer.Argument(metavar="candles|trades", help="what to fill in")],
    start: Annotated[
        datetime,
        typer.Option("--from", parser=_time, metavar="TIME", help="from this time on; UTC unless it has an offset"),
    ],
    end: Annotated[datetime, typer.Option("--to", parser=_time, metavar="TIME", help="up to this time, likewise")],
    venue: VenueOption = None,
    market: Annotated[list[str] | None, typer.Option(help="only this market id; repeatable")] = None,
    interval: Annotated[
        list[int] | None, typer.Option(help="length of candles: 1, 60, 3600 or 86400 seconds; repeatable; default: all")
    ] = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fill in the past: candles (from captured rows, and the venue's own), or trades that nobody captured.

    Running it again adds nothing that is there, and captured rows stay.
    """
    from arb_pipeline.backfill import backfill_candles, backfill_trades
    from arb_pipeline.venues import VENUES

    if table not in ("candles", "trades"):
        raise ArbError(f"{table!r} cannot be filled in; candles and trades can")
    if table == "trades" and interval:
        raise ArbError("--interval is the length of candles; trades have none")
    settings, store = _open(lake)
    names = _venues(settings, venue)
    if table == "trades" and not venue:
        names = [name for name in names if VENUES[name].history is not None]
    if market and len(names) > 1:
        raise ArbError("--market is an id of one venue: say which one with --venue")
    done = []
    with _progress(settings) as step:
        for name in names:
            if table == "candles":
                run = backfill_candles(
                    name, settings, store, start, end,
                    markets=market or (), intervals_s=interval or (), progress=step,
                )  # fmt: skip
            else:
                run = backfill_trades(name, settings, store, start, end, markets=market or (), progress=step)
            done.append(asyncio.run(run))
    if as_json:
        _emit_json([one.metadata() for one in done])
        return
    for one in done:
        made = f"{one.captured:,} made from captured rows, " if table == "candles" else ""
        out.print(
            f"{one.venue}: {made}{one.fetched:,} fetched of {one.markets:,} markets ({one.requests:,} requests); "
            f"{sum(one.added.values()):,} rows added to {table}",
            highlight=False,
        )
        for kind, count in one.anomalies.items():
            out.print(f"  {kind}: {count:,}, for example {escape(one.examples[kind])}", highlight=False)


@app.command()
def grid(  # noqa: PLR0917 - typer makes options of parameters
    market: Annotated[list[str], typer.Argument(help="Kalshi tickers, Polymarket condition ids")],
    start: Annotated[
        datetime,
        typer.Option("--from", parser=_time, metavar="TIME", help="from this time on; UTC unless it has an offset"),
    ],
    end: Annotated[datetime, typer.Option("--to", parser=_time, metavar="TIME", help="up to this time, likewise")],
    interval_ms: Annotated[int, typer.Option(min=1, help="distance of the grid's points")] = 100,
    levels: Annotated[int, typer.Option(min=1, help="most levels per side")] = 5,
    parquet: Annotated[Path | None, typer.Option(help="write this file instead of the table")] = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fill captured books forward on a grid of time, into the table orderbook_snapshots or a file."""
    from arb_pipeline.storage.grid import grid as points
    from arb_pipeline.storage.grid import save_grid, write_grids
    from arb_pipeline.storage.mirroring import mirror_tables

    settings, store = _open(lake)
    if parquet is not None:
        rows = save_grid(parquet, points(market, start, end, interval_ms, levels, lake=store))
        written = [{"file": str(parquet), "rows": rows}]
    else:
        made = write_grids(store, market, start, end, interval_ms=interval_ms, levels=levels)
        mirror_tables(settings, store, "orderbook_snapshots")
        written = [{"partition": hour.path, **asdict(one)} for hour, one in made.items()]
    if as_json:
        _emit_json(written)
        return
    for one in written:
        known = f", {one['known']:,} with a known book" if "known" in one else ""
        out.print(f"{one.get('file') or one['partition']}: {one['rows']:,} points{known}", soft_wrap=True)


@app.command()
def spreads(
    hours: HoursOption = 24.0,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate what was captured; print the newest spread of every pair, and the opportunities."""
    from arb_pipeline import pipeline
    from arb_pipeline.console import spread_grid

    settings, store = _open(lake)
    end = settings.clock.now()
    start = end - timedelta(hours=hours)
    with _progress(settings) as step:
        opportunities = pipeline.evaluate_hours(settings, store, start, end, step)
    newest = pipeline.newest_spreads(settings, store, start, end)
    if as_json:
        _emit_json({"spreads": newest, "opportunities": opportunities.to_pylist()})
        return
    out.print(spread_grid(newest))
    _emit_table(opportunities, "Opportunities", _OPPORTUNITY_COLUMNS)


@app.command()
def report(
    hours: HoursOption = 24.0,
    as_of: Annotated[
        datetime | None,
        typer.Option(parser=_time, metavar="TIME", help="by what was known at this instant; the hours end there"),
    ] = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate what was captured, and write the HTML report with its tables."""
    from arb_pipeline import pipeline

    settings, store = _open(lake)
    end = settings.clock.now() if as_of is None else as_of
    start = end - timedelta(hours=hours)
    with _progress(settings) as step:
        if as_of is None:
            pipeline.evaluate_hours(settings, store, start, end, step)
            files = pipeline.report(settings, store, start, end).files
        else:
            files = pipeline.report_as_of(settings, store, start, end, step).files
    if as_json:
        _emit_json({"report": str(files.html)})
    else:
        out.print(f"Report: {files.html}", soft_wrap=True)


@app.command()
def sql(  # noqa: PLR0917 - typer makes options of parameters
    query: Annotated[
        str | None, typer.Argument(help="DuckDB SQL over the lake's tables; - reads it from standard input")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="read the query from this file")] = None,
    lake: LakeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="print all rows as one JSON list")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="print all rows as CSV")] = False,
    parquet: Annotated[Path | None, typer.Option(help="write all rows to this Parquet file")] = None,
) -> None:
    """Query the lake: arb sql "select venue, count(*) from quotes group by all". Without a query: what there is.

    Only reads. Numbers are exact: a decimal never passes through a float. pg.TABLE is Postgres, where ARB_POSTGRES_URL
    is set. docs/queries.md has recipes.
    """
    from arb_pipeline.storage import output
    from arb_pipeline.storage.check import describe
    from arb_pipeline.storage.query import refresh, run
    from arb_pipeline.tables import TABLES

    if sum((as_json, csv, parquet is not None)) > 1:
        raise ArbError("--json, --csv and --parquet are three forms of one answer: give one of them")
    settings, store = _open(lake)
    text = _query_text(query, file)
    if text is None:
        if csv or parquet is not None:
            raise ArbError("--csv and --parquet need a query")
        sizes = describe(store)
        database = refresh(store)
        if as_json:
            _emit_json([asdict(size) for size in sizes])
            return
        grid = Table(title=f"Tables of {store.root}", title_justify="left")
        for name in ("table", "rows", "MB", "holds"):
            grid.add_column(name, overflow="fold", justify="right" if name in {"rows", "MB"} else "left")
        for size in sizes:
            grid.add_row(size.table, f"{size.rows:,}", f"{size.bytes / 1e6:,.1f}", escape(TABLES[size.table].doc))
        out.print(grid)
        if database is not None:
            out.print(f"The same tables for any DuckDB client: {database}", soft_wrap=True, highlight=False)
        return
    if store.is_local and not Path(store.root).is_dir():
        err.print(f"There is no lake at {store.root}: every table is empty. --lake or ARB_LAKE names another one.")
    url = settings.postgres_url.get_secret_value() if settings.postgres_url else ""
    answer = run(store, text, postgres_url=url, text=csv)
    if csv:
        output.write_csv(answer, sys.stdout)
    elif as_json:
        output.write_json(answer, sys.stdout)
    elif parquet is not None:
        rows = output.write_parquet(answer, parquet)
        err.print(f"{parquet}: {rows:,} rows", highlight=False, soft_wrap=True)
    elif answer.schema.names == ["explain_key", "explain_value"]:
        for _, plan in output.first_rows(answer, _ROWS_SHOWN)[0]:
            sys.stdout.write(f"{plan}\n")
    else:
        shown, more = output.first_rows(answer, _ROWS_SHOWN)
        grid = Table()
        for name in answer.schema.names:
            grid.add_column(escape(name), overflow="fold", max_width=_CELL_WIDTH)
        for row in shown:
            grid.add_row(*(escape(output.printed(value)) for value in row))
        out.print(grid)
        if more:
            out.print(f"… and more than these {_ROWS_SHOWN} rows: --csv, --json or --parquet FILE gives all of them")


def _query_text(query: str | None, file: Path | None) -> str | None:
    """The query that is meant; None if there is none.

    Raises:
        ArbError: if there are two, or the file cannot be read.
    """
    if file is not None:
        if query is not None:
            raise ArbError("a query and --file were given: give one of them")
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ArbError(f"--file {file}: {error}") from error
    return sys.stdin.read() if query == "-" else query


@app.command()
def book(  # noqa: PLR0917 - typer makes options of parameters
    market: Annotated[str, typer.Argument(metavar="MARKET", help="ticker, condition id, slug or token id")],
    at: Annotated[
        int, typer.Argument(parser=_time_ns, metavar="TIME", help="2026-05-13T20:20:36.5Z; or ns since 1970")
    ],
    venue: Annotated[str | None, typer.Option(help="tells markets of one name apart")] = None,
    depth: Annotated[int, typer.Option(min=1, help="levels of each side")] = 10,
    allow_untrusted: Annotated[
        bool, typer.Option("--allow-untrusted", help="print the book also where it is not to be trusted, marked so")
    ] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The full book of a market at a past instant, in YES terms: arb book KXFED-26DEC-T4 2026-11-21T12:00:00Z.

    Exit code 1, with the cause and its interval, where the book was not in sync or nothing is known.
    """
    from arb_pipeline.console import book_grid, book_note
    from arb_pipeline.storage.books import book_at

    _, store = _open(lake)
    found = book_at(market, at, venue=venue, lake=store, allow_untrusted=allow_untrusted)
    if as_json:
        _emit_json(found.document(depth))
    else:
        out.print(book_grid(found, depth))
        out.print(book_note(found), highlight=False, soft_wrap=True)


@app.command()
def watch(  # noqa: PLR0917 - typer makes options of parameters
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VENUE MARKET...", help="markets by ticker, condition or token id, slug or page address"
        ),
    ] = None,
    spreads: Annotated[
        bool, typer.Option("--spreads", help="instead of markets: the board of all accepted pairs, best net first")
    ] = False,
    pair: Annotated[
        list[str] | None,
        typer.Option(metavar="KALSHI=POLYMARKET", help="with --spreads: only this pair, from the lake or not"),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="with --spreads: pairs on the screen")] = 30,
    lake: LakeOption = None,
    depth: Annotated[int, typer.Option(min=1, help="levels of each side")] = 5,
    once: Annotated[bool, typer.Option("--once", help="print the books once they are there, and end")] = False,
    wait: Annotated[float, typer.Option(min=0.1, help="with --once: wait so long for the books, seconds")] = 15.0,
    as_json: JsonOption = False,
) -> None:
    """Live books of named markets side by side, e.g. arb watch kalshi KXFED-26DEC poly fed-decision-in-december.

    With --spreads instead of markets: every accepted pair, or those named by --pair, by its best net spread.

    Two markets of different venues are compared as well: the gap both ways, net of fees. Into a pipe the books are
    printed once; with --json, one document a second.
    """
    from rich.live import Live

    from arb_pipeline import watch as watching
    from arb_pipeline.capture.serve import run_until_signalled

    if spreads:
        if names:
            raise ArbError("--spreads shows pairs: name them by --pair KALSHI=POLYMARKET, or none for all")
        _watch_board(pair or (), rows, wait_s=wait, once=once, lake=lake, as_json=as_json)
        return
    if pair:
        raise ArbError("--pair goes with --spreads")
    settings, _ = _open(None)
    markets = asyncio.run(watching.find(settings, watching.parse_names(names or [])))
    if once or not (as_json or out.is_terminal):
        view = watching.look(settings, markets, wait)
        if as_json:
            _emit_json(view.document(depth))
        else:
            out.print(view.render(depth))
        if all(book.age_s is None for book in view.books):
            raise ArbError(f"no book came within {wait:g} s")
    elif as_json:

        def emit(view: "watching.View") -> bool:
            _emit_json(view.document(depth))
            sys.stdout.flush()
            return False

        run_until_signalled(lambda stop: watching.watch(settings, markets, emit, stop, refresh_s=1.0))
    else:
        with Live(console=out, auto_refresh=False) as live:

            def draw(view: "watching.View") -> bool:
                live.update(view.render(depth), refresh=True)
                return False

            run_until_signalled(lambda stop: watching.watch(settings, markets, draw, stop))


def _watch_board(
    named: Sequence[str], rows: int, *, wait_s: float, once: bool, lake: str | None, as_json: bool
) -> None:
    """The board, as long as it is wanted; into a pipe once, with --json a document a second."""
    from rich.live import Live

    from arb_pipeline.board import Board, board, look_at_board, pairs_to_watch

    settings, store = _open(lake)
    pairs = pairs_to_watch(settings, store, named)
    if once or not (as_json or out.is_terminal):
        found = look_at_board(settings, store, pairs, wait_s)
        if as_json:
            _emit_json(found.document())
        else:
            out.print(found.render(rows))
        return
    if as_json:

        def emit(shown: Board) -> bool:
            _emit_json(shown.document())
            sys.stdout.flush()
            return False

        board(settings, store, pairs, emit, refresh_s=1.0)
        return
    with Live(console=out, auto_refresh=False) as live:

        def draw(shown: Board) -> bool:
            live.update(shown.render(rows), refresh=True)
            return False

        board(settings, store, pairs, draw)


@lake_app.command("describe")
def lake_describe(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """What the lake holds: partitions, files, rows, bytes and times of every table, from its manifests."""
    from arb_pipeline.clock import datetime_from_ns
    from arb_pipeline.storage.check import describe

    _, store = _open(lake)
    found = describe(store)
    if as_json:
        _emit_json({one.table: asdict(one) for one in found})
        return
    grid = Table(title=escape(store.root), title_justify="left")
    for name in ("table", "partitions", "files", "rows", "bytes", "from", "to"):
        grid.add_column(name, justify="left" if name in {"table", "from", "to"} else "right")
    for one in found:
        times = (
            f"{datetime_from_ns(at):%Y-%m-%d %H:%M:%S}" if at is not None else "" for at in (one.min_ns, one.max_ns)
        )
        grid.add_row(one.table, *(f"{n:,}" for n in (one.partitions, one.files, one.rows, one.bytes)), *times)
    out.print(grid)


@lake_app.command("check")
def lake_check(  # noqa: PLR0917 - typer makes options of parameters
    table: TableOption = None,
    start: Annotated[
        datetime | None,
        typer.Option("--from", parser=_time, metavar="TIME", help="partitions with time at or after"),
    ] = None,
    end: Annotated[
        datetime | None, typer.Option("--to", parser=_time, metavar="TIME", help="partitions with time before")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="compare manifests, names and sizes; read no file")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="delete files that no manifest lists")] = False,
    grace: Annotated[float, typer.Option(min=0, help="hours that such a file is left alone, as one being written")] = 1,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify manifests, checksums, schemas, order, keys and times of the lake; exit code 1 if something is wrong."""
    from arb_pipeline.storage.check import check

    settings, store = _open(lake)
    with _progress(settings) as step:
        done = check(
            store,
            _tables(table),
            start,
            end,
            content=not quick,
            repair=repair,
            grace=timedelta(hours=grace),
            progress=step,
        )
    if as_json:
        _emit_json({"sound": done.sound, **asdict(done)})
    else:
        for one in done.findings:
            mended = " [green](deleted)[/]" if one.repaired else ""
            where = escape("/".join(filter(None, (one.table, one.partition, one.file))))
            out.print(
                f"[bold red]{one.problem}[/] {where}: {escape(one.detail)}{mended}", highlight=False, soft_wrap=True
            )
        wrong = sum(not one.repaired for one in done.findings)
        out.print(
            f"{done.partitions:,} partitions, {done.files:,} files, {done.rows:,} rows, {done.bytes:,} bytes: "
            + (f"{wrong:,} problems" if wrong else "sound"),
            highlight=False,
        )
    if not done.sound:
        raise typer.Exit(1)


@lake_app.command("compact")
def lake_compact(table: TableOption = None, lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Merge the part files of every partition into one; a capture that is at work is not disturbed."""
    from arb_pipeline.storage.check import compact_all

    settings, store = _open(lake)
    with _progress(settings) as step:
        found = compact_all(store, _tables(table), step)
    if as_json:
        _emit_json({f"{name}/{partition.path}": asdict(one) for (name, partition), one in found.items()})
        return
    for (name, partition), one in found.items():
        kept = f", {one.conflicts:,} rows kept that share a key but differ" if one.conflicts else ""
        path = f"{name}/{partition.path}".rstrip("/")
        out.print(f"{path}: {one.rows:,} rows, {one.dropped:,} repeats left out{kept}", highlight=False)
    out.print(f"{len(found):,} partitions merged", highlight=False)


@lake_app.command("retention")
def lake_retention(
    days: Annotated[
        float | None, typer.Option(min=0.01, help="keep raw frames for so long; default: ARB_RAW_FRAMES_DAYS")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, and leave it")] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove raw frames that are older than ARB_RAW_FRAMES_DAYS; no other table is touched."""
    from arb_pipeline.storage.retention import expired, remove_expired

    settings, store = _open(lake)
    limit = days or settings.raw_frames_days
    if limit is None:
        raise ArbError("raw frames are kept for ever: set ARB_RAW_FRAMES_DAYS, or give --days")
    found = (expired if dry_run else remove_expired)(store, limit, settings.clock.now())
    if as_json:
        partitions = [{**asdict(one), "partition": one.partition.path} for one in found]
        _emit_json({"days": limit, "dry_run": dry_run, "removed": partitions})
        return
    for one in found:
        out.print(f"raw_frames/{one.partition.path}: {one.rows:,} rows, {one.bytes:,} bytes", highlight=False)
    verb = "would be removed" if dry_run else "removed"
    out.print(f"{len(found):,} partitions older than {limit:g} days {verb}", highlight=False)


@postgres_app.command("migrate")
def postgres_migrate() -> None:
    """Bring the schema up to date, and index the days that are over. The pipeline does so by itself where it may."""
    from arb_pipeline.storage.postgres import index_days
    from arb_pipeline.storage.postgres.migrating import head

    with _postgres() as (settings, _, postgres):
        postgres.migrate()
        made = index_days(postgres, settings.clock.now())
        out.print(f"{postgres.place}: schema {head()}", highlight=False)
    for name in made:
        out.print(f"{name}: indexed by market", highlight=False)


@postgres_app.command("sync")
def postgres_sync(
    table: TableOption = None,
    date: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="only this day; default: all")] = None,
    force: Annotated[bool, typer.Option("--force", help="also what has not changed since the last time")] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fill Postgres from the lake where the two differ: after an outage, a loss, or for days it never had."""
    from arb_pipeline.storage.postgres import index_days, sync

    with _postgres(lake) as (settings, store, postgres):
        kept = settings.postgres_retention_days
        since = None if kept is None else settings.clock.now().date() - timedelta(days=kept)
        postgres.migrate()
        done = sync(postgres, store, table, date.date() if date else None, since=since, force=force)
        index_days(postgres, settings.clock.now())
    if as_json:
        _emit_json([asdict(one) for one in done])
        return
    for one in done:
        told = f"left alone: {one.skipped}" if one.skipped else f"{one.rows:,} rows"
        out.print(f"{one.table}/{one.partition}: {told}", highlight=False)
    out.print(f"{sum(not one.skipped for one in done):,} partitions published", highlight=False)


@postgres_app.command("catch-up")
def postgres_catch_up(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Load the journals that captures which ended left for Postgres. A capture that runs does so by itself."""
    from arb_pipeline.capture.journal import journal_root
    from arb_pipeline.capture.loader import catch_up

    with _postgres(lake) as (settings, store, postgres), _progress(settings) as step:
        postgres.migrate()
        done = catch_up(journal_root(settings.journal, store.root), postgres, progress=step)
    if as_json:
        _emit_json({"runs": done})
    else:
        out.print(f"{done:,} runs loaded", highlight=False)


@postgres_app.command("retention")
def postgres_retention(
    days: Annotated[
        int | None, typer.Option(min=0, help="whole days to keep; default: ARB_POSTGRES_RETENTION_DAYS")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, and leave it")] = False,
    as_json: JsonOption = False,
) -> None:
    """Drop old days of the tables that are partitioned by day. The lake keeps its files."""
    from arb_pipeline.storage.postgres.retention import drop_days

    with _postgres() as (settings, _, postgres):
        limit = settings.postgres_retention_days if days is None else days
        if limit is None:
            raise ArbError("every day is kept: set ARB_POSTGRES_RETENTION_DAYS, or give --days")
        found = drop_days(postgres, limit, settings.clock.now(), dry_run=dry_run)
    if as_json:
        _emit_json({"days": limit, "dry_run": dry_run, "dropped": [asdict(one) for one in found]})
        return
    for one in found:
        out.print(f"{one.table} of {one.date}: {one.bytes:,} bytes", highlight=False)
    out.print(f"{len(found):,} days {'would be dropped' if dry_run else 'dropped'}", highlight=False)


@postgres_app.command("roles")
def postgres_roles(
    apply: Annotated[bool, typer.Option("--apply", help="run the statements, as the tables' owner")] = False,
) -> None:
    """Print the SQL of the roles arb_writer and arb_reader, which may do no more than they have to."""
    from arb_pipeline.storage.postgres.roles import apply_roles, statements

    if not apply:
        print(";\n".join(statements()) + ";")  # noqa: T201 - to be piped into psql as it is
        return
    with _postgres() as (_, _, postgres):
        out.print(f"{postgres.place}: {len(apply_roles(postgres))} statements run", highlight=False)


@postgres_app.command("status")
def postgres_status(as_json: JsonOption = False) -> None:
    """Print the schema's revision, how far capture runs are loaded, rejects, and the days with their sizes."""
    from arb_pipeline.storage.postgres.overview import overview

    with _postgres() as (_, _, postgres):
        found = overview(postgres)
    if as_json:
        _emit_json(asdict(found))
        return
    behind = "" if found.revision == found.newest_revision else f", this package has {found.newest_revision}"
    out.print(f"{found.place}: schema {found.revision or 'none: arb postgres migrate'}{behind}", highlight=False)
    for run in found.runs:
        state = "complete" if run.complete else f"loading, {run.position:,} records so far"
        out.print(f"run {run.run_id}: {run.rows:,} rows, {state}", highlight=False)
    for name, count in found.rejects.items():
        out.print(f"{name}: {count:,} rows refused (table load_rejects)", highlight=False)
    for day in found.days:
        out.print(f"{day.table} of {day.date}: {day.bytes:,} bytes", highlight=False)


@contextmanager
def _postgres(lake: str | None = None) -> "Iterator[tuple[Settings, Lake, Postgres]]":
    from arb_pipeline.storage.postgres import Postgres

    settings, store = _open(lake)
    if settings.postgres_url is None:
        raise ArbError("there is no Postgres: set ARB_POSTGRES_URL, such as postgresql://user@host:5432/arb")
    postgres = Postgres(settings.postgres_url.get_secret_value(), application_name="arb")
    try:
        yield settings, store, postgres
    finally:
        postgres.close()


@alerts_app.command("check")
def alerts_check(
    file: Annotated[Path | None, typer.Argument(help="the file; default: ARB_ALERTS_FILE or alerts.yaml")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read the alerts' file with its positions and secrets, and show it. Exit code 3 if a channel is unusable."""
    from arb_pipeline.alerting.notifier import default_trouble
    from arb_pipeline.alerting.positions import load_positions
    from arb_pipeline.alerting.rules import DEFAULT, AlertError, load_alerting
    from arb_pipeline.console import alerts_document, alerts_grids
    from arb_pipeline.market_hours import listed_markets

    settings, store = _open(None)
    path = file or settings.alerts_file
    if not path.exists():
        raise ArbError(f"there is no {path}: docs/alerts.md shows one; ARB_ALERTS_FILE names it")
    alerting = load_alerting(path)
    held = alerting.positions_path(path)
    positions = () if held is None else load_positions(held)
    known = listed_markets(store, {position.market_id for position in positions}) if positions else set()
    unknown = [position for position in positions if (position.venue, position.market_id) not in known]
    troubles = {}
    for channel in alerting.channels:
        try:
            channel.check()
        except AlertError as error:
            troubles[channel.name] = str(error)
    webhook = settings.alert_webhook_url
    if trouble := default_trouble(alerting, webhook.get_secret_value() if webhook else ""):
        troubles[DEFAULT] = trouble
    if as_json:
        _emit_json(alerts_document(alerting, positions, troubles, unknown))
    else:
        for grid in alerts_grids(alerting, positions, troubles, unknown):
            out.print(grid)
    if troubles:
        raise typer.Exit(3)


@alerts_app.command("test")
def alerts_test() -> None:
    """Send a note to every channel of ARB_ALERTS_FILE and to ARB_ALERT_WEBHOOK_URL, and wait for them to take it."""
    from arb_pipeline.alerting.alert import Alert
    from arb_pipeline.alerting.notifier import Notifier, channel_senders
    from arb_pipeline.alerting.rules import load_alerting

    settings, _ = _open(None)
    webhook = settings.alert_webhook_url
    channels = load_alerting(settings.alerts_file).channels
    senders = channel_senders(channels, webhook.get_secret_value() if webhook else "")
    if not senders:
        raise ArbError(f"{settings.alerts_file} has no channel, and ARB_ALERT_WEBHOOK_URL is unset: alerts are logged")
    notifier = Notifier(senders, tries=2)
    message = "arb: a test of the alerts' channels"
    now = settings.clock.now_ns()
    notifier.send(Alert(handler="test", venue="", market_id="", at_ns=now, message=message, state="test"))
    notifier.close(30)
    names = ", ".join(name for name, _ in senders)
    if notifier.undelivered:
        raise ArbError(f"{notifier.undelivered} of the channels ({names}) did not take the note: the log says why")
    out.print(f"taken by {names}", highlight=False)


@app.command()
def status(
    venue: VenueOption = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """How capture is doing: connections, markets, age of the newest committed frame, rate, lag, gaps, anomalies.

    Exit code 0 if every venue is being captured, 3 if one is not.
    """
    from arb_pipeline.status import capture_grid, capture_runs, capture_status, status_grid

    settings, store = _open(lake)
    runs = capture_runs(settings, store)
    found = [capture_status(settings, store, name, runs) for name in _venues(settings, venue)]
    if as_json:
        _emit_json({one.venue: one.metadata() for one in found})
    else:
        out.print(status_grid(found))
        out.print(capture_grid(runs) if runs else "No capture into this lake runs on this host.")
    if not all(one.healthy for one in found):
        raise typer.Exit(3)


@app.command()
def account(
    venue: VenueOption = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The own account: balance, positions and fills. Needs Kalshi's API key; ARB_ACCOUNT=true keeps the rows too."""
    from arb_pipeline import pipeline
    from arb_pipeline.console import account_document, account_grids

    settings, store = _open(lake)
    found = asyncio.run(pipeline.account(settings, store, _venues(settings, venue)))
    if as_json:
        _emit_json({one.venue: account_document(one) for one in found})
        return
    for one in found:
        for grid in account_grids(one):
            out.print(grid)
        for anomaly in one.anomalies:
            err.print(f"left out: {escape(anomaly.detail)}", highlight=False)


@app.command()
def demo(  # noqa: PLR0917 - typer makes options of parameters
    recording: Annotated[Path | None, typer.Option(help="run on this recording; default: a generated market")] = None,
    seconds: Annotated[float, typer.Option(min=5, help="length of the capture")] = 60.0,
    seed: Annotated[int, typer.Option(help="seed of the generated market")] = 7,
    speed: Annotated[float, typer.Option(min=0.01, help="playback seconds per second")] = 1.0,
    home: Annotated[Path, typer.Option(help="folder of the demo's lake, report and runs; made anew")] = Path(".demo"),
    embedded_postgres: EmbeddedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the whole pipeline on the local exchange, in about two minutes, and say where to look."""
    from arb_pipeline.demo import run_demo

    outcome = run_demo(
        home, recording, seconds, seed=seed, speed=speed, embedded_postgres=embedded_postgres, console=err
    )
    if as_json:
        _emit_json(outcome.summary())
    else:
        outcome.print(out)
    if outcome.false_equivalent:
        raise ArbError(f"{len(outcome.false_equivalent)} look-alikes were called equivalent")


@app.command()
def up(
    home: Annotated[Path | None, typer.Option(help="DAGSTER_HOME; .demo shows the demo's runs")] = None,
    port: Annotated[int, typer.Option(help="port of the web page")] = 3000,
    capture_on: Annotated[bool, typer.Option("--capture/--no-capture", help="capture while it is up")] = True,
    embedded_postgres: EmbeddedOption = False,
) -> None:
    """Dagster UI and daemon, with live capture switched on. Ctrl-C stops all of it."""
    from arb_pipeline.defs.home import up as run
    from arb_pipeline.demo import use_demo_settings

    if home is not None:
        home = use_demo_settings(home)
    settings, _ = _open(None)
    code = run(
        home,
        port=port,
        capture=capture_on,
        embedded_postgres=embedded_postgres or settings.embedded_postgres,
        on_step=lambda step: err.print(step, highlight=False),
    )
    raise typer.Exit(code)


_OPPORTUNITY_COLUMNS = (
    "kalshi_market_id",
    "polymarket_market_id",
    "direction",
    "opened_at",
    "size",
    "net",
    "roi",
    "match_status",
    "accepted",
    "reasons",
)
_ROWS_SHOWN = 50
_CELL_WIDTH = 44


def _open(lake: str | None, **overrides: Any) -> "tuple[Settings, Lake]":
    from pydantic import ValidationError

    from arb_pipeline.logs import configure_logging
    from arb_pipeline.settings import Settings
    from arb_pipeline.storage.lake import Lake

    given = {"lake": lake, **overrides}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise ArbError(f"settings: {problems}") from error
    configure_logging(settings)
    return settings, Lake(settings.lake, settings.exchange_name)


@contextmanager
def _progress(settings: "Settings") -> "Iterator[Callable[[str, int], None]]":
    """A line for every step of a job, on standard error; none where that is for JSON log lines."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,}"),
        TimeElapsedColumn(),
        console=err,
        disable=settings.log_format == "json",
    ) as bar:
        tasks: dict[str, TaskID] = {}

        def step(name: str, done: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=None)
            bar.update(tasks[name], completed=done)

        yield step


def _venues(settings: "Settings", given: list[str] | None) -> list[str]:
    """The venues that a command is about.

    Raises:
        ArbError: if one of them does not exist.
    """
    from arb_pipeline.venues import VENUES

    names = given or list(settings.capture_venues)
    if unknown := [name for name in names if name not in VENUES]:
        raise ArbError(f"no venue {unknown[0]!r}; there are {', '.join(VENUES)}")
    return names


def _tables(given: list[str] | None) -> list[str] | None:
    """The tables that a command is about; None: all.

    Raises:
        ArbError: if one of them does not exist.
    """
    from arb_pipeline.tables import TABLES

    if unknown := [name for name in given or () if name not in TABLES]:
        raise ArbError(f"no table {unknown[0]!r}; there are {', '.join(TABLES)}")
    return given or None


def _emit_summary(summary: "CaptureSummary", as_json: bool) -> None:
    if as_json:
        _emit_json(summary.metadata())
        return
    for name, figures in summary.venues.items():
        rows = ", ".join(f"{count:,} {table}" for table, count in figures.rows.items() if count)
        out.print(f"{name}: {figures.frames:,} frames of {figures.markets:,} markets; {rows}", highlight=False)
        if figures.message:
            out.print(f"  {escape(figures.message)}", highlight=False)
        for kind, count in figures.anomalies.items():
            detail = figures.examples.get(kind, {}).get("detail", "")
            out.print(f"  {kind}: {count:,}, for example {escape(str(detail))}", highlight=False)
    out.print(f"ended: {summary.stop_reason}", highlight=False)


def _emit_table(table: "pa.Table", title: str, columns: Sequence[str] | None = None) -> None:
    """Print the first rows of a table."""
    names = list(columns or table.column_names)
    grid = Table(title=f"{title} ({table.num_rows:,})" if title else None, title_justify="left")
    for name in names:
        grid.add_column(name, overflow="fold", max_width=_CELL_WIDTH)
    for row in table.select(names).slice(0, _ROWS_SHOWN).to_pylist():
        grid.add_row(*("" if value is None else str(value) for value in row.values()))
    out.print(grid)
    if table.num_rows > _ROWS_SHOWN:
        out.print(f"… {table.num_rows - _ROWS_SHOWN:,} more rows")


def _emit_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, default=str) + "\n")


def main() -> None:
    """Entry point of the console script: errors that are the user's to mend become one line on standard error."""
    import httpx

    try:
        app()
    except httpx.TransportError as error:
        err.print(f"[bold red]error:[/] no answer from the venue: {escape(repr(error))}", soft_wrap=True)
        sys.exit(1)
    except ArbError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(1)
