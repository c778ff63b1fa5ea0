"""How good the matches are: counts by kind and status, measured precision, agreement at settlement, alarms."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from arb_pipeline.matching.settlement import FamilyFigures, figures
from arb_pipeline.model import Market, MatchStatus, rules_digest

__all__ = [
    "Alarm",
    "Precision",
    "by_family",
    "changed_rules",
    "precision",
    "settlement_figures",
    "suspected_inversions",
]

STATUSES = tuple(status.value for status in MatchStatus)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Precision:
    """The newest measurement on labelled pairs: of what was called the same question, the share that is.

    Attributes:
        low, high: Wilson's 95 % interval of it.
    """

    family: str
    evaluated_at: datetime
    file: str
    called: int
    precision: float
    low: float
    high: float
    inversion_errors: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something about a pair that a person should look at."""

    kalshi_market_id: str
    polymarket_market_id: str
    status: str
    what: str


def by_family(matches: Sequence[Row]) -> list[tuple[str, Counter[str]]]:
    """Pairs by kind of question and status, the kinds with the most pairs that count or wait first."""
    counted: dict[str, Counter[str]] = {}
    for row in matches:
        counted.setdefault(row["family"] or "other", Counter())[row["status"]] += 1
    hopeful = (MatchStatus.AUTO, MatchStatus.APPROVED, MatchStatus.REVIEW)
    return sorted(counted.items(), key=lambda item: (-sum(item[1][status] for status in hopeful), item[0]))


def precision(evaluation: pa.Table) -> list[Precision]:
    """The newest measurement, of all questions first, then by kind; empty without one, or where nothing was called."""
    rows = evaluation.to_pylist()
    if not rows:
        return []
    newest = max(row["evaluated_at"] for row in rows)
    told: dict[str, dict[str, float]] = {}
    file = ""
    for row in rows:
        if row["evaluated_at"] == newest:
            told.setdefault(row["family"], {})[row["metric"]] = row["value"]
            file = row["file"]
    found = [
        Precision(
            family,
            newest,
            file,
            int(metrics["called"]),
            metrics["precision"],
            metrics["precision_low"],
            metrics["precision_high"],
            int(metrics["inversion_errors"]),
        )
        for family, metrics in told.items()
        if metrics.get("called")
    ]
    first = {"overall": 0, "held_out": 1}
    return sorted(found, key=lambda one: (first.get(one.family, 2), one.family))


def settlement_figures(agreement: pa.Table) -> list[FamilyFigures]:
    """Agreement of the resolved pairs that counted as arbitrage; empty without any."""
    rows = [row for row in agreement.to_pylist() if row["accepted"]]
    return figures(rows) if rows else []


def suspected_inversions(matches: Sequence[Row]) -> list[Alarm]:
    """Alarms that the matcher raised about pairs that count or wait."""
    wanted = (MatchStatus.AUTO, MatchStatus.APPROVED, MatchStatus.REVIEW)
    return [
        Alarm(row["kalshi_market_id"], row["polymarket_market_id"], row["status"], alarm)
        for row in matches
        if row["status"] in wanted
        for alarm in json.loads(row["explanation"]).get("alarms", ())
    ]


def changed_rules(matches: Sequence[Row], markets: Mapping[str, Market]) -> list[Alarm]:
    """Pairs that count or wait whose rules text is not the one that they were matched on any more."""
    wanted = (MatchStatus.AUTO, MatchStatus.APPROVED, MatchStatus.REVIEW)
    found = []
    for row in matches:
        changed = [
            venue.capitalize()
            for venue in ("kalshi", "polymarket")
            if (market := markets.get(row[f"{venue}_market_id"])) is not None
            and _digest(market) not in ("", row[f"{venue}_rules_sha256"])
        ]
        if row["status"] in wanted and changed:
            words = f"the rules on {' and '.join(changed)} have changed since"
            found.append(Alarm(row["kalshi_market_id"], row["polymarket_market_id"], row["status"], words))
    return found


def _digest(market: Market) -> str:
    return market.rules_sha256 or (rules_digest(market.rules) if market.rules else "")
