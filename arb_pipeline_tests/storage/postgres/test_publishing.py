from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from arb_pipeline.storage import Lake, Partition
from arb_pipeline.storage.lake import ROW_GROUP
from arb_pipeline.storage.postgres import (
    Postgres,
    PostgresError,
    PostgresUnavailableError,
    TickLoader,
    mirror,
    publishing,
    sync,
)
from arb_pipeline.storage.postgres.connection import Connection
from arb_pipeline.storage.postgres.schema import is_mirrored, metadata
from arb_pipeline.storage.postgres.staging import Inserted, insert_rows
from arb_pipeline.tables import TABLES, Partitioning, table
from arb_pipeline_tests.storage.postgres.reading import rows_of, select
from arb_pipeline_tests.storage.postgres.test_loading import changed
from arb_pipeline_tests.storage.rows import SECOND, START, TWENTY, TWENTY_ONE, gaps, quotes, trades

DAY = Partition.parse("venue=kalshi/date=2026-05-13")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def filled(name: str, number: int = 1) -> pa.Table:
    """A row of any table: each column's own type, told apart by a number."""
    values: dict[pa.DataType, Callable[[], object]] = {
        pa.string(): lambda: f"v{number}",
        pa.int64(): lambda: number,
        pa.bool_(): lambda: True,
        pa.float64(): lambda: number / 2,
        pa.date32(): lambda: date(2026, 5, 13),
        pa.timestamp("us", tz="UTC"): lambda: 1_778_702_400_000_000 + number,
    }
    row = {
        column.name: values[column.type]() if column.type in values else Decimal(number).scaleb(-column.type.scale)
        for column in table(name).columns
    }
    for column in ("recv_ns", "from_ns", "to_ns", "opened_ns"):
        if column in row:
            row[column] = 1_778_702_400_000_000_000 + number
    if "venue" in row:
        row["venue"] = "kalshi"
    return pa.Table.from_pylist([row], schema=table(name).schema)


def partition_of(name: str) -> Partition:
    declared = table(name)
    venue = "kalshi" if declared.by_venue else None
    if declared.partitioning is Partitioning.CURRENT:
        return Partition()
    return Partition(venue, date(2026, 5, 13), 20 if declared.partitioning is Partitioning.HOUR else None)


def publish(postgres: Postgres, lake: Lake, name: str, partition: Partition, rows: pa.Table) -> int | None:
    """Make the rows those of the lake, and of Postgres."""
    lake.replace(name, partition, rows)
    return mirror(postgres, lake, name, partition)


@pytest.mark.parametrize("name", [name for name, declared in TABLES.items() if is_mirrored(declared)])
def test_every_table_takes_a_partition_and_replaces_it_as_a_whole(postgres: Postgres, lake: Lake, name: str) -> None:
    partition = partition_of(name)
    assert publish(postgres, lake, name, partition, pa.concat_tables([filled(name, 1), filled(name, 2)])) == 2
    assert publish(postgres, lake, name, partition, filled(name, 3)) == 1
    assert rows_of(postgres, name) == filled(name, 3).to_pylist()
    assert publish(postgres, lake, name, partition, filled(name).slice(0, 0)) == 0
    assert rows_of(postgres, name) == []


def test_other_partitions_stay(postgres: Postgres, lake: Lake) -> None:
    other = Partition.parse("venue=kalshi/date=2026-05-12")
    publish(postgres, lake, "markets", other, filled("markets", 1))
    publish(postgres, lake, "markets", DAY, filled("markets", 1))
    publish(postgres, lake, "markets", DAY, filled("markets", 2))
    days = "SELECT lake_date, market_id FROM markets ORDER BY 1"
    assert select(postgres, days) == [(date(2026, 5, 12), "v1"), (date(2026, 5, 13), "v2")]
    assert select(postgres, "SELECT market_id FROM markets_current") == [("v2",)]


def test_of_matches_those_that_hold_are_current_whatever_their_day(postgres: Postgres, lake: Lake) -> None:
    holds = filled("market_matches", 1).to_pylist()[0] | {
        "valid_from": datetime(2026, 5, 12, 20, tzinfo=UTC),
        "valid_to": None,
    }
    rows = pa.Table.from_pylist([holds], schema=table("market_matches").schema)
    publish(postgres, lake, "market_matches", Partition(None, date(2026, 5, 12)), rows)
    publish(postgres, lake, "market_matches", Partition(None, date(2026, 5, 13)), filled("market_matches", 2))
    assert select(postgres, "SELECT kalshi_market_id FROM market_matches_current") == [("v1",)]


def test_a_table_that_postgres_has_none_of_is_named(postgres: Postgres, lake: Lake) -> None:
    with pytest.raises(PostgresError, match="no table 'raw_frames'"):
        mirror(postgres, lake, "raw_frames", TWENTY)


@pytest.fixture
def many(lake: Lake) -> pa.Table:
    """Quotes of three row groups in one partition of the lake; on an hour's every millisecond."""
    count = 2 * ROW_GROUP + 10
    rows = changed(quotes(("A", 0, 0)).take(pa.array([0] * count)), bid=None)
    for name, values in (("recv_ns", np.arange(count) * (SECOND // 1_000) + START), ("ordinal", np.arange(count))):
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    lake.replace("quotes", TWENTY, rows)
    return rows


def test_a_partition_is_read_a_row_group_at_a_time(
    postgres: Postgres, lake: Lake, many: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, sizes, held = pa.total_allocated_bytes(), list[int](), list[int]()

    def watched(connection: Connection, name: str, rows: pa.Table, run_id: str) -> Inserted:
        sizes.append(rows.num_rows)
        held.append(pa.total_allocated_bytes() - before)
        return insert_rows(connection, name, rows, run_id)

    monkeypatch.setattr(publishing, "insert_rows", watched)
    assert mirror(postgres, lake, "quotes", TWENTY) == many.num_rows
    assert sizes == [ROW_GROUP, ROW_GROUP, 10]
    # The second comes while the first is still held, but never both and what came before.
    assert max(held) < 2.5 * ROW_GROUP * many.nbytes / many.num_rows
    told = select(postgres, "SELECT count(*), min(ordinal), max(ordinal), count(DISTINCT ordinal) FROM quotes")
    assert told == [(many.num_rows, 0, many.num_rows - 1, many.num_rows)]
    assert [row["ordinal"] for row in rows_of(postgres, "latest_prices")] == [many.num_rows - 1]


def test_a_partition_that_fails_in_its_midst_stays_as_it_was(
    postgres: Postgres, lake: Lake, many: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Lake(f"{lake.root}-before")
    publish(postgres, other, "quotes", TWENTY, quotes(("A", 1, 7)))

    def lost(connection: Connection, name: str, rows: pa.Table, run_id: str) -> Inserted:
        if rows.num_rows < ROW_GROUP:
            raise psycopg.OperationalError("the connection is lost")
        return insert_rows(connection, name, rows, run_id)

    with monkeypatch.context() as broken:
        broken.setattr(publishing, "insert_rows", lost)
        with pytest.raises(PostgresUnavailableError):
            sync(postgres, lake)
    assert [row["ordinal"] for row in rows_of(postgres, "quotes")] == [7]
    assert [(one.partition, one.rows) for one in sync(postgres, lake)] == [(TWENTY.path, many.num_rows)]


def test_files_that_are_replaced_while_they_are_read_are_read_anew(
    postgres: Postgres, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write_part("trades", TWENTY, trades([("t", 1, 5, "0.5")]), "a")
    lake.write_part("trades", TWENTY, trades([("u", 2, 7, "0.5")]), "b")
    calls = []

    def compacted(connection: Connection, name: str, rows: pa.Table, run_id: str) -> Inserted:
        calls.append(rows.num_rows)
        if len(calls) == 1:
            lake.compact("trades", TWENTY)
        return insert_rows(connection, name, rows, run_id)

    monkeypatch.setattr(publishing, "insert_rows", compacted)
    assert mirror(postgres, lake, "trades", TWENTY) == 2
    assert calls == [1, 2]
    assert rows_of(postgres, "trades") == lake.read("trades").to_pylist()
    assert sync(postgres, lake) == []


def test_bringing_up_to_date_publishes_what_changed_and_nothing_else(postgres: Postgres, lake: Lake) -> None:
    lake.replace("quotes", TWENTY, quotes(("A", 1, 1)))
    lake.replace("quotes", TWENTY_ONE, quotes(("A", 3_601, 2)))
    lake.replace("trades", TWENTY, trades([("t", 1, 5, "0.5")]))
    lake.replace("book_gaps", DAY, gaps(("A", 1, 5)))
    done = sync(postgres, lake)
    assert {(one.table, one.partition, one.rows) for one in done} == {
        ("quotes", TWENTY.path, 1),
        ("quotes", TWENTY_ONE.path, 1),
        ("trades", TWENTY.path, 1),
        ("book_gaps", DAY.path, 1),
    }
    for name in ("quotes", "trades", "book_gaps"):
        assert rows_of(postgres, name) == lake.read(name).to_pylist()
    assert [row["ordinal"] for row in rows_of(postgres, "latest_prices")] == [2]
    assert sync(postgres, lake) == []
    lake.replace("quotes", TWENTY, quotes(("A", 1, 1), ("A", 2, 7)))
    assert [(one.partition, one.rows) for one in sync(postgres, lake)] == [(TWENTY.path, 2)]
    assert rows_of(postgres, "quotes") == lake.read("quotes").to_pylist()
    assert len(sync(postgres, lake, ["quotes"], force=True)) == 2
    assert len(sync(postgres, lake, ["trades"], date(2026, 5, 12), force=True)) == 0


def test_ticks_of_days_that_are_dropped_stay_away(postgres: Postgres, lake: Lake) -> None:
    lake.replace("quotes", TWENTY, quotes(("A", 1, 1)))
    lake.replace("markets", DAY, filled("markets"))
    assert [one.table for one in sync(postgres, lake, since=date(2026, 5, 14))] == ["markets"]


def test_parts_that_are_not_yet_merged_are_published_without_their_repeats(postgres: Postgres, lake: Lake) -> None:
    lake.write_part("trades", TWENTY, trades([("t", 2, 6, "0.5"), ("u", 2, 7, "0.5")]), "a")
    lake.write_part("trades", TWENTY, trades([("t", 1, 5, "0.5")]), "b")
    assert mirror(postgres, lake, "trades", TWENTY) == 2
    assert [row["ordinal"] for row in rows_of(postgres, "trades")] == [5, 7]


def test_what_a_run_is_loading_is_left_to_the_run(postgres: Postgres, lake: Lake) -> None:
    loader = TickLoader(postgres, "run", "")
    loader.load(1, {"quotes": quotes(("A", 1, 1), ("A", 2, 2))})
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    assert [bool(one.skipped) for one in sync(postgres, lake)] == [True]
    assert len(rows_of(postgres, "quotes")) == 2
    loader.finish()
    assert [one.skipped for one in sync(postgres, lake)] == [""]


def test_rows_of_a_local_exchange_are_not_mixed_with_the_real_venues(postgres: Postgres, lake: Lake) -> None:
    lake.with_exchange("local").replace("quotes", TWENTY, quotes(("A", 1, 1)))
    sync(postgres, lake)
    real = Lake(f"{lake.root}-real")
    real.replace("quotes", TWENTY_ONE, quotes(("A", 3_601, 2)))
    with pytest.raises(PostgresError, match="holds data of local"):
        mirror(postgres, real, "quotes", TWENTY_ONE)


def test_every_table_of_the_lake_has_its_columns_in_postgres() -> None:
    made = metadata().tables
    for name, declared in TABLES.items():
        if is_mirrored(declared):
            assert set(declared.column_names) <= set(made[name].columns.keys())
    assert "raw_frames" not in made
