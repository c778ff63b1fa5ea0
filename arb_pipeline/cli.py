"""``arb``: one verb per job.

Results go to standard output, progress and messages to standard error, so that ``--json`` can be piped. Exit codes:
0 done, 1 it did not work out (the message says why), 2 wrong usage, 3 a venue is not being captured (``arb status``),
130 stopped by a signal.
"""

import asyncio
import json
import sys
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
    from arb_pipeline.settings import Settings
    from arb_pipeline.storage.lake import Lake

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
listeners_app = typer.Typer(help="Say what to capture: named filters, kept in listeners.yaml.", no_args_is_help=True)
app.add_typer(listeners_app, name="listeners")

_WIDTH = 140
"""Columns of what is written to a file or a pipe, which has no width of its own."""

out = Console(width=None if sys.stdout.isatty() else _WIDTH)
err = Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH)

VenueOption = Annotated[list[str] | None, typer.Option(help="only this venue; repeatable")]
HoursOption = Annotated[float, typer.Option(min=0.01, help="how far back to look, hours")]
LakeOption = Annotated[str | None, typer.Option("--lake", help="root of the lake; default: ARB_LAKE or ./lake")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON document instead of tables")]


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

    part = _shard(shard)
    settings, store = _open(lake, max_seconds=max_seconds)
    with _progress(settings) as step:
        summary = pipeline.capture(settings, store, _venues(settings, venue), step, shard=part)
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
    start: Annotated[datetime | None, typer.Option(help="with --from-lake: received at or after, UTC")] = None,
    end: Annotated[datetime | None, typer.Option(help="with --from-lake: received before, UTC")] = None,
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
            since, until = (None if at is None else at.replace(tzinfo=UTC) for at in (start, end))
            wanted = {name: registered for name, registered in VENUES.items() if name in names}
            made = export(store, target, since, until, runs=run, venues=wanted, progress=step)
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
    import pyarrow.compute as pc

    from arb_pipeline import pipeline
    from arb_pipeline.model import MatchStatus

    settings, store = _open(lake)
    with _progress(settings) as step:
        step("pairs", 0)
        matches = pipeline.match_markets(settings, store).matches_table()
        step("pairs", matches.num_rows)
    if as_json:
        _emit_json(matches.to_pylist())
    else:
        proposed = matches.filter(pc.not_equal(matches["status"], MatchStatus.REJECTED.value))
        _emit_table(proposed, "Pairs", ("kalshi_market_id", "polymarket_market_id", "relation", "status", "score"))
        out.print(f"{matches.num_rows - proposed.num_rows:,} look-alikes were refused; see market_matches.vetoes.")


@match_app.command("evaluate")
def match_evaluate(
    file: Annotated[Path, typer.Argument(help="labelled pairs, JSON lines")], as_json: JsonOption = False
) -> None:
    """Measure the matcher on labelled pairs."""
    from arb_pipeline.matching.evaluation import evaluate_file

    measured = evaluate_file(file).to_json()
    if as_json:
        _emit_json(measured)
    else:
        out.print_json(json.dumps({key: value for key, value in measured.items() if key != "pairs"}))


@listeners_app.command("list")
def listeners_list(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Print every listener, with the number of discovered markets that it selects."""
    from arb_pipeline import pipeline

    settings, store = _open(lake)
    counted = pipeline.count_listeners(settings, store)
    if as_json:
        _emit_json([{**one.model_dump(mode="json"), "markets": count} for one, count in counted])
        return
    grid = Table(title=f"Listeners of {settings.listeners_path}", title_justify="left")
    for name in ("name", "venue", "active", "markets", "filters"):
        grid.add_column(name, overflow="fold", justify="right" if name == "markets" else "left")
    for one, count in counted:
        told = one.model_dump(mode="json", exclude_defaults=True, exclude={"name", "venue", "is_active"})
        filters = "; ".join(f"{field}: {_listed(value)}" for field, value in told.items())
        grid.add_row(
            escape(one.name), one.venue, "yes" if one.is_active else "paused", f"{count:,}", escape(filters or "none")
        )
    out.print(grid)
    if not settings.listeners_path.exists():
        out.print("There is no such file: each venue has one listener without filters. 'arb listeners seed' makes one.")
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
    from arb_pipeline.capture.listeners import add_listener

    fields: dict[str, list[str]] = {}
    for given in filters or ():
        field, sign, value = given.partition("=")
        if not (field and sign and value):
            raise ArbError(f"{given!r} is no filter: give FIELD=VALUE, such as min_volume=1000")
        fields.setdefault(field, []).append(value)
    settings, _ = _open(None)
    path = settings.listeners_path
    first = not path.exists()
    single = {field: values[0] if len(values) == 1 else values for field, values in fields.items()}
    add_listener(path, {"name": name, "venue": venue, **single})
    out.print(f"{path}: {escape(name)} added", highlight=False)
    if first:
        out.print("The file is new: from now on only what it lists is captured.", highlight=False)


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
    """Write an example file, with every filter explained, that captures what is captured without a file."""
    from arb_pipeline.capture.listeners import seed_listeners

    settings, _ = _open(None)
    seed_listeners(settings.listeners_path)
    out.print(f"{settings.listeners_path} written", highlight=False)


def _set_active(name: str, *, active: bool) -> None:
    from arb_pipeline.capture.listeners import set_active

    settings, _ = _open(None)
    set_active(settings.listeners_path, name, active=active)
    out.print(f"{settings.listeners_path}: {escape(name)} {'resumed' if active else 'paused'}", highlight=False)


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@app.command()
def backfill(  # noqa: PLR0917 - typer makes options of parameters
    table: Annotated[str, typer.Argument(metavar="candles|trades", help="what to fill in")],
    start: Annotated[datetime, typer.Option("--from", help="from this time on, UTC")],
    end: Annotated[datetime, typer.Option("--to", help="up to this time, UTC")],
    venue: VenueOption = None,
    market: Annotated[list[str] | None, typer.Option(help="only this market id; repeatable")] = None,
    interval: Annotated[
        list[int] | None, typer.Option(help="length of candles: 60, 3600 or 86400 seconds; repeatable; default: all")
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
    since, until = start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)
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
                    name, settings, store, since, until,
                    markets=market or (), intervals_s=interval or (), progress=step,
                )  # fmt: skip
            else:
                run = backfill_trades(name, settings, store, since, until, markets=market or (), progress=step)
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
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate what was captured, and write the HTML report with its tables."""
    from arb_pipeline import pipeline

    settings, store = _open(lake)
    end = settings.clock.now()
    start = end - timedelta(hours=hours)
    with _progress(settings) as step:
        pipeline.evaluate_hours(settings, store, start, end, step)
        files = pipeline.report(settings, store, start, end).files
    if as_json:
        _emit_json({"report": str(files.html)})
    else:
        out.print(f"Report: {files.html}", soft_wrap=True)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="DuckDB SQL over the lake's tables")],
    lake: LakeOption = None,
    as_json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
) -> None:
    """Query the lake."""
    import duckdb

    from arb_pipeline.storage.query import connect

    _, store = _open(lake)
    try:
        answer: duckdb.DuckDBPyRelation | None = connect(store).sql(query)
        if answer is None:  # a statement without rows
            return
        result = answer.to_arrow_table()
    except duckdb.Error as error:
        raise ArbError(f"the query failed: {error}") from error
    if csv:
        result.to_pandas().to_csv(sys.stdout, index=False)
    elif as_json:
        _emit_json(result.to_pylist())
    else:
        _emit_table(result, "")


@app.command()
def watch(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="VENUE MARKET...", help="markets by ticker, condition or token id, slug or page address"
        ),
    ],
    depth: Annotated[int, typer.Option(min=1, help="levels of each side")] = 5,
    once: Annotated[bool, typer.Option("--once", help="print the books once they are there, and end")] = False,
    wait: Annotated[float, typer.Option(min=0.1, help="with --once: wait so long for the books, seconds")] = 15.0,
    as_json: JsonOption = False,
) -> None:
    """Live books of named markets side by side, e.g. arb watch kalshi KXFED-26DEC poly fed-decision-in-december.

    Two markets of different venues are compared as well: the gap both ways, net of fees. Into a pipe the books are
    printed once; with --json, one document a second.
    """
    from rich.live import Live

    from arb_pipeline import watch as watching
    from arb_pipeline.capture.serve import run_until_signalled

    settings, _ = _open(None)
    markets = asyncio.run(watching.find(settings, watching.parse_names(names)))
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
    as_json: JsonOption = False,
) -> None:
    """Run the whole pipeline on the local exchange, in about two minutes, and say where to look."""
    from arb_pipeline.demo import run_demo

    outcome = run_demo(home, recording, seconds, seed=seed, speed=speed, console=err)
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
) -> None:
    """Dagster UI and daemon, with live capture switched on. Ctrl-C stops all of it."""
    from arb_pipeline.defs.home import up as run
    from arb_pipeline.demo import use_demo_settings

    if home is not None:
        home = use_demo_settings(home)
    code = run(home, port=port, capture=capture_on, on_step=lambda step: err.print(step, highlight=False))
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
