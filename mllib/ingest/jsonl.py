"""One JSON object a line, with the keys that loggers commonly use.

The keys tried for each field are in KEYS; the option ``keys`` names others. Whatever is not used goes to
``attributes``. A response time or status code that is no usable number is stored as null, and as it was in the
attributes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo

from mllib.errors import BadInput
from mllib.ingest.base import Columns, LogRecord, Parse, ParseOptions, Refused, milliseconds, status
from mllib.ingest.json_columns import by_keys
from mllib.ingest.timestamps import from_number, from_text, unreadable

NAME = "jsonl"
DESCRIPTION = "JSON lines; the usual keys for time, message, level, service and so on, or those you name"

KEYS: dict[str, tuple[str, ...]] = {
    "ts": ("ts", "timestamp", "time", "@timestamp"),
    "message": ("message", "msg", "log"),
    "level": ("level", "severity"),
    "service": ("service", "logger", "app"),
    "host": ("host", "hostname"),
    "response_time_ms": ("response_time_ms", "duration_ms", "latency_ms"),
    "status_code": ("status_code", "status"),
    "trace_id": ("trace_id",),
    "source_id": ("id",),
    "label": ("label",),
}
"""The keys of each field; the first that an object has is taken."""

Json = dict[str, object]


def sniff(lines: list[str]) -> float:
    """JSON objects that have a time and a message are certainly ours; other objects may be, under other keys."""
    score = 0.0
    for line in lines:
        try:
            parsed = json_object(line)
        except Refused:
            continue
        if "resourceLogs" in parsed or wrapped(parsed) or _run(parsed):
            continue  # formats of their own: otlp, docker, pipeline_jsonl
        known = all(any(key in parsed for key in KEYS[field]) for field in ("ts", "message"))
        score += 1.0 if known else 0.4
    return score / len(lines) if lines else 0.0


def wrapped(parsed: Json) -> bool:
    """Whether this is what Docker's json-file driver puts around a line: log, stream and time, and nothing else."""
    return {"log", "stream", "time"} <= parsed.keys() <= {"log", "stream", "time", "attrs"}


def _run(parsed: Json) -> bool:
    """Whether this is a CI/CD run with its whole log, which is no message."""
    return "log" in parsed and ("repository" in parsed or "provider" in parsed)


def parser(options: ParseOptions) -> Parse:
    """Raises BadInput if ``options.keys`` names a field that a log record does not have."""
    record = record_reader(options)
    return lambda line: record(json_object(line), None)


def columns(options: ParseOptions) -> Columns:
    return by_keys(_keys(options), naive_is_utc=options.timezone is UTC)


def _keys(options: ParseOptions) -> dict[str, tuple[str, ...]]:
    """The keys to try for each field. Raises BadInput if ``options.keys`` names a field that a log record has not."""
    unknown = sorted(set(options.keys) - set(KEYS))
    if unknown:
        raise BadInput(f"A log record has no field {unknown[0]!r}. Keys can be given for {', '.join(KEYS)}.")
    return {field: (options.keys[field], *usual) if field in options.keys else usual for field, usual in KEYS.items()}


def record_reader(options: ParseOptions) -> Callable[[Json, datetime | None], LogRecord]:
    """Makes the function that turns keys and values into a record, by KEYS and ``options``.

    It uses up the dictionary. A time given to it counts where the values name none.
    Raises BadInput if ``options.keys`` names a field that a log record does not have.
    """
    keys = _keys(options)

    def record(rest: Json, default_ts: datetime | None) -> LogRecord:
        taken: list[object] = []
        for names in keys.values():
            for name in names:
                if name in rest:
                    taken.append(rest.pop(name))
                    break
            else:
                taken.append(None)
        ts, message, level, service, host, response_time, code, trace_id, source_id, label = taken
        if ts is None and default_ts is None:
            raise Refused(f"no time stamp under any of the keys {', '.join(keys['ts'])}")
        if message is None:
            raise Refused(f"no message under any of the keys {', '.join(keys['message'])}")
        milli = code_number = None
        if response_time is not None and (milli := milliseconds(response_time)) is None:
            rest["response_time_ms"] = response_time
        if code is not None and (code_number := status(code)) is None:
            rest["status_code"] = code
        return LogRecord(
            default_ts if ts is None and default_ts is not None else _moment(ts, options.timezone),
            _text(source_id, "id", rest),
            _text(level, "level", rest),
            _text(service, "service", rest),
            _text(host, "host", rest),
            message.rstrip("\n") if isinstance(message, str) else json.dumps(message, ensure_ascii=False),
            milli,
            code_number,
            _text(trace_id, "trace_id", rest),
            rest or None,
            _label(label, rest),
        )

    return record


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


# Neither NaN nor an infinity can be stored as JSON, so they stay text.
_decode = json.JSONDecoder(parse_float=_finite, parse_constant=str).decode


def json_object(line: str) -> Json:
    """The JSON object that a line holds, fit for jsonb. Raises Refused."""
    try:
        parsed = _decode(line)
    except ValueError:
        raise Refused("the line is not JSON") from None
    except RecursionError:
        raise Refused("the JSON is nested too deeply") from None
    if not isinstance(parsed, dict):
        raise Refused("the line is JSON, but no object")
    if "\\u" in line:
        check_escapes(line, parsed)
    return parsed


def check_escapes(line: str, parsed: object) -> None:
    """Refuses what JSON can escape but PostgreSQL cannot store: NUL, and half a surrogate pair."""
    bare = line.replace("\\\\", "").lower()  # an escaped backslash starts no other escape
    if "\\u0000" in bare:
        raise Refused("the line holds an escaped NUL character")
    if "\\ud" in bare:
        try:
            json.dumps(parsed, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Refused("the line holds half of an escaped surrogate pair") from None


def _moment(value: object, zone: tzinfo) -> datetime:
    if isinstance(value, str):
        return from_text(value, zone)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return from_number(value)
    raise unreadable(value)


def _text(value: object, field: str, rest: Json) -> str | None:
    """A scalar as text, an empty one as None; an object or a list goes to the attributes."""
    if isinstance(value, str):
        return value or None
    if value is None:
        return None
    if isinstance(value, dict | list):
        rest[field] = value
        return None
    return json.dumps(value)


def _label(value: object, rest: Json) -> str | None:
    """True, 1 and 1.0 are "1", likewise "0"; a text is the name of a class."""
    if isinstance(value, bool | float) and value in (0, 1):
        return str(int(value))
    text = _text(value, "label", rest)
    return text.strip() or None if text else None
