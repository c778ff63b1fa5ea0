from hypothesis import given
from hypothesis import strategies as st

from arb_pipeline.exchange.candles import Candle, Candles, Ohlc

C = 1_000_000


def test_a_minute_opens_with_what_stood_and_ends_inclusively() -> None:
    candles = Candles()
    candles.quote(60_001, (4_000, 5_000), (4_100, 5_000))
    candles.quote(120_000, (4_100, 5_000), (None, None))
    candles.quote(120_001, (None, None), (4_200, 4_900))
    first, second = candles.between(0, 1_000, 1)
    assert first == Candle(120, Ohlc(4_000, 0, 4_100, 0), Ohlc(5_000, 5_000, 10_000, 10_000))
    assert second == Candle(180, Ohlc(0, 0, 4_200, 4_200), Ohlc(10_000, 4_900, 10_000, 4_900))


def test_quiet_minutes_are_missing_and_the_last_price_goes_on() -> None:
    candles = Candles()
    candles.trade(1_000, 4_000, 2 * C, (3_900, 4_100))
    candles.quote(301_000, (3_900, 4_100), (3_800, 4_100))
    traded, quoted = candles.between(0, 1_000, 1)
    assert (traded.end_ts, traded.price, traded.volume, traded.previous) == (60, Ohlc.at(4_000), 2 * C, None)
    assert (quoted.end_ts, quoted.price, quoted.volume, quoted.previous) == (360, None, 0, 4_000)
    assert candles.latest_before(360, 1) == traded
    assert candles.latest_before(60, 1) is None


def test_a_clock_that_steps_back_opens_no_second_minute() -> None:
    candles = Candles()
    candles.trade(61_000, 4_000, C, (None, None))
    candles.trade(59_000, 4_100, C, (None, None))
    (candle,) = candles.between(0, 1_000, 1)
    assert (candle.end_ts, candle.price) == (120, Ohlc(4_000, 4_000, 4_100, 4_100))


@given(st.lists(st.tuples(st.integers(0, 7_200), st.integers(1, 99), st.integers(1, 9)), min_size=1))
def test_hours_are_their_minutes_and_leave_these_alone(trades: list[tuple[int, int, int]]) -> None:
    candles = Candles()
    trades.sort(key=lambda trade: trade[0])
    for second, price, size in trades:
        candles.trade(1000 * second, price * 100, size * C, (None, None))
    hours = candles.between(0, 10_000, 60)
    for hour in hours:
        own = [(price * 100, size * C) for second, price, size in trades if hour.end_ts - 3_600 < second <= hour.end_ts]
        own = own or [(price * 100, size * C) for second, price, size in trades if second == hour.end_ts - 3_600]
        prices = [price for price, _ in own]
        assert hour.price == Ohlc(prices[0], min(prices), max(prices), prices[-1])
        assert hour.volume == sum(size for _, size in own)
        assert hour.turnover == sum(price * size for price, size in own)
    assert sum(hour.volume for hour in hours) == sum(size * C for _, _, size in trades)
    assert candles.between(0, 10_000, 60) == hours
