"""How things stand, in a few figures."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from mllib.store import detectors
from mllib.store.queries import queries

_TOP = {
    "logs": "overview.top_anomalies",
    "pipeline_runs": "overview.top_runs",
    "network_flows": "overview.top_flows",
}


def rows(conn: Connection, detector: str) -> dict[str, int]:
    """Counts of the rows that a detector is for and of the labelled ones among them, under ``rows, labels``."""
    statement = queries.of(detectors.source_of(detector), "overview.rows_of_source")
    return dict(conn.execute(statement).one()._mapping)


def champions(conn: Connection) -> list[dict[str, Any]]:
    """``detector, version, f1, as_of`` of each model in production."""
    return [dict(row._mapping) for row in conn.execute(queries["overview.champions"])]


def scored(conn: Connection, detector: str) -> dict[str, int]:
    """Counts of one detector's predictions and anomalies, under ``scored, anomalies``."""
    return dict(conn.execute(queries["overview.scored"], {"detector": detector}).one()._mapping)


def decisions(conn: Connection) -> list[dict[str, Any]]:
    """``detector, version, kind, verdict, reason`` of the latest decision on each detector."""
    return [dict(row._mapping) for row in conn.execute(queries["overview.decisions"])]


def top_anomalies(conn: Connection, detector: str, at_most: int) -> list[dict[str, Any]]:
    """``ts, score, severity, level, service, message`` of the highest scores.

    Of a CI/CD run the level is its provider and the service its repository; of a flow, its class and its protocol.
    """
    binds = {"detector": detector, "at_most": at_most}
    statement = queries[_TOP[detectors.source_of(detector).table.name]]
    return [dict(row._mapping) for row in conn.execute(statement, binds)]
