from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.clock import Clock, datetime_from_ns, ns_from_datetime, wall_ms


def test_the_offset_shifts_every_reading() -> None:
    clock = Clock(offset_ns=-5, source=lambda: 100)
    assert clock.now_ns() == 95
    assert Clock.from_offset(-1.5).offset_ns == -1_500_000_000


def test_the_real_clock_follows_the_machine() -> None:
    before = wall_ms()
    now = Clock().now_ns() // 1_000_000
    assert before <= now <= wall_ms()
    assert abs((Clock.from_offset(-86_400).now() - datetime.now(UTC)) + timedelta(days=1)) < timedelta(minutes=1)


def test_a_reading_as_a_datetime_is_aware_and_cut_to_microseconds() -> None:
    clock = Clock(source=lambda: 1_791_300_000_123_456_789)
    assert clock.now() == datetime(2026, 10, 6, 15, 20, 0, 123456, tzinfo=UTC)


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_microseconds_survive_the_way_there_and_back(us: int) -> None:
    assert ns_from_datetime(datetime_from_ns(us * 1_000)) == us * 1_000


@given(st.integers(0, 2**62))
def test_nanoseconds_are_cut_never_rounded_up(ns: int) -> None:
    back = ns_from_datetime(datetime_from_ns(ns))
    assert back <= ns < back + 1_000


def test_other_zones_mean_the_same_instant() -> None:
    zone = timezone(timedelta(hours=-4))
    assert ns_from_datetime(datetime(2026, 1, 1, tzinfo=zone)) == ns_from_datetime(datetime(2026, 1, 1, 4, tzinfo=UTC))


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        ns_from_datetime(datetime(2026, 1, 1))  # noqa: DTZ001 - the very case
