"""Handlers: Python callables that are told what a capture takes in, in a process of their own.

``docs/handlers.md`` tells how to write one; :mod:`arb_pipeline.handlers.shipped` holds three.
"""

from arb_pipeline.handlers.api import Alert, HandlerContext, Message, TimePassed, on, on_frame
from arb_pipeline.handlers.config import Handler, HandlerConfig, HandlerError, build

__all__ = [
    "Alert",
    "Handler",
    "HandlerConfig",
    "HandlerContext",
    "HandlerError",
    "Message",
    "TimePassed",
    "build",
    "on",
    "on_frame",
]
