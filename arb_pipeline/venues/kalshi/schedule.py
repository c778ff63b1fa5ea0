"""When Kalshi does not trade by plan."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

__all__ = ["maintenance"]

_EASTERN = ZoneInfo("America/New_York")
_THURSDAY = 3
_FROM, _TO = time(3), time(5)


def maintenance(at: datetime) -> tuple[datetime, datetime] | None:
    """The weekly maintenance that an aware time falls in, as UTC [start, end); None outside of it.

    Thursdays 03:00 to 05:00 New York time trading pauses and sockets are closed (docs.kalshi.com "Maintenance",
    ``GET /exchange/schedule``: Thursdays open 00:00-03:00 and 05:00-00:00; state of October 2026).
    """
    local = at.astimezone(_EASTERN)
    if local.weekday() != _THURSDAY or not _FROM <= local.time() < _TO:
        return None
    start, end = (datetime.combine(local.date(), edge, _EASTERN).astimezone(UTC) for edge in (_FROM, _TO))
    assert end - start == timedelta(hours=2), "clocks change on Sundays"
    return start, end
