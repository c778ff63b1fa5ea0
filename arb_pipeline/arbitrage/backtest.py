"""What an order for both legs would have come to, had it reached the venues a while after its opportunity opened.

At the opening of an accepted episode both legs are sized and limited by the books of then. After the latency each takes
what the recorded book of its venue offers up to its limit, at once or never. Contracts of which the other leg did not
get as many are sold again to the bids of the same time. Books are taken as they were recorded: nobody is assumed to
react, and no order of ours to be in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeAlias

import pyarrow as pa

from arb_pipeline.arbitrage.books import PairState, states_at
from arb_pipeline.arbitrage.candidates import candidate_bids, candidate_legs, rounded
from arb_pipeline.arbitrage.fees import FeeBook, FeeSource
from arb_pipeline.arbitrage.ladders import Fill, Leg, optimise
from arb_pipeline.arbitrage.pairs import Direction, MarketData, Pair
from arb_pipeline.arbitrage.streams import PairStream, Polls, load_streams
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.settings import Settings
from arb_pipeline.tables import table

__all__ = ["LATENCIES_MS", "Order", "Outcome", "backtest", "execute_order"]

LATENCIES_MS: Final = (0, 100, 250, 1_000, 5_000)
"""From the decision to the match at the venue, the same for both legs."""

_ZERO: Final = Decimal(0)
_MS: Final = 1_000_000

Row: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class Order:
    """What is sent for both legs: contracts of each, and (Kalshi, Polymarket) limit prices, dollars."""

    size: Decimal
    limits: tuple[Decimal, Decimal]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an order came to.

    Attributes:
        filled: contracts bought at (Kalshi, Polymarket).
        cost, fees: dollars paid for these, and their fees.
        unwound: what selling the contracts without a counterpart brought, less its fees, dollars.
    """

    filled: tuple[Decimal, Decimal]
    cost: Decimal
    fees: Decimal
    unwound: Decimal

    @property
    def matched(self) -> Decimal:
        """Contracts that both legs have: each pair pays one dollar."""
        return min(self.filled)

    @property
    def net(self) -> Decimal:
        """Payout of what matched and proceeds of the rest, less all that was paid, dollars."""
        return self.matched + self.unwound - self.cost - self.fees


def execute_order(order: Order, legs: Sequence[Leg], bids: Sequence[Sequence[Fill]]) -> Outcome:
    """Match an order against two books.

    Args:
        legs: (Kalshi, Polymarket) ask ladders with their fees.
        bids: what the same contracts can be sold for, dearest first.
    """
    bought = [
        _taken([level for level in leg.asks if level[0] <= limit], order.size)
        for leg, limit in zip(legs, order.limits, strict=True)
    ]
    filled = _size(bought[0]), _size(bought[1])
    cost = sum((price * size for fills in bought for price, size in fills), _ZERO)
    fees = sum((leg.fees.order(fills) for leg, fills in zip(legs, bought, strict=True) if fills), _ZERO)
    unwound = sum(
        (_sold(leg, held, have - min(filled)) for leg, held, have in zip(legs, bids, filled, strict=True)), _ZERO
    )
    return Outcome(filled, cost, fees, unwound)


def backtest(  # noqa: PLR0917 - what an evaluation is defined by, and its result
    pairs: Sequence[Pair],
    data: MarketData,
    opportunities: pa.Table,
    until_ns: int,
    settings: Settings,
    fees: FeeSource,
    polls: Polls | None = None,
) -> pa.Table:
    """The table ``execution_backtest`` of the accepted ones of these opportunities.

    Args:
        pairs: those that the opportunities are of.
        data: books from before the openings on.
        opportunities: rows of ``opportunities``.
        until_ns: nothing is known from here on.
        polls: when polled connections answered, where the data are not all that was received over them.
    """
    by_pair: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in opportunities.filter(opportunities["accepted"]).to_pylist():
        by_pair.setdefault((row["kalshi_market_id"], row["polymarket_market_id"]), []).append(row)
    concerned = [pair for pair in pairs if pair.key in by_pair]
    streams = load_streams(concerned, data, until_ns, settings, polls) if concerned else {}
    book = FeeBook(fees)
    rows = [
        row for pair in concerned for row in _of_pair(PairStream.of(pair, streams), by_pair[pair.key], until_ns, book)
    ]
    declared = table("execution_backtest")
    found = pa.Table.from_pylist(rows, schema=declared.schema)
    return found.sort_by([(name, "ascending") for name in declared.sort])


def _of_pair(stream: PairStream, episodes: Sequence[Mapping[str, Any]], until_ns: int, fees: FeeBook) -> list[Row]:
    """Rows of one pair; its books are replayed once, and looked at where an order is sent or arrives."""
    looks = sorted(
        # The opening itself lies within the microsecond that the table tells.
        (ns_from_datetime(row["opened_at"]) + 999 + latency * _MS, number, latency)
        for number, row in enumerate(episodes)
        for latency in LATENCIES_MS
    )
    orders: dict[int, Order | None] = {}
    rows: list[Row] = []
    for (at_ns, number, latency), state in zip(looks, states_at(stream, [look[0] for look in looks]), strict=True):
        row = episodes[number]
        legs = _legs(stream.pair, row["direction"], state, fees)
        if latency == 0:
            best = None if legs is None else optimise(legs).best
            orders[number] = (
                None if best is None else Order(best.size, (best.legs[0].limit_price, best.legs[1].limit_price))
            )
        order = orders[number]
        if order is not None:
            seen = at_ns < until_ns and not state.reasons
            bids = candidate_bids(row["direction"], state)
            outcome = execute_order(order, legs, bids) if seen and legs is not None and bids is not None else None
            rows.append(_row(row, latency, order, outcome))
    return rows


def _legs(pair: Pair, direction: Direction, state: PairState, fees: FeeBook) -> tuple[Leg, Leg] | None:
    """Both legs at a state; None if a book or a fee is unknown."""
    if state.kalshi is None or state.polymarket is None:
        return None
    at = datetime_from_ns(state.recv_ns)
    kalshi, polymarket = fees.at(pair.kalshi, at), fees.at(pair.polymarket, at)
    if isinstance(kalshi, str) or isinstance(polymarket, str):
        return None
    return candidate_legs(pair, direction, state.kalshi, state.polymarket, (kalshi, polymarket))


def _row(row: Mapping[str, Any], latency_ms: int, order: Order, outcome: Outcome | None) -> Row:
    told: Row = {name: row[name] for name in ("kalshi_market_id", "polymarket_market_id", "direction", "opened_at")}
    told |= {"latency_ms": latency_ms, "size": order.size}
    if outcome is None:
        return told
    return told | {
        "kalshi_filled": outcome.filled[0],
        "polymarket_filled": outcome.filled[1],
        "matched": outcome.matched,
        "cost": rounded(outcome.cost),
        "fees": rounded(outcome.fees),
        "unwound": rounded(outcome.unwound),
        "net": rounded(outcome.net),
        "fill_rate": float(outcome.matched / order.size),
    }


def _taken(levels: Sequence[Fill], size: Decimal) -> list[Fill]:
    """What an order for ``size`` contracts gets of these levels."""
    fills: list[Fill] = []
    for price, available in levels:
        if (left := size - _size(fills)) <= 0:
            break
        fills.append((price, min(left, available)))
    return fills


def _sold(leg: Leg, bids: Sequence[Fill], size: Decimal) -> Decimal:
    """What selling ``size`` contracts brings after fees; contracts that nobody bids for bring nothing."""
    fills = _taken(bids, size)
    if not fills:
        return _ZERO
    return sum((price * sold for price, sold in fills), _ZERO) - leg.fees.order(fills)


def _size(fills: Sequence[Fill]) -> Decimal:
    return sum((size for _, size in fills), _ZERO)
