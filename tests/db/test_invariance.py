"""What is predicted of a row depends on the row, the model and the claim's snapshot, and on nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from mllib.jobs import scoring
from mllib.store import rows as row_store
from mllib.store.database import transaction
from mllib.types import Window
from tests.db.scoring_factories import (
    DETECTOR,
    check_accounts,
    insert_logs,
    make_partitions,
    predictions_hash,
    promote_model,
    rows,
)
from tests.factories import START

ROWS = 600
MINUTE = timedelta(minutes=1)
LAST_MINUTE = 110


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to come to the same predictions: how the claim is cut, in which order, and what goes wrong."""

    shard_rows: int
    chunk_rows: int
    order: int  # seed of the order of the shards
    failing: frozenset[int] = frozenset()  # shards, modulo their number, that fail once after they have written
    cuts: tuple[int, ...] | None = None  # seconds at which the time is cut into windows; None claims the new rows
    again: bool = False  # score it all once more, as one window


ways = st.builds(
    Way,
    shard_rows=st.integers(60, 700),
    chunk_rows=st.integers(5, 700),
    order=st.integers(0, 1_000),
    failing=st.frozensets(st.integers(0, 20), max_size=4),
    cuts=st.none() | st.lists(st.integers(0, LAST_MINUTE * 60), max_size=3, unique=True).map(tuple),
    again=st.booleans(),
)


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """Rows with quiet spells, dense spells, and several at one instant."""
    make_partitions(engine)
    promote_model(engine)
    insert_logs(engine, 250, step=timedelta(seconds=4))
    insert_logs(engine, 240, start=START + 42 * MINUTE, step=timedelta(milliseconds=450), first=50)
    insert_logs(engine, 80, start=START + 43 * MINUTE, step=timedelta(seconds=45), first=9)
    insert_logs(engine, 30, start=START + 50 * MINUTE, step=timedelta(0), first=7)
    return engine


@pytest.fixture
def in_one_go(filled: Engine) -> str:
    """The hash of all predictions, made in one shard and one frame."""
    scoring.score(filled, DETECTOR)
    check_accounts(filled, scored=ROWS)
    return predictions_hash(filled)


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    # One database for all examples, so that the ids are the same; it is emptied between them.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(way=ways)
@example(way=Way(shard_rows=30, chunk_rows=1, order=3))
@example(way=Way(shard_rows=100, chunk_rows=7, order=0, failing=frozenset(range(20))))
@example(way=Way(shard_rows=90, chunk_rows=64, order=5, cuts=(630, 2_580, 3_000), again=True))
def test_whatever_the_way_the_predictions_are_the_same(filled: Engine, in_one_go: str, way: Way) -> None:
    _forget(filled)
    go(filled, way)
    assert predictions_hash(filled) == in_one_go
    check_accounts(filled, scored=ROWS, ever=2 * ROWS if way.again else ROWS)


def go(engine: Engine, way: Way) -> None:
    """Scores all rows that way."""
    with in_chunks_of(way.chunk_rows):
        for number, window in enumerate(windows(way.cuts)):
            claimed, _ = scoring.claim(engine, DETECTOR, f"{number}", window=window, shard_rows=way.shard_rows)
            order = sorted(claimed.shards, key=lambda shard: hash((way.order, shard.shard)))
            for shard in order:
                if shard.shard % 21 in way.failing:
                    fail(engine, claimed.run.run_id, shard.shard)
                scoring.score_shard(engine, claimed.run.run_id, shard.shard)
            scoring.finish(engine, claimed.run.run_id)
        if way.again:
            scoring.score(engine, DETECTOR, window=Window(START, START + LAST_MINUTE * MINUTE))


def windows(cuts: Sequence[int] | None) -> list[Window | None]:
    """The time in pieces, the last one first; or no window at all."""
    if cuts is None:
        return [None]
    borders = [START - MINUTE, *sorted(START + timedelta(seconds=cut) for cut in cuts), START + LAST_MINUTE * MINUTE]
    return [Window(begin, end) for begin, end in pairwise(borders)][::-1]


def fail(engine: Engine, run_id: int, shard: int) -> None:
    """An attempt at a shard that breaks off after it has written. What commits meanwhile must not be seen later."""

    def breaks_off(*_: Any, **__: Any) -> None:
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mllib.store.ledger.finish_shard", breaks_off)
        with pytest.raises(InterruptedError):
            scoring.score_shard(engine, run_id, shard)


@contextmanager
def in_chunks_of(chunk_rows: int) -> Iterator[None]:
    """Rows are read in frames of this size."""
    assert row_store.stream.__kwdefaults__ is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(row_store.stream.__kwdefaults__, "chunk_rows", chunk_rows)
        yield


def test_what_commits_after_the_claim_changes_nothing_of_it(filled: Engine, in_one_go: str) -> None:
    _forget(filled)
    claimed, _ = scoring.claim(filled, DETECTOR, "k", shard_rows=90)
    assert len(claimed.shards) > 5
    scoring.score_shard(filled, claimed.run.run_id, 2)
    late = insert_logs(filled, 500, step=timedelta(seconds=7))
    fail(filled, claimed.run.run_id, 1)
    scoring.finish(filled, claimed.run.run_id)
    assert rows(filled, "select count(*) from millrace.predictions where log_id = any(:late)", late=late) == [(0,)]
    assert predictions_hash(filled) == in_one_go
    assert scoring.score(filled, DETECTOR).scored == 500
    check_accounts(filled)


def test_rows_that_come_before_others_are_their_context(filled: Engine, in_one_go: str) -> None:
    """The hash is no constant: with other rows around it, a row scores otherwise."""
    _forget(filled)
    with transaction(filled) as conn:
        ids = insert_logs(conn, 500, step=timedelta(milliseconds=700), first=1)
    scoring.score(filled, DETECTOR)
    with transaction(filled) as conn:
        conn.exec_driver_sql("delete from millrace.predictions where log_id = any(%s)", (ids,))
    assert predictions_hash(filled) != in_one_go


def _forget(engine: Engine) -> None:
    with transaction(engine) as conn:
        conn.exec_driver_sql(
            "truncate millrace.predictions, millrace.predictions_history, millrace.prediction_hours,"
            " millrace.scoring_shards, millrace.scoring_runs"
        )
