"""Arrays behind which no memory may be read: compiled code that goes too far ends the test run."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

_NO_ACCESS = 0


def at_the_end_of_memory(rows: np.ndarray) -> np.ndarray:
    """A copy whose last byte is the last of its page; the page behind it is closed."""
    size = -(-rows.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, size + mmap.PAGESIZE)
    closed = ctypes.c_char.from_buffer(pages, size)
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(ctypes.addressof(closed)), mmap.PAGESIZE, _NO_ACCESS):
        raise OSError("a page could not be closed")
    copy = np.frombuffer(pages, dtype=rows.dtype, count=rows.size, offset=size - rows.nbytes).reshape(rows.shape)
    copy[...] = rows
    return copy
