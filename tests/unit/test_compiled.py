"""What compiled code is handed: the arrays it expects, and no others."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from mllib.compiled import pointer

GIVEN = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_an_array_is_handed_over_by_its_address() -> None:
    assert pointer(np.float32, 2).from_param(GIVEN).value == GIVEN.ctypes.data  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "other", [GIVEN.astype(np.float64), GIVEN.astype(">f4"), GIVEN[0], GIVEN[:, :2], GIVEN.T, GIVEN.tolist(), None]
)
def test_any_other_is_refused_before_the_call(other: Any) -> None:
    function = ctypes.CDLL(None).abs
    function.argtypes = [pointer(np.float32, 2)]
    with pytest.raises(ctypes.ArgumentError):
        function(other)
