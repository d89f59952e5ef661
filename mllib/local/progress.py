"""What the reader sees while something takes its time: one line a step, with the seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

Step = Callable[[str], AbstractContextManager[object]]


def silent(title: str) -> AbstractContextManager[None]:
    """A step that shows nothing."""
    return nullcontext()


class Note:
    """What a step may say about itself: ``now`` while it goes on, ``result`` when it is done."""

    def __init__(self) -> None:
        self.now = ""
        self.result = ""


@contextmanager
def shown(title: str) -> Iterator[Note]:
    """A step that prints its title, the seconds as they pass, and the seconds that it took.

    On a terminal the line is rewritten every second; otherwise a line follows every ten seconds.
    """
    note = Note()
    started = time.monotonic()
    finished = threading.Event()
    terminal = sys.stdout.isatty()

    def tick() -> None:
        while not finished.wait(1 if terminal else 10):
            text = f"  {title} ... {time.monotonic() - started:.0f} s{_detail(note.now)}"
            _print(f"\r\033[K{text[:100]}" if terminal else text, end="" if terminal else "\n")

    _print(f"  {title} ...", end="" if terminal else "\n")
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    word = "failed"
    try:
        yield note
        word = "done"
    finally:
        finished.set()
        ticker.join()
        start = "\r\033[K" if terminal else ""
        _print(f"{start}  {title}: {word} ({time.monotonic() - started:.1f} s){_detail(note.result)}")


def _detail(text: str) -> str:
    return f", {text}" if text else ""


def _print(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)
