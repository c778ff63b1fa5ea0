"""A recording gives one set of tables, whichever way it goes: replayed, or served by the exchange and captured live.

What a market's rows say, and their order, must be equal. What may differ, because it belongs to how the frames came:

- ``recv_ns``, ``connection_id`` and ``ordinal``: who received it, and when. ``seq``: Kalshi counts the frames of each
  subscription, and those are the capture's own. Where a live capture is compared with the replay of *its own*
  recording, the frames are the very same, and only ordinals and the names of connections differ.
- Hour boundaries: the books that open an hour stand in the hours of receipt, so they are left aside.
- ``book_gaps``: live, a market is in doubt from its subscription to its first snapshot (``no_snapshot``). A recording
  does not tell what was subscribed, so its replay has no such row; any other doubt must be in both.
- Markets with a recorded REST book and no recorded frame have a book at the exchange, and no row in a replay.

The exchange plays a recording from the first subscription on, having each market's first snapshot as its book, so
nothing comes before a subscription as long as one connection takes all: of two venues, one is captured at a time. A
replay runs no ticks and carries out no command; the exchange plays answers to the recorded capture's commands to all,
so that they are not missed, and none of these captures lasts long enough for a deadline of its own.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from arb_pipeline import pipeline
from arb_pipeline.capture.export import Exported, export
from arb_pipeline.capture.journal import RunFolder, journal_root
from arb_pipeline.capture.recorder import Recorder
from arb_pipeline.capture.replay import replay
from arb_pipeline.capture.summary import CaptureStatus, CaptureSummary
from arb_pipeline.exchange import Exchange, GeneratedSource, RecordingSource, Source, start
from arb_pipeline.recordings import Recording
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import HOUR_NS, Lake
from arb_pipeline.tables import table
from arb_pipeline.venues import VENUES
from arb_pipeline_tests.capture.fakes import every, fold
from arb_pipeline_tests.capture.test_replay import book_digest, quotes_digest

TABLES = ("book_events", "quotes", "trades", "tickers")
RECEIVED = frozenset({"recv_ns", "connection_id", "ordinal", "seq"})
FASTEST = float("inf")
MARKETS = 12
FRAMES = 800

Series = dict[str, list[tuple[Any, ...]]]


def frames_sent(exchange: Exchange) -> int:
    """How many frames the open sockets have been sent."""
    return sum(connection.sent.number for connection in exchange._open)


async def captured(
    source: Source,
    folder: Path,
    venues: tuple[str, ...],
    enough: Callable[[Exchange, CaptureStatus], bool],
    speed: float = FASTEST,
    **changes: Any,
) -> tuple[Lake, CaptureSummary]:
    """Serve a source, capture it with journal and encoder until it is enough, and return the finished lake."""
    async with await start(source, speed=speed, ticker_s=0.1) as exchange:
        given = {name.removeprefix("ARB_").lower(): value for name, value in exchange.environment().items()}
        own = {"lake": str(folder), "listeners_path": folder / "none.yaml", "capture_venues": venues}
        settings = Settings(**{**given, **own, "capture_flush_s": 0.2, "capture_max_markets": MARKETS, **changes})
        lake = Lake(settings.lake, settings.exchange_name)
        for venue in venues:
            await pipeline.discover(venue, settings, lake)
        recorder = Recorder(settings, lake, settings.clock, "live", pipeline.universe(settings, lake, venues))
        stop = asyncio.Event()

        async def on_progress(status: CaptureStatus) -> None:
            if enough(exchange, status):
                stop.set()

        async with asyncio.timeout(90):
            summary = await recorder.run(stop, on_progress)
            # A slow encoder is not waited for by a run that is stopped, and finishes by itself.
            while RunFolder.all(journal_root(None, lake.root) / "runs"):  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(0.05)
    return lake, summary


def all_received(exchange: Exchange, status: CaptureStatus) -> bool:
    """Whether the recording is over, and everything that was sent of it is in the lake."""
    return exchange.player.finished.is_set() and status.frames >= frames_sent(exchange)


def series(lake: Lake, name: str, without: frozenset[str] = RECEIVED, venue: str | None = None) -> Series:
    """What a table says of each market, in order, but for some columns and the books that open an hour."""
    columns = [column for column in table(name).column_names if column not in without]
    found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    rows = lake.read(name, venue=venue).sort_by([("recv_ns", "ascending"), ("ordinal", "ascending")])
    for row in rows.to_pylist():
        if name != "book_events" or row["kind"] == "delta" or row["recv_ns"] % HOUR_NS:
            found[row["market_id"]].append(tuple(row[column] for column in columns))
    return dict(found)


def doubts(lake: Lake, venue: str | None = None) -> list[tuple[str, str, int, int]]:
    """Intervals of doubt, but for the wait for a first snapshot."""
    rows = lake.read("book_gaps", venue=venue).to_pylist()
    return sorted(
        (row["market_id"], row["cause"], row["from_ns"], row["to_ns"]) for row in rows if row["cause"] != "no_snapshot"
    )


@pytest.mark.parametrize(
    ("name", "venue"),
    [("kalshi-btc15m", "kalshi"), ("kalshi-gold15m", "kalshi"), ("crossvenue-202607", "polymarket")],
)
async def test_a_real_recording_gives_the_same_tables_live_and_replayed(
    recordings: Path, tmp_path: Path, name: str, venue: str
) -> None:
    recording = Recording.open(recordings / name)
    live, summary = await captured(
        RecordingSource(recording), tmp_path / "live", (venue,), all_received, capture_max_markets=100
    )
    assert (summary.stop_reason, summary.venues[venue].reconnects) == ("stopped", 0)
    replayed = Lake(str(tmp_path / "replayed"))
    replay(recording, replayed, Settings(lake=replayed.root))
    heard = set(series(replayed, "book_events"))
    assert heard
    for table_name in TABLES:
        taken = {market: rows for market, rows in series(live, table_name).items() if market in heard}
        assert taken == series(replayed, table_name), table_name
    assert {row["cause"] for row in every(live, "book_gaps")} == {"no_snapshot"}
    assert every(replayed, "book_gaps") == []
    if (recording.path / "expected.json").exists():
        meets_digests(live, recording.path / "expected.json")


def meets_digests(lake: Lake, expected: Path) -> None:
    """Whether quotes and final books are those that an independent fold of the recording came to."""
    books = fold(every(lake, "book_events"))
    quotes = lake.read("quotes").sort_by([("recv_ns", "ascending"), ("ordinal", "ascending")]).to_pylist()
    for market, told in json.loads(expected.read_text())["markets"].items():
        own = [row for row in quotes if row["market_id"] == market]
        assert quotes_digest(own) == (told["top_changes"], told["quotes_sha256"])
        assert book_digest(books[market]) == told["sha256"]


# --- a recording of one's own ------------------------------------------------------------------------------


@dataclass
class Made:
    """A live capture of a generated market, with several connections and subscriptions, and its recording."""

    lake: Lake
    exported: Exported


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("determinism")
    own = {"polymarket_assets_per_connection": 5, "kalshi_markets_per_sid": 5}

    def enough(_: Exchange, status: CaptureStatus) -> bool:
        return all(venue.frames >= FRAMES for venue in status.venues.values())

    source = GeneratedSource(seed=11, events=24)
    lake, _ = asyncio.run(captured(source, folder / "lake", ("kalshi", "polymarket"), enough, speed=20, **own))
    return Made(lake, export(lake, folder / "made"))


def test_a_capture_and_the_replay_of_its_recording_differ_in_names_only(made: Made, tmp_path: Path) -> None:
    replayed = Lake(str(tmp_path / "replayed"), made.exported.exchange)
    replay(Recording.open(made.exported.path), replayed, Settings(lake=replayed.root))
    named = frozenset({"connection_id", "ordinal"})
    for name in TABLES:
        assert series(made.lake, name), name
        assert series(replayed, name, named) == series(made.lake, name, named), name
    assert doubts(replayed) == doubts(made.lake)
    frames = made.lake.read("raw_frames").to_pylist()
    assert len({row["connection_id"] for row in frames if row["venue"] == "polymarket"}) > 1
    assert sorted((row["connection_id"], row["recv_ns"], row["frame"]) for row in every(replayed, "raw_frames")) == (
        sorted((f"replay-made/{row['venue']}/{row['connection_id']}", row["recv_ns"], row["frame"]) for row in frames)
    )


@pytest.mark.parametrize("venue", ["kalshi", "polymarket"])
async def test_a_recording_captured_again_gives_the_tables_of_the_first_capture(
    made: Made, venue: str, tmp_path: Path
) -> None:
    alone = export(made.lake, tmp_path / "alone", venues={venue: VENUES[venue]})
    again, summary = await captured(
        RecordingSource(Recording.open(alone.path)), tmp_path / "again", (venue,), all_received
    )
    assert (summary.venues[venue].reconnects, summary.venues[venue].connections) == (0, 1)
    for name in TABLES:
        assert series(again, name) == series(made.lake, name, venue=venue), name
    assert doubts(again) == doubts(made.lake, venue)
