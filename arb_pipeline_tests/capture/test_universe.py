from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.capture.universe import select
from arb_pipeline.model import Market, MarketStatus
from arb_pipeline_tests.capture.fakes import markets


def test_matched_first_then_by_volume() -> None:
    listed = [
        *markets("small", volume_24h=1),
        *markets("big", volume_24h=9),
        *markets("matched", volume_24h=None),
        *markets("older", volume_24h=1, volume=50),
    ]
    assert [m.market_id for m in select(listed, 9, {"matched"})] == ["matched", "big", "older", "small"]
    assert [m.market_id for m in select(listed, 2, {"matched"})] == ["matched", "big"]


def test_only_open_markets_count_preferred_or_not() -> None:
    listed = [market for status in MarketStatus for market in markets(status.value, status=status)]
    assert [m.market_id for m in select(listed, 9, {"settled"})] == ["open"]
    assert {m.market_id for m in select(listed, 9, statuses=(MarketStatus.OPEN, MarketStatus.PAUSED))} == {
        "open",
        "paused",
    }


def test_where_a_venue_trades_by_token_both_must_be_minted() -> None:
    listed = [
        *markets("both", yes_token_id="1", no_token_id="2"),
        *markets("half", yes_token_id="3"),
        *markets("none"),
        *markets("elsewhere", venue="other"),
    ]
    assert [m.market_id for m in select(listed, 9)] == ["both", "elsewhere"]


@given(st.permutations(range(8)), st.integers(0, 10))
def test_the_choice_does_not_depend_on_order_or_repeats(order: list[int], limit: int) -> None:
    listed: list[Market] = [market for n in range(8) for market in markets(f"M{n}", volume_24h=n % 3)]
    assert select([listed[n] for n in order] * 2, limit) == select(listed, limit)
