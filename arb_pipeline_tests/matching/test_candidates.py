from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from arb_pipeline.matching.candidates import Document, document, find_candidates
from arb_pipeline.matching.slots import propositions
from arb_pipeline.model import Event
from arb_pipeline_tests.matching.build import AT, game, kalshi, polymarket


def documents(events: Sequence[Event]) -> list[Document]:
    return [document(event, event.markets[0], propositions(event, event.markets[0])) for event in events]


def found(left: Sequence[Event], right: Sequence[Event], top: int = 20) -> dict[tuple[int, int], int]:
    return {
        (item.kalshi, item.polymarket): item.rank for item in find_candidates(documents(left), documents(right), top)
    }


CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Quito", "Accra")


def test_the_same_question_ranks_first() -> None:
    left = [kalshi(f"Will the mayor of {city} resign before 2027?") for city in CITIES]
    right = [polymarket(f"Mayor of {city} resigns by December 31, 2026?") for city in reversed(CITIES)]
    ranks = found(left, right)
    assert all(ranks[position, len(CITIES) - 1 - position] == 1 for position in range(len(CITIES)))


def test_exact_keys_find_what_shares_no_word() -> None:
    rules = "If the Lima Llamas win it resolves to Llamas. If the Cusco Condors win it resolves to Condors."
    left = [kalshi("Lima at Cusco Winner?", "Lima")]
    assert (0, 0) in found(left, [game("Condors", "Llamas", "2026-06-03 19:00:00+00", rules=rules)])
    bill = [kalshi("Will ferries be free before 2027?", rules="An example is the Quiet Harbour Act.")]
    assert (0, 0) in found(bill, [polymarket("Quiet Harbour Act signed into law in 2026?")])


def test_top_bounds_the_candidates() -> None:
    right = [polymarket(f"Will it rain in Oslo on day {day}?") for day in range(30)]
    assert len(found([kalshi("Will it rain in Oslo?")], right, top=5)) == 5


def test_far_apart_times_are_no_candidates_and_unknown_times_pass() -> None:
    near, far = AT + timedelta(days=20), AT + timedelta(days=900)
    question = "Will it rain in Oslo?"
    assert found([kalshi(question, close_at=AT)], [polymarket(question, close_at=near)])
    assert not found([kalshi(question, close_at=AT)], [polymarket(question, close_at=far)])
    assert found([kalshi(question)], [polymarket(question, close_at=far)])
    late = kalshi(question, close_at=datetime(2030, 1, 1, tzinfo=UTC), expected_expiration_at=AT)
    assert found([late], [polymarket(question, close_at=near)])


def test_nothing_gives_nothing() -> None:
    assert find_candidates([], documents([polymarket("Rain?")])) == ()
    assert find_candidates(documents([kalshi("")]), documents([polymarket("")])) == ()


def test_a_game_is_found_by_its_day_among_hundreds_of_the_same_teams() -> None:
    first = datetime(2026, 1, 1, 19, tzinfo=UTC)
    rules = "If the Lima Llamas win, it resolves to Llamas. If the Cusco Condors win, it resolves to Condors."
    days = [first + timedelta(days=number) for number in range(300)]
    left = [
        kalshi(
            "Lima at Cusco Winner?",
            "Lima",
            occurrence_at=day + timedelta(hours=3),
            rules=rules,
            market_id=f"KX{day:%m%d}",
        )
        for day in days
    ]
    right = [
        game("Condors", "Llamas", f"{day:%Y-%m-%d %H:%M:%S}+00", rules=rules, market_id=f"0x{day:%m%d}") for day in days
    ]
    assert {(number, number) for number in range(300)} <= found(left, right).keys()
