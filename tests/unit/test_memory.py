"""Threads share one pool of memory once they were told to."""

from __future__ import annotations

import platform
import subprocess
import sys

PROGRAM = """
import ctypes, sys, threading
from mllib.memory import share_one_arena

if sys.argv[1] == "shared":
    share_one_arena()
library = ctypes.CDLL(None)
library.fdopen.restype = ctypes.c_void_p
together = threading.Barrier(4)

def work():
    together.wait()
    library.malloc(100_000)
    together.wait()

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
library.malloc_info(0, ctypes.c_void_p(library.fdopen(1, b"w")))
library.fflush(None)
"""


def pools(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return done.stdout.count("<heap nr=")


def test_threads_that_share_have_one_pool_of_memory() -> None:
    if platform.libc_ver()[0] == "glibc":
        assert pools("shared") == 1
        assert pools("as usual") > 1
    else:
        subprocess.run([sys.executable, "-c", "from mllib.memory import *; share_one_arena()"], check=True)
