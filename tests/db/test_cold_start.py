"""An hourly run is a fresh process: what it imports is a part of what it costs."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.db.scoring_factories import DETECTOR, insert_logs, promote_model

HEAVY = {"sklearn", "scipy", "pandas", "joblib", "airflow", "jinja2"}


def test_scoring_imports_nothing_heavy(engine):
    promote_model(engine)
    insert_logs(engine, 200)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mllib", "score", DETECTOR],
        env={**os.environ, "MILLRACE_DSN": engine.url.render_as_string(hide_password=False)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "200 rows scored" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"polars", "mllib"} <= imported
    assert not HEAVY & imported
