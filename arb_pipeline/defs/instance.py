"""Dagster's own storage: SQLite under DAGSTER_HOME, or Postgres where an environment variable names one.

``dagster.yaml`` names :class:`EnvSwitchedStorage`, so that one file serves both.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import dagster as dg
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

if TYPE_CHECKING:
    from dagster._config.config_schema import UserConfigSchema
    from dagster._serdes import ConfigurableClassData

__all__ = ["EnvSwitchedStorage", "with_psycopg2"]


class StorageConfig(TypedDict):
    """What ``dagster.yaml`` may say: the variable that holds the URL, and SQLite's folder below DAGSTER_HOME."""

    url_env: str
    base_dir: str


def with_psycopg2(url: str) -> str:
    """The URL with its driver spelt out as psycopg2.

    SQLAlchemy maps a bare ``postgresql://`` to psycopg 3, which Dagster's event log cannot speak
    (dagster-io/dagster issue 33958).

    Raises:
        ValueError: if the URL is not of Postgres. It is not repeated, since it may hold a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ValueError(f"Dagster's storage needs a postgresql:// URL, not one of scheme {scheme.split(':')[0]!r}")
    return f"postgresql+psycopg2://{rest}"


class EnvSwitchedStorage(DagsterSqliteStorage):
    """Chooses between SQLite and Postgres when Dagster opens its instance."""

    @classmethod
    def config_type(cls) -> "UserConfigSchema":
        """Both settings have defaults."""
        return {
            "url_env": dg.Field(str, is_required=False, default_value="ARB_DAGSTER_POSTGRES_URL"),
            "base_dir": dg.Field(str, is_required=False, default_value="."),
        }

    @classmethod
    def from_config_value(  # type: ignore[override]  # Dagster's own subclasses narrow the config in the same way
        cls,
        inst_data: "ConfigurableClassData | None",  # noqa: ARG003 - Dagster passes it
        config_value: StorageConfig,
    ) -> DagsterStorage:
        """The storage that the environment asks for."""
        if url := os.environ.get(config_value["url_env"]):
            from dagster_postgres import DagsterPostgresStorage

            storage: DagsterStorage = DagsterPostgresStorage(with_psycopg2(url))
            return storage
        # Tools that find dagster.yaml in the working directory without a DAGSTER_HOME share the home of `arb up`,
        # rather than leave their databases in the project's root.
        home = Path(os.environ.get("DAGSTER_HOME") or ".dagster").absolute()
        return DagsterSqliteStorage.from_local(str((home / config_value["base_dir"]).resolve()))
