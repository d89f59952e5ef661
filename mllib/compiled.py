"""Finds our compiled code, which stands beside the module that calls it where the installation found a compiler."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any


def compiled_function(name: str, *, library: str, beside: str) -> Any:
    """The function of this name in a library beside a file, None where there is none: then Python or numpy does it."""
    for path in Path(beside).parent.glob(f"{library}*.so"):
        try:
            return getattr(ctypes.CDLL(str(path)), name)
        except (OSError, AttributeError):
            continue  # built for another machine, or by another version
    return None
