"""Finding Kalshi markets by what a person knows: a ticker of a market, event or series, or a page's address."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from arb_pipeline.model import Market
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.http import HttpStatusError, RestClient
from arb_pipeline.venues.kalshi import catalogue

__all__ = ["find_markets"]

_TICKER: Final = re.compile(r"[A-Z0-9][A-Z0-9._-]*")
_EVENTS: Final = 200


async def find_markets(client: RestClient, text: str) -> list[Market]:
    """Markets of the market, event or series that ``text`` names, with their fee parameters.

    A page's address ends in a ticker, in small letters: ``https://kalshi.com/markets/kxfed/fed-meeting/kxfed-26dec``.

    Raises:
        VenueError: if Kalshi has nothing of that name.
        HttpStatusError: if it refuses for another reason.
    """
    ticker = _ticker(text)
    events = await _events(client, ticker) if _TICKER.fullmatch(ticker) else []
    series = {name: await _one(client, f"/series/{name}", "series") or {} for name in sorted(_series_of(events))}
    markets = [market for event in events for market in catalogue.parse_event(event, series).markets]
    if not markets:
        raise VenueError(f"kalshi has no market, event or series {text!r}: give a ticker or the address of a page")
    return markets


async def _events(client: RestClient, ticker: str) -> list[Mapping[str, Any]]:
    """Raw events with the nested markets that are meant."""
    nested = {"with_nested_markets": True}
    market = await _one(client, f"/markets/{ticker}", "market")
    event = await _one(client, f"/events/{market['event_ticker'] if market else ticker}", "event", nested)
    if market:
        return [{"event_ticker": market["event_ticker"], **(event or {}), "markets": [market]}]
    if event:
        return [event]
    page = await client.get("/events", {"series_ticker": ticker, "status": "open", "limit": _EVENTS, **nested})
    return list(page.get("events") or [])


async def _one(
    client: RestClient, path: str, key: str, params: Mapping[str, Any] | None = None
) -> Mapping[str, Any] | None:
    """One object by its ticker; None if there is none."""
    try:
        record = (await client.get(path, params)).get(key)
    except HttpStatusError as error:
        if error.status != 404:
            raise
        return None
    return record if isinstance(record, Mapping) else None


def _series_of(events: list[Mapping[str, Any]]) -> set[str]:
    return {event["series_ticker"] for event in events if event.get("series_ticker")}


def _ticker(text: str) -> str:
    if "/" not in text:
        return text.strip().upper()
    return urlsplit(text.strip()).path.rstrip("/").rpartition("/")[2].upper()
