"""Models out of the registry, checked and kept in memory."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Engine

from mllib import artifacts
from mllib.detectors import detector as detector_named
from mllib.detectors.base import Model
from mllib.store import registry
from mllib.store.database import transaction


@lru_cache(maxsize=8)
def load_model(engine: Engine, detector: str, version: int) -> Model:
    """A version's model; versions never change, so it is read once per process.

    Raises BadInput when there is no such version, BadArtifact when its bytes are not those that were registered.
    """
    with transaction(engine) as conn:
        content, digest = registry.artifact(conn, detector, version)
    return detector_named(detector).load(artifacts.loads(content, digest))
