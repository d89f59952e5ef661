"""The gate at work: measures candidate and champion on the same rows, decides, and carries the decision out."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from mllib.detectors import detector as detector_named
from mllib.errors import BadInput, NothingToTrainOn
from mllib.gate import promotion
from mllib.jobs import reporting
from mllib.jobs.evidence import gather, load_rivals
from mllib.jobs.labelled import score_labelled
from mllib.jobs.training import DEFAULTS, TrainingOptions, fit_candidate
from mllib.report.contents import Judgement
from mllib.store import registry
from mllib.store.database import connection, transaction
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
    metric: str
    """What the two figures below are: ``f1`` of anomalies, or ``macro_f1`` of classes."""
    candidate_f1: float | None
    champion_f1: float | None
    champion_version: int | None
    holdout_rows: int
    holdout_positives: int
    holdout_hash: str
    reason: str
    as_of: datetime
    decision_id: int | None = field(default=None, compare=False)
    """Where the verdict and its report are kept; None for a dry run."""

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "as_of": self.as_of.isoformat()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollback:
    """Who was champion and who is, and how long the transaction took, its commit included."""

    before: int
    champion: int
    milliseconds: float


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
        models, defects = load_rivals(engine, conn, detector, version, champion)
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
        evidence = gather(conn, detector, version, champion, rows, models, defects)
        decision = promotion.decide(evidence, policy, min_positives=options.min_positives)
        report = TrainReport(
            detector=detector,
            version=version,
            verdict=decision.verdict,
            policy=policy,
            metric=evidence.metric,
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
            decision_id = registry.record(
                conn, _recorded(report, evidence, decision, holdout_looks=looks + 1, by=decided_by)
            )
            report = replace(report, decision_id=decision_id)
            judgement = Judgement(
                detector=detector,
                version=version,
                champion_version=champion,
                evidence=evidence,
                decision=decision,
                reason=report.reason,
                as_of=report.as_of,
                decided_by=decided_by,
                holdout_looks=looks + 1,
            )
            reporting.keep(conn, decision_id, judgement, rows, models)
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


def rollback(engine: Engine, detector: str, *, reason: str, by: str) -> Rollback:
    """Makes the champion before the present one champion again, in one transaction.

    Raises BadInput without a reason or where there is nothing to go back to.
    """
    if not reason.strip():
        raise BadInput("A rollback needs a reason, which is kept with the decision: --reason TEXT.")
    with connection(engine) as conn:
        started = time.perf_counter()
        with conn.begin():
            current = registry.champion(conn, detector)
            previous = registry.previous_champion(conn, detector)
            if current is None or previous is None:
                raise BadInput(
                    f"{detector} has no earlier champion to go back to. `millrace models {detector}` lists all."
                )
            registry.record(conn, _by_hand(detector, previous, current, kind="rollback", reason=reason, by=by))
        milliseconds = (time.perf_counter() - started) * 1000
    return Rollback(before=current, champion=previous, milliseconds=round(milliseconds, 1))


def _way_out(decision: promotion.Decision, detector: str, version: int) -> str:
    """How to score all the same, where the gate leaves a detector without any champion."""
    if not decision.first or decision.verdict is Verdict.PROMOTE:
        return ""
    return f" To score all the same, take this version on trust: `millrace promote {detector} {version} --reason TEXT`."


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
