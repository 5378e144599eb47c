"""benchmarks.rare_defects: what is cut and repeated, what the scores count, and that seeds are paired."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.rare_defects import Trained, score, summarise, table
from benchmarks.rare_photos import (
    Benchmark,
    Plan,
    Subject,
    copy_photos,
    cut,
    prepare,
    read_benchmark,
    read_subject,
    repeat,
)
from eval.scoring.answers import AnswerFile
from llava.common.errors import InputError
from llava.common.records import Answer, InputFile, Record, Truth


def test_of_the_rare_kind_a_few_photos_are_left_and_of_the_others_all() -> None:
    kinds = {f"p{index}": {"crack"} if index < 6 else {"stain"} for index in range(9)} | {
        "p9": {"crack", "stain"}
    }
    left = cut(kinds, "crack", 2, seed=0)
    assert {"p6", "p7", "p8"} < left and len(left) == 5
    assert left == cut(kinds, "crack", 2, seed=0) != cut(kinds, "crack", 2, seed=1)
    with pytest.raises(InputError, match="stain: 4 photos"):
        cut(kinds, "stain", 4, seed=0)


def test_photos_are_copied_with_their_annotations_and_masks(tmp_path: Path) -> None:
    names = ["a/x.1.jpg", "notes/x.1.xml", "masks/x.1_mask.png", "a/x.jpg", "notes/x.xml", "readme.md"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    copy_photos(tmp_path / "in", ["a/x.1"], tmp_path / "out")
    files = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.*")}
    assert files == set(names[:3])


def test_the_few_are_repeated_in_turn_as_pictures_of_their_own() -> None:
    records = [
        Record.model_validate({
            "id": f"{image}{question}",
            "image": f"images/{image}.jpg",
            "conversations": [{"from": "human", "value": "<image>\n?"}, {"from": "gpt", "value": kind}],
            "meta": {"kinds": [kind]},
        })
        for image, kind in (("b", "crack"), ("a", "crack"), ("c", "stain"))
        for question in (0, 1)
    ]  # fmt: skip
    added, copies = repeat(records, "crack", 3)
    assert copies == {
        "images/0_a.jpg": "images/a.jpg",
        "images/1_b.jpg": "images/b.jpg",
        "images/2_a.jpg": "images/a.jpg",
    }
    assert [record.image for record in added] == [name for name in copies for _ in (0, 1)]
    assert len({record.id for record in records + added}) == 6 + 6


def truth(number: int, answer: str, task: str, about: str) -> Truth:
    kinds = ["crack", "stain", "none"] if task == "kind" else None
    return Truth(
        question_id=number,
        answer=answer,
        task=task,
        type="class" if kinds else "yesno",
        group=str(number),
        classes=kinds,
        meta={"about": about},
    )


def test_scores_are_about_the_rare_kind() -> None:
    told = [
        # kind: one crack of two is found, one of four others is called a crack, one answer says nothing
        *(("crack", answer, "kind", "defect") for answer in ("crack", "rust")),
        *(("stain", answer, "kind", "defect") for answer in ("crack", "stain")),
        *(("none", "none", "kind", "defect") for _ in range(2)),
        # by name: both cracks are seen, and one of two that are not there; stains do not count
        *(("yes", "yes", "presence_of", "crack") for _ in range(2)),
        *(("no", answer, "presence_of", "crack") for answer in ("yes", "no")),
        *(("no", "yes", "presence_of", "stain") for _ in range(2)),
    ]
    truths = [truth(number, right, task, about) for number, (right, _, task, about) in enumerate(told)]
    answers = {
        str(number): Answer(question_id=number, prompt="", text=text, answer_id="", model_id="")
        for number, (_, text, _, _) in enumerate(told)
    }
    source = InputFile(name="", sha256="", lines=len(answers))
    assert score(AnswerFile("tuned", source, answers), truths, "crack") == {
        "kind, recall": 0.5,
        "kind, called so wrongly": 0.25,
        "kind, balanced accuracy": 0.66667,
        "by name, recall": 1,
        "by name, balanced accuracy": 0.75,
    }


def trained(arm: str, seed: int, recall: float) -> Trained:
    return Trained(
        settings={}, seconds=1, subject="tiles", seed=seed, arm=arm, pictures=50, scores={"recall": recall}
    )


def test_arms_are_compared_in_the_seeds_that_both_have_done() -> None:
    none = [trained("none", seed, recall) for seed, recall in ((0, 0.5), (1, 0.4), (2, 0.9))]
    found = summarise([*none, trained("paste", 1, 0.55), trained("paste", 0, 0.6)])
    difference = found["differences"]["paste - none"]["recall"]
    # of two seeds the t quantile is 12.706, and the standard error half of what they differ by
    assert difference == {"mean": 0.125, "low": -0.1927, "high": 0.4427, "seeds": [0.1, 0.15]}
    tiles = Subject(name="tiles", recipe="magnetic_tile", kind="crack", kept=5)
    *_, head, _, pictures, scores = table(tiles, found)
    assert head == "| | none (3 seeds) | paste (2 seeds) | paste - none |"
    assert pictures == "| training pictures | 50 | 50 |  |"
    assert scores == "| recall | 0.600 | 0.575 | +0.125 [-0.193, +0.443] |"


def test_what_was_prepared_is_known_again(tmp_path: Path) -> None:
    tiles = read_subject("tiles:magnetic_tile:crack")
    bench = Benchmark(tmp_path, Plan(subjects=[tiles], train_photos=9, test_photos=9))
    for _ in (1, 2):
        prepare(bench, seeds=0, workers=1)
        assert read_benchmark(tmp_path) == bench
    with pytest.raises(InputError, match="prepared otherwise"):
        prepare(Benchmark(tmp_path, bench.plan.model_copy(update={"count": 5})), seeds=0, workers=1)


def test_photos_are_named_with_their_recipe_and_kind() -> None:
    subject = read_subject("C:/data/tiles:magnetic_tile:uneven surface")
    assert (subject.name, subject.recipe, subject.kind) == ("tiles", "magnetic_tile", "uneven surface")
    with pytest.raises(InputError, match="FOLDER:RECIPE:KIND"):
        read_subject("tiles:magnetic_tile")
