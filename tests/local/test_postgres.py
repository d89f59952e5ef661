"""The embedded server, on real servers of its own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from mllib.errors import StackProblem
from mllib.local import state
from mllib.local.postgres import DATABASES, EmbeddedPostgres


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server for the tests that leave it as it is."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("running") / "home", fast=True) as server:
        yield server


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server of the test's own."""
    with EmbeddedPostgres(tmp_path / "home", fast=True) as server:
        yield server


def test_both_databases_take_connections_with_the_password(running: EmbeddedPostgres) -> None:
    for database in DATABASES:
        with psycopg.connect(running.dsn(database)) as connection:
            row = connection.execute(
                "select current_database(), current_setting('server_encoding'), current_setting('jit')"
            ).fetchone()
            assert row == (database, "UTF8", "off")


def test_a_wrong_password_is_refused(running: EmbeddedPostgres) -> None:
    password = state.secret(running.home, "postgres_password")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(running.dsn().replace(password, "wrong"))


def test_it_listens_on_the_loopback_address_only(running: EmbeddedPostgres) -> None:
    with psycopg.connect(running.dsn()) as connection:
        row = connection.execute(
            "select current_setting('listen_addresses'), current_setting('unix_socket_directories')"
        ).fetchone()
    assert row == ("127.0.0.1", "")


def test_the_password_is_readable_by_its_owner_only(running: EmbeddedPostgres) -> None:
    path = running.home / "secrets" / "postgres_password"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_data_survive_a_stop_and_a_kill(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.dsn()) as connection:
        connection.execute("create table kept as select 1 as number")
    postgres.stop()
    assert not postgres.running()
    port = postgres.port
    postgres.start()
    assert postgres.port == port
    first = postgres.postmaster()
    assert first is not None
    first.kill()
    postgres.start()
    second = postgres.postmaster()
    assert second is not None
    assert second.pid != first.pid
    with psycopg.connect(postgres.dsn()) as connection:
        assert connection.execute("select number from kept").fetchone() == (1,)


def test_a_second_start_finds_the_running_server(running: EmbeddedPostgres) -> None:
    other = EmbeddedPostgres(running.home, fast=True)
    other.start()
    assert other.postmaster() == running.postmaster()
    assert other.dsn() == running.dsn()


def test_two_homes_run_side_by_side_and_a_taken_port_is_left(running: EmbeddedPostgres, tmp_path: Path) -> None:
    second = EmbeddedPostgres(tmp_path / "second", fast=True)
    state.prepare_home(second.home)
    state.remember_port(second.home, "postgres", running.port)
    with second:
        assert second.port != running.port
        assert second.postmaster() != running.postmaster()


def test_it_runs_below_a_folder_that_is_closed_to_other_accounts(tmp_path: Path) -> None:
    # As root the server runs as another account, which may not pass through /root or a fresh temporary folder.
    closed = tmp_path / "closed to others"
    closed.mkdir(mode=0o700)
    with EmbeddedPostgres(closed / "home", fast=True) as server:
        assert server.query("millrace", "select 1") == "1"
        process = server.postmaster()
        assert process is not None
        assert process.uids().effective != 0 or os.geteuid() != 0


def test_a_stale_pid_file_is_not_taken_for_a_server(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path)
    postgres.data.mkdir()
    (postgres.data / "postmaster.pid").write_text(f"{os.getpid()}\n")
    assert not postgres.running()


def test_an_interrupted_creation_is_made_good(tmp_path: Path) -> None:
    (tmp_path / "home" / "postgres.new" / "data").mkdir(parents=True)
    with EmbeddedPostgres(tmp_path / "home", fast=True) as server:
        assert server.query("airflow", "select 1") == "1"


def test_a_server_that_cannot_start_says_why(postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    (postgres.data / "postgresql.auto.conf").write_text("shared_preload_libraries = 'no_such_library'\n")
    with pytest.raises(StackProblem, match="no_such_library"):
        postgres.start()


def test_the_user_s_own_connection_defaults_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example.org")
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")
    with EmbeddedPostgres(tmp_path / "home", fast=True) as server:
        assert server.query("millrace", "select 1") == "1"


def test_before_the_first_start_the_error_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(StackProblem, match="make run"):
        EmbeddedPostgres(tmp_path).dsn()
