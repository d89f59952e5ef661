"""Brings the database to the schema of ``sql/``: numbered migrations forward, then views, functions and roles.

One transaction a file, an advisory lock around all, a checksum of every file that ran. Files that ran are never edited;
a change is a new file. Views, functions and roles say what shall be, and are laid anew whenever their text changed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from mllib.errors import SchemaOutOfDate
from mllib.settings import SQL
from mllib.store.database import connection, driver, transaction
from mllib.store.queries import queries

_LOCK = 7_241_113
_DEFINITIONS = "views and roles"  # and functions; the name is in databases that are there


def _checksum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def migration_files(folder: Path | None = None) -> list[Path]:
    """The migrations in their order. Raises ValueError when two share a number or one is missing."""
    files = sorted((folder or SQL / "migrations").glob("*.sql"))
    numbers = [int(path.name[:4]) for path in files]
    if numbers != list(range(1, len(files) + 1)):
        raise ValueError(f"migrations must be numbered 0001, 0002, ... without a gap, got {numbers}")
    return files


def migrate(engine: Engine, folder: Path | None = None) -> list[str]:
    """Runs what has not run yet, and returns the names of what it ran, empty when all was there.

    Safe to call from several processes at once. Raises SchemaOutOfDate when a file that ran was edited or removed
    since, or when the database is newer than this checkout.
    """
    files = {path.stem: path.read_text() for path in migration_files(folder)}
    with connection(engine) as conn:
        with conn.begin():
            conn.execute(text("select pg_advisory_lock(:lock)"), {"lock": _LOCK})
        try:
            done = _done(conn)
            _refuse_edited(files, done)
            ran = []
            for name, content in files.items():
                if name not in done:
                    _run(conn, name, content)
                    ran.append(name)
            definitions = _definitions()
            if ran or done.get(_DEFINITIONS) != _checksum(definitions):
                _run(conn, _DEFINITIONS, definitions)
                ran.append(_DEFINITIONS)
            return ran
        finally:
            with conn.begin():
                conn.execute(text("select pg_advisory_unlock(:lock)"), {"lock": _LOCK})


def require_schema(engine: Engine) -> None:
    """Raises SchemaOutOfDate unless every migration of this checkout has run."""
    with transaction(engine) as conn:
        # Only looks, so that a role without the right to create anything may ask.
        there = conn.execute(queries["schema.has_ledger"]).scalar_one()
        names = {row.name for row in conn.execute(queries["schema.list"])} if there else set()
    missing = [path.stem for path in migration_files() if path.stem not in names]
    if missing:
        raise SchemaOutOfDate(f"The database lacks {', '.join(missing)}. Run `millrace migrate`.")


def _done(conn: Connection) -> dict[str, str]:
    with conn.begin():
        conn.execute(queries["schema.create_ledger"])
        return {row.name: row.checksum for row in conn.execute(queries["schema.list"])}


def _refuse_edited(files: dict[str, str], done: dict[str, str]) -> None:
    for name, checksum in done.items():
        if name == _DEFINITIONS:
            continue
        if name not in files:
            raise SchemaOutOfDate(f"The database has run {name}, which this checkout lacks. Update the checkout.")
        if _checksum(files[name]) != checksum:
            raise SchemaOutOfDate(
                f"{name}.sql was edited after it ran here. Restore it, and put the change into a new migration."
            )


def _definitions() -> str:
    views = sorted((SQL / "views").glob("*.sql"))
    functions = sorted((SQL / "functions").glob("*.sql"))
    drops = [
        *(f"drop routine if exists analytics.{path.stem};" for path in functions),
        *(f"drop view if exists analytics.{path.stem};" for path in views),
    ]
    return "\n".join(
        [
            "create schema if not exists analytics;",
            "comment on schema analytics is 'What analysts read: views with a stated grain.';",
            *drops,
            *(path.read_text() for path in (*views, *functions)),
            (SQL / "roles.sql").read_text(),
        ]
    )


def _run(conn: Connection, name: str, content: str) -> None:
    with conn.begin():
        # Past SQLAlchemy, which would read the colons in a function's body as binds.
        driver(conn).execute(content.encode())
        conn.execute(queries["schema.record"], {"name": name, "checksum": _checksum(content)})
