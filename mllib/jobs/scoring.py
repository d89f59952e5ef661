"""Scoring: claim rows, score them shard by shard, close the run. Each step can be killed and run again.

A shard's predictions and the ledger's word that it is done commit together, so a row is scored once or not yet. They
become the current ones all at once, when the run is published.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from mllib import scoring
from mllib.detectors import detector as detector_named
from mllib.errors import RowsMoved, ShardsMissing
from mllib.jobs.models import load_model
from mllib.store import ledger, partitions, predictions
from mllib.store import rows as row_store
from mllib.store.database import connection, transaction
from mllib.store.detectors import source_of
from mllib.store.ledger import PlannedShard, Run, ShardState
from mllib.types import Window

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """What a run has to do: its own shards that are not in yet."""

    run: Run
    shards: tuple[ShardState, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreReport:
    """What one call of ``score`` did. ``claimed`` and ``scored`` include unfinished earlier runs that it finished."""

    detector: str
    model_version: int
    run_id: int
    claimed: int
    scored: int
    anomalies: int
    seconds: float
    rows_per_second: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def claim(
    engine: Engine,
    detector: str,
    run_key: str,
    *,
    window: Window | None = None,
    version: int | None = None,
    shard_rows: int = scoring.SHARD_ROWS,
) -> tuple[Claimed, list[Run]]:
    """Claims rows for the run with this key, or finds its claim again. Earlier runs that were left open are finished
    first, and returned beside it.

    Raises NoChampion when there is no model to score with; then nothing is claimed and the rows wait.
    """
    pack = packing(detector, shard_rows)
    run, finished = after_open_runs(
        engine,
        detector,
        lambda: ledger.claim(engine, detector, run_key, window=window, version=version, pack=pack),
    )
    with transaction(engine) as conn:
        todo = tuple(shard for shard in ledger.shards(conn, run.run_id) if not shard.done)
        if window is not None and not run.claimed:
            source = source_of(detector)
            _say_why_empty(window, source.table.row, row_store.first_event(conn, source))
    return Claimed(run=run, shards=todo), finished


def packing(detector: str, shard_rows: int = scoring.SHARD_ROWS) -> ledger.Pack:
    """How claims of a detector are cut into shards: by event time and size, with its context in mind."""
    context = detector_named(detector).context

    def pack(count: ledger.Count) -> list[PlannedShard]:
        # Each range is read with the context before it: steps shorter than that hardly spare any reading.
        step = max(context, scoring.MINUTE)
        counts = count(step)
        if any(rows > shard_rows for _, rows in counts):
            step = scoring.MINUTE
            counts = count(step)
        packed = scoring.pack(counts, step=step, context=context, shard_rows=shard_rows)
        return [PlannedShard(ranges=ranges, claimed=rows) for ranges, rows in packed]

    return pack


def after_open_runs(engine: Engine, detector: str, attempt: Callable[[], T]) -> tuple[T, list[Run]]:
    """What ``attempt`` at a claim returns, after the open runs in its way, and these, finished."""
    finished: list[Run] = []
    while True:
        try:
            return attempt(), finished
        except ledger.OpenRun as other:
            log.info("Run %s of %s is not finished; finishing it first.", other.run_id, detector)
            finished.append(finish(engine, other.run_id))
        except IntegrityError as error:
            # Two claims of a detector that does not exist yet in this database cannot see each other's lock.
            if "scoring_runs_one_open" not in str(error.orig):
                raise


def _say_why_empty(window: Window, row: str, first: datetime | None) -> None:
    if first is None:
        log.info("There is no %s in %s, and none at all.", row, window)
    elif first >= window.end:
        log.info("There is no %s in %s; the first one is of %s UTC.", row, window, f"{first:%Y-%m-%d %H:%M:%S}")
    else:
        log.info("There is no %s in %s.", row, window)


def score_shard(engine: Engine, run_id: int, shard: int) -> tuple[int, int]:
    """Scores one shard and commits it together with its entry in the ledger. Returns (rows, anomalies).

    A shard that is done is left as it is, and reported with its counts of zero new rows.
    """
    with transaction(engine) as conn:
        run = ledger.get_run(conn, run_id)
        taken = ledger.take_shard(conn, run_id, shard)
    if taken.done:
        return 0, 0
    source = source_of(run.detector)
    partitions.mirror(engine, partitions.PREDICTIONS, taken.ranges, of=source.table)
    if taken.supersedes:
        partitions.mirror(engine, partitions.HISTORY, taken.ranges, of=source.table)
    with connection(engine) as reader, transaction(engine) as writer:
        taken = ledger.take_shard(writer, run_id, shard)
        if taken.done:
            return 0, 0
        if taken.supersedes:
            predictions.supersede(writer, taken.detector_id, run_id, taken.ranges)
        context = detector_named(run.detector).context
        keys = {"detector_id": taken.detector_id, "run_id": run_id}
        with scoring.ahead(row_store.stream(reader, source, taken.selection, taken.ranges, context=context)) as frames:
            model = load_model(engine, run.detector, taken.model_version)
            with scoring.ahead(scoring.score(frames, model, context=context)) as scored:
                written = predictions.write(writer, scored, model_version=taken.model_version, **keys)
        if written.rows != taken.claimed:
            _explain(row_store.count(writer, source, taken.selection, taken.ranges), written.rows, taken.claimed)
        predictions.count_hours(writer, written, **keys)
        ledger.finish_shard(writer, run_id, shard, scored=written.rows, anomalies=written.anomalies)
    return written.rows, written.anomalies


def _explain(present: int, written: int, claimed: int) -> None:
    """Claimed rows that somebody has deleted since are lost; rows that are there and were not read must not be."""
    if written != present:
        raise RowsMoved(
            f"{present:,} claimed rows are there, but {written:,} were read, because partitions changed meanwhile. "
            "Nothing of the shard was written; run it again."
        )
    log.warning("%s of the %s claimed rows were deleted before they could be scored.", claimed - written, claimed)


def finish(engine: Engine, run_id: int) -> Run:
    """Scores whatever shards of a run are not in, and publishes it, with the other pieces of its plan where it has one.

    Waits for shards that another worker has in hand.
    """
    with transaction(engine) as conn:
        runs = ledger.group(conn, run_id)
        todo = [shard for run in runs for shard in ledger.shards(conn, run) if not shard.done]
    for shard in todo:
        score_shard(engine, shard.run_id, shard.shard)
    return publish(engine, run_id)


def publish(engine: Engine, run_id: int) -> Run:
    """Makes the predictions of a run the current ones, all at once. Publishing it again changes nothing.

    Raises ShardsMissing, and publishes nothing, while one of its shards, or of its plan's other pieces, is not in.
    """
    with transaction(engine) as conn:
        missing = ledger.publish(conn, run_id)
    if missing:
        raise ShardsMissing(run_id, missing)
    with transaction(engine) as conn:
        return ledger.get_run(conn, run_id)


def score(
    engine: Engine,
    detector: str,
    *,
    window: Window | None = None,
    version: int | None = None,
    run_key: str | None = None,
    started: float | None = None,
) -> ScoreReport:
    """The whole of one scoring run, as the command line does it: claim, score, close.

    Without ``window`` it scores the newly ingested rows; with one, all rows of it, and supersedes what was believed.
    ``started`` is the time.monotonic() that ``seconds`` counts from, for a caller who had to connect first. Raises
    NoChampion when the detector has no model yet.
    """
    started = time.monotonic() if started is None else started
    claimed, earlier = claim(engine, detector, run_key or f"cli-{uuid.uuid4()}", window=window, version=version)
    run = finish(engine, claimed.run.run_id)
    runs = [*earlier, run]
    seconds = time.monotonic() - started
    scored = sum(r.scored for r in runs)
    return ScoreReport(
        detector=detector,
        model_version=run.model_version,
        run_id=run.run_id,
        claimed=sum(r.claimed for r in runs),
        scored=scored,
        anomalies=sum(r.anomalies for r in runs),
        seconds=round(seconds, 3),
        rows_per_second=round(scored / seconds, 1),
    )
