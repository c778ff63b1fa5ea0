from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.model import FeeChange, FeeScope, Market, MarketStatus
from arb_pipeline.venues.fee_timeline import FeeChanges, InForce, Timeline

T0 = datetime(2026, 3, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    return T0 + timedelta(days=number)


def test_the_narrower_scope_precedes_and_an_empty_entry_clears_it() -> None:
    timeline = Timeline(
        "0",
        series=[(day(1), "1"), (day(20), "2")],
        event=[(day(5), "0.5"), (day(9), None)],
        market=[(day(7), "3"), (day(8), None)],
    )
    found = [(timeline.at(day(number)).value, timeline.at(day(number)).scope) for number in (0, 1, 5, 7, 8, 9, 20)]
    assert found == [
        ("0", "default"),
        ("1", "series"),
        ("0.5", "event"),
        ("3", "market"),
        ("0.5", "event"),
        ("1", "series"),
        ("2", "series"),
    ]


def test_a_change_holds_from_its_instant_on_and_never_before() -> None:
    timeline = Timeline(series=[(day(10), "1")])
    instant = timedelta(microseconds=1)
    assert timeline.at(day(10) - instant) == InForce(None, None, None, day(10))
    assert timeline.at(day(10)) == InForce("1", "series", day(10), None)


def test_validity_runs_over_changes_that_make_no_difference() -> None:
    timeline = Timeline("0", series=[(day(3), "1"), (day(6), "2")], event=[(day(2), "9"), (day(8), "9")])
    assert timeline.at(day(4)) == InForce("9", "event", day(2), None)
    assert timeline.at(day(1)) == InForce("0", "default", None, day(2))


def test_of_two_entries_of_one_time_the_later_given_one_holds() -> None:
    assert Timeline(series=[(day(1), "1"), (day(1), "2")]).at(day(1)).value == "2"


SCOPES: tuple[FeeScope, ...] = ("series", "event", "market")
entry = st.tuples(st.integers(0, 12), st.sampled_from(["a", "b", None]))
entries = st.lists(entry, max_size=5, unique_by=lambda e: e[0])


@given(entries, entries, entries, st.sampled_from(["z", None]), st.integers(-1, 13))
def test_as_by_looking_through_all_entries(
    series: list[tuple[int, str | None]],
    event: list[tuple[int, str | None]],
    market: list[tuple[int, str | None]],
    default: str | None,
    when: int,
) -> None:
    given_entries = dict(zip(SCOPES, (series, event, market), strict=True))

    def plain(number: int) -> tuple[str | None, str | None]:
        for scope in reversed(SCOPES):
            held = [value for start, value in sorted(given_entries[scope], key=lambda e: e[0]) if start <= number]
            if held and held[-1] is not None:
                return held[-1], scope
        return default, None if default is None else "default"

    timeline = Timeline(
        default, **{scope: [(day(at), value) for at, value in found] for scope, found in given_entries.items()}
    )
    found = timeline.at(day(when))
    assert (found.value, found.scope) == plain(when)
    # It is the same all over the validity that is told, and different just outside of it.
    for number in range(-1, 14):
        inside = (found.valid_from is None or found.valid_from <= day(number)) and (
            found.valid_to is None or day(number) < found.valid_to
        )
        if inside:
            assert plain(number) == plain(when)
        if found.valid_to == day(number) or found.valid_from == day(number + 1):
            assert plain(number) != plain(when)


def test_changes_are_asked_by_market() -> None:
    def change(scope: FeeScope, scope_id: str, number: int, **params: str) -> FeeChange:
        return FeeChange(
            venue="kalshi", scope=scope, scope_id=scope_id, params=params, valid_from=day(number), source="test"
        )

    changes = FeeChanges(
        [
            change("event", "E", 5, fee_multiplier="0.5"),
            change("series", "S", 2, fee_type="quadratic", fee_multiplier="1"),
            change("series", "S", 0, fee_type="flat", fee_multiplier="1"),
            change("series", "OTHER", 3, fee_type="flat"),
        ]
    )
    market = Market(
        venue="kalshi",
        market_id="M",
        event_id="E",
        series_id="S",
        title="?",
        status=MarketStatus.OPEN,
        tick=100,
        min_size=1,
        size_step=1,
    )
    assert changes.venues == {"kalshi"}
    assert changes.timeline(market, "fee_type").at(day(6)).value == "quadratic"
    assert changes.timeline(market, "fee_type").at(day(1)).value == "flat"
    assert changes.timeline(market, "fee_multiplier").at(day(6)).scope == "event"
    assert FeeChanges((), ["kalshi"]).timeline(market, "fee_type").at(day(6)).value is None
