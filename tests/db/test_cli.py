"""The commands as a shell runs them: exit codes, one clear sentence on stderr, and the JSON on the last line."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, make_url

from mllib import demo
from tests.db.scoring_factories import check_accounts, insert_logs, make_partitions, promote_model, rows, store_model

BUILT = {
    *("up", "down", "status", "dsn", "migrate", "ingest", "label", "train", "score", "models", "promote"),
    "sessions",
    *("rollback", "doctor", "maintain", "retain", "adopt", "rescore", "backlog", "reproduce", "report", "replay"),
    "evaluate",
    "evaluate-sessions",
}


def millrace(*arguments: str, dsn: str | None = None, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    if dsn is not None:
        environment["MILLRACE_DSN"] = dsn
    environment["MILLRACE_HOME"] = str(home or "/nonexistent")
    return subprocess.run(
        [sys.executable, "-m", "mllib", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def answer(*arguments: str, dsn: str) -> dict[str, Any]:
    """The JSON of a command that succeeds."""
    done = millrace(*arguments, "--json", dsn=dsn)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def complaint(*arguments: str, dsn: str | None = None) -> str:
    """The one sentence (or two) of a command that fails."""
    done = millrace(*arguments, dsn=dsn)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("millrace: ")
    assert line.endswith((".", "`"))
    return line


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return demo.generate(tmp_path_factory.mktemp("demo"), now=datetime(2026, 3, 1, tzinfo=UTC), days=14, rows=8_000)


def test_the_whole_job(dsn: str, engine: Engine, logs: list[Path]) -> None:
    folder = str(logs[0].parent)
    loaded = answer("ingest", folder, "--format", "jsonl", "--labels", dsn=dsn)
    assert {name: loaded[name] for name in ("files", "rows", "rejected", "labels")} == {
        "files": 2,
        "rows": 8_000,
        "rejected": 0,
        "labels": 8_000,
    }
    assert loaded["seconds"] > 0
    assert answer("ingest", folder, "--labels", dsn=dsn)["files"] == 0

    trained = answer("train", "log_anomaly", "--min-positives", "20", dsn=dsn)
    expected = {"detector", "version", "verdict", "candidate_f1", "champion_f1", "holdout_rows", "holdout_positives"}
    assert {*expected, "holdout_hash", "reason"} <= trained.keys()
    assert (trained["version"], trained["verdict"], trained["champion_f1"]) == (1, "promote", None)
    assert trained["candidate_f1"] > 0.2

    scored = answer("score", "log_anomaly", dsn=dsn)
    assert scored.keys() >= {
        "detector",
        "model_version",
        "claimed",
        "scored",
        "anomalies",
        "seconds",
        "rows_per_second",
    }
    assert (scored["detector"], scored["model_version"]) == ("log_anomaly", 1)
    assert scored["claimed"] == scored["scored"] == 8_000
    assert scored["rows_per_second"] == pytest.approx(8_000 / scored["seconds"], rel=0.01)
    assert (scored["anomalies"],) == rows(engine, "select count(*) from millrace.predictions where is_anomaly")[0]
    again = answer("score", "log_anomaly", dsn=dsn)
    assert (again["claimed"], again["scored"], again["rows_per_second"]) == (0, 0, 0)
    window = answer("score", "log_anomaly", "--from", "2026-02-20T10:00", "--to", "2026-02-20T14:00+02:00", dsn=dsn)
    inside = "select count(*) from millrace.logs where ts >= '2026-02-20 10:00Z' and ts < '2026-02-20 12:00Z'"
    assert [(window["scored"],)] == rows(engine, inside)
    check_accounts(engine, ever=8_000 + window["scored"])

    tie = answer("train", "log_anomaly", "--policy", "evidence", "--as-of", "2026-03-01", dsn=dsn)
    assert (tie["version"], tie["champion_version"], tie["policy"]) == (2, 1, "evidence")
    assert tie["verdict"] in ("refuse", "not_enough_evidence")
    assert [version["version"] for version in answer("models", dsn=dsn)["models"]] == [2, 1]


def test_labels_from_a_file(dsn: str, tmp_path: Path) -> None:
    line = '{{"ts": "2026-01-01T00:00:{0:02d}Z", "id": "a{0}", "message": "m"}}\n'
    log = tmp_path / "app.jsonl.gz"
    log.write_bytes(gzip.compress("".join(line.format(n) for n in range(5)).encode()))
    assert answer("ingest", str(log), dsn=dsn)["rows"] == 5
    verdicts = tmp_path / "verdicts.csv"
    verdicts.write_text("id,label,note\na1,1,odd\na2,0,\n")
    assert answer("label", str(verdicts), "--source", "app", dsn=dsn) == {"labels": 2}
    assert "--source NAME" in complaint("label", str(verdicts), dsn=dsn)
    assert "There is no file" in complaint("label", str(tmp_path / "none.csv"), dsn=dsn)
    assert "There is no file or folder" in complaint("ingest", str(tmp_path / "none"), dsn=dsn)
    assert "'x'. Known: bgl" in complaint("ingest", str(log), "--format", "x", dsn=dsn)


def test_champions_by_hand(dsn: str, engine: Engine) -> None:
    first = promote_model(engine)
    second = store_model(engine, threshold=0.45)
    assert answer("promote", "log_anomaly", f"{second}", "--against", "current", "--reason", "better", dsn=dsn) == {
        "detector": "log_anomaly",
        "champion": second,
        "before": first,
    }
    assert "is champion already" in complaint("promote", "log_anomaly", f"{second}", "--reason", "again", dsn=dsn)
    assert "has no version 9" in complaint("promote", "log_anomaly", "9", "--reason", "try", dsn=dsn)
    assert answer("rollback", "log_anomaly", "--reason", "worse", dsn=dsn)["champion"] == first
    assert "no earlier champion" in complaint("rollback", "log_anomaly", "--reason", "more", dsn=dsn)
    assert "needs a reason" in complaint("rollback", "log_anomaly", "--reason", " ", dsn=dsn)


def test_what_cannot_be_done_yet(dsn: str, engine: Engine) -> None:
    assert "Ingest some with `millrace ingest" in complaint("train", "log_anomaly", dsn=dsn)
    make_partitions(engine)
    insert_logs(engine, 10)
    assert "Train one with `millrace train log_anomaly`" in complaint("score", "log_anomaly", "--json", dsn=dsn)
    assert rows(engine, "select count(*) from millrace.scoring_runs") == [(0,)]
    promote_model(engine)
    assert "has no version 7" in complaint("score", "log_anomaly", "--model", "7", dsn=dsn)
    assert answer("score", "log_anomaly", dsn=dsn)["scored"] == 10


@pytest.mark.parametrize("command", [("score", "nosuch"), ("train", "nosuch"), ("models", "nosuch")])
def test_an_unknown_detector(dsn: str, command: tuple[str, ...]) -> None:
    assert "no detector named 'nosuch'. Known: log_anomaly" in complaint(*command, dsn=dsn)


def test_a_database_without_the_schema(empty_dsn: str) -> None:
    for command in (("score", "log_anomaly"), ("models",), ("ingest", ".")):
        assert "Run `millrace migrate`" in complaint(*command, dsn=empty_dsn)
    ran = answer("migrate", dsn=empty_dsn)["ran"]
    assert ran[0].startswith("0001")
    assert answer("migrate", dsn=empty_dsn) == {"ran": []}
    assert "no champion yet" in complaint("score", "log_anomaly", dsn=empty_dsn)


def test_a_database_that_does_not_answer() -> None:
    said = complaint("score", "log_anomaly", dsn="postgresql://someone:hushhush@127.0.0.1:1/logs")
    assert "Cannot connect to" in said
    assert "Is the database running?" in said
    assert "hushhush" not in said
    assert "hushhush" not in complaint("models", dsn="mysql://someone:hushhush@127.0.0.1/logs")
    assert "is not a database URL" in complaint("models", dsn="no url at all")


def test_without_a_local_database(tmp_path: Path) -> None:
    done = millrace("score", "log_anomaly", home=tmp_path)
    assert done.returncode == 1
    assert "make run" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_connection_string_without_its_password(dsn: str) -> None:
    password = make_url(dsn).password
    assert password is not None
    hidden = millrace("dsn", dsn=dsn)
    assert (hidden.returncode, hidden.stderr) == (0, "")
    assert password not in hidden.stdout
    assert ":***@" in hidden.stdout
    assert millrace("dsn", "--show", dsn=dsn).stdout == f"{dsn}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: COMMAND"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["score"], "required: DETECTOR"),
        (["score", "log_anomaly", "--from", "yesterday", "--to", "2026-01-01"], "'yesterday' is no time; write 2026"),
        (["score", "log_anomaly", "--from", "2026-13-01", "--to", "2026-01-01"], "'2026-13-01' is no time"),
        (["score", "log_anomaly", "--from", "2026-01-01"], "a window needs both ends"),
        (["score", "log_anomaly", "--from", "2026-01-02", "--to", "2026-01-01"], "the window is empty"),
        (["score", "log_anomaly", "--from", "2026-01-01T02:00+02:00", "--to", "2026-01-01"], "the window is empty"),
        (["train", "log_anomaly", "--as-of", "now"], "'now' is no time"),
        (["train", "log_anomaly", "--policy", "lenient"], "invalid choice: 'lenient'"),
        (["train", "log_anomaly", "--min-positives", "0"], "'0' is no whole number from 1 on"),
        (["train", "log_anomaly", "--train-days", "-3"], "no whole number from 1 on"),
        (["promote", "log_anomaly", "2"], "required: --reason"),
        (["promote", "log_anomaly", "two", "--reason", "r"], "invalid int value: 'two'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    """No database is asked: there is none here."""
    done = millrace(*arguments, dsn="postgresql://nobody@127.0.0.1:1/none")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_what_there_is() -> None:
    done = millrace("--help")
    assert done.returncode == 0
    listed = re.findall(r"^    ([a-z-]+)(?: +\S|$)", done.stdout, re.MULTILINE)
    assert set(listed) == BUILT
    for name in listed:
        shown = millrace(name, "--help")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert shown.stdout.startswith(f"usage: millrace {name}")


def test_the_state_of_a_stack_that_is_down(tmp_path: Path) -> None:
    done = millrace("status", "--json", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[-1])["running"] is False
    assert millrace("down", home=tmp_path).returncode == 0
