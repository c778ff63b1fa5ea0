"""Nominations, elections, offices, legislation, approval."""

import re

from msgspec.structs import replace

from arb_pipeline.matching import vocabulary
from arb_pipeline.matching.dates import date_mentions
from arb_pipeline.matching.families.reading import Family, Reading, titled_subject
from arb_pipeline.matching.slots import Fact, Observation, Slots
from arb_pipeline.matching.text import fold
from arb_pipeline.matching.vocabulary import Action

__all__ = ["FAMILIES"]

_LEAVING = {Action.LEAVE, Action.RESIGN, Action.FIRE}
_CONTESTED = re.compile(r"\b(?:elections?|primary|primaries|midterms?|race|seat|nomination|governorship|ticket)\b")
_STAGES = (
    ("first round", re.compile(r"\b(?:first|1st) round\b")),
    ("second round", re.compile(r"\b(?:second|2nd) round\b|\brun-?off\b")),
)
_DISTRICT = re.compile(
    rf"\b(?P<code>{'|'.join(vocabulary.STATE_CODES)})-?(?P<number>\d{{1,2}})\b"
    rf"|\b(?P<state>{'|'.join(sorted(vocabulary.STATE_CODES.values(), reverse=True))})(?:'s)? "
    r"(?P<ordinal>\d{1,2})(?:st|nd|rd|th)? (?:congressional )?district\b"
)
_MAJORITY = re.compile(
    r"\bcontrols?\b|\bmidterms?\b|\bwins? the (?:us |u\.s\. )?(?:house|senate)\b(?! (?:race|seat|election))"
)
_DEATH = re.compile(r"\b(?:death|dies|die|dead|deceased|passes away)\b")
_EXCLUDED = re.compile(r"\b(?:not|no|except|exclud\w+|other than|void|fair)\b")
_TEMPORARY = re.compile(r"\btemporar(?:y|ily)\b")
_ANY_PERIOD = re.compile(r"\bfor any (?:length|period|amount) of time\b")
_BILL = re.compile(r"\b(?:bill|act|law|legislation|statute|ban|reauthori[sz]ation|resolution|amendment)\b")
_POLLSTER = re.compile(
    r"\b(silver bulletin|nate silver|realclearpolitics|real clear politics|rcp|fivethirtyeight|538|gallup|rasmussen"
    r"|economist|new york times|nyt|decision desk|ddhq|strength in numbers|votehub)\b"
)
_POLLSTER_CLASS = {
    "nate silver": "silver bulletin",
    "realclearpolitics": "rcp",
    "real clear politics": "rcp",
    "538": "fivethirtyeight",
    "nyt": "new york times",
    "ddhq": "decision desk",
}

_OF_THE_RACE = ("on", "deadline", "clock", "observation", "evidence", "start", "window_start")
"""What the year and the place of a contest settle."""


def _race(reading: Reading) -> Slots:
    """The year and the place of a contest, which titles leave out and rules tell."""
    slots = reading.slots
    return replace(
        slots,
        subject=titled_subject(reading),
        editions=slots.editions or _contest_years(reading),
        place=_place(reading),
        round=_stage(reading),
    )


def _stage(reading: Reading) -> Fact[str]:
    """Which part of the contest is asked about; a contest without such words is decided as a whole."""
    for value, pattern in _STAGES:
        if match := pattern.search(reading.around):
            return Fact(value, "title", match.group())
    return Fact("as a whole", "family")


def _contest_years(reading: Reading) -> Fact[frozenset[int]] | None:
    """Years that the rules put beside the contest ("the 2026 midterm elections")."""
    rules = reading.market.rules[:1_500]
    folded = fold(rules)
    for mention in date_mentions(rules):
        if mention.year is None:
            continue
        after = folded[mention.end : mention.end + 60].partition(".")[0]
        before = folded[max(0, mention.start - 90) : mention.start].rpartition(".")[2]
        if mention.month is None and _CONTESTED.search(after):
            return Fact(frozenset({mention.year}), "rules", rules[mention.start : mention.end + 30])
        if mention.month is not None and re.search(r"scheduled|take place|held", before):
            return Fact(frozenset({mention.year}), "rules", rules[mention.start : mention.end])
    return None


def _place(reading: Reading) -> Fact[frozenset[str]] | None:
    """The district where one is named, else the states; the whole country where a chamber's majority is asked for."""
    for source, text in (("title", reading.titles), ("event_title", reading.around), ("rules", reading.deciding)):
        if match := _DISTRICT.search(text):
            state = vocabulary.STATE_CODES.get(match["code"] or "", match["state"])
            return Fact(frozenset({f"{state} {int(match['number'] or match['ordinal'])}"}), source, match.group())
    for source, text in (("title", reading.titles), ("event_title", reading.around), ("rules", reading.deciding)):
        if found := frozenset(vocabulary.STATES.findall(text)):
            return Fact(found, source, " ".join(sorted(found)))
    office, party = reading.slots.office, reading.slots.party
    if office is None or office.value not in {"senate", "house"} or party is None:
        return None
    match = _MAJORITY.search(reading.around) or _MAJORITY.search(reading.deciding)
    return Fact(frozenset({"the whole country"}), "title", match.group()) if match else None


def _nominee(reading: Reading) -> Slots | None:
    slots = reading.slots
    if slots.action is None or slots.action.value is not Action.NOMINEE:
        return None
    found = _race(reading)
    return found if found.subject is not None else None


def _election_winner(reading: Reading) -> Slots | None:
    slots = reading.slots
    elected = slots.action is not None and slots.action.value is Action.ELECTED
    won = slots.action is not None and slots.action.value is Action.WIN and bool(_CONTESTED.search(reading.around))
    if not (elected or (won and slots.office is not None)) or slots.interval is not None or slots.action is None:
        return None
    if slots.competition is not None and slots.office is None:
        return None
    found = _race(reading)
    return replace(found, action=replace(slots.action, value=Action.ELECTED)) if found.subject is not None else None


def _office_exit(reading: Reading) -> Slots | None:
    slots = reading.slots
    if slots.action is None or slots.action.value not in _LEAVING:
        return None
    if slots.observation is not None and slots.observation.value is Observation.COUNT:
        return None
    return replace(slots, death=_death(reading), duration=_permanence(reading) or slots.duration)


def _death(reading: Reading) -> Fact[str] | None:
    for sentence in re.split(r"(?<=[.;\n])\s*", reading.rules):
        if match := _DEATH.search(sentence):
            value = "excluded" if _EXCLUDED.search(sentence) else "counts"
            return Fact(value, "rules", sentence[max(0, match.start() - 40) : match.end() + 40])
    # An office is left by death too where nothing says otherwise.
    return Fact("counts", "rules", "not excluded") if reading.rules else None


def _permanence(reading: Reading) -> Fact[str] | None:
    """Whether an absence for a while counts: one venue often says that it does not, the other "for any period"."""
    for sentence in re.split(r"(?<=[.;\n])\s*", reading.rules):
        if _TEMPORARY.search(sentence) and _EXCLUDED.search(sentence):
            return Fact("permanent", "rules", sentence[:80])
    if match := _ANY_PERIOD.search(reading.rules):
        return Fact("any", "rules", match.group())
    return None


def _legislation(reading: Reading) -> Slots | None:
    slots = reading.slots
    if slots.action is None or slots.action.value not in {Action.LAW, Action.CHAMBER}:
        return None
    if _BILL.search(reading.around) is None and _BILL.search(reading.deciding) is None:
        return None
    if slots.action.value is Action.LAW:
        # A law passes both chambers, whichever of them a text names.
        return replace(slots, office=None)
    return replace(slots, office=slots.office or Fact("any chamber", "family"))


def _approval(reading: Reading) -> Slots | None:
    slots = reading.slots
    if slots.metric is None or slots.metric.value != "approval" or slots.interval is None:
        return None
    match = _POLLSTER.search(reading.around) or _POLLSTER.search(reading.rules)
    if match is None:
        return slots
    return replace(slots, source_class=Fact(_POLLSTER_CLASS.get(match[1], match[1]), "rules", match[1]))


FAMILIES = (
    Family("approval_threshold", _approval, ("metric", "interval", "on", "source_class"), exclusive=True),
    Family("nominee", _nominee, ("subject", "action", "editions"), exclusive=True, optional=_OF_THE_RACE),
    Family(
        "election_winner", _election_winner, ("subject", "action", "editions", "office"), exclusive=True,
        optional=_OF_THE_RACE,
    ),
    Family("office_exit", _office_exit, ("subject", "action", "object", "deadline", "evidence", "death")),
    Family("legislation", _legislation, ("action", "deadline")),
)  # fmt: skip
