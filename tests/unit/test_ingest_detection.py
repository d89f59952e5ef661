"""Which file is in which format, by its first lines."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mllib.errors import BadInput
from mllib.ingest import detect, format_named, formats

BGL = "1117838570 2005.06.03 R02-M1 2005-06-03-15.42.50.675872 R02-M1"
THUNDERBIRD = "1131566461 2005.11.09 dn228 Nov 9 12:01:01"
WEB = '10.1.2.3 - ann [12/Mar/2031:10:15:32 +0200] "GET /cart?a=1 HTTP/1.1" 200 512 "-" "curl/8.5"'

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
