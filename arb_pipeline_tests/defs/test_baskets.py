"""Baskets through Dagster: what is known of events, and an hour's evaluation."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from arb_pipeline.defs.arbitrage.baskets import basket_assets
from arb_pipeline.defs.describe import asset_key
from arb_pipeline.defs.matching.assets import matching_assets
from arb_pipeline.defs.partitions import partition_key
from arb_pipeline.defs.resources import Pipeline
from arb_pipeline_tests.test_baskets import HOUR, HOURS, Made, made_in


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def metadata(result: dg.ExecuteInProcessResult, name: str) -> dict[str, object]:
    (event,) = (event for event in result.get_asset_materialization_events() if event.asset_key == asset_key(name))
    return {name: value.value for name, value in event.materialization.metadata.items()}


def run(
    made: Made, instance: dg.DagsterInstance, assets: dg.AssetsDefinition, key: str | None = None
) -> dg.ExecuteInProcessResult:
    resources = {"pipeline": Pipeline(made.settings(HOURS[2] + HOUR))}
    return dg.materialize([assets], instance=instance, resources=resources, partition_key=key)


def test_an_hour_of_baskets(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    made = made_in(tmp_path)
    result = run(made, instance, basket_assets({}), partition_key(HOURS[0]))
    assert all(check.passed for check in result.get_asset_check_evaluations())
    told = metadata(result, "basket_opportunities")
    assert (told["episodes"], told["accepted"], told["accepted_net_usd"]) == (1, 1, 11.41)
    assert (told["outcome_sets"], told["exclusive"], told["exhaustive"], told["baskets"]) == (2, 2, 2, 5)
    assert (told["baskets_with_a_gap"], told["kalshi_crossed_tops"]) == (1, 0)
    assert "proven" in str(told["funnel"])
    assert "kalshi-high" in str(told["best"])
    assert metadata(result, "basket_pieces")["dagster/partition_row_count"] == 1


def test_matching_tells_what_is_known_of_events(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    result = run(made_in(tmp_path), instance, matching_assets({})[0])
    told = metadata(result, "outcome_sets")
    assert (told["exclusive"], told["exhaustive"], told["with_a_partner"], told["dagster/row_count"]) == (2, 2, 2, 2)
    (unique,) = (
        check for check in result.get_asset_check_evaluations() if check.asset_key == asset_key("outcome_sets")
    )
    assert (unique.check_name, unique.passed) == ("keys_unique", True)
