"""Why a message has its level and is an anomaly, in its own words. JSON below 1 kB, a function of the message alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._explanation import AT_MOST, MIN_SHARE
from mllib.detectors._texts import plain_text
from mllib.detectors._word_votes import Rarity, WordVotes
from mllib.detectors._wording import KINDS, Wording

FOR_THE_LEVEL = 3
"""Words named for the level."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one thing about a text adds to what is explained; ``said`` are the members of its JSON entry."""

    share: float
    said: dict[str, Any]

    @property
    def entry(self) -> dict[str, Any]:
        return {**self.said, "share": round(self.share, 4)}


def of_votes(
    model: WordVotes, wording: Wording, measured: NDArray[np.float32], columns: NDArray[np.int64]
) -> list[list[Part]]:
    """Of each text, what speaks for its class ``columns``, by share of the class's probability, the largest first.

    The part of the words' vote is divided among the words that speak for the class, as their weights are.
    """
    every = np.arange(len(columns))
    of_words, of_kinds = (votes[every, columns] for votes in model.votes(measured, wording.kinds))
    whole = of_words + of_kinds
    found, terms = model.weighted(wording), wording.terms
    added = np.maximum(found.values * model.weights[found.places, columns[found.rows]], 0.0)
    total = np.bincount(found.rows, added, minlength=len(columns))
    spoken = np.flatnonzero(added > 0)
    shares = added[spoken] / total[found.rows[spoken]] * (of_words / whole)[found.rows[spoken]]
    digests = model.terms.digests[found.places[spoken]].tolist()
    parts = [
        [Part(share, {"name": "kinds_of_words", "value": _kinds(kinds)})]
        for share, kinds in zip((of_kinds / whole).tolist(), wording.kinds.tolist(), strict=True)
    ]
    for row, key, share in zip(found.rows[spoken].tolist(), digests, shares.tolist(), strict=True):
        parts[row].append(Part(share, {"name": "words", "value": plain_text(terms[key])}))
    return [_sorted(of_text) for of_text in parts]


def of_rarity(model: Rarity, wording: Wording) -> list[list[Part]]:
    """Of each text, what its terms add to its rarity, the largest first; with the share of rows that have each."""
    terms = wording.terms
    cells, counts = np.unique(np.stack([wording.rows.astype(np.uint64), wording.digests]), axis=1, return_counts=True)
    rows, places = cells[0].astype(np.int64), model.terms.places(cells[1])
    added = model.rarities(places) * counts
    total = np.bincount(rows, added, minlength=len(wording.texts))
    seen = np.where(places >= 0, model.rows_with[places] if len(model.rows_with) else 0, 0) / model.rows
    parts: list[list[Part]] = [[] for _ in range(len(wording.texts))]
    for row, key, part, share in zip(rows.tolist(), cells[1].tolist(), added.tolist(), seen.tolist(), strict=True):
        if part > 0:
            said = {"name": "words", "value": plain_text(terms[key]), "seen": float(f"{share:.4g}")}
            parts[row].append(Part(part / total[row], said))
    return [_sorted(of_text) for of_text in parts]


def written(
    excesses: NDArray[np.float64],
    parts: Sequence[Sequence[Part]],
    levels: Sequence[str],
    level_parts: Sequence[Sequence[Part]],
    look_at: str,
    without: Sequence[str | None],
) -> Iterator[str]:
    """The explanation of each text, as JSON. ``without`` is the term without which a text would be normal."""
    for excess, own, level, for_level, term in zip(excesses.tolist(), parts, levels, level_parts, without, strict=True):
        entries = [
            part.entry
            for rank, part in enumerate(own[:AT_MOST])
            if round(part.share, 4) > 0 and (rank < 3 or part.share >= MIN_SHARE)
        ]
        other = round(1.0 - sum(entry["share"] for entry in entries), 4) + 0.0
        explanation = {
            "excess": round(excess, 4),
            "features": entries,
            "other": other,
            "look_at": look_at,
            "level": {
                "class": level,
                "features": [part.entry for part in for_level[:FOR_THE_LEVEL] if round(part.share, 4) > 0],
            },
        }
        if term is not None:
            explanation["normal_without"] = plain_text(term)
        if not entries:
            explanation["note"] = "none of its words speaks for it: the threshold is very low"
        yield json.dumps(explanation, ensure_ascii=False, separators=(",", ":"))


def leading_words(parts: Sequence[Part]) -> str | None:
    """The first part that is a word or a pair of words."""
    return next((part.said["value"] for part in parts if part.said["name"] == "words"), None)


def without(text: str, term: str) -> str:
    """The text with that word or pair of words taken out, wherever it stands."""
    padded = f" {text} "
    while term and f" {term} " in padded:
        padded = padded.replace(f" {term} ", " ")
    return padded.strip()


def _kinds(flags: Sequence[bool]) -> str:
    found = [kind for kind, there in zip(KINDS, flags, strict=True) if there]
    return ", ".join(found) or "none of trouble or success"


def _sorted(parts: list[Part]) -> list[Part]:
    return sorted(parts, key=lambda part: (-part.share, str(part.said["value"])))
