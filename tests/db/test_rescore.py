"""Re-scoring by a plan: what the plan says, that running it does just that, and when it refuses."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from mllib.errors import BadInput, NoChampion, PlanOutdated
from mllib.jobs import rescoring, scoring
from mllib.store import partitions, registry
from mllib.store.database import transaction
from mllib.store.rescoring import ModelChoice, Plan
from mllib.types import Verdict, Window
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
    insert_logs,
    make_partitions,
    promote_model,
    rows,
    scalar,
    store_model,
)
from tests.factories import START

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
WINDOW = Window(START, START + 2 * HOUR)


def make_plan(engine: Engine, window: Window = WINDOW, **options: object) -> Plan:
    key = f"planner {uuid.uuid4()}"
    return rescoring.plan(engine, DETECTOR, window, **{"run_key": key, "by": "test", **options})  # type: ignore[arg-type]


def promote_at(engine: Engine, as_of: datetime, *, threshold: float) -> int:
    """A promotion that counts from an earlier time, as a replayed training records it."""
    version = store_model(engine, threshold=threshold)
    with transaction(engine) as conn:
        registry.record(
            conn,
            registry.NewDecision(
                detector=DETECTOR,
                candidate_version=version,
                champion_version=registry.champion(conn, DETECTOR),
                kind="gate",
                verdict=Verdict.PROMOTE,
                reason="a test needs it",
                as_of=as_of,
                decided_by="test",
            ),
        )
    return version


def changed_verdicts(engine: Engine) -> tuple[int, int]:
    """Rows that became an anomaly, and that are none any more, between the history and now."""
    [(up, down)] = rows(
        engine,
        "select count(*) filter (where p.is_anomaly and not h.is_anomaly),"
        " count(*) filter (where h.is_anomaly and not p.is_anomaly)"
        " from millrace.predictions p join millrace.predictions_history h using (detector_id, ts, log_id)",
    )
    return up, down


@pytest.fixture
def scored(engine: Engine, champion: int) -> Engine:
    """An hour and a half of rows that the champion has scored, and a newer champion that flags less."""
    insert_logs(engine, 2_700, step=timedelta(seconds=2))
    scoring.score(engine, DETECTOR)
    promote_model(engine, threshold=0.56)
    return engine


def test_a_plan_says_what_it_will_do_and_changes_nothing(scored: Engine) -> None:
    before = rows(scored, "table millrace.predictions")
    plan = make_plan(scored, reason="the new threshold")
    [piece] = plan.pieces
    assert (piece.window, piece.model_version, piece.rows, piece.compared) == (WINDOW, 2, 2_700, 2_700)
    assert (plan.rows, plan.left_out, plan.exact) == (2_700, 0, True)
    assert plan.hours == {START: 1_800, START + HOUR: 900}
    assert plan.reason == "the new threshold"
    assert plan.changes > 0
    assert rows(scored, "table millrace.predictions") == before
    assert scalar(scored, "select count(*) from millrace.scoring_runs where kind = 'window'") == 0


def test_running_a_plan_does_exactly_what_it_says(scored: Engine) -> None:
    plan = make_plan(scored)
    report = rescoring.execute(scored, plan.plan_id, run_key="k")
    assert (report.claimed, report.scored) == (2_700, 2_700)
    assert changed_verdicts(scored) == (plan.pieces[0].to_anomaly, plan.pieces[0].to_normal)
    assert sum(changed_verdicts(scored)) == plan.changes
    assert rows(scored, "select distinct model_version from millrace.predictions") == [(2,)]
    assert rows(scored, "select plan_id from millrace.scoring_runs where run_id = :r", r=report.runs[0]) == [
        (plan.plan_id,)
    ]
    check_accounts(scored, ever=5_400)
    # Another plan now finds nothing to change.
    assert make_plan(scored).changes == 0


def test_running_a_plan_again_finds_its_runs(scored: Engine) -> None:
    plan = make_plan(scored, run_key="planner")
    assert make_plan(scored, run_key="planner").plan_id > plan.plan_id  # it has claimed nothing yet
    first = rescoring.execute(scored, plan.plan_id, run_key="k")
    insert_logs(scored, 10, start=START + MINUTE)
    again = rescoring.execute(scored, plan.plan_id, run_key="another")
    assert (again.runs, again.scored) == (first.runs, 2_700)
    # A run that is cleared after it has claimed its plan finds that plan.
    assert make_plan(scored, run_key="planner") == plan


def test_a_plan_that_was_not_run_is_made_anew(scored: Engine) -> None:
    first = make_plan(scored)
    insert_logs(scored, 10, start=START + MINUTE)
    second = make_plan(scored)
    assert second.plan_id > first.plan_id
    assert (second.rows, second.pieces[0].first_verdicts) == (2_710, 10)
    assert rescoring.execute(scored, second.plan_id, run_key="k").scored == 2_710


def rows_have_come(engine: Engine) -> None:
    insert_logs(engine, 1, start=WINDOW.end - timedelta(microseconds=1))


def rows_have_gone(engine: Engine) -> None:
    with transaction(engine) as conn:
        conn.execute(text("delete from millrace.logs where log_id = (select max(log_id) from millrace.logs)"))


def as_many_have_come_as_gone(engine: Engine) -> None:
    rows_have_gone(engine)
    rows_have_come(engine)


def another_champion(engine: Engine) -> None:
    promote_model(engine, threshold=0.45)


def another_window_run(engine: Engine) -> None:
    scoring.score(engine, DETECTOR, window=Window(START + MINUTE, START + 2 * MINUTE))


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (rows_have_come, "1 rows have come into"),
        (rows_have_gone, "2,699 are left"),
        (as_many_have_come_as_gone, "2,699 are left"),
        (another_champion, "promoted since"),
        (another_window_run, "scored rows of its range again"),
    ],
)
def test_a_plan_refuses_when_things_have_moved_on(scored: Engine, event: Callable[[Engine], None], why: str) -> None:
    plan = make_plan(scored)
    event(scored)
    before = rows(scored, "table millrace.scoring_runs")
    with pytest.raises(PlanOutdated, match=rf"{why}.*make a new plan"):
        rescoring.execute(scored, plan.plan_id, run_key="k")
    assert rows(scored, "table millrace.scoring_runs") == before
    rescoring.execute(scored, make_plan(scored).plan_id, run_key="k")


def test_what_happens_outside_its_range_is_no_matter(scored: Engine) -> None:
    plan = make_plan(scored, Window(START, START + HOUR))
    named = make_plan(scored, Window(START, START + HOUR), model=1)
    insert_logs(scored, 5, start=START + HOUR)
    scoring.score(scored, DETECTOR, window=Window(START + HOUR, START + 2 * HOUR))
    scoring.score(scored, DETECTOR)
    assert rescoring.execute(scored, plan.plan_id, run_key="k").scored == 1_800
    with pytest.raises(PlanOutdated, match="again since"):
        rescoring.execute(scored, named.plan_id, run_key="l")


def test_a_row_that_commits_late_makes_the_plan_void(scored: Engine) -> None:
    """It has a number and a time from before the plan, and was not to be seen."""
    with scored.connect() as late:
        begun = late.begin()
        insert_logs(late, 1, start=START + MINUTE)
        plan = make_plan(scored)
        begun.commit()
    with pytest.raises(PlanOutdated, match="1 rows have come into"):
        rescoring.execute(scored, plan.plan_id, run_key="k")


def test_the_champions_of_then(engine: Engine) -> None:
    make_partitions(engine)
    first = promote_at(engine, START + 20 * MINUTE, threshold=0.5)
    second = promote_at(engine, START + 30.5 * MINUTE, threshold=0.45)
    again = promote_at(engine, START + 3 * HOUR, threshold=0.4)
    insert_logs(engine, 3_600)
    scoring.score(engine, DETECTOR)
    plan = make_plan(engine, model=ModelChoice.AS_OF_THEN)
    assert [(piece.window, piece.model_version, piece.rows) for piece in plan.pieces] == [
        (Window(START + 20 * MINUTE, START + 30.5 * MINUTE), first, 630),
        (Window(START + 30.5 * MINUTE, WINDOW.end), second, 3_600 - 1_830),
    ]
    assert (plan.left_out, plan.rows) == (1_200, 2_400)
    report = rescoring.execute(engine, plan.plan_id, run_key="k")
    assert len(report.runs) == 2
    assert rows(
        engine,
        "select model_version, min(ts), count(*), bool_and(model_version = :last or"
        " model_version = millrace.champion_at('log_anomaly', ts)) from millrace.predictions group by 1 order by 2",
        last=again,
    ) == [
        (again, START, 1_200, True),
        (first, START + 20 * MINUTE, 630, True),
        (second, START + 30.5 * MINUTE, 1_770, True),
    ]
    assert len(rows(engine, "select distinct finished_at from millrace.scoring_runs where plan_id is not null")) == 1
    check_accounts(engine, ever=6_000)


def test_a_promotion_that_counts_from_then_makes_the_plan_void(scored: Engine) -> None:
    promote_at(scored, START - HOUR, threshold=0.4)
    plan = make_plan(scored, model=ModelChoice.AS_OF_THEN)
    promote_at(scored, START + HOUR, threshold=0.3)
    with pytest.raises(PlanOutdated, match="promoted since"):
        rescoring.execute(scored, plan.plan_id, run_key="k")


def test_a_rollback_and_back_is_one_piece_less(engine: Engine) -> None:
    """Neighbouring stretches of one version become one piece."""
    make_partitions(engine)
    version = promote_at(engine, START - HOUR, threshold=0.5)
    for minutes in (10, 20):
        with transaction(engine) as conn:
            conn.execute(
                text(
                    "insert into millrace.promotion_decisions (detector_id, candidate_version, kind, verdict, reason,"
                    " as_of, decided_by) values (1, :version, 'rollback', 'promote', 'again', :as_of, 'test')"
                ),
                {"version": version, "as_of": START + minutes * MINUTE},
            )
    assert [piece.window for piece in make_plan(engine, model=ModelChoice.AS_OF_THEN).pieces] == [WINDOW]


def test_no_champion_then_and_none_now(engine: Engine) -> None:
    make_partitions(engine)
    insert_logs(engine, 10)
    for model in (ModelChoice.CHAMPION, ModelChoice.AS_OF_THEN):
        with pytest.raises(NoChampion):
            make_plan(engine, model=model)
    promote_model(engine)
    with pytest.raises(BadInput, match="no champion at any time"):
        make_plan(engine, model=ModelChoice.AS_OF_THEN)
    with pytest.raises(BadInput, match="has no version 9"):
        make_plan(engine, model=9)
    with pytest.raises(BadInput, match="no plan 99"):
        rescoring.execute(engine, 99, run_key="k")


def test_a_plan_over_a_window_without_rows(engine: Engine, champion: int) -> None:
    plan = make_plan(engine)
    assert (plan.rows, plan.exact, plan.changes) == (0, True, 0)
    assert rescoring.execute(engine, plan.plan_id, run_key="k").scored == 0
    assert rows(engine, "select state from millrace.scoring_runs") == [("done",)]


def test_a_window_that_is_not_over_is_refused(engine: Engine, champion: int) -> None:
    with pytest.raises(BadInput, match="ends after now"):
        make_plan(engine, Window(START, datetime.now(UTC) + HOUR))


def test_of_many_rows_a_sample_is_compared(scored: Engine) -> None:
    exact = make_plan(scored)
    plan = make_plan(scored, compared_rows=900)
    [piece] = plan.pieces
    assert not plan.exact
    assert 900 <= piece.compared <= 900 + 20 * 30  # a block ends with the minute it is full in
    assert plan.changes == pytest.approx(exact.changes, rel=0.35)
    assert plan.rows == 2_700
    # However few rows are wanted, and however full a minute is, it is never more than one minute.
    insert_logs(scored, 5_000, start=START + 80 * MINUTE, step=timedelta(0))
    assert 30 <= make_plan(scored, compared_rows=10).pieces[0].compared <= 5_030


def test_the_sample_scores_as_the_whole_does(scored: Engine) -> None:
    """A block has its context before it, so that its verdicts are those of the run."""
    plan = make_plan(scored, compared_rows=600)
    rescoring.execute(scored, make_plan(scored).plan_id, run_key="k")
    scoring.score(scored, DETECTOR, window=WINDOW, version=1)
    # Back to version 1, the same plan by sample finds the same.
    again = make_plan(scored, compared_rows=600)
    assert [(p.compared, p.to_anomaly, p.to_normal) for p in again.pieces] == [
        (p.compared, p.to_anomaly, p.to_normal) for p in plan.pieces
    ]


def test_pieces_are_sharded_and_published_together(engine: Engine) -> None:
    make_partitions(engine)
    for minutes, threshold in ((-60, 0.5), (20, 0.45), (40, 0.4)):
        promote_at(engine, START + minutes * MINUTE, threshold=threshold)
    insert_logs(engine, 3_600)
    scoring.score(engine, DETECTOR)
    believed = rows(engine, "select * from analytics.predictions_current order by ts, log_id")
    hourly = rows(engine, "table analytics.scoring_hourly")
    alarms = rows(engine, "select * from analytics.anomalies_hourly order by 2, 3")
    plan = make_plan(engine, model=ModelChoice.AS_OF_THEN)
    claimed, _ = rescoring.claim(engine, plan.plan_id, "k", shard_rows=500)
    assert len(claimed.runs) == 3
    assert len(claimed.shards) >= 8
    assert sum(shard.claimed for shard in claimed.shards) == 3_600
    for shard in claimed.shards:
        scoring.score_shard(engine, shard.run_id, shard.shard)
        # Until the last is in and the plan is published, nothing has changed for those who look.
        assert rows(engine, "select * from analytics.predictions_current order by ts, log_id") == believed
        assert rows(engine, "table analytics.scoring_hourly") == hourly
        assert rows(engine, "select * from analytics.anomalies_hourly order by 2, 3") == alarms
    assert scoring.publish(engine, claimed.runs[1].run_id).state == "done"
    assert rows(engine, "select distinct state from millrace.scoring_runs") == [("done",)]
    assert rows(engine, "select model_version, count(*) from analytics.predictions_current group by 1 order by 1") == [
        (1, 1_200),
        (2, 1_200),
        (3, 1_200),
    ]
    assert rows(engine, "table analytics.scoring_hourly") != hourly
    check_accounts(engine, ever=7_200)


def test_a_plan_that_was_left_open_is_finished_by_the_next_run(scored: Engine) -> None:
    promote_at(scored, START + HOUR, threshold=0.4)
    promote_at(scored, START - HOUR, threshold=0.5)
    plan = make_plan(scored, model=ModelChoice.AS_OF_THEN)
    claimed, _ = rescoring.claim(scored, plan.plan_id, "lost", shard_rows=700)
    assert len(claimed.runs) == 2
    scoring.score_shard(scored, claimed.shards[-1].run_id, claimed.shards[-1].shard)
    insert_logs(scored, 50, start=START + MINUTE)
    report = scoring.score(scored, DETECTOR)
    assert scalar(scored, "select scored from millrace.scoring_runs where run_id = :r", r=report.run_id) == 50
    assert rows(scored, "select count(*) from analytics.predictions_current") == [(2_750,)]
    check_accounts(scored, ever=2_750 + 2_700)


def test_partitions_of_the_history_are_made(scored: Engine) -> None:
    rescoring.execute(scored, make_plan(scored).plan_id, run_key="k")
    assert scalar(scored, "select count(*) from millrace.predictions_history_default") == 0
    with transaction(scored) as conn:
        assert START.date() in partitions.existing(conn, partitions.HISTORY)
