from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from arb_pipeline.storage import Lake, Partition
from arb_pipeline.storage.postgres import Postgres, PostgresError, TickLoader, mirror, publish, sync
from arb_pipeline.storage.postgres.schema import is_mirrored, metadata
from arb_pipeline.tables import TABLES, Partitioning, table
from arb_pipeline_tests.storage.postgres.reading import rows_of, select
from arb_pipeline_tests.storage.rows import TWENTY, TWENTY_ONE, gaps, quotes, trades

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
    for column in ("recv_ns", "from_ns"):
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


@pytest.mark.parametrize("name", [name for name, declared in TABLES.items() if is_mirrored(declared)])
def test_every_table_takes_a_partition_and_replaces_it_as_a_whole(postgres: Postgres, name: str) -> None:
    partition = partition_of(name)
    assert publish(postgres, name, partition, pa.concat_tables([filled(name, 1), filled(name, 2)])) == 2
    assert publish(postgres, name, partition, filled(name, 3)) == 1
    assert rows_of(postgres, name) == filled(name, 3).to_pylist()
    assert publish(postgres, name, partition, filled(name).slice(0, 0)) == 0
    assert rows_of(postgres, name) == []


def test_other_partitions_stay(postgres: Postgres) -> None:
    other = Partition.parse("venue=kalshi/date=2026-05-12")
    publish(postgres, "markets", other, filled("markets", 1))
    publish(postgres, "markets", DAY, filled("markets", 1))
    publish(postgres, "markets", DAY, filled("markets", 2))
    days = "SELECT lake_date, market_id FROM markets ORDER BY 1"
    assert select(postgres, days) == [(date(2026, 5, 12), "v1"), (date(2026, 5, 13), "v2")]
    assert select(postgres, "SELECT market_id FROM markets_current") == [("v2",)]


def test_of_matches_those_that_hold_are_current_whatever_their_day(postgres: Postgres) -> None:
    holds = filled("market_matches", 1).to_pylist()[0] | {"valid_to": None}
    rows = pa.Table.from_pylist([holds], schema=table("market_matches").schema)
    publish(postgres, "market_matches", Partition(None, date(2026, 5, 12)), rows)
    publish(postgres, "market_matches", Partition(None, date(2026, 5, 13)), filled("market_matches", 2))
    assert select(postgres, "SELECT kalshi_market_id FROM market_matches_current") == [("v1",)]


def test_a_table_that_postgres_has_none_of_is_named(postgres: Postgres) -> None:
    with pytest.raises(PostgresError, match="no table 'raw_frames'"):
        publish(postgres, "raw_frames", TWENTY, pa.table({}))


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
    lake.write_part("trades", TWENTY, trades([("t", 1, 5, "0.5")]), "a")
    lake.write_part("trades", TWENTY, trades([("t", 2, 6, "0.5"), ("u", 2, 7, "0.5")]), "b")
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
    with pytest.raises(PostgresError, match="holds data of local"):
        publish(postgres, "quotes", TWENTY_ONE, quotes(("A", 3_601, 2)), exchange="")


def test_every_table_of_the_lake_has_its_columns_in_postgres() -> None:
    made = metadata().tables
    for name, declared in TABLES.items():
        if is_mirrored(declared):
            assert set(declared.column_names) <= set(made[name].columns.keys())
    assert "raw_frames" not in made
