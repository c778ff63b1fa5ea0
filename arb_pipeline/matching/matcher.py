"""Proposes pairs of markets that ask the same, with reasons, and keeps the look-alikes that it refused.

Candidates come from text similarity and exact keys, typed facts veto, additive weights rank, and each market gets at
most one partner. Nothing computed is approved: a proposal waits for review until a person decides.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from arb_pipeline import tables
from arb_pipeline.matching import vetoes
from arb_pipeline.matching.candidates import Candidate, document, find_candidates
from arb_pipeline.matching.numbers import Interval
from arb_pipeline.matching.overrides import Decision, Overrides
from arb_pipeline.matching.overrides import Verdict as Decided
from arb_pipeline.matching.slots import Fact, Proposition, is_placeholder, propositions
from arb_pipeline.matching.text import words
from arb_pipeline.matching.vetoes import Comparison, Verdict
from arb_pipeline.model import Event, Market, MatchStatus, Relation, rules_digest

__all__ = ["MATCHER_VERSION", "Judgement", "Match", "MatchResult", "judge", "match"]

MATCHER_VERSION = "generic-1"
"""Rises with every change that may change a match."""

MIN_SCORE = 5.0
"""Weight of evidence below which a pair without a veto is still not proposed."""

_COSINE_WEIGHT = 0.2
_LOOK_ALIKES = 3
_MIN_LOOK_ALIKE = 0.3
_RIVALS = 3
_NOT_AN_EDGE = -1e6


@dataclass(frozen=True, slots=True)
class _Listed:
    """A market with its event and what it says."""

    event: Event
    market: Market
    propositions: tuple[Proposition, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """How two markets relate by their facts alone.

    Attributes:
        polymarket_yes_index: the Polymarket outcome that Kalshi's YES corresponds to.
        relation: equivalent or inverted where proposed, else related or different.
        reasons: why it is not proposed; empty where it is.
    """

    polymarket_yes_index: int
    relation: Relation
    score: float
    verdict: Verdict
    family: str
    reasons: tuple[str, ...]

    @property
    def proposed(self) -> bool:
        """Whether the facts propose the pair."""
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Match:
    """One row of the result."""

    kalshi_market_id: str
    polymarket_market_id: str
    polymarket_yes_index: int
    relation: Relation
    status: MatchStatus
    score: float
    family: str
    vetoes: tuple[str, ...]
    explanation: Mapping[str, Any]
    kalshi: Market = field(repr=False)
    polymarket: Market = field(repr=False)
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class MatchResult:
    """All statements of one run, ordered by Kalshi ticker and condition id.

    Attributes:
        absent: decisions whose market is in neither catalogue, so that no row stands for them.
    """

    matches: tuple[Match, ...]
    at: datetime
    absent: tuple[Decision, ...] = ()

    def matches_table(self) -> pa.Table:
        """Rows of ``market_matches``."""
        rows = [
            {
                "kalshi_market_id": item.kalshi_market_id,
                "polymarket_market_id": item.polymarket_market_id,
                "polymarket_yes_index": item.polymarket_yes_index,
                "relation": item.relation.value,
                "status": item.status.value,
                "score": item.score,
                "family": item.family,
                "vetoes": _json(list(item.vetoes)),
                "explanation": _json(item.explanation),
                "kalshi_rules_sha256": _digest(item.kalshi),
                "polymarket_rules_sha256": _digest(item.polymarket),
                "matcher_version": MATCHER_VERSION,
                "valid_from": self.at,
                "valid_to": None,
                "known_at": self.at,
            }
            for item in self.matches
        ]
        return pa.Table.from_pylist(rows, tables.table("market_matches").schema)

    def review_table(self) -> pa.Table:
        """Rows of ``match_review``: what waits for a person, best first."""
        waiting = sorted(
            (item for item in self.matches if item.status is MatchStatus.REVIEW),
            key=lambda item: (-item.score, item.kalshi_market_id, item.polymarket_market_id),
        )
        rows = [
            {
                "kalshi_market_id": item.kalshi_market_id,
                "polymarket_market_id": item.polymarket_market_id,
                "rank": rank,
                "relation": item.relation.value,
                "score": item.score,
                "kalshi_title": _full_title(item.kalshi),
                "polymarket_title": _full_title(item.polymarket),
                "kalshi_rules": item.kalshi.rules,
                "polymarket_rules": item.polymarket.rules,
                "explanation": _json(item.explanation),
            }
            for rank, item in enumerate(waiting, 1)
        ]
        return pa.Table.from_pylist(rows, tables.table("match_review").schema)


@dataclass(frozen=True, slots=True)
class _Edge:
    """A candidate that no cheap check rules out, compared in full."""

    candidate: Candidate
    judgement: Judgement
    score: float


def judge(kalshi_event: Event, kalshi: Market, polymarket_event: Event, polymarket: Market) -> Judgement:
    """Compare two markets by their facts, apart from any other market."""
    return _judge(_listed(kalshi_event, kalshi), _listed(polymarket_event, polymarket))


def match(kalshi: Sequence[Event], polymarket: Sequence[Event], overrides: Overrides, at: datetime) -> MatchResult:
    """Pair the markets of two catalogues.

    Args:
        kalshi: Kalshi's events with the markets to pair; what is given is paired, whatever its status.
        polymarket: Polymarket's, likewise.
        overrides: people's decisions; they stand whatever the facts say, as long as both rules texts are unchanged.
        at: when the result becomes known; it dates every row.

    Returns:
        Decided pairs, proposed pairs in status ``review``, and the nearest refused look-alikes in status
        ``rejected`` with their reasons. The same catalogues give the same result in any order.
    """
    left, right = _universe(kalshi), _universe(polymarket)
    decided, absent = _decided(left, right, overrides)
    pinned = {
        market_id for item in decided if item.status is not MatchStatus.REFUSED
        for market_id in (item.kalshi_market_id, item.polymarket_market_id)
    }  # fmt: skip
    refused = {(item.kalshi_market_id, item.polymarket_market_id) for item in decided}
    free_left = [item for item in left.values() if item.market.market_id not in pinned]
    free_right = [item for item in right.values() if item.market.market_id not in pinned]
    edges = _edges(free_left, free_right, refused)
    chosen = _assign([edge for edge in edges if edge.judgement.proposed])
    proposed, look_alikes = _statements(free_left, free_right, edges, chosen)
    rows = sorted(
        (*decided, *proposed, *look_alikes), key=lambda item: (item.kalshi_market_id, item.polymarket_market_id)
    )
    return MatchResult(tuple(rows), at, absent)


# --- steps --------------------------------------------------------------------------------------------------


def _listed(event: Event, market: Market) -> _Listed:
    return _Listed(event, market, propositions(event, market))


def _universe(events: Sequence[Event]) -> dict[str, _Listed]:
    """Markets by id in the order of their ids; placeholders and second mentions left out."""
    markets: dict[str, tuple[Event, Market]] = {}
    for event in sorted(events, key=lambda event: event.event_id):
        for market in event.markets:
            if not is_placeholder(market):
                markets.setdefault(market.market_id, (event, market))
    return {market_id: _listed(*markets[market_id]) for market_id in sorted(markets)}


def _decided(
    left: Mapping[str, _Listed], right: Mapping[str, _Listed], overrides: Overrides
) -> tuple[list[Match], tuple[Decision, ...]]:
    rows: list[Match] = []
    absent: list[Decision] = []
    for decision in overrides:
        kalshi, polymarket = left.get(decision.pair[0]), right.get(decision.pair[1])
        if kalshi is None or polymarket is None:
            absent.append(decision)
            continue
        rows.append(_decided_row(decision, kalshi, polymarket))
    return rows, tuple(absent)


def _decided_row(decision: Decision, kalshi: _Listed, polymarket: _Listed) -> Match:
    judgement = _judge(kalshi, polymarket)
    hashes = decision.rules_sha256
    changed = [
        venue
        for venue, market, read in (
            ("kalshi", kalshi.market, hashes.kalshi if hashes else ""),
            ("polymarket", polymarket.market, hashes.polymarket if hashes else ""),
        )
        if read and read != _digest(market)
    ]
    status = MatchStatus.REFUSED if decision.verdict is Decided.REJECTED else MatchStatus.APPROVED
    caveats = list(judgement.verdict.caveats)
    if changed:
        status = MatchStatus.REVIEW
        caveats.insert(0, f"rules_changed: {' and '.join(changed)} since {decision.at}")
    explanation = _explanation(kalshi, polymarket, judgement, caveats) | {
        "override": decision.model_dump(mode="json", exclude_defaults=True)
    }
    return Match(
        kalshi_market_id=decision.pair[0],
        polymarket_market_id=decision.pair[1],
        polymarket_yes_index=decision.polymarket.yes_token_index,
        relation=decision.verdict.relation,
        status=status,
        score=round(judgement.score, 6),
        family=judgement.family,
        vetoes=judgement.verdict.vetoes,
        explanation=explanation,
        kalshi=kalshi.market,
        polymarket=polymarket.market,
        decision=decision,
    )


def _edges(left: Sequence[_Listed], right: Sequence[_Listed], refused: set[tuple[str, str]]) -> list[_Edge]:
    candidates = find_candidates(
        [document(item.event, item.market, item.propositions) for item in left],
        [document(item.event, item.market, item.propositions) for item in right],
    )
    edges: list[_Edge] = []
    look_alikes: Counter[int] = Counter()
    for candidate in candidates:
        kalshi, polymarket = left[candidate.kalshi], right[candidate.polymarket]
        if (kalshi.market.market_id, polymarket.market.market_id) in refused:
            continue
        if _ruled_out(kalshi, polymarket):
            # Only the few most similar of them are kept, and need their reasons.
            if look_alikes[candidate.kalshi] >= _LOOK_ALIKES:
                continue
            look_alikes[candidate.kalshi] += 1
        judgement = _judge(kalshi, polymarket)
        edges.append(_Edge(candidate, judgement, judgement.score + _COSINE_WEIGHT * candidate.cosine))
    return edges


def _ruled_out(kalshi: _Listed, polymarket: _Listed) -> bool:
    slots, two_way = kalshi.propositions[0].slots, _two_way(kalshi.event, polymarket.event)
    return all(vetoes.ruled_out(slots, proposition.slots, two_way=two_way) for proposition in polymarket.propositions)


def _judge(kalshi: _Listed, polymarket: _Listed) -> Judgement:
    """The best reading over the Polymarket outcomes: each is a proposition of its own."""
    two_way = _two_way(kalshi.event, polymarket.event)
    best: Judgement | None = None
    for proposition in polymarket.propositions:
        slots = kalshi.propositions[0].slots
        verdict = vetoes.compare(slots, proposition.slots, two_way=two_way)
        index = proposition.index ^ int(verdict.complement)
        reasons = verdict.vetoes
        if not reasons and verdict.score < MIN_SCORE:
            reasons = (f"evidence: weight {verdict.score:.2f} is below {MIN_SCORE:.2f}",)
        if reasons:
            relation = Relation.RELATED if verdict.same_topic else Relation.DIFFERENT
        else:
            relation = Relation.INVERTED if index else Relation.EQUIVALENT
        family = slots.family if slots.family == proposition.slots.family else ""
        judgement = Judgement(index, relation, verdict.score, verdict, family, reasons)
        if best is None or _preference(judgement) > _preference(best):
            best = judgement
    assert best is not None
    return best


def _preference(judgement: Judgement) -> tuple[bool, bool, float]:
    return judgement.proposed, not judgement.verdict.vetoes, judgement.score


def _two_way(kalshi: Event, polymarket: Event) -> bool:
    """Whether Kalshi lists both sides of a contest and nothing else, and neither venue speaks of a draw."""
    if not kalshi.mutually_exclusive or len(kalshi.markets) != 2:
        return False
    answers = (market.yes_title for event in (kalshi, polymarket) for market in event.markets)
    return not any({"draw", "tie"} & words(text) for text in (kalshi.title, polymarket.title, *answers))


def _assign(edges: Sequence[_Edge]) -> set[tuple[int, int]]:
    """One partner a market: the assignment of greatest total score, component by component."""
    if not edges:
        return set()
    rows = sorted({edge.candidate.kalshi for edge in edges})
    columns = sorted({edge.candidate.polymarket for edge in edges})
    row_of = {value: position for position, value in enumerate(rows)}
    column_of = {value: position + len(rows) for position, value in enumerate(columns)}
    size = len(rows) + len(columns)
    ends = [(row_of[edge.candidate.kalshi], column_of[edge.candidate.polymarket]) for edge in edges]
    first, second = np.array(ends, dtype=np.intp).T
    graph = coo_matrix((np.ones(len(ends)), (first, second)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    components: dict[int, list[_Edge]] = defaultdict(list)
    for edge, (row, _) in zip(edges, ends, strict=True):
        components[int(labels[row])].append(edge)
    return {pair for component in components.values() for pair in _assign_component(component)}


def _assign_component(edges: Sequence[_Edge]) -> set[tuple[int, int]]:
    if len(edges) == 1:
        return {(edges[0].candidate.kalshi, edges[0].candidate.polymarket)}
    rows = sorted({edge.candidate.kalshi for edge in edges})
    columns = sorted({edge.candidate.polymarket for edge in edges})
    # One more column a row stands for "no partner", so that nobody is forced into a pair that is no edge.
    weights = np.full((len(rows), len(columns) + len(rows)), _NOT_AN_EDGE)
    weights[:, len(columns) :] = 0.0
    for edge in edges:
        weights[rows.index(edge.candidate.kalshi), columns.index(edge.candidate.polymarket)] = edge.score
    taken = linear_sum_assignment(weights, maximize=True)
    return {(rows[int(row)], columns[int(column)]) for row, column in zip(*taken, strict=True) if column < len(columns)}


def _statements(
    left: Sequence[_Listed], right: Sequence[_Listed], edges: Sequence[_Edge], chosen: set[tuple[int, int]]
) -> tuple[list[Match], list[Match]]:
    by_left: dict[int, list[_Edge]] = defaultdict(list)
    by_right: dict[int, list[_Edge]] = defaultdict(list)
    for edge in edges:
        by_left[edge.candidate.kalshi].append(edge)
        if edge.judgement.proposed:
            by_right[edge.candidate.polymarket].append(edge)
    proposed: list[Match] = []
    look_alikes: list[Match] = []
    for position, own in by_left.items():
        partner = next((edge for edge in own if (position, edge.candidate.polymarket) in chosen), None)
        if partner is not None:
            rivals = [
                edge
                for edge in (*own, *by_right[partner.candidate.polymarket])
                if edge.judgement.proposed and edge is not partner
            ]
            proposed.append(_proposed_row(left, right, partner, rivals))
        others = [edge for edge in own if edge is not partner and _looks_alike(edge)]
        look_alikes.extend(_refused_row(left, right, edge) for edge in others[:_LOOK_ALIKES])
    return proposed, look_alikes


def _looks_alike(edge: _Edge) -> bool:
    return edge.candidate.cosine >= _MIN_LOOK_ALIKE or edge.judgement.verdict.same_topic


def _proposed_row(left: Sequence[_Listed], right: Sequence[_Listed], edge: _Edge, rivals: Sequence[_Edge]) -> Match:
    kalshi, polymarket = left[edge.candidate.kalshi], right[edge.candidate.polymarket]
    best = sorted(rivals, key=lambda rival: (-rival.score, rival.candidate.kalshi, rival.candidate.polymarket))
    margin = edge.score - best[0].score if best else None
    caveats = list(edge.judgement.verdict.caveats)
    if margin is not None and margin <= 0:
        caveats.append("ambiguous: another pair of these markets scores as high")
    explanation = _explanation(kalshi, polymarket, edge.judgement, caveats) | {
        "rank": edge.candidate.rank,
        "cosine": round(edge.candidate.cosine, 4),
        "margin": None if margin is None else round(margin, 4),
        "rivals": [
            {
                "kalshi": left[rival.candidate.kalshi].market.market_id,
                "polymarket": right[rival.candidate.polymarket].market.market_id,
                "score": round(rival.score, 4),
            }
            for rival in best[:_RIVALS]
        ],
    }
    return _row(kalshi, polymarket, edge, explanation)


def _refused_row(left: Sequence[_Listed], right: Sequence[_Listed], edge: _Edge) -> Match:
    kalshi, polymarket = left[edge.candidate.kalshi], right[edge.candidate.polymarket]
    reasons, judgement = edge.judgement.reasons, edge.judgement
    if not reasons:
        reasons = ("one_to_one: a better partner was found for one of the two",)
        judgement = replace(judgement, relation=Relation.RELATED)
    explanation = _explanation(kalshi, polymarket, judgement, judgement.verdict.caveats) | {
        "rank": edge.candidate.rank,
        "cosine": round(edge.candidate.cosine, 4),
    }
    return _row(kalshi, polymarket, replace(edge, judgement=judgement), explanation, reasons)


def _row(
    kalshi: _Listed, polymarket: _Listed, edge: _Edge, explanation: Mapping[str, Any], reasons: tuple[str, ...] = ()
) -> Match:
    return Match(
        kalshi_market_id=kalshi.market.market_id,
        polymarket_market_id=polymarket.market.market_id,
        polymarket_yes_index=edge.judgement.polymarket_yes_index,
        relation=edge.judgement.relation,
        status=MatchStatus.REJECTED if reasons else MatchStatus.REVIEW,
        score=round(edge.score, 6),
        family=edge.judgement.family,
        vetoes=reasons,
        explanation=explanation,
        kalshi=kalshi.market,
        polymarket=polymarket.market,
    )


# --- explanation --------------------------------------------------------------------------------------------


def _explanation(kalshi: _Listed, polymarket: _Listed, judgement: Judgement, caveats: Sequence[str]) -> dict[str, Any]:
    return {
        "matcher": MATCHER_VERSION,
        "score": round(judgement.score, 4),
        "slots": [_line(comparison) for comparison in judgement.verdict.comparisons],
        "caveats": list(caveats),
        "rules": {"kalshi": _digest(kalshi.market), "polymarket": _digest(polymarket.market)},
    }


def _line(comparison: Comparison) -> dict[str, Any]:
    return {
        "slot": comparison.slot,
        "kalshi": _side(comparison.kalshi),
        "polymarket": _side(comparison.polymarket),
        "result": comparison.outcome.value,
        "weight": comparison.weight,
        **({"reason": comparison.reason} if comparison.reason else {}),
    }


def _side(fact: Fact[Any] | None) -> dict[str, str] | None:
    return None if fact is None else {"value": _shown(fact.value), "source": fact.source, "text": fact.text}


def _shown(value: object) -> str:
    if isinstance(value, frozenset):
        return ", ".join(sorted(_shown(item) for item in value))
    if isinstance(value, tuple):
        return " ".join(_shown(item) for item in value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | Interval):
        return str(value)
    return "" if value is None else str(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _digest(market: Market) -> str:
    return market.rules_sha256 or rules_digest(market.rules)


def _full_title(market: Market) -> str:
    return (
        f"{market.title} [{market.yes_title}]"
        if market.yes_title and market.yes_title not in market.title
        else market.title
    )
