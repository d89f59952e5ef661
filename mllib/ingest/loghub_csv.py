"""The "structured" CSV files of the loghub collection: a header, then one parsed line a row.

The columns differ by system. ``Content`` is the message, ``LineId`` the line's own id, ``Component`` (or ``Program``)
the service, ``Node`` (or ``Location``) the host, ``Label`` the label as in BGL: "-" is 0, anything else is 1 and goes
to ``attributes["alert"]``. Of the Linux files, known by their columns ``Month`` and ``Level``, ``Level`` is the host.
All other columns go to ``attributes``. The time is put together from Timestamp, or else Month, Date, Day and Time;
where it has no year (Android, OpenSSH, Linux, Mac, Proxifier), the option ``year`` gives that of the first line, and
January after December is the next one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from datetime import datetime

from mllib.ingest.base import LogRecord, Parse, ParseOptions, Refused
from mllib.ingest.timestamps import MONTHS, from_seconds, from_text, in_utc, unreadable, year_of

NAME = "loghub_csv"
DESCRIPTION = "loghub's structured CSV; a Label column becomes the label"
STATEFUL = True

_MOMENT_COLUMNS = ("Month", "Date", "Day", "Time")
_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,:](?P<fraction>\d{1,6}))?"
_MONTH = r"(?P<month>[A-Z][a-z]{2})"
_FORMS = [
    re.compile(form, re.ASCII)
    for form in (
        rf"(?P<month>\d\d)-(?P<day>\d\d) {_CLOCK}",  # Android
        rf"{_MONTH} +(?P<day>\d{{1,2}}) {_CLOCK}",  # OpenSSH, Linux, Mac
        rf"\w{{3}} {_MONTH} +(?P<day>\d{{1,2}}) {_CLOCK} (?P<year>\d{{4}})",  # Apache
        r"(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d) (?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)",  # HDFS
        rf"(?P<year>\d\d)/(?P<month>\d\d)/(?P<day>\d\d) {_CLOCK}",  # Spark
        rf"(?P<year>\d{{4}})(?P<month>\d\d)(?P<day>\d\d)-{_CLOCK}",  # HealthApp
        rf"(?P<month>\d\d)\.(?P<day>\d\d) {_CLOCK}",  # Proxifier
    )
]


def sniff(lines: list[str]) -> float:
    """The header says it all: LineId and Content are loghub's, and there is a time."""
    try:
        names = _fields(lines[0])
    except (IndexError, Refused):
        return 0.0
    if "Content" not in names or not {"Time", "Timestamp"} & set(names):
        return 0.0
    return 1.0 if "LineId" in names else 0.7


def parser(options: ParseOptions) -> Parse:
    row: Callable[[list[str]], LogRecord] | None = None

    def parse(line: str) -> LogRecord | None:
        nonlocal row
        fields = _fields(line)
        if row is None:
            row = _row_reader(fields, options)
            return None
        return row(fields)

    return parse


def _fields(line: str) -> list[str]:
    try:
        return next(csv.reader((line,), strict=True))
    except (csv.Error, StopIteration):
        raise Refused("not a line of CSV, or a quoted field that goes on in the next line") from None


def _row_reader(header: list[str], options: ParseOptions) -> Callable[[list[str]], LogRecord]:
    index = {name: position for position, name in enumerate(header)}
    if "Content" not in index or not {"Time", "Timestamp"} & set(index):
        raise Refused("the first line is no header with the columns Content and Time or Timestamp")
    is_linux = "Month" in index and "Level" in index
    level = None if is_linux else index.get("Level")
    host = index.get("Level") if is_linux else index.get("Node", index.get("Location"))
    service = index.get("Component", index.get("Program"))
    content, line_id, label = index["Content"], index.get("LineId"), index.get("Label")
    seconds = index.get("Timestamp")
    moment_columns = [index[name] for name in _MOMENT_COLUMNS if name in index]
    used = {level, host, service, content, line_id, label, *([seconds] if seconds is not None else moment_columns)}
    others = [(position, name) for name, position in index.items() if position not in used and name]
    moment = _moment_reader(options)

    def text(fields: list[str], position: int | None) -> str | None:
        return (fields[position] or None) if position is not None else None

    def row(fields: list[str]) -> LogRecord:
        if len(fields) != len(header):
            raise Refused(f"{len(fields)} fields where the header has {len(header)}")
        if seconds is not None:
            ts = from_seconds(fields[seconds])
        else:
            ts = moment(" ".join([fields[position] for position in moment_columns]))
        attributes: dict[str, object] = {name: fields[position] for position, name in others if fields[position]}
        tag = text(fields, label)
        if tag is not None and tag not in ("-", "0", "1"):
            attributes["alert"] = tag
        return LogRecord(
            ts,
            text(fields, line_id),
            text(fields, level),
            text(fields, service),
            text(fields, host),
            fields[content],
            None,
            None,
            None,
            attributes or None,
            None if tag is None else "0" if tag in ("-", "0") else "1",
        )

    return row


def _moment_reader(options: ParseOptions) -> Callable[[str], datetime]:
    """Reads times in any of the forms; keeps the year of those that have none, and the form of the line before."""
    forms = list(_FORMS)  # the one that fits comes first: it fits the next line too
    year = year_of(options.year)

    def moment(text: str) -> datetime:
        for form in forms:
            match = form.fullmatch(text)
            if match is not None:
                break
        else:
            if text.isdecimal():
                return from_seconds(text)
            return from_text(text, options.timezone)
        if form is not forms[0]:
            forms.remove(form)
            forms.insert(0, form)
        parts = match.groupdict()
        month = int(parts["month"]) if parts["month"].isdecimal() else MONTHS.get(parts["month"], 0)
        written = parts.get("year")
        its_year = year(month) if written is None else int(written) + (2000 if len(written) == 2 else 0)
        fraction = (parts.get("fraction") or "").ljust(6, "0")
        clock = [int(parts[name]) for name in ("day", "hour", "minute", "second")]
        try:
            naive = datetime(its_year, month, *clock, microsecond=int(fraction))  # type: ignore[misc,arg-type]  # noqa: DTZ001
        except ValueError:
            raise unreadable(text) from None
        return in_utc(naive, options.timezone)

    return moment
