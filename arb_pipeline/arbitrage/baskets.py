"""Baskets over the outcomes of one event: one YES of each, one NO of each, or the cheaper venue's leg for each.

What a basket pays in the worst ordinary state rests on two properties of its outcomes: *exclusive* (at most one of
them happens) and *exhaustive* (at least one does). A venue's flag of mutual exclusion says the first only; the second
has to be proven, by a live leg for everything else or by numeric outcomes that leave no gap.
"""

from collections.abc import Sequence
from decimal import Decimal

from arb_pipeline.arbitrage.ladders import DepthError, Leg, LegExecution, execute

__all__ = ["BasketError", "best_of_both", "no_basket_payout", "yes_basket_payout"]


class BasketError(ValueError):
    """A set of outcomes on which no guarantee rests; the message says what is missing."""


def yes_basket_payout(*, exhaustive: bool) -> Decimal:
    """Least payout of one YES contract of every outcome, dollars.

    Outcomes of which several may happen pay at least as much.

    Raises:
        BasketError: if they are not exhaustive: when none of them happens, the basket pays nothing.
    """
    if not exhaustive:
        raise BasketError("outcomes are not proven exhaustive: a basket of YES may pay nothing")
    return Decimal(1)


def no_basket_payout(outcomes: int, *, exclusive: bool) -> Decimal:
    """Least payout of one NO contract of every outcome, dollars: all but the one that happens.

    Raises:
        BasketError: if they are not exclusive: all of them may happen, and the basket pays nothing.
    """
    if not exclusive:
        raise BasketError("outcomes are not known to be exclusive: a basket of NO may pay nothing")
    if outcomes < 2:
        raise BasketError(f"{outcomes} outcomes are no basket: give at least two")
    return Decimal(outcomes - 1)


def best_of_both(outcomes: Sequence[Sequence[Leg]], size: Decimal) -> tuple[Leg, ...]:
    """For each outcome the leg that costs least for ``size`` contracts, fees included.

    The lower quote may be the dearer leg. Of equal ones the first is chosen.

    Raises:
        DepthError: if no leg of an outcome holds so many contracts.
    """
    return tuple(_cheapest(options, size) for options in outcomes)


def _cheapest(options: Sequence[Leg], size: Decimal) -> Leg:
    priced: list[tuple[Decimal, Leg]] = []
    for leg in options:
        try:
            (done,) = execute((leg,), size).legs
        except DepthError:
            continue
        priced.append((_all_in(done), leg))
    if not priced:
        names = ", ".join(leg.name for leg in options) or "none"
        raise DepthError(f"no leg of an outcome holds {size} contracts (asked: {names})")
    return min(priced, key=lambda each: each[0])[1]


def _all_in(done: LegExecution) -> Decimal:
    return done.cost + done.fee
