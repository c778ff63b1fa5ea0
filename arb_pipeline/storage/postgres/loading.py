"""A capture run's rows into Postgres, exactly once: rows and the run's position commit together.

The newest quote of each market goes into ``latest_prices`` on the way, where what was received later wins.
"""

from collections.abc import Collection, Mapping
from datetime import date
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.storage.arrow import key_codes, sort_table
from arb_pipeline.storage.postgres.connection import Connection, Postgres, hold_exchange
from arb_pipeline.storage.postgres.copying import copy_rows
from arb_pipeline.storage.postgres.schema import FACTS, LAKE_DATE, LATEST, TICK_TABLES, day_column
from arb_pipeline.storage.postgres.staging import insert_rows
from arb_pipeline.tables import table as declared

__all__ = ["TickLoader", "ensure_day", "ensure_days", "replace_run", "update_latest"]

_DAY_NS: Final = 86_400_000_000_000
_DATED_BY: Final = {"book_gaps": "from_ns", "account_events": "recv_ns", "capture_sessions": "started_at"}
"""The column whose day is the lake's partition."""
_ORDER: Final = (*(name for name in TICK_TABLES if name not in FACTS), *FACTS)
"""Facts last: their tables are locked until the batch commits."""


class TickLoader:
    """Loads one run's rows, batch by batch, on a connection of its own that is opened again after it was lost.

    Args:
        run_id: the capture run.
        exchange: name of the local exchange that the rows come from, empty for the real venues.
    """

    def __init__(self, postgres: Postgres, run_id: str, exchange: str) -> None:
        self._postgres = postgres
        self._run_id = run_id
        self._exchange = exchange

    def position(self) -> int:
        """How many of the journal's records are in, with all their rows; 0 if nothing ever was.

        Raises:
            PostgresUnavailableError, PostgresError: as :meth:`load`.
        """
        with self._postgres.connected() as connection:
            row = connection.execute(
                "SELECT position FROM load_positions WHERE run_id = %s", (self._run_id,)
            ).fetchone()
        return 0 if row is None else int(str(row[0]))

    def load(self, position: int, tables: Mapping[str, pa.Table]) -> int:
        """One transaction: rows, latest prices, and the position that they reach. Returns how many rows were inserted.

        A position that is not above the one committed changes nothing, so that a batch whose commit was in doubt may
        be loaded again. Tables that Postgres has none of (``raw_frames``) are left out.

        Raises:
            PostgresUnavailableError: if the server was lost or is in the way: nothing of the batch is in, or all is.
            PostgresError: if the database refuses us, or holds rows of another origin.
        """
        return self._load(position, tables, complete=False)

    def finish(self, tables: Mapping[str, pa.Table] | None = None) -> int:
        """Mark the run complete, with the rows that its end gave rise to; doing so again changes nothing.

        Raises:
            PostgresUnavailableError, PostgresError: as :meth:`load`.
        """
        return self._load(None, tables or {}, complete=True)

    def _load(self, position: int | None, tables: Mapping[str, pa.Table], *, complete: bool) -> int:
        wanted = [(name, _with_lake_date(name, tables[name])) for name in _ORDER if name in tables]
        ensure_days(self._postgres, wanted)
        with self._postgres.connected() as connection:
            hold_exchange(connection, self._exchange)
            connection.execute(
                "INSERT INTO load_positions (run_id, position, rows, complete) VALUES (%s, 0, 0, false) "
                "ON CONFLICT DO NOTHING",
                (self._run_id,),
            )
            row = connection.execute(
                "SELECT position, complete FROM load_positions WHERE run_id = %s FOR UPDATE", (self._run_id,)
            ).fetchone()
            assert row is not None  # it was inserted at the latest just now
            if row[1] or (position is not None and position <= int(str(row[0]))):
                return 0
            inserted = 0
            for name, rows in wanted:
                found = insert_rows(connection, name, rows, self._run_id)
                inserted += found.rows
                if name == "quotes":
                    update_latest(connection, found.kept(rows))
            first, last = _extent(wanted)
            connection.execute(
                "UPDATE load_positions SET position = coalesce(%s, position), rows = rows + %s, "
                "first_ns = least(first_ns, %s), last_ns = greatest(last_ns, %s), complete = %s, updated_at = now() "
                "WHERE run_id = %s",
                (position, inserted, first, last, complete, self._run_id),
            )
        return inserted


def replace_run(
    postgres: Postgres, connection_ids: Collection[str], tables: Mapping[str, pa.Table], exchange: str | None = None
) -> int:
    """Make these rows all that there are of some connections, in one transaction; returns how many were inserted.

    Args:
        exchange: name of the local exchange that they come from, empty for the real venues; None: not checked.

    Raises:
        PostgresUnavailableError, PostgresError: as :meth:`TickLoader.load`; nothing is changed then.
    """
    wanted = [(name, _with_lake_date(name, tables[name])) for name in _ORDER if name in tables]
    ensure_days(postgres, wanted)
    first, last = _extent(wanted)
    ids = sorted(connection_ids)
    inserted = 0
    with postgres.connected() as connection:
        if exchange is not None:
            hold_exchange(connection, exchange)
        for name in _ORDER:
            statement = sql.SQL("DELETE FROM {} WHERE connection_id = ANY(%s)").format(sql.Identifier(name))
            if day_column(declared(name)) is None or first is None or last is None:
                connection.execute(statement, (ids,))
            else:
                # Only the days around the rows are searched: a connection lives for hours.
                statement += sql.SQL(" AND recv_ns BETWEEN %s AND %s")
                connection.execute(statement, (ids, first - _DAY_NS, last + _DAY_NS))
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE connection_id = ANY(%s)").format(sql.Identifier(LATEST)), (ids,)
        )
        for name, rows in wanted:
            found = insert_rows(connection, name, rows, "replay")
            inserted += found.rows
            if name == "quotes":
                update_latest(connection, found.kept(rows))
    return inserted


def _with_lake_date(name: str, rows: pa.Table) -> pa.Table:
    """A tick table's rows with the day of the lake's partition, where the table carries it."""
    if name not in _DATED_BY:
        return rows
    times = rows[_DATED_BY[name]]
    if pa.types.is_int64(times.type):
        times = pc.divide(times, 1_000).cast(pa.timestamp("us", tz="UTC"))
    return rows.append_column(LAKE_DATE, times.cast(pa.date32()))


def ensure_days(postgres: Postgres, tables: Collection[tuple[str, pa.Table]]) -> None:
    """Make the partitions that rows need, in a transaction of their own, always in the same order."""
    wanted = sorted(
        (name, day)
        for name, rows in tables
        if (column := day_column(declared(name))) is not None
        for day in _days(rows[column])
    )
    if not wanted:
        return
    with postgres.connected() as connection:
        for name, day in wanted:
            connection.execute(_ENSURE_DAY, (name, day))


def ensure_day(postgres: Postgres, table: str, day: date) -> None:
    """Make one partition, in a transaction of its own."""
    with postgres.connected() as connection:
        connection.execute(_ENSURE_DAY, (table, day))


_ENSURE_DAY: Final = "SELECT ensure_day(%s, %s)"


def _days(column: pa.ChunkedArray) -> list[date]:
    if not pa.types.is_int64(column.type):
        return sorted(filter(None, pc.unique(column).to_pylist()))
    numbers = np.unique(column.drop_null().to_numpy() // _DAY_NS)
    return [datetime_from_ns(int(number) * _DAY_NS).date() for number in numbers]


def _extent(tables: Collection[tuple[str, pa.Table]]) -> tuple[int | None, int | None]:
    """First and last receive time of all rows, ns."""
    spans = [pc.min_max(rows["recv_ns"]).as_py() for _, rows in tables if "recv_ns" in rows.column_names]
    lows = [span["min"] for span in spans if span["min"] is not None]
    highs = [span["max"] for span in spans if span["max"] is not None]
    return min(lows, default=None), max(highs, default=None)


def update_latest(connection: Connection, quotes: pa.Table) -> None:
    """Put the newest quote of each market into ``latest_prices``, unless what is there was received later."""
    if not quotes.num_rows:
        return
    by_market = ("venue", "market_id")
    quotes = sort_table(quotes, (*by_market, "recv_ns", "ordinal"))
    codes = [key_codes(quotes[name]) for name in by_market]
    ends = np.ones(quotes.num_rows, dtype=np.bool_)
    ends[:-1] = (codes[0][1:] != codes[0][:-1]) | (codes[1][1:] != codes[1][:-1])
    newest = quotes.filter(pa.array(ends))
    connection.execute(_STAGE_LATEST)
    with connection.cursor() as cursor:
        copy_rows(cursor, "stage_latest", newest)
    connection.execute(_UPDATE_LATEST)
    connection.execute("DELETE FROM stage_latest")


_STAGE_LATEST: Final = (
    "CREATE TEMP TABLE IF NOT EXISTS stage_latest ON COMMIT DELETE ROWS AS TABLE latest_prices WITH NO DATA"
)
_LATEST_COLUMNS: Final = sql.SQL(", ").join(map(sql.Identifier, declared("quotes").column_names))
_UPDATE_LATEST: Final = sql.SQL(
    "INSERT INTO latest_prices AS held ({columns}) SELECT {columns} FROM stage_latest ORDER BY venue, market_id "
    "ON CONFLICT (venue, market_id) DO UPDATE SET ({columns}) = ROW ({new}) "
    "WHERE (held.recv_ns, held.ordinal) < (excluded.recv_ns, excluded.ordinal)"
).format(
    columns=_LATEST_COLUMNS,
    new=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in declared("quotes").column_names),
)
"""In the order of the key: two loaders that update the same markets wait for, never block, each other."""
