"""What captures say of themselves, and whether it is still true."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from arb_pipeline.capture.heartbeat import Heartbeat, HeartbeatFile, heartbeats
from arb_pipeline.capture.summary import CaptureStatus, LoadSummary, VenueSummary
from arb_pipeline.settings import Settings
from arb_pipeline.status import capture_grid, capture_runs
from arb_pipeline.storage import Lake


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(lake=str(tmp_path / "lake"), journal=tmp_path / "journal", clock_offset=-3600)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake, "local exchange")


def gone_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def put(
    settings: Settings,
    run_id: str,
    *,
    shard: tuple[int, int] = (0, 1),
    ago_s: float = 0,
    pid: int | None = None,
    host: str | None = None,
) -> Heartbeat:
    """A heartbeat as a capture would have left it."""
    lake = Lake(settings.lake)
    HeartbeatFile(settings, lake, run_id, shard=shard, venues=["kalshi"]).begin()
    [path] = settings.journal.rglob(f"{run_id}-*.json") if settings.journal else []
    beat = msgspec.json.decode(path.read_bytes(), type=Heartbeat)
    beat = msgspec.structs.replace(
        beat,
        written_at=beat.written_at - ago_s,
        at_ns=beat.at_ns - round(ago_s * 1e9),
        pid=beat.pid if pid is None else pid,
        host=beat.host if host is None else host,
    )
    path.write_bytes(msgspec.json.encode(beat))
    return beat


def test_a_capture_is_seen_from_its_start_to_its_end(settings: Settings, lake: Lake) -> None:
    assert heartbeats(settings, lake.root) == []
    file = HeartbeatFile(settings, lake, "cli-1", shard=(1, 3), venues=["kalshi", "polymarket"])
    file.begin()
    [beat] = heartbeats(settings, lake.root)
    assert (beat.run_id, beat.shard, beat.names, beat.venues) == ("cli-1", (1, 3), ("kalshi", "polymarket"), {})
    assert (beat.host, beat.pid, beat.exchange) == (socket.gethostname(), os.getpid(), "local exchange")
    assert abs(beat.written_at - time.time()) < 5
    assert abs(beat.at_ns / 1e9 + 3600 - time.time()) < 5  # the pipeline's clock
    for elapsed, frames in ((10.0, 100), (14.0, 300)):
        figures = VenueSummary(venue="kalshi", frames=frames, connections=2, connected=1, markets=9)
        file.beat(CaptureStatus(run_id="cli-1", elapsed_s=elapsed, venues={"kalshi": figures}))
    [beat] = heartbeats(settings, lake.root)
    assert (beat.venues["kalshi"].frames, beat.venues["kalshi"].frames_per_s) == (300, 50.0)
    assert (beat.venues["kalshi"].connected, beat.venues["kalshi"].connections) == (1, 2)
    assert heartbeats(settings, lake.root + "2") == []
    file.end()
    assert heartbeats(settings, lake.root) == []


def test_how_far_postgres_is_stands_beside_the_venues(settings: Settings, lake: Lake) -> None:
    file = HeartbeatFile(settings, lake, "r", shard=(0, 1), venues=["kalshi"])
    venues = {"kalshi": VenueSummary(venue="kalshi")}
    load = LoadSummary(rows=1_234, lag_s=61.5, waiting=2, message="refused")
    file.beat(CaptureStatus(run_id="r", elapsed_s=1, venues=venues, postgres=load))
    [run] = capture_runs(settings, lake)
    assert run.part("kalshi")["postgres"] == {"rows": 1_234, "lag_s": 61.5, "waiting": 2, "message": "refused"}
    console = Console(width=200)
    with console.capture() as captured:
        console.print(capture_grid([run]))
    for words in ("1,234 rows, 61.5 s behind", "2 journals of earlier runs wait", "refused"):
        assert words in captured.get()
    file.beat(CaptureStatus(run_id="r", elapsed_s=1, venues=venues))
    assert capture_runs(settings, lake)[0].part("kalshi")["postgres"] is None


def test_whether_it_runs_is_told_by_process_and_age(settings: Settings) -> None:
    assert put(settings, "fresh").state() == "running"
    assert put(settings, "killed", pid=gone_pid()).state() == "gone"
    assert put(settings, "stuck", ago_s=60).state() == "silent"
    # A process of another host cannot be looked for.
    assert put(settings, "far", pid=gone_pid(), host="elsewhere").state() == "running"
    assert put(settings, "far-stuck", ago_s=60, pid=gone_pid(), host="elsewhere").state() == "silent"


def test_patience_is_three_flushes(settings: Settings) -> None:
    slow = settings.model_copy(update={"capture_flush_s": 30.0})
    assert put(slow, "a", ago_s=80).state() == "running"
    assert put(slow, "b", ago_s=100).state() == "silent"


def test_a_new_capture_forgets_the_dead_of_its_shard(settings: Settings) -> None:
    put(settings, "other-shard", shard=(1, 2), pid=gone_pid())
    put(settings, "running", shard=(0, 2))
    put(settings, "dead", shard=(0, 2), pid=gone_pid())
    put(settings, "long-ago", shard=(2, 3), ago_s=100_000, host="elsewhere")
    put(settings, "new", shard=(0, 2))
    assert {beat.run_id for beat in heartbeats(settings, settings.lake)} == {"other-shard", "running", "new"}


def test_a_file_of_another_version_says_nothing(settings: Settings) -> None:
    put(settings, "mine")
    assert settings.journal is not None
    [path] = settings.journal.rglob("mine-*.json")
    path.with_name("strange-0of1.json").write_text('{"run": 1}', encoding="utf-8")
    assert [beat.run_id for beat in heartbeats(settings, settings.lake)] == ["mine"]
