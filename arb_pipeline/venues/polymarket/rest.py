"""Polymarket's REST APIs: one polite client for Gamma (discovery) and CLOB (books), and the batch of order books."""

from collections.abc import Mapping, Sequence

import msgspec

from arb_pipeline.model import MarketFacts
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import VenueError
from arb_pipeline.venues.http import RestClient

__all__ = ["PolymarketClient", "fetch_books"]

# POST /books refuses more than about 500 ids (`Payload exceeds the limit`).
_BOOKS_PER_CALL = 200


class PolymarketClient(RestClient):
    """A :class:`RestClient` of Gamma that also knows where CLOB is. All reads are public."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            settings.polymarket_gamma_url,
            timeout_s=settings.http_timeout_s,
            retries=settings.http_retries,
            requests_per_s=settings.http_requests_per_s,
        )
        self.clob_url = settings.polymarket_clob_url.rstrip("/")


async def fetch_books(client: RestClient, markets: Sequence[MarketFacts]) -> dict[str, bytes]:
    """Books of the markets' YES tokens: market id to the body of one book.

    CLOB leaves unknown and closed tokens out and promises no order; so does this.

    Raises:
        VenueError: if the client is none of :class:`PolymarketClient`, or the answer is no list.
        HttpStatusError: as :meth:`RestClient.post`.
    """
    if not isinstance(client, PolymarketClient):
        raise VenueError("fetch_books needs the client that Polymarket.rest_client() makes: it knows the CLOB URL")
    by_token = {facts.yes_token_id: facts.market_id for facts in markets if facts.yes_token_id}
    tokens = list(by_token)
    books: dict[str, bytes] = {}
    for start in range(0, len(tokens), _BOOKS_PER_CALL):
        batch = tokens[start : start + _BOOKS_PER_CALL]
        answer = await client.post(f"{client.clob_url}/books", [{"token_id": token} for token in batch])
        if not isinstance(answer, list):
            raise VenueError(f"POST /books answered no list but {str(answer)[:200]!r}")
        for book in answer:
            market_id = by_token.get(str(book.get("asset_id"))) if isinstance(book, Mapping) else None
            if market_id is not None:
                books[market_id] = msgspec.json.encode(book)
    return books
