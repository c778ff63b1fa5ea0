"""The job that looks after Postgres: what the lake has and it lacks, its old days, and indexes of days that are over.

Its schedule is off at first.
"""

import dagster as dg

from arb_pipeline.defs.resources import Pipeline

__all__ = ["POSTGRES_JOB", "postgres_job", "postgres_schedule"]

POSTGRES_JOB = "postgres_upkeep_job"


@dg.op(
    name="fill_postgres",
    description="Publishes what the lake holds and Postgres lacks, but for ticks, which capture loads itself.",
    out=dg.Out(dg.Nothing),
)
def _fill(context: dg.OpExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> None:
    if pipeline.settings.postgres_url is None:
        context.log.info("ARB_POSTGRES_URL is not set: there is no Postgres to look after")
        return
    from arb_pipeline.storage.postgres import Postgres, sync
    from arb_pipeline.storage.postgres.publishing import MIRRORED

    postgres = Postgres(pipeline.settings.postgres_url.get_secret_value(), application_name="arb upkeep")
    try:
        postgres.migrate()
        done = sync(postgres, pipeline.lake, MIRRORED)
    finally:
        postgres.close()
    context.add_output_metadata({"partitions": len(done), "rows": sum(one.rows for one in done)})


@dg.op(
    name="drop_old_days",
    description="Drops days of ticks that are older than ARB_POSTGRES_RETENTION_DAYS; the lake keeps its files.",
    ins={"filled": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
)
def _drop(context: dg.OpExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> None:
    settings = pipeline.settings
    if settings.postgres_url is None or settings.postgres_retention_days is None:
        context.log.info("ARB_POSTGRES_RETENTION_DAYS is not set: every day is kept")
        return
    from arb_pipeline.storage.postgres import Postgres
    from arb_pipeline.storage.postgres.retention import drop_days

    postgres = Postgres(settings.postgres_url.get_secret_value(), application_name="arb upkeep")
    try:
        found = drop_days(postgres, settings.postgres_retention_days, settings.clock.now())
    finally:
        postgres.close()
    for one in found:
        context.log.info("%s of %s dropped: %d bytes", one.table, one.date, one.bytes)
    context.add_output_metadata({"days": len(found), "bytes": sum(one.bytes for one in found)})


@dg.op(
    name="index_days",
    description="Indexes quotes of the days that are over by market.",
    ins={"dropped": dg.In(dg.Nothing)},
)
def _index(context: dg.OpExecutionContext, pipeline: dg.ResourceParam[Pipeline]) -> None:
    settings = pipeline.settings
    if settings.postgres_url is None:
        return
    from arb_pipeline.storage.postgres import Postgres, index_days

    postgres = Postgres(settings.postgres_url.get_secret_value(), application_name="arb upkeep")
    try:
        made = index_days(postgres, settings.clock.now())
    finally:
        postgres.close()
    context.add_output_metadata({"days": ", ".join(made)})


def postgres_job(tags: dict[str, str]) -> dg.JobDefinition:
    """The job. ``tags`` go on every run."""

    @dg.job(
        name=POSTGRES_JOB,
        description="Fills Postgres from the lake, drops its old days and indexes those that are over; without "
        "ARB_POSTGRES_URL, nothing.",
        tags=tags,
        executor_def=dg.in_process_executor,
    )
    def upkeep() -> None:
        _index(dropped=_drop(filled=_fill()))

    return upkeep


def postgres_schedule() -> dg.ScheduleDefinition:
    """Its schedule, off at first."""
    return dg.ScheduleDefinition(
        name="postgres_upkeep_daily",
        job_name=POSTGRES_JOB,
        cron_schedule="15 2 * * *",
        execution_timezone="UTC",
        description="Fills Postgres, drops its old days and indexes those that are over at 02:15 UTC, where "
        "ARB_POSTGRES_URL is set.",
    )
