from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.alerting.evaluation import UNKNOWN, Condition, Evaluation, Finding
from arb_pipeline.alerting.rules import Spread

S = 10**9
RULE = Spread(name="r", kind="spread", at_most=Decimal("0.01"), for_seconds=Decimal(2), notify=("desk",))
HOLDS, OVER = Finding(True, "spread 0.01", {"spread": "0.01"}), Finding(False, "spread 0.05")

STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([True, False, None, "time"])),
    max_size=40,
)
"""Seconds that pass, and then what is known: True, False, unknown, or no word but the time."""


@given(STEPS, st.integers(0, 6), st.one_of(st.none(), st.integers(1, 8)))
def test_what_is_told_follows_from_what_was_known(
    steps: list[tuple[int, bool | str | None]], hold: int, repeat: int | None
) -> None:
    condition = Condition(hold, repeat)
    at, known, held_since = 0, None, None
    told_at: int | None = None
    for seconds, word in steps:
        at += seconds
        if isinstance(word, str):
            change = condition.pass_time(at)
        else:
            change = condition.take(at, word)
            held_since = None if word is not True else at if known is not True else held_since
            known = word
        due = held_since is not None and at - held_since >= hold
        if change == "fired":
            assert due, "it was known to hold for as long as it must"
            assert told_at is None, "its end was told in between"
        elif change == "repeated":
            assert due
            assert repeat is not None
            assert told_at is not None
            assert at - told_at >= repeat
        elif change == "resolved":
            assert word is False, "unknown is not over"
            assert told_at is not None
        else:
            assert not (due and told_at is None), "what is due is told"
            assert not (word is False and told_at is not None), "and so is its end"
            assert not (due and repeat is not None and told_at is not None and at - told_at >= repeat)
        if change is not None:
            told_at = None if change == "resolved" else at


@given(STEPS)
def test_while_nothing_is_known_nothing_is_told(steps: list[tuple[int, bool | str | None]]) -> None:
    condition = Condition()
    at = 0
    for seconds, word in steps:
        at += seconds
        change = condition.pass_time(at) if isinstance(word, str) else condition.take(at, None)
        assert change is None


def test_time_that_steps_back_does_not_shorten_anything() -> None:
    condition = Condition(hold_ns=5)
    assert condition.take(10, True) is None
    assert condition.take(3, True) is None
    assert condition.pass_time(14) is None
    assert condition.pass_time(15) == "fired"


def take(evaluation: Evaluation, at_s: float, finding: Finding, subject: str = "kalshi K") -> str | None:
    alert = evaluation.take(RULE, subject, "kalshi", "K", round(at_s * S), finding)
    return None if alert is None else alert.state


def test_alerts_say_what_for_how_long_and_to_whom() -> None:
    evaluation = Evaluation([RULE])
    assert take(evaluation, 0, HOLDS) is None
    assert evaluation.pass_time(1 * S) == []
    [fired] = evaluation.pass_time(2 * S)
    assert fired.message == "r: kalshi K: spread 0.01, for 2.0 s"
    assert (fired.handler, fired.state, fired.channels, fired.market_id) == ("r", "fired", ("desk",), "K")
    assert fired.details == {"kind": "spread", "spread": "0.01"}
    resolved = evaluation.take(RULE, "kalshi K", "kalshi", "K", 3 * S, OVER)
    assert resolved is not None
    assert resolved.message == "resolved: r: kalshi K: spread 0.05"


def test_subjects_are_told_by_themselves() -> None:
    evaluation = Evaluation([RULE])
    take(evaluation, 0, HOLDS, "a")
    take(evaluation, 1, HOLDS, "b")
    assert [alert.subject for alert in evaluation.pass_time(2 * S)] == ["a"]
    assert [alert.subject for alert in evaluation.pass_time(3 * S)] == ["b"]


def test_a_doubt_of_everything_begins_the_time_anew_and_takes_nothing_back() -> None:
    evaluation = Evaluation([RULE])
    take(evaluation, 0, HOLDS, "told")
    evaluation.pass_time(2 * S)
    take(evaluation, 2, HOLDS, "waits")
    evaluation.doubt()
    assert evaluation.pass_time(60 * S) == []
    assert [one.subject for one in evaluation.told] == ["told"]
    assert take(evaluation, 61, HOLDS, "told") is None
    assert take(evaluation, 61, HOLDS, "waits") is None
    assert [alert.subject for alert in evaluation.pass_time(63 * S)] == ["waits"]


def test_what_was_told_goes_on_to_the_next_evaluation() -> None:
    first = Evaluation([RULE])
    take(first, 0, HOLDS)
    first.pass_time(2 * S)
    second = Evaluation([RULE], first.told)
    assert take(second, 3, HOLDS) is None
    assert second.pass_time(9 * S) == []
    assert take(second, 10, UNKNOWN) is None
    assert take(second, 11, OVER) == "resolved"
    assert second.told == []
    assert Evaluation([], first.told).told == [], "no rule speaks of it any more"
