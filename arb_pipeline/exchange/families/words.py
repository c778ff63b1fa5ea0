"""Dates, slugs and phrases that all families write with."""

import random
from datetime import date, datetime, time, timedelta

from arb_pipeline.exchange.drafts import EASTERN

__all__ = [
    "CONSENSUS",
    "day_code",
    "eastern",
    "end_of",
    "initials",
    "invent_names",
    "long_date",
    "month_code",
    "month_end",
    "shares",
    "slugify",
    "us_date",
    "weekday_from",
    "yes_no_rules",
]

_FIRST = [
    "Alma",
    "Bruno",
    "Celia",
    "Dario",
    "Edith",
    "Felix",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Karin",
    "Leland",
    "Mara",
    "Nolan",
    "Odile",
    "Pavel",
]
_LAST = [
    "Ashgrove",
    "Birchwell",
    "Calloway",
    "Dunmore",
    "Everhart",
    "Farrow",
    "Gantry",
    "Holloway",
    "Iverson",
    "Jessup",
    "Kestrel",
    "Lindqvist",
]
_LAST += [
    "Marlowe",
    "Northcott",
    "Overby",
    "Pendry",
    "Quimby",
    "Rosewell",
    "Sandoval",
    "Thackeray",
    "Underhill",
    "Vandermeer",
    "Whitcombe",
]


def us_date(day: date) -> str:
    """``Dec 31, 2026``."""
    return f"{day:%b} {day.day}, {day.year}"


def long_date(day: date) -> str:
    """``December 31, 2026``."""
    return f"{day:%B} {day.day}, {day.year}"


def day_code(day: date) -> str:
    """``26DEC31``."""
    return f"{day:%y%b%d}".upper()


def month_code(day: date) -> str:
    """``26DEC``."""
    return f"{day:%y%b}".upper()


def slugify(text: str) -> str:
    """Lower-case words joined by dashes."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower().replace("'", "")).split()
    return "-".join(words)


def eastern(day: date, hour: int, minute: int = 0) -> datetime:
    """A wall-clock time in the East."""
    return datetime.combine(day, time(hour, minute), EASTERN)


def end_of(day: date) -> datetime:
    """The last minute of a day in the East."""
    return eastern(day, 23, 59)


def month_end(day: date, months: int) -> date:
    """The last day of the month that lies so many months after a day's month."""
    year, month = divmod(day.year * 12 + day.month + months, 12)
    return date(year, month + 1, 1) - timedelta(days=1)


def weekday_from(day: date, weekday: int) -> date:
    """The first such weekday (Monday is 0) on or after a day."""
    return day + timedelta(days=(weekday - day.weekday()) % 7)


def shares(rng: random.Random, count: int, total: float) -> list[float]:
    """Uneven shares that add up to ``total``, none of them tiny."""
    weights = [rng.uniform(0.4, 1.6) for _ in range(count)]
    return [total * weight / sum(weights) for weight in weights]


def invent_names(rng: random.Random, count: int) -> list[str]:
    """People who do not exist."""
    return [f"{first} {last}" for first, last in zip(rng.sample(_FIRST, count), rng.sample(_LAST, count), strict=True)]


def yes_no_rules(condition: str, more: str) -> str:
    """Rules text of a plain yes-or-no market."""
    return f'This market will resolve to "Yes" if {condition}. Otherwise, this market will resolve to "No".\n\n{more}'


CONSENSUS = "A consensus of credible reporting may also be used."


def initials(person: str) -> str:
    """``Alma Ashgrove`` as tickers shorten it: ``AASH``."""
    first, last = person.split()
    return (first[0] + last[:3]).upper()
