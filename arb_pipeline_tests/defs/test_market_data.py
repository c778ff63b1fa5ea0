"""Candles and filled-forward books as assets, on hours that the test writes itself."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from arb_pipeline.defs.checks import coverage_of, ohlc_sane
from arb_pipeline.defs.describe import asset_key, table_spec
from arb_pipeline.defs.market_data.assets import market_data_assets
from arb_pipeline.defs.partitions import HOURLY
from arb_pipeline.defs.resources import Pipeline, pipeline_resource
from arb_pipeline.model import Event
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline_tests.capture.fakes import markets
from arb_pipeline_tests.storage.test_grid import OPEN, Story, delta, stored

KEY = "2026-05-13-20:00"
CANDLES = asset_key("candles", "kalshi")
SNAPSHOTS = asset_key("orderbook_snapshots", "kalshi")
LATER = datetime(2026, 5, 14, tzinfo=UTC)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """An hour of a market that moves, ten minutes of it in a gap."""
    story = Story([OPEN, delta(70, "bid", 41, 2), delta(90, "ask", 44, 1)], gaps=[(600, 1_200, "a")])
    lake = stored(str(tmp_path / "lake"), story)
    offset = (LATER - datetime.now(UTC)).total_seconds()
    return Pipeline(Settings(lake=lake.root, clock_offset=offset, listeners_path=tmp_path / "listeners.yaml"))


def run(
    pipeline: Pipeline, instance: dg.DagsterInstance, key: dg.AssetKey, config: dict[str, Any] | None = None
) -> dg.ExecuteInProcessResult:
    assets = [made for made in market_data_assets("kalshi", {}) if key in made.keys]
    name = assets[0].op.name
    return dg.materialize(
        assets,
        instance=instance,
        partition_key=KEY,
        resources={"pipeline": pipeline},
        run_config={"ops": {name: {"config": config}}} if config else None,
    )


def materialised(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    (event,) = [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == key
    ]
    assert event.partition == KEY
    return {name: value.value for name, value in event.metadata.items()}


def test_the_candles_of_an_hour(pipeline: Pipeline, instance: dg.DagsterInstance) -> None:
    result = run(pipeline, instance, CANDLES)
    told = materialised(result, CANDLES)
    assert told["made"] == {"1 s": 2, "60 s": 1, "3600 s": 1}
    assert told["dagster/partition_row_count"] == pipeline.lake.read("candles").num_rows == 4
    assert told["coverage"] == 1.0
    assert "0.44" in told["preview"]
    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == {
        "keys_unique": True, "ohlc_sane": True, "coverage": True,
    }  # fmt: skip
    (hour,) = (row for row in pipeline.lake.read("candles").to_pylist() if row["interval_s"] == 3_600)
    assert hour["coverage"] == 50 / 60
    again = pipeline.lake.read("candles")
    run(pipeline, instance, CANDLES)
    assert pipeline.lake.read("candles").equals(again)


def test_the_books_that_a_run_names(pipeline: Pipeline, instance: dg.DagsterInstance) -> None:
    config = {"markets": ["M"], "interval_ms": 60_000, "levels": 1, "start": "2026-05-13T20:05:00Z"}
    result = run(pipeline, instance, SNAPSHOTS, config)
    told = materialised(result, SNAPSHOTS)
    assert (told["made"], told["known"], told["coverage"]) == (55, 45, {"60000 ms": {"M": 45 / 55}})
    held = pipeline.lake.read("orderbook_snapshots")
    assert held.num_rows == told["dagster/partition_row_count"] == 55
    assert held["bids"][0].as_py() == "[[0.4100,2.000000]]"
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["keys_unique"].passed
    assert not checks["coverage"].passed
    assert checks["coverage"].severity is dg.AssetCheckSeverity.WARN


def test_without_a_name_the_listeners_that_ask_for_a_grid_have_theirs(
    pipeline: Pipeline, instance: dg.DagsterInstance
) -> None:
    listed = Event(venue="kalshi", event_id="M", title="?", markets=tuple(markets("M", "N", venue="kalshi")))
    write_catalogue(pipeline.lake, "kalshi", [listed], LATER)
    path = pipeline.settings.listeners_path
    path.write_text("- {name: all, venue: kalshi}\n- {name: p, venue: polymarket, forward_fill_interval_ms: 500}\n")
    assert not run(pipeline, instance, SNAPSHOTS).get_asset_materialization_events()
    path.write_text("- {name: a, venue: kalshi, forward_fill_interval_ms: 600000}\n")
    told = materialised(run(pipeline, instance, SNAPSHOTS), SNAPSHOTS)
    assert told["coverage"] == {"600000 ms": {"M": 5 / 6}}  # N was not captured


def test_hours_are_derived_whenever_capture_wrote_them(instance: dg.DagsterInstance) -> None:
    inputs = ("quotes", "book_events", "trades", "book_gaps", "capture_sessions")
    specs = [table_spec(name, venue="kalshi", group="capture", partitions_def=HOURLY) for name in inputs]
    definitions = dg.Definitions([*specs, *market_data_assets("kalshi", {})], resources={"pipeline": pipeline_resource})
    at = datetime(2026, 5, 13, 21, 1, tzinfo=UTC)
    results = [dg.evaluate_automation_conditions(definitions, instance, evaluation_time=at)]

    def requested(*written: dg.AssetKey) -> tuple[bool, bool]:
        for key in written:
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=KEY))
        cursor = results[-1].cursor
        results.append(dg.evaluate_automation_conditions(definitions, instance, cursor=cursor, evaluation_time=at))
        wanted = [results[-1].get_requested_partitions(key) for key in (CANDLES, SNAPSHOTS)]
        assert all(keys <= {KEY} for keys in wanted)
        return bool(wanted[0]), bool(wanted[1])

    assert requested(*(spec.key for spec in specs[:-1])) == (False, False)
    assert requested(specs[-1].key) == (True, True)
    assert requested(CANDLES) == (False, False)
    assert requested(specs[0].key)[0]


def test_checks_find_what_they_are_for(pipeline: Pipeline, instance: dg.DagsterInstance) -> None:
    run(pipeline, instance, CANDLES)
    candles = Lake(pipeline.lake.root).read("candles")
    assert ohlc_sane(CANDLES, candles).passed
    place = candles.schema.get_field_index("bid_low")
    for wrong in ("0.99", None):
        low = pa.array([None if wrong is None else Decimal(wrong)] * candles.num_rows, candles.schema.field(place).type)
        found = ohlc_sane(CANDLES, candles.set_column(place, "bid_low", low))
        assert not found.passed
    assert not coverage_of(CANDLES, pa.chunked_array([[0.5, 1.0]])).passed
    assert coverage_of(CANDLES, pa.chunked_array([[]], pa.float64())).passed
