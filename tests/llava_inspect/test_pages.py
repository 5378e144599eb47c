"""The commands of README, docs/own_photos.md, docs/models.md, docs/howto.md and of the tutorials, one after
the other, with few photos and steps of training.

They are run in the tests' own process: each command has a test elsewhere that starts it as a user does.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llava.train.__main__ import main as train
from llava_inspect import run_commands
from llava_inspect.__main__ import main as llava_inspect
from tests.support.chat_server import fake_chat
from tests.support.commands import do_as_printed
from tests.support.pages import blocks, commands
from tests.support.paths import REPO
from tests.support.photos import write_boxes, write_photos

pytestmark = pytest.mark.slow

FEW = [
    "max_steps=2",
    "eval_steps=2",
    "save_steps=2",
    "logging_steps=1",
    "batch_size=2",
    "eval_generate_samples=2",
]
OTHERS = {"git", "llama-mtmd-cli", "llama-server", "nano", "unzip", "vllm"}  # programs of others
TUTORIALS = REPO / "docs" / "tutorials"
Do = Callable[[str], None]


@pytest.fixture
def do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Do:
    """Does the commands of a block in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_commands, "run_command_of", lambda step, lock: do_as_printed(step))
    extras = re.findall(
        r"^([\w-]+) = \[", (REPO / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )

    def do(block: str) -> None:
        for program, *arguments in commands(block):
            if program == "llava-inspect":
                training = arguments[0] in ("run", "train") and "--dry-run" not in arguments
                monkeypatch.setattr("sys.stdin", io.StringIO("Is there a defect?\n\n"))
                given = [*arguments, *(FEW if training else [])]
                # `llava-inspect train` would end this process where it starts several.
                code = train(given[1:]) if given[0] == "train" else llava_inspect(given)
                assert code == 0, given
            elif program == "scripts/setup.sh":
                assert set(arguments) <= set(extras)
            else:
                assert program in OTHERS, program

    return do


def test_readmes_road_command_by_command(do: Do, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands that README's one consists of, those of docs/own_photos.md that are not among them, and
    handing the model on."""
    write_photos(tmp_path / "playground" / "data_train", 40)
    shutil.copy(next((tmp_path / "playground").rglob("*.jpg")), tmp_path / "photo.jpg")
    _, parts = blocks(REPO / "README.md", "Your own photos")
    do(parts)
    scores = json.loads((tmp_path / "runs" / "scores" / "scores.json").read_text(encoding="utf-8"))
    assert {"presence", "kind"} <= {task["task"] for task in scores["tasks"]}
    capsys.readouterr()
    do("llava-inspect compare runs/scores runs/scores")
    assert "presence: B the same answers" in capsys.readouterr().out

    # The other one needs a Ray cluster: tests/data_prep/commands/test_convert_ray.py has one.
    detailed, _ = blocks(REPO / "docs" / "own_photos.md", "")
    kept = [part for part in detailed.split("\n\n") if re.search("llava-inspect (inspect|chat)", part)]
    assert len(kept) == 2
    do("\n".join(kept))
    said = capsys.readouterr().out
    assert "ASSISTANT" in said and said.endswith("exit...\n")
    assert "<style>" in (tmp_path / "runs" / "before.html").read_text(encoding="utf-8")
    do(blocks(REPO / "docs" / "models.md", "Merge and export")[0])
    assert same_tensors(tmp_path / "runs" / "merged", tmp_path / "runs" / "hf")
    assert (tmp_path / "runs" / "llava-v1.5-insulator" / "tokenizer.model").is_file()
    assert {path.name for path in (tmp_path / "runs" / "gguf").iterdir()} >= {
        "model-f16.gguf",
        "mmproj-f16.gguf",
    }
    do("llava-inspect check runs/data/train.json runs/data/val.json --image-folder runs/data")
    assert capsys.readouterr().out.endswith("picture(s), all decoded: nothing found\n")


def same_tensors(first: Path, second: Path) -> bool:
    """Return whether two model folders hold the same tensors."""
    one, two = (load_file(folder / "model.safetensors") for folder in (first, second))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_how_to(do: Do, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = REPO / "docs" / "howto.md"
    write_photos(tmp_path / "playground" / "data_train", 16)
    write_photos(tmp_path / "playground" / "data_infer", 3, seed=1)
    shutil.copy(next((tmp_path / "playground").rglob("*.jpg")), tmp_path / "photo.jpg")
    do("llava-inspect run playground/data_train")

    dry_run, small = blocks(page, "Train a 7B model on a GPU of 12 GB")
    capsys.readouterr()
    do(dry_run)
    assert "GPU of 12 GB" in capsys.readouterr().out
    # No weights of 7 billion parameters are here: the commands are printed, the chat is with a tiny model.
    small = small.replace("runs/llava\n", "runs/llava --dry-run\n").replace("runs/llava/", "runs/data_train/")
    do(small)
    assert "llava-inspect train llava15_7b_qlora_12gb" in capsys.readouterr().out
    [spread] = blocks(page, "Train on several GPUs")
    do(spread)
    assert "4 GPUs of 40 GB" in capsys.readouterr().out

    find, again = blocks(page, "Let Label Studio correct what the model found")
    do(find)
    tasks = json.loads(
        (tmp_path / "runs/survey/prelabels/label-studio/tasks.json").read_text(encoding="utf-8")
    )
    for task in tasks:
        task["annotations"] = task.pop("predictions")
    (tmp_path / "corrected").mkdir()
    (tmp_path / "corrected" / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    do(again)
    assert (tmp_path / "runs/corrected/train.json").is_file()

    do("".join(blocks(page, "Use the model in llama.cpp")))
    assert {path.name for path in (tmp_path / "runs/gguf").iterdir()} >= {"model-f16.gguf", "mmproj-f16.gguf"}
    serve, ask = blocks(page, "Use the model in vLLM")
    do(serve)
    with fake_chat() as chat:
        do(ask.replace("http://localhost:8000", chat.url))
    assert (tmp_path / "runs/scores_vllm/report.html").is_file()


def masks(folder: Path, kinds: Sequence[str], count: int) -> None:
    """Write photos of sound and defective tiles, and masks, in the layout of MVTec AD."""
    rng = np.random.default_rng(0)
    for kind in ("good", *kinds):
        for number in range(count):
            place = folder / ("train" if kind == "good" else "test") / kind
            place.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 255, (200, 160), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
            if kind != "good":
                mask = np.zeros((200, 160), np.uint8)
                mask[20 + 9 * number : 50 + 9 * number, 30:60] = 255
                (folder / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(folder / "ground_truth" / kind / f"{number}_mask.png")


def test_tutorial_on_steel(do: Do, tmp_path: Path) -> None:
    kinds = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
    box = (20, 10, 60, 40)
    write_boxes(tmp_path / "NEU-DET", *([(kind, box)] for kind in kinds), count=24)
    shutil.copytree(tmp_path / "NEU-DET" / "images", tmp_path / "new_plates")
    (tmp_path / "new_plates" / "p00.jpg").rename(tmp_path / "new_plates" / "scratches_158.jpg")
    do("".join(blocks(TUTORIALS / "steel.md", "")))
    assert (tmp_path / "runs/survey-new_plates/register.html").is_file()


def test_tutorial_on_insulators(do: Do, tmp_path: Path) -> None:
    string, defect = ("insulator", (4, 20, 196, 60)), ("defect", (60, 24, 84, 56))
    write_boxes(
        tmp_path / "InsulatorDataSet/Defective_Insulators", [string, defect], count=12, size=(200, 80)
    )
    do("".join(blocks(TUTORIALS / "insulators.md", "")))
    assert (tmp_path / "runs/insulators/scores/report.html").is_file()


def test_tutorial_on_a_domain_of_ones_own(do: Do, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks(tmp_path / "tiles", ("blowhole", "crack"), 8)
    shutil.copytree(tmp_path / "tiles" / "test" / "crack", tmp_path / "new_tiles")
    *before, survey = blocks(TUTORIALS / "own_domain.md", "")
    capsys.readouterr()
    do("".join(before))
    [promised] = re.findall(r"Survey new photos:\n(.*runs/tiles2.*)", capsys.readouterr().out)
    assert commands(promised.replace("NEW_PHOTOS", "new_tiles")) == commands(survey)
    do(survey)
    assert (tmp_path / "runs/survey-new_tiles/register.html").is_file()


@pytest.mark.parametrize("page", TUTORIALS.glob("*.??.md"), ids=lambda page: page.name)
def test_a_translation_has_the_blocks_and_sections_of_the_original(page: Path) -> None:
    original = page.with_name(f"{page.name.partition('.')[0]}.md").read_text(encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    for pattern in ("```.*?```", "^#+ ", r"\]\([^)]+\)", 'src="[^"]+"'):
        flags = re.DOTALL | re.MULTILINE
        assert re.findall(pattern, text, flags) == re.findall(pattern, original, flags)
