"""OpenTelemetry logs in JSON, one request a line, as the collector's file exporter writes them.

    {"resourceLogs":[{"resource":{...},"scopeLogs":[{"scope":{...},"logRecords":[{"timeUnixNano":"1925...", ...}]}]}]}

A line holds any number of records. ``service.name`` and ``host.name`` of the resource are service and host; the status
code and the response time come from ``http.response.status_code`` (or ``http.status_code``) and the keys of JSON lines.
All other attributes stay, those of the resource under ``resource``. A record that cannot be read refuses none of the
others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime

from mllib.ingest.base import LogRecord, Parse, ParseOptions, Refused, milliseconds, status
from mllib.ingest.jsonl import KEYS, Json, json_object
from mllib.ingest.timestamps import from_number, unreadable

NAME = "otlp"
DESCRIPTION = "OpenTelemetry logs in JSON, as the collector's file exporter writes them; many records a line"
MAX_LINE_BYTES = 8 * 1024 * 1024
"""The collector writes whole batches as one line."""

MAX_DEPTH = 32
_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_STATUS = ("http.response.status_code", "http.status_code", *KEYS["status_code"])
_NAMED = re.compile(r"SEVERITY_NUMBER_([A-Z]+)\d?").fullmatch
_begins = re.compile(r'\s*\{\s*"resourceLogs"\s*:\s*\[').match


def sniff(lines: list[str]) -> float:
    """By the beginning: the first line may be longer than what there is to sniff at."""
    return sum(_begins(line) is not None for line in lines) / len(lines) if lines else 0.0


def parser(options: ParseOptions) -> Parse:
    return _parse


def _parse(line: str) -> list[LogRecord | Refused]:
    request = json_object(line)
    if "resourceLogs" not in request:
        raise Refused("an OpenTelemetry line has the key resourceLogs")
    found: list[LogRecord | Refused] = []
    for resource_logs in _objects(request, "resourceLogs"):
        resource = _attributes(resource_logs.get("resource"))
        service, host = (_name(resource.pop(key, None)) for key in ("service.name", "host.name"))
        for scope_logs in _objects(resource_logs, "scopeLogs"):
            scope = scope_logs.get("scope")
            scope_name = scope.get("name") if isinstance(scope, dict) else None
            for entry in _objects(scope_logs, "logRecords"):
                try:
                    found.append(_record(entry, service, host, resource, scope_name))
                except Refused as why:
                    found.append(why)
    return found


def _record(entry: Json, service: str | None, host: str | None, resource: Json, scope: object) -> LogRecord:
    attributes = _attributes(entry)
    code = next((attributes.pop(key) for key in _STATUS if status(attributes.get(key)) is not None), None)
    times = KEYS["response_time_ms"]
    response_time = next((attributes.pop(key) for key in times if milliseconds(attributes.get(key)) is not None), None)
    if resource:
        attributes["resource"] = resource
    for key, value in (("scope", scope), ("span_id", entry.get("spanId")), ("event", entry.get("eventName"))):
        if isinstance(value, str) and value:
            attributes[key] = value
    body = _value(entry.get("body"))
    return LogRecord(
        _moment(entry),
        None,
        _level(entry),
        service,
        host,
        body if isinstance(body, str) else "" if body is None else json.dumps(body, ensure_ascii=False),
        milliseconds(response_time),
        status(code),
        _name(entry.get("traceId")),
        attributes or None,
        None,
    )


def _moment(entry: Json) -> datetime:
    """When it happened, else when it was observed; nanoseconds, as a number or its text, 0 for unknown."""
    for key in ("timeUnixNano", "observedTimeUnixNano"):
        value = entry.get(key)
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 20:
            value = int(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if value:
                return from_number(max(value, 1e17))  # nanoseconds, however early: 1973 is out of bounds as well
        elif value not in (None, ""):
            raise unreadable(value)
    raise Refused("neither timeUnixNano nor observedTimeUnixNano says a time")


def _level(entry: Json) -> str | None:
    text = entry.get("severityText")
    if isinstance(text, str) and text:
        return text
    number = entry.get("severityNumber")
    if isinstance(number, str):
        if (named := _NAMED(number)) is not None and named[1] in _LEVELS:
            return named[1]
        number = int(number) if len(number) <= 2 and number.isascii() and number.isdecimal() else None
    if isinstance(number, int) and 1 <= number <= 24:
        return _LEVELS[(number - 1) // 4]
    return None


def _objects(parent: Json, key: str) -> Iterator[Json]:
    """The objects in the list under a key; whatever else stands there makes the line none of this format."""
    values = parent.get(key, [])
    if not isinstance(values, list):
        raise Refused(f"{key} is no list")
    for value in values:
        if not isinstance(value, dict):
            raise Refused(f"{key} holds something that is no object")
        yield value


def _attributes(parent: object) -> Json:
    return _pairs(parent.get("attributes"), 0) if isinstance(parent, dict) else {}


def _pairs(values: object, depth: int) -> Json:
    """A list of {"key", "value"} as a dictionary; what is no such pair is left out."""
    if not isinstance(values, list):
        return {}
    return {
        pair["key"]: _value(pair.get("value"), depth + 1)
        for pair in values
        if isinstance(pair, dict) and isinstance(pair.get("key"), str)
    }


def _value(wrapped: object, depth: int = 0) -> object:
    """The value in {"stringValue": ...} and its like; whole numbers come as text too."""
    if depth > MAX_DEPTH:
        raise Refused(f"the values are nested more than {MAX_DEPTH} deep")
    if not isinstance(wrapped, dict):
        return wrapped
    for kind, value in wrapped.items():
        if kind == "intValue" and isinstance(value, str):
            digits = value.removeprefix("-")
            return int(value) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else value
        if kind == "arrayValue":
            values = value.get("values") if isinstance(value, dict) else None
            return [_value(each, depth + 1) for each in values] if isinstance(values, list) else []
        if kind == "kvlistValue":
            return _pairs(value.get("values"), depth) if isinstance(value, dict) else {}
        if kind in ("stringValue", "boolValue", "doubleValue", "intValue", "bytesValue"):
            return value
    return wrapped or None


def _name(value: object) -> str | None:
    return None if value is None or value == "" else value if isinstance(value, str) else json.dumps(value)
