"""What became of it: pairs held to settlement, and orders sent after a latency."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from arb_pipeline.model import Relation

__all__ = ["Held", "LatencyFigures", "by_latency", "held_to_settlement"]

_ZERO, _ONE = Decimal(0), Decimal(1)


@dataclass(frozen=True, slots=True)
class Held:
    """An accepted opportunity whose two markets are settled, at its best size.

    Attributes:
        guaranteed: what it was said to pay at least, dollars: a dollar a contract.
        paid: what one contract of each leg came to, times the size. net: less the capital.
    """

    kalshi_market_id: str
    polymarket_market_id: str
    direction: str
    opened_at: datetime
    size: Decimal
    capital: Decimal
    guaranteed: Decimal
    paid: Decimal
    expected_net: Decimal
    kalshi_result: str
    polymarket_result: str

    @property
    def net(self) -> Decimal:
        """What was left."""
        return self.paid - self.capital

    @property
    def kept(self) -> bool:
        """Whether it paid what was guaranteed."""
        return self.paid >= self.guaranteed


@dataclass(frozen=True, slots=True)
class LatencyFigures:
    """Orders of one latency.

    Attributes:
        orders: sent; known: of which both books were known when they arrived. complete: both legs filled in full.
        fill_rate: contracts that both legs got by contracts ordered, of those known; None without any.
        net: of all of those known, what one leg got alone sold again.
        losses: how many of them lost money.
    """

    latency_ms: int
    orders: int
    known: int
    complete: int
    fill_rate: float | None
    net: Decimal
    losses: int


def held_to_settlement(opportunities: pa.Table, agreement: pa.Table) -> list[Held]:
    """The accepted opportunities of settled pairs, those that broke their promise first, then the newest.

    Args:
        opportunities: rows of ``opportunities``. agreement: rows of ``settlement_agreement``.
    """
    settled = {_pair(row): row for row in agreement.to_pylist()}
    found = []
    for row in opportunities.filter(opportunities["accepted"]).to_pylist():
        results = settled.get(_pair(row))
        if results is None or row["closed_at"] is None:
            continue
        size: Decimal = row["size"]
        found.append(
            Held(
                row["kalshi_market_id"],
                row["polymarket_market_id"],
                row["direction"],
                row["opened_at"],
                size,
                row["capital"],
                size,
                size * _payout(results, row["direction"]),
                row["net"],
                results["kalshi_result"],
                results["polymarket_result"],
            )
        )
    found.sort(key=lambda one: (one.opened_at, one.kalshi_market_id, one.polymarket_market_id), reverse=True)
    return sorted(found, key=lambda one: one.kept)


def by_latency(backtest: pa.Table) -> list[LatencyFigures]:
    """Figures by latency of rows of ``execution_backtest``, the shortest first."""
    by_ms: dict[int, list[Mapping[str, Any]]] = {}
    for row in backtest.to_pylist():
        by_ms.setdefault(row["latency_ms"], []).append(row)
    return [_figures(latency, by_ms[latency]) for latency in sorted(by_ms)]


def _figures(latency_ms: int, rows: list[Mapping[str, Any]]) -> LatencyFigures:
    known = [row for row in rows if row["net"] is not None]
    ordered = sum((row["size"] for row in known), _ZERO)
    matched = sum((row["matched"] for row in known), _ZERO)
    return LatencyFigures(
        latency_ms,
        len(rows),
        len(known),
        sum(row["matched"] == row["size"] for row in known),
        float(matched / ordered) if ordered else None,
        sum((row["net"] for row in known), _ZERO),
        sum(row["net"] < 0 for row in known),
    )


def _payout(results: Mapping[str, Any], direction: str) -> Decimal:
    """What one contract of each leg paid: the proposition on one venue, its opposite on the other."""
    kalshi, polymarket = _share(results["kalshi_result"]), _share(results["polymarket_result"])
    # The proposition of an inverted pair, and of an exclusive one, is Polymarket's NO.
    if (results["polymarket_yes_index"] == 1) != (results["relation"] == Relation.EXCLUSIVE):
        polymarket = _ONE - polymarket
    first, second = (kalshi, polymarket) if direction == "yes_kalshi" else (polymarket, kalshi)
    return first + _ONE - second


def _share(result: str) -> Decimal:
    return Decimal(result == "yes") if result in ("yes", "no") else Decimal(result)


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["kalshi_market_id"], row["polymarket_market_id"]
