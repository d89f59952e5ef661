"""Lines of ``key=value``, as Go's and Heroku's loggers write them.

    time=2031-01-02T03:04:05Z level=info msg="order stored" service=shop status=200 duration_ms=12.5

The keys are those of JSON lines. A value in double quotes has JSON's escapes; a key without a value is true. A line
without a time or a message under one of the usual keys is refused, so that prose does not pass for a row of keys.
"""

from __future__ import annotations

import json
import re

from mllib.ingest.base import LogRecord, Parse, ParseOptions, Refused
from mllib.ingest.jsonl import KEYS, Json, check_escapes, record_reader

NAME = "logfmt"
DESCRIPTION = "logfmt, key=value with quoted values; the keys of JSON lines"

# Each part ends where the next begins and nothing is tried twice: time in proportion to the length of the line.
_pair = re.compile(r'([^\s="]++)(?:=(?:"((?:[^"\\]++|\\.)*+)"|([^\s"]*+)))?+(?:\s++|\Z)', re.DOTALL)


def sniff(lines: list[str]) -> float:
    """Pairs with a time and a message are certainly ours; other pairs may be, under other keys."""
    score = 0.0
    for line in lines:
        try:
            found = _pairs(line)
        except Refused:
            continue
        if all(any(key in found for key in KEYS[field]) for field in ("ts", "message")):
            score += 1.0
        elif len(found) > 1 and True not in found.values():
            score += 0.4
    return score / len(lines) if lines else 0.0


def parser(options: ParseOptions) -> Parse:
    """Raises BadInput if ``options.keys`` names a field that a log record does not have."""
    record = record_reader(options)

    def parse(line: str) -> LogRecord:
        return record(_pairs(line), None)

    return parse


def _pairs(line: str) -> Json:
    found: Json = {}
    line = line.strip()
    at = 0
    while at < len(line):
        match = _pair.match(line, at)
        if match is None:
            raise Refused(f"not a line of key=value pairs (character {at + 1})")
        key, quoted, plain = match.groups()
        if quoted is not None:
            found[key] = _unquoted(quoted) if "\\" in quoted else quoted
        else:
            found[key] = True if plain is None else plain
        at = match.end()
    return found


def _unquoted(text: str) -> str:
    try:
        value = str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text  # the escapes of another dialect: better as they are than not at all
    check_escapes(text, value)
    return value
