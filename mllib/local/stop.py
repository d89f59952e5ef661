"""What ``make stop`` does."""

from __future__ import annotations

import sys

from mllib import settings
from mllib.errors import MillraceError
from mllib.local import stack
from mllib.local.progress import shown


def main() -> int:
    """Stop the stack of the home folder in use. Returns the exit status."""
    try:
        print("Stopped; the data stays." if stack.down(settings.home(), step=shown) else "Nothing was running.")
    except MillraceError as error:
        print(f"make stop: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
