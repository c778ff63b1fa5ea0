import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.model import Event, MarketFacts, MarketStatus, PriceRange, SettlementSource, rules_digest
from arb_pipeline.recordings import Recording
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import FeeUnknownError, Venue, VenueError
from arb_pipeline.venues.http import HttpStatusError, RestClient
from arb_pipeline.venues.kalshi import Kalshi
from arb_pipeline.venues.kalshi.catalogue import Skipped, parse_event

NOW = datetime(2026, 11, 10, tzinfo=UTC)


def market(ticker: str = "KXRAINSEA-26NOV12-T0.5", **fields: Any) -> dict[str, Any]:
    return {
        "ticker": ticker,
        "event_ticker": "KXRAINSEA-26NOV12",
        "market_type": "binary",
        "title": "Rain in Seattle above 0.5 in?",
        "yes_sub_title": "Above 0.5 in",
        "no_sub_title": "Above 0.5 in",
        "created_time": "2026-11-05T15:00:00.123456Z",
        "updated_time": "2026-11-10T09:12:44.5Z",
        "open_time": "2026-11-05T15:30:00Z",
        "close_time": "2026-11-13T07:59:00Z",
        "expected_expiration_time": "2026-11-13T15:00:00Z",
        "settlement_timer_seconds": 1800,
        "status": "active",
        "result": "",
        "last_price_dollars": "0.3800",
        "volume_fp": "8123.75",
        "volume_24h_fp": "911.00",
        "open_interest_fp": "4310.25",
        "strike_type": "greater",
        "floor_strike": 0.5,
        "rules_primary": "If it rains …",
        "rules_secondary": "Rounded.",
        "price_level_structure": "linear_cent",
        "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
    } | fields


def event(*markets: Any, **fields: Any) -> dict[str, Any]:
    return {
        "event_ticker": "KXRAINSEA-26NOV12",
        "series_ticker": "KXRAINSEA",
        "title": "Rain in Seattle",
        "sub_title": "On Nov 12",
        "mutually_exclusive": False,
        "settlement_sources": None,
        "last_updated_ts": "0001-01-01T00:00:00Z",
        "strike_date": "2026-11-12T00:00:00Z",
        "markets": list(markets),
    } | fields


SERIES = {
    "KXRAINSEA": {
        "ticker": "KXRAINSEA",
        "category": "Climate and Weather",
        "categories": ["Climate and Weather", "Cities"],
        "tags": None,
        "settlement_sources": [{"name": "NOAA", "url": "https://noaa.example"}, None],
        "fee_type": "quadratic",
        "fee_multiplier": 0.5,
    }
}


def test_an_event_with_its_market_and_series() -> None:
    parsed = parse_event(event(market(), new_field={"a": 1}), SERIES)
    assert (parsed.venue, parsed.event_id, parsed.series_id) == ("kalshi", "KXRAINSEA-26NOV12", "KXRAINSEA")
    assert (parsed.category, parsed.tags) == ("Climate and Weather", ("Climate and Weather", "Cities"))
    assert parsed.settlement_sources == (SettlementSource(name="NOAA", url="https://noaa.example"),)
    assert parsed.updated_at is None
    assert parsed.end_at == datetime(2026, 11, 12, tzinfo=UTC)
    assert parsed.url == "https://kalshi.com/markets/kxrainsea"
    raw = json.loads(parsed.raw)
    assert raw["new_field"] == {"a": 1}
    assert "markets" not in raw
    (one,) = parsed.markets
    assert (one.market_id, one.event_id, one.series_id) == ("KXRAINSEA-26NOV12-T0.5", parsed.event_id, "KXRAINSEA")
    assert (one.status, one.venue_status, one.result) == (MarketStatus.OPEN, "active", "")
    assert one.rules == "If it rains …\n\nRounded."
    assert one.rules_sha256 == rules_digest(one.rules)
    assert one.created_at == datetime(2026, 11, 5, 15, 0, 0, 123456, tzinfo=UTC)
    assert one.close_at == datetime(2026, 11, 13, 7, 59, tzinfo=UTC)
    assert one.occurrence_at is None
    assert (one.tick, one.min_size, one.size_step) == (100, 10_000, 10_000)
    assert one.price_ranges == (PriceRange(start=0, end=10_000, step=100),)
    assert (one.volume, one.volume_24h, one.open_interest) == (8_123_750_000, 911_000_000, 4_310_250_000)
    assert (one.settlement_timer_s, one.last_trade_price) == (1800, "0.3800")
    assert one.strike["floor_strike"] == 0.5
    assert one.strike["yes_sub_title"] == "Above 0.5 in"
    assert "cap_strike" not in one.strike
    assert one.settlement_sources == parsed.settlement_sources
    assert json.loads(one.raw) == market()
    assert one.fee_params == {"fee_type": "quadratic", "fee_multiplier": "0.5"}
    assert Kalshi().fees(one, NOW, Settings()).marginal(Decimal("0.5")) == Decimal("0.00875")


def test_an_events_fee_override_and_a_markets_waiver_are_kept() -> None:
    record = event(
        market(fee_waiver_expiration_time="2026-12-01T00:00:00Z"), fee_type_override=None, fee_multiplier_override=0
    )
    fees = Kalshi().fees(parse_event(record, SERIES).markets[0], NOW, Settings())
    assert fees.multiplier == 0
    assert fees.waiver


@pytest.mark.parametrize("series", [None, {}, {"KXRAINSEA": {}}])
def test_without_its_series_an_event_is_listed_but_not_priced(series: Mapping[str, Any] | None) -> None:
    parsed = parse_event(event(market()), series)
    assert parsed.tags == ()
    with pytest.raises(FeeUnknownError, match=r"KXRAINSEA-26NOV12-T0\.5"):
        Kalshi().fees(parsed.markets[0], NOW, Settings())


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("initialized", MarketStatus.UNOPENED),
        ("active", MarketStatus.OPEN),
        ("inactive", MarketStatus.PAUSED),
        ("closed", MarketStatus.CLOSED),
        ("determined", MarketStatus.DETERMINED),
        ("disputed", MarketStatus.DETERMINED),
        ("amended", MarketStatus.DETERMINED),
        ("finalized", MarketStatus.SETTLED),
        ("brand_new_word", MarketStatus.PAUSED),
        (None, MarketStatus.PAUSED),
    ],
)
def test_statuses(word: str | None, status: MarketStatus) -> None:
    (one,) = parse_event(event(market(status=word))).markets
    assert one.status is status
    assert one.venue_status == (word or "")


def test_the_tick_is_the_finest_step() -> None:
    ranges = [
        {"start": "0.0000", "end": "0.1000", "step": "0.0010"},
        {"start": "0.1000", "end": "0.9000", "step": "0.0100"},
        {"start": "0.9000", "end": "1.0000", "step": "0.0010"},
    ]
    (one,) = parse_event(event(market(price_ranges=ranges))).markets
    assert one.tick == 10
    assert one.price_ranges[1] == PriceRange(start=1000, end=9000, step=100)
    (one,) = parse_event(event(market(price_ranges=None, price_level_structure="deci_cent"))).markets
    assert (one.tick, one.price_ranges) == (10, ())
    (one,) = parse_event(event(market(price_ranges=[], price_level_structure=None))).markets
    assert one.tick == 100


def test_results() -> None:
    assert parse_event(event(market(result="no"))).markets[0].result == "no"
    scalar = market(result="scalar", settlement_value_dollars="0.5000")
    assert parse_event(event(scalar)).markets[0].result == "0.5"


def test_a_market_with_nothing_but_a_ticker_is_kept() -> None:
    (one,) = parse_event({"event_ticker": "E", "markets": [{"ticker": "E-1"}]}).markets
    assert (one.market_id, one.event_id, one.rules, one.volume, one.close_at) == ("E-1", "E", "", None, None)


@given(st.data())
def test_any_field_may_be_null_missing_or_of_another_type(data: st.DataObject) -> None:
    def damage(record: dict[str, Any]) -> dict[str, Any]:
        for name in data.draw(st.lists(st.sampled_from(sorted(record)), max_size=4, unique=True)):
            junk = data.draw(st.sampled_from([None, 5, -1, 1.5, True, "x", "", [], [None], [5], {}, {"a": None}, ...]))
            if junk is ...:
                del record[name]
            else:
                record[name] = junk
        return record

    record = damage(event(damage(market())))
    series = {"KXRAINSEA": damage(dict(SERIES["KXRAINSEA"]))}
    skipped = Skipped()
    try:
        parsed = parse_event(record, series, skipped)
    except VenueError:
        assert not isinstance(record.get("event_ticker"), str) or not record["event_ticker"]
        return
    listed = record.get("markets")
    assert len(parsed.markets) + skipped.total == (len(listed) if isinstance(listed, list) else 0)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"price_ranges": [{"start": "0", "end": "1", "step": "0.00001"}]}, "more than 4 decimals"),
        ({"price_ranges": [{"start": "0", "end": "1", "step": "0"}]}, "no band of prices"),
        ({"volume_fp": "lots"}, "'lots' is not a plain decimal"),
        ({"ticker": None}, "market without ticker"),
        ({"market_type": "scalar"}, "not binary"),
    ],
)
def test_an_unusable_market_is_left_out_and_counted(bad: dict[str, Any], words: str) -> None:
    skipped = Skipped()
    parsed = parse_event(event(market(**bad), market("GOOD"), "junk"), SERIES, skipped)
    assert [one.market_id for one in parsed.markets] == ["GOOD"]
    assert parsed.listed_markets == 3, "what was left out may be an answer"
    assert skipped.total == 2
    assert any(words in example for example in skipped.examples.values())


def test_an_event_without_identity_is_refused() -> None:
    with pytest.raises(VenueError, match="event_ticker"):
        Kalshi().parse_event({"title": "x"})


def test_real_events_of_recordings(recordings: Path) -> None:
    counted = 0
    for name in ("kalshi-gold15m", "crossvenue-202607"):
        for record in Recording.open(recordings / name).events("kalshi"):
            skipped = Skipped()
            parsed = parse_event(record, None, skipped)
            assert skipped.total == 0
            assert len(parsed.markets) == len(record["markets"])
            counted += len(parsed.markets)
            for one in parsed.markets:
                assert one.rules
                assert one.close_at is not None
                assert one.volume is not None
                assert one.tick in (1, 10, 100)
    assert counted >= 19


# --- listing -------------------------------------------------------------------------------------------------

Pages = Callable[[dict[str, str]], Any]


class Exchange:
    """A handler that serves series, pages of events, and books."""

    def __init__(self, pages: Pages, series: Any = None) -> None:
        self.pages = pages
        self.series = {"series": list(SERIES.values())} if series is None else series
        self.queries: list[dict[str, str]] = []
        self.batches: list[list[str]] = []
        self.unknown: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        pairs = parse_qsl(request.url.query.decode())
        path = request.url.path.removeprefix("/trade-api/v2")
        if path == "/series":
            return httpx.Response(200, json=self.series) if self.series else httpx.Response(404, json={"error": {}})
        if path == "/events":
            self.queries.append(dict(pairs))
            return httpx.Response(200, text=json.dumps(self.pages(dict(pairs))))
        assert path == "/markets/orderbooks"
        tickers = [value for name, value in pairs if name == "tickers"]
        assert len(tickers) <= 100
        self.batches.append(tickers)
        if self.unknown & set(tickers):
            return httpx.Response(404, json={"error": {"code": "not_found"}})
        books = [{"ticker": ticker, "orderbook_fp": {"yes_dollars": None}} for ticker in reversed(tickers)]
        return httpx.Response(200, json={"orderbooks": books})

    def client(self) -> RestClient:
        return RestClient(
            "https://venue.test/trade-api/v2",
            retries=0,
            requests_per_s=1e9,
            transport=httpx.MockTransport(self),
        )


async def listing(exchange: Exchange, **fields: Any) -> tuple[list[Event], dict[str, int]]:
    steps: dict[str, int] = {}
    async with exchange.client() as client:
        events = [e async for e in Kalshi().catalogue(client, Settings(**fields), steps.__setitem__)]
    return events, steps


def paged(*pages: list[dict[str, Any]], last: Any = "") -> Pages:
    def page(query: dict[str, str]) -> Any:
        number = int(query.get("cursor", "0"))
        answer: dict[str, Any] = {"events": pages[number], "cursor": str(number + 1)}
        if number + 1 == len(pages):
            answer["cursor"] = last
            if last is ...:
                del answer["cursor"]
        return answer

    return page


def numbered(number: int) -> dict[str, Any]:
    return event(market(f"M{number}", event_ticker=f"E{number}"), event_ticker=f"E{number}")


@pytest.mark.parametrize("last", ["", None, ...])
async def test_pages_are_followed_to_the_end(last: Any) -> None:
    exchange = Exchange(paged([numbered(1), numbered(2)], [numbered(2), numbered(3)], [], last=last))
    events, steps = await listing(exchange)
    # An event that shifted to the next page is taken once.
    assert [one.event_id for one in events] == ["E1", "E2", "E3"]
    assert exchange.queries[0] == {"status": "open", "with_nested_markets": "true", "limit": "200"}
    assert [query.get("cursor") for query in exchange.queries] == [None, "1", "2"]
    assert steps == {"kalshi series": 1, "kalshi markets": 3, "kalshi skipped": 0}
    assert events[0].markets[0].fee_params["fee_type"] == "quadratic"


async def test_a_repeated_cursor_stops_the_listing(caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange(lambda _query: {"events": [numbered(1)], "cursor": "again"})
    events, _ = await listing(exchange)
    assert len(events) == 1
    assert len(exchange.queries) == 2
    assert "came again" in caplog.text


async def test_max_pages_stops_the_listing(caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange(lambda query: {"events": [], "cursor": query.get("cursor", "") + "x"})
    await listing(exchange, max_pages=5)
    assert len(exchange.queries) == 5
    assert "incomplete" in caplog.text


async def test_what_is_left_out_is_reported_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    page = [{"title": "nameless"}, event(market(volume_fp="lots"), market("GOOD")), None, "junk"]
    events, steps = await listing(Exchange(lambda _query: {"events": page}))
    assert [one.market_id for one in events[0].markets] == ["GOOD"]
    assert steps["kalshi skipped"] == 2
    assert "'lots'" in caplog.text
    assert "nameless" in caplog.text


async def test_a_market_listed_under_two_events_is_taken_once() -> None:
    page = [event(market("M")), event(market("M"), market("N"), event_ticker="OTHER")]
    events, _ = await listing(Exchange(lambda _query: {"events": page}))
    assert [[one.market_id for one in found.markets] for found in events] == [["M"], ["N"]]
    assert [found.listed_markets for found in events] == [1, 2]


async def test_null_lists_are_empty() -> None:
    assert (await listing(Exchange(lambda _query: {"events": None, "cursor": None}, series={"series": None})))[0] == []


async def test_series_refused_means_no_fees_not_no_listing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    events, _ = await listing(Exchange(paged([numbered(1)]), series=False))
    assert events[0].markets[0].fee_params == {}
    assert "no fee parameters" in caplog.text


@pytest.mark.parametrize("page", [[], {"events": 5}, "x", None])
async def test_a_page_of_another_form_is_an_error(page: Any) -> None:
    with pytest.raises(VenueError, match="GET /events answered no object"):
        await listing(Exchange(lambda _query: page))


# --- books and the rest of the venue -------------------------------------------------------------------------


def facts(*tickers: str) -> list[MarketFacts]:
    return [MarketFacts(venue="kalshi", market_id=ticker) for ticker in tickers]


async def test_books_are_fetched_in_batches_of_a_hundred() -> None:
    exchange = Exchange(lambda _query: None)
    tickers = [f"M{number}" for number in range(250)]
    async with exchange.client() as client:
        books = await Kalshi().fetch_books(client, facts(*tickers))
    assert [len(batch) for batch in exchange.batches] == [100, 100, 50]
    assert sorted(books) == sorted(tickers)
    session = Kalshi().session("poll", Settings())
    assert session.rest_book("M7", books["M7"], 1)
    assert session.in_sync("M7")


async def test_an_unknown_market_does_not_spoil_its_batch() -> None:
    exchange = Exchange(lambda _query: None)
    exchange.unknown = {"M3"}
    async with exchange.client() as client:
        books = await Kalshi().fetch_books(client, facts(*(f"M{number}" for number in range(8))))
    assert sorted(books) == ["M0", "M1", "M2", "M4", "M5", "M6", "M7"]


async def test_another_refusal_of_books_is_an_error() -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(401, json={"error": {}}))
    async with RestClient("https://venue.test", retries=0, transport=transport) as client:
        with pytest.raises(HttpStatusError, match="401"):
            await Kalshi().fetch_books(client, facts("M"))


def test_a_connection_holds_one_subscription() -> None:
    assert Kalshi().markets_per_connection(Settings(kalshi_markets_per_sid=40)) == 40


def test_it_is_a_venue_that_streams_only_with_a_key() -> None:
    venue: Venue = Kalshi()
    assert venue.name == "kalshi"
    assert venue.credentials(Settings()) is None
    assert not venue.can_stream(None)
    assert venue.session("c1", Settings()).connection_id == "c1"
    with pytest.raises(VenueError, match="another venue"):
        venue.rest_client(Settings(), object())
