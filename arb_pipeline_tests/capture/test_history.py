"""What markets become while a capture runs: collected, written by another process, and kept where that fails."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from arb_pipeline.capture.history import HistoryKeeper
from arb_pipeline.model import Market, MarketStatus
from arb_pipeline.storage.history import market_state_at
from arb_pipeline.storage.lake import Lake
from arb_pipeline_tests.capture.fakes import every

AT = datetime(2026, 7, 14, 15, tzinfo=UTC)
MARKET = Market(
    venue="kalshi",
    market_id="M",
    event_id="E",
    title="Will it?",
    status=MarketStatus.OPEN,
    rules="If it does.",
    tick=100,
    min_size=1_000_000,
    size_step=10_000,
    fee_params={"fee_type": "quadratic", "fee_multiplier": 1},
)
LATER = msgspec.structs.replace(MARKET, status=MarketStatus.CLOSED)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "exchange")


async def written(lake: Lake, rows: int) -> None:
    async with asyncio.timeout(60):
        while len(every(lake, "market_history")) < rows:  # noqa: ASYNC110 - another process writes them
            await asyncio.sleep(0.05)


async def test_what_was_told_is_written_in_order(lake: Lake) -> None:
    keeper = HistoryKeeper(lake, interval_s=3_600)
    keeper.note("kalshi", [MARKET], AT)
    keeper.write_if_due()
    keeper.note("kalshi", [LATER], AT + timedelta(minutes=1))
    assert not every(lake, "market_history"), "it is not due yet"
    await keeper.close()
    await written(lake, 2)
    assert [(row["status"], row["changed"]) for row in every(lake, "market_history")] == [
        ("open", '["listed"]'),
        ("closed", '["status"]'),
    ]
    assert lake.files("market_history")[0].entry.exchange == "exchange"
    state = market_state_at(lake, "kalshi", "M", AT + timedelta(seconds=59))
    assert state is not None
    assert state["status"] == "open"


async def test_at_intervals_without_being_waited_for(lake: Lake) -> None:
    keeper = HistoryKeeper(lake, interval_s=0)
    keeper.note("kalshi", [MARKET], AT)
    keeper.write_if_due()
    await written(lake, 1)
    await keeper.close()
    assert len(every(lake, "market_history")) == 1


async def test_what_cannot_be_written_is_kept(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = HistoryKeeper(lake, interval_s=0)
    keeper.note("kalshi", [MARKET], AT)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        await keeper.close()
    assert "the history of 1 markets is not written" in caplog.text
    keeper.write_if_due()
    await written(lake, 1)
    await keeper.close()
