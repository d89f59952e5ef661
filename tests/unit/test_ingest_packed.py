"""Zstandard, as gzip: streamed, bounded, and whatever is damaged leaves what came before it."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mllib.ingest import detect, format_named
from mllib.ingest.reader import Reject, read
from mllib.ingest.survey import survey

LINE = b'{"ts": "2025-01-02T03:04:05Z", "message": "%d"}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.log.zst"


def numbered(n: int) -> bytes:
    rng = random.Random(3)
    return b"".join(LINE % (number * 10**9 + rng.randrange(10**9)) for number in range(n))


def outcome(path: Path, content: bytes, **arguments: Any) -> tuple[int, list[Reject]]:
    path.write_bytes(content)
    found = list(read(path, format_named("jsonl"), **arguments))
    return sum(len(batch.records) for batch in found), [reject for batch in found for reject in batch.rejects]


def skippable(content: bytes) -> bytes:
    return b"\x5a\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


def test_a_file_of_several_frames_is_one_file(path: Path) -> None:
    two = zstandard.compress(LINE[:20] % ()) + skippable(b"not ours") + zstandard.compress(LINE[20:] % 7)
    assert outcome(path, skippable(b"") + two) == (1, [])
    assert outcome(path, zstandard.compress(b"")) == (0, [])
    assert outcome(path, zstandard.compress(numbered(50_000))) == (50_000, [])
    assert detect(path).name == "jsonl"


def test_what_follows_the_frames_is_one_reject(path: Path) -> None:
    records, rejects = outcome(path, zstandard.compress(LINE % 7) + b"plain text that is no frame")
    assert records == 1
    assert [reject.reason.partition(" (")[0] for reject in rejects] == ["other bytes follow"]


def test_a_file_that_was_cut_off_keeps_its_whole_lines(path: Path) -> None:
    content = numbered(50_000)
    packed = zstandard.compress(content)
    records, rejects = outcome(path, packed[: len(packed) // 2])
    assert 5_000 < records < 45_000
    (reject,) = rejects
    assert (reject.line_number, content[reject.byte_offset - 1 : reject.byte_offset]) == (records + 1, b"\n")
    assert reject.reason == "the Zstandard data end too early; the file was cut off or is still being written"


def test_a_damaged_file_keeps_the_lines_before_the_damage(path: Path) -> None:
    packed = bytearray(zstandard.compress(numbered(50_000)))
    packed[len(packed) // 2 : len(packed) // 2 + 64] = bytes(64)
    records, rejects = outcome(path, bytes(packed))
    assert records > 5_000
    assert "Zstandard data are damaged (" in rejects[-1].reason


@pytest.mark.parametrize("level", [1, 19])
def test_a_bomb_is_one_reject_and_never_held(path: Path, level: int) -> None:
    bomb = zstandard.ZstdCompressor(level=level)
    path.write_bytes(zstandard.compress(LINE % 7) + b"".join(bomb.compress(bytes(64 << 20)) for _ in range(8)))
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    (batch,) = read(path, format_named("jsonl"))
    found = survey(path, path.stat().st_size, whole=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(batch.records), len(batch.rejects)) == (1, 1)
    assert "decompression bomb" in batch.rejects[0].reason
    assert found.broken
    assert peak < 100 << 20  # of 512 MiB


def test_a_window_that_asks_for_gigabytes_is_refused(path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    records, rejects = outcome(path, packed.compress(LINE % 7) + packed.flush())
    assert records == 0
    assert "memory" in rejects[0].reason


def test_no_more_is_unpacked_than_was_allowed(path: Path) -> None:
    records, rejects = outcome(path, zstandard.compress(numbered(50_000)), max_bytes=1 << 20)
    assert 5_000 < records < 50_000
    assert [reject.reason for reject in rejects] == ["it unpacks to more than 1,048,576 bytes; the rest was not read"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=100), at=st.integers(4, 200))
def test_any_damage_is_survived(path: Path, noise: bytes, at: int) -> None:
    packed = zstandard.compress(numbered(5))
    path.write_bytes(packed[:at] + noise + packed[at + len(noise) :])
    for batch in read(path, format_named("jsonl")):
        assert len(batch.records) + len(batch.rejects) + batch.blanks == batch.lines
