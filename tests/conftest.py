"""Fixtures for every test that needs PostgreSQL: one real server a session, one migrated template, one clone a test.

The server is the embedded one, or the one that MILLRACE_TEST_DSN names; there the tests create and drop databases.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from mllib.local.postgres import EmbeddedPostgres
from mllib.store.database import engine_for
from mllib.store.migrate import migrate

TEMPLATE = "millrace_template"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a server on which databases may be made and dropped."""
    named = os.environ.get("MILLRACE_TEST_DSN")
    if named:
        yield named
        return
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), fast=True) as postgres:
        yield postgres.dsn("postgres")


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """The name of a migrated, empty database that is only ever copied."""
    _command(server, f"drop database if exists {TEMPLATE}", f"create database {TEMPLATE}")
    engine = engine_for(_in(server, TEMPLATE))
    migrate(engine)
    engine.dispose()
    return TEMPLATE


@pytest.fixture
def dsn(server: str, template: str) -> Iterator[str]:
    """A database of the test's own, at the present schema."""
    yield from _database(server, template)


@pytest.fixture
def engine(dsn: str) -> Engine:
    """An engine on the test's own database."""
    return engine_for(dsn)


@pytest.fixture
def empty_dsn(server: str) -> Iterator[str]:
    """A database of the test's own without any schema."""
    yield from _database(server, "template1")


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    """An empty folder for log files."""
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder


def _database(server: str, template: str) -> Iterator[str]:
    name = f"millrace_{uuid.uuid4().hex[:12]}"
    _command(server, f"create database {name} template {template}")
    try:
        yield _in(server, name)
    finally:
        engine_for(_in(server, name)).dispose()
        _command(server, f"drop database {name} with (force)")


def _in(server: str, database: str) -> str:
    return make_url(server).set(database=database).render_as_string(hide_password=False)


def _command(server: str, *statements: str) -> None:
    engine = create_engine(make_url(server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as conn:
            for statement in statements:
                conn.execute(text(statement))
    finally:
        engine.dispose()
