"""Jobs, schedules and sensors."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from arb_pipeline.defs.capture.lifecycle import LIVE
from arb_pipeline.defs.capture.supervision import CAPTURE_JOB, ROLE_TAG, SENSOR_S, SHARD_TAG, shard_label, supervise
from arb_pipeline.defs.describe import asset_key
from arb_pipeline.defs.discovery.assets import TABLES, VENUES
from arb_pipeline.defs.market_data.assets import DAILY_CANDLES, HOURLY_TABLES
from arb_pipeline.defs.partitions import DAILY, HOUR
from arb_pipeline.settings import Settings

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as AssetJob

__all__ = ["ANALYSIS_JOB", "CANDLES_JOB", "DISCOVERY_JOB", "REPORT_JOB", "SENSOR", "jobs", "schedules", "sensors"]

CANDLES_JOB = "candles_job"
DISCOVERY_JOB = "discovery_job"
ANALYSIS_JOB = "analysis_job"
REPORT_JOB = "report_job"
SENSOR = "keep_capture_alive"

_RUN_SLACK = timedelta(minutes=5)
_REFRESH_AFTER = timedelta(minutes=45)
_DISCOVERY_PAUSE = timedelta(minutes=1)

_CATALOGUES = dg.AssetSelection.assets(*(asset_key(name, venue) for venue in VENUES for name in TABLES))
_VIEWS = dg.AssetSelection.assets(asset_key("events"), asset_key("markets"))
_CANDLES = dg.AssetSelection.assets(*(asset_key(DAILY_CANDLES, venue) for venue in VENUES))
_DERIVED = dg.AssetSelection.assets(*(asset_key(name, venue) for venue in VENUES for name in HOURLY_TABLES))
_RAW_TABLES = dg.AssetSelection.groups("capture", "market_data") - _CANDLES - _DERIVED
_EVALUATION = dg.AssetSelection.assets(asset_key("match_evaluation"))
_REPORT = dg.AssetSelection.assets(asset_key("arbitrage_report"))


def jobs(settings: Settings, tags: dict[str, str]) -> "list[AssetJob]":
    """Every job. ``tags`` go on every run."""
    longest = HOUR + timedelta(seconds=settings.capture_prewarm_s) + _RUN_SLACK
    return [
        dg.define_asset_job(
            DISCOVERY_JOB,
            _CATALOGUES,
            description="Lists both venues' open events and markets. One venue's failure leaves the other one alone.",
            tags=tags,
        ),
        dg.define_asset_job(
            CAPTURE_JOB,
            _RAW_TABLES,
            description="Captures one hour of both venues' order books. Started and replaced by a sensor.",
            # One process: Dagster's stop signal must reach the loop that captures, and nothing may outlive it.
            executor_def=dg.in_process_executor,
            tags={
                **settings.capture_run_tags,
                **tags,
                ROLE_TAG: "capture",
                SHARD_TAG: shard_label(0, 1),
                "dagster/max_runtime": str(int(longest.total_seconds())),
                "dagster/max_retries": "0",
                "dagster/priority": "10",  # what is not captured is lost for good, anything else can wait
            },
        ),
        dg.define_asset_job(
            CANDLES_JOB,
            _CANDLES,
            description="Makes and fetches the candles of one UTC day.",
            tags=tags,
        ),
        dg.define_asset_job(
            ANALYSIS_JOB,
            (_VIEWS | dg.AssetSelection.groups("matching", "arbitrage")) - _EVALUATION,
            description="Matches the newest catalogues, evaluates one captured hour and writes the report.",
            tags=tags,
        ),
        dg.define_asset_job(
            REPORT_JOB,
            _REPORT,
            description="Writes the arbitrage report from what the lake holds.",
            tags=tags,
        ),
    ]


def _discovery_is_due(context: dg.ScheduleEvaluationContext) -> bool:
    """Whether no discovery runs now or has succeeded lately."""
    instance = context.instance
    if instance.get_run_records(dg.RunsFilter(job_name=DISCOVERY_JOB, statuses=list(LIVE)), limit=1):
        return False
    since = datetime.now(UTC) - _REFRESH_AFTER
    succeeded = dg.RunsFilter(job_name=DISCOVERY_JOB, statuses=[dg.DagsterRunStatus.SUCCESS], updated_after=since)
    return not instance.get_run_records(succeeded, limit=1)


def schedules(all_jobs: "list[AssetJob]") -> list[dg.ScheduleDefinition]:
    """Every schedule; all start switched off, since loading the project dials nobody."""
    by_name = {job.name: job for job in all_jobs}

    @dg.schedule(
        name="candles_daily",
        job=by_name[CANDLES_JOB],
        cron_schedule="30 0 * * *",
        execution_timezone="UTC",
        description="Makes the candles of the UTC day that is over.",
    )
    def candles_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        yesterday = context.scheduled_execution_time - timedelta(days=1)
        return dg.RunRequest(partition_key=yesterday.strftime(DAILY.fmt))

    return [
        candles_daily,
        dg.ScheduleDefinition(
            name="discover_daily",
            job=by_name[DISCOVERY_JOB],
            cron_schedule="0 2 * * *",
            execution_timezone="UTC",
            description="Lists both catalogues at 02:00 UTC.",
        ),
        dg.ScheduleDefinition(
            name="discover_hourly",
            job=by_name[DISCOVERY_JOB],
            cron_schedule="10 * * * *",
            execution_timezone="UTC",
            should_execute=_discovery_is_due,
            description="Lists them again where the last listing is more than 45 minutes old.",
        ),
        dg.ScheduleDefinition(
            name="report_daily",
            job=by_name[REPORT_JOB],
            cron_schedule="15 0 * * *",
            execution_timezone="UTC",
            description="Writes the report after the end of the UTC day.",
        ),
    ]


def capture_requests(context: dg.SensorEvaluationContext, settings: Settings) -> dg.SensorResult:
    """What the capture sensor launches: missing captures, or a discovery where the catalogue is missing or too old."""
    instance = context.instance
    if not any(instance.get_latest_materialization_event(asset_key("markets", venue)) for venue in VENUES):
        return _first_discovery(instance)
    plan = supervise(instance, settings, settings.clock.now())
    for run_id in plan.expired:
        context.log.warning("capture run %s fell silent and was given up", run_id)
    requests = [
        dg.RunRequest(
            job_name=CAPTURE_JOB,
            partition_key=key,
            tags={SHARD_TAG: shard_label(shard, settings.capture_shards)},
            run_config={"ops": {"capture": {"config": {"shard": shard, "shards": settings.capture_shards}}}},
        )
        for key, shard in plan.launch
    ]
    if requests:
        return dg.SensorResult(run_requests=requests)
    if _catalogue_is_old(instance, settings):
        return dg.SensorResult(run_requests=[dg.RunRequest(job_name=DISCOVERY_JOB)])
    if plan.waiting:
        keys = ", ".join(f"{key} shard {shard}" for key, shard in plan.waiting)
        return dg.SensorResult(skip_reason=f"capture failed repeatedly, pausing before the next try: {keys}")
    return dg.SensorResult(skip_reason="every capture that should be running is running")


def _catalogue_is_old(instance: dg.DagsterInstance, settings: Settings) -> bool:
    """Whether the last discovery is longer ago than an active listener allows, and none runs.

    Raises:
        ListenerError: if the listeners' file is not valid; no capture could start by it either.
    """
    from arb_pipeline.capture.listener_store import listener_store

    intervals = [one.discovery_interval_s for one in listener_store(settings).load() if one.is_active]
    if not intervals:
        return False
    runs = instance.get_run_records(dg.RunsFilter(job_name=DISCOVERY_JOB), limit=1)
    if runs and runs[0].dagster_run.status in LIVE:
        return False
    listed = [instance.get_latest_materialization_event(asset_key("markets", venue)) for venue in VENUES]
    tried = [run.update_timestamp.astimezone(UTC).timestamp() for run in runs]  # a failed one is no reason to hurry
    newest = max([*tried, *(event.timestamp for event in listed if event is not None)])
    return datetime.now(UTC).timestamp() - newest >= min(intervals)


def _first_discovery(instance: dg.DagsterInstance) -> dg.SensorResult:
    latest = instance.get_run_records(dg.RunsFilter(job_name=DISCOVERY_JOB), limit=1)
    if latest:
        run = latest[0]
        if run.dagster_run.status in LIVE:
            return dg.SensorResult(skip_reason="waiting for the first discovery")
        if datetime.now(UTC) - run.update_timestamp.astimezone(UTC) < _DISCOVERY_PAUSE:
            return dg.SensorResult(skip_reason="the first discovery failed, pausing a minute before the next try")
    return dg.SensorResult(run_requests=[dg.RunRequest(job_name=DISCOVERY_JOB)])


def sensors(
    settings: Settings, all_jobs: "Sequence[AssetJob | dg.JobDefinition]", tags: dict[str, str]
) -> list[dg.SensorDefinition]:
    """Capture supervision (off until switched on), declarative automation, and the record of failures."""
    by_name = {job.name: job for job in all_jobs}

    @dg.sensor(
        name=SENSOR,
        jobs=[by_name[CAPTURE_JOB], by_name[DISCOVERY_JOB]],
        minimum_interval_seconds=SENSOR_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            "Keeps one capture running per hour and shard, warms up the next hour, replaces what fell silent. "
            "To stop capturing for good, switch this off first and then terminate the run."
        ),
    )
    def keep_capture_alive(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return capture_requests(context, settings)

    @dg.run_failure_sensor(
        name="report_failures",
        monitored_jobs=all_jobs,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=15,
        description="Writes every failed run with its cause to the daemon's log.",
    )
    def report_failures(context: dg.RunFailureSensorContext) -> None:
        run = context.dagster_run
        context.log.error("%s %s failed: %s", run.job_name, run.run_id, context.failure_event.message)

    follow_data = dg.AutomationConditionSensorDefinition(
        "follow_data",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=10,
        run_tags=tags,
        description="Runs what depends on fresh data: combined views, matching, and the hours that capture closed.",
    )
    return [keep_capture_alive, report_failures, follow_data]
