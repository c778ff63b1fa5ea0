"""``arb status``: figures that follow from what is in the lake."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console
from typer.testing import CliRunner

from arb_pipeline.capture.heartbeat import HeartbeatFile
from arb_pipeline.capture.summary import CaptureStatus, VenueSummary
from arb_pipeline.cli import app
from arb_pipeline.clock import Clock, datetime_from_ns, ns_from_datetime
from arb_pipeline.settings import Settings
from arb_pipeline.status import capture_grid, capture_status, status_grid
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table

NOW = ns_from_datetime(datetime(2026, 11, 21, 12, 2, tzinfo=UTC))
SECOND = 1_000_000_000
EXCHANGE = "local exchange: test"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(Settings, "clock", property(lambda _self: Clock(source=lambda: NOW)))
    return Settings(lake=str(tmp_path / "lake"))


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake, EXCHANGE)


def put(lake: Lake, name: str, time: str, *rows: dict[str, Any]) -> None:
    """Rows of Kalshi, each into the partition of its time; what a column lacks gets a plain value."""
    plain = {"string": "", "int64": 0, "bool": False}
    for number, row in enumerate(rows):
        filled: dict[str, Any] = {"venue": "kalshi", "source": "ws", "connection_id": "a", "ordinal": number}
        for column in table(name).columns:
            filled.setdefault(column.name, None if column.nullable else plain.get(str(column.type)))
        at = row[time]
        part = pa.Table.from_pylist(
            [{key: value for key, value in (filled | row).items() if key in table(name).column_names}],
            schema=table(name).schema,
        )
        lake.write_part(name, Partition.of(name, "kalshi", at), part, f"w{number}")


def frame(seconds_ago: float) -> dict[str, Any]:
    return {"recv_ns": NOW - round(seconds_ago * SECOND), "frame": "{}"}


def change(seconds_ago: float, lag_ms: float | None, market: str = "A", kind: str = "delta") -> dict[str, Any]:
    recv = NOW - round(seconds_ago * SECOND)
    told = None if lag_ms is None else recv - round(lag_ms * 1e6)
    return {"recv_ns": recv, "venue_ns": told, "market_id": market, "kind": kind}


def gap(from_ago: float, to_ago: float | None, cause: str) -> dict[str, Any]:
    until = None if to_ago is None else NOW - round(to_ago * SECOND)
    return {
        "market_id": f"{cause}-{from_ago}",
        "from_ns": NOW - round(from_ago * SECOND),
        "to_ns": until,
        "cause": cause,
    }


def test_an_empty_lake_says_that_nothing_runs(settings: Settings, lake: Lake) -> None:
    status = capture_status(settings, lake, "kalshi")
    assert (status.live, status.last_recv_at, status.behind_s, status.frames) == (False, None, None, 0)
    assert (status.lag_p50_ms, status.gaps, status.markets, status.anomalies) == (None, {}, 0, {})
    assert "not running" in shown(status_grid([status]))


def test_figures_are_those_of_their_windows(settings: Settings, lake: Lake) -> None:
    # The five minutes reach back over the hour's boundary.
    put(lake, "raw_frames", "recv_ns", frame(400), frame(290), frame(60), frame(4))
    put(
        lake,
        "book_events",
        "recv_ns",
        change(5_000, 9_000, "old"),
        change(3_000, 9_000, "B"),
        change(200, 10),
        change(100, 20),
        change(50, None),
        change(40, 60_000, kind="snapshot"),
    )
    put(
        lake,
        "trades",
        "recv_ns",
        {"recv_ns": NOW - SECOND, "venue_ns": NOW - SECOND - 30_000_000, "market_id": "A"}
        | {"trade_id": "t", "price": 0, "size": 1},
    )
    put(lake, "book_gaps", "from_ns", gap(9_000, 8_000, "seq_gap"), gap(9_000, 3_000, "seq_gap"))
    put(lake, "book_gaps", "from_ns", gap(100, 90, "disconnect"), gap(60, None, "disconnect"))
    for ago, anomalies in ((9_000, {"seq_gap": 100}), (600, {"seq_gap": 2, "null_list": 1}), (60, {"seq_gap": 3})):
        at = NOW - ago * SECOND
        session = {"started_at": datetime_from_ns(at), "ended_at": datetime_from_ns(at + SECOND)}
        put(
            lake,
            "capture_sessions",
            "started_at",
            {**session, "connection_id": f"c{ago}"} | {"anomalies": json.dumps(anomalies), "examples": "{}"},
        )
    status = capture_status(settings, lake, "kalshi")
    assert status.exchange == EXCHANGE
    assert (status.live, status.behind_s, status.last_recv_at) == (True, 4.0, datetime_from_ns(NOW - 4 * SECOND))
    assert (status.frames, status.frames_per_s) == (3, 0.01)
    assert (status.lag_p50_ms, status.lag_p99_ms) == (20.0, 29.8)
    assert (status.gaps, status.gaps_open) == ({"disconnect": 2, "seq_gap": 1}, 1)
    assert status.markets == 2
    assert status.anomalies == {"null_list": 1, "seq_gap": 5}
    text = shown(status_grid([status, capture_status(settings, lake, "polymarket")]))
    assert "live" in text
    assert "not running" in text
    assert "disconnect: 2" in text
    assert "20.0 / 29.8" in text


def test_a_capture_that_stopped_is_not_live(settings: Settings, lake: Lake) -> None:
    put(lake, "raw_frames", "recv_ns", frame(100))
    status = capture_status(settings, lake, "kalshi")
    assert (status.live, status.behind_s) == (False, 100.0)


def test_command_prints_a_table_or_json(settings: Settings, lake: Lake) -> None:
    put(lake, "raw_frames", "recv_ns", frame(1))
    done = CliRunner().invoke(app, ["status", "--lake", settings.lake, "--json"])
    assert done.exit_code == 3  # one of the venues is not captured
    document = json.loads(done.stdout)
    assert set(document) == {"kalshi", "polymarket"}
    assert document["kalshi"]["behind_s"] == 1.0
    assert document["polymarket"]["last_recv_at"] is None
    assert [document[venue]["verdict"] for venue in ("kalshi", "polymarket")] == ["live", "not running"]
    done = CliRunner().invoke(app, ["status", "--lake", settings.lake, "--venue", "kalshi"])
    assert (done.exit_code, "frames, last 5 min" in done.stdout) == (0, True)
    assert "No capture into this lake runs on this host." in done.stdout


def beat(settings: Settings, lake: Lake, run_id: str, shard: tuple[int, int] = (0, 1), **figures: Any) -> HeartbeatFile:
    """The word of a capture of Kalshi that is this process."""
    file = HeartbeatFile(settings, lake, run_id, shard=shard, venues=["kalshi"])
    file.begin()
    if figures:
        file.beat(
            CaptureStatus(run_id=run_id, elapsed_s=2.0, venues={"kalshi": VenueSummary(venue="kalshi", **figures)})
        )
    return file


def verdict(settings: Settings, lake: Lake) -> str:
    return capture_status(settings, lake, "kalshi").verdict


def test_a_capture_is_starting_then_quiet_then_live_then_gone(settings: Settings, lake: Lake) -> None:
    file = beat(settings, lake, "r")
    assert verdict(settings, lake) == "starting"
    assert verdict(settings, Lake(settings.lake + "2")) == "not running"
    assert capture_status(settings, lake, "polymarket").captures == []
    beat(settings, lake, "r", connections=2, connected=2, markets=7)
    assert verdict(settings, lake) == "quiet"
    put(lake, "raw_frames", "recv_ns", frame(3))
    assert verdict(settings, lake) == "live"
    beat(settings, lake, "r", connections=2, connected=0, markets=7)
    status = capture_status(settings, lake, "kalshi")
    assert (status.verdict, status.healthy) == ("disconnected", False)
    file.end()
    assert verdict(settings, lake) == "live"  # for all that is known: another host may capture


def test_shards_add_up(settings: Settings, lake: Lake) -> None:
    beat(settings, lake, "a", (0, 2), connections=3, connected=2, markets=10, frames=8, message="closed [1006]")
    beat(settings, lake, "b", (1, 2), connections=2, connected=2, markets=11)
    status = capture_status(settings, lake, "kalshi")
    assert (status.connected, status.connections, status.subscribed) == (4, 5, 21)
    assert [(run.run_id, run.shard) for run in status.captures] == [("a", "0/2"), ("b", "1/2")]
    told = json.loads(json.dumps(status.metadata()))["captures"][0]
    assert (told["pid"], told["connected"], told["frames_per_s"]) == (os.getpid(), 2, 4.0)
    text = shown(status_grid([status])) + shown(capture_grid(status.captures))
    for words in ("yes, 4 of 5", "0/2", "1/2", "2 of 3", "closed [1006]", "quiet"):
        assert words in text


def test_a_capture_that_was_killed_is_not_running_although_its_newest_frames_are_fresh(
    settings: Settings, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, "raw_frames", "recv_ns", frame(3))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: ended.pid)
        beat(settings, lake, "killed", connections=1, connected=1)
    status = capture_status(settings, lake, "kalshi")
    assert (status.verdict, status.healthy, status.connected) == ("not running", False, None)
    assert status.since == datetime_from_ns(NOW)
    assert "not running since 2026-11-21 12:02:00 UTC" in shown(status_grid([status]))
    assert "gone since 2026-11-21 12:02:00 UTC" in shown(capture_grid(status.captures))
    beat(settings, lake, "next", connections=1, connected=1)
    assert verdict(settings, lake) == "live"


def shown(grid: object) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(grid)
    return captured.get()
