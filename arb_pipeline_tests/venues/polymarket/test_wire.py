import msgspec
import pytest

from arb_pipeline.model import AnomalyKind
from arb_pipeline.venues.polymarket import wire


@pytest.mark.parametrize(
    ("text", "padded"),
    [("0.43", "0.430"), ("0.5", "0.500"), ("0.0055", "0.0055"), ("0.660", "0.660"), ("0.4300", "0.430")],
)
def test_trade_prices_are_padded_to_three_decimals(text: str, padded: str) -> None:
    assert wire.padded_price(text) == padded


@pytest.mark.parametrize("text", ["", "-1", "1.5", "abc", "²", "9" * 17, "9" * 16, " 1"])
def test_a_timestamp_must_be_milliseconds(text: str) -> None:
    with pytest.raises(ValueError, match="timestamp"):
        wire.venue_ns(text)


def test_milliseconds_become_nanoseconds() -> None:
    assert wire.venue_ns("1791300000123") == 1_791_300_000_123_000_000


def test_errors_are_told_apart() -> None:
    for body, kind in (
        (b'{"market":"m"', AnomalyKind.MALFORMED_JSON),
        (b'{"market":"m"}', AnomalyKind.MISSING_FIELD),
        (b'{"market":7}', AnomalyKind.WRONG_TYPE),
    ):
        with pytest.raises(msgspec.DecodeError) as caught:
            wire.decode_book(body)
        assert wire.error_kind(caught.value) is kind


def test_the_structs_write_frames_too() -> None:
    book = wire.BookMessage(market="m", asset_id="1", timestamp="2", bids=[], asks=[], event_type="book")
    assert msgspec.json.decode(msgspec.json.encode(book)) == {
        "market": "m",
        "asset_id": "1",
        "timestamp": "2",
        "bids": [],
        "asks": [],
        "event_type": "book",
    }
