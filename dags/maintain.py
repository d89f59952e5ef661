"""The DAG that keeps the tables in order."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import CronTriggerTimetable, dag, task

from dags.common import DEFAULTS, NEVER, engine, final_states

log = logging.getLogger(__name__)

DOC = """
### Keeps the tables in order

Once a day, the partitions of the coming week are made ahead, and rows that arrived for a day without a partition are
moved out of the default partition. Where `millrace retain` says so, days that are over are dropped whole: never one
with rows that are still to be scored, and never a row with a label. Without it nothing is deleted. It may run at any
time, beside anything: where a table is in use, it leaves it for the next time.
"""


@dag(
    dag_id="maintain",
    schedule=CronTriggerTimetable("30 0 * * *", timezone="UTC", run_immediately=NEVER),
    description="Makes partitions ahead, moves stray rows into theirs, and drops the days that are over",
    doc_md=DOC,
    tags=["millrace", "maintain"],
    max_active_runs=1,
    **DEFAULTS,
)
def maintain() -> None:
    @task(doc_md="Makes the partitions of the coming week, and of days with stray rows; drops the days that are over.")
    def partitions() -> dict[str, Any]:
        from mllib.jobs.maintenance import described, maintain

        with final_states():
            done = maintain(engine())
        for sentence in described(done):
            log.info("%s", sentence)
        return done

    partitions()


maintain()
