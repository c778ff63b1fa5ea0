"""The handlers that come with the package. Each is an ordinary handler: yours can do what they do."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from arb_pipeline.handlers.api import HandlerContext, TimePassed, on
from arb_pipeline.model import AccountEvent, BookSnapshot, GapClosed, GapOpened, Quote
from arb_pipeline.units import format_plain, parse_price, parse_size, size_decimal

__all__ = ["PositionMonitor", "PriceAlert", "TightSpread"]

_Amount = Annotated[Decimal, Field(ge=0)]


class PriceAlert:
    """Alerts when a market's price reaches a level; again only after it went back by a margin.

    The first price after the start only tells on which side the market is. Books in doubt are not looked at.

    Args:
        level: dollars.
        direction: ``up`` alerts when the price comes from below, ``down`` from above.
        price: which price of YES: the best bid, the best ask, or the middle of both.
        margin: dollars that the price must go back beyond the level before it can alert again.
    """

    def __init__(
        self,
        level: Annotated[Decimal, Field(ge=0, le=1)],
        direction: Literal["up", "down"] = "up",
        price: Literal["bid", "ask", "mid"] = "mid",
        margin: _Amount = Decimal("0.01"),
    ) -> None:
        # Everything doubled, so that the middle is a whole number, too; seen from above for ``down``.
        self._sign = 1 if direction == "up" else -1
        self._level = self._sign * 2 * parse_price(format(level, "f"))
        self._margin = 2 * parse_price(format(margin, "f"))
        self._direction = direction
        self._price = price
        self._armed: dict[str, bool] = {}

    @on("snapshot", "quote", "gap_closed")
    def look(self, event: BookSnapshot | Quote | GapClosed, context: HandlerContext) -> None:
        """Compare the market's price with the level."""
        book = context.book
        if book is None or not context.in_sync:
            return
        bid, ask = book.best_bid, book.best_ask
        first, second = {"bid": (bid, bid), "ask": (ask, ask), "mid": (bid, ask)}[self._price]
        if first is None or second is None:
            return
        price, market = self._sign * (first + second), event.market_id
        armed = self._armed.get(market)
        if price >= self._level:
            self._armed[market] = False
            if armed:
                told = format_plain((first + second) * 5, 5)
                level = format_plain(abs(self._level) // 2, 4)
                context.alert(
                    f"{market}: {self._price} {told} reached {level} ({self._direction})",
                    price=told,
                    level=level,
                    direction=self._direction,
                )
        elif armed is None or price <= self._level - self._margin:
            self._armed[market] = True


class TightSpread:
    """Alerts when a market's spread has stayed at or below a width, with enough size on both sides, for a while.

    One alert for each time that this begins; a doubt of the book ends it.

    Args:
        spread: widest spread, dollars.
        seconds: how long it must last.
        min_size: contracts at the best bid and at the best ask.
    """

    def __init__(self, spread: _Amount, seconds: _Amount = Decimal(0), min_size: _Amount = Decimal(0)) -> None:
        self._spread = parse_price(format(spread, "f"))
        self._lasting_ns = int(seconds * 10**9)
        self._min_size = parse_size(format(min_size, "f"))
        self._since: dict[tuple[str, str], int] = {}
        self._alerted: set[tuple[str, str]] = set()

    @on("snapshot", "quote", "gap_opened", "gap_closed")
    def look(self, event: BookSnapshot | Quote | GapOpened | GapClosed, context: HandlerContext) -> None:
        """Note whether the market is tight now."""
        key = (context.venue, event.market_id)
        if self._tight(context):
            self._since.setdefault(key, context.at_ns)
            self._alert(key, context)
        else:
            self._since.pop(key, None)
            self._alerted.discard(key)

    @on("time_passed")
    def wait(self, event: TimePassed, context: HandlerContext) -> None:  # noqa: ARG002 - the context has the time, too
        """A spread that stays makes no event: the time alone tells that it lasted."""
        for key in [key for key in self._since if key[0] == context.venue and key not in self._alerted]:
            self._alert(key, context)

    def _tight(self, context: HandlerContext) -> bool:
        book = context.book
        if book is None or not context.in_sync:
            return False
        bid, bid_size, ask, ask_size = book.top()
        if bid is None or ask is None or bid_size is None or ask_size is None:
            return False
        return ask - bid <= self._spread and min(bid_size, ask_size) >= self._min_size

    def _alert(self, key: tuple[str, str], context: HandlerContext) -> None:
        lasted = context.at_ns - self._since[key]
        if key in self._alerted or lasted < self._lasting_ns:
            return
        self._alerted.add(key)
        spread = format_plain(self._spread, 4)
        context.alert(
            f"{key[1]}: spread at most {spread} for {lasted / 1e9:.1f} s",
            market_id=key[1],
            spread=spread,
            since_ns=self._since[key],
        )


class PositionMonitor:
    """Follows the own positions: alerts on fills, and when a position grows beyond a limit.

    It hears of the own account only while that is captured (``ARB_ACCOUNT``). The venue's position messages are the
    truth; fills in between are added to the last one.

    Args:
        max_contracts: largest position, YES or NO; None: no limit. One alert each time that it is passed.
        fills: whether each fill alerts.
    """

    def __init__(self, max_contracts: _Amount | None = None, fills: bool = True) -> None:
        self._limit = None if max_contracts is None else parse_size(format(max_contracts, "f"))
        self._fills = fills
        self._seen: set[str] = set()
        self._above: set[tuple[str, str]] = set()
        self.positions: dict[tuple[str, str], int] = {}
        """1e-6 contracts by (venue, market); negative: NO."""

    @on("account")
    def follow(self, event: AccountEvent, context: HandlerContext) -> None:
        """Take a fill or a position; other events of the account do not change one."""
        if event.kind not in {"fill", "position"} or event.market_id is None or event.size is None:
            return
        key = (event.venue, event.market_id)
        if event.kind == "position":
            self.positions[key] = event.size
        else:
            if event.event_id in self._seen:
                return  # venues tell a fill again after a reconnect
            self._seen.add(event.event_id)
            self.positions[key] = self.positions.get(key, 0) + (event.size if event.side == "bid" else -event.size)
            if self._fills:
                size, price = format_plain(event.size, 6), format_plain(event.price or 0, 9)
                context.alert(
                    f"{event.market_id}: filled {event.side} {size} at {price}",
                    side=event.side,
                    size=size,
                    price=price,
                    position=str(size_decimal(self.positions[key])),
                )
        self._judge(key, context)

    def _judge(self, key: tuple[str, str], context: HandlerContext) -> None:
        held = self.positions[key]
        if self._limit is None or abs(held) <= self._limit:
            self._above.discard(key)
        elif key not in self._above:
            self._above.add(key)
            told, limit = format_plain(held, 6), format_plain(self._limit, 6)
            context.alert(f"{key[1]}: position {told} is beyond {limit}", position=told, limit=limit)
