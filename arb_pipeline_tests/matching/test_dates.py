from datetime import UTC, date, datetime, time

import pytest

from arb_pipeline.matching.dates import date_from_ticker, date_mentions, read_times, time_of_day

NEAR = date(2026, 11, 30)
NEW_YEAR = datetime(2027, 1, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "before Jan 1, 2027",
        "before 2027",
        "by December 31, 2026",
        "by Dec 31, 2026, 11:59 PM ET",
        "by the end of 2026",
        "in 2026",
        "in December 2026",
        "through December 31",
        "between July 3, 2026, and December 31, 2026, 11:59 PM ET",
    ],
)
def test_all_ways_to_say_this_year_end_at_the_same_instant(text: str) -> None:
    assert read_times(f"Will it happen {text}?", NEAR).deadline == NEW_YEAR


def test_deadlines_are_half_open_and_follow_summer_time() -> None:
    assert read_times("before Jul 1, 2026", None).deadline == datetime(2026, 7, 1, 4, tzinfo=UTC)
    assert read_times("by June 30, 2026, 12:00 PM ET", None).deadline == datetime(2026, 6, 30, 16, tzinfo=UTC)
    assert read_times("by June 30, 2026, 11:59 PM UTC", None).deadline == datetime(2026, 7, 1, tzinfo=UTC)


def test_on_is_a_day_and_no_deadline() -> None:
    facts = read_times("above $5 on April 30, 2026", None)
    assert (facts.on, facts.deadline) == (date(2026, 4, 30), None)


def test_a_month_is_a_window() -> None:
    facts = read_times("in March 2026", None)
    assert facts.window_start == datetime(2026, 3, 1, 5, tzinfo=UTC)
    assert facts.deadline == datetime(2026, 4, 1, 4, tzinfo=UTC)


def test_missing_years_come_from_the_nearest_date_or_stay_open() -> None:
    assert read_times("by January 15", date(2026, 12, 20)).deadline == datetime(2027, 1, 16, 5, tzinfo=UTC)
    lost = read_times("by January 15", None)
    assert lost.deadline is None
    assert lost.unresolved


def test_meetings_have_a_month_and_may_be_deadlines() -> None:
    assert read_times("at their July 2026 meeting", None).meeting == (2026, 7)
    assert read_times("Fed decision in July?", None).meeting == (None, 7)
    by = read_times("hike by the June 2026 meeting", None)
    assert (by.meeting, by.by_meeting) == ((2026, 6), True)


def test_editions_and_seasons_are_years() -> None:
    assert read_times("win the 2026 Cup", None).editions == {2026}
    assert read_times("the 2025-26 Finals", None).editions == {2026}
    assert read_times("Will it happen this year?", None, date(2026, 3, 1)).deadline == NEW_YEAR


def test_verbs_are_no_months() -> None:
    assert date_mentions("they may march on") == ()
    assert [mention.month for mention in date_mentions("in May or March")] == [5, 3]


def test_scheduled_dates_are_no_deadlines() -> None:
    facts = read_times("The vote, scheduled to take place on June 23, 2026, decides", None)
    assert (facts.on, facts.deadline) == (None, None)


def test_times_of_day_and_tickers() -> None:
    assert time_of_day("at 5pm EDT") == (time(17), "et")
    assert time_of_day("12:00 PM ET") == time_of_day("noon") == (time(12), "et")
    assert time_of_day("no time") is None
    assert date_from_ticker("KXABC-26APR30-T5") == (2026, 4, 30)
    assert date_from_ticker("KXABC-26") is None


def test_a_year_of_two_digits_is_of_this_century() -> None:
    (mention,) = date_mentions("recorded on 28 Nov '26")
    assert (mention.year, mention.month, mention.day) == (2026, 11, 28)
