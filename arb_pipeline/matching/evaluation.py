"""Measures the matcher on labelled pairs: precision with its interval, recall, inversions, confusion, per family."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from math import sqrt
from pathlib import Path
from typing import Any

import msgspec

from arb_pipeline.matching.candidates import find_candidates
from arb_pipeline.matching.matcher import Match, MatchResult, Memory, match
from arb_pipeline.matching.overrides import Overrides
from arb_pipeline.matching.relations import IMPLICATIONS, SAME
from arb_pipeline.model import Event, Market, MarketStatus, MatchStatus, Relation

__all__ = ["Evaluation", "LabelledPair", "Outcome", "evaluate", "evaluate_file", "wilson_interval"]

_Z95 = 1.959963984540054
_TOP = 20
_HELD_OUT = 4
_DECIDED_AGAINST = frozenset({MatchStatus.REJECTED, MatchStatus.REFUSED, MatchStatus.EXPIRED})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A pair whose relation a person or a file states; ``id`` names it in the result."""

    kalshi: str
    polymarket: str
    relation: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the matcher said of a labelled pair.

    Attributes:
        relation: what it was called; a pair refused for a better one is ``related``.
        status: of the row of the pair, ``none`` where there is none.
        rank: the pair's place among its Kalshi market's candidates, None where it is not one.
        held_out: whether its series is of the part that is reported apart.
    """

    pair: LabelledPair
    relation: str
    status: str
    family: str = ""
    score: float = 0.0
    rank: int | None = None
    reasons: tuple[str, ...] = ()
    held_out: bool = False

    @property
    def called(self) -> bool:
        """Whether it was called the same question."""
        return self.relation in SAME

    @property
    def same(self) -> bool:
        """Whether it is labelled as the same question."""
        return self.pair.relation in SAME


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Outcomes of all labelled pairs. Every figure is a number, also where there was nothing to count."""

    outcomes: tuple[Outcome, ...]

    def metrics(self, outcomes: Sequence[Outcome] | None = None) -> dict[str, float | int]:
        """Figures of some outcomes, all of them by default.

        ``precision`` is the share of what was called equivalent or inverted that is labelled exactly so, ``recall`` the
        share of what is labelled so that was called so. A share of nothing is 1: no call was wrong, no pair missed.
        """
        some = self.outcomes if outcomes is None else outcomes
        called = [one for one in some if one.called]
        correct = [one for one in called if one.relation == one.pair.relation]
        true = [one for one in some if one.same]
        auto = [one for one in called if one.status == MatchStatus.AUTO]
        claimed = [one for one in some if one.relation in IMPLICATIONS]
        low, high = wilson_interval(len(correct), len(called)) if called else (0.0, 1.0)
        return {
            "pairs": len(some),
            "true_pairs": len(true),
            "called": len(called),
            "correct": len(correct),
            "precision": _share(len(correct), len(called)),
            "precision_low": low,
            "precision_high": high,
            "recall": _share(len(correct), len(true)),
            "inversion_errors": sum(one.same and one.relation != one.pair.relation for one in called),
            "candidate_recall_at_20": _share(sum(one.rank is not None and one.rank <= _TOP for one in true), len(true)),
            "auto": len(auto),
            "auto_correct": sum(one.relation == one.pair.relation for one in auto),
            "auto_precision": _share(sum(one.relation == one.pair.relation for one in auto), len(auto)),
            "implications_claimed": len(claimed),
            "implications_correct": sum(one.relation == one.pair.relation for one in claimed),
            "implication_precision": _share(sum(one.relation == one.pair.relation for one in claimed), len(claimed)),
        }

    def confusion(self) -> dict[str, dict[str, int]]:
        """Counts by label and by what was called."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for one in self.outcomes:
            counts[one.pair.relation][one.relation] += 1
        return {label: dict(sorted(row.items())) for label, row in sorted(counts.items())}

    def families(self) -> dict[str, dict[str, float | int]]:
        """Figures by family; ``generic`` is what no parser knows as one kind."""
        groups: dict[str, list[Outcome]] = defaultdict(list)
        for one in self.outcomes:
            groups[one.family or "generic"].append(one)
        return {name: self.metrics(group) for name, group in sorted(groups.items())}

    def misses(self) -> tuple[Outcome, ...]:
        """Pairs called or labelled the same question, on which the two disagree."""
        return tuple(one for one in self.outcomes if one.relation != one.pair.relation and (one.called or one.same))

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "overall": self.metrics(),
            "held_out": self.metrics([one for one in self.outcomes if one.held_out]),
            "families": self.families(),
            "confusion": self.confusion(),
            "pairs": [
                {
                    "id": one.pair.id,
                    "kalshi": one.pair.kalshi,
                    "polymarket": one.pair.polymarket,
                    "label": one.pair.relation,
                    "relation": one.relation,
                    "status": one.status,
                    "family": one.family,
                    "score": round(one.score, 4),
                    "held_out": one.held_out,
                    "reasons": list(one.reasons),
                }
                for one in self.outcomes
            ],
        }


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share.

    Raises:
        ValueError: without trials, or with more successes than trials.
    """
    if not 0 <= successes <= trials or not trials:
        raise ValueError(f"{successes} successes of {trials} trials have no interval")
    share, square = successes / trials, _Z95**2
    centre = share + square / (2 * trials)
    spread = _Z95 * sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    scale = 1 + square / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def evaluate(result: MatchResult, labelled: Iterable[LabelledPair]) -> Evaluation:
    """Measure a result on the labelled pairs; pairs without a label are not counted either way."""
    rows = {(item.kalshi_market_id, item.polymarket_market_id): item for item in result.matches}
    return Evaluation(tuple(_outcome(pair, rows.get((pair.kalshi, pair.polymarket))) for pair in labelled))


def evaluate_file(path: Path) -> Evaluation:
    """Match all markets of a labelled file with one another and measure the result on its pairs.

    Every market of the file is a candidate for every market of the other venue. Nothing that the file does not hold
    (end dates, strikes) is known.

    Raises:
        ValueError: at the first line that is not a labelled pair.
    """
    lines = [_line(raw, number, path) for number, raw in enumerate(path.read_bytes().splitlines(), 1) if raw.strip()]
    universe: tuple[dict[_Text, str], dict[_Text, str]] = ({}, {})
    pairs = [
        LabelledPair(_named(line.kalshi, universe[0], line.id), _named(line.polymarket, universe[1], line.id),
                     line.label, line.id)
        for line in lines
    ]  # fmt: skip
    left, right = ([text.listed(name) for text, name in side.items()] for side in universe)
    memory = Memory()
    rows = {
        (item.kalshi_market_id, item.polymarket_market_id): item
        for item in match(left, right, Overrides(), _EPOCH, memory).matches
    }
    ranks = _ranks(left, right, memory)
    found = []
    for pair in pairs:
        key = pair.kalshi, pair.polymarket
        one = _outcome(pair, rows.get(key))
        if key not in rows and key in ranks:
            one = _judged(one, memory, left, right)
        found.append(replace(one, rank=ranks.get(key), held_out=_held_out(pair.kalshi)))
    return Evaluation(tuple(found))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _outcome(pair: LabelledPair, row: Match | None) -> Outcome:
    if row is None:
        return Outcome(pair, Relation.DIFFERENT.value, "none")
    relation = row.relation
    if row.status in _DECIDED_AGAINST and relation in SAME | IMPLICATIONS:
        relation = Relation.RELATED
    reasons = row.vetoes or tuple(row.explanation.get("open", ()))
    return Outcome(pair, relation.value, row.status.value, row.family, row.score, reasons=reasons)


def _judged(one: Outcome, memory: Memory, left: Sequence[Event], right: Sequence[Event]) -> Outcome:
    """A candidate without a row: one look-alike too many to be kept, but judged all the same."""
    judgement = memory.judged(_find(memory, left, one.pair.kalshi), _find(memory, right, one.pair.polymarket))
    relation = Relation.RELATED if judgement.relation in SAME else judgement.relation
    return replace(
        one, relation=relation.value, family=judgement.family, score=judgement.score, reasons=judgement.reasons
    )


def _find(memory: Memory, events: Sequence[Event], market_id: str) -> Any:
    event = next(event for event in events if event.markets[0].market_id == market_id)
    return memory.listed(event, event.markets[0])


def _ranks(left: Sequence[Event], right: Sequence[Event], memory: Memory) -> dict[tuple[str, str], int]:
    sides = [
        sorted((memory.listed(event, event.markets[0]) for event in side), key=lambda item: item.market.market_id)
        for side in (left, right)
    ]
    documents = [[item.document for item in side] for side in sides]
    return {
        (sides[0][item.kalshi].market.market_id, sides[1][item.polymarket].market.market_id): item.rank
        for item in find_candidates(documents[0], documents[1], _TOP)
    }


def _held_out(ticker: str) -> bool:
    """Whether a series belongs to the quarter that is reported apart, by a hash of its name."""
    return sha256(ticker.partition("-")[0].encode()).digest()[0] % _HELD_OUT == 0


# --- the file's format --------------------------------------------------------------------------------------


class _KalshiText(msgspec.Struct, frozen=True):
    title: str
    ticker: str = ""
    event_title: str = ""
    rules: str = ""
    yes_sub_title: str = ""

    @property
    def name(self) -> str:
        return self.ticker

    def listed(self, market_id: str) -> Event:
        record = _record(self.rules)
        rules = self.rules
        if record:
            rules = "\n\n".join(str(record[key]) for key in ("rules_primary", "rules_secondary") if record.get(key))
        answer = self.yes_sub_title or str(record.get("yes_sub_title") or "")
        strike = {key: record[key] for key in _STRIKES if record.get(key) is not None}
        return _stub("kalshi", market_id, (self.title, self.event_title, answer), rules, strike)


class _PolymarketText(msgspec.Struct, frozen=True):
    question: str
    id: str = ""
    event_title: str = ""
    group_item_title: str = ""
    rules: str = ""

    @property
    def name(self) -> str:
        return self.id

    def listed(self, market_id: str) -> Event:
        titles = self.question, self.event_title, self.group_item_title
        return _stub("polymarket", market_id, titles, self.rules, {})


_Text = _KalshiText | _PolymarketText
_STRIKES = ("strike_type", "floor_strike", "cap_strike")


class _Line(msgspec.Struct, frozen=True):
    id: str
    label: str
    kalshi: _KalshiText
    polymarket: _PolymarketText


def _line(raw: bytes, number: int, path: Path) -> _Line:
    try:
        return msgspec.convert(_plain(msgspec.json.decode(raw)), type=_Line)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} line {number}: {error}") from error


def _plain(value: object) -> object:
    """The line without nulls, which say the same as absence, and with numbers (ids, mostly) as text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return str(value) if isinstance(value, int | float) else value


def _named(text: _Text, names: dict[_Text, str], row: str) -> str:
    """The id of a market: the file's, numbered where one id stands for several texts, else the row's."""
    if text not in names:
        wanted = text.name or row
        taken = sum(name == wanted or name.startswith(f"{wanted}~") for name in names.values())
        names[text] = f"{wanted}~{taken + 1}" if taken else wanted
    return names[text]


def _record(rules: str) -> Mapping[str, Any]:
    """The market's own record where the file holds that in place of the rules text, as Python or JSON wrote it."""
    if not rules.startswith("{"):
        return {}
    try:
        whole = ast.literal_eval(rules)
    except (ValueError, SyntaxError):
        return {}
    market = whole.get("market", whole) if isinstance(whole, dict) else None
    return market if isinstance(market, dict) else {}


def _stub(venue: str, market_id: str, titles: tuple[str, str, str], rules: str, strike: Mapping[str, Any]) -> Event:
    """An event of one market; ``titles`` are the market's, the event's and the answer's."""
    title, event_title, yes_title = titles
    market = Market(
        venue=venue,
        market_id=market_id,
        event_id=market_id,
        title=title,
        yes_title=yes_title,
        rules=rules,
        strike=strike,
        status=MarketStatus.OPEN,
        tick=100,
        min_size=0,
        size_step=1,
    )
    return Event(venue=venue, event_id=market_id, title=event_title or title, markets=(market,))
