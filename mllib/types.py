"""The words of the domain: windows, severities, verdicts. Imported by everything, imports nothing of ours."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A half-open span of event time, ``[start, end)``, aware and in UTC.

    Raises ValueError when an end is naive or the window is empty or reversed.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            value: datetime = getattr(self, name)
            if value.tzinfo is None:
                raise ValueError(f"the {name} of a window needs a time zone, got {value.isoformat()}")
            object.__setattr__(self, name, value.astimezone(UTC))
        if self.start >= self.end:
            raise ValueError(f"a window ends after it starts, got {self}")

    @property
    def length(self) -> timedelta:
        return self.end - self.start

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def __str__(self) -> str:
        return f"[{self.start:%Y-%m-%d %H:%M:%S}, {self.end:%Y-%m-%d %H:%M:%S})"


class Severity(enum.IntEnum):
    """How bad a row looks, from its calibrated score. The numbers are those stored in ``predictions.severity``."""

    NORMAL = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def label(self) -> str:
        return self.name.lower()


class ModelStatus(enum.StrEnum):
    """Where a model version stands. Only ``champion`` scores; there is at most one per detector."""

    CANDIDATE = "candidate"
    CHALLENGER = "challenger"
    CHAMPION = "champion"
    ARCHIVED = "archived"
    REFUSED = "refused"


class Verdict(enum.StrEnum):
    """What the gate says of a candidate."""

    PROMOTE = "promote"
    REFUSE = "refuse"
    NOT_ENOUGH_EVIDENCE = "not_enough_evidence"


class Policy(enum.StrEnum):
    """What the gate asks of a candidate beyond a higher F1. ``strict``: nothing; ``evidence``: beyond doubt."""

    STRICT = "strict"
    EVIDENCE = "evidence"
