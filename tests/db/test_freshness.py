"""How far behind scoring is, in SQL and in the summary."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mllib.jobs import scoring
from mllib.jobs.overview import summary
from mllib.store import detectors
from mllib.store.database import transaction
from mllib.store.freshness import Freshness, age, freshness
from mllib.types import Window
from tests.db.factories import insert_log
from tests.db.scoring_factories import DETECTOR, insert_logs, make_partitions, promote_model
from tests.factories import START


def state(engine: Engine) -> Freshness:
    with transaction(engine) as conn:
        (row,) = freshness(conn)
    return row


def behind(engine: Engine) -> Any:
    return summary(engine, detector=DETECTOR)["behind"]


def test_without_a_champion_nothing_waits_for_scoring(engine: Engine) -> None:
    with transaction(engine) as conn:
        assert freshness(conn) == []
        detectors.identify(conn, DETECTOR)
        insert_log(conn)
    assert state(engine).rows_waiting is None
    assert behind(engine) is None


@pytest.mark.usefixtures("champion")
def test_rows_wait_until_they_are_claimed(engine: Engine) -> None:
    assert (state(engine).rows_waiting, state(engine).oldest_age, state(engine).last_claimed_at) == (0, None, None)
    assert behind(engine) == "0 rows"
    with transaction(engine) as conn:
        insert_log(conn, ingested_at=text("now() - interval '3 hours'"))
    insert_logs(engine, 99)
    waiting = state(engine)
    assert waiting.rows_waiting == 100
    assert waiting.oldest_age is not None
    assert waiting.oldest_age > timedelta(hours=3)
    assert waiting.last_finished_at is None
    assert behind(engine) == "100 rows, the oldest for 3 h"

    claimed, _ = scoring.claim(engine, DETECTOR, "mine")
    taken = state(engine)
    assert (taken.rows_waiting, taken.open_run_id, taken.open_run_rows) == (0, claimed.run.run_id, 100)
    assert taken.last_claimed_at is not None
    assert behind(engine) == f"0 rows, 100 more in run {claimed.run.run_id}, which is not finished"

    scoring.finish(engine, claimed.run.run_id)
    done = state(engine)
    assert (done.rows_waiting, done.open_run_id) == (0, None)
    assert done.last_finished_at is not None
    assert re.fullmatch(r"0 rows, last scored \d+ s ago", behind(engine))


@pytest.mark.usefixtures("champion")
def test_what_a_run_over_a_window_has_scored_does_not_wait(engine: Engine) -> None:
    insert_logs(engine, 100)
    scoring.score(engine, DETECTOR, window=Window(START, START + timedelta(seconds=40)))
    assert state(engine).rows_waiting == 60
    insert_logs(engine, 5, first=200)  # in the window, but come later
    assert state(engine).rows_waiting == 65
    assert scoring.score(engine, DETECTOR).claimed == 65
    assert state(engine).rows_waiting == 0


@pytest.mark.usefixtures("champion")
def test_a_long_transaction_is_named(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    insert_logs(engine, 10)
    scoring.score(engine, DETECTOR)
    with engine.connect() as other:
        other.execute(text("set application_name = 'shipper'"))
        insert_log(other)
        (pid,) = other.execute(text("select pg_backend_pid()")).one()
        insert_logs(engine, 10, first=50)  # commits, and waits although the one before it is open
        assert state(engine).rows_waiting == 10
        assert state(engine).held_by is None  # it has been open for less than a minute
        with transaction(engine) as conn:  # the view with a shorter patience
            definition = conn.execute(text("select pg_get_viewdef('analytics.freshness')")).scalar_one()
            assert "'00:01:00'::interval" in definition
            patient = definition.replace("'00:01:00'::interval", "'00:00:00'::interval").rstrip(";")
            (held,) = conn.execute(text(f"select held_by, held_by_pid, held_since < now() from ({patient}) as f"))  # noqa: S608
            assert tuple(held) == ("shipper", pid, True)
        other.commit()
        other.execute(text("reset application_name"))
    assert state(engine).rows_waiting == 11


@pytest.mark.usefixtures("champion")
def test_it_is_read_by_the_index_however_many_rows_there_are(engine: Engine) -> None:
    make_partitions(engine, *(START.date() + timedelta(days=day) for day in range(6)))
    for day in range(6):
        insert_logs(engine, 5_000, start=START + timedelta(days=day))
    with transaction(engine) as conn:
        conn.execute(text("analyze millrace.logs"))
    scoring.score(engine, DETECTOR)
    insert_logs(engine, 7, first=9_000)
    with transaction(engine) as conn:
        plan = "\n".join(conn.execute(text("explain (analyze, costs off) table analytics.freshness")).scalars())
    assert not re.search(r"Seq Scan on logs_\d", plan), plan
    assert plan.count("Index Scan using logs_") == 6
    assert state(engine).rows_waiting == 7


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=-3), "0 s"),
        (timedelta(seconds=59.9), "59 s"),
        (timedelta(minutes=2), "2 min"),
        (timedelta(hours=23, minutes=59), "23 h"),
        (timedelta(days=3), "3 d"),
    ],
)
def test_ages_are_said_in_their_largest_unit(span: timedelta, said: str) -> None:
    assert age(span) == said


def test_a_champion_counts_all_there_is(engine: Engine) -> None:
    insert_logs(engine, 30)
    promote_model(engine)
    assert state(engine).rows_waiting == 30
