"""Opaque cursors over a stable list, and over one that grows at its head."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

__all__ = ["CursorError", "page", "page_newest_first"]

T = TypeVar("T")


class CursorError(ValueError):
    """A cursor that this listing did not give out."""


def page(items: Sequence[T], cursor: str, limit: int, filters: Mapping[str, object]) -> tuple[Sequence[T], str]:
    """A page after a cursor and the next cursor, empty at the end.

    Raises:
        CursorError: if the cursor is not from this listing with these filters.
    """
    digest = _digest(filters)
    start = _start(cursor, digest) if cursor else 0
    end = start + limit
    return items[start:end], _cursor(digest, end) if end < len(items) else ""


def page_newest_first(
    items: Sequence[T], number: Callable[[T], int], cursor: str, limit: int, filters: Mapping[str, object]
) -> tuple[Sequence[T], str]:
    """The same over items with falling numbers, where new ones may come first between two pages.

    The cursor is the number of the last item given, so that pages neither repeat nor miss an item.

    Raises:
        CursorError: if the cursor is not from this listing with these filters.
    """
    digest = _digest(filters)
    if cursor:
        last = _start(cursor, digest)
        items = [item for item in items if number(item) < last]
    chosen = items[:limit]
    return chosen, _cursor(digest, number(chosen[-1])) if len(items) > limit else ""


def _digest(filters: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(sorted(filters.items()), default=str).encode()).hexdigest()[:12]


def _cursor(digest: str, position: int) -> str:
    return base64.urlsafe_b64encode(f"{digest}:{position}".encode()).decode()


def _start(cursor: str, digest: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor.encode()).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise CursorError(f"cursor {cursor!r} is not one of ours") from error
    own, _, start = text.partition(":")
    if own != digest or not start.isdigit():
        raise CursorError(f"cursor {cursor!r} belongs to another listing")
    return int(start)
