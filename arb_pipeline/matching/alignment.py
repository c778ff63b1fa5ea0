"""Events before markets: which listings are about one occasion, and whether an event's answers are all there are."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from arb_pipeline.matching.assignment import assign
from arb_pipeline.matching.numbers import Interval
from arb_pipeline.matching.slots import Fact, Proposition, is_placeholder
from arb_pipeline.matching.text import normalise
from arb_pipeline.model import Event, Market

__all__ = ["EventAlignment", "Exhaustiveness", "align_events", "exclusive", "exhaustiveness"]

_CATCH_ALL = re.compile(
    r"(?:any )?other|another|(?:the )?field|(?:any|some)(?:one|body) else"
    r"|none of (?:these|the (?:above|listed|others?))(?: (?:answers|candidates|names|options|people|teams))?"
)
"""Answers that stand for all that is not listed. "Nobody" and "None" are none: somebody who is not listed may be it."""

_DIGIT = re.compile(r"\d")
_SAID_OF_ALL = (
    "action", "affirmative", "asset", "competition", "deadline", "family", "game", "meeting", "metric", "observation",
    "on", "period", "place", "quarter", "source_class", "start", "station", "window_start",
)  # fmt: skip
"""What the answers of one partition have to agree on: brackets of two dates cover no line."""


@dataclass(frozen=True, slots=True)
class Exhaustiveness:
    """Whether one of an event's answers has to come true, and what proves or disproves it."""

    proven: bool
    why: str


@dataclass(frozen=True, slots=True)
class EventAlignment:
    """Two events about one occasion; ``pairs`` of their markets are the same question, the others have no partner."""

    kalshi_event_id: str
    polymarket_event_id: str
    pairs: int
    kalshi_only: int
    polymarket_only: int
    kalshi: Exhaustiveness
    polymarket: Exhaustiveness

    @property
    def complete(self) -> bool:
        """Whether every answer of either event has a partner, and both events are proven to be exhaustive."""
        return not self.kalshi_only and not self.polymarket_only and self.kalshi.proven and self.polymarket.proven


def align_events(
    left: Sequence[str], right: Sequence[str], edges: Mapping[tuple[int, int], float]
) -> dict[str, tuple[str, int]]:
    """One Polymarket event for each Kalshi event that shares several questions with it, and how many.

    Args:
        left, right: the event id of each market, by position.
        edges: weight of every pair of markets that could be the same question.
    """
    names = sorted(set(left)), sorted(set(right))
    position = [{name: number for number, name in enumerate(side)} for side in names]
    shared: Counter[tuple[int, int]] = Counter()
    rows: dict[tuple[int, int], set[int]] = defaultdict(set)
    for row, column in edges:
        key = position[0][left[row]], position[1][right[column]]
        if row not in rows[key]:
            rows[key].add(row)
            shared[key] += 1
    chosen = assign({key: float(count) for key, count in shared.items()})
    return {names[0][row]: (names[1][column], shared[row, column]) for row, column in chosen if shared[row, column] > 1}


def exhaustiveness(event: Event, propositions: Iterable[Proposition]) -> Exhaustiveness:
    """Prove that one answer has to come true: a catch-all answer, or intervals that leave no value out.

    Kalshi's flag "mutually exclusive" and Polymarket's negRisk say that at most one does, which alone proves nothing.
    Without it neither does a catch-all: of "Who will leave this year?" each name and "Another" ask for themselves, and
    all of them may be answered NO.

    The proof is of all the event's markets together, reserved ones of an augmented negRisk event included: a reserve
    that is named later is taken out of "Other", so that "Other" proves nothing without it.

    Args:
        event: with all its markets.
        propositions: what each says; not asked for where the answers' names decide.
    """
    if event.listed_markets is None:
        return Exhaustiveness(proven=False, why="how many answers are listed is not known")
    if len(event.markets) < event.listed_markets:
        return Exhaustiveness(proven=False, why="not all answers are read")
    catch_all = next((one for one in event.markets if _stands_for_the_rest(one)), None)
    reserved = sum(is_placeholder(one) and not _stands_for_the_rest(one) for one in event.markets)
    if catch_all is not None:
        if not exclusive(event):
            return Exhaustiveness(proven=False, why="the answers do not rule one another out: all may be wrong")
        with_reserves = f", with {reserved} reserved answers beside it" if reserved else ""
        return Exhaustiveness(proven=True, why=f"{catch_all.yes_title or 'Other'!r} is listed{with_reserves}")
    if reserved:
        return Exhaustiveness(proven=False, why="answers may be added")
    if not all(_DIGIT.search(one.yes_title or one.title) for one in event.markets):
        return Exhaustiveness(proven=False, why="the answers are names, and none stands for the rest")
    slots = [item.slots for item in propositions]
    intervals = [fact.value for one in slots if (fact := one.interval) is not None]
    if len(intervals) < 2 or len(intervals) != len(event.markets):
        return Exhaustiveness(proven=False, why="the answers are names, or not all are read")
    for name in _SAID_OF_ALL:
        said = {_said(getattr(one, name)) for one in slots}
        if len(said) > 1:
            return Exhaustiveness(proven=False, why=f"the answers differ in {name}")
    if any(one.touch for one in intervals):
        return Exhaustiveness(proven=False, why="values to be touched are no partition")
    return _partition(intervals)


def exclusive(event: Event) -> bool:
    """Whether at most one of an event's markets resolves YES, by the venue's word.

    Of an event of which only some markets are netted, the others may resolve YES beside them.
    """
    return event.mutually_exclusive and len({market.neg_risk for market in event.markets}) == 1


def _stands_for_the_rest(market: Market) -> bool:
    return bool(market.strike.get("negRiskOther")) or bool(
        _CATCH_ALL.fullmatch(normalise(market.yes_title).text.strip())
    )


def _said(value: object) -> object:
    return value.value if isinstance(value, Fact) else value


def _partition(intervals: Sequence[Interval]) -> Exhaustiveness:
    """Whether the intervals, put in order, cover the whole line without a gap or an overlap."""
    ordered = sorted(intervals, key=lambda one: (one.low is not None, one.low or 0))
    if ordered[0].low is not None or ordered[-1].high is not None:
        return Exhaustiveness(proven=False, why="a tail is not listed")
    for first, second in pairwise(ordered):
        if not first.adjoins(second):
            return Exhaustiveness(proven=False, why=f"{first} does not adjoin {second}")
    return Exhaustiveness(proven=True, why="the brackets adjoin and have both tails")
