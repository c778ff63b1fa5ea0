"""What ``workspace.yaml`` loads. Loading reads settings and dials nobody."""

import dagster as dg

from arb_pipeline.defs.alerts import alert_sensor
from arb_pipeline.defs.arbitrage.assets import arbitrage_assets
from arb_pipeline.defs.arbitrage.basis import basis_asset
from arb_pipeline.defs.arbitrage.baskets import basket_assets
from arb_pipeline.defs.automation import jobs, schedules, sensors
from arb_pipeline.defs.capture.assets import capture_assets
from arb_pipeline.defs.describe import exchange_tags
from arb_pipeline.defs.discovery.assets import VENUES, combined_assets, venue_catalogue
from arb_pipeline.defs.maintenance import maintenance_jobs, maintenance_schedules
from arb_pipeline.defs.market_data.assets import market_data_assets
from arb_pipeline.defs.market_data.trades import backfill_trades_job
from arb_pipeline.defs.matching.assets import matching_assets, matching_checks
from arb_pipeline.defs.postgres import postgres_job, postgres_schedule
from arb_pipeline.defs.resources import pipeline_resource
from arb_pipeline.settings import Settings

__all__ = ["build", "defs"]


def build(settings: Settings) -> dg.Definitions:
    """The whole project. Of the settings, only names and intervals enter; assets read theirs when they run."""
    tags = exchange_tags(settings.exchange_name)
    asset_jobs = jobs(settings, tags)
    trades_job = backfill_trades_job(tags)
    lake_jobs = [*maintenance_jobs(tags), postgres_job(tags)]
    return dg.Definitions(
        assets=[
            *(venue_catalogue(venue, tags) for venue in VENUES),
            *combined_assets(tags),
            capture_assets(tags),
            *(made for venue in VENUES for made in market_data_assets(venue, tags)),
            *matching_assets(tags),
            *arbitrage_assets(tags),
            basis_asset(tags),
            basket_assets(tags),
        ],
        asset_checks=matching_checks(),
        jobs=[*asset_jobs, trades_job, *lake_jobs],
        schedules=[*schedules(asset_jobs), *maintenance_schedules(), postgres_schedule()],
        sensors=[*sensors(settings, [*asset_jobs, trades_job, *lake_jobs], tags), alert_sensor()],
        resources={"pipeline": pipeline_resource},
        # Steps share one process: starting one per step would take longer than most steps do.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The project under this process's settings."""
    return build(Settings())
