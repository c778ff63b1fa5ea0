"""Listeners: what to capture, in people's words. A YAML list of named filters, one venue each; handlers may follow.

What a listener names (series, events, markets, tags, slugs) adds up, and naming nothing means every market; what it
demands (status, volume, words of the title, a match) each of its markets must meet. A market is captured if any active
listener selects it. Values are read as text, so that a condition id or a ticker such as ``NO`` needs no quotes.

A file with handlers (:mod:`arb_pipeline.handlers`) is a mapping of two lists, ``listeners`` and ``handlers``.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any, Final, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from arb_pipeline.errors import ArbError
from arb_pipeline.handlers.config import SHIPPED, HandlerConfig, HandlerError, build
from arb_pipeline.model import Event, Market
from arb_pipeline.venues import VENUES

__all__ = [
    "KalshiListener",
    "Listener",
    "ListenerError",
    "PolymarketListener",
    "add_listener",
    "load_handlers",
    "load_listeners",
    "parse_listener",
    "seed_listeners",
    "select",
    "set_active",
]

_MILLION: Final = 10**6

T = TypeVar("T")
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Upper = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, to_upper=True)]
_Lower = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, to_lower=True)]
_ConditionId = Annotated[
    _Lower,
    StringConstraints(pattern=r"^0x([0-9a-fA-F]{62}|[0-9a-fA-F]{64})$"),
    AfterValidator(lambda condition: condition.ljust(66, "0")),
]
_Many = Annotated[tuple[T, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
"""A list; a single value may stand without brackets."""
_Amount = Annotated[Decimal, Field(ge=0)]


class ListenerError(ArbError, ValueError):
    """The listeners' file cannot be used; the message names the file, the listener, the field and the remedy."""


class Listener(BaseModel):
    """What every venue's listeners have in common.

    Attributes:
        is_active: a paused listener selects nothing.
        matched_only: only markets of a pair that is not ruled out.
        status: venue-neutral states to capture; what is closed has no book.
        min_volume: all-time volume as the venue's catalogue tells it (Kalshi: contracts, Polymarket: dollars).
        discovery_interval_s: how old the venue's catalogue may grow while capture is kept alive, seconds.
        forward_fill_interval_ms: grid on which these markets' books are to be filled forward, milliseconds; the hours'
            grids are made for listeners that name it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Text
    venue: str
    is_active: bool = True
    matched_only: bool = False
    status: _Many[Literal["unopened", "open", "paused"]] = ("open",)
    min_volume: _Amount = Decimal(0)
    discovery_interval_s: Annotated[float, Field(ge=60)] = 3_600.0
    forward_fill_interval_ms: Annotated[int, Field(ge=1)] = 100

    def selects(self, market: Market, event: Event | None, matched: Collection[str]) -> bool:  # noqa: ARG002
        """Whether the listener, were it active, wants this market.

        Args:
            event: the market's event, None if it is not known; the filters of some venues read it.
            matched: ids of matched markets.
        """
        return (
            market.venue == self.venue
            and market.status in self.status
            and _at_least(market.volume, self.min_volume)
            and (not self.matched_only or market.market_id in matched)
        )


class KalshiListener(Listener):
    """A listener on Kalshi.

    Attributes:
        series_tickers, event_tickers, market_tickers: what it names, in any case of letters.
        min_open_interest: contracts.
        title_contains: at least one of these stands in the title of the market or its event, in any case.
    """

    series_tickers: _Many[_Upper] = ()
    event_tickers: _Many[_Upper] = ()
    market_tickers: _Many[_Upper] = ()
    min_open_interest: _Amount = Decimal(0)
    title_contains: _Many[_Lower] = ()

    def selects(self, market: Market, event: Event | None, matched: Collection[str]) -> bool:
        """As for every venue, and what only this one's listeners ask."""
        if not (super().selects(market, event, matched) and _at_least(market.open_interest, self.min_open_interest)):
            return False
        if self.title_contains:
            titles = [market.title, market.yes_title, *([event.title, event.sub_title] if event else [])]
            told = "\n".join(titles).lower()
            if not any(words in told for words in self.title_contains):
                return False
        return (
            not (self.series_tickers or self.event_tickers or self.market_tickers)
            or market.series_id.upper() in self.series_tickers
            or market.event_id.upper() in self.event_tickers
            or market.market_id.upper() in self.market_tickers
        )


class PolymarketListener(Listener):
    """A listener on Polymarket.

    Attributes:
        series_ids: Gamma's series ids, or series slugs.
        tag_ids: Gamma's tag ids.
        slug_patterns: slugs of a market or its event; ``*``, ``?`` and ``[...]`` as in file names.
        condition_ids: condition ids; the trailing zero byte may be left out.
        min_liquidity: the venue's own liquidity figure, dollars.
    """

    series_ids: _Many[_Lower] = ()
    tag_ids: _Many[_Text] = ()
    slug_patterns: _Many[_Lower] = ()
    condition_ids: _Many[_ConditionId] = ()
    min_liquidity: _Amount = Decimal(0)

    def selects(self, market: Market, event: Event | None, matched: Collection[str]) -> bool:
        """As for every venue, and what only this one's listeners ask."""
        if not (super().selects(market, event, matched) and _at_least(market.liquidity, self.min_liquidity)):
            return False
        if not (self.series_ids or self.tag_ids or self.slug_patterns or self.condition_ids):
            return True
        slugs, series, tags = [market.slug.lower()], {market.series_id.lower()}, set[str]()
        if event is not None:
            slugs.append(event.slug.lower())
            series.update(event.series_ids)
            tags.update(event.tag_ids)
        return (
            not series.isdisjoint(self.series_ids)
            or not tags.isdisjoint(self.tag_ids)
            or any(fnmatchcase(slug, pattern) for slug in slugs for pattern in self.slug_patterns)
            or market.market_id.lower() in self.condition_ids
        )


_KINDS: Final[Mapping[str, type[Listener]]] = {"kalshi": KalshiListener, "polymarket": PolymarketListener}


def _at_least(told: int | None, least: Decimal) -> bool:
    """Whether a figure in millionths reaches a threshold; a figure that the venue does not tell counts as 0."""
    return (told or 0) >= least * _MILLION


def select(
    listeners: Iterable[Listener], markets: Iterable[Market], events: Iterable[Event], matched: Collection[str]
) -> list[Market]:
    """The markets that an active listener selects, each once, in the order given.

    Args:
        events: events of the markets; their nested markets are not looked at.
        matched: ids of matched markets, of whichever venue.
    """
    active = [listener for listener in listeners if listener.is_active]
    known = {(event.venue, event.event_id): event for event in events}
    paired = frozenset(matched)
    wanted = {
        (market.venue, market.market_id): market
        for market in markets
        if any(listener.selects(market, known.get((market.venue, market.event_id)), paired) for listener in active)
    }
    return list(wanted.values())


# --- the file ----------------------------------------------------------------------------------------------


def load_listeners(path: Path) -> tuple[Listener, ...]:
    """Read the listeners. Without a file, or a list of them in it, each venue has one that selects every open market.

    Handlers are not looked at: what is wrong with them must not keep capture from starting.

    Raises:
        ListenerError: on text that is not a YAML list of listeners, an unknown venue, an unknown, missing or malformed
            field, and two listeners of one name.
    """
    text = _read(path)
    listeners = None if text is None else _parse(text, path)
    if listeners is None:
        return tuple(_KINDS.get(venue, Listener)(name=f"all-{venue}", venue=venue) for venue in VENUES)
    return listeners


def load_handlers(path: Path) -> tuple[HandlerConfig, ...]:
    """Read the handlers; those that come with the package are checked whole, of others no code is run.

    Raises:
        ListenerError: on a list of handlers that is none, an unknown, missing or malformed field or venue, parameters
            that a handler of the package does not take, and two handlers of one name.
    """
    text = _read(path)
    raw = None if text is None else _sections(text, path)[1]
    handlers = tuple(_handler(item, number, path) for number, item in enumerate(raw or (), 1))
    _check_names([handler.name for handler in handlers], "handlers", path)
    return handlers


def add_listener(path: Path, fields: Mapping[str, str | Sequence[str]]) -> Listener:
    """Append a listener to the file, which is made if there is none; the rest of the file stays as it is.

    Raises:
        ListenerError: if the file is not valid, or would not be with the listener; it is left as it was.
    """
    before = _read(path) or ""
    _parse(before, path)
    separator = "" if not before or before.endswith("\n") else "\n"
    entry = yaml.dump([dict(fields)], Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=110)
    root = yaml.compose(before, Loader=yaml.BaseLoader)
    if isinstance(root, yaml.MappingNode):
        text = _with_entry(before, root, entry, path)
    else:
        text = f"{before}{separator}{entry}"
    added = (_parse(text, path) or ())[-1]
    _write(path, text)
    return added


def set_active(path: Path, name: str, *, active: bool) -> None:
    """Pause or resume a listener: one word of the file changes, or one line is added.

    Raises:
        ListenerError: if there is no file, it is not valid, or holds no listener of that name.
    """
    text = _read(path)
    if text is None:
        raise ListenerError(f"there is no {path} to change: run 'arb listeners seed' first")
    names = [listener.name for listener in _parse(text, path) or ()]
    if name not in names:
        raise ListenerError(f"{path} has no listener {name!r}; it has {', '.join(names) or 'none'}")
    root = yaml.compose(text, Loader=yaml.BaseLoader)
    assert root is not None  # it has just been parsed
    listed = _section(root, "listeners") if isinstance(root, yaml.MappingNode) else root
    assert listed is not None  # it has listeners
    entry = listed.value[names.index(name)]
    values = {key.value: (key, value) for key, value in entry.value}
    word = "true" if active else "false"
    if "is_active" in values:
        _, old = values["is_active"]
        changed = text[: old.start_mark.index] + word + text[old.end_mark.index :]
    else:
        key, old = values["name"]
        between = ", " if entry.flow_style else "\n" + " " * key.start_mark.column
        end = old.end_mark.index
        changed = f"{text[:end]}{between}is_active: {word}{text[end:]}"
    _parse(changed, path)
    _write(path, changed)


def seed_listeners(path: Path) -> None:
    """Write an example with comments, which captures what is captured without a file.

    Raises:
        ListenerError: if the file exists.
    """
    if path.exists():
        raise ListenerError(f"{path} exists and is left as it is: edit it, or move it away first")
    _write(path, _EXAMPLE)


def _read(path: Path) -> str | None:
    """The file's text, None without a file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ListenerError(f"{path} cannot be read as text: {error}; ARB_LISTENERS_PATH names the file") from error


def _write(path: Path, text: str) -> None:
    """Put the file in place whole: a capture that starts meanwhile reads the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class _PlainDumper(yaml.SafeDumper):
    """Writes text without quotes where a reader of text needs none."""


_PlainDumper.yaml_implicit_resolvers = {}


def _section(root: yaml.MappingNode, name: str) -> yaml.Node | None:
    """The value of a key of the file."""
    return next((value for key, value in root.value if key.value == name), None)


def _with_entry(text: str, root: yaml.MappingNode, entry: str, path: Path) -> str:
    """The file's text with one more listener after the last one."""
    listed = _section(root, "listeners")
    if listed is None:
        return text + ("" if text.endswith("\n") else "\n") + "listeners:\n" + entry
    if not isinstance(listed, yaml.SequenceNode) or listed.flow_style or not listed.value:
        raise ListenerError(f"{path}: listeners are not given line by line: add the entry by hand")
    last: yaml.Node = listed.value[-1]
    while isinstance(last, yaml.CollectionNode) and not last.flow_style and last.value:
        inner = last.value[-1]
        last = inner[1] if isinstance(inner, tuple) else inner
    end = text.find("\n", last.end_mark.index - 1) + 1
    before = text[:end] if end else text + "\n"
    return before + indent(entry, " " * listed.start_mark.column) + (text[end:] if end else "")


def _sections(text: str, path: Path) -> tuple[list[Any] | None, list[Any] | None]:
    """What the file lists as listeners and as handlers, None for what it does not name."""
    try:
        raw: Any = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - it makes lists, mappings and text only
    except yaml.YAMLError as error:
        raise ListenerError(f"{path} is not YAML: {error}") from error
    if raw is None or raw == "":
        return [], None
    if isinstance(raw, list):
        return raw, None
    if not isinstance(raw, dict):
        raise ListenerError(f"{path} holds no list: give one listener an entry, each beginning with '- name:'")
    if unknown := sorted(map(str, raw.keys() - {"listeners", "handlers"})):
        raise ListenerError(
            f"{path} holds no list: give one listener an entry, each beginning with '- name:', or, where there are "
            f"handlers, the sections 'listeners' and 'handlers'; {unknown[0]!r} is none"
        )
    return _listed(raw, "listeners", path), _listed(raw, "handlers", path)


def _listed(raw: Mapping[str, Any], section: str, path: Path) -> list[Any] | None:
    value = raw.get(section)
    if value is None or isinstance(value, list):
        return value
    if value == "":
        return []
    raise ListenerError(f"{path}: {section} holds no list: give each an entry that begins with '- name:'")


def _parse(text: str, path: Path) -> tuple[Listener, ...] | None:
    """The listeners, None if the file has handlers only."""
    raw, _ = _sections(text, path)
    if raw is None:
        return None
    listeners = tuple(parse_listener(item, number, path) for number, item in enumerate(raw, 1))
    _check_names([listener.name for listener in listeners], "listeners", path)
    return listeners


def _check_names(names: Sequence[str], what: str, path: Path) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ListenerError(f"{path}: two {what} are named {name!r}: rename one of them")


def _handler(item: object, number: int, path: Path) -> HandlerConfig:
    if not isinstance(item, dict):
        raise ListenerError(f"{path}: handler {number}: {item!r:.80} has no fields: begin it with '- name:'")
    name = item.get("name")
    called = f"{path}: handler {name!r}" if isinstance(name, str) and name else f"{path}: handler {number}"
    try:
        handler = HandlerConfig.model_validate(item)
    except ValidationError as error:
        problems = [_problem(dict(problem), HandlerConfig, "handlers") for problem in error.errors(include_url=False)]
        raise ListenerError(f"{called}: {'; '.join(problems)}") from error
    if unknown := [venue for venue in handler.venues if venue not in VENUES]:
        raise ListenerError(f"{called}: venues: {unknown[0]!r} is none: give {', '.join(VENUES)}")
    if handler.shipped:
        try:
            build(handler)
        except HandlerError as error:
            raise ListenerError(f"{path}: {error}") from error
    return handler


def parse_listener(item: object, number: int, path: Path | str) -> Listener:
    """A listener from its fields.

    Args:
        number: its place in the list, to tell it by where it has no name.
        path: where it stands, for messages.

    Raises:
        ListenerError: on an unknown venue, and an unknown, missing or malformed field.
    """
    if not isinstance(item, dict):
        raise ListenerError(f"{path}: listener {number}: {item!r:.80} has no fields: begin it with '- name:'")
    name = item.get("name")
    called = f"{path}: listener {name!r}" if isinstance(name, str) and name else f"{path}: listener {number}"
    venue = item.get("venue")
    if not isinstance(venue, str) or venue not in VENUES:
        got = "is missing" if venue is None else f"is {venue!r}"
        raise ListenerError(f"{called}: venue {got}: give one of {', '.join(VENUES)}")
    kind = _KINDS.get(venue, Listener)
    try:
        return kind.model_validate(item)
    except ValidationError as error:
        problems = [
            _problem(dict(problem), kind, "this venue's listeners") for problem in error.errors(include_url=False)
        ]
        raise ListenerError(f"{called}: {'; '.join(problems)}") from error


def _problem(problem: Mapping[str, Any], kind: type[BaseModel], whose: str) -> str:
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{field} is no field of {whose}; there are {', '.join(kind.model_fields)}"
    if problem["type"] == "missing":
        return f"{field} is missing: give it"
    if problem["type"] == "string_pattern_mismatch" and field == "use":
        given = problem["input"]
        return f"use: {given!r:.120} names no handler: give {', '.join(SHIPPED)}, or package.module:name of your own"
    return f"{field}: {problem['msg']}, got {problem['input']!r:.120}"


_EXAMPLE: Final = """\
# What to capture: listeners, one venue each. A market is captured if any active listener selects it.
#
# What a listener names adds up (a market needs one of them); naming nothing means every market:
#   kalshi:     series_tickers, event_tickers, market_tickers
#   polymarket: series_ids (or series slugs), tag_ids, slug_patterns (with * and ?), condition_ids
# What a listener demands each of its markets must meet:
#   both:       matched_only (markets of a pair that is not ruled out), min_volume (kalshi: contracts, polymarket:
#               dollars), status (open, unless you list others of unopened, open, paused)
#   kalshi:     min_open_interest (contracts), title_contains (any of these, in any case)
#   polymarket: min_liquidity (dollars)
# And of each: is_active, discovery_interval_s (how old the catalogue may grow while capture is kept alive),
# forward_fill_interval_ms (fill its books forward on a grid, hour by hour; not done where it is not named).
#
# ARB_CAPTURE_MAX_MARKETS limits each venue: matched markets come first, then those with the largest volume.
# 'arb listeners list' says how many of the discovered markets each listener selects.

listeners:
  - name: all-kalshi
    venue: kalshi

  - name: all-polymarket
    venue: polymarket

  - name: fed-and-inflation
    venue: kalshi
    is_active: false
    series_tickers: [KXFED, KXFEDDECISION, KXCPI]
    min_open_interest: 100

  - name: matched-kalshi
    venue: kalshi
    is_active: false
    matched_only: true

  - name: bitcoin-and-a-tag
    venue: polymarket
    is_active: false
    tag_ids: [2]  # GET https://gamma-api.polymarket.com/tags/slug/<slug> tells the id of a tag
    slug_patterns: [bitcoin-*, btc-*]
    min_liquidity: 1000
    discovery_interval_s: 900

# Whom to tell while it is captured (docs/handlers.md): handlers run in a process of their own, which cannot hold up
# capture. Each has a name, 'use' (price_alert, tight_spread, position_monitor, or package.module:name of your own), and
# may have venues, markets (* and ? may stand in an id), parameters and is_active. Their alerts are logged, and posted
# to ARB_ALERT_WEBHOOK_URL. Without listeners above, each venue's open markets are captured.

handlers:
  - name: fed-above-60-cents
    use: price_alert
    is_active: false
    venues: kalshi
    markets: KXFEDDECISION-*
    parameters: {level: 0.60, direction: up, price: mid, margin: 0.02}

  - name: tight-and-deep
    use: tight_spread
    is_active: false
    parameters: {spread: 0.01, seconds: 30, min_size: 500}

  - name: my-positions
    use: position_monitor  # needs ARB_ACCOUNT
    is_active: false
    parameters: {max_contracts: 1000, fills: true}
"""
