"""A capture seen by those who watch it: a real recorder against a small exchange, and made-up changes."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import structlog

from arb_pipeline.capture.heartbeat import heartbeats
from arb_pipeline.capture.monitor import CaptureMonitor
from arb_pipeline.capture.recorder import Recorder
from arb_pipeline.capture.summary import CaptureStatus, VenueSummary
from arb_pipeline.clock import Clock
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline_tests.capture.fakes import FakeVenue, fake_exchange, markets

SNAP = json.dumps(["snap", "M", [[4000, 5_000_000]], [[4200, 2_000_000]]])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "fake exchange")


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "arb_pipeline.capture.monitor"]


async def test_a_running_capture_shows_itself(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(lake=lake.root, capture_flush_s=0.05, metrics_port=0)
    caplog.set_level(logging.INFO, "arb_pipeline")
    async with fake_exchange() as exchange:
        recorder = Recorder(
            settings, lake, Clock(), "run", {"fake": markets("M")}, venues={"fake": FakeVenue(exchange.url)}
        )
        stop = asyncio.Event()
        with CaptureMonitor(settings, lake, "run", ["fake"]) as monitor:
            [beat] = heartbeats(settings, lake.root)
            assert (beat.names, beat.venues) == (("fake",), {})

            def scrape() -> str:
                with urlopen(f"http://127.0.0.1:{monitor.metrics_port}/metrics", timeout=5) as answer:
                    return str(answer.read().decode())

            task = asyncio.create_task(recorder.run(stop, monitor.observe))
            ws = await exchange.subscribed()
            await ws.send(SNAP)
            async with asyncio.timeout(20):
                while "arb_capture_last_committed_timestamp_seconds{" not in (text := await asyncio.to_thread(scrape)):
                    assert not task.done()
                    await asyncio.sleep(0.02)
            assert 'arb_capture_frames_total{shard="0/1",venue="fake"} 1.0' in text
            assert 'arb_capture_run_info{exchange="fake exchange",run_id="run",shard="0/1"} 1.0' in text
            [beat] = heartbeats(settings, lake.root)
            assert (beat.venues["fake"].frames, beat.venues["fake"].connections) == (1, 1)
            stop.set()
            monitor.finished(await task)
    assert heartbeats(settings, lake.root) == []
    assert monitor.metrics_port is None
    told = messages(caplog)
    assert told[0] == "capture starts"
    assert told[-1] == "capture ended: stopped"
    assert structlog.contextvars.get_contextvars() == {}


def status(**figures: Any) -> CaptureStatus:
    return CaptureStatus(run_id="r", elapsed_s=1.0, venues={"kalshi": VenueSummary(venue="kalshi", **figures)})


async def test_what_changes_is_logged_once(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "arb_pipeline")
    settings = Settings(lake=lake.root)
    with CaptureMonitor(settings, lake, "r", ["kalshi"]) as monitor:
        assert monitor.metrics_port is None  # opt-in
        for figures in (
            {"connections": 2, "connected": 2},
            {"connections": 2, "connected": 2},
            {"connections": 2, "connected": 1, "message": "closed (1006)", "gap_causes": {"disconnect": 3}},
            {"connections": 2, "connected": 2, "message": "closed (1006)", "gap_causes": {"disconnect": 9}}
            | {"reconnects": 2, "anomalies": {"seq_gap": 1}, "examples": {"seq_gap": {"detail": "7 after 5"}}},
        ):
            await monitor.observe(status(**figures))
    assert messages(caplog) == [
        "capture starts",
        "kalshi: 2 of 2 connections are up",
        "kalshi: 1 of 2 connections are up",
        "kalshi: closed (1006)",
        "kalshi: first gap by disconnect",
        "kalshi: 2 of 2 connections are up",
        "kalshi: dialled again 2 times",
        "kalshi: first anomaly seq_gap",
    ]
    assert [record.levelname for record in caplog.records if "1 of 2" in record.getMessage()] == ["WARNING"]


async def test_figures_are_logged_once_a_minute(
    lake: Lake, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "arb_pipeline")
    now = 1000.0
    monkeypatch.setattr("arb_pipeline.capture.monitor.time.monotonic", lambda: now)
    with CaptureMonitor(Settings(lake=lake.root), lake, "r", ["kalshi"], announce=False) as monitor:
        for second in range(0, 130, 5):
            now = 1000.0 + second
            await monitor.observe(status(frames=10 * second, gap_causes={"seq_gap": second // 5}))
    figures = [record for record in caplog.records if record.getMessage() == "kalshi: capturing"]
    assert [record.__dict__["frames_per_s"] for record in figures] == [10.0, 10.0]
    assert [record.__dict__["new_gaps"] for record in figures] == [{"seq_gap": 12}, {"seq_gap": 12}]
    assert heartbeats(Settings(lake=lake.root), lake.root) == []


async def test_a_disk_that_refuses_the_heartbeat_is_logged_once_and_ends_nothing(
    lake: Lake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    settings = Settings(lake=lake.root, journal=tmp_path / "file" / "journal")
    with CaptureMonitor(settings, lake, "r", ["kalshi"]) as monitor:
        await monitor.observe(status())
        await monitor.observe(status())
    assert len([line for line in messages(caplog) if line.startswith("no heartbeat")]) == 1
