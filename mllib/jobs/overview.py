"""What there is to show after a run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine

from mllib.store import freshness, overview
from mllib.store.database import transaction
from mllib.store.detectors import source_of


def summary(engine: Engine, *, detector: str, top: int = 10) -> dict[str, Any]:
    """Counts, champion, last decision and the highest anomalies of one detector.

    Keys: ``source``, what it reads, ``rows, labels, scored, anomalies`` and ``top``, see
    `mllib.store.overview`, ``champion`` and ``decision``, None where there is none, and ``behind``, how far behind its
    scoring is in words, None when it has no champion.
    """
    with transaction(engine) as conn:
        return {
            "source": source_of(detector).name,
            **overview.rows(conn, detector),
            **overview.scored(conn, detector),
            "champion": _of(detector, overview.champions(conn)),
            "decision": _of(detector, overview.decisions(conn)),
            "behind": _behind(conn, detector),
            "top": overview.top_anomalies(conn, detector, top),
        }


def _of(detector: str, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((entry for entry in entries if entry["detector"] == detector), None)


def _behind(conn: Connection, detector: str) -> str | None:
    state = next((row for row in freshness.freshness(conn) if row.detector == detector), None)
    if state is None or state.rows_waiting is None:
        return None
    said = [f"{state.rows_waiting:,} rows"]
    if state.oldest_age is not None:
        said[0] += f", the oldest for {freshness.age(state.oldest_age)}"
    if state.open_run_id is not None:
        said.append(f"{state.open_run_rows:,} more in run {state.open_run_id}, which is not finished")
    if state.last_finished_at is not None:
        said.append(f"last scored {freshness.age(datetime.now(UTC) - state.last_finished_at)} ago")
    if state.held_by is not None:
        session = "" if state.held_by_pid is None else f" (process {state.held_by_pid})"
        said.append(f"held up by {state.held_by}{session}")
    return ", ".join(said)
