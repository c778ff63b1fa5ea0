"""The exact cases of ``arbitrage.json`` that this room answers, with the venues' real fee models."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest

from arb_pipeline.arbitrage.fees import FeeBook
from arb_pipeline.arbitrage.ladders import Execution, Leg, edge_curve, execute, optimise
from arb_pipeline.arbitrage.returns import COMPOUND_FROM_DAYS, annualised_compound, returns
from arb_pipeline.arbitrage.spreads import break_even, spreads_table
from arb_pipeline.model import Level, Market, OrderBook
from arb_pipeline.units import ONE, parse_price, parse_size, price_decimal, size_decimal
from arb_pipeline.venues.base import FeeModel
from arb_pipeline.venues.kalshi.fees import kalshi_fees
from arb_pipeline.venues.polymarket.fees import fee_model
from arb_pipeline_tests.arbitrage.builders import END, START, Tape, at, free, market, pair, settings

Case = dict[str, Any]
NOW = datetime(2026, 11, 21, tzinfo=UTC)
ELSEWHERE = {"fee_vectors", "accumulator", "fee_schedule"}
LATER = {"best_of", "states", "guard", "episodes", "basis", "ohlc"}


def same(found: Decimal, expected: str) -> bool:
    """Equal at the eight decimals that the file keeps of quotients; sums are shorter than that."""
    return found.quantize(Decimal("1e-8")) == Decimal(expected)


def fees(spec: Case) -> FeeModel:
    if spec["venue"] == "kalshi":
        account: Literal["direct", "fcm"] = spec.get("account", "direct")
        params = {"fee_type": "quadratic", "fee_multiplier": spec.get("multiplier", "1")}
        return kalshi_fees(market("kalshi", fee_params=params), NOW, account)
    params = {"feesEnabled": True, "feeSchedule": {"rate": spec["rate"], "exponent": 1}}
    return fee_model(market("polymarket", fee_params=params), NOW)


def leg(spec: Case, case: Case) -> Leg:
    return Leg(
        spec["name"],
        spec["venue"],
        tuple((Decimal(price), Decimal(size)) for price, size in spec["asks"]),
        fees(spec),
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
    done = execute(legs_of(case), Decimal(case["size"]), Decimal(case["payout"]))
    check_execution(done, expected, case["days_to_payout"])


def check_optimum(case: Case, expected: Case) -> None:
    found = optimise(legs_of(case), Decimal(case["payout"]))
    assert found.executable is expected["executable"]
    if found.best is None:
        assert found.reason == expected["reason"]
        return
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


def check_directions(case: Case, expected: Case) -> None:
    tape = Tape().session("kalshi").session("polymarket")
    sides = case["kalshi"]
    tape.snapshot("kalshi", 1, sides["yes_bids"], [(str(1 - Decimal(p)), s) for p, s in sides["no_bids"]])
    poly = case["poly"]
    tape.snapshot("polymarket", 1, [(str(1 - Decimal(p)), s) for p, s in poly["no_asks"]], poly["yes_asks"])
    models = {
        "kalshi": fees({"venue": "kalshi"}),
        "polymarket": fees({"venue": "polymarket", "rate": case["poly_rate"]}),
    }

    def source(one: Market, _: datetime) -> FeeModel:
        return models[one.venue]

    one = pair()
    (row,) = spreads_table([one], tape.data(), start=START, end=END, settings=settings(), fees=source).to_pylist()
    books = {"YES@K+NO@P": "yes_kalshi", "NO@K+YES@P": "yes_polymarket"}
    for name, direction in books.items():
        wanted = expected["directions"][name]
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
        assert same(row[f"gap_{direction}"] - unrounded, wanted["net_edge"])
    positive = [row[f"net_{direction}"] for direction in books.values() if (row[f"net_{direction}"] or 0) > 0]
    assert bool(positive) is expected["is_candidate"]
    assert max(books, key=lambda name: row[f"gap_{books[name]}"]) == expected["best"]


def check_asof(case: Case, expected: list[Case]) -> None:
    tape = Tape().session("kalshi").session("polymarket")
    for t, price in case["kalshi_yes_ask"]:
        tape.snapshot("kalshi", t / 1000, [], [(price, "10")], source="rest")
    for t, price in case["poly_no_ask"]:
        tape.snapshot("polymarket", t / 1000, [(str(1 - Decimal(price)), "10")], [], source="rest")
    table = spreads_table(
        [pair()],
        tape.data(),
        start=START,
        end=END,
        settings=settings(max_quote_age_s=case["max_age_ms"] / 1000),
        fees=free,
    )
    rows = {row["recv_ns"]: row["gap_yes_kalshi"] for row in table.to_pylist()}
    for wanted in expected:
        gap = wanted["gross_edge"]
        assert rows[at(wanted["t_ms"] / 1000)] == (None if gap is None else Decimal(gap))


CHECKS: dict[str, Callable[[Case, Any], None]] = {
    "fixed": check_fixed,
    "optimum": check_optimum,
    "annual": check_annual,
    "kalshi_book": check_kalshi_book,
    "directions": check_directions,
    "asof": check_asof,
}


@pytest.fixture(scope="module")
def cases(golden: Path) -> list[Case]:
    loaded: list[Case] = json.loads((golden / "arbitrage.json").read_text())["cases"]
    return loaded


@pytest.mark.parametrize("kind", list(CHECKS))
def test_cases_of_a_kind(cases: list[Case], kind: str) -> None:
    chosen = [case for case in cases if case["kind"] == kind]
    assert chosen, f"no case of kind {kind!r}"
    for case in chosen:
        try:
            CHECKS[kind](case["input"], case["expected"])
        except AssertionError as error:
            raise AssertionError(f"{case['id']} {case['title']}: {error}") from error


def test_every_other_kind_is_named(cases: list[Case], capsys: pytest.CaptureFixture[str]) -> None:
    others = {case["kind"] for case in cases} - set(CHECKS)
    with capsys.disabled():
        sys.stdout.write(
            f"\ngolden kinds of the venues' tests: {sorted(others & ELSEWHERE)}; later: {sorted(others & LATER)}\n"
        )
    assert others <= ELSEWHERE | LATER


def test_whole_curve_reaches_the_end_of_the_shallowest_ladder(cases: list[Case]) -> None:
    case = next(case for case in cases if case["id"] == "G08")
    legs = legs_of(case["input"])
    whole = edge_curve(legs, whole=True)
    assert whole[-1].end == min(one.depth for one in legs)
    assert whole[: len(edge_curve(legs))] == edge_curve(legs)
