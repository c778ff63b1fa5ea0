"""The tables that a capture fills, hour by hour: one run per hour and shard fills them all."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from arb_pipeline.defs.capture.lifecycle import LIVE, Lease, StopSwitch
from arb_pipeline.defs.capture.supervision import (
    BEAT_S,
    CAPTURE_JOB,
    ENDED_TAG,
    PARTITION_TAG,
)
from arb_pipeline.defs.checks import check_spec, gap_share, in_order, keys_unique, not_crossed
from arb_pipeline.defs.describe import (
    Metadata,
    asset_key,
    exchange_tags,
    partition_metadata,
    table_metadata,
    table_spec,
    table_uri,
)
from arb_pipeline.defs.discovery.assets import VENUES
from arb_pipeline.defs.partitions import HOUR, HOURLY, hour_start
from arb_pipeline.defs.resources import Pipeline

if TYPE_CHECKING:
    from arb_pipeline.capture.summary import CaptureStatus, CaptureSummary, VenueSummary
    from arb_pipeline.storage.lake import Lake

__all__ = ["CAPTURED", "CaptureConfig", "capture_assets"]

CAPTURED = {
    "raw_frames": "capture",
    "capture_sessions": "capture",
    "book_gaps": "capture",
    "book_events": "market_data",
    "quotes": "market_data",
    "trades": "market_data",
    "tickers": "market_data",
}
"""Table to the group that it is shown in."""

_LATE = timedelta(hours=3)
_OBSERVE_EVERY_S = 300.0
_CHECKS = {
    "quotes": ("keys_unique", "in_order", "not_crossed"),
    "trades": ("keys_unique", "in_order"),
    "book_gaps": ("gap_share",),
}


class CaptureConfig(dg.Config):
    """What a capture run is told beside its hour."""

    shard: int = Field(0, ge=0, description="which part of the markets this run captures, 0 first")
    shards: int = Field(1, ge=1, description="number of parts")
    max_seconds: float | None = Field(None, gt=0, description="end after so many seconds; unset: with the hour")


def capture_assets(tags: dict[str, str]) -> dg.AssetsDefinition:
    """Every table of every venue that a capture run fills."""
    keys = {(venue, name): asset_key(name, venue) for venue in VENUES for name in CAPTURED}

    @dg.multi_asset(
        name="capture",
        description="Captures one hour of live order books, trades and tickers, with every gap accounted for.",
        partitions_def=HOURLY,
        can_subset=True,  # a venue that is not captured reports nothing
        specs=[
            table_spec(
                name,
                venue=venue,
                group=group,
                deps=[asset_key("markets", venue)],
                tags=tags,
                fresh_within=_LATE if name == "quotes" else None,
                skippable=True,
            )
            for venue in VENUES
            for name, group in CAPTURED.items()
        ],
        check_specs=[
            check_spec(check, keys[venue, name])
            for venue in VENUES
            for name, checks in _CHECKS.items()
            for check in checks
        ],
    )
    def capture(
        context: dg.AssetExecutionContext, config: CaptureConfig, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        window = _window(context.partition_key, pipeline.settings.clock.now())
        lease = Lease(context.instance, context.run.run_id)
        summary = asyncio.run(_record(context, config, pipeline, window, lease))
        cancelled = lease.cancelled()
        if not cancelled and not lease.held():
            raise dg.Failure("the run was given up while it captured; another run has its place", allow_retries=False)
        if _last_shard(context, config):
            for result in _results(context, pipeline, window, summary):
                if cancelled:
                    # An interrupted step reports no results of its own; what was captured is in the lake all the same.
                    assert result.asset_key is not None
                    context.log_event(
                        dg.AssetMaterialization(
                            result.asset_key, metadata=result.metadata, partition=context.partition_key
                        )
                    )
                else:
                    yield result
        if cancelled:
            raise dg.DagsterExecutionInterruptedError

    return capture


def _window(key: str, now: datetime) -> tuple[datetime, datetime]:
    """Start and end of the hour to capture.

    Raises:
        dagster.Failure: if the hour is over.
    """
    start = hour_start(key)
    end = start + HOUR
    if now >= end:
        raise dg.Failure(
            f"hour {key} is over (it is {now:%Y-%m-%d %H:%M:%S} UTC): live order books cannot be captured afterwards; "
            "launch the current hour, or switch on the sensor keep_capture_alive, which does",
            allow_retries=False,
        )
    return start, end


async def _record(
    context: dg.AssetExecutionContext,
    config: CaptureConfig,
    pipeline: Pipeline,
    window: tuple[datetime, datetime],
    lease: Lease,
) -> "CaptureSummary":
    """Capture until the window ends, somebody asks for the end, or the run is given up.

    Whatever waits for a disk or for Dagster's storage runs in a thread: the loop belongs to the sockets.
    """
    from arb_pipeline.capture.recorder import Recorder
    from arb_pipeline.pipeline import universe

    settings = pipeline.settings
    if config.max_seconds is not None:
        settings = settings.model_copy(update={"max_seconds": config.max_seconds})
    with StopSwitch(asyncio.get_running_loop()) as stop:
        beating = asyncio.create_task(_beat(stop, lease, context.log))
        try:
            markets = await asyncio.to_thread(universe, settings, pipeline.lake)
            for venue, chosen in markets.items():
                context.log.info("%s: %d markets to capture", venue, len(chosen))
            recorder = Recorder(
                settings,
                pipeline.lake,
                settings.clock,
                context.run.run_id,
                markets,
                window=window,
                shard=(config.shard, config.shards),
            )
            return await recorder.run(
                stop.event, _Observer(context).observe, lambda: asyncio.to_thread(_still_mine, lease, context.log)
            )
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating


async def _beat(stop: StopSwitch, lease: Lease, log: dg.DagsterLogManager) -> None:
    """Show, until cancelled, that the loop turns: to the watchdog in this process and to the sensor outside."""
    while True:
        stop.beat()
        try:
            await asyncio.to_thread(lease.renew)
        except Exception as error:
            # A capture outlives an outage of Dagster's storage.
            log.warning("heartbeat not written: %s", error)
        await asyncio.sleep(BEAT_S)


def _still_mine(lease: Lease, log: dg.DagsterLogManager) -> bool:
    try:
        return lease.held()
    except Exception as error:
        # While nobody can say otherwise, the run goes on.
        log.warning("lease not readable: %s", error)
        return True


class _Observer:
    """Progress as asset observations: the first after the first flush, then one every few minutes."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context = context
        self._next = 0.0

    async def observe(self, status: "CaptureStatus") -> None:
        """Log where the capture stands, if it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _OBSERVE_EVERY_S
        for venue, figures in status.venues.items():
            observation = dg.AssetObservation(
                asset_key("raw_frames", venue),
                partition=self._context.partition_key,
                metadata={"elapsed_s": status.elapsed_s, **_figures(figures)},
            )
            await asyncio.to_thread(self._context.log_event, observation)


def _last_shard(context: dg.AssetExecutionContext, config: CaptureConfig) -> bool:
    """Whether every other shard of the hour has written its last row, so that the hour is complete.

    Each run first says that it ended and then looks, so that of two that end together at least one sees both.
    """
    if config.shards == 1:
        return True
    instance, own = context.instance, context.run.run_id
    instance.add_run_tags(own, {ENDED_TAG: "true"})
    same_hour = dg.RunsFilter(job_name=CAPTURE_JOB, statuses=list(LIVE), tags={PARTITION_TAG: context.partition_key})
    return all(run.run_id == own or run.tags.get(ENDED_TAG) == "true" for run in instance.get_runs(same_hour))


def _results(
    context: dg.AssetExecutionContext,
    pipeline: Pipeline,
    window: tuple[datetime, datetime],
    summary: "CaptureSummary",
) -> Iterator[dg.MaterializeResult[None]]:
    """What the hour holds now, by table, whoever wrote it; and what this run has to say of itself."""
    from arb_pipeline.storage.lake import Partition

    lake = pipeline.lake
    if summary.stop_reason != "stopped":
        for leftover in summary.uncompacted:
            name, _, path = leftover.partition("/")
            lake.compact(name, Partition.parse(path))
    for venue, figures in summary.venues.items():
        if figures.message:
            context.log.warning("%s: %s", venue, figures.message)
        for kind, count in figures.anomalies.items():
            context.log.warning("%s: %s x %d, for example %s", venue, kind, count, figures.examples.get(kind))
        for name in CAPTURED:
            key = asset_key(name, venue)
            if key not in context.selected_asset_keys:
                continue
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={
                    **_table_figures(lake, name, venue, window),
                    **_figures(figures),
                    "stop_reason": summary.stop_reason,
                },
                check_results=_check(lake, name, venue, window, summary),
                tags=exchange_tags(pipeline.settings.exchange_name),
            )


def _table_figures(lake: "Lake", name: str, venue: str, window: tuple[datetime, datetime]) -> Metadata:
    from arb_pipeline.storage.lake import Partition

    partition = Partition.of(name, venue, window[0])
    if partition.hour is not None:
        return partition_metadata(lake, name, partition)
    rows = lake.read(name, *window, venue)  # one of many hours in a day's partition
    return table_metadata(rows, table_uri(lake, name, partition), partitioned=True)


def _figures(venue: "VenueSummary") -> Metadata:
    """One venue's part of a capture, as far as it is worth a plot or a look."""
    figures: Metadata = {
        "markets": dg.MetadataValue.int(venue.markets),
        "frames": dg.MetadataValue.int(venue.frames),
        "connections": dg.MetadataValue.int(venue.connections),
        "reconnects": dg.MetadataValue.int(venue.reconnects),
        "coverage": dg.MetadataValue.float(venue.coverage),
        "gaps": dg.MetadataValue.int(venue.gaps),
        "gap_seconds": dg.MetadataValue.float(venue.gap_seconds),
        "anomalies": dg.MetadataValue.json(dict(venue.anomalies)),
        "anomaly_examples": dg.MetadataValue.json({kind: dict(example) for kind, example in venue.examples.items()}),
    }
    if venue.lag_p99_ms is not None:
        figures["lag_p99_ms"] = dg.MetadataValue.float(venue.lag_p99_ms)
    if venue.message:
        figures["message"] = dg.MetadataValue.text(venue.message)
    return figures


def _check(
    lake: "Lake", name: str, venue: str, window: tuple[datetime, datetime], summary: "CaptureSummary"
) -> list[dg.AssetCheckResult]:
    key = asset_key(name, venue)
    if name == "quotes":
        columns = ["connection_id", "ordinal", "recv_ns", "bid", "ask", "in_sync"]
        rows = lake.read(name, *window, venue, columns=columns)
        return [keys_unique(key, rows, name), in_order(key, rows), not_crossed(key, rows)]
    if name == "trades":
        rows = lake.read(name, *window, venue, columns=["market_id", "trade_id", "connection_id", "ordinal", "recv_ns"])
        return [keys_unique(key, rows, name), in_order(key, rows)]
    if name == "book_gaps":
        start, end = max(window[0], summary.started_at), min(window[1], summary.ended_at)
        return [gap_share(key, lake.read(name, start, end, venue), summary.venues[venue].markets, start, end)]
    return []
