"""Retention: days that are over go as a whole, rows with labels stay, and nothing that is still to be scored goes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mllib.errors import BadInput, RestoredElsewhere
from mllib.jobs import scoring
from mllib.jobs.doctor import Patience, examine
from mllib.jobs.maintenance import described, maintain
from mllib.store import partitions, retention
from mllib.store.database import transaction
from tests.db.factories import add_label, insert_log
from tests.db.scoring_factories import DETECTOR, insert_logs, make_partitions, promote_model, rows, scalar
from tests.db.test_claims_races import wait_for_lock
from tests.db.test_cli import answer, complaint, millrace
from tests.db.training_factories import change
from tests.factories import START

DAY = START.date()
TODAY = DAY + timedelta(days=12)
OLD, NEW = DAY, DAY + timedelta(days=10)
ALL = {"logs": 5, "predictions": 5, "predictions_history": 5}


def keep(engine: Engine, **days: int | None) -> None:
    with transaction(engine) as conn:
        for parent, number in days.items():
            retention.keep(conn, parent, number)


def partitioned(engine: Engine, parent: str = "logs") -> list[str]:
    with transaction(engine) as conn:
        return [str(day) for day in sorted(partitions.existing(conn, parent)) if day <= NEW]


def row_of(engine: Engine, log_id: int) -> list[tuple[Any, ...]]:
    return rows(
        engine,
        "select l.ts, l.ingest_xid::text, l.ingested_at, l.message, p.score, p.run_id from millrace.logs as l"
        " join millrace.predictions as p using (ts, log_id) where log_id = :id",
        id=log_id,
    )


@pytest.fixture
def two_days(engine: Engine) -> list[int]:
    """Two scored days of 200 rows; three rows of the older one have labels. Returns these."""
    make_partitions(engine, OLD, NEW)
    promote_model(engine)
    ids = insert_logs(engine, 200)
    insert_logs(engine, 200, start=START + timedelta(days=10), first=200)
    scoring.score(engine, DETECTOR)
    with transaction(engine) as conn:
        for log_id in ids[10:13]:
            (when,) = rows(engine, "select ts from millrace.logs where log_id = :id", id=log_id)[0]
            add_label(conn, log_id, ts=when)
            add_label(conn, log_id, "0", ts=when)
    return ids[10:13]


def test_nothing_is_dropped_unless_it_is_asked_for(engine: Engine, two_days: list[int]) -> None:
    done = maintain(engine, today=TODAY + timedelta(days=10_000))
    assert (done["dropped"], done["kept_rows"]) == ({}, 0)
    assert scalar(engine, "select count(*) from millrace.logs") == 400
    assert len(two_days) == 3


def test_days_that_are_over_go_but_for_the_rows_with_labels(engine: Engine, two_days: list[int]) -> None:
    before = [row_of(engine, log_id) for log_id in two_days]
    keep(engine, **ALL)
    done = maintain(engine, today=TODAY)
    assert done["dropped"] == {"logs": [str(OLD)], "predictions": [str(OLD)]}
    assert done["kept_rows"] == 6
    assert partitioned(engine) == partitioned(engine, "predictions") == [str(NEW)]
    assert scalar(engine, "select count(*) from millrace.logs") == 203
    assert scalar(engine, "select count(*) from millrace.predictions") == 203
    assert [row_of(engine, log_id) for log_id in two_days] == before
    assert (
        scalar(engine, "select count(*) from millrace.labels join millrace.logs using (ts) where row_id = log_id") == 6
    )
    assert "logs: 1 days dropped (2026-03-02 to 2026-03-02)." in described(done)


def test_the_scores_of_sessions_go_with_the_lines_of_their_first_day(engine: Engine, two_days: list[int]) -> None:
    insert = (
        "insert into millrace.session_scores (started_at, ended_at, trained_from, trained_to, observed_until, lines,"
        " trained_sessions, score, severity, open, is_anomaly, trace_id, mode) values (:at, :at, :at,"
        " cast(:at as timestamptz) + interval '1 hour', :at, 1, 50, 0, 0, false, false, :name, 'unlabelled')"
    )
    midnight = START.replace(hour=0, minute=0)
    for at, name in [(midnight, "first"), (midnight + timedelta(hours=23, minutes=59), "last")]:
        change(engine, insert, at=at, name=name)
    change(engine, insert, at=midnight + timedelta(days=1), name="next")
    keep(engine, predictions=5)
    maintain(engine, today=TODAY)
    assert scalar(engine, "select count(*) from millrace.session_scores") == 3
    keep(engine, logs=5)
    maintain(engine, today=TODAY)
    assert rows(engine, "select trace_id from millrace.session_scores") == [("next",)]
    assert len(two_days) == 3


def test_what_was_kept_is_not_claimed_anew_and_stays_where_it_is(engine: Engine, two_days: list[int]) -> None:
    keep(engine, **ALL)
    maintain(engine, today=TODAY)
    assert scoring.score(engine, DETECTOR).claimed == 0
    again = maintain(engine, today=TODAY)
    assert (again["partitions_for_strays"], again["dropped"], again["kept_rows"]) == (0, {}, 0)
    assert scalar(engine, "select count(*) from millrace.logs_default") == len(two_days)
    found = {finding.check for finding in examine(engine, patience=Patience(maintenance=timedelta(days=-1))).findings}
    assert found == {"partitions_ahead"}  # for by the clock on the wall it is much later


def test_rows_that_come_late_for_a_dropped_day_are_scored_and_then_go(engine: Engine, two_days: list[int]) -> None:
    keep(engine, **ALL)
    maintain(engine, today=TODAY)
    insert_logs(engine, 20, first=600)  # into the default partition, beside those that were kept
    first = maintain(engine, today=TODAY)
    assert first["partitions_for_strays"] >= 1
    assert first["unscored"] == {"logs": [str(OLD)]}
    assert scalar(engine, "select count(*) from millrace.logs") == 223
    assert scoring.score(engine, DETECTOR).scored == 20
    assert maintain(engine, today=TODAY)["dropped"] == {"logs": [str(OLD)], "predictions": [str(OLD)]}
    assert scalar(engine, "select count(*) from millrace.logs") == 203
    assert all(row_of(engine, log_id) for log_id in two_days)


@pytest.mark.parametrize("why", ["not claimed", "claimed", "no claim ever"])
def test_what_is_still_to_be_scored_stays(engine: Engine, why: str) -> None:
    make_partitions(engine, OLD)
    promote_model(engine)
    if why != "no claim ever":
        insert_logs(engine, 50)
        scoring.score(engine, DETECTOR)
    insert_logs(engine, 50, first=50)
    if why == "claimed":
        scoring.claim(engine, DETECTOR, "mine")
    keep(engine, logs=5)
    assert maintain(engine, today=TODAY)["unscored"] == {"logs": [str(OLD)]}
    scoring.score(engine, DETECTOR)
    assert maintain(engine, today=TODAY)["dropped"] == {"logs": [str(OLD)]}
    assert scalar(engine, "select count(*) from millrace.logs") == 0


def test_rows_that_no_champion_waits_for_go(engine: Engine) -> None:
    make_partitions(engine, OLD)
    insert_logs(engine, 50)
    keep(engine, logs=5)
    assert maintain(engine, today=TODAY)["dropped"] == {"logs": [str(OLD)]}


def test_a_day_with_very_many_labels_stays_whole(
    engine: Engine, two_days: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MOVED_AT_MOST", len(two_days) - 1)
    keep(engine, **ALL)
    done = maintain(engine, today=TODAY)
    assert (done["labelled"], done["dropped"]) == ({"logs": [str(OLD)], "predictions": [str(OLD)]}, {})
    assert scalar(engine, "select count(*) from millrace.logs") == 400


@pytest.mark.usefixtures("two_days")
def test_a_table_in_use_is_left_for_the_next_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_LOCK_TIMEOUT", "200ms")
    monkeypatch.setattr(retention, "_PAUSE_SECONDS", 0.0)
    maintain(engine, today=TODAY)
    keep(engine, logs=1)
    with engine.connect() as reader:
        assert reader.execute(text("select count(*) from millrace.logs")).scalar_one() == 400
        done = maintain(engine, today=TODAY)
        assert (done["postponed"], done["dropped"]) == ({"logs": [str(OLD), str(NEW)]}, {})
        insert_logs(engine, 1)  # nobody is locked out
    scoring.score(engine, DETECTOR)
    assert maintain(engine, today=TODAY)["dropped"] == {"logs": [str(OLD), str(NEW)]}


def test_writers_and_scoring_go_on_beside_it(engine: Engine, two_days: list[int]) -> None:
    keep(engine, **ALL)

    def write(number: int) -> None:
        for turn in range(10):
            insert_logs(engine, 5, start=START + timedelta(days=10), first=1_000 + 100 * number + 5 * turn)
            scoring.score(engine, DETECTOR)

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, number) for number in range(2)]
        dropped = [pool.submit(maintain, engine, today=TODAY) for _ in range(2)]
        for future in (*writers, *dropped):
            future.result()
    scoring.score(engine, DETECTOR)
    assert maintain(engine, today=TODAY)["postponed"] == {}
    assert scalar(engine, "select count(*) from millrace.logs") == 200 + 100 + len(two_days)
    assert scalar(engine, "select count(*) from millrace.predictions") == 200 + 100 + len(two_days)
    assert examine(engine).findings == ()


def test_a_claim_waits_for_the_table_before_it_holds_a_partition(engine: Engine, two_days: list[int]) -> None:
    """Whoever drops a day locks them in this order; the other way round each would wait for the other."""
    with engine.connect() as dropping, ThreadPoolExecutor(1) as pool:
        dropping.execute(text("lock table only millrace.logs in access exclusive mode"))
        claimed = pool.submit(scoring.claim, engine, DETECTOR, "k")
        wait_for_lock(engine)
        dropping.execute(text("lock table millrace.logs_default in access exclusive mode nowait"))
        dropping.rollback()
        assert claimed.result()[0].run.claimed == 0
    assert len(two_days) == 3


def test_dropping_takes_the_same_work_however_many_rows_there_are(engine: Engine) -> None:
    """The rows of a dropped partition are neither read nor marked dead, which would cost for each."""
    make_partitions(engine, OLD)
    promote_model(engine)
    insert_logs(engine, 5_000)
    scoring.score(engine, DETECTOR)
    with transaction(engine) as conn:
        plan = "select sum(n_tup_del), sum(seq_tup_read) from pg_stat_xact_user_tables where schemaname = 'millrace'"
        outcome = conn.execute(text("select outcome from millrace.drop_partition('logs', :day, 10)"), {"day": OLD})
        assert outcome.scalar_one() == "dropped"
        deleted, _ = conn.execute(text(plan)).one()
        assert deleted == 0


def test_a_restored_database_drops_nothing(engine: Engine, two_days: list[int]) -> None:
    keep(engine, **ALL)
    with transaction(engine) as conn:
        conn.execute(text("update millrace.database_identity set system_identifier = 1"))
    with pytest.raises(RestoredElsewhere, match="millrace adopt"):
        maintain(engine, today=TODAY)
    assert scalar(engine, "select count(*) from millrace.logs") == 400
    assert len(two_days) == 3


def test_how_long_is_set_and_shown(dsn: str, engine: Engine) -> None:
    forever = dict.fromkeys(partitions.PARTITIONED)
    assert answer("retain", dsn=dsn) == {"keep_days": forever}
    assert answer("retain", "logs", "90", dsn=dsn)["keep_days"]["logs"] == 90
    shown = millrace("retain", dsn=dsn).stdout.splitlines()
    assert [line.split(maxsplit=1) for line in shown] == [
        ["logs", "90 days"],
        ["network_flows", "for ever"],
        ["pipeline_runs", "for ever"],
        ["predictions", "for ever"],
        ["predictions_history", "for ever"],
    ]
    assert answer("retain", "logs", "forever", dsn=dsn) == {"keep_days": forever}
    assert "no partitioned table. Known: logs" in complaint("retain", "labels", "3", dsn=dsn)
    for arguments in (["retain", "logs"], ["retain", "logs", "0"], ["retain", "logs", "some"]):
        assert millrace(*arguments, dsn=dsn).returncode == 2
    with pytest.raises(BadInput), transaction(engine) as conn:
        retention.keep(conn, "logs", 2**40)


def test_maintenance_as_a_command(dsn: str, engine: Engine, two_days: list[int]) -> None:
    keep(engine, logs=5)
    with transaction(engine) as conn:
        insert_log(conn, START - timedelta(days=1))
    scoring.score(engine, DETECTOR)
    done = millrace("maintain", "--json", dsn=dsn)
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    result = json.loads(last)
    assert result["dropped"]["logs"] == [str(DAY - timedelta(days=1)), str(OLD), str(NEW)]
    assert result["kept_rows"] == len(two_days)
    assert set(result["reach"]) == set(partitions.PARTITIONED)
    assert said[0].endswith(f"They reach to {min(result['reach'].values())}.")
