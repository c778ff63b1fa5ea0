"""A market's candlesticks, kept by the minute from what its book and trades did on the exchange.

Sparse as the venue's are: a minute in which neither the top of the book nor a trade moved has none.
"""

from collections import deque
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Self

from arb_pipeline.units import ONE

__all__ = ["Candle", "Candles", "Ohlc"]

_KEPT_MINUTES = 7 * 24 * 60
_MINUTE_S = 60

_Top = tuple[int | None, int | None]


@dataclass(slots=True)
class Ohlc:
    """First, lowest, highest and last price of a period, 1e-4 dollars."""

    open: int
    low: int
    high: int
    close: int

    @classmethod
    def at(cls, price: int) -> Self:
        """A period that has seen one price."""
        return cls(price, price, price, price)

    def take(self, price: int) -> None:
        """A further price."""
        self.low, self.high, self.close = min(self.low, price), max(self.high, price), price

    def extend(self, later: "Ohlc") -> None:
        """A later part of the same period."""
        self.low, self.high = min(self.low, later.low), max(self.high, later.high)
        self.close = later.close


@dataclass(slots=True)
class Candle:
    """One period.

    Attributes:
        end_ts: its inclusive end, seconds.
        bid, ask: best YES bid and ask, from what stood when the period began; an empty side is 0 or 1 dollar.
        price: traded YES prices, None without a trade.
        volume: contracts traded, 1e-6.
        turnover: the sum of price times size, for the mean.
        previous: last traded price before the period, None if there was none.
    """

    end_ts: int
    bid: Ohlc
    ask: Ohlc
    price: Ohlc | None = None
    volume: int = 0
    turnover: int = 0
    previous: int | None = None

    @property
    def last_price(self) -> int | None:
        """Last traded price up to the end."""
        return self.price.close if self.price else self.previous

    def extend(self, later: "Candle") -> None:
        """A later part of the same period."""
        self.bid.extend(later.bid)
        self.ask.extend(later.ask)
        if self.price is None:
            self.price = deepcopy(later.price)
        elif later.price is not None:
            self.price.extend(later.price)
        self.volume += later.volume
        self.turnover += later.turnover


@dataclass(slots=True)
class Candles:
    """The minutes of one market, oldest first."""

    _minutes: deque[Candle] = field(default_factory=lambda: deque(maxlen=_KEPT_MINUTES))

    def quote(self, ts_ms: int, before: _Top, after: _Top) -> None:
        """The best prices changed."""
        minute = self._minute(ts_ms, before)
        bid, ask = _shown(after)
        minute.bid.take(bid)
        minute.ask.take(ask)

    def trade(self, ts_ms: int, price: int, size: int, standing: _Top) -> None:
        """A trade was printed while these best prices stood."""
        minute = self._minute(ts_ms, standing)
        if minute.price is None:
            minute.price = Ohlc.at(price)
        minute.price.take(price)
        minute.volume += size
        minute.turnover += price * size

    def between(self, start_ts: int, end_ts: int, minutes: int) -> list[Candle]:
        """Candles of so many minutes that end in ``[start_ts, end_ts]``."""
        whole = _joined(self._minutes, minutes * _MINUTE_S)
        return [candle for candle in whole if start_ts <= candle.end_ts <= end_ts]

    def latest_before(self, start_ts: int, minutes: int) -> Candle | None:
        """The newest candle that ends before ``start_ts``."""
        return next(iter(self.between(0, start_ts - 1, minutes)[-1:]), None)

    def _minute(self, ts_ms: int, standing: _Top) -> Candle:
        """The candle of a moment; the venue's clock may step back, and then the newest one goes on."""
        end_ts = _end(-(-ts_ms // 1000), _MINUTE_S)
        last = self._minutes[-1] if self._minutes else None
        if last is not None and end_ts <= last.end_ts:
            return last
        bid, ask = _shown(standing)
        minute = Candle(end_ts, Ohlc.at(bid), Ohlc.at(ask), previous=last.last_price if last else None)
        self._minutes.append(minute)
        return minute


def _joined(minutes: Iterable[Candle], period_s: int) -> list[Candle]:
    """Minutes put together to longer periods; copies, so that nobody changes the minutes."""
    joined: list[Candle] = []
    for minute in minutes:
        end_ts = _end(minute.end_ts, period_s)
        if joined and joined[-1].end_ts == end_ts:
            joined[-1].extend(minute)
        else:
            joined.append(deepcopy(minute))
            joined[-1].end_ts = end_ts
    return joined


def _end(ts: int, period_s: int) -> int:
    """The inclusive end of the period that a second belongs to."""
    return -(-ts // period_s) * period_s


def _shown(top: _Top) -> tuple[int, int]:
    bid, ask = top
    return bid or 0, ONE if ask is None else ask
