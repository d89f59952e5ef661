"""One DAG per detector that trains a candidate every week, and promotes it only if it is better."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any
from urllib.parse import urljoin

from airflow.configuration import conf
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import BaseOperatorLink, CronTriggerTimetable, Param, XComArg, dag, get_current_context, task

from dags.common import DEFAULTS, NEVER, as_of, decided_by, engine, final_states, moment_param
from mllib.detectors import describe, names
from mllib.types import Policy, Verdict

log = logging.getLogger(__name__)

OUTCOMES = {
    Verdict.PROMOTE: "promoted",
    Verdict.REFUSE: "refused",
    Verdict.NOT_ENOUGH_EVIDENCE: "not_enough_evidence",
}
DRY_RUN = "dry_run"

DOC = """
### Retrains `{detector}`, and promotes the candidate only if its F1 improves

Sundays at 02:00 UTC a candidate is fitted on the labelled and unlabelled lines of the last month, its threshold is
chosen on a later slice, and candidate and champion are scored on the **same**, still later holdout. The
verdict is one of:

| the run ends in | which means |
|---|---|
| `promoted` | the candidate's F1 was higher; it is champion from now on |
| `refused` | it was not better, or another gate was broken; the champion stays |
| `not_enough_evidence` | too few labelled anomalies to say; the champion stays |
| `dry_run` | nothing was decided, as asked; the log says what would have been |

All of them are green, for all are answers. The button *Report* of `judge_candidate` opens a page that shows the verdict
in pictures. The reason is also in the task's log and, for good, in `analytics.promotion_decisions`. A run is
**skipped** when there is nothing to train on yet, and **red** when somebody has to act, for example because another
promotion came in between.

| to do this | do that |
|---|---|
| train now | trigger without parameters |
| train as if it were an earlier day | trigger with `as_of` |
| see what would be decided | trigger with `dry_run`: the candidate is kept, nothing is promoted |
| go back to the champion before | `millrace rollback {detector} --reason TEXT` |

{description}
"""


class ReportLink(BaseOperatorLink):
    """The button on `judge_candidate` that opens the report of its verdict. A dry run has none."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The report's address. Airflow calls this at the end of the task, in its process, and keeps the answer."""
        from airflow.sdk.execution_time.xcom import XCom

        verdict = XCom.get_value(ti_key=ti_key, key="verdict") or {}
        return report_url(verdict.get("decision_id")) or ""


def report_url(decision_id: int | None) -> str | None:
    """Where the plugin shows the report of a decision; None without one."""
    if decision_id is None:
        return None
    return urljoin(conf.get("api", "base_url", fallback="/").rstrip("/") + "/", f"millrace/reports/{decision_id}")


def retraining_dag(detector: str) -> None:
    @dag(
        dag_id=f"retrain_{detector}",
        schedule=CronTriggerTimetable("0 2 * * 0", timezone="UTC", interval=timedelta(days=7), run_immediately=NEVER),
        description=f"Trains a candidate for {detector} every week, promotes it only if its F1 improves",
        doc_md=DOC.format(detector=detector, description=describe(detector)),
        tags=["millrace", "retrain", detector],
        params={
            "as_of": moment_param("Use only what was known then. Empty: now."),
            "policy": Param("strict", enum=[policy.value for policy in Policy], description="What a promotion takes."),
            "train_days": Param(30, type="integer", minimum=1, description="Days of the training slice."),
            "min_positives": Param(30, type="integer", minimum=1, description="Labelled anomalies a verdict needs."),
            "dry_run": Param(False, type="boolean", description="Judge, but record and promote nothing."),
        },
        max_active_runs=1,
        **DEFAULTS,
    )
    def retrain() -> None:
        @task(doc_md="Fits a model, chooses its threshold, and stores it in the registry as a candidate.")
        def fit_candidate() -> int:
            from mllib.jobs.training import fit_candidate

            context = get_current_context()
            with final_states():
                return fit_candidate(
                    engine(),
                    detector,
                    as_of=as_of(context),
                    options=_options(context["params"]),
                    trained_by=decided_by(context),
                )

        @task.branch(doc_md="Scores candidate and champion on the same rows, and promotes or refuses.")
        def judge_candidate(version: int) -> str:
            from mllib.jobs.judging import judge_candidate

            context = get_current_context()
            with final_states():
                report = judge_candidate(
                    engine(),
                    detector,
                    version,
                    policy=Policy(context["params"]["policy"]),
                    options=_options(context["params"]),
                    decided_by=decided_by(context),
                    dry_run=context["params"]["dry_run"],
                )
            if report.decision_id is not None:
                log.info("The report: %s", report_url(report.decision_id))
            context["ti"].xcom_push(
                key="verdict",
                value={
                    "version": report.version,
                    "verdict": report.verdict.value,
                    "candidate_f1": report.candidate_f1,
                    "champion_f1": report.champion_f1,
                    "holdout_rows": report.holdout_rows,
                    "holdout_positives": report.holdout_positives,
                    "decision_id": report.decision_id,
                },
            )
            return DRY_RUN if context["params"]["dry_run"] else OUTCOMES[report.verdict]

        ends = [EmptyOperator(task_id=name) for name in (*OUTCOMES.values(), DRY_RUN)]
        judged: XComArg = judge_candidate(fit_candidate())
        judged.operator.operator_extra_links = (ReportLink(),)
        judged >> ends

    retrain()


def _options(params: dict[str, Any]) -> Any:
    from mllib.jobs.training import TrainingOptions

    return TrainingOptions(train_days=params["train_days"], min_positives=params["min_positives"])


for name in names():
    retraining_dag(name)
