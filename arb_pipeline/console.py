"""Tables for terminals that more than one command prints."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from rich.table import Table

from arb_pipeline.venues.base import Account

__all__ = ["account_document", "account_grids", "spread_grid"]


def account_document(account: Account) -> dict[str, Any]:
    """An account for JSON: dollars, prices and sizes as exact text."""
    return {
        "cash": account.cash,
        "portfolio_value": account.portfolio_value,
        "positions": [asdict(position) for position in account.positions],
        "fills": [asdict(fill) for fill in account.fills],
        "left_out": [anomaly.detail for anomaly in account.anomalies],
    }


def account_grids(account: Account) -> list[Table]:
    """Balance, positions and fills, dollars and contracts, exact."""
    balance = _grid(f"{account.venue}: balance, dollars", "cash", "portfolio value")
    balance.add_row(f"{account.cash:,f}", f"{account.portfolio_value:,f}")
    positions = _grid("Positions (negative: NO)", "market", "contracts", "cost", "realised", "fees")
    for position in account.positions:
        figures = (position.size, position.cost, position.realized_pnl, position.fees)
        positions.add_row(position.market_id, *map(_plain, figures))
    fills = _grid("Fills, in YES terms", "market", "at", "side", "price", "contracts", "fee", "taker")
    for fill in account.fills:
        fills.add_row(
            fill.market_id,
            "" if fill.at is None else f"{fill.at:%Y-%m-%d %H:%M:%S}",
            fill.side or "",
            _plain(fill.price),
            _plain(fill.size),
            _plain(fill.fee),
            "" if fill.is_taker is None else "yes" if fill.is_taker else "no",
        )
    return [balance, positions, fills]


def _grid(title: str, first: str, *others: str) -> Table:
    grid = Table(title=title, title_justify="left")
    grid.add_column(first, overflow="fold")
    for name in others:
        grid.add_column(name, justify="right")
    return grid


def _plain(number: Decimal | None) -> str:
    return "" if number is None else f"{number.normalize():f}"


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
    return _plain(price) or "none"
