"""Decides how two questions relate from how their facts compare: the same, turned round, one part of the other, apart.

Nothing but exact logic of intervals, deadlines and closed word lists leads to an implication, and only where everything
else agrees: a word that the implied side alone says may be a condition that the implying side does not meet.
"""

from arb_pipeline.matching.families import family_named
from arb_pipeline.matching.slots import Slots
from arb_pipeline.matching.vetoes import AGAINST, Comparison, Outcome, Verdict, unspoken
from arb_pipeline.model import Relation

__all__ = ["IMPLICATIONS", "MIN_SCORE", "SAME", "relate"]

MIN_SCORE = 5.0
"""Weight of evidence below which a pair without a reason against it is still not proposed."""

SAME = frozenset({Relation.EQUIVALENT, Relation.INVERTED})
IMPLICATIONS = frozenset({Relation.KALSHI_IMPLIES_POLYMARKET, Relation.POLYMARKET_IMPLIES_KALSHI})

_PARTY_WORDS = frozenset({"democratic", "republican", "independent", "party", "labour", "conservative", "liberal"})
_EXCLUDING_SLOTS = frozenset({"subject", "direction", "interval"})


def relate(verdict: Verdict, kalshi: Slots, polymarket: Slots, index: int) -> tuple[Relation, tuple[str, ...]]:
    """The relation of Kalshi's YES to Polymarket's first outcome, with the reasons why it is not the same question.

    Args:
        verdict: how the slots compare.
        kalshi, polymarket: the slots of Kalshi's YES and of one Polymarket outcome.
        index: the Polymarket outcome that Kalshi's YES would correspond to, were the pair the same.
    """
    against = verdict.with_outcome(*AGAINST)
    if not against:
        if verdict.score >= MIN_SCORE:
            return (Relation.INVERTED if index else Relation.EQUIVALENT), ()
        return _loose(verdict), (f"evidence: weight {verdict.score:.2f} is below {MIN_SCORE:.2f}",)
    return _apart(verdict, against, kalshi, polymarket, index), verdict.vetoes


def _loose(verdict: Verdict) -> Relation:
    return Relation.RELATED if verdict.same_topic else Relation.DIFFERENT


def _apart(verdict: Verdict, against: tuple[Comparison, ...], kalshi: Slots, polymarket: Slots, index: int) -> Relation:
    outcomes = {item.outcome for item in against}
    if not kalshi.affirmative or not polymarket.affirmative or index or kalshi.incomplete or polymarket.incomplete:
        return _loose(verdict)
    if outcomes in ({Outcome.NARROWER}, {Outcome.WIDER}) and _rest_agrees(verdict):
        if outcomes == {Outcome.NARROWER}:
            implied = not _conditions(polymarket, kalshi)
            return Relation.KALSHI_IMPLIES_POLYMARKET if implied else _loose(verdict)
        implied = not _conditions(kalshi, polymarket)
        return Relation.POLYMARKET_IMPLIES_KALSHI if implied else _loose(verdict)
    named = _named(polymarket, kalshi)
    # Another name for a side is no other question, another common word may be.
    apart = (unspoken(kalshi, polymarket) | (unspoken(polymarket, kalshi) - polymarket.names)) - named
    if not apart and _exclusive(against, kalshi, polymarket):
        return Relation.EXCLUSIVE
    return _loose(verdict)


def _conditions(implied: Slots, implying: Slots) -> frozenset[str]:
    """What the implied side alone says; the other names of "any of these" are no conditions."""
    alternatives = {word for name in implied.coordinated for word in name} if implied.any_of else set()
    return unspoken(implied, implying) - alternatives


def _rest_agrees(verdict: Verdict) -> bool:
    """Whether the evidence beside the narrower slots would have made it the same question."""
    subject = verdict.of("subject")
    return (
        verdict.score >= MIN_SCORE
        and (subject is None or subject.outcome is Outcome.EQUAL)
        and not any(item.outcome is Outcome.UNKNOWN for item in verdict.comparisons if item.slot == "entity")
    )


def _exclusive(against: tuple[Comparison, ...], kalshi: Slots, polymarket: Slots) -> bool:
    """Whether the two are different answers to one question, of which at most one comes true."""
    family = family_named(kalshi.family)
    if family is None or kalshi.family != polymarket.family:
        return False
    apart = {item.slot: item.outcome for item in against}
    if "subject" in apart:
        # Different subjects are different names and different actors too.
        apart = {slot: outcome for slot, outcome in apart.items() if slot not in {"entity", "actor"}}
    if len(apart) != 1:
        return False
    slot, outcome = next(iter(apart.items()))
    if slot == "interval":
        return outcome is Outcome.DISJOINT
    if slot == "subject":
        if kalshi.subject is None or polymarket.subject is None:
            return False
        # A party and a person are no two answers: the person may be the party's.
        return family.exclusive and _party(kalshi.subject.value) == _party(polymarket.subject.value)
    return family.exclusive and slot in _EXCLUDING_SLOTS


def _party(name: tuple[str, ...]) -> bool:
    return bool(_PARTY_WORDS & {*name})


def _named(*sides: Slots) -> frozenset[str]:
    return frozenset(word for side in sides if side.subject is not None for word in side.subject.value)
