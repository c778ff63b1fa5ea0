"""How long episodes last: durations, censoring, and the survival curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from arb_pipeline.arbitrage.episodes import Survival, kaplan_meier
from arb_pipeline.reports.heat import pair_slices

__all__ = ["Lifetimes", "lifetimes", "median_step_s"]

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Of the accepted episodes, or of the refused ones.

    Attributes:
        median_s, p90_s: lifetimes that half of them, and one in ten, outlive; None if the data do not reach so far.
        censored: share of which the end was not seen; left: share of which the beginning was not seen.
    """

    name: str
    curve: Survival
    median_s: float | None
    p90_s: float | None
    censored: float
    left: float


def lifetimes(episodes: Sequence[Row]) -> list[Lifetimes]:
    """Lifetimes of accepted and of refused episodes, those of which there are any.

    An episode ended if its edge fell; one that became unknown or goes on is censored.

    Args:
        episodes: rows of ``opportunities`` with ``lasted``, for how many seconds each was seen.
    """
    found = []
    for name, wanted in (("accepted", True), ("refused", False)):
        rows = [row for row in episodes if row["accepted"] is wanted]
        if not rows:
            continue
        curve = kaplan_meier([row["lasted"] for row in rows], [row["end_reason"] == "edge" for row in rows])
        left = sum(bool(row["left_censored"]) for row in rows) / len(rows)
        found.append(
            Lifetimes(name, curve, curve.quantile(0.5), curve.quantile(0.9), curve.censored / curve.episodes, left)
        )
    return found


def median_step_s(spreads: pa.Table) -> float | None:
    """The median time between two changes of a pair's tops, seconds: finer than that nothing can be told."""
    times = spreads["recv_ns"].to_numpy()
    steps = [np.diff(times[begin:end]) for begin, end in pair_slices(spreads).values()]
    joined = np.concatenate([*steps, np.array([], dtype=np.int64)])
    return float(np.median(joined)) / 1e9 if joined.size else None
