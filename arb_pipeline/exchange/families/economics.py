"""Monthly prints and index levels: inflation, jobs, unemployment, the S&P 500."""

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
from arb_pipeline.exchange.families.words import (
    day_code,
    eastern,
    long_date,
    month_code,
    month_end,
    slugify,
    us_date,
    weekday_from,
    yes_no_rules,
)

__all__ = ["inflation", "jobs", "stocks"]


def inflation(board: Board, rng: random.Random) -> None:
    """CPI: annual, core and monthly."""
    source = ("Bureau of Labor Statistics", "https://www.bls.gov/cpi/")
    board.series["KXCPIYOY"] = Series("KXCPIYOY", "Inflation", "Economics", "monthly", source=source)
    board.series["KXCPICOREYOY"] = Series("KXCPICOREYOY", "Core inflation", "Economics", "monthly", source=source)
    board.series["KXCPI"] = Series("KXCPI", "CPI month over month", "Economics", "monthly", source=source)
    for number in range(2):
        month = month_end(board.today, number)
        release = weekday_from(month + timedelta(days=11), 2)
        levels = ("2.6", "2.8", "3.0") if number else ("2.7", "2.8", "2.9", "3.0")
        prices = (0.74, 0.46, 0.21) if number else (0.81, 0.60, 0.37, 0.17)
        keys = [
            board.proposition(f"cpi:{month:%Y-%m}:{level}", price + rng.uniform(-0.02, 0.02))
            for level, price in zip(levels, prices, strict=True)
        ]
        board.kalshi.append(
            KalshiEventDraft(
                ticker=f"KXCPIYOY-{month_code(month)}",
                series="KXCPIYOY",
                title=f"Inflation in {month:%B %Y}?",
                sub_title=f"In {month:%b %Y}",
                close=eastern(release, 8, 25),
                occurrence=eastern(release, 8, 30),
                markets=tuple(
                    KalshiDraft(
                        ticker=f"KXCPIYOY-{month_code(month)}-T{level}",
                        proposition=key,
                        title=f"Will the rate of CPI inflation be above {level}% for the year ending in {month:%B %Y}?",
                        yes_title=f"Above {level}%",
                        rules="If the Consumer Price Index for All Urban Consumers (CPI-U), not seasonally adjusted, "
                        f"increases by more than {level}% over the twelve months ending in {month:%B %Y}, then the "
                        "market resolves to Yes.",
                        rules_secondary="Revisions after the first release do not count. The percentage is taken "
                        "with one decimal as published by the Bureau of Labor Statistics.",
                        strike={"strike_type": "greater", "floor_strike": float(level)},
                    )
                    for level, key in zip(levels, keys, strict=True)
                ),
            )
        )
        wanted = ("2.8", "3.0") if number else levels
        if number:
            for level in wanted:
                board.proposition(f"cpi-at-least:{month:%Y-%m}:{level}", 0.57 if level == "2.8" else 0.33)
        word = "at least" if number else "more than"
        board.polymarket.append(
            PolymarketEventDraft(
                slug=f"{month:%B}-inflation-us-annual-{month.year}".lower(),
                title=f"{month:%B} Inflation US - Annual",
                category="economics",
                end=eastern(release, 8, 30),
                source=source[1],
                tags=("Economy", "Inflation"),
                markets=tuple(
                    PolymarketDraft(
                        slug=_cpi_slug(month, level, word),
                        proposition=f"cpi-at-least:{month:%Y-%m}:{level}" if number else f"cpi:{month:%Y-%m}:{level}",
                        question=f"Will annual U.S. inflation come in at {word} {level}% in {month:%B %Y}?",
                        group_title=f"{'≥' if number else '>'}{level}%",
                        rules=yes_no_rules(
                            "the 12-month percentage change of the Consumer Price Index (CPI-U, not seasonally "
                            f"adjusted) for {month:%B %Y} is {word} {level}%",
                            "The resolution source is the Bureau of Labor Statistics report scheduled for "
                            f"{long_date(release)}, to one decimal; later revisions do not count.",
                        ),
                    )
                    for level in wanted
                ),
            )
        )
        if number:
            for level in wanted:
                board.near_miss(
                    f"KXCPIYOY-{month_code(month)}-T{level}",
                    _cpi_slug(month, level, word),
                    "above vs at least",
                    "kalshi_implies_polymarket",
                )
    month = month_end(board.today, 0)
    release = weekday_from(month + timedelta(days=11), 2)
    for level, price in (("2.8", 0.69), ("3.0", 0.35)):
        board.proposition(f"core-cpi:{month:%Y-%m}:{level}", price)
        board.near_miss(
            f"KXCPICOREYOY-{month_code(month)}-T{level}",
            _cpi_slug(month, level, "more than"),
            "core vs headline",
            "related",
        )
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"KXCPICOREYOY-{month_code(month)}",
            series="KXCPICOREYOY",
            title=f"Core inflation in {month:%B %Y}?",
            sub_title=f"In {month:%b %Y}",
            close=eastern(release, 8, 25),
            occurrence=eastern(release, 8, 30),
            markets=tuple(
                KalshiDraft(
                    ticker=f"KXCPICOREYOY-{month_code(month)}-T{level}",
                    proposition=f"core-cpi:{month:%Y-%m}:{level}",
                    title=f"Will core CPI inflation be above {level}% for the year ending in {month:%B %Y}?",
                    yes_title=f"Above {level}%",
                    rules="If the Consumer Price Index for all items less food and energy, not seasonally adjusted, "
                    f"increases by more than {level}% over the twelve months ending in {month:%B %Y}, then the market "
                    "resolves to Yes.",
                    strike={"strike_type": "greater", "floor_strike": float(level)},
                )
                for level in ("2.8", "3.0")
            ),
        )
    )
    board.proposition(f"cpi-monthly:{month:%Y-%m}:0.3", 0.28)
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"KXCPI-{month_code(month)}",
            series="KXCPI",
            title=f"CPI in {month:%B %Y}?",
            sub_title=f"In {month:%b %Y}",
            close=eastern(release, 8, 25),
            occurrence=eastern(release, 8, 30),
            markets=(
                KalshiDraft(
                    ticker=f"KXCPI-{month_code(month)}-T0.3",
                    proposition=f"cpi-monthly:{month:%Y-%m}:0.3",
                    title=f"Will CPI rise more than 0.3% in {month:%B %Y}?",
                    yes_title="Above 0.3%",
                    rules="If the seasonally adjusted Consumer Price Index for All Urban Consumers increases by more "
                    f"than 0.3% from the month before in {month:%B %Y}, then the market resolves to Yes.",
                    strike={"strike_type": "greater", "floor_strike": 0.3},
                ),
            ),
        )
    )
    board.near_miss(
        f"KXCPI-{month_code(month)}-T0.3",
        _cpi_slug(month, "3.0", "more than"),
        "month over month vs annual",
        "related",
    )


def _cpi_slug(month: date, level: str, word: str) -> str:
    return slugify(f"annual inflation {word} {level.replace('.', 'pt')} in {month:%B %Y}")


def _jobs_report(month: date) -> date:
    """The Friday on which a month's employment report comes out."""
    return weekday_from(month + timedelta(days=3), 4)


def _jobs_slug(month: date, level: int) -> str:
    return f"more-than-{level // 1000}k-jobs-added-in-{month:%B-%Y}".lower()


def jobs(board: Board, rng: random.Random) -> None:
    """Payrolls and the unemployment rate."""
    source = ("Bureau of Labor Statistics", "https://www.bls.gov/news.release/empsit.toc.htm")
    board.series["KXPAYROLLS"] = Series("KXPAYROLLS", "Jobs numbers", "Economics", "monthly", source=source)
    board.series["KXU3"] = Series("KXU3", "Unemployment rate", "Economics", "monthly", source=source)
    # A report that is due within days would close its market too soon: begin with the month after.
    first = int(_jobs_report(month_end(board.today, 0)) < board.today + timedelta(days=10))
    months = [month_end(board.today, first + number) for number in range(3)]
    for number, month in enumerate(months):
        for level, price in ((50_000, 0.71), (100_000, 0.44), (150_000, 0.19)):
            board.proposition(f"jobs:{month:%Y-%m}:{level}", price + rng.uniform(-0.03, 0.03))
        release = _jobs_report(month)
        if number < 2:
            board.kalshi.append(
                KalshiEventDraft(
                    ticker=f"KXPAYROLLS-{month_code(month)}",
                    series="KXPAYROLLS",
                    title=f"Jobs numbers in {month:%B %Y}?",
                    sub_title=f"In {month:%b %Y}",
                    close=eastern(release, 8, 25),
                    occurrence=eastern(release, 8, 30),
                    markets=tuple(
                        KalshiDraft(
                            ticker=f"KXPAYROLLS-{month_code(month)}-T{level}",
                            proposition=f"jobs:{month:%Y-%m}:{level}",
                            title=f"Will above {level} jobs be added in {month:%B %Y}?",
                            yes_title=f"Above {level:,}",
                            rules=f"If the seasonally adjusted change in total nonfarm payrolls is above {level} in "
                            f"{month:%B %Y}, then the market resolves to Yes.",
                            rules_secondary="Only the first release counts.",
                            strike={"strike_type": "greater", "floor_strike": level},
                        )
                        for level in (50_000, 100_000, 150_000)
                    ),
                )
            )
        if number != 1:
            board.polymarket.append(
                PolymarketEventDraft(
                    slug=f"how-many-jobs-added-in-{month:%B-%Y}".lower(),
                    title=f"How many jobs added in {month:%B}?",
                    category="economics",
                    end=eastern(release, 8, 30),
                    source=source[1],
                    tags=("Economy", "Jobs"),
                    markets=tuple(
                        PolymarketDraft(
                            slug=_jobs_slug(month, level),
                            proposition=f"jobs:{month:%Y-%m}:{level}",
                            question=f"Will the U.S. economy add more than {level // 1000}k jobs in {month:%B %Y}?",
                            group_title=f">{level // 1000}k",
                            rules=yes_no_rules(
                                f"total nonfarm payroll employment (seasonally adjusted) rose by more than {level:,} "
                                f"in {month:%B %Y} according to the first release",
                                "The resolution source is the Employment Situation report of the Bureau of Labor "
                                f"Statistics scheduled for {long_date(release)}; revisions do not count.",
                            ),
                        )
                        for level in (50_000, 100_000, 150_000)
                    ),
                )
            )
    for level in (50_000, 100_000):
        board.near_miss(
            f"KXPAYROLLS-{month_code(months[1])}-T{level}", _jobs_slug(months[2], level), "other month", "different"
        )
    month = months[0]
    release = _jobs_report(month)
    for rate, price in (("4.4", 0.66), ("4.5", 0.42)):
        board.proposition(f"u3:{month:%Y-%m}:{rate}", price)
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"KXU3-{month_code(month)}",
            series="KXU3",
            title=f"Unemployment rate in {month:%B %Y}?",
            sub_title=f"In {month:%b %Y}",
            close=eastern(release, 8, 25),
            occurrence=eastern(release, 8, 30),
            markets=tuple(
                KalshiDraft(
                    ticker=f"KXU3-{month_code(month)}-T{level}",
                    proposition=f"u3:{month:%Y-%m}:{level}",
                    title=f"Will the unemployment rate (U-3) be above {level}% in {month:%B %Y}?",
                    yes_title=f"Above {level}%",
                    rules=f"If the seasonally adjusted U-3 unemployment rate is above {level}% in {month:%B %Y}, then "
                    "the market resolves to Yes.",
                    rules_secondary="Only the first release counts.",
                    strike={"strike_type": "greater", "floor_strike": float(level)},
                )
                for level in ("4.4", "4.5")
            ),
        )
    )
    board.polymarket.append(
        PolymarketEventDraft(
            slug=f"{month:%B}-unemployment-rate-{month.year}".lower(),
            title=f"{month:%B} unemployment rate above ___?",
            category="economics",
            end=eastern(release, 8, 30),
            source=source[1],
            tags=("Economy", "Jobs"),
            markets=tuple(
                PolymarketDraft(
                    slug=slugify(f"{month:%B %Y} unemployment above {level.replace('.', 'pt')}"),
                    proposition=f"u3:{month:%Y-%m}:{level}",
                    question=f"Will {month:%B %Y} unemployment exceed {level}%?",
                    group_title=f">{level}%",
                    rules=yes_no_rules(
                        f"the U.S. unemployment rate (U-3, seasonally adjusted) for {month:%B %Y} is higher than "
                        f"{level}% in the first release",
                        f"Source: Bureau of Labor Statistics, Employment Situation of {long_date(release)}.",
                    ),
                )
                for level in ("4.4", "4.5")
            ),
        )
    )


def stocks(board: Board, rng: random.Random) -> None:
    """The S&P 500 at a month end."""
    source = ("S&P Dow Jones Indices", "https://www.spglobal.com/spdji/en/indices/equity/sp-500/")
    board.series["KXINX"] = Series("KXINX", "S&P 500 close", "Financials", "monthly", 0.5, source)
    day = month_end(board.today + timedelta(days=18), 0)
    while day.weekday() > 4:
        day -= timedelta(days=1)
    levels = (6_600, 6_800, 7_000, 7_200)
    for level, price in zip(levels, (0.80, 0.58, 0.33, 0.13), strict=True):
        board.proposition(f"spx:{day}:{level}", price + rng.uniform(-0.02, 0.02))
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"KXINX-{day_code(day)}H1600",
            series="KXINX",
            title=f"S&P 500 close on {us_date(day)}?",
            sub_title=f"On {us_date(day)} at 4pm",
            close=eastern(day, 16),
            occurrence=eastern(day, 16),
            markets=tuple(
                KalshiDraft(
                    ticker=f"KXINX-{day_code(day)}H1600-T{level}",
                    proposition=f"spx:{day}:{level}",
                    title=f"Will the S&P 500 close above {level:,} on {us_date(day)}?",
                    yes_title=f"Above {level:,}",
                    rules=f"If the official closing value of the S&P 500 index is above {level} on {long_date(day)}, "
                    "then the market resolves to Yes.",
                    strike={"strike_type": "greater", "floor_strike": level},
                )
                for level in levels
            ),
        )
    )
    board.polymarket.append(
        PolymarketEventDraft(
            slug=f"sp-500-close-above-on-{day:%B}-{day.day}-{day.year}".lower(),
            title=f"S&P 500 (SPX) closes above ___ on {day:%B} {day.day}?",
            category="finance",
            end=eastern(day, 16),
            source=source[1],
            tags=("Finance", "Indices"),
            markets=tuple(
                PolymarketDraft(
                    slug=_spx_slug(day, level, "closes above"),
                    proposition=f"spx:{day}:{level}",
                    question=f"On {long_date(day)}, does the S&P 500 (SPX) finish the day over {level:,}?",
                    group_title=f"{level:,}",
                    rules=yes_no_rules(
                        f"the official close of the S&P 500 (SPX) index on {long_date(day)} is higher than {level:,}",
                        "If the market closes early that day, the early official close counts.",
                    ),
                )
                for level in levels[:3]
            ),
        )
    )
    board.proposition(f"spx-touch:{day}:7200", 0.27)
    slug = _spx_slug(day, 7_200, "hits")
    board.polymarket.append(
        PolymarketEventDraft(
            slug=slug,
            title=f"Will the S&P 500 (SPX) hit 7,200 by {day:%B} {day.day}?",
            category="finance",
            end=eastern(day, 16),
            source=source[1],
            tags=("Finance", "Indices"),
            markets=(
                PolymarketDraft(
                    slug=slug,
                    proposition=f"spx-touch:{day}:7200",
                    question=f"Will the S&P 500 (SPX) hit 7,200 by {long_date(day)}?",
                    rules=yes_no_rules(
                        "the S&P 500 (SPX) trades at 7,200 or higher at any time of a regular session by "
                        f"{long_date(day)}",
                        "Intraday highs count.",
                    ),
                ),
            ),
        )
    )
    board.near_miss(f"KXINX-{day_code(day)}H1600-T7200", slug, "point vs touch", "kalshi_implies_polymarket")


def _spx_slug(day: date, level: int, verb: str) -> str:
    return slugify(f"spx {verb} {level} {day:%B} {day.day} {day.year}")
