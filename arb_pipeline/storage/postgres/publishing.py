"""What the lake holds, in Postgres: a partition is replaced as a whole, and only where its files changed since.

``mirrored_partitions`` keeps a digest of each partition's files as they were last published, so that bringing Postgres
up to date costs the listing of manifests, and whatever was missed while it was down is made good by the next call.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import pyarrow as pa
import pyarrow.dataset as ds
from psycopg import sql

from arb_pipeline.storage.lake import HOUR_NS, Lake, LakeFile, Partition
from arb_pipeline.storage.postgres.connection import Connection, Postgres, hold_exchange
from arb_pipeline.storage.postgres.errors import PostgresError
from arb_pipeline.storage.postgres.loading import ensure_day, update_latest
from arb_pipeline.storage.postgres.schema import (
    LAKE_DATE,
    LAKE_HOUR,
    TICK_TABLES,
    added_columns,
    day_column,
    is_mirrored,
)
from arb_pipeline.storage.postgres.staging import insert_rows
from arb_pipeline.tables import TABLES, Partitioning, Table

__all__ = ["MIRRORED", "Synced", "mirror", "sync"]

MIRRORED: Final = tuple(name for name, table in TABLES.items() if is_mirrored(table) and name not in TICK_TABLES)
"""Tables that reach Postgres by way of the lake alone."""

_PUBLISHER: Final = "lake"
_READ_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Synced:
    """One partition that was published, or that was left alone for a reason.

    Attributes:
        skipped: why nothing was done, empty if the partition was published.
    """

    table: str
    partition: str
    rows: int = 0
    skipped: str = ""


def mirror(
    postgres: Postgres, lake: Lake, table: str, partition: Partition, *, unless_loading: bool = False
) -> int | None:
    """Make a partition's rows here those that the lake holds now, in one transaction; returns how many are in.

    The lake's files are read by row groups, so that memory does not grow with the partition.

    Args:
        unless_loading: change nothing, and return None, if a capture run is still being loaded into the partition.

    Raises:
        PostgresUnavailableError: if the server is not there, or in the way; nothing is changed then.
        PostgresError: if Postgres has no such table, or holds rows of another origin.
    """
    declared_table = _mirrored(table)
    for attempt in range(_READ_TRIES):
        files = [
            file for file in lake.files(table, *_bounds(partition), partition.venue) if file.partition == partition
        ]
        try:
            return _publish(postgres, lake, declared_table, partition, files, unless_loading=unless_loading)
        except FileNotFoundError:
            # A compaction replaced the files between the listing and the read: the next manifest knows.
            if attempt == _READ_TRIES - 1:
                raise
    raise AssertionError("unreachable: the last try returns or raises")


def sync(
    postgres: Postgres,
    lake: Lake,
    tables: Iterable[str] | None = None,
    day: date | None = None,
    *,
    since: date | None = None,
    force: bool = False,
) -> list[Synced]:
    """Publish every partition of some tables (default: all) that differs from what was last published.

    A partition into which a capture run's journal is still being loaded is left alone, since Postgres may be ahead of
    the lake there.

    Args:
        day: only this day's partitions, and those without a day.
        since: ticks of earlier days stay away, as they do where old days are dropped.
        force: publish unchanged partitions too, and those that a run is still being loaded into: stop captures first.

    Raises:
        PostgresUnavailableError, PostgresError: as :func:`mirror`; what was published so far stays.
    """
    names = tuple(name for name, table in TABLES.items() if is_mirrored(table)) if tables is None else tuple(tables)
    done: list[Synced] = []
    for name in names:
        table = _mirrored(name)
        known = _digests(postgres, name)
        for partition, files in _partitions(lake, table, day):
            if since is not None and name in TICK_TABLES and partition.date is not None and partition.date < since:
                continue
            if not force and known.get(partition.path) == _digest(files):
                continue
            rows = mirror(postgres, lake, name, partition, unless_loading=name in TICK_TABLES and not force)
            skipped = "a capture run is still being loaded into it" if rows is None else ""
            done.append(Synced(name, partition.path, rows or 0, skipped))
    return done


def _mirrored(name: str) -> Table:
    table = TABLES.get(name)
    if table is None or not is_mirrored(table):
        names = ", ".join(name for name, known in TABLES.items() if is_mirrored(known))
        raise PostgresError(f"Postgres has no table {name!r} of the lake's; it has {names}")
    return table


def _publish(
    postgres: Postgres,
    lake: Lake,
    table: Table,
    partition: Partition,
    files: Sequence[LakeFile],
    *,
    unless_loading: bool,
) -> int | None:
    if day_column(table) is not None and partition.date is not None:
        ensure_day(postgres, table.name, partition.date)
    with postgres.connected() as connection:
        if unless_loading:
            # Loaders wait until this is over, so that none commits rows between the look and the deletion.
            connection.execute("LOCK TABLE load_positions IN SHARE MODE")
            if any(_overlaps(partition, first, last) for first, last in _loading(connection)):
                return None
        if files:
            hold_exchange(connection, files[0].entry.exchange)
        # Two publishers of one partition take turns.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{table.name}/{partition.path}",))
        _clear(connection, table, partition)
        count = 0
        for rows in _read(lake, table, files):
            placed = _placed(table, partition, rows)
            found = insert_rows(connection, table.name, placed, _PUBLISHER)
            count += found.rows
            if table.name == "quotes":
                update_latest(connection, found.kept(placed))
        connection.execute(
            "INSERT INTO mirrored_partitions (table_name, partition, digest, rows) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (table_name, partition) DO UPDATE "
            "SET digest = excluded.digest, rows = excluded.rows, mirrored_at = now()",
            (table.name, partition.path, _digest(files), count),
        )
    return count


def _placed(table: Table, partition: Partition, rows: pa.Table) -> pa.Table:
    """The rows with the columns that tell their partition."""
    added = added_columns(table)
    if LAKE_DATE in added:
        rows = rows.append_column(LAKE_DATE, pa.repeat(pa.scalar(partition.date, pa.date32()), rows.num_rows))
    if LAKE_HOUR in added:
        rows = rows.append_column(LAKE_HOUR, pa.repeat(pa.scalar(partition.hour, pa.int64()), rows.num_rows))
    return rows


def _clear(connection: Connection, table: Table, partition: Partition) -> None:
    tests: list[sql.Composable] = [sql.SQL("true")]
    values: list[object] = []
    if partition.venue is not None:
        tests.append(sql.SQL("venue = %s"))
        values.append(partition.venue)
    added = added_columns(table)
    if added:
        tests.append(sql.SQL("lake_date = %s"))
        values.append(partition.date)
    if LAKE_HOUR in added:
        tests.append(sql.SQL("lake_hour = %s"))
        values.append(partition.hour)
    if table.partitioning is Partitioning.HOUR and not added:
        tests.append(sql.SQL("recv_ns >= %s AND recv_ns < %s"))
        values += _bounds(partition)
    connection.execute(
        sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(table.name), sql.SQL(" AND ").join(tests)), values
    )


def _bounds(partition: Partition) -> tuple[int | None, int | None]:
    return partition.bounds or (None, None)


def _partitions(lake: Lake, table: Table, day: date | None) -> list[tuple[Partition, list[LakeFile]]]:
    """Partitions with their files, empty ones too."""
    start = end = None
    if day is not None:
        bounds = Partition(date=day).bounds
        assert bounds is not None  # it has a date
        start, end = bounds
    found: dict[Partition, list[LakeFile]] = {
        partition: []
        for partition in lake.partitions(table)
        if day is None or partition.date is None or partition.date == day
    }
    for file in lake.files(table, start, end):
        if file.partition in found:
            found[file.partition].append(file)
    return sorted(found.items(), key=lambda item: item[0].order)


def _read(lake: Lake, table: Table, files: Sequence[LakeFile]) -> Iterator[pa.Table]:
    """The files' rows in order. A scan of the data set would read ahead, by the whole file."""
    if not files:
        return
    paths = [file.path if lake.is_local else file.path.partition("://")[2] for file in files]
    found = ds.dataset(paths, schema=table.schema, format="parquet", filesystem=lake.filesystem)
    for file in found.get_fragments():
        for group in file.split_by_row_group():
            yield group.to_table(schema=table.schema)


def _digest(files: Collection[LakeFile]) -> str:
    names = sorted(f"{file.entry.name} {file.entry.sha256}" for file in files)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _digests(postgres: Postgres, table: str) -> dict[str, str]:
    with postgres.connected() as connection:
        rows = connection.execute(
            "SELECT partition, digest FROM mirrored_partitions WHERE table_name = %s", (table,)
        ).fetchall()
    return {str(partition): str(digest) for partition, digest in rows}


def _loading(connection: Connection) -> list[tuple[int, int]]:
    """Receive times that runs span, or soon may, whose journal is not loaded to its end."""
    rows = connection.execute(
        "SELECT first_ns, last_ns FROM load_positions WHERE NOT complete AND first_ns IS NOT NULL"
    ).fetchall()
    return [(int(str(first)), int(str(last)) + HOUR_NS) for first, last in rows]


def _overlaps(partition: Partition, first: int, last: int) -> bool:
    """Whether a run from ``first`` to ``last`` may have rows in a partition; those kept by day count by its day."""
    bounds = partition.bounds
    return bounds is not None and bounds[0] <= last and first < bounds[1]
