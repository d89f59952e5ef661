"""How surprising a run's security changes are at its repository, else among runs of its language, else among all.

The **surprise** of a column is ``-ln P(at least that much)`` under the history of the repository, which is drawn
towards its language and towards all runs as far as it is short: additive smoothing towards the parent (MacKay, Peto: A
hierarchical Dirichlet language model, 1995). Novelty is measured as it will be met: in training, a host of a run counts
as new when no *other* repository knows it. So the surprise of a new host is what it is for a repository never seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._run_columns import KINDS_OF_KEY, Digests, Runs, together
from mllib.errors import BadArtifact
from mllib.features._pipeline_reading import CONTACTS
from mllib.sources import PIPELINE_FEATURES

NOVELTY = (
    "new_command_hosts",
    "new_transfer_hosts",
    "new_package_hosts",
    "new_mentioned_hosts",
    "new_privileges",
    "seldom_new_host",
)
"""Hosts and rights of a run that no other repository knows. The last is 1 / (times it is named) of the new host, not
only mentioned, that is named least: a repository of packages that is really used is asked for many files."""

COLUMNS = (*PIPELINE_FEATURES, *NOVELTY, *(f"{name}_here" for name in NOVELTY))
"""``_here`` is what the run's own repository did not know: NaN without a history."""

AT = {name: place for place, name in enumerate(COLUMNS)}

KINDS: dict[str, tuple[str, ...]] = {
    "remote_script": ("remote_script_executions",),
    "network_host": (
        *("new_command_hosts", "new_transfer_hosts", "seldom_new_host", "new_package_hosts", "new_mentioned_hosts"),
        *("new_command_hosts_here", "new_transfer_hosts_here", "seldom_new_host_here", "new_package_hosts_here"),
        *("new_mentioned_hosts_here", "distinct_network_hosts"),
    ),
    "secret": ("secret_like_tokens",),
    "privilege": ("privilege_changes", "new_privileges", "new_privileges_here"),
    "environment_dump": ("environment_dumps",),
    "image_pull": ("image_pulls",),
}
"""What may change: the columns that tell. Of each, the most surprising column counts."""

GRAVITY = {
    "remote_script_executions": 1.5,
    "secret_like_tokens": 1.5,
    "new_command_hosts": 1.25,
    "new_privileges": 1.25,
    "environment_dumps": 1.25,
    "new_transfer_hosts": 1.1,
    "seldom_new_host": 1.0,
    "privilege_changes": 1.0,
    "image_pulls": 0.75,
    "new_package_hosts": 0.5,
    "new_mentioned_hosts": 0.5,
    "distinct_network_hosts": 0.5,
}
"""What a surprise weighs: running foreign code and losing a secret more than a page that is mentioned. ``_here``
likewise. Set by hand on a development slice of real runs."""

TELLING = tuple(AT[name] for names in KINDS.values() for name in names)
_WEIGHTS = np.array([GRAVITY[COLUMNS[column].removesuffix("_here")] for column in TELLING])
_ENDS = np.cumsum([len(names) for names in KINDS.values()])

RAREST = 0.01
"""No surprise goes beyond this probability: what never happened in a few hundred runs is not told apart by counting."""
PRIOR = 4.0
"""What the parent's history weighs, in runs, against a group's own."""
LEAST = {"language": 30, "repository": 5}
"""Runs that make a history."""
KEPT = {"all": 2_000, "language": 1_000, "repository": 64}
"""Runs kept of a history: the last ones."""
GROUPS = {"language": 30, "repository": 500}
"""Histories kept: those with the most runs."""

BASELINES = ("all runs", "language", "repository")
ALL, OF_LANGUAGE, OF_REPOSITORY = range(3)


class Tails:
    """P(at least x) of each column among a group's runs, drawn towards the parent group's."""

    def __init__(self, values: NDArray[np.float32], parent: Tails | None, level: int) -> None:
        self._values = np.sort(values, axis=0)  # NaN last
        self._known = (~np.isnan(values)).sum(axis=0)
        self._parent = parent
        self.level = level  # place in BASELINES

    def upper(self, column: int, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of each value, how likely at least that much is."""
        n = int(self._known[column])
        at_least = n - np.searchsorted(self._values[:n, column], values, side="left")
        if self._parent is None:
            return (at_least + 0.5) / (n + 1)
        return (at_least + PRIOR * self._parent.upper(column, values)) / (n + PRIOR)

    def surprise(self, column: int, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """-ln of that, up to the one of RAREST; 0 for what is 0 or not known."""
        there = values > 0
        result = np.zeros(len(values))
        result[there] = -np.log(np.clip(self.upper(column, values[there]), RAREST, 1.0))
        return result

    def quantile(self, column: int, share: float) -> float:
        """0 where nothing is known."""
        n = int(self._known[column])
        return float(self._values[min(int(share * n), n - 1), column]) if n else 0.0


def novelty(runs: Runs, new: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Shape (runs, 6): NOVELTY, given which of the keys are new."""
    rows, width = runs.rows, len(KINDS_OF_KEY)
    counts = np.bincount(rows * width + runs.kinds, weights=new, minlength=len(runs) * width).reshape(-1, width)
    least = np.full(len(runs), np.inf)
    contacted = new & (runs.kinds < CONTACTS.index("mention"))
    np.minimum.at(least, rows[contacted], runs.times[contacted])
    return np.column_stack([counts, 1.0 / least]).astype(np.float32)


def training_columns(runs: Runs) -> NDArray[np.float32]:
    """Shape (runs, COLUMNS), novelty as if the run's repository (or, for ``_here``, the run) had not been there."""
    nameless = runs.repositories == 0
    owners = np.where(nameless, np.arange(1, len(runs) + 1, dtype=np.uint64), runs.repositories)
    at_keys = np.repeat(owners, runs.sizes)
    pairs = np.unique(np.stack([runs.keys, at_keys]), axis=1)
    keys, of_owners = np.unique(pairs[0], return_counts=True)
    new = of_owners[np.searchsorted(keys, runs.keys)] == 1
    _, place, times = np.unique(together(runs.keys, at_keys), return_inverse=True, return_counts=True)
    here = novelty(runs, times[place] == 1)
    _, place, of_runs = np.unique(owners, return_inverse=True, return_counts=True)
    here[of_runs[place] == 1] = np.nan
    return np.column_stack([runs.values, novelty(runs, new), here])


@dataclass(frozen=True, kw_only=True, eq=False)
class Surprises:
    """What of runs is surprising."""

    columns: NDArray[np.float32]
    """Shape (runs, COLUMNS)."""
    of_columns: NDArray[np.float64]
    """Shape (runs, TELLING), with their weights."""
    tails: list[Tails]
    """The history that each run is compared with."""

    @property
    def of_kinds(self) -> NDArray[np.float64]:
        """Shape (runs, KINDS)."""
        parts = np.split(self.of_columns, _ENDS[:-1], axis=1)
        return np.stack([part.max(axis=1) for part in parts], axis=1)

    def telling(self, row: int) -> list[int]:
        """Of each kind, the column (place in COLUMNS) that tells most of the run."""
        parts = np.split(self.of_columns[row], _ENDS[:-1])
        starts = (0, *_ENDS[:-1].tolist())
        return [TELLING[start + int(np.argmax(part))] for start, part in zip(starts, parts, strict=True)]


class Baselines:
    """The histories, and what was seen in them. All of it is in ``arrays``."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raises BadArtifact when the arrays are not those of ``fit``."""
        if not _fits(arrays):
            raise BadArtifact(
                "The stored histories of repositories are incomplete. Roll back to another version, or train again."
            )
        self.arrays = {name: arrays[name] for name in _DTYPES}
        self._seen, self._here = arrays["seen"], arrays["seen_here"]
        self._repositories = arrays["repositories"]

    @classmethod
    def fit(cls, runs: Runs, columns: NDArray[np.float32]) -> Baselines:
        """Of runs, the oldest first, with their ``training_columns``."""
        parts = [columns[-KEPT["all"] :]]
        groups: list[int] = []
        parents = [-1]
        of_language: dict[int, int] = {}
        for sort, names in (("language", runs.languages), ("repository", runs.repositories)):
            known, counts = np.unique(names[names != 0], return_counts=True)
            ranked = sorted(zip((-counts).tolist(), known.tolist(), strict=True))[: GROUPS[sort]]
            for count, name in ranked:
                if -count < LEAST[sort]:
                    continue
                rows = np.flatnonzero(names == name)[-KEPT[sort] :]
                if sort == "language":
                    of_language[name] = len(parts)
                    parents.append(0)
                else:
                    parents.append(of_language.get(int(runs.languages[rows[-1]]), 0))
                groups.append(name)
                parts.append(columns[rows])
        owned = np.repeat(runs.repositories, runs.sizes)
        named = owned != 0
        arrays: dict[str, NDArray[Any]] = {
            "tail_values": np.concatenate(parts),
            "tail_offsets": np.cumsum([0, *map(len, parts)]).astype(np.int64),
            "tail_parents": np.array(parents, dtype=np.int64),
            "tail_groups": np.array(groups, dtype=np.uint64),
            "seen": np.unique(runs.keys),
            "seen_here": np.unique(together(runs.keys[named], owned[named])),
            "repositories": np.unique(runs.repositories[runs.repositories != 0]),
        }
        known_sizes = [len(arrays[name]) for name in _SORTED]
        return cls({**arrays, "seen_sizes": np.array(known_sizes, dtype=np.int64)})

    @cached_property
    def _tails(self) -> list[Tails]:
        offsets, parents = self.arrays["tail_offsets"].tolist(), self.arrays["tail_parents"].tolist()
        levels = [ALL, *(OF_LANGUAGE + _among(self._repositories, self.arrays["tail_groups"])).tolist()]
        tails: list[Tails] = []
        for place, (parent, level) in enumerate(zip(parents, levels, strict=True)):
            values = self.arrays["tail_values"][offsets[place] : offsets[place + 1]]
            tails.append(Tails(values, tails[parent] if parent >= 0 else None, level))
        return tails

    @cached_property
    def _by(self) -> dict[int, Tails]:
        return dict(zip(self.arrays["tail_groups"].tolist(), self._tails[1:], strict=True))

    def columns(self, runs: Runs) -> NDArray[np.float32]:
        """Shape (runs, COLUMNS)."""
        here = novelty(runs, ~_among(self._here, together(runs.keys, np.repeat(runs.repositories, runs.sizes))))
        here[~_among(self._repositories, runs.repositories)] = np.nan
        return np.column_stack([runs.values, novelty(runs, ~_among(self._seen, runs.keys)), here])

    def surprises(self, runs: Runs, columns: NDArray[np.float32], *, strangers: bool = False) -> Surprises:
        """What is surprising of runs with these ``columns``; of strangers, as if no repository had a history."""
        if strangers:
            columns = columns.copy()
            columns[:, -len(NOVELTY) :] = np.nan
        tails = []
        for repository, language in zip(runs.repositories.tolist(), runs.languages.tolist(), strict=True):
            own = None if strangers else self._by.get(repository)
            tails.append(own or self._by.get(language) or self._tails[0])
        result = np.zeros((len(runs), len(TELLING)))
        groups: dict[int, list[int]] = {}
        for row, of_row in enumerate(tails):
            groups.setdefault(id(of_row), []).append(row)
        for rows in groups.values():
            of_group = tails[rows[0]]
            for place, column in enumerate(TELLING):
                result[rows, place] = of_group.surprise(column, columns[rows, column])
        return Surprises(columns=columns, of_columns=result * _WEIGHTS, tails=tails)


_SORTED = ("seen", "seen_here", "repositories")
_DTYPES = {
    "tail_values": np.float32,
    **dict.fromkeys(("tail_offsets", "tail_parents", "seen_sizes"), np.int64),
    **dict.fromkeys(("tail_groups", *_SORTED), np.uint64),
}


def _fits(arrays: Mapping[str, NDArray[Any]]) -> bool:
    if any(name not in arrays or arrays[name].dtype != dtype for name, dtype in _DTYPES.items()):
        return False
    values, offsets, parents = (arrays[name] for name in ("tail_values", "tail_offsets", "tail_parents"))
    if values.ndim != 2 or values.shape[1] != len(COLUMNS) or np.isinf(values).any() or (values < 0).any():
        return False
    if any(arrays[name].ndim != 1 for name in _DTYPES if name != "tail_values") or len(parents) < 1:
        return False
    if len(offsets) != len(parents) + 1 or len(arrays["tail_groups"]) != len(parents) - 1:
        return False
    if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 1).any():
        return False
    # Parents come before their children: that rules out loops.
    if parents[0] != -1 or (parents[1:] < 0).any() or (parents[1:] >= np.arange(1, len(parents))).any():
        return False
    if arrays["seen_sizes"].tolist() != [len(arrays[name]) for name in _SORTED]:
        return False
    return all((arrays[name][1:] > arrays[name][:-1]).all() for name in _SORTED)


def _among(known: Digests, asked: Digests) -> NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(asked), dtype=bool)
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    found: NDArray[np.bool_] = known[place] == asked
    return found
