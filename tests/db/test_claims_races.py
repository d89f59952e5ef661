"""Several runs, shards and moves of rows at the same time."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from mllib.errors import NoChampion
from mllib.jobs import scoring
from mllib.store import ledger, partitions, predictions
from mllib.store.database import transaction
from mllib.types import Window
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
    hours_kept,
    hours_recounted,
    insert_logs,
    promote_model,
)
from tests.factories import START

HOUR = timedelta(hours=1)

MINUTE = timedelta(minutes=1)


def test_a_shard_is_scored_once_however_often_it_is_asked_for(engine: Engine, champion: int) -> None:
    insert_logs(engine, 100)
    claimed, _ = scoring.claim(engine, DETECTOR, "k")
    assert scoring.score_shard(engine, claimed.run.run_id, 0)[0] == 100
    assert scoring.score_shard(engine, claimed.run.run_id, 0) == (0, 0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: scoring.finish(engine, claimed.run.run_id), range(4)))
    check_accounts(engine)


def test_many_runs_at_once_in_threads(engine: Engine, champion: int) -> None:
    insert_logs(engine, 3_000)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda n: scoring.score(engine, DETECTOR, run_key=f"t{n % 3}"), range(6)))
    assert len({report.run_id for report in reports}) == 3
    check_accounts(engine)


def test_several_runs_at_once_in_processes(engine: Engine, dsn: str, champion: int) -> None:
    insert_logs(engine, 20_000, step=timedelta(milliseconds=200))
    script = (
        "import sys; from mllib.jobs import scoring; from mllib.store.database import engine_for\n"
        "scoring.score(engine_for(sys.argv[1]), 'log_anomaly')"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, dsn], stderr=subprocess.PIPE) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in started] == [(b"", 0)] * 3
    check_accounts(engine)


def test_the_first_claims_of_a_new_detector_at_once(engine: Engine) -> None:
    """Before its first champion a detector may have no number yet in this database."""

    def refused(number: int) -> bool:
        with pytest.raises(NoChampion):
            scoring.claim(engine, DETECTOR, str(number))
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(refused, range(8)))


def test_shards_of_a_window_run_in_the_same_hour_are_counted_in_parallel(engine: Engine, champion: int) -> None:
    """Both add to the count of the same hour, one while the other is not committed."""
    insert_logs(engine, 1_200)
    claimed, _ = scoring.claim(engine, DETECTOR, "k", window=Window(START, START + HOUR), shard_rows=600)
    assert len(claimed.shards) == 2
    run_id = claimed.run.run_id
    for parent in (partitions.PREDICTIONS, partitions.HISTORY):
        partitions.ensure(engine, parent, [START.date()])
    scored: list[tuple[int, int]] = []
    with transaction(engine) as slow:
        taken = ledger.take_shard(slow, run_id, 0)
        keys = {"detector_id": taken.detector_id, "run_id": run_id}
        slow.execute(
            text(
                "insert into millrace.predictions (ts, log_id, run_id, model_version, score, raw_score, detector_id,"
                " severity, is_anomaly) select ts, log_id, :run, :version, 0.1, 0.1, :detector, 0, false"
                " from millrace.logs where ts < :until"
            ),
            {"run": run_id, "version": champion, "detector": taken.detector_id, "until": taken.ranges[-1].end},
        )
        written = predictions.Written(rows=taken.claimed, hours={START: (taken.claimed, 0, 0.1)})
        predictions.count_hours(slow, written, **keys)
        other = threading.Thread(target=lambda: scored.append(scoring.score_shard(engine, run_id, 1)))
        other.start()
        wait_for_lock(engine)
        ledger.finish_shard(slow, run_id, 0, scored=taken.claimed, anomalies=0)
    other.join()
    assert scored[0][0] + taken.claimed == 1_200
    assert scoring.publish(engine, run_id).scored == 1_200
    assert hours_kept(engine) == hours_recounted(engine)


def test_a_claim_sees_rows_that_are_being_moved_out_of_the_default_partition(engine: Engine) -> None:
    """A plan that was made before the move, and waited for it, would look for the rows where they are no more."""
    promote_model(engine)
    insert_logs(engine, 200)
    reports: list[scoring.ScoreReport] = []
    with transaction(engine) as mover:
        mover.execute(text("select millrace.ensure_partition('logs', :day)"), {"day": START.date()})
        scorer = threading.Thread(target=lambda: reports.append(scoring.score(engine, DETECTOR)))
        scorer.start()
        wait_for_lock(engine)
    scorer.join()
    assert reports[0].scored == 200
    check_accounts(engine)


def test_a_shard_sees_rows_that_are_being_moved_out_of_the_default_partition(engine: Engine) -> None:
    promote_model(engine)
    insert_logs(engine, 200)
    claimed, _ = scoring.claim(engine, DETECTOR, "k")
    counts: list[tuple[int, int]] = []
    with transaction(engine) as mover:
        mover.execute(text("select millrace.ensure_partition('logs', :day)"), {"day": START.date()})
        scorer = threading.Thread(target=lambda: counts.append(scoring.score_shard(engine, claimed.run.run_id, 0)))
        scorer.start()
        wait_for_lock(engine)
    scorer.join()
    assert counts[0][0] == 200
    scoring.finish(engine, claimed.run.run_id)
    check_accounts(engine)


def wait_for_lock(engine: Engine) -> None:
    """Returns when a session of this database waits for a lock."""
    waiting = text(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        while not conn.execute(waiting).scalar_one():
            pass
