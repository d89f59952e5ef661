"""A connection in NSL-KDD's form as a row of numbers: a function of it and of what was fitted on normal connections.

Read are the columns that say what a connection did and what the last ones to its host did. Not read are those that
some of the published files lack; what two of them count is estimated out of a number and a share that are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.errors import BadInput

NUMBERS = (
    "duration",
    "src_bytes",
    "dst_bytes",
    "land",
    "wrong_fragment",
    "urgent",
    "hot",
    "num_failed_logins",
    "num_compromised",
    "root_shell",
    "su_attempted",
    "num_root",
    "num_file_creations",
    "num_shells",
    "num_access_files",
    "is_host_login",
    "is_guest_login",
    "count",
    "serror_rate",
    "srv_serror_rate",
    "srv_rerror_rate",
    "same_srv_rate",
    "diff_srv_rate",
    "dst_host_count",
    "dst_host_same_srv_rate",
    "dst_host_diff_srv_rate",
    "dst_host_same_src_port_rate",
    "dst_host_srv_diff_host_rate",
    "dst_host_serror_rate",
    "dst_host_srv_serror_rate",
    "dst_host_rerror_rate",
    "dst_host_srv_rerror_rate",
)
TEXTS = ("protocol_type", "service", "flag")
LOGARITHMIC = (
    "duration",
    "src_bytes",
    "dst_bytes",
    "hot",
    "num_compromised",
    "num_root",
    "num_file_creations",
    "count",
)
"""Of these the features hold log(1 + x): what matters is how many times larger."""

DERIVED = ("dst_host_srv_log", "no_src_bytes", "no_dst_bytes", "bytes_ratio_log", "srv_log")
FLAGS = ("SF", "S0", "REJ", "RSTR", "RSTO", "SH", "S1", "S2", "S3", "RSTOS0", "OTH")
PROTOCOLS = ("tcp", "udp", "icmp")
FEATURES = (
    *NUMBERS,
    *DERIVED,
    *(f"flag={flag}" for flag in FLAGS),
    *(f"protocol={protocol}" for protocol in PROTOCOLS),
    "service_frequency_log",
)

MAX_SERVICES = 200
MAX_NAME = 64
LARGEST = 1e12
"""Numbers above are taken for this one: squares of larger ones leave the range of 32 bits."""

_AT = {name: place for place, name in enumerate(NUMBERS)}
_LOGARITHMIC_AT = [_AT[name] for name in LOGARITHMIC]


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What is read of connections before anything is fitted."""

    numbers: NDArray[np.float64]
    """Shape (rows, len(NUMBERS)); NaN where a value is missing or impossible."""
    flags: NDArray[np.int8]
    """Place in FLAGS, -1 for any other; as ``protocols`` in PROTOCOLS."""
    protocols: NDArray[np.int8]
    services: Sequence[str]
    """"" where there is none."""

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: NDArray[np.intp]) -> Measured:
        """These rows, in this order."""
        return Measured(
            numbers=self.numbers[rows],
            flags=self.flags[rows],
            protocols=self.protocols[rows],
            services=[self.services[row] for row in rows.tolist()],
        )


def stack(parts: Sequence[Measured]) -> Measured:
    """The rows of all parts, one part after the other; there must be some."""
    return Measured(
        numbers=np.concatenate([part.numbers for part in parts]),
        flags=np.concatenate([part.flags for part in parts]),
        protocols=np.concatenate([part.protocols for part in parts]),
        services=[service for part in parts for service in part.services],
    )


def measure(rows: pl.DataFrame) -> Measured:
    """Reads connections. NaN, infinite and negative numbers count as missing: none of these figures can be so.

    Raises BadInput that names the columns that are missing, or not of the type they should be.
    """
    types = rows.schema
    if missing := [name for name in (*NUMBERS, *TEXTS) if name not in types]:
        raise BadInput(f"Connections need the columns {', '.join(missing)}, which are missing.")
    nothing = pl.Null  # a column without any value
    if wrong := [name for name in NUMBERS if not (types[name].is_numeric() or types[name] == nothing)]:
        raise BadInput(f"Connections need numbers in the columns {', '.join(wrong)}.")
    if wrong := [name for name in TEXTS if types[name] not in (pl.String, nothing)]:
        raise BadInput(f"Connections need text in the columns {', '.join(wrong)}.")
    numbers = rows.select(pl.col(NUMBERS).cast(pl.Float64)).to_numpy()
    with np.errstate(invalid="ignore"):
        possible = np.isfinite(numbers) & (numbers >= 0)
    return Measured(
        numbers=np.where(possible, np.minimum(numbers, LARGEST), np.nan),
        flags=_places(rows["flag"], FLAGS),
        protocols=_places(rows["protocol_type"], PROTOCOLS),
        services=[value or "" for value in rows["service"].to_list()],
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """What is fitted on normal connections: what stands in for a missing number, and how common services are."""

    fills: NDArray[np.float64]
    """Shape (len(NUMBERS),): the medians."""
    services: dict[str, float]
    """log10 of the share of normal connections that go to the service."""
    other_service: float
    """The same for a service that none went to: less than one of them."""

    @classmethod
    def of(cls, normal: Measured) -> Encoder:
        """Of normal connections, at least one."""
        there = [column[~np.isnan(column)] for column in normal.numbers.T]
        counts = Counter(name for name in normal.services if 0 < len(name) <= MAX_NAME)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_SERVICES]
        return cls(
            fills=np.array([np.median(column) if len(column) else 0.0 for column in there]),
            services={name: float(np.log10((count + 1) / len(normal))) for name, count in ranked},
            other_service=float(np.log10(1 / len(normal))),
        )

    def features(self, rows: Measured) -> NDArray[np.float32]:
        """Shape (rows, len(FEATURES)), float32, finite."""
        numbers = np.where(np.isnan(rows.numbers), self.fills, rows.numbers)
        services = numbers[:, _AT["dst_host_count"]] * numbers[:, _AT["dst_host_same_srv_rate"]]
        same = numbers[:, _AT["count"]] * numbers[:, _AT["same_srv_rate"]]
        sent, received = numbers[:, _AT["src_bytes"]], numbers[:, _AT["dst_bytes"]]
        ratio = np.log1p(sent) - np.log1p(received)
        derived = [np.log1p(services), sent == 0, received == 0, ratio, np.log1p(same)]
        numbers[:, _LOGARITHMIC_AT] = np.log1p(numbers[:, _LOGARITHMIC_AT])
        flags = rows.flags[:, None] == np.arange(len(FLAGS))
        protocols = rows.protocols[:, None] == np.arange(len(PROTOCOLS))
        service = [self.services.get(name, self.other_service) for name in rows.services]
        return np.column_stack([numbers, *derived, flags, protocols, np.array(service)]).astype(np.float32)


def _places(values: pl.Series, known: tuple[str, ...]) -> NDArray[np.int8]:
    places: dict[Any, int] = {name: place for place, name in enumerate(known)}
    return np.array([places.get(value, -1) for value in values.to_list()], dtype=np.int8)
