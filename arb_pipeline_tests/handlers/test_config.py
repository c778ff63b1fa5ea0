import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from arb_pipeline.handlers import HandlerConfig, HandlerError, build, on, on_frame

SAMPLES = "arb_pipeline_tests.handlers.samples"


def config(use: str, **fields: Any) -> HandlerConfig:
    return HandlerConfig.model_validate({"name": "mine", "use": use, **fields})


@pytest.mark.parametrize("use", ["price_alert", "tight_spread", "position_monitor"])
def test_every_shipped_handler_can_be_built(use: str) -> None:
    parameters = {"price_alert": {"level": "0.6"}, "tight_spread": {"spread": "0.01"}}.get(use, {})
    assert build(config(use, parameters=parameters)).events


def test_text_becomes_what_the_signature_asks_for(tmp_path: Path) -> None:
    handler = build(config(f"{SAMPLES}:Note", parameters={"path": str(tmp_path), "slow_s": "0.5"}))
    assert set(handler.events) == {"snapshot", "quote", "trade", "gap_opened", "time_passed"}
    note: Any = handler.events["trade"][0]
    assert (note.__self__.path, note.__self__.slow_s) == (tmp_path, 0.5)
    assert set(build(config(f"{SAMPLES}:frames", parameters={"path": str(tmp_path)})).frames) == {
        ("kalshi", "orderbook_delta"),
        ("kalshi", "trade"),
    }


@pytest.mark.parametrize(
    ("use", "parameters", "says"),
    [
        ("price_alert", {}, "parameters.level is missing"),
        ("price_alert", {"level": "much"}, "parameters.level: Input should be a valid decimal.*'much'"),
        ("price_alert", {"level": "1.5"}, "parameters.level: Input should be less than or equal to 1"),
        ("price_alert", {"level": "0.00001"}, "refuses its parameters: price '0.00001' has more than 4 decimals"),
        ("price_alert", {"level": "0.5", "direction": "sideways"}, "parameters.direction: Input should be 'up' or"),
        ("tight_spread", {"spread": "0.1", "second": "1"}, "parameters.second is none of tight_spread; there are spr"),
        (f"{SAMPLES}:frames", {}, "parameters.path is missing"),
        (f"{SAMPLES}:Obey", {"what": "1"}, "parameters.what is none of .*; there are none"),
        (f"{SAMPLES}:plain", {}, "decorate it"),
        (f"{SAMPLES}:NOT_DECORATED", {}, "decorate it"),
        (f"{SAMPLES}:nothing", {}, "has no 'nothing'"),
        ("arb_pipeline_tests.nowhere:x", {}, "cannot be imported.*PYTHONPATH"),
    ],
)
def test_errors_name_handler_field_value_and_remedy(use: str, parameters: dict[str, str], says: str) -> None:
    with pytest.raises(HandlerError, match=f"handler 'mine': .*{says}"):
        build(config(use, parameters=parameters))


@pytest.mark.parametrize("use", ["os", "price_alerts", "os:", ":x", "a b:c", "os.system('x'):y"])
def test_what_is_no_path_is_refused_unseen(use: str) -> None:
    with pytest.raises(ValidationError, match="use"):
        config(use)


def test_only_what_is_named_is_imported() -> None:
    sys.modules.pop(SAMPLES, None)
    named = config(f"{SAMPLES}:Obey")
    assert SAMPLES not in sys.modules
    build(named)
    assert SAMPLES in sys.modules


def test_markets_may_be_patterns_and_short_condition_ids() -> None:
    condition = "0x" + "ab" * 31
    handler = build(config(f"{SAMPLES}:Obey", markets=["KXFED-*", condition]))
    assert handler.wants_market("KXFED-26DEC-T4")
    assert handler.wants_market(condition + "00")
    assert handler.wants_market("")
    assert not handler.wants_market("KXCPI-26DEC")


def test_venues_are_those_named_that_it_can_hear_of(tmp_path: Path) -> None:
    assert build(config(f"{SAMPLES}:Obey")).wants_venue("polymarket")
    assert not build(config(f"{SAMPLES}:Obey", venues="kalshi")).wants_venue("polymarket")
    assert not build(config(f"{SAMPLES}:frames", parameters={"path": str(tmp_path)})).wants_venue("polymarket")


def test_decorators_refuse_what_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"'trades'.*there are snapshot, delta, quote, trade"):
        on("trades")
    with pytest.raises(ValueError, match="names nothing"):
        on_frame("kalshi")
