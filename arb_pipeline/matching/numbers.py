"""Quantities with units and the intervals that a question draws on them. Exact: Decimal, never a tolerance."""

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache
from itertools import pairwise

from arb_pipeline.matching.dates import masked_dates

__all__ = ["Interval", "Quantity", "bare_numbers", "interval_of", "on_grid", "quantities"]

_MAGNITUDES = {
    "k": 3, "thousand": 3, "m": 6, "mm": 6, "mn": 6, "million": 6, "b": 9, "bn": 9, "billion": 9, "t": 12, "tn": 12,
    "trillion": 12,
}  # fmt: skip
_UNITS = (
    ("%", r"%|percent\b|percentage points?\b|pct\b"),
    ("bps", r"bps?\b|basis[- ]points?\b"),
    ("F", r"°\s?f\b|degrees? fahrenheit\b|°(?!\s?c)|degrees?\b"),
    ("C", r"°\s?c\b|degrees? celsius\b"),
    ("score", r"points?\b|pts?\b|goals?\b|runs?\b"),
    ("games", r"games?\b"),
    ("sets", r"sets?\b"),
    ("wins", r"wins?\b"),
    ("seats", r"seats?\b"),
    ("inches", r"in(?:ch(?:es)?)?\b(?=[\s,.?)]*$)|inch(?:es)?\b"),
    ("usd", r"dollars?\b|usd\b"),
    ("jobs", r"jobs\b"),
    ("times", r"times\b"),
    ("cuts", r"(?:\w+ )?(?:rate )?cuts\b"),
    ("hikes", r"(?:\w+ )?(?:rate )?hikes\b"),
)
_COUNTED = frozenset({"count", "times", "wins", "seats", "games", "sets", "jobs", "cuts", "hikes"})
_WHOLE_UNITS = _COUNTED | {"F", "score"}
_UNIT_NAMES = {"F": "\u00b0F", "C": "\u00b0C", "usd": "dollars", "score": "points", "count": "in number"}
_QUANTITY = re.compile(
    r"(?<![\w.,#])(?:(?<=\s)|(?<=^)|(?<=[^\w\s]))"
    r"(?P<sign>-(?=[\d.$]))?(?P<currency>\$\s?)?(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?!\d)"
    r"(?!\s?(?:st|nd|rd|th)\b)(?!:\d)"
    r"(?:(?P<letter>k|mm|mn|m|bn|b|tn|t)\b|\s?(?P<word>thousand|million|billion|trillion)\b)?"
    r"(?P<plus>\+)?(?:\s?-?(?:"
    + "|".join(f"(?P<u{index}>{pattern})" for index, (_, pattern) in enumerate(_UNITS))
    + "))?"
)
_NUMBER_TAIL = r"\s*(?:a |an |the |just |about )*$"
_BEFORE = tuple(
    (kind, re.compile(rf"(?:{words}){_NUMBER_TAIL}"))
    for kind, words in (
        (
            "ge",
            (
                r"\bat least|\b(?:at|equal to) or (?:above|over|greater than|higher than|more than)"
                r"|\b(?:above|greater(?: than)?|higher(?: than)?|more than) or equal to"
                r"|>=|≥|\bno (?:less|fewer|lower) than|\bminimum of|\bnot (?:below|less than)"
            ),
        ),
        (
            "le",
            (
                r"\bat most|\b(?:at|equal to) or (?:below|under|less than|lower than)"
                r"|\b(?:below|less(?: than)?|lower(?: than)?|fewer than) or equal to"
                r"|<=|≤|\bno (?:more|higher|greater) than|\bup to|\bnot (?:above|more than)"
            ),
        ),
        ("gt", r"\babove|\bover|\bmore than|\bgreater than|\bhigher than|\bexceeds?|\bexceeding|>|\blarger than"),
        ("lt", r"\bbelow|\bunder|\bless than|\bfewer than|\blower than|<|\bsmaller than"),
        ("eq", r"\bexactly|\bequal to"),
        (
            "touch_up",
            (
                r"\breach(?:es)?|\bcross(?:es)?|\bsurpass(?:es)?|\bhits?|\btouch(?:es)?|\brises? to|\bclimbs? to|↑"
                r"|\bget to"
            ),
        ),
        ("touch_down", r"\bdips? to|\bdips? below|\bfalls? to|\bdrops? to|\bsinks? to|↓"),
    )
)
_AFTER = tuple(
    (kind, re.compile(rf"\s*(?:{words})"))
    for kind, words in (
        ("ge", r"\bor (?:more|above|higher|greater|over|better|later|hotter)\b|\band (?:above|over)\b|or warmer\b"),
        ("le", r"\bor (?:less|below|lower|fewer|under|colder|cooler)\b|\band (?:below|under)\b"),
    )
)
_RANGE_GAP = re.compile(r"\s*(?:-|to|and|through)\s*$|\s*(?:-|to|and|through)\s*\$?\s*$")
_BETWEEN = re.compile(rf"\b(?:between|from|of){_NUMBER_TAIL}")
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit ("" where none is written) and its place in the folded text; ``plus`` for ``50+``."""

    value: Decimal
    unit: str
    start: int
    end: int
    plus: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """Values that make the question true; an open end is None. ``closed`` says whether an end belongs to it."""

    low: Decimal | None
    high: Decimal | None
    low_closed: bool
    high_closed: bool
    unit: str = ""
    touch: bool = False

    def complement(self) -> "Interval | None":
        """All other values, None where they do not form one interval."""
        if self.low is None and self.high is not None:
            return Interval(self.high, None, not self.high_closed, high_closed=False, unit=self.unit)
        if self.high is None and self.low is not None:
            return Interval(None, self.low, low_closed=False, high_closed=not self.low_closed, unit=self.unit)
        return None

    def same_unit(self, other: "Interval") -> bool:
        """Whether the units may be the same: one is not told, or one counts what the other names."""
        units = {self.unit, other.unit}
        return len(units) == 1 or "" in units or ("count" in units and units <= _COUNTED | {"%"})

    def same_ends(self, other: "Interval") -> bool:
        """Whether the ends are the same numbers, whatever their inclusion."""
        return (self.low, self.high) == (other.low, other.high)

    def within(self, other: "Interval") -> bool:
        """Whether every value of this one belongs to the other, ends and their inclusion counted exactly."""
        return _above(self, other) and _above(_mirrored(self), _mirrored(other))

    def disjoint(self, other: "Interval") -> bool:
        """Whether no value belongs to both."""
        return _beyond(self, other) or _beyond(other, self)

    def adjoins(self, other: "Interval") -> bool:
        """Whether this one ends exactly where the other begins: no value between them, none in both."""
        if self.high is None or other.low is None:
            return False
        step = Decimal(1) if self.unit in _WHOLE_UNITS else None
        if self.high == other.low:
            return self.high_closed != other.low_closed
        return step is not None and self.high_closed and other.low_closed and other.low - self.high == step

    def __str__(self) -> str:
        unit = _UNIT_NAMES.get(self.unit, self.unit)
        if self.low is not None and self.low == self.high:
            return f"= {self.low} {unit}".rstrip()
        ends = []
        if self.low is not None:
            ends.append(f"{'>=' if self.low_closed else '>'} {self.low}")
        if self.high is not None:
            ends.append(f"{'<=' if self.high_closed else '<'} {self.high}")
        return f"{' and '.join(ends) or 'any'} {unit}".rstrip()


@lru_cache(maxsize=65_536)
def quantities(text: str) -> tuple[Quantity, ...]:
    """Numbers of a text with currency, magnitude and unit resolved; dates, times of day and ordinals left out."""
    folded = masked_dates(text)
    found: list[Quantity] = []
    for match in _QUANTITY.finditer(folded):
        letter = match["letter"]
        # "15m" is fifteen minutes, "$15m" fifteen million dollars; "k" is a thousand either way.
        if letter and letter != "k" and not match["currency"]:
            letter = None
        value = Decimal(match["number"].replace(",", ""))
        if magnitude := letter or match["word"]:
            value = value.scaleb(_MAGNITUDES[magnitude])
        start = match.start()
        if match["sign"]:
            if re.search(r"[\d%°f]\s*$", folded[:start]):
                start += 1  # a range's dash
            else:
                value = -value
        unit = next((name for index, (name, _) in enumerate(_UNITS) if match[f"u{index}"]), "")
        if match["currency"]:
            unit = "usd"
        found.append(Quantity(_plain(value), unit, start, match.end(), plus=match["plus"] is not None))
    return tuple(found)


@lru_cache(maxsize=65_536)
def interval_of(text: str) -> Interval | None:
    """The interval that a short text draws: a comparator with its number, a range, or a number with a unit."""
    folded = masked_dates(text)
    found = quantities(text)
    for first, second in pairwise(found):
        gap = folded[first.end : second.start]
        if _RANGE_GAP.match(gap) and (_BETWEEN.search(folded[: first.start]) or "and" not in gap):
            low, high, unit = first.value, abs(second.value), second.unit or first.unit
            if low < high:
                return Interval(low, high, low_closed=True, high_closed=True, unit=unit)
    for quantity in found:
        if (kind := _comparator(folded, quantity)) is not None:
            return on_grid(_interval(kind, quantity))
    for quantity in found:
        # A price is hardly ever exactly so much: without a comparator it says nothing of more or less.
        if quantity.unit and quantity.unit != "usd":
            return Interval(quantity.value, quantity.value, low_closed=True, high_closed=True, unit=quantity.unit)
    return None


def bare_numbers(text: str) -> frozenset[Decimal]:
    """Values of all quantities of a text, whatever their unit: districts, counts, ranks."""
    return frozenset(abs(quantity.value) for quantity in quantities(text))


def on_grid(interval: Interval) -> Interval:
    """The same interval with closed ends where the metric moves in whole steps: ``> 35 wins`` is ``>= 36 wins``."""
    if interval.unit in _WHOLE_UNITS:
        step = Decimal(1)
    elif interval.unit in {"usd", ""} and any(_ends_in_99(end) for end in (interval.low, interval.high)):
        # A listed strike of 99,999.99 with "greater" stands for "100,000 or above" on a metric quoted in cents.
        step = _CENT
    else:
        return interval
    low, high = interval.low, interval.high
    low_closed, high_closed = interval.low_closed, interval.high_closed
    if low is not None and not low_closed:
        low, low_closed = ((low / step).to_integral_value(ROUND_FLOOR) + 1) * step, True
    if high is not None and not high_closed:
        high, high_closed = ((high / step).to_integral_value(ROUND_CEILING) - 1) * step, True
    return Interval(_trim(low), _trim(high), low_closed, high_closed, interval.unit, interval.touch)


def _comparator(folded: str, quantity: Quantity) -> str | None:
    if quantity.plus:
        return "ge"
    after = folded[quantity.end : quantity.end + 20]
    for kind, pattern in _AFTER:
        if pattern.match(after):
            return kind
    before = folded[max(0, quantity.start - 30) : quantity.start].removesuffix("$")
    return next((kind for kind, pattern in _BEFORE if pattern.search(before)), None)


def _interval(kind: str, quantity: Quantity) -> Interval:
    value, unit = quantity.value, quantity.unit
    if kind in {"ge", "gt", "touch_up"}:
        return Interval(value, None, kind != "gt", high_closed=False, unit=unit, touch=kind == "touch_up")
    if kind in {"le", "lt", "touch_down"}:
        return Interval(None, value, low_closed=False, high_closed=kind != "lt", unit=unit, touch=kind == "touch_down")
    return Interval(value, value, low_closed=True, high_closed=True, unit=unit)


def _mirrored(interval: Interval) -> Interval:
    low = None if interval.high is None else -interval.high
    high = None if interval.low is None else -interval.low
    return Interval(low, high, interval.high_closed, interval.low_closed, interval.unit)


def _above(inner: Interval, outer: Interval) -> bool:
    """Whether the lower end of ``inner`` does not go below that of ``outer``."""
    if outer.low is None:
        return True
    if inner.low is None or inner.low < outer.low:
        return False
    return inner.low > outer.low or outer.low_closed or not inner.low_closed


def _beyond(first: Interval, second: Interval) -> bool:
    """Whether all of ``first`` lies above all of ``second``."""
    if first.low is None or second.high is None or first.low < second.high:
        return False
    return first.low > second.high or not (first.low_closed and second.high_closed)


def _ends_in_99(value: Decimal | None) -> bool:
    return value is not None and value % 1 == Decimal("0.99")


def _trim(value: Decimal | None) -> Decimal | None:
    return None if value is None else _plain(value)


def _plain(value: Decimal) -> Decimal:
    value = value.normalize()
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value
