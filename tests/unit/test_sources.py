"""The closed list of sources, and the statements that are filled in from it."""

from __future__ import annotations

import re

import pytest

from mllib.detectors import detector, names
from mllib.errors import BadInput
from mllib.ingest import formats
from mllib.ingest.reader import LIMITS
from mllib.settings import SQL
from mllib.sources import SOURCES, TABLES, source, table
from mllib.store.queries import parse, queries

STATEMENTS = {name: text for path in (SQL / "queries").glob("*.sql") for name, text in parse(path).items()}
TEMPLATES = sorted(name for name, text in STATEMENTS.items() if "source_r" in text)


@pytest.mark.parametrize("name", names())
def test_every_detector_reads_a_source(name: str) -> None:
    assert detector(name).source in SOURCES


def test_every_format_writes_to_a_table_of_rows() -> None:
    tables = {table.name for table in TABLES}
    assert {format.table for format in formats().values()} == set(LIMITS) == tables
    assert {source.table.name for source in SOURCES.values()} == tables


def test_names_outside_the_list_are_refused() -> None:
    with pytest.raises(BadInput, match="Known: logs, pipeline_runs, nsl_kdd_flows, cicflowmeter_flows"):
        source("logs; drop table x")
    with pytest.raises(BadInput, match="Known: logs, pipeline_runs, network_flows"):
        table("predictions")


@pytest.mark.parametrize("name", SOURCES)
def test_a_frame_begins_with_what_every_frame_has(name: str) -> None:
    columns = list(SOURCES[name].schema)
    assert (columns[:2], columns[-1]) == (["log_id", "ts"], "claimed")
    assert set(SOURCES[name].segments) <= set(columns)


@pytest.mark.parametrize("name", TEMPLATES)
def test_statements_are_filled_in_whole(name: str) -> None:
    filled = {key: str(queries.of(rows, name)) for key, rows in SOURCES.items()}
    assert not [text for text in filled.values() if re.search(r"source_(rows|row_id|form|has)", text)]
    assert len({re.sub(r"\s+", " ", text) for text in filled.values()}) >= len(TABLES)
    if "source_has" in STATEMENTS[name]:
        assert "form = 'nsl_kdd'" in filled["nsl_kdd_flows"]
        assert "form =" not in filled["logs"]


def test_there_are_statements_to_fill_in() -> None:
    assert len(TEMPLATES) > 10
