import re

import pyarrow as pa
import pytest

from arb_pipeline.tables import MONEY, PRICE, SIZE, TABLES, TIMESTAMP, Partitioning, Table, describe, table

every = pytest.mark.parametrize("declared", TABLES.values(), ids=lambda declared: declared.name)
MARKET_DATA = {"book_events", "quotes", "trades", "tickers"}


@every
def test_columns_are_unique_documented_and_in_the_schema(declared: Table) -> None:
    names = declared.column_names
    assert len(set(names)) == len(names)
    assert declared.schema.names == list(names)
    assert declared.doc.endswith(".")
    for column in declared.columns:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
        assert column.doc
        field = declared.schema.field(column.name)
        assert field.nullable == column.nullable
        assert field.metadata == {b"doc": column.doc.encode()}


@every
def test_key_and_order_are_columns_and_a_key_is_never_null(declared: Table) -> None:
    assert declared.key
    assert declared.sort
    assert set(declared.key) | set(declared.sort) <= set(declared.column_names)
    for name in (*declared.key, *declared.sort):
        assert not declared.schema.field(name).nullable


@every
def test_the_order_of_tick_tables_ends_in_the_recorders_order(declared: Table) -> None:
    if "ordinal" in declared.column_names:
        assert declared.sort[-1] == "ordinal"


@every
def test_types_follow_names(declared: Table) -> None:
    for column in declared.columns:
        if column.name.endswith("_ns"):
            assert column.type == pa.int64(), column.name
        if column.name.endswith("_at"):
            assert column.type == TIMESTAMP, column.name
        if column.name in ("bid", "ask", "tick", "last_price", "kalshi_bid", "polymarket_ask", "kalshi_limit"):
            assert column.type == PRICE, column.name
        if column.name in ("bid_size", "ask_size", "size", "min_size", "volume", "open_interest"):
            assert column.type == SIZE, column.name
        if column.name in ("gross", "fees", "net", "capital", "peak_edge", "worst_state_net"):
            assert column.type == MONEY, column.name
        assert not pa.types.is_float32(column.type), column.name


@every
def test_a_table_split_by_venue_has_the_column(declared: Table) -> None:
    split = "venue" in declared.column_names and declared.partitioning is not Partitioning.CURRENT
    assert declared.by_venue == split


@pytest.mark.parametrize("name", sorted(MARKET_DATA))
def test_market_data_says_venue_source_and_connection(name: str) -> None:
    declared = table(name)
    assert {"venue", "source", "market_id", "recv_ns", "ordinal", "venue_ns", "connection_id"} <= set(
        declared.column_names
    )
    assert declared.partitioning is Partitioning.HOUR


def test_prices_sizes_and_money_are_exact_decimals() -> None:
    assert pa.decimal128(9, 4) == PRICE
    assert pa.decimal128(18, 6) == SIZE
    assert pa.decimal128(24, 10) == MONEY
    assert table("trades").schema.field("price").type == pa.decimal128(12, 9)
    assert table("book_events").schema.field("price").type == PRICE


def test_an_unknown_table_is_named_with_those_that_there_are() -> None:
    with pytest.raises(KeyError, match=r"no table 'quote'; there are .*quotes"):
        table("quote")


@every
def test_the_reference_tells_every_column(declared: Table) -> None:
    section = describe().split(f"\n## {declared.name}\n")[1].split("\n## ")[0]
    for column in declared.columns:
        assert f"| {column.name} | {column.type} |" in section
