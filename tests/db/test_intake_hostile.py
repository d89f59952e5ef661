"""Files that nobody should have written: good lines are in, the others are kept, memory is flat, nothing hangs."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
import zstandard
from sqlalchemy import Engine

from mllib.errors import BadInput
from mllib.jobs.intake import ingest, ingest_file
from mllib.jobs.landing import landed_file, pending
from tests.db.factories import json_line, rows, scalar, write_lines

MEBIBYTE = 1 << 20

LOAD = """
import resource, sys
from pathlib import Path
from mllib.jobs.intake import ingest_file
from mllib.store.database import engine_for, transaction

engine = engine_for(sys.argv[1])
with transaction(engine):
    pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loaded = ingest_file(engine, Path(sys.argv[2]), format_name="jsonl")
print(loaded.rows, loaded.rejected, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def in_a_process(dsn: str, path: Path) -> tuple[int, int, float]:
    """Rows, rejects, and by how many MiB the process grew at its peak."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, dsn, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    loaded, rejected, kibibytes = done.stdout.split()
    return int(loaded), int(rejected), int(kibibytes) / 1024


def sparse(path: Path) -> None:
    """A good line, 300 MiB of NUL bytes without a line end that take no room on disk, and a good line."""
    with path.open("wb") as file:
        file.write(json_line(1).encode() + b"\n")
        file.seek(300 * MEBIBYTE)
        file.write(b"\n" + json_line(2).encode() + b"\n")


def lines_of_nul(path: Path) -> None:
    """A bomb: 300 MiB of packed lines of NUL bytes, of which the first 64 MiB are read and refused."""
    packer = zlib.compressobj(9, wbits=31)
    with path.open("wb") as file:
        file.write(packer.compress(json_line(1).encode() + b"\n"))
        for _ in range(300):
            file.write(packer.compress((bytes(64 * 1024 - 1) + b"\n") * 16))
        file.write(packer.flush())


def long_lines(path: Path) -> None:
    """300 MiB of lines with a million characters each, packed, between good ones."""
    packer = zstandard.ZstdCompressor().compressobj()
    with path.open("wb") as file:
        for number in range(300):
            # Not compressible beyond what is taken for a bomb.
            noise = os.urandom(8192).hex().encode() * 64
            file.write(packer.compress(json_line(number).encode() + b"\n" + noise + b"\n"))
        file.write(packer.flush())


@pytest.mark.parametrize(
    ("make", "loaded", "rejected"),
    [(sparse, 2, 1), (lines_of_nul, 1, range(900, 2100)), (long_lines, 300, 300)],
    ids=["no line end", "bomb", "long lines"],
)
def test_memory_stays_flat(dsn: str, tmp_path: Path, make: object, loaded: int, rejected: int | range) -> None:
    path = tmp_path / "big.jsonl"
    make(path)  # type: ignore[operator]
    found, refused, grown = in_a_process(dsn, path)
    assert found == loaded
    assert refused == rejected if isinstance(rejected, int) else refused in rejected
    assert grown < 250


def test_every_kind_of_bad_line_is_kept_beside_the_good_ones(engine: Engine, tmp_path: Path) -> None:
    bad = [
        b"x" * 1_000_000,
        b"\x00" * 1000,
        b"\xff\xfe\xfd",
        json_line(0, ts="1970-01-01T00:00:00Z").encode(),
        json_line(0, ts="9999-12-31T23:59:59Z").encode(),
        json_line(0, ts="0001-01-01T00:00:00+14:00").encode(),
        b'{"ts": 1e400, "message": "m"}',
        b'{"ts": ' + b"9" * 5000 + b', "message": "m"}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        json.dumps({"ts": "2026-03-02T08:00:00Z", "message": "m", "level": "x" * 1000}).encode(),
        b'{"ts": "2026-03-02T08:00:00Z", "message": "\\u0000"}',
        b'{"ts": "2026-03-02T08:00:00Z", "message": "\\ud800"}',
    ]
    good = [
        json_line(1, n=10**400, response_time_ms=1e300, status=10**30),
        json_line(2, deep=json.loads("[" * 400 + "]" * 400)),
        json_line(3, n=-0.0, text="\u202e\x07"),
    ]
    path = write_lines(tmp_path / "x.jsonl", *(line for pair in zip(bad, good * 5, strict=False) for line in pair))
    report = ingest(engine, [path], format_name="jsonl")
    assert report.rejected == len(bad)
    assert report.rows == len(bad)
    kept = rows(engine, "select raw, reason from millrace.ingest_rejects order by line_number")
    assert [raw for raw, _ in kept] == [line[: 256 * 1024] for line in bad]
    assert all(reason for _, reason in kept)


@pytest.mark.parametrize("format_name", ["logfmt", "syslog_rfc3164", "syslog_rfc5424", "docker", "otlp", "combined"])
def test_lines_made_to_keep_a_parser_busy_are_refused_at_once(engine: Engine, tmp_path: Path, format_name: str) -> None:
    """Each is a quarter of a million characters: a pattern that goes back over them would take hours."""
    size = 250_000
    hostile = [
        "a=" * (size // 2),
        'a="' + "\\" * size,
        "a " * (size // 2),
        "<1>" * (size // 3),
        "Oct 11 22:14:15 h " + "[" * size,
        "Oct 11 22:14:15 h " + "a" * size,
        "1 2031-10-11T22:14:15Z h a p m " + "[a" * (size // 2),
        "1 2031-10-11T22:14:15Z h a p m [a " + 'b="' * (size // 3),
        "1 2031-10-11T22:14:15Z h a p m [a" + " " * size,
        "2031-10-11T22:14:15" + "0" * size,
        '{"log":' + '{"a":' * (size // 5),
        '{"resourceLogs":' + "[" * size,
        '1.1.1.1 - - [12/Mar/2031:10:15:32 +0200] "' + "\\" * size,
    ]
    path = write_lines(tmp_path / "x.log", *hostile)
    report = ingest_file(engine, path, format_name=format_name)
    assert report.rejected + report.rows == len(hostile)


def test_names_are_data(engine: Engine, landing: Path) -> None:
    names = [
        "a\nb.jsonl",
        "'; drop table logs; --.jsonl",
        "%s %(x)s.jsonl",
        "..jsonl..x",
        "-rf",
        "\u202egpj.jsonl",
        "a..b.jsonl",
    ]
    for number, name in enumerate(names):
        write_lines(landing / name, json_line(number))
    found = pending(engine, landing)
    assert sorted(path.name for path in found) == sorted(name for name in names if not name.startswith("."))
    for path in found:
        assert ingest_file(engine, landed_file(landing, path.name)).rows == 1
    assert pending(engine, landing) == []


@pytest.mark.parametrize(
    "name", ["../secret.log", "/etc/passwd", "..", ".", "", "sub/x.log", "link.log", "pipe.log", "a\0b"]
)
def test_only_plain_files_of_the_landing_folder_can_be_named(landing: Path, name: str) -> None:
    write_lines(landing.parent / "secret.log", "x")
    (landing / "link.log").symlink_to(landing.parent / "secret.log")
    (landing / "sub").mkdir()
    write_lines(landing / "sub" / "x.log", "x")
    os.mkfifo(landing / "pipe.log")
    with pytest.raises(BadInput, match=r"There is no file .* to be loaded"):
        landed_file(landing, name)


def test_pipes_and_devices_are_never_waited_for(engine: Engine, landing: Path) -> None:
    os.mkfifo(landing / "pipe.log")
    write_lines(landing / "a.jsonl", json_line(1))
    assert ingest(engine, [landing]).rows == 1
    for path in (landing / "pipe.log", Path("/dev/zero")):
        with pytest.raises(BadInput, match="no file or folder"):
            ingest(engine, [path])
        with pytest.raises(BadInput, match="is not a file"):
            ingest_file(engine, path)


def test_a_pipe_that_took_the_place_of_a_file_is_not_waited_for(engine: Engine, landing: Path) -> None:
    path = write_lines(landing / "a.jsonl", json_line(1))
    failed: list[BaseException] = []

    def load() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "is_file", lambda _: True)
            try:
                ingest_file(engine, path)
            except BadInput as refusal:
                failed.append(refusal)

    path.unlink()
    os.mkfifo(path)
    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert "is not a file" in str(failed[0])


@pytest.mark.parametrize(
    "archive", [b"PK\x03\x04" + bytes(100), b"BZh91AY&SY" + bytes(9), b"\xfd7zXZ\x00", b"PAR1\x15"]
)
def test_other_archives_are_refused_as_a_whole_and_once(engine: Engine, landing: Path, archive: bytes) -> None:
    (landing / "a.log").write_bytes(archive)
    with pytest.raises(BadInput, match="only plain text, gzip and Zstandard can be read"):
        ingest(engine, [landing])
    assert pending(engine, landing) == []
    assert rows(engine, "select state, bytes from millrace.ingest_files") == [("refused", len(archive))]


def test_a_bomb_within_a_bomb_is_not_unpacked_twice(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json_line(1).encode() + b"\n" + gzip.compress(bytes(1 << 20))))
    report = ingest_file(engine, path, format_name="jsonl")
    assert report.rows == 1
    assert report.rejected >= 1


def test_a_folder_of_thousands_of_files(engine: Engine, landing: Path) -> None:
    for number in range(3000):
        (landing / f"{number}.jsonl").touch()
    write_lines(landing / "a.jsonl", json_line(1))
    assert len(pending(engine, landing)) == 3001
    assert len(pending(engine, landing, "1*.jsonl")) == 1111
    assert ingest(engine, [landing / "a.jsonl"]).rows == 1
    assert len(pending(engine, landing)) == 3000
    assert scalar(engine, "select count(*) from millrace.logs") == 1
