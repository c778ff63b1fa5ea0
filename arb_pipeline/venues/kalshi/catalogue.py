"""Kalshi's catalogue: events with nested markets, joined with their series, into the model (OpenAPI 3.34.0).

Fields may be null, absent or new at any time. Only identity and unusable numbers keep a market out, and what is kept
out is counted with its reason.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from arb_pipeline.model import Event, Market, MarketStatus, PriceRange, SettlementSource, rules_digest
from arb_pipeline.settings import Settings
from arb_pipeline.units import SIZE_SCALE, format_plain, parse_fixed, parse_price, parse_size
from arb_pipeline.venues.base import Progress, VenueError
from arb_pipeline.venues.http import HttpStatusError, RestClient
from arb_pipeline.venues.kalshi import rest

__all__ = ["Skipped", "list_events", "parse_event"]

_log = logging.getLogger(__name__)

Record = Mapping[str, Any]

STATUSES: Final[Mapping[str, MarketStatus]] = {
    "initialized": MarketStatus.UNOPENED,
    "active": MarketStatus.OPEN,
    "inactive": MarketStatus.PAUSED,
    "closed": MarketStatus.CLOSED,
    "determined": MarketStatus.DETERMINED,
    "disputed": MarketStatus.DETERMINED,
    "amended": MarketStatus.DETERMINED,
    "finalized": MarketStatus.SETTLED,
}

_CENT_TICK: Final = 100
_STRUCTURE_TICKS: Final[Mapping[str, int]] = {"deci_cent": 10, "tapered_deci_cent": 10}
_LOT: Final = SIZE_SCALE // 100
_STRIKE_FIELDS: Final = (
    "strike_type",
    "floor_strike",
    "cap_strike",
    "functional_strike",
    "custom_strike",
    "primary_participant_key",
    "yes_sub_title",
    "no_sub_title",
    "subtitle",
    "mve_collection_ticker",
    "mve_selected_legs",
    "settlement_bounds_type",
    "settlement_floor_dollars",
)
_EVENT_STRIKE_FIELDS: Final = ("strike_date", "strike_period")


@dataclass(slots=True)
class Skipped:
    """Records left out of a listing: how many by reason, and an example of each."""

    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: str) -> None:
        """Count one record."""
        self.reasons[reason] += 1
        self.examples.setdefault(reason, example)

    @property
    def total(self) -> int:
        """All of them."""
        return self.reasons.total()


async def list_events(client: RestClient, settings: Settings, progress: Progress | None) -> AsyncIterator[Event]:
    """Every open event once, with its series' fees, sources and tags.

    What had to be left out is logged at the end, by reason with an example, and told as the progress step
    ``kalshi skipped``.

    Raises:
        HttpStatusError: if the venue refuses a page.
        VenueError: if a page is not of the documented form.
    """
    tell = progress or (lambda _step, _count: None)
    series = await _series(client)
    tell("kalshi series", len(series))
    skipped = Skipped()
    events: set[str] = set()
    markets: set[str] = set()
    async for record in rest.event_records(client, settings.max_pages):
        try:
            event = parse_event(record, series, skipped)
        except VenueError as error:
            skipped.add("event without identity", str(error))
            continue
        # Data may shift between pages: what comes twice is taken once.
        if event.event_id in events:
            continue
        events.add(event.event_id)
        fresh = tuple(market for market in event.markets if market.market_id not in markets)
        markets.update(market.market_id for market in fresh)
        tell("kalshi markets", len(markets))
        yield event if len(fresh) == len(event.markets) else msgspec.structs.replace(event, markets=fresh)
    for reason, count in skipped.reasons.items():
        _log.warning("kalshi catalogue: %d left out: %s; for example %s", count, reason, skipped.examples[reason])
    tell("kalshi skipped", skipped.total)


async def _series(client: RestClient) -> Mapping[str, Record]:
    try:
        return await rest.series_records(client)
    except HttpStatusError as error:
        _log.warning("kalshi catalogue: no series, hence no fee parameters in this listing: %s", error)
        return {}


def parse_event(record: Record, series: Mapping[str, Record] | None = None, skipped: Skipped | None = None) -> Event:
    """One raw event, with its nested markets if there are any, into the model.

    Args:
        record: the venue's event.
        series: raw series by ticker; without its series a market has no fee parameters and no tags.
        skipped: where markets that cannot be used are counted.

    Raises:
        VenueError: if the record has no event_ticker.
    """
    event_id = _text(record, "event_ticker")
    if not event_id:
        raise VenueError(f"kalshi event without event_ticker: {str(dict(record))[:200]}")
    series_id = _text(record, "series_ticker")
    parent = (series or {}).get(series_id, {})
    skipped = skipped if skipped is not None else Skipped()
    sources = _sources(record) or _sources(parent)
    markets: dict[str, Market] = {}
    unread = 0
    for item in _list(record, "markets"):
        if not isinstance(item, Mapping):
            skipped.add("market is not an object", str(item)[:200])
            unread += 1
            continue
        try:
            market = _parse_market(item, record, parent, sources)
        except (ValueError, VenueError) as error:
            skipped.add(f"market of {event_id}" if isinstance(error, VenueError) else "unusable number", str(error))
            unread += 1
            continue
        if market.venue_status not in STATUSES:
            _log.warning("kalshi %s: unknown status %r taken as paused", market.market_id, market.venue_status)
        markets.setdefault(market.market_id, market)
    return Event(
        venue="kalshi",
        event_id=event_id,
        series_id=series_id,
        title=_text(record, "title"),
        sub_title=_text(record, "sub_title"),
        slug=event_id.lower(),
        url=_url(series_id),
        category=_text(parent, "category") or _text(record, "category"),
        tags=tuple(dict.fromkeys([*_strings(parent, "tags"), *_strings(parent, "categories")])),
        mutually_exclusive=record.get("mutually_exclusive") is True,
        listed_markets=len(markets) + unread if isinstance(record.get("markets"), list) else None,
        settlement_sources=sources,
        end_at=_time(record, "strike_date"),
        updated_at=_time(record, "last_updated_ts"),
        markets=tuple(markets.values()),
        raw=_json({key: value for key, value in record.items() if key != "markets"}),
    )


def _parse_market(record: Record, event: Record, series: Record, sources: tuple[SettlementSource, ...]) -> Market:
    """One nested market.

    Raises:
        VenueError: without a ticker, or if it is no binary market.
        ValueError: on an unusable number; the message names ticker, field and value.
    """
    ticker = _text(record, "ticker")
    if not ticker:
        raise VenueError(f"market without ticker: {str(dict(record))[:200]}")
    kind = _text(record, "market_type") or "binary"
    if kind != "binary":
        raise VenueError(f"{ticker} is of market_type {kind!r}, not binary")
    try:
        ranges = _price_ranges(record)
        volume, volume_24h, interest = (_count(record, name) for name in ("volume", "volume_24h", "open_interest"))
        liquidity_text = _text(record, "liquidity_dollars")
        liquidity = parse_fixed(liquidity_text, 6, "liquidity_dollars") if liquidity_text else None
        result = _result(record)
    except ValueError as error:
        raise ValueError(f"{ticker}: {error}") from error
    status = _text(record, "status")
    lot = SIZE_SCALE if record.get("fractional_trading_enabled") is False else _LOT
    rules = "\n\n".join(part for part in (_text(record, "rules_primary"), _text(record, "rules_secondary")) if part)
    title = _text(record, "title") or " ".join(
        part for part in (_text(event, "title"), _text(record, "yes_sub_title")) if part
    )
    timer = record.get("settlement_timer_seconds")
    series_id = _text(event, "series_ticker")
    return Market(
        venue="kalshi",
        market_id=ticker,
        event_id=_text(record, "event_ticker") or _text(event, "event_ticker"),
        series_id=series_id,
        title=title,
        yes_title=_text(record, "yes_sub_title"),
        no_title=_text(record, "no_sub_title"),
        slug=ticker.lower(),
        url=_url(series_id),
        # A word nobody knows is not taken for tradable.
        status=STATUSES.get(status, MarketStatus.PAUSED),
        venue_status=status,
        result=result,
        rules=rules,
        rules_sha256=rules_digest(rules),
        settlement_sources=sources,
        created_at=_time(record, "created_time"),
        updated_at=_time(record, "updated_time"),
        open_at=_time(record, "open_time"),
        close_at=_time(record, "close_time"),
        expected_expiration_at=_time(record, "expected_expiration_time"),
        occurrence_at=_time(record, "occurrence_datetime"),
        settlement_timer_s=timer if isinstance(timer, int) and not isinstance(timer, bool) else None,
        tick=_tick(record, ranges),
        price_ranges=ranges,
        min_size=lot,
        size_step=lot,
        fee_params=_fee_params(record, event, series),
        strike={
            **{name: event[name] for name in _EVENT_STRIKE_FIELDS if event.get(name) not in (None, "")},
            **{name: record[name] for name in _STRIKE_FIELDS if record.get(name) not in (None, "")},
        },
        volume=volume,
        volume_24h=volume_24h,
        open_interest=interest,
        liquidity=liquidity,
        last_trade_price=_text(record, "last_price_dollars"),
        raw=_json(record),
    )


def _fee_params(record: Record, event: Record, series: Record) -> dict[str, Any]:
    """Everything that :mod:`arb_pipeline.venues.kalshi.fees` reads; numbers as text."""
    given = {
        "fee_type": series.get("fee_type"),
        "fee_multiplier": series.get("fee_multiplier"),
        "fee_type_override": event.get("fee_type_override"),
        "fee_multiplier_override": event.get("fee_multiplier_override"),
        "fee_waiver_expiration_time": record.get("fee_waiver_expiration_time"),
    }
    return {name: str(value) for name, value in given.items() if value is not None and value != ""}


def _price_ranges(record: Record) -> tuple[PriceRange, ...]:
    ranges = []
    for band in _list(record, "price_ranges"):
        if not isinstance(band, Mapping):
            raise ValueError(f"price_ranges holds {band!r}, not an object")
        start, end, step = (parse_price(_text(band, name)) for name in ("start", "end", "step"))
        if step <= 0 or end < start:
            raise ValueError(f"price_ranges {dict(band)} is no band of prices")
        ranges.append(PriceRange(start=start, end=end, step=step))
    return tuple(ranges)


def _tick(record: Record, ranges: tuple[PriceRange, ...]) -> int:
    """The finest step; without ranges (null is allowed) that of the named structure, else a cent."""
    if ranges:
        return min(band.step for band in ranges)
    return _STRUCTURE_TICKS.get(_text(record, "price_level_structure"), _CENT_TICK)


def _result(record: Record) -> str:
    """``yes``, ``no``, the YES payout of a scalar result as a plain decimal, or empty."""
    result = _text(record, "result")
    if result != "scalar":
        return result
    value = _text(record, "settlement_value_dollars")
    return format_plain(parse_fixed(value, 6, "settlement_value_dollars"), 6) if value else ""


def _count(record: Record, name: str) -> int | None:
    """Contracts: ``<name>_fp`` text, before 2026-03-12 an integer ``<name>``."""
    text = _text(record, f"{name}_fp")
    if text:
        return parse_size(text)
    whole = record.get(name)
    return whole * SIZE_SCALE if isinstance(whole, int) and not isinstance(whole, bool) else None


def _sources(record: Record) -> tuple[SettlementSource, ...]:
    return tuple(
        SettlementSource(name=_text(source, "name"), url=_text(source, "url"))
        for source in _list(record, "settlement_sources")
        if isinstance(source, Mapping)
    )


def _text(record: Record, name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""


def _list(record: Record, name: str) -> list[Any]:
    value = record.get(name)
    return value if isinstance(value, list) else []


def _strings(record: Record, name: str) -> list[str]:
    return [value for value in _list(record, name) if isinstance(value, str)]


def _time(record: Record, name: str) -> datetime | None:
    """An aware time, None if absent, unreadable, or the venue's zero value 0001-01-01."""
    text = _text(record, name)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None and at.year > 1 else None


def _url(series_id: str) -> str:
    return f"https://kalshi.com/markets/{series_id.lower()}" if series_id else ""


def _json(record: Record) -> str:
    return msgspec.json.encode(record).decode()
