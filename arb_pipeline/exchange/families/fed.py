"""Central bank decisions: one question per move and meeting."""

import random
from datetime import UTC, date, datetime, time, timedelta

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
    eastern,
    end_of,
    long_date,
    month_code,
    shares,
    slugify,
    us_date,
    weekday_from,
    yes_no_rules,
)

__all__ = ["fed"]


def fed(board: Board, rng: random.Random) -> None:
    """Decisions of the next meetings, and the count of a year's cuts."""
    source = ("Federal Reserve", "https://www.federalreserve.gov/monetarypolicy/openmarket.htm")
    board.series["KXFEDDECISION"] = Series("KXFEDDECISION", "Fed meeting", "Economics", source=source)
    meetings: list[date] = []
    day = weekday_from(board.today + timedelta(days=24), 2)
    while len(meetings) < 4:
        meetings.append(day)
        day = weekday_from(day + timedelta(days=45), 2)
    for number, meeting in enumerate(meetings):
        prices = shares(rng, 5, 1.0)
        prices = [0.04, prices[1] * 1.4, prices[2] * 1.6, 0.07, 0.03] if number % 2 else [0.05, 0.46, 0.40, 0.06, 0.03]
        keys = [
            board.proposition(f"fed:{meeting}:{move}", price)
            for move, price in zip(("C26", "C25", "H0", "H25", "H26"), prices, strict=True)
        ]
        if number < 3:
            _fed_kalshi(board, meeting, keys)
        if number in {0, 1, 3}:
            _fed_polymarket(board, meeting, keys)
    third, fourth = meetings[2], meetings[3]
    for move, slug in (("H0", "no-change"), ("C25", "25-bps-decrease")):
        board.near_miss(_fed_ticker(third, move), _fed_slug(fourth, slug), "other meeting", "different")
    question = f"Will the Fed change interest rates at its {third:%B %Y} meeting?"
    board.polymarket.append(
        PolymarketEventDraft(
            slug=slugify(question),
            title=question,
            category="economics",
            end=end_of(third),
            source=source[1],
            tags=("Economy", "Fed Rates"),
            markets=(
                PolymarketDraft(
                    slug=slugify(question),
                    proposition=f"fed:{third}:H0",
                    inverted=True,
                    question=question,
                    rules=yes_no_rules(
                        "the upper bound of the target federal funds range is raised or lowered by any amount at the "
                        f"FOMC meeting ending on {long_date(third)}",
                        "If the upper bound is left where it was, or if the scheduled meeting does not take place, "
                        f'this market resolves to "No". The resolution source is the FOMC statement. {CONSENSUS}',
                    ),
                ),
            ),
        )
    )
    year = meetings[3].year
    question = f"Will exactly 3 Fed rate cuts happen in {year}?"
    key = board.proposition(f"fed-cuts:{year}:3", 0.21)
    board.polymarket.append(
        PolymarketEventDraft(
            slug=f"how-many-fed-rate-cuts-in-{year}",
            title=f"How many Fed rate cuts in {year}?",
            category="economics",
            end=end_of(date(year, 12, 31)),
            source=source[1],
            tags=("Economy", "Fed Rates"),
            markets=(
                PolymarketDraft(
                    slug=slugify(question),
                    proposition=key,
                    question=question,
                    group_title="3",
                    rules=yes_no_rules(
                        "the upper bound of the target federal funds range is cut exactly 3 times between January 1 "
                        f"and December 31, {year}",
                        f"Emergency cuts outside scheduled meetings count. Source: Federal Reserve. {CONSENSUS}",
                    ),
                ),
            ),
        )
    )
    board.near_miss(_fed_ticker(third, "C25"), slugify(question), "single meeting vs annual count", "related")


def _fed_ticker(meeting: date, move: str) -> str:
    return f"KXFEDDECISION-{month_code(meeting)}-{move}"


def _fed_slug(meeting: date, move: str) -> str:
    return f"fed-{move}-after-{meeting:%B-%Y}-meeting".lower()


def _fed_kalshi(board: Board, meeting: date, keys: list[str]) -> None:
    moves = (
        ("C26", "Cut", ">25", "Cut >25bps"),
        ("C25", "Cut", "25", "Cut 25bps"),
        ("H0", "Hike", "0", "Fed maintains rate"),
        ("H25", "Hike", "25", "Hike 25bps"),
        ("H26", "Hike", ">25", "Hike >25bps"),
    )
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"KXFEDDECISION-{month_code(meeting)}",
            series="KXFEDDECISION",
            title=f"Fed decision in {meeting:%b %Y}?",
            sub_title=f"On {us_date(meeting)}",
            exclusive=True,
            close=eastern(meeting, 13, 55),
            occurrence=eastern(meeting, 14),
            markets=tuple(
                KalshiDraft(
                    ticker=_fed_ticker(meeting, code),
                    proposition=key,
                    title=f"Will the Federal Reserve {verb} rates by {size}bps at their {meeting:%B %Y} meeting?",
                    yes_title=label,
                    rules=f"If the Federal Reserve does a {verb} of {size}bps on {long_date(meeting)}, then the "
                    "market resolves to Yes.",
                    rules_secondary="The change is that of the upper bound of the target federal funds range. This "
                    "market is mutually exclusive. A change that is not a multiple of 25bps is rounded up to the "
                    "nearest 25bps. If a scheduled FOMC meeting is canceled and does not occur on its scheduled "
                    'date, then the strike for "Fed maintains rate" will resolve to Yes and all others to No.',
                    strike={"strike_type": "custom", "custom_strike": {verb: size}},
                )
                for (code, verb, size, label), key in zip(moves, keys, strict=True)
            ),
        )
    )


def _fed_polymarket(board: Board, meeting: date, keys: list[str]) -> None:
    when = f"{meeting:%B %Y}"
    moves = (
        (
            "50-bps-decrease",
            f"Will the Fed decrease interest rates by 50+ bps after the {when} meeting?",
            "50+ bps cut",
        ),
        ("25-bps-decrease", f"Will the Fed decrease interest rates by 25 bps after the {when} meeting?", "25 bps cut"),
        ("no-change", f"Will there be no change in Fed interest rates after the {when} meeting?", "No change"),
        ("25-bps-increase", f"Will the Fed increase interest rates by 25 bps after the {when} meeting?", "25 bps hike"),
        (
            "50-bps-increase",
            f"Will the Fed increase interest rates by 50+ bps after the {when} meeting?",
            "50+ bps hike",
        ),
    )
    first = meeting - timedelta(days=1)
    rules = (
        "The FED interest rates are defined in this market by the upper bound of the target federal funds "
        "range.\n\nThis market will resolve to the amount of basis points the upper bound of the target federal "
        f"funds rate is changed by versus the level it was prior to the Federal Reserve's {when} meeting.\n\nIf the "
        "target federal funds rate is changed to a level not expressed in the displayed options, the change will be "
        "rounded up to the nearest 25 and will resolve to the relevant bracket.\n\nThe resolution source for this "
        f"market is the FOMC's statement after its meeting scheduled for {first:%B} {first.day}-{meeting.day}, "
        f"{meeting.year} according to the official calendar. If no statement is released by the end date of the next "
        'scheduled meeting, this market will resolve to the "No change" bracket.'
    )
    board.polymarket.append(
        PolymarketEventDraft(
            slug=f"fed-decision-in-{meeting:%B-%Y}".lower(),
            title=f"Fed decision in {meeting:%B}?",
            category="economics",
            end=datetime.combine(meeting, time(), UTC),
            neg_risk=True,
            source="https://www.federalreserve.gov/monetarypolicy/openmarket.htm",
            tags=("Economy", "Fed Rates"),
            series="fomc",
            markets=tuple(
                PolymarketDraft(_fed_slug(meeting, move), key, question, rules, group_title=label)
                for (move, question, label), key in zip(moves, keys, strict=True)
            ),
        )
    )
