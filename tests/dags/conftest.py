"""The DAG files, read by the real Airflow, once a session."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mllib.settings import PROJECT

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag


@pytest.fixture(scope="session")
def dag_bag(tmp_path_factory: pytest.TempPathFactory) -> DagBag:
    """All DAGs of the dags folder, read as the DAG processor reads them."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # Airflow warns about itself while it is imported; our own files are read under the strict rules below.
        warnings.simplefilter("ignore")
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        patch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(PROJECT / "dags"))
        from airflow.dag_processing.dagbag import DagBag

        warnings.simplefilter("error")
        return DagBag(dag_folder=str(PROJECT / "dags"))


@pytest.fixture(scope="session")
def dags(dag_bag: DagBag) -> dict[str, Any]:
    """The DAGs by their id."""
    return dict(dag_bag.dags)


@pytest.fixture(scope="session")
def dag_files() -> list[Path]:
    """The DAG files."""
    return sorted((PROJECT / "dags").glob("*.py"))
