from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from arb_pipeline.matching.matcher import Judgement, judge
from arb_pipeline.matching.overrides import Overrides
from arb_pipeline.model import Event, Market, MarketStatus

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
NONE = Overrides()


def market(venue: str, market_id: str, title: str, **fields: Any) -> Market:
    return Market(
        venue=venue,
        market_id=market_id,
        event_id=fields.pop("event_id", f"event-{market_id}"),
        title=title,
        status=MarketStatus.OPEN,
        tick=100,
        min_size=0,
        size_step=1,
        **fields,
    )


def event(venue: str, market_id: str, title: str, event_title: str = "", **fields: Any) -> Event:
    one = market(venue, market_id, title, **fields)
    return Event(venue=venue, event_id=one.event_id, title=event_title or title, markets=(one,))


def kalshi(title: str, yes_title: str = "", rules: str = "", market_id: str = "KX", **fields: Any) -> Event:
    return event("kalshi", market_id, title, yes_title=yes_title, rules=rules, **fields)


def polymarket(title: str, yes_title: str = "", rules: str = "", market_id: str = "0x1", **fields: Any) -> Event:
    return event("polymarket", market_id, title, yes_title=yes_title, rules=rules, **fields)


def judged(first: Event, second: Event) -> Judgement:
    return judge(first, first.markets[0], second, second.markets[0])


def game(first: str, second: str, start: str, **fields: Any) -> Event:
    strike: Mapping[str, Any] = {"sportsMarketType": "moneyline", "gameStartTime": start}
    return polymarket(f"{first} vs. {second}", outcomes=(first, second), strike=strike, **fields)
