"""The account that PostgreSQL runs as. It refuses to run as root, so then it gets another one."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Sequence
from pathlib import Path

from mllib.errors import StackProblem


def as_account(data: Path, *, reads: Sequence[Path]) -> list[str]:
    """The prefix that makes a command run as the account of the server's ``data``; empty unless we are root.

    The account gets past closed folders on the way to ``reads``. Raises StackProblem when there is no way to do it.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StackProblem(
            "PostgreSQL refuses to run as root, and `setpriv` (package util-linux), which would run it as "
            "another account, is missing. Install it, or run as an ordinary user."
        )
    account = server_account(data)
    prefix = [setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    if not all(_reachable(path, account) for path in reads):
        # A folder on the way is closed to others, as /root is. This one right lets the server pass through it;
        # the security bit makes access(2), with which PostgreSQL looks for its own files, respect that right.
        prefix += ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
        prefix += ["--bounding-set=-all,+dac_override", "--securebits=+no_setuid_fixup"]
    return [*prefix, "--"]


def server_account(data: Path | None = None) -> pwd.struct_passwd:
    """The unprivileged account that runs the server when we are root: the one that owns the data, if there are any."""
    if data is not None and data.exists():
        return pwd.getpwuid(data.stat().st_uid)
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StackProblem("PostgreSQL refuses to run as root, and there is no account `nobody`. Run as an ordinary user.")


def _reachable(path: Path, account: pwd.struct_passwd) -> bool:
    """Whether the account may enter every folder on the way to ``path``, and the path itself."""
    for step in (path, *path.parents):
        status = step.stat()
        shift = 6 if status.st_uid == account.pw_uid else 3 if status.st_gid == account.pw_gid else 0
        if not (status.st_mode >> shift) & 1:
            return False
    return True
