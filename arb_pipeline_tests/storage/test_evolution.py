"""New columns are nullable and raise the version, and what older versions wrote stays readable."""

from pathlib import Path

import pyarrow as pa
import pytest

from arb_pipeline.storage import Lake, LakeError
from arb_pipeline.storage import lake as lake_module
from arb_pipeline.storage.check import Problem, check
from arb_pipeline.storage.lake import MANIFEST, NewerSchemaError
from arb_pipeline.storage.query import connect
from arb_pipeline.tables import SCHEMA_VERSION, Table, table
from arb_pipeline_tests.conftest import ObjectStore
from arb_pipeline_tests.storage.pinned import declared, pinned, versions
from arb_pipeline_tests.storage.rows import HOUR, START, TWENTY, TWENTY_ONE, quotes

OLD = SCHEMA_VERSION - 1
MADE_ANEW = {("candles", 3)}
"""Tables that moved to other partitions with a version: derived ones, to be deleted and made again from the rest."""


def without(declaration: Table, *missing: str) -> Table:
    """An older declaration of a table."""
    return Table(
        declaration.name,
        declaration.doc,
        tuple(column for column in declaration.columns if column.name not in missing),
        declaration.key,
        declaration.sort,
        declaration.partitioning,
        declaration.by_venue,
    )


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "lake")
    store: ObjectStore = request.getfixturevalue("s3_lake")
    return store.url


def write_old(root: str, monkeypatch: pytest.MonkeyPatch, rows: pa.Table, *missing: str, version: int = OLD) -> None:
    """A part as a package of an older version wrote it, of a table that lacked columns then."""
    old = without(table("quotes"), *missing)
    old.schema  # noqa: B018 - made once, with the version in its metadata
    with monkeypatch.context() as patch:
        patch.setattr(lake_module, "SCHEMA_VERSION", version)
        metadata = {**old.schema.metadata, b"arb.schema_version": str(version).encode()}
        object.__setattr__(old, "schema", old.schema.with_metadata(metadata))
        Lake(root).write_part(old, TWENTY, rows.drop_columns(list(missing)), "old")


def test_files_that_lack_new_columns_are_read_with_nulls_everywhere(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_old(root, monkeypatch, quotes(("A", 1, 1)), "seq", "bid_size")
    lake = Lake(root)
    lake.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "new")
    assert [entry.schema_version for entry in lake.manifest("quotes", TWENTY).files] == [SCHEMA_VERSION, OLD]

    def sees_both() -> None:
        rows = lake.read("quotes")
        assert rows.schema.equals(table("quotes").schema)
        assert rows["seq"].to_pylist() == [None, 2]
        assert lake.read("quotes", columns=["bid_size"])["bid_size"].null_count == 1
        with connect(lake) as database:
            assert database.sql("select ordinal, seq, bid_size is null from quotes order by ordinal").fetchall() == [
                (1, None, True),
                (2, 2, False),
            ]

    sees_both()
    assert check(lake).findings == []
    lake.compact("quotes", TWENTY)
    [entry] = lake.manifest("quotes", TWENTY).files
    assert (entry.rows, entry.schema_version) == (2, SCHEMA_VERSION)
    sees_both()
    assert check(lake).findings == []


def test_an_old_partition_alone_is_read_updated_and_replaced_in_part(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_old(root, monkeypatch, quotes(("A", 1, 1), ("B", 1, 2)), "seq")
    lake = Lake(root)
    assert lake.read("quotes", START, START + HOUR, "kalshi", markets=["A"])["seq"].to_pylist() == [None]
    lake.replace_where("quotes", TWENTY, quotes(("B", 2, 3)), "market_id", ["B"])
    assert lake.read("quotes")["seq"].to_pylist() == [None, 3]
    lake.update("quotes", TWENTY, lambda held: held)
    assert lake.read("quotes")["ordinal"].to_pylist() == [1, 3]


def test_a_column_that_must_not_be_null_cannot_be_lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path / "lake")
    write_old(root, monkeypatch, quotes(("A", 1, 1)), "in_sync")
    [finding] = check(Lake(root)).findings
    assert (finding.problem, finding.detail) == (Problem.SCHEMA, "column in_sync is not there")


def test_a_newer_file_is_refused_by_every_reader_and_writer(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_old(root, monkeypatch, quotes(("A", 1, 1)), version=SCHEMA_VERSION + 1)
    lake = Lake(root)
    for work in (
        lambda: lake.read("quotes"),
        lambda: connect(lake),
        lambda: lake.compact("quotes", TWENTY),
        lambda: lake.write_part("quotes", TWENTY, quotes(("A", 2, 2)), "run"),
        lambda: lake.manifest("quotes", TWENTY),
    ):
        with pytest.raises(
            NewerSchemaError, match=f"schema version {SCHEMA_VERSION + 1}, this package knows {SCHEMA_VERSION}; install"
        ):
            work()
    lake.write_part("quotes", TWENTY_ONE, quotes(("A", 3_600, 3)), "run")
    assert lake.read("quotes", START + HOUR, START + 2 * HOUR, "kalshi").num_rows == 1
    assert [(one.problem, one.file) for one in check(lake).findings] == [(Problem.VERSION, MANIFEST)]
    assert issubclass(NewerSchemaError, LakeError)


def test_the_declarations_are_those_of_their_version() -> None:
    assert versions()[-1] == SCHEMA_VERSION
    assert pinned(SCHEMA_VERSION) == declared(), (
        "tables.py changed: raise SCHEMA_VERSION and run python -m arb_pipeline_tests.storage.pinned"
    )


@pytest.mark.parametrize(("old", "new"), list(zip(versions()[:-1], versions()[1:], strict=True)))
def test_a_version_only_adds_nullable_columns(old: int, new: int) -> None:
    before, after = pinned(old), pinned(new)
    for name, was in before.items():
        now = after[name]
        assert now["key"] == was["key"], name
        assert now["partitioning"] == was["partitioning"] or (name, new) in MADE_ANEW, name
        assert set(was["columns"]) <= set(now["columns"]), name
        assert all(column.endswith(" null") for column in set(now["columns"]) - set(was["columns"])), name
