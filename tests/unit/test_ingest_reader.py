"""The reader, whatever is in the file: nothing is lost, nothing is made up, nothing is held whole."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mllib.errors import BadInput
from mllib.ingest import format_named, formats
from mllib.ingest.base import FileRefused
from mllib.ingest.reader import Batch, Reject, read, source_name
from mllib.ingest.stream import OTHER_ARCHIVES, PACKED

TS = "2031-01-02T03:04:05Z"
LATEST = datetime(2032, 1, 1, tzinfo=UTC)


def line(message: object = "m", ts: str = TS, more: str = "") -> bytes:
    return f'{{"ts": "{ts}", "message": "{message}"{more}}}'.encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def batches(path: Path, content: bytes, **arguments: Any) -> list[Batch]:
    path.write_bytes(content)
    return list(read(path, format_named("jsonl"), **{"latest": LATEST, **arguments}))


def outcome(path: Path, content: bytes, **arguments: Any) -> tuple[list[tuple[int, str]], list[Reject]]:
    """Line numbers and messages of the records, and the rejects."""
    found = batches(path, content, **arguments)
    records = [(number, record.message) for batch in found for number, record in batch.records]
    return records, [reject for batch in found for reject in batch.rejects]


def test_records_rejects_and_blanks_have_their_physical_line_numbers(path: Path) -> None:
    content = b"\n" + line("a") + b"\r\n  \t\r\n\xff\xfe\n" + line("b") + b"\nno json\r\n\n" + line("c")
    records, rejects = outcome(path, content)
    assert records == [(2, "a"), (5, "b"), (8, "c")]
    assert rejects == [
        Reject(4, content.index(b"\xff"), b"\xff\xfe", "the line is not UTF-8 (byte 1)"),
        Reject(6, content.index(b"no"), b"no json", "the line is not JSON"),
    ]
    (batch,) = batches(path, content)
    assert (batch.lines, batch.blanks) == (8, 3)


def test_a_byte_order_mark_is_no_part_of_the_first_line(path: Path) -> None:
    content = b"\xef\xbb\xbf" + line("a") + b"\nx"
    records, rejects = outcome(path, content)
    assert records == [(1, "a")]
    assert rejects[0].byte_offset == content.index(b"\nx") + 1
    assert outcome(path, b"\xef\xbb\xbf") == ([], [])


def test_an_empty_file_has_no_batch(path: Path) -> None:
    assert batches(path, b"") == []
    assert batches(path, gzip.compress(b"")) == []


def test_nul_bytes_refuse_their_line_only(path: Path) -> None:
    records, rejects = outcome(path, line("a") + b"\n" + line("b\0") + b"\n" + line("é") + b"\n")
    assert records == [(1, "a"), (3, "é")]
    assert [(reject.raw, reject.reason) for reject in rejects] == [
        (line("b\0"), f"the line holds a NUL byte (character {line('b').index(b'b') + 2})")
    ]


@pytest.mark.parametrize(
    ("ts", "latest", "reason"),
    [
        (
            "1999-12-31T23:59:59.999Z",
            LATEST,
            "the time stamp 1999-12-31 23:59:59 is out of bounds: before 2000-01-01 00:00",
        ),
        ("2000-01-01T00:00:00Z", LATEST, None),
        ("2031-12-31T23:59:59.999999Z", LATEST, None),
        (
            "2032-01-01T00:00:00Z",
            LATEST,
            "the time stamp 2032-01-01 00:00:00 is out of bounds: not before 2032-01-01 00:00",
        ),
        ("9999-12-31T23:59:59Z", None, "the time stamp 9999-12-31 23:59:59 is out of bounds: not before "),
        ("1970-01-01T00:00:00Z", None, "the time stamp 1970-01-01 00:00:00 is out of bounds: before 2000-01-01 00:00"),
    ],
)
def test_time_stamps_out_of_bounds_are_rejects(
    path: Path, ts: str, latest: datetime | None, reason: str | None
) -> None:
    records, rejects = outcome(path, line(ts=ts), latest=latest)
    assert len(records) == (reason is None)
    assert [reject.reason.startswith(reason or "-") for reject in rejects] == [True] * (reason is not None)


def test_the_future_begins_a_day_from_now(path: Path) -> None:
    soon, later = (datetime.now(UTC) + timedelta(hours=hours) for hours in (23, 25))
    content = line("soon", ts=soon.isoformat()) + b"\n" + line("later", ts=later.isoformat())
    records, rejects = outcome(path, content, latest=None)
    assert records == [(1, "soon")]
    assert len(rejects) == 1


@pytest.mark.parametrize(
    ("field", "limit"), [("level", 32), ("service", 256), ("host", 256), ("trace_id", 256), ("id", 256), ("label", 256)]
)
def test_a_name_that_is_too_long_refuses_its_line(path: Path, field: str, limit: int) -> None:
    fits, does_not = ("x" * length for length in (limit, limit + 1))
    content = line("a", more=f', "{field}": "{fits}"') + b"\n" + line("b", more=f', "{field}": "{does_not}"')
    records, rejects = outcome(path, content)
    assert records == [(1, "a")]
    name = "source_id" if field == "id" else field
    assert [reject.reason for reject in rejects] == [
        f"the {name} has {limit + 1} characters; at most {limit} are stored"
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_an_overlong_line_is_one_reject_and_the_lines_around_it_are_kept(path: Path, packed: bool) -> None:
    long = line("x" * 1_000_000)
    content = line("a") + b"\n" + long + b"\n" + line("b") + b"\n"
    records, rejects = outcome(path, gzip.compress(content) if packed else content)
    assert records == [(1, "a"), (3, "b")]
    (reject,) = rejects
    assert (reject.line_number, reject.byte_offset, reject.raw) == (2, len(line("a")) + 1, long[: 256 * 1024])
    assert reject.reason == f"the line has {len(long):,} bytes, more than 262,144; the first 262,144 are kept"


@pytest.mark.parametrize("ending", [b"", b"\n"])
@pytest.mark.parametrize("limit", [60, 61, 1000])
def test_the_limit_of_a_line_is_exact(path: Path, ending: bytes, limit: int) -> None:
    content = line("x" * (61 - len(line(""))))
    records, rejects = outcome(path, content + ending, max_line_bytes=limit)
    assert (len(records), len(rejects)) == ((1, 0) if limit >= 61 else (0, 1))


def test_a_file_without_newlines_is_never_held(path: Path) -> None:
    path.write_bytes(gzip.compress(random.Random(1).randbytes(1 << 16).replace(b"\n", b"") * 500))
    tracemalloc.start()
    (batch,) = read(path, format_named("jsonl"), max_line_bytes=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert batch.lines == len(batch.rejects) == 1
    assert len(batch.rejects[0].raw) == 1000
    assert peak < 4 << 20  # of 32 MiB


def test_batches_are_no_larger_than_asked_for(path: Path) -> None:
    content = b"\n".join(line(number) if number % 3 else b"" for number in range(26))
    found = batches(path, content, batch_rows=10)
    assert [batch.lines for batch in found] == [10, 10, 6]
    assert [number for batch in found for number, _ in batch.records] == [n + 1 for n in range(26) if n % 3]


def test_many_long_lines_fill_a_batch_before_it_has_its_rows(path: Path) -> None:
    found = batches(path, (line("x" * 200_000) + b"\n") * 400)
    assert len(found) >= 2
    assert sum(len(batch.records) for batch in found) == 400
    assert max(sum(len(record.message) for _, record in batch.records) for batch in found) < 40 << 20


def numbered(n: int) -> bytes:
    rng = random.Random(3)
    return b"".join(line(f"{number} {rng.random()}") + b"\n" for number in range(n))


def test_a_gzip_file_that_was_cut_off_keeps_its_whole_lines(path: Path) -> None:
    content = numbered(20_000)
    packed = gzip.compress(content)
    records, rejects = outcome(path, packed[: len(packed) // 2])
    assert 5_000 < len(records) < 15_000
    assert [number for number, _ in records] == list(range(1, len(records) + 1))
    (reject,) = rejects
    assert reject.line_number == len(records) + 1
    assert content[reject.byte_offset :].startswith(reject.raw)
    assert content[reject.byte_offset - 1 : reject.byte_offset] == b"\n"
    assert reject.reason == "the gzip data end too early; the file was cut off or is still being written"


def test_a_damaged_gzip_file_keeps_the_lines_before_the_damage(path: Path) -> None:
    packed = bytearray(gzip.compress(numbered(20_000)))
    packed[len(packed) // 2 : len(packed) // 2 + 64] = bytes(64)
    records, rejects = outcome(path, bytes(packed))
    assert len(records) > 5_000
    assert len(rejects) >= 1
    assert "the gzip data are damaged (" in rejects[-1].reason


def test_a_wrong_checksum_loses_no_line(path: Path) -> None:
    packed = bytearray(gzip.compress(numbered(1000)))
    packed[-8] ^= 1
    records, rejects = outcome(path, bytes(packed))
    assert len(records) == 1000
    assert [reject.line_number for reject in rejects] == [1001]
    assert "incorrect data check" in rejects[0].reason


def test_gzip_members_are_joined_and_what_is_none_is_refused(path: Path) -> None:
    two = gzip.compress(line("a")[:5]) + gzip.compress(line("a")[5:] + b"\n")
    assert outcome(path, two) == ([(1, "a")], [])
    assert outcome(path, two + bytes(512)) == ([(1, "a")], [])
    records, rejects = outcome(path, two + b"plain text")
    assert records == [(1, "a")]
    assert [reject.reason.partition(" (")[0] for reject in rejects] == ["other bytes follow"]


def test_a_decompression_bomb_is_one_reject(path: Path) -> None:
    bomb = gzip.compress(line("a") + b"\n") + gzip.compress(bytes(70 << 20))
    records, rejects = outcome(path, bomb)
    assert records == [(1, "a")]
    (reject,) = rejects
    assert "decompression bomb" in reject.reason
    assert len(reject.raw) == 256 * 1024
    records, rejects = outcome(path, gzip.compress(numbered(20_000)), max_bytes=1 << 20)
    assert 5_000 < len(records) < 20_000
    assert [reject.reason for reject in rejects] == ["it unpacks to more than 1,048,576 bytes; the rest was not read"]


def test_what_is_no_readable_file_is_an_error(tmp_path: Path) -> None:
    archive = tmp_path / "logs.zip"
    archive.write_bytes(b"PK\x03\x04rest")
    for wrong, complaint in (
        (tmp_path / "nowhere", "There is no file"),
        (tmp_path, "is not a file"),
        (archive, "logs.zip is a zip archive; only plain text, gzip and Zstandard can be read"),
    ):
        with pytest.raises(BadInput, match=complaint):
            list(read(wrong, format_named("jsonl")))


def test_a_headers_line_is_counted_and_nothing_else(path: Path) -> None:
    path.write_bytes(b"LineId,Time,Content\n5,1077804742,m\n")
    (batch,) = read(path, format_named("loghub_csv"))
    assert (batch.lines, batch.blanks, batch.rejects) == (2, 0, [])
    assert [(number, record.source_id) for number, record in batch.records] == [(2, "5")]


VALID = [
    line("m", more=', "response_time_ms": 1, "label": 1'),
    b"- 1117838570 2005.06.03 R02-M1 2005-06-03-15.42.50.675872 R02-M1 RAS KERNEL INFO ok",
    b"- 1131566461 2005.11.09 dn228 Nov 9 12:01:01 dn228/dn228 crond[2915]: m",
    b"081109 203518 143 INFO dfs.X: blk_1",
    b'10.1.2.3 - - [12/Mar/2031:10:15:32 +0200] "GET / HTTP/1.1" 200 512 "-" "curl/8.5" 0.1',
    b"LineId,Month,Date,Time,Level,Content",
    b'1,Jun,14,15:16:01,combo,"a, b"',
    b'time=2031-01-02T03:04:05Z level=info msg="a b" n=1',
    b"<34>Oct 11 22:14:15 web-1 su[1]: m",
    b'<165>1 2031-10-11T22:14:15Z h a p m [x y="z"] m',
    b'{"log":"a\\n","stream":"stdout","time":"2031-01-02T03:04:05Z"}',
    b"2031-01-02T03:04:05Z stdout P m",
    b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1925089445000000000"},{}]}]}]}',
]


@st.composite
def nearly_valid(draw: st.DrawFn) -> bytes:
    """A good line with a piece of it replaced."""
    good = draw(st.sampled_from(VALID))
    start = draw(st.integers(0, len(good)))
    return good[:start] + draw(st.binary(max_size=6)) + good[start + draw(st.integers(0, 6)) :]


@pytest.mark.parametrize("name", formats())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.one_of(st.binary(max_size=80), nearly_valid(), st.sampled_from(VALID))), packed=st.booleans())
def test_any_bytes_become_records_rejects_or_blanks(path: Path, name: str, pieces: list[bytes], packed: bool) -> None:
    content = b"\n".join(pieces)
    path.write_bytes(gzip.compress(content) if packed else content)
    assume(packed or not content.startswith((*PACKED, *OTHER_ARCHIVES)))
    try:
        found = list(read(path, format_named(name), batch_rows=3, max_line_bytes=120))
    except FileRefused:
        if name == "cicflowmeter":  # the only format that insists on its columns
            return
        raise
    physical = content.removeprefix(b"\xef\xbb\xbf")
    assert sum(batch.lines for batch in found) == physical.count(b"\n") + (
        not physical.endswith(b"\n") and bool(physical)
    )
    headers = 1 if name == "loghub_csv" else 0
    accounted = sum(len(batch.records) + len(batch.rejects) + batch.blanks for batch in found)
    if name not in ("otlp", "docker"):  # where a line may hold many records, or a part of one
        assert 0 <= sum(batch.lines for batch in found) - accounted <= headers
    for batch in found:
        for reject in batch.rejects:
            assert name == "docker" or content[reject.byte_offset :].startswith(reject.raw)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=300), at=st.integers(0, 400))
def test_any_damage_to_a_gzip_file_is_survived(path: Path, noise: bytes, at: int) -> None:
    packed = gzip.compress(b"\n".join(VALID) * 3, mtime=0)
    path.write_bytes(b"\x1f\x8b" + packed[2:at] + noise + packed[at + len(noise) :])
    for batch in read(path, format_named("bgl")):
        assert len(batch.records) + len(batch.rejects) + batch.blanks == batch.lines


def test_the_source_is_the_name_without_suffixes() -> None:
    assert source_name(Path("BGL_2k.log.gz")) == "BGL_2k"
    assert source_name(Path(".hidden.log")) == "hidden"
    assert source_name(Path("plain")) == "plain"
    assert source_name(Path("a\udcff.log")) == "a?"
