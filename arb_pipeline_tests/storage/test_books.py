import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import arb_pipeline
from arb_pipeline.capture.replay import replay
from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.errors import ArbError
from arb_pipeline.model import Event, Market, MarketStatus
from arb_pipeline.recordings import Frame, Recording, write_recording
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake, Partition
from arb_pipeline.storage.books import BookUnknownError, book_at
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.reader import ReadError
from arb_pipeline.tables import table
from arb_pipeline_tests.storage.rows import HOUR, SECOND, START, gaps
from arb_pipeline_tests.storage.wire_fold import WireFold, folded

INSTANTS = 1_000

Row = tuple[float, str, str | None, str | None, str | None]
"""(seconds after START, kind, side, price, size)."""

OPENING: tuple[Row, ...] = (
    (0, "clear", None, None, None),
    (0, "snapshot", "bid", "0.40", "10"),
    (0, "snapshot", "bid", "0.39", "5"),
    (0, "snapshot", "ask", "0.45", "7.5"),
)
CHANGES: tuple[Row, ...] = (
    (10, "delta", "bid", "0.41", "3"),
    (20, "delta", "bid", "0.40", "0"),
    (20, "delta", "ask", "0.45", "8"),
)


def events(
    rows: Sequence[Row], *, market: str = "M", connection: str = "c1", ordinal: int = 0, venue: str = "kalshi"
) -> pa.Table:
    columns: list[dict[str, Any]] = [
        {
            "venue": venue,
            "market_id": market,
            "recv_ns": START + round(at * SECOND),
            "ordinal": ordinal + number,
            "venue_ns": None,
            "seq": number,
            "connection_id": connection,
            "epoch": 1,
            "kind": kind,
            "side": side,
            "price": None if price is None else Decimal(price),
            "size": None if size is None else Decimal(size),
            "source": "ws",
        }
        for number, (at, kind, side, price, size) in enumerate(rows)
    ]
    return pa.Table.from_pylist(columns, schema=table("book_events").schema)


def session(connection: str = "c1", *, ended: float | None = 3_600, venue: str = "kalshi") -> pa.Table:
    row = {
        "venue": venue,
        "connection_id": connection,
        "run_id": "run",
        "exchange": "",
        "started_at": datetime_from_ns(START),
        "ended_at": None if ended is None else datetime_from_ns(START + round(ended * SECOND)),
        "markets": 1,
        "frames": 1,
        "bytes": 1,
        "anomalies": "{}",
        "examples": "{}",
        "reconnects": 0,
        "stop_reason": "",
    }
    return pa.Table.from_pylist([row], schema=table("capture_sessions").schema)


def write(lake: Lake, name: str, rows: pa.Table, *, venue: str = "kalshi", at: int = START) -> None:
    lake.write_part(name, Partition.of(name, venue, at), rows, "run")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    write(lake, "book_events", events([*OPENING, *CHANGES]))
    write(lake, "capture_sessions", session())
    return lake


def ladders(book: arb_pipeline.BookAt) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    document = book.document()
    return [tuple(level) for level in document["bids"]], [tuple(level) for level in document["asks"]]


def at(lake: Lake, seconds: float, market: str = "M", **options: Any) -> arb_pipeline.BookAt:
    return book_at(market, START + round(seconds * SECOND), lake=lake, **options)


# --- against the recordings ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def replayed(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lake]:
    lakes = {}
    for path in sorted(recordings.iterdir()):
        if any(path.glob("*/frames.jsonl.gz")):
            lakes[path.name] = Lake(str(tmp_path_factory.mktemp(path.name)))
            replay(Recording.open(path), lakes[path.name], Settings())
    return lakes


@pytest.mark.slow
def test_a_thousand_random_instants_of_the_recordings_equal_an_independent_fold(
    recordings: Path, replayed: dict[str, Lake]
) -> None:
    random_ = random.Random(20260513)
    trusted = compared = levels = 0
    for number, (name, lake) in enumerate(sorted(replayed.items())):
        changes = WireFold(recordings / name).changes
        wanted: defaultdict[str, list[int]] = defaultdict(list)
        share = (INSTANTS - number + len(replayed) - 1) // len(replayed)
        for count in range(share):
            market = random_.choice(sorted(changes))
            times = changes[market]
            # A third exactly at an event: many frames share their receive time.
            exact = random_.choice(times)[0]
            wanted[market].append(exact if count % 3 == 0 else random_.randint(times[0][0], times[-1][0]))
        for market, instants in wanted.items():
            for instant, (bids, asks) in folded(changes[market], sorted(instants)):
                book = book_at(market, instant, lake=lake, allow_untrusted=True)
                assert [tuple(level) for level in book.bids] == bids, (market, instant)
                assert [tuple(level) for level in book.asks] == asks, (market, instant)
                assert book.recv_ns <= instant
                crossed = len(bids) > 0 and len(asks) > 0 and bids[0][0] >= asks[0][0]
                assert book.in_sync is not crossed, (market, instant, book.doubt)
                trusted += book.in_sync
                levels += len(book.bids) + len(book.asks)
                compared += 1
    assert compared == INSTANTS
    assert trusted > 0.99 * INSTANTS
    assert levels > 10 * INSTANTS


# --- a book moves ------------------------------------------------------------------------------------------


def test_a_book_is_its_snapshot_and_the_changes_up_to_and_at_the_instant(lake: Lake) -> None:
    assert ladders(at(lake, 0)) == ([("0.4", "10"), ("0.39", "5")], [("0.45", "7.5")])
    before, exactly = at(lake, 10 - 1e-9), at(lake, 10)
    assert ladders(before) == ladders(at(lake, 0))
    assert ladders(exactly)[0] == [("0.41", "3"), ("0.4", "10"), ("0.39", "5")]
    assert (exactly.recv_ns, exactly.seq, exactly.connection_id) == (START + 10 * SECOND, 4, "c1")
    # Both rows of one receipt count together.
    assert ladders(at(lake, 20)) == ([("0.41", "3"), ("0.39", "5")], [("0.45", "8")])
    assert at(lake, 3_599).in_sync


def test_prices_and_sizes_are_exact_and_the_top_is_at_hand(lake: Lake) -> None:
    book = at(lake, 15)
    assert book.best_bid == (Decimal("0.41"), Decimal(3))
    assert book.best_ask == (Decimal("0.45"), Decimal("7.5"))
    assert (book.spread, book.mid) == (Decimal("0.04"), Decimal("0.43"))
    frame = book.to_pandas()
    assert frame.to_dict("list") == {
        "side": ["bid", "bid", "bid", "ask"],
        "level": [1, 2, 3, 1],
        "price": [0.41, 0.40, 0.39, 0.45],
        "size": [3.0, 10.0, 5.0, 7.5],
        "total": [3.0, 13.0, 18.0, 7.5],
    }
    assert book.to_pandas(1, exact=True)["price"].tolist() == [Decimal("0.41"), Decimal("0.45")]


def test_an_empty_book_is_a_book(lake: Lake) -> None:
    write(lake, "book_events", events([(5, "clear", None, None, None)], market="CLOSED", ordinal=100))
    book = at(lake, 6, "CLOSED")
    assert (book.bids, book.asks, book.best_bid, book.mid, book.in_sync) == ((), (), None, None, True)


@pytest.mark.parametrize(
    "instant",
    [
        datetime(2026, 5, 13, 20, 0, 15, tzinfo=UTC),
        "2026-05-13T20:00:15Z",
        "2026-05-13T22:00:15+02:00",
        START + 15 * SECOND,
        str(START + 15 * SECOND),
    ],
)
def test_the_instant_may_be_given_in_any_form(lake: Lake, instant: Any) -> None:
    assert book_at("M", instant, lake=lake).at_ns == START + 15 * SECOND


def test_a_time_without_a_zone_is_refused(lake: Lake) -> None:
    with pytest.raises(ReadError, match="add Z for UTC"):
        book_at("M", "2026-05-13T20:00:15", lake=lake)


# --- what is not known -------------------------------------------------------------------------------------


def test_inside_a_gap_it_refuses_with_cause_and_interval(lake: Lake) -> None:
    write(lake, "book_gaps", gaps(("M", 12, 30), ("OTHER", 0, None)))
    assert at(lake, 12 - 1e-9).in_sync
    for inside in (12, 20, 30 - 1e-9):
        with pytest.raises(
            BookUnknownError, match=r"seq_gap from .*20:00:12.* to .*20:00:30.*, ended by snapshot"
        ) as told:
            at(lake, inside)
        assert (told.value.cause, told.value.from_ns, told.value.to_ns) == (
            "seq_gap",
            START + 12 * SECOND,
            START + 30 * SECOND,
        )
    assert at(lake, 30).in_sync, "a gap ends where the next book is known"
    marked = at(lake, 20, allow_untrusted=True)
    assert (marked.in_sync, ladders(marked)[1]) == (False, [("0.45", "8")])
    assert "seq_gap" in marked.doubt


def test_a_gap_that_lasts_refuses_to_the_end(lake: Lake) -> None:
    write(lake, "book_gaps", gaps(("M", 12, None)))
    with pytest.raises(BookUnknownError, match="and lasts"):
        at(lake, 3_000)


def test_a_gap_that_began_in_an_earlier_hour_counts(lake: Lake) -> None:
    later = events([(3_600, "clear", None, None, None), (3_600, "snapshot", "bid", "0.3", "1")], ordinal=200)
    write(lake, "book_events", later, at=START + HOUR)
    write(lake, "book_gaps", gaps(("M", 3_000, 3_700)))
    write(lake, "capture_sessions", session("c1", ended=7_200))
    with pytest.raises(BookUnknownError, match="seq_gap"):
        at(lake, 3_650)
    assert ladders(at(lake, 3_650, allow_untrusted=True)) == ([("0.3", "1")], [])
    assert at(lake, 3_800).in_sync


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ((50.0, "delta", "bid", "0.45", "1"), "crossed_book"),
        ((50.0, "delta", "bid", "0.2", "-1"), "negative_size"),
    ],
)
def test_an_impossible_book_is_refused_until_it_heals(lake: Lake, change: Row, cause: str) -> None:
    healed = (60.0, *change[1:4], "0")
    write(lake, "book_events", events([change, healed], ordinal=300))
    assert at(lake, 49).in_sync
    with pytest.raises(BookUnknownError) as told:
        at(lake, 55)
    assert told.value.cause == cause
    assert at(lake, 60).in_sync


def test_before_the_first_snapshot_and_in_an_hour_without_rows_nothing_is_known(lake: Lake) -> None:
    late = [(100.0, *row[1:]) for row in OPENING]
    write(lake, "book_events", events([(90, "delta", "bid", "0.2", "1"), *late], market="LATE", ordinal=400))
    for allow in (False, True):
        with pytest.raises(BookUnknownError, match="first snapshot") as told:
            at(lake, 95, "LATE", allow_untrusted=allow)
        assert told.value.cause == "no_snapshot"
    assert len(at(lake, 100, "LATE").bids) == 2, "the change before the snapshot belongs to no book"
    write_catalogue(lake, "kalshi", [listed("kalshi", "M")], datetime(2026, 5, 13, tzinfo=UTC))
    with pytest.raises(BookUnknownError, match="no row of it from 2026-05-13T22:00:00"):
        at(lake, 7_300)


def test_while_nothing_came_yet_the_gap_that_says_so_is_named(lake: Lake) -> None:
    write(lake, "book_events", events([(100.0, *row[1:]) for row in OPENING], market="LATE", ordinal=400))
    write(lake, "book_gaps", gaps(("LATE", 0, 100)))
    with pytest.raises(BookUnknownError, match=r"nothing is known of the book of LATE .*seq_gap"):
        at(lake, 95, "LATE")


def test_after_its_connection_ended_a_book_is_not_known(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write(lake, "book_events", events([*OPENING, *CHANGES]))
    write(lake, "capture_sessions", session(ended=20))
    assert at(lake, 20).in_sync, "what came in its last instant still counts"
    with pytest.raises(BookUnknownError, match="c1 ended at 2026-05-13T20:00:20") as told:
        at(lake, 21)
    assert told.value.cause == "connection_ended"
    assert not at(lake, 21, allow_untrusted=True).in_sync


def test_of_a_capture_that_runs_a_book_is_known_as_far_as_rows_prove(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write(lake, "book_events", events([*OPENING, *CHANGES]))
    with pytest.raises(BookUnknownError, match="is in the lake yet") as told:
        at(lake, 21)
    assert told.value.cause == "not_captured_yet"
    write(lake, "book_events", events([(40, "delta", "bid", "0.1", "1")], market="OTHER", ordinal=500))
    assert at(lake, 21).in_sync, "another market's row shows that the connection was up"
    quote = {
        "venue": "kalshi",
        "market_id": "M",
        "recv_ns": START + 15 * SECOND,
        "ordinal": 900,
        "connection_id": "c1",
        "in_sync": False,
        "source": "ws",
    }
    write(lake, "quotes", pa.Table.from_pylist([quote], schema=table("quotes").schema))
    with pytest.raises(BookUnknownError) as told:
        at(lake, 21)
    assert told.value.cause == "not_in_sync"
    write(lake, "book_gaps", gaps(("M", 14, 18)))
    assert at(lake, 21).in_sync, "the gap that ended since is the newer word"


# --- several connections -----------------------------------------------------------------------------------

SECOND_BOOK: tuple[Row, ...] = (
    (15, "clear", None, None, None),
    (15, "snapshot", "bid", "0.42", "1"),
    (15, "snapshot", "ask", "0.46", "1"),
    (30, "delta", "bid", "0.42", "2"),
)


@pytest.fixture
def doubled(lake: Lake) -> Lake:
    """The same market on a second connection from second 15 on."""
    write(lake, "book_events", events(SECOND_BOOK, connection="c2", ordinal=1_000))
    write(lake, "capture_sessions", session("c2"))
    return lake


def test_rows_of_two_connections_are_never_mixed(doubled: Lake) -> None:
    assert at(doubled, 14).connection_id == "c1"
    assert ladders(at(doubled, 15)) == ([("0.42", "1")], [("0.46", "1")])
    # The first connection's change at 20 is newer, and made on its own book.
    assert ladders(at(doubled, 25)) == ([("0.41", "3"), ("0.39", "5")], [("0.45", "8")])
    assert ladders(at(doubled, 30)) == ([("0.42", "2")], [("0.46", "1")])


def test_a_doubt_of_one_connection_leaves_the_other_one(doubled: Lake) -> None:
    write(doubled, "book_gaps", gaps(("M", 18, 40)))  # of c1, when c2 had its book
    for seconds in (18, 20, 25, 30):
        book = at(doubled, seconds)
        assert (book.connection_id, book.in_sync) == ("c2", True)
    assert at(doubled, 40).in_sync


def test_a_doubt_that_outlasts_the_successors_snapshot_holds_for_it_too(doubled: Lake) -> None:
    write(doubled, "book_gaps", gaps(("M", 12, 40)))  # of c1, before c2 came
    for seconds in (13, 16, 39):
        with pytest.raises(BookUnknownError, match="seq_gap"):
            at(doubled, seconds)
    assert at(doubled, 40).in_sync


def test_a_hand_over_takes_the_successor_when_the_first_connection_has_ended(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write(lake, "book_events", events([*OPENING, *CHANGES]))
    write(lake, "book_events", events(SECOND_BOOK, connection="c2", ordinal=1_000))
    write(lake, "capture_sessions", session(ended=22))
    write(lake, "capture_sessions", session("c2"))
    assert at(lake, 21).connection_id == "c1"
    assert at(lake, 23).connection_id == "c2"


# --- names -------------------------------------------------------------------------------------------------


def listed(venue: str, market_id: str, **more: str) -> Event:
    market = Market(
        venue=venue,
        market_id=market_id,
        event_id="E",
        title="?",
        status=MarketStatus.OPEN,
        tick=100,
        min_size=0,
        size_step=1,
        **more,  # type: ignore[arg-type]
    )
    return Event(venue=venue, event_id="E", title="?", markets=(market,))


CONDITION = "0x" + "ab" * 32


@pytest.mark.parametrize("name", [CONDITION, "will-it-rain", "Will-It-Rain", "71321045679", "52114319501"])
def test_a_polymarket_market_is_found_by_any_of_its_names(lake: Lake, name: str) -> None:
    event = listed("polymarket", CONDITION, slug="will-it-rain", yes_token_id="71321045679", no_token_id="52114319501")
    # The catalogue was fetched the day before.
    write_catalogue(lake, "polymarket", [event], datetime(2026, 5, 12, tzinfo=UTC))
    write(lake, "book_events", events(OPENING, market=CONDITION, venue="polymarket"), venue="polymarket")
    write(lake, "capture_sessions", session(venue="polymarket"), venue="polymarket")
    book = at(lake, 1, name)
    assert (book.venue, book.market_id, book.best_bid) == ("polymarket", CONDITION, (Decimal("0.4"), Decimal(10)))


def test_a_ticker_may_be_in_small_letters_and_needs_no_catalogue(lake: Lake) -> None:
    assert at(lake, 1, "m").market_id == "M"


def test_unknown_and_ambiguous_names_are_refused(lake: Lake) -> None:
    with pytest.raises(ArbError, match="no market is called 'nobody'"):
        at(lake, 1, "nobody")
    with pytest.raises(ArbError, match="no market of polymarket is called 'M'"):
        at(lake, 1, "M", venue="polymarket")
    for number in (1, 2):
        event = listed("polymarket" if number == 1 else "kalshi", f"ID{number}", slug="twice")
        write_catalogue(lake, event.venue, [event], datetime(2026, 5, 13, tzinfo=UTC))
    with pytest.raises(ArbError, match="'twice' is the name of 2 markets"):
        at(lake, 1, "twice")


# --- real gaps -----------------------------------------------------------------------------------------------


def test_a_stream_that_lost_a_frame_is_refused_from_the_last_proof_to_the_next_snapshot(tmp_path: Path) -> None:
    """The frames of a Kalshi connection with one sequence number missing, through the product's own replay."""
    base = {"market_ticker": "KXRAIN-1", "market_id": "m"}
    ladder = {**base, "yes_dollars_fp": [["0.3700", "112.00"]], "no_dollars_fp": [["0.6000", "5.00"]]}

    def frame(second: int, seq: int, kind: str, message: Mapping[str, object]) -> Frame:
        body = {"type": f"orderbook_{kind}", "sid": 1, "seq": seq, "msg": message}
        return Frame(START + second * SECOND, "a", json.dumps(body))

    def delta(second: int, seq: int, change: str) -> Frame:
        return frame(second, seq, "delta", {**base, "price_dollars": "0.3700", "delta_fp": change, "side": "yes"})

    stream = [
        frame(0, 1, "snapshot", ladder),
        delta(10, 2, "-12.00"),
        delta(30, 4, "1.00"),
        frame(40, 5, "snapshot", ladder),
        delta(50, 6, "8.00"),
    ]
    path = tmp_path / "recording"
    write_recording(path, {"kalshi": []}, {"kalshi": stream}, {"use_yes_price": False})
    lake = Lake(str(tmp_path / "lake"))
    replay(Recording.open(path), lake, Settings())
    [gap] = lake.read("book_gaps").to_pylist()
    assert gap["cause"] == "seq_gap"
    assert START + 10 * SECOND <= gap["from_ns"] <= START + 30 * SECOND
    assert gap["to_ns"] == START + 40 * SECOND
    assert at(lake, 5, "KXRAIN-1").best_bid == (Decimal("0.37"), Decimal(112))
    for inside in (gap["from_ns"], START + 30 * SECOND, gap["to_ns"] - 1):
        with pytest.raises(BookUnknownError, match="seq_gap"):
            book_at("KXRAIN-1", inside, lake=lake)
    assert at(lake, 45, "KXRAIN-1").best_bid == (Decimal("0.37"), Decimal(112))
    assert at(lake, 50, "KXRAIN-1").best_bid == (Decimal("0.37"), Decimal(120))
