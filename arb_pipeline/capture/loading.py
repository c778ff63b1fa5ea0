"""The Postgres loader from the outside: what it tells, and its supervisor. A recorder imports no more of it."""

import sys
from collections.abc import Mapping
from typing import Self

import msgspec
from pydantic import SecretStr

from arb_pipeline.capture.deriving import venue_words
from arb_pipeline.capture.journal import RunFolder
from arb_pipeline.capture.supervising import ProcessReport, Supervised
from arb_pipeline.venues.base import Venue

__all__ = ["LoadReport", "LoaderProcess"]


class LoadReport(ProcessReport, frozen=True, kw_only=True):
    """How far a loader has come.

    Attributes:
        position: journal records whose rows are committed.
        rows: rows inserted.
        at_ns: receive time of the newest record whose rows are committed.
        lag_s: the oldest record whose rows are not, against now; 0 if there is none.
    """

    position: int = 0
    rows: int = 0
    at_ns: int = 0
    lag_s: float = 0.0

    def after(self, before: Self) -> Self:
        """The same with what earlier processes did; their trouble is over once there is progress."""
        return msgspec.structs.replace(
            self,
            restarts=before.restarts,
            rows=before.rows + self.rows,
            position=max(before.position, self.position),
            at_ns=max(before.at_ns, self.at_ns),
            message=self.message or ("" if self.position else before.message),
        )


class LoaderProcess(Supervised[LoadReport]):
    """The loader of one journal.

    Args:
        folder: the run's journal.
        venues: the venues that it may name, besides ours.
        url: the database; a secret, which goes by the environment.
        until_ns: the run is dead, and capture began again then; None: it lives.
        backoff_s: first and longest pause before a process that died is started again, seconds.
    """

    def __init__(
        self,
        folder: RunFolder,
        venues: Mapping[str, Venue],
        url: SecretStr,
        until_ns: int | None = None,
        *,
        backoff_s: tuple[float, float] = (1.0, 60.0),
    ) -> None:
        options = [word for venue in venue_words(venues.values()) for word in ("--venue", venue)]
        options += [] if until_ns is None else ["--recover", str(until_ns)]
        super().__init__(
            "the Postgres loader",
            [sys.executable, "-m", "arb_pipeline.capture.loader", str(folder.path), *options],
            LoadReport,
            settings={"ARB_POSTGRES_URL": url.get_secret_value()},
            backoff_s=backoff_s,
        )
