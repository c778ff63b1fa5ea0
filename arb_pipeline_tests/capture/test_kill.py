"""Capture of the local exchange, killed at random moments: nothing that was sent in time is lost or there twice."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from arb_pipeline.capture.journal import RunFolder, journal_root
from arb_pipeline.exchange import GeneratedSource, start
from arb_pipeline.exchange.connections import Connection
from arb_pipeline.pipeline import discover
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.tables import TABLES
from arb_pipeline.units import parse_price
from arb_pipeline_tests.capture.fakes import every, fold

CAPTURE = """
from arb_pipeline.pipeline import capture
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake

settings = Settings()
print(capture(settings, Lake(settings.lake, settings.exchange_name)).to_json(), flush=True)
"""
FLUSH_S = 0.1
VENUES = ("kalshi", "polymarket")


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


class Sockets:
    """Every connection that the exchange ever had, in order, with all it sent."""

    def __init__(self, exchange: Any) -> None:
        self.exchange = exchange
        self.seen: dict[Connection, None] = {}

    def look(self) -> dict[str, list[Connection]]:
        self.seen.update(self.exchange._open)
        return {venue: [each for each in self.seen if each.venue == venue] for venue in VENUES}


def run(environment: dict[str, str]) -> "asyncio.Future[asyncio.subprocess.Process]":
    return asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            sys.executable, "-c", CAPTURE, env=environment, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
    )


@pytest.mark.slow
async def test_killed_three_times_it_has_every_frame_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    moments = random.Random(20)
    async with await start(GeneratedSource(seed=7, duration_s=25), log_frames=1_000_000, ticker_s=0.5) as exchange:
        for name, value in {
            **exchange.environment(),
            "ARB_CAPTURE_MAX_MARKETS": "60",
            "ARB_CAPTURE_FLUSH_S": "0.5",
            "ARB_FLUSH_MS": str(FLUSH_S * 1e3),
        }.items():
            monkeypatch.setenv(name, value)
        settings = Settings()
        lake = Lake(settings.lake, settings.exchange_name)
        for venue in VENUES:
            await discover(venue, settings, lake)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        runs = journal_root(settings.journal, lake.root) / "runs"
        sockets = Sockets(exchange)
        due: dict[Connection, int] = {}
        for number in range(1, 4):
            process = await run(environment)
            await until(lambda n=number: min(map(len, sockets.look().values())) >= n, "connected")  # type: ignore[misc]
            await until(lambda n=number: all(s[n - 1].log for s in sockets.look().values()), "frames")  # type: ignore[misc]
            await asyncio.sleep(moments.uniform(0.5, 3))
            due |= {connection: len(connection.log) for connection in exchange._open}
            # Twice the interval, and what a busy machine may add to it.
            await asyncio.sleep(2 * FLUSH_S + 0.5)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        last = await run(environment)
        await until(lambda: min(map(len, sockets.look().values())) >= 4, "connected")
        await until(exchange.player.finished.is_set, "playback")
        await until(lambda: len(RunFolder.all(runs)) == 1, "journals of the killed runs are finished")
        sent = {connection: len(connection.log) for connection in exchange._open}
        await asyncio.sleep(1)
        due |= sent
        last.send_signal(signal.SIGTERM)
        out, _ = await last.communicate()
        assert last.returncode == 0, out
        books = {
            market_id: (dict(market.book.bid_levels()), dict(market.book.ask_levels()))
            for feed in (exchange.kalshi, exchange.polymarket)
            for market_id, market in feed.markets.items()
        }
    assert RunFolder.all(runs) == []
    check_frames(lake, sockets.look(), due)
    check_books(lake, books)
    for name in TABLES:
        lake.read(name)


def check_frames(lake: Lake, sockets: dict[str, list[Connection]], due: dict[Connection, int]) -> None:
    frames = sorted(every(lake, "raw_frames"), key=lambda row: row["ordinal"])
    sessions = sorted(every(lake, "capture_sessions"), key=lambda row: row["started_at"])
    gaps = every(lake, "book_gaps")
    for venue, connections in sockets.items():
        own = [row for row in sessions if row["venue"] == venue]
        assert [row["stop_reason"] for row in own] == ["killed"] * 3 + ["stopped"]
        assert len(connections) == len(own)
        for connection, session in zip(connections, own, strict=True):
            ours = [
                row["frame"]
                for row in frames
                if row["connection_id"] == session["connection_id"] and row["source"] == "ws"
            ]
            assert len(ours) >= due[connection] > 0
            assert ours == list(islice(connection.log, len(ours)))
        for before, after in pairwise(own):
            outages = [gap for gap in gaps if gap["connection_id"] == before["connection_id"]]
            outages = [gap for gap in outages if gap["cause"] == "outage"]
            assert len({gap["market_id"] for gap in outages}) == before["markets"] > 0
            started_ns = round(after["started_at"].timestamp() * 1e9)
            assert all(gap["from_ns"] < gap["to_ns"] < started_ns for gap in outages)


def check_books(lake: Lake, books: dict[str, Any]) -> None:
    captured = fold(every(lake, "book_events"))
    assert len(captured) > 60
    for market_id, sides in captured.items():
        scaled = tuple({parse_price(str(price)): int(size.scaleb(6)) for price, size in side.items()} for side in sides)
        assert scaled == books[market_id], market_id
