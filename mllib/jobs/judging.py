"""The gate at work: measures candidate and champion on the same rows, decides, and carries the decision out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Engine

from mllib import evaluation, promotion, significance
from mllib.detectors import detector as detector_named
from mllib.detectors.base import Model
from mllib.errors import BadInput, NothingToTrainOn
from mllib.jobs.labelled import LabelledScores, score_labelled
from mllib.jobs.models import load_model
from mllib.jobs.training import DEFAULTS, TrainingOptions, fit_candidate
from mllib.paired_counts import count_clusters
from mllib.segments import Segment, compare_segments
from mllib.store import registry
from mllib.store.database import transaction
from mllib.store.registry import NewDecision
from mllib.store.rows import current_snapshot
from mllib.types import ModelStatus, Policy, Verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainReport:
    """The verdict on a candidate, in figures and in words."""

    detector: str
    version: int
    verdict: Verdict
    policy: Policy
    candidate_f1: float | None
    champion_f1: float | None
    champion_version: int | None
    holdout_rows: int
    holdout_positives: int
    holdout_hash: str
    reason: str
    as_of: datetime

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "as_of": self.as_of.isoformat()}


def train(
    engine: Engine,
    detector: str,
    *,
    as_of: datetime | None = None,
    policy: Policy = Policy.STRICT,
    options: TrainingOptions = DEFAULTS,
    by: str,
) -> TrainReport:
    """The whole weekly job: fit a candidate, judge it, promote or refuse it."""
    version = fit_candidate(engine, detector, as_of=as_of, options=options, trained_by=by)
    return judge_candidate(engine, detector, version, policy=policy, options=options, decided_by=by)


def judge_candidate(
    engine: Engine,
    detector: str,
    version: int,
    *,
    policy: Policy = Policy.STRICT,
    options: TrainingOptions = DEFAULTS,
    decided_by: str,
    dry_run: bool = False,
) -> TrainReport:
    """Scores candidate and champion on the candidate's holdout, decides, and carries the decision out.

    With ``dry_run`` nothing is recorded or changed. Raises BadInput when the version is no candidate any more, and
    PromotionConflict when the champion changes between the judgement and the promotion.
    """
    with transaction(engine) as conn:
        candidate = registry.get(conn, detector, version)
        if candidate.status is not ModelStatus.CANDIDATE:
            raise BadInput(
                f"{detector} version {version} is {candidate.status} already, so there is nothing left to judge. "
                f"`millrace models {detector}` shows the verdict."
            )
        if candidate.holdout is None:
            raise NothingToTrainOn(f"{detector} version {version} has no holdout to be judged on. Train a new one.")
        champion = registry.champion(conn, detector)
        rivals = [version] if champion is None else [version, champion]
        models = [load_model(engine, detector, rival) for rival in rivals]
        rows = score_labelled(
            conn,
            detector_named(detector),
            candidate.holdout,
            models,
            as_of=candidate.as_of,
            label_delay=options.label_delay,
            snapshot=current_snapshot(conn),
            trained_on=[registry.get(conn, detector, rival).train for rival in rivals],
        )
        evidence = _evidence(rows, models)
        decision = promotion.decide(evidence, policy, min_positives=options.min_positives)
        report = TrainReport(
            detector=detector,
            version=version,
            verdict=decision.verdict,
            policy=policy,
            candidate_f1=evidence.candidate.f1 if evidence.candidate else None,
            champion_f1=evidence.champion.f1 if evidence.champion else None,
            champion_version=champion,
            holdout_rows=evidence.holdout_rows,
            holdout_positives=evidence.holdout_positives,
            holdout_hash=evidence.holdout_hash,
            reason=decision.reason + _way_out(decision, detector, version),
            as_of=candidate.as_of,
        )
        if not dry_run:
            looks = registry.holdout_looks(conn, detector, report.holdout_hash)
            registry.record(conn, _recorded(report, evidence, decision, holdout_looks=looks + 1, by=decided_by))
    log.info("%s", report.reason)
    return report


def promote(
    engine: Engine, detector: str, version: int, *, reason: str, by: str, against_current: bool = False
) -> int | None:
    """Promotes a version by hand, whatever the gate said; the decision is marked as forced. Returns the old champion.

    It swaps against the champion that the version was judged against, or, ``against_current``, whoever is champion.
    Raises BadInput without a reason or for the champion itself, PromotionConflict when somebody else is champion now.
    """
    if not reason.strip():
        raise BadInput("A promotion by hand needs a reason, which is kept with the decision: --reason TEXT.")
    with transaction(engine) as conn:
        chosen = registry.get(conn, detector, version)
        current = registry.champion(conn, detector)
        if chosen.status is ModelStatus.CHAMPION:
            raise BadInput(f"{detector} version {version} is champion already.")
        old = current if against_current else registry.judged_against(conn, detector, version)
        registry.record(conn, _by_hand(detector, version, old, kind="forced", reason=reason, by=by))
    return old


def rollback(engine: Engine, detector: str, *, reason: str, by: str) -> tuple[int, int]:
    """Makes the champion before the present one champion again. Returns (old champion, new champion).

    Raises BadInput without a reason or where there is nothing to go back to.
    """
    if not reason.strip():
        raise BadInput("A rollback needs a reason, which is kept with the decision: --reason TEXT.")
    with transaction(engine) as conn:
        current = registry.champion(conn, detector)
        previous = registry.previous_champion(conn, detector)
        if current is None or previous is None:
            raise BadInput(f"{detector} has no earlier champion to go back to. `millrace models {detector}` lists all.")
        registry.record(conn, _by_hand(detector, previous, current, kind="rollback", reason=reason, by=by))
    return current, previous


def _evidence(rows: LabelledScores, models: Sequence[Model]) -> promotion.Evidence:
    measured = [rows.metrics(number, model.threshold) for number, model in enumerate(models)]
    champion = measured[1] if len(models) > 1 else None
    bootstrap = permutation_p = mcnemar_p = None
    segments: tuple[Segment, ...] = ()
    if champion is not None and rows.positive.size:
        new, old = (scores >= model.threshold for scores, model in zip(rows.scores, models, strict=True))
        counts = count_clusters(rows.positive, new, old, rows.clusters)
        bootstrap = evaluation.bootstrap_counts(counts)
        permutation_p = significance.permutation_test(counts)
        mcnemar_p = significance.mcnemar(rows.positive, new, old)
        segments = compare_segments(rows.positive, new, old, rows.clusters, rows.dimensions)
    return promotion.Evidence(
        first=champion is None,
        candidate=measured[0],
        champion=champion,
        bootstrap=bootstrap,
        holdout_rows=measured[0].rows,
        holdout_positives=measured[0].positives,
        holdout_hash=evaluation.holdout_hash(rows.ts_us, rows.log_ids, rows.positive),
        excluded_rows=rows.excluded,
        flag_everything_f1=evaluation.flag_everything_f1(measured[0].rows, measured[0].positives),
        rule_f1=_rules(rows),
        segments=segments,
        permutation_p=permutation_p,
        mcnemar_p=mcnemar_p,
    )


def _rules(rows: LabelledScores) -> dict[str, float]:
    """F1 of rules that look at one value only: what a model must be worth more than."""
    rules = {}
    if np.isfinite(rows.status_code).any():
        rules["status_code >= 500"] = evaluation.binary_metrics(rows.positive, rows.status_code >= 500).f1
    timed = np.isfinite(rows.response_time_ms)
    if timed.any():
        slow = rows.response_time_ms >= np.quantile(rows.response_time_ms[timed], 0.99)
        rules["slowest 1 % of requests"] = evaluation.binary_metrics(rows.positive, slow).f1
    return rules


def _way_out(decision: promotion.Decision, detector: str, version: int) -> str:
    """What to do where the gate leaves a detector without any champion."""
    if not decision.first or decision.verdict is Verdict.PROMOTE:
        return ""
    return (
        f" Until there is a champion nothing is scored: add labels (`millrace label FILE.csv`) and train again, or "
        f"take this version on trust with `millrace promote {detector} {version} --reason TEXT`."
    )


def _recorded(
    report: TrainReport, evidence: promotion.Evidence, decision: promotion.Decision, *, holdout_looks: int, by: str
) -> NewDecision:
    return NewDecision(
        detector=report.detector,
        candidate_version=report.version,
        champion_version=report.champion_version,
        kind="gate",
        verdict=report.verdict,
        policy=report.policy.value,
        other_verdict=decision.other_verdict.value,
        candidate_f1=report.candidate_f1,
        champion_f1=report.champion_f1,
        holdout_rows=report.holdout_rows,
        holdout_positives=report.holdout_positives,
        holdout_hash=report.holdout_hash,
        figures={
            **asdict(evidence),
            "gates": [asdict(gate) for gate in decision.gates],
            # The more often the same rows decide, the more likely is a candidate that wins on them by luck.
            "holdout_looks": holdout_looks,
        },
        reason=report.reason,
        as_of=report.as_of,
        decided_by=by,
    )


def _by_hand(detector: str, version: int, old: int | None, *, kind: str, reason: str, by: str) -> NewDecision:
    return NewDecision(
        detector=detector,
        candidate_version=version,
        champion_version=old,
        kind=kind,
        verdict=Verdict.PROMOTE,
        reason=reason,
        as_of=datetime.now(UTC),
        decided_by=by,
    )
