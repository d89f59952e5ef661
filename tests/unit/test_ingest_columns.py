"""Lines read by the column are what the line parser makes of them: the same records, rejects, blanks and numbers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mllib.ingest import format_named, formats
from mllib.ingest.base import ParseOptions
from mllib.ingest.json_columns import MAX_KEYS
from mllib.ingest.reader import Batch, Part, read
from mllib.ingest.stream import BLOCK, OTHER_ARCHIVES, PACKED
from mllib.sources import LOGS
from mllib.store.records import writer

LATEST = datetime(2032, 1, 1, tzinfo=UTC)
STAMP = "2005.06.03 R02-M1 2005-06-03-15.42.50.675872 R02-M1"
USUAL = {
    "bgl": [
        f"- 1117838570 {STAMP} RAS KERNEL INFO instruction  cache error ",
        f"KERNDTLB 1117838571 {STAMP} RAS APP FATAL",
    ],
    "hdfs": [
        "081109 203518 143 INFO dfs.DataNode$PacketResponder: Responder 1 for blk_-16 and blk_17 ending",
        "081109 203519 0 WARN dfs::X: ",
    ],
    "jsonl": [
        '{"ts": "2031-01-02T03:04:05.25Z", "id": 7, "service": "shop", "host": "", "level": "INFO", "message": "é hi",'
        ' "response_time_ms": 0.0000001, "status_code": 503, "trace_id": null, "label": 1, "n": -3, "x": "y z",'
        ' "none": null, "yes": true, "share": 0.25, "status": "odd"}',
        '{"ts": "2031-01-02T03:04:05+00:00", "id": "a", "service": "shop", "host": "h", "level": null, "message": "",'
        ' "response_time_ms": null, "status_code": null, "trace_id": "t", "label": "leak", "n": 0, "x": 1.0,'
        ' "none": "null", "yes": false, "share": -12.5, "status": "200"}',
    ],
}
"""By format, lines that must not need the line parser."""
ODD = {
    "bgl": [
        "",
        " \t",
        "\r",
        f"- 1117838570 {STAMP} RAS KERNEL INFO",
        f"- 1117838570 {STAMP} RAS KERNEL INFO ",
        f"- 1117838570 {STAMP} NULL KERNEL INFO m",
        f"- 1117838570 {STAMP} RAS KERNEL",
        f"- 1117838570 {STAMP} RAS  INFO m",
        f"- 1117838570 {STAMP} RAS KERNEL {'x' * 33} m",
        f"- 1117838570 {STAMP} RAS {'x' * 257} INFO m",
        f"- 1117838570 {STAMP} RAS {'é' * 200} INFO m",
        f'A"B 1117838570 {STAMP} RAS KERNEL INFO m',
        f"- +117838570 {STAMP} RAS KERNEL INFO m",
        f"- 1_17838570 {STAMP} RAS KERNEL INFO m",
        f"- 9999999999 {STAMP} RAS KERNEL INFO m",
        f"- 0000000001 {STAMP} RAS KERNEL INFO m",
        f"- ١١١٧٨٣٨٥٧٠ {STAMP} RAS KERNEL INFO m",
        "- 1117838570 2005.06.03  2005-06-03-15.42.50.675872  RAS KERNEL INFO m",
        "- 1117838570 2005.06.03 n 2005-06-03-15.42.50.+75872 n RAS KERNEL INFO m",
        "- 1117838570 2005.06.03 n 2005-06-03-15.42.50.6758 n RAS KERNEL INFO m",
        "- 1131566461 2005.11.09 dn228 Nov 9 12:01:01 dn228/dn228 crond[2915]: m",
    ],
    "hdfs": [
        "",
        "081109 203518 143 INFO",
        "081109 203518 143 INFO dfs.X:",
        "081109 203518 143 INFO dfs.X m: blk_1",
        "081109 203518 143  dfs.X: m",
        "081109 203518 143 INFO : m",
        "081109 203518 x INFO dfs.X: m",
        "081309 203518 143 INFO dfs.X: m",
        "080229 203518 143 INFO dfs.X: m",
        "090229 203518 143 INFO dfs.X: m",
        "081109 240000 143 INFO dfs.X: m",
        "081109 203560 143 INFO dfs.X: m",
        "990101 000000 143 INFO dfs.X: m",
        "081109 203518 143 INFO dfs.X: blk_1\u0663 é",
        "081109 203518 143 INFO dfs.X: blk_123456789012345678901234 blk_-",
        f"081109 203518 143 INFO {'x' * 257}: m",
        f"081109 203518 143 {'x' * 33} dfs.X: m",
    ],
    "jsonl": [
        "",
        "{}",
        "[1]",
        USUAL["jsonl"][0].replace("shop", 'a\\"b'),
        USUAL["jsonl"][0].replace("shop", "\\ud800"),
        USUAL["jsonl"][0].replace("shop", "x" * 257),
        USUAL["jsonl"][0].replace("shop", "é" * 200),
        USUAL["jsonl"][0].replace('"n": -3', '"n": -0'),
        USUAL["jsonl"][0].replace('"n": -3', '"n": 1.50'),
        USUAL["jsonl"][0].replace('"n": -3', '"n": 0.00001'),
        USUAL["jsonl"][0].replace('"n": -3', '"n": 1e5'),
        USUAL["jsonl"][0].replace('"n": -3', '"n": 123456789.0625'),
        USUAL["jsonl"][0].replace('"n": -3', '"n": [1]'),
        USUAL["jsonl"][0].replace('"n": -3', '"n": -3, "n": 4'),
        USUAL["jsonl"][0].replace('"n": -3', '"n": 007'),
        USUAL["jsonl"][0].replace('"id": 7', '"id": " "'),
        USUAL["jsonl"][0].replace("503", "1000"),
        USUAL["jsonl"][0].replace("503", "503.0"),
        USUAL["jsonl"][0].replace('"label": 1', '"label": " leak "'),
        USUAL["jsonl"][0].replace('"label": 1', '"label": true'),
        USUAL["jsonl"][0].replace('"label": 1', '"label": ""'),
        USUAL["jsonl"][0].replace("é hi", "tab\there"),
        USUAL["jsonl"][0].replace("0.0000001", "99999999999.999999999999"),
        USUAL["jsonl"][0].replace("0.0000001", "-1"),
        *(
            USUAL["jsonl"][0].replace("2031-01-02T03:04:05.25Z", ts)
            for ts in (
                *("2031-02-29T03:04:05Z", "2031-01-02T03:04:60Z", "2031-01-02T24:00:00Z", "2031-01-02T03:04:05"),
                *("2031-01-02T03:04:05.123456+00:00", "2031-01-02T03:04:05.1234567Z", "2031-01-02T03:04:05+01:00"),
                *("2032-01-01T00:00:00Z", "1999-12-31T23:59:59.999999Z", "0000-01-01T00:00:00Z", "1925089445"),
            )
        ),
        '{"ts":"2031-01-02T03:04:05Z","msg":"other keys"}',
        '{"time":"2031-01-02T03:04:05Z","ts":"2031-01-02T03:04:06Z","msg":"m","message":"n"}',
        '{"ts":"2031-01-02T03:04:05Z","msg":"m","a+b":1}',
    ],
}
BYTES = [b"\0", b"\xff", b"\r", b"\n", b"\x1c", b"\x85", b" ", b'"', b"\\", b"\xc2\xa0", b"\xed\xa0\x80", b"x" * 150]


def outcome(batches: Sequence[Batch]) -> list[Any]:
    return [(batch.records, batch.rejects, batch.blanks, batch.lines) for batch in batches]


def both_ways(path: Path, name: str, **arguments: Any) -> tuple[list[Batch], list[Batch]]:
    """What becomes of a file by the column, and by the line alone."""
    format = format_named(name)
    by_column, by_line = (
        list(read(path, way, **{"latest": LATEST, **arguments})) for way in (format, replace(format, columns=None))
    )
    assert outcome(by_column) == outcome(by_line)
    return by_column, by_line


def test_the_formats_that_read_by_the_column_are_those_tested_here() -> None:
    assert {format.name for format in formats().values() if format.columns} == {*USUAL, "thunderbird"}


@pytest.mark.parametrize("name", USUAL)
def test_usual_lines_need_no_line_parser(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("\n".join(USUAL[name] * 50) + "\n", newline="\n")
    ((batch,), _) = both_ways(path, name)
    assert (sum(map(len, batch.columns)), batch.parsed) == (100, [])
    path.write_text("\n".join(USUAL[name] * 50), newline="\r\n")
    ((batch,), _) = both_ways(path, name)
    assert (sum(map(len, batch.columns)), batch.parsed) == (100, [])


@pytest.mark.parametrize("name", USUAL)
def test_odd_lines_among_usual_ones_come_out_as_they_always_did(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    content = "\n".join(line for odd in ODD[name] for line in (*USUAL[name], odd, USUAL[name][0])).encode()
    for end in (b"", b"\n"):
        path.write_bytes(b"\xef\xbb\xbf" + content + end)
        (batch,), _ = both_ways(path, name)
        assert batch.parsed
        assert batch.columns
        assert batch.rejects
        for rows in (1, 2, 7):
            both_ways(path, name, batch_rows=rows, max_line_bytes=400)


@pytest.mark.parametrize("name", USUAL)
def test_odd_lines_alone_come_out_as_they_always_did(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    for odd in [*ODD[name], '{"ts": 1925089445, "message": "m"}']:
        path.write_text(odd + "\n", newline="\n")
        both_ways(path, name)


@st.composite
def nasty(draw: st.DrawFn, name: str) -> bytes:
    """A line with pieces of it taken out or replaced."""
    line = draw(st.sampled_from(USUAL[name] * 3 + ODD[name])).encode()
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(line)))
        other = st.one_of(st.binary(max_size=3), st.sampled_from(BYTES), st.text(max_size=2).map(_bytes))
        line = line[:at] + draw(other) + line[at + draw(st.integers(0, 4)) :]
    return line


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", USUAL)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_lines_come_out_as_the_line_parser_reads_them(name: str, data: st.DataObject, tmp_path: Path) -> None:
    lines = data.draw(st.lists(nasty(name), max_size=12))
    content = data.draw(st.sampled_from([b"\n", b"\r\n"])).join(lines)
    packed = data.draw(st.booleans())
    assume(packed or not content.startswith((*PACKED, *OTHER_ARCHIVES)))
    path = tmp_path / "x.log"
    path.write_bytes(gzip.compress(content) if packed else content)
    start = data.draw(st.integers(0, len(content)))
    zone = data.draw(st.sampled_from([UTC, timezone(timedelta(hours=2))]))
    both_ways(
        path,
        name,
        options=ParseOptions(timezone=zone),
        part=Part(start=start, lines_before=3, midline=bool(start)),
        batch_rows=data.draw(st.integers(1, 5)),
        max_line_bytes=data.draw(st.sampled_from([None, 100, 300])),
    )


def test_json_keys_that_are_named_count_by_the_column_too(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    line = '{"when": "2031-01-02T03:04:05Z", "level": "text", "msg": "m", "ts": 5}'
    path.write_text(f"{line}\n" * 3)
    ((batch,), _) = both_ways(path, "jsonl", options=ParseOptions(keys={"ts": "when", "message": "level"}))
    assert sum(map(len, batch.columns)) == 3
    assert batch.records[0][1].message == "text"


def test_json_lines_are_read_by_the_keys_that_most_have_now(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    one, other = ('{"ts": "2031-01-02T03:04:05Z", "message": "%s"}', '{"msg": "%s", "ts": "2031-01-02T03:04:05Z"}')
    path.write_text("".join(line % ("m" * 200) + "\n" for line in [one] * 6000 + [other] * 12000))
    assert path.stat().st_size > 4 * BLOCK
    by_column, _ = both_ways(path, "jsonl")
    assert sum(len(rows) for batch in by_column for rows in batch.columns) > 14_000


def test_lines_that_need_the_parser_are_tried_again_later(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    odd = '{"ts": "2031-01-02T03:04:05Z", "message": "%s", "n": [1]}' % ("m" * 100_000)
    path.write_text((odd + "\n") * 50 + (odd.replace("[1]", "1") + "\n") * 100)
    assert path.stat().st_size > 14 * BLOCK
    by_column, _ = both_ways(path, "jsonl")
    assert 40 < sum(len(rows) for batch in by_column for rows in batch.columns) < 100


@pytest.mark.parametrize("keys", [MAX_KEYS, MAX_KEYS + 1])
def test_json_lines_with_many_keys(tmp_path: Path, keys: int) -> None:
    path = tmp_path / "x.log"
    many = {f"key.{number}": number for number in range(keys - 2)}
    path.write_text(json.dumps({"ts": "2031-01-02T03:04:05Z", "message": "m", **many}) + "\n")
    ((batch,), _) = both_ways(path, "jsonl")
    assert len(batch.columns) == (keys == MAX_KEYS)


@pytest.mark.parametrize("name", USUAL)
def test_the_rows_for_the_database_are_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("\n".join([*USUAL[name], *ODD[name]] * 3), newline="\n")
    by_column, by_line = both_ways(path, name, batch_rows=10)
    found, expected = (
        pl.concat(writer(LOGS).rows(batch) for batch in batches if batch.records) for batches in (by_column, by_line)
    )
    assert_frame_equal(found, expected)
