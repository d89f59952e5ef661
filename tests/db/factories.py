"""Plain functions that put rows, files and model versions where a test needs them."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, column, table, text

from mllib.store import registry
from mllib.store.database import transaction
from mllib.types import Verdict, Window
from tests.factories import START

DETECTOR = "log_anomaly"


def scalar(engine: Engine, statement: str, **binds: Any) -> Any:
    """The one value that a statement gives, in a transaction of its own."""
    with transaction(engine) as conn:
        return conn.execute(text(statement), binds).scalar_one()


def rows(engine: Engine, statement: str, **binds: Any) -> list[tuple[Any, ...]]:
    """The rows that a statement gives, in a transaction of its own."""
    with transaction(engine) as conn:
        return [tuple(row) for row in conn.execute(text(statement), binds)]


def insert_log(conn: Connection, ts: datetime = START, message: str = "a line", **columns: Any) -> int:
    """One row of logs by plain SQL, as any program may insert it. Returns its log_id."""
    values = {"ts": ts, "message": message, **columns}
    logs = table("logs", column("log_id"), *map(column, values), schema="millrace")
    return int(conn.execute(logs.insert().values(values).returning(logs.c.log_id)).scalar_one())


def add_label(conn: Connection, row_id: int, label: str = "1", *, ts: datetime = START, **columns: Any) -> None:
    """One verdict by plain SQL, by default one that came with the data."""
    values = {"ts": ts, "row_id": row_id, "label": label, "origin": "import", **columns}
    conn.execute(table("labels", *map(column, values), schema="millrace").insert().values(values))


def json_line(number: int, *, ts: datetime | str | None = None, **keys: Any) -> str:
    """A JSON log line; its time is ``number`` seconds after START unless given."""
    when = ts if ts is not None else START + timedelta(seconds=number)
    stamp = when if isinstance(when, str) else when.isoformat()
    return json.dumps({"ts": stamp, "level": "INFO", "message": f"request {number} done", **keys})


def bgl_line(number: int, *, tag: str = "-", ts: datetime | None = None) -> str:
    """A line as Blue Gene/L wrote them; any tag but "-" is an alert."""
    when = ts or START + timedelta(seconds=number)
    return (
        f"{tag} {int(when.timestamp())} {when:%Y.%m.%d} R02-M1-N0 {when:%Y-%m-%d-%H.%M.%S}.000000 R02-M1-N0 RAS KERNEL "
        f"INFO instruction cache parity error {number}"
    )


def write_lines(path: Path, *lines: str | bytes) -> Path:
    """A file of these lines, each with its end."""
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
    return path


def new_version(**columns: Any) -> registry.NewVersion:
    """A candidate whose artifact is a few bytes."""
    artifact = columns.pop("artifact", b"a model")
    defaults: dict[str, Any] = {
        "detector": DETECTOR,
        "artifact": artifact,
        "artifact_digest": hashlib.sha256(artifact).hexdigest(),
        "algorithm": "isolation forest",
        "parameters": {"trees": 100},
        "feature_names": ("a", "b"),
        "threshold": 0.5,
        "seed": 1,
        "train": Window(START, START + timedelta(days=1)),
        "validation": None,
        "holdout": Window(START + timedelta(days=2), START + timedelta(days=3)),
        "training_rows": 1000,
        "label_counts": {},
        "data_hash": "0" * 64,
        "validation_metrics": {},
        "code_revision": None,
        "library_versions": {},
        "as_of": START + timedelta(days=3),
        "trained_by": "a test",
    }
    return registry.NewVersion(**(defaults | columns))


def add_versions(engine: Engine, count: int = 1, **columns: Any) -> list[int]:
    """Candidates in the registry; returns their version numbers."""
    with transaction(engine) as conn:
        return [registry.add(conn, new_version(**columns)) for _ in range(count)]


def new_decision(candidate: int, champion: int | None, **columns: Any) -> registry.NewDecision:
    """A verdict of the gate, to promote unless another is given."""
    defaults: dict[str, Any] = {
        "detector": DETECTOR,
        "candidate_version": candidate,
        "champion_version": champion,
        "kind": "gate",
        "verdict": Verdict.PROMOTE,
        "policy": "strict",
        "reason": "F1 improves",
        "as_of": datetime.now(UTC),
        "decided_by": "a test",
    }
    return registry.NewDecision(**(defaults | columns))


def decide(engine: Engine, candidate: int, champion: int | None, **columns: Any) -> int:
    """Records a verdict and carries it out, in a transaction of its own."""
    with transaction(engine) as conn:
        return registry.record(conn, new_decision(candidate, champion, **columns))


def champion(engine: Engine) -> int | None:
    """The version in production."""
    with transaction(engine) as conn:
        return registry.champion(conn, DETECTOR)


def champion_at(engine: Engine, moment: datetime, detector: str = DETECTOR) -> int | None:
    """The version that was champion then, says the database."""
    found: int | None = scalar(engine, "select millrace.champion_at(:name, :moment)", name=detector, moment=moment)
    return found


def statuses(engine: Engine) -> dict[int, str]:
    """Status by version."""
    return dict(rows(engine, "select version, status from millrace.model_registry"))


def promote_in_turn(engine: Engine, *versions: int) -> None:
    """Each version judged against the one before it, and promoted."""
    for version in versions:
        decide(engine, version, champion(engine))
