"""The lake on an S3-compatible server: everything it offers, and writers that race."""

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from arb_pipeline.storage import Lake, LakeError, Partition
from arb_pipeline.storage.check import check
from arb_pipeline.storage.files import MARKER, S3Files, StoreError
from arb_pipeline.storage.lake import MANIFEST
from arb_pipeline.storage.query import connect
from arb_pipeline_tests.conftest import ObjectStore
from arb_pipeline_tests.storage.rows import HOUR, SECOND, START, TWENTY, TWENTY_ONE, gaps, quotes, trades


@pytest.fixture
def lake(s3_lake: ObjectStore) -> Lake:
    return Lake(s3_lake.url)


def objects(lake: Lake) -> dict[str, bytes]:
    """Everything in the lake by its path below the root, but the marker of conditional writes."""
    root = lake.root.removeprefix("s3://")
    found = {path.removeprefix(root + "/"): lake.filesystem.cat_file(path) for path in lake.filesystem.find(root)}
    found.pop(MARKER, None)
    return found


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_every_way_to_write_gives_the_bytes_of_a_local_lake(lake: Lake, tmp_path: Path) -> None:
    local = Lake(str(tmp_path / "lake"))
    for each in (lake, local):
        each.write_part("quotes", TWENTY, quotes(("B", 5, 5), ("A", 9, 9)), "run1")
        each.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run1")
        assert each.compact("quotes", TWENTY).rows == 3
        each.write_part("quotes", TWENTY_ONE, quotes(("A", 3_600, 7)), "run1")
        each.replace("trades", TWENTY, trades([("t1", 1, 1, "0.1")], connection="a"))
        each.replace_where("trades", TWENTY, trades([("t2", 2, 2, "0.2")], connection="b"), "connection_id", ["a"])
        each.update("trades", TWENTY, lambda held: pa.concat_tables([held, trades([("t3", 3, 3, "0.3")])]))
        each.write_part("book_gaps", Partition.of("book_gaps", "kalshi", START), gaps(("A", 0, 10)), "run1")
        each.replace("quotes", Partition.of("quotes", "kalshi", START + 5 * HOUR), quotes())
    assert objects(lake) == files(tmp_path / "lake")
    assert lake.partitions("quotes") == local.partitions("quotes")
    assert lake.partitions("quotes", "polymarket") == []
    assert lake.read("quotes").equals(local.read("quotes"))
    assert lake.read("trades", START, START + HOUR, "kalshi").equals(local.read("trades"))
    assert lake.read("book_gaps", START + SECOND, START + 2 * SECOND)["market_id"].to_pylist() == ["A"]
    assert lake.current("quotes", "kalshi").equals(local.current("quotes", "kalshi"))


def test_sql_over_it(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1), ("B", 2, 2)), "run")
    lake.write_part("quotes", TWENTY, quotes(("A", 3, 3)), "run")
    with connect(lake) as database:
        assert database.sql("select market_id, count(*) from quotes group by all order by all").fetchall() == [
            ("A", 2),
            ("B", 1),
        ]
        assert database.sql("select count(*) from trades").fetchall() == [(0,)]


def test_a_reader_sees_what_another_process_just_wrote(lake: Lake) -> None:
    other = Lake(lake.root)
    assert other.partitions("quotes") == []
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    assert other.read("quotes").num_rows == 1
    lake.write_part("quotes", TWENTY_ONE, quotes(("A", 3_600, 2)), "run")
    lake.compact("quotes", TWENTY)
    assert other.read("quotes")["ordinal"].to_pylist() == [1, 2]


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


def test_partitions_of_another_layout_are_not_taken_for_those_of_now(lake: Lake) -> None:
    lake.replace("quotes", TWENTY, quotes(("A", 1, 1)))
    older = lake.location("quotes", Partition("kalshi", date(2026, 5, 13)), MANIFEST)
    lake.store.write(older, b'{"table": "quotes", "partition": "venue=kalshi/date=2026-05-13", "files": []}')
    assert lake.partitions("quotes") == [TWENTY]
    assert [finding.detail.split(":")[0] for finding in check(lake).findings] == ["in a folder that is no partition"]


def test_dropped_partitions_leave_nothing(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    lake.write_part("quotes", TWENTY_ONE, quotes(("A", 3_600, 2)), "run")
    assert lake.drop("quotes", TWENTY).rows == 1
    assert lake.partitions("quotes") == [TWENTY_ONE]
    assert not [path for path in objects(lake) if TWENTY.path in path]
    assert lake.drop("quotes", TWENTY).rows == 0


# --- requests ----------------------------------------------------------------------------------------------


def asked(s3_lake: ObjectStore, work: Callable[[], object]) -> list[str]:
    """What the store is asked for: LIST of a prefix, or a method and the name of an object."""
    before = len(s3_lake.requests)
    work()
    found = []
    for method, path, query in s3_lake.requests[before:]:
        found.append("LIST" if "list-type" in query else f"{method} {path.rsplit('/', 1)[-1]}")
    return found


def test_a_read_of_one_hour_lists_nothing_and_asks_for_one_manifest(lake: Lake, s3_lake: ObjectStore) -> None:
    for number in range(30):
        partition = Partition.of("quotes", "kalshi", START + number * HOUR)
        lake.replace("quotes", partition, quotes(("A", number * 3_600, number)))
    at = START + 3 * HOUR
    requests = asked(s3_lake, lambda: lake.files("quotes", at, at + HOUR, "kalshi"))
    assert requests == [f"GET {MANIFEST}"]
    requests = asked(s3_lake, lambda: lake.read("quotes", at, at + HOUR, "kalshi"))
    assert "LIST" not in requests
    assert requests.count(f"GET {MANIFEST}") == 1
    # Without a venue it has to ask which there are; of a long window, for the days and the hours of those in it.
    requests = asked(s3_lake, lambda: lake.files("quotes", at, at + HOUR))
    assert sorted(requests) == [f"GET {MANIFEST}", "LIST"]
    late = datetime(2026, 5, 14, tzinfo=UTC)
    requests = asked(s3_lake, lambda: lake.files("quotes", late, late + timedelta(days=400), "kalshi"))
    assert requests.count("LIST") == 3
    assert requests.count(f"GET {MANIFEST}") == 26
    assert len(requests) == 29
    assert asked(s3_lake, lambda: lake.partitions("quotes")) == ["LIST"]


def test_a_part_costs_two_puts_and_one_get(lake: Lake, s3_lake: ObjectStore) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    requests = asked(s3_lake, lambda: lake.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "run"))
    assert [request.split()[0] for request in requests] == ["GET", "PUT", "PUT"]


def test_what_a_compaction_replaced_goes_with_one_request(lake: Lake, s3_lake: ObjectStore) -> None:
    for number in range(5):
        lake.write_part("quotes", TWENTY, quotes(("A", number, number)), "run")
    requests = asked(s3_lake, lambda: lake.compact("quotes", TWENTY))
    assert sum(request.startswith(("POST", "DELETE")) for request in requests) == 1
    assert "LIST" not in requests
    assert len(objects(lake)) == 2


# --- writers that race -------------------------------------------------------------------------------------


def test_racing_threads_lose_nothing(lake: Lake) -> None:
    def write(number: int) -> None:
        mine = Lake(lake.root)
        mine.write_part("quotes", TWENTY, quotes(("A", number, number)), f"w{number % 4}")
        if number % 8 == 0:
            mine.compact("quotes", TWENTY)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(36)))
    assert lake.read("quotes")["ordinal"].to_pylist() == list(range(36))
    assert lake.compact("quotes", TWENTY).rows == 36
    # Of two compactions at once one comes too late, and leaves a file that nobody lists.
    assert check(lake, repair=True, grace=timedelta(0)).sound
    assert len(objects(lake)) == 2


def _write(root: str, begin: int, count: int) -> None:
    lake = Lake(root)
    for number in range(begin, begin + count):
        lake.write_part("trades", TWENTY, trades([(f"t{number}", number, number, "0.5")]), f"p{begin}")


def _upsert(root: str, begin: int, count: int) -> None:
    lake = Lake(root)
    for number in range(begin, begin + count):
        row = trades([(f"t{number}", number, number, "0.5")], connection="backfill")
        lake.update("trades", TWENTY, partial(_joined, row))


def _joined(row: pa.Table, held: pa.Table) -> pa.Table:
    return pa.concat_tables([held, row])


def test_a_capture_and_a_backfill_in_processes_of_their_own_lose_nothing(lake: Lake) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=_write, args=(lake.root, 0, 8)),
        spawn.Process(target=_upsert, args=(lake.root, 100, 4)),
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(lake.read("trades")["ordinal"].to_pylist()) == [*range(8), *range(100, 104)]


def test_parts_that_come_while_a_compaction_works_stay(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    lake.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "run")
    other = Lake(lake.root)
    swap = S3Files.swap
    late = iter([quotes(("A", 3, 3))])

    def interrupted(files: S3Files, path: str, data: bytes, version: str | None) -> bool:
        for rows in late:
            other.write_part("quotes", TWENTY, rows, "other")
        return swap(files, path, data, version)

    monkeypatch.setattr(S3Files, "swap", interrupted)
    assert lake.compact("quotes", TWENTY).rows == 2
    assert sorted(entry.name.split("-")[0] for entry in lake.manifest("quotes", TWENTY).files) == ["data", "part"]
    assert lake.read("quotes")["ordinal"].to_pylist() == [1, 2, 3]
    assert lake.compact("quotes", TWENTY).rows == 3
    assert len(objects(lake)) == 2


def test_a_compaction_that_another_one_overtook_finds_its_work_done(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    lake.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "run")
    other = Lake(lake.root)
    swap = S3Files.swap
    once = iter([None])

    def overtaken(files: S3Files, path: str, data: bytes, version: str | None) -> bool:
        for _ in once:
            other.compact("quotes", TWENTY)
        return swap(files, path, data, version)

    monkeypatch.setattr(S3Files, "swap", overtaken)
    assert lake.compact("quotes", TWENTY).rows == 2
    assert lake.read("quotes")["ordinal"].to_pylist() == [1, 2]
    assert len(objects(lake)) == 2


def test_a_drop_leaves_what_another_writer_just_added(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    other = Lake(lake.root)
    delete = S3Files.delete_version
    once = iter([None])

    def late(files: S3Files, path: str, version: str) -> None:
        for _ in once:
            other.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "other")
        delete(files, path, version)

    monkeypatch.setattr(S3Files, "delete_version", late)
    lake.drop("quotes", TWENTY)
    assert lake.read("quotes")["ordinal"].to_pylist() == [2]


def test_a_put_whose_answer_was_lost_is_no_conflict_with_itself(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    path = f"{lake.root.removeprefix('s3://')}/quotes/{TWENTY.path}/{MANIFEST}"
    store = S3Files(lake.filesystem, lake.root.removeprefix("s3://"))
    read = store.read_version(path)
    assert read is not None
    assert store.swap(path, read[0] + b"\n", read[1])
    assert store.swap(path, read[0] + b"\n", read[1])
    assert not store.swap(path, b"{}", read[1])


def test_a_store_that_ignores_conditions_is_refused(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    call = type(lake.filesystem).call_s3

    def careless(filesystem: object, method: str, **given: object) -> object:
        given.pop("IfMatch", None)
        given.pop("IfNoneMatch", None)
        return call(filesystem, method, **given)

    monkeypatch.setattr(type(lake.filesystem), "call_s3", careless)
    with pytest.raises(StoreError, match="heeds conditional writes"):
        lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")


def test_trouble_with_the_store_is_an_os_error_and_the_remedy_of_a_missing_bucket_is_plain(
    s3_lake: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="bucket"):
        Lake("s3://no-such-bucket-of-mine/lake").write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    with pytest.raises(LakeError, match="writer"):
        Lake(s3_lake.url).write_part("quotes", TWENTY, quotes(("A", 1, 1)), "a/b")
    assert json.loads(json.dumps(s3_lake.environment))["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
