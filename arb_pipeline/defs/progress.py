"""Progress of long steps in a run's log, without flooding it."""

import time
from collections.abc import Callable

import dagster as dg

__all__ = ["log_progress"]

_EVERY_S = 5.0


def log_progress(
    log: dg.DagsterLogManager, every_s: float = _EVERY_S, monotonic: Callable[[], float] = time.monotonic
) -> Callable[[str, int], None]:
    """A progress callback that logs each step's first report and then at most one every few seconds.

    Every log line is a row in Dagster's event log, which has no retention.
    """
    last: dict[str, float] = {}

    def progress(step: str, count: int) -> None:
        now = monotonic()
        if now - last.get(step, float("-inf")) >= every_s:
            last[step] = now
            log.info("%s: %d", step, count)

    return progress
