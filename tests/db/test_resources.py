"""A server without room, time or connections, and a line that is cut: a clear word, then a clean resume."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from mllib.errors import DatabaseUnavailable
from mllib.jobs import scoring
from mllib.local.account import server_account
from mllib.local.postgres import EmbeddedPostgres
from mllib.store import partitions
from mllib.store.database import engine_for, transaction
from mllib.store.migrate import migrate
from mllib.types import Window
from tests.db.cutting_proxy import proxy_before
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
    insert_logs,
    make_partitions,
    promote_model,
    scalar,
    unscored,
)
from tests.db.test_cli import millrace
from tests.factories import START

ROWS = 20_000
MIB = 2**20
FILLER = (
    "insert into millrace.predictions (ts, log_id, run_id, model_version, score, raw_score, detector_id, severity,"
    " is_anomaly) select '2026-03-02 08:00+00', i, 0, 1, 0, 0, 99, 0, false from generate_series(1, 400000) as i"
)
FILE_LIMIT = 17 * MIB  # a segment of WAL is a file of 16 MiB


def refused(dsn: str) -> str:
    """What `millrace score` says when it fails: a sentence or two on one line, without a traceback or a password."""
    done = millrace("score", DETECTOR, dsn=dsn)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("millrace: ")
    assert said.endswith((".", "`"))
    assert "Traceback" not in done.stderr
    password = make_url(dsn).password
    assert password is not None
    assert password not in done.stderr
    return said


def resumed(dsn: str, engine: Engine) -> None:
    """Once there is room again, the same command goes on, and no row is missing or doubled."""
    done = millrace("score", DETECTOR, dsn=dsn)
    assert done.returncode == 0, done.stderr
    assert unscored(engine) == []
    check_accounts(engine)


# A disk that fills up


class OnSmallDisk(EmbeddedPostgres):
    """A server that sees a file system of its own, of 24 MiB, which is gone when it ends."""

    @property
    def disk(self) -> Path:
        return self.home / "small"

    def command(self) -> list[str]:
        options = f"size=24m,mode=700,uid={server_account().pw_uid}"
        mounted = f"mount -t tmpfs -o {options} small '{self.disk}' && exec \"$@\""
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounted, "sh", *super().command()]


@contextmanager
def full_file_system(home: Path) -> Iterator[tuple[Engine, Callable[[], None]]]:
    """New partitions lie on a small file system that something else has filled, until that is removed."""
    (home / "small").mkdir()
    with OnSmallDisk(home, fast=True) as postgres:
        engine = engine_for(postgres.dsn())
        prepare(engine)
        _outside_transaction(
            engine,
            f"create tablespace small location '{postgres.disk}'",
            "create table ballast (t text) tablespace small",
        )
        for parent in (partitions.PREDICTIONS, partitions.HISTORY):
            move = f"alter table millrace.{parent}_{START:%Y%m%d} set tablespace small"
            _outside_transaction(engine, move)
        with pytest.raises(DBAPIError, match="No space left on device"):
            # A failed statement gives none of the room back, until a vacuum does.
            _outside_transaction(engine, "insert into ballast select repeat('x', 800) from generate_series(1, 100000)")
        yield engine, lambda: _outside_transaction(engine, "drop table ballast", "checkpoint")


class WithLimitedFiles(EmbeddedPostgres):
    """A server that may not let a file grow beyond a limit, as an account with a quota."""

    limited = True

    def command(self) -> list[str]:
        return [*(["prlimit", f"--fsize={FILE_LIMIT}:", "--"] if self.limited else []), *super().command()]


@contextmanager
def limited_files(home: Path) -> Iterator[tuple[Engine, Callable[[], None]]]:
    """The partition of the predictions is a file near the limit, until the server is started without one."""
    with WithLimitedFiles(home, fast=True) as postgres:
        engine = engine_for(postgres.dsn())
        prepare(engine)
        _outside_transaction(
            engine, f"alter table millrace.predictions_{START:%Y%m%d} set (autovacuum_enabled = false)"
        )
        with pytest.raises(DBAPIError, match="File too large"):
            # A failed statement gives none of the room back, until a vacuum does.
            _outside_transaction(engine, FILLER)

        def make_room() -> None:
            postgres.stop()
            postgres.limited = False
            postgres.start()

        yield engine, make_room


def _may_mount() -> bool:
    """Whether this account may give a server a file system of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    tried = ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tried", "/mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


Disk = Callable[[Path], AbstractContextManager[tuple[Engine, Callable[[], None]]]]
DISKS: dict[str, tuple[Disk, str]] = {
    "limited files": (limited_files, "File too large. The server met a fault of its own"),
}
if _may_mount():
    DISKS["full file system"] = (full_file_system, "No space left on device. The disk of the database is full")


@pytest.mark.parametrize(("disk", "word"), DISKS.values(), ids=DISKS)
def test_the_disk_fills_up(disk: Disk, word: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with disk(tmp_path_factory.mktemp("full")) as (engine, make_room):
        insert_logs(engine, ROWS)
        dsn = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        assert word in refused(dsn)
        assert scalar(engine, "select count(*) from millrace.predictions") == 0
        assert word in refused(dsn)
        make_room()
        resumed(dsn, engine)


def prepare(engine: Engine) -> None:
    migrate(engine)
    make_partitions(engine)
    promote_model(engine)
    for parent in (partitions.PREDICTIONS, partitions.HISTORY):
        partitions.ensure(engine, parent, [START.date()])


def _outside_transaction(engine: Engine, *statements: str) -> None:
    own = create_engine(engine.url, isolation_level="AUTOCOMMIT")
    try:
        with own.connect() as conn:
            for statement in statements:
                conn.execute(text(statement))
    finally:
        own.dispose()


# A line that is cut


def test_the_line_is_cut(engine: Engine, dsn: str, champion: int) -> None:
    insert_logs(engine, ROWS)
    with proxy_before(dsn) as (proxy, through):
        proxy.arm(after=2 * MIB)  # in the middle of a shard
        assert "broke: " in refused(through)
        assert proxy.cuts == 1
        assert scalar(engine, "select count(*) from millrace.predictions") == 0
        resumed(through, engine)


def test_wherever_the_line_is_cut(engine: Engine, dsn: str, champion: int) -> None:
    """Every eighth or so of a run, from the first byte to the last: also in mid-claim, and around each commit."""
    insert_logs(engine, 1_000)
    window = Window(START.replace(minute=5), START.replace(minute=10))
    with proxy_before(dsn) as (proxy, through):
        cut_off = engine_for(through)
        proxy.arm(after=None)
        scoring.score(cut_off, DETECTOR)
        bytes_of_a_run = proxy.passed
        failed = 0
        for number in range(40):
            insert_logs(engine, 1_000, start=START.replace(minute=number), first=number)
            cut_off.dispose()
            proxy.arm(after=1 + number * bytes_of_a_run // 40)
            try:
                scoring.score(cut_off, DETECTOR, window=window if number % 3 == 0 else None)
            except DatabaseUnavailable:
                failed += 1
        cut_off.dispose()
        assert failed > 20
    while scoring.score(engine, DETECTOR).claimed:
        pass
    assert unscored(engine) == []
    check_accounts(engine, ever=scalar(engine, "select sum(claimed) from millrace.scoring_runs"))


# A server without patience, or without connections


def test_a_statement_takes_too_long(engine: Engine, dsn: str, champion: int) -> None:
    insert_logs(engine, 1_000)
    role = f"hasty_{uuid.uuid4().hex[:8]}"
    with login(engine, role, "connection limit 10") as hasty:
        for table in ("logs", "prediction_hours"):  # in the claim, and at the end of a shard
            with transaction(engine) as conn:
                conn.execute(text(f"lock table millrace.{table} in access exclusive mode"))
                _outside_transaction(engine, f"alter role {role} set statement_timeout = '2s'")
                assert "statement timeout. The statement was stopped by the server's" in refused(hasty)
            assert scalar(engine, "select count(*) from millrace.predictions") == 0
        assert scalar(engine, "select count(*) from millrace.scoring_runs where state = 'open'") == 1
        resumed(hasty, engine)


@pytest.mark.parametrize("connections", [0, 1, 2])
def test_too_many_connections(engine: Engine, champion: int, connections: int) -> None:
    insert_logs(engine, 1_000)
    role = f"one_of_many_{uuid.uuid4().hex[:8]}"
    with login(engine, role, f"connection limit {connections}") as crowded:
        assert "has no connection left for us: " in refused(crowded)
        assert scalar(engine, "select count(*) from millrace.predictions") == 0
        _outside_transaction(engine, f"alter role {role} connection limit 3")
        resumed(crowded, engine)


@contextmanager
def login(engine: Engine, role: str, limits: str) -> Iterator[str]:
    """A connection string of a new role with the rights of the owner. Limits do not hold for superusers."""
    _outside_transaction(
        engine,
        f"create role {role} login password 'a-test-s-own' {limits}",
        f'grant "{engine.url.username}" to {role}',
    )
    try:
        url = engine.url.set(drivername="postgresql", username=role, password="a-test-s-own")
        yield url.render_as_string(hide_password=False)
    finally:
        _outside_transaction(
            engine,
            f'reassign owned by {role} to "{engine.url.username}"',
            f"drop owned by {role}",
            f"drop role {role}",
        )
