from decimal import Decimal
from pathlib import Path

import pytest

from arb_pipeline.alerting.rules import (
    AlertError,
    Alerting,
    CaptureStalled,
    Email,
    NetEdge,
    Spread,
    Webhook,
    load_alerting,
    matches,
    parse_alerting,
)
from arb_pipeline.settings import Settings

PATH = Path("alerts.yaml")
CONDITION = "0x" + "ab" * 31

WHOLE = """
channels:
  - {name: desk, kind: slack, url_env: SLACK}
  - {name: hook, kind: webhook, url_file: hook.txt}
  - {name: mail, kind: email, host: localhost, port: 25, tls: none, from: arb@example.org, to: me@example.org}
positions: held.yaml
rules:
  - {name: paying, kind: net_edge, above: 0.01, size: 100, for_seconds: 5, repeat_after: 3600, notify: [desk, log]}
  - {name: tight, kind: spread, at_most: 0.01, min_size: 100, venues: kalshi, markets: [NO, KX*]}
  - {name: moved, kind: price_move, by: 0.05, direction: loss, over: tables}
  - {name: gaps, kind: gap_share, above: 0.02, minutes: 30}
  - {name: stalled, kind: capture_stalled, after_seconds: 90, is_active: false}
"""


def test_the_whole_file_is_read_as_text() -> None:
    alerting = parse_alerting(WHOLE, PATH)
    assert [type(channel) for channel in alerting.channels][2] is Email
    paying, tight = alerting.rules[:2]
    assert isinstance(paying, NetEdge)
    assert (paying.above, paying.hold_ns, paying.repeat_ns) == (Decimal("0.01"), 5 * 10**9, 3_600 * 10**9)
    assert isinstance(tight, Spread)
    assert tight.markets == ("NO", "KX*"), "YAML's no is a ticker here"
    assert [rule.name for rule in alerting.active] == ["paying", "tight", "moved", "gaps"]
    assert alerting.positions_path(Path("/etc/arb/alerts.yaml")) == Path("/etc/arb/held.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "sections 'rules', 'channels' and 'positions'"),
        ("rule: []", "sections 'rules'"),
        ("rules: {a: b}", "rules holds no list"),
        ("rules: [{name: a", "is not YAML"),
        ("rules: [a]", "rule 1"),
        ("rules: [{kind: spread, at_most: 0.1}]", "rule 1: name is missing: give it"),
        ("rules: [{name: a, kind: spred}]", "rule 'a': kind 'spred' is none.*'spread'"),
        ("rules: [{name: a, kind: spread}]", "rule 'a': at_most is missing"),
        ("rules: [{name: a, kind: spread, at_most: x}]", "at_most: Input should be a valid decimal, got 'x'"),
        ("rules: [{name: a, kind: spread, at_most: 0.12345}]", "at_most: .*got '0.12345'"),
        ("rules: [{name: a, kind: net_edge, above: -1, size: 1}]", "above: .*greater than or equal to 0, got '-1'"),
        ("rules: [{name: a, kind: net_edge, above: nan, size: 1}]", "above: .*finite"),
        ("rules: [{name: a, kind: net_edge, above: 0, size: 1, pairs: KX}]", r"pairs.*got 'KX'"),
        ("rules: [{name: a, kind: spread, at_most: 0.1, pairs: a=b}]", "pairs is no field of kind spread"),
        (
            "rules: [{name: a, kind: spread, at_most: 0.1, venues: intrade}]",
            "venues.0: no venue .intrade.",
        ),
        ("rules: [{name: a, kind: spread, at_most: 0.1, notify: desk}]", "no channel 'desk': there are log, default"),
        ("rules: [{name: a, kind: price_move, by: 0.1}]", "no positions to compare with"),
        ("rules: [{name: a, kind: capture_stalled}, {name: a, kind: capture_stalled}]", "two rules have that name"),
        ("channels: [{name: log, kind: slack, url_env: X}]", "channel 'log': that name is taken"),
        ("channels: [{name: a, kind: slack}]", "either url_env or url_file"),
        ("channels: [{name: a, kind: email, host: h, from: a@b}]", "to is missing"),
        ("channels: [{name: a, kind: email, host: h, from: a@b, to: c@d, username: u}]", "username goes with"),
        (
            "channels: [{name: a, kind: email, host: h, from: a@b, to: c, username: u, password_env: P, tls: none}]",
            "in the clear",
        ),
    ],
)
def test_errors_name_the_place_the_field_the_value_and_the_remedy(text: str, told: str) -> None:
    with pytest.raises(AlertError, match=f"(?s)^alerts.yaml.*{told}"):
        parse_alerting(text, PATH)


@pytest.mark.parametrize("text", ["", "# nothing\n", "rules:\n"])
def test_an_empty_file_has_no_rules(text: str) -> None:
    assert parse_alerting(text, PATH) == Alerting()


def test_a_missing_file_has_no_rules_and_one_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert load_alerting(tmp_path / "none.yaml") == Alerting()
    with pytest.raises(AlertError, match="ARB_ALERTS_FILE names the file"):
        load_alerting(tmp_path)


def test_secrets_are_looked_up_where_the_file_says_and_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tmp_path / "hook.txt"
    by_env = Webhook(name="a", kind="webhook", url_env="HOOK")
    by_file = Webhook(name="a", kind="webhook", url_file=held)
    for channel, told in ((by_env, "url_env: HOOK is not set"), (by_file, "url_file: .* cannot be read")):
        with pytest.raises(AlertError, match=f"channel 'a': {told}"):
            channel.check()
    monkeypatch.setenv("HOOK", "https://example.org/4711")
    held.write_text("https://example.org/4711\n")
    assert by_env.url() == by_file.url() == "https://example.org/4711"
    assert "4711" not in f"{by_env!r} {by_env} {by_file!r} {by_env.model_dump()} {by_file.model_dump_json()}"
    monkeypatch.setenv("HOOK", "example.org/4711")
    with pytest.raises(AlertError) as refused:
        by_env.check()
    assert "4711" not in str(refused.value)
    held.write_text("")
    with pytest.raises(AlertError, match="is empty"):
        by_file.check()


def test_secrets_may_stand_in_the_env_file_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secrets.env").write_text("HOOK=http://example.org/x\n")
    monkeypatch.setitem(Settings.model_config, "env_file", str(tmp_path / "secrets.env"))
    assert Webhook(name="a", kind="webhook", url_env="HOOK").url() == "http://example.org/x"


def test_filters_take_patterns_and_short_condition_ids() -> None:
    assert matches((), "anything")
    assert matches(("kxfed-*",), "KXFED-26DEC")
    assert not matches(("kxfed-*",), "KXCPI-26DEC")
    assert matches((CONDITION,), CONDITION + "00")
    rule = NetEdge.model_validate(
        {"name": "a", "kind": "net_edge", "above": "0", "size": "1", "pairs": f"KX*={CONDITION}", "markets": "KY*"}
    )
    assert rule.wants("KXFED", CONDITION + "00")
    assert not rule.wants("KXFED", "0x" + "0" * 64)
    assert rule.wants("KYFED", "0x" + "0" * 64)


def test_a_pair_may_have_spaces_round_its_sign() -> None:
    rule = NetEdge.model_validate(
        {"name": "a", "kind": "net_edge", "above": "0", "size": "1", "pairs": f"KX* = {CONDITION}"}
    )
    assert rule.wants("KXFED", CONDITION + "00")
    assert not rule.wants("KYFED", CONDITION + "00")


EMAIL = "name: a, kind: email, host: h, from: a@b, to: c"


@pytest.mark.parametrize(
    "text",
    [
        "channels: [{name: a, kind: slack, url_env: 'https://hooks.example/4711'}]",
        "channels: [{name: a, kind: slack, url_file: 'https://hooks.example/4711'}]",
        "channels: [{name: a, kind: webhook, url_env: [https://hooks.example/4711]}]",
        "channels: ['https://hooks.example/4711']",
        "channels: 'https://hooks.example/4711'",
        f"channels: [{{{EMAIL}, username: u, password_env: 'secret 4711!'}}]",
        f"channels: [{{{EMAIL}, timeout_s: 'secret-4711'}}]",
        "channels:\n  - {name: a, kind: slack, url_env: https://hooks.example/4711, : [}",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(text: str) -> None:
    with pytest.raises(AlertError) as refused:
        parse_alerting(text, PATH)
    assert "4711" not in str(refused.value)
    assert refused.value.__cause__ is None, "a traceback shows nothing either"


def test_a_secret_in_place_of_its_file_is_not_repeated() -> None:
    with pytest.raises(AlertError) as refused:
        Webhook.model_validate({"name": "a", "kind": "webhook", "url_file": "token4711"}).check()
    assert "4711" not in str(refused.value)


def test_a_stall_is_not_told_before_heartbeats_are_late() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 15"):
        CaptureStalled.model_validate({"name": "a", "kind": "capture_stalled", "after_seconds": "5"})
