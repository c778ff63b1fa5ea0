"""When to tell: pure state machines, fed with what is known at a time.

A condition holds, does not hold, or is unknown. Only a condition that was known to hold all along for as long as its
rule asks is told, once, and again after the rule's pause while it lasts. That it ended is told once it is known not to
hold: unknown is neither.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from arb_pipeline.alerting.alert import Alert
from arb_pipeline.alerting.rules import Rule

__all__ = ["UNKNOWN", "Condition", "Evaluation", "Finding", "Told"]

Change: TypeAlias = Literal["fired", "repeated", "resolved"]
Key: TypeAlias = tuple[str, str]
"""(rule, subject)."""


@dataclass(slots=True)
class Condition:
    """One rule's condition on one subject.

    Attributes:
        hold_ns: how long it must hold. repeat_ns: pause before it is told again; None: never.
        since_ns: from when on it is known to hold; None while it does not, or nobody knows.
        told_ns: when it was told last; None if it was not, or its end was.
    """

    hold_ns: int = 0
    repeat_ns: int | None = None
    since_ns: int | None = None
    told_ns: int | None = None
    _at_ns: int = field(default=-(2**63), init=False)

    def take(self, at_ns: int, holds: bool | None) -> Change | None:
        """What is known from ``at_ns`` on; times that step back count as the latest one."""
        self._at_ns = at_ns = max(self._at_ns, at_ns)
        if holds:
            if self.since_ns is None:
                self.since_ns = at_ns
            return self.pass_time(at_ns)
        self.since_ns = None
        if holds is None or self.told_ns is None:
            return None
        self.told_ns = None
        return "resolved"

    def pass_time(self, at_ns: int) -> Change | None:
        """Nothing changed up to ``at_ns``."""
        self._at_ns = at_ns = max(self._at_ns, at_ns)
        if self.since_ns is None or at_ns - self.since_ns < self.hold_ns:
            return None
        if self.told_ns is None:
            self.told_ns = at_ns
            return "fired"
        if self.repeat_ns is not None and at_ns - self.told_ns >= self.repeat_ns:
            self.told_ns = at_ns
            return "repeated"
        return None


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a rule's condition on a subject.

    Attributes:
        holds: None while it is unknown.
        message: the figures in words. details: the same as plain values.
    """

    holds: bool | None
    message: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


UNKNOWN = Finding(None)


class Told(msgspec.Struct, frozen=True):
    """A condition as one look, or one process, leaves it to the next; see :class:`Condition` for the times."""

    rule: str
    subject: str
    told_ns: int | None
    since_ns: int | None = None
    venue: str = ""
    market_id: str = ""


@dataclass(slots=True)
class _Case:
    rule: Rule
    subject: str
    venue: str
    market_id: str
    condition: Condition
    finding: Finding = UNKNOWN


class Evaluation:
    """All conditions of some rules.

    Args:
        rules: those that are active.
        told: what an earlier one left (:attr:`told` or :attr:`state`); what no rule speaks of any more is forgotten.
    """

    def __init__(self, rules: Iterable[Rule], told: Iterable[Told] = ()) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._cases: dict[Key, _Case] = {}
        self._holding: dict[Key, _Case] = {}
        for one in told:
            if rule := self._rules.get(one.rule):
                case = self._case(rule, one.subject, one.venue, one.market_id)
                case.condition.told_ns, case.condition.since_ns = one.told_ns, one.since_ns
                if one.since_ns is not None:
                    self._holding[one.rule, one.subject] = case

    @property
    def told(self) -> list[Told]:
        """What was told and has not ended, for whoever does not know what happens until it looks."""
        return [msgspec.structs.replace(one, since_ns=None) for one in self.state if one.told_ns is not None]

    @property
    def state(self) -> list[Told]:
        """What was told and has not ended, and what holds, for whoever goes on from here."""
        cases = [(case, case.condition) for case in self._cases.values()]
        return [
            Told(case.rule.name, case.subject, condition.told_ns, condition.since_ns, case.venue, case.market_id)
            for case, condition in cases
        ]

    def take(  # noqa: PLR0917 - a finding, what it is about, and when it was made
        self, rule: Rule, subject: str, venue: str, market_id: str, at_ns: int, finding: Finding
    ) -> Alert | None:
        """What was found about a subject; what is to be told of it."""
        key = rule.name, subject
        case = self._cases.get(key)
        if case is None:
            if not finding.holds:
                return None  # nothing was told of it, and nothing is to be
            case = self._case(rule, subject, venue, market_id)
        since = case.condition.since_ns
        change = case.condition.take(at_ns, finding.holds)
        alert = _alert(case, change, at_ns, since, finding)
        case.finding = finding
        if case.condition.since_ns is not None:
            self._holding[key] = case
        else:
            self._holding.pop(key, None)
            if case.condition.told_ns is None:
                del self._cases[key]
        return alert

    def pass_time(self, at_ns: int) -> list[Alert]:
        """Nothing else was found up to ``at_ns``: what is due by the time alone."""
        alerts = []
        for case in self._holding.values():
            since = case.condition.since_ns
            alert = _alert(case, case.condition.pass_time(at_ns), at_ns, since, case.finding)
            if alert is not None:
                alerts.append(alert)
        return alerts

    def doubt(self) -> None:
        """Nobody knows what happened since the last finding: whatever held begins anew."""
        for key, case in list(self._holding.items()):
            case.condition.since_ns = None
            if case.condition.told_ns is None:
                del self._cases[key]
        self._holding.clear()

    def _case(self, rule: Rule, subject: str, venue: str, market_id: str) -> _Case:
        case = _Case(rule, subject, venue, market_id, Condition(rule.hold_ns, rule.repeat_ns))
        return self._cases.setdefault((rule.name, subject), case)


def _alert(case: _Case, change: Change | None, at_ns: int, since_ns: int | None, finding: Finding) -> Alert | None:
    if change is None:
        return None
    lasted = (at_ns - (at_ns if since_ns is None else since_ns)) / 1e9
    what = f": {finding.message}" if finding.message else ""
    lasting = f", for {lasted:.1f} s" if change != "resolved" and lasted else ""
    over = "resolved: " if change == "resolved" else ""
    return Alert(
        handler=case.rule.name,
        venue=case.venue,
        market_id=case.market_id,
        at_ns=at_ns,
        message=f"{over}{case.rule.name}: {case.subject}{what}{lasting}",
        details={"kind": case.rule.kind, **finding.details},
        subject=case.subject,
        state=change,
        channels=case.rule.notify,
    )
