"""The server: uvicorn's, which ends on a signal as a service should."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn


class Server(uvicorn.Server):
    """Ends on SIGINT and SIGTERM, and with exit code 0: a signal is how a service is asked to end."""

    def __init__(self, config: uvicorn.Config, ready: str, on_signal: Callable[[], None]) -> None:
        """Prepare to serve.

        Args:
            config: uvicorn's settings.
            ready: A line for stderr, printed once connections are taken and signals are handled.
            on_signal: What is called at the first signal; it must return at once.
        """
        super().__init__(config)
        self._ready = ready
        self._on_signal = on_signal

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; only then say so: whoever waits for the line may send a signal at once."""
        await super().startup(sockets)
        print(self._ready, file=sys.stderr, flush=True)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals inside the block, and do not raise them again behind it as uvicorn does."""
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; what runs has uvicorn's `timeout_graceful_shutdown` to end by itself."""
        if not self.should_exit:
            self._on_signal()
        super().handle_exit(sig, frame)
