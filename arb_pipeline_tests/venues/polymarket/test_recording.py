"""Against a real recording: every hash of every frame and book, and every event of its catalogue."""

import json
from pathlib import Path

import pytest

from arb_pipeline.model import Anomaly, BookDelta, BookSnapshot, Event, MarketStatus, OrderBook, Output, Quote, Trade
from arb_pipeline.recordings import Recording
from arb_pipeline.units import parse_price, parse_size
from arb_pipeline.venues.polymarket import Polymarket, PolymarketSession
from arb_pipeline.venues.polymarket.book_hash import BookText, hash_tail, mirrored


@pytest.fixture(scope="module")
def recording(recordings: Path) -> Recording:
    return Recording.open(recordings / "crossvenue-202607")


@pytest.fixture(scope="module")
def events(recording: Recording) -> list[Event]:
    return [Polymarket().parse_event(record) for record in recording.events("polymarket")]


def test_every_event_and_market_is_parsed(events: list[Event]) -> None:
    markets = [market for event in events for market in event.markets]
    assert (len(events), len(markets)) == (8, 17)
    for market in markets:
        assert market.status is MarketStatus.OPEN
        assert market.tick in (10, 100)
        assert market.min_size == 5_000_000
        assert len({market.yes_token_id, market.no_token_id, market.market_id}) == 3
        assert market.rules
        assert market.close_at is not None
        assert market.created_at is not None
        assert market.volume
    assert sum(event.mutually_exclusive for event in events) == 5
    games = [market for market in markets if market.strike.get("sportsMarketType") == "moneyline"]
    assert len(games) == 3
    assert all(game.occurrence_at is not None and game.yes_title for game in games)


def test_every_rest_book_hashes_and_becomes_the_book(recording: Recording, events: list[Event]) -> None:
    facts = {market.market_id: market.facts() for event in events for market in event.markets}
    books = recording.books("polymarket")
    session = PolymarketSession("c-0", "wss://localhost")
    session.connected(1)
    session.subscribe(list(facts.values()), 1)
    for book in books:
        outputs = session.rest_book(book["market"], json.dumps(book).encode(), 2)
        assert not [output for output in outputs if isinstance(output, Anomaly)]
        assert session.in_sync(book["market"])
    assert len(books) == 17


@pytest.mark.parametrize("known", [True, False])
def test_every_frame_is_verified(recording: Recording, events: list[Event], known: bool) -> None:
    """27 frames: 1 first book, 24 changes, 1 book after a trade, 1 trade; with and without the catalogue."""
    frames = list(recording.frames("polymarket"))
    market_id = json.loads(frames[0].frame)[0]["market"]
    session = PolymarketSession("c-0", "wss://localhost", accept_unknown=not known)
    session.connected(frames[0].recv_ns)
    if known:
        (facts,) = (m.facts() for event in events for m in event.markets if m.market_id == market_id)
        session.subscribe([facts], frames[0].recv_ns)
    outputs: list[Output] = []
    for frame in frames:
        outputs += session.receive(frame.frame, frame.recv_ns)
        assert session.in_sync(market_id)
    assert len(frames) == 27
    assert session.counters == {"hash_verified": 26}
    assert len([output for output in outputs if isinstance(output, BookDelta)]) == 24
    assert [output.reason for output in outputs if isinstance(output, BookSnapshot)] == ["initial", "venue"]
    assert len([output for output in outputs if isinstance(output, Quote)]) == 3
    (trade,) = [output for output in outputs if isinstance(output, Trade)]
    assert (trade.price, trade.size, trade.taker_side) == (925_000_000, 216_216_215, "yes")
    assert len([output for output in outputs if isinstance(output, Anomaly)]) == (0 if known else 1)


def test_both_tokens_hashes_of_every_change(recording: Recording) -> None:
    """An independent fold: 24 changes, each hash of YES and of its exact mirror."""
    frames = [json.loads(frame.frame) for frame in recording.frames("polymarket")]
    (first,) = frames[0]
    market_id, yes = first["market"], first["asset_id"]
    (no,) = {entry["asset_id"] for frame in frames[1:] for entry in frame.get("price_changes", ())} - {yes}
    book = OrderBook()
    book.replace(
        *([(parse_price(v["price"]), parse_size(v["size"])) for v in first[side]] for side in ("bids", "asks"))
    )
    tail = hash_tail(5_000_000, parse_price(first["tick_size"]), True, first["last_trade_price"])
    verified = 0
    for frame in frames[1:]:
        entries = {entry["asset_id"]: entry for entry in frame.get("price_changes", ())}
        if not entries:
            continue
        change = entries[yes]
        setter = book.set_bid if change["side"] == "BUY" else book.set_ask
        setter(parse_price(change["price"]), parse_size(change["size"]))
        bids, asks = list(book.bids.items()), list(book.asks.items())
        for token, held in ((yes, (bids, asks)), (no, (mirrored(asks), mirrored(bids)))):
            text = BookText(market_id, token)
            text.replace(*held)
            assert text.digest(frame["timestamp"], tail) == entries[token]["hash"]
            verified += 1
    assert verified == 48
