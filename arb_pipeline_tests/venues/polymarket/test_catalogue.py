import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from arb_pipeline.model import Market, MarketStatus, rules_digest
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.polymarket.catalogue import Problems, parse_event, parse_time

CID = "0xd1371c17149d439536b3216fdaeeb975729fae923d5a4fd12aabfe228f219e9c"


def record(**changes: Any) -> dict[str, Any]:
    """A Gamma market with made-up values; a change to None leaves the key out, as the venue does."""
    base: dict[str, Any] = {
        "id": "1990417",
        "question": "Will the sample index close above 5000 in 2026?",
        "conditionId": CID,
        "slug": "will-the-sample-index-close-above-5000",
        "version": "v1",
        "description": "Resolves to Yes if it closes above 5000.",
        "resolutionSource": "https://example.com/index",
        "outcomes": '["Yes", "No"]',
        "outcomePrices": '["0.43", "0.57"]',
        "clobTokenIds": '["11", "22"]',
        "volume": "1232448.5211650059",
        "volume24hr": 10.25,
        "liquidity": "72439.35708",
        "lastTradePrice": 0.43,
        "orderPriceMinTickSize": 0.01,
        "orderMinSize": 5,
        "active": True,
        "closed": False,
        "archived": False,
        "acceptingOrders": True,
        "enableOrderBook": True,
        "negRisk": False,
        "feesEnabled": True,
        "feeType": "economics_fees",
        "feeSchedule": {"exponent": 1, "rate": 0.05, "takerOnly": True, "rebateRate": 0.25},
        "endDate": "2026-12-31T00:00:00Z",
        "startDate": "2026-04-09T21:25:07.642954Z",
        "createdAt": "2026-04-09T21:20:00Z",
        "groupItemTitle": "5000",
        "groupItemThreshold": "0",
    }
    return {key: value for key, value in (base | changes).items() if value is not None}


def event(*markets: Any, **changes: Any) -> dict[str, Any]:
    return {"id": "362999", "slug": "sample-index-2026", "title": "Sample index", "markets": list(markets)} | changes


def parsed(**changes: Any) -> Market:
    (market,) = parse_event(event(record(**changes))).markets
    return market


def test_a_market() -> None:
    market = parsed()
    assert (market.market_id, market.event_id, market.status) == (CID, "362999", MarketStatus.OPEN)
    assert (market.yes_token_id, market.no_token_id) == ("11", "22")
    assert (market.tick, market.min_size, market.size_step) == (100, 5_000_000, 10_000)
    assert (market.volume, market.volume_24h, market.liquidity) == (1_232_448_521_165, 10_250_000, 72_439_357_080)
    assert market.rules == "Resolves to Yes if it closes above 5000.\n\nhttps://example.com/index"
    assert market.rules_sha256 == rules_digest(market.rules)
    assert market.settlement_sources[0].url == "https://example.com/index"
    assert market.last_trade_price == "0.430"
    assert market.fee_params["feeSchedule"]["rate"] == 0.05
    assert market.strike["groupItemTitle"] == "5000"
    assert market.yes_title == "5000"
    assert market.close_at == datetime(2026, 12, 31, tzinfo=UTC)
    assert market.url == "https://polymarket.com/event/sample-index-2026"
    assert json.loads(market.raw)["id"] == "1990417"
    assert market.facts().last_trade_price == "0.430"


def test_a_market_without_a_schedule_of_its_own_tells_its_categories() -> None:
    tags = [{"id": "1", "label": "Sports"}, {"id": "2", "label": "NCAAB"}]

    def params(**changes: Any) -> Any:
        (market,) = parse_event(event(record(**changes), tags=tags)).markets
        return market.fee_params

    assert "tags" not in params()
    assert "tags" not in params(feesEnabled=False, feeSchedule=None)
    assert params(feesEnabled=None, feeSchedule=None)["tags"] == ["Sports", "NCAAB"]


def test_an_event() -> None:
    raw = event(
        record(),
        record(conditionId="0x" + "a" * 64, slug="second"),
        negRisk=True,
        tags=[{"label": "Economy"}, {"slug": "fed"}, 7],
        series=[{"id": "35", "slug": "fomc"}],
        description="all of it",
        startDate="2026-01-01",
        startTime="2026-02-01T00:00:00Z",
    )
    parsed_event = parse_event(raw)
    assert len(parsed_event.markets) == 2
    assert parsed_event.mutually_exclusive
    assert (parsed_event.tags, parsed_event.category) == (("Economy", "fed"), "Economy")
    assert parsed_event.series_id == "fomc"
    assert parsed_event.start_at == datetime(2026, 2, 1, tzinfo=UTC)
    assert parsed_event.url == "https://polymarket.com/event/sample-index-2026"
    assert parsed_event.markets[1].url == "https://polymarket.com/event/sample-index-2026/second"
    assert parsed_event.markets[1].series_id == "fomc"
    assert "markets" not in json.loads(parsed_event.raw)


def test_an_event_without_an_id_is_refused() -> None:
    with pytest.raises(VenueError, match="without id"):
        parse_event({"title": "x"})


@pytest.mark.parametrize("markets", [None, "x", [None, 7, "x"]])
def test_an_event_without_readable_markets_has_none(markets: object) -> None:
    assert parse_event({"id": 7, "markets": markets}).markets == ()


def test_nearly_everything_may_be_missing() -> None:
    problems = Problems()
    (market,) = parse_event({"id": "1", "markets": [{"conditionId": CID}]}, problems).markets
    assert market.status is MarketStatus.UNOPENED
    assert (market.tick, market.min_size, market.close_at, market.volume) == (100, 5_000_000, None, None)
    assert set(problems.counts.values()) == {1}


@pytest.mark.parametrize(
    ("ids", "tokens"),
    [
        (["11", "22"], ("11", "22")),
        ('["11", "22"]', ("11", "22")),
        ("[11, 22]", ("", "")),
        ([11, 22], ("", "")),
        ([1.1e77, 2.2e77], ("", "")),
        ('["11"]', ("", "")),
        ('["11", "0x22"]', ("", "")),
        ("not json", ("", "")),
        ("[]", ("", "")),
        (None, ("", "")),
    ],
)
def test_token_ids_are_text_or_the_market_is_not_tradable(ids: object, tokens: tuple[str, str]) -> None:
    market = parsed(clobTokenIds=ids)
    assert (market.yes_token_id, market.no_token_id) == tokens
    assert market.status is (MarketStatus.OPEN if tokens[0] else MarketStatus.UNOPENED)


@pytest.mark.parametrize(("version", "tokens"), [("v1", ("11", "22")), (None, ("11", "22")), ("v2", ("33", "44"))])
def test_ids_are_chosen_by_version_not_by_presence(version: str | None, tokens: tuple[str, str]) -> None:
    market = parsed(version=version, positionIds=["33", "44"])
    assert (market.yes_token_id, market.no_token_id) == tokens


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "v3"},
        {"conditionId": "0x12"},
        {"conditionId": None},
        {"conditionId": 12},
        {"outcomes": '["A", "B", "C"]'},
    ],
)
def test_markets_that_cannot_be_understood_are_skipped_and_counted(changes: dict[str, Any]) -> None:
    problems = Problems()
    told = parse_event(event(record(**changes), record()), problems)
    assert [market.market_id for market in told.markets] == [CID]
    assert told.listed_markets == 2, "what was left out may be an answer"
    assert sum(problems.counts.values()) == 1
    assert next(iter(problems.counts)).startswith("market skipped")


def test_a_skipped_market_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    parse_event(event(record(version="v3")))
    assert "unknown protocol version" in caplog.text


def test_a_condition_id_of_31_bytes_is_padded_on_the_right() -> None:
    assert parsed(conditionId="0x" + "ab" * 31).market_id == "0x" + "ab" * 31 + "00"


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({}, MarketStatus.OPEN, "active"),
        ({"umaResolutionStatus": "proposed"}, MarketStatus.OPEN, "proposed"),
        ({"acceptingOrders": False}, MarketStatus.PAUSED, "not accepting orders"),
        ({"enableOrderBook": False}, MarketStatus.PAUSED, "not accepting orders"),
        ({"active": False}, MarketStatus.UNOPENED, "inactive"),
        ({"clobTokenIds": None}, MarketStatus.UNOPENED, "not minted"),
        ({"archived": True}, MarketStatus.CLOSED, "archived"),
        ({"closed": True}, MarketStatus.CLOSED, "closed"),
        (
            {"closed": True, "umaResolutionStatus": "disputed", "outcomePrices": '["1","0"]'},
            MarketStatus.CLOSED,
            "disputed",
        ),
        ({"closed": True, "umaResolutionStatus": "resolved"}, MarketStatus.SETTLED, "resolved"),
        ({"closed": True, "outcomePrices": ["0", "1"]}, MarketStatus.SETTLED, "closed"),
        ({"closed": True, "version": "v2", "resolutionStatus": "resolved"}, MarketStatus.SETTLED, "resolved"),
    ],
)
def test_status(changes: dict[str, Any], status: MarketStatus, word: str) -> None:
    market = parsed(**changes)
    assert (market.status, market.venue_status) == (status, word)


@pytest.mark.parametrize(
    ("prices", "result"),
    [
        ('["1", "0"]', "yes"),
        ('["0", "1"]', "no"),
        ('["0.5", "0.5"]', "0.5"),
        ('["1.0", "0.0"]', "yes"),
        ('["0.7", "0.7"]', ""),
        ('["x", "y"]', ""),
        (None, ""),
    ],
)
def test_result_of_a_resolved_market(prices: str | None, result: str) -> None:
    changes = {"closed": True, "umaResolutionStatus": "resolved", "outcomePrices": prices}
    assert parsed(**changes).result == result
    assert parsed(outcomePrices=prices).result == ""


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-12-31T00:00:00Z", datetime(2026, 12, 31, tzinfo=UTC)),
        ("2026-04-09T21:25:07.642954Z", datetime(2026, 4, 9, 21, 25, 7, 642954, tzinfo=UTC)),
        ("2026-04-09T21:25:07.642954123Z", datetime(2026, 4, 9, 21, 25, 7, 642954, tzinfo=UTC)),
        ("2026-04-09T21:25:07.6Z", datetime(2026, 4, 9, 21, 25, 7, 600000, tzinfo=UTC)),
        ("2026-10-09 05:00:00+00", datetime(2026, 10, 9, 5, tzinfo=UTC)),
        ("2026-10-09 05:00:00.25+00", datetime(2026, 10, 9, 5, 0, 0, 250000, tzinfo=UTC)),
        ("2026-10-09T05:00:00+02:30", datetime(2026, 10, 9, 2, 30, tzinfo=UTC)),
        ("2026-10-09T05:00:00-04:00", datetime(2026, 10, 9, 9, tzinfo=UTC)),
        ("2026-10-09 05:00:00+00:00:00", datetime(2026, 10, 9, 5, tzinfo=UTC)),
        ("2026-10-09", datetime(2026, 10, 9, tzinfo=UTC)),
        ("2026-13-09", None),
        ("2026-02-30T00:00:00Z", None),
        ("0001-01-01T00:00:00+23:00", None),
        ("soon", None),
        ("", None),
    ],
)
def test_times(text: str, at: datetime | None) -> None:
    assert parse_time(text) == at


def test_an_unreadable_time_is_counted_and_the_next_field_serves() -> None:
    problems = Problems()
    raw = event(record(endDate="soon", endDateIso="2026-12-31", createdAt=17))
    (market,) = parse_event(raw, problems).markets
    assert market.close_at == datetime(2026, 12, 31, tzinfo=UTC)
    assert problems.counts == {"endDate is no time": 1, "createdAt is no time": 1}


@pytest.mark.parametrize(
    ("tick", "units"), [(0.01, 100), (0.001, 10), ("0.0025", 25), (0.0001, 1), (1, 10_000), (0.00001, 100), ("x", 100)]
)
def test_ticks(tick: object, units: int) -> None:
    assert parsed(orderPriceMinTickSize=tick).tick == units


def test_amounts_with_floating_noise_lose_no_unit() -> None:
    for cents in range(0, 100_000, 7):
        dollars = float(Decimal(cents).scaleb(-2))
        assert parsed(volume=dollars).volume == cents * 10_000


def test_a_market_closed_early_tells_when() -> None:
    market = parsed(closed=True, closedTime="2026-07-07 04:02:13+00")
    assert market.close_at == datetime(2026, 7, 7, 4, 2, 13, tzinfo=UTC)
    assert market.expected_expiration_at == datetime(2026, 12, 31, tzinfo=UTC)


def test_team_names_are_the_titles_of_a_game() -> None:
    market = parsed(outcomes='["Bills", "Chiefs"]', groupItemTitle=None, gameStartTime="2026-10-09 05:00:00+00")
    assert (market.yes_title, market.no_title, market.outcomes) == ("Bills", "Chiefs", ("Bills", "Chiefs"))
    assert market.occurrence_at == datetime(2026, 10, 9, 5, tzinfo=UTC)
