"""Which rows a scoring run claims: every committed row once, whatever commits when, in which order, or twice."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from mllib.errors import BadInput, NoChampion
from mllib.jobs import scoring
from mllib.store import ledger, partitions, predictions
from mllib.store.database import transaction
from mllib.types import Window
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
    hours_kept,
    hours_recounted,
    ids_of_run,
    insert_logs,
    make_partitions,
    promote_model,
    rows,
    scalar,
    store_model,
    unscored,
)
from tests.factories import START

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def champion(engine: Engine) -> int:
    """A database with a champion and the partition of the day of START."""
    make_partitions(engine)
    return promote_model(engine)


def test_a_run_takes_what_is_new_and_nothing_else(engine: Engine, champion: int) -> None:
    first = insert_logs(engine, 300)
    report = scoring.score(engine, DETECTOR)
    assert (report.claimed, report.scored, report.model_version) == (300, 300, champion)
    # Older than what is scored, within it, and later: what counts is when a row came, not what its clock says.
    second = [
        *insert_logs(engine, 50, start=START - 3 * HOUR),
        *insert_logs(engine, 50, start=START),
        *insert_logs(engine, 50, start=START + 3 * HOUR),
    ]
    again = scoring.score(engine, DETECTOR)
    assert (again.claimed, again.scored) == (150, 150)
    assert ids_of_run(engine, [report.run_id]) == set(first)
    assert ids_of_run(engine, [again.run_id]) == set(second)
    check_accounts(engine)


def test_the_report_and_the_ledger_count_the_anomalies(engine: Engine, champion: int) -> None:
    insert_logs(engine, 2_000)
    report = scoring.score(engine, DETECTOR)
    flagged = scalar(engine, "select count(*) from millrace.predictions where is_anomaly")
    assert 0 < flagged < 2_000
    assert report.anomalies == flagged == scalar(engine, "select anomalies from millrace.scoring_runs")
    check_accounts(engine)


def test_a_transaction_that_commits_late_is_taken_by_the_next_run(engine: Engine, champion: int) -> None:
    with engine.connect() as late:
        begun = late.begin()
        early_ids = insert_logs(late, 40)
        insert_logs(engine, 60, start=START + MINUTE)
        assert scoring.score(engine, DETECTOR).scored == 60
        insert_logs(late, 20, start=START + 2 * MINUTE)  # under an xid that a finished run has passed by
        begun.commit()
    assert len(unscored(engine)) == 60
    assert min(unscored(engine)) == min(early_ids)
    assert scoring.score(engine, DETECTOR).scored == 60
    check_accounts(engine)


def test_rows_that_commit_while_a_run_works_are_left_to_the_next(engine: Engine, champion: int) -> None:
    insert_logs(engine, 100)
    claimed, _ = scoring.claim(engine, DETECTOR, "first")
    insert_logs(engine, 70)  # the very same times
    assert scoring.finish(engine, claimed.run.run_id).scored == 100
    assert scoring.score(engine, DETECTOR).scored == 70
    check_accounts(engine)


def test_what_is_rolled_back_is_never_scored(engine: Engine, champion: int) -> None:
    with engine.connect() as conn:
        begun = conn.begin()
        insert_logs(conn, 30)
        assert scoring.score(engine, DETECTOR).claimed == 0
        begun.rollback()
    with transaction(engine) as conn:
        insert_logs(conn, 10)
        savepoint = conn.begin_nested()
        insert_logs(conn, 20)
        savepoint.rollback()
        with conn.begin_nested():
            insert_logs(conn, 5)
    assert scoring.score(engine, DETECTOR).scored == 15
    check_accounts(engine)


def test_the_same_key_finds_the_same_claim_with_the_same_model(engine: Engine, champion: int) -> None:
    insert_logs(engine, 100)
    first, _ = scoring.claim(engine, DETECTOR, "hourly")
    newer = promote_model(engine, threshold=0.45)
    insert_logs(engine, 50)
    again, finished = scoring.claim(engine, DETECTOR, "hourly")
    assert again == first
    assert finished == []
    scoring.finish(engine, first.run.run_id)
    assert rows(engine, "select distinct model_version from millrace.predictions") == [(champion,)]
    done, _ = scoring.claim(engine, DETECTOR, "hourly")
    assert (done.run.state, done.shards) == ("done", ())
    report = scoring.score(engine, DETECTOR)
    assert (report.scored, report.model_version) == (50, newer)
    check_accounts(engine)


def test_a_promotion_in_mid_run_mixes_no_versions(engine: Engine, champion: int) -> None:
    insert_logs(engine, 1_000)
    claimed, _ = scoring.claim(engine, DETECTOR, "k", shard_rows=200)
    assert len(claimed.shards) > 3
    scoring.score_shard(engine, claimed.run.run_id, 0)
    promote_model(engine, threshold=0.45)
    scoring.finish(engine, claimed.run.run_id)
    assert rows(engine, "select distinct model_version from millrace.predictions") == [(champion,)]
    check_accounts(engine)


def test_a_key_cannot_be_used_for_another_window(engine: Engine, champion: int) -> None:
    insert_logs(engine, 10)
    window = Window(START, START + HOUR)
    scoring.score(engine, DETECTOR, run_key="k", window=window)
    assert scoring.score(engine, DETECTOR, run_key="k", window=window).claimed == 10
    for other in (None, Window(START, START + 2 * HOUR)):
        with pytest.raises(BadInput, match="Start a new run"):
            scoring.score(engine, DETECTOR, run_key="k", window=other)
    check_accounts(engine)


def test_without_a_champion_nothing_is_claimed_and_all_is_later(engine: Engine) -> None:
    make_partitions(engine)
    insert_logs(engine, 80)
    store_model(engine)
    for window in (None, Window(START, START + HOUR)):
        with pytest.raises(NoChampion, match="millrace train log_anomaly"):
            scoring.score(engine, DETECTOR, window=window)
    assert scalar(engine, "select count(*) from millrace.scoring_runs") == 0
    insert_logs(engine, 20)
    promote_model(engine, threshold=0.45)
    assert scoring.score(engine, DETECTOR).scored == 100
    check_accounts(engine)


def test_a_named_version_scores_though_it_is_no_champion(engine: Engine) -> None:
    make_partitions(engine)
    version = store_model(engine)
    insert_logs(engine, 10)
    report = scoring.score(engine, DETECTOR, version=version)
    assert (report.scored, report.model_version) == (10, version)


def test_a_version_that_does_not_exist_is_refused_and_claims_nothing(engine: Engine, champion: int) -> None:
    insert_logs(engine, 10)
    with pytest.raises(BadInput, match="has no version 99"):
        scoring.score(engine, DETECTOR, version=99)
    assert scoring.score(engine, DETECTOR).scored == 10


def test_an_empty_claim_is_done_at_once(engine: Engine, champion: int) -> None:
    for window in (None, Window(START, START + HOUR)):
        report = scoring.score(engine, DETECTOR, window=window)
        assert (report.claimed, report.scored, report.anomalies) == (0, 0, 0)
    assert rows(engine, "select distinct state from millrace.scoring_runs") == [("done",)]
    insert_logs(engine, 5)
    assert scoring.score(engine, DETECTOR).scored == 5
    check_accounts(engine)


@pytest.mark.parametrize(
    "window",
    [
        Window(START, START + HOUR),
        Window(START + timedelta(minutes=17), START + timedelta(minutes=95)),
        Window(
            START + timedelta(minutes=10, seconds=31), START + timedelta(minutes=71, seconds=4, microseconds=500_000)
        ),
        Window(START - HOUR, START + 10 * HOUR),
        Window(START + timedelta(seconds=30), START + timedelta(seconds=31)),
    ],
    ids=["an hour", "from mid-hour", "from mid-minute", "everything", "a second"],
)
def test_a_window_run_supersedes_and_keeps_what_was_believed(engine: Engine, champion: int, window: Window) -> None:
    insert_logs(engine, 1_500, step=timedelta(seconds=5))
    first = scoring.score(engine, DETECTOR)
    before = rows(
        engine,
        "select ts, log_id, run_id, score from millrace.predictions where ts >= :a and ts < :b order by 1, 2",
        a=window.start,
        b=window.end,
    )
    newer = promote_model(engine, threshold=0.45)
    report = scoring.score(engine, DETECTOR, window=window)
    assert report.scored == report.claimed == len(before) > 0
    assert report.model_version == newer
    moved = rows(
        engine,
        "select ts, log_id, run_id, score from millrace.predictions_history where superseded_by = :r order by 1, 2",
        r=report.run_id,
    )
    assert moved == before
    by_run = rows(
        engine,
        "select run_id, model_version, count(*), bool_and(ts >= :a and ts < :b) from millrace.predictions"
        " group by 1, 2 order by 1",
        a=window.start,
        b=window.end,
    )
    kept = [(first.run_id, champion, 1_500 - len(before), False)] if len(before) < 1_500 else []
    assert by_run == [*kept, (report.run_id, newer, len(before), True)]
    check_accounts(engine, ever=1_500 + len(before))


def test_what_was_believed_at_a_time_can_be_told(engine: Engine, champion: int) -> None:
    insert_logs(engine, 600)
    scoring.score(engine, DETECTOR)
    believed = rows(engine, "select log_id, score from millrace.predictions order by 1")
    moment = scalar(engine, "select clock_timestamp()")
    promote_model(engine, threshold=0.45)
    scoring.score(engine, DETECTOR, window=Window(START, START + timedelta(minutes=4)))
    told = rows(
        engine,
        """
        select log_id, score from (
            select log_id, score, run_id from millrace.predictions
            union all
            select log_id, score, run_id from millrace.predictions_history where superseded_at > :moment
        ) as p join millrace.scoring_runs as r using (run_id) where r.finished_at <= :moment order by 1
        """,
        moment=moment,
    )
    assert told == believed
    assert told != rows(engine, "select log_id, score from millrace.predictions order by 1")


def test_rows_that_a_window_run_scored_first_are_not_new_but_later_ones_are(engine: Engine, champion: int) -> None:
    insert_logs(engine, 3_600)
    window = Window(START + timedelta(minutes=10, seconds=30), START + timedelta(minutes=20))
    inside = scoring.score(engine, DETECTOR, window=window)
    assert inside.scored == 570
    late = insert_logs(engine, 25, start=window.start, step=timedelta(seconds=20))
    report = scoring.score(engine, DETECTOR)
    assert report.scored == 3_600 - 570 + 25
    assert set(late) <= ids_of_run(engine, [report.run_id])
    assert len(ids_of_run(engine, [inside.run_id])) == 570
    check_accounts(engine)
    assert scoring.score(engine, DETECTOR).claimed == 0


def test_several_windows_that_overlap_and_then_the_rest(engine: Engine, champion: int) -> None:
    insert_logs(engine, 3_600)
    for begin, end in ((0, 20), (10, 30), (50, 60)):
        scoring.score(engine, DETECTOR, window=Window(START + begin * MINUTE, START + end * MINUTE))
    assert scoring.score(engine, DETECTOR).scored == 20 * 60
    # A window before the last claim of new rows says nothing about what came after that claim.
    late = insert_logs(engine, 10)
    assert scoring.score(engine, DETECTOR).scored == len(late)
    check_accounts(engine, ever=3_600 + 10 * 60 + 10)


def test_many_windows_at_random_while_rows_come_in(engine: Engine, champion: int) -> None:
    chance = random.Random(3)
    total = len(insert_logs(engine, 2_000, step=timedelta(seconds=3)))
    scoring.score(engine, DETECTOR, window=Window(START + 30 * MINUTE, START + 31 * MINUTE))
    for number in range(30):
        begin, length = chance.uniform(-5, 100), chance.uniform(0.01, 25)
        window = Window(START + begin * MINUTE, START + (begin + length) * MINUTE)
        scoring.score(engine, DETECTOR, window=window)
        late = START + chance.uniform(0, 100) * MINUTE
        total += len(insert_logs(engine, 20, start=late, step=timedelta(seconds=8), first=number))
    before = scalar(engine, "select count(*) from millrace.predictions")
    assert scoring.score(engine, DETECTOR).scored == total - before
    assert unscored(engine) == []
    check_accounts(engine, ever=scalar(engine, "select sum(scored)::bigint from millrace.scoring_runs"))


def test_an_open_run_is_finished_by_the_next_and_counted(engine: Engine, champion: int) -> None:
    insert_logs(engine, 500)
    claimed, _ = scoring.claim(engine, DETECTOR, "lost", shard_rows=100)
    scoring.score_shard(engine, claimed.run.run_id, 1)
    newer = promote_model(engine, threshold=0.45)
    insert_logs(engine, 50)
    report = scoring.score(engine, DETECTOR)
    assert (report.claimed, report.scored, report.model_version) == (550, 550, newer)
    assert rows(engine, "select model_version, count(*) from millrace.predictions group by 1 order by 1") == [
        (champion, 500),
        (newer, 50),
    ]
    check_accounts(engine)


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
    """Whichever of two shards commits last must not count the hour as it was before the other."""
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
        predictions.count_hours(slow, predictions.Written(rows=600), superseded=taken.ranges, **keys)
        other = threading.Thread(target=lambda: scored.append(scoring.score_shard(engine, run_id, 1)))
        other.start()
        wait_for_lock(engine)
        ledger.finish_shard(slow, run_id, 0, scored=taken.claimed, anomalies=0)
    other.join()
    assert scored[0][0] + taken.claimed == 1_200
    assert hours_kept(engine) == hours_recounted(engine)


def test_rows_in_the_default_partition(engine: Engine) -> None:
    """Any program may insert rows of days that have no partition, also days far off, to the microsecond."""
    promote_model(engine)
    far = [datetime(1969, 7, 20, 20, 17, 40, 123457, tzinfo=UTC), datetime(2500, 1, 1, 0, 0, 0, 999999, tzinfo=UTC)]
    insert_logs(engine, 50, start=START, step=timedelta(microseconds=999_999))
    for moment in far:
        insert_logs(engine, 20, start=moment, step=timedelta(microseconds=1_000_003))
    assert scalar(engine, "select count(*) from millrace.logs_default") == 90
    assert scoring.score(engine, DETECTOR).scored == 90
    assert unscored(engine) == []
    # Maintenance moves them to partitions, each under its own xid: nothing of it is new.
    assert partitions.adopt_strays(engine) > 0
    assert scalar(engine, "select count(*) from millrace.logs_default") == 0
    assert scalar(engine, "select count(*) from millrace.predictions_default") == 0
    assert scoring.score(engine, DETECTOR).claimed == 0
    check_accounts(engine)


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


def test_rows_of_one_instant(engine: Engine, champion: int) -> None:
    insert_logs(engine, 700, step=timedelta(0))
    claimed, _ = scoring.claim(engine, DETECTOR, "k", shard_rows=100)
    assert [shard.claimed for shard in claimed.shards] == [700]
    scoring.finish(engine, claimed.run.run_id)
    insert_logs(engine, 300, step=timedelta(0))
    assert scoring.score(engine, DETECTOR).scored == 300
    check_accounts(engine)


def test_rows_that_are_deleted_after_the_claim_do_not_stop_the_run(engine: Engine, champion: int) -> None:
    insert_logs(engine, 100)
    claimed, _ = scoring.claim(engine, DETECTOR, "k")
    with transaction(engine) as conn:
        conn.execute(text("delete from millrace.logs where ts < :until"), {"until": START + timedelta(seconds=30)})
    run = scoring.finish(engine, claimed.run.run_id)
    assert (run.state, run.claimed, run.scored) == ("done", 100, 70)
    assert unscored(engine) == []


def test_awkward_texts_come_through(engine: Engine, champion: int) -> None:
    awkward = [
        "",
        " ",
        '"',
        '""',
        "a\nb",
        "a\r\nb",
        "a,b",
        "\\N",
        "\\.",
        "null",
        "'; drop table x; --",
        "é\u2028\U0001f600",
    ]
    with transaction(engine) as conn:
        conn.execute(
            text("insert into millrace.logs (ts, message, service, level) values (:ts, :m, :m, :m)"),
            [{"ts": START, "m": message} for message in awkward],
        )
    assert scoring.score(engine, DETECTOR).scored == len(awkward)
    check_accounts(engine)


def wait_for_lock(engine: Engine) -> None:
    """Returns when a session of this database waits for a lock."""
    waiting = text(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        while not conn.execute(waiting).scalar_one():
            pass
