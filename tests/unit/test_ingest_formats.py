"""Every log format: what becomes of a line, what is refused and why, and which file is whose."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from mllib.errors import BadInput
from mllib.ingest import detect, format_named, formats
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


LOGHUB = [
    ("Android", "LineId,Date,Time,Level,Component,Content", "1,03-17,16:13:38.811,D,c,m", "2017-03-17T16:13:38.811Z"),
    ("OpenSSH", "LineId,Date,Day,Time,Component,Pid,Content", "1,Dec,10,06:55:46,c,2,m", "2017-12-10T06:55:46Z"),
    ("Mac", "LineId,Month,Date,Time,User,Component,Content", "1,Jul,1,09:00:55,u,c,m", "2017-07-01T09:00:55Z"),
    ("Proxifier", "LineId,Time,Program,Content", "1,10.30 16:49:06,c,m", "2017-10-30T16:49:06Z"),
    ("Apache", "LineId,Time,Level,Content", "1,Sun Dec 04 04:47:44 2005,error,m", "2005-12-04T04:47:44Z"),
    ("HDFS", "LineId,Date,Time,Pid,Level,Component,Content", "1,081109,203615,148,I,c,m", "2008-11-09T20:36:15Z"),
    ("HPC", "LineId,Node,Component,Time,Content", "1,n,c,1077804742,m", "2004-02-26T14:12:22Z"),
    (
        "Hadoop",
        "LineId,Date,Time,Level,Component,Content",
        '1,2015-10-18,"18:01:47,978",I,c,m',
        "2015-10-18T18:01:47.978Z",
    ),
    ("Spark", "LineId,Date,Time,Level,Component,Content", "1,17/06/09,20:10:40,I,c,m", "2017-06-09T20:10:40Z"),
    ("HealthApp", "LineId,Time,Component,Pid,Content", "1,20171223-22:15:29:606,c,3,m", "2017-12-23T22:15:29.606Z"),
    ("BGL", "LineId,Label,Timestamp,Date,Time,Component,Content", "1,-,1117838570,d,t,c,m", "2005-06-03T22:42:50Z"),
]


@pytest.mark.parametrize(("system", "header", "row", "ts"), LOGHUB, ids=[system for system, *_ in LOGHUB])
def test_the_date_columns_of_each_loghub_system(system: str, header: str, row: str, ts: str) -> None:
    found = parse("loghub_csv", header, row, options=ParseOptions(year=2017))
    assert found is not None
    assert (found.ts, found.source_id, found.message) == (datetime.fromisoformat(ts), "1", "m")
    assert found.service == ("c" if "Component" in header or "Program" in header else None)


def test_the_columns_of_a_labelled_loghub_file() -> None:
    header = "LineId,Label,Timestamp,Node,Component,Level,Content,EventId"
    found = parse("loghub_csv", header, '9,KERNDTLB,1117838570,R02,KERNEL,FATAL,"a ""b"", c",E1')
    assert found == record(
        "2005-06-03T22:42:50Z",
        'a "b", c',
        source_id="9",
        level="FATAL",
        service="KERNEL",
        host="R02",
        label="1",
        attributes={"EventId": "E1", "alert": "KERNDTLB"},
    )


def test_the_level_of_a_loghub_linux_file_is_the_host() -> None:
    header = "LineId,Month,Date,Time,Level,Component,PID,Content"
    found = parse("loghub_csv", header, "1,Jun,14,15:16:01,combo,sshd,19939,m", options=ParseOptions(year=2005))
    expected = {"source_id": "1", "service": "sshd", "host": "combo", "attributes": {"PID": "19939"}}
    assert found == record("2005-06-14T15:16:01Z", "m", **expected)


def test_a_missing_year_is_refused_unless_given_and_turns_with_january() -> None:
    header = "LineId,Date,Time,Content"
    with pytest.raises(Refused, match="no year: say that of the first line with --year"):
        parse("loghub_csv", header, "1,12-31,23:59:59,m")
    parser = format_named("loghub_csv").parser(ParseOptions(year=2016))
    records = [parser(line) for line in (header, "1,12-31,23:59:59,m", "2,01-01,00:00:00,m", "3,12-31,23:59:59,late")]
    assert [found.ts.year for found in records if found] == [2016, 2017, 2016]


@pytest.mark.parametrize("row", ["1,12-31,23:59:59,m,extra", "1,12-31", "1,02-30,10:00:00,m", "1,31-31,10:00:00,m"])
def test_a_row_that_does_not_fit_the_header_is_refused(row: str) -> None:
    with pytest.raises(Refused, match=r"fields where the header has 4|cannot be read"):
        parse("loghub_csv", "LineId,Date,Time,Content", row, options=ParseOptions(year=2016))


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


SAMPLES = {
    "bgl": f"- {BGL} RAS KERNEL INFO ok\nX {BGL} RAS KERNEL FATAL bad\n",
    "hdfs": "081109 203518 143 INFO dfs.X: m\n081109 203519 143 WARN dfs.X: m\n",
    "combined": f"{WEB}\n{WEB} 0.1\n",
    "jsonl": '{"ts": 1925089445, "msg": "a, b"}\n{"ts": 1925089446, "msg": "c"}\n',
    "loghub_csv": "LineId,Time,Content\n1,10.30 16:49:06,m\n",
    "logfmt": 'ts=2031-01-02T03:04:05Z level=info msg="a, b" n=1\ntime=1925089446 msg=c\n',
    "syslog_rfc3164": "<34>Feb 29 22:14:15 web-1 su[1]: m\nOct  1 22:14:15 web-1 kernel: n\n",
    "syslog_rfc5424": "<165>1 2031-10-11T22:14:15Z web-1 shop 1 ID47 - m\n1 2031-10-11T22:14:15Z web-1 shop - - - m\n",
    "docker": '{"log":"a\\n","stream":"stdout","time":"2031-01-02T03:04:05.1Z"}\n'
    "2031-01-02T03:04:05.000000006Z stderr P b\n",
    "otlp": '{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1925089445000000000"}]}]}]}\n' * 2,
}

MORE_SAMPLES = [
    ("syslog_rfc3164", "2031-10-11T22:14:15.003+02:00 web-1 sshd[4711]: m\n"),
    ("syslog_rfc3164", "Oct 11 22:14:15 web-1 a=1 b=2 msg=m\n"),
    ("docker", "2031-01-02T03:04:05.000000006Z stdout F web: level=info msg=m\n"),
    (
        "docker",
        '{"log":"{\\"ts\\": 1925089445, \\"msg\\": \\"a\\"}\\n","stream":"stdout","time":"2031-01-02T03:04:05Z"}\n',
    ),
    ("jsonl", '{"time":"2031-01-02T03:04:05Z","log":"m","stream":"stdout","level":"info"}\n'),
    ("otlp", '{"resourceLogs": [{"filler": "' + "x" * 600_000 + '"}]}\n'),
]


@pytest.mark.parametrize("name", SAMPLES)
def test_each_format_is_detected_among_all(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("\n\n" + SAMPLES[name])
    assert detect(path).name == name
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + SAMPLES[name].replace("\n", "\r\n").encode()))
    assert detect(path).name == name
    lines = SAMPLES[name].splitlines()
    rivals = {
        other: format.sniff(lines) for other, format in formats().items() if format.parser is not formats()[name].parser
    }
    assert formats()[name].sniff(lines) == 1.0
    assert max(rivals.values()) == 0.0


@pytest.mark.parametrize(("name", "sample"), MORE_SAMPLES)
def test_what_looks_like_several_formats_is_taken_for_the_right_one(name: str, sample: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(sample)
    assert detect(path).name == name


def test_thunderbird_is_another_name_for_bgl(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(f"- {THUNDERBIRD} dn228/dn228 crond[2915]: m\n")
    assert detect(path).name == "bgl"
    assert formats()["thunderbird"].parser is formats()["bgl"].parser


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"known: bgl, thunderbird, .*It has no readable line. Say which it is with --format"),
        ("hello\nworld\n", r"known: .*syslog_rfc5424\. Say which it is with --format"),
        ('{"when": 1}\n', r"The nearest is jsonl \(40% sure\). Say which it is with --format"),
    ],
)
def test_an_unknown_format_is_said_to_be_so(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(BadInput, match=complaint):
        detect(path)


def test_an_unknown_name_lists_the_formats() -> None:
    with pytest.raises(
        BadInput,
        match=r"no log format named 'blg'\. Known: bgl, thunderbird, cicflowmeter, combined, docker, hdfs, jsonl, logf",
    ):
        format_named("blg")
