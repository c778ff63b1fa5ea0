"""Why a pair was called what it was called, as JSON lines and as text that can be checked without reading code."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from arb_pipeline.matching.numbers import Interval
from arb_pipeline.matching.slots import Fact
from arb_pipeline.matching.vetoes import Comparison

__all__ = ["comparison_line", "explain"]

_RESULTS = {
    "equal": "equal",
    "unknown": "known on one side alone",
    "caveat": "equal but for a detail",
    "complement": "the opposite",
    "kalshi_narrower": "Kalshi's is part of Polymarket's",
    "polymarket_narrower": "Polymarket's is part of Kalshi's",
    "disjoint": "cannot both hold",
    "veto": "different",
}
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
    yield f"Evidence adds up to {explanation.get('score', 0):.2f}:"
    for line in explanation.get("slots", ()):
        yield f"  {_slot_text(line)}"
    yield from _list("Not the same because", vetoes)
    yield from _list("To be looked at", explanation.get("caveats", ()))
    yield from _list("Open, so that a person decides", explanation.get("open", ()))
    yield from _list("Alarm", explanation.get("alarms", ()))
    if lines := explanation.get("terms"):
        yield "The rules texts, term by term:"
        for line in lines:
            kalshi, polymarket = line["kalshi"] or "not told", line["polymarket"] or "not told"
            yield f"  {line['field']}: {line['result']} (Kalshi: {kalshi}; Polymarket: {polymarket})"
    if states := explanation.get("void_states"):
        yield "If it is not decided as usual, YES pays:"
        for name, pays in states.items():
            yield f"  {name}: Kalshi {pays['kalshi']}, Polymarket {pays['polymarket']} dollars"
    for rival in explanation.get("rivals", ()):
        yield f"Rival: {rival['kalshi']} with {rival['polymarket']}, evidence {rival['score']:.2f}"


def _list(title: str, items: Sequence[str]) -> Iterator[str]:
    for item in items:
        yield f"{title}: {item}"


def _slot_text(line: Mapping[str, Any]) -> str:
    sides = [
        f"{venue} {side['value']!r} ({side['source']}{_quoted(side['text'])})"
        for venue, side in (("Kalshi", line["kalshi"]), ("Polymarket", line["polymarket"]))
        if side is not None
    ]
    result = _RESULTS[line["result"]]
    reason = f": {line['reason']}" if line.get("reason") else ""
    told = f"; {'; '.join(sides)}" if sides else ""
    return f"{line['slot'].replace('_', ' ')} {line['weight']:+.2f} {result}{reason}{told}"


def _quoted(text: str) -> str:
    return f": {text[:80]!r}" if text else ""


def _side(fact: Fact[Any] | None) -> dict[str, str] | None:
    return None if fact is None else {"value": _shown(fact.value), "source": fact.source, "text": fact.text}


def _shown(value: object) -> str:
    if isinstance(value, frozenset):
        return ", ".join(sorted(_shown(item) for item in value))
    if isinstance(value, tuple):
        return " ".join(_shown(item) for item in value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | Interval):
        return str(value)
    return "" if value is None else str(value)
