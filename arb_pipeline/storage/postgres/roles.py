"""Least privilege: who may do what in the database.

The owner migrates, drops old days and grants; captures and the pipeline write as members of ``arb_writer``; people and
dashboards read as members of ``arb_reader``. Both are group roles that nobody logs in as.
"""

from typing import Final

from psycopg import sql

from arb_pipeline.storage.postgres.connection import Postgres
from arb_pipeline.storage.postgres.schema import metadata

__all__ = ["READER", "WRITER", "apply_roles", "statements"]

WRITER: Final = "arb_writer"
READER: Final = "arb_reader"
_VIEWS: Final = ("events_current", "markets_current", "market_matches_current")
_FUNCTIONS: Final = ("ensure_day", "index_day")


def statements(schema: str = "public", database: str | None = None) -> list[str]:
    """The SQL that makes the two roles and grants what each needs; it may be run again, as the tables' owner.

    Args:
        database: whose temporary tables the writer stages rows in; None: every role of the database may have those, as
            is PostgreSQL's default.
    """
    tables = sorted([*metadata().tables, "alembic_version"])
    where = _quoted(schema)
    everything = ", ".join(f"{where}.{_quoted(name)}" for name in (*tables, *_VIEWS))
    written = ", ".join(f"{where}.{_quoted(name)}" for name in tables if name != "alembic_version")
    made = [
        # Whoever may not make roles can still grant to those that are there.
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} NOLOGIN; "
        "END IF; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        for role in (READER, WRITER)
    ]
    made += [f"GRANT USAGE ON SCHEMA {where} TO {READER}, {WRITER}"]
    made += [f"GRANT SELECT ON {everything} TO {READER}, {WRITER}"]
    made += [f"GRANT INSERT, UPDATE, DELETE ON {written} TO {WRITER}"]
    made += [f"GRANT EXECUTE ON FUNCTION {where}.{name}(text, date) TO {WRITER}" for name in _FUNCTIONS]
    if database is not None:
        made += [f"GRANT TEMPORARY ON DATABASE {_quoted(database)} TO {WRITER}"]
    return made


def apply_roles(postgres: Postgres) -> list[str]:
    """Run the statements in the database; returns them.

    Raises:
        PostgresUnavailableError: if the server is not there.
        PostgresError: if our role may not make roles, or does not own the tables; nothing is changed then.
    """
    with postgres.connected() as connection:
        row = connection.execute("SELECT current_schema(), current_database()").fetchone()
        assert row is not None  # a SELECT of two functions
        made = statements(str(row[0]), str(row[1]))
        for statement in made:
            connection.execute(sql.SQL(statement))
    return made


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
