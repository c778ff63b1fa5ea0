"""Pairs of markets, and the candidates that wait for a person."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from arb_pipeline.defs.checks import check_spec, keys_unique, one_to_one
from arb_pipeline.defs.describe import asset_key, exchange_tags, table_metadata, table_spec, table_uri
from arb_pipeline.defs.resources import Pipeline

__all__ = ["GROUP", "matching_assets"]

GROUP = "matching"
_EVERY = timedelta(hours=26)


def matching_assets(tags: dict[str, str]) -> dg.AssetsDefinition:
    """``market_matches`` and ``match_review``, made in one go from the newest catalogues."""
    matches, review = asset_key("market_matches"), asset_key("match_review")
    catalogue = [asset_key("events"), asset_key("markets")]

    @dg.multi_asset(
        name="match_markets",
        description="Proposes pairs of markets, removes look-alikes by hard rules, applies people's decisions.",
        specs=[
            table_spec(
                key.path[-1],
                group=GROUP,
                deps=catalogue,
                tags=tags,
                automation_condition=dg.AutomationCondition.eager(),
                fresh_within=_EVERY if key == matches else None,
            )
            for key in (matches, review)
        ],
        check_specs=[check_spec("keys_unique", matches), check_spec("one_to_one", matches)],
    )
    def match_markets(
        pipeline: dg.ResourceParam[Pipeline],
    ) -> Iterator[dg.MaterializeResult[None]]:
        from arb_pipeline.pipeline import match_markets as run

        result = run(pipeline.settings, pipeline.lake)
        origin = exchange_tags(pipeline.settings.exchange_name)
        rows = result.matches_table()
        yield dg.MaterializeResult(
            asset_key=matches,
            metadata={
                **table_metadata(rows, table_uri(pipeline.lake, "market_matches")),
                **{f"status_{status}": count for status, count in Counter(rows["status"].to_pylist()).items()},
            },
            check_results=[keys_unique(matches, rows, "market_matches"), one_to_one(matches, rows)],
            tags=origin,
        )
        yield dg.MaterializeResult(
            asset_key=review,
            metadata=table_metadata(result.review_table(), table_uri(pipeline.lake, "match_review")),
            tags=origin,
        )

    return match_markets
