"""Daily highest temperatures by station and two-degree bracket."""

import random
from datetime import date, timedelta

from arb_pipeline.exchange.drafts import (
    Board,
    KalshiDraft,
    KalshiEventDraft,
    PolymarketDraft,
    PolymarketEventDraft,
    Series,
)
from arb_pipeline.exchange.families.words import day_code, end_of, long_date, shares, slugify, us_date

__all__ = ["weather"]


_CITIES = {
    "NY": ("NYC", "New York City", "Central Park", 46),
    "CHI": ("Chicago", "Chicago", "Midway Airport", 40),
    "MIA": ("Miami", "Miami", "Miami International Airport", 79),
}


def weather(board: Board, rng: random.Random) -> None:
    """Three cities on three days."""
    days = [board.today + timedelta(days=9 + number) for number in range(3)]
    for city, (name, _, station, middle) in _CITIES.items():
        source = (f"National Weather Service, {station}", "https://www.weather.gov/climate/")
        board.series[f"KXHIGH{city}"] = Series(
            f"KXHIGH{city}", f"Highest temperature in {name}", "Climate and Weather", "daily", source=source
        )
        for day in days:
            for low, price in zip(_brackets(middle), shares(rng, 5, 1.0), strict=True):
                board.proposition(f"high:{city}:{day}:{low}", price)
    for city in _CITIES:
        for day in days[:2]:
            _weather_kalshi(board, city, day)
        _weather_polymarket(board, city, days[0], _CITIES[city][2])
    _weather_polymarket(board, "NY", days[1], "LaGuardia Airport")
    _weather_polymarket(board, "CHI", days[2], _CITIES["CHI"][2])
    _weather_polymarket(board, "MIA", days[1], _CITIES["MIA"][2], shift=1)
    for low in _brackets(46)[1:4]:
        board.near_miss(_high_ticker("NY", days[1], low), _high_slug("NY", days[1], low), "other station", "related")
    for low in _brackets(40)[1:3]:
        board.near_miss(_high_ticker("CHI", days[1], low), _high_slug("CHI", days[2], low), "other date", "different")
    for low in _brackets(79)[1:3]:
        board.near_miss(
            _high_ticker("MIA", days[1], low), _high_slug("MIA", days[1], low + 1), "other bracket", "related"
        )


def _brackets(middle: int) -> list[int]:
    """Lower ends of five two-degree brackets; the first means "or below", the last "or above"."""
    return [middle - 4, middle - 2, middle, middle + 2, middle + 4]


def _high_ticker(city: str, day: date, low: int) -> str:
    first, *_, last = _brackets(_CITIES[city][3])
    mark = f"T{low + 2}" if low == first else f"T{low - 1}" if low == last else f"B{low}.5"
    return f"KXHIGH{city}-{day_code(day)}-{mark}"


def _high_slug(city: str, day: date, low: int) -> str:
    return slugify(f"highest temperature in {_CITIES[city][0]} on {day:%B} {day.day} {day.year} {low}f")


def _weather_kalshi(board: Board, city: str, day: date) -> None:
    name, full, station, middle = _CITIES[city]
    lows = _brackets(middle)
    markets: list[KalshiDraft] = []
    for low in lows:
        if low == lows[0]:
            words, rule, label = f"<{low + 2}°", f"less than {low + 2}°", f"{low + 1}° or below"
            strike = {"strike_type": "less", "cap_strike": low + 2}
        elif low == lows[-1]:
            words, rule, label = f">{low - 1}°", f"greater than {low - 1}°", f"{low}° or above"
            strike = {"strike_type": "greater", "floor_strike": low - 1}
        else:
            words, rule, label = f"{low}-{low + 1}°", f"between {low}-{low + 1}°", f"{low}° to {low + 1}°"
            strike = {"strike_type": "between", "floor_strike": low, "cap_strike": low + 1}
        markets.append(
            KalshiDraft(
                ticker=_high_ticker(city, day, low),
                proposition=f"high:{city}:{day}:{low}",
                title=f"Will the high temp in {name} be {words} on {us_date(day)}?",
                yes_title=label,
                rules=f"If the highest temperature recorded at {station}, {full} for {long_date(day)} as reported by "
                f"the National Weather Service's Climatological Report (Daily), is {rule}, then the market resolves "
                "to Yes.",
                rules_secondary="Bounds are inclusive. Temperatures are whole degrees Fahrenheit. Revisions after "
                "the first final report do not count.",
                strike=strike,
            )
        )
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"KXHIGH{city}-{day_code(day)}",
            series=f"KXHIGH{city}",
            title=f"Highest temperature in {name} on {us_date(day)}?",
            sub_title=f"On {us_date(day)}",
            exclusive=True,
            close=end_of(day),
            occurrence=end_of(day),
            markets=tuple(markets),
        )
    )


def _weather_polymarket(board: Board, city: str, day: date, station: str, shift: int = 0) -> None:
    name, _, own, middle = _CITIES[city]
    lows = [low + shift for low in _brackets(middle)]
    markets: list[PolymarketDraft] = []
    for low in lows:
        if low == lows[0]:
            label, words = f"{low + 1}°F or below", f"{low + 1}°F or below"
        elif low == lows[-1]:
            label, words = f"{low}°F or higher", f"{low}°F or higher"
        else:
            label, words = f"{low}-{low + 1}°F", f"between {low}-{low + 1}°F"
        key = f"high:{city}:{day}:{low}"
        if station != own:
            key = board.proposition(f"{key}:{station}", board.fair[key] / 10_000 + 0.06)
        elif shift:
            key = board.proposition(f"{key}:shifted", board.fair[f"high:{city}:{day}:{low - shift}"] / 10_000 + 0.05)
        markets.append(
            PolymarketDraft(
                slug=_high_slug(city, day, low),
                proposition=key,
                question=f"Will the highest temperature in {name} be {words} on {day:%B} {day.day}?",
                group_title=label,
                rules="This market will resolve to the temperature range that contains the highest temperature "
                f"recorded at {station} in degrees Fahrenheit on {long_date(day)}.\n\nThe resolution source for this "
                "market is the Climatological Report (Daily) of the National Weather Service for that station, "
                "measured to whole degrees Fahrenheit. Revisions made after the data is finalized do not count.",
            )
        )
    board.polymarket.append(
        PolymarketEventDraft(
            slug=f"highest-temperature-in-{name}-on-{day:%B}-{day.day}-{day.year}".lower(),
            title=f"Highest temperature in {name} on {day:%B} {day.day}?",
            category="weather",
            end=end_of(day),
            neg_risk=True,
            tags=("Weather", name),
            series=f"{name}-daily-weather".lower(),
            markets=tuple(markets),
        )
    )
