from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from arb_pipeline.exchange import Exchange, GeneratedSource, start
from arb_pipeline.exchange.source import LevelChange, TradePrint
from arb_pipeline_tests.exchange.client import kalshi_headers
from arb_pipeline_tests.exchange.conftest import TODAY, Scripted

REST = "/trade-api/v2"
A = "KXFEDDECISION-26DEC-C25"
M = 1_000_000


async def pages(http: httpx.AsyncClient, path: str, key: str, **params: Any) -> list[Any]:
    found: list[Any] = []
    cursor = ""
    while True:
        body = (await http.get(path, params={**params, "cursor": cursor} if cursor else params)).json()
        found += body[key]
        cursor = body["cursor"]
        if not cursor:
            return found


async def test_events_page_completely_and_the_same_at_any_size(http: httpx.AsyncClient) -> None:
    whole = (await http.get(f"{REST}/events")).json()
    assert whole["cursor"] == ""
    tickers = [event["event_ticker"] for event in whole["events"]]
    assert len(tickers) >= 60
    assert len(set(tickers)) == len(tickers)
    assert "markets" not in whole["events"][0]
    for limit in (1, 7, 64):
        found = await pages(http, f"{REST}/events", "events", limit=limit, with_nested_markets="true")
        assert [event["event_ticker"] for event in found] == tickers
    markets = [market for event in found for market in event["markets"]]
    assert 150 <= len(markets) <= 300
    assert all(datetime.fromisoformat(market["close_time"]).date() > TODAY for market in markets)


async def test_markets_page_filter_and_come_newest_first(http: httpx.AsyncClient) -> None:
    found = await pages(http, f"{REST}/markets", "markets", limit=50, status="open")
    assert len({market["ticker"] for market in found}) == len(found) >= 150
    created = [market["created_time"] for market in found]
    assert created == sorted(created, reverse=True)
    fed = (await http.get(f"{REST}/markets", params={"event_ticker": "KXFEDDECISION-26DEC"})).json()["markets"]
    assert len(fed) == 5
    series = (await http.get(f"{REST}/markets", params={"series_ticker": "KXFEDDECISION"})).json()["markets"]
    assert len(series) == 15
    two = (await http.get(f"{REST}/markets", params={"tickers": f"{A},KXNOTHING"})).json()["markets"]
    assert [market["ticker"] for market in two] == [A]
    assert (await http.get(f"{REST}/markets", params={"status": "settled"})).json() == {"markets": [], "cursor": ""}


async def test_one_event_has_its_markets_beside_or_inside(http: httpx.AsyncClient) -> None:
    path = f"{REST}/events/KXFEDDECISION-26DEC"
    beside = (await http.get(path)).json()
    assert set(beside) == {"event", "markets"}
    assert len(beside["markets"]) == 5
    inside = (await http.get(path, params={"with_nested_markets": "true"})).json()
    assert set(inside) == {"event"}
    assert inside["event"]["markets"] == beside["markets"]
    both = await http.get(path, params={"with_nested_markets": "true", "exclude_markets": "true"})
    assert both.status_code == 400


async def test_books_have_the_best_level_last_and_quotes_agree(http: httpx.AsyncClient, still: Exchange) -> None:
    ladders = (await http.get(f"{REST}/markets/{A}/orderbook")).json()["orderbook_fp"]
    for side in ("yes_dollars", "no_dollars"):
        prices = [float(price) for price, _ in ladders[side]]
        assert len(prices) >= 5
        assert prices == sorted(prices)
    top = (await http.get(f"{REST}/markets/{A}/orderbook", params={"depth": 2})).json()["orderbook_fp"]
    assert top["yes_dollars"] == ladders["yes_dollars"][-2:]
    market = (await http.get(f"{REST}/markets/{A}")).json()["market"]
    assert [market["yes_bid_dollars"], market["yes_bid_size_fp"]] == ladders["yes_dollars"][-1]
    assert market["no_bid_dollars"] == ladders["no_dollars"][-1][0]
    assert float(market["yes_ask_dollars"]) == pytest.approx(1 - float(market["no_bid_dollars"]))
    other = "KXFEDDECISION-26DEC-H0"
    many = await http.get(f"{REST}/markets/orderbooks?tickers={A}&tickers={other}&tickers=KXNOTHING")
    assert [book["ticker"] for book in many.json()["orderbooks"]] == [A, other]
    assert many.json()["orderbooks"][0]["orderbook_fp"] == ladders


@pytest.mark.parametrize(
    ("path", "status", "key"),
    [
        ("/events/KXNOTHING", 404, "error"),
        ("/markets/KXNOTHING", 404, "error"),
        ("/markets/KXNOTHING/orderbook", 404, "error"),
        ("/series/KXNOTHING", 404, "error"),
        ("/events?limit=many", 400, "msg"),
        ("/events?limit=201", 400, "code"),
        ("/events?limit=0", 400, "code"),
        ("/markets?limit=1001", 400, "code"),
        ("/markets?status=active", 400, "code"),
        ("/events?with_nested_markets=yes", 400, "msg"),
        ("/events?cursor=nonsense", 400, "code"),
        ("/markets/orderbooks", 400, "code"),
        (f"/markets/{A}/orderbook?depth=101", 400, "code"),
        ("/markets?min_close_ts=1&status=open", 400, "code"),
        ("/portfolio/balance", 401, "error"),
        ("/markets/candlesticks?start_ts=0&end_ts=60&period_interval=1", 400, "code"),
        (f"/markets/candlesticks?market_tickers={A}&start_ts=0&end_ts=60", 400, "msg"),
        (f"/markets/candlesticks?market_tickers={A}&start_ts=0&end_ts=60&period_interval=5", 400, "code"),
        (f"/markets/candlesticks?market_tickers={A},B&start_ts=0&end_ts=300061&period_interval=1", 400, "code"),
        (f"/series/KXNOTHING/markets/{A}/candlesticks?start_ts=0&end_ts=60&period_interval=1", 404, "error"),
        (f"/series/KXFEDDECISION/markets/{A}/candlesticks?start_ts=9&end_ts=8&period_interval=1", 400, "code"),
        (f"/series/KXFEDDECISION/markets/{A}/candlesticks?start_ts=0&end_ts=300060&period_interval=1", 400, "code"),
    ],
)
async def test_error_shapes(http: httpx.AsyncClient, path: str, status: int, key: str) -> None:
    answer = await http.get(REST + path)
    assert answer.status_code == status
    assert key in answer.json()


async def test_a_cursor_belongs_to_its_listing(http: httpx.AsyncClient) -> None:
    cursor = (await http.get(f"{REST}/events", params={"limit": 5})).json()["cursor"]
    foreign = await http.get(f"{REST}/events", params={"cursor": cursor, "series_ticker": "KXFEDDECISION"})
    assert foreign.status_code == 400


async def test_series_carry_fees_and_null_lists(http: httpx.AsyncClient) -> None:
    series = {one["ticker"]: one for one in (await http.get(f"{REST}/series")).json()["series"]}
    assert series["KXFEDDECISION"]["fee_type"] == "quadratic"
    assert series["KXINX"]["fee_multiplier"] == 0.5
    assert series["KXBILLS"]["settlement_sources"] is None
    assert (await http.get(f"{REST}/series/KXINX")).json()["series"] == series["KXINX"]
    events = (await http.get(f"{REST}/events")).json()["events"]
    assert {event["series_ticker"] for event in events} <= set(series)
    assert any(event["settlement_sources"] is None for event in events)
    assert (await http.get(f"{REST}/exchange/status")).json()["trading_active"] is True


async def test_fee_changes_of_series_past_and_announced(http: httpx.AsyncClient) -> None:
    path, now = f"{REST}/series/fee_changes", datetime.now(UTC)
    whole = (await http.get(path, params={"show_historical": "true"})).json()["series_fee_change_arr"]
    coming = (await http.get(path)).json()["series_fee_change_arr"]
    assert len({change["id"] for change in whole}) == len(whole) > len(coming) > 0
    assert all(set(change) == {"id", "series_ticker", "fee_type", "fee_multiplier", "scheduled_ts"} for change in whole)
    assert coming == [change for change in whole if datetime.fromisoformat(change["scheduled_ts"]) > now]
    params = {"series_ticker": "KXINX", "show_historical": "true"}
    own = (await http.get(path, params=params)).json()["series_fee_change_arr"]
    assert [change["fee_multiplier"] for change in own] == [1, 0.5, 2]
    assert (await http.get(path, params={"show_historical": "yes"})).status_code == 400


async def test_fee_changes_of_events_page_and_are_cleared(http: httpx.AsyncClient) -> None:
    path = f"{REST}/events/fee_changes"
    whole = await pages(http, path, "event_fee_changes")
    assert await pages(http, path, "event_fee_changes", limit=1) == whole
    one = [change for change in whole if change["event_ticker"] == whole[0]["event_ticker"]]
    assert [(change["fee_type_override"], change["fee_multiplier_override"]) for change in one] == [
        ("quadratic", 0),
        (None, None),
    ]
    params = {"event_ticker": whole[0]["event_ticker"]}
    assert (await http.get(path, params=params)).json() == {"event_fee_changes": one, "cursor": ""}
    for refused in ({"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"cursor": "x"}):
        assert (await http.get(path, params=refused)).status_code == 400


@pytest.mark.parametrize(
    ("path", "key"), [("balance", "balance_dollars"), ("positions", "market_positions"), ("fills", "fills")]
)
async def test_account_calls_are_signed_without_their_query(
    http: httpx.AsyncClient, still: Exchange, path: str, key: str
) -> None:
    url = f"{REST}/portfolio/{path}"
    good = await http.get(url, params={"limit": 5}, headers=kalshi_headers(still, "GET", url))
    assert good.status_code == 200
    assert good.json()[key]
    bad = await http.get(url, headers=kalshi_headers(still, "GET", url + "?limit=5"))
    assert bad.status_code == 401
    assert bad.json() == {"error": {"code": "token_authentication_failure", "message": "token authentication failure"}}


async def test_the_archive_begins_three_months_ago_and_is_empty(http: httpx.AsyncClient) -> None:
    cutoff = (await http.get(f"{REST}/historical/cutoff")).json()
    age = datetime.now(UTC) - datetime.fromisoformat(cutoff["trades_created_ts"])
    assert age.days == 90
    assert cutoff["market_settled_ts"] == cutoff["trades_created_ts"]
    assert (await http.get(f"{REST}/historical/trades")).json() == {"trades": [], "cursor": ""}


async def test_trades_are_newest_first_and_pageable() -> None:
    source = GeneratedSource(7, duration_s=40, today=TODAY)
    async with (
        await start(source, speed=float("inf")) as exchange,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{exchange.port}") as http,
    ):
        exchange.player.started.set()
        await exchange.player.finished.wait()
        trades = await pages(http, f"{REST}/markets/trades", "trades", limit=10)
        assert len(trades) > 20
        assert len({trade["trade_id"] for trade in trades}) == len(trades)
        times = [datetime.fromisoformat(trade["created_time"]) for trade in trades]
        assert times == sorted(times, reverse=True)
        ticker = trades[0]["ticker"]
        own = await pages(http, f"{REST}/markets/trades", "trades", ticker=ticker)
        assert own == [trade for trade in trades if trade["ticker"] == ticker]


async def test_trades_page_completely_within_their_times(
    still: Exchange, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trade(number: int) -> None:
        monkeypatch.setattr(still.kalshi, "_now_ms", lambda: 1_000_000 + 500 * number)
        still.kalshi.trade(TradePrint(A, 4_000 + number, M, "yes"))

    for number in range(20):
        trade(number)
    first = (await http.get(f"{REST}/markets/trades", params={"limit": 8})).json()
    trade(20)
    rest = await pages(http, f"{REST}/markets/trades", "trades", limit=8)
    second = (await http.get(f"{REST}/markets/trades", params={"limit": 8, "cursor": first["cursor"]})).json()
    assert [trade["trade_id"] for trade in first["trades"] + second["trades"]] == [
        trade["trade_id"] for trade in rest[1:17]
    ]
    assert len(rest) == 21
    within = await pages(http, f"{REST}/markets/trades", "trades", limit=2, min_ts=1002, max_ts=1004)
    times = [f"1970-01-01T00:16:{text}Z" for text in ("44", "43.5", "43", "42.5", "42")]
    assert [trade["created_time"] for trade in within] == times
    none = await http.get(f"{REST}/markets/trades", params={"is_block_trade": "true"})
    assert none.json()["trades"] == []


async def test_candlesticks_tell_quotes_and_trades_by_their_inclusive_end(
    scripted: Scripted, still: Exchange, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bid, _), (ask, _) = max(scripted.books()[A].bids), min(scripted.books()[A].asks)
    steps: list[tuple[int, TradePrint | LevelChange]] = [
        (60_001, TradePrint(A, ask, 2 * M, "yes")),
        (119_000, LevelChange(A, "bid", bid + 100, M)),
        (120_000, TradePrint(A, bid, M, "no")),
        (400_000, LevelChange(A, "bid", bid + 100, 0)),
    ]
    now = {"ms": 0}
    monkeypatch.setattr(still.kalshi, "_now_ms", lambda: now["ms"])
    for now["ms"], step in steps:
        if isinstance(step, TradePrint):
            still.kalshi.trade(step)
        else:
            still.kalshi.change_level(step)

    def text(price: int) -> str:
        return f"{price / 10_000:.4f}"

    path = f"{REST}/series/KXFEDDECISION/markets/{A}/candlesticks"
    query: dict[str, str | int] = {"start_ts": 0, "end_ts": 600, "period_interval": 1}
    body = (await http.get(path, params=query)).json()
    assert body["ticker"] == A
    traded, quoted = body["candlesticks"]
    assert (traded["end_period_ts"], traded["volume_fp"]) == (120, "3.00")
    assert traded["yes_bid"] == {
        "open_dollars": text(bid),
        "low_dollars": text(bid),
        "high_dollars": text(bid + 100),
        "close_dollars": text(bid + 100),
    }
    assert traded["price"] == {
        "open_dollars": text(ask),
        "low_dollars": text(bid),
        "high_dollars": text(ask),
        "close_dollars": text(bid),
        "mean_dollars": text(round((2 * ask + bid) / 3)),
        "previous_dollars": None,
    }
    assert (quoted["end_period_ts"], quoted["volume_fp"]) == (420, "0.00")
    assert quoted["price"] == {
        **dict.fromkeys(("open_dollars", "low_dollars", "high_dollars", "close_dollars", "mean_dollars")),
        "previous_dollars": text(bid),
    }
    narrow = (await http.get(path, params={**query, "start_ts": 120, "end_ts": 419})).json()["candlesticks"]
    assert narrow == [traded]
    (hour,) = (await http.get(path, params={**query, "end_ts": 3600, "period_interval": 60})).json()["candlesticks"]
    assert (hour["end_period_ts"], hour["price"]) == (3600, traded["price"])
    later = {**query, "start_ts": 130, "end_ts": 200}
    assert (await http.get(path, params=later)).json()["candlesticks"] == []
    (made,) = (await http.get(path, params={**later, "include_latest_before_start": "true"})).json()["candlesticks"]
    assert (made["end_period_ts"], made["volume_fp"]) == (180, "0.00")
    assert (made["price"]["close_dollars"], made["price"]["previous_dollars"]) == (None, text(bid))
    assert made["yes_bid"]["open_dollars"] == made["yes_bid"]["close_dollars"] == text(bid + 100)
    other = "KXFEDDECISION-26DEC-H0"
    many = (await http.get(f"{REST}/markets/candlesticks", params={"market_tickers": f"{A},X,{other}", **query})).json()
    assert many["markets"] == [
        {"market_ticker": A, "candlesticks": [traded, quoted]},
        {"market_ticker": other, "candlesticks": []},
    ]


async def test_the_schedule_pauses_on_thursday_mornings(http: httpx.AsyncClient) -> None:
    schedule = (await http.get(f"{REST}/exchange/schedule")).json()["schedule"]
    (week,) = schedule["standard_hours"]
    assert [(day["open_time"], day["close_time"]) for day in week["thursday"]] == [
        ("00:00", "03:00"),
        ("05:00", "00:00"),
    ]
    assert week["sunday"] == week["monday"] == [{"open_time": "00:00", "close_time": "00:00"}]
    assert schedule["maintenance_windows"] == []
