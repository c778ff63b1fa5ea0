"""Spreads, opportunities and the funnel of one captured hour, and the report over what there is."""

from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg

from arb_pipeline.defs.checks import check_spec, keys_unique, ordered_keys_unique
from arb_pipeline.defs.describe import (
    OWNER,
    Metadata,
    asset_key,
    column_schema,
    exchange_tags,
    partition_metadata,
    preview,
    table_metadata,
    table_spec,
    table_uri,
)
from arb_pipeline.defs.discovery.assets import VENUES
from arb_pipeline.defs.partitions import HOURLY, hour_start
from arb_pipeline.defs.resources import Pipeline
from arb_pipeline.tables import table

if TYPE_CHECKING:
    from arb_pipeline.evaluation import HourEvaluation

__all__ = ["EVALUATED", "GROUP", "INPUTS", "arbitrage_assets", "follow_captured_hours"]

GROUP = "arbitrage"
EVALUATED = ("spreads", "opportunity_pieces", "opportunities", "rejections", "execution_backtest")
INPUTS = ("quotes", "book_events", "book_gaps", "capture_sessions")
_REPORTED = (
    "market_matches",
    "basis",
    "basket_opportunities",
    "outcome_sets",
    "settlement_agreement",
    "match_evaluation",
)
_EVERY = timedelta(hours=26)
_REPORT_SPAN = timedelta(hours=24)


def arbitrage_assets(tags: dict[str, str]) -> list[dg.AssetsDefinition]:
    """The hour's evaluation, and the report."""
    return [_evaluation(tags), _report(tags)]


def follow_captured_hours() -> dg.AutomationCondition[dg.AssetKey]:
    """Run for an hour whenever a venue's tables of that hour were written, closed or not.

    Eager without two of its habits: it would look at the newest partition only, which is an hour still to come, and
    it would run every past hour again whenever the pairs, or the outcomes of events, change.
    """
    condition = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())
    return condition.ignore(dg.AssetSelection.assets(asset_key("market_matches"), asset_key("outcome_sets")))


def _evaluation(tags: dict[str, str]) -> dg.AssetsDefinition:
    keys = {name: asset_key(name) for name in EVALUATED}
    deps = [asset_key("market_matches"), *(asset_key(name, venue) for venue in VENUES for name in INPUTS)]

    @dg.multi_asset(
        name="evaluate_hour",
        description="Sizes and prices every pair of one hour at real depth, net of fees, on trusted books only.",
        partitions_def=HOURLY,
        specs=[
            table_spec(name, group=GROUP, deps=deps, tags=tags, automation_condition=follow_captured_hours())
            for name in EVALUATED
        ],
        check_specs=[check_spec("keys_unique", keys[name]) for name in EVALUATED],
        pool="opportunities_of_a_day",  # an hour's episodes go into its day's partition: one writer at a time
    )
    def evaluate_hour(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        from arb_pipeline.pipeline import evaluate_hour as run
        from arb_pipeline.storage.lake import Partition

        start = hour_start(context.partition_key)
        found = run(pipeline.settings, pipeline.lake, start)
        figures = _figures(found)
        spreads, partition = keys["spreads"], Partition.of("spreads", None, start)
        yield dg.MaterializeResult(
            asset_key=spreads,
            metadata={**partition_metadata(pipeline.lake, "spreads", partition), **figures},
            check_results=[ordered_keys_unique(spreads, pipeline.lake, "spreads", partition)],
            tags=exchange_tags(pipeline.settings.exchange_name),
        )
        for name, key in keys.items():
            if name == "spreads":
                continue
            rows = getattr(found, name)
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={
                    **table_metadata(
                        rows, table_uri(pipeline.lake, name, Partition.of(name, None, start)), partitioned=True
                    ),
                    **figures,
                },
                check_results=[keys_unique(key, rows, name)],
                tags=exchange_tags(pipeline.settings.exchange_name),
            )

    return evaluate_hour


def _figures(found: "HourEvaluation") -> Metadata:
    accepted = found.opportunities.filter(found.opportunities["accepted"])
    return {
        "episodes": dg.MetadataValue.int(found.opportunities.num_rows),
        "accepted": dg.MetadataValue.int(accepted.num_rows),
        "accepted_net_usd": dg.MetadataValue.float(float(sum(accepted["net"].to_pylist()))),
    }


def _report(tags: dict[str, str]) -> dg.AssetsDefinition:
    key = asset_key("arbitrage_report")

    @dg.asset(
        key=key,
        deps=[asset_key(name) for name in (*EVALUATED, *_REPORTED)],
        description=(
            "The HTML report of the last 24 hours: opportunities net of fees, everything that was rejected and why, "
            "and how far the data can be trusted. Its tables lie beside it as Parquet and CSV."
        ),
        group_name=GROUP,
        owners=[OWNER],
        kinds={"html"},
        tags=tags,
        metadata={"dagster/column_schema": column_schema(table("opportunities"))},
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=2 * _EVERY, warn_window=_EVERY),
    )
    def arbitrage_report(pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult[None]:
        from arb_pipeline.pipeline import report
        from arb_pipeline.reports import funnel_png, png_preview, top_rows

        settings = pipeline.settings
        end = settings.clock.now()
        made = report(settings, pipeline.lake, end - _REPORT_SPAN, end)
        inputs = made.inputs
        picture = png_preview(inputs.spreads, inputs.opportunities, inputs.start, inputs.end)
        funnel = funnel_png(inputs.rejections)
        page = made.files.html.resolve()
        metadata: Metadata = {
            "report": dg.MetadataValue.path(str(page)),
            "dagster/uri": dg.MetadataValue.text(page.as_uri()),
            "dagster/row_count": dg.MetadataValue.int(inputs.opportunities.num_rows),
            "preview": preview(top_rows(inputs.opportunities)),
            "funnel": dg.MetadataValue.md(f"![funnel](data:image/png;base64,{b64encode(funnel).decode()})"),
            "widest_gap": dg.MetadataValue.md(f"![widest gap](data:image/png;base64,{b64encode(picture).decode()})"),
        }
        return dg.MaterializeResult(metadata=metadata, tags=exchange_tags(settings.exchange_name))

    return arbitrage_report
