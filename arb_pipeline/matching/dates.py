"""Dates as questions use them: deadlines as half-open instants, days, months of meetings, years of editions.

Both venues mean Eastern time where they name no zone, so days begin at New York's midnight.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from arb_pipeline.matching.text import normalise
from arb_pipeline.matching.vocabulary import MONTHS

__all__ = [
    "DateMention",
    "TimeFacts",
    "date_from_ticker",
    "date_mentions",
    "masked_dates",
    "read_times",
    "start_of_day",
    "time_of_day",
]

_EASTERN = ZoneInfo("America/New_York")
_ZONES = {"utc": ZoneInfo("UTC"), "gmt": ZoneInfo("UTC")}
_MONTH = "|".join(sorted(MONTHS, key=len, reverse=True))
_DATE = re.compile(
    rf"\b(?P<iso>(?:19|20)\d\d-\d\d-\d\d)\b"
    rf"|\b(?P<m1>{_MONTH})\.?\s+(?P<d1>\d{{1,2}})(?:st|nd|rd|th)?\b(?!\s?(?:%|bps))(?:,?\s+(?:of\s+)?(?P<y1>(?:19|20)\d\d|'\d\d)\b)?"
    rf"|\b(?P<d2>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<m2>{_MONTH})\b\.?(?:,?\s+(?P<y2>(?:19|20)\d\d|'\d\d)\b)?"
    rf"|\b(?P<m3>{_MONTH})\b\.?,?\s+(?P<y3>(?:19|20)\d\d)\b"
    rf"|\b(?P<us>\d{{1,2}}/\d{{1,2}}/(?:19|20)?\d\d)\b"
    rf"|\b(?P<season>(?:19|20)\d\d[-/](?:20)?\d\d)\b(?!-)"
    rf"|(?<![$\d.,-])\b(?P<y4>(?:19|20)\d\d)\b(?![.,]?\d|%| ?bps|-)"
    rf"|\b(?P<m4>{_MONTH})\b"
)
_CLOCK = re.compile(
    r"\b(?:at\s+|,\s*)?(?:(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?(?::\d\d)?\s?(?P<half>a\.?m\.?|p\.?m\.?)|(?P<h24>\d\d):(?P<m24>\d\d)"
    r"|(?P<word>noon|midnight))(?:\s*\(?(?P<zone>et|est|edt|utc|gmt|pt|pst|pdt|ct|cst|cdt)\b\)?)?"
)
_BEFORE = re.compile(r"\b(?:before|prior to)\s*(?:the\s+)?$")
_BY = re.compile(
    r"\b(?:by|until|through|thru|on or before|no later than|up to and including|as of|to)"
    r"\s*(?:or before\s*)?(?:the\s+)?$"
)
_BY_END = re.compile(r"\b(?:by|before|until|through|in)?\s*(?:the\s+)?end of\s*(?:the\s+)?(?:year\s+)?$")
_ON = re.compile(r"\b(?:on|for|at)\s*(?:the\s+)?(?:\w+day,?\s*)?$")
_IN = re.compile(r"\b(?:in|during)\s*(?:the\s+)?(?:month of\s+|year\s+|calendar year\s+)?\(?$")
_FROM = re.compile(r"\b(?:between|from)\s*(?:the\s+)?$")
_AND = re.compile(r"^,?\s*(?:and|to|through|-)\s*$")
_SCHEDULED = re.compile(
    r"\b(?:scheduled|expected|planned|slated|originally|held|take place|takes place)\b[^,.;]{0,30}$"
)
_MEETING_AFTER = re.compile(r"^\W*(?:\d{4}\W+)?(?:fed |fomc )?(?:policy )?(?:meetings?|decisions?|fomc)\b")
_MEETING_BEFORE = re.compile(r"\b(?:decisions?|meeting|rates? decision)\s+(?:in|of|on|for)\s*(?:the\s+)?$")
_THIS_YEAR = re.compile(r"\bthis year\b")
_TICKER_DATE = re.compile(
    r"-(?P<year>\d\d)(?P<month>JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)(?P<day>\d\d)?(?!\d\d)"
)


@dataclass(frozen=True, slots=True)
class DateMention:
    """A date as written, any part of it possibly missing, and its place in the folded text.

    ``year`` of a season such as 2025-26 is the year that it ends in.
    """

    year: int | None
    month: int | None
    day: int | None
    start: int
    end: int
    season: bool = False


@dataclass(frozen=True, slots=True)
class TimeFacts:
    """What a text says of time.

    Attributes:
        deadline: first instant that is too late, UTC.
        window_start: first instant that counts, UTC, where the text names one.
        on: the one day that counts.
        meeting: (year or None, month) of a scheduled decision.
        by_meeting: whether the meeting is a deadline ("by the June meeting").
        editions: years that name an edition or a window ("the 2026 Cup", "in 2026"), season ends included.
        unresolved: a deadline or day whose year nothing tells.
    """

    deadline: datetime | None = None
    window_start: datetime | None = None
    on: date | None = None
    meeting: tuple[int | None, int] | None = None
    by_meeting: bool = False
    editions: frozenset[int] = frozenset()
    unresolved: bool = False


@lru_cache(maxsize=65_536)
def date_mentions(text: str) -> tuple[DateMention, ...]:
    """Dates of a text in order. A month's name counts only with a capital: "may" and "march" are verbs too."""
    folded = normalise(text)
    found: list[DateMention] = []
    for match in _DATE.finditer(folded.text):
        month_name = match["m1"] or match["m2"] or match["m3"] or match["m4"]
        if month_name and not folded.capital(match.start("m1" if match["m1"] else _month_group(match))):
            continue
        mention = _mention(match, month_name)
        if mention is not None:
            found.append(mention)
    return tuple(found)


@lru_cache(maxsize=65_536)
def masked_dates(text: str) -> str:
    """The folded text with dates and times of day blanked, so that only other numbers remain."""
    out = normalise(text).text
    for mention in date_mentions(text):
        out = f"{out[: mention.start]}{' ' * (mention.end - mention.start)}{out[mention.end :]}"
    return _CLOCK.sub(lambda match: " " * len(match.group()), out)


def start_of_day(day: date, zone: ZoneInfo = _EASTERN) -> datetime:
    """The UTC instant at which a day begins in a zone."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def time_of_day(text: str) -> tuple[time, str] | None:
    """The time of day that a text names, with its zone's family (``et``, ``utc``, ...), None if it names none."""
    for match in _CLOCK.finditer(normalise(text).text):
        if (clock := _clock(match)) is not None:
            zone = match["zone"] or "et"
            return clock, f"{zone[0]}t" if zone[0] in "epc" else "utc"
    return None


def date_from_ticker(ticker: str) -> tuple[int, int, int | None] | None:
    """(year, month, day) that a ticker such as ``X-26APR30-T5`` carries.

    Tickers promise no grammar, so this only ever completes a date whose year the text leaves out.
    """
    match = _TICKER_DATE.search(ticker)
    if match is None:
        return None
    return 2000 + int(match["year"]), MONTHS[match["month"].lower()], int(match["day"]) if match["day"] else None


def read_times(text: str, reference: date | None, listed: date | None = None) -> TimeFacts:
    """Read deadlines, days, meetings and editions from a text.

    Args:
        text: a title or a deciding sentence.
        reference: a date near the question's end, which completes dates without a year; None if unknown.
        listed: when the question was listed, for "this year".
    """
    folded = normalise(text).text
    mentions = date_mentions(text)
    years = {mention.year for mention in mentions if mention.year and not mention.season}
    facts = _Reading(reference, next(iter(years)) if len(years) == 1 else None)
    for index, mention in enumerate(mentions):
        before = folded[max(0, mentions[index - 1].end if index else 0) : mention.start][-48:]
        facts.read(folded, mention, before, mentions[index - 1] if index else None)
    if facts.deadline is None and listed is not None and _THIS_YEAR.search(folded):
        facts.editions.add(listed.year)
        facts.deadline = start_of_day(date(listed.year + 1, 1, 1))
    return TimeFacts(
        deadline=facts.deadline,
        window_start=facts.window_start,
        on=facts.on,
        meeting=facts.meeting,
        by_meeting=facts.by_meeting,
        editions=frozenset(facts.editions),
        unresolved=facts.unresolved,
    )


class _Reading:
    """Collects what the mentions of one text say, first statement of a kind first."""

    def __init__(self, reference: date | None, only_year: int | None) -> None:
        self.reference = reference
        self.only_year = only_year
        self.deadline: datetime | None = None
        self.window_start: datetime | None = None
        self.on: date | None = None
        self.meeting: tuple[int | None, int] | None = None
        self.by_meeting = False
        self.editions: set[int] = set()
        self.unresolved = False

    def read(self, folded: str, mention: DateMention, before: str, previous: DateMention | None) -> None:
        after = folded[mention.end : mention.end + 40]
        if mention.month is not None and mention.day is None and self._is_meeting(before, after):
            if self.meeting is None:
                self.meeting = self._year(mention), mention.month
                self.by_meeting = bool(_BY.search(before) or _BEFORE.search(before))
            return
        if _SCHEDULED.search(before):
            return
        if _BEFORE.search(before):
            self._until(mention, folded, include=False)
        elif _BY_END.search(before) or self._closes_window(folded, mention, previous):
            self._until(mention, folded, include=True)
        elif _BY.search(before):
            # "By 2027" is said of the year's beginning, "by March 31" of the day's end; "by March" of either.
            if mention.month is None or mention.day is not None:
                self._until(mention, folded, include=mention.month is not None)
        elif _FROM.search(before):
            if mention.month is not None and (day := self._day(mention, 1)) is not None and self.window_start is None:
                self.window_start = start_of_day(day)
        elif mention.day is not None:
            if _ON.search(before) or not before.strip():
                self._set_on(mention)
        elif mention.month is not None:
            if mention.year is not None or _IN.search(before):
                self._window(mention, folded)
        elif mention.year is not None:
            self.editions.add(mention.year)
            if _IN.search(before) and not mention.season and self.deadline is None:
                self.window_start = self.window_start or start_of_day(date(mention.year, 1, 1))
                self.deadline = start_of_day(date(mention.year + 1, 1, 1))

    def _closes_window(self, folded: str, mention: DateMention, previous: DateMention | None) -> bool:
        """Whether "and" joins the mention to a window's start ("between July 1 and December 31")."""
        if previous is None or self.window_start is None:
            return False
        return bool(_AND.match(folded[previous.end : mention.start]))

    @staticmethod
    def _is_meeting(before: str, after: str) -> bool:
        return bool(_MEETING_AFTER.match(after) or _MEETING_BEFORE.search(before))

    def _year(self, mention: DateMention) -> int | None:
        if mention.year is not None:
            return mention.year
        if self.only_year is not None:
            return self.only_year
        if self.reference is None or mention.month is None:
            return None
        reference, month, day = self.reference, mention.month, mention.day or 15
        return min(
            (reference.year - 1, reference.year, reference.year + 1),
            key=lambda year: abs((_date(year, month, day) or date.max) - reference),
        )

    def _day(self, mention: DateMention, default_day: int) -> date | None:
        year = self._year(mention)
        if year is None:
            self.unresolved = True
            return None
        return _date(year, mention.month or 1, mention.day or default_day)

    def _until(self, mention: DateMention, folded: str, *, include: bool) -> None:
        if self.deadline is not None or mention.season:
            return
        first = self._day(mention, 1)
        if first is None:
            return
        if not include:
            self.deadline = start_of_day(first)
            return
        clock = _CLOCK.match(folded[mention.end : mention.end + 24].lstrip(", ").removeprefix("at "))
        self.deadline = _end_instant(first, mention, clock)

    def _set_on(self, mention: DateMention) -> None:
        if self.on is None and (day := self._day(mention, 1)) is not None:
            self.on = day

    def _window(self, mention: DateMention, folded: str) -> None:
        first = self._day(mention, 1)
        if first is not None and self.deadline is None:
            self.window_start = start_of_day(first)
            self._until(mention, folded, include=True)


def _mention(match: re.Match[str], month_name: str | None) -> DateMention | None:
    start, end = match.span()
    if match["iso"]:
        year, month, day = (int(part) for part in match["iso"].split("-"))
        return DateMention(year, month, day, start, end) if _date(year, month, day) else None
    if match["us"]:
        month, day, year = (int(part) for part in match["us"].split("/"))
        year += 2000 if year < 100 else 0
        return DateMention(year, month, day, start, end) if _date(year, month, day) else None
    if match["season"]:
        first, last = re.split(r"[-/]", match["season"])
        return DateMention(int(first[: 4 - len(last)] + last), None, None, start, end, season=True)
    year_text = match["y1"] or match["y2"] or match["y3"] or match["y4"]
    day_text = match["d1"] or match["d2"]
    found_month = MONTHS[month_name] if month_name else None
    # "28 Nov '26" is of this century.
    found_year = int(year_text.replace("'", "20")) if year_text else None
    if day_text and _date(found_year or 2024, found_month or 1, int(day_text)) is None:
        return None
    return DateMention(found_year, found_month, int(day_text) if day_text else None, start, end)


def _month_group(match: re.Match[str]) -> str:
    return next(name for name in ("m2", "m3", "m4") if match[name])


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _clock(match: re.Match[str]) -> time | None:
    if match["word"]:
        return time(12) if match["word"] == "noon" else time(0)
    if match["h24"]:
        hour, minute = int(match["h24"]), int(match["m24"])
    else:
        hour, minute = int(match["hour"]) % 12 + (12 if match["half"].startswith("p") else 0), int(match["minute"] or 0)
    return time(hour, minute) if hour < 24 and minute < 60 else None


def _end_instant(first: date, mention: DateMention, clock: re.Match[str] | None) -> datetime:
    """When a "by" ends: the end of the day, month or year named, or the time of day written behind it."""
    if mention.day is not None:
        at = _clock(clock) if clock else None
        zone = _ZONES.get((clock["zone"] or "") if clock else "", _EASTERN)
        if at is None or at >= time(23, 59):
            return start_of_day(first + timedelta(days=1), zone)
        return datetime.combine(first, at, zone).astimezone(UTC)
    if mention.month is not None:
        return start_of_day(date(first.year + first.month // 12, first.month % 12 + 1, 1))
    return start_of_day(date(first.year + 1, 1, 1))
