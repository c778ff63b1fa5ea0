"""The venue against a small local server in Gamma's and CLOB's manner."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from arb_pipeline.model import Event, MarketFacts
from arb_pipeline.settings import Settings
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import Venue, VenueError
from arb_pipeline.venues.http import RestClient
from arb_pipeline.venues.polymarket import Polymarket
from arb_pipeline_tests.venues.polymarket.test_catalogue import CID, event, record


class Server:
    """Answers ``/events/keyset`` by cursor and ``POST /books``; keeps what it was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {}
        self.queries: list[dict[str, str]] = []
        self.batches: list[list[str]] = []
        self.books: Callable[[list[str]], Any] = lambda tokens: [{"asset_id": token} for token in tokens]
        self.url = ""

    async def events(self, request: web.Request) -> web.Response:
        self.queries.append(dict(request.query))
        return web.json_response(self.pages[request.query.get("after_cursor", "")])

    async def order_books(self, request: web.Request) -> web.Response:
        tokens = [item["token_id"] for item in await request.json()]
        self.batches.append(tokens)
        return web.json_response(self.books(tokens))

    @property
    def settings(self) -> Settings:
        return Settings(
            polymarket_gamma_url=self.url, polymarket_clob_url=self.url, http_requests_per_s=1000, max_pages=5
        )


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_get("/events/keyset", made.events)
    app.router.add_post("/books", made.order_books)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def listed(server: Server, seen: list[tuple[str, int]] | None = None) -> list[Event]:
    venue = Polymarket()
    async with venue.rest_client(server.settings) as client:
        steps = seen if seen is not None else []
        listing = venue.catalogue(client, server.settings, lambda step, count: steps.append((step, count)))
        return [found async for found in listing]


def facts(number: int) -> MarketFacts:
    return MarketFacts(venue="polymarket", market_id=f"m{number}", yes_token_id=f"{number}1", no_token_id=f"{number}2")


def numbered(number: int) -> dict[str, Any]:
    return event(record(conditionId=f"0x{number:064x}"), id=str(number))


def test_it_is_a_venue() -> None:
    venue: Venue = Polymarket()
    assert VENUES["polymarket"].name == venue.name == "polymarket"
    assert venue.credentials(Settings()) is None
    assert venue.can_stream(None)
    session = venue.session("c-7", Settings(polymarket_ws_url="ws://127.0.0.1:1/ws/market"))
    assert session.connection_id == "c-7"
    assert session.connect_request(0).url == "ws://127.0.0.1:1/ws/market"


async def test_pages_are_followed_until_no_cursor_is_told(server: Server) -> None:
    server.pages = {
        "": {"events": [numbered(1), numbered(2)], "next_cursor": "a"},
        "a": {"events": [], "next_cursor": "b"},
        "b": {"events": [numbered(2), numbered(3)]},
    }
    steps: list[tuple[str, int]] = []
    found = await listed(server, steps)
    assert [each.event_id for each in found] == ["1", "2", "3"]
    assert [query.get("after_cursor") for query in server.queries] == [None, "a", "b"]
    assert all(query["closed"] == "false" and int(query["limit"]) <= 500 for query in server.queries)
    assert steps[-1] == ("polymarket events", 3)


@pytest.mark.parametrize("cursor", ["", None])
async def test_an_empty_cursor_ends_the_listing(server: Server, cursor: str | None) -> None:
    server.pages = {"": {"events": [numbered(1)], "next_cursor": cursor}}
    assert len(await listed(server)) == 1


async def test_a_repeated_cursor_ends_the_listing(server: Server) -> None:
    server.pages = {"": {"events": [numbered(1)], "next_cursor": "a"}, "a": {"events": [], "next_cursor": "a"}}
    assert len(await listed(server)) == 1
    assert len(server.queries) == 2


async def test_the_safety_stop_is_loud(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    chain = ["", "a", "b", "c", "d", "e"]
    server.pages = {at: {"events": [numbered(n + 1)], "next_cursor": chain[n + 1]} for n, at in enumerate(chain[:-1])}
    assert len(await listed(server)) == 5
    assert "ARB_MAX_PAGES" in caplog.text


async def test_a_market_comes_once_and_bad_events_are_counted(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.pages = {"": {"events": [event(record()), event(record(), id="2"), {"title": "no id"}, 7]}}
    found = await listed(server)
    assert [[market.market_id for market in each.markets] for each in found] == [[CID], []]
    assert "event skipped" in caplog.text
    assert "event is no object" in caplog.text


@pytest.mark.parametrize("page", [[], {"markets": []}, {"events": None}])
async def test_a_page_of_another_shape_is_an_error(server: Server, page: object) -> None:
    server.pages = {"": page}
    with pytest.raises(VenueError, match="/events/keyset"):
        await listed(server)


async def test_books_come_in_batches_and_unknown_ones_are_left_out(server: Server) -> None:
    server.books = lambda tokens: (
        [7, {"asset_id": "99999"}] + [{"asset_id": token, "hash": token} for token in reversed(tokens) if token != "71"]
    )
    venue = Polymarket()
    wanted = [facts(number) for number in range(1, 451)]
    async with venue.rest_client(server.settings) as client:
        books = await venue.fetch_books(client, [*wanted, MarketFacts(venue="polymarket", market_id="unminted")])
    assert [len(batch) for batch in server.batches] == [200, 200, 50]
    assert set(books) == {each.market_id for each in wanted} - {"m7"}
    assert json.loads(books["m8"]) == {"asset_id": "81", "hash": "81"}


async def test_books_need_the_venues_own_client_and_a_list(server: Server) -> None:
    venue = Polymarket()
    async with RestClient(server.url) as plain:
        with pytest.raises(VenueError, match="rest_client"):
            await venue.fetch_books(plain, [facts(1)])
    server.books = lambda tokens: {"error": "no"}
    async with venue.rest_client(server.settings) as client:
        with pytest.raises(VenueError, match="/books"):
            await venue.fetch_books(client, [facts(1)])


def test_connections_hold_no_more_assets_than_the_setting_says() -> None:
    assert Polymarket().markets_per_connection(Settings(polymarket_assets_per_connection=3)) == 3
