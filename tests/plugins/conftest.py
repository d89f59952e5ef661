"""The plugin's app on Airflow's own sign-in and permissions, without a whole Airflow."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from types import ModuleType

import pytest

from mllib.settings import PROJECT


@pytest.fixture(scope="session")
def app_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """``millrace_ui.app``, imported as the api-server does: with the plugins folder on the path."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # Airflow warns about itself while it is imported.
        warnings.simplefilter("ignore")
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        patch.syspath_prepend(PROJECT / "plugins")
        from airflow.api_fastapi.app import init_auth_manager

        init_auth_manager()
        yield importlib.import_module("millrace_ui.app")
