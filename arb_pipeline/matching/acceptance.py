"""What keeps a proposed pair from being accepted without a person.

Everything has to be known and equal that its family calls mandatory, both rules texts have to be there, and no term of
theirs may differ in a way that pays differently. One open point is enough for a person to look.
"""

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation

from arb_pipeline.matching.explanation import shown
from arb_pipeline.matching.families import Family, family_named
from arb_pipeline.matching.rules import NOT_TOLD, Result, RulesDiff, contest_states
from arb_pipeline.matching.slots import Slots
from arb_pipeline.matching.vetoes import Comparison, Outcome, Verdict, names_apart, spoken_of, unread, unspoken
from arb_pipeline.model import Market

__all__ = ["alarms", "blockers"]

_HARMLESS_FIELDS = frozenset({"timezone", "early close", "deadline", "observation"})
"""Fields that a mandatory slot covers better, or that change when a contract pays but not what."""

_HARMLESS_CAVEATS = frozenset({"void"})
"""Caveats that the comparison of the rules texts answers."""

_INVERSION_SUM = Decimal("0.03")
_INVERSION_GAP = Decimal("0.20")


def blockers(
    markets: tuple[Market, Market], sides: tuple[Slots, Slots], verdict: Verdict, diff: RulesDiff
) -> tuple[str, ...]:
    """Reasons for a person to look at the pair; none means that it may be accepted by itself.

    Args:
        markets, sides: (Kalshi, Polymarket) and the slots that were compared.
        verdict: how the slots compare.
        diff: how the rules texts compare.
    """
    return tuple(_blockers(markets, sides, verdict, diff))


def _blockers(
    markets: tuple[Market, Market], sides: tuple[Slots, Slots], verdict: Verdict, diff: RulesDiff
) -> Iterator[str]:
    first, second = sides
    family = family_named(first.family)
    if family is None or first.family != second.family:
        yield "family: no parser knows both questions as one kind"
        return
    for venue, market in zip(("Kalshi", "Polymarket"), markets, strict=True):
        if not market.rules.strip():
            yield f"rules: {venue} gives none"
    for slot in family.mandatory:
        found = verdict.of(slot)
        if found is None or found.outcome not in {Outcome.EQUAL, Outcome.COMPLEMENT}:
            yield f"{slot}: {_lacking(found)}"
    for item in verdict.with_outcome(Outcome.CAVEAT):
        if item.slot not in _HARMLESS_CAVEATS and item.slot not in family.mandatory:
            yield f"{item.slot}: {item.reason}"
    for item in verdict.with_outcome(Outcome.UNKNOWN):
        if item.slot not in family.mandatory and not _may_be_left_out(item, sides, verdict, family):
            yield f"{item.slot}: {item.reason or _lacking(item)}"
    for venue, words in (
        ("Kalshi", unspoken(first, second) | unread(first, second)),
        ("Polymarket", unspoken(second, first) | unread(second, first)),
    ):
        if words:
            yield f"topic: only {venue} speaks of {', '.join(sorted(words))}"
    ours, theirs = names_apart(first, second)
    if ours and theirs and verdict.of("game") is None:
        yield f"names: {', '.join(sorted(ours))} / {', '.join(sorted(theirs))} only in the other's rules"
    yield from _terms(diff, sides, family)


def _lacking(item: Comparison | None) -> str:
    """Who leaves a slot open, in words."""
    if item is None or (item.kalshi is None and item.polymarket is None):
        return "neither side tells it"
    if item.kalshi is not None and item.polymarket is not None:
        return item.reason or "not known to be equal"
    venues = ("Kalshi", "Polymarket") if item.kalshi is not None else ("Polymarket", "Kalshi")
    told = item.kalshi or item.polymarket
    return f"only {venues[0]} tells it ({shown(told.value) if told else ''}), {venues[1]} does not"


_COVERED_BY = {"editions": ("deadline", "on", "meeting"), "observation": ("deadline", "meeting")}
"""Slots that another, where it is known to be equal, tells as well."""


def _may_be_left_out(item: Comparison, sides: tuple[Slots, Slots], verdict: Verdict, family: Family) -> bool:
    """Whether it is no open point that one side alone tells a slot."""
    if item.slot in family.optional:
        return True
    if item.slot == "actor":
        told = item.kalshi or item.polymarket
        other = sides[1] if item.kalshi is not None else sides[0]
        if item.kalshi is not None and item.polymarket is not None:
            return not item.weight
        return told is not None and spoken_of(tuple(word for word in told.value if word != "be"), other)
    return any(
        found is not None and found.outcome is Outcome.EQUAL
        for found in (verdict.of(slot) for slot in _COVERED_BY.get(item.slot, ()))
    )


def _terms(diff: RulesDiff, sides: tuple[Slots, Slots], family: Family) -> Iterator[str]:
    needed, contest = family.terms, family.contest
    for line in diff.lines:
        if line.field == "starts":
            if line.result is not Result.EQUAL and "window_start" not in family.optional:
                yield f"rules: counting starts apart ({line.kalshi or 'not told'} / {line.polymarket or 'not told'})"
        elif line.result is Result.DIFFERS and line.field not in _HARMLESS_FIELDS:
            yield f"rules: {line.field} differs ({line.kalshi or 'not told'} / {line.polymarket or 'not told'})"
        elif line.result is Result.UNKNOWN and (contest and line.field.startswith("if ")):
            venue = "Polymarket" if line.kalshi == NOT_TOLD else "Kalshi"
            yield f"rules: {line.field}: only {venue} fixes what it pays"
    for field in needed:
        if field == "void":
            for state in contest_states(*sides):
                if diff.result(f"if {state}") is not Result.EQUAL and not _spoken_of(diff, f"if {state}"):
                    yield f"rules: what a contest that is {state} pays is not told"
        elif field != "scope" and diff.result(field) is not Result.EQUAL and _spoken_of(diff, field):
            yield f"rules: {field} is not known to be equal"


def _spoken_of(diff: RulesDiff, field: str) -> bool:
    return any(line.field == field for line in diff.lines)


def alarms(kalshi: Market, polymarket: Market, *, inverted: bool) -> tuple[str, ...]:
    """Prices that look as if a pair were aligned the wrong way round: an alarm for people, never a reason."""
    prices = [_price(market.last_trade_price) for market in (kalshi, polymarket)]
    if prices[0] is None or prices[1] is None:
        return ()
    first, second = prices[0], 1 - prices[1] if inverted else prices[1]
    if abs(first + second - 1) < _INVERSION_SUM and abs(first - second) > _INVERSION_GAP:
        return (f"suspected_inversion: last trades at {first} and {second} add up to about 1",)
    return ()


def _price(text: str) -> Decimal | None:
    try:
        price = Decimal(text)
    except InvalidOperation:
        return None
    return price if 0 < price < 1 else None
