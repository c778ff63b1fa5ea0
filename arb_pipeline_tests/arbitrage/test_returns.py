from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from arb_pipeline.arbitrage.returns import days_to_payout, payout_at, returns
from arb_pipeline_tests.arbitrage.builders import market

NOW = datetime(2026, 7, 14, tzinfo=UTC)


def test_the_later_leg_decides_and_a_day_is_the_least() -> None:
    soon = market("kalshi", close_at=NOW + timedelta(hours=3), settlement_timer_s=3600)
    late = market("polymarket", close_at=NOW + timedelta(days=9), settlement_timer_s=None)
    assert payout_at(soon) == NOW + timedelta(hours=4)
    assert days_to_payout(NOW, soon, late) == Decimal(9) + Decimal(2) / Decimal(24), (
        "two hours of liveness where no timer is told"
    )
    assert days_to_payout(NOW, soon, soon) == 1


@pytest.mark.parametrize(("venue", "hours"), [("kalshi", 0.5), ("polymarket", 2), ("a third one", 2)])
def test_without_a_timer_the_venue_has_its_usual_lag(venue: str, hours: float) -> None:
    closes = NOW + timedelta(days=1)
    assert payout_at(market(venue, close_at=closes, settlement_timer_s=None)) == closes + timedelta(hours=hours)
    assert payout_at(market(venue, close_at=closes, settlement_timer_s=60)) == closes + timedelta(minutes=1)


def test_excess_over_money_that_is_not_locked_up() -> None:
    # 1 % in half a year is 2 % a year.
    found = returns(Decimal(1), Decimal(100), Decimal("182.5"))
    assert (found.excess(Decimal("0.04")), found.excess(Decimal("0.01"))) == (Decimal("-0.02"), Decimal("0.01"))


def test_expected_expiration_goes_before_the_close() -> None:
    known = market("kalshi", expected_expiration_at=NOW + timedelta(days=2), close_at=NOW + timedelta(days=30))
    assert days_to_payout(NOW, known) == 2


def test_unknown_time_of_one_leg_is_unknown() -> None:
    assert days_to_payout(NOW, market("kalshi"), market("polymarket", close_at=None)) is None


def test_compound_is_shown_for_a_week_or_more() -> None:
    week = returns(Decimal(1), Decimal(100), Decimal(7))
    assert week.simple == Decimal("0.01") * 365 / 7
    assert week.compound is not None
    assert returns(Decimal(1), Decimal(100), Decimal("6.9")).compound is None
    assert returns(Decimal(1), Decimal(100), Decimal("0.1")).days == 1
