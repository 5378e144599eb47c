"""`python -m data_prep COMMAND`: prepare data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from llava.common.errors import InputError, run_command

HELP = """usage: python -m data_prep COMMAND [...]

commands:
  inspect   look at annotated photos: counts, sizes, akin pictures, what is damaged -> one HTML page
  convert   annotated photos -> conversation JSON, test questions and truth; general records blended in
  check     what is wrong with LLaVA conversation JSON, from whatever tool
  scenes    render photos of insulator strings with Pascal VOC annotations

inspect and convert find out the format of the annotations: Pascal VOC, COCO, YOLO, LabelMe, CVAT, Label
Studio, MVTec AD, VisA, IDID, tables of boxes or labels (CSV), masks, VIA, VoTT, Create ML, DOTA, KITTI and
more, a folder per class, tables of questions (CSV, JSON lines, Parquet) and LLaVA JSON.

examples:
  python -m data_prep inspect --source photos --output before.html
  python -m data_prep convert --source photos --recipe configs/recipes/defect.yaml --output data/mine
  python -m data_prep convert --source photos --recipe configs/recipes/defect.yaml --output data/mixed \\
      --blend llava_mix.json --blend-image-folder llava_images --blend-share 0.2
  python -m data_prep check data/mine/train.json data/mine/test.json --image-folder data/mine

`python -m data_prep COMMAND --help` tells more.
"""
COMMANDS = ("inspect", "convert", "check", "scenes")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        raise InputError(f"no command {arguments[0]!r}; choose inspect, convert, check or scenes")
    return run(*arguments)


def run(command: str, *argv: str) -> int:
    """Run a command: parse its arguments first, import what does the work only then."""
    from data_prep import command_lines

    args = getattr(command_lines, f"parse_{command}")(argv)
    status: int = import_module(f"data_prep.commands.{command}").run(args)
    return status


if __name__ == "__main__":
    run_command(main)
