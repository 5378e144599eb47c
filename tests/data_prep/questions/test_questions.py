"""Questions as a recipe asks them: every family's answers, balance, and that nothing leaks."""

import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data_prep.annotations import Conversation, Shape
from data_prep.images.units import Unit
from data_prep.questions.dialogues import make_dialogues
from data_prep.questions.records import QuestionAnswer, to_dialogue, to_question, to_record, to_truth
from data_prep.questions.select import make_questions
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import Split
from eval.scoring.families import family_of
from llava.common.boxes import from_frame, intersection, parse_box
from llava.common.errors import InputError
from llava.common.records import IMAGE_PLACEHOLDER
from llava.common.settings import load_settings, validate_settings
from tests.support.units import CRACK, LANGUAGES, MOSS, asked_of, make_unit, make_units, only


@pytest.fixture(scope="module")
def full(repo: Path) -> Recipe:
    return load_settings(Recipe, repo / "configs" / "recipes" / "insulator_full.yaml")


@pytest.fixture(scope="module")
def trilingual(repo: Path) -> Recipe:
    return load_settings(Recipe, repo / "configs" / "recipes" / "insulator_full.yaml", LANGUAGES)


@pytest.fixture(scope="module")
def units() -> list[Unit]:
    return make_units()


# --- a family each ----------------------------------------------------------------------------------


def test_multiple_choice_names_the_right_option(full: Recipe, units: list[Unit]) -> None:
    items = [item for item in make_questions(units, full, "train", 0)[0] if item.family == "choice"]
    letters: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        right = item.unit.kinds[0] if item.unit.kinds else "none"
        assert item.options["ABCDEF".index(item.answer)] == right
        assert sorted(item.options) == sorted(full.kind_answers)
        assert f"\n{item.answer}. {right}\n" in item.question
        letters[right][item.answer] += 1
    for right, counts in letters.items():
        assert max(counts.values()) - min(counts[letter] for letter in "ABCDEF") <= 1, right
    truth = to_truth(items[0], full, "g")
    assert truth.type == "class" and truth.classes == list("ABCDEF")
    assert truth.meta["options"] == list(items[0].options)


def test_regions_ask_about_boxes_in_the_recipes_frame() -> None:
    recipe = only("region", {"questions": ["What is in {box}?"]}, boxes={"frame": "whole", "decimals": 2})
    items = asked_of(recipe, make_unit(0, CRACK, MOSS))
    assert {item.question: item.answer for item in items} == {
        "What is in [0.10, 0.20, 0.20, 0.40]?": "crack",
        "What is in [0.75, 0.60, 0.90, 0.90]?": "moss",
    }
    truth = to_truth(items[0], recipe, "g")
    assert truth.classes == ["crack", "moss", "none"] and truth.label == truth.answer
    assert (truth.meta["frame"], truth.meta["decimals"]) == ("whole", 2)
    # The trainer may flip it: words and boxes of the question turn along.
    assert to_record(items[0], recipe, "g").meta["flip"] is True


def test_regions_in_sentences() -> None:
    family = {
        "type": "text",
        "questions": ["What is in {box}?"],
        "answers": ["{phrase} {at_place}."],
        "whole": ["Nothing is wrong there."],
        "negatives": 0.5,
    }
    units = make_unit(0, CRACK, MOSS), make_unit(1, Shape("crack", (2, 45, 12, 55)))
    answers = {item.answer for item in asked_of(only("region", family), *units)}
    assert answers == {
        "A crack in the top left.",
        "Moss in the bottom right.",
        "A crack on the left.",
        "Nothing is wrong there.",
    }


def test_boxes_without_a_defect_are_boxes_of_defects_elsewhere(full: Recipe, units: list[Unit]) -> None:
    items = [item for item in make_questions(units, full, "test", 0)[0] if item.task == "region"]
    nothing = [item for item in items if item.answer == "none"]
    assert len(nothing) / len(items) == pytest.approx(0.4, abs=0.01)
    boxes = [shape.box for unit in units for shape in unit.defects]
    assert len({item.unit.image for item in nothing}) > 0.8 * len(nothing), "spread over the pictures"
    for item in nothing:
        box = parse_box(item.question)
        assert box is not None and item.label == "none"
        placed = from_frame(box, 200, 100, "padded")
        width, height = placed[2] - placed[0], placed[3] - placed[1]
        assert any(  # of the same size, and nearly there
            max(abs(width - (b[2] - b[0])), abs(height - (b[3] - b[1]))) < 0.4
            and abs(placed[0] - b[0]) < 0.3 * width + 0.4
            and abs(placed[1] - b[1]) < 0.3 * height + 0.4
            for b in boxes
        )
        assert all(intersection(placed, shape.box) < 0.5 for shape in item.unit.defects)


def test_boxes_without_a_defect_fit_the_size_of_their_picture_and_its_components() -> None:
    recipe = only("region", {"questions": ["{box}"], "negatives": 0.5}, boxes={"frame": "whole"})
    right = replace(make_unit(1), components=(Shape("insulator", (120, 10, 190, 90)),))
    left = replace(make_unit(2), size=(400, 300), components=(Shape("insulator", (0, 30, 200, 270)),))
    with_crack = replace(
        make_unit(0, Shape("crack", (0, 20, 20, 40))), components=(Shape("insulator", (0, 10, 190, 90)),)
    )
    items = {item.unit.source: item for item in asked_of(recipe, with_crack, right, left)}
    assert items["u0"].question == "[0.000, 0.200, 0.100, 0.400]"
    x1, y1, x2, y2 = parse_box(items["u2"].question) or (1, 1, 0, 0)
    # It touches the edge as the crack does, and is moved along it.
    assert (x1, x2) == (0.0, 0.1) and y2 - y1 == pytest.approx(0.2, abs=0.001) and abs(y1 - 0.2) < 0.061


def test_nearly_equal_boxes_of_two_kinds_are_not_asked_about() -> None:
    """Which of the two they show is an opinion; two questions would have two answers to one thing."""
    twin = Shape("moss", (20, 20, 41, 41))
    for family in ({"family": "region"}, {"family": "where", "of": "each"}):
        wording = "{box}" if family["family"] == "region" else "Where is the {kind}?"
        recipe = only("task", {**family, "questions": [wording]})
        items, skipped = make_questions([make_unit(0, CRACK, twin), make_unit(1, MOSS)], recipe, "test", 0)
        assert [item.unit.source for item in items] == ["u1"]
        assert skipped == {"task: nearly equal boxes of different kinds": 2}
        apart = make_unit(0, CRACK, Shape("moss", (20, 20, 60, 40)))
        assert len(asked_of(recipe, apart)) == 2


def test_regions_of_a_component_say_what_is_wrong_with_it() -> None:
    recipe = only("region", {"of": "insulator", "questions": ["What is wrong in {box}?"]})
    two = replace(
        make_unit(0, CRACK),
        components=(Shape("insulator", (0, 0, 60, 60)), Shape("insulator", (70, 0, 90, 9))),
    )
    assert sorted(item.answer for item in asked_of(recipe, two)) == ["crack", "none"]
    edge = replace(make_unit(1, CRACK), components=(Shape("insulator", (35, 35, 60, 60)),))
    items, skipped = make_questions([edge, make_unit(2, CRACK, MOSS)], recipe, "test", 0)
    assert items == []
    assert skipped == {"region: a defect at the edge of the box": 1, "region: several kinds of defect": 1}


def test_reports_are_json_on_one_line() -> None:
    recipe = only("report", {"questions": ["Report."]})

    def report(*defects: Shape) -> str:
        (item,) = asked_of(recipe, make_unit(0, *defects))
        assert to_truth(item, recipe, "g").type == "json"
        return item.answer

    assert report(CRACK) == (
        '{"component": "insulator", "defect": "crack", "severity": "severe", '
        '"location": "top left", "action": "replace"}'
    )
    # Another crack in the same place says nothing new; a larger one comes first.
    far = Shape("crack", (150, 5, 190, 30))
    several = json.loads(report(MOSS, CRACK, Shape("crack", (25, 22, 30, 30)), far))
    assert [(e["defect"], e["location"]) for e in several] == [
        ("crack", "top right"),
        ("crack", "top left"),
        ("moss", "bottom right"),
    ]
    assert json.loads(report()) == {
        "component": "insulator",
        "defect": "none",
        "severity": None,
        "location": None,
        "action": None,
    }


def test_what_is_not_there(full: Recipe, units: list[Unit]) -> None:
    for split in ("train", "test"):
        items = make_questions(units, full, split, 0)[0]
        for task, share in (("where", 0.2), ("box", 0.2), ("describe_kind", 0.25)):
            per_kind: dict[str, Counter[bool]] = defaultdict(Counter)
            for item in (item for item in items if item.task == task):
                absent = item.about not in item.unit.kinds
                assert absent == (item.answer == "not in this picture" or "There is no" in item.answer)
                per_kind[item.about][absent] += 1
            # The name of a kind does not tell whether it is there.
            for kind, counts in per_kind.items():
                expected = counts[False] * share / (1 - share)
                assert abs(counts[True] - expected) <= 0.5, (task, kind)
    truth = next(to_truth(item, full, "g") for item in items if item.task == "box")
    assert truth.classes == ["not in this picture"]


def test_conversations_of_the_source() -> None:
    recipe = validate_settings(Recipe, {"families": {"talk": {}}, "dialogues": 2}, "vqa.yaml")
    chat = Conversation((("What is it?", "A string."), ("Is it fine?", "Yes.")), "chat")
    units = [
        make_unit(0, conversations=(Conversation((("Any rust?", "Yes"),), "rust"), chat, chat)),
        make_unit(
            1,
            conversations=(
                Conversation((("Any rust?", "no."),), "rust"),
                Conversation((("How old?", "Old"),)),
            ),
        ),
    ]
    items, skipped = make_questions(units, recipe, "test", 0)
    assert skipped == {}
    assert Counter((item.task, item.type) for item in items) == {
        ("rust", "yesno"): 2,
        ("chat", "text"): 2,
        ("vqa", "text"): 1,
    }
    assert len({item.id for item in items}) == len(items)
    record = to_record(next(item for item in items if item.task == "chat"), recipe, "g")
    assert [turn.value for turn in record.conversations] == [
        f"{IMAGE_PLACEHOLDER}\nWhat is it?",
        "A string.",
        "Is it fine?",
        "Yes.",
    ]
    assert record.meta["flip"] is False  # what its words of direction speak of is not known
    # The test asks the first question of it.
    assert to_question(next(i for i in items if i.task == "chat"), recipe).text == "What is it?"
    assert make_dialogues(items, recipe, 0) == []
    for truth in (to_truth(item, recipe, "g") for item in items):
        assert family_of(truth.task, [truth]).evaluate([truth.answer]).right.all()


def test_conversations_are_left_out_or_refused_aloud() -> None:
    unit = make_unit(0, CRACK, conversations=(Conversation((("Any rust?", "Yes"),), "presence"),))
    recipe = only("presence", {"questions": ["Fine?"]})
    assert make_questions([unit], recipe, "test", 0)[1] == {
        "conversations of the source: the recipe has no talk family": 1
    }
    both = recipe.model_dump() | {"families": {"presence": {"questions": ["Fine?"]}, "talk": {}}}
    with pytest.raises(InputError, match=r"'presence'.*another key"):
        make_questions([unit], validate_settings(Recipe, both, "t"), "test", 0)


def test_what_a_label_without_a_place_cannot_answer_is_counted(full: Recipe) -> None:
    items, skipped = make_questions([make_unit(0, labels=("pollution",))], full, "test", 0)
    answers = {item.task: item.answer for item in items}
    assert answers["presence"] == "yes" and answers["kind"] == "pollution"
    assert answers["describe_fully"] == "There is pollution on the insulator."
    placed = ("count", "where", "box", "describe", "region_of_insulator", "describe_kind", "report")
    assert skipped == {f"{task}: defects without boxes": 1 for task in placed}
    # A box beside a kind whose place is unknown may hold that kind too.
    assert "region" not in answers


def test_what_could_have_one_answer_only_is_not_asked(full: Recipe) -> None:
    """Folders of sound and of defective pictures: what asks for places can be asked of the sound alone."""
    unplaced = [make_unit(number, labels=("pollution",)) for number in range(3)]
    sound = [make_unit(number) for number in range(3, 7)]
    tasks = {"count": "'0'", "describe": "'An insulator without defects.'", "report": "'{"}

    def asked(units: list[Unit], split: Split = "test") -> tuple[dict[str, list[str]], Counter[str]]:
        items, skipped = make_questions(units, full, split, 0)
        return {task: sorted(i.answer for i in items if i.task == task) for task in tasks}, skipped

    for split in ("train", "test"):
        answers, skipped = asked([*unplaced, *sound], split)
        for task, answer in tasks.items():
            reasons = [reason for reason in skipped if reason.startswith(f"{task}: every answer would be")]
            assert answers[task] == [] and len(reasons) == 1 and skipped[reasons[0]] == 4
            assert answer in reasons[0] and reasons[0].endswith("as no defect has a box")
    assert asked([*unplaced, *sound, make_unit(7, CRACK)])[0]["count"] == ["0"] * 4 + ["1"]
    assert asked(sound)[0]["count"] == ["0"] * 4, "a test without any defect: 0 is the truth"
    # Whatever the sentences are, and also where there are boxes.
    recipe = only("d", {"family": "describe", "questions": ["?"], "answers": ["A."], "whole": ["B.", "C."]})
    many = [make_unit(number) for number in range(10)]
    ((reason, number),) = make_questions(many, recipe, "train", 0)[1].items()
    assert reason.startswith("d: every answer would be '") and number == 10


# --- dialogues ----------------------------------------------------------------------------------------


def test_no_turn_asks_what_an_earlier_one_tells(full: Recipe, units: list[Unit]) -> None:
    recipe = full.model_copy(update={"dialogues": 4})
    items = make_questions(units, full, "train", 0)[0]
    dialogues = make_dialogues(items, recipe, 0)
    assert len(dialogues) > 2 * len(units) and {len(turns) for turns in dialogues} == {2, 3}
    pairs = [
        (first, second)
        for turns in dialogues
        for position, first in enumerate(turns)
        for second in turns[position + 1 :]
    ]
    for first, second in pairs:
        there = first.about in ("defect", *first.unit.kinds) and bool(first.unit.kinds)
        about_all = first.about == "defect" and first.family != "region"
        if about_all and not there:  # it said that nothing is wrong
            raise AssertionError((first.task, second.task))
        if there and first.family != "count":
            assert second.task != "presence"
        if there and first.family in ("kind", "choice", "describe", "report") and about_all:
            assert second.task not in ("presence_of", "kind", "choice")
        if there and first.task == "box" and second.task == "where":
            assert first.about != second.about
    tasks = {(first.task, second.task) for first, second in pairs}
    assert {("presence", "kind"), ("presence_of", "presence"), ("kind", "where"), ("count", "box")} <= tasks


# --- balance ----------------------------------------------------------------------------------------


def counts_of(recipe: Recipe, units: list[Unit], task: str, split: Split = "train") -> Counter[str]:
    return Counter(item.answer for item in make_questions(units, recipe, split, 0)[0] if item.task == task)


def test_common_answers_are_capped_in_train_alone() -> None:
    units = [make_unit(n, *([CRACK] if n < 30 else [MOSS] if n < 34 else [])) for n in range(130)]
    family = {"questions": ["Which?", "Which one?"], "times": 2}
    free, capped = (only("kind", {**family, **cap}) for cap in ({}, {"cap": 2}))
    assert counts_of(free, units, "kind") == {"none": 192, "crack": 60, "moss": 8}
    # Twice the median answer, crack.
    assert counts_of(capped, units, "kind") == {"none": 120, "crack": 60, "moss": 8}
    assert counts_of(capped, units, "kind", "test") == {"none": 96, "crack": 30, "moss": 4}


def test_sentences_of_every_length_are_as_frequent(full: Recipe, units: list[Unit]) -> None:
    items = [item for item in make_questions(units, full, "train", 0)[0] if item.task == "describe_fully"]
    for defective, starts in (
        (True, ("There is", "The insulator was inspected")),
        (
            False,
            (
                "The insulator has no",
                "The insulator was inspected and no",
                "The insulator was inspected and is",
            ),
        ),
    ):
        said = [item.answer for item in items if bool(item.unit.kinds) == defective]
        longest_first = sorted(starts, key=len, reverse=True)
        counts = Counter(next(start for start in longest_first if text.startswith(start)) for text in said)
        sentences = 3
        assert set(counts) == set(starts)
        for start, count in counts.items():
            share = 2 / 3 if defective and start == "There is" else 1 / sentences
            assert abs(count - share * len(said)) <= 1
    first = [
        item.answer for item in make_questions(units, full, "test", 0)[0] if item.task == "describe_fully"
    ]
    assert all("inspected" not in text for text in first), "the test takes the first sentence"


# --- the same everywhere, and no leaks --------------------------------------------------------------


def lines(recipe: Recipe, units: Sequence[Unit], seed: int = 0) -> str:
    items = make_questions(units, recipe, "train", seed)[0]
    records = [to_record(item, recipe, "g") for item in items]
    records += [to_dialogue(talk, recipe, "g") for talk in make_dialogues(items, recipe, seed)]
    return "\n".join(record.model_dump_json() for record in records)


@pytest.mark.slow
def test_the_order_of_the_units_makes_no_difference(trilingual: Recipe, units: list[Unit]) -> None:
    shuffled = random.Random(5).sample(units, len(units))
    assert lines(trilingual, units) == lines(trilingual, shuffled)
    assert lines(trilingual, units) != lines(trilingual, units, seed=1)


@pytest.mark.slow
def test_no_random_hashes_decide(repo: Path) -> None:
    """Two interpreters that hash texts differently write the same questions."""
    code = (
        "import hashlib; from tests.data_prep.questions import test_questions as t;"
        "from pathlib import Path; from llava.common.settings import load_settings;"
        "r = load_settings(t.Recipe, Path('configs/recipes/insulator_full.yaml'),"
        "[*t.LANGUAGES, 'families.kind.cap=1']);"
        "print(hashlib.sha256(t.lines(r, t.make_units(60)).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=repo,
            env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, locale in (("1", "C"), ("2", "C.UTF-8"))
    }
    assert len(found) == 1


def test_ids_and_order_do_not_tell_the_answer(trilingual: Recipe) -> None:
    units = make_units(400)
    items = make_questions(units, trilingual, "train", 0)[0]
    assert len({item.id for item in items}) == len(items)
    for item in items:
        # Another answer to the same question would have the same id.
        assert replace(item, answer="other", yes=not item.yes, label="x").id == item.id
    position: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for item in items:
        position[item.id] = seen[item.unit.image]
        seen[item.unit.image] += 1
    by_task: dict[tuple[str, str], list[QuestionAnswer]] = defaultdict(list)
    for item in items:
        if item.type in ("yesno", "class", "count"):
            by_task[item.task, item.language].append(item)
    assert len(by_task) == 3 * 8
    for (task, language), asked in by_task.items():
        answers = np.array([item.answer for item in asked])
        for tells in (
            [position[item.id] / seen[item.unit.image] >= 0.5 for item in asked],
            [int(item.id[0], 16) < 8 for item in asked],
            [int(item.id[-1], 16) % 2 == 0 for item in asked],
            [item.id < asked[index - 1].id for index, item in enumerate(asked)],
        ):
            side = np.array(tells)
            for answer in np.unique(answers):
                n, p = int((answers == answer).sum()), side.mean()
                off = abs(side[answers == answer].sum() - n * p) / max(1.0, (n * p * (1 - p)) ** 0.5)
                assert off < 4.5, (task, language, answer)  # standard deviations; 24 tasks, 4 ways each


def test_of_two_answers_about_an_image_either_may_come_first(full: Recipe) -> None:
    order: dict[str, Counter[bool]] = defaultdict(Counter)
    seen: dict[tuple[str, str], QuestionAnswer] = {}
    for item in make_questions(make_units(400), full, "train", 0)[0]:
        first = seen.setdefault((item.unit.image, item.task), item)
        if first.answer != item.answer:
            order[item.task][first.answer < item.answer] += 1
    assert len(order) >= 3
    for task, counts in order.items():
        n = counts.total()
        assert abs(counts[True] - n / 2) < 4.5 * (n / 4) ** 0.5 + 1, task


def test_neighbours_in_the_file_are_independent() -> None:
    """Runs of one answer over the pictures in file order are as long as chance makes them."""
    recipe = only("presence", {"questions": ["Fine?"]})
    units = [make_unit(number, *([CRACK] if number < 200 else [])) for number in range(400)]
    answers = [item.yes for item in asked_of(recipe, *units)]
    changes = sum(a != b for a, b in pairwise(answers))
    assert 160 < changes < 240  # 200 expected, standard deviation 10


def test_closed_questions_state_their_choices(trilingual: Recipe, units: list[Unit]) -> None:
    """In the words of the question's language, as the truth's classes."""
    seen: set[tuple[str, str]] = set()
    for item in make_questions(units, trilingual, "test", 0)[0]:
        question, truth = to_question(item, trilingual), to_truth(item, trilingual, "g")
        if truth.type in ("yesno", "class"):
            assert question.choices == (truth.classes or ["yes", "no"])
            assert truth.answer in question.choices
            seen.add((truth.type, truth.language))
        else:
            assert question.choices is None
    assert seen == {(kind, language) for kind in ("yesno", "class") for language in ("en", "ko", "ru")}
    unasked = only("p", {"family": "presence", "questions": ["Is there?"], "choices": False})
    assert all(to_question(item, unasked).choices is None for item in asked_of(unasked, make_unit(1, CRACK)))


def test_truth_states_how_much_of_the_image_its_box_covers() -> None:
    recipe = only("p", {"family": "presence", "of": "each", "questions": ["Is there {phrase}?"]})
    items = asked_of(recipe, make_unit(1, CRACK, Shape("crack", (0, 0, 100, 50))))
    areas = {
        truth.answer: truth.meta.get("area") for truth in (to_truth(item, recipe, "g") for item in items)
    }
    assert areas == {"yes": 0.25, "no": None}
    insulator = only("p", {"family": "presence", "of": "insulator", "questions": ["Is there {phrase}?"]})
    (item,) = asked_of(insulator, make_unit(1, CRACK))
    assert to_truth(item, insulator, "g").meta["area"] == 180 * 80 / (200 * 100)
    (item,) = asked_of(only("p", {"family": "presence", "questions": ["Any?"]}), make_unit(1))
    assert "area" not in to_truth(item, recipe, "g").meta
