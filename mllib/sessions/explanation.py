"""Why a session is an anomaly: which templates it lacks, has too many or too few of, or in an unusual order."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

import numpy as np

from mllib.detectors._calibration import ANOMALY
from mllib.detectors._explanation import AT_MOST, MIN_SHARE, plain_text
from mllib.sessions.gathering import Floats, Sessions
from mllib.sessions.model import Deviations, SessionModel, tree_rows

MAX_TEMPLATE: Final = 80
"""Characters of a template that an explanation shows."""

_LOOK_AT = {
    "missing": "what should have come after the last line of the session: who was to write it?",
    "too few": "what should have been repeated and was not: a worker that stopped, or lines that were lost?",
    "too many": "who writes this line here, and what made it do so again: a retry, a repair, a loop?",
    "unseen": "the line that no session of the training had: which code path writes it, and since which release?",
    "out of order": "the two lines at the surprising place: what overtook what?",
}


def explain(model: SessionModel, sessions: Sessions, row: int) -> str:
    """Why the session at place ``row`` has its score, as JSON below 2 kB. Its form is in docs/analysts.md.

    The shares are those of the whole deviation, or, where learnt trees decided, of what their questions added.
    """
    one = sessions.part(row, row + 1)
    found = model.deviations(one)
    parts = _parts(model, found)
    total = parts.sum()
    entries = []
    places = np.argsort(-parts, kind="stable")[:AT_MOST].tolist()
    for rank, place in enumerate(places):
        if parts[place] <= 0 or (rank >= 3 and parts[place] / total < MIN_SHARE):
            break
        entries.append({**_entry(model, one, found, place), "share": round(float(parts[place] / total), 4)})
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


def _entry(model: SessionModel, one: Sessions, found: Deviations, place: int) -> dict[str, Any]:
    if place == len(model.center):
        codes = model.codes(one)
        _, bits = model.order.surprise(codes, one.of)
        at = int(np.argmax(bits))
        lines = [one.templates[int(code)] for code in one.template[max(at - 1, 0) : at + 1]]
        pair = [plain_text(line, MAX_TEMPLATE) for line in lines]
        return {"name": "order of lines", "kind": "out of order", "value": pair if at else ["<start>", *pair]}
    count, low, high = (float(values[place]) for values in (found.counts[0], model.low, model.high))
    if place == len(model.templates):
        first = int(np.argmax(model.codes(one) == place))
        name, kind = one.templates[int(one.template[first])], "unseen"
    else:
        name, below = model.templates[place], np.log1p(count) < model.center[place]
        kind = "too many" if not below else "missing" if count == 0 else "too few"
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
