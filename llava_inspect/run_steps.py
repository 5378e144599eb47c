"""The steps of `llava-inspect run`: the command of each, what it leaves, and what makes it out of date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_prep.recipe.schema import Recipe
from llava.common.errors import InputError
from llava.common.settings import load_settings
from llava.common.shipped import (
    CONFIGS,
    find_config,
    find_recipe,
    find_shipped,
    names_in,
    shipped_root,
)
from llava.train.config import TrainSettings

_PLACES = ("data_path", "val_path", "image_folder", "output_dir")
"""The training settings that a run sets itself."""
KINDS = {
    "photos": "other photos",
    "test photos": "other test photos",
    "recipe": "another recipe",
    "data": "other data",
    "model": "another model",
    "training": "other training settings",
}
"""What steps depend on, in the order in which it comes in, and how a difference is told."""


@dataclass(frozen=True)
class Run:
    """What the user asked for."""

    photos: Path
    output: Path
    recipe: Path | None
    """None: a starter recipe is written to `output`."""
    recipe_overrides: tuple[str, ...]
    test_photos: Path | None
    model: str | None
    config: str
    """The training config, a file or the name of one that ships."""
    overrides: tuple[str, ...]
    settings: TrainSettings

    @property
    def recipe_file(self) -> Path:
        return self.output / "recipe.yaml" if self.recipe is None else self.recipe

    @property
    def data(self) -> Path:
        return self.output / "data"

    def inputs(self) -> dict[str, str]:
        """Return a fingerprint of each input; empty for one that is not there (yet)."""
        recipe = find_recipe(self.recipe_file)
        is_unwritten = self.recipe is None and not recipe.exists()
        return {
            "photos": _folder_fingerprint(self.photos),
            "test photos": _folder_fingerprint(self.test_photos) if self.test_photos else "",
            "recipe": "" if is_unwritten else _recipe_fingerprint(recipe, self.recipe_overrides),
            **training_inputs(self.settings),
        }


@dataclass(frozen=True)
class Step:
    """A command of the run."""

    name: str
    title: str
    arguments: list[str]
    """Of llava-inspect."""
    output: Path
    """What the command writes, whole or not at all; training alone fills it bit by bit."""
    last_input: str
    """The step depends on all inputs up to this one."""
    parts: tuple[Path, ...] = ()
    """What a stopped command leaves to go on from: of no use once an input has changed."""
    quick: bool = False
    """It is done again without asking."""

    def inputs(self, inputs: Mapping[str, str]) -> dict[str, str]:
        """Return those of a run's inputs that this step depends on."""
        names = list(KINDS)
        names = names[: names.index(self.last_input) + 1]
        return {name: inputs[name] for name in names if name in inputs}


def make_steps(run: Run) -> list[Step]:
    """Return the steps of a run in their order. Those behind `convert` depend on what it wrote.

    The base answers before the training, so that another training need not ask it again, and a model that
    cannot be loaded is known at once.
    """
    output, data, page = run.output, run.data, run.output / "photos.html"
    recipe = str(run.recipe_file)
    judged_by = ["--model", run.model] if run.model else []
    adapter, merged = output / "adapter", output / "merged"
    base_answers, answers = output / "answers_base.jsonl", output / "answers.jsonl"
    if run.recipe is not None:
        with_recipe = ["--recipe", recipe, *run.recipe_overrides]
    else:
        with_recipe = [] if run.recipe_file.is_file() else ["--write-recipe", recipe]
    test_source = ["--test-source", str(run.test_photos)] if run.test_photos else []
    no_val = (data / "manifest.json").is_file() and not (data / "val.json").is_file()
    return [
        Step(
            "inspect",
            "Look at the photos: what is there, how large, what is damaged.",
            ["inspect", "--source", str(run.photos), "--output", str(page), *judged_by, *with_recipe],
            page if run.recipe else run.recipe_file,
            "recipe" if run.recipe else "photos",
            quick=True,
        ),
        Step(
            "convert",
            "Turn annotations into questions and answers.",
            ["convert", "--source", str(run.photos), *test_source, "--recipe", recipe, "--output", str(data),
             *_overwrite(data), *judged_by, *run.recipe_overrides],
            data / "manifest.json",
            "recipe",
        ),
        _answer_step(run, "base answers", run.settings.model_name_or_path, base_answers, "model"),
        train_step(
            "train",
            "Fine-tune LoRA adapters on the base model.",
            [run.config, *run.overrides],
            data,
            data / "train.json",
            adapter,
            no_val,
        ),
        Step(
            "merge",
            "Merge the adapters into the base: one ordinary LLaVA model.",
            ["merge", "--model-path", str(adapter), "--save-model-path", str(merged), *_overwrite(merged)],
            merged,
            "training",
        ),
        _answer_step(run, "answers", str(merged), answers, "training"),
        Step(
            "score",
            "Score the answers: which of them may you rely on?",
            ["score", "--answers-file", str(answers), "--baseline-answers", str(base_answers),
             "--truth-file", str(data / "truth_test.jsonl"), "--output", str(output / "scores")],
            output / "scores" / "report.html",
            "training",
            quick=True,
        ),
    ]  # fmt: skip


def _answer_step(run: Run, name: str, model: str, answers: Path, last_input: str) -> Step:
    who = "base" if last_input == "model" else "tuned"
    return answer_step(
        name,
        f"Ask the {who} model the questions about the test photos.",
        model,
        run.settings.bits,
        run.data,
        run.data / "questions_test.jsonl",
        answers,
        last_input,
    )


def train_step(
    name: str, title: str, settings: Sequence[str], data: Path, records: Path, adapter: Path, no_val: bool
) -> Step:
    """Return the step that trains on the records of a conversion, or on a part of them.

    Args:
        name: The step's.
        title: What it does.
        settings: The training config and its overrides.
        data: The folder that `data_prep convert` wrote.
        records: The conversation JSON to train on.
        adapter: The run directory to write.
        no_val: There is no val.json in `data`.
    """
    config, *overrides = settings
    return Step(
        name,
        title,
        ["train", config, _override("data_path", records),
         "val_path=null" if no_val else _override("val_path", data / "val.json"),
         _override("image_folder", data), _override("output_dir", adapter), *overrides,
         "--resume", "auto"],
        adapter / "run.json",
        "training",
        parts=(adapter,),
    )  # fmt: skip


def answer_step(
    name: str,
    title: str,
    model: str,
    bits: int | None,
    images: Path,
    questions: Path,
    answers: Path,
    last_input: str,
) -> Step:
    """Return the step that asks a model the questions of a file.

    Args:
        name: The step's.
        title: What it does.
        model: A model folder, a run directory or a Hub name.
        bits: Those that it was trained in, if it was quantised: more may not fit.
        images: The folder that the questions' images are in.
        questions: The question file.
        answers: The answers file to write.
        last_input: The step depends on all inputs up to this one.
    """
    return Step(
        name,
        title,
        ["infer", "--model-path", model, "--image-folder", str(images),
         "--question-file", str(questions), "--answers-file", str(answers),
         *([f"--load-{bits}bit"] if bits else []), *_overwrite(answers)],
        answers,
        last_input,
        parts=(answers, *answers.parent.glob(f"{answers.name}.partial*")),
    )  # fmt: skip


def _overwrite(output: Path) -> list[str]:
    return ["--overwrite"] if output.exists() else []


def _override(key: str, path: Path) -> str:
    """Return `key=path` such that it is read as this path: it is parsed as YAML."""
    text = str(path)
    return f"{key}={text if yaml.safe_load(text) == text else json.dumps(text)}"


def choose_config(model: str, flag: str = "--model") -> str:
    """Return the training config that `flag` means: one by its file or name, or the shipped one for the
    model of that folder or Hub name. Of several it is the one without `bits`, which trains faster; who wants
    to spare memory names the other.

    Raises:
        InputError: No config ships for this model.
    """
    path = find_shipped(Path(model).expanduser())
    if path.suffix in (".yaml", ".yml") or (len(path.parts) == 1 and not path.is_dir()):
        find_config(path)
        return model
    files = {name: shipped_root() / CONFIGS / f"{name}.yaml" for name in names_in(CONFIGS)}
    found = {
        name: settings for name in files if (settings := _settings(files[name])).model_name_or_path == model
    }
    if found:
        return min(found, key=lambda name: found[name].bits is not None)
    raise InputError(
        f"{flag} {model}: no training config ships for it; name the one that suits it, as {flag} CONFIG "
        f"model_name_or_path={model}, of {', '.join(files)}"
    )


def read_settings(config: str, output: Path, overrides: Sequence[str]) -> TrainSettings:
    """Read the training settings; InputError for a setting that the run sets itself."""
    for override in overrides:
        if override.partition("=")[0] in _PLACES:
            raise InputError(f"{override}: a run has its own place for it below --output {output}")
    return _settings(find_config(Path(config)), overrides)


def _settings(file: Path, overrides: Sequence[str] = ()) -> TrainSettings:
    return load_settings(TrainSettings, file, [*(f"{name}=." for name in _PLACES), *overrides])


def require_test_questions(run: Run) -> None:
    """Raise InputError if no photo is left to test on."""
    if not (run.data / "questions_test.jsonl").is_file():
        raise InputError(
            f"{run.photos}: no photo went to the test: nothing could be scored; add photos, name others by "
            "--test-photos, or give the test a share: --set-recipe splits.test=0.2"
        )


def training_inputs(settings: TrainSettings) -> dict[str, str]:
    """Return a fingerprint of the model that is trained, and one of how; places do not count."""
    training = settings.model_dump(mode="json", exclude_unset=True, exclude=set(_PLACES))
    return {
        "model": _fingerprint([settings.model_name_or_path, settings.bits]),
        "training": _fingerprint(training),
    }


def _fingerprint(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _folder_fingerprint(folder: Path) -> str:
    """Return a hash of the names, sizes and times of a folder's files: contents may be gigabytes."""
    files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return _fingerprint([[str(path.relative_to(folder)), s.st_size, s.st_mtime_ns] for path, s in files])


def _recipe_fingerprint(file: Path, overrides: tuple[str, ...]) -> str:
    return _fingerprint(load_settings(Recipe, file, overrides).model_dump(mode="json", exclude_unset=True))
