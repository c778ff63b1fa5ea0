import time
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest

from arb_pipeline.defs.capture.lifecycle import HEARTBEAT_TAG
from arb_pipeline.defs.capture.supervision import (
    CAPTURE_JOB,
    LEASE_S,
    PARTITION_TAG,
    SHARD_TAG,
    Plan,
    shard_label,
    supervise,
)
from arb_pipeline.settings import Settings

S = dg.DagsterRunStatus
NOW = datetime(2026, 7, 1, 13, 30, tzinfo=UTC)
CURRENT, NEXT = "2026-07-01-13:00", "2026-07-01-14:00"
NEAR_BOUNDARY = NOW.replace(minute=59, second=45)


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
    return supervise(instance, Settings(), now, shards, wall=time.time() + later_s)


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


def test_repeated_failures_pause_the_next_try(instance: dg.DagsterInstance) -> None:
    _run(instance, S.FAILURE)
    assert _plan(instance).launch == [(CURRENT, 0)]
    _run(instance, S.FAILURE)
    assert _plan(instance) == Plan(waiting=[(CURRENT, 0)])
    assert _plan(instance, later_s=11).launch == [(CURRENT, 0)]
    for _ in range(6):
        _run(instance, S.FAILURE)
    assert _plan(instance, later_s=115).waiting == [(CURRENT, 0)]
    assert _plan(instance, later_s=125).launch == [(CURRENT, 0)]
    assert _plan(instance, NEAR_BOUNDARY).launch == [(NEXT, 0)]


def test_a_success_in_between_ends_the_pause(instance: dg.DagsterInstance) -> None:
    _run(instance, S.FAILURE)
    _run(instance, S.FAILURE)
    _run(instance, S.SUCCESS)
    assert _plan(instance).launch == [(CURRENT, 0)]
