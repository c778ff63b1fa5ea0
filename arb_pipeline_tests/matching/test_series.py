"""How other series of both venues are worded, family by family: pairs that are the same and pairs that nearly are."""

from datetime import UTC, datetime
from typing import Any

import pytest

from arb_pipeline.matching.matcher import Judgement
from arb_pipeline.model import Event, Relation
from arb_pipeline_tests.matching.build import judged, kalshi, polymarket

SAME, TURNED = Relation.EQUIVALENT, Relation.INVERTED
K_IN_P, P_IN_K = Relation.KALSHI_IMPLIES_POLYMARKET, Relation.POLYMARKET_IMPLIES_KALSHI
NOT_SAME = None
"""Anything but the same question."""


def temperature(city: str, degrees: str, station: str = "Central Park, New York") -> Event:
    rule = (
        f"the highest temperature recorded at {station} for Nov 30, 2026 is {degrees} according to the National "
        "Weather Service's Climatological Report (Daily)"
    )
    return acted(f"Will the **high temp in {city}** be {degrees} on Nov 30, 2026?", rule, yes_title=degrees)


def daily_high(city: str, degrees: str, source: str = "wunderground", at: str = "LaGuardia Airport") -> Event:
    return polymarket(
        f"Will the highest temperature in {city} be {degrees} on November 30?",
        degrees,
        rules="This market will resolve to the temperature range that contains the highest temperature recorded at the "
        f"{at} Station in degrees Fahrenheit on November 30, 2026. The resolution source for this market will be "
        f"information from {source}.",
        event_title=f"Highest temperature in {city} on November 30?",
    )


def nominee(person: str, party: str, race: str, year: str = "2026") -> Event:
    rule = f"{person} wins the nomination for the {party} Party to contest the {year} {race} seat"
    return acted(f"Will {person} be the {party} nominee for {race}?", rule, yes_title=person)


def primary(person: str, party: str, race: str, year: str = "2026") -> Event:
    return polymarket(
        f"Will {person} win the {year} {race} {party} primary election?",
        person,
        rules=f"This market will resolve according to the winner of the {party} primary for {race}, scheduled to take "
        f"place on August 4, {year}. If no {year} {race} {party} primary takes place, this market will resolve to "
        '"Other".',
    )


def elected(person: str, race: str) -> Event:
    return acted(f"Will {person} win the {race} election?", f"{person} wins the {race} election", yes_title=person)


def winner(person: str, race: str) -> Event:
    return polymarket(
        f"Will {person} win the {race} election?",
        person,
        rules=f"This market will resolve according to the candidate that wins the {race} election. If the result is "
        'not known by March 31, 2027, this market will resolve to "Other".',
    )


def champion(team: str, title: str) -> Event:
    return acted(f"Will {team} win the {title}?", f"{team} wins the {title}", yes_title=team)


def titled(team: str, title: str) -> Event:
    return polymarket(
        f"Will the {team} win the {title}?",
        team,
        rules=f"This market will resolve according to the team that wins the {title}. If the season is cancelled, this "
        'market will resolve to "Other".',
    )


def acted(title: str, rule: str, **fields: Any) -> Event:
    return kalshi(title, rules=f"If {rule}, then the market resolves to Yes.", **fields)


def asked(title: str, rule: str, answer: str = "") -> Event:
    return polymarket(
        title,
        answer,
        rules=f'This market will resolve to "Yes" if {rule}. Otherwise, this market will resolve to "No".',
    )


def coin(name: str, strike: str, when: str, source: str = "CF Benchmarks' real-time index") -> Event:
    return kalshi(
        f"{name} price on {when}?",
        f"${strike} or above",
        rules=f"If the simple average of the sixty seconds of {source} before 5 PM EST on {when} is above "
        f"{strike}, then the "
        "market resolves to Yes.",
        strike={"strike_type": "greater", "floor_strike": float(strike.replace(",", "")) - 0.01},
    )


def candle(name: str, strike: str, when: str) -> Event:
    return asked(
        f"Will the price of {name} be above ${strike} on {when}?",
        f"the Binance 1 minute candle for {name}/USDT 12:00 in the ET timezone (noon) on {when} has a final "
        f'"Close" price higher than {strike}',
    )


CASES: dict[str, tuple[Event, Event, Relation | None]] = {
    # weather
    "one city, two stations": (temperature("NYC", ">49°"), daily_high("NYC", "50°F or higher"), NOT_SAME),
    "one station": (
        temperature("Denver", ">49°", station="Denver International Airport"),
        daily_high(
            "Denver", "50°F or higher", source="the National Weather Service", at="Denver International Airport"
        ),
        SAME,
    ),
    "other city": (
        temperature("Denver", ">49°", station="Denver International Airport"),
        daily_high("Miami", "50°F or higher", source="the National Weather Service", at="Miami International Airport"),
        NOT_SAME,
    ),
    "bracket on another grid": (
        temperature("Chicago", "48° to 49°", station="Chicago Midway Airport"),
        daily_high("Chicago", "47-48°F", source="the National Weather Service", at="Chicago Midway Airport"),
        NOT_SAME,
    ),
    "high and low": (
        temperature("Austin", ">49°", station="Austin Bergstrom Airport"),
        asked("Will the lowest temperature in Austin be 50°F or higher on November 30, 2026?", "so the NWS says"),
        NOT_SAME,
    ),
    # nominations and elections
    "nominee of a district": (
        nominee("Ann Lee", "Democratic", "TX-18"),
        primary("Ann Lee", "Democratic", "TX-18"),
        SAME,
    ),
    "other district": (nominee("Ann Lee", "Democratic", "TX-18"), primary("Ann Lee", "Democratic", "TX-28"), NOT_SAME),
    "other party": (
        nominee("Ann Lee", "Republican", "Maine Senate"),
        primary("Ann Lee", "Democratic", "Maine Senate"),
        NOT_SAME,
    ),
    "other state": (
        nominee("Ann Lee", "Democratic", "Maine Senate"),
        primary("Ann Lee", "Democratic", "Iowa Senate"),
        NOT_SAME,
    ),
    "other office": (
        nominee("Ann Lee", "Democratic", "Maine Senate"),
        primary("Ann Lee", "Democratic", "Maine Governor"),
        NOT_SAME,
    ),
    "other year": (
        nominee("Ann Lee", "Democratic", "Maine Senate", "2026"),
        primary("Ann Lee", "Democratic", "Maine Senate", "2028"),
        NOT_SAME,
    ),
    "namesake": (
        nominee("Ann Lee", "Democratic", "Maine Senate"),
        primary("Bob Lee", "Democratic", "Maine Senate"),
        NOT_SAME,
    ),
    "governor elected": (elected("Ann Lee", "2026 Ohio Governor"), winner("Ann Lee", "2026 Ohio Governor"), SAME),
    "first round or all": (
        elected("Ann Lee", "2026 Peruvian presidential"),
        asked(
            "Will Ann Lee win the first round of the 2026 Peruvian presidential election?",
            "Ann Lee wins the first round",
            "Ann Lee",
        ),
        NOT_SAME,
    ),
    "party or person": (
        elected("the Democratic Party", "2026 Ohio Governor"),
        winner("Ann Lee", "2026 Ohio Governor"),
        NOT_SAME,
    ),
    "win and seats": (
        elected("the Greens", "2026 Peruvian parliamentary"),
        asked(
            "Will the Greens win the most seats in the 2026 Chilean parliamentary election?",
            "Greens win the most seats",
            "Greens",
        ),
        NOT_SAME,
    ),
    # titles and awards
    "league by its other name": (
        champion("Edmonton", "2027 Stanley Cup Finals"),
        titled("Edmonton Oilers", "2027 NHL Stanley Cup"),
        SAME,
    ),
    "baseball": (
        champion("Seattle", "2026 Pro Baseball Championship"),
        titled("Seattle Mariners", "2026 Pro Baseball Championship"),
        SAME,
    ),
    "conference or cup": (
        champion("Edmonton", "2027 Stanley Cup"),
        titled("Edmonton Oilers", "2027 NHL Western Conference"),
        NOT_SAME,
    ),
    "division or championship": (
        champion("Seattle", "2026 AL West division"),
        titled("Seattle Mariners", "2026 World Series"),
        NOT_SAME,
    ),
    "other season": (champion("Edmonton", "2026 Stanley Cup"), titled("Edmonton Oilers", "2027 Stanley Cup"), NOT_SAME),
    "club and cup": (champion("Porto", "2027 Champions League"), titled("Porto", "2026-27 Champions League"), SAME),
    "women's tour": (
        champion("Ann Lee", "2026 US Open Women's Singles"),
        titled("Ann Lee", "2026 US Open Women's Singles"),
        SAME,
    ),
    "singles or doubles": (
        champion("Ann Lee", "2026 US Open Women's Singles"),
        titled("Ann Lee", "2026 US Open Women's Doubles"),
        NOT_SAME,
    ),
    "two awards": (
        champion("Ann Lee", "2027 Oscar for Best Actress"),
        titled("Ann Lee", "2027 Oscar for Best Supporting Actress"),
        NOT_SAME,
    ),
    "one award": (
        champion("Ann Lee", "2027 Oscar for Best Actress"),
        titled("Ann Lee", "2027 Oscar for Best Actress"),
        SAME,
    ),
    "two ceremonies": (
        champion("Ann Lee", "2027 Oscar for Best Actress"),
        titled("Ann Lee", "2027 Golden Globe for Best Actress"),
        NOT_SAME,
    ),
    "nominated or wins": (
        champion("Ann Lee", "2027 Oscar for Best Actress"),
        asked("Will Ann Lee be nominated for Best Actress at the 2027 Oscars?", "Ann Lee is nominated", "Ann Lee"),
        NOT_SAME,
    ),
    "most valuable of two leagues": (
        champion("Ann Lee", "2026 AL MVP"),
        titled("Ann Lee", "2026 NL MVP"),
        NOT_SAME,
    ),
    # prices
    "ether, two sources": (
        coin("Ethereum", "4,000", "Dec 31, 2026"),
        candle("Ethereum", "4,000", "December 31, 2026"),
        NOT_SAME,
    ),
    "solana, other day": (
        coin("Solana", "200", "Dec 30, 2026"),
        candle("Solana", "200", "December 31, 2026"),
        NOT_SAME,
    ),
    "coin": (coin("XRP", "3", "Dec 31, 2026"), candle("Solana", "3", "December 31, 2026"), NOT_SAME),
    "index closes, strike in the rules": (
        acted("S&P 500 above 7,000 at close on Dec 31, 2026?", "the S&P 500 closes above 7,000 on Dec 31, 2026"),
        asked(
            "Will the S&P 500 close above 7,000 on December 31, 2026?",
            "the S&P 500 closes above 7,000 on December 31, 2026",
        ),
        SAME,
    ),
    "index and its neighbour": (
        acted(
            "Nasdaq 100 above 27,000 at close on Dec 31, 2026?", "the Nasdaq-100 closes above 27,000 on Dec 31, 2026"
        ),
        asked("Will the S&P 500 close above 27,000 on December 31, 2026?", "the S&P 500 closes above 27,000"),
        NOT_SAME,
    ),
    "close or touch": (
        acted("S&P 500 above 7,000 at close on Dec 31, 2026?", "the S&P 500 closes above 7,000 on Dec 31, 2026"),
        asked("Will the S&P 500 hit 7,000 by December 31, 2026?", "the S&P 500 trades at 7,000 at any point"),
        NOT_SAME,
    ),
    "gold touched, same strike": (
        acted("Will gold reach $5,000 before Jan 1, 2027?", "the price of gold reaches $5,000 before Jan 1, 2027"),
        asked(
            "Will gold hit $5,000 by December 31, 2026?",
            "the price of gold reaches $5,000 by December 31, 2026, 11:59 PM ET",
        ),
        SAME,
    ),
    "gold touched, higher strike": (
        acted("Will gold reach $6,000 before Jan 1, 2027?", "the price of gold reaches $6,000 before Jan 1, 2027"),
        asked(
            "Will gold hit $5,000 by December 31, 2026?",
            "the price of gold reaches $5,000 by December 31, 2026, 11:59 PM ET",
        ),
        K_IN_P,
    ),
    # statistics
    "unemployment": (
        acted(
            "Will unemployment be above 4.5% in November 2026?", "the unemployment rate for November 2026 is above 4.5%"
        ),
        asked(
            "Will the November 2026 unemployment rate be more than 4.5%?",
            "the BLS reports a rate above 4.5% for November 2026",
        ),
        SAME,
    ),
    "month of the print": (
        acted(
            "Will unemployment be above 4.5% in November 2026?", "the unemployment rate for November 2026 is above 4.5%"
        ),
        asked(
            "Will the December 2026 unemployment rate be more than 4.5%?",
            "the BLS reports above 4.5% for December 2026",
        ),
        NOT_SAME,
    ),
    "pce or cpi": (
        acted("Will core PCE inflation be above 2.8% in November 2026?", "core PCE for November 2026 is above 2.8%"),
        asked("Will core CPI inflation be above 2.8% in November 2026?", "core CPI for November 2026 is above 2.8%"),
        NOT_SAME,
    ),
    "core or headline": (
        acted("Will PCE inflation be above 2.8% in November 2026?", "PCE for November 2026 is above 2.8%"),
        asked("Will core PCE inflation be above 2.8% in November 2026?", "core PCE for November 2026 is above 2.8%"),
        NOT_SAME,
    ),
    "monthly or annual": (
        acted("Will CPI rise more than 0.3% month over month in November 2026?", "CPI rises more than 0.3%"),
        asked("Will annual CPI inflation be more than 0.3% in November 2026?", "annual CPI is more than 0.3%"),
        NOT_SAME,
    ),
    "growth of two countries": (
        acted("Will Japan's GDP growth be above 1% in 2026?", "Japan's GDP grows more than 1% in 2026"),
        asked("Will Germany's GDP growth be above 1% in 2026?", "Germany's GDP grows more than 1% in 2026"),
        NOT_SAME,
    ),
    "quarter": (
        acted("Will US GDP growth be above 2% in Q3 2026?", "real GDP grows more than 2.0% in Q3 2026"),
        asked("Will US GDP growth be above 2% in Q4 2026?", "real GDP grows more than 2.0% in Q4 2026"),
        NOT_SAME,
    ),
    "payrolls": (
        acted(
            "Will nonfarm payrolls be above 100,000 in November 2026?",
            "payrolls rise by more than 100,000 in November 2026",
        ),
        asked(
            "Will payrolls be above 150,000 in November 2026?", "payrolls rise by more than 150,000 in November 2026"
        ),
        NOT_SAME,
    ),
    # acts by a deadline
    "a ceasefire": (
        acted(
            "Will Lima and Cusco agree to a ceasefire before Jan 1, 2027?",
            "Lima and Cusco agree to a ceasefire before Jan 1, 2027",
        ),
        asked(
            "Lima x Cusco ceasefire by December 31, 2026?",
            "there is a ceasefire between Lima and Cusco by December 31, 2026",
        ),
        SAME,
    ),
    "a ceasefire, earlier": (
        acted(
            "Will Lima and Cusco agree to a ceasefire before Jan 1, 2027?",
            "Lima and Cusco agree to a ceasefire before Jan 1, 2027",
        ),
        asked("Lima x Cusco ceasefire by June 30, 2026?", "Lima and Cusco agree to a ceasefire by June 30, 2026"),
        P_IN_K,
    ),
    "recognition": (
        acted("Will Peru recognize Freedonia before 2027?", "Peru recognizes Freedonia before Jan 1, 2027"),
        asked("Will Chile recognize Freedonia before 2027?", "Chile recognizes Freedonia by December 31, 2026"),
        NOT_SAME,
    ),
    "who strikes": (
        acted("Will the US strike Freedonia before Jan 1, 2027?", "the US strikes Freedonia before Jan 1, 2027"),
        asked(
            "Will Lima strike Freedonia by December 31, 2026?",
            "Lima strikes Freedonia by December 31, 2026; what the US does, does not count",
        ),
        NOT_SAME,
    ),
    "who strikes whom": (
        acted("Will Lima strike Freedonia before Jan 1, 2027?", "Lima strikes Freedonia before Jan 1, 2027"),
        asked("Will Freedonia strike Lima by December 31, 2026?", "Freedonia strikes Lima by December 31, 2026"),
        NOT_SAME,
    ),
    "pardoned, told from two sides": (
        acted(
            "Will Bob Ray receive a presidential pardon before Jan 1, 2027?",
            "Bob Ray is given a presidential pardon during the term of Ann Lee and before Jan 1, 2027",
        ),
        asked("Will Ann Lee pardon Bob Ray before 2027?", "Ann Lee pardons Bob Ray by December 31, 2026"),
        SAME,
    ),
    "president or vice president": (
        nominee("Ann Lee", "Democratic", "President", "2028"),
        asked("Will Ann Lee be the 2028 Democratic vice presidential nominee?", "Ann Lee is nominated", "Ann Lee"),
        NOT_SAME,
    ),
    "released by its maker": (
        acted("Will Acme release Foo 6 before Jul 1, 2026?", "Acme releases Foo 6 before Jul 1, 2026"),
        asked("Foo 6 released by June 30, 2026?", "Acme releases Foo 6 by June 30, 2026"),
        SAME,
    ),
    "another version": (
        acted("Will Acme release Foo 6 before Jul 1, 2026?", "Acme releases Foo 6 before Jul 1, 2026"),
        asked("Foo 5.5 released by June 30, 2026?", "Acme releases Foo 5.5 by June 30, 2026"),
        NOT_SAME,
    ),
    "arrested or charged": (
        acted("Will Bob Ray be arrested before Jan 1, 2027?", "Bob Ray is arrested before Jan 1, 2027"),
        asked("Will Bob Ray be charged before 2027?", "Bob Ray is charged by December 31, 2026"),
        NOT_SAME,
    ),
    "a ceasefire or a peace deal": (
        acted("Lima and Cusco ceasefire before Jan 1, 2027?", "Lima and Cusco agree to a ceasefire before Jan 1, 2027"),
        asked("Lima x Cusco peace deal by December 31, 2026?", "Lima and Cusco sign a peace deal by December 31, 2026"),
        NOT_SAME,
    ),
    "largest or second largest": (
        acted("Will Acme be the largest company on Dec 31, 2026?", "Acme is the largest company on Dec 31, 2026"),
        asked("Will Acme be the second-largest company on December 31, 2026?", "Acme is the second-largest company"),
        NOT_SAME,
    ),
    "nominated or confirmed": (
        acted("Will Bob Ray be confirmed as Fed Chair before 2027?", "Bob Ray is confirmed before Jan 1, 2027"),
        asked(
            "Will Ann Lee nominate Bob Ray as Fed Chair before 2027?", "Ann Lee nominates Bob Ray by December 31, 2026"
        ),
        NOT_SAME,
    ),
    "pardoned, or commuted too": (
        acted("Will Bob Ray be pardoned before Jan 1, 2027?", "Bob Ray receives a pardon before Jan 1, 2027"),
        asked(
            "Will Bob Ray be pardoned before 2027?",
            "Bob Ray receives a pardon, commutation or reprieve by December 31, 2026",
        ),
        K_IN_P,
    ),
    "federally charged or charged": (
        acted(
            "Will Bob Ray be federally charged before Jan 1, 2027?", "Bob Ray is federally charged before Jan 1, 2027"
        ),
        asked("Will Bob Ray be charged with a crime before 2027?", "Bob Ray is charged by December 31, 2026"),
        NOT_SAME,
    ),
    "leaves, but death counts on one side alone": (
        acted(
            "Will Ann Lee leave President of Peru before Jan 1, 2027?",
            "Ann Lee leaves President of Peru before Jan 1, 2027. Death does NOT satisfy the criterion",
        ),
        asked("Ann Lee out as President of Peru by December 31, 2026?", "Ann Lee ceases to be President of Peru"),
        NOT_SAME,
    ),
    "any length or two years": (
        acted(
            "Will a law that renews the fund for any length of time become law before 2027?",
            "a law that renews the fund for any length of time becomes law before Jan 1, 2027",
        ),
        asked(
            "Renewal of the fund for two years signed into law in 2026?", "a law renews the fund for two years in 2026"
        ),
        NOT_SAME,
    ),
    "an offering": (
        acted("Will Acme IPO before Jan 1, 2027?", "Acme completes an IPO before Jan 1, 2027"),
        asked("Will Acme go public by December 31, 2026?", "Acme's shares begin trading by December 31, 2026"),
        SAME,
    ),
    "announced or done": (
        acted(
            "Will Ann Lee leave as CEO of Acme before 2027?",
            "Ann Lee leaves as CEO of Acme before Jan 1, 2027; the actual departure counts",
        ),
        asked(
            "Ann Lee announced as leaving as CEO of Acme before 2027?",
            "Ann Lee's departure is announced by December 31, 2026",
        ),
        NOT_SAME,
    ),
    "one office of two": (
        acted("Will Ann Lee leave as CEO of Acme before 2027?", "Ann Lee leaves as CEO of Acme before Jan 1, 2027"),
        asked(
            "Will Ann Lee leave as Chair of Acme before 2027?", "Ann Lee leaves as Chair of Acme by December 31, 2026"
        ),
        NOT_SAME,
    ),
    "a bill in one chamber": (
        acted("Will the Harbour Act become law before Jan 1, 2027?", "the Harbour Act becomes law before Jan 1, 2027"),
        asked("Will the Harbour Act pass the Senate by December 31, 2026?", "the Harbour Act passes the Senate"),
        NOT_SAME,
    ),
    "one bill, one deadline": (
        acted("Will the Harbour Act become law before Jan 1, 2027?", "the Harbour Act becomes law before Jan 1, 2027"),
        asked(
            "Harbour Act signed into law by December 31, 2026?",
            "the Harbour Act is signed into law by December 31, 2026",
        ),
        SAME,
    ),
    "two bills": (
        acted("Will the Harbour Act become law before Jan 1, 2027?", "the Harbour Act becomes law before Jan 1, 2027"),
        asked(
            "River Act signed into law by December 31, 2026?", "the River Act is signed into law by December 31, 2026"
        ),
        NOT_SAME,
    ),
    "how many": (
        acted(
            "Will at least 5 Supreme Court justices retire before 2029?",
            "at least 5 justices retire before Jan 1, 2029",
        ),
        asked(
            "Will at least 4 Supreme Court justices retire before 2029?",
            "at least 4 justices retire by December 31, 2028",
        ),
        NOT_SAME,
    ),
    "approval of two polls": (
        acted(
            "Will the President's approval be above 42% on Dec 31, 2026?",
            "approval is above 42.0 according to Silver Bulletin",
        ),
        asked(
            "Will the President's approval rating be above 42% on December 31, 2026?",
            "approval is above 42.0 according to RealClearPolitics",
        ),
        NOT_SAME,
    ),
    "score of a film": (
        acted("Will Long Road score above 80 on Rotten Tomatoes?", "the Tomatometer score of Long Road is above 80"),
        asked("Will Long Road have a Rotten Tomatoes score of at least 85?", "the score is at least 85"),
        NOT_SAME,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_series(name: str) -> None:
    first, second, wanted = CASES[name]
    judgement = judged(first, second)
    if wanted is NOT_SAME:
        assert not judgement.proposed, judgement.verdict
    else:
        assert judgement.relation is wanted, (judgement.relation, judgement.reasons)
    assert accepted(judgement) <= (wanted in {SAME, TURNED})


def accepted(judgement: Judgement) -> bool:
    return judgement.proposed and not judgement.blockers


GAME_AT = datetime(2026, 12, 6, 1, tzinfo=UTC)


def tie_rules(pays: str) -> str:
    return f"If the game is cancelled or ends in a tie, the market resolves {pays}."


@pytest.mark.parametrize(("tie", "auto"), [("50-50", True), ('to "No"', False)])
def test_a_game_is_accepted_only_where_both_pay_the_same_when_it_is_not_played(tie: str, auto: bool) -> None:
    home = kalshi(
        "Lima at Cusco Winner?",
        "Lima",
        occurrence_at=GAME_AT,
        rules="If Lima wins the Lima at Cusco professional hockey game, then the market resolves to Yes. "
        + tie_rules("to a fair price of $0.50"),
    )
    other = polymarket(
        "Lima vs. Cusco",
        outcomes=("Lima", "Cusco"),
        strike={"sportsMarketType": "moneyline", "gameStartTime": "2026-12-06 00:00:00+00"},
        rules="If Lima wins, the market will resolve to Lima. If Cusco wins, the market will resolve to Cusco. "
        + tie_rules(tie),
    )
    judgement = judged(home, other)
    assert judgement.relation is SAME, judgement.reasons
    assert accepted(judgement) is auto, judgement.blockers
