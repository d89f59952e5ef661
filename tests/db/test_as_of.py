"""What was believed at a time, and that a run counts from its publication."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mllib.errors import ShardsMissing
from mllib.jobs import rescoring, scoring
from mllib.store.database import transaction
from mllib.types import Window
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
    insert_logs,
    promote_model,
    rows,
    scalar,
)
from tests.factories import START

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)

CURRENT = "select * from analytics.predictions_current order by detector, ts, log_id"
THEN = "select * from analytics.predictions_as_of(:moment) order by detector, ts, log_id"


def look(engine: Engine) -> tuple[Any, list[tuple[Any, ...]]]:
    """The current view, and a moment at which it said so."""
    believed = rows(engine, CURRENT)
    return scalar(engine, "select clock_timestamp()"), believed


@pytest.mark.parametrize("seed", range(4))
def test_it_says_what_the_current_view_said(engine: Engine, champion: int, seed: int) -> None:
    """Claims, windows, re-scores and promotions at random, the view looked at after every shard and publication."""
    chance = random.Random(seed)
    seen = [look(engine)]
    for step in range(12):
        start = START + chance.uniform(0, 100) * MINUTE
        insert_logs(engine, chance.randint(1, 150), start=start, step=timedelta(seconds=8), first=step)
        if chance.random() < 0.3:
            promote_model(engine, threshold=chance.uniform(0.5, 0.6))
        begin, length = chance.uniform(-5, 90), chance.uniform(1, 60)
        window = Window(START + begin * MINUTE, START + (begin + length) * MINUTE)
        kind = chance.choice(["new", "window", "plan"])
        if kind == "plan":
            plan = rescoring.plan(engine, DETECTOR, window, run_key=f"plan {step}", by="test", compared_rows=50)
            todo = rescoring.claim(engine, plan.plan_id, str(step), shard_rows=60)[0]
            run_id, shards = todo.runs[0].run_id, list(todo.shards)
        else:
            over = window if kind == "window" else None
            claimed, _ = scoring.claim(engine, DETECTOR, str(step), window=over, shard_rows=60)
            run_id, shards = claimed.run.run_id, list(claimed.shards)
        seen.append(look(engine))
        chance.shuffle(shards)
        for shard in shards:
            scoring.score_shard(engine, shard.run_id, shard.shard)
            if chance.random() < 0.5:
                seen.append(look(engine))
        if chance.random() < 0.8:  # else the next run finds it open, and finishes it
            scoring.publish(engine, run_id)
            seen.append(look(engine))
    scoring.score(engine, DETECTOR)
    seen.append(look(engine))
    assert len({len(believed) for _, believed in seen}) > 5
    for moment, believed in seen:
        assert rows(engine, THEN, moment=moment) == believed
    assert rows(engine, THEN, moment="infinity") == rows(engine, CURRENT)
    assert rows(engine, THEN, moment="-infinity") == []
    check_accounts(engine, ever=scalar(engine, "select sum(scored)::bigint from millrace.scoring_runs"))


def test_it_agrees_with_now_in_one_statement_while_a_run_is_open(engine: Engine, champion: int) -> None:
    insert_logs(engine, 600)
    scoring.score(engine, DETECTOR)
    promote_model(engine, threshold=0.56)
    claimed, _ = scoring.claim(engine, DETECTOR, "k", window=Window(START, START + 5 * MINUTE), shard_rows=100)
    scoring.score_shard(engine, claimed.run.run_id, 1)
    assert (
        rows(
            engine,
            "(table analytics.predictions_current except select * from analytics.predictions_as_of(now())) union all"
            " (select * from analytics.predictions_as_of(now()) except table analytics.predictions_current)",
        )
        == []
    )


def test_the_first_scores_of_a_run_wait_for_its_last(engine: Engine, champion: int) -> None:
    insert_logs(engine, 600)
    claimed, _ = scoring.claim(engine, DETECTOR, "k", shard_rows=100)
    assert len(claimed.shards) > 4
    scoring.score_shard(engine, claimed.run.run_id, 2)
    assert rows(engine, CURRENT) == []
    assert rows(engine, "table analytics.scoring_hourly") == []
    scoring.finish(engine, claimed.run.run_id)
    [(count, published)] = rows(
        engine, "select count(*), max(scored_at) = min(scored_at) from analytics.predictions_current"
    )
    assert (count, published) == (600, True)
    assert rows(engine, "select sum(rows) from analytics.scoring_hourly") == [(600,)]


def test_publishing_refuses_while_a_shard_is_missing_and_only_that_one_is_run_again(
    engine: Engine, champion: int
) -> None:
    insert_logs(engine, 600)
    claimed, _ = scoring.claim(engine, DETECTOR, "k", shard_rows=100)
    run_id = claimed.run.run_id
    failed = claimed.shards[3].shard
    for shard in claimed.shards:
        if shard.shard == failed:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("mllib.store.ledger.finish_shard", lambda *_, **__: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    scoring.score_shard(engine, run_id, shard.shard)
        else:
            scoring.score_shard(engine, run_id, shard.shard)
    stored = rows(engine, "select log_id, xmin::text from millrace.predictions order by 1")
    with pytest.raises(ShardsMissing, match=f"Run {run_id} cannot be published: 1 of its shards"):
        scoring.publish(engine, run_id)
    assert scalar(engine, "select state from millrace.scoring_runs") == "open"
    assert rows(engine, CURRENT) == []
    # The claim, run again, hands out the one that is missing; the others stay as they were stored.
    again, _ = scoring.claim(engine, DETECTOR, "k")
    assert [shard.shard for shard in again.shards] == [failed]
    scoring.score_shard(engine, run_id, failed)
    assert scoring.publish(engine, run_id).scored == 600
    kept = rows(engine, "select log_id, xmin::text from millrace.predictions order by 1")
    assert set(stored) <= set(kept)
    published = scalar(engine, "select finished_at from millrace.scoring_runs")
    scoring.publish(engine, run_id)
    assert scalar(engine, "select finished_at from millrace.scoring_runs") == published
    check_accounts(engine)


def test_a_publication_is_later_than_the_one_before_though_the_clock_was_put_back(
    engine: Engine, champion: int
) -> None:
    insert_logs(engine, 60)
    scoring.score(engine, DETECTOR)
    with transaction(engine) as conn:
        conn.execute(text("update millrace.scoring_runs set finished_at = now() + interval '1 hour'"))
    scoring.score(engine, DETECTOR, window=Window(START, START + HOUR))
    [(first,), (second,)] = rows(engine, "select finished_at from millrace.scoring_runs order by run_id")
    assert second == first + timedelta(microseconds=1)


def test_an_analyst_may_ask_and_the_filter_reaches_the_partitions(engine: Engine, champion: int) -> None:
    insert_logs(engine, 60)
    insert_logs(engine, 60, start=START + timedelta(days=1))
    scoring.score(engine, DETECTOR)
    with transaction(engine) as conn:
        conn.execute(text("set local role millrace_analyst"))
        asked = "select count(*) from analytics.predictions_as_of(now()) where ts < '2026-03-03'"
        assert conn.execute(text(asked)).scalar_one() == 60
        plan = "\n".join(conn.execute(text(f"explain {asked}")).scalars())
    # Merged into the query, not run as a function over everything.
    assert "Function Scan" not in plan
    assert "logs_2026" in plan.replace("logs_p2026", "logs_2026")
    assert (
        scalar(
            engine,
            "select has_function_privilege('public', oid, 'execute') from pg_proc where proname = :name",
            name="predictions_as_of",
        )
        is False
    )
