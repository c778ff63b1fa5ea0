import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from arb_pipeline.model import Event, FeeChange, Market, MarketStatus
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import FeeUnknownError
from arb_pipeline.venues.fee_timeline import ALWAYS, FeeChanges
from arb_pipeline.venues.http import RestClient
from arb_pipeline.venues.kalshi import Kalshi
from arb_pipeline.venues.kalshi.fee_changes import LISTED, Announced, announced, fee_changes
from arb_pipeline.venues.kalshi.fees import kalshi_fees

NONE = Announced(())


def day(number: int) -> datetime:
    return datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=number)


def event(multiplier: object = 1, override: object = None, series: str = "KX", name: str = "KX-A") -> Event:
    params = {"fee_type": "quadratic", "fee_multiplier": str(multiplier)}
    if override is not None:
        params |= {"fee_type_override": "quadratic", "fee_multiplier_override": str(override)}
    market = Market(
        venue="kalshi",
        market_id=f"{name}-T",
        event_id=name,
        series_id=series,
        title="?",
        status=MarketStatus.OPEN,
        tick=100,
        min_size=1,
        size_step=1,
        fee_params=params,
    )
    return Event(venue="kalshi", event_id=name, series_id=series, title="?", markets=(market,))


def of_series(number: int, multiplier: object, **more: Any) -> dict[str, Any]:
    at = day(number).isoformat().replace("+00:00", "Z")
    return {
        "id": f"s{number}",
        "series_ticker": "KX",
        "fee_type": "quadratic",
        "fee_multiplier": multiplier,
        "scheduled_ts": at,
        **more,
    }


def of_event(number: int, fee_type: str | None, multiplier: object) -> dict[str, Any]:
    return {
        "id": f"e{number}",
        "event_ticker": "KX-A",
        "series_ticker": "KX",
        "fee_type_override": fee_type,
        "fee_multiplier_override": multiplier,
        "scheduled_ts": day(number).isoformat(),
    }


def plain(changes: list[FeeChange]) -> list[tuple[str, datetime, str | None]]:
    return [(change.scope, change.valid_from, change.params.get("fee_multiplier")) for change in changes]


def multiplier(changes: list[FeeChange], at: datetime) -> str:
    model = kalshi_fees(event().markets[0], at, "direct", FeeChanges(changes, ["kalshi"]))
    return f"{model.multiplier}"


def test_a_series_without_any_change_has_always_been_as_listed() -> None:
    known = fee_changes([event()], NONE, day(0), [])
    assert plain(known) == [("series", ALWAYS, "1")]
    assert multiplier(known, day(-500)) == "1"
    assert fee_changes([event(1.0)], NONE, day(1), known) == known


def test_what_was_before_the_first_announced_change_is_not_known() -> None:
    known = fee_changes([event(0.5)], announced([of_series(-10, 0.5)], []), day(0), [])
    assert plain(known) == [("series", day(-10), "0.5")]
    with pytest.raises(FeeUnknownError):
        multiplier(known, day(-11))
    # Unless a listing before it showed what held.
    before = fee_changes([event(1)], NONE, day(-20), [])
    known = fee_changes([event(0.5)], announced([of_series(-10, 0.5)], []), day(0), before)
    assert [multiplier(known, day(at)) for at in (-400, -11, -10)] == ["1", "1", "0.5"]


def test_an_announced_change_waits_for_its_time() -> None:
    known = fee_changes([event(1)], announced([of_series(5, 2)], []), day(0), [])
    assert [multiplier(known, day(at)) for at in (-1, 4, 5)] == ["1", "1", "2"]
    # The announcement is withdrawn, and nothing came of it.
    known = fee_changes([event(1)], NONE, day(1), known)
    assert multiplier(known, day(6)) == "1"


def test_a_listing_that_contradicts_the_announcements_counts_from_then_on() -> None:
    told = announced([of_series(-10, 0.5)], [])
    known = fee_changes([event(0.7)], told, day(0), fee_changes([event(1)], NONE, day(-20), []))
    assert [multiplier(known, day(at)) for at in (-11, -1, 0)] == ["1", "0.5", "0.7"]
    assert [change.source for change in known] == [LISTED, "GET /series/fee_changes s-10", LISTED]


def test_a_change_during_a_listing_is_not_contradicted_by_it() -> None:
    told = announced([of_series(0, 0.5)], [])
    known = fee_changes([event(1)], told, day(0) + timedelta(minutes=20), fee_changes([event(1)], NONE, day(-20), []))
    assert multiplier(known, day(1)) == "0.5"


def test_events_are_overridden_and_cleared() -> None:
    told = announced([], [of_event(-6, "quadratic", 0.25), of_event(-4, None, None)])
    known = fee_changes([event()], told, day(0), [])
    assert plain(known) == [("event", day(-6), "0.25"), ("event", day(-4), None), ("series", ALWAYS, "1")]
    assert [multiplier(known, day(at)) for at in (-7, -6, -4)] == ["1", "0.25", "1"]


def test_an_override_that_nobody_announced() -> None:
    known = fee_changes([event(override=0)], NONE, day(0), [])
    assert multiplier(known, day(-3)) == "0"
    known = fee_changes([event()], NONE, day(2), known)
    assert [multiplier(known, day(at)) for at in (1, 2)] == ["0", "1"]


def test_without_announcements_fees_are_known_from_the_listing_on() -> None:
    known = fee_changes([event(1)], None, day(0), [])
    assert plain(known) == [("series", day(0), "1")]
    with pytest.raises(FeeUnknownError, match="has told nothing that holds"):
        multiplier(known, day(-1))
    # What was announced before stays, too.
    known = fee_changes([event(1)], announced([of_series(5, 2)], []), day(0), [])
    known = fee_changes([event(1)], None, day(1), known)
    assert [multiplier(known, day(at)) for at in (1, 5)] == ["1", "2"]


def test_a_change_that_cannot_be_read_leaves_a_hole(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        told = announced([of_series(-10, 0.5, scheduled_ts="soon"), of_series(-9, 1, series_ticker=None)], [])
    assert len(caplog.records) == 2
    assert not told.changes
    known = fee_changes([event(1)], told, day(0), [])
    assert plain(known) == [("series", day(0), "1")]


def test_an_unknown_type_is_kept_and_refused() -> None:
    known = fee_changes([event(1)], announced([of_series(-2, 1, fee_type="flat")], []), day(-1), [])
    with pytest.raises(FeeUnknownError, match="'flat' has no known formula"):
        multiplier(known, day(-2))


def test_of_two_changes_for_one_time_the_last_one_counts() -> None:
    known = fee_changes([], announced([of_series(-2, 1), of_series(-2, 3)], []), day(0), [])
    assert plain(known) == [("series", day(-2), "3")]


class Answers(httpx.MockTransport):
    """Kalshi's answers by path; an integer is a status."""

    def __init__(self, **answers: Any) -> None:
        self.asked: list[httpx.URL] = []
        self.answers = answers
        super().__init__(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url)
        answer = self.answers[request.url.path.split("/")[-2]]
        if callable(answer):
            answer = answer(request.url.params)
        return httpx.Response(answer) if isinstance(answer, int) else httpx.Response(200, json=answer)


async def listed(transport: Answers, known: list[FeeChange], max_pages: int = 10) -> list[FeeChange]:
    client = RestClient("https://kalshi.test", timeout_s=5, retries=0, requests_per_s=1000, transport=transport)
    async with client:
        settings = Settings(max_pages=max_pages)
        return await Kalshi().fee_changes(client, settings, [event(0.5)], day(0), known)


async def test_both_lists_are_read_to_their_end() -> None:
    def events(params: httpx.QueryParams) -> Any:
        last = params.get("cursor") == "next"
        change = of_event(-1, None, None) if last else of_event(-3, "quadratic", 0)
        return {"event_fee_changes": [change], "cursor": "" if last else "next"}

    transport = Answers(series={"series_fee_change_arr": [of_series(-10, 0.5)]}, events=events)
    known = await listed(transport, [])
    assert plain(known) == [("series", day(-10), "0.5"), ("event", day(-3), "0"), ("event", day(-1), None)]
    assert transport.asked[0].params["show_historical"] == "true"


@pytest.mark.parametrize(
    "answers",
    [
        {"series": 404, "events": {"event_fee_changes": [], "cursor": ""}},
        {"series": {"series_fee_change_arr": []}, "events": 503},
        {"series": {"series_fee_change_arr": 7}, "events": {"event_fee_changes": [], "cursor": ""}},
        {"series": {"series_fee_change_arr": []}, "events": {"event_fee_changes": [], "cursor": "again"}},
    ],
)
async def test_an_incomplete_list_is_none(answers: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        known = await listed(Answers(**answers), [])
    assert plain(known) == [("series", day(0), "0.5")]
    assert "no list of fee changes" in caplog.text
