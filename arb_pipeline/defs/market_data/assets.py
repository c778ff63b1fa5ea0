"""Candles and filled-forward books of an hour, made from what was captured, and the candles of a UTC day."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from arb_pipeline.defs.checks import check_spec, coverage_of, keys_unique, ohlc_sane
from arb_pipeline.defs.describe import (
    Metadata,
    asset_key,
    exchange_tags,
    partition_metadata,
    preview,
    table_metadata,
    table_spec,
    table_uri,
)
from arb_pipeline.defs.partitions import DAILY, HOUR, HOURLY, day_start, hour_start
from arb_pipeline.defs.progress import log_progress
from arb_pipeline.defs.resources import Pipeline

if TYPE_CHECKING:
    from arb_pipeline.storage.grid import Written
    from arb_pipeline.storage.lake import Partition

__all__ = ["DAILY_CANDLES", "DAY", "GROUP", "HOURLY_TABLES", "RETRY", "SnapshotConfig", "market_data_assets"]

GROUP = "market_data"
DAY = timedelta(days=1)
DAILY_CANDLES = "daily_candles"
"""The asset of a venue's whole days; its rows stand in the table ``candles``."""
HOURLY_TABLES = ("candles", "orderbook_snapshots")
RETRY = dg.RetryPolicy(max_retries=2, delay=15, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
_INPUTS = ("quotes", "book_events", "trades", "book_gaps", "capture_sessions")
_KEY = ["venue", "market_id", "interval_s", "begin_at", "source"]
_SHOWN_S = 60
"""Shortest candles in a preview."""


def market_data_assets(venue: str, tags: dict[str, str]) -> list[dg.AssetsDefinition]:
    """What is derived from one venue's captured market data."""
    return [_hour_candles(venue, tags), _snapshots(venue, tags), _day_candles(venue, tags)]


def _follow_captured_hours() -> dg.AutomationCondition[dg.AssetKey]:
    """Run for an hour whenever its tables were written; the newest partition is an hour still to come."""
    return dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())


def _hour_candles(venue: str, tags: dict[str, str]) -> dg.AssetsDefinition:
    key = asset_key("candles", venue)

    @dg.multi_asset(
        name=f"{venue}_hour_candles",
        partitions_def=HOURLY,
        specs=[
            table_spec(
                "candles",
                venue=venue,
                group=GROUP,
                deps=[asset_key(name, venue) for name in _INPUTS],
                tags=tags,
                description=(
                    f"Candles of {venue} of one hour, made from what was captured: seconds, minutes and the hour. "
                    "Stamped by their end; quotes count while the book was in sync, trades have prices of their own."
                ),
                automation_condition=_follow_captured_hours(),
            )
        ],
        check_specs=[check_spec(name, key) for name in ("keys_unique", "ohlc_sane", "coverage")],
    )
    def hour_candles(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        from arb_pipeline.storage.candles import write_hour_candles
        from arb_pipeline.storage.lake import Partition
        from arb_pipeline.storage.mirroring import mirror_tables

        lake = pipeline.lake
        start = hour_start(context.partition_key)
        hour = Partition(venue, start.date(), start.hour)
        _, made = write_hour_candles(lake, hour, pipeline.settings.clock.now())
        mirror_tables(pipeline.settings, lake, "candles", day=start.date())
        covered = coverage_of(key, pc.filter(made["coverage"], pc.equal(made["interval_s"], _SHOWN_S)))
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={
                **partition_metadata(lake, "candles", hour),
                **_made(made),
                "coverage": covered.metadata["share"],
                "preview": preview(made.filter(pc.greater_equal(made["interval_s"], _SHOWN_S))),
            },
            check_results=[
                keys_unique(key, lake.read("candles", start, start + HOUR, venue, columns=_KEY), "candles"),
                ohlc_sane(key, made),
                covered,
            ],
            tags=exchange_tags(pipeline.settings.exchange_name),
        )

    return hour_candles


def _made(candles: pa.Table) -> Metadata:
    counts = candles["interval_s"].value_counts().to_pylist()
    return {
        "made": dg.MetadataValue.json({f"{one['values']} s": one["counts"] for one in counts}),
        "markets": dg.MetadataValue.int(len(pc.unique(candles["market_id"]))),
    }


class SnapshotConfig(dg.Config):
    """Which books to fill forward, within the hour of the partition."""

    markets: list[str] = Field([], description="these market ids; empty: those that listeners ask for")
    interval_ms: int = Field(100, ge=1, description="distance of the grid's points, ms; for the markets named here")
    levels: int = Field(5, ge=1, description="most levels per side")
    start: str = Field("", description="from this time on, ISO 8601 with an offset; empty: the hour's start")
    end: str = Field("", description="up to this time; empty: the hour's end")


def _snapshots(venue: str, tags: dict[str, str]) -> dg.AssetsDefinition:
    key = asset_key("orderbook_snapshots", venue)

    @dg.multi_asset(
        name=f"{venue}_orderbook_snapshots",
        partitions_def=HOURLY,
        specs=[
            table_spec(
                "orderbook_snapshots",
                venue=venue,
                group=GROUP,
                deps=[asset_key(name, venue) for name in _INPUTS if name != "trades"],
                tags=tags,
                description=(
                    f"Books of {venue} filled forward on a grid, for the markets of the run's config, or those of the "
                    "active listeners that name a forward_fill_interval_ms. Without either there is nothing to do."
                ),
                automation_condition=_follow_captured_hours(),
                skippable=True,
            )
        ],
        check_specs=[check_spec(name, key) for name in ("keys_unique", "coverage")],
    )
    def orderbook_snapshots(
        context: dg.AssetExecutionContext, config: SnapshotConfig, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        from arb_pipeline.storage.lake import Partition
        from arb_pipeline.storage.mirroring import mirror_tables

        start = hour_start(context.partition_key)
        hour = Partition(venue, start.date(), start.hour)
        written = list(_write_grids(pipeline, hour, config))
        mirror_tables(pipeline.settings, pipeline.lake, "orderbook_snapshots", day=start.date())
        if not written:
            context.log.info("no market is named, and no active listener of %s asks for a grid", venue)
        else:
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={
                    **partition_metadata(pipeline.lake, "orderbook_snapshots", hour),
                    "made": dg.MetadataValue.int(sum(one.rows for _, one in written)),
                    "known": dg.MetadataValue.int(sum(one.known for _, one in written)),
                    "coverage": dg.MetadataValue.json({f"{every} ms": dict(one.coverage) for every, one in written}),
                },
                tags=exchange_tags(pipeline.settings.exchange_name),
            )
        held = pipeline.lake.read(
            "orderbook_snapshots", start, start + HOUR, venue,
            columns=["venue", "market_id", "interval_ms", "recv_ns", "in_sync"],
        )  # fmt: skip
        yield keys_unique(key, held, "orderbook_snapshots")
        yield coverage_of(key, pc.cast(held["in_sync"], pa.float64()))

    return orderbook_snapshots


def _write_grids(pipeline: Pipeline, hour: "Partition", config: SnapshotConfig) -> "Iterator[tuple[int, Written]]":
    """Write what is asked for; gives each grid's distance of points (ms) and what came of it."""
    from arb_pipeline.storage.grid import write_grid
    from arb_pipeline.storage.reader import instant_ns
    from arb_pipeline.storage.tops import row_counts
    from arb_pipeline.universe import forward_fills

    assert hour.venue is not None
    assert hour.bounds is not None
    asked = {config.interval_ms: set(config.markets)}
    if not config.markets:
        # A listener asks for what it selects; an hour may have been captured before that was listed.
        captured = row_counts(pipeline.lake, "book_events", hour.venue, *hour.bounds)
        wanted = forward_fills(pipeline.settings, pipeline.lake, hour.venue)
        asked = {interval_ms: markets & captured.keys() for interval_ms, markets in wanted.items()}
    start, end = instant_ns(config.start or None, "start"), instant_ns(config.end or None, "end")
    for interval_ms, markets in sorted(asked.items()):
        if markets:
            yield (
                interval_ms,
                write_grid(
                    pipeline.lake, hour, markets, start=start, end=end, interval_ms=interval_ms, levels=config.levels
                ),
            )


def _day_candles(venue: str, tags: dict[str, str]) -> dg.AssetsDefinition:
    key = asset_key(DAILY_CANDLES, venue)
    spec = table_spec("candles", venue=venue, group=GROUP, deps=[asset_key("candles", venue)], tags=tags)

    @dg.multi_asset(
        name=f"{venue}_{DAILY_CANDLES}",
        description=(
            f"Candles of {venue} of one UTC day, in the table candles: that of the day itself, what is missing of its "
            "hours, and the venue's own where it has them. Launch a range of days as a backfill."
        ),
        partitions_def=DAILY,
        specs=[spec.replace_attributes(key=key)],
        check_specs=[check_spec("keys_unique", key)],
        retry_policy=RETRY,
        # However many days are asked for, one at a time asks the venue.
        pool=f"{venue}_api",
    )
    def day_candles(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        from arb_pipeline.backfill import backfill_candles
        from arb_pipeline.storage.lake import Partition

        lake = pipeline.lake
        start = day_start(context.partition_key)
        done = asyncio.run(
            backfill_candles(venue, pipeline.settings, lake, start, start + DAY, progress=log_progress(context.log))
        )
        hours = [start + number * HOUR for number in range(24)]
        # Hour by hour: a day of seconds is too much at once, and no two hours share a key.
        checked = [
            keys_unique(key, lake.read("candles", at, at + HOUR, venue, columns=_KEY), "candles") for at in hours
        ]
        longest = pa.concat_tables(_longer_than_minutes(lake.read("candles", at, at + HOUR, venue)) for at in hours)
        rows = sum(lake.manifest("candles", Partition(venue, at.date(), at.hour)).rows for at in hours)
        metadata: Metadata = {
            **table_metadata(longest, table_uri(lake, "candles"), partitioned=True),
            "dagster/partition_row_count": dg.MetadataValue.int(rows),
            "captured": dg.MetadataValue.int(done.captured),
            "fetched": dg.MetadataValue.int(done.fetched),
            "markets": dg.MetadataValue.int(done.markets),
            "requests": dg.MetadataValue.int(done.requests),
            "anomalies": dg.MetadataValue.json(dict(done.anomalies)),
            "anomaly_examples": dg.MetadataValue.json(done.examples),
        }
        yield dg.MaterializeResult(
            asset_key=key,
            metadata=metadata,
            check_results=[next((one for one in checked if not one.passed), checked[0])],
            tags=exchange_tags(pipeline.settings.exchange_name),
        )

    return day_candles


def _longer_than_minutes(candles: pa.Table) -> pa.Table:
    return candles.filter(pc.greater(candles["interval_s"], _SHOWN_S))
