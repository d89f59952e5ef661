"""Daily partitions: made ahead, on demand before a load, and for predictions wherever the rows have them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from mllib import sources
from mllib.sources import Table
from mllib.store.database import connection, transaction
from mllib.store.queries import queries
from mllib.types import Window

LOGS = sources.LOGS.name
PREDICTIONS = "predictions"
HISTORY = "predictions_history"
PARTITIONED = (*(table.name for table in sources.TABLES), PREDICTIONS, HISTORY)
_LOCK_TIMEOUT = "5s"


def ensure(engine: Engine, parent: str, days: Iterable[date]) -> int:
    """Makes the missing partitions of ``parent`` for these days (UTC), and returns how many it made.

    Uses transactions of its own, so that a long load does not hold locks. Where a lock is not to be had in five
    seconds it stops: rows of the missing days then go to the default partition, and the next call moves them out.
    """
    made = 0
    wanted = sorted(set(days))
    with connection(engine) as conn:
        with conn.begin():
            missing = [day for day in wanted if day not in existing(conn, parent)] if wanted else []
        for day in missing:
            try:
                with conn.begin():
                    conn.execute(text(f"set local lock_timeout = '{_LOCK_TIMEOUT}'"))
                    made += conn.execute(queries["partitions.ensure"], {"parent": parent, "day": day}).scalar_one()
            except OperationalError as error:
                if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
                    raise
                break
    return made


def existing(conn: Connection, parent: str) -> set[date]:
    """Days that have a partition."""
    return set(conn.execute(queries["partitions.days"], {"parent": f"millrace.{parent}"}).scalars())


def mirror(engine: Engine, parent: str, ranges: Iterable[Window], *, of: Table) -> int:
    """Makes the partitions of ``parent`` for the days of these ranges that have a partition of the table ``of``."""
    with transaction(engine) as conn:
        days = sorted(existing(conn, of.name))
    wanted = {
        day
        for window in ranges
        for day in days
        if window.start < _midnight(day + timedelta(days=1)) and window.end > _midnight(day)
    }
    return ensure(engine, parent, wanted)


def create_ahead(engine: Engine, *, today: date, days: int) -> int:
    """Makes the partitions of every partitioned table from ``today`` to ``days`` later. Returns how many it made."""
    ahead = [today + timedelta(days=offset) for offset in range(days + 1)]
    return sum(ensure(engine, parent, ahead) for parent in PARTITIONED)


def adopt_strays(engine: Engine, *, at_most: int = 1000) -> int:
    """Makes the partitions of days whose rows lie in a default partition; that moves the rows. Returns how many days.

    ``at_most`` days a table, the fullest first, because a file with a wild clock could name any number of days. Rows
    with labels whose day was dropped stay where retention has put them.
    """
    made = 0
    row_ids = {table.name: table.row_id for table in sources.TABLES}
    for parent in PARTITIONED:
        with transaction(engine) as conn:
            statement = text(
                f"select (ts at time zone 'UTC')::date as day from millrace.{parent}_default"  # noqa: S608  a constant
                f" where not millrace.is_kept(:parent, ts, {row_ids.get(parent, 'log_id')})"
                " group by 1 order by count(*) desc, 1 limit :at_most"
            )
            days = list(conn.execute(statement, {"parent": parent, "at_most": at_most}).scalars())
        made += ensure(engine, parent, days)
    return made


def reach(engine: Engine, *, today: date) -> dict[str, date | None]:
    """The last day of an unbroken line of partitions from ``today`` on, by table; None where today has none."""
    reached: dict[str, date | None] = {}
    with transaction(engine) as conn:
        for parent in PARTITIONED:
            days, day = existing(conn, parent), today
            while day in days:
                day += timedelta(days=1)
            reached[parent] = day - timedelta(days=1) if day > today else None
    return reached


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
