"""Polymarket's catalogue: Gamma's ``/events/keyset`` listing, and one Gamma record into an event with its markets.

Facts: docs.polymarket.com (Gamma) and recorded answers. Gamma is loose: list fields come as lists or as JSON text, null
keys are left out, numbers are floats with noise, and dates have five formats. What cannot be read is counted and
logged, never guessed.
"""

import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from arb_pipeline.model import (
    Event,
    Market,
    MarketStatus,
    PriceRange,
    SettlementSource,
    rules_digest,
)
from arb_pipeline.settings import Settings
from arb_pipeline.units import ONE
from arb_pipeline.venues.base import Progress, VenueError
from arb_pipeline.venues.http import RestClient
from arb_pipeline.venues.polymarket.wire import padded_price

__all__ = ["Problems", "catalogue", "parse_event", "parse_time"]

VENUE: Final = "polymarket"
PAGE: Final = 100
"""Events per page; the venue takes 500, but an event nests all its markets at some 8 kB each."""

_log = logging.getLogger(__name__)
_SITE = "https://polymarket.com/event"
_SIZE_STEP = 10_000
_DEFAULT_TICK = 100
_DEFAULT_MIN_SIZE = 5_000_000
_FEE_KEYS = ("feesEnabled", "feeType", "feeSchedule", "createdAt")
_STRIKE_KEYS = (
    "groupItemTitle",
    "groupItemThreshold",
    "groupItemRange",
    "line",
    "lowerBound",
    "upperBound",
    "sportsMarketType",
    "gameStartTime",
    "gameId",
    "secondsDelay",
    "eventStartTime",
    "negRiskOther",
    "negRiskMarketID",
    "cryptoMarketConfig",
    "slug",
)
_CONDITION_ID = re.compile(r"0x(?:[0-9a-fA-F]{62}|[0-9a-fA-F]{64})")
_TOKEN_ID = re.compile(r"[0-9]{1,80}")
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?"
    r" ?(?:Z|([+-])(\d\d)(?::?(\d\d)(?::?\d\d)?)?)?"
)
_RESOLVED = frozenset({"resolved", "settled"})
_DISPUTABLE = frozenset({"requested", "proposed", "disputed"})


class Problems:
    """What could not be read: how often, with the first example of each kind."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, str] = {}

    def add(self, kind: str, example: object) -> None:
        """Count a problem; the first of its kind is kept."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.examples.setdefault(kind, str(example)[:200])

    def log(self) -> None:
        """Say each kind once, with its count and example."""
        for kind, count in self.counts.items():
            _log.warning("polymarket catalogue: %s, %d times, first %s", kind, count, self.examples[kind])


async def catalogue(
    client: RestClient, settings: Settings, progress: Progress | None = None, problems: Problems | None = None
) -> AsyncIterator[Event]:
    """Page through the open events with their markets; each event and each market comes once.

    The last page is the one without ``next_cursor``; a cursor seen before and ``settings.max_pages`` end it too.

    Raises:
        VenueError: if a page is no list of events.
        HttpStatusError: as :meth:`RestClient.get`.
    """
    found = Problems() if problems is None else problems
    events: set[str] = set()
    markets: set[str] = set()
    cursors: set[str] = set()
    cursor: str | None = None
    for _ in range(settings.max_pages):
        page = await client.get("/events/keyset", {"limit": PAGE, "closed": False, "after_cursor": cursor})
        records = page.get("events") if isinstance(page, Mapping) else None
        if not isinstance(records, list):
            raise VenueError(f"GET /events/keyset answered no list of events but {str(page)[:200]!r}")
        for record in records:
            event = _event_or_none(record, found)
            if event is None or event.event_id in events:
                continue
            events.add(event.event_id)
            fresh = tuple(market for market in event.markets if market.market_id not in markets)
            markets.update(market.market_id for market in fresh)
            yield event if len(fresh) == len(event.markets) else msgspec.structs.replace(event, markets=fresh)
        if progress is not None:
            progress("polymarket events", len(events))
        cursor = page.get("next_cursor")
        if not cursor or cursor in cursors:
            break
        cursors.add(cursor)
    else:
        found.add("listing cut short at ARB_MAX_PAGES", settings.max_pages)
    if problems is None:
        found.log()


def _event_or_none(record: object, problems: Problems) -> Event | None:
    if not isinstance(record, Mapping):
        problems.add("event is no object", record)
        return None
    try:
        return parse_event(record, problems)
    except VenueError as error:
        problems.add("event skipped", error)
        return None


def parse_event(record: Mapping[str, object], problems: Problems | None = None) -> Event:
    """One raw Gamma event with nested markets.

    A market of an unknown protocol version, without a condition id or with other than two outcomes is left out and
    counted; one whose token ids are not minted yet is kept with empty ids and is not tradable.

    Args:
        record: as ``/events`` gives it.
        problems: where to count what could not be read; logged at once if None.

    Raises:
        VenueError: if the event has no id.
    """
    found = Problems() if problems is None else problems
    event_id = _text(record, "id")
    if not event_id:
        raise VenueError(f"Gamma event without id: {str(dict(record))[:200]}")
    raw_markets = record.get("markets")
    members = [item for item in raw_markets if isinstance(item, Mapping)] if isinstance(raw_markets, list) else []
    series_id = _series(record)
    markets = [_market(member, record, len(members), series_id, found) for member in members]
    tags = _labels(record.get("tags"))
    slug = _text(record, "slug")
    event = Event(
        venue=VENUE,
        event_id=event_id,
        series_id=series_id,
        title=_text(record, "title").strip(),
        sub_title=_text(record, "subtitle"),
        slug=slug,
        url=f"{_SITE}/{slug}" if slug else "",
        category=_text(record, "category") or (tags[0] if tags else ""),
        tags=tags,
        series_ids=_ids(record.get("series")),
        tag_ids=_ids(record.get("tags")),
        rules=_text(record, "description"),
        mutually_exclusive=record.get("negRisk") is True,
        listed_markets=len(raw_markets) if isinstance(raw_markets, list) else None,
        settlement_sources=_sources(record),
        start_at=_time(record, ("startTime", "startDate"), found),
        end_at=_time(record, ("endDate",), found),
        updated_at=_time(record, ("updatedAt",), found),
        markets=tuple(market for market in markets if market is not None),
        raw=msgspec.json.encode({key: value for key, value in record.items() if key != "markets"}).decode(),
    )
    if problems is None:
        found.log()
    return event


def _market(
    record: Mapping[str, Any], event: Mapping[str, object], members: int, series_id: str, problems: Problems
) -> Market | None:
    condition_id = _text(record, "conditionId")
    name = condition_id or _text(record, "id")
    if not _CONDITION_ID.fullmatch(condition_id):
        problems.add("market skipped: conditionId is no 31 or 32 byte id", name)
        return None
    version = record.get("version") or "v1"
    if version not in ("v1", "v2"):
        problems.add("market skipped: unknown protocol version", f"{name} {version!r}")
        return None
    outcomes = _strings(record.get("outcomes")) or ["Yes", "No"]
    if len(outcomes) != 2:
        problems.add("market skipped: other than two outcomes", f"{name} {outcomes}")
        return None
    tick = _fixed(record.get("orderPriceMinTickSize"), 4)
    if tick is None or tick <= 0:
        tick = _DEFAULT_TICK
        problems.add("orderPriceMinTickSize unreadable, 0.01 assumed", name)
    min_size = _fixed(record.get("orderMinSize"), 6)
    if min_size is None:
        min_size = _DEFAULT_MIN_SIZE
        problems.add("orderMinSize unreadable, 5 assumed", name)
    tokens = _tokens(record, "clobTokenIds" if version == "v1" else "positionIds", name, problems)
    status, venue_status = _status(record, bool(tokens[0]))
    rules = "\n\n".join(filter(None, (_text(record, "description"), _text(record, "resolutionSource"))))
    slug, event_slug = _text(record, "slug"), _text(event, "slug")
    last = _fixed(record.get("lastTradePrice"), 4, exact=False)
    closed_at = _time(record, ("closedTime",), problems)
    end_at = _time(record, ("endDate", "endDateIso"), problems)
    return Market(
        venue=VENUE,
        market_id=condition_id.ljust(66, "0"),
        event_id=_text(event, "id"),
        series_id=series_id,
        title=_text(record, "question").strip(),
        yes_title=_text(record, "groupItemTitle") or ("" if outcomes[0] == "Yes" else outcomes[0]),
        no_title="" if outcomes[1] == "No" else outcomes[1],
        slug=slug,
        url=_url(event_slug, slug, members),
        outcomes=(outcomes[0], outcomes[1]),
        status=status,
        venue_status=venue_status,
        result=_result(record) if status is MarketStatus.SETTLED else "",
        rules=rules,
        rules_sha256=rules_digest(rules),
        settlement_sources=_sources(record),
        created_at=_time(record, ("createdAt",), problems),
        updated_at=_time(record, ("updatedAt",), problems),
        open_at=_time(record, ("startDate", "startDateIso"), problems),
        close_at=closed_at or end_at,
        expected_expiration_at=end_at,
        occurrence_at=_time(record, ("gameStartTime", "eventStartTime"), problems),
        tick=tick,
        price_ranges=(PriceRange(start=tick, end=ONE - tick, step=tick),),
        min_size=min_size,
        size_step=_SIZE_STEP,
        yes_token_id=tokens[0],
        no_token_id=tokens[1],
        neg_risk=record.get("negRisk") is True,
        fee_params=_fee_params(record, event),
        strike={key: record[key] for key in _STRIKE_KEYS if record.get(key) not in (None, "")},
        volume=_fixed(record.get("volume", record.get("volumeNum")), 6, exact=False),
        volume_24h=_fixed(record.get("volume24hr"), 6, exact=False),
        liquidity=_fixed(record.get("liquidity", record.get("liquidityNum")), 6, exact=False),
        last_trade_price=padded_price(f"{Decimal(last).scaleb(-4):f}") if last else "",
        raw=msgspec.json.encode(record).decode(),
    )


def _fee_params(record: Mapping[str, Any], event: Mapping[str, object]) -> dict[str, Any]:
    """What :mod:`arb_pipeline.venues.polymarket.fees` reads: the market's own schedule, or else its categories."""
    params = {key: record[key] for key in _FEE_KEYS if record.get(key) is not None}
    tags = _labels(event.get("tags"))
    if tags and "feeSchedule" not in params and params.get("feesEnabled") is not False:
        params["tags"] = list(tags)
    return params


def _status(record: Mapping[str, Any], minted: bool) -> tuple[MarketStatus, str]:
    """Venue-neutral status and the venue's own word.

    Tradable is ``active and not closed and not archived and acceptingOrders and enableOrderBook``: ``active`` stays
    true after resolution, and some closed records still accept orders.
    """
    resolution = _text(record, "umaResolutionStatus") or _text(record, "resolutionStatus")
    if record.get("closed") is True:
        resolved = resolution in _RESOLVED or (resolution not in _DISPUTABLE and _result(record) in ("yes", "no"))
        return (MarketStatus.SETTLED if resolved else MarketStatus.CLOSED), resolution or "closed"
    if record.get("archived") is True:
        return MarketStatus.CLOSED, "archived"
    if record.get("active") is not True or not minted:
        return MarketStatus.UNOPENED, "inactive" if minted else "not minted"
    if record.get("acceptingOrders") is True and record.get("enableOrderBook") is True:
        return MarketStatus.OPEN, resolution or "active"
    return MarketStatus.PAUSED, resolution or "not accepting orders"


def _result(record: Mapping[str, Any]) -> str:
    """``yes``, ``no`` or the YES share of a split from the payout prices; empty if they do not say."""
    try:
        first, second = (Decimal(price) for price in _strings(record.get("outcomePrices")) or ())
    except (ValueError, InvalidOperation):
        return ""
    if first + second != 1 or first < 0 or second < 0:
        return ""
    return {Decimal(1): "yes", Decimal(0): "no"}.get(first, f"{first.normalize():f}")


def _tokens(record: Mapping[str, Any], key: str, name: str, problems: Problems) -> tuple[str, str]:
    """The two trade ids, chosen by the market's version and never by which field is there."""
    ids = _strings(record.get(key))
    if not ids:
        if record.get(key) not in (None, "", "[]", []):
            problems.add(f"{key} unreadable, market not tradable", f"{name} {record.get(key)!r}")
        return "", ""
    if len(ids) != 2 or not all(_TOKEN_ID.fullmatch(token) for token in ids):
        problems.add(f"{key} unreadable, market not tradable", f"{name} {ids}")
        return "", ""
    return ids[0], ids[1]


def _strings(value: object) -> list[str]:
    """A list of text, real or as JSON text; empty if it is neither. Numbers are refused: a token id fits no float."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return []
    return [str(item) for item in value]


def _text(record: Mapping[str, object], key: str) -> str:
    value = record.get(key)
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _fixed(value: object, digits: int, *, exact: bool = True) -> int | None:
    """A JSON number or numeric text in units of ``10**-digits``; None if it is none.

    Args:
        exact: refuse a value off the grid (None) instead of rounding it; amounts that only inform may be rounded.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        scaled = Decimal(str(value)).scaleb(digits)
        whole = scaled.to_integral_value()
    except InvalidOperation:
        return None
    if not whole.is_finite() or (exact and whole != scaled) or abs(whole) >= 2**63:
        return None
    return int(whole)


def parse_time(text: str) -> datetime | None:
    """A Gamma time as aware UTC, cut to microseconds; None if it is none.

    ``Z`` with 0 to 9 fraction digits, ``2026-10-09 05:00:00+00``, ``+00:00``, ``+00:00:00``, and a date alone
    (midnight UTC).
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = match.groups()
    micro = int((fraction or "").ljust(6, "0")[:6])
    offset = timedelta(hours=int(zone_hours or 0), minutes=int(zone_minutes or 0))
    try:
        naive = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), micro, tzinfo=UTC
        )
        return naive + offset if sign == "-" else naive - offset
    except (ValueError, OverflowError):
        return None


def _time(record: Mapping[str, Any], keys: Sequence[str], problems: Problems) -> datetime | None:
    """The first of these fields that is set."""
    for key in keys:
        value = record.get(key)
        if value is None or value == "":
            continue
        parsed = parse_time(value) if isinstance(value, str) else None
        if parsed is not None:
            return parsed
        problems.add(f"{key} is no time", value)
    return None


def _series(event: Mapping[str, object]) -> str:
    series = event.get("series")
    first = series[0] if isinstance(series, list) and series and isinstance(series[0], Mapping) else {}
    return _text(event, "seriesSlug") or _text(first, "slug") or _text(first, "id")


def _labels(tags: object) -> tuple[str, ...]:
    found = [tag for tag in tags if isinstance(tag, Mapping)] if isinstance(tags, list) else []
    return tuple(label for tag in found if (label := _text(tag, "label") or _text(tag, "slug")))


def _ids(items: object) -> tuple[str, ...]:
    """Ids of a list of series or tags, which Gamma gives as text or numbers."""
    found = [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
    return tuple(dict.fromkeys(text for item in found if (text := _text(item, "id"))))


def _sources(record: Mapping[str, object]) -> tuple[SettlementSource, ...]:
    source = _text(record, "resolutionSource").strip()
    if not source:
        return ()
    return (SettlementSource(url=source) if "://" in source else SettlementSource(name=source),)


def _url(event_slug: str, slug: str, members: int) -> str:
    if not event_slug:
        return ""
    alone = members == 1 or slug in ("", event_slug)
    return f"{_SITE}/{event_slug}" if alone else f"{_SITE}/{event_slug}/{slug}"
