"""Compare with the original LLaVA client, unpatched: next-token logits on a square and on a wide picture, and
an answer in its terminal chat. `tests/interop/original_env.sh` makes its environment first.

    python tests/interop/check_original.py [--python .interop/original/bin/python]

Read: folders as the original writes them, in both programs. Written: folders that scripts/export.py writes
from Hugging Face models. The models are small and random (tests/support/family_models.py), and the embedded
base. The result is kept in docs/interop/original.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from results import Row, write_check  # noqa: E402

from llava.model.builder import LoadedModel, load_model  # noqa: E402
from tests.support.family_models import save_family  # noqa: E402
from tests.support.original_folders import save_original  # noqa: E402

TINY = ROOT / "playground" / "tiny-llava"
QUESTION = "Is there a gap in the row of elements?"
BOUND = 1e-3
SCALE = 0.6  # of the random weights: the picture must matter
# The original chooses model class and conv mode by the folder's name.
MODELS = {
    "llava-v1.5-small": ("LLaVA-1.5", "llava-llama", "llava_v1"),
    "llava-v1.6-small": ("LLaVA-1.6", "llava_next-llama", "llava_v1"),
    "llava-v1.6-mistral-small": ("LLaVA-1.6 Mistral", "llava_next-mistral", "mistral_instruct"),
}


class Original:
    """The original client in its own environment."""

    def __init__(self, python: Path, work: Path) -> None:
        self.python, self.work = python, work
        # not ours: its package has the same name
        self.environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(self, *arguments: str | Path, typed: str = "") -> str:
        command = [str(self.python), *map(str, arguments)]
        done = subprocess.run(
            command, input=typed, capture_output=True, text=True, cwd=self.work, env=self.environment
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def logits(self, model: Path, images: list[Path], conv_mode: str) -> dict[str, Any]:
        output = self.work / "logits.json"
        script = HERE / "original_logits.py"
        self.run(script, model, QUESTION, *images, "--conv-mode", conv_mode, "--output", output)
        found: dict[str, Any] = json.loads(output.read_text())
        return found


def our_logits(loaded: LoadedModel, path: Path, question: str = QUESTION) -> tuple[list[int], torch.Tensor]:
    """The prompt's ids, with one -200 for the picture, and the next token's logits (vocabulary)."""
    image = Image.open(path).convert("RGB")
    ids = loaded.processor.encode_prompt([("human", "<image>\n" + question)], [(image.height, image.width)])
    inputs = loaded.processor.vision.inputs([loaded.processor.pixels(image)])
    tokens = torch.tensor([ids])
    with torch.inference_mode():
        output = loaded.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **inputs)
    image_token, start = loaded.processor.image_token_id, ids.index(loaded.processor.image_token_id)
    return ids[:start] + [-200] + [t for t in ids[start:] if t != image_token], output.logits[0, -1]


def compare(original: Original, ours: Path, theirs: Path, images: list[Path], conv_mode: str) -> float:
    """The largest difference of logits; SystemExit if it is above the bound or the prompts differ."""
    found = original.logits(theirs, images, conv_mode)
    loaded = load_model(ours, device="cpu", dtype=torch.float32, conv_mode=conv_mode)
    largest = 0.0
    seen = []
    for path, expected in zip(images, map(torch.tensor, found["logits"]), strict=True):
        ids, logits = our_logits(loaded, path)
        if ids != found["ids"]:
            raise SystemExit(f"{theirs.name}: the prompts differ: {ids} and {found['ids']}")
        largest = max(largest, float((logits[: len(expected)] - expected).abs().max()))
        seen.append(expected)
    apart = float((seen[0] - seen[1]).abs().max())
    print(
        f"{theirs.name} ({found['model_class']}, {len(seen[0])} rows): largest difference {largest:.1e}; "
        f"the two pictures' logits are {apart:.2f} apart",
        flush=True,
    )
    if largest > BOUND:
        raise SystemExit(f"{theirs.name}: logits differ by {largest:.1e}, more than {BOUND:.0e}")
    if apart < 100 * BOUND:
        raise SystemExit(
            f"{theirs.name}: the picture does not matter to this model: the check proves nothing"
        )
    return largest


def export(model: Path, folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "scripts/export.py", "--model-path", model, "--output", folder, "--format", "llava"],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return folder


def chat(original: Original, theirs: Path, ours: Path, image: Path) -> str:
    """Both terminal chats' answer to QUESTION; SystemExit if they differ."""
    flags = ["--image-file", image, "--device", "cpu", "--temperature", "0", "--max-new-tokens", "32"]
    said = original.run("-m", "llava.serve.cli", "--model-path", theirs, *flags, typed=QUESTION + "\n\n")
    own = subprocess.run(
        [sys.executable, "-m", "llava.serve.cli", "--model-path", ours, "--conv-mode", "llava_v1", *flags],
        input=QUESTION + "\n\n", capture_output=True, text=True, cwd=ROOT, check=True,
    ).stdout  # fmt: skip
    answers = [text.partition("ASSISTANT: ")[2].partition("USER: ")[0].strip() for text in (said, own)]
    print(f"{QUESTION} original: {answers[0]!r}, ours: {answers[1]!r}", flush=True)
    if not answers[0] or answers[0].removesuffix("</s>") != answers[1]:
        raise SystemExit("the two chats' answers differ")
    return answers[1]


def save_images(folder: Path) -> list[Path]:
    noise = np.random.default_rng(3)
    paths = []
    for name, width, height in (("square", 60, 60), ("wide", 91, 34)):
        Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
            folder / f"{name}.png"
        )
        paths.append(folder / f"{name}.png")
    return paths


def check(original: Original, work: Path) -> list[Row]:
    images = save_images(work)
    rows = []
    for name, (title, family, conv_mode) in MODELS.items():
        foreign, _ = save_original(TINY, work / "read" / name, family, dtype=torch.float16, scale=SCALE)
        settings = json.loads((foreign / "config.json").read_text())
        settings["mm_vision_tower"] = str(foreign / "tower")  # as the original wants it: a path that exists
        (foreign / "config.json").write_text(json.dumps(settings))
        read = compare(original, foreign, foreign, images, conv_mode)
        against = "original client: square and wide picture"
        rows.append(Row(form=f"original, {title}", reads=True, writes=False, checked_against=against,
                        largest_difference=read))  # fmt: skip
        base = save_family(TINY, work / "hf" / name, family, dtype=torch.float16, scale=SCALE)
        written = compare(original, base, export(base, work / "written" / name), images, conv_mode)
        rows.append(Row(form=f"original, {title}", reads=False, writes=True, checked_against=against,
                        largest_difference=written))  # fmt: skip
    exported = export(TINY, work / "written" / "llava-v1.5-tiny")
    sample = ROOT / "docs" / "sample.jpg"
    largest = compare(original, TINY, exported, [sample, images[1]], "llava_v1")
    answer = chat(original, exported, TINY, sample)
    rows.append(Row(form="original, the embedded base", reads=False, writes=True,
                    checked_against="original client: logits, and `python -m llava.serve.cli --device cpu`",
                    largest_difference=largest, note=f"both chats answer {answer!r}"))  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ROOT / ".interop" / "original" / "bin" / "python"
    parser.add_argument(
        "--python", type=Path, default=default, help=f"of its environment (default: {default})"
    )
    python = parser.parse_args().python.absolute()
    if not python.is_file():
        print(f"error: {python} is absent; bash tests/interop/original_env.sh makes it", file=sys.stderr)
        return 2
    with TemporaryDirectory() as folder:
        rows = check(Original(python, Path(folder)), Path(folder))
    versions = {
        "llava-torch": "1.2.2.post1 with transformers 4.37.2", "transformers": transformers.__version__,
        "torch": torch.__version__,
    }  # fmt: skip
    print(write_check("original", "python tests/interop/check_original.py", versions, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
