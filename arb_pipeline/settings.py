"""Every setting once: read from the environment and ``.env``, typed, documented, validated at start.

Names are ``ARB_`` plus the field in capitals, but for the venues' credentials, which keep their usual names.
``.env.example`` lists all of them; a test keeps the two in step.
"""

from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

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
    labelled_pairs: Path | None = Field(
        None, description="file of labelled pairs on which the matcher is measured, JSON lines; unset: not measured"
    )
    listeners_path: Path = Field(Path("listeners.yaml"), description="what to capture")
    reports_path: Path = Field(Path("reports"), description="folder of the HTML reports")
    journal: Path | None = Field(
        None, description="folder of the capture journals; unset: 'journal' beside a local lake, else ~/.local/state"
    )
    postgres_url: SecretStr | None = Field(None, description="Postgres for the tick tables; unset: lake only")
    postgres_retention_days: int | None = Field(
        None, ge=0, description="whole days of ticks that Postgres keeps besides the running one; unset: all"
    )
    dagster_postgres_url: SecretStr | None = Field(
        None, description="Postgres for Dagster's own storage; unset: SQLite under DAGSTER_HOME"
    )
    embedded_postgres: bool = Field(
        False, description="arb up brings a Postgres of its own for what neither of the two URLs names"
    )

    raw_frames_days: float | None = Field(
        None, gt=0, description="days that raw frames are kept in the lake; unset: for ever"
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
    polymarket_user_ws_url: str = Field(
        "wss://ws-subscriptions-clob.polymarket.com/ws/user", description="Polymarket user WebSocket (own account)"
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
    polymarket_fee_rounding: Literal["floor", "half_up"] = Field(
        "floor", description="rounding of a Polymarket fee at its fifth decimal, which is not documented: floor fits"
    )
    poly_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("poly_api_key"), description="Polymarket CLOB API key"
    )
    poly_api_secret: SecretStr | None = Field(
        None, validation_alias=AliasChoices("poly_api_secret"), description="its secret"
    )
    poly_passphrase: SecretStr | None = Field(
        None, validation_alias=AliasChoices("poly_passphrase"), description="its passphrase"
    )
    account: bool = Field(
        False, description="also capture the own account (fills, orders, positions) where there are credentials"
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
    poll_interval_s: float = Field(
        3.0, gt=0, description="seconds between polls where there is no WebSocket; keep it well below max_quote_age_s"
    )
    capture_prewarm_s: float = Field(20.0, ge=0, description="how long before its hour a capture run connects")
    capture_shards: int = Field(
        1, gt=0, description="capture runs beside each other, each with its part of the markets"
    )
    capture_run_tags: dict[str, Any] = Field(
        {}, description="further tags of capture runs in Dagster, as JSON: a Celery queue, a pod's resources"
    )
    capture_lease_s: float = Field(
        30.0, ge=5, description="a capture run without a heartbeat for so many seconds is given up and replaced"
    )
    capture_checkpoint_s: float = Field(
        600.0, gt=0, description="seconds between reports of the running hour, each of which is evaluated"
    )
    capture_refresh_s: float = Field(
        30.0, gt=0, description="seconds between looks of a running capture at new catalogues, pairs and listeners"
    )
    capture_max_markets: int = Field(2_000, gt=0, description="most markets per venue in one capture")
    polymarket_assets_per_connection: int = Field(200, gt=0, le=400, description="assets per Polymarket socket")
    kalshi_markets_per_sid: int = Field(500, gt=0, description="markets per Kalshi subscription and socket")
    kalshi_lifecycle: bool = Field(True, description="subscribe to Kalshi's life-cycle messages of all markets")
    kalshi_data_age_s: float = Field(
        60.0, ge=10, description="silence of a Kalshi market after which its book is asked for again, seconds"
    )
    polymarket_data_age_s: float = Field(
        60.0, ge=10, description="silence of a Polymarket asset after which its book is compared with REST, seconds"
    )
    polymarket_hash_sample: int = Field(
        1, gt=0, description="compute one Polymarket book hash in so many (the hash itself chooses); 1: every one"
    )
    polymarket_witness_s: float = Field(
        60.0, ge=0, description="seconds between comparisons of Polymarket books with REST, silent or not; 0: none"
    )
    polymarket_witness_sample: int = Field(10, gt=0, description="Polymarket books compared each time, per socket")
    max_seconds: float | None = Field(None, description="end a capture after so many seconds; unset: its hour")
    handler_lag_s: float = Field(
        5.0, gt=0, description="handlers that are so many seconds late are told nothing until they have caught up"
    )
    handler_hang_s: float = Field(
        30.0, gt=0, description="a handler that takes longer for one event has its process ended and started again"
    )
    alert_webhook_url: SecretStr | None = Field(
        None, description="gets each alert as a POST of JSON, besides the channels of the alerts file"
    )
    alerts_file: Path = Field(Path("alerts.yaml"), description="rules of alerts, and the channels that alerts go to")

    # arbitrage
    max_quote_age_s: float = Field(5.0, gt=0, description="oldest proof of life of a connection, seconds")
    min_net_usd: float = Field(0.0, description="smallest net profit worth a row, dollars")
    open_edge_usd: float = Field(0.0, ge=0, description="an opportunity opens above this net edge, dollars a contract")
    close_edge_usd: float = Field(0.0, ge=0, description="it closes at this net edge, at most open_edge_usd")
    burst_ms: float = Field(
        500.0, ge=0, description="opportunities closer than this are one, and one that is shorter is none, ms"
    )
    hurdle: float = Field(
        0.04, ge=0, description="a year's return of money that is not locked up, as a fraction: what a pair must beat"
    )
    kalshi_balance_usd: float | None = Field(
        None, gt=0, description="money at Kalshi that opportunities are also sized for, dollars"
    )
    polymarket_balance_usd: float | None = Field(None, gt=0, description="the same at Polymarket")

    # monitoring
    log_format: Literal["console", "json"] = Field("console", description="log lines on standard error: text or JSON")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severity that is logged")
    metrics_port: int | None = Field(
        None, ge=0, le=65_535, description="port of a capture's Prometheus metrics; 0: a free one; unset: none"
    )
    metrics_host: str = Field("127.0.0.1", description="address that the metrics listen on")

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
        if self.close_edge_usd > self.open_edge_usd:
            raise ValueError(
                f"ARB_CLOSE_EDGE_USD {self.close_edge_usd:g} exceeds ARB_OPEN_EDGE_USD {self.open_edge_usd:g}: "
                "an opportunity would close where it opens"
            )
        return self

    @property
    def balances(self) -> tuple[Decimal, Decimal] | None:
        """Money at (Kalshi, Polymarket), dollars; None unless both are told."""
        if self.kalshi_balance_usd is None or self.polymarket_balance_usd is None:
            return None
        return Decimal(str(self.kalshi_balance_usd)), Decimal(str(self.polymarket_balance_usd))

    @property
    def clock(self) -> Clock:
        """The clock that everything but request signatures reads."""
        return Clock.from_offset(self.clock_offset)
