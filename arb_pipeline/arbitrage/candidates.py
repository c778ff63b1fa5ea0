"""One direction of a pair at one instant: sized, priced with exact fees, and held against named guards.

A candidate is any instant with a positive gap between the tops, whatever is wrong with it: the guards that fail are
its reasons.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import Final

from arb_pipeline.arbitrage.books import PairState
from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.ladders import Execution, Fill, Leg, Optimum, execute, optimise
from arb_pipeline.arbitrage.pairs import Direction, Pair
from arb_pipeline.arbitrage.spreads import MONEY_STEP
from arb_pipeline.arbitrage.states import Payoff, worst_state
from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.model import Level, Market, MatchStatus, OrderBook, Relation
from arb_pipeline.settings import Settings
from arb_pipeline.units import ONE, price_decimal, size_decimal
from arb_pipeline.venues.base import FeeModel

__all__ = [
    "BELOW_MIN_NET",
    "BELOW_MIN_SIZE",
    "DIRECTIONS_OF",
    "FEES_UNKNOWN",
    "FEE_EATEN",
    "MATCH_STATUS",
    "RELATION",
    "RESOLUTION_LAG",
    "WORST_STATE",
    "Assessor",
    "Candidate",
    "candidate_bids",
    "candidate_legs",
    "money_reasons",
    "rounded",
    "worst_state_net",
]

MATCH_STATUS = "match_status"
RELATION = "relation"
BELOW_MIN_SIZE = "below_min_size"
RESOLUTION_LAG = "resolution_lag"
FEES_UNKNOWN = "fees_unknown"
FEE_EATEN = "fee_eaten"
BELOW_MIN_NET = "below_min_net"
WORST_STATE = "worst_state"

DIRECTIONS_OF: Final[Mapping[Relation, tuple[Direction, ...]]] = {
    Relation.EQUIVALENT: ("yes_kalshi", "yes_polymarket"),
    Relation.INVERTED: ("yes_kalshi", "yes_polymarket"),
    # What is implied costs at most as much as what is bought against it: YES of the implied, NO of the implying.
    Relation.KALSHI_IMPLIES_POLYMARKET: ("yes_polymarket",),
    Relation.POLYMARKET_IMPLIES_KALSHI: ("yes_kalshi",),
    # At most one holds: each implies the opposite of the other, and NO of both pays at least once.
    Relation.EXCLUSIVE: ("yes_polymarket",),
}
"""By relation the directions of which one leg pays in every ordinary state."""

_MATCHED = (MatchStatus.AUTO, MatchStatus.APPROVED)
_ZERO = Decimal(0)
_ONE = Decimal(1)
_SETTLED_AT: Final = Decimal("0.01")
"""Where a book stands this near to 0 or 1 dollar, what is asked is settled as far as its traders are concerned."""
_LAG_ABOVE: Final = Decimal("0.10")
"""A gap that a settled leg leaves against one that trades on: above it, the other venue has yet to learn the result."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One direction of a pair at one instant with a positive gap between the tops.

    Attributes:
        reasons: guards that do not hold, in the funnel's order, ``guard`` or ``guard:detail``.
        legs: (Kalshi, Polymarket); empty if the fees are unknown.
        execution: the most profitable admissible size; None if nothing could be sized or priced.
        top_edge: exact net per contract at the tops, dollars; 0 if the fees are unknown.
        top_prices: (Kalshi, Polymarket) cheapest asks, dollars.
        schedules: (Kalshi, Polymarket) names of the fee schedules.
    """

    reasons: tuple[str, ...]
    legs: tuple[Leg, ...]
    execution: Execution | None
    top_edge: Decimal
    top_prices: tuple[Decimal, Decimal]
    schedules: tuple[str, str]
    worst_state_net: Decimal | None

    @property
    def net(self) -> Decimal:
        """Net of the execution, 0 without one."""
        return _ZERO if self.execution is None else self.execution.net


class Assessor:
    """Judges one direction of a pair; an unchanged pair of ladders is priced once."""

    def __init__(self, pair: Pair, direction: Direction, settings: Settings, fees: FeeBook) -> None:
        self._pair = pair
        self._direction = direction
        self._fees = fees
        self._least_net = Decimal(str(settings.min_net_usd))
        self._match_reasons = _match_reasons(pair, direction)
        self._priced_for: tuple[object, ...] = ()
        self._priced: Candidate | None = None
        self._told: Candidate | None = None

    def candidate(self, state: PairState) -> Candidate | None:
        """The candidate at a state, the same object while nothing changes; None without a gap between the tops."""
        if state.kalshi is None or state.polymarket is None:
            return None
        yes, no = (
            (state.kalshi, state.polymarket) if self._direction == "yes_kalshi" else (state.polymarket, state.kalshi)
        )
        if yes.best_ask is None or no.best_bid is None or no.best_bid <= yes.best_ask:
            return None
        at = datetime_from_ns(state.recv_ns)
        models = self._fees.at(self._pair.kalshi, at), self._fees.at(self._pair.polymarket, at)
        ladders = _buys(yes, yes=True), _buys(no, yes=False)
        if not all(ladders) or ladders[0][0][0] + ladders[1][0][0] >= ONE:
            return None
        key = (*ladders, *(model if isinstance(model, str) else id(model) for model in models))
        if key != self._priced_for:
            found = self._price(ladders, models)
            self._priced_for, self._priced = key, replace(found, reasons=(*_lag_reasons(found), *found.reasons))
            self._told = None
        priced = self._priced
        assert priced is not None
        reasons = (*self._match_reasons, *state.reasons, *priced.reasons)
        if self._told is None or self._told.reasons != reasons:
            self._told = replace(priced, reasons=reasons)
        return self._told

    def _price(
        self, ladders: tuple[tuple[Level, ...], tuple[Level, ...]], models: tuple[FeeModel | str, FeeModel | str]
    ) -> Candidate:
        """Size and price the (YES, NO) ladders of a direction; the guards on depth, fees and rules."""
        kalshi, polymarket = ladders if self._direction == "yes_kalshi" else ladders[::-1]
        tops = price_decimal(kalshi[0][0]), price_decimal(polymarket[0][0])
        first, second = models
        if isinstance(first, str) or isinstance(second, str):
            why = "; ".join(model for model in models if isinstance(model, str))
            return Candidate((f"{FEES_UNKNOWN}:{why}",), (), None, _ZERO, tops, ("", ""), None)
        legs = _leg(self._pair.kalshi, kalshi, first), _leg(self._pair.polymarket, polymarket, second)
        schedules = first.schedule.name, second.schedule.name
        top_edge = rounded(execute(legs, min(leg.asks[0][1] for leg in legs)).net_edge)
        optimum = optimise(legs)
        if optimum.best is None:
            depth = min(leg.depth for leg in legs)
            return Candidate((BELOW_MIN_SIZE,), legs, execute(legs, depth), top_edge, tops, schedules, None)
        worst = worst_state_net(self._pair, self._direction, optimum.best)
        reasons = money_reasons(optimum, optimum.best, worst, self._least_net)
        return Candidate(reasons, legs, optimum.best, top_edge, tops, schedules, worst)


def money_reasons(optimum: Optimum, best: Execution, worst: Decimal | None, least_net: Decimal) -> tuple[str, ...]:
    """The guards on money that do not hold.

    Args:
        worst: net in the worst state, dollars; None while nobody has told the exceptional states.
        least_net: net that is not worth a trade yet, dollars.
    """
    reasons: tuple[str, ...] = ()
    if best.net <= 0:
        small = 0 < optimum.walk_size < best.size
        reasons = (BELOW_MIN_SIZE if small else FEE_EATEN,)
    elif best.net <= least_net:
        reasons = (BELOW_MIN_NET,)
    if worst is not None and worst <= 0 < best.net:
        reasons = (*reasons, WORST_STATE)
    return reasons


def candidate_legs(
    pair: Pair, direction: Direction, kalshi: OrderBook, polymarket: OrderBook, fees: tuple[FeeModel, FeeModel]
) -> tuple[Leg, Leg]:
    """The (Kalshi, Polymarket) legs of a direction, from books in terms of the pair's proposition."""
    yes_kalshi = direction == "yes_kalshi"
    return (
        _leg(pair.kalshi, _buys(kalshi, yes=yes_kalshi), fees[0]),
        _leg(pair.polymarket, _buys(polymarket, yes=not yes_kalshi), fees[1]),
    )


def candidate_bids(direction: Direction, state: PairState) -> tuple[tuple[Fill, ...], tuple[Fill, ...]] | None:
    """What the contracts of the (Kalshi, Polymarket) legs can be sold for again, dearest first; None without a book."""
    if state.kalshi is None or state.polymarket is None:
        return None
    yes_kalshi = direction == "yes_kalshi"
    return _sells(state.kalshi, yes=yes_kalshi), _sells(state.polymarket, yes=not yes_kalshi)


def worst_state_net(pair: Pair, direction: Direction, execution: Execution) -> Decimal | None:
    """Net if the worst state came true, exceptional ones included; None while nobody has told those."""
    if pair.void_states is None:
        return None
    states: dict[str, tuple[Payoff, Payoff]] = {"holds": (_ONE, _ZERO), "does not hold": (_ZERO, _ONE)}
    for name, (kalshi, polymarket) in pair.void_states.items():
        legs = (kalshi, _opposite(polymarket)) if direction == "yes_kalshi" else (_opposite(kalshi), polymarket)
        states[f"void: {name}"] = legs
    found = worst_state([execution.size] * 2, states, ["holds", "does not hold"])
    return found.guaranteed - execution.capital


def rounded(money: Decimal) -> Decimal:
    """Money on the tables' grid; only quotients ever need it."""
    return money.quantize(MONEY_STEP, ROUND_HALF_EVEN)


def _opposite(payoff: Payoff) -> Payoff:
    return (1 - payoff[1], 1 - payoff[0]) if isinstance(payoff, tuple) else 1 - payoff


def _buys(book: OrderBook, *, yes: bool) -> tuple[Level, ...]:
    """The ladder that a buyer walks, without levels that no order can be."""
    levels = book.yes_asks() if yes else book.no_asks()
    return tuple([(price, size) for price, size in levels if 0 < price < ONE and size > 0])


def _sells(book: OrderBook, *, yes: bool) -> tuple[Fill, ...]:
    """The bids for an outcome: one for NO is an ask for YES."""
    levels = book.bid_levels() if yes else [(ONE - price, size) for price, size in book.yes_asks()]
    return tuple(_fill((price, size)) for price, size in levels if 0 < price < ONE and size > 0)


def _leg(market: Market, levels: Iterable[Level], fees: FeeModel) -> Leg:
    return Leg(
        market.market_id,
        market.venue,
        tuple(map(_fill, levels)),
        fees,
        size_decimal(market.size_step),
        size_decimal(market.min_size),
    )


@lru_cache(maxsize=65_536)
def _fill(level: Level) -> Fill:
    """A level in decimals; from one instant to the next most of a ladder stays as it is."""
    price, size = level
    return price_decimal(price), size_decimal(size)


def _lag_reasons(candidate: Candidate) -> tuple[str, ...]:
    """Whether one leg is settled by its price and the other one is not: bought for a cent, or sold for one."""
    cheap, dear = sorted(candidate.top_prices)
    lags = cheap <= _SETTLED_AT < dear and 1 - cheap - dear > _LAG_ABOVE
    return (RESOLUTION_LAG,) if lags else ()


def _match_reasons(pair: Pair, direction: Direction) -> tuple[str, ...]:
    reasons = []
    if pair.status not in _MATCHED:
        reasons.append(f"{MATCH_STATUS}:{pair.status.value}")
    if direction not in DIRECTIONS_OF.get(pair.relation, ()):
        reasons.append(f"{RELATION}:{pair.relation.value}")
    return tuple(reasons)
