"""Months in which the made-up shop changes, and people make mistakes with its labels.

Two changes that a model trained before them cannot know: a release that renames a service and brings frequent new
messages, one of them a slow and harmless warning; and, later, response times that double while most faults get other
words. Both stay. Labels of single weeks are partly wrong, as after a mistake in the labelling; the truth is kept beside
them, so that a model can be measured by it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mllib.demo.columns import KEYS, SERVICES, Columns
from mllib.demo.shop import BACKGROUND, LINES

WEEK = 7 * 86_400.0
RENAMED = ("recommender", "personaliser")
NEW_MESSAGES = {"deferred": 1.0, "consent": 2.0}
NEW_SHARE = 0.4
"""Share of the lines no request asked for that the new messages replace: some 5 % of all lines."""

SLOWDOWN = 2.0
REWORDED = {name.removesuffix("2"): name for name in ("pool2", "acquirer2", "bad2", "full2", "retry2", "expired2")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """When what happens. Weeks are counted from 1; 0 for never."""

    release: int = 9
    """The week that begins with the release."""
    slowdown: int = 18
    """The week that begins with slower answers and reworded faults."""
    mislabelled: tuple[int, ...] = (6, 14, 22)
    """Weeks whose labels are partly wrong."""
    flipped: float = 0.3
    """Share of their labels that are wrong."""


def drifted(rng: np.random.Generator, columns: Columns, drift: Drift) -> npt.NDArray[np.object_]:
    """Changes kinds and slowdowns of the lines after each change. Returns the name of each line's service."""
    released, slower = _since(columns, drift.release), _since(columns, drift.slowdown)
    background = np.isin(columns.kind, [KEYS.index(key) for key in BACKGROUND])
    chosen = released & background & (columns.trace < 0) & (columns.label == 0) & (rng.random(len(columns)) < NEW_SHARE)
    weight = np.array(list(NEW_MESSAGES.values()))
    picked = rng.choice([KEYS.index(key) for key in NEW_MESSAGES], size=int(chosen.sum()), p=weight / weight.sum())
    service_of = np.array([SERVICES.index(line.service) if line.service else -1 for line in LINES.values()])
    columns.kind[chosen] = picked
    columns.service[chosen] = service_of[picked]
    for before, after in REWORDED.items():
        columns.kind[slower & (columns.kind == KEYS.index(before))] = KEYS.index(after)
    columns.slowdown[slower] *= SLOWDOWN
    names = np.array(SERVICES, dtype=object)[columns.service]
    names[released & (names == RENAMED[0])] = RENAMED[1]
    return names


def flips(rng: np.random.Generator, columns: Columns, drift: Drift) -> npt.NDArray[np.bool_]:
    """Which lines get the wrong label."""
    week = columns.seconds // WEEK + 1
    return np.isin(week, drift.mislabelled) & (rng.random(len(columns)) < drift.flipped)


def write_corrections(path: Path, corrections: Iterable[tuple[str, str, int]]) -> None:
    """Writes (source, id, true label) of the rows that were labelled wrongly, in the columns of ``millrace label``.

    That command would count them as known from the time of their rows on, as if nobody had ever been wrong.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("source", "id", "label"))
        writer.writerows(corrections)


def _since(columns: Columns, week: int) -> npt.NDArray[np.bool_]:
    return columns.seconds >= ((week - 1) * WEEK if week else np.inf)
