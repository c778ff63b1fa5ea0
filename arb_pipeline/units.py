"""Fixed-point prices and sizes: the only numbers that books, tables and keys are made of.

Inside the package a price is an integer count of 1e-4 dollars per contract (``0.42`` is ``4200``), a size an
integer count of 1e-6 contracts (``12.5`` is ``12_500_000``). A trade's price may lie off the quoting grid, so
trades alone carry 1e-9 dollars. Money is :class:`~decimal.Decimal`. A value that does not fit its grid is
refused, never rounded.
"""

from decimal import Decimal

__all__ = [
    "ONE",
    "PRICE_SCALE",
    "SIZE_SCALE",
    "TRADE_PRICE_SCALE",
    "UnitError",
    "format_fixed",
    "format_plain",
    "parse_fixed",
    "parse_price",
    "parse_size",
    "parse_trade_price",
    "price_decimal",
    "size_decimal",
    "trade_price_decimal",
]

PRICE_SCALE = 10_000
SIZE_SCALE = 1_000_000
TRADE_PRICE_SCALE = 1_000_000_000
ONE = PRICE_SCALE
"""The payout of a winning contract, one dollar, as a price."""

_PRICE_DIGITS = 4
_SIZE_DIGITS = 6
_TRADE_PRICE_DIGITS = 9
_CACHE_LIMIT = 20_000
_MAX_INT64 = 2**63 - 1
_MAX_LENGTH = 64


class UnitError(ValueError):
    """A number that is not a plain decimal or does not fit its fixed-point grid."""


def parse_fixed(text: str, digits: int, what: str = "number") -> int:
    """Parse a plain decimal such as ``-12.50`` into an integer count of ``10**-digits``.

    Raises:
        UnitError: on anything but ASCII digits with one optional sign and point, on more significant decimals
            than ``digits``, and beyond 64 bits. Exponents, blanks, underscores and NaN are refused.
    """
    body = text[1:] if text[:1] == "-" else text
    whole, point, fraction = body.partition(".")
    if not (whole + fraction).isdigit() or not body.isascii() or (point and not fraction and not whole):
        raise UnitError(f"{what} {text!r} is not a plain decimal number")
    if len(text) > _MAX_LENGTH:
        raise UnitError(f"{what} {text[:40]!r}... is {len(text)} characters long")
    if len(fraction) > digits:
        if fraction[digits:].strip("0"):
            raise UnitError(f"{what} {text!r} has more than {digits} decimals")
        fraction = fraction[:digits]
    value = int(whole + fraction.ljust(digits, "0"))
    if value > _MAX_INT64:
        raise UnitError(f"{what} {text!r} does not fit 64 bits")
    return -value if body is not text else value


# Few distinct prices and round sizes make up most of a stream: a dict hit is several times cheaper than a parse.
_prices: dict[str, int] = {}
_sizes: dict[str, int] = {}


def parse_price(text: str) -> int:
    """Parse dollars per contract (``"0.4200"``) into 1e-4 dollars.

    Raises:
        UnitError: if the text is not a plain decimal on the 1e-4 grid.
    """
    value = _prices.get(text)
    if value is None:
        value = parse_fixed(text, _PRICE_DIGITS, "price")
        if len(_prices) >= _CACHE_LIMIT:
            _prices.clear()
        _prices[text] = value
    return value


def parse_size(text: str) -> int:
    """Parse contracts (``"12.50"``) into 1e-6 contracts; a signed change is allowed.

    Raises:
        UnitError: if the text is not a plain decimal on the 1e-6 grid.
    """
    value = _sizes.get(text)
    if value is None:
        value = parse_fixed(text, _SIZE_DIGITS, "size")
        if len(_sizes) >= _CACHE_LIMIT:
            _sizes.clear()
        _sizes[text] = value
    return value


def parse_trade_price(text: str) -> int:
    """Parse a trade's price, which may be an average off the quoting grid, into 1e-9 dollars.

    Raises:
        UnitError: if the text is not a plain decimal on the 1e-9 grid.
    """
    return parse_fixed(text, _TRADE_PRICE_DIGITS, "trade price")


def price_decimal(price: int) -> Decimal:
    """Dollars per contract, exact."""
    return Decimal(price).scaleb(-_PRICE_DIGITS)


def size_decimal(size: int) -> Decimal:
    """Contracts, exact."""
    return Decimal(size).scaleb(-_SIZE_DIGITS)


def trade_price_decimal(price: int) -> Decimal:
    """Dollars per contract of a trade, exact."""
    return Decimal(price).scaleb(-_TRADE_PRICE_DIGITS)


def format_fixed(value: int, digits: int, places: int) -> str:
    """Print a fixed-point integer of ``10**-digits`` with exactly ``places`` decimals: ``4200 -> "0.4200"``.

    Raises:
        UnitError: if the value needs more than ``places`` decimals.
    """
    if places < digits:
        value, rest = divmod(value, 10 ** (digits - places))
        if rest:
            raise UnitError(f"{value} needs more than {places} decimals")
        digits = places
    sign, value = ("-", -value) if value < 0 else ("", value)
    whole, fraction = divmod(value, 10**digits)
    if not places:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{str(fraction).rjust(digits, '0').ljust(places, '0')}"


def format_plain(value: int, digits: int) -> str:
    """Print a fixed-point integer without trailing zeros: ``4200 -> "0.42"``, ``10000 -> "1"``."""
    sign, value = ("-", -value) if value < 0 else ("", value)
    whole, fraction = divmod(value, 10**digits)
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{str(fraction).rjust(digits, '0').rstrip('0')}"
