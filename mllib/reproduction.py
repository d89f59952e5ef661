"""What came out of training a version again: whether it is the same model, what differs, and why it may. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any

SAME_TO = 1e-9
"""Scores this close are the same: where the bytes differ, the last digits of sums may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One training of the version: that of then, out of the registry, or that of now."""

    training_rows: int
    data_hash: str
    content_hash: str | None
    """None, like ``labels_hash``, where it was not kept then."""
    labels_hash: str | None
    parameters: Mapping[str, Any]
    feature_names: tuple[str, ...]
    seed: int
    threshold: float
    artifact_digest: str
    code_revision: str | None
    library_versions: Mapping[str, str]

    def same_rows_as(self, then: Outcome) -> bool:
        """Whether both read the same rows, with all that the features see of them."""
        return self.data_hash == then.data_hash and then.content_hash in (None, self.content_hash)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreDifference:
    """What the stored model and the one of now say of the same rows."""

    rows: int
    largest: float | None
    """The largest difference of a raw score; None without rows."""
    verdicts: int
    """Rows that one of them calls an anomaly and the other does not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """The answer. ``now`` is None when what is left of the rows cannot be trained on."""

    detector: str
    version: int
    trained_at: datetime
    as_of: datetime
    snapshot: str
    snapshot_kept: bool
    """False: the version is older than the keeping of snapshots, and rows that match its hash were found."""
    then: Outcome
    now: Outcome | None
    scores: ScoreDifference | None
    """Measured only where the artifacts differ."""
    reasons: tuple[str, ...]
    """What differs and why it may, sentence by sentence."""
    seconds: float

    @property
    def same_rows(self) -> bool:
        """Whether the rows of then are all there, with all that the features see of them."""
        return self.now is not None and self.now.same_rows_as(self.then)

    @property
    def exact(self) -> bool:
        """Whether the same bytes came out of the same rows."""
        return self.same_rows and self.now is not None and self.then.artifact_digest == self.now.artifact_digest

    @property
    def reproduced(self) -> bool:
        """Whether the same rows gave the same model, or one with the same scores and the same threshold."""
        if self.exact or not self.same_rows or self.now is None:
            return self.exact
        scores = self.scores
        return (
            scores is not None
            and scores.largest is not None
            and scores.largest <= SAME_TO
            and abs(self.then.threshold - self.now.threshold) <= SAME_TO
        )

    @property
    def verdict(self) -> str:
        """The answer in a few words."""
        if self.exact:
            return "reproduced, bit for bit"
        return "reproduced, same scores to 1e-9" if self.reproduced else "not reproduced"

    def as_dict(self) -> dict[str, Any]:
        times = {name: getattr(self, name).isoformat() for name in ("trained_at", "as_of")}
        return {**asdict(self), **times, "ok": self.reproduced, "exact": self.exact, "verdict": self.verdict}


def why_rows_differ(
    then: Outcome,
    now: Outcome | None,
    *,
    context: timedelta,
    dropped: Sequence[date],
    at_home: bool,
    adopted_at: datetime | None,
) -> list[str]:
    """Says that the rows are others, and what may have made them so.

    ``context`` is how far before a row its features look; ``dropped`` are the days that training reads and retention
    has dropped; ``at_home`` is false in a database that was restored and not adopted, ``adopted_at`` when it last was.
    """
    reasons = []
    if now is not None and now.data_hash != then.data_hash:
        reasons.append(
            f"The training rows are not those of then: {then.training_rows:,} then, {now.training_rows:,} now."
        )
    elif now is not None:
        reasons.append(
            "The training rows are the same ones by time and id, but what they say was changed since, or the rows "
            f"that lead them in ({_minutes(context)} before) were."
        )
    causes = []
    if dropped:
        causes.append(
            f"Retention has dropped {listed(dropped)}, but for the rows with labels; to be able to train versions "
            "again, keep logs for longer (`millrace retain logs DAYS`)."
        )
    if not at_home:
        causes.append(
            "The database was restored from another cluster, where the snapshot was taken, and is not adopted here: "
            "rows that were written since the restore may look old. Run `millrace adopt`."
        )
    elif adopted_at:
        causes.append(
            "The database was restored into another cluster since, and adopted there on "
            f"{adopted_at:%Y-%m-%d %H:%M} UTC: rows that were written in between may look old."
        )
    if not causes:
        causes.append("No dropped day and no move of the database explains it, so somebody changed rows by hand.")
    return reasons + causes


def why_models_differ(then: Outcome, now: Outcome) -> list[str]:
    """Differences on record. They are named also where the model is the same in spite of them."""
    reasons = []
    if then.labels_hash is not None and now.labels_hash != then.labels_hash:
        reasons.append(
            "The labels of the validation slice, or those that it learned from, are not those of then: rows "
            "are gone, labels were changed or deleted by hand, or were being filed while it was trained. (Later "
            "verdicts do not count.)"
        )
    if then.seed != now.seed:
        reasons.append(
            f"The record contradicts itself: the seed is {now.seed}, but the options of the training say {then.seed}."
        )
    if now.same_rows_as(then):  # else these follow from the rows
        if changed := _changes(then.parameters, now.parameters):
            reasons.append(f"The code has other parameters now: {changed}.")
        if then.feature_names != now.feature_names:
            reasons.append("The code makes other features now, or makes them in another order.")
    if changed := _changes(then.library_versions, now.library_versions):
        reasons.append(f"It was trained with other libraries: {changed}.")
    if then.code_revision != now.code_revision:
        reasons.append(
            f"It was trained by another revision of the code: {_short(then.code_revision)} then, "
            f"{_short(now.code_revision)} now."
        )
    if then.artifact_digest != now.artifact_digest:
        if then.labels_hash is None:
            reasons.append("Which labels its threshold comes from was not on record yet; they may have been changed.")
        if not reasons and now.same_rows_as(then):
            reasons.append(
                "Nothing on record explains it. Rows of the validation slice that were changed by hand, changes of the "
                "code that were not committed, or another kind of processor can."
            )
    return reasons


def listed(days: Sequence[date]) -> str:
    """Days in words; many of them as their number, first and last."""
    if len(days) <= 3:
        return f"{'the day' if len(days) == 1 else 'the days'} {', '.join(map(str, days))}"
    return f"{len(days)} days from {days[0]} to {days[-1]}"


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} {then.get(name, 'none')} then, {now.get(name, 'none')} now"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    )


def _short(revision: str | None) -> str:
    return revision[:12] if revision else "unknown"


def _minutes(span: timedelta) -> str:
    return f"{span / timedelta(minutes=1):g} minutes"
