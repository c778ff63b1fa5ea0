import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import combinations, pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from arb_pipeline.arbitrage.basket_evaluation import BASKET_EPISODES, BASKET_FUNNEL, evaluate_baskets
from arb_pipeline.arbitrage.baskets import Basket, OutcomeSet, baskets_of
from arb_pipeline.arbitrage.episodes import EdgeRules, EdgeStep
from arb_pipeline.arbitrage.fees import FeeSource
from arb_pipeline.arbitrage.ladders import Leg, optimise
from arb_pipeline.arbitrage.opportunities import funnel, joined
from arb_pipeline.arbitrage.pairs import MarketData, Pair
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import MarketStatus, MatchStatus
from arb_pipeline_tests.arbitrage.builders import (
    END,
    START,
    Fees,
    Tape,
    at,
    edge_episodes,
    free,
    market,
    pair,
    quadratic,
    settings,
    unknown,
    when,
)

D = Decimal
NAMES = ("A", "B", "C")


def event(venue: str, names: Sequence[str] = NAMES, **changes: Any) -> OutcomeSet:
    prefix = venue[0].upper()
    markets = tuple(market(venue, f"{prefix}{name}", event_id=f"{prefix}E") for name in names)
    return replace(OutcomeSet(venue, f"{prefix}E", markets, exclusive=True, exhaustive=True), **changes)


def partners(ours: OutcomeSet, theirs: OutcomeSet, **changes: Any) -> list[Pair]:
    return [pair(kalshi=a, polymarket=b, **changes) for a, b in zip(ours.outcomes, theirs.outcomes, strict=True)]


def tape(*venues: str, asks: Sequence[str] = ("0.40", "0.40", "0.40"), size: str = "10") -> Tape:
    """Books of three outcomes on each venue that nobody bids for."""
    made = Tape()
    for venue in venues or ("kalshi",):
        made.session(venue)
        for name, ask in zip(NAMES, asks, strict=True):
            made.snapshot(venue, 1, [], [(ask, size)], market_id=f"{venue[0].upper()}{name}")
    return made


def bids(*books: tuple[str, str, str]) -> Tape:
    """Books of Kalshi's outcomes that nobody sells YES of: name, bid and size."""
    made = Tape().session("kalshi")
    for name, bid, size in books:
        made.snapshot("kalshi", 1, [(bid, size)], [], market_id=name)
    return made


def only(data: MarketData, start: datetime, end: datetime) -> MarketData:
    """What was received in [start, end)."""
    bounds = ns_from_datetime(start), ns_from_datetime(end)

    def cut(rows: pa.Table) -> pa.Table:
        at = rows["recv_ns"]
        return rows.filter(pc.and_(pc.greater_equal(at, bounds[0]), pc.less(at, bounds[1])))

    return replace(data, quotes=cut(data.quotes), book_events=cut(data.book_events))


def ask(tape: Tape, t: float, name: str, *changes: tuple[str, str], side: str = "ask") -> None:
    venue = "kalshi" if name.startswith("K") else "polymarket"
    for price, size in changes:
        tape.change(venue, t, side, price, size, market_id=name)  # type: ignore[arg-type]


def episodes(
    baskets: Sequence[Basket],
    data: MarketData,
    cuts: Sequence[datetime] = (START, END),
    fees: FeeSource = free,
    **changes: object,
) -> list[dict[str, Any]]:
    """Rows of ``basket_opportunities`` of windows from cut to cut."""
    chosen = settings(**changes)
    pieces = [evaluate_baskets(baskets, data, start, end, chosen, fees).pieces for start, end in pairwise(cuts)]
    rows: list[dict[str, Any]] = joined(pa.concat_tables(pieces), cuts[-1], chosen, BASKET_EPISODES).to_pylist()
    return rows


def of_kind(kind: str, sets: Sequence[OutcomeSet], pairs: Sequence[Pair] = ()) -> list[Basket]:
    return [basket for basket in baskets_of(sets, pairs) if basket.kind == kind]


def spans(rows: Sequence[dict[str, Any]]) -> list[tuple[object, object, object]]:
    return [(row["opened_at"], row["closed_at"], json.loads(row["reasons"])) for row in rows]


def test_a_basket_of_yes_to_the_nanosecond_and_the_cent() -> None:
    played = tape()
    ask(played, 10, "KA", ("0.25", "8"))
    ask(played, 20, "KB", ("0.30", "20"))
    ask(played, 30, "KC", ("0.34", "5"))
    ask(played, 60, "KB", ("0.30", "0"))
    row, after = episodes(of_kind("yes_basket", [event("kalshi")]), played.data(), fees=quadratic)
    # 0.25 + 0.30 + 0.40 and 0.07 x (0.25 x 0.75 + 0.30 x 0.70 + 0.40 x 0.60) leave this of a dollar,
    before = 1 - D("0.95") - D("0.07") * (D("0.1875") + D("0.21") + D("0.24"))
    # with 0.34 for the last it is this, for five baskets, and then again the above for three more.
    peak = 1 - D("0.89") - D("0.07") * (D("0.1875") + D("0.21") + D("0.2244"))
    assert spans([row, after]) == [(when(20), when(60), []), (when(60), None, ["fee_eaten"])]
    assert (row["peak_edge"], row["peak_at"], row["best_at"]) == (peak, when(30), when(30))
    assert (row["size"], row["net"]) == (8, 5 * peak + 3 * before)
    assert row["fees"] == D("0.07") * (8 * D("0.3975") + 5 * D("0.2244") + 3 * D("0.24"))
    assert row["gross"] == row["net"] + row["fees"] == 8 * D("0.45") - 5 * D("0.34") - 3 * D("0.40")
    assert row["capital"] == 8 - row["net"]
    assert (row["active_ns"], row["end_reason"], row["bought_on"]) == (40_000_000_000, "edge", "kalshi")
    assert row["time_weighted_edge"] == (10 * before + 30 * peak) / 40
    assert row["days"] == pytest.approx(10 - 30 / 86_400)
    assert row["annualised"] == pytest.approx(row["roi"] * 365 / row["days"])
    assert row["worst_state_net"] is None
    legs = json.loads(row["legs"])
    assert [(leg["market_id"], leg["outcome"], leg["size"], leg["vwap"], leg["limit"]) for leg in legs] == [
        ("KA", "yes", "8", "0.25", "0.25"), ("KB", "yes", "8", "0.3", "0.3"), ("KC", "yes", "8", "0.3625", "0.4"),
    ]  # fmt: skip


def test_what_fees_eat_is_told_with_its_reason() -> None:
    played = tape(asks=("0.33", "0.33", "0.33"))
    (row,) = episodes(of_kind("yes_basket", [event("kalshi")]), played.data(), fees=quadratic)
    assert spans([row]) == [(when(1), None, ["fee_eaten"])]
    (row,) = episodes(of_kind("yes_basket", [event("kalshi")]), played.data(), fees=unknown)
    assert json.loads(row["reasons"])[0].startswith("fees_unknown:")
    assert (row["size"], row["net"], row["roi"]) == (0, 0, None)


@pytest.mark.parametrize("change", [{"exhaustive": False, "why": "names"}, {"missing": ("KD",)}])
def test_without_proof_it_is_never_accepted(change: dict[str, Any]) -> None:
    played = tape(asks=("0.20", "0.20", "0.20"))
    ask(played, 5, "KA", ("0.10", "3"))
    (row,) = episodes(of_kind("yes_basket", [event("kalshi", **change)]), played.data())
    assert not row["accepted"]
    assert json.loads(row["reasons"])[0].startswith("not_exhaustive:")
    assert row["net"] == 10 * D("0.4"), "told by the tops alone: three at 0.50 earn less"
    counted = funnel(pa.Table.from_pylist([row]), START.date(), BASKET_FUNNEL).to_pylist()
    assert (counted[0]["guard"], counted[0]["stopped"], counted[-1]["candidates"]) == ("proven", 1, 0)


def test_a_basket_of_no_pays_for_all_but_one_and_does_without_what_nobody_bids_for() -> None:
    played = Tape().session("kalshi")
    for name, bid in (("KA", "0.45"), ("KB", "0.40"), ("KC", "0.25")):
        played.snapshot("kalshi", 1, [(bid, "10")], [("0.50", "10")], market_id=name)
    ask(played, 50, "KC", ("0.25", "0"), side="bid")
    ask(played, 55, "KA", ("0.50", "0"), ("0.75", "10"))
    ask(played, 60, "KA", ("0.45", "0"), ("0.70", "4"), side="bid")
    first, second = episodes(of_kind("no_basket", [event("kalshi")]), played.data(), fees=quadratic)
    # NO at 0.55, 0.60 and 0.75: 2 - 1.90 less 0.07 x (0.2475 + 0.24 + 0.1875).
    assert spans([first]) == [(when(1), when(50), [])]
    assert (first["payout"], first["size"], first["net"]) == (2, 10, 1 - D("0.7") * D("0.675"))
    assert (first["capital"], first["capital_after_return"]) == (20 - first["net"], 0)
    # NO of two at 0.30 and 0.60 pays once.
    assert spans([second]) == [(when(60), None, [])]
    assert (second["payout"], second["size"]) == (1, 4)
    assert [leg["outcome"] for leg in json.loads(second["legs"])] == ["no", "no"]


def test_what_stays_tied_up_of_a_basket_of_no_that_loses() -> None:
    played = Tape().session("kalshi")
    for name in ("KA", "KB", "KC"):
        played.snapshot("kalshi", 1, [("0.34", "10")], market_id=name)
    (row,) = episodes(of_kind("no_basket", [event("kalshi")]), played.data(), fees=quadratic)
    assert json.loads(row["reasons"]) == ["fee_eaten"]
    assert row["capital_after_return"] == row["capital"] - 2 * row["size"] == -row["net"]


def test_a_basket_of_no_goes_on_without_an_outcome_that_closes_and_one_of_yes_does_not() -> None:
    closes = market("kalshi", "KC", event_id="KE", close_at=START + timedelta(seconds=100))
    of = event("kalshi", outcomes=(*event("kalshi").outcomes[:2], closes))
    played = Tape().session("kalshi")
    for name, bid, price in (("KA", "0.55", "0.56"), ("KB", "0.52", "0.53"), ("KC", "0.10", "0.12")):
        played.snapshot("kalshi", 1, [(bid, "10")], [(price, "10")], market_id=name)
    (row,) = episodes(of_kind("no_basket", [of]), played.data())
    assert (spans([row]), row["payout"], row["net"]) == ([(when(1), None, [])], 2, 10 * D("0.17"))
    cheap = Tape().session("kalshi")
    for name in ("KA", "KB", "KC"):
        cheap.snapshot("kalshi", 1, [], [("0.30", "10")], market_id=name)
    assert spans(episodes(of_kind("yes_basket", [of]), cheap.data())) == [
        (when(1), when(100), []),
        (when(100), None, ["after_close:kalshi"]),
    ]


def test_of_each_outcome_the_leg_that_is_cheaper_with_its_fees() -> None:
    """The lower quote of the first outcome loses to the fee: 0.40 + 0.07 x 0.24 exceeds 0.41 + 0.02 x 0.2419."""
    ours, theirs = event("kalshi"), event("polymarket")
    played = tape("kalshi", asks=("0.40", "0.20", "0.30"))
    played = both(played, asks=("0.41", "0.30", "0.25"))
    rates = {"kalshi": "0.07", "polymarket": "0.02"}
    (row,) = episodes(
        of_kind("best_of_both", [ours, theirs], partners(ours, theirs)),
        played.data(),
        fees=lambda asked, _at: Fees(D(rates[asked.venue])),
    )
    assert [leg["market_id"] for leg in json.loads(row["legs"])] == ["PA", "KB", "PC"]
    net = 1 - D("0.41") - D("0.20") - D("0.25") - D("0.02") * (D("0.2419") + D("0.1875")) - D("0.07") * D("0.16")
    assert (row["size"], row["net"], row["peak_edge"]) == (10, 10 * net, net)
    assert (row["bought_on"], row["event_id"], row["partner_event_id"]) == ("both", "KE", "PE")
    assert spans([row]) == [(when(1), None, [])]


def both(played: Tape, asks: Sequence[str], size: str = "10") -> Tape:
    """Polymarket's books beside Kalshi's."""
    played.session("polymarket")
    for name, price in zip(NAMES, asks, strict=True):
        played.snapshot("polymarket", 1, [], [(price, size)], market_id=f"P{name}")
    return played


def test_the_worst_state_counts_a_void_that_pays_less() -> None:
    ours, theirs = event("kalshi"), event("polymarket")
    void = {"cancelled": (D(0), D("0.5"))}
    baskets = of_kind("best_of_both", [ours, theirs], partners(ours, theirs, void_states=void))
    played = both(tape("kalshi", asks=("0.30", "0.40", "0.40")), asks=("0.60", "0.30", "0.30"))
    (row,) = episodes(baskets, played.data())
    assert (row["net"], row["worst_state_net"]) == (1, 1), "0 + 0.5 + 0.5 is what the outcomes pay too"
    played = both(tape("kalshi", asks=("0.30", "0.30", "0.40")), asks=("0.60", "0.60", "0.30"))
    (row,) = episodes(baskets, played.data())
    assert (row["net"], row["worst_state_net"], json.loads(row["reasons"])) == (1, -4, ["worst_state"])


def test_the_worst_state_counts_one_void_beside_another_outcome_that_happens() -> None:
    """Both NO void pay 1.20, more than one of two; one void at 0.60 beside a winner leaves 0.40 for the two."""
    ours, theirs = event("kalshi", ("A", "B")), event("polymarket", ("A", "B"))
    void = {"cancelled": (D("0.6"), D(0))}
    baskets = of_kind("no_basket", [ours], partners(ours, theirs, void_states=void))
    (row,) = episodes(baskets, bids(("KA", "0.60", "10"), ("KB", "0.50", "10")).data())
    assert (row["net"], row["worst_state_net"]) == (1, 10 * (D("0.4") - D("0.9")))
    assert json.loads(row["reasons"]) == ["worst_state"]
    (untold,) = episodes(of_kind("no_basket", [ours]), bids(("KA", "0.60", "10"), ("KB", "0.50", "10")).data())
    assert (untold["worst_state_net"], json.loads(untold["reasons"])) == (None, [])


def test_the_rest_of_an_event_stands_for_the_no_of_one_outcome() -> None:
    ours, theirs = event("kalshi"), event("polymarket", names=("A",))
    baskets = of_kind("best_of_both", [ours, theirs], [pair(kalshi=ours.outcomes[0], polymarket=theirs.outcomes[0])])
    played = tape("kalshi", asks=("0.50", "0.25", "0.25"))
    played.session("polymarket").snapshot("polymarket", 1, [], [("0.44", "7")], market_id="PA")
    (row,) = episodes(baskets, played.data())
    assert (row["event_id"], row["size"], row["net"]) == ("KE", 7, 7 * D("0.06"))
    assert [leg["market_id"] for leg in json.loads(row["legs"])] == ["PA", "KB", "KC"]


def test_a_pair_in_review_keeps_its_own_leg_out_and_no_other() -> None:
    ours, theirs = event("kalshi"), event("polymarket")
    pairs = partners(ours, theirs)
    pairs[2] = replace(pairs[2], status=MatchStatus.REVIEW)
    baskets = of_kind("best_of_both", [ours, theirs], pairs)[:1]
    (row,) = episodes(baskets, both(tape(), asks=("0.20", "0.20", "0.20")).data())
    assert [leg["market_id"] for leg in json.loads(row["legs"])] == ["PA", "PB", "KC"]
    assert (row["net"], json.loads(row["reasons"])) == (10 * D("0.2"), [])


def test_an_option_that_is_not_to_be_trusted_is_left_to_the_other_venue() -> None:
    ours, theirs = event("kalshi"), event("polymarket")
    played = both(tape(asks=("0.30", "0.30", "0.30")), asks=("0.25", "0.50", "0.50"))
    played.gap("polymarket", 20, 30, market_id="PA").gap("kalshi", 40, 50, market_id="KA")
    played.gap("kalshi", 60, 70, market_id="KB")
    rows = episodes(of_kind("best_of_both", [ours, theirs], partners(ours, theirs)), played.data())
    assert spans(rows) == [
        (when(1), when(60), []),
        (when(60), when(70), ["not_in_sync:kalshi"]),
        (when(70), None, []),
    ], "PB is to be trusted, but too dear: only KB leaves something"
    assert (rows[0]["end_reason"], rows[0]["net"]) == ("unknown", 10 * D("0.15"))
    mean = (49 * D("0.15") + 10 * D("0.1")) / 59
    assert rows[0]["time_weighted_edge"] == round(mean, 10), "without PA it earned less for ten seconds"


def test_an_option_that_nobody_captured_is_no_loss() -> None:
    ours, theirs = event("kalshi"), event("polymarket")
    played = tape(asks=("0.30", "0.30", "0.30")).session("polymarket")
    played.snapshot("polymarket", 1, [], [("0.20", "10")], market_id="PA")
    (row,) = episodes(of_kind("best_of_both", [ours, theirs], partners(ours, theirs)), played.data())
    assert [leg["market_id"] for leg in json.loads(row["legs"])] == ["PA", "KB", "KC"]
    assert (row["net"], json.loads(row["reasons"])) == (2, [])


def test_a_gap_of_one_leg_makes_the_basket_unknown() -> None:
    played = tape(asks=("0.30", "0.30", "0.30")).gap("kalshi", 40, 45, market_id="KB")
    rows = episodes(of_kind("yes_basket", [event("kalshi")]), played.data())
    assert spans(rows) == [
        (when(1), when(40), []),
        (when(40), when(45), ["not_in_sync:kalshi"]),
        (when(45), None, []),
    ]
    assert (rows[0]["end_reason"], rows[2]["end_reason"]) == ("unknown", "right_censored")


def test_a_leg_without_a_book_is_no_bargain() -> None:
    played = Tape().session("kalshi")
    for name in ("KA", "KB"):
        played.snapshot("kalshi", 1, [("0.60", "10")], [("0.61", "10")], market_id=name)
    assert not episodes(of_kind("yes_basket", [event("kalshi")]), played.data())
    (row,) = episodes(of_kind("no_basket", [event("kalshi")]), played.data())
    assert (row["payout"], row["net"], json.loads(row["reasons"])) == (1, 10 * D("0.2"), []), "two of three pay once"


def test_a_basket_of_no_does_without_a_book_that_is_not_to_be_trusted() -> None:
    played = bids(("KA", "0.55", "10"), ("KB", "0.52", "10"), ("KC", "0.10", "10"))
    played.gap("kalshi", 20, 30, market_id="KC").gap("kalshi", 40, 50, market_id="KA")
    rows = episodes(of_kind("no_basket", [event("kalshi")]), played.data())
    assert spans(rows) == [
        (when(1), when(40), []),
        (when(40), when(50), ["not_in_sync:kalshi"]),
        (when(50), None, []),
    ], "without KC two pay once and leave 0.07; without KA nothing is left"
    assert rows[0]["end_reason"] == "unknown"
    assert rows[0]["time_weighted_edge"] == round((29 * D("0.17") + 10 * D("0.07")) / 39, 10)


def test_a_basket_of_no_does_not_depend_on_the_hour_in_which_an_outcome_closed() -> None:
    """What has closed is captured no more: of the next hour nothing is known of it but that it closed."""
    closes = market("kalshi", "KC", event_id="KE", close_at=START + timedelta(seconds=100))
    baskets = of_kind("no_basket", [event("kalshi", outcomes=(*event("kalshi").outcomes[:2], closes))])
    made = bids(("KA", "0.55", "10"), ("KB", "0.52", "10"), ("KC", "0.10", "10"))
    for name, bid in (("KA", "0.55"), ("KB", "0.52")):
        made.snapshot("kalshi", 3600, [(bid, "10")], [], market_id=name, quote=False)
    data, last = made.data(), START + timedelta(hours=2)
    pieces = [
        evaluate_baskets(baskets, only(data, *cut), *cut, settings(), free).pieces
        for cut in ((START, END), (END, last))
    ]
    apart = joined(pa.concat_tables(pieces), last, settings(), BASKET_EPISODES).to_pylist()
    assert apart == episodes(baskets, data, (START, last))
    assert spans(apart) == [(when(1), None, [])]


@pytest.mark.parametrize(("dust", "least"), [("1", 1_000_000), ("1", 5_000_000), ("99", 1_000_000)])
def test_the_thinnest_outcomes_of_a_basket_of_no_are_left_out_if_more_is_earned_without(dust: str, least: int) -> None:
    markets = tuple(market("kalshi", f"K{name}", event_id="KE", min_size=least) for name in "ABCD")
    played = bids(("KA", "0.50", "100"), ("KB", "0.45", "100"), ("KC", "0.40", "100"), ("KD", "0.01", dust))
    (row,) = episodes(of_kind("no_basket", [event("kalshi", outcomes=markets)]), played.data())
    whole = dust == "99"
    assert (row["payout"], row["size"]) == ((3, 99) if whole else (2, 100))
    assert row["net"] == (99 * D("0.36") if whole else 35)
    assert json.loads(row["reasons"]) == []


BIDS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 12)), min_size=3, max_size=5)


@hypothesis_settings(max_examples=40, deadline=None)
@given(BIDS, st.integers(1, 4))
def test_no_subset_of_a_basket_of_no_earns_more(drawn: list[tuple[int, int]], least: int) -> None:
    names = "ABCDE"[: len(drawn)]
    markets = tuple(market("kalshi", f"K{name}", event_id="KE", min_size=least * 1_000_000) for name in names)
    played = bids(
        *((f"K{name}", f"{bid / 100:.2f}", str(size)) for name, (bid, size) in zip(names, drawn, strict=True))
    )
    found = episodes(of_kind("no_basket", [event("kalshi", outcomes=markets)]), played.data(), fees=quadratic)
    legs = [
        Leg(name, "kalshi", ((1 - D(bid) / 100, D(size)),), Fees(D("0.07")), min_size=D(least))
        for name, (bid, size) in zip(names, drawn, strict=True)
    ]
    nets = [
        best.net
        for count in range(2, len(legs) + 1)
        for chosen in combinations(legs, count)
        if (best := optimise(chosen, D(count - 1)).best) is not None
    ]
    assert max([D(0), *(row["net"] for row in found if row["accepted"])]) == max([D(0), *nets])


def test_a_crossed_book_is_a_fault_of_the_data() -> None:
    """YES at 0.34 and NO at 0.60 would cost 0.94, but no matching engine leaves such a book standing."""
    played = tape(asks=("0.34", "0.34", "0.34"))
    ask(played, 10, "KA", ("0.40", "5"), side="bid")
    ask(played, 12, "KA", ("0.40", "0"), side="bid")
    found = evaluate_baskets(baskets_of([event("kalshi")], []), played.data(), START, END, settings(), free)
    assert found.crossed == {"kalshi": 1}
    assert found.pieces.num_rows == 0


def test_an_outcome_that_does_not_trade_is_no_basket_of_yes() -> None:
    paused = market("kalshi", "KC", event_id="KE", status=MarketStatus.PAUSED)
    of = event("kalshi", outcomes=(*event("kalshi").outcomes[:2], paused))
    (row,) = episodes(of_kind("yes_basket", [of]), tape(asks=("0.30", "0.30", "0.30")).data())
    assert json.loads(row["reasons"]) == ["market_not_open:kalshi"]


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(ValueError, match="is empty"):
        evaluate_baskets([], MarketData(), START, START, settings(), free)


# --- against a plain reference ---------------------------------------------------------------------------------

MOVES = st.lists(
    st.tuples(
        st.sampled_from(("KA", "KB", "KC", "PA", "PB", "PC", "gap")),
        st.sampled_from(("0.20", "0.30", "0.33", "0.36", "0.45")),
        st.sampled_from(("0", "3", "10")),
    ),
    max_size=14,
)
SETS = event("kalshi"), event("polymarket")
PAIRS = partners(*SETS)
RULES = EdgeRules(merge_ns=500_000_000)


def played(moves: Sequence[tuple[str, str, str]]) -> Tape:
    made = both(tape(), asks=("0.45", "0.45", "0.45"))
    for number, (name, price, size) in enumerate(moves, 1):
        if name == "gap":
            made.gap("kalshi", number * 10, number * 10 + 4, market_id="KB")
        else:
            made.change("kalshi" if name[0] == "K" else "polymarket", number * 10, "ask", price, size, market_id=name)
    return made


def plainly(moves: Sequence[tuple[str, str, str]]) -> list[tuple[int, int]]:
    """Accepted spans of the basket of YES on Kalshi: books as dicts, every change priced."""
    asks = {name: {"0.40": "10"} for name in ("KA", "KB", "KC")}
    fees = Fees(D("0.07"))

    def edge() -> Decimal:
        ladders = [sorted((D(p), D(s)) for p, s in book.items() if s != "0") for book in asks.values()]
        if not all(ladders):
            return D(0)
        best = optimise([Leg("", "kalshi", tuple(ladder), fees) for ladder in ladders]).best
        return D(0) if best is None or best.net <= 0 else best.net_edge

    steps = [(at(1), edge(), False)]
    for number, (name, price, size) in enumerate(moves, 1):
        if name == "gap":
            steps += [(at(number * 10), steps[-1][1], True), (at(number * 10 + 4), steps[-1][1], False)]
        elif name[0] == "K":
            asks[name][price] = size
            steps.append((at(number * 10), edge(), False))
    told = [EdgeStep(time, None if doubt else value, D(0), D(0), None) for time, value, doubt in steps]
    return [(one.opened_ns, one.closed_ns) for one in edge_episodes(told, at(0), at(3600), RULES)]


@hypothesis_settings(max_examples=40, deadline=None)
@given(MOVES)
def test_spans_are_those_of_a_plain_reference(moves: list[tuple[str, str, str]]) -> None:
    data = played(moves).data()
    rows = episodes(of_kind("yes_basket", [SETS[0]]), data, fees=quadratic)
    accepted = [row for row in rows if row["accepted"]]
    assert [(row["opened_at"], row["closed_at"]) for row in accepted] == [
        (when((opened - at(0)) / 1e9), None if closed == at(3600) else when((closed - at(0)) / 1e9))
        for opened, closed in plainly(moves)
    ]


@hypothesis_settings(max_examples=25, deadline=None)
@given(MOVES, st.lists(st.integers(1, 180), max_size=4))
def test_episodes_do_not_depend_on_how_time_is_cut(moves: list[tuple[str, str, str]], cuts: list[int]) -> None:
    data = played(moves).data()
    baskets = list(baskets_of(SETS, PAIRS))
    inner = [START + timedelta(seconds=second + 0.5) for second in sorted(set(cuts))]
    assert episodes(baskets, data, [START, *inner, END], quadratic) == episodes(baskets, data, fees=quadratic)


@hypothesis_settings(max_examples=25, deadline=None)
@given(MOVES, st.integers(1, 14))
def test_what_comes_later_changes_nothing_before(moves: list[tuple[str, str, str]], kept: int) -> None:
    baskets, cut = list(baskets_of(SETS, PAIRS)), START + timedelta(seconds=kept * 10 + 4)
    seen = [
        evaluate_baskets(baskets, played(some).data(), START, cut, settings(), quadratic).pieces
        for some in (moves, moves[:kept])
    ]
    assert seen[0].equals(seen[1])
