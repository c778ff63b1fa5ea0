"""Candles of a UTC day: made from what was captured, and the venue's own where it has them."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from arb_pipeline.defs.checks import check_spec, keys_unique
from arb_pipeline.defs.describe import (
    Metadata,
    asset_key,
    exchange_tags,
    partition_metadata,
    table_spec,
)
from arb_pipeline.defs.partitions import DAILY, day_start
from arb_pipeline.defs.progress import log_progress
from arb_pipeline.defs.resources import Pipeline

__all__ = ["DAY", "GROUP", "RETRY", "candle_asset"]

GROUP = "market_data"
DAY = timedelta(days=1)
RETRY = dg.RetryPolicy(max_retries=2, delay=15, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
_INPUTS = ("quotes", "book_events", "trades", "book_gaps", "capture_sessions", "markets")
_KEY = ["venue", "market_id", "interval_s", "begin_at", "source"]


def candle_asset(venue: str, tags: dict[str, str]) -> dg.AssetsDefinition:
    """The candles of one venue by day. Materialising a day again changes nothing that is the same."""
    key = asset_key("candles", venue)

    @dg.multi_asset(
        name=f"{venue}_candles",
        description=f"Candles of {venue} of one day: minutes, hours and the day. Launch a range of days as a backfill.",
        partitions_def=DAILY,
        specs=[
            table_spec(
                "candles", venue=venue, group=GROUP, deps=[asset_key(name, venue) for name in _INPUTS], tags=tags
            )
        ],
        check_specs=[check_spec("keys_unique", key)],
        retry_policy=RETRY,
        # However many days are asked for, one at a time asks the venue.
        pool=f"{venue}_api",
    )
    def candles(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        from arb_pipeline.backfill import backfill_candles
        from arb_pipeline.storage.lake import Partition

        lake = pipeline.lake
        start = day_start(context.partition_key)
        done = asyncio.run(
            backfill_candles(venue, pipeline.settings, lake, start, start + DAY, progress=log_progress(context.log))
        )
        metadata: Metadata = {
            **partition_metadata(lake, "candles", Partition(venue, start.date())),
            "captured": dg.MetadataValue.int(done.captured),
            "fetched": dg.MetadataValue.int(done.fetched),
            "markets": dg.MetadataValue.int(done.markets),
            "requests": dg.MetadataValue.int(done.requests),
            "anomalies": dg.MetadataValue.json(dict(done.anomalies)),
            "anomaly_examples": dg.MetadataValue.json(done.examples),
        }
        keys = lake.read("candles", start, start + DAY, venue, columns=_KEY)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata=metadata,
            check_results=[keys_unique(key, keys, "candles")],
            tags=exchange_tags(pipeline.settings.exchange_name),
        )

    return candles
