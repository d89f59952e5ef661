"""Why a connection is a threat, in the reader's terms: which figures, what is normal for them, and what to look at.

Columns that are one thing to a reader, such as a size and whether it is nothing at all, are added up; logarithms are
undone. An explanation is JSON, well below 1 kB, and a function of the connection and the model alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._connection_features import FEATURES, FLAGS, LOGARITHMIC, NUMBERS, PROTOCOLS
from mllib.detectors._explanation import AT_MOST, MIN_SHARE, NORMAL
from mllib.detectors._texts import plain_text
from mllib.errors import BadArtifact

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


_ADVICE = tuple(json.dumps(group.advice) for group in GROUPS)


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


class Reasons:
    """Explains connections, given what normal ones looked like. What is the same for all is written once."""

    def __init__(self, normal: Normal) -> None:
        self.normal = normal
        self._heads: list[str] = []
        self._seen: dict[str, list[str]] = {}  # of each value of a text, those that are not known at the end
        for group in GROUPS:
            head: dict[str, Any] = {"name": group.name}
            if group.unit:
                head["unit"] = group.unit
            if group.text is None:
                head["normal"] = [_plain(group, float(end)) for end in normal.ranges[:, group.columns[0]]]
            elif len(group.columns) > 1:
                shares = normal.means[list(group.columns)].tolist()
                self._seen[group.name] = [_json(_rounded(share)) for share in (*shares, 1 - sum(shares))]
            self._heads.append(_json(head)[:-1])

    def explain(self, lines: pl.DataFrame, features: NDArray[np.float32], parts: NDArray[np.float64]) -> list[str]:
        """One JSON text per row. ``parts``, shape (rows, features), not negative, add up to each row's excess."""
        grouped = np.stack([_added(parts, group.columns) for group in GROUPS], axis=1)
        excess = _added(grouped, range(len(GROUPS)))
        leading = np.argsort(-grouped, axis=1, kind="stable")[:, :AT_MOST]
        texts = {group.name: lines[group.text].to_list() for group in GROUPS if group.text}
        said = []
        for row, (total, order, own) in enumerate(
            zip(excess.tolist(), leading.tolist(), features.tolist(), strict=True)
        ):
            text = f'{{"excess":{total:.3f}'
            if total <= 0:
                # Possible only where somebody put the threshold below the score of an ordinary connection.
                said.append(text + ',"note":"all normal connections are as odd: the threshold is very low"}')
                continue
            entries, other = [], 1.0
            for rank, (place, part) in enumerate(zip(order, grouped[row, order].tolist(), strict=True)):
                share = round(part / total, 4)
                if share <= 0 or (rank >= 3 and share < MIN_SHARE):
                    break
                other -= share
                entries.append(f'{self._heads[place]},{self._value(GROUPS[place], own, texts, row)},"share":{share}}}')
            text += f',"features":[{",".join(entries)}],"other":{round(other, 4) + 0.0}'
            said.append(f'{text},"look_at":{_ADVICE[order[0]]}}}')
        return said

    def _value(self, group: _Group, features: list[float], texts: Mapping[str, Sequence[str | None]], row: int) -> str:
        """What it is in a row, as JSON members; of a text also how many normal connections have it, about."""
        if group.text is None:
            return f'"value":{_json(_plain(group, features[group.columns[0]]))}'
        if group.name in self._seen:
            place = next((i for i, column in enumerate(group.columns) if features[column]), -1)
            seen = self._seen[group.name][place]
        else:
            seen = _json(_rounded(10.0 ** features[group.columns[0]]))
        return f'"value":{_json(plain_text(texts[group.name][row]))},"seen":{seen}'


def _added(values: NDArray[np.float64], columns: Sequence[int] | range) -> NDArray[np.float64]:
    """Their sum for each row, added column by column: another order for another number of rows would be possible."""
    total = np.zeros(len(values))
    for column in columns:
        total += values[:, column]
    return total


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _plain(group: _Group, value: float) -> float:
    if group.name == "bytes_sent_by_received":
        return _rounded(math.exp(value))
    return _rounded(math.expm1(value) if group.log else value)


def _rounded(value: float) -> float:
    """Four significant digits, and no more than there are before the point."""
    shown = float(f"{value:.4g}") if abs(value) < 1e4 else float(round(value))
    return int(shown) if shown.is_integer() else shown
