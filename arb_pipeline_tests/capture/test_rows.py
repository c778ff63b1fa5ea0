from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.capture.rows import ConnectionRows, GapLedger, LagHistogram, RowWriter, Window
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import (
    Anomaly,
    AnomalyKind,
    BookDelta,
    BookSnapshot,
    Command,
    FetchBooks,
    GapClosed,
    GapOpened,
    Output,
    Quote,
    Reconnect,
    Send,
    Ticker,
    Trade,
)
from arb_pipeline.tables import table

START = ns_from_datetime(datetime(2026, 5, 13, 20, tzinfo=UTC))
HOUR = 3_600_000_000_000
S = 1_000_000_000


def make(window: Window = (None, None), shard: int = 0) -> tuple[RowWriter, ConnectionRows, GapLedger]:
    rows = RowWriter("run", START, shard=shard, window=window)
    return rows, ConnectionRows(rows, "kalshi", "c1", START), GapLedger()


def written(rows: RowWriter) -> dict[str, list[dict[str, Any]]]:
    result: dict[str, list[dict[str, Any]]] = {}
    for (name, _), arrow in rows.drain().tables().items():
        assert arrow.schema.equals(table(name).schema)
        result.setdefault(name, []).extend(arrow.to_pylist())
    return result


def snapshot(bids: tuple[tuple[int, int], ...] = (), asks: tuple[tuple[int, int], ...] = ()) -> BookSnapshot:
    return BookSnapshot("M", bids, asks, START + 1, None, 7, 3, "initial", in_sync=True)


def test_a_snapshot_is_a_clear_row_and_its_levels_best_first() -> None:
    rows, connection, gaps = make()
    bids, asks = ((100, 5), (4100, 2_500_000)), ((9900, 7), (4200, 1))
    connection.write([snapshot(bids, asks)], gaps)
    events = written(rows)["book_events"]
    told = [(e["kind"], e["side"], e["price"], e["size"]) for e in events]
    assert told == [
        ("clear", None, None, None),
        ("snapshot", "bid", Decimal("0.4100"), Decimal("2.500000")),
        ("snapshot", "bid", Decimal("0.0100"), Decimal("0.000005")),
        ("snapshot", "ask", Decimal("0.4200"), Decimal("0.000001")),
        ("snapshot", "ask", Decimal("0.9900"), Decimal("0.000007")),
    ]
    assert {(e["venue"], e["market_id"], e["connection_id"], e["seq"], e["epoch"]) for e in events} == {
        ("kalshi", "M", "c1", 7, 3)
    }


def test_an_empty_snapshot_is_told_all_the_same() -> None:
    rows, connection, gaps = make()
    connection.write([snapshot()], gaps)
    assert [e["kind"] for e in written(rows)["book_events"]] == ["clear"]


def test_every_kind_of_output_becomes_its_row_and_commands_come_back() -> None:
    rows, connection, gaps = make()
    at = START + S
    commands: list[Command] = [Send("x"), FetchBooks(("M",), "why"), Reconnect("why")]
    outputs: list[Output] = [
        BookDelta("M", "ask", 4200, 0, at, at - 1, 8, 3),
        Quote("M", 4100, 1_000_000, None, None, False, at, None, 8),
        Trade("M", "t", 123_456_789, 10, None, at, at - 2, 9),
        Ticker("M", None, None, 4200, 1, 4100, 2, None, at, None, "rest"),
        *commands,
    ]
    assert connection.write(outputs, gaps) == commands
    connection.frame("{}", at)
    found = written(rows)
    [event] = found["book_events"]
    assert (event["kind"], event["side"], event["price"], event["size"]) == ("delta", "ask", Decimal("0.42"), 0)
    [quote] = found["quotes"]
    assert (quote["bid"], quote["ask"], quote["ask_size"], quote["in_sync"]) == (Decimal("0.41"), None, None, False)
    assert (quote["venue_ns"], quote["seq"]) == (None, 8)
    [trade] = found["trades"]
    assert (trade["trade_id"], trade["price"], trade["taker_side"]) == ("t", Decimal("0.123456789"), None)
    [ticker] = found["tickers"]
    assert (ticker["bid"], ticker["ask"], ticker["volume"], ticker["source"]) == (
        None,
        Decimal("0.42"),
        Decimal("0.000002"),
        "rest",
    )
    [frame] = found["raw_frames"]
    assert (frame["frame"], frame["recv_ns"], frame["connection_id"], frame["source"]) == ("{}", at, "c1", "ws")


def test_ordinals_are_unique_rising_and_tell_the_shard() -> None:
    rows, connection, gaps = make(shard=5)
    other = ConnectionRows(rows, "polymarket", "c2", START)
    for n in range(50):
        (connection, other)[n % 2].frame("f", START + n)
        outputs: list[Output] = [snapshot(((1, 1),)), Quote("M", None, None, None, None, True, START + n, None, None)]
        connection.write(outputs, gaps)
    found = written(rows)
    every = sorted(row["ordinal"] for name in ("raw_frames", "book_events", "quotes") for row in found[name])
    assert len(set(every)) == len(every) == 50 + 100 + 50
    assert every == [(START // 1000 + n) * 1024 + 5 for n in range(1, 201)]
    for name in ("raw_frames", "book_events"):
        own = [row["ordinal"] for row in found[name] if row["connection_id"] == "c1"]
        assert own == sorted(own)


def test_rows_go_to_the_hour_of_their_receipt() -> None:
    rows, connection, gaps = make()
    for at in (START, START + HOUR - 1, START + HOUR):
        connection.write([Trade("M", str(at), 1, 1, "no", at, None, None)], gaps)
        connection.frame(str(at), at)
    tables = rows.drain().tables()
    counts = {f"{name} {partition.path}": arrow.num_rows for (name, partition), arrow in tables.items()}
    day = "venue=kalshi/date=2026-05-13"
    assert counts == {f"{name} {day}/hour={h}": n for name in ("trades", "raw_frames") for h, n in ((20, 2), (21, 1))}
    for (name, partition), arrow in tables.items():
        text = arrow["frame" if name == "raw_frames" else "trade_id"].to_pylist()
        assert text == [str(at) for at in arrow["recv_ns"].to_pylist()], (name, partition)


def test_outside_the_window_nothing_but_doubts_and_anomalies_is_kept() -> None:
    rows, connection, gaps = make(window=(START, START + HOUR))
    assert [rows.keeps(at) for at in (START - 1, START, START + HOUR - 1, START + HOUR)] == [False, True, True, False]
    early = START - S
    outputs: list[Output] = [
        BookDelta("M", "bid", 1, 1, early, None, None, 1),
        Quote("M", 1, 1, None, None, True, early, None, None),
        Trade("M", "t", 1, 1, "no", early, None, None),
        snapshot(),
        GapOpened("M", "seq_gap", early),
        Anomaly(AnomalyKind.SEQ_GAP, "d", early),
    ]
    connection.write(outputs, gaps, keep=False)
    connection.write([GapClosed("M", START + 2 * S, "snapshot")], gaps)
    found = written(rows)
    assert found.keys() == {"book_gaps"}
    [gap] = found["book_gaps"]
    assert (gap["from_ns"], gap["to_ns"]) == (START, START + 2 * S)
    assert rows.totals["kalshi"].anomalies == {"seq_gap": 1}


def test_a_doubt_that_ended_before_the_window_is_no_row() -> None:
    rows, connection, gaps = make(window=(START, START + HOUR))
    connection.write([GapOpened("M", "x", START - 9), GapClosed("M", START - 5, "snapshot")], gaps, keep=False)
    assert written(rows) == {}


def test_one_recovery_ends_every_doubt_of_its_market_and_time_counts_once() -> None:
    rows, connection, gaps = make()
    connection.write(
        [
            GapOpened("M", "seq_gap", START + S),
            GapOpened("M", "seq_gap", START + 2 * S),
            GapOpened("N", "seq_gap", START + S),
            GapOpened("M", "disconnect", START + 3 * S),
            GapClosed("M", START + 5 * S, "snapshot"),
            GapClosed("unknown", START + 5 * S, "snapshot"),
        ],
        gaps,
    )
    found = written(rows)["book_gaps"]
    assert [(g["market_id"], g["cause"], g["from_ns"], g["to_ns"], g["recovery"]) for g in found] == [
        ("M", "seq_gap", START + S, START + 5 * S, "snapshot"),
        ("M", "disconnect", START + 3 * S, START + 5 * S, "snapshot"),
    ]
    assert rows.totals["kalshi"].gap_ns == 4 * S
    assert [market for market, _ in gaps.drain()] == ["N"]


def test_a_session_row_says_what_a_connection_carried_and_what_was_wrong() -> None:
    rows, connection, gaps = make()
    connection.markets = 3
    connection.frame("é", START)
    for n in range(200):
        connection.write([Anomaly(AnomalyKind.BAD_NUMBER, f"size {n}", START + n, "M", "frame")], gaps)
    connection.write([BookDelta("M", "bid", 1, 1, START + S, START + S - 20_000_000, None, 1)], gaps)
    connection.close(START + 2 * S, "stopped")
    [row] = written(rows)["capture_sessions"]
    assert (row["frames"], row["bytes"], row["markets"], row["stop_reason"]) == (1, 2, 3, "stopped")
    assert row["anomalies"] == '{"bad_number":200}'
    assert '"size 0"' in row["examples"]
    assert "size 1" not in row["examples"]
    assert row["lag_p50_ms"] == pytest.approx(20, rel=0.06)
    assert (row["ended_at"] - row["started_at"]).total_seconds() == 2
    assert written(rows) == {}


def test_a_number_too_long_for_its_column_is_left_out_and_counted_not_fatal() -> None:
    rows, connection, gaps = make()
    connection.write([BookDelta("M", "bid", price, 1, START, None, None, 1) for price in (1, 10**9, 2)], gaps)
    assert [e["price"] for e in written(rows)["book_events"]] == [Decimal("0.0001"), Decimal("0.0002")]
    assert connection.anomalies == {"bad_number": 1}
    assert "book_events.price 1000000000" in connection.examples["bad_number"]["detail"]


def test_two_connections_cannot_share_an_id() -> None:
    rows, _, _ = make()
    with pytest.raises(ValueError, match="'c1' is taken"):
        ConnectionRows(rows, "kalshi", "c1", START)


@given(st.lists(st.integers(-(10**10), 10**11), min_size=1, max_size=200), st.sampled_from([0.5, 0.99]))
def test_lag_percentiles_are_within_a_bucket_of_the_exact_ones(lags: list[int], share: float) -> None:
    histogram = LagHistogram()
    histogram.add(np.array(lags, dtype=np.int64))
    exact = float(np.sort(lags)[max(0, int(np.ceil(share * len(lags))) - 1)]) / 1e6
    found = histogram.percentile_ms(share)
    assert found is not None
    assert found == pytest.approx(exact, rel=0.06, abs=0.11)


def test_without_lags_there_is_no_percentile() -> None:
    assert LagHistogram().percentile_ms(0.5) is None


def test_a_gap_never_ends_before_it_begins() -> None:
    rows, connection, gaps = make()
    gaps.awaits(GapOpened("M", "no_snapshot", START + 5), 1, "c1")
    connection.write([snapshot()], gaps)  # by a clock that was set back by then
    [gap] = written(rows)["book_gaps"]
    assert (gap["from_ns"], gap["to_ns"]) == (START + 5, START + 5)
