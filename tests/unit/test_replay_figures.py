"""The pure part of a replay: its periods, its rules, its figures, and how they are shown."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np
import pytest

from mllib.errors import BadInput
from mllib.gate.promotion import Decision
from mllib.replay import Counts, Period, Replay, Rule, Step, compared, count, schedule, summarise, takes
from mllib.replay_page import as_table, chart, draw, render
from mllib.types import Policy, Verdict, Window

START = datetime(2026, 1, 4, 2, tzinfo=UTC)
WEEK = timedelta(days=7)


def counts(f1: float | None, alerts: int = 10) -> Counts:
    """Counts with this F1 over 100 labelled anomalies and as many alerts."""
    if f1 is None:
        return Counts(rows=1000, alerts=alerts, labelled=0)
    hits = round(100 * f1)
    return Counts(rows=1000, alerts=alerts, labelled=1000, positives=100, labelled_alerts=100, hits=hits)


def step(champion: int | None, f1: float | None = None, **how: Any) -> Step:
    defaults = {"promoted": False, "verdict": None, "reason": "", "counts": None if champion is None else counts(f1)}
    return Step(champion=champion, **(defaults | how))


def period(number: int, steps: dict[Rule, Step], candidate: int | None = 1, why_not: str = "") -> Period:
    window = Window(START + number * WEEK, START + (number + 1) * WEEK)
    alike = {rule: steps.get(rule, steps[Rule.NEVER]) for rule in Rule}
    return Period(window=window, candidate=candidate, why_not=why_not, steps=alike)


def replay(*periods: Period) -> Replay:
    window = Window(START, START + len(periods) * WEEK)
    return Replay(detector="log_anomaly", window=window, every=WEEK, periods=periods, seconds=1.0)


@pytest.fixture
def lived() -> Replay:
    """Nothing; then always-promote alone; then all, once better and once worse for it; then a week without labels."""
    better = step(2, 0.6, promoted=True, replaced=counts(0.5))
    worse = step(3, 0.3, promoted=True, replaced=counts(0.6))
    return replay(
        period(0, {Rule.NEVER: step(None)}, candidate=None, why_not="too few <rows>"),
        period(1, {Rule.NEVER: step(None), Rule.ALWAYS: step(1, 0.1, promoted=True)}),
        period(2, {Rule.NEVER: step(2, 0.6, promoted=True), Rule.ALWAYS: better}),
        period(3, {Rule.NEVER: step(2, 0.6), Rule.ALWAYS: worse}),
        period(4, {Rule.NEVER: step(2, None), Rule.ALWAYS: step(3, None)}),
        period(5, {Rule.NEVER: step(2, 0.4), Rule.ALWAYS: step(3, 0.2)}),
    )


def test_periods_cover_the_range_without_gap_and_end_with_it() -> None:
    window = Window(START, START + 2 * WEEK + timedelta(days=1))
    periods = schedule(window, WEEK)
    assert [p.length.days for p in periods] == [7, 7, 1]
    assert (periods[0].start, periods[-1].end) == (window.start, window.end)
    assert all(before.end == after.start for before, after in itertools.pairwise(periods))
    assert schedule(Window(START, START + WEEK), WEEK) == [Window(START, START + WEEK)]


@pytest.mark.parametrize("every", [timedelta(hours=12), timedelta(days=1)])
def test_a_replay_without_end_is_refused(every: timedelta) -> None:
    with pytest.raises(BadInput, match=r"once a day|periods"):
        schedule(Window(START, START + timedelta(days=3000)), every)


@pytest.mark.parametrize(
    ("rule", "champion", "strict", "evidence", "taken", "asked"),
    [
        (Rule.ALWAYS, 1, "refuse", "refuse", True, []),
        (Rule.NEVER, None, "promote", "refuse", True, [Policy.STRICT]),
        (Rule.NEVER, None, "refuse", "refuse", False, [Policy.STRICT]),
        (Rule.NEVER, 1, "promote", "promote", False, []),
        (Rule.STRICT, 1, "promote", "refuse", True, [Policy.STRICT]),
        (Rule.EVIDENCE, 1, "promote", "not_enough_evidence", False, [Policy.EVIDENCE]),
        (Rule.EVIDENCE, None, "refuse", "promote", True, [Policy.EVIDENCE]),
    ],
)
def test_which_candidate_a_rule_takes(
    rule: Rule, champion: int | None, strict: str, evidence: str, taken: bool, asked: list[Policy]
) -> None:
    heard: list[Policy] = []

    class Said:
        def __init__(self, policy: Policy) -> None:
            heard.append(policy)
            self.verdict = Verdict(strict if policy is Policy.STRICT else evidence)

    found, decision = takes(rule, champion, lambda policy: cast("Decision", Said(policy)))
    assert (found, heard) == (taken, asked)
    assert (decision is None) == (not asked)


def test_counts_of_rows_with_and_without_a_label() -> None:
    flags = np.array([True, True, False, False, True])
    labelled = np.array([True, True, True, True, False])
    positive = np.array([True, False, True, False, False])
    found = count(flags, labelled, positive)
    assert found == Counts(rows=5, alerts=3, labelled=4, positives=2, labelled_alerts=2, hits=1)
    assert found.f1 == 0.5
    assert (found + found).hits == 2
    assert Counts(rows=5, alerts=5, labelled=5, labelled_alerts=5).f1 is None


def test_the_rules_are_compared_where_all_have_a_champion(lived: Replay) -> None:
    assert compared(lived.periods) == lived.periods[2:]
    assert compared(lived.periods[:2]) == lived.periods[1:2]
    assert not compared(lived.periods[:1])


def test_the_figures_of_a_rule(lived: Replay) -> None:
    found = summarise(compared(lived.periods), Rule.ALWAYS)
    assert found.f1 == pytest.approx((0.6 + 0.3 + 0.2) / 3)
    assert (found.worst_f1, found.worst) == (0.2, lived.periods[5].window.start)
    assert (found.promotions, found.made_worse) == (2, 1)
    assert found.alerts_per_day == pytest.approx(40 / 28)
    kept = summarise(compared(lived.periods), Rule.NEVER)
    assert (kept.promotions, kept.made_worse) == (0, 0)
    assert summarise((), Rule.STRICT).f1 is None


def test_a_week_without_labels_is_a_gap_in_the_line_and_no_zero(lived: Replay) -> None:
    line = next(line for line in chart(lived).lines if line.name == "always-promote")
    assert [part.count("L") for part in line.path.split("M")[1:]] == [2, 0]
    assert len(line.marks) == 4
    assert [mark.promoted for mark in line.marks] == [True, True, True, False]
    heights = [mark.y for mark in line.marks]
    assert min(heights) == heights[1]
    assert max(heights) == heights[0]


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(lived: Replay) -> None:
    page = render(lived)
    assert "too few &lt;rows&gt;" in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count("<path") == 8
    assert draw(lived).startswith("<svg")


def test_the_table_says_what_it_rests_on(lived: Replay) -> None:
    table = as_table(lived)
    assert [line.split()[0] for line in table.splitlines()[1:5]] == [rule.value for rule in Rule]
    assert "3,000 labelled rows, 300 of them anomalies" in table
    assert "In 1 periods no candidate could be trained." in table
    nothing = as_table(replay(lived.periods[0]))
    assert "nothing to compare" in nothing
