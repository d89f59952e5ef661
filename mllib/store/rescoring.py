"""Plans of re-scoring: kept before anything is scored, and claimed only while they are still true."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import polars as pl
from sqlalchemy import Connection, Engine

from mllib.errors import BadInput, NoChampion, PlanOutdated
from mllib.store import detectors, ledger, registry, rows
from mllib.store.database import transaction
from mllib.store.queries import queries
from mllib.store.rows import RowsInWindow
from mllib.types import Window


class ModelChoice(enum.StrEnum):
    """Which model scores a row again: the champion now, whoever was champion at its time, or a named version."""

    CHAMPION = "champion"
    AS_OF_THEN = "as-of-then"
    VERSION = "version"


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of a plan that one version scores. The figures of the change are those of the compared rows."""

    window: Window
    model_version: int
    rows: int
    compared: int
    to_anomaly: int
    to_normal: int
    first_verdicts: int

    @property
    def changes(self) -> int:
        """Verdicts that would change; an estimate from the compared rows where these are not all."""
        changed = self.to_anomaly + self.to_normal
        return round(changed * self.rows / self.compared) if self.compared else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One row of ``rescore_plans`` with its pieces; ``plan_id`` is 0 before it is stored."""

    plan_id: int = 0
    detector: str
    window: Window
    choice: ModelChoice
    snapshot: str
    last_run: int
    rows: int
    left_out: int  # rows of times without a champion
    hours: Mapping[datetime, int]
    pieces: tuple[Piece, ...]
    reason: str | None
    made_by: str
    made_at: datetime | None = None  # set by the database

    @property
    def exact(self) -> bool:
        """Whether every row was compared, so that the changes are counted and not estimated."""
        return all(piece.compared == piece.rows for piece in self.pieces)

    @property
    def changes(self) -> int:
        return sum(piece.changes for piece in self.pieces)


def resolve(
    conn: Connection, detector: str, window: Window, choice: ModelChoice, version: int | None = None
) -> list[tuple[Window, int | None]]:
    """The stretches of a window and the version that scores each, in order; None where there was no champion.

    ``version`` is for the choice of a version only. Raises NoChampion, and BadInput when there is no such version or
    nobody was champion at any time of the window.
    """
    if choice is ModelChoice.VERSION:
        if version is None:
            raise BadInput("Say which version is to score.")
        return [(window, registry.get(conn, detector, version).version)]
    now = registry.champion(conn, detector)
    if now is None:
        raise NoChampion(detector)
    if choice is ModelChoice.CHAMPION:
        return [(window, now)]
    keys = {"detector": detector, "detector_id": detectors.identify(conn, detector)}
    stretches: list[tuple[Window, int | None]] = []
    for row in conn.execute(queries["rescoring.champions_then"], {**keys, "start": window.start, "end": window.end}):
        if stretches and stretches[-1][1] == row.version:
            stretches[-1] = (Window(stretches[-1][0].start, row.ends), row.version)
        else:
            stretches.append((Window(row.starts, row.ends), row.version))
    if all(version is None for _, version in stretches):
        raise BadInput(
            f"{detector} had no champion at any time of {window}, so nothing would be scored. Choose the champion of "
            "now, or a version."
        )
    return stretches


def last_run(conn: Connection, detector: str) -> int:
    """The highest published run of a detector, 0 before the first."""
    keys = {"detector_id": detectors.identify(conn, detector)}
    return int(conn.execute(queries["rescoring.last_run"], keys).scalar_one())


def verdicts(conn: Connection, detector: str, window: Window) -> pl.DataFrame:
    """Columns log_id and was_anomaly: what is believed of the rows of a window that have a prediction."""
    keys = {"detector_id": detectors.identify(conn, detector), "start": window.start, "end": window.end}
    found = [tuple(row) for row in conn.execute(queries["rescoring.verdicts"], keys)]
    return pl.DataFrame(found, schema={"log_id": pl.Int64, "was_anomaly": pl.Boolean}, orient="row")


def add(conn: Connection, plan: Plan, *, run_key: str) -> Plan:
    """Stores a plan, and returns it with its number."""
    detector_id = detectors.identify(conn, plan.detector)
    plan_id = conn.execute(
        queries["rescoring.insert_plan"],
        {
            "detector_id": detector_id,
            **_ends(plan.window),
            "model_choice": plan.choice.value,
            "snapshot": plan.snapshot,
            "last_run": plan.last_run,
            "rows": plan.rows,
            "left_out": plan.left_out,
            "hours": json.dumps({hour.isoformat(): rows for hour, rows in plan.hours.items()}),
            "reason": plan.reason or None,
            "run_key": run_key,
            "made_by": plan.made_by,
        },
    ).scalar_one()
    for number, piece in enumerate(plan.pieces):
        conn.execute(
            queries["rescoring.insert_piece"],
            {
                "plan_id": plan_id,
                "piece": number,
                "detector_id": detector_id,
                **_ends(piece.window),
                "model_version": piece.model_version,
                "rows": piece.rows,
                "compared": piece.compared,
                "to_anomaly": piece.to_anomaly,
                "to_normal": piece.to_normal,
                "first_verdicts": piece.first_verdicts,
            },
        )
    return get(conn, plan_id)


def get(conn: Connection, plan_id: int) -> Plan:
    """One plan. Raises BadInput when there is none with this number."""
    row = conn.execute(queries["rescoring.get_plan"], {"plan_id": plan_id}).one_or_none()
    if row is None:
        raise BadInput(f"There is no plan {plan_id}. `millrace rescore DETECTOR --from TS --to TS --dry-run` makes one")
    pieces = conn.execute(queries["rescoring.list_pieces"], {"plan_id": plan_id})
    return Plan(
        plan_id=row.plan_id,
        detector=row.detector,
        window=Window(row.starts, row.ends),
        choice=ModelChoice(row.model_choice),
        snapshot=row.snapshot,
        last_run=row.last_run,
        rows=row.rows,
        left_out=row.left_out,
        # jsonb keeps its keys in an order of its own.
        hours={datetime.fromisoformat(hour).astimezone(UTC): rows for hour, rows in sorted(row.hours.items())},
        pieces=tuple(
            Piece(
                window=Window(piece.starts, piece.ends),
                model_version=piece.model_version,
                rows=piece.rows,
                compared=piece.compared,
                to_anomaly=piece.to_anomaly,
                to_normal=piece.to_normal,
                first_verdicts=piece.first_verdicts,
            )
            for piece in pieces
        ),
        reason=row.reason,
        made_by=row.made_by,
        made_at=row.made_at,
    )


def claimed_by(conn: Connection, run_key: str) -> Plan | None:
    """The plan that this run has made and claimed, if it has."""
    plan_id = conn.execute(queries["rescoring.claimed_plan"], {"run_key": run_key}).scalar_one_or_none()
    return None if plan_id is None else get(conn, plan_id)


def run_ids(conn: Connection, plan_id: int) -> list[int]:
    """The runs that carry a plan out, in the order of its pieces; empty while it is not claimed."""
    return list(conn.execute(queries["rescoring.runs"], {"plan_id": plan_id}).scalars())


def claim(engine: Engine, plan_id: int, run_key: str, *, pack: ledger.Pack) -> list[int]:
    """Claims all pieces of a plan in one transaction, each as a run, or finds its runs again. Returns their numbers.

    Raises OpenRun when another run must be finished first, and PlanOutdated, claiming nothing, when the rows, the
    predictions or the champion are not those that the plan was made for.
    """
    with transaction(engine) as conn:
        plan = get(conn, plan_id)
        detector_id = detectors.identify(conn, plan.detector)
        conn.execute(queries["ledger.lock"], {"detector_id": detector_id})
        found = run_ids(conn, plan_id)
        if found:
            return found
        source = detectors.source_of(plan.detector)
        snapshot = ledger.begin_claim(conn, detector_id, source)
        _require_same_models(conn, plan)
        later = {"detector_id": detector_id, "last_run": plan.last_run, **_ends(plan.window)}
        run = conn.execute(queries["rescoring.later_run"], later).scalar_one_or_none()
        if run is not None:
            raise _outdated(plan, f"run {run} has scored rows of its range again since")
        claimed = []
        for number, piece in enumerate(plan.pieces):
            selection = RowsInWindow(window=piece.window, current=snapshot)
            shards = pack(partial(rows.counts, conn, source, selection))
            seen = rows.count(conn, source, RowsInWindow(window=piece.window, current=plan.snapshot), [piece.window])
            _require_same_rows(plan, piece, there=sum(shard.claimed for shard in shards), seen=seen)
            claimed.append(
                ledger.store_claim(
                    conn,
                    detector_id,
                    run_key if number == 0 else f"{run_key} piece {number}",
                    selection,
                    shards,
                    version=piece.model_version,
                    close=plan.rows == 0,
                    plan_id=plan_id,
                    piece=number,
                )
            )
        return claimed


def _require_same_models(conn: Connection, plan: Plan) -> None:
    if plan.choice is ModelChoice.VERSION:
        return  # versions never change
    now = [(w, version) for w, version in resolve(conn, plan.detector, plan.window, plan.choice) if version is not None]
    if now != [(piece.window, piece.model_version) for piece in plan.pieces]:
        raise _outdated(plan, "another version has been promoted since")


def _require_same_rows(plan: Plan, piece: Piece, *, there: int, seen: int) -> None:
    if seen != piece.rows:
        raise _outdated(plan, f"of its {piece.rows:,} rows in {piece.window}, {seen:,} are left")
    if there != seen:
        raise _outdated(plan, f"{there - seen:,} rows have come into {piece.window} since")


def _outdated(plan: Plan, why: str) -> PlanOutdated:
    return PlanOutdated(f"Plan {plan.plan_id} is out of date: {why}. Nothing was scored; make a new plan.")


def _ends(window: Window) -> dict[str, datetime]:
    return {"start": window.start, "end": window.end}
