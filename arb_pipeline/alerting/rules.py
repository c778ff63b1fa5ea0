"""Rules and channels as ``alerts.yaml`` names them.

Values are read as text, so that a condition id or a ticker such as ``NO`` needs no quotes. Secrets never stand in the
file: a channel names the environment variable or the file that holds one.
"""

import os
import re
from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, TypeVar

import yaml
from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from arb_pipeline.errors import ArbError
from arb_pipeline.settings import Settings
from arb_pipeline.venues import VENUES

__all__ = [
    "DEFAULT",
    "LOG",
    "AlertError",
    "Alerting",
    "CaptureStalled",
    "Channel",
    "Email",
    "GapShare",
    "NetEdge",
    "PriceMove",
    "Rule",
    "Slack",
    "Spread",
    "VenueName",
    "Webhook",
    "load_alerting",
    "matches",
    "parse_alerting",
]

LOG: Final = "log"
DEFAULT: Final = "default"
"""The channel of ``ARB_ALERT_WEBHOOK_URL``."""

T = TypeVar("T")
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Many = Annotated[tuple[T, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
"""A list; a single value may stand without brackets."""
_Amount = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
_Above0 = Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]
_Price = Annotated[Decimal, Field(ge=0, le=1, decimal_places=4)]


def _known_venue(name: str) -> str:
    if name not in VENUES:
        raise ValueError(f"no venue {name!r}: give {', '.join(VENUES)}")
    return name


VenueName = Annotated[str, AfterValidator(_known_venue)]
"""Name of a venue that there is."""


class AlertError(ArbError, ValueError):
    """The alerts' file, or what it names, cannot be used; the message names rule or channel, field, value, remedy."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Text


# --- channels ----------------------------------------------------------------------------------------------

# What is told of a channel repeats no value: it may be a secret that somebody put into the wrong field.


def _variable(name: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
        raise ValueError("that is no name: give the environment variable that holds the secret, not the secret itself")
    return name


def _secret_file(name: object) -> object:
    if isinstance(name, str) and "://" in name:
        raise ValueError("that is no file: give the file that holds the secret, not the secret itself")
    return name


_Variable = Annotated[_Text, AfterValidator(_variable)]
_SecretFile = Annotated[Path, BeforeValidator(_secret_file)]


class _AtAddress(_Entry):
    """Attributes: url_env, url_file: the environment variable or the file that holds the address, which is a secret."""

    url_env: _Variable | None = None
    url_file: _SecretFile | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.url_env is None) == (self.url_file is None):
            raise ValueError("give either url_env or url_file: the environment variable or the file with the address")
        return self

    def url(self) -> str:
        """The address.

        Raises:
            AlertError: if it is not there, or is none.
        """
        url = _secret(self.name, "url", self.url_env, self.url_file)
        if not url.startswith(("http://", "https://")):
            held = "url_env" if self.url_file is None else "url_file"
            raise AlertError(f"channel {self.name!r}: {held}: the address does not begin with http:// or https://")
        return url

    def check(self) -> None:
        """Raises AlertError where the channel cannot be used."""
        self.url()


class Webhook(_AtAddress):
    """Gets each alert as a POST of JSON."""

    kind: Literal["webhook"]


class Slack(_AtAddress):
    """An incoming webhook of Slack (api.slack.com/messaging/webhooks)."""

    kind: Literal["slack"]


class Email(_Entry):
    """Mail over SMTP.

    Attributes:
        tls: ``starttls`` (port 587), ``implicit`` (465) or ``none``, for a server on the same host.
        password_env, password_file: the environment variable or the file that holds the password.
        timeout_s: seconds for one exchange with the server.
    """

    kind: Literal["email"]
    host: _Text
    port: Annotated[int, Field(gt=0, le=65_535)] = 587
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    username: _Text | None = None
    password_env: _Variable | None = None
    password_file: _SecretFile | None = None
    sender: _Text = Field(alias="from")
    to: Annotated[_Many[_Text], Field(min_length=1)]
    timeout_s: Annotated[float, Field(gt=0)] = 10.0

    @model_validator(mode="after")
    def _password_for_user(self) -> Self:
        given = [one for one in (self.password_env, self.password_file) if one is not None]
        if len(given) != (self.username is not None):
            raise ValueError("username goes with one of password_env and password_file, and these with a username")
        if self.username is not None and self.tls == "none":
            raise ValueError("tls: none would send the password in the clear: leave username out, or use starttls")
        return self

    def password(self) -> str:
        """The password of ``username``.

        Raises:
            AlertError: if it is not there.
        """
        return _secret(self.name, "password", self.password_env, self.password_file)

    def check(self) -> None:
        """Raises AlertError where the channel cannot be used."""
        if self.username is not None:
            self.password()


Channel: TypeAlias = Webhook | Slack | Email


def _secret(channel: str, what: str, variable: str | None, path: Path | None) -> str:
    if path is not None:
        try:
            value = path.expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            told = f"{what}_file: the file cannot be read ({type(error).__name__})"
            raise AlertError(f"channel {channel!r}: {told}: name a file with the {what} in it") from error
        if not value:
            raise AlertError(f"channel {channel!r}: {what}_file: the file is empty: write the {what} into it")
        return value
    assert variable is not None
    # Whatever reads the settings reads ``.env``, too: people keep all of it there.
    env_file = Settings.model_config.get("env_file")
    listed = dotenv_values(env_file) if isinstance(env_file, str | Path) else {}
    value = os.environ.get(variable) or listed.get(variable) or ""
    if not value.strip():
        raise AlertError(f"channel {channel!r}: {what}_env: {variable} is not set: set it in the environment or .env")
    return value.strip()


# --- rules -------------------------------------------------------------------------------------------------


class _Rule(_Entry):
    """What every rule has.

    Attributes:
        for_seconds: how long its condition must be known to hold before it tells.
        repeat_after: tell again after so many seconds while it still holds; None: once, until it ended.
        notify: names of channels; none: all of them. ``log`` alone: nothing but the log.
    """

    is_active: bool = True
    for_seconds: _Amount = Decimal(0)
    repeat_after: _Above0 | None = None
    notify: _Many[_Text] = ()

    @property
    def hold_ns(self) -> int:
        """``for_seconds`` in ns."""
        return int(self.for_seconds * 10**9)

    @property
    def repeat_ns(self) -> int | None:
        """``repeat_after`` in ns."""
        return None if self.repeat_after is None else int(self.repeat_after * 10**9)


class NetEdge(_Rule):
    """Buying ``size`` contracts of both legs of an accepted pair nets more than ``above``.

    Attributes:
        above: dollars per contract, after exact fees. size: contracts.
        pairs: ``KALSHI=POLYMARKET``. markets: of either venue. ``*`` and ``?`` may stand in ids; none: all pairs.
        over: ``live``, beside the capture, or ``tables``, by Dagster's sensor.
    """

    kind: Literal["net_edge"]
    above: _Amount
    size: _Above0
    pairs: _Many[Annotated[_Text, StringConstraints(pattern=r"^[^=]+=[^=]+$")]] = ()
    markets: _Many[_Text] = ()
    over: Literal["live", "tables"] = "live"

    def wants(self, kalshi: str, polymarket: str) -> bool:
        """Whether the rule is about this pair."""
        if not (self.pairs or self.markets):
            return True
        named = any(
            matches((left.strip(),), kalshi) and matches((right.strip(),), polymarket)
            for left, _, right in (pair.partition("=") for pair in self.pairs)
        )
        return named or (bool(self.markets) and (matches(self.markets, kalshi) or matches(self.markets, polymarket)))


class _MarketRule(_Rule):
    """A rule about single markets.

    Attributes:
        venues, markets: which; ``*`` and ``?`` may stand in ids; none: all.
        over: ``live``, beside the capture, or ``tables``, by Dagster's sensor.
    """

    venues: _Many[VenueName] = ()
    markets: _Many[_Text] = ()
    over: Literal["live", "tables"] = "live"

    def wants(self, venue: str, market_id: str) -> bool:
        """Whether the rule is about this market."""
        return (not self.venues or venue in self.venues) and matches(self.markets, market_id)


class Spread(_MarketRule):
    """A market's ask less its bid is ``at_most`` dollars, with ``min_size`` contracts at both."""

    kind: Literal["spread"]
    at_most: _Price
    min_size: _Amount = Decimal(0)


class PriceMove(_MarketRule):
    """The price of a held outcome is ``by`` dollars or more away from the entry.

    Attributes:
        direction: ``gain``: above it, ``loss``: below it.
        price: ``exit``: what the outcome could be sold for; ``mid``: the middle of bid and ask.
    """

    kind: Literal["price_move"]
    by: Annotated[_Price, Field(gt=0)]
    direction: Literal["gain", "loss", "any"] = "any"
    price: Literal["exit", "mid"] = "exit"


class GapShare(_Rule):
    """More than the share ``above`` of a venue's market-time of the last ``minutes`` lies in a gap."""

    kind: Literal["gap_share"]
    above: Annotated[Decimal, Field(ge=0, lt=1)]
    minutes: Annotated[int, Field(gt=0, le=24 * 60)] = 60
    venues: _Many[VenueName] = ()


class CaptureStalled(_Rule):
    """A venue's capture gave no sign of life for ``after_seconds``: no heartbeat with a connection up, no new rows."""

    kind: Literal["capture_stalled"]
    after_seconds: Annotated[Decimal, Field(ge=15)] = Decimal(60)
    venues: _Many[VenueName] = ()


Rule: TypeAlias = NetEdge | Spread | PriceMove | GapShare | CaptureStalled


class Alerting(BaseModel):
    """The alerts' file.

    Attributes:
        positions: file of own positions, YAML or CSV, or ``account``: read from the venues' accounts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: tuple[Annotated[Channel, Field(discriminator="kind")], ...] = ()
    positions: _Text | None = None
    rules: tuple[Annotated[Rule, Field(discriminator="kind")], ...] = ()

    @property
    def active(self) -> tuple[Rule, ...]:
        """The rules that are not paused."""
        return tuple(rule for rule in self.rules if rule.is_active)

    def positions_path(self, path: Path) -> Path | None:
        """The positions' file, beside the alerts' file at ``path``; None if there is none."""
        if self.positions is None or self.positions == "account":
            return None
        return path.parent / self.positions


def matches(patterns: tuple[str, ...], market_id: str) -> bool:
    """Whether one of the patterns, or the lack of any, names the id, in any case of letters.

    A condition id may be written without its trailing zero byte, as listeners take it, too.
    """
    return not patterns or any(
        fnmatchcase(market_id.lower(), pattern.ljust(66, "0") if len(pattern) == 64 else pattern)
        for pattern in (pattern.lower() for pattern in patterns)
    )


_SECTIONS: Final[Mapping[str, tuple[str, TypeAdapter[Any]]]] = {
    "channels": ("channel", TypeAdapter(Annotated[Channel, Field(discriminator="kind")])),
    "rules": ("rule", TypeAdapter(Annotated[Rule, Field(discriminator="kind")])),
}


def load_alerting(path: Path) -> Alerting:
    """Read the alerts' file; without one there are no rules and no channels.

    Raises:
        AlertError: if it is not valid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Alerting()
    except (OSError, UnicodeDecodeError) as error:
        raise AlertError(f"{path} cannot be read as text: {error}; ARB_ALERTS_FILE names the file") from error
    return parse_alerting(text, path)


def parse_alerting(text: str, path: Path) -> Alerting:
    """The file's text; ``path`` is for messages.

    Raises:
        AlertError: on what is no YAML, an unknown, missing or malformed field, two rules or channels of one name, a
            rule that notifies a channel that there is not, and one about entries without positions.
    """
    try:
        raw: Any = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - it makes lists, mappings and text only
    except yaml.YAMLError as error:
        # Its own words show the line, which may hold a secret.
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" (line {mark.line + 1})"
        raise AlertError(f"{path} is not YAML: {getattr(error, 'problem', '')}{place}: correct it") from None
    if raw is None or raw == "":
        return Alerting()
    if not isinstance(raw, dict) or (raw.keys() - {*_SECTIONS, "positions"}):
        raise AlertError(f"{path}: give the sections 'rules', 'channels' and 'positions', and no other")
    read = {name: _entries(raw.get(name), name, path) for name in _SECTIONS}
    try:
        alerting = Alerting(positions=raw.get("positions"), **read)
    except ValidationError as error:
        raise AlertError(f"{path}: {_told(error, raw)}") from error
    _check_references(alerting, path)
    return alerting


def _entries(raw: Any, section: str, path: Path) -> tuple[Any, ...]:
    if raw is None or raw == "":
        return ()
    if not isinstance(raw, list):
        raise AlertError(f"{path}: {section} holds no list: give each an entry that begins with '- name:'")
    what, adapter = _SECTIONS[section]
    entries: list[Any] = []
    for number, item in enumerate(raw, 1):
        name = item.get("name") if isinstance(item, dict) else None
        called = f"{path}: {what} {name!r}" if name else f"{path}: {what} {number}"
        try:
            entry = adapter.validate_python(item)
        except ValidationError as error:
            raise AlertError(f"{called}: {_told(error, item, secret=section == 'channels')}") from None
        if entry.name in [one.name for one in entries]:
            raise AlertError(f"{called}: two {section} have that name: rename one of them")
        entries.append(entry)
    return tuple(entries)


def _told(error: ValidationError, item: object, *, secret: bool = False) -> str:
    """Every problem as field, value (unless it may be a secret) and remedy."""
    told = []
    for problem in error.errors(include_url=False, include_context=False):
        # The first step is the kind, by which the union was decided.
        place = [str(step) for step in problem["loc"]]
        kind = item.get("kind") if isinstance(item, dict) else None
        field = ".".join(place[1:] if place[:1] == [kind] else place) or "kind"
        said = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            told.append(f"{field} is no field of kind {kind}: leave it out or correct its name")
        elif problem["type"] == "missing":
            told.append(f"{field} is missing: give it")
        elif problem["type"] in {"union_tag_not_found", "union_tag_invalid"}:
            told.append(f"kind {kind!r} is none: {said}")
        elif problem["type"] == "value_error":
            told.append(f"{field}: {said}" if place[1:] else said)
        else:
            got = "" if secret else f", got {problem['input']!r:.80}"
            told.append(f"{field}: {said}{got}: correct it")
    return "; ".join(told)


def _check_references(alerting: Alerting, path: Path) -> None:
    channels = {channel.name for channel in alerting.channels}
    if reserved := channels & {LOG, DEFAULT}:
        raise AlertError(f"{path}: channel {min(reserved)!r}: that name is taken: give it another one")
    for rule in alerting.rules:
        if unknown := [name for name in rule.notify if name not in channels | {LOG, DEFAULT}]:
            there = ", ".join([*sorted(channels), LOG, DEFAULT])
            raise AlertError(f"{path}: rule {rule.name!r}: notify: no channel {unknown[0]!r}: there are {there}")
        if isinstance(rule, PriceMove) and alerting.positions is None:
            raise AlertError(
                f"{path}: rule {rule.name!r}: there are no positions to compare with: give 'positions:' a file, "
                "or 'account'"
            )
