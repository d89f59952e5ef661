"""How far behind scoring is, and who holds it up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from mllib.store.queries import queries


@dataclass(frozen=True, kw_only=True, slots=True)
class Freshness:
    """One row of ``analytics.freshness``; see the comments of its columns."""

    detector: str
    rows_waiting: int | None
    oldest_ingested_at: datetime | None
    oldest_age: timedelta | None
    last_claimed_at: datetime | None
    last_finished_at: datetime | None
    open_run_id: int | None
    open_run_rows: int | None
    held_since: datetime | None
    held_by_pid: int | None
    held_by: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """A writing transaction: ``pid`` of its session, or ``gid`` where it is prepared. ``age`` None: not told."""

    pid: int | None
    gid: str | None
    age: timedelta | None
    name: str


def freshness(conn: Connection) -> list[Freshness]:
    """How far behind each detector is. Cheap however many rows there are."""
    return [Freshness(**row._mapping) for row in conn.execute(queries["freshness.list"])]


def holders(conn: Connection) -> list[Holder]:
    """The writing transaction that has been open longest, if there is one."""
    return [Holder(**row._mapping) for row in conn.execute(queries["freshness.holders"])]


def age(span: timedelta) -> str:
    """A length of time as people say it, in its largest unit."""
    seconds = max(0, int(span.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
