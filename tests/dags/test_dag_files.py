"""Every DAG file: read without errors, quickly, and complete enough for an operator to work with."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from mllib import detectors
from mllib.local import stack
from mllib.settings import PROJECT
from mllib.store.rescoring import ModelChoice

TAGS = {"millrace", "ingest", "maintain", "score", "retrain", *detectors.names()}
HEAVY = ("polars", "sklearn", "scipy", "psycopg", "numba")


def test_every_file_is_read_without_an_error(dag_bag: Any) -> None:
    assert dag_bag.import_errors == {}


def test_each_detector_has_its_two_dags(dags: dict[str, Any]) -> None:
    expected = {f"{job}_{name}" for job in ("score", "retrain") for name in detectors.names()}
    assert set(dags) == expected | {"ingest", "maintain", "rescore", "score_sessions"}


def test_reading_the_files_imports_nothing_heavy() -> None:
    script = (
        "import sys, warnings; warnings.simplefilter('ignore'); import airflow.sdk, airflow.sdk.exceptions;"
        "import airflow.providers.standard.operators.empty; before = set(sys.modules);"
        "import dags.ingest, dags.score, dags.rescore, dags.retrain, dags.maintain, dags.sessions;"
        f"print(*sorted(set({HEAVY!r}) & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2].strip() == ""


def test_every_dag_explains_itself(dags: dict[str, Any]) -> None:
    for dag_id, dag in dags.items():
        assert len(dag.doc_md) > 200, dag_id
        assert dag.description, dag_id
        assert set(dag.tags) <= TAGS, dag_id
        assert "millrace" in dag.tags, dag_id
        assert not dag.catchup, dag_id
        for task in dag.tasks:
            assert task.owner == "millrace", (dag_id, task.task_id)
            assert task.doc_md or task.task_type == "EmptyOperator", (dag_id, task.task_id)


def test_every_parameter_of_a_manual_run_is_typed_and_described(dags: dict[str, Any]) -> None:
    for dag_id, dag in dags.items():
        for name in dag.params:
            param = dag.params.get_param(name)
            assert param.schema.get("type") or param.schema.get("enum"), (dag_id, name)
            assert param.description, (dag_id, name)
            assert param.resolve() == param.value, (dag_id, name)


@pytest.mark.parametrize("detector", detectors.names())
def test_scoring_is_partitioned_by_the_hour_before(dags: dict[str, Any], detector: str) -> None:
    dag = dags[f"score_{detector}"]
    assert type(dag.timetable).__name__ == "CronPartitionTimetable"
    assert dag.timetable.expression == "0 * * * *"
    assert dag.timetable.run_offset == -1
    # A backfill may reach back to logs of any age.
    assert dag.start_date is None


@pytest.mark.parametrize("detector", detectors.names())
def test_retraining_is_weekly_on_sunday(dags: dict[str, Any], detector: str) -> None:
    timetable = dags[f"retrain_{detector}"].timetable
    assert timetable.expression == "0 2 * * 0"
    assert timetable.interval == timedelta(days=7)


@pytest.mark.parametrize("detector", detectors.names())
def test_mapped_tasks_say_what_they_do(dags: dict[str, Any], detector: str) -> None:
    assert dags[f"score_{detector}"].get_task("score_shard").map_index_template
    assert dags["rescore"].get_task("score_shard").map_index_template
    assert dags["ingest"].get_task("load_file").map_index_template


@pytest.mark.parametrize("detector", detectors.names())
def test_predictions_are_announced_as_an_asset(dags: dict[str, Any], detector: str) -> None:
    outlets = dags[f"score_{detector}"].get_task("publish").outlets
    assert [asset.name for asset in outlets] == [f"predictions_{detector}"]


def test_rescoring_offers_each_detector_and_each_choice_of_a_model(dags: dict[str, Any]) -> None:
    params = dags["rescore"].params
    assert params.get_param("detector").schema["enum"] == list(detectors.names())
    assert params.get_param("model").schema["enum"] == [choice.value for choice in ModelChoice]
    assert type(dags["rescore"].timetable).__name__ == "NullTimetable"


def test_only_past_hours_wait_in_the_pool_of_backfills(dags: dict[str, Any]) -> None:
    """A pool that nobody has made would stop whatever waits in it; hourly scoring must not."""
    from dags.common import BACKFILL_POOL

    waiting = {
        (dag_id, task.task_id) for dag_id, dag in dags.items() for task in dag.tasks if task.pool == BACKFILL_POOL
    }
    assert waiting == {("rescore", "score_shard")}
    script = importlib.util.spec_from_file_location("policy", PROJECT / "plugins" / "airflow_local_settings.py")
    assert script is not None
    assert script.loader is not None
    policy = importlib.util.module_from_spec(script)
    script.loader.exec_module(policy)
    assert policy.BACKFILL_POOL == stack.BACKFILL_POOL == BACKFILL_POOL
    for run_id, task_id, pool in [
        ("backfill__2026-01-01T00:00:00+00:00", "score_shard", BACKFILL_POOL),
        ("backfill__2026-01-01T00:00:00+00:00", "claim_rows", "default_pool"),
        ("scheduled__2026-01-01T00:00:00+00:00", "score_shard", "default_pool"),
        ("manual__2026-01-01T00:00:00+00:00", "score_shard", "default_pool"),
        (None, "score_shard", "default_pool"),
    ]:
        instance = SimpleNamespace(task_id=task_id, run_id=run_id, pool="default_pool")
        policy.task_instance_mutation_hook(instance, dag_run=None)
        assert instance.pool == pool
