"""JSON lines by the column: those that have the keys of one line, in its order, and values that are plain.

Loggers write the same keys in the same order, line after line. From the keys of one line a pattern is made that a line
matches only if it has these keys, once each, and values that are certain to be read as they stand there: texts without
escapes, whole numbers, and so on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

import polars as pl

from mllib.ingest.base import Columns
from mllib.ingest.columns import by_pattern, none_of

MAX_KEYS = 32
"""A line with more keys is read on its own, because the pattern would become large."""

_KEY = re.compile(r"[A-Za-z0-9_.@-]{1,64}").fullmatch
_WHOLE = "0|-?[1-9][0-9]{0,17}"
_TEXT = r'"(?<{0}>[^"\\\x00-\x1f]*)"'
_TS = r'"(?<{0}>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](?:\.[0-9]{1,6})?)(?:Z|\+00:00)"'
_VALUES = {
    "ts": _TS,
    "message": _TEXT,
    "response_time_ms": r"null|(?<{0}>(?:0|[1-9][0-9]{0,10})(?:\.[0-9]{1,12})?)",
    "status_code": r"null|(?<{0}>0|[1-9][0-9]{0,2})",
    "label": rf'null|(?<{{0}}_number>{_WHOLE})|"(?<{{0}}>[A-Za-z0-9_.-]*)"',
}
_NAME = rf"null|(?<{{0}}_number>{_WHOLE})|{_TEXT}"  # of all other fields
_ATTRIBUTE = (  # as json.dumps writes it again, which gives numbers beyond these an exponent, or takes zeros away
    rf'(?<{{0}}>null|true|false|{_WHOLE}|-?(?:0|[1-9][0-9]{{0,8}})\.(?:0|[0-9]{{0,3}}[1-9])|"[ !#-\[\]-~]*")'
)


def by_keys(keys: Mapping[str, Sequence[str]], *, naive_is_utc: bool) -> Columns:
    """Reads lines like the first of their run, or like one before it while at least half of the lines are such.

    ``keys`` are those to try for each field; a time without a zone is read only if ``naive_is_utc``.
    """
    shape: Columns | None = None

    def read(lines: pl.Series) -> pl.DataFrame:
        nonlocal shape
        rows = none_of(lines) if shape is None else shape(lines)
        if rows["ts"].null_count() > len(rows) // 2:
            shape = _shape_of(lines[0], keys, naive_is_utc=naive_is_utc)
            rows = none_of(lines) if shape is None else shape(lines)
        return rows

    return read


def _shape_of(line: str, keys: Mapping[str, Sequence[str]], *, naive_is_utc: bool) -> Columns | None:
    """What reads lines with the keys of this one; None if that is no JSON object or has keys out of the ordinary."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or len(found) > MAX_KEYS or not all(map(_KEY, found)):
        return None
    groups = {key: f"k{place}" for place, key in enumerate(found)}
    rest = dict(groups)
    fields = {}
    for field, names in keys.items():
        taken = next((name for name in names if name in rest), None)
        if taken is not None:
            del rest[taken]
            fields[taken] = field
    if not {"ts", "message"} <= set(fields.values()):
        return None
    values = []
    for key, group in groups.items():
        value = _VALUES.get(fields[key], _NAME) if key in fields else _ATTRIBUTE
        if naive_is_utc and fields.get(key) == "ts":
            value = value.removesuffix('"') + '?"'
        values.append(f'"{re.escape(key)}": ?(?:{value.replace("{0}", group)})')
    columns = {field: _EXPRESSIONS.get(field, _name)(groups[key]) for key, field in fields.items()}
    if rest:
        columns["attributes"] = _object(rest)
    return by_pattern(r"^\{" + ", ?".join(values) + r"\}$", **columns)


def _ts(group: str) -> pl.Expr:
    naive = pl.col(group).str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False, time_unit="us")
    return naive.dt.replace_time_zone("UTC")


def _milliseconds(group: str) -> pl.Expr:
    number = pl.col(group).cast(pl.Float64)
    return pl.when(number < 1e-6).then(0.0).otherwise(number)  # as in base.milliseconds


def _name(group: str) -> pl.Expr:
    text = pl.col(group)
    return pl.coalesce(pl.when(text != "").then(text), f"{group}_number")


_EXPRESSIONS: dict[str, Callable[[str], pl.Expr]] = {
    "ts": _ts,
    "message": pl.col,
    "response_time_ms": _milliseconds,
    "status_code": lambda group: pl.col(group).cast(pl.Int64),
}


def _object(groups: Mapping[str, str]) -> pl.Expr:
    """The JSON object of these keys and the values in these groups."""
    parts = []
    for before, (key, group) in zip(["{", *[", "] * len(groups)], groups.items(), strict=False):
        parts += [pl.lit(f"{before}{json.dumps(key)}: "), pl.col(group)]
    return pl.concat_str(*parts, pl.lit("}"))
