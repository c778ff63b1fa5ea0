"""Episodes of step functions: by hand, and against a reference that looks at every instant."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.arbitrage.episodes import (
    EdgeEpisode,
    EdgeRules,
    EdgeStep,
    join,
    kaplan_meier,
)
from arb_pipeline_tests.arbitrage.builders import edge_episodes, edge_pieces, held

MS = 1_000_000


def steps(*told: tuple[int, str | None]) -> list[EdgeStep[None]]:
    """(ms, edge) as steps; the net is a hundred times the edge."""
    return [
        EdgeStep(at * MS, None if edge is None else Decimal(edge), Decimal(edge or 0), Decimal(edge or 0) * 100, None)
        for at, edge in told
    ]


def found(
    told: Sequence[EdgeStep[None]], rules: EdgeRules, window: tuple[int, int] = (0, 10_000)
) -> list[EdgeEpisode[None]]:
    return edge_episodes(told, window[0] * MS, window[1] * MS, rules)


def spans(episodes: Sequence[EdgeEpisode[None]]) -> list[tuple[int, int, str]]:
    return [(one.opened_ns // MS, one.closed_ns // MS, one.end_reason) for one in episodes]


PLAIN = EdgeRules(merge_ns=0)


def test_an_episode_lasts_while_the_edge_is_positive() -> None:
    (one,) = found(steps((0, "0"), (1_000, "0.01"), (3_000, "0.03"), (4_000, "0")), PLAIN)
    assert spans([one]) == [(1_000, 4_000, "edge")]
    assert one.time_weighted_figure == Decimal("0.05") / 3
    assert one.peak.at_ns == 3_000 * MS
    assert one.best.net == 3
    assert not one.left_censored


def test_hysteresis_keeps_it_open_between_the_thresholds() -> None:
    rules = EdgeRules(Decimal("0.005"), Decimal(0), merge_ns=0)
    told = steps((0, "0.004"), (1_000, "0.006"), (2_000, "0.001"), (3_000, "0"), (4_000, "0.004"))
    assert spans(found(told, rules)) == [(1_000, 3_000, "edge")]


def test_thresholds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match="exceeds open_above"):
        EdgeRules(Decimal(0), Decimal("0.01"))


def test_what_is_unknown_ends_an_episode_and_says_so() -> None:
    told = steps((1_000, "0.01"), (2_000, None), (5_000, "0.01"))
    assert spans(found(told, PLAIN)) == [(1_000, 2_000, "unknown"), (5_000, 10_000, "right_censored")]


def test_an_edge_that_is_held_too_long_is_unknown() -> None:
    told = held(steps((1_000, "0.01"), (2_000, "0.02"), (9_000, "0.01")), 2_000 * MS)
    assert spans(found(told, PLAIN)) == [
        (1_000, 4_000, "unknown"),
        (9_000, 10_000, "right_censored"),
    ]


def test_bursts_are_one_episode_whose_pauses_do_not_count() -> None:
    told = steps((0, "0"), (1_000, "0.01"), (2_000, "-0.5"), (2_500, "0.01"), (3_000, "0"))
    (one,) = found(told, EdgeRules(merge_ns=500 * MS))
    assert spans([one]) == [(1_000, 3_000, "edge")]
    assert (one.active_ns, one.time_weighted_figure) == (1_500 * MS, Decimal("0.01"))
    assert len(found(told, EdgeRules(merge_ns=499 * MS))) == 2


def test_of_steps_at_one_instant_the_last_counts() -> None:
    assert not found(steps((1_000, "0.05"), (1_000, "-0.01")), PLAIN)


def test_the_window_censors_on_both_sides() -> None:
    told = steps((0, "0.01"), (20_000, "0"))
    (one,) = found(told, PLAIN, (5_000, 10_000))
    assert spans([one]) == [(5_000, 10_000, "right_censored")]
    assert one.left_censored


EDGES = st.sampled_from(["-0.010", "0.000", "0.002", "0.006", "0.011", None])
PATHS = st.lists(st.tuples(st.integers(0, 60), EDGES), max_size=30).map(lambda path: sorted(path, key=lambda at: at[0]))


def reference(
    path: Sequence[tuple[int, str | None]], rules: EdgeRules, end: int, hold: int | None
) -> list[tuple[int, int, Decimal]]:
    """Open stretches and their integral by looking at every ms of the window, then merged."""
    edges: dict[int, Decimal | None] = {}
    for at, edge in path:
        edges[at] = None if edge is None else Decimal(edge)
    current: Decimal | None = None
    age, is_open = 0, False
    stretches: list[list[Decimal]] = []
    for ms in range(end):
        if ms in edges:
            current, age = edges[ms], 0
        known = current if hold is None or age < hold else None
        was, is_open = is_open, known is not None and known > (rules.close_at_or_below if is_open else rules.open_above)
        if is_open:
            assert known is not None
            if not was:
                stretches.append([Decimal(ms), Decimal(ms), Decimal(0)])
            stretches[-1][1] = Decimal(ms + 1)
            stretches[-1][2] += known
        age += 1
    merged: list[list[Decimal]] = []
    for stretch in stretches:
        if merged and stretch[0] - merged[-1][1] <= rules.merge_ns // MS:
            merged[-1][1] = stretch[1]
            merged[-1][2] += stretch[2]
        else:
            merged.append(stretch)
    return [(int(opened), int(closed), integral) for opened, closed, integral in merged]


@given(PATHS, st.sampled_from([None, 3, 8]), st.sampled_from([0, 2, 5]), st.sampled_from(["0", "0.005"]))
def test_equals_looking_at_every_instant(
    path: list[tuple[int, str | None]], hold: int | None, merge: int, open_above: str
) -> None:
    rules = EdgeRules(Decimal(open_above), Decimal(0), merge * MS)
    episodes = found(held(steps(*path), None if hold is None else hold * MS), rules, (0, 70))
    assert [(one.opened_ns // MS, one.closed_ns // MS, one.figure_time / MS) for one in episodes] == reference(
        path, rules, 70, hold
    )


@given(PATHS, st.integers(1, 69))
def test_the_future_changes_nothing_before_it(path: list[tuple[int, str | None]], cut: int) -> None:
    rules = EdgeRules(merge_ns=2 * MS)
    whole = [one for one in found(steps(*path), rules, (0, 70)) if one.closed_ns + rules.merge_ns < cut * MS]
    told = found(steps(*[step for step in path if step[0] < cut]), rules, (0, cut))
    assert [one for one in told if one.closed_ns + rules.merge_ns < cut * MS] == whole


@given(PATHS, st.sets(st.integers(1, 69), max_size=6), st.sampled_from([0, 2, 5]), st.sampled_from([None, 3, 8]))
def test_however_time_is_cut_the_episodes_are_the_same(
    path: list[tuple[int, str | None]], cuts: set[int], merge: int, hold: int | None
) -> None:
    rules = EdgeRules(Decimal("0.005"), Decimal(0), merge * MS)
    told = held(steps(*path), None if hold is None else hold * MS)
    # What changes at the very instant of a cut can be told from either side only.
    edges = [0, *sorted(cuts - {at for at, _ in path} - {at + (hold or 0) for at, _ in path}), 70]
    pieces = [piece for start, end in pairwise(edges) for piece in edge_pieces(told, start * MS, end * MS, rules)]
    whole = found(told, rules, (0, 70))
    assert list(join(pieces, 70 * MS, rules)) == whole


def test_lifetimes_count_the_censored_as_long_as_they_were_seen() -> None:
    found = kaplan_meier([1, 2, 2, 3, 5], [True, True, False, True, False])
    assert list(found.times_s) == [1, 2, 3]
    assert found.shares == pytest.approx((0.8, 0.6, 0.3))
    assert (found.episodes, found.censored) == (5, 2)
    assert found.quantile(0.5) == 3
    assert found.quantile(0.9) is None
    assert kaplan_meier([], []).quantile(0.5) is None
