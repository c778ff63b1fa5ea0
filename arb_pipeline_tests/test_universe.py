import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from arb_pipeline.capture.recorder import CaptureStatus, Recorder
from arb_pipeline.exchange import Exchange, GeneratedSource, start
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.model import MarketChange, MarketStatus
from arb_pipeline.pipeline import discover
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.storage.history import market_state_at
from arb_pipeline.universe import Following, universe
from arb_pipeline_tests.capture.fakes import every
from arb_pipeline_tests.capture.test_recorder import Running

VENUES = ("kalshi", "polymarket")


@pytest.fixture(scope="module")
def key() -> ThrowAwayKey:
    return ThrowAwayKey()


@asynccontextmanager
async def exchange_with(
    key: ThrowAwayKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Exchange, Settings, Lake]]:
    """An exchange whose markets were discovered, with those that it lists later still hidden."""
    async with await start(GeneratedSource(7, 24, duration_s=3_600), key=key) as exchange:
        for name, value in exchange.environment().items():
            monkeypatch.setenv(name, value)
        settings = Settings(
            lake=str(tmp_path / "lake"),
            listeners_path=tmp_path / "listeners.yaml",
            capture_flush_s=0.2,
            capture_refresh_s=0.2,
            http_requests_per_s=500,
        )
        lake = Lake(settings.lake, settings.exchange_name)
        for venue in VENUES:
            await discover(venue, settings, lake)
        yield exchange, settings, lake


def hidden(exchange: Exchange) -> dict[str, str]:
    """A market of each venue that is not listed yet."""
    return {
        "kalshi": min(exchange.kalshi.hidden & exchange.kalshi.markets.keys()),
        "polymarket": min(exchange.polymarket.hidden & exchange.polymarket.markets.keys()),
    }


@asynccontextmanager
async def capturing(settings: Settings, lake: Lake) -> AsyncIterator[Running]:
    markets = universe(settings, lake)
    recorder = Recorder(settings, lake, settings.clock, "run", markets, universe=Following(settings, lake, markets))
    stop: asyncio.Event = asyncio.Event()
    statuses: asyncio.Queue[CaptureStatus] = asyncio.Queue()
    running = Running(asyncio.create_task(recorder.run(stop, statuses.put)), stop, statuses)
    try:
        await running.until(lambda status: all(venue.rows.get("quotes", 0) for venue in status.venues.values()))
        yield running
        await running.end()
    finally:
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)


async def history_of(
    lake: Lake, venue: str, market_id: str, at: datetime, statuses: set[MarketStatus]
) -> dict[str, Any]:
    """How a market stood, once one of these states is written; a slow process may still be at it."""
    async with asyncio.timeout(60):
        while (  # noqa: ASYNC110 - another process writes it
            state := market_state_at(lake, venue, market_id, at)
        ) is None or state["status"] not in statuses:
            await asyncio.sleep(0.05)
    return state


async def test_markets_that_are_listed_and_closed_meanwhile_come_and_go(
    key: ThrowAwayKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exchange_with(key, tmp_path, monkeypatch) as (exchange, settings, lake):
        counts = [len(universe(settings, lake)[name]) for name in VENUES]
        new = hidden(exchange)
        async with capturing(settings, lake) as running:
            exchange.kalshi.list_market(new["kalshi"])
            exchange.polymarket.list_market(new["polymarket"])
            await running.until(
                lambda status: [status.venues[name].markets for name in VENUES] == [count + 1 for count in counts]
            )
            exchange.kalshi.close_market(new["kalshi"], "yes")
            exchange.polymarket.close_market(new["polymarket"], "yes")
            await running.until(lambda status: [status.venues[name].markets for name in VENUES] == counts)
        at = settings.clock.now()
    captured = {(row["venue"], row["market_id"]) for row in every(lake, "book_events")}
    for name in VENUES:
        assert (name, new[name]) in captured
        state = await history_of(lake, name, new[name], at, {*MarketStatus} - {MarketStatus.OPEN})
        assert state["status"] in {MarketStatus.SETTLED, MarketStatus.DETERMINED, MarketStatus.CLOSED}
        assert "status" in state["changed"]
    gaps = [row for row in every(lake, "book_gaps") if row["market_id"] in new.values()]
    assert {row["cause"] for row in gaps} >= {"no_snapshot"}


async def test_the_listeners_decide_on_what_appears_and_are_read_again_when_they_change(
    key: ThrowAwayKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exchange_with(key, tmp_path, monkeypatch) as (exchange, settings, lake):
        chosen = universe(settings, lake)["kalshi"][:2]
        lines = ["- name: few", "  venue: kalshi", f"  market_tickers: [{', '.join(m.market_id for m in chosen)}]"]
        settings.listeners_path.write_text("\n".join(lines))
        following = Following(settings, lake, {"kalshi": chosen})
        new = hidden(exchange)["kalshi"]
        exchange.kalshi.list_market(new)
        created = MarketChange(new, "", "created", 1, {}, change="created")
        revisions = await following.revise({"kalshi": [created]})
        assert not any(revision.add or revision.retire for revision in revisions.values())
        await following.close()
        assert await history_of(lake, "kalshi", new, settings.clock.now(), set(MarketStatus)), "it begins all the same"
        settings.listeners_path.write_text(f"- name: one\n  venue: kalshi\n  market_tickers: [{chosen[0].market_id}]\n")
        revision = (await following.revise({}))["kalshi"]
        assert (list(revision.add), set(revision.retire)) == ([], {chosen[1].market_id})
        assert await following.revise({}) == {}
        settings.listeners_path.write_text("- name: [broken")
        assert await following.revise({}) == {}, "capture goes on with what it has"


async def test_a_market_that_cannot_be_looked_up_is_asked_for_again(
    key: ThrowAwayKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exchange_with(key, tmp_path, monkeypatch) as (exchange, settings, lake):
        markets = universe(settings, lake)["kalshi"]
        following = Following(settings.model_copy(update={"http_retries": 0}), lake, {"kalshi": markets})
        new = hidden(exchange)["kalshi"]
        exchange.kalshi.list_market(new)
        exchange.faults.add({"venue": "kalshi", "kind": "http_status", "status": 503, "count": 1})
        change = MarketChange(new, "", "created", 1, {}, change="created")
        assert await following.revise({"kalshi": [change]}) == {}
        revision = (await following.revise({}))["kalshi"]
        assert [market.market_id for market in revision.add] == [new]
        gone = MarketChange("KXNOBODY", "", "created", 1, {}, change="created")
        assert await following.revise({"kalshi": [gone]}) == {}
