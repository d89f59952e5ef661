"""A small client of Airflow's REST API, on the standard library only."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from mllib.errors import StackProblem

FINAL = ("success", "failed")


class ApiProblem(StackProblem):
    """Airflow answered with an error. ``status`` is its HTTP status, 0 when there was no answer at all."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class AirflowApi:
    """Airflow at ``url``, as one user. Signs in at the first call that needs it, and again when its token expired."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self.user = user
        self._password = password
        self._token: str | None = None
        # Without the proxies of the environment: Airflow is on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def sign_in(self) -> None:
        """Fetch a token. Raises ApiProblem with status 401 when the user or the password is wrong."""
        answer = self._send("POST", "/auth/token", {"username": self.user, "password": self._password})
        self._token = answer["access_token"]

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The decoded JSON answer to one call below ``/api/v2``. Raises ApiProblem."""
        if self._token is None:
            self.sign_in()
        try:
            return self._send(method, f"/api/v2{path}", body)
        except ApiProblem as problem:
            if problem.status != 401:
                raise
            self.sign_in()
            return self._send(method, f"/api/v2{path}", body)

    def _send(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token is not None and path != "/auth/token":
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)  # noqa: S310
        try:
            with self._opener.open(request, timeout=60) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:500]
            raise ApiProblem(error.code, f"Airflow refused {method} {path}: HTTP {error.code} {detail}") from error
        except OSError as error:
            raise ApiProblem(0, f"Airflow at {self.url} does not answer ({error}). See `millrace status`.") from error
        return json.loads(content) if content else None

    def health(self) -> dict[str, str]:
        """The state of each component: metadatabase, scheduler, triggerer, dag_processor. Needs no sign-in."""
        answer = self._send("GET", "/api/v2/monitor/health")
        return {name: str(value["status"]) for name, value in answer.items() if isinstance(value, dict)}

    def dags(self) -> dict[str, dict[str, Any]]:
        """The DAGs that Airflow knows at present, by id."""
        return {dag["dag_id"]: dag for dag in self.call("GET", "/dags?limit=100&exclude_stale=true")["dags"]}

    def import_errors(self) -> list[str]:
        """The DAG files that could not be read, each with the last line of its error."""
        errors = self.call("GET", "/importErrors?limit=50")["import_errors"]
        return [f"{error['filename']}: {error['stack_trace'].strip().splitlines()[-1]}" for error in errors]

    def pause(self, dag_id: str, *, paused: bool) -> None:
        self.call("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": paused})

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None, partition_key: str | None = None) -> str:
        """Start a run and return its id. ``conf`` overrides the DAG's params."""
        body: dict[str, Any] = {"logical_date": None, "conf": conf or {}}
        if partition_key is not None:
            body["partition_key"] = partition_key
        return str(self.call("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id, safe='')}")
        return found

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The latest runs of a DAG, newest first."""
        found: list[dict[str, Any]] = self.call("GET", f"/dags/{dag_id}/dagRuns?limit=50&order_by=-id")["dag_runs"]
        return found

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        run = urllib.parse.quote(run_id, safe="")
        found: list[dict[str, Any]] = self.call("GET", f"/dags/{dag_id}/dagRuns/{run}/taskInstances?limit=1000")[
            "task_instances"
        ]
        return found

    def task_log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> str:
        """The text of one try of a task, one event a line."""
        run = urllib.parse.quote(run_id, safe="")
        path = f"/dags/{dag_id}/dagRuns/{run}/taskInstances/{task_id}/logs/{try_number}?map_index={map_index}"
        events = self.call("GET", path)["content"]
        return "\n".join(event if isinstance(event, str) else str(event.get("event", event)) for event in events)

    def xcom(self, dag_id: str, run_id: str, task_id: str, *, key: str = "return_value", map_index: int = -1) -> Any:
        """The value that a task returned, or None when it returned nothing."""
        task = f"/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id, safe='')}/taskInstances/{task_id}"
        path = f"{task}/xcomEntries/{key}?map_index={map_index}&deserialize=true"
        try:
            return self.call("GET", path)["value"]
        except ApiProblem as problem:
            if problem.status == 404:
                return None
            raise

    def wait(
        self,
        dag_id: str,
        run_id: str,
        *,
        seconds: float = 600,
        progress: Callable[[str], None] = lambda _: None,
    ) -> dict[str, Any]:
        """Wait for a run's end and return it. ``progress`` is told what goes on, in a few words.

        Raises StackProblem after ``seconds``; a run that failed is returned, not raised.
        """
        deadline = time.monotonic() + seconds
        while True:
            run = self.run(dag_id, run_id)
            if run["state"] in FINAL:
                return run
            if time.monotonic() > deadline:
                raise StackProblem(f"The run {run_id} of {dag_id} is still {run['state']} after {seconds:.0f} s.")
            active = [task["task_id"] for task in self.task_instances(dag_id, run_id) if task["state"] == "running"]
            progress(", ".join(sorted(set(active))) or run["state"])
            time.sleep(0.5)

    def failures(self, dag_id: str, run_id: str) -> list[str]:
        """For each failed task of a run, its name and what its log says last."""
        return [f"{task}: {text}" for task, text in self._last_words(dag_id, run_id, "failed")]

    def skipped(self, dag_id: str, run_id: str) -> list[str]:
        """Why tasks of a run skipped themselves, in their own words; tasks skipped in consequence are left out."""
        return [text for _, text in self._last_words(dag_id, run_id, "skipped")]

    def _last_words(self, dag_id: str, run_id: str, state: str) -> list[tuple[str, str]]:
        said = []
        for task in self.task_instances(dag_id, run_id):
            # A task that was never started has nothing to say.
            if task["state"] == state and task["try_number"]:
                place = {"try_number": task["try_number"], "map_index": task["map_index"]}
                lines = [line for line in self.task_log(dag_id, run_id, task["task_id"], **place).splitlines() if line]
                said.append((task["task_id"], lines[-1] if lines else "its log is empty"))
        return said
