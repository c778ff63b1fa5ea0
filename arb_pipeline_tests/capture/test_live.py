import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from arb_pipeline.capture.journal import (
    Frame,
    JournalError,
    JournalReader,
    JournalWriter,
    Opened,
    RunFolder,
    Sent,
    journal_root,
)
from arb_pipeline.capture.live import begun_settings
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline_tests.capture.fakes import FakeVenue, every, fake_exchange
from arb_pipeline_tests.capture.test_recorder import CAPTURE, DELTA, SNAP, answering, begin, frames

__all__ = ["answering"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def journals(lake: Lake) -> list[RunFolder]:
    return RunFolder.all(journal_root(None, lake.root) / "runs")


async def test_the_journal_holds_what_was_received_and_sent_until_the_rows_are_final(lake: Lake) -> None:
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url))
        ws = await exchange.subscribed()
        await ws.send(SNAP)
        await running.until(frames(1))
        [folder] = journals(lake)
        records = JournalReader(folder.path).read()
        assert [json.loads(r.frame)[0] for r in records if isinstance(r, Sent)][:2] == ["hello", "subscribe"]
        [opened] = [r for r in records if isinstance(r, Opened)]
        assert [facts.market_id for facts in opened.markets] == ["M"]
        await running.end()
    assert journals(lake) == []


async def test_two_captures_of_one_shard_refuse_each_other(lake: Lake) -> None:
    async with fake_exchange() as exchange:
        first = begin(lake, FakeVenue(exchange.url))
        await exchange.subscribed()
        with pytest.raises(JournalError, match=r"another capture of fake, shard 0 of 1.*stop it first"):
            await begin(lake, FakeVenue(exchange.url), run_id="second").task
        other_shard = begin(lake, FakeVenue(exchange.url), *"ABCDEF", run_id="third", shard=(1, 2))
        await exchange.subscribed(2)
        await other_shard.end()
        await first.end()
        after = begin(lake, FakeVenue(exchange.url), run_id="fourth")
        await exchange.subscribed(3)
        await after.end()


async def test_an_encoder_that_dies_is_started_again_and_writes_every_row_once(lake: Lake) -> None:
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url))
        ws = await exchange.subscribed()
        await ws.send(SNAP)
        await running.until(frames(1))
        [folder] = journals(lake)
        os.kill(encoder_of(folder), signal.SIGKILL)
        await ws.send(DELTA)
        await running.until(frames(2))
        await running.end()
    assert sorted(row["frame"] for row in every(lake, "raw_frames")) == sorted([SNAP, DELTA])
    assert len(every(lake, "quotes")) == 2


def test_the_encoder_of_a_killed_capture_writes_what_there_is_and_ends_by_itself(
    lake: Lake, answering: tuple[str, threading.Event]
) -> None:
    url, answered = answering
    process = subprocess.Popen([sys.executable, "-c", CAPTURE, url, lake.root], stdout=subprocess.DEVNULL)
    assert answered.wait(30)
    until(lambda: any(holds(folder, SNAP) for folder in journals(lake)), "the frame is not in the journal")
    [folder] = journals(lake)
    encoder = encoder_of(folder)
    assert every(lake, "raw_frames") == [], "its first flush is an hour away"
    process.kill()
    process.wait(10)
    until(lambda: not is_encoder(encoder), "the encoder outlives its capture")
    assert [row["frame"] for row in every(lake, "raw_frames")] == [SNAP]
    assert len(every(lake, "quotes")) == 1
    assert [left.path for left in journals(lake)] == [folder.path], "the next start finishes it"


async def test_nothing_is_taken_in_while_the_disk_is_full_and_the_time_is_a_gap(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JournalWriter, "full", property(lambda writer: bool(writer.error)))
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url))
        ws = await exchange.subscribed()
        await ws.send(SNAP)
        await running.until(frames(1))
        pwrite = os.pwrite

        def refuse(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", refuse)
        await running.until(lambda status: "No space left" in status.venues["fake"].message)
        await ws.wait_closed()
        monkeypatch.setattr(os, "pwrite", pwrite)
        ws = await exchange.subscribed(2)
        await ws.send(SNAP)
        await running.until(frames(2))
        await running.end()
    [gap] = [gap for gap in every(lake, "book_gaps") if gap["cause"] != "no_snapshot"]
    assert (gap["cause"], gap["recovery"]) == ("disconnect", "snapshot")
    assert any("No space left" in row["stop_reason"] for row in every(lake, "capture_sessions"))
    assert len(every(lake, "raw_frames")) == 2


def test_a_journal_holds_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALSHI_PRIVATE_KEY", "SECRETSECRET")
    monkeypatch.setenv("KALSHI_API_KEY_ID", "SECRETSECRET")
    monkeypatch.setenv("ARB_POSTGRES_URL", "postgresql://user:SECRETSECRET@db/arb")
    kept = begun_settings(Settings(flush_ms=50))
    assert "SECRETSECRET" not in json.dumps(kept)
    assert Settings(**kept).flush_ms == 50  # type: ignore[arg-type]


def encoder_of(folder: RunFolder) -> int:
    """The process that encodes a run."""
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        if is_encoder(pid) and str(folder.path).encode() in words(pid):
            return pid
    raise AssertionError(f"nobody encodes {folder.path}")


def is_encoder(pid: int) -> bool:
    """Whether a process is an encoder and has not ended."""
    return b"arb_pipeline.capture.encoder" in words(pid)


def words(pid: int) -> list[bytes]:
    """A process's command line; none once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        return []


def holds(folder: RunFolder, frame: str) -> bool:
    """Whether a frame is on disk in a journal."""
    reader = JournalReader(folder.path)
    return any(isinstance(record, Frame) and record.frame == frame for record in reader.read())


def until(ready: Callable[[], bool], otherwise: str) -> None:
    """Wait for something that takes a few seconds, longer only on a busy machine."""
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)
