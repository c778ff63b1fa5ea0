"""Candles from captured rows, against a reference that looks at every instant by itself."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.model import Candle
from arb_pipeline.storage.candles import CapturedHour, captured_candles, hour_candles, renewed, venue_candles
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table
from arb_pipeline_tests.storage.rows import HOUR, SECOND, START, TWENTY, TWENTY_ONE

MINUTE = 60 * SECOND
DAY = Partition.parse("venue=kalshi/date=2026-05-13")
LATER = datetime(2026, 5, 14, tzinfo=UTC)
D = Decimal

Quote = tuple[int, int | None, int | None, bool, str]
"""Seconds after START, bid and ask in cents, in sync, connection."""
Snapshot = tuple[int, Sequence[int], Sequence[int], str]
Print = tuple[int, int, int]
Gap = tuple[int, int | None, str]
Session = tuple[str, int | None]


def rows(name: str, records: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of a table; what is not given has a value that does not matter, or is null."""
    other: dict[pa.DataType, Any] = {pa.string(): "", pa.int64(): 0, pa.bool_(): True, pa.float64(): 0.0}
    blank = {
        column.name: None if column.nullable else other.get(column.type, datetime_from_ns(START))
        for column in table(name).columns
    }
    return pa.Table.from_pylist([{**blank, "venue": "kalshi", **record} for record in records], table(name).schema)


def quote_rows(quotes: Sequence[Quote], market: str = "M") -> pa.Table:
    return rows(
        "quotes",
        [
            {
                "market_id": market, "recv_ns": START + at * SECOND, "ordinal": number, "connection_id": connection,
                "bid": None if bid is None else D(bid) / 100, "ask": None if ask is None else D(ask) / 100,
                "in_sync": in_sync, "source": "ws",
            }
            for number, (at, bid, ask, in_sync, connection) in enumerate(quotes)
        ],
    )  # fmt: skip


def snapshot_rows(snapshots: Sequence[Snapshot], market: str = "M") -> pa.Table:
    found: list[dict[str, Any]] = []
    for at, bids, asks, connection in snapshots:
        levels = [("clear", None, None), *(("snapshot", "bid", bid) for bid in bids)]
        levels += [("snapshot", "ask", ask) for ask in asks]
        found += [
            {
                "market_id": market, "recv_ns": START + at * SECOND, "ordinal": len(found) + number, "kind": kind,
                "side": side, "price": None if price is None else D(price) / 100, "connection_id": connection,
            }
            for number, (kind, side, price) in enumerate(levels)
        ]  # fmt: skip
    return rows("book_events", found)


def trade_rows(trades: Sequence[Print], market: str = "M") -> pa.Table:
    return rows(
        "trades",
        [
            {
                "market_id": market, "recv_ns": START + at * SECOND, "ordinal": number, "trade_id": f"t{number}",
                "price": D(price) / 100, "size": D(size), "connection_id": "c", "source": "ws",
            }
            for number, (at, price, size) in enumerate(trades)
        ],
    )  # fmt: skip


def gap_rows(gaps: Sequence[Gap], market: str = "M") -> pa.Table:
    return rows(
        "book_gaps",
        [
            {
                "market_id": market, "connection_id": connection, "ordinal": number, "from_ns": START + begin * SECOND,
                "to_ns": None if end is None else START + end * SECOND,
            }
            for number, (begin, end, connection) in enumerate(gaps)
        ],
    )  # fmt: skip


def session_rows(sessions: Sequence[Session]) -> pa.Table:
    return rows(
        "capture_sessions",
        [
            {"connection_id": name, "ended_at": None if end is None else datetime_from_ns(START + end * SECOND)}
            for name, end in sessions
        ],
    )


def hour(
    quotes: Sequence[Quote] = (),
    trades: Sequence[Print] = (),
    gaps: Sequence[Gap] = (),
    snapshots: Sequence[Snapshot] = (),
    sessions: Sequence[Session] = (),
) -> CapturedHour:
    return CapturedHour(
        START,
        START + HOUR,
        quote_rows(quotes),
        snapshot_rows(snapshots),
        trade_rows(trades),
        gap_rows(gaps),
        session_rows(sessions),
    )


def made(of: CapturedHour, interval_s: int = 60) -> dict[int, dict[str, Any]]:
    """Candles by the number of their interval."""
    found = hour_candles(of, [interval_s])[interval_s].to_pylist()
    return {(candle["cell"] - START) // (interval_s * SECOND): candle for candle in found}


def points(candle: dict[str, Any], name: str) -> tuple[Decimal | None, ...]:
    return tuple(candle[f"{name}_{point}"] for point in ("open", "high", "low", "close"))


def test_a_minute_opens_with_what_stood_and_counts_what_moved() -> None:
    found = made(hour([(30, 40, 45, True, "a"), (70, 42, None, True, "a"), (100, 41, 44, True, "a")]))
    assert points(found[0], "bid") == (D("0.40"),) * 4
    assert found[0]["covered"] == 30 * SECOND
    assert points(found[1], "bid") == (D("0.40"), D("0.42"), D("0.40"), D("0.41"))
    assert points(found[1], "ask") == (D("0.45"), D("0.45"), D("0.44"), D("0.44"))
    assert found[1]["covered"] == MINUTE
    assert points(found[2], "bid") == (D("0.41"),) * 4
    assert [number for number, candle in found.items() if candle["moved"]] == [0, 1]
    assert len(found) == 60


def test_the_hours_opening_snapshot_is_what_stands_but_no_move() -> None:
    found = made(hour([(65, 41, 45, True, "a")], snapshots=[(0, (38, 40), (47, 45), "a")]))
    assert points(found[0], "bid") == (D("0.40"),) * 4
    assert points(found[0], "ask") == (D("0.45"),) * 4
    assert not found[0]["moved"]
    assert points(found[1], "bid") == (D("0.40"), D("0.41"), D("0.40"), D("0.41"))


def test_doubt_is_neither_priced_nor_covered() -> None:
    found = made(
        hour(
            [(0, 40, 50, True, "a"), (10, 90, 95, False, "a"), (20, 41, 50, True, "a"), (40, 80, 81, True, "a")],
            gaps=[(30, 50, "a"), (55, None, "other")],
            sessions=[("a", 90)],
        )
    )
    assert points(found[0], "bid") == (D("0.40"), D("0.80"), D("0.40"), D("0.80"))
    assert found[0]["covered"] == (10 + 10 + 10) * SECOND
    assert found[1]["covered"] == 30 * SECOND
    assert set(found) == {0, 1}


def test_trades_have_their_own_prices_also_where_the_book_is_unknown() -> None:
    candle = made(hour(trades=[(5, 40, 1), (6, 43, 2), (6, 42, 1)]))[0]
    assert points(candle, "price") == (D("0.40"), D("0.43"), D("0.40"), D("0.42"))
    assert (candle["volume"], candle["trades"], candle["turnover"]) == (4, 3, D("1.68"))
    assert candle["covered"] is None
    assert candle["bid_open"] is None


def test_an_hour_is_cut_into_whole_intervals() -> None:
    with pytest.raises(ValueError, match="7 s"):
        hour_candles(hour(), [60, 7])


# --- against a reference ---------------------------------------------------------------------------------------

seconds = st.integers(0, 299)
cents = st.one_of(st.none(), st.integers(1, 99))
connections = st.sampled_from(["a", "b"])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(seconds, cents, cents, st.booleans(), connections), max_size=12),
    st.lists(st.tuples(seconds, st.integers(1, 99), st.integers(1, 9)), max_size=8),
    st.lists(st.tuples(seconds, st.one_of(st.none(), seconds), connections), max_size=3),
    st.lists(st.tuples(connections, st.one_of(st.none(), seconds)), max_size=2, unique_by=lambda session: session[0]),
)
def test_candles_are_what_one_sees_second_by_second(
    quotes: list[Quote], trades: list[Print], gaps: list[Gap], sessions: list[Session]
) -> None:
    quotes.sort(key=lambda quote: quote[0])
    trades.sort(key=lambda trade: trade[0])
    found = made(hour(quotes, trades, gaps, sessions=sessions))
    ends = dict(sessions)
    for minute in range(60):
        seen = []
        for second in range(60 * minute, 60 * minute + 60):
            standing = [quote for quote in quotes if quote[0] <= second][-1:]
            for _, bid, ask, in_sync, connection in standing:
                end = ends.get(connection)
                doubted = any(
                    of == connection and begin <= second and (until is None or second < until)
                    for begin, until, of in gaps
                )
                if in_sync and not doubted and (end is None or second < end):
                    seen.append((bid, ask))
        prints = [(price, size) for at, price, size in trades if at // 60 == minute]
        candle = found.get(minute)
        if not seen and not prints:
            assert candle is None
            continue
        assert candle is not None
        assert (candle["covered"] or 0) == len(seen) * SECOND
        for name, values in (
            ("bid", [bid for bid, _ in seen if bid is not None]),
            ("ask", [ask for _, ask in seen if ask is not None]),
            ("price", [price for price, _ in prints]),
        ):
            expected = (values[0], max(values), min(values), values[-1]) if values else (None,) * 4
            assert points(candle, name) == tuple(None if value is None else D(value) / 100 for value in expected)
        assert (candle["volume"] or 0) == sum(size for _, size in prints)


# --- over a lake -------------------------------------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two hours of a market that moves in the first one, and of one that only trades in the second."""
    lake = Lake(str(tmp_path / "lake"))
    lake.write_part("quotes", TWENTY, quote_rows([(1_800, 40, 45, True, "a"), (1_900, 42, 44, True, "a")]), "w")
    lake.write_part("book_events", TWENTY_ONE, snapshot_rows([(3_600, (42,), (44,), "a")]), "w")
    lake.write_part("trades", TWENTY_ONE, trade_rows([(4_000, 50, 1), (4_001, 51, 2)], "T"), "w")
    return lake


def test_a_day_joins_its_hours(lake: Lake) -> None:
    found = captured_candles(lake, "kalshi", DAY, LATER).to_pylist()
    by_key = {(row["market_id"], row["interval_s"], row["begin_at"].strftime("%H:%M")): row for row in found}
    assert len(by_key) == len(found)
    assert set(by_key) == {
        ("M", 60, "20:30"), ("M", 60, "20:31"), ("M", 3_600, "20:00"), ("M", 86_400, "00:00"),
        ("T", 60, "21:06"), ("T", 3_600, "21:00"), ("T", 86_400, "00:00"),
    }  # fmt: skip
    day = by_key["M", 86_400, "00:00"]
    assert points(day, "bid") == (D("0.40"), D("0.42"), D("0.40"), D("0.42"))
    assert day["coverage"] == (1_800 + 3_600) / 86_400
    assert (day["source"], day["end_at"], day["known_at"]) == ("ws", LATER, LATER)
    traded = by_key["T", 86_400, "00:00"]
    assert points(traded, "price") == (D("0.50"), D("0.51"), D("0.50"), D("0.51"))
    assert (traded["price_mean"], traded["trades"], traded["volume"]) == (D("0.506666667"), 2, 3)
    assert traded["coverage"] == 0
    assert traded["bid_open"] is None


def test_only_what_is_over_has_a_candle_and_markets_can_be_chosen(lake: Lake) -> None:
    now = datetime_from_ns(START + 1_870 * SECOND)
    found = captured_candles(lake, "kalshi", DAY, now, intervals_s=(60, 86_400))
    assert found.select(["market_id", "interval_s"]).to_pylist() == [{"market_id": "M", "interval_s": 60}]
    chosen = captured_candles(lake, "kalshi", DAY, LATER, intervals_s=(60,), markets=["T"])
    assert set(chosen["market_id"].to_pylist()) == {"T"}


def test_the_same_again_keeps_when_it_was_known_and_a_change_renews_it(lake: Lake) -> None:
    first = captured_candles(lake, "kalshi", DAY, LATER)
    later = datetime(2026, 5, 15, tzinfo=UTC)
    lake.update("candles", DAY, lambda held: renewed(held, first))
    kept = lake.read("candles")
    lake.update("candles", DAY, lambda held: renewed(held, captured_candles(lake, "kalshi", DAY, later)))
    assert lake.read("candles").equals(kept)
    lake.write_part("trades", TWENTY_ONE, trade_rows([(4_000, 50, 1), (4_001, 51, 2), (4_002, 52, 1)], "T"), "w2")
    lake.compact("trades", TWENTY_ONE)
    lake.update("candles", DAY, lambda held: renewed(held, captured_candles(lake, "kalshi", DAY, later)))
    known = {(row["market_id"], row["known_at"]) for row in lake.read("candles").to_pylist()}
    assert known == {("M", LATER), ("T", later)}
    assert lake.read("candles").num_rows == kept.num_rows


def test_a_venues_candle_as_a_row() -> None:
    candle = Candle("M", START, START + MINUTE, (4_000, 4_100, 3_900, 4_050), None, None, None, 2_500_000, None)
    (row,) = venue_candles([candle], "kalshi", 60, LATER).to_pylist()
    assert points(row, "bid") == (D("0.4"), D("0.41"), D("0.39"), D("0.405"))
    assert points(row, "price") == (None,) * 4
    assert (row["volume"], row["coverage"], row["source"], row["trades"]) == (D("2.5"), None, "rest", None)
