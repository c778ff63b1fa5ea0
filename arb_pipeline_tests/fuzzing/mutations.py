"""What is done to a frame: each mutation is seeded and has a name; None means that it does not apply to this frame."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

__all__ = ["MUTATIONS", "Context", "Text"]

Text = str | bytes
Path = tuple[str | int, ...]


@dataclass
class Context:
    """What a mutation may know of the stream: other markets and ids, and a frame of the past."""

    markets: list[str]
    tokens: list[str]
    past: str


Mutation = Callable[[Random, str, Context], Text | None]

_JUNK: list[str] = [*"0123456789abfx.-+\"'{}[],: \\", "", "null", "\x00", "é", "1e9", "\\ud800", "😀"]
_NUMBERS = [
    "-1",
    "-0",
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "1e18",
    "99999999999999999999999999",
    "0.1",
    "9223372036854775808",
]
_TEXTS = [
    "-1.00",
    "NaN",
    "1e400",
    "1e3",
    "Infinity",
    "",
    " 0.5",
    "0x10",
    "1_000",
    "9" * 40,
    "0." + "0" * 70,
    "٣",
    "+0.5",
    "-",
]
_PRICES = {"price_dollars", "price", "yes_price_dollars", "no_price_dollars", "best_bid", "best_ask", "yes_bid_dollars"}
_SIZES = {"size", "delta_fp", "count_fp", "volume_fp"}
_LADDERS = {"yes_dollars_fp", "no_dollars_fp"}
_TYPES = [
    "orderbook_snapshot",
    "orderbook_delta",
    "trade",
    "ticker",
    "fill",
    "ok",
    "error",
    "subscribed",
    "unsubscribed",
    "market_lifecycle_v2",
    "event_lifecycle",
    "book",
    "price_change",
    "last_trade_price",
    "tick_size_change",
    "best_bid_ask",
    "new_market",
    "market_resolved",
]


def _load(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Every place inside a document."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*at, key)
        yield from _paths(child, (*at, key))


def _parent(document: Any, path: Path) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def _changed(
    rng: Random, text: str, fits: Callable[[Path, Any], bool], change: Callable[[Any, str | int, Any], None]
) -> str | None:
    """The frame with one fitting place changed by ``change(parent, key, value)``."""
    document = _load(text)
    places = [path for path in _paths(document) if fits(path, _parent(document, path)[path[-1]])]
    if not places:
        return None
    path = rng.choice(places)
    parent = _parent(document, path)
    change(parent, path[-1], parent[path[-1]])
    mutated = _dump(document)
    return mutated if mutated != text else None


def _set(rng: Random, text: str, fits: Callable[[Path, Any], bool], values: list[Any]) -> str | None:
    def change(parent: Any, key: str | int, old: Any) -> None:
        parent[key] = rng.choice(values)

    return _changed(rng, text, fits, change)


def _named(*names: str) -> Callable[[Path, Any], bool]:
    return lambda path, value: path[-1] in names


def _is_price(path: Path, value: Any) -> bool:
    in_level = len(path) >= 3 and path[-3] in _LADDERS and path[-1] == 0
    return isinstance(value, str) and (path[-1] in _PRICES or in_level)


def _is_size(path: Path, value: Any) -> bool:
    in_level = len(path) >= 3 and path[-3] in _LADDERS and path[-1] == 1
    return isinstance(value, str) and (path[-1] in _SIZES or in_level)


def _any(path: Path, value: Any) -> bool:
    return True


def _flip(rng: Random, text: str, context: Context) -> Text:
    at = rng.randrange(len(text))
    return text[:at] + rng.choice(_JUNK) + text[at + 1 :]


def _swap_types(rng: Random, text: str, context: Context) -> Text | None:
    values = ["x", "", None, True, [], [None], {}, {"a": 1}, 0, 7, -7, 10**30, 0.5, [["0.5", "1.00"]], "9" * 300]
    return _set(rng, text, _any, values)


def _drop_key(rng: Random, text: str, context: Context) -> Text | None:
    def change(parent: Any, key: str | int, old: Any) -> None:
        del parent[key]

    return _changed(rng, text, _any, change)


def _repeat_key(rng: Random, text: str, context: Context) -> Text | None:
    document = _load(text)
    if not isinstance(document, dict) or not document:
        return None
    inner = document.get("msg")
    if isinstance(inner, dict) and inner and rng.random() < 0.5:
        key = rng.choice(list(inner))
        value = rng.choice([inner[key], "x", None, 3])
        return text.rstrip("}") + f",{_dump(key)}:{_dump(value)}" + "}}"
    key = rng.choice(list(document))
    value = rng.choice([document[key], "x", None, 3])
    return text[:-1] + f",{_dump(key)}:{_dump(value)}" + "}"


def _rename_key(rng: Random, text: str, context: Context) -> Text | None:
    def change(parent: Any, key: str | int, old: Any) -> None:
        del parent[key]
        parent[f"{key}_x"] = old

    return _changed(rng, text, lambda path, value: isinstance(path[-1], str), change)


def _retype(rng: Random, text: str, context: Context) -> Text | None:
    return _set(rng, text, _named("type", "event_type"), ["", "nonsense", "orderbook_delta2", *_TYPES])


def _wild_number(rng: Random, text: str, context: Context) -> Text | None:
    marker = "@@wild@@"
    marked = _set(rng, text, lambda path, value: isinstance(value, int | float) or _is_size(path, value), [marker])
    return None if marked is None else marked.replace(f'"{marker}"', rng.choice(_NUMBERS))


def _wild_text(rng: Random, text: str, context: Context) -> Text | None:
    return _set(rng, text, lambda path, value: _is_price(path, value) or _is_size(path, value), list(_TEXTS))


def _off_grid(rng: Random, text: str, context: Context) -> Text | None:
    return _set(
        rng, text, _is_price, ["0.12345", "0.00001", "0.33333333", "1.0001", "2.0000", "-0.0100", "0.1234567891"]
    )


def _boundary(rng: Random, text: str, context: Context) -> Text | None:
    return _set(rng, text, _is_price, ["0", "1", "0.0000", "1.0000", "0.0001", "0.9999", 0, 1, 100])


def _other_value(rng: Random, text: str, context: Context) -> Text | None:
    """A number that could well be true: only its place in the stream or a hash can tell."""
    if rng.random() < 0.5:
        return _set(rng, text, _is_size, ["1.00", "3.00", "250.00", "-1.00", "0.00", "0"])
    return _set(rng, text, _is_price, [f"0.{cents:02d}00" for cents in range(1, 100)])


def _other_side(rng: Random, text: str, context: Context) -> Text | None:
    return _set(rng, text, _named("side"), ["yes", "no", "BUY", "SELL", "both", ""])


def _wrong_seq(rng: Random, text: str, context: Context) -> Text | None:
    def change(parent: Any, key: str | int, old: Any) -> None:
        parent[key] = rng.choice([old + 1, old - 1, old + 2, old + 60, old - 60, 0, -1, 2**62, 2**64, str(old), None])

    return _changed(rng, text, lambda path, value: path == ("seq",) and isinstance(value, int), change)


def _wrong_time(rng: Random, text: str, context: Context) -> Text | None:
    times = [0, -1, 2**63, "0", "-1", "x", "1757900000456", "99999999999999999", "2026-13-40T99:00:00Z", None]
    return _set(rng, text, _named("ts", "ts_ms", "timestamp", "sending_ts_ms", "clock", "time"), times)


def _wrong_id(rng: Random, text: str, context: Context) -> Text | None:
    ids = [0, 1, 2, 3, 99, -1, 2**64, "1", "KXNONE-1", "0x" + "ab" * 32, "1" * 77, ""]
    return _set(rng, text, _named("sid", "market_ticker", "market", "asset_id", "id", "hash"), ids)


def _other_market(rng: Random, text: str, context: Context) -> Text | None:
    fields = _named("market_ticker", "market") if rng.random() < 0.5 else _named("asset_id", "market_ticker")
    return _set(rng, text, fields, [*context.tokens, *context.markets])


def _nest(rng: Random, text: str, context: Context) -> Text | None:
    depth = rng.choice([50, 2_000, 60_000])
    opened, closed = rng.choice([("[", "]"), ('{"a":', "}")])
    deep = opened * depth + "1" + closed * depth
    if rng.random() < 0.3:
        return deep
    marker = "@@deep@@"
    marked = _set(rng, text, _any, [marker])
    return None if marked is None else marked.replace(f'"{marker}"', deep)


def _not_utf8(rng: Random, text: str, context: Context) -> Text:
    raw = text.encode()
    at = rng.randrange(len(raw))
    return raw[:at] + rng.choice([b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\x80"]) + raw[at + 1 :]


def _wrapped(rng: Random, text: str, context: Context) -> Text:
    return rng.choice([f"[{text}]", f"[{text},null]", f"[[{text}]]", f'{{"a":{text}}}', f"[{text},7,{text[:20]}]"])


MUTATIONS: dict[str, Mutation] = {
    "byte flip": _flip,
    "truncated": lambda rng, text, context: text[: rng.randrange(len(text))],
    "spliced": lambda rng, text, context: text + rng.choice([text, context.past, "x", "}"]),
    "type swapped": _swap_types,
    "key missing": _drop_key,
    "key repeated": _repeat_key,
    "key renamed": _rename_key,
    "message type": _retype,
    "wild number": _wild_number,
    "wild text": _wild_text,
    "off grid": _off_grid,
    "price 0 or 1": _boundary,
    "other value": _other_value,
    "other side": _other_side,
    "wrong seq": _wrong_seq,
    "wrong time": _wrong_time,
    "wrong id": _wrong_id,
    "other market": _other_market,
    "deep nesting": _nest,
    "not UTF-8": _not_utf8,
    "empty": lambda rng, text, context: rng.choice(["", " ", "\n", "null", "0", '""', "{}", "[]", "PONG", "PING"]),
    "wrapped": _wrapped,
    "from the past": lambda rng, text, context: context.past or None,
}
"""By name; ``other value`` makes frames that may be perfectly valid."""
