import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.model import Market, MarketStatus
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import FeeModel, FeeUnknownError
from arb_pipeline.venues.kalshi import Kalshi
from arb_pipeline.venues.kalshi.fees import KalshiFees, kalshi_fees

D = Decimal
NOW = datetime(2026, 11, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 15, tzinfo=UTC)
QUADRATIC = {"fee_type": "quadratic", "fee_multiplier": "1"}


def market(**fee_params: Any) -> Market:
    return Market(
        venue="kalshi",
        market_id="KXA-T1",
        event_id="KXA",
        title="A?",
        status=MarketStatus.OPEN,
        tick=100,
        min_size=10_000,
        size_step=10_000,
        fee_params=fee_params,
    )


def fees(at: datetime = NOW, account: Literal["direct", "fcm"] = "direct", **fee_params: Any) -> KalshiFees:
    return kalshi_fees(market(**(QUADRATIC | fee_params)), at, account)


@pytest.mark.parametrize(
    ("price", "size", "charged"),
    [
        ("0.4270", "1", "0.0172"),
        ("0.45", "3", "0.0520"),
        ("0.30", "1", "0.0147"),
        ("0.54", "5", "0.0870"),
        ("0.68", "1", "0.0153"),
    ],
)
def test_charges_measured_on_real_fills_of_july_2026(price: str, size: str, charged: str) -> None:
    for at in (JULY, NOW):
        assert fees(at).taker(D(price), D(size)) == D(charged)


def test_the_official_example_of_an_fcm_account() -> None:
    (fill,) = fees(account="fcm").fills([(D("0.055"), D(1))])
    assert fill.model_fee == D("0.00363825")
    assert fill.trade_fee == D("0.003639")
    assert fill.rounding_fee == D("0.001361")
    assert fill.net_fee == D("0.005")
    assert fees().taker(D("0.055"), D(1)) == D("0.0037")


def test_rounding_is_on_the_order_never_per_contract() -> None:
    assert fees().taker(D("0.33"), D(7)) == D("0.1084")
    assert fees(account="fcm").taker(D("0.33"), D(7)) == D("0.11")
    assert 7 * fees(account="fcm").taker(D("0.33"), D(1)) == D("0.14")


def test_no_float_error_bills_a_cent_more() -> None:
    assert fees(account="fcm").taker(D("0.5"), D(100)) == D("1.75")


def test_the_accumulator_gives_whole_units_back() -> None:
    fill = (D("0.3301"), D("0.03"))
    parts = fees().fills([fill] * 4)
    assert [part.rebate for part in parts] == [0, 0, 0, D("0.0001")]
    assert parts[3].net_fee == D("0.000397")
    assert parts[3].accumulator == D("0.000028")
    assert fees().order([fill] * 4) == sum(part.net_fee for part in parts)


def test_eras() -> None:
    price, size = D("0.4270"), D(1)
    assert fees(datetime(2026, 2, 28, 23, 59, tzinfo=UTC)).taker(price, size) == D("0.02")
    assert fees(datetime(2026, 3, 1, tzinfo=UTC)).taker(price, size) == D("0.0172")
    # Dust shows the step of the trade fee: 1e-4 until 25 August 2026, 1e-6 from then on.
    assert fees(datetime(2026, 8, 25, 23, tzinfo=UTC)).fills([(D("0.5"), D("0.01"))])[0].trade_fee == D("0.0002")
    assert fees(datetime(2026, 8, 26, tzinfo=UTC)).fills([(D("0.5"), D("0.01"))])[0].trade_fee == D("0.000175")
    assert fees(NOW).schedule.valid_from == datetime(2026, 8, 26, tzinfo=UTC)
    assert fees(JULY).schedule.valid_to == datetime(2026, 8, 26, tzinfo=UTC)


def test_cent_era_rounds_the_order_once() -> None:
    old = fees(datetime(2026, 1, 5, tzinfo=UTC))
    assert old.order([(D("0.33"), D(1))] * 7) == D("0.11")
    assert old.taker(D("0.25"), D(100)) == D("1.32")


def test_a_rebate_of_the_spring_2026_era_is_whole_cents() -> None:
    parts = fees(JULY, "fcm").fills([(D("0.055"), D(1))] * 4)
    assert all(part.rebate % D("0.01") == 0 for part in parts)
    assert all(part.net_fee >= 0 for part in parts)


def test_makers() -> None:
    price, size = D("0.5"), D(100)
    assert fees().maker(price, size) == 0
    assert fees(fee_type="quadratic_with_maker_fees").maker(price, size) == D("0.4375")
    assert fees(fee_type="quadratic_with_combo_maker_fees").maker(price, size) == D("0.875")
    assert fees(fee_type="quadratic_with_combo_maker_fees").taker(price, size) == D("1.75")
    before = datetime(2025, 6, 30, tzinfo=UTC)
    assert fees(before, fee_type="quadratic_with_maker_fees").maker(price, size) == D("0.25")
    assert fees(datetime(2025, 7, 1, tzinfo=UTC), fee_type="quadratic_with_maker_fees").maker(price, size) == D("0.44")


@pytest.mark.parametrize("multiplier", ["0.5", 0.5, D("0.5")])
def test_multiplier(multiplier: object) -> None:
    assert fees(fee_multiplier=multiplier).taker(D("0.5"), D(100)) == D("0.875")
    assert fees(fee_multiplier=0).taker(D("0.5"), D(100)) == 0
    assert fees(fee_multiplier=2).marginal(D("0.5")) == D("0.035")


def test_an_events_override_precedes_the_series() -> None:
    assert fees(fee_multiplier_override=0.5).marginal(D("0.5")) == D("0.00875")
    assert fees(fee_multiplier_override=0).marginal(D("0.5")) == 0
    over = fees(fee_type_override="quadratic_with_maker_fees")
    assert over.maker(D("0.5"), D(100)) == D("0.4375")
    cleared = fees(fee_type_override=None, fee_multiplier_override=None)
    assert cleared.marginal(D("0.5")) == D("0.0175")


def test_a_waiver_is_flagged_and_not_counted_on() -> None:
    waived = fees(fee_waiver_expiration_time="2026-12-01T00:00:00Z")
    assert waived.waiver
    assert waived.taker(D("0.5"), D(100)) == D("1.75")
    assert not fees(fee_waiver_expiration_time="2026-10-01T00:00:00Z").waiver
    assert not fees(fee_waiver_expiration_time="soon").waiver


@pytest.mark.parametrize("fee_type", ["flat", "margin_market_maker_program_fees", "", None, 7])
def test_an_unknown_type_is_refused(fee_type: object) -> None:
    with pytest.raises(FeeUnknownError, match=r"KXA-T1: fee_type .* has no known formula"):
        fees(fee_type=fee_type)


@pytest.mark.parametrize("multiplier", [None, "", "x", "NaN", "Infinity", "-1"])
def test_an_unusable_multiplier_is_refused(multiplier: object) -> None:
    with pytest.raises(FeeUnknownError, match=r"KXA-T1: fee_multiplier"):
        fees(fee_multiplier=multiplier)


def test_a_market_without_parameters_is_refused() -> None:
    with pytest.raises(FeeUnknownError):
        kalshi_fees(market(), NOW, "direct")


def test_the_venue_prices_for_the_configured_account() -> None:
    model: FeeModel = Kalshi().fees(market(**QUADRATIC), NOW, Settings(kalshi_account="fcm"))
    assert model.taker(D("0.33"), D(1)) == D("0.02")
    assert Kalshi().fees(market(**QUADRATIC), NOW, Settings()).taker(D("0.33"), D(1)) == D("0.0155")


prices = st.integers(1, 9999).map(lambda price: D(price) / 10000)
counts = st.integers(1, 10**7).map(lambda count: D(count) / 100)


@given(st.lists(st.tuples(prices, counts), min_size=1, max_size=8), st.sampled_from(["direct", "fcm"]))
def test_rounding_costs_less_than_a_unit_per_fill_and_is_never_negative(
    fills: list[tuple[D, D]], account: Literal["direct", "fcm"]
) -> None:
    model = fees(account=account)
    unit = D("0.01") if account == "fcm" else D("0.0001")
    exact = sum((model.marginal(price) * count for price, count in fills), D(0))
    parts = model.fills(fills)
    assert all(part.net_fee >= 0 and 0 <= part.rounding_fee < unit for part in parts)
    assert exact <= model.order(fills) < exact + len(fills) * (unit + D("0.000001"))
    for (price, count), part in zip(fills, parts, strict=True):
        balance = -(price * count) - part.trade_fee - part.rounding_fee
        assert balance % unit == 0


@given(prices)
def test_yes_and_no_pay_alike(price: D) -> None:
    assert fees().marginal(price) == fees().marginal(1 - price) > 0


def golden_cases(golden: Path, kind: str) -> list[dict[str, Any]]:
    cases = json.loads((golden / "arbitrage.json").read_text())["cases"]
    return [case for case in cases if case["kind"] == kind]


def test_golden_fee_vectors(golden: Path) -> None:
    checked = 0
    for case in golden_cases(golden, "fee_vectors"):
        expected = {row["id"]: D(row["fee"]) for row in case["expected"]}
        for vector in case["input"]["vectors"]:
            leg = vector["leg"]
            if leg["venue"] != "kalshi":
                continue
            model = fees(account=leg.get("account", "direct"), fee_multiplier=leg.get("multiplier", "1"))
            fills = [(D(price), D(size)) for price, size in vector["fills"]]
            assert model.order(fills) == expected[vector["id"]], vector["id"]
            checked += 1
    assert checked >= 16


def test_golden_accumulators(golden: Path) -> None:
    cases = golden_cases(golden, "accumulator")
    assert len(cases) >= 2
    for case in cases:
        fills = [(D(price), D(size)) for price, size in case["input"]["fills"]]
        model = fees(account=case["input"]["account"])
        for part, expected in zip(model.fills(fills), case["expected"]["fills"], strict=True):
            for name in ("model_fee", "trade_fee", "rounding_fee", "rebate", "net_fee", "accumulator"):
                assert getattr(part, name) == D(expected[name]), (case["id"], name)
        assert model.order(fills) == D(case["expected"]["net_fee"])


def test_golden_legs_of_fixed_size(golden: Path) -> None:
    checked = 0
    for case in golden_cases(golden, "fixed"):
        size = D(case["input"]["size"])
        for leg, expected in zip(case["input"]["legs"], case["expected"]["legs"], strict=True):
            if leg["venue"] != "kalshi":
                continue
            fills, left = [], size
            for price, offered in leg["asks"]:
                taken = min(left, D(offered))
                left -= taken
                if taken:
                    fills.append((D(price), taken))
            model = fees(account=leg.get("account", "direct"), fee_multiplier=leg.get("multiplier", "1"))
            assert model.order(fills) == D(expected["fee"]), case["id"]
            checked += 1
    assert checked
