"""Decides whether a candidate takes the champion's place. Pure: figures in, a verdict with its reasons out.

The rule of the house: nothing is promoted unless its F1 is higher than the champion's, both measured now on the same
holdout rows. A policy says whether that is enough (``strict``) or whether it must also be beyond doubt (``evidence``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from mllib.evaluation import BinaryMetrics, BootstrapDifference, smallest_detectable_difference
from mllib.segments import Segment, fallen
from mllib.types import Policy, Verdict

FEW_POSITIVES = 300
"""Below this many labelled anomalies a decision also says how small a difference the holdout could have shown."""

NAMED = 3
"""So many of the services and levels that lost are named in the reason, the worst first; the figures hold all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured, on one set of holdout rows.

    ``first`` says that there is no champion to beat. It is separate from ``champion`` on purpose: a champion whose
    figures are missing is still one, and a candidate must not slip past it.
    """

    first: bool
    candidate: BinaryMetrics | None
    champion: BinaryMetrics | None
    bootstrap: BootstrapDifference | None
    holdout_rows: int
    holdout_positives: int
    holdout_hash: str
    excluded_rows: int
    flag_everything_f1: float
    rule_f1: Mapping[str, float] = field(default_factory=dict)
    """F1 of single-feature rules by name, such as ``status >= 500``: reported beside the verdict, never part of it."""
    segments: tuple[Segment, ...] = ()
    """Both models by service and by level."""
    permutation_p: float | None = None
    """How often chance alone makes two equal models differ so much in F1, clusters swapped as a whole."""
    mcnemar_p: float | None = None
    """The same for the rows they get wrong, rows taken for independent. Both values are reported, neither decides."""

    def __post_init__(self) -> None:
        if self.first and self.champion is not None:
            raise ValueError("there are figures of a champion, so the candidate is not the first")
        for name in ("candidate", "champion"):
            metrics: BinaryMetrics | None = getattr(self, name)
            if metrics and (metrics.rows, metrics.positives) != (self.holdout_rows, self.holdout_positives):
                raise ValueError(
                    f"the {name} was measured on {metrics.rows} rows with {metrics.positives} positives, the holdout "
                    f"has {self.holdout_rows} with {self.holdout_positives}: measure both models on the same rows"
                )
        if self.bootstrap and self.candidate and self.champion:
            gain = self.candidate.f1 - self.champion.f1
            if math.isfinite(gain) and not math.isclose(gain, self.bootstrap.difference, abs_tol=1e-9):
                raise ValueError(
                    f"the bootstrap is of a difference of {self.bootstrap.difference}, the figures differ by {gain}: "
                    "measure both on the same rows, the candidate first"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One condition of a promotion, and how it came out, in words."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict under ``policy``, and what the other policy would have said of the same figures.

    ``gates`` are the conditions of ``policy`` in the order they count; ``smallest_difference`` is the difference in F1
    that the holdout could have shown, given when it holds few positives and there is a champion to compare with.
    """

    verdict: Verdict
    policy: Policy
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
) -> Decision:
    """Judge a candidate.

    - Fewer than ``min_positives`` labelled anomalies in the holdout: not enough evidence, whatever the figures.
    - F1 strictly higher than the champion's; a tie refuses. A first candidate must beat flagging every row instead.
    - Alert rate at most ``alert_rate_limit`` times the champion's. A champion that flags nothing gives no rate to go
      by: then at most that many times the share of labelled anomalies.
    - No segment (service, level) with enough anomalies of its own may lose more than ``segment_margin`` in F1, unless
      that may well be chance (5 %, Holm's correction for the number of segments).
    - ``evidence`` only: the lower bound of the bootstrap above ``min_gain`` (in F1). No bound: not enough evidence. A
      first candidate is judged alike under both policies, for there is no difference to be sure of.

    A figure that is missing or NaN never passes a gate.
    """
    other = Policy.STRICT if policy is Policy.EVIDENCE else Policy.EVIDENCE
    shared = [
        _enough_positives(evidence, min_positives),
        _f1(evidence),
        _alert_rate(evidence, alert_rate_limit),
        _segments(evidence, segment_margin),
    ]
    by_policy = {Policy.STRICT: shared, Policy.EVIDENCE: shared}
    if not evidence.first:
        by_policy[Policy.EVIDENCE] = [*shared, _beyond_doubt(evidence.bootstrap, min_gain)]
    verdicts = {name: _verdict(gates, evidence) for name, gates in by_policy.items()}
    few = evidence.holdout_positives < FEW_POSITIVES and not evidence.first
    smallest = smallest_detectable_difference(evidence.bootstrap) if few and evidence.bootstrap else None
    return Decision(
        verdict=verdicts[policy],
        policy=policy,
        reason=_reason(verdicts[policy], by_policy[policy], evidence, other, verdicts[other], smallest),
        other_policy=other,
        other_verdict=verdicts[other],
        gates=tuple(by_policy[policy]),
        first=evidence.first,
        smallest_difference=smallest,
    )


def _enough_positives(evidence: Evidence, min_positives: int) -> Gate:
    detail = (
        f"the holdout of {evidence.holdout_rows:,} rows holds {evidence.holdout_positives:,} labelled anomalies, "
        f"at least {min_positives:,} are needed"
    )
    if evidence.excluded_rows:
        detail += f" ({evidence.excluded_rows:,} rows that a model was trained on are left out)"
    return Gate(name="enough_positives", passed=evidence.holdout_positives >= min_positives, detail=detail)


def _f1(evidence: Evidence) -> Gate:
    new = evidence.candidate.f1 if evidence.candidate else None
    old = evidence.champion.f1 if evidence.champion else None
    rival = "the champion"
    if evidence.first:
        old, rival = evidence.flag_everything_f1, "flagging every row"
    if not _known(new) or not _known(old):
        missing = "the candidate" if not _known(new) else rival
        return Gate(name="f1", passed=False, detail=f"the F1 of {missing} could not be measured")
    if new == old:
        return Gate(name="f1", passed=False, detail=f"the candidate's F1 of {new:.4f} is the same as that of {rival}")
    left, right = _apart(new, old)
    word = "higher" if new > old else "lower"
    detail = f"the candidate's F1 of {left} is {word} than the {right} of {rival}"
    return Gate(name="f1", passed=new > old, detail=detail)


def _alert_rate(evidence: Evidence, limit: float) -> Gate:
    if evidence.first:
        return Gate(name="alert_rate", passed=True, detail="there is no champion whose alert rate could be exceeded")
    new = evidence.candidate.alert_rate if evidence.candidate else None
    old = evidence.champion.alert_rate if evidence.champion else None
    if not _known(new) or not _known(old):
        missing = "the candidate" if not _known(new) else "the champion"
        return Gate(name="alert_rate", passed=False, detail=f"the alert rate of {missing} could not be measured")
    base, whose = old, "the champion's"
    if not old:
        # Three times nothing would let no candidate ever replace a champion that has gone silent.
        base, whose = evidence.holdout_positives / max(evidence.holdout_rows, 1), "the labelled anomalies'"
    passed = new <= limit * base
    detail = f"the candidate flags {new:.2%} of the rows, {whose} share is {base:.2%}, the limit {limit:g} times that"
    return Gate(name="alert_rate", passed=passed, detail=detail)


def _segments(evidence: Evidence, margin: float) -> Gate:
    if evidence.first:
        return Gate(name="slices", passed=True, detail="there is no champion that any service or level could lose by")
    known = [segment for segment in evidence.segments if segment.known]
    unknown = len(evidence.segments) - len(known)
    worse = fallen(evidence.segments, margin=margin)
    if not worse:
        detail = f"of {len(known):,} services and levels none is clearly worse by more than {margin:g} in F1"
        if unknown:
            detail += f" ({unknown:,} hold too few labelled anomalies to be judged)"
        return Gate(name="slices", passed=True, detail=detail)
    losses = ", ".join(
        f"{s.dimension} {s.value} (F1 {s.candidate_f1:.4f} against {s.champion_f1:.4f} on {s.positives:,} anomalies)"
        for s in sorted(worse, key=lambda s: s.difference)[:NAMED]
    )
    more = f" and {len(worse) - NAMED:,} more" if len(worse) > NAMED else ""
    detail = (
        f"the candidate is clearly worse than the champion for {losses}{more}; "
        f"no service or level may lose more than {margin:g} in F1"
    )
    return Gate(name="slices", passed=False, detail=detail)


def _beyond_doubt(bootstrap: BootstrapDifference | None, min_gain: float) -> Gate:
    lower = bootstrap.lower if bootstrap else None
    if bootstrap is None or not _known(lower):
        return Gate(name="evidence", passed=False, detail="it could not be measured how sure the difference in F1 is")
    left, right = _apart(lower, min_gain)
    detail = (
        f"the gain in F1 is {bootstrap.difference:+.4f} and with 95 % confidence above {left}, "
        f"which must be more than {right}"
    )
    return Gate(name="evidence", passed=lower > min_gain, detail=detail)


def _verdict(gates: list[Gate], evidence: Evidence) -> Verdict:
    broken = {gate.name for gate in gates if not gate.passed}
    if not broken:
        return Verdict.PROMOTE
    if "enough_positives" in broken:
        return Verdict.NOT_ENOUGH_EVIDENCE
    if broken == {"evidence"} and not (evidence.bootstrap and _known(evidence.bootstrap.lower)):
        return Verdict.NOT_ENOUGH_EVIDENCE
    return Verdict.REFUSE


def _reason(
    verdict: Verdict,
    gates: list[Gate],
    evidence: Evidence,
    other: Policy,
    other_verdict: Verdict,
    smallest: float | None,
) -> str:
    details = {gate.name: gate for gate in gates}
    if verdict is Verdict.PROMOTE:
        opening = "Promoted as the first champion" if evidence.first else "Promoted"
        said = f"{details['f1'].detail}, on the same {evidence.holdout_rows:,} holdout rows"
        said += f" with {evidence.holdout_positives:,} labelled anomalies"
        if "evidence" in details:
            said += f"; {details['evidence'].detail}"
    else:
        opening = "Refused" if verdict is Verdict.REFUSE else "Not enough evidence"
        said = "; ".join(gate.detail for gate in gates if not gate.passed)
    if smallest is not None:
        said += f" (with so few anomalies, a difference in F1 below {smallest:.3f} would often go unseen)"
    would = {
        Verdict.PROMOTE: "promote it",
        Verdict.REFUSE: "refuse it",
        Verdict.NOT_ENOUGH_EVIDENCE: "say that there is not enough evidence",
    }[other_verdict]
    sentences = [f"{opening}: {said}.", *_by_chance(evidence)]
    sentences.append(f"The {other} policy would {would}{' too' if verdict is other_verdict else ''}.")
    return " ".join(sentences)


def _by_chance(evidence: Evidence) -> list[str]:
    """The permutation test in words, where there is a difference that it could speak of."""
    p = evidence.permutation_p
    if not _known(p) or not evidence.bootstrap or not evidence.bootstrap.difference:
        return []
    share = f"{100 * p:.0f} %" if p >= 0.01 else "less than 1 %"
    return [f"Two equally good models would differ so much by chance in {share} of cases."]


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _apart(left: float, right: float) -> tuple[str, str]:
    """Both numbers with four digits, or with as many as it takes to tell them apart."""
    for digits in range(4, 18):
        pair = f"{left:.{digits}f}", f"{right:.{digits}f}"
        if pair[0] != pair[1]:
            return pair
    return f"{left:.4f}", f"{right:.4f}"
