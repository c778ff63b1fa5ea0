"""Live order books of Kalshi and Polymarket, matched markets, and arbitrage that would really have paid.

For analysts: :func:`read` gives any table as pandas or Arrow, :func:`book_at` the full book of a market at any past
instant, :func:`grid` books filled forward on a grid, :func:`latest_prices` the newest quotes, :func:`connect` DuckDB
with a view of every table. They are loaded when they are first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arb_pipeline.storage.books import BookAt, BookUnknownError, book_at
    from arb_pipeline.storage.grid import GridError, grid
    from arb_pipeline.storage.latest import latest_prices
    from arb_pipeline.storage.reader import ReadError, connect, read

__all__ = [
    "BookAt",
    "BookUnknownError",
    "GridError",
    "ReadError",
    "__version__",
    "book_at",
    "connect",
    "grid",
    "latest_prices",
    "read",
]

__version__ = "0.1.0"

_HOMES = {
    "BookAt": "books",
    "BookUnknownError": "books",
    "GridError": "grid",
    "ReadError": "reader",
    "book_at": "books",
    "connect": "reader",
    "grid": "grid",
    "latest_prices": "latest",
    "read": "reader",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - importing the package loads nothing

    value: object = getattr(import_module(f"{__name__}.storage.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
