"""The conditions that compare a candidate with the champion: F1, alarms, parts of the rows, cost, and doubt.

Each gate says how it came out three times: in plain words, what to do, and in figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeGuard

from mllib.gate.evidence import Evidence, Footprint
from mllib.gate.segments import ANOMALIES, Segment, fallen

NAMED = 3
"""So many of the parts or classes that lost are named, the worst first; the figures hold all."""

NOTICEABLE_SECONDS = 1.0
"""Scoring the holdout in less processor time than this is quick enough: start and cache effects outweigh the rest."""

NOTICEABLE_BYTES = 8 * 1024 * 1024
"""A model up to this size is small enough for any worker, whatever the champion's."""

NOTHING_TO_DO = "Nothing; the next training tries again with newer rows."


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One condition of a promotion, and how it came out.

    ``summary`` is a clause without figures, ``advice`` a sentence on what to do (empty when there is nothing special),
    ``detail`` holds the figures.
    """

    name: str
    passed: bool
    summary: str
    advice: str
    detail: str


def f1(evidence: Evidence) -> Gate:
    """The candidate's F1, for classes its macro-F1, is higher than that of its rival."""
    new, old = evidence.candidate.f1 if evidence.candidate else None, evidence.rival_f1
    figure, rival = evidence.figure, evidence.trivial_rival if evidence.first else "the champion"
    if not known(new) or not known(old):
        missing = "the candidate" if not known(new) else rival
        return _unmeasured("f1", f"the {figure} of {missing}")
    better = new > old
    if new == old:
        detail = f"the candidate's {figure} of {new:.4f} is the same as that of {rival}"
    else:
        left, right = _apart(new, old)
        detail = f"the candidate's {figure} of {left} is {'higher' if better else 'lower'} than the {right} of {rival}"
    if evidence.first:
        trivial = evidence.trivial_rival if evidence.classes else "flagging every row"
        summary = f"the candidate is {'better' if better else 'no better'} than {trivial}"
        advice = "" if better else "Check that the labels are right, label more rows, and train again."
    elif new == old:
        summary = "the candidate did exactly as well as the champion on the same labelled rows, and a tie is no gain"
        advice = NOTHING_TO_DO
    else:
        summary = f"the candidate did {'better' if better else 'worse'} than the champion on the same labelled rows"
        advice = "" if better else NOTHING_TO_DO
    return Gate(name="f1", passed=better, summary=summary, advice=advice, detail=detail)


def alert_rate(evidence: Evidence, limit: float) -> Gate:
    """The candidate does not raise far more alarms than the champion."""
    new = evidence.candidate.alert_rate if evidence.candidate else None
    old = evidence.champion.alert_rate if evidence.champion else None
    labelled = evidence.anomalous_share
    if evidence.first and known(new):
        summary = "there is no champion whose alert rate could be exceeded"
        told = (
            "of none is it known whether it is an anomaly"
            if labelled is None
            else f"{labelled:.2%} are labelled anomalies"
        )
        detail = f"the candidate flags {new:.2%} of the rows, {told}"
        return Gate(name="alert_rate", passed=True, summary=summary, advice="", detail=detail)
    if old == 0 and labelled is None and known(new):
        # Neither the champion nor a label says how many alarms there should be.
        return Gate(
            name="alert_rate",
            passed=new == 0,
            summary="the candidate raises no alarm, as the champion"
            if new == 0
            else "the champion raises no alarm, and no label says how many of the candidate's would be right",
            advice=""
            if new == 0
            else "Label some rows as anomalies or not (`millrace label FILE.csv`), and train again.",
            detail=f"the candidate flags {new:.2%} of the rows, the champion none, and none is labelled",
        )
    base, whose = old, "the champion's"
    if old == 0:
        # Three times nothing would let no candidate ever replace a champion that has gone silent.
        base, whose = labelled, "the labelled anomalies'"
    if not known(new) or not known(base):
        missing = "the candidate" if not known(new) else "the champion"
        return _unmeasured("alert_rate", f"the alert rate of {missing}")
    passed = new <= limit * base
    detail = f"the candidate flags {new:.2%} of the rows, {whose} share is {base:.2%}, the limit {limit:g} times that"
    if old == 0:
        summary = "the candidate would flag "
        summary += "a reasonable share of the rows" if passed else "far more rows than there are anomalies"
        advice = "Look at the labels of the last weeks: are they complete, and right?"
    else:
        summary = f"the candidate would {'not ' if passed else ''}raise far more alarms than the champion"
        advice = "Look at the labels of the last weeks: labels that were flipped by mistake look like this."
    return Gate(name="alert_rate", passed=passed, summary=summary, advice="" if passed else advice, detail=detail)


def slices(evidence: Evidence, margin: float) -> Gate:
    """No service and no level is served clearly worse; with classes, no class either, and anomalies are found as well.

    Of a class both F1 and recall count.
    """
    parts = "class, service or level" if evidence.classes else "service or level"
    every = "classes, services and levels" if evidence.classes else "services and levels"
    if evidence.first:
        detail = f"there is no champion that any {parts} could lose by"
        return Gate(name="slices", passed=True, summary=detail, advice="", detail=detail)
    judged = [segment for segment in evidence.segments if segment.known]
    unknown = len(evidence.segments) - len(judged)
    worse = sorted(fallen(evidence.segments, margin=margin), key=lambda s: s.difference)
    if not worse:
        detail = f"of {len(judged):,} {every} none is clearly worse by more than {margin:g} in F1"
        if evidence.classes:
            detail += ", no class in recall"
        if unknown:
            detail += f" ({unknown:,} hold too few {'rows' if evidence.classes else 'labelled anomalies'} to be judged)"
        summary = (
            f"no {parts} is served clearly worse"
            if evidence.classes
            else "no service and no level is served clearly worse"
        )
        return Gate(name="slices", passed=True, summary=summary, advice="", detail=detail)
    more = f" and {len(worse) - NAMED:,} more" if len(worse) > NAMED else ""
    losses = ", ".join(_loss(segment, evidence) for segment in worse[:NAMED])
    detail = (
        f"the candidate is clearly worse than the champion for {losses}{more}; "
        f"no {parts} may lose more than {margin:g} in F1{', no class in recall' if evidence.classes else ''}"
    )
    names = ", ".join(_named(segment) for segment in worse[:NAMED])
    return Gate(
        name="slices",
        passed=False,
        summary=f"the candidate serves {names}{' and others' if more else ''} clearly worse than the champion",
        advice=f"Look at what changed in the logs and labels of {names}.",
        detail=detail,
    )


def _named(segment: Segment) -> str:
    return "anomalies" if segment.dimension == ANOMALIES else f"{segment.dimension} {segment.value}"


def _loss(segment: Segment, evidence: Evidence) -> str:
    f1s = f"F1 {segment.candidate_f1:.4f} against {segment.champion_f1:.4f}"
    if segment.candidate_recall is not None and segment.champion_recall is not None:
        f1s += f", recall {segment.candidate_recall:.4f} against {segment.champion_recall:.4f}"
    of_classes = evidence.classes and segment.dimension != ANOMALIES
    return f"{_named(segment)} ({f1s} on {segment.positives:,} {'rows' if of_classes else 'anomalies'})"


def cost(evidence: Evidence, limit: float) -> Gate:
    """The candidate is neither much slower nor much larger than the champion, where that would be noticed."""
    new, old = evidence.candidate_footprint, evidence.champion_footprint
    if new is None or old is None:
        detail = "there is no champion to compare time and size with"
        return Gate(name="cost", passed=True, summary=detail, advice="", detail=detail)
    slow = known(new.seconds) and known(old.seconds) and new.seconds > max(limit * old.seconds, NOTICEABLE_SECONDS)
    large = new.artifact_bytes > max(limit * old.artifact_bytes, NOTICEABLE_BYTES)
    words = {
        (False, False): "the candidate is neither much slower nor much larger than the champion",
        (True, False): "the candidate takes far longer than the champion to score the same rows",
        (False, True): "the candidate needs far more memory than the champion",
        (True, True): "the candidate takes far longer and far more memory than the champion",
    }
    return Gate(
        name="cost",
        passed=not slow and not large,
        summary=words[slow, large],
        advice="Look at what changed in the detector or its parameters." if slow or large else "",
        detail=(
            f"the candidate takes {_cost(new)}, the champion {_cost(old)}, the limit is {limit:g} times that "
            f"(from {NOTICEABLE_SECONDS:g} s and {NOTICEABLE_BYTES / 2**20:g} MiB on)"
        ),
    )


def beyond_doubt(evidence: Evidence, min_gain: float) -> Gate:
    """The gain is there with 95 % confidence."""
    bootstrap = evidence.bootstrap
    lower = bootstrap.lower if bootstrap else None
    wait = "Wait for more labelled anomalies, or label more rows (`millrace label FILE.csv`), and train again."
    if bootstrap is None or not known(lower):
        return Gate(
            name="evidence",
            passed=False,
            summary="the labelled rows come from too few different hours to tell a gain from luck",
            advice=wait,
            detail="it could not be measured how sure the difference in F1 is",
        )
    left, right = _apart(lower, min_gain)
    over = f" over {evidence.trivial_rival}" if evidence.first else ""
    passed = lower > min_gain
    return Gate(
        name="evidence",
        passed=passed,
        summary="the lead is more than luck" if passed else "the difference may well be luck",
        advice="" if passed else wait,
        detail=(
            f"the gain in {evidence.figure}{over} is {bootstrap.difference:+.4f} and with 95 % confidence above "
            f"{left}, which must be more than {right}"
        ),
    )


def known(value: float | None) -> TypeGuard[float]:
    """Whether a figure is there and finite."""
    return value is not None and math.isfinite(value)


def _unmeasured(name: str, what: str) -> Gate:
    return Gate(
        name=name,
        passed=False,
        summary="the models could not be compared",
        advice="Train again; if it happens again, look at the log of the run.",
        detail=f"{what} could not be measured",
    )


def _cost(footprint: Footprint) -> str:
    seconds = "an unknown time" if footprint.seconds is None else f"{footprint.seconds:.2f} s"
    return f"{seconds} and {footprint.artifact_bytes / 2**20:.1f} MiB"


def _apart(left: float, right: float) -> tuple[str, str]:
    """Both numbers with four digits, or with as many as it takes to tell them apart."""
    for digits in range(4, 18):
        pair = f"{left:.{digits}f}", f"{right:.{digits}f}"
        if pair[0] != pair[1]:
            return pair
    return f"{left:.4f}", f"{right:.4f}"
