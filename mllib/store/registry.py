"""The model registry: versions, their artifacts, verdicts, and who is champion.

There is one champion per detector, held by a unique index. A promotion is a compare-and-swap on the champion that the
candidate was judged against: whoever comes second gets a conflict, never a second champion.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from mllib.errors import BadInput, PromotionConflict
from mllib.store import detectors
from mllib.store.queries import queries
from mllib.types import ModelStatus, Verdict, Window


@dataclass(frozen=True, kw_only=True, slots=True)
class NewVersion:
    """Everything the registry keeps of a candidate; see the comments of ``model_registry``."""

    detector: str
    artifact: bytes
    artifact_digest: str
    algorithm: str
    parameters: Mapping[str, Any]
    feature_names: tuple[str, ...]
    threshold: float
    seed: int
    train: Window
    validation: Window | None
    holdout: Window | None
    training_rows: int
    label_counts: Mapping[str, Any]
    data_hash: str
    validation_metrics: Mapping[str, Any]
    code_revision: str | None
    library_versions: Mapping[str, str]
    as_of: datetime
    trained_by: str
    snapshot: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVersion:
    """A stored version, as judging and showing need it."""

    detector: str
    version: int
    status: ModelStatus
    algorithm: str
    threshold: float
    training_rows: int
    train: Window
    validation: Window | None
    holdout: Window | None
    as_of: datetime
    trained_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class NewDecision:
    """A verdict to record. ``champion_version`` is the champion that was judged against, None where there was none."""

    detector: str
    candidate_version: int
    champion_version: int | None
    kind: str  # gate, forced or rollback
    verdict: Verdict
    reason: str
    as_of: datetime
    decided_by: str
    policy: str | None = None
    other_verdict: str | None = None
    candidate_f1: float | None = None
    champion_f1: float | None = None
    holdout_rows: int | None = None
    holdout_positives: int | None = None
    holdout_hash: str | None = None
    figures: Mapping[str, Any] | None = None


def champion(conn: Connection, detector: str) -> int | None:
    """The version in production, None where there is none."""
    version = conn.execute(queries["registry.champion"], {"detector": detector}).scalar_one_or_none()
    return None if version is None else int(version)


def add(conn: Connection, new: NewVersion) -> int:
    """Stores a candidate with its artifact, and returns its version number."""
    detector_id = detectors.identify(conn, new.detector)
    conn.execute(queries["registry.lock_detector"], {"detector_id": detector_id})
    version = int(conn.execute(queries["registry.next_version"], {"detector_id": detector_id}).scalar_one())
    conn.execute(queries["registry.store_artifact"], {"digest": new.artifact_digest, "content": new.artifact})
    conn.execute(
        queries["registry.insert_version"],
        {
            "detector_id": detector_id,
            "version": version,
            "artifact_digest": new.artifact_digest,
            "algorithm": new.algorithm,
            "parameters": json.dumps(new.parameters),
            "feature_names": list(new.feature_names),
            "threshold": new.threshold,
            "seed": new.seed,
            **_ends("train", new.train),
            **_ends("validation", new.validation),
            **_ends("holdout", new.holdout),
            "training_rows": new.training_rows,
            "label_counts": json.dumps(new.label_counts),
            "data_hash": new.data_hash,
            "validation_metrics": json.dumps(new.validation_metrics),
            "code_revision": new.code_revision,
            "library_versions": json.dumps(new.library_versions),
            "as_of": new.as_of,
            "trained_by": new.trained_by,
            "snapshot": new.snapshot,
        },
    )
    return version


def artifact(conn: Connection, detector: str, version: int) -> tuple[bytes, str]:
    """Bytes and recorded digest of a version's model. Raises BadInput when there is no such version."""
    row = conn.execute(queries["registry.load_artifact"], {"detector": detector, "version": version}).one_or_none()
    if row is None:
        raise _unknown(detector, version)
    return bytes(row.content), row.artifact_digest


def get(conn: Connection, detector: str, version: int) -> ModelVersion:
    """One version. Raises BadInput when there is no such version."""
    row = conn.execute(queries["registry.get_version"], {"detector": detector, "version": version}).one_or_none()
    if row is None:
        raise _unknown(detector, version)
    return ModelVersion(
        detector=row.detector,
        version=row.version,
        status=ModelStatus(row.status),
        algorithm=row.algorithm,
        threshold=row.threshold,
        training_rows=row.training_rows,
        train=Window(row.train_start, row.train_end),
        validation=Window(row.validation_start, row.validation_end) if row.validation_start else None,
        holdout=Window(row.holdout_start, row.holdout_end) if row.holdout_start else None,
        as_of=row.as_of,
        trained_at=row.trained_at,
    )


def champion_at(conn: Connection, detector: str, moment: datetime) -> int | None:
    """The version that was champion at a time, None where there was none."""
    binds = {"detector": detector, "moment": moment}
    found: int | None = conn.execute(queries["registry.champion_at"], binds).scalar_one()
    return found


def versions(conn: Connection, detector: str | None = None) -> list[dict[str, Any]]:
    """Versions of one detector, or of all, newest first, with the last verdict on each."""
    return [dict(row._mapping) for row in conn.execute(queries["registry.list_versions"], {"detector": detector})]


def record(conn: Connection, decision: NewDecision) -> int:
    """Records a verdict, and carries it out: a promotion swaps the champion, a refusal marks the candidate refused.

    A refusal of a version that is no candidate any more, because somebody promoted it meanwhile, is recorded only.
    Raises PromotionConflict, and changes nothing, when a promotion finds another champion than the one that was judged
    against. Returns the number of the decision.
    """
    detector_id = detectors.identify(conn, decision.detector)
    keys = {"detector_id": detector_id}
    if decision.verdict is Verdict.PROMOTE:
        conn.execute(queries["registry.lock_detector"], keys)
        current = conn.execute(queries["registry.lock_champion"], keys).scalar_one_or_none()
        if current != decision.champion_version:
            raise PromotionConflict(
                f"{decision.detector} version {decision.candidate_version} was judged against "
                f"{_name(decision.champion_version)}, but the champion is {_name(current)} now. Nothing was changed. "
                "Judge it again by a new training, or promote it by hand with "
                f"`millrace promote {decision.detector} {decision.candidate_version} --against current --reason TEXT`."
            )
        if current is not None:
            _set_status(conn, detector_id, current, ModelStatus.ARCHIVED)
        _set_status(conn, detector_id, decision.candidate_version, ModelStatus.CHAMPION)
    elif decision.verdict is Verdict.REFUSE:
        conn.execute(queries["registry.refuse"], {**keys, "version": decision.candidate_version})
    return int(
        conn.execute(
            queries["registry.insert_decision"],
            {
                **keys,
                "candidate_version": decision.candidate_version,
                "champion_version": decision.champion_version,
                "kind": decision.kind,
                "verdict": decision.verdict.value,
                "policy": decision.policy,
                "other_verdict": decision.other_verdict,
                "candidate_f1": decision.candidate_f1,
                "champion_f1": decision.champion_f1,
                "holdout_rows": decision.holdout_rows,
                "holdout_positives": decision.holdout_positives,
                "holdout_hash": decision.holdout_hash,
                "figures": json.dumps(decision.figures or {}),
                "reason": decision.reason,
                "as_of": decision.as_of,
                "decided_by": decision.decided_by,
            },
        ).scalar_one()
    )


def judged_against(conn: Connection, detector: str, version: int) -> int | None:
    """The champion that the gate compared a version with last; None where there was none."""
    keys = {"detector_id": detectors.identify(conn, detector), "version": version}
    found: int | None = conn.execute(queries["registry.judged_against"], keys).scalar_one_or_none()
    return found


def holdout_looks(conn: Connection, detector: str, holdout_hash: str) -> int:
    """How many verdicts on a detector were reached on exactly these holdout rows."""
    keys = {"detector": detector, "holdout_hash": holdout_hash}
    return int(conn.execute(queries["registry.holdout_looks"], keys).scalar_one())


def previous_champion(conn: Connection, detector: str) -> int | None:
    """The version to roll back to: the champion before the present one, rollbacks themselves not counted."""
    keys = {"detector_id": detectors.identify(conn, detector)}
    found: int | None = conn.execute(queries["registry.previous_champion"], keys).scalar_one_or_none()
    return found


def _set_status(conn: Connection, detector_id: int, version: int, status: ModelStatus) -> None:
    conn.execute(
        queries["registry.set_status"], {"detector_id": detector_id, "version": version, "status": status.value}
    )


def _ends(name: str, window: Window | None) -> dict[str, datetime | None]:
    if window is None:
        return {f"{name}_start": None, f"{name}_end": None}
    return {f"{name}_start": window.start, f"{name}_end": window.end}


def _name(version: int | None) -> str:
    return "no champion" if version is None else f"version {version}"


def _unknown(detector: str, version: int) -> BadInput:
    return BadInput(f"{detector} has no version {version}. `millrace models {detector}` lists them.")
