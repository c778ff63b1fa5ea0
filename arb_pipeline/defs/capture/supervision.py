"""Keeping captures alive: which runs are missing, which have gone silent, what to launch."""

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import dagster as dg

from arb_pipeline.defs.capture.lifecycle import LIVE, OWNED, last_sign_of_life
from arb_pipeline.defs.partitions import wanted_partitions
from arb_pipeline.settings import Settings

__all__ = [
    "CAPTURE_JOB",
    "ENDED_TAG",
    "MAX_BACKOFF_S",
    "PARTITION_TAG",
    "PROGRESS_TAG",
    "ROLE_TAG",
    "SENSOR_S",
    "SHARD_TAG",
    "STARTING_S",
    "Plan",
    "rival",
    "shard_label",
    "supervise",
]

CAPTURE_JOB = "capture_job"
ROLE_TAG = "arb/role"
SHARD_TAG = "arb/shard"
PARTITION_TAG = "dagster/partition"
PROGRESS_TAG = "arb/progress"
"""Before a slash and a venue: the run's newest figures of it."""
ENDED_TAG = "arb/ended"
"""Set by a shard's run once it has written its last row."""

SENSOR_S = 5
"""Seconds between two looks at the captures; Dagster's daemon looks no more often."""
STARTING_S = 40.0
"""Seconds that a launched process may take until its run starts; several times what one needs."""
MIN_LEFT = timedelta(seconds=10)
"""The current hour is left alone when less of it remains."""
_BACKOFF_S = 10.0
MAX_BACKOFF_S = 30.0
"""Longest pause between two tries."""
_RECENT = 8


def shard_label(shard: int, shards: int) -> str:
    """Value of the shard tag: ``0/1`` is the only shard of one."""
    return f"{shard}/{shards}"


def _overlap(label: str, other: str) -> bool:
    """Whether two shards have markets in common: two of the same number of shards do not."""
    return label == other or label.partition("/")[2] != other.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one look at the captures came to.

    Attributes:
        launch: (partition key, shard) without a run.
        expired: runs that were given up just now.
        waiting: (partition key, shard) that failed too recently to be tried again.
    """

    launch: list[tuple[str, int]] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    waiting: list[tuple[str, int]] = field(default_factory=list)


def supervise(instance: dg.DagsterInstance, settings: Settings, now: datetime, wall: float | None = None) -> Plan:
    """Give up silent runs and say which captures to launch.

    Args:
        now: pipeline time (shifted by the clock's offset): says which hours are wanted.
        wall: Unix time in seconds for leases, which are about processes and never shifted; None means now.
    """
    wall = time.time() if wall is None else wall
    plan = Plan()
    busy: set[tuple[str, str]] = set()
    for record in instance.get_run_records(dg.RunsFilter(job_name=CAPTURE_JOB, statuses=list(LIVE))):
        run = record.dagster_run
        if (silent_s := _over_due_s(record, settings, wall)) is not None:
            # Only reported, never terminated from here: terminating a stuck process would block the sensor. If the
            # process lives after all, it finds its run given up and leaves.
            instance.report_run_failed(run, f"capture lease expired: no sign of life for {silent_s:.0f} s")
            plan.expired.append(run.run_id)
            continue
        busy.add(_claim(run))
    for key in wanted_partitions(now, timedelta(seconds=settings.capture_prewarm_s), MIN_LEFT):
        for shard in range(settings.capture_shards):
            label = shard_label(shard, settings.capture_shards)
            # A new number of shards takes effect when the runs of the old one are gone.
            if any(key == hour and _overlap(label, other) for hour, other in busy):
                continue
            pausing = _pause_s(instance, key, label, wall) > 0
            (plan.waiting if pausing else plan.launch).append((key, shard))
    return plan


def rival(instance: dg.DagsterInstance, run_id: str, settings: Settings, wall: float | None = None) -> str | None:
    """A run that captures some of the same markets of the same hour, and was there first; None if there is none."""
    wall = time.time() if wall is None else wall
    records = instance.get_run_records(dg.RunsFilter(job_name=CAPTURE_JOB, statuses=list(OWNED)))
    own = next((record for record in records if record.dagster_run.run_id == run_id), None)
    if own is None:
        return None
    hour, label = _claim(own.dagster_run)
    for record in records:
        run = record.dagster_run
        other_hour, other_label = _claim(run)
        if (
            (record.start_time or 0.0, record.storage_id) < (own.start_time or 0.0, own.storage_id)
            and other_hour == hour
            and _overlap(label, other_label)
            and ENDED_TAG not in run.tags
            and _over_due_s(record, settings, wall) is None
        ):
            return run.run_id
    return None


def _claim(run: dg.DagsterRun) -> tuple[str, str]:
    """The hour and the shard that a run captures."""
    return run.tags.get(PARTITION_TAG, ""), run.tags.get(SHARD_TAG, shard_label(0, 1))


def _over_due_s(record: dg.RunRecord, settings: Settings, wall: float) -> float | None:
    """Seconds since the last sign of life of a run that has been silent for too long; None for any other."""
    status = record.dagster_run.status
    silent_s = wall - last_sign_of_life(record)
    if status in OWNED and silent_s > settings.capture_lease_s:
        return silent_s
    if status is dg.DagsterRunStatus.STARTING and silent_s > STARTING_S:
        return silent_s
    return None


def _pause_s(instance: dg.DagsterInstance, key: str, label: str, wall: float) -> float:
    """Seconds to wait before another try: none after one failure, then growing, so that nothing fails in a spin.

    They count from the last sign of life: a lease that ran out is pause enough.
    """
    tags = {PARTITION_TAG: key, SHARD_TAG: label}
    recent = instance.get_run_records(dg.RunsFilter(job_name=CAPTURE_JOB, tags=tags), limit=_RECENT)
    failures = 0
    for record in recent:
        if record.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
            break
        failures += 1
    if failures < 2:
        return 0.0
    pause: float = min(MAX_BACKOFF_S, _BACKOFF_S * 2 ** (failures - 2))
    return last_sign_of_life(recent[0]) + pause - wall
