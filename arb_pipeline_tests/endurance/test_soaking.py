from dataclasses import replace
from pathlib import Path

import pytest

from arb_pipeline_tests.endurance import soak
from arb_pipeline_tests.endurance.soaking import Sample, growth


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_minute_of_capture_with_churn_grows_and_loses_nothing(tmp_path: Path) -> None:
    result = soak(tmp_path, seconds=40, rate=300, flush_s=1.0, every_s=1.0, settle_s=8, life_s=15)
    assert not result.findings, result.table()
    assert result.taken > 30
    assert min(result.sent.values()) > 1_000


def samples(*memory_mb: float) -> list[Sample]:
    still = Sample(0, 100, 100, 100, outbox=0, sockets=0, sent=0, behind=0, subscribed=0)
    return [replace(still, at_s=5 * number, recorder=held) for number, held in enumerate(memory_mb)]


def test_growth_is_that_of_the_last_third() -> None:
    warm_up = [50 + number for number in range(20)]
    assert growth(samples(*warm_up, *[100] * 10), "recorder") == pytest.approx((0, 6))
    moved, noise = growth(samples(*[100] * 20, *[100 + 2 * number for number in range(10)]), "recorder")
    assert moved == pytest.approx(18)
    assert moved > noise
    moved, noise = growth(samples(*[100] * 20, *[100 + 40 * (number % 2) for number in range(10)]), "recorder")
    assert moved < noise, "up and down is no growth"
