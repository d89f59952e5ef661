"""``python -m mllib`` is the command ``millrace``."""

import sys

from mllib.cli import main

if __name__ == "__main__":
    sys.exit(main())
