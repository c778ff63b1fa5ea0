"""What a scrape gets, over HTTP."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from urllib.request import urlopen

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from arb_pipeline.capture.metrics import CaptureMetrics
from arb_pipeline.capture.rows import LagHistogram
from arb_pipeline.capture.summary import LAG_BOUNDS_MS, CaptureStatus, LoadSummary, VenueSummary

MS = 1_000_000


def make(port: int = 0, run_id: str = "r1", shard: tuple[int, int] = (0, 1)) -> CaptureMetrics:
    return CaptureMetrics("127.0.0.1", port, run_id=run_id, exchange="local", shard=shard)


@pytest.fixture
def metrics() -> Iterator[CaptureMetrics]:
    made = make(shard=(1, 2))
    made.open()
    yield made
    made.close()


def scrape(metrics: CaptureMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset({"venue": "kalshi", "shard": "1/2", **labels}.items())


def lag_counts(*lags_ms: float) -> tuple[int, ...]:
    histogram = LagHistogram()
    histogram.add(np.array([round(lag * MS) for lag in lags_ms], dtype=np.int64))
    return histogram.counts_below(LAG_BOUNDS_MS)


def status(**figures: object) -> CaptureStatus:
    return CaptureStatus(run_id="r1", elapsed_s=12.5, venues={"kalshi": VenueSummary(venue="kalshi", **figures)})  # type: ignore[arg-type]


def test_every_figure_is_there(metrics: CaptureMetrics) -> None:
    told = status(
        frames=7,
        bytes=700,
        rows={"quotes": 5, "trades": 2},
        markets=3,
        connections=2,
        connected=1,
        reconnects=4,
        anomalies={"seq_gap": 6},
        gaps=2,
        gap_causes={"disconnect": 2},
        gap_seconds=1.5,
        coverage=0.75,
        lag_counts=lag_counts(-3, 0.8, 40, 40, 9_000, 400_000),
    )
    metrics.update(told, {"kalshi": 1_700_000_000_500_000_000})
    found = scrape(metrics)
    assert found["arb_capture_run_info", frozenset({("shard", "1/2"), ("run_id", "r1"), ("exchange", "local")})] == 1
    assert found["arb_capture_elapsed_seconds", frozenset({("shard", "1/2")})] == 12.5
    assert found[key("arb_capture_frames_total")] == 7
    assert found[key("arb_capture_received_bytes_total")] == 700
    assert found[key("arb_capture_rows_total", table="quotes")] == 5
    assert found[key("arb_capture_markets")] == 3
    assert (found[key("arb_capture_connections")], found[key("arb_capture_connections_up")]) == (2, 1)
    assert found[key("arb_capture_reconnects_total")] == 4
    assert found[key("arb_capture_anomalies_total", kind="seq_gap")] == 6
    assert found[key("arb_capture_gaps_total", cause="disconnect")] == 2
    assert found[key("arb_capture_gap_seconds_total")] == 1.5
    assert found[key("arb_capture_coverage_ratio")] == 0.75
    assert found[key("arb_capture_last_committed_timestamp_seconds")] == 1_700_000_000.5
    counts = {bound: found[key("arb_capture_lag_seconds_bucket", le=bound)] for bound in ("0.0", "0.001", "0.05")}
    assert counts == {"0.0": 1, "0.001": 2, "0.05": 4}
    assert found[key("arb_capture_lag_seconds_bucket", le="10.0")] == 5
    assert found[key("arb_capture_lag_seconds_bucket", le="+Inf")] == 6


def test_postgres_is_told_of_where_it_is_on(metrics: CaptureMetrics) -> None:
    metrics.update(status(), {})
    assert not any("postgres" in name for name, _ in scrape(metrics))
    away = LoadSummary(rows=7, lag_s=2.5, waiting=1, message="refused")
    metrics.update(replace(status(), postgres=away), {})
    told = {name: value for (name, labels), value in scrape(metrics).items() if labels == {("shard", "1/2")}}
    assert told["arb_capture_postgres_rows_total"] == 7
    assert told["arb_capture_postgres_lag_seconds"] == 2.5
    assert told["arb_capture_postgres_waiting_journals"] == 1
    assert told["arb_capture_postgres_up"] == 0
    metrics.update(replace(status(), postgres=LoadSummary(rows=8)), {})
    assert scrape(metrics)["arb_capture_postgres_up", frozenset({("shard", "1/2")})] == 1


def test_nothing_is_invented_before_the_first_flush_and_where_connections_are_not_known(
    metrics: CaptureMetrics,
) -> None:
    assert {name for name, _ in scrape(metrics)} == {"arb_capture_run_info"}
    metrics.update(status(frames=1), {})
    names = {name for name, _ in scrape(metrics)}
    assert "arb_capture_frames_total" in names
    assert not names & {"arb_capture_connections_up", "arb_capture_last_committed_timestamp_seconds"}


def test_a_taken_port_is_a_warning_and_is_tried_again(
    metrics: CaptureMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    assert metrics.port is not None
    second = make(port=metrics.port, run_id="r2")
    with caplog.at_level(logging.INFO, "arb_pipeline"):
        second.open()
        second.open()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert str(metrics.port) in warnings[0]
    assert "ARB_METRICS_PORT" in warnings[0]
    assert second.port is None
    metrics.close()
    second.open()
    try:
        labels = [labels for name, labels in scrape(second) if name == "arb_capture_run_info"]
        assert [("run_id", "r2") in one for one in labels] == [True]
    finally:
        second.close()
    assert second.port is None
