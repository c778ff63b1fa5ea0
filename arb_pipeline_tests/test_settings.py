import json
import re
from pathlib import Path

import pytest
from pydantic import AliasChoices, ValidationError

from arb_pipeline.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PEM = "-----BEGIN PRIVATE KEY-----\nSECRETSECRET\n-----END PRIVATE KEY-----"


def variable(name: str) -> str:
    """The environment variable of a field."""
    alias = Settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0]).upper()
    return f"ARB_{name.upper()}"


def test_hosts_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().kalshi_rest_url == "https://external-api.kalshi.com/trade-api/v2"
    assert Settings().kalshi_ws_url == "wss://external-api-ws.kalshi.com/trade-api/ws/v2"
    monkeypatch.setenv("ARB_KALSHI_ENV", "demo")
    assert Settings().kalshi_rest_url == "https://external-api.demo.kalshi.co/trade-api/v2"
    assert Settings().kalshi_ws_url == "wss://external-api-ws.demo.kalshi.co/trade-api/ws/v2"
    monkeypatch.setenv("ARB_KALSHI_REST_URL", "http://127.0.0.1:9/trade-api/v2/")
    assert Settings().kalshi_rest_url == "http://127.0.0.1:9/trade-api/v2"
    assert Settings().kalshi_ws_url.startswith("wss://external-api-ws.demo")


def test_an_unknown_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARB_KALSHI_ENV", "production")
    with pytest.raises(ValidationError, match="kalshi_env"):
        Settings()


def test_a_relative_lake_is_taken_from_the_working_directory_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARB_LAKE", "data/lake")
    assert Settings().lake == str(tmp_path / "data" / "lake")


@pytest.mark.parametrize("url", ["s3://bucket/lake", "memory://lake"])
def test_a_lake_url_stays_as_it_is(url: str) -> None:
    assert Settings(lake=url).lake == url


def test_an_empty_lake_is_refused() -> None:
    with pytest.raises(ValidationError, match="ARB_LAKE is empty"):
        Settings(lake="")


def test_kalshis_credentials_keep_their_usual_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARB_KALSHI_API_KEY_ID", "not this one")
    monkeypatch.setenv("KALSHI_API_KEY_ID", "key-1")
    monkeypatch.setenv("KALSHI_PRIVATE_KEY_PATH", "/keys/kalshi.pem")
    assert Settings().kalshi_api_key_id == "key-1"
    assert Settings().kalshi_private_key_path == Path("/keys/kalshi.pem")


def test_two_keys_are_refused_without_showing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALSHI_PRIVATE_KEY", "SECRETSECRET")
    monkeypatch.setenv("KALSHI_PRIVATE_KEY_PATH", "/keys/kalshi.pem")
    with pytest.raises(ValidationError, match="keep one of them") as caught:
        Settings()
    assert "SECRETSECRET" not in str(caught.value)


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALSHI_PRIVATE_KEY", PEM)
    monkeypatch.setenv("ARB_POSTGRES_URL", "postgresql://user:SECRETSECRET@db/arb")
    monkeypatch.setenv("ARB_DAGSTER_POSTGRES_URL", "postgresql://user:SECRETSECRET@db/dagster")
    settings = Settings()
    assert "SECRETSECRET" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert settings.kalshi_private_key is not None
    assert settings.kalshi_private_key.get_secret_value() == PEM


def test_the_clock_is_shifted_by_the_setting() -> None:
    assert Settings(clock_offset=-2.5).clock.offset_ns == -2_500_000_000


def test_values_are_typed_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARB_CAPTURE_VENUES", '["polymarket"]')
    monkeypatch.setenv("ARB_MAX_SECONDS", "90")
    monkeypatch.setenv("ARB_POLYMARKET_ASSETS_PER_CONNECTION", "100")
    settings = Settings()
    assert settings.capture_venues == ("polymarket",)
    assert settings.max_seconds == 90
    assert settings.polymarket_assets_per_connection == 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ARB_HTTP_REQUESTS_PER_S", "0"),
        ("ARB_POLYMARKET_ASSETS_PER_CONNECTION", "401"),
        ("ARB_MAX_PAGES", "many"),
        ("ARB_KALSHI_ACCOUNT", "cash"),
    ],
)
def test_impossible_values_name_their_field(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.removeprefix("ARB_").lower()):
        Settings()


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_env_example_lists_every_setting_with_its_default() -> None:
    listed = re.findall(r"^# (.+)\n# ([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    expected = []
    for name, field in Settings.model_fields.items():
        default = field.default
        text = "" if default is None else json.dumps(default) if isinstance(default, tuple) else str(default)
        expected.append((field.description, variable(name), text))
    assert listed == expected


def test_env_example_sets_nothing() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert all(not line or line.startswith("#") for line in lines)
