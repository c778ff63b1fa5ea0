"""Faults on demand: what venues do at their worst, switched on by ``POST /_exchange/fault``.

A fault is registered once, with the point at which it strikes: ``now`` (at once), ``frame`` (on a data frame about
to be sent to one connection), ``snapshot`` (on a book that answers a subscription), ``market`` (on whatever a market
would send) or ``rest`` (on a REST request). It strikes ``count`` times and is gone; a *lasting* one goes on for
``seconds``. ``POST /_exchange/fault/clear`` ends all of them.
"""

import json
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any, Literal

from arb_pipeline.exchange.source import Json

__all__ = ["FAULTS", "Fault", "FaultError", "Faults", "OutFrame", "RestAnswer"]

Point = Literal["now", "frame", "snapshot", "market", "rest"]

_LASTS_S = 5.0


class FaultError(ValueError):
    """A fault request that names no fault, or one with unusable parameters; the message says what would do."""


@dataclass(frozen=True, slots=True)
class OutFrame:
    """A data frame about to be sent: its text, message type, venue and market."""

    venue: str
    market_id: str
    type: str
    text: str


@dataclass(frozen=True, slots=True)
class RestAnswer:
    """What a fault does to a REST request: wait, answer with an error, or blank out lists of the real answer."""

    delay_s: float = 0.0
    status: int | None = None
    body: str = ""
    content_type: str = "application/json"
    null_lists: bool = False


@dataclass(slots=True)
class Fault:
    """A fault waiting to strike.

    Attributes:
        venue, market_id: where; empty means anywhere.
        count: how many times it still strikes.
        struck: how many times it did; for a silence the frames withheld.
        until: monotonic time at which a lasting fault ends, None if only clearing ends it.
    """

    kind: str
    venue: str = ""
    market_id: str = ""
    count: int = 1
    params: Json = field(default_factory=dict)
    struck: int = 0
    until: float | None = None
    cleared: bool = False

    @property
    def left(self) -> int:
        """How many times it still strikes; 1 for a lasting fault that is on."""
        return int(self.on) if FAULTS[self.kind].lasting else self.count

    @property
    def on(self) -> bool:
        """Whether a lasting fault has neither run out nor been cleared."""
        return not self.cleared and (self.until is None or time.monotonic() < self.until)

    @property
    def seconds_left(self) -> float:
        """How long a lasting fault goes on, infinity for one that only clearing ends."""
        return float("inf") if self.until is None else max(self.until - time.monotonic(), 0.0)

    def fits(self, venue: str, *names: str) -> bool:
        """Whether it strikes here; ``names`` are those of the market (and token)."""
        return self.count > 0 and self.venue in {"", venue} and (not self.market_id or self.market_id in names)

    def strike(self) -> None:
        """Count one strike."""
        self.count -= 1
        self.struck += 1


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of fault: where it strikes, what it is in words, and how.

    Attributes:
        params: what a request may give beside venue, market and count.
        seconds: how long a lasting fault lasts unless the request says, None for "until cleared".
    """

    point: Point
    words: str
    types: frozenset[str] = frozenset()
    params: frozenset[str] = frozenset()
    lasting: bool = False
    seconds: float | None = None
    needs_market: bool = False
    on_frame: Callable[[OutFrame], list[str]] | None = None
    on_rest: Callable[[Json], RestAnswer] | None = None


def _drop(frame: OutFrame) -> list[str]:  # noqa: ARG001 - the frame is what gets lost
    return []


def _wrong_hash(frame: OutFrame) -> list[str]:
    message = json.loads(frame.text)
    for entry in message.get("price_changes", [message]):
        entry["hash"] = entry["hash"][::-1]
    return [json.dumps(message, separators=(",", ":"))]


def _duplicate(frame: OutFrame) -> list[str]:
    return [frame.text, frame.text]


def _malformed(frame: OutFrame) -> list[str]:
    return [frame.text[: len(frame.text) // 2], frame.text]


def _unknown_type(frame: OutFrame) -> list[str]:
    key = "type" if frame.venue == "kalshi" else "event_type"
    return [json.dumps({key: "market_mood", "msg": {"market": frame.market_id, "mood": "calm"}}), frame.text]


def _null_list(frame: OutFrame) -> list[str]:
    message = json.loads(frame.text)
    if "price_changes" in message:
        message["price_changes"] = None
        return [json.dumps(message, separators=(",", ":")), frame.text]
    if frame.venue == "kalshi":
        message["msg"] = {"yes_dollars_fp": None, "no_dollars_fp": None} | message["msg"]
    else:
        message |= {side: message[side] or None for side in ("bids", "asks")}
    return [json.dumps(message, separators=(",", ":"))]


def _missing_field(frame: OutFrame) -> list[str]:
    message = json.loads(frame.text)
    for body in message.get("price_changes") or [message.get("msg", message)]:
        for key in ("price_dollars", "price"):
            body.pop(key, None)
    return [json.dumps(message, separators=(",", ":"))]


def _http_status(params: Json) -> RestAnswer:
    status = int(params.get("status", 429))
    if params.get("html"):
        page = f"<html><head><title>{status}</title></head><body>Bad gateway</body></html>"
        return RestAnswer(status=status, body=page, content_type="text/html")
    body = (
        '{"error":"too many requests"}' if status == 429 else '{"error":{"code":"internal_error","message":"internal"}}'
    )
    return RestAnswer(status=status, body=body)


def _slow(params: Json) -> RestAnswer:
    return RestAnswer(delay_s=float(params.get("seconds", 2.0)))


def _rest_nulls(params: Json) -> RestAnswer:  # noqa: ARG001 - it has no parameters
    return RestAnswer(null_lists=True)


_DELTAS = frozenset({"orderbook_delta", "price_change"})
_ONE_CONNECTION = frozenset({"connection"})

FAULTS: dict[str, _Kind] = {
    "disconnect": _Kind("now", "close sockets without a close frame", params=_ONE_CONNECTION),
    "disconnect_storm": _Kind(
        "now",
        "close all sockets `count` times within `seconds` (5); with `refuse` upgrades get 429 all the while",
        params=frozenset({"seconds", "refuse"}),
        lasting=True,
        seconds=_LASTS_S,
    ),
    "silence": _Kind(
        "now",
        "the sockets open now lose every frame but PONG and ping for `seconds` (until cleared); seq is used up",
        params=_ONE_CONNECTION | {"seconds"},
        lasting=True,
    ),
    "silent_market": _Kind(
        "market",
        "a market sends nothing unasked for `seconds` (until cleared), while its book moves on; no seq is used",
        params=frozenset({"seconds"}),
        lasting=True,
        needs_market=True,
    ),
    "missing_snapshot": _Kind(
        "snapshot", "a subscription gets no book; `market` may be a Polymarket token: that one alone is left out"
    ),
    "sid_error": _Kind(
        "now",
        "end `count` Kalshi subscriptions (of `channel`, orderbook_delta) with error `code` 25 or 10",
        params=_ONE_CONNECTION | {"code", "channel"},
    ),
    "burst": _Kind(
        "now",
        "play `factor` (10) times as fast for `seconds` (5)",
        params=frozenset({"factor", "seconds"}),
        lasting=True,
        seconds=_LASTS_S,
    ),
    "close_market": _Kind(
        "now",
        "close a market, settled if there is a `result`; Kalshi's second empty snapshot comes `apart` seconds later",
        params=frozenset({"result", "apart"}),
        needs_market=True,
    ),
    "reopen_market": _Kind("now", "open a closed market again", needs_market=True),
    "drop_seq": _Kind(
        "frame", "lose a Kalshi delta: its seq is used up", frozenset({"orderbook_delta"}), on_frame=_drop
    ),
    "duplicate_frame": _Kind(
        "frame", "send a frame twice", _DELTAS | {"trade", "last_trade_price", "book"}, on_frame=_duplicate
    ),
    "wrong_hash": _Kind(
        "frame", "send a Polymarket change with a wrong hash", frozenset({"price_change"}), on_frame=_wrong_hash
    ),
    "malformed_frame": _Kind(
        "frame",
        "send half a frame before the whole one, or in place of it with `lose`",
        _DELTAS,
        frozenset({"lose"}),
        on_frame=_malformed,
    ),
    "unknown_type": _Kind("frame", "send a message of an unknown type first", _DELTAS, on_frame=_unknown_type),
    "null_list": _Kind(
        "frame",
        "null in place of a list: a Polymarket change, or an empty side of a book",
        frozenset({"price_change", "orderbook_snapshot", "book"}),
        on_frame=_null_list,
    ),
    "missing_field": _Kind("frame", "a change without its price", _DELTAS, on_frame=_missing_field),
    "http_status": _Kind(
        "rest",
        "answer with `status` (429), or an HTML page if `html`",
        params=frozenset({"status", "html"}),
        on_rest=_http_status,
    ),
    "slow_rest": _Kind("rest", "answer after `seconds` (2)", params=frozenset({"seconds"}), on_rest=_slow),
    "rest_null_lists": _Kind("rest", "null in place of lists that may be null", on_rest=_rest_nulls),
}
"""Every fault by name."""


def _above_zero(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


_VALUES: dict[str, tuple[Callable[[object], bool], str]] = {
    "seconds": (_above_zero, "a number of seconds above 0"),
    "apart": (_above_zero, "a number of seconds above 0"),
    "factor": (_above_zero, "a number above 0"),
    "code": (lambda value: value in (10, 25), "10 or 25"),
    "result": (lambda value: value in ("yes", "no"), "yes or no"),
    "status": (lambda value: isinstance(value, int) and 400 <= value <= 599, "an HTTP status from 400 to 599"),
    "refuse": (lambda value: isinstance(value, bool), "true or false"),
    "html": (lambda value: isinstance(value, bool), "true or false"),
    "lose": (lambda value: isinstance(value, bool), "true or false"),
    "connection": (lambda value: isinstance(value, str), "a label such as kalshi-1"),
    "channel": (lambda value: isinstance(value, str), "a channel such as trade"),
}
"""What the value of a parameter must be, as a test and in words."""


class Faults:
    """The faults of one exchange that wait to strike, and those that did.

    Args:
        markets: ids that a fault may name; None for any.
        tokens: Polymarket tokens that ``missing_snapshot`` may name as well.

    Attributes:
        on_frames, on_markets: faults that wait for a data frame or silence a market. Senders look whether there are
            any before they ask for more, since frames are many.
    """

    def __init__(self, markets: Container[str] | None = None, tokens: Container[str] = ()) -> None:
        self.all: list[Fault] = []
        self._markets = markets
        self._tokens = tokens
        self._waiting: dict[Point, list[Fault]] = {
            "now": [],
            "frame": [],
            "snapshot": [],
            "market": [],
            "rest": [],
        }
        self.on_frames = self._waiting["frame"]
        self.on_markets = self._waiting["market"]

    def add(self, request: Any) -> Fault:
        """Take a fault from a request body ``{"kind", "venue", "market", "count", ...}``.

        Raises:
            FaultError: if it is not such an object.
        """
        if not isinstance(request, dict) or request.get("kind") not in FAULTS:
            raise FaultError(f"fault {request!r} is unknown; give an object with kind one of {', '.join(FAULTS)}")
        params = dict(request)
        name = params.pop("kind")
        kind = FAULTS[name]
        venue, count = params.pop("venue", ""), params.pop("count", 1)
        if venue not in {"", "kalshi", "polymarket"}:
            raise FaultError(f"venue {venue!r} is unknown; give kalshi or polymarket, or leave it out")
        if not isinstance(count, int) or count < 1:
            raise FaultError(f"count {count!r} is not a number of times; give an integer above 0")
        market_id = self._market(name, params.pop("market", ""))
        _check(name, params)
        fault = Fault(name, venue, market_id, count, params)
        if kind.lasting:
            seconds = params.get("seconds", kind.seconds)
            fault.until = None if seconds is None else time.monotonic() + seconds
        self.all.append(fault)
        self._waiting[kind.point].append(fault)
        return fault

    def clear(self) -> int:
        """End all faults; how many there were."""
        ended = [fault for fault in self.all if fault.left > 0]
        for fault in ended:
            fault.count = 0
            fault.cleared = True
        for waiting in self._waiting.values():
            waiting.clear()
        return len(ended)

    def frames(self, frame: OutFrame) -> list[str]:
        """The texts to send in place of a data frame."""
        for fault in self._waiting["frame"]:
            kind = FAULTS[fault.kind]
            if frame.type in kind.types and fault.fits(frame.venue, frame.market_id) and kind.on_frame is not None:
                self._strike("frame", fault)
                texts = kind.on_frame(frame)
                return [text for text in texts if text != frame.text] if fault.params.get("lose") else texts
        return [frame.text]

    def rest(self, venue: str) -> RestAnswer | None:
        """What happens to a REST request, None if nothing does."""
        for fault in self._waiting["rest"]:
            kind = FAULTS[fault.kind]
            if fault.fits(venue) and kind.on_rest is not None:
                self._strike("rest", fault)
                return kind.on_rest(fault.params)
        return None

    def withholds_snapshot(self, venue: str, *names: str) -> bool:
        """Whether the book that answers a subscription is left out; ``names`` are the market's and the token's."""
        for fault in self._waiting["snapshot"]:
            if fault.fits(venue, *names):
                self._strike("snapshot", fault)
                return True
        return False

    def silences(self, venue: str, market_id: str) -> bool:
        """Whether a market sends nothing now; asked once per message."""
        for fault in self._waiting["market"]:
            if fault.fits(venue, market_id):
                if fault.on:
                    fault.struck += 1
                    return True
                self._waiting["market"].remove(fault)
                return False
        return False

    def refuses(self, venue: str) -> bool:
        """Whether upgrades to a venue's socket are refused now."""
        return any(
            fault.params.get("refuse") and fault.on and fault.venue in {"", venue} for fault in self._waiting["now"]
        )

    def _strike(self, point: Point, fault: Fault) -> None:
        fault.strike()
        if not fault.count:
            self._waiting[point].remove(fault)

    def _market(self, kind: str, market_id: object) -> str:
        if not isinstance(market_id, str) or (FAULTS[kind].needs_market and not market_id):
            raise FaultError(f"market {market_id!r} names no market for {kind}; give a Kalshi ticker or a condition id")
        known = self._markets is None or market_id in self._markets
        if market_id and not known and not (kind == "missing_snapshot" and market_id in self._tokens):
            raise FaultError(f"market {market_id!r} is unknown; give a Kalshi ticker or a condition id")
        return market_id


def _check(kind: str, params: Json) -> None:
    """Refuse parameters that the kind has not, and values that mean nothing."""
    known = FAULTS[kind].params
    for name, value in params.items():
        if name not in known:
            told = ", ".join(sorted(known)) or "none beside venue, market and count"
            raise FaultError(f"parameter {name!r} is not one of {kind}; give {told}")
        fits, words = _VALUES[name]
        if not fits(value):
            raise FaultError(f"{name} {value!r} does not do for {kind}; give {words}")
