"""A capture that runs for long while markets come and go, and what must not grow or get lost meanwhile.

The exchange runs in a process of its own. Every few seconds the resident memory of the recorder, its encoder and the
exchange is sampled, and everything in which frames can wait: the exchange's outboxes, the kernel's socket buffers, and
all that was sent but is not in the lake's tables yet (which holds the journal's backlog and the encoder's).
"""

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from arb_pipeline.storage import Lake
from arb_pipeline_tests.endurance.captured import Captured
from arb_pipeline_tests.endurance.capturing import VENUES, CaptureProcess, Capturing
from arb_pipeline_tests.endurance.exchange import ExchangeProcess

__all__ = ["Sample", "SoakResult", "growth", "soak"]

_MB = 1 << 20
_PROCESSES = ("recorder", "encoder")
_NOISE_SHARE = 0.02
_ARRIVAL_S = 1.0
"""What was handed to a socket has arrived by then."""
_NOISE_MB = 4.0
"""Memory may move by this for reasons that do not add up: what the allocators of Python and Arrow hold on to."""


@dataclass(frozen=True)
class Sample:
    """One look; memory in MB.

    Attributes:
        outbox: frames that wait at the exchange.
        sockets: bytes in the kernel's buffers between exchange and recorder.
        behind: frames sent that are not in the tables yet.
        subscribed: books that the exchange sends.
    """

    at_s: float
    recorder: float
    encoder: float
    exchange: float
    outbox: int
    sockets: int
    sent: int
    behind: int
    subscribed: int


@dataclass
class SoakResult:
    """What was measured, and what is wrong."""

    flush_s: float
    samples: list[Sample] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    captured: Counter[str] = field(default_factory=Counter)
    listed: int = 0
    taken: int = 0
    books: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    anomalies: Counter[str] = field(default_factory=Counter)
    finish_s: float = 0.0
    rate: float = 0.0
    findings: list[str] = field(default_factory=list)

    def table(self) -> str:
        """The result as text."""
        heads = ("recorder", "encoder", "exchange", "outbox", "sockets", "behind", "subscribed", "frames/s")
        lines = [f"{'s':>6}" + "".join(f" {head:>10}" for head in heads)]
        step = max(1, len(self.samples) // 30)
        shown = self.samples[::step]
        for before, sample in zip([None, *shown], shown, strict=False):
            rate = (sample.sent - before.sent) / (sample.at_s - before.at_s) if before else 0.0
            lines.append(
                f"{sample.at_s:6.0f} {sample.recorder:7.1f} MB {sample.encoder:7.1f} MB {sample.exchange:7.1f} MB "
                f"{sample.outbox:10,} {sample.sockets:10,} {sample.behind:10,} {sample.subscribed:10,} {rate:10,.0f}"
            )
        lines.append("")
        for name in _PROCESSES:
            moved, bound = growth(self.samples, name)
            lines.append(f"{name}: {moved:+.1f} MB over the last third (noise: {bound:.1f} MB)")
        lines += [
            *(f"{venue}: {self.sent[venue]:,} sent, {self.captured[venue]:,} in the tables" for venue in VENUES),
            f"markets that came and went: {self.listed:,} listed, {self.taken:,} captured",
            f"gaps: {dict(self.gaps)}; anomalies: {dict(self.anomalies)}",
            f"{self.rate:,.0f} frames/s; tables final {self.finish_s:.0f} s after the stop",
            f"books compared with the exchange's: {self.books:,}",
            *(f"FAILED: {finding}" for finding in self.findings),
            "FAILED" if self.findings else "passed",
        ]
        return "\n".join(lines)


def growth(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """How much a process grew over the last third of the samples by least squares, and what counts as noise, MB.

    Noise is a fixed part, and three standard errors of the fit: memory that goes up and down with each batch of rows
    says little about growth in a short run, and nearly all about it in a long one.
    """
    third = samples[-(len(samples) // 3) :]
    at = np.array([sample.at_s for sample in third])
    held = np.array([getattr(sample, name) for sample in third])
    slope, start = np.polyfit(at, held, 1)
    scatter = float(np.std(held - (slope * at + start)))
    noise = _NOISE_SHARE * float(held.mean()) + _NOISE_MB + 3 * scatter * (12 / len(third)) ** 0.5
    return float(slope) * float(at[-1] - at[0]), noise


def soak(
    folder: Path,
    *,
    seconds: float = 1_800.0,
    rate: float = 5_000.0,
    per_minute: int = 100,
    flush_s: float = 5.0,
    every_s: float = 5.0,
    settle_s: float = 30.0,
    life_s: float = 30.0,
    say: Callable[[str], None] = lambda _words: None,
) -> SoakResult:
    """Capture for so long, and check what was measured and what is in the tables.

    Args:
        folder: an empty one.
        rate: frames per second over both venues, about.
        per_minute: markets that are listed, and closed, each minute.
        flush_s: ``ARB_CAPTURE_FLUSH_S``.
        every_s: seconds between samples.
        settle_s: from the first frames to the first sample: caches fill.
        life_s: seconds from a market's listing to its close.
        say: told of each sample.
    """
    result = SoakResult(flush_s)
    minutes = (seconds + settle_s) / 60
    settings = {
        "ARB_CAPTURE_FLUSH_S": str(flush_s),
        # The exchange is not a venue to be polite to, and asks for two look-ups a second.
        "ARB_HTTP_REQUESTS_PER_S": "50",
    }
    with (
        ExchangeProcess(7, rate, log_frames=4_000, per_minute=per_minute, minutes=minutes, life_s=life_s) as exchange,
        Capturing(folder, exchange, settings) as capturing,
    ):
        capturing.await_streams(capturing.start())
        time.sleep(settle_s)
        began = time.monotonic()
        while (at_s := time.monotonic() - began) <= seconds:
            sample = _look(exchange, capturing.process, at_s)
            result.samples.append(sample)
            say(str(sample))
            time.sleep(max(0.0, every_s - (time.monotonic() - began - at_s)))
        first, last = result.samples[0], result.samples[-1]
        result.rate = (last.sent - first.sent) / (last.at_s - first.at_s)
        began = time.monotonic()
        sent = capturing.stop(_ARRIVAL_S)
        result.finish_s = time.monotonic() - began - _ARRIVAL_S
        _check(exchange, capturing.process.lake, result, sent, round(life_s * 1e9))
    return result


def _look(exchange: ExchangeProcess, capture: CaptureProcess, at_s: float) -> Sample:
    (encoder,) = capture.encoders(recovering=False) or [0]
    # In this order: what is committed was sent before.
    committed = _committed(capture.lake)
    status = exchange.status()
    sent = sum(told["sent"] for told in exchange.counts())
    return Sample(
        at_s=at_s,
        recorder=_resident_mb(capture.pid),
        encoder=_resident_mb(encoder),
        exchange=_resident_mb(exchange.pid),
        outbox=status["queued"],
        sockets=_socket_bytes(exchange.port),
        sent=sent,
        behind=sent - committed,
        subscribed=sum(status["subscribed"].values()),
    )


def _check(exchange: ExchangeProcess, lake: Lake, result: SoakResult, sent: dict[str, int], life_ns: int) -> None:
    captured = Captured(lake)
    find = result.findings
    find += [f"{name}: {count} rows are there twice" for name, count in captured.repeated().items() if count]
    for venue in VENUES:
        _check_frames(venue, captured, result, sent, {told["connection"]: told["sent"] for told in exchange.counts()})
    _check_growth(result)
    _check_books(exchange, captured, result, life_ns)
    rows = captured.rows("SELECT cause, count(*) FROM book_gaps GROUP BY 1")
    result.gaps.update(dict(rows))
    if doubts := set(result.gaps) & {"outage", "disconnect", "seq_gap"}:
        find.append(f"gaps by {', '.join(sorted(doubts))}")


def _check_frames(
    venue: str, captured: Captured, result: SoakResult, sent: dict[str, int], total: dict[str, int]
) -> None:
    due, have, finding = captured.frames_due(venue, sent, total)
    result.sent[venue], result.captured[venue] = due, have
    result.findings += [finding] if finding else []
    for session in captured.sessions(venue):
        for name, count in re.findall(r'"(\w+)":(\d+)', session["anomalies"]):
            result.anomalies[name] += int(count)
    if result.anomalies["skipped"]:
        result.findings.append(f"{result.anomalies['skipped']} ticker frames were left out")


def _check_growth(result: SoakResult) -> None:
    for name in _PROCESSES:
        moved, bound = growth(result.samples, name)
        if moved > bound:
            result.findings.append(f"the {name} grew by {moved:.1f} MB over the last third; noise is {bound:.1f} MB")
    third = len(result.samples) // 3
    first, last = result.samples[:third], result.samples[-third:]
    # What waits between two flushes is up to two intervals' frames: one is collected while one is written.
    usual = 2 * result.flush_s * result.rate
    for name, noise in (("outbox", 0.2 * result.rate), ("sockets", 2.0 * _MB), ("behind", usual)):
        early, late = (float(np.median([getattr(one, name) for one in part])) for part in (first, last))
        if late > early + noise:
            result.findings.append(f"{name} grew from {early:,.0f} to {late:,.0f}")


def _check_books(exchange: ExchangeProcess, captured: Captured, result: SoakResult, life_ns: int) -> None:
    books = captured.books()
    result.books = len(books)
    wrong = [market_id for market_id, book in books.items() if book != exchange.book(market_id)]
    if wrong or not books:
        result.findings.append(f"{len(wrong)} of {len(books)} books are not the exchange's: {wrong[:5]}")
    played_ns = exchange.status()["position_ns"]
    # The last ones may be looked up only after the end.
    listed = [one for one in exchange.passing() if one.listed_ns < played_ns]
    due = {one.market_id for one in listed if one.listed_ns < played_ns - life_ns}
    result.listed, result.taken = len(listed), sum(one.market_id in books for one in listed)
    if missed := due - books.keys():
        result.findings.append(f"{len(missed)} of {len(due)} markets that were listed were never captured")


def _resident_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _socket_bytes(port: int) -> int:
    """Bytes in the send and receive buffers of all TCP connections from or to a port of this machine."""
    waiting = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        if state == "01" and port in {int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16)}:
            waiting += sum(int(queue, 16) for queue in queues.split(":"))
    return waiting


def _committed(lake: Lake) -> int:
    """Frames in the tables, by the manifests alone."""
    return sum(lake.manifest("raw_frames", partition).rows for partition in lake.partitions("raw_frames"))
