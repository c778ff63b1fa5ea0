import json
import random
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest

from arb_pipeline import tables
from arb_pipeline.matching.matcher import MATCHER_VERSION, Match, MatchResult, Memory, match
from arb_pipeline.matching.overrides import Decision, Overrides
from arb_pipeline.model import Event, MatchStatus, Relation, rules_digest
from arb_pipeline.recordings import Recording
from arb_pipeline_tests.matching.build import AT, NONE, game, kalshi, market, polymarket

PLAYERS = ("Ann Lee", "Bob Ray", "Cleo Poe")
LEFT = [
    kalshi(f"Will {name} win the 2026 Lima Open?", name, market_id=f"KX{number}") for number, name in enumerate(PLAYERS)
]
RIGHT = [
    polymarket(f"2026 Lima Open winner: {name}", name, market_id=f"0x{number}") for number, name in enumerate(PLAYERS)
]


def rows(result: MatchResult, status: MatchStatus) -> list[Match]:
    return [item for item in result.matches if item.status is status]


def pairs(result: MatchResult, status: MatchStatus = MatchStatus.REVIEW) -> dict[str, str]:
    return {item.kalshi_market_id: item.polymarket_market_id for item in rows(result, status)}


def decision(first: Event, second: Event, verdict: str = "equivalent", rules: str | None = None) -> Decision:
    left, right = first.markets[0], second.markets[0]
    return Decision.model_validate(
        {
            "kalshi": left.market_id,
            "polymarket": {"condition_id": right.market_id, "yes_token_index": int(verdict == "inverted")},
            "verdict": verdict,
            "rules_sha256": {
                "kalshi": rules_digest(left.rules if rules is None else rules),
                "polymarket": rules_digest(right.rules),
            },
            "by": "ann",
            "at": date(2026, 5, 1),
        }
    )


def test_pairs_without_rules_are_proposed_for_review_and_never_accepted() -> None:
    result = match(LEFT, RIGHT, NONE, AT)
    assert pairs(result) == {"KX0": "0x0", "KX1": "0x1", "KX2": "0x2"}
    assert {item.relation for item in rows(result, MatchStatus.REVIEW)} == {Relation.EQUIVALENT}
    assert not rows(result, MatchStatus.APPROVED)
    assert not rows(result, MatchStatus.AUTO)


def test_refused_look_alikes_are_kept_with_their_reasons() -> None:
    result = match(LEFT, RIGHT, NONE, AT)
    refused = rows(result, MatchStatus.REJECTED)
    assert {(item.kalshi_market_id, item.polymarket_market_id) for item in refused} >= {("KX0", "0x1"), ("KX1", "0x0")}
    assert all(item.vetoes and item.relation is Relation.EXCLUSIVE for item in refused)
    assert any("ann lee is not bob ray" in reason for item in refused for reason in item.vetoes)


def test_look_alikes_are_bounded() -> None:
    many = [
        polymarket(f"2026 Lima Open winner: Zed {number}", f"Zed {number}", market_id=f"0x{number}")
        for number in range(15)
    ]
    result = match(LEFT[:1], many, NONE, AT)
    assert 0 < len(rows(result, MatchStatus.REJECTED)) <= 3


def test_a_market_is_used_once_and_the_rival_is_told() -> None:
    twin = polymarket("Will Ann Lee win the 2026 Lima Open?", "Ann Lee", market_id="0xtwin")
    result = match(LEFT, [*RIGHT, twin], NONE, AT)
    assert sorted(pairs(result).values()) == sorted(set(pairs(result).values()))
    first = next(item for item in rows(result, MatchStatus.REVIEW) if item.kalshi_market_id == "KX0")
    assert first.polymarket_market_id == "0xtwin"
    assert first.explanation["margin"] > 0
    assert [rival["polymarket"] for rival in first.explanation["rivals"]] == ["0x0"]
    lost = next(
        item for item in result.matches if item.polymarket_market_id == "0x0" and item.kalshi_market_id == "KX0"
    )
    assert (lost.status, lost.relation) == (MatchStatus.REJECTED, Relation.RELATED)


def test_an_exact_tie_is_called_ambiguous() -> None:
    twins = [polymarket(RIGHT[0].title, "Ann Lee", market_id=name) for name in ("0xa", "0xb")]
    (row,) = rows(match(LEFT[:1], twins, NONE, AT), MatchStatus.REVIEW)
    assert row.explanation["margin"] == 0
    assert any(caveat.startswith("ambiguous") for caveat in row.explanation["caveats"])


def test_the_order_of_the_catalogues_does_not_matter() -> None:
    expected = match(LEFT, RIGHT, NONE, AT)
    rng = random.Random(3)
    for _ in range(4):
        left, right = list(LEFT), list(RIGHT)
        rng.shuffle(left)
        rng.shuffle(right)
        again = match(left, right, NONE, AT)
        assert again.matches_table().equals(expected.matches_table())
        assert again.review_table().equals(expected.review_table())


def test_the_tables_are_of_the_declared_schemas() -> None:
    result = match(LEFT, RIGHT, NONE, AT)
    table, review = result.matches_table(), result.review_table()
    assert table.schema == tables.table("market_matches").schema
    assert review.schema == tables.table("match_review").schema
    assert review["rank"].to_pylist() == [1, 2, 3]
    assert set(table["known_at"].to_pylist()) == set(table["valid_from"].to_pylist()) == {AT}
    assert set(table["matcher_version"].to_pylist()) == {MATCHER_VERSION}
    assert all(len(text) == 64 for text in table["kalshi_rules_sha256"].to_pylist())


def test_the_explanation_adds_up_to_the_score() -> None:
    row = rows(match(LEFT, RIGHT, NONE, AT), MatchStatus.REVIEW)[0]
    explanation = json.loads(json.dumps(row.explanation))
    assert explanation["score"] == pytest.approx(sum(line["weight"] for line in explanation["slots"]))
    assert row.score == pytest.approx(explanation["score"] + 0.2 * explanation["cosine"], abs=1e-3)
    subject = next(line for line in explanation["slots"] if line["slot"] == "subject")
    assert subject["kalshi"] == {"value": "ann lee", "source": "yes_title", "text": "Ann Lee"}
    assert subject["result"] == "equal"


def test_an_approval_stands_against_the_facts_and_pins_both_markets() -> None:
    result = match(LEFT, RIGHT, Overrides((decision(LEFT[0], RIGHT[1]),)), AT)
    assert pairs(result, MatchStatus.APPROVED) == {"KX0": "0x1"}
    assert pairs(result) == {"KX2": "0x2"}
    (row,) = rows(result, MatchStatus.APPROVED)
    assert row.vetoes
    assert row.explanation["override"]["by"] == "ann"


def test_changed_rules_send_an_approval_back_to_review() -> None:
    result = match(LEFT, RIGHT, Overrides((decision(LEFT[0], RIGHT[0], rules="as it was"),)), AT)
    assert not rows(result, MatchStatus.APPROVED)
    row = next(item for item in rows(result, MatchStatus.REVIEW) if item.kalshi_market_id == "KX0")
    assert row.explanation["caveats"][0].startswith("rules_changed: kalshi since")


def test_a_refusal_frees_both_markets() -> None:
    refused = decision(LEFT[0], RIGHT[0], "rejected")
    result = match(LEFT, RIGHT, Overrides((refused,)), AT)
    assert pairs(result, MatchStatus.REFUSED) == {"KX0": "0x0"}
    assert "KX0" not in pairs(result)
    assert (
        len([item for item in result.matches if (item.kalshi_market_id, item.polymarket_market_id) == ("KX0", "0x0")])
        == 1
    )
    twin = polymarket("Will Ann Lee win the 2026 Lima Open?", "Ann Lee", market_id="0xtwin")
    assert pairs(match(LEFT, [*RIGHT, twin], Overrides((refused,)), AT))["KX0"] == "0xtwin"


def test_an_inverted_approval_keeps_its_index() -> None:
    result = match(LEFT, RIGHT, Overrides((decision(LEFT[0], RIGHT[0], "inverted"),)), AT)
    (row,) = rows(result, MatchStatus.APPROVED)
    assert (row.relation, row.polymarket_yes_index) == (Relation.INVERTED, 1)


def test_a_decision_on_an_unlisted_market_is_told() -> None:
    gone = decision(kalshi("Gone?", market_id="KXGONE"), RIGHT[0])
    result = match(LEFT, RIGHT, Overrides((gone,)), AT)
    assert result.absent == (gone,)
    assert pairs(result)["KX0"] == "0x0"


def test_the_other_side_of_a_two_way_contest_is_inverted() -> None:
    sides = [
        market("kalshi", f"KX{name}", f"Lima at Cusco Winner? {name}", yes_title=name, event_id="game")
        for name in ("Lima", "Cusco")
    ]
    two = Event(
        venue="kalshi", event_id="game", title="Lima at Cusco Winner?", mutually_exclusive=True, markets=tuple(sides)
    )
    question = polymarket("Will Cusco beat Lima?")
    result = match([msgspec.structs.replace(two, markets=(sides[0],))], [question], NONE, AT)
    assert not rows(result, MatchStatus.REVIEW), "one side listed alone does not tell that there is no third result"
    (row,) = rows(match([two], [question], NONE, AT), MatchStatus.REVIEW)
    assert (row.kalshi_market_id, row.relation) == ("KXCusco", Relation.EQUIVALENT)


def ruled(events: list[Event], text: str) -> list[Event]:
    return [
        msgspec.structs.replace(
            event,
            markets=tuple(msgspec.structs.replace(one, rules=text.format(one.yes_title)) for one in event.markets),
        )
        for event in events
    ]


KALSHI_RULES = "If {} wins the 2026 Lima Open, then the market resolves to Yes."
POLYMARKET_RULES = "This market will resolve according to the winner of the 2026 Lima Open. {}"


def test_a_pair_of_which_nothing_is_left_open_is_accepted() -> None:
    result = match(ruled(LEFT, KALSHI_RULES), ruled(RIGHT, POLYMARKET_RULES), NONE, AT)
    assert pairs(result, MatchStatus.AUTO) == {"KX0": "0x0", "KX1": "0x1", "KX2": "0x2"}
    row = rows(result, MatchStatus.AUTO)[0]
    assert (row.family, row.explanation["open"]) == ("tournament_winner", [])
    unsure = match(ruled(LEFT, KALSHI_RULES), ruled(RIGHT[:1], POLYMARKET_RULES) + RIGHT[1:], NONE, AT)
    assert pairs(unsure, MatchStatus.AUTO) == {"KX0": "0x0"}


def test_an_even_rival_keeps_a_pair_in_review() -> None:
    twins = [
        polymarket(RIGHT[0].title, "Ann Lee", rules=POLYMARKET_RULES.format("Ann Lee"), market_id=name)
        for name in ("0xa", "0xb")
    ]
    result = match(ruled(LEFT[:1], KALSHI_RULES), twins, NONE, AT)
    (row,) = rows(result, MatchStatus.REVIEW)
    assert any(point.startswith("assignment") for point in row.explanation["open"])
    assert not rows(result, MatchStatus.AUTO)


def contest(kind: str, answers: tuple[str, ...], rules: str) -> Event:
    start = datetime(2026, 12, 6, 22, tzinfo=UTC)
    markets = tuple(
        market("kalshi", f"KX{name}", f"Lima vs Cusco {kind}", yes_title=name, event_id="KXG", occurrence_at=start,
               rules=rules.format(name))
        for name in answers
    )  # fmt: skip
    return Event(
        venue="kalshi", event_id="KXG", title=f"Lima vs Cusco {kind}", mutually_exclusive=True, markets=markets
    )


def test_both_sides_of_a_contest_are_no_rivals_and_the_straight_one_is_the_partner() -> None:
    tie = "If it is canceled or ends in a tie, the market resolves 50-50."
    ours = contest("Winner?", ("Lima", "Cusco"), "If {} wins the Lima vs Cusco game, it resolves to Yes. " + tie)
    theirs = game("Lima", "Cusco", "2026-12-06 20:00:00+00", rules=f"If Lima wins, Lima. If Cusco wins, Cusco. {tie}")
    result = match([ours], [theirs], NONE, AT)
    (row,) = rows(result, MatchStatus.AUTO)
    assert (row.kalshi_market_id, row.relation) == ("KXLima", Relation.EQUIVALENT)


def test_three_answers_pair_with_three_questions() -> None:
    ours = contest("Winner?", ("Lima", "Cusco", "Tie"), "If {} wins after 90 minutes plus stoppage time, then Yes.")
    strike = {"sportsMarketType": "moneyline", "gameStartTime": "2026-12-06 20:00:00+00"}
    questions = {
        "0xl": ("Will Lima FC win on 2026-12-06?", "Lima FC"),
        "0xd": ("Will Lima FC vs. Cusco FC end in a draw?", "Draw (Lima FC vs. Cusco FC)"),
        "0xc": ("Will Cusco FC win on 2026-12-06?", "Cusco FC"),
    }
    markets = tuple(
        market("polymarket", name, title, yes_title=answer, strike=strike)
        for name, (title, answer) in questions.items()
    )
    theirs = Event(venue="polymarket", event_id="p", title="Lima FC vs. Cusco FC", markets=markets)
    assert pairs(match([ours], [theirs], NONE, AT)) == {"KXLima": "0xl", "KXTie": "0xd", "KXCusco": "0xc"}


@pytest.mark.parametrize(("favourite", "found"), [("Lima", True), ("Cusco", False)])
def test_a_spread_is_of_one_side(favourite: str, found: bool) -> None:
    ours = kalshi(
        "Lima wins by over 5.5 points?", "Lima wins by over 5.5 points", event_title="Lima at Cusco: Spread",
        strike={"strike_type": "greater", "floor_strike": 5.5}, occurrence_at=datetime(2026, 12, 6, 22, tzinfo=UTC),
    )  # fmt: skip
    other = "Cusco" if favourite == "Lima" else "Lima"
    theirs = polymarket(
        f"Spread: {favourite} (-5.5)", outcomes=(favourite, other),
        strike={"sportsMarketType": "spreads", "line": -5.5, "gameStartTime": "2026-12-06 20:00:00+00"},
    )  # fmt: skip
    assert bool(pairs(match([ours], [theirs], NONE, AT))) is found


def test_an_implication_is_a_row_of_its_own_and_takes_no_partner() -> None:
    early = polymarket("Will Ann Lee visit Peru by March 31, 2026?", market_id="0xearly")
    late = polymarket("Will Ann Lee visit Peru by December 31, 2026?", market_id="0xlate")
    question = kalshi("Will Ann Lee visit Peru before Jan 1, 2027?", market_id="KXPERU")
    relations = {
        item.polymarket_market_id: (item.relation, item.status)
        for item in match([question], [early, late], NONE, AT).matches
    }
    assert relations == {
        "0xearly": (Relation.POLYMARKET_IMPLIES_KALSHI, MatchStatus.REVIEW),
        "0xlate": (Relation.EQUIVALENT, MatchStatus.REVIEW),
    }


def test_a_remembered_run_gives_the_same_and_reads_only_what_changed() -> None:
    memory = Memory()
    match(LEFT, RIGHT, NONE, AT, memory)
    assert memory.read == 6
    changed = [
        RIGHT[0],
        polymarket("2026 Lima Open winner: Bob Ray", "Bob Ray", rules="Now with rules.", market_id="0x1"),
        RIGHT[2],
        polymarket("Will Dan Poe win the 2026 Lima Open?", "Dan Poe", market_id="0x3"),
    ]
    again = match(LEFT, changed, NONE, AT, memory)
    assert memory.read == 2
    assert again.matches_table().equals(match(LEFT, changed, NONE, AT).matches_table())
    match(LEFT, changed, NONE, AT, memory)
    assert (memory.read, memory.compared) == (0, 0)


def test_prices_that_add_up_to_one_raise_an_alarm_and_change_nothing() -> None:
    left = [
        msgspec.structs.replace(
            LEFT[0], markets=(msgspec.structs.replace(LEFT[0].markets[0], last_trade_price="0.72"),)
        )
    ]
    right = [
        msgspec.structs.replace(
            RIGHT[0], markets=(msgspec.structs.replace(RIGHT[0].markets[0], last_trade_price="0.29"),)
        )
    ]
    (row,) = rows(match(left, right, NONE, AT), MatchStatus.REVIEW)
    assert row.relation is Relation.EQUIVALENT
    assert row.explanation["alarms"][0].startswith("suspected_inversion")
    (calm,) = rows(match(LEFT[:1], right, NONE, AT), MatchStatus.REVIEW)
    assert "alarms" not in calm.explanation


def test_empty_catalogues_give_empty_tables() -> None:
    result = match([], [], NONE, AT)
    assert result.matches == ()
    assert result.matches_table().num_rows == result.review_table().num_rows == 0


def test_the_recorded_pairs_are_proposed_and_the_flagged_never_approved(recordings: Path) -> None:
    from arb_pipeline.venues.kalshi import catalogue as kalshi_catalogue
    from arb_pipeline.venues.polymarket import catalogue as polymarket_catalogue

    recording = Recording.open(recordings / "crossvenue-202607")
    result = match(
        [kalshi_catalogue.parse_event(event) for event in recording.events("kalshi")],
        [polymarket_catalogue.parse_event(event) for event in recording.events("polymarket")],
        NONE,
        AT,
    )
    expected = {pair["kalshi_ticker"]: pair["condition_id"] for pair in recording.pairs if pair["equivalent"]}
    flagged = {pair["kalshi_ticker"] for pair in recording.pairs if not pair["equivalent"]}
    proposed = {
        item.kalshi_market_id: item.polymarket_market_id
        for item in (*rows(result, MatchStatus.REVIEW), *rows(result, MatchStatus.AUTO))
        if item.relation is Relation.EQUIVALENT
    }
    assert len(expected) == 14
    assert {ticker: partner for ticker, partner in proposed.items() if ticker not in flagged} == expected
    accepted = {item.kalshi_market_id for item in rows(result, MatchStatus.AUTO)}
    assert accepted
    assert not accepted & flagged
    assert not rows(result, MatchStatus.APPROVED)
    assert {(item.kalshi_event_id, item.pairs) for item in result.events} >= {("KXATP-26WIM", 4), ("KXBALLONDOR-26", 3)}


@pytest.mark.parametrize("today", [date(2026, 11, 21), date(2026, 1, 5), date(2027, 3, 1)])
def test_every_planted_pair_is_found_and_no_trap_is_called_a_pair(today: date) -> None:
    from arb_pipeline.exchange.generated import GeneratedSource
    from arb_pipeline.venues.kalshi import catalogue as kalshi_catalogue
    from arb_pipeline.venues.polymarket import catalogue as polymarket_catalogue

    source = GeneratedSource(seed=7, today=today)
    result = match(
        [kalshi_catalogue.parse_event(event) for event in source.kalshi_events()],
        [polymarket_catalogue.parse_event(event) for event in source.polymarket_events()],
        NONE,
        AT,
    )
    truth = source.truth()
    planted = {
        (pair["kalshi_market_id"], pair["polymarket_market_id"]): (pair["relation"], pair["polymarket_yes_index"])
        for pair in truth["pairs"]
    }
    called = {
        (item.kalshi_market_id, item.polymarket_market_id): (item.relation.value, item.polymarket_yes_index)
        for item in (*rows(result, MatchStatus.REVIEW), *rows(result, MatchStatus.AUTO))
        if item.relation in {Relation.EQUIVALENT, Relation.INVERTED}
    }
    assert called == planted
    assert rows(result, MatchStatus.AUTO)
    assert not called.keys() & {
        (miss["kalshi_market_id"], miss["polymarket_market_id"]) for miss in truth["near_misses"]
    }
