"""The tables that a capture fills, hour by hour: one run per hour and shard fills them all."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from arb_pipeline.defs.capture.lifecycle import LIVE, Heartbeat, Lease, StopSwitch
from arb_pipeline.defs.capture.supervision import (
    CAPTURE_JOB,
    ENDED_TAG,
    PARTITION_TAG,
    PROGRESS_TAG,
    SHARD_TAG,
    rival,
    shard_label,
)
from arb_pipeline.defs.checks import (
    check_spec,
    connected_share_of,
    gap_share,
    gap_share_of,
    in_order,
    keys_unique,
    not_crossed,
)
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
from arb_pipeline.settings import Settings

if TYPE_CHECKING:
    from arb_pipeline.capture.summary import CaptureStatus, CaptureSummary, VenueSummary
    from arb_pipeline.storage.lake import Lake

__all__ = ["CAPTURED", "CaptureConfig", "capture_assets"]

_ACCOUNT = "account_events"

CAPTURED = {
    "raw_frames": "capture",
    "capture_sessions": "capture",
    "book_gaps": "capture",
    "book_events": "market_data",
    "quotes": "market_data",
    "trades": "market_data",
    "tickers": "market_data",
    _ACCOUNT: "capture",
}
"""Table to the group that it is shown in."""

_LATE = timedelta(hours=3)
_OBSERVE_EVERY_S = 300.0
_TURN_S = 1.0
_BEATS_PER_LEASE = 6
_HANG_SHARE = 0.8
"""Share of the lease after which a capture whose loop hangs ends itself: before another one has its place."""
_NOTE_LENGTH = 200
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
        settings = pipeline.settings
        window = _window(context.partition_key, settings.clock.now())
        lease = Lease(context.instance, context.run.run_id)
        with Heartbeat(lease, settings.capture_lease_s / _BEATS_PER_LEASE, context.log.warning) as heartbeat:
            _claim(context, config, settings, lease)
            summary, known = asyncio.run(_record(context, config, pipeline, window, lease=lease, heartbeat=heartbeat))
            cancelled = lease.cancelled()
            if not cancelled and not lease.held():
                raise dg.Failure(
                    "the run was given up while it captured; another run has its place", allow_retries=False
                )
            heartbeat.notes = _notes(summary.venues)
            begun = summary.ended_at > window[0]  # else it was stopped while it warmed up
            if begun and _last_shard(context, config, lease):
                hour = _Hour(pipeline, window, known, (summary.started_at, summary.ended_at))
                if cancelled:
                    # An interrupted step reports no results of its own; what was captured is in the lake all the same.
                    for key, metadata in hour.figures(summary.venues, context.selected_asset_keys, summary.stop_reason):
                        context.log_event(
                            dg.AssetMaterialization(key, metadata=metadata, partition=context.partition_key)
                        )
                else:
                    yield from _results(context, hour, summary)
            if cancelled:
                raise dg.DagsterExecutionInterruptedError

    return capture


def _claim(context: dg.AssetExecutionContext, config: CaptureConfig, settings: Settings, lease: Lease) -> None:
    """Say which shard the run captures, and leave it to the run that captures it already, if there is one.

    Raises:
        dagster.Failure: if there is one.
    """
    lease.tag({SHARD_TAG: shard_label(config.shard, config.shards)})
    if (other := rival(context.instance, context.run.run_id, settings)) is not None:
        raise dg.Failure(
            f"run {other} captures these markets of hour {context.partition_key} already: terminate it first, or give "
            "the runs different shards of the same number of shards",
            allow_retries=False,
        )


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
    *,
    lease: Lease,
    heartbeat: Heartbeat,
) -> "tuple[CaptureSummary, dict[str, int]]":
    """Capture until the window ends, somebody asks for the end, or the run is given up.

    Whatever waits for a disk or for Dagster's storage runs in a thread: the loop belongs to the sockets. Beside the
    summary it returns how many markets all shards together capture, by venue.
    """
    from arb_pipeline.capture.monitor import CaptureMonitor
    from arb_pipeline.capture.recorder import Recorder
    from arb_pipeline.live_rules import live_handlers
    from arb_pipeline.logs import configure_logging
    from arb_pipeline.universe import Following, universe

    settings = pipeline.settings
    configure_logging(settings, package_only=True)
    if config.max_seconds is not None:
        settings = settings.model_copy(update={"max_seconds": config.max_seconds})
    with StopSwitch(asyncio.get_running_loop(), hang_s=_HANG_SHARE * settings.capture_lease_s) as stop:
        turning = asyncio.create_task(_turn(stop))
        try:
            markets = await asyncio.to_thread(universe, settings, pipeline.lake)
            known = {venue: len(chosen) for venue, chosen in markets.items()}
            for venue, number in known.items():
                context.log.info("%s: %d markets to capture", venue, number)
            recorder = Recorder(
                settings,
                pipeline.lake,
                settings.clock,
                context.run.run_id,
                markets,
                window=window,
                shard=(config.shard, config.shards),
                universe=Following(settings, pipeline.lake, markets),
                handlers=live_handlers(settings, pipeline.lake, (config.shard, config.shards), markets),
            )
            progress = _Progress(context, pipeline, window, known, heartbeat, reports=config.shard == 0)
            shard = (config.shard, config.shards)
            with CaptureMonitor(settings, pipeline.lake, context.run.run_id, markets, shard=shard) as monitor:

                async def show(status: "CaptureStatus") -> None:
                    await monitor.observe(status)
                    await progress.show(status)

                summary = await recorder.run(
                    stop.event, show, lambda: asyncio.to_thread(_still_mine, lease, context.log)
                )
                monitor.finished(summary)
            return summary, known
        finally:
            turning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await turning


async def _turn(stop: StopSwitch) -> None:
    """Show the watchdog, until cancelled, that the loop turns."""
    while True:
        stop.beat()
        await asyncio.sleep(_TURN_S)


def _still_mine(lease: Lease, log: dg.DagsterLogManager) -> bool:
    try:
        return lease.held()
    except Exception as error:
        # While nobody can say otherwise, the run goes on.
        log.warning("lease not readable: %s", error)
        return True


class _Progress:
    """What a running capture shows: its newest figures as run tags, and now and then events of its assets.

    Tags are overwritten. Events stay for ever, so there are few: an observation of each venue after the first flush
    and every few minutes, and at each checkpoint a materialisation of each table, which starts what depends on it.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        pipeline: Pipeline,
        window: tuple[datetime, datetime],
        known: Mapping[str, int],
        heartbeat: Heartbeat,
        *,
        reports: bool,
    ) -> None:
        self._context = context
        self._pipeline = pipeline
        self._window = window
        self._known = known
        self._heartbeat = heartbeat
        self._reports = reports
        self._started_at = pipeline.settings.clock.now()
        self._next_observation = 0.0
        self._next_checkpoint = time.monotonic() + pipeline.settings.capture_checkpoint_s

    async def show(self, status: "CaptureStatus") -> None:
        """Show where the capture stands."""
        self._heartbeat.notes = _notes(status.venues)
        now = time.monotonic()
        if now >= self._next_observation:
            self._next_observation = now + _OBSERVE_EVERY_S
            await asyncio.to_thread(self._observe, status)
        if now >= self._next_checkpoint and self._pipeline.settings.clock.now() >= self._window[0]:
            self._next_checkpoint = now + self._pipeline.settings.capture_checkpoint_s
            if self._reports:
                await asyncio.to_thread(self._checkpoint, status)

    def _observe(self, status: "CaptureStatus") -> None:
        for venue, figures in status.venues.items():
            observation = dg.AssetObservation(
                asset_key("raw_frames", venue),
                partition=self._context.partition_key,
                metadata={"elapsed_s": status.elapsed_s, **_figures(figures)},
            )
            self._context.log_event(observation)

    def _checkpoint(self, status: "CaptureStatus") -> None:
        """Report the hour as far as it has gone, by what all shards have written."""
        now = self._pipeline.settings.clock.now()
        hour = _Hour(self._pipeline, self._window, self._known, (self._started_at, now))
        for key, metadata in hour.figures(status.venues, self._context.selected_asset_keys, "still running"):
            self._context.log_event(
                dg.AssetMaterialization(key, metadata=metadata, partition=self._context.partition_key)
            )


def _notes(venues: "Mapping[str, VenueSummary]") -> dict[str, str]:
    """A run tag for each venue: its part in a line for people."""
    notes = {}
    for name, venue in venues.items():
        lag = "unknown" if venue.lag_p99_ms is None else f"{venue.lag_p99_ms:.0f} ms"
        told = (
            f"{venue.frames} frames, {sum(venue.rows.values())} rows of {venue.markets} markets; lag p99 {lag}; "
            f"{venue.gaps} gaps ({venue.gap_seconds:.1f} s); {venue.reconnects} reconnects"
        )
        notes[f"{PROGRESS_TAG}/{name}"] = (f"{told}; {venue.message}" if venue.message else told)[:_NOTE_LENGTH]
    return notes


def _last_shard(context: dg.AssetExecutionContext, config: CaptureConfig, lease: Lease) -> bool:
    """Whether every other shard of the hour has written its last row, so that the hour is complete.

    Each run first says that it ended and then looks, so that of two that end together at least one sees both.
    """
    if config.shards == 1:
        return True
    instance, own = context.instance, context.run.run_id
    lease.tag({ENDED_TAG: "true"})
    same_hour = dg.RunsFilter(job_name=CAPTURE_JOB, statuses=list(LIVE), tags={PARTITION_TAG: context.partition_key})
    return all(run.run_id == own or run.tags.get(ENDED_TAG) == "true" for run in instance.get_runs(same_hour))


class _Hour:
    """What the lake holds of the hour, whoever wrote it.

    Args:
        known: markets of all shards, by venue.
        interval: when the run captured.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        window: tuple[datetime, datetime],
        known: Mapping[str, int],
        interval: tuple[datetime, datetime],
    ) -> None:
        self.pipeline = pipeline
        self.lake = pipeline.lake
        self.window = window
        self._known = known
        start = max(window[0], interval[0])
        self.captured = start, max(start, min(window[1], interval[1]))

    def figures(
        self, venues: "Mapping[str, VenueSummary]", selected: Collection[dg.AssetKey], stop_reason: str
    ) -> Iterator[tuple[dg.AssetKey, Metadata]]:
        """Row counts of each table, beside the run's figures of its venue."""
        for venue, told in venues.items():
            shares = self._shares(venue, told)
            for name in CAPTURED:
                if name == _ACCOUNT and not self.pipeline.settings.account:
                    continue
                if (key := asset_key(name, venue)) in selected:
                    yield (
                        key,
                        {
                            **_table_figures(self.lake, name, venue, self.window),
                            **_figures(told),
                            **shares,
                            "stop_reason": dg.MetadataValue.text(stop_reason),
                        },
                    )

    def markets(self, venue: "VenueSummary") -> int:
        """Markets that all shards together capture; none where the venue is not captured."""
        return self._known[venue.venue] if venue.markets else 0

    def _shares(self, venue: str, told: "VenueSummary") -> Metadata:
        gaps = self.lake.read("book_gaps", *self.captured, venue)
        sessions = self.lake.read("capture_sessions", *self.window, venue, columns=["started_at", "ended_at"])
        return {
            "gap_share": dg.MetadataValue.float(gap_share_of(gaps, self.markets(told), *self.captured)),
            "hour_connected_share": dg.MetadataValue.float(connected_share_of(sessions, *self.window)),
        }


def _results(
    context: dg.AssetExecutionContext, hour: _Hour, summary: "CaptureSummary"
) -> Iterator[dg.MaterializeResult[None]]:
    """What the hour holds now, by table, with checks; and what this run has to say of itself."""
    from arb_pipeline.storage.lake import Partition

    if summary.stop_reason != "stopped":
        for leftover in summary.uncompacted:
            name, _, path = leftover.partition("/")
            hour.lake.compact(name, Partition.parse(path))
    for venue, figures in summary.venues.items():
        if figures.message:
            context.log.warning("%s: %s", venue, figures.message)
        for kind, count in figures.anomalies.items():
            context.log.warning("%s: %s x %d, for example %s", venue, kind, count, figures.examples.get(kind))
    for key, metadata in hour.figures(summary.venues, context.selected_asset_keys, summary.stop_reason):
        venue, name = key.path
        yield dg.MaterializeResult(
            asset_key=key,
            metadata=metadata,
            check_results=_check(hour, name, summary.venues[venue]),
            tags=exchange_tags(hour.pipeline.settings.exchange_name),
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


def _check(hour: _Hour, name: str, venue: "VenueSummary") -> list[dg.AssetCheckResult]:
    lake, key = hour.lake, asset_key(name, venue.venue)
    if name == "quotes":
        columns = ["connection_id", "ordinal", "recv_ns", "bid", "ask", "in_sync"]
        rows = lake.read(name, *hour.window, venue.venue, columns=columns)
        return [keys_unique(key, rows, name), in_order(key, rows), not_crossed(key, rows)]
    if name == "trades":
        columns = ["market_id", "trade_id", "connection_id", "ordinal", "recv_ns"]
        rows = lake.read(name, *hour.window, venue.venue, columns=columns)
        return [keys_unique(key, rows, name), in_order(key, rows)]
    if name == "book_gaps":
        gaps = lake.read(name, *hour.captured, venue.venue)
        return [gap_share(key, gaps, hour.markets(venue), *hour.captured)]
    return []
