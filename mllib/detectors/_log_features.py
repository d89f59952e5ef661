"""The 78 features of a log line: those that any model would compute alike, and their assembly for one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.features.encoders import FEW, LEVELS, cyclic_time, distinct_codes, one_hot
from mllib.features.text import WIDTH, TemplateVectorizer, template_codes
from mllib.features.windows import figures, windows

T = TypeVar("T")

SERVICES = 10

_BEFORE = ("response_time", "status_code", "hour_sin", "hour_cos", "day_sin", "day_cos")
_WINDOWS = (
    "time_since_last_log",
    "logs_in_last_5min",
    "response_time_mean_5min",
    "response_time_std_5min",
    "response_time_median_5min",
    "error_rate_5min",
    "log_volume_5min",
)
_SPLIT = 2  # the first two windows stand among the numeric features, the others after the services
_NUMERIC = len(_BEFORE) + _SPLIT


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is measured on rows without any model: numbers where there are numbers, NaN where they are missing."""

    numbers: NDArray[np.float32]  # shape (n, 13): _BEFORE, then _WINDOWS; NaN only in the first two
    level: NDArray[np.int8]  # codes of LEVELS, -1 for none
    service_of: NDArray[np.int64]  # row i is of the service services[service_of[i]]
    services: list[str | None]  # distinct; not each need have a row
    template_of: NDArray[np.int64]  # row i has the template templates[template_of[i]]
    previous_of: NDArray[np.int64]  # the template of its service's row before, -1 without one in the five minutes
    templates: list[str]  # distinct, secrets masked


def measure(frame: pl.DataFrame, rows: NDArray[np.int64]) -> Measured:
    """Measure the rows at positions ``rows`` (ascending) of a log frame; the others are their context."""
    columns = figures(frame)
    window = windows(frame, rows, columns)
    together = len(rows) and rows[-1] - rows[0] + 1 == len(rows)  # as a rule: then they need no copy
    chosen = slice(int(rows[0]), int(rows[-1]) + 1) if together else rows
    follows = np.flatnonzero(window.previous >= 0)
    read = np.zeros(frame.height, dtype=bool)
    read[rows] = read[window.previous[follows]] = True
    place = np.cumsum(read) - 1
    template_at, templates = template_codes(frame["message"].filter(pl.Series(read)))
    previous_of = np.full(len(rows), -1, dtype=np.int64)
    previous_of[follows] = template_at[place[window.previous[follows]]]
    numbers = np.empty((len(rows), len(_BEFORE) + len(_WINDOWS)), dtype=np.float32)
    response_us = columns.response_us[chosen]
    numbers[:, 0] = np.where(response_us < 0, np.nan, response_us / 1e3)
    numbers[:, 1] = columns.status[chosen]
    numbers[:, 2:6] = cyclic_time(columns.ts[chosen])
    for column, name in enumerate(_WINDOWS, start=len(_BEFORE)):
        numbers[:, column] = getattr(window, name)
    return Measured(
        numbers=numbers,
        level=columns.level[chosen],
        service_of=columns.service_of[chosen],
        services=columns.services,
        template_of=template_at[place[chosen]],
        previous_of=previous_of,
        templates=templates,
    )


def subset(measured: Measured, kept: NDArray[np.bool_]) -> Measured:
    """The rows of ``measured`` for which ``kept`` is True, and the templates that they use."""
    return take(measured, np.flatnonzero(kept))


def take(measured: Measured, rows: NDArray[np.intp]) -> Measured:
    """The rows at these positions of ``measured``, in this order, and the templates that they use."""
    both = np.stack([measured.template_of[rows], measured.previous_of[rows]])
    used, codes = np.unique(both, return_inverse=True)
    none = int(np.searchsorted(used, 0))  # 1 where some row follows none: -1 comes first
    template_of, previous_of = codes.reshape(both.shape) - none
    return Measured(
        numbers=measured.numbers[rows],
        level=measured.level[rows],
        service_of=measured.service_of[rows],
        services=measured.services,
        template_of=template_of,
        previous_of=previous_of,
        templates=[measured.templates[template] for template in used[none:].tolist()],
    )


def stack(parts: Sequence[Measured]) -> Measured:
    """One after the other."""
    templates_at, templates = _merged([part.templates for part in parts])
    services_at, services = _merged([part.services for part in parts])
    return Measured(
        numbers=np.concatenate([part.numbers for part in parts]),
        level=np.concatenate([part.level for part in parts]),
        service_of=np.concatenate([at[part.service_of] for at, part in zip(services_at, parts, strict=True)]),
        services=services,
        template_of=np.concatenate([at[part.template_of] for at, part in zip(templates_at, parts, strict=True)]),
        previous_of=np.concatenate(
            [
                np.where(part.previous_of < 0, -1, at[part.previous_of])
                for at, part in zip(templates_at, parts, strict=True)
            ]
        ),
        templates=templates,
    )


def _merged(lists: Sequence[list[T]]) -> tuple[list[NDArray[np.int64]], list[T]]:
    """The values of all lists, each once, and of each list where its values are among them."""
    places, merged = distinct_codes([value for values in lists for value in values])
    return np.split(places, np.cumsum([len(values) for values in lists])[:-1]), merged


def feature_names(services: Sequence[str], vocabulary: Sequence[str]) -> tuple[str, ...]:
    """The 78 names. Columns without a service or a term are numbered; they are 0 in every row."""
    return (
        *_BEFORE,
        *_WINDOWS[:_SPLIT],
        *(f"level={level}" for level in LEVELS),
        *(f"service={name}" for name in services),
        *(f"service#{place}" for place in range(len(services), SERVICES)),
        *_WINDOWS[_SPLIT:],
        *(f"text={term}" for term in vocabulary),
        *(f"text#{place}" for place in range(len(vocabulary), WIDTH)),
    )


def assemble(
    measured: Measured,
    *,
    fills: Sequence[float],
    services: Sequence[str],
    vectorizer: TemplateVectorizer,
    more: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Shape (n, 78), in the order of ``feature_names``, and after them the columns of ``more``.

    ``fills`` stand in for a missing response time and status code.
    """
    numbers = measured.numbers
    at_level, at_service = _NUMERIC, _NUMERIC + len(LEVELS)
    at_window = at_service + SERVICES
    at_text = at_window + len(_WINDOWS) - _SPLIT
    width = at_text + WIDTH
    template = measured.template_of
    level: NDArray[np.integer] = measured.level
    place_of: dict[str | None, int] = {name: place for place, name in enumerate(services)}
    service = np.array([place_of.get(name, -1) for name in measured.services], dtype=np.int64)[measured.service_of]
    many = len(numbers) > FEW
    if many:
        # Their combinations are few, and rows begin as copies of them: to put columns beside each other costs as much
        # as making them.
        combination_of, (template, level, service) = _combinations(template, level, service)
    out = np.zeros((len(template), width + (0 if more is None else more.shape[1])), dtype=np.float32)
    out[:, at_level:at_service] = one_hot(level, len(LEVELS))
    out[:, at_service:at_window] = one_hot(service, SERVICES)
    out[:, at_text:width] = vectorizer.transform(measured.templates)[template]
    if many:
        out = out.take(combination_of, axis=0)
    out[:, :_NUMERIC] = numbers[:, :_NUMERIC]
    for column, fill in enumerate(fills):
        out[np.isnan(numbers[:, column]), column] = fill
    out[:, at_window:at_text] = numbers[:, _NUMERIC:]
    if more is not None:
        out[:, width:] = more
    return out


def _combinations(*codes: NDArray[np.integer]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Of each row its place among the combinations that occur, and of these the codes. Codes are -1 or more."""
    sizes = [int(of_rows.max()) + 2 for of_rows in codes]
    combined = np.ravel_multi_index([of_rows + np.int64(1) for of_rows in codes], sizes)
    occurs = np.zeros(np.prod(sizes), dtype=bool)
    occurs[combined] = True
    occurring = np.unravel_index(np.flatnonzero(occurs), sizes)
    return (np.cumsum(occurs) - 1)[combined], [of_combinations - 1 for of_combinations in occurring]
