"""Kalshi: wire, authentication, catalogue, session and fees."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

from arb_pipeline.model import Event, FeeChange, Market, MarketFacts
from arb_pipeline.settings import Settings
from arb_pipeline.venues.base import Account, Credentials, History, Polling, Progress, VenueError
from arb_pipeline.venues.fee_timeline import FeeChanges
from arb_pipeline.venues.http import RestClient
from arb_pipeline.venues.kalshi import catalogue, fee_changes, find, rest, schedule
from arb_pipeline.venues.kalshi.account import KalshiAccountSession, fetch_account
from arb_pipeline.venues.kalshi.auth import KalshiCredentials
from arb_pipeline.venues.kalshi.fees import KalshiFees, kalshi_fees
from arb_pipeline.venues.kalshi.history import KalshiHistory
from arb_pipeline.venues.kalshi.session import KalshiSession

__all__ = ["Kalshi", "KalshiAccountSession", "KalshiCredentials", "KalshiFees", "KalshiSession"]

_LIVE_USE_YES_PRICE = False


class Kalshi:
    """See :class:`arb_pipeline.venues.base.Venue`."""

    name = "kalshi"
    polling: Polling = rest.KalshiPolling()
    history: History = KalshiHistory()

    def credentials(self, settings: Settings) -> KalshiCredentials | None:
        """The API key that the settings name, None where none is set.

        Raises:
            VenueError: if it is set but unusable; the message names the setting.
        """
        return KalshiCredentials.from_settings(settings)

    def rest_client(self, settings: Settings, credentials: Credentials | None = None) -> RestClient:
        """A client of the configured host; market data needs no credentials."""
        return rest.rest_client(settings, _own(credentials))

    def catalogue(
        self, client: RestClient, settings: Settings, progress: Progress | None = None
    ) -> AsyncIterator[Event]:
        """Every open event with its markets, joined with its series.

        Raises:
            HttpStatusError: if the venue refuses a page.
            VenueError: if a page is not of the documented form.
        """
        return catalogue.list_events(client, settings, progress)

    def session(
        self,
        connection_id: str,
        settings: Settings,
        credentials: Credentials | None = None,
        *,
        use_yes_price: bool = _LIVE_USE_YES_PRICE,
        accept_unknown: bool = False,
    ) -> KalshiSession:
        """A fresh session; with ``accept_unknown`` it takes markets that nobody subscribed."""
        return KalshiSession(
            connection_id,
            settings.kalshi_ws_url,
            _own(credentials),
            markets_per_subscription=settings.kalshi_markets_per_sid,
            use_yes_price=use_yes_price,
            lifecycle=settings.kalshi_lifecycle,
            accept_unknown=accept_unknown,
            data_age_s=settings.kalshi_data_age_s,
        )

    def account_session(
        self, connection_id: str, settings: Settings, credentials: Credentials | None
    ) -> KalshiAccountSession:
        """A session of the private channels; without a key it can only read what was received."""
        return KalshiAccountSession(connection_id, settings.kalshi_ws_url, _own(credentials))

    async def account(self, client: RestClient, recv_ns: int, since_ns: int = 0) -> Account:
        """Balance, positions and fills, by a client that signs.

        Raises:
            HttpStatusError: if the venue refuses; 401 without a key.
            VenueError: if an answer is not of the documented form.
        """
        return await fetch_account(client, recv_ns, since_ns)

    def replay_session(self, connection_id: str, settings: Settings, meta: Mapping[str, object]) -> KalshiSession:
        """A session that reads NO prices as the recording's subscription asked for them."""
        use_yes_price = bool(meta.get("use_yes_price"))
        return self.session(connection_id, settings, use_yes_price=use_yes_price, accept_unknown=True)

    def can_stream(self, credentials: Credentials | None) -> bool:
        """Only with credentials: the handshake must be signed, even for public channels."""
        return isinstance(credentials, KalshiCredentials)

    def maintenance(self, at: datetime) -> tuple[datetime, datetime] | None:
        """Thursdays 03:00 to 05:00 New York time."""
        return schedule.maintenance(at)

    def fees(self, market: Market, at: datetime, settings: Settings, changes: FeeChanges | None = None) -> KalshiFees:
        """The fee model of a market at a time, for the configured kind of account.

        Raises:
            FeeUnknownError: if the market's fee parameters are missing, not known at that time, or of an unknown kind.
        """
        return kalshi_fees(market, at, settings.kalshi_account, changes)

    async def fee_changes(
        self, client: RestClient, settings: Settings, events: Sequence[Event], at: datetime, known: Sequence[FeeChange]
    ) -> list[FeeChange]:
        """The fees of series and the overrides of events by time, as announced and as listed.

        Where the venue does not tell the announcements, those that were known stay, and what the listing shows counts
        from it on.
        """
        told = await fee_changes.list_fee_changes(client, settings.max_pages)
        return fee_changes.fee_changes(events, told, at, known)

    def markets_per_connection(self, settings: Settings) -> int:
        """As many as one subscription holds: a channel has one ``sid`` a connection, and a gap in it concerns them all.

        Kalshi allows 200 connections a user by default (changelog of 2025-09-18).
        """
        return settings.kalshi_markets_per_sid

    async def fetch_books(self, client: RestClient, markets: Sequence[MarketFacts]) -> dict[str, bytes]:
        """Order books by REST in batches of 100; markets that the venue does not know are left out.

        Raises:
            HttpStatusError: if the venue refuses for another reason.
        """
        return await rest.fetch_books(client, [market.market_id for market in markets])

    def parse_event(self, record: Mapping[str, object]) -> Event:
        """One raw event with nested markets; without its series, its markets have no fee parameters.

        Raises:
            VenueError: if the record has no event_ticker.
        """
        return catalogue.parse_event(record)

    async def find_markets(self, client: RestClient, text: str) -> list[Market]:
        """Markets by market, event or series ticker, or by a page's address.

        Raises:
            VenueError: if Kalshi has nothing of that name.
            HttpStatusError: if the venue refuses for another reason.
        """
        return await find.find_markets(client, text)

    def recording_options(self) -> Mapping[str, object]:
        """How NO prices of live frames are to be read."""
        return {"use_yes_price": _LIVE_USE_YES_PRICE}


def _own(credentials: Credentials | None) -> KalshiCredentials | None:
    if credentials is None or isinstance(credentials, KalshiCredentials):
        return credentials
    raise VenueError(f"kalshi was given credentials of another venue ({type(credentials).__name__})")
