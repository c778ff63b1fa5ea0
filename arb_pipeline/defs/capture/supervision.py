"""Keeping captures alive: which runs are missing, which have gone silent, what to launch."""

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import dagster as dg

from arb_pipeline.defs.capture.lifecycle import LIVE, OWNED, last_sign_of_life
from arb_pipeline.defs.partitions import wanted_partitions
from arb_pipeline.settings import Settings

__all__ = [
    "BEAT_S",
    "CAPTURE_JOB",
    "ENDED_TAG",
    "LEASE_S",
    "PARTITION_TAG",
    "ROLE_TAG",
    "SHARD_TAG",
    "Plan",
    "shard_label",
    "supervise",
]

CAPTURE_JOB = "capture_job"
ROLE_TAG = "arb/role"
SHARD_TAG = "arb/shard"
PARTITION_TAG = "dagster/partition"
ENDED_TAG = "arb/ended"
"""Set by a shard's run once it has written its last row."""

BEAT_S = 5.0
"""Seconds between two heartbeats."""
LEASE_S = 30.0
"""Seconds of silence after which a run is given up: several beats, and longer than a process needs to start."""
MIN_LEFT = timedelta(seconds=10)
"""The current hour is left alone when less of it remains."""
_BACKOFF_S = 10.0
_MAX_BACKOFF_S = 120.0
_RECENT = 8


def shard_label(shard: int, shards: int) -> str:
    """Value of the shard tag: ``0/1`` is the only shard of one."""
    return f"{shard}/{shards}"


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


def supervise(
    instance: dg.DagsterInstance, settings: Settings, now: datetime, shards: int = 1, wall: float | None = None
) -> Plan:
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
        silent_s = wall - last_sign_of_life(record)
        if run.status in OWNED and silent_s > LEASE_S:
            # Only reported, never terminated from here: terminating a stuck process would block the sensor. If the
            # process lives after all, it finds its run given up and leaves.
            instance.report_run_failed(run, f"capture lease expired: no heartbeat for {silent_s:.0f} s")
            plan.expired.append(run.run_id)
            continue
        busy.add((run.tags.get(PARTITION_TAG, ""), run.tags.get(SHARD_TAG, shard_label(0, 1))))
    for key in wanted_partitions(now, timedelta(seconds=settings.capture_prewarm_s), MIN_LEFT):
        for shard in range(shards):
            label = shard_label(shard, shards)
            if (key, label) in busy:
                continue
            pausing = _pause_s(instance, key, label, wall) > 0
            (plan.waiting if pausing else plan.launch).append((key, shard))
    return plan


def _pause_s(instance: dg.DagsterInstance, key: str, label: str, wall: float) -> float:
    """Seconds to wait before another try: none after one failure, then growing, so that nothing fails in a spin."""
    tags = {PARTITION_TAG: key, SHARD_TAG: label}
    recent = instance.get_run_records(dg.RunsFilter(job_name=CAPTURE_JOB, tags=tags), limit=_RECENT)
    failures = 0
    for record in recent:
        if record.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
            break
        failures += 1
    if failures < 2:
        return 0.0
    ended = recent[0].end_time or recent[0].update_timestamp.timestamp()
    pause: float = min(_MAX_BACKOFF_S, _BACKOFF_S * 2 ** (failures - 2))
    return ended + pause - wall
