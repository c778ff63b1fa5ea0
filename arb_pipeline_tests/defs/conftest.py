"""A local exchange in a thread of its own, so that tests can run Dagster's blocking jobs against it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from arb_pipeline.exchange import Exchange


@contextmanager
def exchange_in_thread(seed: int = 7, rate: float = 60.0) -> "Iterator[Exchange]":
    """A generated market of so many frames a second, served until the context ends."""
    from arb_pipeline.exchange import GeneratedSource, start

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="exchange")
    thread.start()
    try:
        exchange = asyncio.run_coroutine_threadsafe(start(GeneratedSource(seed=seed, rate=rate)), loop).result(60)
        try:
            yield exchange
        finally:
            asyncio.run_coroutine_threadsafe(exchange.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@pytest.fixture(scope="module")
def exchange() -> "Iterator[Exchange]":
    with exchange_in_thread() as running:
        yield running
