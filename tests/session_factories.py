"""Sessions of a made-up job: asked for, copied to two places, checked, and an hour later removed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from tests.factories import START

STEPS = ("job accepted", "copy stored", "copy stored", "sum checked")
REMOVED = "job removed"
LATE = timedelta(hours=1)
END = START + timedelta(days=2)

Line = tuple[str, datetime, str]


def lines(name: str, *, at: datetime = START, steps: Sequence[str] = STEPS, removed: bool = True) -> list[Line]:
    """The lines of one session, a second apart; it is removed an hour after it began."""
    told = [(name, at + timedelta(seconds=second), step) for second, step in enumerate(steps)]
    return [*told, (name, at + LATE, REMOVED)] if removed else told


def frame(*sessions: list[Line]) -> pl.DataFrame:
    """The lines of some sessions, by time."""
    rows = [line for session in sessions for line in session]
    schema = {"trace_id": pl.String, "ts": pl.Datetime("us", "UTC"), "message": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("ts", maintain_order=True)


def ordinary(n: int = 200, *, at: datetime = START, name: str = "job") -> list[list[Line]]:
    """Sessions a minute apart. Every third has a line of its own kind, which means nothing."""
    return [
        lines(
            f"{name}-{number}",
            at=at + timedelta(minutes=number),
            steps=[*STEPS, "copy read"] if number % 3 == 0 else STEPS,
        )
        for number in range(n)
    ]
