"""The lines of the demo data before they are put into words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mllib.demo.shop import LINES

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

KEYS = list(LINES)
SERVICES = sorted({line.service for line in LINES.values()} - {""})
HOSTS_PER_SERVICE = 3


@dataclass(slots=True)
class Columns:
    """One entry per line in each array."""

    kind: Ints  # index into KEYS
    seconds: Floats  # since the beginning
    trace: Ints  # number of the request; -1 for none
    host: Ints
    slowdown: Floats
    label: Ints
    service: Ints  # index into SERVICES
    version: Ints  # minor version that a deploy brings; 0 for other lines

    def __len__(self) -> int:
        return len(self.kind)
