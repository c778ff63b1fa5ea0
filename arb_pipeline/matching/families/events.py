"""Meetings, visits, announcements and other acts by a deadline, and counts of them."""

import re

from msgspec.structs import replace

from arb_pipeline.matching.families.reading import Family, Reading
from arb_pipeline.matching.slots import Fact, Observation, Slots
from arb_pipeline.matching.vocabulary import Action

__all__ = ["FAMILIES"]

_ACTS = {
    Action.PARDON, Action.IMPEACH, Action.CHARGE, Action.CONVICT, Action.SUE, Action.ENDORSE, Action.RUN,
    Action.RECOGNISE, Action.BUY, Action.ACQUIRE, Action.CONFIRM, Action.JOIN, Action.DEFAULT, Action.DOWNGRADE,
    Action.ABOLISH, Action.CEASEFIRE, Action.RELEASE, Action.IPO, Action.ANNOUNCE, Action.INVADE, Action.STRIKE,
    Action.SIGN, Action.ARREST, Action.JAIL, Action.SENTENCE, Action.PEACE,
}  # fmt: skip

_REPEATABLE = {
    Action.CHARGE, Action.SUE, Action.ENDORSE, Action.BUY, Action.ACQUIRE, Action.CEASEFIRE, Action.RELEASE,
    Action.ANNOUNCE, Action.INVADE, Action.STRIKE, Action.SIGN, Action.ARREST, Action.JAIL, Action.PEACE,
    Action.DEFAULT, Action.DOWNGRADE,
}  # fmt: skip
"""Acts that may have happened before too, so that it matters from when they count."""

_STEPS = (
    ("announced", Action.ANNOUNCE, re.compile(r"\b(?:announce(?:s|d|ments?)?|declare[sd]?)\b")),
    ("signed", Action.SIGN, re.compile(r"\b(?:sign(?:s|ed|ing)?|ratif(?:y|ies|ied))\b")),
    ("filed", None, re.compile(r"\b(?:files?|filed|filing)\b")),
    ("effective", None, re.compile(r"\b(?:(?:takes?|come[s]? into|goes into|in) (?:effect|force)|effective)\b")),
)
_PROSECUTED = {Action.CHARGE, Action.CONVICT}
_FEDERAL = re.compile(r"\bfederal(?:ly)?\b")
_CLEMENCY = re.compile(r"\b(?:commut\w+|reprieve|clemency)\b")
_STATE_TOO = re.compile(r"\b(?:federal or state|state or federal|federal, state)\b")


def _meeting(reading: Reading) -> Slots | None:
    slots = reading.slots
    met = slots.action is not None and slots.action.value is Action.MEET
    return slots if met and slots.meeting is None else None


def _visit(reading: Reading) -> Slots | None:
    slots = reading.slots
    return slots if slots.action is not None and slots.action.value is Action.VISIT else None


def _act(reading: Reading) -> Slots | None:
    slots = reading.slots
    if slots.action is None or slots.action.value not in _ACTS or slots.deadline is None or slots.interval is not None:
        return None
    mode = slots.mode
    if slots.action.value in _PROSECUTED:
        mode = _jurisdiction(reading)
    elif slots.action.value is Action.PARDON:
        mode = _clemency(reading)
    return replace(slots, mode=mode, evidence=_step(reading, slots.action.value))


def _repeatable_act(reading: Reading) -> Slots | None:
    action = reading.slots.action
    return _act(reading) if action is not None and action.value in _REPEATABLE else None


def _step(reading: Reading, action: Action) -> Fact[str]:
    """Which step is enough: that it is announced, filed or signed, that it takes effect, or the act itself."""
    for name, own, pattern in _STEPS:
        if action is not own and (match := pattern.search(reading.titles)):
            return Fact(name, "title", match.group())
    return reading.slots.evidence or Fact("act", "family", "nothing else is told")


def _jurisdiction(reading: Reading) -> Fact[str]:
    """Whether only federal courts count; a state's do too where nothing says otherwise."""
    for source, text in (("title", reading.around), ("rules", reading.deciding)):
        if (match := _FEDERAL.search(text)) and not _STATE_TOO.search(text):
            return Fact("federal", source, match.group())
    return Fact("any", "family")


def _clemency(reading: Reading) -> Fact[str] | None:
    """Whether a commutation or a reprieve counts beside a pardon, as the rules tell."""
    if not reading.rules:
        return None
    if match := _CLEMENCY.search(reading.rules):
        return Fact("any", "rules", match.group())
    return Fact("pardon alone", "rules", "no other clemency is told")


def _count(reading: Reading) -> Slots | None:
    slots = reading.slots
    counted = slots.observation is not None and slots.observation.value is Observation.COUNT
    return slots if counted and (slots.interval is not None or slots.numbers is not None) else None


FAMILIES = (
    Family("count", _count, ("interval", "deadline")),
    Family("meeting", _meeting, ("action", "deadline", "mode"), optional=("office",)),
    Family("visit", _visit, ("action", "deadline"), ("scope",), optional=("office",)),
    Family("repeatable_act", _repeatable_act, ("action", "deadline", "evidence"), optional=("office",)),
    # Such an act happens once: a start of counting that lies before the listing leaves nothing out.
    Family("act_by_deadline", _act, ("action", "deadline", "evidence"), optional=("window_start", "office")),
)
