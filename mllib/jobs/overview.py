"""What there is to show after a run."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

from mllib.store import overview
from mllib.store.database import transaction


def summary(engine: Engine, *, detector: str, top: int = 10) -> dict[str, Any]:
    """Counts, champions, last decisions and the highest anomalies of one detector.

    Keys: ``rows, labels, scored, anomalies``, ``champions``, ``decisions`` and ``top``; see `mllib.store.overview`.
    """
    with transaction(engine) as conn:
        return {
            **overview.totals(conn),
            "champions": overview.champions(conn),
            "decisions": overview.decisions(conn),
            "top": overview.top_anomalies(conn, detector, top),
        }
