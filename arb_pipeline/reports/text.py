"""Numbers and times as people read them, exact where they are exact."""

import json
from datetime import datetime
from decimal import Decimal

__all__ = [
    "DASH",
    "cents",
    "count",
    "dollars",
    "fine_cents",
    "instant",
    "listed",
    "number",
    "percent",
    "price",
    "seconds",
    "signed_cents",
    "trimmed",
]

DASH = "–"  # noqa: RUF001 - the sign for "none" in every table
_MINUS = "−"  # noqa: RUF001 - a minus lines up with digits, a hyphen does not


def trimmed(value: Decimal) -> str:
    """All digits, without trailing zeros, thousands apart."""
    sign, value = (_MINUS, -value) if value < 0 else ("", value)
    whole, _, fraction = f"{value:,f}".partition(".")
    fraction = fraction.rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def number(value: Decimal | None, places: int) -> str:
    """Rounded to at most so many decimals."""
    return DASH if value is None else trimmed(round(value, places))


def price(value: Decimal | None) -> str:
    """Dollars per contract, at least two decimals."""
    if value is None:
        return DASH
    text = trimmed(value)
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.ljust(2, '0')}"


def dollars(value: Decimal | None) -> str:
    """Money to a hundredth of a cent."""
    if value is None:
        return DASH
    rounded = round(value, 4)
    sign = _MINUS if rounded < 0 else ""
    whole, _, fraction = f"{abs(rounded):,.4f}".partition(".")
    return f"{sign}${whole}.{fraction.rstrip('0').ljust(2, '0')}"


def cents(value: Decimal | None) -> str:
    """Dollars per contract as cents, to a hundredth of a cent."""
    return DASH if value is None else f"{trimmed(round(value * 100, 2))} ¢"


def fine_cents(value: Decimal | None) -> str:
    """The same to a ten-thousandth of a cent, as fees per contract need."""
    return DASH if value is None else f"{trimmed(round(value * 100, 4))} ¢"


def signed_cents(value: float | None) -> str:
    """Dollars per contract of a mean as cents with their sign, to a hundredth of a cent."""
    return DASH if value is None else f"{value * 100:+.2f} ¢".replace("-", _MINUS)


def percent(value: float | None, places: int = 2) -> str:
    """A fraction as per cent."""
    return DASH if value is None else f"{value * 100:,.{places}f} %".replace("-", _MINUS)


def count(value: int) -> str:
    """A whole number, thousands apart."""
    return f"{value:,d}"


def instant(at: datetime | None, *, day: bool = True) -> str:
    """UTC to the millisecond."""
    if at is None:
        return DASH
    return at.strftime("%Y-%m-%d %H:%M:%S.%f" if day else "%H:%M:%S.%f")[:-3]


def seconds(value: float) -> str:
    """A duration in the unit that reads best."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    if value < 7200:
        return f"{value / 60:.1f} min"
    return f"{value / 3600:.1f} h"


def listed(text: str) -> list[str]:
    """The texts of a column that holds a JSON list of them."""
    return [str(one) for one in json.loads(text)]
