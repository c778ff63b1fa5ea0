"""From receipt to disk: ``python -m bench.durable --rates 5000 50000 --seconds 20``.

Frames of the local exchange's Kalshi feed, made beforehand, go through a capture's own path in this process: journal
first, then the session with all its decoding. Measured is the time from a frame's receive time to the return of the
fsync that made it durable. Beside it stands the rate that was really reached: the frames come from the same thread,
so a process that cannot keep up is slower, not later. Exits with 1 if the 99th percentile exceeds 150 ms at some rate.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from arb_pipeline.capture import live
from arb_pipeline.capture.journal import Begun, Frame, JournalWriter, Record
from arb_pipeline.capture.live import LiveFeed, RunJournal, begun_settings
from arb_pipeline.exchange import Exchange, GeneratedSource
from arb_pipeline.exchange.connections import Connection, SentLog
from arb_pipeline.exchange.kalshi_feed import KalshiClient
from arb_pipeline.exchange.source import LevelChange, TradePrint
from arb_pipeline.model import MarketFacts, Send
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.venues import venue
from arb_pipeline.venues.base import Session

TARGET_MS = 150.0
_BLOCK = 50_000
_PAUSE_S = 0.001
_VENUE = "kalshi"


@dataclass(frozen=True)
class Durability:
    """What a run at one rate came to: frames per second asked for and reached, and ms from receipt to fsync."""

    asked: float
    reached: float
    frames: int
    megabytes_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    syncs: int

    def line(self) -> str:
        """A row of the printed table."""
        verdict = "ok" if self.p99_ms <= TARGET_MS else f"above {TARGET_MS:g}"
        return (
            f"{self.asked:>9,.0f} {self.reached:>9,.0f} {self.frames:>10,} {self.megabytes_per_s:>6.1f} "
            f"{self.p50_ms:>8.1f} {self.p99_ms:>8.1f} {self.max_ms:>8.1f} {self.syncs:>6}  {verdict}"
        )


class _TimedWriter(JournalWriter):
    """A journal that notes when what it took became durable."""

    received: list[int]
    synced: list[tuple[int, int]]
    """Frames that were certainly durable, and when."""

    def __init__(self, folder: Path, flush_s: float = 0.1) -> None:
        self.received, self.synced = [], []
        super().__init__(folder, flush_s)

    def append(self, record: Record) -> None:
        super().append(record)
        if isinstance(record, Frame):
            self.received.append(record.at_ns)

    def sync(self) -> None:
        # What comes in between this and the write is durable too, but counted with the next one.
        there = len(self.received)
        super().sync()
        if not self.error:
            self.synced.append((there, time.time_ns()))

    def delays_ms(self) -> npt.NDArray[np.float64]:
        """From receipt to fsync, by frame."""
        received = np.array(self.received, dtype=np.int64)
        counts, times = np.array(self.synced, dtype=np.int64).T
        durable = times[np.searchsorted(counts, np.arange(1, len(received) + 1))]
        return np.asarray((durable - received) / 1e6, dtype=np.float64)


class _Line(Connection):
    """A socket that only collects."""

    def __init__(self) -> None:
        self.sent = SentLog("line-1", keep=0)
        self.frames: list[str] = []

    def send(self, text: str, kind: str) -> None:  # noqa: ARG002 - as its base
        self.frames.append(text)

    def send_data(self, text: str, kind: str, market_id: str) -> None:  # noqa: ARG002 - as its base
        self.frames.append(text)


def made_frames(settings: Settings, count: int) -> tuple[list[MarketFacts], list[str]]:
    """Markets of a generated exchange, and what it answers a session that subscribes them: so many frames."""
    source = GeneratedSource(seed=7)
    feed, line = Exchange(source).kalshi, _Line()
    client = KalshiClient(line)
    feed.clients.append(client)
    markets = [MarketFacts(venue=_VENUE, market_id=ticker) for ticker in feed.markets if ticker not in feed.hidden]
    session = _session(settings)
    for output in [*session.connected(0), *session.subscribe(markets, 0)]:
        if isinstance(output, Send):
            feed.command(client, output.frame)
    for _, action in source.timeline():
        if isinstance(action, LevelChange) and action.market_id in feed.markets:
            feed.change_level(action)
        elif isinstance(action, TradePrint) and action.market_id in feed.markets:
            feed.trade(action)
        if len(line.frames) >= count:
            break
    return markets, line.frames[:count]


def _session(settings: Settings) -> Session:
    return venue(_VENUE).session("durable", settings)


async def measure(
    rate: float, seconds: float, folder: Path, settings: Settings, made: tuple[list[MarketFacts], list[str]]
) -> Durability:
    """Feed frames at a rate; after the last one made, a fresh connection begins with the first."""
    markets, frames = made
    begun = Begun("durable", (0, 1), time.time_ns(), (None, None), "bench", begun_settings(settings))
    own = settings.model_copy(update={"journal": folder / "journal"})
    with patch.object(live, "JournalWriter", _TimedWriter):
        journal = RunJournal(own, Lake(str(folder / "lake")), {_VENUE: venue(_VENUE)}, begun, f"durable-{rate:.0f}")
        async with journal.opened():
            writer = journal.writer
            assert isinstance(writer, _TimedWriter)
            feed = LiveFeed(journal, _session(settings), "durable", lambda _: None)
            began = time.perf_counter()
            number = size = 0
            while (elapsed := time.perf_counter() - began) < seconds:
                for _ in range(int(elapsed * rate) - number):
                    place = number % len(frames)
                    if not place:
                        feed.open(f"durable.{number}", time.time_ns(), markets)
                    feed.receive(frames[place], time.time_ns())
                    size += len(frames[place])
                    number += 1
                    if time.perf_counter() - began >= seconds:
                        break
                await asyncio.sleep(_PAUSE_S)
            took = time.perf_counter() - began
    delays = writer.delays_ms()
    p50, p99 = np.percentile(delays, [50, 99])
    worst = float(delays.max())
    return Durability(rate, number / took, number, size / took / 1e6, float(p50), float(p99), worst, len(writer.synced))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each rate and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rates", type=float, nargs="+", default=[5_000, 50_000], help="frames per second")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each run")
    parser.add_argument("--folder", type=Path, default=Path(), help="a folder of the disk to measure")
    options = parser.parse_args(arguments)
    settings = Settings()
    made = made_frames(settings, _BLOCK)
    print(f"journal written and fsynced every {settings.flush_ms:g} ms; target: p99 <= {TARGET_MS:g} ms")
    print("  asked/s reached/s     frames   MB/s   p50 ms   p99 ms   max ms fsyncs")
    missed = False
    for rate in options.rates:
        with tempfile.TemporaryDirectory(prefix=".durable-", dir=options.folder) as folder:
            found = asyncio.run(measure(rate, options.seconds, Path(folder), settings, made))
        print(found.line(), flush=True)
        missed = missed or found.p99_ms > TARGET_MS
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
