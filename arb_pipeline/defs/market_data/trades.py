"""A job that adds the trades of a day that nobody captured, to be launched as a backfill over days."""

import asyncio

import dagster as dg
from pydantic import Field

from arb_pipeline.defs.describe import asset_key, exchange_tags, partition_metadata
from arb_pipeline.defs.market_data.assets import DAY, RETRY
from arb_pipeline.defs.partitions import DAILY, day_start, partition_key
from arb_pipeline.defs.progress import log_progress
from arb_pipeline.defs.resources import Pipeline

__all__ = ["BACKFILL_TRADES_JOB", "TradesConfig", "backfill_trades_job"]

BACKFILL_TRADES_JOB = "backfill_trades_job"
_VENUE = "kalshi"
"""The venue that tells past trades by the ids that captured ones have."""


class TradesConfig(dg.Config):
    """Which trades."""

    markets: list[str] = Field([], description="only these tickers; empty: what was captured or is listened to")


@dg.op(
    name="backfill_trades",
    description="Adds the day's trades that are in no hour yet, marked source=rest; captured rows stay as they are.",
    retry_policy=RETRY,
    pool=f"{_VENUE}_api",
)
def _backfill_trades(
    context: dg.OpExecutionContext, config: TradesConfig, pipeline: dg.ResourceParam[Pipeline]
) -> None:
    from arb_pipeline.backfill import backfill_trades
    from arb_pipeline.storage.lake import Partition

    start = day_start(context.partition_key)
    progress = log_progress(context.log)
    done = asyncio.run(
        backfill_trades(
            _VENUE, pipeline.settings, pipeline.lake, start, start + DAY, markets=config.markets, progress=progress
        )
    )
    for kind, count in done.anomalies.items():
        context.log.warning("%s: %s x %d, for example %s", _VENUE, kind, count, done.examples[kind])
    for path, added in done.added.items():
        hour = Partition.parse(path)
        if added and hour.hour is not None:
            context.log_event(
                dg.AssetMaterialization(
                    asset_key("trades", _VENUE),
                    partition=partition_key(start.replace(hour=hour.hour)),
                    metadata={
                        **partition_metadata(pipeline.lake, "trades", hour),
                        "backfilled": dg.MetadataValue.int(added),
                    },
                    tags=exchange_tags(pipeline.settings.exchange_name),
                )
            )
    context.log.info("%d trades told of %d markets, %d added", done.fetched, done.markets, sum(done.added.values()))


def backfill_trades_job(tags: dict[str, str]) -> dg.JobDefinition:
    """The job. ``tags`` go on every run."""

    @dg.job(
        name=BACKFILL_TRADES_JOB,
        description="Adds past trades of Kalshi, a UTC day a run. Launch a range of days as a backfill.",
        partitions_def=DAILY,
        tags=tags,
        executor_def=dg.in_process_executor,
    )
    def job() -> None:
        _backfill_trades()

    return job
