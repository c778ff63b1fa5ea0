import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.model import Market, MarketStatus
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import FeeModel, FeeSchedule, FeeUnknownError
from arb_pipeline.venues.polymarket import Polymarket
from arb_pipeline.venues.polymarket.fees import PolymarketFees, fee_model

NOW = datetime(2026, 10, 1, tzinfo=UTC)
CRYPTO = {"exponent": 1, "rate": 0.07, "takerOnly": True, "rebateRate": 0.2}


def market(created: datetime | None = NOW, **params: Any) -> Market:
    return Market(
        venue="polymarket",
        market_id="0x1",
        event_id="1",
        title="t",
        status=MarketStatus.OPEN,
        tick=100,
        min_size=5_000_000,
        size_step=10_000,
        created_at=created,
        fee_params=params,
    )


def model(rate: str, rounding: str = "floor", exponent: int = 1) -> PolymarketFees:
    assert rounding in ("floor", "half_up")
    return PolymarketFees(
        Decimal(rate), exponent, FeeSchedule("test", "test"), "floor" if rounding == "floor" else "half_up"
    )


def cases(golden: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((golden / "arbitrage.json").read_text())["cases"]
    return loaded


def test_golden_fee_vectors(golden: Path) -> None:
    checked = 0
    for case in cases(golden):
        if case["kind"] != "fee_vectors":
            continue
        expected = {row["id"]: Decimal(row["fee"]) for row in case["expected"]}
        for vector in case["input"]["vectors"]:
            leg = vector["leg"]
            if leg["venue"] != "polymarket":
                continue
            fills = [(Decimal(price), Decimal(size)) for price, size in vector["fills"]]
            assert model(leg["rate"], leg.get("rounding", "floor")).order(fills) == expected[vector["id"]], vector["id"]
            checked += 1
    assert checked == 7


def test_golden_legs_of_baskets(golden: Path) -> None:
    checked = 0
    for case in cases(golden):
        if case["kind"] != "fixed":
            continue
        for leg, expected in zip(case["input"]["legs"], case["expected"]["legs"], strict=True):
            if leg["venue"] != "polymarket" or leg.get("maker"):
                continue
            left, fills = Decimal(expected["filled"]), []
            for price, size in leg["asks"]:
                taken = min(left, Decimal(size))
                left -= taken
                if taken:
                    fills.append((Decimal(price), taken))
            fees = model(leg.get("rate", "0"), exponent=int(leg.get("exponent", 1)))
            assert fees.order(fills) == Decimal(expected["fee"]), (case["id"], leg["name"])
            checked += 1
    assert checked >= 5


def test_the_documented_example() -> None:
    fees: FeeModel = Polymarket().fees(
        market(feesEnabled=True, feeType="crypto_fees", feeSchedule=CRYPTO), NOW, Settings()
    )
    assert fees.taker(Decimal("0.30"), Decimal(100)) == Decimal("1.47")
    assert fees.marginal(Decimal("0.5")) == Decimal("0.0175")
    assert "crypto_fees" in fees.schedule.name


def test_less_than_a_hundred_thousandth_is_nothing_however_rounded() -> None:
    for rounding in ("floor", "half_up"):
        assert model("0.04", rounding).taker(Decimal("0.001"), Decimal("0.2")) == 0


def test_the_curve_of_early_2026_had_exponent_two() -> None:
    assert model("0.25", exponent=2).marginal(Decimal("0.5")) == Decimal("0.015625")


@given(
    st.integers(0, 10**9).map(lambda n: Decimal(n).scaleb(-9)),
    st.integers(0, 10**12).map(lambda n: Decimal(n).scaleb(-6)),
    st.sampled_from(["0", "0.03", "0.07"]),
)
def test_the_charge_lies_within_one_step_below_the_exact_fee(price: Decimal, size: Decimal, rate: str) -> None:
    fee = model(rate).taker(price, size)
    exact = Decimal(rate) * price * (1 - price) * size
    assert fee <= exact < fee + Decimal("0.00001") or abs(exact - fee) < Decimal("1e-20")
    assert fee == model(rate).taker(1 - price, size)


def test_no_market_cost_a_fee_before_2026_01_05() -> None:
    enabled = market(feesEnabled=True, feeSchedule=CRYPTO)
    before = fee_model(enabled, datetime(2026, 1, 4, 23, 59, tzinfo=UTC))
    assert before.taker(Decimal("0.5"), Decimal(100)) == 0
    assert fee_model(enabled, datetime(2026, 1, 5, tzinfo=UTC)).rate == Decimal("0.07")


def test_markets_without_fees() -> None:
    assert fee_model(market(feesEnabled=False, feeSchedule=CRYPTO), NOW).rate == 0
    assert fee_model(market(created=datetime(2025, 6, 1, tzinfo=UTC)), NOW).rate == 0


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"feesEnabled": True},
        {"feesEnabled": True, "feeSchedule": None},
        {"feesEnabled": True, "feeSchedule": {"rate": 0.05}},
        {"feesEnabled": True, "feeSchedule": {"rate": "x", "exponent": 1}},
        {"feesEnabled": True, "feeSchedule": {"rate": True, "exponent": 1}},
        {"feesEnabled": True, "feeSchedule": {"rate": "NaN", "exponent": 1}},
        {"feesEnabled": True, "feeSchedule": {"rate": 0.05, "exponent": 0.5}},
        {"feesEnabled": True, "feeSchedule": {"rate": 7, "exponent": 1}},
        {"feesEnabled": True, "takerBaseFee": 1000},
    ],
)
def test_fees_that_are_not_told_are_unknown_not_zero(params: dict[str, Any]) -> None:
    with pytest.raises(FeeUnknownError, match="0x1"):
        fee_model(market(**params), NOW)


def test_impossible_prices_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"price 1\.5"):
        model("0.05").marginal(Decimal("1.5"))
    with pytest.raises(ValueError, match="size -1"):
        model("0.05").taker(Decimal("0.5"), Decimal(-1))
