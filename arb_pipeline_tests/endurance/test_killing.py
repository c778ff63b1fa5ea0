from pathlib import Path

import pytest

from arb_pipeline_tests.endurance import kill_trial
from arb_pipeline_tests.endurance.killing import _hole


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_capture_killed_three_times_has_every_frame_once(tmp_path: Path) -> None:
    result = kill_trial(tmp_path, kills=3, rate=300, life_s=3, markets=60, grace_s=1.0)
    assert not result.findings, result.table()
    assert len(result.kills) == 3
    assert all(stretch.due for stretch in result.stretches if stretch.killed is None)
    assert len(result.rows) == 4
    assert min(result.rows.values()) > 0
    assert result.books > 60
    assert result.outages


@pytest.mark.parametrize(
    ("gaps", "hole"),
    [
        ([], (10, 20)),
        ([(0, 30)], None),
        ([(10, 20)], None),
        ([(15, 25), (5, 15)], None),
        ([(5, 14), (15, 25)], (14, 15)),
        ([(11, 20)], (10, 11)),
        ([(0, 19)], (19, 20)),
        ([(0, 12), (1, 20)], None),
        ([(25, 30)], (10, 25)),
    ],
)
def test_a_hole_is_what_no_gap_covers(gaps: list[tuple[int, int]], hole: tuple[int, int] | None) -> None:
    assert _hole(gaps, 10, 20) == hole
