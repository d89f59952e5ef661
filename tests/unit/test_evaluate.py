"""A detector measured on files: how rows are cut, what is measured, that it repeats, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mllib.detectors
from mllib import demo
from mllib.cli import main
from mllib.demo.connections import generate_connections
from mllib.detectors import detector
from mllib.errors import BadInput, MillraceError, NothingToTrainOn
from mllib.jobs.evaluating import Protocol, evaluate
from mllib.jobs.evaluation_slices import cut
from tests.db.factories import json_line, write_lines
from tests.db.source_factories import FLOW_HEADER, flow_line, run_line
from tests.factories import START

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CLASSES = ("BENIGN", "PortScan", "DoS Hulk")


@pytest.fixture(autouse=True)
def tiny_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny detectors are found beside the real ones."""
    folder = Path(__file__).parent.parent / "tiny" / "detectors"
    monkeypatch.setattr(mllib.detectors, "__path__", [*mllib.detectors.__path__, str(folder)])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two weeks of labelled logs in two files."""
    return demo.generate(tmp_path_factory.mktemp("demo"), now=NOW, days=14, rows=8_000)


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Labelled connections, to learn from and to measure on."""
    folder = tmp_path_factory.mktemp("flows")
    return (
        generate_connections(folder / "train.csv", rows=3_000, seed=1),
        generate_connections(folder / "test.csv", rows=2_000, seed=2),
    )


def repeatable(found: Any) -> Any:
    """A report without what says how long it took."""
    if isinstance(found, dict):
        timed = ("seconds", "processor_seconds")
        return {name: repeatable(value) for name, value in found.items() if name not in timed}
    return [repeatable(value) for value in found] if isinstance(found, list) else found


def log_lines(path: Path, rows: int, level: Callable[[int], str], **keys: Any) -> Path:
    """Log lines a minute apart whose duration tells their level, every tenth of them labelled an anomaly."""
    path.parent.mkdir(exist_ok=True)
    took = {"INFO": 5, "WARNING": 15, "ERROR": 25}
    lines = [
        json.dumps(
            {
                "ts": (START + timedelta(minutes=number)).isoformat(),
                "level": level(number),
                "service": f"s{number % 3}",
                "message": f"{path.stem} request {number} took {took.get(level(number), 5)}",
                "label": int(number % 10 == 0),
                **keys,
            }
        )
        for number in range(rows)
    ]
    return write_lines(path, *lines)


def of_three(number: int) -> str:
    return ("INFO", "INFO", "WARNING", "ERROR")[number * 7919 % 4]


def test_the_first_rows_by_time_are_learned_from_and_the_last_measured_on(shop: list[Path]) -> None:
    found = evaluate("log_anomaly", shop, Protocol(split=0.6))

    assert found["metric"] == "f1"
    assert [file["sha256"] for file in found["files"]] == [hashlib.sha256(p.read_bytes()).hexdigest() for p in shop]
    (fold,) = found["folds"]
    train, validation, held_out = fold["train"], fold["validation"], fold["held_out"]
    assert held_out["rows"] == 3_200
    assert validation["rows"] == pytest.approx(1_200, abs=5)
    assert 3_400 < train["rows"] <= 3_600
    # The embargo is the context of the features: five minutes.
    assert datetime.fromisoformat(validation["from"]) - datetime.fromisoformat(train["to"]) >= timedelta(minutes=5)
    assert datetime.fromisoformat(held_out["from"]) - datetime.fromisoformat(validation["to"]) >= timedelta(minutes=5)
    assert held_out["judged"] + sum(held_out["left_out"].values()) == held_out["labelled"] == 3_200
    (seed,) = fold["seeds"]
    metrics = seed["metrics"]
    assert seed["threshold_by"] == "labels"
    assert seed["figure"] == 2 * metrics["true_positives"] / (metrics["alarms"] + metrics["positives"])
    assert seed["lower"] < seed["figure"] < seed["upper"]
    assert seed["figure"] > seed["trivial_f1"]
    assert {part["dimension"] for part in seed["segments"]} == {"service", "level"}
    by_service = [part for part in seed["segments"] if part["dimension"] == "service"]
    assert sum(part["rows"] for part in by_service) == held_out["judged"]


def test_the_same_seeds_give_the_same_report_and_others_another(flows: tuple[Path, Path]) -> None:
    def run(*seeds: int) -> dict[str, Any]:
        return evaluate("network_threat", flows[:1], Protocol(test=flows[1:], seeds=seeds), format_name="nsl_kdd")

    found = run(1, 2, 3)

    assert repeatable(run(1, 2, 3)) == repeatable(found)
    assert repeatable(run(2))["folds"][0]["seeds"][0] == repeatable(found)["folds"][0]["seeds"][1]
    (fold,) = found["folds"]
    assert len({seed["artifact_sha256"] for seed in fold["seeds"]}) == 3
    assert [file["role"] for file in found["files"]] == ["train", "test"]
    assert (fold["train"]["rows"], fold["validation"], fold["held_out"]["judged"]) == (3_000, None, 2_000)
    assert {seed["threshold_by"] for seed in fold["seeds"]} == {"detector"}
    figures = sorted(seed["figure"] for seed in fold["seeds"])
    assert (fold["median"]["lowest"], fold["median"]["figure"], fold["median"]["highest"]) == tuple(figures)
    assert found["figure"] == figures[1] > 0.7


def test_rows_of_one_time_stay_together_and_those_near_the_border_are_on_neither_side() -> None:
    minutes = [0, 1, 2, 3, 3, 3, 4, 8, 9, 10]
    rows = pl.DataFrame({"ts": [START + timedelta(minutes=minute) for minute in minutes], "file": ["a", "b"] * 5})

    early, late = cut(rows, 0.5, embargo=timedelta(0))
    assert (early.sum(), late.sum()) == (3, 7)
    early, late = cut(rows, 0.5, embargo=timedelta(minutes=2))
    assert early.to_list() == [True] + [False] * 9
    assert late.sum() == 7
    # Each file for itself: a has 0 2 3 4 9, b has 1 3 3 8 10.
    early, late = cut(rows, 0.6, by="file", embargo=timedelta(0))
    assert rows.filter(late)["file"].to_list() == ["a", "b", "a", "b"]
    # By number where the order counts and not the time.
    early, late = cut(rows, 0.5, embargo=None)
    assert (early ^ late).all()
    assert early.to_list() == [True] * 5 + [False] * 5


def attacks(folder: Path, flags: Callable[[int], int], rows: int = 1_000) -> Path:
    """Flows of three classes; the last tenth of the file is all floods, as attacks come in bursts."""
    lines = []
    for number in range(rows):
        label = 2 if number >= rows * 9 // 10 else int(number * 7919 % 10 == 0)
        value = (0, 100, 200)[label] + flags(number)
        lines.append(flow_line(number, **{"SYN Flag Count": value}).rpartition(",")[0] + f",{CLASSES[label]}")
    return write_lines(folder / "attacks.csv", FLOW_HEADER, *lines)


def test_classes_in_bursts_are_cut_each_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = attacks(tmp_path, lambda number: number % 40)

    found = evaluate("tiny_attacks", [path], Protocol(by_class=True))

    (seed,) = found["folds"][0]["seeds"]
    rows = {figures["name"]: figures["rows"] for figures in seed["metrics"]["classes"]}
    assert rows == {"BENIGN": 243, "PortScan": 27, "DoS Hulk": 30}
    assert found["figure"] == 1.0
    assert found["folds"][0]["median"]["classes"] == dict.fromkeys(CLASSES, 1.0)

    # Half of the scans are taken for floods.
    monkeypatch.setattr(type(detector("tiny_attacks")), "cuts", (50.0, 120.0))
    worse = evaluate("tiny_attacks", [path], Protocol(by_class=True))["folds"][0]
    (seed,) = worse["seeds"]
    by_class = {part["value"]: part for part in seed["segments"] if part["dimension"] == "class"}
    scans = next(figures for figures in seed["metrics"]["classes"] if figures["name"] == "PortScan")
    assert (by_class["PortScan"]["f1"], by_class["PortScan"]["recall"]) == (scans["f1"], scans["recall"])
    assert 0 < scans["recall"] < 1
    assert seed["lower"] < seed["figure"] < seed["upper"] < 1
    # The scans are too few to be counted among the classes of which enough is known.
    known = [figures["f1"] for figures in seed["metrics"]["classes"] if figures["rows"] >= 30]
    assert worse["median"]["macro_f1_of_known"] == sum(known) / 2

    # By time the floods are all in the second part.
    by_time = evaluate("tiny_attacks", [path], Protocol())["folds"][0]
    assert by_time["held_out"]["anomalies"] > 100 > by_time["train"]["anomalies"]


def test_each_system_is_left_out_once_and_its_levels_are_hidden(tmp_path: Path) -> None:
    systems = [log_lines(tmp_path / f"{name}.jsonl", 300, of_three) for name in ("web", "mail", "shop")]

    found = evaluate("tiny_levels", systems, Protocol(leave_one_out=True))

    assert [fold["test"] for fold in found["folds"]] == ["web.jsonl", "mail.jsonl", "shop.jsonl"]
    for fold in found["folds"]:
        assert fold["held_out"]["judged"] == 300
        # Of each of the two others the last quarter chooses the threshold.
        assert fold["validation"]["rows"] == 150
        assert fold["median"]["figure"] == fold["median"]["macro_f1_of_known"] == 1.0
        assert {part["dimension"] for part in fold["seeds"][0]["segments"]} == {"class", "service"}
        assert fold["median"]["anomalies"]["rows"] == 300
    assert found["figure"] == 1.0


def test_without_labels_they_change_nothing_but_what_is_measured(shop: list[Path], tmp_path: Path) -> None:
    flipped = []
    for path in shop:
        lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        lines = [json.dumps({**line, "label": 1 - int(line["label"])}) for line in lines]
        flipped.append(write_lines(tmp_path / f"{path.name.partition('.')[0]}.jsonl", *lines))
    protocol = Protocol(no_labels=True, alerts_per_day=10.0)

    (seed,) = evaluate("log_light", shop, protocol)["folds"][0]["seeds"]
    (other,) = evaluate("log_light", flipped, protocol)["folds"][0]["seeds"]

    assert seed["threshold_by"] == "budget"
    assert seed["budgeted_rate"] == pytest.approx(10 * 9.8 / 5_600, rel=0.2)
    assert seed["artifact_sha256"] == other["artifact_sha256"]
    assert seed["metrics"]["alarms"] == other["metrics"]["alarms"]
    assert seed["figure"] != other["figure"]
    # A larger budget flags more.
    (more,) = evaluate("log_light", shop, Protocol(no_labels=True, alerts_per_day=40.0))["folds"][0]["seeds"]
    assert more["metrics"]["alarms"] > seed["metrics"]["alarms"]


def test_labels_of_a_csv_file_count_before_those_inside(tmp_path: Path) -> None:
    path = log_lines(tmp_path / "web.jsonl", 400, of_three)
    bare = log_lines(tmp_path / "bare" / "web.jsonl", 400, of_three, label=None)
    csv = write_lines(tmp_path / "labels.csv", "id,label", *(f"{n + 1},{int(n % 10 == 0)}" for n in range(400)))
    inside, beside = evaluate("log_light", [path], Protocol()), evaluate("log_light", [bare], Protocol(), labels=csv)
    assert beside["labels_sha256"] == hashlib.sha256(csv.read_bytes()).hexdigest()
    assert repeatable(beside["folds"]) == repeatable(inside["folds"])

    # The later verdict on a row counts, and rows that the file does not name keep their own.
    one = write_lines(tmp_path / "one.csv", "id,label", "400,0", "400,1")
    told = evaluate("log_light", [path], Protocol(), labels=one)["folds"][0]["held_out"]
    assert told["anomalies"] == inside["folds"][0]["held_out"]["anomalies"] + 1

    stray = write_lines(tmp_path / "stray.csv", "id,label", "1,0", "no-such-line,1")
    with pytest.raises(BadInput, match=r"1 of 2 labels in stray\.csv name no row, such as web/no-such-line"):
        evaluate("log_light", [path], Protocol(), labels=stray)
    same = write_lines(tmp_path / "same.jsonl", *(json_line(n, id=str(n % 200)) for n in range(400)))
    with pytest.raises(BadInput, match="name more than one row, such as same/"):
        evaluate("log_light", [same], Protocol(), labels=write_lines(tmp_path / "two.csv", "id,label", "7,1"))
    nameless = log_lines(tmp_path / "mail.jsonl", 50, of_three)
    with pytest.raises(BadInput, match="names no source"):
        evaluate("log_light", [path, nameless], Protocol(), labels=csv)
    with pytest.raises(BadInput, match="no file"):
        evaluate("log_light", [path], Protocol(), labels=tmp_path / "missing.csv")
    with pytest.raises(BadInput, match="same name"):
        evaluate("log_light", [path, bare], Protocol(), labels=csv)


def test_a_masked_column_is_not_shown_to_the_model(tmp_path: Path) -> None:
    path = log_lines(tmp_path / "web.jsonl", 800, lambda number: "ERROR" if number % 10 == 0 else "INFO", message="-")
    seen = evaluate("log_light", [path], Protocol())
    masked = evaluate("log_light", [path], Protocol(masked=("level",)))
    assert seen["figure"] == 1.0
    assert masked["figure"] == masked["folds"][0]["seeds"][0]["trivial_f1"] < 0.2
    assert masked["protocol"]["masked"] == ["level"]
    with pytest.raises(BadInput, match="no column 'severity'"):
        evaluate("log_light", [path], Protocol(masked=("severity",)))
    with pytest.raises(BadInput, match="is what tiny_levels is to tell"):
        evaluate("tiny_levels", [path], Protocol(masked=("level",)))


def test_rows_of_a_trace_that_began_before_are_left_out(tmp_path: Path) -> None:
    lines = [json_line(n, ts=START + timedelta(minutes=n), label=n % 2, trace_id=f"t-{n // 7}") for n in range(400)]
    fold = evaluate("log_light", [write_lines(tmp_path / "web.jsonl", *lines)], Protocol())["folds"][0]
    # Row 280 is the first to be measured on, and the first of its trace; with 0.71 it is the fifth.
    assert fold["held_out"]["left_out"]["trace"] == 0
    fold = evaluate("log_light", [tmp_path / "web.jsonl"], Protocol(split=0.71))["folds"][0]
    assert (fold["held_out"]["rows"], fold["held_out"]["left_out"]["trace"]) == (116, 3)


def test_rows_of_one_class_have_figures_but_no_f1(tmp_path: Path) -> None:
    path = log_lines(tmp_path / "web.jsonl", 800, of_three, label=0)
    found = evaluate("log_light", [path], Protocol())
    (fold,) = found["folds"]
    assert found["figure"] is fold["seeds"][0]["figure"] is None
    assert fold["seeds"][0]["metrics"]["alert_rate"] is not None
    assert fold["seeds"][0]["threshold_by"] == "budget"
    assert any("of one class, of which F1 says nothing" in remark for remark in found["remarks"])
    assert any("the budget of alerts chose the threshold" in remark for remark in found["remarks"])
    flows = attacks(tmp_path, lambda number: 0, rows=100)
    flows.write_text(flows.read_text().replace(CLASSES[1], CLASSES[0]).replace(CLASSES[2], CLASSES[0]))
    assert evaluate("tiny_attacks", [flows], Protocol())["figure"] is None


def test_lines_that_cannot_be_read_are_counted_and_told(tmp_path: Path) -> None:
    path = log_lines(tmp_path / "web.jsonl", 400, of_three)
    path.write_text(path.read_text() + "no json\n")
    found = evaluate("log_light", [path], Protocol())
    assert (found["files"][0]["rows"], found["files"][0]["rejected"]) == (400, 1)
    assert any("1 lines could not be read, the first line 401: " in remark for remark in found["remarks"])


def unlabelled(folder: Path) -> dict[str, Any]:
    return {"paths": [log_lines(folder / "a.jsonl", 400, of_three, label=None)]}


def label_is_a_list(folder: Path) -> dict[str, Any]:
    return {"paths": [log_lines(folder / "a.jsonl", 400, of_three, label=["1"])]}


def label_of_a_run_is_an_object(folder: Path) -> dict[str, Any]:
    path = write_lines(folder / "a.jsonl", *(run_line(n, label={"outcome": "failed"}) for n in range(50)))
    return {"name": "tiny_runs", "paths": [path]}


def no_class_it_knows(folder: Path) -> dict[str, Any]:
    return {"name": "tiny_levels", "paths": [log_lines(folder / "a.jsonl", 400, lambda number: "TRACE")]}


def missing(folder: Path) -> dict[str, Any]:
    return {"paths": [folder / "missing.jsonl"]}


def a_folder(folder: Path) -> dict[str, Any]:
    return {"paths": [folder], "format_name": "jsonl"}


def no_log_at_all(folder: Path) -> dict[str, Any]:
    path = folder / "noise.bin"
    path.write_bytes(bytes(range(256)) * 100)
    return {"paths": [path]}


def empty(folder: Path) -> dict[str, Any]:
    return {"paths": [write_lines(folder / "a.jsonl")], "format_name": "jsonl"}


def unknown_format(folder: Path) -> dict[str, Any]:
    return {**unlabelled(folder), "format_name": "xml"}


def wrong_source(folder: Path) -> dict[str, Any]:
    return {"paths": [attacks(folder, lambda number: 0)]}


def wrong_form(folder: Path) -> dict[str, Any]:
    return {"name": "network_threat", "paths": [attacks(folder, lambda number: 0)]}


def at_one_time(folder: Path) -> dict[str, Any]:
    return {"paths": [log_lines(folder / "a.jsonl", 400, of_three, ts=START.isoformat())]}


def the_same_rows_twice(folder: Path) -> dict[str, Any]:
    a, b = (log_lines(folder / part / "a.jsonl", 400, of_three) for part in ("x", "y"))
    return {"paths": [a], "protocol": Protocol(test=(b,))}


def nothing_left_to_leave_out(folder: Path) -> dict[str, Any]:
    return {"paths": [log_lines(folder / "a.jsonl", 400, of_three)], "protocol": Protocol(leave_one_out=True)}


def too_few(folder: Path) -> dict[str, Any]:
    return {"paths": [log_lines(folder / "a.jsonl", 40, of_three)]}


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (unlabelled, "has a label, so there is nothing to measure by"),
        (label_is_a_list, "has a label, so there is nothing to measure by"),
        (label_of_a_run_is_an_object, r"no row that can be read as pipeline_jsonl \(line 1: label is no text"),
        (no_class_it_knows, "has a level that tiny_levels tells apart, so there is nothing to measure by"),
        (missing, "There is no file"),
        (a_folder, "is not a file"),
        (no_log_at_all, "is none of those known"),
        (empty, "holds no row that can be read"),
        (unknown_format, "no log format named 'xml'"),
        (wrong_source, "holds rows of network_flows, and what is asked for are rows of logs"),
        (wrong_form, "is a flow of the form cicflowmeter, not nsl_kdd"),
        (at_one_time, "too close together in time"),
        (the_same_rows_twice, "same content"),
        (nothing_left_to_leave_out, "at least two are needed"),
        (too_few, "needs at least 100"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tmp_path: Path, make: Callable[[Path], dict[str, Any]], complaint: str
) -> None:
    given = {"name": "log_light", "protocol": Protocol(), **make(tmp_path)}
    with pytest.raises((BadInput, NothingToTrainOn), match=complaint):
        evaluate(given["name"], given["paths"], given["protocol"], format_name=given.get("format_name"))


def test_the_command_prints_one_json_object_and_needs_no_database(
    shop: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MILLRACE_DSN", raising=False)
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "nowhere"))
    asked = ["evaluate", "log_light", *map(str, shop), "--seeds", "2"]
    assert main(asked) == 0
    pretty = capsys.readouterr()
    assert main([*asked, "--json"]) == 0
    line = capsys.readouterr()
    assert len(line.out.splitlines()) == 1
    found = json.loads(pretty.out)
    assert repeatable(found) == repeatable(json.loads(line.out))
    assert [seed["seed"] for seed in found["folds"][0]["seeds"]] == [42, 43]

    assert main(["evaluate", "log_light", str(tmp_path / "missing.log")]) == 1
    failed = capsys.readouterr()
    assert (failed.out, len(failed.err.splitlines())) == ("", 1)
    assert failed.err.startswith("millrace: There is no file")
    with pytest.raises(MillraceError, match="no detector named"):
        evaluate("nonesuch", shop, Protocol())


@pytest.mark.parametrize(
    "wrong",
    [
        ["--split", "1"],
        ["--split", "nan"],
        ["--seed", "-1"],
        ["--seeds", "0"],
        ["--seed", "1", "--seeds", "2"],
        ["--alerts-per-day", "0"],
        ["--test", "b", "--leave-one-out"],
        ["--test", "b", "--split", "0.5"],
    ],
)
def test_options_that_cannot_be_meant_are_a_usage_error(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "log_light", "a", *wrong])
    assert left.value.code == 2
    assert "error: " in capsys.readouterr().err
