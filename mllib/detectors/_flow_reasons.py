"""Why a flow is of the class that it was called, in the reader's terms: which figures, what is normal, where to look.

An explanation is JSON, below 1 kB, and a function of the flow and the model alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._explanation import AT_MOST, MIN_SHARE
from mllib.detectors._flow_features import FEATURES
from mllib.detectors._texts import plain_text

_RHYTHM = "when its packets came: even gaps are a program, long ones a connection that is held open"
_RATE = "how much came in so short a time: is it a flood, or a transfer that somebody wanted?"
_FLAGS = "how it was opened and ended: lone openings and resets are a scan or a flood, rejected logins end early"
_SENDER = "the sender: its headers and first window are those of a tool, if they differ from its usual ones"
_PROTOCOL = "the protocol: who uses it here, and for what?"
_SIZES = "what was sent and received: many alike are a program that asks, guesses or reports"


def _advice(name: str) -> str:
    if any(word in name for word in ("IAT", "Active", "Idle", "Duration", "Flow Time")):
        return _RHYTHM
    if name.endswith(("/s", "Rate Avg")):
        return _RATE
    if any(word in name for word in ("Flag", "SYN", "RST", "FIN", "ACK", "PSH")):
        return _FLAGS
    if any(word in name for word in ("Init Win", "Header", "Seg Size Min")):
        return _SENDER
    return _PROTOCOL if name == "protocol" or name.startswith("ICMP") else _SIZES


def _unit(name: str) -> str | None:
    if "/Duration" in name or "/Mean" in name or "Fwd/Bwd" in name:
        return None
    if any(word in name for word in ("IAT", "Active", "Idle", "Duration", "Flow Time")):
        return "µs"
    if name.endswith("Bytes/s"):
        return "bytes/s"
    return "bytes" if any(word in name for word in ("Length", "Bytes", "Size")) and "Variance" not in name else None


_AT = {name: place for place, name in enumerate(FEATURES)}
_TWINS = tuple(
    (_AT[first], _AT[second])
    for first, second in (
        ("Fwd Packet Length Mean", "Fwd Segment Size Avg"),
        ("Bwd Packet Length Mean", "Bwd Segment Size Avg"),
        ("Packet Length Mean", "Average Packet Size"),
        ("Packet Length Std", "Packet Length Variance"),
    )
)
"""Features that are one thing to a reader: CICFlowMeter says it twice."""

_ADVICE = tuple(json.dumps(_advice(name)) for name in FEATURES)


class Reasons:
    """Explains flows, given the normal range of each feature. What is the same for all is written once."""

    def __init__(self, ranges: NDArray[np.float64], classes: Sequence[str]) -> None:
        """``ranges``, shape (2, features): between which values a feature is normal."""
        self._classes = [json.dumps(plain_text(name), ensure_ascii=False) for name in classes]
        self._heads: list[str] = []
        for name, low, high in zip(FEATURES, *ranges.tolist(), strict=True):
            unit = f',"unit":"{unit}"' if (unit := _unit(name)) else ""
            self._heads.append(f'{{"name":"{name}"{unit},"normal":[{_number(low)},{_number(high)}]')

    def explain(
        self,
        features: NDArray[np.float32],
        steps: NDArray[np.float64],
        votes: NDArray[np.float64],
        codes: Sequence[int],
    ) -> list[str]:
        """One JSON text per row. ``steps``, shape of the features: what each added to the votes for the row's class.

        ``votes``, shape (rows, classes). The excess is what all features together added that spoke for the class.
        """
        parts = np.maximum(steps, 0.0)
        for first, second in _TWINS:
            parts[:, first] += parts[:, second]
            parts[:, second] = 0.0
        excess = parts.cumsum(axis=1)[:, -1]  # one after the other, whatever the number of rows
        leading = np.argsort(-parts, axis=1, kind="stable")[:, :AT_MOST]
        shares = np.take_along_axis(parts, leading, axis=1) / np.where(excess > 0, excess, 1.0)[:, None]
        values = np.take_along_axis(features, leading, axis=1)
        others = votes.copy()
        others[np.arange(len(votes)), codes] = -1.0
        said = []
        columns = (excess, leading, shares, values, others.argmax(axis=1), others.max(axis=1))
        for total, *leaders, rival, confidence in zip(*(column.tolist() for column in columns), strict=True):
            text = f'{{"excess":{total:.3f}'
            if total <= 0:
                # Possible only where somebody put the threshold below the score of an ordinary flow.
                said.append(text + ',"note":"no feature speaks for an attack: the threshold is very low"}')
                continue
            entries, other = [], 1.0
            for rank, (place, share, value) in enumerate(zip(*leaders, strict=True)):
                if share < 5e-5 or (rank >= 3 and share < MIN_SHARE):
                    break
                other -= share
                entries.append(f'{self._heads[place]},"value":{_number(value)},"share":{share:.4f}}}')
            text += (
                f',"features":[{",".join(entries)}],"other":{max(other, 0.0):.4f},"look_at":{_ADVICE[leaders[0][0]]}'
            )
            if confidence >= MIN_SHARE:
                text += f',"or":{{"class":{self._classes[rival]},"confidence":{confidence:.2f}}}'
            said.append(text + "}")
        return said


def _number(value: float) -> str:
    """Four significant digits, or all of those before the point, as JSON."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
