"""``arb_pipeline.read``: rows of the lake as pandas or Arrow, of chosen times, markets and columns."""

import re
from collections.abc import Collection, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Literal, SupportsIndex, TypeAlias, overload

import numpy as np
import pyarrow as pa

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.errors import ArbError
from arb_pipeline.model import Source
from arb_pipeline.storage.arrow import fixed_point
from arb_pipeline.storage.lake import Lake
from arb_pipeline.tables import TABLES, Table

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

__all__ = ["LakeName", "ReadError", "Time", "connect", "frame", "instant_ns", "open_lake", "read"]

Time: TypeAlias = datetime | str | SupportsIndex
"""An aware datetime (also pandas'), ISO 8601 text with its offset, or nanoseconds since the epoch."""

LakeName: TypeAlias = Lake | str | Path | None

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9}))?)?\s*(Z|[+-]\d\d:?\d\d)?\Z", re.IGNORECASE
)
_EARLIEST_NS = 10**17
_MARKET_COLUMNS = frozenset({"market_id", "kalshi_market_id", "polymarket_market_id"})
_EXACT_FLOAT = 2**53


class ReadError(ArbError, ValueError):
    """A table, column, filter, time or lake that there is not; the message says which and what there is."""


@overload
def read(
    table: str,
    start: Time | None = None,
    end: Time | None = None,
    *,
    markets: str | Collection[str] | None = None,
    columns: Sequence[str] | None = None,
    venue: str | None = None,
    source: Source | None = None,
    lake: LakeName = None,
    as_: Literal["pandas"] = "pandas",
    exact: bool = False,
) -> "pd.DataFrame": ...


@overload
def read(
    table: str,
    start: Time | None = None,
    end: Time | None = None,
    *,
    markets: str | Collection[str] | None = None,
    columns: Sequence[str] | None = None,
    venue: str | None = None,
    source: Source | None = None,
    lake: LakeName = None,
    as_: Literal["arrow"],
    exact: bool = False,
) -> pa.Table: ...


def read(
    table: str,
    start: Time | None = None,
    end: Time | None = None,
    *,
    markets: str | Collection[str] | None = None,
    columns: Sequence[str] | None = None,
    venue: str | None = None,
    source: Source | None = None,
    lake: LakeName = None,
    as_: Literal["pandas", "arrow"] = "pandas",
    exact: bool = False,
) -> "pd.DataFrame | pa.Table":
    """Rows of a table received in [start, end), in the table's order.

    Only files of partitions that the time and venue touch are opened. Rows count by their time of receipt
    (``recv_ns``; opportunities by ``opened_at``); what lasts (gaps, sessions, matches, states of markets) counts if it
    overlaps; catalogues count by their day.

    **In pandas, prices, sizes and money are float64**, the nearest to the stored decimal: fine for looking and
    plotting, not for sums of money or equality. ``exact=True`` gives :class:`~decimal.Decimal` objects, ``as_="arrow"``
    Arrow's decimals. Whole numbers that may be null (``venue_ns``, ``seq``) are pandas' ``Int64``, so that no
    nanosecond is lost to a float.

    Args:
        table: its name, see ``docs/tables.md``.
        start, end: a datetime or pandas Timestamp with a time zone, ISO text with an offset
            (``2026-05-13T20:00Z``), or nanoseconds since the epoch; None is open.
        markets: a market id or several: Kalshi tickers, Polymarket condition ids.
        columns: these columns, in this order; None: all.
        venue: ``kalshi`` or ``polymarket``; None: both.
        source: ``ws`` (pushed) or ``rest`` (polled); None: both.
        lake: a folder, an fsspec URL or a :class:`Lake`; None: ``ARB_LAKE``.
        as_: ``pandas`` or ``arrow``.
        exact: pandas only: decimals instead of floats.

    Raises:
        ReadError: if there is no such table, column or lake, the table has nothing to filter by, or a time has no
            time zone.
    """
    if table not in TABLES:
        raise ReadError(f"no table {table!r}; there are {', '.join(TABLES)}")
    if as_ not in ("pandas", "arrow"):
        raise ReadError(f"as_={as_!r} is no form; give 'pandas' or 'arrow'")
    declared = TABLES[table]
    wanted = _columns(declared, columns)
    wanted_markets = _markets(declared, markets)
    _check_filters(declared, venue, source)
    since, until = instant_ns(start, "start"), instant_ns(end, "end")
    if since is not None and until is not None and since > until:
        raise ReadError(f"start {start} lies after end {end}; exchange them")
    rows = open_lake(lake).read(declared, since, until, venue, markets=wanted_markets, columns=wanted, source=source)
    return rows if as_ == "arrow" else frame(rows, exact=exact)


def connect(lake: LakeName = None) -> "duckdb.DuckDBPyConnection":
    """DuckDB, in memory, with a view of every table over the files that count now (see ``docs/queries.md``).

    Connect again to see what was written since. None stands for ``ARB_LAKE``.

    Raises:
        ReadError: if there is no such lake.
    """
    from arb_pipeline.storage.query import connect as views  # noqa: PLC0415 - DuckDB is loaded where it is used

    return views(open_lake(lake))


def open_lake(lake: LakeName = None) -> Lake:
    """The lake that is meant.

    Raises:
        ReadError: if it is a folder that does not exist.
    """
    if isinstance(lake, Lake):
        return lake
    if lake is None:
        # It validates every setting, which a caller that names its lake can do without.
        from arb_pipeline.settings import Settings  # noqa: PLC0415

        lake = Settings().lake
    opened = Lake(str(lake))
    if opened.is_local and not Path(opened.root).expanduser().is_dir():
        raise ReadError(f"no lake at {opened.root}: give lake=..., or set ARB_LAKE to its folder or URL")
    return opened


@overload
def instant_ns(at: Time, what: str = ..., default: tzinfo | None = ...) -> int: ...


@overload
def instant_ns(at: Time | None, what: str = ..., default: tzinfo | None = ...) -> int | None: ...


def instant_ns(at: Time | None, what: str = "time", default: tzinfo | None = None) -> int | None:
    """Nanoseconds since the epoch of a time given in any of the accepted forms.

    Args:
        what: names it in errors.
        default: the zone of text without one, where people type it; None: such text is refused, since a naive datetime
            beside it would be local time.

    Raises:
        ReadError: if it is none of them, or has no time zone.
    """
    if at is None:
        return None
    if isinstance(at, str):
        return _ns_of_text(at, what, default)
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ReadError(
                f"{what} {at!r} has no time zone: in UTC that is {what}.replace(tzinfo=datetime.UTC), for a pandas "
                f"Timestamp {what}.tz_localize('UTC')"
            )
        # pandas' Timestamp is a datetime with nanoseconds beyond its microseconds.
        beyond: int = getattr(at, "nanosecond", 0)
        return ns_from_datetime(at) + beyond
    if not isinstance(at, bool) and hasattr(at, "__index__"):
        value = at.__index__()
        if value < _EARLIEST_NS:
            raise ReadError(f"{what} {value} is no time in nanoseconds since the epoch (now is about 1.8e18)")
        return value
    raise ReadError(
        f"{what} {at!r} is a {type(at).__name__}; give a datetime or pandas Timestamp with a time zone, text such as "
        "2026-05-13T20:00Z, or nanoseconds since the epoch"
    )


def _ns_of_text(text: str, what: str, default: tzinfo | None) -> int:
    if text.isdecimal():
        return instant_ns(int(text), what)
    match = _ISO.match(text.strip())
    try:
        if match is None:
            raise ValueError(text)
        day, minute, second, fraction, zone = match.groups()
        if zone is None and default is None:
            raise ReadError(f"{what} {text!r} has no time zone: add Z for UTC, or an offset such as +02:00")
        whole = datetime.fromisoformat(f"{day}T{minute or '00:00'}{second or ':00'}{(zone or '').upper()}")
        whole = whole.replace(tzinfo=whole.tzinfo or default)
    except ValueError as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"{what} {text!r} is no time; write it as 2026-05-13T20:20:36.508Z") from None
    return ns_from_datetime(whole) + int((fraction or "0").ljust(9, "0"))


def frame(rows: pa.Table, *, exact: bool = False) -> "pd.DataFrame":
    """Rows in pandas: decimals as the nearest float64, or as Decimal objects; nullable whole numbers as ``Int64``."""
    import pandas as pd  # noqa: PLC0415 - it takes a second to load

    columns = {}
    for field in rows.schema:
        column = rows[field.name]
        if pa.types.is_decimal(field.type) and not exact:
            column = _floats(column)
        types = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()} if field.nullable else {}
        columns[field.name] = column.to_pandas(types_mapper=types.get)
    return pd.DataFrame(columns, columns=rows.column_names)


def _floats(column: pa.ChunkedArray) -> pa.Array:
    """Decimals as the nearest floats; Arrow's own cast may miss them by one unit in the last place."""
    counts, valid = fixed_point(column)
    scale = 10**column.type.scale
    if (np.abs(counts) < _EXACT_FLOAT).all():
        values = counts / scale
    else:
        values = np.array([int(count) / scale for count in counts], dtype=np.float64)
    return pa.array(values, pa.float64(), mask=~valid)


def _columns(table: Table, columns: Sequence[str] | None) -> list[str] | None:
    if columns is None:
        return None
    if isinstance(columns, str):
        raise ReadError(f"columns={columns!r} is one word; give a list, columns=[{columns!r}]")
    for name in columns:
        if name not in table.column_names:
            raise ReadError(f"{table.name} has no column {name!r}; it has {', '.join(table.column_names)}")
    return list(columns)


def _markets(table: Table, markets: str | Collection[str] | None) -> Collection[str] | None:
    if markets is None:
        return None
    if not _MARKET_COLUMNS & set(table.column_names):
        raise ReadError(f"{table.name} has no market to filter by: leave out markets=")
    return [markets] if isinstance(markets, str) else list(markets)


def _check_filters(table: Table, venue: str | None, source: str | None) -> None:
    for name, value in (("venue", venue), ("source", source)):
        if value is not None and name not in table.column_names:
            raise ReadError(f"{table.name} has no column {name}: leave out {name}=")
    if source is not None and source not in ("ws", "rest"):
        raise ReadError(f"source={source!r} is none; give 'ws' (pushed) or 'rest' (polled)")
