"""A tiny detector of classes that the rows themselves hold, for log lines: their level, out of the message."""

from __future__ import annotations

import polars as pl

from tests.tiny.classes import CutDetector


class Tiny(CutDetector):
    """See the module."""

    name = "tiny_levels"
    source = "logs"
    truth = "level"
    names = ("INFO", "WARN", "ERROR")
    cuts = (10.0, 20.0)

    def true_classes(self, truth: pl.Series) -> pl.Series:
        known = truth.replace({"WARNING": "WARN"})
        return known.set(~known.is_in(self.names), None)

    def numbers(self, rows: pl.DataFrame) -> pl.Series:
        assert rows["level"].null_count() in (0, rows.height)
        return rows["message"].str.extract(r"took (\d+)").cast(pl.Float64).fill_null(0)
