from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from arb_pipeline.model import FeeChange, FeeScope
from arb_pipeline.storage.fee_schedules import (
    fee_schedules_as_of,
    has_fee_schedules,
    read_fee_changes,
    record_fee_changes,
)
from arb_pipeline.storage.lake import Lake
from arb_pipeline.venues.fee_timeline import ALWAYS


def day(number: int) -> datetime:
    return datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=number)


def change(scope_id: str, start: datetime, scope: FeeScope = "series", **params: str) -> FeeChange:
    venue = "polymarket" if scope == "market" else "kalshi"
    return FeeChange(venue=venue, scope=scope, scope_id=scope_id, params=params, valid_from=start, source="GET /x")


def rows(lake: Lake, venue: str = "kalshi") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lake.read("fee_schedules", venue=venue).to_pylist()
    return found


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "own"))


ALL = [
    change("A", ALWAYS, fee_type="quadratic", fee_multiplier="1"),
    change("A", day(5), fee_type="quadratic", fee_multiplier="0.5"),
    change("A-26", day(2), "event"),
]


def test_a_row_of_an_earlier_time_ends_as_was_known_then(lake: Lake) -> None:
    record_fee_changes(lake, "kalshi", ALL[:1], day(0))
    then = fee_schedules_as_of(lake, day(1))
    record_fee_changes(lake, "kalshi", ALL[1:], day(2))
    record_fee_changes(lake, "kalshi", ALL[:2], day(3))
    assert fee_schedules_as_of(lake, day(1)).equals(then)
    assert then["valid_to"].to_pylist() == [None]
    ended = {row["scope_id"] + row["scope"]: row for row in fee_schedules_as_of(lake, day(2)).to_pylist()}
    assert ended["A-26event"]["known_to"] is None
    assert fee_schedules_as_of(lake, day(3)).num_rows == lake.read("fee_schedules").num_rows


def test_what_is_written_comes_back(lake: Lake) -> None:
    assert not has_fee_schedules(lake, "kalshi")
    assert read_fee_changes(lake, "kalshi") == []
    assert record_fee_changes(lake, "kalshi", ALL, day(0)) == 3
    assert sorted(read_fee_changes(lake, "kalshi"), key=lambda one: (one.scope_id, one.valid_from)) == ALL
    assert read_fee_changes(lake, "kalshi", {"A-26"}) == [ALL[2]]
    assert has_fee_schedules(lake, "kalshi")
    assert not has_fee_schedules(lake, "polymarket")


def test_columns(lake: Lake) -> None:
    record_fee_changes(lake, "kalshi", ALL, day(0))
    cleared, first, second = rows(lake)
    assert (first["fee_type"], first["multiplier"], first["rate"]) == ("quadratic", Decimal(1), None)
    assert (first["valid_from"], first["valid_to"], second["valid_to"]) == (ALWAYS, day(5), None)
    assert (cleared["scope"], cleared["params"], cleared["multiplier"]) == ("event", "{}", None)
    assert first["params"] == '{"fee_multiplier":"1","fee_type":"quadratic"}'
    assert all(row["known_at"] == day(0) and row["known_to"] is None for row in (cleared, first, second))
    record_fee_changes(lake, "polymarket", [change("m", ALWAYS, "market", rate="0.05", exponent="1")], day(0))
    (row,) = rows(lake, "polymarket")
    assert (row["rate"], row["exponent"], row["fee_type"]) == (Decimal("0.05"), 1, None)


@pytest.mark.parametrize("text", ["x", "NaN", "1E+30", "0.1234567891"])
def test_a_number_that_fits_no_column_stays_in_the_parameters(lake: Lake, text: str) -> None:
    record_fee_changes(lake, "kalshi", [change("A", ALWAYS, fee_multiplier=text)], day(0))
    assert rows(lake)[0]["multiplier"] is None
    assert read_fee_changes(lake, "kalshi")[0].params == {"fee_multiplier": text}


def test_the_same_again_writes_nothing(lake: Lake) -> None:
    record_fee_changes(lake, "kalshi", ALL, day(0))
    files = [file.entry.sha256 for file in lake.files("fee_schedules")]
    assert record_fee_changes(lake, "kalshi", ALL, day(1)) == 0
    assert [file.entry.sha256 for file in lake.files("fee_schedules")] == files


def test_what_was_known_earlier_can_be_told(lake: Lake) -> None:
    record_fee_changes(lake, "kalshi", ALL, day(0))
    moved = [ALL[0], change("A", day(6), fee_type="quadratic", fee_multiplier="0.5")]
    assert record_fee_changes(lake, "kalshi", moved, day(1)) == 3
    assert read_fee_changes(lake, "kalshi") == moved
    assert len(read_fee_changes(lake, "kalshi", known_at=day(0))) == 3
    assert read_fee_changes(lake, "kalshi", known_at=day(1)) == moved
    assert read_fee_changes(lake, "kalshi", known_at=day(-1)) == []
    assert not has_fee_schedules(lake, "kalshi", day(-1))
    ends = {(row["valid_from"], row["known_to"]): row["valid_to"] for row in rows(lake) if row["scope"] == "series"}
    assert ends == {(ALWAYS, None): day(6), (day(5), day(1)): None, (day(6), None): None}


def test_told_otherwise_for_the_same_time(lake: Lake) -> None:
    record_fee_changes(lake, "kalshi", [change("A", ALWAYS, fee_multiplier="1")], day(0))
    record_fee_changes(lake, "kalshi", [change("A", ALWAYS, fee_multiplier="2")], day(1))
    assert [one.params["fee_multiplier"] for one in read_fee_changes(lake, "kalshi")] == ["2"]
    assert [one.params["fee_multiplier"] for one in read_fee_changes(lake, "kalshi", known_at=day(0))] == ["1"]
    # The same listing once more, told better.
    record_fee_changes(lake, "kalshi", [change("A", ALWAYS, fee_multiplier="3")], day(1))
    assert [row["known_at"] for row in rows(lake)] == [day(0), day(1)]


def test_an_older_listing_changes_nothing(lake: Lake) -> None:
    record_fee_changes(lake, "kalshi", ALL, day(3))
    assert record_fee_changes(lake, "kalshi", [], day(2)) == 0
    assert len(read_fee_changes(lake, "kalshi")) == 3


def test_venues_do_not_touch_each_other(lake: Lake) -> None:
    record_fee_changes(lake, "kalshi", ALL, day(0))
    record_fee_changes(lake, "polymarket", [change("m", ALWAYS, "market", rate="0")], day(1))
    record_fee_changes(lake, "polymarket", [], day(2))
    assert len(read_fee_changes(lake, "kalshi")) == 3
    assert read_fee_changes(lake, "polymarket") == []
    assert len(read_fee_changes(lake, "polymarket", known_at=day(1))) == 1
