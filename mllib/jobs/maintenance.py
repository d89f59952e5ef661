"""What keeps the tables in order: partitions ahead of the data, and stray rows out of the default partitions."""

from __future__ import annotations

from datetime import UTC, date, datetime

from sqlalchemy import Engine

from mllib.store import partitions

DAYS_AHEAD = 7


def maintain(engine: Engine, *, today: date | None = None) -> dict[str, int]:
    """Makes the partitions of the coming days, and of days whose rows lie in a default partition.

    Returns how many of each. Safe to run at any time, beside anything.
    """
    today = today or datetime.now(UTC).date()
    return {
        "partitions_ahead": partitions.create_ahead(engine, today=today, days=DAYS_AHEAD),
        "partitions_for_strays": partitions.adopt_strays(engine),
    }
