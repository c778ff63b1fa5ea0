"""Grids against a reference that folds every row up to every point, in plain Python."""

import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from arb_pipeline.cli import app
from arb_pipeline.storage.books import BookUnknownError, book_at
from arb_pipeline.storage.candles import hour_candles
from arb_pipeline.storage.grid import GridError, grid, write_grid, write_grids
from arb_pipeline.storage.lake import Lake, Partition
from arb_pipeline.storage.reader import ReadError
from arb_pipeline.tables import table
from arb_pipeline_tests.conftest import ObjectStore
from arb_pipeline_tests.storage.rows import HOUR, SECOND, START, TWENTY, TWENTY_ONE
from arb_pipeline_tests.storage.seen import Gap, Session
from arb_pipeline_tests.storage.test_candles import DAY, gap_rows, lasting, rows, session_rows

D = Decimal
SPAN = 120
Book = dict[str, dict[int, int]]


class Change(NamedTuple):
    """A snapshot (levels of both sides), or one level's new size; prices in cents, sizes in contracts."""

    at: int
    snapshot: tuple[dict[int, int], dict[int, int]] | None
    level: tuple[str, int, int]
    in_sync: bool
    connection: str = "a"


class Story(NamedTuple):
    changes: Sequence[Change]
    gaps: Sequence[Gap] = ()
    sessions: Sequence[Session] = ()


def applied(book: Book | None, change: Change) -> Book | None:
    if change.snapshot is not None:
        return {"bid": dict(change.snapshot[0]), "ask": dict(change.snapshot[1])}
    if book is not None:
        side, price, size = change.level
        book[side][price] = size
    return book


def levels(book: Book, side: str) -> list[tuple[int, int]]:
    return sorted(((p, s) for p, s in book[side].items() if s), reverse=side == "bid")


def best(book: Book, side: str) -> tuple[int, int] | tuple[None, None]:
    return next(iter(levels(book, side)), (None, None))


def told(changes: Sequence[Change], opening: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of ``book_events`` and ``quotes`` as a capture writes them, each connection with a book of its own."""
    events: list[dict[str, Any]] = []
    quotes: list[dict[str, Any]] = []
    books: dict[str, Book | None] = {}
    shown: dict[str, tuple[Any, ...]] = {}
    for change in changes:
        book = books[change.connection] = applied(books.get(change.connection), change)
        stamp = {"market_id": "M", "recv_ns": START + change.at * SECOND, "connection_id": change.connection}
        written: list[tuple[str, str | None, int | None, int | None]] = [("delta", *change.level)]
        if change.snapshot is not None:
            written = [("clear", None, None, None)]
            written += [("snapshot", side, *level) for side, of in zip(("bid", "ask"), change.snapshot, strict=True)
                        for level in of.items()]  # fmt: skip
        events += [
            {**stamp, "ordinal": len(events) + number, "kind": kind, "side": side, "size": size and D(size),
             "price": price and D(price) / 100}
            for number, (kind, side, price, size) in enumerate(written)
        ]  # fmt: skip
        if book is None:
            continue
        top = (*best(book, "bid"), *best(book, "ask"), change.in_sync)
        if top != shown.get(change.connection) and not (change.snapshot is not None and change.at == opening):
            bid, bid_size, ask, ask_size, _ = top
            quotes.append(
                {**stamp, "ordinal": len(quotes), "in_sync": change.in_sync, "bid": bid and D(bid) / 100,
                 "bid_size": bid_size, "ask": ask and D(ask) / 100, "ask_size": ask_size}
            )  # fmt: skip
        shown[change.connection] = top
    return events, quotes


def stored(folder: str, story: Story, *, up: bool = True) -> Lake:
    """A lake with what was captured; where connections stay ``up``, a last frame of each says so."""
    lake = Lake(folder)
    events, quotes = told(story.changes)
    lake.write_part("book_events", TWENTY, rows("book_events", events), "w")
    lake.write_part("quotes", TWENTY, rows("quotes", quotes), "w")
    lake.write_part("book_gaps", DAY, gap_rows(story.gaps), "w")
    lake.write_part("capture_sessions", DAY, session_rows(story.sessions), "w")
    if up:
        last = {"recv_ns": START + HOUR - 1, "frame": "", "source": "ws", "venue": "kalshi"}
        names = sorted({change.connection for change in story.changes})
        frames = [{**last, "connection_id": name, "ordinal": number} for number, name in enumerate(names)]
        lake.write_part("raw_frames", TWENTY, rows("raw_frames", frames), "w")
    return lake


def made(
    lake: Lake, end: float = SPAN, interval_ms: int = 1_000, deep: int = 3, begin: float = 0, **more: Any
) -> pa.Table:
    since, until = (START + int(at * SECOND) for at in (begin, end))
    batches = list(grid("M", since, until, interval_ms, deep, lake=lake, **more))
    return pa.Table.from_batches(batches, table("orderbook_snapshots").schema)


def trusted(story: Story, connection: str, at: Decimal) -> bool:
    """Whether what a connection told is to be trusted at an instant, as far as others than its book tell."""
    first = min(c.at for c in story.changes if c.connection == connection and c.snapshot is not None)
    for begin, end, of in story.gaps:
        if (of == connection or first >= begin) and begin <= at and (end is None or at < end):
            return False
    ended = [end for name, end in story.sessions if name == connection and end is not None]
    if ended and at > ended[0]:
        return False
    quotes = [q for q in told(story.changes)[1] if q["connection_id"] == connection]
    said = [q for q in quotes if q["recv_ns"] <= START + at * SECOND]
    if not said or said[-1]["in_sync"]:
        return True
    since = (said[-1]["recv_ns"] - START) // SECOND
    return any(end is not None and since <= end <= at for _, end, _ in story.gaps)


def expected(story: Story, at_ms: int, interval_ms: int, deep: int) -> dict[str, Any] | None:
    """What one knows of the book at a point; None if nothing: of several books the one heard of last."""
    at = D(at_ms) / 1_000
    found: dict[str, tuple[Book, int]] = {}
    newest: dict[str, int] = {}
    for number, change in enumerate(story.changes):
        if change.at <= at:
            name = change.connection
            book = applied(found[name][0] if name in found else None, change)
            if book is not None:
                found[name], newest[name] = (book, change.at), number
    for name in sorted(newest, key=lambda name: newest[name], reverse=True):
        book, source = found[name]
        (bid, _), (ask, _) = best(book, "bid"), best(book, "ask")
        if trusted(story, name, at) and not (bid is not None and ask is not None and bid >= ask):
            return {
                "bids": [[D(price) / 100, D(size)] for price, size in levels(book, "bid")[:deep]],
                "asks": [[D(price) / 100, D(size)] for price, size in levels(book, "ask")[:deep]],
                "source_ns": START + source * SECOND,
                "is_forward_filled": at - source >= D(interval_ms) / 1_000,
            }
    return None


def parsed(row: dict[str, Any]) -> dict[str, Any] | None:
    if not row["in_sync"]:
        empty = set(row) - {"venue", "market_id", "interval_ms", "recv_ns", "in_sync"}
        assert all(row[name] is None for name in empty)
        return None
    sides = {name: msgspec.json.decode(row[name], type=list[list[Decimal]]) for name in ("bids", "asks")}
    return {**sides, "source_ns": row["source_ns"], "is_forward_filled": row["is_forward_filled"]}


def test_a_connection_whose_end_is_not_told_is_trusted_up_to_its_newest_row(tmp_path: Path) -> None:
    story = Story([Change(2, ({40: 5}, {60: 5}), ("bid", 40, 5), True), Change(7, None, ("bid", 41, 3), True)])
    for up, known in ((True, range(2, SPAN)), (False, range(2, 8))):
        found = made(stored(str(tmp_path / str(up)), story, up=up)).to_pylist()
        assert [(row["recv_ns"] - START) // SECOND for row in found if row["in_sync"]] == list(known)


# --- against the reference ---------------------------------------------------------------------------------------

seconds = st.integers(0, SPAN - 1)
books = st.dictionaries(st.integers(30, 60), st.integers(1, 9), max_size=4)
changes = st.builds(
    Change,
    seconds,
    st.one_of(st.none(), st.none(), st.tuples(books, books.map(lambda side: {p + 25: s for p, s in side.items()}))),
    st.tuples(st.sampled_from(["bid", "ask"]), st.integers(30, 85), st.integers(0, 9)),
    st.sampled_from([True, True, True, False]),
    st.sampled_from(["a", "b"]),
)


distinct = st.lists(changes, min_size=1, max_size=14, unique_by=lambda change: change.at).map(
    lambda drawn: sorted(drawn, key=lambda change: change.at)
)
stories = st.builds(
    Story,
    distinct,
    st.lists(st.tuples(seconds, st.one_of(st.none(), seconds), st.sampled_from(["a", "b"])).map(lasting), max_size=2),
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.one_of(st.none(), seconds)), max_size=2, unique_by=lambda s: s[0]
    ),
)


def in_a_lake(story: Story, check: Callable[[Lake], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(stored(folder, story))


@settings(max_examples=25, deadline=None)
@given(stories, st.sampled_from([1_000, 1_500, 8_000]), st.integers(1, 3))
def test_a_point_shows_what_one_knows_by_then(story: Story, interval_ms: int, deep: int) -> None:
    def check(lake: Lake) -> None:
        found = made(lake, interval_ms=interval_ms, deep=deep).to_pylist()
        assert [row["recv_ns"] - START for row in found] == list(range(0, SPAN * SECOND, interval_ms * 1_000_000))
        for row in found:
            at_ms = (row["recv_ns"] - START) // 1_000_000
            assert parsed(row) == expected(story, at_ms, interval_ms, deep), at_ms

    in_a_lake(story, check)


@settings(max_examples=12, deadline=None)
@given(stories, st.lists(seconds, min_size=1, max_size=5))
def test_a_point_is_the_book_at_that_instant(story: Story, at: list[int]) -> None:
    def check(lake: Lake) -> None:
        rows = {(row["recv_ns"] - START) // SECOND: row for row in made(lake, deep=99).to_pylist()}
        for second in {*at, *(change.at for change in story.changes)}:
            try:
                book = book_at("M", START + second * SECOND, lake=lake)
            except BookUnknownError:
                assert not rows[second]["in_sync"], second
                continue
            found = parsed(rows[second])
            assert found is not None, second
            assert [tuple(level) for level in found["bids"]] == [tuple(level) for level in book.bids], second
            assert [tuple(level) for level in found["asks"]] == [tuple(level) for level in book.asks], second
            assert found["source_ns"] == book.recv_ns, second

    in_a_lake(story, check)


@settings(max_examples=10, deadline=None)
@given(stories, seconds.filter(bool))
def test_nothing_after_an_instant_changes_a_point_before_it(story: Story, now: int) -> None:
    kept = [change for change in story.changes if change.at < now]
    if not kept:
        return
    cut = Story(
        kept,
        [(begin, None if end is None or end >= now else end, of) for begin, end, of in story.gaps if begin < now],
        [(name, None if end is None or end >= now else end) for name, end in story.sessions],
    )
    before: list[pa.Table] = []
    for one in (story, cut):
        in_a_lake(one, lambda lake: before.append(made(lake, end=now)))
    assert before[0].equals(before[1])


@settings(max_examples=8, deadline=None)
@given(stories)
def test_a_coarse_grid_is_the_fine_one_seen_less_often(story: Story) -> None:
    def check(lake: Lake) -> None:
        same = ["recv_ns", "bids", "asks", "bid", "ask", "mid", "source_ns", "age_ns", "in_sync"]
        fine = made(lake, interval_ms=500).select(same).to_pylist()
        coarse = made(lake, interval_ms=3_000, begin=9).select(same).to_pylist()
        assert [
            row for row in fine if row["recv_ns"] % (3 * SECOND) == 0 and row["recv_ns"] >= START + 9 * SECOND
        ] == coarse

    in_a_lake(story, check)


# --- one by one ----------------------------------------------------------------------------------------------------

OPEN = Change(0, ({40: 5, 39: 7}, {45: 6, 50: 1}), ("bid", 1, 1), in_sync=True)


def delta(at: int, side: str, price: int, size: int, *, in_sync: bool = True) -> Change:
    return Change(at, None, (side, price, size), in_sync)


def test_a_point_has_the_top_its_middle_and_its_age(tmp_path: Path) -> None:
    lake = stored(str(tmp_path), Story([OPEN, delta(3, "bid", 41, 2)]))
    found = made(lake, end=6).to_pylist()
    third = found[4]
    assert (third["bid"], third["bid_size"], third["ask"], third["ask_size"]) == (D("0.41"), 2, D("0.45"), 6)
    assert (third["spread"], third["mid"]) == (D("0.04"), D("0.43"))
    assert third["microprice"] == pytest.approx((0.41 * 6 + 0.45 * 2) / 8)
    assert third["bids"] == "[[0.4100,2.000000],[0.4000,5.000000],[0.3900,7.000000]]"
    assert (third["source_ns"], third["age_ns"]) == (START + 3 * SECOND, SECOND)
    assert [row["is_forward_filled"] for row in found] == [False, True, True, False, True, True]
    assert {row["venue"] for row in found} == {"kalshi"}


def test_a_gap_stops_the_carry_until_it_is_over(tmp_path: Path) -> None:
    story = Story([OPEN, delta(2, "bid", 41, 2), delta(5, "ask", 44, 1)], gaps=[(3, 7, "a")])
    found = made(stored(str(tmp_path), story), end=10).to_pylist()
    assert [row["in_sync"] for row in found] == [True] * 3 + [False] * 4 + [True] * 3
    assert found[7]["asks"] == "[[0.4400,1.000000],[0.4500,6.000000],[0.5000,1.000000]]"


def test_an_empty_side_and_an_old_book(tmp_path: Path) -> None:
    story = Story([OPEN, delta(1, "ask", 45, 0), delta(1, "ask", 50, 0)])
    found = made(stored(str(tmp_path), story), end=5).to_pylist()
    assert (found[2]["ask"], found[2]["asks"], found[2]["mid"], found[2]["microprice"]) == (None, "[]", None, None)
    assert found[2]["in_sync"]
    young = made(stored(str(tmp_path), story), end=5, max_age_ms=1_500).to_pylist()
    assert [row["in_sync"] for row in young] == [True, True, True, False, False]


def test_points_lie_on_multiples_since_the_epoch(tmp_path: Path) -> None:
    lake = stored(str(tmp_path), Story([OPEN]))
    found = made(lake, begin=0.25, end=22, interval_ms=7_000)["recv_ns"].to_pylist()
    assert found
    assert all(at % (7 * SECOND) == 0 and START + SECOND // 4 <= at < START + 22 * SECOND for at in found)


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    lake = stored(str(tmp_path), Story([OPEN]))
    with pytest.raises(GridError, match="no book of X from 2026-05-13"):
        grid(["M", "X"], START, START + HOUR, lake=lake)
    with pytest.raises(GridError, match="no market is named"):
        grid([], START, START + HOUR, lake=lake)
    with pytest.raises(GridError, match="0 levels"):
        grid("M", START, START + HOUR, levels=0, lake=lake)
    with pytest.raises(GridError, match="give an earlier start"):
        grid("M", START, START, lake=lake)
    with pytest.raises(ReadError, match="time zone"):
        grid("M", datetime(2026, 5, 13), START, lake=lake)  # noqa: DTZ001 - that is the mistake
    with pytest.raises(GridError, match="name fewer markets"):
        write_grid(lake, TWENTY, ["M"], interval_ms=1)


def test_what_is_written_again_replaces_what_was_there(tmp_path: Path) -> None:
    lake = stored(str(tmp_path), Story([OPEN]))
    whole = write_grid(lake, TWENTY, ["M"], interval_ms=60_000)
    assert (whole.rows, whole.known, whole.coverage) == (60, 60, {"M": 1.0})
    write_grid(lake, TWENTY, ["M"], interval_ms=600_000)
    part = write_grid(lake, TWENTY, ["M"], interval_ms=60_000, levels=1, end=datetime(2026, 5, 13, 20, 10, tzinfo=UTC))
    assert part.rows == 10
    held = lake.read("orderbook_snapshots", venue="kalshi").to_pandas()
    assert held.groupby("interval_ms").size().to_dict() == {60_000: 60, 600_000: 6}
    deep = held[(held.interval_ms == 60_000) & held.bids.str.contains("],", regex=False)]
    assert len(deep) == 50


def test_an_object_store_gives_the_same(tmp_path: Path, s3_lake: ObjectStore) -> None:
    story = Story([OPEN, delta(3, "bid", 41, 2)], gaps=[(5, 7, "a")])
    local, remote = stored(str(tmp_path), story), stored(s3_lake.url, story)
    assert made(remote, end=10).equals(made(local, end=10))
    at = datetime(2026, 5, 14, tzinfo=UTC)
    assert hour_candles(remote, TWENTY, at).equals(hour_candles(local, TWENTY, at))
    assert write_grid(remote, TWENTY, ["M"], interval_ms=60_000).rows == 60


def test_the_command_writes_the_table_or_a_file(tmp_path: Path) -> None:
    lake = stored(str(tmp_path / "lake"), Story([OPEN], gaps=[(0, 60, "a")]))
    asked = ["grid", "M", "--from", "2026-05-13T20:00:00", "--to", "2026-05-13T20:02:00", "--interval-ms", "1000"]
    asked += ["--lake", lake.root]
    said = CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False)
    assert msgspec.json.decode(said.stdout) == [
        {"partition": TWENTY.path, "rows": 120, "known": 60, "coverage": {"M": 0.5}}
    ]
    asked[3], asked[5] = "2026-05-13T22:00+02:00", str(START + 120 * SECOND)  # the same, with an offset and in ns
    file = tmp_path / "grid.parquet"
    CliRunner().invoke(app, [*asked, "--parquet", str(file)], catch_exceptions=False)
    assert pq.read_table(file).equals(lake.read("orderbook_snapshots"))


# --- over hours ----------------------------------------------------------------------------------------------------


def three_hours(folder: Path, *, gap: bool = False) -> Lake:
    """A book that last changed in the first hour, opens the next two as it was, and changes at the end."""
    lake = stored(str(folder), Story([OPEN, delta(10, "bid", 41, 2)]))
    book = ({41: 2, 40: 5, 39: 7}, {45: 6, 50: 1})
    for number, hour in enumerate((TWENTY_ONE, Partition.parse("venue=kalshi/date=2026-05-13/hour=22")), 1):
        later = [Change(3_600 * number, book, ("bid", 1, 1), in_sync=True)]
        if number == 2:
            later.append(delta(3_600 * number + 5, "bid", 42, 1))
        events, quotes = told(later, opening=3_600 * number)
        lake.write_part("book_events", hour, rows("book_events", events), "w")
        lake.write_part("quotes", hour, rows("quotes", quotes), "w")
    if gap:
        lake.write_part("book_gaps", DAY, gap_rows([(3_590, 3_600, "a")]), "w")
    return lake


def test_the_start_of_an_hour_is_no_event(tmp_path: Path) -> None:
    lake = three_hours(tmp_path)
    found = made(lake, begin=7_190, end=7_210, interval_ms=5_000).to_pylist()
    assert [row["source_ns"] for row in found] == [START + 10 * SECOND] * 3 + [START + 7_205 * SECOND]
    assert [row["is_forward_filled"] for row in found] == [True, True, True, False]
    alone = made(lake, begin=7_200, end=7_210, interval_ms=5_000).to_pylist()
    assert alone == found[2:]
    whole = made(lake, end=7_210, interval_ms=5_000).to_pylist()
    assert whole[-4:] == found


def test_every_hour_asked_for_is_written_as_the_grid_gives_it(tmp_path: Path) -> None:
    lake = three_hours(tmp_path)
    span = (START + 1_800 * SECOND, START + 4 * HOUR - 1_800 * SECOND)
    written = write_grids(lake, ["M"], *span, interval_ms=60_000)
    hours = [f"venue=kalshi/date=2026-05-13/hour={hour}" for hour in (20, 21, 22, 23)]
    assert {hour.path: (one.rows, one.known) for hour, one in written.items()} == dict(
        zip(hours, [(30, 30), (60, 60), (60, 1), (30, 0)], strict=True)
    ), "21 has nothing but its opening snapshot; after 22:00:05 nothing is heard of the connection; 23 has no rows"
    asked = pa.Table.from_batches(grid("M", *span, 60_000, lake=lake), table("orderbook_snapshots").schema)
    assert lake.read("orderbook_snapshots").equals(asked)


def test_after_a_gap_a_book_is_as_old_as_its_snapshot(tmp_path: Path) -> None:
    found = made(three_hours(tmp_path, gap=True), begin=3_595, end=3_610, interval_ms=5_000).to_pylist()
    assert [row["source_ns"] for row in found] == [None, START + HOUR, START + HOUR]
