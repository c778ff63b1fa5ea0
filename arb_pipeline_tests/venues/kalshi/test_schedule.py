from datetime import UTC, datetime

import pytest

from arb_pipeline.venues import VENUES
from arb_pipeline.venues.kalshi.schedule import maintenance


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (datetime(2026, 7, 16, 7, tzinfo=UTC), datetime(2026, 7, 16, 9, tzinfo=UTC)),  # daylight saving time
        (datetime(2026, 11, 19, 8, tzinfo=UTC), datetime(2026, 11, 19, 10, tzinfo=UTC)),
    ],
)
def test_thursdays_from_three_to_five_in_new_york(start: datetime, end: datetime) -> None:
    assert maintenance(start) == (start, end)
    assert maintenance(end.replace(hour=end.hour - 1, minute=59)) == (start, end)
    assert maintenance(end) is None
    assert maintenance(start.replace(hour=start.hour - 1, minute=59)) is None
    assert maintenance(start.replace(day=start.day + 1)) is None
    assert VENUES["kalshi"].maintenance(start) == (start, end)


def test_polymarket_announces_none() -> None:
    assert VENUES["polymarket"].maintenance(datetime(2026, 11, 19, 8, tzinfo=UTC)) is None
