"""`python -m llava.common.launch TORCHRUN-OPTIONS -m llava.train ...`: torchrun, with failures told our way.

torchrun ends every process of this machine when one has failed. What it leaves out is put right here: bad
input is one line and exit code 2, not a traceback of the launcher's own and 1.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from llava.common.errors import run_command, user_message


def main() -> int:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.CRITICAL)  # what torchrun says of failures; the processes log for themselves
    try:
        run.main(sys.argv[1:])
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def run_process(command: Callable[[], int | None]) -> None:
    """`run_command`, or under torchrun its like for one of several processes: bad input is told once, and a
    process that fails because another is gone does not drown it out."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        run_command(command)
    try:
        code: Any = command() or 0
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        told = user_message(error)
        if told is None or os.environ.get("RANK", "0") != "0":
            _be_ended()  # if it was a broken connection, or the first process tells the same
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(2)  # an orderly end would wait for the other processes
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()  # its threads would hold up or abort the interpreter's end
    sys.exit(code)


def _be_ended() -> None:
    """Give the launcher time to end this process, which it does when another has failed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(3)


if __name__ == "__main__":
    run_command(main)
