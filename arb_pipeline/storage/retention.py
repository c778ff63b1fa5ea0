"""How long raw frames are kept: whole partitions of ``raw_frames`` go once they are old enough; no other table does."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.storage.lake import Lake, Partition

__all__ = ["TABLE", "Removed", "expired", "remove_expired"]

TABLE: Final = "raw_frames"


@dataclass(frozen=True, slots=True)
class Removed:
    """A partition that retention removes, and what it holds."""

    partition: Partition
    rows: int
    bytes: int
    files: int


def expired(lake: Lake, days: float, now: datetime) -> list[Removed]:
    """Partitions of raw frames that ended ``days`` or longer before ``now``, oldest first.

    Raises:
        ValueError: if ``days`` is not positive.
    """
    if days <= 0:
        raise ValueError(f"raw frames are to be kept for {days} days; give a positive number, or none for ever")
    limit = ns_from_datetime(now - timedelta(days=days))
    found = []
    for partition in lake.partitions(TABLE):
        bounds = partition.bounds
        if bounds is not None and bounds[1] <= limit:
            files = lake.manifest(TABLE, partition).files
            rows, size = sum(file.rows for file in files), sum(file.bytes for file in files)
            found.append(Removed(partition, rows, size, len(files)))
    return sorted(found, key=lambda one: (one.partition.bounds or (0, 0), one.partition.order))


def remove_expired(lake: Lake, days: float, now: datetime) -> list[Removed]:
    """Remove what :func:`expired` finds, each partition as one; what was removed.

    Broken off, it goes on with the next call.
    """
    found = expired(lake, days, now)
    for one in found:
        lake.drop(TABLE, one.partition)
    return found
