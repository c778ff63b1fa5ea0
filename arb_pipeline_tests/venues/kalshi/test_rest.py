import json
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.model import Anomaly, AnomalyKind, Trade
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.http import HttpStatusError, RestClient
from arb_pipeline.venues.kalshi import Kalshi

POLLING = Kalshi().polling
NOW = 1_794_302_102_000_000_000
TRADE = {
    "trade_id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "ticker": "KXRAINSEA-26NOV12-T0.5",
    "count_fp": "2.50",
    "yes_price_dollars": "0.4000",
    "no_price_dollars": "0.6000",
    "taker_side": "yes",
    "taker_outcome_side": "yes",
    "taker_book_side": "bid",
    "created_time": "2026-11-10T09:15:01.204113Z",
    "is_block_trade": False,
}


def read(*records: Any) -> list[Trade | Anomaly]:
    return POLLING.trades(json.dumps({"trades": records, "cursor": ""}).encode(), NOW)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in TRADE.items() if key != name}


def test_a_trade() -> None:
    assert read(TRADE) == [
        Trade(
            "KXRAINSEA-26NOV12-T0.5",
            "7c9e6679-7425-40de-944b-e07fc1f90ae7",
            400_000_000,
            2_500_000,
            "yes",
            NOW,
            1_794_302_101_204_113_000,
            None,
            "rest",
        )
    ]


@pytest.mark.parametrize(
    ("changes", "taker"),
    [
        ({"taker_outcome_side": "no"}, "no"),
        ({"taker_outcome_side": None, "taker_side": "no"}, "no"),
        ({"taker_outcome_side": None, "taker_side": ""}, None),
    ],
)
def test_the_takers_side_is_the_outcome_bought(changes: dict[str, Any], taker: str | None) -> None:
    (found,) = read({**TRADE, **changes})
    assert isinstance(found, Trade)
    assert found.taker_side == taker


def test_a_trade_of_before_2026_03_12() -> None:
    legacy = {"price": 0.4, "yes_price": 40, "no_price": 60, "count": 3, "taker_side": "no"}
    named = {key: TRADE[key] for key in ("trade_id", "ticker", "created_time")}
    (found,) = read({**named, **legacy})
    assert isinstance(found, Trade)
    assert (found.price, found.size, found.taker_side) == (400_000_000, 3_000_000, "no")


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (without("trade_id"), AnomalyKind.MISSING_FIELD),
        (without("ticker"), AnomalyKind.MISSING_FIELD),
        (without("created_time"), AnomalyKind.MISSING_FIELD),
        (without("count_fp"), AnomalyKind.MISSING_FIELD),
        ({**TRADE, "created_time": "yesterday"}, AnomalyKind.BAD_NUMBER),
        ({**TRADE, "yes_price_dollars": "1.5"}, AnomalyKind.BAD_NUMBER),
        ({**TRADE, "count_fp": 2}, AnomalyKind.WRONG_TYPE),
        (None, AnomalyKind.WRONG_TYPE),
    ],
)
def test_an_unusable_trade_is_an_anomaly_and_the_others_are_read(record: Any, kind: AnomalyKind) -> None:
    bad, good = read(record, TRADE)
    assert isinstance(bad, Anomaly)
    assert bad.kind is kind
    assert bad.example == json.dumps(record)[:500]
    assert isinstance(good, Trade)


@given(st.dictionaries(st.sampled_from(sorted(TRADE)), st.none() | st.integers() | st.text() | st.lists(st.none())))
def test_whatever_a_record_holds_nothing_is_raised(changes: dict[str, Any]) -> None:
    assert len(read({**TRADE, **changes})) == 1


def test_a_null_list_is_no_trades() -> None:
    assert POLLING.trades(b'{"trades":null,"cursor":""}', NOW) == []


def serving(*pages: Any) -> tuple[RestClient, list[dict[str, str]]]:
    """A client whose answers are these, one request each, and the queries it sent."""
    queries: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/trade-api/v2/markets/trades"
        queries.append(dict(parse_qsl(request.url.query.decode())))
        page = pages[len(queries) - 1]
        return httpx.Response(page) if isinstance(page, int) else httpx.Response(200, text=json.dumps(page))

    transport = httpx.MockTransport(answer)
    return RestClient("https://venue.test/trade-api/v2", retries=0, requests_per_s=1e9, transport=transport), queries


async def pages_of(client: RestClient, since_ns: int = NOW) -> list[bytes]:
    async with client:
        return [page async for page in POLLING.trade_pages(client, since_ns)]


@pytest.mark.parametrize("last", ["", None])
async def test_pages_are_followed_to_the_end(last: str | None) -> None:
    client, queries = serving({"trades": [TRADE], "cursor": "c1"}, {"trades": [], "cursor": last})
    assert len(await pages_of(client, NOW + 999_999_999)) == 2
    since = str(NOW // 1_000_000_000)
    assert queries == [{"limit": "1000", "min_ts": since}, {"limit": "1000", "min_ts": since, "cursor": "c1"}]


@pytest.mark.parametrize(
    ("pages", "error"),
    [
        ([{"trades": [], "cursor": "c"}, {"trades": [], "cursor": "c"}], VenueError),
        ([[]], VenueError),
        ([{"trades": {}, "cursor": ""}], VenueError),
        ([{"trades": [], "cursor": "c"}, 401], HttpStatusError),
    ],
)
async def test_a_listing_that_is_not_complete_says_so(pages: list[Any], error: type[Exception]) -> None:
    client, _ = serving(*pages)
    with pytest.raises(error):
        await pages_of(client)
