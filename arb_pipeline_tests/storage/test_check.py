import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arb_pipeline.storage import Lake, Partition
from arb_pipeline.storage.check import Checked, Finding, Problem, check, compact_all, describe
from arb_pipeline.storage.lake import MANIFEST, FileEntry, Manifest
from arb_pipeline.tables import SCHEMA_VERSION, table
from arb_pipeline_tests.conftest import ObjectStore
from arb_pipeline_tests.storage.rows import HOUR, SECOND, START, TWENTY, TWENTY_ONE, gaps, quotes, trades


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    lake.replace("quotes", TWENTY, quotes(("A", 1, 1), ("A", 2, 2), ("B", 1, 3)))
    return lake


def folder(lake: Lake, name: str = "quotes", partition: Partition = TWENTY) -> Path:
    return Path(lake.root) / name / partition.path


def data_file(lake: Lake) -> Path:
    [entry] = lake.manifest("quotes", TWENTY).files
    return folder(lake) / entry.name


def problems(done: Checked) -> list[Problem]:
    return sorted(finding.problem for finding in done.findings)


def relist(lake: Lake, change: Callable[[FileEntry], FileEntry]) -> None:
    """Change the only entry of the manifest."""
    manifest = lake.manifest("quotes", TWENTY)
    [entry] = manifest.files
    path = folder(lake) / MANIFEST
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, files=(change(entry),))))


def forge(lake: Lake, rows: pa.Table, **entry: object) -> None:
    """Put rows that the lake would refuse in the place of its file, with a manifest that is right about the bytes."""
    path = data_file(lake)
    schema = rows.schema.with_metadata({**table("quotes").schema.metadata, b"arb.exchange": b""})
    pq.write_table(rows.cast(schema), path)
    data = path.read_bytes()
    relist(
        lake,
        lambda old: msgspec.structs.replace(
            old, rows=rows.num_rows, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), **entry
        ),
    )


def test_a_sound_lake_in_parts_and_merged_of_every_kind_of_partition(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY_ONE, quotes(("B", 3_601, 9), ("A", 3_600, 7)), "run")
    lake.write_part("quotes", TWENTY_ONE, quotes(("A", 3_600, 7)), "again")
    lake.replace("trades", TWENTY, trades([("t1", 1, 1, "0.1"), ("t2", 2, 2, "0.2")]))
    lake.write_part("book_gaps", Partition.of("book_gaps", "kalshi", START), gaps(("A", 0, 10), ("B", 1, None)), "run")
    lake.replace("match_review", Partition(), table("match_review").schema.empty_table())
    lake.replace("quotes", Partition.of("quotes", "kalshi", START + 5 * HOUR), quotes())
    seen: dict[str, int] = {}
    done = check(lake, progress=seen.__setitem__)
    assert done.findings == []
    assert done.sound
    assert (done.partitions, done.files, done.rows) == (6, 5, 10)
    assert done.bytes == sum(path.stat().st_size for path in Path(lake.root).rglob("*.parquet"))
    assert seen == {"quotes": 3, "trades": 1, "book_gaps": 1}
    assert check(lake, tables=["trades"]).files == 1
    assert check(lake, tables=["quotes"], start=START + HOUR, end=START + 2 * HOUR).files == 2


def test_a_file_that_is_gone(lake: Lake) -> None:
    data_file(lake).unlink()
    assert problems(check(lake)) == [Problem.MISSING]
    assert problems(check(lake, content=False)) == [Problem.MISSING]


def test_a_file_that_was_cut_and_one_of_which_a_bit_turned(lake: Lake) -> None:
    path = data_file(lake)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert problems(check(lake)) == [Problem.SHA256, Problem.SIZE]
    assert problems(check(lake, content=False)) == [Problem.SIZE]
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    assert problems(check(lake)) == [Problem.SHA256]
    assert check(lake, content=False).sound


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rows": 4}, Problem.ROWS),
        ({"min_ns": START}, Problem.TIMES),
        ({"max_ns": None}, Problem.TIMES),
        ({"schema_version": SCHEMA_VERSION - 1}, Problem.SCHEMA),
        ({"exchange": "toy"}, Problem.ORIGIN),
        ({"bytes": 1}, Problem.SIZE),
    ],
)
def test_a_manifest_that_says_something_else(lake: Lake, change: dict[str, object], problem: Problem) -> None:
    relist(lake, lambda entry: msgspec.structs.replace(entry, **change))
    assert problems(check(lake)) == [problem]


@pytest.mark.parametrize(
    ("rows", "entry", "problem"),
    [
        (quotes(("B", 1, 1), ("A", 1, 2)), {"min_ns": START + SECOND, "max_ns": START + SECOND}, Problem.ORDER),
        (quotes(("A", 1, 1), ("A", 2, 1)), {}, Problem.DUPLICATES),
        (quotes(("A", 1, 1), ("A", 3_600, 2)), {"max_ns": START + HOUR}, Problem.OUTSIDE),
        (quotes(("A", 1, 1), ("A", 2, 2), venue="polymarket"), {}, Problem.OUTSIDE),
    ],
)
def test_rows_that_the_lake_would_not_have_written(
    lake: Lake, rows: pa.Table, entry: dict[str, object], problem: Problem
) -> None:
    forge(lake, rows, **{"max_ns": START + 2 * SECOND, **entry})
    assert problems(check(lake)) == [problem]


def test_a_key_of_many_columns_is_counted_across_row_groups(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arb_pipeline.storage.check.ROW_GROUP", 3)
    rows = trades([(f"t{n % 7}", n, n, "0.5") for n in range(10)])
    differing = rows.set_column(
        rows.column_names.index("size"), "size", pa.array([Decimal(n) for n in range(10)], pa.decimal128(18, 6))
    )
    lake.write_part("trades", TWENTY, differing, "run")
    assert check(lake).sound  # repeats in parts are what compaction is for
    assert lake.compact("trades", TWENTY).conflicts == 3
    [finding] = check(lake).findings
    assert (finding.problem, finding.detail[:6]) == (Problem.DUPLICATES, "3 rows")
    lake.replace("trades", TWENTY, trades([(f"t{n}", n, n, "0.5") for n in range(10)]))
    assert check(lake).sound


@pytest.mark.parametrize(
    ("rows", "detail"),
    [
        (quotes(("A", 1, 1)).drop_columns("seq"), "column seq is not there"),
        (quotes(("A", 1, 1)).append_column("surplus", pa.array([1])), "undeclared columns surplus"),
        (quotes(("A", 1, 1)).set_column(7, "bid", pa.array([0.41])), "column bid is double, not decimal128(9, 4)"),
    ],
)
def test_columns_that_are_not_declared(lake: Lake, rows: pa.Table, detail: str) -> None:
    forge(lake, rows)
    assert [(finding.problem, finding.detail) for finding in check(lake).findings] == [(Problem.SCHEMA, detail)]


def test_a_damaged_manifest_a_newer_one_and_one_of_another_partition(lake: Lake) -> None:
    path = folder(lake) / MANIFEST
    good = path.read_text()
    path.write_text(good[:30])
    assert problems(check(lake)) == [Problem.MANIFEST]
    path.write_text(good.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 999'))
    assert problems(check(lake, grace=timedelta(0), repair=True)) == [Problem.VERSION]
    path.write_text(good.replace("hour=20", "hour=21"))
    assert problems(check(lake)) == [Problem.MANIFEST]


def test_data_of_two_exchanges(lake: Lake) -> None:
    manifest = lake.manifest("quotes", TWENTY)
    toy = Lake(str(Path(lake.root).parent / "toy"), "toy")
    entry = toy.write_part("quotes", TWENTY, quotes(("C", 5, 5)), "run")
    assert entry is not None
    (folder(lake) / entry.name).write_bytes((folder(toy) / entry.name).read_bytes())
    mixed = Manifest(table="quotes", partition=TWENTY.path, files=(*manifest.files, entry))
    (folder(lake) / MANIFEST).write_bytes(msgspec.json.encode(mixed))
    assert problems(check(lake)) == [Problem.ORIGIN]


def _old(path: Path, hours: float = 2) -> Path:
    at = time.time() - hours * 3_600
    os.utime(path, (at, at))
    return path


def test_orphans_are_found_and_only_they_are_deleted(lake: Lake) -> None:
    listed = data_file(lake)
    torn = folder(lake) / ".data-x.parquet.1234.tmp"
    torn.write_bytes(b"PAR1")
    orphan = folder(lake) / "part-run-000000000000.parquet"
    orphan.write_bytes(listed.read_bytes())
    foreign = folder(lake) / "notes.txt"
    foreign.write_text("mine")
    unborn = folder(lake, partition=TWENTY_ONE) / "data-000000000000.parquet"
    unborn.parent.mkdir(parents=True)
    unborn.write_bytes(b"PAR1")
    done = check(lake, repair=True)
    assert (done.findings, done.in_flight) == ([], 4)
    for path in (torn, orphan, foreign, unborn, listed):
        _old(path)
    assert problems(check(lake)) == [Problem.ORPHAN] * 4
    assert orphan.exists()
    done = check(lake, repair=True)
    assert {Path(finding.file).suffix: finding.repaired for finding in done.findings} == {
        ".tmp": True,
        ".parquet": True,
        ".txt": False,
    }
    assert not done.sound
    assert listed.exists()
    assert foreign.exists()
    assert not any(path.exists() for path in (torn, orphan, unborn))
    foreign.unlink()
    assert check(lake).sound
    assert lake.read("quotes").num_rows == 3


def test_a_folder_that_is_no_partition(lake: Lake) -> None:
    stray = Path(lake.root) / "quotes" / "venue=kalshi" / "date=2026-5-1" / "x.parquet"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"")
    [finding] = check(lake, repair=True).findings
    assert (finding.problem, finding.partition, finding.repaired) == (
        Problem.ORPHAN,
        "venue=kalshi/date=2026-5-1",
        False,
    )
    assert stray.exists()


def test_a_compaction_meanwhile_is_no_finding(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write_part("quotes", TWENTY, quotes(("C", 9, 9)), "run")
    stale = lake.manifest("quotes", TWENTY)
    lake.compact("quotes", TWENTY)
    manifest = Lake.manifest
    answers = iter([stale])
    monkeypatch.setattr(Lake, "manifest", lambda *given: next(answers, None) or manifest(*given))
    done = check(lake)
    assert done.findings == []
    assert (done.files, done.rows) == (1, 4)


def test_on_an_object_store(s3_lake: ObjectStore) -> None:
    lake = Lake(s3_lake.url)
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    lake.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "run")
    assert check(lake).findings == []
    [entry, other] = lake.manifest("quotes", TWENTY).files
    store, path = lake.store, lake.location("quotes", TWENTY, entry.name)
    store.write(lake.location("quotes", TWENTY, "part-dead-000000000000.parquet"), b"PAR1")
    store.write(path, store.read(path)[:-1] + b"x")
    store.delete([lake.location("quotes", TWENTY, other.name)])
    assert check(lake).in_flight == 1
    found = check(lake, repair=True, grace=timedelta(0)).findings
    assert sorted((one.problem, one.repaired) for one in found) == [
        (Problem.MISSING, False),
        (Problem.ORPHAN, True),
        (Problem.SHA256, False),
    ]
    assert check(lake, grace=timedelta(0)).in_flight == 0


def test_describe_and_compact_all(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY_ONE, quotes(("A", 3_600, 7)), "run")
    lake.write_part("quotes", TWENTY_ONE, quotes(("A", 3_600, 7), ("B", 3_601, 8)), "again")
    toy = Lake(lake.root, "toy")
    toy.write_part("trades", TWENTY, trades([("t1", 1, 1, "0.1")]), "run")
    told = {one.table: one for one in describe(lake)}
    assert (told["quotes"].partitions, told["quotes"].files, told["quotes"].rows) == (2, 3, 6)
    assert (told["quotes"].min_ns, told["quotes"].max_ns) == (START + SECOND, START + 3_601 * SECOND)
    assert told["markets"].partitions == 0
    found = compact_all(lake)
    assert {key: (one.rows, one.dropped) for key, one in found.items()} == {
        ("quotes", TWENTY_ONE): (2, 1),
        ("trades", TWENTY): (1, 0),
    }
    assert compact_all(lake) == {}
    assert check(lake).sound


def test_findings_are_told_as_json(lake: Lake) -> None:
    data_file(lake).unlink()
    [finding] = check(lake).findings
    assert isinstance(finding, Finding)
    assert json.loads(json.dumps(asdict(finding)))["problem"] == "missing"
