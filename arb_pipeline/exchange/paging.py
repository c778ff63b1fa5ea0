"""Opaque cursors over a stable list, and query parameters read as strictly as the venues do."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

__all__ = ["CursorError", "page"]

T = TypeVar("T")


class CursorError(ValueError):
    """A cursor that this listing did not give out."""


def page(items: Sequence[T], cursor: str, limit: int, filters: Mapping[str, object]) -> tuple[Sequence[T], str]:
    """A page after a cursor and the next cursor, empty at the end.

    Raises:
        CursorError: if the cursor is not from this listing with these filters.
    """
    digest = hashlib.sha256(json.dumps(sorted(filters.items()), default=str).encode()).hexdigest()[:12]
    start = _start(cursor, digest) if cursor else 0
    end = start + limit
    following = base64.urlsafe_b64encode(f"{digest}:{end}".encode()).decode() if end < len(items) else ""
    return items[start:end], following


def _start(cursor: str, digest: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor.encode()).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise CursorError(f"cursor {cursor!r} is not one of ours") from error
    own, _, start = text.partition(":")
    if own != digest or not start.isdigit():
        raise CursorError(f"cursor {cursor!r} belongs to another listing")
    return int(start)
