"""Corrections of a survey, read as annotations, and the loop that they close."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.formats import corrections
from data_prep.source_folder import SourceFolder
from eval.survey.findings import Finding, Findings
from llava.common.corrections import Correction, Corrections
from llava.common.errors import InputError
from llava.common.files import read_json, read_json_list, write_json
from llava.common.records import Record
from tests.support.found import finding, write_survey
from tests.support.label_files import json_like
from tests.support.photos import KINDS
from tests.support.read_source import boxes_of, labels_of, problems_of, read_auto

BOX = (0.1, 0.2, 0.5, 0.8)


def saved(*said: dict[str, Any], survey: str = "0f2c") -> dict[str, Any]:
    """Return a corrections.json; a finding is named like its photo where `said` does not name it."""
    whole = [{"finding": one["photo"], "decision": "defect", "note": "", **one} for one in said]
    return {
        "format": "llava-inspect corrections",
        "version": 1,
        "survey": survey,
        "photos_folder": "/home/me/photos",
        "corrections": whole,
    }


def test_what_each_verdict_says(tmp_path: Path, put: Callable) -> None:
    for name in ("a", "b", "tower 2/c", "d", "unjudged"):
        put(f"photos/{name}.jpg")
    said = [
        {"photo": "a.jpg", "verdict": "accept", "kind": "flashover", "box": BOX},
        {"finding": "a2", "photo": "a.jpg", "verdict": "reject", "kind": "pollution", "box": BOX},
        {"photo": "b.jpg", "verdict": "correct", "kind": " bird  nest"},
        {"photo": "tower 2/c.jpg", "verdict": "reject"},
        {"photo": "d.jpg", "decision": "sound", "verdict": "accept"},
    ]
    put("corrections.json", saved(*said))
    source = read_auto(tmp_path, "corrections")
    assert boxes_of(source) == {
        "photos/a": [("flashover", (10, 10, 50, 40))],
        "photos/b": [],
        "photos/d": [],
        "photos/tower 2/c": [],
    }
    assert {key: labels for key, labels in labels_of(source).items() if labels} == {"photos/b": ["bird nest"]}
    assert [path.name for path in source.unannotated] == ["unjudged.jpg"]


def test_a_photo_with_something_unnamed_is_left_out(tmp_path: Path, put: Callable) -> None:
    """Neither a defect of no kind nor what is not sound may pass for a photo that shows nothing."""
    for name in "abc":
        put(f"{name}.jpg")
    said = [
        {"photo": "a.jpg", "decision": "sound", "verdict": "reject"},
        {"photo": "b.jpg", "decision": "ask", "verdict": "accept"},
        {"finding": "b2", "photo": "b.jpg", "verdict": "reject", "kind": "nest"},
        {"photo": "c.jpg", "verdict": "reject"},
    ]
    put("corrections.json", saved(*said))
    source = read_auto(tmp_path, "corrections")
    assert boxes_of(source) == {"c": []}
    assert source.notes == (
        "left out, for instance 'a.jpg': 2 photo(s) of which a correction says that something is there, but "
        "not what; correct them with a kind",
    )


def test_another_person_s_word_leaves_a_photo_out_too(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("b.jpg")
    nothing = {"verdict": "reject"}
    put("ann.json", saved({"photo": "a.jpg", **nothing}, {"photo": "b.jpg", **nothing}))
    put("bob.json", saved({"finding": "a2", "photo": "a.jpg", "decision": "ask", "verdict": "accept"}))
    assert boxes_of(read_auto(tmp_path, "corrections")) == {"b": []}


def test_a_photo_of_a_burst_does_not_pass_for_sound(tmp_path: Path, put: Callable) -> None:
    """What was accepted where it shows best is in the burst's other photo too, where its own was rejected."""
    for name in "abc":
        put(f"{name}.jpg")
    said = [
        {"photo": "a.jpg", "verdict": "reject", "more_photos": ["b.jpg"]},
        {
            "photo": "b.jpg",
            "verdict": "accept",
            "kind": "nest",
            "box": BOX,
            "more_photos": ["a.jpg", "gone.jpg"],
        },
        {"photo": "c.jpg", "decision": "sound", "verdict": "accept", "more_photos": ["b.jpg"]},
    ]
    put("corrections.json", saved(*said))
    source = read_auto(tmp_path, "corrections")
    assert boxes_of(source) == {"b": [("nest", (10, 10, 50, 40))], "c": []}
    assert "'a.jpg': 1 photo(s) which show what has its place in another photo" in source.notes[0]


def test_a_box_is_on_the_upright_photo(tmp_path: Path, put: Callable) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (100, 50)).save(tmp_path / "a.jpg", exif=turned)
    put("c.json", saved({"photo": "a.jpg", "verdict": "accept", "kind": "nest", "box": BOX}))
    (image,) = read_auto(tmp_path, "corrections").images
    assert image.annotations[0].size == (50, 100)
    assert image.annotations[0].shapes[0].box == pytest.approx((5, 20, 25, 80))


def test_several_files_are_read_and_must_agree(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    accepted = {"photo": "a.jpg", "verdict": "accept", "kind": "nest", "box": BOX}
    put("ann.json", saved(accepted))
    put("bob.json", saved(accepted | {"verdict": "correct", "note": "sure"}))
    put("next_survey.json", saved(accepted | {"verdict": "reject"}, survey="77aa"))
    assert boxes_of(read_auto(tmp_path, "corrections")) == {"a": [("nest", (10, 10, 50, 40))]}
    put("bob.json", saved(accepted | {"verdict": "reject"}))
    assert problems_of(tmp_path, "corrections") == [
        f"{tmp_path}/bob.json, correction 1 (finding 'a.jpg'): is judged otherwise in {tmp_path}/ann.json; "
        "keep one of them"
    ]


@pytest.mark.parametrize("decision", ["sound", "defect"])
def test_files_that_disagree_without_a_kind_are_named(tmp_path: Path, put: Callable, decision: str) -> None:
    """One says that the photo shows nothing, the other that something is there, but not what."""
    put("a.jpg")
    for name, verdict in (("ann", "accept"), ("bob", "reject")):
        put(f"{name}.json", saved({"photo": "a.jpg", "decision": decision, "verdict": verdict}))
    (problem,) = problems_of(tmp_path, "corrections")
    assert "is judged otherwise in" in problem


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"verdict": "correct"}, "corrections.0: it is corrected, but names no kind"),
        ({"verdict": "accept", "box": BOX}, "corrections.0: it has a box, but names no kind"),
        ({"verdict": "accept", "kind": "nest", "box": (0.5, 0.2, 0.1, 0.8)}, "its box is not x1, y1, x2, y2"),
        ({"verdict": "accept", "kind": "nest", "box": (10, 20, 50, 80)}, "its box is not x1, y1, x2, y2"),
        ({"verdict": "correct", "kind": "nest", "box": (0.1, 0.2, 0.5)}, "its box is not x1, y1, x2, y2"),
        ({"verdict": "correct", "kind": "nest", "box": "left"}, "its box is not x1, y1, x2, y2"),
        ({"verdict": "correct", "kind": "nest", "box": (0, 0, 1, float("nan"))}, "its box is not x1, y1"),
        ({"verdict": "maybe"}, "corrections.0.verdict: "),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, put: Callable, said: dict, why: str) -> None:
    put("a.jpg")
    put("c.json", saved({"photo": "a.jpg", **said}))
    (problem,) = problems_of(tmp_path, "corrections")
    assert problem.startswith(f"{tmp_path}/c.json: not a survey's corrections (") and why in problem


def test_a_photo_that_is_not_there_is_named(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("c.json", saved({"photo": "day 2/b.jpg", "verdict": "reject"}))
    assert problems_of(tmp_path, "corrections") == [
        f"{tmp_path}/c.json: no picture named 'b.jpg' in {tmp_path} or below"
    ]


@settings(max_examples=40)
@given(st.lists(json_like(Correction.model_fields, ["accept", "reject", "correct", "a.jpg"]), max_size=3))
def test_any_corrections_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, said: list) -> None:
    root = tmp_path_factory.mktemp("any")
    Image.new("L", (9, 9)).save(root / "a.jpg")
    (root / "c.json").write_text(json.dumps(saved() | {"corrections": said}))
    try:
        _, problems = corrections.read(SourceFolder.scan(root))
    except InputError as error:
        problems = [str(error)]
    assert all("\n" not in problem for problem in problems)


def judge(found: Finding, truth: str | None) -> Correction:
    """Return what a person who knows the truth says of a finding."""
    if truth is None:
        return Correction(finding=found.id, photo=found.photo, decision=found.decision, verdict="reject")
    verdict = "accept" if found.kind == truth else "correct"
    return Correction(
        finding=found.id,
        photo=found.photo,
        decision=found.decision,
        verdict=verdict,
        kind=truth,
        box=found.box,
    )


def test_survey_corrections_convert(tmp_path: Path, repo: Path) -> None:
    """The loop closes: of false alarms and wrong kinds comes training data with the right answers."""
    truths = {f"{number:02d}.jpg": (*KINDS, None)[number % 6] for number in range(36)}
    boxes = {name: (0.1, 0.2, 0.3, 0.8) if name < "18" else (0.7, 0.2, 0.9, 0.8) for name in truths}
    found = [
        finding(f"f{name}", name, "ask" if name > "20" else "defect", kind=KINDS[number % 5], box=boxes[name])
        for number, name in enumerate(truths)
    ]
    survey = read_json(write_survey(tmp_path, *found, kinds=KINDS))
    findings = Findings.model_validate(survey).findings
    judged = [judge(one, truths[one.photo]) for one in findings]
    assert {one.verdict for one in judged} == {"accept", "reject", "correct"}
    content = Corrections(survey="0f2c", photos_folder=survey["photos_folder"], corrections=judged)
    write_json(tmp_path / "photos" / "corrections.json", content)

    source, output = str(tmp_path / "photos"), tmp_path / "data"
    assert data_prep(["inspect", "--source", source, "--output", str(tmp_path / "look.html")]) == 0
    recipe = str(repo / "configs" / "recipes" / "insulator.yaml")
    group = ["group.twins=null", "group.shifted=false"]  # the photos are plain colours
    assert (
        data_prep(["convert", "--source", source, "--recipe", recipe, "--output", str(output), *group]) == 0
    )
    records = [
        one for split in ("train", "val", "test") for one in read_json_list(output / f"{split}.json", Record)
    ]
    asked = {(one.meta["source"], one.meta["task"]): one.conversations[1].value for one in records}
    assert {name for name, _ in asked} == {name.removesuffix(".jpg") for name in truths}
    assert {"presence", "kind", "count", "where"} <= {task for _, task in asked}
    for (name, task), answer in asked.items():
        truth = truths[f"{name}.jpg"]
        if task == "presence":
            assert answer == ("yes" if truth else "no")
        if task == "kind":
            assert answer == (truth or "none")
        if task == "where" and truth:
            assert answer == ("left" if name < "18" else "right")
        if task == "count":
            assert answer == ("1" if truth else "0")
