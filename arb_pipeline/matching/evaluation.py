"""Measures a matcher against labelled pairs: precision with its interval, recall, inversions, confusion."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import msgspec

from arb_pipeline.matching.matcher import Judgement, MatchResult, judge
from arb_pipeline.model import Event, Market, MarketStatus, MatchStatus, Relation

__all__ = ["LabelledPair", "Measurement", "Miss", "evaluate", "evaluate_file", "wilson_interval"]

_CALLED = frozenset({Relation.EQUIVALENT.value, Relation.INVERTED.value})
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A pair whose relation a person or a file states."""

    kalshi: str
    polymarket: str
    relation: str


class Miss(msgspec.Struct, frozen=True, kw_only=True):
    """A pair on which the matcher and the label disagree, with what speaks against the pair."""

    kalshi: str
    polymarket: str
    label: str
    called: str
    reasons: tuple[str, ...] = ()


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """Figures over labelled pairs. "Called" is proposed as equivalent or inverted.

    Attributes:
        precision: share of the called pairs whose label is what they were called; None if none was called.
        precision_low, precision_high: its 95 % Wilson interval.
        recall: share of the pairs labelled equivalent or inverted that were called so; None if there are none.
        inversions: pairs called equivalent that are labelled inverted, or the other way round.
        confusion: ``label -> called`` counts.
    """

    pairs: int
    called: int
    correct: int
    true_pairs: int
    precision: float | None
    precision_low: float | None
    precision_high: float | None
    recall: float | None
    inversions: int
    confusion: dict[str, dict[str, int]]
    misses: tuple[Miss, ...]

    def to_json(self) -> dict[str, object]:
        """The same as plain JSON values."""
        plain: dict[str, object] = msgspec.to_builtins(self)
        return plain


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


def evaluate(result: MatchResult, labelled: Iterable[LabelledPair]) -> Measurement:
    """Measure a result on the labelled pairs; pairs without a label are not counted either way."""
    rows = {(item.kalshi_market_id, item.polymarket_market_id): item for item in result.matches}

    def called(pair: LabelledPair) -> tuple[str, tuple[str, ...]]:
        row = rows.get((pair.kalshi, pair.polymarket))
        if row is None:
            return "none", ()
        if row.status in {MatchStatus.REJECTED, MatchStatus.REFUSED, MatchStatus.EXPIRED}:
            return "none", row.vetoes
        return row.relation.value, ()

    return _measure(list(labelled), called)


def evaluate_file(path: Path) -> Measurement:
    """Judge every pair of a labelled file on its own, by titles and, where the file has them, rules.

    There is no catalogue around the pairs, so neither candidates nor one-to-one assignment are measured, and
    nothing that only metadata tells (end dates, strikes) is known.

    Raises:
        ValueError: at the first line that is not a labelled pair.
    """
    judged: list[tuple[LabelledPair, Judgement]] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = msgspec.json.decode(line, type=_Line)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path} line {number}: {error}") from error
        pair = LabelledPair(row.kalshi.ticker or row.id, row.polymarket.id or row.id, row.label)
        judged.append((pair, judge(*row.kalshi.listed(), *row.polymarket.listed())))
    by_pair = {id(pair): judgement for pair, judgement in judged}

    def called(pair: LabelledPair) -> tuple[str, tuple[str, ...]]:
        judgement = by_pair[id(pair)]
        return (judgement.relation.value if judgement.proposed else "none"), judgement.reasons

    return _measure([pair for pair, _ in judged], called)


def _measure(
    pairs: Sequence[LabelledPair], called_of: Callable[[LabelledPair], tuple[str, tuple[str, ...]]]
) -> Measurement:
    confusion: dict[str, Counter[str]] = {}
    misses: list[Miss] = []
    for pair in pairs:
        called, reasons = called_of(pair)
        confusion.setdefault(pair.relation, Counter())[called] += 1
        if called != pair.relation and _CALLED & {called, pair.relation}:
            misses.append(
                Miss(
                    kalshi=pair.kalshi,
                    polymarket=pair.polymarket,
                    label=pair.relation,
                    called=called,
                    reasons=reasons,
                )
            )
    calls = sum(count for row in confusion.values() for name, count in row.items() if name in _CALLED)
    correct = sum(confusion[name][name] for name in _CALLED & confusion.keys())
    true_pairs = sum(sum(confusion[name].values()) for name in _CALLED & confusion.keys())
    low, high = wilson_interval(correct, calls) if calls else (None, None)
    return Measurement(
        pairs=len(pairs),
        called=calls,
        correct=correct,
        true_pairs=true_pairs,
        precision=correct / calls if calls else None,
        precision_low=low,
        precision_high=high,
        recall=correct / true_pairs if true_pairs else None,
        inversions=sum(
            confusion.get(label, Counter())[other] for label in _CALLED for other in _CALLED if label != other
        ),
        confusion={label: dict(sorted(row.items())) for label, row in sorted(confusion.items())},
        misses=tuple(misses),
    )


class _KalshiText(msgspec.Struct, frozen=True):
    title: str
    ticker: str = ""
    event_title: str = ""
    rules: str = ""

    def listed(self) -> tuple[Event, Market]:
        return _stub(self.ticker or "?", self.title, self.event_title, self.rules, venue="kalshi")


class _PolymarketText(msgspec.Struct, frozen=True):
    question: str
    id: str = ""
    event_title: str = ""
    group_item_title: str = ""
    rules: str = ""

    def listed(self) -> tuple[Event, Market]:
        return _stub(
            self.id or "?",
            self.question,
            self.event_title,
            self.rules,
            venue="polymarket",
            yes_title=self.group_item_title,
        )


class _Line(msgspec.Struct, frozen=True):
    id: str
    label: str
    kalshi: _KalshiText
    polymarket: _PolymarketText


def _stub(
    market_id: str, title: str, event_title: str, rules: str, *, venue: str, yes_title: str = ""
) -> tuple[Event, Market]:
    market = Market(
        venue=venue,
        market_id=market_id,
        event_id=market_id,
        title=title,
        yes_title=yes_title,
        rules=rules,
        status=MarketStatus.OPEN,
        tick=100,
        min_size=0,
        size_step=1,
    )
    return Event(venue=venue, event_id=market_id, title=event_title or title, markets=(market,)), market
