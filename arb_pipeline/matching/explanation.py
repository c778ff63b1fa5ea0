"""Why a pair was called what it was called, as JSON lines and as text that can be checked without reading code."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from arb_pipeline.matching.numbers import Interval
from arb_pipeline.matching.slots import Fact
from arb_pipeline.matching.vetoes import Comparison

__all__ = ["comparison_line", "explain", "shown", "slot_name"]

_RESULTS = {
    "equal": "equal",
    "unknown": "open",
    "caveat": "equal but for a detail",
    "complement": "the opposite",
    "kalshi_narrower": "Kalshi's is part of Polymarket's",
    "polymarket_narrower": "Polymarket's is part of Kalshi's",
    "disjoint": "cannot both hold",
    "veto": "different",
}
_SLOT_NAMES = {
    "subject": "whom or what it asks about",
    "action": "what has to happen",
    "interval": "values that make it true",
    "observation": "when it looks",
    "deadline": "first instant that is too late",
    "window_start": "first instant that counts",
    "on": "the day that counts",
    "clock": "time of day",
    "editions": "year or edition",
    "metric": "what is measured",
    "source_class": "who decides",
    "station": "where it is measured",
    "period": "part of the game, or basis of the figure",
    "round": "stage of the contest",
    "market_type": "kind of bet",
    "game": "sides of the contest",
    "start": "start of the contest",
    "object": "office that is left",
    "mode": "which form counts",
    "evidence": "which step is enough",
    "format": "singles or doubles",
    "ways": "possible results",
    "death": "death in office",
    "duration": "how long",
    "actor": "who does it",
    "ordinal": "place in the order of size",
    "qualifier": "first, last or most",
    "numbers": "other numbers",
    "entity": "names",
    "topic": "other words",
    "aspect": "words of another question",
    "polarity": "yes or no",
    "void": "cancelled or tied",
    "coherence": "title against rules",
    "family": "kind of question",
    "one_to_one": "one partner each",
    "source": "who decides",
    "scope": "what does not count",
    "starts": "from when it counts",
    "nobody": "nobody wins",
}
_VALUE_NAMES = {
    "point": "at one time",
    "window": "at any time until the deadline",
    "touch": "touched at any time",
    "count": "how often",
    "sequence": "a row of decisions",
}
_SOURCE_NAMES = {
    "yes_title": "answer",
    "titles": "titles",
    "event_title": "event's title",
    "sub_title": "event's subtitle",
    "family": "follows from the kind of question",
    "strike": "listed strike",
    "line": "listed line",
    "event": "answers of the event",
    "outcomes": "outcomes",
    "occurrence_at": "listed time of the occurrence",
    "gameStartTime": "listed start",
    "event.start_at": "listed start of the event",
    "sportsMarketType": "listed kind of bet",
}
_UNFIXED = re.compile(r" \([a-d]\)$")
_TERM_RESULTS = {"unknown": "open"}
_RELATIONS = {
    "equivalent": "The same question: Kalshi YES pays exactly when Polymarket's first outcome does.",
    "inverted": "The same question turned round: Kalshi YES pays exactly when Polymarket's second outcome does.",
    "kalshi_implies_polymarket": "Whenever Kalshi YES pays, Polymarket's first outcome pays too, not the other way.",
    "polymarket_implies_kalshi": "Whenever Polymarket's first outcome pays, Kalshi YES pays too, not the other way.",
    "exclusive": "At most one of Kalshi YES and Polymarket's first outcome can pay.",
    "related": "The same topic, but neither answer settles the other.",
    "different": "Different questions.",
}


def comparison_line(comparison: Comparison) -> dict[str, Any]:
    """One slot's comparison as plain values: both values with where they were read, the result, the weight."""
    return {
        "slot": comparison.slot,
        "kalshi": _side(comparison.kalshi),
        "polymarket": _side(comparison.polymarket),
        "result": comparison.outcome.value,
        "weight": comparison.weight,
        **({"reason": comparison.reason} if comparison.reason else {}),
    }


def explain(relation: str, status: str, explanation: Mapping[str, Any], vetoes: Sequence[str] = ()) -> str:
    """A match in words.

    Args:
        relation, status: of the row of ``market_matches``.
        explanation: its ``explanation``, decoded.
        vetoes: its ``vetoes``, decoded.
    """
    return "\n".join(_told(relation, status, explanation, vetoes))


def _told(relation: str, status: str, explanation: Mapping[str, Any], vetoes: Sequence[str]) -> Iterator[str]:
    yield f"{_RELATIONS.get(relation, relation)} Status: {status}."
    if family := explanation.get("family"):
        yield f"Both are questions of the kind {family.replace('_', ' ')}."
    else:
        yield "No parser knows both as one kind of question."
    yield f"Evidence adds up to {explanation.get('score', 0):.2f} (a sum of weights, no probability):"
    for line in explanation.get("slots", ()):
        yield f"  {_slot_text(line)}"
    yield from _list("Not the same because", vetoes)
    yield from _list("To be looked at", explanation.get("caveats", ()))
    yield from _list("Open, so that a person decides", explanation.get("open", ()))
    yield from _list("Alarm", explanation.get("alarms", ()))
    if lines := explanation.get("terms"):
        yield "The rules texts, term by term:"
        for line in lines:
            kalshi, polymarket = (_term(line[venue]) for venue in ("kalshi", "polymarket"))
            result = _TERM_RESULTS.get(line["result"], line["result"])
            yield f"  {slot_name(line['field'])}: {result} (Kalshi: {kalshi}; Polymarket: {polymarket})"
    if states := explanation.get("void_states"):
        yield "If it is not decided as usual, YES pays:"
        for name, pays in states.items():
            yield f"  {slot_name(name)}: Kalshi {pays['kalshi']}, Polymarket {pays['polymarket']} dollars"
        if any(_UNFIXED.search(name) for name in states):
            yield "  (a), (b) and so on: a price that no text fixes counts as 0 and as 1"
    for rival in explanation.get("rivals", ()):
        yield f"Rival: {rival['kalshi']} with {rival['polymarket']}, evidence {rival['score']:.2f}"


def _list(title: str, items: Sequence[str]) -> Iterator[str]:
    for item in items:
        slot, colon, rest = item.partition(":")
        yield f"{title}: {slot_name(slot)}{colon}{rest}"


def slot_name(slot: str) -> str:
    """A slot's name in words."""
    return _SLOT_NAMES.get(slot, slot.replace("_", " "))


def _term(value: str) -> str:
    return _instant(value) or _VALUE_NAMES.get(value, value) or "not told"


def _value(slot: str, value: str) -> str:
    if slot == "actor" and value.startswith("be "):
        return f"done to {value.removeprefix('be ')}"
    return _term(value)


def _instant(value: str) -> str:
    """A time of the explanation as people write it, empty where it is none."""
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return ""
    return f"{at:%Y-%m-%d %H:%M} UTC" if at.tzinfo is not None else ""


def _slot_text(line: Mapping[str, Any]) -> str:
    told = [(venue, line[key]) for venue, key in (("Kalshi", "kalshi"), ("Polymarket", "polymarket"))]
    sides = [
        f"{venue} {_value(line['slot'], side['value'])!r} ({_source(side['source'])}{_quoted(side['text'])})"
        for venue, side in told
        if side is not None
    ]
    result = _RESULTS[line["result"]]
    if line["result"] == "unknown" and len(sides) == 1:
        lacking = next(venue for venue, side in told if side is None)
        result = f"{lacking} does not tell it"
    reason = f": {line['reason']}" if line.get("reason") else ""
    shown_sides = f"; {'; '.join(sides)}" if sides else ""
    return f"{slot_name(line['slot'])} {line['weight']:+.2f} {result}{reason}{shown_sides}"


def _source(source: str) -> str:
    return _SOURCE_NAMES.get(source, source)


def _quoted(text: str) -> str:
    return f": {text[:80]!r}" if text else ""


def _side(fact: Fact[Any] | None) -> dict[str, str] | None:
    return None if fact is None else {"value": shown(fact.value), "source": fact.source, "text": fact.text}


def shown(value: object) -> str:
    """A slot's value as an explanation gives it."""
    if isinstance(value, frozenset):
        return ", ".join(sorted(shown(item) for item in value))
    if isinstance(value, tuple):
        return " ".join(shown(item) for item in value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | Interval):
        return str(value)
    return "" if value is None else str(value).replace("_", " ")
