import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from websockets.sync.server import ServerConnection, serve

from arb_pipeline.capture.recorder import CaptureStatus, CaptureSummary, Recorder
from arb_pipeline.clock import Clock, datetime_from_ns
from arb_pipeline.model import MarketFacts
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.http import RestClient
from arb_pipeline_tests.capture.fakes import FakeVenue, every, fake_exchange, fold, markets

SNAP = json.dumps(["snap", "M", [[4000, 5_000_000]], [[4200, 2_000_000]]])
DELTA = json.dumps(["delta", "M", "bid", 4100, 7_000_000])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@dataclass
class Running:
    """A capture under way."""

    task: "asyncio.Task[CaptureSummary]"
    stop: asyncio.Event
    statuses: "asyncio.Queue[CaptureStatus]"

    async def until(self, ready: Callable[[CaptureStatus], bool]) -> CaptureStatus:
        """Wait for a status; a capture that ends before is an error."""
        async with asyncio.timeout(60):
            while True:
                getting = asyncio.create_task(self.statuses.get())
                await asyncio.wait({getting, self.task}, return_when=asyncio.FIRST_COMPLETED)
                if self.task.done():
                    getting.cancel()
                    raise AssertionError(f"the capture ended: {self.task.result()}")
                if ready(status := await getting):
                    return status

    async def end(self) -> CaptureSummary:
        self.stop.set()
        async with asyncio.timeout(10):
            return await self.task


def begin(
    lake: Lake,
    venue: FakeVenue,
    *ids: str,
    run_id: str = "run",
    clock: Clock | None = None,
    still_mine: Callable[[], Awaitable[bool]] | None = None,
    max_seconds: float | None = None,
    postgres_url: str | None = None,
    **options: Any,
) -> Running:
    settings = Settings(
        capture_flush_s=0.05, max_seconds=max_seconds, postgres_url=SecretStr(postgres_url) if postgres_url else None
    )
    recorder = Recorder(
        settings,
        lake,
        clock or Clock(),
        run_id,
        {"fake": markets(*(ids or ("M",)))},
        venues={"fake": venue},
        backoff_s=(0.02, 0.1),
        **options,
    )
    stop: asyncio.Event = asyncio.Event()
    statuses: asyncio.Queue[CaptureStatus] = asyncio.Queue()
    return Running(asyncio.create_task(recorder.run(stop, statuses.put, still_mine)), stop, statuses)


def files_per_folder(lake: Lake) -> set[int]:
    return {len(list(path.parent.iterdir())) for path in Path(lake.root).rglob("*.parquet")}


def frames(at_least: int) -> Callable[[CaptureStatus], bool]:
    return lambda status: status.frames >= at_least


async def test_frames_become_rows_and_one_file_per_partition(lake: Lake) -> None:
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url))
        ws = await exchange.subscribed()
        assert exchange.received[:2] == [["hello"], ["subscribe", ["M"]]]
        await ws.send(SNAP)
        await running.until(frames(1))
        await ws.send(DELTA)
        await ws.send(json.dumps(["trade", "M", "t1", 410_000_000, 1_000_000]))
        # A status counts what was received by then; what a flush wrote is a little less.
        status = await running.until(lambda status: status.frames >= 3 and len(lake.read("raw_frames")) == 3)
        assert status.venues["fake"].rows["trades"] == 1
        summary = await running.end()
        async with asyncio.timeout(5):
            await ws.wait_closed()
        assert ws.close_code == 1000
    assert summary.stop_reason == "stopped"
    assert [row["frame"] for row in sorted(every(lake, "raw_frames"), key=lambda r: r["ordinal"])][:2] == [SNAP, DELTA]
    assert files_per_folder(lake) == {2}
    venue = summary.venues["fake"]
    assert (venue.frames, venue.markets, venue.connections, venue.reconnects) == (3, 1, 1, 0)
    assert venue.coverage > 0.5
    [session] = every(lake, "capture_sessions")
    assert (session["run_id"], session["frames"], session["markets"], session["stop_reason"]) == (
        "run",
        3,
        1,
        "stopped",
    )
    [gap] = every(lake, "book_gaps")
    [opening] = [row["recv_ns"] for row in every(lake, "book_events") if row["kind"] == "clear"]
    assert (gap["cause"], gap["to_ns"], gap["recovery"]) == ("no_snapshot", opening, "snapshot")
    assert summary.uncompacted == ()


async def test_a_lost_connection_is_dialled_again_signed_afresh_and_the_time_between_is_a_gap(lake: Lake) -> None:
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url))
        for number in range(3):
            ws = await exchange.subscribed(number + 1)
            await ws.send(SNAP)
            await running.until(frames(number + 1))
            if number < 2:
                ws.transport.abort()
        summary = await running.end()
    assert summary.venues["fake"].reconnects == 2
    assert len(exchange.headers) == 3
    gaps = every(lake, "book_gaps")
    assert [(gap["cause"], gap["recovery"]) for gap in sorted(gaps, key=lambda gap: gap["from_ns"])] == [
        ("no_snapshot", "snapshot"),
        *[("disconnect", "snapshot")] * 2,
    ]
    assert all(gap["to_ns"] > gap["from_ns"] for gap in gaps)
    assert summary.venues["fake"].gap_seconds > 0
    sessions = sorted(every(lake, "capture_sessions"), key=lambda row: row["started_at"])
    assert [row["reconnects"] for row in sessions] == [0, 1, 2]
    assert len({row["connection_id"] for row in sessions}) == 3
    assert {row["connection_id"] for row in every(lake, "book_events")} == {row["connection_id"] for row in sessions}


async def test_a_refused_connection_is_tried_again_and_said(lake: Lake) -> None:
    venue = FakeVenue("ws://127.0.0.1:9")
    running = begin(lake, venue)
    status = await running.until(lambda status: status.venues["fake"].message != "")
    assert "connect" in status.venues["fake"].message.lower()
    async with fake_exchange() as exchange:
        venue.sessions[0].url = exchange.url
        ws = await exchange.subscribed()
        await ws.send(SNAP)
        await running.until(frames(1))
        await running.end()
    assert len(every(lake, "quotes")) == 1


async def test_a_malformed_frame_is_counted_with_its_example_while_capture_goes_on(lake: Lake) -> None:
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url))
        ws = await exchange.subscribed()
        for frame in (SNAP, "<html>", DELTA, b"\xff\x00"):
            await ws.send(frame)
        await running.until(frames(4))
        summary = await running.end()
    venue = summary.venues["fake"]
    assert venue.anomalies == {"malformed_json": 2}
    assert venue.examples["malformed_json"]["frame"] == "<html>"
    assert venue.reconnects == 0
    assert len(every(lake, "quotes")) == 2
    assert "<html>" in {row["frame"] for row in every(lake, "raw_frames")}
    [session] = every(lake, "capture_sessions")
    assert json.loads(session["anomalies"]) == {"malformed_json": 2}


async def test_what_the_session_asks_for_is_done(lake: Lake) -> None:
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url))
        ws = await exchange.subscribed()
        await ws.send(json.dumps(["ask", "M"]))
        await running.until(lambda status: status.venues["fake"].rows.get("book_events", 0) >= 2)
        await ws.send(json.dumps(["ask", "reconnect"]))
        await exchange.subscribed(2)
        summary = await running.end()
    assert summary.venues["fake"].reconnects == 1
    assert "told so" in summary.venues["fake"].message
    [fetched] = [row for row in every(lake, "raw_frames") if row["source"] == "rest"]
    assert fetched["frame"] == "[[[4000, 7000000]], []]"
    assert [row["kind"] for row in every(lake, "book_events")] == ["clear", "snapshot"]


class OddVenue(FakeVenue):
    """Its REST answers are not of the documented form."""

    async def fetch_books(self, client: RestClient, markets: Sequence[MarketFacts]) -> dict[str, bytes]:
        raise VenueError("POST /books answered no list but 'null'")


async def test_an_answer_of_another_form_does_not_end_the_capture(lake: Lake) -> None:
    async with fake_exchange() as exchange:
        running = begin(lake, OddVenue(exchange.url))
        ws = await exchange.subscribed()
        await ws.send(json.dumps(["ask", "M"]))
        await running.until(lambda status: "answered no list" in status.venues["fake"].message)
        await ws.send(SNAP)
        await running.until(frames(2))
        summary = await running.end()
    assert summary.venues["fake"].reconnects == 0


async def test_ticks_drive_keep_alives(lake: Lake) -> None:
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url))
        async with asyncio.timeout(20), exchange.changed:
            await exchange.changed.wait_for(lambda: ["tick", 1] in exchange.received)
        await running.end()


async def test_a_window_keeps_what_lies_inside_and_opens_with_the_books(lake: Lake) -> None:
    """The clock stands still until told: half an hour passes between frames."""
    now = [Clock().now_ns() // 3_600_000_000_000 * 3_600_000_000_000]
    hour = now[0]
    minute = 60_000_000_000
    now[0] = hour - minute
    window = (datetime_from_ns(hour), datetime_from_ns(hour + 60 * minute))
    async with fake_exchange() as exchange:
        clock = Clock(source=lambda: now[0])
        venue = FakeVenue(exchange.url)
        running = begin(lake, venue, clock=clock, window=window)
        ws = await exchange.subscribed()
        await ws.send(SNAP)
        await running.until(lambda _: venue.sessions[0].book("M") is not None)
        now[0] = hour + minute
        await ws.send(DELTA)
        await running.until(frames(1))
        now[0] = hour + 60 * minute
        async with asyncio.timeout(10):
            summary = await running.task
    assert summary.stop_reason == "window_end"
    assert [row["frame"] for row in every(lake, "raw_frames")] == [DELTA]
    events = every(lake, "book_events")
    assert [(e["kind"], e["recv_ns"]) for e in events] == [
        ("clear", hour),
        ("snapshot", hour),
        ("snapshot", hour),
        ("delta", hour + minute),
    ]
    assert {len(side) for side in fold(events)["M"]} == {2, 1}
    assert summary.venues["fake"].coverage == 1.0
    assert every(lake, "book_gaps") == []


async def test_it_ends_by_itself_after_max_seconds(lake: Lake) -> None:
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url), max_seconds=0.3)
        ws = await exchange.subscribed()
        await ws.send(SNAP)
        async with asyncio.timeout(10):
            summary = await running.task
    assert summary.stop_reason == "max_seconds"
    assert summary.ended_at - summary.started_at < timedelta(seconds=5)
    assert summary.venues["fake"].frames == 1


async def test_a_run_that_lost_its_place_flushes_and_leaves(lake: Lake) -> None:
    mine = [True]

    async def still_mine() -> bool:
        return mine[0]

    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url), still_mine=still_mine)
        ws = await exchange.subscribed()
        await ws.send(SNAP)
        await running.until(frames(1))
        mine[0] = False
        async with asyncio.timeout(10):
            summary = await running.task
    assert summary.stop_reason == "superseded"
    assert len(every(lake, "quotes")) == 1


async def test_venues_that_cannot_be_streamed_are_skipped_with_the_reason(lake: Lake) -> None:
    summary = await begin(lake, FakeVenue(streams=False)).task
    assert summary.stop_reason == "nothing_to_capture"
    assert "needs credentials" in summary.venues["fake"].message
    assert files_per_folder(lake) == set()


async def test_an_unexpected_error_ends_the_run_loudly_after_a_flush(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_exchange() as exchange:
        venue = FakeVenue(exchange.url)
        running = begin(lake, venue)
        ws = await exchange.subscribed()
        await ws.send(SNAP)
        await running.until(frames(1))
        await ws.send(json.dumps(["delta", "never seen", "bid", 1, 1]))
        with pytest.raises(KeyError, match="never seen"):
            async with asyncio.timeout(10):
                await running.task
    assert len(every(lake, "quotes")) == 1
    assert len(every(lake, "raw_frames")) == 2


async def test_markets_are_spread_over_connections_and_shards(lake: Lake) -> None:
    ids = [f"M{n}" for n in range(20)]
    subscribed: list[set[str]] = []
    for shard in range(2):
        async with fake_exchange() as exchange:
            running = begin(lake, FakeVenue(exchange.url, group=4), *ids, run_id=f"run{shard}", shard=(shard, 2))
            status = await running.until(lambda status: status.venues["fake"].connections > 0)
            await exchange.subscribed(status.venues["fake"].connections)
            asked = [set(frame[1]) for frame in exchange.received if frame[0] == "subscribe"]
            assert all(len(group) <= 4 for group in asked)
            subscribed.append(set().union(*asked))
            await running.end()
    assert subscribed[0] | subscribed[1] == set(ids)
    assert not subscribed[0] & subscribed[1]
    assert all(subscribed)


def test_a_shard_that_does_not_exist_is_refused(lake: Lake) -> None:
    with pytest.raises(ValueError, match="shard 2 of 2"):
        Recorder(Settings(), lake, Clock(), "r", {"fake": []}, shard=(2, 2), venues={"fake": FakeVenue()})


CAPTURE = """
import sys
from arb_pipeline.capture.recorder import Recorder
from arb_pipeline.capture.serve import run_until_signalled
from arb_pipeline.clock import Clock
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.http import RestClient
from arb_pipeline_tests.capture.fakes import FakeVenue, markets

url, root = sys.argv[1:]
venues = {"fake": FakeVenue(url)}
recorder = Recorder(
    Settings(capture_flush_s=3600), Lake(root), Clock(), "child", {"fake": markets("M")}, venues=venues
)
print(run_until_signalled(recorder.run).to_json(), flush=True)
"""


@pytest.fixture
def answering() -> Iterator[tuple[str, threading.Event]]:
    """An exchange in a thread that answers a subscription with a snapshot; and whether it has."""
    answered = threading.Event()

    def handle(ws: ServerConnection) -> None:
        for frame in ws:
            if "subscribe" in str(frame):
                ws.send(SNAP)
                ws.ping().wait(20)
                answered.set()

    with serve(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}", answered
        server.shutdown()
        thread.join(20)


def test_sigterm_flushes_within_ten_seconds(lake: Lake, answering: tuple[str, threading.Event]) -> None:
    url, answered = answering
    process = subprocess.Popen(
        [sys.executable, "-c", CAPTURE, url, lake.root], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert answered.wait(30)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert process.returncode == 0, err
    assert json.loads(out)["stop_reason"] == "stopped"
    assert len(every(lake, "quotes")) == 1
    assert [row["stop_reason"] for row in every(lake, "capture_sessions")] == ["stopped"]
