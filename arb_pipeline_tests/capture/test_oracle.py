"""The oracle objects to whatever is wrong, and to nothing that is right."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from arb_pipeline_tests.capture.fault_matrix import SCENARIOS, Captured, Scenario, capture
from arb_pipeline_tests.capture.oracle import Rows

Row = Mapping[str, Any]


def altered(rows: Rows, name: str, change: Callable[[list[Row]], Sequence[Row]]) -> Rows:
    ordered = sorted(rows[name], key=lambda row: row["ordinal"])
    return {**rows, name: change(ordered)}


def wrong_book(rows: list[Row]) -> Sequence[Row]:
    """The last change of a level gets another size."""
    place = max(place for place, row in enumerate(rows) if row["kind"] == "delta")
    return [*rows[:place], {**rows[place], "size": rows[place]["size"] + 1}, *rows[place + 1 :]]


def wrong_quote(rows: list[Row]) -> Sequence[Row]:
    return [*rows[:-1], {**rows[-1], "bid_size": (rows[-1]["bid_size"] or Decimal(0)) + 1}]


def stale_quotes(rows: list[Row]) -> Sequence[Row]:
    """Each market's newest quote never came."""
    newest = {row["market_id"]: row["ordinal"] for row in rows}
    return [row for row in rows if row["ordinal"] != newest[row["market_id"]]]


def lost_frame(rows: list[Row]) -> Sequence[Row]:
    return rows[:100] + rows[101:]


def doubled_frame(rows: list[Row]) -> Sequence[Row]:
    return [*rows[:100], {**rows[99], "ordinal": rows[99]["ordinal"] + 1}, *rows[100:]]


def no_gap(rows: list[Row]) -> Sequence[Row]:
    return [row for row in rows if row["cause"] != "seq_gap"]


def late_gap(rows: list[Row]) -> Sequence[Row]:
    """Dated from when it was found out, not back to the last proof."""
    return [{**row, "from_ns": row["to_ns"]} if row["cause"] == "seq_gap" else row for row in rows]


TAMPERINGS: list[tuple[str, Callable[[list[Row]], Sequence[Row]], str]] = [
    ("book_events", wrong_book, "ends as"),
    ("quotes", wrong_quote, "the exchange had"),
    ("quotes", stale_quotes, "was in force"),
    ("raw_frames", lost_frame, "is not the one that"),
    ("raw_frames", doubled_frame, "is not the one that"),
    ("book_gaps", no_gap, "lost outside any gap"),
    ("book_gaps", late_gap, "lost outside any gap"),
]


@pytest.fixture
async def captured(tmp_path: Path) -> Captured:
    order = SCENARIOS["order"]
    return await capture(Scenario("order", order.body, trades=False), tmp_path)


async def test_the_oracle_objects_to_what_is_wrong_and_to_nothing_else(captured: Captured) -> None:
    found = captured.judge()
    assert found.objections == []
    assert [loss.accounted for loss in found.losses] == [True, True]
    for name, change, words in TAMPERINGS:
        objections = captured.judge(altered(captured.rows, name, change)).objections
        assert any(words in objection for objection in objections), f"{change.__name__}: {objections}"
