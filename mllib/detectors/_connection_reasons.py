"""Why a connection is a threat, in the reader's terms: which figures, what is normal for them, and what to look at.

Columns that are one thing to a reader, such as a size and whether it is nothing at all, are added up; logarithms are
undone. An explanation is JSON, well below 1 kB, and a function of the connection and the model alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._connection_features import FEATURES, FLAGS, LOGARITHMIC, NUMBERS, PROTOCOLS
from mllib.errors import BadArtifact

AT_MOST = 5
"""Features that an explanation names; those after the third only if they have at least MIN_SHARE of the excess."""

MIN_SHARE = 0.05
MAX_TEXT = 40
NORMAL = (0.05, 0.95)
"""The quantiles of normal connections between which a number is normal."""

_AT = {name: place for place, name in enumerate(FEATURES)}

_PACKETS = "the packets themselves: what sender makes such fragments or addresses?"
_SIZES = "what was sent and received: is it a flood, a leak, or a payload that is no ordinary request?"
_ENDINGS = "how the connections ended: refused, reset and half-open ones point to a scan or a flood"
_SERVICE = "the service: who uses it, and should it be reachable?"
_CONTENT = "what was done after the login: failed logins, shells, files, rights"
_SECONDS = "what else came in these two seconds: many alike are a flood or a scan"
_HOST = "the last hundred connections to this host: one port after the other, or one source, is a scan"


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Columns that are one feature to a reader. The first one is its value, unless it is text."""

    name: str
    columns: tuple[int, ...]
    advice: str
    text: str | None = None  # the column of the frame that says it
    log: bool = False
    unit: str | None = None


def _advice(name: str) -> str:
    if name.endswith("error_rate"):
        return _ENDINGS
    if name.startswith("dst_host_"):
        return _HOST
    if name in ("count", "same_srv_rate", "diff_srv_rate"):
        return _SECONDS
    if name in ("duration", "src_bytes", "dst_bytes"):
        return _SIZES
    return _PACKETS if name in ("land", "wrong_fragment", "urgent") else _CONTENT


def _figure(name: str) -> _Group:
    beside = (_AT[f"no_{name}"],) if f"no_{name}" in _AT else ()
    unit = {"duration": "s", "src_bytes": "bytes", "dst_bytes": "bytes"}.get(name)
    return _Group(name=name, columns=(_AT[name], *beside), advice=_advice(name), log=name in LOGARITHMIC, unit=unit)


GROUPS = (
    *(_figure(name) for name in NUMBERS),
    _Group(name="bytes_sent_by_received", columns=(_AT["bytes_ratio_log"],), advice=_SIZES),
    _Group(name="dst_host_srv_count_estimate", columns=(_AT["dst_host_srv_log"],), advice=_HOST, log=True),
    _Group(name="srv_count_estimate", columns=(_AT["srv_log"],), advice=_SECONDS, log=True),
    _Group(name="flag", columns=tuple(_AT[f"flag={flag}"] for flag in FLAGS), advice=_ENDINGS, text="flag"),
    _Group(
        name="protocol_type",
        columns=tuple(_AT[f"protocol={protocol}"] for protocol in PROTOCOLS),
        advice=_SERVICE,
        text="protocol_type",
    ),
    _Group(name="service", columns=(_AT["service_frequency_log"],), advice=_SERVICE, text="service"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Normal:
    """What normal connections looked like."""

    ranges: NDArray[np.float64]
    """Shape (2, features): the quantiles NORMAL."""
    means: NDArray[np.float64]
    """Shape (features,): of a column that is 0 or 1, the share of those that have 1."""

    @classmethod
    def of(cls, features: NDArray[np.float32]) -> Normal:
        values = features.astype(np.float64)
        return cls(ranges=np.quantile(values, NORMAL, axis=0), means=values.mean(axis=0))

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]]) -> Normal:
        """Raises BadArtifact unless the arrays are those that ``arrays`` gives."""
        width = len(FEATURES)
        for name, shape in (("normal_ranges", (2, width)), ("normal_means", (width,))):
            values = arrays.get(name)
            if values is None or values.shape != shape or values.dtype != np.float64 or not np.isfinite(values).all():
                raise BadArtifact(
                    f"The stored {name.replace('_', ' ')} are not those of the model's features. "
                    "Roll back to another version, or train again."
                )
        return cls(ranges=arrays["normal_ranges"], means=arrays["normal_means"])

    @property
    def arrays(self) -> dict[str, NDArray[np.float64]]:
        return {"normal_ranges": self.ranges, "normal_means": self.means}


def explanations(
    lines: pl.DataFrame, features: NDArray[np.float32], parts: NDArray[np.float64], normal: Normal
) -> list[str]:
    """One JSON text per row. ``parts``, shape (rows, features), not negative, add up to each row's excess."""
    grouped = np.stack([_added(parts, group.columns) for group in GROUPS], axis=1)
    excess = _added(grouped, range(len(GROUPS)))
    leading = np.argsort(-grouped, axis=1, kind="stable")[:, :AT_MOST]
    texts = {group.name: lines[group.text].to_list() for group in GROUPS if group.text}
    return [
        _explanation(row, features[row], grouped[row], float(excess[row]), leading[row].tolist(), texts, normal)
        for row in range(len(features))
    ]


def _explanation(
    row: int,
    features: NDArray[np.float32],
    grouped: NDArray[np.float64],
    excess: float,
    leading: list[int],
    texts: Mapping[str, Sequence[str | None]],
    normal: Normal,
) -> str:
    said: dict[str, Any] = {"excess": round(excess, 3)}
    if excess <= 0:
        # Possible only where somebody put the threshold below the score of an ordinary connection.
        return json.dumps({**said, "note": "all normal connections are as odd: the threshold is very low"})
    named = []
    for rank, place in enumerate(leading):
        share = float(grouped[place]) / excess
        if share <= 0 or (rank >= 3 and share < MIN_SHARE):
            break
        group = GROUPS[place]
        value: dict[str, Any] = {"name": group.name}
        if group.unit:
            value["unit"] = group.unit
        if group.text:
            value |= {"value": _text(texts[group.name][row]), "seen": _seen(group, features, normal)}
        else:
            ends = normal.ranges[:, group.columns[0]]
            value |= {
                "normal": [_plain(group, float(end)) for end in ends],
                "value": _plain(group, float(features[group.columns[0]])),
            }
        named.append({**value, "share": round(share, 4)})
    other = 1 - sum(feature["share"] for feature in named)
    said |= {"features": named, "other": round(other, 4) + 0.0, "look_at": GROUPS[leading[0]].advice}
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


def _added(values: NDArray[np.float64], columns: Sequence[int] | range) -> NDArray[np.float64]:
    """Their sum for each row, added column by column: another order for another number of rows would be possible."""
    total = np.zeros(len(values))
    for column in columns:
        total += values[:, column]
    return total


def _seen(group: _Group, features: NDArray[np.float32], normal: Normal) -> float:
    """The share of normal connections that have the same flag, protocol or service; about, for a rare service."""
    if len(group.columns) == 1:
        return _rounded(10.0 ** float(features[group.columns[0]]))
    columns = list(group.columns)
    own = features[columns] > 0
    return _rounded(float(normal.means[columns][own][0]) if own.any() else 1 - float(normal.means[columns].sum()))


def _plain(group: _Group, value: float) -> float:
    if group.name == "bytes_sent_by_received":
        return _rounded(float(np.exp(value)))
    return _rounded(float(np.expm1(value)) if group.log else value)


def _rounded(value: float) -> float:
    """Four significant digits, and no more than there are before the point."""
    shown = float(f"{value:.4g}") if abs(value) < 1e4 else float(round(value))
    return int(shown) if shown.is_integer() else shown


def _text(value: str | None) -> str | None:
    """At most MAX_TEXT characters that PostgreSQL takes as well, and that steer no terminal."""
    if value is None:
        return None
    clipped = value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…"
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in clipped)
