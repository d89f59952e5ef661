"""What is read of CI/CD runs before anything is fitted: their numbers, and the hosts and rights that may be new.

Names of hosts, programs, repositories and languages are kept as digests of 64 bits: an artifact holds no text of a log.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.errors import BadInput
from mllib.features._pipeline_reading import CONTACTS
from mllib.sources import PIPELINE_FEATURES

KINDS_OF_KEY = (*CONTACTS, "privilege")
"""What may be new in a run: a host, by how it was met, and a way of changing rights."""

LARGEST = 1e15
"""Numbers above are taken for this one."""
MAX_KEYS = 1_000
"""Hosts and rights that are looked at in a run."""

SHARED = frozenset(
    (
        *("amazonaws.com", "cloudfront.net", "azurewebsites.net", "windows.net", "appspot.com", "web.app", "run.app"),
        *("firebaseapp.com", "herokuapp.com", "github.io", "gitlab.io", "netlify.app", "vercel.app", "pages.dev"),
        *("workers.dev", "r2.dev", "digitaloceanspaces.com", "ngrok.io", "blogspot.com", "duckdns.org"),
    )
)
"""Domains in which anybody may have a host of a new name: there each name counts for itself."""

_TEXTS = ("repository", "language", "evidence")
_TRANSFER = CONTACTS.index("transfer")

Digests = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """Runs as the model sees them."""

    values: NDArray[np.float32]
    """Shape (runs, 17), as PIPELINE_FEATURES; NaN where a value is missing or impossible."""
    repositories: Digests
    """0 where none is named; as ``languages``."""
    languages: Digests
    passed: NDArray[np.int8]
    """1 for a run that passed, -1 for one that did not, 0 where nobody says so. Only used in training."""
    sizes: NDArray[np.int64]
    """How many keys each run has; the arrays below have those of one run after the other."""
    keys: Digests
    kinds: NDArray[np.int8]
    """Places in KINDS_OF_KEY."""
    times: NDArray[np.float32]
    """How often the log names the host."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Of each key, the place of its run."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def subset(self, kept: NDArray[np.bool_]) -> Runs:
        """The runs where ``kept`` is true."""
        key = np.repeat(kept, self.sizes)
        return Runs(
            values=self.values[kept],
            repositories=self.repositories[kept],
            languages=self.languages[kept],
            passed=self.passed[kept],
            sizes=self.sizes[kept],
            keys=self.keys[key],
            kinds=self.kinds[key],
            times=self.times[key],
        )


def stack(parts: Sequence[Runs]) -> Runs:
    """The runs of all parts, one part after the other; there must be some."""
    names = ("values", "repositories", "languages", "passed", "sizes", "keys", "kinds", "times")
    return Runs(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def digest(*words: str) -> int:
    """64 bits that stand for the words."""
    return int.from_bytes(hashlib.blake2b("\0".join(words).encode("utf-8", "replace"), digest_size=8).digest(), "big")


def together(a: Digests, b: Digests) -> Digests:
    """One digest for each pair."""
    mixed = a ^ (b * np.uint64(0x9E3779B97F4A7C15))
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    result: Digests = mixed ^ (mixed >> np.uint64(29))
    return result


def measure(rows: pl.DataFrame) -> Runs:
    """Reads runs. NaN, infinite and negative numbers count as missing: none of these figures can be so.

    What ``evidence`` holds in another form than ``mllib.features.pipeline`` gives it is passed over; where it says
    nothing of how the hosts were met, something was transferred. Raises BadInput that names the columns that are
    missing, or not of the type they should be.
    """
    values = _numbers(rows)
    keys: list[int] = []
    kinds: list[int] = []
    times: list[int] = []
    sizes = []
    for evidence, hosts in zip(rows["evidence"].to_list(), rows["hosts"].to_list(), strict=True):
        met = _met(evidence, hosts or ())
        sizes.append(len(met))
        for key, (kind, often) in met.items():
            keys.append(key)
            kinds.append(kind)
            times.append(often)
    labels = rows["label"].to_list() if "label" in rows.columns else [None] * rows.height
    return Runs(
        values=values,
        repositories=_digests("repository", rows["repository"]),
        languages=_digests("language", rows["language"]),
        passed=np.array([0 if label is None else 1 if label == "0" else -1 for label in labels], dtype=np.int8),
        sizes=np.array(sizes, dtype=np.int64),
        keys=np.array(keys, dtype=np.uint64),
        kinds=np.array(kinds, dtype=np.int8),
        times=np.array(times, dtype=np.float32),
    )


def _numbers(rows: pl.DataFrame) -> NDArray[np.float32]:
    types = rows.schema
    if missing := [name for name in (*PIPELINE_FEATURES, *_TEXTS, "hosts") if name not in types]:
        raise BadInput(f"Runs need the columns {', '.join(missing)}, which are missing.")
    nothing = pl.Null  # a column without any value
    if wrong := [name for name in PIPELINE_FEATURES if not (types[name].is_numeric() or types[name] == nothing)]:
        raise BadInput(f"Runs need numbers in the columns {', '.join(wrong)}.")
    if wrong := [name for name in _TEXTS if types[name] not in (pl.String, nothing)]:
        raise BadInput(f"Runs need text in the columns {', '.join(wrong)}.")
    if types["hosts"] not in (pl.List(pl.String), pl.List(nothing), nothing):
        raise BadInput("Runs need lists of texts in the column hosts.")
    values = rows.select(pl.col(PIPELINE_FEATURES).cast(pl.Float64)).to_numpy()
    with np.errstate(invalid="ignore"):
        possible = np.isfinite(values) & (values >= 0)
    return np.where(possible, np.minimum(values, LARGEST), np.nan).astype(np.float32)


def _digests(what: str, values: pl.Series) -> Digests:
    written: list[str | None] = values.to_list()
    known = {value: digest(what, value) if value else 0 for value in set(written)}
    return np.array([known[value] for value in written], dtype=np.uint64)


def _met(evidence: str | None, hosts: Sequence[str | None]) -> dict[int, tuple[int, int]]:
    """Of each key of a run its kind, and how often it is named."""
    try:
        told = json.loads(evidence) if evidence else None
    except (ValueError, RecursionError):
        told = None
    met: dict[int, tuple[int, int]] = {}
    if not isinstance(told, Mapping):
        told = {}
    for host, kind, times in _contacts(told.get("contacts"), hosts):
        if len(met) < MAX_KEYS:
            key = digest("host", _party(host))
            known = met.get(key)
            met[key] = (kind, times) if known is None else (min(kind, known[0]), times + known[1])
    rights = told.get("privileges")
    for right in rights if isinstance(rights, list) else ():
        if isinstance(right, str) and len(met) < MAX_KEYS:
            met[digest("privilege", right)] = len(CONTACTS), 1
    return met


def _party(host: str) -> str:
    """Whose host it is: the domain that was registered, so that one more name in a known domain is not new.

    By the length of its last words, without a list of all registries: ``a.b.example.co.uk`` is ``example.co.uk``.
    """
    words = host.lower().split(".")
    if words[-1].isdigit() or ".".join(words[-2:]) in SHARED or ".".join(words[-3:]) in SHARED:
        return host.lower()
    return ".".join(words[-3 if len(words) > 2 and len(words[-2]) <= 3 else -2 :])


def _contacts(told: Any, hosts: Sequence[str | None]) -> Iterator[tuple[str, int, int]]:
    if not isinstance(told, Mapping):
        yield from ((host, _TRANSFER, 1) for host in hosts if host)
        return
    for host, met in told.items():
        if isinstance(met, list) and len(met) == 2 and met[0] in CONTACTS:
            times = met[1]
            often = isinstance(times, int) and not isinstance(times, bool) and times > 0
            yield host, CONTACTS.index(met[0]), min(times, 1_000_000) if often else 1
