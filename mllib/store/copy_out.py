"""Rows out of the database as text, many at a time."""

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


@dataclass(slots=True)
class Lines:
    """Rows as lines of CSV."""

    text: io.BytesIO = field(default_factory=io.BytesIO)
    rows: int = 0


Take = Callable[[Lines, int], int]
"""Adds what has arrived until the lines are so many. Then above 0, else 0, and below 0 at the end."""


def copy_out(conn: psycopg.Connection[Any], statement: sql.Composed, begun: Lines, most: int) -> Iterator[Lines]:
    """The rows, ``most`` at a time, the first ones added to those ``begun``; at last what is left, even if it is none.

    What has arrived is taken past the cursor, whose bookkeeping costs more than the row, and goes into the text at
    once: an object for each line would cost as much again.
    """
    lines = begun
    take = compiled_take(conn.pgconn) or take_in_python(conn.pgconn)
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        while (last := take(lines, most)) >= 0:
            if last == 0 and lines.rows < most:
                line = copy.read()
                if not line:
                    break
                lines.text.write(line)
                lines.rows += 1
            if lines.rows == most:
                yield lines
                lines = Lines()
        while (result := conn.pgconn.get_result()) is not None:
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise errors.error_from_result(result)
    yield lines


def take_in_python(conn: pq.abc.PGconn) -> Take:
    """``Take`` without a compiler."""
    get = conn.get_copy_data

    def take(lines: Lines, most: int) -> int:
        write = lines.text.write
        for row in range(lines.rows, most):
            size, line = get(1)
            if size <= 0:
                lines.rows = row
                return size
            write(line)
        lines.rows = most
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

    def take(lines: Lines, most: int) -> int:
        lines.rows += function(
            handle, get, release, most - lines.rows, room, _ROOM, *found,
        )  # fmt: skip
        lines.text.write(arrived[: used.value])
        if unfitting.value is not None:
            lines.text.write(ctypes.string_at(unfitting.value, last.value))
            release(unfitting)
            lines.rows += 1
        if last.value < -1:
            raise errors.OperationalError(f"reading rows failed: {conn.get_error_message()}")
        return last.value

    return take


@cache
def _functions() -> tuple[Any, Any, Any] | None:
    """Ours, and libpq's PQgetCopyData and PQfreemem. The driver's own module leads to the library it has loaded."""
    function = compiled_function("millrace_take_lines", library="store/_copy_lines_c")
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
