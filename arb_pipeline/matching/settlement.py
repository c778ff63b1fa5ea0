"""Whether pairs settled as they were said to: ground truth that costs nothing.

A pair that both venues have resolved either kept what its relation promises or broke it. A broken promise of a pair
that counted as arbitrage is money lost, and the most valuable label there is.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa
from scipy.stats import beta

from arb_pipeline.matching.versions import current_matches, status_before_end
from arb_pipeline.model import MatchStatus, Relation
from arb_pipeline.storage.lake import Lake
from arb_pipeline.tables import table

__all__ = ["Agreement", "FamilyFigures", "Outcome", "compare", "figures", "settle", "unresolved"]

_log = logging.getLogger(__name__)

_TABLE = table("settlement_agreement")
_COMPARED: Final = frozenset(Relation) - {Relation.RELATED, Relation.DIFFERENT}
"""Relations that promise something about the two payouts."""
_ACCEPTED: Final = (MatchStatus.AUTO, MatchStatus.APPROVED)
_HELD: Final = (*_ACCEPTED, MatchStatus.REVIEW)

Row = Mapping[str, Any]
Key = tuple[str, str]
"""(venue, market id)."""


class Agreement(StrEnum):
    """How a resolved pair came out."""

    AGREED = "agreed"
    DISAGREED = "disagreed"
    VOID_SPLIT = "void_split"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A market's result and when it was first seen."""

    result: str
    seen_at: datetime


def compare(relation: Relation, polymarket_yes_index: int, kalshi: str, polymarket: str) -> tuple[Agreement, Decimal]:
    """How two results go with a relation, and what the proposition paid on Kalshi less what it paid on Polymarket.

    Where a market split its payout, the relation had nothing to say: such a state is its own answer, and the
    difference tells what it cost.

    Args:
        kalshi, polymarket: ``yes``, ``no`` or the YES share of a split (``0.5``), each of the venue's own YES.

    Raises:
        ValueError: on another result, or a relation that promises nothing.
    """
    ours, theirs = _payout(kalshi), _payout(polymarket)
    if polymarket_yes_index:
        theirs = 1 - theirs
    difference = ours - theirs
    kept = {
        Relation.EQUIVALENT: difference == 0,
        Relation.INVERTED: difference == 0,
        Relation.KALSHI_IMPLIES_POLYMARKET: difference <= 0,
        Relation.POLYMARKET_IMPLIES_KALSHI: difference >= 0,
        Relation.EXCLUSIVE: ours + theirs <= 1,
    }
    if relation not in kept:
        raise ValueError(f"relation {relation.value!r} promises nothing about two results")
    if not {ours, theirs} <= {Decimal(0), Decimal(1)}:
        return Agreement.VOID_SPLIT, difference
    return Agreement.AGREED if kept[relation] else Agreement.DISAGREED, difference


def settle(lake: Lake, at: datetime) -> pa.Table:
    """Rows of ``settlement_agreement``: every pair that is over, was not ruled out, and is resolved on both venues.

    Results come from ``market_history``. A row keeps the time at which it was first known while it stays the same.
    """
    pairs = _over(lake)
    outcomes = _outcomes(lake, pairs)
    known = {_pair(row): row for row in lake.current(_TABLE).to_pylist()}
    rows = []
    for pair in pairs:
        kalshi = outcomes.get(("kalshi", pair["kalshi_market_id"]))
        polymarket = outcomes.get(("polymarket", pair["polymarket_market_id"]))
        if kalshi is None or polymarket is None:
            continue
        try:
            row = _row(pair, kalshi, polymarket, at)
        except ValueError as error:
            _log.warning("%s with %s is not compared: %s", *_pair(pair), error)
            continue
        before = known.get(_pair(row))
        if before is not None and {**before, "known_at": at} == row:
            row = before
        rows.append(row)
    return pa.Table.from_pylist(rows, _TABLE.schema)


def unresolved(lake: Lake, since: datetime) -> dict[str, list[str]]:
    """Markets, by venue, without a result so far, of pairs that ended at ``since`` or later; newest first."""
    pairs = sorted(
        (pair for pair in _over(lake) if pair["valid_from"] >= since), key=lambda row: row["valid_from"], reverse=True
    )
    outcomes = _outcomes(lake, pairs)
    return {
        venue: list(dict.fromkeys(pair[name] for pair in pairs if (venue, pair[name]) not in outcomes))
        for venue, name in (("kalshi", "kalshi_market_id"), ("polymarket", "polymarket_market_id"))
    }


@dataclass(frozen=True, slots=True)
class FamilyFigures:
    """Agreement of the same-question pairs of one kind of question, splits left out.

    Attributes:
        bound: a share of disagreement that the truth exceeds with a chance of at most 5 % (one-sided, exact).
    """

    family: str
    resolved: int
    agreed: int
    split: int
    bound: float

    @property
    def rate(self) -> float | None:
        """Share that agreed; None where nothing but splits is known."""
        return self.agreed / self.resolved if self.resolved else None


def figures(rows: Iterable[Row]) -> list[FamilyFigures]:
    """Figures by kind of question (``overall`` first) over rows of ``settlement_agreement``."""
    verdicts: dict[str, Counter[str]] = {"overall": Counter()}
    for row in rows:
        for family in ("overall", row["family"] or "other"):
            verdicts.setdefault(family, Counter())[row["verdict"]] += 1
    return [_figures(family, verdicts[family]) for family in ["overall", *sorted(set(verdicts) - {"overall"})]]


def _figures(family: str, counted: Counter[str]) -> FamilyFigures:
    agreed, wrong = counted[Agreement.AGREED], counted[Agreement.DISAGREED]
    bound = float(beta.ppf(0.95, wrong + 1, agreed)) if agreed else 1.0
    return FamilyFigures(family, agreed + wrong, agreed, counted[Agreement.VOID_SPLIT], bound)


def _over(lake: Lake) -> list[Row]:
    return [
        row
        for row in current_matches(lake).to_pylist()
        if row["status"] == MatchStatus.EXPIRED
        and Relation(row["relation"]) in _COMPARED
        and status_before_end(row) in _HELD
    ]


def _outcomes(lake: Lake, pairs: Iterable[Row]) -> dict[Key, Outcome]:
    """The newest result of each market, with the first sight of it."""
    ids = {pair[name] for pair in pairs for name in ("kalshi_market_id", "polymarket_market_id")}
    if not ids:
        return {}
    columns = ("venue", "market_id", "result", "valid_from")
    history = lake.read("market_history", markets=ids, columns=columns).sort_by("valid_from")
    found: dict[Key, Outcome] = {}
    for row in history.to_pylist():
        key = row["venue"], row["market_id"]
        if not row["result"]:
            found.pop(key, None)
        elif key not in found or found[key].result != row["result"]:
            found[key] = Outcome(row["result"], row["valid_from"])
    return found


def _row(pair: Row, kalshi: Outcome, polymarket: Outcome, at: datetime) -> dict[str, Any]:
    verdict, difference = compare(
        Relation(pair["relation"]), pair["polymarket_yes_index"], kalshi.result, polymarket.result
    )
    status = status_before_end(pair)
    return {
        "kalshi_market_id": pair["kalshi_market_id"],
        "polymarket_market_id": pair["polymarket_market_id"],
        "polymarket_yes_index": pair["polymarket_yes_index"],
        "relation": pair["relation"],
        "status": status,
        "accepted": status in _ACCEPTED,
        "family": pair["family"],
        "kalshi_result": kalshi.result,
        "polymarket_result": polymarket.result,
        "verdict": verdict.value,
        "difference": round(difference, 4),
        "kalshi_resolved_at": kalshi.seen_at,
        "polymarket_resolved_at": polymarket.seen_at,
        "known_at": at,
    }


def _payout(result: str) -> Decimal:
    if result in {"yes", "no"}:
        return Decimal(result == "yes")
    try:
        share = Decimal(result)
        if 0 <= share <= 1:
            return share
    except InvalidOperation:
        pass
    raise ValueError(f"result {result!r} is neither yes nor no nor a share of 1")


def _pair(row: Row) -> tuple[str, str]:
    return row["kalshi_market_id"], row["polymarket_market_id"]
