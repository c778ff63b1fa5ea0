"""Episodes in which the outcomes of an event, bought together, would have paid whatever happened, or why not.

As for pairs (:mod:`arb_pipeline.arbitrage.opportunities`): exact step functions on the union of all legs' events, the
same guards on every leg, accepted and rejected stretches window by window, joined afterwards. Books are replayed only
where the tops of all legs together leave something before fees: net never exceeds gross.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from arb_pipeline.arbitrage.baskets import NOT_EXHAUSTIVE, Basket, Buy, cheapest_tops, optimise_options
from arb_pipeline.arbitrage.books import BookReplay
from arb_pipeline.arbitrage.candidates import BELOW_MIN_SIZE, FEES_UNKNOWN, money_reasons, rounded
from arb_pipeline.arbitrage.episodes import EdgeEpisode
from arb_pipeline.arbitrage.fees import FeeBook, FeeSource
from arb_pipeline.arbitrage.intervals import Nanos, union
from arb_pipeline.arbitrage.ladders import Execution, Fill, Leg, execute
from arb_pipeline.arbitrage.opportunities import FUNNEL, EpisodeTables, edge_rules, piece_columns
from arb_pipeline.arbitrage.pairs import MarketData
from arb_pipeline.arbitrage.returns import days_to_payout, returns
from arb_pipeline.arbitrage.states import UNKNOWN, Payoff, opposite, worst_state
from arb_pipeline.arbitrage.streams import (
    AFTER_CLOSE,
    MARKET_NOT_OPEN,
    NOT_IN_SYNC,
    NULL,
    TRUST_GUARDS,
    MarketStream,
    Polls,
    market_streams,
)
from arb_pipeline.arbitrage.tracks import Tracks
from arb_pipeline.clock import datetime_from_ns, ns_from_datetime
from arb_pipeline.model import OrderBook
from arb_pipeline.settings import Settings
from arb_pipeline.tables import table
from arb_pipeline.units import ONE, price_decimal, size_decimal
from arb_pipeline.venues.base import FeeModel

__all__ = ["BASKET_EPISODES", "BASKET_FUNNEL", "BasketCandidate", "BasketEvaluation", "evaluate_baskets"]

BASKET_EPISODES: Final = EpisodeTables("basket_pieces", "basket_opportunities", ("kind", "event_id", "outcome"))

BASKET_FUNNEL: Final[Mapping[str, tuple[str, ...]]] = {"proven": (NOT_EXHAUSTIVE,), **FUNNEL}
"""Steps of the funnel in order, each with the guards that it stands for."""

_BIT: Final = {guard: 1 << number for number, guard in enumerate(TRUST_GUARDS)}
_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)

Row: TypeAlias = dict[str, object]
Flags: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class BasketEvaluation:
    """What a window came to.

    Attributes:
        pieces: rows of ``basket_pieces``.
        baskets: how many were looked at. gapped: how many ever left something before fees.
        crossed: by venue, tops at or beyond one another, which is a fault of the data and never an opportunity.
    """

    pieces: pa.Table
    baskets: int
    gapped: int
    crossed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BasketCandidate:
    """A basket at one instant at which the tops of its legs leave something before fees.

    Attributes:
        reasons: guards that do not hold, ``guard`` or ``guard:detail``.
        buys: what is bought, a leg each; of unknown fees with the top prices, dollars, in ``tops`` alone.
        execution: the most profitable admissible size; None if nothing could be sized or priced.
        top_edge: exact net per basket at the tops, dollars; 0 if the fees are unknown.
        schedules: names of the legs' fee schedules.
    """

    reasons: tuple[str, ...]
    buys: tuple[Buy, ...]
    tops: tuple[Decimal, ...]
    payout: Decimal
    execution: Execution | None
    top_edge: Decimal
    schedules: tuple[str, ...]
    worst_state_net: Decimal | None

    @property
    def net(self) -> Decimal:
        """Net of the execution, 0 without one."""
        return _ZERO if self.execution is None else self.execution.net


def evaluate_baskets(  # noqa: PLR0917 - what defines an evaluation, and what is known of polls
    baskets: Iterable[Basket],
    data: MarketData,
    start: datetime,
    end: datetime,
    settings: Settings,
    fees: FeeSource,
    polls: Polls | None = None,
) -> BasketEvaluation:
    """Evaluate baskets over [start, end).

    Args:
        data: of all their markets.
        polls: when polled connections answered, where the data are not all that was received over them.

    Raises:
        ValueError: if the window is empty.
    """
    if start >= end:
        raise ValueError(f"window {start.isoformat()} to {end.isoformat()} is empty: give an end after the start")
    baskets = list(baskets)
    start_ns, end_ns = ns_from_datetime(start), ns_from_datetime(end)
    markets = {buy.key: buy.market for basket in baskets for options in basket.options for buy in options}
    streams = market_streams(markets.values(), data, end_ns, settings, polls)
    book = FeeBook(fees)
    rows: list[Row] = []
    gapped = 0
    for basket in baskets:
        stream = _BasketStream(basket, streams)
        instants = stream.telling(start_ns, end_ns)
        if instants.size:
            gapped += 1
            rows += _pieces(stream, instants, (start_ns, end_ns), settings, book)
    declared = table(BASKET_EPISODES.pieces)
    pieces = pa.Table.from_pylist(rows, schema=declared.schema)
    return BasketEvaluation(
        pieces.sort_by([(name, "ascending") for name in declared.sort]),
        len(baskets),
        gapped,
        _crossed(streams.values(), start_ns, end_ns),
    )


def _crossed(streams: Iterable[MarketStream], start_ns: int, end_ns: int) -> dict[str, int]:
    """By venue, tops received in the window of which the bid is at or above the ask."""
    found: dict[str, int] = {}
    for stream in streams:
        tops = stream.quotes
        crossed = (tops.bid != NULL) & (tops.ask != NULL) & (tops.bid >= tops.ask)
        inside = (tops.recv_ns >= start_ns) & (tops.recv_ns < end_ns)
        found[stream.market.venue] = found.get(stream.market.venue, 0) + int((crossed & inside).sum())
    return found


# --- states ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _State:
    """The books of all legs after everything received up to ``recv_ns``; they change with the next one.

    Attributes:
        moved: legs whose book changed since the last state.
        doubts: of each leg the guards that do not hold, a bit for each of :data:`TRUST_GUARDS`.
    """

    recv_ns: int
    books: Sequence[OrderBook | None]
    moved: Sequence[bool]
    doubts: tuple[int, ...]


class _BasketStream:
    """The markets of a basket in a window; a leg is a place in ``legs``, an option of an outcome a leg and a side."""

    def __init__(self, basket: Basket, streams: Mapping[tuple[str, str], MarketStream]) -> None:
        self.basket = basket
        places: dict[tuple[str, str], int] = {}
        for options in basket.options:
            for buy in options:
                places.setdefault(buy.key, len(places))
        self.legs = [streams[key] for key in places]
        self.options = [[(places[buy.key], buy) for buy in options] for options in basket.options]

    @cached_property
    def trust_edges(self) -> Nanos:
        """Every instant at which a guard of one leg begins or ceases to hold."""
        return np.unique(np.concatenate([spans.edges() for leg in self.legs for spans in leg.distrust.values()]))

    def telling(self, start_ns: int, end_ns: int) -> Nanos:
        """Instants in [start, end) that can tell of a candidate or of the end of one; none if there never is one."""
        if not self._gaps(union(*(leg.quotes.recv_ns for leg in self.legs), np.array([start_ns]))).any():
            return np.empty(0, dtype=np.int64)
        # What is ruled out by what it is, is told by its tops.
        books = [] if self.basket.reasons else [leg.books.recv_ns for leg in self.legs]
        quotes = [leg.quotes.recv_ns for leg in self.legs]
        instants = union(*quotes, *books, self.trust_edges, np.array([start_ns]))
        instants = instants[(instants >= start_ns) & (instants < end_ns)]
        gaps = self._gaps(instants)
        if not gaps.any():
            return np.empty(0, dtype=np.int64)
        tells = gaps.copy()
        tells[0] = True
        tells[1:] |= gaps[:-1]
        for leg in self.legs:
            doubts = _doubts(leg, instants)
            tells[1:] |= doubts[1:] != doubts[:-1]
        return instants[tells]

    def states(self, instants: Nanos) -> Iterator[_State]:
        """The states at these instants, rising."""
        doubts = np.stack([_doubts(leg, instants) for leg in self.legs])
        replays = [BookReplay(leg.books) for leg in self.legs]
        for place, instant in enumerate(instants.tolist()):
            moved = [replay.advance(instant) for replay in replays]
            books = [replay.book for replay in replays]
            told = doubts[:, place].tolist()
            for leg, book in enumerate(books):
                if book is not None and (book.crossed or book.negative_levels):
                    told[leg] |= _BIT[NOT_IN_SYNC]
            yield _State(instant, books, moved, tuple(told))

    def _gaps(self, instants: Nanos) -> Flags:
        """Where the cheapest tops of all outcomes leave something of the payout, fees and trust aside."""
        left = np.zeros(len(instants), dtype=np.int64)
        whole = np.ones(len(instants), dtype=np.bool_)
        for options in self.options:
            best = np.full(len(instants), ONE, dtype=np.int64)
            for leg, buy in options:
                tops = self.legs[leg].quotes.as_of(instants)
                price = tops.ask if buy.yes else tops.bid
                known = price != NULL
                whole &= known | (len(options) > 1) | self.basket.subset
                best = np.where(known, np.minimum(best, price if buy.yes else ONE - price), best)
            left += best if not self.basket.subset else ONE - best
        # Every outcome more that NO is bought of pays a dollar more: what they leave of it adds up to more than one.
        gaps: Flags = whole & (left > ONE if self.basket.subset else left < ONE)
        return gaps


def _doubts(leg: MarketStream, times: Nanos) -> npt.NDArray[np.int64]:
    """For each time the guards that do not hold, a bit for each of :data:`TRUST_GUARDS`."""
    found = np.zeros(len(times), dtype=np.int64)
    for guard, bit in _BIT.items():
        found |= leg.distrust[guard].contains(times) * np.int64(bit)
    return found


# --- candidates --------------------------------------------------------------------------------------------


class _Assessor:
    """Judges a basket state by state; what has not changed is priced once."""

    def __init__(self, stream: _BasketStream, settings: Settings, fees: FeeBook) -> None:
        self._stream, self._basket = stream, stream.basket
        self._fees = fees
        self._least_net = Decimal(str(settings.min_net_usd))
        self._ladders: dict[tuple[int, bool], tuple[Fill, ...]] = {}
        self._changed = 0
        self._priced_for: tuple[object, ...] = ()
        self._priced: tuple[BasketCandidate | None, bool] = None, False

    def judge(self, state: _State) -> tuple[BasketCandidate | None, bool]:
        """The candidate at a state, the same object while nothing changes, and whether its books are to be trusted.

        There is none without a gap between the tops.
        """
        self._take(state)
        at = datetime_from_ns(state.recv_ns)
        models = [self._fees.at(leg.market, at) for leg in self._stream.legs]
        key = (self._changed, state.doubts, *(model if isinstance(model, str) else id(model) for model in models))
        if key != self._priced_for:
            self._priced_for, self._priced = key, self._judged(models, state.doubts)
        return self._priced

    def _judged(self, models: Sequence[FeeModel | str], doubts: Sequence[int]) -> tuple[BasketCandidate | None, bool]:
        """What the books that are to be trusted leave; if nothing, what all of them seem to leave, and why not."""
        trusted = self._sold([not each for each in doubts])
        found = self._price(models, trusted)
        if found is not None:
            return self._with_reasons(found, ()), True
        idle = _BIT[MARKET_NOT_OPEN] | _BIT[AFTER_CLOSE] if self._basket.subset else 0
        seen = self._sold([not each & idle for each in doubts])
        found = None if seen == trusted else self._price(models, seen)
        if found is None:
            return None, self._basket.subset or all(trusted)
        legs = [(self._stream.legs[leg].market.venue, doubts[leg]) for options in seen for leg, _ in options]
        reasons = (
            f"{guard}:{venue}"
            for guard, bit in _BIT.items()
            for venue in sorted({venue for venue, each in legs if each & bit})
        )
        return self._with_reasons(found, tuple(reasons)), False

    def _with_reasons(self, priced: BasketCandidate, doubts: tuple[str, ...]) -> BasketCandidate:
        # What is ruled out by what it is needs no reason that changes with every price.
        ruled_out = self._basket.reasons
        return replace(priced, reasons=(*ruled_out, *doubts, *(() if ruled_out else priced.reasons)))

    def _take(self, state: _State) -> None:
        """The ladders of the legs that moved; of what is ruled out by what it is, their tops."""
        for options in self._stream.options:
            for leg, buy in options:
                book = state.books[leg]
                if not state.moved[leg] or book is None:
                    continue
                ladder = _asks(book, yes=buy.yes)
                ladder = ladder[:1] if self._basket.reasons else ladder
                if self._ladders.get((leg, buy.yes)) != ladder:
                    self._ladders[leg, buy.yes] = ladder
                    self._changed += 1

    def _sold(self, admitted: Sequence[bool]) -> list[list[tuple[int, Buy]]]:
        """For each outcome what is sold by the legs admitted; of a subset without those of which nothing is."""
        sold = [
            [(leg, buy) for leg, buy in options if admitted[leg] and self._ladders.get((leg, buy.yes))]
            for options in self._stream.options
        ]
        return [options for options in sold if options] if self._basket.subset else sold

    def _price(
        self, models: Sequence[FeeModel | str], sold: Sequence[Sequence[tuple[int, Buy]]]
    ) -> BasketCandidate | None:
        """Size and price a basket; the guards on depth, fees and rules.

        Of outcomes that may be left out the thinnest hold up the rest: without them more may be earned with more.
        """
        best: BasketCandidate | None = None
        while (found := self._priced_whole(models, sold)) is not None:
            if best is None or _better(found, best):
                best = found
            if not self._basket.subset or found.execution is None:
                break
            depths = [sum(size for _, size in self._ladders[leg, buy.yes]) for ((leg, buy),) in sold]
            thinnest = min(depths)
            sold = [options for options, depth in zip(sold, depths, strict=True) if depth > thinnest]
        return best

    def _priced_whole(
        self, models: Sequence[FeeModel | str], sold: Sequence[Sequence[tuple[int, Buy]]]
    ) -> BasketCandidate | None:
        if len(sold) < 2 or not all(sold):
            return None
        payout = self._basket.payout(len(sold))
        tops = tuple(min(self._ladders[leg, buy.yes][0][0] for leg, buy in options) for options in sold)
        if sum(tops, _ZERO) >= payout:
            return None
        unknown = sorted({model for options in sold for leg, _ in options if isinstance(model := models[leg], str)})
        if unknown:
            buys = tuple(options[0][1] for options in sold)
            reason = f"{FEES_UNKNOWN}:{'; '.join(unknown)}"
            return BasketCandidate((reason,), buys, tops, payout, None, _ZERO, ("",) * len(buys), None)
        choices: list[list[tuple[Leg, Buy, str]]] = []
        for options in sold:
            choices.append([])
            for leg, buy in options:
                model = models[leg]
                assert not isinstance(model, str)
                choices[-1].append((_leg(buy, self._ladders[leg, buy.yes], model), buy, model.schedule.name))
        return self._sized(choices, tops, payout)

    def _sized(
        self, choices: Sequence[Sequence[tuple[Leg, Buy, str]]], tops: tuple[Decimal, ...], payout: Decimal
    ) -> BasketCandidate:
        options = [[leg for leg, _, _ in each] for each in choices]
        optimum, top = optimise_options(options, payout), cheapest_tops(options)
        of_leg = {id(leg): (buy, schedule) for each in choices for leg, buy, schedule in each}
        buys, schedules = zip(*(of_leg[id(leg)] for leg in optimum.legs), strict=True)
        top_edge = rounded(execute(top, min(leg.asks[0][1] for leg in top), payout).net_edge)
        if optimum.best is None:
            done = execute(optimum.legs, min(leg.depth for leg in optimum.legs), payout)
            return BasketCandidate((BELOW_MIN_SIZE,), buys, tops, payout, done, top_edge, schedules, None)
        worst = self._worst_state_net(buys, optimum.best)
        reasons = money_reasons(optimum, optimum.best, worst, self._least_net)
        return BasketCandidate(reasons, buys, tops, payout, optimum.best, top_edge, schedules, worst)

    def _worst_state_net(self, buys: Sequence[Buy], execution: Execution) -> Decimal | None:
        """Net if the worst state came true, exceptional ones included; None while nobody has told those."""
        void = self._basket.void_states
        if void is None:
            return None
        no = self._basket.kind == "no_basket"
        outcomes = range(len(buys))
        states: dict[str, list[Payoff]] = {
            f"outcome {one} happens": [_ONE if (each == one) != no else _ZERO for each in outcomes] for one in outcomes
        }
        ordinary = list(states)
        for name, payoffs in void.items():
            yes = [payoffs.get(buy.key, UNKNOWN) for buy in buys]
            voided = [pays if buy.yes else opposite(pays) for buy, pays in zip(buys, yes, strict=True)]
            states[f"void: {name}"] = voided
            # Which other outcome happens beside a void one makes no difference: a contract of each is held.
            for one in outcomes:
                beside = list(states[ordinary[one - 1]])
                beside[one] = voided[one]
                states[f"outcome {one} void: {name}"] = beside
        found = worst_state([execution.size] * len(buys), states, ordinary)
        return found.guaranteed - execution.capital


def _better(one: BasketCandidate, other: BasketCandidate) -> bool:
    """Whether this is to be preferred: what can be bought at all, then what earns more."""
    small, smaller = BELOW_MIN_SIZE in one.reasons, BELOW_MIN_SIZE in other.reasons
    return smaller if small != smaller else one.net > other.net


def _asks(book: OrderBook, *, yes: bool) -> tuple[Fill, ...]:
    """The ladder that a buyer walks, dollars and contracts, without levels that no order can be."""
    levels = book.yes_asks() if yes else book.no_asks()
    return tuple((price_decimal(price), size_decimal(size)) for price, size in levels if 0 < price < ONE and size > 0)


def _leg(buy: Buy, asks: tuple[Fill, ...], fees: FeeModel) -> Leg:
    market = buy.market
    return Leg(
        market.market_id, market.venue, asks, fees, size_decimal(market.size_step), size_decimal(market.min_size)
    )


# --- pieces ------------------------------------------------------------------------------------------------


def _pieces(
    stream: _BasketStream, instants: Nanos, window: tuple[int, int], settings: Settings, fees: FeeBook
) -> Iterator[Row]:
    """Rows of ``basket_pieces`` of a basket."""
    assessor = _Assessor(stream, settings, fees)
    tracks = Tracks[BasketCandidate](*window, edge_rules(settings))
    for state in stream.states(instants):
        candidate, known = assessor.judge(state)
        for piece in tracks.step(state.recv_ns, candidate, known=known):
            yield _piece_row(stream.basket, piece)
    for piece in tracks.finish():
        yield _piece_row(stream.basket, piece)


def _piece_row(basket: Basket, piece: EdgeEpisode[BasketCandidate | None]) -> Row:
    best = piece.best.what
    assert best is not None
    return {
        "kind": basket.kind,
        "event_id": basket.event_id,
        "outcome": "",
        "bought_on": basket.venue or "both",
        "partner_event_id": basket.partner_event_id,
        "legs": json.dumps(_legs(best), separators=(",", ":")),
        "payout": best.payout,
        **piece_columns(piece),
        "worst_state_net": None if best.worst_state_net is None else rounded(best.worst_state_net),
        "reasons": json.dumps(best.reasons),
        **_money(basket, best, datetime_from_ns(piece.best.at_ns)),
    }


def _legs(best: BasketCandidate) -> list[dict[str, str]]:
    """What is bought, leg by leg. Without known fees nothing is: the top prices are told."""
    done = None if best.execution is None else best.execution.legs
    return [
        {
            "venue": buy.market.venue,
            "market_id": buy.market.market_id,
            "outcome": "yes" if buy.yes else "no",
            "size": "0" if done is None else _text(done[place].filled),
            "vwap": _text(best.tops[place] if done is None else rounded(done[place].vwap)),
            "limit": _text(best.tops[place] if done is None else done[place].limit_price),
            "fee": "0" if done is None else _text(rounded(done[place].fee)),
            "fee_schedule": best.schedules[place],
        }
        for place, buy in enumerate(best.buys)
    ]


def _text(value: Decimal) -> str:
    """A decimal without trailing zeros, never as a power of ten."""
    return f"{value.normalize():f}"


def _money(basket: Basket, best: BasketCandidate, at: datetime) -> Row:
    execution = best.execution
    if execution is None:
        return {
            **dict.fromkeys(("size", "gross", "fees", "net", "capital"), _ZERO),
            **dict.fromkeys(("capital_after_return", "roi", "days", "annualised")),
        }
    days = days_to_payout(at, *(buy.market for buy in best.buys))
    found = None if days is None else returns(execution.net, execution.capital, days)
    kept = max(execution.capital - execution.guaranteed, _ZERO)
    return {
        "size": execution.size,
        "gross": rounded(execution.gross),
        "fees": rounded(execution.fees),
        "net": rounded(execution.net),
        "capital": rounded(execution.capital),
        "capital_after_return": rounded(kept) if basket.returns_collateral else None,
        "roi": float(execution.roi),
        "days": None if found is None else float(found.days),
        "annualised": None if found is None else float(found.simple),
    }
