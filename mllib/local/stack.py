"""The whole local stack: starting, stopping and describing PostgreSQL and Airflow's processes of one home folder."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mllib import settings
from mllib.errors import StackProblem
from mllib.local import state, supervisor
from mllib.local.airflow_api import AirflowApi, ApiProblem
from mllib.local.environment import passwords, stack_environment
from mllib.local.postgres import EmbeddedPostgres
from mllib.local.progress import Step, silent

WEB_PORT = 8080
BACKFILL_POOL, BACKFILL_SLOTS = "millrace_backfill", 2
HEALTHY_WITHIN = 240


@dataclass(frozen=True, kw_only=True, slots=True)
class StackStatus:
    """What runs in one home folder."""

    home: Path
    running: bool  # the supervisor and every process under it
    web_url: str | None  # where Airflow's pages are; None when the stack is down
    postgres_port: int | None  # None when PostgreSQL is down
    processes: dict[str, str]  # name to state, in supervisord's words; empty when the stack is down

    def as_dict(self) -> dict[str, Any]:
        """The same for ``--json``."""
        return {**asdict(self), "home": str(self.home)}

    def __str__(self) -> str:
        if not self.processes and self.postgres_port is None:
            return f"The local stack in {self.home} is down. Start it with `make run` or `millrace up`."
        lines = [f"home        {self.home}", f"web         {self.web_url or 'down'}"]
        lines.append(f"postgres    {f'{state.LOOPBACK}:{self.postgres_port}' if self.postgres_port else 'down'}")
        lines += [f"{name:13} {process_state.lower()}" for name, process_state in self.processes.items()]
        return "\n".join(lines)


def up(home: Path, port: int | None = None, *, step: Step = silent) -> StackStatus:
    """Start what does not run yet, bring the databases to this version, and return when all of it is healthy.

    ``port`` is the first choice for the web pages (default: the last one used, else 8080); the next free one is taken
    instead if it is in use. A stack that runs keeps its port. Raises StackProblem when something will not start.
    """
    home = home.resolve()
    state.prepare_home(home)
    with state.lock(home, lambda: print("  Another command is starting or stopping this stack; waiting for it.")):
        for _attempt in range(3):
            _start(home, port, step)
            with step("Starting Airflow"):
                if _healthy(home):
                    _make_pool(home)
                    return status(home)
            # Between our look at the port and the server's start somebody else took it.
            supervisor.stop(home)
        raise StackProblem("Other programs keep taking the ports of the local stack. Choose one with --port.")


def _start(home: Path, port: int | None, step: Step) -> None:
    postgres = EmbeddedPostgres(home)
    if supervisor.find(home) is None or not supervisor.answers(home):
        if supervisor.processes(home) or postgres.running():
            # What a killed supervisor left behind holds the ports and would work beside the new processes.
            with step("Ending what an earlier supervisor left running"):
                supervisor.stop(home)
        with step("Starting PostgreSQL"):
            postgres.prepare()
            state.choose_port(home, "web", port or state.ports(home).get("web") or WEB_PORT)
            state.choose_port(home, "control", None)
            supervisor.start(home)
            postgres.wait_ready()
            postgres.create_databases()
    else:
        postgres.wait_ready()
    # Two independent databases: both cores have something to do.
    with ThreadPoolExecutor(1) as pool:
        ours = pool.submit(_migrate_ours, postgres.dsn())
        _migrate_airflow(home, postgres, step)
        ours.result()
    supervisor.start_airflow(home)


def _migrate_ours(dsn: str) -> None:
    # Imported here, so that `millrace status` and `down` do not wait for what they do not need.
    from mllib.store.database import engine_for
    from mllib.store.migrate import migrate

    migrate(engine_for(dsn))


def _migrate_airflow(home: Path, postgres: EmbeddedPostgres, step: Step) -> None:
    """Bring Airflow's own tables to the installed version, unless the database says that they are there."""
    # The mark is a comment on the database, so that it goes where the data goes.
    mark = f"migrated by Airflow {version('apache-airflow-core')}"
    read = "select coalesce(shobj_description(oid, 'pg_database'), '') from pg_database where datname = 'airflow'"
    if postgres.query("airflow", read) == mark:
        return
    with step("Creating Airflow's tables"):
        log = home / "logs" / "airflow-migrate.log"
        with log.open("wb") as output:
            done = subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                cwd=home,
                env=stack_environment(home),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        if done.returncode:
            raise StackProblem(f"Airflow could not create its tables; see {log}.")
        postgres.query("airflow", f"comment on database airflow is '{mark}'")


def _healthy(home: Path) -> bool:
    """Wait until every component is healthy. False when another program answers on our port.

    Raises StackProblem when it takes too long.
    """
    client = api(home)
    deadline = time.monotonic() + HEALTHY_WITHIN
    signed_in = False
    missing = "the web server does not answer"
    while time.monotonic() < deadline:
        try:
            health = client.health()
            if not signed_in:
                client.sign_in()
                signed_in = True
            unwell = [name for name, value in health.items() if value not in ("healthy", "None")]
            missing = f"not healthy: {', '.join(unwell)}"
            if not unwell and set(supervisor.process_states(home).values()) <= {"RUNNING", "STARTING"}:
                return True
        except ApiProblem as problem:
            # An Airflow of another home, or another program altogether, answers without knowing our passwords.
            if problem.status in (401, 403, 404, 405):
                return False
        time.sleep(0.25)
    raise StackProblem(f"Airflow is not ready after {HEALTHY_WITHIN} s ({missing}). See the logs in {home / 'logs'}.")


def _make_pool(home: Path) -> None:
    """Make the pool of backfills and re-scoring; one that is there keeps the slots that somebody gave it."""
    pool = {
        "name": BACKFILL_POOL,
        "slots": BACKFILL_SLOTS,
        "description": "Shards of backfills and re-scoring. Half of the local stack, so that hourly scoring has room.",
        "include_deferred": False,
    }
    try:
        api(home).call("POST", "/pools", pool)
    except ApiProblem as problem:
        if problem.status != 409:
            raise


def down(home: Path, *, step: Step = silent) -> bool:
    """Stop everything that runs for this home, orphans of a killed supervisor too. Returns whether anything ran."""
    home = home.resolve()
    if not home.is_dir():
        return False
    state.prepare_home(home)
    with state.lock(home), step("Stopping the local stack"):
        return supervisor.stop(home)


def status(home: Path) -> StackStatus:
    """What runs at the moment, without changing anything."""
    home = home.resolve()
    states = supervisor.process_states(home) if supervisor.find(home) else {}
    postgres = EmbeddedPostgres(home)
    return StackStatus(
        home=home,
        running=bool(states) and set(states.values()) == {"RUNNING"},
        web_url=f"http://{state.LOOPBACK}:{state.ports(home)['web']}" if states else None,
        postgres_port=postgres.port if postgres.running() else None,
        processes=states,
    )


def current_dsn(home: Path | None = None) -> str:
    """The libpq URL of the local database, password included. Raises StackProblem when it is not running."""
    home = (home or settings.home()).resolve()
    postgres = EmbeddedPostgres(home)
    if not postgres.running():
        raise StackProblem(
            f"The local database in {home} is not running. Start it with `make run` or `millrace up`, "
            "or name another database in MILLRACE_DSN."
        )
    return postgres.dsn()


def api(home: Path) -> AirflowApi:
    """Airflow's REST API as the administrator."""
    home = home.resolve()
    url = f"http://{state.LOOPBACK}:{state.ports(home)['web']}"
    return AirflowApi(url, "admin", passwords(home)["admin"])
