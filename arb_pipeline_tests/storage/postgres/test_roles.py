from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from arb_pipeline.storage.postgres import Postgres, PostgresError, TickLoader, index_days
from arb_pipeline.storage.postgres.migrating import migrate
from arb_pipeline.storage.postgres.retention import days, drop_days
from arb_pipeline.storage.postgres.roles import READER, WRITER, apply_roles, statements
from arb_pipeline_tests.storage.postgres.reading import rows_of, select
from arb_pipeline_tests.storage.rows import gaps, quotes, trades


@pytest.fixture
def member(postgres: Postgres, postgres_url: str) -> Iterator[Callable[[str], Postgres]]:
    """A login of one of the roles, on the same server."""
    apply_roles(postgres)
    made: list[tuple[str, Postgres]] = []

    def login(role: str) -> Postgres:
        name = f"{role}_{psycopg.conninfo.conninfo_to_dict(postgres_url)['dbname']}"
        with postgres.connected() as connection:
            connection.execute(f'CREATE ROLE "{name}" LOGIN IN ROLE {role}')
        made.append((name, Postgres(postgres_url.replace("postgres@", f"{name}@"))))
        return made[-1][1]

    yield login
    for name, database in made:
        database.close()
        with postgres.connected() as connection:
            connection.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')


def test_a_writer_loads_and_has_days_made_but_drops_alters_and_migrates_nothing(
    postgres: Postgres, member: Callable[[str], Postgres]
) -> None:
    writer = member(WRITER)
    batch = {"quotes": quotes(("A", 1, 1), ("A", 1, 1)), "trades": trades([("t", 1, 2, "0.5")]), "book_gaps": gaps()}
    assert TickLoader(writer, "run", "").load(1, batch) == 2
    assert len(rows_of(writer, "latest_prices")) == 1
    migrate(writer)  # nothing to do
    assert index_days(writer, datetime(2026, 5, 14, 2, tzinfo=UTC)) == ["quotes_20260513"]
    for statement in (
        "DROP TABLE quotes_20260513",
        "DROP TABLE quotes",
        "TRUNCATE quotes",
        "ALTER TABLE quotes DROP COLUMN bid",
        "UPDATE alembic_version SET version_num = 'x'",
        "CREATE TABLE mine (a int)",
        "CREATE INDEX ON quotes_20260513 (seq)",
    ):
        with pytest.raises(PostgresError, match=r"must be owner|permission denied"):
            select(writer, statement)
    with pytest.raises(PostgresError, match="must be owner"):
        drop_days(writer, 0, datetime(2026, 6, 1, tzinfo=UTC))
    assert len(days(postgres)) == 2


def test_a_reader_reads_and_writes_nothing(postgres: Postgres, member: Callable[[str], Postgres]) -> None:
    TickLoader(postgres, "run", "").load(1, {"quotes": quotes(("A", 1, 1))})
    reader = member(READER)
    assert len(rows_of(reader, "quotes")) == 1
    assert select(reader, "SELECT count(*) FROM markets_current") == [(0,)]
    for statement in (
        "INSERT INTO latest_prices SELECT * FROM latest_prices",
        "DELETE FROM quotes",
        "UPDATE load_positions SET position = 0",
        "SELECT ensure_day('quotes', '2026-05-14')",
        "SELECT index_day('quotes', '2026-05-13')",
    ):
        with pytest.raises(PostgresError, match="permission denied"):
            select(reader, statement)


def test_granting_again_changes_nothing(postgres: Postgres) -> None:
    assert apply_roles(postgres) == apply_roles(postgres)
    assert all(READER in line or WRITER in line for line in statements())
