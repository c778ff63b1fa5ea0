import pytest
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


def whole(event: Event) -> Event:
    """All markets that the venue lists."""
    return replace(event, listed_markets=len(event.markets))


def proven(event: Event) -> bool:
    return exhaustiveness(whole(event), [propositions(event, one)[0] for one in event.markets]).proven


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


@pytest.mark.parametrize(
    "rest", ["Other", "Another", "The field", "Someone else", "None of the above", "None of these"]
)
def test_the_rest_has_an_answer_only_if_the_answers_rule_one_another_out(rest: str) -> None:
    """Nobody may leave the Cabinet in a year, and several may: A, B and "Another" are three questions."""
    names = ("Ann Lee", "Bob Ray", rest)
    markets = tuple(
        market("kalshi", f"KX{number}", f"Will {name} leave the Cabinet in 2026?", yes_title=name)
        for number, name in enumerate(names)
    )
    several = Event(venue="kalshi", event_id="KX", title="Who will leave the Cabinet in 2026?", markets=markets)
    found = exhaustiveness(whole(several), [])
    assert (found.proven, found.why) == (False, "the answers do not rule one another out: all may be wrong")
    assert proven(replace(several, mutually_exclusive=True))
    partly = (replace(markets[0], neg_risk=True), *markets[1:])
    assert not proven(replace(several, mutually_exclusive=True, markets=partly)), "one of them is not netted"


def test_none_is_not_everybody_else() -> None:
    names = brackets("Ann Lee", "Bob Ray")
    nobody = market("kalshi", "KXN", "Who?", yes_title="None")
    assert not proven(replace(names, markets=(*names.markets, nobody))), "Cid may be it, who is not listed"


@pytest.mark.parametrize("answers", [("Ann Lee", "Bob Ray", "Other"), ("47° or below", "48° to 49°", "50° or above")])
def test_nothing_is_proven_while_a_market_could_not_be_read(answers: tuple[str, ...]) -> None:
    event = brackets(*answers)
    read = [propositions(event, one)[0] for one in event.markets]
    assert exhaustiveness(whole(event), read).proven
    found = exhaustiveness(replace(event, listed_markets=4), read)
    assert (found.proven, found.why) == (False, "not all answers are read")
    unknown = exhaustiveness(replace(event, listed_markets=None), read)
    assert (unknown.proven, unknown.why) == (False, "how many answers are listed is not known")


def test_nobody_is_not_everybody_else() -> None:
    names = brackets("Ann Lee", "Bob Ray")
    nobody = market("kalshi", "KXN", "Who?", yes_title="Nobody")
    assert not proven(replace(names, markets=(*names.markets, nobody))), "Cid may be it, who is not listed"


def test_other_of_an_augmented_event_proves_together_with_its_reserves() -> None:
    other = market("polymarket", "0xo", "Will another person win?", yes_title="Other", strike={"negRiskOther": True})
    reserve = market("polymarket", "0xp", "Will Person B win?", yes_title="Person B")
    named = market("polymarket", "0xn", "Will Ann Lee win?", yes_title="Ann Lee")
    event = Event(
        venue="polymarket", event_id="1", title="Who?", mutually_exclusive=True, markets=(named, other, reserve)
    )
    found = exhaustiveness(whole(event), [])
    assert found.proven
    assert found.why == "'Other' is listed, with 1 reserved answers beside it"
    assert exhaustiveness(whole(replace(event, markets=(named, reserve))), []).why == "answers may be added"


def test_brackets_of_two_days_are_no_partition() -> None:
    first, second = (
        market("kalshi", f"KX{day}", f"Will the high temp in Oslo be {answer} on Nov {day}, 2026?", yes_title=answer)
        for day, answer in ((29, "48° or below"), (30, "49° or above"))
    )
    event = Event(venue="kalshi", event_id="KX", title="High temp in Oslo?", markets=(first, second))
    found = exhaustiveness(whole(event), [propositions(event, one)[0] for one in event.markets])
    assert (found.proven, found.why.startswith("the answers differ in")) == (False, True)


def test_prices_to_be_reached_are_no_partition() -> None:
    answers = ("dip to $80,000", "reach $80,000")
    markets = tuple(
        market("polymarket", f"0x{number}", f"Will Bitcoin {answer} in November 2026?", yes_title="80,000")
        for number, answer in enumerate(answers)
    )
    event = Event(
        venue="polymarket", event_id="1", title="What price will Bitcoin hit in November 2026?", markets=markets
    )
    assert not proven(event)


def test_events_are_aligned_by_the_questions_that_they_share() -> None:
    left, right = ["cup", "cup", "final"], ["other", "winner", "winner"]
    edges = {(0, 1): 5.0, (1, 2): 5.0, (2, 0): 5.0, (0, 0): 5.0}
    assert align_events(left, right, edges) == {"cup": ("winner", 2)}
