"""Hour partitions, and which of them a clock asks for."""

from datetime import UTC, datetime, timedelta

import dagster as dg

__all__ = ["DAILY", "HOUR", "HOURLY", "KEY_FORMAT", "day_start", "hour_start", "partition_key", "wanted_partitions"]

HOUR = timedelta(hours=1)
KEY_FORMAT = "%Y-%m-%d-%H:%M"

HOURLY = dg.HourlyPartitionsDefinition(start_date="2026-01-01-00:00", timezone="UTC", end_offset=2)
"""UTC hours. The running hour and the next one exist too: capture fills the one and warms up for the other."""


DAILY = dg.DailyPartitionsDefinition(start_date="2026-01-01", timezone="UTC", end_offset=1)
"""UTC days, the running one too."""


def day_start(key: str) -> datetime:
    """Start of the day that a key names."""
    return datetime.strptime(key, DAILY.fmt).replace(tzinfo=UTC)


def partition_key(at: datetime) -> str:
    """The key of the hour that holds an instant."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0).strftime(KEY_FORMAT)


def hour_start(key: str) -> datetime:
    """Start of the hour that a key names.

    Raises:
        ValueError: if it is no hour's key.
    """
    try:
        start = datetime.strptime(key, KEY_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        start = None
    if start is None or start.minute:
        raise ValueError(f"{key!r} is not the key of an hour; write it as 2026-07-01-13:00")
    return start


def wanted_partitions(now: datetime, prewarm: timedelta, leave: timedelta) -> list[str]:
    """Hours that a capture should be running for.

    The current hour, unless less than ``leave`` of it remains (a process would be up too late), and the next hour
    once it is nearer than ``prewarm``.
    """
    start = hour_start(partition_key(now))
    remaining = start + HOUR - now
    wanted = [start] if remaining >= leave else []
    if remaining <= prewarm:
        wanted.append(start + HOUR)
    return [partition_key(hour) for hour in wanted]
