"""Rows, models and accounts for the tests of claims and scoring: plain functions on a real database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, text

from mllib import artifacts
from mllib.detectors import detector
from mllib.detectors.base import Model
from mllib.store import partitions, registry
from mllib.store.database import transaction
from mllib.types import Verdict, Window
from tests.factories import START, in_chunks, make_logs

DETECTOR = "log_anomaly"

_INSERT = text("""
    insert into millrace.logs (ts, level, service, message, response_time_ms, status_code)
    select
        cast(:start as timestamptz) + i * cast(:step as interval),
        (array['INFO', 'INFO', 'DEBUG', 'WARN', 'ERROR'])[1 + (i * 7 + i / 11) % 5],
        (array['checkout', 'search', 'payments', null])[1 + (i / 3) % 4],
        'request ' || i || ' took ' || (i * 37 % 1000) || ' ms',
        case when i % 97 = 0 then 9000 when i % 6 <> 0 then i * 37 % 1000 end,
        case when i % 5 <> 0 then 200 + 100 * (i * 13 % 4) end
    from generate_series(cast(:first as integer), cast(:first + :n - 1 as integer)) as i
    returning log_id
""")


def insert_logs(
    into: Engine | Connection,
    n: int = 100,
    *,
    start: datetime = START,
    step: timedelta = timedelta(seconds=1),
    first: int = 0,
) -> list[int]:
    """Inserts ``n`` varied rows, ``step`` apart, and returns their ids. On an engine in a transaction of its own."""
    if isinstance(into, Engine):
        with transaction(into) as conn:
            return insert_logs(conn, n, start=start, step=step, first=first)
    binds = {"n": n, "start": start, "step": step, "first": first}
    return list(into.execute(_INSERT, binds).scalars())


def make_partitions(engine: Engine, *days: date) -> None:
    """Makes partitions of logs, by default for the day of START."""
    partitions.ensure(engine, partitions.LOGS, days or (START.date(),))


@cache
def fitted_model() -> Model:
    """A small model of rows like those of ``insert_logs``, fitted once a session: a forest, whose scores spread."""
    number = np.arange(4_000)
    frame = make_logs(
        4_000,
        seed=5,
        span_s=4_000,
        level=np.array(["INFO", "INFO", "DEBUG", "WARN", "ERROR"])[(number * 7 + number // 11) % 5],
        service=[("checkout", "search", "payments", None)[place] for place in number // 3 % 4],
        message="request 1 took 2 ms",
        response_time_ms=np.where(number % 97 == 0, 9_000.0, number * 37.0 % 1_000),
        status_code=200 + 100 * (number * 13 % 4),
    )
    variants = detector(DETECTOR).fit(iter(in_chunks(frame, 4_000)), rows=frame.height, seed=1).variants()
    return next(model for model in variants if model.parameters["weights"]["forest"] == 1)


@cache
def model_bytes(threshold: float) -> bytes:
    """The fitted model with one of several thresholds, serialised: each is a version of its own."""
    return artifacts.dumps(fitted_model().with_threshold(threshold).state())


def promote_model(engine: Engine, *, threshold: float = 0.5) -> int:
    """Stores a version and makes it champion in place of whoever is. Returns its number."""
    version = store_model(engine, threshold=threshold)
    with transaction(engine) as conn:
        registry.record(
            conn,
            registry.NewDecision(
                detector=DETECTOR,
                candidate_version=version,
                champion_version=registry.champion(conn, DETECTOR),
                kind="forced",
                verdict=Verdict.PROMOTE,
                reason="a test needs it",
                as_of=datetime.now(UTC),
                decided_by="test",
            ),
        )
    return version


def store_model(engine: Engine, *, threshold: float = 0.5) -> int:
    """Stores a version as a candidate."""
    content = model_bytes(threshold)
    model = fitted_model()
    with transaction(engine) as conn:
        return registry.add(
            conn,
            registry.NewVersion(
                detector=DETECTOR,
                artifact=content,
                artifact_digest=artifacts.digest(content),
                algorithm=model.algorithm,
                parameters={},
                feature_names=model.feature_names,
                threshold=threshold,
                seed=1,
                train=Window(START - timedelta(days=2), START - timedelta(days=1)),
                validation=None,
                holdout=None,
                training_rows=4_000,
                label_counts={},
                data_hash="0",
                validation_metrics={},
                code_revision=None,
                library_versions={},
                as_of=START,
                trained_by="test",
            ),
        )


def scalar(engine: Engine, statement: str, **binds: Any) -> Any:
    """The one value of a query."""
    with transaction(engine) as conn:
        return conn.execute(text(statement), binds).scalar_one()


def rows(engine: Engine, statement: str, **binds: Any) -> list[tuple[Any, ...]]:
    """The rows of a query as plain tuples."""
    with transaction(engine) as conn:
        return [tuple(row) for row in conn.execute(text(statement), binds)]


def unscored(engine: Engine) -> list[int]:
    """Ids of committed rows without a current prediction."""
    found = rows(
        engine,
        "select log_id from millrace.logs l where not exists"
        " (select from millrace.predictions p where p.ts = l.ts and p.log_id = l.log_id) order by 1",
    )
    return [log_id for (log_id,) in found]


def predictions_hash(engine: Engine) -> str:
    """One hash over everything that the model says of every row; who said it when is left out."""
    found = rows(
        engine,
        "select ts, log_id, model_version, score, raw_score, severity, is_anomaly, explanation::text"
        " from millrace.predictions"
        " order by 1, 2",
    )
    return hashlib.sha256(repr(found).encode()).hexdigest()


def check_accounts(engine: Engine, *, scored: int | None = None, ever: int | None = None) -> None:
    """Holds the tables against one another.

    Every prediction belongs to a row, no row has two, the hourly counts are those of the predictions, and every run is
    closed with the counts of its shards. ``scored`` is the number of current predictions (default: one for each row),
    ``ever`` of those ever written, superseded ones included (default: none was superseded).
    """
    current = scalar(engine, "select count(*) from millrace.predictions")
    superseded = scalar(engine, "select count(*) from millrace.predictions_history")
    assert current == (scalar(engine, "select count(*) from millrace.logs") if scored is None else scored)
    assert current + superseded == (current if ever is None else ever)
    assert scalar(engine, "select count(distinct log_id) from millrace.predictions") == current
    assert scalar(engine, "select count(*) from millrace.predictions join millrace.logs using (ts, log_id)") == current
    assert hours_kept(engine) == hours_recounted(engine)
    assert scalar(engine, "select count(*) from millrace.scoring_runs where state <> 'done'") == 0
    assert (
        scalar(engine, "select coalesce(sum(scored), 0) from millrace.scoring_runs where claimed = scored")
        == scalar(engine, "select coalesce(sum(scored), 0) from millrace.scoring_shards")
        == current + superseded
    )


def hours_kept(engine: Engine) -> list[tuple[Any, ...]]:
    """``prediction_hours`` as it stands."""
    return rows(engine, "select hour, run_id, rows, anomalies, max_score from millrace.prediction_hours order by 1, 2")


def hours_recounted(engine: Engine) -> list[tuple[Any, ...]]:
    """``prediction_hours`` as it ought to be."""
    return rows(
        engine,
        "select date_trunc('hour', ts, 'UTC'), run_id, count(*), count(*) filter (where is_anomaly), max(score)"
        " from millrace.predictions group by 1, 2 order by 1, 2",
    )


def ids_of_run(engine: Engine, run_ids: Iterable[int]) -> set[int]:
    """Rows whose current prediction one of these runs made."""
    return {
        log_id
        for (log_id,) in rows(
            engine, "select log_id from millrace.predictions where run_id = any(:runs)", runs=list(run_ids)
        )
    }
