"""Compare with plain transformers: next-token logits and greedy answers on square and on wide pictures, where
its own processor renders the chat template, tokenises and prepares the picture.

    python tests/interop/check_transformers.py
    python tests/interop/check_transformers.py --python .interop/transformers-4.57.6/bin/python

The first takes the transformers that is installed, the second another release, which
`tests/interop/transformers_env.sh` installs.

Read: folders that transformers saves. Written: folders that scripts/export.py makes of original ones, and run
directories merged by scripts/merge_lora.py. The models are small and random, and the embedded base with a
random adapter. The result is kept in docs/interop/transformers.json and transformers-VERSION.json.
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

import torch
from PIL import Image
from transformers import AutoConfig, LlavaNextProcessor, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from asked import MAX_NEW_TOKENS, Asked, our_answers, save_questions  # noqa: E402
from check_original import BOUND, QUESTION, SCALE, TINY, our_logits, save_images  # noqa: E402
from results import Row, write_check  # noqa: E402

from llava.conversation import get_template  # noqa: E402
from llava.model.builder import load_model  # noqa: E402
from llava.model.folder import open_model_folder  # noqa: E402
from llava.processing.vision import image_size  # noqa: E402
from tests.support.family_models import family_image_processor, save_family  # noqa: E402
from tests.support.original_folders import save_original  # noqa: E402
from tests.support.tiny_models import save_run  # noqa: E402

EQUAL = "equal answers"
FAMILIES = {
    "LLaVA-1.5": "llava-llama", "LLaVA-1.6": "llava_next-llama", "LLaVA-1.6 Mistral": "llava_next-mistral",
    "LLaVA-OneVision": "llava_onevision-qwen2",
}  # fmt: skip


class Transformers:
    """A release of transformers, in this environment or in one of its own."""

    def __init__(self, python: Path, work: Path) -> None:
        self.python, self.work = python, work
        self.environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.version = self._run("-c", "import transformers; print(transformers.__version__)").strip()
        self.title = f"transformers {self.version}: its processor and model"
        self.own = python == Path(sys.executable)

    def _run(self, *arguments: str | Path) -> str:
        command = [str(self.python), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def answers(self, folder: Path, asked: list[Asked], image_tokens: list[int]) -> dict[str, Any]:
        """The next token's logits and the ids of the greedy answer, for each question."""
        questions = [
            {"text": one.text, "picture": str(one.picture), "image_tokens": count}
            for one, count in zip(asked, image_tokens, strict=True)
        ]
        job, output = self.work / "job.json", self.work / "answers.json"
        job.write_text(json.dumps({"folder": str(folder), "questions": questions, "limit": MAX_NEW_TOKENS}))
        self._run(HERE / "transformers_answers.py", job, output)
        found: dict[str, Any] = json.loads(output.read_text())
        return found


def compare(title: str, ours: Path, theirs: Path, asked: list[Asked], client: Transformers) -> float:
    """The largest difference of logits; SystemExit if it is above the bound or a greedy answer differs."""
    loaded = load_model(ours, device="cpu", dtype=torch.float32)
    processor = loaded.processor
    counts = [processor.vision.token_counts([image_size(Image.open(one.picture))])[0] for one in asked]
    found = client.answers(theirs, asked, counts)
    largest = 0.0
    for one, logits in zip(asked, map(torch.tensor, found["logits"]), strict=True):
        largest = max(largest, float((our_logits(loaded, one.picture, one.text)[1] - logits).abs().max()))
    decoded = [loaded.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in found["answers"]]
    answers = our_answers(loaded, asked)
    equal = sum(one == other for one, other in zip(decoded, answers, strict=True))
    print(f"{title}: largest difference {largest:.1e}, {equal} of {len(asked)} answers equal", flush=True)
    if largest > BOUND or equal < len(asked):
        pairs = [(a, b) for a, b in zip(decoded, answers, strict=True) if a != b]
        raise SystemExit(f"{title}: logits or answers differ (theirs, ours): {pairs[:2]}")
    return largest


def save_processor(folder: Path) -> None:
    """The whole processor beside the model, as Hub folders have it; 1.5 pads pictures, as LLaVA does."""
    config = AutoConfig.from_pretrained(str(folder))
    given = {
        "tokenizer": open_model_folder(folder).tokenizer, "patch_size": config.vision_config.patch_size,
        "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default",
        "chat_template": get_template("v1").jinja(),
    }  # fmt: skip
    images = family_image_processor(config)
    if config.model_type == "llava":
        padded = LlavaImageProcessorPil(size=images.size, crop_size=images.crop_size, do_pad=True)
        LlavaProcessor(padded, **given).save_pretrained(str(folder))
    else:
        LlavaNextProcessor(images, **given).save_pretrained(str(folder))


def run(script: str, *flags: str | Path) -> None:
    command = [sys.executable, f"scripts/{script}", *map(str, flags)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def check(client: Transformers, work: Path) -> list[Row]:
    both = [Asked(QUESTION, picture) for picture in save_images(work)]
    rows = []
    for title, family in FAMILIES.items():
        tiled_wrongly = client.version.startswith("4.51.") and family != "llava-llama"
        asked = both[:1] if tiled_wrongly else both
        equal = f"{EQUAL}; square picture only, see below" if tiled_wrongly else EQUAL
        folder = save_family(TINY, work / "read" / family, family, scale=SCALE)
        onevision = family.startswith("llava_onevision")
        if not onevision:
            save_processor(folder)
        if client.own:  # other releases do not read what this one saves
            largest = compare(f"read, {title}", folder, folder, asked, client)
            rows.append(Row(form=f"Hugging Face, {title}", reads=True, writes=False,
                            checked_against=client.title, largest_difference=largest,
                            note=equal))  # fmt: skip
        trained, merged = save_run(work / "run" / family, folder), work / "merged" / family
        run("merge_lora.py", "--model-path", trained, "--save-model-path", merged)
        largest = compare(f"a run directory and its merge, {title}", trained, merged, asked, client)
        rows.append(Row(form=f"our run directory, {title}", reads=client.own, writes=True,
                        checked_against=client.title, largest_difference=largest,
                        note=f"unmerged here, merged there; {equal}"))  # fmt: skip
        if onevision:  # the original client does not know it
            continue
        original, _ = save_original(TINY, work / "original" / family, family, scale=SCALE)
        made = work / "written" / family
        run("export.py", "--format", "hf", "--model-path", original, "--output", made)
        largest = compare(f"written, {title}", original, made, asked, client)
        rows.append(Row(form=f"Hugging Face, {title}", reads=False, writes=True, checked_against=client.title,
                        largest_difference=largest, note=f"made of an original folder; {equal}"))  # fmt: skip
    trained, merged = save_run(work / "run" / "tiny", TINY), work / "merged" / "tiny"
    # its type, float16, would round the merged weights
    run("merge_lora.py", "--model-path", trained, "--save-model-path", merged, "--dtype", "float32")
    asked = save_questions(work)
    largest = compare("a run on the embedded base and its merge", trained, merged, asked, client)
    rows.append(Row(form="our run directory, the embedded base", reads=client.own, writes=True,
                    checked_against=client.title, largest_difference=largest,
                    note=f"unmerged here, merged there; {len(asked)} equal answers"))  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--python", type=Path, help="of an environment with another transformers (default: this one)"
    )
    other = parser.parse_args().python
    python = Path(sys.executable) if other is None else other.absolute()
    if not python.is_file():
        print(f"error: {python} is absent; tests/interop/transformers_env.sh makes it", file=sys.stderr)
        return 2
    with TemporaryDirectory() as folder:
        client = Transformers(python, Path(folder))
        rows = check(client, Path(folder))
    command, name = "python tests/interop/check_transformers.py", "transformers"
    if not client.own:
        name += f"-{client.version}"
        command += f" --python .interop/{name}/bin/python"
    versions = {"transformers": client.version, "torch": torch.__version__}
    print(write_check(name, command, versions, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
