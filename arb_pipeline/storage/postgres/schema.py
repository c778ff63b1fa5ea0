"""The Postgres schema, made from the tables' one declaration.

Every table of the lake but ``raw_frames`` has one of the same name and columns: numbers exact, ``*_at`` TIMESTAMPTZ,
words as comments. What grows by the hour is partitioned by day: by ``recv_ns``, or, where there is none, by the day of
the lake's partition. Tables whose rows do not tell their partition carry it as ``lake_date`` (and ``lake_hour``), so
that a partition of the lake can be replaced here as a whole.

Keys: a table with ``ordinal`` in its key is unique by it. Facts that may be received more than once (``trades``,
``book_gaps``, ``account_events``) are unique as the lake makes them on compaction: two rows are one if they agree in
everything but the reception; of trades within their hour, for which each day's partition has an index of its own.
"""

from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa

from arb_pipeline.tables import TABLES, Column, Partitioning, Table
from arb_pipeline.tables import table as declared

__all__ = [
    "BY_MARKET_ONCE_OVER",
    "FACTS",
    "LAKE_DATE",
    "LAKE_HOUR",
    "LATEST",
    "TICK_TABLES",
    "added_columns",
    "day_column",
    "identity",
    "is_mirrored",
    "metadata",
    "primary_key",
]

LAKE_DATE: Final = "lake_date"
LAKE_HOUR: Final = "lake_hour"
LATEST: Final = "latest_prices"
TICK_TABLES: Final = (
    "book_events",
    "quotes",
    "trades",
    "tickers",
    "book_gaps",
    "capture_sessions",
    "account_events",
)
"""What a capture's journal is loaded into."""
FACTS: Final = ("trades", "book_gaps", "account_events")
"""Where the same fact may be received twice and is kept once."""
_ONLY_IN_LAKE: Final = frozenset({"raw_frames"})
_RECEPTION: Final = frozenset({"recv_ns", "ordinal", "venue_ns", "seq", "connection_id", "source", "raw"})
_BY_MARKET: Final = ("trades",)
BY_MARKET_ONCE_OVER: Final = ("quotes",)
"""Whose days get their index by market when they are over (``indexing``): one that grows everywhere at once would halve
what can be loaded. ``book_events``, which are the most, have none."""

_TYPES: Final[dict[pa.DataType, type[sa.types.TypeEngine[Any]]]] = {
    pa.string(): sa.Text,
    pa.int64(): sa.BigInteger,
    pa.bool_(): sa.Boolean,
    pa.float64(): sa.Double,
    pa.date32(): sa.Date,
}


def is_mirrored(table: Table) -> bool:
    """Whether Postgres has the lake's table."""
    return table.name not in _ONLY_IN_LAKE and table.name != LATEST


def added_columns(table: Table) -> tuple[str, ...]:
    """Names of the columns that tell the lake's partition where no column of the table does."""
    if table.partitioning is Partitioning.DATE:
        return (LAKE_DATE,)
    return (LAKE_DATE, LAKE_HOUR) if table.partitioning is Partitioning.HOUR and not _ticks(table) else ()


def day_column(table: Table) -> str | None:
    """The column by whose day the table is partitioned: ``recv_ns`` or ``lake_date``; None if it is one table."""
    if table.partitioning is not Partitioning.HOUR:
        return None
    return "recv_ns" if _ticks(table) else LAKE_DATE


def _ticks(table: Table) -> bool:
    return "recv_ns" in table.column_names


def identity(table: Table) -> tuple[str, ...]:
    """Columns that tell one fact from another, however received: the key, and all that is not about reception."""
    return tuple(name for name in table.column_names if name in table.key or name not in _RECEPTION)


def metadata() -> sa.MetaData:
    """All tables; what is in no declaration (positions, rejects, ...) included."""
    made = sa.MetaData()
    for table in TABLES.values():
        if is_mirrored(table):
            _mirrored(made, table)
    _latest(made)
    _bookkeeping(made)
    return made


def _mirrored(made: sa.MetaData, table: Table) -> None:
    columns = [_column(column) for column in table.columns]
    added = added_columns(table)
    if LAKE_DATE in added:
        columns.append(sa.Column(LAKE_DATE, sa.Date, nullable=False, comment="day of the lake's partition"))
    if LAKE_HOUR in added:
        columns.append(sa.Column(LAKE_HOUR, sa.BigInteger, nullable=False, comment="hour of the lake's partition"))
    extra: list[sa.schema.SchemaItem] = []
    if table.name == "book_gaps":
        extra.append(sa.Index("book_gaps_fact", *identity(table), unique=True, postgresql_nulls_not_distinct=True))
        extra.append(sa.Index("book_gaps_by_market", "market_id", "from_ns"))
    elif table.name == "account_events":
        names = (*identity(table), LAKE_DATE)
        extra.append(sa.Index("account_events_fact", *names, unique=True, postgresql_nulls_not_distinct=True))
    elif table.name != "trades":
        extra.append(sa.PrimaryKeyConstraint(*primary_key(table), name=f"{table.name}_pkey"))
    if table.name in _BY_MARKET:
        extra.append(sa.Index(f"{table.name}_by_market", "market_id", "recv_ns"))
    if added == (LAKE_DATE,):
        extra.append(sa.Index(f"{table.name}_by_day", LAKE_DATE))
    by_day = day_column(table)
    options: dict[str, Any] = {"postgresql_partition_by": f"RANGE ({by_day})"} if by_day else {}
    sa.Table(table.name, made, *columns, *extra, comment=table.doc, **options)


def primary_key(table: Table) -> tuple[str, ...]:
    """Columns of the primary key of a table that is none of :data:`FACTS`."""
    if table.name == "capture_sessions":
        return table.key
    # Rows arrive in this order, so that the index grows at its end; and a range of time is a range of it.
    return ("recv_ns", "ordinal") if table.key == ("ordinal",) else (*table.key, *added_columns(table))


def _column(column: Column) -> sa.Column[Any]:
    return sa.Column(column.name, _type(column.type), nullable=column.nullable, comment=column.doc)


def _type(type_: pa.DataType) -> sa.types.TypeEngine[Any]:
    if pa.types.is_decimal(type_):
        return sa.Numeric(type_.precision, type_.scale)
    if pa.types.is_timestamp(type_):
        return sa.TIMESTAMP(timezone=True)
    return _TYPES[type_]()


def _latest(made: sa.MetaData) -> None:
    quotes = declared("quotes")
    sa.Table(
        LATEST,
        made,
        *(_column(column) for column in quotes.columns),
        sa.PrimaryKeyConstraint("venue", "market_id", name=f"{LATEST}_pkey"),
        comment="The newest quote of each market.",
    )


def _bookkeeping(made: sa.MetaData) -> None:
    now = sa.text("now()")
    moment = sa.TIMESTAMP(timezone=True)
    sa.Table(
        "load_positions",
        made,
        sa.Column("run_id", sa.Text, primary_key=True, comment="the capture run"),
        sa.Column("position", sa.BigInteger, nullable=False, comment="journal records whose rows are in"),
        sa.Column("rows", sa.BigInteger, nullable=False, comment="rows inserted"),
        sa.Column("first_ns", sa.BigInteger, comment="earliest receive time loaded, ns since the epoch"),
        sa.Column("last_ns", sa.BigInteger, comment="latest receive time loaded, ns since the epoch"),
        sa.Column("complete", sa.Boolean, nullable=False, comment="the run's journal is loaded to its end"),
        sa.Column("started_at", moment, nullable=False, server_default=now, comment="first batch"),
        sa.Column("updated_at", moment, nullable=False, server_default=now, comment="newest batch"),
        comment="How far each capture run's journal is loaded; it commits with the rows.",
    )
    sa.Table(
        "load_rejects",
        made,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, comment="number"),
        sa.Column("run_id", sa.Text, nullable=False, comment="the capture run, or who else wrote"),
        sa.Column("table_name", sa.Text, nullable=False, comment="where the row was to go"),
        sa.Column("reason", sa.Text, nullable=False, comment="why it was refused"),
        sa.Column("row", sa.JSON, nullable=False, comment="the row by column; exact numbers as text"),
        sa.Column("rejected_at", moment, nullable=False, server_default=now, comment="when"),
        comment="Rows that a constraint refused; the rest of their batch is in.",
    )
    sa.Table(
        "mirrored_partitions",
        made,
        sa.Column("table_name", sa.Text, primary_key=True, comment="table of the lake"),
        sa.Column("partition", sa.Text, primary_key=True, comment="path of the partition below the table"),
        sa.Column("digest", sa.Text, nullable=False, comment="SHA-256 over the partition's files"),
        sa.Column("rows", sa.BigInteger, nullable=False, comment="rows published"),
        sa.Column("mirrored_at", moment, nullable=False, server_default=now, comment="when"),
        comment="Partitions of the lake as they were last published here.",
    )
    sa.Table(
        "data_origin",
        made,
        sa.Column("one_row", sa.Boolean, primary_key=True, server_default=sa.true(), comment="keeps it one row"),
        sa.Column("exchange", sa.Text, nullable=False, comment="local exchange's name; empty: the real venues"),
        sa.CheckConstraint("one_row", name="data_origin_one_row"),
        comment="Where the rows of this database come from: never more than one origin.",
    )
    sa.Table(
        "listeners",
        made,
        sa.Column("name", sa.Text, primary_key=True, comment="the listener's name"),
        sa.Column("venue", sa.Text, nullable=False, comment="kalshi or polymarket"),
        sa.Column("is_active", sa.Boolean, nullable=False, comment="a paused listener selects nothing"),
        sa.Column("fields", sa.JSON, nullable=False, comment="its other fields, as in the YAML file"),
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False, comment="order of listing"),
        sa.Column("updated_at", moment, nullable=False, server_default=now, comment="last change"),
        comment="What to capture, where Postgres is on.",
    )
