"""What rules about single markets and about captures find, by figures that somebody else has looked up."""

from decimal import Decimal

from arb_pipeline.alerting.evaluation import UNKNOWN, Finding
from arb_pipeline.alerting.positions import Position
from arb_pipeline.alerting.rules import CaptureStalled, GapShare, PriceMove, Spread
from arb_pipeline.model import Top
from arb_pipeline.units import format_plain, price_decimal, size_decimal

__all__ = ["gap_finding", "move_finding", "spread_finding", "stalled_finding"]


def spread_finding(rule: Spread, top: Top) -> Finding:
    """Whether a trusted book is as tight as the rule asks; one without a side is not."""
    bid, bid_size, ask, ask_size = top
    if bid is None or bid_size is None or ask is None or ask_size is None:
        return Finding(False, "a side of the book is empty")
    spread, size = price_decimal(ask - bid), min(bid_size, ask_size)
    holds = spread <= rule.at_most and size_decimal(size) >= rule.min_size
    told = format_plain(ask - bid, 4)
    return Finding(holds, f"spread {told} (at most {rule.at_most})", {"spread": told, "size": format_plain(size, 6)})


def move_finding(rule: PriceMove, position: Position, top: Top) -> Finding:
    """How far a trusted book's price of the held outcome is from its entry; unknown without such a price."""
    bid, _, ask, _ = top
    yes = position.outcome == "yes"
    if rule.price == "mid":
        if bid is None or ask is None:
            return UNKNOWN
        middle = (price_decimal(bid) + price_decimal(ask)) / 2
        price = middle if yes else 1 - middle
    else:
        level = bid if yes else ask
        if level is None:
            return UNKNOWN
        price = price_decimal(level) if yes else 1 - price_decimal(level)
    change = price - position.entry
    moved = {"gain": change, "loss": -change, "any": abs(change)}[rule.direction]
    figures = {
        "outcome": position.outcome,
        "entry": str(position.entry),
        "price": str(price),
        "change": str(change),
        "size": str(position.size),
        "value": str(change * position.size),
    }
    earned = f"{change:+} a contract, {change * position.size:+.2f} dollars"
    words = f"{rule.price} {price}, entry {position.entry}: {earned}"
    return Finding(moved >= rule.by, words, figures)


def gap_finding(rule: GapShare, share: float | None) -> Finding:
    """Whether too much of a venue's market-time lies in gaps; None: nothing was captured."""
    if share is None:
        return UNKNOWN
    words = f"{share:.2%} of the market-time of {rule.minutes} min lies in gaps (limit {rule.above})"
    return Finding(Decimal(share) > rule.above, words, {"share": f"{share:.6f}", "minutes": rule.minutes})


def stalled_finding(rule: CaptureStalled, silent_s: float | None) -> Finding:
    """Whether a venue's capture has given no sign of life for too long; None: there never was one."""
    if silent_s is None:
        return UNKNOWN
    words = f"no sign of life for {silent_s:.0f} s (limit {rule.after_seconds} s)"
    return Finding(silent_s > rule.after_seconds, words, {"silent_s": f"{silent_s:.1f}"})
