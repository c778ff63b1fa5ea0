import gzip
import hashlib
import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import SecretStr

from arb_pipeline.capture.replay import LOCAL_EXCHANGE, replay
from arb_pipeline.capture.summary import CaptureSummary
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.recordings import Recording, RecordingError
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake, Partition
from arb_pipeline.storage.catalogue import read_events
from arb_pipeline.storage.lake import HOUR_NS
from arb_pipeline.storage.postgres import PostgresUnavailableError
from arb_pipeline.tables import table
from arb_pipeline_tests.capture.fakes import FakeVenue, every, fold
from arb_pipeline_tests.endurance.loaded import LOADED, Loaded, lake_rows

EIGHT = ns_from_datetime(datetime(2026, 5, 13, 8, tzinfo=UTC))
S = 1_000_000_000
Line = tuple[int, str, Any]

LINES: list[Line] = [
    (EIGHT + 10 * S, "a", ["snap", "M", [[4000, 5_000_000], [3900, 1]], [[4200, 2_000_000]]]),
    (EIGHT + 11 * S, "b", ["snap", "N", [], []]),
    (EIGHT + 12 * S, "a", ["delta", "M", "bid", 4100, 7_000_000]),
    (EIGHT + 12 * S, "b", ["delta", "N", "ask", 9000, 3_000_000]),
    (EIGHT + 13 * S, "a", ["trade", "M", "t1", 420_000_000, 1_000_000]),
    (EIGHT + 14 * S, "a", ["gap", "M", "seq_gap"]),
    (EIGHT + 15 * S, "a", ["snap", "M", [[4100, 6_000_000]], [[4300, 2_000_000]]]),
    (EIGHT + 16 * S, "b", "this is not JSON"),
    (EIGHT + HOUR_NS - 1, "a", ["delta", "M", "ask", 4300, 0]),
    (EIGHT + HOUR_NS + S, "a", ["delta", "M", "ask", 4400, 9_000_000]),
    (EIGHT + HOUR_NS + 2 * S, "a", ["gap", "M", "silence"]),
    (EIGHT + HOUR_NS + 3 * S, "b", ["delta", "N", "ask", 9000, 4_000_000]),
    (EIGHT + HOUR_NS + 5 * S, "a", ["trade", "M", "t2", 430_000_000, 1_000_000]),
]


def record(
    path: Path,
    lines: Sequence[Line],
    *,
    meta: dict[str, Any] | None = None,
    events: Any = None,
    venue: str = "fake",
) -> Recording:
    folder = path / venue
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "frames.jsonl.gz", "wt") as file:
        for recv_ns, conn, frame in lines:
            text = frame if isinstance(frame, str) else json.dumps(frame)
            file.write(json.dumps({"recv_ns": recv_ns, "conn": conn, "frame": text}) + "\n")
    if meta is not None:
        (path / "meta.json").write_text(json.dumps(meta))
    if events is not None:
        (folder / "events.json").write_text(json.dumps(events))
    return Recording.open(path)


def run(recording: Recording, lake: Lake) -> CaptureSummary:
    return replay(recording, lake, Settings(), venues={"fake": FakeVenue()})


def tree(root: str) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(Path(root).rglob("*")) if p.is_file()}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_every_frame_is_kept_as_received_in_order(tmp_path: Path, lake: Lake) -> None:
    run(record(tmp_path / "r", LINES), lake)
    frames = sorted(every(lake, "raw_frames"), key=lambda row: row["ordinal"])
    texts = [line[2] if isinstance(line[2], str) else json.dumps(line[2]) for line in LINES]
    assert [row["frame"] for row in frames] == texts
    assert [row["recv_ns"] for row in frames] == [line[0] for line in LINES]
    assert {row["connection_id"] for row in frames} == {"replay-r/fake/a", "replay-r/fake/b"}


def test_an_hour_begins_with_the_books_as_they_stood_and_stands_alone(tmp_path: Path, lake: Lake) -> None:
    run(record(tmp_path / "r", LINES), lake)
    nine = lake.read("book_events", EIGHT + HOUR_NS, EIGHT + 2 * HOUR_NS).to_pylist()
    opening = [row for row in nine if row["recv_ns"] == EIGHT + HOUR_NS]
    assert [(r["market_id"], r["kind"], r["price"], r["size"]) for r in opening] == [
        ("M", "clear", None, None),
        ("M", "snapshot", Decimal("0.41"), Decimal(6)),
        ("N", "clear", None, None),
        ("N", "snapshot", Decimal("0.9"), Decimal(3)),
    ]
    assert fold(nine) == fold(every(lake, "book_events"))
    assert fold(nine) == {
        "M": ({Decimal("0.41"): Decimal(6)}, {Decimal("0.44"): Decimal(9)}),
        "N": ({}, {Decimal("0.9"): Decimal(4)}),
    }
    quotes = lake.read("quotes", EIGHT + HOUR_NS).to_pylist()
    assert [(q["market_id"], q["recv_ns"] - EIGHT - HOUR_NS) for q in quotes] == [("M", S), ("N", 3 * S)]


def test_ordinals_are_unique_over_tables_and_follow_receipt(tmp_path: Path, lake: Lake) -> None:
    run(record(tmp_path / "r", LINES), lake)
    tables = ("raw_frames", "book_events", "quotes", "trades")
    ordinals = [row["ordinal"] for name in tables for row in every(lake, name)]
    assert len(set(ordinals)) == len(ordinals)
    for name in tables:
        rows = sorted(every(lake, name), key=lambda row: (row["connection_id"], row["ordinal"]))
        for _, own in groupby(rows, key=lambda row: row["connection_id"]):
            assert all(one["recv_ns"] <= two["recv_ns"] for one, two in pairwise(own))


def test_doubts_are_paired_and_what_lasts_is_said(tmp_path: Path, lake: Lake) -> None:
    summary = run(record(tmp_path / "r", LINES), lake)
    gaps = [(g["cause"], g["from_ns"], g["to_ns"], g["recovery"]) for g in every(lake, "book_gaps")]
    assert gaps == [
        ("seq_gap", EIGHT + 14 * S, EIGHT + 15 * S, "snapshot"),
        ("silence", EIGHT + HOUR_NS + 2 * S, EIGHT + HOUR_NS + 5 * S, "end_of_capture"),
    ]
    assert summary.venues["fake"].gaps == 2
    assert summary.venues["fake"].gap_seconds == 4.0


def test_a_bad_frame_is_counted_with_an_example_and_stops_nothing(tmp_path: Path, lake: Lake) -> None:
    summary = run(record(tmp_path / "r", LINES), lake)
    assert summary.venues["fake"].anomalies == {"malformed_json": 1}
    assert summary.venues["fake"].examples["malformed_json"]["frame"] == "this is not JSON"
    [a, b] = every(lake, "capture_sessions")
    assert (a["connection_id"], a["anomalies"], a["frames"]) == ("replay-r/fake/a", "{}", 9)
    assert (b["connection_id"], json.loads(b["anomalies"])) == ("replay-r/fake/b", {"malformed_json": 1})
    assert (b["run_id"], b["stop_reason"]) == ("replay-r", "end_of_recording")


def test_the_summary_counts_what_the_tables_hold(tmp_path: Path, lake: Lake) -> None:
    summary = run(record(tmp_path / "r", LINES), lake)
    venue = summary.venues["fake"]
    for name, count in venue.rows.items():
        rows = every(lake, name)
        assert len(rows) == count, name
    assert (venue.frames, venue.markets, venue.connections) == (len(LINES), 2, 2)
    assert summary.stop_reason == "end_of_recording"
    assert json.loads(summary.to_json()) == summary.metadata()
    assert summary.metadata()["venues"]["fake"]["frames"] == len(LINES)


def test_two_replays_are_byte_identical_and_the_same_again_changes_nothing(tmp_path: Path) -> None:
    recording = record(tmp_path / "r", LINES, events=[{"id": "E"}])
    one, other = Lake(str(tmp_path / "one")), Lake(str(tmp_path / "the other"))
    run(recording, one)
    run(recording, other)
    before = tree(one.root)
    assert before == tree(other.root)
    assert len(before) > 10
    run(recording, one)
    assert tree(one.root) == before


def test_a_replay_replaces_its_own_rows_and_nobody_elses(tmp_path: Path, lake: Lake) -> None:
    run(record(tmp_path / "other", [(EIGHT + S, "z", ["snap", "Z", [], []])]), lake)
    run(record(tmp_path / "r", LINES), lake)
    run(record(tmp_path / "r", LINES[:5]), lake)
    frames = every(lake, "raw_frames")
    assert sum(row["connection_id"] == "replay-other/fake/z" for row in frames) == 1
    assert [row["recv_ns"] for row in frames if row["connection_id"] == "replay-r/fake/a"] == [
        line[0] for line in [*LINES[:5], *LINES[9:]] if line[1] == "a"
    ]


def test_rows_under_the_names_that_versions_before_gave_are_replaced(tmp_path: Path, lake: Lake) -> None:
    recording = record(tmp_path / "r", LINES)
    run(recording, lake)
    hour, since = Partition.of("raw_frames", "fake", EIGHT), every(lake, "raw_frames")
    rows = lake.read("raw_frames").to_pylist()
    old = [
        row | {"connection_id": row["connection_id"].removeprefix("replay-r/")}
        for row in rows
        if row["recv_ns"] < EIGHT + HOUR_NS
    ]
    others = old[0] | {"connection_id": "fake/z", "ordinal": 1}
    lake.replace("raw_frames", hour, pa.Table.from_pylist([*old, others], schema=table("raw_frames").schema))
    run(recording, lake)
    left = every(lake, "raw_frames")
    assert [row for row in left if row["connection_id"] != "fake/z"] == since
    assert len(left) == len(since) + 1, "connections of other names stay"


def test_one_file_per_partition_and_none_left_over(tmp_path: Path, lake: Lake) -> None:
    run(record(tmp_path / "r", LINES), lake)
    for folder in {path.parent for path in Path(lake.root).rglob("*.parquet")}:
        assert len(list(folder.iterdir())) == 2


def test_the_catalogue_of_a_recording_is_written_at_its_time(tmp_path: Path, lake: Lake) -> None:
    run(record(tmp_path / "r", LINES, events=[{"id": "E"}]), lake)
    [event] = read_events(lake)
    assert [market.market_id for market in event.markets] == ["E-M"]
    assert lake.partitions("events") == [Partition.of("events", "fake", EIGHT)]


def test_a_recording_without_frames_still_has_a_catalogue_and_a_fixed_time(tmp_path: Path) -> None:
    recording = record(tmp_path / "r", [], events=[{"id": "E"}])
    one, other = Lake(str(tmp_path / "one")), Lake(str(tmp_path / "other"))
    assert run(recording, one).venues["fake"].message == "the recording has no frames of it"
    run(recording, other)
    assert len(read_events(one)) == 1
    assert tree(one.root) == tree(other.root)


def test_data_of_a_local_exchange_says_so(tmp_path: Path, lake: Lake) -> None:
    summary = run(record(tmp_path / "r", LINES, meta={"exchange": True}), lake)
    assert summary.exchange == LOCAL_EXCHANGE
    assert {row["exchange"] for row in every(lake, "capture_sessions")} == {LOCAL_EXCHANGE}
    assert {file.entry.exchange for file in lake.files("quotes")} == {LOCAL_EXCHANGE}


def test_progress_ends_with_the_number_of_frames(tmp_path: Path, lake: Lake) -> None:
    seen: list[tuple[str, int]] = []
    replay(
        record(tmp_path / "r", LINES),
        lake,
        Settings(),
        lambda step, count: seen.append((step, count)),
        venues={"fake": FakeVenue()},
    )
    assert seen[-1] == ("frames", len(LINES))


def test_a_venue_that_nobody_knows_is_named(tmp_path: Path, lake: Lake) -> None:
    with pytest.raises(RecordingError, match=r"no venue \['fake'\]; there are kalshi, polymarket"):
        replay(record(tmp_path / "r", LINES), lake, Settings())


def test_frames_out_of_order_by_hours_are_refused_a_little_disorder_is_not(tmp_path: Path, lake: Lake) -> None:
    later = [(EIGHT + k * HOUR_NS, "a", ["snap", "M", [], []]) for k in range(4)]
    with pytest.raises(RecordingError, match="a frame of 2026-05-13 08h follows later hours"):
        run(record(tmp_path / "r", [*later, (EIGHT + S, "b", ["snap", "N", [], []])]), lake)
    lines = [(EIGHT + HOUR_NS + 1, "a", ["snap", "M", [], []]), (EIGHT + HOUR_NS - 1, "b", ["snap", "N", [], []])]
    run(record(tmp_path / "s", lines), Lake(str(tmp_path / "fresh")))
    assert len(every(Lake(str(tmp_path / "fresh")), "raw_frames")) == 2


@pytest.mark.parametrize(("use_yes_price", "ask"), [(False, "0.4"), (True, "0.6")])
def test_the_recordings_own_options_reach_the_session(
    tmp_path: Path, lake: Lake, use_yes_price: bool, ask: str
) -> None:
    message = {"market_ticker": "K", "yes_dollars_fp": [["0.3000", "5.00"]], "no_dollars_fp": [["0.6000", "7.00"]]}
    frame = {"type": "orderbook_snapshot", "sid": 1, "seq": 1, "msg": message}
    recording = record(tmp_path / "r", [(EIGHT, "a", frame)], meta={"use_yes_price": use_yes_price}, venue="kalshi")
    replay(recording, lake, Settings())
    assert [(q["bid"], q["ask"]) for q in every(lake, "quotes")] == [(Decimal("0.3"), Decimal(ask))]


def test_markets_that_nobody_listed_are_taken_as_they_come(recordings: Path, tmp_path: Path, lake: Lake) -> None:
    folder = tmp_path / "r" / "polymarket"
    folder.mkdir(parents=True)
    shutil.copy(recordings / "crossvenue-202607" / "polymarket" / "frames.jsonl.gz", folder)
    summary = replay(Recording.open(tmp_path / "r"), lake, Settings())
    assert summary.venues["polymarket"].anomalies["assumed_yes_token"] == 1
    assert len(every(lake, "quotes")) > 0


# --- real recordings ---------------------------------------------------------------------------------------


def _number(value: Decimal | None, unit: int) -> str:
    return "-" if value is None else str(int(value * unit))


def quotes_digest(rows: Sequence[dict[str, Any]]) -> tuple[int, str]:
    """As the recordings' README defines it: consecutive distinct quotes from the first snapshot on."""
    lines = [
        " ".join(
            (
                _number(row["bid"], 10_000),
                _number(row["bid_size"], 100),
                _number(row["ask"], 10_000),
                _number(row["ask_size"], 100),
            )
        )
        for row in rows
    ]
    distinct = [line for line, _ in groupby(lines)]
    return len(distinct), hashlib.sha256("".join(line + "\n" for line in distinct).encode()).hexdigest()


def book_digest(book: tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]) -> str:
    bids, asks = book
    lines = [f"bid {int(p * 10_000)} {int(s * 100)}" for p, s in sorted(bids.items(), reverse=True)]
    lines += [f"ask {int(p * 10_000)} {int(s * 100)}" for p, s in sorted(asks.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("name", ["kalshi-btc15m", "kalshi-gold15m"])
def test_real_frames_give_the_known_quotes_and_books(recordings: Path, lake: Lake, name: str) -> None:
    summary = replay(Recording.open(recordings / name), lake, Settings())
    expected = json.loads((recordings / name / "expected.json").read_text())
    quotes, events, trades = (every(lake, table) for table in ("quotes", "book_events", "trades"))
    books = fold(events)
    for market, told in expected["markets"].items():
        own = sorted((q for q in quotes if q["market_id"] == market), key=lambda q: (q["recv_ns"], q["ordinal"]))
        changes, digest = quotes_digest(own)
        assert digest == told["quotes_sha256"]
        assert changes == told["top_changes"]
        assert len(books[market][0]) + len(books[market][1]) == told["levels"]
        assert book_digest(books[market]) == told["sha256"]
        assert sum(t["market_id"] == market for t in trades) == told["trades"]
    assert summary.venues["kalshi"].anomalies.get("seq_gap", 0) == expected["seq_gaps"]
    assert every(lake, "book_gaps") == []
    assert lake.read("raw_frames").num_rows == sum(1 for _ in Recording.open(recordings / name).all_frames())


@pytest.mark.parametrize("name", ["kalshi-gold15m", "crossvenue-202607"])
def test_replays_of_real_frames_are_byte_identical(recordings: Path, tmp_path: Path, name: str) -> None:
    trees = []
    for folder in ("one", "two"):
        lake = Lake(str(tmp_path / folder))
        replay(Recording.open(recordings / name), lake, Settings())
        trees.append(tree(lake.root))
        shutil.rmtree(lake.root)
    assert trees[0] == trees[1]


def test_the_hour_boundary_of_a_real_recording(recordings: Path, lake: Lake) -> None:
    replay(Recording.open(recordings / "kalshi-gold15m"), lake, Settings())
    boundary = ns_from_datetime(datetime(2026, 8, 10, 23, tzinfo=UTC))
    running = fold(every(lake, "book_events"))
    alone = fold(lake.read("book_events", boundary).to_pylist())
    assert alone.keys() == running.keys()
    assert alone == running


def test_a_recording_of_both_venues(recordings: Path, lake: Lake) -> None:
    summary = replay(Recording.open(recordings / "crossvenue-202607"), lake, Settings())
    assert summary.venues["polymarket"].frames == 27
    assert summary.venues["polymarket"].anomalies == {}
    assert all(row["in_sync"] for row in every(lake, "quotes"))
    assert {event.venue: 1 for event in read_events(lake)} == {"kalshi": 1, "polymarket": 1}
    assert sum(len(event.markets) for event in read_events(lake)) == 34


def test_a_level_change_takes_at_most_twelve_bytes(recordings: Path, lake: Lake) -> None:
    replay(Recording.open(recordings / "kalshi-btc15m"), lake, Settings())
    files = lake.files("book_events")
    assert sum(file.entry.bytes for file in files) <= 12 * sum(file.entry.rows for file in files)


# --- Postgres ----------------------------------------------------------------------------------------------


def into(postgres_url: str) -> Settings:
    return Settings(postgres_url=SecretStr(postgres_url))


def test_a_replay_fills_postgres_as_the_lake_and_again_changes_nothing(
    tmp_path: Path, lake: Lake, postgres_url: str
) -> None:
    recording, venues = record(tmp_path / "r", LINES), {"fake": FakeVenue()}
    summary = replay(recording, lake, into(postgres_url), venues=venues)
    loaded = Loaded(postgres_url)
    assert loaded.differences(lake) == []
    counts = loaded.counts()
    assert min(counts[name] for name in ("book_events", "quotes", "trades", "book_gaps", "capture_sessions")) > 0
    assert summary.postgres is not None
    assert summary.postgres.rows == sum(counts.values())
    rows = {name: loaded.rows(name) for name in LOADED}
    replay(recording, lake, into(postgres_url), venues=venues)
    assert {name: loaded.rows(name) for name in LOADED} == rows


def test_a_recording_that_changed_leaves_nothing_of_its_old_rows(tmp_path: Path, lake: Lake, postgres_url: str) -> None:
    venues = {"fake": FakeVenue()}
    other = record(tmp_path / "other", [(EIGHT + 20 * S, "z", ["snap", "N", [[1000, 1_000_000]], []])])
    replay(other, lake, into(postgres_url), venues=venues)
    replay(record(tmp_path / "r", LINES), lake, into(postgres_url), venues=venues)
    replay(record(tmp_path / "r", [*LINES[:4], *LINES[5:]]), lake, into(postgres_url), venues=venues)
    loaded = Loaded(postgres_url)
    assert {row["connection_id"] for row in loaded.rows("capture_sessions")} == {
        "replay-r/fake/a",
        "replay-r/fake/b",
        "replay-other/fake/z",
    }
    assert {row["trade_id"] for row in loaded.rows("trades")} == {"t2"}
    assert loaded.differences(lake) == []


def test_recordings_that_name_their_connections_alike_stay_beside_each_other(
    tmp_path: Path, lake: Lake, postgres_url: str
) -> None:
    """Both are of one hour, on connection ``a``, and of one market."""
    venues = {"fake": FakeVenue()}
    one = record(tmp_path / "one", [(EIGHT + 1 * S, "a", ["snap", "M", [[4000, 1_000_000]], []])])
    two = record(tmp_path / "two", [(EIGHT + 20 * S, "a", ["snap", "M", [[4100, 2_000_000]], []])])
    for recording in (one, two, one):
        replay(recording, lake, into(postgres_url), venues=venues)
    loaded = Loaded(postgres_url)
    found = [(row["run_id"], row["connection_id"]) for row in loaded.rows("capture_sessions")]
    assert found == [("replay-one", "replay-one/fake/a"), ("replay-two", "replay-two/fake/a")]
    assert [row["bid"] for row in loaded.rows("quotes")] == [Decimal("0.4"), Decimal("0.41")]
    assert loaded.differences(lake) == []


def test_a_replay_without_its_postgres_writes_nothing(tmp_path: Path, lake: Lake, no_postgres_url: str) -> None:
    with pytest.raises(PostgresUnavailableError):
        replay(record(tmp_path / "r", LINES), lake, into(no_postgres_url), venues={"fake": FakeVenue()})
    assert every(lake, "raw_frames") == []


def test_each_recording_fills_lake_and_postgres_with_equal_rows(
    recordings: Path, tmp_path: Path, postgres_url: str
) -> None:
    """Row by row, exact decimals, all recordings in one lake; replaying twice changes nothing."""
    loaded, lake = Loaded(postgres_url), Lake(str(tmp_path / "lake"))
    for path in sorted(path for path in recordings.iterdir() if path.is_dir()):
        summary = replay(Recording.open(path), lake, into(postgres_url))
        assert summary.postgres is not None
        assert summary.postgres.rows > 0
    before = {name: loaded.rows(name) for name in LOADED}
    for name, rows in before.items():
        assert rows == lake_rows(lake, name), name
    assert len(before["book_events"]) > 100_000
    for name in ("events", "markets"):
        assert loaded.rows(name) == lake_rows(lake, name) != []
    for path in sorted(path for path in recordings.iterdir() if path.is_dir()):
        replay(Recording.open(path), lake, into(postgres_url))
    assert {name: loaded.rows(name) for name in LOADED} == before
