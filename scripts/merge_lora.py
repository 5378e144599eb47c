"""Merge a fine-tuned run into its base model: one folder that any LLaVA program loads."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava.errors import run_command

EXAMPLE = """example:
  python scripts/merge_lora.py --model-path runs/insulator --save-model-path models/insulator
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-path", required=True, help="a run directory of llava.train, or a checkpoint")
    parser.add_argument("--save-model-path", required=True, type=Path, help="the new folder to write")
    parser.add_argument("--model-base", help="the base model, if it is no longer where training found it")
    parser.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32"), help="of the weights (default: the base's own)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier merged model")
    args = parser.parse_args(argv)

    from llava.model.merge import (
        base_of_adapter,
        merge,
    )  # here, so that --help and mistyped flags answer at once

    info = merge(
        args.model_path,
        args.save_model_path,
        model_base=args.model_base,
        dtype=args.dtype,
        overwrite=args.overwrite,
    )
    if info.bits is not None:
        print(f"the adapter {base_of_adapter(info)}")
    print(f"merged {args.model_path} into {args.save_model_path}")
    return 0


if __name__ == "__main__":
    run_command(main)
