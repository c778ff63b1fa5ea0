"""Rows that are more than appended: what may be told twice, and what a constraint refuses.

Facts (``trades``, ``book_gaps``, ``account_events``) are kept once, as the lake's compaction keeps them: the pushed
before the polled, and then the earliest. A row that is there already is left out. A row that cannot be stored, since
another one has its key or a column does not take its value, is filed in ``load_rejects`` with the reason, and the rest
of its batch goes in.
"""

import json
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from arb_pipeline.storage.arrow import Ints
from arb_pipeline.storage.postgres.connection import Connection
from arb_pipeline.storage.postgres.copying import copy_rows
from arb_pipeline.storage.postgres.schema import FACTS, added_columns, day_column, identity, primary_key
from arb_pipeline.tables import Table
from arb_pipeline.tables import table as declared

__all__ = ["Inserted", "insert_rows"]

_HOUR_NS: Final = 3_600_000_000_000
_SESSIONS: Final = "capture_sessions"
"""One row per connection, of which the newest holds."""
_NUMBER: Final = "stage_row"


@dataclass(slots=True)
class Inserted:
    """What came of a batch: rows inserted (in place of none), and the refused ones by index with the reason."""

    rows: int = 0
    refused: dict[int, str] = field(default_factory=dict)

    def kept(self, rows: pa.Table) -> pa.Table:
        """The batch without what was refused."""
        if not self.refused:
            return rows
        keep = np.ones(rows.num_rows, dtype=np.bool_)
        keep[list(self.refused)] = False
        return rows.filter(pa.array(keep))


def insert_rows(connection: Connection, name: str, rows: pa.Table, run_id: str) -> Inserted:
    """Insert rows into a table within the connection's transaction; what is refused is filed, the rest goes in.

    Raises:
        psycopg.Error: what is not about a row (a lost connection, a missing permission).
    """
    if not rows.num_rows:
        return Inserted()
    if name not in FACTS and name != _SESSIONS:
        try:
            with connection.transaction(), connection.cursor() as cursor:
                return Inserted(copy_rows(cursor, name, rows))
        except (psycopg.IntegrityError, psycopg.DataError):
            pass  # some row is refused: the staging table tells which
    table = declared(name)
    if name in FACTS:
        # Of two loaders with the same fact, the later one has to see the earlier one's row.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1634886240))", (name,))
    found = Inserted()
    _insert(connection, _Statements(table, rows), rows, np.arange(rows.num_rows), found)
    _file(connection, name, rows, found, run_id)
    return found


def _insert(connection: Connection, statements: "_Statements", rows: pa.Table, places: Ints, found: Inserted) -> None:
    """Insert the rows at some places; if one of them stops the rest, each half by itself."""
    numbered = rows.take(places).append_column(_NUMBER, pa.array(places))
    try:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(statements.create)
            copy_rows(cursor, statements.stage, numbered)
            displaced = 0
            if statements.make_way is not None:
                displaced = cursor.execute(statements.make_way).rowcount
            cursor.execute(statements.insert)
            inserted = cursor.rowcount
            if inserted < len(places) and statements.refused is not None:
                cursor.execute(statements.refused)
                for (place,) in cursor.fetchall():
                    found.refused[int(str(place))] = statements.reason
            cursor.execute(statements.clear)
        found.rows += inserted - displaced
    except (psycopg.IntegrityError, psycopg.DataError) as error:
        if len(places) == 1:
            found.refused[int(places[0])] = error.diag.message_primary or str(error)
            return
        half = len(places) // 2
        _insert(connection, statements, rows, places[:half], found)
        _insert(connection, statements, rows, places[half:], found)


class _Statements:
    """The SQL that takes staged rows into a table.

    Attributes:
        make_way: deletes facts of which a better reception is staged.
        refused: numbers of staged rows that are in the table neither anew nor already.
        reason: why those are refused.
    """

    def __init__(self, table: Table, rows: pa.Table) -> None:
        self.stage = f"stage_{table.name}"
        names = (*table.column_names, *added_columns(table))
        parts: dict[str, sql.Composable] = {
            "table": sql.Identifier(table.name),
            "stage": sql.Identifier(self.stage),
            "number": sql.Identifier(_NUMBER),
            "columns": _list(names),
        }
        self.create = sql.SQL(
            "CREATE TEMP TABLE IF NOT EXISTS {stage} ON COMMIT DELETE ROWS AS "
            "SELECT *, NULL::bigint AS {number} FROM {table} WITH NO DATA"
        ).format(**parts)
        self.clear = sql.SQL("DELETE FROM {stage}").format(**parts)
        self.make_way: sql.Composed | None = None
        self.refused: sql.Composed | None = None
        if table.name == _SESSIONS:
            self.reason = ""
            self.insert = sql.SQL(
                "INSERT INTO {table} ({columns}) SELECT DISTINCT ON (connection_id) {columns} FROM {stage} "
                "ORDER BY connection_id, {number} DESC "
                "ON CONFLICT (connection_id) DO UPDATE SET ({columns}) = ROW ({new})"
            ).format(new=_list(names, "excluded"), **parts)
            return
        facts = table.name in FACTS
        key = table.key if facts else primary_key(table)
        self.reason = f"another row has its {', '.join(key)}"
        parts["same"] = _same(table, key, (*identity(table), *added_columns(table)) if facts else names, rows)
        self.refused = sql.SQL(
            "SELECT {number} FROM {stage} AS staged WHERE NOT EXISTS (SELECT FROM {table} AS kept WHERE {same})"
        ).format(**parts)
        if not facts:
            self.insert = sql.SQL(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM {stage} ORDER BY {number} ON CONFLICT DO NOTHING"
            ).format(**parts)
            return
        parts["one"] = sql.SQL("{}{}").format(
            _list((*identity(table), *added_columns(table))), sql.SQL(_HOUR) if day_column(table) else sql.SQL("")
        )
        self.make_way = sql.SQL(
            "DELETE FROM {table} AS kept USING {stage} AS staged WHERE {same} AND ({new}) < ({old})"
        ).format(new=_rank(table, "staged"), old=_rank(table, "kept"), **parts)
        self.insert = sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT DISTINCT ON ({one}) {columns} FROM {stage} AS staged "
            "ORDER BY {one}, {rank} ON CONFLICT DO NOTHING"
        ).format(rank=_rank(table, "staged"), **parts)


_HOUR: Final = f", recv_ns / {_HOUR_NS}"


def _list(names: tuple[str, ...], alias: str | None = None) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(alias, name) if alias else sql.Identifier(name) for name in names)


def _same(table: Table, key: tuple[str, ...], compared: tuple[str, ...], rows: pa.Table) -> sql.Composed:
    """Whether a row that is kept and a staged one say the same; by the key first, which an index knows."""
    tests: list[sql.Composable] = [sql.SQL("kept.{0} = staged.{0}").format(sql.Identifier(name)) for name in key]
    tests += [
        sql.SQL("kept.{0} IS NOT DISTINCT FROM staged.{0}").format(sql.Identifier(name))
        for name in compared
        if name not in key
    ]
    if day_column(table) == "recv_ns":
        span = pc.min_max(rows["recv_ns"]).as_py()
        if table.name in FACTS:
            tests.append(sql.SQL(f"kept.recv_ns / {_HOUR_NS} = staged.recv_ns / {_HOUR_NS}"))
        if span["min"] is not None:
            # Known before the plan is made, so that other days are not looked at.
            low, high = (span[end] // _HOUR_NS * _HOUR_NS for end in ("min", "max"))
            tests.append(sql.SQL("kept.recv_ns BETWEEN {} AND {}").format(low, high + _HOUR_NS))
    return sql.SQL(" AND ").join(tests)


def _rank(table: Table, alias: str) -> sql.Composed:
    """What decides which reception of a fact is kept, the least: pushed before polled, then the table's order."""
    names = [name for name in (*table.sort, "ordinal") if name not in identity(table)]
    terms: list[sql.Composable] = [sql.Identifier(alias, name) for name in dict.fromkeys(names)]
    if "source" in table.column_names:
        terms.insert(0, sql.SQL("{} = 'rest'").format(sql.Identifier(alias, "source")))
    return sql.SQL(", ").join(terms)


def _file(connection: Connection, name: str, rows: pa.Table, found: Inserted, run_id: str) -> None:
    if not found.refused:
        return
    places = sorted(found.refused)
    refused = zip(places, rows.take(places).to_pylist(), strict=True)
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO load_rejects (run_id, table_name, reason, row) VALUES (%s, %s, %s, %s)",
            [(run_id, name, found.refused[place], json.dumps(row, default=str)) for place, row in refused],
        )
