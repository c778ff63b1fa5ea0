"""What a discovery learns of fees by time, and that pairs are priced by it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from arb_pipeline import pipeline
from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.exchange import GeneratedSource, start
from arb_pipeline.model import FeeChange, Market, MarketStatus, MatchStatus, Relation
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.storage.catalogue import read_markets
from arb_pipeline.storage.fee_schedules import read_fee_changes, record_fee_changes
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import FeeModel
from arb_pipeline.venues.fee_timeline import ALWAYS, FeeChanges

NOW = datetime.now(UTC)
HALF = Decimal("0.5")


@pytest.fixture
async def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Settings]:
    async with await start(GeneratedSource(7, duration_s=1, today=NOW.date())) as exchange:
        for name, value in exchange.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ARB_LAKE", str(tmp_path / "lake"))
        yield Settings()


async def test_a_discovery_learns_announced_changes_and_prices_each_time_by_its_own(settings: Settings) -> None:
    lake = Lake(settings.lake, settings.exchange_name)
    for venue in VENUES:
        found = await pipeline.discover(venue, settings, lake)
        assert found.rows["fee_schedules"] > 0
        again = await pipeline.discover(venue, settings, lake)
        assert again.rows["fee_schedules"] == 0
    markets = {market.market_id: market for market in read_markets(lake)}
    kalshi = read_fee_changes(lake, "kalshi")
    changes = FeeChanges([*kalshi, *read_fee_changes(lake, "polymarket")])

    def price(market: Market, days: int) -> FeeModel:
        return VENUES[market.venue].fees(market, NOW + timedelta(days=days), settings, changes)

    halved = next(one for one in markets.values() if one.fee_params.get("fee_multiplier") == "0.5")
    found_at = [price(halved, days).marginal(HALF) for days in (-80, -1, 40)]
    assert found_at == [Decimal("0.0175"), Decimal("0.00875"), Decimal("0.035")]
    free = next(change for change in kalshi if change.scope == "event" and change.params.get("fee_multiplier") == "0")
    one = next(market for market in markets.values() if market.event_id == free.scope_id)
    inside = free.valid_from + timedelta(hours=12) - NOW
    assert VENUES["kalshi"].fees(one, NOW + inside, settings, changes).marginal(HALF) == 0
    assert price(one, 0).marginal(HALF) > 0
    for market in markets.values():
        today = price(market, 0)
        assert today.marginal(HALF) == VENUES[market.venue].fees(market, NOW, settings).marginal(HALF)
        assert today.schedule.name


def market(venue: str, **fee_params: object) -> Market:
    return Market(
        venue=venue,
        market_id=venue,
        event_id="E",
        series_id="S",
        title="?",
        status=MarketStatus.OPEN,
        tick=100,
        min_size=1,
        size_step=1,
        fee_params=fee_params,
    )


def changed(start: datetime, multiplier: str) -> FeeChange:
    params = {"fee_type": "quadratic", "fee_multiplier": multiplier}
    return FeeChange(venue="kalshi", scope="series", scope_id="S", params=params, valid_from=start, source="test")


def test_pairs_are_priced_by_what_is_known_and_by_what_was_known_then(tmp_path: Path) -> None:
    lake, settings = Lake(str(tmp_path / "own")), Settings()
    first, second = NOW - timedelta(days=10), NOW - timedelta(days=5)
    pair = Pair(
        kalshi=market("kalshi", fee_type="quadratic", fee_multiplier="0"),
        polymarket=market("polymarket", feesEnabled=False),
        relation=Relation.EQUIVALENT,
        status=MatchStatus.AUTO,
    )
    record_fee_changes(lake, "kalshi", [changed(ALWAYS, "1")], first)
    record_fee_changes(lake, "kalshi", [changed(ALWAYS, "1"), changed(second, "2")], second)
    known = pipeline.fee_source(settings, lake, [pair])
    then = pipeline.fee_source(settings, lake, [pair], known_at=first)
    before = pipeline.fee_source(settings, lake, [pair], known_at=first - timedelta(days=1))
    assert [known(pair.kalshi, at).marginal(HALF) for at in (first, NOW)] == [Decimal("0.0175"), Decimal("0.035")]
    assert then(pair.kalshi, NOW).marginal(HALF) == Decimal("0.0175")
    # Where nothing was known by time, the catalogue's own word holds.
    assert before(pair.kalshi, NOW).marginal(HALF) == 0
    assert known(pair.polymarket, NOW).marginal(HALF) == 0


def test_a_fee_book_asks_again_when_an_answer_no_longer_holds() -> None:
    changes = FeeChanges([changed(NOW - timedelta(days=5), "1"), changed(NOW - timedelta(days=2), "2")], ["kalshi"])
    asked: list[datetime] = []

    def source(one: Market, at: datetime) -> FeeModel:
        asked.append(at)
        return VENUES["kalshi"].fees(one, at, Settings(), changes)

    book, one = FeeBook(source), market("kalshi")
    found = [book.at(one, NOW - timedelta(days=days)) for days in (7, 6, 4, 3, 1, 0, 8)]
    prices = [None if isinstance(answer, str) else answer.marginal(HALF) for answer in found]
    one_cent_three_quarters = Decimal("0.0175")
    assert prices == [None, None, *[one_cent_three_quarters] * 2, *[2 * one_cent_three_quarters] * 2, None]
    assert len(asked) == 3
