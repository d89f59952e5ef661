"""How long rows are kept: days of event time that are over are dropped whole, but for the rows with labels.

The scores of sessions go with the lines of the day on which they began.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from mllib.errors import BadInput
from mllib.store import identity, partitions
from mllib.store.database import connection, transaction
from mllib.store.queries import queries

TABLES = partitions.PARTITIONED

MOVED_AT_MOST = 50_000
"""Labelled rows that a dropped day may leave behind; moving them holds up everybody, half a second for so many."""

# Dropping a partition keeps everybody from the table, also while it waits for its turn. So it waits briefly, and often.
_LOCK_TIMEOUT = "2s"
_ATTEMPTS = 3
_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """One row of ``retention``. ``keep_days`` None keeps for ever."""

    parent: str
    keep_days: int | None
    dropped_before: date | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """What retention did to one table. Each day that is over is in one of the four."""

    parent: str
    dropped: tuple[date, ...] = ()
    unscored: tuple[date, ...] = ()
    """Kept, because a detector with a champion has rows in it to score."""
    labelled: tuple[date, ...] = ()
    """Kept whole, because so many of the rows have labels."""
    postponed: tuple[date, ...] = ()
    """Left for the next time, because the table was in use."""
    kept_rows: int = 0
    """Rows with labels that were moved out of the dropped days."""


def settings(conn: Connection) -> list[Retention]:
    """What is kept for how long, one for each partitioned table."""
    return [Retention(**row._mapping) for row in conn.execute(queries["retention.list"])]


def keep(conn: Connection, parent: str, days: int | None) -> None:
    """Says how many days of a table are kept, None for ever. Takes effect with the next maintenance.

    Raises BadInput for another table, or less than a day.
    """
    if parent not in TABLES:
        raise BadInput(f"{parent!r} is no partitioned table. Known: {', '.join(TABLES)}.")
    if days is not None and not 1 <= days <= 1_000_000:
        raise BadInput(f"{days} days cannot be kept. Give a number of days from 1 on, or `forever`.")
    conn.execute(queries["retention.set"], {"parent": parent, "keep_days": days})


def apply(engine: Engine, *, today: date) -> list[Dropped]:
    """Drops the days that are over, table by table, each in a transaction of its own.

    Raises RestoredElsewhere in a database that was not adopted: there nobody knows what is scored.
    """
    with transaction(engine) as conn:
        rules = [rule for rule in settings(conn) if rule.keep_days is not None]
        if rules:
            identity.require_own(conn)
    return [_apply(engine, rule, today) for rule in rules]


def _apply(engine: Engine, rule: Retention, today: date) -> Dropped:
    outcomes: dict[str, list[date]] = {"dropped": [], "unscored": [], "labelled": [], "postponed": [], "missing": []}
    kept = 0
    with transaction(engine) as conn:
        over = sorted(
            day for day in partitions.existing(conn, rule.parent) if (today - day).days > (rule.keep_days or 0)
        )
    for number, day in enumerate(over):
        outcome, moved = _drop(engine, rule.parent, day)
        kept += moved
        outcomes[outcome].append(day)
        if outcome == "postponed":
            outcomes[outcome] += over[number + 1 :]
            break
    del outcomes["missing"]  # somebody else has dropped it just now
    return Dropped(parent=rule.parent, kept_rows=kept, **{name: tuple(days) for name, days in outcomes.items()})


def _drop(engine: Engine, parent: str, day: date) -> tuple[str, int]:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        with connection(engine) as conn:
            try:
                with conn.begin():
                    conn.execute(text(f"set local lock_timeout = '{_LOCK_TIMEOUT}'"))
                    binds = {"parent": parent, "day": day, "at_most": MOVED_AT_MOST}
                    row = conn.execute(queries["retention.drop"], binds).one()
                    if parent == "logs" and row.outcome == "dropped":
                        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
                        binds = {"day": start, "next_day": start + timedelta(days=1)}
                        conn.execute(queries["retention.forget_sessions"], binds)
                    return row.outcome, row.kept
            except OperationalError as error:
                # Lock not available, or a deadlock with somebody who took the locks the other way round.
                if getattr(error.orig, "sqlstate", None) not in ("55P03", "40P01"):
                    raise
    return "postponed", 0
