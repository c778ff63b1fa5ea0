from pathlib import Path

import pytest

from arb_pipeline_tests.capture.fault_matrix import SCENARIOS, can_mount, play, table


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_fault_is_found_out_overcome_and_accounted_for(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    if scenario.mounts and not can_mount():
        pytest.skip("takes the right to mount a small file system, to fill it up: be root")
    result = await play(scenario, tmp_path)
    assert not result.findings, table([result])
    assert result.cases
    assert result.verdict.quotes > 20
    assert result.verdict.changes > 20
