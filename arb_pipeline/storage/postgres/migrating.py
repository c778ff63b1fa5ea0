"""Migrations by Alembic, shipped in the package (``migrations/versions``); each is one transaction.

A new one is written by ``python -m arb_pipeline.storage.postgres.migrating "what changes"`` in a checkout, which
compares the declaration with an embedded server at the newest revision.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection as Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from arb_pipeline.storage.postgres.connection import Postgres
from arb_pipeline.storage.postgres.embedded import EmbeddedPostgres
from arb_pipeline.storage.postgres.errors import PostgresError
from arb_pipeline.storage.postgres.schema import metadata

__all__ = ["differences", "downgrade", "head", "migrate", "revision"]

_LOCK: Final = 0x6172625F6D696772
"""Advisory lock of whoever migrates ("arb_migr")."""


def head() -> str:
    """The newest revision that this package knows."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    assert newest is not None  # there is at least one
    return newest


def revision(postgres: Postgres) -> str | None:
    """The database's revision; None if it has no schema of ours."""
    with _session(postgres, "cannot read the revision") as connection:
        return _revision(connection)


def migrate(postgres: Postgres) -> None:
    """Bring the schema to the newest revision; nothing happens where it is there. Safe to call at once from several.

    Raises:
        PostgresUnavailableError: if the server cannot be reached.
        PostgresError: if the database is of a newer package, or the role may not change the schema.
    """
    with _session(postgres, "cannot migrate") as connection:
        if _revision(connection) == head():
            return
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        try:
            connection.commit()
            _run(connection, "upgrade", "head")
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            connection.commit()


def downgrade(postgres: Postgres, to: str) -> None:
    """Take the schema back to a revision (``base``: none; the data of dropped tables goes with them)."""
    with _session(postgres, "cannot downgrade") as connection:
        _run(connection, "downgrade", to)


def differences(postgres: Postgres) -> list[str]:
    """What Alembic finds to differ between the declaration and the live database; empty where they agree."""
    with _session(postgres, "cannot compare") as connection:
        context = MigrationContext.configure(connection, opts=compare_options(connection))
        return [str(found) for found in compare_metadata(context, metadata())]


def compare_options(connection: Engine) -> dict[str, Any]:
    """Alembic's options: children of a partitioned table are data, not schema."""
    query = "SELECT relname FROM pg_class WHERE relispartition"
    children = set(connection.execute(text(query)).scalars())

    def include_name(name: str | None, kind: str, parents: object) -> bool:  # noqa: ARG001 - Alembic's signature
        return not (kind == "table" and name in children)

    return {"compare_type": True, "include_name": include_name}


@contextmanager
def _session(postgres: Postgres, action: str) -> Iterator[Engine]:
    """A connection of SQLAlchemy's, for Alembic, over one of ours: no URL with a password is handed on."""
    engine = create_engine("postgresql+psycopg://", creator=postgres.connect, poolclass=NullPool)
    with postgres.errors(action):
        try:
            with engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            # The driver's own, which :meth:`Postgres.errors` translates; SQLAlchemy's repeats the whole statement.
            if isinstance(error.orig, psycopg.Error):
                raise error.orig from None
            raise
        finally:
            engine.dispose()


def _config(connection: Engine | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", "arb_pipeline.storage.postgres:migrations")
    config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def _revision(connection: Engine) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _run(connection: Engine, step: str, to: str) -> None:
    try:
        getattr(command, step)(_config(connection), to)
    except CommandError as error:
        raise PostgresError(
            f"the database has a schema that this package does not know ({error}): install a newer arb_pipeline"
        ) from error


def _write(message: str) -> None:
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(folder) as server:
        postgres = Postgres(server.url)
        migrate(postgres)
        with _session(postgres, "cannot compare") as connection:
            command.revision(_config(connection), message, autogenerate=True, rev_id=f"{int(head()) + 1:04d}")


if __name__ == "__main__":
    _write(" ".join(sys.argv[1:]))
