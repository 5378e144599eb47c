"""Check two GGUF files against the model they were made of, in llama.cpp itself (`export.py --verify`).

A verdict per part, each with the largest difference found:

    PASS    llama.cpp computes what we do
    KNOWN   it does not, by a fault of llama.cpp that is named and was reproduced here in torch
    FAIL    it does not, and nothing known explains it

Two faults are known. Since May 2025 (its pull request 13321) llama.cpp puts CLIP's class token behind the
patches instead of before them, so that every patch gets its neighbour's position and the class token stands
for the last patch (its issue 25814; llama-cpp-python 0.3.36 has it, 0.3.8 has not). And LLaVA-1.6 pictures
are not cut into the same tiles. Both are undone by handing in our own embeddings, and that is checked too.
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
from llava.export.gguf.llamacpp import LlamaCpp, Part, require_llama_cpp
from llava.export.gguf.tensors import GgufType
from llava.export.gguf.write import APPROXIMATE
from llava.model.builder import LoadedModel, load_model

Status = Literal["PASS", "KNOWN", "FAIL"]
BOUNDS: dict[GgufType, float] = {"f32": 1e-3, "f16": 1e-2, "bf16": 5e-2, "q8_0": 5e-2}
"""How far a logit may be from ours, by the type of the file. That of f32 is absolute; the others are parts of
the largest logit, for weights and activations are rounded in them."""
IMAGE_BOUNDS: dict[GgufType, float] = {"f32": 5e-3, "f16": 1e-2, "bf16": 5e-2, "q8_0": 1e-1}
"""The same for picture embeddings, all as parts of the largest: llama.cpp's GELU reads a table of float16."""
CLASS_TOKEN = "llama.cpp puts CLIP's class token behind the patches (its issue 25814): positions are shifted"
MEANINGS: dict[Status, str] = {
    "PASS": "llama.cpp computes what the model does.",
    "KNOWN": "What is KNOWN lies in llama.cpp and not in the files: its answers about pictures can differ "
    "from the model's (docs/interop.md, llama.cpp).",
    "FAIL": "llama.cpp computes something else than the model: do not rely on these files.",
}
QUESTION = "What is in this picture, and is it damaged?"
MAX_NEW_TOKENS = 24


@dataclass(frozen=True)
class Verdict:
    """`difference` is the largest one found, `bound` what is allowed of it; None where it is not a number."""

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
    """Compare the GGUF files in `folder` with `model_path`, print the verdicts; whether none is FAIL.

    `picture` is padded to a square here, as llama.cpp takes it; without one a drawn picture is used.
    InputError if llama-cpp-python is absent or the files cannot be loaded.
    """
    release = require_llama_cpp()
    kind, text, mmproj = find_files(folder)
    with LlamaCpp(text, mmproj) as theirs:
        loaded = load_whole(model_path, model_base)
        verdicts = list(compare(loaded, theirs, kind, _read_image(loaded, image)))
    show(verdicts, f"{folder} ({kind}) in llama-cpp-python {release}", console or Console())
    return all(verdict.status != "FAIL" for verdict in verdicts)


def show(verdicts: list[Verdict], title: str, console: Console) -> None:
    """Print a table, why a verdict is not PASS, and what it all means."""
    table = Table(title=title)
    for heading in ("part", "verdict", "difference", "allowed", "compared"):
        table.add_column(heading)
    colours = {"PASS": "green", "KNOWN": "yellow", "FAIL": "red"}
    for verdict in verdicts:
        numbers = ("" if value is None else f"{value:.2g}" for value in (verdict.difference, verdict.bound))
        status = f"[{colours[verdict.status]}]{verdict.status}[/]"
        compared = verdict.reason if verdict.status == "PASS" else "see below"
        table.add_row(verdict.part, status, *numbers, compared)
    console.print(table)
    for verdict in verdicts:
        if verdict.status != "PASS":
            line = f"{verdict.status}, {verdict.part}: {verdict.reason}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    worst = max((verdict.status for verdict in verdicts), key=get_args(Status).index)
    console.print(MEANINGS[worst], highlight=False, soft_wrap=True)


def load_whole(model_path: str | Path, model_base: str | Path | None = None) -> LoadedModel:
    """The model on the CPU in float32, an adapter merged by peft: not the way that the files were made."""
    loaded = load_model(model_path, model_base, device="cpu", dtype=torch.float32)
    for module in loaded.model.modules():
        if isinstance(module, LoraLayer):
            module.merge()
    return loaded


def find_files(folder: Path) -> tuple[GgufType, Path, Path]:
    """The type and the two files of a folder that export_gguf wrote; InputError if they are not there."""
    for kind in get_args(GgufType):
        text, mmproj = folder / f"model-{kind}.gguf", folder / f"mmproj-{kind}.gguf"
        if text.is_file() and mmproj.is_file():
            return kind, text, mmproj
    raise InputError(f"{folder} does not hold model-<type>.gguf and mmproj-<type>.gguf of one type")


def compare(loaded: LoadedModel, theirs: LlamaCpp, kind: GgufType, square: Image.Image) -> Iterator[Verdict]:
    """The verdicts, part by part. `square` has the size that the vision tower takes."""
    ours = _Ours(loaded, square)
    plain = ours.prompt([("human", QUESTION)])
    imaged = ours.prompt([("human", f"{IMAGE_PLACEHOLDER}\n{QUESTION}")])
    turns: ChatTurns = [
        ("human", QUESTION),
        ("gpt", "A disc, 3 of 7.\nIt is broken."),
        ("human", "Är den skadad? 是"),
    ]
    chat = ours.prompt(turns)
    read = {prompt.text: theirs.read_prompt(prompt.text) for prompt in (plain, chat)}
    read[imaged.text] = theirs.read_prompt(
        imaged.text.replace(IMAGE_PLACEHOLDER, theirs.marker), np.asarray(square)
    )
    yield _token_verdict({text: _ids(parts) for text, parts in read.items()}, (plain, chat, imaged))

    yield from _text_verdicts(ours, theirs, kind, "text", plain, [plain.ids])

    own = next(part for part in read[imaged.text] if isinstance(part, np.ndarray))
    image, explained = _image_verdict(ours, own, kind)
    yield image

    right = ours.embeddings()
    before, after = imaged.around
    yield from _text_verdicts(
        ours, theirs, kind, "with our picture embeddings", imaged, [before, right, after], right
    )

    _, answer = theirs.answer([before, own, after], MAX_NEW_TOKENS, ours.stop)
    part, near = "answer about its own picture embeddings", max(BOUNDS[kind], IMAGE_BOUNDS[kind])
    problem = ours.disagreement(imaged, right, answer, near)
    if problem is None:
        yield Verdict(part, "PASS", None, None, _tokens(answer))
    elif explained is None:
        yield Verdict(part, "FAIL", None, None, problem)
    else:
        unexplained = ours.disagreement(imaged, explained, answer, near)
        reason = unexplained or "as its picture embeddings: torch, given the same ones, answers alike"
        yield Verdict(part, "FAIL" if unexplained else "KNOWN", None, None, reason)


@dataclass(frozen=True)
class _Prompt:
    """A prompt's text and ids, its picture's tokens once, as one `<image>`."""

    text: str
    ids: list[int]
    image_token: int

    @property
    def around(self) -> tuple[list[int], list[int]]:
        """The ids before and after the picture."""
        place = self.ids.index(self.image_token)
        return self.ids[:place], self.ids[place + 1 :]


class _Ours:
    """What torch computes: prompts, picture embeddings, logits."""

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
    def embeddings(self, *, shifted: bool = False) -> np.ndarray:
        """The picture as the language model takes it (tokens, width). `shifted`: with CLIP's class token
        behind the patches and their positions counted from 0, as llama.cpp does it."""
        places = self._model.model.vision_tower.embeddings
        position = places.position_embedding.weight

        def misplaced(module: Any, given: Any, made: torch.Tensor) -> torch.Tensor:
            patches, token = made[:, 1:] - position[1:], made[:, :1] - position[:1]
            return torch.cat([patches, token], dim=1) + position

        handle = places.register_forward_hook(misplaced) if shifted else None
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
        """Logits (rows, vocabulary) of a prompt and an answer after it; of the picture its last row only."""
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
        """Why `answer` is not our greedy answer, or None: each token must be our likeliest, or behind it by
        no more than twice `near` of the largest logit, since both of the two may be wrong by `near`."""
        logits = self.logits(prompt, image, answer)
        chosen = logits[-1 - len(answer) :]
        ended = [min(self.stop)] if len(answer) < MAX_NEW_TOKENS else []
        for index, token in enumerate(answer + ended):
            row = chosen[index]
            score = max(row[list(self.stop)]) if index == len(answer) else row[token]
            if row.max() - score > 2 * near * np.abs(row).max():
                said = self._processor.tokenizer.decode(answer)
                return f"from token {index + 1} on we say something else than {said!r}"
        return None


def _bound(kind: GgufType, largest: float) -> float:
    return BOUNDS[kind] if kind == "f32" else BOUNDS[kind] * largest


def _tokens(sequence: Sequence[int] | np.ndarray) -> str:
    return f"{len(sequence)} token{'s' if len(sequence) != 1 else ''}"


def _ids(parts: list[Part]) -> list[list[int]]:
    return [part for part in parts if isinstance(part, list)]


def _token_verdict(theirs: dict[str, list[list[int]]], prompts: tuple[_Prompt, ...]) -> Verdict:
    for prompt in prompts:
        ours = list(prompt.around) if prompt.image_token in prompt.ids else [prompt.ids]
        if theirs[prompt.text] != ours:
            given = [token for ids in theirs[prompt.text] for token in ids]
            wanted = [token for ids in ours for token in ids]
            pairs = enumerate(zip(given, wanted, strict=False))
            place = next((index for index, (one, other) in pairs if one != other), len(wanted))
            return Verdict(
                "token ids", "FAIL", None, None, f"{prompt.text!r} is read differently from token {place} on"
            )
    return Verdict("token ids", "PASS", None, None, f"{len(prompts)} prompts")


def _text_verdicts(
    ours: _Ours,
    theirs: LlamaCpp,
    kind: GgufType,
    name: str,
    prompt: _Prompt,
    parts: list[Part],
    image: np.ndarray | None = None,
) -> Iterator[Verdict]:
    """Logits at each place of a prompt, and the greedy answer after it."""
    given, answer = theirs.answer(parts, MAX_NEW_TOKENS, ours.stop)
    wanted = ours.logits(prompt, image, [])
    difference = float(np.abs(given - wanted).max())
    bound = _bound(kind, float(np.abs(wanted).max()))
    status: Status = "PASS" if difference <= bound else "FAIL"
    yield Verdict(f"logits {name}", status, difference, bound, f"{len(wanted)} places")
    problem = ours.disagreement(prompt, image, answer, BOUNDS[kind])
    status = "PASS" if problem is None else "FAIL"
    yield Verdict(f"answer {name}", status, None, None, problem or _tokens(answer))


def _image_verdict(ours: _Ours, own: np.ndarray, kind: GgufType) -> tuple[Verdict, np.ndarray | None]:
    """The verdict on llama.cpp's own embeddings, and those of ours that explain them where it is KNOWN.

    Of a square no larger than a tile llama.cpp takes LLaVA-1.6's overview alone: ours is the first in line.
    """
    part = "picture embeddings"
    if len(own) != ours.patches:
        return Verdict(part, "FAIL", None, None, f"{len(own)} tokens, expected {ours.patches}"), None
    right, shifted = ours.embeddings()[: ours.patches], ours.embeddings(shifted=True)[: ours.patches]
    allowed = IMAGE_BOUNDS[kind] * float(np.abs(right).max())
    off, off_if_shifted = (float(np.abs(own - found).max()) for found in (right, shifted))
    if min(off, off_if_shifted) > allowed:
        reason = f"no known fault of llama.cpp explains it (the class token's leaves {off_if_shifted:.2g})"
        return Verdict(part, "FAIL", off, allowed, reason), None
    faults = []
    if off_if_shifted < off:
        faults.append(f"{CLASS_TOKEN}; done so in torch, {off_if_shifted:.2g} is left")
    if ours.tiled:
        faults.append(f"of the overview; {APPROXIMATE}")
    if not faults:
        return Verdict(part, "PASS", off, allowed, _tokens(own)), None
    explained = shifted if off_if_shifted < off else right
    return Verdict(part, "KNOWN", off, allowed, "; ".join(faults)), explained


def _read_image(loaded: LoadedModel, path: Path | None) -> Image.Image:
    """The picture as a padded square of the vision tower's size: llama.cpp then leaves it as it is."""
    if path is None:
        blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(blocks).resize((320, 240), Image.Resampling.BICUBIC)
    else:
        image = open_image(path)
    return loaded.processor.vision.square_processor.square(image)
