"""Awards, and the questions that one venue alone asks."""

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
    CONSENSUS,
    day_code,
    end_of,
    initials,
    invent_names,
    long_date,
    month_end,
    shares,
    slugify,
    us_date,
    weekday_from,
    yes_no_rules,
)

__all__ = ["awards", "loners"]


def awards(board: Board, rng: random.Random) -> None:
    """Best Picture, Best Director, Album of the Year."""
    films = ["The Salt Road", "Paper Lanterns", "A Winter Ledger", "Northbound", "The Glass Orchard"]
    people = invent_names(rng, 5)
    day = weekday_from(board.today + timedelta(days=95), 6)
    number = day.year - 1928
    for film, price in zip(films, shares(rng, 5, 0.92), strict=True):
        board.proposition(f"picture:{day.year}:{film}", price)
        board.proposition(f"director:{day.year}:{film}", max(price - 0.07, 0.04))
    for person, price in zip(people, shares(rng, 5, 0.9), strict=True):
        board.proposition(f"album:{day.year}:{person}", price)
        board.proposition(f"album:{day.year + 1}:{person}", price * 0.8)
        board.proposition(f"album-nominated:{day.year}:{person}", min(price + 0.3, 0.9))
    board.series["KXOSCARPIC"] = Series("KXOSCARPIC", "Oscar for Best Picture", "Entertainment", "annual")
    board.series["KXALBUM"] = Series("KXALBUM", "Album of the Year", "Entertainment", "annual")
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"KXOSCARPIC-{day:%y}",
            series="KXOSCARPIC",
            title=f"Oscar for Best Picture {day.year}?",
            sub_title=f"At the {number}th Academy Awards",
            exclusive=True,
            close=end_of(day),
            occurrence=end_of(day),
            markets=tuple(
                KalshiDraft(
                    ticker=f"KXOSCARPIC-{day:%y}-{film.split()[-1][:3].upper()}",
                    proposition=f"picture:{day.year}:{film}",
                    title=f"Will {film} win Best Picture at the {number}th Academy Awards?",
                    yes_title=film,
                    rules=f"If {film} wins the Oscar for Best Picture at the {number}th Academy Awards, then the "
                    "market resolves to Yes.",
                    strike={"strike_type": "custom", "custom_strike": {"Film": film}},
                )
                for film in films
            ),
        )
    )
    for award, prefix, chosen in (("Best Picture", "picture", films[:3]), ("Best Director", "director", films[3:])):
        board.polymarket.append(
            PolymarketEventDraft(
                slug=slugify(f"oscars {day.year} {award} winner"),
                title=f"Oscars {day.year}: {award} Winner",
                category="culture",
                end=end_of(day),
                neg_risk=True,
                tags=("Culture", "Oscars"),
                markets=tuple(
                    PolymarketDraft(
                        slug=slugify(f"will {film} win {award} at the {day.year} oscars"),
                        proposition=f"{prefix}:{day.year}:{film}",
                        question=f'Will "{film}" take {award} at the {day.year} Oscars?',
                        group_title=film,
                        rules=f"This market will resolve according to the film that wins {award} at the {number}th "
                        f"Academy Awards, scheduled for {long_date(day)}.\n\nThe resolution source is the Academy of "
                        f"Motion Picture Arts and Sciences. {CONSENSUS}",
                    )
                    for film in chosen
                ),
            )
        )
    for film in films[3:]:
        board.near_miss(
            f"KXOSCARPIC-{day:%y}-{film.split()[-1][:3].upper()}",
            slugify(f"will {film} win Best Director at the {day.year} oscars"),
            "other award",
            "related",
        )
    for year in (day.year, day.year + 1):
        board.kalshi.append(
            KalshiEventDraft(
                ticker=f"KXALBUM-{year % 100}",
                series="KXALBUM",
                title=f"Album of the Year {year}?",
                sub_title=f"In {year}",
                exclusive=True,
                close=end_of(date(year, 12, 31)),
                markets=tuple(
                    KalshiDraft(
                        ticker=f"KXALBUM-{year % 100}-{initials(person)}",
                        proposition=f"album:{year}:{person}",
                        title=f"Will {person} win Album of the Year at the {year} Golden Note Awards?",
                        yes_title=person,
                        rules=f"If {person} wins Album of the Year at the {year} Golden Note Awards, then the market "
                        "resolves to Yes.",
                        strike={"strike_type": "custom", "custom_strike": {"Artist": person}},
                    )
                    for person in people[:4]
                ),
            )
        )
    verbs = (("win", "album", people[:2]), ("be nominated for", "album-nominated", people[2:4]))
    for verb, prefix, chosen in verbs:
        board.polymarket.append(
            PolymarketEventDraft(
                slug=slugify(f"golden note awards {day.year} album {verb}"),
                title=f"Golden Note Awards {day.year}: Album of the Year {'winner' if verb == 'win' else 'nominees'}",
                category="culture",
                end=end_of(date(day.year, 12, 31)),
                tags=("Culture", "Music"),
                markets=tuple(
                    PolymarketDraft(
                        slug=slugify(f"will {person} {verb} album of the year {day.year}"),
                        proposition=f"{prefix}:{day.year}:{person}",
                        question=f"Golden Note Awards {day.year}: will {person} {verb} Album of the Year?",
                        group_title=person,
                        rules=yes_no_rules(
                            f"{person} {'wins' if verb == 'win' else 'is nominated for'} Album of the Year at the "
                            f"{day.year} Golden Note Awards",
                            f"Source: the awards' official site. {CONSENSUS}",
                        ),
                    )
                    for person in chosen
                ),
            )
        )
    for person in people[2:4]:
        board.near_miss(
            f"KXALBUM-{day:%y}-{initials(person)}",
            slugify(f"will {person} be nominated for album of the year {day.year}"),
            "wins vs is nominated",
            "kalshi_implies_polymarket",
        )
    board.near_miss(
        f"KXALBUM-{(day.year + 1) % 100}-{initials(people[0])}",
        slugify(f"will {people[0]} win album of the year {day.year}"),
        "other year",
        "different",
    )


def loners(board: Board, rng: random.Random) -> None:
    """Questions that one venue alone asks, and one per venue that is listed only during playback."""
    day = month_end(board.today + timedelta(days=18), 0)
    board.series["KXGAS"] = Series(
        "KXGAS", "US gas price", "Economics", "weekly", source=("AAA", "https://gasprices.aaa.com")
    )
    for number, levels in enumerate((("2.95", "3.05", "3.15"), ("3.25",))):
        board.kalshi.append(
            KalshiEventDraft(
                ticker=f"KXGAS-{day_code(day)}{number or ''}",
                series="KXGAS",
                title=f"US gas prices on {us_date(day)}?",
                sub_title=f"On {us_date(day)}",
                close=end_of(day),
                occurrence=end_of(day),
                listed_later=number == 1,
                markets=tuple(
                    KalshiDraft(
                        ticker=f"KXGAS-{day_code(day)}{number or ''}-{level}",
                        proposition=board.proposition(f"gas:{day}:{level}", rng.uniform(0.2, 0.6)),
                        title=f"Will average gas prices be above ${level} on {us_date(day)}?",
                        yes_title=f"Above ${level}",
                        rules=f"If average regular gas prices in the United States on {long_date(day)} are strictly "
                        f"greater than ${level} according to AAA, then the market resolves to Yes.",
                        strike={"strike_type": "greater", "floor_strike": float(level)},
                    )
                    for level in levels
                ),
            )
        )
    names = ("Brightforge", "Halcyon Data", "Meridian Motors", "Orbitale", "Tessellate")
    groups = (
        (f"largest company on {long_date(day)}", "be the largest company in the world by market cap on", names, False),
        (f"newest listing by {long_date(day)}", "be listed on a US stock exchange by", ("Quillstone",), True),
    )
    for title, verb, companies, later in groups:
        board.polymarket.append(
            PolymarketEventDraft(
                slug=slugify(title),
                title=title.capitalize(),
                category="finance",
                end=end_of(day),
                neg_risk=not later,
                tags=("Finance", "Companies"),
                listed_later=later,
                markets=tuple(
                    PolymarketDraft(
                        slug=slugify(f"{name} {title}"),
                        proposition=board.proposition(f"{verb}:{name}:{day}", price),
                        question=f"Will {name} {verb} {long_date(day)}?",
                        group_title=name,
                        rules=yes_no_rules(f"{name} will {verb} {long_date(day)}, 11:59 PM ET", CONSENSUS),
                    )
                    for name, price in zip(
                        companies, shares(rng, len(companies), 0.9 if not later else 0.4), strict=True
                    )
                ),
            )
        )
