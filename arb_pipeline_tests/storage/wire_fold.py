"""An independent plain fold of recorded frames, written from the venues' documents and nothing of the package's.

Kalshi AsyncAPI 2.0.0: ``orderbook_snapshot`` replaces a market's book, missing ladders are empty; ``orderbook_delta``
adds ``delta_fp`` to the level at ``price_dollars`` of the side; a NO bid at p is a YES ask at 1 - p. Polymarket CLOB
market channel: ``book`` replaces an asset's book, ``price_changes`` set the size of one level (BUY: bids, SELL: asks)
of the asset that they name. The asset of YES is the first of the market's ``clobTokenIds``.
"""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

Ladder = list[tuple[Decimal, Decimal]]
Book = tuple[Ladder, Ladder]

Change = tuple[int, str, Decimal | None, Decimal]
"""(receive time, side, price, size); price None empties the side."""


class WireFold:
    """What the frames of a recording did to every book.

    Attributes:
        changes: by market id, what each frame did, in the order of receipt.
    """

    def __init__(self, recording: Path) -> None:
        self.changes: defaultdict[str, list[Change]] = defaultdict(list)
        self._sizes: defaultdict[str, dict[tuple[str, Decimal], Decimal]] = defaultdict(dict)
        for recv_ns, message in _messages(recording / "kalshi"):
            self._kalshi(recv_ns, message)
        yes = _yes_assets(recording / "polymarket")
        for recv_ns, message in _messages(recording / "polymarket"):
            self._polymarket(recv_ns, message, yes)

    def _kalshi(self, recv_ns: int, frame: dict[str, Any]) -> None:
        kind, message = frame["type"], frame["msg"]
        if kind == "orderbook_snapshot":
            changes, levels = self.changes[message["market_ticker"]], self._sizes[message["market_ticker"]]
            levels.clear()
            for side, ladder in (("bid", "yes_dollars_fp"), ("ask", "no_dollars_fp")):
                changes.append((recv_ns, side, None, Decimal(0)))
                for text, size in message.get(ladder) or ():
                    price = Decimal(text) if side == "bid" else 1 - Decimal(text)
                    levels[side, price] = Decimal(size)
                    changes.append((recv_ns, side, price, Decimal(size)))
        elif kind == "orderbook_delta":
            levels = self._sizes[message["market_ticker"]]
            side = "bid" if message["side"] == "yes" else "ask"
            price = Decimal(message["price_dollars"])
            price = price if side == "bid" else 1 - price
            levels[side, price] = levels.get((side, price), Decimal(0)) + Decimal(message["delta_fp"])
            self.changes[message["market_ticker"]].append((recv_ns, side, price, levels[side, price]))

    def _polymarket(self, recv_ns: int, message: dict[str, Any], yes: set[str]) -> None:
        changes = self.changes[message["market"]]
        if message["event_type"] == "book" and message["asset_id"] in yes:
            for side in ("bid", "ask"):
                changes.append((recv_ns, side, None, Decimal(0)))
                changes += [
                    (recv_ns, side, Decimal(level["price"]), Decimal(level["size"])) for level in message[f"{side}s"]
                ]
        for change in message.get("price_changes", ()):
            if change["asset_id"] in yes:
                side = "bid" if change["side"] == "BUY" else "ask"
                changes.append((recv_ns, side, Decimal(change["price"]), Decimal(change["size"])))


def folded(changes: Sequence[Change], instants: Sequence[int]) -> Iterator[tuple[int, Book]]:
    """(instant, bids and asks, best first) after all changes received up to and at each of some rising instants."""
    sides: dict[str, dict[Decimal, Decimal]] = {"bid": {}, "ask": {}}
    done = 0
    for instant in instants:
        while done < len(changes) and changes[done][0] <= instant:
            _, side, price, size = changes[done]
            done += 1
            if price is None:
                sides[side] = {}
            elif size:
                sides[side][price] = size
            else:
                sides[side].pop(price, None)
        yield instant, (sorted(sides["bid"].items(), reverse=True), sorted(sides["ask"].items()))


def _messages(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    path = folder / "frames.jsonl.gz"
    if not path.exists():
        return
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            frame = json.loads(record["frame"])
            for message in frame if isinstance(frame, list) else [frame]:
                yield record["recv_ns"], message


def _yes_assets(folder: Path) -> set[str]:
    path = folder / "events.json"
    events = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return {json.loads(market["clobTokenIds"])[0] for event in events for market in event["markets"]}
