from pathlib import Path

from arb_pipeline.settings import Settings
from bench.durable import made_frames, measure


async def test_the_time_from_receipt_to_disk_is_measured_over_every_frame(tmp_path: Path) -> None:
    settings = Settings(flush_ms=50)
    made = made_frames(settings, 300)
    assert len(made[1]) == 300
    found = await measure(1_000, 0.8, tmp_path, settings, made)
    assert found.frames > 300, "several connections, one after the other"
    assert 0 < found.p50_ms <= found.p99_ms <= found.max_ms
    # Nothing is durable before the next write; waiting for it takes half an interval on average.
    assert found.max_ms > 40
    assert found.syncs > 2
    assert found.reached <= 1_000
