"""The command line. Each command is a thin call of a use case; ``--json`` prints one JSON object on the last line.

Exit codes: 0 done, 1 failed (one clear sentence on stderr), 2 usage.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from mllib import commands
from mllib.commands.common import UsageError
from mllib.errors import MillraceError
from mllib.memory import share_one_arena


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, and returns the exit code."""
    share_one_arena()  # before other threads begin
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        result = options.run(options)
    except UsageError as error:
        parser.error(str(error))
    except MillraceError as error:
        print(f"millrace: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("millrace: stopped. What was not finished goes on with the next run.", file=sys.stderr)
        return 1
    if getattr(options, "json", False):
        print(json.dumps(result, default=str))
    return 1 if isinstance(result, dict) and result.get("ok") is False else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace",
        description="Scores logs in batch, retrains the models, and promotes one only when it is better.",
        epilog="MILLRACE_DSN names the database; without it, the local one of `millrace up`.",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, text: str, *, as_json: bool = True) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)
        if as_json:
            sub.add_argument(
                "--json", action="store_true", help="print the result as one JSON object, on the last line"
            )
        return sub

    for topic in commands.TOPICS:
        topic.register(command)
    return parser
