"""Runs commands as the doctor prints them, in a shell that knows millrace and psql."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mllib.local.postgres import binary


def shell(command: str, dsn: str) -> str:
    """What a command prints. Fails when it does."""
    path = os.pathsep.join([str(Path(sys.executable).parent), str(binary("psql").parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PATH": path, "MILLRACE_DSN": dsn},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
