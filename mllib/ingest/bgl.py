"""The logs of the supercomputers Blue Gene/L and Thunderbird, as published with an alert column.

    - 1117838570 2005.06.03 R02-M1-N0 2005-06-03-15.42.50.675872 R02-M1-N0 RAS KERNEL INFO instruction cache parity ...
    R_EXT 1131566461 2005.11.09 dn228 Nov 9 12:01:01 dn228/dn228 crond(pam_unix)[2915]: session closed for user root

The first column is "-" for a normal line, label 0; anything else is the tag of an alert: label 1, and the tag goes to
``attributes["alert"]``. The second, seconds since 1970, is the time; Blue Gene's own time stamp adds the microseconds.
"""

from __future__ import annotations

import polars as pl

from mllib.ingest.base import Columns, LogRecord, Parse, ParseOptions, Refused, share_read
from mllib.ingest.columns import by_pattern
from mllib.ingest.timestamps import from_seconds

NAME = "bgl"
ALIASES = ("thunderbird",)
DESCRIPTION = "Blue Gene/L and Thunderbird lines; the alert column becomes the label"

_USUAL = (
    r"^(?<tag>[A-Za-z0-9_.-]+) (?<seconds>[0-9]{10}) [0-9]{4}\.[0-9]{2}\.[0-9]{2} (?<host>[^ ]+) "
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{2}\.[0-9]{2}\.(?<second>[0-9]{2})\.(?<fraction>[0-9]{6}) "
    r"[^ ]* RAS (?<service>[^ ]+) (?<level>[^ ]+)(?: (?<message>.*))?$"
)


def sniff(lines: list[str]) -> float:
    return share_read(_parse, lines)


def parser(options: ParseOptions) -> Parse:
    return _parse


def columns(options: ParseOptions) -> Columns:
    """The lines of Blue Gene/L but those of rare types, as `_parse` reads them."""
    tag, message = pl.col("tag"), pl.col("message")
    seconds, second, fraction = (pl.col(name).cast(pl.Int64) for name in ("seconds", "second", "fraction"))
    micros = seconds * 1_000_000 + pl.when(seconds % 60 == second).then(fraction).otherwise(0)
    return by_pattern(
        _USUAL,
        ts=micros.cast(pl.Datetime("us", "UTC")),
        level=pl.col("level"),
        service=pl.col("service"),
        host=pl.col("host"),
        message=message.fill_null(""),
        attributes=pl.when(tag != "-").then(pl.format('{{"alert": "{}"}}', tag)),
        label=pl.when(tag == "-").then(pl.lit("0")).otherwise(pl.lit("1")),
    )


def _parse(line: str) -> LogRecord:
    parts = line.split(" ", 9)
    if len(parts) < 8 or not parts[0]:
        raise Refused(f"{len(parts)} fields where a BGL or Thunderbird line has at least 8")
    if len(parts[2]) != 10 or parts[2][4] != "." or parts[2][7] != ".":
        raise Refused("the third field is no date such as 2005.06.03")
    tag = parts[0]
    stamp = parts[4]
    if len(stamp) != 26:
        return _thunderbird(line, tag)
    if len(parts) < 9:
        raise Refused("the line ends before its level")
    ts = from_seconds(parts[1])
    # The two clocks differ by the zone; where their seconds agree, the fraction belongs to this second.
    if stamp[20:].isdecimal() and stamp[17:19] == f"{ts.second:02d}":
        ts = ts.replace(microsecond=int(stamp[20:]))
    attributes: dict[str, object] | None = None
    if tag != "-":
        attributes = {"alert": tag}
    if parts[6] != "RAS":
        attributes = {**(attributes or {}), "type": parts[6]}
    message = parts[9] if len(parts) == 10 else ""
    label = "0" if tag == "-" else "1"
    return LogRecord(
        ts, None, parts[8] or None, parts[7] or None, parts[3], message, None, None, None, attributes, label
    )


def _thunderbird(line: str, tag: str) -> LogRecord:
    parts = line.split(" ", 8)
    if len(parts) < 9:
        raise Refused("the line ends before its message")
    attributes: dict[str, object] = {"location": parts[7]}
    if tag != "-":
        attributes["alert"] = tag
    message = parts[8]
    program, colon, rest = message.partition(": ")
    service = None
    if colon and " " not in program:
        service, bracket, pid = program.partition("[")
        if bracket:
            attributes["pid"] = pid.rstrip("]")
        message = rest
    label = "0" if tag == "-" else "1"
    return LogRecord(
        from_seconds(parts[1]), None, None, service or None, parts[3], message, None, None, None, attributes, label
    )
