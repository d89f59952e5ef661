"""A TCP proxy in front of a server that can be told to cut the line."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy import make_url


@dataclass(slots=True)
class Proxy:
    """Passes bytes both ways, and counts them."""

    server: tuple[str, int]
    listener: socket.socket
    passed: int = 0
    cut_after: int | None = None
    cuts: int = 0
    _pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, after: int | None) -> None:
        """Counts anew, and cuts every connection once ``after`` bytes have passed."""
        with self._lock:
            self.passed, self.cuts, self.cut_after = 0, 0, after

    def cut(self) -> None:
        """Resets all connections, as a router does that has forgotten them."""
        with self._lock:
            self._cut()

    def _cut(self) -> None:
        self.cuts += 1
        self.cut_after = None
        for pair in self._pairs:
            for side in pair:
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # Ends the reads of the other threads; closing alone would not.
                _quietly(side, "shutdown", socket.SHUT_RD)
                side.close()
        self._pairs.clear()

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.server)
            with self._lock:
                self._pairs.append((client, server))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(16_384):
                with self._lock:
                    self.passed += len(data)
                    if self.cut_after is not None and self.passed >= self.cut_after:
                        self._cut()
                        return
                target.sendall(data)
        except OSError:
            pass  # cut
        _quietly(target, "shutdown", socket.SHUT_WR)


@contextmanager
def proxy_before(dsn: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the server of a connection string, and the string that goes through it."""
    url = make_url(dsn)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(server=(url.host or "127.0.0.1", url.port or 5432), listener=listener)
        accepting = threading.Thread(target=proxy.serve, daemon=True)
        accepting.start()
        through = url.set(host="127.0.0.1", port=listener.getsockname()[1])
        try:
            yield proxy, through.render_as_string(hide_password=False)
        finally:
            proxy.cut()
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _quietly(side: socket.socket, method: str, how: int) -> None:
    with suppress(OSError):
        getattr(side, method)(how)
