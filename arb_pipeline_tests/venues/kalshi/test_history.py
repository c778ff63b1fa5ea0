import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_pipeline.model import Anomaly, AnomalyKind, Candle, Trade
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.http import HttpStatusError, RestClient
from arb_pipeline.venues.kalshi import Kalshi

HISTORY = Kalshi().history
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
T = 1_794_300_000
CUTOFF = {"market_settled_ts": "2026-08-21T00:00:00Z", "trades_created_ts": "2026-08-22T00:00:00Z"}
SETTLED, CREATED = 1_787_270_400, 1_787_356_800
CANDLE = {
    "end_period_ts": T + 60,
    "yes_bid": {"open_dollars": "0.3600", "low_dollars": "0.3600", "high_dollars": "0.3700", "close_dollars": "0.3700"},
    "yes_ask": {"open_dollars": "0.4000", "low_dollars": "0.3900", "high_dollars": "0.4000", "close_dollars": "0.4000"},
    "price": {
        "open_dollars": "0.3800", "low_dollars": "0.3800", "high_dollars": "0.3800", "close_dollars": "0.3800",
        "mean_dollars": "0.3800", "previous_dollars": "0.3700",
    },
    "volume_fp": "14.00",
    "open_interest_fp": "4310.25",
}  # fmt: skip
READ = Candle(
    "A", T * SECOND, (T + 60) * SECOND, (3_600, 3_700, 3_600, 3_700), (4_000, 4_000, 3_900, 4_000),
    (380_000_000,) * 4, 380_000_000, 14_000_000, 4_310_250_000,
)  # fmt: skip

Answer = Callable[[str, dict[str, str]], Any]
"""What a call (path, query) is answered; None is a 404."""


def serve(answer: Answer, calls: list[tuple[str, dict[str, str]]] | None = None) -> RestClient:
    def handle(request: httpx.Request) -> httpx.Response:
        path, query = request.url.path.removeprefix("/v2"), dict(request.url.params)
        if path == "/historical/cutoff":
            return httpx.Response(200, json=CUTOFF)
        if calls is not None:
            calls.append((path, query))
        body = answer(path, query)
        return httpx.Response(404, json={}) if body is None else httpx.Response(200, json=body)

    return RestClient("http://kalshi/v2", requests_per_s=1e6, retries=0, transport=httpx.MockTransport(handle))


def batch(records: dict[str, Any]) -> dict[str, Any]:
    return {"markets": [{"market_ticker": ticker, "candlesticks": found} for ticker, found in records.items()]}


async def candles(client: RestClient, markets: list[str], interval_s: int = 60, minutes: int = 5) -> list[Any]:
    found: list[Any] = []
    async with client:
        start = T * SECOND
        async for answer in HISTORY.candles(client, markets, interval_s, start, start + minutes * MINUTE):
            found += answer
    return found


async def test_candles_of_a_batch() -> None:
    calls: list[tuple[str, dict[str, str]]] = []
    quiet = {**CANDLE, "end_period_ts": T + 120, "price": {"previous_dollars": "0.38"}, "yes_ask": None}
    early = {**CANDLE, "end_period_ts": T}
    client = serve(lambda *_: batch({"A": [early, CANDLE, quiet], "C": None}), calls)
    first, second = await candles(client, ["A", "B", "C"])
    assert first == READ
    assert (second.price, second.mean, second.ask) == (None, None, None)
    assert calls == [
        (
            "/markets/candlesticks",
            {"market_tickers": "A,B,C", "start_ts": str(T + 60), "end_ts": str(T + 359), "period_interval": "1"},
        )
    ]


async def test_calls_stay_within_the_venues_limits() -> None:
    calls: list[tuple[str, dict[str, str]]] = []
    markets = [f"M{number}" for number in range(250)]

    def answer(_path: str, query: dict[str, str]) -> Any:
        tickers = query["market_tickers"].split(",")
        first, last = int(query["start_ts"]), int(query["end_ts"])
        ends = range(-(-first // 60) * 60, last + 1, 60)
        assert len(tickers) <= 100
        assert len(tickers) * len(ends) <= 10_000
        return batch({ticker: [{**CANDLE, "end_period_ts": end} for end in ends] for ticker in tickers[:1]})

    await candles(serve(answer, calls), markets, minutes=5)
    assert len(calls) == 3
    calls.clear()
    found = await candles(serve(answer, calls), ["M"], minutes=12_000)
    begins = [candle.begin_ns for candle in found]
    assert begins == [(T + 60 * number) * SECOND for number in range(12_000)]
    assert len(calls) == 3


async def test_a_market_that_settled_long_ago_is_in_the_archive_under_other_names() -> None:
    def plain(points: Any) -> Any:
        return {name.removesuffix("_dollars"): value for name, value in points.items()}

    end = SETTLED - 86_400
    archived = {
        "end_period_ts": end, "volume": "14.00", "open_interest": "4310.25",
        **{name: plain(CANDLE[name]) for name in ("yes_bid", "yes_ask", "price")},
    }  # fmt: skip
    calls: list[tuple[str, dict[str, str]]] = []

    def answer(path: str, _query: dict[str, str]) -> Any:
        if path == "/markets/candlesticks":
            return batch({"A": []})
        return {"ticker": "A", "candlesticks": [archived]} if "/A/" in path else None

    found = []
    async with serve(answer, calls) as client:
        begin = (end - 60) * SECOND
        async for some in HISTORY.candles(client, ["A", "B"], 60, begin, begin + MINUTE):
            found += some
    assert [path for path, _ in calls] == [
        "/markets/candlesticks",
        "/historical/markets/A/candlesticks",
        "/historical/markets/B/candlesticks",
    ]
    (candle,) = found
    assert isinstance(candle, Candle)
    assert (candle.bid, candle.price, candle.mean, candle.volume) == (READ.bid, READ.price, READ.mean, READ.volume)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"yes_bid": {"open_dollars": "0.36"}}, AnomalyKind.MISSING_FIELD),
        ({"yes_bid": {**CANDLE["yes_bid"], "high_dollars": "0.1000"}}, AnomalyKind.BAD_NUMBER),  # type: ignore[dict-item]
        ({"volume_fp": "many"}, AnomalyKind.BAD_NUMBER),
        ({"price": 3}, AnomalyKind.WRONG_TYPE),
        ({"end_period_ts": None}, AnomalyKind.WRONG_TYPE),
    ],
)
async def test_a_candle_that_cannot_be_used_is_an_anomaly_and_the_others_stay(
    changes: dict[str, Any], kind: AnomalyKind
) -> None:
    bad, good = await candles(serve(lambda *_: batch({"A": [{**CANDLE, **changes}, CANDLE]})), ["A"])
    assert isinstance(bad, Anomaly)
    assert (bad.kind, bad.market_id) == (kind, "A")
    assert bad.example.startswith("{")
    assert good == READ


async def test_what_is_of_another_form_is_an_error() -> None:
    with pytest.raises(VenueError, match="GET /markets/candlesticks"):
        await candles(serve(lambda *_: {"markets": 7}), ["A"])
    with pytest.raises(ValueError, match="5 s"):
        await candles(serve(lambda *_: batch({})), ["A"], 5)
    with pytest.raises(HttpStatusError):
        await candles(serve(lambda *_: None), ["A"])


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 30_000), st.sampled_from([60, 3_600, 86_400]))
async def test_every_candle_that_begins_in_the_time_comes_once(start: int, length: int, interval_s: int) -> None:
    last = T - T % 86_400 + start + length

    def answer(_path: str, query: dict[str, str]) -> Any:
        first, until = int(query["start_ts"]), int(query["end_ts"])
        ends = range(-(-first // interval_s) * interval_s, until + 1, interval_s)
        return batch({"A": [{**CANDLE, "end_period_ts": end} for end in ends]})

    found = []
    async with serve(answer) as client:
        async for some in HISTORY.candles(client, ["A"], interval_s, (last - length) * SECOND, last * SECOND):
            found += [candle.begin_ns // SECOND for candle in some if isinstance(candle, Candle)]
    assert found == list(range(-(-(last - length) // interval_s) * interval_s, last, interval_s))


def trade(trade_id: str, at: str) -> dict[str, Any]:
    return {
        "trade_id": trade_id, "ticker": "A", "count_fp": "2.50", "yes_price_dollars": "0.4000",
        "taker_outcome_side": "yes", "created_time": at,
    }  # fmt: skip


async def test_trades_of_a_time_around_the_cutoff_come_from_both_tiers() -> None:
    calls: list[tuple[str, dict[str, str]]] = []

    def answer(path: str, query: dict[str, str]) -> Any:
        if path == "/historical/trades":
            return {"trades": [trade("old", "2026-08-21T23:59:59.5Z")], "cursor": ""}
        if "cursor" not in query:
            return {
                "trades": [trade("late", "2026-08-22T00:01:00Z"), trade("new", "2026-08-22T00:00:30Z")],
                "cursor": "x",
            }
        return {"trades": [trade("early", "2026-08-21T23:58:59.9Z"), {"ticker": "A"}], "cursor": ""}

    found: list[Trade | Anomaly] = []
    async with serve(answer, calls) as client:
        async for page in HISTORY.trades(client, "A", (CREATED - 60) * SECOND, (CREATED + 60) * SECOND):
            found += page
    assert [one.trade_id for one in found if isinstance(one, Trade)] == ["old", "new"]
    assert [one.kind for one in found if isinstance(one, Anomaly)] == [AnomalyKind.MISSING_FIELD]
    assert all(one.recv_ns == one.venue_ns for one in found if isinstance(one, Trade))
    span = {"limit": "1000", "ticker": "A", "min_ts": str(CREATED - 60)}
    assert calls == [
        ("/historical/trades", {**span, "max_ts": str(CREATED)}),
        ("/markets/trades", {**span, "max_ts": str(CREATED + 60)}),
        ("/markets/trades", {**span, "max_ts": str(CREATED + 60), "cursor": "x"}),
    ]
    calls.clear()
    async with serve(lambda *_: {"trades": [], "cursor": ""}, calls) as client:
        async for _ in HISTORY.trades(client, "A", CREATED * SECOND, (CREATED + 60) * SECOND):
            pass
    assert [path for path, _ in calls] == ["/markets/trades"]


async def test_a_venue_without_an_archive_is_asked_on_the_live_tier_alone() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/markets/trades"):
            return httpx.Response(200, text=json.dumps({"trades": [], "cursor": ""}))
        return httpx.Response(404, json={})

    client = RestClient("http://kalshi", requests_per_s=1e6, retries=0, transport=httpx.MockTransport(handle))
    async with client:
        assert [page async for page in HISTORY.trades(client, "A", 0, SECOND)] == [[]]
