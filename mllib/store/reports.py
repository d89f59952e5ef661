"""The pages of the gate's verdicts: kept with the decision, found again by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from mllib.errors import BadInput
from mllib.sources import Table
from mllib.store.queries import queries

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPage:
    """A verdict's page; ``content`` is None where none could be drawn, or where it is from before pages were kept."""

    decision_id: int
    detector: str
    version: int
    content: str | None


def add(conn: Connection, decision_id: int, content: str) -> None:
    """Keeps the page of a decision."""
    conn.execute(queries["reports.add"], {"decision_id": decision_id, "content": content})


def page(conn: Connection, decision_id: int) -> StoredPage | None:
    """The page of a decision, None where there is no such decision."""
    row = conn.execute(queries["reports.page"], {"decision_id": decision_id}).one_or_none()
    if row is None:
        return None
    return StoredPage(
        decision_id=decision_id, detector=row.detector, version=row.candidate_version, content=row.content
    )


def latest_decision(conn: Connection, detector: str, version: int | None = None) -> int:
    """The last verdict of the gate on a version, or on any of the detector's. Raises BadInput when there is none."""
    keys = {"detector": detector, "version": version}
    found: int | None = conn.execute(queries["reports.latest_decision"], keys).scalar_one_or_none()
    if found is None:
        about = detector if version is None else f"{detector} version {version}"
        raise BadInput(
            f"The gate has not judged {about} yet, so there is no report. `millrace models {detector}` lists the "
            f"versions, `millrace train {detector}` trains and judges one."
        )
    return found


def listed(conn: Connection, detectors: Sequence[str], *, most: int = 200) -> list[dict[str, Any]]:
    """The verdicts on these detectors that have a page, the latest first.

    Keys: ``decision_id, detector, candidate_version, champion_version, verdict, candidate_f1, champion_f1,
    decided_at``.
    """
    found = conn.execute(queries["reports.list_pages"], {"detectors": list(detectors), "most": most})
    return [dict(row._mapping) for row in found]


def detectors(conn: Connection) -> list[str]:
    """The names of the detectors that have a page."""
    return [str(name) for name in conn.execute(queries["reports.detectors"]).scalars()]


def messages(
    conn: Connection, table: Table, ts_us: Sequence[int], log_ids: Sequence[int], *, characters: int
) -> dict[int, str]:
    """The first ``characters`` of the messages of some rows (microseconds since 1970, and id), by id."""
    moments = [_EPOCH + timedelta(microseconds=moment) for moment in ts_us]
    keys = {"ts": moments, "log_ids": list(log_ids), "characters": characters}
    return {row.log_id: row.message for row in conn.execute(queries.of(table, "reports.messages"), keys)}
