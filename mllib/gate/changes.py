"""What is unusual in the logs and labels that a candidate is judged on, in sentences for the operator.

A verdict is easier to believe, or to doubt, when it says that a service has gone or that labels look flipped. Shares
are compared, training window against holdout; a difference counts from a factor on, for shares vary from week to week.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

FACTOR = 3.0
"""Volume and share of anomalies are told from this factor on."""

NEARLY_ALL = 10.0
"""A service or level has gone, or is new, when its share falls or rises by more than this factor."""

MOST = 0.5
"""Anomalies are the exception: where more than this share of the labels says anomaly, labels may be flipped."""

NOTICEABLE = 0.01
"""Services and levels below this share are not told of."""

ENOUGH = 30
"""Of fewer labelled anomalies than this no share is known."""

STALE = timedelta(days=2)
"""Labels that end so long before the training are told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceContents:
    """What one slice holds: all its rows, how many of them are labelled and labelled anomalies, and of which kinds.

    ``kinds`` gives, by dimension (service, level), the rows of each value; rows without a value are left out.
    """

    rows: int
    length: timedelta
    labelled: int
    positives: int
    kinds: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def a_day(self) -> float:
        """Rows a day."""
        return self.rows / (self.length / timedelta(days=1))

    @property
    def anomalous(self) -> float | None:
        """The share of anomalies among the labelled rows, None without any."""
        return self.positives / self.labelled if self.labelled else None

    def shares(self, dimension: str) -> dict[str, float]:
        """The share of all rows that each value has."""
        return {value: count / max(self.rows, 1) for value, count in self.kinds.get(dimension, {}).items()}


def volume_ratio(train: SliceContents, holdout: SliceContents) -> float | None:
    """How many times as many rows a day the holdout has; None for an empty training window."""
    return holdout.a_day / train.a_day if train.rows else None


def anomaly_ratio(train: SliceContents, holdout: SliceContents) -> float | None:
    """How many times as large the share of anomalies among the labelled rows of the holdout is.

    None where training holds too few labelled anomalies to know its share.
    """
    if train.positives < ENOUGH or holdout.anomalous is None or train.anomalous is None:
        return None
    return holdout.anomalous / train.anomalous


def unusual(
    train: SliceContents, validation: SliceContents, holdout: SliceContents, *, newest: datetime, as_of: datetime
) -> tuple[str, ...]:
    """A sentence for each unusual thing. ``newest`` is the end of the holdout, ``as_of`` that of what was known."""
    told = [*_volume(train, holdout), *_anomalous(train, validation, holdout)]
    for dimension in train.kinds:
        told += _kinds(dimension, train.shares(dimension), holdout.shares(dimension))
    if as_of - newest >= STALE:
        days = (as_of - newest) / timedelta(days=1)
        told.append(f"The newest label is {days:.0f} days older than the training, so nothing later was judged.")
    return tuple(told)


def _volume(train: SliceContents, holdout: SliceContents) -> list[str]:
    ratio = volume_ratio(train, holdout)
    if ratio is None or 1 / FACTOR < ratio < FACTOR or not holdout.rows:
        return []
    much = f"{ratio:.0f} times as many" if ratio > 1 else f"only {ratio:.0%} of the"
    return [f"There are {much} rows a day as in the weeks trained on."]


def _anomalous(train: SliceContents, validation: SliceContents, holdout: SliceContents) -> list[str]:
    slices = {"trained on": train, "used for the threshold": validation, "judged on": holdout}
    shares = {name: s.anomalous for name, s in slices.items() if s.anomalous is not None}
    highest, lowest = max(shares.values(), default=0.0), min(shares.values(), default=0.0)
    changed, most = highest > 0 and highest >= FACTOR * lowest, highest > MOST
    if not changed and not most:
        return []
    listed = ", ".join(f"{share:.1%} of those {name}" for name, share in shares.items())
    told = f"The share of anomalies among the labelled rows {'changes' if changed else 'is high'}: {listed}."
    return [told + (" Were labels flipped?" if most else "")]


def _kinds(dimension: str, before: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    gone = _dropped(before, now)
    new = _dropped(now, before)
    if len(gone) == len(new) == 1:
        return [f"The {dimension} {gone[0]} has gone and {new[0]} is new: was it renamed?"]
    told = []
    if gone:
        told.append(
            f"The {dimension} {_listed(gone)} has gone ({sum(before[v] for v in gone):.1%} of the rows before), "
            "so it is not known how the models would serve it."
        )
    if new:
        told.append(f"The {dimension} {_listed(new)} is new ({sum(now[v] for v in new):.1%} of the rows now).")
    return told


def _dropped(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """Values with a noticeable share before, and hardly any after, the most frequent first."""
    found = [v for v, share in before.items() if share >= NOTICEABLE and after.get(v, 0.0) * NEARLY_ALL < share]
    return sorted(found, key=lambda v: (-before[v], v))


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values[:3]) + (f" and {len(values) - 3:,} more" if len(values) > 3 else "")
