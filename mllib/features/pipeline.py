"""What a CI/CD run is judged by, out of its log and what else is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mllib.errors import BadInput
from mllib.sources import PIPELINE_FEATURES

MAX_HOSTS = 100
"""Hosts that are kept of a run."""
MAX_HOST = 253
"""Characters of a host's name."""
MAX_EVIDENCE = 32_768
"""Bytes of all excerpts together, as JSON."""


class PipelineMeta(NamedTuple):
    """What is known of a run beside its log."""

    provider: str | None = None
    repository: str | None = None
    branch: str | None = None
    workflow: str | None = None
    language: str | None = None
    duration_s: float | None = None


class PipelineFeatures(NamedTuple):
    """A run in numbers, None where one is not known; with what they were counted from."""

    values: Mapping[str, float | None]
    """By the names of PIPELINE_FEATURES; finite and not negative."""
    hosts: tuple[str, ...] = ()
    """Different network hosts, at most MAX_HOSTS."""
    evidence: Mapping[str, object] | None = None
    """Short excerpts of the log by kind of security issue, at most MAX_EVIDENCE bytes as JSON."""

    def numbers(self) -> tuple[float | None, ...]:
        """The values in the order of PIPELINE_FEATURES."""
        return tuple(self.values.get(name) for name in PIPELINE_FEATURES)


def pipeline_features(text: str, meta: PipelineMeta) -> PipelineFeatures:
    """The features of a run out of the text of its log. Raises BadInput: no log is read yet."""
    raise BadInput(
        f"a log of {len(text):,} characters cannot be turned into features yet; give the features themselves: "
        f"{', '.join(PIPELINE_FEATURES)}"
    )
