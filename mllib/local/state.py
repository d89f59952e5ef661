"""What the local stack keeps on disk: its folders, its generated secrets, its ports, and the lock that guards them."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mllib.errors import StackProblem

LOOPBACK = "127.0.0.1"


def prepare_home(home: Path) -> None:
    """Create the home folder and its subfolders, readable by their owner only.

    Raises StackProblem when the folder belongs to somebody else or cannot be written.
    """
    try:
        # PostgreSQL, which refuses root, runs as another account then and must be able to pass through.
        _private_folder(home, 0o711 if os.geteuid() == 0 else 0o700)
        for name in ("secrets", "run", "logs", "airflow", "landing"):
            _private_folder(home / name, 0o700)
    except OSError as error:
        raise StackProblem(
            f"The local stack cannot keep its files in {home} ({error.strerror}). "
            "Run it as the account that owns the folder, or set MILLRACE_HOME to a folder of your own."
        ) from error


def _private_folder(folder: Path, mode: int) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, mode=mode)
    if folder.stat().st_uid != os.geteuid():
        raise PermissionError(1, "it belongs to another account")
    folder.chmod(mode)


def secret(home: Path, name: str, make: Callable[[], str] = lambda: secrets.token_urlsafe(24)) -> str:
    """The secret of that name, made with ``make`` at first use and kept in a file that only its owner can read."""
    path = home / "secrets" / name
    if not path.exists():
        write_private(path, make())
    return path.read_text()


def fernet_key() -> str:
    """A new key in the form that Airflow's connection encryption takes: 32 random bytes, URL-safe base64."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 in one step, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


@contextmanager
def lock(home: Path, waiting: Callable[[], None] = lambda: None, *, name: str = "lock") -> Iterator[None]:
    """Hold a lock of the home folder; by default the one of starting and stopping.

    ``waiting`` is called when another command holds it.
    """
    with (home / "run" / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ports(home: Path) -> dict[str, int]:
    """The ports in use or last used, by name: ``postgres``, ``web``, ``control``. Empty before the first start."""
    try:
        return {str(name): int(port) for name, port in json.loads((home / "run" / "ports.json").read_text()).items()}
    except FileNotFoundError:
        return {}


def remember_port(home: Path, name: str, port: int) -> None:
    write_private(home / "run" / "ports.json", json.dumps({**ports(home), name: port}))


def choose_port(home: Path, name: str, preferred: int | None) -> int:
    """A free loopback port, which is remembered: the one last used, else ``preferred``, else the next one that is free.

    Without ``preferred`` the search starts somewhere at random below the range that the system hands to outgoing
    connections, so that two stacks that start at the same moment do not meet.
    """
    taken = {port for other, port in ports(home).items() if other != name}
    start = preferred or 20_000 + secrets.randbelow(8_000)
    remembered = ports(home).get(name)
    candidates: list[int] = [remembered] if remembered and preferred is None else []
    candidates += range(start, min(start + 500, 65_536))
    for port in candidates:
        if port not in taken and port_is_free(port):
            remember_port(home, name, port)
            return port
    raise StackProblem(
        f"No free port on {LOOPBACK} from {start} on. Choose another one with --port (make run PORT=...)."
    )


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do, so that connections of a server that has just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    # A server bound to all addresses with SO_REUSEADDR can hide from the bind on some systems.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        return bool(probe.connect_ex((LOOPBACK, port)))
