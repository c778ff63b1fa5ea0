"""Tables for terminals that more than one command prints."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from rich.markup import escape
from rich.table import Table

from arb_pipeline.alerting.positions import Position
from arb_pipeline.alerting.rules import Alerting, Email, Rule
from arb_pipeline.storage.books import BookAt, BookLevel, iso, plain
from arb_pipeline.venues.base import Account

__all__ = [
    "account_document",
    "account_grids",
    "alerts_document",
    "alerts_grids",
    "book_grid",
    "book_note",
    "spread_grid",
]


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


def alerts_document(
    alerting: Alerting, positions: Sequence[Position], troubles: Mapping[str, str], unknown: Collection[Position] = ()
) -> dict[str, Any]:
    """An alerts' file for JSON, with what is wrong with its channels by name; secrets are not in it.

    ``unknown`` are the positions whose market the catalogue does not know.
    """
    return {
        "rules": [rule.model_dump(mode="json") for rule in alerting.rules],
        "channels": [
            {**channel.model_dump(mode="json", by_alias=True), "trouble": troubles.get(channel.name, "")}
            for channel in alerting.channels
        ]
        + [{"name": name, "trouble": trouble} for name, trouble in _of_no_channel(alerting, troubles).items()],
        "positions": [
            {**position.model_dump(mode="json"), "in_catalogue": position not in unknown} for position in positions
        ],
    }


def alerts_grids(
    alerting: Alerting, positions: Sequence[Position], troubles: Mapping[str, str], unknown: Collection[Position] = ()
) -> list[Table]:
    """Rules, channels and positions of an alerts' file, and which of these are in no catalogue."""
    rules, channels, held = (Table(title=title, title_justify="left") for title in ("Rules", "Channels", "Positions"))
    for name in ("name", "kind", "active", "tells", "evaluated", "to"):
        rules.add_column(name, overflow="fold")
    for rule in alerting.rules:
        active = "yes" if rule.is_active else "paused"
        where = "live" if getattr(rule, "over", "tables") == "live" else "over tables"
        to = ", ".join(rule.notify) or "every channel"
        rules.add_row(escape(rule.name), rule.kind, active, escape(_asked(rule)), where, escape(to))
    for name in ("name", "kind", "goes to", "check"):
        channels.add_column(name, overflow="fold")
    for channel in alerting.channels:
        if isinstance(channel, Email):
            to = f"{', '.join(channel.to)} by {channel.host}:{channel.port}, TLS: {channel.tls}"
        else:
            to = f"the address in {channel.url_env or channel.url_file}"
        channels.add_row(escape(channel.name), channel.kind, escape(to), escape(troubles.get(channel.name, "ok")))
    for name, trouble in _of_no_channel(alerting, troubles).items():
        channels.add_row(name, "webhook", "ARB_ALERT_WEBHOOK_URL", escape(trouble))
    for name in ("position", "contracts", "entry", "catalogue"):
        held.add_column(name, overflow="fold")
    for position in positions:
        known = "unknown: no rule looks at it" if position in unknown else "ok"
        held.add_row(escape(position.subject), _plain(position.size), _plain(position.entry), known)
    return [rules, channels, *([held] if positions else [])]


def _of_no_channel(alerting: Alerting, troubles: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with a channel that the file does not describe: ``default``."""
    described = {channel.name for channel in alerting.channels}
    return {name: trouble for name, trouble in troubles.items() if name not in described}


def _asked(rule: Rule) -> str:
    """What a rule asks for, in the words of its file."""
    general = {"name", "kind", "is_active", "notify", "over"}
    given = rule.model_dump(mode="json", exclude=general, exclude_unset=True)
    # What it asks for first, and then for how long.
    ordered = sorted(given.items(), key=lambda item: item[0] in {"for_seconds", "repeat_after"})
    return ", ".join(
        f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in ordered
    )


def _grid(title: str, first: str, *others: str) -> Table:
    grid = Table(title=title, title_justify="left")
    grid.add_column(first, overflow="fold")
    for name in others:
        grid.add_column(name, justify="right")
    return grid


def _plain(number: Decimal | None) -> str:
    return "" if number is None else f"{number.normalize():f}"


def evaluation_grids(measured: Mapping[str, Any]) -> list[Table]:
    """Figures of a matcher overall and by kind of question, and its confusion, from the document of an evaluation."""
    figures = _grid(
        "The matcher on labelled pairs", "kind", "pairs", "called the same", "right", "precision (95 %)", "recall",
        "inverted wrongly", "among 20 candidates", "auto, right", "implications, right",
    )  # fmt: skip
    rows = {"overall": measured["overall"], "held out": measured["held_out"], **measured["families"]}
    for name, row in rows.items():
        figures.add_row(
            name.replace("_", " "),
            f"{row['pairs']:,}",
            f"{row['called']:,}",
            f"{row['correct']:,}",
            f"{row['precision']:.3f} ({row['precision_low']:.2f} to {row['precision_high']:.2f})",
            f"{row['recall']:.3f} of {row['true_pairs']:,}",
            f"{row['inversion_errors']:,}",
            f"{row['candidate_recall_at_20']:.3f}",
            f"{row['auto']:,}, {row['auto_correct']:,}",
            f"{row['implications_claimed']:,}, {row['implications_correct']:,}",
        )
    called = sorted({name for row in measured["confusion"].values() for name in row})
    confusion = _grid("Label (rows) and what it was called", "label", *called)
    for label, row in measured["confusion"].items():
        confusion.add_row(label, *(f"{row[name]:,}" if name in row else "" for name in called))
    return [figures, confusion]


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


def book_grid(book: BookAt, depth: int) -> Table:
    """The best levels of a past book, YES terms, dollars and contracts."""
    grid = Table(title=f"{book.venue} {escape(book.market_id)}", title_justify="left")
    for name in ("bid size", "bid", "ask", "ask size"):
        grid.add_column(name, justify="right", min_width=9)
    for row in range(min(depth, max(len(book.bids), len(book.asks)))):
        bid_price, bid_size = _level(book.bids, row)
        ask_price, ask_size = _level(book.asks, row)
        grid.add_row(bid_size, f"[green]{bid_price}[/]", f"[red]{ask_price}[/]", ask_size)
    return grid


def book_note(book: BookAt) -> str:
    """Whether a past book is to be trusted, and what it is made of, as markup."""
    state = "in sync" if book.in_sync else f"[bold red]NOT to be trusted:[/] {escape(book.doubt)}"
    return (
        f"{iso(book.at_ns)}, {state}\n{len(book.bids):,} bids and {len(book.asks):,} asks in all; newest row "
        f"{iso(book.recv_ns)}, {'pushed' if book.source == 'ws' else 'polled'} on {escape(book.connection_id)}"
    )


def _level(levels: Sequence[BookLevel], row: int) -> tuple[str, str]:
    """Price and size, empty below the last level."""
    return (plain(levels[row].price), plain(levels[row].size)) if row < len(levels) else ("", "")
