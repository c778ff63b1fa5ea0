"""How Postgres stands: revision, loading, rejects, days."""

from dataclasses import dataclass

from arb_pipeline.storage.postgres.connection import Postgres
from arb_pipeline.storage.postgres.migrating import head, revision
from arb_pipeline.storage.postgres.retention import Day, days

__all__ = ["LoadedRun", "Overview", "overview"]

_RUNS = 20


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """One capture run: journal records and rows that are in, and whether that is all."""

    run_id: str
    position: int
    rows: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """What ``arb postgres status`` tells.

    Attributes:
        place: the database, without a password.
        revision: of its schema; None without one.
        newest_revision: that this package knows.
        runs: the newest runs, newest first.
        rejects: rows refused, by table.
        days: days of the partitioned tables.
    """

    place: str
    revision: str | None
    newest_revision: str
    runs: list[LoadedRun]
    rejects: dict[str, int]
    days: list[Day]


def overview(postgres: Postgres) -> Overview:
    """Look at the database.

    Raises:
        PostgresUnavailableError, PostgresError: if it cannot be asked.
    """
    held = revision(postgres)
    if held is None:
        return Overview(postgres.place, None, head(), [], {}, [])
    with postgres.connected() as connection:
        runs = connection.execute(
            "SELECT run_id, position, rows, complete FROM load_positions ORDER BY updated_at DESC LIMIT %s", (_RUNS,)
        ).fetchall()
        rejects = connection.execute(
            "SELECT table_name, count(*) FROM load_rejects GROUP BY table_name ORDER BY table_name"
        ).fetchall()
    return Overview(
        place=postgres.place,
        revision=held,
        newest_revision=head(),
        runs=[
            LoadedRun(str(run), int(str(position)), int(str(rows)), bool(done)) for run, position, rows, done in runs
        ],
        rejects={str(name): int(str(count)) for name, count in rejects},
        days=days(postgres),
    )
