"""What the commands share: the database in use, how options are read, who calls.

Use cases are imported inside the functions that call them: importing them all would take longer than most commands.
"""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from mllib import settings
from mllib.types import Window

if TYPE_CHECKING:
    from sqlalchemy import Engine


class UsageError(Exception):
    """Options that are each right and do not go together."""


class Command(Protocol):
    """Declares a command and returns its parser, for its options."""

    def __call__(
        self, name: str, run: Callable[[argparse.Namespace], Any], text: str, *, as_json: bool = True
    ) -> argparse.ArgumentParser: ...


def engine() -> Engine:
    """The database in use, whatever its schema."""
    from mllib.store.database import engine_for

    return engine_for(dsn_in_use())


def ready_engine() -> Engine:
    """The database in use. Raises when its schema is not that of this version."""
    from mllib.store.migrate import require_schema

    found = engine()
    require_schema(found)
    return found


def dsn_in_use() -> str:
    """What MILLRACE_DSN names, or else the local database."""
    from mllib.local import stack

    return settings.dsn_from_environment() or stack.current_dsn(settings.home())


def user() -> str:
    """Who calls, as decisions and labels record it."""
    try:
        return getpass.getuser()
    except OSError:  # an account without a name, as in a container
        return "unknown"


def add_window(sub: argparse.ArgumentParser, what: str = "window", *, required: bool = False) -> None:
    """The options ``--from`` and ``--to``, which `window_of` reads."""
    sub.add_argument(
        "--from", dest="start", type=moment, required=required, metavar="TS", help=f"first event time of the {what}"
    )
    sub.add_argument(
        "--to", dest="end", type=moment, required=required, metavar="TS", help=f"end of the {what}, itself left out"
    )


def window_of(options: argparse.Namespace) -> Window | None:
    """The window of ``--from`` and ``--to``, None without them."""
    if options.start is None and options.end is None:
        return None
    if options.start is None or options.end is None:
        raise UsageError("a window needs both ends: --from TS --to TS")
    if options.start >= options.end:
        raise UsageError("the window is empty: --from must be before --to")
    return Window(options.start, options.end)


def moment(text: str) -> datetime:
    """Option type: a time, UTC where it names no offset."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; write 2026-01-31T14:00 (UTC) or with an offset"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def count(text: str) -> int:
    """Option type: a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)
