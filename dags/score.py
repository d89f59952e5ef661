"""One DAG per detector that scores log lines every hour, in batch, into the predictions table."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import Asset, CronPartitionTimetable, Param, TriggerRule, dag, get_current_context, task

from dags.common import (
    DEFAULTS,
    NEVER,
    SHARD_TASK,
    engine,
    final_states,
    log_finished,
    log_scored,
    moment_param,
    score_shard,
    scoring_window,
    shard_inputs,
)
from mllib.detectors import describe, names

log = logging.getLogger(__name__)

DOC = """
### Scores new log lines with `{detector}`

Every hour, all lines that were **committed since the last claim** are scored with the champion, whatever their event
time. Nothing is skipped and nothing is doubled: the claim is stored before the work starts, and each shard of it
commits its predictions together with its entry in the ledger. They become the current ones all at once, when the run
is published. Clear any task as often as you like.

| to do this | do that |
|---|---|
| score what is new, now | trigger without parameters |
| score a window of event time again | trigger with `from` and `to`; earlier predictions move to the history |
| score past hours | *Backfill*, from and to mean the hours of event time |
| score a long range again | the DAG `rescore`: it plans first, and takes one run |
| look at the result | `select * from analytics.predictions_current where detector = '{detector}' and ts > ...` |

A run is **green** when all its rows are in, also when there were none. It is **skipped** while the detector has no
champion; the rows wait for one. It is **red** only when somebody has to act; the log of the red task says how.

{description}
"""


def scoring_dag(detector: str) -> None:
    predictions = Asset(f"predictions_{detector}", uri=f"x-millrace://predictions/{detector}")

    @dag(
        dag_id=f"score_{detector}",
        schedule=CronPartitionTimetable("0 * * * *", timezone="UTC", run_offset=-1, run_immediately=NEVER),
        description=f"Scores new log lines every hour with {detector}",
        doc_md=DOC.format(detector=detector, description=describe(detector)),
        tags=["millrace", "score", detector],
        params={
            "from": moment_param("Start of a window of event time to score again. Empty: the newly ingested lines."),
            "to": moment_param("End of that window, itself left out."),
            "model": Param(None, type=["null", "integer"], minimum=1, description="Version. Empty: the champion."),
        },
        max_active_runs=2,
        **DEFAULTS,
    )
    def score() -> None:
        @task(doc_md="Stores which rows this run scores, and with which model version. Run again, it finds the same.")
        def claim_rows() -> list[dict[str, Any]]:
            from mllib.jobs import scoring

            context = get_current_context()
            run = context["dag_run"]
            with final_states():
                window = scoring_window(run.run_type.value, run.partition_key, context["params"])
                claimed, earlier = scoring.claim(
                    engine(), detector, run.run_id, window=window, version=context["params"]["model"]
                )
            log_finished(earlier)
            log.info(
                "Claimed %s: %s rows in %s shards, for version %s. Ledger: run %s.",
                f"the rows of {window}" if window else "the newly ingested rows",
                f"{claimed.run.claimed:,}",
                len(claimed.shards),
                claimed.run.model_version,
                claimed.run.run_id,
            )
            context["ti"].xcom_push(key="ledger_run", value=claimed.run.run_id)
            return shard_inputs(claimed.shards)

        # Runs after an empty claim, too, but not when the claim was skipped for want of a champion.
        @task(
            outlets=[predictions],
            trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
            doc_md="Makes the predictions of the run the current ones, all at once, and announces them.",
        )
        def publish() -> dict[str, int]:
            from mllib.jobs import scoring

            context = get_current_context()
            run_id = context["ti"].xcom_pull(task_ids="claim_rows", key="ledger_run")
            with final_states():
                run = scoring.publish(engine(), run_id)
            counts = {"ledger_run": run.run_id, "rows": run.scored, "anomalies": run.anomalies}
            context["outlet_events"][predictions].extra = {**counts, "model_version": run.model_version}
            log_scored(run.scored, run.anomalies)
            return counts

        claimed = claim_rows()
        [claimed, task(**SHARD_TASK)(score_shard).expand(shard=claimed)] >> publish()

    score()


for name in names():
    scoring_dag(name)
