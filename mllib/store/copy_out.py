"""Rows out of the database as it sends them, many at a time."""

from __future__ import annotations

import ctypes
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import psycopg
from psycopg import errors, pq, sql

from mllib.compiled import compiled_function

_ROOM = 1 << 16  # bytes; more never arrives at once
_HEADER = 19  # bytes that begin a binary COPY
_MARK = 2  # bytes that end it; a row has more


@dataclass(slots=True)
class Rows:
    """Rows of binary COPY one after the other, without the header and the end of it."""

    data: io.BytesIO = field(default_factory=io.BytesIO)
    count: int = 0

    def add(self, row: bytes | bytearray | memoryview) -> None:
        if len(row) > _MARK:
            self.data.write(row)
            self.count += 1


Take = Callable[[Rows, int], int]
"""Adds what has arrived until the rows are so many. Then above 0, else 0, and below 0 at the end."""


def copy_out(conn: psycopg.Connection[Any], query: sql.Composable, begun: Rows, most: int) -> Iterator[Rows]:
    """The rows of a query, ``most`` at a time, the first ones added to those ``begun``; at last the rest, even none.

    What has arrived is taken past the cursor, whose bookkeeping costs more than the row, and goes into one buffer at
    once: an object for each row would cost as much again.
    """
    rows = begun
    take = compiled_take(conn.pgconn) or take_in_python(conn.pgconn)
    statement = sql.SQL("copy ({}) to stdout (format binary)").format(query)
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        rows.add(copy.read()[_HEADER:])
        last = 1
        while last >= 0:
            if rows.count == most:
                yield rows
                rows = Rows()
            last = take(rows, most)
            if last == 0:
                if not (row := copy.read()):
                    break
                rows.add(row)
        while (result := conn.pgconn.get_result()) is not None:
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise errors.error_from_result(result)
    yield rows


def take_in_python(conn: pq.abc.PGconn) -> Take:
    """``Take`` without a compiler."""
    get = conn.get_copy_data

    def take(rows: Rows, most: int) -> int:
        while rows.count < most:
            size, row = get(1)
            if size <= 0:
                return size
            rows.add(row)
        return 1

    return take


def compiled_take(conn: pq.abc.PGconn) -> Take | None:
    """The compiled ``Take``, None where there is none."""
    functions = _functions()
    if functions is None:
        return None
    function, get, release = functions
    handle = cast("Any", conn).pgconn_ptr  # which the driver has for such uses, but not its types
    room = ctypes.create_string_buffer(_ROOM)
    arrived = memoryview(room)
    used, unfitting, last = ctypes.c_int64(), ctypes.c_void_p(), ctypes.c_int32()
    found = ctypes.byref(used), ctypes.byref(unfitting), ctypes.byref(last)

    def take(rows: Rows, most: int) -> int:
        rows.count += function(handle, get, release, most - rows.count, room, _ROOM, *found)
        rows.data.write(arrived[: used.value])
        if unfitting.value is not None:
            rows.add(ctypes.string_at(unfitting.value, last.value))
            release(unfitting)
        if last.value < -1:
            raise errors.OperationalError(f"reading rows failed: {conn.get_error_message()}")
        return last.value

    return take


@cache
def _functions() -> tuple[Any, Any, Any] | None:
    """Ours, and libpq's PQgetCopyData and PQfreemem. The driver's own module leads to the library it has loaded."""
    function = compiled_function("millrace_take_rows", library="store/_copy_rows_c")
    if function is None:
        return None
    try:
        libpq = ctypes.CDLL(sys.modules[pq.PGconn.__module__].__file__)
        get, release = libpq.PQgetCopyData, libpq.PQfreemem
    except (OSError, AttributeError):
        return None  # a driver in Python
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    release.restype, release.argtypes = None, [pointer]
    function.restype = size
    function.argtypes = [pointer, pointer, pointer, size, pointer, size, pointer, pointer, pointer]
    return function, get, release
