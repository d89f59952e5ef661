"""Migrations: each once, in order, never edited; and named queries that all parse and are all used."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from mllib.errors import SchemaOutOfDate
from mllib.settings import PROJECT, SQL
from mllib.sources import SOURCES
from mllib.store.database import transaction
from mllib.store.migrate import migrate, migration_files, require_schema
from mllib.store.queries import parse, queries
from tests.db.factories import rows, scalar

NAMES = [path.stem for path in migration_files()]
QUERIES = {name: sql for path in sorted((SQL / "queries").glob("*.sql")) for name, sql in parse(path).items()}


@pytest.fixture
def empty(empty_dsn: str) -> Iterator[Engine]:
    engine = create_engine(make_url(empty_dsn).set(drivername="postgresql+psycopg"))
    yield engine
    engine.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SQL / "migrations", tmp_path / "migrations"))


def test_the_files_are_numbered_without_gap() -> None:
    assert [path.name[:5] for path in migration_files()] == [f"{n:04}_" for n in range(1, len(NAMES) + 1)]


@pytest.mark.parametrize("name", ["0005_gap.sql", "0001_twice.sql"])
def test_a_gap_and_a_number_twice_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("select 1")
    with pytest.raises(ValueError, match="without a gap"):
        migration_files(folder)


def test_the_second_time_there_is_nothing_to_do(empty: Engine) -> None:
    assert migrate(empty) == [*NAMES, "views and roles"]
    assert migrate(empty) == []
    require_schema(empty)


def test_a_schema_that_lacks_something_is_named_and_nothing_is_made(empty: Engine) -> None:
    with pytest.raises(SchemaOutOfDate, match=rf"lacks {NAMES[0]}.*millrace migrate"):
        require_schema(empty)
    assert scalar(empty, "select count(*) from pg_class where relname = 'millrace_migrations'") == 0


def test_at_once_each_file_runs_once(empty: Engine) -> None:
    starters = 4
    start = Barrier(starters)

    def run(_: int) -> list[str]:
        start.wait()
        return migrate(empty)

    with ThreadPoolExecutor(starters) as pool:
        ran = list(pool.map(run, range(starters)))
    assert sorted(ran) == [[]] * (starters - 1) + [[*NAMES, "views and roles"]]


def test_databases_of_one_server_migrate_at_once(server: str) -> None:
    """They share the roles, which the lock of one database does not guard."""
    names = [f"millrace_twin_{os.getpid()}_{number}" for number in range(6)]
    admin = create_engine(make_url(server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    engines = [create_engine(admin.url.set(database=name)) for name in names]
    try:
        with admin.connect() as conn:
            for name in names:
                conn.execute(text(f"create database {name}"))
        with ThreadPoolExecutor(len(names)) as pool:
            assert all(pool.map(migrate, engines))
    finally:
        for engine in engines:
            engine.dispose()
        with admin.connect() as conn:
            for name in names:
                conn.execute(text(f"drop database if exists {name} with (force)"))
        admin.dispose()


def test_an_edited_file_is_refused(empty: Engine, folder: Path) -> None:
    migrate(empty, folder)
    edited = folder / f"{NAMES[1]}.sql"
    edited.write_text(edited.read_text() + "\n-- an afterthought\n")
    with pytest.raises(SchemaOutOfDate, match=rf"{NAMES[1]}\.sql was edited after it ran.*new migration"):
        migrate(empty, folder)


def test_a_file_that_is_gone_is_refused(empty: Engine, folder: Path) -> None:
    migrate(empty, folder)
    (folder / f"{NAMES[-1]}.sql").unlink()
    with pytest.raises(SchemaOutOfDate, match=f"has run {NAMES[-1]}, which this checkout lacks"):
        migrate(empty, folder)


def test_a_new_file_runs_alone(empty: Engine, folder: Path) -> None:
    migrate(empty, folder)
    added = f"{len(NAMES) + 1:04}_added"
    (folder / f"{added}.sql").write_text("create table millrace.added (note text default ':not_a_bind 100%');")
    assert migrate(empty, folder) == [added, "views and roles"]
    assert scalar(empty, "select count(*) from millrace.added") == 0


def test_a_file_that_fails_leaves_nothing_of_itself_and_can_be_mended(empty: Engine, folder: Path) -> None:
    broken = folder / f"{len(NAMES) + 1:04}_broken.sql"
    broken.write_text("create table millrace.half (id int); select 1 / 0;")
    with pytest.raises(Exception, match="division by zero"):
        migrate(empty, folder)
    assert scalar(empty, "select to_regclass('millrace.half')") is None
    assert [name for (name,) in rows(empty, "select name from millrace_migrations order by name")] == NAMES
    broken.write_text("create table millrace.half (id int);")
    assert migrate(empty, folder) == [broken.stem, "views and roles"]


def test_views_are_laid_anew_when_their_text_changed(empty: Engine) -> None:
    migrate(empty)
    with transaction(empty) as conn:
        conn.execute(text("update millrace_migrations set checksum = 'older' where name = 'views and roles'"))
        conn.execute(text("drop view analytics.scoring_runs"))
    assert migrate(empty) == ["views and roles"]
    assert scalar(empty, "select to_regclass('analytics.scoring_runs')") is not None


def bare(sql: str) -> str:
    """The statement without the comments before it."""
    return re.sub(r"\A(--.*\n)+", "", sql)


def statements() -> dict[str, str]:
    """Every statement; one that is the same for every source once for each."""
    fixed = {name: sql for name, sql in QUERIES.items() if "source_r" not in sql}
    filled = {
        f"{name} of {source.name}": str(queries.of(source, name))
        for name in QUERIES.keys() - fixed.keys()
        for source in SOURCES.values()
    }
    return fixed | filled


def test_every_named_query_is_valid_here(engine: Engine) -> None:
    """PREPARE parses a statement and looks every name and type up, without running it; DDL it does not take."""
    wrong = {}
    with engine.connect() as conn:
        conn.execute(queries["labels.stage"])
        for name, sql in statements().items():
            compiled = str(text(bare(sql)).compile(dialect=postgresql.dialect(paramstyle="numeric_dollar")))
            prepare = "" if compiled.startswith(("create ", "lock ")) else f'prepare "{name}" as '
            try:
                with conn.begin_nested():
                    conn.exec_driver_sql(prepare + compiled.replace("%%", "%"))
            except DBAPIError as error:
                wrong[name] = str(error.orig)
    assert wrong == {}


def test_every_named_query_is_used() -> None:
    code = "\n".join(path.read_text() for path in (PROJECT / "mllib").rglob("*.py"))
    assert len(QUERIES) > 30
    assert [name for name in QUERIES if f'"{name}"' not in code] == []


def test_every_query_that_is_used_exists() -> None:
    code = "\n".join(path.read_text() for path in (PROJECT / "mllib").rglob("*.py"))
    code = code.replace('queries["topic.name"]', "")  # in a docstring
    used = set(re.findall(r'queries\["([a-z_.]+)"\]|queries\.raw\("([a-z_.]+)"\)', code))
    assert used
    assert {one or other for one, other in used} <= set(QUERIES)


@pytest.mark.parametrize(
    "content",
    ["select 1;", "-- name: one\nselect 1;", "-- name: one\n-- says so\nselect 1;\n-- name: two\nselect 2;", ""],
    ids=["no name", "no description", "the second has no description", "nothing"],
)
def test_a_query_without_name_or_description_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "topic.sql"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"topic\.sql: every statement starts with"):
        parse(file)
