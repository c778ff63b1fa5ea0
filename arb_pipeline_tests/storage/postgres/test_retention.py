from datetime import UTC, date, datetime

import pytest

from arb_pipeline.storage.postgres import Postgres, TickLoader
from arb_pipeline.storage.postgres.retention import days, drop_days
from arb_pipeline_tests.storage.postgres.reading import rows_of
from arb_pipeline_tests.storage.postgres.test_loading import DAY, changed
from arb_pipeline_tests.storage.rows import START, gaps, quotes

NOON = datetime(2026, 5, 15, 12, tzinfo=UTC)


@pytest.fixture
def three_days(postgres: Postgres) -> Postgres:
    loader = TickLoader(postgres, "run", "")
    for number in range(3):
        loader.load(number + 1, {"quotes": changed(quotes(("A", 1, number)), recv_ns=START + number * DAY)})
    loader.finish({"book_gaps": gaps(("A", 1, 5))})
    return postgres


def test_whole_days_before_those_that_are_kept_are_dropped(three_days: Postgres) -> None:
    assert [day.date for day in drop_days(three_days, 1, NOON, dry_run=True)] == [date(2026, 5, 13)]
    assert len(days(three_days)) == 3
    dropped = drop_days(three_days, 1, NOON)
    assert [(day.table, day.name) for day in dropped] == [("quotes", "quotes_20260513")]
    assert [day.date for day in days(three_days)] == [date(2026, 5, 14), date(2026, 5, 15)]
    assert [row["ordinal"] for row in rows_of(three_days, "quotes")] == [1, 2]
    assert len(rows_of(three_days, "book_gaps")) == 1
    assert drop_days(three_days, 1, NOON) == []


def test_the_running_day_is_always_kept(three_days: Postgres) -> None:
    drop_days(three_days, 0, NOON)
    assert [day.date for day in days(three_days)] == [date(2026, 5, 15)]
    with pytest.raises(ValueError, match="keep_days is -1"):
        drop_days(three_days, -1, NOON)


def test_a_day_that_was_dropped_is_made_anew_when_rows_come_for_it(three_days: Postgres) -> None:
    drop_days(three_days, 0, NOON)
    assert TickLoader(three_days, "late", "").load(1, {"quotes": quotes(("A", 1, 9))}) == 1
