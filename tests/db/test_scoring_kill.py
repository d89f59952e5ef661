"""Scoring that is killed, cut off from its database, or run beside busy writers: each row is scored once."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from mllib.errors import DatabaseUnavailable
from mllib.jobs import scoring
from mllib.store.database import engine_for, transaction
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
    insert_logs,
    make_partitions,
    promote_model,
    rows,
    scalar,
    unscored,
)
from tests.factories import START

KILLS = 12

# Small shards, so that a kill mostly finds some done and one in hand. The line says that the imports are over.
SCORER = """
import sys
from mllib.jobs import scoring
from mllib.store.database import engine_for
engine = engine_for(sys.argv[1])
print("scoring", flush=True)
claimed, _ = scoring.claim(engine, "log_anomaly", sys.argv[2], shard_rows=400)
scoring.finish(engine, claimed.run.run_id)
"""


def test_killed_at_random_moments(engine: Engine, dsn: str) -> None:
    make_partitions(engine)
    promote_model(engine)
    total = len(insert_logs(engine, 30_000, step=timedelta(milliseconds=500)))
    moments = random.Random(11)
    cut_short = 0
    for number in range(KILLS):
        with subprocess.Popen([sys.executable, "-c", SCORER, dsn, f"run {number}"], stdout=subprocess.PIPE) as scorer:
            assert scorer.stdout is not None
            assert scorer.stdout.readline() == b"scoring\n"
            time.sleep(moments.uniform(0, 0.4))
            scorer.kill()
        cut_short += scorer.returncode != 0
        total += len(insert_logs(engine, 500, start=START + timedelta(minutes=number), first=number))
    assert cut_short >= 10
    assert scalar(engine, "select count(*) from millrace.predictions") < total
    report = scoring.score(engine, DETECTOR)
    assert report.scored >= 500
    assert scalar(engine, "select count(*) from millrace.logs") == total
    assert unscored(engine) == []
    check_accounts(engine)


@pytest.mark.parametrize(
    "cut", ["copy (select log_id%", "insert into millrace.prediction_hours%"], ids=["reader", "writer"]
)
def test_cut_off_from_the_database_in_mid_shard(engine: Engine, cut: str) -> None:
    make_partitions(engine)
    promote_model(engine)
    insert_logs(engine, 3_000)
    claimed, _ = scoring.claim(engine, DETECTOR, "k")
    run_id = claimed.run.run_id
    failed: list[BaseException] = []

    def score() -> None:
        try:
            scoring.finish(engine, run_id)
        except BaseException as error:  # noqa: BLE001  looked at below
            failed.append(error)

    table = "logs" if cut.startswith("copy") else "prediction_hours"
    with transaction(engine) as conn:
        conn.execute(text(f"lock table millrace.{table} in access exclusive mode"))
        scorer = threading.Thread(target=score)
        scorer.start()
        victim = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        while not (found := conn.execute(text(f"{victim} and query like :cut"), {"cut": cut}).scalars().all()):
            conn.execute(text("select pg_stat_clear_snapshot()"))
        conn.execute(text("select pg_terminate_backend(:pid)"), {"pid": found[0]})
        scorer.join()
    (error,) = failed
    assert isinstance(error, DatabaseUnavailable)
    assert "\n" not in str(error)
    assert "run the same again" in str(error)
    assert engine.url.password is not None
    assert engine.url.password not in str(error)
    assert scalar(engine, "select count(*) from millrace.predictions") == 0
    assert scoring.score(engine, DETECTOR).scored == 3_000
    check_accounts(engine)


def test_beside_busy_writers(engine: Engine, dsn: str) -> None:
    """Transactions that take their ids early and commit late or never, in any order, while one run follows another."""
    make_partitions(engine)
    promote_model(engine)
    committed: list[int] = []
    writers = engine_for(f"{dsn}?application_name=writers").execution_options()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            with writers.connect() as conn:
                begun = conn.begin()
                ids = []
                for _ in range(chance.randint(1, 3)):
                    start = START + timedelta(seconds=chance.uniform(0, 7_200))
                    ids += insert_logs(conn, chance.randint(1, 40), start=start, step=timedelta(milliseconds=20))
                    time.sleep(chance.choice([0, 0.01, 0.05, 0.33]))
                if chance.random() < 0.2:
                    begun.rollback()
                else:
                    begun.commit()
                    committed.extend(ids)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    reports = []
    while any(thread.is_alive() for thread in threads):
        reports.append(scoring.score(engine, DETECTOR))
    for thread in threads:
        thread.join()
    reports.append(scoring.score(engine, DETECTOR))
    writers.dispose()
    assert len([report for report in reports if report.scored]) > 3
    assert sum(report.scored for report in reports) == len(committed) > 1_000
    assert {log_id for (log_id,) in rows(engine, "select log_id from millrace.predictions")} == set(committed)
    check_accounts(engine)
