"""The scoring ledger: who claimed which rows, and how far the work is.

A claim is stored before work starts, and claims of a detector are worked off one after the other: at most one is open.
That keeps two claims from ever holding the same row, and it makes resuming safe for whoever comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row

from mllib.errors import BadInput, NoChampion
from mllib.store import detectors, registry
from mllib.store.database import transaction
from mllib.store.logs import NewRows, RowsInWindow, Selection, minutes
from mllib.store.queries import queries
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


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedShard:
    """A part of a claim: ranges of event time and the rows claimed in them."""

    ranges: tuple[Window, ...]
    claimed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardState:
    """One row of ``scoring_shards``, for those who hand shards out."""

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


Pack = Callable[[Sequence[tuple[datetime, int]]], Sequence[PlannedShard]]


def claim(
    engine: Engine, detector: str, run_key: str, *, window: Window | None, version: int | None, pack: Pack
) -> Run:
    """Stores a claim and its shards, or finds the one with this key again, unchanged.

    Without ``window`` it claims the rows that became visible since the last such claim; with one, every row in it.
    ``pack`` turns (minute, rows) pairs into shards. ``version`` overrides the champion.

    Raises NoChampion (nothing is claimed then), OpenRun when another run must be finished first, and BadInput when
    there is no such version or the key was used for another window.
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
        unfinished = conn.execute(queries["ledger.open_run"], {"detector_id": detector_id}).scalar_one_or_none()
        if unfinished is not None:
            raise OpenRun(unfinished)
        if version is None:
            version = registry.champion(conn, detector)
            if version is None:
                raise NoChampion(detector)
        else:
            registry.get(conn, detector, version)
        conn.execute(queries["ledger.keep_partitions"])
        snapshot = conn.execute(queries["ledger.current_snapshot"]).scalar_one()
        previous = None
        selection: Selection
        if window is None:
            previous = conn.execute(queries["ledger.last_snapshot"], {"detector_id": detector_id}).scalar_one()
            scored = _scored_by_windows(conn, detector_id, before_run=None)
            selection = NewRows(previous=previous, current=snapshot, except_for=scored)
        else:
            selection = RowsInWindow(window=window, current=snapshot)
        shards = pack(minutes(conn, selection))
        run_id = conn.execute(
            queries["ledger.insert_run"],
            {
                "detector_id": detector_id,
                "run_key": run_key,
                "kind": "new_rows" if window is None else "window",
                "model_version": version,
                "previous": previous,
                "snapshot": snapshot,
                "window_start": window and window.start,
                "window_end": window and window.end,
                "claimed": sum(shard.claimed for shard in shards),
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
        return get_run(conn, run_id)


def get_run(conn: Connection, run_id: int) -> Run:
    """One run. Raises BadInput when there is none with this number."""
    row = conn.execute(queries["ledger.get"], {"run_id": run_id}).one_or_none()
    if row is None:
        raise BadInput(f"There is no scoring run {run_id}.")
    return _run(row)


def shards(conn: Connection, run_id: int) -> list[ShardState]:
    """The shards of a run, in the order of their event times."""
    return [
        ShardState(shard=row.shard, claimed=row.claimed, done=row.done, starts=row.starts, ends=row.ends)
        for row in conn.execute(queries["ledger.list_shards"], {"run_id": run_id})
    ]


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


def finish_run(conn: Connection, run_id: int) -> Run:
    """Closes the run if all its shards are in, and says how it stands."""
    conn.execute(queries["ledger.finish_run"], {"run_id": run_id})
    return get_run(conn, run_id)


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
    )


def _clip(ranges: Sequence[Window], window: Window | None) -> Sequence[Window]:
    # Shards are made of whole minutes, a window may begin and end within one.
    if window is None:
        return ranges
    return [Window(max(r.start, window.start), min(r.end, window.end)) for r in ranges]


def _multirange(ranges: Sequence[Window]) -> str:
    inner = ",".join(f"[{w.start.astimezone(UTC).isoformat()},{w.end.astimezone(UTC).isoformat()})" for w in ranges)
    return "{" + inner + "}"
