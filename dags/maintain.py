"""The DAG that keeps the tables in order."""

from __future__ import annotations

import logging

from airflow.sdk import CronTriggerTimetable, dag, task

from dags.common import DEFAULTS, NEVER, engine, final_states

log = logging.getLogger(__name__)

DOC = """
### Keeps the tables in order

Once a day, the partitions of the coming week are made ahead, and rows that arrived for a day without a partition are
moved out of the default partition. Nothing is deleted, and it may run at any time, beside anything.
"""


@dag(
    dag_id="maintain",
    schedule=CronTriggerTimetable("30 0 * * *", timezone="UTC", run_immediately=NEVER),
    description="Makes partitions ahead and moves stray rows into theirs",
    doc_md=DOC,
    tags=["millrace", "maintain"],
    max_active_runs=1,
    **DEFAULTS,
)
def maintain() -> None:
    @task(doc_md="Makes the partitions of the coming week, and of days whose rows lie in a default partition.")
    def partitions() -> dict[str, int]:
        from mllib.jobs.maintenance import maintain

        with final_states():
            made = maintain(engine())
        log.info("%s partitions made ahead, %s for strays.", made["partitions_ahead"], made["partitions_for_strays"])
        return made

    partitions()


maintain()
