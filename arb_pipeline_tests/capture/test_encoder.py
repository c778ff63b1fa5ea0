import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arb_pipeline.capture.encoder import Encoder, Report, recover
from arb_pipeline.capture.feed import Feed
from arb_pipeline.capture.journal import (
    Begun,
    Ended,
    FeedAdded,
    Frame,
    JournalError,
    JournalWriter,
    Lost,
    Opened,
    Record,
    RestBook,
    RunFolder,
    Tick,
)
from arb_pipeline.capture.live import begun_settings
from arb_pipeline.capture.rows import RowWriter
from arb_pipeline.model import MarketFacts
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline_tests.capture.fakes import FakeSession, FakeVenue, every

S = 1_000_000_000
HOUR = 3_600 * S
START = 1_780_000_000 * S // HOUR * HOUR + 60 * S
TABLES = ("raw_frames", "book_events", "quotes", "trades", "tickers", "book_gaps", "capture_sessions")
MARKETS = (MarketFacts(venue="fake", market_id="M"), MarketFacts(venue="fake", market_id="N"))
VENUES = {"fake": FakeVenue()}


def frame(second: float, *content: object) -> Frame:
    return Frame(0, START + round(second * S), json.dumps(content))


FIRST = Begun("run", (0, 1), START, (None, None), "a fake exchange", begun_settings(Settings()))
FEED = FeedAdded(0, "fake", "run/fake/0")
BEGUN: list[Record] = [FIRST, FEED]
INPUTS: list[Record] = [
    Opened(0, START + S, "run/fake/0.1", MARKETS),
    frame(2, "snap", "M", [[4000, 5_000_000]], [[4200, 2_000_000]]),
    frame(3, "delta", "M", "bid", 4100, 7_000_000),
    frame(4, "trade", "M", "t1", 410_000_000, 1_000_000),
    Frame(0, START + 5 * S, "<html>"),
    RestBook(0, START + 6 * S, "N", b"[[[1000, 1000000]], []]"),
    frame(7, "gap", "N", "silence"),
    Tick(0, START + 8 * S),
    Lost(0, START + 9 * S, "reset"),
    Opened(0, START + 10 * S, "run/fake/0.2", MARKETS),
    frame(11, "snap", "M", [[4000, 6_000_000]], []),
    Tick(0, START + HOUR),
    frame(3_700, "delta", "M", "ask", 4300, 7_000_000),
]
ENDED = Ended(START + 3_800 * S, "stopped")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "journal" / "runs" / "run-1")
    folder.path.mkdir(parents=True)
    return folder


def write(folder: RunFolder, *records: Record) -> JournalWriter:
    writer = JournalWriter(folder.path, 60)
    for record in records:
        writer.append(record)
    writer.sync()
    return writer


def tables(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    return {name: every(lake, name) for name in TABLES}


def straight(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    """The tables that the same inputs give without a journal."""
    rows = RowWriter("run", START, exchange="a fake exchange")
    feed = Feed(FakeSession("run/fake/0"), rows, since_ns=START)
    for record in INPUTS:
        if isinstance(record, Opened):
            feed.open(record.connection_id, record.at_ns, record.markets)
        elif isinstance(record, Frame):
            feed.receive(record.frame, record.at_ns)
        elif isinstance(record, RestBook):
            feed.rest_book(record.market_id, record.body, record.at_ns)
        elif isinstance(record, Lost):
            feed.lost(record.at_ns, record.cause)
        elif isinstance(record, Tick):
            feed.tick(record.at_ns)
    feed.finish(ENDED.at_ns, ENDED.reason)
    for (name, partition), part in rows.drain().tables().items():
        lake.write_part(name, partition, part, "straight")
    return tables(lake)


def test_the_journal_gives_the_tables_that_its_inputs_give(lake: Lake, folder: RunFolder, tmp_path: Path) -> None:
    write(folder, *BEGUN, *INPUTS, ENDED).close()
    report = recover(folder, lake, VENUES, START + 2 * HOUR)
    expected = straight(Lake(str(tmp_path / "straight"), "a fake exchange"))
    assert all(expected[name] for name in TABLES if name != "tickers")
    assert tables(lake) == expected
    assert {gap["cause"] for gap in expected["book_gaps"]} == {"no_snapshot", "silence", "disconnect"}
    assert report.venues["fake"].frames == len(expected["raw_frames"])
    assert not folder.path.exists()


def version_1(number: int, *bodies: list[Any]) -> bytes:
    """A segment as version 1 wrote it, byte for byte from its description."""
    header = struct.pack("<4sHHI", b"ARBJ", 1, 0, number)
    segment = header + struct.pack("<I", zlib.crc32(header))
    for body in map(msgspec.msgpack.encode, bodies):
        segment += struct.pack("<II", len(body), zlib.crc32(body)) + body
    return segment


def test_a_journal_of_version_1_gives_its_rows(lake: Lake, folder: RunFolder, tmp_path: Path) -> None:
    """All its records: feeds had no kind then, and settings that are gone since are in force no more."""
    markets = [
        {"venue": "fake", "market_id": name, "yes_token_id": "", "no_token_id": "", "tick": 100, "min_size": 0}
        for name in "MN"
    ]
    settings = {"flush_ms": 100.0, "lake": "/somewhere", "a_setting_of_then": True}
    bodies: list[list[Any]] = []
    for record in INPUTS:
        match record:
            case Opened():
                bodies.append([2, 0, record.at_ns, record.connection_id, markets])
            case Frame():
                bodies.append([3, 0, record.at_ns, record.frame])
            case RestBook():
                bodies.append([4, 0, record.at_ns, record.market_id, record.body])
            case Tick():
                bodies.append([5, 0, record.at_ns])
            case Lost():
                bodies.append([7, 0, record.at_ns, record.cause])
    first = [
        [0, "run", [0, 1], START, [None, None], "a fake exchange", settings],
        [1, 0, "fake", "run/fake/0"],
        bodies[0],
        [6, 0, START + S, '["hello"]'],
    ]
    (folder.path / "000000.seg").write_bytes(version_1(0, *first))
    (folder.path / "000001.seg").write_bytes(version_1(1, *bodies[1:], [8, ENDED.at_ns, ENDED.reason]))
    assert len(bodies) == len(INPUTS)
    report = recover(folder, lake, VENUES, START + 2 * HOUR)
    assert (report.done, report.message) == (True, "")
    assert tables(lake) == straight(Lake(str(tmp_path / "straight"), "a fake exchange"))
    assert not folder.path.exists()


@pytest.mark.parametrize("flushed_at", [1, 4, 8, 10, 12])
@pytest.mark.parametrize("compacted", [False, True])
def test_a_journal_taken_up_again_gives_every_row_once(
    lake: Lake, folder: RunFolder, tmp_path: Path, flushed_at: int, compacted: bool
) -> None:
    writer = write(folder, *BEGUN, *INPUTS[:flushed_at])
    killed = Encoder(folder, lake, VENUES)
    killed.catch_up()
    assert killed.flush()
    if compacted:
        killed.compact()
    for record in (*INPUTS[flushed_at:], ENDED):
        writer.append(record)
    writer.close()
    recover(folder, lake, VENUES, START + 2 * HOUR)
    assert tables(lake) == straight(Lake(str(tmp_path / "straight"), "a fake exchange"))


def test_rows_of_other_runs_stay(lake: Lake, folder: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "journal" / "runs" / "run-2")
    other.path.mkdir()
    renamed = [
        msgspec.structs.replace(record, connection_id=record.connection_id + "x")
        if isinstance(record, Opened)
        else record
        for record in INPUTS
    ]
    write(other, *BEGUN, *renamed, ENDED).close()
    recover(other, lake, VENUES, START + 2 * HOUR)
    before = len(every(lake, "raw_frames"))
    write(folder, *BEGUN, *INPUTS, ENDED).close()
    recover(folder, lake, VENUES, START + 2 * HOUR)
    assert len(every(lake, "raw_frames")) == 2 * before


def test_a_run_that_died_leaves_an_outage_of_all_its_markets(lake: Lake, folder: RunFolder) -> None:
    write(folder, *BEGUN, *INPUTS).close()
    recover(folder, lake, VENUES, START + 2 * HOUR)
    outages = [gap for gap in every(lake, "book_gaps") if gap["cause"] == "outage"]
    assert [(g["market_id"], g["from_ns"], g["to_ns"], g["recovery"]) for g in outages] == [
        (market, START + 3_700 * S, START + 2 * HOUR, "restart") for market in ("M", "N")
    ]
    assert {row["stop_reason"] for row in every(lake, "capture_sessions")} == {"reset", "killed"}


def test_an_outage_ends_with_the_runs_window(lake: Lake, folder: RunFolder) -> None:
    begun = msgspec.structs.replace(FIRST, window=(START, START + HOUR))
    write(folder, begun, FEED, *INPUTS[:2]).close()
    recover(folder, lake, VENUES, START + 5 * HOUR)
    assert {gap["to_ns"] for gap in every(lake, "book_gaps") if gap["cause"] == "outage"} == {START + HOUR}


def test_a_journal_without_records_is_no_run(lake: Lake, folder: RunFolder) -> None:
    write(folder).close()
    assert folder.begun() is None
    recover(folder, lake, VENUES, START)
    assert tables(lake) == {name: [] for name in TABLES}


def test_rows_that_the_lake_refuses_follow_later(
    lake: Lake, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, *BEGUN, *INPUTS, ENDED).close()
    encoder = Encoder(folder, lake, VENUES)
    encoder.catch_up()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Lake, "write_part", refuse)
    assert not encoder.flush()
    assert "No space left" in encoder.message
    with pytest.raises(OSError, match="No space left"):
        recover(folder, lake, VENUES, START + 2 * HOUR)
    assert folder.path.exists()
    monkeypatch.undo()
    assert encoder.flush()
    assert not encoder.message, "it is over"
    assert len(every(lake, "raw_frames")) == 8


def test_a_record_that_cannot_be_used_costs_no_other(lake: Lake, folder: RunFolder) -> None:
    broken = frame(3.5, "delta", "never seen", "bid", 1, 1)
    write(folder, *BEGUN, *INPUTS[:3], broken, *INPUTS[3:], ENDED).close()
    report = recover(folder, lake, VENUES, START + 2 * HOUR)
    assert "never seen" in report.message
    assert len(every(lake, "trades")) == 1


@pytest.mark.parametrize(
    "unusable",
    [
        [msgspec.structs.replace(FIRST, settings={"flush_ms": -1})],
        [FIRST, FeedAdded(0, "a venue of another time", "run/x/0")],
    ],
)
def test_a_journal_whose_run_or_feeds_cannot_be_made_stays(
    lake: Lake, folder: RunFolder, unusable: list[Record]
) -> None:
    write(folder, *unusable, *INPUTS, ENDED).close()
    with pytest.raises(JournalError, match="cannot be used"):
        recover(folder, lake, VENUES, START + 2 * HOUR)
    assert folder.path.exists()
    assert tables(lake) == {name: [] for name in TABLES}


def encode(folder: RunFolder, lake: Lake) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "arb_pipeline.capture.encoder", str(folder.path), lake.root]
    return subprocess.Popen(
        [*command, "--venue", "arb_pipeline_tests.capture.fakes:FakeVenue"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_the_process_answers_and_an_orphan_writes_what_it_has_and_ends(lake: Lake, folder: RunFolder) -> None:
    writer = write(folder, *BEGUN, *INPUTS[:3])
    process = encode(folder, lake)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"flush\n")
    process.stdin.flush()
    report = msgspec.json.decode(process.stdout.readline(), type=Report)
    assert report.venues["fake"].frames == len(every(lake, "raw_frames")) == 2
    writer.append(INPUTS[3])
    writer.close()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert len(every(lake, "raw_frames")) == 3, "what the journal still had"
    assert folder.path.exists(), "the next start finishes it"
    recover(folder, lake, VENUES, START + 2 * HOUR)
    assert len(every(lake, "raw_frames")) == 3


def test_a_lake_of_another_origin_is_told(lake: Lake, folder: RunFolder, tmp_path: Path) -> None:
    straight(Lake(lake.root, "another exchange"))
    write(folder, *BEGUN, *INPUTS, ENDED).close()
    process = encode(folder, lake)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ARB_LAKE" in msgspec.json.decode(out.splitlines()[-1], type=Report).message
    assert folder.path.exists()


def test_an_orphan_finishes_a_complete_journal(lake: Lake, folder: RunFolder, tmp_path: Path) -> None:
    write(folder, *BEGUN, *INPUTS, ENDED).close()
    out, _ = encode(folder, lake).communicate(timeout=30)
    assert msgspec.json.decode(out.splitlines()[-1], type=Report).done
    assert tables(lake) == straight(Lake(str(tmp_path / "straight"), "a fake exchange"))
    assert not folder.path.exists()


def test_a_journal_is_finished_with_all_its_venues_whatever_is_captured_now(lake: Lake, folder: RunFolder) -> None:
    facts = MarketFacts(venue="kalshi", market_id="K-1")
    kalshi: list[Record] = [
        FeedAdded(1, "kalshi", "run/kalshi/0"),
        Opened(1, START + S, "run/kalshi/0.1", (facts,)),
        Frame(1, START + 2 * S, '{"type":"orderbook_snapshot","sid":1,"seq":1,"msg":{"market_ticker":"K-1"}}'),
    ]
    write(folder, *BEGUN, *kalshi, *INPUTS, ENDED).close()
    encode(folder, lake).communicate(timeout=60)
    assert len(lake.read("raw_frames", venue="kalshi")) == 1
    assert len(lake.read("raw_frames", venue="fake")) == 8
    assert not folder.path.exists()


def test_a_first_connection_that_came_late_leaves_no_hole_from_the_start_of_the_run(
    lake: Lake, folder: RunFolder
) -> None:
    opened = Opened(0, START + 5 * S, "run/fake/0.1", MARKETS)
    later = Opened(1, START + 9 * S, "run/fake/1.1", (MarketFacts(venue="fake", market_id="P"),))
    snap = frame(6, "snap", "M", [[4000, 5_000_000]], [])
    write(folder, *BEGUN, opened, snap, FeedAdded(1, "fake", "run/fake/1"), later, ENDED).close()
    recover(folder, lake, VENUES, START + 2 * HOUR)
    gaps = {gap["market_id"]: (gap["from_ns"] - START) // S for gap in every(lake, "book_gaps")}
    assert gaps == {"M": 0, "N": 0, "P": 6}, "a feed that is added later is wanted since then"
