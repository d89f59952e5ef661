"""What would have come of each promotion policy: its rules, its figures, and how the policies compare. Pure.

A replay lives through a stretch of logs period by period (a week, unless told otherwise). At the start of each a
candidate is trained, each policy takes it or leaves it, and the champion that it then has scores the period.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from mllib.errors import BadInput
from mllib.gate.promotion import Decision
from mllib.types import Policy, Verdict, Window

Bools = npt.NDArray[np.bool_]

DAY = timedelta(days=1)
MAX_PERIODS = 2000


class Rule(enum.StrEnum):
    """Which candidates become champion."""

    NEVER = "never-retrain"
    """The first one that passes the gate under ``strict``, and no other after it."""
    ALWAYS = "always-promote"
    """Every one, without a gate."""
    STRICT = "strict"
    """Those that pass the gate under the policy of this name."""
    EVIDENCE = "evidence"
    """Those that pass the gate under the policy of this name."""


GATE = {Rule.STRICT: Policy.STRICT, Rule.EVIDENCE: Policy.EVIDENCE}


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What a model did in a period: over all rows, and over those whose label is known."""

    rows: int = 0
    alerts: int = 0
    labelled: int = 0
    positives: int = 0
    labelled_alerts: int = 0
    hits: int = 0

    @property
    def f1(self) -> float | None:
        """None without a labelled anomaly, for then F1 is 0 whatever the model does."""
        return 2 * self.hits / (self.labelled_alerts + self.positives) if self.positives else None

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in Counts.__slots__})


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One period under one rule. ``champion`` is who scored it, by the number of the candidate; None for nobody."""

    champion: int | None
    promoted: bool
    verdict: Verdict | None
    """The gate's; None where it was not asked."""
    reason: str
    counts: Counts | None
    """What the champion did."""
    replaced: Counts | None = None
    """After a promotion: what the champion before would have done with the same rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Period:
    """One period: the candidate trained at its start (None: there was none, and why), and a step for each rule."""

    window: Window
    candidate: int | None
    why_not: str
    steps: Mapping[Rule, Step]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A rule over the periods that all rules are compared by."""

    f1: float | None
    """Over all labelled rows of these periods together."""
    worst_f1: float | None
    worst: datetime | None
    """Start of the period with the lowest F1."""
    promotions: int
    """Champions that replaced another one."""
    made_worse: int
    """Promotions after which the next period went worse than with the champion before."""
    alerts_per_day: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """A stretch of logs, lived through."""

    detector: str
    window: Window
    every: timedelta
    periods: tuple[Period, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: the figures of each rule, and its steps."""
        alike = compared(self.periods)
        return {
            "detector": self.detector,
            "from": self.window.start.isoformat(),
            "to": self.window.end.isoformat(),
            "every_days": self.every / DAY,
            "compared_from": alike[0].window.start.isoformat() if alike else None,
            "periods": [
                {"from": period.window.start.isoformat(), "candidate": period.candidate, "why_not": period.why_not}
                for period in self.periods
            ],
            "policies": {
                rule.value: {
                    **asdict(summary),
                    "worst": summary.worst.isoformat() if summary.worst else None,
                    "periods": [_plain(period.steps[rule]) for period in self.periods],
                }
                for rule, summary in self.summaries().items()
            },
            "seconds": self.seconds,
        }

    def summaries(self) -> dict[Rule, Summary]:
        """The figures of each rule over the same periods, see `compared`."""
        alike = compared(self.periods)
        return {rule: summarise(alike, rule) for rule in Rule}


def schedule(window: Window, every: timedelta) -> list[Window]:
    """The periods of a replay, the last one perhaps shorter. Raises BadInput when they are none or too many."""
    if every < DAY:
        raise BadInput(f"A replay retrains at most once a day, not every {every}.")
    count = -(-window.length // every)
    if count > MAX_PERIODS:
        raise BadInput(
            f"{window} holds {count:,} periods of {every.days} days, more than the {MAX_PERIODS:,} that a replay lives "
            "through. Choose a shorter range, or retrain less often."
        )
    starts = [window.start + number * every for number in range(count)]
    return [Window(start, min(start + every, window.end)) for start in starts]


def takes(rule: Rule, champion: int | None, judge: Callable[[Policy], Decision]) -> tuple[bool, Decision | None]:
    """Whether a rule makes a candidate champion, and the gate's decision where it was asked.

    ``judge`` is asked only where the rule depends on it: judging costs time.
    """
    if rule is Rule.ALWAYS:
        return True, None
    if rule is Rule.NEVER:
        if champion is not None:
            return False, None
        decision = judge(Policy.STRICT)  # the less demanding one, so that there is a champion to keep
    else:
        decision = judge(GATE[rule])
    return decision.verdict is Verdict.PROMOTE, decision


def count(flags: Bools, labelled: Bools, positive: Bools) -> Counts:
    """Counts of one stretch of rows, all of shape (rows,); ``positive`` says nothing where ``labelled`` is false."""
    return Counts(
        rows=flags.size,
        alerts=int(flags.sum()),
        labelled=int(labelled.sum()),
        positives=int((labelled & positive).sum()),
        labelled_alerts=int((labelled & flags).sum()),
        hits=int((labelled & positive & flags).sum()),
    )


def compared(periods: Sequence[Period]) -> Sequence[Period]:
    """The periods by which the rules are compared: from the first in which all that ever have a champion have one."""
    begins = []
    for rule in Rule:
        scored = (number for number, period in enumerate(periods) if period.steps[rule].champion is not None)
        begins.append(next(scored, None))
    known = [begin for begin in begins if begin is not None]
    return periods[max(known) :] if known else ()


def summarise(periods: Sequence[Period], rule: Rule) -> Summary:
    """The figures of a rule over these periods, which `compared` gives. What cannot be measured is None."""
    steps = [(period.window, period.steps[rule]) for period in periods]
    counted = [(window, step.counts) for window, step in steps if step.counts is not None]
    together = sum((counts for _, counts in counted), Counts())
    by_period = [(counts.f1, window.start) for window, counts in counted if counts.f1 is not None]
    worst_f1, worst = min(by_period, default=(None, None))
    replacements = [step for _, step in steps if step.replaced is not None]
    days = sum((window.length for window, _ in counted), timedelta(0)) / DAY
    return Summary(
        f1=together.f1,
        worst_f1=worst_f1,
        worst=worst,
        promotions=len(replacements),
        made_worse=sum(_worse(step) for step in replacements),
        alerts_per_day=together.alerts / days if days else None,
    )


def _plain(step: Step) -> dict[str, Any]:
    return {
        "champion": step.champion,
        "promoted": step.promoted,
        "verdict": step.verdict.value if step.verdict else None,
        "reason": step.reason,
        "f1": step.counts.f1 if step.counts else None,
        "f1_of_replaced": step.replaced.f1 if step.replaced else None,
        "counts": asdict(step.counts) if step.counts else None,
    }


def _worse(step: Step) -> bool:
    new = step.counts.f1 if step.counts else None
    old = step.replaced.f1 if step.replaced else None
    return new is not None and old is not None and new < old
