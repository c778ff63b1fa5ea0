"""Capture, with its encoder in a process of its own, and replay onto an object store."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from arb_pipeline.cli import app
from arb_pipeline.storage import Lake
from arb_pipeline.storage.check import check
from arb_pipeline_tests.capture.fakes import FakeVenue, every, fake_exchange
from arb_pipeline_tests.capture.test_recorder import DELTA, SNAP, begin
from arb_pipeline_tests.capture.test_replay import LINES, record, run, tree
from arb_pipeline_tests.conftest import ObjectStore
from arb_pipeline_tests.storage.test_s3 import objects


async def test_two_shards_capture_into_the_same_partitions(
    s3_lake: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARB_JOURNAL", str(tmp_path / "journal"))
    lake = Lake(s3_lake.url)
    async with fake_exchange() as exchange:
        shards = [begin(lake, FakeVenue(exchange.url), *"ABCDEFGH", run_id=f"run{k}", shard=(k, 2)) for k in range(2)]
        await exchange.subscribed(2)
        for ws in exchange.sockets:
            await ws.send(SNAP)
            await ws.send(DELTA)
        # Two encoders start, each in a process of its own, and their rows pass through the store.
        async with asyncio.timeout(90):
            while len(await asyncio.to_thread(every, lake, "raw_frames")) < 4:
                assert not any(running.task.done() for running in shards)
                await asyncio.sleep(0.2)
        summaries = [await running.end() for running in shards]
    assert [one.venues["fake"].frames for one in summaries] == [2, 2]
    rows = every(lake, "raw_frames")
    assert [row["frame"] for row in rows if row["frame"] in {SNAP, DELTA}].count(SNAP) == 2
    assert {row["connection_id"].split("-")[0] for row in rows} == {"run0", "run1"}
    assert len(every(lake, "capture_sessions")) == 2
    assert check(lake).findings == []


def test_a_replay_gives_the_bytes_of_a_local_lake_and_again_the_same(s3_lake: ObjectStore, tmp_path: Path) -> None:
    recording = record(tmp_path / "recording", LINES, events=[{"id": "E"}])
    lake, local = Lake(s3_lake.url), Lake(str(tmp_path / "local"))
    run(recording, local)
    run(recording, lake)
    assert objects(lake) == tree(local.root)
    assert len(tree(local.root)) > 10
    run(recording, lake)
    assert objects(lake) == tree(local.root)


def test_arb_replay_of_a_real_recording_is_the_same_on_both(
    recordings: Path, s3_lake: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for root in (s3_lake.url, str(tmp_path / "local")):
        done = CliRunner().invoke(app, ["replay", str(recordings / "kalshi-btc15m"), "--lake", root, "--json"])
        assert done.exit_code == 0, done.output
    assert objects(Lake(s3_lake.url)) == tree(str(tmp_path / "local"))
    done = CliRunner().invoke(app, ["lake", "check", "--lake", s3_lake.url, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["sound"] is True
