"""Which rows a run over the newly ingested rows claims: each committed one once, whatever commits when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from mllib.errors import BadInput, NoChampion
from mllib.jobs import scoring
from mllib.store import partitions
from mllib.store.database import transaction
from mllib.types import Window
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
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
