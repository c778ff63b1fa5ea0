from pathlib import Path

import pytest

from arb_pipeline_tests.endurance import postgres_trial


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_postgres_killed_three_times_has_the_rows_of_the_lake_and_capture_never_paused(tmp_path: Path) -> None:
    result = postgres_trial(tmp_path, stops=3, rate=300, markets=60, up_s=1.0, away_s=4.0, pause_s=2.5)
    assert not result.findings, result.table()
    assert len(result.stops) == 3
    assert min(result.sent.values()) > 100
    assert min(result.rows[name] for name in ("book_events", "quotes", "trades", "capture_sessions")) > 0
