"""Find something in a large photo: `llava-inspect find`, or `python -m llava.search`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llava.common.cli import CommandParser, add_model_flags, print_next
from llava.common.errors import InputError, run_command
from llava.common.files import atomic_folder, write_json, write_text
from llava.common.images import open_image
from llava.search.windows import DEFAULT_SMALLEST

if TYPE_CHECKING:
    from PIL import Image

    from llava.search.result import SearchProgress

NOTES = """Every window of the photo is asked about, in several wordings, and the likeliest places again,
shifted four ways. Ctrl-C stops; what was found so far is written. The answer is never a bare "yes": a thing
that is not there reaches 0.8 now and then, so look at the crops.

The output folder gets found.json, heat.png, crops/1.jpg and so on, and report.html with all of them."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        "python -m llava.search",
        "Find something in a photo far larger than the model's input, and ask about it.",
        notes=NOTES,
        examples=[
            '--model-path playground/tiny-llava --image-file big.jpg --find "a red star" --output found',
            "--model-path playground/tiny-llava --image-file big.jpg --reference thing.jpg\n"
            '--ask "Where is it?" --output found',
        ],
    )
    add_model_flags(parser)
    parser.add_argument("--image-file", type=Path, required=True, help="the photo, of any size")
    parser.add_argument("--find", metavar="WORDS", help='what to find, with its article: "a red star"')
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="a picture of it, described by the model without --find",
    )
    parser.add_argument("--ask", metavar="QUESTION", help='about each place: "What is he doing?"')
    parser.add_argument(
        "--smallest",
        type=int,
        default=DEFAULT_SMALLEST,
        metavar="PX",
        help="how small it may be in the photo, in pixels (default: %(default)s)",
    )
    parser.add_argument("--top", type=int, default=5, help="how many places to show (default: 5)")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder if it exists")
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if args.find is None and args.reference is None:
        parser.error("say what to find: --find WORDS, --reference FILE or both")
    if args.output.exists() and not args.overwrite:
        raise InputError(f"{args.output} exists already; name another folder or add --overwrite")
    if args.output.is_dir() and any(args.output.iterdir()) and not (args.output / "found.json").is_file():
        raise InputError(f"{args.output} is not an earlier search (no found.json); remove it yourself")
    image = open_image(args.image_file)  # before the model, which takes longer to load
    reference = None if args.reference is None else open_image(args.reference)

    with atomic_folder(args.output, overwrite=args.overwrite) as folder:
        last = _search(args, image, reference)
        _write(folder, args, image, last)
    result = last.result
    for number, place in enumerate(result.found, start=1):
        similar = "" if place.similarity is None else f"  similarity {place.similarity:.2f}"
        answer = "" if place.answer is None else f"  {place.answer}"
        print(f"{number}. yes {place.p_yes:.2f}  box {list(place.box)}{similar}{answer}")
    print(
        f"{result.windows_asked} windows in {result.seconds:.1f} s. Candidates, not findings: look at them."
    )
    print_next(f"open {args.output / 'report.html'}")
    return 0 if result.complete else 130


def _search(args: Namespace, image: Image.Image, reference: Image.Image | None) -> SearchProgress:
    """Search with a progress bar; returns the last event, also where Ctrl-C stopped it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from llava.inference.live import LiveEngine
    from llava.model.builder import load_model
    from llava.search.find import search
    from llava.search.reference import describe

    loaded = load_model(
        args.model_path, args.model_base, device=args.device, load_8bit=args.load_8bit,
        load_4bit=args.load_4bit, conv_mode=args.conv_mode,
    )  # fmt: skip
    last = None
    with LiveEngine(loaded) as engine:
        words = args.find
        if words is None:
            assert reference is not None
            words = describe(engine, reference)
            print(f'the reference picture shows, to the model: "{words}" (--find gives it other words)')
        events = search(
            engine, image, words, smallest=args.smallest, top=args.top, ask=args.ask, reference=reference
        )
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        try:
            with Progress(*columns, console=Console(stderr=True)) as progress:
                bar = progress.add_task("windows", total=None)
                for last in events:
                    best = f", best {last.result.found[0].p_yes:.2f}" if last.result.found else ""
                    progress.update(bar, description=last.stage + best, completed=last.done, total=last.total)
        except KeyboardInterrupt:
            if last is None:
                raise
            print("stopped: what was found so far is written", file=sys.stderr)
    assert last is not None
    return last


def _write(folder: Path, args: Namespace, image: Image.Image, last: SearchProgress) -> None:
    from llava.search.page import search_page
    from llava.search.picture import crop_picture, heat_picture

    heat = heat_picture(image, last.heat, last.result)
    crops = [crop_picture(image, place) for place in last.result.found]
    asked = {"image": str(args.image_file), "ask": args.ask}
    if args.reference is not None:
        asked["reference"] = str(args.reference)
    write_json(folder / "found.json", asked | last.result.as_json())
    heat.save(folder / "heat.png")
    (folder / "crops").mkdir()
    for number, crop in enumerate(crops, start=1):
        crop.save(folder / "crops" / f"{number}.jpg", quality=90)
    write_text(folder / "report.html", search_page(args.image_file.name, last.result, heat, crops, args.ask))


if __name__ == "__main__":
    run_command(main)
