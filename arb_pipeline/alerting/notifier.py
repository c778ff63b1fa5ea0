"""The one notifier: every alert is a line of the log, and goes to channels that are tried again until they take it.

Each channel has a thread and a bounded queue of its own, so that a slow one holds up nobody: what it cannot take is
counted. Addresses and passwords are secrets: they are never logged.
"""

import logging
import queue
import smtplib
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Final

import httpx
import msgspec
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, stop_when_event_set
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_exponential, wait_random

from arb_pipeline.alerting.alert import Alert, body
from arb_pipeline.alerting.rules import DEFAULT, LOG, AlertError, Alerting, Channel, Email, Slack, load_alerting
from arb_pipeline.clock import datetime_from_ns

__all__ = ["DeliveryError", "Notifier", "build_notifier", "channel_senders", "default_trouble"]

_log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 5.0
_MOST_WAITING: Final = 1_000
_TRIES: Final = 6
_BACKOFF_S: Final = (0.5, 20.0)
_LAST_WAIT_S: Final = 10.0
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_encode = msgspec.json.Encoder(enc_hook=str).encode


class DeliveryError(Exception):
    """A channel did not take an alert; the message says why without its address."""


class _WorthAnotherTryError(DeliveryError):
    """It may take it later."""


Send = Callable[[Alert], None]
"""Delivers one alert; raises :class:`DeliveryError` or AlertError."""


class Notifier:
    """Delivers alerts.

    Args:
        senders: by channel name, what delivers to it.
        renewed: asked before each alert: other senders if there are any now, None if they stay.
        tries: how often a channel is tried for one alert.
        backoff_s: first and longest pause between two tries, seconds.

    Attributes:
        count: alerts that were sent. undelivered: deliveries that failed for good, or were not begun for lack of room
            or of the channel that the alert names.
    """

    def __init__(
        self,
        senders: Iterable[tuple[str, Send]] = (),
        *,
        renewed: Callable[[], Iterable[tuple[str, Send]] | None] = lambda: None,
        tries: int = _TRIES,
        backoff_s: tuple[float, float] = _BACKOFF_S,
        most_waiting: int = _MOST_WAITING,
    ) -> None:
        self.count = 0
        self._refused = 0
        self._closing = threading.Event()
        self._renewed = renewed
        self._options = (tries, backoff_s, most_waiting, self._closing)
        self._lanes = self._begun(senders)
        self._past: list[_Lane] = []
        """Lanes that were replaced; they deliver what they were given."""

    @property
    def undelivered(self) -> int:
        """See the class."""
        return self._refused + sum(lane.failed for lane in self._all)

    def send(self, alert: Alert) -> None:
        """Log an alert, and leave it to its channels; never waits."""
        self.count += 1
        _log.warning("%s", alert.message, extra={"alert": body(alert)})
        self._renew()
        for name in alert.channels or self._lanes:
            lane = self._lanes.get(name)
            if lane is None and name != LOG:
                _log.error("there is no channel %r: an alert does not go there; see 'arb alerts check'", name)
                self._refused += 1
            elif lane is not None and not lane.put(alert):
                self._refused += 1

    def close(self, wait_s: float = _LAST_WAIT_S) -> None:
        """Give the channels so long to take what waits; what is left then is undelivered."""
        deadline = time.monotonic() + wait_s
        for lane in self._lanes.values():
            lane.end()
        for lane in self._all:
            lane.join(max(0.0, deadline - time.monotonic()))
        self._closing.set()
        self._refused += sum(lane.leave() for lane in self._all)

    @property
    def _all(self) -> "list[_Lane]":
        return [*self._past, *self._lanes.values()]

    def _begun(self, senders: Iterable[tuple[str, Send]]) -> "dict[str, _Lane]":
        return {name: _Lane(name, send, *self._options) for name, send in senders}

    def _renew(self) -> None:
        senders = self._renewed()
        if senders is not None:
            for lane in self._lanes.values():
                lane.end()
            self._past += self._lanes.values()
            self._lanes = self._begun(senders)


class _Lane:
    """One channel's queue and thread."""

    def __init__(  # noqa: PLR0917 - what the notifier knows
        self,
        name: str,
        send: Send,
        tries: int,
        backoff_s: tuple[float, float],
        most_waiting: int,
        closing: threading.Event,
    ) -> None:
        self.failed = 0
        self._name = name
        self._send = send
        self._unfinished = 0
        self._is_left = False
        self._lock = threading.Lock()
        self._waiting: queue.Queue[Alert | None] = queue.Queue(most_waiting + 1)
        self._most = most_waiting
        first, longest = backoff_s
        self._retrying = Retrying(
            stop=stop_after_attempt(tries) | stop_when_event_set(closing),
            wait=wait_exponential(multiplier=first, max=longest) + wait_random(0, first),
            retry=retry_if_exception_type(_WorthAnotherTryError),
            sleep=sleep_using_event(closing),
        )
        self._thread = threading.Thread(target=self._deliver, name=f"alerts to {name}", daemon=True)
        self._thread.start()

    def put(self, alert: Alert) -> bool:
        """Queue an alert; whether there was room."""
        with self._lock:
            if self._unfinished >= self._most:
                return False
            self._unfinished += 1
        self._waiting.put(alert)
        return True

    def end(self) -> None:
        """Nothing more comes."""
        self._waiting.put(None)

    def join(self, wait_s: float) -> None:
        """Wait for the thread."""
        self._thread.join(wait_s)

    def leave(self) -> int:
        """Try no more; alerts that are neither delivered nor given up."""
        with self._lock:
            self._is_left = True
            return self._unfinished

    def _deliver(self) -> None:
        # httpx logs addresses, and these are secrets.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        while (alert := self._waiting.get()) is not None:
            trouble = self._tried(alert)
            with self._lock:
                if self._is_left:
                    return
                self._unfinished -= 1
                self.failed += bool(trouble)
            if trouble:
                _log.error("channel %r did not take an alert: %s", self._name, trouble)

    def _tried(self, alert: Alert) -> str:
        """Why it could not be delivered, empty if it was."""
        try:
            self._retrying(self._send, alert)
        except RetryError as error:
            return f"{error.last_attempt.exception()}, tried {error.last_attempt.attempt_number} times"
        except (DeliveryError, AlertError) as error:
            return str(error)
        except Exception as error:
            # Whatever a library says may hold the address.
            return type(error).__name__
        return ""


def build_notifier(path: Path, webhook: str = "") -> Notifier:
    """The notifier of an alerts' file and of the webhook of the settings; it follows the file as that changes.

    A file that cannot be used costs its channels, not the alerts: it is logged.
    """
    channels = _Channels(path, webhook)
    return Notifier(channels() or (), renewed=channels)


class _Channels:
    """What delivers to the channels of a file, when it is called first and each time that the file has changed."""

    def __init__(self, path: Path, webhook: str) -> None:
        self._path = path
        self._webhook = webhook
        self._version: object = None
        self._channels: tuple[Channel, ...] = ()
        self._is_new = True

    def __call__(self) -> list[tuple[str, Send]] | None:
        version = _version(self._path)
        is_first, self._is_new = self._is_new, False
        if not is_first and version == self._version:
            return None
        self._version = version
        try:
            channels = load_alerting(self._path).channels
        except AlertError as error:
            kept = "alerts go to no channel of the file" if is_first else "channels stay as they were"
            _log.error("%s: %s", kept, error)
            channels = self._channels
        if not is_first and channels == self._channels:
            return None
        self._channels = channels
        return channel_senders(channels, self._webhook)


def _version(path: Path) -> tuple[int, int, int] | None:
    """Tells one content of a file from another without reading it; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def channel_senders(channels: Sequence[Channel], webhook: str = "") -> list[tuple[str, Send]]:
    """What delivers to the configured channels, and to the webhook of the settings, named ``default``.

    A secret is looked up anew at each delivery, so that one that is changed needs no restart.
    """
    senders = [(channel.name, _sender(channel)) for channel in channels]
    if webhook and not webhook.startswith(("http://", "https://")):
        _log.error("ARB_ALERT_WEBHOOK_URL does not begin with http:// or https://: alerts do not go there")
    elif webhook:
        senders.append((DEFAULT, lambda alert: post(webhook, _document(alert))))
    return senders


def default_trouble(alerting: Alerting, webhook: str) -> str:
    """Why the channel ``default`` cannot be used, empty if it can or if no active rule names it."""
    wanting = [rule.name for rule in alerting.active if DEFAULT in rule.notify]
    if not wanting or webhook.startswith(("http://", "https://")):
        return ""
    wrong = "does not begin with http:// or https://" if webhook else "is not set"
    return f"ARB_ALERT_WEBHOOK_URL {wrong}, and rule {wanting[0]!r} notifies {DEFAULT!r}: correct one of them"


def _sender(channel: Channel) -> Send:
    if isinstance(channel, Email):
        return lambda alert: _mail(channel, alert)
    if isinstance(channel, Slack):
        return lambda alert: post(channel.url(), _slack(alert))
    return lambda alert: post(channel.url(), _document(alert))


def post(url: str, document: object) -> None:
    """POST a document as JSON.

    Raises:
        DeliveryError: if it is not taken.
    """
    try:
        answer = httpx.post(
            url, content=_encode(document), headers={"content-type": "application/json"}, timeout=_TIMEOUT_S
        )
    except httpx.TransportError as error:
        raise _WorthAnotherTryError(type(error).__name__) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DeliveryError(type(error).__name__) from None
    if answer.status_code in _TRANSIENT:
        raise _WorthAnotherTryError(f"HTTP {answer.status_code}")
    if not answer.is_success:
        raise DeliveryError(f"HTTP {answer.status_code}")


def _document(alert: Alert) -> dict[str, object]:
    return {"text": alert.message, **body(alert)}


def _slack(alert: Alert) -> dict[str, object]:
    """A message of Slack's markup, in which ``&``, ``<`` and ``>`` are escaped (api.slack.com/reference/surfaces)."""
    text = alert.message.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    sign = {"resolved": ":white_check_mark:", "test": ":wrench:"}.get(alert.state, ":rotating_light:")
    return {"text": f"{sign} {text}"}


def _mail(channel: Email, alert: Alert) -> None:
    """Send one mail.

    Raises:
        DeliveryError: if the server does not take it for all recipients.
        AlertError: if there is no password.
    """
    message = EmailMessage()
    message["From"], message["To"] = channel.sender, ", ".join(channel.to)
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="arb-pipeline.invalid")
    message["Subject"] = " ".join(f"[arb] {alert.message}".split())[:200]
    told = [f"{name}: {value}" for name, value in alert.details.items()]
    at = datetime_from_ns(alert.at_ns)
    message.set_content("\n".join([alert.message, "", f"at: {at:%Y-%m-%d %H:%M:%S.%f} UTC", *told]))
    password = None if channel.username is None else channel.password()
    try:
        refused = _submit(channel, message, password)
    except smtplib.SMTPResponseException as error:
        # 4xx: not now, 5xx: never (RFC 5321, 4.2.1). The server's words may repeat what it was told.
        kind = _WorthAnotherTryError if 400 <= error.smtp_code < 500 else DeliveryError
        raise kind(f"SMTP {error.smtp_code} ({type(error).__name__})") from None
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted({code for code, _ in error.recipients.values()})
        kind = _WorthAnotherTryError if all(400 <= code < 500 for code in codes) else DeliveryError
        raise kind(f"SMTP {', '.join(map(str, codes))}: every recipient was refused") from None
    except ssl.SSLError as error:
        raise DeliveryError(f"TLS: {error.reason or type(error).__name__}") from None
    except smtplib.SMTPNotSupportedError:
        raise DeliveryError("the server does not offer what 'tls' or 'username' asks for") from None
    except (OSError, smtplib.SMTPException) as error:
        raise _WorthAnotherTryError(type(error).__name__) from None
    if refused:
        raise DeliveryError(f"{len(refused)} of {len(channel.to)} recipients were refused")


def _submit(channel: Email, message: EmailMessage, password: str | None) -> dict[str, tuple[int, bytes]]:
    context = ssl.create_default_context()
    server: smtplib.SMTP
    if channel.tls == "implicit":
        server = smtplib.SMTP_SSL(channel.host, channel.port, timeout=channel.timeout_s, context=context)
    else:
        server = smtplib.SMTP(channel.host, channel.port, timeout=channel.timeout_s)
    with server:
        if channel.tls == "starttls":
            server.starttls(context=context)
        if channel.username is not None and password is not None:
            server.login(channel.username, password)
        return server.send_message(message)
