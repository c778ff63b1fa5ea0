from msgspec.structs import replace

from arb_pipeline.matching.alignment import align_events, exhaustiveness
from arb_pipeline.matching.families import propositions
from arb_pipeline.model import Event
from arb_pipeline_tests.matching.build import market


def brackets(*answers: str) -> Event:
    markets = tuple(
        market("kalshi", f"KX{number}", f"Will the high temp in Oslo be {answer} on Nov 30, 2026?", yes_title=answer)
        for number, answer in enumerate(answers)
    )
    return Event(venue="kalshi", event_id="KX", title="High temp in Oslo?", mutually_exclusive=True, markets=markets)


def proven(event: Event) -> bool:
    return exhaustiveness(event, [propositions(event, one)[0] for one in event.markets]).proven


def test_brackets_with_both_tails_and_no_gap_are_exhaustive() -> None:
    assert proven(brackets("47° or below", "48° to 49°", "50° or above"))


def test_a_gap_an_overlap_or_a_missing_tail_is_not() -> None:
    assert not proven(brackets("46° or below", "48° to 49°", "50° or above"))
    assert not proven(brackets("48° or below", "48° to 49°", "50° or above"))
    assert not proven(brackets("48° to 49°", "50° or above"))


def test_mutually_exclusive_names_are_not_exhaustive_until_the_rest_has_an_answer() -> None:
    names = brackets("Ann Lee", "Bob Ray")
    assert not proven(names)
    other = replace(names, markets=(*names.markets, market("kalshi", "KXO", "Who?", yes_title="Other")))
    assert proven(other)
    placeholder = market("kalshi", "KXP", "Who?", yes_title="Person A")
    assert not proven(replace(names, markets=(*names.markets, placeholder)))


def test_events_are_aligned_by_the_questions_that_they_share() -> None:
    left, right = ["cup", "cup", "final"], ["other", "winner", "winner"]
    edges = {(0, 1): 5.0, (1, 2): 5.0, (2, 0): 5.0, (0, 0): 5.0}
    assert align_events(left, right, edges) == {"cup": ("winner", 2)}
