"""Every log format: what becomes of a line, what is refused and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mllib.errors import BadInput
from mllib.ingest import format_named
from mllib.ingest.base import LogRecord, ParseOptions, Refused


def record(ts: str, message: str, **fields: object) -> LogRecord:
    empty: dict[str, object] = dict.fromkeys(LogRecord._fields)
    return LogRecord(**{**empty, "ts": datetime.fromisoformat(ts), "message": message, **fields})  # type: ignore[arg-type]


def parse(name: str, *lines: str, options: ParseOptions | None = None) -> LogRecord | None:
    """What the last of the lines becomes."""
    parser = format_named(name).parser(options or ParseOptions())
    return [parser(line) for line in lines][-1]


BGL = "1117838570 2005.06.03 R02-M1 2005-06-03-15.42.50.675872 R02-M1"
THUNDERBIRD = "1131566461 2005.11.09 dn228 Nov 9 12:01:01"
WEB = '10.1.2.3 - ann [12/Mar/2031:10:15:32 +0200] "GET /cart?a=1 HTTP/1.1" 200 512 "-" "curl/8.5"'
WEB_ATTRIBUTES = {"client": "10.1.2.3", "user": "ann", "agent": "curl/8.5", "bytes": 512}

LINES = [
    (
        "bgl",
        f"- {BGL} RAS KERNEL INFO parity error  corrected",
        record(
            "2005-06-03T22:42:50.675872Z",
            "parity error  corrected",
            level="INFO",
            service="KERNEL",
            host="R02-M1",
            label="0",
        ),
    ),
    (
        "bgl",
        f"KERNDTLB {BGL} NULL APP FATAL",
        record(
            "2005-06-03T22:42:50.675872Z",
            "",
            level="FATAL",
            service="APP",
            host="R02-M1",
            label="1",
            attributes={"alert": "KERNDTLB", "type": "NULL"},
        ),
    ),
    (
        "bgl",  # the two clocks disagree about the second: the microseconds are not this second's
        "- 1117838571 2005.06.03 R02-M1 2005-06-03-15.42.50.675872 R02-M1 RAS KERNEL INFO ok",
        record("2005-06-03T22:42:51Z", "ok", level="INFO", service="KERNEL", host="R02-M1", label="0"),
    ),
    (
        "thunderbird",
        f"R_EXT {THUNDERBIRD} dn228/dn228 crond(pam_unix)[2915]: session closed: root",
        record(
            "2005-11-09T20:01:01Z",
            "session closed: root",
            service="crond(pam_unix)",
            host="dn228",
            label="1",
            attributes={"location": "dn228/dn228", "alert": "R_EXT", "pid": "2915"},
        ),
    ),
    (
        "thunderbird",
        f"- {THUNDERBIRD} src@dn228 no program named: here",
        record(
            "2005-11-09T20:01:01Z",
            "no program named: here",
            host="dn228",
            label="0",
            attributes={"location": "src@dn228"},
        ),
    ),
    (
        "hdfs",
        "081109 203518 143 INFO dfs.DataNode$PacketResponder: Responder 1 for blk_-16 and blk_17 ending",
        record(
            "2008-11-09T20:35:18Z",
            "Responder 1 for blk_-16 and blk_17 ending",
            level="INFO",
            service="dfs.DataNode$PacketResponder",
            trace_id="blk_-16",
            attributes={"pid": "143"},
        ),
    ),
    (
        "combined",
        WEB,
        record("2031-03-12T08:15:32Z", "GET /cart?a=1 HTTP/1.1", status_code=200, attributes=WEB_ATTRIBUTES),
    ),
    (
        "combined",  # nginx: seconds
        f"{WEB} 0.042",
        record(
            "2031-03-12T08:15:32Z",
            "GET /cart?a=1 HTTP/1.1",
            status_code=200,
            response_time_ms=42.0,
            attributes=WEB_ATTRIBUTES,
        ),
    ),
    (
        "combined",  # Apache: microseconds
        f'{WEB} "shop.example" 42000',
        record(
            "2031-03-12T08:15:32Z",
            "GET /cart?a=1 HTTP/1.1",
            status_code=200,
            response_time_ms=42.0,
            attributes={**WEB_ATTRIBUTES, "extra": '"shop.example"'},
        ),
    ),
    (
        "combined",  # something else at the end
        f'{WEB} "10.9.9.9, 10.8.8.8"',
        record(
            "2031-03-12T08:15:32Z",
            "GET /cart?a=1 HTTP/1.1",
            status_code=200,
            attributes={**WEB_ATTRIBUTES, "extra": '"10.9.9.9, 10.8.8.8"'},
        ),
    ),
    (
        "combined",  # the common format, an escaped quote, no size
        r'::1 - - [01/Jan/2031:00:00:00 +0000] "GET /\" HTTP/1.0" 304 -',
        record("2031-01-01T00:00:00Z", r"GET /\" HTTP/1.0", status_code=304, attributes={"client": "::1"}),
    ),
    (
        "combined",  # each line in quotes
        f'"{WEB}"',
        record("2031-03-12T08:15:32Z", "GET /cart?a=1 HTTP/1.1", status_code=200, attributes=WEB_ATTRIBUTES),
    ),
    (
        "jsonl",
        '{"ts": "2031-01-02T03:04:05.6Z", "id": "a1", "level": "WARN", "service": "cart", "host": "h1",'
        ' "message": "hi", "response_time_ms": 1.5, "status_code": 503, "trace_id": "t", "label": 1}',
        LogRecord(
            datetime(2031, 1, 2, 3, 4, 5, 600000, UTC), "a1", "WARN", "cart", "h1", "hi", 1.5, 503, "t", None, "1"
        ),
    ),
    (
        "jsonl",
        '{"@timestamp": "2031-01-02 03:04:05,6+01:00", "log": "hi\\n", "severity": "info",'
        ' "logger": "cart", "hostname": "h1", "duration_ms": "12", "status": "404",'
        ' "stream": "stdout", "id": 7, "label": false}',
        record(
            "2031-01-02T02:04:05.6Z",
            "hi",
            source_id="7",
            level="info",
            service="cart",
            host="h1",
            label="0",
            response_time_ms=12.0,
            status_code=404,
            attributes={"stream": "stdout"},
        ),
    ),
    ("jsonl", '{"time": 1925089445, "msg": "s"}', record("2031-01-02T03:04:05Z", "s")),
    ("jsonl", '{"time": 1925089445678, "msg": "ms"}', record("2031-01-02T03:04:05.678Z", "ms")),
    ("jsonl", '{"time": "1925089445.5", "msg": "text"}', record("2031-01-02T03:04:05.5Z", "text")),
    ("jsonl", '{"time": 1925089445678901234, "msg": "ns"}', record("2031-01-02T03:04:05.678901Z", "ns")),
    (
        "jsonl",  # numbers that are none are kept as they were; JSON has no NaN and no infinity
        '{"ts": 1925089445, "message": "", "response_time_ms": NaN, "status_code": 1000, "x": [1e999, -Infinity]}',
        record(
            "2031-01-02T03:04:05Z",
            "",
            attributes={"response_time_ms": "NaN", "status_code": 1000, "x": ["1e999", "-Infinity"]},
        ),
    ),
    (
        "jsonl",
        '{"ts": 1925089445, "message": {"a": "\\u00e9"}, "latency_ms": -1, "host": {"name": "h"}, "service": "",'
        ' "level": 30, "label": "leak", "trace_id": null}',
        record(
            "2031-01-02T03:04:05Z",
            '{"a": "é"}',
            level="30",
            label="leak",
            attributes={"response_time_ms": -1, "host": {"name": "h"}},
        ),
    ),
    (
        "jsonl",  # an escaped backslash before u0000 is no NUL, and a whole surrogate pair is a character
        '{"ts": 1925089445, "message": "\\\\u0000 \\ud83d\\ude00"}',
        record("2031-01-02T03:04:05Z", "\\u0000 \N{GRINNING FACE}"),
    ),
]


@pytest.mark.parametrize(("name", "line", "expected"), LINES, ids=[f"{name}-{n}" for n, (name, *_) in enumerate(LINES)])
def test_a_line_becomes_this_record(name: str, line: str, expected: LogRecord) -> None:
    found = parse(name, line)
    assert found == expected
    assert found is not None
    assert found.ts.tzinfo is UTC


REFUSED = [
    ("bgl", "- 1117838570 2005.06.03", "3 fields where a BGL or Thunderbird line has at least 8"),
    ("bgl", "a b c d e f g h i", "the third field is no date such as 2005.06.03"),
    ("bgl", f"- {BGL} RAS KERNEL", "the line ends before its level"),
    ("bgl", f"- x{BGL} RAS KERNEL INFO ok", "the time stamp 'x1117838570' cannot be read"),
    ("bgl", f"- {10**40} {BGL[11:]} RAS KERNEL INFO ok", f"the time stamp '1{'0' * 39}' cannot be read"),
    ("thunderbird", f"- {THUNDERBIRD} dn228/dn228", "the line ends before its message"),
    ("hdfs", "081109 203518 143 INFO", "4 fields where an HDFS line has 6"),
    ("hdfs", "081309 203518 143 INFO dfs.X: m", "the time stamp '081309 203518' cannot be read"),
    ("hdfs", "081109 203518 143 INFO dfs.X m", "the fifth field, the component, does not end in a colon"),
    ("combined", "GET /", "not an access log line in the combined or common format"),
    ("combined", WEB.replace("Mar", "Mrz"), "the time stamp '12/Mrz/2031:10:15:32 +0200' cannot be read"),
    ("combined", WEB.replace("+0200", "+9900"), "the time stamp '12/Mar/2031:10:15:32 +9900' cannot be read"),
    ("jsonl", "{", "the line is not JSON"),
    ("jsonl", '{"ts": ' + "9" * 5000 + "}", "the line is not JSON"),
    ("jsonl", "[" * 100_000, "the JSON is nested too deeply"),
    ("jsonl", "[1]", "the line is JSON, but no object"),
    ("jsonl", '{"message": "m"}', "no time stamp under any of the keys ts, timestamp, time, @timestamp"),
    ("jsonl", '{"ts": 1925089445}', "no message under any of the keys message, msg, log"),
    ("jsonl", '{"ts": "soon", "msg": "m"}', "the time stamp 'soon' cannot be read"),
    ("jsonl", '{"ts": true, "msg": "m"}', "the time stamp 'True' cannot be read"),
    ("jsonl", '{"ts": NaN, "msg": "m"}', "the time stamp 'NaN' cannot be read"),
    ("jsonl", f'{{"ts": {10**400}, "msg": "m"}}', f"the time stamp '1{'0' * 39}' cannot be read"),
    (
        "jsonl",
        '{"ts": "0001-01-01T00:00+14:00", "msg": "m"}',
        "the time stamp '0001-01-01T00:00+14:00' cannot be read",
    ),
    ("jsonl", '{"ts": 1925089445, "msg": "\\u0000"}', "the line holds an escaped NUL character"),
    ("jsonl", '{"ts": 1925089445, "msg": "\\uD83D"}', "the line holds half of an escaped surrogate pair"),
    ("loghub_csv", "a,b", "the first line is no header with the columns Content and Time or Timestamp"),
    ("loghub_csv", '"a', "not a line of CSV, or a quoted field that goes on in the next line"),
]


@pytest.mark.parametrize(
    ("name", "line", "reason"), REFUSED, ids=[f"{name}-{n}" for n, (name, *_) in enumerate(REFUSED)]
)
def test_a_line_is_refused_with_its_reason(name: str, line: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(name, line)
    assert str(refused.value) == reason


def test_times_without_a_zone_are_in_the_zone_given() -> None:
    options = ParseOptions(timezone=timezone(timedelta(hours=2)), year=2016)
    lines = {
        "jsonl": ['{"ts": "2016-05-01 12:00:00", "message": "m"}'],
        "hdfs": ["160501 120000 1 INFO c: m"],
        "loghub_csv": ["Date,Time,Content", "05-01,12:00:00,m"],
    }
    for name, text in lines.items():
        found = parse(name, *text, options=options)
        assert found is not None
        assert found.ts == datetime(2016, 5, 1, 10, tzinfo=UTC), name


def test_json_keys_can_be_named() -> None:
    options = ParseOptions(keys={"ts": "when", "message": "what"})
    found = parse("jsonl", '{"when": 1925089445, "ts": 5, "what": "a", "msg": "b"}', options=options)
    assert found == record("2031-01-02T03:04:05Z", "a", attributes={"ts": 5, "msg": "b"})
    with pytest.raises(BadInput, match="no field 'tz'"):
        parse("jsonl", "{}", options=ParseOptions(keys={"tz": "zone"}))
