"""What the slices of a model version hold, for the sentences that go with a verdict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from mllib.gate.changes import SliceContents
from mllib.store import detectors
from mllib.store.queries import queries
from mllib.types import Window


def slice_contents(
    conn: Connection,
    detector: str,
    version: int,
    windows: Mapping[str, Window],
    label_counts: Mapping[str, Any],
) -> dict[str, SliceContents]:
    """Contents of a version's slices by name (train, validation, holdout), out of their windows and label counts.

    Rows and kinds are those stored now, labels those that were known when it was trained.
    """
    keys = {"detector": detector, "version": version}
    source = detectors.source_of(detector)
    rows: dict[str, int] = defaultdict(int)
    kinds: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: {dimension: {} for dimension in source.segments})
    for row in conn.execute(queries.of(source, "judging.slice_contents"), keys):
        rows[row.slice] += row.rows
        for dimension, value in zip(source.segments, row.segments, strict=True):
            if value is not None:
                of_value = kinds[row.slice][dimension]
                of_value[value] = of_value.get(value, 0) + row.rows
    return {
        name: SliceContents(
            rows=rows[name],
            length=window.length,
            labelled=label_counts.get(name, {}).get("labelled", 0),
            positives=label_counts.get(name, {}).get("positives", 0),
            kinds=kinds[name],
        )
        for name, window in windows.items()
    }
