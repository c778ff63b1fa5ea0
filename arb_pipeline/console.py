"""Tables for terminals that more than one command prints."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from rich.table import Table

__all__ = ["spread_grid"]


def spread_grid(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str] | None = None) -> Table:
    """Newest spreads as :func:`arb_pipeline.pipeline.newest_spreads` gives them, one line a pair.

    ``titles`` names Kalshi markets; without it their tickers stand.
    """
    grid = Table(
        title="Newest spreads, dollars per contract (A: YES on Kalshi, opposite on Polymarket; B: the reverse)",
        title_justify="left",
    )
    for name in ("market", "Kalshi bid / ask", "Polymarket bid / ask", "A: gap - fees = net", "B: gap - fees = net"):
        if name == "market":
            grid.add_column(name, no_wrap=True, overflow="ellipsis")
        else:
            grid.add_column(name, justify="right")
    grid.add_column("trade it?")
    for row in rows:
        ticker = row["kalshi_market_id"]
        grid.add_row(
            (titles or {}).get(ticker, ticker),
            _two(row["kalshi_bid"], row["kalshi_ask"]),
            _two(row["polymarket_bid"], row["polymarket_ask"]),
            _sum(row, "yes_kalshi"),
            _sum(row, "yes_polymarket"),
            "yes" if row["trusted"] else row["reason"].replace(", ", "\n"),
        )
    return grid


def _sum(row: Mapping[str, Any], direction: str) -> str:
    gap, fees, net = (row[f"{figure}_{direction}"] for figure in ("gap", "fees", "net"))
    if gap is None:
        return "unknown"
    if fees is None:
        return f"{gap:.4f}, fees unknown"
    return f"{gap:.4f} - {fees:.4f} = {net:.4f}"


def _two(bid: Decimal | None, ask: Decimal | None) -> str:
    return f"{_price(bid)} / {_price(ask)}"


def _price(price: Decimal | None) -> str:
    return "none" if price is None else f"{price.normalize():f}"
