"""Old days of the partitioned tables, dropped as a whole; tables of other kinds stay."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from psycopg import sql

from arb_pipeline.storage.postgres.connection import Postgres

__all__ = ["Day", "days", "drop_days"]

_CHILD: Final = re.compile(r"(.+)_(\d{8})\Z")


@dataclass(frozen=True, slots=True)
class Day:
    """One day of a partitioned table.

    Attributes:
        name: of the partition.
        table: what it belongs to.
        bytes: its size on disk, indexes included.
        is_indexed: whether it has the index by market that only days have which are over.
    """

    name: str
    table: str
    date: date
    bytes: int
    is_indexed: bool


def days(postgres: Postgres) -> list[Day]:
    """Every day that there is, by table and date."""
    with postgres.connected() as connection:
        rows = connection.execute(
            "SELECT child.relname, parent.relname, pg_total_relation_size(child.oid), EXISTS (SELECT FROM pg_index "
            "JOIN pg_class AS own ON own.oid = indexrelid "
            "WHERE indrelid = child.oid AND own.relname = child.relname || '_by_market') FROM pg_inherits "
            "JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent "
            "WHERE child.relkind = 'r' AND parent.relkind = 'p' "
            "AND parent.relnamespace = current_schema()::regnamespace ORDER BY parent.relname, child.relname"
        ).fetchall()
    found = []
    for name, table, size, is_indexed in rows:
        if match := _CHILD.match(str(name)):
            day = datetime.strptime(match[2], "%Y%m%d").replace(tzinfo=UTC).date()
            found.append(Day(str(name), str(table), day, int(str(size)), bool(is_indexed)))
    return found


def drop_days(postgres: Postgres, keep_days: int, now: datetime, *, dry_run: bool = False) -> list[Day]:
    """Drop the days that ended at least ``keep_days`` whole days before the day of ``now``; returns them.

    Each is dropped in a transaction of its own, which waits ten seconds at most for those who read the table.

    Args:
        keep_days: whole days that are kept besides the running one.

    Raises:
        ValueError: if ``keep_days`` is negative.
        PostgresUnavailableError: if a table is in use, or the server is not there: days dropped so far stay dropped.
        PostgresError: if the role does not own the tables.
    """
    if keep_days < 0:
        raise ValueError(f"keep_days is {keep_days}; expected 0 or more")
    oldest = now.astimezone(UTC).date() - timedelta(days=keep_days)
    old = [day for day in days(postgres) if day.date < oldest]
    for day in () if dry_run else old:
        with postgres.connected() as connection:
            connection.execute("SET LOCAL lock_timeout = '10s'")
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(day.name)))
            # What is gone is not published any more: were days kept longer again, a sync would bring it back.
            connection.execute(
                "DELETE FROM mirrored_partitions WHERE table_name = %s AND partition LIKE %s",
                (day.table, f"%date={day.date.isoformat()}%"),
            )
    return old
