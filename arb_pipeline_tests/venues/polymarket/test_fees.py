from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.model import Event, FeeChange, Market, MarketStatus
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import FeeModel, FeeSchedule, FeeUnknownError
from arb_pipeline.venues.fee_timeline import ALWAYS, FeeChanges
from arb_pipeline.venues.polymarket import Polymarket
from arb_pipeline.venues.polymarket.fees import CATEGORY_RATES, CLOB_V2, PolymarketFees, fee_changes, fee_model

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


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def listed(*markets: Market) -> list[Event]:
    return [Event(venue="polymarket", event_id="1", title="t", markets=markets)]


def test_before_clob_v2_a_buyer_paid_in_shares() -> None:
    enabled = market(day("2026-04-01"), feesEnabled=True, feeSchedule={"rate": 0.072, "exponent": 1})
    before, after = (fee_model(enabled, at) for at in (CLOB_V2 - timedelta(seconds=1), CLOB_V2))
    price, size = Decimal("0.4"), Decimal(100)
    assert before.taker(price, size) == after.taker(price, size) == Decimal("1.728")
    assert before.received(price, size) == size - Decimal("1.728") / price == Decimal("95.68")
    assert after.received(price, size) == size
    assert (before.schedule.valid_to, after.schedule.valid_from) == (CLOB_V2, CLOB_V2)
    assert "in shares" in before.schedule.name


def test_received_shares_are_cut_to_their_grid_and_dust_is_free() -> None:
    fees = fee_model(market(day("2026-04-01"), feesEnabled=True, feeSchedule=CRYPTO), day("2026-04-02"))
    assert fees.taker(Decimal("0.33"), Decimal("94.017962")) == Decimal("1.45511")
    # 94.017962 - 1.45511 / 0.33 = 89.6085377...
    assert fees.received(Decimal("0.33"), Decimal("94.017962")) == Decimal("89.608537")
    assert fees.received(Decimal("0.001"), Decimal("0.1")) == Decimal("0.1")


def test_the_curve_of_markets_made_before_30_march_2026_is_a_share_of_the_price() -> None:
    schedule = {"rate": 0.25, "exponent": 2}
    old, new = (
        fee_model(market(made, feesEnabled=True, feeSchedule=schedule), NOW)
        for made in (day("2026-03-29"), day("2026-03-30"))
    )
    assert new.marginal(Decimal("0.5")) == Decimal("0.015625")
    # At most 1.56 % of the value, as documented then.
    assert old.marginal(Decimal("0.5")) / Decimal("0.5") == Decimal("0.015625")


@pytest.mark.parametrize(
    ("made", "tags", "rate", "exponent"),
    [
        ("2026-01-04", ["Crypto", "15M"], "0", 1),
        ("2026-01-05", ["Crypto", "15M"], "0.25", 2),
        ("2026-02-11", ["Crypto", "5M"], "0", 1),
        ("2026-02-12", ["Crypto", "5M"], "0.25", 2),
        ("2026-03-05", ["Crypto"], "0", 1),
        ("2026-03-06", ["Crypto"], "0.25", 2),
        ("2026-03-30", ["Crypto", "15M"], "0.072", 1),
        ("2026-06-01", ["crypto"], "0.07", 1),
        ("2026-02-17", ["Sports", "NCAAB"], "0", 1),
        ("2026-02-18", ["Sports", "NCAAB"], "0.0175", 1),
        ("2026-02-18", ["Sports", "Serie A"], "0.0175", 1),
        ("2026-02-18", ["Sports", "NBA"], "0", 1),
        ("2026-03-30", ["Sports"], "0.03", 1),
        ("2026-07-09", ["Sports", "NCAAB"], "0.03", 1),
        ("2026-07-10", ["Sports"], "0.05", 1),
        ("2026-03-29", ["Politics"], "0", 1),
        ("2026-03-30", ["Politics", "Geopolitics"], "0.04", 1),
        ("2026-03-30", ["Geopolitics"], "0", 1),
        ("2026-03-30", ["Economy"], "0.05", 1),
        ("2026-03-30", ["Something else"], "0.05", 1),
    ],
)
def test_a_market_that_tells_no_schedule_has_its_categorys_of_the_day_it_was_made(
    made: str, tags: list[str], rate: str, exponent: int
) -> None:
    # However much later it is asked for.
    fees = fee_model(market(day(made), tags=tags), NOW)
    assert (fees.rate, fees.exponent) == (Decimal(rate), exponent)


def test_fees_that_are_on_in_a_category_without_fees_are_unknown() -> None:
    with pytest.raises(FeeUnknownError, match="0x1"):
        fee_model(market(NOW, feesEnabled=True, tags=["Geopolitics"]), NOW)
    with pytest.raises(FeeUnknownError, match="0x1"):
        fee_model(market(None, tags=["Sports"]), NOW)


def test_a_schedule_changes_for_a_market_when_a_listing_shows_it() -> None:
    made, first, second = day("2026-07-01"), day("2026-07-02"), day("2026-08-01")
    old = market(made, feesEnabled=True, feeSchedule={"rate": 0.03, "exponent": 1})
    new = market(made, feesEnabled=True, feeSchedule={"rate": 0.04, "exponent": 1})
    known = fee_changes(listed(old), first, [])
    assert fee_changes(listed(old), second, known) == known
    known = fee_changes(listed(new), second, known)
    changes = FeeChanges(known)
    found = [fee_model(new, day(at), changes=changes) for at in ("2026-07-01", "2026-07-31", "2026-08-01")]
    assert [fees.rate for fees in found] == [Decimal("0.03"), Decimal("0.03"), Decimal("0.04")]
    assert (found[1].schedule.valid_to, found[2].schedule.valid_from) == (second, second)


def test_an_unusable_schedule_is_refused_only_while_it_is_in_force() -> None:
    made, first, second = day("2026-07-01"), day("2026-07-02"), day("2026-08-01")
    broken = market(made, feesEnabled=True, feeSchedule={"rate": "high", "exponent": 1})
    known = fee_changes(listed(broken), first, [])
    changes = FeeChanges(fee_changes(listed(market(made, feesEnabled=True, feeSchedule=CRYPTO)), second, known))
    with pytest.raises(FeeUnknownError, match="'high', not a number") as refused:
        fee_model(broken, day("2026-07-15"), changes=changes)
    assert (refused.value.valid_from, refused.value.valid_to) == (made, second)
    assert fee_model(broken, second, changes=changes).rate == Decimal("0.07")


def test_a_schedule_that_is_told_late_does_not_count_before() -> None:
    made, first, second = day("2026-04-01"), day("2026-07-02"), day("2026-08-01")
    silent = market(made, tags=["Sports"])
    told = market(made, feesEnabled=True, feeSchedule={"rate": 0.04, "exponent": 1})
    known = fee_changes(listed(told), second, fee_changes(listed(silent), first, []))
    changes = FeeChanges(known)
    late = market(made, feesEnabled=True, feeSchedule={"rate": 0.04, "exponent": 1})
    assert fee_model(late, day("2026-08-02"), changes=changes).rate == Decimal("0.04")
    with pytest.raises(FeeUnknownError):
        fee_model(late, day("2026-07-31"), changes=changes)


def test_a_market_that_is_gone_is_kept_only_if_its_schedule_changed() -> None:
    made, first, second = day("2026-07-01"), day("2026-07-02"), day("2026-08-01")
    known = fee_changes(listed(market(made, feesEnabled=False)), first, [])
    assert [change.scope_id for change in known if change.scope == "market"] == ["0x1"]
    assert fee_changes([], second, known) == list(CATEGORY_RATES)
    known = fee_changes(listed(market(made, feesEnabled=True, feeSchedule=CRYPTO)), second, known)
    assert fee_changes([], day("2026-09-01"), known) == known


def test_the_categories_stand_among_what_is_known() -> None:
    assert {change.scope for change in CATEGORY_RATES} == {"default", "series"}
    assert CATEGORY_RATES[0] == FeeChange(
        venue="polymarket",
        scope="default",
        params={"rate": "0", "exponent": "1"},
        valid_from=ALWAYS,
        source="docs.polymarket.com, Fees and changelog",
    )


def test_the_rounding_is_a_setting() -> None:
    one = market(feesEnabled=True, feeSchedule=CRYPTO)
    price, size = Decimal("0.527058567"), Decimal("580.677591")
    for rounding, fee in (("floor", "10.13209"), ("half_up", "10.1321")):
        settings = Settings(polymarket_fee_rounding=rounding)
        assert Polymarket().fees(one, NOW, settings).taker(price, size) == Decimal(fee)
