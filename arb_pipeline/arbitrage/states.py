"""Joint settlement states of all legs, and what a position is worth in the worst of them.

A state is one way in which every leg can settle, ordinary (the proposition holds, or does not) or exceptional (a tie, a
void, a postponement). What a leg pays in a state is known exactly or to lie in an interval: a void price that nobody
has read is [0, 1], so that the guarantee rests on the other legs alone.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

__all__ = ["UNKNOWN", "Payoff", "WorstState", "opposite", "worst_state"]

Payoff: TypeAlias = "Decimal | tuple[Decimal, Decimal]"
"""Dollars that one contract of a leg pays: a figure, or the least and the most that it may be."""

UNKNOWN: Payoff = (Decimal(0), Decimal(1))
"""What a leg pays in a state that its rules were not read for."""

_ZERO = Decimal(0)


def opposite(payoff: Payoff) -> Payoff:
    """What NO pays where YES pays this."""
    return (1 - payoff[1], 1 - payoff[0]) if isinstance(payoff, tuple) else 1 - payoff


@dataclass(frozen=True, slots=True)
class WorstState:
    """What a position is guaranteed to pay.

    Attributes:
        payouts: by state the least that all legs together pay, dollars.
        name: the state that pays least; of equal ones the first.
        ordinary: the least over the ordinary states alone.
    """

    payouts: Mapping[str, Decimal]
    name: str
    ordinary: Decimal

    @property
    def guaranteed(self) -> Decimal:
        """The least over all states."""
        return self.payouts[self.name]


def worst_state(
    quantities: Sequence[Decimal], states: Mapping[str, Sequence[Payoff]], ordinary: Collection[str]
) -> WorstState:
    """The guarantee of a position.

    Args:
        quantities: contracts of each leg.
        states: by state the payoff of each leg's contract.
        ordinary: names of the ordinary states; all others are exceptional.

    Raises:
        ValueError: if there is no (ordinary) state, a state does not tell every leg's payoff, or a payoff lies outside
            of [0, 1].
    """
    if missing := [name for name in ordinary if name not in states]:
        raise ValueError(f"ordinary state {missing[0]!r} is not among the states {', '.join(map(repr, states))}")
    if not ordinary:
        raise ValueError("no ordinary state is named: give the states in which each leg wins or loses")
    payouts = {name: _least(name, quantities, payoffs) for name, payoffs in states.items()}
    name = min(payouts, key=lambda each: payouts[each])
    return WorstState(payouts, name, min(payouts[each] for each in ordinary))


def _least(name: str, quantities: Sequence[Decimal], payoffs: Sequence[Payoff]) -> Decimal:
    if len(payoffs) != len(quantities):
        raise ValueError(f"state {name!r} has {len(payoffs)} payoffs for {len(quantities)} legs: give one a leg")
    total = _ZERO
    for quantity, payoff in zip(quantities, payoffs, strict=True):
        low, high = payoff if isinstance(payoff, tuple) else (payoff, payoff)
        if not 0 <= low <= high <= 1:
            raise ValueError(f"state {name!r} pays {payoff}: expected dollars in [0, 1], or (least, most)")
        total += quantity * low
    return total
