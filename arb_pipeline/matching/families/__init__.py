"""Kinds of questions, each with a parser that completes the generic reading by what its kind is about.

A market that no parser knows keeps the generic reading and an empty family: its pairs are proposed to a person at best.
"""

from msgspec.structs import replace

from arb_pipeline.matching import slots as generic
from arb_pipeline.matching.families import contests, economy, events, politics
from arb_pipeline.matching.families.reading import Family, Reading
from arb_pipeline.matching.slots import Proposition, Slots
from arb_pipeline.model import Event, Market

__all__ = ["FAMILIES", "Family", "family_named", "propositions"]

FAMILIES: tuple[Family, ...] = (
    *contests.FAMILIES[:2],
    *economy.FAMILIES,
    *politics.FAMILIES,
    *events.FAMILIES,
    *contests.FAMILIES[2:],
)
"""In the order in which they are tried: what metadata or a metric tells first, what a single word tells last."""

_BY_NAME = {family.name: family for family in FAMILIES}


def family_named(name: str) -> Family | None:
    """The family of a name, None for the generic reading's empty one."""
    return _BY_NAME.get(name)


def propositions(event: Event, market: Market) -> tuple[Proposition, ...]:
    """What each outcome of a market that states something says, read by the first parser that knows the market."""
    return tuple(
        Proposition(found.index, _read(Reading(event, market, found.index, found.slots)))
        for found in generic.propositions(event, market)
    )


def _read(reading: Reading) -> Slots:
    for family in FAMILIES:
        if (slots := family.parse(reading)) is not None:
            return replace(slots, family=family.name)
    return reading.slots
