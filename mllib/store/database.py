"""Connections: one engine per process and database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from mllib.errors import BadInput, DatabaseUnavailable
from mllib.settings import redacted


def _url(dsn: str) -> URL:
    try:
        url = make_url(dsn)
    except ArgumentError:
        raise BadInput(
            f"MILLRACE_DSN is not a database URL: {redacted(dsn)}. It looks like "
            "postgresql://user:password@host:5432/database."
        ) from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise BadInput(f"MILLRACE_DSN names {url.get_backend_name()}; Millrace works on PostgreSQL only.")
    return url.set(drivername="postgresql+psycopg")


@cache
def engine_for(dsn: str) -> Engine:
    """The engine of a connection string; the same string gives the same engine.

    Sessions run in UTC, and name themselves so that an operator sees in pg_stat_activity who holds what.
    Raises BadInput when the string is no PostgreSQL URL.
    """
    return create_engine(
        _url(dsn),
        pool_pre_ping=True,
        pool_size=4,
        connect_args={
            "application_name": "millrace",
            # JIT compiles for longer than these statements run; sessions left behind by a lost host must end.
            "options": "-c timezone=UTC -c jit=off -c tcp_keepalives_idle=60 -c random_page_cost=1.1",
            "connect_timeout": 10,
        },
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that commits at the end, and rolls back on an error.

    Raises DatabaseUnavailable, with the password hidden, when there is no connection to be had.
    """
    with connection(engine) as conn, conn.begin():
        yield conn


@contextmanager
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection out of the pool. Raises DatabaseUnavailable when there is none to be had, or when it breaks."""
    try:
        conn = engine.connect()
    except OperationalError as error:
        cause = " ".join(str(error.orig).split())
        raise DatabaseUnavailable(
            f"Cannot connect to {engine.url.render_as_string(hide_password=True)}: {cause}. "
            "Is the database running? `millrace status` shows the local one."
        ) from None
    with conn:
        try:
            yield conn
        except (DBAPIError, psycopg.Error) as error:
            if not (conn.invalidated or driver(conn).closed):
                raise
            conn.invalidate()  # else the pool would try to roll it back
            cause = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
            raise DatabaseUnavailable(
                f"The connection to {engine.url.render_as_string(hide_password=True)} broke: {cause}. What was not "
                "committed is undone; run the same again when the database is back."
            ) from error


def driver(conn: Connection) -> psycopg.Connection[Any]:
    """The psycopg connection beneath, for COPY."""
    return cast("psycopg.Connection[Any]", conn.connection.driver_connection)
