"""Exact cases from a folder of JSON files, and the fee models that their legs name."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arb_pipeline.model import Market, MarketStatus
from arb_pipeline.venues.base import FeeModel
from arb_pipeline.venues.kalshi.fees import kalshi_fees
from arb_pipeline.venues.polymarket.fees import fee_model

__all__ = ["NOW", "Case", "cases_of", "fees_of", "listed"]

Case = dict[str, Any]
NOW = datetime(2026, 11, 21, tzinfo=UTC)
_KNOWN_OF_LEGS = {"name", "venue", "asks", "account", "multiplier", "rate", "exponent", "rounding"}


def cases_of(folder: Path) -> list[Case]:
    """The cases of every file in a folder, in the order of the files' names; an id stands for one case only."""
    cases: list[Case] = []
    for path in sorted(folder.glob("*.json")):
        cases += json.loads(path.read_text())["cases"]
    ids = [case["id"] for case in cases]
    assert len(ids) == len(set(ids)) > 0, f"no cases, or two with one id, in {folder}"
    return cases


def listed(venue: str, **fee_params: Any) -> Market:
    """A market of which nothing but the fees matters."""
    return Market(
        venue=venue,
        market_id="M",
        event_id="E",
        title="?",
        status=MarketStatus.OPEN,
        tick=100,
        min_size=10_000,
        size_step=10_000,
        fee_params=fee_params,
    )


def fees_of(leg: Case, at: datetime = NOW) -> FeeModel:
    """What a leg is charged; one that says something unknown cannot be run."""
    assert set(leg) <= _KNOWN_OF_LEGS, f"a leg with {sorted(set(leg) - _KNOWN_OF_LEGS)}"
    if leg["venue"] == "kalshi":
        market = listed("kalshi", fee_type="quadratic", fee_multiplier=leg.get("multiplier", "1"))
        return kalshi_fees(market, at, leg.get("account", "direct"))
    schedule = {"rate": leg["rate"], "exponent": leg.get("exponent", 1)}
    market = listed("polymarket", feesEnabled=True, feeSchedule=schedule)
    return fee_model(market, at, leg.get("rounding", "floor"))
