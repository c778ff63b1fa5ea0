from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from arb_pipeline.storage.lake import Lake
from arb_pipeline.storage.latest import LATEST_SCHEMA, latest_prices
from arb_pipeline.tables import table
from arb_pipeline_tests.storage.rows import HOUR, SECOND, START, TWENTY, TWENTY_ONE, quotes, trades


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path))
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1), ("A", 9, 3), ("B", 5, 2)), "w")
    lake.write_part("quotes", TWENTY_ONE, quotes(("A", 3_600, 4), ("A", 3_600, 5), ("A", 3_700, 6)), "w")
    lake.write_part("trades", TWENTY, trades([("t1", 2, 1, "0.4"), ("t2", 8, 2, "0.5")]), "w")
    return lake


def test_each_market_has_its_newest_quote_by_then(lake: Lake) -> None:
    found = latest_prices(START + HOUR, lake=lake)
    assert found.schema.equals(LATEST_SCHEMA)
    assert [(row["market_id"], row["ordinal"], row["age_ns"]) for row in found.to_pylist()] == [
        ("A", 5, 0), ("B", 2, HOUR - 5 * SECOND),
    ]  # fmt: skip
    assert set(table("quotes").column_names) < set(found.column_names)
    earlier = latest_prices(START + 6 * SECOND, lake=lake, markets=["A"])
    assert earlier["ordinal"].to_pylist() == [1]


def test_with_the_last_trade_if_there_is_one(lake: Lake) -> None:
    lake.write_part("quotes", TWENTY, quotes(("M", 7, 9)), "w2")
    a, _, m = latest_prices(datetime(2026, 5, 13, 22, tzinfo=UTC), lake=lake).to_pylist()
    assert (a["last_price"], a["last_trade_ns"], a["last_taker_side"]) == (None, None, None)
    assert (m["last_price"], m["last_size"], m["last_taker_side"]) == (Decimal("0.5"), 1, "yes")
    assert m["last_trade_ns"] == START + 8 * SECOND


def test_it_looks_back_so_many_hours(lake: Lake) -> None:
    assert latest_prices(START + 90 * 60 * SECOND, hours=1, lake=lake)["market_id"].to_pylist() == ["A"]
    assert latest_prices(START + 90 * 60 * SECOND, hours=1, venue="polymarket", lake=lake).num_rows == 0
