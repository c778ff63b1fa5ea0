"""What to capture: what the listeners select of the catalogue, and, while a capture runs, of life-cycle messages."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import httpx
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from arb_pipeline.capture import listeners as listening
from arb_pipeline.capture.history import HistoryKeeper
from arb_pipeline.capture.listener_store import listener_store
from arb_pipeline.capture.universe import Revision, select
from arb_pipeline.errors import ArbError
from arb_pipeline.matching.versions import HOPEFUL, current_matches
from arb_pipeline.model import Event, Market, MarketChange, MarketStatus
from arb_pipeline.settings import Settings
from arb_pipeline.storage.catalogue import read_events, read_markets
from arb_pipeline.storage.lake import Lake
from arb_pipeline.venues import VENUES
from arb_pipeline.venues.base import Venue
from arb_pipeline.venues.http import HttpStatusError

__all__ = ["Following", "count_listeners", "forward_fills", "universe"]

_log = logging.getLogger(__name__)

_LOOKUPS: Final = 50
"""So many markets at most are looked up after one look at the messages; the others wait for the next."""
_TOLD: Final = frozenset({"created", "activated", "deactivated", "times", "tick", "fees", "determined", "settled"})
"""What a life-cycle message may be about that the venue's REST API is then asked for."""
_CATALOGUE: Final = ("markets", "events")


def universe(
    settings: Settings, lake: Lake, venues: Collection[str] = (), listeners: Sequence[listening.Listener] | None = None
) -> dict[str, list[Market]]:
    """What to capture of each venue (all of the settings' ones by default): what its active listeners select.

    Where that is more than the settings' limit, paired markets come first, then the busiest. Without ``listeners`` they
    are those of the settings' store.

    Raises:
        ListenerError: if the listeners' file is not valid.
    """
    if listeners is None:
        listeners = listener_store(settings).load()
    chosen = {}
    for name in venues or settings.capture_venues:
        markets, events, paired = _known(lake, name)
        wanted = listening.select(listeners, markets, events, paired)
        chosen[name] = select(wanted, settings.capture_max_markets, paired, tuple(MarketStatus))
    return chosen


def count_listeners(settings: Settings, lake: Lake) -> list[tuple[listening.Listener, int]]:
    """Every listener with the number of discovered markets that it selects, or would select if it were active.

    Raises:
        ListenerError: if the listeners' file is not valid.
    """
    listeners = listener_store(settings).load()
    known = {name: _known(lake, name) for name in {listener.venue for listener in listeners}}
    return [
        (listener, len(listening.select([listener.model_copy(update={"is_active": True})], *known[listener.venue])))
        for listener in listeners
    ]


def forward_fills(settings: Settings, lake: Lake, venue: str) -> dict[int, set[str]]:
    """Discovered markets by the grid (ms) on which an active listener asks for their books.

    Every listener has an interval; to ask is to name it in the file.

    Raises:
        ListenerError: if the listeners' file is not valid.
    """
    asking = [
        listener
        for listener in listener_store(settings).load()
        if listener.venue == venue and listener.is_active and "forward_fill_interval_ms" in listener.model_fields_set
    ]
    known = _known(lake, venue) if asking else ([], [], frozenset[str]())
    found: dict[int, set[str]] = {}
    for listener in asking:
        ids = {market.market_id for market in listening.select([listener], *known)}
        found.setdefault(listener.forward_fill_interval_ms, set()).update(ids)
    return found


def _known(lake: Lake, venue: str) -> tuple[list[Market], list[Event], frozenset[str]]:
    """A venue's discovered markets and events, and which of the markets stand in a pair that is not ruled out."""
    matches = current_matches(lake)
    hopeful = matches.filter(pc.is_in(matches["status"], pa.array(HOPEFUL)))
    paired = frozenset(hopeful[f"{venue}_market_id"].to_pylist())
    return read_markets(lake, venue), read_events(lake, venue, nested=False), paired


class Following:
    """The universe of a running capture (:class:`arb_pipeline.capture.universe.Universe`).

    A market that a life-cycle message names is looked up at the venue: what has changed about it goes to
    ``market_history``, and the listeners decide on it as after a discovery. A market that is paused stays, for its book
    comes back; one that is closed goes. Where the catalogue, the pairs or the listeners changed, the choice is made
    anew.

    Args:
        markets: what the capture began with, by venue.
        venues: the venues that these are of.
    """

    def __init__(
        self,
        settings: Settings,
        lake: Lake,
        markets: Mapping[str, Sequence[Market]],
        venues: Mapping[str, Venue] = VENUES,
    ) -> None:
        self.interval_s = settings.capture_refresh_s
        self._settings = settings
        self._lake = lake
        self._venues = {name: venues[name] for name in markets}
        self._held = {name: {market.market_id for market in listed} for name, listed in markets.items()}
        self._retired: dict[str, set[str]] = {name: set() for name in markets}
        """What was let go of, and may open again."""
        self._told: dict[str, dict[str, Market]] = {name: {} for name in markets}
        """Markets that came by a message and stand in no catalogue yet."""
        self._asked: dict[str, dict[str, None]] = {name: {} for name in markets}
        """Ids that are still to be looked up."""
        self._history = HistoryKeeper(lake, settings.capture_refresh_s)
        self._version = self._newest()

    async def revise(self, changes: Mapping[str, Sequence[MarketChange]]) -> dict[str, Revision]:
        """What is to change now, by venue; troubles are logged, and leave things as they are."""
        revisions = await self._renewed()
        for name, listed in changes.items():
            self._asked[name].update((change.market_id, None) for change in listed if self._concerns(name, change))
        for name, asked in self._asked.items():
            now = list(asked)[:_LOOKUPS]
            for market_id in now:
                del asked[market_id]
            found = await self._look_up(self._venues[name], now) if now else []
            if found:
                self._history.note(name, found, self._settings.clock.now())
                revision = await asyncio.to_thread(self._decide, name, found)
                before = revisions.get(name, Revision())
                revisions[name] = Revision([*before.add, *revision.add], frozenset({*before.retire, *revision.retire}))
        self._history.write_if_due()
        for name, revision in revisions.items():
            self._held[name] -= set(revision.retire)
            self._retired[name] |= set(revision.retire)
            self._held[name] |= {market.market_id for market in revision.add}
            for market_id in revision.retire:
                self._told[name].pop(market_id, None)
            if revision.add or revision.retire:
                _log.info(
                    "%s: %d markets added, %d retired",
                    name,
                    len(revision.add),
                    len(revision.retire),
                    extra={"venue": name},
                )
        return revisions

    async def close(self) -> None:
        """The capture ends: what was learnt of markets is written."""
        await self._history.close()

    def _concerns(self, name: str, change: MarketChange) -> bool:
        if not change.market_id or change.change not in _TOLD:
            return False
        if change.change in {"created", "activated"}:
            return True
        return change.market_id in self._held[name] or change.market_id in self._retired[name]

    async def _look_up(self, venue: Venue, market_ids: Sequence[str]) -> list[Market]:
        found: list[Market] = []
        async with venue.rest_client(self._settings, venue.credentials(self._settings)) as client:
            for market_id in market_ids:
                try:
                    listed = await venue.find_markets(client, market_id)
                except (ArbError, httpx.HTTPError) as error:
                    if isinstance(error, HttpStatusError | httpx.HTTPError):
                        self._asked[venue.name][market_id] = None
                    _log.warning("%s: market %s cannot be looked up: %s", venue.name, market_id, error)
                    continue
                found += [market for market in listed if market.market_id == market_id]
        return found

    def _decide(self, name: str, found: Sequence[Market]) -> Revision:
        try:
            listeners = listener_store(self._settings).load(strict=True)
        except ArbError as error:
            _log.warning("the listeners cannot be read, so nothing changes: %s", error)
            return Revision()
        held = self._held[name]
        # What is held was paired, where that is asked for; a message does not tell.
        wanted = {market.market_id for market in _selected(listeners, found, held)}
        room = self._settings.capture_max_markets - len(held)
        add = [market for market in found if market.market_id in wanted and market.market_id not in held][
            : max(0, room)
        ]
        self._told[name].update((market.market_id, market) for market in add)
        return Revision(add, [market.market_id for market in found if market.market_id in held - wanted])

    async def _renewed(self) -> dict[str, Revision]:
        """The choice made anew, where what it rests on has changed."""
        try:
            version = await asyncio.to_thread(self._newest)
            if version == self._version:
                return {}
            listeners = await asyncio.to_thread(listener_store(self._settings).load, strict=True)
            chosen = await asyncio.to_thread(universe, self._settings, self._lake, list(self._venues), listeners)
            paused = await asyncio.to_thread(self._paused)
        except (ArbError, OSError) as error:
            _log.warning("the universe cannot be chosen anew, so it stays: %s", error)
            return {}
        self._version = version
        revisions = {}
        for name, listed in chosen.items():
            known = {market.market_id for market in listed}
            told = self._told[name] = {key: market for key, market in self._told[name].items() if key not in known}
            held = self._held[name]
            add = [market for market in listed if market.market_id not in held]
            revisions[name] = Revision(add, held - known - told.keys() - paused)
        return revisions

    def _paused(self) -> set[str]:
        """Ids of the markets that the catalogues tell to be paused."""
        listed = (read_markets(self._lake, name) for name in self._venues)
        return {market.market_id for markets in listed for market in markets if market.status is MarketStatus.PAUSED}

    def _newest(self) -> tuple[object, ...]:
        """Tells one state of catalogue, pairs and listeners from another."""
        listed = [file for name in _CATALOGUE for file in self._lake.current_files(name)]
        # A pair may end in the partition of the day on which it began.
        files = [(file.path, file.entry.sha256) for file in (*listed, *self._lake.files("market_matches"))]
        return (*files, listener_store(self._settings).version())


def _selected(
    listeners: Sequence[listening.Listener], found: Sequence[Market], paired: Collection[str]
) -> list[Market]:
    """The markets that the listeners want, one that is paused as if it were open."""
    as_open: list[Any] = [
        msgspec.structs.replace(market, status=MarketStatus.OPEN) if market.status is MarketStatus.PAUSED else market
        for market in found
    ]
    return listening.select(listeners, as_open, [], paired)
