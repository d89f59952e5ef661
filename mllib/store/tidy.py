"""Puts away what belongs to rows that somebody has deleted, and counts the hours again. O(rows), so done on request."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, text

from mllib.sources import TABLES
from mllib.store.database import transaction
from mllib.store.queries import queries


@dataclass(frozen=True, kw_only=True, slots=True)
class Tidied:
    """How many of each. Nothing is thrown away: predictions go to the history, labels to ``labels_put_away``."""

    predictions: int
    labels: int


def tidy(engine: Engine) -> Tidied:
    """Moves predictions and labels of deleted rows out of the way, and sets wrong hourly counts right."""
    with transaction(engine) as conn:
        # Shards wait for this lock while it is held, so it must not wait long itself.
        conn.execute(text("set local lock_timeout = '5s'"))
        labels = sum(conn.execute(queries.of(table, "tidy.put_away_labels")).rowcount for table in TABLES)
        conn.execute(queries["tidy.lock_hours"])
        predictions = sum(conn.execute(queries.of(table, "tidy.put_away_predictions")).rowcount for table in TABLES)
        conn.execute(queries["tidy.recount_hours"])
    return Tidied(predictions=predictions, labels=labels)
