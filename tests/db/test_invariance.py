"""What is predicted of a row depends on the row, the model and the claim's snapshot, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from mllib.jobs import scoring
from mllib.store import logs
from mllib.store.database import transaction
from mllib.types import Window
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
    insert_logs,
    make_partitions,
    predictions_hash,
    promote_model,
)
from tests.factories import START

ROWS = 6_000
MINUTE = timedelta(minutes=1)


def in_one_go(engine: Engine) -> None:
    scoring.score(engine, DETECTOR)


def in_shards_of(rows: int) -> Callable[[Engine], None]:
    def score(engine: Engine) -> None:
        claimed, _ = scoring.claim(engine, DETECTOR, "k", shard_rows=rows)
        assert len(claimed.shards) > 1
        scoring.finish(engine, claimed.run.run_id)

    return score


def last_shard_first(engine: Engine) -> None:
    claimed, _ = scoring.claim(engine, DETECTOR, "k", shard_rows=900)
    for shard in reversed(claimed.shards):
        scoring.score_shard(engine, claimed.run.run_id, shard.shard)
    scoring.finish(engine, claimed.run.run_id)


def by_windows(engine: Engine) -> None:
    for begin, end in ((20.5, 43), (0, 20.5), (60, 61), (43, 60), (61, 500)):
        scoring.score(engine, DETECTOR, window=Window(START + begin * MINUTE, START + end * MINUTE))


def the_first_half_twice(engine: Engine) -> None:
    scoring.score(engine, DETECTOR, window=Window(START + 2 * MINUTE, START + 40.3 * MINUTE))
    scoring.score(engine, DETECTOR)
    scoring.score(engine, DETECTOR, window=Window(START - MINUTE, START + 33 * MINUTE))


def after_a_failure(engine: Engine) -> None:
    """The first attempt at a shard breaks off after it has written; what commits meanwhile must not be seen."""
    claimed, _ = scoring.claim(engine, DETECTOR, "k", shard_rows=2_500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mllib.store.ledger.finish_shard", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scoring.score_shard(engine, claimed.run.run_id, 1)
    late = insert_logs(engine, 500, step=timedelta(seconds=7))
    scoring.finish(engine, claimed.run.run_id)
    with transaction(engine) as conn:
        # Out of the comparison again, and out of the account.
        conn.exec_driver_sql("delete from millrace.logs where log_id = any(%s)", (late,))


WAYS = [
    in_shards_of(100),
    in_shards_of(999),
    in_shards_of(4_000),
    last_shard_first,
    by_windows,
    the_first_half_twice,
    after_a_failure,
]


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """Rows with quiet spells, dense spells, and several at one instant."""
    make_partitions(engine)
    promote_model(engine)
    insert_logs(engine, 3_000, step=timedelta(milliseconds=700))
    insert_logs(engine, 2_000, start=START + 42 * MINUTE, step=timedelta(milliseconds=450), first=50)
    insert_logs(engine, 900, start=START + 43 * MINUTE, step=timedelta(seconds=30), first=9)
    insert_logs(engine, 100, start=START + 50 * MINUTE, step=timedelta(0), first=7)
    return engine


def test_whatever_the_way_the_predictions_are_the_same(filled: Engine) -> None:
    """One database, so that the ids are the same; emptied between the ways."""
    in_one_go(filled)
    check_accounts(filled, scored=ROWS)
    expected = predictions_hash(filled)
    for way in WAYS:
        _forget(filled)
        way(filled)
        assert predictions_hash(filled) == expected, way


@pytest.mark.parametrize("chunk_rows", [211, 1_000])
def test_the_size_of_a_chunk_changes_nothing(filled: Engine, chunk_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    in_one_go(filled)
    expected = predictions_hash(filled)
    _forget(filled)
    assert logs.stream.__kwdefaults__ is not None
    monkeypatch.setitem(logs.stream.__kwdefaults__, "chunk_rows", chunk_rows)
    in_one_go(filled)
    assert predictions_hash(filled) == expected


def test_rows_that_come_before_others_are_their_context(filled: Engine) -> None:
    """The hash is no constant: with other rows around it, a row scores otherwise."""
    in_one_go(filled)
    expected = predictions_hash(filled)
    _forget(filled)
    with transaction(filled) as conn:
        ids = insert_logs(conn, 2_000, step=timedelta(milliseconds=700), first=1)
    in_one_go(filled)
    with transaction(filled) as conn:
        conn.exec_driver_sql("delete from millrace.predictions where log_id = any(%s)", (ids,))
    assert predictions_hash(filled) != expected


def _forget(engine: Engine) -> None:
    with transaction(engine) as conn:
        conn.exec_driver_sql(
            "truncate millrace.predictions, millrace.predictions_history, millrace.prediction_hours,"
            " millrace.scoring_shards, millrace.scoring_runs"
        )
