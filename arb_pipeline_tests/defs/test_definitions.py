from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import dagster as dg
import pytest

from arb_pipeline.capture.listeners import ListenerError
from arb_pipeline.definitions import build
from arb_pipeline.defs import automation
from arb_pipeline.defs.arbitrage.assets import EVALUATED
from arb_pipeline.defs.automation import ANALYSIS_JOB, CANDLES_JOB, DISCOVERY_JOB, REPORT_JOB, SENSOR
from arb_pipeline.defs.capture.supervision import CAPTURE_JOB, PARTITION_TAG, ROLE_TAG, SHARD_TAG
from arb_pipeline.defs.describe import asset_key, exchange_tags
from arb_pipeline.defs.discovery.assets import VENUES
from arb_pipeline.defs.market_data.assets import DAILY_CANDLES
from arb_pipeline.defs.market_data.trades import BACKFILL_TRADES_JOB
from arb_pipeline.defs.partitions import DAILY, partition_key
from arb_pipeline.settings import Settings
from arb_pipeline.tables import TABLES
from arb_pipeline.venues import VENUES as REGISTRY

PER_VENUE = {
    "events", "markets", "market_history", "fee_schedules",
    "raw_frames", "book_events", "quotes", "trades", "tickers", "book_gaps", "capture_sessions", "account_events",
    "candles", "orderbook_snapshots",
}  # fmt: skip
DERIVED = {"candles", "orderbook_snapshots"}
ACROSS = {
    "events", "markets", "market_matches", "match_review", "spreads", "opportunities", "rejections", "arbitrage_report",
    "opportunity_pieces", "execution_backtest", "settlement_agreement", "match_evaluation",
    "basis", "outcome_sets", "basket_pieces", "basket_opportunities",
}  # fmt: skip


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build(Settings())


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> dict[dg.AssetKey, dg.AssetSpec]:
    return {spec.key: spec for spec in definitions.resolve_all_asset_specs()}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def test_they_load(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_every_table_is_an_asset_of_its_key(specs: dict[dg.AssetKey, dg.AssetSpec]) -> None:
    expected = {asset_key(name, venue) for venue in REGISTRY for name in PER_VENUE} | {asset_key(n) for n in ACROSS}
    expected |= {asset_key(DAILY_CANDLES, venue) for venue in REGISTRY}
    assert set(specs) == expected
    assert (PER_VENUE | ACROSS) - {"arbitrage_report"} == set(TABLES)
    assert set(VENUES) == set(REGISTRY)


def test_every_asset_is_described(specs: dict[dg.AssetKey, dg.AssetSpec]) -> None:
    for key, spec in specs.items():
        name = key.to_user_string()
        assert spec.group_name in {"discovery", "capture", "market_data", "matching", "arbitrage"}, name
        assert spec.owners, name
        assert spec.description, name
        assert spec.kinds, name
        schema = spec.metadata["dagster/column_schema"]
        assert isinstance(schema, dg.TableSchema), name
        assert all(column.description for column in schema.columns), name


def test_column_schemas_are_those_of_the_tables(specs: dict[dg.AssetKey, dg.AssetSpec]) -> None:
    schema = specs[asset_key("quotes", "kalshi")].metadata["dagster/column_schema"]
    assert [column.name for column in schema.columns] == list(TABLES["quotes"].column_names)
    bid = next(column for column in schema.columns if column.name == "bid")
    assert bid.type == "decimal128(9, 4)"
    assert bid.constraints.nullable


def test_jobs_name_their_assets(definitions: dg.Definitions) -> None:
    def keys(job: str) -> set[dg.AssetKey]:
        return set(definitions.resolve_job_def(job).asset_layer.executable_asset_keys)

    discovered = {"events", "markets", "market_history", "fee_schedules"}
    assert keys(DISCOVERY_JOB) == {asset_key(name, venue) for venue in VENUES for name in discovered}
    assert keys(CAPTURE_JOB) == {
        asset_key(name, venue) for venue in VENUES for name in PER_VENUE - discovered - DERIVED
    }
    assert keys(CANDLES_JOB) == {asset_key(DAILY_CANDLES, venue) for venue in VENUES}
    assert keys(ANALYSIS_JOB) == {asset_key(name) for name in ACROSS - {"match_evaluation"}}
    assert keys(REPORT_JOB) == {asset_key("arbitrage_report")}


def test_capture_runs_in_one_process_without_retries(definitions: dg.Definitions) -> None:
    job = definitions.resolve_job_def(CAPTURE_JOB)
    assert job.executor_def is dg.in_process_executor
    assert job.tags[ROLE_TAG] == "capture"
    assert job.tags["dagster/max_retries"] == "0"
    assert int(job.tags["dagster/max_runtime"]) > 3600 + Settings().capture_prewarm_s
    (op,) = (node.definition for node in job.nodes)
    assert isinstance(op, dg.OpDefinition)
    assert op.retry_policy is None
    assert op.pools == set()


def test_rest_assets_retry_and_hold_their_venues_pool(definitions: dg.Definitions) -> None:
    job = definitions.resolve_job_def(DISCOVERY_JOB)
    for venue in VENUES:
        op = job.get_node_named(f"{venue}_catalogue").definition
        assert isinstance(op, dg.OpDefinition)
        assert op.retry_policy is not None
        assert op.pools == {f"{venue}_api"}


def test_nothing_that_dials_is_on_by_itself(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    assert {schedule.name: schedule.default_status for schedule in repository.schedule_defs} == dict.fromkeys(
        (
            "candles_daily",
            "discover_daily",
            "discover_hourly",
            "report_daily",
            "retention_daily",
            "lake_check_weekly",
            "postgres_upkeep_daily",
        ),
        dg.DefaultScheduleStatus.STOPPED,
    )
    assert {sensor.name: sensor.default_status for sensor in repository.sensor_defs} == {
        SENSOR: dg.DefaultSensorStatus.STOPPED,
        "alerts_from_tables": dg.DefaultSensorStatus.STOPPED,
        "follow_data": dg.DefaultSensorStatus.RUNNING,
        "report_failures": dg.DefaultSensorStatus.RUNNING,
    }


def test_the_candles_of_a_day_are_made_when_it_is_over(definitions: dg.Definitions) -> None:
    schedule = definitions.resolve_schedule_def("candles_daily")
    at = datetime(2026, 7, 2, 0, 30, tzinfo=UTC)
    with dg.build_schedule_context(
        scheduled_execution_time=at, repository_def=definitions.get_repository_def()
    ) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.partition_key == "2026-07-01"
    assert definitions.resolve_job_def(CANDLES_JOB).partitions_def == DAILY


def test_backfills_hold_their_venues_pool(definitions: dg.Definitions) -> None:
    held = {node.name: node.definition for job in (CANDLES_JOB, BACKFILL_TRADES_JOB)
            for node in definitions.resolve_job_def(job).nodes}  # fmt: skip
    assert {name: op.pools for name, op in held.items() if isinstance(op, dg.OpDefinition)} == {
        "kalshi_daily_candles": {"kalshi_api"},
        "polymarket_daily_candles": {"polymarket_api"},
        "backfill_trades": {"kalshi_api"},
    }


def test_the_local_exchanges_name_is_on_every_asset_and_job() -> None:
    definitions = build(Settings(exchange_name="Local exchange (seed 7)"))
    tag = exchange_tags("Local exchange (seed 7)")
    assert tag == {"arb/exchange": "Local-exchange-seed-7"}
    assert all(tag.items() <= spec.tags.items() for spec in definitions.resolve_all_asset_specs())
    for job in (DISCOVERY_JOB, CAPTURE_JOB, CANDLES_JOB, BACKFILL_TRADES_JOB, ANALYSIS_JOB, REPORT_JOB):
        assert tag.items() <= definitions.resolve_job_def(job).tags.items()
    assert exchange_tags("") == {}


def test_no_secret_is_in_the_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALSHI_PRIVATE_KEY", "very-secret-key")
    monkeypatch.setenv("ARB_POSTGRES_URL", "postgresql://user:hunter2@host/db")
    repository = build(Settings()).get_repository_def()
    from dagster._core.remote_representation.external_data import RepositorySnap
    from dagster._serdes import serialize_value

    snapshot = serialize_value(RepositorySnap.from_def(repository))
    assert "very-secret-key" not in snapshot
    assert "hunter2" not in snapshot


# --- the capture sensor --------------------------------------------------------------------------------------


def _tick(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.SensorResult:
    sensor = definitions.resolve_sensor_def(SENSOR)
    context = dg.build_sensor_context(instance=instance, definitions=definitions)
    result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def _discovered(instance: dg.DagsterInstance) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_key("markets", "polymarket")))


def test_without_a_catalogue_the_sensor_discovers_once(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    requests = _tick(definitions, instance).run_requests
    assert [request.job_name for request in requests or []] == [DISCOVERY_JOB]
    instance.create_run_for_job(definitions.resolve_job_def(DISCOVERY_JOB), status=dg.DagsterRunStatus.STARTED)
    waiting = _tick(definitions, instance)
    assert not waiting.run_requests
    assert waiting.skip_reason is not None


def test_after_a_failed_discovery_the_sensor_pauses(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    instance.create_run_for_job(definitions.resolve_job_def(DISCOVERY_JOB), status=dg.DagsterRunStatus.FAILURE)
    assert not _tick(definitions, instance).run_requests


def test_the_sensor_asks_for_the_hour_of_the_shifted_clock(instance: dg.DagsterInstance) -> None:
    recorded = datetime(2026, 2, 3, 4, 30, tzinfo=UTC)
    settings = Settings(clock_offset=(recorded - datetime.now(UTC)).total_seconds())
    definitions = build(settings)
    _discovered(instance)
    (request,) = _tick(definitions, instance).run_requests or []
    assert request.job_name == CAPTURE_JOB
    assert request.partition_key == "2026-02-03-04:00"
    assert request.run_key is None
    assert request.tags[SHARD_TAG] == "0/1"
    config = dg.validate_run_config(definitions.resolve_job_def(CAPTURE_JOB), dict(request.run_config))
    assert config["ops"]["capture"]["config"]["shards"] == 1


def test_each_shard_gets_a_run_with_its_part_of_the_markets(instance: dg.DagsterInstance) -> None:
    middle = datetime(2026, 2, 3, 4, 30, tzinfo=UTC)
    settings = Settings(clock_offset=(middle - datetime.now(UTC)).total_seconds(), capture_shards=2)
    definitions = build(settings)
    _discovered(instance)
    requests = _tick(definitions, instance).run_requests or []
    told = {
        request.tags[SHARD_TAG]: (config["shard"], config["shards"])
        for request in requests
        for config in [request.run_config["ops"]["capture"]["config"]]
    }
    assert told == {"0/2": (0, 2), "1/2": (1, 2)}


def test_a_live_capture_is_not_doubled(instance: dg.DagsterInstance) -> None:
    middle = datetime(2026, 2, 3, 4, 30, tzinfo=UTC)
    settings = Settings(clock_offset=(middle - datetime.now(UTC)).total_seconds())
    definitions = build(settings)
    _discovered(instance)
    instance.create_run_for_job(
        definitions.resolve_job_def(CAPTURE_JOB),
        status=dg.DagsterRunStatus.STARTED,
        tags={PARTITION_TAG: partition_key(middle), SHARD_TAG: "0/1"},
    )
    assert not _tick(definitions, instance).run_requests


def test_while_it_captures_the_sensor_lists_the_catalogue_again_when_a_listener_asks_for_it(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle = datetime(2026, 2, 3, 4, 30, tzinfo=UTC)
    path = tmp_path / "listeners.yaml"
    settings = Settings(clock_offset=(middle - datetime.now(UTC)).total_seconds(), listeners_path=path)
    definitions = build(settings)
    _discovered(instance)
    instance.create_run_for_job(
        definitions.resolve_job_def(CAPTURE_JOB),
        status=dg.DagsterRunStatus.STARTED,
        tags={PARTITION_TAG: partition_key(middle), SHARD_TAG: "0/1"},
    )

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(minutes=10)

    monkeypatch.setattr(automation, "datetime", Later)
    listener = "- {name: a, venue: kalshi, discovery_interval_s: 540"
    for text, jobs in {
        "": [],
        listener + ", is_active: false}": [],
        listener.replace("540", "660") + "}": [],
        listener + "}": [DISCOVERY_JOB],
    }.items():
        path.write_text(text)
        assert [request.job_name for request in _tick(definitions, instance).run_requests or []] == jobs
    instance.create_run_for_job(definitions.resolve_job_def(DISCOVERY_JOB), status=dg.DagsterRunStatus.STARTED)
    assert not _tick(definitions, instance).run_requests  # it runs
    path.write_text("- kalshi")
    with pytest.raises(ListenerError, match="listener 1"):
        _tick(definitions, instance)


# --- automation ----------------------------------------------------------------------------------------------


def _requested(
    definitions: dg.Definitions, instance: dg.DagsterInstance, at: datetime, cursor: object = None
) -> dg.EvaluateAutomationConditionsResult:
    return dg.evaluate_automation_conditions(definitions, instance, cursor=cursor, evaluation_time=at)  # type: ignore[arg-type]


def _captured(instance: dg.DagsterInstance, venue: str, key: str) -> None:
    for name in ("quotes", "book_events", "book_gaps", "capture_sessions"):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(name, venue), partition=key))


def test_an_hour_is_evaluated_once_both_venues_have_it_and_new_pairs_do_not_repeat_it(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    at = datetime(2026, 2, 3, 5, 1, tzinfo=UTC)
    key, spreads = "2026-02-03-04:00", asset_key("spreads")
    for name in ("market_matches", "outcome_sets"):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(name)))
    result = _requested(definitions, instance, at)
    _captured(instance, "kalshi", key)
    result = _requested(definitions, instance, at, result.cursor)
    assert result.get_requested_partitions(spreads) == set()
    _captured(instance, "polymarket", key)
    result = _requested(definitions, instance, at, result.cursor)
    for name in (*EVALUATED, "basis", "basket_pieces", "basket_opportunities"):
        assert result.get_requested_partitions(asset_key(name)) == {key}
    for name in (*EVALUATED, "basis", "basket_pieces", "basket_opportunities"):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(name), partition=key))
    for name in ("market_matches", "outcome_sets"):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(name)))
    result = _requested(definitions, instance, at + timedelta(minutes=1), result.cursor)
    assert result.get_requested_partitions(spreads) == set()
    assert result.get_requested_partitions(asset_key("basket_pieces")) == set()


def test_one_venues_catalogue_is_enough_for_the_view_and_for_matching(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    at = datetime(2026, 2, 3, 5, 1, tzinfo=UTC)
    result = _requested(definitions, instance, at)
    for name in ("events", "markets"):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(name, "kalshi")))
    result = _requested(definitions, instance, at, result.cursor)
    assert result.get_num_requested(asset_key("events")) == 1
    assert result.get_num_requested(asset_key("markets")) == 1
    assert result.get_num_requested(asset_key("market_matches")) == 1
