"""A flow as CICFlowMeter measures it as a row of numbers: a function of the flow alone.

Its figures are taken as they are, and beside them ratios that stay the same when a tool runs faster or longer: flags
a packet, pauses as shares of the duration. Addresses, ports, identifiers and times are not read: in recorded traffic
they give an attack away, and on another network they mean something else.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.errors import BadInput
from mllib.sources import CICFLOWMETER_FEATURES

FIGURES = (*CICFLOWMETER_FEATURES, "protocol")
RATIOS = (
    "Total Packets",
    "Fwd/Bwd Length",
    "SYN/Packet",
    "RST/Packet",
    "FIN/Packet",
    "ACK/Packet",
    "PSH/Packet",
    "Fwd Header/Packet",
    "Bwd Header/Packet",
    "Fwd IAT Max/Duration",
    "Bwd IAT Total/Duration",
    "Idle Max/Duration",
    "Fwd/Bwd IAT Mean",
    "IAT Std/Mean",
)
FEATURES = (*FIGURES, *RATIOS)

LARGEST = 1e12
"""Numbers beyond are taken for this one: ratios of larger ones leave the range of 32 bits."""

_PROTOCOLS = {"icmp": 1.0, "tcp": 6.0, "udp": 17.0}
_AT = {name: place for place, name in enumerate(FEATURES)}


def measure(rows: pl.DataFrame) -> NDArray[np.float32]:
    """Shape (rows, len(FEATURES)), float32, finite; columns that are no features are not looked at.

    A number that is missing or infinite counts as 0, as a rate over no time does; an unknown protocol too. Raises
    BadInput that names the columns that are missing, or not of the type they should be.
    """
    columns = {column.name: column for column in rows.get_columns()}
    if missing := [name for name in FIGURES if name not in columns]:
        raise BadInput(f"Flows need the columns {', '.join(missing)}, which are missing.")
    # A column without any value has no type.
    odd = [column for name in CICFLOWMETER_FEATURES if (column := columns[name]).dtype != pl.Float64]
    if wrong := [column.name for column in odd if not (column.dtype.is_numeric() or column.dtype == pl.Null)]:
        raise BadInput(f"Flows need numbers in the columns {', '.join(wrong)}.")
    if columns["protocol"].dtype not in (pl.String, pl.Null):
        raise BadInput("Flows need text in the columns protocol.")
    columns |= {column.name: column.cast(pl.Float64) for column in odd}
    values = np.empty((rows.height, len(FEATURES)))
    for place, name in enumerate(CICFLOWMETER_FEATURES):  # one by one is faster than a selection of so many
        values[:, place] = columns[name].to_numpy()
    values[:, len(CICFLOWMETER_FEATURES)] = [_protocol(name) for name in columns["protocol"].to_list()]
    figures = values[:, : len(FIGURES)]
    figures[~np.isfinite(figures)] = 0.0
    np.clip(figures, -LARGEST, LARGEST, out=figures)
    _add_ratios(values)
    return values.astype(np.float32)


def _add_ratios(values: NDArray[np.float64]) -> None:
    def of(name: str) -> NDArray[np.float64]:
        return values[:, _AT[name]]

    def above(name: str) -> NDArray[np.float64]:
        return 1.0 + np.maximum(of(name), 0.0)

    packets = of("Total Fwd Packet") + of("Total Bwd packets")
    some = np.maximum(packets, 1.0)
    ratios = (
        packets,
        of("Total Length of Fwd Packet") / above("Total Length of Bwd Packet"),
        *(of(f"{flag} Flag Count") / some for flag in ("SYN", "RST", "FIN", "ACK", "PSH")),
        of("Fwd Header Length") / np.maximum(of("Total Fwd Packet"), 1.0),
        of("Bwd Header Length") / np.maximum(of("Total Bwd packets"), 1.0),
        *(of(f"{pause}") / above("Flow Duration") for pause in ("Fwd IAT Max", "Bwd IAT Total", "Idle Max")),
        of("Fwd IAT Mean") / above("Bwd IAT Mean"),
        of("Flow IAT Std") / above("Flow IAT Mean"),
    )
    for place, ratio in enumerate(ratios, start=len(FIGURES)):
        values[:, place] = ratio


def _protocol(name: str | None) -> float:
    """The number of a protocol, from its name or its number; 0 for what is neither."""
    if name is None:
        return 0.0
    if (known := _PROTOCOLS.get(name.lower())) is not None:
        return known
    return float(name) if name.isascii() and name.isdigit() and len(name) <= 3 else 0.0
