"""`llava-inspect export` (and `scripts/export.py`): write a model for other clients."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava.common.cli import CommandParser
from llava.common.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        "python scripts/export.py",
        "Write a model for other clients: the original LLaVA's format, Hugging Face's, or GGUF for "
        "llama.cpp. Adapters are merged first, in float32.",
        examples=[
            "--format llava --model-path runs/insulator --output models/llava-v1.5-insulator",
            "--format hf --model-path liuhaotian/llava-v1.5-7b --output models/llava-1.5-7b-hf",
            "--format gguf --model-path models/insulator --output models/insulator-gguf --verify",
        ],
    )
    parser.add_argument("--format", required=True, choices=("llava", "hf", "gguf"))
    parser.add_argument(
        "--model-path", required=True, help="a model, a run directory or checkpoint, or an adapter"
    )
    parser.add_argument("--output", required=True, type=Path, help="the new folder to write")
    parser.add_argument("--model-base", help="the base model of an adapter, if it is not where it was")
    parser.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        help="of the weights (default: as they are stored)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    parser.add_argument("--max-shard-size", help="of one weights file (default: 5GB)")
    parser.add_argument(
        "--type", choices=("f32", "f16", "bf16", "q8_0"), help="gguf: of the matrices (default: f16)"
    )
    parser.add_argument(
        "--llamacpp",
        choices=("auto", "current", "stock"),
        help="gguf: the builds of llama.cpp that it is for: those since May 2025 (current), or older ones "
        "(stock); default: auto, what the builds of today need: current",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="gguf: compare the result with the model in llama-cpp-python; exit code 1 where they differ",
    )
    args = parser.parse_args(argv)
    if args.format == "gguf":
        return export_gguf(args)
    if args.verify:
        raise InputError("--verify is for --format gguf; docs/interop.md says how the others are checked")
    if args.type is not None:
        raise InputError("--type is for --format gguf; that of llava and hf is --dtype")
    if args.llamacpp is not None:
        raise InputError("--llamacpp is for --format gguf")
    # here, so that --help and mistyped flags answer at once
    from llava.export.convert import export
    from llava.model.shards import DEFAULT_SHARD, parse_size

    notes = export(
        args.model_path,
        args.output,
        args.format,
        model_base=args.model_base,
        dtype=args.dtype,
        overwrite=args.overwrite,
        max_shard_size=parse_size(args.max_shard_size) if args.max_shard_size else DEFAULT_SHARD,
    )
    print(f"wrote {args.output}")
    for line in notes:
        print(f"note: {line}")
    return 0


def export_gguf(args: argparse.Namespace) -> int:
    """Write the GGUF files; the exit code is 1 if they are not what they should be."""
    if args.dtype is not None:
        raise InputError("--dtype is for --format llava and hf; GGUF's is --type")
    if args.max_shard_size is not None:
        raise InputError("--max-shard-size is for --format llava and hf; GGUF is one file of each kind")
    from llava.export.gguf.llamacpp import require_llama_cpp
    from llava.export.gguf.verify import verify
    from llava.export.gguf.write import export_gguf

    if args.verify:
        require_llama_cpp()  # before the long part
    done = export_gguf(
        args.model_path,
        args.output,
        model_base=args.model_base,
        type=args.type or "f16",
        build="stock" if args.llamacpp == "stock" else "current",
        overwrite=args.overwrite,
    )
    print(f"wrote {args.output}")
    for line in done.notes:
        print(f"note: {line}")
    if args.verify and not verify(args.model_path, args.output, model_base=args.model_base):
        return 1
    return 0
