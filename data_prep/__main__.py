"""`python -m data_prep COMMAND`: prepare data; each command is a module with a `main`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from llava.common.errors import InputError, run_command

HELP = """usage: python -m data_prep COMMAND [...]

commands:
  inspect   look at annotated photos: counts, sizes, near-twins, what is damaged -> one HTML page
  convert   annotated photos -> conversation JSON, test questions and truth; general records blended in
  check     what is wrong with LLaVA conversation JSON, from whatever tool
  scenes    render photos of insulator strings with Pascal VOC annotations

inspect and convert find out the format of the annotations: Pascal VOC, COCO, YOLO, LabelMe, CVAT, Label
Studio, MVTec AD, VisA, IDID, a folder per class, tables (CSV, JSON lines, Parquet) and LLaVA JSON.

examples:
  python -m data_prep inspect --source photos --output before.html
  python -m data_prep convert --source photos --recipe configs/recipes/defect.yaml --output data/mine
  python -m data_prep convert --source photos --recipe configs/recipes/defect.yaml --output data/mixed \\
      --blend llava_mix.json --blend-image-folder llava_images --blend-share 0.2
  python -m data_prep check data/mine/train.json data/mine/test.json --image-folder data/mine

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
        from data_prep.commands.convert import main as command
    elif name == "check":
        from data_prep.commands.check import main as command
    elif name == "inspect":
        from data_prep.commands.inspect import main as command
    elif name == "scenes":
        from data_prep.scenes import main as command
    else:
        raise InputError(f"no command {name!r}; choose inspect, convert, check or scenes")
    return command


if __name__ == "__main__":
    run_command(main)
