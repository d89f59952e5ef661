"""A tiny detector for rows of the source cicflowmeter_flows."""

from __future__ import annotations

from tests.tiny.base import TinyDetector


class Tiny(TinyDetector):
    """See the module."""

    name = "tiny_flows"
    source = "cicflowmeter_flows"
    column = "SYN Flag Count"
    classes = True
