"""`llava-inspect fetch`: the files of a Hub model that are loaded, to list or to download into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.common.cli import CommandParser, command_name, print_next
from llava.common.errors import InputError


def main(argv: Sequence[str]) -> int:
    parser = CommandParser(
        "python -m llava_inspect fetch",
        "Download into a folder those files of a Hub model that are loaded, or list them: for a machine\n"
        "that does not reach the Hub (docs/air_gapped.md). A download that was cut short goes on.",
        examples=[
            "llava-hf/llava-1.5-7b-hf --list",
            "llava-hf/llava-1.5-7b-hf --output models/llava-1.5-7b-hf",
        ],
    )
    parser.add_argument("model", metavar="OWNER/NAME", help="the model's name on the Hub")
    parser.add_argument("--list", action="store_true", help="print which files it would be, and their sizes")
    parser.add_argument("--output", type=Path, metavar="DIR", help="the folder to download into")
    args = parser.parse_args(argv)
    if args.list == (args.output is not None):
        raise InputError("give --output DIR to download the files, or --list to see which they are")
    from llava.model.hub import HubError, is_hub_name, list_files  # seconds of imports

    if not is_hub_name(args.model):
        raise InputError(f"{args.model}: expected a name on the Hub, such as llava-hf/llava-1.5-7b-hf")
    try:
        files = list_files(args.model)
    except HubError as error:
        if not (args.list and error.unreachable):
            raise
        print(how_to_bring(args.model))
        return 0
    if args.list:
        print_files(args.model, files)
    else:
        download(args.model, files, args.output)
    return 0


def print_files(model: str, files: dict[str, int]) -> None:
    for name, size in files.items():
        print(f"{size / 1e6:>12,.1f} MB  {name}")
    print(f"{sum(files.values()) / 1e6:>12,.1f} MB  in all")
    print_next(f"{command_name('fetch', 'python -m llava_inspect fetch')} {model} --output DIR")


def download(model: str, files: dict[str, int], output: Path) -> None:
    """Download the model's files and, for one in the original's form, those of its vision tower; then open
    what was brought, as training does."""
    from llava.model.folder import ModelFolder
    from llava.model.formats import is_original
    from llava.model.hub import fetch_files, list_files

    print(f"{model}: {len(files)} files, {sum(files.values()) / 1e9:.2f} GB, into {output}", flush=True)
    fetch_files(model, files, output)
    folder = ModelFolder.open(output)
    tower = (folder.settings or {}).get("mm_vision_tower")
    if is_original(folder.settings or {}) and isinstance(tower, str):
        parts = list_files(tower)
        place = output / Path(tower).name
        print(f"its vision tower {tower}: {sum(parts.values()) / 1e9:.2f} GB, into {place}", flush=True)
        fetch_files(tower, parts, place)
        folder = ModelFolder.open(output)
    if folder.is_model:
        tensors = len(folder.open_tensors())
        print(f"complete: {folder.config.model_type}, {tensors} tensors, {len(folder.tokenizer):,} tokens")
    train = command_name("train", "scripts/finetune_lora.sh")
    print(f"next, here or where you copy it to: {train} CONFIG model_name_or_path={output}")


def how_to_bring(model: str) -> str:
    """Say which files to bring, and how, on a machine that does not reach the Hub itself."""
    from llava.model.hub import SMALL_FILES
    from llava.model.known_shapes import known_shape, weights_size

    folder = model.partition("/")[2]
    shape = known_shape(model)
    size = "" if shape is None else f", {weights_size(shape) / 1e9:.0f} GB"
    includes = " ".join(f"--include '{pattern}'" for pattern in (*SMALL_FILES, "*.safetensors"))
    train = command_name("train", "scripts/finetune_lora.sh")
    return f"""\
The Hub cannot be reached from here, so the files of {model} go by pattern:

  {" ".join(SMALL_FILES):<24} config, tokenizer, image processor, chat template
  {"*.safetensors":<24} the weights{size} (from an older repository without them: *.bin)

None from subfolders: those are for other programs. On a machine that reaches the Hub, after
`pip install huggingface_hub`:

  hf download {model} {includes} --exclude '*/*' --local-dir {folder}

or, where LLaVA Inspect is installed: llava-inspect fetch {model} --output {folder}
Copy the folder here, then give its path in place of the name:

  {train} CONFIG model_name_or_path=/path/to/{folder}"""
