from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.model import FeeChange, Market, MarketStatus
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import FeeModel, FeeUnknownError
from arb_pipeline.venues.fee_timeline import ALWAYS, FeeChanges
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
        series_id="KX",
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


def change(scope: Literal["series", "event"], at: datetime, **params: str) -> FeeChange:
    scope_id = "KX" if scope == "series" else "KXA"
    return FeeChange(venue="kalshi", scope=scope, scope_id=scope_id, params=params, valid_from=at, source="test")


def dated(at: datetime, *changes: FeeChange, **fee_params: Any) -> KalshiFees:
    return kalshi_fees(market(**(QUADRATIC | fee_params)), at, "direct", FeeChanges(changes))


def november(number: int) -> datetime:
    return datetime(2026, 11, number, tzinfo=UTC)


def test_a_series_fees_change_when_they_were_announced_to() -> None:
    changes = (
        change("series", ALWAYS, fee_type="quadratic", fee_multiplier="1"),
        change("series", november(10), fee_type="quadratic_with_maker_fees", fee_multiplier="0.5"),
    )
    before, after = (dated(november(at), *changes) for at in (9, 10))
    assert (before.marginal(D("0.5")), after.marginal(D("0.5"))) == (D("0.0175"), D("0.00875"))
    assert (before.maker(D("0.5"), D(100)), after.maker(D("0.5"), D(100))) == (D(0), D("0.2188"))
    assert (before.schedule.valid_to, after.schedule.valid_from) == (november(10), november(10))
    assert "quadratic_with_maker_fees x0.5 by series since 2026-11-10" in after.schedule.name
    assert "1e-6 per fill" in after.schedule.name


def test_a_future_change_never_applies_early_whatever_the_catalogue_says_now() -> None:
    changes = (
        change("series", ALWAYS, fee_type="quadratic", fee_multiplier="1"),
        change("series", november(20), fee_type="quadratic", fee_multiplier="0"),
    )
    assert dated(november(19), *changes, fee_multiplier="0", fee_multiplier_override="0").multiplier == 1
    assert dated(november(20), *changes).multiplier == 0


def test_an_events_override_precedes_its_series_until_it_is_cleared() -> None:
    changes = (
        change("series", ALWAYS, fee_type="quadratic", fee_multiplier="1"),
        change("event", november(3), fee_type="quadratic_with_combo_maker_fees", fee_multiplier="0"),
        change("event", november(5), fee_multiplier="2"),
        change("event", november(7)),
    )
    found = [dated(november(at), *changes) for at in (2, 3, 5, 7)]
    assert [one.multiplier for one in found] == [1, 0, 2, 1]
    assert [one.maker_rate for one in found] == [0, D("0.035"), 0, 0]
    assert ["event override" in one.schedule.name for one in found] == [False, True, True, False]
    assert (found[1].schedule.valid_from, found[1].schedule.valid_to) == (november(3), november(5))


def test_what_was_before_the_first_known_change_is_refused() -> None:
    changes = FeeChanges([change("series", november(5), **QUADRATIC)])
    with pytest.raises(FeeUnknownError, match="series 'KX' has told nothing that holds at that time") as refused:
        kalshi_fees(market(**QUADRATIC), november(4), "direct", changes)
    assert (refused.value.valid_from, refused.value.valid_to) == (None, november(5))
    with pytest.raises(FeeUnknownError) as earlier:
        kalshi_fees(market(**QUADRATIC), november(3), "direct", changes)
    # The text is a reason of an episode: with the time in it no two hours of one would join.
    assert str(earlier.value) == str(refused.value)
    assert kalshi_fees(market(**QUADRATIC), november(5), "direct", changes).multiplier == 1


def test_a_series_that_a_listed_venue_does_not_tell_of_is_refused() -> None:
    with pytest.raises(FeeUnknownError, match="has told nothing"):
        kalshi_fees(market(**QUADRATIC), NOW, "direct", FeeChanges((), ["kalshi"]))
    # Where nothing was ever listed by time, the catalogue's own word holds.
    assert kalshi_fees(market(**QUADRATIC), NOW, "direct", FeeChanges((), ["polymarket"])).multiplier == 1


def test_an_unknown_type_is_refused_for_as_long_as_it_is_in_force() -> None:
    changes = (
        change("series", ALWAYS, **QUADRATIC),
        change("series", november(5), fee_type="flat", fee_multiplier="1"),
        change("series", november(8), **QUADRATIC),
    )
    with pytest.raises(FeeUnknownError, match="fee_type 'flat' has no known formula") as refused:
        dated(november(6), *changes)
    assert (refused.value.valid_from, refused.value.valid_to) == (november(5), november(8))
    assert dated(november(8), *changes).multiplier == 1


def test_the_end_of_a_waiver_and_of_an_era_end_a_schedule() -> None:
    waived = fees(november(1), fee_waiver_expiration_time="2026-11-03T00:00:00Z")
    assert waived.schedule.valid_to == november(3)
    assert "waiver" in waived.schedule.name
    assert "waiver" not in fees(november(3), fee_waiver_expiration_time="2026-11-03T00:00:00Z").schedule.name
    old = fees(datetime(2025, 6, 1, tzinfo=UTC), fee_type="quadratic_with_maker_fees")
    assert old.schedule.valid_to == datetime(2025, 7, 1, tzinfo=UTC)


def test_all_that_is_bought_is_received() -> None:
    assert fees().received(D("0.5"), D(7)) == 7
