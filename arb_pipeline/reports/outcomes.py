"""Events of several outcomes: what buying or selling all of them costs, on each venue and on the better of both."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.clock import datetime_from_ns

__all__ = ["BasketLeg", "EventSums", "basket_legs", "event_sums"]

_ONE = Decimal(1)
Row = Mapping[str, Any]
Top = tuple[Decimal | None, Decimal | None]
"""(best bid, best ask) for YES."""


@dataclass(frozen=True, slots=True)
class EventSums:
    """One event of one venue.

    Attributes:
        asks, bids: sums over its outcomes; None while one of them is missing.
        missing_asks, missing_bids: outcomes without one.
        both_asks: the same with the cheaper of both venues for every outcome that has an equivalent; None without any.
        as_of: receipt of the oldest of the quotes summed.
    """

    venue: str
    event_id: str
    title: str
    outcomes: int
    exclusive: bool
    exhaustive: bool
    why: str
    asks: Decimal | None
    bids: Decimal | None
    missing_asks: int
    missing_bids: int
    both_asks: Decimal | None
    paired: int
    as_of: datetime | None


def event_sums(outcome_sets: pa.Table, tops: pa.Table, pairs: Sequence[Pair]) -> list[EventSums]:
    """One row an event with at least one quote, first what would leave the most if only its outcomes allow it.

    Args:
        outcome_sets: one row an event.
        tops: the newest trusted quote of each market, rows of ``quotes``.
        pairs: equivalent and inverted ones say which outcomes of the two venues are the same.
    """
    quotes = {row["market_id"]: row for row in tops.to_pylist()}
    books: dict[str, Top] = {name: (row["bid"], row["ask"]) for name, row in quotes.items()}
    partners = _partners(pairs)
    found = []
    for row in outcome_sets.to_pylist():
        ids: list[str] = json.loads(row["market_ids"])
        seen = [quotes[name]["recv_ns"] for name in ids if name in quotes]
        if not seen:
            continue
        bids, asks = ([books.get(name, (None, None))[side] for name in ids] for side in (0, 1))
        other = [_other(books, partners.get(name)) for name in ids]
        both = [min((one for one in pair if one is not None), default=None) for pair in zip(asks, other, strict=True)]
        paired = sum(price is not None for price in other)
        found.append(
            EventSums(
                row["venue"],
                row["event_id"],
                row["title"],
                len(ids),
                row["exclusive"],
                row["exhaustive"],
                row["why"],
                _sum(asks),
                _sum(bids),
                sum(price is None for price in asks),
                sum(price is None for price in bids),
                _sum(both) if paired else None,
                paired,
                datetime_from_ns(min(seen)),
            )
        )
    return sorted(found, key=lambda one: (-_interest(one), one.venue, one.event_id))


@dataclass(frozen=True, slots=True)
class BasketLeg:
    """One leg of a basket, prices dollars."""

    venue: str
    market_id: str
    outcome: str
    vwap: Decimal | None
    limit: Decimal | None


def basket_legs(row: Row) -> list[BasketLeg]:
    """The legs of a row of ``basket_opportunities``."""
    return [
        BasketLeg(leg["venue"], leg["market_id"], leg["outcome"], _decimal(leg.get("vwap")), _decimal(leg.get("limit")))
        for leg in json.loads(row["legs"])
    ]


def _partners(pairs: Sequence[Pair]) -> dict[str, tuple[str, bool]]:
    """Of each market the one that asks the same on the other venue, and whether it asks it turned round."""
    found: dict[str, tuple[str, bool]] = {}
    for pair in pairs:
        if pair.relation.value in ("equivalent", "inverted"):
            kalshi, polymarket = pair.key
            found[kalshi] = polymarket, pair.inverted
            found[polymarket] = kalshi, pair.inverted
    return found


def _other(books: Mapping[str, Top], partner: tuple[str, bool] | None) -> Decimal | None:
    """What the proposition costs on the other venue."""
    if partner is None:
        return None
    bid, ask = books.get(partner[0], (None, None))
    if not partner[1]:
        return ask
    return None if bid is None else _ONE - bid


def _interest(one: EventSums) -> Decimal:
    """What buying all for a dollar, or selling all, would leave before fees where the event's outcomes allow it."""
    gains = [_ONE - price for price in (one.asks, one.both_asks) if one.exhaustive and price is not None]
    gains += [one.bids - _ONE] if one.exclusive and one.bids is not None else []
    return max(gains, default=Decimal("-Infinity"))


def _sum(prices: Sequence[Decimal | None]) -> Decimal | None:
    told = [price for price in prices if price is not None]
    return sum(told, Decimal(0)) if len(told) == len(prices) else None


def _decimal(value: object) -> Decimal | None:
    return None if value is None else Decimal(str(value))
