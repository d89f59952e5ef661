"""Synthetic, labelled network connections in NSL-KDD's form, to try the detectors of network flows without a network.

An office with web, mail, names, files and logins; about one connection in six is part of an attack. Attacks come in
bursts, and one kind appears only in the last third of the file, so that training has not seen it. They are made to
be found in part: thefts of files look rather like the office's own transfers, and some of the office's connections are
refused, half open or large without harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mllib.errors import BadInput
from mllib.sources import NSL_KDD_FEATURES, NSL_KDD_TEXTS

Rng = np.random.Generator
Values = npt.NDArray[np.float64]
Draw = Callable[[Rng, int], Values]

MIN_ROWS = 2_000
LATE = "half_open_probe"
"""The attack that the first two thirds of the file do not have."""

BURSTS_PER_KIND = 12  # over the whole file, evenly, so that every part of it has some of each kind
BURST_SHARE = 0.03  # of all lines are bursts of one kind; most lines of a burst are the attack's
IN_BURST = 0.85


def _sizes(median: float, spread: float) -> Draw:
    return lambda rng, n: np.round(median * np.exp(spread * rng.standard_normal(n)))


def _counts(low: int, high: int) -> Draw:
    return lambda rng, n: rng.integers(low, high + 1, n).astype(np.float64)


def _rates(mean: float) -> Draw:
    """Shares that lie mostly at one end, as those of two seconds do; the mean is between 0 and 1."""
    return lambda rng, n: np.round(rng.beta(8 * mean + 0.05, 8 * (1 - mean) + 0.05, n), 2)


def _seldom(share: float, draw: Draw) -> Draw:
    return lambda rng, n: np.where(rng.random(n) < share, draw(rng, n), 0.0)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One kind of connection: its weight or label, its texts, and how its numbers are drawn. Others are 0."""

    weight: float = 0.0  # among the office's own connections; 0 for attacks
    protocol: str
    services: tuple[str, ...]
    flags: Mapping[str, float]
    numbers: Mapping[str, Draw]


_CALM = {
    "count": _counts(1, 12),
    "same_srv_rate": _rates(0.95),
    "diff_srv_rate": _rates(0.03),
    "dst_host_count": _counts(5, 255),
    "dst_host_same_srv_rate": _rates(0.85),
    "dst_host_diff_srv_rate": _rates(0.03),
    "dst_host_same_src_port_rate": _rates(0.05),
    "dst_host_srv_diff_host_rate": _rates(0.03),
    "dst_host_serror_rate": _rates(0.004),
    "dst_host_rerror_rate": _rates(0.01),
}
_USUAL = {"SF": 0.96, "REJ": 0.02, "S0": 0.005, "RSTO": 0.01, "S1": 0.005}
_LOGGED_IN: dict[str, Draw] = {"logged_in": lambda rng, n: np.ones(n)}
_SWARM = {"count": _counts(120, 511), "dst_host_count": _counts(200, 255)}

KINDS = {
    "web": _Kind(
        weight=0.6,
        protocol="tcp",
        services=("http",),
        flags=_USUAL,
        numbers={**_CALM, **_LOGGED_IN, "src_bytes": _sizes(240, 0.3), "dst_bytes": _sizes(2_400, 1.3)},
    ),
    "mail": _Kind(
        weight=0.12,
        protocol="tcp",
        services=("smtp", "pop_3", "imap4"),
        flags=_USUAL,
        numbers={
            **_CALM,
            **_LOGGED_IN,
            "duration": _sizes(2, 1),
            "src_bytes": _sizes(1_100, 0.7),
            "dst_bytes": _sizes(340, 0.2),
        },
    ),
    "names": _Kind(
        weight=0.15,
        protocol="udp",
        services=("domain_u",),
        flags={"SF": 1.0},
        numbers={**_CALM, "src_bytes": _sizes(44, 0.1), "dst_bytes": _sizes(90, 0.4), "count": _counts(1, 150)},
    ),
    "files": _Kind(
        weight=0.08,
        protocol="tcp",
        services=("ftp_data", "ftp"),
        flags=_USUAL,
        numbers={
            **_CALM,
            **_LOGGED_IN,
            "duration": _sizes(3, 1),
            "src_bytes": _sizes(12_000, 1.5),
            "hot": _seldom(0.1, _counts(1, 3)),
        },
    ),
    "logins": _Kind(
        weight=0.05,
        protocol="tcp",
        services=("telnet", "ssh"),
        flags=_USUAL,
        numbers={
            **_CALM,
            **_LOGGED_IN,
            "duration": _sizes(90, 1.2),
            "src_bytes": _sizes(900, 0.8),
            "dst_bytes": _sizes(2_500, 0.9),
            "num_failed_logins": _seldom(0.03, _counts(1, 1)),
            "num_file_creations": _seldom(0.05, _counts(1, 2)),
        },
    ),
    "syn_flood": _Kind(
        protocol="tcp",
        services=("private", "http", "telnet"),
        flags={"S0": 0.98, "REJ": 0.02},
        numbers={
            **_CALM,
            **_SWARM,
            "serror_rate": _rates(0.97),
            "srv_serror_rate": _rates(0.97),
            "same_srv_rate": _rates(0.1),
            "dst_host_same_srv_rate": _rates(0.08),
            "dst_host_serror_rate": _rates(0.97),
            "dst_host_srv_serror_rate": _rates(0.97),
        },
    ),
    "port_scan": _Kind(
        protocol="tcp",
        services=("private", "other", "finger", "uucp", "gopher"),
        flags={"REJ": 0.8, "RSTR": 0.15, "SF": 0.05},
        numbers={
            **_CALM,
            "srv_rerror_rate": _rates(0.9),
            "rerror_rate": _rates(0.9),
            "same_srv_rate": _rates(0.05),
            "diff_srv_rate": _rates(0.7),
            "dst_host_same_srv_rate": _rates(0.02),
            "dst_host_diff_srv_rate": _rates(0.7),
            "dst_host_rerror_rate": _rates(0.9),
            "dst_host_srv_rerror_rate": _rates(0.9),
        },
    ),
    "ping_flood": _Kind(
        protocol="icmp",
        services=("ecr_i",),
        flags={"SF": 1.0},
        numbers={
            **_CALM,
            **_SWARM,
            "src_bytes": _sizes(1_032, 0.02),
            "same_srv_rate": _rates(0.99),
            "dst_host_same_src_port_rate": _rates(0.95),
        },
    ),
    "password_guessing": _Kind(
        protocol="tcp",
        services=("telnet", "ftp", "pop_3"),
        flags={"SF": 0.6, "RSTO": 0.4},
        numbers={
            **_CALM,
            "duration": _sizes(3, 0.5),
            "src_bytes": _sizes(125, 0.1),
            "dst_bytes": _sizes(180, 0.2),
            "num_failed_logins": _counts(1, 5),
            "hot": _counts(1, 2),
            "dst_host_same_src_port_rate": _rates(0.2),
        },
    ),
    "file_theft": _Kind(
        protocol="tcp",
        services=("ftp_data", "ftp"),
        flags={"SF": 1.0},
        numbers={
            **_CALM,
            **_LOGGED_IN,
            "duration": _sizes(20, 1),
            "src_bytes": _sizes(120_000, 1.2),
            "hot": _seldom(0.6, _counts(2, 28)),
            "is_guest_login": _seldom(0.7, _counts(1, 1)),
        },
    ),
    LATE: _Kind(
        protocol="tcp",
        services=("http", "smtp", "ssh"),
        flags={"S1": 0.4, "S2": 0.3, "SH": 0.3},
        numbers={
            **_CALM,
            "dst_host_same_src_port_rate": _rates(0.9),
            "dst_host_srv_diff_host_rate": _rates(0.6),
            "srv_diff_host_rate": _rates(0.9),
        },
    ),
}
OWN = {name: kind.weight for name, kind in KINDS.items() if kind.weight}
ATTACKS = tuple(name for name, kind in KINDS.items() if not kind.weight)


def generate_connections(path: Path, *, rows: int = 20_000, seed: int = 11) -> Path:
    """Write ``rows`` synthetic connections as a file of NSL-KDD's form, each line with its class.

    The same ``seed`` gives the same bytes. The file appears whole. Raises BadInput for fewer than MIN_ROWS rows.
    """
    if rows < MIN_ROWS:
        raise BadInput(f"The demo connections need at least {MIN_ROWS:,} rows, got {rows}.")
    rng = np.random.default_rng(seed)
    kinds = _schedule(rng, rows)
    lines = np.empty(rows, dtype=object)
    for name, kind in KINDS.items():
        mine = np.flatnonzero(kinds == name)
        if len(mine):
            lines[mine] = _lines(rng, kind, len(mine), "normal" if kind.weight else name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text("\n".join(lines.tolist()) + "\n", encoding="utf-8")
    part.replace(path)
    return path


def _schedule(rng: Rng, rows: int) -> npt.NDArray[np.str_]:
    """What each line is: the office's own connections, with bursts of attacks among them."""
    kinds: npt.NDArray[np.str_] = rng.choice(list(OWN), size=rows, p=np.array(list(OWN.values())))
    kinds = kinds.astype("U32")
    length = int(rows * BURST_SHARE / BURSTS_PER_KIND)
    slot = rows // BURSTS_PER_KIND
    for name in ATTACKS:
        starts = np.arange(BURSTS_PER_KIND) * slot + rng.integers(0, slot - length, BURSTS_PER_KIND)
        for start in starts[2 * BURSTS_PER_KIND // 3 :] if name == LATE else starts:
            chosen = start + np.flatnonzero(rng.random(length) < IN_BURST)
            kinds[chosen] = name
    return kinds


def _lines(rng: Rng, kind: _Kind, n: int, label: str) -> list[str]:
    columns: list[list[str]] = []
    flags = list(kind.flags)
    texts = {
        "protocol_type": [kind.protocol] * n,
        "service": rng.choice(kind.services, n).tolist(),
        "flag": rng.choice(flags, n, p=np.array(list(kind.flags.values())) / sum(kind.flags.values())).tolist(),
    }
    refused = np.isin(texts["flag"], ["REJ", "S0", "SH"])  # nothing was sent over those
    for name in NSL_KDD_FEATURES:
        if name in NSL_KDD_TEXTS:
            columns.append(texts[name])
            continue
        values = kind.numbers[name](rng, n) if name in kind.numbers else np.zeros(n)
        if name in ("duration", "src_bytes", "dst_bytes", "logged_in"):
            values = np.where(refused, 0.0, values)
        columns.append([f"{value:.2f}" if name.endswith("_rate") else f"{value:.0f}" for value in values.tolist()])
    return [",".join([*values, label]) for values in zip(*columns, strict=True)]
