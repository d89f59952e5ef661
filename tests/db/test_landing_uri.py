"""A landing folder behind a URI: Airflow's own paths, on a real file system of fsspec, through the same functions."""

from __future__ import annotations

import gzip
import uuid
import warnings
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from mllib import settings
from mllib.errors import BadInput
from mllib.ingest.files import state, text_of
from mllib.jobs.intake import ingest_file
from mllib.jobs.landing import landed, landed_file, pending
from tests.db.factories import json_line, rows, write_lines


@pytest.fixture(params=["file", "memory"])
def folder(request: pytest.FixtureRequest, landing: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty folder as the DAG sees it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow warns about itself while it is imported
        import fsspec
        from airflow.sdk.io import attach

        from dags.ingest import landing as of_the_dag

    attach("memory", fs=fsspec.filesystem("memory"))  # Airflow knows only the stores of its providers by themselves
    uri = f"file://{landing}" if request.param == "file" else f"memory://bucket-{uuid.uuid4().hex}/logs"
    monkeypatch.setenv("MILLRACE_LANDING", uri)
    path = of_the_dag()
    path.mkdir(parents=True, exist_ok=True)
    return path


def names(paths: list[Any]) -> list[str]:
    return [path.name for path in paths]


def test_files_of_a_uri_are_loaded_once_and_go_on_when_they_grow(engine: Engine, folder: Any) -> None:
    (folder / "a.jsonl").write_bytes(f"{json_line(1)}\n{json_line(2)}\n".encode())
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(json_line(3).encode()))
    for hidden in (".c.jsonl", "d.jsonl.part"):
        (folder / hidden).write_bytes(b"x")
    (folder / "sub").mkdir()
    assert names(pending(engine, folder)) == ["a.jsonl", "b.jsonl.gz"]
    for path in pending(engine, folder):
        ingest_file(engine, landed_file(folder, path.name), whole=False, rotating=True)
    assert pending(engine, folder) == []
    (folder / "a.jsonl").write_bytes(f"{json_line(1)}\n{json_line(2)}\n{json_line(4)}\n".encode())
    assert names(pending(engine, folder)) == ["a.jsonl"]
    assert ingest_file(engine, folder / "a.jsonl", whole=False).rows == 1
    assert rows(engine, "select source, source_id, message from millrace.logs order by log_id") == [
        ("a", "1", "request 1 done"),
        ("a", "2", "request 2 done"),
        ("b", "1", "request 3 done"),
        ("a", "3", "request 4 done"),
    ]
    paths = rows(engine, "select distinct path from millrace.ingest_files order by 1")
    assert paths == [(text_of(folder / "a.jsonl"),), (text_of(folder / "b.jsonl.gz"),)]
    assert paths[0][0].startswith(("file://", "memory://"))


def test_an_object_that_is_not_there_or_cannot_be_read_is_named(engine: Engine, folder: Any) -> None:
    for name in ("nothing.log", "../a.log", "sub/a.log"):
        with pytest.raises(BadInput, match="There is no file"):
            landed_file(folder, name)
    with pytest.raises(BadInput, match=r"nothing\.log cannot be read"):
        state(folder / "nothing.log")
    (folder / "z.log").write_bytes(b"PK\x03\x04")
    with pytest.raises(BadInput, match="a zip archive"):
        ingest_file(engine, folder / "z.log")
    assert pending(engine, folder) == []


@pytest.mark.parametrize("folder", ["file"], indirect=True)
def test_links_are_passed_over_behind_a_uri_too(folder: Any, landing: Path) -> None:
    (landing / "link.log").symlink_to("/etc/passwd")
    write_lines(landing / "a.log", "x")
    assert names(landed(folder)) == ["a.log"]


def test_the_mark_of_an_object_store_tells_its_states_apart() -> None:
    class Stored(dict[str, Any]):
        st_size, st_mtime = 5, 0

    class Path:
        def stat(self) -> Stored:
            return Stored(ETag='"abc"', size=5)

    assert state(Path())[::2] == (5, '"abc"')  # type: ignore[arg-type]


def test_only_a_uri_is_taken_for_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MILLRACE_LANDING", str(tmp_path))
    assert (settings.landing_uri(), settings.landing()) == (None, tmp_path)
    monkeypatch.setenv("MILLRACE_LANDING", "s3://aws_default@bucket/logs")
    assert settings.landing_uri() == "s3://aws_default@bucket/logs"
    with pytest.raises(BadInput, match="the local stack needs a folder of this machine"):
        settings.landing()
