"""What the local stack writes, chooses and finds, short of starting Airflow."""

from __future__ import annotations

import configparser
import multiprocessing
import os
import shlex
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mllib.errors import StackProblem
from mllib.local import environment, stack, state, supervisor
from mllib.local.summary import plain


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with all ports chosen, at a path with a blank and a percent sign in it."""
    folder = tmp_path / "a home 100%"
    state.prepare_home(folder)
    for name in ("postgres", "control"):
        state.choose_port(folder, name, None)
    state.choose_port(folder, "web", 18_080)
    return folder


def _sections(home: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(supervisor.configuration(home))
    return parser


def test_postgres_starts_first_and_stops_last(home: Path) -> None:
    sections = _sections(home)
    assert int(sections["program:postgres"]["priority"]) < int(sections["group:airflow"]["priority"])
    assert sections["program:postgres"]["stopsignal"] == "INT"
    assert set(sections["group:airflow"]["programs"].split(",")) == set(supervisor.AIRFLOW)


def test_every_process_is_restarted_and_its_log_is_rotated(home: Path) -> None:
    sections = _sections(home)
    for name in ("postgres", *supervisor.AIRFLOW):
        program = sections[f"program:{name}"]
        assert program["autorestart"] == "true"
        assert program["stdout_logfile_maxbytes"] == "10MB"
    for name in supervisor.AIRFLOW:
        assert sections[f"program:{name}"]["stopasgroup"] == "true"


def test_a_path_with_blanks_and_percent_signs_survives_the_configuration(home: Path) -> None:
    command = _sections(home)["program:postgres"]["command"]
    assert str(home / "postgres") in shlex.split(command.replace("%%", "%"))


def test_everything_listens_on_the_loopback_address(home: Path) -> None:
    assert _sections(home)["inet_http_server"]["port"].startswith("127.0.0.1:")
    assert "--host 127.0.0.1" in " ".join(supervisor.airflow_command("api-server", 8080))
    for name in ("scheduler", "triggerer"):
        assert "--skip-serve-logs" in supervisor.airflow_command(name, 8080)


def test_the_environment_points_at_this_home_and_not_at_the_caller_s_airflow(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "True")
    monkeypatch.setenv("AIRFLOW_HOME", "/elsewhere")
    monkeypatch.setenv("AIRFLOW_CONN_SLACK", "slack://kept")
    monkeypatch.setenv("MILLRACE_DSN", "postgresql://elsewhere/db")
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv("no_proxy", "example.org")
    found = environment.stack_environment(home)
    assert found["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert found["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
    assert found["AIRFLOW_HOME"] == str(home / "airflow")
    assert found["AIRFLOW_CONN_SLACK"] == "slack://kept"
    assert found["MILLRACE_DSN"] == found["AIRFLOW_CONN_MILLRACE"]
    assert f":{state.ports(home)['postgres']}/millrace" in found["MILLRACE_DSN"]
    assert "PGHOST" not in found
    assert found["no_proxy"].split(",") == ["example.org", "127.0.0.1", "localhost"]


def test_secrets_are_private_stay_the_same_and_differ_between_homes(home: Path, tmp_path: Path) -> None:
    first = environment.stack_environment(home)
    assert first == environment.stack_environment(home)
    for path in (home / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = tmp_path / "other"
    state.prepare_home(other)
    for name in ("postgres", "web", "control"):
        state.choose_port(other, name, None)
    second = environment.stack_environment(other)
    for name in ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY"):
        assert first[name] != second[name]
    assert environment.passwords(home).keys() == environment.USERS.keys()
    assert environment.passwords(home)["admin"] != environment.passwords(other)["admin"]


def test_a_taken_port_moves_on_and_a_chosen_one_is_remembered(tmp_path: Path) -> None:
    state.prepare_home(tmp_path / "home")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        chosen = state.choose_port(tmp_path / "home", "web", taken)
    assert chosen > taken
    assert state.ports(tmp_path / "home") == {"web": chosen}


def test_two_uses_never_share_a_port(tmp_path: Path) -> None:
    state.prepare_home(tmp_path / "home")
    first = state.choose_port(tmp_path / "home", "web", 18_080)
    assert state.choose_port(tmp_path / "home", "control", first) != first


def _hold(home: Path, held: object, release: object) -> None:
    with state.lock(home):
        held.set()  # type: ignore[attr-defined]
        release.wait(30)  # type: ignore[attr-defined]


def test_a_second_command_waits_for_the_first(tmp_path: Path) -> None:
    state.prepare_home(tmp_path / "home")
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "home", held, release))
    other.start()
    assert held.wait(30)
    said: list[str] = []

    def waiting() -> None:
        said.append("waiting")
        release.set()

    with state.lock(tmp_path / "home", waiting):
        assert said == ["waiting"]
    other.join()


def _sleeper(home: Path, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)"],
        env={**os.environ, environment.MARKER: str(home), environment.PROCESS: name},
        stdout=subprocess.PIPE,
    )


def test_stop_ends_the_orphans_of_this_home_and_of_no_other(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for home in (ours, theirs):
        state.prepare_home(home)
    orphan, stranger = _sleeper(ours, "scheduler"), _sleeper(theirs, "scheduler")
    with orphan, stranger:
        for child in (orphan, stranger):
            assert child.stdout is not None
            child.stdout.readline()
        assert [process.pid for process in supervisor.processes(ours)] == [orphan.pid]
        assert supervisor.stop(ours)
        orphan.wait(30)
        assert psutil.pid_exists(stranger.pid)
        assert stranger.poll() is None
        stranger.kill()
    assert not supervisor.stop(ours)


def test_a_restarted_program_ends_what_its_predecessor_left_and_spares_the_others(tmp_path: Path) -> None:
    state.prepare_home(tmp_path / "home")
    old, other = _sleeper(tmp_path / "home", "scheduler"), _sleeper(tmp_path / "home", "triggerer")
    with old, other:
        for child in (old, other):
            assert child.stdout is not None
            child.stdout.readline()
        program = [sys.executable, "-c", f"import os; print(os.environ['{environment.PROCESS}'])"]
        started = subprocess.run(
            [sys.executable, "-m", "mllib.local.supervisor", "scheduler", *program],
            env={**os.environ, environment.MARKER: str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert started.stdout.strip() == "scheduler"
        old.wait(30)
        assert other.poll() is None
        other.kill()


def test_without_a_stack_status_is_down_and_the_database_says_how_to_start(tmp_path: Path) -> None:
    status = stack.status(tmp_path)
    assert not status.running
    assert status.web_url is None
    assert "make run" in str(status)
    assert not stack.down(tmp_path)
    with pytest.raises(StackProblem, match="make run"):
        stack.current_dsn(tmp_path)


def test_log_text_cannot_steer_the_terminal() -> None:
    assert plain("red \x1b[31m alert\r\nnext\x00line", 70) == "red [31m alert next line"
    assert plain("x" * 100, 10) == "x" * 9 + "…"
    assert plain(None) == ""
