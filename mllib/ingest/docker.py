"""Logs of containers: Docker's json-file driver, and the files that Kubernetes (CRI) writes.

    {"log":"order stored\\n","stream":"stdout","time":"2031-01-02T03:04:05.000000006Z"}
    2031-01-02T03:04:05.000000006Z stdout F order stored

A long line comes in parts, which are joined: in JSON until a part ends in a newline, else until a part is marked F. The
record has the number and the time of the last part. Where the line is itself a JSON object with a message under one of
the usual keys, its fields are taken as those of JSON lines, and its time, if it has one. The stream goes to
``attributes``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from mllib.ingest.base import MAX_LINE_BYTES, LogRecord, Parse, ParseOptions, Refused
from mllib.ingest.jsonl import KEYS, json_object, record_reader, wrapped
from mllib.ingest.timestamps import from_text

NAME = "docker"
DESCRIPTION = "container logs: Docker's JSON lines and Kubernetes CRI lines; parts are joined, JSON within is read"

_cri = re.compile(r"(\d{4}-\d\d-\d\dT\S{8,26}+) (stdout|stderr) ([FP])(?::\S*+)? (.*)", re.DOTALL).fullmatch


def sniff(lines: list[str]) -> float:
    read = 0
    for line in lines:
        try:
            _part(line)
        except Refused:
            continue
        read += 1
    return read / len(lines) if lines else 0.0


def parser(options: ParseOptions) -> Parse:
    """Raises BadInput if ``options.keys`` names a field that a log record does not have."""
    return _Joining(options)


def _part(line: str) -> tuple[str, str, str, bool]:
    """Time, stream and text of a part, and whether it is the last of its line."""
    match = _cri(line)
    if match is not None:
        time, stream, tag, text = match.groups()
        return time, stream, text, tag == "F"
    if not line.startswith("{"):
        raise Refused("neither a line of Docker's json-file driver nor one of Kubernetes")
    parsed = json_object(line)
    if not wrapped(parsed):
        raise Refused("a line of Docker's json-file driver has the keys log, stream and time")
    time, stream, text = (parsed[key] for key in ("time", "stream", "log"))
    if not isinstance(time, str) or not isinstance(stream, str) or not isinstance(text, str):
        raise Refused("log, stream or time is no text")
    return time, stream, text.removesuffix("\n").removesuffix("\r"), text.endswith("\n")


class _Joining:
    """Holds the parts of each stream until the last one comes."""

    whole: str | None = None
    """What the record given last was made of, if it came in parts."""

    def __init__(self, options: ParseOptions) -> None:
        self._zone = options.timezone
        self._record = record_reader(options)
        self._held: dict[str, tuple[datetime, list[str], int]] = {}  # time, parts and their length, by stream

    def __call__(self, line: str) -> LogRecord | None:
        self.whole = None
        time, stream, text, last = _part(line)
        ts = from_text(time, self._zone)
        _, parts, length = self._held.pop(stream, (ts, [], 0))
        parts.append(text)
        length += len(text)
        if last or length > MAX_LINE_BYTES:  # parts without end are cut, so that memory stays flat
            return self._joined(ts, stream, parts)
        if len(self._held) > 8:
            raise Refused("parts of more than 8 streams at once")
        self._held[stream] = ts, parts, length
        return None

    def finish(self) -> Iterator[LogRecord]:
        """What waits for an end that the file does not have."""
        held, self._held = self._held, {}
        for stream, (ts, parts, _) in held.items():
            yield self._joined(ts, stream, ["", *parts])

    def _joined(self, ts: datetime, stream: str, parts: list[str]) -> LogRecord:
        text = "".join(parts)
        self.whole = text if len(parts) > 1 else None
        record = self._within(ts, text) if text.startswith("{") else None
        if record is None:
            return LogRecord(ts, None, None, None, None, text, None, None, None, {"stream": stream}, None)
        return record._replace(attributes={**(record.attributes or {}), "stream": stream})

    def _within(self, ts: datetime, text: str) -> LogRecord | None:
        """The record of a JSON object with a message; None if it is not one."""
        try:
            inner = json_object(text)
            if not any(key in inner for key in KEYS["message"]):
                return None
            return self._record(inner, ts)
        except Refused:
            return None
