"""The DAG that scores whole sessions, once a day."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, dag, get_current_context, task

from dags.common import DEFAULTS, NEVER, day_before, engine, final_states, moment_param, scoring_window

log = logging.getLogger(__name__)

DOC = """
### Scores whole sessions: the requests, traces, blocks or containers of a day

Once a day, all lines with the same `trace_id` get one score together, for what no single line shows: a step that is
missing, repeated, new or out of order. The sessions that began on the day before (UTC) are held against those of the
day before that; the model is fitted on the spot. The scores, with the reason for each anomaly, are in
`analytics.sessions`.

| to do this | do that |
|---|---|
| score another range | trigger with `from` and `to`; it learns from the range of the same length before |
| score a day again, after late lines or labels | the same, with that day: its scores are replaced |
| score days of the past | a backfill of this DAG, one run a day |

A run is **skipped**, and its log says why, when no session began in the range, or fewer than 50 did in the one before.
"""


@dag(
    dag_id="score_sessions",
    schedule=CronTriggerTimetable("15 1 * * *", timezone="UTC", interval=timedelta(days=1), run_immediately=NEVER),
    description="Scores the sessions of the day before by those of the day before that",
    doc_md=DOC,
    tags=["millrace", "score"],
    params={
        "from": moment_param("Score the sessions that began from this time on. Empty: those of the day before."),
        "to": moment_param("End of that range, itself left out."),
    },
    max_active_runs=1,
    **DEFAULTS,
)
def sessions() -> None:
    @task(doc_md="Fits the model and keeps the scores, in place of those that the range had.")
    def score_sessions() -> dict[str, Any]:
        from mllib.jobs import sessions as job

        context = get_current_context()
        with final_states():
            window = scoring_window("manual", None, context["params"]) or day_before(context)
            report = job.score_sessions(engine(), window, top=0)
        log.info("%s", report.described())
        return {"sessions": report.scored, "anomalies": report.anomalies, "open": report.open}

    score_sessions()


sessions()
