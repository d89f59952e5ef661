"""Why a CI/CD run is an anomaly: what changed, against which history, why it matters, and what to look at.

An explanation is JSON, below 1 kB, and a function of the run and the model alone. No text of a log stands in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._explanation import AT_MOST, MIN_SHARE
from mllib.detectors._run_baselines import AT, BASELINES, COLUMNS, KINDS, Surprises
from mllib.sources import PIPELINE_FEATURES

MAX_ISSUES = 3
"""Kinds of security change that an explanation names."""

_ISSUES = {
    "remote_script": ("code of another machine was run unseen", "who added the command; pin a version and a checksum"),
    "network_host": ("a host was spoken to that is unknown here", "the step that contacts it, and what was sent"),
    "secret": ("what looks like a secret stands in the log", "revoke it, then mask it"),
    "privilege": ("a step changed rights, or ran with more", "the command, and whether the step needs it"),
    "environment_dump": (
        "the environment was printed, with its secrets",
        "the variables shown; rotate the secret ones",
    ),
    "image_pull": ("more images were pulled than usual", "their registry and digest"),
}
"""Of each kind, why it matters and what to look at."""

_ADVICE = {
    **dict.fromkeys(("failed_step_count", "error_lines"), "the first error of the log, and what was changed before it"),
    "warning_lines": "the warnings that are new since the last run",
    "retry_count": "what was tried again: a service that is down, or a test that is flaky",
    "test_failures": "the tests that failed, and what was changed before them",
    "duration_s": "the step that took so long",
    "dependency_installs": "which dependencies are new, and where they come from",
}
_ANY = "the log beside that of the last run that passed"
_UNITS = {"duration_s": "s", "log_bytes": "bytes"}


def security(found: Surprises, row: int, parts: Sequence[float], usual: float) -> dict[str, Any]:
    """The features and issues of a run whose security changes make it an anomaly.

    ``parts`` are what each of KINDS adds to the run's surprise, ``usual`` the quantile that is still ordinary.
    """
    tails, telling = found.tails[row], found.telling(row)
    excess = sum(parts)
    features, issues, other = [], [], 1.0
    order = sorted(range(len(KINDS)), key=lambda place: (-parts[place], place))
    for place in order[:MAX_ISSUES]:
        share = round(parts[place] / excess, 4)
        if share <= 0:
            break
        column, kind = telling[place], tuple(KINDS)[place]
        other -= share
        value, until = _plain(float(found.columns[row, column])), _plain(tails.quantile(column, usual))
        features.append({"name": COLUMNS[column], "normal": [0, until], "value": value, "share": share})
        why, look_at = _ISSUES[kind]
        issues.append({"kind": kind, "feature": COLUMNS[column], "why": why, "look_at": look_at})
    return {
        "baseline": BASELINES[tails.level],
        "features": features,
        "other": round(other, 4) + 0.0,
        "issues": issues,
        "look_at": issues[0]["look_at"],
    }


def ordinary(values: Sequence[float], parts: NDArray[np.float64], ranges: NDArray[np.float64]) -> dict[str, Any]:
    """The features of a run that is unlike those that passed; ``parts`` is what each of the 17 adds."""
    excess = float(parts.sum())
    features: list[dict[str, Any]] = []
    other = 1.0
    for rank, place in enumerate(np.argsort(-parts, kind="stable")[:AT_MOST].tolist()):
        share = round(float(parts[place]) / excess, 4)
        if share <= 0 or (rank >= MAX_ISSUES and share < MIN_SHARE):
            break
        name = PIPELINE_FEATURES[place]
        other -= share
        low, high = (_plain(float(end)) for end in ranges[:, place])
        unit = {"unit": _UNITS[name]} if name in _UNITS else {}
        features.append({"name": name, **unit, "normal": [low, high], "value": _plain(values[place]), "share": share})
    return {
        "features": features,
        "other": round(other, 4) + 0.0,
        "look_at": _ADVICE.get(features[0]["name"], _ANY),
    }


def text(said: dict[str, Any]) -> str:
    """As it is stored."""
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


def single_column(kind: int) -> int | None:
    """The place in PIPELINE_FEATURES of the one number that tells of a kind, None where several do."""
    names = tuple(KINDS.values())[kind]
    return AT[names[0]] if len(names) == 1 else None


def _plain(value: float) -> float:
    """Four significant digits, and no more than there are before the point."""
    shown = float(f"{value:.4g}") if abs(value) < 1e4 else float(round(value))
    return int(shown) if shown.is_integer() else shown
