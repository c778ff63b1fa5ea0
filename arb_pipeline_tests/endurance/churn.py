"""A generated market whose markets come and go: what a long capture has to follow."""

import heapq
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from arb_pipeline.exchange import GeneratedSource
from arb_pipeline.exchange.drafts import condition_id, token_ids
from arb_pipeline.exchange.source import Action, Closed, InitialBook, Json, LevelChange, Listed, TradePrint
from arb_pipeline.model import Side
from arb_pipeline.units import SIZE_SCALE

__all__ = ["Churn", "Passing"]

_SECOND = 1_000_000_000
_MOVE_NS = 2 * _SECOND
_BOOK = InitialBook(
    bids=((4_000, 50 * SIZE_SCALE), (3_900, 80 * SIZE_SCALE), (3_700, 200 * SIZE_SCALE)),
    asks=((4_300, 40 * SIZE_SCALE), (4_500, 90 * SIZE_SCALE), (4_800, 300 * SIZE_SCALE)),
    last_trade_price="0.400",
    clock=0,
)


class Passing(msgspec.Struct, frozen=True):
    """A market that is listed and closed while the exchange plays; times are ns of playback."""

    market_id: str
    listed_ns: int
    closed_ns: int


class Churn:
    """A generated source that can be ended, with passing markets of both venues in turn.

    Args:
        base: the market that stays.
        per_minute: so many markets are listed a minute, and as many closed; 0: none.
        minutes: how long; the catalogue holds all of them from the start, hidden.
        life_s: seconds between the listing of a market and its close.
    """

    live_quotes = True
    has_clock = True

    def __init__(
        self, base: GeneratedSource, per_minute: int = 0, minutes: float = 0.0, *, life_s: float = 30.0
    ) -> None:
        self.ended = False
        """Set it, and the timeline is over."""
        self._base = base
        self._life_ns = round(life_s * _SECOND)
        numbers = range(round(per_minute * minutes))
        self._kalshi = [_kalshi_event(base.kalshi_events()[0], number) for number in numbers[::2]]
        plain = next(event for event in base.polymarket_events() if not event["negRisk"])
        self._polymarket = [_polymarket_event(plain, number) for number in numbers[1::2]]
        ids = {number: event["markets"][0]["ticker"] for number, event in zip(numbers[::2], self._kalshi, strict=True)}
        ids |= {
            number: event["markets"][0]["conditionId"]
            for number, event in zip(numbers[1::2], self._polymarket, strict=True)
        }
        self.passing = [
            Passing(ids[number], listed := round(60 * _SECOND * (number + 1) / per_minute), listed + self._life_ns)
            for number in numbers
        ]

    @property
    def name(self) -> str:
        """``generated seed 7``, and what comes and goes."""
        return self._base.name + (f" with {len(self.passing)} passing markets" if self.passing else "")

    @property
    def hidden(self) -> frozenset[str]:
        """Markets that are listed only during playback."""
        return self._base.hidden | {market.market_id for market in self.passing}

    def clock_offset_ns(self, now_ns: int) -> int:
        """0: the market lives in the present."""
        return self._base.clock_offset_ns(now_ns)

    def kalshi_events(self) -> Sequence[Json]:
        """Raw Kalshi events."""
        return [*self._base.kalshi_events(), *self._kalshi]

    def kalshi_series(self) -> Sequence[Json]:
        """Raw Kalshi series."""
        return self._base.kalshi_series()

    def kalshi_fee_changes(self) -> tuple[Sequence[Json], Sequence[Json]]:
        """Raw changes of fees, past and announced."""
        return self._base.kalshi_fee_changes()

    def polymarket_events(self) -> Sequence[Json]:
        """Raw Gamma events."""
        return [*self._base.polymarket_events(), *self._polymarket]

    def books(self) -> Mapping[str, InitialBook]:
        """Books before playback."""
        return self._base.books() | {market.market_id: _BOOK for market in self.passing}

    def timeline(self) -> Iterator[tuple[int, Action]]:
        """Both timelines in one, up to the time at which ``ended`` is set."""
        lives = heapq.merge(*map(self._life, self.passing), key=_time) if self.passing else iter(())
        for item in heapq.merge(self._base.timeline(), lives, key=_time):
            if self.ended:
                return
            yield item

    def truth(self) -> Json:
        """What is true of the market that stays, and the passing markets."""
        return {**self._base.truth(), "passing": [msgspec.to_builtins(market) for market in self.passing]}

    def _life(self, market: Passing) -> Iterator[tuple[int, Action]]:
        """A market's listing, moves and trades, and its close with a result."""
        rng = random.Random(market.market_id)
        yield market.listed_ns, Listed(market.market_id)
        sides: tuple[Side, Side] = ("bid", "ask")
        for at in range(market.listed_ns + _MOVE_NS, market.closed_ns, _MOVE_NS):
            side = rng.choice(sides)
            price = rng.choice(_BOOK.bids if side == "bid" else _BOOK.asks)[0]
            yield at, LevelChange(market.market_id, side, price, rng.randint(1, 500) * SIZE_SCALE)
            if rng.random() < 0.2:
                yield at, TradePrint(market.market_id, price, SIZE_SCALE, "yes" if side == "ask" else "no")
        yield market.closed_ns, Closed(market.market_id, rng.choice(("yes", "no")))


def _time(item: tuple[int, Action]) -> int:
    return item[0]


def _kalshi_event(template: Json, number: int) -> Json:
    ticker = f"KXPASSING-{number:05d}"
    market: dict[str, Any] = {**template["markets"][0], "ticker": f"{ticker}-YES", "event_ticker": ticker}
    return {**template, "event_ticker": ticker, "title": f"Passing event {number}", "markets": [market]}


def _polymarket_event(template: Json, number: int) -> Json:
    slug = f"passing-{number}"
    market: dict[str, Any] = {
        **template["markets"][0],
        "id": str(9_000_000 + number),
        "slug": slug,
        "conditionId": condition_id(slug),
        "clobTokenIds": json.dumps(token_ids(slug)),
    }
    return {**template, "id": str(8_000_000 + number), "slug": f"{slug}-event", "ticker": slug, "markets": [market]}
