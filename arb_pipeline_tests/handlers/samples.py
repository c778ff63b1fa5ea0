"""Handlers that tests name by their dotted path; what they are told they write to a file, line by line."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec

from arb_pipeline.handlers import HandlerContext, Message, TimePassed, on, on_frame
from arb_pipeline.model import BookSnapshot, GapOpened, Quote, Trade

NOT_DECORATED = 1


class Note:
    """Writes down what it is told; obeys trades whose id is an order."""

    def __init__(self, path: Path, slow_s: float = 0.0) -> None:
        self.path = path
        self.slow_s = slow_s

    @on("snapshot", "quote", "trade", "gap_opened")
    def note(self, event: BookSnapshot | Quote | Trade | GapOpened, context: HandlerContext) -> None:
        what = event.trade_id if isinstance(event, Trade) else type(event).__name__
        with self.path.open("a") as file:
            file.write(json.dumps([what, event.market_id, context.in_sync]) + "\n")
        time.sleep(self.slow_s)

    @on("time_passed")
    def time_passed(self, event: TimePassed, context: HandlerContext) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(["time_passed", context.venue, event.at_ns == context.at_ns]) + "\n")


class Obey:
    """Does what a trade's id says."""

    @on("trade")
    def obey(self, event: Trade, context: HandlerContext) -> None:
        order: str = event.trade_id
        if order == "raise":
            raise ValueError("told so")
        if order == "exit":
            sys.exit("told so")
        if order == "die":
            os._exit(3)
        if order == "hang":
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    continue
        if order == "print":
            print("no report")  # noqa: T201 - that is the point
        if order == "alert":
            context.alert(f"{context.market_id} traded", price=event.price)


@on_frame("kalshi", "orderbook_delta", "trade")
def frames(message: Message, context: HandlerContext, *, path: Path, mode: Literal["a", "w"] = "a") -> None:
    with path.open(mode) as file:
        file.write(msgspec.json.encode([message.type, message.venue, message.content["sid"]]).decode() + "\n")


def plain(event: Trade, context: HandlerContext) -> None:
    """Handles nothing."""


def lines(path: Path) -> list[list[object]]:
    """What :class:`Note` wrote."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
