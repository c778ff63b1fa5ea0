"""Postgres: the tables as a database keeps them, loaded exactly once from the journal, mirrored from the lake."""

from arb_pipeline.storage.postgres.connection import Postgres
from arb_pipeline.storage.postgres.copying import copy_rows
from arb_pipeline.storage.postgres.embedded import EmbeddedPostgres, embedded_environment
from arb_pipeline.storage.postgres.errors import PostgresError, PostgresUnavailableError
from arb_pipeline.storage.postgres.indexing import index_days
from arb_pipeline.storage.postgres.loading import TickLoader, replace_run
from arb_pipeline.storage.postgres.publishing import mirror, sync

__all__ = [
    "EmbeddedPostgres",
    "Postgres",
    "PostgresError",
    "PostgresUnavailableError",
    "TickLoader",
    "copy_rows",
    "embedded_environment",
    "index_days",
    "mirror",
    "replace_run",
    "sync",
]
