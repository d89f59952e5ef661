"""What a version was trained from, and how the same rows are found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from mllib.errors import BadInput
from mllib.sources import Source
from mllib.store.queries import queries
from mllib.types import ModelStatus, Window


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """What a version was trained from and with, and what came out; see the comments of ``model_registry``."""

    status: ModelStatus
    artifact_digest: str
    algorithm: str
    parameters: Mapping[str, Any]
    feature_names: tuple[str, ...]
    threshold: float
    seed: int
    train: Window
    validation: Window | None
    holdout: Window | None
    training_rows: int
    label_counts: Mapping[str, Any]
    data_hash: str
    code_revision: str | None
    library_versions: Mapping[str, str]
    as_of: datetime
    trained_at: datetime
    snapshot: str | None
    """None for versions from before it was kept."""


def lineage_of(conn: Connection, detector: str, version: int) -> Lineage:
    """What a version was trained from. Raises BadInput when there is no such version."""
    row = conn.execute(queries["lineage.get"], {"detector": detector, "version": version}).one_or_none()
    if row is None:
        raise BadInput(f"{detector} has no version {version}. `millrace models {detector}` lists them.")
    columns = dict(row._mapping)
    for name in ("train", "validation", "holdout"):
        start, end = columns.pop(f"{name}_start"), columns.pop(f"{name}_end")
        columns[name] = Window(start, end) if start else None
    columns |= {"status": ModelStatus(row.status), "feature_names": tuple(row.feature_names)}
    return Lineage(**columns)


def training_time(conn: Connection) -> datetime:
    """What a version that is stored in this transaction has as ``trained_at``."""
    moment: datetime = conn.execute(queries["lineage.training_time"]).scalar_one()
    return moment


def read_only(conn: Connection) -> None:
    """Lets the transaction, from its first statement on, write nothing and see one state of the database."""
    conn.execute(text("set transaction isolation level repeatable read, read only"))


def snapshot_by_ingestion(conn: Connection, source: Source, window: Window, moment: datetime) -> str:
    """A snapshot that sees the rows of ``window`` but those ingested later than ``moment``.

    It stands in for the one that an old version did not keep. A transaction that was under way then is not told apart.
    """
    binds = {"start": window.start, "end": window.end, "moment": moment}
    return str(conn.execute(queries.of(source, "lineage.snapshot_by_ingestion"), binds).scalar_one())


def adopted_since(conn: Connection, moment: datetime) -> datetime | None:
    """When the database was last adopted by another cluster after ``moment``; None where it has not moved."""
    found: datetime | None = conn.execute(queries["lineage.adopted_since"], {"moment": moment}).scalar_one()
    return found
