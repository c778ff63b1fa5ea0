"""Compares two propositions slot by slot: what is equal, what is unknown, and what rules a pair out.

A disagreement of two known slots is a reason against the pair. Where one value is part of the other ("by March" of "by
May", 100,000 or above of 95,000 or above) the direction is kept, because one question may then imply the other. A slot
known on one side alone never speaks against a pair: it is missing evidence, and may cost weight. Weights add up, so
that a score is explained by its comparisons.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

from arb_pipeline.matching.numbers import Interval, on_grid
from arb_pipeline.matching.slots import Direction, Fact, Observation, Slots
from arb_pipeline.matching.text import deciding_sentence, fold, fold_spelling, tokenise, words
from arb_pipeline.matching.vocabulary import (
    ASPECTS,
    CATEGORIES,
    COMPARATIVES,
    DISTINGUISHING,
    FUNCTION_WORDS,
    TELLING,
    TOPICLESS,
    Action,
)

__all__ = [
    "AGAINST",
    "TYPED",
    "Comparison",
    "Outcome",
    "Verdict",
    "compare",
    "names_apart",
    "ruled_out",
    "same_name",
    "spoken_of",
    "unread",
    "unspoken",
]

_CENT = Decimal("0.01")
_DAY = timedelta(days=1)
_SHORT_WINDOW = timedelta(days=62)
_START_SURE = timedelta(hours=3)
_START_MOST = timedelta(hours=6)
_DEMONYM_ENDINGS = frozenset({"n", "an", "ian", "ean", "ese", "s", "ish", "i", "al", "ional"})


class Outcome(StrEnum):
    """How one slot compares."""

    EQUAL = "equal"
    UNKNOWN = "unknown"
    CAVEAT = "caveat"
    COMPLEMENT = "complement"
    NARROWER = "kalshi_narrower"
    WIDER = "polymarket_narrower"
    DISJOINT = "disjoint"
    VETO = "veto"


AGAINST = frozenset({Outcome.VETO, Outcome.DISJOINT, Outcome.NARROWER, Outcome.WIDER})
"""Outcomes with which two questions are not the same."""


class Comparison(msgspec.Struct, frozen=True, gc=False):
    """One line of an explanation: the slot, both facts, how they compare, why, and the weight it adds."""

    slot: str
    kalshi: Fact[Any] | None
    polymarket: Fact[Any] | None
    outcome: Outcome
    weight: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All comparisons of a pair of propositions."""

    comparisons: tuple[Comparison, ...]

    @property
    def vetoes(self) -> tuple[str, ...]:
        """Reasons against the pair being the same question, ``slot: reason``."""
        return tuple(f"{item.slot}: {item.reason}" for item in self.comparisons if item.outcome in AGAINST)

    def with_outcome(self, *outcomes: Outcome) -> tuple[Comparison, ...]:
        """The comparisons that came out so."""
        return tuple(item for item in self.comparisons if item.outcome in outcomes)

    def of(self, slot: str) -> Comparison | None:
        """The comparison of a slot, None where neither side knows it."""
        return next((item for item in self.comparisons if item.slot == slot), None)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a person should look at, ``slot: reason``."""
        return tuple(f"{item.slot}: {item.reason}" for item in self.comparisons if item.outcome is Outcome.CAVEAT)

    @property
    def complement(self) -> bool:
        """Whether the one is true exactly when the other is not."""
        return sum(item.outcome is Outcome.COMPLEMENT for item in self.comparisons) == 1

    @property
    def score(self) -> float:
        """Sum of the weights."""
        return sum(item.weight for item in self.comparisons)

    @property
    def same_topic(self) -> bool:
        """Whether subject or topic agree although something else does not."""
        return any(
            item.slot in {"subject", "game", "topic"} and item.outcome is Outcome.EQUAL for item in self.comparisons
        )


_HOPELESS = frozenset({Outcome.VETO, Outcome.DISJOINT})


def ruled_out(kalshi: Slots, polymarket: Slots, *, two_way: bool = False) -> bool:
    """Whether a typed slot or a pair of names vetoes: the cheap part of :func:`compare`, enough for most candidates."""
    for slot, check, _ in _CHECKS:
        first, second = getattr(kalshi, slot), getattr(polymarket, slot)
        if first is not None and second is not None and check(first.value, second.value)[0] in _HOPELESS:
            return True
    if kalshi.subject is None or polymarket.subject is None:
        return False
    return any(item.outcome in _HOPELESS for item in _who(kalshi, polymarket, two_way=two_way))


def compare(kalshi: Slots, polymarket: Slots, *, two_way: bool = False) -> Verdict:
    """Compare two propositions.

    Args:
        kalshi: facts of the Kalshi market's YES.
        polymarket: facts of one Polymarket outcome.
        two_way: whether the contest that both name has no third result, so that one side's loss is the other's win.
    """
    found = [
        *_typed(kalshi, polymarket),
        *_who(kalshi, polymarket, two_way=two_way),
        *_topic(kalshi, polymarket),
    ]
    outcomes = {item.outcome for item in found}
    if not outcomes & _HOPELESS:
        found += _aspects(kalshi, polymarket, nested=bool(outcomes & {Outcome.NARROWER, Outcome.WIDER}))
    if kalshi.affirmative != polymarket.affirmative:
        found.append(Comparison("polarity", None, None, Outcome.COMPLEMENT, 0.0, "one side is negated"))
    if kalshi.game is not None or polymarket.game is not None:
        found.append(Comparison("void", None, None, Outcome.CAVEAT, 0.0, "cancelled and tied contests not compared"))
    if unruled := _unruled(kalshi, polymarket):
        reason = f"{_listing(unruled)} is in both titles, but in the rules of one side alone"
        found.append(Comparison("coherence", None, None, Outcome.UNKNOWN, -3.0, reason))
    if kalshi.incomplete or polymarket.incomplete:
        found.append(Comparison("year", None, None, Outcome.UNKNOWN, -4.0, "a date without a year"))
    if sum(item.outcome is Outcome.COMPLEMENT for item in found) > 1:
        found.append(Comparison("polarity", None, None, Outcome.VETO, 0.0, "turned round more than once"))
    return Verdict(tuple(_settled(item, kalshi, polymarket) for item in found))


_REFERS = re.compile(
    r"\b(?:listed|respective|named|specified|following|this (?:team|candidate|player|person|country))\b"
)


def _unruled(kalshi: Slots, polymarket: Slots) -> frozenset[str]:
    """Names of both titles that one side's rules leave out while naming what the other market never speaks of.

    A title may promise what its rules do not: then the rules are another question.
    """
    if not kalshi.rules or not polymarket.rules:
        return frozenset()
    shared = frozenset(word for word in kalshi.names & polymarket.names if len(word) > 3) - TOPICLESS - DISTINGUISHING
    for side, other in ((kalshi, polymarket), (polymarket, kalshi)):
        lacking = frozenset(word for word in shared if not _related(word, words(side.rules)))
        if lacking and _REFERS.search(fold(side.rules)) is None and _foreign_names(side, other):
            return lacking
    return frozenset()


def _foreign_names(side: Slots, other: Slots) -> bool:
    """Whether the deciding sentence names what no text of the other market holds."""
    return any(
        token.capital
        and len(token.text) > 3
        and token.text.isalpha()
        and token.text not in FUNCTION_WORDS
        and token.text not in TOPICLESS
        and not _spoken(token.text, other, related=True)
        for token in tokenise(deciding_sentence(side.rules))[2:]
    )


_SINGLE_INSTANT = frozenset({Observation.POINT, Observation.SEQUENCE})
_CUMULATIVE = frozenset({Observation.TOUCH, Observation.WINDOW, Observation.COUNT})
_OVER_TIME = frozenset({Observation.TOUCH, Observation.WINDOW, Observation.SEQUENCE})


def _settled(item: Comparison, kalshi: Slots, polymarket: Slots) -> Comparison:
    """A part of a longer time or of more values is a part of the question only where the question is cumulative."""
    observed = {fact.value for fact in (kalshi.observation, polymarket.observation) if fact is not None}
    nested = item.slot in {"deadline", "window_start"} and item.outcome in {Outcome.NARROWER, Outcome.WIDER}
    if nested and (observed & _SINGLE_INSTANT or _exact_count(kalshi) or _exact_count(polymarket)):
        return msgspec.structs.replace(item, outcome=Outcome.VETO, weight=0.0)
    if item.slot == "ordinal" and item.outcome is Outcome.UNKNOWN:
        told, other = (item.kalshi, polymarket) if item.kalshi is not None else (item.polymarket, kalshi)
        if told is not None and told.value != "first" and not _spoken(told.value, other):
            reason = f"one side alone asks for the {told.value}"
            return msgspec.structs.replace(item, outcome=Outcome.VETO, reason=reason)
    if item.slot == "window_start" and item.outcome is Outcome.UNKNOWN and (since := _short_window(kalshi, polymarket)):
        outcome = Outcome.NARROWER if item.kalshi is not None else Outcome.WIDER
        return msgspec.structs.replace(item, outcome=outcome, reason=f"one side counts from {since:%Y-%m-%d} only")
    if item.slot == "interval" and item.outcome is Outcome.COMPLEMENT and _over_time(kalshi, polymarket, observed):
        # A price can touch both sides of a threshold, and neither.
        reason = "both can be true at different times"
        return msgspec.structs.replace(item, outcome=Outcome.VETO, weight=0.0, reason=reason)
    if item.slot == "interval" and item.outcome is Outcome.DISJOINT and observed != {Observation.POINT}:
        return msgspec.structs.replace(item, outcome=Outcome.VETO)
    return item


def _short_window(kalshi: Slots, polymarket: Slots) -> datetime | None:
    """Where counting begins on the one side that tells it, if that is shortly before its deadline.

    "In December" is part of "by December 31". A year's beginning is when such markets are listed, and leaves nothing
    out.
    """
    observed = {fact.value for fact in (kalshi.observation, polymarket.observation) if fact is not None}
    for side in (kalshi, polymarket):
        if side.window_start is not None and side.deadline is not None and observed <= _CUMULATIVE:
            since = side.window_start.value
            if since == kalshi.ticker_month:
                return None
            short = side.deadline.value - since <= _SHORT_WINDOW
            return since if short and kalshi.deadline is not None and polymarket.deadline is not None else None
    return None


def _over_time(kalshi: Slots, polymarket: Slots, observed: set[Observation]) -> bool:
    touched = any(side.interval is not None and side.interval.value.touch for side in (kalshi, polymarket))
    return touched or bool(observed & _OVER_TIME)


def _exact_count(slots: Slots) -> bool:
    """Whether the question is for so many and no more, which more time may spoil."""
    counted = slots.observation is not None and slots.observation.value is Observation.COUNT
    return counted and not (slots.interval is not None and slots.interval.value.high is None)


def unspoken(slots: Slots, other: Slots) -> frozenset[str]:
    """Topic words of a market that no text of another holds in any form."""
    return frozenset(
        word
        for word in slots.topic - FUNCTION_WORDS - TOPICLESS - _acting(slots, other)
        if not _spoken(word, other, related=True)
    )


def unread(slots: Slots, other: Slots) -> frozenset[str]:
    """Words of a title that a slot should carry and none does, and that the other market's titles do not have.

    A word is passed over as read only where it was read: "title" is of no interest unless nothing says which.
    """
    return frozenset(
        word
        for word in (slots.title_words & TELLING) - _carried(slots)
        if not _related(word, other.topic) and not _titled(word, other, related=True)
    )


def _carried(slots: Slots) -> frozenset[str]:
    """Words of the titles that a slot has read."""
    carried: set[str] = set()
    for name, fact in slots.facts():
        if name == "interval":
            # Its text is the whole title, of which it reads the comparator and the unit.
            carried |= COMPARATIVES
        elif name == "action" and fact.value in _SPANNING:
            ends = fact.text.split()
            carried |= words(f"{ends[0]} {ends[-1]}")
        elif fact.source != "rules":
            carried |= words(fact.text)
    return frozenset(carried)


def names_apart(kalshi: Slots, polymarket: Slots) -> tuple[frozenset[str], frozenset[str]]:
    """Names of each side's titles that are in no title of the other: the rules may speak of them in passing."""
    first, second = (
        frozenset(word for word in (side.names & side.topic) - TOPICLESS if not _titled(word, other))
        for side, other in ((kalshi, polymarket), (polymarket, kalshi))
    )
    return first, second


def spoken_of(name: tuple[str, ...], other: Slots) -> bool:
    """Whether the texts of a market hold every word of a name."""
    return all(_spoken(word, other) for word in name)


def _titled(word: str, slots: Slots, *, related: bool = False) -> bool:
    """Whether a title of a market, its event's included, holds a word."""
    check = _related if related else _found
    return any(check(word, words(text)) for text in slots.context if text != slots.rules)


Check = tuple[Outcome, float, str]
"""(outcome, weight, reason)."""


def _same(weight: float) -> Callable[[Any, Any], Check]:
    def check(first: Any, second: Any) -> Check:
        return (Outcome.EQUAL, weight, "") if first == second else (Outcome.VETO, 0.0, f"{first} is not {second}")

    return check


def _alike(weight: float) -> Callable[[frozenset[Any], frozenset[Any]], Check]:
    def check(first: frozenset[Any], second: frozenset[Any]) -> Check:
        if first == second:
            return Outcome.EQUAL, weight, ""
        return Outcome.VETO, 0.0, f"{_listing(first)} is not {_listing(second)}"

    return check


def _shared(weight: float) -> Callable[[frozenset[Any], frozenset[Any]], Check]:
    def check(first: frozenset[Any], second: frozenset[Any]) -> Check:
        if first & second:
            return Outcome.EQUAL, weight, ""
        return Outcome.VETO, 0.0, f"{_listing(first)} is not {_listing(second)}"

    return check


def _nested(weight: float) -> Callable[[frozenset[Any], frozenset[Any]], Check]:
    def check(first: frozenset[Any], second: frozenset[Any]) -> Check:
        if first <= second or second <= first:
            return Outcome.EQUAL, weight, ""
        return Outcome.VETO, 0.0, f"{_listing(first)} is not {_listing(second)}"

    return check


def _listing(values: frozenset[Any]) -> str:
    return " ".join(sorted(str(value) for value in values))


def _interval(first: Interval, second: Interval) -> Check:
    if not first.same_unit(second):
        return Outcome.VETO, 0.0, f"unit {first.unit} is not {second.unit}"
    # What one side counts is whole on the other, too.
    if "count" in {first.unit, second.unit}:
        first, second = (
            on_grid(replace(side, unit="count" if side.unit in {"", "%"} else side.unit)) for side in (first, second)
        )
    if first.same_ends(second):
        if (first.low_closed, first.high_closed) == (second.low_closed, second.high_closed):
            return Outcome.EQUAL, 3.0, ""
        return _boundary(Outcome.CAVEAT, first, second)
    other = second.complement()
    if other is not None and first.same_ends(other):
        exact = (first.low_closed, first.high_closed) == (other.low_closed, other.high_closed)
        return (Outcome.COMPLEMENT, 2.5, "") if exact else _boundary(Outcome.COMPLEMENT, first, second)
    if _bps_step(first) == _bps_step(second) is not None:
        return Outcome.CAVEAT, 2.0, f"equal on a grid of 25 bps: {first} against {second}"
    if _cent_apart(first, second):
        return Outcome.CAVEAT, 2.0, f"boundary: {first} against {second}, a cent apart"
    if first.within(second):
        return Outcome.NARROWER, 2.0, f"{first} is part of {second}"
    if second.within(first):
        return Outcome.WIDER, 2.0, f"{second} is part of {first}"
    if first.disjoint(second):
        return Outcome.DISJOINT, 0.0, f"{first} is not {second}"
    return Outcome.VETO, 0.0, f"{first} is not {second}"


def _cent_apart(first: Interval, second: Interval) -> bool:
    """Whether two brackets of prices differ by a cent at their upper end: "to 7,399.99" is "to 7,400"."""
    if first.low is None or first.low != second.low or first.high is None or second.high is None:
        return False
    return {first.unit, second.unit} <= {"usd", ""} and abs(first.high - second.high) == _CENT


def _boundary(outcome: Outcome, first: Interval, second: Interval) -> Check:
    """Ends that differ only in inclusion: nothing on a price quoted finely, a real case on a published percentage."""
    reason = f"boundary: {first} against {second}, one end counted in on one side alone"
    if {first.unit, second.unit} <= {"usd", ""}:
        return outcome, 2.5, reason
    if outcome is Outcome.COMPLEMENT:
        return Outcome.VETO, 0.0, reason
    return (Outcome.NARROWER if first.within(second) else Outcome.WIDER), 2.0, reason


def _bps_step(interval: Interval) -> object:
    """Rate moves come in steps of 25 bps: "more than 25" is "50 or more" as long as the grid holds."""
    if interval.unit != "bps" or interval.low is None or interval.high is not None or interval.low % 25:
        return None
    return interval.low if interval.low_closed else interval.low + 25


def _deadline(first: Any, second: Any) -> Check:
    gap = abs(first - second)
    if not gap:
        return Outcome.EQUAL, 2.0, ""
    if gap < _DAY:
        return Outcome.CAVEAT, 1.5, f"deadlines {gap} apart"
    reason = f"{first:%Y-%m-%d %H:%M} is not {second:%Y-%m-%d %H:%M} UTC"
    return (Outcome.NARROWER if first < second else Outcome.WIDER), 1.0, reason


def _window_start(first: Any, second: Any) -> Check:
    if abs(first - second) < _DAY:
        return Outcome.EQUAL, 0.5, ""
    reason = f"counts from {first:%Y-%m-%d}, not from {second:%Y-%m-%d}"
    return (Outcome.NARROWER if first > second else Outcome.WIDER), 0.0, reason


def _meeting(first: tuple[int | None, int], second: tuple[int | None, int]) -> Check:
    if first[1] != second[1]:
        return Outcome.VETO, 0.0, f"month {first[1]} is not {second[1]}"
    if first[0] is None or second[0] is None:
        return Outcome.UNKNOWN, 0.0, "a meeting without a year"
    return _same(2.0)(first[0], second[0])


def _start(first: Any, second: Any) -> Check:
    gap = abs(first - second)
    if gap <= _START_SURE:
        return Outcome.EQUAL, 2.0, ""
    if gap <= _START_MOST:
        return Outcome.CAVEAT, 1.0, f"start {gap} apart"
    return Outcome.VETO, 0.0, f"start {gap} apart"


def _observation(first: Observation, second: Observation) -> Check:
    if first is second:
        return Outcome.EQUAL, 0.5, ""
    return Outcome.VETO, 0.0, f"{first.value} is not {second.value}"


def _action(first: Action, second: Action) -> Check:
    return _same(1.5)(first, second)


def _direction(first: Direction, second: Direction) -> Check:
    if {first, second} == {Direction.HOLD, Direction.CHANGE}:
        return Outcome.COMPLEMENT, 2.0, ""
    return _same(2.0)(first, second)


def _ranked(weight: float, *narrow_first: str) -> Callable[[str, str], Check]:
    """Values of which an earlier one is a case of every later one."""

    def check(first: str, second: str) -> Check:
        if first == second:
            return Outcome.EQUAL, weight, ""
        if first not in narrow_first or second not in narrow_first:
            return Outcome.VETO, 0.0, f"{first} is not {second}"
        narrower = narrow_first.index(first) < narrow_first.index(second)
        return (Outcome.NARROWER if narrower else Outcome.WIDER), 0.0, f"{first} is not {second}"

    return check


def _duration(first: str, second: str) -> Check:
    """How long something has to last or to be for: any length takes in every other."""
    if first == second:
        return Outcome.EQUAL, 0.5, ""
    if "any" in (first, second):
        return (Outcome.WIDER if first == "any" else Outcome.NARROWER), 0.5, f"{first} is not {second}"
    return Outcome.VETO, 0.0, f"{first} is not {second}"


_WRITTEN = {"announced": "announcement", "effective": "effect"}


def _evidence(first: str, second: str) -> Check:
    """Which step is enough. What the rules alone tell of it says nothing against a title that tells nothing."""
    ours, theirs = _WRITTEN.get(first, first), _WRITTEN.get(second, second)
    if ours != theirs and "act" in (first, second) and {first, second} & {"announcement", "effect"}:
        return Outcome.UNKNOWN, 0.0, f"{first} is not {second}"
    if {ours, theirs} == {"effect", "announcement"} and {first, second} & _WRITTEN.keys():
        return Outcome.VETO, 0.0, f"{first} is not {second}"
    return _ranked(0.25, "effect", "announcement")(ours, theirs)


_OFFICE_HOLDERS = frozenset({"president", "pm", "government", "administration", "congress", "king", "pope"})


def _actor(first: tuple[str, ...], second: tuple[str, ...]) -> Check:
    """Who acts. A title may name the person or the office; anybody else is another actor."""
    if (first[0] == "be") != (second[0] == "be"):
        return Outcome.UNKNOWN, 0.0, "told from two sides"
    ours, theirs = (tuple(word for word in name if word != "be") for name in (first, second))
    if same_name(ours, theirs) or any(_related(word, frozenset(theirs)) for word in ours if len(word) > 3):
        return Outcome.EQUAL, 0.0, ""
    reason = f"{' '.join(ours)} is not {' '.join(theirs)}"
    if _OFFICE_HOLDERS & {*ours, *theirs}:
        return Outcome.UNKNOWN, -2.0, reason
    return Outcome.VETO, 0.0, reason


_CHECKS: tuple[tuple[str, Callable[[Any, Any], Check], float], ...] = (
    ("action", _action, 0.0),
    ("direction", _direction, -1.0),
    ("interval", _interval, -2.0),
    ("observation", _observation, -0.25),
    ("deadline", _deadline, -0.5),
    ("window_start", _window_start, 0.0),
    ("on", _same(2.0), -0.5),
    ("clock", _same(0.5), 0.0),
    ("meeting", _meeting, -0.5),
    ("editions", _shared(1.0), -0.25),
    ("metric", _same(1.0), -0.5),
    ("asset", _same(1.5), -0.5),
    ("source_class", _same(0.5), 0.0),
    ("station", _nested(0.5), 0.0),
    ("award", _same(1.0), -0.25),
    ("period", _same(0.25), -0.5),
    ("round", _same(0.5), -0.25),
    ("market_type", _same(0.5), -0.25),
    ("start", _start, 0.0),
    ("object", _nested(1.0), -1.0),
    ("mode", _ranked(0.25, "in person", "federal", "pardon alone", "any"), 0.0),
    ("evidence", _evidence, 0.0),
    ("gender", _same(0.25), 0.0),
    ("format", _same(0.25), 0.0),
    ("party", _same(0.5), -0.25),
    ("office", _same(0.5), -0.25),
    ("competition", _same(1.0), -0.25),
    ("numbers", _nested(0.5), -0.25),
    ("ways", _same(0.25), 0.0),
    ("place", _shared(0.5), 0.0),
    ("death", _ranked(0.0, "excluded", "counts"), 0.0),
    ("duration", _duration, 0.0),
    ("quarter", _same(0.5), -1.0),
    ("actor", _actor, 0.0),
    ("ordinal", _same(0.25), 0.0),
    ("qualifier", _alike(0.25), -0.25),
)
"""(slot, comparison of two known values, weight where one side alone knows it)."""


TYPED = frozenset(slot for slot, _, _ in _CHECKS)
"""Slots that have a comparison of their own."""


def _typed(kalshi: Slots, polymarket: Slots) -> Iterator[Comparison]:
    for slot, check, missing in _CHECKS:
        first, second = getattr(kalshi, slot), getattr(polymarket, slot)
        if first is None and second is None:
            continue
        if first is None or second is None:
            yield Comparison(slot, first, second, Outcome.UNKNOWN, missing)
            continue
        outcome, weight, reason = check(first.value, second.value)
        yield Comparison(slot, first, second, outcome, weight, reason)


# --- names --------------------------------------------------------------------------------------------------


def same_name(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Whether one name is the other, shortened: every word of the shorter is in the longer.

    A single letter stands for a word that it begins. Words that make another name of a name ("South", "Jr") must be
    on both sides or on neither.
    """
    short, rest = sorted((list(first), list(second)), key=len)
    if not short:
        return False
    if len(short) == 1 and len(rest) > 2 and short[0] == "".join(word[0] for word in rest):
        return True  # "PSG" for a name of three words
    # Letters last, so that the L of "Los Angeles L" is not taken for "Los".
    for word in sorted(short, key=lambda word: len(word) == 1):
        partner = next((other for other in rest if _same_word(word, other)), None)
        if partner is None:
            return False
        rest.remove(partner)
    return not DISTINGUISHING.intersection(rest)


def _same_word(first: str, second: str) -> bool:
    if first == second:
        return True
    if len(first) == 1 or len(second) == 1:
        return first[:1] == second[:1] and not (first.isdigit() or second.isdigit())
    return fold_spelling(first) == fold_spelling(second)


def _who(kalshi: Slots, polymarket: Slots, *, two_way: bool) -> Iterator[Comparison]:
    game_equal = False
    if kalshi.game is not None and polymarket.game is not None:
        game_equal = _same_sides(kalshi.game.value, polymarket.game.value)
        outcome, weight, reason = (Outcome.EQUAL, 3.0, "") if game_equal else (Outcome.VETO, 0.0, "another contest")
        yield Comparison("game", kalshi.game, polymarket.game, outcome, weight, reason)
    first, second = kalshi.subject, polymarket.subject
    if first is not None and second is not None:
        if same_name(first.value, second.value):
            yield Comparison("subject", first, second, Outcome.EQUAL, 4.0)
        elif game_equal and two_way and _plain_winner(kalshi, polymarket):
            yield Comparison("subject", first, second, Outcome.COMPLEMENT, 3.0, "the other side of a two-way contest")
        else:
            yield Comparison(
                "subject", first, second, Outcome.VETO, 0.0, f"{' '.join(first.value)} is not {' '.join(second.value)}"
            )
    elif first is not None or second is not None:
        yield _one_subject(kalshi, polymarket, in_game=game_equal)


def _plain_winner(kalshi: Slots, polymarket: Slots) -> bool:
    """Whether both ask who wins and nothing more: one side's not winning by so much is no win of the other."""
    sides = (kalshi, polymarket)
    if any(side.subject is not None and "draw" in side.subject.value for side in sides):
        return False
    moneyline = all(side.market_type is not None and side.market_type.value == "moneyline" for side in sides)
    return moneyline or all(side.interval is None and side.market_type is None for side in sides)


_SIDE_UNTOLD = -8.0
"""Outweighs all that two markets on one contest share: without its side a bet on it is not known."""


def _one_subject(kalshi: Slots, polymarket: Slots, *, in_game: bool) -> Comparison:
    """One side names its answer; the other must at least speak of it."""
    named, other = (kalshi, polymarket) if kalshi.subject is not None else (polymarket, kalshi)
    assert named.subject is not None
    first, second = kalshi.subject, polymarket.subject
    wanted = [word for word in named.subject.value if len(word) > 1]
    missing = [word for word in wanted if not _found(word, other.title_words)]
    if in_game or not wanted:
        # Both sides of the contest are in the title, so that being mentioned does not tell which side is meant.
        return Comparison("subject", first, second, Outcome.UNKNOWN, _SIDE_UNTOLD, "which side is meant is not told")
    if not missing:
        return Comparison("subject", first, second, Outcome.EQUAL, 3.0)
    if any(word in DISTINGUISHING for word in missing) or len(missing) == len(wanted):
        if not any(_spoken(word, other) for word in missing):
            return Comparison("subject", first, second, Outcome.VETO, 0.0, f"{' '.join(missing)} is not spoken of")
        return Comparison("subject", first, second, Outcome.UNKNOWN, -1.0)
    return Comparison("subject", first, second, Outcome.EQUAL, 2.0, f"without {' '.join(missing)}")


def _same_sides(first: tuple[tuple[str, ...], ...], second: tuple[tuple[str, ...], ...]) -> bool:
    straight = same_name(first[0], second[0]) and same_name(first[1], second[1])
    return straight or (same_name(first[0], second[1]) and same_name(first[1], second[0]))


@lru_cache(maxsize=4_096)
def _by_stem(among: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Words by their first three letters: forms of a word share them."""
    stems: dict[str, list[str]] = defaultdict(list)
    for word in sorted(among):
        stems[word[:3]].append(word)
    return {stem: tuple(found) for stem, found in stems.items()}


def _found(word: str, among: frozenset[str]) -> bool:
    """Whether a word, a spelling of it, its plural or its demonym is among others."""
    if word in among:
        return True
    for other in _by_stem(among).get(word[:3], ()):
        if fold_spelling(other) == fold_spelling(word):
            return True
        short, long = sorted((word, other), key=len)
        if len(short) >= 4 and long.startswith(short) and long[len(short) :] in _DEMONYM_ENDINGS:
            return True
    return False


def _spoken(word: str, slots: Slots, *, related: bool = False) -> bool:
    """Whether any text of a market, its rules included, holds a word."""
    check = _related if related else _found
    return any(check(word, words(text)) for text in slots.context)


def _decides(word: str, slots: Slots) -> bool:
    """Whether a word is in the sentence that decides a market; in its rules, where none is found."""
    return _found(word, words(deciding_sentence(slots.rules) or slots.rules))


def _related(word: str, among: frozenset[str]) -> bool:
    """Whether a common word or another form of it is among others."""
    return _found(word, among) or (
        len(word) >= 5 and any(other[:5] == word[:5] for other in _by_stem(among).get(word[:3], ()))
    )


def _topic(kalshi: Slots, polymarket: Slots) -> Iterator[Comparison]:
    """Names and common words that no typed slot reads: each must be found in the other market."""
    skip = FUNCTION_WORDS | TOPICLESS
    yield from _coordinated(kalshi, polymarket)
    first_topic, second_topic = (
        kalshi.topic - _acting(kalshi, polymarket),
        polymarket.topic - _acting(polymarket, kalshi),
    )
    lost_first = frozenset(word for word in (kalshi.names & first_topic) - skip if not _spoken(word, polymarket))
    lost_second = frozenset(word for word in (polymarket.names & second_topic) - skip if not _spoken(word, kalshi))
    ours, theirs = names_apart(kalshi, polymarket)
    # What the other's rules say beside the question ("a deal for Cumulus does not count") is no answer to a title.
    unsaid_first = lost_first | frozenset(word for word in ours & first_topic if not _decides(word, polymarket))
    unsaid_second = lost_second | frozenset(word for word in theirs & second_topic if not _decides(word, kalshi))
    if unsaid_first and unsaid_second:
        lost_first, lost_second = unsaid_first, unsaid_second
    if kalshi.subject is not None and polymarket.subject is not None:
        names = kalshi.subject.value, polymarket.subject.value
        if same_name(*names):
            # One name, written in two ways.
            lost_first, lost_second = lost_first - {*names[0]}, lost_second - {*names[1]}
    if lost_first and lost_second:
        reason = f"{_listing(lost_first)} is not {_listing(lost_second)}"
        if _same_contest(kalshi, polymarket):
            # Sides and start tell the contest; leagues and first names are named on one venue and not on the other.
            yield Comparison("entity", None, None, Outcome.UNKNOWN, -1.0, reason)
        else:
            yield Comparison("entity", None, None, Outcome.VETO, 0.0, reason)
    elif lost_first or lost_second:
        venue, lost = ("Kalshi", lost_first) if lost_first else ("Polymarket", lost_second)
        reason = f"only {venue} speaks of {_listing(lost)}"
        yield Comparison("entity", None, None, Outcome.UNKNOWN, -0.75 * min(3, len(lost)), reason)
    first = frozenset(word for word in first_topic if not _related(word, polymarket.title_words))
    second = frozenset(word for word in second_topic if not _related(word, kalshi.title_words))
    far_first = frozenset(word for word in first if not _spoken(word, polymarket, related=True))
    far_second = frozenset(word for word in second if not _spoken(word, kalshi, related=True))
    titled = len(first_topic) + len(second_topic) - len(first) - len(second)
    # A word that only the other's rules hold is half as good as one in its title.
    shared = titled + 0.5 * (len(first - far_first) + len(second - far_second))
    total = len(first_topic) + len(second_topic)
    if total:
        outcome = Outcome.EQUAL if shared * 2 >= total else Outcome.UNKNOWN
        least, most = sorted((len(far_first), len(far_second)))
        weight = 3.0 * shared / total - 0.75 * least - 0.25 * min(4, most)
        reason = f"{titled} of {total} words in both titles, {shared:g} with the rules"
        yield Comparison("topic", None, None, outcome, round(weight, 4), reason)


_SPELT_OUT = frozenset(
    {
        "tournament_winner", "award", "nominee", "election_winner", "series_advance", "act_by_deadline",
        "repeatable_act", "meeting", "visit", "office_exit",
    }
)  # fmt: skip
"""Kinds whose titles say who does or wins what: a common word besides ("jury vote", "interim") is another question."""


_AT_A_PLACE = frozenset({"meeting"})
"""Kinds that one side may ask for at one place."""


def _aspects(kalshi: Slots, polymarket: Slots, *, nested: bool) -> Iterator[Comparison]:
    """Common words that no text of the other market has: one that picks an aspect, or one on either side.

    A paraphrase is spelt out in the rules; where they do not, "deliver" on one side and "produce" on the other are two
    questions. Capitalised words are compared as names. Of two questions of which one is part of the other (``nested``)
    such a word is weighed as a condition where the implication is decided.
    """
    ours, theirs = (
        unspoken(side, other) - side.names - _carried(side) - CATEGORIES
        for side, other in ((kalshi, polymarket), (polymarket, kalshi))
    )
    ruled = bool(kalshi.rules and polymarket.rules)
    if ours and theirs and ruled:
        reason = f"{_listing(ours)} is not {_listing(theirs)}"
        yield Comparison("aspect", None, None, Outcome.VETO, 0.0, reason)
        return
    spelt_out = ruled and not nested and bool({kalshi.family, polymarket.family} & _SPELT_OUT)
    for venue, side, other, words_alone in (
        ("Kalshi", kalshi, polymarket, ours),
        ("Polymarket", polymarket, kalshi, theirs),
    ):
        alone = frozenset(word for word in side.title_words & ASPECTS if not _spoken(word, other, related=True))
        if spelt_out:
            alone |= words_alone
        if ruled and not nested and {kalshi.family, polymarket.family} & _AT_A_PLACE:
            said = fold(side.context[0]) if side.context else ""
            alone |= frozenset(
                word
                for word in unspoken(side, other) & side.names
                if re.search(rf"\bin (?:the )?{re.escape(word)}\b", said)
            )
        if alone:
            reason = f"only {venue} speaks of {_listing(alone)}"
            yield Comparison("aspect", None, None, Outcome.VETO, 0.0, reason)


def _same_contest(kalshi: Slots, polymarket: Slots) -> bool:
    if kalshi.game is None or polymarket.game is None or kalshi.start is None or polymarket.start is None:
        return False
    return _same_sides(kalshi.game.value, polymarket.game.value) and (
        abs(kalshi.start.value - polymarket.start.value) <= _START_SURE
    )


def _acting(slots: Slots, other: Slots) -> frozenset[str]:
    """Words that say what both say in other words ("IPO" and "go public"): the action has compared them."""
    if slots.action is None or other.action is None or slots.action.value is not other.action.value:
        return frozenset()
    if slots.action.value in _SPANNING:
        return frozenset()
    return words(slots.action.text) - other.title_words


_SPANNING = frozenset(
    {
        Action.MARGIN,
        Action.REACH_FINAL,
        Action.PLAYOFFS,
        Action.ELECTED,
        Action.RUN,
        Action.WIN_DIVISION,
        Action.CHAMBER,
    }
)
"""Acts whose words may stand apart ("win the special election"): what is between them is not theirs."""


def _coordinated(kalshi: Slots, polymarket: Slots) -> Iterator[Comparison]:
    """A list of names says all or any of them: leaving one out is another question, though a wider or narrower one."""
    for first, second in ((kalshi, polymarket), (polymarket, kalshi)):
        there = [any(_found(word, second.title_words) for word in name) for name in first.coordinated]
        if len(there) > 1 and any(there) and not all(there):
            missing = " ".join(
                " ".join(name) for name, found in zip(first.coordinated, there, strict=True) if not found
            )
            # Any of several is wider than one of them, all of several together are narrower than some of them.
            wider = first if first.any_of else second
            outcome = Outcome.WIDER if wider is kalshi else Outcome.NARROWER
            yield Comparison("entity", None, None, outcome, 0.0, f"{missing} is listed on one side alone")
