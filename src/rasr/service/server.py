"""Server: the application on its port until a signal asks it to stop, and then an orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from rasr.errors import OutputError
from rasr.service.app import create_app
from rasr.service.config import ServiceConfig
from rasr.service.core import Service

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(config: ServiceConfig, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``started`` is told the address. Raises OutputError and UsageError."""
    logging.basicConfig(format="%(message)s")  # to stderr; what is of interest to whoever runs it
    logging.getLogger("rasr.service").setLevel(logging.INFO)
    service = Service(config)
    listening = listen(config.host, config.port)
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"http://{host}:{listening.getsockname()[1]}"
    settings = uvicorn.Config(
        create_app(service),
        loop="asyncio",  # not another one, with other limits, where such happens to be installed
        http="h11",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(config.grace)),
        timeout_keep_alive=15,
        h11_max_incomplete_event_size=64 * 1024,
    )
    _Server(settings, service, lambda: started(address)).run([listening])


class _Server(uvicorn.Server):
    """Ends streams when it is asked to stop, and does not raise the signal again: an orderly end is exit 0."""

    def __init__(self, config: uvicorn.Config, service: Service, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._tell = service, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if not self.should_exit:
            self._tell()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals that end the service while it serves."""
        before = {one: signal.signal(one, self.handle_exit) for one in SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at once when asked a second time."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
        asyncio.get_running_loop().call_soon_threadsafe(self._service.refuse)


def listen(host: str, port: int) -> socket.socket:
    """A socket of this address, not yet open to clients. Raises OutputError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OutputError(
            f"Cannot listen on {host}, port {port} ({error.strerror or error}). Choose another --port."
        ) from error
    return listening
