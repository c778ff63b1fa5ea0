import json
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest

from arb_pipeline.arbitrage.fees import FeeSource
from arb_pipeline.arbitrage.opportunities import Evaluation, evaluate, joined, optimum_at
from arb_pipeline.arbitrage.pairs import MarketData, Pair
from arb_pipeline.model import MarketStatus, MatchStatus, Relation
from arb_pipeline.tables import table
from arb_pipeline_tests.arbitrage.builders import (
    END,
    START,
    Tape,
    free,
    market,
    pair,
    quadratic,
    settings,
    unknown,
    when,
)


def run(tape: Tape, one: Pair | None = None, fees: FeeSource = free, **changes: object) -> Evaluation:
    found = evaluate([one or pair()], tape.data(), START, END, settings(**changes), fees)
    for name in ("spreads", "opportunity_pieces", "opportunities", "rejections"):
        assert getattr(found, name).schema.equals(table(name).schema)
    return found


def rows(tape: Tape, one: Pair | None = None, fees: FeeSource = free, **changes: object) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = run(tape, one, fees, **changes).opportunities.to_pylist()
    return listed


def both() -> Tape:
    return Tape().session("kalshi").session("polymarket")


def gap_of_three() -> Tape:
    """Kalshi asks 0.42 for 9, Polymarket bids 0.45 for 20, from second 1 on."""
    tape = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9"), ("0.44", "30")])
    return tape.snapshot("polymarket", 1, [("0.45", "20"), ("0.43", "50")], [("0.50", "9")])


def test_episode_by_hand() -> None:
    tape = gap_of_three()
    tape.change("kalshi", 11, "ask", "0.41", "4")
    tape.change("kalshi", 21, "ask", "0.41", "0")
    tape.change("polymarket", 41, "bid", "0.45", "0")
    tape.change("polymarket", 41, "bid", "0.43", "0")
    (row,) = rows(tape)
    assert (row["kind"], row["direction"]) == ("two_leg", "yes_kalshi")
    assert (row["opened_at"], row["closed_at"], row["best_at"]) == (when(1), when(41), when(11))
    # Best instant: 4 at 0.41, 9 at 0.42, 7 at 0.44 = 8.50 against 20 at 0.55 = 11.00.
    assert (row["size"], row["gross"], row["net"], row["fees"]) == (
        Decimal(20),
        Decimal("0.50"),
        Decimal("0.50"),
        Decimal(0),
    )
    assert (row["capital"], row["kalshi_vwap"], row["polymarket_vwap"]) == (
        Decimal("19.50"),
        Decimal("0.425"),
        Decimal("0.55"),
    )
    assert (row["kalshi_limit"], row["polymarket_limit"]) == (Decimal("0.44"), Decimal("0.55"))
    # Edge at the tops: 0.03 for 10 s, 0.04 for 10 s, 0.03 for 20 s.
    assert (row["peak_edge"], row["time_weighted_edge"]) == (Decimal("0.04"), Decimal("0.0325"))
    assert row["roi"] == pytest.approx(0.5 / 19.5)
    days = ((START - when(11)).total_seconds() + 10 * 86_400) / 86_400
    assert row["annualised"] == pytest.approx(0.5 / 19.5 * 365 / days)
    assert (row["excess"], row["worst_state_annualised"]) == (pytest.approx(row["annualised"] - 0.04), None)
    assert (row["accepted"], json.loads(row["reasons"]), row["worst_state_net"]) == (True, [], None)


def test_inverted_pair_gives_the_same_episode() -> None:
    turned = both().snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9"), ("0.44", "30")])
    turned.snapshot("polymarket", 1, [("0.50", "9")], [("0.55", "20"), ("0.57", "50")])
    (straight,), (found,) = rows(gap_of_three()), rows(turned, pair(inverted=True))
    assert found == {**straight, "kind": "inverted"}


def test_other_direction() -> None:
    tape = both().snapshot("kalshi", 1, [("0.61", "80")], [("0.64", "90")])
    tape.snapshot("polymarket", 1, [("0.54", "300")], [("0.56", "120")])
    (row,) = rows(tape, fees=quadratic)
    assert (row["direction"], row["size"], row["gross"]) == ("yes_polymarket", Decimal(80), Decimal("4.00"))
    # 0.07 x 0.39 x 0.61 + 0.04 x 0.56 x 0.44, golden case G31.
    assert row["fees"] == Decimal("0.026509") * 80
    assert (row["kalshi_limit"], row["polymarket_limit"]) == (Decimal("0.39"), Decimal("0.56"))


def test_still_open_at_the_end_is_censored() -> None:
    (row,) = rows(gap_of_three())
    assert (row["closed_at"], row["time_weighted_edge"]) == (None, Decimal("0.03"))


def test_two_episodes_with_a_break_between() -> None:
    tape = gap_of_three()
    tape.change("kalshi", 5, "ask", "0.42", "0").change("kalshi", 5, "ask", "0.44", "0")
    tape.change("kalshi", 6, "ask", "0.43", "3")
    assert [(row["opened_at"], row["closed_at"], row["net"]) for row in rows(tape)] == [
        (when(1), when(5), Decimal("0.38")),
        (when(6), None, Decimal("0.06")),
    ]


def test_deeper_levels_change_the_size_without_changing_the_top() -> None:
    tape = gap_of_three().change("polymarket", 5, "bid", "0.44", "25").change("kalshi", 6, "ask", "0.43", "25")
    (row,) = rows(tape)
    assert (row["best_at"], row["size"]) == (when(6), Decimal(34))


def test_edge_in_doubt_is_no_opportunity() -> None:
    found = rows(gap_of_three().gap("kalshi", 10, 20))
    assert [(row["opened_at"], row["closed_at"], row["accepted"], json.loads(row["reasons"])) for row in found] == [
        (when(1), when(10), True, []),
        (when(10), when(20), False, ["not_in_sync:kalshi"]),
        (when(20), None, True, []),
    ]


def test_lost_connection_ends_the_episode() -> None:
    tape = Tape().session("kalshi").session("polymarket", end=30)
    tape.snapshot("kalshi", 1, [], [("0.42", "9")]).snapshot("polymarket", 1, [("0.45", "20")])
    accepted, lost = rows(tape)
    assert accepted["closed_at"] is not None
    assert (accepted["closed_at"] - when(30)).total_seconds() < 1e-5
    assert (lost["accepted"], json.loads(lost["reasons"])) == (False, ["connection_down:polymarket"])


def test_fees_eat_a_small_gap() -> None:
    (row,) = rows(gap_of_three(), fees=lambda one, _: quadratic(one, START))
    assert row["accepted"], "three cents outweigh 1.7 + 1.0"
    tape = both().snapshot("kalshi", 1, [], [("0.42", "9")]).snapshot("polymarket", 1, [("0.44", "20")])
    (eaten,) = rows(tape, fees=quadratic)
    assert (eaten["accepted"], json.loads(eaten["reasons"])) == (False, ["fee_eaten"])
    assert eaten["gross"] > 0 > eaten["net"]


def test_unknown_fees_are_not_priced() -> None:
    (row,) = rows(gap_of_three(), fees=unknown)
    assert (row["accepted"], row["size"], row["net"]) == (False, Decimal(0), Decimal(0))
    assert json.loads(row["reasons"]) == [
        "fees_unknown:" + "; ".join(f"fee_type of {name} is 'lunar'" for name in ("KXTEST-26", "0xabc"))
    ]


@pytest.mark.parametrize("status", [MatchStatus.REVIEW, MatchStatus.REJECTED, MatchStatus.EXPIRED])
def test_only_decided_matches_count(status: MatchStatus) -> None:
    (row,) = rows(gap_of_three(), pair(status=status))
    assert (row["accepted"], row["match_status"]) == (False, status.value)
    assert json.loads(row["reasons"]) == [f"match_status:{status.value}"]
    assert row["net"] > 0, "shown as a candidate"


def test_only_the_same_question_counts() -> None:
    (row,) = rows(gap_of_three(), replace(pair(), relation=Relation.RELATED))
    assert json.loads(row["reasons"]) == ["relation:related"]


def test_closed_market() -> None:
    one = pair(kalshi=market("kalshi", close_at=when(10)))
    before, after = rows(gap_of_three(), one)
    assert (before["accepted"], before["closed_at"]) == (True, when(10))
    assert json.loads(after["reasons"]) == ["after_close:kalshi"]
    paused = pair(polymarket=market("polymarket", status=MarketStatus.PAUSED))
    (row,) = rows(gap_of_three(), paused)
    assert json.loads(row["reasons"]) == ["market_not_open:polymarket"]


def test_minimum_size() -> None:
    deep = pair(polymarket=market("polymarket", min_size=25_000_000))
    (row,) = rows(gap_of_three(), deep)
    assert row["accepted"], "25 contracts still pay in sum: 9 x 0.03 + 11 x 0.01 - 5 x 0.01"
    tape = both().snapshot("kalshi", 1, [], [("0.42", "3")]).snapshot("polymarket", 1, [("0.45", "20")])
    (small,) = rows(tape, pair(polymarket=market("polymarket", min_size=5_000_000)))
    assert (json.loads(small["reasons"]), small["size"]) == (["below_min_size"], Decimal(3))


def test_least_net_from_the_settings() -> None:
    (row,) = rows(gap_of_three(), min_net_usd=1.0)
    assert (row["accepted"], json.loads(row["reasons"])) == (False, ["below_min_net"])


def test_worst_state_when_the_rules_were_read() -> None:
    half = Decimal("0.5")
    (row,) = rows(gap_of_three(), pair(void_states={"cancelled": (half, half)}))
    assert (row["accepted"], row["worst_state_net"]) == (True, row["net"])
    assert row["worst_state_annualised"] == row["annualised"]
    (broken,) = rows(gap_of_three(), pair(void_states={"cancelled": (Decimal("0.4"), half)}))
    assert (broken["accepted"], json.loads(broken["reasons"])) == (False, ["worst_state"])
    assert broken["worst_state_net"] == broken["net"] - broken["size"] / 10
    assert broken["worst_state_annualised"] == pytest.approx(
        broken["annualised"] * float(broken["worst_state_net"] / broken["net"])
    )


def test_funnel_counts_every_episode_once() -> None:
    tape = gap_of_three().gap("kalshi", 10, 20)
    review = replace(
        pair(status=MatchStatus.REVIEW),
        polymarket=market("polymarket", "0xdef"),
    )
    tape.snapshot("polymarket", 1, [("0.46", "20")], market_id="0xdef")
    found = evaluate([review, pair()], tape.data(), START, END, settings(), free).rejections.to_pylist()
    assert [(row["step"], row["guard"], row["candidates"], row["stopped"]) for row in found] == [
        (1, "matched", 6, 3),
        (2, "in_sync", 3, 1),
        (3, "fresh", 2, 0),
        (4, "open", 2, 0),
        (5, "depth", 2, 0),
        (6, "fee", 2, 0),
        (7, "rules", 2, 0),
        (8, "lasting", 2, 0),
        (9, "arbitrage", 2, 0),
    ]
    assert found[1]["net_stopped"] == Decimal("0.38")


def test_sizing_of_an_instant_repeats_the_row() -> None:
    tape = gap_of_three().change("kalshi", 11, "ask", "0.41", "4").change("kalshi", 21, "ask", "0.41", "0")
    (row,) = rows(tape, fees=quadratic)
    found = optimum_at(pair(), "yes_kalshi", tape.data(), row["best_at"], settings(), quadratic)
    assert found is not None
    assert found.best is not None
    assert (found.best.size, found.best.net) == (row["size"], row["net"])
    assert optimum_at(pair(), "yes_kalshi", tape.data(), when(0), settings(), quadratic) is None
    assert optimum_at(pair(), "yes_kalshi", tape.data(), row["best_at"], settings(), unknown) is None


def test_what_lasts_less_than_a_burst_is_none() -> None:
    tape = gap_of_three().change("polymarket", 1.4, "bid", "0.45", "0").change("polymarket", 1.4, "bid", "0.43", "0")
    (row,) = rows(tape)
    assert (row["accepted"], json.loads(row["reasons"])) == (False, ["burst"])
    (told,) = rows(tape, burst_ms=400)
    assert told["accepted"]


def test_updates_of_one_burst_do_not_split_an_episode() -> None:
    tape = gap_of_three().change("polymarket", 5, "bid", "0.45", "0").change("polymarket", 5, "bid", "0.43", "0")
    tape.change("polymarket", 5.3, "bid", "0.44", "10")
    (row,) = rows(tape)
    assert (row["opened_at"], row["active_ns"]) == (when(1), (3_600 - 1) * 1_000_000_000 - 300_000_000)
    assert [one["opened_at"] for one in rows(tape, burst_ms=200)] == [when(1), when(5.3)]


def test_an_implication_pays_one_way_only() -> None:
    implied = replace(pair(), relation=Relation.POLYMARKET_IMPLIES_KALSHI)
    (row,) = rows(gap_of_three(), implied)
    assert (row["kind"], row["direction"], row["accepted"]) == ("implication", "yes_kalshi", True)
    (other,) = rows(gap_of_three(), replace(pair(), relation=Relation.KALSHI_IMPLIES_POLYMARKET))
    assert json.loads(other["reasons"]) == ["relation:kalshi_implies_polymarket"]


def test_of_exclusive_questions_no_of_both_is_bought() -> None:
    tape = both().snapshot("kalshi", 1, [("0.60", "9")], [("0.70", "9")])
    tape.snapshot("polymarket", 1, [("0.55", "20")], [("0.65", "20")])
    (row,) = rows(tape, replace(pair(), relation=Relation.EXCLUSIVE))
    assert (row["kind"], row["accepted"], row["size"]) == ("exclusive", True, Decimal(9))
    assert (row["kalshi_limit"], row["polymarket_limit"], row["net"]) == (
        Decimal("0.40"),
        Decimal("0.45"),
        Decimal("1.35"),
    )


def test_other_sizes_than_the_best() -> None:
    (row,) = rows(gap_of_three(), kalshi_balance_usd=2.0, polymarket_balance_usd=1_000.0)
    # 9 at 0.42 + 0.55, then 11 at 0.44 + 0.55, then at 0.44 + 0.57: a loss.
    assert (row["top_size"], row["net_top"], row["size"]) == (Decimal(9), Decimal("0.27"), Decimal(20))
    assert (row["net_100"], row["net_5000"]) == (Decimal("0.19"), Decimal("0.19")), "the whole depth of 39"
    assert (row["size_at_balances"], row["net_at_balances"]) == (Decimal(4), Decimal("0.12"))
    assert row["smallest_size"] == 1
    assert row["days"] == pytest.approx(10 - 1 / 86_400)


def test_hours_are_joined_as_if_time_had_not_been_cut() -> None:
    tape = gap_of_three().change("kalshi", 11, "ask", "0.41", "4").gap("polymarket", 30, 32)
    tape.change("kalshi", 41, "ask", "0.41", "0").change("polymarket", 50, "bid", "0.46", "7")
    data, chosen = tape.data(), settings()
    whole = evaluate([pair()], data, START, END, chosen, free).opportunities
    assert whole.num_rows == 3
    for cuts in ([when(20)], [when(31), when(45)], [when(second) for second in range(5, 60, 7)]):
        edges = [START, *cuts, END]
        pieces = [evaluate([pair()], data, *edge, chosen, free).opportunity_pieces for edge in pairwise(edges)]
        assert joined(pa.concat_tables(pieces), END, chosen).equals(whole)


def test_nothing_to_evaluate() -> None:
    found = evaluate([], MarketData(), START, END, settings(), free)
    assert (found.spreads.num_rows, found.opportunities.num_rows) == (0, 0)
    assert [row["candidates"] for row in found.rejections.to_pylist()] == [0] * 9


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="is empty"):
        evaluate([], MarketData(), END, START, settings(), free)
    with pytest.raises(ValueError, match="KXTEST-26 / 0xabc is given 2 times"):
        evaluate([pair(), pair()], MarketData(), START, END, settings(), free)
