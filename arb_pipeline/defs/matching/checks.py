"""Checks of pairs: that people's decisions apply, that pairs settle as said, that the matcher keeps its floors."""

from typing import TYPE_CHECKING, Final

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.defs.describe import asset_key
from arb_pipeline.defs.resources import Pipeline

if TYPE_CHECKING:
    from arb_pipeline.pipeline import Matched

__all__ = ["AT_LEAST", "AT_MOST", "decisions_apply", "evaluation_floors", "settled_as_said"]

AT_LEAST: Final = {
    "precision": 0.95,
    "recall": 0.60,
    "auto_precision": 1.0,
    "implication_precision": 0.90,
    "candidate_recall_at_20": 0.99,
}
AT_MOST: Final = {"inversion_errors": 0.0}
"""Floors and ceilings of the overall figures on labelled pairs."""

_SHOWN = 20


def decisions_apply(asset: dg.AssetKey, result: "Matched") -> dg.AssetCheckResult:
    """Every decision of ``matches.yaml`` is about the rules texts of today, and about markets that are listed."""
    reopened = [f"{kalshi}/{polymarket}: {', '.join(venues)}" for kalshi, polymarket, venues in result.reopened]
    absent = ["/".join(decision.pair) for decision in result.absent]
    return dg.AssetCheckResult(
        passed=not reopened,
        asset_key=asset,
        check_name="decisions_apply",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "reopened": len(reopened),
            "reopened_pairs": "\n".join(reopened[:_SHOWN]),
            "not_listed": len(absent),
            "not_listed_pairs": "\n".join(absent[:_SHOWN]),
        },
    )


def settled_as_said(asset: dg.AssetKey, rows: pa.Table) -> dg.AssetCheckResult:
    """No pair that counted as arbitrage settled against its relation."""
    wrong = rows.filter(pc.equal(rows["verdict"], "disagreed"))
    accepted = wrong.filter(wrong["accepted"])
    pairs = zip(accepted["kalshi_market_id"].to_pylist(), accepted["polymarket_market_id"].to_pylist(), strict=True)
    return dg.AssetCheckResult(
        passed=not accepted.num_rows,
        asset_key=asset,
        check_name="settled_as_said",
        metadata={
            "resolved": rows.num_rows,
            "disagreed": wrong.num_rows,
            "disagreed_and_accepted": accepted.num_rows,
            "pairs": "\n".join("/".join(pair) for pair in list(pairs)[:_SHOWN]),
        },
    )


@dg.asset_check(
    asset=asset_key("match_evaluation"),
    description="On labelled pairs the matcher keeps its floors of precision, recall and candidate recall.",
)
def evaluation_floors(pipeline: dg.ResourceParam[Pipeline]) -> dg.AssetCheckResult:
    """The newest measurement against the floors; passed, saying so, where nothing was ever measured."""
    rows = pipeline.lake.current("match_evaluation")
    overall = rows.filter(pc.equal(rows["family"], "overall")).sort_by("evaluated_at").to_pylist()
    if not overall:
        return dg.AssetCheckResult(
            passed=True, metadata={"skipped": "nothing was measured: set ARB_LABELLED_PAIRS to a labelled file"}
        )
    newest = {row["metric"]: row["value"] for row in overall if row["evaluated_at"] == overall[-1]["evaluated_at"]}
    below = [name for name, floor in AT_LEAST.items() if newest.get(name, floor) < floor]
    above = [name for name, ceiling in AT_MOST.items() if newest.get(name, ceiling) > ceiling]
    return dg.AssetCheckResult(
        passed=not (below or above),
        metadata={
            "broken": ", ".join(below + above),
            **{name: newest[name] for name in (*AT_LEAST, *AT_MOST) if name in newest},
            **{f"{name}_at_least": floor for name, floor in AT_LEAST.items()},
            **{f"{name}_at_most": ceiling for name, ceiling in AT_MOST.items()},
        },
    )
