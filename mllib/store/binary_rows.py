"""Rows of binary COPY as columns."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from mllib.compiled import compiled_function, pointer

Schema = Mapping[str, pl.DataType | type[pl.DataType]]


class _Kind(NamedTuple):
    """How the values of a column are sent."""

    arrow: bytes  # their type in Arrow's C data interface; its first letter is what the compiled code knows them by
    form: str | None = None  # as the module ``struct`` has it, None for texts


_KINDS: dict[pl.DataType | type[pl.DataType], _Kind] = {
    pl.String: _Kind(b"Z"),  # bytes, until polars has seen that they are text
    pl.Int64: _Kind(b"l", ">q"),
    pl.Int32: _Kind(b"i", ">i"),
    pl.Float64: _Kind(b"g", ">d"),
    pl.Boolean: _Kind(b"b", ">?"),
    pl.Datetime("us", "UTC"): _Kind(b"tsu:UTC", ">q"),
}
_FROM_1970_TO_2000 = 946_684_800_000_000  # microseconds; PostgreSQL counts from 2000
_NULLABLE = 2


def frame(rows: memoryview, count: int, schema: Schema) -> pl.DataFrame:
    """``count`` rows as PostgreSQL sends them, without header and end of COPY, as a frame.

    The types must be those of the schema: text, bigint, integer, double precision, boolean, timestamptz. Raises
    ValueError when the rows are of others, and ComputeError when a text is not UTF-8.
    """
    columns = compiled_columns(rows, count, schema)
    if columns is None:
        columns = columns_in_python(rows, count, schema)
    typed = [column.cast(dtype) for column, dtype in zip(columns, schema.values(), strict=True)]
    return pl.DataFrame(typed, schema=list(schema))


def columns_in_python(rows: memoryview, count: int, schema: Schema) -> list[pl.Series]:
    """The columns without a compiler."""
    columns: list[list[Any]] = [[] for _ in schema]
    plan = [
        (values.append, _reader(_KINDS[dtype].form)) for values, dtype in zip(columns, schema.values(), strict=True)
    ]
    two, four = struct.Struct(">h").unpack_from, struct.Struct(">i").unpack_from
    at = 0
    try:
        for _ in range(count):
            (number,) = two(rows, at)
            at += 2
            if number != len(plan):
                raise _others()
            for append, read in plan:
                (size,) = four(rows, at)
                at += 4
                append(read(rows[at : at + size]) if size >= 0 else None)
                at += max(size, 0)
    except struct.error as error:
        raise _others() from error
    if at != len(rows):
        raise _others()
    return [
        pl.Series(values, dtype=pl.Int64) + _FROM_1970_TO_2000
        if dtype == pl.Datetime
        else pl.Series(values, dtype=pl.Binary if dtype == pl.String else dtype)
        for values, dtype in zip(columns, schema.values(), strict=True)
    ]


def compiled_columns(rows: memoryview, count: int, schema: Schema) -> list[pl.Series] | None:
    """The columns by compiled code, None where there is none."""
    functions = _functions()
    if functions is None:
        return None
    function, release_type = functions
    types = [_KINDS[dtype].arrow for dtype in schema.values()]
    arrays = (_Array * len(types))()
    failed = function(
        np.frombuffer(rows, dtype=np.uint8), len(rows), count, b"".join(kind[:1] for kind in types), arrays
    )
    if failed:
        raise MemoryError if failed == _NO_MEMORY else _others()
    return [pl.Series(_Column(*column, release_type)) for column in zip(arrays, types, strict=True)]


_NO_MEMORY = 2


def _others() -> ValueError:
    return ValueError("The database sends rows of other types than were asked for.")


def _reader(form: str | None) -> Callable[[memoryview], Any]:
    if form is None:
        return bytes
    unpack = struct.Struct(form).unpack
    return lambda value: unpack(value)[0]


class _Array(ctypes.Structure):
    """``ArrowArray`` of Arrow's C data interface."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
        *((name, ctypes.c_void_p) for name in ("buffers", "children", "dictionary", "release", "private_data")),
    )


class _Schema(ctypes.Structure):
    """``ArrowSchema``."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("format", "name", "metadata")),
        *((name, ctypes.c_int64) for name in ("flags", "n_children")),
        *((name, ctypes.c_void_p) for name in ("children", "dictionary", "release", "private_data")),
    )


class _Column:
    """A column in the compiled code's memory, for polars to take over."""

    def __init__(self, array: _Array, arrow_type: bytes, release_type: int) -> None:
        self._array = array
        self._type = _Schema(format=arrow_type, name=b"", flags=_NULLABLE, release=release_type)

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return _capsule(self._type, b"arrow_schema"), _capsule(self._array, b"arrow_array")


def _capsule(content: ctypes.Structure, name: bytes) -> object:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(ctypes.addressof(content), name, None)


@cache
def _functions() -> tuple[Any, int] | None:
    """What makes columns, and the address of what releases a type."""
    library = "store/_copy_rows_c"
    function = compiled_function("millrace_columns", library=library)
    release = compiled_function("millrace_release_schema", library=library)
    if function is None or release is None:
        return None
    size, address = ctypes.c_int64, ctypes.c_void_p
    function.restype = ctypes.c_int32
    function.argtypes = [pointer(np.uint8, 1), size, size, ctypes.c_char_p, address]
    return function, ctypes.cast(release, address).value or 0
