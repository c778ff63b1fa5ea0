"""Rows: what sessions say, as columns of the lake's tables.

On the event loop a row is one fixed-width record of 64-bit integers packed into a bytearray; strings are numbers of a
name list, but for a frame's text and a trade's id. A :class:`Batch` turns the records into Arrow columns and may do so
in a thread. Rows are split into partitions by their receive time.
"""

import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.model import (
    AccountEvent,
    Anomaly,
    AnomalyKind,
    BookDelta,
    BookSnapshot,
    Command,
    FetchBooks,
    GapClosed,
    GapOpened,
    Output,
    Quote,
    Reconnect,
    Send,
    Source,
    Ticker,
    Trade,
)
from arb_pipeline.storage.arrow import Ints, Mask, decimal_array, fits, int_array
from arb_pipeline.storage.lake import HOUR_NS, Partition
from arb_pipeline.tables import Column, table

__all__ = ["Batch", "ConnectionRows", "GapLedger", "LagHistogram", "RowWriter", "TableKey", "VenueTotals", "Window"]

Window: TypeAlias = tuple[int | None, int | None]
"""Receive times [start, end) in ns whose rows are kept; None is open."""

TableKey: TypeAlias = tuple[str, Partition]

NULL: Final = -(2**63)
_ALWAYS: Final = (-(2**63), 2**63 - 1)
_STEP: Final = 1024
"""Ordinals of one recorder step by this; the shard fills the space between."""

_WS, _REST = 0, 1
_CLEAR, _SNAPSHOT, _DELTA = 0, 1, 2
_BID, _ASK = 0, 1
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "source": ("ws", "rest"),
    "kind": ("clear", "snapshot", "delta"),
    "side": ("bid", "ask"),
    "taker_side": ("yes", "no"),
}
_TAKERS: Final = {"yes": 0, "no": 1, None: NULL}
_TEXTS: Final = {"raw_frames": "frame", "trades": "trade_id"}
_RECORDED: Final = ("raw_frames", "book_events", "quotes", "trades", "tickers")
_FIELDS: Final = {
    name: tuple(column for column in table(name).columns if column.name not in {"venue", _TEXTS.get(name)})
    for name in _RECORDED
}
"""What a packed record holds, in the table's own order."""

_ACCOUNT_DIGITS: Final = {
    column.name: column.type.scale for column in table("account_events").columns if pa.types.is_decimal(column.type)
}
"""Decimals of the fixed-point fields of an account event."""

_MS: Final = 1_000_000


class _Names(dict[str, int]):
    """Strings numbered in the order in which they were first seen."""

    def __missing__(self, name: str) -> int:
        code = self[name] = len(self)
        return code


class _Records:
    """Rows of one table as packed records, with the one text that a row may have beside them."""

    __slots__ = ("data", "pack", "texts")

    def __init__(self, name: str) -> None:
        self.data = bytearray()
        self.texts: list[str] = []
        self.pack: Callable[..., bytes] = struct.Struct(f"<{len(_FIELDS[name])}q").pack


class LagHistogram:
    """Receive time minus venue time in buckets of 5 %: memory is fixed, and percentiles do not depend on sampling."""

    _POSITIVE = np.geomspace(1e5, 6e11, 320)
    EDGES = np.concatenate([-_POSITIVE[::-1], [0.0], _POSITIVE])
    """Nanoseconds, from ten minutes early to ten minutes late."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(self.EDGES) + 1, dtype=np.int64)

    def add(self, lags_ns: Ints) -> None:
        """Take in lags."""
        self.counts += np.bincount(np.searchsorted(self.EDGES, lags_ns), minlength=len(self.counts))

    def percentile_ms(self, share: float) -> float | None:
        """The lag that ``share`` of all stay below, rounded up to its bucket; None without any."""
        total = int(self.counts.sum())
        if not total:
            return None
        bucket = int(np.searchsorted(np.cumsum(self.counts), share * total))
        return round(float(self.EDGES[min(bucket, len(self.EDGES) - 1)]) / _MS, 3)

    def counts_below(self, bounds_ms: Sequence[float]) -> tuple[int, ...]:
        """How many lags are at most each bound (rising, none below the first edge), and how many there are."""
        upto = np.cumsum(self.counts)
        places = np.searchsorted(self.EDGES, np.array(bounds_ms) * _MS, side="right") - 1
        return (*(int(upto[place]) for place in places), int(upto[-1]))


@dataclass
class VenueTotals:
    """What a capture took in from one venue so far."""

    frames: int = 0
    bytes: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    anomalies: Counter[str] = field(default_factory=Counter)
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)
    gaps: int = 0
    gap_causes: Counter[str] = field(default_factory=Counter)
    gap_ns: int = 0
    """Market-nanoseconds without a trusted book, overlapping causes counted once."""
    lags: LagHistogram = field(default_factory=LagHistogram)
    markets: set[str] = field(default_factory=set)

    def count_anomaly(self, kind: str, example: dict[str, Any]) -> None:
        """Count, and keep the first example of a kind."""
        self.anomalies[kind] += 1
        self.examples.setdefault(kind, example)


@dataclass(slots=True)
class _OpenGap:
    cause: str
    from_ns: int
    ordinal: int
    connection_id: str


class GapLedger:
    """Pairs of "not to be trusted from here" and "trusted again", across the connections of one session.

    A market may come into doubt for a second cause while a first one lasts: each cause is a row, one recovery ends all.
    """

    def __init__(self) -> None:
        self._open: dict[str, list[_OpenGap]] = {}
        self.awaited: set[str] = set()
        """Markets in doubt only because their first snapshot has not come."""

    def awaits(self, gap: GapOpened, ordinal: int, connection_id: str) -> None:
        """Note a market whose first trusted snapshot ends the doubt."""
        self.opened(gap, ordinal, connection_id)
        self.awaited.add(gap.market_id)

    def opened(self, gap: GapOpened, ordinal: int, connection_id: str) -> None:
        """Note a doubt; the same one again changes nothing."""
        gaps = self._open.setdefault(gap.market_id, [])
        if not any(known.cause == gap.cause and known.from_ns <= gap.from_ns for known in gaps):
            gaps.append(_OpenGap(gap.cause, gap.from_ns, ordinal, connection_id))

    def closed(self, gap: GapClosed) -> list[_OpenGap]:
        """The doubts that a recovery ends."""
        self.awaited.discard(gap.market_id)
        return self._open.pop(gap.market_id, [])

    def drain(self) -> list[tuple[str, list[_OpenGap]]]:
        """Every doubt that lasts, by market."""
        remaining = list(self._open.items())
        self._open = {}
        self.awaited.clear()
        return remaining


class ConnectionRows:
    """The rows of one connection: one dial of one session.

    Attributes:
        reconnects: dials of the session before this one.
        markets: markets subscribed; where nothing was subscribed (replay), markets seen.
        newest_ns: receive time of the newest row. Rows are read in this order, so that it never falls: while a clock
            that was set back has not caught up, each input's rows carry the time of those before and a nanosecond.
    """

    def __init__(
        self,
        rows: "RowWriter",
        venue: str,
        connection_id: str,
        started_ns: int,
        reconnects: int = 0,
        *,
        newest_ns: int = NULL,
    ) -> None:
        self.newest_ns = newest_ns
        self._input_ns = NULL
        self.venue = venue
        self.connection_id = connection_id
        self.started_ns = started_ns
        self.ended_ns: int | None = None
        self.reconnects = reconnects
        self.markets = 0
        self.frames = 0
        self.bytes = 0
        self.stop_reason = ""
        self.anomalies: Counter[str] = Counter()
        self.examples: dict[str, dict[str, Any]] = {}
        self.lags = LagHistogram()
        self._rows = rows
        self._code = rows.enlist(self)
        self._totals = rows.totals_of(venue)

    def frame(self, text: str, recv_ns: int, source: Source = "ws", *, raw: bool = True) -> None:
        """Count a frame, and keep it as received if it is to be."""
        size = len(text) if text.isascii() else len(text.encode())
        self.frames += 1
        self.bytes += size
        self._totals.frames += 1
        self._totals.bytes += size
        if not raw:
            return
        records = self._rows.records(self.venue)["raw_frames"]
        recv_ns = self._stamp(recv_ns)
        records.data += records.pack(_WS if source == "ws" else _REST, self._code, recv_ns, self._rows.next_ordinal())
        records.texts.append(text)

    def write(self, outputs: Iterable[Output], gaps: GapLedger, *, keep: bool = True) -> list[Command]:
        """Turn outputs into rows and return the commands among them.

        Args:
            outputs: what a session said, in order.
            gaps: the session's ledger.
            keep: False outside the capture's window: no market data is written, gaps and anomalies still count.
        """
        commands: list[Command] = []
        rows, code = self._rows, self._code
        tables = rows.records(self.venue)
        names = rows.markets
        for output in outputs:
            kind = type(output)
            if kind is BookDelta and keep:
                assert isinstance(output, BookDelta)
                records = tables["book_events"]
                rows.ordinal += _STEP
                venue_ns, seq = output.venue_ns, output.seq
                records.data += records.pack(
                    names[output.market_id],
                    self._stamp(output.recv_ns),
                    rows.ordinal,
                    NULL if venue_ns is None else venue_ns,
                    NULL if seq is None else seq,
                    code,
                    output.epoch,
                    _DELTA,
                    _BID if output.side == "bid" else _ASK,
                    output.price,
                    output.size,
                    _WS,
                )
            elif isinstance(output, Quote):
                if keep:
                    self._quote(output, tables["quotes"])
            elif isinstance(output, Trade):
                if keep:
                    self._trade(output, tables["trades"])
            elif isinstance(output, Ticker):
                if keep:
                    self._ticker(output, tables["tickers"])
            elif isinstance(output, BookSnapshot):
                if keep:
                    self.snapshot(output)
                if output.in_sync and output.market_id in gaps.awaited:
                    ended = gaps.closed(GapClosed(output.market_id, output.recv_ns, "snapshot"))
                    rows.gaps_ended(self.venue, output.market_id, ended, self._stamp(output.recv_ns), "snapshot")
            elif isinstance(output, AccountEvent):
                if keep:
                    rows.account(output, self.connection_id)
            elif isinstance(output, Anomaly):
                self.anomaly(output)
            elif isinstance(output, GapOpened):
                gaps.opened(output, rows.next_ordinal(), self.connection_id)
            elif isinstance(output, GapClosed):
                to_ns = self._stamp(output.to_ns)
                rows.gaps_ended(self.venue, output.market_id, gaps.closed(output), to_ns, output.recovery)
            elif isinstance(output, Send | FetchBooks | Reconnect):
                commands.append(output)
        return commands

    def snapshot(self, snapshot: BookSnapshot) -> None:
        """A whole book: a ``clear`` row, then its levels, bids and asks best first."""
        rows = self._rows
        records = rows.records(self.venue)["book_events"]
        market = rows.markets[snapshot.market_id]
        venue_ns = NULL if snapshot.venue_ns is None else snapshot.venue_ns
        seq = NULL if snapshot.seq is None else snapshot.seq
        source = _WS if snapshot.source == "ws" else _REST
        recv_ns = self._stamp(snapshot.recv_ns)
        levels = [(_CLEAR, NULL, NULL, NULL)]
        levels += [(_SNAPSHOT, _BID, price, size) for price, size in sorted(snapshot.bids, reverse=True)]
        levels += [(_SNAPSHOT, _ASK, price, size) for price, size in sorted(snapshot.asks)]
        for level in levels:
            records.data += records.pack(
                market,
                recv_ns,
                rows.next_ordinal(),
                venue_ns,
                seq,
                self._code,
                snapshot.epoch,
                *level,
                source,
            )

    def anomaly(self, anomaly: Anomaly) -> None:
        """Count something wrong, and keep the first example of its kind."""
        example = {
            "detail": anomaly.detail,
            "market_id": anomaly.market_id,
            "recv_ns": anomaly.recv_ns,
            "frame": anomaly.example,
        }
        self.anomalies[anomaly.kind.value] += 1
        self.examples.setdefault(anomaly.kind.value, example)
        self._totals.count_anomaly(anomaly.kind.value, example)

    def close(self, now_ns: int, reason: str) -> None:
        """The connection is over; its row follows with the next batch."""
        self.ended_ns = max(now_ns, self.started_ns)
        self.stop_reason = reason
        self._rows.delist(self)

    def _stamp(self, recv_ns: int) -> int:
        """The receive time that a row gets."""
        if recv_ns != self._input_ns:
            self._input_ns = recv_ns
            self.newest_ns = recv_ns if recv_ns > self.newest_ns else self.newest_ns + 1
        return self.newest_ns

    def _quote(self, quote: Quote, records: _Records) -> None:
        rows = self._rows
        records.data += records.pack(
            rows.markets[quote.market_id],
            self._stamp(quote.recv_ns),
            rows.next_ordinal(),
            NULL if quote.venue_ns is None else quote.venue_ns,
            NULL if quote.seq is None else quote.seq,
            self._code,
            NULL if quote.bid is None else quote.bid,
            NULL if quote.bid_size is None else quote.bid_size,
            NULL if quote.ask is None else quote.ask,
            NULL if quote.ask_size is None else quote.ask_size,
            quote.in_sync,
            _WS if quote.source == "ws" else _REST,
        )

    def _trade(self, trade: Trade, records: _Records) -> None:
        rows = self._rows
        records.data += records.pack(
            rows.markets[trade.market_id],
            self._stamp(trade.recv_ns),
            rows.next_ordinal(),
            NULL if trade.venue_ns is None else trade.venue_ns,
            NULL if trade.seq is None else trade.seq,
            self._code,
            trade.price,
            trade.size,
            _TAKERS[trade.taker_side],
            _WS if trade.source == "ws" else _REST,
        )
        records.texts.append(trade.trade_id)

    def _ticker(self, ticker: Ticker, records: _Records) -> None:
        rows = self._rows
        told = (
            ticker.bid,
            ticker.bid_size,
            ticker.ask,
            ticker.ask_size,
            ticker.last_price,
            ticker.volume,
            ticker.open_interest,
        )
        records.data += records.pack(
            rows.markets[ticker.market_id],
            self._stamp(ticker.recv_ns),
            rows.next_ordinal(),
            NULL if ticker.venue_ns is None else ticker.venue_ns,
            self._code,
            *(NULL if value is None else value for value in told),
            _WS if ticker.source == "ws" else _REST,
        )


class RowWriter:
    """The rows of one recorder run, all its venues and connections.

    Attributes:
        ordinal: the newest row's; ``(start in us + n) * 1024 + shard``, so that it is unique over runs and shards
            without coordination, rises by receipt and is cheap to store as differences.
        start_ns, end_ns: rows of receive times in [start, end) are kept.
        totals: figures by venue.
    """

    def __init__(
        self, run_id: str, start_ns: int, *, shard: int = 0, window: Window = (None, None), exchange: str = ""
    ):
        if not 0 <= shard < _STEP:
            raise ValueError(f"shard {shard} is not in 0..{_STEP - 1}")
        self.run_id = run_id
        self.exchange = exchange
        self.ordinal = start_ns // 1_000 * _STEP + shard
        self.start_ns = _ALWAYS[0] if window[0] is None else window[0]
        self.end_ns = _ALWAYS[1] if window[1] is None else window[1]
        self.markets = _Names()
        self.totals: dict[str, VenueTotals] = {}
        self._connections = _Names()
        self._live: dict[int, ConnectionRows] = {}
        self._closed: dict[int, ConnectionRows] = {}
        self._records: dict[str, dict[str, _Records]] = {}
        self._gaps: list[dict[str, Any]] = []
        self._account: list[dict[str, Any]] = []

    @property
    def bounded(self) -> bool:
        """Whether the window has a beginning."""
        return self.start_ns != _ALWAYS[0]

    def keeps(self, recv_ns: int) -> bool:
        """Whether a frame received then belongs to the window."""
        return self.start_ns <= recv_ns < self.end_ns

    def next_ordinal(self) -> int:
        """The ordinal of a new row."""
        self.ordinal += _STEP
        return self.ordinal

    def totals_of(self, venue: str) -> VenueTotals:
        """A venue's figures."""
        return self.totals.setdefault(venue, VenueTotals())

    def records(self, venue: str) -> dict[str, _Records]:
        """The records of a venue that await their batch."""
        records = self._records.get(venue)
        if records is None:
            records = self._records[venue] = {name: _Records(name) for name in _RECORDED}
        return records

    def enlist(self, connection: ConnectionRows) -> int:
        """The number by which records name a connection.

        Raises:
            ValueError: if another connection had this id.
        """
        if connection.connection_id in self._connections:
            raise ValueError(f"connection id {connection.connection_id!r} is taken; each dial needs its own")
        code = self._connections[connection.connection_id]
        self._live[code] = connection
        return code

    def delist(self, connection: ConnectionRows) -> None:
        """A connection ended: its row is due."""
        code = self._connections[connection.connection_id]
        self._closed[code] = self._live.pop(code)

    def gaps_ended(self, venue: str, market_id: str, gaps: Sequence[_OpenGap], to_ns: int, recovery: str) -> None:
        """Rows of doubts that came to an end, cut to the window."""
        kept = [gap for gap in gaps if to_ns > self.start_ns and gap.from_ns < self.end_ns]
        if not kept:
            return
        until = min(to_ns, self.end_ns)
        for gap in kept:
            gap.from_ns = max(gap.from_ns, self.start_ns)
            self._gaps.append(
                {
                    "venue": venue,
                    "market_id": market_id,
                    "connection_id": gap.connection_id,
                    "ordinal": gap.ordinal,
                    "cause": gap.cause,
                    "from_ns": gap.from_ns,
                    "to_ns": max(until, gap.from_ns),  # a snapshot may come after a clock was set back
                    "recovery": recovery,
                }
            )
        totals = self.totals_of(venue)
        totals.gaps += len(kept)
        totals.gap_causes.update(gap.cause for gap in kept)
        totals.gap_ns += max(0, until - min(gap.from_ns for gap in kept))

    def account(self, event: AccountEvent, connection_id: str) -> None:
        """Keep something of the own account; these are too few to be packed."""
        row = {name: getattr(event, name) for name in AccountEvent.__struct_fields__}
        for name, digits in _ACCOUNT_DIGITS.items():
            value = row[name]
            row[name] = None if value is None else Decimal(value).scaleb(-digits)
        self._account.append({**row, "ordinal": self.next_ordinal(), "connection_id": connection_id})

    @property
    def pending(self) -> int:
        """Packed rows that await their batch."""
        return sum(
            len(records.data) // (8 * len(_FIELDS[name]))
            for tables in self._records.values()
            for name, records in tables.items()
        )

    def drain(self) -> "Batch":
        """Hand over all rows so far; cheap, since they are only handed over."""
        batch = Batch(
            run_id=self.run_id,
            exchange=self.exchange,
            markets=tuple(self.markets),
            connections=tuple(self._connections),
            records=self._records,
            gaps=self._gaps,
            account=self._account,
            sessions={**self._closed, **self._live},
            closed=tuple(self._closed.values()),
            totals=self.totals,
        )
        self._records, self._gaps, self._account, self._closed = {}, [], [], {}
        return batch


@dataclass
class Batch:
    """Rows on their way to the lake."""

    run_id: str
    exchange: str
    markets: tuple[str, ...]
    connections: tuple[str, ...]
    records: dict[str, dict[str, _Records]]
    gaps: list[dict[str, Any]]
    account: list[dict[str, Any]]
    sessions: dict[int, ConnectionRows]
    closed: tuple[ConnectionRows, ...]
    totals: dict[str, VenueTotals]

    def tables(self, without: Collection[str] = ()) -> dict[TableKey, pa.Table]:
        """The rows by table and partition; figures of lag and rows follow on the way. Call it once.

        Args:
            without: tables that are not wanted.
        """
        result: dict[TableKey, pa.Table] = {}
        for venue, tables in self.records.items():
            for name, records in tables.items():
                if records.data and name not in without:
                    result.update(self._split(venue, name, records))
        result.update(_by_day("book_gaps", self.gaps, "from_ns"))
        result.update(_by_day("account_events", self.account, "recv_ns"))
        result.update(_by_day("capture_sessions", [self._session(ended) for ended in self.closed], "started_at"))
        for (name, partition), rows in result.items():
            assert partition.venue is not None
            self.totals[partition.venue].rows[name] += rows.num_rows
        return result

    def _split(self, venue: str, name: str, records: _Records) -> dict[TableKey, pa.Table]:
        fields = _FIELDS[name]
        matrix = np.frombuffer(records.data, dtype="<i8").reshape(-1, len(fields))
        columns = {column.name: matrix[:, place] for place, column in enumerate(fields)}
        texts = pa.array(records.texts, pa.string()) if name in _TEXTS else None
        fitting = self._check(name, columns)
        if not fitting.all():
            columns = {key: values[fitting] for key, values in columns.items()}
            texts = None if texts is None else texts.filter(pa.array(fitting))
        if name in ("book_events", "trades"):
            self._measure_lag(venue, columns)
        if "market_id" in columns:
            self.totals[venue].markets.update(self.markets[code] for code in np.unique(columns["market_id"]))
        result = {}
        hours = columns["recv_ns"] // HOUR_NS
        for hour in np.unique(hours):
            inside = hours == hour
            whole = bool(inside.all())
            chosen = columns if whole else {key: values[inside] for key, values in columns.items()}
            text = texts if whole or texts is None else texts.filter(pa.array(inside))
            partition = Partition.of(name, venue, int(hour) * HOUR_NS)
            result[name, partition] = self._arrow(venue, name, chosen, text)
        return result

    def _check(self, name: str, columns: Mapping[str, Ints]) -> Mask:
        """Rows whose numbers fit the table; others are left out and counted, their frame is in ``raw_frames``."""
        fitting = np.ones(len(columns["recv_ns"]), dtype=np.bool_)
        for column in _FIELDS[name]:
            if not pa.types.is_decimal(column.type):
                continue
            values = columns[column.name]
            wrong = ~(fits(values, column.type) | (values == NULL))
            for row in np.flatnonzero(wrong & fitting):
                connection = self.sessions.get(int(columns["connection_id"][row]))
                detail = f"{name}.{column.name} {values[row]} counts of 1e-{column.type.scale} do not fit {column.type}"
                market = self.markets[columns["market_id"][row]]
                anomaly = Anomaly(AnomalyKind.BAD_NUMBER, detail, int(columns["recv_ns"][row]), market)
                if connection is not None:
                    connection.anomaly(anomaly)
            fitting &= ~wrong
        return fitting

    def _measure_lag(self, venue: str, columns: Mapping[str, Ints]) -> None:
        told = columns["venue_ns"] != NULL
        if "kind" in columns:
            told &= columns["kind"] == _DELTA
        lags, codes = (columns["recv_ns"] - columns["venue_ns"])[told], columns["connection_id"][told]
        self.totals[venue].lags.add(lags)
        for code in np.unique(codes):
            if connection := self.sessions.get(int(code)):
                connection.lags.add(lags[codes == code])

    def _arrow(self, venue: str, name: str, columns: Mapping[str, Ints], texts: pa.Array | None) -> pa.Table:
        declared = table(name)
        arrays = []
        for column in declared.columns:
            if column.name == "venue":
                arrays.append(pa.repeat(pa.scalar(venue, pa.string()), len(columns["recv_ns"])))
            elif column.name == _TEXTS.get(name):
                arrays.append(texts)
            else:
                arrays.append(self._column(column, columns[column.name]))
        return pa.Table.from_arrays(arrays, schema=declared.schema)

    def _column(self, column: Column, values: Ints) -> pa.Array:
        valid = values != NULL if column.nullable else None
        if pa.types.is_decimal(column.type):
            return decimal_array(values, column.type, valid)
        if pa.types.is_boolean(column.type):
            return pa.array(values != 0)
        if pa.types.is_integer(column.type):
            return int_array(values, valid)
        words: Sequence[str] = (
            self.markets
            if column.name == "market_id"
            else self.connections
            if column.name == "connection_id"
            else _WORDS[column.name]
        )
        codes = int_array(values if valid is None else np.where(valid, values, 0), valid)
        return pa.array(words, pa.string()).take(codes)

    def _session(self, connection: ConnectionRows) -> dict[str, Any]:
        return {
            "venue": connection.venue,
            "connection_id": connection.connection_id,
            "run_id": self.run_id,
            "exchange": self.exchange,
            "started_at": datetime_from_ns(connection.started_ns),
            "ended_at": None if connection.ended_ns is None else datetime_from_ns(connection.ended_ns),
            "markets": connection.markets,
            "frames": connection.frames,
            "bytes": connection.bytes,
            "anomalies": msgspec.json.encode(dict(connection.anomalies), order="sorted").decode(),
            "examples": msgspec.json.encode(connection.examples, order="sorted").decode(),
            "reconnects": connection.reconnects,
            "lag_p50_ms": connection.lags.percentile_ms(0.5),
            "lag_p99_ms": connection.lags.percentile_ms(0.99),
            "stop_reason": connection.stop_reason,
        }


def _by_day(name: str, records: Sequence[dict[str, Any]], time: str) -> dict[TableKey, pa.Table]:
    grouped: dict[TableKey, list[dict[str, Any]]] = {}
    for record in records:
        grouped.setdefault((name, Partition.of(name, record["venue"], record[time])), []).append(record)
    return {key: pa.Table.from_pylist(rows, schema=table(name).schema) for key, rows in grouped.items()}
