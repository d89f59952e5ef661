"""Lives through months of logs in minutes, under four rules of promotion at once, with the code that production runs.

Nothing is written: the registry of a replay is in memory, and the database is asked to refuse any write. A candidate
does not depend on who is champion, so it is fitted once and judged once against each champion that it meets. Scoring
hour by hour by the champion of the week is scoring the week at once, because a score depends on the row, the model and
the rows before it, never on the batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine

from mllib import sources
from mllib.detectors import detector as detector_named
from mllib.detectors.base import Detector, Model
from mllib.errors import NothingToTrainOn
from mllib.features.stream import with_context
from mllib.gate import promotion
from mllib.gate.promotion import Decision, Evidence
from mllib.gate.slices import Slices
from mllib.jobs.evidence import measure
from mllib.jobs.labelled import score_labelled
from mllib.jobs.training import DEFAULTS, TrainingBasis, TrainingOptions, fit, plan
from mllib.replay import Counts, Period, Replay, Rule, Step, count, schedule, takes
from mllib.sources import Source
from mllib.store import labels
from mllib.store import rows as row_store
from mllib.store.database import transaction
from mllib.types import Policy, Window

log = logging.getLogger(__name__)

WEEK = timedelta(days=7)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidate:
    number: int
    model: Model
    slices: Slices


@dataclass(kw_only=True, slots=True)
class _Life:
    """What stays the same through a replay, and the champions as they come and go."""

    method: Detector
    options: TrainingOptions
    snapshot: str
    """One for all periods: rows that arrive while the replay runs are in none of them."""
    now: datetime
    champions: dict[Rule, _Candidate] = field(default_factory=dict)
    trained: int = 0


def replay(
    engine: Engine,
    detector: str,
    *,
    window: Window | None = None,
    every: timedelta = WEEK,
    options: TrainingOptions = DEFAULTS,
) -> Replay:
    """Retrains at the start of each period of ``window`` (default: all logs), and scores the period, under each rule.

    At a retraining nothing is looked at that is later than it: rows and imported labels count as known at the row's
    time, other labels from when they were given, all of them ``options.label_delay`` later. What a period is measured
    by are the labels of today. Raises NothingToTrainOn when there is no log line at all, BadInput for a range of too
    many periods; a period in which nothing can be trained is passed over and says why.
    """
    started = time.monotonic()
    # A transaction for each period, as production has: a long one would keep partitions from being made and dropped.
    reading = engine.execution_options(postgresql_readonly=True)
    with transaction(reading) as conn:
        window = window or _everything(conn, sources.source(detector_named(detector).source))
        life = _Life(
            method=detector_named(detector),
            options=options,
            snapshot=row_store.current_snapshot(conn),
            now=datetime.now(UTC),
        )
    windows = schedule(window, every)
    periods = []
    for number, stretch in enumerate(windows, start=1):
        begun = time.monotonic()
        with transaction(reading) as conn:
            periods.append(_live(conn, life, stretch))
        log.info(
            "%d of %d: %s, %s, %.1f s.",
            number,
            len(windows),
            f"{stretch.start:%Y-%m-%d %H:%M}",
            _said(periods[-1]),
            time.monotonic() - begun,
        )
    return Replay(
        detector=detector,
        window=window,
        every=every,
        periods=tuple(periods),
        seconds=round(time.monotonic() - started, 3),
    )


def _live(conn: Connection, life: _Life, window: Window) -> Period:
    """One period: train, judge, promote or not under each rule, score."""
    before = dict(life.champions)
    why_not = ""
    candidate: _Candidate | None = None
    decided: dict[Rule, Decision | None] = {}
    try:
        candidate = _train(conn, life, window.start)
    except NothingToTrainOn as reason:
        why_not = str(reason)
    if candidate is not None:
        decided = _promote(conn, life, candidate, as_of=window.start)
    needed = {one.number: one.model for one in (*before.values(), *life.champions.values())}
    counts = _score(conn, life, window, needed)
    steps = {}
    for rule in Rule:
        champion, old = life.champions.get(rule), before.get(rule)
        decision = decided.get(rule)
        promoted = champion is not old
        steps[rule] = Step(
            champion=champion.number if champion else None,
            promoted=promoted,
            verdict=decision.verdict if decision else None,
            reason=decision.reason if decision else why_not,
            counts=counts[champion.number] if champion else None,
            replaced=counts[old.number] if promoted and old else None,
        )
    return Period(window=window, candidate=candidate.number if candidate else None, why_not=why_not, steps=steps)


def _train(conn: Connection, life: _Life, as_of: datetime) -> _Candidate:
    slices = plan(conn, life.method, as_of=as_of, options=life.options, snapshot=life.snapshot)
    basis = TrainingBasis(
        train=slices.train,
        validation=slices.validation,
        training_rows=slices.train_counts.rows,
        snapshot=life.snapshot,
        as_of=as_of,
        recorded_until=life.now,
        options=life.options,
    )
    model = fit(conn, life.method, basis).model
    life.trained += 1
    return _Candidate(number=life.trained, model=model, slices=slices)


def _promote(conn: Connection, life: _Life, candidate: _Candidate, *, as_of: datetime) -> dict[Rule, Decision | None]:
    """Makes the candidate champion of each rule that takes it. Judges it once against each champion that it meets."""
    found: dict[int | None, Evidence] = {}
    decided = {}
    for rule in Rule:
        champion = life.champions.get(rule)
        key = champion.number if champion else None

        def judge(policy: Policy, champion: _Candidate | None = champion, key: int | None = key) -> Decision:
            if key not in found:
                found[key] = _compare(conn, life, candidate, champion, as_of=as_of)
            return promotion.decide(found[key], policy, min_positives=life.options.min_positives)

        taken, decided[rule] = takes(rule, key, judge)
        if taken:
            life.champions[rule] = candidate
    return decided


def _compare(
    conn: Connection, life: _Life, candidate: _Candidate, champion: _Candidate | None, *, as_of: datetime
) -> Evidence:
    rivals = [candidate] if champion is None else [candidate, champion]
    models = [rival.model for rival in rivals]
    rows = score_labelled(
        conn,
        life.method,
        candidate.slices.holdout,
        models,
        as_of=as_of,
        label_delay=life.options.label_delay,
        snapshot=life.snapshot,
        trained_on=[rival.slices.train for rival in rivals],
    )
    slices = candidate.slices
    return measure(
        rows,
        models,
        first=champion is None,
        volume_ratio=slices.volume_ratio,
        anomaly_ratio=slices.anomaly_ratio,
    )


def _score(conn: Connection, life: _Life, window: Window, models: Mapping[int, Model]) -> dict[int, Counts]:
    """What each model does with the rows of a period, read once for all of them."""
    counts = dict.fromkeys(models, Counts())
    if not models:
        return counts
    source = sources.source(life.method.source)
    verdicts = labels.in_window(conn, source, window, as_of=max(life.now, window.end), delay=timedelta(0))
    selection = row_store.RowsInWindow(window=window, current=life.snapshot)
    context = life.method.context
    for frame in with_context(row_store.stream(conn, source, selection, [window], context=context), context):
        rows = frame.filter("claimed").select("log_id")
        verdict = rows.join(verdicts, on="log_id", how="left", maintain_order="left")["positive"]
        labelled, positive = verdict.is_not_null().to_numpy(), verdict.fill_null(value=False).to_numpy()
        for number, model in models.items():
            flags = model.raw_scores(frame) >= model.threshold
            counts[number] += count(flags, labelled, positive)
    return counts


def _everything(conn: Connection, source: Source) -> Window:
    extent = labels.extent(conn, source, as_of=datetime.now(UTC), delay=timedelta(0))
    if extent.first_row is None or extent.last_row is None:
        raise NothingToTrainOn(
            f"There is no {source.table.row} to live through. "
            "Ingest some with `millrace ingest PATH --format FORMAT --labels`."
        )
    hour = extent.first_row.replace(minute=0, second=0, microsecond=0)
    return Window(hour, extent.last_row + timedelta(microseconds=1))


def _said(period: Period) -> str:
    if period.candidate is None:
        return f"no candidate ({period.why_not.partition('. ')[0]})"
    took = [rule.value for rule, step in period.steps.items() if step.promoted]
    return f"candidate {period.candidate} " + (f"promoted under {', '.join(took)}" if took else "promoted under none")
