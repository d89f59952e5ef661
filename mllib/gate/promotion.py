"""Decides whether a candidate takes the champion's place. Pure: figures in, a verdict with its reasons out.

The rule of the house: nothing is promoted unless its F1 (for detectors with classes: macro-F1) is higher than the
champion's, both measured now on the same holdout rows. A policy says whether that is enough (``strict``) or whether it
must also be beyond doubt (``evidence``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mllib.gate import gates, grounds
from mllib.gate.evaluation import smallest_detectable_difference
from mllib.gate.evidence import Evidence, Footprint
from mllib.gate.gates import Gate
from mllib.types import Policy, Verdict

__all__ = ["Decision", "Evidence", "Footprint", "Gate", "decide"]

FEW_POSITIVES = 300
"""Below this many labelled anomalies a decision also says how small a difference the holdout could have shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict under ``policy``, and what the other policy would have said of the same figures.

    ``summary`` says in plain words what happened and what it means for production, ``advice`` what to do; ``reason`` is
    both, with what was unusual and the figures beneath. ``gates`` are the conditions of ``policy`` in the order they
    count; ``smallest_difference`` is the difference in F1 that the holdout could have shown, given when it holds few
    positives and there is a champion to compare with.
    """

    verdict: Verdict
    policy: Policy
    summary: str
    advice: str
    reason: str
    other_policy: Policy
    other_verdict: Verdict
    gates: tuple[Gate, ...]
    first: bool
    smallest_difference: float | None


def decide(
    evidence: Evidence,
    policy: Policy,
    *,
    min_positives: int = 30,
    min_gain: float = 0.0,
    alert_rate_limit: float = 3.0,
    segment_margin: float = 0.05,
    cost_limit: float = 3.0,
    volume_limit: float = 5.0,
    label_limit: float = 5.0,
) -> Decision:
    """Judge a candidate.

    - The stored model must be usable: intact, as registered, a score for every row.
    - Fewer than ``min_positives`` labelled anomalies in the holdout, or fewer than so many labelled rows that are
      none: not enough evidence, whatever the figures.
    - More than ``volume_limit`` times as many rows a day in the holdout as in the training window, or as many times
      fewer: not enough evidence, for such a week says little of an ordinary one. A first candidate has no rival that
      might be better in other weeks, and is judged all the same.
    - With classes, instead: fewer than two of them with ``min_positives`` rows in the holdout: not enough evidence.
    - A share of anomalies among the labelled rows more than ``label_limit`` times that of the training window: not
      enough evidence either, for labels that were flipped look like this.
    - F1 (with classes: macro-F1) strictly higher than the champion's; a tie refuses. A first candidate must beat
      flagging every row instead, with classes calling every row by the most frequent one.
    - Alert rate at most ``alert_rate_limit`` times the champion's; beside a champion that flags nothing, at most that
      many times the share of labelled anomalies. A first candidate that flags more than that is promoted all the same,
      for without a champion nothing is scored, and the advice says so.
    - No segment (service, level) with enough anomalies of its own may lose more than ``segment_margin`` in F1, unless
      that may well be chance (5 %, Holm's correction for the number of segments). With classes each of them is a
      segment, in F1 and in recall, and what is called an anomaly is one.
    - Scoring time and size at most ``cost_limit`` times the champion's, from a size on that anybody would notice.
    - ``evidence`` only: the lower bound of the bootstrap above ``min_gain`` (in F1). No bound: not enough evidence.

    A figure that is missing or NaN never passes a gate.
    """
    other = Policy.STRICT if policy is Policy.EVIDENCE else Policy.EVIDENCE
    shared = [
        grounds.usable(evidence),
        *(
            [grounds.enough_classes(evidence, min_positives)]
            if evidence.classes
            else [grounds.enough_positives(evidence, min_positives), grounds.enough_normal(evidence, min_positives)]
        ),
        grounds.usual_volume(evidence, volume_limit),
        grounds.usual_labels(evidence, label_limit),
        gates.f1(evidence),
        gates.alert_rate(evidence, alert_rate_limit),
        gates.slices(evidence, segment_margin),
        gates.cost(evidence, cost_limit),
    ]
    by_policy = {Policy.STRICT: shared, Policy.EVIDENCE: [*shared, gates.beyond_doubt(evidence, min_gain)]}
    verdicts = {name: _verdict(judged, evidence) for name, judged in by_policy.items()}
    few = evidence.telling_rows < FEW_POSITIVES and not evidence.first
    smallest = smallest_detectable_difference(evidence.bootstrap) if few and evidence.bootstrap else None
    verdict, judged = verdicts[policy], by_policy[policy]
    summary, advice = _summary(verdict, judged, evidence), _advice(verdict, judged, evidence)
    return Decision(
        verdict=verdict,
        policy=policy,
        summary=summary,
        advice=advice,
        reason=" ".join(
            [
                summary,
                advice,
                *evidence.changes,
                _figures(verdict, judged, evidence, smallest),
                *_by_chance(evidence),
                _other(other, verdicts[other], verdict),
            ]
        ),
        other_policy=other,
        other_verdict=verdicts[other],
        gates=tuple(judged),
        first=evidence.first,
        smallest_difference=smallest,
    )


MANY_ALARMS = 2
"""A model that flags so many times the share of anomalies is wrong in at least half of its alarms."""

UNDECIDED = frozenset({"enough_positives", "enough_normal", "enough_classes", "usual_volume", "usual_labels"})
"""Gates without which the figures say too little for any verdict on the candidate."""


def _verdict(judged: Sequence[Gate], evidence: Evidence) -> Verdict:
    broken = {gate.name for gate in judged if not gate.passed}
    if not broken:
        return Verdict.PROMOTE
    if "usable" in broken:
        return Verdict.REFUSE
    if broken & UNDECIDED:
        return Verdict.NOT_ENOUGH_EVIDENCE
    if broken == {"evidence"} and not (evidence.bootstrap and gates.known(evidence.bootstrap.lower)):
        return Verdict.NOT_ENOUGH_EVIDENCE
    return Verdict.REFUSE


def _decisive(verdict: Verdict, judged: Sequence[Gate]) -> list[Gate]:
    """The broken gates that the verdict rests on; the others say nothing once the evidence is too thin."""
    broken = [gate for gate in judged if not gate.passed]
    if verdict is Verdict.NOT_ENOUGH_EVIDENCE:
        return [gate for gate in broken if gate.name in UNDECIDED] or broken
    # That a lead may be luck need not be said of a candidate that is behind, or broken.
    return [gate for gate in broken if gate.name != "evidence"] or broken


def _summary(verdict: Verdict, judged: Sequence[Gate], evidence: Evidence) -> str:
    if verdict is Verdict.PROMOTE:
        beaten = {gate.name: gate for gate in judged}["f1"].summary
        sure = ", beyond doubt" if judged[-1].name == "evidence" else ""
        if evidence.first:
            return f"Promoted as the first champion: {beaten}{sure}. It scores new rows from now on."
        return f"Promoted: {beaten}{sure}. It is the champion now and scores new rows from now on."
    opening = "Refused" if verdict is Verdict.REFUSE else "Not enough evidence"
    said = ", and ".join(dict.fromkeys(gate.summary for gate in _decisive(verdict, judged)))
    stays = (
        "There is still no champion, so nothing is scored." if evidence.first else "The champion stays in production."
    )
    return f"{opening}: {said}. {stays}"


def _advice(verdict: Verdict, judged: Sequence[Gate], evidence: Evidence) -> str:
    if verdict is Verdict.PROMOTE:
        told = ["Nothing; should it prove worse, `millrace rollback`."]
        if evidence.first:
            told = ["Look at its first alarms.", *_many_alarms(evidence)]
    else:
        told = list(dict.fromkeys(gate.advice for gate in _decisive(verdict, judged) if gate.advice))
        if len(told) > 1:
            # "There is nothing to do" stands alone or not at all.
            told = [advice for advice in told if advice != gates.NOTHING_TO_DO]
    return f"What to do: {' '.join(told)}"


def _many_alarms(evidence: Evidence) -> list[str]:
    """The first champion serves whatever it is worth; that most of its alarms will be false must not be a surprise."""
    flagged = evidence.candidate.alert_rate if evidence.candidate else None
    labelled = evidence.anomalous_share
    if labelled is None or not gates.known(flagged) or flagged <= MANY_ALARMS * labelled:
        return []
    return [
        "It flags far more rows than are labelled as anomalies, so most alarms will be false: label more rows, so "
        "that the next training finds a better threshold."
    ]


def _figures(verdict: Verdict, judged: Sequence[Gate], evidence: Evidence, smallest: float | None) -> str:
    details = {gate.name: gate.detail for gate in judged}
    if verdict is Verdict.PROMOTE:
        said = f"{details['f1']}, on the same {evidence.holdout_rows:,} holdout rows"
        if not evidence.classes:
            said += f" with {evidence.holdout_positives:,} labelled anomalies"
        if evidence.first:
            said += f"; {details['alert_rate']}"
        if "evidence" in details:
            said += f"; {details['evidence']}"
    else:
        said = "; ".join(gate.detail for gate in judged if not gate.passed)
    if smallest is not None:
        few = "rows of the rarer classes" if evidence.classes else "anomalies"
        said += f" (with so few {few}, a difference in {evidence.figure} below {smallest:.3f} would often go unseen)"
    return f"Figures: {said}."


def _other(policy: Policy, verdict: Verdict, ours: Verdict) -> str:
    would = {
        Verdict.PROMOTE: "promote it",
        Verdict.REFUSE: "refuse it",
        Verdict.NOT_ENOUGH_EVIDENCE: "say that there is not enough evidence",
    }[verdict]
    return f"The {policy} policy would {would}{' too' if verdict is ours else ''}."


def _by_chance(evidence: Evidence) -> list[str]:
    """The permutation test in words, where there is a difference that it could speak of."""
    p = evidence.permutation_p
    if not gates.known(p) or not evidence.bootstrap or not evidence.bootstrap.difference:
        return []
    share = f"{100 * p:.0f} %" if p >= 0.01 else "less than 1 %"
    return [f"Two equally good models would differ so much by chance in {share} of cases."]
