import hashlib
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_pipeline.storage import Lake, LakeError, Partition
from arb_pipeline.storage.files import LocalFiles
from arb_pipeline.storage.lake import MANIFEST
from arb_pipeline.tables import SCHEMA_VERSION, TABLES, table
from arb_pipeline_tests.storage.rows import HOUR, SECOND, START, TWENTY, TWENTY_ONE, gaps, quotes, trades


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def memory() -> Iterator[Lake]:
    yield Lake("memory://lake-of-test")
    fsspec.filesystem("memory").rm("/lake-of-test", recursive=True)


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def folder(lake: Lake, name: str = "quotes", partition: Partition = TWENTY) -> Path:
    return Path(lake.root) / name / partition.path


# --- partitions --------------------------------------------------------------------------------------------


@given(st.integers(0, 7 * 10**18))
def test_an_instant_lies_in_its_partition_and_paths_come_back(at: int) -> None:
    for declared in TABLES.values():
        partition = Partition.of(declared, "kalshi", at)
        assert Partition.parse(partition.path) == partition
        if partition.bounds:
            assert partition.bounds[0] <= at < partition.bounds[1]


def test_paths_are_those_of_the_layout() -> None:
    at = datetime(2026, 5, 13, 7, 59, tzinfo=UTC)
    assert Partition.of("quotes", "kalshi", at).path == "venue=kalshi/date=2026-05-13/hour=07"
    assert Partition.of("book_gaps", "kalshi", at).path == "venue=kalshi/date=2026-05-13"
    assert Partition.of("spreads", "kalshi", at).path == "date=2026-05-13/hour=07"
    assert Partition.of("match_review", "kalshi", at).path == ""


@pytest.mark.parametrize(
    "path", ["../x", "venue=../date=2026-05-13", "date=2026-5-13", "hour=3", "venue=k/x=1", "date=2026-05-13/hour=24"]
)
def test_nothing_but_a_partition_is_parsed(path: str) -> None:
    with pytest.raises(LakeError):
        Partition.parse(path)


@pytest.mark.parametrize("venue", ["../..", "a/b", "", "K"])
def test_a_venue_cannot_leave_its_folder(venue: str) -> None:
    with pytest.raises(LakeError):
        Partition(venue, date(2026, 5, 13))


@pytest.mark.parametrize("writer", ["../x", "", "a/b", ".hidden"])
def test_a_writer_cannot_leave_the_partition(lake: Lake, writer: str) -> None:
    with pytest.raises(LakeError, match="writer"):
        lake.write_part("quotes", TWENTY, quotes(("M", 0, 1)), writer)


# --- writing -----------------------------------------------------------------------------------------------


def test_parts_and_compaction_give_the_same_rows_in_order(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY, quotes(("B", 5, 5), ("A", 9, 9)), "run1")
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run1")
    expected = quotes(("A", 1, 1), ("A", 9, 9), ("B", 5, 5))
    assert lake.read("quotes").equals(expected)
    assert lake.compact("quotes", TWENTY).rows == 3
    assert lake.read("quotes").equals(expected)
    [file] = lake.files("quotes")
    assert Path(file.path).name.startswith("data-")
    assert sorted(p.name for p in folder(lake).iterdir()) == sorted([Path(file.path).name, MANIFEST])


def test_the_manifest_tells_the_truth_about_its_file(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY, quotes(("B", 5, 5), ("A", 9, 9)), "run1")
    lake.compact("quotes", TWENTY)
    [entry] = lake.manifest("quotes", TWENTY).files
    data = (folder(lake) / entry.name).read_bytes()
    assert entry.name == f"data-{hashlib.sha256(data).hexdigest()[:12]}.parquet"
    assert (entry.sha256, entry.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (entry.rows, entry.schema_version) == (2, SCHEMA_VERSION)
    assert (entry.min_ns, entry.max_ns) == (START + 5 * SECOND, START + 9 * SECOND)


def test_compaction_after_later_parts_takes_in_the_earlier_file(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run1")
    lake.compact("quotes", TWENTY)
    lake.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "run2")
    assert lake.compact("quotes", TWENTY).rows == 2
    assert len(lake.files("quotes")) == 1
    before = tree(Path(lake.root))
    assert lake.compact("quotes", TWENTY).rows == 2
    assert tree(Path(lake.root)) == before


def test_the_same_rows_give_the_same_bytes_whatever_parts_they_came_in(tmp_path: Path) -> None:
    one, other = Lake(str(tmp_path / "one")), Lake(str(tmp_path / "another, longer"))
    one.write_part("quotes", TWENTY, quotes(("B", 5, 5), ("A", 9, 9), ("A", 1, 1)), "x")
    other.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "y")
    other.write_part("quotes", TWENTY, quotes(("A", 9, 9), ("B", 5, 5)), "z")
    for lake in (one, other):
        lake.compact("quotes", TWENTY)
    assert tree(Path(one.root)) == tree(Path(other.root))
    assert len(tree(Path(one.root))) == 2


def test_a_trade_received_twice_counts_once_by_its_earliest_reception(lake: Lake) -> None:
    lake.write_part("trades", TWENTY, trades([("t1", 3, 30, "0.5"), ("t2", 4, 40, "0.6")], connection="new"), "b")
    lake.write_part("trades", TWENTY, trades([("t1", 2, 20, "0.5")], connection="old"), "a")
    found = lake.compact("trades", TWENTY)
    assert (found.rows, found.dropped, found.conflicts) == (2, 1, 0)
    assert lake.read("trades")["ordinal"].to_pylist() == [20, 40]


def test_of_a_trade_pushed_and_asked_for_the_pushed_one_stays_though_it_came_later(lake: Lake) -> None:
    asked = trades([("t1", 2, 20, "0.5"), ("t2", 2, 21, "0.6")], connection="asked")
    asked = asked.set_column(asked.column_names.index("source"), "source", pa.array(["rest", "rest"]))
    asked = asked.set_column(asked.column_names.index("venue_ns"), "venue_ns", pa.array([START + 1, START + 1]))
    lake.write_part("trades", TWENTY, asked, "a")
    lake.write_part("trades", TWENTY, trades([("t1", 3, 30, "0.5")]), "b")
    found = lake.compact("trades", TWENTY)
    assert (found.rows, found.dropped, found.conflicts) == (2, 1, 0)
    assert lake.read("trades").select(["trade_id", "source", "ordinal"]).to_pylist() == [
        {"trade_id": "t2", "source": "rest", "ordinal": 21},
        {"trade_id": "t1", "source": "ws", "ordinal": 30},
    ]


def test_an_update_sees_all_parts_and_leaves_one_file(lake: Lake) -> None:
    lake.write_part("trades", TWENTY, trades([("t1", 3, 30, "0.5")]), "a")
    lake.write_part("trades", TWENTY, trades([("t2", 4, 40, "0.6")]), "b")
    found = lake.update("trades", TWENTY, lambda held: pa.concat_tables([held, trades([("t3", 5, 50, "0.7")])]))
    assert (found.rows, found.dropped, found.conflicts) == (3, 0, 0)
    assert lake.read("trades")["trade_id"].to_pylist() == ["t1", "t2", "t3"]
    assert len(lake.files("trades")) == 1
    with pytest.raises(LakeError, match="beyond"):
        lake.update("trades", TWENTY, lambda held: trades([("t9", 3_600, 1, "0.5")]))
    assert lake.read("trades").num_rows == 3
    assert lake.update("trades", TWENTY_ONE, lambda held: held).rows == 0
    assert lake.partitions("trades") == [TWENTY]


def test_rows_of_one_key_and_two_contents_are_kept_and_counted(lake: Lake) -> None:
    lake.write_part("trades", TWENTY, trades([("t1", 3, 30, "0.5")]), "a")
    lake.write_part("trades", TWENTY, trades([("t1", 3, 31, "0.7")]), "b")
    found = lake.compact("trades", TWENTY)
    assert (found.rows, found.dropped, found.conflicts) == (2, 0, 1)
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 7)), "a")
    lake.write_part("quotes", TWENTY, quotes(("A", 2, 7)), "b")
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 7)), "c")
    found = lake.compact("quotes", TWENTY)
    assert (found.rows, found.dropped, found.conflicts) == (2, 1, 1)


def test_the_same_part_again_is_the_same_file(lake: Lake) -> None:
    for _ in range(2):
        lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    assert len(lake.files("quotes")) == 1


def test_no_rows_no_file(lake: Lake) -> None:
    assert lake.write_part("quotes", TWENTY, quotes(), "run") is None
    assert lake.compact("quotes", TWENTY).rows == 0
    assert lake.partitions("quotes") == []


def test_replace_is_idempotent_and_an_empty_partition_is_known(lake: Lake) -> None:
    lake.replace("quotes", TWENTY, quotes(("A", 1, 1), ("B", 1, 2)))
    lake.replace("quotes", TWENTY, quotes(("C", 1, 3)))
    assert lake.read("quotes")["market_id"].to_pylist() == ["C"]
    before = tree(Path(lake.root))
    lake.replace("quotes", TWENTY, quotes(("C", 1, 3)))
    assert tree(Path(lake.root)) == before
    lake.replace("quotes", TWENTY, quotes())
    assert lake.partitions("quotes") == [TWENTY]
    assert lake.read("quotes").num_rows == 0
    assert [p.name for p in folder(lake).iterdir()] == [MANIFEST]


def test_replace_refuses_two_rows_of_one_key(lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"quotes: 1 rows repeat .*'ordinal': 4"):
        lake.replace("quotes", TWENTY, quotes(("A", 1, 4), ("B", 1, 4)))


def test_rows_in_pieces_give_the_file_of_the_whole(tmp_path: Path) -> None:
    rows = quotes(("A", 1, 1), ("A", 2, 4), ("A", 2, 5), ("B", 1, 2), ("C", 0, 3))
    whole, cut = (Lake(str(tmp_path / name)) for name in ("whole", "cut"))
    whole.replace("quotes", TWENTY, rows)
    pieces = [rows.slice(0, 2), rows.slice(2, 0), rows.slice(2, 2), rows.slice(4)]
    assert cut.replace_in_order("quotes", TWENTY, iter(pieces)).rows == 5
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")
    assert cut.replace_in_order("quotes", TWENTY, iter([])).rows == 0
    assert cut.partitions("quotes") == [TWENTY]


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([quotes(("B", 1, 1)), quotes(("A", 1, 2))], "rows are not in the order of market_id, recv_ns, ordinal"),
        ([quotes(("A", 2, 1), ("A", 1, 2))], "rows are not in the order"),
        ([quotes(("A", 1, 1)), quotes(("A", 1, 1))], "1 rows repeat the key of another one"),
        ([quotes(("A", 1, 1)), quotes(("B", 1, 1))], "rows repeat the ordinal of another one"),
        ([quotes(("A", 3_700, 1))], "beyond venue=kalshi"),
    ],
)
def test_pieces_that_do_not_follow_each_other_change_nothing(lake: Lake, pieces: list[pa.Table], message: str) -> None:
    lake.replace("quotes", TWENTY, quotes(("Z", 1, 9)))
    with pytest.raises(LakeError, match=message):
        lake.replace_in_order("quotes", TWENTY, iter(pieces))
    assert lake.read("quotes")["market_id"].to_pylist() == ["Z"]


def test_a_table_whose_equal_keys_are_no_neighbours_is_not_taken_in_pieces(lake: Lake) -> None:
    with pytest.raises(LakeError, match="trades is not in the order of its key"):
        lake.replace_in_order("trades", TWENTY, iter([]))


def test_replace_where_touches_only_its_own_rows(lake: Lake) -> None:
    lake.write_part("trades", TWENTY, trades([("t1", 1, 1, "0.1")], connection="live"), "run")
    for _ in range(2):
        rows = trades([("t2", 2, 2, "0.2")], connection="again")
        assert lake.replace_where("trades", TWENTY, rows, "connection_id", ["again"]).rows == 2
    lake.replace_where("trades", TWENTY, trades([("t3", 3, 3, "0.3")], connection="again"), "connection_id", ["again"])
    assert lake.read("trades")["trade_id"].to_pylist() == ["t1", "t3"]
    assert len(lake.files("trades")) == 1
    lake.replace_where("trades", TWENTY_ONE, trades([]), "connection_id", ["again"])
    assert lake.partitions("trades") == [TWENTY]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (quotes(("A", 3_600, 1)), "beyond venue=kalshi"),
        (quotes(("A", -1, 1)), "beyond venue=kalshi"),
        (quotes(("A", 1, 1), venue="polymarket"), "rows of .'polymarket'."),
        (quotes(("A", 1, 1)).drop_columns("seq"), "missing columns .'seq'."),
        (quotes(("A", 1, 1)).append_column("x", pa.array([1])), "unknown columns .'x'."),
        (quotes(("A", 1, 1)).set_column(1, "market_id", pa.nulls(1, pa.string())), "quotes.market_id is null in 1"),
        (quotes(("A", 1, 1)).set_column(3, "ordinal", pa.array(["x"])), "declared types"),
        (quotes(("A", 1, 1)).set_column(3, "ordinal", pa.array([[1]])), "declared types"),
    ],
)
def test_rows_that_do_not_belong_are_refused(lake: Lake, rows: pa.Table, message: str) -> None:
    with pytest.raises(LakeError, match=message):
        lake.write_part("quotes", TWENTY, rows, "run")
    assert not Path(lake.root).exists()


def test_a_partition_of_another_shape_is_refused(lake: Lake) -> None:
    with pytest.raises(LakeError, match="quotes is partitioned by"):
        lake.write_part("quotes", Partition("kalshi", date(2026, 5, 13)), quotes(("A", 1, 1)), "run")


def test_data_of_the_local_exchange_never_mixes_with_real_data(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    toy = Lake(lake.root, "toy exchange")
    with pytest.raises(LakeError, match="holds data of the real venues, these rows come from toy exchange"):
        toy.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "run")
    toy.write_part("quotes", TWENTY_ONE, quotes(("A", 3_602, 2)), "run")
    [file] = toy.files("quotes", start=START + HOUR)
    assert file.entry.exchange == "toy exchange"
    assert pq.read_schema(file.path).metadata[b"arb.exchange"] == b"toy exchange"


# --- reading -----------------------------------------------------------------------------------------------


def test_only_files_that_the_manifest_lists_exist(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    [file] = lake.files("quotes")
    (folder(lake) / "part-dead-000000000000.parquet").write_bytes(Path(file.path).read_bytes()[:100])
    (folder(lake) / ".part-dead.tmp").write_bytes(b"PAR1")
    assert lake.read("quotes").num_rows == 1
    unborn = folder(lake, partition=TWENTY_ONE)
    unborn.mkdir(parents=True)
    (unborn / "data-000000000000.parquet").write_bytes(b"half a fi")
    assert lake.partitions("quotes") == [TWENTY]
    lake.compact("quotes", TWENTY)
    assert len(list(folder(lake).iterdir())) == 2


def test_a_crash_before_the_manifest_changes_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")

    def crash(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "swap", crash)
        with pytest.raises(OSError, match="no space"):
            lake.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "run")
        with pytest.raises(OSError, match="no space"):
            lake.compact("quotes", TWENTY)
    assert lake.read("quotes")["ordinal"].to_pylist() == [1]
    lake.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "run")
    assert lake.compact("quotes", TWENTY).rows == 2


def test_time_venue_market_and_column_selections(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1), ("B", 2, 2)), "run")
    lake.write_part("quotes", TWENTY_ONE, quotes(("A", 3_600, 3), ("B", 3_605, 4)), "run")
    other = Partition.parse("venue=polymarket/date=2026-05-13/hour=20")
    lake.write_part("quotes", other, quotes(("P", 2, 5), venue="polymarket"), "run")

    def ordinals(**options: object) -> list[int]:
        return sorted(lake.read("quotes", **options)["ordinal"].to_pylist())  # type: ignore[arg-type]

    assert ordinals() == [1, 2, 3, 4, 5]
    assert ordinals(start=START + 2 * SECOND, end=START + HOUR) == [2, 5]
    assert ordinals(start=datetime(2026, 5, 13, 21, tzinfo=UTC)) == [3, 4]
    assert ordinals(end=START + 2 * SECOND) == [1]
    assert ordinals(venue="polymarket") == [5]
    assert ordinals(markets=["A"]) == [1, 3]
    assert ordinals(markets=[]) == []
    assert ordinals(source="ws") == [1, 2, 3, 4, 5]
    assert ordinals(source="rest") == []
    assert lake.read("quotes", columns=["bid", "market_id"], source="ws").column_names == ["bid", "market_id"]
    empty = lake.read("quotes", start=START + 9 * HOUR)
    assert empty.num_rows == 0
    assert empty.schema.equals(table("quotes").schema)
    with pytest.raises(LakeError, match="no columns"):
        lake.read("quotes", columns=["nope"])


def test_files_outside_the_time_asked_for_are_not_opened(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    lake.write_part("quotes", TWENTY, quotes(("A", 100, 2)), "run")
    lake.write_part("quotes", TWENTY_ONE, quotes(("A", 3_700, 3)), "run")
    for file in lake.files("quotes", start=START + 50 * SECOND):
        assert file.entry.min_ns is not None
        assert file.entry.min_ns >= START + 50 * SECOND
    assert len(lake.files("quotes", start=START + 50 * SECOND)) == 2
    assert len(lake.files("quotes", end=START + 50 * SECOND)) == 1


def test_gaps_count_where_they_overlap_also_from_the_day_before(lake: Lake) -> None:
    today = Partition("kalshi", date(2026, 5, 13))
    lake.write_part("book_gaps", today, gaps(("A", 0, 10), ("B", 20, 5 * 3_600), ("C", 30, None)), "run")

    def markets(start: int, end: int) -> list[str]:
        rows = lake.read("book_gaps", START + start * SECOND, START + end * SECOND)
        return [str(market) for market in rows["market_id"].to_pylist()]

    assert markets(0, 5) == ["A"]
    assert markets(10, 20) == []
    assert markets(4 * 3_600, 5 * 3_600) == ["B", "C"]
    assert markets(6 * 3_600, 7 * 3_600) == ["C"]


def test_current_is_the_newest_day_of_each_venue(lake: Lake) -> None:
    def event(venue: str, event_id: str) -> pa.Table:
        defaults = {"market_count": 0, "mutually_exclusive": False, "fetched_at": datetime(2026, 1, 1, tzinfo=UTC)}
        row = {c.name: defaults.get(c.name, None if c.nullable else "") for c in table("events").columns}
        return pa.Table.from_pylist([{**row, "venue": venue, "event_id": event_id}], schema=table("events").schema)

    lake.replace("events", Partition("kalshi", date(2026, 5, 12)), event("kalshi", "old"))
    lake.replace("events", Partition("kalshi", date(2026, 5, 13)), event("kalshi", "new"))
    lake.replace("events", Partition("polymarket", date(2026, 5, 11)), event("polymarket", "p"))
    assert lake.current("events")["event_id"].to_pylist() == ["new", "p"]
    assert lake.current("events", "kalshi")["event_id"].to_pylist() == ["new"]
    assert lake.current("markets").num_rows == 0


def test_a_reader_survives_a_compaction_between_listing_and_reading(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    lake.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "run")
    stale = lake.files("quotes")
    lake.compact("quotes", TWENTY)
    answers = iter([stale, lake.files("quotes")])
    monkeypatch.setattr(lake, "files", lambda *_: next(answers))
    assert lake.read("quotes")["ordinal"].to_pylist() == [1, 2]


def test_a_damaged_manifest_and_a_newer_schema_are_said_by_name(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    path = folder(lake) / MANIFEST
    good = path.read_text()
    path.write_text(good.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 999'))
    with pytest.raises(LakeError, match="schema version 999"):
        lake.read("quotes")
    path.write_text(good[:20])
    with pytest.raises(LakeError, match="is no manifest"):
        lake.read("quotes")


def test_files_are_written_as_declared(lake: Lake) -> None:
    lake.replace("quotes", TWENTY, quotes(*(("A", 1, n) for n in range(200_000))))
    [file] = lake.files("quotes")
    metadata = pq.ParquetFile(file.path).metadata
    assert metadata.num_row_groups == 2
    first = metadata.row_group(0)
    assert [c.column_index for c in first.sorting_columns] == [1, 2, 3]
    encodings = {first.column(i).path_in_schema: first.column(i).encodings for i in range(first.num_columns)}
    assert "DELTA_BINARY_PACKED" in encodings["ordinal"]
    assert "RLE_DICTIONARY" in encodings["market_id"]
    assert first.column(0).compression == "ZSTD"
    schema = pq.read_schema(file.path)
    assert schema.metadata[b"arb.table"] == b"quotes"
    assert schema.metadata[b"arb.schema_version"] == str(SCHEMA_VERSION).encode()
    assert schema.field("bid").type == table("quotes").schema.field("bid").type


# --- other disks, other writers ----------------------------------------------------------------------------


def test_the_same_on_any_fsspec_filesystem(memory: Lake, lake: Lake) -> None:
    for each in (memory, lake):
        each.write_part("quotes", TWENTY, quotes(("B", 5, 5), ("A", 9, 9)), "run1")
        each.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run1")
        each.compact("quotes", TWENTY)
    assert memory.read("quotes").equals(lake.read("quotes"))
    assert memory.manifest("quotes", TWENTY) == lake.manifest("quotes", TWENTY)
    assert memory.partitions("quotes") == [TWENTY]
    assert len(memory.filesystem.ls("/lake-of-test/quotes/" + TWENTY.path)) == 2


def test_writers_in_threads_lose_nothing(lake: Lake) -> None:
    def write(number: int) -> None:
        lake.write_part("quotes", TWENTY, quotes(("A", number, number)), f"w{number % 4}")
        if number % 10 == 0:
            lake.compact("quotes", TWENTY)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(60)))
    assert lake.read("quotes")["ordinal"].to_pylist() == list(range(60))


def _write_ten(root: str, begin: int) -> None:
    lake = Lake(root)
    for number in range(begin, begin + 10):
        lake.write_part("quotes", TWENTY, quotes(("A", number, number)), f"p{begin}")


def test_writers_in_processes_lose_nothing(lake: Lake) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_write_ten, args=(lake.root, 10 * k)) for k in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert lake.read("quotes")["ordinal"].to_pylist() == list(range(20))


# --- merging in pieces -------------------------------------------------------------------------------------


@given(
    rows=st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 9), st.integers(0, 30)), min_size=1, max_size=30),
    parts=st.integers(1, 4),
    piece=st.integers(1, 12),
)
@settings(max_examples=25, deadline=None)
def test_a_merge_in_pieces_gives_the_bytes_and_figures_of_one_in_a_whole(
    rows: list[tuple[str, int, int]], parts: int, piece: int
) -> None:
    results = []
    for size in (piece, 10**9):
        with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
            patch.setattr("arb_pipeline.storage.lake._PIECE", size)
            patch.setattr("arb_pipeline.storage.lake.ROW_GROUP", 4)
            lake = Lake(root)
            for number in range(parts):
                lake.write_part("quotes", TWENTY, quotes(*rows[number::parts]), f"w{number}")
            found = lake.compact("quotes", TWENTY)
            results.append((found, tree(Path(root))))
    assert results[0] == results[1]
    found = results[0][0]
    assert found.rows == len(set(rows))
    assert found.dropped == len(rows) - len(set(rows))
    assert found.conflicts == len(set(rows)) - len({ordinal for _, _, ordinal in rows})


def test_trades_are_cut_between_markets_so_that_repeats_meet(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arb_pipeline.storage.lake._PIECE", 1)
    lake.write_part("trades", TWENTY, trades([("t1", 3, 30, "0.5"), ("t2", 4, 40, "0.6")]), "b")
    lake.write_part("trades", TWENTY, trades([("t1", 900, 90, "0.5")]), "a")
    found = lake.compact("trades", TWENTY)
    assert (found.rows, found.dropped) == (2, 1)


def test_no_more_rows_are_held_than_a_piece(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arb_pipeline.storage.lake._PIECE", 500)
    held: list[int] = []
    coded = Lake._coded

    def measured(*given: object) -> pa.Table:
        rows = coded(*given)  # type: ignore[arg-type]
        held.append(rows.num_rows)
        return rows

    monkeypatch.setattr(Lake, "_coded", measured)
    for part in range(4):
        rows = [(f"M{n % 7}" if n % 2 else "BIG", n, part * 1_000 + n) for n in range(1_000)]
        lake.write_part("quotes", TWENTY, quotes(*rows), f"w{part}")
    assert lake.compact("quotes", TWENTY).rows == 4_000
    assert sum(held) == 4_000
    assert max(held) <= 504  # a cut falls between instants, of which each part has one row here
