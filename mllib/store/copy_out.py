"""Rows out of the database as text, many at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors, pq, sql


@dataclass(slots=True)
class Lines:
    """Rows as lines of CSV."""

    text: io.BytesIO = field(default_factory=io.BytesIO)
    rows: int = 0


def copy_out(conn: psycopg.Connection[Any], statement: sql.Composed, begun: Lines, most: int) -> Iterator[Lines]:
    """The rows, ``most`` at a time, the first ones added to those ``begun``; at last what is left, even if it is none.

    What has arrived is taken past the cursor, whose bookkeeping costs more than the row, and goes into the text at
    once: an object for each line would cost as much again.
    """
    lines, begin = begun, begun.rows
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        take, more = conn.pgconn.get_copy_data, True
        while more:
            write = lines.text.write
            for row in range(begin, most):
                size, line = take(1)
                if size > 0:
                    write(line)
                elif size < 0 or not write(copy.read()):
                    lines.rows, more = row, False
                    break
            else:
                lines.rows = most
                yield lines
                lines, begin = Lines(), 0
        while (result := conn.pgconn.get_result()) is not None:
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise errors.error_from_result(result)
    yield lines
