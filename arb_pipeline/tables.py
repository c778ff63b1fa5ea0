"""Every table once: columns, key, order, partitioning and words.

Parquet files, Postgres tables, DuckDB views and Dagster's column schemas are all made from these declarations.
Prices are dollars per contract ``DECIMAL(9,4)``, sizes contracts ``DECIMAL(18,6)``, money dollars
``DECIMAL(24,10)``; ``*_at`` is a UTC timestamp in microseconds, ``*_ns`` nanoseconds since the Unix epoch.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import pyarrow as pa

__all__ = ["SCHEMA_VERSION", "TABLES", "Column", "Partitioning", "Table", "describe", "table"]

SCHEMA_VERSION = 4
"""Rises with every change of a declaration. New columns are nullable, so that readers of old files keep working."""

STRING = pa.string()
INT = pa.int64()
BOOL = pa.bool_()
FLOAT = pa.float64()
PRICE = pa.decimal128(9, 4)
TRADE_PRICE = pa.decimal128(12, 9)
SIZE = pa.decimal128(18, 6)
MONEY = pa.decimal128(24, 10)
EDGE_TIME = pa.decimal128(38, 10)
RATE = pa.decimal128(18, 9)
TIMESTAMP = pa.timestamp("us", tz="UTC")
DATE = pa.date32()


class Partitioning(StrEnum):
    """How a table's files are laid out below the lake's root."""

    HOUR = "hour"
    """``venue=<v>/date=<d>/hour=<h>`` (``date=<d>/hour=<h>`` where a row concerns both venues)."""
    DATE = "date"
    """``venue=<v>/date=<d>`` or ``date=<d>``."""
    CURRENT = "current"
    """One partition that always holds the newest state."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: name, Arrow type, whether it may be null, and what it means."""

    name: str
    type: pa.DataType
    doc: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        key: columns that identify a row within a partition.
        sort: columns that rows are ordered by within a file.
        by_venue: whether ``venue`` is a partition level (it is a column in any case).
    """

    name: str
    doc: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    sort: tuple[str, ...]
    partitioning: Partitioning
    by_venue: bool = True

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema; each field's metadata carries its description."""
        return pa.schema(
            [
                pa.field(column.name, column.type, column.nullable, {b"doc": column.doc.encode()})
                for column in self.columns
            ],
            metadata={b"arb.table": self.name.encode(), b"arb.schema_version": str(SCHEMA_VERSION).encode()},
        )

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns in order."""
        return tuple(column.name for column in self.columns)


def _c(name: str, type_: pa.DataType, doc: str) -> Column:
    return Column(name, type_, doc)


def _n(name: str, type_: pa.DataType, doc: str) -> Column:
    return Column(name, type_, doc, nullable=True)


_VENUE = _c("venue", STRING, "kalshi or polymarket")
_MARKET = _c("market_id", STRING, "Kalshi ticker or Polymarket condition id")
_SOURCE = _c("source", STRING, "ws (pushed) or rest (polled)")
_RECV = _c("recv_ns", INT, "receive time at the recorder, ns since the epoch; never falls within a connection")
_ORDINAL = _c("ordinal", INT, "the recorder's order: unique in the table, rising within a connection")
_VENUE_NS = _n("venue_ns", INT, "the venue's own time of the change, ns since the epoch")
_SEQ = _n("seq", INT, "the venue's sequence number of the frame, where it has one")
_CONNECTION = _c("connection_id", STRING, "the connection it was received on")
_KALSHI = _c("kalshi_market_id", STRING, "Kalshi ticker")
_POLYMARKET = _c("polymarket_market_id", STRING, "Polymarket condition id")
_KIND = _c("kind", STRING, "two_leg, inverted, implication or exclusive")
_DIRECTION = _c(
    "direction",
    STRING,
    "yes_kalshi (YES on Kalshi and the opposite on Polymarket) or yes_polymarket; of exclusive questions NO of both",
)
_REASONS = _c("reasons", STRING, "JSON list of the guards that did not hold")
_AT_BEST = (
    _c("size", SIZE, "contracts at the best instant, the profit-maximising size"),
    _c("gross", MONEY, "payout less prices at that size, dollars"),
    _c("fees", MONEY, "fees of both legs, dollars"),
    _c("net", MONEY, "gross less fees, dollars"),
    _c("capital", MONEY, "prices plus fees, dollars, all prepaid"),
    _c("roi", FLOAT, "net / capital"),
    _n("annualised", FLOAT, "simple: roi x 365 / days to payout of the later leg"),
    _n("worst_state_net", MONEY, "net in the worst settlement state that the rules allow; null if unknown"),
)
_PRICES_AT_BEST = (
    _c("kalshi_vwap", MONEY, "average price paid on Kalshi, dollars per contract"),
    _c("polymarket_vwap", MONEY, "average price paid on Polymarket, dollars per contract"),
    _c("kalshi_limit", PRICE, "worst price consumed on Kalshi, dollars"),
    _c("polymarket_limit", PRICE, "worst price consumed on Polymarket, dollars"),
    _c("kalshi_fee_schedule", STRING, "fee schedule used on Kalshi"),
    _c("polymarket_fee_schedule", STRING, "fee schedule used on Polymarket"),
    _c("match_status", STRING, "status of the pair when evaluated"),
)
_AT_OTHER_SIZES = (
    _n("days", FLOAT, "days to payout of the later leg, at least one"),
    _n("compound", FLOAT, "(1 + roi) ** (365 / days) - 1; null under a week"),
    _n("excess", FLOAT, "annualised less the hurdle of the settings"),
    _n("worst_state_annualised", FLOAT, "worst_state_net / capital x 365 / days"),
    _n("top_size", SIZE, "contracts at both tops, at the best instant"),
    _n("net_top", MONEY, "net of those, dollars"),
    *(_n(f"net_{dollars}", MONEY, f"net of the largest size for ${dollars:,}") for dollars in (100, 500, 1_000, 5_000)),
    _n("smallest_size", SIZE, "smallest size that earns anything"),
    _n("size_at_balances", SIZE, "largest size that the balances in the settings pay for"),
    _n("net_at_balances", MONEY, "net of it, dollars"),
)
_BASKET_KIND = _c("kind", STRING, "yes_basket, no_basket or best_of_both")
_BASKET_EVENT = _c("event_id", STRING, "the event of which the outcomes are bought")
_BASKET_OUTCOME = _c(
    "outcome", STRING, "the market that a basket is about alone; empty, as it is about all of the event's"
)
_BASKET_AT_BEST = (
    _c("bought_on", STRING, "kalshi, polymarket or both"),
    _n("partner_event_id", STRING, "the other venue's event, of a basket over both: the one with most of the partners"),
    _c("legs", STRING, "JSON list of venue, market_id, outcome (yes or no), size, vwap, limit, fee and fee_schedule"),
    _c("payout", MONEY, "least payout of one basket over the ordinary states, dollars"),
    _c("size", SIZE, "baskets, at the largest net"),
    _c("gross", MONEY, "payout less prices paid, dollars"),
    _c("fees", MONEY, "fees of all legs, dollars"),
    _c("net", MONEY, "gross less fees, dollars"),
    _c("capital", MONEY, "prices and fees paid, dollars"),
    _n("capital_after_return", MONEY, "what stays tied up where the venue returns collateral of NO positions, dollars"),
    _n("roi", FLOAT, "net / capital"),
    _n("days", FLOAT, "days to the payout of the last leg"),
    _n("annualised", FLOAT, "roi x 365 / days"),
    _n("worst_state_net", MONEY, "net in the worst state, exceptional ones included; null if not known"),
)
_OHLC = {"open": "first", "high": "highest", "low": "lowest", "close": "last"}

_ALL = (
    Table(
        name="events",
        doc="Events of both venues, newest state of the day.",
        columns=(
            _VENUE,
            _c("event_id", STRING, "Kalshi event ticker or Polymarket event id"),
            _c("series_id", STRING, "series ticker or slug, empty if none"),
            _c("title", STRING, "title"),
            _c("sub_title", STRING, "sub-title, empty if none"),
            _c("slug", STRING, "last part of the page's address, empty if none"),
            _c("url", STRING, "address of the page"),
            _c("category", STRING, "the venue's category, empty if none"),
            _c("tags", STRING, "JSON list of the venue's tags"),
            _n("series_ids", STRING, "JSON list of the venue's ids of its series, where those have ids"),
            _n("tag_ids", STRING, "JSON list of the venue's ids of its tags, where those have ids"),
            _c("rules", STRING, "event-level rules text, empty if the venue keeps it on the markets"),
            _c("mutually_exclusive", BOOL, "at most one market of the event resolves YES"),
            _c("settlement_sources", STRING, "JSON list of {name, url}"),
            _n("start_at", TIMESTAMP, "scheduled start"),
            _n("end_at", TIMESTAMP, "scheduled end (not the time of resolution)"),
            _n("updated_at", TIMESTAMP, "last change according to the venue"),
            _c("market_count", INT, "number of its markets in the table markets"),
            _n("listed_markets", INT, "number of markets that the venue lists under it, unreadable ones included"),
            _c("fetched_at", TIMESTAMP, "when it was fetched"),
            _c("raw", STRING, "the venue's record without its markets, JSON"),
        ),
        key=("venue", "event_id"),
        sort=("venue", "event_id"),
        partitioning=Partitioning.DATE,
    ),
    Table(
        name="markets",
        doc="Markets of both venues, newest state of the day, with rules, times, grid, fees and token ids.",
        columns=(
            _VENUE,
            _MARKET,
            _c("event_id", STRING, "the venue's id of the event"),
            _c("series_id", STRING, "series ticker or slug, empty if none"),
            _c("title", STRING, "the full question"),
            _c(
                "yes_title",
                STRING,
                "what YES stands for within the event, empty if nothing more than the title",
            ),
            _c("no_title", STRING, "what NO stands for, empty if nothing more than the title"),
            _c("slug", STRING, "last part of the page's address, empty if none"),
            _c("url", STRING, "address of the page"),
            _c("outcomes", STRING, "JSON list of the two outcome names, YES first"),
            _c("status", STRING, "unopened, open, paused, closed, determined or settled"),
            _c("venue_status", STRING, "the venue's own word for the status"),
            _c("result", STRING, "yes, no, a split such as 0.5, or empty"),
            _c("rules", STRING, "the rules text that decides"),
            _c("rules_sha256", STRING, "SHA-256 of rules"),
            _c("settlement_sources", STRING, "JSON list of {name, url}"),
            _n("created_at", TIMESTAMP, "when the venue listed it"),
            _n("updated_at", TIMESTAMP, "last change according to the venue"),
            _n("open_at", TIMESTAMP, "start of trading"),
            _n("close_at", TIMESTAMP, "scheduled end of trading; it moves"),
            _n("expected_expiration_at", TIMESTAMP, "when the venue expects the outcome"),
            _n("occurrence_at", TIMESTAMP, "when the occasion takes place"),
            _n("settlement_timer_s", INT, "seconds between determination and payout"),
            _c("tick", PRICE, "finest price step, dollars"),
            _c("price_ranges", STRING, "JSON list of {start, end, step}, 1e-4 dollars"),
            _c("min_size", SIZE, "smallest order, contracts"),
            _c("size_step", SIZE, "lot, contracts"),
            _c("yes_token_id", STRING, "Polymarket position id of YES, empty elsewhere"),
            _c("no_token_id", STRING, "Polymarket position id of NO, empty elsewhere"),
            _c("neg_risk", BOOL, "the venue nets the event's outcomes against one another"),
            _c("fee_params", STRING, "JSON of the fee parameters that the venue publishes"),
            _c("strike", STRING, "JSON of strike, line and slug fields by the venue's names"),
            _n("volume", SIZE, "contracts traded (Polymarket: dollars)"),
            _n("volume_24h", SIZE, "the same over 24 hours"),
            _n("open_interest", SIZE, "contracts held"),
            _n("liquidity", SIZE, "the venue's own liquidity figure, dollars"),
            _c(
                "last_trade_price",
                STRING,
                "market-level last trade price as the venue prints it, empty if unknown",
            ),
            _c("fetched_at", TIMESTAMP, "when it was fetched"),
            _c("raw", STRING, "the venue's record, JSON"),
        ),
        key=("venue", "market_id"),
        sort=("venue", "market_id"),
        partitioning=Partitioning.DATE,
    ),
    Table(
        name="market_history",
        doc="How each market stood between two listings that showed it differently: status, rules, times, grid, fees.",
        columns=(
            _VENUE,
            _MARKET,
            _c("status", STRING, "unopened, open, paused, closed, determined or settled"),
            _c("venue_status", STRING, "the venue's own word for the status"),
            _c("result", STRING, "yes, no, a split such as 0.5, or empty"),
            _c("rules_sha256", STRING, "SHA-256 of the rules text"),
            _n("open_at", TIMESTAMP, "start of trading"),
            _n("close_at", TIMESTAMP, "scheduled end of trading"),
            _n("expected_expiration_at", TIMESTAMP, "when the venue expects the outcome"),
            _n("occurrence_at", TIMESTAMP, "when the occasion takes place"),
            _n("settlement_timer_s", INT, "seconds between determination and payout"),
            _c("tick", PRICE, "finest price step, dollars"),
            _c("price_ranges", STRING, "JSON list of {start, end, step}, 1e-4 dollars"),
            _c("min_size", SIZE, "smallest order, contracts"),
            _c("size_step", SIZE, "lot, contracts"),
            _c("fee_params", STRING, "JSON of the fee parameters that the venue publishes, keys in order"),
            _c("changed", STRING, 'JSON list of the columns that changed; ["listed"] where there was no row before'),
            _c("valid_from", TIMESTAMP, "the listing that first showed it so"),
            _n("valid_to", TIMESTAMP, "the listing that showed it otherwise or not at all; null while it holds"),
            _c("known_at", TIMESTAMP, "when valid_from became known"),
        ),
        key=("venue", "market_id", "valid_from"),
        sort=("market_id", "valid_from"),
        partitioning=Partitioning.DATE,
    ),
    Table(
        name="fee_schedules",
        doc="Fee parameters of both venues by the time from which they hold: what was announced, what listings showed, "
        "and what the documentation says. The narrower scope precedes: market, event, series, default. Of Polymarket "
        "markets that are listed no more only those whose schedule changed are kept.",
        columns=(
            _VENUE,
            _c("scope", STRING, "default, series (Polymarket: category), event or market"),
            _c("scope_id", STRING, "series ticker, category, event ticker or market id; empty for default"),
            _c("params", STRING, "JSON of the parameters, numbers as text; {} clears an override"),
            _n("fee_type", STRING, "Kalshi's fee_type, null where the wider scope's holds"),
            _n("multiplier", RATE, "Kalshi's fee_multiplier, likewise; null also if it is no number"),
            _n("rate", RATE, "Polymarket's rate, likewise"),
            _n("exponent", INT, "Polymarket's exponent, likewise"),
            _c("valid_from", TIMESTAMP, "from when it holds (it may be in the future); 1970-01-01: always"),
            _n("valid_to", TIMESTAMP, "when the next change of the scope takes over; null if none is known"),
            _c("known_at", TIMESTAMP, "the listing that told it first"),
            _n("known_to", TIMESTAMP, "the listing that told it otherwise or not at all; null while it is told"),
            _c("source", STRING, "the page or the call that tells it"),
        ),
        key=("venue", "scope", "scope_id", "valid_from", "known_at"),
        sort=("venue", "scope", "scope_id", "valid_from", "known_at"),
        partitioning=Partitioning.CURRENT,
        by_venue=False,
    ),
    Table(
        name="raw_frames",
        doc="Every frame as received; the source of truth of everything derived from a connection. Of polls: what "
        "changed, and one frame of each answer that changed nothing.",
        columns=(
            _VENUE,
            _SOURCE,
            _CONNECTION,
            _RECV,
            _ORDINAL,
            _c("frame", STRING, "the text frame, unparsed"),
        ),
        key=("ordinal",),
        sort=("connection_id", "recv_ns", "ordinal"),
        partitioning=Partitioning.HOUR,
    ),
    Table(
        name="book_events",
        doc="Every level change and every snapshot level of every book, in YES terms.",
        columns=(
            _VENUE,
            _MARKET,
            _RECV,
            _ORDINAL,
            _VENUE_NS,
            _SEQ,
            _CONNECTION,
            _c("epoch", INT, "counts the snapshots of the market on its connection"),
            _c("kind", STRING, "clear (a snapshot begins), snapshot (one of its levels) or delta"),
            _n("side", STRING, "bid or ask; null on clear"),
            _n("price", PRICE, "YES price, dollars; null on clear"),
            _n("size", SIZE, "contracts resting after the change, 0 when the level is gone; null on clear"),
            _SOURCE,
        ),
        key=("ordinal",),
        sort=("market_id", "recv_ns", "ordinal"),
        partitioning=Partitioning.HOUR,
    ),
    Table(
        name="quotes",
        doc="Best bid and ask of a market after every frame that changed one of them or its size.",
        columns=(
            _VENUE,
            _MARKET,
            _RECV,
            _ORDINAL,
            _VENUE_NS,
            _SEQ,
            _CONNECTION,
            _n("bid", PRICE, "best YES bid, dollars; null on an empty side"),
            _n("bid_size", SIZE, "contracts at the best bid"),
            _n("ask", PRICE, "best YES ask, dollars; null on an empty side"),
            _n("ask_size", SIZE, "contracts at the best ask"),
            _c("in_sync", BOOL, "whether the book could be trusted at this row"),
            _SOURCE,
        ),
        key=("ordinal",),
        sort=("market_id", "recv_ns", "ordinal"),
        partitioning=Partitioning.HOUR,
    ),
    Table(
        name="trades",
        doc="Public trades, priced in YES terms. Fetched later (connection backfill-...), recv_ns is the venue's time.",
        columns=(
            _VENUE,
            _MARKET,
            _c("trade_id", STRING, "the venue's id, or a deterministic one where it gives none"),
            _RECV,
            _ORDINAL,
            _VENUE_NS,
            _SEQ,
            _CONNECTION,
            _c("price", TRADE_PRICE, "YES price, dollars (an average may lie off the quoting grid)"),
            _c("size", SIZE, "contracts"),
            _n("taker_side", STRING, "yes or no: the outcome that the taker bought; null if not told"),
            _SOURCE,
        ),
        key=("market_id", "trade_id"),
        sort=("market_id", "recv_ns", "ordinal"),
        partitioning=Partitioning.HOUR,
    ),
    Table(
        name="candles",
        doc="OHLC of quotes and trades by interval: ours from what was captured, and the venue's as it publishes them.",
        columns=(
            _VENUE,
            _MARKET,
            _c("interval_s", INT, "length, seconds: 1, 60, 3600 or 86400"),
            _c("begin_at", TIMESTAMP, "start; the venue's own leave it out and include the end instead"),
            _c("end_at", TIMESTAMP, "end, by which a candle is known: join by this column, never by begin_at"),
            *(
                _n(f"{side}_{point}", PRICE, f"{words} best YES {side}, dollars")
                for side in ("bid", "ask")
                for point, words in _OHLC.items()
            ),
            *(
                _n(f"price_{point}", TRADE_PRICE, f"{words} traded YES price, dollars; null without trades")
                for point, words in _OHLC.items()
            ),
            _n("price_mean", TRADE_PRICE, "VWAP: traded price by size, rounded to 1e-9 (venue's own: as published)"),
            _n("volume", SIZE, "contracts traded; null in ours where no trade was seen"),
            _n("trades", INT, "number of trades, null likewise; null for the venue's own, which do not tell"),
            _n("open_interest", SIZE, "contracts held at the end; null for ours"),
            _n("coverage", FLOAT, "share of the interval in which the book was in sync; null for the venue's own"),
            _n(
                "updates", INT, "quotes in sync that count in it, without what stood at its start; null for the venue's"
            ),
            _c("source", STRING, "ws (ours, from quotes and trades) or rest (the venue's own candlestick)"),
            _c("known_at", TIMESTAMP, "when the row was first known as it stands"),
        ),
        key=("venue", "market_id", "interval_s", "begin_at", "source"),
        sort=("market_id", "interval_s", "begin_at", "source"),
        partitioning=Partitioning.HOUR,
    ),
    Table(
        name="orderbook_snapshots",
        doc="Books filled forward on a grid of time: at each point what was known by then, nothing where the book was "
        "not to be trusted. Made on demand, for chosen markets and times.",
        columns=(
            _VENUE,
            _MARKET,
            _c("interval_ms", INT, "distance of the grid's points, whole multiples of it since the epoch, ms"),
            _c("recv_ns", INT, "the point: what was received up to and at it counts, ns since the epoch"),
            _n("bid", PRICE, "best YES bid, dollars; null on an empty side, and where the book is not known"),
            _n("bid_size", SIZE, "contracts at the best bid"),
            _n("ask", PRICE, "best YES ask, dollars; null likewise"),
            _n("ask_size", SIZE, "contracts at the best ask"),
            _n("spread", PRICE, "ask - bid, dollars; null unless both sides have a price"),
            _n("mid", TRADE_PRICE, "(bid + ask) / 2, dollars; null likewise"),
            _n(
                "microprice",
                FLOAT,
                "(bid x ask_size + ask x bid_size) / (bid_size + ask_size), dollars; an estimate, so no exact number",
            ),
            _n("bids", STRING, "JSON list of [price, size], best first, exact; [] on an empty side, null if not known"),
            _n("asks", STRING, "the same of the asks"),
            _c("in_sync", BOOL, "whether the book was known and could be trusted at the point"),
            _n("is_forward_filled", BOOL, "nothing changed the book since the point before; null if not known"),
            _n("source_ns", INT, "receipt of the newest change that counts, ns since the epoch; null if not known"),
            _n("age_ns", INT, "recv_ns - source_ns"),
        ),
        key=("venue", "market_id", "interval_ms", "recv_ns"),
        sort=("market_id", "interval_ms", "recv_ns"),
        partitioning=Partitioning.HOUR,
    ),
    Table(
        name="tickers",
        doc="The venues' own conflated summaries: volume and open interest, never a source of book state.",
        columns=(
            _VENUE,
            _MARKET,
            _RECV,
            _ORDINAL,
            _VENUE_NS,
            _CONNECTION,
            _n("bid", PRICE, "best YES bid as told, dollars"),
            _n("bid_size", SIZE, "contracts"),
            _n("ask", PRICE, "best YES ask as told, dollars"),
            _n("ask_size", SIZE, "contracts"),
            _n("last_price", PRICE, "last trade, dollars"),
            _n("volume", SIZE, "contracts traded"),
            _n("open_interest", SIZE, "contracts held"),
            _SOURCE,
        ),
        key=("ordinal",),
        sort=("market_id", "recv_ns", "ordinal"),
        partitioning=Partitioning.HOUR,
    ),
    Table(
        name="book_gaps",
        doc="Intervals in which a market's book was not to be trusted, and why.",
        columns=(
            _VENUE,
            _MARKET,
            _CONNECTION,
            _ORDINAL,
            _c("cause", STRING, "seq_gap, disconnect, hash_mismatch, ..."),
            _c("from_ns", INT, "start of the doubt, dated back to the last proof, ns since the epoch"),
            _n("to_ns", INT, "end of the doubt; null while it lasts"),
            _n("recovery", STRING, "what ended it: snapshot, rest_book, reconnect, end_of_capture, ..."),
        ),
        key=("connection_id", "market_id", "from_ns", "cause"),
        sort=("market_id", "from_ns", "ordinal"),
        partitioning=Partitioning.DATE,
    ),
    Table(
        name="capture_sessions",
        doc="One row per connection: what it carried and what was wrong with it.",
        columns=(
            _VENUE,
            _CONNECTION,
            _c("run_id", STRING, "the capture run"),
            _c("exchange", STRING, "name of the local exchange the data came from, empty for the real venue"),
            _c("started_at", TIMESTAMP, "connected"),
            _n("ended_at", TIMESTAMP, "disconnected; null while it lasts"),
            _c("markets", INT, "markets subscribed"),
            _c("frames", INT, "frames received"),
            _c("bytes", INT, "bytes received"),
            _c("anomalies", STRING, "JSON object: kind of anomaly to count"),
            _c("examples", STRING, "JSON object: kind of anomaly to its first example"),
            _c("reconnects", INT, "times the connection was dialled again before this one"),
            _n("lag_p50_ms", FLOAT, "median of receive time minus the venue's time"),
            _n("lag_p99_ms", FLOAT, "99th percentile of the same"),
            _c("stop_reason", STRING, "why it ended"),
        ),
        key=("connection_id",),
        sort=("started_at", "connection_id"),
        partitioning=Partitioning.DATE,
    ),
    Table(
        name="account_events",
        doc="Own fills, orders, positions, balances and quotes; only with credentials and ARB_ACCOUNT.",
        columns=(
            _VENUE,
            _c("event_id", STRING, "deterministic, from the venue's ids: a fill told twice in a day is one row"),
            _c(
                "kind",
                STRING,
                "fill, order, position, order_group, balance, rfq, quote, rfq_batch or batch_quote",
            ),
            _n("market_id", STRING, "Kalshi ticker or Polymarket condition id; null where it is about no one market"),
            _RECV,
            _ORDINAL,
            _VENUE_NS,
            _SEQ,
            _CONNECTION,
            _c("status", STRING, "the venue's word for what happened or how it stands, empty if it has none"),
            _n("side", STRING, "bid (buys YES or sells NO) or ask (sells YES or buys NO)"),
            _n("price", TRADE_PRICE, "YES price, dollars"),
            _n("size", SIZE, "contracts: filled, ordered, held (negative: NO), group limit, or asked for"),
            _n("filled", SIZE, "contracts of the order filled so far"),
            _n("fee", MONEY, "fee of the fill, or paid so far on the order or position, dollars"),
            _n("amount", MONEY, "cost of the position, cash of the balance, target cost of the request, dollars"),
            _n("is_taker", BOOL, "whether the own order took liquidity"),
            _n("order_id", STRING, "the venue's id of the order"),
            _n("client_order_id", STRING, "the own id of the order, on orders and quotes; fills go by order_id"),
            _SOURCE,
            _c("raw", STRING, "the venue's message, JSON"),
        ),
        key=("event_id",),
        sort=("recv_ns", "ordinal"),
        partitioning=Partitioning.DATE,
    ),
    Table(
        name="market_matches",
        doc="Pairs of a Kalshi and a Polymarket market and how they relate; bitemporal.",
        columns=(
            _KALSHI,
            _POLYMARKET,
            _c("polymarket_yes_index", INT, "the Polymarket outcome (0 or 1) that Kalshi YES corresponds to"),
            _c(
                "relation",
                STRING,
                "equivalent, inverted, kalshi_implies_polymarket, polymarket_implies_kalshi, "
                "exclusive, related or different",
            ),
            _c("status", STRING, "auto, review, rejected, approved, refused or expired"),
            _c("score", FLOAT, "rank among candidates; no probability"),
            _c("family", STRING, "kind of question, empty if no parser knew it"),
            _c("vetoes", STRING, "JSON list of reasons against"),
            _c("explanation", STRING, "JSON: what was compared, with which result"),
            _c("kalshi_rules_sha256", STRING, "rules text the match was made on"),
            _c("polymarket_rules_sha256", STRING, "rules text the match was made on"),
            _c("matcher_version", STRING, "version of the matcher, or of the override's file"),
            _c("valid_from", TIMESTAMP, "from when the statement holds"),
            _n("valid_to", TIMESTAMP, "until when, known from then on; null while it holds"),
            _c("known_at", TIMESTAMP, "when it was made"),
        ),
        key=("kalshi_market_id", "polymarket_market_id", "known_at"),
        sort=("kalshi_market_id", "polymarket_market_id", "known_at"),
        partitioning=Partitioning.DATE,
        by_venue=False,
    ),
    Table(
        name="outcome_sets",
        doc="Events of several outcomes: whether at most one of them happens, whether one has to, and the same on the "
        "other venue.",
        columns=(
            _VENUE,
            _c("event_id", STRING, "the venue's id of the event"),
            _c("title", STRING, "title of the event"),
            _c("outcomes", INT, "how many markets it has"),
            _c("market_ids", STRING, "JSON list of them, sorted"),
            _c("exclusive", BOOL, "the venue says that at most one of them resolves YES"),
            _c("exhaustive", BOOL, "proven that at least one of them resolves YES"),
            _c("why", STRING, "what proves or disproves that it is exhaustive"),
            _n("partner_event_id", STRING, "the other venue's event about the same occasion"),
            _n("paired", INT, "outcomes with an equivalent market in that event"),
            _c("known_at", TIMESTAMP, "when this was found"),
        ),
        key=("event_id", "known_at"),
        sort=("event_id", "known_at"),
        partitioning=Partitioning.DATE,
        by_venue=True,
    ),
    Table(
        name="match_review",
        doc="Candidate pairs waiting for a person, best first.",
        columns=(
            _KALSHI,
            _POLYMARKET,
            _c("rank", INT, "place in the queue, 1 first"),
            _c("relation", STRING, "the relation proposed"),
            _c("score", FLOAT, "rank among candidates; no probability"),
            _c("kalshi_title", STRING, "title on Kalshi"),
            _c("polymarket_title", STRING, "title on Polymarket"),
            _c("kalshi_rules", STRING, "rules on Kalshi"),
            _c("polymarket_rules", STRING, "rules on Polymarket"),
            _c("explanation", STRING, "JSON: what was compared, with which result"),
        ),
        key=("kalshi_market_id", "polymarket_market_id"),
        sort=("rank",),
        partitioning=Partitioning.CURRENT,
        by_venue=False,
    ),
    Table(
        name="settlement_agreement",
        doc="Pairs of which both markets are resolved: whether they settled as the pair's relation says.",
        columns=(
            _KALSHI,
            _POLYMARKET,
            _c("polymarket_yes_index", INT, "the Polymarket outcome (0 or 1) that Kalshi YES corresponds to"),
            _c("relation", STRING, "the relation held while the markets were open"),
            _c("status", STRING, "the status that the pair had while the markets were open"),
            _c("accepted", BOOL, "that status was auto or approved: the pair counted as arbitrage"),
            _c("family", STRING, "kind of question, empty if no parser knew it"),
            _c("kalshi_result", STRING, "yes, no, or a split such as 0.5"),
            _c("polymarket_result", STRING, "the same, of Polymarket's first outcome"),
            _c("verdict", STRING, "agreed, disagreed, or void_split where either market split its payout"),
            _c("difference", PRICE, "what the proposition paid on Kalshi less what it paid on Polymarket, dollars"),
            _n("kalshi_resolved_at", TIMESTAMP, "when Kalshi's result was first seen"),
            _n("polymarket_resolved_at", TIMESTAMP, "when Polymarket's result was first seen"),
            _c("known_at", TIMESTAMP, "when the two were first compared"),
        ),
        key=("kalshi_market_id", "polymarket_market_id"),
        sort=("kalshi_market_id", "polymarket_market_id"),
        partitioning=Partitioning.CURRENT,
        by_venue=False,
    ),
    Table(
        name="match_evaluation",
        doc="The matcher measured on a file of labelled pairs: one row per measurement and kind of question.",
        columns=(
            _c("evaluated_at", TIMESTAMP, "when it was measured"),
            _c("family", STRING, "kind of question; 'overall': all of them, 'held_out': series that nobody tuned on"),
            _c("file", STRING, "name of the labelled file"),
            _c("file_sha256", STRING, "SHA-256 of the file: figures of different files are no trend"),
            _c("matcher_version", STRING, "version of the matcher"),
            _c("metric", STRING, "precision, recall, inversion_errors, ... as arb match evaluate names them"),
            _c("value", FLOAT, "its value"),
        ),
        key=("evaluated_at", "family", "metric"),
        sort=("evaluated_at", "family", "metric"),
        partitioning=Partitioning.DATE,
        by_venue=False,
    ),
    Table(
        name="spreads",
        doc="Executable gap of a pair at every instant at which one of its tops of book, or the trust in one, changed.",
        columns=(
            _KALSHI,
            _POLYMARKET,
            _RECV,
            _n("kalshi_bid", PRICE, "best YES bid on Kalshi, dollars"),
            _n("kalshi_ask", PRICE, "best YES ask on Kalshi, dollars"),
            _n(
                "polymarket_bid",
                PRICE,
                "best bid on Polymarket for the outcome that equals Kalshi YES, dollars",
            ),
            _n("polymarket_ask", PRICE, "best ask of the same, dollars"),
            _n(
                "gap_yes_kalshi",
                PRICE,
                "1 - (Kalshi YES ask + Polymarket opposite ask), dollars per contract",
            ),
            _n("gap_yes_polymarket", PRICE, "1 - (Polymarket ask + Kalshi NO ask), dollars per contract"),
            _n(
                "net_yes_kalshi",
                MONEY,
                "the first gap less the taker fees of both legs at the top size, per contract",
            ),
            _n("net_yes_polymarket", MONEY, "the second gap less the fees, per contract"),
            _n("top_size_yes_kalshi", SIZE, "contracts available at both tops, first direction"),
            _n("top_size_yes_polymarket", SIZE, "contracts available at both tops, second direction"),
            _c("trusted", BOOL, "both books in sync, fresh and open"),
            _c("reason", STRING, "why not trusted, empty if it is"),
        ),
        key=("kalshi_market_id", "polymarket_market_id", "recv_ns"),
        sort=("kalshi_market_id", "polymarket_market_id", "recv_ns"),
        partitioning=Partitioning.HOUR,
        by_venue=False,
    ),
    Table(
        name="opportunities",
        doc="Episodes in which buying one outcome on each venue would have paid, or why it would not.",
        columns=(
            _KALSHI,
            _POLYMARKET,
            _KIND,
            _DIRECTION,
            _c("opened_at", TIMESTAMP, "first instant with a positive net edge"),
            _n("closed_at", TIMESTAMP, "first instant without; null while it lasts"),
            *_AT_BEST,
            _c("peak_edge", MONEY, "largest net edge per contract at the top of the books, dollars"),
            _c("time_weighted_edge", MONEY, "net edge per contract averaged over the active time, dollars"),
            *_PRICES_AT_BEST,
            _c("accepted", BOOL, "every guard held"),
            _REASONS,
            _c("best_at", TIMESTAMP, "instant of the largest net"),
            _n("peak_at", TIMESTAMP, "instant of the peak edge"),
            _n("active_ns", INT, "time within the episode in which the edge was known and open, ns"),
            _n("end_reason", STRING, "edge (it fell), unknown (a guard failed) or right_censored (it lasts)"),
            _n("left_censored", BOOL, "it was open already when the data begin"),
            *_AT_OTHER_SIZES,
        ),
        key=("kalshi_market_id", "polymarket_market_id", "direction", "opened_at"),
        sort=("opened_at", "kalshi_market_id", "polymarket_market_id", "direction"),
        partitioning=Partitioning.DATE,
        by_venue=False,
    ),
    Table(
        name="opportunity_pieces",
        doc="What of each episode lies within one hour; `opportunities` are these, joined.",
        columns=(
            _KALSHI,
            _POLYMARKET,
            _KIND,
            _DIRECTION,
            _c("opened_ns", INT, "begin, ns since the epoch"),
            _c("closed_ns", INT, "end, ns since the epoch"),
            _c("active_ns", INT, "time in which the edge was known and open, ns"),
            _c("edge_time", EDGE_TIME, "integral of the net edge at the tops over that time, dollars times ns"),
            _c("end_reason", STRING, "edge, unknown or right_censored (the hour ended)"),
            _c("left_censored", BOOL, "open when the hour began"),
            _c("conditional", BOOL, "an episode only if one was open up to the beginning of the hour"),
            _c("peak_edge", MONEY, "largest net edge per contract at the top of the books, dollars"),
            _c("peak_ns", INT, "instant of it"),
            _c("best_ns", INT, "instant of the largest net"),
            *_AT_BEST,
            *_PRICES_AT_BEST,
            _REASONS,
            *_AT_OTHER_SIZES,
        ),
        key=("kalshi_market_id", "polymarket_market_id", "direction", "opened_ns"),
        sort=("kalshi_market_id", "polymarket_market_id", "direction", "opened_ns"),
        partitioning=Partitioning.HOUR,
        by_venue=False,
    ),
    Table(
        name="execution_backtest",
        doc="What orders for both legs of an accepted episode, sent as it opened, would have come to after a latency.",
        columns=(
            _KALSHI,
            _POLYMARKET,
            _DIRECTION,
            _c("opened_at", TIMESTAMP, "opening of the episode: the decision, by the books of then"),
            _c("latency_ms", INT, "from the decision to the match at both venues, ms"),
            _c("size", SIZE, "contracts ordered of each leg"),
            _n("kalshi_filled", SIZE, "contracts got on Kalshi within the limit; null if its book was not known then"),
            _n("polymarket_filled", SIZE, "contracts got on Polymarket"),
            _n("matched", SIZE, "contracts that both legs got"),
            _n("cost", MONEY, "prices paid, dollars"),
            _n("fees", MONEY, "fees of the fills, dollars"),
            _n("unwound", MONEY, "proceeds less fees of selling what did not match to the bids of then, dollars"),
            _n("net", MONEY, "matched + unwound - cost - fees, dollars"),
            _n("fill_rate", FLOAT, "matched / size"),
        ),
        key=("kalshi_market_id", "polymarket_market_id", "direction", "opened_at", "latency_ms"),
        sort=("opened_at", "kalshi_market_id", "polymarket_market_id", "direction", "latency_ms"),
        partitioning=Partitioning.DATE,
        by_venue=False,
    ),
    Table(
        name="basket_opportunities",
        doc="Episodes in which several outcomes of one event, bought together, would have paid whatever happened, or "
        "why they would not.",
        columns=(
            _BASKET_KIND,
            _BASKET_EVENT,
            _BASKET_OUTCOME,
            *_BASKET_AT_BEST,
            _c("opened_at", TIMESTAMP, "first instant with a positive net edge"),
            _n("closed_at", TIMESTAMP, "first instant without; null while it lasts"),
            _c("best_at", TIMESTAMP, "instant of the largest net"),
            _c("peak_edge", MONEY, "largest net edge per basket at the tops of the books, dollars"),
            _n("peak_at", TIMESTAMP, "instant of it"),
            _c("time_weighted_edge", MONEY, "net edge per basket averaged over the active time, dollars"),
            _n("active_ns", INT, "time within the episode in which the edge was known and open, ns"),
            _n("end_reason", STRING, "edge (it fell), unknown (a guard failed) or right_censored (it lasts)"),
            _n("left_censored", BOOL, "it was open already when the data begin"),
            _c("accepted", BOOL, "every guard held"),
            _REASONS,
        ),
        key=("kind", "event_id", "outcome", "opened_at"),
        sort=("opened_at", "kind", "event_id", "outcome"),
        partitioning=Partitioning.DATE,
        by_venue=False,
    ),
    Table(
        name="basket_pieces",
        doc="What of each episode of a basket lies within one hour; `basket_opportunities` are these, joined.",
        columns=(
            _BASKET_KIND,
            _BASKET_EVENT,
            _BASKET_OUTCOME,
            *_BASKET_AT_BEST,
            _c("opened_ns", INT, "begin, ns since the epoch"),
            _c("closed_ns", INT, "end, ns since the epoch"),
            _c("active_ns", INT, "time in which the edge was known and open, ns"),
            _c("edge_time", EDGE_TIME, "integral of the net edge at the tops over that time, dollars times ns"),
            _c("end_reason", STRING, "edge, unknown or right_censored (the hour ended)"),
            _c("left_censored", BOOL, "open when the hour began"),
            _c("conditional", BOOL, "an episode only if one was open up to the beginning of the hour"),
            _c("peak_edge", MONEY, "largest net edge per basket at the tops of the books, dollars"),
            _c("peak_ns", INT, "instant of it"),
            _c("best_ns", INT, "instant of the largest net"),
            _REASONS,
        ),
        key=("kind", "event_id", "outcome", "opened_ns"),
        sort=("kind", "event_id", "outcome", "opened_ns"),
        partitioning=Partitioning.HOUR,
        by_venue=False,
    ),
    Table(
        name="basis",
        doc="How far apart the books of a pair were in an hour, over the time in which both were trusted, and which of "
        "them moved first. A basis is no edge, a lead no trading rule.",
        columns=(
            _KALSHI,
            _POLYMARKET,
            _c("start_at", TIMESTAMP, "begin of the hour"),
            _c("known_ns", INT, "time in which both books were trusted and had both sides, ns"),
            _n("basis_mean", FLOAT, "Kalshi's mid less Polymarket's for the same proposition, over time, dollars"),
            _n("basis_min", FLOAT, "least of it"),
            _n("basis_max", FLOAT, "largest of it"),
            _n("microprice_basis_mean", FLOAT, "the same of the microprices, over time, dollars"),
            _n("gap_mean", FLOAT, "executable gap, the better direction, over time, dollars per contract"),
            _n("gap_max", FLOAT, "largest of it"),
            _n("clipped_gap_mean", FLOAT, "executable gap over time, counted as zero while it was negative"),
            _n("break_even_mean", FLOAT, "taker fees of both legs at the mids, unrounded, over time; null if unknown"),
            _n("crossed_share", FLOAT, "share of the known time in which the gap was positive"),
            _n("paying_share", FLOAT, "share of the time with known fees in which the gap exceeded the break-even"),
            _c("kalshi_moves", INT, "changes of Kalshi's mid while both books were trusted"),
            _c("polymarket_moves", INT, "changes of Polymarket's mid while both books were trusted"),
            _n(
                "lead_ms",
                FLOAT,
                "by how much Kalshi's mid moves before Polymarket's (Hayashi-Yoshida), ms; negative where "
                "Polymarket's moves first; null where too few moves go together",
            ),
            _n("lead_correlation", FLOAT, "correlation at that lead; negative where they move against one another"),
            _n("lead_asymmetry", FLOAT, "above 1: Kalshi leads; squared correlations ahead by those behind"),
            _n("grid_lead_ms", FLOAT, "the same lead by cross-correlation of log-odds changes on a 1 s grid, ms"),
            _n("grid_correlation", FLOAT, "correlation at that lead"),
        ),
        key=("kalshi_market_id", "polymarket_market_id"),
        sort=("kalshi_market_id", "polymarket_market_id"),
        partitioning=Partitioning.HOUR,
        by_venue=False,
    ),
    Table(
        name="rejections",
        doc="The funnel: how many candidate pairs and episodes each guard stopped, and the money that went with them.",
        columns=(
            _c("date", DATE, "day of the evaluation"),
            _c("step", INT, "place in the funnel, 1 first"),
            _c("guard", STRING, "name of the guard"),
            _c("candidates", INT, "candidates that reached it"),
            _c("stopped", INT, "candidates that it stopped"),
            _c("net_stopped", MONEY, "computed net of what it stopped, dollars"),
        ),
        key=("date", "step"),
        sort=("date", "step"),
        partitioning=Partitioning.DATE,
        by_venue=False,
    ),
)

TABLES: dict[str, Table] = {declared.name: declared for declared in _ALL}
"""Every table by its name."""


def table(name: str) -> Table:
    """The declaration of a table.

    Raises:
        KeyError: if there is no table of that name; the message lists those that there are.
    """
    try:
        return TABLES[name]
    except KeyError:
        raise KeyError(f"no table {name!r}; there are {', '.join(sorted(TABLES))}") from None


def describe() -> str:
    """The reference of all tables as Markdown: what ``docs/tables.md`` holds."""
    lines = [
        "# Tables",
        "",
        "Made from `arb_pipeline/tables.py` by `make docs`; a test keeps the two in step.",
        "",
        "Prices are dollars per contract, sizes contracts, money dollars, all exact decimals. `*_at` are UTC",
        "timestamps in microseconds, `*_ns` nanoseconds since the Unix epoch. `market_id` is the Kalshi ticker or the",
        "Polymarket condition id. Every book is in YES terms: a NO bid at 0.60 is a YES ask at 0.40.",
    ]
    layout = {Partitioning.HOUR: "date=/hour=", Partitioning.DATE: "date=", Partitioning.CURRENT: ""}
    for declared in _ALL:
        path = f"{declared.name}/{'venue=/' if declared.by_venue else ''}{layout[declared.partitioning]}".rstrip("/")
        lines += [
            "",
            f"## {declared.name}",
            "",
            declared.doc,
            "",
            f"Folder `{path}` · key ({', '.join(declared.key)}) · sorted by ({', '.join(declared.sort)})",
            "",
            "| column | type | null | meaning |",
            "| --- | --- | --- | --- |",
        ]
        lines += [
            f"| {column.name} | {column.type} | {'yes' if column.nullable else ''} | {column.doc} |"
            for column in declared.columns
        ]
    return "\n".join(lines) + "\n"
