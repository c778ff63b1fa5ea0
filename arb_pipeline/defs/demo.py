"""The whole pipeline once, in this process, as runs that the UI shows afterwards."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import dagster as dg

from arb_pipeline.definitions import build
from arb_pipeline.defs.automation import ANALYSIS_JOB, DISCOVERY_JOB
from arb_pipeline.defs.capture.supervision import CAPTURE_JOB
from arb_pipeline.defs.describe import exchange_tags
from arb_pipeline.defs.partitions import HOUR, hour_start, partition_key
from arb_pipeline.defs.resources import Pipeline
from arb_pipeline.settings import Settings

__all__ = ["DemoResults", "run_demo_pipeline"]

_QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}
_SHORTEST_S = 2.0
"""A rest of an hour shorter than this is not worth a capture of its own."""


@dataclass
class DemoResults:
    """What was run.

    Attributes:
        partitions: hours captured, as partition keys.
        runs: job to its run ids, in order.
        report: the HTML report.
    """

    partitions: list[str] = field(default_factory=list)
    runs: dict[str, list[str]] = field(default_factory=dict)
    report: Path = Path()


def run_demo_pipeline(
    instance: dg.DagsterInstance,
    settings: Settings,
    max_seconds: float,
    on_step: Callable[[str], None] = lambda _step: None,
    before_analysis: Callable[[], None] = lambda: None,
) -> DemoResults:
    """Discover, capture for a bounded time, match, evaluate and report.

    The capture belongs to the hours of the settings' clock: one run, or two where an hour ends in between. Everything
    runs by explicit keys in the calling process; call it from the main thread for Ctrl-C to end the capture early with
    everything flushed.

    Args:
        instance: Dagster's instance; a persistent one keeps the runs for the UI.
        max_seconds: how long to capture in all.
        on_step: told what begins.
        before_analysis: called between capture and matching.

    Raises:
        Exception: whatever the step that failed raised.
    """
    run = _Runner(instance, settings)
    on_step("discovering markets")
    run.job(DISCOVERY_JOB)
    left = max_seconds
    while left >= _SHORTEST_S or not run.results.partitions:
        key, seconds = _next_capture(settings, left)
        on_step(f"capturing {key} for {seconds:.0f} s")
        config = {"ops": {"capture": {"config": {"max_seconds": seconds}}}}
        run.job(CAPTURE_JOB, key, config)
        run.results.partitions.append(key)
        left -= seconds
    before_analysis()
    for key in run.results.partitions:
        on_step(f"matching and evaluating {key}")
        result = run.job(ANALYSIS_JOB, key)
        (made,) = result.asset_materializations_for_node("arbitrage_report")
        run.results.report = Path(str(made.metadata["report"].value))
    return run.results


def _next_capture(settings: Settings, left: float) -> tuple[str, float]:
    """The hour to capture now and for how long; seconds that are left of it and not worth a run are waited for."""
    now = settings.clock.now()
    key = partition_key(now)
    remaining = (hour_start(key) + HOUR - now).total_seconds()
    if remaining < _SHORTEST_S:
        # A capture may begin ahead of its hour, which it then waits for.
        key = partition_key(now + timedelta(seconds=_SHORTEST_S))
        return key, left + remaining
    return key, min(left, remaining)


class _Runner:
    """Runs jobs of the project in this process."""

    def __init__(self, instance: dg.DagsterInstance, settings: Settings) -> None:
        self._instance = instance
        self._definitions = build(settings)
        self._resources = {"pipeline": Pipeline(settings)}
        self._tags = exchange_tags(settings.exchange_name)
        self.results = DemoResults()

    def job(
        self, name: str, key: str | None = None, config: Mapping[str, object] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Run a job to its end; its failure is raised."""
        result = self._definitions.resolve_job_def(name).execute_in_process(
            run_config={**_QUIET, **(config or {})},
            instance=self._instance,
            partition_key=key,
            tags=self._tags,
            resources=self._resources,
        )
        self.results.runs.setdefault(name, []).append(result.run_id)
        return result
