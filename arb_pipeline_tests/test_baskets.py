"""Baskets from the catalogue to the tables, over hours in any order."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow.compute as pc
import pytest
import yaml
from msgspec.structs import replace

from arb_pipeline.baskets import load_outcome_sets
from arb_pipeline.clock import Clock, ns_from_datetime
from arb_pipeline.model import Event, Market, MarketStatus, rules_digest
from arb_pipeline.pipeline import evaluate_baskets, match_markets
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.history import record_changes, record_markets
from arb_pipeline.storage.lake import Partition
from arb_pipeline_tests.arbitrage.builders import START, Tape, market, when

D = Decimal
HOUR = timedelta(hours=1)
HOURS = [START + number * HOUR for number in range(3)]
SEEN = START - timedelta(hours=2)
ANSWERS = ("67° or below", "68° to 69°", "70° or above")
FEES = {"kalshi": {"fee_type": "quadratic", "fee_multiplier": 1}, "polymarket": {"feesEnabled": False}}
RULES = "Resolves by the National Weather Service's report. If it is cancelled, both sides are paid half."


class At(Settings):
    """Settings whose clock stands still."""

    now_ns: int

    @property
    def clock(self) -> Clock:
        """The time that was set."""
        return Clock(source=lambda: self.now_ns)


def ident(venue: str, number: int) -> str:
    return f"KXHIGH-{number}" if venue == "kalshi" else f"0x{number:064x}"


def event(venue: str, answers: Iterable[str] = ANSWERS) -> Event:
    markets = tuple(
        market(
            venue,
            ident(venue, number),
            event_id=f"{venue}-high",
            title=f"Will the high temp in Oslo be {answer} on Jul 20, 2026?",
            yes_title=answer,
            rules=RULES,
            rules_sha256=rules_digest(RULES),
            fee_params=FEES[venue],
        )
        for number, answer in enumerate(answers)
    )
    return Event(
        venue=venue, event_id=f"{venue}-high", title="High temp in Oslo on Jul 20, 2026?", mutually_exclusive=True,
        markets=markets, listed_markets=len(markets),
    )  # fmt: skip


def decisions() -> str:
    """A person's approval of all three pairs."""
    return yaml.safe_dump(
        [
            {
                "kalshi": ident("kalshi", number),
                "polymarket": {"condition_id": ident("polymarket", number)},
                "verdict": "equivalent",
                "rules_sha256": dict.fromkeys(("kalshi", "polymarket"), rules_digest(RULES)),
                "void_states": {"cancelled": {"kalshi": "0.5", "polymarket": "0.5"}},
                "by": "analyst",
                "at": "2026-07-01",
            }
            for number in range(3)
        ]
    )


def played() -> Tape:
    """On both venues a YES of every outcome costs more than a dollar; the cheaper ones together 0.86 for an hour."""
    tape = Tape().session("kalshi").session("polymarket")
    asks = {"kalshi": ["0.30", "0.60", "0.20"], "polymarket": ["0.45", "0.55", "0.30"]}
    for hour in range(3):
        for venue, prices in asks.items():
            for number, price in enumerate(prices):
                levels = [(price, "100")]
                if venue == "polymarket" and number == 1 and hour == 1:
                    levels = [("0.36", "100"), *levels]
                tape.snapshot(venue, hour * 3600, [], levels, market_id=ident(venue, number), quote=hour == 0)
        if hour == 0:
            tape.change("polymarket", 600, "ask", "0.36", "100", market_id=ident("polymarket", 1))
        if hour == 1:
            tape.change("polymarket", 4500, "ask", "0.36", "0", market_id=ident("polymarket", 1))
    return tape


def put(lake: Lake, tape: Tape) -> None:
    data = tape.data()
    for venue in ("kalshi", "polymarket"):
        for hour in HOURS:
            begin, end = ns_from_datetime(hour), ns_from_datetime(hour + HOUR)
            for name, rows in (("quotes", data.quotes), ("book_events", data.book_events)):
                at = rows["recv_ns"]
                mine = pc.and_(pc.equal(rows["venue"], venue), pc.and_(pc.greater_equal(at, begin), pc.less(at, end)))
                lake.replace(name, Partition.of(name, venue, hour), rows.filter(mine))
        of_venue = data.capture_sessions.filter(pc.equal(data.capture_sessions["venue"], venue))
        lake.replace("capture_sessions", Partition.of("capture_sessions", venue, START), of_venue)


@dataclass(frozen=True)
class Made:
    """A lake with both catalogues, what a person said of the pairs, and three captured hours."""

    lake: Lake
    matches_path: Path

    def settings(self, now: datetime) -> At:
        """The settings at a time."""
        return At(now_ns=ns_from_datetime(now), lake=self.lake.root, matches_path=self.matches_path)

    def match(self, at: datetime) -> None:
        """Pair what is listed."""
        match_markets(self.settings(at), self.lake)

    def list(self, venue: str, listed: Event, at: datetime) -> None:
        """A venue's listing."""
        write_catalogue(self.lake, venue, [listed], at)
        record_changes(self.lake, venue, at)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return made_in(tmp_path)


def made_in(folder: Path) -> Made:
    """Both catalogues listed and matched, three hours captured."""
    made = Made(Lake(str(folder / "lake")), folder / "matches.yaml")
    made.matches_path.write_text(decisions())
    for venue in ("kalshi", "polymarket"):
        made.list(venue, event(venue), SEEN)
    made.match(SEEN)
    put(made.lake, played())
    return made


def test_the_matching_step_writes_what_is_known_of_events(made: Made) -> None:
    sets = made.lake.read("outcome_sets").to_pylist()
    assert [
        (row["venue"], row["exclusive"], row["exhaustive"], row["partner_event_id"], row["paired"]) for row in sets
    ] == [
        ("kalshi", True, True, "polymarket-high", 3),
        ("polymarket", True, True, "kalshi-high", 3),
    ]
    made.match(SEEN + timedelta(minutes=5))
    assert made.lake.read("outcome_sets").num_rows == 2


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2, 1)])
def test_a_planted_basket_is_found_with_its_exact_times_and_money(made: Made, order: tuple[int, ...]) -> None:
    for hour in order:
        found = evaluate_baskets(made.settings(HOURS[2] + HOUR), made.lake, HOURS[hour])
        assert (found.sets, found.exclusive, found.exhaustive, found.baskets) == (2, 2, 2, 5)
    (row,) = made.lake.read("basket_opportunities").to_pylist()
    assert (row["kind"], row["event_id"], row["partner_event_id"]) == ("best_of_both", "kalshi-high", "polymarket-high")
    assert (row["opened_at"], row["closed_at"], row["end_reason"]) == (when(600), when(4500), "edge")
    assert (row["accepted"], row["left_censored"], row["active_ns"]) == (True, False, 3_900_000_000_000)
    # Kalshi charges 0.07 x 100 x 0.30 x 0.70 and 0.07 x 100 x 0.20 x 0.80, Polymarket nothing here.
    assert (row["size"], row["gross"], row["fees"]) == (100, D("14"), D("1.47") + D("1.12"))
    assert (row["net"], row["capital"], row["payout"]) == (D("11.41"), D("88.59"), 1)
    assert row["worst_state_net"] == D("11.41"), "cancelled pays 1.50"
    assert (row["peak_edge"], row["time_weighted_edge"]) == (D("0.1141"), D("0.1141"))
    assert row["roi"] == pytest.approx(11.41 / 88.59)
    assert [(leg["venue"], leg["outcome"], leg["limit"], leg["fee"]) for leg in json.loads(row["legs"])] == [
        ("kalshi", "yes", "0.3", "1.47"), ("polymarket", "yes", "0.36", "0"), ("kalshi", "yes", "0.2", "1.12"),
    ]  # fmt: skip
    counted = [(one["guard"], one["stopped"]) for one in evaluate_baskets(
        made.settings(HOURS[2] + HOUR), made.lake, HOURS[0]
    ).funnel.to_pylist()]  # fmt: skip
    assert counted[-1] == ("arbitrage", 0)


def test_memory_for_one_basket_at_a_time_gives_the_same(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate_baskets(made.settings(HOURS[1]), made.lake, START)
    monkeypatch.setattr("arb_pipeline.baskets.ROWS_AT_ONCE", 1)
    assert evaluate_baskets(made.settings(HOURS[1]), made.lake, START) == whole
    assert whole.basket_pieces.num_rows == 1


def test_a_connection_that_pushes_to_another_baskets_markets_is_no_polled_one(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first event all that came was asked for to resync: alone it seems polled, and stale seconds later."""
    high = event("kalshi")
    low = replace(
        high,
        event_id="kalshi-low",
        markets=tuple(
            replace(one, market_id=f"KXLOW-{number}", event_id="kalshi-low") for number, one in enumerate(high.markets)
        ),
    )
    write_catalogue(made.lake, "kalshi", [high, low], HOURS[0])
    made.match(HOURS[0])
    tape = Tape().session("kalshi")
    for number, prices in enumerate((("0.25", "0.60"), ("0.30", "0.60"), ("0.20", "0.60"))):
        for (name, source), price in zip((("HIGH", "rest"), ("LOW", "ws")), prices, strict=True):
            tape.snapshot("kalshi", 10, [], [(price, "100")], market_id=f"KX{name}-{number}", source=source)
    put(made.lake, tape)
    monkeypatch.setattr("arb_pipeline.baskets.ROWS_AT_ONCE", 1)
    rows = evaluate_baskets(made.settings(HOURS[1]), made.lake, START).basket_opportunities.to_pylist()
    told = [row for row in rows if (row["kind"], row["event_id"]) == ("yes_basket", "kalshi-high")]
    assert [(row["opened_at"], row["closed_at"], row["reasons"]) for row in told] == [(when(10), None, "[]")]


def test_an_hour_that_lasts_is_evaluated_as_far_as_it_has_gone(made: Made) -> None:
    found = evaluate_baskets(made.settings(START + timedelta(minutes=30)), made.lake, START)
    (row,) = found.basket_opportunities.to_pylist()
    assert (row["closed_at"], row["active_ns"]) == (None, 1_200_000_000_000)
    with pytest.raises(ValueError, match="has not begun"):
        evaluate_baskets(made.settings(START), made.lake, START)


def settled(number: int, result: str = "no") -> Market:
    return replace(event("kalshi").markets[number], status=MarketStatus.SETTLED, result=result)


def names(made: Made, hour: datetime) -> tuple[list[str], tuple[str, ...], str]:
    (ours,) = (one for one in load_outcome_sets(made.lake, hour) if one.venue == "kalshi")
    return [market.market_id for market in ours.outcomes], ours.missing, ours.doubt


def test_an_outcome_that_was_settled_no_is_one_no_more_from_then_on(made: Made) -> None:
    record_markets(made.lake, "kalshi", [settled(0)], HOURS[1] + timedelta(minutes=1))
    assert names(made, HOURS[1]) == (["KXHIGH-0", "KXHIGH-1", "KXHIGH-2"], (), "")
    assert names(made, HOURS[2]) == (["KXHIGH-1", "KXHIGH-2"], (), "")


def test_an_outcome_that_nobody_lists_any_more_leaves_nothing_proven(made: Made) -> None:
    left = event("kalshi")
    made.list("kalshi", replace(left, markets=left.markets[:2], listed_markets=2), HOURS[0])
    assert names(made, HOURS[1]) == (["KXHIGH-0", "KXHIGH-1"], ("KXHIGH-2",), "KXHIGH-2 is not listed")
    made.match(HOURS[0] + timedelta(minutes=1))
    assert names(made, HOURS[0]) == (["KXHIGH-0", "KXHIGH-1"], (), "a tail is not listed")
