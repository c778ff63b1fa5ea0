"""Indexes that a day gets once it is over.

An index of ``quotes`` by market grows everywhere at once, and would halve what can be loaded: the running day has the
primary key alone, which is a range of time, and each earlier one has ``(market_id, recv_ns)`` besides. Rows that come
late go into such a day as into any other, only slower.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from arb_pipeline.storage.postgres.connection import Postgres
from arb_pipeline.storage.postgres.retention import days
from arb_pipeline.storage.postgres.schema import BY_MARKET_ONCE_OVER

__all__ = ["SETTLED", "index_days"]

SETTLED: Final = timedelta(hours=1)
"""So long after midnight a day is over: the captures of its last hour have loaded what they had."""


def index_days(postgres: Postgres, now: datetime) -> list[str]:
    """Give the days that are over their index by market; returns the names of those that had none.

    Each is indexed in a transaction of its own, by the database's function ``index_day``, so that one that is cut short
    leaves nothing behind and the next call begins anew. Of several callers at once one does a day, the others leave it
    to that one. Meanwhile the day can be read, rows that come late wait, and no other day is touched; who writes to it
    is waited for ten seconds at most.

    Args:
        now: decides which days are over: those that ended :data:`SETTLED` ago.

    Raises:
        PostgresUnavailableError: if a day is being written to, or the server is not there: days indexed so far stay so.
        PostgresError: if our role may not.
    """
    running = (now - SETTLED).astimezone(UTC).date()
    made = []
    for day in days(postgres):
        if day.table not in BY_MARKET_ONCE_OVER or day.date >= running or day.is_indexed:
            continue
        with postgres.connected() as connection:
            connection.execute("SET LOCAL lock_timeout = '10s'")
            row = connection.execute("SELECT index_day(%s, %s)", (day.table, day.date)).fetchone()
        if row is not None and row[0]:
            made.append(day.name)
    return made
