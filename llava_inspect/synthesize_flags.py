"""The command line of `llava-inspect synthesize`: its flags, and which of them go with which method."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.common.cli import CommandParser, add_model_flags, at_least
from llava.common.errors import InputError

METHODS = ("paste", "render", "diffuse")  # a help text must not import what makes the pictures
DTYPES = ("float16", "bfloat16", "float32")
DIFFUSION_FLAGS = (
    "diffusion_model", "prompt", "steps", "strength", "guidance", "negative_prompt", "batch_size", "dtype",
    "keyword_model", "keyword_name", "language_model", "language_name", "invert",
)  # fmt: skip
METHODS_OF = {"segmenter": ("paste", "diffuse"), **dict.fromkeys(DIFFUSION_FLAGS, ("diffuse",))}
"""The methods of the flags that not all have."""
NOTES = """methods:
  paste    cut defects out of other photos, fit them to the sound component and blend them in
  render   draw them onto the sound component
  diffuse  have Stable Diffusion paint what a prompt says into a place on it, or with --invert all around it

OUTPUT gets images/, masks/, synthetic.json (COCO, with what each picture was made of) and contact sheets:
look at them before you train. `convert --synthetic OUTPUT` adds the pictures to the train split, and to no
other. With --data only photos of that conversion's train split are used; without, `convert` leaves out the
pictures whose photos it holds out. With --model-path the model looks at each picture: where it no longer
sees the component, the picture is rejected. A killed run goes on with the same command.

MODEL is a folder on this machine, or a Hub name, which is downloaded. Nothing is sent anywhere but to the
servers whose addresses you give to --keyword-model and --language-model (scripts/setup.sh endpoint); the key
that one may want is taken from OPENAI_API_KEY."""
EXAMPLES = [
    "--source photos --recipe insulator --data runs/data --output runs/made",
    "--source photos --recipe insulator --output runs/made --method render\n"
    '--kinds "broken disc" flashover --count 200',
    "--source photos --recipe insulator --output runs/made --method diffuse\n"
    "--diffusion-model models/stable-diffusion-xl-base-1.0 --steps 40",
    "--source photos --recipe insulator --output runs/made --method diffuse --invert\n"
    "--diffusion-model models/stable-diffusion-xl-base-1.0 --segmenter models/sam2.1-hiera-large\n"
    '--prompt "{wish}, a snowy forest"',
]


def parse_arguments(argv: Sequence[str]) -> Namespace:
    from data_prep.command_lines import add_model, add_source, add_workers

    parser = CommandParser(
        "llava-inspect synthesize",
        "Make labelled pictures of rare defects from annotated photos, to train on.",
        notes=NOTES,
        examples=EXAMPLES,
    )
    add_source(parser, "annotated photos, in any format that convert reads")
    parser.add_argument(
        "--recipe",
        type=Path,
        required=True,
        metavar="FILE.yaml",
        help="a file, or the name of one that ships",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="a folder that convert wrote: use its training photos alone"
    )
    parser.add_argument("--method", choices=METHODS, default="paste", help="how (default: paste)")
    parser.add_argument(
        "--kinds",
        nargs="+",
        metavar="KIND",
        help="defects to make (default: all that the method can); with --invert, keep only components that "
        "show one of them (default: any, also sound ones)",
    )
    parser.add_argument(
        "--count",
        type=at_least(1),
        metavar="N",
        help="pictures in all, rare kinds first (default: what makes all kinds as common as the commonest, "
        "at most as many as there are photos; with --invert one for each photo)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="other seeds make others (default: 0)"
    )
    parser.add_argument(
        "--least-size",
        type=_pixels,
        metavar="PIXELS",
        help="reject defects whose shorter side is less, in the pixels of --model (default: half a patch)",
    )
    parser.add_argument(
        "--segmenter",
        metavar="MODEL",
        help="SAM or SAM 2, a folder or Hub name, to outline what paste cuts out of a box (default: GrabCut, "
        "by colours) and the components that diffuse keeps to (default: it may paint beyond)",
    )
    parser.add_argument(
        "--novelty",
        type=Path,
        metavar="BANK",
        help="also reject what is unlike all training pictures, by this file of `novelty` for --model-path",
    )
    add_diffusion_flags(parser)
    add_model(parser)
    add_workers(parser)
    add_model_flags(parser, required=False)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a field of the recipe")
    args = parser.parse_intermixed_args(argv)
    if args.novelty and not args.novelty.is_file():
        raise InputError(f"--novelty {args.novelty}: no such file; llava-inspect novelty makes one")
    if args.novelty and not args.model_path:
        raise InputError("--novelty needs the model that the bank was made with: add --model-path")
    method_settings(args)
    return args


def _pixels(text: str) -> float:
    if not 0 <= (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no size; give 0 or more")
    return value


_pixels.__name__ = "float"  # for argparse's error


def add_diffusion_flags(parser: CommandParser) -> None:
    """Add what --method diffuse alone has; nothing is given unless it is written."""
    flags = parser.add_argument_group("for --method diffuse")
    flags.add_argument(
        "--diffusion-model", metavar="MODEL", help="Stable Diffusion 1, 2 or XL: a folder or Hub name"
    )
    flags.add_argument(
        "--prompt",
        metavar="TEXT",
        help='what is painted, such as "a close photo of {wish}"; {wish} is, say, "a broken disc on an '
        "insulator\" (default: the recipe's synthetic.prompt)",
    )
    flags.add_argument("--negative-prompt", metavar="TEXT", help="what pictures shall not be like")
    flags.add_argument(
        "--invert",
        action="store_true",
        default=None,  # as of all flags that are not given
        help="make no defect: keep a component with the defects on it, and paint new surroundings",
    )
    flags.add_argument(
        "--keyword-model",
        metavar="MODEL|URL",
        help="LLaVA that gives {keywords} of each photo for the prompt: mood, materials, weather, "
        "surroundings; a server (http://...) is sent the photos, scaled down",
    )
    flags.add_argument(
        "--keyword-name", metavar="NAME", help="its name on the server (default: the first that is there)"
    )
    flags.add_argument(
        "--language-model",
        metavar="MODEL|URL",
        help="writes each prompt from the filled --prompt and the keywords; a server, such as Ollama's at "
        "http://localhost:11434, is sent these words and no photo",
    )
    flags.add_argument(
        "--language-name", metavar="NAME", help="its name on the server (default: the first that is there)"
    )
    flags.add_argument("--steps", type=at_least(1), metavar="N", help="steps of diffusion (default: 30)")
    flags.add_argument(
        "--strength",
        type=float,
        metavar="S",
        help="share of the steps gone through, above 0: below 1 the photo shines through (default: 1)",
    )
    flags.add_argument(
        "--guidance", type=float, metavar="G", help="how far the prompt is followed (default: 7.5)"
    )
    flags.add_argument(
        "--batch-size", type=at_least(1), metavar="N", help="pictures painted together (default: 1)"
    )
    flags.add_argument(
        "--dtype", choices=DTYPES, help="what the model computes in (default: float16 on a GPU, else float32)"
    )


def method_settings(args: Namespace) -> dict[str, Any]:
    """Return the flags that are given of those that only some methods have, by name.

    Raises:
        InputError: A flag is given that the method does not have, or one that it needs is not.
    """
    from llava.painting.chat_server import is_address

    given = {name: value for name in METHODS_OF if (value := getattr(args, name)) is not None}
    for name in given:
        if args.method not in METHODS_OF[name]:
            methods = " and ".join(METHODS_OF[name])
            raise InputError(f"--{name.replace('_', '-')} is for --method {methods}, not {args.method}")
    if args.method == "diffuse" and args.diffusion_model is None:
        raise InputError(
            "--method diffuse needs --diffusion-model: a folder or Hub name of Stable Diffusion 1, 2 or XL, "
            "as diffusers saves it"
        )
    for part in ("keyword", "language"):
        model = given.get(f"{part}_model")
        if f"{part}_name" in given and not (model and is_address(model)):
            raise InputError(
                f"--{part}-name is for a server's model: give --{part}-model its address, or leave this out"
            )
    return given
