"""SQL over the lake: DuckDB with a view of every table."""

import uuid
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from arb_pipeline.storage.lake import Lake, LakeFile
from arb_pipeline.tables import TABLES, Table

__all__ = ["CURRENT_VIEWS", "connect", "write_database"]

CURRENT_VIEWS = ("events", "markets", "market_matches")
"""Tables kept as daily snapshots: ``<table>_current`` is the newest one."""

_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.bool_(): "BOOLEAN",
    pa.float64(): "DOUBLE",
    pa.date32(): "DATE",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}


def connect(lake: Lake) -> duckdb.DuckDBPyConnection:
    """An in-memory database with a view per table over the files that count now; a table without files is empty.

    The views name files: connect again to see what was written or compacted since.
    """
    connection = duckdb.connect()
    if not lake.is_local:
        connection.register_filesystem(lake.filesystem)
    _create_views(connection, lake)
    return connection


def write_database(lake: Lake, path: str | Path) -> Path:
    """Write a DuckDB file with the same views, replacing an older one in one step; returns its path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with duckdb.connect(str(temporary)) as connection:
            if not lake.is_local:
                connection.register_filesystem(lake.filesystem)
            _create_views(connection, lake)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _create_views(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    for table in TABLES.values():
        connection.execute(_view(table.name, table, lake.files(table)))
    for name in CURRENT_VIEWS:
        connection.execute(_view(f"{name}_current", TABLES[name], lake.current_files(name)))


def _view(name: str, table: Table, files: Sequence[LakeFile]) -> str:
    """The statement that creates a view; the empty first branch fixes types, also of columns that old files lack."""
    typed = ", ".join(f'NULL::{_sql_type(column.type)} AS "{column.name}"' for column in table.columns)
    statement = f'CREATE VIEW "{name}" AS SELECT {typed} WHERE false'
    if files:
        paths = ", ".join("'" + file.path.replace("'", "''") + "'" for file in files)
        options = "hive_partitioning = false, union_by_name = true"
        statement += f" UNION ALL BY NAME SELECT * FROM read_parquet([{paths}], {options})"  # noqa: S608 - own paths
    return statement


def _sql_type(type_: pa.DataType) -> str:
    if pa.types.is_decimal(type_):
        return f"DECIMAL({type_.precision}, {type_.scale})"
    return _TYPES[type_]
