"""The local stack, and the database in use."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mllib import settings
from mllib.commands.common import Command, dsn_in_use, engine


def up(options: argparse.Namespace) -> None:
    from mllib.local import progress, stack

    print(stack.up(options.home, port=options.port, step=progress.shown))


def down(options: argparse.Namespace) -> None:
    from mllib.local import progress, stack

    if not stack.down(options.home, step=progress.shown):
        print("Nothing was running.")


def status(options: argparse.Namespace) -> dict[str, Any]:
    from mllib.local import stack

    status = stack.status(options.home)
    print(status)
    return status.as_dict()


def dsn(options: argparse.Namespace) -> None:
    dsn = dsn_in_use()
    print(dsn if options.show else settings.redacted(dsn))


def migrate(_: argparse.Namespace) -> dict[str, Any]:
    from mllib.store.migrate import migrate

    ran = migrate(engine())
    print(f"Ran {', '.join(ran)}." if ran else "The schema is up to date.")
    return {"ran": ran}


def register(command: Command) -> None:
    """Declares the commands of this file."""
    sub = command("up", up, "start the local stack: PostgreSQL and Airflow", as_json=False)
    sub.add_argument("--port", type=int, help="port of the web page; moves on if taken")
    sub.add_argument("--home", type=Path, default=settings.home(), help="folder with the stack's state")

    sub = command("down", down, "stop the local stack", as_json=False)
    sub.add_argument("--home", type=Path, default=settings.home(), help="folder with the stack's state")

    sub = command("status", status, "show what of the local stack is running")
    sub.add_argument("--home", type=Path, default=settings.home(), help="folder with the stack's state")

    sub = command("dsn", dsn, "print the connection string in use", as_json=False)
    sub.add_argument("--show", action="store_true", help="with the password")

    command("migrate", migrate, "bring the database to this version's schema")
