"""Kalshi frames as the venue writes them, for the tests of this room."""

import json
from collections.abc import Sequence
from typing import Any

from arb_pipeline.model import Anomaly, AnomalyKind, MarketFacts, Output, Send

A = "KXA-26NOV-T1"
B = "KXA-26NOV-T2"
SECOND = 1_000_000_000
START = 1_794_302_400 * SECOND
TS_MS = 1_794_302_401_117

Ladder = Sequence[tuple[str, str]]


def dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def frame(kind: str, sid: int | None = None, seq: int | None = None, /, **rest: Any) -> str:
    head = {"type": kind, "sid": sid, "seq": seq}
    return dumps({name: value for name, value in head.items() if value is not None} | rest)


def snapshot(
    seq: int, ticker: str = A, yes: Ladder | None = None, no: Ladder | None = None, *, sid: int = 1, **rest: Any
) -> str:
    msg: dict[str, Any] = {"market_ticker": ticker, "market_id": "5f0a"}
    if yes is not None:
        msg["yes_dollars_fp"] = yes
    if no is not None:
        msg["no_dollars_fp"] = no
    return frame("orderbook_snapshot", sid, seq, **rest, msg=msg)


def delta(seq: int, side: str, price: str, change: str, ticker: str = A, *, sid: int = 1, **fields: Any) -> str:
    msg = {"market_ticker": ticker, "price_dollars": price, "delta_fp": change, "side": side, "ts_ms": TS_MS}
    return frame("orderbook_delta", sid, seq, msg=msg | fields)


def facts(*tickers: str) -> list[MarketFacts]:
    return [MarketFacts(venue="kalshi", market_id=ticker) for ticker in tickers]


def sent(outputs: Sequence[Output]) -> list[dict[str, Any]]:
    return [json.loads(output.frame) for output in outputs if isinstance(output, Send)]


def anomalies(outputs: Sequence[Output]) -> list[AnomalyKind]:
    return [output.kind for output in outputs if isinstance(output, Anomaly)]
