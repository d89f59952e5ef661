"""Why a session is an anomaly: which templates it lacks, has too many or too few of, or in an unusual order."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, Final

import numpy as np

from mllib.detectors._calibration import ANOMALY
from mllib.detectors._explanation import AT_MOST, MIN_SHARE
from mllib.detectors._texts import plain_text
from mllib.sessions.gathering import Floats, Ints, Sessions
from mllib.sessions.model import Deviations, SessionModel, tree_rows

MAX_TEMPLATE: Final = 80
"""Characters of a template that an explanation shows."""

_BLOCK = 4096  # sessions explained at a time, which bounds the memory

_LOOK_AT = {
    "missing": "what should have come after the last line of the session: who was to write it?",
    "too few": "what should have been repeated and was not: a worker that stopped, or lines that were lost?",
    "too many": "who writes this line here, and what made it do so again: a retry, a repair, a loop?",
    "unseen": "the line that no session of the training had: which code path writes it, and since which release?",
    "out of order": "the two lines at the surprising place: what overtook what?",
}


def explain(model: SessionModel, sessions: Sessions, rows: Ints) -> list[str]:
    """Why the sessions at the places ``rows``, ascending, have their scores: JSON objects below 2 kB, as text.

    Their form is in docs/analysts.md. The shares are those of the whole deviation, or, where learnt trees decided, of
    what their questions added.
    """
    texts = []
    for begin in range(0, len(rows), _BLOCK):
        part = sessions.take(rows[begin : begin + _BLOCK])
        found, codes = model.deviations(part), model.codes(part)
        borders = np.searchsorted(part.of, np.arange(len(part) + 1)).tolist()
        for row in range(len(part)):
            lines = slice(borders[row], borders[row + 1])
            said = [part.templates[code] for code in part.template[lines].tolist()]
            texts.append(_explained(model, _one(found, row), codes[lines], said))
    return texts


def _one(found: Deviations, row: int) -> Deviations:
    return Deviations(**{field.name: getattr(found, field.name)[row : row + 1] for field in fields(found)})


def _explained(model: SessionModel, found: Deviations, codes: Ints, said: list[str]) -> str:
    """Of one session, whose lines have these codes and templates."""
    parts = _parts(model, found)
    total = parts.sum()
    entries = []
    places = np.argsort(-parts, kind="stable")[:AT_MOST].tolist()
    for rank, place in enumerate(places):
        if parts[place] <= 0 or (rank >= 3 and parts[place] / total < MIN_SHARE):
            break
        entries.append({**_entry(model, found, codes, said, place), "share": round(float(parts[place] / total), 4)})
    told: dict[str, Any] = {"features": entries}
    if entries:
        told["look_at"] = _LOOK_AT[entries[0]["kind"]]
        if change := _normal_with(model, found, places[: len(entries)]):
            told["normal_with"] = change
    return json.dumps(told, ensure_ascii=False)


def _parts(model: SessionModel, found: Deviations) -> Floats:
    """Shape (width + 1,): what each column, and last the order, has to do with the score. At least 0."""
    if model.trees is not None and model.learnt(found.counts)[0] >= model.unexcused(found)[0]:
        return np.append(np.maximum(model.trees.contributions(tree_rows(found.counts))[0], 0.0), 0.0)
    return np.append(found.of_counts[0], found.of_order)


def _entry(model: SessionModel, found: Deviations, codes: Ints, said: list[str], place: int) -> dict[str, Any]:
    if place == len(model.center):
        bits = model.order.surprise(codes, np.zeros_like(codes))
        at = int(np.argmax(bits))
        pair = ["<start>" if at == 0 else said[at - 1], said[at]]
        value = [plain_text(text, MAX_TEMPLATE) for text in pair]
        return {"name": "order of lines", "kind": "out of order", "value": value}
    count, low, high = (float(values[place]) for values in (found.counts[0], model.low, model.high))
    if place < len(model.templates):
        name, below = model.templates[place], np.log1p(count) < model.center[place]
        kind = "too many" if not below else "missing" if count == 0 else "too few"
    else:
        name, kind = said[int(np.argmax(codes == place))], "unseen"
    return {"name": plain_text(name, MAX_TEMPLATE), "kind": kind, "value": int(count), "normal": [int(low), int(high)]}


def _normal_with(model: SessionModel, found: Deviations, places: list[int]) -> dict[str, Any] | None:
    """The first of these templates whose usual count alone would make the session normal. Tried before it is said."""
    if model.judged(found)[0] < ANOMALY:
        return None
    for place in places:
        if place >= len(model.templates):
            continue
        usual = float(np.rint(np.expm1(model.center[place])))
        counts, of_counts, missing = found.counts.copy(), found.of_counts.copy(), found.missing.copy()
        counts[0, place], of_counts[0, place], missing[0, place] = usual, 0.0, False
        changed = replace(found, counts=counts, of_counts=of_counts, missing=missing)
        if model.judged(changed)[0] < ANOMALY:
            return {"name": plain_text(model.templates[place], MAX_TEMPLATE), "value": int(usual)}
    return None
