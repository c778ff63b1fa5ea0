"""Rate decisions, published statistics, prices at a time or touched, closes of indices, temperatures."""

import re
from decimal import Decimal

from msgspec.structs import replace

from arb_pipeline.matching.families.reading import Family, Reading
from arb_pipeline.matching.numbers import Interval
from arb_pipeline.matching.slots import Direction, Fact, Observation, Slots

__all__ = ["FAMILIES"]

_PRINTS = {
    "core cpi", "cpi", "core pce", "pce", "ppi", "gdp", "unemployment", "payrolls", "jobless claims", "retail sales",
    "job openings", "housing starts", "home sales", "ism", "consumer sentiment",
}  # fmt: skip
_COINS = {
    "bitcoin", "ethereum", "solana", "xrp", "dogecoin", "cardano", "litecoin", "bnb", "sui", "hyperliquid",
}  # fmt: skip
_INDICES = {"s&p 500", "nasdaq 100", "nasdaq composite", "dow", "russell 2000", "vix", "nikkei"}
_GOODS = {"gold", "silver", "wti", "brent", "natural gas", "copper", "eurusd", "usdjpy"}
_BASIS = (
    ("annualized", re.compile(r"\b(?:annuali[sz]ed|adjusted annual rate|saar)\b")),
    (
        "year over year",
        re.compile(r"\b(?:year[- ]over[- ]year|yoy|y/y|annual(?:ly)?|(?:12|twelve)[- ]months?|yearly|year ending)\b"),
    ),
    ("month over month", re.compile(r"\b(?:month[- ]over[- ]month|mom|m/m|monthly|one[- ]month)\b")),
    ("quarter over quarter", re.compile(r"\b(?:quarter[- ]over[- ]quarter|qoq|q/q|quarterly)\b")),
)
_ANY_MOVE = Interval(Decimal(0), None, low_closed=False, high_closed=False, unit="bps")


def _fed_decision(reading: Reading) -> Slots | None:
    slots = reading.slots
    if slots.meeting is None or (slots.direction is None and slots.interval is None and slots.metric is None):
        return None
    if not re.search(r"\bfed\b|federal reserve|fomc|federal funds|interest rate", reading.around):
        return None
    direction = slots.direction.value if slots.direction is not None else None
    if direction is Direction.HOLD:
        return replace(slots, interval=None)
    if direction in {Direction.CUT, Direction.HIKE} and slots.interval is None:
        return replace(slots, interval=Fact(_ANY_MOVE, "family", "of any size"))
    return slots


def _macro_print(reading: Reading) -> Slots | None:
    slots = reading.slots
    if slots.metric is None or slots.metric.value not in _PRINTS or slots.interval is None:
        return None
    observation = slots.observation
    if observation is not None and observation.value is Observation.WINDOW:
        # "In December" names the month that one figure is of.
        observation = Fact(Observation.POINT, "family", observation.text)
    return replace(slots, period=slots.period or _basis(reading), observation=observation)


def _basis(reading: Reading) -> Fact[str] | None:
    for source, text in (("title", reading.around), ("rules", reading.rules)):
        for value, pattern in _BASIS:
            if match := pattern.search(text):
                return Fact(value, source, match.group())
    return None


def _priced(reading: Reading, assets: set[str]) -> bool:
    slots = reading.slots
    return (
        slots.asset is not None
        and slots.asset.value in assets
        and slots.metric is None
        and (slots.interval is not None or slots.direction in _moves(slots))
    )


def _moves(slots: Slots) -> tuple[object, ...]:
    up_or_down = slots.direction is not None and slots.direction.value in {Direction.UP, Direction.DOWN}
    return (slots.direction,) if up_or_down else ()


def _touched(slots: Slots) -> bool:
    return slots.observation is not None and slots.observation.value in {Observation.TOUCH, Observation.WINDOW}


def _price_touch(reading: Reading) -> Slots | None:
    if not _priced(reading, _COINS | _GOODS | _INDICES) or not _touched(reading.slots):
        return None
    slots = reading.slots
    return replace(slots, observation=Fact(Observation.TOUCH, "family", "at any time until the deadline"))


def _crypto_point(reading: Reading) -> Slots | None:
    return reading.slots if _priced(reading, _COINS) and not _touched(reading.slots) else None


def _index_close(reading: Reading) -> Slots | None:
    return reading.slots if _priced(reading, _INDICES | _GOODS) and not _touched(reading.slots) else None


def _temperature(reading: Reading) -> Slots | None:
    slots = reading.slots
    if slots.metric is None or "temperature" not in slots.metric.value or slots.interval is None:
        return None
    return slots


FAMILIES = (
    Family("temperature_bracket", _temperature, ("metric", "interval", "on", "station", "source_class")),
    Family("fed_decision", _fed_decision, ("meeting", "direction"), ("unscheduled", "rounding"), exclusive=True,
           optional=("on", "deadline", "clock", "editions", "metric")),
    Family("macro_print", _macro_print, ("metric", "interval", "period", "editions"), ("source",),
           optional=("on", "deadline", "clock", "observation")),
    Family("crypto_touch", _price_touch, ("asset", "interval", "deadline", "source_class")),
    Family("crypto_point", _crypto_point, ("asset", "interval", "on", "clock", "source_class")),
    Family("index_close", _index_close, ("asset", "interval", "on", "source_class")),
)  # fmt: skip
