"""Compares two rules texts field by field: what is equal, what differs, what one side leaves open.

Read are the terms that decide money when everything else agrees: who decides, when the market may end early, what
counts, and what a contract pays when a contest is cancelled, tied or postponed. A term that a text does not mention is
unknown, never assumed equal; only a question of the form "if this happens" pays nothing for what did not happen.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any

from arb_pipeline.matching.slots import Slots
from arb_pipeline.matching.text import fold
from arb_pipeline.model import Market

__all__ = ["NOT_TOLD", "Difference", "Result", "RulesDiff", "Terms", "compare_rules", "contest_states", "terms"]

_HALF, _NOTHING, _WHOLE, _UNTOLD = Decimal("0.5"), Decimal(0), Decimal(1), Decimal(-1)


NOT_TOLD = "not told"
"""What a comparison shows of a payout on which a text is silent."""


class Result(StrEnum):
    """How one field compares."""

    EQUAL = "equal"
    DIFFERS = "differs"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a rules text says beside the question itself; empty or None where it is silent.

    Attributes:
        source: classes of who decides.
        zone: time zone that the text names.
        early_close: whether the market may end before its deadline.
        void: by exceptional state, what YES pays: dollars, or None for a price that the rules do not fix.
        unscheduled: whether unscheduled decisions count, ``counts`` or ``excluded``.
        rounding: how values between the listed answers are treated.
        scope: what is said not to count, of a closed list.
        starts: where counting begins, as written.
    """

    source: frozenset[str] = frozenset()
    zone: str = ""
    early_close: bool | None = None
    void: Mapping[str, Decimal | None] = field(default_factory=dict)
    unscheduled: str = ""
    rounding: str = ""
    scope: frozenset[str] = frozenset()
    starts: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """One line of the comparison: the field, what each side says, and how they compare."""

    field: str
    kalshi: str
    polymarket: str
    result: Result


@dataclass(frozen=True, slots=True)
class RulesDiff:
    """Two rules texts compared.

    Attributes:
        void_states: by exceptional state, what YES of (Kalshi, Polymarket) pays, dollars; a price that no text fixes
            stands in two states, at 0 and at 1. None where a contest's states cannot be told.
        stated: the same, where nothing is taken from silence: every exceptional state that either text speaks of, and
            those that a contest needs, has a fixed price in both. None where one of them has not, or there are none.
    """

    lines: tuple[Difference, ...]
    void_states: Mapping[str, tuple[Decimal, Decimal]] | None
    stated: Mapping[str, tuple[Decimal, Decimal]] | None = None

    def result(self, field: str) -> Result:
        """How a field compares; a field that neither side speaks of is unknown."""
        return next((line.result for line in self.lines if line.field == field), Result.UNKNOWN)

    def as_json(self) -> dict[str, Any]:
        """Plain values for the explanation."""
        lines = [
            {"field": line.field, "kalshi": line.kalshi, "polymarket": line.polymarket, "result": line.result.value}
            for line in self.lines
        ]
        return {"fields": lines}


# --- reading ------------------------------------------------------------------------------------------------

_CLAUSE = re.compile(r"(?<=[.;])\s+|\n+")
_SOURCES = (
    ("brti", re.compile(r"cf benchmarks|\bbrti\b|\berti\b")),
    ("chainlink", re.compile(r"\bchainlink\b")),
    ("binance", re.compile(r"\bbinance\b")),
    ("coinbase", re.compile(r"\bcoinbase\b")),
    ("pyth", re.compile(r"\bpyth\b")),
    ("weather service", re.compile(r"national weather service|\bnws\b|climatological report|\bnoaa\b")),
    ("weather site", re.compile(r"wunderground|weather underground|accuweather")),
    ("labor statistics", re.compile(r"bureau of labor statistics|\bbls\b")),
    ("economic analysis", re.compile(r"bureau of economic analysis|\bbea\b")),
    ("central bank", re.compile(r"federal reserve(?:'s| board)? (?:statement|website|press)|fomc'?s? statement")),
    ("news calls", re.compile(r"associated press|\bap\b, |fox news|\bnbc\b|decision desk")),
    (
        "organiser",
        re.compile(r"official (?:information|website|results?) (?:from|of) (?:the )?(?:fifa|uefa|nba|nfl|nhl)"),
    ),
    ("official", re.compile(r"\bofficial (?:information|sources?|results?|announcement|website|data|record)")),
    (
        "reporting",
        re.compile(r"credible (?:media )?report|source agenc|news (?:reports?|organi[sz]ations?)|media report"),
    ),
)
_PRICE_CLASSES = frozenset({"brti", "chainlink", "binance", "coinbase", "pyth", "weather service", "weather site"})
_ZONE = re.compile(r"\b\d{1,2}(?::\d\d)?(?::\d\d)?\s?(?:am|pm|a\.m\.|p\.m\.)?\s*\(?(et|est|edt|utc|gmt|pt|ct)\b")
_EARLY = re.compile(
    r"\bclose(?:s|d)?(?: and expire)? early|\bexpire early|\bclose and expire after|\bimmediately resolve"
    r"|\bresolve immediately|\bmay resolve as soon as|\bearly(?:-| )close"
)
_STATES = (
    ("cancelled", re.compile(
        r"\bcancel+(?:l?ed|ation|s)?\b|\babandoned\b|\bnot played\b|\bdoes not (?:occur|take place)\b"
        r"|\bno [^.,]{0,60}\btakes? place\b|\bnever (?:starts|begins)\b")),
    ("tied", re.compile(r"\b(?:tied?|ties|dead heat|draw)\b(?![- ]?break)")),
    ("postponed", re.compile(r"\bpostpon\w+|\bdelayed\b|\brescheduled\b|\bnot (?:been )?completed\b")),
    ("walkover", re.compile(r"\bwalkover\b|\bwithdraw\w*\b|\bforfeit\w*\b")),
    ("nobody", re.compile(
        r"\bno (?:nominee|winner|\d{4} [^.,]{0,40}winner)\b[^.]{0,40}\b(?:announced|declared)\b"
        r"|(?:n't|\bnot) known\b|\bno winner\b")),
    ("died", re.compile(r"\b(?:dies|death|deceased)\b")),
)  # fmt: skip
_PAYS = (
    (_HALF, re.compile(r"\b50[-/ ]50\b|(?<![\d.])\$?0?\.50?\b|\b50 cents\b|\b50%")),
    (None, re.compile(r"\bfair (?:market )?(?:price|value)\b|\blast (?:traded|fair) price\b|\brefund|\bvoid(?:ed)?\b")),
    (_NOTHING, re.compile(r"\bresolves? (?:immediately )?(?:to|as)?\s*\"?(?:no|other)\b(?! change)")),
)
_UNSCHEDULED = re.compile(r"\b(?:emergency|unscheduled|inter-?meeting)\b")
_NOT = re.compile(r"\b(?:not|no|exclud\w+|except|only)\b")
_ROUNDING = (
    ("rounded up", re.compile(r"\brounded up\b")),
    ("rounded down", re.compile(r"\brounded down\b")),
    ("rounded", re.compile(r"\brounded\b")),
)
_EXCLUDES = re.compile(r"\b(?:not|n't|no|exclud\w+|without|rather than|insufficient|except)\b")
_SCOPE = (
    ("airport stops", re.compile(r"\blayovers?\b|\bremains? in the air(?:plane|port)\b|\brefuel\w*\b")),
    ("embassy grounds", re.compile(r"\bembass\w+|\bconsula\w+")),
    ("maritime territory", re.compile(r"\bmaritime\b|\binternational waters\b")),
    ("interim holders", re.compile(r"\b(?:interim|acting)\b")),
    ("temporary absence", re.compile(r"\btemporar(?:y|ily)\b")),
    ("extra time", re.compile(r"\b(?:extra time|overtime|penalt(?:y|ies))\b")),
)
_STARTS = re.compile(
    r"\b(?:after|between|since|from) (?:the )?(?:issuance|market (?:creation|issuance))\b"
    r"|\bbefore (?:market )?issuance\b[^.]{0,20}not count"
)


@lru_cache(maxsize=65_536)
def terms(rules: str) -> Terms:
    """Read the terms of a rules text; nothing is read into an empty one."""
    folded = fold(rules)
    clauses = [clause for clause in _CLAUSE.split(folded) if clause]
    zones = {match[1][0] for match in _ZONE.finditer(folded)}
    return Terms(
        source=frozenset(name for name, pattern in _SOURCES if pattern.search(folded)),
        zone={"e": "Eastern", "u": "UTC", "g": "UTC", "p": "Pacific", "c": "Central"}.get(min(zones, default=""), ""),
        early_close=True if _EARLY.search(folded) else None,
        void=dict(_voids(clauses)),
        unscheduled=_unscheduled(clauses),
        rounding=next((name for name, pattern in _ROUNDING if pattern.search(folded)), ""),
        scope=frozenset(_scope(clauses)),
        starts=match.group() if (match := _STARTS.search(folded)) else "",
    )


def _voids(clauses: list[str]) -> Iterator[tuple[str, Decimal | None]]:
    told: set[str] = set()
    for clause in clauses:
        pays = next((value for value, pattern in _PAYS if pattern.search(clause)), _UNTOLD)
        if pays is _UNTOLD:
            continue
        for state, pattern in _STATES:
            if state not in told and pattern.search(clause):
                told.add(state)
                yield state, pays


def _unscheduled(clauses: list[str]) -> str:
    for clause in clauses:
        if _UNSCHEDULED.search(clause):
            return "excluded" if _NOT.search(clause) else "counts"
    return ""


def _scope(clauses: list[str]) -> Iterator[str]:
    for clause in clauses:
        if _EXCLUDES.search(clause):
            yield from (name for name, pattern in _SCOPE if pattern.search(clause))


# --- comparing ----------------------------------------------------------------------------------------------


def contest_states(first: Slots, second: Slots) -> tuple[str, ...]:
    """Exceptional states of a contest whose payout both texts have to tell.

    A tie is none where it is an answer of its own, or where a line decides.
    """
    ways = [side.ways.value if side.ways is not None else "" for side in (first, second)]
    kinds = [side.market_type.value if side.market_type is not None else "" for side in (first, second)]
    lined = all(kind in {"spread", "total"} for kind in kinds)
    game = first.game is not None or second.game is not None
    return ("cancelled", "tied") if game and not lined and ways != ["three-way"] * 2 else ("cancelled",)


def compare_rules(
    kalshi: Market, polymarket: Market, first: Slots, second: Slots, *, contest: bool, index: int = 0
) -> RulesDiff:
    """Compare two markets' rules.

    Args:
        kalshi, polymarket: the markets, whose rules texts are read.
        first, second: their slots, for the terms that the question itself tells.
        contest: whether the outcome hangs on a contest, whose silence on exceptional states promises nothing.
        index: the Polymarket outcome that goes with Kalshi's YES; with 1, a state is equal where one outcome pays what
            the other leaves of a dollar.
    """
    left, right = terms(kalshi.rules), terms(polymarket.rules)
    lines = [
        _sources(left.source, right.source),
        _of_slots("observation", first, second),
        _of_slots("deadline", first, second),
        _line("timezone", left.zone, right.zone),
        _line("early close", _told(left.early_close), _told(right.early_close)),
        _of_slots("evidence", first, second, name="announcement or effect"),
        _line("unscheduled", left.unscheduled, right.unscheduled),
        _line("rounding", left.rounding, right.rounding),
        _scopes(left.scope, right.scope),
        _line("starts", left.starts, right.starts),
    ]
    states = sorted(left.void.keys() | right.void.keys())
    ours = _Payouts(left.void, contest=contest, affirmative=first.affirmative)
    theirs = _Payouts(
        right.void, contest=contest, affirmative=second.affirmative, no_first=fold(polymarket.outcomes[0]) == "no"
    )
    lines += [_void_line(state, ours, theirs, index) for state in states]
    if contest and states:
        states = sorted({*states, *contest_states(first, second)})
    payouts = None if contest and not states else _payouts(states, ours, theirs)
    return RulesDiff(
        tuple(line for line in lines if line.kalshi or line.polymarket), payouts, _stated(states, ours, theirs)
    )


def _told(value: bool | None) -> str:
    return "may end early" if value else ""


def _line(field: str, first: str, second: str) -> Difference:
    if not first or not second:
        return Difference(field, first, second, Result.UNKNOWN)
    return Difference(field, first, second, Result.EQUAL if first == second else Result.DIFFERS)


def _of_slots(slot: str, first: Slots, second: Slots, name: str = "") -> Difference:
    values = [fact.value if (fact := getattr(side, slot)) is not None else None for side in (first, second)]
    shown = [_shown(value) for value in values]
    return _line(name or slot, shown[0], shown[1])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _sources(first: frozenset[str], second: frozenset[str]) -> Difference:
    """Measured values hang on the very source; what officials announce and the press reports are one class."""
    texts = ", ".join(sorted(first)), ", ".join(sorted(second))
    if not first or not second:
        return Difference("source", *texts, Result.UNKNOWN)
    measured = first & _PRICE_CLASSES, second & _PRICE_CLASSES
    if any(measured):
        result = Result.EQUAL if measured[0] & measured[1] else Result.DIFFERS if all(measured) else Result.UNKNOWN
        return Difference("source", *texts, result)
    publishers = (first - _PUBLIC, second - _PUBLIC)
    if publishers[0] and publishers[1] and not publishers[0] & publishers[1]:
        return Difference("source", *texts, Result.DIFFERS)
    return Difference("source", *texts, Result.EQUAL)


_PUBLIC = frozenset({"official", "reporting", "organiser", "news calls"})


def _scopes(first: frozenset[str], second: frozenset[str]) -> Difference:
    """What one side alone excludes counts on the other."""
    texts = tuple(f"excludes {', '.join(sorted(side))}" if side else "" for side in (first, second))
    if not first and not second:
        return Difference("scope", "", "", Result.UNKNOWN)
    return Difference(
        "scope", texts[0] or "excludes nothing", texts[1] or "excludes nothing",
        Result.EQUAL if first == second else Result.DIFFERS,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Payouts:
    """What a market's first outcome pays in exceptional states.

    Attributes:
        void: what YES pays, as the text tells.
        affirmative: whether YES says that something happens, so that silence on what happens instead pays nothing; for
            a question that is turned round it pays all. A contest's silence promises nothing at all.
        no_first: whether the venue lists No first.
    """

    void: Mapping[str, Decimal | None]
    contest: bool
    affirmative: bool
    no_first: bool = False

    def of(self, state: str) -> Decimal | None:
        """Dollars, None for a price that is not fixed."""
        if state in self.void:
            pays = self.void[state]
        elif self.contest:
            return None
        else:
            pays = _NOTHING if self.affirmative else _WHOLE
        return pays if pays is None or not self.no_first else 1 - pays

    def text(self, state: str) -> str:
        """For people."""
        if state not in self.void:
            return NOT_TOLD
        value = self.of(state)
        return "a price that is not fixed" if value is None else f"pays {value:.2f}"


def _void_line(state: str, first: _Payouts, second: _Payouts, index: int) -> Difference:
    ours, theirs = first.of(state), second.of(state)
    shown = first.text(state), second.text(state)
    if ours is None or theirs is None:
        both_told = state in first.void and state in second.void
        differs = both_told and ours != theirs
        return Difference(f"if {state}", *shown, Result.DIFFERS if differs else Result.UNKNOWN)
    equal = ours == (1 - theirs if index else theirs)
    return Difference(f"if {state}", *shown, Result.EQUAL if equal else Result.DIFFERS)


def _payouts(states: list[str], first: _Payouts, second: _Payouts) -> Mapping[str, tuple[Decimal, Decimal]]:
    """What the first outcomes pay by state."""
    found: dict[str, tuple[Decimal, Decimal]] = {}
    for state in states:
        left, right = _ends(first.of(state)), _ends(second.of(state))
        for number, (one, other) in enumerate((one, other) for one in left for other in right):
            name = state if len(left) * len(right) == 1 else f"{state} ({'abcd'[number]})"
            found[name] = one, other
    return found


def _stated(states: list[str], first: _Payouts, second: _Payouts) -> Mapping[str, tuple[Decimal, Decimal]] | None:
    found: dict[str, tuple[Decimal, Decimal]] = {}
    for state in states:
        left, right = first.of(state), second.of(state)
        if state not in first.void or state not in second.void or left is None or right is None:
            return None
        found[state] = left, right
    return found or None


def _ends(value: Decimal | None) -> tuple[Decimal, ...]:
    return (Decimal(0), Decimal(1)) if value is None else (value,)
