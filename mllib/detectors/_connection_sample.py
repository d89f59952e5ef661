"""The labelled connections that network_threat is fitted on."""

from __future__ import annotations

from mllib.detectors._connection_features import Measured, measure, stack
from mllib.detectors._labelled_sample import LabelledSample

MAX_NORMAL = 70_000
MAX_PER_KIND = 10_000
"""Rows of one attack: more of the same flood adds only time."""

MAX_ATTACKS = 150_000


class ConnectionSample(LabelledSample[Measured]):
    """A bounded sample of connections by their labels."""

    def __init__(self) -> None:
        super().__init__(
            measure=lambda frame, chosen: measure(frame[chosen]),
            take=Measured.take,
            stack=stack,
            max_normal=MAX_NORMAL,
            max_per_kind=MAX_PER_KIND,
            max_attacks=MAX_ATTACKS,
        )
