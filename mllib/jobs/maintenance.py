"""What keeps the tables in order: partitions ahead of the data, stray rows out of the default ones, retention."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Engine

from mllib.store import partitions, retention
from mllib.store.tidy import tidy as put_away

DAYS_AHEAD = 7


def maintain(engine: Engine, *, today: date | None = None, tidy: bool = False) -> dict[str, Any]:
    """Makes the partitions of the coming days, and of days whose rows lie in a default partition; drops what is over.

    Keys: ``partitions_ahead`` and ``partitions_for_strays`` (how many it made), ``reach`` (the last day of an unbroken
    line of partitions, by table), ``dropped``, ``unscored``, ``labelled``, ``postponed`` (days, as YYYY-MM-DD, that
    retention dropped or had to leave, by table; see `mllib.store.retention.Dropped`) and ``kept_rows`` (labelled rows
    of dropped days). With ``tidy`` it also puts away what belongs to deleted rows and counts the hours again, under
    ``put_away``. Safe to run at any time, beside anything. Raises RestoredElsewhere where retention is set and the
    database was not adopted.
    """
    today = today or datetime.now(UTC).date()
    done: dict[str, Any] = {
        "partitions_ahead": partitions.create_ahead(engine, today=today, days=DAYS_AHEAD),
        "partitions_for_strays": partitions.adopt_strays(engine),
    }
    done["reach"] = {parent: day and day.isoformat() for parent, day in partitions.reach(engine, today=today).items()}
    over = retention.apply(engine, today=today)
    for outcome in ("dropped", "unscored", "labelled", "postponed"):
        days = {table.parent: [day.isoformat() for day in getattr(table, outcome)] for table in over}
        done[outcome] = {parent: found for parent, found in days.items() if found}
    done["kept_rows"] = sum(table.kept_rows for table in over)
    if tidy:
        gone = put_away(engine)
        done["put_away"] = {"predictions": gone.predictions, "labels": gone.labels}
    return done


def described(done: dict[str, Any]) -> list[str]:
    """What ``maintain`` did, in sentences."""
    days = [day for day in done["reach"].values() if day]
    ahead = f"They reach to {min(days)}." if len(days) == len(done["reach"]) else "Today has none in some table."
    said = [
        f"{done['partitions_ahead']} partitions made ahead, {done['partitions_for_strays']} for stray rows. {ahead}"
    ]
    reasons = {
        "dropped": "dropped",
        "unscored": "kept, because rows in them are still to be scored",
        "labelled": "kept whole, because so many of their rows have labels",
        "postponed": "left for the next time, because the table was in use",
    }
    for outcome, reason in reasons.items():
        said += [
            f"{parent}: {len(found)} days {reason} ({found[0]} to {found[-1]})."
            for parent, found in done[outcome].items()
        ]
    if done["kept_rows"]:
        said.append(f"{done['kept_rows']:,} rows with labels were kept out of the dropped days.")
    if "put_away" in done:
        gone = done["put_away"]
        said.append(f"{gone['predictions']:,} predictions and {gone['labels']:,} labels of deleted rows put away.")
    return said
