"""Polymarket: wire, book hash, catalogue, session and fees."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

from arb_pipeline.model import Event, FeeChange, Market, MarketFacts
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import Credentials, FeeModel, Progress, VenueError
from arb_pipeline.venues.fee_timeline import FeeChanges
from arb_pipeline.venues.http import RestClient
from arb_pipeline.venues.polymarket import catalogue, fees, find, rest
from arb_pipeline.venues.polymarket.account import PolymarketAccountSession, PolymarketCredentials
from arb_pipeline.venues.polymarket.session import PolymarketSession

__all__ = ["Polymarket", "PolymarketAccountSession", "PolymarketCredentials", "PolymarketSession"]


class Polymarket:
    """A :class:`arb_pipeline.venues.base.Venue`: the international Polymarket. Market data needs no credentials."""

    name = "polymarket"
    polling = None
    history = None
    """Past prices are points without bid and ask, and past trades lack the ids that captured ones go by."""

    def credentials(self, settings: Settings) -> PolymarketCredentials | None:
        """API credentials for the user channel, None where none are set: market data needs none.

        Raises:
            VenueError: if only some of the three are set.
        """
        return PolymarketCredentials.from_settings(settings)

    def rest_client(self, settings: Settings, credentials: Credentials | None = None) -> RestClient:  # noqa: ARG002
        """A client of Gamma that also reaches CLOB; use it as an async context manager."""
        return rest.PolymarketClient(settings)

    def catalogue(
        self, client: RestClient, settings: Settings, progress: Progress | None = None
    ) -> AsyncIterator[Event]:
        """Page through the open events with their markets."""
        return catalogue.catalogue(client, settings, progress)

    def session(
        self,
        connection_id: str,
        settings: Settings,
        credentials: Credentials | None = None,  # noqa: ARG002
        *,
        accept_unknown: bool = False,
    ) -> PolymarketSession:
        """A fresh session; with ``accept_unknown`` it takes markets that nobody subscribed."""
        return PolymarketSession(
            connection_id,
            settings.polymarket_ws_url,
            accept_unknown=accept_unknown,
            data_age_s=settings.polymarket_data_age_s,
            hash_sample=settings.polymarket_hash_sample,
            witness_s=settings.polymarket_witness_s,
            witness_sample=settings.polymarket_witness_sample,
        )

    def account_session(
        self, connection_id: str, settings: Settings, credentials: Credentials | None
    ) -> PolymarketAccountSession:
        """A session of the user channel; without credentials it can only read what was received.

        Raises:
            VenueError: if the credentials are of another venue.
        """
        if not (credentials is None or isinstance(credentials, PolymarketCredentials)):
            raise VenueError(f"polymarket was given credentials of another venue ({type(credentials).__name__})")
        return PolymarketAccountSession(connection_id, settings.polymarket_user_ws_url, credentials)

    async def account(self, client: RestClient, recv_ns: int, since_ns: int = 0) -> None:  # noqa: ARG002
        """None: the account's REST calls are signed with the wallet's address, which is not asked for here."""
        return

    def replay_session(
        self,
        connection_id: str,
        settings: Settings,
        meta: Mapping[str, object],  # noqa: ARG002 - the market channel has no options that change what frames mean
    ) -> PolymarketSession:
        """A session that takes markets without a catalogue."""
        return self.session(connection_id, settings, accept_unknown=True)

    def can_stream(self, credentials: Credentials | None) -> bool:  # noqa: ARG002
        """Always: the market channel takes no credentials."""
        return True

    def maintenance(self, at: datetime) -> tuple[datetime, datetime] | None:  # noqa: ARG002
        """None: the venue announces no regular pause."""
        return None

    def fees(self, market: Market, at: datetime, settings: Settings, changes: FeeChanges | None = None) -> FeeModel:
        """The taker fees of a market at a time.

        Raises:
            FeeUnknownError: if neither its record nor its category tells them.
        """
        return fees.fee_model(market, at, settings.polymarket_fee_rounding, changes)

    async def fee_changes(
        self,
        client: RestClient,  # noqa: ARG002 - the listing tells it all
        settings: Settings,  # noqa: ARG002
        events: Sequence[Event],
        at: datetime,
        known: Sequence[FeeChange],
    ) -> list[FeeChange]:
        """The rates of categories by time, and the schedules that markets have of their own."""
        return fees.fee_changes(events, at, known)

    def markets_per_connection(self, settings: Settings) -> int:
        """One subscribed asset (the YES token) a market, so many to a socket as the setting says.

        Above some 500 assets the venue silently leaves initial snapshots out.
        """
        return settings.polymarket_assets_per_connection

    async def fetch_books(self, client: RestClient, markets: Sequence[MarketFacts]) -> dict[str, bytes]:
        """Books of the markets by ``POST /books``; markets unknown to CLOB are left out.

        Raises:
            VenueError: if the client is not the venue's own.
        """
        return await rest.fetch_books(client, markets)

    def parse_event(self, record: Mapping[str, object]) -> Event:
        """One raw Gamma event with nested markets.

        Raises:
            VenueError: if it has no id.
        """
        return catalogue.parse_event(record)

    async def find_markets(self, client: RestClient, text: str) -> list[Market]:
        """Markets by event or market slug, condition id, token id, or a page's address.

        Raises:
            VenueError: if Polymarket has nothing of that name.
            HttpStatusError: if the venue refuses for another reason.
        """
        return await find.find_markets(client, text)

    def recording_options(self) -> Mapping[str, object]:
        """The market channel has no options that change what frames mean."""
        return {}
