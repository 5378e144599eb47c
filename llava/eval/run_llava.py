"""Ask one question about one or more images: `eval_model(args)`, or `python -m llava.eval.run_llava`.

The names are LLaVA's own (haotian-liu/LLaVA, llava/eval/run_llava.py).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import Request as WebRequest
from urllib.request import urlopen

from PIL import Image

from llava.common.cli import CommandParser, add_model_flags, add_sampling_flags
from llava.common.errors import InputError, run_command
from llava.common.files import read_text
from llava.common.images import open_image
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER_TOKEN

TIMEOUT = 30  # seconds without a byte
MAX_IMAGE_BYTES = 256 << 20  # of an image fetched from an address

NOTES = """From Python, with LLaVA's argument names:
  from llava.eval.run_llava import eval_model
  eval_model(type("Args", (), {"model_path": "playground/tiny-llava", "model_base": None,
      "model_name": "tiny-llava", "query": "Is there a defect?", "conv_mode": None, "image_file": "a.jpg",
      "sep": ",", "temperature": 0, "top_p": None, "num_beams": 1, "max_new_tokens": 512})())"""


def load_image(image_file: str) -> Image.Image:
    """Load the image at a path or http(s) address as RGB; InputError with its name if that fails."""
    if not image_file.startswith(("http://", "https://")):
        return open_image(image_file)
    try:
        with urlopen(
            WebRequest(image_file, headers={"User-Agent": "llava-inspect"}), timeout=TIMEOUT
        ) as reply:
            data = reply.read(MAX_IMAGE_BYTES + 1)
    except (OSError, ValueError, HTTPException) as error:
        raise InputError(f"{image_file}: cannot be fetched ({getattr(error, 'reason', error)})") from None
    if len(data) > MAX_IMAGE_BYTES:
        raise InputError(
            f"{image_file}: larger than {MAX_IMAGE_BYTES >> 20} MB; download it and name the file"
        )
    try:
        return open_image(BytesIO(data))
    except InputError as error:
        raise InputError(f"{image_file}: {error}") from None


def load_images(image_files: Sequence[str]) -> list[Image.Image]:
    """Load several images as `load_image` does."""
    return [load_image(image_file) for image_file in image_files]


def eval_model(args: Any) -> None:
    """Ask a question about images and print the answer.

    Args:
        args: LLaVA's own: `query`, where `<image-placeholder>` marks where an image goes (without one they
            come first); `image_file`, paths or addresses joined by `sep`; `model_path`, `model_base`,
            `conv_mode` and the sampling options. `model_name` is accepted and not used: a model's files say
            what it is. Ours is `json_schema`, the path of a JSON schema that the answer follows.

    Raises:
        InputError: the images or the model cannot be loaded, or the question cannot be asked.
    """
    names = [name.strip() for name in args.image_file.split(getattr(args, "sep", None) or ",")]
    images = load_images(names)
    schema_file = getattr(args, "json_schema", None)
    schema = read_text(Path(schema_file)) if schema_file else None
    from llava.inference.engine import Engine, Request
    from llava.model.builder import load_model

    loaded = load_model(
        args.model_path,
        args.model_base,
        conv_mode=args.conv_mode,
        device=getattr(args, "device", None),
        load_8bit=getattr(args, "load_8bit", False),
        load_4bit=getattr(args, "load_4bit", False),
    )
    query = args.query.replace(IMAGE_PLACEHOLDER_TOKEN, DEFAULT_IMAGE_TOKEN)
    (result,) = Engine(loaded).answer(
        [Request("query", query, images)],
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature or 0.0,
        top_p=args.top_p,
        num_beams=args.num_beams,
        seed=getattr(args, "seed", 0),
        json_schema=schema,
    )
    if result.error is not None:
        raise InputError(result.error)
    print(result.text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        "python -m llava.eval.run_llava",
        "Ask one question about one or more pictures.",
        notes=NOTES,
        examples=['--model-path playground/tiny-llava --image-file a.jpg --query "Is there a defect?"'],
    )
    add_model_flags(parser)
    parser.add_argument("--image-file", required=True, help="path or http(s) address, or several")
    parser.add_argument("--query", required=True, help="the question")
    parser.add_argument("--sep", default=",", help="between several --image-file names (default: ,)")
    add_sampling_flags(parser, max_new_tokens=512)
    parser.add_argument("--json-schema", metavar="FILE", help="hold the answer to this JSON schema")
    eval_model(parser.parse_args(sys.argv[1:] if argv is None else argv))
    return 0


if __name__ == "__main__":
    run_command(main)
