"""Finds and calls our compiled code, which stands beside its module where the installation found a compiler."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def compiled_function(name: str, *, library: str) -> Any:
    """A function of a library of this package ("detectors/_walk_c"), None where there is none: then Python does it."""
    for path in Path(__file__).parent.glob(f"{library}*.so"):
        try:
            return getattr(ctypes.CDLL(str(path)), name)
        except (OSError, AttributeError):
            continue  # built for another machine, or by another version
    return None


def pointer(dtype: type[np.generic] | np.dtype[np.void], dimensions: int) -> type:
    """The type of an argument that is a contiguous array; any other array raises ``ctypes.ArgumentError``.

    ``np.ctypeslib.ndpointer`` takes three times as long: its 30 arguments were a tenth of scoring a single line.
    """
    wanted = np.dtype(dtype)

    class Pointer:
        @staticmethod
        def from_param(array: NDArray[Any]) -> ctypes.c_void_p:
            if array.dtype != wanted or array.ndim != dimensions or not array.flags.c_contiguous:
                raise TypeError(f"a contiguous array of {wanted} in {dimensions} dimensions is needed")
            return ctypes.c_void_p(array.ctypes.data)

    return Pointer
