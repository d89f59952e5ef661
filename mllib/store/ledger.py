"""The scoring ledger: who claimed which rows, and how far the work is.

A claim is stored before work starts, and claims of a detector are worked off one after the other: at most one is open.
That keeps two claims from ever holding the same row, and it makes resuming safe for whoever comes next. A run counts
from its publication, when all its shards are in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, Row

from mllib.errors import BadInput, NoChampion
from mllib.sources import Source
from mllib.store import detectors, identity, predictions, registry
from mllib.store.database import transaction
from mllib.store.queries import queries
from mllib.store.rows import NewRows, RowsInWindow, Selection, counts
from mllib.types import Window


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One row of ``scoring_runs``."""

    run_id: int
    detector: str
    run_key: str
    kind: str  # new_rows or window
    model_version: int
    state: str  # open or done
    claimed: int
    scored: int
    anomalies: int
    plan_id: int | None = None  # plan of re-scoring that it is a piece of
    piece: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedShard:
    """A part of a claim: ranges of event time and the rows claimed in them."""

    ranges: tuple[Window, ...]
    claimed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardState:
    """One row of ``scoring_shards``, for those who hand shards out."""

    run_id: int
    shard: int
    claimed: int
    done: bool
    starts: datetime
    ends: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenShard:
    """A shard whose row this transaction holds."""

    detector_id: int
    model_version: int
    supersedes: bool
    claimed: int
    done: bool
    ranges: tuple[Window, ...]
    selection: Selection


class OpenRun(Exception):  # noqa: N818  not an error: an answer
    """Another run of the detector is claimed and not finished; finish it, then claim again."""

    def __init__(self, run_id: int) -> None:
        super().__init__(f"run {run_id} is open")
        self.run_id = run_id


Count = Callable[[timedelta], Sequence[tuple[datetime, int]]]
"""The rows of a claim per step of event time, as (start, rows)."""

Pack = Callable[[Count], Sequence[PlannedShard]]
"""Cuts a claim into shards."""


def claim(
    engine: Engine, detector: str, run_key: str, *, window: Window | None, version: int | None, pack: Pack
) -> Run:
    """Stores a claim and its shards, or finds the one with this key again, unchanged.

    Without ``window`` it claims the rows that became visible since the last such claim; with one, every row in it.
    ``version`` overrides the champion.

    Raises NoChampion (nothing is claimed then), OpenRun when another run must be finished first, and BadInput when
    there is no such version, the window is not over yet or the key was used for another window.
    """
    with transaction(engine) as conn:
        detector_id = detectors.identify(conn, detector)
        conn.execute(queries["ledger.lock"], {"detector_id": detector_id})
        found = conn.execute(queries["ledger.find"], {"detector_id": detector_id, "run_key": run_key}).one_or_none()
        if found is not None:
            claimed_window = found.claim_window and Window(found.claim_window.lower, found.claim_window.upper)
            if claimed_window != window:
                raise BadInput(
                    f"The run {run_key} has claimed {claimed_window or 'the new rows'} already and cannot claim "
                    f"{window or 'the new rows'} as well. Start a new run."
                )
            return _run(found)
        if window is not None:
            require_past(conn, window)
        source = detectors.source_of(detector)
        snapshot = begin_claim(conn, detector_id, source)
        if version is None:
            version = registry.champion(conn, detector)
            if version is None:
                raise NoChampion(detector)
        else:
            registry.get(conn, detector, version)
        previous = None
        selection: Selection
        if window is None:
            previous = conn.execute(queries["ledger.last_snapshot"], {"detector_id": detector_id}).scalar_one()
            scored = _scored_by_windows(conn, detector_id, before_run=None)
            selection = NewRows(previous=previous, current=snapshot, except_for=scored)
        else:
            selection = RowsInWindow(window=window, current=snapshot)
        shards = pack(partial(counts, conn, source, selection))
        run_id = store_claim(conn, detector_id, run_key, selection, shards, version=version, close=not shards)
        return get_run(conn, run_id)


def require_past(conn: Connection, window: Window) -> None:
    """Raises BadInput when a window ends after now: rows that come later would not be in its claim."""
    now: datetime = conn.execute(queries["ledger.now"]).scalar_one()
    if window.end > now:
        raise BadInput(
            f"The window {window} ends after now ({now:%Y-%m-%d %H:%M:%S} UTC), so lines that are still to come would "
            "not be in it. End it at or before now."
        )


def begin_claim(conn: Connection, detector_id: int, source: Source) -> str:
    """What is committed now, with all other claims of the detector kept out until the transaction ends.

    Raises OpenRun when a run must be finished first, and RestoredElsewhere when the database must be adopted first.
    """
    conn.execute(queries["ledger.lock"], {"detector_id": detector_id})
    identity.require_own(conn)
    unfinished = conn.execute(queries["ledger.open_run"], {"detector_id": detector_id}).scalar_one_or_none()
    if unfinished is not None:
        raise OpenRun(unfinished)
    conn.execute(queries.of(source, "ledger.keep_partitions"))
    return str(conn.execute(queries["ledger.current_snapshot"]).scalar_one())


def store_claim(
    conn: Connection,
    detector_id: int,
    run_key: str,
    selection: Selection,
    shards: Sequence[PlannedShard],
    *,
    version: int,
    close: bool,
    plan_id: int | None = None,
    piece: int = 0,
) -> int:
    """Stores a run with its shards, and returns its number. ``close`` says that there is nothing to do for it."""
    window = selection.window if isinstance(selection, RowsInWindow) else None
    run_id = conn.execute(
        queries["ledger.insert_run"],
        {
            "detector_id": detector_id,
            "run_key": run_key,
            "kind": "new_rows" if window is None else "window",
            "model_version": version,
            "previous": selection.previous if isinstance(selection, NewRows) else None,
            "snapshot": selection.current,
            "window_start": window and window.start,
            "window_end": window and window.end,
            "claimed": sum(shard.claimed for shard in shards),
            "nothing_to_do": close,
            "plan_id": plan_id,
            "piece": piece,
        },
    ).scalar_one()
    for number, shard in enumerate(shards):
        conn.execute(
            queries["ledger.insert_shard"],
            {
                "run_id": run_id,
                "shard": number,
                "ranges": _multirange(_clip(shard.ranges, window)),
                "claimed": shard.claimed,
            },
        )
    return int(run_id)


def get_run(conn: Connection, run_id: int) -> Run:
    """One run. Raises BadInput when there is none with this number."""
    row = conn.execute(queries["ledger.get"], {"run_id": run_id}).one_or_none()
    if row is None:
        raise BadInput(f"There is no scoring run {run_id}.")
    return _run(row)


def shards(conn: Connection, run_id: int) -> list[ShardState]:
    """The shards of a run, in the order of their event times."""
    rows = conn.execute(queries["ledger.list_shards"], {"run_id": run_id})
    return [ShardState(**row._mapping) for row in rows]


def take_shard(conn: Connection, run_id: int, shard: int) -> TakenShard:
    """Locks a shard until the transaction ends. Raises BadInput when there is none with this number."""
    row = conn.execute(queries["ledger.take_shard"], {"run_id": run_id, "shard": shard}).one_or_none()
    if row is None:
        raise BadInput(f"The scoring run {run_id} has no shard {shard}.")
    ranges = tuple(Window(start, end) for start, end in row.ranges)
    selection: Selection
    if row.kind == "new_rows":
        scored = _scored_by_windows(conn, row.detector_id, before_run=run_id)
        selection = NewRows(previous=row.previous, current=row.snapshot, except_for=scored)
    else:
        window = Window(row.claim_window.lower, row.claim_window.upper)
        selection = RowsInWindow(window=window, current=row.snapshot)
    return TakenShard(
        detector_id=row.detector_id,
        model_version=row.model_version,
        supersedes=row.kind == "window",
        claimed=row.claimed,
        done=row.done,
        ranges=ranges,
        selection=selection,
    )


def finish_shard(conn: Connection, run_id: int, shard: int, *, scored: int, anomalies: int) -> None:
    """Marks a shard done; call it in the transaction that wrote its predictions."""
    conn.execute(
        queries["ledger.finish_shard"], {"run_id": run_id, "shard": shard, "scored": scored, "anomalies": anomalies}
    )


def group(conn: Connection, run_id: int) -> list[int]:
    """The runs that are published together with this one, itself included: the pieces of its plan, or it alone.

    Held until the transaction ends, so that they are published once.
    """
    return [row.run_id for row in conn.execute(queries["ledger.lock_group"], {"run_id": run_id})]


def publish(conn: Connection, run_id: int) -> int:
    """Publishes a run, with the other pieces of its plan, if all shards are in; returns how many are missing.

    From its ``finished_at`` on its predictions are the current ones, and the hourly counts are theirs; commit at once.
    While a shard is missing, and after it was published, it changes nothing.
    """
    runs = list(conn.execute(queries["ledger.lock_group"], {"run_id": run_id}))
    run_ids = [run.run_id for run in runs]
    missing = int(conn.execute(queries["ledger.missing_shards"], {"run_ids": run_ids}).scalar_one())
    if missing or all(run.state == "done" for run in runs):
        return missing
    for run in runs:
        if run.kind == "window":
            window = Window(run.claim_window.lower, run.claim_window.upper)
            predictions.replace_hours(conn, window, detector_id=run.detector_id, run_id=run.run_id)
    conn.execute(queries["ledger.publish"], {"run_ids": run_ids, "detector_id": runs[0].detector_id})
    return 0


def _scored_by_windows(conn: Connection, detector_id: int, *, before_run: int | None) -> tuple[RowsInWindow, ...]:
    rows = conn.execute(queries["ledger.scored_by_windows"], {"detector_id": detector_id, "before_run": before_run})
    return tuple(RowsInWindow(window=Window(row.window_start, row.window_end), current=row.snapshot) for row in rows)


def _run(row: Row[Any]) -> Run:
    return Run(
        run_id=row.run_id,
        detector=row.detector,
        run_key=row.run_key,
        kind=row.kind,
        model_version=row.model_version,
        state=row.state,
        claimed=row.claimed,
        scored=row.scored,
        anomalies=row.anomalies,
        plan_id=row.plan_id,
        piece=row.piece,
    )


def _clip(ranges: Sequence[Window], window: Window | None) -> Sequence[Window]:
    # Shards are made of whole steps, a window may begin and end within one.
    if window is None:
        return ranges
    return [Window(max(r.start, window.start), min(r.end, window.end)) for r in ranges]


def _multirange(ranges: Sequence[Window]) -> str:
    inner = ",".join(f"[{w.start.astimezone(UTC).isoformat()},{w.end.astimezone(UTC).isoformat()})" for w in ranges)
    return "{" + inner + "}"
