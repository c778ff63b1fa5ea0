"""Where tests find shared data: by environment variable, skipping with a reason where it is not set.

``ARB_REQUIRE_SHARED=1`` (set by ``.ci/run``) turns such a skip into a failure.
"""

import os
from pathlib import Path

import pytest

from arb_pipeline.settings import Settings


def shared_folder(variable: str) -> Path:
    """The folder that an environment variable names; skips (or, under CI, fails) without it."""
    value = os.environ.get(variable)
    if value:
        path = Path(value)
        assert path.is_dir(), f"{variable}={value} is not a folder"
        return path
    reason = f"{variable} is not set: point it at the folder to run this test"
    if os.environ.get("ARB_REQUIRE_SHARED"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings."""
    return shared_folder("ARB_RECORDINGS")


@pytest.fixture(scope="session")
def labelled_pairs() -> Path:
    """The folder of labelled cross-venue pairs."""
    return shared_folder("ARB_MATCHING")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of exact arbitrage cases."""
    return shared_folder("ARB_GOLDEN")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the developer's settings, keys, home or ``.env``."""
    for name in list(os.environ):
        if name.startswith(("ARB_", "KALSHI_", "POLY_", "DAGSTER_")) and name not in {
            "ARB_RECORDINGS",
            "ARB_MATCHING",
            "ARB_GOLDEN",
            "ARB_SPECS",
            "ARB_REQUIRE_SHARED",
            "ARB_ARTIFACTS",
            "ARB_CHROMIUM",
        }:
            monkeypatch.delenv(name)
    monkeypatch.setenv("ARB_LAKE", str(tmp_path / "lake"))
    monkeypatch.setitem(Settings.model_config, "env_file", None)
