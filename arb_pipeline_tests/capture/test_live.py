import json
import os
import signal
from pathlib import Path

import pytest

from arb_pipeline.capture.journal import (
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
from arb_pipeline_tests.capture.test_recorder import DELTA, SNAP, begin, frames


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
    [gap] = every(lake, "book_gaps")
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
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0")
        if b"arb_pipeline.capture.encoder" in words and str(folder.path).encode() in words:
            return int(path.parent.name)
    raise AssertionError(f"nobody encodes {folder.path}")
