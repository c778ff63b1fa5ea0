from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.defs.partitions import HOUR, HOURLY, hour_start, partition_key, wanted_partitions

NOW = datetime(2026, 7, 1, 13, 30, tzinfo=UTC)
PREWARM, LEAVE = timedelta(seconds=20), timedelta(seconds=10)


def test_middle_of_the_hour_wants_the_hour() -> None:
    assert wanted_partitions(NOW, PREWARM, LEAVE) == ["2026-07-01-13:00"]


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ("13:59:39", ["2026-07-01-13:00"]),
        ("13:59:40", ["2026-07-01-13:00", "2026-07-01-14:00"]),
        ("13:59:50", ["2026-07-01-13:00", "2026-07-01-14:00"]),
        ("13:59:51", ["2026-07-01-14:00"]),
        ("14:00:00", ["2026-07-01-14:00"]),
    ],
)
def test_near_the_boundary(clock: str, expected: list[str]) -> None:
    now = datetime.fromisoformat(f"2026-07-01T{clock}+00:00")
    assert wanted_partitions(now, PREWARM, LEAVE) == expected


def test_without_prewarm_an_hours_last_seconds_want_nothing() -> None:
    assert wanted_partitions(NOW.replace(minute=59, second=55), timedelta(0), LEAVE) == []


def test_day_and_year_turn_over() -> None:
    now = datetime(2026, 12, 31, 23, 59, 45, tzinfo=UTC)
    assert wanted_partitions(now, PREWARM, LEAVE) == ["2026-12-31-23:00", "2027-01-01-00:00"]


@given(st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - bounds are naive by contract
def test_a_key_names_the_hour_that_holds_the_instant(at: datetime) -> None:
    start = hour_start(partition_key(at))
    assert start <= at < start + HOUR


def test_keys_are_those_of_the_partitions_definition() -> None:
    keys = HOURLY.get_partition_keys(current_time=NOW)
    assert partition_key(NOW) in keys
    assert keys[-1] == partition_key(NOW + HOUR)


@pytest.mark.parametrize("key", ["2026-07-01", "2026-07-01-13:30", "kalshi"])
def test_a_wrong_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        hour_start(key)
