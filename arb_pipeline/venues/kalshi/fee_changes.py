"""Kalshi's fee parameters by time: announced changes, and what listings of the catalogue showed (OpenAPI 3.34.0).

``/series/fee_changes`` and ``/events/fee_changes`` tell when a series' fees or an event's override change; they do not
tell what held before the first change. That is known only where a listing of the catalogue showed it, or where a
complete list of changes has none up to that listing: then what it showed has always held.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, TypeAlias

import httpx

from arb_pipeline.model import Event, FeeChange
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.fee_timeline import ALWAYS
from arb_pipeline.venues.http import HttpStatusError, RestClient
from arb_pipeline.venues.kalshi import rest

__all__ = ["LISTED", "Announced", "announced", "fee_changes", "list_fee_changes"]

_log = logging.getLogger(__name__)

Record: TypeAlias = Mapping[str, Any]
Scope: TypeAlias = Literal["series", "event"]
Key: TypeAlias = tuple[Scope, str]

LISTED: Final = "catalogue: GET /series, GET /events"
"""Source of what a listing of the catalogue showed."""
_LISTING: Final = timedelta(hours=1)
"""A listing takes minutes, and begins with the series: what changed so shortly before its end it may show as before."""
_CALLS: Final[Mapping[Scope, str]] = {"series": "GET /series/fee_changes", "event": "GET /events/fee_changes"}
_NAMES: Final[Mapping[Scope, Mapping[str, str]]] = {
    "series": {"fee_type": "fee_type", "fee_multiplier": "fee_multiplier"},
    "event": {"fee_type": "fee_type_override", "fee_multiplier": "fee_multiplier_override"},
}


@dataclass(frozen=True, slots=True)
class Announced:
    """The changes that the venue tells of.

    Attributes:
        unread: series and events of which a change could not be read: their list has a hole.
    """

    changes: tuple[FeeChange, ...]
    unread: frozenset[Key] = frozenset()


async def list_fee_changes(client: RestClient, max_pages: int) -> Announced | None:
    """Both lists of changes; None, with a warning, if one of them cannot be had."""
    try:
        return announced(await rest.series_fee_changes(client), await rest.event_fee_changes(client, max_pages))
    except (VenueError, HttpStatusError, httpx.HTTPError) as error:
        _log.warning("kalshi: no list of fee changes; fees are known only from this listing on: %s", error)
        return None


def announced(series: Iterable[Record], events: Iterable[Record]) -> Announced:
    """Raw changes of series and of events; one that cannot be read is logged."""
    changes: list[FeeChange] = []
    unread: set[Key] = set()
    both: tuple[tuple[Scope, Iterable[Record]], ...] = (("series", series), ("event", events))
    for scope, records in both:
        for record in records:
            scope_id, at = record.get(f"{scope}_ticker"), _time(record.get("scheduled_ts"))
            if not isinstance(scope_id, str) or not scope_id or at is None:
                _log.warning("kalshi %s: change without ticker or time: %.200s", _CALLS[scope], dict(record))
                unread.add((scope, scope_id if isinstance(scope_id, str) else ""))
                continue
            source = f"{_CALLS[scope]} {record.get('id') or ''}".rstrip()
            changes.append(_change(scope, scope_id, _params(record, _NAMES[scope]), at, source))
    return Announced(tuple(changes), frozenset(unread))


def fee_changes(
    events: Iterable[Event], told: Announced | None, at: datetime, known: Sequence[FeeChange]
) -> list[FeeChange]:
    """All that is known of the fees of series and events after a listing of the catalogue.

    What earlier listings showed stays: it was so at the time. Of the announced changes those count that are announced
    now (of several for one time the last); without the announcements, those that were known stay.

    Args:
        events: as listed at ``at``.
        told: None if the announcements could not be had.
        known: the result of the listing before.
    """
    seen = [change for change in known if change.source == LISTED]
    stays = told.changes if told is not None else [change for change in known if change.source != LISTED]
    found: defaultdict[Key, dict[datetime, FeeChange]] = defaultdict(dict)
    for change in (*seen, *stays):
        found[_key(change)][change.valid_from] = change
    for key, params in _shown(events).items():
        held = found[key]
        past = max((start for start in held if start <= at), default=None)
        if past is None:
            if key[0] == "event" and not params:
                continue
            whole = told is not None and not {key, (key[0], "")} & told.unread
            start = ALWAYS if whole else at
        elif held[past].params == params or (held[past].source != LISTED and at - past < _LISTING):
            continue
        else:
            start = at
        held[start] = _change(*key, params, start, LISTED)
    return [change for held in found.values() for _, change in sorted(held.items())]


def _shown(events: Iterable[Event]) -> dict[Key, dict[str, str]]:
    """The parameters that a listing shows: of each series with a market, and each event's override ({}: none)."""
    shown: dict[Key, dict[str, str]] = {}
    for event in events:
        for market in event.markets[:1]:
            if market.series_id and market.fee_params.get("fee_type"):
                shown["series", market.series_id] = _params(market.fee_params, _NAMES["series"])
            shown["event", event.event_id] = _params(market.fee_params, _NAMES["event"])
    return shown


def _params(record: Record, names: Mapping[str, str]) -> dict[str, str]:
    given = {name: record.get(field) for name, field in names.items()}
    return {name: _plain(value) for name, value in given.items() if value is not None and value != ""}


def _plain(value: object) -> str:
    """A number as plain decimal text, the same for 1, 1.0 and "1.00"; other text as it is."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return str(value)
    return f"{number.normalize():f}" if number.is_finite() else str(value)


def _change(scope: Scope, scope_id: str, params: Mapping[str, str], at: datetime, source: str) -> FeeChange:
    return FeeChange(venue="kalshi", scope=scope, scope_id=scope_id, params=params, valid_from=at, source=source)


def _key(change: FeeChange) -> Key:
    return ("series" if change.scope == "series" else "event"), change.scope_id


def _time(text: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None and at.year > 1 else None
