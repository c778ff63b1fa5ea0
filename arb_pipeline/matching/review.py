"""What a person is shown of a pair, in which order, and what becomes of the decision.

The terminal and the page show the same :class:`Case`. A decision goes to ``matches.yaml`` with the hashes of both rules
texts as they were shown; the next run of the matcher acts on it.
"""

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import SequenceMatcher
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from arb_pipeline.errors import ArbError
from arb_pipeline.matching.overrides import (
    Decision,
    OverrideError,
    Overrides,
    PolymarketSide,
    RulesHashes,
    Verdict,
    VoidState,
    save_decisions,
)
from arb_pipeline.model import Market, MatchStatus, Relation, rules_digest
from arb_pipeline.storage.lake import Lake
from arb_pipeline.tables import table

__all__ = [
    "Case",
    "Kind",
    "Rival",
    "RulesChange",
    "SlotLine",
    "Span",
    "cases",
    "changed_text",
    "compare_texts",
    "decide",
    "find_case",
    "full_title",
    "queue",
    "queue_table",
    "rules_changes",
]

_SAME: Final = (Relation.EQUIVALENT, Relation.INVERTED)
_IMPLIED: Final = (Relation.KALSHI_IMPLIES_POLYMARKET, Relation.POLYMARKET_IMPLIES_KALSHI)
_WORD = re.compile(r"\w+(?:[.,:/'\u2019-]\w+)*")
_PIECE = re.compile(r"\s+|\w+|[^\w\s]")

_PLAIN = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "it",
        "its",
        "of",
        "to",
        "in",
        "for",
        "with",
        "and",
        "is",
        "are",
        "be",
        "been",
        "has",
        "have",
        "will",
        "then",
    ]
)
"""Words that tell two texts apart by their style alone; marking them would hide what matters."""

Row = Mapping[str, Any]
Markets = Mapping[tuple[str, str], Market]
"""Markets by venue and market id."""


# --- differences of texts -----------------------------------------------------------------------------------


class Kind(StrEnum):
    """What a stretch of a text is beside the other text."""

    SAME = "same"
    MOVED = "moved"
    ONLY = "only"
    FIGURE = "figure"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text: in both, in both at another place, in this one only, or a figure in this one only."""

    text: str
    kind: Kind


def compare_texts(first: str, second: str) -> tuple[list[Span], list[Span]]:
    """Two texts by different authors, word by word; case, punctuation, white space and articles make no difference.

    Joined again, the spans are the texts.
    """
    left, right = (list(_WORD.finditer(text)) for text in (first, second))
    keys = [_key(one.group()) for one in left], [_key(one.group()) for one in right]
    aligned: tuple[set[int], set[int]] = set(), set()
    for block in SequenceMatcher(None, *keys, autojunk=False).get_matching_blocks():
        aligned[0].update(range(block.a, block.a + block.size))
        aligned[1].update(range(block.b, block.b + block.size))
    return (
        _spans(first, left, keys[0], aligned[0], set(keys[1])),
        _spans(second, right, keys[1], aligned[1], set(keys[0])),
    )


def changed_text(before: str, after: str) -> tuple[list[Span], list[Span]]:
    """Two versions of one text, to the single character."""
    pieces = _PIECE.findall(before), _PIECE.findall(after)
    spans: tuple[list[Span], list[Span]] = [], []
    for tag, *bounds in SequenceMatcher(None, *pieces, autojunk=False).get_opcodes():
        kind = Kind.SAME if tag == "equal" else Kind.ONLY
        for side, (begin, end) in enumerate((bounds[:2], bounds[2:])):
            _append(spans[side], "".join(pieces[side][begin:end]), kind)
    return spans


def _key(word: str) -> str:
    return word.casefold().replace(",", "").replace("\u2019", "'").removesuffix("'s")


def _spans(
    text: str, words: Sequence[re.Match[str]], keys: Sequence[str], aligned: Collection[int], other: Collection[str]
) -> list[Span]:
    spans: list[Span] = []
    reached = 0
    for number, (word, key) in enumerate(zip(words, keys, strict=True)):
        if number in aligned or key in _PLAIN:
            kind = Kind.SAME
        elif key in other:
            kind = Kind.MOVED
        else:
            kind = Kind.FIGURE if any(letter.isdigit() for letter in key) else Kind.ONLY
        between = text[reached : word.start()]
        # What stands between two marked words is marked along with them, so that a phrase reads as one.
        _append(spans, between, kind if spans and spans[-1].kind is kind and between.isspace() else Kind.SAME)
        _append(spans, word.group(), kind)
        reached = word.end()
    _append(spans, text[reached:], Kind.SAME)
    return spans


def _append(spans: list[Span], text: str, kind: Kind) -> None:
    if not text:
        return
    if spans and spans[-1].kind is kind:
        spans[-1] = Span(spans[-1].text + text, kind)
    else:
        spans.append(Span(text, kind))


# --- cases --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlotLine:
    """One thing compared: its value on both venues (empty: unknown) with where it was read, and the outcome."""

    slot: str
    kalshi: str
    kalshi_source: str
    polymarket: str
    polymarket_source: str
    result: str
    weight: float
    reason: str

    @property
    def tone(self) -> str:
        """``equal``, ``differs``, ``caveat`` or ``unknown``: what the outcome means for a reader."""
        return _TONES.get(self.result, "differs")


@dataclass(frozen=True, slots=True)
class Rival:
    """Another pair that one of the two markets could stand in."""

    kalshi: str
    polymarket: str
    score: float


@dataclass(frozen=True)
class Case:
    """A pair as a person is shown it.

    Attributes:
        row: the pair's row of ``market_matches``; without a relation where nobody has compared the two.
        decision: what ``matches.yaml`` says of it now.
    """

    row: Row
    kalshi: Market
    polymarket: Market
    decision: Decision | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """(Kalshi ticker, condition id)."""
        return self.kalshi.market_id, self.polymarket.market_id

    @property
    def name(self) -> str:
        """How commands name the pair."""
        return "/".join(self.pair)

    @property
    def relation(self) -> str:
        """The relation proposed, empty if none is."""
        return str(self.row["relation"])

    @property
    def status(self) -> str:
        """The status that the last run of the matcher gave it."""
        return str(self.row["status"])

    @property
    def score(self) -> float:
        """Weight of the evidence; no probability."""
        return float(self.row["score"])

    @cached_property
    def told(self) -> Mapping[str, Any]:
        """The matcher's explanation."""
        told: Mapping[str, Any] = json.loads(self.row["explanation"])
        return told

    @cached_property
    def vetoes(self) -> tuple[str, ...]:
        """Reasons against."""
        return tuple(json.loads(self.row["vetoes"]))

    @cached_property
    def reopened(self) -> tuple[str, ...]:
        """Venues whose rules have changed since a person decided on the pair."""
        return () if self.decision is None else self.decision.changed(*self.digests)

    @property
    def digests(self) -> tuple[str, str]:
        """SHA-256 of both rules texts, Kalshi's first."""
        return _digest(self.kalshi), _digest(self.polymarket)

    @property
    def decided(self) -> bool:
        """Whether a person's decision on it stands."""
        return self.decision is not None and not self.reopened

    @cached_property
    def slots(self) -> tuple[SlotLine, ...]:
        """What was compared, what differs first."""
        lines = [_slot_line(line) for line in self.told.get("slots", ())]
        return tuple(sorted(lines, key=lambda line: _ORDER[line.tone]))

    @cached_property
    def terms(self) -> tuple[SlotLine, ...]:
        """The rules texts term by term, what differs first."""
        lines = [
            SlotLine(line["field"], line["kalshi"], "", line["polymarket"], "", line["result"], 0.0, "")
            for line in self.told.get("terms", ())
        ]
        return tuple(sorted(lines, key=lambda line: _ORDER[line.tone]))

    @property
    def void_states(self) -> Mapping[str, Mapping[str, str]]:
        """What YES of each venue pays where a question is not decided as usual, dollars, as the rules were read."""
        return self.told.get("void_states") or {}

    @property
    def stated_void_states(self) -> Mapping[str, Mapping[str, str]]:
        """The payouts that both texts state for every exceptional state: what an approval writes. Empty otherwise.

        Empty too where a text has changed since the matcher read it.
        """
        kalshi, polymarket = self.digests
        if self.told.get("rules") != {"kalshi": kalshi, "polymarket": polymarket}:
            return {}
        return self.told.get("stated_void_states") or {}

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """Why it waits for a person, or why it was ruled out."""
        found = [f"the rules of {venue.capitalize()} changed after the decision" for venue in self.reopened]
        found += [f"alarm: {alarm}" for alarm in self.told.get("alarms", ())]
        found += [*self.vetoes, *self.told.get("open", ())]
        # A change of the rules stands above already, and what is open repeats most caveats.
        told = {reason.partition(":")[0] for reason in found} | {"rules_changed"}
        found += [caveat for caveat in self.told.get("caveats", ()) if caveat.partition(":")[0] not in told]
        return tuple(dict.fromkeys(found)) or ("a person decides on every pair of this kind",)

    @cached_property
    def rivals(self) -> tuple[Rival, ...]:
        """Other partners of the two markets, best first."""
        return tuple(Rival(one["kalshi"], one["polymarket"], one["score"]) for one in self.told.get("rivals", ()))

    @property
    def margin(self) -> float | None:
        """Score ahead of the best rival, None without one."""
        return self.told.get("margin")

    @property
    def worth(self) -> tuple[int, float, str, str]:
        """Sorts by what is worth looking at.

        Decisions that fell come first, then what could be traded as the same question, then implications; within
        each, evidence times the logarithm of the quieter market's traded volume.
        """
        tier = 0 if self.reopened else 1 if self.relation in _SAME else 2 if self.relation in _IMPLIED else 3
        volume = min(self.kalshi.volume_24h or 0, self.polymarket.volume_24h or 0) / 1e6
        return tier, -self.score * math.log10(10 + volume), *self.pair


_TONES = {"equal": "equal", "complement": "equal", "unknown": "unknown", "caveat": "caveat"}
"""Outcomes of a comparison that speak for a pair or leave it open; every other one speaks against it."""
_ORDER = {"differs": 0, "caveat": 1, "unknown": 2, "equal": 3}


def cases(rows: Iterable[Row], markets: Markets, overrides: Overrides) -> list[Case]:
    """Pairs of ``market_matches`` whose markets are both listed, in the order of the rows."""
    decisions = {decision.pair: decision for decision in overrides}
    found = []
    for row in rows:
        pair = row["kalshi_market_id"], row["polymarket_market_id"]
        kalshi, polymarket = markets.get(("kalshi", pair[0])), markets.get(("polymarket", pair[1]))
        if kalshi is not None and polymarket is not None:
            found.append(Case(row, kalshi, polymarket, decisions.get((pair[0], pair[1].lower()))))
    return found


def queue(found: Iterable[Case]) -> list[Case]:
    """The cases that wait for a person, by what is worth looking at."""
    waiting = (case for case in found if case.status == MatchStatus.REVIEW and not case.decided)
    return sorted(waiting, key=lambda case: case.worth)


def queue_table(waiting: Sequence[Case]) -> pa.Table:
    """Rows of ``match_review``."""
    rows = [
        {
            "kalshi_market_id": case.pair[0],
            "polymarket_market_id": case.pair[1],
            "rank": rank,
            "relation": case.relation,
            "score": case.score,
            "kalshi_title": full_title(case.kalshi),
            "polymarket_title": full_title(case.polymarket),
            "kalshi_rules": case.kalshi.rules,
            "polymarket_rules": case.polymarket.rules,
            "explanation": case.row["explanation"],
        }
        for rank, case in enumerate(waiting, 1)
    ]
    return pa.Table.from_pylist(rows, table("match_review").schema)


def full_title(market: Market) -> str:
    """A market's title with what YES stands for."""
    if not market.yes_title or market.yes_title.casefold() in market.title.casefold():
        return market.title
    return f"{market.title} [{market.yes_title}]"


def find_case(text: str, found: Sequence[Case], markets: Markets, overrides: Overrides) -> Case:
    """The case that a person names: its place in the queue, ``TICKER/CONDITION_ID``, or one of the two ids alone.

    The condition id may be cut short, as long as one pair alone fits. Two listed markets that the matcher never put
    together are a case as well.

    Raises:
        ArbError: if none or several fit.
    """
    if text.isdecimal() and text != "0":
        waiting = queue(found)
        if int(text) > len(waiting):
            raise ArbError(f"the queue has {len(waiting)} places, none is {text}: see 'arb review list'")
        return waiting[int(text) - 1]
    left, slash, right = text.partition("/")
    if slash:
        fit = [case for case in found if case.pair[0] == left and _begins(case.pair[1], right)]
        if not fit and ("kalshi", left) in markets and ("polymarket", right) in markets:
            row = _unstated(left, right)
            return cases([row], markets, overrides)[0]
    else:
        fit = [case for case in found if case.pair[0] == text or _begins(case.pair[1], text)]
        # A market that stands in one proposed pair also has look-alikes, which nobody means.
        fit = [case for case in fit if case.status != MatchStatus.REJECTED] or fit
    if not fit:
        raise ArbError(f"no pair is named {text!r}: give its place in 'arb review list', or TICKER/CONDITION_ID")
    if len(fit) > 1:
        some = ", ".join(case.name for case in fit[:3])
        raise ArbError(f"{text!r} fits {len(fit)} pairs, such as {some}: name one of them in full")
    return fit[0]


def decide(
    path: Path,
    case: Case,
    verdict: Verdict | None,
    *,
    reason: str,
    author: str,
    at: datetime,
    overrule: bool = False,
) -> Decision:
    """Write a person's decision on a case to ``matches.yaml``. A decision whose rules have changed gives way to it.

    An approval takes down what both rules texts state for the case that the question is not decided as usual
    (:attr:`Case.stated_void_states`, which the person was shown); where one of them leaves a state open, none, so that
    the worst case stays unknown until somebody writes it into the file.

    Args:
        verdict: None: the relation that the matcher proposes.
        reason: why; it is what the next reader learns from.
        overrule: let it also replace a decision that still stands.

    Raises:
        OverrideError: if reason or author is missing, the proposed relation cannot be approved, another decision
            stands, or the file contradicts itself with this one; the file is left as it was.
    """
    for name, given in (("reason", reason), ("author", author)):
        if not given.strip():
            raise OverrideError(f"the {name} is empty: a decision without one helps nobody later")
    if case.decision is not None and case.decided and not overrule:
        raise OverrideError(
            f"{case.name} is decided already: {case.decision.verdict.value} by {case.decision.by} on "
            f"{case.decision.at:%Y-%m-%d} ({case.decision.why or 'no reason given'}). --overrule replaces that"
        )
    if verdict is None:
        if case.relation not in list(Verdict):
            raise OverrideError(
                f"the matcher calls {case.name} {case.relation or 'nothing'}, which cannot be approved: "
                f"say with --relation what it is, one of {', '.join(one for one in Verdict if one != 'rejected')}"
            )
        verdict = Verdict(case.relation)
    kalshi, polymarket = case.digests
    # Every relation but the inverted one is said of Polymarket's first outcome.
    index = case.row["polymarket_yes_index"] if verdict is Verdict.REJECTED else int(verdict is Verdict.INVERTED)
    decision = Decision(
        kalshi=case.pair[0],
        polymarket=PolymarketSide(condition_id=case.pair[1], yes_token_index=index),
        verdict=verdict,
        rules_sha256=RulesHashes(kalshi=kalshi, polymarket=polymarket),
        void_states={}
        if verdict is Verdict.REJECTED
        else {name: VoidState.model_validate(pays) for name, pays in case.stated_void_states.items()},
        by=author,
        at=at.replace(microsecond=0),
        why=reason.strip(),
    )
    save_decisions(path, [decision], replace=[] if case.decision is None else [case.decision])
    return decision


# --- rules that changed -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RulesChange:
    """What became of the rules text that a person read.

    Attributes:
        before: that text; None if no catalogue that the lake keeps has it.
        after: the text today.
        changed_at: when today's text was first seen, None if not known.
    """

    venue: str
    before: str | None
    after: str
    changed_at: datetime | None


def rules_changes(lake: Lake, case: Case) -> list[RulesChange]:
    """The texts of a re-opened case: what was read, as daily catalogues keep it, and what it says today."""
    assert case.decision is not None or not case.reopened
    found = []
    for venue in case.reopened:
        market = case.kalshi if venue == "kalshi" else case.polymarket
        assert case.decision is not None
        assert case.decision.rules_sha256 is not None
        read = getattr(case.decision.rules_sha256, venue)
        kept = lake.read("markets", venue=venue, markets=[market.market_id], columns=["rules", "rules_sha256"])
        texts = {rules_digest(row["rules"]): row["rules"] for row in kept.to_pylist()}
        history = lake.read("market_history", venue=venue, markets=[market.market_id])
        seen = [row["valid_from"] for row in history.to_pylist() if row["rules_sha256"] == _digest(market)]
        found.append(RulesChange(venue, texts.get(read), market.rules, min(seen, default=None)))
    return found


# --- inside -------------------------------------------------------------------------------------------------


def _digest(market: Market) -> str:
    return market.rules_sha256 or rules_digest(market.rules)


def _begins(condition_id: str, text: str) -> bool:
    return len(text) > len("0x") and condition_id.startswith(text.lower())


def _unstated(kalshi: str, polymarket: str) -> Row:
    return {
        "kalshi_market_id": kalshi,
        "polymarket_market_id": polymarket,
        "polymarket_yes_index": 0,
        "relation": "",
        "status": "",
        "score": 0.0,
        "family": "",
        "vetoes": "[]",
        "explanation": "{}",
    }


def _slot_line(line: Mapping[str, Any]) -> SlotLine:
    kalshi, polymarket = line.get("kalshi") or {}, line.get("polymarket") or {}
    return SlotLine(
        slot=line["slot"],
        kalshi=kalshi.get("value", ""),
        kalshi_source=kalshi.get("source", ""),
        polymarket=polymarket.get("value", ""),
        polymarket_source=polymarket.get("source", ""),
        result=line["result"],
        weight=line.get("weight", 0.0),
        reason=line.get("reason", ""),
    )
