"""Connections: one engine per process and database."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from mllib.errors import BadInput, DatabaseUnavailable, OutOfResources
from mllib.settings import redacted

# What a server in trouble says, by SQLSTATE, and what helps. Passing states: the same work succeeds later.
_REMEDIES = {
    "53100": "The disk of the database is full: make room there.",
    "53200": "The server has no memory left: lower its work_mem or give it more.",
    "53400": "A limit of the server's configuration was reached, such as temp_file_limit: raise it.",
    "57014": "The statement was stopped by the server's statement_timeout or by hand: raise the limit for this role.",
    "55P03": "Another session holds a lock for longer than this one may wait: see pg_locks.",
    "40P01": "Another session was in the way.",
    "25006": "The database takes no writes at present, as a standby does: see that MILLRACE_DSN names the primary.",
    "58030": "The server could not read or write its files: see its log.",
    "XX000": "The server met a fault of its own: see its log.",
}


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


# Of a connection that is lost, the pool would tell at length; the error that comes out of ``connection`` says it.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


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
            # Texts go over the wire as UTF-8, whatever the encoding of the database or PGCLIENTENCODING is.
            "client_encoding": "utf8",
            # JIT compiles for longer than these statements run; sessions left behind by a lost host must end.
            "options": "-c timezone=UTC -c jit=off -c tcp_keepalives_idle=60 -c random_page_cost=1.1",
            "connect_timeout": 10,
            # A network that vanished without a word is noticed in two minutes instead of two hours.
            "keepalives_idle": 60,
            "keepalives_interval": 10,
            "keepalives_count": 6,
        },
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that commits at the end, and rolls back on an error. Raises as ``connection``."""
    with connection(engine) as conn, conn.begin():
        yield conn


@contextmanager
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection out of the pool.

    Raises DatabaseUnavailable, with the password hidden, when there is none to be had or when it breaks, and its kind
    OutOfResources when the server has no room, time or connection for the work.
    """
    try:
        conn = engine.connect()
    except DBAPIError as error:
        raise _refused(engine, _said(error)) from None
    with conn:
        try:
            yield conn
        except (DBAPIError, psycopg.Error) as error:
            if conn.invalidated or driver(conn).closed:
                conn.invalidate()  # else the pool would try to roll it back
                raise DatabaseUnavailable(
                    f"The connection to {engine.url.render_as_string(hide_password=True)} broke: {_said(error)}. What "
                    "was not committed is undone; run the same again when the database is back."
                ) from error
            remedy = _REMEDIES.get(getattr(_cause(error), "sqlstate", None) or "")
            if remedy is None:
                raise
            raise OutOfResources(
                f"The database could not go on: {_said(error)}. {remedy} What was not committed is undone and nothing "
                "is lost; run the same again afterwards."
            ) from error


def _refused(engine: Engine, said: str) -> DatabaseUnavailable:
    server = engine.url.render_as_string(hide_password=True)
    if "too many" in said or "connection slots" in said:
        return OutOfResources(
            f"{server} has no connection left for us: {said}. A scoring run needs three at a time. Nothing is lost; "
            "run the same again when others have ended, or raise the limit."
        )
    hint = (
        "It is running and refused us."
        if "FATAL" in said
        else "Is the database running? `millrace status` shows the local one."
    )
    return DatabaseUnavailable(f"Cannot connect to {server}: {said}. {hint}")


def _cause(error: DBAPIError | psycopg.Error) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _said(error: DBAPIError | psycopg.Error) -> str:
    """What the server or the driver said, on one line and without the full stop."""
    cause = _cause(error)
    primary = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    return " ".join(str(primary or cause).split()).rstrip(".")


def driver(conn: Connection) -> psycopg.Connection[Any]:
    """The psycopg connection beneath, for COPY."""
    return cast("psycopg.Connection[Any]", conn.connection.driver_connection)
