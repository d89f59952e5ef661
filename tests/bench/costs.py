"""What a piece of work costs: seconds, and processor time of ours and of the database server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Seconds. ``client`` is the processor time of this process and of those it started and waited for."""

    wall: float
    client: float
    server: float

    @property
    def processor(self) -> float:
        return self.client + self.server

    def __add__(self, other: Cost) -> Cost:
        return Cost(wall=self.wall + other.wall, client=self.client + other.client, server=self.server + other.server)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(wall=self.wall - other.wall, client=self.client - other.client, server=self.server - other.server)


class Meter:
    """Measures work against the server whose home is ``folder``, see ``EmbeddedPostgres``."""

    def __init__(self, folder: Path) -> None:
        self._server = psutil.Process(int((folder / "postgres" / "postmaster.pid").read_text().split()[0]))

    def cost(self, work: Callable[[], Any]) -> tuple[Cost, Any]:
        """What ``work`` costs, and what it returns."""
        wall, client, server = time.perf_counter(), _ours(), self._seconds()
        result = work()
        return Cost(wall=time.perf_counter() - wall, client=_ours() - client, server=self._seconds() - server), result

    def _seconds(self) -> float:
        """Of the server, its present processes and those that have ended."""
        while True:
            before = self._server.cpu_times()
            children = 0.0
            for child in self._server.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    times = child.cpu_times()
                    children += times.user + times.system
            after = self._server.cpu_times()
            # A child that ended in between would be counted twice, or not at all.
            if before[2:4] == after[2:4]:
                return float(sum(after[:4]) + children)


def _ours() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
