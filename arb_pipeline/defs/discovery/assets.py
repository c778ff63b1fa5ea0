"""Events and markets: per venue over REST, with the history of changes, and combined."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pyarrow as pa

from arb_pipeline.defs.checks import check_spec, keys_unique, not_empty
from arb_pipeline.defs.describe import asset_key, exchange_tags, table_metadata, table_spec, table_uri
from arb_pipeline.defs.progress import log_progress
from arb_pipeline.defs.resources import Pipeline
from arb_pipeline.tables import table

__all__ = ["CATALOGUE", "GROUP", "TABLES", "VENUES", "combined_assets", "venue_catalogue"]

GROUP = "discovery"
CATALOGUE = ("events", "markets")
TABLES = (*CATALOGUE, "market_history", "fee_schedules")
"""What a discovery of a venue writes."""
VENUES = ("kalshi", "polymarket")
"""Venues with assets of their own; a test keeps them in step with the registry, which is too heavy to load here."""

_EVERY = timedelta(hours=26)
"""Discovery runs daily at the least."""
_RETRY = dg.RetryPolicy(max_retries=2, delay=15, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def venue_catalogue(venue: str, tags: dict[str, str]) -> dg.AssetsDefinition:
    """Events and markets of one venue, fetched in one listing, and what changed since the one before."""
    keys = {name: asset_key(name, venue) for name in TABLES}

    @dg.multi_asset(
        name=f"{venue}_catalogue",
        description=f"Lists the open events of {venue} with their markets and writes them to the lake.",
        specs=[
            table_spec(
                name,
                venue=venue,
                group=GROUP,
                description=f"{name.capitalize()} of {venue}: {table(name).doc[0].lower()}{table(name).doc[1:]}",
                kinds=frozenset({"parquet"}),
                tags=tags,
                fresh_within=_EVERY,
            )
            for name in TABLES
        ],
        check_specs=[check_spec(check, key) for key in keys.values() for check in ("not_empty", "keys_unique")],
        retry_policy=_RETRY,
        pool=f"{venue}_api",
    )
    def catalogue(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        from arb_pipeline.pipeline import discover

        settings, lake = pipeline.settings, pipeline.lake
        found = asyncio.run(discover(venue, settings, lake, log_progress(context.log)))
        for name, key in keys.items():
            # Of the history and the fees, the rows that hold now or later; they are of many days.
            rows = lake.current(name, venue) if name in CATALOGUE else lake.read(name, found.fetched_at, None, venue)
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={
                    **table_metadata(_without_raw(rows), table_uri(lake, name)),
                    "written": dg.MetadataValue.int(found.rows[name]),
                    "fetched_at": dg.MetadataValue.timestamp(found.fetched_at),
                    "requests": dg.MetadataValue.int(found.requests),
                    "retries": dg.MetadataValue.int(found.retries),
                },
                check_results=[not_empty(key, rows), keys_unique(key, rows, name)],
                tags=exchange_tags(settings.exchange_name),
            )

    return catalogue


def combined_assets(tags: dict[str, str]) -> list[dg.AssetsDefinition]:
    """``events`` and ``markets`` across venues: what matching reads."""
    return [_combined(name, tags) for name in CATALOGUE]


def _without_raw(rows: pa.Table) -> pa.Table:
    return rows.drop_columns([name for name in ("raw",) if name in rows.column_names])


def _combined(name: str, tags: dict[str, str]) -> dg.AssetsDefinition:
    # One venue may never have answered, or have failed today: the other one's rows are still worth a view. So the
    # view is not part of the discovery run, where a failed venue would skip it, but follows by itself.
    follow = dg.AutomationCondition.eager().without(~dg.AutomationCondition.any_deps_missing())
    spec = table_spec(
        name,
        group=GROUP,
        deps=[asset_key(name, venue) for venue in VENUES],
        description=f"{table(name).doc} The current rows of every venue that has answered so far.",
        tags=tags,
        automation_condition=follow,
    )

    @dg.multi_asset(name=f"{name}_view", specs=[spec], check_specs=[check_spec("keys_unique", spec.key)])
    def view(pipeline: dg.ResourceParam[Pipeline]) -> Iterator[dg.MaterializeResult[None]]:
        rows = pipeline.lake.current(name)
        of_venue = Counter(rows["venue"].to_pylist())
        counts = {f"{venue}_rows": dg.MetadataValue.int(of_venue[venue]) for venue in VENUES}
        yield dg.MaterializeResult(
            asset_key=spec.key,
            metadata={**table_metadata(_without_raw(rows), table_uri(pipeline.lake, name)), **counts},
            check_results=[keys_unique(spec.key, rows, name)],
            tags=exchange_tags(pipeline.settings.exchange_name),
        )

    return view
