"""Typed facts of a market: what its YES says, in slots that two markets can be compared by.

The generic reading here serves every market; the parsers in ``families`` know more of their kinds of questions. Facts
come from venue metadata first, then the rules' deciding sentence, then the titles; each keeps where it was read.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from arb_pipeline.matching import vocabulary
from arb_pipeline.matching.dates import (
    TimeFacts,
    date_from_ticker,
    date_mentions,
    masked_dates,
    read_times,
    start_of_day,
    time_of_day,
)
from arb_pipeline.matching.numbers import Interval, bare_numbers, interval_of, on_grid
from arb_pipeline.matching.text import deciding_sentence, fold, normalise, tokenise, words
from arb_pipeline.matching.vocabulary import Action, Choices
from arb_pipeline.model import Event, Market

__all__ = [
    "Direction",
    "Fact",
    "Observation",
    "Proposition",
    "Slots",
    "is_placeholder",
    "propositions",
]

T = TypeVar("T")


class Direction(StrEnum):
    """Which way a rate or a price goes."""

    CUT = "cut"
    HIKE = "hike"
    HOLD = "hold"
    CHANGE = "change"
    UP = "up"
    DOWN = "down"


class Observation(StrEnum):
    """When the question looks: at one time, at any time until a deadline, how often, or at a row of decisions."""

    POINT = "point"
    WINDOW = "window"
    TOUCH = "touch"
    COUNT = "count"
    SEQUENCE = "sequence"


class Fact(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """A value with the field that it was read from and the words that say it."""

    value: T
    source: str
    text: str = ""


class Slots(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Typed facts of one proposition; None is unknown.

    Attributes:
        family: the parser that read them, empty for the generic reading.
        ways: how many results a contest can have: ``two-way``, or ``three-way`` where a draw is one of them.
        place: the states or countries that an election or a statistic belongs to.
        death: whether leaving office by death counts, ``counts`` or ``excluded``.
        actor: who does it, as the title puts it right before the verb; ``be`` in front where it is done to them.
        ordinal: the place in an order of size, ``first`` for the largest.
        qualifier: words of the title that pick one of several: ``first``, ``last``, ``most``, ``fewest``.
        quarter: the quarter of a year that a statistic or a report is of, ``Q1`` to ``Q4``.
        duration: how long something has to last or to be for, ``any`` where any length will do.
        ticker_month: first instant of the month that a ticker names alone ("X-26MAR-..."): it may be all that counts.
        topic: words that no other slot reads, names and common words alike.
        numbers: values outside ``interval``: districts, counts, ranks.
        game: the two sides of a contest, each as its tokens.
        coordinated: names listed together ("X, Y and Z"); ``any_of`` where one of them is enough ("X, Y or Z").
        context: every text of the market, rules included: what a topic word may be found in.
        rules: the rules text alone.
        incomplete: a date is named whose year nothing tells, so that no pair of it can be called equivalent.
    """

    family: str = ""
    subject: Fact[tuple[str, ...]] | None = None
    action: Fact[Action] | None = None
    direction: Fact[Direction] | None = None
    interval: Fact[Interval] | None = None
    observation: Fact[Observation] | None = None
    deadline: Fact[datetime] | None = None
    window_start: Fact[datetime] | None = None
    ticker_month: datetime | None = None
    on: Fact[date] | None = None
    clock: Fact[tuple[time, str]] | None = None
    meeting: Fact[tuple[int | None, int]] | None = None
    editions: Fact[frozenset[int]] | None = None
    metric: Fact[str] | None = None
    source_class: Fact[str] | None = None
    period: Fact[str] | None = None
    round: Fact[str] | None = None
    market_type: Fact[str] | None = None
    game: Fact[tuple[tuple[str, ...], tuple[str, ...]]] | None = None
    start: Fact[datetime] | None = None
    object: Fact[frozenset[str]] | None = None
    mode: Fact[str] | None = None
    evidence: Fact[str] | None = None
    gender: Fact[str] | None = None
    format: Fact[str] | None = None
    party: Fact[str] | None = None
    office: Fact[str] | None = None
    competition: Fact[str] | None = None
    asset: Fact[str] | None = None
    station: Fact[frozenset[str]] | None = None
    award: Fact[tuple[str, ...]] | None = None
    ways: Fact[str] | None = None
    place: Fact[frozenset[str]] | None = None
    death: Fact[str] | None = None
    duration: Fact[str] | None = None
    quarter: Fact[str] | None = None
    actor: Fact[tuple[str, ...]] | None = None
    ordinal: Fact[str] | None = None
    qualifier: Fact[frozenset[str]] | None = None
    numbers: Fact[frozenset[Decimal]] | None = None
    affirmative: bool = True
    incomplete: bool = False
    names: frozenset[str] = frozenset()
    topic: frozenset[str] = frozenset()
    coordinated: tuple[tuple[str, ...], ...] = ()
    any_of: bool = False
    title_words: frozenset[str] = frozenset()
    context: tuple[str, ...] = ()
    rules: str = ""

    def facts(self) -> Iterator[tuple[str, Fact[Any]]]:
        """Known slots by name."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Fact):
                yield name, value


@dataclass(frozen=True, slots=True)
class Proposition:
    """What one tradable outcome says. ``index`` is the outcome's place in the venue's list."""

    index: int
    slots: Slots


def propositions(event: Event, market: Market) -> tuple[Proposition, ...]:
    """What each outcome that states something says: YES alone, or both where the venue names the outcomes."""
    if _yes_no(market):
        index = [normalise(name).text for name in market.outcomes].index("yes")
        return (Proposition(index, _generic(event, market, index)),)
    first = _generic(event, market, 0)
    return Proposition(0, first), Proposition(1, _other_outcome(event, market, first))


def is_placeholder(market: Market) -> bool:
    """Whether a market stands for nothing yet: reserve slots, "Other", and bundles of legs."""
    name = normalise(market.yes_title).text.strip()
    return (
        bool(market.strike.get("negRiskOther"))
        or bool(market.strike.get("mve_collection_ticker"))
        or name in {"other", "another", "none", "field", "the field"}
        or bool(_PLACEHOLDER.match(name))
    )


_PLACEHOLDER = re.compile(r"^(?:person|player|company|team|candidate|option|party|country|movie|song) [a-z]{1,2}$")
_TRAILING_ANSWER = re.compile(r"\?\s+([A-Z][^?]{1,60})$")
_HOLD = re.compile(
    r"\b(?:no change|unchanged|maintains?|holds? (?:rates?|steady)|pauses?"
    r"|(?:hike|cut|hikes|cuts)\b[^.?]{0,20}\b0 ?bps?)\b"
)
_CUT = re.compile(r"\b(?:cuts?|decreases?|lowers? (?:rates?|interest)|reduces?|rate cut)\b")
_HIKE = re.compile(r"\b(?:hikes?|increases?|raises? (?:rates?|interest))\b")
_CHANGE = re.compile(r"\bchanges? (?:the )?(?:\w+ ){0,2}rates?\b")
_RATES = re.compile(r"\b(?:rates?|bps|basis points?)\b")
_DIRECTIONS = (
    (Direction.HOLD, _HOLD),
    (Direction.CHANGE, _CHANGE),
    (Direction.CUT, _CUT),
    (Direction.HIKE, _HIKE),
)
_UP = re.compile(r"^(?:up|higher)$")
_DOWN = re.compile(r"^(?:down|lower)$")
_COUNT = re.compile(
    r"\b(?:how many|number of|\d+ (?:\w+ ){0,2}(?:cuts|hikes|times|members|games|wins))\b"
    r"|\b(?:win|fire) (?:at least |exactly )?\d+\b"
)
_SEQUENCE = re.compile(
    r"\b(?:cut|hike|pause|hold)-(?:cut|hike|pause|hold)\b|\bnext (?:two|three|four|\d) (?:decisions|meetings)\b"
    r"|\b(?:next|first) (?:\w+ ){0,4}(?:to leave|out)\b"
)
_TOUCH = re.compile(r"\b(?:hits?|reach(?:es)?|touch(?:es)?|dips? (?:to|below)|at any (?:time|point)|intraday)\b|[↑↓]")
_CLOSE = re.compile(r"\b(?:closes?|closing|settles?|ends?|finish(?:es)? the (?:day|month|year))\b")
_SPREAD = re.compile(r"\bspread\b|\bwins? (?:[\w. ]{0,40})?by (?:more than|over|at least|\d)|\(-\d|\bhandicap\b")
_TITLE_SPREAD = re.compile(r"\(([+-]\d+(?:\.\d+)?)\)")
_CRITICS = re.compile(r"\b(?:rotten tomatoes|tomatometer|metacritic)\b")
_OVER_UNDER = re.compile(r"\b(?:o/u|over/under) (\d+\.5)\b")
_THINGS = re.compile(
    r"(?:more than|fewer than|at least|at most|over|under|above|below|exactly|between \d[\d,]* and) "
    r"\d+(?:,\d{3})*(?!\.?\d)(?! ?(?:%|percent|points?|bps|basis|degrees|dollars|years?|months?|weeks?|days?|hours?))"
    r" (?:(?!(?:in|on|at|by|of|for|the|and|or|to|is|as|before|during|from)\b)[a-z-]+ ){0,2}"
    r"(?!(?:as|is|this|was|has|its|us)\b)[a-z]{2,}s\b"
    r"|\d+(?:,\d{3})* or more (?!of\b)[a-z-]+s\b"
)
_TOTAL = re.compile(
    r"\bo/u\b|\bover/under\b|\btotal (?:points|goals|runs|games|score)|\b(?:over|under) \d+\.5\b|\bcombined\b"
)
_KIND_OF_BET = re.compile(
    r"^(?:(?:1h|2h|first half|second half|1st half|2nd half) )?"
    r"(?:o/u|over/under|spread|moneyline|totals?|both teams to score|btts|before|by|after|in)\b(?! [a-z]+ [a-z])"
)
_DRAW = re.compile(r"^(?:draw|tie|the draw)\b")
_BOTH_SCORE = re.compile(r"\bboth teams to score\b|\bbtts\b")
_SIDE = r"(?:[A-Z0-9][\w.'\u2019&-]*|de|da|van|von|der|del|la|el|al|of|the|and|st\.)"
_VERSUS = re.compile(rf"({_SIDE}(?: {_SIDE})*),? (?:vs?\.?|VS\.?|@) ({_SIDE}(?: {_SIDE})*)")
_BEATS = re.compile(rf"({_SIDE}(?: {_SIDE})*) (?:beats?|defeats?) ({_SIDE}(?: {_SIDE})*)")
_AT = re.compile(rf"^({_SIDE}(?: {_SIDE})*) at ({_SIDE}(?: {_SIDE})*)(?=[?:]|$| \()")
_NAME = r"[A-Z][\w.'\u2019-]*(?: [A-Z][\w.'\u2019-]*){0,3}"
_COORDINATED = re.compile(rf"((?:{_NAME}, )*{_NAME},? (?:and|or) {_NAME})")
_ACTOR = re.compile(rf"(?:Will |Does |Did )?(?:the )?(?P<who>{_NAME}) (?P<be>be |get |gets |is )?(?:to )?")
_ANY_OF = re.compile(rf"{_NAME},? or {_NAME}")
_LEAVE_OBJECT = re.compile(
    r"\b(?:leaves?|departs?|out|removed|ousted|resigns?|remains?|stays?)\s+"
    r"(?:office\s+)?(?:(?:as|from|of|on as)\s+)?"
    r"(?P<object>(?!(?:before|by|in|on|this|during|through|until)\b).+?)"
    r"(?:\s+in)?(?:\s+(?:before|by|in|on|this|during|through|until)\b.*)?[?.]?$"
)
_IN_PERSON = re.compile(r"\bin[- ]person\b")
_SPEAKING = re.compile(r"\b(?:talks?|speaks?) (?:to|with)\b")
_REMOTE = re.compile(
    r"\b(?:phone|telephone|video|virtual) (?:calls?|meetings?|conferences?)\b|\bby (?:tele)?phone\b|\bvirtually\b"
)
_REMOTE_EXCLUDED = re.compile(r"\b(?:not|no|without|exclud\w+|insufficient|only)\b|n't\b")
_EXCLUDED_AFTER = re.compile(
    r"(?:(?!\b(?:but|counts?|qualif\w+|suffices?)\b)[^.;])*?"
    r"(?:(?:\bnot|n't) (?:be\b|count\b|qualify\b|suffic|constitute\b|satisfy\b)|\b(?:insufficient|excluded)\b)"
)
_EITHER_WAY = re.compile(
    r"\bin[- ]person or (?:by |over |via |through )?(?:the )?(?:\w*phone|video|virtual\w*|remote\w*)\b"
)
_ANNOUNCED = re.compile(
    r"\bannounced as\b"
    r"|\bannouncement of [^.]{0,80}(?:resign|remov|depart|retire|leav)"
    r"[^.]{0,120}\b(?:resolve|qualify|count|sufficient)"
    r"|\b(?:officially )?announced? (?:their|his|her|an?) (?:intention|resignation|departure)"
)
_NOT_ENOUGH = re.compile(
    r"\bnot (?:alone |by itself |itself )?(?:be )?(?:qualify|count|suffic|resolve)|\binsufficient\b"
)
_EFFECTIVE = re.compile(r"\bactual departure\b|\bmust\b[^.]{0,60}\bvacate\b|\bactually (?:leave|left|vacate)")
_AWARD = re.compile(
    r"\b(?:best|outstanding) (?!ai\b|company\b)((?:\w+ ){0,4}?\w+)"
    r"(?=\s+(?:at|in|for|end|of|winner|award|nomination|nominee)\b|\s*[?|:,.(]|$)"
    r"|\b((?:(?:defensive|offensive|comeback|executive|female|male) )?\w+ of the year)\b"
)
_NUMBERS = {
    name: str(number)
    for number, name in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), 1
    )
}
_SHORT_ORDINALS = {"2nd": "second", "3rd": "third", "4th": "fourth", "5th": "fifth"}
_RANKS = {"1": "first", "2": "second", "3": "third", "4": "fourth", "5": "fifth", "1st": "first", **_SHORT_ORDINALS}
_RANKED = re.compile(
    r"#(?P<number>\d{1,2})\b|\b(?P<pick>first|second|third|fourth|fifth|\d{1,2}(?:st|nd|rd|th)) (?:overall )?pick\b"
)
_SUPERLATIVE = re.compile(
    r"(?:\b(?P<place>second|third|fourth|fifth|2nd|3rd|4th|5th)[- ])?"
    r"\b(?:largest|biggest|richest|highest[- ]grossing|most (?:valuable|popular|streamed|seats)"
    r"|(?<=second[- ])best|(?<=third[- ])best|(?<=2nd[- ])best|(?<=3rd[- ])best)\b"
)
_QUALIFIER = re.compile(
    r"\b(?<!at )(first|last|most|fewest)\b"
    r"(?! (?:half|quarter|inning|set|round|five|5|lady|day|time|place|trad|price|valuable|recent|likely|to|out))"
)
_ORDINALS = ("first", "second", "third", "fourth")
_QUARTER = re.compile(rf"\bq([1-4])\b|\b({'|'.join(_ORDINALS)}) quarter (?:of )?(?:20\d\d|gdp|earnings|real)")
_DURATION = re.compile(
    rf"\bfor (?:at least |a (?:period|term) of |up to )?(?:any (?:length|period|amount) of time"
    rf"|(?:an? (?:extra |additional )?)?(?P<number>\d+|{'|'.join(_NUMBERS)})[- ](?P<unit>day|week|month|year)s?)\b"
)
_STATION = re.compile(r"\b([A-Z][\w']+(?: [A-Z][\w']+)* (?:Airport|Park|Field|International|Observatory))\b")
_STRIKE_ENDS = {
    "greater": (True, False, False),
    "greater_or_equal": (True, False, True),
    "less": (False, True, False),
    "less_or_equal": (False, True, True),
    "between": (True, True, True),
}
_RULES_READ = 600
_NAMES_READ = 1_200
_RESET = re.compile(r"\s*\([^)]*\)|\s+[-\u2013\u2014|]\s+.*$")


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts of one proposition, shortest first."""

    answer: str
    title: str
    event_title: str
    sub_title: str
    deciding: str
    rules: str
    outcome: str = ""
    titles: str = field(init=False)
    folded: str = field(init=False)

    def __post_init__(self) -> None:
        parts = [self.title, *(part for part in (self.answer, self.outcome) if part and part not in self.title)]
        object.__setattr__(self, "titles", " | ".join(parts))
        object.__setattr__(self, "folded", normalise(self.titles).text)

    def short(self) -> Iterator[tuple[str, str]]:
        """(source, text) of the titles, the most specific first."""
        for source, text in (("outcome", self.outcome), ("yes_title", self.answer), ("title", self.title)):
            if text:
                yield source, text

    def every(self) -> Iterator[tuple[str, str]]:
        """Titles, then the event's, then the deciding sentence."""
        yield from self.short()
        for source, text in (
            ("event_title", self.event_title),
            ("sub_title", self.sub_title),
            ("rules", self.deciding),
        ):
            if text:
                yield source, text


def _generic(event: Event, market: Market, index: int) -> Slots:
    texts = _texts(event, market, index)
    sources = tuple(texts.every())
    times, time_source = _times(event, market, texts)
    direction = _direction(texts)
    interval = _interval(market, texts, index, direction)
    subject = _subject(texts)
    game = _game(market, texts)
    action = _first(vocabulary.ACTIONS, sources)
    market_type = _market_type(market, texts, game, action)
    observation = _observation(texts, times, interval, time_source)
    names, topic = _topic(texts)
    metric = _first(vocabulary.METRICS, sources)
    numbers = bare_numbers(texts.titles) - _interval_values(interval)
    title_words = words(texts.titles)
    return Slots(
        subject=subject,
        action=action,
        direction=direction,
        interval=interval,
        observation=observation,
        deadline=_fact(times.deadline, time_source),
        window_start=_fact(times.window_start, time_source),
        ticker_month=_ticker_month(market),
        on=_fact(times.on, time_source),
        clock=_clock(texts),
        meeting=_fact(times.meeting, time_source),
        editions=_fact(times.editions or None, time_source),
        metric=metric,
        station=_station(texts, metric),
        award=_award(texts),
        duration=_duration(texts),
        quarter=_quarter(texts),
        actor=_actor(texts, action),
        ordinal=_ordinal(texts),
        qualifier=_qualifier(texts),
        source_class=_first(vocabulary.SOURCES, (*sources, ("rules", texts.rules))),
        period=_first(vocabulary.PERIODS, sources) or _period_of(market, market_type),
        round=_first(vocabulary.ROUNDS, sources),
        market_type=market_type,
        game=game,
        start=_start(event, market, game),
        object=_leave_object(texts, action),
        mode=_mode(texts, action),
        evidence=_evidence(texts),
        gender=_first(vocabulary.GENDERS, sources),
        format=_first(vocabulary.FORMATS, sources),
        party=_first(vocabulary.PARTIES, sources),
        office=_first(vocabulary.OFFICES, sources),
        competition=_first(vocabulary.COMPETITIONS, sources),
        asset=_first(vocabulary.ASSETS, sources),
        numbers=_fact(numbers or None, "titles"),
        affirmative=_affirmative(texts),
        incomplete=times.unresolved or (times.meeting is not None and times.meeting[0] is None),
        names=names,
        topic=topic,
        coordinated=_coordinated(texts),
        any_of=bool(_ANY_OF.search(texts.title)),
        title_words=title_words,
        rules=texts.rules,
        context=_context(texts),
    )


def _other_outcome(event: Event, market: Market, first: Slots) -> Slots:
    """The second outcome's slots: what names the outcome is read anew, all else is the market's."""
    texts = _texts(event, market, 1)
    direction = _direction(texts)
    interval = _interval(market, texts, 1, direction)
    names, topic = _topic(texts)
    numbers = bare_numbers(texts.titles) - _interval_values(interval)
    return msgspec.structs.replace(
        first,
        subject=_subject(texts),
        direction=direction,
        interval=interval,
        numbers=_fact(numbers or None, "titles"),
        names=names,
        topic=topic,
        title_words=words(texts.titles),
        context=_context(texts),
    )


def _context(texts: _Texts) -> tuple[str, ...]:
    return tuple(text for text in (texts.titles, texts.event_title, texts.sub_title, texts.rules) if text)


def _texts(event: Event, market: Market, index: int) -> _Texts:
    answer, title = market.yes_title.strip(), market.title.strip()
    if not answer and (match := _TRAILING_ANSWER.search(title)):
        answer = match[1]
    outcome = "" if _yes_no(market) else market.outcomes[index]
    if outcome and answer in market.outcomes:
        answer = ""
    return _Texts(
        answer=answer,
        title=title,
        event_title=event.title.strip(),
        sub_title=event.sub_title.strip(),
        deciding=deciding_sentence(market.rules),
        rules=market.rules,
        outcome=outcome,
    )


def _yes_no(market: Market) -> bool:
    return {normalise(name).text for name in market.outcomes} == {"yes", "no"}


def _fact(value: T | None, source: str, text: str = "") -> Fact[T] | None:
    return None if value is None else Fact(value, source, text)


def _first(choices: Choices[T], sources: Sequence[tuple[str, str]]) -> Fact[T] | None:
    """The first word of a closed list, looked for text by text."""
    for source, text in sources:
        folded = fold(text)
        if choices.any.search(folded) is None:
            continue
        for value, pattern in choices.values:
            if match := pattern.search(folded):
                return Fact(value, source, match.group())
    return None


# --- time ---------------------------------------------------------------------------------------------------


def _times(event: Event, market: Market, texts: _Texts) -> tuple[TimeFacts, str]:
    """Time facts merged: the deciding sentence over the titles over the event's title."""
    reference = _reference(event, market)
    listed = market.created_at or market.open_at
    day = listed.astimezone(UTC).date() if listed else None
    titles = read_times(texts.titles, reference, day)
    rules = read_times(texts.deciding, reference, day) if texts.deciding else TimeFacts()
    around = read_times(f"{texts.event_title} | {texts.sub_title}", reference, day)
    deadline = (
        rules.deadline or titles.deadline or (None if titles.on or titles.meeting or rules.on else around.deadline)
    )
    on = titles.on or (rules.on if titles.meeting is None else None)
    if on is None and deadline is None and titles.meeting is None:
        on = around.on
    meeting = titles.meeting or around.meeting or rules.meeting
    if meeting is not None and meeting[0] is None and rules.on is not None and rules.on.month == meeting[1]:
        meeting = (rules.on.year, meeting[1])
    editions = titles.editions or rules.editions or around.editions
    known = deadline is not None or on is not None
    return (
        TimeFacts(
            deadline=deadline,
            window_start=rules.window_start or titles.window_start,
            on=on,
            meeting=meeting,
            by_meeting=titles.by_meeting,
            editions=editions,
            unresolved=titles.unresolved and not known,
        ),
        "rules" if rules.deadline or (rules.on and not titles.on) else "title",
    )


def _reference(event: Event, market: Market) -> date | None:
    """A date near the question's end, which completes dates that leave out their year."""
    for at in (market.expected_expiration_at, market.close_at, market.occurrence_at, event.end_at):
        if at is not None:
            return at.astimezone(UTC).date()
    if (found := date_from_ticker(market.market_id)) is not None:
        return date(found[0], found[1], found[2] or 15)
    for mention in date_mentions(deciding_sentence(market.rules) or market.rules[:_RULES_READ]):
        if mention.year is not None and mention.month is not None:
            return date(mention.year, mention.month, mention.day or 1)
    return None


def _ticker_month(market: Market) -> datetime | None:
    found = date_from_ticker(market.market_id) if market.venue == "kalshi" else None
    return start_of_day(date(found[0], found[1], 1)) if found is not None and found[2] is None else None


def _clock(texts: _Texts) -> Fact[tuple[time, str]] | None:
    for source, text in texts.every():
        if source != "rules" and (found := time_of_day(text)) is not None:
            return Fact(found, source)
    return None


def _start(event: Event, market: Market, game: Fact[Any] | None) -> Fact[datetime] | None:
    """When a game begins. Kalshi's ``occurrence_datetime`` is near it, not it; Polymarket's ``gameStartTime`` is it."""
    if game is None:
        return None
    raw = market.strike.get("gameStartTime")
    if isinstance(raw, str) and raw:
        try:
            at = datetime.fromisoformat(raw)
        except ValueError:
            at = None
        if at is not None:
            return Fact(at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC), "gameStartTime", raw)
    if market.occurrence_at is not None:
        return Fact(market.occurrence_at, "occurrence_at")
    return _fact(event.start_at if market.strike.get("sportsMarketType") else None, "event.start_at")


# --- quantities ---------------------------------------------------------------------------------------------


def _direction(texts: _Texts) -> Fact[Direction] | None:
    if texts.outcome:
        folded = normalise(texts.outcome).text
        if _UP.match(folded):
            return Fact(Direction.UP, "outcome", texts.outcome)
        if _DOWN.match(folded):
            return Fact(Direction.DOWN, "outcome", texts.outcome)
    whole = f"{texts.folded} {normalise(texts.event_title).text}"
    if not _RATES.search(whole) and "fed" not in words(whole):
        return None
    for source, text in texts.short():
        folded = normalise(text).text
        for direction, pattern in _DIRECTIONS:
            if match := pattern.search(folded):
                return Fact(direction, source, match.group())
    return None


def _interval(market: Market, texts: _Texts, index: int, direction: Fact[Direction] | None) -> Fact[Interval] | None:
    if direction is not None and direction.value is Direction.HOLD:
        return None
    if (listed := _listed_interval(market, texts)) is not None:
        return listed
    if (line := _line_interval(market, index)) is not None:
        return line
    if (spread := _TITLE_SPREAD.search(texts.title)) and (points := _decimal(spread[1])) is not None:
        return _spread_interval(market, index, texts.title, spread, points)
    if (over := _OVER_UNDER.search(normalise(texts.title).text)) and (line := _over(texts, market, over)) is not None:
        return line
    unit = _unit_of(texts) or _counted(texts)
    for source, text in (*texts.short(), ("event_title", texts.event_title)):
        if text and (interval := interval_of(text)) is not None:
            interval = on_grid(replace(interval, unit=interval.unit or unit))
            if source == "event_title" and interval.low == interval.high:
                continue
            return Fact(interval, source, text[:80])
    return None


def _over(texts: _Texts, market: Market, match: re.Match[str]) -> Fact[Interval] | None:
    """A total's line where the title alone gives it: the first outcome, or YES, is the over."""
    line = _decimal(match[1])
    side = normalise(texts.outcome).text
    if line is None or not (_yes_no(market) or side.startswith(("over", "under"))):
        return None
    low, high = (None, line) if side.startswith("under") else (line, None)
    interval = Interval(low, high, low_closed=False, high_closed=False, unit="score")
    return Fact(on_grid(interval), "title", match.group())


def _counted(texts: _Texts) -> str:
    """``count`` where a number of things is asked for ("more than 3 major hurricanes"): those are whole."""
    if vocabulary.ASSETS.any.search(texts.folded):
        return ""
    if _CRITICS.search(texts.folded):
        return "count"
    return "count" if any(_THINGS.search(masked_dates(text)) for _, text in texts.every()) else ""


def _spread_interval(
    market: Market, index: int, title: str, spread: re.Match[str], points: Decimal
) -> Fact[Interval] | None:
    """The margin that an outcome needs where the title gives one side's points; None where it is not told whose."""
    if _yes_no(market):
        needed = -points
    else:
        before = words(title[: spread.start()])
        named = [bool(before.intersection(_name_tokens(name))) for name in market.outcomes]
        if named.count(True) != 1:
            return None
        needed = -points if named[index] else points
    margin = Interval(needed, None, low_closed=False, high_closed=False, unit="score")
    return Fact(on_grid(margin), "title", spread.group())


def _listed_interval(market: Market, texts: _Texts) -> Fact[Interval] | None:
    """Kalshi's ``strike_type`` with ``floor_strike`` and ``cap_strike`` (Kalshi OpenAPI, Market)."""
    kind = market.strike.get("strike_type")
    if kind not in _STRIKE_ENDS:
        return None
    needs_low, needs_high, closed = _STRIKE_ENDS[kind]
    low = _decimal(market.strike.get("floor_strike")) if needs_low else None
    high = _decimal(market.strike.get("cap_strike")) if needs_high else None
    if (needs_low and low is None) or (needs_high and high is None):
        return None
    interval = Interval(low, high, closed and low is not None, closed and high is not None, _unit_of(texts))
    return Fact(on_grid(interval), "strike", f"{kind} {low or ''} {high or ''}".strip())


def _line_interval(market: Market, index: int) -> Fact[Interval] | None:
    """Polymarket's ``line`` of spreads (first outcome gives the points) and totals (first outcome is the over)."""
    line, kind = _decimal(market.strike.get("line")), str(market.strike.get("sportsMarketType") or "")
    if line is None or _yes_no(market):
        return None
    if "total" in kind:
        over = normalise(market.outcomes[index]).text.startswith("over")
        low, high = (line, None) if over else (None, line)
        return Fact(on_grid(Interval(low, high, low_closed=False, high_closed=False, unit="score")), "line", str(line))
    if "spread" in kind:
        needed = -line if index == 0 else line
        return Fact(
            on_grid(Interval(needed, None, low_closed=False, high_closed=False, unit="score")), "line", str(line)
        )
    return None


def _decimal(value: object) -> Decimal | None:
    if value is None or value == "" or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _unit_of(texts: _Texts) -> str:
    for _, text in texts.every():
        if (interval := interval_of(text)) is not None and interval.unit:
            return interval.unit
    return ""


def _interval_values(interval: Fact[Interval] | None) -> frozenset[Decimal]:
    if interval is None:
        return frozenset()
    ends = [end for end in (interval.value.low, interval.value.high) if end is not None]
    # An open end moved to the grid still answers for the number as written.
    return frozenset({abs(end) for end in ends} | {abs(end) + step for end in ends for step in _GRID_STEPS})


_GRID_STEPS = (Decimal("-0.5"), Decimal("0.5"), Decimal(-1), Decimal(1), Decimal("0.01"), Decimal("-0.01"))


def _observation(
    texts: _Texts, times: TimeFacts, interval: Fact[Interval] | None, time_source: str
) -> Fact[Observation] | None:
    folded = texts.folded
    if match := _SEQUENCE.search(folded):
        return Fact(Observation.SEQUENCE, "title", match.group())
    if match := _COUNT.search(masked_dates(texts.titles)):
        return Fact(Observation.COUNT, "title", match.group())
    if interval is not None and interval.value.unit in {"count", "times"} and not interval.value.touch:
        return Fact(Observation.COUNT, interval.source, interval.text)
    if interval is not None:
        if interval.value.touch or (match := _TOUCH.search(folded)):
            return Fact(Observation.TOUCH, interval.source, interval.text)
        if times.deadline is None and (match := _CLOSE.search(folded)):
            return Fact(Observation.POINT, "title", match.group())
    if times.by_meeting:
        return Fact(Observation.WINDOW, "title", "by the meeting")
    if times.meeting is not None:
        return Fact(Observation.POINT, "title", "meeting")
    if times.on is not None:
        return Fact(Observation.POINT, time_source, str(times.on))
    if times.deadline is not None:
        return Fact(Observation.WINDOW, time_source, "by a deadline")
    return None


# --- who and what -------------------------------------------------------------------------------------------


def _subject(texts: _Texts) -> Fact[tuple[str, ...]] | None:
    """Whom or what YES names: the outcome or the answer's name, where it is one."""
    for source, text in (("outcome", texts.outcome), ("yes_title", texts.answer)):
        if not text:
            continue
        short = _RESET.sub("", text).strip()
        masked = masked_dates(short)
        if _KIND_OF_BET.match(masked.strip()):
            continue
        if _DRAW.match(masked.strip()):
            return Fact(("draw",), source, text)
        if interval_of(short) is not None or re.fullmatch(r"[\W\d]*", masked):
            continue
        spelt = tokenise(masked)
        tokens = tuple(
            token.text
            for place, token in enumerate(spelt, 1)
            # "Los Angeles D": the letter at the end of a name is that of the club.
            if token.text not in vocabulary.FUNCTION_WORDS or (place == len(spelt) > 1 and len(token.text) == 1)
        )
        if any(token[0].isalpha() and token not in vocabulary.TOPICLESS for token in tokens):
            sided = source == "outcome" or bool(_VERSUS.search(f"{texts.event_title} | {texts.title}"))
            known = _full_name(tokens, texts.rules) if sided else tokens
            return Fact(known, source, text)
    if (match := _BEATS.search(texts.title)) and (tokens := _name_tokens(match[1])):
        return Fact(_full_name(tokens, texts.rules), "title", match.group())
    return None


def _game(market: Market, texts: _Texts) -> Fact[tuple[tuple[str, ...], tuple[str, ...]]] | None:
    kind = market.strike.get("sportsMarketType")
    if kind and not _yes_no(market) and not {normalise(name).text for name in market.outcomes} & {"over", "under"}:
        first, second = (_name_tokens(name) for name in market.outcomes)
        if first and second:
            sides = _full_name(first, texts.rules), _full_name(second, texts.rules)
            return Fact(sides, "outcomes", " / ".join(market.outcomes))
    for source, text in (("title", texts.title), ("event_title", texts.event_title), ("sub_title", texts.sub_title)):
        for pattern in (_VERSUS, _BEATS, _AT):
            for match in pattern.finditer(text):
                first, second = _name_tokens(match[1]), _name_tokens(match[2])
                if first and second:
                    sides = _full_name(first, texts.rules), _full_name(second, texts.rules)
                    return Fact(sides, source, match.group())
    return None


@lru_cache(maxsize=8_192)
def _full_name(name: tuple[str, ...], rules: str) -> tuple[str, ...]:
    """A side's name with the capitalised words that the rules put right before it: ``Celtics`` in "the Boston Celtics".

    One venue lists cities, the other nicknames; the rules spell both out.
    """
    text = rules[:_NAMES_READ]
    wanted, lowered = " ".join(name), text.lower()
    at = lowered.find(wanted) if wanted else -1
    while at >= 0:
        end = at + len(wanted)
        whole = not lowered[at - 1 : at].isalnum() and not lowered[end : end + 1].isalnum()
        if whole and text[at].isupper() and (before := _capitalised_before(text[:at])):
            return (*before, *name)
        at = lowered.find(wanted, end)
    return name


def _capitalised_before(text: str) -> tuple[str, ...]:
    """Up to three capitalised words that end a text, each followed by one space."""
    found: list[str] = []
    if not text.endswith(" "):
        return ()
    for word in reversed(text[-80:-1].split(" ")):
        folded = fold(word)
        if len(found) == 3 or not word[:1].isupper() or not word.isalpha():
            break
        if folded in vocabulary.FUNCTION_WORDS or folded in vocabulary.TOPICLESS:
            break
        found.append(folded)
    return tuple(reversed(found))


def _name_tokens(text: str) -> tuple[str, ...]:
    return tuple(
        token.text
        for token in tokenise(_RESET.sub("", text))
        if token.text not in vocabulary.FUNCTION_WORDS and token.text not in vocabulary.CONTEST_WORDS
    )


def _market_type(
    market: Market, texts: _Texts, game: Fact[Any] | None, action: Fact[Action] | None
) -> Fact[str] | None:
    listed = str(market.strike.get("sportsMarketType") or "")
    for word in ("moneyline", "spread", "total", "both_teams_to_score"):
        if word in listed:
            return Fact(word, "sportsMarketType", listed)
    if listed:
        return Fact(listed, "sportsMarketType", listed)
    for kind, pattern in (("spread", _SPREAD), ("total", _TOTAL), ("both_teams_to_score", _BOTH_SCORE)):
        if match := pattern.search(texts.folded):
            return Fact(kind, "title", match.group())
    if game is not None and action is not None and action.value is Action.WIN:
        return Fact("moneyline", "title", action.text)
    return None


def _period_of(market: Market, market_type: Fact[str] | None) -> Fact[str] | None:
    listed = str(market.strike.get("sportsMarketType") or "").replace("_", " ")
    if listed:
        return _first(vocabulary.PERIODS, (("sportsMarketType", listed),)) or Fact("game", "sportsMarketType", listed)
    return Fact("game", market_type.source) if market_type is not None else None


def _leave_object(texts: _Texts, action: Fact[Action] | None) -> Fact[frozenset[str]] | None:
    """The office that is left: people hold several, and leaving one is not leaving another."""
    if action is None or action.value not in {Action.LEAVE, Action.RESIGN}:
        return None
    match = _LEAVE_OBJECT.search(texts.title)
    if match is None:
        return None
    found = frozenset(
        token.text for token in tokenise(match["object"]) if token.text not in vocabulary.FUNCTION_WORDS
    ) - {"office", "role", "position", "power", "next"}
    return Fact(found, "title", match["object"]) if found else None


def _mode(texts: _Texts, action: Fact[Action] | None) -> Fact[str] | None:
    """Whether a meeting has to be in person."""
    if action is None or action.value is not Action.MEET:
        return None
    deciding = fold(texts.deciding)
    if match := _IN_PERSON.search(texts.folded):
        return Fact("in person", "title", match.group())
    if found := _mode_said(deciding):
        return found
    if match := _SPEAKING.search(texts.folded):
        return Fact("any", "title", match.group())
    return _mode_said(fold(texts.rules))


def _mode_said(text: str) -> Fact[str] | None:
    """What a folded text says: where it names both, the other way is named to be ruled out, but for "or"."""
    if match := _EITHER_WAY.search(text):
        return Fact("any", "rules", match.group())
    if match := _IN_PERSON.search(text):
        return Fact("in person", "rules", match.group())
    match = _REMOTE.search(text)
    if match is None:
        return None
    excluded = _REMOTE_EXCLUDED.search(text[: match.start()]) or _EXCLUDED_AFTER.match(text, match.end())
    return Fact("in person" if excluded else "any", "rules", match.group())


def _evidence(texts: _Texts) -> Fact[str] | None:
    """Whether announcing is enough or it has to take effect."""
    if match := _ANNOUNCED.search(texts.folded):
        return Fact("announcement", "title", match.group())
    rules = fold(texts.rules)
    for match in _ANNOUNCED.finditer(rules):
        enough = _NOT_ENOUGH.search(match.group()) is None
        return Fact("announcement" if enough else "effect", "rules", match.group()[:120])
    if match := _EFFECTIVE.search(rules):
        return Fact("effect", "rules", match.group())
    return None


def _award(texts: _Texts) -> Fact[tuple[str, ...]] | None:
    """The prize within a ceremony: "Best Picture" is not "Best Director"."""
    for source, text in texts.every():
        if match := _AWARD.search(normalise(text).text):
            name = match[1] or match[2]
            return Fact(
                tuple(word for word in name.split() if word not in vocabulary.FUNCTION_WORDS), source, match.group()
            )
    return None


def _station(texts: _Texts, metric: Fact[str] | None) -> Fact[frozenset[str]] | None:
    """Where the weather is measured: one city has several stations."""
    if metric is None or "temperature" not in metric.value:
        return None
    for source, text in (("rules", texts.rules), ("title", texts.title)):
        if match := _STATION.search(text):
            return Fact(frozenset(token.text for token in tokenise(match[1])), source, match[1])
    return None


def _ordinal(texts: _Texts) -> Fact[str] | None:
    for source, text in texts.short():
        if match := _RANKED.search(fold(text)):
            rank = match["number"] or match["pick"]
            return Fact(_RANKS.get(rank, rank), source, match.group())
    for source, text in texts.every():
        if match := _SUPERLATIVE.search(fold(text)):
            return Fact(_SHORT_ORDINALS.get(match["place"], match["place"] or "first"), source, match.group())
    return None


def _qualifier(texts: _Texts) -> Fact[frozenset[str]] | None:
    """First, last or most of several, where no other slot reads the word."""
    found = frozenset(_QUALIFIER.findall(normalise(masked_dates(texts.titles)).text))
    return Fact(found, "title", " ".join(sorted(found))) if found else None


def _actor(texts: _Texts, action: Fact[Action] | None) -> Fact[tuple[str, ...]] | None:
    if action is None or action.source != "title":
        return None
    match = _ACTOR.match(texts.title)
    if match is None or not fold(texts.title[match.end() :]).startswith(action.text):
        return None
    tokens = tuple(token.text for token in tokenise(match["who"]) if token.text not in vocabulary.FUNCTION_WORDS)
    # A bare participle ("Ann Lee charged by June 30?") is said of whom it is done to.
    passive = bool(match["be"]) or action.text.endswith("ed")
    return Fact((*(("be",) if passive else ()), *tokens), "title", match["who"]) if tokens else None


def _quarter(texts: _Texts) -> Fact[str] | None:
    for source, text in texts.every():
        if match := _QUARTER.search(fold(text)):
            number = match[1] or str(_ORDINALS.index(match[2]) + 1)
            return Fact(f"Q{number}", source, match.group())
    return None


def _duration(texts: _Texts) -> Fact[str] | None:
    """The titles first: the deciding sentence may speak of other periods too."""
    for source, text in texts.every():
        if match := _DURATION.search(fold(text)):
            number = match["number"]
            if number is None:
                return Fact("any", source, match.group())
            return Fact(f"{_NUMBERS.get(number, number)} {match['unit']}", source, match.group())
    return None


def _affirmative(texts: _Texts) -> bool:
    """False where the words turn the question round. "Stays in office" is a negated "leaves"."""
    folded = _HOLD.sub(" ", texts.folded)
    negated = bool(vocabulary.NEGATION.search(folded))
    remains = bool(vocabulary.REMAINS.search(folded))
    return negated == remains


def _coordinated(texts: _Texts) -> tuple[tuple[str, ...], ...]:
    match = _COORDINATED.search(texts.title)
    if match is None:
        return ()
    names = (_name_tokens(part) for part in re.split(r",|\band\b|\bor\b", match[1]))
    return tuple(name for name in names if name)


def _topic(texts: _Texts) -> tuple[frozenset[str], frozenset[str]]:
    """(names, all topic words) of the titles: what no closed vocabulary reads."""
    names: set[str] = set()
    topic: set[str] = set()
    skip = vocabulary.FUNCTION_WORDS | vocabulary.TOPICLESS
    for _, text in texts.short():
        for token in tokenise(text):
            if token.text in skip or token.text[0].isdigit() or len(token.text) < 2:
                continue
            topic.add(token.text)
            if token.capital:
                names.add(token.text)
    return frozenset(names), frozenset(topic)
