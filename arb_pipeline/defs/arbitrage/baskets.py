"""Baskets of one captured hour: several outcomes of an event bought together, on one venue or both."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa

from arb_pipeline.defs.arbitrage.assets import GROUP, INPUTS, follow_captured_hours
from arb_pipeline.defs.checks import check_spec, keys_unique
from arb_pipeline.defs.describe import (
    Metadata,
    asset_key,
    exchange_tags,
    preview,
    table_metadata,
    table_spec,
    table_uri,
)
from arb_pipeline.defs.discovery.assets import VENUES
from arb_pipeline.defs.partitions import HOURLY, hour_start
from arb_pipeline.defs.resources import Pipeline

if TYPE_CHECKING:
    from arb_pipeline.baskets import EvaluatedBaskets

__all__ = ["basket_assets"]

_TABLES = ("basket_pieces", "basket_opportunities")
_SHOWN = ["kind", "event_id", "opened_at", "closed_at", "size", "net", "roi", "worst_state_net", "reasons"]


def basket_assets(tags: dict[str, str]) -> dg.AssetsDefinition:
    """The tables ``basket_pieces`` and ``basket_opportunities``, hour by hour."""
    keys = {name: asset_key(name) for name in _TABLES}
    known = [asset_key("market_matches"), asset_key("outcome_sets")]
    deps = [*known, *(asset_key(name, venue) for venue in VENUES for name in INPUTS)]

    @dg.multi_asset(
        name="evaluate_baskets",
        description="Sizes and prices every basket of outcomes of one hour at real depth, net of fees, on trusted "
        "books only.",
        partitions_def=HOURLY,
        specs=[
            table_spec(name, group=GROUP, deps=deps, tags=tags, automation_condition=follow_captured_hours())
            for name in _TABLES
        ],
        check_specs=[check_spec("keys_unique", key) for key in keys.values()],
        pool="baskets_of_a_day",  # an hour's episodes go into its day's partition: one writer at a time
    )
    def evaluate_baskets(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        from arb_pipeline.pipeline import evaluate_baskets as run
        from arb_pipeline.storage.lake import Partition

        start = hour_start(context.partition_key)
        found = run(pipeline.settings, pipeline.lake, start)
        for name, key in keys.items():
            rows = getattr(found, name)
            uri = table_uri(pipeline.lake, name, Partition.of(name, None, start))
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={**table_metadata(rows, uri, partitioned=True), **_figures(found)},
                check_results=[keys_unique(key, rows, name)],
                tags=exchange_tags(pipeline.settings.exchange_name),
            )

    return evaluate_baskets


def _figures(found: "EvaluatedBaskets") -> Metadata:
    from arb_pipeline.reports import markdown_preview

    episodes = found.basket_opportunities
    accepted = episodes.filter(episodes["accepted"])
    return {
        "episodes": dg.MetadataValue.int(episodes.num_rows),
        "accepted": dg.MetadataValue.int(accepted.num_rows),
        "accepted_net_usd": dg.MetadataValue.float(float(sum(accepted["net"].to_pylist()))),
        "best": _best(accepted),
        "funnel": dg.MetadataValue.md(markdown_preview(found.funnel, found.funnel.num_rows)),
        "outcome_sets": dg.MetadataValue.int(found.sets),
        "exclusive": dg.MetadataValue.int(found.exclusive),
        "exhaustive": dg.MetadataValue.int(found.exhaustive),
        "baskets": dg.MetadataValue.int(found.baskets),
        "baskets_with_a_gap": dg.MetadataValue.int(found.gapped),
        **{f"{venue}_crossed_tops": dg.MetadataValue.int(count) for venue, count in found.crossed.items()},
    }


def _best(accepted: pa.Table) -> dg.MarkdownMetadataValue:
    return preview(accepted.sort_by([("net", "descending")]).select(_SHOWN))
