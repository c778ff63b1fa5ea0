"""What assets are given: the settings of this process and the lake they point at."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg

from arb_pipeline.settings import Settings

if TYPE_CHECKING:
    from arb_pipeline.storage.lake import Lake

__all__ = ["Pipeline", "pipeline_resource"]


@dataclass(frozen=True)
class Pipeline:
    """Settings and lake. Settings come from the environment and never become Dagster config, since some are secret."""

    settings: Settings

    @cached_property
    def lake(self) -> "Lake":
        """The lake, opened on first use."""
        from arb_pipeline.storage.lake import Lake  # brings pandas along, which takes a second to load

        return Lake(self.settings.lake, self.settings.exchange_name)


@dg.resource(description="Settings from the environment, and the Parquet lake that they name.")
def pipeline_resource(_context: dg.InitResourceContext) -> Pipeline:
    """Read the settings when a run starts, not when the project loads."""
    return Pipeline(Settings())
