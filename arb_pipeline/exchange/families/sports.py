"""Games: winners, spreads and totals."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from arb_pipeline.exchange.drafts import (
    Board,
    KalshiDraft,
    KalshiEventDraft,
    PolymarketDraft,
    PolymarketEventDraft,
    Series,
)
from arb_pipeline.exchange.families.words import day_code, eastern, long_date, us_date

__all__ = ["games"]


_TEAMS = {
    "nba": [
        ("Boston", "Celtics", "BOS"),
        ("Miami", "Heat", "MIA"),
        ("Denver", "Nuggets", "DEN"),
        ("Phoenix", "Suns", "PHX"),
        ("Milwaukee", "Bucks", "MIL"),
        ("Dallas", "Mavericks", "DAL"),
        ("Toronto", "Raptors", "TOR"),
        ("Memphis", "Grizzlies", "MEM"),
    ],
    "nfl": [
        ("Buffalo", "Bills", "BUF"),
        ("Kansas City", "Chiefs", "KC"),
        ("Green Bay", "Packers", "GB"),
        ("Chicago", "Bears", "CHI"),
        ("Seattle", "Seahawks", "SEA"),
        ("Baltimore", "Ravens", "BAL"),
        ("Philadelphia", "Eagles", "PHI"),
        ("Detroit", "Lions", "DET"),
    ],
    "nhl": [
        ("Vegas", "Golden Knights", "VGK"),
        ("Colorado", "Avalanche", "COL"),
        ("Edmonton", "Oilers", "EDM"),
        ("Winnipeg", "Jets", "WPG"),
        ("Tampa Bay", "Lightning", "TBL"),
        ("Carolina", "Hurricanes", "CAR"),
    ],
}
_SPORT = {"nba": "professional basketball", "nfl": "professional football", "nhl": "professional hockey"}


Team = tuple[str, str, str]
"""City, name, abbreviation."""


@dataclass(frozen=True, slots=True)
class _Game:
    """A game, and the proposition that the away team wins it."""

    league: str
    away: Team
    home: Team
    start: datetime
    key: str

    @property
    def code(self) -> str:
        """Date and teams as Kalshi's tickers have them."""
        return f"{day_code(self.start.date())}{self.away[2]}{self.home[2]}"

    @property
    def slug(self) -> str:
        """League, teams and date as Polymarket's slugs have them."""
        return f"{self.league}-{self.away[2]}-{self.home[2]}-{self.start.date()}".lower()

    @property
    def upcoming(self) -> str:
        """How Polymarket's rules begin."""
        return f"In the upcoming {self.league.upper()} game, scheduled for {long_date(self.start.date())}"


def games(board: Board, rng: random.Random, events: int) -> None:
    """As many games as it takes to fill both venues."""
    for league in _TEAMS:
        series = f"KX{league.upper()}GAME"
        board.series[series] = Series(series, f"{league.upper()} games", "Sports", "custom", tags=(league.upper(),))
        total = f"KX{league.upper()}TOTAL"
        board.series[total] = Series(total, f"{league.upper()} totals", "Sports", "custom", tags=(league.upper(),))
    number = 0
    while number < 12 or len(board.kalshi) < events or len(board.polymarket) < events:
        league = ("nba", "nfl", "nhl")[number % 3]
        teams = _TEAMS[league]
        away, home = rng.sample(teams, 2)
        start = eastern(board.today + timedelta(days=10 + number), 19, 30)
        key = board.proposition(f"game:{league}:{away[2]}:{home[2]}:{start.date()}", rng.uniform(0.3, 0.7))
        game = _Game(league, away, home, start, key)
        ticker = _game_kalshi(board, game)
        if number in {4, 7}:
            # The return match two days later: everything equal but the date.
            later = start + timedelta(days=2)
            other = board.proposition(f"game:{league}:{away[2]}:{home[2]}:{later.date()}", rng.uniform(0.35, 0.65))
            slug = _game_polymarket(board, _Game(league, away, home, later, other), inverted=False)
            board.near_miss(ticker, slug, "other date", "different")
        elif number == 10:
            slug = _spread_polymarket(board, game)
            board.near_miss(ticker, slug, "spread vs moneyline", "polymarket_implies_kalshi")
        else:
            _game_polymarket(board, game, inverted=number in {1, 5, 8})
        if number in {0, 2, 3}:
            _totals(board, rng, game, same=number == 3)
        number += 1


def _game_kalshi(board: Board, game: _Game) -> str:
    league, away, home, start, code = game.league, game.away, game.home, game.start, game.code
    series = f"KX{league.upper()}GAME"
    ticker = f"{series}-{code}-{away[2]}"
    matchup = f"{away[0]} at {home[0]}"
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"{series}-{code}",
            series=series,
            title=f"{matchup} Winner?",
            sub_title=f"{away[2]} at {home[2]} ({start:%b} {start.day})",
            exclusive=True,
            close=start + timedelta(days=14),
            occurrence=start + timedelta(hours=3),
            markets=(
                KalshiDraft(
                    ticker=ticker,
                    proposition=game.key,
                    title=f"{matchup} Winner?",
                    yes_title=away[0],
                    rules=f"If {away[0]} wins the {matchup} {_SPORT[league]} game originally scheduled for "
                    f"{us_date(start.date())}, then the market resolves to Yes.",
                    rules_secondary=f"The game is scheduled to start at 7:30 PM {start:%Z}. Overtime counts. If the "
                    "game is canceled or ends in a tie, the market resolves to a fair price of $0.50. If it is "
                    "postponed, the market stays open until it is played.",
                    strike={"strike_type": "structured", "custom_strike": {"team": away[2]}},
                ),
            ),
        )
    )
    return ticker


def _game_polymarket(board: Board, game: _Game, *, inverted: bool) -> str:
    league, away, home, start = game.league, game.away, game.home, game.start
    first, second = (home, away) if inverted else (away, home)
    slug = f"{league}-{first[2]}-{second[2]}-{start.date()}".lower()
    board.polymarket.append(
        PolymarketEventDraft(
            slug=slug,
            title=f"{first[1]} vs. {second[1]}",
            category="sports",
            end=start,
            tags=("Sports", league.upper()),
            series=league,
            markets=(
                PolymarketDraft(
                    slug=slug,
                    proposition=game.key,
                    inverted=inverted,
                    question=f"{first[1]} vs. {second[1]}",
                    outcomes=(first[1], second[1]),
                    rules=f"{game.upcoming} at 7:30PM ET:\n\nIf the {first[0]} {first[1]} win, the market will "
                    f'resolve to "{first[1]}".\n\nIf the {second[0]} {second[1]} win, the market will resolve to '
                    f'"{second[1]}".\n\nOvertime is included. If the game is postponed, this market will remain open '
                    "until the game has been completed. If the game is canceled entirely or ends in a tie, this "
                    "market will resolve 50-50.",
                    extra=_sports(start, "moneyline"),
                ),
            ),
        )
    )
    return slug


def _sports(start: datetime, kind: str, line: float | None = None) -> dict[str, object]:
    return {
        "gameStartTime": start.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S+00"),
        "secondsDelay": 3,
        "sportsMarketType": kind,
        **({"line": line} if line is not None else {}),
    }


def _spread_polymarket(board: Board, game: _Game) -> str:
    league, away, home, start, key = game.league, game.away, game.home, game.start, game.key
    slug = f"{game.slug}-spread-{away[2]}-1pt5".lower()
    fair = board.proposition(f"spread:{key}", board.fair[key] / 10_000 - 0.1)
    board.polymarket.append(
        PolymarketEventDraft(
            slug=slug,
            title=f"{away[1]} vs. {home[1]} - Spread",
            category="sports",
            end=start,
            tags=("Sports", league.upper()),
            series=league,
            markets=(
                PolymarketDraft(
                    slug=slug,
                    proposition=fair,
                    question=f"Spread: {away[1]} (-1.5)",
                    outcomes=(away[1], home[1]),
                    rules=f'{game.upcoming}:\n\nThis market will resolve to "{away[1]}" if the {away[0]} {away[1]} '
                    f'win the game by 2 or more. Otherwise, this market will resolve to "{home[1]}". Overtime is '
                    "included.",
                    extra=_sports(start, "spreads", -1.5),
                ),
            ),
        )
    )
    return slug


def _totals(board: Board, rng: random.Random, game: _Game, *, same: bool) -> None:
    league, away, home, start, code = game.league, game.away, game.home, game.start, game.code
    base = {"nba": 221.5, "nfl": 47.5, "nhl": 5.5}[league]
    theirs = base if same else base + 1
    series = f"KX{league.upper()}TOTAL"
    ticker = f"{series}-{code}-{base}"
    unit = "goals" if league == "nhl" else "points"
    key = board.proposition(f"total:{league}:{code}:{base}", rng.uniform(0.42, 0.55))
    other = board.proposition(f"total:{league}:{code}:{theirs}", board.fair[key] / 10_000 - 0.06)
    board.kalshi.append(
        KalshiEventDraft(
            ticker=f"{series}-{code}",
            series=series,
            title=f"{away[0]} at {home[0]}: Total {unit.title()}",
            sub_title=f"{away[2]} at {home[2]} ({start:%b} {start.day})",
            close=start + timedelta(days=14),
            occurrence=start + timedelta(hours=3),
            markets=(
                KalshiDraft(
                    ticker=ticker,
                    proposition=key,
                    title=f"{away[0]} at {home[0]}: will more than {base} {unit} be scored?",
                    yes_title=f"Over {base} {unit} scored",
                    rules=f"If {away[0]} and {home[0]} collectively score more than {base} {unit} in the "
                    f"{_SPORT[league]} game originally scheduled for {us_date(start.date())}, then the market "
                    "resolves to Yes.",
                    rules_secondary="Overtime counts. If the game is canceled, the market resolves to a fair price "
                    "of $0.50.",
                    strike={"strike_type": "greater", "floor_strike": base},
                ),
            ),
        )
    )
    slug = f"{game.slug}-total-{str(theirs).replace('.', 'pt')}"
    board.polymarket.append(
        PolymarketEventDraft(
            slug=slug,
            title=f"{away[1]} vs. {home[1]} - Total",
            category="sports",
            end=start,
            tags=("Sports", league.upper()),
            series=league,
            markets=(
                PolymarketDraft(
                    slug=slug,
                    proposition=other,
                    question=f"{away[1]} vs. {home[1]}: O/U {theirs}",
                    outcomes=("Over", "Under"),
                    rules=f'{game.upcoming}:\n\nThis market will resolve to "Over" if the {away[0]} {away[1]} and the '
                    f"{home[0]} {home[1]} combine for more than {theirs} {unit}. Otherwise, this market will resolve "
                    'to "Under". Overtime is included. If the game is canceled entirely, this market will resolve '
                    "50-50.",
                    extra=_sports(start, "totals", theirs),
                ),
            ),
        )
    )
    if not same:
        board.near_miss(ticker, slug, "other line", "polymarket_implies_kalshi")
