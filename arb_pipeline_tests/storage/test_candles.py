"""Candles from captured rows, against a reference that looks at every instant by itself."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.model import Candle
from arb_pipeline.storage.candles import (
    captured_markets,
    day_candles,
    hour_bars,
    hour_candles,
    remade,
    renewed,
    venue_candles,
    write_day_candles,
    write_hour_candles,
)
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.storage.tops import NULL, HourRows
from arb_pipeline.tables import table
from arb_pipeline_tests.storage.rows import HOUR, SECOND, START, TWENTY, TWENTY_ONE
from arb_pipeline_tests.storage.seen import Gap, Session, Top, seen

MINUTE = 60 * SECOND
DAY = Partition.parse("venue=kalshi/date=2026-05-13")
LATER = datetime(2026, 5, 14, tzinfo=UTC)
D = Decimal

Quote = tuple[int, int | None, int | None, bool, str]
"""Seconds after START, bid and ask in cents, in sync, connection."""
Snapshot = tuple[int, Sequence[int], Sequence[int], str]
Print = tuple[int, int, int]


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
) -> HourRows:
    return HourRows(
        START,
        START + HOUR,
        quote_rows(quotes),
        snapshot_rows(snapshots),
        trade_rows(trades),
        gap_rows(gaps),
        session_rows(sessions),
    )


def made(of: HourRows, interval_s: int = 60) -> dict[int, dict[str, Any]]:
    """Candles by the number of their interval, dollars and contracts."""
    bars = hour_bars(of, ["M"], [interval_s])[interval_s]
    found: dict[int, dict[str, Any]] = {}
    for at, start in enumerate(bars.start.tolist()):
        candle: dict[str, Any] = {
            "covered": int(bars.covered[at]), "updates": int(bars.updates[at]), "trades": int(bars.trades[at]),
            "volume": D(int(bars.volume[at])) / 10**6, "turnover": D(bars.turnover[at]) / 10**15,
            "moved": bool(bars.moved[at]),
        }  # fmt: skip
        for side, scale in (("bid", 4), ("ask", 4), ("price", 9)):
            for point, values in zip(("open", "high", "low", "close"), getattr(bars, side), strict=True):
                value = int(values[at])
                candle[f"{side}_{point}"] = None if value == NULL else D(value).scaleb(-scale)
        found[(start - START) // (interval_s * SECOND)] = candle
    return found


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
            gaps=[(30, 50, "a"), (57, 70, "other"), (100, None, "a")],
            sessions=[("a", 90)],
        )
    )
    assert points(found[0], "bid") == (D("0.40"), D("0.80"), D("0.40"), D("0.80"))
    assert found[0]["covered"] == (10 + 10 + 7) * SECOND
    assert found[1]["covered"] == 20 * SECOND
    assert set(found) == {0, 1}


def test_trades_have_their_own_prices_also_where_the_book_is_unknown() -> None:
    candle = made(hour(trades=[(5, 40, 1), (6, 43, 2), (6, 42, 1)]))[0]
    assert points(candle, "price") == (D("0.40"), D("0.43"), D("0.40"), D("0.42"))
    assert (candle["volume"], candle["trades"], candle["turnover"]) == (4, 3, D("1.68"))
    assert candle["covered"] == 0
    assert candle["bid_open"] is None


def test_an_hour_is_cut_into_whole_intervals() -> None:
    with pytest.raises(ValueError, match="7 s"):
        hour_bars(hour(), ["M"], [60, 7])


# --- against a reference ---------------------------------------------------------------------------------------

SPAN = 240
seconds = st.integers(0, SPAN - 1)
cents = st.one_of(st.none(), st.integers(1, 99))
connections = st.sampled_from(["a", "b"])
quotes_seen = st.lists(st.tuples(seconds, cents, cents, st.booleans(), connections), max_size=12).map(
    lambda quotes: sorted(quotes, key=lambda quote: quote[0])
)
snapshots_seen = st.lists(
    st.tuples(seconds, st.lists(st.integers(1, 99), max_size=2), st.lists(st.integers(1, 99), max_size=2), connections),
    max_size=3,
    unique_by=lambda snapshot: snapshot[0],
).map(sorted)
trades_seen = st.lists(st.tuples(seconds, st.integers(1, 99), st.integers(1, 9)), max_size=8).map(
    lambda trades: sorted(trades, key=lambda trade: trade[0])
)


def lasting(gap: tuple[int, int | None, str]) -> Gap:
    """A gap from its begin and length; none ends before it begins."""
    begin, length, connection = gap
    return begin, None if length is None else begin + length, connection


gaps_seen = st.lists(st.tuples(seconds, st.one_of(st.none(), seconds), connections).map(lasting), max_size=3)
sessions_seen = st.lists(
    st.tuples(connections, st.one_of(st.none(), seconds)), max_size=2, unique_by=lambda session: session[0]
)


class Story(NamedTuple):
    quotes: list[Quote]
    trades: list[Print]
    gaps: list[Gap]
    snapshots: list[Snapshot]
    sessions: list[Session]


stories = st.builds(Story, quotes_seen, trades_seen, gaps_seen, snapshots_seen, sessions_seen)


def tops(quotes: Sequence[Quote], snapshots: Sequence[Snapshot]) -> list[Top]:
    """Of a snapshot and a quote at one instant, the quote."""
    quoted = {quote[0] for quote in quotes}
    alone = [
        (at, max(bids, default=None), min(asks, default=None), True, connection)
        for at, bids, asks, connection in snapshots
        if at not in quoted
    ]
    return sorted([*quotes, *alone], key=lambda top: top[0])


@settings(max_examples=40, deadline=None)
@given(stories, st.sampled_from([1, 60]))
def test_candles_are_what_one_sees_second_by_second(story: Story, length: int) -> None:
    quotes, trades, gaps, snapshots, sessions = story
    found = made(hour(*story), length)
    told = tops(quotes, snapshots)
    for number in range(SPAN // length):
        within = range(length * number, length * (number + 1))
        known = [top for second in within if (top := seen(told, gaps, sessions, second)) is not None]
        prints = [(price, size) for at, price, size in trades if at in within]
        newest = {quote[0]: quote for quote in quotes if quote[0] in within}
        candle = found.get(number)
        if not known and not prints:
            assert candle is None
            continue
        assert candle is not None
        assert candle["covered"] == len(known) * SECOND
        assert candle["updates"] == sum(seen(told, gaps, sessions, at) is not None for at in newest)
        for name, values in (
            ("bid", [bid for _, bid, _, _, _ in known if bid is not None]),
            ("ask", [ask for _, _, ask, _, _ in known if ask is not None]),
            ("price", [price for price, _ in prints]),
        ):
            expected = (values[0], max(values), min(values), values[-1]) if values else (None,) * 4
            assert points(candle, name) == tuple(None if value is None else D(value) / 100 for value in expected)
            assert not values or candle[f"{name}_low"] <= candle[f"{name}_open"] <= candle[f"{name}_high"]
        assert (candle["volume"], candle["trades"]) == (sum(size for _, size in prints), len(prints))
        assert candle["turnover"] == sum(D(price) / 100 * size for price, size in prints)


@settings(max_examples=25, deadline=None)
@given(stories, seconds)
def test_nothing_after_an_instant_changes_a_candle_that_ended_by_then(story: Story, now: int) -> None:
    quotes, trades, gaps, snapshots, sessions = story
    whole = made(hour(*story), 1)
    cut = made(
        hour(
            [quote for quote in quotes if quote[0] < now],
            [trade for trade in trades if trade[0] < now],
            [(begin, None if end is None or end >= now else end, of) for begin, end, of in gaps if begin < now],
            [snapshot for snapshot in snapshots if snapshot[0] < now],
            [(name, None if end is None or end >= now else end) for name, end in sessions],
        ),
        1,
    )
    assert {at: candle for at, candle in whole.items() if at + 1 <= now} == {
        at: candle for at, candle in cut.items() if at + 1 <= now
    }


def test_a_long_market_turnover_is_exact() -> None:
    size = 900_000_000
    candle = made(hour(trades=[(5, 99, size), (6, 98, size)]))[0]
    assert candle["turnover"] == D("1.97") * size  # 1.77e24 counts of 1e-15, beyond 64 bits


# --- over a lake -------------------------------------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two hours of a market that moves in the first one, and of one that only trades in the second."""
    lake = Lake(str(tmp_path / "lake"))
    lake.write_part("quotes", TWENTY, quote_rows([(1_800, 40, 45, True, "a"), (1_900, 42, 44, True, "a")]), "w")
    lake.write_part("book_events", TWENTY_ONE, snapshot_rows([(3_600, (42,), (44,), "a")]), "w")
    lake.write_part("trades", TWENTY_ONE, trade_rows([(4_000, 50, 1), (4_001, 51, 2)], "T"), "w")
    lake.write_part("capture_sessions", DAY, session_rows([("a", 7_200)]), "w")
    return lake


def keys(found: pa.Table) -> set[tuple[str, int, str]]:
    rows = found.to_pylist()
    assert len({(row["market_id"], row["interval_s"], row["begin_at"]) for row in rows}) == len(rows)
    return {(row["market_id"], row["interval_s"], row["begin_at"].strftime("%H:%M:%S")) for row in rows}


def test_an_hour_has_candles_where_something_came(lake: Lake) -> None:
    found = hour_candles(lake, TWENTY, LATER)
    assert found.schema == table("candles").schema
    assert keys(found) == {
        ("M", 1, "20:30:00"), ("M", 1, "20:31:40"),
        ("M", 60, "20:30:00"), ("M", 60, "20:31:00"), ("M", 3_600, "20:00:00"),
    }  # fmt: skip
    minute = next(row for row in found.to_pylist() if row["begin_at"].minute == 31 and row["interval_s"] == 60)
    assert points(minute, "bid") == (D("0.40"), D("0.42"), D("0.40"), D("0.42"))
    assert (minute["coverage"], minute["updates"], minute["volume"], minute["trades"]) == (1.0, 1, None, None)
    assert (minute["source"], minute["end_at"].minute, minute["known_at"]) == ("ws", 32, LATER)
    (traded,) = (row for row in hour_candles(lake, TWENTY_ONE, LATER).to_pylist() if row["interval_s"] == 3_600)
    assert (traded["price_mean"], traded["trades"], traded["volume"]) == (D("0.506666667"), 2, 3)
    assert (traded["market_id"], traded["coverage"], traded["bid_open"]) == ("T", 0, None)


def test_quiet_intervals_have_a_candle_only_if_asked_for(lake: Lake) -> None:
    found = hour_candles(lake, TWENTY_ONE, LATER, intervals_s=(60,), markets=["M"])
    assert found.num_rows == 0
    found = hour_candles(lake, TWENTY_ONE, LATER, intervals_s=(60,), markets=["M"], quiet=True)
    assert found.num_rows == 60
    assert set(found["updates"].to_pylist()) == {0}
    assert set(found["bid_close"].to_pylist()) == {D("0.42")}
    assert hour_candles(lake, TWENTY, LATER, intervals_s=(60,), quiet=True).num_rows == 30


def test_a_day_joins_its_hours(lake: Lake) -> None:
    found = day_candles(lake, DAY, LATER)
    assert keys(found) == {("M", 86_400, "00:00:00"), ("T", 86_400, "00:00:00")}
    day, traded = found.to_pylist()
    assert points(day, "bid") == (D("0.40"), D("0.42"), D("0.40"), D("0.42"))
    assert day["coverage"] == (1_800 + 3_600) / 86_400
    assert (day["source"], day["end_at"], day["updates"]) == ("ws", LATER, 2)
    assert points(traded, "price") == (D("0.50"), D("0.51"), D("0.50"), D("0.51"))
    assert (traded["price_mean"], traded["volume"]) == (D("0.506666667"), 3)
    assert day_candles(lake, DAY, datetime(2026, 5, 13, 23, 59, tzinfo=UTC)).num_rows == 0


def test_only_what_is_over_has_a_candle_and_markets_can_be_chosen(lake: Lake) -> None:
    now = datetime_from_ns(START + 1_870 * SECOND)
    assert keys(hour_candles(lake, TWENTY, now, intervals_s=(60, 3_600))) == {("M", 60, "20:30:00")}
    assert hour_candles(lake, TWENTY_ONE, LATER, markets=["M"], intervals_s=(60,)).num_rows == 0
    assert captured_markets(lake, "kalshi", START, START + 2 * HOUR) == {"M", "T"}
    assert captured_markets(lake, "kalshi", START, START + HOUR, ["T"]) == set()


def test_the_same_again_keeps_when_it_was_known_and_a_change_renews_it(lake: Lake) -> None:
    later = datetime(2026, 5, 15, tzinfo=UTC)
    held, _ = write_hour_candles(lake, TWENTY_ONE, LATER)
    write_day_candles(lake, DAY, LATER)
    kept = lake.read("candles")
    write_hour_candles(lake, TWENTY_ONE, later)
    write_day_candles(lake, DAY, later)
    assert lake.read("candles").equals(kept)
    lake.write_part("trades", TWENTY_ONE, trade_rows([(4_000, 50, 1), (4_001, 51, 2), (4_003, 52, 1)], "T"), "w2")
    lake.compact("trades", TWENTY_ONE)
    after, _ = write_hour_candles(lake, TWENTY_ONE, later)
    write_day_candles(lake, DAY, later)
    assert after.rows == held.rows + 1  # the new second; minute, hour and day are made anew
    known = {(row["market_id"], row["interval_s"], row["known_at"]) for row in lake.read("candles").to_pylist()}
    assert known == {
        ("T", 1, LATER), ("T", 1, later), ("T", 60, later), ("T", 3_600, later),
        ("M", 86_400, LATER), ("T", 86_400, later),
    }  # fmt: skip


def test_a_candle_that_a_late_gap_takes_back_is_gone_and_others_stay(lake: Lake) -> None:
    write_hour_candles(lake, TWENTY, LATER)
    fetched = [Candle("M", START, START + MINUTE, (4_000, 4_100, 3_900, 4_050), None, None, None, 2_500_000, None)]
    lake.update("candles", TWENTY, lambda held: renewed(held, venue_candles(fetched, "kalshi", 60, LATER)))
    lake.write_part("book_gaps", DAY, gap_rows([(1_850, None, "a")]), "w")
    write_hour_candles(lake, TWENTY, LATER)
    rows = lake.read("candles")
    assert keys(rows) == {
        ("M", 60, "20:00:00"), ("M", 1, "20:30:00"), ("M", 60, "20:30:00"), ("M", 3_600, "20:00:00"),
    }  # fmt: skip
    (hour_,) = (row for row in rows.to_pylist() if row["interval_s"] == 3_600)
    assert hour_["coverage"] == 50 / 3_600
    only = remade(rows, rows.slice(0, 0), intervals_s=[1, 60], markets=["T"])
    assert only.num_rows == rows.num_rows


def test_memory_holds_some_markets_at_a_time(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = hour_candles(lake, TWENTY_ONE, LATER, quiet=True)
    monkeypatch.setattr("arb_pipeline.storage.tops.ROWS_AT_ONCE", 1)
    alone = hour_candles(lake, TWENTY_ONE, LATER, quiet=True)
    order = [(name, "ascending") for name in table("candles").key]
    assert alone.sort_by(order).equals(whole.sort_by(order))


def test_a_venues_candle_as_a_row() -> None:
    candle = Candle("M", START, START + MINUTE, (4_000, 4_100, 3_900, 4_050), None, None, None, 2_500_000, None)
    (row,) = venue_candles([candle], "kalshi", 60, LATER).to_pylist()
    assert points(row, "bid") == (D("0.4"), D("0.41"), D("0.39"), D("0.405"))
    assert points(row, "price") == (None,) * 4
    assert (row["volume"], row["coverage"], row["source"], row["trades"]) == (D("2.5"), None, "rest", None)
