"""Log lines: what they hold, and what they must never hold."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from arb_pipeline.logs import configure_logging
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import ConnectRequest

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIhunter2\nabcd\n-----END RSA PRIVATE KEY-----"
_log = logging.getLogger("arb_pipeline.some.module")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    loggers = [logging.getLogger(), logging.getLogger("arb_pipeline")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_json_line_has_the_event_its_origin_and_every_extra_field(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    with structlog.contextvars.bound_contextvars(run_id="r1", shard="0/2"):
        _log.warning("%s: first gap by %s", "kalshi", "seq_gap", extra={"venue": "kalshi", "counts": {"seq_gap": 2}})
    _log.info("unbound", extra={"text": "two\nlines, \u00fcber"})
    _log.debug("below the level")
    first, second = lines(capsys)
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "level": "warning",
        "logger": "arb_pipeline.some.module",
        "event": "kalshi: first gap by seq_gap",
        "run_id": "r1",
        "shard": "0/2",
        "venue": "kalshi",
        "counts": {"seq_gap": 2},
    }
    assert second["text"] == "two\nlines, \u00fcber"
    assert "run_id" not in second


def test_console_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_level="DEBUG"))
    _log.debug("books arrive", extra={"markets": 3})
    [line] = capsys.readouterr().err.splitlines()
    assert "books arrive" in line
    assert "markets=3" in line
    assert "\x1b" not in line  # no colours into a file


def test_libraries_are_heard_from_warnings_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json", log_level="DEBUG"))
    logging.getLogger("websockets.client").debug("> KALSHI-ACCESS-SIGNATURE: abc")
    logging.getLogger("httpx").info("HTTP Request")
    logging.getLogger("asyncio").warning("slow")
    assert [line["event"] for line in lines(capsys)] == ["slow"]


def test_configuring_again_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())
    configure_logging(Settings(), package_only=True)
    configure_logging(Settings(log_format="json"))
    _log.info("once")
    assert len(lines(capsys)) == 1


def test_where_a_framework_logs_only_the_package_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"), package_only=True)
    logging.getLogger("dagster").error("its own business")
    _log.info("ours")
    assert [line["event"] for line in lines(capsys)] == ["ours"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_is_ever_in_a_line(
    log_format: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALSHI_API_KEY_ID", "key-id-7")
    monkeypatch.setenv("KALSHI_PRIVATE_KEY", PEM)
    settings = Settings(log_format=log_format, postgres_url=SecretStr("postgresql://me:s3same@db/ticks"))
    configure_logging(settings)
    headers = {
        "KALSHI-ACCESS-KEY": "key-id-7",
        "KALSHI-ACCESS-SIGNATURE": "c2lnbmF0dXJl+/==",
        "KALSHI-ACCESS-TIMESTAMP": "1700000000000",
        "Authorization": "Bearer t0ken",
    }
    request = ConnectRequest("wss://me:wspass@venue/ws", headers)
    _log.info("dialling %s with %s", request, settings)
    _log.info("headers %s", headers)
    _log.info("headers %s", list(headers.items()))
    _log.info("fields", extra={"headers": headers, "request": request, "settings": settings, "private_key": "hunter2"})
    _log.info("nested", extra={"tried": [{"password": "s3same"}, ("postgresql://me:s3same@db/ticks",)]})
    _log.info("the answer was\n%s", "GET /ws HTTP/1.1\r\nKALSHI-ACCESS-SIGNATURE: c2lnbmF0dXJl+/==\r\n")
    try:
        raise RuntimeError(f"refused: {headers} {PEM}")
    except RuntimeError:
        _log.exception("not connected")
    text = capsys.readouterr().err
    for secret in ("key-id-7", "c2lnbmF0dXJl", "hunter2", "t0ken", "s3same", "wspass", "abcd"):
        assert secret not in text
    assert "wss://***@venue/ws" in text
    assert "RuntimeError: refused" in text
