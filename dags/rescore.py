"""The DAG that scores a range of event time again, by a plan that it shows first."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import Asset, AssetAlias, Param, TriggerRule, dag, get_current_context, task

from dags.common import (
    BACKFILL_POOL,
    DEFAULTS,
    SHARD_TASK,
    decided_by,
    engine,
    final_states,
    log_finished,
    log_scored,
    moment_param,
    score_shard,
    shard_inputs,
    window_param,
)
from mllib.detectors import names

log = logging.getLogger(__name__)

RESCORED = AssetAlias("predictions_rescored")

DOC = """
### Scores a range of event time again

A plan comes first: which rows, by which model version, hour by hour, and how many verdicts would change. With `dry_run`
it ends there; the log of `plan_rescore` shows the plan as a table, its number is in the XCom. Run exactly that plan
later with its number in `plan`.

A plan is run as it stands or not at all. If rows have come into its range since, if some of it was scored again, or if
another version has been promoted, the run is **red** and says so: make a new plan. The new predictions become the
current ones all at once, when the last shard is in; what was believed before stays in the history, and
`analytics.predictions_as_of(...)` tells it.

| `model` | which version scores a row |
|---|---|
| `champion` | the champion of now |
| `as-of-then` | whoever was champion at the row's event time; rows of times before the first champion are left out |
| `version` | the one of `version` |

A long range is one run per model version, in shards, and not one per hour. While it is under way, hourly scoring of the
same detector waits, and helps to finish it.
"""


@dag(
    dag_id="rescore",
    schedule=None,
    description="Scores a range of event time again, by a plan that is shown first",
    doc_md=DOC,
    tags=["millrace", "score", *names()],
    params={
        "detector": Param(names()[0], type="string", enum=list(names()), description="Detector."),
        "from": moment_param("First event time to score again."),
        "to": moment_param("End of the range, itself left out. Not after now."),
        "model": Param(
            "champion",
            type="string",
            enum=["champion", "as-of-then", "version"],
            values_display={
                "champion": "champion now",
                "as-of-then": "champion as of then",
                "version": "a version, named below",
            },
            description="Which model scores the rows.",
        ),
        "version": Param(None, type=["null", "integer"], minimum=1, description="Version, where that is the choice."),
        "dry_run": Param(False, type="boolean", description="Only make the plan and show it."),
        "plan": Param(
            None, type=["null", "integer"], minimum=1, description="Number of a plan to run; the range is then its own."
        ),
        "reason": Param(None, type=["null", "string"], description="Why. Kept with the plan."),
    },
    max_active_runs=2,
    **DEFAULTS,
)
def rescore() -> None:
    @task.short_circuit(doc_md="Makes and shows the plan, or finds the one that was named. A dry run ends here.")
    def plan_rescore() -> bool:
        from mllib.jobs import rescoring

        context = get_current_context()
        params, key = context["params"], _key(context)
        with final_states():
            if params["plan"] is not None:
                plan = rescoring.show(engine(), params["plan"])
            else:
                plan = rescoring.plan(
                    engine(),
                    params["detector"],
                    window_param(params),
                    model=rescoring.model_choice(params["model"], params["version"]),
                    reason=params["reason"],
                    run_key=key,
                    by=decided_by(context),
                )
        log.info("%s", rescoring.as_table(plan))
        context["ti"].xcom_push(
            key="plan",
            value={
                "plan_id": plan.plan_id,
                "detector": plan.detector,
                "rows": plan.rows,
                "left_out": plan.left_out,
                "changes": plan.changes,
                "exact": plan.exact,
                "versions": [piece.model_version for piece in plan.pieces],
            },
        )
        if params["dry_run"]:
            log.info("A dry run: nothing is scored. To run it, trigger with plan = %s.", plan.plan_id)
        return not params["dry_run"]

    @task(doc_md="Claims exactly what the plan says, or refuses. Run again, it finds the same.")
    def claim_rows() -> list[dict[str, Any]]:
        from mllib.jobs import rescoring

        context = get_current_context()
        plan_id = context["ti"].xcom_pull(task_ids="plan_rescore", key="plan")["plan_id"]
        with final_states():
            claimed, earlier = rescoring.claim(engine(), plan_id, _key(context))
        log_finished(earlier)
        rows = sum(run.claimed for run in claimed.runs)
        log.info(
            "Claimed %s rows in %s runs and %s shards.", f"{rows:,}", len(claimed.runs), f"{len(claimed.shards):,}"
        )
        context["ti"].xcom_push(key="ledger_runs", value=[run.run_id for run in claimed.runs])
        return shard_inputs(claimed.shards)

    @task(
        outlets=[RESCORED],
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        doc_md="Makes the new predictions the current ones, all at once, and announces them.",
    )
    def publish() -> dict[str, Any] | None:
        from mllib.jobs import rescoring

        context = get_current_context()
        plan = context["ti"].xcom_pull(task_ids="plan_rescore", key="plan")
        with final_states():
            runs = rescoring.publish(engine(), plan["plan_id"])
        counts = {"rows": sum(run.scored for run in runs), "anomalies": sum(run.anomalies for run in runs)}
        detector = plan["detector"]
        predictions = Asset(f"predictions_{detector}", uri=f"x-millrace://predictions/{detector}")
        context["outlet_events"][RESCORED].add(predictions, extra={"plan_id": plan["plan_id"], **counts})
        log_scored(counts["rows"], counts["anomalies"])
        return {"plan_id": plan["plan_id"], "ledger_runs": [run.run_id for run in runs], **counts}

    claimed = claim_rows()
    plan_rescore() >> claimed
    [claimed, task(pool=BACKFILL_POOL, **SHARD_TASK)(score_shard).expand(shard=claimed)] >> publish()


def _key(context: Any) -> str:
    # Run ids are unique within a DAG; the ledger's keys within a detector.
    return f"rescore {context['dag_run'].run_id}"


rescore()
