"""What a table holds."""

from typing import Any

from psycopg import sql

from arb_pipeline.storage.postgres import Postgres
from arb_pipeline.tables import table


def rows_of(postgres: Postgres, name: str, columns: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Rows by column, in the table's order."""
    declared = table("quotes" if name == "latest_prices" else name)
    wanted = columns or declared.column_names
    statement = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
        sql.SQL(", ").join(map(sql.Identifier, wanted)),
        sql.Identifier(name),
        sql.SQL(", ").join(map(sql.Identifier, declared.sort)),
    )
    return [dict(zip(wanted, row, strict=True)) for row in select(postgres, statement)]


def select(postgres: Postgres, statement: str | sql.Composed) -> list[tuple[Any, ...]]:
    with postgres.connected() as connection:
        return connection.execute(statement).fetchall()
