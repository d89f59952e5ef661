"""Shows a replay: as a table for the terminal, as a picture, and as one page that needs nothing else. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from mllib.replay import Replay, Rule, compared
from mllib.report.page import environment

WIDTH, HEIGHT = 860, 400
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 16, 40
"""Margins around the plot, for the labels of the axes."""

DATES = 7
"""At most so many dates are written below the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """One period of one rule: where it stands, whether a promotion began it, and what is said of it."""

    x: float
    y: float
    promoted: bool
    title: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """F1 over time under one rule, as the ``d`` of an SVG path that breaks off where there is no F1."""

    name: str
    path: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """The picture in units of its drawing area: lines, and the ticks of both axes as (place, text)."""

    lines: tuple[Line, ...]
    f1_ticks: tuple[tuple[float, str], ...]
    dates: tuple[tuple[float, str], ...]
    compared_from: float | None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def as_table(replay: Replay) -> str:
    """The figures of each rule side by side, and what they are measured on, as text."""
    head = f"{'policy':<15}{'F1':>8}{'worst':>8}{'promotions':>12}{'made it worse':>15}{'alerts a day':>14}"
    lines = [
        f"{name:<15}{f1:>8}{worst:>8}{promotions:>12}{made_worse:>15}{alerts:>14}"
        for name, f1, worst, _, promotions, made_worse, alerts in figures(replay)
    ]
    return "\n".join([head, *lines, "", *notes(replay)])


def figures(replay: Replay) -> list[tuple[str, str, str, str, str, str, str]]:
    """For each rule: name, F1, worst F1 and its date, promotions, how many made the next period worse, alerts a day."""
    return [
        (
            rule.value,
            _f1(summary.f1),
            _f1(summary.worst_f1),
            f"{summary.worst:%Y-%m-%d}" if summary.worst else "-",
            str(summary.promotions),
            str(summary.made_worse),
            "-" if summary.alerts_per_day is None else f"{summary.alerts_per_day:,.1f}",
        )
        for rule, summary in replay.summaries().items()
    ]


def notes(replay: Replay) -> list[str]:
    """What one has to know to read the figures, a sentence each."""
    alike = compared(replay.periods)
    every = "day" if replay.every == timedelta(days=1) else f"{replay.every.days} days"
    said = [
        f"Retrained every {every} over {replay.window}: {len(replay.periods):,} periods, lived through in "
        f"{replay.seconds:.0f} s."
    ]
    if not alike:
        return [*said, "No policy ever had a champion, so there is nothing to compare. Live through a longer range."]
    counts = [step.counts for period in alike for step in period.steps.values() if step.counts]
    per_rule = max(len({rule for rule in Rule if alike[0].steps[rule].counts}), 1)
    labelled, positives = (sum(getattr(c, name) for c in counts) // per_rule for name in ("labelled", "positives"))
    said.append(
        f"Compared from {alike[0].window.start:%Y-%m-%d %H:%M} on, when each policy that ever had a champion had one: "
        f"{labelled:,} labelled rows, {positives:,} of them anomalies."
    )
    without = [rule.value for rule in Rule if alike[0].steps[rule].champion is None]
    if without:
        said.append(f"Never a champion under: {', '.join(without)}.")
    untrained = sum(period.candidate is None for period in replay.periods)
    if untrained:
        said.append(f"In {untrained:,} periods no candidate could be trained.")
    blank = sum(not any(step.counts and step.counts.f1 is not None for step in p.steps.values()) for p in alike)
    if blank:
        said.append(f"{blank:,} of the periods compared have no labelled anomaly, and so no F1 of their own.")
    return said


def chart(replay: Replay) -> Chart:
    """Where everything stands in the picture."""
    alike = compared(replay.periods)
    known = [step.counts.f1 or 0.0 for p in replay.periods for step in p.steps.values() if step.counts]
    top = max(math.ceil(max(known, default=0.0) * 10) / 10, 0.2)
    last = max(len(replay.periods) - 1, 1)

    def x(number: int) -> float:
        return round(LEFT + number / last * (WIDTH - LEFT - RIGHT), 1)

    def y(f1: float) -> float:
        return round(HEIGHT - BOTTOM - f1 / top * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for rule in Rule:
        path, marks, drawing = "", [], False
        for number, period in enumerate(replay.periods):
            step = period.steps[rule]
            f1 = step.counts.f1 if step.counts else None
            if f1 is not None:
                path += f"{'L' if drawing else 'M'}{x(number)} {y(f1)}"
                became = f", candidate {step.champion} promoted" if step.promoted else ""
                title = f"{rule.value}, {period.window.start:%Y-%m-%d}: F1 {f1:.3f}{became}"
                marks.append(Mark(x=x(number), y=y(f1), promoted=step.promoted, title=title))
            drawing = f1 is not None
        lines.append(Line(name=rule.value, path=path, marks=tuple(marks)))
    steps = -(-len(replay.periods) // DATES)
    return Chart(
        lines=tuple(lines),
        f1_ticks=tuple((y(tenth / 10), f"{tenth / 10:.1f}") for tenth in range(round(top * 10) + 1)),
        dates=tuple(
            (x(number), f"{period.window.start:%Y-%m-%d}")
            for number, period in enumerate(replay.periods)
            if number % steps == 0
        ),
        compared_from=x(len(replay.periods) - len(alike)) if alike else None,
    )


def draw(replay: Replay) -> str:
    """The picture as an SVG document with its own styles, light and dark."""
    return environment().get_template("replay.svg.j2").render(chart=chart(replay))


def render(replay: Replay) -> str:
    """The page: picture, table and the steps, as one HTML document without scripts and without anything to fetch."""
    return (
        environment()
        .get_template("replay.html.j2")
        .render(replay=replay, chart=chart(replay), figures=figures(replay), notes=notes(replay), rules=list(Rule))
    )


def _f1(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
