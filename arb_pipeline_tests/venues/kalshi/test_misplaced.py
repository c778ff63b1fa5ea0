"""Frames where a change of a book was due: their number counts, and the books that may lack something are doubted."""

import pytest

from arb_pipeline.model import Anomaly, AnomalyKind, GapOpened, Output
from arb_pipeline.venues.kalshi import KalshiSession
from arb_pipeline_tests.venues.kalshi.frames import START, A, B, anomalies, delta, dumps, facts, frame, sent, snapshot


@pytest.fixture
def session() -> KalshiSession:
    """A live session with two books on sid 1 and the trades on sid 2."""
    session = KalshiSession("c-0", channels=("orderbook_delta", "trade"), accept_unknown=False)
    session.connected(START)
    (command,) = sent(session.subscribe(facts(A, B), START))
    for sid, channel in ((1, "orderbook_delta"), (2, "trade")):
        acknowledgement = {"type": "subscribed", "id": command["id"], "msg": {"channel": channel, "sid": sid}}
        assert session.receive(dumps(acknowledgement), START) == []
    for seq, ticker in ((1, A), (2, B)):
        session.receive(snapshot(seq, ticker, [("0.3700", "112.00")], [("0.6000", "35.50")]), START)
    assert session.in_sync(A)
    assert session.in_sync(B)
    return session


def doubted(session: KalshiSession, outputs: list[Output]) -> set[str]:
    gaps = {output.market_id for output in outputs if isinstance(output, GapOpened)}
    assert gaps == {ticker for ticker in (A, B) if not session.in_sync(ticker)}
    return gaps


@pytest.mark.parametrize("kind", ["trade", "ticker", "fill", "event_lifecycle", "subscribed", "orderbook_delta2"])
def test_another_type_in_the_place_of_a_delta_doubts_the_book_that_it_names(session: KalshiSession, kind: str) -> None:
    outputs = session.receive(delta(3, "yes", "0.3700", "1.00", B).replace("orderbook_delta", kind), START)
    assert len(anomalies(outputs)) == 1
    assert doubted(session, outputs) == {B}
    # The number was counted: the next frame opens no gap of its own.
    assert anomalies(session.receive(delta(4, "yes", "0.3700", "1.00", A), START)) == []


def test_a_type_that_is_new_and_names_no_market_doubts_nothing(session: KalshiSession) -> None:
    outputs = session.receive(frame("orderbook_pulse", 1, 3, msg={"at": 5}), START)
    assert anomalies(outputs) == [AnomalyKind.UNKNOWN_TYPE]
    assert doubted(session, outputs) == set()


@pytest.mark.parametrize("text", [delta(3, "yes", "0.3700", "1.00", "KXZ"), snapshot(3, "KXZ", [("0.3700", "1.00")])])
def test_a_market_that_was_never_asked_for_doubts_every_book_of_its_sid(session: KalshiSession, text: str) -> None:
    outputs = session.receive(text, START)
    assert anomalies(outputs) == [AnomalyKind.UNKNOWN_MARKET]
    assert doubted(session, outputs) == {A, B}
    assert session.book("KXZ") is None


def test_a_market_just_taken_off_doubts_nothing(session: KalshiSession) -> None:
    session.unsubscribe([B], START)
    assert session.receive(delta(3, "yes", "0.3700", "1.00", B), START) == []
    assert session.in_sync(A)


@pytest.mark.parametrize("sid", [2, 99])
def test_a_book_does_not_move_to_a_subscription_that_has_none(session: KalshiSession, sid: int) -> None:
    for seq in (1, 2):
        outputs = session.receive(snapshot(seq, A, [("0.1000", "1.00")], sid=sid), START)
        assert AnomalyKind.UNKNOWN_MARKET in anomalies(outputs)
    book = session.book(A)
    assert book is not None
    assert book.bids == {3700: 112_000_000}
    assert not session.in_sync(A)


@pytest.mark.parametrize("text", [delta(3, "yes", "0.3700", "1.00"), snapshot(3, A, [("0.3700", "1.00")])])
@pytest.mark.parametrize("instead", ["", '"seq":null,'])
def test_a_book_frame_without_its_number_is_refused(session: KalshiSession, text: str, instead: str) -> None:
    outputs = session.receive(text.replace('"seq":3,', instead), START)
    (anomaly,) = [output for output in outputs if isinstance(output, Anomaly)]
    assert anomaly.kind in (AnomalyKind.MISSING_FIELD, AnomalyKind.WRONG_TYPE)
    assert "seq" in anomaly.detail
    assert doubted(session, outputs) == {A}


def test_a_sid_keeps_its_channel(session: KalshiSession) -> None:
    outputs = session.receive('{"type":"subscribed","msg":{"channel":"trade","sid":1}}', START)
    assert anomalies(outputs) == [AnomalyKind.WRONG_TYPE]
    session.receive(delta(4, "yes", "0.3700", "1.00"), START)
    assert not session.in_sync(A)
