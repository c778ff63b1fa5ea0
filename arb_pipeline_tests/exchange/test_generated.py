import json
from collections import Counter
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import pytest

from arb_pipeline.exchange import GeneratedSource
from arb_pipeline.exchange.planted import PHANTOMS
from arb_pipeline.exchange.source import LevelChange
from arb_pipeline.exchange.truth import best_trade, direction_ladders
from arb_pipeline.model import OrderBook
from arb_pipeline.units import ONE
from arb_pipeline_tests.exchange.conftest import TODAY

SECONDS = 60
RATE = 100.0
DIRECTIONS = ("yes_kalshi", "yes_polymarket")
IMPLIED = {"kalshi_implies_polymarket": "yes_polymarket", "polymarket_implies_kalshi": "yes_kalshi"}


@pytest.fixture(scope="module")
def source() -> GeneratedSource:
    return GeneratedSource(7, duration_s=SECONDS, today=TODAY, rate=RATE)


def mirrored(book: OrderBook) -> OrderBook:
    turned = OrderBook()
    turned.replace(
        [(ONE - price, size) for price, size in book.asks.items()],
        [(ONE - price, size) for price, size in book.bids.items()],
    )
    return turned


class Market:
    """All books of a source, moved by its timeline, and what each pair pays."""

    def __init__(self, source: GeneratedSource) -> None:
        self.books: dict[str, OrderBook] = {}
        for market_id, initial in source.books().items():
            self.books[market_id] = OrderBook()
            self.books[market_id].replace(initial.bids, initial.asks)
        series = {one["ticker"]: Fraction(str(one["fee_multiplier"])) for one in source.kalshi_series()}
        self.multiplier = {
            market["ticker"]: series[event["series_ticker"]]
            for event in source.kalshi_events()
            for market in event["markets"]
        }
        self.rate = {
            market["conditionId"]: Fraction(str(market["feeSchedule"]["rate"]))
            for event in source.polymarket_events()
            for market in event["markets"]
        }

    def pays(self, pair: dict[str, Any], direction: str) -> tuple[Fraction, Fraction]:
        """(net of the best trade, gap of the best prices) in dollars."""
        ours = self.books[pair["kalshi_market_id"]]
        theirs = self.books[pair["polymarket_market_id"]]
        if pair["relation"] == "inverted":
            theirs = mirrored(theirs)
        ladders = direction_ladders(ours, theirs, direction)
        paid = best_trade(*ladders, self.multiplier[pair["kalshi_market_id"]], self.rate[pair["polymarket_market_id"]])
        gap = ONE - ladders[0][0][0] - ladders[1][0][0] if all(ladders) else -ONE
        return paid.net, Fraction(gap, ONE)


def test_same_seed_and_day_give_the_same_market(source: GeneratedSource) -> None:
    twin = GeneratedSource(7, duration_s=SECONDS, today=TODAY, rate=RATE)
    assert list(twin.timeline()) == list(source.timeline()) == list(source.timeline())
    assert twin.books() == source.books()
    assert twin.kalshi_events() == source.kalshi_events()
    assert twin.polymarket_events() == source.polymarket_events()
    assert twin.truth() == source.truth()


def test_another_seed_gives_another_market(source: GeneratedSource) -> None:
    other = GeneratedSource(8, duration_s=5, today=TODAY)
    assert other.books() != source.books()
    assert other.kalshi_events() != source.kalshi_events()


@pytest.mark.parametrize("today", [date(2026, 2, 28), date(2026, 12, 31), date(2028, 2, 29)])
def test_all_markets_are_open_and_distinct_on_any_day(today: date) -> None:
    source = GeneratedSource(3, duration_s=1, today=today)
    soon = (today + timedelta(days=7)).isoformat()
    kalshi = [market for event in source.kalshi_events() for market in event["markets"]]
    polymarket = [market for event in source.polymarket_events() for market in event["markets"]]
    assert all(market["close_time"] > soon for market in kalshi)
    assert all(market["endDate"] > soon for market in polymarket)
    assert len({market["ticker"] for market in kalshi}) == len(kalshi)
    assert len({market["slug"] for market in polymarket}) == len(polymarket)
    tokens = [token for market in polymarket for token in json.loads(market["clobTokenIds"])]
    assert len(set(tokens)) == 2 * len(polymarket)
    assert len({event["id"] for event in source.polymarket_events()}) == len(source.polymarket_events())


def test_there_is_enough_of_everything(source: GeneratedSource) -> None:
    truth = source.truth()
    assert len(source.kalshi_events()) >= 60
    assert len(source.polymarket_events()) >= 60
    for events in (source.kalshi_events(), source.polymarket_events()):
        assert 150 <= sum(len(event["markets"]) for event in events) <= 300
    relations = Counter(pair["relation"] for pair in truth["pairs"])
    assert relations["equivalent"] >= 40
    assert relations["inverted"] >= 4
    assert len(truth["near_misses"]) >= 25
    assert len({miss["trap"] for miss in truth["near_misses"]}) >= 15
    early = [episode for episode in truth["episodes"] if episode["closed_ns"] < 46e9]
    assert len(early) >= 6
    assert {episode["direction"] for episode in early} == set(DIRECTIONS)
    assert {episode["opening"]["venue"] for episode in early} == {"kalshi", "polymarket"}
    assert any(episode["relation"] == "inverted" for episode in early)
    assert all(2e9 <= episode["closed_ns"] - episode["opened_ns"] <= 12e9 for episode in truth["episodes"])
    # One is past its close only where it is known when playback will start.
    assert {phantom["kind"] for phantom in truth["phantoms"]} == set(PHANTOMS) - {"post_close"}
    assert any(episode["kind"] == "implication" for episode in early)
    for phantom in truth["phantoms"]:
        assert phantom["guards"] == list(PHANTOMS[phantom["kind"]].guards)
        assert phantom["reason"].startswith(PHANTOMS[phantom["kind"]].words)


def test_more_events_can_be_had() -> None:
    source = GeneratedSource(7, events=80, duration_s=1, today=TODAY)
    assert len(source.kalshi_events()) >= 80
    assert len(source.polymarket_events()) >= 80


def test_pairs_and_near_misses_name_real_markets_and_never_the_same_two(source: GeneratedSource) -> None:
    truth = source.truth()
    kalshi = {market["ticker"] for event in source.kalshi_events() for market in event["markets"]}
    polymarket = {market["conditionId"] for event in source.polymarket_events() for market in event["markets"]}
    pairs = {(pair["kalshi_market_id"], pair["polymarket_market_id"]) for pair in truth["pairs"]}
    misses = {(miss["kalshi_market_id"], miss["polymarket_market_id"]) for miss in truth["near_misses"]}
    assert not pairs & misses
    for ours, theirs in pairs | misses:
        assert ours in kalshi
        assert theirs in polymarket
    assert len({ours for ours, _ in pairs}) == len({theirs for _, theirs in pairs}) == len(pairs)


def test_titles_and_rules_of_a_pair_differ(source: GeneratedSource) -> None:
    kalshi = {market["ticker"]: market for event in source.kalshi_events() for market in event["markets"]}
    polymarket = {market["conditionId"]: market for event in source.polymarket_events() for market in event["markets"]}
    for pair in source.truth()["pairs"]:
        ours, theirs = kalshi[pair["kalshi_market_id"]], polymarket[pair["polymarket_market_id"]]
        assert ours["title"] != theirs["question"]
        assert ours["rules_primary"]
        assert ours["rules_primary"] not in theirs["description"]
        outcomes = json.loads(theirs["outcomes"])
        if outcomes not in (["Yes", "No"], ["Over", "Under"]) and pair["relation"] == "inverted":
            assert ours["yes_sub_title"] not in theirs["question"]


def test_books_are_two_sided_deep_on_their_grids_and_never_cross(source: GeneratedSource) -> None:
    market = Market(source)
    ticks: dict[str, list[tuple[int, int, int]]] = {}
    for event in source.kalshi_events():
        for record in event["markets"]:
            ticks[record["ticker"]] = [
                tuple(round(float(band[key]) * ONE) for key in ("start", "end", "step"))  # type: ignore[misc]
                for band in record["price_ranges"]
            ]
    for event in source.polymarket_events():
        for record in event["markets"]:
            ticks[record["conditionId"]] = [(0, ONE, round(record["orderPriceMinTickSize"] * ONE))]
    for market_id, book in market.books.items():
        assert book.bids, market_id
        assert book.asks, market_id
        assert len(book.bids) + len(book.asks) >= 10, market_id
    last = 0
    for at, action in source.timeline():
        assert at >= last
        last = at
        if isinstance(action, LevelChange):
            book = market.books[action.market_id]
            assert 0 < action.price < ONE
            assert any(
                start <= action.price <= end and (action.price - start) % step == 0
                for start, end, step in ticks[action.market_id]
            ), action
            assert action.size >= 0
            assert action.size % 10_000 == 0
            book.set(action.side, action.price, action.size)
            assert not book.crossed
            assert book.bids
            assert book.asks
            assert len(book.bids) <= 40


def test_no_pair_pays_but_in_a_planted_episode_and_there_as_told(source: GeneratedSource) -> None:
    """Brute force over every change: whatever pays is planted, and whatever is planted pays all the time."""
    truth = source.truth()
    market = Market(source)
    planted = {one["id"]: one for one in (*truth["episodes"], *truth["phantoms"]) if "id" in one}
    running: set[str] = set()
    opened: set[str] = set()
    pairs: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for pair in (*truth["pairs"], *truth["implied"]):
        ways = DIRECTIONS if pair["relation"] not in IMPLIED else (IMPLIED[pair["relation"]],)
        for name in ("kalshi_market_id", "polymarket_market_id"):
            pairs.setdefault(pair[name], []).extend((pair, direction) for direction in ways)
    for pair, direction in (one for of_market in pairs.values() for one in of_market):
        assert market.pays(pair, direction)[1] <= Fraction(-1, 100)
    for at, action in source.timeline():
        if not isinstance(action, LevelChange):
            continue
        market.books[action.market_id].set(action.side, action.price, action.size)
        if action.mark:
            name, _, what = action.mark.partition(":")
            (running.add if what == "open" else running.discard)(name)
            opened.add(name)
        for pair, direction in pairs.get(action.market_id, ()):
            net, gap = market.pays(pair, direction)
            own = [planted[name] for name in running if is_planted_in(planted[name], pair, direction)]
            if not own:
                assert gap <= Fraction(-1, 100), (pair, direction, at)
                continue
            told = Fraction(own[0]["net"])
            assert gap > 0
            assert (net > 0) == (told > 0)
            assert net <= told or net < 0
            assert net == told or at != own[0]["peak_ns"]
    for episode in truth["episodes"]:
        assert episode["id"] in opened
        assert Fraction(episode["net"]) == Fraction(episode["gross"]) - Fraction(episode["fees"]) >= 2
    assert set(planted) <= opened


def is_planted_in(planted: dict[str, Any], pair: dict[str, Any], direction: str) -> bool:
    names = ("kalshi_market_id", "polymarket_market_id")
    return planted["direction"] == direction and all(planted[name] == pair[name] for name in names)


def test_false_gaps_would_pay_if_only_the_two_were_the_same(source: GeneratedSource) -> None:
    market = Market(source)
    false = [phantom for phantom in source.truth()["phantoms"] if phantom["reason"].startswith("not equivalent")]
    assert len(false) >= 3
    for phantom in false:
        pair = {**phantom, "relation": "equivalent"}
        assert market.pays(pair, phantom["direction"])[0] > 0


def test_the_rate_is_kept_and_venues_share_it(source: GeneratedSource) -> None:
    changes = [action for _, action in source.timeline() if isinstance(action, LevelChange)]
    assert 0.8 * RATE * SECONDS < len(changes) < 1.2 * RATE * SECONDS
    venues = Counter(action.market_id[:2] for action in changes)
    assert min(venues["KX"], venues["0x"]) > 0.2 * len(changes)


def test_without_a_duration_episodes_go_on() -> None:
    source = GeneratedSource(7, today=TODAY)
    before = len(source.truth()["episodes"])
    for at, _ in source.timeline():
        if at > 150e9:
            break
    truth = source.truth()
    assert len(truth["episodes"]) >= before + 2
    assert max(episode["opened_ns"] for episode in truth["episodes"]) > 90e9


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="rate"):
        GeneratedSource(rate=0)
