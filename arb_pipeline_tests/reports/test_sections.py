"""The sections of the report that are counted, one by one."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.arbitrage.opportunities import evaluate
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.gaps import gap_share_of
from arb_pipeline.model import MatchStatus, Relation
from arb_pipeline.reports import ReportInputs
from arb_pipeline.reports.gather import files_of, newest_sets, newest_tops, quote_quality
from arb_pipeline.reports.heat import heat_cells, pair_slices
from arb_pipeline.reports.lifetimes import lifetimes, median_step_s
from arb_pipeline.reports.matched import precision
from arb_pipeline.reports.outcomes import event_sums
from arb_pipeline.reports.quality import age_shares, fee_coverage, venue_quality
from arb_pipeline.reports.realised import by_latency, held_to_settlement
from arb_pipeline.reports.views import Views
from arb_pipeline.storage.lake import Lake
from arb_pipeline.tables import table
from arb_pipeline_tests.arbitrage.builders import (
    END,
    START,
    Tape,
    at,
    free,
    market,
    pair,
    quadratic,
    settings,
    spreads_table,
    unknown,
    when,
)
from arb_pipeline_tests.reports.lakes import capture, match_row
from arb_pipeline_tests.reports.test_page import rows

D = Decimal
KEY = ("KXTEST-26", "0xabc")


# --- heat map ------------------------------------------------------------------------------------------------


def test_heat_is_the_mean_over_the_trusted_time_by_hour_in_new_york() -> None:
    tape = Tape().session("kalshi").session("polymarket", end=5_400)
    tape.snapshot("kalshi", 0, [("0.38", "9")], [("0.42", "9")]).snapshot("polymarket", 0, [("0.45", "9")])
    tape.change("polymarket", 900, "bid", "0.40", "9").change("polymarket", 900, "bid", "0.45", "0")
    end = START + timedelta(hours=2)
    spreads = spreads_table([pair()], tape.data(), start=START, end=end, settings=settings(), fees=free)
    cells = heat_cells(spreads, {KEY: "Sports"}, at(7_200))
    assert [(cell.category, cell.hour, cell.pairs) for cell in cells] == [("Sports", 11, 1), ("Sports", 12, 1)]
    first, second = cells
    # A quarter of the hour at +3 cents, the rest at -2; the second hour ends with the connection.
    assert first.gap == pytest.approx(0.25 * 0.03 + 0.75 * -0.02)
    assert first.paying == pytest.approx(0.25)
    assert first.known_s == pytest.approx(3_600)
    assert second.known_s == pytest.approx(1_800, abs=6)
    assert second.gap == pytest.approx(-0.02)
    assert not second.paying
    assert heat_cells(spreads, {}, at(7_200)) == []


def test_a_gap_without_a_hedge_is_in_no_cell_and_stands_behind_all_others() -> None:
    tape = Tape().session("kalshi").session("polymarket")
    tape.snapshot("kalshi", 0, [("0.38", "9")], [("0.42", "9")], market_id="KXTEST-26")
    tape.snapshot("polymarket", 0, [("0.20", "9")], [("0.22", "9")])
    tape.snapshot("kalshi", 0, [("0.50", "9")], [("0.52", "9")], market_id="KX-B")
    tape.snapshot("polymarket", 0, [("0.53", "9")], [("0.55", "9")], market_id="0xb")
    exclusive = Pair(market("kalshi"), market("polymarket"), Relation.EXCLUSIVE, MatchStatus.APPROVED)
    same = pair(kalshi=market("kalshi", "KX-B"), polymarket=market("polymarket", "0xb"), status=MatchStatus.APPROVED)
    found = evaluate([exclusive, same], tape.data(), START, END, settings(), free)
    told = {"valid_from": START, "valid_to": None, "known_at": START}
    views = Views(
        ReportInputs(
            START,
            END,
            found.spreads,
            matches=rows("market_matches", [match_row(one, **told) for one in (exclusive, same)]),
            pairs=[exclusive, same],
            categories={"KXTEST-26": "Sports", "KX-B": "Crypto"},
        )
    )
    # YES of both exclusive questions is 36 cents cheaper, and worth nothing if neither holds; NO of both costs 42 more.
    assert {cell.category: (round(cell.gap, 4), cell.paying) for cell in views.heat} == {
        "Crypto": (0.01, 1.0),
        "Sports": (-0.42, 0.0),
    }
    first, second = views.spread_rows
    assert first["kalshi_market_id"] == "KX-B"
    assert [(side["gap"], side["hedged"]) for side in second["sides"]] == [(D("0.36"), False), (D("-0.42"), True)]


def test_slices_are_the_pairs_runs() -> None:
    names = [("a", "x"), ("a", "x"), ("a", "y"), ("b", "y")]
    columns = {"kalshi_market_id": [one for one, _ in names], "polymarket_market_id": [other for _, other in names]}
    assert pair_slices(pa.table(columns)) == {("a", "x"): (0, 2), ("a", "y"): (2, 3), ("b", "y"): (3, 4)}
    assert pair_slices(table("spreads").schema.empty_table()) == {}


# --- lifetimes -----------------------------------------------------------------------------------------------


def test_lifetimes_count_what_was_cut_off_for_as_long_as_it_was_seen() -> None:
    def episode(lasted: float, end: str, accepted: bool = True) -> dict[str, Any]:
        return {
            "accepted": accepted,
            "opened_at": START,
            "lasted": lasted,
            "end_reason": end,
            "left_censored": False,
        }

    seen = [episode(1, "edge"), episode(2, "unknown"), episode(3, "edge"), episode(4, "right_censored")]
    accepted, refused = lifetimes([*seen, episode(5, "edge", accepted=False)])
    assert (accepted.curve.times_s, accepted.curve.shares) == ((1.0, 3.0), (0.75, 0.375))
    assert (accepted.median_s, accepted.p90_s, accepted.censored) == (3.0, None, 0.5)
    assert (refused.name, refused.curve.episodes, refused.median_s) == ("refused", 1, 5.0)
    assert lifetimes([]) == []
    assert median_step_s(table("spreads").schema.empty_table()) is None


# --- events of several outcomes ------------------------------------------------------------------------------


def outcome_set(**changes: object) -> dict[str, object]:
    return {
        "venue": "kalshi",
        "event_id": "KXE",
        "title": "Who wins?",
        "outcomes": 2,
        "market_ids": json.dumps(["KX-A", "KX-B"]),
        "exclusive": True,
        "exhaustive": True,
        "why": "a field leg is listed",
        "known_at": START,
        **changes,
    }


def top(market_id: str, bid: str | None, ask: str | None) -> dict[str, object]:
    prices = {"bid": None if bid is None else D(bid), "ask": None if ask is None else D(ask)}
    base = {"venue": "kalshi" if market_id.startswith("KX") else "polymarket", "recv_ns": at(1), "in_sync": True}
    return {**base, **prices, "market_id": market_id, "ordinal": 1, "connection_id": "c", "source": "ws"}


def test_sums_of_an_event_and_of_the_better_of_both_venues() -> None:
    pairs = [
        pair(kalshi=market("kalshi", "KX-A"), polymarket=market("polymarket", "0xa")),
        pair(kalshi=market("kalshi", "KX-B"), polymarket=market("polymarket", "0xb"), inverted=True),
    ]
    quotes = [top("KX-A", "0.50", "0.55"), top("KX-B", "0.44", "0.47"), top("0xa", "0.51", "0.52")]
    quotes.append(top("0xb", "0.57", "0.60"))  # turned round: 0.43 buys what Kalshi's YES is
    (found,) = event_sums(rows("outcome_sets", [outcome_set()]), rows("quotes", quotes), pairs)
    assert (found.asks, found.bids, found.both_asks) == (D("1.02"), D("0.94"), D("0.95"))
    assert (found.missing_asks, found.missing_bids, found.paired) == (0, 0, 2)


def test_events_come_by_what_their_outcomes_allow() -> None:
    flags = {"KX-1": (False, False), "KX-2": (True, False), "KX-3": (False, True), "KX-4": (True, True)}
    sets = [
        outcome_set(
            event_id=name, market_ids=json.dumps([name]), outcomes=1, exclusive=exclusive, exhaustive=exhaustive
        )
        for name, (exclusive, exhaustive) in flags.items()
    ]
    quotes = [
        top("KX-1", "2.00", "0.10"),
        top("KX-2", "1.10", "1.20"),
        top("KX-3", "0.5", "0.8"),
        top("KX-4", "0.3", "0.4"),
    ]
    found = event_sums(rows("outcome_sets", sets), rows("quotes", quotes), [])
    assert [one.event_id for one in found] == ["KX-4", "KX-3", "KX-2", "KX-1"]


def test_a_missing_leg_leaves_no_sum() -> None:
    quotes = rows("quotes", [top("KX-A", "0.50", None)])
    (found,) = event_sums(rows("outcome_sets", [outcome_set()]), quotes, [])
    assert (found.asks, found.bids, found.both_asks) == (None, None, None)
    assert (found.missing_asks, found.missing_bids) == (2, 1)
    assert event_sums(rows("outcome_sets", [outcome_set()]), rows("quotes", []), []) == []


# --- realised ------------------------------------------------------------------------------------------------


def opportunity(direction: str, **changes: object) -> dict[str, object]:
    money = {name: D(1) for name in ("gross", "fees", "net", "peak_edge", "time_weighted_edge")}
    vwaps = {f"{venue}_{what}": D("0.4") for venue in ("kalshi", "polymarket") for what in ("vwap", "limit")}
    return {
        "kalshi_market_id": KEY[0],
        "polymarket_market_id": KEY[1],
        "kind": "two_leg",
        "direction": direction,
        "opened_at": START,
        "closed_at": END,
        "size": D(10),
        **money,
        "capital": D("9.5"),
        "roi": 0.05,
        **vwaps,
        "accepted": True,
        "reasons": "[]",
        "best_at": START,
        **changes,
    }


def agreement(kalshi: str, polymarket: str, relation: str, index: int) -> pa.Table:
    row = {
        "kalshi_market_id": KEY[0],
        "polymarket_market_id": KEY[1],
        "polymarket_yes_index": index,
        "relation": relation,
        "accepted": True,
        "kalshi_result": kalshi,
        "polymarket_result": polymarket,
        "difference": D(0),
        "known_at": END,
    }
    return rows("settlement_agreement", [row])


@pytest.mark.parametrize(
    ("kalshi", "polymarket", "relation", "index", "direction", "paid"),
    [
        ("yes", "yes", "equivalent", 0, "yes_kalshi", "10"),
        ("no", "no", "equivalent", 0, "yes_polymarket", "10"),
        ("yes", "no", "equivalent", 0, "yes_kalshi", "20"),
        ("yes", "no", "equivalent", 0, "yes_polymarket", "0"),
        ("yes", "no", "inverted", 1, "yes_kalshi", "10"),
        ("yes", "0.5", "equivalent", 0, "yes_kalshi", "15"),
        ("0.5", "yes", "equivalent", 0, "yes_kalshi", "5"),
        # Of exclusive questions NO of both is bought: two NOs pay two dollars.
        ("no", "no", "exclusive", 0, "yes_polymarket", "20"),
        ("yes", "no", "exclusive", 0, "yes_polymarket", "10"),
    ],
)
def test_what_a_pair_paid(  # noqa: PLR0917 - a case and its answer
    kalshi: str, polymarket: str, relation: str, index: int, direction: str, paid: str
) -> None:
    told = rows("opportunities", [opportunity(direction), opportunity(direction, accepted=False)])
    (held,) = held_to_settlement(told, agreement(kalshi, polymarket, relation, index))
    assert held.paid == D(paid)
    assert held.net == D(paid) - D("9.5")
    assert held.kept is (D(paid) >= 10)


def test_broken_promises_come_first() -> None:
    told = rows("opportunities", [opportunity("yes_polymarket", opened_at=when(2)), opportunity("yes_kalshi")])
    held = held_to_settlement(told, agreement("no", "yes", "equivalent", 0))
    assert [(one.direction, one.paid, one.kept) for one in held] == [
        ("yes_kalshi", D(0), False),
        ("yes_polymarket", D(20), True),
    ]


def test_open_and_unsettled_opportunities_are_not_held() -> None:
    told = rows("opportunities", [opportunity("yes_kalshi", closed_at=None)])
    assert held_to_settlement(told, agreement("yes", "yes", "equivalent", 0)) == []
    assert held_to_settlement(told, rows("settlement_agreement", [])) == []


def test_latencies_leave_out_what_is_not_known() -> None:
    def order(latency: int, matched: str | None, net: str | None, opened: float) -> dict[str, object]:
        key = {"kalshi_market_id": KEY[0], "polymarket_market_id": KEY[1], "direction": "yes_kalshi"}
        told = {"matched": None if matched is None else D(matched), "net": None if net is None else D(net)}
        return {**key, "opened_at": when(opened), "latency_ms": latency, "size": D(10), **told}

    found = by_latency(
        rows("execution_backtest", [order(100, "5", "-2", 1), order(0, "10", "3", 1), order(100, None, None, 2)])
    )
    assert [(one.latency_ms, one.orders, one.known, one.complete, one.losses) for one in found] == [
        (0, 1, 1, 1, 0),
        (100, 2, 1, 0, 1),
    ]
    assert [(one.fill_rate, one.net) for one in found] == [(1.0, D(3)), (0.5, D(-2))]


# --- matches -------------------------------------------------------------------------------------------------


def test_precision_is_the_newest_measurement() -> None:
    def measured(hour: int, family: str, **values: float) -> list[dict[str, object]]:
        common = {"evaluated_at": datetime(2026, 7, 14, hour, tzinfo=UTC), "family": family, "file": "f.csv"}
        return [{**common, "metric": name, "value": value} for name, value in values.items()]

    figures = {"called": 10.0, "precision": 0.9, "precision_low": 0.6, "precision_high": 0.98, "inversion_errors": 1.0}
    told = [
        *measured(1, "overall", **{**figures, "precision": 0.1}),
        *measured(2, "award", **figures),
        *measured(2, "overall", **figures),
        *measured(2, "other", **{**figures, "called": 0.0}),
    ]
    assert [(one.family, one.precision, one.low, one.called) for one in precision(rows("match_evaluation", told))] == [
        ("overall", 0.9, 0.6, 10),
        ("award", 0.9, 0.6, 10),
    ]
    assert precision(rows("match_evaluation", [])) == []


# --- data quality --------------------------------------------------------------------------------------------


def test_uptime_is_the_union_of_connections_within_the_window() -> None:
    tape = (
        Tape().session("kalshi", -60, 600).session("kalshi", 300, 900, "kalshi-2").session("kalshi", 1_800, None, "k3")
    )
    tape.gap("kalshi", 10, 40).gap("kalshi", 3_000, None)
    data = tape.data()
    (venue,) = venue_quality(ReportInputs(START, END, book_gaps=data.book_gaps, capture_sessions=data.capture_sessions))
    assert venue["uptime_s"] == 900 + 1_800
    assert (venue["gaps"], venue["open_gaps"], venue["resnapshots"], venue["gap_seconds"]) == (2, 1, 1, 630)
    assert (venue["frames"], venue["untold"]) == (30, 0)
    then = ReportInputs(START, END, capture_sessions=data.capture_sessions, as_of=END)
    assert (venue_quality(then)[0]["frames"], venue_quality(then)[0]["untold"]) == (20, 1)


def test_time_in_gaps_counts_once_per_market_and_from_the_first_snapshot_on() -> None:
    tape = Tape().session("kalshi").session("polymarket")
    tape.gap("kalshi", 100, 200).gap("kalshi", 150, 300).gap("kalshi", 150, 200, market_id="KXOTHER-26")
    tape.gap("kalshi", -50, 600).gap("polymarket", 10, 20)
    told = tape.data().book_gaps.to_pylist()
    told[3] |= {"cause": "no_snapshot"}
    gaps = rows("book_gaps", told)
    kalshi, polymarket = venue_quality(ReportInputs(START, END, book_gaps=gaps))
    assert (kalshi["gap_seconds"], polymarket["gap_seconds"]) == (200 + 50, 10)
    # The share that checks and alerts tell is the same time over that of all markets.
    share = gap_share_of(gaps, 3, START, END)
    assert share * 3 * 3_600 == pytest.approx(kalshi["gap_seconds"] + polymarket["gap_seconds"])
    assert kalshi["gap_causes"] == [("seq_gap", 3), ("no_snapshot", 1)]


def test_markets_without_fees_are_told() -> None:
    inputs = ReportInputs(START, END, pairs=[pair()], fees=unknown)
    kalshi, polymarket = fee_coverage(inputs.pairs, Views(inputs).fees, inputs)
    assert (kalshi.markets, kalshi.priced, kalshi.why) == (1, 0, [("fee_type of KXTEST-26 is 'lunar'", 1)])
    assert polymarket.priced == 0
    known = ReportInputs(START, END, pairs=[pair()], fees=quadratic)
    assert [one.priced for one in fee_coverage(known.pairs, Views(known).fees, known)] == [1, 1]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    tape = Tape().session("kalshi").session("polymarket")
    tape.snapshot("kalshi", 0, [("0.40", "9")], [("0.42", "9")])
    tape.change("kalshi", 0.05, "bid", "0.41", "9").change("kalshi", 30, "bid", "0.43", "9")
    tape.snapshot("polymarket", 3_590, [("0.45", "9")]).snapshot("polymarket", 3_650, [("0.46", "9")], in_sync=False)
    lake = Lake(str(tmp_path / "lake"))
    capture(lake, tape)
    return lake


def test_quality_of_the_quotes_by_venue(lake: Lake) -> None:
    end = START + timedelta(hours=2)
    kalshi, polymarket = quote_quality(lake, START, end).to_pylist()
    assert (kalshi["rows"], kalshi["markets"], kalshi["crossed"], kalshi["out_of_sync"]) == (3, 1, 1, 1)
    # 0.05 s, then 29.95 s, then the rest of the hour.
    ages = [kalshi[f"age_{number}_s"] for number in range(5)]
    assert ages == pytest.approx([0.05 + 0.1 + 0.1, 0.9 * 2, 4 * 2, 24.95 + 55, 3_510])
    assert sum(ages) == pytest.approx(3_600)
    assert (polymarket["rows"], polymarket["out_of_sync"]) == (2, 1)
    shares = age_shares(ReportInputs(START, end, quote_quality=quote_quality(lake, START, end)))
    assert shares.keys() == {"Kalshi", "Polymarket"}
    assert all(sum(share) == pytest.approx(1) for share in shares.values())


def test_tops_are_the_newest_in_sync(lake: Lake) -> None:
    found = newest_tops(lake, START, START + timedelta(hours=2), {"KXTEST-26", "0xabc", "0xother"}).to_pylist()
    assert [(row["market_id"], row["bid"]) for row in found] == [("KXTEST-26", D("0.41")), ("0xabc", D("0.45"))]
    early = newest_tops(lake, START, when(10), {"0xabc", "KXTEST-26"}).to_pylist()
    assert [(row["market_id"], row["bid"]) for row in early] == [("KXTEST-26", D("0.41"))]
    assert newest_tops(lake, START, END, set()).num_rows == 0


def test_files_of_the_window(lake: Lake) -> None:
    quotes = [row for row in files_of(lake, START, END).to_pylist() if row["table"] == "quotes"]
    assert [(row["venue"], row["files"], row["rows"]) for row in quotes] == [("kalshi", 1, 3), ("polymarket", 1, 1)]
    assert all(row["bytes"] > 0 for row in quotes)


@given(st.permutations([(0, "KXE"), (1, "KXE"), (2, "KXF")]))
def test_the_newest_set_of_every_event_counts(order: list[tuple[int, str]]) -> None:
    told = [outcome_set(event_id=event_id, known_at=when(seconds)) for seconds, event_id in order]
    found = newest_sets(rows("outcome_sets", told)).to_pylist()
    assert {(row["event_id"], row["known_at"]) for row in found} == {("KXE", when(1)), ("KXF", when(2))}
