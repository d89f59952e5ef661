"""A whole stack of its own for the end-to-end tests: PostgreSQL, Airflow, and demo logs in the landing folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mllib import demo
from mllib.local import stack
from mllib.local.airflow_api import AirflowApi
from mllib.store.database import engine_for

DETECTOR = "log_anomaly"
ROWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running stack, and the few things that the tests do with it."""

    home: Path
    api: AirflowApi
    engine: Engine

    def run(self, dag_id: str, conf: dict[str, Any] | None = None, *, partition_key: str | None = None) -> Run:
        """Triggers a run, as an operator does, and waits for its end."""
        run_id = self.api.trigger(dag_id, conf, partition_key)
        self.api.pause(dag_id, paused=False)
        return self.finished(dag_id, run_id)

    def finished(self, dag_id: str, run_id: str) -> Run:
        """Waits for the end of a run."""
        run = self.api.wait(dag_id, run_id, seconds=180)
        return Run(stack=self, dag_id=dag_id, run_id=run_id, state=run["state"])

    def rows(self, sql: str, **binds: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text(sql), binds)]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run."""

    stack: Stack
    dag_id: str
    run_id: str
    state: str

    def tasks(self) -> dict[str, str]:
        """The state of each task, and of each mapped one by its name in the UI."""
        return {
            task["rendered_map_index"] or task["task_id"]: task["state"]
            for task in self.stack.api.task_instances(self.dag_id, self.run_id)
        }

    def log(self, task_id: str, map_index: int = -1) -> str:
        """What a task's last try said."""
        tries = {
            (task["task_id"], task["map_index"]): task["try_number"]
            for task in self.stack.api.task_instances(self.dag_id, self.run_id)
        }
        number = tries[task_id, map_index]
        return self.stack.api.task_log(self.dag_id, self.run_id, task_id, try_number=number, map_index=map_index)

    def returned(self, task_id: str, key: str = "return_value") -> Any:
        """What a task handed on."""
        return self.stack.api.xcom(self.dag_id, self.run_id, task_id, key=key)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The main job comes first, however the files are named: it begins with an empty stack, the others do not mind."""
    items.sort(key=lambda item: "e2e" in item.path.parts and item.path.name != "test_main_job.py")


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("stack")
    demo.generate(home / "landing", rows=ROWS)
    try:
        stack.up(home)
        yield Stack(home=home, api=stack.api(home), engine=engine_for(stack.current_dsn(home)))
    finally:
        stack.down(home)
