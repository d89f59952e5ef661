"""Connections as in the files of NSL-KDD: 41 features with commas between, then the class and, mostly, a difficulty.

    0,tcp,http,SF,232,8153,0,0,0,0,0,1,...,0.00,0.01,normal,21
    0,tcp,private,S0,0,0,0,0,0,0,0,0,...,0.00,0.00,neptune,19

There is no header. The class is the label: "0" for ``normal``, else the name of the attack, which is positive. It may
be missing, and so may the difficulty, which goes to ``attributes``: it says how many learners got the line wrong, and
must not become a feature.

The files have no times. With the option ``start`` the first line is of that time, and each line one second later than
the one before it, so that the order is kept and the lines can be cut into training and holdout. Without it they are of
the time at which they are read, a millisecond apart.
"""

from __future__ import annotations

import math

from mllib.ingest.base import FlowRecord, Parse, ParseOptions, Refused, share_read
from mllib.ingest.timestamps import one_after_the_other
from mllib.sources import NSL_KDD_FEATURES, NSL_KDD_TEXTS

NAME = "nsl_kdd"
DESCRIPTION = "connections in NSL-KDD's form, comma-separated without a header; the class becomes the label"
TABLE = "network_flows"
STATEFUL = True  # the lines before say how late it is

_TEXTS = [place for place, name in enumerate(NSL_KDD_FEATURES) if name in NSL_KDD_TEXTS]


def sniff(lines: list[str]) -> float:
    return share_read(parser(ParseOptions()), lines)


def parser(options: ParseOptions) -> Parse:
    moment = one_after_the_other(options.start)
    count = len(NSL_KDD_FEATURES)

    def parse(line: str) -> FlowRecord:
        ts = moment()  # a line that is refused has its time as well
        values = line.split(",")
        if not count <= len(values) <= count + 2:
            raise Refused(f"{len(values)} fields where a connection of NSL-KDD has {count} to {count + 2}")
        features = _features(values[:count])
        label = values[count].strip().removesuffix(".") if len(values) > count else ""
        attributes: dict[str, object] | None = None
        if len(values) > count + 1:
            attributes = {"difficulty": values[count + 1].strip()}
        protocol = features["protocol_type"]
        return FlowRecord(
            ts,
            None,
            NAME,
            None,
            None,
            None,
            protocol if isinstance(protocol, str) else None,
            features,
            attributes,
            ("0" if label == "normal" else label) or None,
        )

    return parse


def _features(values: list[str]) -> dict[str, object]:
    features: dict[str, object] = {}
    for place, (name, value) in enumerate(zip(NSL_KDD_FEATURES, values, strict=True)):
        if place in _TEXTS:
            if not value.strip() or _number(value) is not None:
                raise Refused(f"{name} is {value[:40]!r}, which is no name")
            features[name] = value.strip()
        else:
            number = _number(value)
            if number is None:
                raise Refused(f"{name} is {value[:40]!r}, which is no finite number")
            features[name] = number
    return features


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
