"""The pages on the api-server: nobody sees them without a sign-in, and nobody those of a DAG that he may not read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine

from mllib.settings import PROJECT
from mllib.store import reports
from mllib.store.database import transaction
from tests.db.scoring_factories import DETECTOR, make_partitions, promote_model

if TYPE_CHECKING:
    from starlette.testclient import TestClient

PAGE = "<!doctype html><title>the page</title>"


@pytest.fixture
def client(app_module: ModuleType, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client that nobody has signed in, and a database with one decision that has a page and one that has none."""
    make_partitions(engine)
    promote_model(engine)
    promote_model(engine)
    with transaction(engine) as conn:
        reports.add(conn, 1, PAGE)
    monkeypatch.setenv("MILLRACE_DSN", engine.url.render_as_string(hide_password=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
    yield TestClient(app_module.app, raise_server_exceptions=False)
    app_module.app.dependency_overrides.clear()


def sign_in(app_module: ModuleType, role: str | None) -> None:
    """A user of Airflow's simple auth manager; without a role he may do nothing."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.api_fastapi.core_api.security import get_user

    app_module.app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(username="somebody", role=role)


def dependencies(dependant: Any) -> set[Any]:
    """Everything that a route calls before it answers."""
    return {dependant.call}.union(*(dependencies(other) for other in dependant.dependencies))


def test_every_route_asks_for_a_sign_in_and_none_changes_anything(app_module: ModuleType) -> None:
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi.routing import APIRoute

    routes = list(app_module.app.routes)
    assert len(routes) >= 2
    for route in routes:
        # Anything else, such as FastAPI's own documentation or a mounted folder, would answer anybody.
        assert isinstance(route, APIRoute), route
        assert get_user in dependencies(route.dependant), route.path
        assert route.methods == {"GET"}, route.path


@pytest.mark.parametrize("path", ["/reports", "/reports/1", "/reports/2", "/reports/99"])
def test_without_a_sign_in_there_is_nothing_to_see(client: TestClient, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 401
    assert "log_anomaly" not in answer.text
    assert client.get(path, headers={"Authorization": "Bearer made.up.token"}).status_code in (401, 403)


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/", "/static/report.css"])
def test_there_is_nothing_else(client: TestClient, app_module: ModuleType, path: str) -> None:
    sign_in(app_module, "ADMIN")

    assert client.get(path).status_code == 404


@pytest.mark.parametrize("role", ["VIEWER", "ADMIN"])
def test_whoever_may_read_the_dag_reads_its_reports(client: TestClient, app_module: ModuleType, role: str) -> None:
    sign_in(app_module, role)

    page = client.get("/reports/1")
    assert (page.status_code, page.text) == (200, PAGE)
    listed = client.get("/reports")
    assert listed.status_code == 200
    assert 'href="reports/1"' in listed.text
    assert 'href="reports/2"' not in listed.text
    for answer in (page, listed):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "script-src" not in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "private, no-store"


def test_whoever_may_not_read_the_dag_sees_neither_page_nor_list(client: TestClient, app_module: ModuleType) -> None:
    sign_in(app_module, None)

    assert client.get("/reports/1").status_code == 403
    listed = client.get("/reports")
    assert listed.status_code == 200
    assert DETECTOR not in listed.text


@pytest.mark.parametrize(
    ("path", "status"), [("2", 404), ("99", 404), ("0", 422), ("-1", 422), ("x", 422), (str(2**63), 422)]
)
def test_a_report_that_is_not_there_is_no_fault(
    client: TestClient, app_module: ModuleType, path: str, status: int
) -> None:
    sign_in(app_module, "VIEWER")

    assert client.get(f"/reports/{path}").status_code == status


def test_a_database_that_is_away_is_said_without_naming_it(
    client: TestClient, app_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(app_module, "VIEWER")
    monkeypatch.setenv("MILLRACE_DSN", "postgresql://millrace:geheim@127.0.0.1:1/millrace")

    answer = client.get("/reports")
    assert answer.status_code == 503
    assert "127.0.0.1" not in answer.text
    assert "geheim" not in answer.text


def test_airflow_takes_one_plugin_from_the_folder_and_leaves_the_package_alone(app_module: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow._shared.module_loading import find_path_from_directory

        for syntax in ("regexp", "glob"):
            found = {Path(p).name for p in find_path_from_directory(PROJECT / "plugins", ".airflowignore", syntax)}
            assert {name for name in found if name.endswith(".py")} == {
                "airflow_local_settings.py",
                "millrace_plugin.py",
            }
