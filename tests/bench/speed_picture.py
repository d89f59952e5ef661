"""The picture of speed and memory over the number of rows, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 380, 300, 70, 20, 34, 74


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """What was measured at one size, by the way to score."""

    rows: int
    rows_per_second: dict[str, float]
    peak_mib: dict[str, int]


def draw(sizes: Sequence[Size]) -> str:
    """Two panels side by side, both axes logarithmic."""
    names = list(sizes[0].rows_per_second)
    panels = [
        _panel("rows a second", sizes, names, lambda size: size.rows_per_second),
        _panel("peak memory, MiB", sizes, names, lambda size: size.peak_mib),
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    shape = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
    return environment.get_template("speed.svg.j2").render(panels=panels, names=names, **shape)


def _panel(
    title: str, sizes: Sequence[Size], names: list[str], of: Callable[[Size], dict[str, float]]
) -> dict[str, object]:
    values = [value for size in sizes for value in of(size).values()]
    low, high = (10.0 ** round_(math.log10(edge(values))) for round_, edge in ((math.floor, min), (math.ceil, max)))
    first, last = sizes[0].rows, sizes[-1].rows

    def x(rows: int) -> float:
        share = 0.5 if first == last else math.log(rows / first) / math.log(last / first)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - math.log(value / low) / math.log(high / low) * (HEIGHT - TOP - BOTTOM), 1)

    steps = range(round(math.log10(low)), round(math.log10(high)) + 1)
    return {
        "title": title,
        "x_ticks": [(x(size.rows), f"{size.rows:,}") for size in sizes],
        "y_ticks": [(y(10.0**step), f"{10**step:,}") for step in steps],
        "lines": [
            (place, name, [(x(size.rows), y(of(size)[name])) for size in sizes if name in of(size)])
            for place, name in enumerate(names)
        ],
    }
