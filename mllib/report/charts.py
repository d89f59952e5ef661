"""Where the marks of a chart stand, in the units of its drawing area. The templates draw them."""

from __future__ import annotations

from dataclasses import dataclass

from mllib.report.measures import Curve, F1Interval

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 28, 16, 52
"""Margins around the plot, for the labels of the axes."""

BAR_WIDTH = 220
"""Of the small drawing of one slice, whose F1 goes from 0 at the left to 1 at the right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A curve as the ``d`` of an SVG path, and the point of the threshold in use."""

    name: str
    style: str
    path: str
    mark: tuple[float, float] | None
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Whisker:
    """One F1 of a slice: the point, and the ends of its interval where there is one."""

    point: float
    lower: float | None
    upper: float | None


def x(recall: float) -> float:
    """Where a recall from 0 to 1 stands."""
    return round(LEFT + recall * (WIDTH - LEFT - RIGHT), 1)


def y(precision: float) -> float:
    """Where a precision from 0 to 1 stands; higher is further up."""
    return round(HEIGHT - BOTTOM - precision * (HEIGHT - TOP - BOTTOM), 1)


def line(name: str, style: str, curve: Curve) -> Line:
    """The curve in steps: between two thresholds there is nothing to interpolate."""
    points = list(zip(curve.recall, curve.precision, strict=True))
    steps = [f"M{x(0.0)} {y(points[0][1])}"]
    for recall, precision in points:
        steps.append(f"V{y(precision)}H{x(recall)}")
    at = curve.at_threshold
    return Line(
        name=name,
        style=style,
        path="".join(steps),
        mark=None if at is None else (x(at[0]), y(at[1])),
        label=f"{name}: threshold {curve.threshold:.3f}"
        + (f", recall {at[0]:.1%}, precision {at[1]:.1%}" if at else ", no alarm at all"),
    )


def whisker(f1: F1Interval) -> Whisker:
    """One F1 in a drawing of `BAR_WIDTH`, with room at both ends for the round marks."""

    def place(value: float) -> float:
        return round(6 + min(max(value, 0.0), 1.0) * (BAR_WIDTH - 12), 1)

    return Whisker(
        point=place(f1.f1),
        lower=None if f1.lower is None else place(f1.lower),
        upper=None if f1.upper is None else place(f1.upper),
    )
