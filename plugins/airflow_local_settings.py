"""Airflow's policy for this project, which Airflow imports by this name: which pool a task waits in."""

from __future__ import annotations

from typing import Any

BACKFILL_POOL = "millrace_backfill"
"""Slots for scoring past hours again. Scheduled scoring never waits in it, and needs none."""


def task_instance_mutation_hook(task_instance: Any, dag_run: Any = None) -> None:
    """Sends the shards of a native backfill to a pool of their own, so that they leave room for the hourly run.

    By the run's id, which Airflow forms from the run's type: there is not always a run to look at.
    """
    if task_instance.task_id == "score_shard" and (task_instance.run_id or "").startswith("backfill__"):
        task_instance.pool = BACKFILL_POOL
