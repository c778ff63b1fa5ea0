"""The exact cases that the venues' fees answer."""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pytest

from arb_pipeline.venues.fee_timeline import Timeline
from arb_pipeline.venues.kalshi.fees import KalshiFees, kalshi_fees
from arb_pipeline_tests.arbitrage.test_golden import CHECKS as ARBITRAGE
from arb_pipeline_tests.arbitrage.test_golden import ELSEWHERE
from arb_pipeline_tests.golden import NOW, Case, cases_of, fees_of, listed

D = Decimal
JULY = datetime(2026, 7, 15, tzinfo=UTC)


def kalshi(account: Literal["direct", "fcm"] = "direct", multiplier: str = "1", at: datetime = NOW) -> KalshiFees:
    return kalshi_fees(listed("kalshi", fee_type="quadratic", fee_multiplier=multiplier), at, account)


def fills_of(rows: list[list[str]]) -> list[tuple[D, D]]:
    return [(D(price), D(size)) for price, size in rows]


def walk(asks: list[list[str]], size: D) -> Iterator[tuple[D, D]]:
    for price, offered in fills_of(asks):
        taken = min(size, offered)
        size -= taken
        if taken:
            yield price, taken


def check_fee_vectors(case: Case) -> None:
    wanted = {row["id"]: D(row["fee"]) for row in case["expected"]}
    for vector in case["input"]["vectors"]:
        found = fees_of(vector["leg"]).order(fills_of(vector["fills"]))
        assert found == wanted.pop(vector["id"]), (vector["id"], found)
    assert not wanted, f"no vector for {sorted(wanted)}"
    for name, charged in case.get("measured", {}).items():
        size, price = name.split("@")
        for at in (JULY, NOW):
            assert kalshi(at=at).taker(D(price), D(size)) == D(charged), (name, at)


def check_accumulator(case: Case) -> None:
    expected = case["expected"]
    fills = fills_of(case["input"]["fills"])
    fees = kalshi(case["input"].get("account", "direct"))
    for part, wanted in zip(fees.fills(fills), expected["fills"], strict=True):
        for name in ("model_fee", "trade_fee", "rounding_fee", "rebate", "net_fee", "accumulator"):
            assert getattr(part, name) == D(wanted[name]), (name, getattr(part, name))
    assert fees.order(fills) == D(expected["net_fee"])
    if "single_equivalent_fill_fee" in expected:
        (price,) = {price for price, _ in fills}
        assert fees.taker(price, sum((size for _, size in fills), D(0))) == D(expected["single_equivalent_fill_fee"])


def check_fixed(case: Case) -> None:
    size = D(case["input"]["size"])
    for leg, wanted in zip(case["input"]["legs"], case["expected"]["legs"], strict=True):
        fees = fees_of(leg)
        fills = list(walk(leg["asks"], size))
        assert fees.order(fills) == D(wanted["fee"]), (leg["name"], fees.order(fills))
        assert sum((fees.received(price, part) for price, part in fills), D(0)) == D(wanted["filled"])


def check_fee_schedule(case: Case) -> None:
    def at(text: str) -> datetime:
        read = datetime.fromisoformat(text)
        return read if read.tzinfo else read.replace(tzinfo=UTC)

    given = case["input"]
    assert set(given) <= {"default", "series", "event", "market", "queries"}
    scopes = {
        scope: [(at(start), value) for start, value in given.get(scope, ())] for scope in ("series", "event", "market")
    }
    timeline = Timeline(given.get("default"), **scopes)
    for query, wanted in zip(given["queries"], case["expected"], strict=True):
        found = timeline.at(at(query["t"]))
        assert {"t": query["t"], "value": found.value, "from": found.scope} == wanted


CHECKS: dict[str, Callable[[Case], None]] = {
    "fee_vectors": check_fee_vectors,
    "accumulator": check_accumulator,
    "fixed": check_fixed,
    "fee_schedule": check_fee_schedule,
}


def test_every_case_of_fees(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = cases_of(golden)
    unknown = {case["kind"] for case in cases} - set(CHECKS) - set(ARBITRAGE)
    assert not unknown, f"no test knows how to run cases of the kinds {sorted(unknown)}"
    assert set(CHECKS) >= ELSEWHERE
    ran = dict.fromkeys(CHECKS, 0)
    for case in cases:
        if case["kind"] in CHECKS:
            try:
                CHECKS[case["kind"]](case)
            except AssertionError as error:
                raise AssertionError(f"{case['id']} {case['title']}: {error}") from error
            ran[case["kind"]] += 1
    with capsys.disabled():
        counts = ", ".join(f"{count} {kind}" for kind, count in ran.items())
        sys.stdout.write(f"\ngolden cases of fees run: {sum(ran.values())} ({counts})\n")
    assert sum(ran.values()), f"no case of fees in {golden}"
