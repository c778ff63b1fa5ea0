"""A generated market on paper: propositions, the two venues' events about them, and their raw catalogue records.

A *proposition* is a fact with a key and a fair price. A Kalshi market's YES always is one; a Polymarket market's
first outcome is one or its opposite. Two markets of one proposition are a true pair, and nothing else is.
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from typing import Literal
from zoneinfo import ZoneInfo

from arb_pipeline.exchange.source import Json

__all__ = [
    "EASTERN",
    "Board",
    "KalshiDraft",
    "KalshiEventDraft",
    "NearMiss",
    "PolymarketDraft",
    "PolymarketEventDraft",
    "Series",
    "kalshi_event_fee_changes",
    "kalshi_records",
    "kalshi_series_fee_changes",
    "kalshi_series_records",
    "polymarket_records",
]

EASTERN = ZoneInfo("America/New_York")
_LISTED_AGO = timedelta(days=12)

Structure = Literal["linear_cent", "tapered_deci_cent", "deci_cent"]

PRICE_RANGES: dict[str, list[Json]] = {
    "linear_cent": [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
    "deci_cent": [{"start": "0.0000", "end": "1.0000", "step": "0.0010"}],
    "tapered_deci_cent": [
        {"start": "0.0000", "end": "0.1000", "step": "0.0010"},
        {"start": "0.1000", "end": "0.9000", "step": "0.0100"},
        {"start": "0.9000", "end": "1.0000", "step": "0.0010"},
    ],
}
"""Kalshi's price grids by name (docs.kalshi.com, price level structures)."""

FEES: dict[str, tuple[str, Fraction, Fraction]] = {
    "crypto": ("crypto_fees_v2", Fraction(7, 100), Fraction(20, 100)),
    "sports": ("sports_fees_v2", Fraction(5, 100), Fraction(15, 100)),
    "economics": ("economics_fees", Fraction(5, 100), Fraction(25, 100)),
    "culture": ("culture_fees", Fraction(5, 100), Fraction(25, 100)),
    "weather": ("weather_fees", Fraction(5, 100), Fraction(25, 100)),
    "politics": ("politics_fees", Fraction(4, 100), Fraction(25, 100)),
    "finance": ("finance_fees", Fraction(4, 100), Fraction(25, 100)),
}
"""Polymarket's fee type, taker rate and rebate by category (docs.polymarket.com, fees, state of October 2026)."""


@dataclass(frozen=True, slots=True)
class Series:
    """A Kalshi series."""

    ticker: str
    title: str
    category: str
    frequency: str = "custom"
    multiplier: float = 1
    source: tuple[str, str] | None = None
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class KalshiDraft:
    """A Kalshi market; YES is the proposition."""

    ticker: str
    proposition: str
    title: str
    yes_title: str
    rules: str
    rules_secondary: str = ""
    strike: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KalshiEventDraft:
    """A Kalshi event."""

    ticker: str
    series: str
    title: str
    sub_title: str
    close: datetime
    markets: tuple[KalshiDraft, ...]
    exclusive: bool = False
    occurrence: datetime | None = None
    listed_later: bool = False


@dataclass(frozen=True, slots=True)
class PolymarketDraft:
    """A Polymarket market; ``inverted`` when its first outcome is the proposition's opposite."""

    slug: str
    proposition: str
    question: str
    rules: str
    group_title: str = ""
    outcomes: tuple[str, str] = ("Yes", "No")
    inverted: bool = False
    extra: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolymarketEventDraft:
    """A Polymarket event."""

    slug: str
    title: str
    category: str
    end: datetime
    markets: tuple[PolymarketDraft, ...]
    neg_risk: bool = False
    source: str = ""
    tags: tuple[str, ...] = ()
    series: str = ""
    listed_later: bool = False


@dataclass(frozen=True, slots=True)
class NearMiss:
    """Two markets that look alike and are not: the trap's name and the true relation of the two YES."""

    kalshi: str
    polymarket: str
    trap: str
    relation: str


class Board:
    """Everything drafted so far."""

    def __init__(self, today: date) -> None:
        self.today = today
        self.fair: dict[str, int] = {}
        self.series: dict[str, Series] = {}
        self.kalshi: list[KalshiEventDraft] = []
        self.polymarket: list[PolymarketEventDraft] = []
        self.near_misses: list[NearMiss] = []

    def proposition(self, key: str, fair: float) -> str:
        """Declare a proposition with its fair price in dollars; a key known already keeps its price."""
        self.fair.setdefault(key, round(min(max(fair, 0.03), 0.97) * 10_000))
        return key

    def near_miss(self, kalshi: str, polymarket: str, trap: str, relation: str) -> None:
        """Declare a trap between a Kalshi ticker and a Polymarket market slug."""
        self.near_misses.append(NearMiss(kalshi, polymarket, trap, relation))


def digest(*parts: object) -> str:
    """64 hex digits that depend on the parts alone."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def uuid_text(*parts: object) -> str:
    """A UUID-shaped text that depends on the parts alone."""
    text = digest("uuid", *parts)
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}"


def instant(at: datetime) -> str:
    """RFC 3339 in UTC, seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listed_at(today: date) -> datetime:
    """When the generated markets were opened: well before today, at a fixed hour."""
    return datetime.combine(today - _LISTED_AGO, time(15), UTC)


# --- Kalshi ------------------------------------------------------------------------------------------------


def kalshi_series_records(board: Board) -> list[Json]:
    """Raw series; lists are null where the venue has none."""
    return [
        {
            "ticker": series.ticker,
            "title": series.title,
            "frequency": series.frequency,
            "category": series.category,
            "categories": [series.category],
            "tags": list(series.tags) if series.tags else None,
            "settlement_sources": _kalshi_sources(series),
            "contract_url": f"https://example.com/contracts/{series.ticker}.pdf",
            "contract_terms_url": f"https://example.com/terms/{series.ticker}.pdf",
            "fee_type": "quadratic",
            "fee_multiplier": series.multiplier,
            "additional_prohibitions": None,
            "product_metadata": None,
            "volume_fp": "0.00",
            "last_updated_ts": instant(listed_at(board.today)),
            "exchange_index": 0,
        }
        for series in board.series.values()
    ]


def kalshi_series_fee_changes(board: Board) -> list[Json]:
    """Raw changes of the series' fees: how each came by its multiplier, and dearer ones a month from now.

    None takes effect while the market is played.
    """
    today = listed_at(board.today) + _LISTED_AGO
    return [
        {
            "id": uuid_text("fee change", series.ticker, days),
            "series_ticker": series.ticker,
            "fee_type": fee_type,
            "fee_multiplier": multiplier,
            "scheduled_ts": instant(today + timedelta(days=days)),
        }
        for series in board.series.values()
        for days, fee_type, multiplier in (
            (-90, "quadratic", 1),
            (-30, "quadratic", series.multiplier),
            (30, "quadratic_with_maker_fees", 2),
        )
        if days > 0 or series.multiplier != 1
    ]


def kalshi_event_fee_changes(board: Board) -> list[Json]:
    """Raw changes of events' overrides: one in eight events was free for a day."""
    today = listed_at(board.today) + _LISTED_AGO
    return [
        {
            "id": uuid_text("fee override", event.ticker, days),
            "event_ticker": event.ticker,
            "series_ticker": event.series,
            "fee_type_override": fee_type,
            "fee_multiplier_override": multiplier,
            "scheduled_ts": instant(today + timedelta(days=days)),
        }
        for event in board.kalshi
        if digest("fee override", event.ticker)[0] in "01"
        for days, fee_type, multiplier in ((-10, "quadratic", 0), (-9, None, None))
    ]


def _kalshi_sources(series: Series) -> list[Json] | None:
    return [{"name": series.source[0], "url": series.source[1]}] if series.source else None


def kalshi_structure(fair: int, ticker: str) -> Structure:
    """Fine grids at the tails, as the venue has them; elsewhere mostly whole cents."""
    if fair <= 1_000 or fair >= 9_000:
        return "tapered_deci_cent"
    return "deci_cent" if digest("grid", ticker)[0] == "0" else "linear_cent"


def kalshi_records(board: Board) -> list[Json]:
    """Raw events with nested markets."""
    return [_kalshi_event(board, event) for event in board.kalshi]


def _kalshi_event(board: Board, event: KalshiEventDraft) -> Json:
    series = board.series[event.series]
    return {
        "event_ticker": event.ticker,
        "series_ticker": event.series,
        "title": event.title,
        "sub_title": event.sub_title,
        "collateral_return_type": "MECNET" if event.exclusive else "",
        "mutually_exclusive": event.exclusive,
        "settlement_sources": _kalshi_sources(series),
        "category": series.category,
        **({"strike_date": instant(event.occurrence)} if event.occurrence else {}),
        "strike_period": "",
        "product_metadata": None,
        "last_updated_ts": "0001-01-01T00:00:00Z",
        "fee_type_override": None,
        "fee_multiplier_override": None,
        "exchange_index": 0,
        "markets": [_kalshi_market(board, event, market) for market in event.markets],
    }


def _kalshi_market(board: Board, event: KalshiEventDraft, market: KalshiDraft) -> Json:
    created = listed_at(board.today)
    structure = kalshi_structure(board.fair[market.proposition], market.ticker)
    expected = (event.occurrence or event.close) + timedelta(hours=3)
    seed = int(digest("volume", market.ticker)[:8], 16)
    return {
        "ticker": market.ticker,
        "event_ticker": event.ticker,
        "market_type": "binary",
        "title": market.title,
        "yes_sub_title": market.yes_title,
        "no_sub_title": market.yes_title,
        "created_time": instant(created)[:-1] + f".{seed % 999_999:06d}Z",
        "updated_time": instant(created + timedelta(minutes=31)),
        "open_time": instant(created + timedelta(minutes=30)),
        "close_time": instant(event.close),
        "expected_expiration_time": instant(expected),
        "latest_expiration_time": instant(event.close + timedelta(days=7)),
        **({"occurrence_datetime": instant(event.occurrence)} if event.occurrence else {}),
        "settlement_timer_seconds": 1800,
        "status": "active",
        "result": "",
        "can_close_early": True,
        "early_close_condition": "This market will close and expire early once the outcome is known.",
        "is_provisional": False,
        "yes_bid_dollars": "0.0000",
        "yes_bid_size_fp": "0.00",
        "yes_ask_dollars": "1.0000",
        "yes_ask_size_fp": "0.00",
        "no_bid_dollars": "0.0000",
        "no_ask_dollars": "1.0000",
        "last_price_dollars": "0.0000",
        "previous_yes_bid_dollars": "0.0000",
        "previous_yes_ask_dollars": "1.0000",
        "previous_price_dollars": "0.0000",
        "volume_fp": f"{seed % 400_000}.{seed % 100:02d}",
        "volume_24h_fp": f"{seed % 9_000}.00",
        "open_interest_fp": f"{seed % 150_000}.50",
        "notional_value_dollars": "1.0000",
        "price_level_structure": structure,
        "price_ranges": PRICE_RANGES[structure],
        "expiration_value": "",
        "settlement_bounds_type": "default",
        **market.strike,
        "rules_primary": market.rules,
        "rules_secondary": market.rules_secondary,
        "exchange_index": 0,
    }


# --- Polymarket --------------------------------------------------------------------------------------------


def condition_id(slug: str) -> str:
    """A market's condition id: 32 bytes."""
    return "0x" + digest("condition", slug)


def token_ids(slug: str) -> tuple[str, str]:
    """A market's two position ids: decimal texts of about 77 digits."""
    return str(int(digest("token", slug, 0), 16)), str(int(digest("token", slug, 1), 16))


def polymarket_tick(fair: int, slug: str) -> int:
    """Tick in 1e-4 dollars: fine at the tails and in some of the others."""
    return 10 if fair <= 1_000 or fair >= 9_000 or digest("tick", slug)[0] in "012" else 100


def polymarket_records(board: Board) -> list[Json]:
    """Raw Gamma events with nested markets."""
    return [_polymarket_event(board, number, event) for number, event in enumerate(board.polymarket)]


def _polymarket_event(board: Board, number: int, event: PolymarketEventDraft) -> Json:
    created = listed_at(board.today)
    seed = int(digest("event", event.slug)[:8], 16)
    record: Json = {
        "id": str(600_000 + number),
        "ticker": event.slug,
        "slug": event.slug,
        "title": event.title,
        "description": event.markets[0].rules,
        "resolutionSource": event.source,
        "startDate": created.strftime("%Y-%m-%dT%H:%M:%S.") + f"{seed % 1_000_000:06d}Z",
        "creationDate": created.strftime("%Y-%m-%dT%H:%M:%S.") + f"{seed % 999:03d}Z",
        "endDate": instant(event.end),
        "active": True,
        "closed": False,
        "archived": False,
        "new": False,
        "featured": False,
        "restricted": True,
        "liquidity": (seed % 90_000) + 0.38771,
        "volume": (seed % 2_000_000) + 0.450208997,
        "openInterest": (seed % 60_000) + 0.5,
        "createdAt": created.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "updatedAt": created.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "competitive": 0.9,
        "volume24hr": (seed % 30_000) + 0.15,
        "enableOrderBook": True,
        "liquidityClob": (seed % 90_000) + 0.38771,
        "negRisk": event.neg_risk,
        "enableNegRisk": event.neg_risk,
        "negRiskAugmented": False,
        "commentCount": seed % 50,
        "cyom": False,
        "showAllOutcomes": True,
        "automaticallyActive": True,
        "requiresTranslation": False,
        "version": "v1",
        "tags": [
            {"id": str(100 + index), "label": label, "slug": label.lower().replace(" ", "-"), "forceShow": False}
            for index, label in enumerate(event.tags)
        ],
    }
    if event.neg_risk:
        record["negRiskMarketID"] = "0x" + digest("neg-risk", event.slug)[:62] + "00"
    if event.series:
        record["seriesSlug"] = event.series
        record["series"] = [
            {
                "id": str(int(digest("series", event.series)[:6], 16)),
                "ticker": event.series,
                "slug": event.series,
                "title": event.series.replace("-", " ").title(),
                "seriesType": "single",
                "recurrence": "daily",
                "active": True,
                "closed": False,
                "competitive": "0",
            }
        ]
    record["markets"] = [
        {"id": str(700_000 + number * 100 + index), "groupItemThreshold": str(index)}
        | _polymarket_market(board, event, record, market)
        for index, market in enumerate(event.markets)
    ]
    return record


def _polymarket_market(board: Board, event: PolymarketEventDraft, parent: Json, market: PolymarketDraft) -> Json:
    created = listed_at(board.today)
    seed = int(digest("market", market.slug)[:8], 16)
    fee_type, rate, rebate = FEES[event.category]
    fair = board.fair[market.proposition]
    volume = (seed % 900_000) + 0.5211650059
    record: Json = {
        "question": market.question,
        "conditionId": condition_id(market.slug),
        "slug": market.slug,
        "endDate": instant(event.end),
        "startDate": parent["startDate"],
        "description": market.rules,
        "resolutionSource": event.source,
        "outcomes": json.dumps(market.outcomes),
        "outcomePrices": json.dumps(["0.5", "0.5"]),
        "clobTokenIds": json.dumps(token_ids(market.slug)),
        "volume": repr(volume),
        "volumeNum": volume,
        "volume24hr": (seed % 9_000) + 0.9312699998,
        "volumeClob": volume,
        "liquidity": repr((seed % 70_000) + 0.35708),
        "liquidityNum": (seed % 70_000) + 0.35708,
        "liquidityClob": (seed % 70_000) + 0.35708,
        "active": True,
        "closed": False,
        "archived": False,
        "new": False,
        "featured": False,
        "restricted": True,
        "approved": True,
        "ready": False,
        "funded": False,
        "cyom": False,
        "marketMakerAddress": "",
        "createdAt": created.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "updatedAt": created.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "submitted_by": "0x" + digest("by", event.slug)[:40],
        "resolvedBy": "0x" + digest("adapter")[:40],
        "questionID": "0x" + digest("question", market.slug),
        "enableOrderBook": True,
        "acceptingOrders": True,
        "acceptingOrdersTimestamp": instant(created),
        "orderPriceMinTickSize": polymarket_tick(fair, market.slug) / 10_000,
        "orderMinSize": 5,
        "endDateIso": event.end.date().isoformat(),
        "startDateIso": created.date().isoformat(),
        "hasReviewedDates": True,
        "makerBaseFee": 1000,
        "takerBaseFee": 1000,
        "feesEnabled": True,
        "feeType": fee_type,
        "feeSchedule": {"exponent": 1, "rate": float(rate), "takerOnly": True, "rebateRate": float(rebate)},
        "negRisk": event.neg_risk,
        "negRiskOther": False,
        "umaBond": "500",
        "umaReward": "5",
        "umaResolutionStatuses": "[]",
        "customLiveness": 0,
        "rewardsMinSize": 0,
        "rewardsMaxSpread": 0,
        "clearBookOnStart": True,
        "automaticallyActive": True,
        "manualActivation": False,
        "pendingDeployment": False,
        "deploying": False,
        "rfqEnabled": False,
        "comboStatus": "disabled",
        "holdingRewardsEnabled": False,
        "requiresTranslation": False,
        "pagerDutyNotificationEnabled": False,
        "version": "v1",
        **({"groupItemTitle": market.group_title} if market.group_title else {}),
        **market.extra,
    }
    if event.neg_risk:
        record["negRiskMarketID"] = parent["negRiskMarketID"]
        record["negRiskRequestID"] = "0x" + digest("request", market.slug)
    return record
