"""The command lines of data_prep: what each command takes, and the checks that need no file.

Nothing heavy is imported here, so that `--help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llava.common.cli import CommandParser, at_least
from llava.common.errors import InputError
from llava.common.shipped import DEFAULT_CONFIG, find_recipe

if TYPE_CHECKING:
    from data_prep.model_inputs import ModelInput


def parse_scenes(argv: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(
        "python -m data_prep scenes",
        "Render drone-like photos of insulator strings, sound and defective, with exact boxes as Pascal VOC: "
        "OUTPUT/images/*.jpg and OUTPUT/annotations/*.xml.",
        examples=[
            "--output playground/scenes",
            "--output playground/scenes --count 400 --seed 1 --contact-sheet sheet.png",
        ],
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="a folder that does not exist yet"
    )
    parser.add_argument(
        "--count", type=int, default=400, metavar="N", help="pictures to render (default: 400)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="other seeds are other scenes, the same seed the same bytes on any machine (default: 0)",
    )
    parser.add_argument(
        "--defect-share",
        type=float,
        default=0.5,
        metavar="P",
        help="share with a defect, 0 to 1 (default: 0.5)",
    )
    add_workers(parser, "processes (default: one a core)")
    parser.add_argument(
        "--contact-sheet", type=Path, metavar="FILE.png", help="also draw the first pictures here"
    )
    args = parser.parse_args(argv)
    for flag, value, least in (
        ("count", args.count, 1),
        ("seed", args.seed, 0),
        ("workers", args.workers, 1),
    ):
        if value < least:
            raise InputError(f"--{flag} {value}: must be {least} or more")
    if not 0 <= args.defect_share <= 1:
        raise InputError(f"--defect-share {args.defect_share}: must lie between 0 and 1")
    if args.contact_sheet and args.contact_sheet.suffix.lower() != ".png":
        raise InputError(f"--contact-sheet {args.contact_sheet}: must end in .png")
    return args


def parse_inspect(argv: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(
        "python -m data_prep inspect",
        "Look at a folder of annotated photos: what is there, how large it is to the model, which pictures "
        "are akin, what is damaged. Writes one HTML page that opens without a network, a first recipe, "
        "or both.",
        notes="Exit code 0 even if pictures or annotations are damaged (the report lists them), 2 if nothing "
        "can be read.",
        examples=[
            "--source photos --output report.html",
            "--source photos --write-recipe my.yaml",
            "--source photos --recipe configs/recipes/insulator.yaml --output report.html",
        ],
    )
    add_source(parser, "pictures and annotations")
    parser.add_argument(
        "--recipe",
        type=Path,
        metavar="FILE.yaml",
        help="say what it makes of the class names as well; a file, or the name of one that ships",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE.html", help="the page to write; replaced if there"
    )
    parser.add_argument(
        "--write-recipe",
        type=Path,
        metavar="FILE.yaml",
        help="write a first recipe, made of the classes that are there, to be edited; a new file",
    )
    add_model(parser)
    add_workers(parser)
    add_ray(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a field of the recipe")
    args = parser.parse_intermixed_args(argv)
    _check_ray(args)
    args.recipe = args.recipe and find_recipe(args.recipe)
    args.model_inputs = _model_inputs(args.model)
    output, new = args.output, args.write_recipe
    if output is None and new is None:
        raise InputError("name what to write: --output report.html, --write-recipe my.yaml or both")
    if output and (output.suffix.lower() not in (".html", ".htm") or output.is_dir()):
        raise InputError(f"--output {output}: name the page to write, such as report.html")
    if new and new.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"--write-recipe {new}: name the recipe to write, such as my.yaml")
    if new and new.exists():
        raise InputError(f"--write-recipe {new}: exists already; name another file or remove it first")
    if new and args.recipe:
        raise InputError("--write-recipe makes a recipe of the classes as annotated; leave out --recipe")
    if args.overrides and not args.recipe:
        raise InputError(f"{args.overrides[0]!r}: key=value overrides a recipe, and no --recipe is given")
    return args


def parse_convert(argv: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(
        "python -m data_prep convert",
        "Turn annotated photos into LLaVA conversation JSON (train, val, test), a question file and a truth "
        "file, as a recipe says.",
        notes="""formats, which --format auto (the default) tells apart:
  voc, coco, yolo, labelme, cvat, labelstudio   boxes and outlines, as annotation tools export them
  box_table, via, createml, keras_yolo, dota    the same: CSV of boxes (TensorFlow, Kaggle ...) and exports
  vott, kitti, datumaro, supervisely            of more tools
  labelme_xml, open_images, run_table, deeppcb
  masks                                         masks beside pictures, or in a folder such as masks
  mvtec, visa, idid                             the layouts of these public data sets
  label_table, class_folders                    a table of pictures and classes; a folder per class
  table, llava                                  pictures with questions and answers

Any field of the recipe can be overridden as key=value; data_prep/recipe/schema.py says what each means.""",
        examples=[
            "--source photos --recipe configs/recipes/insulator.yaml --output data/mine",
            "--source photos --format coco --recipe configs/recipes/defect.yaml\n"
            "--output data/mine --overwrite splits.given=keep",
            "--source photos --test-source more_photos --recipe configs/recipes/insulator.yaml\n"
            "--output data/mine splits.val=0.1 families.describe=null",
            "--ray auto --source /shared/photos --recipe /shared/my.yaml --output /shared/mine",
        ],
    )
    add_source(parser, "pictures and annotation files, anywhere below it")
    parser.add_argument(
        "--test-source",
        type=Path,
        metavar="DIR",
        help="a second folder that makes the whole test split; SOURCE is then split into the others only",
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        required=True,
        metavar="FILE.yaml",
        help="a file, or the name of one that ships",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="a new folder, unless --overwrite"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="bring an earlier conversion in OUTPUT up to date; what stays the same is not written again",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of splits and wordings (default: 0)"
    )
    parser.add_argument(
        "--splits",
        type=_shares,
        metavar="TRAIN,VAL,TEST",
        help="for instance 0.7,0.15,0.15 (default: recipe)",
    )
    add_workers(parser)
    add_ray(parser)
    add_model(parser)
    parser.add_argument(
        "--synthetic",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="made pictures (a folder of `llava-inspect synthesize`) to train on, beside the photos that "
        "they were made of; may be given again",
    )
    add_blend(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a field of the recipe")
    args = parser.parse_intermixed_args(argv)
    _check_ray(args)
    args.recipe = find_recipe(args.recipe)
    args.model_inputs = _model_inputs(args.model)
    return args


def parse_check(argv: Sequence[str]) -> argparse.Namespace:
    from data_prep.commands.lint import ONE_SIDED_FROM, ONE_SIDED_SHARE

    parser = CommandParser(
        "python -m data_prep check",
        "Look for what is wrong with LLaVA conversation JSON, from whatever tool, before a model learns it.",
        notes=f"""exit code: 0 nothing found, 1 something found, 2 a file or option that cannot be used

Findings: missing or damaged pictures, <image> marks that do not match the pictures, roles out of turn, empty
answers, records over --max-length, boxes outside 0..1 or in the padding of a padded frame (where a record's
meta states its frame), file names in questions, ids that are there twice, contradicting answers, one-sided
answers (over {ONE_SIDED_SHARE:.0%} the same, of {ONE_SIDED_FROM} or more in records of one question), tasks
that can be guessed from the words and boxes of the questions, without a picture.
With several files (the splits of one data set): pictures that two of them hold, by name or by pixels; made
pictures (meta.synthetic) in a file for validation or a test, or akin to what such a file holds.""",
        examples=["data/mine/train.json data/mine/val.json data/mine/test.json --image-folder data/mine"],
    )
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="a JSON list of records, or .jsonl; one a split"
    )
    parser.add_argument("--image-folder", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--max-length", type=_count, default=2048, metavar="N", help="tokens of a record (default: 2048)"
    )
    parser.add_argument(
        "--picture-tokens",
        type=_count,
        default=576,
        metavar="N",
        help="that a picture takes (default: 576, LLaVA-1.5's)",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="a model folder with tokenizer.json, to count tokens (default: four bytes of text for one)",
    )
    parser.add_argument(
        "--no-pictures", action="store_true", help="only look whether pictures are there: decode none"
    )
    parser.add_argument(
        "--workers",
        type=_count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="threads (default: one a core)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the findings to this file as well")
    return parser.parse_args(argv)


def _model_inputs(model: str) -> tuple[ModelInput, ...]:
    """Return the input of the model that box sizes are judged by, then those that are shown beside it."""
    from data_prep.model_inputs import model_inputs_for  # which imports pydantic and OmegaConf

    return model_inputs_for(model)


def add_blend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--blend", type=Path, metavar="FILE.json", help="LLaVA conversations to mix into train.json"
    )
    parser.add_argument("--blend-image-folder", type=Path, metavar="DIR", help="where BLEND's pictures are")
    parser.add_argument(
        "--blend-share",
        type=float,
        metavar="SHARE",
        help="BLEND's share of the train records, between 0 and 1, for instance 0.2",
    )


def add_source(parser: argparse.ArgumentParser, holds: str) -> None:
    from data_prep.formats import AUTO, READERS  # for the two commands that read annotations

    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help=holds)
    parser.add_argument(
        "--format",
        choices=[AUTO, *READERS],
        default=AUTO,
        help="of the annotations (default: auto, which says what it found)",
    )
    parser.add_argument(
        "--image-folder", type=Path, metavar="DIR", help="where the pictures are, if not below SOURCE"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=DEFAULT_CONFIG,
        metavar="MODEL",
        help="judge box sizes as the model sees them that will be trained: a training config, a model's "
        f"folder or a Hub name of LLaVA (default: {DEFAULT_CONFIG})",
    )


def add_workers(parser: argparse.ArgumentParser, help: str = "threads (default: one a core)") -> None:
    parser.add_argument("--workers", type=at_least(1), default=os.cpu_count() or 1, metavar="N", help=help)


def add_ray(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="open the pictures on a Ray cluster: auto, local or ray://HOST:PORT; its machines must share "
        "the folders that are read and written, under the same paths",
    )
    parser.add_argument(
        "--ray-workers",
        type=at_least(1),
        metavar="N",
        help="pictures at a time on it (default: one for each of its CPUs)",
    )


def _check_ray(args: argparse.Namespace) -> None:
    if args.ray_workers is not None and args.ray is None:
        raise InputError("--ray-workers is for --ray; add it, or leave this out")


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write three shares such as 0.7,0.15,0.15") from None
    return train, val, test


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number above 0")
    return int(text)
