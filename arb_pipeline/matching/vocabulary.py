"""Closed word lists of the generic reading: aliases, actions, qualifiers, words that carry no topic.

They hold terms of art and general knowledge only, never a market, a person or a series.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

__all__ = [
    "ACTIONS",
    "ALIASES",
    "ASPECTS",
    "ASSETS",
    "CATEGORIES",
    "COMPARATIVES",
    "COMPETITIONS",
    "CONTEST_WORDS",
    "DISTINGUISHING",
    "FORMATS",
    "FUNCTION_WORDS",
    "GENDERS",
    "METRICS",
    "MONTHS",
    "NEGATION",
    "OFFICES",
    "PARTIES",
    "PERIODS",
    "REMAINS",
    "ROUNDS",
    "SOURCES",
    "STATES",
    "STATE_CODES",
    "TELLING",
    "TOPICLESS",
    "Action",
    "Choices",
]

T = TypeVar("T")

_ALIASES = {
    "federal reserve": "fed",
    "fomc": "fed",
    "federal open market": "fed",
    "united states": "us",
    "usa": "us",
    "united kingdom": "uk",
    "nyc": "new york city",
    "washington dc": "washington",
    "btc": "bitcoin",
    "eth": "ethereum",
    "gop": "republican",
    "republicans": "republican",
    "democrats": "democratic",
    "democrat": "democratic",
    "dems": "democratic",
    "consumer price index": "cpi",
    "gross domestic product": "gdp",
    "pro basketball": "nba",
    "pro hockey": "nhl",
    "pro baseball": "mlb",
    "pro football": "nfl",
    "pro football championship": "super bowl",
    "pro baseball championship": "world series",
    "pro hockey championship": "stanley cup",
    "prime minister": "pm",
    "s p 500": "sp500",
    "spx": "sp500",
    "nasdaq 100": "nasdaq100",
    "ndx": "nasdaq100",
    "football club": "fc",
    "a m": "a&m",
    "french": "france",
    "dutch": "netherlands",
    "british": "uk",
    "german": "germany",
    "spanish": "spain",
    "polish": "poland",
    "turkish": "turkey",
    "greek": "greece",
    "swedish": "sweden",
    "danish": "denmark",
    "finnish": "finland",
    "irish": "ireland",
    "swiss": "switzerland",
    "ukrainian": "ukraine",
    "argentine": "argentina",
    "hungarian": "hungary",
    "italian": "italy",
    "norwegian": "norway",
    "portuguese": "portugal",
    "mexican": "mexico",
    "canadian": "canada",
}
ALIASES: dict[tuple[str, ...], tuple[str, ...]] = {
    tuple(key.split()): tuple(value.split()) for key, value in _ALIASES.items()
}
"""Token sequences and what they are read as."""

MONTHS = {
    name: number
    for number, names in enumerate(
        (
            ("january", "jan"),
            ("february", "feb"),
            ("march", "mar"),
            ("april", "apr"),
            ("may",),
            ("june", "jun"),
            ("july", "jul"),
            ("august", "aug"),
            ("september", "sept", "sep"),
            ("october", "oct"),
            ("november", "nov"),
            ("december", "dec"),
        ),
        1,
    )
    for name in names
}
"""Month names and abbreviations to 1..12."""


class Action(StrEnum):
    """What has to happen. Closed; no word stands for a weaker or stronger one."""

    MARGIN = "margin_of_victory"
    TICKET = "ticket"
    RANK = "rank"
    NOMINEE = "nominee"
    ADVANCE = "advance"
    REACH_FINAL = "reach_final"
    REACH_SEMIFINAL = "reach_semifinal"
    PLAYOFFS = "playoffs"
    ELECTED = "elected"
    WIN_DIVISION = "win_division"
    WIN = "win"
    PARDON = "pardon"
    IMPEACH = "impeach"
    CHARGE = "charge"
    ARREST = "arrest"
    JAIL = "jail"
    SENTENCE = "sentence"
    PEACE = "peace"
    CONVICT = "convict"
    SUE = "sue"
    ENDORSE = "endorse"
    RUN = "run"
    RESIGN = "resign"
    FIRE = "fire"
    LEAVE = "leave"
    MEET = "meet"
    VISIT = "visit"
    RECOGNISE = "recognise"
    BUY = "buy"
    ACQUIRE = "acquire"
    SAY = "say"
    CHAMBER = "pass_chamber"
    LAW = "become_law"
    CONFIRM = "confirm"
    JOIN = "join"
    DEFAULT = "default"
    DOWNGRADE = "downgrade"
    ABOLISH = "abolish"
    CEASEFIRE = "ceasefire"
    RELEASE = "release"
    IPO = "ipo"
    INVADE = "invade"
    STRIKE = "strike"
    SIGN = "sign"
    ANNOUNCE = "announce"


@dataclass(frozen=True, slots=True)
class Choices(Generic[T]):
    """Values by pattern over folded text, the more specific first. ``any`` finds out at once that none is there."""

    values: tuple[tuple[T, re.Pattern[str]], ...]
    any: re.Pattern[str]


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _choices(*values: tuple[T, re.Pattern[str]]) -> Choices[T]:
    return Choices(values, re.compile("|".join(pattern.pattern for _, pattern in values)))


def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{words})\b")


ACTIONS: Choices[Action] = _choices(
    (
        Action.MARGIN,
        _pattern(
            r"margins? of (?:victory|defeat)|(?:vote|popular vote|winning) margin"
            r"|wins? [^?.|]{0,80}\bby (?:more than|over|at least|less than|under|between)"
        ),
    ),
    (Action.TICKET, _pattern(r"ticket|nominees")),
    (
        Action.RANK,
        _pattern(
            r"(?:second|third|fourth|2nd|3rd|4th|last) place|runner[- ]up|top[- ]\d+"
            r"|finish(?:es)? (?:second|third|last|in the top)"
        ),
    ),
    (Action.NOMINEE, _pattern(r"nominee|nomination|nominate[sd]?|primary(?: election)?(?: winner)?")),
    (Action.REACH_SEMIFINAL, _pattern(r"(?:reach|make|advance to|qualify for) the semi[- ]?finals?")),
    (
        Action.REACH_FINAL,
        _pattern(r"(?:reach|make|play in|advance to|qualify for) the (?:\S+ ){0,5}(?:final|finals)\b(?! four)"),
    ),
    (Action.PLAYOFFS, _pattern(r"(?:make|reach|qualify for|miss|in) the (?:\S+ ){0,3}playoffs?")),
    (Action.ADVANCE, _pattern(r"advances?|advancing|qualif(?:y|ies)|progress(?:es)? to")),
    (
        Action.ELECTED,
        _pattern(
            r"elected|(?:wins? |controls? (?:of )?)(?:the )?(?:us |u\.s\. )?(?:house|senate)\b"
            r"|wins? (?:the )?(?:\S+ ){0,5}(?:elections?|presidency|race|runoff|governorship|mayoralty)"
            r"|elections? winner|(?:presidential|senate|gubernatorial|mayoral|governor) winner"
        ),
    ),
    (Action.WIN_DIVISION, _pattern(r"wins? the (?:\w+ ){0,3}(?:division|conference|pennant|group)|wins? group \w+")),
    (Action.PARDON, _pattern(r"pardon(?:s|ed)?|clemency|commut(?:e|es|ed|ation)")),
    (Action.IMPEACH, _pattern(r"impeach(?:es|ed|ment)?")),
    (Action.CONVICT, _pattern(r"convict(?:ed|ion)?|found guilty|contempt")),
    (Action.CHARGE, _pattern(r"charged|indict(?:ed|ment)?")),
    (Action.ARREST, _pattern(r"arrest(?:ed)?|detained|in custody")),
    (Action.SENTENCE, _pattern(r"sentenced|(?:prison|jail) sentence")),
    (Action.JAIL, _pattern(r"jail(?:ed)?|imprisoned|prison")),
    (Action.SUE, _pattern(r"sues?|lawsuit")),
    (Action.ENDORSE, _pattern(r"endorses?")),
    (Action.RUN, _pattern(r"(?:announces?|declares?|presidential|enters?) (?:\w+ ){0,2}(?:run|candidacy)|runs? for")),
    (Action.RESIGN, _pattern(r"resigns?|resignation|steps? down")),
    (Action.FIRE, _pattern(r"fires?|fired|firing")),
    (
        Action.LEAVE,
        _pattern(r"leaves?|leaving|departs?|ousted|removed|(?<!for )(?<!both )out(?! of)|out of (?:power|office)"),
    ),
    (Action.LEAVE, _pattern(r"remains?(?! (?:above|below|at|over|under|within))|stays? (?:as|in|on as)")),
    (Action.MEET, _pattern(r"meets?|meeting with|talks? (?:to|with)|speaks? (?:to|with)")),
    (Action.VISIT, _pattern(r"visits?|enters?|travels? to")),
    (Action.RECOGNISE, _pattern(r"recogni[sz]es?")),
    (Action.BUY, _pattern(r"buys?|purchases?")),
    (Action.ACQUIRE, _pattern(r"acquires?|annex(?:es)?")),
    (Action.SAY, _pattern(r"says?|mentions?")),
    (Action.LAW, _pattern(r"becomes? (?:a )?law|signed into law|enacted|pass(?:es|ed)? into law")),
    (
        Action.CHAMBER,
        _pattern(r"pass(?:es|ed)? (?:the |in the |through the )?(?:\w+ )?(?:house|senate|committee|chamber)"),
    ),
    (Action.CONFIRM, _pattern(r"confirm(?:s|ed)?")),
    (Action.JOIN, _pattern(r"joins?")),
    (Action.DEFAULT, _pattern(r"defaults?")),
    (Action.DOWNGRADE, _pattern(r"downgrades?|downgraded")),
    (Action.ABOLISH, _pattern(r"abolish(?:es|ed)?")),
    (Action.PEACE, _pattern(r"peace (?:deal|agreement|treaty|plan)")),
    (Action.CEASEFIRE, _pattern(r"ceasefire")),
    (Action.RELEASE, _pattern(r"releases?|released|launch(?:es|ed)?")),
    (Action.IPO, _pattern(r"ipo|go(?:es)? public")),
    (Action.INVADE, _pattern(r"invades?|invasion")),
    (Action.STRIKE, _pattern(r"strikes?|bombs?|attacks?|military action")),
    (Action.SIGN, _pattern(r"signs?|signed")),
    (Action.ANNOUNCE, _pattern(r"announces?|announced|unveils?|unveiled")),
    (Action.WIN, _pattern(r"wins?|winners?|champions?|championship winner|beats?|defeats?")),
)
"""What has to happen, in the words that say it."""

NEGATION = re.compile(
    r"\b(?:not|miss(?:es)?(?= (?:out|the))|won't|never|fails? to|without|no(?! change| later| less| more| fewer|\.))\b"
)
"""Words that turn a question round. ``no change`` is a decision of its own."""

REMAINS = _pattern(r"remains?(?! (?:above|below|at|over|under|within))|stays? (?:as|in|on as)")
"""A leaving that does not happen."""

METRICS: Choices[str] = _choices(
    ("lower bound", _pattern(r"lower (?:bound|limit)")),
    ("upper bound", _pattern(r"upper (?:bound|limit)")),
    ("core cpi", _pattern(r"core (?:cpi|inflation)")),
    ("core pce", _pattern(r"core pce")),
    ("pce", _pattern(r"pce|personal consumption expenditures")),
    ("ppi", _pattern(r"ppi|producer price index")),
    ("retail sales", _pattern(r"retail sales")),
    ("job openings", _pattern(r"job openings|jolts")),
    ("housing starts", _pattern(r"housing starts")),
    ("home sales", _pattern(r"(?:existing|new) home sales")),
    ("ism", _pattern(r"ism (?:manufacturing|services)|(?:manufacturing|services) pmi")),
    ("consumer sentiment", _pattern(r"consumer (?:sentiment|confidence)")),
    ("gas price", _pattern(r"gas(?:oline)? prices?")),
    ("mortgage rate", _pattern(r"mortgage rates?")),
    ("box office", _pattern(r"box office|opening weekend|grosse?s?")),
    ("critics' score", _pattern(r"rotten tomatoes|tomatometer|metacritic")),
    ("magnitude", _pattern(r"earthquakes?|magnitude")),
    ("rainfall", _pattern(r"rain(?:fall)?|precipitation")),
    ("snowfall", _pattern(r"snow(?:fall)?")),
    ("cpi", _pattern(r"cpi|inflation")),
    ("gdp", _pattern(r"gdp")),
    ("unemployment", _pattern(r"unemployment(?: rate)?|jobless rate")),
    ("payrolls", _pattern(r"(?:nonfarm|non-farm) payrolls?|jobs? (?:added|report|numbers?)|payrolls?")),
    ("jobless claims", _pattern(r"(?:initial )?(?:jobless|unemployment) claims")),
    ("population", _pattern(r"population")),
    ("net worth", _pattern(r"net worth")),
    ("market cap", _pattern(r"market cap(?:itali[sz]ation)?|largest company")),
    ("high temperature", _pattern(r"(?:highest|high|maximum|max) temp(?:erature)?")),
    ("low temperature", _pattern(r"(?:lowest|low|minimum|min) temp(?:erature)?")),
    ("disapproval", _pattern(r"disapproval(?: rating)?")),
    ("approval", _pattern(r"approval(?: rating)?")),
    ("tariff", _pattern(r"tariffs?")),
    ("national debt", _pattern(r"national debt")),
)
"""What is measured, the more specific first."""

SOURCES: Choices[str] = _choices(
    ("cf benchmarks", _pattern(r"cf benchmarks|brti|erti|cme cf")),
    ("chainlink", _pattern(r"chainlink")),
    ("binance", _pattern(r"binance")),
    ("coinbase", _pattern(r"coinbase")),
    ("coingecko", _pattern(r"coingecko")),
    ("pyth", _pattern(r"pyth")),
    ("kraken", _pattern(r"kraken")),
    ("nws", _pattern(r"national weather service|nws|climatological report|noaa")),
    ("wunderground", _pattern(r"wunderground|weather underground")),
    ("accuweather", _pattern(r"accuweather")),
)
"""Sources that settle differently even on the same asset, strike and minute, or the same city and day."""

PERIODS: Choices[str] = _choices(
    ("first half", _pattern(r"(?:first|1st) half|1h")),
    ("second half", _pattern(r"(?:second|2nd) half|2h")),
    ("first quarter", _pattern(r"(?:first|1st) quarter|1q")),
    ("first inning", _pattern(r"(?:first|1st) inning")),
    ("first five innings", _pattern(r"(?:first|1st) (?:5|five) innings")),
    ("first set", _pattern(r"(?:first|1st) set|set 1")),
    ("map", _pattern(r"map \d")),
    ("regulation", _pattern(r"(?:in|after|at the end of) regulation(?: time)?|90 minutes")),
)
"""Which part of a game counts. A game without such words is the whole game."""

ROUNDS: Choices[str] = _choices(
    ("round of 128", _pattern(r"round of 128")),
    ("round of 64", _pattern(r"round of 64")),
    ("round of 32", _pattern(r"round of 32")),
    ("round of 16", _pattern(r"round of 16|r16")),
    ("quarterfinal", _pattern(r"quarter[- ]?finals?")),
    ("semifinal", _pattern(r"semi[- ]?finals?")),
    ("first round", _pattern(r"first round|1st round|round 1")),
    ("second round", _pattern(r"second round|2nd round|round 2")),
    ("primary", _pattern(r"primary")),
    ("runoff", _pattern(r"run-?off")),
)
"""Stages of a contest."""

GENDERS: Choices[str] = _choices(
    ("women", _pattern(r"women(?:'s)?|ladies|wnba|wta")),
    ("men", _pattern(r"men(?:'s)?|gentlemen(?:'s)?|atp")),
)
FORMATS: Choices[str] = _choices(
    ("doubles", _pattern(r"doubles")),
    ("singles", _pattern(r"singles")),
)
PARTIES: Choices[str] = _choices(
    ("democratic", _pattern(r"democratic|democrats?|dem")),
    ("republican", _pattern(r"republicans?|gop")),
)
OFFICES: Choices[str] = _choices(
    ("deputy prime minister", _pattern(r"deputy (?:prime minister|pm)")),
    ("prime minister", _pattern(r"prime minister|(?<![\d ] )(?<!\d)\bpm(?! ?\(?e[sd]?t)")),
    ("defence minister", _pattern(r"defen[cs]e minister|minister (?:of|for) defen[cs]e")),
    ("foreign minister", _pattern(r"foreign minister|minister (?:of|for) foreign")),
    ("finance minister", _pattern(r"financ(?:e|ial) minister|minister (?:of|for) financ(?:e|es)")),
    ("interior minister", _pattern(r"interior minister|minister (?:of|for) the interior")),
    ("vice president", _pattern(r"vice[- ]president(?:ial)?|vice[- ]presidency|running mate")),
    ("president", _pattern(r"president(?:ial)?|presidency")),
    ("state senate", _pattern(r"state senat(?:e|or|orial)")),
    ("state house", _pattern(r"state (?:house|assembly)")),
    ("senate", _pattern(r"senat(?:e|or|orial)")),
    ("house", _pattern(r"(?<!white )house|congressional district|[a-z]{2}-\d{1,2}")),
    ("lieutenant governor", _pattern(r"lieutenant governor|lt\.? governor")),
    ("attorney general", _pattern(r"attorney general")),
    ("governor", _pattern(r"governor(?:ship)?|gubernatorial")),
    ("mayor", _pattern(r"mayor(?:al|alty)?")),
    ("supreme court", _pattern(r"supreme court")),
)
COMPETITIONS: Choices[str] = _choices(
    ("super bowl", _pattern(r"super bowl|pro football championship")),
    ("world series", _pattern(r"world series|pro baseball championship")),
    ("stanley cup", _pattern(r"stanley cup|pro hockey championship")),
    ("nba cup", _pattern(r"nba cup")),
    ("nba finals", _pattern(r"(?:nba|pro basketball) (?:finals|championship)")),
    ("women's world cup", _pattern(r"women's world cup")),
    ("club world cup", _pattern(r"club world cup")),
    ("world cup", _pattern(r"world cup")),
    ("champions league", _pattern(r"champions league")),
    ("europa league", _pattern(r"europa league")),
    ("premier league", _pattern(r"premier league|epl")),
    ("wimbledon", _pattern(r"wimbledon")),
    ("us open", _pattern(r"us open|u\.s\. open")),
    ("french open", _pattern(r"french open|roland garros")),
    ("australian open", _pattern(r"australian open")),
    ("la liga", _pattern(r"la liga")),
    ("serie a", _pattern(r"serie a")),
    ("bundesliga", _pattern(r"bundesliga")),
    ("ligue 1", _pattern(r"ligue 1")),
    ("fa cup", _pattern(r"fa cup")),
    ("conference league", _pattern(r"conference league")),
    ("mls cup", _pattern(r"mls cup")),
    ("march madness", _pattern(r"march madness|ncaa (?:men's |women's )?(?:basketball )?(?:tournament|championship)")),
    ("college football playoff", _pattern(r"college football (?:playoff|championship)|cfp")),
    ("masters", _pattern(r"masters(?: tournament)?")),
    ("pga championship", _pattern(r"pga championship")),
    ("ryder cup", _pattern(r"ryder cup")),
    ("formula 1", _pattern(r"formula (?:1|one)|f1")),
    ("eurovision", _pattern(r"eurovision")),
    ("euro", _pattern(r"euro (?:19|20)\d\d|european championship")),
    ("copa america", _pattern(r"copa america")),
)
ASSETS: Choices[str] = _choices(
    ("bitcoin", _pattern(r"bitcoin|btc")),
    ("ethereum", _pattern(r"ethereum|eth|ether")),
    ("solana", _pattern(r"solana")),
    ("xrp", _pattern(r"xrp|ripple")),
    ("dogecoin", _pattern(r"dogecoin|doge")),
    ("gold", _pattern(r"gold(?= price|$| (?:be|close|hit|reach|settle))|xau")),
    ("silver", _pattern(r"silver(?= price|$| (?:be|close|hit|reach|settle))|xag")),
    ("wti", _pattern(r"wti|crude(?: oil)?")),
    ("brent", _pattern(r"brent")),
    ("natural gas", _pattern(r"natural gas|henry hub")),
    ("copper", _pattern(r"copper(?= price|$| (?:be|close|hit|reach|settle))")),
    ("s&p 500", _pattern(r"s ?& ?p ?500|sp500|spx|s ?& ?p")),
    ("nasdaq 100", _pattern(r"nasdaq[- ]?100|ndx")),
    ("nasdaq composite", _pattern(r"nasdaq(?: composite)?")),
    ("dow", _pattern(r"dow jones|djia")),
    ("russell 2000", _pattern(r"russell 2000")),
    ("vix", _pattern(r"vix")),
    ("nikkei", _pattern(r"nikkei(?: 225)?")),
    ("cardano", _pattern(r"cardano")),
    ("litecoin", _pattern(r"litecoin")),
    ("bnb", _pattern(r"bnb|binance coin")),
    ("sui", _pattern(r"sui")),
    ("hyperliquid", _pattern(r"hyperliquid")),
    ("eurusd", _pattern(r"eur/?usd")),
    ("usdjpy", _pattern(r"usd/?jpy")),
)

_STATES = _word_set(
    "al:alabama ak:alaska az:arizona ar:arkansas ca:california co:colorado ct:connecticut de:delaware fl:florida "
    "ga:georgia hi:hawaii id:idaho il:illinois in:indiana ia:iowa ks:kansas ky:kentucky la:louisiana me:maine "
    "md:maryland ma:massachusetts mi:michigan mn:minnesota ms:mississippi mo:missouri mt:montana ne:nebraska "
    "nv:nevada nh:new_hampshire nj:new_jersey nm:new_mexico ny:new_york nc:north_carolina nd:north_dakota oh:ohio "
    "ok:oklahoma or:oregon pa:pennsylvania ri:rhode_island sc:south_carolina sd:south_dakota tn:tennessee tx:texas "
    "ut:utah vt:vermont wv:west_virginia va:virginia wi:wisconsin wy:wyoming"
)
STATE_CODES = {entry[:2]: entry[3:].replace("_", " ") for entry in sorted(_STATES)}
"""Postal codes of the states of the US to their names, but Washington's, which is a city and a man as well."""

STATES = re.compile(rf"\b(?:{'|'.join(sorted(STATE_CODES.values(), reverse=True))})\b")
"""The names of those states."""

DISTINGUISHING = _word_set(
    "north south east west northern southern eastern western jr sr ii iii iv women ladies u21 u20 u19 u17 "
    "reserves equatorial bissau papua state tech a&m inter ac real atletico city united dr republic"
)
"""Words that make another name of a name: a name with and one without never mean the same."""

ASPECTS = _word_set(
    "pole podium fastest lap finalist finalists shortlist shortlisted longlist leader halftime sweep popular "
    "turnout disapproval album albums song songs artist artists track movie film show episode novel produce "
    "produced production deliver delivered deliveries revenue profit earnings audience worldwide global trailer "
    "delay delayed blockade talks overtime penalties shootout rebounds assists touchdowns strikeouts goalscorer "
    "quarterback receiver pitcher goalkeeper rookie ambassador deputy interim acting confidence dissent dissents "
    "pause named pacific atlantic"
)
"""Words that pick one of several things that the same people and events are asked about. Where no text of the other
market has the word, it asks about another one."""

CATEGORIES = _word_set(
    "company companies country countries nation person people candidate candidates state city top best leading "
    "agree agrees agreed receive receives received give gives given grant grants granted begin begins start "
    "starts happens"
)
"""Words that only say what kind of thing the answers are, and verbs that lend themselves to any noun."""

FUNCTION_WORDS = _word_set(
    "a an the of in on at by for to from with and or but is are be been being was were will would shall "
    "should can could may might do does did has have had it its this that these those there their his her "
    "they he she who whom which what when where why how any some all each every no not than then as if into "
    "over under above below before after between during until through within about per vs v versus up down "
    "off out so such only own same s t d de la el"
)
"""Words that only hold a sentence together."""

CONTEST_WORDS = _word_set(
    "winner winners match game games moneyline spread total totals fc cf sc afc round final finals series live"
)
"""Words around the names of a contest's sides."""

TOPICLESS = _word_set(
    "cross crosses surpass surpasses exceed exceeds dip dips fall falls drop drops "
    "yes market markets resolve resolves resolved resolution question happen happens take takes place get "
    "gets make makes go goes come become becomes official officially announce announces announced "
    "announcement least most more less greater higher lower fewer larger exactly equal equals end ends close "
    "closes closing settle settles settled hit hits reach reaches touch touches trade trades price value rate "
    "rates level number many much year years month months week weeks day days date today tomorrow this next "
    "first last time times win wins winner winners winning won champion champions championship title beat "
    "beats defeat defeats nominee nomination nominated primary election elections elected presidential "
    "presidency president candidate race run runs running cut cuts hike hikes hold holds decrease decreases "
    "increase increases raise raises lower lowers change changes unchanged maintain maintains pause decision "
    "decisions meeting meetings bps bp basis points point percent percentage degrees degree fahrenheit "
    "celsius f c usd dollars dollar thousand million billion trillion k m b am pm et est edt utc gmt pt ct "
    "season seasons match matches game games tournament event round final finals leave leaves leaving depart "
    "out ousted removed office role resign resigns step fire fired visit visits enter enters travel meet "
    "meets person sue sues pardon pardoned pardons law signed sign spread total totals moneyline winner "
    "margin draw tie team teams pro men mens women professional high low highest lowest maximum minimum max "
    "min upper bound jan january feb february mar march apr april may jun june jul july aug august sep sept "
    "september oct october nov november dec december monday tuesday wednesday thursday friday saturday sunday "
    "noon midnight inclusive midterm midterms fc cf sc afc temp temperature interest"
)
"""Words that typed slots already read, or that say nothing of the topic."""

COMPARATIVES = _word_set("least most more less greater fewer larger higher lower exactly equal equals points point")
"""Words that say which numbers an interval holds."""

TELLING = COMPARATIVES | _word_set(
    "first last next final finals season seasons round title announce announces announced announcement sign signed "
    "team teams professional race runs running draw tie margin total spread bound match matches tournament event "
    "nominated primary change changes unchanged highest lowest maximum minimum champion champions championship "
    "elected leave leaves leaving depart ousted removed resign resigns fire fired visit visits meet meets sue sues "
    "pardon pardoned pardons nominee nomination"
)
"""Words without a topic that make another question of a question where no slot carries them."""
