"""Rules evaluated over tables: figures that follow from what is in the lake, look by look."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.compute as pc
import pytest

from arb_pipeline import pipeline
from arb_pipeline.alerting.alert import Alert
from arb_pipeline.capture.heartbeat import HeartbeatFile
from arb_pipeline.clock import Clock
from arb_pipeline.defs.alerts import ALERTS_SENSOR, alert_sensor
from arb_pipeline.model import Event, MarketStatus, MatchStatus
from arb_pipeline.settings import Settings
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.table_alerts import look_at_tables
from arb_pipeline_tests.alerting.hook import Hook, serving
from arb_pipeline_tests.arbitrage.builders import KALSHI, POLYMARKET, START, Tape, at, free, market, pair, when

VENUES = ("kalshi", "polymarket")


class Desk:
    """A lake at a time, and looks at it that follow each other."""

    def __init__(self, settings: Settings, seconds: float) -> None:
        self.settings = settings
        self.lake = Lake(settings.lake)
        self.now = at(seconds)
        self.cursor = ""

    def look(self, later_s: float = 0) -> list[Alert]:
        self.now += int(later_s * 10**9)
        found = look_at_tables(self.settings, self.lake, self.cursor)
        self.cursor = found.cursor
        return list(found.alerts)

    def rules(self, *rules: str) -> None:
        text = "\n".join(f"  - {rule}" for rule in rules)
        self.settings.alerts_file.write_text(f"positions: held.csv\nrules:\n{text}\n")

    def list_market(self, venue: str, **changes: Any) -> None:
        """Have the catalogue tell a market, by default one that is open for days."""
        listed = market(venue, **changes)
        event = Event(venue=venue, event_id=listed.event_id, title="E", markets=(listed,))
        write_catalogue(self.lake, venue, [event], START)

    def keep(self, tape: Tape, heard_s: float) -> None:
        """Write a tape, heard of until so many seconds after the start."""
        for venue in VENUES:
            tape.answer(venue, heard_s)
        data = tape.data()
        for name in ("quotes", "book_events", "book_gaps", "capture_sessions", "raw_frames"):
            rows = getattr(data, name)
            for venue in VENUES:
                part = Partition.of(name, venue, START)
                self.lake.write_part(name, part, rows.filter(pc.equal(rows["venue"], venue)), f"w{self.now}")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    settings = Settings(lake=str(tmp_path / "lake"), alerts_file=tmp_path / "alerts.yaml")
    desk = Desk(settings, 60)
    monkeypatch.setattr(Settings, "clock", property(lambda _self: Clock(source=lambda: desk.now)))
    for venue in VENUES:
        desk.list_market(venue)
    accepted = [pair(status=MatchStatus.APPROVED)]
    monkeypatch.setattr(pipeline, "load_pairs", lambda *_args, **_options: accepted)
    monkeypatch.setattr(pipeline, "fee_source", lambda *_args, **_options: free)
    return desk


def paying() -> Tape:
    """YES at 0.42 on Kalshi, bid at 0.50 on Polymarket: 0.08 a contract for 20, 0.07 for 20 more."""
    tape = Tape().session("kalshi").session("polymarket")
    tape.snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "90")])
    return tape.snapshot("polymarket", 1, [("0.50", "20"), ("0.49", "20")], [("0.60", "9")])


@pytest.mark.parametrize(
    ("above", "size", "fires"),
    [("0.07", 20, True), ("0.08", 20, False), ("0.07", 40, True), ("0.075", 40, False), ("0.01", 41, False)],
)
def test_a_net_edge_is_that_of_the_whole_size(desk: Desk, above: str, size: int, fires: bool) -> None:
    desk.keep(paying(), 55)
    desk.rules(f"{{name: paying, kind: net_edge, above: {above}, size: {size}, over: tables}}")
    told = desk.look()
    assert [alert.state for alert in told] == ["fired"] * fires
    assert desk.look(30) == [], "what was told is not told again"
    if fires:
        assert told[0].subject == f"{KALSHI} = {POLYMARKET}, YES on kalshi, NO on polymarket"
        assert Decimal(told[0].details["net_edge"]) == (Decimal("0.08") if size == 20 else Decimal("0.075"))


def test_an_edge_in_doubt_is_unknown_and_one_that_is_over_is_told(desk: Desk) -> None:
    desk.rules("{name: paying, kind: net_edge, above: 0.01, size: 10, over: tables}")
    doubted = paying().gap("polymarket", 50, None)
    desk.keep(doubted, 55)
    assert desk.look() == []


def test_an_edge_over_a_connection_that_is_down_is_unknown(desk: Desk) -> None:
    desk.rules("{name: paying, kind: net_edge, above: 0.01, size: 10, over: tables}")
    tape = Tape().session("kalshi").session("polymarket", end=50)
    tape.snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "90")])
    desk.keep(tape.snapshot("polymarket", 1, [("0.50", "20")], [("0.60", "9")]), 55)
    assert desk.look() == []


def test_an_edge_is_over_when_the_books_say_so(desk: Desk) -> None:
    desk.rules("{name: paying, kind: net_edge, above: 0.01, size: 10, over: tables}")
    tape = paying()
    desk.keep(tape, 55)
    assert [alert.state for alert in desk.look()] == ["fired"]
    later = Tape()
    later._books, later._tops, later._ordinal = tape._books, tape._tops, tape._ordinal
    later.change("polymarket", 70, "bid", "0.50", "0").change("polymarket", 70.1, "bid", "0.49", "0")
    desk.now = at(80)
    desk.keep(later, 78)
    assert [alert.state for alert in desk.look()] == ["resolved"]


def test_old_rows_say_nothing_of_now(desk: Desk) -> None:
    desk.rules("{name: paying, kind: net_edge, above: 0.01, size: 10, over: tables}")
    desk.keep(paying(), 55)
    assert desk.look(120) == []


def test_it_must_last_from_look_to_look(desk: Desk) -> None:
    desk.rules("{name: tight, kind: spread, at_most: 0.02, venues: kalshi, for_seconds: 40, over: tables}")
    desk.keep(paying(), 55)
    assert desk.look() == []
    desk.keep(Tape(), 85)
    assert desk.look(30) == []
    desk.keep(Tape(), 115)
    [alert] = desk.look(30)
    assert (alert.state, alert.subject) == ("fired", f"kalshi {KALSHI}")
    assert alert.message.endswith("spread 0.02 (at most 0.02), for 60.0 s")


def test_after_a_long_pause_lasting_begins_anew(desk: Desk) -> None:
    desk.rules("{name: tight, kind: spread, at_most: 0.02, venues: kalshi, for_seconds: 40, over: tables}")
    desk.keep(paying(), 55)
    assert desk.look() == []
    desk.keep(Tape(), 1_255)
    assert desk.look(1_200) == []


def test_moves_from_an_entry(desk: Desk) -> None:
    held = desk.settings.alerts_file.with_name("held.csv")
    held.write_text(f"venue,market_id,outcome,size,entry\npolymarket,{POLYMARKET},yes,100,0.40\n")
    desk.rules("{name: moved, kind: price_move, by: 0.05, over: tables}")
    desk.keep(paying(), 55)
    [alert] = desk.look()
    assert (alert.subject, Decimal(alert.details["change"])) == (f"polymarket {POLYMARKET} YES", Decimal("0.10"))


def test_positions_that_cannot_be_read_cost_their_rules_only(desk: Desk) -> None:
    desk.rules(
        "{name: moved, kind: price_move, by: 0.05, over: tables}",
        "{name: tight, kind: spread, at_most: 0.02, venues: kalshi, over: tables}",
    )
    desk.keep(paying(), 55)
    found = look_at_tables(desk.settings, desk.lake)
    assert [alert.handler for alert in found.alerts] == ["tight"]
    [trouble] = found.troubles
    assert "held.csv cannot be read" in trouble


TIGHT = "{name: tight, kind: spread, at_most: 0.02, venues: kalshi, over: tables}"


def kalshi_alone(end: float | None = None, **options: Any) -> Tape:
    tape = Tape().session("kalshi", end=end, connection="run/kalshi/0.1").session("polymarket")
    return tape.snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "90")], connection="run/kalshi/0.1", **options)


def test_the_top_of_a_connection_that_is_down_is_unknown(desk: Desk) -> None:
    """A disconnect writes no quote, and its gap gets a row only when it ends."""
    held = desk.settings.alerts_file.with_name("held.csv")
    held.write_text(f"venue,market_id,outcome,size,entry\nkalshi,{KALSHI},yes,100,0.30\n")
    desk.rules(TIGHT, "{name: moved, kind: price_move, by: 0.05, over: tables}")
    desk.keep(kalshi_alone(), 40)
    assert {alert.handler for alert in desk.look()} == {"tight", "moved"}
    desk.cursor = ""
    desk.keep(Tape().session("kalshi", end=50, connection="run/kalshi/0.1"), 55)
    assert desk.look() == []


def test_an_edge_whose_connection_went_down_is_not_over(desk: Desk) -> None:
    desk.rules("{name: paying, kind: net_edge, above: 0.01, size: 10, over: tables}")
    desk.keep(paying(), 55)
    assert [alert.state for alert in desk.look()] == ["fired"]
    moved = Tape().session("polymarket", end=58).snapshot("kalshi", 59, [("0.40", "9")], [("0.60", "90")])
    desk.keep(moved, 60)
    assert desk.look(5) == [], "nobody knows what Polymarket bids now"


def test_a_book_that_another_connection_took_over_without_a_quote_is_known(desk: Desk) -> None:
    """So an hour begins: with the books of the run's own connections, whose quotes came before its window."""
    desk.rules(TIGHT)
    tape = kalshi_alone(end=30)
    taken_over: dict[str, Any] = {"connection": "run/kalshi/1.1", "quote": False}
    tape.snapshot("kalshi", 31, [("0.41", "9")], [("0.42", "90"), ("0.43", "1")], **taken_over)
    desk.keep(tape, 55)
    [alert] = desk.look()
    assert alert.details == {"kind": "spread", "spread": "0.01", "size": "9"}


@pytest.mark.parametrize(("answered_s", "fires"), [(51, True), (49, False)])
def test_a_polled_top_is_as_old_as_its_last_answer(desk: Desk, answered_s: float, fires: bool) -> None:
    desk.rules(TIGHT)
    tape = kalshi_alone(source="rest").answer("kalshi", 55)
    answer = {**tape._rows["raw_frames"][-1], "connection_id": "run/kalshi/0.1", "recv_ns": at(answered_s)}
    tape._rows["raw_frames"].append(answer)
    desk.keep(tape, 55)
    assert len(desk.look()) == fires


@pytest.mark.parametrize(
    "changes",
    [
        {"status": MarketStatus.SETTLED},
        {"status": MarketStatus.PAUSED},
        {"close_at": when(59)},
        {"open_at": when(61)},
        {"market_id": "KXOTHER"},
    ],
)
def test_a_market_that_does_not_trade_is_unknown(desk: Desk, changes: dict[str, Any]) -> None:
    held = desk.settings.alerts_file.with_name("held.csv")
    held.write_text(f"venue,market_id,outcome,size,entry\nkalshi,{KALSHI},yes,100,0.30\n")
    desk.rules(TIGHT, "{name: moved, kind: price_move, by: 0.05, over: tables}")
    desk.keep(kalshi_alone(), 55)
    desk.list_market("kalshi", **changes)
    assert desk.look() == []


def test_rules_evaluated_live_are_left_alone(desk: Desk) -> None:
    desk.rules("{name: paying, kind: net_edge, above: 0.01, size: 10}")
    desk.keep(paying(), 55)
    assert desk.look() == []


def test_gaps_beyond_their_share(desk: Desk) -> None:
    desk.now = at(1_800)
    desk.keep(paying().gap("polymarket", 0, 180), 1_790)
    desk.rules(
        "{name: many, kind: gap_share, above: 0.099, minutes: 30}",
        "{name: more, kind: gap_share, above: 0.101, minutes: 30}",
    )
    [alert] = desk.look()
    assert (alert.handler, alert.subject) == ("many", "polymarket")
    assert alert.details["share"] == "0.100000"
    assert [alert.state for alert in desk.look(180)] == ["resolved"], "the last thirty minutes have no gap any more"


SHARES = "{name: many, kind: gap_share, above: 0.3, minutes: 10, venues: kalshi}"


def test_an_outage_that_lasts_counts(desk: Desk) -> None:
    desk.rules(SHARES)
    desk.keep(kalshi_alone().snapshot("kalshi", 1, market_id="KXB", connection="run/kalshi/1.1"), 590)
    desk.now = at(600)
    assert desk.look() == []
    desk.keep(Tape().session("kalshi", end=400, connection="run/kalshi/0.1"), 795)
    [alert] = desk.look(200)
    assert alert.details["share"] == f"{400 / 1200:.6f}", "one of two markets for 400 of 600 seconds"
    reconnected = Tape().snapshot("kalshi", 805, connection="run/kalshi/0.2")
    desk.keep(reconnected.gap("kalshi", 400, 805, connection="run/kalshi/0.1"), 995)
    assert desk.look(200) == [], "405 of 1200 seconds"
    [resolved] = desk.look(200)
    assert (resolved.state, resolved.details["share"]) == ("resolved", f"{205 / 1200:.6f}")


def test_an_outage_of_more_than_an_hour_is_everything(desk: Desk) -> None:
    desk.rules(SHARES)
    desk.keep(kalshi_alone(end=400), 590)
    desk.now = at(3 * 3600)
    [alert] = desk.look()
    assert alert.details["share"] == "1.000000"


@pytest.mark.parametrize("reason", ["window_end", "stopped", "killed"])
def test_a_connection_that_nobody_wants_any_more_is_no_outage(desk: Desk, reason: str) -> None:
    desk.rules(SHARES)
    tape = kalshi_alone(end=400)
    tape._rows["capture_sessions"][0]["stop_reason"] = reason
    desk.keep(tape, 590)
    desk.now = at(800)
    assert desk.look() == []


def test_polls_without_an_answer_count(desk: Desk) -> None:
    desk.rules(SHARES)
    tape = kalshi_alone(source="rest").answer("kalshi", 590)
    tape._rows["raw_frames"].append({**tape._rows["raw_frames"][-1], "connection_id": "run/kalshi/0.1"})
    desk.keep(tape, 590)
    desk.now = at(600)
    assert desk.look() == []
    [alert] = desk.look(400)
    assert alert.details["share"] == f"{410 / 600:.6f}"


def test_a_book_that_is_out_of_sync_counts(desk: Desk) -> None:
    desk.rules(SHARES)
    desk.keep(kalshi_alone().change("kalshi", 300, "bid", "0.41", "1", connection="run/kalshi/0.1", in_sync=False), 590)
    desk.now = at(600)
    [alert] = desk.look()
    assert alert.details["share"] == "0.500000"
    desk.keep(Tape().gap("kalshi", 300, 400, connection="run/kalshi/0.1"), 595)
    assert [alert.state for alert in desk.look()] == ["resolved"], "it was over after 100 seconds"


def test_a_capture_that_falls_silent(desk: Desk) -> None:
    desk.rules("{name: stalled, kind: capture_stalled, after_seconds: 60, repeat_after: 100}")
    assert desk.look() == [], "nobody ever captured"
    desk.keep(paying(), 55)
    assert desk.look() == []
    told = desk.look(60)
    assert [(alert.subject, alert.state) for alert in told] == [("kalshi", "fired"), ("polymarket", "fired")]
    assert told[0].message == "stalled: kalshi: no sign of life for 65 s (limit 60 s)"
    assert desk.look(90) == []
    assert {alert.state for alert in desk.look(10)} == {"repeated"}
    assert {alert.state for alert in desk.look(3 * 86_400)} == {"repeated"}, "however long ago it was"
    heartbeat = HeartbeatFile(desk.settings, desk.lake, "run", shard=(0, 1), venues=("kalshi",))
    heartbeat.begin()
    assert [(alert.subject, alert.state) for alert in desk.look()] == [("kalshi", "resolved")]


# --- the sensor --------------------------------------------------------------------------------------------


@pytest.fixture
def hook() -> Iterator[Hook]:
    with serving() as hook:
        yield hook


def test_the_sensor_tells_and_remembers(desk: Desk, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.rules("{name: paying, kind: net_edge, above: 0.01, size: 10, over: tables}")
    desk.keep(paying(), 55)
    given = {"ARB_LAKE": desk.settings.lake, "ARB_ALERTS_FILE": str(desk.settings.alerts_file)}
    for name, value in {**given, "ARB_ALERT_WEBHOOK_URL": hook.url}.items():
        monkeypatch.setenv(name, value)
    definitions = dg.Definitions(sensors=[alert_sensor()])
    sensor = definitions.resolve_sensor_def(ALERTS_SENSOR)
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(cursor: str | None) -> Any:
            return sensor.evaluate_tick(dg.build_sensor_context(instance, cursor=cursor, definitions=definitions))

        first = tick(None)
        assert hook.states() == ["fired"]
        assert first.run_requests == []
        second = tick(first.cursor)
        assert hook.states() == ["fired"]
        assert second.cursor
        desk.settings.alerts_file.write_text("rules: [{name: a, kind: none}]")
        with pytest.raises(dg.Failure, match="rule 'a'"):
            tick(second.cursor)
