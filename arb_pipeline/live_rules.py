"""Which rules are evaluated beside a capture, and the handler that does: named here, loaded where it runs."""

import logging
from collections.abc import Iterable
from typing import Final

from arb_pipeline.alerting.rules import AlertError, Alerting, NetEdge, PriceMove, Rule, Spread, load_alerting
from arb_pipeline.capture.journal import journal_root
from arb_pipeline.capture.live import begun_settings
from arb_pipeline.handlers.config import HandlerConfig
from arb_pipeline.settings import Settings
from arb_pipeline.storage.lake import Lake

__all__ = ["live_handlers", "live_rules"]

_log = logging.getLogger(__name__)

_NAME: Final = "alerts"
_USE: Final = "arb_pipeline.live_alerts:LiveAlerts"
"""By name: what it needs is slow to load, and a capture that begins has sockets to open."""


def live_rules(alerting: Alerting) -> list[Rule]:
    """The active rules that are evaluated beside a capture."""
    return [rule for rule in alerting.active if isinstance(rule, NetEdge | Spread | PriceMove) and rule.over == "live"]


def live_handlers(
    settings: Settings, lake: Lake, shard: tuple[int, int] = (0, 1), venues: Iterable[str] = ()
) -> tuple[HandlerConfig, ...]:
    """The handler that evaluates the live rules of ``ARB_ALERTS_FILE``; none if there are no such rules.

    ``venues`` are those that are captured, none given: those of the settings. What was told is kept by venues and
    shard: captures beside each other do not know of each other's books.

    A file that cannot be used costs the alerts, not the capture: it is logged.
    """
    try:
        if not live_rules(load_alerting(settings.alerts_file)):
            return ()
    except AlertError as error:
        _log.error("no rule is evaluated live: %s", error)
        return ()
    captured = "+".join(sorted({*venues} or {*settings.capture_venues}))
    state = journal_root(settings.journal, lake.root) / "alerts" / f"{captured}-{shard[0]}of{shard[1]}.json"
    parameters = {"settings": {**begun_settings(settings), "lake": lake.root}, "state": str(state.absolute())}
    return (HandlerConfig(name=_NAME, use=_USE, parameters=parameters),)
