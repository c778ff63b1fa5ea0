"""The exact cases that this room answers, with the venues' real fee models."""

import sys
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from arb_pipeline.arbitrage.basis import Tops, basis
from arb_pipeline.arbitrage.baskets import best_of_both
from arb_pipeline.arbitrage.episodes import EdgeRules, EdgeStep
from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.ladders import DepthError, Execution, Leg, edge_curve, execute, optimise
from arb_pipeline.arbitrage.returns import COMPOUND_FROM_DAYS, annualised_compound, returns
from arb_pipeline.arbitrage.spreads import break_even
from arb_pipeline.arbitrage.states import UNKNOWN, Payoff, worst_state
from arb_pipeline.arbitrage.streams import MAX_SKEW_NS, PairStream, load_streams
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import Level, Market, MarketStatus, OrderBook
from arb_pipeline.storage.candles import hour_bars
from arb_pipeline.storage.grid import grid
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.storage.tops import HourRows
from arb_pipeline.tables import table
from arb_pipeline.units import ONE, parse_price, parse_size, price_decimal, size_decimal
from arb_pipeline.venues.base import FeeModel
from arb_pipeline_tests.arbitrage.builders import (
    END,
    KALSHI,
    START,
    Tape,
    at,
    edge_episodes,
    free,
    held,
    market,
    pair,
    settings,
    spreads_table,
    when,
)
from arb_pipeline_tests.golden import NOW, Case, cases_of, fees_of

MS = 1_000_000
ELSEWHERE = {"fee_vectors", "accumulator", "fee_schedule"}


def same(found: Decimal, expected: str) -> bool:
    """Equal at the eight decimals that the file keeps of quotients; sums are shorter than that."""
    return found.quantize(Decimal("1e-8")) == Decimal(expected)


def leg(spec: Case, case: Case) -> Leg:
    return Leg(
        spec["name"],
        spec["venue"],
        tuple((Decimal(price), Decimal(size)) for price, size in spec["asks"]),
        fees_of(spec),
        Decimal(case.get("lot", "1")),
        Decimal(case.get("min_size", "0")),
    )


def legs_of(case: Case) -> list[Leg]:
    return [leg(spec, case) for spec in case["legs"]]


def check_execution(done: Execution, expected: Case, days: str | None) -> None:
    figures = {
        "size": done.size,
        "cost": done.cost,
        "fees": done.fees,
        "capital_required": done.capital,
        "guaranteed_payout": done.guaranteed,
        "gross_profit": done.gross,
        "net_profit": done.net,
        "net_edge_per_unit": done.net_edge,
        "roi": done.roi,
    }
    for name, figure in figures.items():
        assert same(figure, expected[name]), (name, figure, expected[name])
    for part, wanted in zip(done.legs, expected["legs"], strict=True):
        assert part.name == wanted["leg"]
        for name in ("filled", "cost", "fee", "vwap", "vwap_all_in"):
            assert same(getattr(part, name), wanted[name]), (part.name, name)
    assert (done.net > 0) is expected["is_arbitrage"]
    if days is not None:
        check_returns(done.net, done.capital, days, expected)


def check_returns(net: Decimal, capital: Decimal, days: str, expected: Case) -> None:
    found = returns(net, capital, Decimal(days))
    assert same(found.roi, expected["roi"])
    assert found.days == Decimal(expected["days_used"])
    assert same(found.simple, expected["annualised_simple"])
    assert same(annualised_compound(found.roi, found.days), expected["annualised_compound"])
    assert (found.compound is not None) is (found.days >= COMPOUND_FROM_DAYS)


def check_fixed(case: Case, expected: Case) -> None:
    legs, size, payout = legs_of(case), Decimal(case["size"]), Decimal(case.get("payout", "1"))
    if not expected.get("executable", True):
        with pytest.raises(DepthError):
            execute(legs, size, payout)
        return
    check_execution(execute(legs, size, payout), expected, case.get("days_to_payout"))


def check_optimum(case: Case, expected: Case) -> None:
    found = optimise(legs_of(case), Decimal(case.get("payout", "1")))
    if not expected["executable"]:
        assert not found.profitable
        assert found.best is not None or found.reason == expected["reason"]
        return
    assert found.best is not None
    check_execution(found.best, expected["optimum"], case.get("days_to_payout"))
    assert found.walk_size == Decimal(expected["greedy_size_before_rounding"])
    smallest = expected["smallest_profitable_size"]
    assert found.smallest_profitable_size == (None if smallest is None else Decimal(smallest))
    for part, wanted in zip(found.curve, expected["edge_curve"], strict=True):
        assert (part.start, part.end) == (Decimal(wanted["from"]), Decimal(wanted["to"]))
        assert list(part.prices) == [Decimal(price) for price in wanted["prices"]]
        assert same(part.gross_edge, wanted["marginal_gross_edge"])
        assert same(part.net_edge, wanted["marginal_net_edge"])


def check_annual(case: Case, expected: list[Case]) -> None:
    for row, wanted in zip(case["rows"], expected, strict=True):
        check_returns(Decimal(row["net"]), Decimal(row["capital"]), row["days"], wanted)
        found = returns(Decimal(row["net"]), Decimal(row["capital"]), Decimal(row["days"]))
        assert same(found.excess(Decimal(case["hurdle"])), wanted["excess_simple_over_hurdle"])


def kalshi_book(case: Case) -> OrderBook:
    def levels(name: str) -> list[Level]:
        return [(parse_price(price), parse_size(size)) for price, size in case[name]]

    book = OrderBook()
    book.replace(levels("yes_bids"), [(ONE - price, size) for price, size in levels("no_bids")])
    return book


def check_kalshi_book(case: Case, expected: Case) -> None:
    book = kalshi_book(case)

    def plain(levels: list[Level]) -> list[tuple[Decimal, Decimal]]:
        return [(price_decimal(price), size_decimal(size)) for price, size in levels]

    for name, found in (("yes_asks", book.yes_asks()), ("no_asks", book.no_asks())):
        assert plain(found) == [(Decimal(price), Decimal(size)) for price, size in expected[name]]
    bid, ask = book.best_bid, book.best_ask
    tops = {"best_yes_bid": bid, "best_yes_ask": ask, "best_no_bid": None if ask is None else ONE - ask}
    for name, price in tops.items():
        wanted = expected.get(name)
        assert (None if price is None else price_decimal(price)) == (None if wanted is None else Decimal(wanted)), name
    if bid is not None and ask is not None:
        assert price_decimal(bid + ask) / 2 == Decimal(expected["mid_yes"])
        assert price_decimal(ask - bid) == Decimal(expected["spread"])


def check_directions(case: Case, expected: Case) -> None:
    tape = Tape().session("kalshi").session("polymarket")
    sides = case["kalshi"]
    tape.snapshot("kalshi", 1, sides["yes_bids"], [(str(1 - Decimal(p)), s) for p, s in sides["no_bids"]])
    poly = case["poly"]
    tape.snapshot("polymarket", 1, [(str(1 - Decimal(p)), s) for p, s in poly["no_asks"]], poly["yes_asks"])
    models = {
        "kalshi": fees_of({"venue": "kalshi"}),
        "polymarket": fees_of({"venue": "polymarket", "rate": case["poly_rate"]}),
    }

    def source(one: Market, _: datetime) -> FeeModel:
        return models[one.venue]

    one = pair()
    (row,) = spreads_table([one], tape.data(), start=START, end=END, settings=settings(), fees=source).to_pylist()
    books = {"YES@K+NO@P": "yes_kalshi", "NO@K+YES@P": "yes_polymarket"}
    nets: dict[str, Decimal] = {}
    for name, direction in books.items():
        wanted = expected["directions"][name]
        if wanted["gross_edge"] is None:
            assert row[f"gap_{direction}"] is None
            continue
        assert row[f"gap_{direction}"] == Decimal(wanted["gross_edge"])
        assert row[f"top_size_{direction}"] == Decimal(wanted["top_size"])
        asks = Decimal(wanted["kalshi_ask"]), Decimal(wanted["poly_ask"])
        yes, no = asks if direction == "yes_kalshi" else asks[::-1]
        unrounded = break_even(
            one,
            "yes_kalshi" if direction == "yes_kalshi" else "yes_polymarket",
            fees=FeeBook(source),
            at=NOW,
            yes_price=yes,
            no_price=no,
        )
        assert unrounded is not None
        assert same(unrounded, wanted["fee_per_unit"])
        nets[name] = row[f"gap_{direction}"] - unrounded
        assert same(nets[name], wanted["net_edge"])
    assert any(net > 0 for net in nets.values()) is expected["is_candidate"]
    assert max(nets, key=lambda name: nets[name], default=None) == expected["best"]


def check_asof(case: Case, expected: list[Case]) -> None:
    tape = Tape().session("kalshi").session("polymarket")
    for t, price in case["kalshi_yes_ask"]:
        tape.snapshot("kalshi", t / 1000, [], [(price, "10")], source="rest")
    for t, price in case["poly_no_ask"]:
        tape.snapshot("polymarket", t / 1000, [(str(1 - Decimal(price)), "10")], [], source="rest")
    made = spreads_table(
        [pair()],
        tape.data(),
        start=START,
        end=END,
        settings=settings(max_quote_age_s=case["max_age_ms"] / 1000),
        fees=free,
    )
    rows = {row["recv_ns"]: row["gap_yes_kalshi"] for row in made.to_pylist()}
    for wanted in expected:
        gap = wanted["gross_edge"]
        assert rows[at(wanted["t_ms"] / 1000)] == (None if gap is None else Decimal(gap))


def check_best_of(case: Case, expected: Case) -> None:
    options = [[leg(spec, case) for spec in outcome["options"]] for outcome in case["outcomes"]]
    chosen = best_of_both(options, Decimal(case["size"]))
    assert [one.name for one in chosen] == expected["chosen"]
    done = execute(chosen, Decimal(case["size"]), Decimal(case.get("payout", "1")))
    check_execution(done, expected, case.get("days_to_payout"))


def payoff(told: str | list[str] | None) -> Payoff:
    if told is None or told == "unknown":
        return UNKNOWN
    return Decimal(told) if isinstance(told, str) else (Decimal(told[0]), Decimal(told[1]))


def check_states(case: Case, expected: Case) -> None:
    quantities = [Decimal(quantity) for quantity in case["quantities"]]
    states = {name: [payoff(one) for one in payoffs] for name, payoffs in case["states"].items()}
    found = worst_state(quantities, states, case["ordinary_states"])
    cost = Decimal(case["all_in_cost"])
    assert found.payouts == {name: Decimal(paid) for name, paid in expected["payout_by_state"].items()}
    assert found.name == expected["worst_state"]
    assert found.guaranteed == Decimal(expected["guaranteed_payout"])
    assert same(found.guaranteed - cost, expected["guaranteed_net"])
    assert same(found.ordinary - cost, expected["net_ignoring_exceptional_states"])
    assert (found.guaranteed > cost) is expected["is_arbitrage"]


def check_guard(case: Case, expected: Case) -> None:
    """Two polled books at one instant. Exchange times are no part of the decision and are not told here."""
    tape = Tape()
    for venue, quote in case["quotes"].items():
        bids, asks = ([(quote[name], "10")] for name in ("best_bid", "best_ask"))
        at_s = quote["recv_ms"] / 1000
        tape.session(venue).snapshot(venue, at_s, bids, asks, source="rest", in_sync=quote["book_in_sync"])
    legs = {
        venue: market(venue, status=MarketStatus(quote["market_status"]), close_at=None if closed(quote) else END)
        for venue, quote in case["quotes"].items()
    }
    one = pair(kalshi=legs["kalshi"], polymarket=legs["polymarket"])
    assert case["max_skew_ms"] * MS == MAX_SKEW_NS
    chosen = settings(max_quote_age_s=case["max_age_ms"] / 1000)
    stream = PairStream.of(one, load_streams([one], tape.data(), ns_from_datetime(END), chosen))
    t_eval = at(case["t_eval_ms"] / 1000)
    ages = {leg.market.venue: (t_eval - int(leg.answers[-1])) // MS for leg in stream.legs}
    assert ages == expected["quote_age_ms"]
    assert abs(ages["kalshi"] - ages["polymarket"]) == expected["skew_ms"]
    codes, meaning = stream.distrust(np.array([t_eval]))
    reasons = meaning[int(codes[0])]
    assert (not reasons) is expected["accepted"]
    assert sorted(map(_cause, reasons)) == sorted(map(_cause, expected["reasons"]))


def closed(quote: Case) -> bool:
    return str(quote["market_status"]) != MarketStatus.OPEN


def _cause(reason: str) -> tuple[str, str]:
    """A reason's name and venue. What is wrong with a book may have another name there; with which, it must say."""
    name, _, venue = reason.partition(":")
    return {"skewed_legs": "skew", "stale_leg": "stale", "skew": "skew", "stale": "stale"}.get(name, ""), venue


def check_episodes(case: Case, expected: list[Case]) -> None:
    steps = [
        EdgeStep(at_ms * MS, None if edge is None else Decimal(edge), Decimal(edge or 0), Decimal(0), None)
        for at_ms, edge in case["edge"]
    ]
    rules = EdgeRules(
        Decimal(case["open_above"]),
        Decimal(case["close_at_or_below"]),
        case["merge_gap_ms"] * MS,
    )
    told = held(steps, case["max_hold_ms"] * MS)
    found = edge_episodes(told, case["window_start_ms"] * MS, case["window_end_ms"] * MS, rules)
    for one, wanted in zip(found, expected, strict=True):
        assert {
            "open_ms": one.opened_ns // MS,
            "close_ms": one.closed_ns // MS,
            "span_ms": one.span_ns // MS,
            "active_ms": one.active_ns // MS,
            "peak_ms": one.peak.at_ns // MS,
            "end_reason": one.end_reason,
            "left_censored": one.left_censored,
        } == {name: wanted[name] for name in wanted if name not in {"peak_edge", "time_weighted_edge"}}
        assert one.peak.edge == Decimal(wanted["peak_edge"])
        assert same(one.time_weighted_figure, wanted["time_weighted_edge"])


def check_basis(case: Case, expected: Case) -> None:
    kalshi, poly = (
        Tops(*(Decimal(case[venue][name]) for name in ("bid", "ask", "bid_size", "ask_size")))
        for venue in ("kalshi", "poly")
    )
    models = fees_of({"venue": "kalshi"}), fees_of({"venue": "polymarket", "rate": case["poly_rate"]})
    found = basis(kalshi, poly, models)
    figures = {
        "mid_kalshi": kalshi.mid,
        "mid_poly": poly.mid,
        "basis_mid": found.mid,
        "micro_kalshi": kalshi.microprice,
        "micro_poly": poly.microprice,
        "executable_gross_gap": found.executable_gap,
        "executable_gap_clipped": found.clipped_gap,
        "fee_breakeven_gap_at_mids": found.break_even,
    }
    for name, figure in figures.items():
        assert same(figure, expected[name]), (name, figure, expected[name])


def check_ohlc(case: Case, expected: Case) -> None:
    """Time is stretched so that a bar lasts a second: the shortest candle that there is."""
    second, start_ns = 1_000 / case["width_ms"], at(0)
    tape = Tape().session("kalshi", end=3_600)
    for t, price in case["ticks"]:
        tape.snapshot("kalshi", t / 1_000 * second, [(price, "1")], [])
    data, none = tape.data(), {name: table(name).schema.empty_table() for name in ("trades", "book_gaps")}
    hour = HourRows(start_ns, at(3_600), data.quotes, data.book_events, capture_sessions=data.capture_sessions, **none)
    bars = hour_bars(hour, [KALSHI], [1], round(case["max_age_ms"] * second * MS))[1]
    found = dict(zip(((bars.start - start_ns) // 10**9).tolist(), range(len(bars.start)), strict=True))
    points = ("open", "high", "low", "close")
    for wanted in expected["bars"]:
        place = found.get(wanted["start_ms"] // case["width_ms"])
        updates = 0 if place is None else int(bars.updates[place])
        told = [None] * 4 if place is None else [price_decimal(int(point[place])) for point in bars.bid]
        assert told == [None if wanted[name] is None else Decimal(wanted[name]) for name in points]
        assert (updates, place is not None and not updates) == (wanted["updates"], wanted["filled"])
    check_grid(case, expected["grid"])


def check_grid(case: Case, expected: list[Case]) -> None:
    tape = Tape().session("kalshi", end=3_600)
    for t, price in case["ticks"]:
        tape.snapshot("kalshi", t / 1_000, [(price, "1")], [])
    data = tape.data()
    with TemporaryDirectory() as folder:
        lake = Lake(folder)
        for name in ("quotes", "book_events", "capture_sessions"):
            lake.replace(name, Partition.of(name, "kalshi", START), getattr(data, name))
        ends = when((case["end_ms"] + 1) / 1_000)
        made = grid(
            KALSHI, when(case["start_ms"] / 1_000), ends, case["width_ms"], 1, max_age_ms=case["max_age_ms"], lake=lake
        )
        rows = pa.Table.from_batches(made).to_pylist()
    for wanted, row in zip(expected, rows, strict=True):
        assert row["recv_ns"] == at(wanted["t_ms"] / 1_000)
        value = wanted["value"]
        assert row["bid"] == (None if value is None else Decimal(value))
        if value is not None:
            assert row["recv_ns"] - row["source_ns"] == wanted["age_ms"] * MS


CHECKS: dict[str, Callable[[Case, Any], None]] = {
    "best_of": check_best_of,
    "states": check_states,
    "guard": check_guard,
    "episodes": check_episodes,
    "basis": check_basis,
    "fixed": check_fixed,
    "optimum": check_optimum,
    "annual": check_annual,
    "kalshi_book": check_kalshi_book,
    "directions": check_directions,
    "asof": check_asof,
    "ohlc": check_ohlc,
}


@pytest.fixture(scope="module")
def cases(golden: Path) -> list[Case]:
    return cases_of(golden)


@pytest.mark.parametrize("kind", list(CHECKS))
def test_cases_of_a_kind(cases: list[Case], kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [case for case in cases if case["kind"] == kind]
    if not chosen:
        pytest.skip(f"no case of kind {kind!r} among them")
    for case in chosen:
        try:
            CHECKS[kind](case["input"], case["expected"])
        except AssertionError as error:
            raise AssertionError(f"{case['id']} {case['title']}: {error}") from error
    with capsys.disabled():
        sys.stdout.write(f"\ngolden {kind}: {len(chosen)} of {len(cases)} cases ran\n")


def test_every_kind_is_known_here_or_in_the_venues_tests(cases: list[Case]) -> None:
    unknown = [case["id"] for case in cases if case["kind"] not in {*CHECKS, *ELSEWHERE}]
    assert not unknown, f"nothing here runs {', '.join(unknown)}"


def test_whole_curve_reaches_the_end_of_the_shallowest_ladder(cases: list[Case]) -> None:
    for case in cases:
        if case["kind"] == "optimum":
            legs = legs_of(case["input"])
            whole = edge_curve(legs, whole=True)
            assert whole[-1].end == min(one.depth for one in legs)
            assert whole[: len(edge_curve(legs))] == edge_curve(legs)
