"""What people are told."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from arb_pipeline.clock import datetime_from_ns

__all__ = ["Alert", "AlertState", "body"]

AlertState: TypeAlias = Literal["", "fired", "repeated", "resolved", "test"]
"""``fired``: a rule's condition has held for as long as it asks; ``repeated``: it still does; ``resolved``: it ended.
Empty: a handler's alert, which has no end."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler or a rule wants a person to know.

    Attributes:
        handler: name of the handler or rule.
        at_ns: receive time of what it was told, or of the newest that it rests on.
        subject: what of many things a rule speaks of (a pair and its direction, a market, a venue).
        channels: whom to tell; none named: everybody.
    """

    handler: str
    venue: str
    market_id: str
    at_ns: int
    message: str
    details: Mapping[str, Any] = {}
    subject: str = ""
    state: AlertState = ""
    channels: tuple[str, ...] = ()


def body(alert: Alert) -> dict[str, object]:
    """An alert without its message, as logs and webhooks get it; details must be fit for JSON or text."""
    by_rule = {"rule": alert.handler, "subject": alert.subject, "state": alert.state}
    return {
        **(by_rule if alert.state else {"handler": alert.handler}),
        "venue": alert.venue,
        "market_id": alert.market_id,
        "at": datetime_from_ns(alert.at_ns).isoformat(timespec="milliseconds"),
        "details": dict(alert.details),
    }
