"""Fixtures of the database tests: a champion, and a database with labelled logs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from mllib import demo
from mllib.jobs.intake import ingest
from mllib.store.database import engine_for
from tests.conftest import _command, _in
from tests.db.scoring_factories import make_partitions, promote_model
from tests.db.training_factories import END


@pytest.fixture
def champion(engine: Engine) -> int:
    """A database with a champion and the partition of the day of START."""
    make_partitions(engine)
    return promote_model(engine)


@pytest.fixture(scope="session")
def labelled(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database with two weeks of labelled logs, some 240 of them anomalies, which is only ever copied."""
    name = f"millrace_labelled_{uuid.uuid4().hex[:8]}"
    _command(server, f"create database {name} template {template}")
    engine = engine_for(_in(server, name))
    files = demo.generate(tmp_path_factory.mktemp("demo"), now=END, days=14, rows=12_000)
    ingest(engine, files, format_name="jsonl", with_labels=True)
    engine.dispose()
    yield name
    _command(server, f"drop database {name} with (force)")


@pytest.fixture
def shop(server: str, labelled: str) -> Iterator[Engine]:
    """A test's own copy of it."""
    name = f"millrace_{uuid.uuid4().hex[:12]}"
    _command(server, f"create database {name} template {labelled}")
    engine = engine_for(_in(server, name))
    yield engine
    engine.dispose()
    _command(server, f"drop database {name} with (force)")
