"""The environment that Airflow's processes get: every setting of the local stack in one place."""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path

from mllib import settings
from mllib.local import state
from mllib.local.postgres import EmbeddedPostgres

MARKER = "MILLRACE_STACK"
"""Carried by every process of a stack, with its home folder as the value: how orphans are told from strangers."""

PROCESS = "MILLRACE_PROCESS"
"""Carried next to it: the name of the supervised process that this one belongs to."""

USERS = {"admin": "admin", "analyst": "viewer"}


def stack_environment(home: Path) -> dict[str, str]:
    """All variables for the processes of the stack in ``home``, whose ports must have been chosen."""
    postgres = EmbeddedPostgres(home)
    web = state.ports(home)["web"]
    return {
        **_inherited(),
        MARKER: str(home),
        # Airflow renames its processes; without this the renaming would wipe out the marker.
        "SPT_NOENV": "1",
        "MILLRACE_HOME": str(home),
        # What the command line asks for by itself, see mllib.memory: after Airflow's imports it would be too late.
        "MALLOC_ARENA_MAX": "1",
        # Airflow's own, when it reads plugins/.airflowignore; otherwise it would be in the log of every task.
        "PYTHONWARNINGS": "ignore:GitWildMatchPattern:DeprecationWarning",
        # The DAG files share a module, imported as dags.common.
        "PYTHONPATH": str(settings.PROJECT),
        "MILLRACE_DSN": postgres.dsn(),
        "AIRFLOW_CONN_MILLRACE": postgres.dsn(),
        "AIRFLOW_HOME": str(home / "airflow"),
        **{f"AIRFLOW__{name}": value for name, value in _airflow_settings(home, postgres, web).items()},
    }


def _inherited() -> dict[str, str]:
    """The caller's environment without what would change the stack behind its back.

    Connections and variables for the user's own DAGs (``AIRFLOW_CONN_...``, ``AIRFLOW_VAR_...``) stay.
    """
    unwanted = ("AIRFLOW__", "AIRFLOW_HOME", "AIRFLOW_CONFIG", "PYTHON", "PG", "MAKE", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    # A proxy for the internet must not catch what the processes say to each other.
    local = ",".join(filter(None, [kept.get("no_proxy") or kept.get("NO_PROXY"), state.LOOPBACK, "localhost"]))
    programs = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return {**kept, "PATH": programs, "PYTHONUTF8": "1", "no_proxy": local, "NO_PROXY": local}


def _airflow_settings(home: Path, postgres: EmbeddedPostgres, web: int) -> dict[str, str]:
    return {
        "CORE__DAGS_FOLDER": str(settings.PROJECT / "dags"),
        "CORE__PLUGINS_FOLDER": str(settings.PROJECT / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",
        # `make run` starts them once there is something to do; from then on they go on by themselves.
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "CORE__FERNET_KEY": state.secret(home, "fernet_key", state.fernet_key),
        "CORE__EXECUTION_API_SERVER_URL": f"http://{state.LOOPBACK}:{web}/execution/",
        # The default looks the host up in the DNS, which takes seconds on a machine without one.
        "CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(_passwords_file(home)),
        "DATABASE__SQL_ALCHEMY_CONN": postgres.dsn("airflow").replace("postgresql://", "postgresql+psycopg://", 1),
        "API__HOST": state.LOOPBACK,
        "API__PORT": str(web),
        "API__WORKERS": "1",
        "API__SECRET_KEY": state.secret(home, "api_secret"),
        "API_AUTH__JWT_SECRET": state.secret(home, "jwt_secret", lambda: secrets.token_urlsafe(64)),
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs" / "tasks"),
        "LOGGING__COLORED_CONSOLE_LOG": "False",
        "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(home / "logs" / "dag-files"),
        # New and changed DAG files show within seconds instead of five minutes.
        "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "DAG_PROCESSOR__STALE_BUNDLE_CLEANUP_INTERVAL": "0",
        "DAG_PROCESSOR__PRINT_STATS_INTERVAL": "300",
        "METRICS__STATSD_ON": "False",
        "SENTRY__SENTRY_ON": "False",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def passwords(home: Path) -> dict[str, str]:
    """The generated passwords of Airflow's users, by name."""
    return {str(name): str(value) for name, value in json.loads(_passwords_file(home).read_text()).items()}


def _passwords_file(home: Path) -> Path:
    path = home / "secrets" / "passwords.json"
    if not path.exists():
        state.write_private(path, json.dumps({name: state.secret(home, f"password_{name}") for name in USERS}))
    return path
