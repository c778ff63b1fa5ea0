"""A lake with a short capture of the local exchange, evaluated: what the demo makes, in fewer seconds."""

import asyncio
from dataclasses import dataclass

import httpx
import pytest

from arb_pipeline import pipeline
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline_tests.defs.conftest import exchange_in_thread

SECONDS = 15.0
"""Long enough for the first planted episode, which begins after six seconds and lasts four."""
LOST = 3
"""Kalshi frames that the exchange loses on the way."""


@dataclass(frozen=True)
class Captured:
    """A lake; on the way to it the exchange lost some frames."""

    lake: Lake


@pytest.fixture(scope="session")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    folder = tmp_path_factory.mktemp("examples")
    with exchange_in_thread(seed=7) as exchange, pytest.MonkeyPatch.context() as patch:
        places = {
            "ARB_LAKE": str(folder / "lake"),
            "ARB_MATCHES_PATH": str(folder / "matches.yaml"),
            "ARB_LISTENERS_PATH": str(folder / "listeners.yaml"),
            "ARB_CAPTURE_FLUSH_S": "1",
            "ARB_MAX_SECONDS": str(SECONDS),
        }
        for name, value in {**exchange.environment(), **places}.items():
            patch.setenv(name, value)
        patch.setitem(Settings.model_config, "env_file", None)
        settings = Settings()
        lake = Lake(settings.lake, settings.exchange_name)
        start = settings.clock.now()
        for venue in settings.capture_venues:
            asyncio.run(pipeline.discover(venue, settings, lake))
        pipeline.match_markets(settings, lake)
        body = {"kind": "drop_seq", "venue": "kalshi", "count": LOST}
        httpx.post(f"{exchange.announcement()['control_url']}/fault", json=body, timeout=30).raise_for_status()
        pipeline.capture(settings, lake)
        pipeline.evaluate_hours(settings, lake, start, settings.clock.now())
    return Captured(lake)
