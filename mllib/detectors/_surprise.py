"""How surprising a line's template is, in bits, by counts of the training sample. No label is needed.

Four surprises, each ``-log2`` of a share:

- the template among all lines;
- the template among the lines of its service, backed off to the former;
- the template after the one before it in its service within the context, backed off to the latter;
- the words of the template: the mean of its three rarest, which tells a new template in old words from one in new.

Backing off is Witten and Bell's: the more kinds of lines a service (or a template before) is followed by, the less one
more kind surprises. Templates, services and words are known by a hash of 64 bits: an artifact holds no text of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._log_features import Measured
from mllib.errors import BadArtifact
from mllib.features._memo import Memo
from mllib.features.encoders import distinct_codes
from mllib.features.text import matches

SURPRISES = ("template_surprise", "template_in_service_surprise", "template_order_surprise", "words_surprise")
MAX_KEYS = 20_000
"""Templates, services, words and pairs of them that a model keeps: the most frequent ones."""

BLOCKS = 20
"""Stretches of the training sample, each of which is also surprising to a model of the others."""

RAREST = 3
_WORD = r"[a-z_]{2,}|<\w+>"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Ascending keys and how many training rows have each."""

    keys: Ints
    rows: Ints

    @classmethod
    def of(cls, keys: Ints, rows: Ints) -> Table:
        """The most frequent of distinct ``keys`` that some row has."""
        kept = np.lexsort((keys, -rows))[:MAX_KEYS]
        kept = kept[rows[kept] > 0]
        order = np.argsort(keys[kept])
        return cls(keys=keys[kept][order], rows=rows[kept][order].astype(np.int64))

    def places(self, keys: Ints) -> Ints:
        """Where each key stands; ``len(self.keys)`` for an unknown one."""
        found = np.searchsorted(self.keys, keys)
        return np.where(self._ended[found] == keys, found, len(self.keys))

    def counts(self, keys: Ints) -> Ints:
        """How many training rows had each key."""
        return self.rows_at[self.places(keys)]

    @cached_property
    def _ended(self) -> Ints:
        return np.append(self.keys, 0)  # one more, whichever, for what would stand after them all

    @cached_property
    def rows_at(self) -> Ints:
        """How many training rows had the key of each place, 0 for that of unknown ones."""
        return np.append(self.rows, 0)


_TABLES = ("template", "service", "word", "pair", "transition")


class Surprises:
    """The counts of a training sample of ``rows`` rows.

    The key of a pair is the place of its service times the number of places for templates, plus that of the template;
    that of a transition has the template before in place of the service. There is a place for the unknown, and one
    for no template before.
    """

    def __init__(self, rows: int, tables: Mapping[str, Table], kinds: Mapping[str, Ints], before_rows: Ints) -> None:
        self._rows = rows
        self._tables = dict(tables)
        self._kinds = dict(kinds)  # how many templates follow each service, and each template
        self._before_rows = before_rows  # how many rows follow each template, an unknown one, and none

    @classmethod
    def of(cls, measured: Measured) -> tuple[Surprises, Floats]:
        """The counts, and shape (n, 4): how surprising the sample's own rows are.

        Each row as it would be to a model of all but its stretch of time. What is new in each stretch of the training
        is as new as what comes after it: without this, a threshold would be far too low for the lines of tomorrow.
        """
        n = len(measured.template_of)
        service_of, services = _services_of(measured)
        rows_of_word, word_of, words = _words(measured.templates)
        template = _hashes(measured.templates)
        often = np.bincount(measured.template_of, minlength=len(template))
        tables = {
            "template": Table.of(template, often),
            "service": Table.of(_hashes(services), np.bincount(service_of)),
            "word": Table.of(
                _hashes(words),
                np.bincount(word_of, weights=often[rows_of_word], minlength=len(words)).astype(np.int64),
            ),
        }
        places = len(tables["template"].keys) + 2
        line = tables["template"].places(template)[measured.template_of]
        at = tables["service"].places(_hashes(services))[service_of]
        before = _before(tables["template"].places(template), measured.previous_of, places)
        pairs, pair_of = np.unique(at * places + line, return_inverse=True)
        transitions, transition_of = np.unique(before * places + line, return_inverse=True)
        grouped = _Grouped(
            parents=(np.zeros(n, dtype=np.int64), at, before),
            children=(line, pair_of, transition_of),
            parent_of_child=(np.zeros(places, dtype=np.int64), pairs // places, transitions // places),
        )
        tables["pair"] = Table.of(pairs, np.bincount(pair_of))
        tables["transition"] = Table.of(transitions, np.bincount(transition_of))
        model = cls(
            n,
            tables,
            {
                "service_kinds": np.bincount(pairs // places, minlength=len(tables["service"].keys) + 1),
                "before_kinds": np.bincount(transitions // places, minlength=places),
            },
            np.bincount(before, minlength=places),
        )
        held_out = np.empty((n, len(SURPRISES)))
        borders = np.linspace(0, n, BLOCKS + 1).astype(int)
        for begin, end in pairwise(borders):
            block = slice(begin, end)
            held_out[block, :3] = _chain(n - (end - begin), *grouped.without(block))
            others = np.bincount(measured.template_of[block], minlength=len(template))
            met = np.bincount(word_of, weights=(often - others)[rows_of_word], minlength=len(words))
            mean = _mean_of_rarest(rows_of_word, _bits(met[word_of], n - (end - begin)), len(template))
            held_out[block, 3] = mean[measured.template_of[block]]
        return model, held_out

    def bits(self, measured: Measured) -> NDArray[np.float32]:
        """Shape (n, 4), in the order of SURPRISES."""
        tables = self._tables
        places = len(tables["template"].keys) + 2
        template, rarest = np.array(self._known.of(measured.templates)).reshape(-1, 2).T
        template = template.astype(np.int64)
        line = template[measured.template_of]
        service_of, services = _services_of(measured)
        at = np.array(self._services.of(services), dtype=np.int64)[service_of]
        before = _before(template, measured.previous_of, places)
        result = np.empty((len(line), len(SURPRISES)), dtype=np.float32)
        result[:, :3] = _chain(
            self._rows,
            (
                tables["template"].rows_at[line],
                tables["pair"].counts(at * places + line),
                tables["transition"].counts(before * places + line),
            ),
            (tables["service"].rows_at[at], self._before_rows[before]),
            (self._kinds["service_kinds"][at], self._kinds["before_kinds"][before]),
        )
        result[:, 3] = rarest[measured.template_of]
        return result

    @cached_property
    def _known(self) -> Memo[tuple[int, float]]:  # of each template its place, and the mean of its rarest words
        def compute(texts: list[str]) -> list[tuple[int, float]]:
            places = self._tables["template"].places(_hashes(texts))
            rows_of_word, word_of, words = _words(texts)
            bits = _bits(self._tables["word"].counts(_hashes(words)), self._rows)[word_of]
            means = _mean_of_rarest(rows_of_word, bits, len(texts))
            return list(zip(places.tolist(), means.tolist(), strict=True))

        return Memo(compute)

    @cached_property
    def _services(self) -> Memo[int]:
        return Memo(lambda names: self._tables["service"].places(_hashes(names)).tolist())

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        tables = {f"{name}_keys": table.keys for name, table in self._tables.items()}
        rows = {f"{name}_rows": table.rows for name, table in self._tables.items()}
        return {
            "counted_rows": np.array([self._rows]),
            **tables,
            **rows,
            **self._kinds,
            "before_rows": self._before_rows,
        }

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]]) -> Surprises:
        """What ``arrays`` gave. Raises BadArtifact when they do not fit each other."""
        (rows,) = _counts(arrays, "counted_rows", 1).tolist()
        tables = {}
        for name in _TABLES:
            keys = arrays.get(f"{name}_keys", np.empty(0))
            if keys.dtype != np.int64 or keys.ndim != 1 or len(keys) > MAX_KEYS or (keys[1:] <= keys[:-1]).any():
                raise _unusable(f"{name}_keys")
            tables[name] = Table(keys=keys, rows=_counts(arrays, f"{name}_rows", len(keys)))
        places = len(tables["template"].keys) + 2
        kinds = {
            "service_kinds": _counts(arrays, "service_kinds", len(tables["service"].keys) + 1),
            "before_kinds": _counts(arrays, "before_kinds", places),
        }
        return cls(rows, tables, kinds, _counts(arrays, "before_rows", places))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Grouped:
    """Of three levels (all lines, service, template before) the parent and the pair with the template of each row."""

    parents: tuple[Ints, Ints, Ints]
    children: tuple[Ints, Ints, Ints]
    parent_of_child: tuple[Ints, Ints, Ints]

    def without(self, block: slice) -> tuple[tuple[Ints, ...], tuple[Ints, ...], tuple[Ints, ...]]:
        """For the rows of ``block``, counted over all others: rows of the pair, of the parent, kinds of the parent."""
        together, rows, kinds = [], [], []
        for parent, child, of_child in zip(self.parents, self.children, self.parent_of_child, strict=True):
            left = np.bincount(child, minlength=len(of_child)) - np.bincount(child[block], minlength=len(of_child))
            together.append(left[child[block]])
            parents = int(parent.max(initial=0)) + 1
            rows.append((np.bincount(parent) - np.bincount(parent[block], minlength=parents))[parent[block]])
            kinds.append(np.bincount(of_child, weights=left > 0, minlength=parents).astype(np.int64)[parent[block]])
        return tuple(together), tuple(rows[1:]), tuple(kinds[1:])


def _chain(total: int, together: tuple[Ints, ...], rows: tuple[Ints, ...], kinds: tuple[Ints, ...]) -> Floats:
    """Shape (n, 3): the first three surprises.

    Of each row: how many have its template; its template and service; its template and the one before. Then how many
    have its service, and the template before; and with how many kinds of templates each was seen.
    """
    shares = np.empty((len(together[0]), 3))
    shares[:, 0] = share = (together[0] + 0.5) / (total + 1.0)
    for place, (pair, parent, kind) in enumerate(zip(together[1:], rows, kinds, strict=True), start=1):
        several = np.maximum(kind, 1)
        shares[:, place] = share = (pair + several * share) / (parent + several)
    return -np.log2(shares)


def _bits(met: NDArray[Any], total: int) -> Floats:
    bits: Floats = -np.log2((met + 0.5) / (total + 1.0))
    return bits


def _before(template: Ints, previous_of: Ints, places: int) -> Ints:
    """The place of the template before each row: of all places the last where there is none."""
    if not len(template):
        return np.full(len(previous_of), places - 1)
    before: Ints = np.where(previous_of < 0, places - 1, template[previous_of])
    return before


def _services_of(measured: Measured) -> tuple[Ints, list[str]]:
    """The service of each row, and their names; no service is one without a name."""
    names = [service or "" for service in measured.services]
    if None not in measured.services:
        return measured.service_of, names
    merged, distinct = distinct_codes(names)
    return merged[measured.service_of], distinct


def _words(templates: list[str]) -> tuple[Ints, Ints, list[str]]:
    """Every different word of each template: the template's position, the word's in the last, the distinct words."""
    words = [list(dict.fromkeys(found)) for found in matches(templates, _WORD)]
    rows = np.repeat(np.arange(len(words)), [len(of_template) for of_template in words])
    return rows, *distinct_codes([word for of_template in words for word in of_template])


def _mean_of_rarest(rows: Ints, bits: Floats, templates: int) -> Floats:
    """Shape (templates,): the mean of the RAREST highest bits of each row; 0 for one without any."""
    order = np.lexsort((-bits, rows))
    rows, bits = rows[order], bits[order]
    kept = np.arange(len(rows)) - np.searchsorted(rows, rows) < RAREST
    total = np.bincount(rows[kept], weights=bits[kept], minlength=templates)
    return total / np.maximum(np.bincount(rows[kept], minlength=templates), 1)


def _hashes(texts: list[str]) -> Ints:
    """64 bits of each text, the same with any version of any library."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def _counts(arrays: Mapping[str, NDArray[Any]], name: str, size: int) -> Ints:
    values = arrays.get(name)
    if values is None or values.shape != (size,) or values.dtype != np.int64 or (values < 0).any():
        raise _unusable(name)
    return values


def _unusable(name: str) -> BadArtifact:
    return BadArtifact(
        f"The stored counts of templates have no usable {name!r}. Roll back to another version, or train again."
    )
