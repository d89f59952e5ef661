"""Which rows of a frame are scored."""

from __future__ import annotations

import pytest

from mllib.detectors.base import claimed_rows
from tests.factories import empty_logs, make_logs


@pytest.mark.parametrize(
    "claimed",
    [
        [True] * 6,
        [False] * 6,
        [False, False, True, True, True, True],  # context first, as a rule
        [False, True, True, False, False, False],
        [True, False, True, True, False, True],
    ],
)
def test_all_claimed_rows_and_no_others_come_in_order(claimed: list[bool]) -> None:
    frame = make_logs(6, claimed=claimed)
    expected = [log_id for log_id, one in zip(frame["log_id"], claimed, strict=True) if one]
    assert claimed_rows(frame)["log_id"].to_list() == expected
    assert claimed_rows(frame).columns == frame.columns


def test_an_empty_frame_has_none() -> None:
    assert claimed_rows(empty_logs()).is_empty()
