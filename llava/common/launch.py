"""Run torchrun with our error messages: `python -m llava.common.launch TORCHRUN-OPTIONS -m llava.train ...`.

torchrun ends every process of this machine when one has failed. For bad input it would print a traceback of
its own and exit with 1; here that is one line and exit code 2.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from llava.common.errors import collect_less, run_command, user_message


def main() -> int:
    """Run torchrun with this process's arguments; returns 0, or the code of what failed first."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.CRITICAL)  # torchrun's reports of failures; the processes log for themselves
    try:
        run.main(sys.argv[1:])
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def run_process(command: Callable[[], int | None]) -> None:
    """Run a command as `run_command` does, also as one of several processes that torchrun has started.

    Of several processes only one prints the message for bad input, and those that fail because another is
    gone print nothing.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        run_command(command)
    collect_less()
    try:
        code: Any = command() or 0
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        message = user_message(error)
        if message is None or os.environ.get("RANK", "0") != "0":
            _wait_to_be_terminated()  # after a broken connection, or if the first process prints the same
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(2)  # an orderly exit would wait for the other processes
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()  # its threads would delay or abort the interpreter's exit
    sys.exit(code)


def _wait_to_be_terminated() -> None:
    """Give the launcher time to terminate this process, which it does when another has failed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(3)


if __name__ == "__main__":
    run_command(main)
