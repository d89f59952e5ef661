"""The detector on the page docs/howto/add-a-detector.md works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

import mllib.detectors
from mllib.jobs import scoring
from mllib.jobs.judging import judge_candidate
from mllib.jobs.training import fit_candidate
from mllib.settings import PROJECT
from tests.db.scoring_factories import rows, scalar

NAME = "log_shape"
PAGE = PROJECT / "docs" / "howto" / "add-a-detector.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds the page's file."""
    page = PAGE.read_text()
    assert f"`mllib/detectors/{NAME}.py`" in page
    [code] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / f"{NAME}.py").write_text(code)
    return tmp_path


@pytest.fixture
def added(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The detector, found as if its file lay among the others."""
    monkeypatch.setattr(mllib.detectors, "__path__", [*mllib.detectors.__path__, str(folder)])
    yield NAME
    sys.modules.pop(f"mllib.detectors.{NAME}", None)


def test_it_passes_the_contract_of_all_detectors(folder: Path) -> None:
    plugin = f"import mllib.detectors\nmllib.detectors.__path__.append({str(folder)!r})\n"
    (folder / "_one_more.py").write_text(plugin)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "_one_more", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/detectors", "-k", NAME],
        cwd=PROJECT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3_000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 30


def test_its_file_is_in_style(folder: Path) -> None:
    ruff = [str(Path(sys.executable).with_name("ruff"))]
    for check in (
        ["check", "--config", str(PROJECT / "pyproject.toml")],
        ["format", "--check", "--line-length", "120"],
    ):
        done = subprocess.run([*ruff, *check, str(folder / f"{NAME}.py")], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_it_is_trained_judged_and_scores(added: str, shop: Engine) -> None:
    assert added in mllib.detectors.names()
    assert "shape of the message" in mllib.detectors.describe(added)
    version = fit_candidate(shop, added, trained_by="test")
    report = judge_candidate(shop, added, version, decided_by="test")
    assert report.holdout_positives > 0
    done = scoring.score(shop, added, version=version, window=None)
    assert done.scored == scalar(shop, "select count(*) from millrace.logs")
    assert rows(
        shop,
        "select count(*) = count(explanation -> 'features') from analytics.predictions_current"
        " where detector = :name and is_anomaly",
        name=added,
    ) == [(True,)]
