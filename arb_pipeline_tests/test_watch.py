"""Live books of named markets, against the local exchange."""

import asyncio
import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from rich.console import Console

from arb_pipeline import watch
from arb_pipeline.errors import ArbError
from arb_pipeline.exchange import Exchange, start
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.model import Market, MarketStatus
from arb_pipeline.settings import Settings
from arb_pipeline.units import ONE, price_decimal
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import Venue, VenueError
from arb_pipeline_tests.capture.fakes import FakePolling, PolledVenue, markets
from arb_pipeline_tests.exchange.conftest import Scripted


@pytest.fixture(scope="module")
def key() -> ThrowAwayKey:
    return ThrowAwayKey()


@pytest.fixture
async def exchange(key: ThrowAwayKey) -> AsyncIterator[Exchange]:
    """An exchange in which nothing moves."""
    async with await start(Scripted(), key=key) as running:
        yield running


def settings_for(exchange: Exchange, **changes: Any) -> Settings:
    given = {name.removeprefix("ARB_").lower(): value for name, value in exchange.environment().items()}
    return Settings(**{**given, "http_requests_per_s": 1000, **changes})


def true_pair(exchange: Exchange) -> tuple[str, str]:
    pair = next(pair for pair in exchange.truth()["pairs"] if pair["relation"] == "equivalent")
    return pair["kalshi_market_id"], pair["polymarket_market_id"]


async def found(settings: Settings, *words: str) -> list[Market]:
    return await watch.find(settings, watch.parse_names(words))


async def view_of(settings: Settings, named: list[Market]) -> watch.View:
    """The first view with every book in sync."""
    views: list[watch.View] = []

    def show(view: watch.View) -> bool:
        views.append(view)
        return view.complete

    async with asyncio.timeout(20):
        await watch.watch(settings, named, show, asyncio.Event(), refresh_s=0.02)
    return views[-1]


# --- names -------------------------------------------------------------------------------------------------


def test_names_are_pairs_of_a_venue_and_a_market() -> None:
    named = watch.parse_names(["kalshi", "KXFED-26DEC", "poly", "fed"])
    assert [(venue.name, text) for venue, text in named] == [("kalshi", "KXFED-26DEC"), ("polymarket", "fed")]
    with pytest.raises(ArbError, match="VENUE MARKET"):
        watch.parse_names(["kalshi"])
    with pytest.raises(ArbError, match="no venue 'intrade'"):
        watch.parse_names(["intrade", "X"])


async def test_kalshi_market_is_found_by_ticker_event_series_and_page(exchange: Exchange) -> None:
    settings = settings_for(exchange)
    ticker, _ = true_pair(exchange)
    [market] = await found(settings, "kalshi", ticker.lower())
    assert (market.market_id, market.status) == (ticker, MarketStatus.OPEN)
    assert market.fee_params["fee_type"], "the gap net of fees needs the series"
    by_event = await found(settings, "kalshi", market.event_id)
    assert ticker in {one.market_id for one in by_event}
    assert {one.event_id for one in by_event} == {market.event_id}
    page = f"https://kalshi.com/markets/{market.series_id}/a-name/{market.event_id}?ref=x".lower()
    assert await found(settings, "kalshi", page) == by_event
    assert ticker in {one.market_id for one in await found(settings, "kalshi", market.series_id)}
    for nothing in ("KXNOSUCH-1", "no such market", "https://kalshi.com/"):
        with pytest.raises(ArbError, match="no market, event or series"):
            await found(settings, "kalshi", nothing)


async def test_polymarket_market_is_found_by_ids_slugs_and_pages(exchange: Exchange) -> None:
    settings = settings_for(exchange)
    _, condition_id = true_pair(exchange)
    [market] = await found(settings, "poly", condition_id)
    assert market.market_id == condition_id
    assert market.event_id
    for text in (market.yes_token_id, market.no_token_id, f"https://polymarket.com/event/any/{market.slug}?tid=1"):
        assert [one.market_id for one in await found(settings, "poly", text)] == [condition_id], text
    event_slug = market.url.split("/event/")[1].split("/")[0]
    by_event = await found(settings, "poly", event_slug)
    assert condition_id in {one.market_id for one in by_event}
    assert await found(settings, "poly", f"https://polymarket.com/event/{event_slug}#top") == by_event
    twice = await found(settings, "poly", condition_id, "poly", f"https://polymarket.com/event/any/{market.slug}")
    assert twice == [market], "a market is watched once, however often it is named"
    for nothing in ("no-such-slug", "0x" + "0" * 64, "7" * 70):
        with pytest.raises(ArbError, match="no event or market"):
            await found(settings, "poly", nothing)


async def test_closed_polymarket_market_is_found_by_its_id_too(exchange: Exchange) -> None:
    settings = settings_for(exchange)
    _, condition_id = true_pair(exchange)
    exchange.polymarket.markets[condition_id].record["closed"] = True
    [market] = await found(settings, "poly", condition_id)
    assert market.status is not MarketStatus.OPEN


# --- books -------------------------------------------------------------------------------------------------


async def test_books_of_both_venues_are_the_exchange_s_own_and_the_gap_is_net_of_fees(exchange: Exchange) -> None:
    settings = settings_for(exchange)
    ticker, condition_id = true_pair(exchange)
    named = await found(settings, "kalshi", ticker, "poly", condition_id)
    view = await view_of(settings, named)
    own = (exchange.kalshi.markets[ticker].book, exchange.polymarket.markets[condition_id].book)
    for shown, book in zip(view.books, own, strict=True):
        assert list(shown.bids) == book.bid_levels()
        assert list(shown.asks) == book.ask_levels()
        assert shown.bids
        assert shown.asks
        assert shown.in_sync
        assert shown.age_s is not None
        assert 0 <= shown.age_s < 20
    assert view.exchange == exchange.name
    for gap, (yes, no) in zip(view.gaps, (own, own[::-1]), strict=True):
        yes_price, no_price = price_decimal(yes.ask_levels()[0][0]), price_decimal(ONE - no.bid_levels()[0][0])
        assert (gap.gap, gap.reason) == (1 - yes_price - no_price, "")
        fees = [
            VENUES[market.venue].fees(market, datetime.now(UTC), settings).marginal(price)
            for market, price in ((gap.yes, yes_price), (gap.no, no_price))
        ]
        assert gap.fees == sum(fees)
        assert gap.net == 1 - yes_price - no_price - sum(fees)
        assert gap.best is None or gap.best.net > 0


async def test_a_gap_that_pays_is_sized(exchange: Exchange) -> None:
    settings = settings_for(exchange)
    ticker, condition_id = true_pair(exchange)
    # YES at 0.30 on the one, bid at 0.60 on the other: 0.30 a contract before fees, on 40 contracts.
    exchange.kalshi.markets[ticker].book.replace([(2_000, 10_000_000)], [(3_000, 40_000_000)])
    exchange.polymarket.markets[condition_id].book.replace([(6_000, 90_000_000)], [(6_200, 5_000_000)])
    view = await view_of(settings, await found(settings, "kalshi", ticker, "poly", condition_id))
    paying, losing = view.gaps
    assert paying.gap == Decimal("0.3")
    assert paying.best is not None
    assert paying.best.size == 40
    assert paying.best.net == 40 * Decimal("0.3") - paying.best.fees
    assert (losing.best, losing.gap) == (None, 1 - Decimal("0.62") - Decimal("0.8"))
    shown = rendered(view)
    assert "YES on kalshi, NO on polymarket" in shown
    assert "0.3000 - " in shown
    assert "none pays" in shown


async def test_an_event_shows_all_its_markets(exchange: Exchange) -> None:
    settings = settings_for(exchange)
    event = next(event for event in Scripted().kalshi_events() if len(event["markets"]) > 2)
    named = await found(settings, "kalshi", event["event_ticker"])
    assert len(named) == len(event["markets"])
    view = await view_of(settings, named)
    assert view.gaps == ()
    shown = rendered(view)
    assert all(market.market_id in shown for market in named)


async def test_without_a_kalshi_key_the_books_are_there_all_the_same(exchange: Exchange) -> None:
    settings = settings_for(exchange, kalshi_api_key_id="", kalshi_private_key=None)
    ticker, _ = true_pair(exchange)
    view = await view_of(settings, await found(settings, "kalshi", ticker))
    assert list(view.books[0].bids) == exchange.kalshi.markets[ticker].book.bid_levels()


async def test_a_book_whose_polls_fail_is_not_trusted() -> None:
    """Its session knows nothing of that: it holds the book of the last good answer."""
    polling = FakePolling()
    polling.answers["M"] = b"[[[4000, 5]], [[4200, 6]]]"
    settings = Settings(lake="unused", poll_interval_s=0.02)
    [market] = markets("M")
    watching = watch.Watching(settings, [market], {"fake": cast("Venue", PolledVenue(polling))})
    seen: list[bool] = []

    def show() -> bool:
        held = watching.held(market)
        if held is not None and seen[-1:] != [held.in_sync]:
            seen.append(held.in_sync)
        polling.error = VenueError("maintenance") if seen == [True] else None
        return len(seen) == 3

    async with asyncio.timeout(20):
        await watching.run(show, asyncio.Event(), 0.01)
    assert seen == [True, False, True]


async def test_before_its_book_is_there_a_market_says_so_and_the_gap_is_unknown(exchange: Exchange) -> None:
    settings = settings_for(exchange)
    ticker, condition_id = true_pair(exchange)
    named = await found(settings, "kalshi", ticker, "poly", condition_id)
    views: list[watch.View] = []

    def show(view: watch.View) -> bool:
        views.append(view)
        return True

    await watch.watch(settings, named, show, asyncio.Event(), refresh_s=0)
    [view] = views
    assert [(book.in_sync, book.age_s, book.message) for book in view.books] == [(False, None, "no book yet")] * 2
    for gap in view.gaps:
        assert (gap.gap, gap.net, gap.best) == (None, None, None)
        assert gap.reason == f"the book of {gap.yes.venue} is not in sync"
    assert "no book yet" in rendered(view)


def rendered(view: watch.View) -> str:
    console = Console(width=180, file=io.StringIO())
    with console.capture() as captured:
        console.print(view.render(5))
    return captured.get()


# --- the command -------------------------------------------------------------------------------------------


@pytest.fixture
def outside() -> Iterator[dict[str, Any]]:
    """A local exchange as a process of its own; its announcement."""
    process = subprocess.Popen(
        [sys.executable, "-m", "arb_pipeline", "exchange"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.slow
def test_command_prints_once_streams_json_and_ends_with_ctrl_c(outside: dict[str, Any], tmp_path: Path) -> None:
    truth = httpx.get(outside["control_url"] + "/truth", timeout=30).json()
    pair = next(pair for pair in truth["pairs"] if pair["relation"] == "equivalent")
    words = ["kalshi", pair["kalshi_market_id"], "poly", pair["polymarket_market_id"]]
    command = [sys.executable, "-m", "arb_pipeline", "watch", *words]
    environment = {**os.environ, **outside["env"], "ARB_LAKE": str(tmp_path / "lake")}
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "text": True}
    done = subprocess.run([*command, "--once", "--json"], capture_output=True, timeout=60, check=True, **options)
    document = json.loads(done.stdout)
    assert [market["market_id"] for market in document["markets"]] == words[1::2]
    assert all(market["in_sync"] and market["bids"] and market["asks"] for market in document["markets"])
    assert [gap["reason"] for gap in document["gaps"]] == ["", ""]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True, **options)
    assert "not real market data" in done.stdout
    assert "YES on polymarket, NO on kalshi" in done.stdout
    done = subprocess.run([*command[:4], "kalshi", "KXNOSUCH"], capture_output=True, timeout=60, check=False, **options)
    assert (done.returncode, done.stdout) == (1, "")

    streaming = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, start_new_session=True, **options)
    try:
        assert streaming.stdout is not None
        lines = [json.loads(streaming.stdout.readline()) for _ in range(3)]
        assert lines[0]["at"] < lines[1]["at"] < lines[2]["at"]
        began = time.monotonic()
        streaming.send_signal(signal.SIGINT)
        streaming.communicate(timeout=20)
        assert (streaming.returncode, time.monotonic() - began < 10) == (0, True)
    finally:
        if streaming.poll() is None:
            streaming.kill()

    screen, terminal = pty.openpty()
    live = subprocess.Popen(command, stdout=terminal, start_new_session=True, **options)
    os.close(terminal)
    try:
        drawn, deadline = "", time.monotonic() + 30
        while drawn.count("in sync") < 4:
            assert time.monotonic() < deadline, drawn
            drawn += os.read(screen, 65_536).decode("utf-8", "replace")
        live.send_signal(signal.SIGINT)
        while live.poll() is None:
            assert time.monotonic() < deadline + 10
            with contextlib.suppress(OSError):  # the terminal's other end is closed
                os.read(screen, 65_536)
        assert live.returncode == 0
    finally:
        live.kill()
        os.close(screen)
    assert not (tmp_path / "lake").exists(), "a watch leaves nothing behind"


def test_sizes_and_prices_are_exact_text() -> None:
    [market] = markets("M")
    view = watch.BookView(market, ((4_200, 12_500_000),), (), in_sync=True, age_s=0.25)
    assert view.document(5)["bids"] == [["0.42", "12.5"]]
    assert view.document(5)["asks"] == []
