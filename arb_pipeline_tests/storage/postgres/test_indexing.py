from datetime import UTC, date, datetime

import psycopg
import pytest

from arb_pipeline.storage.postgres import Postgres, PostgresError, TickLoader, index_days
from arb_pipeline.storage.postgres.migrating import differences, downgrade, migrate
from arb_pipeline.storage.postgres.retention import days
from arb_pipeline_tests.storage.postgres.reading import rows_of, select
from arb_pipeline_tests.storage.postgres.test_loading import DAY, changed
from arb_pipeline_tests.storage.rows import START, quotes, trades

FIRST, SECOND_DAY = "quotes_20260513", "quotes_20260514"
NIGHT = datetime(2026, 5, 15, 0, 59, 59, tzinfo=UTC)
MORNING = datetime(2026, 5, 15, 1, tzinfo=UTC)


@pytest.fixture
def two_days(postgres: Postgres) -> Postgres:
    loader = TickLoader(postgres, "run", "")
    for number in range(2):
        batch = changed(quotes(("A", 1, number), ("B", 1, 10 + number)), recv_ns=START + number * DAY)
        loader.load(number + 1, {"quotes": batch, "trades": trades([("t", 1, 5, "0.5")])})
    return postgres


def by_market(postgres: Postgres) -> list[str]:
    """Partitions of quotes with an index that begins with the market."""
    statement = (
        "SELECT tablename FROM pg_indexes WHERE tablename LIKE 'quotes_%' "
        "AND indexdef LIKE '%(market_id, recv_ns)' ORDER BY 1"
    )
    return [str(name) for (name,) in select(postgres, statement)]


def test_a_day_is_indexed_an_hour_after_it_ended_and_once(two_days: Postgres) -> None:
    assert by_market(two_days) == []
    assert index_days(two_days, NIGHT) == [FIRST]
    assert index_days(two_days, NIGHT) == []
    assert index_days(two_days, MORNING) == [SECOND_DAY]
    assert by_market(two_days) == [FIRST, SECOND_DAY]
    assert {day.name: day.is_indexed for day in days(two_days)} == {
        FIRST: True,
        SECOND_DAY: True,
        "trades_20260513": False,
    }


def test_a_row_that_comes_late_is_in_and_found_by_the_index(two_days: Postgres) -> None:
    index_days(two_days, MORNING)
    late = quotes(("A", 7, 99), ("A", 1, 0))
    late_loader = TickLoader(two_days, "late", "")
    # The second has the key of a row that is in.
    assert late_loader.load(1, {"quotes": changed(late, recv_ns=START)}) == 1
    assert late_loader.load(2, {"quotes": quotes(("A", 8, 100))}) == 1
    with two_days.connected() as connection:
        connection.execute("SET LOCAL enable_seqscan = off")
        query = "FROM quotes_20260513 WHERE market_id = 'A' AND recv_ns >= 0 ORDER BY ordinal"
        plan = "\n".join(str(line) for (line,) in connection.execute(f"EXPLAIN SELECT ordinal {query}").fetchall())
        found = connection.execute(f"SELECT ordinal {query}").fetchall()
    assert f"{FIRST}_by_market" in plan
    assert found == [(0,), (99,), (100,)]
    assert len(rows_of(two_days, "quotes")) == 6


def test_the_running_day_is_written_to_meanwhile(two_days: Postgres, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as writer:
        writer.execute(f"INSERT INTO quotes SELECT * FROM {SECOND_DAY} WHERE false")
        writer.execute(f"UPDATE {SECOND_DAY} SET seq = 1")
        assert index_days(two_days, NIGHT) == [FIRST]


def test_whoever_is_second_leaves_the_day_to_the_first(two_days: Postgres, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as first:
        assert first.execute("SELECT index_day('quotes', '2026-05-13')").fetchone() == (True,)
        assert index_days(two_days, NIGHT) == []
        first.rollback()
    # Who was first did not commit: nothing is left of it, and the next call does it all.
    assert by_market(two_days) == []
    assert index_days(two_days, NIGHT) == [FIRST]


def test_only_what_has_such_an_index_gets_one(two_days: Postgres) -> None:
    with pytest.raises(PostgresError, match="trades has no index that a day gets"):
        select(two_days, "SELECT index_day('trades', '2026-05-13')")


def test_the_index_of_the_whole_table_takes_those_of_days_over_and_goes_with_them(two_days: Postgres) -> None:
    index_days(two_days, NIGHT)
    assert not [found for found in differences(two_days) if "quotes" in found]
    downgrade(two_days, "0003")
    whole = "SELECT count(*) FROM pg_indexes WHERE indexname = 'quotes_by_market'"
    assert select(two_days, whole) == [(1,)]
    assert by_market(two_days) == [FIRST, SECOND_DAY]
    migrate(two_days)
    assert (select(two_days, whole), by_market(two_days)) == ([(0,)], [])
    assert index_days(two_days, MORNING) == [FIRST, SECOND_DAY]
    assert not [found for found in differences(two_days) if "quotes" in found]


def test_days_before_the_first_row_are_none(postgres: Postgres) -> None:
    assert index_days(postgres, MORNING) == []
    with postgres.connected() as connection:
        connection.execute("SELECT ensure_day('quotes', %s)", (date(2026, 5, 15),))
    assert index_days(postgres, MORNING) == []
