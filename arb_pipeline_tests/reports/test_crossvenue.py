"""The page over real books of both venues: its figures follow from its own prices, as the documentation says."""

import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from html import unescape
from pathlib import Path

import pytest

from arb_pipeline import pipeline
from arb_pipeline.arbitrage.pairs import Pair
from arb_pipeline.model import Event, Market, MatchStatus, Relation
from arb_pipeline.recordings import Recording
from arb_pipeline.storage.catalogue import write_catalogue
from arb_pipeline.storage.history import record_changes
from arb_pipeline.storage.lake import Lake
from arb_pipeline.venues.kalshi import catalogue as kalshi_catalogue
from arb_pipeline.venues.polymarket import catalogue as polymarket_catalogue
from arb_pipeline_tests.arbitrage.builders import START, Tape
from arb_pipeline_tests.reports.lakes import capture, match, match_row, settings_in

D = Decimal
HOUR = timedelta(hours=1)


def markets_of(recording: Recording, lake: Lake) -> dict[str, Market]:
    """The recorded catalogues, written to the lake; markets by id. Series were not recorded: here they get fees."""
    series = {
        event["series_ticker"]: {"ticker": event["series_ticker"], "fee_type": "quadratic", "fee_multiplier": 1}
        for event in recording.events("kalshi")
    }
    found: dict[str, Market] = {}
    events: dict[str, list[Event]] = {
        "kalshi": [kalshi_catalogue.parse_event(event, series) for event in recording.events("kalshi")],
        "polymarket": [polymarket_catalogue.parse_event(event) for event in recording.events("polymarket")],
    }
    for venue, listed in events.items():
        write_catalogue(lake, venue, listed, START)
        record_changes(lake, venue, START)
        found |= {market.market_id: market for event in listed for market in event.markets}
    return found


def play_books(recording: Recording, markets: dict[str, Market]) -> Tape:
    """The recorded REST books of both venues, in YES terms, as of one instant."""
    tape = Tape().session("kalshi").session("polymarket")
    for ticker, book in recording.books("kalshi").items():
        asks = [(str(1 - D(price)), size) for price, size in reversed(book["no_dollars"])]
        tape.snapshot("kalshi", 1, list(reversed(book["yes_dollars"])), asks, market_id=ticker)
    for book in recording.books("polymarket"):
        market = markets.get(book["market"])
        if market is not None and book["asset_id"] == market.yes_token_id:
            bids, asks = (
                [(level["price"], level["size"]) for level in reversed(book[side])] for side in ("bids", "asks")
            )
            tape.snapshot("polymarket", 1, bids, asks, market_id=market.market_id)
    return tape


@pytest.fixture(scope="module")
def page(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("crossvenue")
    settings, lake = settings_in(folder), Lake(str(folder / "lake"))
    recording = Recording.open(recordings / "crossvenue-202607")
    markets = markets_of(recording, lake)
    pairs = [
        Pair(
            markets[told["kalshi_ticker"]],
            markets[told["condition_id"]],
            Relation.INVERTED if told["yes_outcome_index"] else Relation.EQUIVALENT,
            MatchStatus.APPROVED,
            told["yes_outcome_index"],
        )
        for told in recording.pairs
        if told["equivalent"]
    ]
    assert len(pairs) == 14
    match(lake, [match_row(pair) for pair in pairs], START)
    capture(lake, play_books(recording, markets))
    pipeline.evaluate_hours(settings, lake, START, START + HOUR)
    made = pipeline.report(settings, lake, START, START + HOUR)
    return made.files.html.read_text(encoding="utf-8")


def spread_rows(page: str) -> Iterator[dict[str, str]]:
    """The cells of every pair's row in the table of spreads, by their labels."""
    section = page[page.index('<section aria-labelledby="spreads">') : page.index('<section aria-labelledby="heat">')]
    for row in re.findall(r'<tr role="row">\n<td role="cell".*?</tr>', section, re.DOTALL):
        cells = re.findall(r'<td role="cell" data-label="([^"]*)"[^>]*>(.*?)</td>', row, re.DOTALL)
        yield {unescape(label): " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split()) for label, text in cells}


def fee(schedule: str, price: Decimal) -> Decimal:
    """A taker's fee per contract by the words of a fee schedule, as docs/arbitrage.md has it."""
    if kalshi := re.search(r"kalshi quadratic\S* x([\d.]+)", schedule):
        return D(kalshi[1]) * D("0.07") * price * (1 - price)
    if "no fees" in schedule:
        return D(0)
    polymarket = re.search(r"rate ([\d.]+) exponent (\d+)( of the price)?", schedule)
    assert polymarket is not None, schedule
    per_share = D(polymarket[1]) * (price * (1 - price)) ** int(polymarket[2])
    return per_share * price if polymarket[3] else per_share


def told(text: str) -> Decimal:
    """A number as the page prints it."""
    return D(text.replace("−", "-").replace(",", ""))  # noqa: RUF001 - the page's minus


def recomputed(row: dict[str, str]) -> list[tuple[Decimal, Decimal, Decimal]]:
    """(gap, fees, net) of both directions from the printed prices, cents, rounded as the page rounds."""
    assert "fees unknown" not in row["Pair"], row["Pair"]
    schedules = row["Pair"][row["Pair"].rindex("kalshi quadratic") :]
    kalshi, polymarket = (schedules[: schedules.rindex("polymarket ")], schedules[schedules.rindex("polymarket ") :])
    kalshi_bid, kalshi_ask = (told(price) for price in row["Kalshi bid / ask"].split(" / "))
    polymarket_bid, polymarket_ask = (told(price) for price in row["Polymarket bid / ask"].split(" / "))
    found = []
    for gap, fees in (
        (polymarket_bid - kalshi_ask, fee(kalshi, kalshi_ask) + fee(polymarket, 1 - polymarket_bid)),
        (kalshi_bid - polymarket_ask, fee(polymarket, polymarket_ask) + fee(kalshi, 1 - kalshi_bid)),
    ):
        found.append((round(gap * 100, 2), round(fees * 100, 4), round((gap - fees) * 100, 4)))
    return found


def test_every_pair_prints_gap_fees_and_net_that_follow_from_its_prices(page: str) -> None:
    checked = 0
    rows = list(spread_rows(page))
    assert len(rows) == 14
    for row in rows:
        if "–" in row["Kalshi bid / ask"] + row["Polymarket bid / ask"]:  # noqa: RUF001 - the page's dash
            continue
        for name, expected in zip("AB", recomputed(row), strict=True):
            printed = re.findall(r"[−\d.,]+(?= ¢)", row[f"{name}: net = gap − fees"])  # noqa: RUF001
            net, gap, fees = (told(number) for number in printed)
            assert (gap, fees, net) == expected, row
            checked += 1
    assert checked >= 6
    assert "displayed depth is not a fill" in page
