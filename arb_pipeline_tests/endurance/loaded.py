"""What a capture left in Postgres, and whether it is what the lake has."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from arb_pipeline.storage import Lake
from arb_pipeline.storage.query import connect
from arb_pipeline.tables import table

__all__ = ["LOADED", "Loaded", "lake_rows"]

LOADED = ("book_events", "quotes", "trades", "tickers", "book_gaps", "capture_sessions", "account_events")
"""The tables that a journal is loaded into."""
_MANY = ("book_events", "quotes", "trades", "tickers")
"""Those with so many rows that they are compared by checksums within each database."""

_ABSENT = "~"
_DIGITS = 15
"""Hexadecimal digits of a row's MD5 that are summed: a 60-bit number."""


class Loaded:
    """The tables of a database as they stand now."""

    def __init__(self, url: str) -> None:
        self._url = url

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Every row of a table, in the lake's columns and order."""
        declared = table(name)
        statement = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
            _names(declared.column_names), sql.Identifier(name), _names(_order(name))
        )
        with psycopg.connect(self._url, row_factory=dict_row) as connection:
            connection.execute("SET TIME ZONE 'UTC'")
            return connection.execute(statement).fetchall()

    def scalar(self, statement: str) -> Any:
        """The one value of a query; None without rows."""
        with psycopg.connect(self._url) as connection:
            row = connection.execute(statement.encode()).fetchone()
            return None if row is None else row[0]

    def differences(self, lake: Lake) -> list[str]:
        """How the tables differ from the lake's; counts and checksums where there are many rows, else row by row."""
        found = []
        for name in LOADED:
            if name in _MANY:
                ours, theirs = self._checksum(name), _lake_checksum(lake, name)
                if ours != theirs:
                    found.append(f"{name}: {ours[0]:,} rows ({ours[1]}), {theirs[0]:,} in the lake ({theirs[1]})")
                continue
            here, there = self.rows(name), lake_rows(lake, name)
            if here != there:
                pairs = zip(here, there, strict=False)
                first = next((pair for pair in pairs if pair[0] != pair[1]), "one of them ends there")
                found.append(f"{name}: {len(here):,} rows, {len(there):,} in the lake; first difference: {first}")
        return found

    def counts(self) -> dict[str, int]:
        """Rows by table."""
        return {name: int(self.scalar(f"SELECT count(*) FROM {name}")) for name in LOADED}

    def _checksum(self, name: str) -> tuple[int, int]:
        words = _words(name, "text")
        number = f"('x' || substr(md5({words}), 1, {_DIGITS}))::bit({4 * _DIGITS})::bigint"
        with psycopg.connect(self._url) as connection:
            statement = f"SELECT count(*), coalesce(sum({number}::numeric), 0) FROM {name}"
            row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])


def lake_rows(lake: Lake, name: str) -> list[dict[str, Any]]:
    """Every row of a lake's table, in a database's order."""
    order = _order(name)
    rows: list[dict[str, Any]] = lake.read(name).to_pylist()
    return sorted(rows, key=lambda row: tuple(row[column] for column in order))


def _lake_checksum(lake: Lake, name: str) -> tuple[int, int]:
    words = _words(name, "varchar")
    number = f"('0x' || substr(md5({words}), 1, {_DIGITS}))::bigint"
    with connect(lake) as database:
        row = database.execute(f"SELECT count(*), coalesce(sum({number}::hugeint), 0) FROM {name}").fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _words(name: str, text: str) -> str:
    """A row as text, the same in both databases: exact numbers with all their decimals."""
    columns = (f"coalesce({column}::{text}, '{_ABSENT}')" for column in table(name).column_names)
    return "concat_ws('|', " + ", ".join(columns) + ")"


def _order(name: str) -> tuple[str, ...]:
    declared = table(name)
    return tuple(dict.fromkeys([*declared.sort, *declared.key]))


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
