"""A tiny detector for rows of the source pipeline_runs."""

from __future__ import annotations

from tests.tiny.base import TinyDetector


class Tiny(TinyDetector):
    """See the module."""

    name = "tiny_runs"
    source = "pipeline_runs"
    column = "error_lines"
