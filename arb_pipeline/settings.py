"""Every setting once: read from the environment and ``.env``, typed, documented, validated at start.

Names are ``ARB_`` plus the field in capitals, but for Kalshi's credentials, which keep the venue's usual names.
``.env.example`` lists all of them; a test keeps the two in step.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from arb_pipeline.clock import Clock

__all__ = ["Settings"]

_KALSHI_HOSTS = {
    "prod": (
        "https://external-api.kalshi.com/trade-api/v2",
        "wss://external-api-ws.kalshi.com/trade-api/ws/v2",
    ),
    "demo": (
        "https://external-api.demo.kalshi.co/trade-api/v2",
        "wss://external-api-ws.demo.kalshi.co/trade-api/ws/v2",
    ),
}


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="ARB_",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        # pydantic would print the value that it refuses, which may be a key
        hide_input_in_errors=True,
    )

    # where things are kept
    lake: str = Field("lake", description="root of the Parquet lake: a folder or any fsspec URL")
    matches_path: Path = Field(Path("matches.yaml"), description="people's decisions on pairs")
    listeners_path: Path = Field(Path("listeners.yaml"), description="what to capture")
    reports_path: Path = Field(Path("reports"), description="folder of the HTML reports")
    journal: Path | None = Field(
        None, description="folder of the capture journals; unset: 'journal' beside a local lake, else ~/.local/state"
    )
    postgres_url: SecretStr | None = Field(None, description="Postgres for the tick tables; unset: lake only")
    dagster_postgres_url: SecretStr | None = Field(
        None, description="Postgres for Dagster's own storage; unset: SQLite under DAGSTER_HOME"
    )

    # venues
    kalshi_env: Literal["prod", "demo"] = Field("prod", description="Kalshi's real or demo environment")
    kalshi_rest_url: str = Field("", description="Kalshi REST root; empty: by kalshi_env")
    kalshi_ws_url: str = Field("", description="Kalshi WebSocket; empty: by kalshi_env")
    polymarket_gamma_url: str = Field("https://gamma-api.polymarket.com", description="Polymarket discovery API")
    polymarket_clob_url: str = Field("https://clob.polymarket.com", description="Polymarket order-book API")
    polymarket_ws_url: str = Field(
        "wss://ws-subscriptions-clob.polymarket.com/ws/market", description="Polymarket market WebSocket"
    )
    kalshi_api_key_id: str = Field(
        "", validation_alias=AliasChoices("kalshi_api_key_id"), description="Kalshi API key id"
    )
    kalshi_private_key_path: Path | None = Field(
        None, validation_alias=AliasChoices("kalshi_private_key_path"), description="PEM file of the key"
    )
    kalshi_private_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("kalshi_private_key"), description="the PEM itself, inline"
    )
    kalshi_account: Literal["direct", "fcm"] = Field(
        "direct", description="how Kalshi rounds your balance: direct member (1e-4) or FCM-cleared (1e-2)"
    )
    exchange_name: str = Field(
        "",
        description="name of the local exchange when data comes from one; stands in every table and report",
    )

    # discovery
    http_timeout_s: float = Field(20.0, gt=0, description="time-out of one REST request, seconds")
    http_retries: int = Field(6, ge=0, description="further tries after a failed REST request")
    http_requests_per_s: float = Field(8.0, gt=0, description="polite limit per venue, requests per second")
    max_pages: int = Field(2_000, gt=0, description="safety stop of one catalogue listing, pages")

    # capture
    capture_venues: tuple[str, ...] = Field(("kalshi", "polymarket"), description="venues to capture")
    flush_ms: float = Field(100.0, gt=0, description="what a killed capture may lose: ms between journal writes")
    capture_flush_s: float = Field(5.0, gt=0, description="seconds between Parquet part files")
    capture_prewarm_s: float = Field(20.0, ge=0, description="how long before its hour a capture run connects")
    capture_max_markets: int = Field(2_000, gt=0, description="most markets per venue in one capture")
    polymarket_assets_per_connection: int = Field(200, gt=0, le=400, description="assets per Polymarket socket")
    kalshi_markets_per_sid: int = Field(500, gt=0, description="markets per Kalshi subscription")
    max_seconds: float | None = Field(None, description="end a capture after so many seconds; unset: its hour")

    # arbitrage
    max_quote_age_s: float = Field(5.0, gt=0, description="oldest proof of life of a connection, seconds")
    min_net_usd: float = Field(0.0, description="smallest net profit worth a row, dollars")

    # time
    clock_offset: float = Field(0.0, description="seconds added to the clock; negative moves into the past")

    @field_validator("lake")
    @classmethod
    def _absolute_lake(cls, value: str) -> str:
        """A bare folder is taken from the working directory once, so that every process means the same place."""
        if not value:
            raise ValueError("ARB_LAKE is empty; give a folder or an fsspec URL such as s3://bucket/lake")
        return value if "://" in value else str(Path(value).expanduser().resolve())

    @model_validator(mode="after")
    def _fill_hosts(self) -> Self:
        rest, socket = _KALSHI_HOSTS[self.kalshi_env]
        self.kalshi_rest_url = (self.kalshi_rest_url or rest).rstrip("/")
        self.kalshi_ws_url = self.kalshi_ws_url or socket
        if self.kalshi_private_key and self.kalshi_private_key_path:
            raise ValueError("KALSHI_PRIVATE_KEY and KALSHI_PRIVATE_KEY_PATH are both set; keep one of them")
        return self

    @property
    def clock(self) -> Clock:
        """The clock that everything but request signatures reads."""
        return Clock.from_offset(self.clock_offset)
