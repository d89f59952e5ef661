"""What a format is: it says how sure it is that a file is its own, and turns a line into a record of its source."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

import polars as pl

from mllib.features.pipeline import PipelineFeatures

MAX_MILLISECONDS = 1e12
"""A response time from here on, 31 years, is no response time."""


class LogRecord(NamedTuple):
    """One log line, read. A named tuple, because millions are made."""

    ts: datetime  # aware, UTC
    source_id: str | None  # the line's own id; the loader puts the line number where there is none
    level: str | None
    service: str | None
    host: str | None
    message: str
    response_time_ms: float | None  # finite, >= 0
    status_code: int | None  # 0 to 999
    trace_id: str | None
    attributes: dict[str, object] | None  # fit for jsonb
    label: str | None  # "0", "1" or the name of a class


class RunRecord(NamedTuple):
    """One CI/CD run, read."""

    ts: datetime  # aware, UTC: when it started
    source_id: str | None
    provider: str | None
    repository: str | None
    branch: str | None
    workflow: str | None
    language: str | None
    features: PipelineFeatures
    attributes: dict[str, object] | None  # fit for jsonb
    label: str | None


class FlowRecord(NamedTuple):
    """One network flow, read."""

    ts: datetime  # aware, UTC
    source_id: str | None
    form: str  # nsl_kdd or cicflowmeter
    src_ip: str | None
    dst_ip: str | None
    dst_port: int | None  # 0 to 65535
    protocol: str | None
    features: dict[str, object]  # by the form's own column names, fit for jsonb
    attributes: dict[str, object] | None
    label: str | None


Record = LogRecord | RunRecord | FlowRecord
"""All have ``ts`` first, and ``source_id`` and ``label``."""


class FileRefused(ValueError):  # noqa: N818 - it reads as what happened to the file
    """A file that cannot be of the format at all, such as one with other columns. The message is the whole reason."""


class Refused(ValueError):  # noqa: N818 - it reads as what happened to the line
    """A line that cannot be a record. The message is the whole reason, fit to be shown beside the line."""


@dataclass(frozen=True, kw_only=True)
class ParseOptions:
    """What a format cannot know from the file."""

    keys: Mapping[str, str] = field(default_factory=dict)
    """JSON lines: the key of a field, by the field's name, such as ``{"ts": "when"}``; tried before the usual ones."""
    year: int | None = None
    """The year of the first line, for formats whose time stamps have none."""
    timezone: tzinfo = UTC
    """The zone of time stamps that name none."""
    start: datetime | None = None
    """The time of the first record, for formats without times; aware, UTC."""


Parsed = Record | list[LogRecord | Refused] | None
"""What a line holds: a record; or several, with the reason in the place of each that could not be read; or None, where
it is no record and nothing is wrong, such as a CSV header or a part that waits for its end."""

Parse = Callable[[str], Parsed]
"""Reads one line, without its end. Raises Refused when the line cannot be read, FileRefused when no line can.

One that joins lines has a method ``finish()``, which gives the records that are left at the end of the file, and
``whole``, the text of the record given last where that was more than one line."""

Columns = Callable[[pl.Series], pl.DataFrame]
"""Reads lines by the column: for each a row with the fields of LogRecord, ``attributes`` as JSON. ``ts`` is null unless
the row is certainly what Parse makes of the line, and not several records; Parse then reads the line."""

MAX_LINE_BYTES = 256 * 1024
"""The longest line of most formats. The beginning of a longer one is a reject."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format, as its module declares it with NAME, DESCRIPTION, ``sniff`` and ``parser``."""

    name: str
    description: str
    sniff: Callable[[list[str]], float]
    """How sure it is, 0 to 1, that these are the first lines of a file in this format."""
    parser: Callable[[ParseOptions], Parse]
    """Makes the function that reads the lines of one file, first to last; it may keep state between lines."""
    columns: Callable[[ParseOptions], Columns | None] | None = None
    """Makes what reads most lines of a file without ``parser``, which for these it does not need; None if it cannot."""
    stateful: bool = False
    """Whether the lines before say how to read a line, such as a header: a grown file is then read from its start."""
    max_line_bytes: int = MAX_LINE_BYTES
    table: str = "logs"
    """Where its records go; by it they are of the type LogRecord, RunRecord or FlowRecord."""


def share_read(parse: Parse, lines: list[str]) -> float:
    """The share of lines that ``parse`` reads, 0 for no lines: the sniffer of formats without a header."""
    read = 0
    for line in lines:
        try:
            parse(line)
        except Refused:
            continue
        read += 1
    return read / len(lines) if lines else 0.0


def milliseconds(value: object) -> float | None:
    """A response time out of a number or its text; None if it is not finite, negative, or no number at all."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or not 0 <= number < MAX_MILLISECONDS:
        return None
    return number if number >= 1e-6 else 0.0  # smaller ones underflow in a four-byte column


def status(value: object) -> int | None:
    """A status code out of a number or its text; None if it is not a whole number from 0 to 999."""
    if isinstance(value, str):
        return int(value) if len(value) <= 3 and value.isascii() and value.isdigit() else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 999 or value != int(value):
        return None
    return int(value)
