"""Matching through Dagster: decisions, changed rules, settlement, measurement."""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import msgspec
import pytest

from arb_pipeline import pipeline
from arb_pipeline.clock import Clock, ns_from_datetime
from arb_pipeline.defs.describe import asset_key
from arb_pipeline.defs.discovery.assets import combined_assets
from arb_pipeline.defs.matching.assets import matching_assets, matching_checks
from arb_pipeline.defs.resources import Pipeline
from arb_pipeline.matching.overrides import OverrideError, Verdict, load_overrides
from arb_pipeline.matching.review import decide, find_case, rules_changes
from arb_pipeline.matching.versions import current_matches, matches_as_of
from arb_pipeline.model import Event, Market, MarketStatus, rules_digest
from arb_pipeline.settings import Settings
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.history import record_changes
from arb_pipeline.storage.lake import Lake
from arb_pipeline.venues.base import VenueError
from arb_pipeline_tests.matching.build import event

IDS = {"kalshi": "KXFED-26JUL-T4.25", "polymarket": "0xfed"}
START = datetime(2026, 6, 1, 12, tzinfo=UTC)
RULES = "If the upper bound of the federal funds target range is above 4.25% following the July 2026 meeting, then Yes."
TITLE = "Will the upper bound of the federal funds rate be above 4.25% following the Fed's July 2026 meeting?"


@dataclass
class World:
    """Two markets that ask the same, a lake, and a clock that only the test moves."""

    folder: Path
    instance: dg.DagsterInstance
    now: datetime = START
    rules: dict[str, str] = field(default_factory=lambda: {"kalshi": RULES, "polymarket": f"{RULES} Source: the Fed."})
    status: dict[str, MarketStatus] = field(
        default_factory=lambda: {"kalshi": MarketStatus.OPEN, "polymarket": MarketStatus.OPEN}
    )
    result: dict[str, str] = field(default_factory=lambda: {"kalshi": "", "polymarket": ""})

    def __post_init__(self) -> None:
        self.settings = Settings(
            lake=str(self.folder / "lake"),
            matches_path=self.folder / "matches.yaml",
            reports_path=self.folder / "reports",
        )
        self.lake = Lake(self.settings.lake)

    def discover(self, hours: float = 1) -> None:
        """Let time pass, and list both venues as they are now."""
        self.now += timedelta(hours=hours)
        for venue in IDS:
            write_catalogue(self.lake, venue, [self.listed(venue)], self.now)
            record_changes(self.lake, venue, self.now)

    def listed(self, venue: str) -> Event:
        """The venue's event as it is now."""
        rules = self.rules[venue]
        one = event(venue, IDS[venue], TITLE, rules=rules, rules_sha256=rules_digest(rules), volume_24h=5_000_000)
        market = msgspec.structs.replace(one.markets[0], status=self.status[venue], result=self.result[venue])
        return msgspec.structs.replace(one, markets=(market,))

    def materialise(self, *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        """Materialise the catalogue's views and everything of matching but the measurement."""
        matching = matching_assets({})[:2]
        return dg.materialize(
            [*_upstream(), *combined_assets({}), *matching],
            selection=dg.AssetSelection.assets(asset_key("events"), asset_key("markets"))
            | dg.AssetSelection.groups("matching"),
            instance=self.instance,
            resources={"pipeline": Pipeline(self.settings)},
            raise_on_error=raise_on_error,
        )

    def pair(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = current_matches(self.lake).to_pylist()
        (row,) = rows
        return row

    def decide(self, verdict: Verdict | None = None, reason: str = "read both") -> None:
        known, markets = pipeline.review_cases(self.settings, self.lake)
        case = find_case("0xfed", known, markets, load_overrides(self.settings.matches_path))
        decide(self.settings.matches_path, case, verdict, reason=reason, author="ann", at=self.now)


def _upstream() -> list[dg.AssetSpec]:
    return [
        dg.AssetSpec(asset_key(name, venue)) for name in ("events", "markets") for venue in ("kalshi", "polymarket")
    ]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = World(tmp_path, instance)
        clock = Clock(source=lambda: ns_from_datetime(made.now))
        monkeypatch.setattr(Settings, "clock", property(lambda _self: clock))
        yield made


def _check(result: dg.ExecuteInProcessResult, name: str) -> Any:
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == name]
    return found


def test_one_changed_character_of_a_rules_text_puts_an_approved_pair_back_into_review(world: World) -> None:
    world.discover()
    world.materialise()
    assert world.pair()["status"] in {"review", "auto"}
    world.decide(Verdict.EQUIVALENT)
    world.now += timedelta(minutes=1)
    assert _check(world.materialise(), "decisions_apply").passed
    approved = world.now
    assert world.pair()["status"] == "approved"
    assert world.lake.current("match_review").num_rows == 0
    assert [pair.status for pair in pipeline.load_pairs(world.lake)] == ["approved"]

    world.rules["polymarket"] = world.rules["polymarket"].replace("4.25%", "4.26%")
    world.discover(hours=24)
    result = world.materialise()
    row = world.pair()
    assert row["status"] == "review"
    assert row["polymarket_rules_sha256"] == rules_digest(world.rules["polymarket"])
    applies = _check(result, "decisions_apply")
    assert not applies.passed
    assert "0xfed: polymarket" in applies.metadata["reopened_pairs"].value
    waiting = world.lake.current("match_review").to_pylist()
    assert [one["polymarket_market_id"] for one in waiting] == ["0xfed"]
    assert [pair.status for pair in pipeline.load_pairs(world.lake)] == ["review"]

    # What was known while it was approved is still told.
    assert matches_as_of(world.lake, approved)["status"].to_pylist() == ["approved"]
    assert [pair.status for pair in pipeline.load_pairs(world.lake, approved)] == ["approved"]
    assert [pair.status for pair in pipeline.load_pairs(world.lake, world.now, approved)] == ["approved"]

    # The person is shown what changed, and decides again.
    known, _ = pipeline.review_cases(world.settings, world.lake)
    (change,) = rules_changes(world.lake, known[0])
    assert change.before is not None
    assert "4.25%" in change.before
    assert "4.26%" in change.after
    assert change.changed_at == world.now
    assert known[0].reasons[0] == "the rules of Polymarket changed after the decision"
    (page,) = [
        made.metadata["page"].value
        for made in result.asset_materializations_for_node("match_markets")
        if "page" in made.metadata
    ]
    assert "re-opened" in Path(str(page)).read_text(encoding="utf-8")
    world.decide(Verdict.REJECTED, "another rate now")
    world.now += timedelta(minutes=1)
    world.materialise()
    assert world.pair()["status"] == "refused"


def test_the_pairs_of_a_run_are_described(world: World) -> None:
    world.discover()
    result = world.materialise()
    made = {event.asset_key: event.metadata for event in result.asset_materializations_for_node("match_markets")}
    matches = made[asset_key("market_matches")]
    assert matches["added"].value == 1
    assert "data:image/png;base64" in str(matches["pairs"].value)
    assert len(str(matches["pairs"].value)) < 100_000
    assert "| equivalent |" in str(matches["funnel"].value)
    assert Path(str(made[asset_key("match_review")]["page"].value)).is_file()


def test_contradictory_decisions_fail_the_run_and_say_where(world: World) -> None:
    world.discover()
    world.materialise()
    world.decide(Verdict.EQUIVALENT)
    text = world.settings.matches_path.read_text(encoding="utf-8")
    entry = text[text.index("- kalshi") :].replace("verdict: equivalent", "verdict: rejected")
    world.settings.matches_path.write_text(text + entry, encoding="utf-8")
    with pytest.raises(OverrideError, match=r"entries 1 and 2 approve and reject the same pair \(lines 3 and "):
        world.materialise()


def _settled(world: World, kalshi: str, polymarket: str) -> dg.ExecuteInProcessResult:
    world.discover()
    world.materialise()
    world.decide(Verdict.EQUIVALENT)
    world.now += timedelta(minutes=1)
    world.materialise()
    world.status = dict.fromkeys(world.status, MarketStatus.SETTLED)
    world.result = {"kalshi": kalshi, "polymarket": polymarket}
    world.discover()
    return world.materialise()


@pytest.mark.parametrize(("polymarket", "verdict"), [("yes", "agreed"), ("no", "disagreed"), ("0.5", "void_split")])
def test_settled_pairs_are_compared(world: World, polymarket: str, verdict: str) -> None:
    before = world.now
    result = _settled(world, "yes", polymarket)
    assert world.pair()["status"] == "expired"
    (row,) = world.lake.current("settlement_agreement").to_pylist()
    assert (row["verdict"], row["status"], row["accepted"]) == (verdict, "approved", True)
    assert row["kalshi_resolved_at"] == row["polymarket_resolved_at"] == row["known_at"] == world.now
    assert _check(result, "settled_as_said").passed == (verdict != "disagreed")
    (made,) = result.asset_materializations_for_node("settle_pairs")
    assert ("agreement_rate" in made.metadata) == (verdict != "void_split")
    # What could be traded before the end still counts for the time before it.
    assert pipeline.load_pairs(world.lake) == []
    assert [pair.status for pair in pipeline.load_pairs(world.lake, since=before)] == ["approved"]
    assert pipeline.load_pairs(world.lake, since=world.now) == []
    first = world.now
    world.discover()
    world.materialise()
    assert world.lake.current("settlement_agreement")["known_at"].to_pylist() == [first]


class _Venue:
    """Answers for markets by name; what it does not know is an error, and so is everything while it is down."""

    def __init__(self, told: dict[str, Market], *, is_down: bool = False) -> None:
        self._told = told
        self._is_down = is_down
        self.asked: list[str] = []

    def credentials(self, _settings: Settings) -> None:
        return None

    def rest_client(self, _settings: Settings, _credentials: None) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def find_markets(self, _client: None, text: str) -> list[Market]:
        self.asked.append(text)
        if self._is_down:
            raise httpx.ConnectError("refused")
        if text not in self._told:
            raise VenueError(f"no market {text}")
        return [self._told[text]]


def test_results_of_markets_that_left_the_listings_are_asked_for_by_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.discover()
    world.materialise()
    (kalshi, polymarket) = (world.listed(venue).markets[0] for venue in ("kalshi", "polymarket"))
    world.now += timedelta(hours=1)
    for venue in ("kalshi", "polymarket"):
        write_catalogue(world.lake, venue, [event(venue, f"0xother-{venue}", "Will it rain?")], world.now)
        record_changes(world.lake, venue, world.now)
    settled = {"status": MarketStatus.SETTLED, "result": "yes"}
    venues = {
        "kalshi": _Venue({}, is_down=True),
        "polymarket": _Venue({"0xfed": msgspec.structs.replace(polymarket, **settled)}),
    }
    monkeypatch.setattr(pipeline, "registered", lambda name: venues[name])
    world.materialise()
    held = {row["kalshi_market_id"]: row["status"] for row in current_matches(world.lake).to_pylist()}
    assert held[kalshi.market_id] == "expired"
    assert (venues["kalshi"].asked, venues["polymarket"].asked) == ([kalshi.market_id], ["0xfed"])
    assert world.lake.current("settlement_agreement").num_rows == 0

    # Kalshi is up again; what is known by then is not asked for again.
    world.now += timedelta(hours=1)
    venues["kalshi"] = _Venue({kalshi.market_id: msgspec.structs.replace(kalshi, **settled)})
    venues["polymarket"] = _Venue({})
    world.materialise()
    (row,) = world.lake.current("settlement_agreement").to_pylist()
    assert (row["verdict"], row["kalshi_resolved_at"]) == ("agreed", world.now)
    assert row["polymarket_resolved_at"] == world.now - timedelta(hours=1)
    assert venues["polymarket"].asked == []
    world.now += timedelta(hours=1)
    world.materialise()
    assert len(venues["kalshi"].asked) == 1


def _evaluate(world: World, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [matching_assets({})[2], *matching_checks()],
        instance=instance,
        resources={"pipeline": Pipeline(world.settings)},
    )


def test_without_a_labelled_file_the_measurement_is_skipped_with_a_reason(world: World) -> None:
    result = _evaluate(world, world.instance)
    assert not result.asset_materializations_for_node("evaluate_matcher")
    logged = [entry.user_message for entry in world.instance.all_logs(result.run_id)]
    assert any("ARB_LABELLED_PAIRS names no file" in message for message in logged)


def _labelled(path: Path, labels: Sequence[str]) -> Path:
    lines = []
    for number, label in enumerate(labels):
        title = f"Will the upper bound of the federal funds rate be above {number}.25% following the July 2026 meeting?"
        lines.append(
            json.dumps(
                {
                    "id": f"p{number}",
                    "label": label,
                    "kalshi": {"ticker": f"K{number}", "title": title, "rules": title},
                    "polymarket": {"id": f"0x{number}", "question": title, "rules": title},
                }
            )
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_measurements_are_kept_and_held_against_the_floors(world: World) -> None:
    world.settings.labelled_pairs = _labelled(world.folder / "labels.jsonl", ["equivalent", "equivalent"])
    world.now += timedelta(hours=1)
    assert _check(_evaluate(world, world.instance), "evaluation_floors").passed
    world.settings.labelled_pairs = _labelled(world.folder / "labels.jsonl", ["equivalent", "different", "different"])
    world.now += timedelta(hours=1)
    floors = _check(_evaluate(world, world.instance), "evaluation_floors")
    assert not floors.passed
    assert "precision" in floors.metadata["broken"].value
    rows = world.lake.current("match_evaluation").to_pylist()
    precision = [row["value"] for row in rows if (row["family"], row["metric"]) == ("overall", "precision")]
    assert precision[0] == 1.0 > precision[1]
