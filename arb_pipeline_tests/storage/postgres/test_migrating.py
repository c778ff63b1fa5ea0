import threading
from datetime import date

import pytest

from arb_pipeline.storage.postgres import Postgres, PostgresError
from arb_pipeline.storage.postgres.migrating import differences, downgrade, head, migrate, revision
from arb_pipeline_tests.storage.postgres.reading import select


def test_declaration_migrations_and_database_agree(postgres: Postgres) -> None:
    with postgres.connected() as connection:
        connection.execute("SELECT ensure_day('quotes', %s)", (date(2026, 5, 13),))
    assert differences(postgres) == []


def test_a_difference_is_found(postgres: Postgres) -> None:
    before = differences(postgres)
    with postgres.connected() as connection:
        connection.execute("ALTER TABLE quotes ALTER COLUMN bid TYPE numeric(9, 3)")
        connection.execute("ALTER TABLE trades DROP COLUMN taker_side")
    assert len(differences(postgres)) == len(before) + 2


def test_the_newest_revision_can_be_taken_back_and_put_on_again_with_rows_in_place(postgres: Postgres) -> None:
    with postgres.connected() as connection:
        connection.execute("INSERT INTO load_positions (run_id, position, rows, complete) VALUES ('r', 1, 0, false)")
    downgrade(postgres, "-1")
    assert revision(postgres) != head()
    migrate(postgres)
    assert revision(postgres) == head()
    assert select(postgres, "SELECT run_id FROM load_positions") == [("r",)]


def test_everything_can_be_taken_back(postgres: Postgres) -> None:
    downgrade(postgres, "base")
    tables = "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p', 'v') AND relnamespace = 'public'::regnamespace"
    assert select(postgres, tables) == [(1,)]  # Alembic's own
    assert revision(postgres) is None


def test_several_may_migrate_an_empty_database_at_once(empty_postgres_url: str) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            Postgres(empty_postgres_url).migrate()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert revision(Postgres(empty_postgres_url)) == head()


def test_a_database_of_a_newer_package_is_left_alone(postgres: Postgres) -> None:
    with postgres.connected() as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(PostgresError, match="newer arb_pipeline"):
        migrate(postgres)
