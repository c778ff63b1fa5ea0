"""Faults on demand: what venues do at their worst, switched on by ``POST /_exchange/fault``.

A fault is registered once, with the point at which it strikes: ``now`` (at once), ``frame`` (on a data frame about
to be sent to one connection) or ``rest`` (on a REST request). It strikes ``count`` times and is gone.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from arb_pipeline.exchange.source import Json

__all__ = ["FAULTS", "Fault", "FaultError", "Faults", "OutFrame", "RestAnswer"]

Point = Literal["now", "frame", "rest"]


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
        struck: how many times it did.
    """

    kind: str
    venue: str = ""
    market_id: str = ""
    count: int = 1
    params: Json = field(default_factory=dict)
    struck: int = 0

    def fits(self, venue: str, market_id: str = "") -> bool:
        """Whether it strikes here."""
        return self.count > 0 and self.venue in {"", venue} and self.market_id in {"", market_id}

    def strike(self) -> None:
        """Count one strike."""
        self.count -= 1
        self.struck += 1


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of fault: where it strikes, what it is in words, and how."""

    point: Point
    words: str
    types: frozenset[str] = frozenset()
    on_frame: Callable[[OutFrame], list[str]] | None = None
    on_rest: Callable[[Json], RestAnswer] | None = None


def _drop(frame: OutFrame) -> list[str]:  # noqa: ARG001 - the frame is what gets lost
    return []


def _wrong_hash(frame: OutFrame) -> list[str]:
    message = json.loads(frame.text)
    for entry in message.get("price_changes", [message]):
        entry["hash"] = entry["hash"][::-1]
    return [json.dumps(message, separators=(",", ":"))]


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

FAULTS: dict[str, _Kind] = {
    "disconnect": _Kind("now", "close sockets without a close frame"),
    "drop_seq": _Kind("frame", "lose a Kalshi delta: its seq is used up", frozenset({"orderbook_delta"}), _drop),
    "wrong_hash": _Kind(
        "frame", "send a Polymarket change with a wrong hash", frozenset({"price_change"}), _wrong_hash
    ),
    "malformed_frame": _Kind("frame", "send half a frame before the whole one", _DELTAS, _malformed),
    "unknown_type": _Kind("frame", "send a message of an unknown type first", _DELTAS, _unknown_type),
    "null_list": _Kind(
        "frame",
        "null in place of a list: a Polymarket change, or an empty side of a book",
        frozenset({"price_change", "orderbook_snapshot", "book"}),
        _null_list,
    ),
    "missing_field": _Kind("frame", "a change without its price", _DELTAS, _missing_field),
    "http_status": _Kind("rest", "answer with `status` (429), or an HTML page if `html`", on_rest=_http_status),
    "slow_rest": _Kind("rest", "answer after `seconds` (2)", on_rest=_slow),
    "rest_null_lists": _Kind("rest", "null in place of lists that may be null", on_rest=_rest_nulls),
}
"""Every fault by name."""


class Faults:
    """The faults of one exchange that wait to strike, and those that did."""

    def __init__(self) -> None:
        self.all: list[Fault] = []
        self._frame: list[Fault] = []
        self._rest: list[Fault] = []

    @property
    def on_frames(self) -> bool:
        """Whether any fault waits for a data frame; checked before anything else is, since frames are many."""
        return bool(self._frame)

    def add(self, request: Any) -> Fault:
        """Take a fault from a request body ``{"kind", "venue", "market", "count", ...}``.

        Raises:
            FaultError: if it is not such an object.
        """
        if not isinstance(request, dict) or request.get("kind") not in FAULTS:
            raise FaultError(f"fault {request!r} is unknown; give an object with kind one of {', '.join(FAULTS)}")
        params = dict(request)
        venue, count = params.pop("venue", ""), params.pop("count", 1)
        if venue not in {"", "kalshi", "polymarket"}:
            raise FaultError(f"venue {venue!r} is unknown; give kalshi or polymarket, or leave it out")
        if not isinstance(count, int) or count < 1:
            raise FaultError(f"count {count!r} is not a number of times; give an integer above 0")
        fault = Fault(params.pop("kind"), venue, str(params.pop("market", "")), count, params)
        self.all.append(fault)
        point = FAULTS[fault.kind].point
        if point == "frame":
            self._frame.append(fault)
        elif point == "rest":
            self._rest.append(fault)
        return fault

    def frames(self, frame: OutFrame) -> list[str]:
        """The texts to send in place of a data frame."""
        for fault in self._frame:
            kind = FAULTS[fault.kind]
            if frame.type in kind.types and fault.fits(frame.venue, frame.market_id) and kind.on_frame is not None:
                fault.strike()
                self._frame = [other for other in self._frame if other.count > 0]
                return kind.on_frame(frame)
        return [frame.text]

    def rest(self, venue: str) -> RestAnswer | None:
        """What happens to a REST request, None if nothing does."""
        for fault in self._rest:
            kind = FAULTS[fault.kind]
            if fault.fits(venue) and kind.on_rest is not None:
                fault.strike()
                self._rest = [other for other in self._rest if other.count > 0]
                return kind.on_rest(fault.params)
        return None
