"""Scores the sessions of a window by those of the window before it, and keeps the scores."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import Engine

from mllib import sessions
from mllib.detectors._calibration import ANOMALY, severities
from mllib.errors import NothingToScore
from mllib.sessions import SessionModel, Sessions
from mllib.sessions.explanation import explain
from mllib.sessions.model import Mode
from mllib.store import sessions as session_store
from mllib.store.database import transaction
from mllib.store.rows import current_snapshot
from mllib.store.sessions import ScoredSession
from mllib.types import Window


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionReport:
    """What one run over a window did."""

    window: Window
    trained_on: Window
    observed_until: datetime
    mode: Mode
    trained: int
    scored: int
    open: int
    anomalies: int
    top: tuple[ScoredSession, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def described(self) -> str:
        """The figures in one sentence."""
        return (
            f"{self.scored:,} sessions of {self.window}, {self.anomalies:,} of them anomalies, {self.open:,} still "
            f"open; by {self.trained:,} {self.mode} sessions of {self.trained_on}, in {self.seconds:.1f} s."
        )


def score_sessions(engine: Engine, window: Window, *, top: int = 10, seed: int = 42) -> SessionReport:
    """Scores the sessions that began in ``window`` by those of the window of the same length before it.

    The model sees the lines, and the labels, that were known when the window began. A session belongs to the window of
    its first line; one that has lines before counts there. The sessions are followed beyond the end of the window for
    as long as ordinary ones last, or to the last line that there is. What was stored of the window is replaced, so
    that a second run changes nothing unless lines came in since.

    Raises NothingToTrainOn for too few sessions before the window, NothingToScore for a window without any session.
    """
    started = time.monotonic()
    before = Window(window.start - window.length, window.start)
    with transaction(engine) as conn:
        snapshot = current_snapshot(conn)
        seen = session_store.traces(conn, Window(before.start - before.length, before.start), snapshot=snapshot)
        lines = session_store.lines(conn, before, snapshot=snapshot)
        verdicts = session_store.verdicts(conn, before, lines)
    learnt = sessions.gather(lines.filter(~pl.col("trace_id").is_in(seen.implode())), observed_until=window.start)
    model = sessions.fit(learnt, labels=verdicts, seed=seed)
    earlier = lines["trace_id"].unique()
    with transaction(engine) as conn:
        until = session_store.last_line(conn, window.end + timedelta(seconds=float(model.lag.max())))
        until = max(until, window.end) if until is not None else window.end
        lines = session_store.lines(conn, Window(window.start, until + timedelta(microseconds=1)), snapshot=snapshot)
    began = pl.col("ts").min().over("trace_id") < window.end
    lines = lines.filter(began & ~pl.col("trace_id").is_in(pl.concat([seen, earlier]).implode()))
    asked = sessions.gather(lines, observed_until=until)
    if not len(asked):
        raise NothingToScore(f"No session began in {window}: are the lines ingested, and do they carry a trace_id?")
    found = _scored(model, asked)
    with transaction(engine) as conn:
        session_store.replace_scores(
            conn, window, found, trained_on=before, trained=model.sessions, mode=model.mode, observed_until=until
        )
    ranked = sorted(found, key=lambda session: (-session.score, session.started_at, session.trace_id))
    return SessionReport(
        window=window,
        trained_on=before,
        observed_until=until,
        mode=model.mode,
        trained=model.sessions,
        scored=len(found),
        open=sum(session.open for session in found),
        anomalies=sum(session.is_anomaly for session in found),
        top=tuple(ranked[:top]),
        seconds=round(time.monotonic() - started, 3),
    )


def _scored(model: SessionModel, asked: Sessions) -> list[ScoredSession]:
    scores = model.scores(asked)
    unfinished = model.is_open(asked)
    anomalies = np.flatnonzero(scores >= ANOMALY)
    why = dict(zip(anomalies.tolist(), explain(model, asked, anomalies), strict=True))
    return [
        ScoredSession(
            trace_id=name,
            started_at=start.astimezone(UTC),
            ended_at=start + timedelta(seconds=lasted),
            lines=count,
            open=is_open,
            score=score,
            is_anomaly=score >= ANOMALY,
            severity=severity,
            explanation=why.get(row),
        )
        for row, (name, start, lasted, count, is_open, score, severity) in enumerate(
            zip(
                asked.names,
                asked.started,
                asked.lasted.tolist(),
                asked.lines.tolist(),
                unfinished.tolist(),
                scores.tolist(),
                severities(scores.astype(np.float32)).tolist(),
                strict=True,
            )
        )
    ]
