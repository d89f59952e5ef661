"""Scoring that is killed, stopped, cut off, or loses its server: each row is scored once all the same."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import pytest
from sqlalchemy import Connection, Engine, text

from mllib.errors import DatabaseUnavailable
from mllib.jobs import scoring
from mllib.local.postgres import EmbeddedPostgres
from mllib.store.database import engine_for, transaction
from mllib.store.migrate import migrate
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
    insert_logs,
    make_partitions,
    promote_model,
    scalar,
)
from tests.db.writers import check_book, writing

KILLS = 30

# Waits twice for a word, so that the imports are over and a test can choose its moment. Small shards, so that a kill
# mostly finds some done and one in hand.
SCORER = """
import sys
from mllib.errors import MillraceError
from mllib.jobs import scoring
from mllib.store.database import engine_for
engine = engine_for(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
claimed, _ = scoring.claim(engine, "log_anomaly", sys.argv[2], shard_rows=400)
print("claimed", flush=True)
sys.stdin.readline()
try:
    run = scoring.finish(engine, claimed.run.run_id)
except MillraceError as error:
    sys.exit(str(error))
print(run.state)
"""


class Scorer(subprocess.Popen[str]):
    """A process that claims when it is told to, and scores when it is told to."""

    def __init__(self, dsn: str, run_key: str) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", SCORER, dsn, run_key]
        super().__init__(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def go(self) -> None:
        assert self.stdin is not None
        self.stdin.write("\n")
        self.stdin.flush()

    def says(self, word: str) -> None:
        """Waits for a word."""
        assert self.stdout is not None
        assert self.stdout.readline() == f"{word}\n"

    def claim(self) -> None:
        self.says("ready")
        self.go()
        self.says("claimed")

    def end(self) -> tuple[int, str]:
        """Its exit code, and its last word."""
        output, errors = self.communicate(timeout=60)
        return self.returncode, (errors or output).strip()


@pytest.fixture
def start(dsn: str) -> Iterator[Callable[[str], Scorer]]:
    """Starts a scorer with a run key. None outlives the test, not even one that is stopped."""
    started: list[Scorer] = []

    def start(run_key: str) -> Scorer:
        started.append(Scorer(dsn, run_key))
        return started[-1]

    yield start
    for scorer in started:
        scorer.kill()
        scorer.communicate()


def test_killed_at_random_moments_while_writers_write(engine: Engine, start: Callable[[str], Scorer]) -> None:
    make_partitions(engine)
    promote_model(engine)
    moments = random.Random(11)
    insert_logs(engine, 20_000, step=timedelta(milliseconds=500))
    cut_short, unfinished = 0, 0
    with writing(engine, 8) as book:
        started = deque(start(f"run {number}") for number in range(2))
        for number in range(KILLS):
            scorer = started.popleft()
            # The next but one imports meanwhile.
            if number + 2 < KILLS:
                started.append(start(f"run {number + 2}"))
            scorer.says("ready")
            scorer.go()
            scorer.go()
            time.sleep(moments.uniform(0.05, 0.8))
            scorer.kill()
            scorer.wait()
            cut_short += scorer.returncode == -signal.SIGKILL
            unfinished += scalar(engine, "select count(*) from millrace.scoring_runs where state = 'open'")
    assert cut_short > 20
    assert unfinished > 5
    assert scoring.score(engine, DETECTOR).scored > 0
    assert len(book.committed) > 2_000
    book.committed.extend(range(1, 20_001))
    check_book(engine, book)
    check_accounts(engine)


@pytest.mark.parametrize(
    ("table", "mode", "kept"),
    [
        ("logs", "access exclusive", 0),  # reading
        ("prediction_hours", "access exclusive", 0),  # predictions copied in
        ("scoring_shards", "share", 0),  # about to note the shard as done
        ("scoring_runs", "share", 3_000),  # all shards in, about to publish
    ],
)
def test_killed_at_a_chosen_moment(
    engine: Engine, start: Callable[[str], Scorer], champion: int, table: str, mode: str, kept: int
) -> None:
    """The predictions of a shard and the ledger's word for it are there together, or neither is."""
    insert_logs(engine, 3_000)
    scorer = start("killed")
    scorer.claim()
    with _holding(engine, table, mode) as holder:
        scorer.go()
        _wait_for_lock(holder)
        scorer.kill()
        scorer.wait()
        assert holder.execute(text("select count(*) from millrace.predictions")).scalar_one() == kept
    assert scoring.score(engine, DETECTOR).scored == 3_000
    check_accounts(engine)


# A server that is restarted in mid-run


@pytest.fixture
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of the test's own that writes through to the disk."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("durable")) as postgres:
        yield postgres


def test_the_server_is_restarted_in_mid_run(durable: EmbeddedPostgres) -> None:
    engine = engine_for(durable.dsn())
    migrate(engine)
    make_partitions(engine)
    promote_model(engine)
    modes: list[Literal["fast", "immediate"]] = ["fast", "immediate", "immediate", "fast"]
    with writing(engine, 8, outlive_server=True) as book, ThreadPoolExecutor(1) as pool:
        for mode in modes:
            insert_logs(engine, 500)
            with _holding(engine, "prediction_hours") as holder:
                interrupted = pool.submit(scoring.score, engine, DETECTOR)
                _wait_for_lock(holder)  # its predictions are copied in, not committed
                durable.stop(mode)
            with pytest.raises(DatabaseUnavailable):
                interrupted.result()
            durable.start()
            assert scoring.score(engine, DETECTOR).scored >= 500
    scoring.score(engine, DETECTOR)
    book.committed.extend(_ids_besides(engine, len(modes) * 500, book.committed + book.cut_off))
    check_book(engine, book)
    check_accounts(engine)
    engine.dispose()


# A process that is stopped, and goes on late


def test_stopped_after_the_claim_while_others_finish(
    engine: Engine, start: Callable[[str], Scorer], champion: int
) -> None:
    insert_logs(engine, 3_000)
    scorer = start("stopped")
    scorer.claim()
    scorer.send_signal(signal.SIGSTOP)
    report = scoring.score(engine, DETECTOR)
    assert (report.claimed, report.scored) == (3_000, 3_000)
    insert_logs(engine, 500, first=9)
    assert scoring.score(engine, DETECTOR).scored == 500
    scorer.send_signal(signal.SIGCONT)
    scorer.go()
    assert scorer.end() == (0, "done")
    check_accounts(engine)


def test_stopped_with_a_shard_in_hand(engine: Engine, start: Callable[[str], Scorer], champion: int) -> None:
    """Others wait for it; when it goes on it finishes its shard, and they find it done."""
    scorer, other = _stopped_in_mid_shard(engine, start)
    scorer.send_signal(signal.SIGCONT)
    assert scorer.end() == (0, "done")
    assert other.result().scored == 3_000
    check_accounts(engine)


def test_stopped_with_a_shard_in_hand_and_taken_for_dead(
    engine: Engine, start: Callable[[str], Scorer], champion: int
) -> None:
    """Somebody ends its session, another run scores its shard, and then it goes on."""
    scorer, other = _stopped_in_mid_shard(engine, start)
    with transaction(engine) as conn:
        holders = "select pg_terminate_backend(unnest(pg_blocking_pids(pid))) from pg_stat_activity"
        ended = conn.execute(text(f"{holders} where query like '%millrace.scoring_shards%'")).scalars().all()
    assert ended == [True]
    assert other.result().scored == 3_000
    check_accounts(engine)
    scorer.send_signal(signal.SIGCONT)
    code, said = scorer.end()
    assert code == 1
    assert "broke: " in said
    assert "Traceback" not in said
    check_accounts(engine)


def _stopped_in_mid_shard(engine: Engine, start: Callable[[str], Scorer]) -> tuple[Scorer, Future[scoring.ScoreReport]]:
    """A scorer stopped after it wrote a shard and before it committed it, and a run that waits for that shard."""
    insert_logs(engine, 3_000)
    scorer = start("stopped")
    scorer.claim()
    with _holding(engine, "prediction_hours") as holder:
        scorer.go()
        _wait_for_lock(holder)
        scorer.send_signal(signal.SIGSTOP)
    pool = ThreadPoolExecutor(1)
    other = pool.submit(scoring.score, engine, DETECTOR)
    pool.shutdown(wait=False)
    with engine.connect() as watcher:
        _wait_for_lock(watcher)
    assert not other.done()
    assert scalar(engine, "select count(*) from millrace.predictions") == 0
    return scorer, other


@pytest.mark.parametrize(
    "cut", ['copy (select "log_id"%', "insert into millrace.prediction_hours%"], ids=["reader", "writer"]
)
def test_cut_off_from_the_database_in_mid_shard(engine: Engine, champion: int, cut: str) -> None:
    insert_logs(engine, 3_000)
    claimed, _ = scoring.claim(engine, DETECTOR, "k")
    table = "logs" if cut.startswith("copy") else "prediction_hours"
    with ThreadPoolExecutor(1) as pool, _holding(engine, table) as holder:
        scored = pool.submit(scoring.finish, engine, claimed.run.run_id)
        victim = _wait_for_lock(holder, cut)
        holder.execute(text("select pg_terminate_backend(:pid)"), {"pid": victim})
        with pytest.raises(DatabaseUnavailable, match="run the same again") as raised:
            scored.result()
    assert "\n" not in str(raised.value)
    assert engine.url.password is not None
    assert engine.url.password not in str(raised.value)
    assert scalar(engine, "select count(*) from millrace.predictions") == 0
    assert scoring.score(engine, DETECTOR).scored == 3_000
    check_accounts(engine)


@contextmanager
def _holding(engine: Engine, table: str, mode: str = "access exclusive") -> Iterator[Connection]:
    """Holds others off a table until the block is left, or the server gone."""
    conn = engine.connect()
    try:
        conn.execute(text(f"lock table millrace.{table} in {mode} mode"))
        yield conn
    finally:
        conn.invalidate()


def _wait_for_lock(conn: Connection, query: str = "%") -> int:
    """The process number of a session of this database that waits for a lock with such a query, once there is one."""
    waiting = text(
        "select pid from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock' and query like :query and query not like '%into millrace.logs%'"
    )
    deadline = time.monotonic() + 60
    while (pid := conn.execute(waiting, {"query": query}).scalars().first()) is None:
        assert time.monotonic() < deadline, f"no session waits for a lock with {query}"
        conn.execute(text("select pg_stat_clear_snapshot()"))
        time.sleep(0.01)
    return int(pid)


def _ids_besides(engine: Engine, n: int, ids: list[int]) -> list[int]:
    """The ids of the ``n`` rows of logs that the test itself inserted."""
    with transaction(engine) as conn:
        found = conn.execute(text("select log_id from millrace.logs where log_id <> all(:ids)"), {"ids": ids})
        others = list(found.scalars())
    assert len(others) == n
    return others
