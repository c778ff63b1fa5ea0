from decimal import Decimal
from pathlib import Path

import duckdb
import fsspec
import pytest

from arb_pipeline.storage import Lake
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.query import connect, write_database
from arb_pipeline.tables import TABLES
from arb_pipeline_tests.storage.rows import TWENTY, TWENTY_ONE, quotes
from arb_pipeline_tests.storage.test_catalogue import AT, simple


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "la'ke"))
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1), ("B", 2, 2)), "run")
    lake.write_part("quotes", TWENTY_ONE, quotes(("A", 3_600, 3)), "run")
    return lake


def test_views_hold_what_the_manifest_lists_with_exact_types(lake: Lake) -> None:
    (Path(lake.root) / "quotes" / TWENTY.path / "part-x-0.parquet").write_bytes(b"rubbish")
    with connect(lake) as connection:
        rows = connection.execute(
            "SELECT market_id, ordinal, bid, bid_size, ask FROM quotes ORDER BY ordinal"
        ).fetchall()
    assert rows[0] == ("A", 1, Decimal("0.4100"), Decimal("100.250000"), None)
    assert len(rows) == 3


def test_every_table_is_a_view_with_its_declared_columns_even_when_empty(tmp_path: Path) -> None:
    with connect(Lake(str(tmp_path / "empty"))) as connection:
        for table in TABLES.values():
            described = connection.execute(f'DESCRIBE "{table.name}"').fetchall()
            assert tuple(row[0] for row in described) == table.column_names
            assert connection.execute(f'SELECT count(*) FROM "{table.name}"').fetchone() == (0,)
        types = {row[0]: row[1] for row in connection.execute("DESCRIBE trades").fetchall()}
    assert types["price"] == "DECIMAL(12,9)"
    assert types["recv_ns"] == "BIGINT"


def test_types_are_the_same_with_and_without_files(lake: Lake, tmp_path: Path) -> None:
    write_catalogue(lake, "kalshi", [simple("E", "M")], AT)
    with connect(lake) as full, connect(Lake(str(tmp_path / "empty"))) as empty:
        for name in ("quotes", "events", "markets"):
            assert full.execute(f"DESCRIBE {name}").fetchall() == empty.execute(f"DESCRIBE {name}").fetchall()


def test_current_views_show_the_newest_day(lake: Lake) -> None:
    write_catalogue(lake, "kalshi", [simple("old", "M")], AT.replace(day=12))
    write_catalogue(lake, "kalshi", [simple("new", "M")], AT)
    with connect(lake) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (2,)
        assert connection.execute("SELECT event_id FROM events_current").fetchall() == [("new",)]
        assert connection.execute("SELECT event_id FROM markets_current").fetchall() == [("new",)]


def test_a_database_file_is_replaced_in_one_step_and_stands_alone(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "out" / "lake.duckdb"
    for _ in range(2):
        assert write_database(lake, path) == path
    assert [p.name for p in path.parent.iterdir()] == ["lake.duckdb"]
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM quotes").fetchone() == (3,)


def test_any_fsspec_filesystem_can_be_queried() -> None:
    lake = Lake("memory://query-of-test")
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    try:
        with connect(lake) as connection:
            assert connection.execute("SELECT market_id FROM quotes").fetchall() == [("A",)]
    finally:
        fsspec.filesystem("memory").rm("/query-of-test", recursive=True)
