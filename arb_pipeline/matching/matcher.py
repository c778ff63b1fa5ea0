"""Pairs markets that ask the same, with reasons, and keeps the look-alikes that it refused.

Candidates come from text similarity and exact keys, typed facts decide how two questions relate, additive weights rank,
and each market gets at most one partner. A pair of which nothing is left open is accepted by itself (``auto``), any
other waits for a person. One question that implies another is a relation of its own, never a pair.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import count
from typing import Any

import pyarrow as pa

from arb_pipeline import tables
from arb_pipeline.matching import vetoes
from arb_pipeline.matching.acceptance import alarms, blockers
from arb_pipeline.matching.alignment import EventAlignment, align_events, exhaustiveness
from arb_pipeline.matching.assignment import assign
from arb_pipeline.matching.candidates import Candidate, Document, document, find_candidates
from arb_pipeline.matching.explanation import comparison_line
from arb_pipeline.matching.families import family_named, propositions
from arb_pipeline.matching.overrides import Decision, Overrides
from arb_pipeline.matching.overrides import Verdict as Decided
from arb_pipeline.matching.relations import IMPLICATIONS, MIN_SCORE, SAME, relate
from arb_pipeline.matching.rules import RulesDiff, compare_rules
from arb_pipeline.matching.slots import Proposition, Slots, is_placeholder
from arb_pipeline.matching.text import words
from arb_pipeline.matching.vetoes import Verdict
from arb_pipeline.model import Event, Market, MatchStatus, Relation, rules_digest

__all__ = ["MATCHER_VERSION", "MIN_SCORE", "Judgement", "Match", "MatchResult", "Memory", "judge", "match"]

MATCHER_VERSION = "families-4"
"""Rises with every change that may change a match."""

_COSINE_WEIGHT = 0.2
_ALIGNED_WEIGHT = 0.25
_STRAIGHT_WEIGHT = 0.05
_LOOK_ALIKES = 3
_MIN_LOOK_ALIKE = 0.3
_RIVALS = 3
_IMPLIED = 5


@dataclass(frozen=True, slots=True)
class _Listed:
    """A market with its event, what it says, what it is found by, and the number of its content in a memory."""

    event: Event
    market: Market
    propositions: tuple[Proposition, ...]
    document: Document
    number: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """How two markets relate by their facts alone.

    Attributes:
        polymarket_yes_index: the Polymarket outcome that Kalshi's YES corresponds to.
        relation: of Kalshi's YES to Polymarket's first outcome.
        family: the kind of question that both are, empty where they are of two kinds or of none that is known.
        reasons: why it is not the same question; empty where it is.
        rules: the comparison of the rules texts, None where nothing is proposed.
        blockers: what keeps the pair from being accepted without a person.
    """

    polymarket_yes_index: int
    relation: Relation
    score: float
    verdict: Verdict
    family: str
    reasons: tuple[str, ...]
    rules: RulesDiff | None = None
    blockers: tuple[str, ...] = ()

    @property
    def proposed(self) -> bool:
        """Whether the facts propose the pair as one question."""
        return self.relation in SAME

    @property
    def implied(self) -> bool:
        """Whether one of the two questions implies the other."""
        return self.relation in IMPLICATIONS


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
        events: events of the two venues that are about one occasion.
    """

    matches: tuple[Match, ...]
    at: datetime
    absent: tuple[Decision, ...] = ()
    events: tuple[EventAlignment, ...] = ()

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

    @property
    def pair(self) -> tuple[int, int]:
        """Positions of the two markets."""
        return self.candidate.kalshi, self.candidate.polymarket


class Memory:
    """What was read and judged before, so that a next run costs what is new or changed.

    Keyed by content: a market or event of which anything changed is read anew, so a run with a memory gives the same
    as a run without. What the last run did not use is forgotten.
    """

    def __init__(self) -> None:
        self._listed: dict[_Content, _Listed] = {}
        self._judged: dict[tuple[int, int], Judgement] = {}
        self._used_listed: dict[_Content, _Listed] = {}
        self._used_judged: dict[tuple[int, int], Judgement] = {}
        self._numbers = count(1)
        self.read = 0
        self.compared = 0

    def begin(self) -> None:
        """Start a run: forget what the last one did not use."""
        self._listed, self._used_listed = self._used_listed, {}
        self._judged, self._used_judged = self._used_judged, {}
        self.read = self.compared = 0

    def listed(self, event: Event, market: Market) -> _Listed:
        """The market as read, now or before."""
        content = *_event_content(event), *_market_content(market)
        found = self._listed.get(content)
        if found is None:
            found = _listed(event, market, next(self._numbers))
            self.read += 1
        elif found.market is not market:
            found = replace(found, event=event, market=market)
        self._used_listed[content] = found
        return found

    def judged(self, kalshi: _Listed, polymarket: _Listed) -> Judgement:
        """The pair as judged, now or before."""
        pair = kalshi.number, polymarket.number
        found = self._judged.get(pair)
        if found is None:
            found = _judge(kalshi, polymarket)
            self.compared += 1
        self._used_judged[pair] = found
        return found


_Content = tuple[object, ...]


def _market_content(market: Market) -> _Content:
    """What a judgement rests on; prices and volumes change all the time and decide nothing."""
    return (
        market.market_id, market.title, market.yes_title, market.outcomes, market.rules, repr(market.strike),
        market.occurrence_at, market.expected_expiration_at, market.close_at, market.created_at, market.open_at,
    )  # fmt: skip


def _event_content(event: Event) -> _Content:
    answers = tuple((market.market_id, market.yes_title) for market in event.markets)
    return (
        event.event_id, event.title, event.sub_title, event.mutually_exclusive, event.start_at, event.end_at, answers,
    )  # fmt: skip


def judge(kalshi_event: Event, kalshi: Market, polymarket_event: Event, polymarket: Market) -> Judgement:
    """Compare two markets by their facts, apart from any other market."""
    return _judge(_listed(kalshi_event, kalshi), _listed(polymarket_event, polymarket))


def match(
    kalshi: Sequence[Event],
    polymarket: Sequence[Event],
    overrides: Overrides,
    at: datetime,
    memory: Memory | None = None,
) -> MatchResult:
    """Pair the markets of two catalogues.

    Args:
        kalshi: Kalshi's events with the markets to pair; what is given is paired, whatever its status.
        polymarket: Polymarket's, likewise.
        overrides: people's decisions; they stand whatever the facts say, as long as both rules texts are unchanged.
        at: when the result becomes known; it dates every row.
        memory: of earlier runs; the result is the same with and without.

    Returns:
        Decided pairs, pairs accepted in status ``auto`` or proposed in status ``review``, implications in status
        ``review``, and the nearest refused look-alikes in status ``rejected`` with their reasons. The same catalogues
        give the same result in any order.
    """
    memory = memory or Memory()
    memory.begin()
    left, right = _universe(kalshi, memory), _universe(polymarket, memory)
    decided, absent = _decided(left, right, overrides, memory)
    pinned = {
        market_id for item in decided if item.status is not MatchStatus.REFUSED
        for market_id in (item.kalshi_market_id, item.polymarket_market_id)
    }  # fmt: skip
    refused = {(item.kalshi_market_id, item.polymarket_market_id) for item in decided}
    free_left = [item for item in left.values() if item.market.market_id not in pinned]
    free_right = [item for item in right.values() if item.market.market_id not in pinned]
    edges = _edges(free_left, free_right, refused, memory)
    weights = {edge.pair: edge.score for edge in edges if edge.judgement.proposed}
    occasions = align_events(
        [item.event.event_id for item in free_left], [item.event.event_id for item in free_right], weights
    )
    inside = {
        (row, column)
        for row, column in weights
        if occasions.get(free_left[row].event.event_id, ("", 0))[0] == free_right[column].event.event_id
    }
    # Among equals the market of the event that is about the same occasion is the partner, and of a contest's two sides
    # the one that Polymarket lists first.
    straight = {edge.pair for edge in edges if not edge.judgement.polymarket_yes_index}
    chosen = assign(
        {
            pair: weight + _ALIGNED_WEIGHT * (pair in inside) + _STRAIGHT_WEIGHT * (pair in straight)
            for pair, weight in weights.items()
        }
    )
    proposed, others = _statements(free_left, free_right, edges, chosen)
    rows = sorted((*decided, *proposed, *others), key=lambda item: (item.kalshi_market_id, item.polymarket_market_id))
    return MatchResult(tuple(rows), at, absent, _alignments(free_left, free_right, chosen))


# --- steps --------------------------------------------------------------------------------------------------


def _listed(event: Event, market: Market, number: int = 0) -> _Listed:
    found = propositions(event, market)
    return _Listed(event, market, found, document(event, market, found), number)


def _universe(events: Sequence[Event], memory: Memory) -> dict[str, _Listed]:
    """Markets by id in the order of their ids; placeholders and second mentions left out."""
    markets: dict[str, tuple[Event, Market]] = {}
    for event in sorted(events, key=lambda event: event.event_id):
        for market in event.markets:
            if not is_placeholder(market):
                markets.setdefault(market.market_id, (event, market))
    return {market_id: memory.listed(*markets[market_id]) for market_id in sorted(markets)}


def _decided(
    left: Mapping[str, _Listed], right: Mapping[str, _Listed], overrides: Overrides, memory: Memory
) -> tuple[list[Match], tuple[Decision, ...]]:
    rows: list[Match] = []
    absent: list[Decision] = []
    for decision in overrides:
        kalshi, polymarket = left.get(decision.pair[0]), right.get(decision.pair[1])
        if kalshi is None or polymarket is None:
            absent.append(decision)
            continue
        rows.append(_decided_row(decision, kalshi, polymarket, memory.judged(kalshi, polymarket)))
    return rows, tuple(absent)


def _decided_row(decision: Decision, kalshi: _Listed, polymarket: _Listed, judgement: Judgement) -> Match:
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


def _edges(
    left: Sequence[_Listed], right: Sequence[_Listed], refused: set[tuple[str, str]], memory: Memory
) -> list[_Edge]:
    candidates = find_candidates([item.document for item in left], [item.document for item in right])
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
        judgement = memory.judged(kalshi, polymarket)
        edges.append(_Edge(candidate, judgement, judgement.score + _COSINE_WEIGHT * candidate.cosine))
    return edges


def _ruled_out(kalshi: _Listed, polymarket: _Listed) -> bool:
    slots, two_way = kalshi.propositions[0].slots, _two_way(kalshi.event, polymarket.event)
    return all(vetoes.ruled_out(slots, proposition.slots, two_way=two_way) for proposition in polymarket.propositions)


def _judge(kalshi: _Listed, polymarket: _Listed) -> Judgement:
    """The best reading over the Polymarket outcomes: each is a proposition of its own."""
    two_way = _two_way(kalshi.event, polymarket.event)
    slots = kalshi.propositions[0].slots
    best: tuple[Judgement, Slots] | None = None
    for proposition in polymarket.propositions:
        verdict = vetoes.compare(slots, proposition.slots, two_way=two_way)
        index = proposition.index ^ int(verdict.complement)
        relation, reasons = relate(verdict, slots, proposition.slots, index)
        family = slots.family if slots.family == proposition.slots.family else ""
        judgement = Judgement(index, relation, verdict.score, verdict, family, reasons)
        if best is None or _preference(judgement) > _preference(best[0]):
            best = judgement, proposition.slots
    assert best is not None
    return _with_rules(kalshi.market, polymarket.market, slots, best[1], best[0])


def _with_rules(kalshi: Market, polymarket: Market, first: Slots, second: Slots, judgement: Judgement) -> Judgement:
    if not judgement.proposed and not judgement.implied:
        return judgement
    contests = (family_named(slots.family) for slots in (first, second))
    contest = first.game is not None or second.game is not None or any(one and one.contest for one in contests)
    index = judgement.polymarket_yes_index
    diff = compare_rules(kalshi, polymarket, first, second, contest=contest, index=index)
    if not judgement.proposed:
        return replace(judgement, rules=diff)
    found = blockers((kalshi, polymarket), (first, second), judgement.verdict, diff)
    return replace(judgement, rules=diff, blockers=found)


def _preference(judgement: Judgement) -> tuple[bool, bool, bool, float]:
    return judgement.proposed, judgement.implied, not judgement.verdict.vetoes, judgement.score


def _two_way(kalshi: Event, polymarket: Event) -> bool:
    """Whether Kalshi lists both sides of a contest and nothing else, and neither venue speaks of a draw."""
    if not kalshi.mutually_exclusive or len(kalshi.markets) != 2:
        return False
    answers = (market.yes_title for event in (kalshi, polymarket) for market in event.markets)
    return not any({"draw", "tie"} & words(text) for text in (kalshi.title, polymarket.title, *answers))


def _alignments(
    left: Sequence[_Listed], right: Sequence[_Listed], chosen: set[tuple[int, int]]
) -> tuple[EventAlignment, ...]:
    """Pairs of events with their answers side by side, as the chosen pairs of markets join them."""
    joined = Counter((left[row].event.event_id, right[column].event.event_id) for row, column in chosen)
    groups: tuple[dict[str, list[_Listed]], dict[str, list[_Listed]]] = (defaultdict(list), defaultdict(list))
    for side, group in zip((left, right), groups, strict=True):
        for item in side:
            group[item.event.event_id].append(item)
    found = []
    for (first, second), pairs in sorted(joined.items()):
        ours, theirs = groups[0][first], groups[1][second]
        if len(ours) < 2 or len(theirs) < 2:
            continue
        found.append(
            EventAlignment(
                first, second, pairs, len(ours) - pairs, len(theirs) - pairs,
                exhaustiveness(ours[0].event, [item.propositions[0] for item in ours]),
                exhaustiveness(theirs[0].event, [item.propositions[0] for item in theirs]),
            )
        )  # fmt: skip
    return tuple(found)


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
    others: list[Match] = []
    for own in by_left.values():
        partner = next((edge for edge in own if edge.pair in chosen), None)
        if partner is not None:
            rivals = [
                edge
                for edge in (*own, *by_right[partner.candidate.polymarket])
                if edge.judgement.proposed and edge is not partner and not _other_side(left, edge, partner)
            ]
            proposed.append(_proposed_row(left, right, partner, rivals))
        implied = sorted((edge for edge in own if edge.judgement.implied), key=lambda edge: -edge.score)[:_IMPLIED]
        others.extend(_implied_row(left, right, edge) for edge in implied)
        alike = [edge for edge in own if edge is not partner and edge not in implied and _looks_alike(edge)]
        others.extend(_refused_row(left, right, edge) for edge in alike[:_LOOK_ALIKES])
    return proposed, others


def _other_side(left: Sequence[_Listed], edge: _Edge, partner: _Edge) -> bool:
    """Whether an edge says the same of a contest from its other side, which is no rival."""
    ours, theirs = left[edge.candidate.kalshi].event, left[partner.candidate.kalshi].event
    return (
        edge.candidate.polymarket == partner.candidate.polymarket
        and ours.event_id == theirs.event_id
        and edge.judgement.polymarket_yes_index != partner.judgement.polymarket_yes_index
    )


def _looks_alike(edge: _Edge) -> bool:
    return edge.candidate.cosine >= _MIN_LOOK_ALIKE or edge.judgement.verdict.same_topic


def _proposed_row(left: Sequence[_Listed], right: Sequence[_Listed], edge: _Edge, rivals: Sequence[_Edge]) -> Match:
    kalshi, polymarket = left[edge.candidate.kalshi], right[edge.candidate.polymarket]
    best = sorted(rivals, key=lambda rival: (-rival.score, *rival.pair))
    margin = edge.score - best[0].score if best else None
    caveats = list(edge.judgement.verdict.caveats)
    open_points = list(edge.judgement.blockers)
    if margin is not None and margin <= 0:
        caveats.append("ambiguous: another pair of these markets scores as high")
        open_points.append("assignment: another pair of these markets scores as high")
    explanation = _explanation(kalshi, polymarket, edge.judgement, caveats) | {
        "open": open_points,
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
    return _row((kalshi, polymarket), edge, explanation, MatchStatus.REVIEW if open_points else MatchStatus.AUTO)


def _implied_row(left: Sequence[_Listed], right: Sequence[_Listed], edge: _Edge) -> Match:
    kalshi, polymarket = left[edge.candidate.kalshi], right[edge.candidate.polymarket]
    explanation = _explanation(kalshi, polymarket, edge.judgement, edge.judgement.verdict.caveats) | {
        "rank": edge.candidate.rank,
        "cosine": round(edge.candidate.cosine, 4),
    }
    return _row((kalshi, polymarket), edge, explanation, MatchStatus.REVIEW, edge.judgement.reasons)


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
    refused = replace(edge, judgement=judgement)
    return _row((kalshi, polymarket), refused, explanation, MatchStatus.REJECTED, reasons)


def _row(
    sides: tuple[_Listed, _Listed],
    edge: _Edge,
    explanation: Mapping[str, Any],
    status: MatchStatus,
    reasons: tuple[str, ...] = (),
) -> Match:
    kalshi, polymarket = sides
    return Match(
        kalshi_market_id=kalshi.market.market_id,
        polymarket_market_id=polymarket.market.market_id,
        polymarket_yes_index=edge.judgement.polymarket_yes_index,
        relation=edge.judgement.relation,
        status=status,
        score=round(edge.score, 6),
        family=edge.judgement.family,
        vetoes=reasons,
        explanation=explanation,
        kalshi=kalshi.market,
        polymarket=polymarket.market,
    )


# --- explanation --------------------------------------------------------------------------------------------


def _explanation(kalshi: _Listed, polymarket: _Listed, judgement: Judgement, caveats: Sequence[str]) -> dict[str, Any]:
    told = alarms(kalshi.market, polymarket.market, inverted=judgement.polymarket_yes_index == 1)
    return {
        "matcher": MATCHER_VERSION,
        "family": judgement.family,
        "score": round(judgement.score, 4),
        "slots": [comparison_line(comparison) for comparison in judgement.verdict.comparisons],
        "caveats": list(caveats),
        "rules": {"kalshi": _digest(kalshi.market), "polymarket": _digest(polymarket.market)},
        **({"alarms": list(told)} if told and judgement.proposed else {}),
        **(_told_rules(judgement.rules) if judgement.rules is not None else {}),
    }


def _told_rules(diff: RulesDiff) -> dict[str, Any]:
    """The comparison of the rules texts, and what YES pays in exceptional states, in the form that decisions have."""
    return {
        "terms": diff.as_json()["fields"],
        "void_states": _payouts(diff.void_states),
        "stated_void_states": _payouts(diff.stated),
    }


def _payouts(states: Mapping[str, tuple[Decimal, Decimal]] | None) -> dict[str, dict[str, str]] | None:
    if states is None:
        return None
    return {name: {"kalshi": str(kalshi), "polymarket": str(other)} for name, (kalshi, other) in states.items()}


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
