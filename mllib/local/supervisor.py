"""The process manager: supervisord, its generated configuration, and the end of processes that it left behind.

Run as a module (``python -m mllib.local.supervisor NAME PROGRAM ARGUMENT...``) it is what supervisord starts: it ends
what an earlier, killed instance of that program left running, and then becomes the program.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from mllib.errors import StackProblem
from mllib.local import state
from mllib.local.environment import MARKER, PROCESS, stack_environment
from mllib.local.postgres import EmbeddedPostgres, alive

SUPERVISOR = "supervisor"
AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer")


def airflow_command(name: str, web: int) -> list[str]:
    """The command line of one of Airflow's processes."""
    arguments = {
        "api-server": ["--host", state.LOOPBACK, "--port", str(web), "--workers", "1"],
        # Task logs are read from the files themselves; the log servers would listen on every address.
        "scheduler": ["--skip-serve-logs"],
        "dag-processor": [],
        "triggerer": ["--skip-serve-logs"],
    }
    return [sys.executable, "-m", "airflow", name, *arguments[name]]


def configuration(home: Path) -> str:
    """The text of supervisord's configuration for this home, whose ports must have been chosen.

    PostgreSQL starts first and stops last. Airflow's processes do not start by themselves: the database has to be
    migrated before the first start.
    """
    ports = state.ports(home)
    password = state.secret(home, "control_password", secrets.token_hex)
    sections: list[tuple[str, dict[str, object]]] = [
        (
            "inet_http_server",
            {"port": f"{state.LOOPBACK}:{ports['control']}", "username": "millrace", "password": password},
        ),
        (
            "supervisord",
            {
                "nodaemon": "true",
                "silent": "true",
                "umask": "077",
                "directory": home,
                "logfile": home / "logs" / "supervisor.log",
                "logfile_maxbytes": "5MB",
                "logfile_backups": "2",
                "pidfile": home / "run" / "supervisord.pid",
                "childlogdir": home / "logs",
                **({"user": "root"} if os.geteuid() == 0 else {}),
            },
        ),
        (
            "rpcinterface:supervisor",
            {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        ),
        (
            "program:postgres",
            {
                **_program(home, "postgres", EmbeddedPostgres(home).command()),
                "priority": "1",
                "autostart": "true",
                "startsecs": "1",
                "stopsignal": "INT",  # PostgreSQL's fast shutdown
                "stopwaitsecs": "60",
            },
        ),
        # One group, so that the four stop together and before PostgreSQL.
        ("group:airflow", {"programs": ",".join(AIRFLOW), "priority": "10"}),
        *(
            (
                f"program:{name}",
                {
                    **_program(home, name, _launcher(name, airflow_command(name, ports["web"]))),
                    "autostart": "false",
                    "startsecs": "5",
                    "stopsignal": "TERM",
                    "stopasgroup": "true",
                    "killasgroup": "true",
                    "stopwaitsecs": "20",
                },
            )
            for name in AIRFLOW
        ),
    ]
    # A percent sign would start one of supervisord's own substitutions.
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {str(value).replace('%', '%%')}\n" for key, value in values.items())
        for section, values in sections
    )


def _launcher(name: str, command: list[str]) -> list[str]:
    return [sys.executable, "-m", "mllib.local.supervisor", name, *command]


def _program(home: Path, name: str, command: list[str]) -> dict[str, object]:
    return {
        "command": shlex.join(command),
        "autorestart": "true",
        # A second longer after each failure in a row: this goes on for about two hours.
        "startretries": "120",
        "redirect_stderr": "true",
        "stdout_logfile": home / "logs" / f"{name}.log",
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": "2",
    }


def start(home: Path) -> None:
    """Start supervisord, and with it PostgreSQL, detached from the calling terminal; return when it answers."""
    state.write_private(home / "run" / "supervisord.conf", configuration(home))
    with (home / "logs" / "supervisor.err").open("wb") as log:
        # Its own session and none of our files: the prompt returns, and a caller that reads our output sees its end.
        child = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(home / "run" / "supervisord.conf")],
            cwd=home,
            env={**stack_environment(home), PROCESS: SUPERVISOR},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 30
    while not answers(home):
        if child.poll() is not None or time.monotonic() > deadline:
            said = (home / "logs" / "supervisor.err").read_text(errors="replace").strip().splitlines()[-3:]
            raise StackProblem(f"The supervisor of the local stack did not start: {' | '.join(said) or 'no message'}")
        time.sleep(0.05)
    # It goes on without us; collecting it is not our business, and an unread exit status not worth a warning.
    child.returncode = 0


@contextlib.contextmanager
def _control(home: Path) -> Iterator[Any]:
    password = state.secret(home, "control_password", secrets.token_hex)
    address = f"http://millrace:{password}@{state.LOOPBACK}:{state.ports(home)['control']}/RPC2"
    with xmlrpc.client.ServerProxy(address) as server:
        yield server.supervisor


def answers(home: Path) -> bool:
    """Whether this home's supervisord takes orders."""
    try:
        with _control(home) as control:
            return bool(control.getState()["statename"] == "RUNNING")
    except (OSError, KeyError, xmlrpc.client.Error, xmlrpc.client.ProtocolError):
        return False


def start_airflow(home: Path, names: tuple[str, ...] = AIRFLOW) -> None:
    """Ask for the named processes to be started, those that are not running; return without waiting for them."""
    states = process_states(home)
    with _control(home) as control:
        for name in names:
            if states.get(name) not in ("RUNNING", "STARTING"):
                control.startProcess(f"airflow:{name}", False)


def process_states(home: Path) -> dict[str, str]:
    """The state of each supervised process in supervisord's words, such as RUNNING. Empty when it is down."""
    try:
        with _control(home) as control:
            return {entry["name"]: entry["statename"] for entry in control.getAllProcessInfo()}
    except (OSError, KeyError, xmlrpc.client.Error):
        return {}


def processes(home: Path) -> list[psutil.Process]:
    """Every process of this home's stack but PostgreSQL's, found by the marker in its environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            # PostgreSQL has a way to be stopped of its own, and must never be killed on the way.
            if process.pid != os.getpid() and process.name() != "postgres" and _carries(process, MARKER, str(home)):
                found.append(process)
    return found


def find(home: Path) -> psutil.Process | None:
    """This home's supervisord, if it runs. A stale pid file and a reused pid count as none."""
    try:
        process = psutil.Process(int((home / "run" / "supervisord.pid").read_text()))
    except (OSError, ValueError, psutil.Error):
        return None
    ours = _carries(process, MARKER, str(home)) and _carries(process, PROCESS, SUPERVISOR)
    return process if ours and alive(process) else None


def _carries(process: psutil.Process, name: str, value: str) -> bool:
    try:
        return bool(process.environ().get(name) == value)
    except (psutil.Error, OSError):
        return False


def end(leftovers: list[psutil.Process], seconds: float) -> None:
    """Ask processes to end, and kill those that are still there after ``seconds``."""
    for process in leftovers:
        _signal(process, kill=False)
    for process in _wait(leftovers, seconds):
        _signal(process, kill=True)
    _wait(leftovers, 10)


def _wait(leftovers: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for the end of processes; those that go on regardless are returned.

    Unlike psutil's own it takes a process that nobody collects for ended: not every container's first process does.
    """
    deadline = time.monotonic() + seconds
    while remaining := [process for process in leftovers if alive(process)]:
        if time.monotonic() > deadline:
            return remaining
        time.sleep(0.05)
    return []


def _signal(process: psutil.Process, *, kill: bool) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill() if kill else process.terminate()


def stop(home: Path, seconds: float = 90) -> bool:
    """End the stack: supervisord with its children in order, then whatever is left. Returns whether anything ran."""
    supervisor = find(home)
    if supervisor is not None:
        _signal(supervisor, kill=False)
        _wait([supervisor], seconds)
    leftovers = processes(home)
    end(leftovers, 8)
    postgres = EmbeddedPostgres(home)
    was_running = postgres.running()
    postgres.stop()
    return supervisor is not None or bool(leftovers) or was_running


def become(name: str, command: list[str]) -> None:
    """Replace this process by ``command``, after ending what a killed instance of the same name left behind."""
    home = Path(os.environ[MARKER])
    end([process for process in processes(home) if _carries(process, PROCESS, name)], 5)
    os.environ[PROCESS] = name
    os.execv(command[0], command)  # noqa: S606 - our own command line, without a shell


if __name__ == "__main__":
    become(sys.argv[1], sys.argv[2:])
