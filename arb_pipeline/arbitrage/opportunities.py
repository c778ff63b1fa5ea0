"""Episodes in which buying one outcome on each venue would have paid, or why it would not.

Both directions of a pair are followed through the exact states of its books. A candidate is any instant with a
positive gap between the tops; it is sized, priced with exact fees and held against named guards. An episode is a
longest stretch of candidates for which the same guards fail: none, in an accepted one.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import get_args

import pyarrow as pa

from arb_pipeline.arbitrage.books import PairState, pair_states
from arb_pipeline.arbitrage.fees import FeeBook, FeeSource
from arb_pipeline.arbitrage.ladders import Execution, Fill, Leg, Optimum, execute, optimise
from arb_pipeline.arbitrage.pairs import Direction, MarketData, Pair
from arb_pipeline.arbitrage.returns import days_to_payout, returns
from arb_pipeline.arbitrage.spreads import MONEY_STEP, concat_spreads, pair_spreads
from arb_pipeline.arbitrage.streams import (
    AFTER_CLOSE,
    CONNECTION_DOWN,
    MARKET_NOT_OPEN,
    NO_SNAPSHOT,
    NOT_IN_SYNC,
    STALE_LEG,
    PairStream,
    load_streams,
)
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.model import Level, Market, MatchStatus, OrderBook, Relation
from arb_pipeline.settings import Settings
from arb_pipeline.tables import table
from arb_pipeline.units import ONE, price_decimal, size_decimal
from arb_pipeline.venues.base import FeeModel

__all__ = [
    "BELOW_MIN_NET",
    "BELOW_MIN_SIZE",
    "FEES_UNKNOWN",
    "FEE_EATEN",
    "FUNNEL",
    "MATCH_STATUS",
    "RELATION",
    "WORST_STATE",
    "Candidate",
    "Episode",
    "Evaluation",
    "OpenEpisode",
    "advance",
    "candidate_legs",
    "evaluate",
    "funnel",
    "optimum_at",
]

MATCH_STATUS = "match_status"
RELATION = "relation"
BELOW_MIN_SIZE = "below_min_size"
FEES_UNKNOWN = "fees_unknown"
FEE_EATEN = "fee_eaten"
BELOW_MIN_NET = "below_min_net"
WORST_STATE = "worst_state"

FUNNEL: dict[str, tuple[str, ...]] = {
    "matched": (MATCH_STATUS, RELATION),
    "in_sync": (NO_SNAPSHOT, NOT_IN_SYNC),
    "fresh": (CONNECTION_DOWN, STALE_LEG),
    "open": (MARKET_NOT_OPEN, AFTER_CLOSE),
    "depth": (BELOW_MIN_SIZE,),
    "fee": (FEES_UNKNOWN, FEE_EATEN, BELOW_MIN_NET),
    "rules": (WORST_STATE,),
}
"""Steps of the funnel in order, each with the guards that it stands for."""

ARBITRAGE = "arbitrage"
"""Last row of the funnel: what no guard stopped."""

_MATCHED = (MatchStatus.AUTO, MatchStatus.APPROVED)
_SAME = (Relation.EQUIVALENT, Relation.INVERTED)
_DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
_ZERO = Decimal(0)
_ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One direction of a pair at one instant with a positive gap between the tops.

    Attributes:
        reasons: guards that do not hold, in the funnel's order, ``guard`` or ``guard:detail``.
        execution: the most profitable admissible size; None if nothing could be sized or priced.
        top_edge: exact net per contract at the tops, dollars; 0 if the fees are unknown.
        top_prices: (Kalshi, Polymarket) cheapest asks, dollars.
        schedules: (Kalshi, Polymarket) names of the fee schedules.
    """

    reasons: tuple[str, ...]
    execution: Execution | None
    top_edge: Decimal
    top_prices: tuple[Decimal, Decimal]
    schedules: tuple[str, str]
    worst_state_net: Decimal | None

    @property
    def net(self) -> Decimal:
        """Net of the execution, 0 without one."""
        return _ZERO if self.execution is None else self.execution.net


@dataclass(frozen=True, slots=True)
class OpenEpisode:
    """State carried from instant to instant while an episode lasts.

    Attributes:
        edge_time: integral of the top edge up to ``since_ns``, dollars times nanoseconds.
        since_ns: from when ``current`` holds.
    """

    opened_ns: int
    current: Candidate
    since_ns: int
    edge_time: Decimal
    peak_edge: Decimal
    best: Candidate
    best_ns: int


@dataclass(frozen=True, slots=True)
class Episode:
    """A finished episode; ``censored`` if the window ended before it did."""

    opened_ns: int
    closed_ns: int
    censored: bool
    peak_edge: Decimal
    time_weighted_edge: Decimal
    best: Candidate
    best_ns: int


@dataclass(frozen=True)
class Evaluation:
    """Tables ``spreads``, ``opportunities`` and ``rejections`` of one window."""

    spreads: pa.Table
    opportunities: pa.Table
    rejections: pa.Table


def evaluate(  # noqa: PLR0917 - the six things that define an evaluation
    pairs: Sequence[Pair], data: MarketData, start: datetime, end: datetime, settings: Settings, fees: FeeSource
) -> Evaluation:
    """Evaluate every pair over [start, end).

    Pairs without a positive gap between their tops are not replayed: net never exceeds gross.

    Raises:
        ValueError: if a pair is given twice, or the window is empty.
    """
    if start >= end:
        raise ValueError(f"window {start.isoformat()} to {end.isoformat()} is empty: give an end after the start")
    keys = [pair.key for pair in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"pair {' / '.join(twice)} is given {keys.count(twice)} times: give each pair once")
    start_ns, end_ns = ns_from_datetime(start), ns_from_datetime(end)
    streams = load_streams(pairs, data, end_ns, settings)
    book = FeeBook(fees)
    spreads: list[pa.Table] = []
    rows: list[dict[str, object]] = []
    for pair in sorted(pairs, key=lambda pair: pair.key):
        stream = PairStream.of(pair, streams)
        spreads.append(pair_spreads(stream, start_ns, end_ns, book))
        if stream.ever_gaps():
            rows += _pair_rows(stream, start_ns, end_ns, settings, book)
    declared = table("opportunities")
    opportunities = pa.Table.from_pylist(rows, schema=declared.schema)
    opportunities = opportunities.sort_by([(name, "ascending") for name in declared.sort])
    return Evaluation(concat_spreads(spreads), opportunities, funnel(opportunities, start.date()))


def optimum_at(  # noqa: PLR0917 - what identifies a priced instant
    pair: Pair, direction: Direction, data: MarketData, at: datetime, settings: Settings, fees: FeeSource
) -> Optimum | None:
    """The sizing of a direction with the books as they stood at the end of the microsecond ``at``.

    None if a book or a fee is unknown there, or a ladder is empty.
    """
    at_ns = ns_from_datetime(at) + 999
    stream = PairStream.of(pair, load_streams([pair], data, at_ns + 1, settings))
    state = next(pair_states(stream, at_ns, at_ns + 1))
    if state.kalshi is None or state.polymarket is None:
        return None
    book = FeeBook(fees)
    kalshi, polymarket = book.at(pair.kalshi, at), book.at(pair.polymarket, at)
    if isinstance(kalshi, str) or isinstance(polymarket, str):
        return None
    legs = candidate_legs(pair, direction, state.kalshi, state.polymarket, (kalshi, polymarket))
    return optimise(legs) if all(leg.asks for leg in legs) else None


def funnel(opportunities: pa.Table, day: date) -> pa.Table:
    """The table ``rejections``: every episode is stopped by the first step whose guard did not hold."""
    step_of = {guard: step for step, guards in FUNNEL.items() for guard in guards}
    stopped: dict[str, list[Decimal]] = {step: [] for step in (*FUNNEL, ARBITRAGE)}
    for row in opportunities.select(["reasons", "net"]).to_pylist():
        failed = {step_of[reason.partition(":")[0]] for reason in json.loads(row["reasons"])}
        first = next((step for step in FUNNEL if step in failed), None)
        if first is not None:
            stopped[first].append(row["net"])
    left = opportunities.num_rows
    rows: list[dict[str, object]] = []
    for number, (step, nets) in enumerate(stopped.items(), 1):
        rows.append(
            {
                "date": day,
                "step": number,
                "guard": step,
                "candidates": left,
                "stopped": len(nets),
                "net_stopped": sum(nets, _ZERO),
            }
        )
        left -= len(nets)
    return pa.Table.from_pylist(rows, schema=table("rejections").schema)


# --- candidates --------------------------------------------------------------------------------------------


def candidate_legs(
    pair: Pair, direction: Direction, kalshi: OrderBook, polymarket: OrderBook, fees: tuple[FeeModel, FeeModel]
) -> tuple[Leg, Leg]:
    """The (Kalshi, Polymarket) legs of a direction, from books in terms of the pair's proposition."""
    yes_kalshi = direction == "yes_kalshi"
    return (
        _leg(pair.kalshi, _buys(kalshi, yes=yes_kalshi), fees[0]),
        _leg(pair.polymarket, _buys(polymarket, yes=not yes_kalshi), fees[1]),
    )


def _buys(book: OrderBook, *, yes: bool) -> tuple[Level, ...]:
    """The ladder that a buyer walks, without levels that no order can be."""
    levels = book.yes_asks() if yes else book.no_asks()
    return tuple((price, size) for price, size in levels if 0 < price < ONE and size > 0)


def _leg(market: Market, levels: Iterable[Level], fees: FeeModel) -> Leg:
    asks: tuple[Fill, ...] = tuple((price_decimal(price), size_decimal(size)) for price, size in levels)
    return Leg(
        market.market_id, market.venue, asks, fees, size_decimal(market.size_step), size_decimal(market.min_size)
    )


class _Assessor:
    """Judges one direction of a pair; an unchanged pair of ladders is priced once."""

    def __init__(self, pair: Pair, direction: Direction, settings: Settings, fees: FeeBook) -> None:
        self._pair = pair
        self._direction = direction
        self._fees = fees
        self._least_net = Decimal(str(settings.min_net_usd))
        self._match_reasons = _match_reasons(pair)
        self._priced_for: tuple[object, ...] = ()
        self._priced: Candidate | None = None

    def candidate(self, state: PairState) -> Candidate | None:
        """The candidate at a state; None without a positive gap between the tops."""
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
            self._priced_for, self._priced = key, self._price(state.kalshi, state.polymarket, models)
        priced = self._priced
        assert priced is not None
        return replace(priced, reasons=(*self._match_reasons, *state.reasons, *priced.reasons))

    def _price(
        self, kalshi: OrderBook, polymarket: OrderBook, models: tuple[FeeModel | str, FeeModel | str]
    ) -> Candidate:
        """Size and price a direction; the guards on depth, fees and rules."""
        yes_kalshi = self._direction == "yes_kalshi"
        tops = (
            price_decimal(_buys(kalshi, yes=yes_kalshi)[0][0]),
            price_decimal(_buys(polymarket, yes=not yes_kalshi)[0][0]),
        )
        first, second = models
        if isinstance(first, str) or isinstance(second, str):
            why = "; ".join(model for model in models if isinstance(model, str))
            return Candidate((f"{FEES_UNKNOWN}:{why}",), None, _ZERO, tops, ("", ""), None)
        legs = candidate_legs(self._pair, self._direction, kalshi, polymarket, (first, second))
        schedules = first.schedule.name, second.schedule.name
        top_edge = _rounded(execute(legs, min(leg.asks[0][1] for leg in legs)).net_edge)
        optimum = optimise(legs)
        if optimum.best is None:
            depth = min(leg.depth for leg in legs)
            return Candidate((BELOW_MIN_SIZE,), execute(legs, depth), top_edge, tops, schedules, None)
        best = optimum.best
        reasons: tuple[str, ...] = ()
        if best.net <= 0:
            small = 0 < optimum.walk_size < best.size
            reasons = (BELOW_MIN_SIZE if small else FEE_EATEN,)
        elif best.net <= self._least_net:
            reasons = (BELOW_MIN_NET,)
        worst = _worst_state_net(self._pair, self._direction, best)
        if worst is not None and worst <= 0 < best.net:
            reasons = (*reasons, WORST_STATE)
        return Candidate(reasons, best, top_edge, tops, schedules, worst)


def _match_reasons(pair: Pair) -> tuple[str, ...]:
    reasons = []
    if pair.status not in _MATCHED:
        reasons.append(f"{MATCH_STATUS}:{pair.status.value}")
    if pair.relation not in _SAME:
        reasons.append(f"{RELATION}:{pair.relation.value}")
    return tuple(reasons)


def _worst_state_net(pair: Pair, direction: Direction, execution: Execution) -> Decimal | None:
    """Net if the worst state came true, exceptional ones included; None while nobody has told those."""
    if pair.void_states is None:
        return None
    payouts = [_ONE]
    for kalshi, polymarket in pair.void_states.values():
        payouts.append(kalshi + 1 - polymarket if direction == "yes_kalshi" else polymarket + 1 - kalshi)
    return execution.size * min(payouts) - execution.capital


# --- episodes ----------------------------------------------------------------------------------------------


def advance(
    episode: OpenEpisode | None, candidate: Candidate | None, at_ns: int
) -> tuple[OpenEpisode | None, Episode | None]:
    """One step of the fold: from ``at_ns`` on ``candidate`` holds. Returns the state to carry and what just ended."""
    if episode is not None and candidate is not None and candidate.reasons == episode.current.reasons:
        better = candidate.net > episode.best.net
        return (
            replace(
                episode,
                current=candidate,
                since_ns=at_ns,
                edge_time=_edge_time(episode, at_ns),
                peak_edge=max(episode.peak_edge, candidate.top_edge),
                best=candidate if better else episode.best,
                best_ns=at_ns if better else episode.best_ns,
            ),
            None,
        )
    ended = None if episode is None else close(episode, at_ns, censored=False)
    if candidate is None:
        return None, ended
    return OpenEpisode(at_ns, candidate, at_ns, _ZERO, candidate.top_edge, candidate, at_ns), ended


def close(episode: OpenEpisode, at_ns: int, *, censored: bool) -> Episode:
    """End an episode at an instant, or where the window ends before it does."""
    return Episode(
        episode.opened_ns,
        at_ns,
        censored,
        episode.peak_edge,
        _rounded(_edge_time(episode, at_ns) / (at_ns - episode.opened_ns)),
        episode.best,
        episode.best_ns,
    )


def _edge_time(episode: OpenEpisode, at_ns: int) -> Decimal:
    return episode.edge_time + episode.current.top_edge * (at_ns - episode.since_ns)


def _episodes(
    stream: PairStream, start_ns: int, end_ns: int, settings: Settings, fees: FeeBook
) -> Iterator[tuple[Direction, Episode]]:
    """Every episode of both directions in order of its end."""
    assessors = {name: _Assessor(stream.pair, name, settings, fees) for name in _DIRECTIONS}
    carried: dict[Direction, OpenEpisode | None] = dict.fromkeys(_DIRECTIONS)
    for state in pair_states(stream, start_ns, end_ns):
        for direction, assessor in assessors.items():
            candidate = assessor.candidate(state)
            carried[direction], ended = advance(carried[direction], candidate, state.recv_ns)
            if ended is not None:
                yield direction, ended
    for direction, episode in carried.items():
        if episode is not None:
            yield direction, close(episode, end_ns, censored=True)


# --- rows --------------------------------------------------------------------------------------------------


def _pair_rows(
    stream: PairStream, start_ns: int, end_ns: int, settings: Settings, fees: FeeBook
) -> list[dict[str, object]]:
    """Rows of a pair's episodes. One that begins and ends within a microsecond is below the table's resolution."""
    return [
        _row(stream.pair, direction, episode)
        for direction, episode in _episodes(stream, start_ns, end_ns, settings, fees)
        if episode.opened_ns // 1_000 < episode.closed_ns // 1_000
    ]


def _row(pair: Pair, direction: Direction, episode: Episode) -> dict[str, object]:
    best = episode.best
    opened_at = datetime_from_ns(episode.opened_ns)
    best_at = datetime_from_ns(episode.best_ns)
    return {
        "kalshi_market_id": pair.kalshi.market_id,
        "polymarket_market_id": pair.polymarket.market_id,
        "kind": "inverted" if pair.inverted else "two_leg",
        "direction": direction,
        "opened_at": opened_at,
        "closed_at": None if episode.censored else datetime_from_ns(episode.closed_ns),
        **_figures(pair, best, best_at),
        "peak_edge": episode.peak_edge,
        "time_weighted_edge": episode.time_weighted_edge,
        "worst_state_net": None if best.worst_state_net is None else _rounded(best.worst_state_net),
        "kalshi_fee_schedule": best.schedules[0],
        "polymarket_fee_schedule": best.schedules[1],
        "match_status": pair.status.value,
        "accepted": not best.reasons,
        "reasons": json.dumps(best.reasons),
        "best_at": best_at,
    }


def _figures(pair: Pair, best: Candidate, at: datetime) -> dict[str, object]:
    """Size and money at the best instant. Without known fees nothing is bought: size and money are zero."""
    execution = best.execution
    if execution is None:
        return {
            **dict.fromkeys(("size", "gross", "fees", "net", "capital"), _ZERO),
            "roi": 0.0,
            "annualised": None,
            "kalshi_vwap": best.top_prices[0],
            "polymarket_vwap": best.top_prices[1],
            "kalshi_limit": best.top_prices[0],
            "polymarket_limit": best.top_prices[1],
        }
    days = days_to_payout(at, pair.kalshi, pair.polymarket)
    kalshi, polymarket = execution.legs
    return {
        "size": execution.size,
        "gross": _rounded(execution.gross),
        "fees": _rounded(execution.fees),
        "net": _rounded(execution.net),
        "capital": _rounded(execution.capital),
        "roi": float(execution.roi),
        "annualised": None if days is None else float(returns(execution.net, execution.capital, days).simple),
        "kalshi_vwap": _rounded(kalshi.vwap),
        "polymarket_vwap": _rounded(polymarket.vwap),
        "kalshi_limit": kalshi.limit_price,
        "polymarket_limit": polymarket.limit_price,
    }


def _rounded(money: Decimal) -> Decimal:
    return money.quantize(MONEY_STEP, ROUND_HALF_EVEN)
