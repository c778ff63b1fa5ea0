"""Elections, nominations, bills by deadline, offices and visits."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
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

__all__ = ["bills", "elections", "offices"]


@dataclass(frozen=True, slots=True)
class _Race:
    """An election: whose office, its code in tickers, and the day."""

    state: str
    abbreviation: str
    office: str
    code: str
    day: date

    @property
    def post(self) -> str:
        """The office in words."""
        return "governorship" if self.office == "Governor" else "U.S. Senate seat"

    @property
    def series(self) -> str:
        """The Kalshi series of the winner."""
        return f"KX{self.code}{self.abbreviation}"

    def winner_ticker(self, person: str) -> str:
        """The Kalshi market "this person wins"."""
        return f"{self.series}-{self.day:%y}-{initials(person)}"

    def nominee_ticker(self, person: str) -> str:
        """The Kalshi market "this person is nominated"."""
        return f"{self.series}NOMD-{self.day:%y}-{initials(person)}"


def _election_day(board: Board) -> date:
    year = (board.today + timedelta(days=60)).year
    for candidate in (year, year + 1):
        day = weekday_from(date(candidate, 11, 2), 1)
        if day > board.today + timedelta(days=60):
            return day
    raise AssertionError("unreachable: the next year's election is more than 60 days away")


def elections(board: Board, rng: random.Random) -> None:
    """Five races: who is nominated, who wins, by how much."""
    day = _election_day(board)
    races = (
        _Race("Kentucky", "KY", "Governor", "GOV", day),
        _Race("Virginia", "VA", "Governor", "GOV", day),
        _Race("Nevada", "NV", "Senate", "SENATE", day),
        _Race("Ohio", "OH", "Senate", "SENATE", day),
        _Race("Kansas", "KS", "Governor", "GOV", day),
    )
    for number, race in enumerate(races):
        people = invent_names(rng, 7)
        winners = [people[0], people[3], people[6]]
        for person, price in zip(winners, shares(rng, 3, 0.9), strict=True):
            board.proposition(f"win:{race.state}:{person}", price)
        for person, price in zip(people[:3], shares(rng, 3, 0.86), strict=True):
            fair = max(price, board.fair.get(f"win:{race.state}:{person}", 0) / 10_000 + 0.12)
            board.proposition(f"nominee:{race.state}:{person}", fair)
        if number != 3:
            _winner_kalshi(board, race, winners)
        if number != 4:
            _winner_polymarket(board, race, winners)
        if number in {0, 1, 3, 4}:
            _nominee_kalshi(board, race, people[:3])
        if number in {0, 1}:
            _nominee_polymarket(board, race, people[:3])
        if number == 3:
            board.near_miss(
                race.nominee_ticker(people[0]),
                _winner_slug(race, people[0]),
                "nominee vs winner",
                "polymarket_implies_kalshi",
            )
        if number == 0:
            board.near_miss(
                race.winner_ticker(people[0]),
                _nominee_slug(race, people[0]),
                "winner vs nominee",
                "kalshi_implies_polymarket",
            )
        if number == 4:
            _margin(board, race, people[0])


def _margin(board: Board, race: _Race, person: str) -> None:
    key = board.proposition(f"margin:{race.state}:{person}", 0.19)
    slug = slugify(f"will {person} win {race.state} by more than 5 points {race.day.year}")
    board.polymarket.append(
        PolymarketEventDraft(
            slug=slug,
            title=f"{race.state} {race.office} margin of victory",
            category="politics",
            end=end_of(race.day),
            tags=("Politics", "Elections"),
            markets=(
                PolymarketDraft(
                    slug=slug,
                    proposition=key,
                    question=f"Will {person} win the {race.day.year} {race.state} {race.office} election by more than "
                    "5 points?",
                    rules=yes_no_rules(
                        f"{person} wins the {race.state} {race.office} election scheduled for {long_date(race.day)} "
                        "by more than 5 percentage points of the popular vote",
                        f"Source: certified results. {CONSENSUS}",
                    ),
                ),
            ),
        )
    )
    board.near_miss(race.winner_ticker(person), slug, "margin vs winner", "polymarket_implies_kalshi")


def _winner_slug(race: _Race, person: str) -> str:
    return slugify(f"will {person} win the {race.day.year} {race.state} {race.office} election")


def _nominee_slug(race: _Race, person: str) -> str:
    return slugify(f"will {person} win the {race.day.year} {race.state} {race.office} democratic primary")


def _winner_kalshi(board: Board, race: _Race, people: Sequence[str]) -> None:
    series = race.series
    board.series[series] = Series(series, f"{race.state} {race.office} winner", "Elections", tags=("US Elections",))
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"{series}-{race.day:%y}",
            series=series,
            title=f"{race.state} {race.office} winner?",
            sub_title=f"In {race.day.year}",
            exclusive=True,
            close=end_of(race.day + timedelta(days=60)),
            occurrence=end_of(race.day),
            markets=tuple(
                KalshiDraft(
                    ticker=race.winner_ticker(person),
                    proposition=f"win:{race.state}:{person}",
                    title=f"Will {person} be elected to the {race.state} {race.post} in {race.day.year}?",
                    yes_title=person,
                    rules=f"If {person} wins the {race.state} {race.post} election to be held on {us_date(race.day)}, "
                    "then the market resolves to Yes.",
                    rules_secondary="A runoff, if one is held, belongs to the election. The winner is the person "
                    "certified by the state.",
                    strike={"strike_type": "structured", "custom_strike": {"Candidate": person}},
                )
                for person in people
            ),
        )
    )


def _winner_polymarket(board: Board, race: _Race, people: Sequence[str]) -> None:
    board.polymarket.append(
        PolymarketEventDraft(
            slug=slugify(f"{race.state} {race.office} election winner {race.day.year}"),
            title=f"{race.state} {race.office} Election Winner",
            category="politics",
            end=end_of(race.day),
            neg_risk=True,
            tags=("Politics", "Elections"),
            markets=tuple(
                PolymarketDraft(
                    slug=_winner_slug(race, person),
                    proposition=f"win:{race.state}:{person}",
                    question=f"Will {person} win the {race.day.year} {race.state} {race.office} election?",
                    group_title=person,
                    rules=f"This market will resolve according to the candidate who wins the {race.state} {race.post} "
                    f"in the election scheduled for {long_date(race.day)}, including any runoff.\n\nThe resolution "
                    f"source is the certification by the state. {CONSENSUS}",
                )
                for person in people
            ),
        )
    )


def _nominee_kalshi(board: Board, race: _Race, people: Sequence[str]) -> None:
    series = f"{race.series}NOMD"
    board.series[series] = Series(
        series, f"{race.state} {race.office} Democratic nominee", "Elections", tags=("US Elections",)
    )
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"{series}-{race.day:%y}",
            series=series,
            title=f"{race.state} Democratic {race.office} nominee?",
            sub_title=f"In {race.day.year}",
            exclusive=True,
            close=end_of(race.day),
            markets=tuple(
                KalshiDraft(
                    ticker=race.nominee_ticker(person),
                    proposition=f"nominee:{race.state}:{person}",
                    title=f"Will {person} be the Democratic nominee for {race.office} in {race.state} in "
                    f"{race.day.year}?",
                    yes_title=person,
                    rules=f"If {person} wins the nomination of the Democratic Party to contest the {race.day.year} "
                    f"{race.state} {race.post}, then the market resolves to Yes.",
                    strike={"strike_type": "custom", "custom_strike": {"Candidate": person}},
                )
                for person in people
            ),
        )
    )


def _nominee_polymarket(board: Board, race: _Race, people: Sequence[str]) -> None:
    board.polymarket.append(
        PolymarketEventDraft(
            slug=slugify(f"{race.state} {race.office} democratic primary winner {race.day.year}"),
            title=f"{race.state} {race.office} Democratic Primary Winner",
            category="politics",
            end=end_of(race.day),
            neg_risk=True,
            tags=("Politics", "Primaries"),
            markets=tuple(
                PolymarketDraft(
                    slug=_nominee_slug(race, person),
                    proposition=f"nominee:{race.state}:{person}",
                    question=f"Democratic nomination for {race.state} {race.office} {race.day.year}: {person}?",
                    group_title=person,
                    rules="This market will resolve according to the candidate who wins the nomination of the "
                    f"Democratic Party for the {race.day.year} {race.state} {race.post}.\n\nIf no nominee is "
                    f'announced by {long_date(race.day)}, this market will resolve to "Other". The source is the '
                    "Democratic Party of the state.",
                )
                for person in people
            ),
        )
    )


def bills(board: Board, rng: random.Random) -> None:
    """Eight bills and the deadline by which they become law."""
    board.series["KXBILLS"] = Series("KXBILLS", "Bills become law", "Politics", tags=("Congress",))
    last = month_end(board.today + timedelta(days=60), 0)
    earlier = month_end(board.today + timedelta(days=60), -1)
    before = last + timedelta(days=1)
    bills = (
        ("KIDS", "restricts smartphone notifications for minors", "Quiet Hours for Kids Act", "pair"),
        ("RAIL", "funds a high-speed railway between Dallas and Houston", "Texas Rail Corridor Act", "pair"),
        ("SOLAR", "extends the residential solar tax credit", "Home Sun Credit Act", "pair"),
        ("HEMP", "bans hemp-derived intoxicating beverages", "Safe Beverages Act", "pair"),
        ("SPECTRUM", "renews the spectrum auction authority", "Spectrum Renewal Act", "deadline"),
        ("PENNY", "ends the minting of the one-cent coin", "Common Cents Act", "stage"),
        ("NURSE", "sets national nurse staffing ratios", "Safe Wards Act", "on"),
        ("DRONE", "requires remote identification of toy drones", "Drone Lights Act", "inverted"),
    )
    for code, what, act, kind in bills:
        key = board.proposition(f"law:{code}:{last}", rng.uniform(0.25, 0.6))
        ticker = f"KXBILLS-{day_code(last)}-{code}"
        board.kalshi.append(
            KalshiEventDraft(
                ticker=f"KXBILLS-{day_code(last)}{code}",
                series="KXBILLS",
                title=f"Will legislation that {what} become law?",
                sub_title=f"Before {us_date(before)}",
                close=end_of(last),
                markets=(
                    KalshiDraft(
                        ticker=ticker,
                        proposition=key,
                        title=f"Will legislation that {what} become law before {us_date(before)}?",
                        yes_title=f"Before {us_date(before)}",
                        rules=f"If legislation that {what} has become law before {us_date(before)}, then the market "
                        "resolves to Yes.",
                        rules_secondary=f"An example of this is the {act}. The bill must be signed by the President, "
                        "become law without signature, or become law through veto override.",
                        strike={"strike_type": "custom", "custom_strike": {"Bill": act}},
                    ),
                ),
            )
        )
        deadline = earlier if kind == "deadline" else last
        question = f"{act} signed into law by {long_date(deadline)}?"
        condition = (
            f"legislation that {what} is passed by both chambers of Congress and becomes law, by signature, without "
            f"signature or by veto override, by {long_date(deadline)}, 11:59 PM ET"
        )
        other = key
        if kind == "deadline":
            other = board.proposition(f"law:{code}:{earlier}", board.fair[key] / 10_000 - 0.11)
            board.near_miss(ticker, slugify(question), "other deadline", "polymarket_implies_kalshi")
        elif kind == "stage":
            question = f"Will the {act} pass the House by {long_date(deadline)}?"
            condition = (
                f"the House of Representatives passes the {act}, which {what}, by {long_date(deadline)}, 11:59 PM ET"
            )
            other = board.proposition(f"house:{code}:{last}", board.fair[key] / 10_000 + 0.17)
            board.near_miss(ticker, slugify(question), "passes House vs becomes law", "kalshi_implies_polymarket")
        elif kind == "on":
            question = f"Will the {act} be signed on {long_date(deadline)}?"
            condition = f"the President signs the {act}, which {what}, on {long_date(deadline)} (ET), no other day"
            other = board.proposition(f"sign-on:{code}:{last}", 0.07)
            board.near_miss(ticker, slugify(question), "by vs on", "polymarket_implies_kalshi")
        elif kind == "inverted":
            question = f"Will the {act} fail to become law by {long_date(deadline)}?"
            condition = f"no legislation that {what} becomes law by {long_date(deadline)}, 11:59 PM ET"
        board.polymarket.append(
            PolymarketEventDraft(
                slug=slugify(question),
                title=question,
                category="politics",
                end=end_of(deadline),
                source="https://www.congress.gov",
                tags=("Politics", "Congress"),
                markets=(
                    PolymarketDraft(
                        slug=slugify(question),
                        proposition=other,
                        inverted=kind == "inverted",
                        question=question,
                        rules=yes_no_rules(condition, f"The primary resolution source is Congress.gov. {CONSENSUS}"),
                    ),
                ),
            )
        )


def offices(board: Board, rng: random.Random) -> None:
    """Who leaves an office, and where the President travels."""
    board.series["KXOUT"] = Series("KXOUT", "Leaving office", "Politics")
    board.series["KXVISIT"] = Series("KXVISIT", "Visits", "Politics")
    last = month_end(board.today + timedelta(days=60), 0)
    before = last + timedelta(days=1)
    people = invent_names(rng, 5)
    posts = (
        "Secretary of Energy",
        "FAA Administrator",
        "Secretary of Labor",
        "Director of the Mint",
        "NASA Administrator",
    )
    for number, (person, post) in enumerate(zip(people, posts, strict=True)):
        key = board.proposition(f"out:{person}:{last}", rng.uniform(0.2, 0.55))
        ticker = f"KXOUT-{day_code(last)}-{initials(person)}"
        board.kalshi.append(
            KalshiEventDraft(
                ticker=f"KXOUT-{day_code(last)}{initials(person)}",
                series="KXOUT",
                title=f"{person} out as {post}?",
                sub_title=f"Before {us_date(before)}",
                close=end_of(last),
                markets=(
                    KalshiDraft(
                        ticker=ticker,
                        proposition=key,
                        title=f"Will {person} leave office as {post} before {us_date(before)}?",
                        yes_title=f"Before {us_date(before)}",
                        rules=f"If {person} has left office as {post} before {us_date(before)}, then the market "
                        "resolves to Yes.",
                        rules_secondary="Leaving means that the person no longer holds the office. An announcement "
                        "alone does not count.",
                        strike={"strike_type": "custom", "custom_strike": {"Person": person}},
                    ),
                ),
            )
        )
        question = f"{person} out as {post} by {long_date(last)}?"
        condition = f"{person} ceases to be {post} for any length of time by {long_date(last)}, 11:59 PM ET"
        more = "An announcement of resignation or dismissal alone does not count; the office must actually be left."
        other = key
        if number == 2:
            question = f"Will {person} remain {post} through {long_date(last)}?"
            condition = (
                f"{person} holds the office of {post} without interruption through {long_date(last)}, 11:59 PM ET"
            )
        elif number == 3:
            question = f"Will {person} announce resignation as {post} by {long_date(last)}?"
            condition = f"{person} announces the intention to resign as {post} by {long_date(last)}, 11:59 PM ET"
            more = "The announcement alone is enough, whenever the office is left. A dismissal does not count."
            other = board.proposition(f"announce:{person}:{last}", board.fair[key] / 10_000 + 0.08)
            board.near_miss(ticker, slugify(question), "announces vs leaves", "related")
        elif number == 4:
            year = month_end(board.today + timedelta(days=60), 12)
            question = f"{person} out as {post} by {long_date(year)}?"
            condition = f"{person} ceases to be {post} for any length of time by {long_date(year)}, 11:59 PM ET"
            other = board.proposition(f"out:{person}:{year}", board.fair[key] / 10_000 + 0.15)
            board.near_miss(ticker, slugify(question), "other year", "kalshi_implies_polymarket")
        board.polymarket.append(
            PolymarketEventDraft(
                slug=slugify(question),
                title=question,
                category="politics",
                end=end_of(last),
                tags=("Politics",),
                markets=(
                    PolymarketDraft(
                        slug=slugify(question),
                        proposition=other,
                        inverted=number == 2,
                        question=question,
                        rules=yes_no_rules(condition, f"{more} {CONSENSUS}"),
                    ),
                ),
            )
        )
    places = ("Japan", "Brazil", "Kenya")
    keys = [
        board.proposition(f"visit:{place}:{last}", price)
        for place, price in zip(places, (0.48, 0.36, 0.22), strict=True)
    ]
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"KXVISIT-{day_code(last)}",
            series="KXVISIT",
            title="Which countries will the President visit?",
            sub_title=f"Before {us_date(before)}",
            close=end_of(last),
            markets=tuple(
                KalshiDraft(
                    ticker=f"KXVISIT-{day_code(last)}-{place[:3].upper()}",
                    proposition=key,
                    title=f"Will the President of the United States visit {place} before {us_date(before)}?",
                    yes_title=place,
                    rules="If the President of the United States has physically travelled to and been present within "
                    f"the geographic boundaries of {place} before {us_date(before)}, then the market resolves to Yes.",
                    rules_secondary="Flying over without landing does not count.",
                    strike={"strike_type": "custom", "custom_strike": {"Country": place}},
                )
                for place, key in zip(places, keys, strict=True)
            ),
        )
    )
    board.polymarket.append(
        PolymarketEventDraft(
            slug=slugify(f"where will the president travel by {long_date(last)}"),
            title=f"Where will the US President travel by {last:%B} {last.day}?",
            category="politics",
            end=end_of(last),
            tags=("Politics",),
            markets=tuple(
                PolymarketDraft(
                    slug=slugify(f"us president in {place} by {long_date(last)}"),
                    proposition=key,
                    question=f"US President in {place} by {long_date(last)}?",
                    group_title=place,
                    rules=yes_no_rules(
                        f"the President of the United States enters the land or sea territory of {place} by "
                        f"{long_date(last)}, 11:59 PM ET",
                        f"Flying through its airspace alone does not count. {CONSENSUS}",
                    ),
                )
                for place, key in zip(places, keys, strict=True)
            ),
        )
    )
