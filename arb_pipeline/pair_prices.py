"""Both directions of a pair at the books of this moment: gaps, legs with exact fees, net edge at a size.

Books are the sessions' own, in YES terms of their venue; they are turned into the pair's proposition here.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from arb_pipeline.alerting.evaluation import UNKNOWN, Finding
from arb_pipeline.alerting.rules import NetEdge
from arb_pipeline.arbitrage.candidates import DIRECTIONS_OF, candidate_legs, worst_state_net
from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.ladders import DepthError, Execution, Leg, execute
from arb_pipeline.arbitrage.pairs import Direction, Pair, outcomes_bought
from arb_pipeline.market_hours import MarketHours
from arb_pipeline.model import Market, MarketStatus, MatchStatus, OrderBook
from arb_pipeline.units import ONE, price_decimal

__all__ = [
    "ACCEPTED",
    "PairBooks",
    "bought_words",
    "directions",
    "edge_finding",
    "not_trading",
    "plain",
    "subject",
]

_VENUES: Final = ("kalshi", "polymarket")
ACCEPTED: Final = (MatchStatus.AUTO, MatchStatus.APPROVED)


@dataclass(frozen=True, slots=True)
class PairBooks:
    """The two books of a pair, Polymarket's in terms of the pair's proposition."""

    pair: Pair
    kalshi: OrderBook
    polymarket: OrderBook

    @classmethod
    def of(cls, pair: Pair, kalshi: OrderBook, polymarket: OrderBook) -> "PairBooks":
        """From books in YES terms of their venues."""
        return cls(pair, kalshi, _complemented(polymarket) if pair.inverted else polymarket)

    def gap(self, direction: Direction) -> int | None:
        """1 less both prices at the tops, 1e-4 dollars; None where nobody sells one of the two."""
        yes, no = self._sides(direction)
        return None if yes.best_ask is None or no.best_bid is None else no.best_bid - yes.best_ask

    def legs(self, direction: Direction, fees: FeeBook, at: datetime) -> tuple[Leg, Leg] | str:
        """The (Kalshi, Polymarket) legs, or in words why they cannot be priced."""
        models = fees.at(self.pair.kalshi, at), fees.at(self.pair.polymarket, at)
        kalshi, polymarket = models
        if isinstance(kalshi, str) or isinstance(polymarket, str):
            return "; ".join(model for model in models if isinstance(model, str))
        legs = candidate_legs(self.pair, direction, self.kalshi, self.polymarket, (kalshi, polymarket))
        return legs if all(leg.asks for leg in legs) else "no order can be sent at these prices"

    def _sides(self, direction: Direction) -> tuple[OrderBook, OrderBook]:
        pair = (self.kalshi, self.polymarket)
        return pair if direction == "yes_kalshi" else pair[::-1]


def directions(pair: Pair) -> tuple[Direction, ...]:
    """The directions of which one leg pays in every ordinary state."""
    return DIRECTIONS_OF.get(pair.relation, ())


def not_trading(market: Market | MarketHours, at: datetime) -> str:
    """Why a market does not trade at a time by its catalogue record, empty if it does."""
    if market.status is not MarketStatus.OPEN:
        return f"{market.venue} is {market.status.value}"
    if market.open_at is not None and at < market.open_at:
        return f"{market.venue} is not open yet"
    return f"{market.venue} is past its close" if market.close_at is not None and at >= market.close_at else ""


def bought_words(pair: Pair, direction: Direction) -> str:
    """What a direction buys, each by its venue's own name."""
    outcomes = outcomes_bought(pair, direction)
    return ", ".join(f"{outcome} on {venue}" for venue, outcome in zip(_VENUES, outcomes, strict=True))


def subject(pair: Pair, direction: Direction) -> str:
    """A direction of a pair in words."""
    return f"{pair.kalshi.market_id} = {pair.polymarket.market_id}, {bought_words(pair, direction)}"


def edge_finding(rule: NetEdge, books: PairBooks, direction: Direction, fees: FeeBook, at: datetime) -> Finding:
    """Whether a direction nets more than the rule asks at the rule's size, by books that are to be trusted."""
    gap = books.gap(direction)
    # Net never exceeds the gap between the tops: only what passes here needs exact money.
    if gap is None or price_decimal(gap) <= rule.above:
        return Finding(False, "nobody sells both" if gap is None else f"gap {plain(price_decimal(gap))}")
    legs = books.legs(direction, fees, at)
    if isinstance(legs, str):
        return UNKNOWN
    if any(rule.size < leg.min_size or rule.size % leg.lot for leg in legs):
        return Finding(False, f"no order of {plain(rule.size)} contracts is possible on both venues")
    try:
        done = execute(legs, rule.size)
    except DepthError:
        return Finding(False, f"fewer than {plain(rule.size)} contracts")
    worst = worst_state_net(books.pair, direction, done)
    holds = done.net_edge > rule.above and (worst is None or worst > 0)
    return Finding(holds, _edge_words(rule, done), _edge_details(done, gap, worst))


def plain(value: Decimal) -> str:
    """Exact text without trailing zeros."""
    return f"{value.normalize():f}"


def _edge_words(rule: NetEdge, done: Execution) -> str:
    net, limit = f"{done.net_edge:.4f}", plain(rule.above)
    return f"net {net} a contract (limit {limit}), {plain(done.size)} contracts earn {done.net:.2f} dollars"


def _edge_details(done: Execution, gap: int, worst: Decimal | None) -> dict[str, str]:
    prices = {f"{name}_limit": plain(leg.limit_price) for name, leg in zip(_VENUES, done.legs, strict=True)}
    return {
        "size": plain(done.size),
        "net": plain(done.net),
        "net_edge": f"{done.net_edge:.10f}",
        "gap": plain(price_decimal(gap)),
        "fees": plain(done.fees),
        "capital": plain(done.capital),
        **({} if worst is None else {"worst_state_net": plain(worst)}),
        **prices,
    }


def _complemented(book: OrderBook) -> OrderBook:
    turned = OrderBook()
    turned.replace(
        [(ONE - price, size) for price, size in book.asks.items()],
        [(ONE - price, size) for price, size in book.bids.items()],
    )
    return turned
