"""Finding Polymarket markets by what a person knows: a slug, a condition id, a token id, or a page's address."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from arb_pipeline.model import Market
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.http import HttpStatusError, RestClient
from arb_pipeline.venues.polymarket import catalogue

__all__ = ["find_markets"]

_CONDITION_ID: Final = re.compile(r"0x[0-9a-fA-F]{62,64}")
_TOKEN_ID: Final = re.compile(r"[0-9]{20,80}")


async def find_markets(client: RestClient, text: str) -> list[Market]:
    """Markets of the event or market that ``text`` names.

    A page is ``https://polymarket.com/event/<event slug>[/<market slug>]``; a bare slug is taken for an event's first.

    Raises:
        VenueError: if Polymarket has nothing of that name.
        HttpStatusError: if it refuses for another reason.
    """
    name = text.strip()
    if _CONDITION_ID.fullmatch(name):
        # Gamma writes the ids of V2 markets with 62 digits, everything else right-padded with 00 to 64.
        forms = [name, name[:-2]] if len(name) == 66 and name.endswith("00") else [name]
        events = await _by_id(client, "condition_ids", forms)
    elif _TOKEN_ID.fullmatch(name):
        events = await _by_id(client, "clob_token_ids", [name])
    else:
        events = await _by_slug(client, name)
    markets = [market for event in events for market in catalogue.parse_event(event).markets]
    if not markets:
        raise VenueError(
            f"polymarket has no event or market {text!r}: give a slug, a condition id, a token id or a page's address"
        )
    return markets


async def _by_id(client: RestClient, parameter: str, ids: list[str]) -> list[Mapping[str, Any]]:
    """Gamma leaves closed markets out unless asked for them, hence two calls for an id of unknown state."""
    for closed in (False, True):
        params = [*((parameter, one) for one in ids), ("closed", closed)]
        records = await client.get("/markets", params)
        if records:
            return [_wrapped(record) for record in records]
    return []


async def _by_slug(client: RestClient, name: str) -> list[Mapping[str, Any]]:
    slug = name
    if "/" in name:
        parts = urlsplit(name).path.strip("/").split("/")
        slug = parts[-1]
        if "event" in parts[:-2]:  # .../event/<event slug>/<market slug>
            return await _market(client, slug)
    return await _event(client, slug) or await _market(client, slug)


async def _event(client: RestClient, slug: str) -> list[Mapping[str, Any]]:
    event = await _one(client, f"/events/slug/{quote(slug, safe='')}")
    return [event] if event else []


async def _market(client: RestClient, slug: str) -> list[Mapping[str, Any]]:
    market = await _one(client, f"/markets/slug/{quote(slug, safe='')}")
    return [_wrapped(market)] if market else []


async def _one(client: RestClient, path: str) -> Mapping[str, Any] | None:
    try:
        record = await client.get(path)
    except HttpStatusError as error:
        if error.status != 404:
            raise
        return None
    return record if isinstance(record, Mapping) else None


def _wrapped(market: Mapping[str, Any]) -> Mapping[str, Any]:
    """The market below its event, as listings have it."""
    parents = market.get("events") or [{"id": market.get("id")}]
    return {**parents[0], "markets": [{key: value for key, value in market.items() if key != "events"}]}
