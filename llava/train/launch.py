"""`python -m llava.train.launch TORCHRUN-OPTIONS -m llava.train ...`: torchrun, with failures told our way.

torchrun ends every process of this machine when one has failed. What it leaves out is put right here: bad
input is one line and exit code 2, not a traceback of the launcher's own and 1.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llava.errors import InputError, run_command

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""torchrun names in it the file in which a process may say why it failed."""


def main() -> int:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.CRITICAL)  # what torchrun says of failures; the processes log for themselves
    try:
        run.main(sys.argv[1:])
    except ChildFailedError as error:
        told = [f for f in error.failures.values() if Path(f.error_file).is_file()]
        if told:
            raise InputError(min(told, key=lambda failure: failure.timestamp).message) from None
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def run_process(command: Callable[[], int | None]) -> None:
    """`run_command`, or under torchrun its like for one of several processes: bad input goes to the launcher,
    which prints it once, and a process that fails because another is gone does not drown it out."""
    report = os.environ.get(_ERROR_FILE)
    if report is None:
        run_command(command)
    try:
        code: Any = command() or 0
    except SystemExit as stop:
        code = stop.code
    except InputError as error:
        text = json.dumps({"message": str(error), "timestamp": int(time.time())})
        Path(report or "").write_text(text, encoding="utf-8")
        sys.stdout.flush()
        os._exit(2)  # an orderly end would wait for the other processes
    except Exception:
        # If it was a broken connection, the launcher is about to end this process.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(3)
        raise
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()  # its threads would hold up or abort the interpreter's end
    sys.exit(code)


if __name__ == "__main__":
    run_command(main)
