"""The landing folder: what is taken, what is left alone, and what became of it since; and a loader that is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from mllib.errors import BadInput
from mllib.jobs import intake as intake_job
from mllib.jobs.intake import ingest
from mllib.jobs.landing import landed, pending
from tests.db.factories import json_line, rows, scalar, write_lines

LOAD = """
import sys
from pathlib import Path
from mllib.ingest import reader
from mllib.jobs.intake import ingest
from mllib.store.database import connection, engine_for

reader.read.__kwdefaults__["batch_rows"] = 2_000
engine = engine_for(sys.argv[1])
with connection(engine):
    print("ready", flush=True)
sys.stdin.readline()
print(ingest(engine, [Path(sys.argv[2])], with_labels=True).rows, flush=True)
"""


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_what_is_no_finished_plain_file_is_left_alone(landing: Path, tmp_path: Path) -> None:
    outside = write_lines(tmp_path / "secret.log", "x")
    for name in ("b.log", "a.log.gz", ".hidden", "c.log.part", "d.tmp", "e.swp"):
        (landing / name).write_text("x")
    (landing / "folder.log").mkdir()
    (landing / "link.log").symlink_to(outside)
    (landing / "link_within.log").symlink_to(landing / "b.log")
    (landing / "linked_folder").symlink_to(tmp_path)
    os.mkfifo(landing / "pipe.log")
    assert names(landed(landing)) == ["a.log.gz", "b.log"]
    assert landed(tmp_path / "is_not_there") == []


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [("*.log", ["a.log", "b[1].log"]), ("a.*", ["a.log", "a.txt"]), ("b[[]1].log", ["b[1].log"]), ("**", 3), ("", [])],
)
def test_a_pattern_chooses_by_name(landing: Path, pattern: str, taken: list[str] | int) -> None:
    for name in ("a.log", "b[1].log", "a.txt"):
        (landing / name).write_text("x")
    found = names(landed(landing, pattern))
    assert len(found) == taken if isinstance(taken, int) else found == taken


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "sub/*.log", "..", "a\0b"])
def test_a_pattern_that_reaches_out_is_refused(landing: Path, pattern: str) -> None:
    with pytest.raises(BadInput, match="reaches out of the landing folder"):
        landed(landing, pattern)


def test_a_path_that_is_not_there_is_named(engine: Engine, landing: Path) -> None:
    with pytest.raises(BadInput, match=r"no file or folder .*nothing\.log"):
        ingest(engine, [landing / "nothing.log"])
    with pytest.raises(BadInput, match=r"no log format named 'xml'. Known: .*jsonl.*auto"):
        ingest(engine, [write_lines(landing / "x.log", json_line(1))], format_name="xml")


def test_a_file_is_pending_until_it_is_loaded_and_again_when_it_changes(engine: Engine, landing: Path) -> None:
    path = write_lines(landing / "a.jsonl", json_line(1, id="1"))
    write_lines(landing / "b.jsonl", json_line(2, id="2"))
    assert names(pending(engine, landing)) == ["a.jsonl", "b.jsonl"]
    ingest(engine, [path])
    assert names(pending(engine, landing)) == ["b.jsonl"]
    write_lines(path, json_line(3, id="3"), json_line(4, id="4"))
    assert names(pending(engine, landing)) == ["a.jsonl", "b.jsonl"]
    assert ingest(engine, pending(engine, landing)).rows == 3
    assert pending(engine, landing) == []


def test_a_refused_file_and_a_copy_are_looked_at_once(engine: Engine, landing: Path) -> None:
    """Otherwise each run would read them from end to end again, for as long as they lie there."""
    first = write_lines(landing / "app.jsonl", json_line(1))
    ingest(engine, [first])
    refused = write_lines(landing / "app.2.jsonl", json_line(2))
    with pytest.raises(BadInput):
        ingest(engine, [refused])
    copy = write_lines(landing / "copy.jsonl", json_line(1))
    touched = write_lines(landing / "app.jsonl", json_line(1))
    os.utime(touched, (1, 1))
    assert names(pending(engine, landing)) == ["app.jsonl", "copy.jsonl"]
    for _ in range(2):
        assert len(ingest(engine, [copy, touched]).skipped) == 2
    assert pending(engine, landing) == []
    states = "select state, count(*) from millrace.ingest_files group by 1 order by 1"
    assert rows(engine, states) == [("loaded", 1), ("refused", 1), ("skipped", 2)]


def test_an_unreadable_file_does_not_keep_the_others_out_and_is_tried_again_when_asked(
    engine: Engine, landing: Path
) -> None:
    write_lines(landing / "a.jsonl", json_line(1))
    odd = landing / "b.log"
    odd.write_bytes(b"one two three\n")
    write_lines(landing / "c.jsonl", json_line(2))
    with pytest.raises(BadInput, match=r"b\.log.*--format.* other 2 files were loaded"):
        ingest(engine, [landing])
    states = "select format, state from millrace.ingest_files order by path"
    assert rows(engine, states) == [("jsonl", "loaded"), ("auto", "refused"), ("jsonl", "loaded")]
    assert pending(engine, landing) == []
    assert pending(engine, landing, "b.log") == [odd]
    assert ingest(engine, [odd], format_name="bgl").rejected == 1


def test_a_name_that_is_no_text_is_taken_like_any_other(engine: Engine, landing: Path) -> None:
    path = landing / os.fsdecode(b"caf\xe9\n.jsonl")
    write_lines(path, json_line(1))
    assert pending(engine, landing) == [path]
    assert ingest(engine, [landing]).rows == 1
    assert pending(engine, landing) == []
    assert rows(engine, "select source from millrace.logs") == [("caf?\n",)]


def test_a_file_that_changes_while_it_is_read_is_not_loaded(
    engine: Engine, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lines(landing / "a.jsonl", json_line(1))
    survey = intake_job.survey

    def survey_then_rewrite(*arguments: Any, **keys: Any) -> Any:
        found = survey(*arguments, **keys)
        write_lines(path, json_line(1), json_line(2))
        path.write_bytes(path.read_bytes().replace(b"request 1", b"request 7"))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(intake_job, "survey", survey_then_rewrite)
        with pytest.raises(BadInput, match=r"changed while it was read, none .*\.part"):
            ingest(engine, [path])
    assert scalar(engine, "select count(*) from millrace.logs") == 0
    assert names(pending(engine, landing)) == ["a.jsonl"]
    assert ingest(engine, [path]).rows == 2


def loader(dsn: str, path: Path) -> subprocess.Popen[str]:
    """A process that is connected, and loads the file as soon as it is told to."""
    command = [sys.executable, "-c", LOAD, dsn, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()


def test_a_loader_killed_at_any_moment_leaves_all_or_nothing(engine: Engine, dsn: str, tmp_path: Path) -> None:
    size = 30_000
    path = write_lines(tmp_path / "x.jsonl", *(json_line(n, label=n % 2) for n in range(size)))
    outcomes = []
    processes = [loader(dsn, path) for _ in range(4)]
    for process, at_most in zip(processes, (0.03, 0.2, 0.5, 1), strict=True):
        go(process)
        time.sleep(random.uniform(0.02, at_most))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        there = scalar(engine, "select count(*) from millrace.logs")
        assert there in (0, size)
        assert scalar(engine, "select count(*) from millrace.labels") == there
        outcomes.append(there)
    assert 0 in outcomes
    report = ingest(engine, [path], with_labels=True)
    assert report.rows + max(outcomes) == size
    assert scalar(engine, "select count(distinct source_id) from millrace.logs") == size
    assert scalar(engine, "select count(*) from millrace.labels") == size
    assert rows(engine, "select rows, labels from millrace.ingest_files where state = 'loaded'") == [(size, size)]


def test_two_processes_load_the_same_file_once(engine: Engine, dsn: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", *(json_line(n) for n in range(5_000)))
    processes = [loader(dsn, path) for _ in range(2)]
    for process in processes:
        go(process)
    said = sorted(int(process.communicate(timeout=60)[0]) for process in processes)
    assert said == [0, 5_000]
    assert scalar(engine, "select count(*) from millrace.logs") == 5_000
