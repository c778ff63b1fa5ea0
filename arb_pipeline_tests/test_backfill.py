"""Backfills of candles and trades against the local exchange, whose past the test writes itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from arb_pipeline import pipeline
from arb_pipeline.backfill import backfill_candles, backfill_trades, connection_of
from arb_pipeline.cli import app
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.definitions import build
from arb_pipeline.defs.automation import CANDLES_JOB
from arb_pipeline.defs.describe import asset_key
from arb_pipeline.defs.market_data.assets import DAILY_CANDLES
from arb_pipeline.defs.market_data.trades import BACKFILL_TRADES_JOB
from arb_pipeline.defs.resources import Pipeline
from arb_pipeline.errors import ArbError
from arb_pipeline.exchange import Exchange, start
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.exchange.source import LevelChange, TradePrint
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.tables import table
from arb_pipeline_tests.exchange.conftest import Scripted

A, B = "KXFEDDECISION-26DEC-C25", "KXFEDDECISION-26DEC-H0"
M = 1_000_000
DAY = (datetime.now(UTC) - timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)
NEXT = DAY + timedelta(days=1)
TEN = Partition("kalshi", DAY.date(), 10)
ELEVEN = Partition("kalshi", DAY.date(), 11)


def ns(hour: int, minute: int = 0, ms: int = 0) -> int:
    return ns_from_datetime(DAY + timedelta(hours=hour, minutes=minute, milliseconds=ms))


class Past:
    """An exchange at any time of its past."""

    def __init__(self, exchange: Exchange, source: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exchange = exchange
        self._now_ms = 0
        books = source.books()
        self.bid, self.ask = max(books[A].bids)[0], min(books[A].asks)[0]
        monkeypatch.setattr(exchange.kalshi, "_now_ms", lambda: self._now_ms)

    def trade(self, at_ns: int, price: int, size: int = M, market: str = A) -> str:
        """A trade, and its id."""
        self._now_ms = at_ns // 1_000_000
        self.exchange.kalshi.trade(TradePrint(market, price, size, "yes"))
        return str(self.exchange.kalshi.trades[-1].record["trade_id"])

    def level(self, at_ns: int, price: int, size: int) -> None:
        """A bid changes."""
        self._now_ms = at_ns // 1_000_000
        self.exchange.kalshi.change_level(LevelChange(A, "bid", price, size))


@pytest.fixture(scope="module")
def signing_key() -> ThrowAwayKey:
    return ThrowAwayKey()


@pytest.fixture
async def past(monkeypatch: pytest.MonkeyPatch, signing_key: ThrowAwayKey) -> AsyncIterator[Past]:
    source = Scripted()
    async with await start(source, key=signing_key) as exchange:
        for name, value in exchange.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ARB_HTTP_REQUESTS_PER_S", "1000")
        yield Past(exchange, source, monkeypatch)


@pytest.fixture
async def settings(past: Past) -> Settings:
    assert past.exchange.port
    return Settings()


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake, settings.exchange_name)


def captured(trade_id: str, recv_ns: int, price: int, market: str = A) -> pa.Table:
    """A trade as the WebSocket brought it: in another moment, and by milliseconds."""
    row: dict[str, Any] = {
        "venue": "kalshi", "market_id": market, "trade_id": trade_id, "recv_ns": recv_ns, "ordinal": recv_ns,
        "venue_ns": recv_ns - 7_000_000, "seq": 3, "connection_id": "live", "price": Decimal(price).scaleb(-4),
        "size": Decimal(1), "taker_side": "yes", "source": "ws",
    }  # fmt: skip
    return pa.Table.from_pylist([row], schema=table("trades").schema)


def trades_of(lake: Lake) -> list[tuple[str, str, int]]:
    rows = lake.read("trades").to_pylist()
    return sorted((row["trade_id"], row["source"], row["recv_ns"]) for row in rows)


async def test_trades_that_nobody_captured_are_added_once_and_captured_ones_stay(
    past: Past, settings: Settings, lake: Lake
) -> None:
    first = past.trade(ns(10, 5), past.ask)
    missed = past.trade(ns(10, 6), past.ask + 100, 2 * M)
    late = past.trade(ns(10, 59, 59_990), past.ask)
    other = past.trade(ns(11, 1), past.ask, market=B)
    before = past.trade(ns(9, 59), past.ask)
    lake.write_part("trades", TEN, captured(first, ns(10, 5, 8), past.ask), "live")
    lake.write_part("trades", ELEVEN, captured(late, ns(11, 0, 2), past.ask), "live")
    span = DAY + timedelta(hours=10), DAY + timedelta(hours=12)
    expected = sorted(
        [
            (first, "ws", ns(10, 5, 8)), (late, "ws", ns(11, 0, 2)),
            (missed, "rest", ns(10, 6)), (other, "rest", ns(11, 1)),
        ]
    )  # fmt: skip
    done = await backfill_trades("kalshi", settings, lake, *span, markets=[A, B])
    assert trades_of(lake) == expected
    assert (done.fetched, sum(done.added.values()), done.anomalies) == (4, 2, {})
    rows = {row["trade_id"]: row for row in lake.read("trades").to_pylist()}
    assert rows[missed]["price"] == Decimal(past.ask + 100).scaleb(-4)
    assert (rows[missed]["size"], rows[missed]["connection_id"]) == (2, connection_of("kalshi"))
    whole = lake.read("trades")
    again = await backfill_trades("kalshi", settings, lake, *span, markets=[A, B])
    assert lake.read("trades").equals(whole)
    assert sum(again.added.values()) == 0
    # A capture's rows that reach the hour only later stand in the place of fetched ones.
    lake.write_part("trades", TEN, captured(missed, ns(10, 6, 9), past.ask + 100).set_column(
        table("trades").column_names.index("size"), table("trades").schema.field("size"),
        pa.array([Decimal(2)], table("trades").schema.field("size").type)), "recovered")  # fmt: skip
    found = lake.compact("trades", TEN)
    assert (found.rows, found.dropped, found.conflicts) == (2, 1, 0)
    assert (missed, "ws", ns(10, 6, 9)) in trades_of(lake)
    assert before not in {trade_id for trade_id, _, _ in trades_of(lake)}


async def test_trades_of_the_running_hour_are_left_to_the_capture(past: Past, settings: Settings, lake: Lake) -> None:
    now = datetime.now(UTC)
    past.trade(ns_from_datetime(now), past.ask)
    hour = now.replace(minute=0, second=0, microsecond=0)
    with pytest.raises(ArbError, match="give a time that is over"):
        await backfill_trades("kalshi", settings, lake, hour, now, markets=[A])
    with pytest.raises(ArbError, match="ids that captured ones have"):
        await backfill_trades("polymarket", settings, lake, DAY, NEXT, markets=["0x1"])
    with pytest.raises(ArbError, match="arb discover"):
        await backfill_trades("kalshi", settings, lake, DAY, NEXT)


async def test_many_trades_come_page_by_page(past: Past, settings: Settings, lake: Lake) -> None:
    ids = {past.trade(ns(10) + number * 1_000_000_000, past.ask) for number in range(1_203)}
    done = await backfill_trades("kalshi", settings, lake, DAY, NEXT, markets=[A])
    assert {trade_id for trade_id, _, _ in trades_of(lake)} == ids
    assert done.requests == 1 + 2
    ordinals = lake.read("trades")["ordinal"].to_pylist()
    assert len(set(ordinals)) == len(ordinals)


async def test_the_venues_candles_and_ours_stand_side_by_side(past: Past, settings: Settings, lake: Lake) -> None:
    trade_id = past.trade(ns(10, 0, 1), past.ask, 2 * M)
    past.level(ns(10, 0, 30_000), past.bid + 100, M)
    past.trade(ns(23, 59, 1), past.ask)
    lake.write_part("trades", TEN, captured(trade_id, ns(10, 0, 9), past.ask), "live")
    done = await backfill_candles("kalshi", settings, lake, DAY, NEXT, markets=[A])
    rows = {
        (row["source"], row["interval_s"], row["begin_at"]): row
        for row in lake.read("candles", DAY, NEXT, "kalshi").to_pylist()
    }
    ten = DAY + timedelta(hours=10)
    assert set(rows) == {
        ("ws", 1, ten), ("ws", 60, ten), ("ws", 3_600, ten), ("ws", 86_400, DAY),
        ("rest", 60, ten), ("rest", 60, NEXT - timedelta(minutes=1)), ("rest", 3_600, ten),
        ("rest", 3_600, NEXT - timedelta(hours=1)), ("rest", 86_400, DAY),
    }  # fmt: skip
    minute = rows["rest", 60, ten]
    points = [minute[f"bid_{point}"] for point in ("open", "high", "low", "close")]
    low, high = Decimal(past.bid).scaleb(-4), Decimal(past.bid + 100).scaleb(-4)
    assert points == [low, high, low, high]
    assert (minute["price_close"], minute["price_mean"]) == (Decimal(past.ask).scaleb(-4),) * 2
    assert (minute["volume"], minute["coverage"], minute["end_at"]) == (2, None, ten + timedelta(minutes=1))
    own = rows["ws", 60, ten]
    assert (own["volume"], own["trades"], own["bid_open"], own["coverage"]) == (1, 1, None, 0)
    assert (done.captured, done.fetched, done.markets, done.anomalies) == (4, 5, 1, {})
    whole = lake.read("candles")
    again = await backfill_candles("kalshi", settings, lake, DAY, NEXT, markets=[A])
    assert lake.read("candles").equals(whole)
    assert sum(again.added.values()) == 0


async def test_candles_that_go_on_are_not_kept(past: Past, settings: Settings, lake: Lake) -> None:
    today = datetime.now(UTC)
    past.trade(ns_from_datetime(today), past.ask)
    await backfill_candles("kalshi", settings, lake, today - timedelta(minutes=1), today, markets=[A])
    assert lake.read("candles").num_rows == 0
    with pytest.raises(ArbError, match="no candles of 5 seconds"):
        await backfill_candles("kalshi", settings, lake, DAY, NEXT, intervals_s=[5])


async def test_what_to_ask_for_is_what_was_captured_or_is_listened_to(
    past: Past, settings: Settings, lake: Lake
) -> None:
    await pipeline.discover("kalshi", settings, lake)
    known = {market.market_id for market in pipeline.universe(settings, lake, ["kalshi"])["kalshi"]}
    lake.write_part("trades", TEN, captured("t", ns(10, 1), past.ask, "KXGONE"), "live")
    done = await backfill_candles("kalshi", settings, lake, DAY, NEXT, intervals_s=[86_400])
    assert done.markets == len(known | {"KXGONE"}) > 100
    polymarket = await backfill_candles("polymarket", settings, lake, DAY, NEXT)
    assert (polymarket.markets, polymarket.fetched, polymarket.requests) == (0, 0, 0)


async def test_the_command_says_what_it_did(past: Past, settings: Settings, lake: Lake) -> None:
    past.trade(ns(10, 5), past.ask)
    past.trade(ns(11, 5), past.ask)
    runner = CliRunner()

    async def call(*arguments: str) -> str:
        done = await asyncio.to_thread(
            runner.invoke,
            app,
            [
                "backfill", *arguments, "--from", f"{DAY:%Y-%m-%d}", "--to", f"{NEXT:%Y-%m-%d}",
                "--lake", settings.lake, "--venue", "kalshi", "--market", A,
            ],
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        return done.stdout

    (trades,) = json.loads(await call("trades", "--json"))
    assert trades["added"] == {TEN.path: 1, ELEVEN.path: 1}
    assert "0 rows added to trades" in await call("trades")
    shown = " ".join((await call("candles", "--interval", "60")).split())
    assert "2 made from captured rows, 2 fetched of 1 markets" in shown
    assert lake.read("candles")["interval_s"].to_pylist() == [60] * 4
    for arguments, says in {
        ("quotes", "--from", "2026-07-01", "--to", "2026-07-02"): "'quotes' cannot be filled in",
        ("trades", "--interval", "60", "--from", "2026-07-01", "--to", "2026-07-02"): "trades have none",
        ("candles", "--market", "X", "--from", "2026-07-01", "--to", "2026-07-02"): "say which one with --venue",
    }.items():
        with pytest.raises(ArbError, match=says):
            runner.invoke(app, ["backfill", *arguments], catch_exceptions=False)


async def test_a_day_of_both_jobs_in_dagster(past: Past, settings: Settings, lake: Lake) -> None:
    past.trade(ns(10, 5), past.ask)
    past.trade(ns(11, 5), past.ask, market=B)
    key = f"{DAY:%Y-%m-%d}"

    def run(instance: dg.DagsterInstance, job: str, config: dict[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        return build(settings).resolve_job_def(job).execute_in_process(
            instance=instance, partition_key=key, resources={"pipeline": Pipeline(settings)}, run_config=config
        )  # fmt: skip

    def both() -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            run(instance, BACKFILL_TRADES_JOB, {"ops": {"backfill_trades": {"config": {"markets": [A, B]}}}})
            hours = instance.get_materialized_partitions(asset_key("trades", "kalshi"))
            assert hours == {f"{key}-10:00", f"{key}-11:00"}
            result = run(instance, CANDLES_JOB)
            for venue in ("kalshi", "polymarket"):
                event = instance.get_latest_materialization_event(asset_key(DAILY_CANDLES, venue))
                assert event is not None
                assert event.asset_materialization is not None
                metadata = event.asset_materialization.metadata
                rows = lake.read("candles", DAY, NEXT, venue).num_rows
                assert metadata["dagster/partition_row_count"].value == rows == (14 if venue == "kalshi" else 0)
                assert instance.get_materialized_partitions(asset_key(DAILY_CANDLES, venue)) == {key}
            assert all(check.passed for check in result.get_asset_check_evaluations())
            assert len(result.get_asset_check_evaluations()) == 2

    await asyncio.to_thread(both)
    assert lake.read("trades").num_rows == 2
