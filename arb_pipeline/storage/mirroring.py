"""After a write to the lake: the same in Postgres, where Postgres is on, and the upkeep that it needs by the day."""

import logging
from datetime import date

from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake

__all__ = ["mirror_tables"]

_log = logging.getLogger(__name__)


def mirror_tables(settings: Settings, lake: Lake, *tables: str, day: date | None = None) -> None:
    """Bring tables in Postgres up to what the lake holds; nothing happens without ``ARB_POSTGRES_URL``.

    Once a day one of the calls takes longer, since it gives the days that are over their indexes.

    The lake is what counts: where Postgres is down or refuses, that is logged, the lake's write stands, and the next
    call or ``arb postgres sync`` makes good what was missed.

    Args:
        day: only this day's partitions were written; None: any may have been.
    """
    if settings.postgres_url is None:
        return
    # Most processes write no table that is mirrored, and these take a second to load.
    from arb_pipeline.storage.postgres import Postgres, PostgresError, index_days, sync  # noqa: PLC0415

    postgres = None
    behind = f"{', '.join(tables)} are in the lake but not yet in Postgres"
    try:
        postgres = Postgres(settings.postgres_url.get_secret_value(), application_name="arb mirror")
        postgres.migrate()
        sync(postgres, lake, tables, day)
        behind = "days that are over lack their index in Postgres"
        index_days(postgres, settings.clock.now())
    except PostgresError as error:
        _log.warning("%s, which the next run or 'arb postgres sync' makes good: %s", behind, error)
    finally:
        if postgres is not None:
            postgres.close()
