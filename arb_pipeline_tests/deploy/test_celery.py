"""Partitioned assets over two Celery workers give the tables that a single process gives.

The processes are those of ``deploy/docker-compose.yaml``, on its own ``dagster.yaml``, workspace and Celery settings: a
code server, the webserver and the daemon, Redis, and two workers, which read and write a lake on an S3-compatible
server. Runs are launched through the webserver, as a person does.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import dagster as dg
import pyarrow as pa
import pytest
import yaml

from arb_pipeline import pipeline
from arb_pipeline.definitions import build
from arb_pipeline.defs.arbitrage.assets import EVALUATED
from arb_pipeline.defs.capture.supervision import CAPTURE_JOB, PARTITION_TAG
from arb_pipeline.defs.describe import asset_key
from arb_pipeline.defs.discovery.assets import VENUES
from arb_pipeline.defs.home import graphql, running_ui
from arb_pipeline.defs.partitions import HOUR, hour_start, partition_key
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline_tests.conftest import ObjectStore
from arb_pipeline_tests.defs.conftest import exchange_in_thread
from arb_pipeline_tests.deploy.inputs import DAYS, HOURS, fill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
CELERY = (str(BIN / "celery"), "-A", "dagster_celery.app", "worker", "--loglevel", "INFO")
T = TypeVar("T")

WORKERS = ("one", "two")
_LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on InvalidSubsetError { message } ... on RunConfigValidationInvalid { errors { message } } } }"""
_MADE_AT = {"known_at"}
"""When a row was written is the one thing in which two runs of the same thing differ."""


def _until(condition: Callable[[], T | None], within_s: float, what: Callable[[], str]) -> T:
    """The condition's first value that is not None."""
    deadline = time.monotonic() + within_s
    while (value := condition()) is None:
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what()}"
        time.sleep(0.1)
    return value


def _distinct(parts: Mapping[str, set[str]]) -> int:
    return len(set().union(*parts.values()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool | None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return None


@contextlib.contextmanager
def _process(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A child with a log, ended with all that it started when the context ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """URL of a Redis server of our own, without a database number."""
    server = shutil.which("redis-server")
    if server is None:
        reason = "no redis-server: install it (Debian: redis-server) to run runs over Celery workers"
        if os.environ.get("ARB_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    port, log = _free_port(), tmp_path / "redis.log"
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(tmp_path)]
    with _process([server, *options], log) as process:
        _until(lambda: _answers(port), 10, log.read_text)
        assert process.poll() is None
        yield f"redis://127.0.0.1:{port}"


@dataclass
class Cluster:
    """Webserver, daemon, code server and workers, and the lake that they share."""

    url: str
    folder: Path
    lake: Lake
    runs: list[str] = field(default_factory=list)

    def launch(self, assets: list[dg.AssetKey], partition: str) -> None:
        """Ask the webserver for a run of a partition of some assets."""
        params = {
            "selector": {
                "repositoryLocationName": "arb_pipeline",
                "repositoryName": "__repository__",
                "jobName": "__ASSET_JOB",
                "assetSelection": [{"path": list(key.path)} for key in assets],
            },
            "runConfigData": {},
            "executionMetadata": {"tags": [{"key": PARTITION_TAG, "value": partition}]},
        }
        answer = graphql(self.url, _LAUNCH, {"params": params})["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        self.runs.append(answer["run"]["runId"])

    def statuses(self) -> dict[str, str]:
        """The status of each run that was launched."""
        query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        return {run: graphql(self.url, query, {"id": run})["runOrError"]["status"] for run in self.runs}

    def ended(self) -> dict[str, str] | None:
        """The statuses once no run goes on."""
        found = self.statuses()
        return found if set(found.values()) <= {"SUCCESS", "FAILURE", "CANCELED"} else None

    def shared_out(self) -> dict[str, int] | None:
        """How many tasks each worker ended, once they are as many as runs: a run has ended a moment before its task."""
        ended = {name: set(re.findall(r"Task execute_job\[(\S+)\] succeeded", self.log(name))) for name in WORKERS}
        return {name: len(tasks) for name, tasks in ended.items()} if _distinct(ended) == len(self.runs) else None

    def log(self, name: str) -> str:
        """What a process said."""
        return (self.folder / f"{name}.log").read_text()


@pytest.fixture
def cluster(broker: str, s3_lake: ObjectStore, tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    home = folder / "home"
    home.mkdir(parents=True)
    shutil.copy(DEPLOY / "dagster.yaml", folder)
    port = _free_port()
    workspace = (DEPLOY / "workspace.yaml").read_text()
    assert "host: code-location" in workspace
    assert "port: 4000" in workspace
    local = workspace.replace("code-location", "127.0.0.1").replace("4000", str(port))
    (folder / "workspace.yaml").write_text(local)
    (home / "dagster.yaml").symlink_to(folder / "dagster.yaml")
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        environment = {
            "DAGSTER_HOME": str(home),
            "DAGSTER_CELERY_BROKER_URL": f"{broker}/0",
            "DAGSTER_CELERY_BACKEND_URL": f"{broker}/1",
            "ARB_LAKE": s3_lake.url,
            "ARB_JOURNAL": str(folder / "journal"),
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        serve = [str(BIN / "dagster"), "code-server", "start", "-h", "127.0.0.1", "-p", str(port)]
        stack.enter_context(_process([*serve, "-m", "arb_pipeline.definitions"], folder / "code-location.log"))
        for worker in WORKERS:
            stack.enter_context(
                _process(
                    [*CELERY, "-Q", "dagster", "-c", "1", "-n", f"{worker}@test"],
                    folder / f"{worker}.log",
                    {"PYTHONPATH": os.pathsep.join([str(DEPLOY / "celery"), str(ROOT)])},
                )
            )
        lake = Lake(s3_lake.url)
        fill(lake)
        _until(lambda: _answers(port), 60, (folder / "code-location.log").read_text)
        ui = stack.enter_context(running_ui(folder, home, port=0, log_folder=folder))
        cluster = Cluster(ui.url, folder, lake)
        for worker in WORKERS:
            _until(
                lambda worker=worker: "ready." in cluster.log(worker) or None,  # type: ignore[misc]
                60,
                lambda worker=worker: cluster.log(worker),  # type: ignore[misc]
            )
        yield cluster


def _single_process() -> None:
    """The same partitions one after the other in this process, in the lake that the environment names."""
    definitions = build(Settings())
    with dg.DagsterInstance.ephemeral() as instance:
        for keys, partition in _work():
            result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
                instance=instance,
                partition_key=partition,
                asset_selection=keys,
            )
            assert result.success


def _work() -> list[tuple[list[dg.AssetKey], str]]:
    """(assets, hour): every hour's evaluation, and every hour's candles of both venues."""
    evaluated = [asset_key(name) for name in EVALUATED]
    candles = [asset_key("candles", venue) for venue in VENUES]
    return [(keys, partition_key(hour)) for hour in HOURS for keys in (evaluated, candles)]


def _table(lake: Lake, name: str) -> pa.Table:
    rows = lake.read(name)
    return rows.drop_columns([column for column in rows.column_names if column in _MADE_AT])


def test_two_workers_share_the_partitions_and_the_tables_are_those_of_one_process(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for keys, partition in _work():
        cluster.launch(keys, partition)
    ended = _until(cluster.ended, 240, lambda: json.dumps(cluster.statuses()) + cluster.log("daemon"))
    assert set(ended.values()) == {"SUCCESS"}, ended

    tasks = _until(cluster.shared_out, 30, lambda: "".join(map(cluster.log, WORKERS)))
    assert all(tasks.values()), f"a worker had nothing to do: {tasks}"

    lake = Lake(str(tmp_path / "alone"))
    fill(lake)
    monkeypatch.setenv("ARB_LAKE", lake.root)
    _single_process()
    for name in (*EVALUATED, "candles"):
        expected, found = _table(lake, name), _table(cluster.lake, name)
        # Nothing of these pairs is accepted, so no order is sent.
        assert expected.num_rows > 0 or name == "execution_backtest", name
        assert found.equals(expected), name
    days = {row.date() for row in _table(cluster.lake, "opportunities")["opened_at"].to_pylist()}
    assert days == set(DAYS), "every hour's episodes are in their day's partition"


def test_a_capture_on_a_worker_flushes_when_its_worker_is_stopped(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    instance_yaml = {
        "telemetry": {"enabled": False},
        "run_launcher": yaml.safe_load((DEPLOY / "dagster.yaml").read_text())["run_launcher"],
        # Launched at once, for there is no daemon.
        "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
    }
    (home / "dagster.yaml").write_text(yaml.safe_dump(instance_yaml))
    with exchange_in_thread() as exchange, contextlib.ExitStack() as stack:
        environment = {
            **exchange.environment(),
            "DAGSTER_HOME": str(home),
            "DAGSTER_CELERY_BROKER_URL": f"{broker}/0",
            "DAGSTER_CELERY_BACKEND_URL": f"{broker}/1",
            "ARB_LAKE": str(tmp_path / "lake"),
            "ARB_CAPTURE_FLUSH_S": "1",
            "ARB_CAPTURE_RUN_TAGS": '{"dagster-celery/queue": "capture"}',
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = Settings()
        lake = Lake(settings.lake, settings.exchange_name)
        for venue in VENUES:
            asyncio.run(pipeline.discover(venue, settings, lake))
        instance = stack.enter_context(dg.DagsterInstance.get())
        log = tmp_path / "worker.log"
        worker = stack.enter_context(
            _process(
                [*CELERY, "-Q", "capture", "-c", "1", "--max-tasks-per-child", "1", "-n", "capture@test"],
                log,
                {"PYTHONPATH": os.pathsep.join([str(DEPLOY / "celery"), str(ROOT)])},
            )
        )
        key = partition_key(settings.clock.now())
        launch = [str(BIN / "dagster"), "job", "launch", "-m", "arb_pipeline.definitions", "-j", CAPTURE_JOB]
        subprocess.run([*launch, "--tags", json.dumps({PARTITION_TAG: key})], cwd=tmp_path, check=True, timeout=120)

        def rows() -> int | None:
            return lake.read("quotes", hour_start(key), hour_start(key) + HOUR).num_rows or None

        def ended() -> dg.DagsterRunStatus | None:
            (run,) = instance.get_runs()
            return run.status if run.is_finished else None

        _until(rows, 90, log.read_text)
        os.kill(worker.pid, signal.SIGQUIT)
        assert _until(ended, 30, log.read_text) is dg.DagsterRunStatus.SUCCESS
        worker.wait(30)
    (capture,) = {row["stop_reason"] for row in lake.read("capture_sessions").to_pylist()}
    assert capture == "stopped"
