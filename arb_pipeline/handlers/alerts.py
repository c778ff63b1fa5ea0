"""Where alerts go: the log, and a webhook."""

import logging
import queue
import threading
from typing import Final

import httpx
import msgspec

from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.handlers.api import Alert

__all__ = ["Alerts"]

_log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 5.0
_MOST_WAITING: Final = 1_000
_LAST_WAIT_S: Final = 3.0
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Alerts:
    """Delivers alerts. A slow webhook holds up nobody: what it cannot take is counted.

    Args:
        webhook: address that gets each alert as a POST of JSON, empty for none. It is a secret: it is never logged.
    """

    def __init__(self, webhook: str = "") -> None:
        self.count = 0
        self.undelivered = 0
        """Alerts that the webhook did not take."""
        self._waiting: queue.Queue[Alert | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        if webhook and not webhook.startswith(("http://", "https://")):
            _log.error("ARB_ALERT_WEBHOOK_URL does not begin with http:// or https://: alerts are only logged")
        elif webhook:
            self._thread = threading.Thread(target=self._deliver, args=(webhook,), name="webhook", daemon=True)
            self._thread.start()

    def send(self, alert: Alert) -> None:
        """Log an alert, and leave it to the webhook's thread."""
        self.count += 1
        body = _body(alert)
        _log.warning("%s", alert.message, extra={"alert": body})
        if self._thread is not None:
            try:
                self._waiting.put_nowait(alert)
            except queue.Full:
                self.undelivered += 1

    def close(self) -> None:
        """Wait a little for the webhook to take the rest."""
        if self._thread is not None and not self._waiting.full():
            self._waiting.put_nowait(None)
            self._thread.join(_LAST_WAIT_S)

    def _deliver(self, webhook: str) -> None:
        # httpx logs addresses, and this one is a secret.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        with httpx.Client(timeout=_TIMEOUT_S, headers={"content-type": "application/json"}) as client:
            while (alert := self._waiting.get()) is not None:
                try:
                    answer = client.post(webhook, content=_encode({"text": alert.message, **_body(alert)}))
                    trouble = "" if answer.is_success else f"HTTP {answer.status_code}"
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    trouble = type(error).__name__
                if trouble:
                    self.undelivered += 1
                    _log.error("the webhook did not take an alert: %s", trouble)


def _body(alert: Alert) -> dict[str, object]:
    return {
        "handler": alert.handler,
        "venue": alert.venue,
        "market_id": alert.market_id,
        "at": datetime_from_ns(alert.at_ns).isoformat(timespec="milliseconds"),
        "details": dict(alert.details),
    }
