"""The notifier against servers on this machine."""

import asyncio
import base64
import datetime
import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_string
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from arb_pipeline.alerting.alert import Alert
from arb_pipeline.alerting.notifier import Notifier, _WorthAnotherTryError, build_notifier, channel_senders
from arb_pipeline.alerting.rules import Email, Slack, Webhook
from arb_pipeline_tests.alerting.hook import Hook, serving, wait_until

ALERT = Alert(handler="h", venue="kalshi", market_id="K", at_ns=1_000_000_000, message="up", details={"level": "0.6"})
FIRED = Alert(
    handler="r",
    venue="kalshi",
    market_id="K",
    at_ns=1_000_000_000,
    message="r: <K> & more",
    subject="K",
    state="fired",
    channels=("desk",),
)
QUICK: dict[str, Any] = {"backoff_s": (0.001, 0.002)}
FIELDS = {
    "handler": "h",
    "venue": "kalshi",
    "market_id": "K",
    "at": "1970-01-01T00:00:01.000+00:00",
    "details": {"level": "0.6"},
}


@pytest.fixture
def hook() -> Iterator[Hook]:
    with serving() as hook:
        yield hook


def webhook(monkeypatch: pytest.MonkeyPatch, url: str, name: str = "hook") -> Webhook:
    monkeypatch.setenv(f"{name.upper()}_URL", url)
    return Webhook(name=name, kind="webhook", url_env=f"{name.upper()}_URL")


def test_an_alert_is_logged_and_posted(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(channel_senders((), hook.url))
    notifier.send(ALERT)
    notifier.close()
    assert hook.got == [{"text": "up", **FIELDS}]
    [record] = caplog.records
    assert record.getMessage() == "up"
    assert vars(record)["alert"] == FIELDS
    assert (notifier.count, notifier.undelivered) == (1, 0)


def test_what_fails_twice_is_tried_until_it_is_taken(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    hook.statuses = [503, 429]
    notifier = Notifier(channel_senders((), hook.url), **QUICK)
    notifier.send(ALERT)
    notifier.close()
    assert [one["text"] for one in hook.got] == ["up"] * 3
    assert notifier.undelivered == 0
    assert "did not take" not in caplog.text


def test_what_is_never_taken_is_given_up_and_counted(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    hook.statuses = [500] * 3 + [404]
    notifier = Notifier(channel_senders((), hook.url), tries=3, **QUICK)
    notifier.send(ALERT)
    wait_until(lambda: notifier.undelivered == 1)
    assert "HTTP 500, tried 3 times" in caplog.text
    notifier.send(ALERT)
    wait_until(lambda: notifier.undelivered == 2)
    assert "HTTP 404" in caplog.text, "the answer would be the same"
    notifier.send(ALERT)
    notifier.close()
    assert (len(hook.got), notifier.undelivered) == (5, 2)


def test_addresses_are_in_no_log(hook: Hook, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    hook.statuses = [404]
    urls = (hook.url, "http://127.0.0.1:1/hook/4711", "http://[/4711", "hooks.example/4711")
    channels = [webhook(monkeypatch, url, f"hook{number}") for number, url in enumerate(urls)]
    with caplog.at_level(logging.DEBUG):
        notifier = Notifier(channel_senders(channels, "also.example/4711"), tries=2, **QUICK)
        notifier.send(ALERT)
        notifier.close()
    assert notifier.undelivered == 4
    assert "HTTP 404" in caplog.text
    assert "ARB_ALERT_WEBHOOK_URL does not begin" in caplog.text
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("httpcore")]
    assert "4711" not in "".join(ours)


def test_an_alert_goes_to_the_channels_that_it_names(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_URL", hook.url)
    desk = Slack(name="desk", kind="slack", url_env="SLACK_URL")
    notifier = Notifier(channel_senders([desk, webhook(monkeypatch, hook.url)]))
    notifier.send(FIRED)
    wait_until(lambda: len(hook.got) == 1)
    assert hook.got == [{"text": ":rotating_light: r: &lt;K&gt; &amp; more"}]
    notifier.send(ALERT)
    wait_until(lambda: len(hook.got) == 3)
    notifier.close()


def test_a_slow_channel_holds_up_nobody_and_is_bounded() -> None:
    stuck = threading.Event()
    taken: list[Alert] = []

    def slow(_: Alert) -> None:
        stuck.wait(30)

    notifier = Notifier([("slow", slow), ("quick", taken.append)], most_waiting=2)
    for _ in range(5):
        notifier.send(ALERT)
        wait_until(lambda: len(taken) == notifier.count)
    assert notifier.undelivered == 3, "two are waited for, the others had no room"
    notifier.close(wait_s=0.01)
    assert notifier.undelivered == 5
    stuck.set()


def test_whatever_a_sender_raises_costs_that_delivery_only(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Alert) -> None:
        raise RuntimeError("http://127.0.0.1/4711")

    notifier = Notifier([("broken", broken)])
    notifier.send(ALERT)
    notifier.send(ALERT)
    notifier.close()
    assert notifier.undelivered == 2
    assert "RuntimeError" in caplog.text
    assert "4711" not in caplog.text


def test_an_alert_to_a_channel_that_there_is_not_is_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier()
    notifier.send(msgspec.structs.replace(FIRED, channels=("desk", "default", "log")))
    notifier.close()
    assert notifier.undelivered == 2
    assert "no channel 'desk'" in caplog.text
    assert "no channel 'default'" in caplog.text
    assert "no channel 'log'" not in caplog.text


def test_channels_are_those_of_the_file_as_it_is_now(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOOK", hook.url)
    path = tmp_path / "alerts.yaml"
    notifier = build_notifier(path)
    path.write_text("channels: [{name: desk, kind: webhook, url_env: HOOK}]")
    notifier.send(FIRED)
    wait_until(lambda: len(hook.got) == 1)
    path.write_text("channels: [{name: desk, kind: pigeon}]")
    notifier.send(FIRED)
    assert "channels stay as they were" in caplog.text
    path.write_text("channels: [{name: other, kind: webhook, url_env: HOOK}]")
    notifier.send(FIRED)
    notifier.send(msgspec.structs.replace(FIRED, channels=("other",)))
    notifier.close()
    assert (len(hook.got), notifier.count, notifier.undelivered) == (3, 4, 1), "nothing that waited was lost"


def test_once_closed_a_channel_is_not_tried_any_more() -> None:
    tried = threading.Semaphore(0)

    def failing(_: Alert) -> None:
        tried.release()
        raise _WorthAnotherTryError("not now")

    notifier = Notifier([("slow", failing)], tries=1_000, backoff_s=(60.0, 60.0))
    for _ in range(20):
        notifier.send(ALERT)
    assert tried.acquire(timeout=20)
    notifier.close(0.0)
    assert notifier.undelivered == 20
    [lane] = notifier._lanes.values()
    lane.join(20)
    assert not lane._thread.is_alive()
    assert tried._value <= 2, "without its pauses it would have been tried a thousand times"
    assert notifier.undelivered == 20


def test_a_file_that_cannot_be_used_costs_its_channels_only(
    hook: Hook, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "alerts.yaml"
    path.write_text("channels: [{name: a, kind: pigeon}]")
    notifier = build_notifier(path, hook.url)
    notifier.send(ALERT)
    notifier.close()
    assert len(hook.got) == 1
    assert "kind 'pigeon' is none" in caplog.text


# --- mail --------------------------------------------------------------------------------------------------


@dataclass
class Mailbox:
    """A mail server: what it got, and how it answers RCPT at first."""

    port: int = 0
    got: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext | None = None
    ) -> None:
        secured = False

        async def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")
            await writer.drain()

        await say("220 ready")
        while line := (await reader.readline()).decode().strip():
            word = line.upper()
            if word.startswith("EHLO"):
                offers = ["mailbox", *(["STARTTLS"] if tls and not secured else []), *(["AUTH PLAIN"] * secured)]
                for number, offer in enumerate(offers, 1):
                    await say(f"250{' ' if number == len(offers) else '-'}{offer}")
            elif word == "STARTTLS":
                await say("220 go")
                assert tls is not None
                await writer.start_tls(tls)
                secured = True
            elif word.startswith("AUTH PLAIN"):
                self.logins.append(base64.b64decode(line.split()[2]).decode())
                await say("235 in" if self.logins[-1].endswith("right-4711") else "535 you said wrong-4711")
            elif word.startswith("RCPT") and self.refusals:
                await say(self.refusals.pop(0))
            elif word == "DATA":
                await say("354 go on")
                text = await reader.readuntil(b"\r\n.\r\n")
                self.got.append(text.decode())
                await say("250 taken")
            elif word == "QUIT":
                await say("221 bye")
                break
            else:
                await say("250 ok")
        writer.close()


@contextmanager
def mailbox(tls: ssl.SSLContext | None = None) -> Iterator[Mailbox]:
    box = Mailbox()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def within(call: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(call, loop).result(30)

    try:
        server = within(asyncio.start_server(lambda r, w: box.serve(r, w, tls), "127.0.0.1", 0))
        box.port = server.sockets[0].getsockname()[1]
        yield box
        server.close()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def email(box: Mailbox, **fields: Any) -> Email:
    given = {"host": "localhost", "port": box.port, "tls": "none", "from": "arb@example.org", "to": ["a@b", "c@d"]}
    return Email.model_validate({"name": "mail", "kind": "email", **given, **fields})


def deliver(channel: Email, alert: Alert = ALERT, **options: Any) -> Notifier:
    notifier = Notifier(channel_senders([channel]), **{**QUICK, **options})
    notifier.send(alert)
    notifier.close(30)
    return notifier


def test_a_mail_holds_the_alert_in_plain_words() -> None:
    with mailbox() as box:
        box.refusals = ["450 later", "450 later"]  # one for each recipient
        notifier = deliver(email(box), Alert(**{**_fields(ALERT), "message": "up\nBcc: x@y"}))
    assert notifier.undelivered == 0
    [text] = box.got
    mail = message_from_string(text)
    assert (mail["Subject"], mail["From"], mail["To"], mail["Bcc"]) == (
        "[arb] up Bcc: x@y",
        "arb@example.org",
        "a@b, c@d",
        None,
    )
    assert "at: 1970-01-01 00:00:01.000000 UTC" in str(mail.get_payload())
    assert "level: 0.6" in str(mail.get_payload())


def _fields(alert: Alert) -> dict[str, Any]:
    return {name: getattr(alert, name) for name in alert.__struct_fields__}


def test_a_server_that_refuses_for_good_is_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    with mailbox() as box:
        box.refusals = ["550 no such user"] * 2 + ["250 ok"] * 9
        notifier = deliver(email(box))
    assert (notifier.undelivered, box.got) == (1, [])
    assert "SMTP 550" in caplog.text


def test_a_mail_that_one_recipient_does_not_get_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with mailbox() as box:
        box.refusals = ["550 no such user"]
        notifier = deliver(email(box))
    assert (notifier.undelivered, len(box.got)) == (1, 1)
    assert "1 of 2 recipients were refused" in caplog.text


def test_nobody_listening_is_tried_again_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    notifier = deliver(email(Mailbox(port=1)), tries=2)
    assert notifier.undelivered == 1
    assert "tried 2 times" in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own for localhost, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


Log = pytest.LogCaptureFixture
Patch = pytest.MonkeyPatch


def test_starttls_comes_before_the_password(certificate: Path, tls: ssl.SSLContext, monkeypatch: Patch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("MAIL_PASSWORD", "right-4711")
    with mailbox(tls) as box:
        notifier = deliver(email(box, tls="starttls", username="me", password_env="MAIL_PASSWORD"))
    assert (notifier.undelivered, len(box.got)) == (0, 1)
    assert box.logins == ["\0me\0right-4711"]


@pytest.mark.parametrize(
    "case",
    [("wrong password", "SMTP 535"), ("unknown certificate", "TLS: CERTIFICATE_VERIFY_FAILED"), ("no TLS", "offer")],
)
def test_no_password_is_shown_whatever_goes_wrong(
    certificate: Path, tls: ssl.SSLContext, monkeypatch: Patch, caplog: Log, case: tuple[str, str]
) -> None:
    wrong, told = case
    if wrong != "unknown certificate":
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("MAIL_PASSWORD", "wrong-4711")
    with caplog.at_level(logging.DEBUG), mailbox(None if wrong == "no TLS" else tls) as box:
        channel = email(box, tls="starttls", username="me", password_env="MAIL_PASSWORD")
        notifier = deliver(channel)
    assert (notifier.undelivered, box.got) == (1, [])
    assert told in caplog.text
    assert "4711" not in caplog.text + repr(channel)
    assert bool(box.logins) == (wrong == "wrong password"), "it is sent over TLS to whom it belongs, or not at all"


def test_a_secret_that_is_not_there_is_told(caplog: pytest.LogCaptureFixture) -> None:
    channel: Webhook = Webhook(name="hook", kind="webhook", url_env="NO_SUCH_URL")
    notifier = Notifier(channel_senders([channel]))
    notifier.send(ALERT)
    notifier.close()
    assert notifier.undelivered == 1
    assert "NO_SUCH_URL is not set" in caplog.text
