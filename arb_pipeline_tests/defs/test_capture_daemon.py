"""A real daemon keeps real captures of the local exchange alive: kills, terminations, restarts and the hour's end.

One story, since Dagster takes its time to start. Two shards capture side by side. One's process is killed while the
other is terminated from the UI; then everything is killed and started again shortly before the hour ends; then daemon,
webserver and code location are restarted under the captures of two hours, one of which ends.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import dagster as dg
import httpx
import pyarrow.compute as pc
import pytest

from arb_pipeline import pipeline
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.defs.automation import SENSOR
from arb_pipeline.defs.capture.lifecycle import HEARTBEAT_TAG, LIVE
from arb_pipeline.defs.capture.supervision import CAPTURE_JOB, PARTITION_TAG, PROGRESS_TAG, SHARD_TAG
from arb_pipeline.defs.describe import asset_key
from arb_pipeline.defs.discovery.assets import VENUES
from arb_pipeline.defs.home import Service, Ui, graphql, prepare_home, running_ui, switch_off, switch_on, ui_commands
from arb_pipeline.defs.partitions import HOUR, partition_key
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline_tests.defs.conftest import exchange_in_thread

if TYPE_CHECKING:
    from arb_pipeline.exchange import Exchange

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
S = dg.DagsterRunStatus
T = TypeVar("T")

SHARDS = ("0/2", "1/2")
LEASE_S = 10.0
RELAUNCH_S = 60.0
STOP_S = 10.0
EVENTS_PER_MINUTE = 20
_QUIET_START_S = 20.0
"""From the sensor's start to the first frames in the lake, where the machine has little else to do."""
_TERMINATE = """mutation($runId: String!) { terminateRun(runId: $runId, terminatePolicy: SAFE_TERMINATE) {
    __typename ... on PythonError { message } ... on TerminateRunFailure { message } } }"""


def _until(condition: Callable[[], T | None], within_s: float, what: str) -> T:
    """The condition's first value that is not None."""
    deadline = time.monotonic() + within_s
    while (value := condition()) is None:
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.1)
    return value


@dataclass
class Stage:
    """Dagster on a home of its own, and the hour at whose end the story ends."""

    instance: dg.DagsterInstance
    ui: Ui
    home: Path
    lake: Lake
    exchange: "Exchange"
    boundary: datetime
    patch: pytest.MonkeyPatch
    start_s: float = 0.0
    """From the sensor's start to the first frames in the lake, on this machine at this time."""

    @property
    def patience(self) -> float:
        """By how much the limits, which are meant for a machine with time to spare, are to be stretched."""
        return max(1.0, self.start_s / _QUIET_START_S)

    # --- Dagster's processes ------------------------------------------------------------------------------

    def service(self, name: str) -> Service:
        """The newest process of a name."""
        return next(service for service in reversed(self.ui.services) if service.name == name)

    def start(self, name: str) -> None:
        """Start the webserver or the daemon again."""
        port = int(self.ui.url.rpartition(":")[2])
        log = self.home.parent / f"{name}-{len(self.ui.services)}.log"
        self.ui.services.append(Service.start(name, ui_commands(ROOT, port=port)[name], ROOT, self.home, log))

    def answers(self) -> bool | None:
        """True once the webserver answers."""
        try:
            return httpx.get(f"{self.ui.url}/server_info", timeout=30).is_success or None
        except httpx.TransportError:
            return None

    def set_clock(self, now: datetime) -> None:
        """The time that processes which start from now on believe in."""
        self.patch.setenv("ARB_CLOCK_OFFSET", f"{(now - datetime.now(UTC)).total_seconds():.6f}")

    def sensor_ticked(self, since: float) -> float | None:
        """When the capture sensor last looked, if that was after ``since``."""
        (state,) = [one for one in self.instance.all_instigator_state() if one.instigator_name == SENSOR]
        ticks = self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        return next((tick.timestamp for tick in ticks if tick.timestamp > since), None)

    # --- captures -----------------------------------------------------------------------------------------

    def runs(self, hour: datetime, label: str) -> list[dg.RunRecord]:
        """Captures of an hour and shard, oldest first."""
        tags = {PARTITION_TAG: partition_key(hour), SHARD_TAG: label}
        return list(reversed(self.instance.get_run_records(dg.RunsFilter(job_name=CAPTURE_JOB, tags=tags))))

    def run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def capturing(self, hour: datetime, label: str, but: Collection[str]) -> str | None:
        """The run, other than some, that captures an hour and shard and has shown frames of both venues."""
        for record in self.runs(hour, label):
            run = record.dagster_run
            frames = [run.tags.get(f"{PROGRESS_TAG}/{venue}", "0") for venue in VENUES]
            if run.run_id not in but and run.status is S.STARTED and not any(text.startswith("0") for text in frames):
                return run.run_id
        return None

    def warm(self, label: str) -> str | None:
        """The run of the next hour and a shard, once its process runs."""
        records = self.runs(self.boundary, label)
        return next((one.dagster_run.run_id for one in records if one.dagster_run.status is S.STARTED), None)

    def wait_capturing(self, hour: datetime, within_s: float, but: Collection[str] = ()) -> dict[str, str]:
        """Shard to its run, once runs other than some capture both."""
        deadline = time.monotonic() + within_s
        return {
            label: _until(
                partial(self.capturing, hour, label, but), deadline - time.monotonic(), f"a capture of shard {label}"
            )
            for label in SHARDS
        }

    def wait_status(self, run_id: str, status: S, within_s: float) -> None:
        """Wait for a run's status."""
        _until(lambda: self.run(run_id).status is status or None, within_s, f"{status.value} of {run_id}")

    def beat(self, run_id: str) -> float:
        return float(self.run(run_id).tags[HEARTBEAT_TAG])

    def beaten(self, run_id: str, since: float) -> float | None:
        """A run's last heartbeat, if it came after ``since``."""
        return beat if (beat := self.beat(run_id)) > since else None

    def pid(self, run_id: str) -> int:
        """The process of a run."""
        for entry in self.instance.all_logs(run_id):
            if found := re.search(r"Executing steps in process \(pid: (\d+)\)", entry.user_message):
                return int(found[1])
        raise AssertionError(f"run {run_id} names no process")

    def events(self, run_id: str) -> int:
        return len(self.instance.all_logs(run_id))

    def frames_of(self, run_id: str) -> list[int]:
        """Receive times that a run has in the lake."""
        rows = self.lake.read("raw_frames", columns=["connection_id", "recv_ns"])
        return sorted(rows.filter(pc.starts_with(rows["connection_id"], run_id))["recv_ns"].to_pylist())

    def is_accounted(self, run_id: str, from_ns: int, to_ns: int) -> bool:
        """Whether each market that a run captures has a gap over a time."""
        gaps = self.lake.read("book_gaps", from_ns, to_ns + 1)
        own = gaps.filter(pc.starts_with(gaps["connection_id"], run_id)).to_pylist()
        covered = {row["market_id"] for row in own if row["from_ns"] <= from_ns and row["to_ns"] >= to_ns}
        events = self.lake.read("book_events", columns=["connection_id", "market_id"])
        captured = events.filter(pc.starts_with(events["connection_id"], run_id))["market_id"].to_pylist()
        return bool(captured) and set(captured) <= covered


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    boundary = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    home = prepare_home(ROOT, tmp_path / "home")
    with exchange_in_thread(rate=100.0) as exchange, pytest.MonkeyPatch.context() as patch:
        environment = {
            **exchange.environment(),
            "DAGSTER_HOME": str(home),
            "ARB_LAKE": str(tmp_path / "lake"),
            "ARB_JOURNAL": str(tmp_path / "journal"),
            "ARB_LISTENERS_PATH": str(tmp_path / "listeners.yaml"),
            "ARB_CAPTURE_FLUSH_S": "1",
            "ARB_CAPTURE_MAX_MARKETS": "40",
            "ARB_CAPTURE_SHARDS": "2",
            "ARB_CAPTURE_LEASE_S": str(LEASE_S),
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        settings = Settings()
        lake = Lake(settings.lake, settings.exchange_name)
        for venue in VENUES:
            asyncio.run(pipeline.discover(venue, settings, lake))
        with dg.DagsterInstance.get() as instance:
            for venue in VENUES:
                instance.report_runless_asset_event(dg.AssetMaterialization(asset_key("markets", venue)))
            stage = Stage(instance, Ui(""), home, lake, exchange, boundary, patch)
            stage.set_clock(boundary - timedelta(minutes=30))
            with running_ui(ROOT, home, port=0, log_folder=tmp_path) as ui:
                stage.ui = ui
                switch_off(ui.url, "sensor", switch_on(ui.url, "sensor", "follow_data"))  # evaluations are not at stake
                yield stage


def test_captures_survive_kills_terminations_restarts_and_the_end_of_their_hour(stage: Stage) -> None:
    hour = stage.boundary - HOUR
    began = time.time()
    sensor = switch_on(stage.ui.url, "sensor", SENSOR)
    first = stage.wait_capturing(hour, 120)
    stage.start_s = time.time() - began
    _a_process_is_killed_and_a_run_is_terminated(stage, first)
    second = stage.wait_capturing(hour, RELAUNCH_S * stage.patience, but=first.values())

    _everything_is_killed(stage, second)
    third = stage.wait_capturing(hour, RELAUNCH_S * stage.patience, but=second.values())
    for label, run_id in second.items():
        assert stage.run(run_id).status is S.FAILURE, label
        assert stage.frames_of(third[label])

    fourth = _dagster_restarts(stage, third)
    _the_hour_ends(stage, third, fourth)

    _until(stage.answers, 120 * stage.patience, "an answer of the new webserver")
    switch_off(stage.ui.url, "sensor", sensor)
    for run_id in fourth.values():
        os.kill(stage.pid(run_id), signal.SIGTERM)
    for run_id in fourth.values():
        stage.wait_status(run_id, S.SUCCESS, 30 * stage.patience)
    for venue in VENUES:
        partitions = stage.instance.get_materialized_partitions(asset_key("quotes", venue))
        assert partitions == {partition_key(hour), partition_key(stage.boundary)}, venue
    _no_two_captured_the_same(stage)


def _a_process_is_killed_and_a_run_is_terminated(stage: Stage, runs: dict[str, str]) -> None:
    """The first shard's process is killed, the second one's run is terminated while frames pour in."""
    victim, ended = (runs[label] for label in SHARDS)
    control = stage.exchange.announcement()["control_url"]
    httpx.post(f"{control}/fault", json={"kind": "burst", "factor": 10, "seconds": 15}).raise_for_status()
    os.kill(stage.pid(victim), signal.SIGKILL)
    asked = time.monotonic()
    asked_ns = ns_from_datetime(Settings().clock.now())
    answer = graphql(stage.ui.url, _TERMINATE, {"runId": ended})["terminateRun"]
    assert answer["__typename"] == "TerminateRunSuccess", answer
    within_s = STOP_S * stage.patience
    stage.wait_status(ended, S.CANCELED, asked + within_s - time.monotonic())
    stage.wait_status(victim, S.FAILURE, within_s)
    assert stage.frames_of(ended)[-1] > asked_ns - 3_000_000_000, "frames before the termination are missing"
    httpx.post(f"{control}/fault/clear").raise_for_status()


def _everything_is_killed(stage: Stage, runs: dict[str, str]) -> None:
    """Webserver, daemon, code servers, captures: all at once; then the daemon starts, and the hour is nearly over."""
    before = {run_id: stage.events(run_id) for run_id in runs.values()}
    beats = {run_id: stage.beat(run_id) for run_id in runs.values()}
    watched = time.monotonic()
    for run_id, beat in beats.items():
        _until(partial(stage.beaten, run_id, beat + 3), 30 * stage.patience, "more heartbeats")
    minutes = (time.monotonic() - watched) / 60
    for run_id, events in before.items():
        assert stage.events(run_id) - events <= EVENTS_PER_MINUTE * minutes, "heartbeats grow the event log"
    for service in stage.ui.services:
        os.killpg(service.process.pid, signal.SIGKILL)
        service.process.wait()
    for run_id in runs.values():
        assert stage.run(run_id).status is S.STARTED, "nobody is left who could say that it failed"
    # Enough for the daemon and two captures to start, and then for two more beside them.
    stage.set_clock(stage.boundary - timedelta(seconds=30 + LEASE_S + 2.5 * stage.start_s))
    stage.patch.setenv("ARB_CAPTURE_PREWARM_S", str(max(20.0, 1.5 * stage.start_s)))
    stage.start("daemon")


def _dagster_restarts(stage: Stage, runs: dict[str, str]) -> dict[str, str]:
    """Daemon and code location end and come back, as the webserver does, while two hours' captures run.

    Returns the next hour's runs.
    """
    for label in SHARDS:
        _until(partial(stage.warm, label), 120 + 4 * stage.start_s, f"the next hour's run of shard {label}")
    daemon = stage.service("daemon")
    os.kill(daemon.process.pid, signal.SIGTERM)  # alone: its code server waits for the captures that it started
    daemon.process.wait(60)
    restarted = time.time()
    stage.start("daemon")
    stage.start("webserver")
    _until(lambda: stage.sensor_ticked(restarted), RELAUNCH_S * stage.patience, "a look of the new daemon's sensor")
    for run_id in runs.values():
        assert stage.run(run_id).status in (S.STARTED, S.SUCCESS), "a restart is no reason to end"
    return stage.wait_capturing(stage.boundary, RELAUNCH_S * stage.patience)


def _the_hour_ends(stage: Stage, runs: dict[str, str], following: dict[str, str]) -> None:
    for run_id in runs.values():
        stage.wait_status(run_id, S.SUCCESS, 60 * stage.patience)
    boundary, near = ns_from_datetime(stage.boundary), round(2e9 * stage.patience)
    for label in SHARDS:
        last, opening = stage.frames_of(runs[label])[-1], stage.frames_of(following[label])[0]
        assert boundary - near < last < boundary <= opening, label
        # On a machine with too much to do the next run may come late, which is then in the ledger from the boundary on.
        assert opening < boundary + near or stage.is_accounted(following[label], boundary, opening), label


def _no_two_captured_the_same(stage: Stage) -> None:
    """Of each hour and shard, one run after the other: by Dagster's records and by the rows."""
    for hour in (stage.boundary - HOUR, stage.boundary):
        for label in SHARDS:
            records = stage.runs(hour, label)
            spans = [(record.start_time, record.end_time) for record in records if record.start_time]
            assert all(ended is not None and ended <= begun for (_, ended), (begun, _) in pairwise(spans))
            frames = [times for record in records if (times := stage.frames_of(record.dagster_run.run_id))]
            assert all(one[-1] < other[0] for one, other in pairwise(frames)), (hour, label)
    assert not stage.instance.get_runs(dg.RunsFilter(job_name=CAPTURE_JOB, statuses=list(LIVE)))
