"""A tiny detector of classes that the labels say, for rows of the source cicflowmeter_flows."""

from __future__ import annotations

import polars as pl

from tests.tiny.classes import CutDetector


class Tiny(CutDetector):
    """See the module."""

    name = "tiny_attacks"
    source = "cicflowmeter_flows"
    tunes_threshold = False
    names = ("BENIGN", "PortScan", "DoS Hulk")
    cuts = (50.0, 140.0)

    def true_classes(self, truth: pl.Series) -> pl.Series:
        return truth.replace("0", "BENIGN")

    def numbers(self, rows: pl.DataFrame) -> pl.Series:
        return rows["SYN Flag Count"].fill_null(0)
