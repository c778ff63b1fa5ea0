"""What a running capture shows to those who watch it: metrics, a heartbeat for ``arb status``, and log lines.

None of it can end a capture: what cannot be written or listened on is logged and tried again with the next flush.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Final, Self

import structlog

from arb_pipeline.capture.heartbeat import HeartbeatFile
from arb_pipeline.capture.metrics import CaptureMetrics
from arb_pipeline.capture.summary import CaptureStatus, CaptureSummary, LoadSummary, VenueSummary
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake, LakeError, Partition

__all__ = ["CaptureMonitor"]

_log = logging.getLogger(__name__)

_EVERY_S: Final = 60.0
"""Seconds between two log lines with a venue's figures."""


class CaptureMonitor:
    """Watches one capture run; a context manager around ``Recorder.run``, which gets :meth:`observe`.

    Args:
        settings: where metrics are shown, and the pipeline's clock.
        lake: where the rows go.
        venues: the venues that are to be captured.
        shard: (k, n).
        announce: whether ``arb status`` of the lake is to know of the run.
    """

    def __init__(
        self,
        settings: Settings,
        lake: Lake,
        run_id: str,
        venues: Iterable[str],
        *,
        shard: tuple[int, int] = (0, 1),
        announce: bool = True,
    ) -> None:
        self._settings = settings
        self._lake = lake
        self._fields = {"run_id": run_id, "shard": "{}/{}".format(*shard)}
        self._heartbeat = HeartbeatFile(settings, lake, run_id, shard=shard, venues=venues) if announce else None
        self._heartbeat_error: int | None = None
        self._metrics = (
            CaptureMetrics(
                settings.metrics_host, settings.metrics_port, run_id=run_id, exchange=lake.exchange_name, shard=shard
            )
            if settings.metrics_port is not None
            else None
        )
        self._committed_ns: dict[str, int] = {}
        self._venues: Mapping[str, VenueSummary] = {}
        self._logged: dict[str, tuple[float, VenueSummary]] = {}
        self._postgres_message = ""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(structlog.contextvars.bound_contextvars(**self._fields))
            if self._metrics is not None:
                self._metrics.open()
                stack.callback(self._metrics.close)
            if self._heartbeat is not None:
                with self._tolerant():
                    self._heartbeat.begin()
                stack.callback(self._forget)
            self._stack = stack.pop_all()
        _log.info("capture starts", extra={"lake": self._lake.root, "exchange": self._lake.exchange_name})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            _log.error("capture ends by an error: %s", kind.__name__)
        self._stack.close()

    @property
    def metrics_port(self) -> int | None:
        """The port on which metrics are shown, None if there is none."""
        return None if self._metrics is None else self._metrics.port

    async def observe(self, status: CaptureStatus) -> None:
        """Show how far the capture has come; what waits for a disk does so in a thread."""
        await asyncio.to_thread(self._observe, status)

    def finished(self, summary: CaptureSummary) -> None:
        """Log what the capture came to."""
        for venue, figures in summary.venues.items():
            _log.info("%s: captured", venue, extra=_figures(figures))
        _log.info("capture ended: %s", summary.stop_reason, extra={"key_conflicts": summary.key_conflicts})

    def _observe(self, status: CaptureStatus) -> None:
        for venue, figures in status.venues.items():
            with structlog.contextvars.bound_contextvars(venue=venue):
                self._tell_changes(self._venues.get(venue), figures)
                self._tell_figures(figures)
        self._venues = status.venues
        self._tell_postgres(status.postgres)
        if self._heartbeat is not None:
            with self._tolerant():
                self._heartbeat.beat(status)
        if self._metrics is not None:
            self._metrics.open()
            self._metrics.update(status, self._committed(status.venues))

    def _tell_changes(self, before: VenueSummary | None, now: VenueSummary) -> None:
        """Log at once what changes the capture's state: connections, messages, the first trouble of a kind."""
        known = before or VenueSummary(venue=now.venue)
        if now.connected is not None and now.connected != known.connected:
            level = logging.INFO if now.connected >= (known.connected or 0) else logging.WARNING
            _log.log(level, "%s: %d of %d connections are up", now.venue, now.connected, now.connections)
        if now.reconnects > known.reconnects:
            lost = now.reconnects - known.reconnects
            _log.warning("%s: dialled again %d times", now.venue, lost, extra={"newest_error": now.message})
        if now.message != known.message:
            _log.warning("%s: %s", now.venue, now.message or "no trouble any more")
        for cause in now.gap_causes.keys() - known.gap_causes.keys():
            _log.warning("%s: first gap by %s", now.venue, cause)
        for kind in now.anomalies.keys() - known.anomalies.keys():
            example = now.examples.get(kind, {})
            detail = {"detail": example.get("detail", ""), "market_id": example.get("market_id", "")}
            _log.warning("%s: first anomaly %s", now.venue, kind, extra=detail)

    def _tell_postgres(self, now: LoadSummary | None) -> None:
        """Log at once whether Postgres takes rows."""
        message = "" if now is None else now.message
        if message != self._postgres_message:
            self._postgres_message = message
            _log.warning("Postgres: %s", message or "no trouble any more")

    def _tell_figures(self, now: VenueSummary) -> None:
        """Log the venue's figures, and what is new in them, once a minute."""
        at = time.monotonic()
        since, before = self._logged.get(now.venue, (0.0, None))
        if before is not None and at - since < _EVERY_S:
            return
        self._logged[now.venue] = at, now
        if before is None:
            return
        told = {
            **_figures(now),
            "frames_per_s": round((now.frames - before.frames) / (at - since), 1),
            "new_gaps": _more(before.gap_causes, now.gap_causes),
            "new_anomalies": _more(before.anomalies, now.anomalies),
        }
        _log.info("%s: capturing", now.venue, extra=told)

    def _committed(self, venues: Iterable[str]) -> dict[str, int]:
        """Receive time of the newest frame in the lake by venue, whichever shard wrote it."""
        now = self._settings.clock.now()
        for venue in venues:
            try:
                manifest = self._lake.manifest("raw_frames", Partition.of("raw_frames", venue, now))
            except (LakeError, OSError) as error:
                _log.warning("%s: the newest commit is not known: %s", venue, error)
                continue
            newest = max((entry.max_ns or 0 for entry in manifest.files), default=0)
            if newest:
                self._committed_ns[venue] = max(newest, self._committed_ns.get(venue, 0))
        return self._committed_ns

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        """A heartbeat that cannot be written is logged, once for each reason."""
        try:
            yield
        except OSError as error:
            if error.errno != self._heartbeat_error:
                self._heartbeat_error = error.errno
                _log.warning("no heartbeat, arb status will not see this capture: %s", error)

    def _forget(self) -> None:
        assert self._heartbeat is not None
        with self._tolerant():
            self._heartbeat.end()


def _figures(venue: VenueSummary) -> dict[str, object]:
    return {
        "venue": venue.venue,
        "frames": venue.frames,
        "markets": venue.markets,
        "connections": venue.connections,
        "connected": venue.connected,
        "reconnects": venue.reconnects,
        "gaps": venue.gaps,
        "gap_seconds": venue.gap_seconds,
        "coverage": venue.coverage,
        "lag_p50_ms": venue.lag_p50_ms,
        "lag_p99_ms": venue.lag_p99_ms,
    }


def _more(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)}
