"""Runs over a window of event time: what they supersede, what is kept, and what they leave to other runs."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from mllib.errors import BadInput
from mllib.jobs import scoring
from mllib.types import Window
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
    ids_of_run,
    insert_logs,
    promote_model,
    rows,
    scalar,
    unscored,
)
from tests.factories import START

HOUR = timedelta(hours=1)

MINUTE = timedelta(minutes=1)


def test_a_key_cannot_be_used_for_another_window(engine: Engine, champion: int) -> None:
    insert_logs(engine, 10)
    window = Window(START, START + HOUR)
    scoring.score(engine, DETECTOR, run_key="k", window=window)
    assert scoring.score(engine, DETECTOR, run_key="k", window=window).claimed == 10
    for other in (None, Window(START, START + 2 * HOUR)):
        with pytest.raises(BadInput, match="Start a new run"):
            scoring.score(engine, DETECTOR, run_key="k", window=other)
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
