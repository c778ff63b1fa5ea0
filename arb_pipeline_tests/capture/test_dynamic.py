"""Markets that are added and retired while a capture runs."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from arb_pipeline.capture.recorder import CaptureStatus, Recorder
from arb_pipeline.capture.universe import Revision
from arb_pipeline.clock import Clock
from arb_pipeline.model import MarketChange
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline_tests.capture.fakes import FakePolling, FakeVenue, PolledVenue, every, fake_exchange, fold, markets
from arb_pipeline_tests.capture.test_recorder import Running


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


class Told:
    """A universe that says what a test puts into it, and notes what it was asked."""

    def __init__(self, interval_s: float = 0.02) -> None:
        self.interval_s = interval_s
        self.next: Revision | None = None
        self.changes: list[MarketChange] = []
        self.venue = "fake"
        self.closed = False

    async def revise(self, changes: Mapping[str, Sequence[MarketChange]]) -> dict[str, Revision]:
        self.changes += changes.get("fake", ())
        revision, self.next = self.next, None
        return {} if revision is None else {self.venue: revision, "elsewhere": revision}

    async def close(self) -> None:
        self.closed = True


class OtherVenue(FakeVenue):
    name = "other"


def begin(
    lake: Lake,
    venue: FakeVenue,
    told: Told,
    *ids: str,
    shard: tuple[int, int] = (0, 1),
    beside: FakeVenue | None = None,
) -> Running:
    venues = {"fake": venue} if beside is None else {"fake": venue, beside.name: beside}
    recorder = Recorder(
        Settings(capture_flush_s=0.05, poll_interval_s=0.03),
        lake,
        Clock(),
        "run",
        {name: markets(*ids) if name == "fake" else [] for name in venues},
        venues=venues,
        backoff_s=(0.02, 0.1),
        universe=told,
        shard=shard,
    )
    stop: asyncio.Event = asyncio.Event()
    statuses: asyncio.Queue[CaptureStatus] = asyncio.Queue()
    return Running(asyncio.create_task(recorder.run(stop, statuses.put)), stop, statuses)


def snap(market: str) -> str:
    return json.dumps(["snap", market, [[4_000, 5_000_000]], [[4_200, 6_000_000]]])


async def test_markets_come_and_go_on_a_connection_that_lasts(lake: Lake) -> None:
    told = Told()
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url, group=2), told, "M")
        ws = await exchange.subscribed()
        await ws.send(snap("M"))
        told.next = Revision(markets("N", "M"))
        assert await exchange.subscribed(2) is ws
        assert exchange.received[-1] == ["subscribe", ["N"]], "what is captured already stays as it is"
        await ws.send(snap("N"))
        await running.until(lambda status: status.frames >= 2 and status.venues["fake"].markets == 2)
        told.next = Revision(markets("O"), ["M", "unknown"])
        assert await exchange.subscribed(3) is ws, "its room is free again"
        assert exchange.received[-2:] == [["unsubscribe", ["M"]], ["subscribe", ["O"]]]
        told.next = Revision(markets("P"))
        other = await exchange.subscribed(4)
        assert other is not ws, "the first one is full"
        status = await running.until(lambda status: status.venues["fake"].connections == 2)
        assert status.venues["fake"].markets == 3
        told.next = Revision((), ["P"])
        async with asyncio.timeout(5):
            await other.wait_closed()
        await running.until(lambda status: status.venues["fake"].connections == 1)
        assert not ws.close_code
        summary = await running.end()
    assert summary.venues["fake"].reconnects == 0
    assert set(fold(every(lake, "book_events"))) == {"M", "N"}
    ended = {row["market_id"]: row["recovery"] for row in every(lake, "book_gaps")}
    assert ended == {"M": "snapshot", "N": "snapshot", "O": "end_of_capture", "P": "unsubscribed"}


async def test_a_connection_that_is_lost_comes_back_with_the_markets_of_then(lake: Lake) -> None:
    told = Told()
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url), told, "M", "N")
        ws = await exchange.subscribed()
        told.next = Revision(markets("O"), ["M"])
        await exchange.subscribed(2)
        ws.transport.abort()
        await exchange.subscribed(3)
        assert exchange.received[-1] == ["subscribe", ["N", "O"]]
        await running.end()


async def test_a_venue_without_markets_takes_those_that_come(lake: Lake) -> None:
    told = Told()
    told.venue = "other"
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url), told, "M", beside=OtherVenue(exchange.url))
        await exchange.subscribed()
        told.next = Revision(markets("N"))
        await exchange.subscribed(2)
        assert exchange.received[-1] == ["subscribe", ["N"]]
        summary = await running.end()
    assert summary.venues["other"].markets == 1
    assert told.closed


async def test_life_cycle_messages_reach_the_universe_at_once(lake: Lake) -> None:
    told = Told(interval_s=3_600)
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url), told, "M")
        ws = await exchange.subscribed()
        told.next = Revision(markets("N"))
        await ws.send(json.dumps(["change", "N", "created"]))
        await exchange.subscribed(2)
        assert [(change.market_id, change.kind) for change in told.changes] == [("N", "created")]
        await running.end()


async def test_polled_markets_come_and_go(lake: Lake) -> None:
    told, polling = Told(), FakePolling()
    polling.answers = dict.fromkeys("MNO", b"[[[4000, 5]], [[4200, 6]]]")
    running = begin(lake, PolledVenue(polling), told, "M")
    await running.until(lambda status: status.venues["fake"].rows.get("quotes", 0) >= 1)
    told.next = Revision(markets("N", "O"))
    await running.until(lambda status: status.venues["fake"].rows.get("quotes", 0) >= 3)
    told.next = Revision((), ["M", "O"])
    await running.until(lambda status: status.venues["fake"].markets == 1)
    asked = len(polling.calls)
    await running.until(lambda _: len(polling.calls) >= asked + 3)
    assert polling.calls[-1] == ["N"]
    await running.end()
    assert {row["cause"] for row in every(lake, "book_gaps")} == {"no_snapshot"}


async def test_a_shard_takes_its_part_of_what_comes(lake: Lake) -> None:
    told = Told()
    async with fake_exchange() as exchange:
        running = begin(lake, FakeVenue(exchange.url), told, *"ABCDEF", shard=(0, 2))
        await exchange.subscribed()
        told.next = Revision(markets(*"GHIJKLMNOP"))
        await exchange.subscribed(2)
        taken = [market for frame in exchange.received if frame[0] == "subscribe" for market in frame[1]]
        assert 0 < len(taken) < 16
        await running.end()


class AwayVenue(FakeVenue):
    """Has planned to be away, all the time."""

    def maintenance(self, at: datetime) -> tuple[datetime, datetime] | None:
        return at - timedelta(hours=1), at + timedelta(hours=1)


async def test_a_connection_lost_in_a_planned_pause_says_so(lake: Lake) -> None:
    async with fake_exchange() as exchange:
        running = begin(lake, AwayVenue(exchange.url), Told(), "M")
        for number in (1, 2):
            ws = await exchange.subscribed(number)
            await ws.send(snap("M"))
            await running.until(lambda status, n=number: status.frames >= n)  # type: ignore[misc]
            if number == 1:
                ws.transport.abort()
        await running.end()
    assert sorted(row["cause"] for row in every(lake, "book_gaps")) == ["maintenance", "no_snapshot"]
