"""Episodes in which buying one outcome on each venue would have paid, or why it would not.

Both directions of a pair are followed through the exact states of its books. A candidate is any instant with a
positive gap between the tops; see :mod:`arb_pipeline.arbitrage.candidates`. An accepted episode is a stretch in which
every guard holds and the best size earns more than the threshold; a rejected one is a stretch of candidates for which
the same guards fail. Stretches are found window by window and then joined, so that episodes do not depend on how time
was cut.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, TypeAlias

import pyarrow as pa

from arb_pipeline.arbitrage.books import gap_states, pair_states
from arb_pipeline.arbitrage.candidates import (
    BELOW_MIN_NET,
    BELOW_MIN_SIZE,
    DIRECTIONS_OF,
    FEE_EATEN,
    FEES_UNKNOWN,
    MATCH_STATUS,
    RELATION,
    RESOLUTION_LAG,
    WORST_STATE,
    Assessor,
    Candidate,
    candidate_legs,
    rounded,
)
from arb_pipeline.arbitrage.episodes import EdgeEpisode, EdgeRules, EdgeStep, join
from arb_pipeline.arbitrage.fees import FeeBook, FeeSource
from arb_pipeline.arbitrage.ladders import Execution, Optimum, execute, execute_balances, execute_notional, optimise
from arb_pipeline.arbitrage.pairs import Direction, MarketData, Pair
from arb_pipeline.arbitrage.returns import annualised_simple, days_to_payout, returns
from arb_pipeline.arbitrage.spreads import concat_spreads, pair_spreads
from arb_pipeline.arbitrage.streams import (
    AFTER_CLOSE,
    AFTER_EVENT,
    CONNECTION_DOWN,
    MARKET_NOT_OPEN,
    NO_SNAPSHOT,
    NOT_IN_SYNC,
    SKEWED_LEGS,
    STALE_LEG,
    PairStream,
    Polls,
    load_streams,
)
from arb_pipeline.arbitrage.tracks import Tracks
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.model import Relation
from arb_pipeline.settings import Settings
from arb_pipeline.tables import table

__all__ = [
    "ARBITRAGE",
    "BURST",
    "FUNNEL",
    "NOTIONALS",
    "PAIR_EPISODES",
    "EpisodeTables",
    "Evaluation",
    "PairEvaluation",
    "edge_rules",
    "evaluate",
    "evaluate_each",
    "funnel",
    "joined",
    "optimum_at",
    "piece_columns",
    "sorted_pieces",
]

BURST = "burst"

FUNNEL: Final[Mapping[str, tuple[str, ...]]] = {
    "matched": (MATCH_STATUS, RELATION),
    "in_sync": (NO_SNAPSHOT, NOT_IN_SYNC),
    "fresh": (CONNECTION_DOWN, STALE_LEG, SKEWED_LEGS),
    "open": (MARKET_NOT_OPEN, AFTER_CLOSE, AFTER_EVENT, RESOLUTION_LAG),
    "depth": (BELOW_MIN_SIZE,),
    "fee": (FEES_UNKNOWN, FEE_EATEN, BELOW_MIN_NET),
    "rules": (WORST_STATE,),
    "lasting": (BURST,),
}
"""Steps of the funnel in order, each with the guards that it stands for."""

ARBITRAGE = "arbitrage"
"""Last row of the funnel: what no guard stopped."""

NOTIONALS: Final = (100, 500, 1_000, 5_000)
"""Dollars of capital at which an opportunity is also told."""

_KINDS: Final[Mapping[Relation, str]] = {
    Relation.INVERTED: "inverted",
    Relation.KALSHI_IMPLIES_POLYMARKET: "implication",
    Relation.POLYMARKET_IMPLIES_KALSHI: "implication",
    Relation.EXCLUSIVE: "exclusive",
}
_DIRECTIONS: Final[tuple[Direction, ...]] = DIRECTIONS_OF[Relation.EQUIVALENT]
_ZERO: Final = Decimal(0)

Row: TypeAlias = dict[str, object]


@dataclass(frozen=True)
class Evaluation:
    """Tables of one window: ``spreads``, ``opportunity_pieces``, and what follows from the pieces of it alone.

    ``execution_backtest`` is empty until somebody makes it: it looks beyond the window.
    """

    spreads: pa.Table
    opportunity_pieces: pa.Table
    opportunities: pa.Table
    rejections: pa.Table
    execution_backtest: pa.Table = field(default_factory=table("execution_backtest").schema.empty_table)


def edge_rules(settings: Settings) -> EdgeRules:
    """When accepted episodes open and close; what the settings say in dollars per contract."""
    return EdgeRules(
        Decimal(str(settings.open_edge_usd)),
        Decimal(str(settings.close_edge_usd)),
        round(settings.burst_ms * 1_000_000),
    )


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
    found = list(evaluate_each(pairs, data, start, end, settings, FeeBook(fees)))
    pieces = sorted_pieces(one.opportunity_pieces for one in found)
    opportunities = joined(pieces, end, settings)
    spreads = concat_spreads(one.spreads for one in found)
    return Evaluation(spreads, pieces, opportunities, funnel(opportunities, start.date()))


@dataclass(frozen=True, slots=True)
class PairEvaluation:
    """What one pair adds to ``spreads`` and ``opportunity_pieces``."""

    spreads: pa.Table
    opportunity_pieces: pa.Table


def evaluate_each(  # noqa: PLR0917 - what defines an evaluation, and what is known of polls
    pairs: Sequence[Pair],
    data: MarketData,
    start: datetime,
    end: datetime,
    settings: Settings,
    fees: FeeBook,
    polls: Polls | None = None,
) -> Iterator[PairEvaluation]:
    """Evaluate pairs over [start, end), one after the other in the order of their keys.

    No pair depends on another one, so that in memory need be no more than the data of some of them.

    Args:
        data: of these pairs' markets.
        polls: when polled connections answered, where the data are not all that was received over them.

    Raises:
        ValueError: if a pair is given twice.
    """
    keys = [pair.key for pair in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"pair {' / '.join(twice)} is given {keys.count(twice)} times: give each pair once")
    start_ns, end_ns = ns_from_datetime(start), ns_from_datetime(end)
    streams = load_streams(pairs, data, end_ns, settings, polls)
    for pair in sorted(pairs, key=lambda pair: pair.key):
        stream = PairStream.of(pair, streams)
        rows = _pieces(stream, start_ns, end_ns, settings, fees) if stream.ever_gaps() else ()
        yield PairEvaluation(
            pair_spreads(stream, start_ns, end_ns, fees),
            pa.Table.from_pylist(list(rows), schema=table("opportunity_pieces").schema),
        )


def sorted_pieces(parts: Iterable[pa.Table]) -> pa.Table:
    """All pieces in the table's order."""
    declared = table("opportunity_pieces")
    pieces = pa.concat_tables([declared.schema.empty_table(), *parts])
    return pieces.sort_by([(name, "ascending") for name in declared.sort])


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


def funnel(opportunities: pa.Table, day: date, steps: Mapping[str, tuple[str, ...]] = FUNNEL) -> pa.Table:
    """The table ``rejections``: every episode is stopped by the first step whose guard did not hold."""
    step_of = {guard: step for step, guards in steps.items() for guard in guards}
    stopped: dict[str, list[Decimal]] = {step: [] for step in (*steps, ARBITRAGE)}
    for row in opportunities.select(["reasons", "net"]).to_pylist():
        failed = {step_of[reason.partition(":")[0]] for reason in json.loads(row["reasons"])}
        first = next((step for step in steps if step in failed), None)
        if first is not None:
            stopped[first].append(row["net"])
    left = opportunities.num_rows
    rows: list[Row] = []
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


# --- pieces ------------------------------------------------------------------------------------------------


def _pieces(stream: PairStream, start_ns: int, end_ns: int, settings: Settings, fees: FeeBook) -> Iterator[Row]:
    """Rows of ``opportunity_pieces`` of a pair. What ends in its microsecond is below the table's resolution."""
    pair = stream.pair
    judged = [
        (
            direction,
            Assessor(pair, direction, settings, fees),
            Tracks[Candidate](start_ns, end_ns, edge_rules(settings)),
        )
        for direction in _DIRECTIONS
    ]
    for state in gap_states(stream, start_ns, end_ns):
        known = state.kalshi is not None and state.polymarket is not None and not state.reasons
        for direction, assessor, tracks in judged:
            for piece in tracks.step(state.recv_ns, assessor.candidate(state), known=known):
                yield _piece_row(pair, direction, piece, settings)
    for direction, _, tracks in judged:
        for piece in tracks.finish():
            yield _piece_row(pair, direction, piece, settings)


def piece_columns(piece: EdgeEpisode[Any]) -> Row:
    """What a row of any table of pieces tells of its course: times in ns, edges in dollars per contract or basket."""
    return {
        "opened_ns": piece.opened_ns,
        "closed_ns": piece.closed_ns,
        "active_ns": piece.active_ns,
        "edge_time": piece.figure_time,
        "end_reason": piece.end_reason,
        "left_censored": piece.left_censored,
        "conditional": piece.conditional,
        "peak_edge": piece.peak.figure,
        "peak_ns": piece.peak.at_ns,
        "best_ns": piece.best.at_ns,
    }


def _piece_row(pair: Pair, direction: Direction, piece: EdgeEpisode[Candidate | None], settings: Settings) -> Row:
    best = piece.best.what
    assert best is not None
    best_at = datetime_from_ns(piece.best.at_ns)
    return {
        "kalshi_market_id": pair.kalshi.market_id,
        "polymarket_market_id": pair.polymarket.market_id,
        "kind": _KINDS.get(pair.relation, "two_leg"),
        "direction": direction,
        **piece_columns(piece),
        "worst_state_net": None if best.worst_state_net is None else rounded(best.worst_state_net),
        "kalshi_fee_schedule": best.schedules[0],
        "polymarket_fee_schedule": best.schedules[1],
        "match_status": pair.status.value,
        "reasons": json.dumps(best.reasons),
        **_figures(pair, best, best_at, settings),
        **_sizes(best, settings),
    }


def _figures(pair: Pair, best: Candidate, at: datetime, settings: Settings) -> Row:
    """Size and money at the best instant. Without known fees nothing is bought: size and money are zero."""
    execution = best.execution
    if execution is None:
        return {
            **dict.fromkeys(("size", "gross", "fees", "net", "capital"), _ZERO),
            "roi": 0.0,
            **dict.fromkeys(("days", "annualised", "compound", "excess", "worst_state_annualised")),
            "kalshi_vwap": best.top_prices[0],
            "polymarket_vwap": best.top_prices[1],
            "kalshi_limit": best.top_prices[0],
            "polymarket_limit": best.top_prices[1],
        }
    days = days_to_payout(at, pair.kalshi, pair.polymarket)
    found = None if days is None else returns(execution.net, execution.capital, days)
    worst = best.worst_state_net
    kalshi, polymarket = execution.legs
    return {
        "size": execution.size,
        "gross": rounded(execution.gross),
        "fees": rounded(execution.fees),
        "net": rounded(execution.net),
        "capital": rounded(execution.capital),
        "roi": float(execution.roi),
        "days": None if found is None else float(found.days),
        "annualised": None if found is None else float(found.simple),
        "compound": None if found is None or found.compound is None else float(found.compound),
        "excess": None if found is None else float(found.excess(Decimal(str(settings.hurdle)))),
        "worst_state_annualised": (
            None if days is None or worst is None else float(annualised_simple(worst / execution.capital, days))
        ),
        "kalshi_vwap": rounded(kalshi.vwap),
        "polymarket_vwap": rounded(polymarket.vwap),
        "kalshi_limit": kalshi.limit_price,
        "polymarket_limit": polymarket.limit_price,
    }


def _sizes(best: Candidate, settings: Settings) -> Row:
    """The best instant at other sizes; null where no admissible size fits."""
    names = ("top_size", "net_top", *(f"net_{dollars}" for dollars in NOTIONALS), "smallest_size")
    balances = settings.balances
    if not best.legs or not all(leg.asks for leg in best.legs):
        return dict.fromkeys((*names, "size_at_balances", "net_at_balances"))
    top = execute(best.legs, min(leg.asks[0][1] for leg in best.legs))
    told = [execute_notional(best.legs, Decimal(dollars)) for dollars in NOTIONALS]
    held = None if balances is None else execute_balances(best.legs, balances)
    smallest = optimise(best.legs).smallest_profitable_size
    return {
        **dict(zip(names, (top.size, rounded(top.net), *map(_net, told), smallest), strict=True)),
        "size_at_balances": None if held is None else held.size,
        "net_at_balances": _net(held),
    }


def _net(execution: Execution | None) -> Decimal | None:
    return None if execution is None else rounded(execution.net)


# --- episodes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EpisodeTables:
    """A table of the pieces of each hour, and the one of the episodes that these make.

    Attributes:
        identity: columns that the pieces of one episode have in common, beside their reasons.
        counted: whether the episodes stand in the funnel of ``rejections``.
    """

    pieces: str
    episodes: str
    identity: tuple[str, ...]
    counted: bool = False


PAIR_EPISODES: Final = EpisodeTables(
    "opportunity_pieces", "opportunities", ("kalshi_market_id", "polymarket_market_id", "direction"), counted=True
)
_OF_A_PIECE: Final = frozenset(
    {"opened_ns", "closed_ns", "active_ns", "edge_time", "end_reason", "left_censored", "conditional", "peak_edge"}
    | {"peak_ns", "best_ns"}
)


def joined(pieces: pa.Table, end: datetime, settings: Settings, of: EpisodeTables = PAIR_EPISODES) -> pa.Table:
    """The table of episodes, ``opportunities`` unless told otherwise, of pieces.

    Args:
        pieces: rows of the table of pieces, of adjoining windows.
        end: end of the last window: what is open there may go on.
        settings: thresholds.
        of: which tables.
    """
    declared = table(of.episodes)
    rules, end_ns = edge_rules(settings), ns_from_datetime(end)
    rows: list[Row] = []
    identity = itemgetter(*of.identity, "reasons")
    ordered = sorted(pieces.to_pylist(), key=lambda row: (*identity(row), row["opened_ns"]))
    for _, group in groupby(ordered, key=identity):
        rows += [row for episode in join(map(_piece, group), end_ns, rules) if (row := _episode_row(episode, rules))]
    found = pa.Table.from_pylist(rows, schema=declared.schema)
    return found.sort_by([(name, "ascending") for name in declared.sort])


def _piece(row: Mapping[str, Any]) -> EdgeEpisode[Mapping[str, Any]]:
    step = EdgeStep(row["peak_ns"], _ZERO, row["peak_edge"], row["net"], row)
    return EdgeEpisode(
        opened_ns=row["opened_ns"],
        closed_ns=row["closed_ns"],
        active_ns=row["active_ns"],
        figure_time=row["edge_time"],
        peak=step,
        best=replace(step, at_ns=row["best_ns"]),
        end_reason=row["end_reason"],
        left_censored=row["left_censored"],
        conditional=row["conditional"],
    )


def _episode_row(episode: EdgeEpisode[Mapping[str, Any]], rules: EdgeRules) -> Row | None:
    """A row of ``opportunities``; None for what begins and ends within a microsecond."""
    if episode.opened_ns // 1_000 >= episode.closed_ns // 1_000:
        return None
    best = episode.best.what
    reasons = json.loads(best["reasons"])
    lasts = episode.end_reason == "right_censored"
    if not reasons and not lasts and episode.span_ns < rules.merge_ns:
        reasons = [BURST]
    return {
        **{name: value for name, value in best.items() if name not in _OF_A_PIECE},
        "opened_at": datetime_from_ns(episode.opened_ns),
        "closed_at": None if lasts else datetime_from_ns(episode.closed_ns),
        "end_reason": episode.end_reason,
        "left_censored": episode.left_censored,
        "active_ns": episode.active_ns,
        "peak_edge": episode.peak.figure,
        "peak_at": datetime_from_ns(episode.peak.at_ns),
        "time_weighted_edge": rounded(episode.time_weighted_figure),
        "accepted": not reasons,
        "reasons": json.dumps(reasons),
        "best_at": datetime_from_ns(episode.best.at_ns),
    }
