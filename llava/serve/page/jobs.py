"""Work for a visitor that goes on whoever watches it: a page is closed at any time."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

from llava.common.errors import InputError
from llava.inference.live import EngineClosedError, QueueFullError

State = TypeVar("State")


class Job(Generic[State]):
    """A thread that goes through a generator of states, each of which is the whole result so far."""

    def __init__(self, steps: Iterator[State]) -> None:
        """Begin to go through `steps`, a generator or other iterator."""
        self.state: State | None = None
        self.error: str | None = None
        self.running = True
        self._stopped = False
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._go, args=(steps,), daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for another state, at most so long; returns whether the job still runs."""
        self._changed.wait(seconds)
        self._changed.clear()
        return self.running

    def stop(self) -> None:
        """Have it end after the current step; the state stays."""
        self._stopped = True

    def end(self) -> None:
        """Stop, and wait until it has ended."""
        self.stop()
        self._thread.join()

    def _go(self, steps: Iterator[State]) -> None:
        try:
            for state in steps:
                self.state = state
                self._changed.set()
                if self._stopped:
                    break
        except (InputError, QueueFullError, EngineClosedError) as error:
            self.error = str(error)
        finally:
            if isinstance(steps, Generator):
                steps.close()  # which ends what it began
            self.running = False
            self._changed.set()
