import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from arb_pipeline.handlers import Alert
from arb_pipeline.handlers.alerts import Alerts

ALERT = Alert(handler="h", venue="kalshi", market_id="K", at_ns=1_000_000_000, message="up", details={"level": "0.6"})


class Hook:
    """A webhook: what it got, and what it answers."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 204
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/4711"


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    thread = threading.Thread(target=hook.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hook
    hook.server.shutdown()
    thread.join()
    hook.server.server_close()


def test_an_alert_is_logged_and_posted(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    alerts = Alerts(hook.url)
    alerts.send(ALERT)
    alerts.close()
    fields = {
        "handler": "h",
        "venue": "kalshi",
        "market_id": "K",
        "at": "1970-01-01T00:00:01.000+00:00",
        "details": {"level": "0.6"},
    }
    assert hook.got == [{"text": "up", **fields}]
    [record] = caplog.records
    assert record.getMessage() == "up"
    assert vars(record)["alert"] == fields
    assert (alerts.count, alerts.undelivered) == (1, 0)


def test_what_the_webhook_refuses_is_counted_and_its_address_kept_to_itself(
    hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.status = 500
    with caplog.at_level(logging.DEBUG):
        for url in (hook.url, "http://127.0.0.1:1/hook/4711", "http://[/4711"):
            alerts = Alerts(url)
            alerts.send(ALERT)
            alerts.close()
            assert (alerts.count, alerts.undelivered) == (1, 1)
    assert "HTTP 500" in caplog.text
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("httpcore")]
    assert "4711" not in "".join(ours)


def test_an_address_that_is_none_is_told(caplog: pytest.LogCaptureFixture) -> None:
    alerts = Alerts("hooks.example/4711")
    alerts.send(ALERT)
    alerts.close()
    assert "ARB_ALERT_WEBHOOK_URL" in caplog.text
    assert "4711" not in caplog.text
    assert alerts.count == 1
