from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arb_pipeline.storage.postgres.copying import binary_copy, copy_rows

_TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=12)


def _decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    limit = 10**precision - 1
    return st.integers(-limit, limit).map(lambda value: Decimal(value).scaleb(-scale))


_COLUMNS: dict[str, tuple[str, pa.DataType, st.SearchStrategy[Any]]] = {
    "price": ("numeric(9,4)", pa.decimal128(9, 4), _decimals(9, 4)),
    "traded": ("numeric(12,9)", pa.decimal128(12, 9), _decimals(12, 9)),
    "size": ("numeric(18,6)", pa.decimal128(18, 6), _decimals(18, 6)),
    "money": ("numeric(24,10)", pa.decimal128(24, 10), _decimals(24, 10)),
    "whole": ("numeric(5,0)", pa.decimal128(5, 0), _decimals(5, 0)),
    "ns": ("bigint", pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "held": ("boolean", pa.bool_(), st.booleans()),
    "share": ("double precision", pa.float64(), st.floats(allow_nan=False)),
    "at": (
        "timestamptz",
        pa.timestamp("us", tz="UTC"),
        st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda at: at.replace(tzinfo=UTC)),  # noqa: DTZ001
    ),
    "day": ("date", pa.date32(), st.dates(date(1970, 1, 1), date(2200, 1, 1))),
    "words": ("text", pa.string(), _TEXT),
}
_SCHEMA = pa.schema([(name, type_) for name, (_, type_, _) in _COLUMNS.items()])


@pytest.fixture
def round_trip(postgres_url: str) -> Any:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        declared = ", ".join(f"{name} {sql}" for name, (sql, _, _) in _COLUMNS.items())
        connection.execute(f"CREATE TEMP TABLE one (place serial, {declared})")

        def through(rows: pa.Table) -> list[dict[str, Any]]:
            connection.execute("DELETE FROM one")
            with connection.cursor() as cursor:
                assert copy_rows(cursor, "one", rows) == rows.num_rows
            found = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM one ORDER BY place").fetchall()
            return [dict(zip(_COLUMNS, row, strict=True)) for row in found]

        yield through


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.fixed_dictionaries({name: st.none() | values for name, (_, _, values) in _COLUMNS.items()}), max_size=8)
)
def test_every_value_comes_back_exactly_as_it_was(
    round_trip: Callable[[pa.Table], list[dict[str, Any]]], rows: list[dict[str, Any]]
) -> None:
    assert round_trip(pa.Table.from_pylist(rows, schema=_SCHEMA)) == rows


def test_slices_chunks_and_many_rows_are_told_apart(round_trip: Callable[[pa.Table], list[dict[str, Any]]]) -> None:
    empty = dict.fromkeys(_COLUMNS)
    rows: list[dict[str, Any]] = [
        {**empty, "ns": number, "words": "x" * (number % 7), "price": Decimal(number % 9_999).scaleb(-4)}
        for number in range(40_000)
    ]
    whole = pa.Table.from_pylist(rows, schema=_SCHEMA)
    chunked = pa.concat_tables([whole.slice(3, 5), whole.slice(100, 30_000)])
    assert round_trip(chunked) == [*rows[3:8], *rows[100:30_100]]


def test_a_decimal_of_no_rows_and_no_rows_at_all() -> None:
    parts = list(binary_copy(_SCHEMA.empty_table()))
    assert b"".join(parts) == b"PGCOPY\n\xff\r\n\x00" + bytes(8) + b"\xff\xff"


def test_a_type_that_no_table_has_is_named() -> None:
    rows = pa.table({"odd": pa.array([1], pa.int16())})
    with pytest.raises(TypeError, match="'odd' is int16"):
        list(binary_copy(rows))
