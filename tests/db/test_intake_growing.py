"""Files that grow, are renamed, packed and replaced: every line is in once, whatever happens in between."""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from sqlalchemy import Engine, text

from mllib.errors import BadInput
from mllib.ingest.base import ParseOptions
from mllib.jobs import intake as intake_job
from mllib.jobs.intake import ingest, ingest_file
from mllib.jobs.landing import pending
from mllib.store.database import transaction
from tests.db.factories import json_line, rows, scalar, write_lines
from tests.factories import START

LOADS = "select rows, rejected, last_line, loaded_bytes, continues is not null, waiting from millrace.ingest_files"


def load(engine: Engine, path: Path, **arguments: Any) -> int:
    return ingest_file(engine, path, **{"whole": False, "rotating": True, **arguments}).rows


def settle(path: Path) -> None:
    """As if nobody had written to it for a while."""
    os.utime(path, (START.timestamp(), START.timestamp()))


def append(path: Path, content: str) -> None:
    with path.open("a") as file:
        file.write(content)


def numbers(engine: Engine) -> list[tuple[str, str]]:
    return [tuple(row) for row in rows(engine, "select source_id, message from millrace.logs order by log_id")]


def test_only_what_was_added_is_loaded_and_numbers_go_on(engine: Engine, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", json_line(1), "", "garbage", "")
    assert load(engine, path) == 1
    append(path, f"{json_line(2)}\nworse\n{json_line(3)}\n")
    assert load(engine, path) == 2
    assert numbers(engine) == [("1", "request 1 done"), ("5", "request 2 done"), ("7", "request 3 done")]
    rejects = rows(engine, "select line_number, byte_offset, raw from millrace.ingest_rejects order by 1")
    content = path.read_bytes()
    assert rejects == [(3, content.index(b"garbage"), b"garbage"), (6, content.index(b"worse"), b"worse")]
    assert rows(engine, f"{LOADS} order by file_id") == [
        (1, 1, 4, content.index(json_line(2).encode()), False, False),
        (2, 1, 7, len(content), True, False),
    ]
    assert ingest_file(engine, path).skipped


def test_a_last_line_without_an_end_waits_until_the_file_rests(engine: Engine, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", json_line(1))
    append(path, json_line(2)[:20])
    assert [file.name for file in pending(engine, tmp_path)] == ["a.jsonl"]
    assert load(engine, path) == 1
    assert pending(engine, tmp_path) == []
    append(path, json_line(2)[20:])
    assert load(engine, path) == 0
    assert scalar(engine, "select count(*) from millrace.logs") == 1
    settle(path)
    assert [file.name for file in pending(engine, tmp_path)] == ["a.jsonl"]
    assert load(engine, path) == 1
    assert pending(engine, tmp_path) == []
    append(path, f"\n{json_line(3)}\n")
    assert load(engine, path) == 1
    assert [number for number, _ in numbers(engine)] == ["1", "2", "3"]
    assert scalar(engine, "select count(*) from millrace.ingest_rejects") == 0


def test_a_line_that_was_asked_for_too_early_is_not_loaded_again(engine: Engine, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.log", "ts=2026-03-02T08:00:00Z msg=one")
    append(path, "ts=2026-03-02T08:00:01Z msg=tw")
    assert ingest(engine, [path]).rows == 2
    append(path, "o\nts=2026-03-02T08:00:02Z msg=three\n")
    assert load(engine, path) == 1
    assert numbers(engine) == [("1", "one"), ("2", "tw"), ("3", "three")]
    ((number, offset, raw, reason),) = rows(
        engine, "select line_number, byte_offset, raw, reason from millrace.ingest_rejects"
    )
    assert (number, raw) == (2, b"o")
    assert path.read_bytes()[offset - 2 : offset + 1] == b"two"
    assert reason == "the rest of a line whose beginning was loaded before, when the file ended there"


def test_empty_files_and_first_lines_without_an_end_are_no_refusal(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.touch()
    assert ingest_file(engine, path, whole=False).skipped == "it is empty"
    append(path, json_line(1)[:5])
    assert ingest_file(engine, path, whole=False).skipped == "its first line has no end yet"
    assert pending(engine, tmp_path) == []
    append(path, json_line(1)[5:] + "\n")
    assert load(engine, path) == 1


@pytest.mark.parametrize("pack", [None, gzip.compress])
def test_a_rotated_log_is_known_and_its_last_lines_are_loaded(engine: Engine, tmp_path: Path, pack: Any) -> None:
    path = write_lines(tmp_path / "app.log", json_line(1), json_line(2))
    assert load(engine, path) == 2
    append(path, json_line(3) + "\n")
    rotated = tmp_path / ("app-20260302.log.gz" if pack else "app-20260302.log")
    rotated.write_bytes((pack or bytes)(path.read_bytes()))
    write_lines(path, json_line(4))
    assert load(engine, rotated) == 1
    assert load(engine, path) == 1
    rotated.rename(again := tmp_path / "app.log.7")
    assert load(engine, again) == 0
    assert rows(engine, "select source, source_id, message from millrace.logs order by log_id") == [
        ("app", "1", "request 1 done"),
        ("app", "2", "request 2 done"),
        ("app", "3", "request 3 done"),
        ("app.2", "1", "request 4 done"),
    ]


def test_a_rewritten_file_is_a_new_one_and_is_refused_where_nobody_said_that_it_rotates(
    engine: Engine, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "app.log", json_line(1), json_line(2))
    ingest(engine, [path])
    write_lines(path, json_line(3))
    with pytest.raises(BadInput, match=r"line numbers overlap .*--source NAME"):
        ingest(engine, [path])
    assert ingest(engine, [path], source="app_2").rows == 1


def test_the_same_lines_under_another_source_are_loaded_when_they_are_more(engine: Engine, tmp_path: Path) -> None:
    few = write_lines(tmp_path / "few.jsonl", json_line(1), json_line(2))
    ingest(engine, [few])
    more = write_lines(tmp_path / "more.jsonl", json_line(1), json_line(2), json_line(3))
    assert ingest(engine, [more], source="trial").rows == 3
    assert ingest(engine, [more]).rows == 0


def test_formats_that_remember_go_on_where_they_were(engine: Engine, tmp_path: Path) -> None:
    table = write_lines(tmp_path / "t.csv", "LineId,Time,Content,Level", "1,2026-03-02 08:00:00,a,INFO")
    syslog = write_lines(tmp_path / "s.log", "Nov 30 23:59:58 h a: one", "Dec 31 23:59:59 h a: two")
    assert load(engine, table) == 1
    assert load(engine, syslog, options=ParseOptions(year=2024)) == 2
    append(table, "2,2026-03-02 08:00:01,b,WARN\n")
    append(syslog, "Jan  1 00:00:00 h a: three\n")
    assert load(engine, table) == 1
    assert load(engine, syslog) == 1
    assert rows(engine, "select level, source_id from millrace.logs where source = 't' order by 2") == [
        ("INFO", "1"),
        ("WARN", "2"),
    ]
    years = rows(
        engine, "select extract(year from ts)::int, source_id from millrace.logs where source = 's' order by 2"
    )
    assert years == [(2024, "1"), (2024, "2"), (2025, "3")]


def test_a_packed_file_that_was_loaded_too_early_goes_on_with_the_line_that_was_cut(
    engine: Engine, tmp_path: Path
) -> None:
    content = "".join(f"{json_line(n, pad=random.random())}\n" for n in range(2000)).encode()
    packed = gzip.compress(content)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed[: len(packed) // 2])
    first = ingest_file(engine, path)
    assert (0 < first.rows < 2000, first.rejected) == (True, 1)
    path.write_bytes(packed)
    assert load(engine, path) == 2000 - first.rows
    ids = rows(engine, "select count(*), count(distinct source_id), max(source_id::int) from millrace.logs")
    assert ids == [(2000, 2000, 2000)]


class Machine(RuleBasedStateMachine):
    """A log that is written, rotated and packed at will, loaded now and then, sometimes with a crash."""

    engine: Engine
    folder: Path

    @initialize()
    def begin(self) -> None:
        with transaction(self.engine) as conn:
            conn.execute(text("truncate millrace.logs, millrace.ingest_files, millrace.ingest_rejects"))
        for path in self.folder.iterdir():
            path.unlink()
        self.log = self.folder / "app.log"
        self.log.touch()
        self.written = 0
        self.open_line = ""  # what is still to be written of the last line
        self.closed = False  # the last line is all there but for its end

    def line(self) -> str:
        self.written += 1
        return f"ts=2026-03-02T08:00:00Z msg=line-{self.written}-"

    @rule(count=st.integers(1, 4), cut=st.integers(0, 30))
    def write(self, count: int, cut: int) -> None:
        begun = self.open_line + "\n" if self.open_line or self.closed else ""
        lines = [self.line() for _ in range(count)]
        last = "" if not cut else self.line()
        self.open_line, self.closed = last[cut:], False
        append(self.log, begun + "".join(f"{line}\n" for line in lines) + last[:cut])

    @rule()
    def rest(self) -> None:
        """The writer is done with its line, and nothing happens for a while."""
        append(self.log, self.open_line)
        self.closed = self.closed or bool(self.open_line)
        self.open_line = ""
        for path in self.folder.iterdir():
            settle(path)

    @rule(packed=st.booleans(), copied=st.booleans())
    @precondition(lambda self: self.log.stat().st_size)
    def rotate(self, packed: bool, copied: bool) -> None:
        append(self.log, self.open_line + "\n" if self.open_line or self.closed else "")
        self.open_line, self.closed = "", False
        for number in range(5, 0, -1):
            for end in ("", ".gz"):
                older = self.folder / f"app.log.{number}{end}"
                if older.exists():
                    older.rename(self.folder / f"app.log.{number + 1}{end}")
        content = self.log.read_bytes()
        if packed:
            (self.folder / "app.log.1.gz").write_bytes(gzip.compress(content))
            self.log.write_bytes(b"")
        elif copied:
            (self.folder / "app.log.1").write_bytes(content)
            self.log.write_bytes(b"")
        else:
            self.log.rename(self.folder / "app.log.1")
            self.log.touch()

    @rule()
    def load(self) -> None:
        for path in pending(self.engine, self.folder):
            load(self.engine, path)
        self.check(complete=False)

    @rule()
    def crash(self) -> None:
        def dies(*arguments: Any, **keys: Any) -> Iterator[Any]:
            yield from read(*arguments, **keys)
            raise KeyboardInterrupt

        read = intake_job.read
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(intake_job, "read", dies)
            for path in pending(self.engine, self.folder):
                try:
                    load(self.engine, path)
                except KeyboardInterrupt:
                    break
        self.check(complete=False)

    def check(self, *, complete: bool) -> None:
        found = Counter(message for (message,) in rows(self.engine, "select message from millrace.logs"))
        wanted = {f"line-{number}-" for number in range(1, self.written + 1)}
        assert max(found.values(), default=1) == 1
        assert found.keys() <= wanted
        if complete:
            assert found.keys() == wanted
            assert not scalar(self.engine, "select count(*) from millrace.ingest_rejects")
            assert not scalar(self.engine, "select count(*) from millrace.ingest_files where state = 'refused'")
            names = "select count(distinct (source, source_id)) from millrace.logs"
            assert scalar(self.engine, names) == self.written

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.rest()
            for _ in range(2):
                for path in pending(self.engine, self.folder):
                    load(self.engine, path)
            self.check(complete=True)
            assert pending(self.engine, self.folder) == []


def test_no_line_is_lost_or_doubled_by_any_sequence_of_writes_loads_crashes_and_rotations(
    engine: Engine, tmp_path: Path
) -> None:
    Machine.engine, Machine.folder = engine, tmp_path
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=20, stateful_step_count=10, deadline=None, suppress_health_check=checks, derandomize=True
        ),
    )


LOADER = """
import sys
from pathlib import Path
from mllib.jobs.intake import ingest_file
from mllib.jobs.landing import pending
from mllib.store.database import engine_for

engine = engine_for(sys.argv[1])
print("ready", flush=True)
while True:
    for path in pending(engine, Path(sys.argv[2])):
        ingest_file(engine, path, whole=False, rotating=True)
"""


def test_a_growing_log_survives_loaders_that_are_killed(engine: Engine, dsn: str, tmp_path: Path) -> None:
    """Two loaders at once, killed at random moments, while the log is written without regard for lines, and rotated."""
    folder = tmp_path / "landing"
    folder.mkdir()
    log = folder / "app.jsonl"
    rng = random.Random(5)
    total = 0
    for turn in range(3):
        loaders = [
            subprocess.Popen([sys.executable, "-c", LOADER, dsn, str(folder)], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for loader in loaders:
            assert loader.stdout is not None
            assert loader.stdout.readline() == "ready\n"
        content = "".join(f"{json_line(n)}\n" for n in range(total, total + 2000))
        total += 2000
        with log.open("a") as file:
            while content:
                size = rng.randrange(1, 40_000)
                file.write(content[:size])
                file.flush()
                content = content[size:]
                time.sleep(rng.random() / 20)
        time.sleep(rng.random() / 3)
        for loader in loaders:
            os.kill(loader.pid, signal.SIGKILL)
            loader.communicate()
        if turn == 1:
            log.rename(folder / "app.jsonl.1")
        there = scalar(engine, "select count(*) from millrace.logs")
        assert there == scalar(engine, "select count(distinct message) from millrace.logs")
    for path in pending(engine, folder):
        load(engine, path)
    assert rows(engine, "select count(*), count(distinct message) from millrace.logs") == [(total, total)]
    assert scalar(engine, "select count(*) from millrace.ingest_rejects") == 0
    assert scalar(engine, "select count(*) from millrace.ingest_files where state = 'loaded'") > 3
