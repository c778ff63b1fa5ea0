"""``outcome_sets``: events of several outcomes, and what is known of them together. A basket rests on it."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from arb_pipeline.matching.alignment import exclusive, exhaustiveness
from arb_pipeline.matching.families import propositions
from arb_pipeline.matching.matcher import Memory
from arb_pipeline.matching.relations import SAME
from arb_pipeline.matching.versions import HOPEFUL
from arb_pipeline.model import Event

__all__ = ["outcome_sets"]

Row = dict[str, Any]


def outcome_sets(
    events: Iterable[Event], matches: Iterable[Mapping[str, Any]], at: datetime, memory: Memory | None = None
) -> list[Row]:
    """Rows of ``outcome_sets``: one for each event of two markets or more.

    Args:
        events: of both venues, with all their markets.
        matches: the statements about pairs that hold, rows of ``market_matches``.
        at: when this is found.
        memory: of the matcher's run over these events, which has read their markets already.
    """
    listed = [event for event in events if len(event.markets) > 1]
    partners = _partners(events=listed, matches=matches)
    rows = []
    for event in listed:
        found = exhaustiveness(
            event,
            (
                propositions(event, market)[0] if memory is None else memory.listed(event, market).propositions[0]
                for market in event.markets
            ),
        )
        partner, paired = partners.get((event.venue, event.event_id), (None, None))
        rows.append(
            {
                "venue": event.venue,
                "event_id": event.event_id,
                "title": event.title,
                "outcomes": len(event.markets),
                "market_ids": json.dumps(sorted(market.market_id for market in event.markets)),
                "exclusive": exclusive(event),
                "exhaustive": found.proven,
                "why": found.why,
                "partner_event_id": partner,
                "paired": paired,
                "known_at": at,
            }
        )
    return rows


def _partners(events: Iterable[Event], matches: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[str, int]]:
    """By event the other venue's event that shares the most questions with it, and how many."""
    event_of = {(event.venue, market.market_id): event.event_id for event in events for market in event.markets}
    shared: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in matches:
        if row["status"] not in HOPEFUL or row["relation"] not in SAME:
            continue
        ours = event_of.get(("kalshi", row["kalshi_market_id"]))
        theirs = event_of.get(("polymarket", row["polymarket_market_id"]))
        if ours is not None and theirs is not None:
            shared["kalshi", ours][theirs] += 1
            shared["polymarket", theirs][ours] += 1
    return {key: min(counts.items(), key=lambda each: (-each[1], each[0])) for key, counts in shared.items()}
