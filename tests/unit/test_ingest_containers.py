"""logfmt, container logs and OpenTelemetry: fields, parts that are joined, many records a line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mllib.ingest import format_named
from mllib.ingest.base import LogRecord, ParseOptions, Refused
from mllib.ingest.reader import read

AT = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)
TS = "2031-01-02T03:04:05Z"
NANOS = str(int(AT.timestamp()) * 10**9 + 7000)


def record(message: str, ts: datetime = AT, **fields: object) -> LogRecord:
    empty: dict[str, object] = dict.fromkeys(LogRecord._fields)
    return LogRecord(**{**empty, "ts": ts, "message": message, **fields})  # type: ignore[arg-type]


def parse(name: str, *lines: str) -> list[Any]:
    parser = format_named(name).parser(ParseOptions())
    return [parser(line) for line in lines]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            f'time={TS} level=warn msg="a \\"b\\"\\n\\u00e9" app=shop status=503 duration_ms=1.5 id=r1 host=h '
            "trace_id=t",
            record(
                'a "b"\né',
                level="warn",
                service="shop",
                status_code=503,
                response_time_ms=1.5,
                source_id="r1",
                host="h",
                trace_id="t",
            ),
        ),
        (f"ts={TS} msg=m flag empty= k=a/b?c", record("m", attributes={"flag": True, "empty": "", "k": "a/b?c"})),
        (f'  msg="" ts={TS} ', record("")),
        (f'ts={TS} msg="go\\x41" status=ok', record("go\\x41", attributes={"status_code": "ok"})),
    ],
)
def test_logfmt(line: str, expected: LogRecord) -> None:
    assert parse("logfmt", line) == [expected]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"ts={TS} level=info", "no message"),
        ("level=info msg=m", "no time stamp"),
        ("some prose without keys", "no time stamp"),
        (f'ts={TS} msg="open', "not a line of key=value pairs"),
        (f'ts={TS} msg="a"b', "not a line of key=value pairs"),
        (f'ts={TS} msg="\\u0000"', "NUL"),
        (f'ts={TS} msg="\\ud800"', "half of an escaped surrogate"),
        ("ts=soon msg=m", "the time stamp 'soon' cannot be read"),
    ],
)
def test_logfmt_refuses(line: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        parse("logfmt", line)


def docker(log: str, stream: str = "stdout", **more: object) -> str:
    return json.dumps({"log": log, "stream": stream, "time": TS, **more})


def test_parts_of_container_lines_are_joined_by_stream() -> None:
    found = parse(
        "docker",
        f"{TS} stdout P one ",
        f"{TS} stderr F other",
        f"{TS} stdout P two ",
        f"{TS} stdout F three",
        docker("a "),
        docker("b\r\n", attrs={"tag": "x"}),
    )
    joined = [each for each in found if each is not None]
    assert joined == [
        record("other", attributes={"stream": "stderr"}),
        record("one two three", attributes={"stream": "stdout"}),
        record("a b", attributes={"stream": "stdout"}),
    ]
    assert [each is None for each in found] == [True, False, True, False, True, False]


def test_json_within_a_container_line_has_its_own_fields() -> None:
    inner = {"ts": "2031-01-01T00:00:00Z", "msg": "m", "level": "error", "status": 500, "n": 1}
    for line in (docker(json.dumps(inner) + "\n"), f"{TS} stdout F {json.dumps(inner)}"):
        assert parse("docker", line) == [
            record(
                "m",
                datetime(2031, 1, 1, tzinfo=UTC),
                level="error",
                status_code=500,
                attributes={"n": 1, "stream": "stdout"},
            )
        ]
    (timeless,) = parse("docker", docker('{"msg": "m"}\n'))
    assert timeless == record("m", attributes={"stream": "stdout"})
    for no_record in ('{"a": 1}', '{"msg": "m", "ts": "soon"}', "{broken", '{"msg": "\\u0000"}'):
        assert parse("docker", docker(no_record + "\n")) == [record(no_record, attributes={"stream": "stdout"})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("plain", "neither a line of Docker"),
        (f"{TS} stdout X m", "neither a line of Docker"),
        ("{", "not JSON"),
        ('{"log": "m"}', "has the keys log, stream and time"),
        ('{"log": 1, "stream": "s", "time": "t"}', "is no text"),
        (docker("m\n").replace(TS, "soon"), "the time stamp 'soon' cannot be read"),
    ],
)
def test_what_is_no_container_line_is_refused(line: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        parse("docker", line)


def test_parts_without_an_end_are_kept_at_the_end_and_cut_when_too_long(tmp_path: Path) -> None:
    path = tmp_path / "c.log"
    path.write_text(f"{TS} stdout F a\n{TS} stdout P b\n\n{TS} stderr P c\n")
    (batch,) = read(path, format_named("docker"), latest=AT + timedelta(days=1))
    assert [(number, found.message) for number, found in batch.records] == [(1, "a"), (4, "b"), (4, "c")]
    path.write_text(f"{TS} stdout P {'x' * 1000}\n" * 1000)
    (batch,) = read(path, format_named("docker"), latest=AT + timedelta(days=1))
    assert sum(len(found.message) for _, found in batch.records) == 1_000_000
    assert max(len(found.message) for _, found in batch.records) < 270_000
    (batch,) = read(path, format_named("docker"), latest=AT)
    assert not batch.records
    assert "".join(reject.raw.decode() for reject in batch.rejects) == "x" * 1_000_000


def attribute(key: str, **value: object) -> dict[str, object]:
    return {"key": key, "value": value}


def request(*records: object, resource: list[object] | None = None) -> str:
    scope = {"scope": {"name": "lib"}, "logRecords": list(records)}
    return json.dumps({"resourceLogs": [{"resource": {"attributes": resource or []}, "scopeLogs": [scope]}]})


def test_opentelemetry_records_have_their_fields_and_those_of_the_resource() -> None:
    full = {
        "timeUnixNano": NANOS,
        "severityNumber": 17,
        "severityText": "Error",
        "body": {"stringValue": "order stored"},
        "traceId": "0af7",
        "spanId": "b7ad",
        "attributes": [
            attribute("http.status_code", intValue="503"),
            attribute("duration_ms", doubleValue=1.5),
            attribute("n", intValue="-9007199254740993"),
            attribute("list", arrayValue={"values": [{"boolValue": True}, {}]}),
        ],
    }
    resource: list[object] = [
        attribute("service.name", stringValue="shop"),
        attribute("host.name", stringValue="web-1"),
        attribute("pod", stringValue="p"),
    ]
    ((found,),) = parse("otlp", request(full, resource=resource))
    assert found == record(
        "order stored",
        AT + timedelta(microseconds=7),
        level="Error",
        service="shop",
        host="web-1",
        trace_id="0af7",
        status_code=503,
        response_time_ms=1.5,
        attributes={
            "n": -9007199254740993,
            "list": [True, None],
            "resource": {"pod": "p"},
            "scope": "lib",
            "span_id": "b7ad",
        },
    )


@pytest.mark.parametrize(
    ("entry", "level", "message"),
    [
        ({"severityNumber": 9}, "INFO", ""),
        ({"severityNumber": "SEVERITY_NUMBER_WARN2"}, "WARN", ""),
        ({"severityNumber": "21", "body": None}, "FATAL", ""),
        ({"severityNumber": 99, "body": {"intValue": 5}}, None, "5"),
        ({"body": {"kvlistValue": {"values": [attribute("a", stringValue="é")]}}}, None, '{"a": "é"}'),
    ],
)
def test_levels_and_bodies_of_opentelemetry(entry: dict[str, object], level: str | None, message: str) -> None:
    ((found,),) = parse("otlp", request({"timeUnixNano": int(NANOS), **entry}))
    assert (found.level, found.message, found.ts) == (level, message, AT + timedelta(microseconds=7))


def test_the_time_observed_stands_in_for_the_time() -> None:
    ((found,),) = parse("otlp", request({"timeUnixNano": "0", "observedTimeUnixNano": NANOS}))
    assert found.ts == AT + timedelta(microseconds=7)


def test_a_bad_record_refuses_none_of_the_others_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "otel.json"
    good = {"timeUnixNano": NANOS, "body": {"stringValue": "m"}}
    deep: dict[str, object] = {"stringValue": "x"}
    for _ in range(100):
        deep = {"arrayValue": {"values": [deep]}}
    lines = [
        request(good, {}, good, {"timeUnixNano": "1"}, {**good, "body": deep}, {"timeUnixNano": "9" * 400}),
        request(good),
        request(),
        '{"resourceLogs": 1}',
        '{"other": []}',
    ]
    path.write_text("\n".join(lines) + "\n")
    (batch,) = read(path, format_named("otlp"), latest=AT + timedelta(days=1))
    assert [(number, found.source_id) for number, found in batch.records] == [(1, "1.1"), (1, "1.3"), (2, None)]
    assert [(reject.line_number, reject.reason) for reject in batch.rejects] == [
        (
            1,
            "4 of the line's 6 records were refused, the first is number 2: "
            "neither timeUnixNano nor observedTimeUnixNano says a time",
        ),
        (4, "resourceLogs is no list"),
        (5, "an OpenTelemetry line has the key resourceLogs"),
    ]
    assert batch.rejects[0].raw.decode() == lines[0]


def test_a_line_may_be_as_long_as_the_batches_of_a_collector(tmp_path: Path) -> None:
    path = tmp_path / "otel.json"
    good = {"timeUnixNano": NANOS, "body": {"stringValue": "m" * 200}}
    path.write_text(request(*[good] * 8192) + "\n")
    assert path.stat().st_size > 1 << 21
    (batch,) = read(path, format_named("otlp"), latest=AT + timedelta(days=1))
    assert (len(batch.records), batch.lines, batch.rejects) == (8192, 1, [])
