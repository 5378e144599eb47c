"""Check two GGUF files against the model they were made of, in llama.cpp itself (`export.py --verify`).

A check per part, each with the largest difference found:

    PASS    llama.cpp computes what we do
    KNOWN   it does not, by a fault of llama.cpp that is named and was reproduced here in torch
    FAIL    it does not, and nothing known explains it

Two faults are known. Since May 2025 (its pull request 13321) llama.cpp puts CLIP's class token behind the
patches instead of before them (its issue 25814; llama-cpp-python 0.3.36 has it, 0.3.8 has not). Files for
such builds (`tensors.place_positions`) lose a patch, other files all positions. And LLaVA-1.6 images are not
cut into the same tiles. Both are undone by handing in our own embeddings, and that is checked too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from PIL import Image
from rich.console import Console
from rich.table import Table

from llava.common.errors import InputError
from llava.common.images import open_image
from llava.common.records import IMAGE_PLACEHOLDER
from llava.conversation import ChatTurns
from llava.export.gguf.llamacpp import LlamaCpp, PromptPart, require_llama_cpp
from llava.export.gguf.tensors import BUILD_KEY, POSITIONS, GgufType, LlamaCppBuild, place_positions
from llava.export.gguf.write import APPROXIMATE
from llava.model.builder import LoadedModel, load_model

Status = Literal["PASS", "KNOWN", "FAIL"]
BOUNDS: dict[GgufType, float] = {"f32": 1e-3, "f16": 1e-2, "bf16": 5e-2, "q8_0": 5e-2}
"""How far a logit may be from ours, by the type of the file. That of f32 is absolute; the others are parts of
the largest logit, for weights and activations are rounded in them."""
IMAGE_BOUNDS: dict[GgufType, float] = {"f32": 5e-3, "f16": 1e-2, "bf16": 5e-2, "q8_0": 1e-1}
"""The same for image embeddings, all as parts of the largest: llama.cpp's GELU reads a table of float16."""
CLASS_TOKEN = "llama.cpp puts CLIP's class token behind the patches (its issue 25814)"
CLASS_TOKEN_COSTS: dict[LlamaCppBuild, str] = {
    "current": "the top left patch is lost",
    "stock": "positions are shifted; for builds like this one, export with --llamacpp current",
}
"""What that does to a picture, by the builds that the file is for."""
MEANINGS: dict[Status, str] = {
    "PASS": "llama.cpp computes what the model does.",
    "KNOWN": "What is KNOWN lies in llama.cpp and not in the files: its answers about pictures can differ "
    "from the model's (docs/interop.md, llama.cpp).",
    "FAIL": "llama.cpp computes something else than the model: do not rely on these files.",
}
QUESTION = "What is in this picture, and is it damaged?"
MAX_NEW_TOKENS = 24


@dataclass(frozen=True)
class PartCheck:
    """Holds the result for a part of the model. `difference` is the largest one found, `bound` what is
    allowed of it; None where it is not a number."""

    part: str
    status: Status
    difference: float | None
    bound: float | None
    reason: str


def verify(
    model_path: str | Path,
    folder: Path,
    *,
    model_base: str | Path | None = None,
    image: Path | None = None,
    console: Console | None = None,
) -> bool:
    """Compare the GGUF files in `folder` with `model_path`, print the checks; return whether none is FAIL.

    Args:
        model_path: The model that the files were made of.
        folder: The folder that export_gguf wrote.
        model_base: The base of an adapter, if it is not where the adapter says.
        image: A file, padded to a square here, as llama.cpp takes it; without one a drawn image is used.
        console: Where to print.

    Raises:
        InputError: llama-cpp-python is absent or the files cannot be loaded.
    """
    release = require_llama_cpp()
    kind, text, mmproj = find_files(folder)
    with LlamaCpp(text, mmproj) as theirs:
        loaded = load_whole(model_path, model_base)
        checks = list(compare(loaded, theirs, kind, read_build(mmproj), _read_image(loaded, image)))
    print_checks(checks, f"{folder} ({kind}) in llama-cpp-python {release}", console or Console())
    return all(check.status != "FAIL" for check in checks)


def print_checks(checks: list[PartCheck], title: str, console: Console) -> None:
    """Print a table, why a check is not PASS, and what it all means."""
    table = Table(title=title)
    for heading in ("part", "verdict", "difference", "allowed", "compared"):
        table.add_column(heading)
    colours = {"PASS": "green", "KNOWN": "yellow", "FAIL": "red"}
    for check in checks:
        numbers = ("" if value is None else f"{value:.2g}" for value in (check.difference, check.bound))
        status = f"[{colours[check.status]}]{check.status}[/]"
        compared = check.reason if check.status == "PASS" else "see below"
        table.add_row(check.part, status, *numbers, compared)
    console.print(table)
    for check in checks:
        if check.status != "PASS":
            line = f"{check.status}, {check.part}: {check.reason}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    worst = max((check.status for check in checks), key=get_args(Status).index)
    console.print(MEANINGS[worst], highlight=False, soft_wrap=True)


def load_whole(model_path: str | Path, model_base: str | Path | None = None) -> LoadedModel:
    """Load the model on the CPU in float32, an adapter merged by peft: not the way that the files were
    made."""
    loaded = load_model(model_path, model_base, device="cpu", dtype=torch.float32)
    for module in loaded.model.modules():
        if isinstance(module, LoraLayer):
            module.merge()
    return loaded


def find_files(folder: Path) -> tuple[GgufType, Path, Path]:
    """Return the type and the two files of a folder that export_gguf wrote; InputError if they are not
    there."""
    for kind in get_args(GgufType):
        text, mmproj = folder / f"model-{kind}.gguf", folder / f"mmproj-{kind}.gguf"
        if text.is_file() and mmproj.is_file():
            return kind, text, mmproj
    raise InputError(f"{folder} does not hold model-<type>.gguf and mmproj-<type>.gguf of one type")


def read_build(mmproj: Path) -> LlamaCppBuild:
    """Return the builds of llama.cpp that an mmproj file is for."""
    import gguf

    field = gguf.GGUFReader(mmproj).fields.get(BUILD_KEY)
    return "current" if field is not None and field.contents() == "current" else "stock"


def compare(
    loaded: LoadedModel, theirs: LlamaCpp, kind: GgufType, build: LlamaCppBuild, square: Image.Image
) -> Iterator[PartCheck]:
    """Yield the checks, part by part.

    Args:
        loaded: The model in torch.
        theirs: The files in llama.cpp.
        kind: The type of the files.
        build: The builds of llama.cpp that they are for.
        square: An image of the size that the vision tower takes.
    """
    ours = _TorchModel(loaded, square)
    plain = ours.prompt([("human", QUESTION)])
    with_image = ours.prompt([("human", f"{IMAGE_PLACEHOLDER}\n{QUESTION}")])
    turns: ChatTurns = [
        ("human", QUESTION),
        ("gpt", "A disc, 3 of 7.\nIt is broken."),
        ("human", "Är den skadad? 是"),
    ]
    chat = ours.prompt(turns)
    prompts = {prompt.text: theirs.read_prompt(prompt.text) for prompt in (plain, chat)}
    prompts[with_image.text] = theirs.read_prompt(
        with_image.text.replace(IMAGE_PLACEHOLDER, theirs.marker), np.asarray(square)
    )
    yield _check_tokens({text: _ids(parts) for text, parts in prompts.items()}, (plain, chat, with_image))

    yield from _check_text(ours, theirs, kind, "text", plain, [plain.ids])

    own = next(part for part in prompts[with_image.text] if isinstance(part, np.ndarray))
    check, explained = _check_image(ours, own, kind, build)
    yield check

    right = ours.embeddings()
    before, after = with_image.around
    yield from _check_text(
        ours, theirs, kind, "with our picture embeddings", with_image, [before, right, after], right
    )
    yield _check_own_answer(ours, theirs, kind, with_image, own, explained)


def _check_own_answer(
    ours: _TorchModel,
    theirs: LlamaCpp,
    kind: GgufType,
    prompt: _Prompt,
    own: np.ndarray,
    explained: np.ndarray | None,
) -> PartCheck:
    """Compare llama.cpp's answer about its `own` image embeddings with ours; where they differ, with ours to
    those that a known fault `explained`."""
    before, after = prompt.around
    _, answer = theirs.answer([before, own, after], MAX_NEW_TOKENS, ours.stop)
    part, near = "answer about its own picture embeddings", max(BOUNDS[kind], IMAGE_BOUNDS[kind])
    problem = ours.disagreement(prompt, ours.embeddings(), answer, near)
    if problem is None:
        return PartCheck(part, "PASS", None, None, _tokens(answer))
    if explained is None:
        return PartCheck(part, "FAIL", None, None, problem)
    unexplained = ours.disagreement(prompt, explained, answer, near)
    reason = unexplained or "as its picture embeddings: torch, given the same ones, answers alike"
    return PartCheck(part, "FAIL" if unexplained else "KNOWN", None, None, reason)


@dataclass(frozen=True)
class _Prompt:
    """Holds a prompt's text and ids, its image's tokens once, as one `<image>`."""

    text: str
    ids: list[int]
    image_token: int

    @property
    def around(self) -> tuple[list[int], list[int]]:
        """The ids before and after the image."""
        place = self.ids.index(self.image_token)
        return self.ids[:place], self.ids[place + 1 :]


class _TorchModel:
    """Computes prompts, image embeddings and logits in torch."""

    def __init__(self, loaded: LoadedModel, square: Image.Image) -> None:
        self._model = loaded.model
        self._processor = loaded.processor
        self._square = square
        config = loaded.model.config
        vision = config.vision_config
        self.patches = (vision.image_size // vision.patch_size) ** 2
        self.tiled = config.model_type == "llava_next"
        ends = loaded.model.generation_config.eos_token_id
        ends = loaded.tokenizer.eos_token_id if ends is None else ends
        self.stop = set(ends if isinstance(ends, list) else [ends])

    def prompt(self, turns: ChatTurns) -> _Prompt:
        text = self._processor.template.text(turns, generation_prompt=True)
        ids = self._processor.tokenizer(text)["input_ids"]
        return _Prompt(text, ids, self._processor.image_token_id)

    @torch.no_grad()
    def embeddings(self, *, behind: bool = False, build: LlamaCppBuild = "stock") -> np.ndarray:
        """Return the image as the language model takes it (tokens, width). `behind`: as llama.cpp makes it
        with CLIP's class token behind the patches; `build`: of a file with positions for those builds."""
        places = self._model.model.vision_tower.embeddings
        position = places.position_embedding.weight
        stored = place_positions(POSITIONS, position, build)

        def misplaced(module: Any, given: Any, made: torch.Tensor) -> torch.Tensor:
            patches, token = made[:, 1:] - position[1:], made[:, :1] - position[:1]
            return torch.cat([patches, token] if behind else [token, patches], dim=1) + stored

        handle = places.register_forward_hook(misplaced) if behind or build == "current" else None
        try:
            inputs = self._processor.vision.inputs([self._processor.pixels(self._square)])
            if "image_sizes" in inputs:
                inputs["image_sizes"] = torch.tensor([inputs["image_sizes"][0]])
            features = self._model.model.get_image_features(**inputs, return_dict=True).pooler_output
        finally:
            if handle is not None:
                handle.remove()
        found: np.ndarray = torch.cat(list(features)).float().numpy()
        return found

    @torch.no_grad()
    def logits(self, prompt: _Prompt, image: np.ndarray | None, answer: list[int]) -> np.ndarray:
        """Return logits (rows, vocabulary) of a prompt and an answer after it; of the image its last row
        only."""
        embed = self._model.get_input_embeddings()
        if image is None:
            rows = embed(torch.tensor(prompt.ids + answer))
            kept = list(range(len(rows)))
        else:
            before, after = prompt.around
            parts = [embed(torch.tensor(before, dtype=torch.long)), torch.from_numpy(image)]
            rows = torch.cat([*parts, embed(torch.tensor(after + answer))])
            kept = [*range(len(before)), *range(len(before) + len(image) - 1, len(rows))]
        found: np.ndarray = self._model(inputs_embeds=rows[None]).logits[0, kept].float().numpy()
        return found

    def disagreement(
        self, prompt: _Prompt, image: np.ndarray | None, answer: list[int], near: float
    ) -> str | None:
        """Return why `answer` is not our greedy answer, or None: each token must be our likeliest, or behind
        it by no more than twice `near` of the largest logit, since both of the two may be wrong by `near`."""
        logits = self.logits(prompt, image, answer)
        chosen = logits[-1 - len(answer) :]
        ended = [min(self.stop)] if len(answer) < MAX_NEW_TOKENS else []
        for index, token in enumerate(answer + ended):
            row = chosen[index]
            score = max(row[list(self.stop)]) if index == len(answer) else row[token]
            if row.max() - score > 2 * near * np.abs(row).max():
                text = self._processor.tokenizer.decode(answer)
                return f"from token {index + 1} on we say something else than {text!r}"
        return None


def _logit_bound(kind: GgufType, largest: float) -> float:
    return BOUNDS[kind] if kind == "f32" else BOUNDS[kind] * largest


def _tokens(sequence: Sequence[int] | np.ndarray) -> str:
    return f"{len(sequence)} token{'s' if len(sequence) != 1 else ''}"


def _ids(parts: list[PromptPart]) -> list[list[int]]:
    return [part for part in parts if isinstance(part, list)]


def _check_tokens(theirs: dict[str, list[list[int]]], prompts: tuple[_Prompt, ...]) -> PartCheck:
    for prompt in prompts:
        ours = list(prompt.around) if prompt.image_token in prompt.ids else [prompt.ids]
        if theirs[prompt.text] != ours:
            given = [token for ids in theirs[prompt.text] for token in ids]
            wanted = [token for ids in ours for token in ids]
            pairs = enumerate(zip(given, wanted, strict=False))
            place = next((index for index, (one, other) in pairs if one != other), len(wanted))
            return PartCheck(
                "token ids", "FAIL", None, None, f"{prompt.text!r} is read differently from token {place} on"
            )
    return PartCheck("token ids", "PASS", None, None, f"{len(prompts)} prompts")


def _check_text(
    ours: _TorchModel,
    theirs: LlamaCpp,
    kind: GgufType,
    name: str,
    prompt: _Prompt,
    parts: list[PromptPart],
    image: np.ndarray | None = None,
) -> Iterator[PartCheck]:
    """Compare the logits at each place of a prompt, and the greedy answer after it."""
    given, answer = theirs.answer(parts, MAX_NEW_TOKENS, ours.stop)
    wanted = ours.logits(prompt, image, [])
    difference = float(np.abs(given - wanted).max())
    bound = _logit_bound(kind, float(np.abs(wanted).max()))
    status: Status = "PASS" if difference <= bound else "FAIL"
    yield PartCheck(f"logits {name}", status, difference, bound, f"{len(wanted)} places")
    problem = ours.disagreement(prompt, image, answer, BOUNDS[kind])
    status = "PASS" if problem is None else "FAIL"
    yield PartCheck(f"answer {name}", status, None, None, problem or _tokens(answer))


def _check_image(
    ours: _TorchModel, own: np.ndarray, kind: GgufType, build: LlamaCppBuild
) -> tuple[PartCheck, np.ndarray | None]:
    """Check llama.cpp's own image embeddings; return the check, and those of ours that explain them where it
    is KNOWN.

    Of a square no larger than a tile llama.cpp takes LLaVA-1.6's overview alone: ours is the first in line.
    """
    part = "picture embeddings"
    if len(own) != ours.patches:
        return PartCheck(part, "FAIL", None, None, f"{len(own)} tokens, expected {ours.patches}"), None
    right = ours.embeddings()[: ours.patches]
    before, behind = (ours.embeddings(behind=place, build=build)[: ours.patches] for place in (False, True))
    allowed = IMAGE_BOUNDS[kind] * float(np.abs(right).max())
    off, off_before, off_behind = (float(np.abs(own - found).max()) for found in (right, before, behind))
    if min(off_before, off_behind) > allowed:
        reason = f"no known fault of llama.cpp explains it (the class token's leaves {off_behind:.2g})"
        return PartCheck(part, "FAIL", off, allowed, reason), None
    if off_before < off_behind and build == "current":
        reason = "this llama.cpp puts CLIP's class token before the patches: export with --llamacpp stock"
        return PartCheck(part, "FAIL", off, allowed, reason), None
    faults = []
    if off_behind < off_before:
        faults.append(
            f"{CLASS_TOKEN}: {CLASS_TOKEN_COSTS[build]}; done so in torch, {off_behind:.2g} is left"
        )
    if ours.tiled:
        faults.append(f"of the overview; {APPROXIMATE}")
    if not faults:
        return PartCheck(part, "PASS", off, allowed, _tokens(own)), None
    explained = behind if off_behind < off_before else before
    return PartCheck(part, "KNOWN", off, allowed, "; ".join(faults)), explained


def _read_image(loaded: LoadedModel, path: Path | None) -> Image.Image:
    """Return the image as a padded square of the vision tower's size: llama.cpp then leaves it as it is."""
    if path is None:
        blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(blocks).resize((320, 240), Image.Resampling.BICUBIC)
    else:
        image = open_image(path)
    return loaded.processor.vision.square_processor.square(image)
