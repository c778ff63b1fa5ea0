import json
from hashlib import sha1

from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.model import Level
from arb_pipeline.units import format_plain
from arb_pipeline.venues.polymarket.book_hash import BookText, book_hash, hash_tail, mirrored
from arb_pipeline_tests.venues.polymarket.truth import NO, YES, Truth

levels = st.dictionaries(st.integers(1, 9999), st.integers(1, 10**12), max_size=30)


def test_published_vector_of_py_clob_client() -> None:
    assert (
        book_hash(
            "0xaabbcc",
            "100",
            "123456789",
            [(3000, 100_000_000), (4000, 100_000_000)],
            [(6000, 100_000_000), (7000, 100_000_000)],
            min_size=100_000_000,
            tick=100,
            neg_risk=False,
            last_trade_price="0.5",
        )
        == "0458ea5755c9f73d64a14636fa5c36ed460ec394"
    )


def test_mini_session_of_both_tokens() -> None:
    truth = Truth()
    assert truth.hash(YES) == "83df2635e4d705044526f27df475bb8a0054a9cd"
    assert truth.hash(NO) == "878671810016bdd83499c955866d9d6b8c6c6722"
    truth.change("BUY", "0.43", "60", after_ms=333)
    assert truth.hash(YES) == "77237c66a6cf2594d55bc06f9ac02f53b06d1b63"
    assert truth.hash(NO) == "14f931a9e0119b5b31fb160b4803ee9e54572e5b"
    truth.change("BUY", "0.43", "40", after_ms=444)
    assert truth.hash(YES) == "69033d1757577fc45f5c3e83a9cf7f96805fc82c"
    assert truth.hash(NO) == "3fe9769bfe247bdbdad96a5890dee6c04ed31856"


def test_levels_may_come_in_any_order() -> None:
    truth = Truth()
    bids, asks = truth.sides(YES)
    text = BookText(truth.market, YES)
    text.replace(bids[::-1], asks[::-1])
    tail = hash_tail(5_000_000, 100, False, "0.430")
    assert text.digest(str(truth.ms), tail) == "83df2635e4d705044526f27df475bb8a0054a9cd"


@given(levels, levels, st.lists(st.tuples(st.booleans(), st.integers(1, 9999), st.integers(0, 10**12)), max_size=40))
def test_changes_level_by_level_hash_as_the_whole_book_does(
    bids: dict[int, int], asks: dict[int, int], changes: list[tuple[bool, int, int]]
) -> None:
    text = BookText("0x01", "7")
    text.replace(bids.items(), asks.items())
    for is_bid, price, size in changes:
        side = bids if is_bid else asks
        side[price] = size
        if not size:
            del side[price]
        (text.set_bid if is_bid else text.set_ask)(price, size)
    told = {
        "market": "0x01",
        "asset_id": "7",
        "timestamp": "17",
        "hash": "",
        "bids": _wire(sorted(bids.items())),
        "asks": _wire(sorted(asks.items(), reverse=True)),
        "min_order_size": "5",
        "tick_size": "0.001",
        "neg_risk": True,
        "last_trade_price": "",
    }
    assert text.digest("17", hash_tail(5_000_000, 10, True, "")) == _plain(told)


@given(levels)
def test_the_mirror_of_the_mirror_is_the_book(side: dict[int, int]) -> None:
    assert mirrored(mirrored(side.items())) == list(side.items())


def _wire(side: list[Level]) -> list[dict[str, str]]:
    return [{"price": format_plain(price, 4), "size": format_plain(size, 6)} for price, size in side]


def _plain(told: dict[str, object]) -> str:
    return sha1(json.dumps(told, separators=(",", ":")).encode()).hexdigest()
