import zlib
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa

from arb_pipeline.arbitrage.opportunities import evaluate
from arb_pipeline.reports import funnel_png, markdown_preview, png_preview, top_rows
from arb_pipeline.tables import table
from arb_pipeline_tests.arbitrage.builders import END, START, Tape, pair, quadratic, settings


def test_markdown_table_with_escapes_and_count() -> None:
    rows = pa.table(
        {
            "name": ["a|b\nc", "<b>", "x" * 200],
            "price": pa.array([Decimal("0.4200"), None, Decimal("1.0000")], pa.decimal128(9, 4)),
            "at": pa.array([datetime(2026, 7, 14, tzinfo=UTC)] * 3, pa.timestamp("us", "UTC")),
        }
    )
    text = markdown_preview(rows, rows=2)
    assert text.splitlines() == [
        "| name | price | at |",
        "| --- | --- | --- |",
        "| a\\|b c | 0.42 | 2026-07-14 00:00:00.000 |",
        "| &lt;b&gt; |  | 2026-07-14 00:00:00.000 |",
        "",
        "*2 of 3 rows*",
    ]
    assert len(max(markdown_preview(rows).splitlines(), key=len)) < 130


def test_markdown_of_no_rows() -> None:
    assert "*no rows*" in markdown_preview(table("quotes").schema.empty_table())
    assert markdown_preview(pa.table({})) == "*no columns*"


def pixels(png: bytes) -> int:
    """How many different bytes the picture's data holds: a blank one has next to none."""
    data = b""
    at = 8
    while at < len(png):
        size = int.from_bytes(png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += size + 12
    return len(set(zlib.decompress(data)))


def test_png_is_small_and_not_blank() -> None:
    tape = Tape().session("kalshi").session("polymarket")
    tape.snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")]).snapshot("polymarket", 1, [("0.45", "20")])
    for second in range(2, 3000):
        tape.change("polymarket", second, "bid", f"0.{43 + second % 5}", str(second % 3))
    found = evaluate([pair()], tape.data(), START, END, settings(), quadratic)
    picture = png_preview(found.spreads, found.opportunities, START, END, title="Cost in $ < 5$")
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 100_000
    assert pixels(picture) > 50
    assert picture == png_preview(found.spreads, found.opportunities, START, END, title="Cost in $ < 5$")


def test_png_of_nothing() -> None:
    empty = table("spreads").schema.empty_table(), table("opportunities").schema.empty_table()
    assert png_preview(*empty, START, END).startswith(b"\x89PNG")


def test_funnel_and_top_rows_of_an_evaluation() -> None:
    tape = Tape().session("kalshi").session("polymarket")
    tape.snapshot("kalshi", 1, [("0.40", "9")], [("0.42", "9")]).snapshot("polymarket", 1, [("0.45", "20")])
    for second in range(2, 200):
        tape.change("polymarket", 10 * second, "bid", f"0.{43 + second % 9}", str(second % 3))
    tape.gap("kalshi", 900, 1500)
    found = evaluate([pair()], tape.data(), START, END, settings(), quadratic)
    picture = funnel_png(found.rejections)
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 100_000
    assert pixels(picture) > 50
    top = top_rows(found.opportunities)
    accepted = top["accepted"].to_pylist()
    assert top.num_rows == found.opportunities.num_rows
    assert accepted == sorted(accepted, reverse=True)
    assert {True, False} == set(accepted)
    best = [row["annualised"] for row in top.to_pylist() if row["accepted"]]
    assert best == sorted(best, reverse=True)
