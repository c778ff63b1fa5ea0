"""Games, series, tournaments and awards."""

import re
from datetime import date

from msgspec.structs import replace

from arb_pipeline.matching.dates import date_mentions
from arb_pipeline.matching.families.reading import Family, Reading, titled_subject
from arb_pipeline.matching.slots import Fact, Slots
from arb_pipeline.matching.text import fold, tokenise
from arb_pipeline.matching.vocabulary import FUNCTION_WORDS, Action

__all__ = ["FAMILIES"]

_DRAW_NAME = re.compile(r"^(?:draw|tie|the draw)\b")
_DRAW_IS_NO = re.compile(r"(?:draw|tie)[^.]{0,80}resolves? to \"?no\b")
_SERIES = re.compile(r"\bseries\b(?! [abc]\b)|\bbest[- ]of[- ](?:five|seven|\d)")
_SCHEDULED_FOR = re.compile(r"\bscheduled (?:for|on|to (?:take place|be played) on)\s*$")
_MAP = re.compile(r"\bmap \d\b|\bgame \d winner\b|\bset \d winner\b")
_REGULAR = re.compile(r"\b90 minutes\b|\bregulation time\b|\bregular time\b")
_WINS_BY = re.compile(r"(?:Will )?(?:the )?([A-Z][\w.'\u2019&-]*(?: [A-Z][\w.'\u2019&-]*)*) wins? [^?]{0,40}\bby\b")
_AWARD = re.compile(
    r"\b(?:awards?|prize|oscars?|academy award|grammys?|emmys?|tonys?|golden globes?|ballon d'or|heisman|mvp"
    r"|most valuable player|rookie of the year|player of the year|coach of the year|cy young|person of the year"
    r"|album of the year|song of the year|record of the year|game of the year|golden boot|golden glove|palme d'or"
    r"|best (?:picture|director|actor|actress|supporting|original|animated|international|documentary|new artist))\b"
)
_TITLE = re.compile(
    r"\b(?:champions?|championships?|cup|open|finals?|title|tournament|league|masters|grand prix|super bowl|series"
    r"|wimbledon|derby|trophy|bowl|eurovision|world series|season|conference|division|pennant|invitational|classic"
    r"|olympics?|medal|tour de france|drivers'? |constructors'?)\b"
)
_TENNIS = {"wimbledon", "us open", "french open", "australian open"}
_PAIRS = re.compile(r"\b(?:doubles|pairs?|duo|golf|chess)\b")
_LOWER_STAGE = {Action.REACH_FINAL, Action.REACH_SEMIFINAL, Action.PLAYOFFS, Action.ADVANCE, Action.WIN_DIVISION}

_OF_THE_GAME = (
    "action",
    "ways",
    "competition",
    "round",
    "editions",
    "gender",
    "on",
    "clock",
    "deadline",
    "observation",
    "place",
)
"""What the two sides, the start of a game and what its tie pays settle."""

_OF_THE_EDITION = ("deadline", "observation", "on", "start", "window_start")
"""What the year of a yearly contest settles."""


def _day(reading: Reading) -> Fact[date] | None:
    """The day that the rules schedule a game for, where no start is known: sides meet more than once."""
    if reading.slots.start is not None or reading.slots.on is not None:
        return reading.slots.on
    rules = reading.market.rules
    for mention in date_mentions(rules):
        before = reading.rules[max(0, mention.start - 40) : mention.start]
        if mention.year and mention.month and mention.day and _SCHEDULED_FOR.search(before):
            return Fact(date(mention.year, mention.month, mention.day), "rules", rules[mention.start : mention.end])
    return None


def _ways(reading: Reading) -> Fact[str] | None:
    """Two results or three. A draw among the answers, or a rule that makes it a plain No, makes three."""
    for other in reading.event.markets:
        if _DRAW_NAME.match(fold(other.yes_title)):
            return Fact("three-way", "event", other.yes_title)
    if match := _DRAW_IS_NO.search(reading.rules):
        return Fact("three-way", "rules", match.group()[:80])
    if reading.outcome:
        return Fact("two-way", "outcomes", " / ".join(reading.market.outcomes))
    if reading.market.venue == "kalshi" and reading.event.mutually_exclusive and len(reading.event.markets) == 2:
        return Fact("two-way", "event", "two answers")
    return None


def _game_winner(reading: Reading) -> Slots | None:
    slots = reading.slots
    if slots.game is None or slots.market_type is None or slots.market_type.value != "moneyline":
        return None
    if _MAP.search(reading.around) or _SERIES.search(reading.titles):
        return None
    if slots.action is not None and slots.action.value in _LOWER_STAGE and slots.market_type.source == "title":
        return None
    ways = _ways(reading)
    period = _counted_time(reading, ways) or slots.period
    if ways is not None and ways.value == "three-way" and period is not None and period.value == "game":
        # A draw that is a plain No is one of regular time, unless a text says otherwise.
        period = None
    return replace(slots, ways=ways, period=period, on=_day(reading))


def _counted_time(reading: Reading, ways: Fact[str] | None) -> Fact[str] | None:
    """A contest that lists a draw is decided by regular time; rules say so too."""
    if match := _REGULAR.search(reading.rules):
        return Fact("regulation", "rules", match.group())
    if ways is not None and ways.value == "three-way" and ways.source == "event":
        return Fact("regulation", ways.source, ways.text)
    return None


def _spread_total(reading: Reading) -> Slots | None:
    slots = reading.slots
    if slots.market_type is None or slots.market_type.value not in {"spread", "total"}:
        return None
    if slots.game is None and slots.interval is None:
        return None
    slots = replace(slots, on=_day(reading))
    if slots.market_type is None or slots.market_type.value == "total" or slots.subject is not None:
        return slots
    return replace(slots, subject=_winning_side(reading))


def _winning_side(reading: Reading) -> Fact[tuple[str, ...]] | None:
    """Who has to win by the points ("Lima wins by over 5.5 points")."""
    for source, text in (("yes_title", reading.market.yes_title), ("title", reading.market.title)):
        if match := _WINS_BY.match(text):
            name = tuple(token.text for token in tokenise(match[1]) if token.text not in FUNCTION_WORDS)
            if name:
                return Fact(name, source, match.group())
    return None


def _series_advance(reading: Reading) -> Slots | None:
    slots = reading.slots
    staged = slots.action is not None and slots.action.value in _LOWER_STAGE
    series = slots.game is not None and bool(_SERIES.search(reading.titles))
    if not staged and not series:
        return None
    if slots.subject is None and slots.game is None:
        return None
    return slots


def _award(reading: Reading) -> Slots | None:
    slots = reading.slots
    if slots.game is not None or slots.action is None or slots.action.value is not Action.WIN:
        return None
    return replace(slots, subject=titled_subject(reading)) if _AWARD.search(reading.around) else None


def _tournament_winner(reading: Reading) -> Slots | None:
    slots = reading.slots
    if slots.game is not None or slots.action is None or slots.action.value is not Action.WIN:
        return None
    if slots.market_type is not None or (subject := titled_subject(reading)) is None:
        return None
    if _TITLE.search(reading.around) is None and slots.competition is None:
        return None
    return replace(slots, subject=subject, format=slots.format or _singles(reading))


def _singles(reading: Reading) -> Fact[str] | None:
    """A tennis tournament is that of the singles where no text speaks of pairs."""
    competition = reading.slots.competition
    if competition is None or competition.value not in _TENNIS or _PAIRS.search(f"{reading.around} {reading.rules}"):
        return None
    return Fact("singles", "family", competition.text)


FAMILIES = (
    Family(
        "spread_total", _spread_total, ("game", "interval", "market_type", "period", "start"), ("void",), contest=True,
        optional=_OF_THE_GAME,
    ),
    Family(
        "game_winner", _game_winner, ("game", "subject", "market_type", "period", "start"), ("void",), contest=True,
        optional=_OF_THE_GAME,
    ),
    Family("series_advance", _series_advance, ("subject", "action"), ("void",), contest=True, optional=("start",)),
    Family("award", _award, ("subject", "action", "editions"), exclusive=True, optional=("evidence", *_OF_THE_EDITION)),
    Family(
        "tournament_winner", _tournament_winner, ("subject", "action", "editions"), exclusive=True,
        optional=_OF_THE_EDITION,
    ),
)  # fmt: skip
