"""The conditions under which there is ground for a verdict: a usable model, enough labels, ordinary weeks.

None of them asks which model is better; see `mllib.gate.gates`.
"""

from __future__ import annotations

from mllib.gate.class_metrics import ClassMetrics
from mllib.gate.evidence import Evidence
from mllib.gate.gates import NAMED, Gate


def usable(evidence: Evidence) -> Gate:
    """The stored model is intact, is what the registry says, and gives every row a score."""
    passed = not evidence.defects
    detail = "the stored model loads, has the features and the threshold on record, and gives every row a score"
    if evidence.candidate_footprint:
        detail += f" (SHA-256 checked: {evidence.candidate_footprint.artifact_digest[:12]}...)"
    return Gate(
        name="usable",
        passed=passed,
        summary="the candidate can be used" if passed else "the candidate's stored model cannot be used as it is",
        advice="" if passed else "Train again; if it happens again, something changes models after their training.",
        detail=detail if passed else "; ".join(evidence.defects),
    )


def enough_positives(evidence: Evidence, min_positives: int) -> Gate:
    """There are enough labelled anomalies to judge on."""
    passed = evidence.holdout_positives >= min_positives
    detail = (
        f"the holdout of {evidence.holdout_rows:,} rows holds {evidence.holdout_positives:,} labelled anomalies, "
        f"at least {min_positives:,} are needed"
    )
    detail += _left_out(evidence)
    if passed:
        summary = "there are enough labelled anomalies to judge on"
    elif not evidence.holdout_rows:
        summary = "there is no labelled row to judge on"
    elif not evidence.holdout_positives:
        summary = "none of the labelled rows to judge on is an anomaly"
    else:
        summary = "there are too few labelled anomalies to tell a good model from a lucky one"
    advice = "" if passed else "Label more rows (`millrace label FILE.csv`), anomalies above all, and train again."
    return Gate(name="enough_positives", passed=passed, summary=summary, advice=advice, detail=detail)


def enough_normal(evidence: Evidence, min_normal: int) -> Gate:
    """There are enough labelled rows that are no anomalies: without them false alarms cannot be counted."""
    normal = evidence.holdout_rows - evidence.holdout_positives
    # Without any labelled row the gate before this one has said all there is to say.
    passed = normal >= min_normal or not evidence.holdout_rows
    return Gate(
        name="enough_normal",
        passed=passed,
        summary="there are enough labelled rows that are no anomalies"
        if passed
        else "hardly any labelled row is an ordinary one, so false alarms cannot be counted",
        advice="" if passed else "Label ordinary rows too (`millrace label FILE.csv`), and train again.",
        detail=f"{normal:,} rows of the holdout are labelled as no anomaly, at least {min_normal:,} are needed",
    )


def enough_classes(evidence: Evidence, min_rows: int) -> Gate:
    """At least two classes have enough rows to judge on; it takes the place of enough anomalies and enough normal rows.

    Of one class alone macro-F1 says nothing that calling every row so would not reach.
    """
    measured = evidence.candidate.classes if isinstance(evidence.candidate, ClassMetrics) else ()
    there = [figures for figures in measured if figures.rows]
    enough = [figures for figures in there if figures.rows >= min_rows]
    passed = len(enough) >= 2
    detail = (
        f"of the {len(there):,} classes in the holdout of {evidence.holdout_rows:,} rows {len(enough):,} have at least "
        f"{min_rows:,} rows, 2 are needed"
    )
    if few := [f"{figures.name} ({figures.rows:,})" for figures in there if figures.rows < min_rows]:
        more = f" and {len(few) - NAMED:,} more" if len(few) > NAMED else ""
        detail += f"; unknown, because they have fewer: {', '.join(few[:NAMED])}{more}"
    detail += _left_out(evidence)
    if passed:
        summary = "there are enough rows of several classes to judge on"
    elif not evidence.holdout_rows:
        summary = "there is no row to judge on whose class is known"
    else:
        summary = "there are too few rows of more than one class to tell a good model from a lucky one"
    advice = "" if passed else "Wait for more rows of the rarer classes, or label more of them, and train again."
    return Gate(name="enough_classes", passed=passed, summary=summary, advice=advice, detail=detail)


def usual_volume(evidence: Evidence, limit: float) -> Gate:
    """There are neither far more nor far fewer rows a day than in the weeks trained on."""
    ratio = evidence.volume_ratio
    if evidence.first or ratio is None:
        detail = "there is no champion to protect" if evidence.first else "there is no volume to compare with"
        return Gate(name="usual_volume", passed=True, summary=detail, advice="", detail=detail)
    passed = 1 / limit <= ratio <= limit
    summary, advice = "there are about as many rows a day as in the weeks trained on", ""
    if not passed:
        few_or_many = "more" if ratio > 1 else "fewer"
        summary = (
            f"there are far {few_or_many} rows a day than in the weeks trained on, which says little of other days"
        )
        advice = (
            "Find out why the volume changed. If it stays so, the next trainings get used to it; if it does not, they "
            "judge on ordinary days again."
        )
    detail = (
        f"the holdout has {ratio:.3g} times as many rows a day as the training window, the limit is a factor of "
        f"{limit:g} up or down"
    )
    return Gate(name="usual_volume", passed=passed, summary=summary, advice=advice, detail=detail)


def usual_labels(evidence: Evidence, limit: float) -> Gate:
    """The labels do not call far more rows anomalies than those of the weeks trained on do."""
    ratio = evidence.anomaly_ratio
    if evidence.first or ratio is None:
        detail = "there is no champion to protect" if evidence.first else "too few anomalies are labelled in training"
        return Gate(name="usual_labels", passed=True, summary=detail, advice="", detail=detail)
    passed = ratio <= limit
    summary, advice = "about as many labelled rows are anomalies as in the weeks trained on", ""
    if not passed:
        summary = "far more of the labelled rows are called anomalies than in the weeks trained on"
        advice = (
            "Look at the labels of the last weeks: labels that were flipped by mistake look like this. If they are "
            "right, the next trainings get used to it."
        )
    detail = (
        f"the share of anomalies among the labelled rows is {ratio:.3g} times that in the training window, the limit "
        f"{limit:g} times"
    )
    return Gate(name="usual_labels", passed=passed, summary=summary, advice=advice, detail=detail)


def _left_out(evidence: Evidence) -> str:
    """Which rows of the holdout were not judged on, as clauses in brackets."""
    told = ""
    if evidence.excluded_rows:
        told += f" ({evidence.excluded_rows:,} rows that a model was trained on are left out)"
    if tied := {kind: count for kind, count in evidence.tied_rows.items() if count}:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in tied.items())
        told += f" ({sum(tied.values()):,} rows are left out as part of what began before it: {kinds})"
    return told
