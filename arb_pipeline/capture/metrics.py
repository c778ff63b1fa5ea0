"""A capture run's figures for Prometheus, over HTTP, where a port is set."""

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from arb_pipeline.capture.summary import LAG_BOUNDS_MS, CaptureStatus, LoadSummary, VenueSummary

__all__ = ["CaptureMetrics"]

_log = logging.getLogger(__name__)

_LABELS: Final = ("venue", "shard")


class CaptureMetrics(Collector):
    """The metrics of one run, in a registry of their own, and the server that shows them.

    Args:
        host, port: where to listen; port 0 takes a free one.
        run_id, exchange: told by ``arb_capture_run_info``.
        shard: (k, n), the label ``shard`` as ``k/n``.
    """

    def __init__(self, host: str, port: int, *, run_id: str, exchange: str, shard: tuple[int, int]) -> None:
        self._address = (host, port)
        self._run = {"run_id": run_id, "exchange": exchange}
        self._shard = "{}/{}".format(*shard)
        self._status: CaptureStatus | None = None
        self._committed_ns: Mapping[str, int] = {}
        self._server: tuple[WSGIServer, threading.Thread] | None = None
        self._refused = ""

    @property
    def port(self) -> int | None:
        """The port that is listened on, None while there is none."""
        return None if self._server is None else self._server[0].server_port

    def open(self) -> None:
        """Listen, if nothing does yet. A port that is taken is logged once: call it again later.

        At a hand-over the next hour's run waits in this way for the port of the run before it.
        """
        if self._server is not None:
            return
        host, port = self._address
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server = start_http_server(port, host, registry)
        except OSError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                _log.warning(
                    "no metrics yet: %s port %d cannot be listened on (%s); the capture goes on, and tries again at "
                    "every flush. Captures that run side by side need an ARB_METRICS_PORT each, or 0",
                    host,
                    port,
                    error,
                )
            return
        _log.info("metrics at http://%s:%d/metrics", host, self.port)

    def update(self, status: CaptureStatus, committed_ns: Mapping[str, int]) -> None:
        """Show these figures from now on.

        Args:
            committed_ns: receive time of the newest frame in the lake, by venue.
        """
        self._status, self._committed_ns = status, dict(committed_ns)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            server, thread = self._server
            self._server = None
            server.shutdown()
            server.server_close()
            thread.join()

    def collect(self) -> Iterable[Metric]:
        """What a scrape gets."""
        run = GaugeMetricFamily("arb_capture_run_info", "The run that captures.", labels=("shard", *self._run))
        run.add_metric((self._shard, *self._run.values()), 1)
        yield run
        status = self._status
        if status is None:
            return
        elapsed = GaugeMetricFamily("arb_capture_elapsed_seconds", "Time since the run began.", labels=("shard",))
        elapsed.add_metric((self._shard,), status.elapsed_s)
        yield elapsed
        venues = status.venues.values()
        yield self._counter("frames", "Frames received.", {one.venue: one.frames for one in venues})
        yield self._counter("received_bytes", "Bytes of frames received.", {one.venue: one.bytes for one in venues})
        yield self._counter("reconnects", "Dials after a loss.", {one.venue: one.reconnects for one in venues})
        yield self._counter(
            "gap_seconds", "Time without a trusted book, summed over markets.", {v.venue: v.gap_seconds for v in venues}
        )
        yield self._counters("rows", "table", "Rows made.", {one.venue: one.rows for one in venues})
        yield self._counters("gaps", "cause", "Doubts about books that ended.", {v.venue: v.gap_causes for v in venues})
        yield self._counters("anomalies", "kind", "Wrong input, counted.", {one.venue: one.anomalies for one in venues})
        yield self._gauge("markets", "Markets subscribed.", {one.venue: one.markets for one in venues})
        yield self._gauge("connections", "Connections that there should be.", {v.venue: v.connections for v in venues})
        up = {one.venue: one.connected for one in venues if one.connected is not None}
        yield self._gauge("connections_up", "Connections that are up.", up)
        yield self._gauge(
            "coverage_ratio", "Share of the run's time with a connection.", {one.venue: one.coverage for one in venues}
        )
        yield self._gauge(
            "last_committed_timestamp_seconds",
            "Receive time of the newest frame in the lake, by the pipeline's clock.",
            {venue: at / 1e9 for venue, at in self._committed_ns.items()},
        )
        yield self._lag(venues)
        if status.postgres is not None:
            yield from self._postgres(status.postgres)

    def _postgres(self, load: LoadSummary) -> Iterable[Metric]:
        labels = (self._shard,)
        rows = CounterMetricFamily("arb_capture_postgres_rows", "Rows inserted into Postgres.", labels=("shard",))
        rows.add_metric(labels, load.rows)
        yield rows
        gauges = {
            "lag_seconds": ("Age of the oldest input whose rows are not committed to Postgres.", load.lag_s),
            "waiting_journals": ("Journals of earlier runs that Postgres has still to get.", load.waiting),
            "up": ("Whether Postgres takes rows.", float(not load.message)),
        }
        for name, (help_text, value) in gauges.items():
            gauge = GaugeMetricFamily(f"arb_capture_postgres_{name}", help_text, labels=("shard",))
            gauge.add_metric(labels, value)
            yield gauge

    def _counter(self, name: str, help_text: str, values: Mapping[str, float]) -> Metric:
        family = CounterMetricFamily(f"arb_capture_{name}", help_text, labels=_LABELS)
        for venue, value in values.items():
            family.add_metric((venue, self._shard), value)
        return family

    def _counters(self, name: str, label: str, help_text: str, values: Mapping[str, Mapping[str, int]]) -> Metric:
        family = CounterMetricFamily(f"arb_capture_{name}", help_text, labels=(*_LABELS, label))
        for venue, counts in values.items():
            for key, count in counts.items():
                family.add_metric((venue, self._shard, key), count)
        return family

    def _gauge(self, name: str, help_text: str, values: Mapping[str, float]) -> Metric:
        family = GaugeMetricFamily(f"arb_capture_{name}", help_text, labels=_LABELS)
        for venue, value in values.items():
            family.add_metric((venue, self._shard), value)
        return family

    def _lag(self, venues: Iterable[VenueSummary]) -> Metric:
        family = HistogramMetricFamily(
            "arb_capture_lag_seconds", "Receive time less the venue's, of level changes and trades.", labels=_LABELS
        )
        bounds = [*(str(float(bound) / 1e3) for bound in LAG_BOUNDS_MS), "+Inf"]
        for one in venues:
            if one.lag_counts:
                # Clocks differ, so lags may be negative, and a sum of them is no counter: it is left out.
                family.add_metric((one.venue, self._shard), list(zip(bounds, one.lag_counts, strict=True)), None)
        return family
