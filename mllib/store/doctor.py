"""What the doctor asks the database. Whatever touches every row is asked day by day, each in a snapshot of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from mllib.sources import SOURCES, Source, Table
from mllib.store.database import connection
from mllib.store.queries import queries

Rows = list[dict[str, Any]]

FIRST = datetime(1, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, tzinfo=UTC)


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A transaction whose statements all see the same, so that scoring beside it raises no false alarm."""
    with connection(engine) as pooled:
        conn = pooled.execution_options(isolation_level="REPEATABLE READ")
        with conn.begin():
            yield conn


def ask(conn: Connection, name: str, of: Source | Table | None = None, **binds: Any) -> Rows:
    """The rows of a named query, of one that is the same for every source on the rows ``of`` one."""
    statement = queries[name] if of is None else queries.of(of, name)
    return [dict(row._mapping) for row in conn.execute(statement, binds)]


def sources_in_use(conn: Connection) -> list[Source]:
    """What the detectors of this database read."""
    used = {(row["source"], row["form"]) for row in ask(conn, "doctor.sources")}
    return [source for source in SOURCES.values() if (source.table.name, source.form) in used]


def spans(engine: Engine) -> list[tuple[datetime, datetime]]:
    """Event time in pieces: each day that has a partition, and what lies between them, where only strays can be."""
    with snapshot(engine) as conn:
        days: list[date] = list(conn.execute(queries["doctor.days"]).scalars())
    pieces, end = [], FIRST
    for day in days:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        if start > end:
            pieces.append((end, start))
        end = min(start + timedelta(days=1), LAST)
        pieces.append((start, end))
    return [*pieces, (end, LAST)] if end < LAST else pieces


def horizons(conn: Connection) -> dict[str, datetime]:
    """The moments before which rows may have been dropped, by table; tables that have lost none are left out."""
    return {row["parent"]: _moment(row["dropped_before"]) for row in ask(conn, "doctor.horizons")}


def age(conn: Connection) -> timedelta:
    """How long this database has been at home in its cluster."""
    found: timedelta = conn.execute(queries["doctor.age"]).scalar_one()
    return found


def labels_without_row(conn: Connection, table: Table) -> int:
    """How many verdicts are on rows of a table that are gone."""
    return int(conn.execute(queries.of(table, "doctor.labels_without_row")).scalar_one())


def _moment(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
