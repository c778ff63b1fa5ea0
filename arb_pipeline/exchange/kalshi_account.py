"""The own account on the exchange's Kalshi: a small portfolio, its REST calls, and messages made on demand.

Facts: Kalshi AsyncAPI 2.0.0 and OpenAPI 3.34. A fill moves cash and position and is told on three channels, as the
venue does: ``user_order``, ``fill``, ``market_position``. Every other private message is sent as asked for, completed
to what the specification requires.
"""

import uuid
from collections.abc import Callable, Collection, Mapping
from typing import Final

from arb_pipeline.exchange.markets import KalshiMarket, dollars, quantity, rfc3339
from arb_pipeline.exchange.paging import page, page_newest_first
from arb_pipeline.exchange.source import Json
from arb_pipeline.units import ONE, PRICE_SCALE, UnitError, format_fixed, parse_price, parse_size

__all__ = ["ACCOUNT_CHANNEL_OF_TYPE", "AccountError", "KalshiAccount"]

_COMMUNICATIONS: Final = (
    "rfq_created",
    "rfq_deleted",
    "quote_created",
    "quote_accepted",
    "quote_executed",
    "rfq_batch_created",
    "rfq_batch_deleted",
    "rfq_batch_best_quotes",
    "rfq_batch_executed",
    "batch_quote_created",
    "batch_quote_accepted",
    "batch_quote_executed",
)

ACCOUNT_CHANNEL_OF_TYPE: Final[Mapping[str, str]] = {
    "fill": "fill",
    "user_order": "user_orders",
    "market_position": "market_positions",
    "order_group_updates": "order_group_updates",
    **dict.fromkeys(_COMMUNICATIONS, "communications"),
}
"""Channel of each private message."""

_NOT_OVER_REST: Final = frozenset({"ts_ms", "purchased_side", "post_position_fp", "client_order_id"})
_START_CASH: Final = 2_500 * 10**6
_FEE_RATE: Final = 7
"""Hundredths of price times (1 - price) times contracts: the general taker fee."""

Publish = Callable[[str, str, Json], None]


class AccountError(ValueError):
    """A message that cannot be made; the words say which field and what to give instead."""


class KalshiAccount:
    """One account, which only ever buys: what it paid adds up to the cost of what it holds, and nothing is realised.

    Args:
        markets: by ticker; the first one that is listed is held from the start.
        hidden: tickers not listed yet.
        now_ms: the venue's clock.
        publish: sends a private message (type, ticker, ``msg``) to those subscribed.
    """

    def __init__(
        self, markets: Mapping[str, KalshiMarket], hidden: Collection[str], now_ms: Callable[[], int], publish: Publish
    ) -> None:
        self._markets = markets
        self._first = next((ticker for ticker in markets if ticker not in hidden), "")
        self._now_ms = now_ms
        self._publish = publish
        self._user_id = _uuid("user")
        self._cash = _START_CASH
        self._number = 0
        self._fills: list[tuple[int, Json]] = []
        self._positions: dict[str, dict[str, int]] = {}
        if self._first:
            self._fill({"market_ticker": self._first, "yes_price_dollars": "0.4200", "count_fp": "10.00"})

    # --- REST ----------------------------------------------------------------------------------------------

    def balance(self) -> Json:
        """``GET /portfolio/balance``: cents beside exact dollars."""
        worth = sum(position["cost"] for position in self._positions.values())
        cash = _money(self._cash // 100 * 100, 4)
        return {
            "balance": self._cash // 10**4,
            "balance_dollars": cash,
            "portfolio_value": worth // 10**4,
            "updated_ts": self._now_ms() // 1000,
            "balance_breakdown": [{"exchange_index": 0, "balance": cash}],
        }

    def positions(self, ticker: str, cursor: str, limit: int) -> Json:
        """``GET /portfolio/positions``.

        Raises:
            CursorError: if the cursor is of another listing.
        """
        chosen = [name for name in self._positions if not ticker or name == ticker]
        names, following = page(chosen, cursor, limit, {"positions": 1, "ticker": ticker})
        markets = [self._market_position(name) for name in names]
        events: dict[str, Json] = {}
        for name, record in zip(names, markets, strict=True):
            event = self._markets[name].record["event_ticker"]
            # One held market of an event is the common case; the figures of more are not added up.
            events.setdefault(
                event,
                {
                    "event_ticker": event,
                    "total_cost_dollars": record["total_traded_dollars"],
                    "total_cost_shares_fp": record["position_fp"].lstrip("-"),
                    "event_exposure_dollars": record["market_exposure_dollars"],
                    "realized_pnl_dollars": record["realized_pnl_dollars"],
                    "fees_paid_dollars": record["fees_paid_dollars"],
                },
            )
        return {"market_positions": markets, "event_positions": list(events.values()), "cursor": following}

    def fills(self, ticker: str, since_s: int, until_s: int, cursor: str, limit: int) -> Json:
        """``GET /portfolio/fills``, newest first.

        Raises:
            CursorError: if the cursor is of another listing.
        """
        wanted = set(ticker.split(",")) if ticker else None
        chosen = [
            (number, fill)
            for number, fill in reversed(self._fills)
            if (wanted is None or fill["ticker"] in wanted) and since_s <= fill["ts"] <= until_s
        ]
        filters = {"fills": 1, "ticker": ticker, "since": since_s, "until": until_s}
        items, following = page_newest_first(chosen, lambda numbered: numbered[0], cursor, limit, filters)
        return {"fills": [fill for _, fill in items], "cursor": following}

    # --- messages ------------------------------------------------------------------------------------------

    def inject(self, kind: str, given: Json) -> list[str]:
        """Make something happen; the types of the messages sent, in order.

        Raises:
            AccountError: if there is no such message, or a field of it makes no sense.
        """
        if kind not in ACCOUNT_CHANNEL_OF_TYPE:
            raise AccountError(f"type {kind!r} is no private message; there are {', '.join(ACCOUNT_CHANNEL_OF_TYPE)}")
        given = {"market_ticker": given.get("ticker") or self._first, **given}
        if given["market_ticker"] not in self._markets:
            raise AccountError(f"market_ticker {given['market_ticker']!r} is unknown; give a listed market's")
        if kind == "fill":
            return self._fill(given)
        msg = self._completed(kind, given)
        self._publish(kind, given["market_ticker"], msg)
        return [kind]

    def _fill(self, given: Json) -> list[str]:
        """Fill an order of the account and tell it on three channels."""
        ticker = given["market_ticker"]
        outcome = given.get("outcome_side", "yes")
        if outcome not in {"yes", "no"}:
            raise AccountError(f"outcome_side {outcome!r} is neither yes nor no")
        try:
            price = parse_price(str(given.get("yes_price_dollars", "0.5000")))
            size = parse_size(str(given.get("count_fp", "1.00")))
        except UnitError as error:
            raise AccountError(str(error)) from error
        if not 0 < price < ONE or size <= 0 or size % 10_000:
            raise AccountError("yes_price_dollars must lie within 0 and 1, count_fp must be positive, of two decimals")
        self._number += 1
        ts_ms = self._now_ms()
        fee = -(-_FEE_RATE * size * price * (PRICE_SCALE - price) // (100 * PRICE_SCALE**2))
        yes = outcome == "yes"
        paid = size * (price if yes else PRICE_SCALE - price) // PRICE_SCALE
        position = self._positions.setdefault(ticker, dict.fromkeys(("size", "cost", "traded", "fees", "volume"), 0))
        position["size"] += size if yes else -size
        position["cost"] += paid
        position["traded"] += paid
        position["fees"] += fee
        position["volume"] += size
        self._cash -= paid + fee
        direction = {"outcome_side": outcome, "book_side": "bid" if yes else "ask", "side": outcome}
        ids = {
            "order_id": given.get("order_id") or _uuid(f"order {self._number}"),
            "client_order_id": given.get("client_order_id") or f"own-{self._number}",
        }
        trade_id = given.get("trade_id") or _uuid(f"trade {self._number}")
        count, fees = quantity(size), _money(fee, 6)
        fill = {
            "trade_id": trade_id,
            **ids,
            "market_ticker": ticker,
            "exchange_index": 0,
            "is_taker": True,
            **direction,
            "action": "buy",
            "purchased_side": outcome,
            "yes_price_dollars": dollars(price),
            "count_fp": count,
            "fee_cost": fees,
            "post_position_fp": _signed(position["size"]),
            "ts": ts_ms // 1000,
            "ts_ms": ts_ms,
        }
        record = {key: value for key, value in fill.items() if key not in _NOT_OVER_REST}
        own = {"fill_id": trade_id, "ticker": ticker, "no_price_dollars": dollars(ONE - price)}
        self._fills.append((self._number, {**record, **own, "created_time": rfc3339(ts_ms)}))
        order = {"status": "executed", "yes_price_dollars": dollars(price), "initial_count_fp": count}
        done = {"fill_count_fp": count, "taker_fill_cost_dollars": _money(paid, 6), "taker_fees_dollars": fees}
        told = {
            "user_order": self._completed(
                "user_order",
                {"ticker": ticker, **ids, **direction, **order, **done, "last_updated_ts_ms": ts_ms},
            ),
            "fill": fill,
            "market_position": self._completed("market_position", {"market_ticker": ticker}),
        }
        for kind, msg in told.items():
            self._publish(kind, ticker, msg)
        return list(told)

    def _market_position(self, ticker: str) -> Json:
        position = self._positions[ticker]
        return {
            "ticker": ticker,
            "exchange_index": 0,
            "position_fp": _signed(position["size"]),
            "total_traded_dollars": _money(position["traded"], 6),
            "market_exposure_dollars": _money(position["cost"], 6),
            "realized_pnl_dollars": "0.000000",
            "fees_paid_dollars": _money(position["fees"], 6),
            "last_updated_ts": rfc3339(self._now_ms()),
        }

    def _completed(self, kind: str, given: Json) -> Json:
        """The given fields, after those that the specification asks for and nobody gave."""
        ticker = given.get("market_ticker") or given.get("ticker")
        base = self._template(kind, str(ticker))
        own = {key: value for key, value in given.items() if key in base or key not in {"ticker", "market_ticker"}}
        return {**base, **own}

    def _template(self, kind: str, ticker: str) -> Json:
        ms = self._now_ms()
        at = rfc3339(ms)
        if kind == "user_order":
            return {
                "order_id": _uuid("resting order"),
                "user_id": self._user_id,
                "ticker": ticker,
                "exchange_index": 0,
                "status": "resting",
                "side": "yes",
                "is_yes": True,
                "outcome_side": "yes",
                "book_side": "bid",
                "yes_price_dollars": "0.3500",
                "fill_count_fp": "0.00",
                "remaining_count_fp": "0.00",
                "initial_count_fp": "10.00",
                "taker_fill_cost_dollars": "0.000000",
                "maker_fill_cost_dollars": "0.000000",
                "taker_fees_dollars": "0.000000",
                "maker_fees_dollars": "0.000000",
                "client_order_id": "own-resting",
                "created_time": at,
                "created_ts_ms": ms,
            }
        if kind == "market_position":
            held = self._positions.get(ticker, dict.fromkeys(("size", "cost", "fees", "volume"), 0))
            return {
                "user_id": self._user_id,
                "market_ticker": ticker,
                "position_fp": _signed(held["size"]),
                "position_cost_dollars": _money(held["cost"], 6),
                "realized_pnl_dollars": "0.000000",
                "fees_paid_dollars": _money(held["fees"], 6),
                "position_fee_cost_dollars": _money(held["fees"], 6),
                "volume_fp": quantity(held["volume"]),
            }
        if kind == "order_group_updates":
            return {"event_type": "created", "order_group_id": "og-1", "contracts_limit_fp": "100.00", "ts_ms": ms}
        return _communication(kind, ticker, at)


def _communication(kind: str, ticker: str, at: str) -> Json:
    """What a message of the ``communications`` channel requires."""
    users = {"quote_creator_id": "maker-1", "rfq_creator_id": "self-1"}
    quote = {"quote_id": "quote-1", "rfq_id": "rfq-1", **users, "market_ticker": ticker}
    bids = {"yes_bid_dollars": "0.3500", "no_bid_dollars": "0.6100"}
    child: Json = {"rfq_id": "rfq-1", "market_ticker": ticker, **bids}
    batch = {"batch_quote_id": "batch-quote-1", "rfq_batch_id": "batch-1"}
    ended: Json = {"executed_rfq_ids": ["rfq-1"], "failed_rfq_ids": [], "executed_ts": at, "close_reason": "executed"}
    own: Json = {"id": "rfq-1", "creator_id": "self-1", "market_ticker": ticker}
    templates: dict[str, Json] = {
        "rfq_created": {**own, "contracts_fp": "100.00", "created_ts": at},
        "rfq_deleted": {**own, "deleted_ts": at},
        "quote_created": {**quote, **bids, "created_ts": at},
        "quote_accepted": {**quote, **bids, "accepted_side": "yes", "contracts_accepted_fp": "50.00"},
        "quote_executed": {
            **quote,
            "order_id": _uuid("quoted order"),
            "client_order_id": "own-quoted",
            "executed_ts": at,
        },
        "rfq_batch_created": {
            "id": "batch-1",
            "creator_id": "self-1",
            "created_ts": at,
            "legs": [{"event_ticker": ticker, "market_ticker": ticker, "side": "yes"}],
            "rfqs": [
                {
                    "id": "rfq-1",
                    "market_ticker": ticker,
                    "event_ticker": ticker,
                    "target_cost_dollars": "5.0000",
                    "mve_collection_ticker": "KXMVE",
                    "leg_indices": [0],
                }
            ],
        },
        "rfq_batch_deleted": {"id": "batch-1", "creator_id": "self-1", "rfq_ids": ["rfq-1"], "deleted_ts": at},
        "rfq_batch_best_quotes": {
            "rfq_batch_id": "batch-1",
            "version": 1,
            "updated_ts": at,
            "yes_complete": True,
            "no_complete": True,
            "rfqs": [child],
        },
        "rfq_batch_executed": {"rfq_batch_id": "batch-1", "rfq_creator_id": "self-1", **ended},
        "batch_quote_created": {
            **batch,
            "quote_creator_id": "maker-1",
            "created_ts": at,
            "quotes": [{"quote_id": "quote-1", **child}],
        },
        "batch_quote_accepted": {
            **batch,
            **users,
            "accepted_side": "yes",
            "accepted_ts": at,
            "quotes": [{"quote_id": "quote-1", **child}],
        },
        "batch_quote_executed": {**batch, "rfq_creator_id": "self-1", **ended},
    }
    return templates[kind]


def _signed(size: int) -> str:
    return ("-" if size < 0 else "") + quantity(abs(size))


def _money(millionths: int, places: int) -> str:
    return format_fixed(millionths, 6, places)


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"account {name}"))
