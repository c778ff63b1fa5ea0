import json
from datetime import UTC, datetime
from typing import Any

from arb_pipeline.capture.feed import Feed
from arb_pipeline.capture.rows import RowWriter, Window
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import MarketFacts, Send
from arb_pipeline_tests.capture.fakes import FakeSession

NINE = ns_from_datetime(datetime(2026, 5, 13, 9, tzinfo=UTC))
HOUR = 3_600_000_000_000
S = 1_000_000_000
SNAP = json.dumps(["snap", "M", [[4000, 5]], []])


def make(window: Window = (None, None)) -> tuple[Feed, RowWriter]:
    rows = RowWriter("run", NINE - HOUR, window=window)
    return Feed(FakeSession("slot"), rows), rows


def events(rows: RowWriter) -> list[tuple[Any, ...]]:
    result: list[tuple[Any, ...]] = []
    for (name, partition), table in rows.drain().tables().items():
        if name == "book_events":
            result += [
                (partition.hour, row["kind"], row["recv_ns"] - NINE, row["connection_id"]) for row in table.to_pylist()
            ]
    return result


def test_opening_says_what_to_send_and_counts_markets() -> None:
    feed, _ = make()
    commands = feed.open("c1", NINE, [MarketFacts(venue="fake", market_id="M")])
    assert commands == [Send('["hello"]'), Send('["subscribe", ["M"]]')]
    assert feed.connection is not None
    assert feed.connection.markets == 1


def test_a_quiet_connection_opens_its_hour_by_the_tick() -> None:
    feed, rows = make()
    feed.open("c1", NINE - 10 * S, [])
    feed.receive(SNAP, NINE - 5 * S)
    events(rows)
    feed.tick(NINE - 1)
    assert events(rows) == []
    feed.tick(NINE + S)
    assert events(rows) == [(9, "clear", 0, "c1"), (9, "snapshot", 0, "c1")]
    feed.tick(NINE + 2 * S)
    assert events(rows) == []


def test_hours_without_a_sign_of_life_are_not_opened() -> None:
    feed, rows = make()
    feed.open("c1", NINE - 10 * S, [])
    feed.receive(SNAP, NINE - 5 * S)
    events(rows)
    feed.tick(NINE + 3 * HOUR + S)
    assert [(hour, at) for hour, _, at, _ in events(rows)] == [(12, 3 * HOUR)] * 2


def test_a_new_connection_does_not_pass_on_the_books_of_the_old_one() -> None:
    feed, rows = make()
    feed.open("c1", NINE - 10 * S, [])
    feed.receive(SNAP, NINE - 5 * S)
    feed.lost(NINE - 4 * S, "reset by peer")
    events(rows)
    feed.open("c2", NINE + S, [])
    assert events(rows) == []
    feed.receive(SNAP, NINE + 2 * S)
    assert {(at, connection) for _, _, at, connection in events(rows)} == {(2 * S, "c2")}


def test_time_without_a_connection_does_not_count_as_covered() -> None:
    feed, _ = make(window=(NINE, NINE + HOUR))
    feed.open("c1", NINE - 10 * S, [])
    feed.lost(NINE + 4 * S, "x")
    feed.open("c2", NINE + 6 * S, [])
    assert feed.live_until(NINE + 10 * S) == 8 * S
    assert feed.live_until(NINE + 2 * HOUR) == 4 * S + HOUR - 6 * S


def test_prewarmed_books_open_the_window_and_nothing_follows_its_end() -> None:
    feed, rows = make(window=(NINE, NINE + HOUR))
    feed.open("c1", NINE - 10 * S, [])
    feed.receive(SNAP, NINE - 5 * S)
    assert events(rows) == []
    feed.receive(json.dumps(["delta", "M", "bid", 4000, 6]), NINE + S)
    assert [(kind, at) for _, kind, at, _ in events(rows)] == [("clear", 0), ("snapshot", 0), ("delta", S)]
    feed.receive(json.dumps(["delta", "M", "bid", 4000, 7]), NINE + HOUR)
    assert events(rows) == []


def test_rows_keep_their_order_when_the_clock_is_set_back() -> None:
    feed, rows = make()
    feed.open("c1", NINE, [MarketFacts(venue="fake", market_id="M")])
    feed.receive(SNAP, NINE + 100 * S)
    feed.receive(json.dumps(["delta", "M", "bid", 4000, 7]), NINE + 10 * S)
    feed.receive(json.dumps(["gap", "M", "lost"]), NINE + 11 * S)
    feed.receive(SNAP, NINE + 12 * S)
    feed.lost(NINE + 13 * S, "cut")
    feed.open("c2", NINE + 14 * S, [])
    feed.receive(SNAP, NINE + 15 * S)
    feed.receive(SNAP, NINE + 101 * S)
    tables = {name: table.to_pylist() for (name, _), table in rows.drain().tables().items()}
    for name in ("raw_frames", "book_events", "quotes"):
        times = [row["recv_ns"] - NINE for row in tables[name]]
        assert times == sorted(times)
        assert 100 * S <= times[0] < times[-1] <= 101 * S
    frames = [row["recv_ns"] - NINE for row in tables["raw_frames"]]
    assert frames == [100 * S, 100 * S + 1, 100 * S + 2, 100 * S + 3, frames[4], 101 * S]
    ends = {gap["cause"]: gap["to_ns"] - NINE for gap in tables["book_gaps"]}
    assert ends == {"no_snapshot": frames[0], "lost": frames[3], "disconnect": frames[4]}
