"""Scoring a range of event time again: a plan first, which is kept and shown; then exactly that plan, or a refusal."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine

from mllib import scoring
from mllib.detectors import detector as detector_named
from mllib.errors import BadInput
from mllib.jobs.models import load_model
from mllib.jobs.scoring import after_open_runs, finish, packing
from mllib.jobs.scoring import publish as publish_run
from mllib.store import ledger, rescoring
from mllib.store import rows as row_store
from mllib.store.database import connection, transaction
from mllib.store.detectors import source_of
from mllib.store.ledger import Run, ShardState
from mllib.store.rescoring import ModelChoice, Piece, Plan
from mllib.store.rows import RowsInWindow
from mllib.types import Window

COMPARED_ROWS = 200_000
"""Up to so many rows a plan scores for real to say which verdicts would change: a few seconds. Of more it takes blocks
of consecutive lines, evenly spread, and says so."""

_BLOCKS = 20

_HOURS_SHOWN = 48

_CHOICES = {
    ModelChoice.CHAMPION: "champion now",
    ModelChoice.AS_OF_THEN: "champion as of then",
    ModelChoice.VERSION: "a version",
}

Minutes = Sequence[tuple[datetime, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """What is to be done for a plan: its runs, and their shards that are not in yet."""

    plan: Plan
    runs: tuple[Run, ...]
    shards: tuple[ShardState, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RescoreReport:
    """What carrying out a plan came to."""

    plan_id: int
    runs: tuple[int, ...]
    claimed: int
    scored: int
    anomalies: int
    seconds: float


def plan(
    engine: Engine,
    detector: str,
    window: Window,
    *,
    model: ModelChoice | int = ModelChoice.CHAMPION,
    reason: str | None = None,
    run_key: str,
    by: str,
    compared_rows: int = COMPARED_ROWS,
) -> Plan:
    """Makes and stores a plan: which rows, by which version, and how many verdicts would change. Scores nothing.

    ``model`` may be the number of a version. A run (``run_key``) that has claimed its plan finds that plan again.
    Raises NoChampion, and BadInput when the window is not over, there is no such version, or nobody was champion then.
    """
    choice, version = (ModelChoice.VERSION, model) if isinstance(model, int) else (model, None)
    with connection(engine) as conn, conn.begin():
        found = rescoring.claimed_by(conn, run_key)
        if found is not None:
            return found
        ledger.require_past(conn, window)
        last_run = rescoring.last_run(conn, detector)
        source = source_of(detector)
        snapshot = row_store.current_snapshot(conn)
        stretches = [
            (
                stretch,
                by_version,
                row_store.counts(conn, source, RowsInWindow(window=stretch, current=snapshot), scoring.MINUTE),
            )
            for stretch, by_version in rescoring.resolve(conn, detector, window, choice, version)
        ]
        counted = [(stretch, number, minutes) for stretch, number, minutes in stretches if number is not None]
        rows = sum(_rows(minutes) for _, _, minutes in counted)
        hours: Counter[datetime] = Counter()
        pieces = []
        for stretch, number, minutes in counted:
            for minute, count in minutes:
                hours[minute.replace(minute=0)] += count
            share = min(1.0, compared_rows / rows) if rows else 1.0
            chosen = _blocks(minutes, round(share * _rows(minutes)))
            found_out = _compare(engine, conn, detector, RowsInWindow(window=stretch, current=snapshot), number, chosen)
            pieces.append(Piece(window=stretch, model_version=number, rows=_rows(minutes), **found_out))
        return rescoring.add(
            conn,
            Plan(
                detector=detector,
                window=window,
                choice=choice,
                snapshot=snapshot,
                last_run=last_run,
                rows=rows,
                left_out=sum(_rows(minutes) for _, number, minutes in stretches if number is None),
                hours=dict(hours),
                pieces=tuple(pieces),
                reason=reason,
                made_by=by,
            ),
            run_key=run_key,
        )


def claim(
    engine: Engine, plan_id: int, run_key: str, *, shard_rows: int = scoring.SHARD_ROWS
) -> tuple[Claimed, list[Run]]:
    """Claims a plan, or finds its claim again. Runs that were left open are finished first, and returned beside it.

    Raises PlanOutdated when rows, predictions or champion have changed since the plan was made; then nothing is done.
    """
    with transaction(engine) as conn:
        the_plan = rescoring.get(conn, plan_id)
    pack = packing(the_plan.detector, shard_rows)
    run_ids, finished = after_open_runs(
        engine, the_plan.detector, lambda: rescoring.claim(engine, plan_id, run_key, pack=pack)
    )
    with transaction(engine) as conn:
        runs = tuple(ledger.get_run(conn, run_id) for run_id in run_ids)
        todo = tuple(shard for run_id in run_ids for shard in ledger.shards(conn, run_id) if not shard.done)
    return Claimed(plan=the_plan, runs=runs, shards=todo), finished


def show(engine: Engine, plan_id: int) -> Plan:
    """A stored plan. Raises BadInput when there is none with this number."""
    with transaction(engine) as conn:
        return rescoring.get(conn, plan_id)


def model_choice(name: str, version: int | None = None) -> ModelChoice | int:
    """What ``plan`` takes as its model, from the words of a form. Raises BadInput when version and choice disagree."""
    choice = ModelChoice(name)
    if (choice is ModelChoice.VERSION) != (version is not None):
        raise BadInput("Give a version if, and only if, the model to score with is a version.")
    return choice if version is None else version


def publish(engine: Engine, plan_id: int) -> list[Run]:
    """Makes the predictions of a claimed plan the current ones, all at once. Raises ShardsMissing."""
    with transaction(engine) as conn:
        run_ids = rescoring.run_ids(conn, plan_id)
    publish_run(engine, run_ids[0])
    with transaction(engine) as conn:
        return [ledger.get_run(conn, run_id) for run_id in run_ids]


def execute(engine: Engine, plan_id: int, *, run_key: str, started: float | None = None) -> RescoreReport:
    """Carries out a plan as the command line does it: claim, score, publish. One that is done is reported again.

    Raises PlanOutdated when it is not true any more; then nothing is done.
    """
    started = time.monotonic() if started is None else started
    claimed, _ = claim(engine, plan_id, run_key)
    finish(engine, claimed.runs[0].run_id)
    runs = publish(engine, plan_id)
    return RescoreReport(
        plan_id=plan_id,
        runs=tuple(run.run_id for run in runs),
        claimed=sum(run.claimed for run in runs),
        scored=sum(run.scored for run in runs),
        anomalies=sum(run.anomalies for run in runs),
        seconds=round(time.monotonic() - started, 3),
    )


def as_table(plan: Plan) -> str:
    """A plan in words and two small tables, as the log and the command line show it."""
    lines = [f"Plan {plan.plan_id}: {plan.detector}, {plan.window}, {_CHOICES[plan.choice]}, {plan.rows:,} rows."]
    if plan.left_out:
        lines.append(f"{plan.left_out:,} rows are left as they are: there was no champion at their time.")
    about = "" if plan.exact else "about "
    lines.append(f"{about}{plan.changes:,} verdicts would change.".capitalize())
    lines.append("")
    lines.append(f"{'from':<20}{'to':<20}{'version':>7}{'rows':>14}{'to anomaly':>12}{'to normal':>12}{'first':>12}")
    for piece in plan.pieces:
        compared = "" if piece.compared == piece.rows else f"  (of {piece.compared:,} compared)"
        lines.append(
            f"{piece.window.start:%Y-%m-%d %H:%M:%S} {piece.window.end:%Y-%m-%d %H:%M:%S} {piece.model_version:>7}"
            f"{piece.rows:>14,}{piece.to_anomaly:>12,}{piece.to_normal:>12,}{piece.first_verdicts:>12,}{compared}"
        )
    by_day = len(plan.hours) > _HOURS_SHOWN
    shown: Counter[str] = Counter()
    for hour, rows in plan.hours.items():
        shown[f"{hour:%Y-%m-%d}" if by_day else f"{hour:%Y-%m-%d %H:00}"] += rows
    lines += ["", f"{'day' if by_day else 'hour':<20}{'rows':>14}"]
    lines += [f"{name:<20}{rows:>14,}" for name, rows in sorted(shown.items())]
    return "\n".join(lines)


def _compare(
    engine: Engine,
    conn: Connection,
    detector: str,
    selection: RowsInWindow,
    version: int,
    blocks: Sequence[Minutes],
) -> dict[str, int]:
    """Scores blocks of the rows with a version, and counts the verdicts that differ from those that are current."""
    context, source = detector_named(detector).context, source_of(detector)
    figures = dict.fromkeys(("compared", "to_anomaly", "to_normal", "first_verdicts"), 0)
    for block in blocks:
        for ranges, _ in scoring.pack(block, context=context):
            before = rescoring.verdicts(conn, detector, Window(ranges[0].start, ranges[-1].end))
            with scoring.ahead(row_store.stream(conn, source, selection, ranges, context=context)) as frames:
                model = load_model(engine, detector, version)
                with scoring.ahead(scoring.score(frames, model, context=context)) as scored:
                    for frame in scored:
                        both = frame.select("log_id", "is_anomaly").join(before, on="log_id", how="left")
                        now, was = both["is_anomaly"], both["was_anomaly"]
                        figures["compared"] += both.height
                        figures["to_anomaly"] += int((now & ~was).sum())
                        figures["to_normal"] += int((~now & was).sum())
                        figures["first_verdicts"] += was.null_count()
    return figures


def _blocks(minutes: Minutes, at_most: int) -> list[Minutes]:
    """All the minutes, if they hold at most so many rows, else stretches of them with about so many, evenly spread.

    A stretch is never shorter than a minute, so that very full minutes can make it more: one of them at the most.
    """
    total = _rows(minutes)
    if total <= at_most:
        return [minutes] if minutes else []
    borders = sorted({block * total // _BLOCKS for block in range(_BLOCKS)})
    blocks: list[list[tuple[datetime, int]]] = [[] for _ in borders]
    place, before = -1, 0
    for minute, rows in minutes:
        while place + 1 < len(borders) and borders[place + 1] <= before:
            place += 1
        if _rows(blocks[place]) < max(1, at_most // _BLOCKS):
            blocks[place].append((minute, rows))
        before += rows
    # In an order by chance, the same every time: where the minutes are so full that a few blocks are enough, those are
    # not the first ones.
    chosen: list[Minutes] = []
    for block in random.Random(0).sample(blocks, len(blocks)):  # noqa: S311  no secret
        if block and sum(map(_rows, chosen)) < max(1, at_most):
            chosen.append(block)
    return sorted(chosen, key=lambda block: block[0])


def _rows(minutes: Minutes) -> int:
    return sum(rows for _, rows in minutes)
