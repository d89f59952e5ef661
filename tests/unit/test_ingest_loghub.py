"""The structured CSV files of loghub: their columns and dates, system by system."""

from __future__ import annotations

from datetime import datetime

import pytest

from mllib.ingest import format_named
from mllib.ingest.base import LogRecord, ParseOptions, Refused


def record(ts: str, message: str, **fields: object) -> LogRecord:
    empty: dict[str, object] = dict.fromkeys(LogRecord._fields)
    return LogRecord(**{**empty, "ts": datetime.fromisoformat(ts), "message": message, **fields})  # type: ignore[arg-type]


def parse(header: str, *rows: str, year: int | None = None) -> LogRecord | None:
    """What the last row becomes."""
    parser = format_named("loghub_csv").parser(ParseOptions(year=year))
    return [parser(line) for line in (header, *rows)][-1]


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
    found = parse(header, row, year=2017)
    assert found is not None
    assert (found.ts, found.source_id, found.message) == (datetime.fromisoformat(ts), "1", "m")
    assert found.service == ("c" if "Component" in header or "Program" in header else None)


def test_the_columns_of_a_labelled_loghub_file() -> None:
    header = "LineId,Label,Timestamp,Node,Component,Level,Content,EventId"
    found = parse(header, '9,KERNDTLB,1117838570,R02,KERNEL,FATAL,"a ""b"", c",E1')
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
    found = parse(header, "1,Jun,14,15:16:01,combo,sshd,19939,m", year=2005)
    expected = {"source_id": "1", "service": "sshd", "host": "combo", "attributes": {"PID": "19939"}}
    assert found == record("2005-06-14T15:16:01Z", "m", **expected)


def test_a_missing_year_is_refused_unless_given_and_turns_with_january() -> None:
    header = "LineId,Date,Time,Content"
    with pytest.raises(Refused, match="no year: say that of the first line with --year"):
        parse(header, "1,12-31,23:59:59,m")
    parser = format_named("loghub_csv").parser(ParseOptions(year=2016))
    records = [parser(line) for line in (header, "1,12-31,23:59:59,m", "2,01-01,00:00:00,m", "3,12-31,23:59:59,late")]
    assert [found.ts.year for found in records if found] == [2016, 2017, 2016]


@pytest.mark.parametrize("row", ["1,12-31,23:59:59,m,extra", "1,12-31", "1,02-30,10:00:00,m", "1,31-31,10:00:00,m"])
def test_a_row_that_does_not_fit_the_header_is_refused(row: str) -> None:
    with pytest.raises(Refused, match=r"fields where the header has 4|cannot be read"):
        parse("LineId,Date,Time,Content", row, year=2016)
