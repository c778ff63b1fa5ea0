"""What goes wrong with Postgres, told apart by whether it is worth trying again."""

import psycopg
from psycopg import errors

from arb_pipeline.errors import ArbError

__all__ = ["PostgresError", "PostgresUnavailableError", "translated"]

_AGAIN = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.LockNotAvailable,
    errors.ReadOnlySqlTransaction,
)
_AGAIN_CLASSES = ("08", "53", "57P")
"""Beginnings of codes: connection lost; disk, memory or connections used up; server starting or stopping."""
_NOT_AGAIN = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")
"""What a server says on connecting that waiting does not mend; libpq gives no code for it."""


class PostgresError(ArbError):
    """Postgres cannot be used as it is, or refuses something; the message says what, and never holds a password."""


class PostgresUnavailableError(PostgresError):
    """Postgres cannot be reached now (refused, lost, starting, stopping, full, or in each other's way): try again."""


def translated(error: psycopg.Error, action: str, password: str | None = None) -> PostgresError:
    """The error of ours that a driver's error is.

    Args:
        action: what was being done, for the message.
        password: what must not stand in the message.
    """
    told = str(error).strip() or type(error).__name__
    message = f"{action}: {told.replace(password, '***') if password else told}"
    lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and error.sqlstate is None
    if isinstance(error, _AGAIN) or (error.sqlstate or "").startswith(_AGAIN_CLASSES):
        return PostgresUnavailableError(message)
    if lost and not any(words in told for words in _NOT_AGAIN):
        return PostgresUnavailableError(message)
    return PostgresError(message)
