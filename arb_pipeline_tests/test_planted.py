"""What the generated market plants is found to the microsecond and the cent, and nothing else is.

The exchange's frames go through replay, matching and evaluation as captured ones do. What must come of them is worked
out here from the changes of the books alone, in plain fractions.
"""

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final

import pytest

from arb_pipeline.capture.replay import replay
from arb_pipeline.clock import Clock, datetime_from_ns, ns_from_datetime
from arb_pipeline.demo import compare, decide
from arb_pipeline.exchange import GeneratedSource, start
from arb_pipeline.exchange.planted import PHANTOMS
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.exchange.truth import Paid, best_trade, direction_ladders, kalshi_fee, polymarket_fee
from arb_pipeline.model import Level, OrderBook
from arb_pipeline.pipeline import discover, evaluate_hour, match_markets
from arb_pipeline.recordings import Recording, write_recording
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake
from arb_pipeline.units import ONE, PRICE_SCALE, SIZE_SCALE
from arb_pipeline_tests.exchange.offline import LATENCY_NS, Played, Trouble, play
from arb_pipeline_tests.exchange.test_generated import mirrored

START: Final = datetime(2026, 11, 21, 13, 59, 40, tzinfo=UTC)
"""Twenty seconds before an hour that an episode lasts over."""
SECONDS: Final = 52.0
"""The last episode is still there when the recording ends."""
TROUBLES: Final = {"episode-5": "gap", "episode-4": "hash", "episode-7": "down", "episode-6": "stale"}
DOUBTS: Final = {
    "gap": "not_in_sync:kalshi",
    "hash": "not_in_sync:polymarket",
    "down": "connection_down:polymarket",
    "stale": "stale_leg:kalshi",
}
REASONS: Final = {
    "fee_eaten": "fee_eaten",
    "below_min_size": "below_min_size",
    "mirrored_liquidity": "below_min_size",
    "burst": "burst",
    "in_review": "match_status:review",
    "void_mismatch": "worst_state",
    "post_close": "after_close:kalshi",
}
HOUR: Final = timedelta(hours=1)
_SECOND: Final = 1_000_000_000
FIGURES: Final = ("size", "gross", "fees", "net", "peak_edge", "time_weighted_edge")


Row = dict[str, Any]
Planted = Mapping[str, Any]


class At(Settings):
    """Settings whose clock stands still."""

    now_ns: int

    @property
    def clock(self) -> Clock:
        """The time that was set."""
        return Clock(source=lambda: self.now_ns)


@dataclass(frozen=True)
class Market:
    """The generated market, what was played of it, and a lake that knows its catalogue and its pairs."""

    source: GeneratedSource
    played: Played
    fields: dict[str, Any]
    folder: Path
    end_ns: int

    def settings(self, name: str, now_ns: int) -> At:
        return At(**{**self.fields, "lake": str(self.folder / name), "now_ns": now_ns})

    def evaluated(self, name: str, until_ns: int) -> tuple[Settings, list[Row]]:
        """A lake with what was received up to a time, and its opportunities."""
        settings = self.settings(name, until_ns)
        shutil.copytree(self.folder / "base", settings.lake)
        lake = Lake(settings.lake, settings.exchange_name)
        frames = self.played.received(until_ns)
        events = {"kalshi": self.source.kalshi_events(), "polymarket": self.source.polymarket_events()}
        recording = self.folder / f"{name}.recording"
        write_recording(recording, events, frames, {"venues": ["kalshi", "polymarket"], "exchange": True})
        replay(Recording.open(recording), lake, settings)
        self.played.write_polled(lake, until_ns)
        hour = START.replace(minute=0, second=0)
        while ns_from_datetime(hour) < until_ns:
            evaluate_hour(settings, lake, hour)
            hour += HOUR
        return settings, lake.read("opportunities").to_pylist()


async def known(fields: dict[str, Any], source: GeneratedSource, key: ThrowAwayKey, lake: str) -> dict[str, Any]:
    """List both venues' catalogues and decide on their pairs, as a demo does; the settings that it takes."""
    async with await start(source, key=key) as exchange:
        told = {name.removeprefix("ARB_").lower(): value for name, value in exchange.environment().items()}
        fields = {**fields, **told, "http_requests_per_s": 1_000.0}
        settings = At(**{**fields, "lake": lake, "now_ns": ns_from_datetime(START) - 60 * _SECOND})
        for venue in ("kalshi", "polymarket"):
            await discover(venue, settings, Lake(lake, settings.exchange_name))
        decide(settings, exchange.truth())
        later = settings.model_copy(update={"now_ns": settings.now_ns + _SECOND})
        match_markets(later, Lake(lake, settings.exchange_name))
    return fields


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    folder, key = tmp_path_factory.mktemp("planted"), ThrowAwayKey()
    source = GeneratedSource(7, duration_s=SECONDS, today=START.date(), rate=80.0, starts_at=START)
    planted = {one["id"]: one for one in source.truth()["episodes"]}
    troubles = []
    for name, kind in TROUBLES.items():
        venue = "polymarket" if kind == "hash" else "kalshi"
        own = planted[name]["polymarket_market_id" if kind in {"hash", "down"} else "kalshi_market_id"]
        assert (planted[name]["opening"]["venue"] == venue) == (kind != "stale")
        troubles.append(Trouble(kind, own, planted[name]["opened_ns"], planted[name]["closed_ns"]))
    fields = {"_env_file": None, "matches_path": folder / "matches.yaml"}
    fields = asyncio.run(known(fields, source, key, str(folder / "base")))
    played = play(source, START, troubles, key)
    return Market(source, played, fields, folder, played.end_ns // 1_000 * 1_000)


@pytest.fixture(scope="module")
def whole(market: Market) -> tuple[Settings, list[Row]]:
    return market.evaluated("whole", market.end_ns)


# --- what must come of it --------------------------------------------------------------------------------------


class Oracle:
    """Works out the opportunity of a planted order from the changes of the two books alone."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._books = market.source.books()
        events = market.source.kalshi_events()
        series = {one["ticker"]: Fraction(str(one["fee_multiplier"])) for one in market.source.kalshi_series()}
        self._multipliers = {
            one["ticker"]: series[event["series_ticker"]] for event in events for one in event["markets"]
        }
        self._rates = {
            one["conditionId"]: Fraction(str(one["feeSchedule"]["rate"]))
            for event in market.source.polymarket_events()
            for one in event["markets"]
        }
        self.paid = cache(self._paid)

    def ladders(self, planted: Planted) -> Iterator[tuple[int, tuple[Level, ...], tuple[Level, ...]]]:
        """(from when, Kalshi's asks, Polymarket's asks) of what is bought."""
        names = planted["kalshi_market_id"], planted["polymarket_market_id"]
        books = {name: OrderBook() for name in names}
        for name in names:
            books[name].replace(self._books[name].bids, self._books[name].asks)
        changes = [change for change in self._market.played.changes if change.market_id in books]
        for recv_ns, group in groupby(changes, key=lambda change: change.recv_ns):
            for change in group:
                books[change.market_id].set(change.side, change.price, change.size)
            ours, theirs = (books[name] for name in names)
            if planted["relation"] == "inverted":
                theirs = mirrored(theirs)
            kalshi, polymarket = direction_ladders(ours, theirs, planted["direction"])
            yield recv_ns, tuple(kalshi), tuple(polymarket)

    def _paid(
        self, kalshi: tuple[Level, ...], polymarket: tuple[Level, ...], multiplier: Fraction, rate: Fraction
    ) -> tuple[Paid, Fraction] | None:
        """The best trade and the edge at the tops, dollars a contract; None without a gap between the tops."""
        if not kalshi or not polymarket or kalshi[0][0] + polymarket[0][0] >= ONE:
            return None
        best = best_trade(list(kalshi), list(polymarket), multiplier, rate)
        top = Fraction(min(kalshi[0][1], polymarket[0][1]), SIZE_SCALE)
        prices = [Fraction(ladder[0][0], PRICE_SCALE) for ladder in (kalshi, polymarket)]
        fees = kalshi_fee([(prices[0], top)], multiplier) + polymarket_fee([(prices[1], top)], rate)
        return best, 1 - sum(prices) - fees / top

    def expected(self, planted: Planted, reason: str) -> Row:
        """The row of a planted order that nothing but ``reason`` speaks against; empty: that is arbitrage."""
        multiplier = self._multipliers[planted["kalshi_market_id"]]
        rate = self._rates[planted["polymarket_market_id"]]
        end_ns = self._market.end_ns
        told = [(at, self.paid(*ladders, multiplier, rate)) for at, *ladders in self.ladders(planted) if at < end_ns]
        # The order is received a little after it was placed, and is the only one of its pair for seconds around.
        placed_ns, taken_ns = (ns_from_datetime(START) + planted[name] for name in ("opened_ns", "closed_ns"))
        spans = [
            (at, until, *paid)
            for (at, paid), (until, _) in pairwise([*told, (end_ns, None)])
            if paid is not None and until > placed_ns and at < taken_ns + _SECOND
        ]
        assert spans, planted
        assert all(one[1] == other[0] for one, other in pairwise(spans)), "one episode, not several"
        best_ns, _, trade, _ = max(spans, key=lambda span: (span[2].net, -span[0]))
        peak_ns, _, _, peak = max(spans, key=lambda span: (span[3], -span[0]))
        opened_ns, closed_ns = spans[0][0], spans[-1][1]
        over_time = sum((on_grid(edge) * (until - at) for at, until, _, edge in spans), Fraction(0))
        censored = closed_ns == end_ns
        kinds = {"equivalent": "two_leg", "inverted": "inverted"}
        return {
            "kalshi_market_id": planted["kalshi_market_id"],
            "polymarket_market_id": planted["polymarket_market_id"],
            "direction": planted["direction"],
            "kind": kinds.get(planted["relation"], "implication"),
            "accepted": not reason,
            "reasons": json.dumps([reason] if reason else []),
            "opened_at": datetime_from_ns(opened_ns),
            "closed_at": None if censored else datetime_from_ns(closed_ns),
            # A candidate that is none any more has no edge that is known.
            "end_reason": "right_censored" if censored else ("edge" if reason in {"", "burst"} else "unknown"),
            "left_censored": False,
            "active_ns": closed_ns - opened_ns,
            "best_at": datetime_from_ns(best_ns),
            "peak_at": datetime_from_ns(peak_ns),
            "size": trade.size,
            "gross": trade.gross,
            "fees": trade.fees,
            "net": trade.net,
            "peak_edge": on_grid(peak),
            "time_weighted_edge": on_grid(over_time / (closed_ns - opened_ns)),
        }


def on_grid(money: Fraction) -> Fraction:
    """On the tables' grid of 1e-10 dollars."""
    return Fraction(round(money * 10**10), 10**10)


def found(rows: list[Row], expected: Row) -> Row:
    """The one row of a pair and direction that overlaps what is expected, with its figures exact."""
    end = expected["closed_at"] or datetime.max.replace(tzinfo=UTC)
    keys = ("kalshi_market_id", "polymarket_market_id", "direction")
    near = [
        row
        for row in rows
        if all(row[key] == expected[key] for key in keys)
        and row["opened_at"] < end
        and (row["closed_at"] is None or row["closed_at"] > expected["opened_at"])
    ]
    assert len(near) == 1, [(row["reasons"], row["opened_at"], row["closed_at"]) for row in near]
    return {name: Fraction(near[0][name]) if name in FIGURES else near[0][name] for name in expected}


@pytest.fixture(scope="module")
def oracle(market: Market) -> Oracle:
    return Oracle(market)


def trouble_free(market: Market) -> list[Planted]:
    return [one for one in market.played.truth["episodes"] if one["id"] not in TROUBLES]


def test_every_planted_episode_is_found_exactly(
    market: Market, whole: tuple[Settings, list[Row]], oracle: Oracle
) -> None:
    seen = {}
    for planted in trouble_free(market):
        expected = oracle.expected(planted, "")
        assert found(whole[1], expected) == expected
        seen[planted["id"]] = expected
        if planted["closed_wall_ns"] is not None:
            # The exchange's own figures say the same.
            assert (expected["size"], expected["net"]) == (Fraction(planted["size"]), Fraction(planted["net"]))
            venue = planted["opening"]["venue"]
            assert expected["opened_at"] == datetime_from_ns(planted["opened_wall_ns"] + LATENCY_NS[venue])
            assert expected["closed_at"] == datetime_from_ns(planted["closed_wall_ns"] + LATENCY_NS[venue])
    assert {row["kind"] for row in seen.values()} == {"two_leg", "inverted", "implication"}
    assert {row["direction"] for row in seen.values()} == {"yes_kalshi", "yes_polymarket"}
    assert any(row["end_reason"] == "right_censored" for row in seen.values())
    hour = START.replace(minute=0, second=0) + HOUR
    assert any(row["opened_at"] < hour < (row["closed_at"] or hour) for row in seen.values()), "over an hour's end"
    assert any(
        row["size"] * SIZE_SCALE < planted["opening"]["size"]
        for planted, row in zip(trouble_free(market), seen.values(), strict=True)
    ), "a part of an order"


def test_every_phantom_is_rejected_for_what_is_wrong_with_it(
    market: Market, whole: tuple[Settings, list[Row]], oracle: Oracle
) -> None:
    phantoms = [one for one in market.played.truth["phantoms"] if one["kind"] != "wrong_rules"]
    assert {one["kind"] for one in phantoms} == set(PHANTOMS) - {"wrong_rules"}
    for phantom in phantoms:
        reason = REASONS[phantom["kind"]]
        assert reason.partition(":")[0] in phantom["guards"]
        expected = oracle.expected(phantom, reason)
        assert found(whole[1], expected) == expected, phantom


@pytest.mark.parametrize("name", TROUBLES)
def test_an_edge_that_is_in_doubt_while_it_lasts_is_none(
    market: Market, whole: tuple[Settings, list[Row]], oracle: Oracle, name: str
) -> None:
    (planted,) = (one for one in market.played.truth["episodes"] if one["id"] == name)
    expected = oracle.expected(planted, DOUBTS[TROUBLES[name]])
    assert found(whole[1], expected) == expected
    assert expected["net"] > 0, "but for the doubt it would have paid"


def test_an_order_on_two_tokens_would_pay_if_it_counted_twice(market: Market, oracle: Oracle) -> None:
    (phantom,) = (one for one in market.played.truth["phantoms"] if one["kind"] == "mirrored_liquidity")
    fees = oracle._multipliers[phantom["kalshi_market_id"]], oracle._rates[phantom["polymarket_market_id"]]
    opened_ns = phantom["opened_wall_ns"] + LATENCY_NS["polymarket"]
    (shown,) = ((kalshi, polymarket) for at, kalshi, polymarket in oracle.ladders(phantom) if at == opened_ns)
    kalshi, ((price, size), *rest) = shown
    once, twice = (oracle.paid(kalshi, ((price, times * size), *rest), *fees) for times in (1, 2))
    assert once is not None
    assert twice is not None
    assert once[0].net < 0 < twice[0].net


def test_nothing_else_is_accepted_and_look_alikes_never(market: Market, whole: tuple[Settings, list[Row]]) -> None:
    keys = ("kalshi_market_id", "polymarket_market_id", "direction")
    planted = {tuple(one[key] for key in keys) for one in trouble_free(market)}
    accepted = [row for row in whole[1] if row["accepted"]]
    assert len(accepted) == len(trouble_free(market))
    assert {tuple(row[key] for key in keys) for row in accepted} == planted
    alike = {(one["kalshi_market_id"], one["polymarket_market_id"]) for one in market.played.truth["near_misses"]}
    implied = {(one["kalshi_market_id"], one["polymarket_market_id"]) for one in market.played.truth["implied"]}
    told = {(one["kalshi_market_id"], one["polymarket_market_id"]) for one in market.played.truth["pairs"]} | implied
    others = [row for row in whole[1] if (row["kalshi_market_id"], row["polymarket_market_id"]) in alike - implied]
    assert others
    strangers = [row for row in whole[1] if (row["kalshi_market_id"], row["polymarket_market_id"]) not in told]
    for row in (*others, *strangers):
        assert json.loads(row["reasons"])[0] == "match_status:review"
    rest = [row for row in whole[1] if row not in strangers and not row["accepted"]]
    doubted = {one["kalshi_market_id"] for one in market.played.truth["episodes"] if one["id"] in TROUBLES}
    phantoms = {one["kalshi_market_id"] for one in market.played.truth["phantoms"] if "id" in one}
    for row in rest:
        wrong_way = any(reason.startswith("relation:") for reason in json.loads(row["reasons"]))
        assert wrong_way or row["kalshi_market_id"] in doubted | phantoms, row


def test_the_demo_sees_the_same(market: Market, whole: tuple[Settings, list[Row]]) -> None:
    truth = market.played.truth
    outcome = compare(whole[0], truth, truth, recorded=False)
    assert outcome.found == outcome.planted == len(truth["pairs"])
    assert not outcome.false_equivalent
    assert not outcome.unplanted
    assert {one.truth["id"] for one in outcome.episodes if one.found is None} == set(TROUBLES)
    kinds = outcome.phantoms_by_kind()
    assert set(kinds) == set(PHANTOMS)
    assert all(counts["rejected"] == counts["planted"] > 0 for counts in kinds.values()), kinds


@pytest.mark.parametrize("seconds", [19.0, 33.0])
def test_what_comes_later_changes_nothing_before(
    market: Market, whole: tuple[Settings, list[Row]], seconds: float
) -> None:
    until_ns = market.played.start_ns + round(seconds * _SECOND)
    _, rows = market.evaluated(f"until-{seconds}", until_ns)
    # What ends within a burst of the cut might go on.
    settled = datetime_from_ns(until_ns) - timedelta(seconds=1)

    def over(rows: list[Row]) -> list[Row]:
        return [row for row in rows if row["closed_at"] is not None and row["closed_at"] < settled]

    assert over(rows) == over(whole[1])
    assert sum(row["accepted"] for row in over(rows)) >= 2


def test_a_replay_keeps_the_connections_and_doubts_of_both_venues(whole: tuple[Settings, list[Row]]) -> None:
    lake = Lake(whole[0].lake, whole[0].exchange_name)
    labels = [row["connection_id"].rpartition("/")[2] for row in lake.read("capture_sessions").to_pylist()]
    assert Counter(labels) == Counter(["main", "main", "gap", "down-1", "down-2", "polled"])
    causes = {(row["venue"], row["cause"]) for row in lake.read("book_gaps").to_pylist()}
    assert causes >= {("kalshi", "seq_gap"), ("polymarket", "hash_mismatch")}


def test_hours_evaluated_backwards_and_again_give_the_same(whole: tuple[Settings, list[Row]]) -> None:
    settings, rows = whole
    lake, first = Lake(settings.lake, settings.exchange_name), START.replace(minute=0, second=0)
    for hour in (first + HOUR, first):
        evaluate_hour(settings, lake, hour)
    assert lake.read("opportunities").to_pylist() == rows


def test_a_leg_that_was_last_polled_in_the_hour_before_is_stale(market: Market) -> None:
    source = GeneratedSource(7, duration_s=28.0, today=START.date(), rate=80.0, starts_at=START)
    (planted,) = (one for one in source.truth()["episodes"] if one["id"] == "episode-4")
    trouble = Trouble("stale", planted["kalshi_market_id"], planted["opened_ns"], planted["closed_ns"])
    played = play(source, START, [trouble], ThrowAwayKey())
    polled = Market(source, played, market.fields, market.folder, played.end_ns // 1_000 * 1_000)
    _, rows = polled.evaluated("polled", polled.end_ns)
    expected = Oracle(polled).expected(planted, DOUBTS["stale"])
    assert found(rows, expected) == expected
