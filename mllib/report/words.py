"""The verdict in words, for somebody who has to act on it and knows no statistics."""

from __future__ import annotations

from dataclasses import dataclass

from mllib.gate.class_metrics import ClassMetrics
from mllib.gate.evaluation import BinaryMetrics
from mllib.report.contents import Judgement
from mllib.types import Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The top of the page: what happened, what it means in counts, what to do next, and the commands for that."""

    headline: str
    badge: str
    why: str
    meaning: str
    advice: str
    commands: tuple[str, ...]


BADGES = {
    Verdict.PROMOTE: "Promoted",
    Verdict.REFUSE: "Refused",
    Verdict.NOT_ENOUGH_EVIDENCE: "Not enough evidence",
}

GATES = {
    "usable": "The model is intact",
    "enough_positives": "Enough labelled anomalies",
    "enough_classes": "Enough rows of several classes",
    "enough_normal": "Enough labelled normal rows",
    "usual_volume": "Days like those trained on",
    "usual_labels": "Labels like those trained on",
    "f1": "F1 is higher",
    "alert_rate": "Not far more alarms",
    "slices": "No part of the rows left behind",
    "cost": "Not far slower or larger",
    "evidence": "The gain is beyond doubt",
}

CLASS_GATES = {"f1": "Macro-F1 is higher", "slices": "No class or other part left behind"}


def summary(judgement: Judgement) -> Summary:
    """The words at the top of the page."""
    return Summary(
        headline=_headline(judgement),
        badge=BADGES[judgement.decision.verdict],
        why=_why(judgement),
        meaning=_counts(judgement),
        advice=judgement.decision.advice.removeprefix("What to do: "),
        commands=_commands(judgement),
    )


def gate_name(name: str, *, classes: bool = False) -> str:
    """A gate's name for people, for detectors with ``classes`` if so."""
    if classes and name in CLASS_GATES:
        return CLASS_GATES[name]
    return GATES.get(name, name.replace("_", " ").capitalize())


def _headline(judgement: Judgement) -> str:
    new, old, name = judgement.version, judgement.champion_version, judgement.detector
    stays = "There is still no champion." if old is None else f"Version {old} stays champion."
    match judgement.decision.verdict:
        case Verdict.PROMOTE if old is None:
            return f"Version {new} is the first champion of {name}"
        case Verdict.PROMOTE:
            return f"Version {new} replaces version {old} as champion of {name}"
        case Verdict.REFUSE:
            return f"Version {new} of {name} was refused. {stays}"
        case _:
            return f"Too little is known about version {new} of {name}. {stays}"


def _why(judgement: Judgement) -> str:
    """The decision's own summary, without the verdict that the badge beside it says already."""
    _, colon, rest = judgement.decision.summary.partition(": ")
    return rest[0].upper() + rest[1:] if colon and rest else judgement.decision.summary


def _counts(judgement: Judgement) -> str:
    evidence = judgement.evidence
    candidate, champion = evidence.candidate, evidence.champion
    if candidate is None:
        return "So it could not be measured."
    if not candidate.rows:
        return "There was no labelled row to measure it on."
    if isinstance(candidate, ClassMetrics):
        return _class_counts(candidate, champion if isinstance(champion, ClassMetrics) else None)
    text = (
        f"On {candidate.rows:,} labelled rows that no model was trained on, the candidate finds "
        f"{candidate.true_positives:,} of {candidate.positives:,} anomalies, and "
        f"{candidate.alarms - candidate.true_positives:,} of its {candidate.alarms:,} alarms are false."
    )
    if isinstance(champion, BinaryMetrics):
        text += (
            f" The champion, on the same rows, finds {champion.true_positives:,}, and "
            f"{champion.alarms - champion.true_positives:,} of its {champion.alarms:,} alarms are false."
        )
    return text


def _class_counts(candidate: ClassMetrics, champion: ClassMetrics | None) -> str:
    def right(metrics: ClassMetrics) -> int:
        return sum(figures.hits for figures in metrics.classes)

    text = (
        f"On {candidate.rows:,} rows whose class is known and that no model was trained on, the candidate calls "
        f"{right(candidate):,} by their class."
    )
    if champion is not None:
        text += f" The champion, on the same rows, {right(champion):,}."
    return text


def _commands(judgement: Judgement) -> tuple[str, ...]:
    name, first = judgement.detector, judgement.champion_version is None
    match judgement.decision.verdict:
        case Verdict.PROMOTE:
            return () if first else (f"millrace rollback {name} --reason TEXT",)
        case Verdict.NOT_ENOUGH_EVIDENCE:
            commands: tuple[str, ...] = ("millrace label FILE.csv", f"millrace train {name}")
        case _:
            commands = ()
    # Without a champion nothing is scored, so the way to decide it by hand is worth knowing.
    if first and judgement.evidence.candidate is not None:
        commands = (*commands, f"millrace promote {name} {judgement.version} --reason TEXT")
    return commands
