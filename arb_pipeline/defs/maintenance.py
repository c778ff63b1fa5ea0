"""Jobs that look after the lake: retention of raw frames, and its check. Their schedules are off until switched on."""

import dagster as dg
from pydantic import Field

from arb_pipeline.defs.progress import log_progress
from arb_pipeline.defs.resources import Pipeline

__all__ = ["LAKE_CHECK_JOB", "RETENTION_JOB", "LakeCheckConfig", "maintenance_jobs", "maintenance_schedules"]

LAKE_CHECK_JOB = "lake_check_job"
RETENTION_JOB = "retention_job"
_SHOWN = 20


class LakeCheckConfig(dg.Config):
    """How thorough the check is."""

    content: bool = Field(True, description="read every file; otherwise compare manifests, names and sizes alone")
    repair: bool = Field(False, description="delete files that no manifest lists and that are older than an hour")


@dg.op(
    name="check_lake",
    description="Verifies manifests, checksums, schemas, order and keys; fails if something is wrong, and says what.",
)
def _check_lake(context: dg.OpExecutionContext, config: LakeCheckConfig, pipeline: dg.ResourceParam[Pipeline]) -> None:
    from arb_pipeline.storage.check import check

    done = check(pipeline.lake, content=config.content, repair=config.repair, progress=log_progress(context.log))
    for one in done.findings:
        context.log.warning("%s %s/%s/%s: %s", one.problem, one.table, one.partition, one.file, one.detail)
    context.add_output_metadata(
        {"partitions": done.partitions, "files": done.files, "rows": done.rows, "findings": len(done.findings)}
    )
    if not done.sound:
        wrong = [f"{one.problem}: {one.table}/{one.partition}/{one.file}" for one in done.findings if not one.repaired]
        raise dg.Failure(
            f"{len(wrong)} problems in the lake; the log names each",
            metadata={"first": dg.MetadataValue.md("\n".join(f"- {line}" for line in wrong[:_SHOWN]))},
            allow_retries=False,
        )


@dg.op(
    name="remove_old_frames",
    description="Removes partitions of raw_frames that are older than ARB_RAW_FRAMES_DAYS; no other table is touched.",
)
def _remove_old_frames(context: dg.OpExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> None:
    from arb_pipeline.storage.retention import remove_expired

    days = pipeline.settings.raw_frames_days
    if days is None:
        context.log.info("ARB_RAW_FRAMES_DAYS is not set: raw frames are kept for ever")
        return
    found = remove_expired(pipeline.lake, days, pipeline.settings.clock.now())
    for one in found:
        context.log.info("raw_frames/%s removed: %d rows, %d bytes", one.partition.path, one.rows, one.bytes)
    context.add_output_metadata({"partitions": len(found), "bytes": sum(one.bytes for one in found), "days": days})


def maintenance_jobs(tags: dict[str, str]) -> list[dg.JobDefinition]:
    """The jobs. ``tags`` go on every run."""

    @dg.job(
        name=LAKE_CHECK_JOB,
        description="Verifies the lake, as `arb lake check` does.",
        tags=tags,
        executor_def=dg.in_process_executor,
    )
    def lake_check() -> None:
        _check_lake()

    @dg.job(
        name=RETENTION_JOB,
        description="Removes raw frames that are older than ARB_RAW_FRAMES_DAYS; without it, nothing.",
        tags=tags,
        executor_def=dg.in_process_executor,
    )
    def retention() -> None:
        _remove_old_frames()

    return [lake_check, retention]


def maintenance_schedules() -> list[dg.ScheduleDefinition]:
    """Their schedules, off at first."""
    return [
        dg.ScheduleDefinition(
            name="retention_daily",
            job_name=RETENTION_JOB,
            cron_schedule="45 1 * * *",
            execution_timezone="UTC",
            description="Removes old raw frames at 01:45 UTC, where ARB_RAW_FRAMES_DAYS is set.",
        ),
        dg.ScheduleDefinition(
            name="lake_check_weekly",
            job_name=LAKE_CHECK_JOB,
            cron_schedule="0 3 * * 0",
            execution_timezone="UTC",
            description="Reads the whole lake on Sundays at 03:00 UTC.",
        ),
    ]
