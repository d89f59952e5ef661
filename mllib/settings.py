"""Where things are, out of the environment: no module reads an environment variable but this one."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mllib.errors import BadInput

PROJECT = Path(__file__).resolve().parent.parent
"""The checkout: the folder that holds dags, mllib and sql."""

SQL = PROJECT / "sql"


def home() -> Path:
    """The folder with the local stack's state, ``MILLRACE_HOME`` or ``.millrace`` in the checkout."""
    return Path(os.environ.get("MILLRACE_HOME") or PROJECT / ".millrace").resolve()


def landing() -> Path:
    """The folder that log files are put into to be ingested, ``MILLRACE_LANDING`` or ``landing`` in the home folder.

    Raises BadInput when it is on object storage: see `landing_uri`.
    """
    if (uri := landing_uri()) is not None:
        raise BadInput(f"MILLRACE_LANDING is {uri}; the local stack needs a folder of this machine there, or none.")
    return Path(os.environ.get("MILLRACE_LANDING") or home() / "landing").resolve()


def landing_uri() -> str | None:
    """``MILLRACE_LANDING`` where it is a URI, such as ``s3://aws_default@bucket/logs``, with an Airflow connection."""
    place = os.environ.get("MILLRACE_LANDING") or ""
    return place if "://" in place else None


def dsn_from_environment() -> str | None:
    """``MILLRACE_DSN``, a libpq URL such as ``postgresql://user:password@host:5432/millrace``, if it is set."""
    return os.environ.get("MILLRACE_DSN") or None


def redacted(dsn: str) -> str:
    """The same connection string with its password hidden, fit for logs and messages."""
    hidden = re.sub(r"(://[^:/@\s]*:)[^@\s]*@", r"\1***@", dsn)
    return re.sub(r"(password\s*=\s*)('[^']*'|\S+)", r"\1***", hidden, flags=re.IGNORECASE)
