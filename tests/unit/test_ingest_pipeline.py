"""CI/CD runs as JSON lines: with their features, and whatever is wrong with them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from mllib.ingest import detect, format_named
from mllib.ingest.base import ParseOptions, Refused, RunRecord
from mllib.ingest.reader import read
from mllib.sources import PIPELINE_FEATURES
from tests.db.source_factories import run_line
from tests.factories import START

PARSE = format_named("pipeline_jsonl").parser(ParseOptions())


def run(line: str) -> RunRecord:
    record = PARSE(line)
    assert isinstance(record, RunRecord)
    return record


def test_a_run() -> None:
    found = run(run_line(0, evidence={"remote_script": ["curl x | sh"]}, actor="someone"))
    assert (found.ts, found.source_id, found.label) == (START, "run-0", "failed")
    assert (found.provider, found.repository, found.branch) == ("github_actions", "shop/web", "main")
    assert len(found.features.numbers()) == len(PIPELINE_FEATURES) == 17
    assert found.features.values["error_lines"] == 400
    assert found.features.hosts == ("packages.example.org", "h0.example.org")
    assert found.features.evidence == {"remote_script": ["curl x | sh"]}
    assert found.attributes == {"actor": "someone"}


@pytest.mark.parametrize("label", ["passed", "success", "0", 0, False])
def test_what_passed_is_normal(label: object) -> None:
    assert run(run_line(1, label=label)).label == "0"


def test_features_that_are_missing_are_not_known() -> None:
    bare = json.dumps({"ts": START.isoformat(), "error_lines": 3, "test_failures": None})
    found = run(bare)
    assert (found.features.values["error_lines"], found.features.values["test_failures"]) == (3, None)
    assert (found.features.hosts, found.features.evidence, found.label) == ((), None, None)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"ts": None}, "no time stamp under the key ts"),
        ({"ts": "soon"}, "cannot be read"),
        ({"error_lines": "many"}, 'error_lines is "many", which is no number'),
        ({"error_lines": True}, "error_lines is true, which is no number"),
        ({"error_lines": -1}, "error_lines is -1, which is not finite or below 0"),
        ({"error_lines": float("nan")}, "error_lines is"),
        ({"hosts": "packages.example.org"}, "hosts is no list of names"),
        ({"hosts": [str(number) for number in range(101)]}, "101 hosts; at most 100 are stored"),
        ({"evidence": ["x"]}, "evidence is no object"),
        ({"evidence": {"token": "x" * 40_000}}, "the evidence is longer than 32,768 bytes"),
        ({"repository": {"name": "web"}}, "repository is no text"),
        ({"log": "all of it"}, "both a log and features that are computed from it: "),
        ({"log": 7}, "log is no text"),
        (dict.fromkeys(PIPELINE_FEATURES), "neither a log nor one of the features duration_s, log_lines"),
    ],
)
def test_a_run_that_is_none_is_refused(keys: dict[str, object], complaint: str) -> None:
    with pytest.raises(Refused) as refused:
        PARSE(run_line(1, **keys))
    assert complaint in str(refused.value)


def test_a_line_of_fifty_megabytes_is_a_reject_and_its_neighbours_are_not(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    with path.open("w") as file:
        file.write(run_line(1) + "\n")
        file.write('{"ts": "2026-01-05T10:00:00Z", "repository": "shop/web", "log": "')
        for _ in range(50):
            file.write("x" * 1_000_000)
        file.write('"}\n' + run_line(2) + "\n")
    tracemalloc.start()
    batches = list(read(path, format_named("pipeline_jsonl")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [number for batch in batches for number, _ in batch.records] == [1, 3]
    (reject,) = (reject for batch in batches for reject in batch.rejects)
    assert reject.reason.startswith("the line has 50,000,")
    assert peak < 100 * 2**20


def test_it_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(map(run_line, range(20))) + "\n")
    assert detect(path).name == "pipeline_jsonl"
