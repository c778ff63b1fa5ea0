"""Baskets over the outcomes of one event: one YES of each, one NO of each, or the cheaper venue's leg for each.

What a basket pays in the worst ordinary state rests on two properties of its outcomes: *exclusive* (at most one of
them happens) and *exhaustive* (at least one does). A venue's flag of mutual exclusion says the first only; the second
has to be proven, by a live leg for everything else or by numeric outcomes that leave no gap.

YES and NO of one market are no basket here. Both venues keep one book per market, shown from either side, so that the
two together cost less than a dollar only where a bid stands at or above an ask, which no matching engine leaves
standing: such a book is out of sync, and counted as a fault of the data where baskets are evaluated.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import Final, Literal, TypeAlias

from arb_pipeline.arbitrage.ladders import DepthError, Leg, LegExecution, Optimum, execute, optimise
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.arbitrage.states import UNKNOWN, Payoff, opposite
from arb_pipeline.model import Market, MatchStatus, Relation

__all__ = [
    "NOT_EXHAUSTIVE",
    "Basket",
    "BasketKind",
    "Buy",
    "OutcomeSet",
    "baskets_of",
    "best_of_both",
    "cheapest_tops",
    "least_payout",
    "optimise_options",
]

NOT_EXHAUSTIVE = "not_exhaustive"

BasketKind = Literal["yes_basket", "no_basket", "best_of_both"]

Key: TypeAlias = tuple[str, str]
"""(venue, market id)."""

_ZERO: Final = Decimal(0)
_SAME: Final = (Relation.EQUIVALENT, Relation.INVERTED)
_TRUST: Final = (MatchStatus.APPROVED, MatchStatus.AUTO)
_RETURNS_COLLATERAL: Final = frozenset({"kalshi"})
"""Venues that give back what NO positions of a mutually exclusive event are sure to pay."""


@dataclass(frozen=True, slots=True)
class OutcomeSet:
    """An event of several outcomes, as far as they are still open.

    Attributes:
        outcomes: its markets, without those that are settled NO.
        exclusive: at most one of them resolves YES. exhaustive: proven that one of them has to.
        why: what proves or disproves that.
        missing: outcomes of the event that nobody lists any more and that are not known to be settled NO.
    """

    venue: str
    event_id: str
    outcomes: tuple[Market, ...]
    exclusive: bool
    exhaustive: bool
    why: str = ""
    missing: tuple[str, ...] = ()

    @property
    def doubt(self) -> str:
        """Why it is not sure that one of the outcomes happens; empty if it is."""
        if not self.exhaustive:
            return self.why or "nothing proves it"
        return f"{self.missing[0]} is not listed" if self.missing else ""


@dataclass(frozen=True, slots=True)
class Buy:
    """One side of one market."""

    market: Market
    yes: bool

    @property
    def key(self) -> Key:
        """(venue, market id)."""
        return self.market.venue, self.market.market_id


@dataclass(frozen=True, slots=True)
class Basket:
    """What is bought together.

    Attributes:
        venue: on which all is bought; None: on both.
        options: for each outcome what stands for it, of which the cheapest is bought.
        reasons: guards that never hold.
        void_states: by exceptional state what YES of each market pays; None while somebody has not read the rules.
        subset: outcomes may be left out that do not trade, whose books are not to be trusted, that nobody sells, or of
            which too little is sold.
    """

    kind: BasketKind
    event_id: str
    options: tuple[tuple[Buy, ...], ...]
    venue: str | None = None
    partner_event_id: str | None = None
    reasons: tuple[str, ...] = ()
    void_states: Mapping[str, Mapping[Key, Payoff]] | None = None
    subset: bool = False

    def payout(self, outcomes: int) -> Decimal:
        """Least ordinary payout of one basket of so many outcomes, dollars, if its guards hold."""
        no = self.kind == "no_basket"
        return least_payout([not no] * outcomes, exclusive=no, exhaustive=not no)

    @property
    def returns_collateral(self) -> bool:
        """Whether the venue gives back at once what the basket is sure to pay."""
        return self.kind == "no_basket" and self.venue in _RETURNS_COLLATERAL


def least_payout(yes: Sequence[bool], *, exclusive: bool, exhaustive: bool) -> Decimal:
    """What one contract of each outcome is sure to pay, dollars, whichever of the outcomes happen.

    Args:
        yes: of each outcome whether YES is bought, else NO.
        exclusive: at most one of these happens.
        exhaustive: at least one of these happens.
    """
    if not yes:
        return Decimal(0)
    none = sum(not one for one in yes)
    if not exclusive:
        # Whatever pays less by happening does; of nothing but YES, one has to if they are exhaustive.
        return Decimal(int(exhaustive and none == 0))
    singly = [none + (1 if one else -1) for one in yes]
    return Decimal(min(singly if exhaustive else [none, *singly]))


def baskets_of(sets: Iterable[OutcomeSet], pairs: Iterable[Pair]) -> Iterator[Basket]:
    """All baskets over these events.

    - ``yes_basket``: of every event. Of one that is not proven exhaustive it is told what it seems to earn, and why it
      may not.
    - ``no_basket``: of events that the venue calls exclusive.
    - ``best_of_both``: where any outcome has a partner on the other venue that is to be trusted. Such an outcome bought
      there and all the rest here is one of its choices: the rest stand for its NO. One basket for two events whose
      outcomes are all partners of each other.
    """
    sets = [one for one in sets if len(one.outcomes) > 1]
    partners = _partners(pairs)
    by_event = {(one.venue, one.event_id): one for one in sets}
    for one in sorted(sets, key=lambda each: (each.venue, each.event_id)):
        void = _void_states([partners.get((one.venue, each.market_id)) for each in one.outcomes])
        doubt = (f"{NOT_EXHAUSTIVE}:{one.doubt}",) if one.doubt else ()
        yes = tuple((Buy(market, yes=True),) for market in one.outcomes)
        yield Basket("yes_basket", one.event_id, yes, one.venue, reasons=doubt, void_states=void)
        if one.exclusive:
            no = tuple((Buy(market, yes=False),) for market in one.outcomes)
            yield Basket("no_basket", one.event_id, no, one.venue, void_states=void, subset=True)
        yield from _across(one, partners, by_event)


def _across(
    one: OutcomeSet, partners: Mapping[Key, Pair], by_event: Mapping[tuple[str, str], OutcomeSet]
) -> Iterator[Basket]:
    """The basket that may buy some outcomes on the other venue: those whose partner there is to be trusted."""
    listed = [partners.get((one.venue, market.market_id)) for market in one.outcomes]
    paired = [pair if pair is not None and pair.status in _TRUST else None for pair in listed]
    others = [None if pair is None else _other(pair, one.venue) for pair in paired]
    theirs = [buy.market for buy in others if buy is not None]
    if not theirs:
        return
    event_id = Counter(market.event_id for market in theirs).most_common(1)[0][0]
    partner = by_event.get((theirs[0].venue, event_id))
    # Of inverted pairs the other event's outcomes are the contraries: its baskets and its proof are of these.
    straight = all(pair is not None and not pair.inverted for pair in paired)
    mutual = (
        straight
        and partner is not None
        and {each.market_id for each in partner.outcomes} == {market.market_id for market in theirs}
    )
    if mutual and one.venue > theirs[0].venue:
        return
    doubt = "" if mutual and partner is not None and not partner.doubt else one.doubt
    yield Basket(
        "best_of_both",
        one.event_id,
        tuple(
            (Buy(market, yes=True), *([] if other is None else [other]))
            for market, other in zip(one.outcomes, others, strict=True)
        ),
        partner_event_id=event_id,
        reasons=(f"{NOT_EXHAUSTIVE}:{doubt}",) if doubt else (),
        void_states=_void_states(listed),
    )


def _partners(pairs: Iterable[Pair]) -> dict[Key, Pair]:
    """By market the pair that it stands in: of several, one that is to be trusted."""
    found: dict[Key, Pair] = {}
    for pair in sorted(pairs, key=lambda each: (each.status not in _TRUST, each.key)):
        keys = [(market.venue, market.market_id) for market in (pair.kalshi, pair.polymarket)]
        if pair.relation in _SAME and not any(key in found for key in keys):
            found |= dict.fromkeys(keys, pair)
    return found


def _other(pair: Pair, venue: str) -> Buy:
    """What stands on the other venue for YES of a pair's market on this one."""
    market = pair.polymarket if venue == pair.kalshi.venue else pair.kalshi
    return Buy(market, yes=not pair.inverted)


def _void_states(pairs: Sequence[Pair | None]) -> dict[str, dict[Key, Payoff]] | None:
    """By exceptional state what YES of these pairs' markets pays; None if of any nobody knows."""
    told = [pair for pair in pairs if pair is not None and pair.void_states is not None]
    if len(told) < len(pairs):
        return None
    states: dict[str, dict[Key, Payoff]] = {
        name: {} for name in sorted({name for pair in told for name in pair.void_states or {}})
    }
    for name, payoffs in states.items():
        for pair in told:
            kalshi, polymarket = (pair.void_states or {}).get(name, (UNKNOWN, UNKNOWN))
            payoffs[pair.kalshi.venue, pair.kalshi.market_id] = kalshi
            payoffs[pair.polymarket.venue, pair.polymarket.market_id] = (
                opposite(polymarket) if pair.inverted else polymarket
            )
    return states


def best_of_both(outcomes: Sequence[Sequence[Leg]], size: Decimal) -> tuple[Leg, ...]:
    """For each outcome the leg that costs least for ``size`` contracts, fees included.

    The lower quote may be the dearer leg. Of equal ones the first is chosen.

    Raises:
        DepthError: if no leg of an outcome holds so many contracts.
    """
    return tuple(_cheapest(options, size) for options in outcomes)


def cheapest_tops(outcomes: Sequence[Sequence[Leg]]) -> tuple[Leg, ...]:
    """For each outcome the leg whose cheapest ask costs least per contract, with its fee before rounding."""
    return tuple(min(options, key=lambda leg: _marginal(leg, leg.asks[0][0])) for options in outcomes)


def optimise_options(outcomes: Sequence[Sequence[Leg]], payout: Decimal) -> Optimum:
    """The most profitable size over every choice of one leg for each outcome.

    Between two boundaries of levels each option's cost is a straight line. The cheapest option's cost is then concave,
    and the net convex, with its largest value at a boundary: the choices made there are all that can be best.
    """
    top = cheapest_tops(outcomes)
    choices = {tuple(map(id, top)): top}
    if any(len(options) > 1 for options in outcomes):
        for size in _boundaries(outcomes, payout):
            admitted = [[leg for leg in options if leg.min_size <= size <= leg.depth] for options in outcomes]
            if all(admitted):
                chosen = best_of_both(admitted, size)
                choices.setdefault(tuple(map(id, chosen)), chosen)
    found = [optimise(legs, payout) for legs in choices.values()]
    return max(found, key=lambda one: (one.best is not None, _ZERO if one.best is None else one.best.net))


def _boundaries(outcomes: Sequence[Sequence[Leg]], payout: Decimal) -> list[Decimal]:
    """Sizes at which a level of an option ends, up to the first that no choice makes pay, and the smallest orders."""
    legs = [leg for options in outcomes for leg in options]
    ends = {end for leg in legs for end in accumulate(size for _, size in leg.asks)}
    found = sorted({size for leg in legs for size in (leg.min_size, leg.lot) if size > 0})
    for end in sorted(ends):
        found.append(end)
        last = [[_marginal(leg, leg.take(end)[-1][0]) for leg in options if leg.depth >= end] for options in outcomes]
        if not all(last) or sum((min(prices) for prices in last), _ZERO) >= payout:
            break
    return found


def _marginal(leg: Leg, price: Decimal) -> Decimal:
    return price + leg.fees.marginal(price)


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
