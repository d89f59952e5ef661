"""Files as one frame in memory: the values that the database would store."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np

from mllib.ingest.frames import START as NO_TIME
from mllib.ingest.frames import read_files
from mllib.sources import SOURCES
from tests.db.factories import json_line, write_lines
from tests.db.source_factories import FLOW_HEADER, connection_line, flow_line, run_line
from tests.factories import START


def test_log_lines_of_several_files_in_order_of_time_with_ids_in_order_of_the_files(tmp_path: Path) -> None:
    late = write_lines(tmp_path / "late.log", json_line(5, label="1", trace_id="t", id="x"), json_line(3), "no json")
    early = write_lines(
        tmp_path / "early.log", json_line(4, level="", service="", response_time_ms=12.3456789, message="")
    )

    frame, (first, second) = read_files([late, early], SOURCES["logs"])

    assert {name: frame.schema[name] for name in SOURCES["logs"].schema} == SOURCES["logs"].schema
    assert frame["log_id"].to_list() == [2, 3, 1]
    assert frame["ts"].to_list() == [START + timedelta(seconds=number) for number in (3, 4, 5)]
    assert frame["file"].to_list() == ["late", "early", "late"]
    assert frame["source_id"].to_list() == ["2", "1", "x"]
    assert (frame["label"].to_list(), frame["trace_id"].to_list()) == ([None, None, "1"], [None, None, "t"])
    # An empty name is none, an empty message is one; a response time has four bytes.
    odd = frame.row(1, named=True)
    assert (odd["level"], odd["service"], odd["message"]) == (None, None, "")
    assert odd["response_time_ms"] == float(np.float32(12.3456789))
    assert (first.rows, first.labelled, first.rejected, first.format) == (2, 1, 1, "jsonl")
    assert first.reason is not None
    assert first.reason.startswith("line 3: ")
    assert (second.name, second.rejected, second.reason) == ("early.log", 0, None)


def test_flows_and_runs_have_their_features(tmp_path: Path) -> None:
    flows = write_lines(tmp_path / "flows.csv", FLOW_HEADER, *map(flow_line, range(12)))
    frame, _ = read_files([flows], SOURCES["cicflowmeter_flows"])
    assert frame.schema.items() >= SOURCES["cicflowmeter_flows"].schema.items()
    # What is infinite in the file is not known.
    assert frame["Flow Bytes/s"].to_list() == [None, *[12.5] * 10, None]
    assert (frame["dst_port"][0], frame["src_ip"][0]) == (443, "10.0.0.1")

    runs = write_lines(tmp_path / "runs.jsonl", *(run_line(n, evidence={"b": 1}) for n in range(3)))
    frame, _ = read_files([runs], SOURCES["pipeline_runs"])
    assert frame["hosts"].to_list() == [["packages.example.org", f"h{n}.example.org"] for n in range(3)]
    assert frame["evidence"].to_list() == ['{"b": 1}'] * 3
    assert frame["log_lines"].to_list() == [0.0, 1.0, 2.0]


def test_files_without_times_follow_each_other_from_a_fixed_time_on(tmp_path: Path) -> None:
    one, two = (
        write_lines(tmp_path / f"{name}.txt", *map(connection_line, rows))
        for name, rows in (("one", range(3)), ("two", range(3, 5)))
    )
    frame, _ = read_files([one, two], SOURCES["nsl_kdd_flows"])
    assert frame["ts"].to_list() == [NO_TIME + timedelta(seconds=number) for number in range(5)]
    assert frame["file"].to_list() == ["one"] * 3 + ["two"] * 2
    assert frame["protocol_type"].to_list() == ["tcp", "udp", "icmp", "tcp", "udp"]
