"""`python -m data_prep COMMAND`: prepare data; each command is a module with a `main`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from llava.errors import InputError, run_command

HELP = """usage: python -m data_prep COMMAND [...]

commands:
  convert   annotated photos (Pascal VOC) -> conversation JSON, test questions and truth
  check     what is wrong with LLaVA conversation JSON, from whatever tool
  inspect   look at annotated photos: counts, sizes, near-twins, what is damaged -> one HTML page
  scenes    render photos of insulator strings with Pascal VOC annotations

`python -m data_prep COMMAND --help` tells more.
"""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if arguments else 2
    return _command(arguments[0])(arguments[1:])


def _command(name: str) -> Callable[[Sequence[str]], int]:
    # Imported on demand: neither command waits for what only the other needs.
    if name == "convert":
        from data_prep.convert import main as command
    elif name == "check":
        from data_prep.check import main as command
    elif name == "inspect":
        from data_prep.inspect import main as command
    elif name == "scenes":
        from data_prep.scenes import main as command
    else:
        raise InputError(f"no command {name!r}; choose convert, check, inspect or scenes")
    return command


if __name__ == "__main__":
    run_command(main)
