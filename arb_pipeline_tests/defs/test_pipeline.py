"""The real pipeline on the local exchange: Dagster's jobs on a persistent home, and then its pages in a browser."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import httpx
import pytest

from arb_pipeline.definitions import build
from arb_pipeline.defs.automation import ANALYSIS_JOB, DISCOVERY_JOB
from arb_pipeline.defs.capture.assets import CAPTURED
from arb_pipeline.defs.capture.lifecycle import HEARTBEAT_TAG
from arb_pipeline.defs.capture.supervision import CAPTURE_JOB, PARTITION_TAG, PROGRESS_TAG
from arb_pipeline.defs.demo import DemoResults, run_demo_pipeline
from arb_pipeline.defs.describe import EXCHANGE_TAG, asset_key
from arb_pipeline.defs.discovery import assets as discovery_assets
from arb_pipeline.defs.discovery.assets import VENUES
from arb_pipeline.defs.home import prepare_home, running_ui
from arb_pipeline.defs.partitions import HOUR, hour_start, partition_key
from arb_pipeline.defs.resources import Pipeline
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline_tests.defs.conftest import exchange_in_thread

if TYPE_CHECKING:
    from arb_pipeline.exchange import Exchange

ROOT = Path(__file__).parents[2]
PUBLIC = CAPTURED.keys() - {"account_events"}
S = dg.DagsterRunStatus


@dataclass
class Made:
    """A home in which the whole pipeline has run once."""

    environment: dict[str, str]
    settings: Settings
    lake: Lake
    home: Path
    results: DemoResults
    steps: list[str]


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        patch.setitem(Settings.model_config, "env_file", None)
        yield


@contextmanager
def _instance(made: "Made | dict[str, str]") -> Iterator[dg.DagsterInstance]:
    with _environment(made if isinstance(made, dict) else made.environment), dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture(scope="module")
def made(exchange: "Exchange", tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("pipeline")
    home = prepare_home(ROOT, folder / "home")
    environment = {
        **exchange.environment(),
        "DAGSTER_HOME": str(home),
        "ARB_LAKE": str(folder / "lake"),
        "ARB_REPORTS_PATH": str(folder / "reports"),
        "ARB_MATCHES_PATH": str(folder / "matches.yaml"),
        "ARB_CAPTURE_FLUSH_S": "1",
    }
    steps: list[str] = []
    with _instance(environment) as instance:
        settings = Settings()
        results = run_demo_pipeline(instance, settings, max_seconds=4, on_step=steps.append)
    return Made(environment, settings, Lake(settings.lake, settings.exchange_name), home, results, steps)


def test_every_asset_was_materialised_from_the_exchange(made: Made) -> None:
    specs = build(made.settings).resolve_all_asset_specs()
    # What is derived by the hour and the day is made beside; an account is captured only where it is asked for.
    beside = {"candles", "daily_candles", "orderbook_snapshots", "account_events", "match_evaluation"}
    keys = [spec.key for spec in specs if spec.key.path[-1] not in beside]
    with _instance(made) as instance:
        for key in keys:
            event = instance.get_latest_materialization_event(key)
            assert event is not None, key
            assert event.asset_materialization is not None
            metadata = event.asset_materialization.metadata
            assert metadata.keys() & {"dagster/row_count", "dagster/partition_row_count"}, key
            assert "preview" in metadata, key
        for run in instance.get_runs():
            assert run.status is S.SUCCESS
            assert run.tags[EXCHANGE_TAG] == "local-exchange-generated-seed-7"
        (capture,) = instance.get_runs(dg.RunsFilter(job_name=CAPTURE_JOB), limit=1)
        assert float(capture.tags[HEARTBEAT_TAG]) > 0
    assert set(made.results.runs) == {DISCOVERY_JOB, CAPTURE_JOB, ANALYSIS_JOB}
    assert made.results.report.read_text().startswith("<!")
    assert [step.split()[0] for step in made.steps[:2]] == ["discovering", "capturing"]


def test_row_counts_are_those_of_the_lake_and_checks_pass(made: Made) -> None:
    key = made.results.partitions[-1]
    start = hour_start(key)
    with _instance(made) as instance:
        found = _materialised(instance, made.results.runs[CAPTURE_JOB][-1])
        for venue in VENUES:
            for name in PUBLIC:
                event = found[asset_key(name, venue)]
                rows = made.lake.read(name, start, start + HOUR, venue).num_rows
                assert event.metadata["dagster/partition_row_count"].value == rows, (venue, name)
                assert event.metadata["anomalies"].value == {}
                assert event.partition == key
            assert made.lake.read("quotes", start, start + HOUR, venue).num_rows > 0
            assert len(made.lake.manifest("quotes", Partition.of("quotes", venue, start)).files) == 1
        for ids in made.results.runs.values():
            for run_id in ids:
                checks = [
                    entry.dagster_event.asset_check_evaluation_data
                    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
                    if entry.dagster_event
                ]
                assert checks
                assert [check.check_name for check in checks if not check.passed] == []


def test_a_capture_leaves_few_events_and_no_secret(made: Made) -> None:
    with _instance(made) as instance:
        (run_id,) = made.results.runs[CAPTURE_JOB][:1]
        observations = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION)
        assert len(observations) == len(VENUES)
        for run in instance.get_runs():
            for entry in instance.all_logs(run.run_id):
                assert "PRIVATE KEY" not in str(entry)
            assert made.environment["KALSHI_API_KEY_ID"] not in str(run)


def test_evaluating_an_hour_again_changes_nothing(made: Made) -> None:
    key = made.results.partitions[-1]
    day = hour_start(key)

    def tables() -> list[Any]:
        return [
            made.lake.manifest(name, Partition.of(name, None, day)).files for name in ("opportunities", "rejections")
        ]

    with _instance(made) as instance:
        _job(instance, made.settings, ANALYSIS_JOB, key)
        before = tables()
        _job(instance, made.settings, ANALYSIS_JOB, key)
    # The hour goes on: an episode that was open at the end of the evaluation only closes later.
    assert [[file.rows for file in files] for files in tables()] == [[file.rows for file in files] for files in before]


def _job(
    instance: dg.DagsterInstance,
    settings: Settings,
    name: str,
    key: str | None = None,
    config: dict[str, object] | None = None,
) -> dg.ExecuteInProcessResult:
    return (
        build(settings)
        .resolve_job_def(name)
        .execute_in_process(
            run_config=config or {},
            instance=instance,
            partition_key=key,
            resources={"pipeline": Pipeline(settings)},
            raise_on_error=False,
        )
    )


# --- how a capture ends --------------------------------------------------------------------------------------


def _capture(made: Made, interfere: Callable[[dg.DagsterInstance, dg.DagsterRun], None]) -> dg.DagsterRun:
    """A capture that would go on for a minute, with something happening to it once it has written rows."""
    settings = made.settings.model_copy(update={"lake": made.settings.lake + "-ends"})
    for table in ("events", "markets"):
        for venue in VENUES:
            rows = made.lake.current(table, venue)
            Lake(settings.lake, settings.exchange_name).replace(
                table, Partition.of(table, venue, settings.clock.now()), rows
            )
    _enough_of_the_hour()
    with _instance(made) as instance:
        known = {run.run_id for run in instance.get_runs()}

        def watch() -> None:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                for run in instance.get_runs():
                    if run.run_id not in known and instance.all_logs(
                        run.run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION
                    ):
                        interfere(instance, run)
                        return
                time.sleep(0.1)

        watcher = threading.Thread(target=watch)
        watcher.start()
        config: dict[str, object] = {"ops": {"capture": {"config": {"max_seconds": 60}}}}
        began = time.monotonic()
        try:
            result = _job(instance, settings, CAPTURE_JOB, partition_key(settings.clock.now()), config)
        finally:
            watcher.join()
        assert time.monotonic() - began < 50, "the capture went on to its own end"
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        return run


def test_progress_is_on_the_runs_tags_and_checkpoints_report_the_running_hour(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[dict[str, str], dict[dg.AssetKey, dg.AssetMaterialization]]] = []

    def look(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        deadline = time.monotonic() + 30
        # A slow start's first checkpoint finds no rows yet.
        while len(found := _materialised(instance, run.run_id)) < len(VENUES) * len(PUBLIC) or not all(
            found[asset_key("quotes", venue)].metadata["dagster/partition_row_count"].value for venue in VENUES
        ):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        tags = [f"{PROGRESS_TAG}/{venue}" for venue in VENUES]
        while any((now := instance.get_run_by_id(run.run_id) or run).tags.get(tag, "0")[0] == "0" for tag in tags):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        seen.append((dict(now.tags), found))
        os.kill(os.getpid(), signal.SIGTERM)

    settings = made.settings.model_copy(update={"capture_checkpoint_s": 2.0, "capture_lease_s": 6.0})
    run = _capture(replace(made, settings=settings), look)
    ((tags, found),) = seen
    key = tags[PARTITION_TAG]
    for venue in VENUES:
        assert re.match(
            r"[1-9]\d* frames, [1-9]\d* rows of [1-9]\d* markets; lag p99 ", tags[f"{PROGRESS_TAG}/{venue}"]
        )
        checkpoint = found[asset_key("quotes", venue)]
        assert checkpoint.partition == key
        assert checkpoint.metadata["stop_reason"].value == "still running"
        assert checkpoint.metadata["dagster/partition_row_count"].value > 0  # type: ignore[operator]
        assert 0 < checkpoint.metadata["coverage"].value < 1  # type: ignore[operator]
        assert 0 <= checkpoint.metadata["gap_share"].value < 1  # type: ignore[operator]
    with _instance(made) as instance:
        closed = _materialised(instance, run.run_id)[asset_key("quotes", "kalshi")]
    assert closed.metadata["stop_reason"].value == "stopped"
    assert 0 < closed.metadata["hour_connected_share"].value < 1  # type: ignore[operator]


def test_a_second_capture_of_the_same_markets_leaves_at_once(made: Made) -> None:
    second: list[dg.ExecuteInProcessResult] = []

    def compete(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        second.append(_job(instance, made.settings, CAPTURE_JOB, run.tags[PARTITION_TAG]))
        os.kill(os.getpid(), signal.SIGTERM)

    first = _capture(made, compete)
    assert first.status is S.SUCCESS
    assert not second[0].success
    failure = second[0].failure_data_for_node("capture")
    assert failure is not None
    assert first.run_id in str(failure)


def _enough_of_the_hour() -> None:
    """Captures of these tests must not run into the end of their hour."""
    while 3600 - time.time() % 3600 < 30:
        time.sleep(0.5)


def _materialised(instance: dg.DagsterInstance, run_id: str) -> dict[dg.AssetKey, dg.AssetMaterialization]:
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    found = [entry.asset_materialization for entry in entries]
    return {event.asset_key: event for event in found if event is not None}


def test_a_signal_ends_a_capture_with_everything_flushed(made: Made) -> None:
    run = _capture(made, lambda _instance, _run: os.kill(os.getpid(), signal.SIGTERM))
    assert run.status is S.SUCCESS
    with _instance(made) as instance:
        quotes = _materialised(instance, run.run_id)[asset_key("quotes", "polymarket")]
    assert quotes.metadata["stop_reason"].value == "stopped"
    assert quotes.metadata["dagster/partition_row_count"].value > 0  # type: ignore[operator]


def test_a_run_that_is_terminated_ends_as_canceled_with_what_it_captured(made: Made) -> None:
    def terminate(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        instance.report_run_canceling(run)
        os.kill(os.getpid(), signal.SIGINT)  # what Dagster's run worker does to itself

    run = _capture(made, terminate)
    assert run.status is S.CANCELED
    with _instance(made) as instance:
        found = _materialised(instance, run.run_id)
    assert set(found) == {asset_key(name, venue) for venue in VENUES for name in PUBLIC}


def test_a_run_that_was_given_up_leaves(made: Made) -> None:
    def give_up(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        instance.report_run_failed(run, "lease expired")

    run = _capture(made, give_up)
    assert run.status is S.FAILURE
    with _instance(made) as instance:
        assert _materialised(instance, run.run_id) == {}


def test_an_hour_that_is_over_is_refused_with_the_remedy(made: Made) -> None:
    with _instance(made) as instance:
        past = partition_key(made.settings.clock.now() - 2 * HOUR)
        result = _job(instance, made.settings, CAPTURE_JOB, past)
        assert not result.success
        error = result.failure_data_for_node("capture")
        assert error is not None
        assert error.error is not None
        assert past in str(error.error.message) + str(error.error.cause)


def test_one_venues_outage_leaves_the_others_catalogue(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_assets, "_RETRY", None)  # another try would come after some seconds
    settings = made.settings.model_copy(
        update={"lake": str(tmp_path / "lake"), "kalshi_rest_url": "http://127.0.0.1:9", "http_retries": 0}
    )
    with dg.DagsterInstance.ephemeral() as instance, _environment(made.environment):
        result = _job(instance, settings, DISCOVERY_JOB)
        assert not result.success
        failed = {event.step_key for event in result.all_events if event.is_step_failure}
        assert failed == {"kalshi_catalogue"}
        assert result.asset_materializations_for_node("polymarket_catalogue")
    assert Lake(settings.lake).current("markets", "polymarket").num_rows > 0


def test_bad_frames_are_counted_in_the_run_with_an_example_and_capture_goes_on(tmp_path: Path) -> None:
    wanted = {
        "kalshi": {
            "malformed_frame": "malformed_json",
            "unknown_type": "unknown_type",
            "missing_field": "missing_field",
        },
        "polymarket": {
            "malformed_frame": "malformed_json",
            "unknown_type": "unknown_type",
            "null_list": "null_list",
            "missing_field": "missing_field",
        },
    }
    with exchange_in_thread(seed=8) as exchange:
        environment = {**exchange.environment(), "ARB_LAKE": str(tmp_path / "lake"), "ARB_CAPTURE_FLUSH_S": "1"}
        with dg.DagsterInstance.ephemeral() as instance, _environment(environment):
            settings = Settings()
            assert _job(instance, settings, DISCOVERY_JOB).success
            for venue, faults in wanted.items():
                for fault in faults:
                    body = {"kind": fault, "venue": venue, "count": 2}
                    httpx.post(f"{exchange.announcement()['control_url']}/fault", json=body).raise_for_status()
            key = partition_key(settings.clock.now())
            config: dict[str, object] = {"ops": {"capture": {"config": {"max_seconds": 8.0}}}}
            made = _job(instance, settings, CAPTURE_JOB, key, config).asset_materializations_for_node("capture")
    metadata = {one.asset_key: one.metadata for one in made}
    lake = Lake(settings.lake)
    for venue, faults in wanted.items():
        told = metadata[asset_key("raw_frames", venue)]
        anomalies, examples = told["anomalies"].value, told["anomaly_examples"].value
        assert isinstance(anomalies, dict)
        assert isinstance(examples, dict)
        for kind in faults.values():
            assert anomalies[kind] == 2, (venue, anomalies)
            assert examples[kind]["frame"], (venue, kind)
        # and the stream went on: rows arrived long after the last bad frame, and every book is in sync again
        times = lake.read("quotes", venue=venue)["recv_ns"].to_pylist()
        assert max(times) - min(times) > 5_000_000_000
        last = {row["market_id"]: row["in_sync"] for row in lake.read("quotes", venue=venue).to_pylist()}
        assert sum(last.values()) >= len(last) - 1


# --- the pages -----------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_the_asset_graph_shows_the_pipeline(made: Made) -> None:
    with _browser() as page, _environment(made.environment), running_ui(ROOT, made.home, port=0, daemon=False) as ui:
        page.goto(f"{ui.url}/asset-groups")
        for group in ("discovery", "capture", "market_data", "matching", "arbitrage"):
            page.get_by_text(group, exact=True).first.wait_for()
        page.screenshot(path=_artifact("ui-groups.png"))
        page.goto(f"{ui.url}/locations/arb_pipeline/asset-groups/arbitrage/list")
        for name in ("spreads", "opportunity_pieces", "opportunities", "rejections", "arbitrage_report"):
            page.get_by_text(name, exact=True).first.wait_for()
        page.screenshot(path=_artifact("ui-arbitrage.png"))
        page.goto(f"{ui.url}/assets/polymarket/quotes?view=overview")
        page.get_by_text("in_sync", exact=True).first.wait_for()
        page.get_by_text("stop_reason", exact=True).first.wait_for()
        page.screenshot(path=_artifact("ui-quotes.png"))
        page.goto(f"{ui.url}/runs")
        page.get_by_text(CAPTURE_JOB, exact=True).first.wait_for()
        page.get_by_text("arb/exchange", exact=False).first.wait_for()
        page.screenshot(path=_artifact("ui-runs.png"))
        page.goto(f"{ui.url}/runs/{made.results.runs[CAPTURE_JOB][-1]}")
        page.get_by_text("View tags and config").first.click()
        page.get_by_text(f"{PROGRESS_TAG}/kalshi", exact=False).first.wait_for()
        page.screenshot(path=_artifact("ui-capture-run.png"))


def _artifact(name: str) -> Path:
    folder = Path(os.environ.get("ARB_ARTIFACTS") or ROOT / "artifacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


@contextmanager
def _browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    executable = os.environ.get("ARB_CHROMIUM") or "/usr/bin/chromium"
    if not Path(executable).exists():
        reason = f"no Chromium at {executable}: install it, or set ARB_CHROMIUM"
        if os.environ.get("ARB_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1800, "height": 1100})
            page.set_default_timeout(60_000)
            yield page
        finally:
            browser.close()
