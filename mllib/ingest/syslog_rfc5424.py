"""The newer syslog, with and without the priority in front.

    <165>1 2031-10-11T22:14:15.003Z web-1 shop 4711 ID47 [origin ip="10.0.0.1"] order stored

The severity in the priority is the level, the application the service. Process id, message id, facility and the
structured data go to ``attributes``, the last as an object of objects. A line that has no time is refused.
"""

from __future__ import annotations

import re
from datetime import datetime

from mllib.ingest.base import LogRecord, Parse, ParseOptions, Refused, share_read
from mllib.ingest.syslog_rfc3164 import priority
from mllib.ingest.timestamps import from_text

NAME = "syslog_rfc5424"
DESCRIPTION = "syslog as of RFC 5424, with or without priority; structured data become attributes"

_match = re.compile(
    r"(?:<(\d{1,3})>)?+1 (-|\d{4}-\d\d-\d\dT\S{8,26}+) (\S{1,255}+) (\S{1,256}+) (\S{1,128}+) (\S{1,32}+) "
    r'(-|(?:\[(?:[^\]"\\]++|"(?:[^"\\]++|\\.)*+"|\\.)*+\])++)(?: (.*))?',
    re.DOTALL,
).fullmatch
_element = re.compile(r'\[([^\s=\]"]++)((?:\s++[^\s=\]"]++="(?:[^"\\]++|\\.)*+")*+)\s*+\]', re.DOTALL).match
_parameter = re.compile(r'([^\s=\]"]++)="((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_escape = re.compile(r'\\(["\\\]])')


def sniff(lines: list[str]) -> float:
    return share_read(parser(ParseOptions()), lines)


def parser(options: ParseOptions) -> Parse:
    def parse(line: str) -> LogRecord:
        match = _match(line)
        if match is None:
            raise Refused("not a syslog line as of RFC 5424")
        digits, time, host, app, process, message_id, data, message = match.groups()
        level, attributes = priority(digits)
        if process != "-":
            attributes["pid"] = process
        if message_id != "-":
            attributes["msgid"] = message_id
        if data != "-":
            attributes["structured_data"] = _structured(data)
        return LogRecord(
            _moment(time, options),
            None,
            level,
            None if app == "-" else app,
            None if host == "-" else host,
            (message or "").removeprefix("\ufeff"),
            None,
            None,
            None,
            attributes or None,
            None,
        )

    return parse


def _moment(time: str, options: ParseOptions) -> datetime:
    if time == "-":
        raise Refused("the line has no time stamp")
    return from_text(time, options.timezone)


def _structured(data: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    at = 0
    while at < len(data):
        element = _element(data, at)
        if element is None:
            raise Refused("the structured data cannot be read")
        parameters = found.setdefault(element[1], {})
        for name, value in _parameter.findall(element[2]):
            parameters[name] = _escape.sub(r"\1", value)
        at = element.end()
    return found
