"""Compare with plain transformers: next-token logits on a square and on a wide picture, where its own
processor renders the chat template, tokenises and prepares the picture.

    python tests/interop/check_transformers.py

Read: folders that transformers saves. Written: folders that scripts/export.py makes of original ones, and run
directories merged by scripts/merge_lora.py. The models are small and random, and the embedded base. The
result is kept in docs/interop/transformers.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from check_original import BOUND, QUESTION, SCALE, TINY, our_logits, save_images  # noqa: E402
from results import Row, write_check  # noqa: E402

from llava.conversation import get_template  # noqa: E402
from llava.model.builder import load_model  # noqa: E402
from llava.model.folder import open_model_folder  # noqa: E402
from tests.support.family_models import family_image_processor, save_family  # noqa: E402
from tests.support.original_folders import save_original  # noqa: E402
from tests.support.tiny_models import save_run  # noqa: E402

AGAINST = "transformers: its processor and model"
FAMILIES = {
    "LLaVA-1.5": "llava-llama", "LLaVA-1.6": "llava_next-llama", "LLaVA-1.6 Mistral": "llava_next-mistral",
    "LLaVA-OneVision": "llava_onevision-qwen2",
}  # fmt: skip


def their_logits(folder: Path, image: Path) -> torch.Tensor:
    model = AutoModelForImageTextToText.from_pretrained(str(folder), dtype=torch.float32).eval()
    if model.config.model_type == "llava_onevision":
        return onevision_logits(folder, model, image)
    processor = AutoProcessor.from_pretrained(str(folder))
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    inputs = processor(images=Image.open(image).convert("RGB"), text=text, return_tensors="pt")
    with torch.inference_mode():
        logits: torch.Tensor = model(**inputs).logits[0, -1]
    return logits


def onevision_logits(folder: Path, model: Any, image: Path) -> torch.Tensor:
    """OneVision's processor wants torchvision for its videos; its image processor and the model do not."""
    tokenizer = open_model_folder(folder).tokenizer
    inputs = AutoImageProcessor.from_pretrained(str(folder), backend="pil")(
        Image.open(image).convert("RGB"), return_tensors="pt"
    )
    with torch.inference_mode():
        count = sum(map(len, model.get_image_features(**inputs).pooler_output))
        text = get_template("v1").text(
            [("human", "<image>" * count + "\n" + QUESTION)], generation_prompt=True
        )
        logits: torch.Tensor = model(**inputs, **tokenizer(text, return_tensors="pt")).logits[0, -1]
    return logits


def compare(title: str, ours: Path, theirs: Path, images: list[Path]) -> float:
    """The largest difference of logits; SystemExit if it is above the bound."""
    loaded = load_model(ours, device="cpu", dtype=torch.float32)
    differences = [(our_logits(loaded, path)[1] - their_logits(theirs, path)).abs().max() for path in images]
    largest = float(max(differences))
    print(f"{title}: largest difference {largest:.1e}", flush=True)
    if largest > BOUND:
        raise SystemExit(f"{title}: logits differ by {largest:.1e}, more than {BOUND:.0e}")
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


def check(work: Path) -> list[Row]:
    images = save_images(work)
    rows = []
    for title, family in FAMILIES.items():
        folder = save_family(TINY, work / "read" / family, family, scale=SCALE)
        onevision = family.startswith("llava_onevision")
        if not onevision:
            save_processor(folder)
        largest = compare(f"read, {title}", folder, folder, images)
        rows.append(Row(form=f"Hugging Face, {title}", reads=True, writes=False, checked_against=AGAINST,
                        largest_difference=largest))  # fmt: skip
        trained, merged = save_run(work / "run" / family, folder), work / "merged" / family
        run("merge_lora.py", "--model-path", trained, "--save-model-path", merged)
        largest = compare(f"a run directory and its merge, {title}", trained, merged, images)
        rows.append(Row(form=f"our run directory, {title}", reads=True, writes=True, checked_against=AGAINST,
                        largest_difference=largest, note="unmerged here, merged there"))  # fmt: skip
        if onevision:  # the original client does not know it
            continue
        original, _ = save_original(TINY, work / "original" / family, family, scale=SCALE)
        made = work / "written" / family
        run("export.py", "--format", "hf", "--model-path", original, "--output", made)
        largest = compare(f"written, {title}", original, made, images)
        rows.append(Row(form=f"Hugging Face, {title}", reads=False, writes=True, checked_against=AGAINST,
                        largest_difference=largest, note="made of an original folder"))  # fmt: skip
    largest = compare("read, the embedded base", TINY, TINY, [ROOT / "docs" / "sample.jpg", images[1]])
    rows.append(Row(form="Hugging Face, the embedded base", reads=True, writes=False, checked_against=AGAINST,
                    largest_difference=largest))  # fmt: skip
    return rows


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with TemporaryDirectory() as folder:
        rows = check(Path(folder))
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    print(write_check("transformers", "python tests/interop/check_transformers.py", versions, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
