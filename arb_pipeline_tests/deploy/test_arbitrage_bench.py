"""The bench of an hour's evaluation in its short form: its books are consistent, and episodes are found in them."""

from pathlib import Path

import pytest

from arb_pipeline.model import OrderBook
from arb_pipeline.storage.lake import Lake
from arb_pipeline.units import parse_price, parse_size
from bench.arbitrage import books, evaluate, make_lake
from bench.storage import markets


def test_the_quotes_are_the_tops_of_the_books() -> None:
    quotes, changes = books("polymarket", markets(3)[1].market_id, 3, 2_000)
    book, tops = OrderBook(), {}
    for row in changes.to_pylist():
        if row["kind"] != "clear":
            book.set(row["side"], parse_price(str(row["price"])), parse_size(str(row["size"])))
        tops[row["recv_ns"]] = book.top()
    assert not book.crossed
    assert quotes.num_rows == pytest.approx(2_000, abs=5)
    assert changes.num_rows > quotes.num_rows * 1.3
    for row in quotes.to_pylist():
        told = [
            parse_size(str(row[name])) if "size" in name else parse_price(str(row[name]))
            for name in ("bid", "bid_size", "ask", "ask_size")
        ]
        assert tuple(told) == tops[row["recv_ns"]]


def test_an_hour_is_evaluated(tmp_path: Path) -> None:
    made = {figure.what: figure.value for figure in make_lake(str(tmp_path), 2, 8_000)}
    figures = {figure.what: figure.value for figure in evaluate(str(tmp_path), 2)}
    assert made["quotes in the lake"] == pytest.approx(8_000, abs=20)
    assert figures["spreads"] == pytest.approx(8_000, abs=50)
    assert 0 < figures["of which accepted"] < figures["episodes"]
    assert figures["orders simulated"] == 5 * figures["of which accepted"]
    assert Lake(str(tmp_path)).read("opportunity_pieces").num_rows >= figures["episodes"]
