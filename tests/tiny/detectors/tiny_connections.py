"""A tiny detector for rows of the source nsl_kdd_flows."""

from __future__ import annotations

from tests.tiny.base import TinyDetector


class Tiny(TinyDetector):
    """See the module."""

    name = "tiny_connections"
    source = "nsl_kdd_flows"
    column = "num_failed_logins"
