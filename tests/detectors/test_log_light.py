"""log_light: what it reads out of one message is what it reads out of many."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mllib.detectors.log_light import MAX_CHARACTERS, _read

MESSAGES = [
    "",
    "all is well",
    "java.lang.NullPointerEXCEPTION at Shop.main",
    "Stack Trace follows",
    "stacktrace:\nCaused by: x",
    "scaused by",
    "kernel: panic\x00",
    "panicked",
    "request timed-out",
    "timeds out",
    "read ETIMEDOUT",
    "Connection was refused",
    "connection  refused",
    "econnreset\tbroken pipe",
    "network is unreachable",
    "UNABLE to connect",
    "\\N (?i) [a",
    "timeout" + "." * MAX_CHARACTERS,
    "." * MAX_CHARACTERS + "timeout",
    "x" * (MAX_CHARACTERS - 1) + "\n",
    "délai: timeout",
    "timſ out",
    "broKen pipe with the sign for Kelvin",
]


@pytest.mark.parametrize("message", [*MESSAGES, None])
def test_a_message_alone_is_read_as_among_many(message: str | None) -> None:
    alone = pl.Series("message", [message], dtype=pl.String)
    many = pl.Series("message", [message, *["é"] * 40], dtype=pl.String)
    assert np.array_equal(_read(alone)[0], _read(many)[0])


def test_the_messages_mention_what_they_should() -> None:
    """Otherwise the test above would compare nothing but zeros."""
    read = _read(pl.Series("message", MESSAGES))
    assert (read[:, 1:].sum(axis=0) >= 3).all()
    assert read[:, 0].max() == MAX_CHARACTERS
    assert _read(pl.Series("message", [], dtype=pl.String)).shape == (0, 4)
