import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from arb_pipeline.defs.capture.lifecycle import HEARTBEAT_TAG
from arb_pipeline.defs.capture.supervision import (
    CAPTURE_JOB,
    ENDED_TAG,
    MAX_BACKOFF_S,
    PARTITION_TAG,
    SENSOR_S,
    SHARD_TAG,
    STARTING_S,
    Plan,
    rival,
    shard_label,
    supervise,
)
from arb_pipeline.settings import Settings

S = dg.DagsterRunStatus
NOW = datetime(2026, 7, 1, 13, 30, tzinfo=UTC)
CURRENT, NEXT = "2026-07-01-13:00", "2026-07-01-14:00"
NEAR_BOUNDARY = NOW.replace(minute=59, second=45)
LEASE_S = Settings().capture_lease_s


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def _run(
    instance: dg.DagsterInstance, status: S, key: str = CURRENT, label: str = "0/1", beat: float | None = None
) -> dg.DagsterRun:
    tags = {PARTITION_TAG: key, SHARD_TAG: label}
    if beat is not None:
        tags[HEARTBEAT_TAG] = str(beat)
    return instance.create_run_for_job(dg.GraphDefinition(CAPTURE_JOB).to_job(), status=status, tags=tags)


def _plan(instance: dg.DagsterInstance, now: datetime = NOW, shards: int = 1, later_s: float = 0.0) -> Plan:
    return supervise(instance, Settings(capture_shards=shards), now, wall=time.time() + later_s)


def test_nothing_runs_so_the_current_hour_is_launched(instance: dg.DagsterInstance) -> None:
    assert _plan(instance) == Plan(launch=[(CURRENT, 0)])


@pytest.mark.parametrize("status", [S.NOT_STARTED, S.STARTING, S.STARTED, S.CANCELING])
def test_a_live_run_is_left_alone(instance: dg.DagsterInstance, status: S) -> None:
    _run(instance, status)
    assert _plan(instance) == Plan()


@pytest.mark.parametrize("status", [S.SUCCESS, S.FAILURE, S.CANCELED])
def test_a_run_that_ended_is_replaced(instance: dg.DagsterInstance, status: S) -> None:
    _run(instance, status)
    assert _plan(instance).launch == [(CURRENT, 0)]


def test_near_the_boundary_the_next_hour_warms_up_beside_the_current_one(instance: dg.DagsterInstance) -> None:
    _run(instance, S.STARTED)
    assert _plan(instance, NEAR_BOUNDARY).launch == [(NEXT, 0)]
    _run(instance, S.STARTED, key=NEXT)
    assert _plan(instance, NEAR_BOUNDARY) == Plan()


def test_a_silent_run_is_failed_and_replaced_at_once(instance: dg.DagsterInstance) -> None:
    run = _run(instance, S.STARTED, beat=time.time())
    assert _plan(instance, later_s=LEASE_S - 5) == Plan()
    assert _plan(instance, later_s=LEASE_S + 5) == Plan(launch=[(CURRENT, 0)], expired=[run.run_id])
    failed = instance.get_run_by_id(run.run_id)
    assert failed is not None
    assert failed.status is S.FAILURE


def test_a_run_that_never_beat_has_the_lease_from_its_start(instance: dg.DagsterInstance) -> None:
    run = _run(instance, S.STARTED)
    assert _plan(instance, later_s=LEASE_S - 5) == Plan()
    assert _plan(instance, later_s=LEASE_S + 5).expired == [run.run_id]


def test_a_run_without_a_process_has_no_lease_yet(instance: dg.DagsterInstance) -> None:
    _run(instance, S.NOT_STARTED)
    assert _plan(instance, later_s=LEASE_S + 5) == Plan()


def test_each_shard_has_a_run_of_its_own(instance: dg.DagsterInstance) -> None:
    _run(instance, S.STARTED, label=shard_label(1, 3))
    assert _plan(instance, shards=3).launch == [(CURRENT, 0), (CURRENT, 2)]


def test_a_new_number_of_shards_waits_for_the_runs_of_the_old_one(instance: dg.DagsterInstance) -> None:
    run = _run(instance, S.STARTED, label=shard_label(0, 1))
    assert _plan(instance, shards=2) == Plan()
    assert _plan(instance, NEAR_BOUNDARY, shards=2).launch == [(NEXT, 0), (NEXT, 1)]
    instance.report_run_canceled(run)
    assert _plan(instance, shards=2).launch == [(CURRENT, 0), (CURRENT, 1)]


def test_a_process_that_never_came_up_is_given_up(instance: dg.DagsterInstance) -> None:
    run = _run(instance, S.STARTING)
    assert _plan(instance, later_s=STARTING_S - 5) == Plan()
    assert _plan(instance, later_s=STARTING_S + 5) == Plan(launch=[(CURRENT, 0)], expired=[run.run_id])


def test_repeated_failures_pause_the_next_try(instance: dg.DagsterInstance) -> None:
    _run(instance, S.FAILURE)
    assert _plan(instance).launch == [(CURRENT, 0)]
    _run(instance, S.FAILURE)
    assert _plan(instance) == Plan(waiting=[(CURRENT, 0)])
    assert _plan(instance, later_s=11).launch == [(CURRENT, 0)]
    for _ in range(6):
        _run(instance, S.FAILURE)
    assert _plan(instance, later_s=MAX_BACKOFF_S - 5).waiting == [(CURRENT, 0)]
    assert _plan(instance, later_s=MAX_BACKOFF_S + 5).launch == [(CURRENT, 0)]
    assert _plan(instance, NEAR_BOUNDARY).launch == [(NEXT, 0)]


def test_a_lease_that_ran_out_is_pause_enough(instance: dg.DagsterInstance) -> None:
    for _ in range(4):
        _run(instance, S.FAILURE)
    _run(instance, S.STARTED)
    assert _plan(instance, later_s=LEASE_S + 1).launch == [(CURRENT, 0)]


def test_whatever_is_killed_captures_again_within_a_minute() -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "dagster.yaml").read_text())
    queue_s, start_s = config["run_queue"]["dequeue_interval_seconds"], 10.0
    for silence_s in (LEASE_S, STARTING_S, MAX_BACKOFF_S):
        assert silence_s + SENSOR_S + queue_s + start_s <= 60


def _rival(instance: dg.DagsterInstance, run: dg.DagsterRun, later_s: float = 0.0) -> str | None:
    return rival(instance, run.run_id, Settings(), wall=time.time() + later_s)


def test_the_later_of_two_runs_of_the_same_markets_leaves(instance: dg.DagsterInstance) -> None:
    first = _run(instance, S.STARTED, label="0/1")
    second = _run(instance, S.STARTED, label="1/2")
    assert _rival(instance, first) is None
    assert _rival(instance, second) == first.run_id
    instance.add_run_tags(first.run_id, {ENDED_TAG: "true"})
    assert _rival(instance, second) is None


@pytest.mark.parametrize(("status", "key", "label"), [
    (S.STARTED, CURRENT, "0/2"),
    (S.STARTED, NEXT, "1/2"),
    (S.FAILURE, CURRENT, "1/2"),
    (S.STARTING, CURRENT, "1/2"),
])  # fmt: skip
def test_other_shards_other_hours_and_ended_runs_are_no_rivals(
    instance: dg.DagsterInstance, status: S, key: str, label: str
) -> None:
    _run(instance, status, key, label)
    assert _rival(instance, _run(instance, S.STARTED, label="1/2")) is None


def test_a_silent_run_is_no_rival(instance: dg.DagsterInstance) -> None:
    first = _run(instance, S.STARTED)
    second = _run(instance, S.STARTED, beat=time.time() + LEASE_S)
    assert _rival(instance, second) == first.run_id
    assert _rival(instance, second, later_s=LEASE_S + 5) is None


def test_a_success_in_between_ends_the_pause(instance: dg.DagsterInstance) -> None:
    _run(instance, S.FAILURE)
    _run(instance, S.FAILURE)
    _run(instance, S.SUCCESS)
    assert _plan(instance).launch == [(CURRENT, 0)]
