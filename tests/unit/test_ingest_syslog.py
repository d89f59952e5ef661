"""Syslog of both kinds: what a line becomes, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mllib.ingest import format_named
from mllib.ingest.base import LogRecord, ParseOptions, Refused

OLD, NEW = "syslog_rfc3164", "syslog_rfc5424"
AT = datetime(2031, 10, 11, 22, 14, 15, tzinfo=UTC)


def record(message: str, ts: datetime = AT, **fields: object) -> LogRecord:
    empty: dict[str, object] = dict.fromkeys(LogRecord._fields)
    return LogRecord(**{**empty, "ts": ts, "message": message, "host": "web-1", **fields})  # type: ignore[arg-type]


def parse(name: str, line: str, **options: object) -> object:
    return format_named(name).parser(ParseOptions(**{"year": 2031, **options}))(line)  # type: ignore[arg-type]


LINES = [
    (
        OLD,
        "<34>Oct 11 22:14:15 web-1 sshd[4711]: Failed password: root",
        record("Failed password: root", level="CRIT", service="sshd", attributes={"facility": "auth", "pid": "4711"}),
    ),
    (OLD, "Oct 11 22:14:15 web-1 kernel: [ 1.2] up", record("[ 1.2] up", service="kernel")),
    (OLD, "Oct 11 22:14:15 web-1 last message repeated", record("last message repeated")),
    (OLD, "Oct  1 22:14:15 web-1 a: m", record("m", AT.replace(day=1), service="a")),
    (OLD, "Oct 11 22:14:15.25 web-1 a: m", record("m", AT + timedelta(milliseconds=250), service="a")),
    (OLD, "Oct 11 2029 22:14:15 web-1 a: m", record("m", AT.replace(year=2029), service="a")),
    (
        OLD,
        "<191>2031-10-12T00:14:15.5+02:00 web-1 postfix/smtp[7]: m",
        record(
            "m",
            AT + timedelta(milliseconds=500),
            level="DEBUG",
            service="postfix/smtp",
            attributes={"facility": "local7", "pid": "7"},
        ),
    ),
    (
        NEW,
        '<165>1 2031-10-11T22:14:15.003Z web-1 shop 4711 ID47 [a@1 x="1" y="q\\"\\]"][b] \ufefforder  stored',
        record(
            "order  stored",
            AT + timedelta(milliseconds=3),
            level="NOTICE",
            service="shop",
            attributes={
                "facility": "local4",
                "pid": "4711",
                "msgid": "ID47",
                "structured_data": {"a@1": {"x": "1", "y": 'q"]'}, "b": {}},
            },
        ),
    ),
    (NEW, "1 2031-10-11T22:14:15Z - - - - -", record("", host=None)),
    (NEW, "<0>1 2031-10-11T22:14:15Z web-1 - - - - m", record("m", level="EMERG", attributes={"facility": "kern"})),
]


@pytest.mark.parametrize(("name", "line", "expected"), LINES)
def test_what_a_line_becomes(name: str, line: str, expected: LogRecord) -> None:
    assert parse(name, line) == expected


REFUSED = [
    (OLD, "Oct 11 22:14 web-1 a: m", "not a syslog line as of RFC 3164"),
    (OLD, "<192>Oct 11 22:14:15 web-1 a: m", "the priority 192 is more than 191"),
    (OLD, "Foo 11 22:14:15 web-1 a: m", "the time stamp 'Foo 11 22:14:15' cannot be read"),
    (OLD, "Feb 30 22:14:15 web-1 a: m", "cannot be read"),
    (OLD, "2031-10-11T22:14:15Z stdout F m", "not a syslog line as of RFC 3164"),
    (OLD, "2031-10-11T99:14:15Z web-1 a: m", "cannot be read"),
    (NEW, "<165>1 - web-1 shop 1 ID47 - m", "no time stamp"),
    (NEW, "<165>2 2031-10-11T22:14:15Z web-1 shop 1 ID47 - m", "not a syslog line as of RFC 5424"),
    (NEW, "<165>1 2031-10-11T22:14:15Z web-1 shop 1 ID47 [a m", "not a syslog line as of RFC 5424"),
    (NEW, "<165>1 2031-10-11T22:14:15Z web-1 shop 1 ID47 [a b] m", "structured data cannot be read"),
    (NEW, "<900>1 2031-10-11T22:14:15Z web-1 shop 1 ID47 - m", "the priority 900"),
]


@pytest.mark.parametrize(("name", "line", "reason"), REFUSED)
def test_what_is_refused(name: str, line: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        parse(name, line)


def test_without_a_year_only_full_time_stamps_are_read() -> None:
    with pytest.raises(Refused, match="no year: say that of the first line with --year"):
        parse(OLD, "Oct 11 22:14:15 web-1 a: m", year=None)
    assert parse(OLD, "2031-10-11T22:14:15Z web-1 a: m", year=None) == record("m", service="a")


def test_the_year_turns_with_january_and_a_late_line_of_december_is_of_the_year_before() -> None:
    parser = format_named(OLD).parser(ParseOptions(year=2031))
    lines = [
        f"{stamp} web-1 a: m" for stamp in ("Dec 31 23:59:59", "Jan  1 00:00:00", "Dec 31 23:59:58", "Jan  2 00:00:00")
    ]
    assert [found.ts.year for line in lines if isinstance(found := parser(line), LogRecord)] == [2031, 2032, 2031, 2032]


def test_times_are_in_the_zone_given() -> None:
    zone = timezone(timedelta(hours=2))
    for line in ("Oct 12 00:14:15 web-1 a: m", "2031-10-12T00:14:15 web-1 a: m"):
        assert parse(OLD, line, timezone=zone) == record("m", service="a")
