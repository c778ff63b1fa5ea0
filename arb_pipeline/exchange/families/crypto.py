"""Crypto prices: above a strike at a minute, and reached at any time before a deadline."""

import random
from collections.abc import Sequence
from datetime import date, timedelta

from arb_pipeline.exchange.drafts import (
    Board,
    KalshiDraft,
    KalshiEventDraft,
    PolymarketDraft,
    PolymarketEventDraft,
    Series,
)
from arb_pipeline.exchange.families.words import (
    day_code,
    eastern,
    end_of,
    long_date,
    month_end,
    slugify,
    us_date,
    yes_no_rules,
)

__all__ = ["crypto"]


_COINS = {
    "BTC": ("Bitcoin", "BRTI", 92_000, 10_000),
    "ETH": ("Ethereum", "ETHUSD_RTI", 3_100, 400),
    "SOL": ("Solana", "SOLUSD_RTI", 160, 30),
}


def crypto(board: Board, rng: random.Random) -> None:
    """Bitcoin, Ethereum and Solana at the next two month ends."""
    near, far = month_end(board.today + timedelta(days=18), 0), month_end(board.today + timedelta(days=18), 1)
    for coin, (name, index, _, _) in _COINS.items():
        source = (f"CF Benchmarks {index}", f"https://www.cfbenchmarks.com/data/indices/{index}")
        board.series[f"KX{coin}D"] = Series(f"KX{coin}D", f"{name} price", "Crypto", "monthly", source=source)
        board.series[f"KX{coin}MAX"] = Series(f"KX{coin}MAX", f"How high will {name} get", "Crypto", source=source)
    for coin in ("BTC", "ETH"):
        _, _, spot, step = _COINS[coin]
        above = [spot - step, spot, spot + step, spot + 2 * step]
        jitter = rng.uniform(-0.03, 0.03)
        for day, prices in ((near, (0.72, 0.52, 0.31, 0.15)), (far, (0.68, 0.50, 0.34, 0.20))):
            for strike, price in zip(above, prices, strict=True):
                board.proposition(_above(coin, strike, day), price + jitter)
            _crypto_above_kalshi(board, coin, day, above)
    _crypto_above_polymarket(board, "BTC", near, [82_000, 102_000, 112_000], "")
    _crypto_below_polymarket(board, "BTC", near, 92_000)
    _crypto_above_polymarket(board, "ETH", near, [2_700, 3_100, 3_500, 3_900], "")
    _crypto_above_polymarket(board, "BTC", far, [82_000, 92_000, 102_000, 112_000], "binance")
    for strike in (82_000, 92_000, 102_000, 112_000):
        board.near_miss(
            _above_ticker("BTC", strike, far), _above_slug("BTC", strike, far), "other source and minute", "related"
        )
    for strike, price in ((2_750, 0.62), (3_150, 0.44), (3_550, 0.29)):
        board.proposition(_above("ETH", strike, far), price)
        board.near_miss(
            _above_ticker("ETH", strike - 50, far),
            _above_slug("ETH", strike, far),
            "other threshold",
            "polymarket_implies_kalshi",
        )
    _crypto_above_polymarket(board, "ETH", far, [2_750, 3_150, 3_550], "")
    for coin, kalshi_day, polymarket_day in (("BTC", near, near), ("ETH", near, near), ("SOL", near, far)):
        _, _, spot, step = _COINS[coin]
        for day, bonus in ((near, 0.0), (far, 0.14)):
            for factor, price in ((2, 0.33), (3, 0.18), (4, 0.08)):
                board.proposition(_touch(coin, spot + factor * step, day), price + bonus)
        _crypto_touch_kalshi(
            board, coin, kalshi_day, [spot + factor * step for factor in (2, 3, 4)][0 if coin == "SOL" else 1 :]
        )
        _crypto_touch_polymarket(board, coin, polymarket_day, [spot + factor * step for factor in (2, 3)])
    board.near_miss(
        _above_ticker("BTC", 112_000, near),
        _touch_slug("BTC", 112_000, near),
        "point vs touch",
        "kalshi_implies_polymarket",
    )
    board.near_miss(
        _above_ticker("ETH", 3_900, near),
        _touch_slug("ETH", 3_900, near),
        "point vs touch",
        "kalshi_implies_polymarket",
    )
    board.near_miss(
        _touch_ticker("BTC", 132_000, near),
        _touch_slug("BTC", 122_000, near),
        "other threshold",
        "kalshi_implies_polymarket",
    )
    for strike in (220, 250):
        board.near_miss(
            _touch_ticker("SOL", strike, near),
            _touch_slug("SOL", strike, far),
            "other deadline",
            "kalshi_implies_polymarket",
        )


def _above(coin: str, strike: int, day: date) -> str:
    return f"{coin}:above:{strike}:{day}"


def _touch(coin: str, strike: int, day: date) -> str:
    return f"{coin}:touch:{strike}:{day}"


def _above_ticker(coin: str, strike: int, day: date) -> str:
    return f"KX{coin}D-{day_code(day)}17-T{strike}"


def _above_slug(coin: str, strike: int, day: date) -> str:
    return f"{_COINS[coin][0].lower()}-above-{strike}-on-{day:%B}-{day.day}-{day.year}".lower()


def _touch_ticker(coin: str, strike: int, day: date) -> str:
    return f"KX{coin}MAX-{day_code(day)}-{strike}"


def _touch_slug(coin: str, strike: int, day: date) -> str:
    return f"will-{_COINS[coin][0]}-reach-{strike}-by-{day:%B}-{day.day}-{day.year}".lower()


def _crypto_above_kalshi(board: Board, coin: str, day: date, strikes: Sequence[int]) -> None:
    name, index, _, _ = _COINS[coin]
    at = eastern(day, 17)
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"KX{coin}D-{day_code(day)}17",
            series=f"KX{coin}D",
            title=f"{name} price on {us_date(day)} at 5pm {at:%Z}?",
            sub_title=f"On {us_date(day)}",
            close=at,
            occurrence=at,
            markets=tuple(
                KalshiDraft(
                    ticker=_above_ticker(coin, strike, day),
                    proposition=_above(coin, strike, day),
                    title=f"Will the price of {name} be above ${strike:,} on {us_date(day)} at 5pm {at:%Z}?",
                    yes_title=f"Above ${strike:,}",
                    rules=f"If the simple average of the sixty seconds of CF Benchmarks' {name} Real-Time Index "
                    f"({index}) before 5 PM {at:%Z} is above {strike} at 5 PM {at:%Z} on {long_date(day)}, then the "
                    "market resolves to Yes.",
                    rules_secondary="Not all cryptocurrency price data is the same. The only source that counts is "
                    f"the {index} published by CF Benchmarks.",
                    strike={"strike_type": "greater", "floor_strike": strike},
                )
                for strike in strikes
            ),
        )
    )


def _crypto_above_rules(coin: str, day: date, source: str) -> str:
    name, index, _, _ = _COINS[coin]
    if source == "binance":
        return (
            f"the Binance 1 minute candle for {coin}/USDT 12:00 in the ET timezone (noon) on {long_date(day)} has a "
            'final "Close" price higher than the price specified in the title'
        )
    return (
        f"the average of the last sixty seconds of the CF Benchmarks {name} Real-Time Index ({index}) before 5:00 PM "
        f"ET on {long_date(day)} is higher than the price specified in the title"
    )


def _crypto_above_polymarket(board: Board, coin: str, day: date, strikes: Sequence[int], source: str) -> None:
    name = _COINS[coin][0]
    for strike in strikes:
        if source:
            fair = board.fair[_above(coin, strike, day)] / 10_000
            board.proposition(_above(coin, strike, day) + source, fair + 0.02)
    where = "Binance" if source else f"CF Benchmarks {_COINS[coin][1]}"
    board.polymarket.append(
        PolymarketEventDraft(
            slug=f"{name}-above-on-{day:%B}-{day.day}-{day.year}".lower(),
            title=f"{name} above ___ on {day:%B} {day.day}?",
            category="crypto",
            end=eastern(day, 12 if source else 17),
            tags=("Crypto", name),
            markets=tuple(
                PolymarketDraft(
                    slug=_above_slug(coin, strike, day),
                    proposition=_above(coin, strike, day) + source,
                    question=f"On {day:%B} {day.day}, {day.year}, will {name} trade above ${strike:,}?",
                    group_title=f"{strike:,}",
                    rules=yes_no_rules(
                        _crypto_above_rules(coin, day, source),
                        f"The resolution source for this market is {where}. Prices of other sources do not count.",
                    ),
                )
                for strike in strikes
            ),
        )
    )


def _crypto_below_polymarket(board: Board, coin: str, day: date, strike: int) -> None:
    name, index, _, _ = _COINS[coin]
    question = f"Will {name} be ${strike:,} or lower on {day:%B} {day.day}, {day.year} at 5 PM ET?"
    board.polymarket.append(
        PolymarketEventDraft(
            slug=slugify(question),
            title=question,
            category="crypto",
            end=eastern(day, 17),
            tags=("Crypto", name),
            markets=(
                PolymarketDraft(
                    slug=slugify(question),
                    proposition=_above(coin, strike, day),
                    inverted=True,
                    question=question,
                    rules=yes_no_rules(
                        f"the average of the last sixty seconds of the CF Benchmarks {name} Real-Time Index ({index}) "
                        f"before 5:00 PM ET on {long_date(day)} is {strike:,} or lower",
                        f"The resolution source for this market is CF Benchmarks {index}.",
                    ),
                ),
            ),
        )
    )


def _crypto_touch_kalshi(board: Board, coin: str, day: date, strikes: Sequence[int]) -> None:
    name, index, _, _ = _COINS[coin]
    after = day + timedelta(days=1)
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"KX{coin}MAX-{day_code(day)}",
            series=f"KX{coin}MAX",
            title=f"How high will {name} get before {us_date(after)}?",
            sub_title=f"Before {us_date(after)}",
            close=end_of(day),
            markets=tuple(
                KalshiDraft(
                    ticker=_touch_ticker(coin, strike, day),
                    proposition=_touch(coin, strike, day),
                    title=f"Will {name} reach ${strike:,} before {us_date(after)}?",
                    yes_title=f"${strike:,} or above",
                    rules=f"If the CF Benchmarks {name} Real-Time Index ({index}) is at or above {strike} at any time "
                    f"after Issuance and before {us_date(after)} at 12:00 AM ET, then the market resolves to Yes.",
                    strike={"strike_type": "greater_or_equal", "floor_strike": strike},
                )
                for strike in strikes
            ),
        )
    )


def _crypto_touch_polymarket(board: Board, coin: str, day: date, strikes: Sequence[int]) -> None:
    name, index, _, _ = _COINS[coin]
    board.polymarket.append(
        PolymarketEventDraft(
            slug=f"what-price-will-{name}-hit-by-{day:%B}-{day.day}-{day.year}".lower(),
            title=f"What price will {name} hit by {day:%B} {day.day}?",
            category="crypto",
            end=end_of(day),
            tags=("Crypto", name),
            markets=tuple(
                PolymarketDraft(
                    slug=_touch_slug(coin, strike, day),
                    proposition=_touch(coin, strike, day),
                    question=f"Will {name} hit ${strike:,} by {long_date(day)}?",
                    group_title=f"↑ {strike:,}",
                    rules=yes_no_rules(
                        f"at any moment between market creation and {long_date(day)}, 11:59 PM ET the CF Benchmarks "
                        f"{name} Real-Time Index ({index}) shows a price of ${strike:,} or higher",
                        f"The resolution source for this market is CF Benchmarks {index}.",
                    ),
                )
                for strike in strikes
            ),
        )
    )
