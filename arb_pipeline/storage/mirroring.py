"""After a write to the lake: the same in Postgres, where Postgres is on."""

import logging
from datetime import date

from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake

__all__ = ["mirror_tables"]

_log = logging.getLogger(__name__)


def mirror_tables(settings: Settings, lake: Lake, *tables: str, day: date | None = None) -> None:
    """Bring tables in Postgres up to what the lake holds; nothing happens without ``ARB_POSTGRES_URL``.

    The lake is what counts: where Postgres is down or refuses, that is logged, the lake's write stands, and the next
    call or ``arb postgres sync`` makes good what was missed.

    Args:
        day: only this day's partitions were written; None: any may have been.
    """
    if settings.postgres_url is None:
        return
    # Most processes write no table that is mirrored, and these take a second to load.
    from arb_pipeline.storage.postgres import Postgres, PostgresError, sync  # noqa: PLC0415

    postgres = None
    try:
        postgres = Postgres(settings.postgres_url.get_secret_value(), application_name="arb mirror")
        postgres.migrate()
        sync(postgres, lake, tables, day)
    except PostgresError as error:
        _log.warning(
            "%s are in the lake but not yet in Postgres, which the next run or 'arb postgres sync' makes good: %s",
            ", ".join(tables),
            error,
        )
    finally:
        if postgres is not None:
            postgres.close()
