"""CI/CD runs as frames of the source pipeline_runs: nine repositories, some failures, few security changes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl

from mllib.sources import PIPELINE_FEATURES, SOURCES
from tests.factories import START

SCHEMA = SOURCES["pipeline_runs"].schema
LANGUAGES = ("java", "python", "go")
CHANGES = ("remote_script", "network_host", "secret", "privilege")

_USUAL = dict(
    zip(
        PIPELINE_FEATURES,
        (120.0, 900.0, 40_000.0, 9.0, 0.0, 2.0, 4.0, 0.2, 12.0, 6.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.3, 0.0),
        strict=True,
    )
)


def make_runs(n: int = 3_000, *, seed: int = 0, span_s: float | None = None, **columns: Any) -> pl.DataFrame:
    """``n`` runs over ``span_s`` seconds (default: one a second), with the columns ``label`` ("0" or "failed") and
    ``change``: which of CHANGES was planted, null for most.

    ``columns`` replace whole columns: a value for all rows, or a sequence of n.
    """
    draw = np.random.default_rng(seed)
    project = draw.integers(0, 9, n)
    failed = draw.random(n) < 0.15
    change = np.where(draw.random(n) < 0.04, draw.integers(0, len(CHANGES), n), -1)
    counts = {name: draw.poisson(mean * (1 + project % 3), n).astype(float) for name, mean in _USUAL.items()}
    for name, more in (("error_lines", 15), ("test_failures", 3), ("failed_step_count", 1)):
        counts[name] += np.where(failed, more, 0)
    counts["privilege_changes"] += project % 3
    for name, kind in (("remote_script_executions", 0), ("secret_like_tokens", 2), ("privilege_changes", 3)):
        counts[name] += change == kind
    evidence = [_evidence(row, int(of), CHANGES[kind] if kind >= 0 else None, seed)
                for row, (of, kind) in enumerate(zip(project, change, strict=True))]  # fmt: skip
    seconds = np.linspace(0, n if span_s is None else span_s, n, endpoint=False)
    made = pl.DataFrame(
        {
            "log_id": np.arange(1, n + 1),
            "ts": pl.Series(int(START.timestamp() * 1e6) + (seconds * 1e6).astype(np.int64)).cast(SCHEMA["ts"]),
            "provider": ["travis"] * n,
            "repository": [f"shop/{number}" for number in project],
            "branch": ["main"] * n,
            "workflow": ["build"] * n,
            "language": [LANGUAGES[number % 3] for number in project],
            **counts,
            "hosts": [list(told["contacts"]) for told in evidence],
            "evidence": [json.dumps(told) for told in evidence],
            "claimed": [True] * n,
            "label": np.where(failed, "failed", "0"),
            "change": [CHANGES[kind] if kind >= 0 else None for kind in change],
        },
        schema_overrides=SCHEMA,
    ).select(*SCHEMA, "label", "change")
    return made.with_columns(
        **{
            name: pl.Series(value if isinstance(value, list) else [value] * n, dtype=made.schema[name])
            for name, value in columns.items()
        }
    )


def _evidence(row: int, project: int, change: str | None, seed: int) -> dict[str, Any]:
    contacts = {
        "code.example.org": ["command", 2],
        f"packages.{LANGUAGES[project % 3]}.example": ["package", 30],
        f"cache{project}.example.org": ["transfer", 3],
    }
    if change == "network_host":
        contacts[f"get.h{row}-{seed}.example"] = ["command", 1]
    rights = ["sudo apt-get"] if project % 3 else []
    return {"contacts": contacts, "privileges": [*rights, *(["chmod 777"] if change == "privilege" else [])]}
