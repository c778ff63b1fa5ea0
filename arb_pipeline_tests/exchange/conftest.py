"""Sources and running exchanges for the tests of the exchange."""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import date

import httpx
import pytest

from arb_pipeline.exchange import Exchange, GeneratedSource, start
from arb_pipeline.exchange.signing import ThrowAwayKey
from arb_pipeline.exchange.source import Action

TODAY = date(2026, 11, 21)


class Scripted(GeneratedSource):
    """A generated market whose timeline is written by the test: (milliseconds, action)."""

    def __init__(self, script: Sequence[tuple[int, Action]] = ()) -> None:
        super().__init__(7, duration_s=1, today=TODAY)
        self.script = list(script)

    def timeline(self) -> Iterator[tuple[int, Action]]:
        return ((ms * 1_000_000, action) for ms, action in self.script)


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture(scope="session")
def signing_key() -> ThrowAwayKey:
    """One key for all: making one takes a third of a second."""
    return ThrowAwayKey()


@pytest.fixture
async def still(scripted: Scripted, signing_key: ThrowAwayKey) -> AsyncIterator[Exchange]:
    """An exchange in which nothing moves unless the test adds to ``scripted.script`` before it subscribes."""
    async with await start(scripted, log_frames=10_000, ticker_s=0.05, key=signing_key) as exchange:
        yield exchange


@pytest.fixture
async def http(still: Exchange) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{still.port}") as client:
        yield client
