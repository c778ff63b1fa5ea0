"""Basis of one captured hour: how far apart the books of each pair were, and which of them moved first."""

from collections.abc import Iterator

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

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

__all__ = ["basis_asset"]

_TABLE = "basis"
_SHOWN = ["kalshi_market_id", "polymarket_market_id", "basis_mean", "gap_max", "break_even_mean", "lead_ms"]


def basis_asset(tags: dict[str, str]) -> dg.AssetsDefinition:
    """The table ``basis``, hour by hour."""
    key = asset_key(_TABLE)
    deps = [asset_key("market_matches"), *(asset_key(name, venue) for venue in VENUES for name in INPUTS)]

    @dg.multi_asset(
        name="evaluate_basis",
        description="Compares the books of every pair over one hour, on trusted books only.",
        partitions_def=HOURLY,
        specs=[
            table_spec(_TABLE, group=GROUP, deps=deps, tags=tags, automation_condition=follow_captured_hours()),
        ],
        check_specs=[check_spec("keys_unique", key)],
    )
    def evaluate_basis(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        from arb_pipeline.pipeline import evaluate_basis as run
        from arb_pipeline.storage.lake import Partition

        start = hour_start(context.partition_key)
        rows = run(pipeline.settings, pipeline.lake, start)
        uri = table_uri(pipeline.lake, _TABLE, Partition.of(_TABLE, None, start))
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={**table_metadata(rows, uri, partitioned=True), "preview": _widest(rows), **_figures(rows)},
            check_results=[keys_unique(key, rows, _TABLE)],
            tags=exchange_tags(pipeline.settings.exchange_name),
        )

    return evaluate_basis


def _widest(rows: pa.Table) -> dg.MarkdownMetadataValue:
    """Pairs whose books lie furthest apart are the ones to look at: persistently so, they may not be one question."""
    order = pc.array_sort_indices(pc.abs(rows["basis_mean"]), order="descending")
    return preview(rows.select(_SHOWN).take(order))


def _figures(rows: pa.Table) -> Metadata:
    crossed = pc.sum(pc.greater(rows["crossed_share"], 0)).as_py() or 0
    return {
        "pairs_known": dg.MetadataValue.int(rows.num_rows - rows["basis_mean"].null_count),
        "pairs_crossed": dg.MetadataValue.int(crossed),
        "leads_told": dg.MetadataValue.int(rows.num_rows - rows["lead_ms"].null_count),
    }
