import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_pipeline.arbitrage import books, opportunities
from arb_pipeline.arbitrage.books import BookReplay, pair_states
from arb_pipeline.arbitrage.streams import PairStream, load_streams
from arb_pipeline.clock import ns_from_datetime
from arb_pipeline.model import OrderBook, Top
from arb_pipeline_tests.arbitrage.builders import END, START, Tape, at, free, pair
from arb_pipeline_tests.arbitrage.builders import settings as configured


def states(tape: Tape, *, inverted: bool = False) -> list[tuple[int, Top | None, Top | None, tuple[str, ...]]]:
    one = pair(inverted=inverted)
    stream = PairStream.of(one, load_streams([one], tape.data(shuffled=True), at(3600), configured()))
    return [
        (
            state.recv_ns,
            None if state.kalshi is None else state.kalshi.top(),
            None if state.polymarket is None else state.polymarket.top(),
            state.reasons,
        )
        for state in pair_states(stream, ns_from_datetime(START), ns_from_datetime(END))
    ]


def both() -> Tape:
    return Tape().session("kalshi").session("polymarket")


def test_states_at_every_change_after_all_rows_of_the_instant() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "1")], [("0.42", "2")])
    tape.snapshot("polymarket", 1, [("0.45", "3")], [("0.50", "4")])
    tape.change("kalshi", 2, "ask", "0.42", "0").change("kalshi", 2, "ask", "0.44", "7")
    assert states(tape)[1:] == [
        (at(1), (4000, 1_000_000, 4200, 2_000_000), (4500, 3_000_000, 5000, 4_000_000), ()),
        (at(2), (4000, 1_000_000, 4400, 7_000_000), (4500, 3_000_000, 5000, 4_000_000), ()),
    ]


def test_inverted_book_is_complemented_with_its_depth() -> None:
    tape = both().snapshot("kalshi", 1).snapshot("polymarket", 1, [("0.45", "3"), ("0.44", "1")], [("0.50", "4")])
    assert states(tape, inverted=True)[-1][2] == (5000, 4_000_000, 5500, 3_000_000)


def test_changes_before_the_first_snapshot_are_not_applied() -> None:
    tape = both().snapshot("kalshi", 1)
    tape._books["0xabc"] = OrderBook()
    tape.change("polymarket", 1, "bid", "0.40", "1").snapshot("polymarket", 2, [("0.30", "5")])
    tops = {recv_ns: polymarket for recv_ns, _, polymarket, _ in states(tape)}
    assert tops[at(1)] is None
    assert tops[at(2)] == (3000, 5_000_000, None, None)


def test_negative_level_is_not_trusted() -> None:
    tape = both().snapshot("kalshi", 1, [("0.40", "5")], [("0.50", "5")]).snapshot("polymarket", 1)
    tape.change("kalshi", 2, "bid", "0.38", "-1").change("kalshi", 3, "bid", "0.38", "0")
    assert [reasons for _, _, _, reasons in states(tape)[1:]] == [(), ("not_in_sync:kalshi",), ()]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["bid", "ask"]), st.integers(1, 20), st.integers(0, 9)), max_size=25))
def test_replay_equals_applying_every_change(changes: list[tuple[str, int, int]]) -> None:
    tape = both().snapshot("polymarket", 0).snapshot("kalshi", 0)
    wanted = []
    for second, (side, cents, size) in enumerate(changes, 1):
        tape.change("kalshi", second, "bid" if side == "bid" else "ask", f"0.{cents:02d}", str(size))
        book = tape._books["KXTEST-26"]
        wanted.append((at(second), book.top(), book.crossed))
    found = [(recv_ns, kalshi, bool(reasons)) for recv_ns, kalshi, _, reasons in states(tape)[1:]]
    assert found == wanted


change = st.tuples(
    st.sampled_from(["kalshi", "polymarket"]),
    st.sampled_from(["bid", "ask", "snapshot", "gap"]),
    st.integers(1, 9),
    st.integers(-1, 9),
    st.sampled_from([0.1, 1.0]),
)


def played(changes: list[tuple[str, str, int, int, float]]) -> Tape:
    tape, second = both(), 1.0
    tape.snapshot("kalshi", 1, [("0.03", "5")], [("0.06", "5")]).snapshot("polymarket", 1, [("0.04", "5")])
    for venue, what, cents, size, after in changes:
        second += after
        if what == "snapshot":
            tape.snapshot(venue, second, [(f"0.0{cents}", "3")], [("0.10", "7")])
        elif what == "gap":
            tape.gap(venue, second, second + cents)
        else:
            tape.change(venue, second, "bid" if what == "bid" else "ask", f"0.0{cents}", str(size))
    return tape


@settings(max_examples=60, deadline=None)
@given(st.lists(change, max_size=30))
def test_states_without_a_gap_make_no_difference(changes: list[tuple[str, str, int, int, float]]) -> None:
    data = played(changes).data()

    def evaluated() -> opportunities.Evaluation:
        return opportunities.evaluate([pair()], data, START, END, configured(), free)

    found = evaluated()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opportunities, "gap_states", pair_states)
        assert evaluated() == found


@settings(max_examples=60, deadline=None)
@given(st.lists(change, max_size=30), st.sampled_from([0, 2, 512]))
def test_a_leap_gives_the_same_books_as_every_step(changes: list[tuple[str, str, int, int, float]], leap: int) -> None:
    one = pair()
    stream = PairStream.of(one, load_streams([one], played(changes).data(), at(3600), configured()))
    stepped, leaping = (BookReplay(stream.kalshi.books) for _ in range(2))
    for second in range(40):
        stepped.advance(at(second))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(books, "_LEAP", leap)
        assert leaping.advance(at(39)) is (stepped.book is not None)
    assert stepped.book is not None
    assert leaping.book is not None
    for name in ("bids", "asks", "best_bid", "best_ask", "negative_levels"):
        assert getattr(leaping.book, name) == getattr(stepped.book, name)
