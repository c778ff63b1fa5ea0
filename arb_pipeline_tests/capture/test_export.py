"""Recordings made from captures: what the local exchange sent, out of the lake, through replay and exchange again."""

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from arb_pipeline import pipeline
from arb_pipeline.capture import live
from arb_pipeline.capture.export import Exported, export
from arb_pipeline.capture.replay import replay
from arb_pipeline.cli import app
from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.errors import ArbError
from arb_pipeline.exchange import Exchange, GeneratedSource, RecordingSource, Source, start
from arb_pipeline.recordings import Recording, RecordingError
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table
from arb_pipeline.venues import VENUES
from arb_pipeline_tests.capture.fakes import fold

MARKETS = 12


@contextmanager
def served(source: Source) -> Iterator[Exchange]:
    """A local exchange in a thread of its own: a capture needs the main thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="exchange")
    thread.start()
    try:
        exchange = asyncio.run_coroutine_threadsafe(start(source), loop).result(60)
        try:
            yield exchange
        finally:
            asyncio.run_coroutine_threadsafe(exchange.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def settings_for(exchange: Exchange, folder: Path, **changes: Any) -> Settings:
    given = {name.removeprefix("ARB_").lower(): value for name, value in exchange.environment().items()}
    own: dict[str, Any] = {
        "lake": str(folder),
        "capture_flush_s": 0.5,
        "capture_max_markets": MARKETS,
        "max_seconds": 3,
    }
    return Settings(**{**given, "listeners_path": folder / "none.yaml", **own, **changes})


def discovered(settings: Settings) -> Lake:
    lake = Lake(settings.lake, settings.exchange_name)
    for venue in settings.capture_venues:
        asyncio.run(pipeline.discover(venue, settings, lake))
    return lake


@dataclass
class Made:
    """A capture, and the recording of it."""

    lake: Lake
    settings: Settings
    exported: Exported


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("export")
    with served(GeneratedSource(seed=7)) as exchange:
        settings = settings_for(exchange, folder / "lake")
        lake = discovered(settings)
        pipeline.capture(settings, lake)
    return Made(lake, settings, export(lake, folder / "made"))


def series(lake: Lake, name: str, venue: str | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """What a table says of each market, in order, without how it was received."""
    received = {"recv_ns", "ordinal", "connection_id", "seq", "epoch", "venue_ns"}
    columns = [column for column in table(name).column_names if column not in received]
    rows = lake.read(name, venue=venue)
    by_market = defaultdict(list)
    for row in rows.sort_by([("recv_ns", "ascending"), ("ordinal", "ascending")]).to_pylist():
        by_market[row["market_id"]].append(tuple(row[column] for column in columns))
    return dict(by_market)


def exact(lake: Lake, name: str) -> list[dict[str, Any]]:
    """A table's rows without ordinals and connections, in the order of receipt."""
    rows = lake.read(name).sort_by([("venue", "ascending"), ("recv_ns", "ascending"), ("ordinal", "ascending")])
    return list(rows.drop_columns(["ordinal", "connection_id"]).to_pylist())


def final_books(lake: Lake, venue: str | None = None) -> dict[str, Any]:
    return fold(lake.read("book_events", venue=venue).to_pylist())


def test_replaying_the_recording_gives_the_tables_of_the_capture(made: Made, tmp_path: Path) -> None:
    again = Lake(str(tmp_path / "again"))
    recording = Recording.open(made.exported.path)
    summary = replay(recording, again, Settings(lake=again.root))
    again = again.with_exchange(made.settings.exchange_name)
    assert {name: venue.frames for name, venue in summary.venues.items()} == dict(made.exported.frames)
    for name in ("quotes", "trades", "book_events"):
        rows = exact(made.lake, name)
        assert rows, name
        assert exact(again, name) == rows, name
    books = final_books(made.lake)
    assert len(books) == 2 * MARKETS
    assert final_books(again) == books


def test_recording_tells_its_markets_and_its_origin(made: Made) -> None:
    recording = Recording.open(made.exported.path)
    assert recording.meta == {"venues": ["kalshi", "polymarket"], "use_yes_price": False, "exchange": True}
    assert made.exported.exchange == made.settings.exchange_name
    assert made.exported.markets == {"kalshi": MARKETS, "polymarket": MARKETS}
    raw = {row["market_id"]: json.loads(row["raw"]) for row in made.lake.current("markets").to_pylist()}
    captured = set(final_books(made.lake))
    for venue, key in (("kalshi", "ticker"), ("polymarket", "conditionId")):
        nested = [market for event in recording.events(venue) for market in event["markets"]]
        assert {market[key] for market in nested} == {name for name in captured if raw[name].get(key)}
        assert all(market == raw[market[key]] for market in nested)
        times = [frame.recv_ns for frame in recording.frames(venue)]
        assert times == sorted(times)


@pytest.mark.parametrize("venue", ["kalshi", "polymarket"])
def test_recording_served_by_the_exchange_and_captured_again_gives_the_same_series(
    made: Made, venue: str, tmp_path: Path
) -> None:
    # One venue at a time: playback starts with the first subscription, and a later one would miss a few frames.
    alone = export(made.lake, tmp_path / "alone", venues={venue: VENUES[venue]})
    with served(RecordingSource(Recording.open(alone.path))) as exchange:
        settings = settings_for(exchange, tmp_path / "lake", capture_venues=(venue,), max_seconds=4)
        discovered(settings)
        lake = Lake(settings.lake, settings.exchange_name)
        _, recorded = pipeline.record(settings, lake, tmp_path / "second")
    assert lake.partitions("raw_frames") == [], "a recording leaves the lake as it is"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "nor anything beside itself"
    assert recorded.frames[venue] > 0
    again = Lake(str(tmp_path / "again"))
    replay(Recording.open(recorded.path), again, Settings(lake=again.root))
    for name in ("quotes", "trades"):
        assert series(again, name, venue) == series(made.lake, name, venue), name
    assert final_books(again, venue) == final_books(made.lake, venue)


def test_a_recording_has_what_a_slow_encoder_had_not_written_when_the_capture_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def no_patience(_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(live._EncoderProcess, "final", no_patience)
    with served(GeneratedSource(seed=7)) as exchange:
        settings = settings_for(
            exchange, tmp_path / "lake", capture_venues=("kalshi",), max_seconds=2, capture_flush_s=3600
        )
        discovered(settings)
        _, recorded = pipeline.record(settings, Lake(settings.lake, settings.exchange_name), tmp_path / "made")
    # The first frames and the last second's.
    times = [frame.recv_ns for frame in Recording.open(recorded.path).frames("kalshi")]
    assert max(times) - min(times) > 1e9
    assert {path.name for path in tmp_path.iterdir()} == {"lake", "made"}, "nothing is left beside it"


def test_same_lake_gives_the_same_bytes_and_a_full_folder_is_refused(made: Made, tmp_path: Path) -> None:
    second = export(made.lake, tmp_path / "again")
    for path in sorted(made.exported.path.rglob("*.*")):
        assert (second.path / path.relative_to(made.exported.path)).read_bytes() == path.read_bytes(), path
    with pytest.raises(RecordingError, match="is there already"):
        export(made.lake, second.path)
    with pytest.raises(RecordingError, match="is there already"):
        pipeline.record(made.settings, made.lake, second.path)


def test_window_and_run_choose_the_frames(made: Made, tmp_path: Path) -> None:
    times = sorted(made.lake.read("raw_frames")["recv_ns"].to_pylist())
    low, high = times[len(times) // 3], times[2 * len(times) // 3]
    part = export(made.lake, tmp_path / "part", low, high)
    kept = [frame.recv_ns for _, frame in Recording.open(part.path).all_frames()]
    assert kept == [time for time in times if low <= time < high]
    [run_id] = set(made.lake.read("capture_sessions")["run_id"].to_pylist())
    assert export(made.lake, tmp_path / "run", runs=[run_id]).frames == made.exported.frames
    with pytest.raises(ArbError, match="no frames of that time and run"):
        export(made.lake, tmp_path / "none", runs=["another"])
    with pytest.raises(ArbError, match="no frames of that time and run"):
        export(made.lake, tmp_path / "late", datetime_from_ns(times[-1]) + timedelta(hours=2))
    assert not (tmp_path / "none").exists()


def test_command_exports_what_a_lake_holds(made: Made, tmp_path: Path) -> None:
    day = made.lake.read("raw_frames")["recv_ns"][0].as_py()
    since = datetime_from_ns(day).strftime("%Y-%m-%dT00:00:00")
    words = ["record", str(tmp_path / "out"), "--from-lake", made.lake.root, "--venue", "kalshi", "--start", since]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["frames"] == {"kalshi": made.exported.frames["kalshi"]}
    assert Recording.open(tmp_path / "out").venues == ("kalshi",)
    refused = CliRunner().invoke(app, ["record", str(tmp_path / "other"), "--start", since])
    assert isinstance(refused.exception, ArbError)
    assert "--from-lake" in str(refused.exception)


def rest_rows(recv_ns: int) -> pa.Table:
    sources = ("ws", "rest")
    rows = [
        {
            "venue": "kalshi",
            "source": source,
            "connection_id": "a/kalshi/0.1",
            "recv_ns": recv_ns + number,
            "ordinal": number,
            "frame": json.dumps({"source": source}),
        }
        for number, source in enumerate(sources)
    ]
    return pa.Table.from_pylist(rows, schema=table("raw_frames").schema)


def test_answers_over_rest_are_left_out_and_counted_and_origins_never_mixed(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    at = 1_780_000_000_000_000_000
    lake.write_part("raw_frames", Partition.of("raw_frames", "kalshi", at), rest_rows(at), "w")
    made = export(lake, tmp_path / "out")
    assert (made.frames, made.rest_left_out) == ({"kalshi": 1}, {"kalshi": 1})
    assert [frame.frame for frame in Recording.open(made.path).frames("kalshi")] == ['{"source": "ws"}']
    assert Recording.open(made.path).meta["exchange"] is False
    later = at + 2 * 3_600_000_000_000
    other = lake.with_exchange("local exchange: other")
    other.write_part("raw_frames", Partition.of("raw_frames", "kalshi", later), rest_rows(later), "w")
    with pytest.raises(ArbError, match="narrow the window"):
        export(lake, tmp_path / "mixed")
