"""The own account's channels, captured beside the books."""

from pathlib import Path

import httpx
import pytest

from arb_pipeline.exchange import GeneratedSource, start
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.pipeline import discover
from arb_pipeline.settings import Settings
from arb_pipeline.storage import Lake
from arb_pipeline_tests.capture.fakes import every
from arb_pipeline_tests.test_universe import capturing

VENUES = ("kalshi", "polymarket")


@pytest.mark.parametrize("asked", [True, False])
async def test_an_own_fill_is_a_row_where_the_account_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    async with await start(GeneratedSource(7, 8, duration_s=3_600), key=ThrowAwayKey()) as exchange:
        environment = exchange.environment()
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = Settings(lake=str(tmp_path / "lake"), capture_flush_s=0.2, http_requests_per_s=500, account=asked)
        lake = Lake(settings.lake, settings.exchange_name)
        for venue in VENUES:
            await discover(venue, settings, lake)
        async with capturing(settings, lake) as running, httpx.AsyncClient() as http:
            url = exchange.announcement()["control_url"]
            for venue, kind in (("kalshi", "fill"), ("polymarket", "trade")):
                answer = await http.post(f"{url}/account", json={"venue": venue, "type": kind})
                answer.raise_for_status()
            if asked:
                await running.until(
                    lambda status: all(figures.rows.get("account_events", 0) for figures in status.venues.values())
                )
    rows = every(lake, "account_events")
    assert {row["venue"] for row in rows if row["kind"] == "fill"} == (set(VENUES) if asked else set())
    assert ("balance" in {row["kind"] for row in rows}) == asked, "asked for over REST after the dial"
    assert len({row["event_id"] for row in rows}) == len(rows)
    private = [row for row in every(lake, "raw_frames") if "/account" in row["connection_id"]]
    assert private == []
    kept = [every(lake, name) for name in ("account_events", "capture_sessions", "raw_frames")]
    assert environment["POLY_API_KEY"] not in str(kept)
    assert not [row for row in every(lake, "book_gaps") if "/account" in row["connection_id"]]
