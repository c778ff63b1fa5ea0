"""The short form of ``make bench-fuzz``, and proof that the fuzzer sees what it looks for."""

import pytest

from arb_pipeline.capture.rows import Batch
from arb_pipeline.model import Output
from arb_pipeline.venues.kalshi.session import KalshiSession
from arb_pipeline.venues.polymarket.market_book import MarketBook, Verdict
from arb_pipeline.venues.polymarket.session import PolymarketSession
from arb_pipeline_tests.fuzzing import fuzz
from arb_pipeline_tests.fuzzing.mutations import MUTATIONS


def test_mutated_frames_raise_nothing_and_corrupt_no_book_silently() -> None:
    result = fuzz(5_000, seed=7)
    assert not result.findings, result.table()
    assert result.mutations >= 5_000
    assert set(MUTATIONS) <= set(result.kinds)
    # It is no proof unless books were in sync again and again, and forgeries among the frames.
    assert result.compared > 10_000
    assert result.forged > 100
    assert result.refused > 2_000
    assert result.rows > 50_000


def test_the_same_seed_is_the_same_run() -> None:
    first, again, other = fuzz(150, seed=1), fuzz(150, seed=1), fuzz(150, seed=2)
    assert (first.kinds, first.frames, first.gaps, first.rows) == (again.kinds, again.frames, again.gaps, again.rows)
    assert (first.kinds, first.frames) != (other.kinds, other.frames)


def test_a_lost_number_that_nobody_minds_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KalshiSession, "_lose", lambda self, subscription, cause, now_ns: [])
    result = fuzz(600, seed=1)
    assert {finding.lane for finding in result.findings} == {"kalshi generated"}
    assert result.count("silent corruption") > 0
    assert "FAILED: silent corruption in kalshi generated, seed 1, step " in result.table()


def test_a_hash_that_nobody_compares_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MarketBook, "verify", lambda self, claim, *, search: Verdict.VERIFIED)
    result = fuzz(600, seed=1)
    assert {finding.lane for finding in result.findings} == {"polymarket generated"}
    assert result.count("silent corruption") > 0


def test_a_frame_passed_over_without_a_word_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def reject(self: KalshiSession, kind: str, frame: str, recv_ns: int, error: Exception) -> list[Output]:
        return []

    monkeypatch.setattr(KalshiSession, "_reject", reject)
    assert fuzz(100, seed=1).count("uncounted") > 0


@pytest.mark.parametrize("broken", [KalshiSession, PolymarketSession])
def test_a_session_that_raises_is_found(monkeypatch: pytest.MonkeyPatch, broken: type) -> None:
    def receive(self: object, frame: str | bytes, recv_ns: int) -> list[Output]:
        raise KeyError("sid")

    monkeypatch.setattr(broken, "receive", receive)
    result = fuzz(200, seed=1)
    assert result.count("exception") > 0
    assert "KeyError" in result.table()


def test_rows_that_cannot_be_written_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def tables(self: Batch) -> dict[object, object]:
        raise OverflowError("too big")

    monkeypatch.setattr(Batch, "tables", tables)
    assert fuzz(20, seed=1).count("exception") > 0
