"""Pairs of markets, the queue for people, sets of outcomes, how pairs settled, and how well the matcher does."""

import asyncio
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta

import dagster as dg
import pyarrow as pa

from arb_pipeline.defs.checks import check_spec, keys_unique, one_to_one
from arb_pipeline.defs.describe import Metadata, asset_key, exchange_tags, table_metadata, table_spec, table_uri
from arb_pipeline.defs.matching.checks import decisions_apply, evaluation_floors, settled_as_said
from arb_pipeline.defs.resources import Pipeline

__all__ = ["GROUP", "matching_assets", "matching_checks"]

GROUP = "matching"
_EVERY = timedelta(hours=26)
_SHOWN_CHANGES = ("added", "changed", "ended", "unchanged")


def matching_assets(tags: dict[str, str]) -> list[dg.AssetsDefinition]:
    """Matching itself, settlement agreement, and the measurement on labelled pairs."""
    return [_matching(tags), _settlement(tags), _evaluation(tags)]


def matching_checks() -> list[dg.AssetChecksDefinition]:
    """Checks that stand beside their asset; the others run inside it."""
    return [evaluation_floors]


def _matching(tags: dict[str, str]) -> dg.AssetsDefinition:
    """``market_matches``, ``match_review`` and ``outcome_sets``, made in one go from the newest catalogues."""
    matches, review, sets = asset_key("market_matches"), asset_key("match_review"), asset_key("outcome_sets")
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
            for key in (matches, review, sets)
        ],
        check_specs=[
            check_spec("keys_unique", matches),
            check_spec("one_to_one", matches),
            check_spec("decisions_apply", matches),
            check_spec("keys_unique", sets),
        ],
        pool="market_matches",  # what is new is told from what is there: one writer at a time
    )
    def match_markets(
        pipeline: dg.ResourceParam[Pipeline],
    ) -> Iterator[dg.MaterializeResult[None]]:
        from arb_pipeline.pipeline import match_markets as run
        from arb_pipeline.pipeline import review_page
        from arb_pipeline.reports import markdown_preview
        from arb_pipeline.reports.review import funnel_rows, matches_png

        settings, lake = pipeline.settings, pipeline.lake
        result = run(settings, lake)
        origin = exchange_tags(settings.exchange_name)
        rows = result.matches
        yield dg.MaterializeResult(
            asset_key=matches,
            metadata={
                **table_metadata(rows, table_uri(lake, "market_matches")),
                **{f"status_{status}": count for status, count in Counter(rows["status"].to_pylist()).items()},
                **{f"relation_{name}": count for name, count in Counter(rows["relation"].to_pylist()).items()},
                **{name: result.changes[name] for name in _SHOWN_CHANGES},
                "funnel": dg.MetadataValue.md(markdown_preview(pa.Table.from_pylist(funnel_rows(rows)), 50)),
                "pairs": dg.MetadataValue.md(
                    f"![pairs by relation and status](data:image/png;base64,{b64encode(matches_png(rows)).decode()})"
                ),
            },
            check_results=[
                keys_unique(matches, rows, "market_matches"),
                one_to_one(matches, rows),
                decisions_apply(matches, result),
            ],
            tags=origin,
        )
        today = settings.clock.now().date().isoformat()
        page = review_page(settings, lake, settings.reports_path / today / "review.html").resolve()
        yield dg.MaterializeResult(
            asset_key=review,
            metadata={
                **table_metadata(result.review, table_uri(lake, "match_review")),
                "reopened": dg.MetadataValue.int(len(result.reopened)),
                "page": dg.MetadataValue.path(str(page)),
            },
            tags=origin,
        )
        of_several = result.outcome_sets
        yield dg.MaterializeResult(
            asset_key=sets,
            metadata={
                **table_metadata(of_several, table_uri(lake, "outcome_sets")),
                **{
                    name: dg.MetadataValue.int(sum(of_several[name].to_pylist()))
                    for name in ("exclusive", "exhaustive")
                },
                "with_a_partner": dg.MetadataValue.int(len(of_several) - of_several["partner_event_id"].null_count),
            },
            check_results=[keys_unique(sets, of_several, "outcome_sets")],
            tags=origin,
        )

    return match_markets


def _settlement(tags: dict[str, str]) -> dg.AssetsDefinition:
    key = asset_key("settlement_agreement")
    spec = table_spec(
        "settlement_agreement",
        group=GROUP,
        deps=[asset_key("market_matches")],
        tags=tags,
        automation_condition=dg.AutomationCondition.eager(),
    )

    @dg.multi_asset(
        name="settle_pairs",
        description="Compares how both venues resolved the pairs that are over: ground truth that costs nothing.",
        specs=[spec],
        check_specs=[check_spec("settled_as_said", key), check_spec("keys_unique", key)],
    )
    def settle_pairs(pipeline: dg.ResourceParam[Pipeline]) -> Iterator[dg.MaterializeResult[None]]:
        from arb_pipeline.matching.settlement import figures
        from arb_pipeline.pipeline import settle
        from arb_pipeline.reports import markdown_preview

        rows = asyncio.run(settle(pipeline.settings, pipeline.lake))
        families = figures(rows.to_pylist())
        overall = families[0]
        metadata: Metadata = {
            **table_metadata(rows, table_uri(pipeline.lake, "settlement_agreement")),
            "resolved": dg.MetadataValue.int(overall.resolved),
            "agreed": dg.MetadataValue.int(overall.agreed),
            "split": dg.MetadataValue.int(overall.split),
            "disagreement_at_most": dg.MetadataValue.float(overall.bound),
            "families": dg.MetadataValue.md(
                markdown_preview(pa.Table.from_pylist([asdict(one) for one in families]), 50)
            ),
        }
        if overall.rate is not None:
            metadata["agreement_rate"] = dg.MetadataValue.float(overall.rate)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata=metadata,
            check_results=[settled_as_said(key, rows), keys_unique(key, rows, "settlement_agreement")],
            tags=exchange_tags(pipeline.settings.exchange_name),
        )

    return settle_pairs


def _evaluation(tags: dict[str, str]) -> dg.AssetsDefinition:
    key = asset_key("match_evaluation")
    spec = table_spec(
        "match_evaluation",
        group=GROUP,
        tags=tags,
        automation_condition=dg.AutomationCondition.on_cron("0 3 * * *"),
        skippable=True,
    )

    @dg.multi_asset(
        name="evaluate_matcher",
        description="Measures the matcher on the file of labelled pairs that ARB_LABELLED_PAIRS names.",
        specs=[spec],
    )
    def evaluate_matcher(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        from arb_pipeline.pipeline import evaluate_matches

        rows = evaluate_matches(pipeline.settings, pipeline.lake)
        if rows is None:
            context.log.info("skipped: ARB_LABELLED_PAIRS names no file of labelled pairs")
            return
        overall = {row["metric"]: row["value"] for row in rows.to_pylist() if row["family"] == "overall"}
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={
                **table_metadata(rows, table_uri(pipeline.lake, "match_evaluation")),
                **{name: dg.MetadataValue.float(value) for name, value in overall.items()},
            },
            tags=exchange_tags(pipeline.settings.exchange_name),
        )

    return evaluate_matcher
