"""Runs `llava.serve.web` and writes down what it opens for writing and whom it connects to.

    python -m tests.support.watched_page LOG SLOW [arguments of llava.serve.web]

While the file SLOW exists, the model takes its time over each token.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    slow = Path(sys.argv[2])

    def note(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], (str, bytes)) and (args[2] or 0) & WRITING:
            os.write(log, f"open {os.fsdecode(args[0])}\n".encode())
        elif event == "socket.connect":
            os.write(log, f"connect {args[1]}\n".encode())

    sys.addaudithook(note)

    from llava.inference.live import LiveEngine
    from llava.serve.web import main as run

    step = LiveEngine._step

    def slow_step(engine: LiveEngine) -> None:
        if slow.exists():
            time.sleep(0.25)
        step(engine)

    LiveEngine._step = slow_step  # type: ignore[method-assign]
    sys.exit(run(sys.argv[3:]))


if __name__ == "__main__":
    main()
