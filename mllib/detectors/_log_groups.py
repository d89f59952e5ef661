"""The 78 features of a log line as a reader knows them, with what to look at when one of them stands out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._explanation import Category, Codes, Figure, Group, Words, one_hot_codes
from mllib.detectors._log_features import SERVICES, feature_names
from mllib.detectors._surprise import SURPRISES
from mllib.features.encoders import LEVELS
from mllib.features.text import WIDTH

HOURS = tuple(f"{hour:02}:00 UTC" for hour in range(24))
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_TIMING = "the service's dependencies and load at that time: what did the request wait for?"
_TRAFFIC = "the traffic around the line: a burst, a retry loop, or a service that fell silent?"
_ERRORS = "the errors around the line and their first one: what failed, and what was deployed before?"
_WHEN = "what runs at that time: a job, a batch, or a person at an odd hour?"
_SERVICE = "the service: is it new, renamed, or seldom heard of?"
_MESSAGE = "the wording: which code path writes it, and since which release?"
_STATUS = "the status code: which caller got it, and what did the service answer before?"

_FIGURES: dict[str, tuple[str | None, str]] = {
    "response_time": ("ms", _TIMING),
    "status_code": (None, _STATUS),
    "time_since_last_log": ("s", _TRAFFIC),
    "logs_in_last_5min": ("lines", _TRAFFIC),
    "response_time_mean_5min": ("ms", _TIMING),
    "response_time_std_5min": ("ms", _TIMING),
    "response_time_median_5min": ("ms", _TIMING),
    "error_rate_5min": (None, _ERRORS),
    "log_volume_5min": ("lines", _TRAFFIC),
}

_SURPRISE = {
    "template_surprise": _MESSAGE,
    "template_in_service_surprise": "the service: why does it write what it hardly ever wrote?",
    "template_order_surprise": "the line of the service before: what was left out, or came in between?",
    "words_surprise": _MESSAGE,
}


def groups(services: Sequence[str], vocabulary: Sequence[str]) -> tuple[Group, ...]:
    """The groups of ``feature_names(services, vocabulary)``, in the same order."""
    names = feature_names(services, vocabulary)
    starts = {
        "hour_sin": Category(name="hour", columns=range(2, 4), codes=_turns(24), size=24, labels=HOURS, advice=_WHEN),
        "day_sin": Category(name="day", columns=range(4, 6), codes=_turns(7), size=7, labels=DAYS, advice=_WHEN),
        f"level={LEVELS[0]}": _one_hot("level", names.index(f"level={LEVELS[0]}"), len(LEVELS), _ERRORS),
    }
    at_services = names.index(f"level={LEVELS[0]}") + len(LEVELS)
    at_text = len(names) - WIDTH
    found: list[Group] = []
    column = 0
    while column < len(names):
        if column == at_services:
            group: Group = _one_hot("service", column, SERVICES, _SERVICE)
        elif column == at_text:
            group = Words(name="message", columns=range(column, len(names)), terms=tuple(vocabulary), advice=_MESSAGE)
        elif names[column] in starts:
            group = starts[names[column]]
        else:
            unit, advice = _FIGURES[names[column]]
            group = Figure(name=names[column], column=column, unit=unit, advice=advice)
        found.append(group)
        column = group.columns.stop
    return tuple(found)


def surprise_groups(begin: int) -> tuple[Group, ...]:
    """The columns of SURPRISES, the first of them at ``begin``."""
    return tuple(
        Figure(name=name, column=column, unit="bits", advice=_SURPRISE[name], changeable=False)
        for column, name in enumerate(SURPRISES, start=begin)
    )


def _one_hot(name: str, begin: int, width: int, advice: str) -> Category:
    return Category(name=name, columns=range(begin, begin + width), codes=one_hot_codes, size=width + 1, advice=advice)


def _turns(parts: int) -> Codes:
    def codes(columns: NDArray[np.float32]) -> NDArray[np.int64]:
        angle = np.arctan2(columns[:, 0], columns[:, 1]) / (2 * np.pi)
        return np.rint(angle * parts).astype(np.int64) % parts

    return codes
