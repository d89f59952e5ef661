"""The kinds of made-up network flows: what an office does, and what attackers do to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Values = npt.NDArray[np.float64]
Draw = Callable[[Rng, int], Values]


def _around(median: float, spread: float) -> Draw:
    return lambda rng, n: median * np.exp(spread * rng.standard_normal(n))


def _counts(low: int, high: int) -> Draw:
    return lambda rng, n: rng.integers(low, high + 1, n).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of flow, and how what happens in it is drawn."""

    weight: float = 0.0  # among the office's own flows; 0 for attacks
    ports: tuple[int, ...]
    udp: bool = False
    sent: Draw  # packets
    received: Draw
    sent_bytes: Draw  # a packet
    received_bytes: Draw
    gap: Draw  # µs between packets
    unevenness: float = 0.8  # standard deviation of the gaps, as a share of their mean
    reset: float = 0.02  # share of the flows that end so
    window: tuple[int, ...] = (8_192, 29_200, 64_240, 65_535)


KINDS = {
    "web": Kind(
        weight=0.5,
        ports=(443, 80),
        sent=_counts(4, 25),
        received=_counts(4, 40),
        sent_bytes=_around(120, 0.6),
        received_bytes=_around(700, 0.6),
        gap=_around(60_000, 1.5),
    ),
    "names": Kind(
        weight=0.24,
        ports=(53,),
        udp=True,
        sent=_counts(1, 2),
        received=_counts(1, 2),
        sent_bytes=_around(40, 0.2),
        received_bytes=_around(110, 0.5),
        gap=_around(9_000, 1.2),
    ),
    "mail": Kind(
        weight=0.1,
        ports=(25, 587, 993),
        sent=_counts(8, 30),
        received=_counts(8, 25),
        sent_bytes=_around(300, 0.8),
        received_bytes=_around(90, 0.5),
        gap=_around(40_000, 1.0),
    ),
    "logins": Kind(
        weight=0.05,
        ports=(22,),
        sent=_counts(20, 400),
        received=_counts(20, 400),
        sent_bytes=_around(50, 0.4),
        received_bytes=_around(90, 0.5),
        gap=_around(400_000, 1.0),
        unevenness=2.0,
    ),
    "downloads": Kind(
        weight=0.08,
        ports=(443, 80, 21),
        sent=_counts(20, 300),
        received=_counts(40, 900),
        sent_bytes=_around(20, 0.5),
        received_bytes=_around(1_300, 0.1),
        gap=_around(1_500, 1.0),
    ),
    "refused": Kind(
        weight=0.03,
        ports=(443, 8_443, 5_432, 3_389),
        sent=_counts(1, 2),
        received=_counts(0, 1),
        sent_bytes=_around(0, 0),
        received_bytes=_around(0, 0),
        gap=_around(900, 1.5),
        reset=0.8,
    ),
    "syn_flood": Kind(
        ports=(80, 443),
        sent=_counts(1, 1),
        received=_counts(0, 1),
        sent_bytes=_around(0, 0),
        received_bytes=_around(0, 0),
        gap=_around(40, 0.8),
        reset=0.0,
        window=(512, 1_024),
    ),
    "port_scan": Kind(
        ports=tuple(range(1, 1_024)),
        sent=_counts(1, 1),
        received=_counts(1, 1),
        sent_bytes=_around(0, 0),
        received_bytes=_around(0, 0),
        gap=_around(60, 0.6),
        reset=0.98,
        window=(1_024, 64_240),
    ),
    "slow_headers": Kind(
        ports=(80,),
        sent=_counts(5, 14),
        received=_counts(2, 6),
        sent_bytes=_around(18, 0.4),
        received_bytes=_around(1, 0.5),
        gap=_around(8_000_000, 0.3),
        unevenness=0.5,
    ),
    "password_guessing": Kind(
        ports=(22, 21),
        sent=_counts(9, 16),
        received=_counts(9, 18),
        sent_bytes=_around(60, 0.15),
        received_bytes=_around(95, 0.15),
        gap=_around(110_000, 0.3),
        unevenness=0.6,
        reset=0.3,
    ),
    "page_flood": Kind(
        ports=(80,),
        sent=_counts(3, 7),
        received=_counts(3, 8),
        sent_bytes=_around(75, 0.2),
        received_bytes=_around(1_100, 0.3),
        gap=_around(2_500, 0.7),
        reset=0.3,
        window=(29_200,),
    ),
    "beacon": Kind(
        ports=(443, 8_080),
        sent=_counts(4, 6),
        received=_counts(3, 5),
        sent_bytes=_around(48, 0.08),
        received_bytes=_around(32, 0.1),
        gap=_around(25_000, 0.6),
        unevenness=0.3,
        window=(8_192,),
    ),
}
OWN = {name: kind.weight for name, kind in KINDS.items() if kind.weight}
ATTACKS = tuple(name for name, kind in KINDS.items() if not kind.weight)
